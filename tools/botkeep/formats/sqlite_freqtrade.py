"""freqtrade's tables trades and orders (2026.9; their columns have been the same since 2023, but for added ones).

`close_profit_abs` is the result in the stake currency, net of fees and funding, with what partial exits had realised;
`close_profit` is the ratio. Times are naive UTC. https://www.freqtrade.io/en/stable/sql_cheatsheet/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from sys import intern
from typing import Any

from ..model import ClosedTrade, OpenTrade
from .base import FormatOptions, TradeTable
from .columns import split_symbol
from .sqlite_open import Table
from .sqlite_values import Problems, ValueProblemError, exact, instant, is_number, perhaps, second, shown

TABLE = "trades"
NEEDED = frozenset(
    {"id", "pair", "is_open", "open_rate", "amount", "open_date", "close_date", "close_profit_abs", "stake_amount"}
)
SIGN = frozenset({"is_open", "close_profit_abs", "close_profit", "stake_amount", "open_rate", "close_rate"})
_READ = (
    "is_open", "open_date", "close_date", "pair", "exchange", "amount", "open_rate", "close_rate", "close_profit_abs",
    "close_profit", "stake_amount", "stake_currency", "is_short", "leverage", "funding_fees", "fee_open", "fee_close",
    "fee_open_cost", "fee_open_currency", "fee_close_cost", "fee_close_currency", "realized_profit",
    "open_trade_value", "exit_reason",
)  # fmt: skip
_NUMBERS = ("amount", "open_rate", "stake_amount")
_CLOSED_NUMBERS = ("close_profit_abs", "close_rate", "close_profit")


class Freqtrade:
    """Closed trades with their results, and the open ones."""

    name = "freqtrade"
    table = TABLE
    settled = "is_open = 0"
    """An order that is taken back before it is filled takes its open trade away with it, and the id is given again."""
    lasting: tuple[str, ...] = (
        "pair",
        "is_open",
        "open_rate",
        "amount",
        "open_date",
        "close_rate",
        "close_date",
        "close_profit_abs",
    )
    identity: tuple[str, ...] = ("pair", "open_date")

    def __init__(self, table: Table, tables: Mapping[str, Table], options: FormatOptions) -> None:  # noqa: ARG002
        self.columns = tuple(name for name in _READ if name in table.columns)
        self.notes = () if "orders" in tables else ("The table orders, which freqtrade makes, is not in it.",)
        if "close_rate" not in table.columns:
            self.lasting = tuple(name for name in self.lasting if name != "close_rate")

    def _named(self, cells: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.columns, cells, strict=True))

    def flaw(self, cells: Sequence[Any]) -> str | None:
        """A number that is none, or a time, in what every trade has."""
        row = self._named(cells)
        numbers = _NUMBERS if row["is_open"] else _NUMBERS + _CLOSED_NUMBERS
        times = ("open_date",) if row["is_open"] else ("open_date", "close_date")
        for name in numbers:
            if name in row and not is_number(row[name]):
                return f"Its {name} is not a number: {shown(row[name])}."
        for name in times:
            if second(row[name]) is None:
                return f"Its {name} is no time: {shown(row[name])}."
        return None

    def times(self, cells: Sequence[Any]) -> tuple[float | None, float | None]:
        """Opened; opened or closed."""
        opened, closed = second(cells[1]), second(cells[2]) if cells[2] is not None else None
        return opened, closed or opened

    def table_of(self, rows: Iterator[tuple[int, Sequence[Any]]]) -> TradeTable:
        """The closed ones in the order in which they were closed, and the open ones."""
        closed: list[ClosedTrade] = []
        still: list[OpenTrade] = []
        problems = Problems()
        for key, cells in rows:
            row = self._named(cells)
            try:
                if row["is_open"]:
                    still.append(_open(key, row))
                else:
                    closed.append(_closed(key, row))
            except ValueProblemError as why:
                problems.add(key, f"its {why}")
        closed.sort(key=lambda trade: trade.at)
        notes = tuple(problems.notes()) + self.notes
        return TradeTable("closed", closed=tuple(closed), open=tuple(still), skipped=problems.count, notes=notes)


def _currency(row: Mapping[str, Any]) -> str:
    return str(row.get("stake_currency") or split_symbol(str(row["pair"]))[1])


def _closed(key: int, row: Mapping[str, Any]) -> ClosedTrade:
    currency = _currency(row)
    return ClosedTrade(
        at=instant(row["close_date"], "close_date"),
        symbol=intern(str(row["pair"])),
        pnl=exact(row["close_profit_abs"], "close_profit_abs"),
        currency=intern(currency),
        fee=_fees(row, currency),
        id=str(key),
        opened=instant(row["open_date"], "open_date"),
        side="short" if row.get("is_short") else "long",
        amount=exact(row["amount"], "amount"),
        entry=exact(row["open_rate"], "open_rate"),
        exit=perhaps(row.get("close_rate"), "close_rate"),
        stake=exact(row["stake_amount"], "stake_amount"),
        ratio=perhaps(row.get("close_profit"), "close_profit"),
        market=intern(str(row.get("exchange") or "")),
        reason=intern(str(row.get("exit_reason") or "")),
    )


def _fees(row: Mapping[str, Any], currency: str) -> Decimal:
    """What both orders cost, in the stake currency; a fee in the base currency at the order's own rate.

    A fee in a third currency, or one that freqtrade had not heard of yet, is taken by the trade's rate of fees.
    """
    amount = exact(row["amount"], "amount")
    total = Decimal(0)
    for way, rate in (("open", "open_rate"), ("close", "close_rate")):
        price = perhaps(row.get(rate), rate) or Decimal(0)
        cost = perhaps(row.get(f"fee_{way}_cost"), f"fee_{way}_cost")
        asset = row.get(f"fee_{way}_currency")
        if cost is not None and asset == currency:
            total += cost
        elif cost is not None and asset == split_symbol(str(row["pair"]))[0]:
            total += cost * price
        else:
            total += amount * price * (perhaps(row.get(f"fee_{way}"), f"fee_{way}") or Decimal(0))
    return total


def _open(key: int, row: Mapping[str, Any]) -> OpenTrade:
    zero = Decimal(0)
    return OpenTrade(
        at=instant(row["open_date"], "open_date"),
        symbol=intern(str(row["pair"])),
        side="short" if row.get("is_short") else "long",
        amount=exact(row["amount"], "amount"),
        entry=exact(row["open_rate"], "open_rate"),
        currency=intern(_currency(row)),
        id=str(key),
        market=intern(str(row.get("exchange") or "")),
        stake=exact(row["stake_amount"], "stake_amount"),
        value=perhaps(row.get("open_trade_value"), "open_trade_value"),
        fee_open=perhaps(row.get("fee_open"), "fee_open") or zero,
        fee_close=perhaps(row.get("fee_close"), "fee_close") or zero,
        leverage=perhaps(row.get("leverage"), "leverage") or Decimal(1),
        funding=perhaps(row.get("funding_fees"), "funding_fees") or zero,
        realised=perhaps(row.get("realized_profit"), "realized_profit") or zero,
    )
