"""Delimited text as records: how a file is laid out, where its records begin and end, which of them are sound.

One reader for every purpose (check, trades, snapshot, rebuild), so that what counts as a good row is said once.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import Any

from . import columns
from .base import FormatOptions
from .files import CHUNK, Source
from .records import HEAD, Flaw, Row, StrangeError, evidence

SAMPLE = 200
"""Rows from which it is learned what a column holds."""
MOST_COLUMNS = 1000
MOST_LINES = 100
"""Lines that one quoted field may span before its quote counts as stray."""
DELIMITERS = (",", ";", "\t")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Layout:
    """How the records of a file are written. Learned once, kept in the cursor."""

    delimiter: str
    names: tuple[str, ...]
    """The header's cells, or the numbers of the columns counted from 1."""
    header: str
    """The header line without its end; empty: there is none."""
    body: int
    """Offset of the first record."""
    roles: Mapping[str, int]
    numbers: tuple[int, ...]
    """Columns that hold numbers, as far as the sample tells."""
    needed: tuple[int, ...]
    """Those of them that are never blank in a sound row."""
    time: int | None
    spaced: bool = False
    """A blank follows every delimiter."""
    sample: int = 0
    """Rows it was learned from."""

    @property
    def width(self) -> int:
        """Columns of a sound row."""
        return len(self.names)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Layout:
        """The reverse. Raises KeyError, TypeError or ValueError where it is not one of ours."""
        plain = dict(raw)
        for name in ("names", "numbers", "needed"):
            plain[name] = tuple(plain[name])
        return cls(**plain)


# --- learning ----------------------------------------------------------------------------------------------------


def learn(source: Source, options: FormatOptions) -> Reader | None:
    """A reader for the layout of the file, from its first 64 KiB. None: not one whole line yet. Raises StrangeError."""
    head = source.read(0, HEAD)
    start = _start(head)
    text = head[start:]
    _refuse_strange(text)
    lines = text.split(b"\n")[:-1][: SAMPLE + 1]  # what follows the last line end may be cut
    if not lines:
        if len(head) == HEAD:
            raise StrangeError("C4", f"Its first line is longer than {HEAD} bytes.")
        return None
    layout = _Learner(lines, start, options).layout()
    return Reader(layout, columns.zone_of(options.timezone)) if layout else None


def again(layout: Mapping[str, Any], options: FormatOptions) -> Reader:
    """The reader whose `as_json` this is. Raises KeyError, TypeError or ValueError where it is none of ours."""
    return Reader(Layout.from_json(layout), columns.zone_of(options.timezone))


def _start(head: bytes) -> int:
    return len(BOM) if head.startswith(BOM) else 0


def _refuse_strange(text: bytes) -> None:
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise StrangeError("C6", "It is UTF-16 text; the bot has to write UTF-8.")
    if text.startswith((b"SQLite format 3\0", b"PAR1", b"\x1f\x8b", b"PK\x03\x04", b"ARROW1")):
        raise StrangeError("kind", "It is no text but a database or a packed file: data_format.kind has to say which.")
    first = text.split(b"\n", 1)[0]
    if (hole := first.find(b"\0")) >= 0:
        raise StrangeError("C2", "NUL bytes stand where its first line should be.", hole)
    seen = text.lstrip()
    if seen[:1] == b"<":
        raise StrangeError("C11", f"It holds a web page instead of trades: {evidence(seen)}.")
    if seen[:1] in (b"{", b"["):
        raise StrangeError("C11", f"It holds JSON instead of delimited text: {evidence(seen)}.")


class _Learner:
    """Finds delimiter, header, width and kinds of columns in the first lines of a file."""

    def __init__(self, lines: Sequence[bytes], start: int, options: FormatOptions) -> None:
        self._options = options
        self._zone = columns.zone_of(options.timezone)
        self._body = start
        blank = next((place for place, line in enumerate(lines) if line.strip()), len(lines))
        self._body += sum(len(line) + 1 for line in lines[:blank])
        self._lines = lines[blank:]
        self._delimiter = options.delimiter or max(DELIMITERS, key=self._agreement)
        self._rows = [row for row in (self._split(line, self._delimiter) for line in self._lines) if row]

    def layout(self) -> Layout | None:
        """The layout; None if there is no line with anything in it."""
        if not self._rows:
            return None
        header = self._is_header(self._rows[0]) if self._options.header is None else self._options.header
        rows = self._rows[1:] if header else self._rows
        names = tuple(self._rows[0]) if header else _numbered(rows)
        if len(names) > MOST_COLUMNS:
            raise StrangeError("C4", f"Its rows have {len(names)} columns; more than {MOST_COLUMNS} are not read.")
        rows = [row for row in rows if len(row) == len(names)]
        roles = self._roles(names, rows, header)
        known = _number_columns(roles, rows, header)
        numbers = tuple(column for column in known if self._holds_numbers(column, rows, roles))
        return Layout(
            delimiter=self._delimiter,
            names=names,
            header=self._lines[0].rstrip(b"\r").decode("latin-1") if header else "",
            body=self._body + (len(self._lines[0]) + 1 if header else 0),
            roles=roles,
            numbers=numbers,
            needed=_needed(roles, numbers, rows),
            time=self._time_column(roles, rows),
            spaced=self._is_spaced(),
            sample=len(rows),
        )

    def _split(self, line: bytes, delimiter: str) -> list[str]:
        text = line.rstrip(b"\r").decode("utf-8", "backslashreplace")
        try:
            return next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            return []

    def _agreement(self, delimiter: str) -> tuple[int, int]:
        """How many lines it cuts into as many cells as the first, and into how many."""
        widths = [len(self._split(line, delimiter)) for line in self._lines[:20]]
        first = widths[0] if widths else 0
        return (widths.count(first), first) if first > 1 else (0, 0)

    def _is_spaced(self) -> bool:
        first, mark = self._lines[0], self._delimiter.encode()
        return mark in first and first.count(mark + b" ") == first.count(mark)

    def _is_header(self, first: Sequence[str]) -> bool:
        """Names, and nothing that can stand in a row: no number, no time, no `BUY`."""
        return not any(self._is_value(cell) for cell in first) and any(cell.strip() for cell in first)

    def _is_value(self, cell: str) -> bool:
        readers = (columns.money(cell), columns.moment(cell, self._zone), columns.side_of(cell))
        return any(found is not None for found in readers)

    def _roles(self, names: Sequence[str], rows: Sequence[Sequence[str]], header: bool) -> dict[str, int]:
        named = columns.roles_of(names, self._options.columns)
        return named if header else columns.roles_by_shape(rows, self._zone) | named

    def _holds_numbers(self, column: int, rows: Sequence[Sequence[str]], roles: Mapping[str, int]) -> bool:
        """A column that held other things from the start (a fee as `0.1 %`, an object) is the bot's own way."""
        filled = [row[column] for row in rows if row[column]]
        sound = sum(self._money(cell) is not None for cell in filled)
        strange = len(filled) - sound
        sure = column in {roles.get(role) for role in ("price", "amount", "pnl")}
        return sound >= strange or (sure and strange < 3)

    def _money(self, cell: str) -> object:
        return columns.money(cell.replace(",", ".") if comma(self._delimiter) else cell)

    def _time_column(self, roles: Mapping[str, int], rows: Sequence[Sequence[str]]) -> int | None:
        column = roles.get("time")
        if column is None:
            return None
        filled = [row[column] for row in rows if row[column]]
        sound = sum(columns.moment(cell, self._zone) is not None for cell in filled)
        return column if sound >= len(filled) - sound else None


def _numbered(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Names for the columns of a file without header: their numbers, in the width that most rows have."""
    widths = [len(row) for row in rows]
    width = max(set(widths), key=lambda one: (widths.count(one), one))
    return tuple(str(place) for place in range(1, width + 1))


def _number_columns(roles: Mapping[str, int], rows: Sequence[Sequence[str]], header: bool) -> list[int]:
    known = {roles[role] for role in columns.NUMBERS if role in roles}
    if not header and rows:
        known |= {column for column in range(len(rows[0])) if any("." in row[column] for row in rows)}
    return sorted(known - {roles.get("time", -1), roles.get("opened", -1)})


def _needed(roles: Mapping[str, int], numbers: Sequence[int], rows: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """A blank price or amount is no fill; a blank result is an open trade."""
    wanted = () if "pnl" in roles else ("price", "amount")
    found = {roles[role] for role in wanted if roles.get(role) in numbers}
    return tuple(sorted(column for column in found if all(row[column] for row in rows)))


def comma(delimiter: str) -> bool:
    """Whether numbers may be written with a decimal comma: only where it cannot be the delimiter."""
    return delimiter != ","


# --- one record --------------------------------------------------------------------------------------------------

_TIMES = rb"(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)?|\d{10}(?:\.\d{1,9})?|\d{13}|\d{16})"


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
            return b"(?:" + time + b")?" if "pnl" in self.layout.roles else time
        if column in self.layout.numbers:
            number = columns.NUMBER.encode()
            if comma(self.layout.delimiter):
                number = number.replace(b"[.]", b"[.,]")
            optional = b"" if column in self.layout.needed else b"?"
            return b"(?:" + number + b'|"' + number + b'")' + optional
        letters = b"".join(re.escape(bytes([code])) for code in range(0x20, 0x7F) if code not in (0x22, mark[0]))
        return rb"(?:[" + letters + rb']*|"[ !#-~]*")'

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
        """The cells of a record. Raises csv.Error if its quotes are wrong."""
        text = raw.decode("utf-8", "backslashreplace").rstrip("\r")
        if '"' not in text and not self.layout.spaced:
            return text.split(self.layout.delimiter)
        return next(self._parser(iter([line + "\n" for line in text.split("\n")])), [])

    def _parser(self, lines: Iterator[str]) -> Iterator[list[str]]:
        spaced = self.layout.spaced
        return csv.reader(lines, delimiter=self.layout.delimiter, skipinitialspace=spaced, strict=True)

    def is_open(self, raw: bytes) -> bool:
        """Whether a quoted cell is still open at the end. Raises csv.Error where the quotes cannot be right."""
        wanted_more = False

        def lines() -> Iterator[str]:
            nonlocal wanted_more
            for line in raw.decode("utf-8", "backslashreplace").split("\n"):
                yield line + "\n"
            wanted_more = True

        try:
            next(self._parser(lines()))
        except csv.Error:
            if wanted_more:
                return True
            raise
        return False

    def flaw(self, raw: bytes) -> tuple[Flaw | None, float | None]:
        """What is wrong with a whole record, and its time where it has one."""
        try:
            cells = self.cells(raw)
        except csv.Error as error:
            return Flaw("C5", f"Its quotes cannot be right ({error}): {evidence(raw)}."), None
        wrong = self._wrong_cell(cells)
        width = self.layout.width
        if len(cells) != width:
            text = f"It has {len(cells)} columns where {width} are expected: {evidence(raw)}."
            return Flaw("C4", text, sound=wrong is None and width < len(cells) < 2 * width - 1), None
        if wrong is not None:
            return wrong, None
        return self._encoding(raw), self._time_in(cells)

    def _encoding(self, raw: bytes) -> Flaw | None:
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return Flaw("C6", f"It is not all UTF-8: {evidence(raw)}.", sound=True)
        return None

    def _time_in(self, cells: Sequence[str]) -> float | None:
        time = self.layout.time
        return self.time_of(cells[time]) if time is not None and cells[time] else None

    def _wrong_cell(self, cells: Sequence[str]) -> Flaw | None:
        for column in self.layout.numbers:
            if column < len(cells) and not self._is_number(column, cells[column]):
                return self._no("number", column, cells)
        time = self.layout.time
        if time is not None and time < len(cells) and not self._is_time(cells[time]):
            return self._no("time", time, cells)
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
        self._header = reader.layout.header.encode("latin-1")

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
        plain, stamp = self._reader.plain, self._reader.stamp
        offset, place = self.end, 0
        while place < len(lines):
            line = lines[place]
            found = plain(line)
            taken, flaw, at = 1, None, None
            try:
                if found is None:
                    taken, flaw, at = self._careful(lines, place)
                else:
                    at = stamp(found)
            except ValueError:
                flaw, at = self._reader.flaw(line)
            if not taken:
                break
            raw = line if taken == 1 else b"\n".join(lines[place : place + taken])
            if found is not None or not self._is_no_record(raw):
                yield offset, raw, at, flaw
            offset += len(raw) + 1
            self.end = offset
            place += taken
        return lines[place:]

    def _is_no_record(self, raw: bytes) -> bool:
        """A blank line, or the header again: programs that append tables write it each time."""
        line = raw.rstrip(b"\r")
        return not line.strip() or (bool(line) and line == self._header)

    def _careful(self, lines: list[bytes], place: int) -> More:
        """How many lines the record has that begins here (0: more than there are), and what is wrong with it."""
        line = lines[place]
        if self._is_no_record(line):
            return 1, None, None
        if b"\0" in line:
            return 1, Flaw("C2", f"It holds {line.count(0)} NUL bytes: {evidence(line)}."), None
        taken = self._span(lines, place) if b'"' in line else 1
        if taken < 0:
            return 1, Flaw("C5", f"A quote in it is opened or closed where none belongs: {evidence(line)}."), None
        if taken == 0:
            return 0, None, None
        return taken, *self._reader.flaw(b"\n".join(lines[place : place + taken]))

    def _span(self, lines: list[bytes], place: int) -> int:
        """Lines of a record with quotes; 0: it goes on behind the last line; -1: a quote in it is stray."""
        for taken in range(1, MOST_LINES + 1):
            record = lines[place : place + taken]
            if len(record) < taken:
                return 0
            if taken > 1 and self._reader.typed and self._reader.plain(record[-1]):
                return -1
            try:
                if not self._reader.is_open(b"\n".join(record)):
                    return taken
            except csv.Error:
                return -1
        return -1

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
