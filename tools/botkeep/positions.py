"""What a position is worth: lots matched first in, first out or merged at average cost, and a bot's own open trades.

Every fill changes a position by a quantity, for an amount of the quote currency:

    buy:   + (amount - fee in base)    for price x amount + fee in quote
    sell:  - (amount + fee in base)    for price x amount - fee in quote

The part of a change that goes against the position closes it, and its result is what came in less what went out for
just that part; the rest opens or adds. A sell with nothing to close opens a short, and a change larger than the
position flips it.

Only the last step of a division is ever rounded, at the digits of the caller's context; what is left of a lot or a
fill is found by subtraction, so nothing gets lost between parts.
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal

from .model import OpenTrade

ZERO = Decimal(0)
ONE = Decimal(1)


class _Lot:
    """A quantity, and what it cost or (of a short) brought in."""

    __slots__ = ("quantity", "value")

    def __init__(self, quantity: Decimal, value: Decimal) -> None:
        self.quantity, self.value = quantity, value


class Book:
    """The position in one symbol: lots of one direction, the oldest first. `merge`: one lot, at average cost."""

    __slots__ = ("_lots", "_merge", "base", "long")

    def __init__(self, merge: bool, base: str = "") -> None:
        self._merge = merge
        self.base = base
        """The currency of the quantities."""
        self.long = True
        self._lots: deque[_Lot] = deque()

    def change(self, quantity: Decimal, value: Decimal, buy: bool) -> Decimal | None:
        """Take in one fill. Gives the result of what it closed, None if it closed nothing."""
        if not self._lots:
            self.long = buy
        if buy == self.long:
            self._open(quantity, value)
            return None
        lot = self._lots[0]
        if lot.quantity == quantity:  # what most fills of most bots do
            self._lots.popleft()
            return value - lot.value if self.long else lot.value - value
        return self._close(quantity, value, buy)

    def _close(self, quantity: Decimal, value: Decimal, buy: bool) -> Decimal:
        result = ZERO
        while quantity and self._lots:
            lot = self._lots[0]
            taken = min(quantity, lot.quantity)
            out = _part(lot, taken)
            back = value if taken == quantity else value * taken / quantity
            quantity, value = quantity - taken, value - back
            result += back - out if self.long else out - back
            if not lot.quantity:
                self._lots.popleft()
        if quantity:
            self.long = buy
            self._open(quantity, value)
        return result

    def _open(self, quantity: Decimal, value: Decimal) -> None:
        if self._merge and self._lots:
            self._lots[0].quantity += quantity
            self._lots[0].value += value
        else:
            self._lots.append(_Lot(quantity, value))

    def held(self) -> tuple[Decimal, Decimal]:
        """Quantity (negative: short) and what it cost or brought in; zero and zero with nothing open."""
        quantity = sum((lot.quantity for lot in self._lots), ZERO)
        value = sum((lot.value for lot in self._lots), ZERO)
        return (quantity if self.long else -quantity), value


def _part(lot: _Lot, taken: Decimal) -> Decimal:
    """Take a quantity out of a lot; gives its value. The last part is what is left, to the last digit."""
    value = lot.value if taken == lot.quantity else lot.value * taken / lot.quantity
    lot.quantity -= taken
    lot.value -= value
    return value


# --- trades that the bot itself counts as open ----------------------------------------------------------------------


def opening_value(trade: OpenTrade) -> Decimal:
    """What the opening cost with its fee, or (short) brought in less its fee; as the bot wrote it, if it did.

    freqtrade's `open_trade_value`: rate x amount x (1 + fee), a short rate x amount x (1 - fee).
    """
    if trade.value is not None:
        return trade.value
    return trade.entry * trade.amount * (ONE - trade.fee_open if _short(trade) else ONE + trade.fee_open)


def closing_value(trade: OpenTrade, price: Decimal) -> Decimal:
    """What closing all of it at that price would bring, or (short) cost, with the fee of closing and funding so far.

    freqtrade's documentation (Leverage, and Futures: funding fees) and the figures of its API: rate x amount less the
    fee plus the funding received; to close a short costs rate x amount plus the fee less the funding received.
    """
    gross = trade.amount * price
    if _short(trade):
        return gross + gross * trade.fee_close - trade.funding
    return gross - gross * trade.fee_close + trade.funding


def open_result(trade: OpenTrade, price: Decimal) -> tuple[Decimal, Decimal | None]:
    """Profit of what is still open at that price, and over its opening value times the leverage (None: no value).

    freqtrade's `profit_abs` and `profit_ratio` of an open trade; it rounds both to eight digits. The amounts of a
    leveraged trade are those of the whole position, so only the ratio knows the leverage.
    """
    opened, closed = opening_value(trade), closing_value(trade, price)
    profit = opened - closed if _short(trade) else closed - opened
    return profit, (profit / opened * trade.leverage if opened else None)


def _short(trade: OpenTrade) -> bool:
    return trade.side == "short"
