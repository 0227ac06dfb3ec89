"""How the records of a delimited text are laid out, learned from its first lines: delimiter, header, columns, roles."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import columns
from .base import FormatOptions
from .knowledge import OWN_WAY
from .records import StrangeError, evidence
from .roles import later_columns, nan_columns, says_nothing, told_markets, told_status

SAMPLE = 200
"""Rows from which it is learned what a column holds."""
MOST_COLUMNS = 1000
LONGEST_HEADER = 4096
"""Bytes: the header is kept in the cursor, twice."""
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
    nan: tuple[int, ...] = ()
    """Columns in which the bot writes `nan` where there is no result yet."""
    status: str = ""
    """The newest status of a row that is a trade."""
    markets: tuple[str, ...] = ()
    """The first markets, as they are spelled."""

    @property
    def width(self) -> int:
        """Columns of a sound row."""
        return len(self.names)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Layout:
        """The reverse. Raises KeyError, TypeError or ValueError where it is not one of ours."""
        plain = dict(raw)
        for name in ("names", "numbers", "needed", "nan", "markets"):
            plain[name] = tuple(plain.get(name, ()))
        return cls(**plain)


# --- learning ----------------------------------------------------------------------------------------------------


def learned(head: bytes, most: int, options: FormatOptions) -> Layout | None:
    """The layout of a file that begins with `head`, which is cut at `most` bytes. None: not one whole line yet.

    Raises StrangeError.
    """
    start = _start(head)
    text = head[start:]
    _refuse_strange(text)
    lines = text.split(b"\n")[:-1][: SAMPLE + 1]  # what follows the last line end may be cut
    if not lines:
        if len(head) == most:
            raise StrangeError("C4", f"Its first line is longer than {most} bytes.")
        return None
    return _Learner(lines, start, options).layout()


def _start(head: bytes) -> int:
    return len(BOM) if head.startswith(BOM) else 0


def _refuse_strange(text: bytes) -> None:
    if text[:2] in (b"\xff\xfe", b"\xfe\xff") or is_wide(text[:200]):
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


def is_wide(text: bytes) -> bool:
    """Whether it looks like UTF-16: every second byte is zero, and no other."""
    return len(text) >= 8 and any(not any(text[start::2]) and all(text[1 - start :: 2]) for start in (0, 1))


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
        if header and len(self._lines[0]) > LONGEST_HEADER:
            length = len(self._lines[0])
            raise StrangeError("C4", f"Its header has {length} bytes; more than {LONGEST_HEADER} are not read.")
        if len(names) > MOST_COLUMNS:
            raise StrangeError("C4", f"Its rows have {len(names)} columns; more than {MOST_COLUMNS} are not read.")
        rows = [row for row in rows if len(row) == len(names)]
        roles = self._roles(names, rows, header)
        later = {column: [row[column] for row in rows] for column in later_columns(roles)}
        nan = nan_columns({column: later[column] for column in later if column != roles.get("time")}, OWN_WAY)
        rows = [_without_words(row, later, nan) for row in rows]
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
            nan=nan,
            status=told_status([row[roles["status"]] for row in rows] if "status" in roles else ()),
            markets=told_markets([row[roles["market"]] for row in rows] if "market" in roles else ()),
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


def _without_words(row: Sequence[str], later: Collection[int], nan: Collection[int]) -> list[str]:
    """The row, with nothing where it says in a word that there is nothing yet."""
    return ["" if says_nothing(cell, column, later, nan) else cell for column, cell in enumerate(row)]


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
