"""Paging: the exact set of trades from exchanges of every habit, here as functions; the HTTP is tested beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep.replay.base import Doubts, NotATradeError
from botkeep.replay.paging import EmptyError, Pager, Pages, fill_of

NOW = datetime(2026, 11, 21, tzinfo=UTC)
DAY = 86_400_000
START = int(NOW.timestamp() * 1000) - 5 * DAY
SINCE = NOW - timedelta(days=5)

Rows = list[dict[str, Any]]


def rows(times: Sequence[int]) -> Rows:
    """Trades at these milliseconds after the start."""
    return [
        {"id": str(100 + place), "timestamp": START + at, "symbol": "BTC/USDT", "side": "buy", "price": "1.5",
         "amount": "2", "fee": {"cost": "0.1", "currency": "USDT"}, "order": str(place)}
        for place, at in enumerate(sorted(times))
    ]  # fmt: skip


class Exchange:
    """An exchange of given habits."""

    def __init__(
        self, trades: Rows, page: int = 5, window: int | None = None, *, newest: bool = False,
        mixed: bool = False, until: bool = True,
    ) -> None:  # fmt: skip
        self.trades, self.page, self.window = trades, page, window
        self.newest, self.mixed, self.until = newest, mixed, until

    def __call__(self, _symbol: str, since: int | None, limit: int, params: dict[str, Any]) -> Rows:
        found = self.trades
        most = min(limit, self.page)
        if "fromId" in params:
            return [row for row in found if int(row["id"]) >= params["fromId"]][:most]
        if since is not None:
            found = [row for row in found if row["timestamp"] >= since]
        end = params.get("until") if self.until else None
        if self.window is not None and since is not None:
            end = min(end or since + self.window, since + self.window)
        if end is not None:
            found = [row for row in found if row["timestamp"] <= end]
        found = found[-most:] if self.newest else found[:most]
        return found[::-1] if self.mixed else found


def page(ask: Callable[..., Any], market: str = "kraken", most: int = 500) -> Pages:
    return Pager(Pages("BTC/USDT", market, NOW, Doubts()), ask, SINCE, most).run()


def ids(pages: Pages) -> list[str]:
    return sorted((fill.id for fill in pages.own), key=int)


HABITS = {
    "oldest first": {}, "newest of all": {"newest": True}, "reversed": {"mixed": True},
    "a day at a time": {"window": DAY}, "newest of a day": {"window": DAY, "newest": True},
    "newest of a week, reversed": {"window": 7 * DAY, "newest": True, "mixed": True},
}  # fmt: skip


@pytest.mark.parametrize("habits", HABITS.values(), ids=HABITS)
@settings(max_examples=40, deadline=None)
@given(times=st.lists(st.integers(0, 5 * DAY - 1), min_size=1, max_size=40, unique=True))
def test_every_trade_comes_once_whatever_the_pages_are_like(habits: dict[str, Any], times: list[int]) -> None:
    pages = page(Exchange(rows(times), **habits))
    assert ids(pages) == [str(100 + place) for place in range(len(times))]
    assert pages.ended
    assert pages.begins is None


@settings(max_examples=40, deadline=None)
@given(times=st.lists(st.integers(0, 5 * DAY - 1), min_size=1, max_size=60), newest=st.booleans())
def test_by_id_even_trades_of_one_moment_come_once(times: list[int], newest: bool) -> None:
    pages = page(Exchange(rows(times), newest=newest), market="binance")
    assert ids(pages) == [str(100 + place) for place in range(len(times))]
    assert pages.ended


def test_an_exchange_that_cannot_be_asked_for_older_ones_proves_only_what_it_gave() -> None:
    pages = page(Exchange(rows(range(0, 5 * DAY, DAY // 4)), newest=True, until=False))
    assert pages.begins is not None
    assert pages.begins == min(fill.at for fill in pages.fills.values())


def test_a_moment_with_more_trades_than_a_page_is_where_it_ends() -> None:
    pages = page(Exchange(rows([1000] * 60 + [5000]), page=50))
    assert not pages.ended
    assert pages.sure == SINCE + timedelta(seconds=1)


@pytest.mark.parametrize("market", ["kraken", "binance"])
def test_there_are_never_more_requests_than_allowed(market: str) -> None:
    asked = []
    exchange = Exchange(rows(range(0, 5 * DAY, DAY // 100)))
    pages = page(lambda *told: asked.append(told) or exchange(*told), market, most=12)
    assert 12 <= len(asked) <= 14
    assert not pages.ended
    assert pages.sure is not None
    known = [row["id"] for row in exchange.trades if row["timestamp"] <= pages.sure.timestamp() * 1000]
    assert set(known) <= set(ids(pages))


def test_no_trades_are_looked_for_until_now() -> None:
    pages = page(Exchange([]))
    assert (pages.fills, pages.ended, pages.requests) == ({}, True, 6)


def test_an_exchange_that_gives_every_symbols_trades_is_read_for_the_one_asked_for() -> None:
    mixed = [row | {"symbol": ("BTC/USDT", "ETH/USDT")[place % 3 == 0]} for place, row in enumerate(rows(range(60)))]
    for newest in (False, True):
        pages = page(Exchange(mixed, newest=newest))
        assert ids(pages) == [row["id"] for row in mixed if row["symbol"] == "BTC/USDT"]
        assert len(pages.fills) == 60


BAD = {
    "no id": {"id": None}, "no time": {"timestamp": None}, "no price": {"price": None}, "no amount": {"amount": None},
    "a price of nothing": {"price": "0"}, "no side": {"side": None}, "an absurd amount": {"amount": "1e1000000"},
    "seconds": {"timestamp": 1795219200}, "still to come": {"timestamp": START + 9 * DAY}, "true": {"timestamp": True},
    "a symbol with a blank": {"symbol": "ETH USDT"}, "an id of markup": {"id": "<b>1</b>"},
}  # fmt: skip


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_row_without_what_a_trade_has_is_told_and_not_taken(change: dict[str, Any]) -> None:
    good = rows([1, 2])
    doubts = Doubts()
    pages = Pages("BTC/USDT", "kraken", NOW, doubts)
    assert [fill.id for fill in pages.take([good[0], good[1] | change])] == ["100"]
    assert doubts.count == 1


BNB, USDT = {"cost": "0.001", "currency": "BNB"}, {"cost": "5", "currency": "USDT"}
NONE = {"cost": None, "currency": None}


@pytest.mark.parametrize(
    ("change", "fee"),
    [
        ({"fee": BNB, "fees": [BNB]}, ("0.001", "BNB")),
        ({"fee": NONE, "fees": [BNB, BNB | {"cost": "0.0005"}]}, ("0.0015", "BNB")),
        ({"fee": BNB, "fees": [BNB, BNB]}, ("0.002", "BNB")),
        ({"fee": NONE, "fees": [BNB | {"cost": "0"}, USDT]}, ("5", "USDT")),
        ({"fee": USDT, "fees": []}, ("5", "USDT")),
        ({"fee": NONE, "fees": []}, ("0", "")),
        ({"fee": None}, ("0", "")),
    ],
)
def test_all_parts_of_a_fee_in_one_currency_are_one_fee(change: dict[str, Any], fee: tuple[str, str]) -> None:
    found = fill_of(rows([1])[0] | change, "BTC/USDT", "kraken", NOW)
    assert (str(found.fee), found.fee_currency) == fee


@pytest.mark.parametrize("change", [{"fee": NONE, "fees": [BNB, USDT]}, {"fees": [BNB, USDT, USDT]}])
def test_a_fee_in_two_currencies_is_told_and_the_trade_not_taken(change: dict[str, Any]) -> None:
    doubts = Doubts()
    good = rows([1, 2])
    assert [one.id for one in Pages("BTC/USDT", "kraken", NOW, doubts).take([good[0], good[1] | change])] == ["100"]
    assert "the fee is in several currencies" in doubts.found[0].text


@pytest.mark.parametrize("change", [{"fees": ["5 USDT"]}, {"fee": "5 USDT"}])
def test_a_fee_that_is_none_is_not_taken_for_no_fee(change: dict[str, Any]) -> None:
    with pytest.raises(NotATradeError, match="the fee is not one"):
        fill_of(rows([1])[0] | change, "BTC/USDT", "kraken", NOW)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "<html>down</html>",
        {"code": 0},
        ["<", "h"],
        [{"id": None, "timestamp": None, "price": None}] * 900,
        [None],
    ],
)
def test_an_answer_of_nothing_but_that_is_no_page(answer: Any) -> None:
    with pytest.raises(EmptyError):
        Pages("BTC/USDT", "kraken", NOW, Doubts()).take(answer)
