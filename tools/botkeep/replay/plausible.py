"""Prices that cannot be: far from those of the trades around them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from statistics import median
from typing import TypeVar

from ..formats.columns import split_symbol
from ..model import ClosedTrade, Fill, Finding
from .base import DOUBTED

FACTOR = Decimal("0.25")
"""Part of its neighbours' price by which a price may differ."""
NEAREST = 5
"""Neighbours whose median counts: one wrong one among them changes nothing."""

_One = TypeVar("_One", Fill, ClosedTrade, Fill | ClosedTrade)


class _Prices:
    """Known prices of one symbol, in order of time."""

    def __init__(self) -> None:
        self._known: list[tuple[datetime, Decimal]] = []

    def add(self, points: Iterable[tuple[datetime, Decimal]]) -> None:
        self._known.extend(points)
        self._known.sort()

    def around(self, at: datetime) -> Decimal | None:
        """The median of the nearest ones; None: none is known."""
        place = bisect_left(self._known, (at, Decimal(0)))
        near = self._known[max(0, place - NEAREST) : place + NEAREST]
        near.sort(key=lambda point: abs(point[0] - at))
        return median(price for _, price in near[:NEAREST]) if near else None


def split(
    trades: Sequence[_One], neighbours: Sequence[Fill | ClosedTrade], *, factor: Decimal = FACTOR
) -> tuple[tuple[_One, ...], tuple[Finding, ...]]:
    """(the plausible ones, why the others are not), both in the order given.

    A trade is implausible where a price of it differs by more than `factor` from the median of the five nearest in
    time of its symbol: of `neighbours`, and of those already found plausible. With none known, of the other trades
    asked about; a single trade that nothing can be said about passes.
    """
    known = _by_symbol(neighbours)
    findings: dict[int, Finding] = {}
    for symbol, places in _places(trades).items():
        prices = known.get(symbol) or _others(trades, places)
        for place in places:
            trade = trades[place]
            why = _implausible(trade, prices, factor)
            if why:
                findings[place] = Finding(DOUBTED, why, certain=False)
            elif symbol in known:
                prices.add(_points(trade))
    kept = tuple(trade for place, trade in enumerate(trades) if place not in findings)
    return kept, tuple(findings[place] for place in sorted(findings))


def _by_symbol(trades: Sequence[Fill | ClosedTrade]) -> dict[tuple[str, str], _Prices]:
    points: dict[tuple[str, str], list[tuple[datetime, Decimal]]] = {}
    for trade in trades:
        points.setdefault(split_symbol(trade.symbol), []).extend(_points(trade))
    found = {symbol: _Prices() for symbol, told in points.items() if told}
    for symbol, prices in found.items():
        prices.add(points[symbol])
    return found


def _places(trades: Sequence[Fill | ClosedTrade]) -> dict[tuple[str, str], list[int]]:
    """Symbol -> places of its trades, in order of time: prices that moved step by step are each near the last."""
    found: dict[tuple[str, str], list[int]] = {}
    for place in sorted(range(len(trades)), key=lambda place: trades[place].at):
        found.setdefault(split_symbol(trades[place].symbol), []).append(place)
    return found


def _others(trades: Sequence[Fill | ClosedTrade], places: Sequence[int]) -> _Prices:
    prices = _Prices()
    prices.add(point for place in places for point in _points(trades[place]))
    return prices


def _points(trade: Fill | ClosedTrade) -> list[tuple[datetime, Decimal]]:
    if isinstance(trade, Fill):
        return [(trade.at, trade.price)] if trade.price > 0 else []
    told = ((trade.opened or trade.at, trade.entry), (trade.at, trade.exit))
    return [(at, price) for at, price in told if price is not None and price > 0]


def _implausible(trade: Fill | ClosedTrade, prices: _Prices, factor: Decimal) -> str:
    """Why; empty: it is plausible."""
    if isinstance(trade, Fill) and (trade.price <= 0 or trade.amount <= 0):
        return f"{_told(trade)} has a price or an amount that is not above zero: not taken."
    for at, price in _points(trade):
        usual = prices.around(at)
        if usual is not None and abs(price - usual) > factor * usual:
            return (
                f"{_told(trade)} is at {price:f}, and the trades around it are at about {usual:f}: "
                f"more than {factor:.0%} away, not taken."
            )
    return ""


def _told(trade: Fill | ClosedTrade) -> str:
    name = f"Trade {trade.id}" if trade.id else "A trade"
    return f"{name} of {trade.symbol} at {trade.at:%Y-%m-%d %H:%M:%SZ}"
