"""Realised profit and loss from a bot's own trades, exact in decimals: first in, first out, or at average cost.

Every fill changes a position by a quantity, for an amount of the quote currency:

    buy:   + (amount - fee in base)    for price x amount + fee in quote
    sell:  - (amount + fee in base)    for price x amount - fee in quote

The part of a change that goes against the position closes it, and its result is what came in less what went out for
just that part; the rest opens or adds. A sell with nothing to close opens a short, and a change larger than the
position flips it. Fees in a third currency need a price that no trade file has: they are listed apart.

Only the last step of a division is ever rounded, at 60 digits; what is left of a lot or a fill is found by subtraction,
so nothing gets lost between parts. Amounts of different currencies are never added up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Literal

from .formats.base import TradeTable
from .formats.columns import split_symbol
from .model import Fill, UsageError

DIGITS = 60
ZERO = Decimal(0)
UNKNOWN = "?"
"""The currency of figures whose file and configuration name none."""

Method = Literal["fifo", "average"]


@dataclass(frozen=True)
class CurrencyFigures:
    """What was realised in one currency."""

    currency: str
    realised: Decimal = ZERO
    """Net of fees in the quote or base currency."""
    fees: Decimal = ZERO
    """Of the window's fills, those in base at their fill's price. `realised` has them already."""
    trades: int = 0
    """Fills that closed something, or closed trades."""
    wins: int = 0
    losses: int = 0
    win_rate: Decimal | None = None
    """wins / trades, 0 to 1; None without trades."""
    drawdown: Decimal = ZERO
    """The deepest fall of the summed results below their highest value so far, from zero at the window's start."""
    percent: Decimal | None = None
    """Of the configured capital; None without one, or if it is in another currency."""


@dataclass(frozen=True)
class SymbolFigures:
    """What was realised in one market and symbol."""

    market: str
    symbol: str
    currency: str
    realised: Decimal
    trades: int


@dataclass(frozen=True)
class OpenPosition:
    """What is held at the window's end. `amount` is negative for a short."""

    symbol: str
    amount: Decimal
    average_price: Decimal
    currency: str
    market: str = ""


@dataclass(frozen=True)
class PnlFigures:
    """Realised P&L of one bot within [since, until), one set of figures per currency, the main one first."""

    bot: str
    since: datetime | None
    until: datetime | None
    method: str
    currencies: tuple[CurrencyFigures, ...]
    symbols: tuple[SymbolFigures, ...] = ()
    positions: tuple[OpenPosition, ...] = ()
    other_fees: tuple[tuple[str, Decimal], ...] = ()
    """(asset, amount) of fees in third currencies: in no other figure."""
    skipped: int = 0
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> CurrencyFigures:
        """The currency of the capital, else the one with most trades."""
        return self.currencies[0]

    @property
    def currency(self) -> str:
        """Of `main`."""
        return self.main.currency

    @property
    def realised(self) -> Decimal:
        """Of `main`."""
        return self.main.realised

    @property
    def fees(self) -> Decimal:
        """Of `main`."""
        return self.main.fees

    @property
    def trades(self) -> int:
        """Of `main`."""
        return self.main.trades

    @property
    def wins(self) -> int:
        """Of `main`."""
        return self.main.wins

    @property
    def losses(self) -> int:
        """Of `main`."""
        return self.main.losses

    @property
    def win_rate(self) -> Decimal | None:
        """Of `main`."""
        return self.main.win_rate

    @property
    def drawdown(self) -> Decimal:
        """Of `main`."""
        return self.main.drawdown

    @property
    def percent(self) -> Decimal | None:
        """Of `main`."""
        return self.main.percent


def figures(
    bot_name: str,
    table: TradeTable,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    method: str = "fifo",
    capital: Decimal | None = None,
    currency: str = "",
) -> PnlFigures:
    """Realised P&L within [since, until); positions are built from all trades before `until`.

    `currency` is that of `capital`, and of trades that name none. Raises UsageError for an unknown method.
    """
    if method not in ("fifo", "average"):
        raise UsageError(f"There is no method {method!r} to compute P&L. The methods are: fifo, average.")
    with localcontext() as context:
        context.prec = DIGITS
        account = _Account(since, currency.upper())
        if table.kind == "closed":
            account.take_closed(table, until)
        else:
            account.take_fills(_in_order(table.fills, until), merge=method == "average")
        return PnlFigures(
            bot=bot_name,
            since=since,
            until=until,
            method=method if table.kind == "fills" else "closed",
            currencies=account.by_currency(capital),
            symbols=account.by_symbol(),
            positions=account.positions(),
            other_fees=tuple(sorted(account.other_fees.items())),
            skipped=table.skipped,
            notes=(*table.notes, *account.notes(capital)),
        )


def rounded(amount: Decimal, places: int = 8) -> Decimal:
    """For people: half to even, as banks do. Sums are of unrounded amounts."""
    with localcontext() as context:
        context.prec = DIGITS
        return amount.quantize(Decimal(1).scaleb(-places))


def _in_order(fills: Sequence[Fill], until: datetime | None) -> list[Fill]:
    """By time, equal times as in the file: exchanges report late fills late."""
    return sorted((fill for fill in fills if until is None or fill.at < until), key=lambda fill: fill.at)


@dataclass
class _Lot:
    quantity: Decimal
    value: Decimal


class _Book:
    """The position in one symbol: lots of one direction, the oldest first."""

    def __init__(self, merge: bool) -> None:
        self._merge = merge
        self.long = True
        self.lots: deque[_Lot] = deque()

    def change(self, quantity: Decimal, value: Decimal, buy: bool) -> Decimal | None:
        """Take in one fill. Gives the result of what it closed, None if it closed nothing."""
        if not self.lots:
            self.long = buy
        if buy == self.long:
            self._open(quantity, value)
            return None
        result = ZERO
        while quantity and self.lots:
            lot = self.lots[0]
            taken = min(quantity, lot.quantity)
            out = _part(lot, taken)
            back = value if taken == quantity else value * taken / quantity
            quantity, value = quantity - taken, value - back
            result += back - out if self.long else out - back
            if not lot.quantity:
                self.lots.popleft()
        if quantity:
            self.long = buy
            self._open(quantity, value)
        return result

    def _open(self, quantity: Decimal, value: Decimal) -> None:
        if self._merge and self.lots:
            self.lots[0].quantity += quantity
            self.lots[0].value += value
        else:
            self.lots.append(_Lot(quantity, value))


def _part(lot: _Lot, taken: Decimal) -> Decimal:
    """Take a quantity out of a lot; gives its value. The last part is what is left, to the last digit."""
    value = lot.value if taken == lot.quantity else lot.value * taken / lot.quantity
    lot.quantity -= taken
    lot.value -= value
    return value


@dataclass
class _Sum:
    """Results of one currency or symbol, as they come in."""

    realised: Decimal = ZERO
    fees: Decimal = ZERO
    trades: int = 0
    wins: int = 0
    losses: int = 0
    highest: Decimal = ZERO
    drawdown: Decimal = ZERO

    def add(self, result: Decimal) -> None:
        self.realised += result
        self.trades += 1
        self.wins += result > 0
        self.losses += result < 0
        self.highest = max(self.highest, self.realised)
        self.drawdown = max(self.drawdown, self.highest - self.realised)


Key = tuple[str, str, str]
"""(market, symbol, currency)."""


@dataclass
class _Account:
    since: datetime | None
    currency: str
    sums: dict[str, _Sum] = field(default_factory=dict)
    symbols: dict[Key, _Sum] = field(default_factory=dict)
    books: dict[Key, _Book] = field(default_factory=dict)
    other_fees: dict[str, Decimal] = field(default_factory=dict)
    shorts: list[str] = field(default_factory=list)

    def take_closed(self, table: TradeTable, until: datetime | None) -> None:
        """Results as the bot wrote them."""
        for trade in sorted(table.closed, key=lambda trade: trade.at):
            if until is None or trade.at < until:
                key = ("", trade.symbol, trade.currency or self.currency or UNKNOWN)
                self._count(key, trade.at, trade.pnl)
                self._count_fee(key[2], trade.at, trade.fee)

    def take_fills(self, fills: Iterable[Fill], merge: bool) -> None:
        """Results computed from executions, the oldest first."""
        for fill in fills:
            key = (fill.market, fill.symbol, fill.quote or self.currency or UNKNOWN)
            book = self.books.get(key)
            if book is None:
                book = self.books[key] = _Book(merge)
                if fill.side == "sell":
                    self.shorts.append(fill.symbol)
            self._take_fill(key, book, fill)

    def _take_fill(self, key: Key, book: _Book, fill: Fill) -> None:
        buy, value, quantity = fill.side == "buy", fill.price * fill.amount, fill.amount
        if fill.fee:
            if fill.fee_currency in ("", key[2]):
                value += fill.fee if buy else -fill.fee
                self._count_fee(key[2], fill.at, fill.fee)
            elif fill.fee_currency == split_symbol(fill.symbol)[0]:
                quantity += -fill.fee if buy else fill.fee
                self._count_fee(key[2], fill.at, fill.fee * fill.price)
            elif self._within(fill.at):
                self.other_fees[fill.fee_currency] = self.other_fees.get(fill.fee_currency, ZERO) + fill.fee
        if quantity <= 0:
            return
        result = book.change(quantity, value, buy)
        if result is not None:
            self._count(key, fill.at, result)

    def _within(self, at: datetime) -> bool:
        return self.since is None or at >= self.since

    def _count(self, key: Key, at: datetime, result: Decimal) -> None:
        if self._within(at):
            self.sums.setdefault(key[2], _Sum()).add(result)
            self.symbols.setdefault(key, _Sum()).add(result)

    def _count_fee(self, currency: str, at: datetime, fee: Decimal) -> None:
        if self._within(at):
            self.sums.setdefault(currency, _Sum()).fees += fee

    # --- what came of it ---

    def by_currency(self, capital: Decimal | None) -> tuple[CurrencyFigures, ...]:
        """The currency of the capital first, then by trades; zeros where nothing was traded."""
        if not self.sums:
            known = next((key[2] for key in self.books), "")
            self.sums[known or self.currency or UNKNOWN] = _Sum()
        names = sorted(self.sums, key=lambda name: (name != self.currency, -self.sums[name].trades, name))
        return tuple(self._figures(name, self.sums[name], capital) for name in names)

    def _figures(self, name: str, found: _Sum, capital: Decimal | None) -> CurrencyFigures:
        ours = name == self.currency or (not self.currency and len(self.sums) == 1)
        return CurrencyFigures(
            currency=name,
            realised=found.realised,
            fees=found.fees,
            trades=found.trades,
            wins=found.wins,
            losses=found.losses,
            win_rate=Decimal(found.wins) / found.trades if found.trades else None,
            drawdown=found.drawdown,
            percent=found.realised / capital * 100 if capital and ours else None,
        )

    def by_symbol(self) -> tuple[SymbolFigures, ...]:
        """One for each market, symbol and currency in which something was closed."""
        return tuple(SymbolFigures(*key, found.realised, found.trades) for key, found in sorted(self.symbols.items()))

    def positions(self) -> tuple[OpenPosition, ...]:
        """What is left in the books."""
        return tuple(_position(key, book) for key, book in sorted(self.books.items()) if book.lots)

    def notes(self, capital: Decimal | None) -> list[str]:
        """What a reader of the figures has to know."""
        notes = [f"the first fill of {symbol} is a sell: taken as a short that it opened" for symbol in self.shorts]
        notes += [f"fees of {amount} {asset} are in no figure" for asset, amount in sorted(self.other_fees.items())]
        if UNKNOWN in self.sums:
            notes.append("the file does not say in which currency it is: set `currency` of the bot")
        if capital and self.currency and self.currency not in self.sums:
            notes.append(f"no percentage: the capital is in {self.currency}, the trades are not")
        return notes


def _position(key: Key, book: _Book) -> OpenPosition:
    market, symbol, currency = key
    quantity = sum((lot.quantity for lot in book.lots), ZERO)
    value = sum((lot.value for lot in book.lots), ZERO)
    return OpenPosition(symbol, quantity if book.long else -quantity, value / quantity, currency, market)
