"""Realised P&L, exact: against a known truth, and against sums done by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep.formats import FORMATS, FormatOptions, TradeTable
from botkeep.formats.columns import split_symbol
from botkeep.model import ClosedTrade, Fill, UsageError
from botkeep.pnl import PnlFigures, figures, rounded
from support.trade_files import DATA

START = datetime(2026, 11, 21, tzinfo=UTC)
TRUTH = json.loads((DATA / "custom/truth.json").read_text())
Line = tuple[str, str, str] | tuple[str, str, str, str, str]


def fills(*lines: Line, symbol: str = "BTCUSDT") -> TradeTable:
    """Fills a minute apart: (side, amount, price[, fee, its currency])."""
    made = [
        Fill(
            at=START + timedelta(minutes=minute),
            symbol=symbol,
            side=line[0],
            amount=Decimal(line[1]),
            price=Decimal(line[2]),
            fee=Decimal(line[3]) if len(line) > 3 else Decimal(0),
            fee_currency=line[4] if len(line) > 3 else "",
            quote=split_symbol(symbol)[1],
        )
        for minute, line in enumerate(lines)
    ]
    return TradeTable("fills", tuple(made))


def realised(*lines: Line, method: str = "fifo") -> Decimal:
    return figures("bot", fills(*lines), method=method).realised


def real_fills(name: str = "custom/fills.csv") -> TradeTable:
    return FORMATS["csv"].trades(DATA / name, options=FormatOptions())


# --- the truth ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["custom/fills.csv", "custom/fills_noheader.csv"])
def test_fifo_of_real_fills_equals_the_truth_to_the_last_digit(name: str) -> None:
    found = figures("bot", real_fills(name))
    assert str(rounded(found.realised)) == TRUTH["pnl_fifo_total"]
    assert {one.symbol: str(rounded(one.realised)) for one in found.symbols} == TRUTH["pnl_fifo"]
    assert {one.symbol: str(one.amount) for one in found.positions} == TRUTH["open_qty"]
    assert (found.currency, found.trades, found.wins + found.losses) == ("USDT", TRUTH["closed"], TRUTH["closed"])


def test_average_cost_of_real_fills_equals_the_truth_to_the_last_digit() -> None:
    found = figures("bot", real_fills(), method="average")
    assert str(rounded(found.realised)) == TRUTH["pnl_average_cost_total"]
    assert {one.symbol: str(one.amount) for one in found.positions} == TRUTH["open_qty"]


def test_results_that_the_bot_wrote_are_summed_as_they_are() -> None:
    found = figures("bot", real_fills("custom/closed_trades.csv"))
    assert (str(found.realised), found.trades, found.method) == (TRUTH["pnl_fifo_total"], TRUTH["closed"], "closed")


def test_a_market_makers_own_file_gives_its_fees_and_its_open_position() -> None:
    found = figures("bot", real_fills("hummingbot/trades_conf_simple_pmm_1.csv"))
    assert (found.currency, str(found.fees), found.positions[0].amount) == ("USDT", "10.933646", Decimal("0.05"))
    cash = sum(
        (one.price * one.amount if one.side == "sell" else -one.price * one.amount) - one.fee
        for one in real_fills("hummingbot/trades_conf_simple_pmm_1.csv").fills
    )
    held = found.positions[0].amount * found.positions[0].average_price
    assert found.realised == cash + held, "what came in, less what is still out"


# --- by hand -----------------------------------------------------------------------------------------------------


def test_the_first_lot_in_is_the_first_one_out_and_average_cost_takes_both() -> None:
    lines = [("buy", "1", "100"), ("buy", "1", "200"), ("sell", "1", "250")]
    assert realised(*lines) == 150
    assert realised(*lines, method="average") == 100


def test_a_partial_close_leaves_the_rest_of_its_lot() -> None:
    found = figures("bot", fills(("buy", "3", "100"), ("sell", "1", "130"), ("sell", "1", "90")))
    assert (found.realised, found.trades, found.wins, found.losses) == (20, 2, 1, 1)
    assert (found.positions[0].amount, found.positions[0].average_price) == (1, 100)


def test_a_fee_in_base_lowers_what_was_bought_and_one_in_quote_what_came_in() -> None:
    lines = [("buy", "1", "100", "0.1", "BTC"), ("sell", "0.9", "200", "2", "USDT")]
    found = figures("bot", fills(*lines))
    assert found.realised == Decimal("0.9") * 200 - 2 - 100
    assert found.fees == Decimal("0.1") * 100 + 2
    assert found.positions == ()


def test_a_fee_in_quote_on_a_buy_makes_it_dearer() -> None:
    assert realised(("buy", "1", "100", "1", "USDT"), ("sell", "1", "100", "1", "USDT")) == -2


def test_a_fee_in_base_on_a_sell_takes_from_the_position_too() -> None:
    found = figures("bot", fills(("buy", "2", "100"), ("sell", "1", "150", "1", "BTC")))
    assert (found.realised, found.positions) == (-50, ())


def test_fees_in_a_third_currency_are_listed_apart() -> None:
    found = figures("bot", fills(("buy", "1", "100", "0.001", "BNB"), ("sell", "1", "110", "0.002", "BNB")))
    assert (found.realised, found.fees, found.other_fees) == (10, 0, (("BNB", Decimal("0.003")),))
    assert "fees of 0.003 BNB are in no figure" in found.notes


def test_a_sell_first_opens_a_short() -> None:
    found = figures("bot", fills(("sell", "2", "100", "1", "USDT"), ("buy", "1", "90")))
    assert found.realised == Decimal("9.5")
    assert (found.positions[0].amount, found.positions[0].average_price) == (-1, Decimal("99.5"))
    assert any("taken as a short" in note for note in found.notes)


def test_a_fill_through_zero_closes_and_opens() -> None:
    found = figures("bot", fills(("buy", "1", "100"), ("sell", "3", "120", "3", "USDT"), ("buy", "2", "110")))
    assert found.realised == (120 - 1 - 100) + 2 * (119 - 110)
    assert (found.trades, found.positions) == (2, ())


def test_a_lot_divided_into_thirds_loses_nothing() -> None:
    lines: list[Line] = [("buy", "3", "100", "0.1", "USDT"), *[("sell", "1", "0")] * 3]
    assert realised(*lines) == Decimal("-300.1")


@pytest.mark.parametrize("method", ["fifo", "average"])
@pytest.mark.parametrize("names", [("Binance", "binance"), ("gate_io", "gateio"), ("gate_io", "Gate.io")])
def test_a_market_that_is_spelled_in_two_ways_has_one_book_under_its_first_name(
    names: tuple[str, str], method: str
) -> None:
    lines: list[Line] = [("buy", "1", "100"), ("sell", "2", "110", "1", "USDT"), ("sell", "1", "120")]
    made = zip(fills(*lines).fills, (*names, names[0]), strict=True)
    found = figures(
        "bot", TradeTable("fills", tuple(replace(one, market=market) for one, market in made)), method=method
    )
    assert (found.realised, found.trades, found.fees) == (Decimal("9.5"), 1, 1)
    assert [(one.market, one.trades) for one in found.symbols] == [(names[0], 1)]
    assert [(one.market, one.amount) for one in found.positions] == [(names[0], -2)]
    assert found.notes == (), "no sell was the first fill of a market"


def test_closed_trades_of_a_market_that_is_spelled_in_two_ways_are_one_line() -> None:
    made = [ClosedTrade(START, "BTC/USDT", Decimal(3), currency="USDT", market=name) for name in ("Kraken", "kraken")]
    found = figures("bot", TradeTable("closed", closed=tuple(made)))
    assert [(one.market, one.realised, one.trades) for one in found.symbols] == [("Kraken", 6, 2)]


def test_markets_and_symbols_have_books_of_their_own_and_currencies_are_never_added_up() -> None:
    euro = fills(("buy", "1", "10"), ("sell", "1", "14"), symbol="ETH-EUR")
    dollar = fills(("buy", "1", "100"), ("sell", "1", "101"), ("buy", "1", "7"), symbol="BTC/USDT:USDT")
    other = [Fill(START, "BTC/USDT:USDT", "sell", Decimal(50), Decimal(1), market="kraken", quote="USDT")]
    found = figures(
        "bot", TradeTable("fills", euro.fills + dollar.fills + tuple(other)), capital=Decimal(10), currency="EUR"
    )
    assert [(one.currency, one.realised, one.percent) for one in found.currencies] == [
        ("EUR", 4, 40),
        ("USDT", 1, None),
    ]
    assert [(one.market, one.amount) for one in found.positions] == [("", 1), ("kraken", -1)]


def test_a_percentage_needs_capital_in_the_same_currency() -> None:
    table = fills(("buy", "1", "100"), ("sell", "1", "112"))
    assert figures("bot", table).percent is None
    assert figures("bot", table, capital=Decimal(400)).percent == 3
    assert figures("bot", table, capital=Decimal(400), currency="usdt").percent == 3
    other = figures("bot", table, capital=Decimal(400), currency="EUR")
    assert other.percent is None
    assert "no percentage: the capital is in EUR, the trades are not" in other.notes


def test_the_window_counts_its_closings_and_knows_what_was_bought_before() -> None:
    table = fills(("buy", "2", "100"), ("sell", "1", "110"), ("sell", "1", "130"), ("buy", "1", "50"))

    def within(since: int | None, until: int | None) -> PnlFigures:
        minute = [None if one is None else START + timedelta(minutes=one) for one in (since, until)]
        return figures("bot", table, since=minute[0], until=minute[1])

    assert [within(*one).realised for one in ((None, None), (2, None), (1, 2), (3, None), (None, 2))] == [
        40,
        30,
        10,
        0,
        10,
    ]
    assert [len(within(None, one).positions) for one in (0, 1, 3, 4)] == [0, 1, 0, 1]


def test_fills_out_of_order_are_put_in_order_and_equal_times_kept_as_written() -> None:
    lines = fills(("buy", "1", "100"), ("sell", "1", "150"), ("buy", "1", "10")).fills
    assert figures("bot", TradeTable("fills", tuple(reversed(lines)))).realised == 50
    together = tuple(Fill(START, one.symbol, one.side, one.price, one.amount, quote="USDT") for one in lines)
    assert figures("bot", TradeTable("fills", together)).realised == 50


@pytest.mark.parametrize(
    ("results", "drawdown"), [([], 0), ([5, -2, 1], 2), ([-3, -1, 10], 4), ([10, -4, 3, -6, 20, -1], 7), ([1, 2], 0)]
)
def test_the_drawdown_is_the_deepest_fall_from_the_highest_point(results: Sequence[int], drawdown: int) -> None:
    closed = tuple(ClosedTrade(START + timedelta(hours=n), "X", Decimal(one)) for n, one in enumerate(results))
    found = figures("bot", TradeTable("closed", closed=closed), currency="USD")
    assert (found.drawdown, found.realised, found.currency) == (drawdown, sum(results), "USD")


def test_a_currency_that_nobody_names_is_said_to_be_unknown() -> None:
    table = TradeTable("closed", closed=(ClosedTrade(START, "X", Decimal(1)),))
    found = figures("bot", table)
    assert found.currency == "?"
    assert any("set `currency`" in note for note in found.notes)


def test_no_trades_are_zero_not_an_error() -> None:
    found = figures("bot", TradeTable("fills"), capital=Decimal(100), currency="USDT")
    assert (found.realised, found.trades, found.win_rate, found.percent, found.currency) == (0, 0, None, 0, "USDT")


def test_amounts_beyond_all_money_are_rounded_as_any_other() -> None:
    """The grammar of numbers allows 1e99: a figure of it is nonsense, but no reason to fail."""
    huge = figures("bot", fills(("buy", "1e99", "1e99"), ("sell", "1e99", "3e99"))).realised
    assert rounded(huge) == Decimal("2e198")
    assert rounded(Decimal("1e-99")) == 0


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="fifo, average"):
        figures("bot", TradeTable("fills"), method="lifo")


@pytest.mark.parametrize(
    ("symbol", "pair"),
    [
        ("BTCUSDT", ("BTC", "USDT")),
        ("btc/usdt", ("BTC", "USDT")),
        ("BTC-USDT", ("BTC", "USDT")),
        ("BTC/USDT:USDT", ("BTC", "USDT")),
        ("ETHBTC", ("ETH", "BTC")),
        ("DOGEFDUSD", ("DOGE", "FDUSD")),
        ("BNBEUR", ("BNB", "EUR")),
        ("USDCUSDT", ("USDC", "USDT")),
        ("USDT", ("USDT", "")),
        ("ACME", ("ACME", "")),
        ("", ("", "")),
    ],
)
def test_symbols_say_base_and_quote(symbol: str, pair: tuple[str, str]) -> None:
    assert split_symbol(symbol) == pair


_AMOUNT = st.integers(1, 50).map(lambda n: Decimal(n) / 10)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["buy", "sell"]), _AMOUNT, _AMOUNT, _AMOUNT, st.sampled_from(["USDT", "BTC"])),
        max_size=30,
    ),
    st.sampled_from(["fifo", "average"]),
)
def test_nothing_is_lost_between_result_and_what_is_still_held(
    drawn: list[tuple[str, Decimal, Decimal, Decimal, str]], method: str
) -> None:
    """However the fills are matched: realised = money in - money out + cost of what is held."""
    made = [
        Fill(START + timedelta(minutes=n), "BTCUSDT", side, price, amount, fee / 1000, asset, quote="USDT")
        for n, (side, amount, price, fee, asset) in enumerate(drawn)
    ]
    found = figures("bot", TradeTable("fills", tuple(made)), method=method)
    cash = sum((one.price * one.amount * (1 if one.side == "sell" else -1) for one in made), Decimal(0))
    cash -= sum((one.fee for one in made if one.fee_currency == "USDT"), Decimal(0))
    held = sum((one.amount * one.average_price for one in found.positions), Decimal(0))
    assert rounded(found.realised, 20) == rounded(cash + held, 20)
    coins = sum((one.amount * (1 if one.side == "buy" else -1) for one in made), Decimal(0))
    coins -= sum((one.fee for one in made if one.fee_currency == "BTC"), Decimal(0))
    assert sum((one.amount for one in found.positions), Decimal(0)) == coins
