"""Delimited text as records: how a file is laid out, where its records begin and end, which of them are sound.

One reader for every purpose (check, trades, snapshot, rebuild), so that what counts as a good row is said once.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, tzinfo
from functools import cache, cached_property
from typing import Any

from ..model import ClosedTrade, Fill
from . import columns, rowwriting
from .base import FormatOptions
from .files import CHUNK, Source
from .layout import BOM, Layout, comma, is_wide, learned
from .records import HEAD, Flaw, Row, evidence
from .roles import later_columns
from .values import NAN, NOTHING

RUNS = 8
"""Processes whose names are remembered, to see two of them write by turns."""
MOST_LINES = 100
"""Lines that one quoted field may span before its quote counts as stray."""


def learn(source: Source, options: FormatOptions) -> Reader | None:
    """A reader for the layout of the file, from its first 64 KiB. None: not one whole line yet. Raises StrangeError."""
    layout = learned(source.read(0, HEAD), HEAD, options)
    return Reader(layout, columns.zone_of(options.timezone)) if layout else None


def again(layout: Mapping[str, Any], options: FormatOptions) -> Reader:
    """The reader whose `as_json` this is. Raises KeyError, TypeError or ValueError where it is none of ours."""
    return Reader(Layout.from_json(layout), columns.zone_of(options.timezone))


# --- one record --------------------------------------------------------------------------------------------------

_TIMES = rb"(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)?|\d{10}(?:\.\d{1,9})?|\d{13}|\d{16})"

_DATE = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")


@cache
def _letters(mark: int) -> bytes:
    """What may stand in an unquoted cell, for a character class: printable ASCII but quote and delimiter."""
    return b"".join(re.escape(bytes([code])) for code in range(0x20, 0x7F) if code not in (0x22, mark))


@dataclass(frozen=True)
class Reader:
    """Tells sound records from others. Most pass one regular expression; the rest is looked at cell by cell."""

    layout: Layout
    zone: tzinfo = UTC

    @property
    def body(self) -> int:
        """Offset of the first record."""
        return self.layout.body

    @property
    def sample(self) -> int:
        """Rows that the layout was learned from."""
        return self.layout.sample

    def as_json(self) -> dict[str, Any]:
        """The layout, for a cursor."""
        return asdict(self.layout)

    def scan(self, source: Source, start: int, stop: int) -> Scan:
        """The records of [start, stop); `start` is where one begins."""
        return Scan(source, self, start, stop)

    def blank(self, line: bytes) -> bool:
        """A blank line, or the header again: programs that append tables write it each time."""
        kept = line.removeprefix(BOM).rstrip(b"\r")
        return not kept.strip() or kept == self._header

    @cached_property
    def _header(self) -> bytes | None:
        return self.layout.header.encode("latin-1") or None

    def encode(self, trade: Fill | ClosedTrade, like: bytes | None) -> bytes | str:
        """The row of a trade, written as the row `like` is (with its carriage return); text: why it cannot be."""
        return rowwriting.encode(self.layout, self.zone, trade, like, self.cells(like) if like is not None else ())

    def key(self, raw: bytes) -> str:
        """Market, symbol and trade id of a sound record; empty if it has no trade id."""
        place = self.layout.roles
        if "id" not in place:
            return ""
        cells = self.cells(raw)
        found = [cells[place[role]].strip() for role in ("market", "symbol", "id") if role in place]
        return "\0".join(found) if found[-1] else ""

    @cached_property
    def plain(self) -> Callable[[bytes], re.Match[bytes] | None]:
        """Matches a line that is a sound record with nothing unusual in it. Linear: no cell reaches into the next."""
        gap = b" ?" if self.layout.spaced else b""
        mark = self.layout.delimiter.encode()
        cells = [gap + self._cell_pattern(column, mark) for column in range(self.layout.width)]
        return re.compile(re.escape(mark).join(cells) + rb"\r?").fullmatch

    def _cell_pattern(self, column: int, mark: bytes) -> bytes:
        if column == self.layout.time:
            time = rb'(?P<q>"?)(?P<t>' + _TIMES + rb")(?P=q)"
            return b"(?:" + time + self._words(column, mark) + b")?" if "pnl" in self.layout.roles else time
        if column in self.layout.numbers:
            number = columns.NUMBER.encode()
            if comma(self.layout.delimiter):
                number = number.replace(b"[.]", b"[.,]")
            optional = b"" if column in self.layout.needed else b"?"
            return b"(?:" + number + b'|"' + number + b'"' + self._words(column, mark) + b")" + optional
        letters = _letters(mark[0])
        return rb"(?:[" + letters + rb']*|"[ !#-~]*")'

    def _words(self, column: int, mark: bytes) -> bytes:
        """As further choices: the words for nothing that may stand in this column."""
        words = sorted(dict(self._later).get(column, ()))
        return b"".join(b"|" + re.escape(word.encode()) for word in words if mark.decode() not in word)

    @property
    def typed(self) -> bool:
        """Whether it is a table of trades as far as one can see, so that a line can be known for a record by itself."""
        return bool(self.layout.numbers) or (self.layout.time is not None and self.layout.header != "")

    def stamp(self, found: re.Match[bytes]) -> float | None:
        """Epoch seconds of a record that `plain` matched; None: it has none. Raises ValueError for a 31 February."""
        if self.layout.time is None or found["t"] is None:
            return None
        text = found["t"].decode("ascii")
        if self.zone is UTC and len(text) > 16 and not text.isdecimal():
            at = datetime.fromisoformat(text)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        return self.time_of(text)

    def time_of(self, text: str) -> float:
        """Epoch seconds. Raises ValueError if it is no time."""
        at = columns.moment(text, self.zone)
        if at is None:
            raise ValueError(text)
        return at.timestamp()

    def cells(self, raw: bytes) -> list[str]:
        """The cells of a record, blank where a word says that nothing is known yet. Raises csv.Error: wrong quotes."""
        cells = self._split(raw)
        for column, words in self._later:
            if column < len(cells) and cells[column] in words:
                cells[column] = ""
        return cells

    @cached_property
    def _later(self) -> tuple[tuple[int, frozenset[str]], ...]:
        """(column, words for nothing) of the columns whose value may not be known yet."""
        own = self.layout.nan
        return tuple(
            (column, NOTHING | NAN if column in own else NOTHING) for column in later_columns(self.layout.roles)
        )

    def _split(self, raw: bytes) -> list[str]:
        text = raw.removeprefix(BOM).decode("utf-8", "backslashreplace").rstrip("\r")
        if '"' not in text and not self.layout.spaced:
            return text.split(self.layout.delimiter)
        return next(self.parser(iter([line + "\n" for line in text.split("\n")])), [])

    def parser(self, lines: Iterator[str]) -> Iterator[list[str]]:
        spaced = self.layout.spaced
        return csv.reader(lines, delimiter=self.layout.delimiter, skipinitialspace=spaced, strict=True)

    def flaw(self, raw: bytes) -> tuple[Flaw | None, float | None]:
        """What is wrong with a whole record, and its time where it has one."""
        try:
            cells = self.cells(raw)
        except csv.Error as error:
            return Flaw("C5", f"Its quotes cannot be right ({error}): {evidence(raw)}."), None
        wrong = self._wrong_cell(cells)
        width = self.layout.width
        if len(cells) != width:
            glued = self._holds_two(raw)
            two = ", and two rows begin in it" if glued else ""
            text = f"It has {len(cells)} columns where {width} are expected{two}: {evidence(raw)}."
            odd = wrong is None and not glued and width < len(cells) < 2 * width - 1
            return Flaw("C4", text, odd, glued), None
        if wrong is not None:
            return self._no(*wrong, cells), None
        return self._encoding(raw), self._time_in(cells)

    def _holds_two(self, raw: bytes) -> bool:
        """Whether more dates stand in it than in one row."""
        times = {self.layout.roles[role] for role in ("time", "opened") if role in self.layout.roles}
        return bool(times) and len(_DATE.findall(raw)) > len(times)

    def _encoding(self, raw: bytes) -> Flaw | None:
        if raw.startswith(BOM):
            return Flaw("C6", "A byte order mark stands within it, as where two files were put together.", sound=True)
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return Flaw("C6", f"It is not all UTF-8: {evidence(raw)}.", sound=True)
        return None

    def _time_in(self, cells: Sequence[str]) -> float | None:
        time = self.layout.time
        return self.time_of(cells[time]) if time is not None and cells[time] else None

    def _wrong_cell(self, cells: Sequence[str]) -> tuple[str, int] | None:
        """What a cell should hold and does not, and its column."""
        for column in self.layout.numbers:
            if column < len(cells) and not self._is_number(column, cells[column]):
                return "number", column
        time = self.layout.time
        if time is not None and time < len(cells) and not self._is_time(cells[time]):
            return "time", time
        return None

    def _is_number(self, column: int, cell: str) -> bool:
        if not cell:
            return column not in self.layout.needed
        return columns.money(cell.replace(",", ".") if comma(self.layout.delimiter) else cell) is not None

    def _is_time(self, cell: str) -> bool:
        """Blank in an open trade, whose time to close has not come."""
        return columns.moment(cell, self.zone) is not None or (not cell and "pnl" in self.layout.roles)

    def _no(self, kind: str, column: int, cells: Sequence[str]) -> Flaw:
        name, cell = (text.encode("utf-8", "backslashreplace") for text in (self.layout.names[column], cells[column]))
        return Flaw("C9", f"Column {evidence(name, 40)} holds {evidence(cell, 60)}, which is no {kind}.")


# --- all records -------------------------------------------------------------------------------------------------

More = tuple[int, Flaw | None, float | None]


class Quoted:
    """A record with quotes, which may go on in the next lines: each is parsed once, however many there are."""

    def __init__(self, reader: Reader, lines: Sequence[bytes], place: int) -> None:
        self._reader, self._lines, self._place = reader, lines, place
        self.taken = 0
        """Lines that belong to it as far as its quotes tell."""
        self.wanted_more = False
        """A quote is still open behind the last line that it may have."""

    def closed(self) -> bool:
        """Whether it ends within the next hundred lines, and before one that is a sound record by itself."""
        try:
            next(self._reader.parser(self.fed()))
        except csv.Error:
            return False
        return True

    def fed(self) -> Iterator[str]:
        """The text of one line after the other, for a parser."""
        for place in range(self._place, min(self._place + MOST_LINES, len(self._lines))):
            line = self._lines[place]
            if self.taken and self._reader.typed and self._reader.plain(line):
                return
            self.taken += 1
            yield line.decode("utf-8", "backslashreplace") + "\n"
        self.wanted_more = True


class _Turns:
    """Which process or run wrote each row, where a column says so: one after the other, or two by turns."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._column = reader, reader.layout.roles["writer"]
        self._now = ""
        self._seen: set[str] = set()
        self._back = 0

    def see(self, line: bytes) -> Flaw | None:
        """The next row. A flaw, once, when it was for the second time one that had been followed by another."""
        name = self._reader.cells(line)[self._column].strip()
        if name == self._now or not name:
            return None
        before, self._now = self._now, name
        self._back += name in self._seen
        if name not in self._seen and len(self._seen) < RUNS:
            self._seen.add(name)
        if self._back != 2:
            return None
        two = " and ".join(evidence(one.encode("utf-8", "backslashreplace"), 30) for one in sorted((before, name)))
        return Flaw("C12", f"Rows of two programs stand in it by turns ({two}).", sound=True)


class Scan:
    """The records of [start, stop), in order. Afterwards `end` is where the first incomplete one begins.

    1. Lines are matched against the pattern of a plain record.
    2. A line that does not match is parsed strictly; an open quote takes in the next lines.
    3. But not a line that is a sound record by itself: then the quote was stray, and only its own line is damaged. A
       lenient parser once swallowed 900 rows of 1,001 without an error.
    4. What follows the last line end is no record: it may be half of one.
    """

    def __init__(self, source: Source, reader: Reader, start: int, stop: int) -> None:
        self._source, self._reader, self._stop = source, reader, stop
        self._read_to = start
        self.end = start
        self.tail = b""
        """The first bytes of what is incomplete, at most 64 KiB."""
        self.hole: int | None = None
        """Offset of the first NUL byte in what is incomplete."""
        self.cut_short = False
        """The file ended before `stop`: somebody shortened it meanwhile."""
        self._turns = _Turns(reader) if "writer" in reader.layout.roles else None

    def __iter__(self) -> Iterator[Row]:
        left: list[bytes] = []
        rest = b""
        while self._read_to < self._stop:
            data = self._source.read(self._read_to, min(CHUNK, self._stop - self._read_to))
            if not data:
                self.cut_short = True
                break
            self._read_to += len(data)
            *lines, rest = (rest + data).split(b"\n")
            left = yield from self._records(left + lines)
            while left and sum(map(len, left)) + len(rest) > HEAD:
                left = yield from self._stray(left)
            if not left and len(rest) > HEAD:
                rest = yield from self._skip_line(rest)
        self.tail = b"\n".join([*left, rest])[:HEAD]
        self._find_hole(self.tail, self.end)

    def _records(self, lines: list[bytes]) -> Generator[Row, None, list[bytes]]:
        """Yields the records in `lines`; returns the lines of one that goes on behind them."""
        plain, stamp, turns = self._reader.plain, self._reader.stamp, self._turns
        offset, place = self.end, 0
        while place < len(lines):
            line = lines[place]
            found = plain(line)
            if found is None:
                taken, flaw, at = self._careful(lines, place)
                if not taken:
                    break
                line = b"\n".join(lines[place : place + taken])
                if not self._reader.blank(line):
                    yield offset, line, at, flaw
                place += taken
            else:
                try:
                    at, flaw = stamp(found), turns.see(line) if turns else None
                except ValueError:
                    flaw, at = self._reader.flaw(line)
                yield offset, line, at, flaw
                place += 1
            offset += len(line) + 1
        self.end = offset
        return lines[place:]

    def _careful(self, lines: list[bytes], place: int) -> More:
        """How many lines the record has that begins here (0: more than there are), and what is wrong with it."""
        line = lines[place]
        if self._reader.blank(line):
            return 1, None, None
        if b"\0" in line:
            if is_wide(line):
                return 1, Flaw("C6", f"It is UTF-16 text, as a command added it: {evidence(line)}."), None
            return 1, Flaw("C2", f"It holds {line.count(0)} NUL bytes: {evidence(line)}."), None
        taken = self._span(lines, place) if b'"' in line else 1
        if taken < 0:
            return 1, Flaw("C5", f"A quote in it is opened or closed where none belongs: {evidence(line)}."), None
        if taken == 0:
            return 0, None, None
        return taken, *self._reader.flaw(b"\n".join(lines[place : place + taken]))

    def _span(self, lines: list[bytes], place: int) -> int:
        """Lines of a record with quotes; 0: it goes on behind the last line; -1: a quote in it is stray."""
        record = Quoted(self._reader, lines, place)
        if record.closed():
            return record.taken
        return 0 if record.wanted_more and record.taken < MOST_LINES else -1

    def _stray(self, left: list[bytes]) -> Generator[Row, None, list[bytes]]:
        """A quote that no record of a believable length closes: only its own line is damaged."""
        line = left[0]
        yield self.end, line, None, Flaw("C5", f"A quote in it is opened and not closed: {evidence(line)}.")
        self.end += len(line) + 1
        return (yield from self._records(left[1:]))

    def _skip_line(self, rest: bytes) -> Generator[Row, None, bytes]:
        """Read on to the line's end without keeping it: one line of a log once had 200 MB."""
        start = self.end
        self._find_hole(rest, start)
        data = b""
        while self._read_to < self._stop and b"\n" not in data:
            data = self._source.read(self._read_to, min(CHUNK, self._stop - self._read_to))
            if not data:
                self.cut_short = True
                break
            self._find_hole(data, self._read_to)
            self._read_to += len(data)
        if b"\n" not in data:
            return rest[:HEAD]
        after = data[data.index(b"\n") + 1 :]
        self.end = self._read_to - len(after)
        self._read_to = self.end
        hole, self.hole = self.hole, None
        if hole is not None and hole < self.end:
            yield start, rest[:HEAD], None, Flaw("C2", f"It holds NUL bytes from byte {hole} on: {evidence(rest)}.")
        else:
            text = f"It has {self.end - start} bytes, more than any record: {evidence(rest)}."
            yield start, rest[:HEAD], None, Flaw("C4", text)
        return b""

    def _find_hole(self, data: bytes, offset: int) -> None:
        if self.hole is None and (place := data.find(b"\0")) >= 0:
            self.hole = offset + place
