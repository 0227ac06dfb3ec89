"""A trade that a restored freqtrade database has as open is closed from the log, or left as it is and said to be."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botkeep import replay, stillopen
from botkeep.formats import FORMATS, FormatOptions
from botkeep.model import ClosedTrade, Ended, utc_now
from support import trade_history

OPTIONS = FormatOptions()
MAY_DIFFER = {"fee_close_cost", "close_rate_requested"}
"""What only the exit's order says."""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return trade_history.recent(tmp_path / "keeper.sqlite", utc_now())


def change(database: Path, ask: str, *values: Any) -> None:
    with closing(sqlite3.connect(database)) as base, base:
        base.execute(ask, values)


def reopened(database: Path) -> tuple[dict[str, Any], ClosedTrade]:
    """A trade that a real freqtrade closed, open again as a backup has it; its row, and what its log says."""
    row = trade_history.rows(database, "id = 300")[0]
    found = FORMATS["sqlite"].trades(database, options=OPTIONS).closed
    trade = replace(next(one for one in found if one.id == "300"), reason=row["exit_reason"])
    change(
        database,
        "UPDATE trades SET is_open = 1, close_date = NULL, close_rate = NULL, close_rate_requested = NULL, "
        "close_profit = NULL, close_profit_abs = NULL, realized_profit = 0, exit_reason = NULL, "
        "exit_order_status = NULL, fee_close_cost = NULL, fee_close_currency = NULL WHERE id = 300",
    )
    change(database, "DELETE FROM orders WHERE ft_trade_id = 300 AND ft_order_side = 'sell'")
    return row, trade


def test_the_row_is_then_what_freqtrade_itself_had_written(database: Path) -> None:
    row, trade = reopened(database)
    count = len(trade_history.rows(database, "1 = 1"))
    added = FORMATS["sqlite"].append(database, [trade], options=OPTIONS)
    assert (added.rows, added.closed, added.left_out) == (count, 1, ())
    now = trade_history.rows(database, "id = 300")[0]
    differing = {name for name in row if now[name] != row[name] and now[name] != pytest.approx(row[name], rel=1e-12)}
    assert differing <= MAY_DIFFER


HINDERED = {
    "an order that is open": ("UPDATE orders SET ft_is_open = 1 WHERE ft_trade_id = 300", {}, "order"),
    "a stop on the exchange": ("UPDATE orders SET ft_order_side = 'stoploss' WHERE ft_trade_id = 300", {}, "order"),
    "a partial exit before": ("UPDATE trades SET realized_profit = 0.1 WHERE id = 300", {}, "partly closed"),
    "funding": ("UPDATE trades SET funding_fees = 0.1 WHERE id = 300", {}, "does not follow"),
    "leverage": ("UPDATE trades SET leverage = 3 WHERE id = 300", {}, "leverage"),
    "more bought since": ("SELECT 1", {"amount": Decimal(3000)}, "another amount"),
    "other fees": ("SELECT 1", {"pnl": Decimal("0.2")}, "does not follow"),
    "the other side": ("SELECT 1", {"side": "short"}, "another side"),
    "opened at another time": ("SELECT 1", {"opened": datetime(2026, 1, 1, tzinfo=UTC)}, "another trade has its id"),
    "another pair": ("SELECT 1", {"symbol": "BTC/USDT"}, "another trade has its id"),
}


@pytest.mark.parametrize("what", HINDERED)
def test_what_does_not_follow_from_row_and_log_stays_open_with_a_reason(database: Path, what: str) -> None:
    ask, other, why = HINDERED[what]
    _, trade = reopened(database)
    change(database, ask)
    before = trade_history.rows(database, "id = 300")
    added = FORMATS["sqlite"].append(database, [replace(trade, **other)], options=OPTIONS)
    assert added.closed == 0
    assert why in added.left_out[0]
    assert trade_history.rows(database, "id = 300") == before


def test_a_trade_whose_figures_are_doubted_is_known_to_be_closed_all_the_same(database: Path, tmp_path: Path) -> None:
    row = trade_history.rows(database, "id = 300")[0]
    log = tmp_path / "bot.log"
    log.write_text(trade_history.told(row, cumulative_profit="9.5") + trade_history.told(row, is_final_exit="False"))
    found = replay.from_log(log, "freqtrade", now=utc_now())
    assert found.closed == ()
    assert [(one.id, one.symbol) for one in found.ended] == [("300", row["pair"])]


def test_only_the_very_same_trade_counts_as_still_open(database: Path) -> None:
    table = FORMATS["sqlite"].trades(database, options=OPTIONS)
    one = table.open[0]
    same = Ended(one.id, one.symbol.replace("/", "-"), one.at + timedelta(seconds=1))
    others = (replace(same, opened=one.at - timedelta(minutes=1)), replace(same, symbol="X/Y"), replace(same, id="1"))
    assert stillopen.unclosed(table, [*others, same, same]) == (same,)
    assert stillopen.from_json(stillopen.as_json([same])) == (same,)
