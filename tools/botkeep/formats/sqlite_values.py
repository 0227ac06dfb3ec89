"""The values of a database as text, numbers and times: by the same bounded grammar as the cells of a text file."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from .columns import moment, number
from .records import evidence


class ValueProblemError(Exception):
    """Why a row is no trade: a phrase."""


def text_of(value: Any) -> str:
    """A value as a text file would have it: a float is its shortest exact text, NULL is empty."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    return "\\x" + value[:40].hex() if isinstance(value, bytes) else repr(value)


def shown(value: Any) -> str:
    """A value for people: escaped, capped."""
    return evidence(text_of(value).encode("utf-8", "backslashreplace"), 60)


def exact(value: Any, what: str) -> Decimal:
    """The exact number. Raises ValueProblemError for infinity, a blob, text that is none."""
    found = number(text_of(value))
    if found is None:
        raise ValueProblemError(f"{what} is not a number" if value is not None else f"{what} is missing")
    return found


def is_number(value: Any) -> bool:
    """Whether `exact` takes it, without making the number: the check of a million rows asks this five million times."""
    if type(value) is float:
        return value == 0 or _LEAST < abs(value) < _MOST  # neither holds for inf and nan
    if type(value) is int:
        return abs(value) < _MOST
    return number(text_of(value)) is not None


_MOST = 10**18
_LEAST = 1e-90


def perhaps(value: Any, what: str) -> Decimal | None:
    """None for NULL."""
    return None if value is None else exact(value, what)


def instant(value: Any, what: str) -> datetime:
    """A time; without a zone it is UTC. Raises ValueProblemError."""
    found = moment(text_of(value).strip(), UTC)
    if found is None:
        raise ValueProblemError(f"{what} is no time" if value is not None else f"{what} is missing")
    return found


def second(value: Any) -> float | None:
    """Epoch seconds, or None."""
    found = moment(text_of(value).strip(), UTC)
    return found.timestamp() if found else None


class Problems:
    """Rows that could not be read, and why, for the notes of a table."""

    def __init__(self) -> None:
        self._rows: dict[str, list[int]] = {}

    def add(self, key: int, why: str) -> None:
        """One row."""
        self._rows.setdefault(why, []).append(key)

    @property
    def count(self) -> int:
        """Rows."""
        return sum(len(rows) for rows in self._rows.values())

    def notes(self) -> list[str]:
        """A sentence for each reason."""
        return [f"{_named(rows)} could not be read: {why}" for why, rows in self._rows.items()][:20]


def _named(rows: list[int]) -> str:
    return f"row {rows[0]}" if len(rows) == 1 else f"{len(rows)} rows, the first of them row {rows[0]},"
