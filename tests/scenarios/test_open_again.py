"""A backup has trades open that were closed since, and a database may be gone that only a backup knows."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep.model import ActionReport, Actor, DataVerdict, Fault, Result, Status, utc_now
from support import trade_history
from support.fleet import Fleet, entry, fleet

SCRIPT = Path(__file__).parents[1] / "support/still_bot.py"
NAME = "open_again_bot.py"


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Fleet]:
    """A bot with freqtrade's database and log; four of its trades are open."""
    database = tmp_path / "home/data/keeper.sqlite"
    runtime = {"kind": "process", "command": [sys.executable, NAME, str(database)], "stop_grace": 3}
    replay = {"log": "keeper.log", "grammar": "freqtrade"}
    with fleet(tmp_path / "home", entry(data_file="data/keeper.sqlite", runtime=runtime, replay=replay)) as found:
        shutil.copyfile(SCRIPT, found.home / NAME)
        trade_history.recent(database, utc_now())
        yield found


def base_of(one: Fleet) -> Path:
    return one.home / "data/keeper.sqlite"


def open_ids(one: Fleet) -> list[int]:
    return [row["id"] for row in trade_history.rows(base_of(one), "is_open = 1")]


def write(one: Fleet, row: dict[str, Any]) -> None:
    """A trade as its bot or a person writes it."""
    with closing(sqlite3.connect(base_of(one))) as base, base:
        for name, value in row.items():
            base.execute(f'UPDATE trades SET "{name}" = ? WHERE id = ?', (value, row["id"]))


def told_before(one: Fleet) -> str:
    """The log of the trades that are in the backup, by which it is known to be this bot's."""
    return "".join(map(trade_history.told, trade_history.rows(base_of(one), "is_open = 0 AND id > 280")))


def closed_since_the_backup(one: Fleet, **other: str) -> dict[str, Any]:
    """The bot was backed up, closed a trade, logged that, and died; its database is damaged."""
    pid = int(one.desk().restart("doge", "first start").pid or 0)
    assert one.desk().back_up()[0].result is Result.DONE
    row = trade_history.rows(base_of(one), "is_open = 1")[0]
    closed = trade_history.close(row, utc_now() - timedelta(seconds=1), row["open_rate"] * 1.01)
    (one.home / "keeper.log").write_text(told_before(one) + trade_history.told(closed, **other))
    write(one, closed)
    one.kill(pid)
    with base_of(one).open("r+b") as file:
        file.write(b"\0" * 4096)  # the first page: no row can be read any more
    return closed


def by_a_round(one: Fleet) -> ActionReport:
    report = one.desk(Actor.ROUND).round().actions[0]
    assert (report.action, report.result) == ("restore", Result.DONE), report.sentence
    return report


MONEY = ("is_open", "close_date", "close_rate", "close_profit_abs", "realized_profit", "exit_reason")


def test_a_trade_that_was_open_in_the_backup_is_closed_as_the_log_says_and_the_bot_runs(one: Fleet) -> None:
    closed = closed_since_the_backup(one)
    report = by_a_round(one)
    row = trade_history.rows(base_of(one), f"id = {closed['id']}")[0]
    assert {name: row[name] for name in MONEY} == {name: closed[name] for name in MONEY}
    assert row["exit_order_status"] == "closed"
    assert report.data["closed"] == 1
    assert report.data["still_open"] == []
    assert report.data["rows_after"] == len(trade_history.rows(base_of(one), "1 = 1"))
    assert one.verdict().status is Status.HEALTHY


NOT_BELIEVED = {"cumulative_profit": "9.5"}
"""Of several exits of which the log has only the last: that it was closed is sure, with what result is not."""


def left_open(one: Fleet) -> dict[str, Any]:
    closed = closed_since_the_backup(one, **NOT_BELIEVED)
    report = by_a_round(one)
    assert report.pid is None
    assert [trade["id"] for trade in report.data["still_open"]] == [str(closed["id"])]
    assert f"1 trade is open in it that the bot's log shows closed: {closed['id']} (" in report.sentence
    assert "it is not started" in report.sentence
    assert closed["id"] in open_ids(one)
    return closed


def test_a_trade_that_cannot_be_closed_from_the_log_keeps_the_restored_bot_down(one: Fleet) -> None:
    left_open(one)
    found = one.verdict()
    assert (found.fault, found.evidence[0].rule, found.pid) == (Fault.DATA_CORRUPT, "R3", None)
    later = one.desk(Actor.ROUND, lambda: utc_now() + timedelta(minutes=40)).round()
    assert later.actions == ()
    refused = one.desk().restart("doge", "bring it back")
    assert refused.result is Result.REFUSED
    assert "shows closed" in refused.sentence
    assert one.verdict().pid is None


def test_the_plan_says_it_before(one: Fleet) -> None:
    closed = closed_since_the_backup(one, **NOT_BELIEVED)
    plan = one.desk().plan_restore("doge")
    assert [trade.id for trade in plan.still_open] == [str(closed["id"])]
    assert "would not be started after it" in plan.sentence


def test_a_bot_whose_trade_a_person_closed_is_started_again(one: Fleet) -> None:
    write(one, left_open(one))
    report = one.desk(Actor.PERSON).start("doge", "its trade is closed")
    assert report.result in (Result.DONE, Result.VERIFYING), report.sentence
    assert one.verdict().status is Status.HEALTHY


def test_a_person_may_start_it_with_the_trade_open_and_no_round_stops_it(one: Fleet) -> None:
    closed = left_open(one)
    report = one.desk(Actor.PERSON).restart("doge", "paper money", override="paper money")
    assert report.result in (Result.DONE, Result.VERIFYING), report.sentence
    assert one.desk(Actor.ROUND).round().actions == ()
    assert one.verdict().pid == report.pid
    assert closed["id"] in open_ids(one)


# ---------------------------------------------------------------------------------------------------- gone


def backed_up_and_dead(one: Fleet) -> None:
    """Only a backup has seen its database."""
    assert one.desk().back_up()[0].result is Result.DONE
    assert one.desk().ledger.cursor("doge", "data") is None


def test_a_database_that_only_a_backup_knows_is_missed_and_restored_before_the_start(one: Fleet) -> None:
    backed_up_and_dead(one)
    known = len(trade_history.rows(base_of(one), "1 = 1"))
    base_of(one).unlink()
    found = one.verdict()
    assert (found.fault, found.evidence[0].rule) == (Fault.DATA_CORRUPT, "C14")
    assert Fault.BOT_NOT_RUNNING in found.others
    by_a_round(one)
    assert len(trade_history.rows(base_of(one), "1 = 1")) == known


def test_a_database_that_was_moved_aside_is_not_missed(one: Fleet) -> None:
    backed_up_and_dead(one)
    base_of(one).rename(base_of(one).with_name("keeper.sqlite.1"))
    assert one.verdict().fault is Fault.BOT_NOT_RUNNING


def test_a_bot_that_was_given_another_database_does_not_get_the_trades_of_the_first(one: Fleet) -> None:
    backed_up_and_dead(one)
    path = one.home / "config/bots.json"
    path.write_text(path.read_text().replace('"data/keeper.sqlite"', '"data/live.sqlite"'))
    assert json.loads(path.read_text())["bots"][0]["data_file"] == "data/live.sqlite"
    os.unlink(base_of(one))
    assert one.verdict().fault is Fault.BOT_NOT_RUNNING


def test_a_bot_that_was_never_backed_up_has_simply_not_traded_yet(one: Fleet) -> None:
    base_of(one).unlink()
    assert one.verdict().fault is Fault.BOT_NOT_RUNNING
    assert one.desk().bench().look("doge").observation.data.verdict is DataVerdict.MISSING  # type: ignore[union-attr]
