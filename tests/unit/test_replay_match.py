"""Which trades a file has not, by id or by what they say; and which of them cannot be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep import replay
from botkeep.config import Bot, ExchangeConfig, ReplayConfig
from botkeep.formats.base import TradeTable
from botkeep.model import ClosedTrade, Fill, Replay

T0 = datetime(2026, 11, 21, tzinfo=UTC)


def fill(number: int, **other: Any) -> Fill:
    one = Fill(
        at=T0 + timedelta(minutes=number), symbol="BTC/USDT", side="buy", price=Decimal(60000 + number),
        amount=Decimal("0.01"), id=str(1000 + number),
    )  # fmt: skip
    return replace(one, **other)


def closed(number: int, **other: Any) -> ClosedTrade:
    at = T0 + timedelta(minutes=number)
    one = ClosedTrade(at=at, symbol="BTC/USDT", pnl=Decimal(number) / 7, id=str(number), opened=at - timedelta(60))
    return replace(one, **other)


def missing(file: Sequence[Fill], found: Sequence[Fill]) -> Replay:
    return replay.missing(TradeTable("fills", fills=tuple(file)), Replay("exchange", "binance", fills=tuple(found)))


def missing_closed(file: Sequence[ClosedTrade], found: Sequence[ClosedTrade]) -> Replay:
    return replay.missing(TradeTable("closed", closed=tuple(file)), Replay("log", "bot.log", closed=tuple(found)))


FILLS = [fill(number) for number in range(20)]


# --- matching ----------------------------------------------------------------------------------------------------


def test_what_the_file_lost_is_missing_and_nothing_else() -> None:
    kept = FILLS[:5] + FILLS[9:]
    found = missing(kept, FILLS)
    assert list(found.fills) == FILLS[5:9]
    assert (found.source, found.name, found.quarantined, found.notes) == ("exchange", "binance", (), ())
    assert missing(FILLS, FILLS).trades == ()
    assert list(missing([], FILLS).fills) == FILLS


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BTC-USDT", "BTC_USDT", "btc/usdt", "BTC/USDT:USDT"])
@pytest.mark.parametrize("keep_ids", [True, False])
def test_a_symbol_may_be_spelled_otherwise(symbol: str, keep_ids: bool) -> None:
    file = [replace(one, symbol=symbol, id=one.id if keep_ids else "") for one in FILLS]
    assert missing(file, FILLS).trades == ()
    assert list(missing(file[1:], FILLS).fills) == FILLS[:1]


@pytest.mark.parametrize("seconds", [-2, -0.4, 0, 1, 2])
def test_without_ids_times_may_be_two_seconds_apart(seconds: float) -> None:
    file = [replace(one, id="", at=one.at + timedelta(seconds=seconds)) for one in FILLS]
    assert missing(file, FILLS).trades == ()


@pytest.mark.parametrize(
    "change",
    [
        {"at": T0 + timedelta(seconds=2.1)},
        {"side": "sell"},
        {"price": Decimal("60000.1")},
        {"amount": Decimal("0.011")},
    ],
)
def test_without_ids_another_trade_is_another(change: dict[str, Any]) -> None:
    assert len(missing([fill(0, id="", **change)], [fill(0)]).fills) == 1


def test_parts_of_one_order_are_counted_one_by_one() -> None:
    """Same time, price and amount: three on the exchange, two in the file."""
    parts = [fill(0, id=str(number), order_id="9") for number in (1, 2, 3)]
    assert [one.id for one in missing([parts[0], parts[2]], parts).fills] == ["2"]
    without = [replace(one, id="") for one in parts]
    assert len(missing(without[:2], parts).fills) == 1
    assert len(missing(without[:2], without).fills) == 1


def test_where_ids_agree_another_id_is_another_part_of_the_order() -> None:
    parts = [fill(0, id=str(number), order_id="9") for number in (1, 2, 9)]
    assert [one.id for one in missing([parts[0], parts[2]], parts[:2]).fills] == ["2"]


def test_a_file_that_counts_its_own_rows_is_matched_by_what_they_say() -> None:
    file = [replace(one, id=str(number)) for number, one in enumerate(FILLS, 1)]
    assert missing(file, FILLS).trades == ()
    assert list(missing(file[:-3], FILLS).fills) == FILLS[-3:]


def test_row_numbers_that_are_also_ids_of_other_trades_mean_nothing() -> None:
    """The file's row 1003 is the exchange's trade 1000: no id agrees with what the trades say."""
    file = [replace(one, id=str(1003 + number)) for number, one in enumerate(FILLS)]
    found = missing(file, FILLS)
    assert (found.trades, found.quarantined) == ((), ())


def test_an_id_that_is_given_to_another_trade_is_for_a_person() -> None:
    stranger = fill(300, id=FILLS[3].id)
    found = missing(FILLS, [*FILLS, stranger])
    assert found.trades == ()
    assert "has the id of another trade" in found.quarantined[0].text


def test_an_id_holds_where_times_are_read_in_another_zone_or_prices_are_rounded() -> None:
    shifted = [replace(one, at=one.at + timedelta(hours=1)) for one in FILLS]
    rounded = [replace(one, price=Decimal("60000.5"), amount=Decimal("0.009999")) for one in FILLS]
    assert missing(shifted, FILLS).trades == ()
    assert missing(rounded, FILLS).trades == ()


def test_one_market_has_many_names_but_two_markets_are_two() -> None:
    file = [replace(one, market="binance_PaperTrade") for one in FILLS]
    found = [replace(one, market="Binance") for one in FILLS]
    assert missing(file, found).trades == ()
    both = [replace(FILLS[0], market="kraken"), replace(FILLS[1], market="binance")]
    for number in ("", "7"):
        other = replace(FILLS[0], market="binance", id=number)
        assert missing(both, [other]).fills == (other,)


def named(market: str, trades: Sequence[Fill]) -> list[Fill]:
    return [replace(one, market=market) for one in trades]


@pytest.mark.parametrize("market", ["binance_perpetual", ""])
@pytest.mark.parametrize("first", ["exchange", "log"])
def test_what_one_source_added_is_not_missing_when_another_names_the_market_otherwise(market: str, first: str) -> None:
    """The file and the log say `binance_perpetual`, ccxt says `binanceusdm`."""
    file = named(market, FILLS[:8])
    sources = [named("binanceusdm", FILLS), named("binance_perpetual", FILLS)]
    one, other = sources if first == "exchange" else sources[::-1]
    added = missing(file, one).fills
    assert list(added) == named(market, FILLS[8:])
    assert missing([*file, *added], other).trades == ()


def test_closed_trades_get_the_files_name_of_the_market_too() -> None:
    old = [replace(closed(number), market="Gate.io") for number in range(1, 5)]
    found = missing_closed(old[:3], [replace(one, market="gate_io") for one in old])
    assert list(found.closed) == old[3:]


def test_a_file_that_has_one_market_under_two_names_still_knows_its_trades() -> None:
    file = [*named("binance_perpetual", FILLS[:8]), *named("binanceusdm", FILLS[8:10])]
    assert [one.id for one in missing(file, named("binanceusdm", FILLS[:12])).fills] == [one.id for one in FILLS[10:12]]
    assert missing(file, named("binance_perpetual", FILLS[:10])).trades == ()


def test_a_market_that_the_file_spells_otherwise_is_named_as_there() -> None:
    file = [*named("gate_io", FILLS[:4]), *named("kraken", FILLS[4:8])]
    found = missing(file, [*named("gateio", [*FILLS[:4], *FILLS[8:10]]), *named("okx", FILLS[12:13])])
    assert [one.market for one in found.fills] == ["gate_io", "gate_io", "okx"]


def test_two_markets_of_one_log_are_not_put_into_the_only_one_of_the_file() -> None:
    log = [*named("kraken", FILLS[:6]), *named("binance", FILLS[6:9])]
    assert [one.market for one in missing(log[:5], log).fills] == ["kraken", "binance", "binance", "binance"]


def test_an_empty_file_takes_the_names_of_what_comes_first() -> None:
    added = missing([], named("binanceusdm", FILLS[:5])).fills
    assert list(added) == named("binanceusdm", FILLS[:5])
    assert list(missing(added, named("binance_perpetual", FILLS[:6])).fills) == named("binanceusdm", FILLS[5:6])


def test_closed_trades_are_matched_by_id_or_by_result() -> None:
    trades = [closed(number) for number in range(1, 9)]
    assert list(missing_closed(trades[:3] + trades[4:], trades).closed) == [trades[3]]
    own = [replace(one, id="", pnl=round(one.pnl, 2), opened=None) for one in trades]
    assert missing_closed(own, trades).trades == ()
    assert list(missing_closed(own[1:], trades).closed) == trades[:1]


def test_an_id_of_a_new_database_is_not_the_old_trade_of_that_number() -> None:
    old = [closed(number) for number in range(1, 9)]
    new = closed(2, at=T0 + timedelta(days=3), opened=T0 + timedelta(days=2), pnl=Decimal(5))
    found = missing_closed(old, [*old, new])
    assert found.trades == ()
    assert "at 2026-11-24" in found.quarantined[0].text


def test_fills_and_closed_trades_cannot_be_compared_and_none_is_taken() -> None:
    table = TradeTable("closed", closed=(closed(1),))
    found = replay.missing(table, Replay("exchange", "binance", fills=tuple(FILLS)))
    assert found.trades == ()
    assert found.notes == ("20 fills cannot be compared with a file that keeps closed trades",)


@settings(max_examples=60, deadline=None)
@given(
    file=st.lists(st.integers(0, 8), max_size=25),
    more=st.lists(st.integers(0, 8), max_size=25),
    ids=st.booleans(),
)
def test_as_multisets_nothing_is_lost_and_nothing_twice(file: list[int], more: list[int], ids: bool) -> None:
    """The exchange has all of the file and `more`; with the missing ones added the file has exactly the exchange's."""
    whole = [fill(number, id=str(place) if ids else "") for place, number in enumerate([*file, *more])]
    known = whole[: len(file)]
    fresh = missing(known, whole).fills
    assert len(known) + len(fresh) == len(whole)
    assert missing([*known, *fresh], whole).trades == ()


def test_a_hundred_thousand_trades_are_compared_quickly() -> None:
    many = [fill(number) for number in range(50_000)]
    without = [replace(one, id="") for one in many]
    assert list(missing(many[:-10], many).fills) == many[-10:]
    assert len(missing(without[:-10], many).fills) == 10


# --- plausible prices --------------------------------------------------------------------------------------------


def test_a_price_far_from_its_neighbours_is_not_taken() -> None:
    odd = fill(10, price=Decimal("75100"), id="7")
    sound, findings = replay.split([fill(9), odd, fill(11, price=Decimal("74900"))], FILLS)
    assert [one.price for one in sound] == [Decimal(60009), Decimal(74900)]
    assert "Trade 7 of BTC/USDT at 2026-11-21 00:10:00Z is at 75100" in findings[0].text
    assert (findings[0].rule, findings[0].certain) == ("R2", False)


def test_one_wrong_neighbour_changes_nothing() -> None:
    known = [fill(1), fill(2), fill(3, price=Decimal(1)), fill(4), fill(5)]
    assert replay.split([fill(3)], known) == ((fill(3),), ())


def test_a_market_that_moved_far_step_by_step_is_followed() -> None:
    rally = [fill(number, price=Decimal(60000) * (1 + Decimal(number) / 20)) for number in range(30)]
    sound, findings = replay.split(rally, FILLS[:2])
    assert (list(sound), findings) == (rally, ())


def test_the_symbol_is_the_same_in_another_spelling_and_another_symbol_is_no_neighbour() -> None:
    coin = fill(3, symbol="DOGE/USDT", price=Decimal("0.12"))
    assert replay.split([coin], FILLS)[0] == (coin,)
    assert replay.split([replace(coin, symbol="BTC-USDT")], FILLS)[0] == ()


def test_with_nothing_known_the_others_are_the_neighbours() -> None:
    odd = fill(4, price=Decimal(1))
    sound, findings = replay.split([*FILLS[:4], odd, *FILLS[5:]], ())
    assert odd not in sound
    assert (len(sound), len(findings)) == (19, 1)
    assert replay.split([odd], ()) == ((odd,), ())


def test_both_prices_of_a_closed_trade_count() -> None:
    known = [closed(number, entry=Decimal(100), exit=Decimal(101)) for number in range(5)]
    good = closed(6, entry=Decimal(90), exit=Decimal(110))
    for odd in (replace(good, entry=Decimal(9)), replace(good, exit=Decimal(1010))):
        assert replay.split([good, odd], known)[0] == (good,)


@pytest.mark.parametrize("change", [{"price": Decimal(0)}, {"amount": Decimal(-1)}])
def test_what_is_not_above_zero_is_never_taken(change: dict[str, Decimal]) -> None:
    assert replay.split([fill(3, **change)], FILLS)[0] == ()


# --- where from --------------------------------------------------------------------------------------------------

EXCHANGE = ExchangeConfig(id="binance", api_key_env="KEY", secret_env="SECRET")
LOG = Path("/tmp/bot.log")


def bot(**told: Any) -> Bot:
    return Bot(name="doge").model_copy(update=told)


def test_what_is_configured_is_told() -> None:
    told = replay.sources(bot(log_file=LOG, replay=ReplayConfig(grammar="jsonl", exchange=EXCHANGE)))
    assert told == replay.Sources(LOG, "jsonl", EXCHANGE, "")


@pytest.mark.parametrize("profile", ["freqtrade", "hummingbot"])
def test_the_profile_says_how_trades_stand_in_the_log(profile: str) -> None:
    told = replay.sources(bot(log_file=LOG, profile=profile))
    assert (told.log, told.grammar, told.why_not) == (LOG, profile, "")


def test_a_log_of_its_own_comes_before_the_bots() -> None:
    own = ReplayConfig(log=Path("/tmp/events.jsonl"), grammar="jsonl")
    assert replay.sources(bot(log_file=LOG, replay=own)).log == Path("/tmp/events.jsonl")


def test_no_exchange_knows_what_is_traded_on_paper() -> None:
    told = replay.sources(bot(paper=True, replay=ReplayConfig(exchange=EXCHANGE)))
    assert (told.log, told.exchange) == (None, None)
    assert "doge trades on paper: no exchange knows its trades. No log of doge is configured" in told.why_not


def test_with_neither_it_is_said_what_to_configure() -> None:
    assert "set log_file or replay.log. No exchange is configured" in replay.sources(bot()).why_not
    assert '"replay": {"grammar"' in replay.sources(bot(log_file=LOG)).why_not
