"""Trades added to a database that was rebuilt, in the way in which its bot writes them."""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

from ..model import ClosedTrade, Fill
from ..untrusted import clean
from .base import Appended, FormatOptions
from .columns import split_symbol, zone_of
from .layout import Layout
from .rowwriting import encode
from .sqlite_files import LOCK, hashed, look, sync
from .sqlite_freqtrade import Freqtrade
from .sqlite_hummingbot import Hummingbot
from .sqlite_mapped import Mapped
from .sqlite_merging import alias_of
from .sqlite_open import Database, Table, connect, quoted, told, translated
from .sqlite_shapes import Shape, recognise
from .sqlite_values import second
from .values import NOT_FILLED, plain_market

Trade = Fill | ClosedTrade
Row = dict[str, Any]
_CENT = Decimal("0.00000002")
"""freqtrade rounds a result to eight decimals."""
_ROUNDED = Decimal("1e-9")
_MOST = 10**12
"""In integers of a scale up to a million, more than any price or amount."""
_SEPARATOR = "\x1f"


class LeftOutError(Exception):
    """Why a trade cannot be added: a phrase."""


def append(path: Path, trades: Sequence[Trade], options: FormatOptions) -> Appended:
    """A format's `append`: all in one transaction. The order of rows in a database says nothing: they get new ids."""
    with told(path), LOCK:
        with translated(), closing(connect(path, "rw")) as connection:
            database = Database(connection, look(path))
            connection.execute("BEGIN IMMEDIATE")
            tables = database.tables()
            shape = recognise(tables, options)
            adder = _adder(database, shape, tables[shape.table], options)
            in_order = sorted(trades, key=lambda one: one.at)
            left_out = [why for why in (_tried(adder, trade) for trade in in_order) if why]
            closed = adder.closed
            count = int(database.ask(f"SELECT count(*) FROM {quoted(shape.table)}")[0][0])  # noqa: S608  # a name, quoted
            connection.execute("COMMIT")
        sync(path)
        return Appended(count, tuple(left_out), *hashed(path), closed=closed)


def _tried(adder: _Adder, trade: Trade) -> str:
    try:
        adder.add(trade)
    except LeftOutError as why:
        return f"{clean(trade.symbol, 40)} at {trade.at:%Y-%m-%d %H:%M:%S}: {why}"
    return ""


class _Adder(ABC):
    """Adds to one table, with its last row as the sample of how rows are written."""

    def __init__(self, database: Database, table: Table) -> None:
        self._database, self._table = database, table
        ask = f"SELECT * FROM {quoted(table.name)} ORDER BY rowid DESC LIMIT 1"  # noqa: S608  # a name, quoted
        found = database.ask(ask)
        self._like: Row = dict(zip(table.columns, found[0], strict=True)) if found else {}
        self.closed = 0
        """Open rows that were closed instead of adding one."""

    def add(self, trade: Trade) -> None:
        """Raises LeftOutError."""
        row = self.row(trade)
        blank = [name for name, needed in zip(self._table.columns, self._table.needed, strict=True) if needed]
        missing = [name for name in blank if row.get(name) is None and name != alias_of(self._table)]
        if missing:
            raise LeftOutError(f"nothing is known for the column {missing[0]}")
        names = [name for name, value in row.items() if value is not None and name in self._table.columns]
        marks = ", ".join("?" * len(names))
        text = f"INSERT INTO {quoted(self._table.name)} ({', '.join(map(quoted, names))}) VALUES ({marks})"  # noqa: S608
        try:
            self._database.connection.execute(text, [row[name] for name in names])
        except sqlite3.IntegrityError as error:
            raise LeftOutError(f"the table does not take it ({clean(str(error), 80)})") from error
        except OverflowError as error:
            raise LeftOutError("one of its numbers is too large for the table") from error

    @abstractmethod
    def row(self, trade: Trade) -> Row:
        """Column -> value; None: the column's default. Raises LeftOutError."""

    def _only(self, column: str) -> Any:
        """The value that all rows have; None: they differ, or there is none."""
        name = quoted(column)
        ask = f"SELECT DISTINCT {name} FROM {quoted(self._table.name)} LIMIT 2"  # noqa: S608  # names, quoted
        found = self._database.ask(ask)
        return found[0][0] if len(found) == 1 else None

    def _market(self, column: str, said: str) -> str:
        """The market as the table spells it: the same name but for its signs, or the only one that the table has."""
        name = quoted(column)
        ask = f"SELECT DISTINCT {name} FROM {quoted(self._table.name)} WHERE {name} <> '' LIMIT 100"  # noqa: S608
        known = [str(value) for (value,) in self._database.ask(ask)]
        return (
            known[0]
            if len(known) == 1
            else next((one for one in known if plain_market(one) == plain_market(said)), said)
        )


def _adder(database: Database, shape: Shape, table: Table, options: FormatOptions) -> _Adder:
    if isinstance(shape, Freqtrade):
        return _FreqtradeAdder(database, table)
    if isinstance(shape, Hummingbot):
        return _HummingbotAdder(database, table, shape)
    if isinstance(shape, Mapped):
        return _MappedAdder(database, table, shape, options)
    raise AssertionError("unreachable")


# --- freqtrade ---------------------------------------------------------------------------------------------------


class _FreqtradeAdder(_Adder):
    """Closed trades of the same kind as the newest one that is closed: its fees, strategy, precision."""

    def __init__(self, database: Database, table: Table) -> None:
        super().__init__(database, table)
        ask = f"SELECT * FROM {quoted(table.name)} WHERE is_open = 0 ORDER BY rowid DESC LIMIT 1"  # noqa: S608
        found = database.ask(ask)
        self._like = dict(zip(table.columns, found[0], strict=True)) if found else {}

    def add(self, trade: Trade) -> None:
        """A new row; or of a trade that the table has as open, the same row closed."""
        still = self._open_row(trade) if isinstance(trade, ClosedTrade) else None
        if still is None or not isinstance(trade, ClosedTrade):
            super().add(trade)
            return
        values = self._closing(trade, still)
        names = [name for name in values if name in self._table.columns]
        changes = ", ".join(f"{quoted(name)} = ?" for name in names)
        ask = f"UPDATE trades SET {changes} WHERE id = ?"  # noqa: S608  # names, quoted
        self._database.connection.execute(ask, [*(values[name] for name in names), still["id"]])
        self.closed += 1

    def _open_row(self, trade: ClosedTrade) -> Row | None:
        """The row that is this very trade, still open: of its id, its pair, and opened when it was."""
        if not _is_id(trade.id) or trade.opened is None:
            return None
        found = self._database.ask("SELECT * FROM trades WHERE id = ? AND is_open = 1", (int(trade.id),))
        row: Row = dict(zip(self._table.columns, found[0], strict=True)) if found else {}
        opened = second(row.get("open_date"))
        same = opened is not None and abs(opened - trade.opened.timestamp()) <= _SAME_SECONDS
        return row if same and split_symbol(str(row["pair"])) == split_symbol(trade.symbol) else None

    def _closing(self, trade: ClosedTrade, row: Row) -> Row:
        """What freqtrade writes into the row when a trade ends, as far as it follows from row and log. The exit's order

        is not among it: its id on the exchange is not logged; freqtrade asks nothing of a closed trade without one.
        Raises LeftOutError where the result does not follow: after partial exits, more buys, with leverage or other
        fees; and while an order of it is open, or may have been filled on the exchange.
        """
        exit_, short = trade.exit, trade.side == "short"
        if exit_ is None or trade.amount is None or trade.entry is None:
            raise LeftOutError("its amount or its prices are not known")
        self._require_same(trade, row)
        if short != bool(row.get("is_short")) or row.get("realized_profit"):
            raise LeftOutError("it is open in the file, of another side or partly closed before")
        if not (_equal(row["amount"], trade.amount) and _equal(row["open_rate"], trade.entry)):
            raise LeftOutError("it is open in the file, with another amount or price")
        if self._has_orders_to_come(row["id"]):
            raise LeftOutError("it is open in the file, with an order that freqtrade would ask the exchange about")
        cost, worth = _cost_and_worth(trade.amount, trade.entry, exit_, row, short=short)
        result = cost - worth if short else worth - cost
        if abs(result - trade.pnl) > _CENT or row.get("funding_fees"):
            raise LeftOutError("it is open in the file, and its result does not follow from its prices and fees")
        ratio = trade.ratio if trade.ratio is not None else result / cost
        return {
            "is_open": 0,
            "close_date": f"{trade.at:%Y-%m-%d %H:%M:%S.%f}",
            "close_rate": float(exit_),
            "close_rate_requested": float(exit_),
            "close_profit": float(ratio),
            "close_profit_abs": float(trade.pnl),
            "realized_profit": float(trade.pnl),
            "exit_reason": trade.reason or None,
            "exit_order_status": "closed",
            "fee_close_currency": row.get("fee_close_currency") or self._like.get("fee_close_currency"),
        }

    def _has_orders_to_come(self, key: object) -> bool:
        if "orders" not in self._database.tables():
            return False
        ask = "SELECT 1 FROM orders WHERE ft_trade_id = ? AND (ft_is_open = 1 OR ft_order_side = 'stoploss') LIMIT 1"
        return bool(self._database.ask(ask, (key,)))

    def row(self, trade: Trade) -> Row:
        """Of a whole trade without leverage whose result follows from its prices and the bot's own rate of fees."""
        if isinstance(trade, Fill):
            raise LeftOutError("freqtrade's rows are whole trades, and this is one execution")
        like = self._like
        if not like:
            raise LeftOutError("there is no closed trade yet to take its fees and settings from")
        amount, entry, exit_ = trade.amount, trade.entry, trade.exit
        if amount is None or entry is None or exit_ is None or trade.opened is None:
            raise LeftOutError("its amount, its prices or the time it was opened at are not known")
        self._require_same(trade, like)
        short = trade.side == "short"
        cost, worth = _cost_and_worth(amount, entry, exit_, like, short=short)
        result = cost - worth if short else worth - cost
        if abs(result - trade.pnl) > _CENT:
            raise LeftOutError("its result does not follow from its prices and the bot's fees, so those are not known")
        stake = trade.stake if trade.stake is not None else entry * amount
        ratio = trade.ratio if trade.ratio is not None else result / cost
        figures = {
            "open_rate": entry, "open_rate_requested": entry, "close_rate": exit_, "close_rate_requested": exit_,
            "amount": amount, "amount_requested": amount, "stake_amount": stake, "max_stake_amount": stake,
            "open_trade_value": cost, "close_profit": ratio, "close_profit_abs": trade.pnl,
            "realized_profit": trade.pnl,
        }  # fmt: skip
        return (
            {name: like.get(name) for name in _SETTINGS}
            | {name: float(value) for name, value in figures.items()}
            | {
                "id": self._id(trade),
                "pair": like_pair(trade.symbol, str(like["pair"])),
                "base_currency": split_symbol(trade.symbol)[0],
                "is_open": 0,
                "is_short": int(short),
                "open_date": f"{trade.opened:%Y-%m-%d %H:%M:%S.%f}",
                "close_date": f"{trade.at:%Y-%m-%d %H:%M:%S.%f}",
                "exit_reason": trade.reason or None,
                "is_stop_loss_trailing": 0,
                "interest_rate": 0.0,
                "funding_fees": 0.0,
            }
        )

    def _require_same(self, trade: ClosedTrade, like: Row) -> None:
        if float(like.get("leverage") or 1) != 1:
            raise LeftOutError("the bot trades with leverage, and the trade's own is not known")
        if trade.market and plain_market(trade.market) != plain_market(str(like["exchange"])):
            raise LeftOutError(f"it is of another exchange ({clean(trade.market, 30)})")
        quote = trade.currency or split_symbol(trade.symbol)[1]
        if like.get("stake_currency") not in (None, quote):
            raise LeftOutError("it is in another currency than the bot's")

    def _id(self, trade: ClosedTrade) -> int | None:
        if not _is_id(trade.id):
            return None
        found = self._database.ask("SELECT 1 FROM trades WHERE id = ?", (int(trade.id),))
        if found:
            raise LeftOutError(f"another trade has its id {trade.id}")
        return int(trade.id)


_SAME_SECONDS = 2.0
"""Between the times at which log and row say that one trade was opened."""


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 18


def _equal(cell: Any, told: Decimal) -> bool:
    """Whether a float of the table is the number that was logged from it."""
    return isinstance(cell, int | float) and abs(Decimal(repr(cell)) - told) <= abs(told) * _ROUNDED


def _cost_and_worth(
    amount: Decimal, entry: Decimal, exit_: Decimal, fees: Row, *, short: bool
) -> tuple[Decimal, Decimal]:
    """What opening cost and what closing brought, in the stake currency, by the row's rates of fees."""
    opened, closed = (Decimal(repr(float(fees[name]))) for name in ("fee_open", "fee_close"))
    cost = entry * amount * (1 - opened if short else 1 + opened)
    return cost, exit_ * amount * (1 + closed if short else 1 - closed)


_SETTINGS = (
    "exchange", "stake_currency", "fee_open", "fee_close", "fee_open_currency", "fee_close_currency",
    "exit_order_status", "strategy", "timeframe", "trading_mode", "amount_precision", "price_precision",
    "precision_mode", "precision_mode_price", "contract_size", "leverage", "record_version",
)  # fmt: skip


def like_pair(symbol: str, sample: str) -> str:
    """BTC-USDT as `sample` is written: BTC/USDT. Raises LeftOutError where the symbol does not say its currencies."""
    base, quote = split_symbol(symbol)
    if not quote:
        raise LeftOutError("its symbol does not say its two currencies")
    mark = next((mark for mark in "/-_" if mark in sample), "")
    return base + mark + quote + (f":{quote}" if ":" in sample else "")


# --- Hummingbot --------------------------------------------------------------------------------------------------


class _HummingbotAdder(_Adder):
    """Fills; what the database has only one value for is that."""

    def __init__(self, database: Database, table: Table, shape: Hummingbot) -> None:
        super().__init__(database, table)
        self._shape = shape

    def row(self, trade: Trade) -> Row:
        """A row of TradeFill."""
        if isinstance(trade, ClosedTrade):
            raise LeftOutError("Hummingbot's rows are executions, and this is a whole trade")
        if not trade.id or not trade.order_id:
            raise LeftOutError("its trade id or order id is not known")
        base, quote = split_symbol(trade.symbol)
        common = {
            name: self._only(name)
            for name in ("config_file_path", "strategy", "order_type", "leverage", "position")
            if name in self._table.columns
        }
        return common | {
            "market": self._market("market", trade.market) or None,
            "symbol": like_pair(trade.symbol, "A-B"),
            "base_asset": base,
            "quote_asset": quote,
            "timestamp": int(trade.at.timestamp() * 1000 + 0.5),
            "order_id": trade.order_id,
            "trade_type": trade.side.upper(),
            "price": self._number("price", trade.price),
            "amount": self._number("amount", trade.amount),
            "trade_fee": _fee_json(trade, self._like.get("trade_fee")),
            "trade_fee_in_quote": self._number("trade_fee_in_quote", _fee_in_quote(trade, base, quote)),
            "exchange_trade_id": trade.id,
        }

    def _number(self, name: str, value: Decimal | None) -> int | float | None:
        """An integer of the shape's scale where the newest row has one; databases from before version 2 have floats."""
        if value is None or name not in self._table.columns:
            return None
        sample, kind = self._like.get(name), self._table.types[self._table.columns.index(name)]
        if isinstance(sample, float) or (sample is None and any(word in kind for word in ("FLOA", "REAL", "DOUB"))):
            return float(value)
        if abs(value) >= _MOST:
            raise LeftOutError("one of its numbers is too large for the table")
        return int((value * self._shape.scale_of(name)).quantize(Decimal(1), ROUND_DOWN))


def _fee_in_quote(fill: Fill, base: str, quote: str) -> Decimal | None:
    currency = fill.fee_currency.upper() or quote
    return fill.fee if currency == quote else fill.fee * fill.price if currency == base else None


def _fee_json(fill: Fill, like: Any) -> Any:
    """As the other rows have it: a flat sum, for which rate it came from is not known."""
    try:
        kind = json.loads(like)["fee_type"] if isinstance(like, str) else like["fee_type"]
    except (TypeError, KeyError, ValueError):
        kind = "DeductedFromReturns"
    token = fill.fee_currency or fill.quote or split_symbol(fill.symbol)[1]
    flat = [{"token": token, "amount": format(fill.fee, "f")}] if fill.fee else []
    return json.dumps({"fee_type": str(kind), "percent": "0", "percent_token": None, "flat_fees": flat})


# --- any table ---------------------------------------------------------------------------------------------------


class _MappedAdder(_Adder):
    """A row as text by the rules of text files, each cell then of the type that the sample row has there."""

    def __init__(self, database: Database, table: Table, shape: Mapped, options: FormatOptions) -> None:
        super().__init__(database, table)
        self._shape, self._zone = shape, zone_of(options.timezone)
        self._blank = "the table has no row yet that shows how one is written"
        if self._like and "status" in shape.roles:
            self._like = self._newest_filled(table.columns[shape.roles["status"]])
        alias = alias_of(table)
        needed = [place for place, name in enumerate(table.columns) if table.needed[place] and name != alias]
        self._layout = Layout(
            delimiter=_SEPARATOR, names=table.columns, header="", body=0, roles=shape.roles, numbers=(),
            needed=tuple(needed), time=shape.roles.get("time"),
        )  # fmt: skip

    def _newest_filled(self, status: str) -> Row:
        """The newest row that is counted as a trade: a status like `canceled` would be no sample for one that was."""
        name, words = quoted(status), sorted(NOT_FILLED)
        where = f"lower(trim(ifnull({name}, ''))) NOT IN ({', '.join('?' * len(words))})"
        ask = f"SELECT * FROM {quoted(self._table.name)} WHERE {where} ORDER BY rowid DESC LIMIT 1"  # noqa: S608  # names, quoted
        found = self._database.ask(ask, tuple(words))
        self._blank = f"no row of the table says in {status} how a trade that was filled is called"
        return dict(zip(self._table.columns, found[0], strict=True)) if found else {}

    def row(self, trade: Trade) -> Row:
        """Column -> value."""
        if not self._like:
            raise LeftOutError(self._blank)
        if "market" in self._shape.roles:
            market = self._market(self._table.columns[self._shape.roles["market"]], trade.market)
            trade = replace(trade, market=market)
        values = [self._like[name] for name in self._table.columns]
        written = encode(self._layout, self._zone, trade, None, self._shape.cells(values))
        if isinstance(written, str):
            raise LeftOutError(written)
        cells = written.decode().split(_SEPARATOR)
        return {name: self._value(name, cell) for name, cell in zip(self._table.columns, cells, strict=True)}

    def _value(self, name: str, cell: str) -> Any:
        like, kind = self._like[name], self._table.types[self._table.columns.index(name)]
        if not cell:
            return None
        if isinstance(like, str) or like is None or not kind:
            return cell
        return self._number(name, cell, whole=isinstance(like, int))

    def _number(self, name: str, cell: str, *, whole: bool) -> Any:
        if not whole:
            return float(Decimal(cell))
        scale = self._shape.scale_of(name)
        value = Decimal(cell) * scale
        if value != value.to_integral_value():
            if scale == 1:
                return float(value)
            value = value.quantize(Decimal(1), ROUND_DOWN)
        return int(value)
