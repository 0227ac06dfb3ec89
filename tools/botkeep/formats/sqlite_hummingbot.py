"""Hummingbot's table TradeFill: one row for each execution.

Prices and amounts are integers that count millionths (its SqliteDecimal(6)), so an amount below 0.000001 is stored as
0; `timestamp` counts milliseconds; `trade_fee` is JSON. Databases from before version 2 have floats: a value that is no
integer is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from sys import intern
from typing import Any

from ..model import Fill
from .base import FormatOptions, TradeTable
from .columns import number, side_of
from .sqlite_open import Table
from .sqlite_values import Problems, ValueProblemError, exact, instant, is_number, second, shown

TABLE = "TradeFill"
NEEDED = frozenset({"symbol", "base_asset", "quote_asset", "timestamp", "trade_type", "price", "amount", "order_id"})
SIGN = frozenset({"config_file_path", "base_asset", "quote_asset", "trade_fee", "exchange_trade_id", "trade_type"})
MILLION = 1_000_000
_READ = (
    "timestamp", "market", "symbol", "quote_asset", "trade_type", "price", "amount", "order_id", "exchange_trade_id",
    "trade_fee", "trade_fee_in_quote",
)  # fmt: skip
_JSON_LIMIT = 4096


class Hummingbot:
    """Its fills."""

    name = "Hummingbot"
    table = TABLE
    settled = "1"
    lasting: tuple[str, ...] = (
        "market",
        "symbol",
        "timestamp",
        "order_id",
        "trade_type",
        "price",
        "amount",
        "exchange_trade_id",
    )
    notes: tuple[str, ...] = ()

    def __init__(self, table: Table, tables: Mapping[str, Table], options: FormatOptions) -> None:  # noqa: ARG002
        self.columns = tuple(name for name in _READ if name in table.columns)
        self.lasting = self.identity = tuple(name for name in self.lasting if name in table.columns)
        self._scale = {name: options.scale.get(name, MILLION) for name in ("price", "amount", "trade_fee_in_quote")}

    def _named(self, cells: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.columns, cells, strict=True))

    def scale_of(self, name: str) -> int:
        """What the integers of a column are divided by."""
        return self._scale[name]

    def _unscaled(self, row: Mapping[str, Any], name: str) -> Decimal:
        value = row[name]
        found = exact(value, name)
        return found / self._scale[name] if isinstance(value, int) else found

    def flaw(self, cells: Sequence[Any]) -> str | None:
        """A number, time or side that is none."""
        row = self._named(cells)
        for name in ("price", "amount"):
            if not is_number(row[name]):
                return f"Its {name} is not a number: {shown(row[name])}."
        if second(row["timestamp"]) is None:
            return f"Its timestamp is no time: {shown(row['timestamp'])}."
        if side_of(str(row["trade_type"])) is None:
            return f"Its trade_type is neither BUY nor SELL: {shown(row['trade_type'])}."
        return None

    def times(self, cells: Sequence[Any]) -> tuple[float | None, float | None]:
        """Of the execution."""
        at = second(cells[0])
        return at, at

    def table_of(self, rows: Iterator[tuple[int, Sequence[Any]]]) -> TradeTable:
        """The fills in order of time."""
        fills: list[Fill] = []
        problems, dust = Problems(), 0
        for key, cells in rows:
            row = self._named(cells)
            try:
                fill = self._fill(row)
            except ValueProblemError as why:
                problems.add(key, f"its {why}")
                continue
            dust += not fill.amount
            fills.append(fill)
        fills.sort(key=lambda fill: fill.at)
        notes = problems.notes()
        if dust:
            notes.append(f"{dust} fills were of less than 0.000001, which Hummingbot stores as 0")
        return TradeTable("fills", fills=tuple(fills), skipped=problems.count, notes=tuple(notes))

    def _fill(self, row: Mapping[str, Any]) -> Fill:
        side = side_of(str(row["trade_type"]))
        if side is None:
            raise ValueProblemError("trade_type is neither BUY nor SELL")
        quote = str(row["quote_asset"]).upper()
        price, amount = self._unscaled(row, "price"), self._unscaled(row, "amount")
        fee, fee_currency = self._fee(row, price * amount, quote)
        return Fill(
            at=instant(row["timestamp"], "timestamp"),
            symbol=intern(str(row["symbol"])),
            side=side,
            price=price,
            amount=amount,
            fee=fee,
            fee_currency=intern(fee_currency),
            id=str(row.get("exchange_trade_id") or ""),
            order_id=str(row["order_id"] or ""),
            market=intern(str(row.get("market") or "")),
            quote=intern(quote),
        )

    def _fee(self, row: Mapping[str, Any], value: Decimal, quote: str) -> tuple[Decimal, str]:
        """The bot's own figure in the quote currency; where it has none, from the parts of the fee."""
        if row.get("trade_fee_in_quote"):
            return self._unscaled(row, "trade_fee_in_quote"), quote
        return fee_of(str(row.get("trade_fee") or ""), value, quote)


def fee_of(text: str, value: Decimal, quote: str) -> tuple[Decimal, str]:
    """(fee, currency) of a `trade_fee`: a rate of the traded value and flat sums. Raises ValueProblemError.

    A rate is of the traded value, whatever token it is taken in; flat sums in several tokens cannot be added up.
    """
    said = _parsed(text)
    rate = number(str(said.get("percent") or "0"))
    flat = said.get("flat_fees") or []
    if rate is None or not isinstance(flat, list):
        raise ValueProblemError("trade_fee is not one")
    sums: dict[str, Decimal] = {quote: rate * value} if rate else {}
    for one in flat[:20]:
        token, amount = _flat(one)
        sums[token] = sums.get(token, Decimal(0)) + amount
    if len(sums) > 1:
        raise ValueProblemError("trade_fee is in several currencies")
    return next(((fee, token) for token, fee in sums.items()), (Decimal(0), quote))


def _parsed(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        said = json.loads(text, parse_float=str, parse_int=str) if len(text) <= _JSON_LIMIT else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise ValueProblemError("trade_fee is no JSON object")
    return said


def _flat(one: Any) -> tuple[str, Decimal]:
    token = str(one.get("token", "")).upper() if isinstance(one, dict) else ""
    amount = number(str(one.get("amount", ""))) if token else None
    if amount is None:
        raise ValueProblemError("trade_fee has a flat fee that is none")
    return token, amount
