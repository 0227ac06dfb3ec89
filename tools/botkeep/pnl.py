"""Realised profit and loss from a bot's own trades, exact in decimals: first in, first out, or at average cost.

Results that the bot wrote itself are taken as they are; from executions they are computed (`positions.py`). What is
open is valued only at marks that the caller gives, and each figure shows the prices that it rests on. Fees in a third
currency need a rate that no trade file has: without one they are listed apart. Amounts of different currencies are
never added up without a rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, localcontext
from operator import attrgetter
from typing import Literal, TypeVar

from .formats.base import TradeTable
from .formats.columns import split_symbol
from .formats.values import plain_market, plain_symbol
from .model import ClosedTrade, Fill, OpenTrade, UsageError
from .pnl_figures import (
    UNKNOWN,
    ZERO,
    CurrencyFigures,
    DayFigures,
    Mark,
    OpenPosition,
    PnlFigures,
    Prices,
    Rates,
    SymbolFigures,
    Together,
    UsedRate,
    as_mark,
)
from .pnl_sums import CurrencySum, Days, Sum
from .positions import Book, open_result

__all__ = [
    "DIGITS",
    "UNKNOWN",
    "CurrencyFigures",
    "DayFigures",
    "Mark",
    "Method",
    "OpenPosition",
    "PnlFigures",
    "Prices",
    "Rates",
    "SymbolFigures",
    "Together",
    "UsedRate",
    "figures",
    "last_prices",
    "rounded",
]

DIGITS = 60
MOST_DIGITS = 400
"""A file may say 1e99 for a price and for an amount: that too has to be shown, however many zeros it takes."""
NO_PRICES: Prices = {}
NO_RATES: Rates = {}

Method = Literal["fifo", "average"]
Trade = TypeVar("Trade", Fill, ClosedTrade)


def figures(
    bot_name: str,
    table: TradeTable,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    method: str = "fifo",
    capital: Decimal | None = None,
    currency: str = "",
    marks: Prices = NO_PRICES,
    rates: Rates = NO_RATES,
    zone: tzinfo = UTC,
) -> PnlFigures:
    """P&L within [since, until); positions are built from all trades before `until`, and valued at `marks`.

    `currency` is that of `capital`, and of trades that name none. `rates` make fees in third currencies count, and
    several currencies one. Days are those of `zone`. Raises UsageError for an unknown method and for no price.
    """
    if method not in ("fifo", "average"):
        raise UsageError(f"There is no method {method!r} to compute P&L. The methods are: fifo, average.")
    with localcontext() as context:
        context.prec = DIGITS
        account = _Account(since, currency.upper(), _Given(marks, rates), zone)
        if table.kind == "closed":
            account.take_closed(_in_order(table.closed, until))
        else:
            account.take_fills(_in_order(table.fills, until), merge=method == "average")
        opened = [one for one in table.open if until is None or one.at < until]
        held = account.positions(opened, known=table.knows_open)
        currencies = account.by_currency(capital)
        return PnlFigures(
            bot=bot_name,
            since=since,
            until=until,
            method=method if table.kind == "fills" else "closed",
            currencies=currencies,
            symbols=account.by_symbol(),
            positions=held,
            other_fees=tuple(sorted(account.other_fees.items())),
            skipped=table.skipped,
            notes=(*table.notes, *account.notes(capital, held)),
            days=account.days.figures(),
            rates=tuple(account.used.values()),
            together=_together(currencies, account.given),
        )


def rounded(amount: Decimal, places: int = 8) -> Decimal:
    """For people: half to even, as banks do. Sums are of unrounded amounts."""
    with localcontext() as context:
        context.prec = MOST_DIGITS
        return amount.quantize(Decimal(1).scaleb(-places))


def last_prices(table: TradeTable, until: datetime | None = None) -> dict[str, Mark]:
    """Symbol -> the price of its newest trade in the file: marks for when nothing better is known."""
    newest: dict[str, Mark] = {}
    for fill in _in_order(table.fills, until):
        newest[fill.symbol] = Mark(fill.price, "its own last fill", fill.at)
    for trade in _in_order(table.closed, until):
        if trade.exit is not None:
            newest[trade.symbol] = Mark(trade.exit, "its own last closed trade", trade.at)
    return {symbol: mark for symbol, mark in newest.items() if mark.price > 0}


def _in_order(trades: Sequence[Trade], until: datetime | None) -> list[Trade]:
    """By time, equal times as in the file: exchanges report late fills late."""
    return sorted((one for one in trades if until is None or one.at < until), key=attrgetter("at"))


def _together(currencies: Sequence[CurrencyFigures], given: _Given) -> Together | None:
    """Everything in the main currency, if there are several and each has a rate to it."""
    main, *others = currencies
    found = [(one, mark) for one in others if (mark := given.rate(one.currency, main.currency)) is not None]
    if not others or len(found) < len(others):
        return None
    return Together(
        currency=main.currency,
        realised=sum((one.realised * mark.price for one, mark in found), main.realised),
        fees=sum((one.fees * mark.price for one, mark in found), main.fees),
        rates=tuple(UsedRate(one.currency, main.currency, mark) for one, mark in found),
    )


class _Given:
    """The caller's prices, however it spells symbols and currencies."""

    def __init__(self, marks: Prices, rates: Rates) -> None:
        self._marks = {plain_symbol(symbol): as_mark(price, symbol) for symbol, price in marks.items()}
        self._rates = {
            (asset.upper(), currency.upper()): as_mark(price, f"one {asset} in {currency}")
            for (asset, currency), price in rates.items()
        }
        self.any = bool(marks)

    def mark(self, symbol: str) -> Mark | None:
        return self._marks.get(plain_symbol(symbol))

    def rate(self, asset: str, currency: str) -> Mark | None:
        return self._rates.get((asset, currency))


Key = tuple[str, str, str]
"""(market, symbol, currency)."""


class _Line:
    """What belongs to one market, however it is spelled, symbol and currency. `key` has the first spelling."""

    __slots__ = ("book", "key", "own", "whole")

    def __init__(self, key: Key, book: Book, whole: CurrencySum) -> None:
        self.key, self.book, self.whole = key, book, whole
        self.own = Sum()


class _Account:
    """Takes trades in order of time; then says what came of them."""

    def __init__(self, since: datetime | None, currency: str, given: _Given, zone: tzinfo) -> None:
        self.since, self.currency, self.given = since, currency, given
        self.days = Days(zone)
        self.other_fees: dict[str, Decimal] = {}
        self.used: dict[tuple[str, str], UsedRate] = {}
        self._lines: dict[Key, _Line] = {}
        """By the plain market."""
        self._spelled: dict[Key, _Line] = {}
        """The same, by every spelling that came: looked up for each trade."""
        self._sums: dict[str, CurrencySum] = {}
        self._shorts: list[str] = []
        self._merge = False

    def take_closed(self, trades: Iterable[ClosedTrade]) -> None:
        """Results as the bot wrote them."""
        for trade in trades:
            line = self._line((trade.market, trade.symbol, trade.currency or self.currency or UNKNOWN))
            _add_volume(line.whole, trade, self.since)
            if self._within(trade.at):
                self._count(line, trade.at, trade.pnl)
                self._count_fee(line, trade.at, trade.fee)
                line.own.staked = _plus(line.own.staked, trade.stake)
                line.whole.ratios = _plus(line.whole.ratios, trade.ratio)

    def take_fills(self, fills: Iterable[Fill], merge: bool) -> None:
        """Results computed from executions."""
        self._merge = merge
        for fill in fills:
            key = (fill.market, fill.symbol, fill.quote or self.currency or UNKNOWN)
            line = self._spelled.get(key)
            if line is None:
                books = len(self._lines)
                line = self._line(key)
                line.whole.ratios = None
                if fill.side == "sell" and len(self._lines) > books:
                    self._shorts.append(fill.symbol)
            self._take_fill(line, fill)

    def _line(self, key: Key) -> _Line:
        found = self._spelled.get(key)
        if found is None:
            found = self._spelled[key] = self._line_of_plain((plain_market(key[0]), *key[1:]), key)
        return found

    def _line_of_plain(self, plain: Key, key: Key) -> _Line:
        found = self._lines.get(plain)
        if found is None:
            whole = self._sums.setdefault(key[2], CurrencySum())
            found = self._lines[plain] = _Line(key, Book(self._merge, split_symbol(key[1])[0]), whole)
        return found

    def _take_fill(self, line: _Line, fill: Fill) -> None:
        buy, quantity, value = fill.side == "buy", fill.amount, fill.price * fill.amount
        counts = self.since is None or fill.at >= self.since
        if counts and line.whole.volume is not None:
            line.whole.volume += value
        if fill.fee:
            in_quote, in_base = self._fee(line, fill, counts)
            value, quantity = (value + in_quote, quantity - in_base) if buy else (value - in_quote, quantity + in_base)
        if quantity <= 0:
            return
        result = line.book.change(quantity, value, buy)
        if result is not None and counts:
            self._count(line, fill.at, result)

    def _fee(self, line: _Line, fill: Fill, counts: bool) -> tuple[Decimal, Decimal]:
        """What the fee takes from the quote and from the base currency."""
        asset, currency = fill.fee_currency, line.key[2]
        if asset in ("", currency):
            in_quote, in_base, worth = fill.fee, ZERO, fill.fee
        elif asset == line.book.base:
            in_quote, in_base, worth = ZERO, fill.fee, fill.fee * fill.price
        elif (mark := self.given.rate(asset, currency)) is not None:
            self.used.setdefault((asset, currency), UsedRate(asset, currency, mark))
            in_quote = worth = fill.fee * mark.price
            in_base = ZERO
        else:
            if counts:
                self.other_fees[asset] = self.other_fees.get(asset, ZERO) + fill.fee
            return ZERO, ZERO
        if counts:
            self._count_fee(line, fill.at, worth)
        return in_quote, in_base

    def _within(self, at: datetime) -> bool:
        return self.since is None or at >= self.since

    def _count(self, line: _Line, at: datetime, result: Decimal) -> None:
        line.whole.add_at(at, result)
        line.own.add(result)
        self.days.of(at, line.key[2]).add(result)

    def _count_fee(self, line: _Line, at: datetime, fee: Decimal) -> None:
        line.whole.fees += fee
        line.own.fees += fee
        self.days.of(at, line.key[2]).fees += fee

    # --- what came of it ---

    def positions(self, trades: Iterable[OpenTrade], *, known: bool) -> tuple[OpenPosition, ...]:
        """What the bot itself counts as open, and what is left in the books. `known`: there is nothing else open."""
        own = [self._own_position(trade) for trade in sorted(trades, key=lambda one: (one.symbol, one.at, one.id))]
        left = [self._left_position(line) for line in self._in_row() if line.book.held()[0]]
        held = (*own, *left)
        for currency in {one.currency for one in held} | self._sums.keys():
            worth = [one.unrealised for one in held if one.currency == currency]
            whole = self._sums.setdefault(currency, CurrencySum())
            complete = known and None not in worth
            whole.unrealised = sum((one for one in worth if one is not None), ZERO) if complete else None
        return held

    def _in_row(self) -> list[_Line]:
        return sorted(self._lines.values(), key=attrgetter("key"))

    def _left_position(self, line: _Line) -> OpenPosition:
        market, symbol, currency = line.key
        quantity, value = line.book.held()
        mark = self.given.mark(symbol)
        worth = None
        if mark is not None:
            worth = quantity * mark.price + (value if quantity < 0 else -value)
        ratio = worth / value if worth is not None and value else None
        average = value / abs(quantity)
        return OpenPosition(symbol, quantity, average, currency, market, mark=mark, unrealised=worth, ratio=ratio)

    def _own_position(self, trade: OpenTrade) -> OpenPosition:
        currency = trade.currency or self.currency or UNKNOWN
        whole = self._sums.setdefault(currency, CurrencySum())
        whole.open_realised += trade.realised
        if whole.volume is not None and self._within(trade.at):
            whole.volume += trade.entry * trade.amount
        mark = self.given.mark(trade.symbol)
        worth, ratio = (None, None) if mark is None else open_result(trade, mark.price)
        return OpenPosition(
            symbol=trade.symbol,
            amount=-trade.amount if trade.side == "short" else trade.amount,
            average_price=trade.entry,
            currency=currency,
            market=trade.market,
            id=trade.id,
            opened=trade.at,
            leverage=trade.leverage,
            mark=mark,
            unrealised=worth,
            ratio=ratio,
            realised=trade.realised,
        )

    def by_currency(self, capital: Decimal | None) -> tuple[CurrencyFigures, ...]:
        """The currency of the capital first, then by trades; zeros where nothing was traded."""
        sums = {name: one for name, one in self._sums.items() if _says_something(one)}
        if not sums:
            name = next(iter(self._sums), "") or self.currency or UNKNOWN
            sums = {name: self._sums.get(name) or CurrencySum()}
        names = sorted(sums, key=lambda name: (name != self.currency, -sums[name].trades, name))
        only = not self.currency and len(sums) == 1
        return tuple(sums[name].figures(name, capital if only or name == self.currency else None) for name in names)

    def by_symbol(self) -> tuple[SymbolFigures, ...]:
        """One for each market, symbol and currency in which something was closed."""
        return tuple(
            SymbolFigures(*line.key, one.realised, one.trades, one.wins, one.losses, one.fees, one.ratio())
            for line in self._in_row()
            if (one := line.own).trades
        )

    def notes(self, capital: Decimal | None, held: Sequence[OpenPosition]) -> list[str]:
        """What a reader of the figures has to know."""
        counted = {name for name, one in self._sums.items() if _says_something(one)}
        notes = [f"the first fill of {symbol} is a sell: taken as a short that it opened" for symbol in self._shorts]
        notes += [f"fees of {amount} {asset} are in no figure" for asset, amount in sorted(self.other_fees.items())]
        notes += [
            f"fees in {one.asset} are counted at {one.mark.price} {one.currency} ({one.mark.source})"
            for one in self.used.values()
        ]
        if UNKNOWN in counted:
            notes.append("the file does not say in which currency it is: set `currency` of the bot")
        if capital and self.currency and self.currency not in counted:
            notes.append(f"no percentage: the capital is in {self.currency}, the trades are not")
        return [*notes, *self._notes_on_open(held), *self._notes_on_paper()]

    def _notes_on_open(self, held: Sequence[OpenPosition]) -> list[str]:
        unmarked = sorted({one.symbol for one in held if one.mark is None}) if self.given.any else []
        notes = [f"there is no mark for {symbol}: what is open of it is not valued" for symbol in unmarked]
        parts = {name: one.open_realised for name, one in self._sums.items() if one.open_realised}
        return notes + [
            f"{amount} {name} more were realised by partial exits of trades that are still open"
            for name, amount in sorted(parts.items())
        ]

    def _notes_on_paper(self) -> list[str]:
        """Of 181 fills, hummingbot had a result of -32.05, its fees of 23.94 in it, and said: -55.99 in total."""
        fees: dict[tuple[str, str], Decimal] = {}
        for line in self._lines.values():
            market, _, currency = line.key
            if plain_market(market).endswith("papertrade") and line.own.fees:
                fees[market, currency] = fees.get((market, currency), ZERO) + line.own.fees
        return [
            f"hummingbot's own `history` may show less for {market}: it takes the fees, {paid} {currency}, off twice"
            for (market, currency), paid in sorted(fees.items())
        ]


def _says_something(found: CurrencySum) -> bool:
    return bool(found.trades or found.fees or found.open_realised or found.unrealised)


def _plus(total: Decimal | None, more: Decimal | None) -> Decimal | None:
    """Not known as soon as one part is not."""
    return None if total is None or more is None else total + more


def _add_volume(whole: CurrencySum, trade: ClosedTrade, since: datetime | None) -> None:
    """Both executions of a closed trade, each if it is within the window."""
    if trade.amount is None or trade.entry is None or trade.exit is None:
        whole.volume = None if since is None or trade.at >= since else whole.volume
    elif whole.volume is not None:
        parts = ((trade.opened or trade.at, trade.entry), (trade.at, trade.exit))
        whole.volume += sum((price * trade.amount for at, price in parts if since is None or at >= since), ZERO)
