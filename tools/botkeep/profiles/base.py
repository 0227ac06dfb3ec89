"""What every profile gives. Adding one: a module with these names, its signature file, one line in `PROFILES`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from botkeep import fields
from botkeep.model import CauseClass, ConfigError, Fault

FILE_LIMIT = 1 << 20


class Signature(BaseModel):
    """A log line with a meaning. The keys are explained in the signature files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    pattern: str = Field(min_length=1, max_length=1000)
    contains: tuple[str, ...] = ()
    cause: str = Field(min_length=1, max_length=200)
    klass: CauseClass = Field(alias="class")
    fault: Fault | None
    until: str | None = None
    source: str = Field(min_length=1)
    example: str
    recent: fields.Duration

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """Compiled on first use."""
        return re.compile(self.pattern)

    @cached_property
    def literals(self) -> tuple[bytes, ...]:
        """`contains` as a log file has it."""
        return tuple(text.encode() for text in self.contains)

    @model_validator(mode="after")
    def _holds(self) -> Self:
        """The pattern compiles, matches its own example, and has the group that `until` names."""
        try:
            matched = self.regex.search(self.example)
        except re.error as error:
            raise PydanticCustomError(
                "pattern", "write a pattern that Python's re knows: {why}", {"why": str(error)}
            ) from error
        if not matched or (self.contains and not any(text in self.example for text in self.contains)):
            raise PydanticCustomError("example", "write an example that pattern and contains match")
        if self.until is not None and self.until not in self.regex.groupindex:
            raise PydanticCustomError("until", "name a group of the pattern in until, like (?P<until>[0-9]{13})")
        return self


@dataclass(frozen=True)
class Catalogue:
    """One signature file, read. A broken signature is a problem; the others work."""

    signatures: tuple[Signature, ...] = ()
    codes: Mapping[int, str] = field(default_factory=dict)
    """Exit code -> one phrase with `it` as its subject."""
    signals: Mapping[int, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Profile(Protocol):
    """What kind of program a bot is."""

    NAME: str

    def catalogue(self) -> Catalogue:
        """What its log lines and exits mean. Read from its file once."""
        ...

    def signatures(self) -> Sequence[Signature]:
        """The signatures that can be used, the special ones before the general ones."""
        ...


def packaged(name: str) -> Path:
    """The signature file that comes with botkeep for this profile."""
    return Path(__file__).parent / "signatures" / f"{name}.yaml"


def load(path: Path) -> Catalogue:
    """Read a signature file. Raises ConfigError if it cannot be used at all."""
    raw = _read(path)
    exits = raw.get("exits") or {}
    signatures, problems = _signatures(path, raw.get("signatures") or [])
    return Catalogue(tuple(signatures), exits.get("codes") or {}, exits.get("signals") or {}, tuple(problems))


def _read(path: Path) -> dict[str, Any]:
    import yaml  # only where a log has something new to say

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, but not in every build of PyYAML
    try:
        raw = yaml.load(path.read_bytes()[:FILE_LIMIT], Loader=loader)  # noqa: S506 - both are the safe loader
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"The signatures in {path} cannot be read: {error}. Mend the file.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds no signatures: it must be a mapping with the key `signatures`.")
    return raw


def _signatures(path: Path, raw: Sequence[Any]) -> tuple[list[Signature], list[str]]:
    good: dict[str, Signature] = {}
    problems: list[str] = []
    for number, entry in enumerate(raw):
        try:
            signature = Signature.model_validate(entry)
        except ValidationError as error:
            problems.append(_problem(path, number, entry, error))
            continue
        if signature.id in good:
            problems.append(f"{path.name}: signatures[{number}]: the id {signature.id} stands twice; the first counts.")
        good.setdefault(signature.id, signature)
    return list(good.values()), problems


def _problem(path: Path, number: int, entry: Any, error: ValidationError) -> str:
    name = entry.get("id") if isinstance(entry, dict) else None
    place, text = fields.explain(error, Signature)
    where = fields.json_path(place, f"signatures[{number}]")
    return f"{path.name}: {where} ({fields.show(name)}): {text}. This signature is left out."


def candidates(signatures: Sequence[Signature], line: bytes) -> Iterator[Signature]:
    """The signatures whose literal text the line holds: a find in bytes costs a hundredth of a pattern."""
    for signature in signatures:
        if not signature.contains or any(text in line for text in signature.literals):
            yield signature
