"""What is open, valued at given prices: sums done by hand for leverage, shorts, funding and partial exits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botkeep.formats import FORMATS, TradeTable
from botkeep.formats.base import FormatOptions
from botkeep.model import ClosedTrade, Fill, OpenTrade, UsageError
from botkeep.pnl import Mark, OpenPosition, figures, last_prices, rounded
from botkeep.positions import closing_value, open_result, opening_value

START = datetime(2026, 11, 21, tzinfo=UTC)


def trade(**more: Any) -> OpenTrade:
    """Ten coins from 100 USDT, with a fee of 1 % at both ends: easy to check in one's head."""
    given: dict[str, Any] = {
        "at": START,
        "symbol": "SOL/USDT",
        "side": "long",
        "amount": Decimal(10),
        "entry": Decimal(100),
        "currency": "USDT",
        "id": "1",
        "fee_open": Decimal("0.01"),
        "fee_close": Decimal("0.01"),
    }
    return OpenTrade(**given | more)


def only(*trades: OpenTrade, mark: str = "110", **more: Any) -> OpenPosition:
    marks = {"SOL/USDT": Decimal(mark)}
    (position,) = figures("bot", TradeTable("closed", open=trades), marks=marks, **more).positions
    return position


def test_a_long_gains_what_the_price_rose_less_both_fees() -> None:
    """Opened for 1000 + 10; would close for 1100 - 11."""
    assert open_result(trade(), Decimal(110)) == (79, Decimal(79) / 1010)


def test_a_short_gains_what_the_price_fell_less_both_fees() -> None:
    """Opened for 1000 - 10; would close for 900 + 9."""
    short = trade(side="short")
    assert (opening_value(short), closing_value(short, Decimal(90))) == (990, 909)
    assert open_result(short, Decimal(90)) == (81, Decimal(81) / 990)
    assert open_result(short, Decimal(110))[0] == 990 - 1111


def test_leverage_multiplies_the_ratio_and_not_the_money() -> None:
    """The amounts are of the whole position already: ten coins, whoever lent the money for them."""
    profit, ratio = open_result(trade(leverage=Decimal(5)), Decimal(110))
    assert (profit, ratio) == (79, Decimal(79) / 1010 * 5)
    profit, ratio = open_result(trade(leverage=Decimal(3), side="short"), Decimal(90))
    assert (profit, ratio) == (81, Decimal(81) / 990 * 3)


@pytest.mark.parametrize("side", ["long", "short"])
@pytest.mark.parametrize("funding", ["-2.5", "4"])
def test_funding_that_was_received_is_gained_and_what_was_paid_is_lost_on_both_sides(side: str, funding: str) -> None:
    without = open_result(trade(side=side), Decimal(105))[0]
    assert open_result(trade(side=side, funding=Decimal(funding)), Decimal(105))[0] == without + Decimal(funding)


def test_the_opening_value_that_the_bot_wrote_comes_before_our_own() -> None:
    """It rounds each order's fee, so its value may differ in the last digits from rate x amount."""
    assert open_result(trade(value=Decimal("1009.5")), Decimal(110))[0] == Decimal("79.5")


def test_without_a_value_there_is_no_ratio() -> None:
    assert open_result(trade(value=Decimal(0)), Decimal(1)) == (Decimal("9.9"), None)


def test_parts_that_were_closed_already_are_apart_from_what_is_realised() -> None:
    """As freqtrade counts: profit_closed_coin knows closed trades only, profit_all_coin the parts too."""
    table = TradeTable(
        "closed",
        closed=(ClosedTrade(START, "SOL/USDT", Decimal(5), "USDT"),),
        open=(trade(amount=Decimal(4), realised=Decimal("20.5"), value=Decimal(404)),),
    )
    found = figures("bot", table, marks={"SOL/USDT": Decimal(110)}, capital=Decimal(1000), currency="USDT")
    rest = Decimal("4") * 110 * Decimal("0.99") - 404
    assert (found.realised, found.main.open_realised, found.unrealised) == (5, Decimal("20.5"), rest)
    assert found.main.total == 5 + Decimal("20.5") + rest
    assert found.positions[0].realised == Decimal("20.5")
    assert "20.5 USDT more were realised by partial exits of trades that are still open" in found.notes
    assert found.percent == Decimal("0.5"), "of what is realised"


def test_parts_of_several_open_trades_are_added_up() -> None:
    table = TradeTable("closed", open=(trade(realised=Decimal(2)), trade(realised=Decimal(3), id="2")))
    assert figures("bot", table).main.open_realised == 5


def test_what_was_opened_counts_for_the_volume_if_that_was_in_the_window() -> None:
    table = TradeTable("closed", open=(trade(),))
    assert figures("bot", table, marks={"SOL/USDT": Decimal(110)}).main.volume == 1000
    later = figures("bot", table, marks={"SOL/USDT": Decimal(110)}, since=START + timedelta(hours=1))
    assert (later.main.volume, later.unrealised) == (0, 79)


def test_a_position_shows_its_mark_and_where_that_is_from() -> None:
    seen = Mark(Decimal(110), "kraken, its ticker", START)
    table = TradeTable("closed", open=(trade(side="short", id="7", leverage=Decimal(2), market="kraken"),))
    (position,) = figures("bot", table, marks={"sol-usdt": seen}).positions
    assert (position.amount, position.average_price, position.currency) == (-10, 100, "USDT")
    assert (position.mark, position.id, position.opened, position.market) == (seen, "7", START, "kraken")
    assert (position.unrealised, position.leverage) == (-121, 2)


def test_a_price_given_bare_is_said_to_be_given() -> None:
    assert only(trade()).mark == Mark(Decimal(110), "given")


def test_a_future_is_not_valued_at_the_price_of_the_coin_itself() -> None:
    table = TradeTable("closed", open=(trade(symbol="SOL/USDT:USDT"),))
    found = figures("bot", table, marks={"SOL/USDT": Decimal(110)})
    assert found.positions[0].unrealised is None
    assert "there is no mark for SOL/USDT:USDT: what is open of it is not valued" in found.notes


def test_one_missing_mark_leaves_the_whole_unknown_but_not_the_parts() -> None:
    table = TradeTable("closed", open=(trade(), trade(symbol="ADA/USDT")))
    found = figures("bot", table, marks={"SOL/USDT": Decimal(110)})
    assert [one.unrealised for one in found.positions] == [None, 79]
    assert (found.unrealised, found.main.total) == (None, None)


def test_nothing_open_is_worth_nothing_and_the_total_is_what_was_realised() -> None:
    closed = TradeTable("closed", closed=(ClosedTrade(START, "SOL/USDT", Decimal(5), "USDT"),))
    found = figures("bot", closed)
    assert (found.unrealised, found.main.total) == (0, 5)


def test_a_list_of_closed_trades_does_not_say_that_nothing_is_open(tmp_path: Path) -> None:
    path = tmp_path / "closed.csv"
    path.write_text("close_time,symbol,pnl\n2026-11-21 08:00:00,DOGE/USDT,1.5\n")
    found = figures("bot", FORMATS["csv"].trades(path, options=FormatOptions()))
    assert (found.realised, found.unrealised, found.main.total) == (Decimal("1.5"), None, None)
    fills = tmp_path / "fills.csv"
    fills.write_text("time,symbol,side,price,amount\n2026-11-21 08:00:00,DOGE/USDT,buy,1,1\n"
                     "2026-11-21 09:00:00,DOGE/USDT,sell,2,1\n")  # fmt: skip
    found = figures("bot", FORMATS["csv"].trades(fills, options=FormatOptions()))
    assert (found.realised, found.unrealised) == (1, 0)


def test_trades_opened_after_the_window_are_not_in_it() -> None:
    later = trade(at=START + timedelta(hours=1))
    assert figures("bot", TradeTable("closed", open=(later,)), until=later.at).positions == ()
    assert len(figures("bot", TradeTable("closed", open=(later,)), since=later.at).positions) == 1


@pytest.mark.parametrize("bad", ["0", "-1", "NaN", "Infinity"])
def test_what_is_no_price_is_refused(bad: str) -> None:
    table = TradeTable("closed", open=(trade(),))
    with pytest.raises(UsageError, match=r"price of SOL/USDT was given as .*above zero"):
        figures("bot", table, marks={"SOL/USDT": Decimal(bad)})
    with pytest.raises(UsageError, match="one BNB in USDT"):
        figures("bot", table, rates={("BNB", "USDT"): Decimal(bad)})


# --- positions from fills ----------------------------------------------------------------------------------------


def fill(minute: int, side: str, amount: str, price: str, fee: str = "0", asset: str = "USDT") -> Fill:
    at = START + timedelta(minutes=minute)
    return Fill(at, "SOLUSDT", side, Decimal(price), Decimal(amount), Decimal(fee), asset, quote="USDT")


def test_what_fills_left_open_is_worth_the_mark_less_what_it_cost_with_fees() -> None:
    table = TradeTable("fills", (fill(0, "buy", "2", "100", "1"), fill(1, "sell", "1", "130", "1")))
    found = figures("bot", table, marks={"SOLUSDT": Decimal(120)})
    (left,) = found.positions
    assert (found.realised, left.unrealised) == (Decimal("28.5"), Decimal("19.5"))
    assert left.ratio is not None
    assert rounded(left.ratio) == Decimal("0.19402985"), "19.5 / 100.5"
    assert found.main.total == Decimal(48)


def test_a_short_that_fills_left_open_gains_when_the_price_falls() -> None:
    table = TradeTable("fills", (fill(0, "sell", "2", "100", "1"),))
    found = figures("bot", table, marks={"SOLUSDT": Decimal(90)})
    assert (found.positions[0].amount, found.positions[0].unrealised) == (-2, 19)


def test_the_last_prices_of_the_file_are_marks_that_say_so() -> None:
    table = TradeTable("fills", (fill(5, "sell", "1", "130"), fill(0, "buy", "2", "100")))
    marks = last_prices(table)
    assert marks == {"SOLUSDT": Mark(Decimal(130), "its own last fill", START + timedelta(minutes=5))}
    assert figures("bot", table, marks=marks).main.total == 60
    assert last_prices(table, START + timedelta(minutes=1))["SOLUSDT"].price == 100
    closed = ClosedTrade(START, "ADA/USDT", Decimal(1), exit=Decimal("0.36"))
    assert last_prices(TradeTable("closed", closed=(closed,)))["ADA/USDT"].source == "its own last closed trade"
