"""JSON text of unknown origin, read record by record: bounded depth and size, exact numbers, no float anywhere.

Python's own reader accepts more than JSON has (NaN, 1e999, a key twice) and follows nested brackets as deep as they
go, so the depth is bounded by a pattern before it is asked, and numbers stay the text that they were.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .records import Flaw, evidence

DEPTH = 10
"""Brackets within one another that a record may have."""
LEVELS = 2
"""Objects within a record whose members are read: `fee.cost`, `data.fee.cost`."""
BOM = b"\xef\xbb\xbf"
MARK = "\ufeff"

# Linear: what may follow is told by its first byte, and a run of plain bytes gives nothing back.
STRING = rb'"(?:[^"\\\x00-\x1f]++|\\[^\x00-\x1f])*"'


def _inside(depth: int) -> bytes:
    plain = rb'[^{}\[\]"]++|' + STRING
    return rb"(?:" + plain + (rb"|[{\[]" + _inside(depth - 1) + rb"[}\]]" if depth else b"") + rb")*"


_OBJECT = rb"\{" + _inside(DEPTH - 1) + rb"\}"
OBJECT = re.compile(_OBJECT)
"""A whole object, as far as its brackets and quotes tell."""
KEYED = re.compile(STRING + rb"\s*:\s*" + _OBJECT)
"""A whole object with its key, as it stands in another object."""
VALUE = re.compile(rb"[{\[]" + _inside(DEPTH - 1) + rb"[}\]]|" + STRING + rb'|[^\s{}\[\]",:]+')
KEY = re.compile(rb"\s*(" + STRING + rb")\s*:\s*")
_COMMA = re.compile(rb"\s*,")
_CONSTANTS = frozenset({"NaN", "Infinity", "-Infinity"})
_FIGURE = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)


class NotSoundError(Exception):
    """The text is no sound record."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.text)
        self.flaw = flaw


class _TwiceError(Exception):
    """A key that an object has twice."""


class Record(NamedTuple):
    """A JSON object, and what is odd about its text."""

    members: dict[str, Any]
    odd: Flaw | None


def parse(raw: bytes) -> Record:
    """The object of a record; its numbers are the texts that they were. Raises NotSoundError."""
    if b"\0" in raw:
        raise NotSoundError(Flaw("C2", f"It holds {raw.count(0)} NUL bytes: {evidence(raw)}."))
    if raw.count(b"{") + raw.count(b"[") > DEPTH and not OBJECT.fullmatch(raw.strip().removeprefix(BOM)):
        raise NotSoundError(Flaw("J1", f"Its brackets do not match, or are nested too deeply: {evidence(raw)}."))
    text, odd = _decoded(raw)
    try:
        found = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotSoundError(Flaw("J1", f"It is no JSON object ({error.msg}): {evidence(raw)}.")) from error
    except _TwiceError as twice:
        name = evidence(str(twice).encode("utf-8", "replace"), 40)
        raise NotSoundError(Flaw("J2", f"It has the key {name} twice: {evidence(raw)}.")) from twice
    if not isinstance(found, dict):
        raise NotSoundError(Flaw("J1", f"It is JSON, but no object: {evidence(raw)}."))
    return Record(found, odd)


def _decoded(raw: bytes) -> tuple[str, Flaw | None]:
    """The text, and whether its encoding is odd: all that is read in it may still be sound."""
    odd = None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text, odd = raw.decode("utf-8", "replace"), Flaw("C6", f"It is not all UTF-8: {evidence(raw)}.", sound=True)
    if text.startswith(MARK):
        text, odd = text[1:], Flaw("C6", f"A byte order mark stands before it: {evidence(raw)}.", sound=True)
    return text, odd


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


def _as_written(text: str) -> str:
    return text


# A hook of our own for every number: int() of a million digits would hold a core, float() rounds somebody's money.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_float=_as_written, parse_int=_as_written, parse_constant=_as_written
)


# --- members -----------------------------------------------------------------------------------------------------


def names_of(members: dict[str, Any], levels: int = LEVELS) -> Iterator[str]:
    """Names of the members; of objects within, with a dot: `fee.cost`."""
    for name, value in members.items():
        if isinstance(value, dict) and levels:
            yield from (f"{name}.{inner}" for inner in names_of(value, levels - 1))
        else:
            yield name


def text_at(members: dict[str, Any], name: str) -> str | None:
    """The value of that name as text: empty for null and for what is no single value; None: there is no such member."""
    if name in members:
        return _text_of(members[name])
    head, dot, rest = name.partition(".")
    while dot:
        if isinstance(inner := members.get(head), dict):
            return text_at(inner, rest)
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else ""


def is_no_number_of_json(text: str) -> bool:
    """NaN, Infinity, and figures with an exponent that no amount of money has: 1e999."""
    return text in _CONSTANTS or ("e" in text.lower() and _FIGURE.fullmatch(text[:64]) is not None)


def pieces(line: bytes) -> list[bytes]:
    """The objects of a line that holds nothing else, as `{...}{...}`; empty: it holds something else too."""
    found, place = [], 0
    line = line.strip()
    while place < len(line):
        one = OBJECT.match(line, place)
        if one is None:
            return []
        found.append(one[0])
        place = one.end()
        while line[place : place + 1].isspace():
            place += 1
    return found


# --- places ------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a value stands in the text of a record."""

    name: str
    start: int
    end: int


def places(raw: bytes, levels: int = LEVELS) -> list[Place]:
    """Where the values of a sound record stand, by the names of `names_of`. It begins with its bracket or its key."""
    return list(_places(raw, raw.index(b"{") if raw[:1] == b"{" else _behind_key(raw), "", levels))


def _behind_key(raw: bytes) -> int:
    key = KEY.match(raw)
    return key.end() if key else raw.index(b"{")


def _places(raw: bytes, start: int, before: str, levels: int) -> Iterator[Place]:
    at = start + 1
    while key := KEY.match(raw, at):
        value = VALUE.match(raw, key.end())
        if value is None:
            return
        name = before + json.loads(key[1].decode("utf-8", "replace"))
        if raw[value.start()] == ord("{") and levels:
            yield from _places(raw, value.start(), f"{name}.", levels - 1)
        else:
            yield Place(name, value.start(), value.end())
        comma = _COMMA.match(raw, value.end())
        if comma is None:
            return
        at = comma.end()
