"""P&L by symbol, day and currency: windows, zones, rates and the statistics, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep.formats import TradeTable
from botkeep.model import ClosedTrade, Fill
from botkeep.pnl import CurrencyFigures, Mark, UsedRate, figures
from botkeep.pnl_sums import MAX_POINTS, CurrencySum, thinned

START = datetime(2026, 11, 21, tzinfo=UTC)


def closed(*results: str | int, hours: float = 1, **more: Any) -> TradeTable:
    """Closed trades with these results, so many hours apart."""
    made = [
        ClosedTrade(START + timedelta(hours=n * hours), "BTC/USDT", Decimal(one), "USDT", **more)
        for n, one in enumerate(results)
    ]
    return TradeTable("closed", closed=tuple(made))


def fill(minute: int, side: str, price: str, fee: str = "0", asset: str = "", **more: Any) -> Fill:
    at = START + timedelta(minutes=minute)
    given = {"symbol": "BTCUSDT", "quote": "USDT"} | more
    return Fill(at, side=side, price=Decimal(price), amount=Decimal(1), fee=Decimal(fee), fee_currency=asset, **given)


# --- statistics --------------------------------------------------------------------------------------------------


def main(*results: str | int, **more: Any) -> CurrencyFigures:
    return figures("bot", closed(*results), **more).main


def test_profit_factor_is_what_was_won_over_what_was_lost() -> None:
    found = main(6, -2, 3, -1)
    assert (found.gross_profit, found.gross_loss, found.profit_factor) == (9, 3, 3)


def test_without_losses_there_is_no_profit_factor_and_without_either_no_ratio() -> None:
    assert (main(1, 2).profit_factor, main(1, 2).expectancy_ratio, main(-1).expectancy_ratio) == (None, None, None)
    assert (main(-1).profit_factor, main().profit_factor, main().expectancy) == (0, None, None)


def test_expectancy_is_the_average_and_its_ratio_that_over_the_average_loss() -> None:
    """W = 1/2, average win 4, average loss 2: 0.5 x 4 - 0.5 x 2 = 1, and (1 + 4/2) x 0.5 - 1 = 0.5."""
    found = main(6, -3, 2, -1)
    assert (found.win_rate, found.expectancy, found.expectancy_ratio) == (Decimal("0.5"), 1, Decimal("0.5"))


def test_a_result_of_zero_is_neither_won_nor_lost() -> None:
    found = main(1, 0, 0, -1)
    assert (found.trades, found.wins, found.losses, found.win_rate) == (4, 1, 1, Decimal("0.25"))


def test_the_drawdown_has_a_beginning_and_an_end_and_a_share_of_what_was_there() -> None:
    found = main(10, -4, 3, -6, 22, -5, capital=Decimal(90))
    assert (found.drawdown, found.drawdown_percent) == (7, 7)
    assert (found.drawdown_from, found.drawdown_to) == (START, START + timedelta(hours=3))
    assert found.drawdown_now == 5
    assert main(10, -5, capital=Decimal(90)).drawdown_now_percent == 5


def test_a_fall_from_the_very_start_begins_at_the_first_result() -> None:
    found = main(-3, -1, 10, capital=Decimal(100))
    assert (found.drawdown, found.drawdown_from, found.drawdown_to) == (4, START, START + timedelta(hours=1))
    assert found.drawdown_percent == 4


def test_of_two_equal_highs_the_fall_begins_at_the_first_as_freqtrade_says() -> None:
    found = main(10, -1, 1, -6)
    assert (found.drawdown, found.drawdown_from, found.drawdown_to) == (6, START, START + timedelta(hours=3))


def test_without_a_fall_or_without_capital_there_is_no_share() -> None:
    assert (main(1, 2).drawdown_from, main(1, 2).drawdown_to, main(1, -2).drawdown_percent) == (None, None, None)


def test_the_bots_own_ratios_and_stakes_make_a_mean_and_a_pairs_ratio() -> None:
    found = figures("bot", closed(1, -2, stake=Decimal(50), ratio=Decimal("0.03")))
    assert (found.main.ratio_mean, found.symbols[0].ratio) == (Decimal("0.03"), Decimal(-1) / 100)
    assert figures("bot", closed(1, -2)).main.ratio_mean is None
    assert figures("bot", TradeTable("fills", (fill(0, "buy", "1"), fill(1, "sell", "2")))).main.ratio_mean is None


def test_the_volume_is_of_executions_within_the_window() -> None:
    known = {"amount": Decimal(2), "entry": Decimal(100), "exit": Decimal(110)}
    table = closed(20, 20, opened=START, **known)
    assert figures("bot", table).main.volume == 840
    assert figures("bot", table, since=START + timedelta(minutes=1)).main.volume == 220, "one exit is in it"
    assert figures("bot", closed(1)).main.volume is None, "the file does not say"
    fills = TradeTable("fills", (fill(0, "buy", "100"), fill(1, "sell", "110")))
    assert figures("bot", fills).main.volume == 210
    assert figures("bot", fills, since=START + timedelta(minutes=1)).main.volume == 110


# --- days and symbols --------------------------------------------------------------------------------------------


def days(table: TradeTable, zone: str = "UTC", **more: Any) -> list[tuple[str, int, Decimal]]:
    found = figures("bot", table, zone=ZoneInfo(zone), **more)
    return [(str(one.day), one.trades, one.realised) for one in found.days]


def test_days_are_those_of_the_persons_zone() -> None:
    """Three o'clock in the night in UTC is the evening before in New York."""
    table = closed(1, 2, 4, hours=3)
    assert days(table) == [("2026-11-21", 3, Decimal(7))]
    assert days(table, "America/New_York") == [("2026-11-20", 2, Decimal(3)), ("2026-11-21", 1, Decimal(4))]
    assert days(table, "Pacific/Auckland") == [("2026-11-21", 3, Decimal(7))]


def test_a_day_of_25_hours_is_one_day() -> None:
    """Berlin put its clocks back on 25 October 2026."""
    begins = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)
    made = tuple(ClosedTrade(begins + timedelta(minutes=30 * n), "X", Decimal(1), "EUR") for n in range(52))
    assert days(TradeTable("closed", closed=made), "Europe/Berlin") == [
        ("2026-10-25", 50, Decimal(50)),
        ("2026-10-26", 2, Decimal(2)),
    ]


def test_the_days_of_a_window_add_up_to_it_fees_and_all() -> None:
    table = TradeTable(
        "fills", tuple(fill(n * 700, "sell" if n % 2 else "buy", str(100 + n % 7), "0.1", "USDT") for n in range(60))
    )
    found = figures("bot", table, since=START + timedelta(days=2), zone=ZoneInfo("Asia/Tokyo"))
    assert sum(one.realised for one in found.days) == found.realised
    assert sum(one.fees for one in found.days) == found.fees
    assert sum(one.trades for one in found.days) == found.trades
    assert found.days[0].day >= date(2026, 11, 23)
    assert len(found.days) > 20


def test_a_day_on_which_only_fees_were_paid_is_a_day() -> None:
    found = figures("bot", TradeTable("fills", (fill(0, "buy", "100", "1", "USDT"),)))
    assert [(one.realised, one.fees, one.trades) for one in found.days] == [(0, 1, 0)]
    assert found.symbols == ()


def test_a_time_at_the_end_of_the_calendar_has_a_day_in_every_zone() -> None:
    """moment() takes 9999-12-31, which in Auckland is after the last day there is."""
    last = datetime(9999, 12, 31, 23, tzinfo=UTC)
    table = TradeTable("closed", closed=(ClosedTrade(last, "X", Decimal(1)), ClosedTrade(last, "X", Decimal(1))))
    assert days(table, "Pacific/Auckland") == [("9999-12-31", 2, Decimal(2))]
    assert days(table) == [("9999-12-31", 2, Decimal(2))]


def test_each_symbol_has_its_wins_losses_and_fees() -> None:
    made = (fill(0, "buy", "100", "1", "USDT"), fill(1, "sell", "110", "1", "USDT"))
    other = tuple(fill(n, side, "5", "0.5", "USDT", symbol="ADAUSDT") for n, side in ((2, "buy"), (3, "sell")))
    found = figures("bot", TradeTable("fills", made + other))
    assert [(one.symbol, one.realised, one.wins, one.losses, one.fees) for one in found.symbols] == [
        ("ADAUSDT", -1, 0, 1, 1),
        ("BTCUSDT", 8, 1, 0, 2),
    ]
    assert found.best_symbol == found.symbols[1]


# --- currencies --------------------------------------------------------------------------------------------------


def test_a_rate_makes_fees_in_a_third_currency_count_and_is_shown() -> None:
    table = TradeTable("fills", (fill(0, "buy", "100", "0.001", "BNB"), fill(1, "sell", "110", "0.002", "BNB")))
    seen = Mark(Decimal(600), "binance, 2026-11-21")
    found = figures("bot", table, rates={("bnb", "usdt"): seen})
    assert (found.realised, found.fees, found.other_fees) == (10 - Decimal("1.8"), Decimal("1.8"), ())
    assert found.rates == (UsedRate("BNB", "USDT", seen),)
    assert "fees in BNB are counted at 600 USDT (binance, 2026-11-21)" in found.notes
    assert not any("in no figure" in note for note in found.notes)


def test_a_rate_for_another_currency_is_not_used_nor_turned_round() -> None:
    table = TradeTable("fills", (fill(0, "buy", "100", "0.001", "BNB"),))
    found = figures("bot", table, rates={("BNB", "EUR"): Decimal(5), ("USDT", "BNB"): Decimal("0.001")})
    assert (found.rates, found.other_fees) == ((), (("BNB", Decimal("0.001")),))


def two_currencies() -> TradeTable:
    euro = tuple(fill(n, side, price, symbol="ETH-EUR", quote="EUR") for n, side, price in ((0, "buy", "10"),))
    euro += (fill(1, "sell", "14", "1", "EUR", symbol="ETH-EUR", quote="EUR"),)
    return TradeTable("fills", (*euro, fill(2, "buy", "100"), fill(3, "sell", "102")))


def test_currencies_are_added_up_only_with_a_rate_for_each_and_it_is_shown() -> None:
    assert figures("bot", two_currencies(), currency="USDT").together is None
    wrong = figures("bot", two_currencies(), currency="USDT", rates={("USDT", "EUR"): Decimal("0.8")})
    assert wrong.together is None
    found = figures("bot", two_currencies(), currency="USDT", rates={("EUR", "USDT"): Decimal("1.25")}).together
    assert found is not None
    assert (found.currency, found.realised, found.fees) == ("USDT", 2 + 3 * Decimal("1.25"), Decimal("1.25"))
    assert found.rates == (UsedRate("EUR", "USDT", Mark(Decimal("1.25"))),)


def test_one_currency_alone_is_not_together() -> None:
    assert figures("bot", closed(1), rates={("EUR", "USDT"): Decimal(1)}).together is None


@pytest.mark.parametrize("market", ["binance_PaperTrade", "binance_paper_trade", "kucoin_paper_trade"])
def test_paper_markets_of_hummingbot_are_known_by_name(market: str) -> None:
    table = TradeTable("fills", (fill(0, "buy", "100", "0.1", "USDT", market=market),))
    assert any(f"less for {market}" in note for note in figures("bot", table).notes)
    without = TradeTable("fills", (fill(0, "buy", "100", market=market), fill(1, "sell", "1", "1", "USDT", market="b")))
    assert not any("history" in note for note in figures("bot", without).notes)


# --- the curve ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=400))
def test_a_thinned_curve_keeps_its_ends_and_its_extremes(values: list[int]) -> None:
    points = [(START + timedelta(seconds=n), Decimal(one)) for n, one in enumerate(values)]
    kept = thinned(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert min(value for _, value in kept) == min(values)
    assert max(value for _, value in kept) == max(values)
    assert [at for at, _ in kept] == sorted({at for at, _ in kept})
    assert len(kept) <= len(points) // 4 + 4


def test_a_curve_of_very_many_results_stays_small_and_keeps_the_deepest_point() -> None:
    whole = CurrencySum()
    for number in range(50_000):
        whole.add_at(START + timedelta(seconds=number), Decimal(-500 if number == 31_337 else (number % 3) - 1))
    assert MAX_POINTS // 5 < len(whole.curve) < MAX_POINTS
    lowest = min(value for _, value in whole.curve)
    assert lowest == whole.high - whole.drawdown
    assert whole.curve[-1][0] > START + timedelta(seconds=49_000)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60), st.integers(1, 500))
def test_the_statistics_are_those_of_their_definitions(results: Sequence[int], capital: int) -> None:
    found = main(*results, capital=Decimal(capital))
    stands = [sum(results[: n + 1]) for n in range(len(results))]
    falls = [max(0, *stands[: n + 1]) - one for n, one in enumerate(stands)]
    wins, losses = [one for one in results if one > 0], [-one for one in results if one < 0]
    assert (found.drawdown, found.drawdown_now) == (max(falls), falls[-1])
    assert (found.gross_profit, found.gross_loss) == (sum(wins), sum(losses))
    assert float(found.expectancy or 0) == pytest.approx(sum(results) / len(results))
    if wins and losses:
        assert found.expectancy_ratio is not None
        average = (sum(wins) / len(wins)) / (sum(losses) / len(losses))
        assert float(found.expectancy_ratio) == pytest.approx((1 + average) * len(wins) / len(results) - 1)
