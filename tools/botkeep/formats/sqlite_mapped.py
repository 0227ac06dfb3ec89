"""Any table whose columns say what they are, by their names or as the configuration maps them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from .base import FormatOptions, TradeTable
from .columns import NUMBERS, Trades, moment, money, roles_of, zone_of
from .sqlite_open import Table
from .sqlite_values import is_number, shown, text_of


def makes_trades(table: Table, options: FormatOptions) -> bool:
    """Whether the columns are enough for trades."""
    roles = roles_of(table.columns, options.columns)
    needed = ("time",) if "pnl" in roles else ("time", "symbol", "side", "price", "amount")
    return all(role in roles for role in needed)


class Mapped:
    """The trades of one such table."""

    name = ""
    notes: tuple[str, ...] = ()

    def __init__(self, table: Table, options: FormatOptions) -> None:
        self.table = table.name
        self.columns = table.columns
        self.options = options
        self.roles = roles_of(table.columns, options.columns)
        self.settled = "0" if options.mode == "rewrite" else "1"
        self.lasting = tuple(table.columns)
        since = "opened" if "pnl" in self.roles else "time"  # a closed trade's time is that of its end
        self.identity = tuple(table.columns[self.roles[role]] for role in ("symbol", since) if role in self.roles)
        self._zone = zone_of(options.timezone)
        self._time = self.roles.get("time")
        self._last: tuple[Any, float | None] = (None, None)
        self._numbers = [self.roles[role] for role in NUMBERS if role in self.roles]
        self._scale = {self.roles[role]: by for role, by in options.scale.items() if role in self.roles}

    def cells(self, values: Sequence[Any]) -> list[str]:
        """The row as text, integers of scaled columns divided."""
        texts = [text_of(value) for value in values]
        for column, by in self._scale.items():
            if isinstance(values[column], int):
                texts[column] = format(Decimal(values[column]) / by, "f")
        return texts

    def scale_of(self, name: str) -> int:
        """What the integers of a column are divided by."""
        return self._scale.get(self.columns.index(name), 1)

    def flaw(self, cells: Sequence[Any]) -> str | None:
        """A number or a time that is none. An empty one is a trade that is not finished."""
        for column in self._numbers:
            value = cells[column]
            if value is None or is_number(value):
                continue
            text = text_of(value)
            if text.strip() and money(text) is None:
                return f"Its {self.columns[column]} is not a number: {shown(value)}."
        if self._time is not None and cells[self._time] not in (None, "") and self._at(cells[self._time]) is None:
            return f"Its {self.columns[self._time]} is no time: {shown(cells[self._time])}."
        return None

    def _at(self, value: Any) -> float | None:
        """Epoch seconds. A row is asked for its flaw and then for its time: the last answer is kept."""
        if value != self._last[0]:
            found = moment(text_of(value).strip(), self._zone)
            self._last = (value, found.timestamp() if found else None)
        return self._last[1]

    def times(self, cells: Sequence[Any]) -> tuple[float | None, float | None]:
        """Of the row."""
        at = self._at(cells[self._time]) if self._time is not None else None
        return at, at

    def table_of(self, rows: Iterator[tuple[int, Sequence[Any]]]) -> TradeTable:
        """The trades in order of time. Raises BotkeepError where the columns do not make trades."""
        found = Trades(self.columns, self.roles, self.options, f"table {self.table}")
        for key, values in rows:
            found.add(key, self.cells(values), None)
        made = found.table()
        fills = tuple(sorted(made.fills, key=lambda fill: fill.at))
        closed = tuple(sorted(made.closed, key=lambda trade: trade.at))
        return replace(made, fills=fills, closed=closed)
