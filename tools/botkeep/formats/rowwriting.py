"""A row of delimited text for a trade, written as the other rows of the file are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import tzinfo
from decimal import Decimal

from ..model import BotkeepError, ClosedTrade, Fill
from .base import FormatOptions
from .columns import Trades, split_symbol
from .layout import Layout, comma
from .spelling import UnwritableError, number_like, side_like, symbol_like, time_like
from .values import is_filled, plain_market

Trade = Fill | ClosedTrade


def encode(layout: Layout, zone: tzinfo, trade: Trade, like: bytes | None, cells: Sequence[str]) -> bytes | str:
    """The row, with the carriage return that `like` has; `cells` are its cells. Text: why the columns cannot hold it.

    Columns of which nothing is known stay blank.
    """
    try:
        row = _Row(layout, zone, trade, cells)
        written = row.written()
        _require_a_trade(layout, written, trade)
        quoted = _quoted(like, layout) if like is not None else [False] * layout.width
        gap = layout.delimiter + (" " if layout.spaced else "")
        end = b"\r" if like is not None and like.endswith(b"\r") else b""
        return gap.join(_cell(text, mark, layout) for text, mark in zip(written, quoted, strict=True)).encode() + end
    except UnwritableError as why:
        return str(why)


def _require_a_trade(layout: Layout, written: Sequence[str], trade: Trade) -> None:
    """Raises UnwritableError: what was written would not be counted when the file is read again."""
    try:
        found = Trades(layout.names, layout.roles, FormatOptions(), "the file", comma(layout.delimiter))
    except BotkeepError as why:
        raise UnwritableError("it is not clear which columns make a trade") from why
    found.add(1, written, trade.at.timestamp())
    table = found.table()
    if not table.fills and not table.closed:
        raise UnwritableError("written as the file's rows are, it would not be read as a trade again")


def _quoted(like: bytes, layout: Layout) -> list[bool]:
    """Which cells of a row stand in quotes; none where that cannot be told from a split."""
    parts = like.rstrip(b"\r").split(layout.delimiter.encode())
    if len(parts) != layout.width:
        return [False] * layout.width
    return [part.strip().startswith(b'"') for part in parts]


def _cell(text: str, quoted: bool, layout: Layout) -> str:
    if not text.isprintable() or '"' in text:
        raise UnwritableError("one of its texts cannot stand in a cell")
    return f'"{text}"' if quoted or layout.delimiter in text else text


class _Row:
    """The cells of one trade. Raises UnwritableError."""

    def __init__(self, layout: Layout, zone: tzinfo, trade: Trade, like: Sequence[str]) -> None:
        self._layout, self._zone, self._trade = layout, zone, trade
        self._like = like if len(like) == layout.width else ()
        self._closing = "pnl" in layout.roles
        numbers = [self._like[column] for column in layout.numbers] if self._like else []
        self._comma = comma(layout.delimiter) and any("," in cell for cell in numbers)
        self._cells = [""] * layout.width

    def written(self) -> list[str]:
        """All cells."""
        self._put_common()
        if isinstance(self._trade, ClosedTrade):
            self._put_closed(self._trade)
        else:
            self._put_fill(self._trade)
        blank = [self._layout.names[column] for column in self._layout.needed if not self._cells[column]]
        if blank:
            raise UnwritableError(f"nothing is known for the column {blank[0]}")
        return self._cells

    def _sample(self, role: str) -> str:
        return self._like[self._layout.roles[role]].strip() if self._like else ""

    def _put(self, role: str, make: Callable[[str], str]) -> None:
        column = self._layout.roles.get(role)
        if column is not None and not self._cells[column]:
            self._cells[column] = make(self._sample(role))

    def _put_number(self, role: str, value: Decimal | None) -> None:
        if value is not None:
            self._put(role, lambda sample: number_like(value, sample, decimal_comma=self._comma))

    def _put_common(self) -> None:
        trade, quote = self._trade, _quote(self._trade)
        self._put("time", lambda sample: time_like(trade.at, sample, self._zone))
        self._put("symbol", lambda sample: symbol_like(trade.symbol, quote, sample))
        self._put("market", self._market)
        self._put("id", lambda _: trade.id)
        self._put("base", lambda _: split_symbol(trade.symbol)[0])
        self._put("quote", lambda _: quote)
        self._put("status", self._status)

    def _market(self, sample: str) -> str:
        """As the file spells it: an exchange's `gateio` is `gate_io` in it. A file of one market says that one."""
        own, markets = self._trade.market, self._layout.markets
        same = (market for market in (sample, *markets) if market and plain_market(market) == plain_market(own))
        return next(same, markets[0] if len(markets) == 1 else own)

    def _status(self, sample: str) -> str:
        """That of a trade: a neighbour may be an order that was not filled."""
        if sample and is_filled(sample):
            return sample
        word = "closed" if self._closing or not sample else "filled"
        return self._layout.status or (word.upper() if sample.isupper() else word)

    def _put_fill(self, fill: Fill) -> None:
        if self._closing:
            raise UnwritableError("the file's rows are closed trades, and one execution does not tell a result")
        self._require("symbol", "side", "price", "amount")
        self._put("side", lambda sample: side_like(fill.side, sample))
        self._put_number("price", fill.price)
        self._put_number("amount", fill.amount)
        self._put("order_id", lambda _: fill.order_id)
        self._put_fee(fill)

    def _put_fee(self, fill: Fill) -> None:
        """In a column whose currency is the fee's own. A file without a column of fees never told any."""
        roles, quote = self._layout.roles, _quote(fill)
        in_quote = not fill.fee or fill.fee_currency.upper() in ("", quote)
        if in_quote:
            self._put_number("fee_quote", fill.fee)
        if "fee_currency" in roles:
            self._put("fee_currency", lambda _: fill.fee_currency or quote)
        elif {"fee", "fee_quote"} & set(roles) and not in_quote:
            raise UnwritableError(f"its fee is in {fill.fee_currency}, and no column of the file says a fee's currency")
        self._put_number("fee", fill.fee)

    def _put_closed(self, trade: ClosedTrade) -> None:
        if not self._closing:
            raise UnwritableError("the file's rows are single executions, and this is a whole trade with its result")
        self._put_number("pnl", trade.pnl)
        self._put_number("fee", trade.fee)
        for role, value in (("entry", trade.entry), ("exit", trade.exit), ("amount", trade.amount)):
            self._put_number(role, value)
        opened = trade.opened
        if opened is not None:
            self._put("opened", lambda sample: time_like(opened, sample, self._zone))
        if trade.side:
            self._put("side", lambda sample: _direction_like(trade.side, sample))

    def _require(self, *roles: str) -> None:
        missing = [role for role in roles if role not in self._layout.roles]
        if missing:
            raise UnwritableError(f"it is not clear which column is the {missing[0]}")


def _direction_like(side: str, sample: str) -> str:
    """`long` or `short` in the word of the file."""
    return side_like("buy" if side == "long" else "sell", sample) if sample else side


def _quote(trade: Trade) -> str:
    own = trade.quote if isinstance(trade, Fill) else trade.currency
    return split_symbol(trade.symbol)[1] or own.upper()
