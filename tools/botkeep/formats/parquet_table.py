"""A Parquet file as a table of trades: its two ends, its columns as text, its rows in batches of bounded size.

Layout of the file: https://parquet.apache.org/docs/file-format/ (`PAR1`, row groups, footer, its length, `PAR1`). It is
read by pyarrow, in this process, with every page's checksum verified where the writer wrote one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Context, Decimal
from functools import cached_property
from itertools import accumulate
from typing import Any

from ..model import BotkeepError
from . import columns
from .base import FormatOptions
from .files import Source
from .records import StrangeError, evidence

MAGIC = b"PAR1"
ENCRYPTED = b"PARE"
BATCH = 1 << 14
"""Rows that are in memory at once."""
FOOTER_CAP = 16 << 20
"""Bytes of a footer that is believed: a real one has some hundred a column and row group."""
MOST_COLUMNS = 1000
LONGEST_NAME = 200
MOST_GROUP_ROWS = 1 << 24
"""Rows of one row group: a few hundred bytes can claim, and unpack to, billions of equal ones."""
NEEDED = ("time", "symbol", "side", "price", "amount")
"""Roles without which an execution is none."""
_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_FIRST = (datetime(1, 1, 1, tzinfo=UTC) - _START) // _MICRO
_LAST = (datetime(9999, 12, 31, tzinfo=UTC) - _START) // _MICRO
_WHOLE = re.compile(r"-?\d{1,38}", re.ASCII)
_EXACT = Context(prec=60)


def library() -> Any:
    """The module `pyarrow.parquet`. Raises BotkeepError where it is not installed."""
    try:
        import pyarrow.parquet as found  # an extra, and tens of megabytes: only where a bot writes Parquet
    except ImportError as error:
        raise BotkeepError('Reading Parquet needs botkeep[parquet]: pip install "botkeep[parquet]".') from error
    return found


# --- its two ends ------------------------------------------------------------------------------------------------


def check_ends(source: Source) -> None:
    """`PAR1` at both, and a footer that fits between. Needs no library. Raises StrangeError: P1, C2, C11 or kind for
    what is none, C3 or C4 for one that botkeep does not read."""
    head = source.read(0, 200)
    if head[:4] == ENCRYPTED:
        raise StrangeError("C3", "It is encrypted Parquet; botkeep reads only what needs no key.")
    if not head.startswith(MAGIC):
        raise _no_parquet(head)
    tail = source.read(max(4, source.size - 8), 8)
    if tail[4:] == ENCRYPTED:
        raise StrangeError("C3", "Its footer is encrypted; botkeep reads only what needs no key.")
    if tail[4:] != MAGIC:
        text = f"It has no footer: it is still open in its writer, or was cut off; it ends with {evidence(tail)}."
        raise StrangeError("P1", text, source.size)
    _check_footer(int.from_bytes(tail[:4], "little"), source.size)


def _check_footer(length: int, size: int) -> None:
    if length > size - 12:
        text = f"Its footer should have {length} bytes, and the whole file has {size}: a part of it is missing."
        raise StrangeError("P1", text, size - 8)
    if length > FOOTER_CAP:
        raise StrangeError("C4", f"Its footer has {length} bytes; more than {FOOTER_CAP} are not read.", size - 8)


def _no_parquet(head: bytes) -> StrangeError:
    seen = head.lstrip()
    if len(head) < 4 and MAGIC.startswith(head):
        return StrangeError("P1", f"It ends within its first bytes: {evidence(head)}.", len(head))
    if head.startswith(b"\0"):
        return StrangeError("C2", f"NUL bytes stand where PAR1 should be: {evidence(head)}.")
    if seen[:1] == b"<":
        return StrangeError("C11", f"It holds a web page instead of trades: {evidence(seen)}.")
    if seen[:1] in (b"{", b"["):
        return StrangeError("C11", f"It holds JSON instead of Parquet: {evidence(seen)}.")
    return StrangeError("kind", f"It is no Parquet file: it begins with {evidence(head[:24])}, not with PAR1.")


# --- the table ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Some rows in a row."""

    first: int
    """Counted from 1 through the whole file."""
    batch: Any
    """A pyarrow RecordBatch."""

    @property
    def count(self) -> int:
        """How many."""
        return int(self.batch.num_rows)


class Table:
    """An open Parquet file. Raises StrangeError where its footer cannot be read or its tables are not flat."""

    def __init__(self, source: Source, options: FormatOptions) -> None:
        check_ends(source)
        self.options, self.zone = options, columns.zone_of(options.timezone)
        self.file = _open(source)
        self.schema = self.file.schema_arrow
        self.names = _names(self.schema)
        self.roles = columns.roles_of(self.names, options.columns)
        self._refuse_nested()

    def _refuse_nested(self) -> None:
        for role, place in self.roles.items():
            if is_nested(self.schema.types[place]):
                name = shown([self.names[place]])
                text = f"Its column {name}, the {role}, holds lists or objects: only flat ones are read."
                raise StrangeError("C3", text)

    @property
    def groups(self) -> int:
        """Row groups."""
        return int(self.file.num_row_groups)

    @property
    def rows(self) -> int:
        """Rows, as the footer says."""
        return int(self.file.metadata.num_rows)

    @property
    def closing(self) -> bool:
        """Rows are closed trades with their result; else executions."""
        return "pnl" in self.roles

    @property
    def typed(self) -> bool:
        """Whether the columns make trades."""
        return set(self.roles) >= (set(NEEDED) if not self.closing else {"time"})

    def group_rows(self, group: int) -> int:
        """Rows of one row group, as the footer says."""
        return int(self.file.metadata.row_group(group).num_rows)

    @cached_property
    def starts(self) -> list[int]:
        """Number of the first row of each row group, counted from 1."""
        return list(accumulate((self.group_rows(group) for group in range(self.groups)), initial=1))

    def group(self, group: int) -> Iterator[Rows]:
        """The rows of a row group. Raises StrangeError P2 where they cannot be read, OSError where the disk cannot."""
        expected, found = self.group_rows(group), 0
        if expected > MOST_GROUP_ROWS:
            raise StrangeError("C4", f"Row group {group + 1} has {expected} rows: more than {MOST_GROUP_ROWS}.")
        try:
            for batch in self.file.iter_batches(BATCH, [group], use_threads=False):
                batch.validate()
                yield Rows(self.starts[group] + found, batch)
                found += batch.num_rows
        except _broken() as error:
            raise _unreadable(group, self.groups, error) from error
        if found != expected:
            raise _unreadable(group, self.groups, ValueError(f"{found} rows instead of {expected}"))

    def all(self) -> Iterator[Rows]:
        """All rows. Raises as `group` does."""
        for group in range(self.groups):
            yield from self.group(group)

    def readable(self) -> Iterator[Rows | tuple[int, int, StrangeError]]:
        """The rows of all row groups that can be read whole; of the others (first row, rows, why not)."""
        for group in range(self.groups):
            why = self.broken(group)
            if why is None:
                yield from self.group(group)
            else:
                yield self.starts[group], self.group_rows(group), why

    # --- what a batch says ---

    def texts(self, rows: Rows) -> list[list[str]]:
        """The cells of each column that has a role, as text; blank where there is none. Others are left empty."""
        wanted = set(self.roles.values())
        return [
            [cell or "" for cell in self._scaled(place, text_of(column).to_pylist())] if place in wanted else []
            for place, column in enumerate(rows.batch.columns)
        ]

    def _scaled(self, place: int, cells: list[str | None]) -> list[str | None]:
        """Integers that count thousandths or so, as what they mean."""
        by = self._divisors.get(place, 1)
        if by == 1:
            return cells
        return [str(_EXACT.divide(Decimal(cell), by)) if cell and _WHOLE.fullmatch(cell) else cell for cell in cells]

    @cached_property
    def _divisors(self) -> dict[int, int]:
        return {self.roles[role]: by for role, by in self.options.scale.items() if role in self.roles and by > 0}

    def cells(self, rows: Rows) -> Iterator[tuple[int, list[str]]]:
        """(row, its cells) of each."""
        texts = [column or [""] * rows.count for column in self.texts(rows)]
        yield from enumerate(map(list, zip(*texts, strict=True)), start=rows.first)

    def keys(self, rows: Rows) -> Any:
        """Market, symbol and trade id of each row, an array of text with nulls where it has no id; None: no column."""
        import pyarrow.compute as pc

        if "id" not in self.roles:
            return None
        places = [self.roles[role] for role in ("market", "symbol", "id") if role in self.roles]
        found = [text_of(rows.batch.column(place)) for place in places]
        known = pc.greater(pc.utf8_length(found[-1]), 0)
        joined = pc.binary_join_element_wise(*found, "\0", null_handling="replace", null_replacement="")
        return pc.if_else(known, joined, None)

    def times(self, rows: Rows) -> Any:
        """Microseconds since 1970, an array with nulls where there is no time. Only of typed tables."""
        return micros(rows.batch.column(self.roles["time"]), self.zone)[0]

    def flaws(self, rows: Rows) -> dict[str, list[int]]:
        """Role -> places in the batch whose value is none, or is missing where no trade is without it (C9)."""
        found = {role: no_numbers(self.column(rows, role)) for role in columns.NUMBERS if role in self.roles}
        if "time" in self.roles:
            found["time"] = micros(self.column(rows, "time"), self.zone)[1]
        for role in () if self.closing else ("time", "price", "amount"):
            if role in found:
                found[role] = sorted({*found[role], *blanks(self.column(rows, role))})
        return found

    def column(self, rows: Rows, role: str) -> Any:
        """The column of a role."""
        return rows.batch.column(self.roles[role])

    def broken(self, group: int) -> StrangeError | None:
        """Why a row group cannot be read to its end: then nothing of it is to be believed."""
        try:
            for _ in self.group(group):
                pass
        except StrangeError as strange:
            return strange
        return None


def _open(source: Source) -> Any:
    """The library's view of the open file. Raises StrangeError P1."""
    parquet = library()
    import pyarrow as pa

    try:
        return parquet.ParquetFile(
            pa.OSFile(f"/proc/self/fd/{source.fd}"),
            pre_buffer=False,
            buffer_size=1 << 16,
            page_checksum_verification=True,
            thrift_string_size_limit=FOOTER_CAP,
            thrift_container_size_limit=1 << 20,
            arrow_extensions_enabled=False,
        )
    except _broken() as error:
        if getattr(error, "errno", None):
            raise
        raise StrangeError("P1", f"Its footer cannot be read: {_said(error)}.", source.size - 8) from error


def _names(schema: Any) -> tuple[str, ...]:
    """Of the columns. Raises StrangeError where there are too many, or one cannot be told from another."""
    try:
        names = tuple(str(name) for name in schema.names)
    except UnicodeDecodeError as error:
        raise StrangeError("P1", "Its footer cannot be read: a column has a name that is no text.") from error
    if len(names) > MOST_COLUMNS or max(map(len, names), default=0) > LONGEST_NAME:
        limits = f"more than {MOST_COLUMNS}, or one of a name longer than {LONGEST_NAME}, are not read"
        raise StrangeError("C4", f"It has {len(names)} columns; {limits}.")
    if len(set(names)) < len(names):
        raise StrangeError("C3", "Two of its columns have one name: nobody can say which of them is meant.")
    return names


def shown(names: Sequence[str]) -> str:
    """Names of columns as people can read them: they come from the file."""
    return ", ".join(evidence(name.encode("utf-8", "backslashreplace"), 60) for name in names[:10])


def _broken() -> tuple[type[Exception], ...]:
    """What the library raises for bytes it cannot read: a length in them may ask for any amount of memory."""
    import pyarrow as pa

    return (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)


def _unreadable(group: int, groups: int, error: Exception) -> StrangeError:
    if getattr(error, "errno", None):
        raise error
    return StrangeError("P2", f"Row group {group + 1} of {groups} cannot be read: {_said(error)}.")


def _said(error: Exception) -> str:
    """The library's own words: they may quote the file."""
    first = str(error).strip().split("\n", 1)[0]
    return evidence(first.encode("utf-8", "backslashreplace")).rstrip(".")


# --- columns -----------------------------------------------------------------------------------------------------


def is_nested(kind: Any) -> bool:
    """Lists, structs, maps, unions."""
    import pyarrow as pa

    return bool(pa.types.is_nested(kind))


def text_of(column: Any) -> Any:
    """A column as text, null where it has no value: numbers in their shortest exact form, times in ISO and UTC."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type) and column.type.tz:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    try:
        found = column.cast(pa.string())
        found.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([_plain_text(value) for value in _values(column)], pa.string())
    return found


def _values(column: Any) -> list[Any]:
    """Text that is not UTF-8 as its bytes, everything else as Python has it."""
    import pyarrow as pa

    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    return list(column.to_pylist())


def _plain_text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return None if value is None else str(value)


def micros(column: Any, zone: tzinfo) -> tuple[Any, list[int]]:
    """(microseconds since 1970 as an array with nulls, places whose value is no time)."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_date(kind) and zone is UTC:
        return _in_range(column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()))
    if pa.types.is_timestamp(kind) and (kind.tz or zone is UTC):
        plain = column.cast(pa.timestamp(kind.unit)) if kind.tz else column
        return _in_range(plain.cast(pa.timestamp("us"), safe=False).cast(pa.int64()))
    texts = text_of(column).to_pylist()
    found = [columns.moment(text, zone) if text else None for text in texts]
    bad = [place for place, (text, at) in enumerate(zip(texts, found, strict=True)) if text and at is None]
    return pa.array([None if at is None else (at - _START) // _MICRO for at in found], pa.int64()), bad


def _in_range(found: Any) -> tuple[Any, list[int]]:
    """Sixty-four bits can say a year of six digits; a calendar cannot."""
    import pyarrow.compute as pc

    sound = pc.and_(pc.greater_equal(found, _FIRST), pc.less(found, _LAST))
    return pc.if_else(sound, found, None), _places(pc.invert(sound))


def no_numbers(column: Any) -> list[int]:
    """Places of a column whose value is there and is no number by botkeep's grammar."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_floating(kind):
        return _places(pc.invert(pc.is_finite(column)))
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return []
    texts = text_of(column)
    odd = pc.invert(pc.match_substring_regex(texts, f"^{columns.NUMBER}$"))
    return [place for place in _places(odd) if (text := texts[place].as_py()) and columns.money(text) is None]


def blanks(column: Any) -> list[int]:
    """Places of a column without a value."""
    import pyarrow.compute as pc

    if column.null_count == 0 and not _is_text(column.type):
        return []
    texts = text_of(column)
    return _places(pc.or_kleene(pc.is_null(texts), pc.equal(pc.utf8_length(texts), 0)))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return not pa.types.is_primitive(kind) and not pa.types.is_decimal(kind)


def said(table: Table, rows: Rows, role: str, place: int) -> str:
    """What is wrong with a value, as a sentence."""
    found = text_of(table.column(rows, role).slice(place, 1))[0].as_py()
    what = f"is none: {evidence(found.encode('utf-8', 'backslashreplace'))}" if found else "is missing"
    return f"Its {role} {what}."


def _places(mask: Any) -> list[int]:
    import pyarrow.compute as pc

    return [int(place) for place in pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()]


# --- content -----------------------------------------------------------------------------------------------------


def joined(batch: Any, names: Sequence[str]) -> Any:
    """Each row's cells of these columns as one text: equal for equal rows, whatever packing or width they have."""
    import pyarrow.compute as pc

    cells = [text_of(batch.column(batch.schema.get_field_index(name))) for name in names]
    if not cells:
        return text_of(batch.column(0))
    return pc.binary_join_element_wise(*cells, "\x1f", null_handling="replace", null_replacement="\0")


def content(texts: Any) -> bytes:
    """The bytes of an array of text, each with its end, for a hash."""
    return b"".join(text.encode() + b"\n" for text in texts.to_pylist())


def digest(text: str) -> bytes:
    """Sixteen bytes by which a row or a key is known again."""
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest()
