"""Which lines of a log belong together: a program's own lines begin with a date, and what does not goes with the one
above: the lines of a traceback, a page that an exchange sent, and what a console folded at 200 columns.

A console folds between words, where the next one has no room; a word that is longer than a line is cut. So where a
line break was put by a fold is known, and the text reads as the program wrote it. Only there: text that merely begins
like a line of the program is none, if a fold may have put it at the beginning of a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .linetime import begins_with_date
from .untrusted import strip

WIDTH = 200
"""Columns of a console that is no terminal, as freqtrade's has them."""
MOST_LINES = 60
MOST_BYTES = 8192
"""Of lines that belong together; the lines after them stand for themselves."""
_DATE = len("2026-11-21")
_BLANKS = (b" ", b" \r")


class Record(NamedTuple):
    """What a program wrote at once."""

    text: str
    """All of it, folds undone; other line breaks are kept."""
    paragraphs: tuple[str, ...]
    """The same, cut at the line breaks that the program made. The first one bears the date."""

    def paragraph_at(self, place: int) -> str:
        """The paragraph that holds this place of `text`."""
        for paragraph in self.paragraphs:
            if place <= len(paragraph):
                return paragraph
            place -= len(paragraph) + 1
        return self.paragraphs[-1]


def record(lines: bytes, most: int) -> Record:
    """The record that these lines are; at most `most` characters of each of its paragraphs, and of all."""
    shown = [_shown(line, most) for line in lines.split(b"\n")]
    if len(shown) == 1:
        return Record(shown[0], (shown[0],))
    paragraphs = tuple(_unfolded(shown))
    return Record("\n".join(paragraphs)[:most], paragraphs)


def _shown(line: bytes, most: int) -> str:
    return strip(line[: most * 2].rstrip(b"\r").decode("utf-8", "replace"))[:most]


def _unfolded(lines: Iterable[str]) -> Iterator[str]:
    """Whole paragraphs. The blank at a fold stays at the end of the line if it had room there, else it is gone."""
    whole, last = "", None
    for line in lines:
        if last is None:
            whole = line
        elif not _had_to_fold(last, line):
            yield whole
            whole = line
        else:
            whole += line if last.endswith(" ") or _was_cut(last) else f" {line}"
        last = line
    yield whole


def _had_to_fold(first: str, second: str) -> bool:
    """Whether the first word of `second` had no room in the line before."""
    word = second.split(" ", 1)[0]
    width = _columns(first)
    if not word:  # the blank after a word that filled its lines to the last column
        return second.startswith(" ") and _was_cut(first)
    return width <= WIDTH < width + (not first.endswith(" ")) + _columns(word)


def _was_cut(line: str) -> bool:
    """Whether the line is a piece of a word that was longer than a line."""
    return " " not in line and _columns(line) == WIDTH


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    from unicodedata import east_asian_width

    return sum(2 if east_asian_width(sign) in "WF" else 1 for sign in text)


class Lines:
    """Every line stands for itself."""

    def bounds(self, data: bytes, at: int) -> tuple[int, int]:
        """Beginning and end (its newline) of the line that holds the byte `at`. `data` ends with a newline."""
        return data.rfind(b"\n", 0, at) + 1, data.index(b"\n", at)

    def open_from(self, data: bytes) -> int:
        """Where lines begin that may go on with what comes next: nowhere."""
        return len(data)


class Joined(Lines):
    """A line that does not begin with a date belongs to the one above."""

    def __init__(self) -> None:
        self._folds: bool | None = None

    def bounds(self, data: bytes, at: int) -> tuple[int, int]:
        """As `Lines.bounds`, of the lines that belong together."""
        line = super().bounds(data, at)
        start = self._start(data, line[0])
        if start is None:
            return line
        end = self._end(data, start)
        return (start, end) if at <= end else line

    def open_from(self, data: bytes) -> int:
        """Where the last record begins, unless it is as long as records get."""
        if not data:
            return 0
        last = super().bounds(data, len(data) - 1)[0]
        start = self._start(data, last)
        if start is None or len(data) - start > MOST_BYTES or self._end(data, start) < len(data) - 1:
            return len(data)
        return start

    def _start(self, data: bytes, line: int) -> int | None:
        """Where the record begins that the line at `line` belongs to; None if that is too far above, or unknown."""
        lowest = line - MOST_BYTES
        for _ in range(MOST_LINES):
            if self._begins(data, line):
                return line
            if line == 0 or line <= lowest:
                return None
            line = data.rfind(b"\n", 0, line - 1) + 1
        return None

    def _end(self, data: bytes, start: int) -> int:
        """The newline after which the record is over: another one begins, or it is as long as records get."""
        end = data.index(b"\n", start)
        for _ in range(MOST_LINES - 1):
            after = data.find(b"\n", end + 1)
            if after < 0 or after - start > MOST_BYTES or self._begins(data, end + 1):
                break
            end = after
        return end

    def _begins(self, data: bytes, line: int) -> bool:
        """Whether a record begins with the line at `line`."""
        if not begins_with_date(data[line : line + 512]):
            return False
        if line == 0:
            return True
        return not self._is_folded_date(data, data[data.rfind(b"\n", 0, line - 1) + 1 : line - 1])

    def _is_folded_date(self, data: bytes, before: bytes) -> bool:
        """Whether a fold may have put a date at the beginning of the line after `before`.

        It left the blank at the end of the line, if there was room for it. A line of the program that ends at the
        very last column looks the same: the line after it counts as its next part, since a forged one would be.
        """
        if not WIDTH - _DATE < len(before) <= 4 * WIDTH or (len(before) < WIDTH and not before.endswith(_BLANKS)):
            return False
        text = _shown(before, MOST_BYTES)
        width = _columns(text)
        if width > WIDTH or not (width == WIDTH or (text.endswith(" ") and width > WIDTH - _DATE)):
            return False
        if self._folds is None:
            self._folds = not any(map(_is_too_wide, data.split(b"\n")))
        return self._folds


def _is_too_wide(line: bytes) -> bool:
    """Whether this line of the program shows that nothing folds its log."""
    return len(line) > WIDTH and begins_with_date(line) and _columns(_shown(line, MOST_BYTES)) > WIDTH
