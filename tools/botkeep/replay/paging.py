"""All trades of one symbol from an exchange that gives them in pages, whatever its pages are like.

Exchanges differ: a page begins with the last trade of the one before, or is in reverse; asked for trades from a moment
on, one gives the oldest from there and another the newest of all; most look at a day or a week at a time and answer an
empty page for a quiet one. So nothing is concluded from a page's length or order. Each trade counts once by its id,
and a page with no new id ends a way of asking, not the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from ..formats.columns import side_of, split_symbol
from ..model import Fill
from ..untrusted import clean
from .base import Doubts, NotATradeError, exact, past, positive, word

PAGE = 1000
"""Trades asked for at a time; an exchange that gives fewer gives fewer."""
STEP = timedelta(days=1)
"""Further on, where a moment gives nothing new: the shortest window that a known exchange looks at."""
CROWDED = 20
"""Trades of one and the same moment that fill a page: more may be behind them, and time leads no further."""
BY_ID = frozenset({"binance", "binanceus", "binanceusdm", "binancecoinm"})
"""Exchanges that give trades from an id on (`fromId`); their ids of one symbol are in order of time."""


class Asking(Protocol):
    """One request. All times in milliseconds since 1970."""

    def __call__(self, symbol: str, since: int | None, limit: int, params: dict[str, Any]) -> Any: ...


class EmptyError(Exception):
    """An answer in which nothing is a trade."""


@dataclass
class Pages:
    """What one symbol gave so far."""

    symbol: str
    market: str
    now: datetime
    doubts: Doubts
    fills: dict[tuple[str, str], Fill] = field(default_factory=dict)
    """By symbol and id: some exchanges give every symbol's, and those move on in time too."""
    page: list[Fill] = field(default_factory=list)
    """The last page, with what was known already; in order of time."""
    requests: int = 0
    sure: datetime | None = None
    """Up to here nothing is left out."""
    ended: bool = False
    """It came to now."""
    begins: datetime | None = None
    """What is before could not be asked for, though there may be trades."""
    odd: set[str] = field(default_factory=set)

    @property
    def own(self) -> list[Fill]:
        """The trades of the symbol that was asked for."""
        return [fill for fill in tuple(self.fills.values()) if fill.symbol == self.symbol]

    @property
    def first(self) -> datetime:
        """The time of the first trade of any symbol: so far back the history reaches."""
        return min(fill.at for fill in tuple(self.fills.values()))

    def take(self, answer: Any) -> list[Fill]:
        """The new trades of a page, in order of time. Raises EmptyError for an answer that is no page of trades."""
        rows = answer if isinstance(answer, list) else [answer]
        if rows and not any(_is_row(row) for row in rows):
            raise EmptyError
        self.page = sorted((fill for row in rows if (fill := self._read(row)) is not None), key=order)
        fresh = {(fill.symbol, fill.id): fill for fill in self.page if (fill.symbol, fill.id) not in self.fills}
        self.fills |= fresh
        return list(fresh.values())

    def _read(self, row: Any) -> Fill | None:
        try:
            return fill_of(row, self.symbol, self.market, self.now)
        except NotATradeError as why:
            self._doubt(row, str(why))
            return None

    def _doubt(self, row: Any, why: str) -> None:
        told = clean(str(row.get("id")), 40) if isinstance(row, dict) else "none"
        text = f"{self.market} gave something as a trade of {self.symbol} (id {told}) that is none: {why}."
        if text not in self.odd:
            self.odd.add(text)
            self.doubts.say(text)


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and row.get("id") is not None and row.get("timestamp") is not None


def order(fill: Fill) -> tuple[datetime, int, str]:
    """Time, then id: numbers by their value."""
    return fill.at, len(fill.id), fill.id


class Pager:
    """Asks for one symbol's pages until there are no more, or `most` requests were made."""

    def __init__(self, pages: Pages, ask: Asking, since: datetime, most: int) -> None:
        self._pages, self._ask, self._most = pages, ask, most
        self._since = since
        self._oldest_first: bool | None = None

    def run(self) -> Pages:
        """Everything from `since` to now, as far as the exchange gives it."""
        fresh = self._page(self._since)
        if self._pages.market in BY_ID and fresh:
            self._by_id(fresh)
        else:
            self._by_time(fresh)
        return self._pages

    def _page(self, since: datetime | None, limit: int = PAGE, **params: Any) -> list[Fill]:
        """What is new in a page."""
        self._pages.requests += 1
        return self._pages.take(self._ask(self._pages.symbol, _milliseconds(since), limit, params))

    def _may_ask(self) -> bool:
        return self._pages.requests < self._most

    def _gives_oldest_first(self, since: datetime, page: Sequence[Fill]) -> bool:
        """Whether trades from a moment on are the oldest from there: then one alone is the first of many."""
        if self._oldest_first is None:
            alone = replace(self._pages, fills={}, page=[])  # what it finds odd was found before
            self._pages.requests += 1
            first = alone.take(self._ask(self._pages.symbol, _milliseconds(since), 1, {}))
            self._oldest_first = len(first) == 1 and first[0].id == page[0].id
        return self._oldest_first

    # --- by id: exact

    def _by_id(self, page: Sequence[Fill]) -> None:
        """From the first trade on; if the page may not begin with it, from the very first of the account."""
        last = page[-1].id if self._gives_oldest_first(self._since, page) else "0"
        while last.isdecimal() and self._may_ask():
            fresh = self._page(None, fromId=int(last) + 1 if last != "0" else 0)
            if not fresh:
                self._pages.ended = True
                return
            self._pages.sure = fresh[-1].at
            last = max((fill.id for fill in fresh), key=int)

    # --- by time

    def _by_time(self, fresh: Sequence[Fill]) -> None:
        at = self._since
        while True:
            page = self._pages.page
            if len(fresh) > 1 and not self._gives_oldest_first(at, page):
                self._backwards(at, fresh[0].at)
            further = self._next(at, page)
            if further is None:
                return
            self._pages.sure = at = further
            if at > self._pages.now:
                self._pages.ended = True
                return
            if not self._may_ask():
                return
            fresh = self._page(at)

    @staticmethod
    def _next(at: datetime, page: Sequence[Fill]) -> datetime | None:
        """The moment to ask from next; None: time leads no further."""
        newest = page[-1].at if page else at
        if newest > at:
            return newest
        return None if len(page) >= CROWDED else at + STEP

    def _backwards(self, since: datetime, oldest: datetime) -> None:
        """The older ones of a window of which the newest were given: asked for up to the oldest that is known."""
        known = list(self._pages.page)
        while oldest > since:
            fresh = self._page(since, until=_milliseconds(oldest)) if self._may_ask() else None
            if fresh is None or any(fill.at > oldest for fill in self._pages.page):  # it does not know `until`
                self._pages.begins = oldest
                break
            if not fresh:
                break
            oldest = fresh[0].at
        self._pages.page = known


def _milliseconds(at: datetime | None) -> int | None:
    return None if at is None else (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


# --- one trade ---------------------------------------------------------------------------------------------------


def fill_of(row: Any, symbol: str, market: str, now: datetime) -> Fill:
    """A trade as ccxt gives it, its numbers as text. Raises NotATradeError.

    An HTML page that came with 200 makes ccxt give a trade without anything for each of its letters.
    """
    if not isinstance(row, dict):
        raise NotATradeError("it is not an object")
    symbol = word(row.get("symbol") or symbol, "symbol")
    side = side_of(str(row.get("side")))
    if side is None:
        raise NotATradeError("the side is neither buy nor sell")
    fee, currency = _fee(row)
    return Fill(
        at=_time(row.get("timestamp"), now),
        symbol=symbol,
        side=side,
        price=positive(row.get("price"), "price"),
        amount=positive(row.get("amount"), "amount"),
        fee=fee,
        fee_currency=currency,
        id=word(row.get("id"), "id"),
        order_id=word(row["order"], "order") if row.get("order") else "",
        market=market,
        quote=split_symbol(symbol)[1],
    )


def _time(value: Any, now: datetime) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int) or not 10**11 < value < 10**14:
        raise NotATradeError("the time is not one" if value else "the time is missing")
    return past(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value), now)


def _fee(row: dict[str, Any]) -> tuple[Decimal, str]:
    """(fee, its currency). Parts in one currency are added up; one in several cannot be told in one figure.

    ccxt gives a list of all of them, `fees`, and `fee` if there is just one.
    """
    parts: dict[str, Decimal] = {}
    fees = row.get("fees")
    for told in fees if fees and isinstance(fees, list) else [row.get("fee")]:
        if told and not isinstance(told, dict):
            raise NotATradeError("the fee is not one")
        if told and told.get("cost") is not None:
            currency = word(told.get("currency"), "fee currency")
            parts[currency] = parts.get(currency, Decimal(0)) + exact(told["cost"], "fee")
    paid = {currency: fee for currency, fee in parts.items() if fee} or parts
    if len(paid) > 1 and any(paid.values()):
        raise NotATradeError("the fee is in several currencies")
    return next(((fee, currency) for currency, fee in paid.items()), (Decimal(0), ""))
