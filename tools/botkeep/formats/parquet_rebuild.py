"""A Parquet file rebuilt: a good copy, and what the row groups of the damaged file have besides.

1. The good copy as it is, byte for byte, where the damaged file has nothing more: without a footer nobody can know what
   its pages mean.
2. Of the damaged file the row groups that can be read to their end; of one that cannot, nothing is believed.
3. Of their sound rows those that the copy has not, by trade id; without ids those that are later than its last row.
4. mode rewrite: a row with a known trade id and other content takes the place of the older one.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..model import BotkeepError, Finding
from .base import FormatOptions, Rebuilt
from .files import Source, UnreadableError, regular
from .inspecting import LISTED
from .parquet_table import Rows, Table, digest, joined, library, said
from .records import StrangeError


def rebuild(good: Path | None, damaged: Path, target: Path, *, options: FormatOptions) -> Rebuilt:
    """A format's `rebuild`."""
    library()
    try:
        if good is None:
            return _alone(damaged, target, options)
        with regular(good) as source:
            return _onto(source, damaged, target, options)
    except StrangeError as error:
        raise BotkeepError(f"Nothing can be salvaged from {damaged.name}: {error}") from error
    except UnreadableError as error:
        raise BotkeepError(f"{damaged} cannot be read: {error}.") from error
    except OSError as error:
        raise BotkeepError(f"{target.name} cannot be built in {target.parent}: {error.strerror or error}.") from error


def _alone(damaged: Path, target: Path, options: FormatOptions) -> Rebuilt:
    with regular(damaged) as source:
        table = Table(source, options)
        salvage = _Salvage(table, _Known(), options)
        salvage.read()
        with _Output(target, table.schema, table) as output:
            for batch in salvage.fresh:
                output.write(batch)
    return salvage.result(target, 0)


def _onto(source: Source, damaged: Path, target: Path, options: FormatOptions) -> Rebuilt:
    try:
        table = Table(source, options)
        known = _known(table)
    except StrangeError as error:
        raise BotkeepError(f"The backup cannot be built on: {error}") from error
    try:
        with regular(damaged) as remains:
            return _merge(source, table, known, remains, target, options)
    except FileNotFoundError:
        _copy(source, target)
        return _Salvage(table, known, options).result(target, table.rows)


def _merge(
    source: Source, table: Table, known: _Known, remains: Source, target: Path, options: FormatOptions
) -> Rebuilt:
    salvage = _Salvage(table, known, options)
    try:
        salvage = _Salvage(Table(remains, options), known, options)
        salvage.read()
        salvage.fit(table.schema)
    except StrangeError as strange:
        salvage.nothing(strange)
    if salvage.fresh or salvage.newer:
        _write(table, salvage, target)
    else:
        _copy(source, target)
    return salvage.result(target, table.rows)


def _copy(source: Source, target: Path) -> None:
    with target.open("wb") as file:
        for data in source.chunks(0, source.size):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write(table: Table, salvage: _Salvage, target: Path) -> None:
    with _Output(target, salvage.schema, table) as output:
        for rows in table.all():
            output.write(salvage.renewed(rows))
        for batch in salvage.fresh:
            output.write(batch)


class _Output:
    """A new Parquet file, packed as the table `like` is, with a checksum on every page. Durable at its end."""

    def __init__(self, target: Path, schema: Any, like: Table) -> None:
        self._target, self._schema = target, schema
        self._writer = library().ParquetWriter(
            str(target), schema, compression=_packing(like), write_page_checksum=True, store_schema=True
        )

    def write(self, batch: Any) -> None:
        """Add rows; columns that they have not are empty."""
        self._writer.write_batch(fitted(batch, self._schema))

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *ended: object) -> None:
        self._writer.close()
        with self._target.open("rb") as file:
            os.fsync(file.fileno())


def _packing(table: Table) -> str:
    if not table.groups or not table.names:
        return "snappy"
    found = str(table.file.metadata.row_group(0).column(0).compression).lower()
    return found if found in ("gzip", "brotli", "zstd", "lz4") else "none" if found == "uncompressed" else "snappy"


def fitted(batch: Any, schema: Any) -> Any:
    """The batch in the columns of the schema. Raises ArrowInvalid where a value does not fit."""
    import pyarrow as pa

    def column(name: str, kind: Any) -> Any:
        place = batch.schema.get_field_index(name)
        return pa.nulls(batch.num_rows, kind) if place < 0 else batch.column(place).cast(kind)

    return pa.RecordBatch.from_arrays([column(one.name, one.type) for one in schema], schema=schema)


# --- what the good copy has --------------------------------------------------------------------------------------


@dataclass
class _Known:
    """The rows of the good copy: by trade id where every row has its own, else how often each row is in it."""

    names: tuple[str, ...] = ()
    count: int = 0
    keyed: bool = False
    rows: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    """Digest of the key -> (row, digest of the content)."""
    times: Counter[bytes] = field(default_factory=Counter)
    last: int | None = None
    """Microseconds since 1970 of its latest row."""

    def can_be_new(self, at: int | None, *, behind: bool) -> bool:
        """Whether a row that the copy has not is another trade, and not an old one that was changed."""
        if at is None or self.last is None:
            return behind
        return at > self.last or (at == self.last and behind)


def _known(table: Table) -> _Known:
    known = _Known(table.names)
    for rows in table.all():
        for place, (key, text, at) in enumerate(_said(table, rows, table.names)):
            known.count += 1
            if key:
                known.rows[digest(key)] = (rows.first + place, digest(text))
            if at is not None:
                known.last = at if known.last is None else max(at, known.last)
            known.times[digest(text)] += 1
    known.keyed = len(known.rows) == known.count
    return known


def _said(table: Table, rows: Rows, names: tuple[str, ...]) -> list[tuple[str | None, str, int | None]]:
    """(key, content in these columns, time) of each row."""
    keys = table.keys(rows)
    times = table.times(rows).to_pylist() if "time" in table.roles else [None] * rows.count
    found = keys.to_pylist() if keys is not None else [None] * rows.count
    return list(zip(found, joined(rows.batch, names).to_pylist(), times, strict=True))


# --- what the damaged file has besides ---------------------------------------------------------------------------


class _Salvage:
    """The sound rows of a damaged file that the good copy has not."""

    def __init__(self, table: Table, known: _Known, options: FormatOptions) -> None:
        self._table, self._known, self._options = table, known, options
        self.schema = table.schema
        self.fresh: list[Any] = []
        """Batches of new rows."""
        self.newer: dict[int, Any] = {}
        """Row of the copy -> the batch of one row that takes its place."""
        self._sound = self._dropped = self._dropped_sound = self._again = 0
        self._listed: list[Finding] = []
        self._seen: set[bytes] = set()

    def result(self, target: Path, kept: int) -> Rebuilt:
        """What came of it, of `kept` rows in the copy."""
        new = sum(batch.num_rows for batch in self.fresh)
        with regular(target) as made:
            size, sha256 = made.size, made.digest(0, made.size)
        return Rebuilt(
            rows=kept + new,
            kept=kept - len(self.newer),
            salvaged=new + len(self.newer),
            replaced=len(self.newer),
            dropped=self._dropped,
            dropped_sound=self._dropped_sound,
            dropped_rows=tuple(self._listed),
            damaged_good=self._sound,
            size=size,
            sha256=sha256,
        )

    def nothing(self, why: StrangeError) -> None:
        """No row of the damaged file can be used."""
        self.fresh, self.newer = [], {}
        self._drop(Finding("C11" if why.rule == "kind" else why.rule, str(why), True, offset=why.offset))

    def read(self) -> None:
        """Read the damaged file."""
        own_way = self._own_way()
        for rows in self._table.readable():
            if isinstance(rows, Rows):
                self._take(rows, own_way)
            else:
                first, count, why = rows
                self._drop(Finding(why.rule, str(why), True, first), count)

    def _own_way(self) -> set[str]:
        """Columns that hold other things most of the time."""
        filled, unsound = 0, Counter[str]()
        for rows in self._table.readable():
            if isinstance(rows, Rows):
                filled += rows.count
                unsound.update({role: len(bad) for role, bad in self._flaws(rows).items()})
        return {role for role, count in unsound.items() if 2 * count > filled}

    def _flaws(self, rows: Rows) -> dict[str, list[int]]:
        return self._table.flaws(rows) if self._table.typed else {}

    def _take(self, rows: Rows, own_way: set[str]) -> None:
        bad = {place: role for role, found in self._flaws(rows).items() if role not in own_way for place in found}
        for place, role in sorted(bad.items()):
            self._drop(Finding("C9", said(self._table, rows, role, place), True, rows.first + place))
        names = tuple(name for name in self._known.names or self._table.names if name in self._table.names)
        new = []
        for place, (key, text, at) in enumerate(_said(self._table, rows, names)):
            if place not in bad:
                self._sound += 1
                if self._is_new(rows, place, key, digest(text), at):
                    new.append(place)
        if new:
            self.fresh.append(rows.batch.take(new))

    def _is_new(self, rows: Rows, place: int, key: str | None, content: bytes, at: int | None) -> bool:
        known = self._known
        if key and self._is_again(digest(key) + content):
            return False
        if known.keyed and key:
            row, before = known.rows.get(digest(key), (0, b""))
            if row and before != content:
                self._changed(rows, place, row)
            return not row
        known.times[content] -= 1
        if known.times[content] >= 0:
            return False
        if not known.names or known.can_be_new(at, behind=rows.first + place > known.count):
            return True
        self._drop_sound(rows.first + place)
        return False

    def _is_again(self, mark: bytes) -> bool:
        """The same trade id with the same content, once more (C7): one of them is kept."""
        again = mark in self._seen
        self._seen.add(mark)
        return again

    def _changed(self, rows: Rows, place: int, row: int) -> None:
        if self._options.mode == "rewrite":
            self.newer[row] = rows.batch.slice(place, 1)
        else:
            self._drop_sound(rows.first + place)

    def _drop_sound(self, row: int) -> None:
        self._dropped_sound += 1
        self._drop(Finding("C13", "It is sound, but not as in the backup, and no new trade.", False, row))

    def _drop(self, finding: Finding, count: int = 1) -> None:
        self._dropped += count
        if len(self._listed) < LISTED:
            self._listed.append(finding)

    # --- into the columns of the copy ---

    def fit(self, schema: Any) -> None:
        """Put the rows into the copy's columns and those that are new. Raises StrangeError C3 if they do not fit."""
        import pyarrow as pa

        added = [one for one in self._table.schema if schema.get_field_index(one.name) < 0]
        self.schema = pa.schema([*schema, *(one.with_nullable(True) for one in added)], metadata=schema.metadata)
        try:
            self.fresh = [fitted(batch, self.schema) for batch in self.fresh]
            self.newer = {row: fitted(batch, self.schema) for row, batch in self.newer.items()}
        except (pa.ArrowException, ValueError) as error:
            text = "Its columns are of other types than the backup's: a person should look which of both is right."
            raise StrangeError("C3", text) from error

    def renewed(self, rows: Rows) -> Any:
        """Rows of the copy, each in its newest version."""
        import pyarrow as pa

        batch = fitted(rows.batch, self.schema)
        places = [row - rows.first for row in self.newer if rows.first <= row < rows.first + rows.count]
        if not places:
            return batch
        versions = pa.Table.from_batches([batch, *(self.newer[rows.first + place] for place in places)])
        order = list(range(rows.count))
        for number, place in enumerate(places):
            order[place] = rows.count + number
        return versions.take(order).combine_chunks().to_batches()[0]
