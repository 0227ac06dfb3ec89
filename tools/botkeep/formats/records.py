"""Files made of records one after the other: what a kind of them has to say so that it can be checked and rebuilt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..model import ClosedTrade, Fill
from ..untrusted import clean
from .base import FormatOptions
from .files import Source

HEAD = 64 * 1024
"""Bytes from which a layout is learned; also the longest record that is believed."""


@dataclass(frozen=True)
class Flaw:
    """Why a record is not sound. `sound`: all that botkeep reads in it is, but something about it is odd."""

    rule: str
    text: str
    sound: bool = False
    glued: bool = False
    """Two records stand in it, or the beginnings of two."""

    @property
    def harmless(self) -> bool:
        """Whether the record is as good as any: only its letters, or who wrote it, are to be known."""
        return self.sound and self.rule in ("C6", "C12")


class StrangeError(Exception):
    """The file is not of this kind at all. The text is a sentence."""

    def __init__(self, rule: str, text: str, offset: int = 0) -> None:
        super().__init__(text)
        self.rule, self.offset = rule, offset


Row = tuple[int, bytes, float | None, Flaw | None]
"""Offset, bytes without the line end, epoch seconds where it has a time, what is wrong with it."""


class Scan(Protocol):
    """The records of a range, in order. The attributes hold once it was read to its end."""

    end: int
    """Where the first incomplete record begins."""
    tail: bytes
    """The first bytes of what is incomplete."""
    hole: int | None
    """Offset of the first NUL byte in what is incomplete."""
    cut_short: bool
    """The file ended before the range did: somebody shortened it meanwhile."""

    def __iter__(self) -> Iterator[Row]: ...


class Reader(Protocol):
    """Reads the records of one file, in the layout that was learned from it."""

    @property
    def body(self) -> int:
        """Offset of the first record."""
        ...

    @property
    def sample(self) -> int:
        """Records that the layout was learned from."""
        ...

    @property
    def typed(self) -> bool:
        """Whether trades were recognised. Odd records of a file that is perhaps a log or a list are no damage."""
        ...

    def as_json(self) -> dict[str, Any]:
        """The layout, for a cursor."""
        ...

    def scan(self, source: Source, start: int, stop: int) -> Scan:
        """The records of [start, stop); `start` is where one begins."""
        ...

    def flaw(self, raw: bytes) -> tuple[Flaw | None, float | None]:
        """What is wrong with one record, and its time."""
        ...

    def key(self, raw: bytes) -> str:
        """What makes a sound record this trade and no other: its trade id with market and symbol; empty: nothing."""
        ...

    def blank(self, line: bytes) -> bool:
        """Whether a whole line is no record at all: nothing stands in it, or the header again."""
        ...

    def encode(self, trade: Fill | ClosedTrade, like: bytes | None) -> bytes | str:
        """The record of a trade, without line end, in the way of writing of `like`, a sound record of the file.

        Text: why the record cannot hold it. `like` is None where the file has no record yet.
        """
        ...


class Kind(Protocol):
    """A kind of such files."""

    def learn(self, source: Source, options: FormatOptions) -> Reader | None:
        """A reader for the file; None: not one whole line yet. Raises StrangeError."""
        ...

    def again(self, layout: Mapping[str, Any], options: FormatOptions) -> Reader:
        """The reader whose `as_json` is in a cursor. Raises KeyError, TypeError or ValueError."""
        ...


_ZEROS = re.compile(r"(?:\\x00){4,}")


def evidence(data: bytes, limit: int = 160) -> str:
    """Bytes as people can read them and nothing can act on them: escaped, redacted, at most `limit` characters.

    Forty escaped zeros tell a reader no more than two.
    """
    shown = data[: limit + 64].decode("latin-1").encode("unicode_escape").decode("ascii")
    shown = _ZEROS.sub(r"\\x00...\\x00", shown)
    return f"`{clean(shown, limit)}`"
