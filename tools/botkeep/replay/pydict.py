"""The text of a Python dict as programs log it, read without ever running it.

Only what a message of a bot is made of: texts, numbers, None, True, False, bare words (the name of an enum) and
datetimes in UTC. Every token is matched once from left to right, so the time is linear, and a text that holds
`', 'profit_amount': 1000` stays that text.
"""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime

_KEY = re.compile(r"\s*+'([A-Za-z_][A-Za-z0-9_]{0,63})'\s*+:\s*+", re.ASCII)
_VALUE = re.compile(
    r"""(?P<text>'[^'\\]*+(?:\\.[^'\\]*+)*+'|"[^"\\]*+(?:\\.[^"\\]*+)*+")"""
    r"""|(?P<number>[+-]?\d[\d.]{0,60}+(?:[eE][+-]?\d{1,3})?)"""
    r"""|datetime\.datetime\((?P<when>\d{4}(?:,\s*+\d{1,2}){4,5}+(?:,\s*+\d{1,6})?),"""
    r"""\s*+tzinfo=datetime\.timezone\.utc\)"""
    r"""|(?P<word>[A-Za-z_][A-Za-z0-9_]{0,63}+)""",
    re.ASCII | re.DOTALL,
)
_NEXT = re.compile(r"\s*+(,|\})\s*+")
MOST = 100
"""Keys."""


class Number(str):
    """A number as it was written."""

    __slots__ = ()


class Word(str):
    """A bare word: `True`, `None`, `exit_fill`."""

    __slots__ = ()


Value = str | datetime
"""A text (plain str), a Number, a Word, or a time in UTC."""


def read_dict(text: str) -> dict[str, Value] | None:
    """The dict that all of `text` is; None if it is none, or of other things than those, or has a key twice."""
    if not text.startswith("{"):
        return None
    found: dict[str, Value] = {}
    place = 1
    for _ in range(MOST):
        pair = _pair(text, place)
        if pair is None or pair[0] in found:
            return None
        key, found[key], place = pair
        after = _NEXT.match(text, place)
        if after is None:
            return None
        place = after.end()
        if after[1] == "}":
            return found if place == len(text) else None
    return None


def _pair(text: str, place: int) -> tuple[str, Value, int] | None:
    key = _KEY.match(text, place)
    value = key and _VALUE.match(text, key.end())
    read = value and _read(value)
    return None if key is None or value is None or read is None else (key[1], read, value.end())


def _read(value: re.Match[str]) -> Value | None:
    if value["number"] is not None:
        return Number(value["number"])
    if value["word"] is not None:
        return Word(value["word"])
    return _text(value["text"]) if value["text"] is not None else _when(value["when"])


def _text(quoted: str) -> str | None:
    if "\\" not in quoted:
        return quoted[1:-1]
    try:
        return str(ast.literal_eval(quoted))  # one string literal by its pattern: nothing in it is run
    except (ValueError, SyntaxError):
        return None


def _when(parts: str) -> datetime | None:
    year, month, day, hour, minute, second, micro = [*(int(part) for part in parts.split(",")), 0, 0][:7]
    try:
        return datetime(year, month, day, hour, minute, second, micro, tzinfo=UTC)
    except ValueError:
        return None
