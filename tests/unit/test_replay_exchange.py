"""Reading an account's trades from an exchange that answers on loopback, through ccxt, in good and in bad weather."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest

from botkeep import replay, untrusted
from botkeep.config import ExchangeConfig
from botkeep.formats.base import TradeTable
from botkeep.model import BotkeepError, Replay, UsageError
from botkeep.replay.exchange import _client
from botkeep.replay.session import Deadline
from support.exchange import KEY, MINUTE, NEW_YEAR, SECRET, Answer, Fault, StandIn, error, running, trade

pytest.importorskip("ccxt", reason="needs botkeep[exchange]")

DAY_BEGINS = datetime(2026, 11, 21, tzinfo=UTC)
NOW = DAY_BEGINS + timedelta(hours=20)
ENVIRONMENT = {"STAND_IN_KEY": KEY, "STAND_IN_SECRET": SECRET}
TRADES = [trade(number) for number in range(12)]
ALL = [str(row["id"]) for row in TRADES]


def config(base: str, **other: Any) -> ExchangeConfig:
    told = {"id": "binance", "api_key_env": "STAND_IN_KEY", "secret_env": "STAND_IN_SECRET", "endpoint": base}
    return ExchangeConfig(**(told | other))


def ask(
    exchange: StandIn, symbols: Sequence[str] = ("BTC/USDT",), *, since: datetime = DAY_BEGINS, deadline: float = 20.0,
    **other: Any,
) -> Replay:  # fmt: skip
    return replay.from_exchange(
        config(exchange.base, **other),
        symbols=symbols,
        since=since,
        now=NOW,
        environment=ENVIRONMENT,
        deadline=deadline,
    )


def once(answer: Answer, number: int = 0) -> Fault:
    """That answer to one request for trades."""
    return lambda _exchange, count, _page: answer if count == number else None


def always(answer: Answer) -> Fault:
    return lambda _exchange, _count, _page: answer


def failed(fault: Fault, kind: type[BotkeepError] = BotkeepError, **more: Any) -> tuple[str, StandIn, BotkeepError]:
    """The sentence, the exchange that was asked, and the error itself."""
    with running(StandIn(TRADES, fault)) as exchange, pytest.raises(kind) as caught:
        ask(exchange, **more)
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "signature=" not in str(caught.value)
    return str(caught.value), exchange, caught.value


# --- good weather ------------------------------------------------------------------------------------------------


def test_a_trade_is_exactly_what_the_exchange_says() -> None:
    with running(StandIn(TRADES)) as exchange:
        found = ask(exchange)
    assert [fill.id for fill in found.fills] == ALL
    first = found.fills[0]
    assert (first.at, first.symbol, first.side) == (DAY_BEGINS, "BTC/USDT", "buy")
    assert (str(first.price), str(first.amount)) == ("60000.10000000", "0.00320000")
    assert (first.fee, first.fee_currency, first.order_id) == (Decimal("0.192"), "USDT", "500")
    assert (first.market, first.quote) == ("binance", "USDT")
    assert (found.source, found.since, found.until, found.quarantined) == ("exchange", DAY_BEGINS, None, ())


def test_everything_goes_to_the_endpoint_and_only_reads() -> None:
    with running(StandIn(TRADES)) as exchange:
        ask(exchange)
        here = urlsplit(exchange.base).netloc
    assert {path for path, _, _ in exchange.asked} == {"/api/v3/exchangeInfo", "/api/v3/myTrades"}
    assert {headers["Host"] for _, _, headers in exchange.asked} == {here}
    keyed = {path for path, _, headers in exchange.asked if "X-MBX-APIKEY" in headers}
    assert keyed == {"/api/v3/myTrades"}


@pytest.mark.parametrize("name", ["binance", "binanceusdm", "kraken", "okx", "bybit", "kucoin", "coinbase", "gate"])
def test_every_address_of_an_exchange_is_moved_to_the_endpoint(name: str) -> None:
    exchange = _client(config("http://127.0.0.1:9", id=name), {"apiKey": "k", "secret": "s"}, Deadline(5))
    addresses: list[str] = []

    def collect(value: Any) -> None:
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(one)
        if isinstance(value, str):
            addresses.append(value)

    collect(exchange.urls)
    assert len(addresses) > 3
    assert exchange.enableRateLimit
    assert {urlsplit(address).netloc for address in addresses if "://" in address} == {"127.0.0.1:9"}
    assert {urlsplit(address).scheme for address in addresses if "://" in address} == {"http"}


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BTC-USDT", "btc_usdt"])
def test_a_symbol_is_found_in_any_spelling(symbol: str) -> None:
    with running(StandIn(TRADES)) as exchange:
        assert len(ask(exchange, [symbol]).fills) == 12


def test_trades_of_a_margin_account_are_asked_for_there() -> None:
    with running(StandIn(TRADES)) as exchange:
        assert len(ask(exchange, market="margin").fills) == 12
    assert {path for path, _, _ in exchange.asked} == {"/api/v3/exchangeInfo", "/sapi/v1/margin/myTrades"}


def test_a_symbol_that_is_not_listed_is_told_and_the_others_are_read() -> None:
    with running(StandIn(TRADES)) as exchange:
        found = ask(exchange, ["BTC/USDT", "LUNA/USDT"])
        assert len(found.fills) == 12
        assert "lists no spot market LUNA/USDT" in found.notes[0]
        with pytest.raises(UsageError, match="LUNA/USDT"):
            ask(exchange, ["LUNA/USDT"])


def test_several_symbols_are_read_one_after_the_other() -> None:
    other = [trade(number, symbol="ETHUSDT") for number in range(3)]
    with running(StandIn([*TRADES, *other])) as exchange:
        found = ask(exchange, ["ETH/USDT", "BTC/USDT"])
    assert len(found.fills) == 15
    assert sorted({fill.symbol for fill in found.fills}) == ["BTC/USDT", "ETH/USDT"]
    assert list(found.fills) == sorted(found.fills, key=lambda fill: (fill.at, fill.symbol))


# --- pages -------------------------------------------------------------------------------------------------------


def repeat_the_seam(exchange: StandIn, _count: int, page: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each page begins with the last trade of the one before."""
    before = [row for row in exchange.trades if page and row["id"] < page[0]["id"]]
    return before[-1:] + page


def reverse(_exchange: StandIn, _count: int, page: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return page[::-1]


@pytest.mark.parametrize("fault", [None, repeat_the_seam, reverse])
@pytest.mark.parametrize("newest", [False, True])
def test_every_trade_comes_once_over_the_seams_of_pages(fault: Fault | None, newest: bool) -> None:
    exchange = StandIn(TRADES, fault, page=5)
    exchange.newest = newest
    with running(exchange):
        found = ask(exchange)
    assert [fill.id for fill in found.fills] == ALL
    assert found.until is None
    assert len(exchange.pages) <= 8


def test_what_was_read_is_what_a_file_lost() -> None:
    with running(StandIn(TRADES, repeat_the_seam, page=5)) as exchange:
        found = ask(exchange)
    table = TradeTable("fills", fills=(*found.fills[:4], *found.fills[7:]))
    assert replay.missing(table, found).fills == found.fills[4:7]


def test_a_history_that_begins_later_is_not_proven_before() -> None:
    late = [trade(number, at=NEW_YEAR + 6 * 60 * MINUTE + number) for number in range(3)]
    with running(StandIn(late)) as exchange:
        found = ask(exchange)
    assert found.since == DAY_BEGINS + timedelta(hours=6)
    assert found.notes[0].startswith("not provable before 2026-11-21 06:00:00Z")


def test_a_trade_from_before_shows_that_the_history_reaches_over_the_moment() -> None:
    early = trade(-5)
    with running(StandIn([early, *TRADES[6:]])) as exchange:
        found = ask(exchange)
    assert (found.since, found.notes) == (DAY_BEGINS, ())


@pytest.mark.parametrize("symbols", [["BTC/USDT"], ["BTC/USDT", "ETH/USDT"]])
def test_an_empty_answer_proves_nothing(symbols: list[str]) -> None:
    with running(StandIn([])) as exchange:
        found = ask(exchange, symbols)
    assert (found.fills, found.since) == ((), None)
    assert "no trade of BTC/USDT at all, which proves nothing" in found.notes[0]


# --- bad weather -------------------------------------------------------------------------------------------------


def test_too_many_requests_stop_everything_at_once_with_the_time_to_wait() -> None:
    fault = always(error(429, -1003, "Too much request weight used", Retry_After="37"))
    said, exchange, raised = failed(fault, replay.ReplayWaitError)
    assert isinstance(raised, replay.ReplayWaitError)
    assert raised.until == NOW + timedelta(seconds=37)
    assert "not before 2026-11-21 20:00:37Z" in said
    assert len(exchange.pages) == 1


def test_a_ban_is_waited_for_to_its_end() -> None:
    until = NEW_YEAR + 22 * 60 * MINUTE
    fault = once(error(418, -1003, f"Way too much request weight used; IP banned until {until}. Please use"), 1)
    said, exchange, raised = failed(fault, replay.ReplayWaitError)
    assert isinstance(raised, replay.ReplayWaitError)
    assert raised.until == DAY_BEGINS + timedelta(hours=22)
    assert "22:00:00Z" in said
    assert len(exchange.pages) == 2


@pytest.mark.parametrize("told", ["soon", "-5", "99999999999", "Wed, 99 Foo 2026 10:00:00 GMT", ""])
def test_a_time_to_wait_that_makes_no_sense_is_none(told: str) -> None:
    said, _, raised = failed(always(error(429, -1003, "Too many", Retry_After=told)), replay.ReplayWaitError)
    assert isinstance(raised, replay.ReplayWaitError)
    assert raised.until is None
    assert "not for some minutes" in said


def test_a_time_to_wait_may_be_a_date() -> None:
    fault = always(error(429, -1003, "Too many", Retry_After="Sat, 21 Nov 2026 21:30:00 GMT"))
    _, _, raised = failed(fault, replay.ReplayWaitError)
    assert isinstance(raised, replay.ReplayWaitError)
    assert raised.until == DAY_BEGINS + timedelta(hours=21.5)


@pytest.mark.parametrize("number", [0, 1])
def test_a_refused_key_is_for_a_person(number: int) -> None:
    """Also after it worked once, where ccxt takes it for a ban."""
    said, exchange, raised = failed(once(error(401, -2015, "Invalid API-key, IP, or permissions for action."), number))
    assert not isinstance(raised, replay.ReplayWaitError)
    assert "refuses the key" in said
    assert "may only read" in said
    assert len(exchange.pages) == number + 1


def test_a_wrong_clock_is_named() -> None:
    said, exchange, _ = failed(always(error(400, -1021, "Timestamp for this request is outside of the recvWindow.")))
    assert "NTP" in said
    assert len(exchange.pages) == 1


@pytest.mark.parametrize("answer", [Answer(503, b"<html>busy</html>"), Answer(500, b"{}")], ids=["503", "500"])
def test_a_passing_trouble_is_asked_again_and_a_lasting_one_named(answer: Answer) -> None:
    with running(StandIn(TRADES, once(answer))) as exchange:
        assert [fill.id for fill in ask(exchange).fills] == ALL
    said, exchange, _ = failed(always(answer))
    assert "could not be reached" in said
    assert len(exchange.pages) == 3


PAGES = {
    "a maintenance page": Answer(200, b"<html><body>We will be back</body></html>", {"Content-Type": "text/html"}),
    "a sentence in JSON": Answer(200, b'"maintenance"'),
    "nothing": Answer(200, b""),
    "half an answer": Answer(200, json.dumps(TRADES).encode()[:-30]),
    "a list of letters": Answer(200, b'["d","o","w","n"]'),
    "trades without anything": Answer(200, json.dumps([{"symbol": "BTCUSDT"}] * 5).encode()),
    "not a number": Answer(200, b'[{"id": NaN, "price": Infinity}]'),
    "deeply nested": Answer(200, b"[" * 100_000 + b"]" * 100_000),
    "truncated": Answer(200, json.dumps(TRADES).encode()[:200], length=5000),
}


@pytest.mark.parametrize("answer", PAGES.values(), ids=PAGES)
def test_what_is_no_page_of_trades_is_never_no_trades(answer: Answer) -> None:
    said, _, _ = failed(always(answer))
    assert "Nothing was taken" in said


def test_a_redirect_is_not_followed_for_the_key_would_go_along() -> None:
    with running(StandIn(TRADES)) as other:
        said, _, _ = failed(always(Answer(302, b"", {"Location": f"{other.base}/api/v3/myTrades"})))
    assert "redirect" in said
    assert other.asked == []


def test_one_odd_row_among_good_ones_is_told_and_not_taken() -> None:
    with running(StandIn([*TRADES, trade(20, price="1e1000000")])) as exchange:
        found = ask(exchange)
    assert [fill.id for fill in found.fills] == ALL
    assert "the price is not a number" in found.quarantined[0].text


@pytest.mark.parametrize(
    "answer", [Answer(silent=60), Answer(200, json.dumps(TRADES).encode(), drip=0.3)], ids=["silent", "dripping"]
)
def test_an_exchange_that_hangs_is_given_up_in_time(answer: Answer) -> None:
    begun = time.monotonic()
    said, _, _ = failed(always(answer), deadline=1.5)
    assert time.monotonic() - begun < 6
    assert "did not answer within 1.5 s" in said


def test_what_came_in_time_is_taken_and_its_end_is_told() -> None:
    def slow(_exchange: StandIn, count: int, _page: list[dict[str, Any]]) -> Answer | None:
        return Answer(silent=60) if count == 4 else None

    with running(StandIn(TRADES, slow, page=3)) as exchange:
        found = ask(exchange, deadline=2.5)
    assert [fill.id for fill in found.fills] == ALL[:9]
    assert found.since == DAY_BEGINS
    assert found.until == found.fills[-1].at
    assert "too slowly" in " ".join(found.notes)


def test_nobody_there_is_named() -> None:
    with running(StandIn([])) as exchange:
        pass
    with pytest.raises(BotkeepError, match="could not be reached"):
        ask(exchange)


def test_a_request_that_was_given_up_sends_nothing_more() -> None:
    with running(StandIn(TRADES, always(Answer(silent=2.5)))) as exchange:
        with pytest.raises(BotkeepError):
            ask(exchange, deadline=1.5)
        threads = [one for one in threading.enumerate() if one.name == "exchange"]
        for thread in threads:
            thread.join(10)
        assert len(exchange.pages) <= 1


# --- configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "environment", "why"),
    [
        ({}, {}, "no STAND_IN_KEY and no STAND_IN_SECRET"),
        ({}, {"STAND_IN_KEY": KEY}, "no STAND_IN_SECRET"),
        ({"password_env": "STAND_IN_PHRASE"}, ENVIRONMENT, "no STAND_IN_PHRASE"),
        ({"secret_env": None}, ENVIRONMENT, "secret_env"),
        ({"id": "binanec"}, ENVIRONMENT, "binance"),
        ({"endpoint": None, "symbols": []}, ENVIRONMENT, "replay.exchange.symbols"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(other: dict[str, Any], environment: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        replay.from_exchange(
            config("http://127.0.0.1:9", **other), symbols=(), since=DAY_BEGINS, now=NOW, environment=environment
        )
    assert KEY not in str(caught.value)


def test_keys_are_hidden_wherever_they_turn_up_and_logged_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="botkeep")
    with (
        running(StandIn(TRADES, always(error(400, -1, f"bad: {KEY} {SECRET}")))) as exchange,
        pytest.raises(BotkeepError) as caught,
    ):
        ask(exchange)
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert untrusted.MARK in str(caught.value)
    assert KEY not in caplog.text


def test_without_a_configured_endpoint_nothing_goes_out_unencrypted() -> None:
    exchange = _client(config("", endpoint=None), {"apiKey": "k", "secret": "s"}, Deadline(5))
    with pytest.raises(Exception, match="not encrypted"):
        exchange.session.request("GET", "http://127.0.0.1:9/api")


def test_with_an_endpoint_nothing_goes_elsewhere() -> None:
    exchange = _client(config("http://127.0.0.1:9"), {"apiKey": "k", "secret": "s"}, Deadline(5))
    for address in ("http://127.0.0.1:8/api", "https://api.binance.com/api", "http://127.0.0.1:9@evil.example/"):
        with pytest.raises(Exception, match="not at the configured endpoint"):
            exchange.session.request("GET", address)


def test_the_heavy_library_is_only_loaded_to_ask() -> None:
    code = "import sys; from botkeep import replay; sys.exit('ccxt' in sys.modules or 'requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_library_it_is_said_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['ccxt'] = None\n"
        "from datetime import datetime, UTC\n"
        "from botkeep import replay\n"
        "from botkeep.config import ExchangeConfig\n"
        "at = datetime(2026, 11, 21, tzinfo=UTC)\n"
        "try:\n"
        "    replay.from_exchange(ExchangeConfig(id='binance', api_key_env='A', secret_env='B'),\n"
        "                         symbols=['BTC/USDT'], since=at, now=at, environment={'A': 'a' * 20, 'B': 'b' * 20})\n"
        "except replay.ReplayWaitError.__mro__[1] as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "botkeep[exchange]"' in done.stdout, done.stderr
