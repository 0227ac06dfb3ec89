"""What every profile gives. Adding one: a module with these names, its signature file, one line in `PROFILES`."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from botkeep import fields
from botkeep.model import CauseClass, ConfigError, Fault

FILE_LIMIT = 1 << 20


@dataclass(frozen=True)
class Signature:
    """A log line with a meaning. The keys are explained in the signature files."""

    id: str
    pattern: str
    contains: tuple[str, ...]
    cause: str
    klass: CauseClass
    fault: Fault | None
    until: str | None
    source: str
    example: str
    recent: timedelta

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """Compiled when a line first holds the literal text. Raises re.error."""
        return re.compile(self.pattern)

    @cached_property
    def literals(self) -> tuple[bytes, ...]:
        """`contains` as a log file has it."""
        return tuple(text.encode() for text in self.contains)

    def check(self) -> None:
        """Raises ValueError if the pattern does not compile, match its own example, or have the group `until`."""
        try:
            matched = self.regex.search(self.example)
        except re.error as error:
            raise ValueError(f"pattern: write one that Python's re knows: {error}") from error
        if not matched or (self.contains and not any(text in self.example for text in self.contains)):
            raise ValueError("example: write a line that pattern and contains match")
        if self.until is not None and self.until not in self.regex.groupindex:
            raise ValueError("until: name a group of the pattern, like (?P<until>[0-9]{13})")


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


def packaged(name: str) -> Catalogue:
    """The signatures that come with botkeep for this profile. Its tests have checked them."""
    return load(Path(__file__).parent / "signatures" / f"{name}.yaml", trusted=True)


def load(path: Path, *, trusted: bool = False) -> Catalogue:
    """Read a signature file. Raises ConfigError if it cannot be used at all.

    `trusted`: the patterns are not compiled yet, since most of them never meet a line that needs them.
    """
    raw = _read(path)
    exits = raw.get("exits") or {}
    good: dict[str, Signature] = {}
    problems: list[str] = []
    for number, entry in enumerate(raw.get("signatures") or ()):
        try:
            signature = _signature(entry, good, trusted=trusted)
            good[signature.id] = signature
        except ValueError as error:
            problems.append(_problem(path, number, entry, error))
    return Catalogue(tuple(good.values()), exits.get("codes") or {}, exits.get("signals") or {}, tuple(problems))


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


_REQUIRED = frozenset({"id", "pattern", "cause", "class", "fault", "source", "example", "recent"})
_OPTIONAL = frozenset({"contains", "until"})


def _signature(raw: Any, known: Container[str], *, trusted: bool) -> Signature:
    """One entry of the file. Raises ValueError with `key: what to write`."""
    _check_keys(raw)
    _check_texts(raw)
    if raw["id"] in known:
        raise ValueError("id: it stands twice, and the first counts; give it another")
    signature = Signature(
        id=raw["id"],
        pattern=raw["pattern"],
        contains=tuple(raw.get("contains") or ()),
        cause=raw["cause"],
        klass=_one_of(CauseClass, "class", raw["class"]),
        fault=None if raw["fault"] is None else _one_of(Fault, "fault", raw["fault"]),
        until=raw.get("until"),
        source=raw["source"],
        example=raw["example"],
        recent=_recent(raw["recent"]),
    )
    if not trusted:
        signature.check()
    return signature


def _check_keys(raw: Any) -> None:
    keys = frozenset(raw) if isinstance(raw, dict) else frozenset()
    missing, unknown = _REQUIRED - keys, keys - _REQUIRED - _OPTIONAL
    if missing:
        raise ValueError(f"{min(missing)}: it is missing; write it")
    if unknown:
        name = min(map(str, unknown))
        raise ValueError(f"{name}: there is no such key; {fields.closest(name, sorted(_REQUIRED | _OPTIONAL))}")


def _check_texts(raw: dict[str, Any]) -> None:
    for key in ("id", "pattern", "cause", "source", "example"):
        if not isinstance(raw[key], str) or not raw[key]:
            raise ValueError(f"{key}: write text, not {fields.show(raw[key])}")
    contains = raw.get("contains") or []
    if not isinstance(contains, list) or not all(isinstance(text, str) and text for text in contains):
        raise ValueError("contains: write a list of texts")
    if not re.fullmatch(_ID, raw["id"]):
        raise ValueError(f"id: write lower-case letters, digits and dashes, not {fields.show(raw['id'])}")


_ID = r"[a-z0-9][a-z0-9-]{0,62}"
_Choice = TypeVar("_Choice", bound=StrEnum)


def _one_of(choices: type[_Choice], key: str, value: Any) -> _Choice:
    try:
        return choices(value)
    except ValueError as error:
        raise ValueError(f"{key}: found {fields.show(value)}; {fields.closest(str(value), choices)}") from error


def _recent(value: object) -> timedelta:
    try:
        return fields.parse_duration(value)
    except ValueError as error:
        raise ValueError("recent: write a length of time like 10m or 24h") from error


def _problem(path: Path, number: int, entry: Any, error: ValueError) -> str:
    name = entry.get("id") if isinstance(entry, dict) else None
    return f"{path.name}: signatures[{number}] ({fields.show(name)}): {error}. It is left out; the others work."


def candidates(signatures: Sequence[Signature], line: bytes) -> Iterator[Signature]:
    """The signatures whose literal text the line holds: a find in bytes costs a hundredth of a pattern."""
    for signature in signatures:
        if not signature.contains or any(text in line for text in signature.literals):
            yield signature
