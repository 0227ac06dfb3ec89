"""What the lines of a program's log mean: its signature file, read and checked, entry by entry."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from botkeep import fields
from botkeep.model import CauseClass, ConfigError, Fault

from .signature import After, LinePattern, MarkPattern, Rule, Signature, candidates

__all__ = [
    "DATED", "FILE_LIMIT", "After", "Catalogue", "MarkPattern", "Rule", "Signature",
    "candidates", "entries", "load", "mark_of", "merged", "packaged", "show", "signature_of",
]  # fmt: skip

FILE_LIMIT = 1 << 20
DATED = "dated"
"""`joins`: a line that does not begin with a date continues the one above."""
MODES = 55
MOST_LINES = 1000
"""That `after` may ask for."""


@dataclass(frozen=True)
class Catalogue:
    """Signature files, read. A broken entry is a problem; the others work."""

    signatures: tuple[Signature, ...] = ()
    """A line counts for the first that matches it."""
    codes: Mapping[int, str] = field(default_factory=dict)
    """Exit code -> one phrase with `it` as its subject."""
    signals: Mapping[int, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    marks: tuple[MarkPattern, ...] = ()
    """A line may be several of them, beside what it means."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    joins: str = ""
    """`dated`, or empty: every line stands for itself."""

    @cached_property
    def patterns(self) -> tuple[LinePattern, ...]:
        """Signatures, then marks."""
        return (*self.signatures, *self.marks)


def packaged(name: str) -> Catalogue:
    """The signatures that come with botkeep for this profile. Its tests have checked them."""
    return load(Path(__file__).parent / "signatures" / f"{name}.yaml", trusted=True)


def merged(catalogues: Iterable[Catalogue]) -> Catalogue:
    """One catalogue of several: the special before the general, and of two entries with one id the first."""
    every = list(catalogues)
    return Catalogue(
        signatures=_first_by_id(one for each in every for one in each.signatures),
        codes=_first_of(each.codes for each in every),
        signals=_first_of(each.signals for each in every),
        problems=tuple(dict.fromkeys(text for each in every for text in each.problems)),
        marks=_first_by_id(one for each in every for one in each.marks),
        rules=_first_of(each.rules for each in every),
        joins=next((each.joins for each in every if each.joins), ""),
    )


class _Named(Protocol):
    @property
    def id(self) -> str: ...


_Entry = TypeVar("_Entry", bound=_Named)
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def _first_by_id(entries: Iterable[_Entry]) -> tuple[_Entry, ...]:
    return tuple(_first_of([{one.id: one} for one in entries]).values())


def _first_of(mappings: Iterable[Mapping[_Key, _Value]]) -> dict[_Key, _Value]:
    first: dict[_Key, _Value] = {}
    for mapping in mappings:
        first |= {key: value for key, value in mapping.items() if key not in first}
    return first


# --------------------------------------------------------------------------------------------------- reading a file


def load(path: Path, *, trusted: bool = False) -> Catalogue:
    """Read a signature file. Raises ConfigError if it cannot be used at all.

    `trusted`: the patterns are not compiled yet, since most of them never meet a line that needs them.
    """
    return _catalogue(_read(path), path.name, trusted=trusted)


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


def _catalogue(raw: Mapping[str, Any], file: str, *, trusted: bool) -> Catalogue:
    problems: list[str] = []
    signatures = entries(raw, "signatures", file, problems, lambda entry: signature_of(entry, trusted=trusted))
    marks = entries(raw, "marks", file, problems, lambda entry: mark_of(entry, trusted=trusted))
    rules = entries(raw, "rules", file, problems, _rule)
    joins = raw.get("joins") or ""
    if joins not in ("", DATED):
        problems.append(f"{file}: joins: found {show(joins)}; write `dated`, or leave it out. It is left out.")
        joins = ""
    exits = raw.get("exits") or {}
    return Catalogue(
        signatures=tuple(signatures.values()),
        codes=exits.get("codes") or {},
        signals=exits.get("signals") or {},
        problems=tuple(problems),
        marks=tuple(marks.values()),
        rules=rules,
        joins=joins,
    )


def entries(
    raw: Mapping[str, Any], key: str, file: str, problems: list[str], make: Callable[[Any], _Entry]
) -> dict[str, _Entry]:
    """The good entries of one list by their ids; what is wrong with the others goes to `problems`.

    `make` makes one, or raises ValueError with `key: what to write`. `file` names the file in the problems.
    """
    good: dict[str, _Entry] = {}
    found = raw.get(key) or []
    if not isinstance(found, list):
        problems.append(f"{file}: {key}: found {show(found)}; write a list. It is left out.")
        return good
    for number, entry in enumerate(found):
        try:
            made = make(entry)
            _check_new(made.id, good)
            good[made.id] = made
        except ValueError as error:
            name = entry.get("id") if isinstance(entry, dict) else None
            problems.append(f"{file}: {key}[{number}] ({show(name)}): {error}. It is left out; the others work.")
    return good


def _check_new(name: str, known: Container[str]) -> None:
    if name in known:
        raise ValueError("id: it stands twice, and the first counts; give it another")


def show(value: object) -> str:
    """A value of the file for a sentence; what holds others is only named, for nobody knows how large it is."""
    if isinstance(value, dict | list | set):
        return "a mapping" if isinstance(value, dict) else "a list"
    return fields.show(value)


# -------------------------------------------------------------------------------------------------- reading an entry

_LINE = frozenset({"id", "pattern", "example"})
_LINE_OPTIONAL = frozenset({"contains", "unless", "source"})
_REQUIRED = _LINE | {"cause", "class", "fault", "source", "recent"}
_OPTIONAL = frozenset({"contains", "until", "unless", "after", "do", "mode"})
_RULE = frozenset({"id", "mode", "cause", "class", "fault", "do", "source"})


def signature_of(raw: Any, *, trusted: bool = False) -> Signature:
    """One entry of `signatures`. Raises ValueError with `key: what to write`. `trusted`: its example is not tried."""
    _check_keys(raw, _REQUIRED, _OPTIONAL)
    _check_texts(raw, "id", "pattern", "cause", "source", "example", optional=("unless", "until", "do"))
    signature = Signature(
        id=_id(raw["id"]),
        pattern=raw["pattern"],
        contains=_contains(raw),
        unless=raw.get("unless"),
        cause=raw["cause"],
        klass=_one_of(CauseClass, "class", raw["class"]),
        fault=_fault(raw["fault"]),
        until=raw.get("until"),
        source=raw["source"],
        example=raw["example"],
        recent=_length("recent", raw["recent"]),
        advice=raw.get("do") or "",
        modes=_modes(raw.get("mode")),
        after=_after(raw.get("after")),
    )
    if not trusted:
        signature.check()
    return signature


def mark_of(raw: Any, *, trusted: bool = False) -> MarkPattern:
    """One entry of `marks`. Raises ValueError, as `signature_of`."""
    _check_keys(raw, _LINE, _LINE_OPTIONAL)
    _check_texts(raw, "id", "pattern", "example", optional=("unless", "source"))
    mark = MarkPattern(
        id=_id(raw["id"]),
        pattern=raw["pattern"],
        contains=_contains(raw),
        unless=raw.get("unless"),
        example=raw["example"],
        source=raw.get("source") or "",
    )
    if not trusted:
        mark.check()
    return mark


def _rule(raw: Any) -> Rule:
    """One entry of `rules`. Raises ValueError."""
    _check_keys(raw, _RULE, frozenset())
    _check_texts(raw, "id", "cause", "do", "source")
    return Rule(
        id=_id(raw["id"]),
        modes=_modes(raw["mode"]),
        cause=raw["cause"],
        klass=_one_of(CauseClass, "class", raw["class"]),
        fault=_fault(raw["fault"]),
        advice=raw["do"],
        source=raw["source"],
    )


def _check_keys(raw: Any, required: frozenset[str], optional: frozenset[str]) -> None:
    keys = frozenset(raw) if isinstance(raw, dict) else frozenset()
    missing, unknown = required - keys, keys - required - optional
    if missing:
        raise ValueError(f"{min(missing)}: it is missing; write it")
    if unknown:
        name = min(map(str, unknown))[:60]
        raise ValueError(f"{show(name)}: there is no such key; {fields.closest(name, sorted(required | optional))}")


def _check_texts(raw: Mapping[str, Any], *keys: str, optional: Iterable[str] = ()) -> None:
    present = (key for key in optional if raw.get(key) is not None)
    for key in (*keys, *present):
        if not isinstance(raw[key], str) or not raw[key]:
            raise ValueError(f"{key}: write text, not {show(raw[key])}")


def _id(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise ValueError(f"id: write lower-case letters, digits and dashes, not {show(text)}")
    return text


def _contains(raw: Mapping[str, Any]) -> tuple[str, ...]:
    texts = raw.get("contains") or []
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("contains: write a list of texts")
    return tuple(texts)


_Choice = TypeVar("_Choice", bound=StrEnum)


def _one_of(choices: type[_Choice], key: str, value: Any) -> _Choice:
    try:
        return choices(value)
    except ValueError as error:
        raise ValueError(f"{key}: found {show(value)}; {fields.closest(str(value)[:60], choices)}") from error


def _fault(value: Any) -> Fault | None:
    return None if value is None else _one_of(Fault, "fault", value)


def _length(key: str, value: object) -> timedelta:
    try:
        return fields.parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{key}: write a length of time like 10m or 24h") from error


def _modes(value: Any) -> tuple[int, ...]:
    """One number or a list of them."""
    if value is None:
        return ()
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(type(number) is int and 1 <= number <= MODES for number in numbers):
        raise ValueError(f"mode: write a number from 1 to {MODES}, or a list of them")
    return tuple(numbers)


def _after(value: Any) -> After | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"lines", "within"}:
        raise ValueError("after: write {lines: 3, within: 5m}")
    if type(value["lines"]) is not int or not 2 <= value["lines"] <= MOST_LINES:
        raise ValueError(f"after: lines: write a number from 2 to {MOST_LINES}")
    return After(lines=value["lines"], within=_length("after: within", value["within"]))
