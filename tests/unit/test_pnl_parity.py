"""P&L beside the bots' own: what freqtrade's API answered and what hummingbot printed, at the moment of the samples."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botkeep.formats import FORMATS, FormatOptions, TradeTable
from botkeep.formats.columns import moment
from botkeep.model import ClosedTrade, OpenTrade
from botkeep.pnl import Mark, PnlFigures, figures, rounded
from support.trade_files import DATA

CAPITAL = Decimal(9900)
"""freqtrade's starting balance of that run: 10000 x tradable_balance_ratio 0.99 (balance.json, starting_capital)."""


def answer(name: str) -> Any:
    """What the API said, its numbers as they were printed."""
    return json.loads((DATA / f"freqtrade/api_dry/{name}.json").read_text(), parse_float=Decimal)


PROFIT: Mapping[str, Any] = answer("profit")
RATES_NOW = {one["pair"]: Mark(one["current_rate"], "freqtrade's /status") for one in answer("status")}
LATER = {"ETH/USDT": "2648.40", "XRP/USDT": "0.5390", "ADA/USDT": "0.3614", "DOGE/USDT": "0.11947"}
"""Of the answer a second later, which has no rates in it: the nearest whole ticks that give both of its sums."""


def exact(value: float | None) -> Decimal:
    return Decimal(repr(value)) if value is not None else Decimal(0)


def at(text: str) -> datetime:
    found = moment(text)
    assert found is not None
    return found


def closed(row: sqlite3.Row) -> ClosedTrade:
    return ClosedTrade(
        at=at(row["close_date"]),
        symbol=row["pair"],
        pnl=exact(row["close_profit_abs"]),
        currency=row["stake_currency"],
        fee=exact(row["fee_open_cost"]) + exact(row["fee_close_cost"]),
        id=str(row["id"]),
        opened=at(row["open_date"]),
        side="short" if row["is_short"] else "long",
        amount=exact(row["amount"]),
        entry=exact(row["open_rate"]),
        exit=exact(row["close_rate"]),
        stake=exact(row["stake_amount"]),
        ratio=exact(row["close_profit"]),
    )


def still_open(row: sqlite3.Row) -> OpenTrade:
    return OpenTrade(
        at=at(row["open_date"]),
        symbol=row["pair"],
        side="short" if row["is_short"] else "long",
        amount=exact(row["amount"]),
        entry=exact(row["open_rate"]),
        currency=row["stake_currency"],
        id=str(row["id"]),
        stake=exact(row["stake_amount"]),
        value=exact(row["open_trade_value"]),
        fee_open=exact(row["fee_open"]),
        fee_close=exact(row["fee_close"]),
        leverage=exact(row["leverage"]),
        funding=exact(row["funding_fees"]),
        realised=exact(row["realized_profit"]),
    )


def by_hand(path: Path) -> TradeTable:
    """The rows of the database, without botkeep's reader."""
    with closing(sqlite3.connect(path)) as base:
        base.row_factory = sqlite3.Row
        rows = list(base.execute("SELECT * FROM trades ORDER BY id"))
    finished = tuple(closed(row) for row in rows if not row["is_open"])
    return TradeTable("closed", closed=finished, open=tuple(still_open(row) for row in rows if row["is_open"]))


@pytest.fixture(scope="module", params=["by hand", "sqlite"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TradeTable:
    """The trades of the real database, read in two ways."""
    copy = tmp_path_factory.mktemp("freqtrade") / "tradesv3.dryrun.sqlite"
    shutil.copyfile(DATA / "freqtrade/tradesv3.dryrun.sqlite", copy)
    return by_hand(copy) if request.param == "by hand" else FORMATS["sqlite"].trades(copy, options=FormatOptions())


@pytest.fixture(scope="module")
def found(table: TradeTable) -> PnlFigures:
    return figures("rigbot", table, capital=CAPITAL, currency="USDT", marks=RATES_NOW)


def as_printed(ours: Decimal, printed: Decimal) -> bool:
    """Equal in fourteen digits: freqtrade adds floats up, and prints 170.00574309000004 for 170.00574309."""
    return float(ours) == pytest.approx(float(printed), rel=1e-14, abs=0)


# --- freqtrade ---------------------------------------------------------------------------------------------------


def test_what_freqtrade_says_it_has_realised_is_what_its_database_says(found: PnlFigures) -> None:
    assert rounded(found.realised) == PROFIT["profit_closed_coin"]
    assert found.percent is not None
    assert as_printed(found.percent / 100, PROFIT["profit_closed_ratio"])
    assert found.realised.as_tuple().exponent == -8, "a sum of what was written: nothing to round"


def test_its_open_trades_are_valued_as_freqtrade_values_them(found: PnlFigures) -> None:
    assert found.main.total is not None
    assert rounded(found.main.total) == PROFIT["profit_all_coin"]
    own = {str(one["trade_id"]): one for one in answer("status")}
    assert {one.id for one in found.positions} == own.keys()
    for position in found.positions:
        said = own[position.id]
        assert position.unrealised is not None
        assert position.ratio is not None
        assert (rounded(position.unrealised), rounded(position.ratio)) == (said["profit_abs"], said["profit_ratio"])
        assert (position.amount, position.average_price) == (said["amount"], said["open_rate"])
        assert (position.mark, position.opened is not None) == (RATES_NOW[position.symbol], True)


def test_a_second_later_at_later_rates_too(table: TradeTable) -> None:
    """profit_all.json: its coins and its summed ratios both come out, of four prices in whole ticks."""
    said = answer("profit_all")["all"]
    found = figures("rigbot", table, capital=CAPITAL, currency="USDT", marks={k: Decimal(v) for k, v in LATER.items()})
    assert found.main.total is not None
    assert found.main.ratio_mean is not None
    assert rounded(found.main.total) == said["profit_all_coin"]
    ratios = found.main.ratio_mean * found.trades + sum(rounded(one.ratio or Decimal(0)) for one in found.positions)
    assert as_printed(ratios, said["profit_all_ratio_sum"])


def test_counts_and_rates_are_freqtrades(found: PnlFigures) -> None:
    assert (found.trades, found.wins, found.losses, found.trades + len(found.positions)) == (
        PROFIT["closed_trade_count"],
        PROFIT["winning_trades"],
        PROFIT["losing_trades"],
        PROFIT["trade_count"],
    )
    main = found.main
    for ours, name in (
        (main.win_rate, "winrate"),
        (main.profit_factor, "profit_factor"),
        (main.expectancy, "expectancy"),
        (main.expectancy_ratio, "expectancy_ratio"),
        (main.ratio_mean, "profit_closed_ratio_mean"),
        (main.volume, "trading_volume"),
    ):
        assert ours is not None, name
        assert as_printed(ours, PROFIT[name]), name


def test_the_deepest_fall_is_freqtrades_with_its_start_and_end(found: PnlFigures) -> None:
    main = found.main
    assert main.drawdown_from is not None
    assert main.drawdown_to is not None
    assert main.drawdown_percent is not None
    assert main.drawdown_now_percent is not None
    assert as_printed(main.drawdown, PROFIT["max_drawdown_abs"])
    assert as_printed(main.drawdown_percent / 100, PROFIT["max_drawdown"])
    assert as_printed(main.drawdown_now, PROFIT["current_drawdown_abs"])
    assert as_printed(main.drawdown_now_percent / 100, PROFIT["current_drawdown"])
    assert [milliseconds(main.drawdown_from), milliseconds(main.drawdown_to)] == [
        PROFIT["max_drawdown_start_timestamp"],
        PROFIT["max_drawdown_end_timestamp"],
    ]


def milliseconds(when: datetime) -> int:
    return round(when.timestamp() * 1000)


def test_each_pair_is_as_in_freqtrades_performance_and_the_best_is_the_best(found: PnlFigures) -> None:
    ours = {one.symbol: one for one in found.symbols}
    for said in answer("performance"):
        one = ours.pop(said["pair"])
        assert one.ratio is not None
        assert as_printed(one.realised, said["profit_abs"])
        assert as_printed(one.ratio, said["profit_ratio"])
        assert one.trades == said["count"]
    assert ours == {}
    best = found.best_symbol
    assert best is not None
    assert (best.symbol, as_printed(best.realised, PROFIT["best_pair_profit_abs"])) == (PROFIT["best_pair"], True)


def test_a_day_is_as_in_freqtrades_daily(found: PnlFigures) -> None:
    (said,) = (one for one in answer("daily")["data"] if one["trade_count"])
    (day,) = found.days
    assert (str(day.day), day.trades, as_printed(day.realised, said["abs_profit"])) == (
        said["date"],
        said["trade_count"],
        True,
    )
    assert (day.wins, day.losses) == (PROFIT["winning_trades"], PROFIT["losing_trades"])


def test_the_curve_ends_at_the_result_and_reaches_its_own_extremes(found: PnlFigures) -> None:
    values = [value for _, value in found.main.curve]
    assert len(values) == found.trades
    assert values[-1] == found.realised
    assert max(values) == PROFIT["current_drawdown_high"]
    assert min(values) == max(values) - found.drawdown


def test_the_table_in_the_documentation_is_what_comes_out(found: PnlFigures) -> None:
    text = (Path(__file__).parents[2] / "docs/data.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\S.*?) \| (\S.*?) \|$", text, re.MULTILINE)
    ours = documented(found)
    assert [name for name, _, _ in rows] == list(ours)
    for name, printed, exactly in rows:
        assert printed == str(PROFIT[name]), name
        assert exactly == ours[name], name


def documented(found: PnlFigures) -> dict[str, str]:
    """freqtrade's name of a figure: ours, as the table has it."""
    main, best = found.main, found.best_symbol
    assert best is not None
    assert found.percent is not None
    assert main.drawdown_percent is not None
    assert main.drawdown_now_percent is not None
    figure: dict[str, Decimal | int | str | datetime | None] = {
        "profit_closed_coin": main.realised,
        "profit_all_coin": main.total,
        "profit_closed_ratio": found.percent / 100,
        "trade_count": found.trades + len(found.positions),
        "closed_trade_count": found.trades,
        "winning_trades": found.wins,
        "losing_trades": found.losses,
        "winrate": main.win_rate,
        "profit_factor": main.profit_factor,
        "expectancy": main.expectancy,
        "expectancy_ratio": main.expectancy_ratio,
        "profit_closed_ratio_mean": main.ratio_mean,
        "max_drawdown_abs": main.drawdown,
        "max_drawdown": main.drawdown_percent / 100,
        "max_drawdown_start": main.drawdown_from,
        "max_drawdown_end": main.drawdown_to,
        "current_drawdown_abs": main.drawdown_now,
        "current_drawdown": main.drawdown_now_percent / 100,
        "best_pair": best.symbol,
        "best_pair_profit_abs": best.realised,
        "best_pair_profit_ratio": best.ratio,
        "trading_volume": main.volume,
    }
    return {name: written(one) for name, one in figure.items()}


def written(figure: Decimal | int | str | datetime | None) -> str:
    if isinstance(figure, Decimal):
        return format(rounded(figure, 20).normalize(), "f")
    return f"{figure:%Y-%m-%d %H:%M:%S.%f}"[:-3] if isinstance(figure, datetime) else str(figure)


# --- hummingbot --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fills() -> TradeTable:
    path = DATA / "hummingbot/trades_conf_simple_pmm_1.csv"
    return FORMATS["csv"].trades(path, options=FormatOptions())


@pytest.mark.parametrize("method", ["fifo", "average"])
@pytest.mark.parametrize("price", ["2629.365", "2674.05"])
def test_result_and_position_together_are_hummingbots_trade_pnl(fills: TradeTable, method: str, price: str) -> None:
    """Its trade_pnl: base volume x price now + quote volume less fees; however the fills are matched."""
    mark = Decimal(price)
    base = sum(one.amount if one.side == "buy" else -one.amount for one in fills.fills)
    quote = sum((-1 if one.side == "buy" else 1) * one.price * one.amount - one.fee for one in fills.fills)
    found = figures("hbot", fills, method=method, marks={"ETH-USDT": Mark(mark, "its book")})
    assert found.main.total is not None
    assert rounded(found.main.total, 20) == rounded(base * mark + quote, 20)
    assert [(one.amount, one.mark) for one in found.positions] == [(Decimal("0.05"), Mark(mark, "its book"))]


def test_the_fees_are_the_ones_that_hummingbot_charged(fills: TradeTable) -> None:
    """A tenth of a percent each, which it rounds to millionths; the sum is of what it wrote."""
    found = figures("hbot", fills)
    percent = sum((one.price * one.amount for one in fills.fills), Decimal(0)) / 1000
    assert found.fees == sum(one.fee for one in fills.fills)
    assert abs(found.fees - percent) <= len(fills.fills) * Decimal("0.000001")
    assert found.main.volume == percent * 1000


def test_figures_of_a_paper_market_say_that_hummingbots_own_total_is_lower(fills: TradeTable) -> None:
    (note,) = (one for one in figures("hbot", fills).notes if "history" in one)
    assert note == (
        "hummingbot's own `history` may show less for binance_PaperTrade: it takes the fees, 10.933646 USDT, off twice"
    )


def test_hummingbots_history_has_its_fees_in_it_twice() -> None:
    """Its own table: total_pnl = trade_pnl - fees; and trade_pnl is what the volumes are worth, fees taken off."""
    heads, _, values = history()
    row = dict(zip(heads, values, strict=True))
    assert Decimal(row["trade_pnl"]) - Decimal(row["fees"]) == Decimal(row["total_pnl"])
    price = (Decimal(row["trade_pnl"]) - Decimal(row["quote_vol"])) / Decimal(row["base_vol"])
    assert 2600 < price < 2700, "trade_pnl is base_vol at the price of those minutes, and quote_vol"


def history() -> Iterator[list[str]]:
    for line in (DATA / "hummingbot/hbot_history.txt").read_text().splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in re.findall(r"[^|]+", line)]


def test_times_are_in_utc() -> None:
    assert at("2026-11-21 09:21:50.578000").tzinfo is UTC
