"""What the trades in a database look like: freqtrade's, Hummingbot's, or any table whose columns say what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from . import sqlite_freqtrade, sqlite_hummingbot, sqlite_mapped
from .base import FormatOptions, TradeTable
from .sqlite_open import DriftError, NoTradesError, Table

Cells = Sequence[Any]
"""The values of the columns that a shape asks for, in its order."""


class Shape(Protocol):
    """The trades of one table."""

    name: str
    """Of the kind of program, for people: freqtrade, Hummingbot, or empty."""
    table: str
    columns: tuple[str, ...]
    """Those of the table that are read."""
    settled: str
    """SQL that is true for rows that no bot ever changes or takes away."""
    lasting: tuple[str, ...]
    """Columns of a settled row that stay as they are."""
    identity: tuple[str, ...]
    """Columns that stay as they are in every row: with another value there it is another trade."""
    notes: tuple[str, ...]
    """What is odd about the schema, though all that is needed is there."""

    def flaw(self, cells: Cells) -> str | None:
        """What is wrong with a row, as a sentence."""
        ...

    def times(self, cells: Cells) -> tuple[float | None, float | None]:
        """(when the trade was made, when the row says that something happened last), epoch seconds."""
        ...

    def table_of(self, rows: Iterator[tuple[int, Cells]]) -> TradeTable:
        """The trades of all rows. Raises BotkeepError where the columns do not make trades."""
        ...


@dataclass(frozen=True)
class _Known:
    needed: frozenset[str]
    sign: frozenset[str]
    """Columns that no other program's table of that name has."""
    make: Any


_KNOWN: Mapping[str, _Known] = {
    sqlite_freqtrade.TABLE: _Known(sqlite_freqtrade.NEEDED, sqlite_freqtrade.SIGN, sqlite_freqtrade.Freqtrade),
    sqlite_hummingbot.TABLE: _Known(sqlite_hummingbot.NEEDED, sqlite_hummingbot.SIGN, sqlite_hummingbot.Hummingbot),
}


def recognise(tables: Mapping[str, Table], options: FormatOptions) -> Shape:
    """What to read, as configured, or as the tables show it. Raises DriftError, NoTradesError."""
    for name, known in _KNOWN.items():
        table = tables.get(name)
        if table is None or (options.table and options.table != name):
            continue
        if len(known.sign & set(table.columns)) * 2 >= len(known.sign):
            return _known(table, tables, known, options)
    if options.table:
        return _named(tables, options)
    return _seen(tables, options)


def _known(table: Table, tables: Mapping[str, Table], known: _Known, options: FormatOptions) -> Shape:
    missing = sorted(known.needed - set(table.columns))
    if missing:
        raise DriftError(
            f"Its table {table.name} has no column {', '.join(missing[:5])}: another version of the bot wrote it. "
            f"A person should look; no restore can help."
        )
    if not table.by_rowid:
        raise DriftError(f"Its table {table.name} has no rowids: no version of the bot makes it so.")
    made: Shape = known.make(table, tables, options)
    return made


def _named(tables: Mapping[str, Table], options: FormatOptions) -> Shape:
    table = tables.get(options.table)
    if table is None:
        names = ", ".join(list(tables)[:20]) or "none at all"
        raise NoTradesError(f"It has no table {options.table!r}, which data_format.table names. It has: {names}.")
    return _mapped(table, options)


def _mapped(table: Table, options: FormatOptions) -> Shape:
    if not table.by_rowid:
        raise NoTradesError(
            f"The rows of its table {table.name} have no rowid (WITHOUT ROWID): they cannot be followed."
        )
    return sqlite_mapped.Mapped(table, options)


def _seen(tables: Mapping[str, Table], options: FormatOptions) -> Shape:
    """The one table whose columns make trades; of several, the one that is called so."""
    found = [table for table in tables.values() if table.by_rowid and sqlite_mapped.makes_trades(table, options)]
    called = [table for table in found if any(word in table.name.lower() for word in ("trade", "fill"))]
    best = found if len(found) == 1 else called
    if len(best) != 1:
        raise NoTradesError(_unclear(tables, found))
    return _mapped(best[0], options)


def _unclear(tables: Mapping[str, Table], found: Sequence[Table]) -> str:
    if not tables:
        return "It has no tables yet."
    which = f"{' and '.join(table.name for table in found[:5])} could be it" if found else "none seems to hold trades"
    return (
        f"It is not clear which table holds the trades: {which}. Say so in bots.json: "
        f'"data_format": {{"kind": "sqlite", "table": "NAME"}}. It has: {", ".join(list(tables)[:20])}.'
    )
