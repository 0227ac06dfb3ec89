"""Delimited text as records: how a file is laid out, where its records begin and end, which of them are sound.

One reader for every purpose (check, trades, snapshot, rebuild), so that what counts as a good row is said once.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import Any

from . import columns
from .base import FormatOptions
from .files import CHUNK, Source

HEAD = 64 * 1024
"""Bytes from which the layout is learned; also the longest record that is believed."""
SAMPLE = 200
"""Rows from which it is learned what a column holds."""
MOST_COLUMNS = 1000
MOST_LINES = 100
"""Lines that one quoted field may span before its quote counts as stray."""
DELIMITERS = (",", ";", "\t")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Flaw:
    """Why a record is not sound. `sound`: only its number of columns is odd, all that botkeep knows of it fits."""

    rule: str
    text: str
    sound: bool = False


class StrangeError(Exception):
    """The file is no delimited text at all."""

    def __init__(self, rule: str, text: str, offset: int = 0) -> None:
        super().__init__(text)
        self.rule, self.offset = rule, offset


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

    @property
    def width(self) -> int:
        """Columns of a sound row."""
        return len(self.names)

    def as_json(self) -> dict[str, Any]:
        """For the cursor."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Layout:
        """The reverse. Raises KeyError, TypeError or ValueError where it is not one of ours."""
        plain = dict(raw)
        for name in ("names", "numbers", "needed"):
            plain[name] = tuple(plain[name])
        return cls(**plain)


# --- learning ----------------------------------------------------------------------------------------------------


def learn(source: Source, options: FormatOptions) -> Layout | None:
    """The layout of the file, from its first 64 KiB. None: not one whole line yet. Raises StrangeError."""
    head = source.read(0, HEAD)
    start = _start(head)
    text = head[start:]
    _refuse_strange(text)
    lines = _whole_lines(text, start + len(text) >= source.size)
    if not lines:
        if len(head) == HEAD:
            raise StrangeError("C4", f"Its first line is longer than {HEAD} bytes.")
        return None
    return _Learner(lines, start, options).layout()


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


def _whole_lines(text: bytes, at_end: bool) -> list[bytes]:
    """The first whole lines. What follows the last line end is no line: it may be cut."""
    lines = text.split(b"\n")
    del at_end
    return lines[:-1][: SAMPLE + 1]


def evidence(data: bytes, limit: int = 160) -> str:
    """Bytes as people can read them and nothing can act on them: escaped, redacted, at most `limit` characters."""
    from ..untrusted import clean  # only where something is wrong: most checks find nothing

    shown = data[: limit + 64].decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")
    return f"`{clean(shown, limit)}`"


class _Learner:
    """Finds delimiter, header, width and kinds of columns in the first lines of a file."""

    def __init__(self, lines: Sequence[bytes], start: int, options: FormatOptions) -> None:
        self._options = options
        self._zone = columns.zone_of(options.timezone)
        self._lines = lines
        self._body = start
        while self._lines and not self._lines[0].strip():
            self._body += len(self._lines[0]) + 1
            self._lines = self._lines[1:]
        self._delimiter = options.delimiter or self._sniff()
        first = self._lines[0].rstrip(b"\r") if self._lines else b""
        marks = first.count(self._delimiter.encode())
        self._spaced = marks > 0 and first.count(self._delimiter.encode() + b" ") == marks
        self._rows = [row for row in (self._split(line, self._delimiter) for line in self._lines) if row]

    def layout(self) -> Layout | None:
        if not self._rows:
            return None
        header = self._header()
        rows = self._rows[1:] if header else self._rows
        names = tuple(self._rows[0]) if header else self._numbered(rows)
        if len(names) > MOST_COLUMNS:
            raise StrangeError("C4", f"Its rows have {len(names)} columns; more than {MOST_COLUMNS} are not read.")
        rows = [row for row in rows if len(row) == len(names)]
        roles = self._roles(names, rows, header)
        numbers = tuple(column for column in self._number_columns(roles, rows, header) if self._are_numbers(column, rows))
        return Layout(
            delimiter=self._delimiter,
            names=names,
            header=self._lines[0].rstrip(b"\r").decode("utf-8", "surrogateescape") if header else "",
            body=self._body + (len(self._lines[0]) + 1 if header else 0),
            roles=roles,
            numbers=numbers,
            needed=self._needed(roles, numbers),
            time=self._time(roles, rows),
            spaced=self._spaced,
        )

    def _split(self, line: bytes, delimiter: str) -> list[str]:
        text = line.rstrip(b"\r").decode("utf-8", "backslashreplace")
        try:
            return next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            return []

    def _sniff(self) -> str:
        """The delimiter that cuts most lines into as many cells as the first one, and into the most cells."""
        return max(DELIMITERS, key=self._agreement)

    def _agreement(self, delimiter: str) -> tuple[int, int]:
        widths = [len(self._split(line, delimiter)) for line in self._lines[:20]]
        first = widths[0] if widths else 0
        return (widths.count(first), first) if first > 1 else (0, 0)

    def _header(self) -> bool:
        if self._options.header is not None:
            return self._options.header
        first = self._rows[0]
        return not any(self._is_value(cell) for cell in first) and any(self._is_name(cell) for cell in first)

    def _is_value(self, cell: str) -> bool:
        return columns.money(cell) is not None or columns.moment(cell, self._zone) is not None

    def _is_name(self, cell: str) -> bool:
        return columns.side_of(cell) is None and any(letter.isalpha() for letter in cell)

    def _numbered(self, rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
        widths = [len(row) for row in rows]
        width = max(set(widths), key=lambda one: (widths.count(one), one))
        return tuple(str(place) for place in range(1, width + 1))

    def _roles(self, names: Sequence[str], rows: Sequence[Sequence[str]], header: bool) -> dict[str, int]:
        if header:
            return columns.roles_of(names, self._options.columns)
        return columns.roles_by_shape(rows, self._zone) | columns.roles_of(names, self._options.columns)

    def _number_columns(self, roles: Mapping[str, int], rows: Sequence[Sequence[str]], header: bool) -> list[int]:
        known = {roles[role] for role in columns.NUMBERS if role in roles}
        if not header and rows:
            known |= {column for column in range(len(rows[0])) if any("." in row[column] for row in rows)}
        return sorted(known - {roles.get("time", -1)})

    def _are_numbers(self, column: int, rows: Sequence[Sequence[str]]) -> bool:
        """A column that held other things from the start (a fee as `0.1 %`, an object) is the bot's own way."""
        filled = [row[column] for row in rows if row[column]]
        sound = sum(self._money(cell) is not None for cell in filled)
        return bool(filled) and sound >= 0.9 * len(filled)

    def _money(self, cell: str) -> object:
        return columns.money(cell.replace(",", ".") if comma(self._delimiter) else cell)

    def _needed(self, roles: Mapping[str, int], numbers: Sequence[int]) -> tuple[int, ...]:
        """A blank price or amount is no fill; a blank result is an open trade."""
        if "pnl" in roles:
            return ()
        return tuple(sorted({roles[role] for role in ("price", "amount") if roles.get(role) in numbers}))

    def _time(self, roles: Mapping[str, int], rows: Sequence[Sequence[str]]) -> int | None:
        column = roles.get("time")
        if column is None:
            return None
        filled = [row[column] for row in rows if row[column]]
        sound = sum(columns.moment(cell, self._zone) is not None for cell in filled)
        return column if sound >= 0.9 * len(filled) else None


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
    _stamps: dict[bytes, float] = field(default_factory=dict)

    @classmethod
    def of(cls, layout: Layout, options: FormatOptions) -> Reader:
        """A reader for that layout and zone."""
        return cls(layout, columns.zone_of(options.timezone))

    @cached_property
    def plain(self) -> Callable[[bytes], re.Match[bytes] | None]:
        """Matches a line that is a sound record without anything unusual in it. Linear: no cell reaches into the next."""
        gap = b" ?" if self.layout.spaced else b""
        mark = self.layout.delimiter.encode()
        text = rb'(?:[ !#-~]*|"[ !#-~]*")'.replace(b"#-~", _without(mark), 1)
        cells = [gap + self._cell_pattern(column, text) for column in range(self.layout.width)]
        return re.compile(re.escape(mark).join(cells) + rb"\r?").fullmatch

    def _cell_pattern(self, column: int, text: bytes) -> bytes:
        if column == self.layout.time:
            return rb'"?(?P<t>' + _TIMES + rb')"?'
        if column in self.layout.numbers:
            number = columns.NUMBER.encode()
            if comma(self.layout.delimiter):
                number = number.replace(b"[.]", b"[.,]")
            return b'"?' + number + b'"?' if column in self.layout.needed else b'(?:"?' + number + b'"?)?'
        return text

    @property
    def typed(self) -> bool:
        """Whether a line can be known for a record by itself."""
        return self.layout.time is not None or bool(self.layout.numbers)

    def stamp(self, found: re.Match[bytes]) -> float | None:
        """Epoch seconds of a record that `plain` matched; None: no time column. Raises ValueError for 31 February."""
        if self.layout.time is None:
            return None
        text = found["t"].decode("ascii")
        if self.zone is UTC and len(text) > 18:
            at = datetime.fromisoformat(text) if text[10] in "T " else None
            if at is not None:
                return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        return self.time_of(text)

    def time_of(self, text: str) -> float:
        """Epoch seconds. Raises ValueError if it is no time."""
        at = columns.moment(text, self.zone)
        if at is None:
            raise ValueError(text)
        return at.timestamp()

    def cells(self, raw: bytes) -> list[str]:
        """The cells of a record that was found sound."""
        text = raw.decode("utf-8", "backslashreplace")
        if '"' not in text and not self.layout.spaced:
            return text.rstrip("\r").split(self.layout.delimiter)
        return next(self._parse(text.split("\n")), [])

    def _parse(self, lines: Sequence[str]) -> Iterator[list[str]]:
        return csv.reader(
            iter([line + "\n" for line in lines]),
            delimiter=self.layout.delimiter,
            skipinitialspace=self.layout.spaced,
            strict=True,
        )

    def open_quote(self, raw: bytes) -> bool:
        """Whether a quoted field is still open at the end. Raises csv.Error where the quotes cannot be right."""
        lines = _Asked(raw.decode("utf-8", "backslashreplace").split("\n"))
        try:
            rows = list(csv.reader(lines, delimiter=self.layout.delimiter, skipinitialspace=True, strict=True))
        except csv.Error:
            if lines.asked_for_more:
                return True
            raise
        if len(rows) > 1:
            raise csv.Error("line end within a record")
        return False

    def flaw(self, raw: bytes) -> tuple[Flaw | None, float | None]:
        """What is wrong with a whole record, and its time where it has one."""
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            note: Flaw | None = Flaw("C6", f"It is not all UTF-8: {evidence(raw)}.", sound=True)
        else:
            note = None
        cells = self.cells(raw)
        wrong = self._wrong_cell(cells)
        if len(cells) != self.layout.width:
            text = f"It has {len(cells)} columns where {self.layout.width} are expected: {evidence(raw)}."
            longer = self.layout.width < len(cells) < 2 * self.layout.width - 1
            return Flaw("C4", text, sound=longer and wrong is None), None
        if wrong is not None:
            return wrong, None
        return note, self._time_in(cells)

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
        name, cell = self.layout.names[column], cells[column].encode("utf-8", "backslashreplace")
        return Flaw("C9", f"Column {evidence(name.encode(), 40)} holds {evidence(cell, 60)}, which is no {kind}.")


def _without(mark: bytes) -> bytes:
    """`#-~`, the printable characters after the quote, without the delimiter."""
    if mark == b"\t":
        return b"#-~"
    before, after = bytes([mark[0] - 1]), bytes([mark[0] + 1])
    return b"#-" + re.escape(before) + re.escape(after) + b"-~"


class _Asked:
    """Lines for csv.reader that remember whether it wanted one more than there was."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = iter([line + "\n" for line in lines])
        self.asked_for_more = False
        self._read = 0

    def __iter__(self) -> _Asked:
        return self

    def __next__(self) -> str:
        return next(self._lines)


# --- all records -------------------------------------------------------------------------------------------------

Row = tuple[int, bytes, float | None, Flaw | None]
"""Offset, bytes without the line end, epoch seconds, what is wrong. Sound with a note: `flaw.sound`."""


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
        self._at = start
        self.end = start
        self.tail = b""
        """The first bytes of what is incomplete."""
        self.cut_short = False
        """The file ended before `stop`: somebody shortened it meanwhile."""

    def __iter__(self) -> Iterator[Row]:
        while self._at < self._stop:
            data = self._source.read(self._at, min(CHUNK, self._stop - self._at))
            if not data:
                self.cut_short = True
                return
            last = self._at + len(data) >= self._stop
            yield from self._records(data, last)
            if self.end == self._at and not last:
                yield from self._overlong(data)
            self._at = self.end
            if last:
                self.tail = data[len(data) - (self._at_end(data) - self.end) :][:HEAD]
                return

    def _at_end(self, data: bytes) -> int:
        return self._start + len(data)

    def _records(self, data: bytes, last: bool) -> Iterator[Row]:
        raise NotImplementedError

    def _overlong(self, data: bytes) -> Iterator[Row]:
        raise NotImplementedError
