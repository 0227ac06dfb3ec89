"""27 trades in 14 minutes: told at once, stopped by playbook, and started again by a person only."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep.ledger import Kind, Ledger
from botkeep.model import Actor, Fault, Result, Status, utc_now
from support import busy_bot
from support.fleet import Fleet, alive, entry, fleet, wait_for
from support.watcher import watching


def busy(**more: Any) -> dict[str, Any]:
    command = [sys.executable, "busy_bot_of_guard.py", "data/doge.csv", *more.pop("words", [])]
    return entry(runtime={"kind": "process", "command": command, "stop_grace": 3}, **more)


@pytest.fixture
def bots(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, busy(max_trades_per_hour=3)) as found:
        shutil.copyfile(busy_bot.__file__, found.home / "busy_bot_of_guard.py")
        (found.home / "config/schedule.json").unlink()
        yield found


def up(found: Fleet) -> int:
    report = found.desk(Actor.PERSON).start("doge", "first start")
    assert report.ok, report.sentence
    wait_for(lambda: found.rows() >= 27)
    return int(report.pid or 0)


def mend(found: Fleet) -> None:
    """A person makes it trade no more."""
    (found.home / "config/bots.json").write_text(json.dumps({"bots": [busy(max_trades_per_hour=3, words=["calm"])]}))


def entries(found: Fleet, kind: Kind) -> list[Any]:
    ledger = Ledger(found.workspace.ledger_file)
    try:
        return ledger.entries(bot="doge", kinds=[kind])
    finally:
        ledger.close()


def test_the_round_stops_it_tells_at_once_and_starts_it_no_more(bots: Fleet) -> None:
    pid = up(bots)
    report = bots.desk(Actor.ROUND).round()
    (action,) = report.actions
    assert action.result is Result.DONE
    assert action.sentence.startswith("doge is stopped (trading-too-often: doge made 27 trades within 14 minutes; max")
    assert not alive(pid)
    assert [one.fault for one in report.alerts] == [Fault.TRADING_TOO_OFTEN]
    (verdict,) = report.verdicts
    assert (verdict.status, verdict.fault) == (Status.FAULTY, Fault.TRADING_TOO_OFTEN)
    assert "stays down until a person starts it: `botkeep start doge`" in verdict.sentence
    again = bots.desk(Actor.ROUND).round()
    assert again.actions == ()
    assert again.alerts == ()
    assert again.verdicts[0].fault is Fault.TRADING_TOO_OFTEN
    assert bots.journal().count("doge is stopped (trading-too-often") == 1


def test_it_is_stopped_also_where_no_more_than_the_stop_can_be_written_down(bots: Fleet) -> None:
    pid = up(bots)
    with closing(sqlite3.connect(bots.workspace.ledger_file)) as ledger:
        ledger.execute(
            "CREATE TRIGGER full BEFORE INSERT ON cursors WHEN NEW.name = 'runaway' "
            "BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    (action,) = bots.desk(Actor.ROUND).round().actions
    assert action.result is Result.DONE, action.sentence
    assert not alive(pid)


def test_nobody_but_a_person_starts_it_and_then_the_old_trades_count_no_more(bots: Fleet) -> None:
    up(bots)
    assert bots.desk(Actor.ROUND).round().actions[0].ok
    mend(bots)
    for report in (bots.desk().restart("doge", "try"), bots.desk().start("doge", "try")):
        assert report.result is Result.REFUSED
        assert "a person starts it (`botkeep start doge`)" in report.sentence
    started = bots.desk(Actor.PERSON).start("doge", "the limit was looked at")
    assert started.ok, started.sentence
    report = bots.desk(Actor.ROUND).round()
    assert report.verdicts[0].status is Status.HEALTHY, report.verdicts[0].sentence
    assert report.actions == ()


def test_trades_that_it_makes_after_a_person_started_it_count_again(bots: Fleet) -> None:
    up(bots)
    assert bots.desk(Actor.ROUND).round().actions[0].ok
    mend(bots)
    assert bots.desk(Actor.PERSON).start("doge", "it will be fine").ok
    first = bots.verdict()
    assert first.status is Status.HEALTHY, first.sentence
    stamp = (utc_now() + timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S")
    with bots.data().open("a") as file:
        file.writelines(f"{stamp},{stamp},DOGEUSDT,long,100.0,99.8,0.5,-0.1{number}\n" for number in range(4))
    report = bots.desk(Actor.ROUND).round()
    assert "doge made 4 trades within a minute; max_trades_per_hour allows 3" in report.actions[0].sentence


def test_a_stop_by_a_person_afterwards_is_a_stop_on_purpose(bots: Fleet) -> None:
    up(bots)
    bots.desk(Actor.ROUND).round()
    bots.desk(Actor.PERSON).stop("doge", "holiday")
    assert bots.verdict().status is Status.STOPPED
    mend(bots)
    assert bots.desk(Actor.PERSON).start("doge", "back").ok


def test_where_the_playbook_asks_people_are_told_and_the_bot_trades_on(bots: Fleet) -> None:
    bots.edit("trading-too-often", "mode: auto", "mode: ask")
    pid = up(bots)
    report = bots.desk(Actor.ROUND).round()
    assert report.actions == ()
    assert [one.fault for one in report.alerts] == [Fault.TRADING_TOO_OFTEN]
    assert alive(pid)
    refused = bots.desk(Actor.PERSON).restart("doge", "try")
    assert refused.result is Result.REFUSED


def test_the_watcher_stops_it_within_seconds_of_its_look(bots: Fleet) -> None:
    pid = up(bots)
    with watching(bots.home) as watcher:
        assert "doge is stopped (trading-too-often" in watcher.said("done: doge")
        assert not alive(pid)
        watcher.said("alert: doge made 27 trades")
    assert [one.data["fault"] for one in entries(bots, Kind.INTENT) if one.action == "stop"] == ["trading-too-often"]


# ---------------------------------------------------------------------------------------- without a limit of a person


HEAD = "open_time,close_time,symbol,direction,entry_price,exit_price,qty,pnl\n"


def rows_at(*times: datetime) -> str:
    """A row each, told apart by their results."""
    stamps = [at.strftime("%Y-%m-%d %H:%M:%S") for at in times]
    return "".join(f"{at},{at},DOGEUSDT,long,100.0,99.8,0.5,-0.{number:06d}\n" for number, at in enumerate(stamps, 1))


def habit(now: datetime) -> list[datetime]:
    """Two trades in each of thirty hours, the last of them five hours ago."""
    return [now - timedelta(hours=number, minutes=part) for number in range(34, 4, -1) for part in (20, 0)]


def series(end: datetime) -> list[datetime]:
    """27 trades in 14 minutes."""
    return [end - timedelta(minutes=14) * (number / 26) for number in range(26, -1, -1)]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Fleet]:
    """A bot that trades nothing by itself, and no limit."""
    with fleet(tmp_path, busy(words=["calm"])) as found:
        shutil.copyfile(busy_bot.__file__, found.home / "busy_bot_of_guard.py")
        (found.home / "config/schedule.json").unlink()
        yield found


def running(found: Fleet, past: list[datetime], *times: datetime) -> int:
    """Started, after the trades of its past; it makes the others then."""
    found.data().write_text(HEAD + rows_at(*past))
    report = found.desk(Actor.PERSON).start("doge", "first start")
    assert report.ok, report.sentence
    with found.data().open("a") as file:
        file.write(rows_at(*times).replace("-0.", "-2."))
    return int(report.pid or 0)


def test_without_a_limit_it_is_held_to_its_own_habit(own: Fleet) -> None:
    pid = running(own, habit(utc_now()), *series(utc_now()))
    (action,) = own.desk(Actor.ROUND).round().actions
    assert action.result is Result.DONE
    assert "doge made 27 trades within 14 minutes; the busiest hour of its last 14 days had 2" in action.sentence
    assert not alive(pid)


def test_what_it_was_stopped_for_is_no_habit_and_the_same_a_day_later_is_stopped_again(own: Fleet) -> None:
    running(own, habit(utc_now()), *series(utc_now()))
    assert own.desk(Actor.ROUND).round().actions[0].ok
    assert own.desk(Actor.PERSON).start("doge", "it was mended").ok
    tomorrow = utc_now() + timedelta(hours=24)
    with own.data().open("a") as file:
        file.write(rows_at(*series(tomorrow)).replace("-0.", "-1."))
    (action,) = own.desk(Actor.ROUND, lambda: utc_now() + timedelta(hours=24)).round().actions
    assert "the busiest hour of its last 14 days had 2" in action.sentence


def test_a_bot_without_a_habit_and_without_a_limit_is_not_stopped(own: Fleet) -> None:
    pid = running(own, [], *series(utc_now()))
    report = own.desk(Actor.ROUND).round()
    assert report.actions == ()
    assert report.verdicts[0].status is Status.HEALTHY, report.verdicts[0].sentence
    assert alive(pid)


@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("kind", ["late", "future"])
def test_old_trades_that_are_written_late_and_trades_of_the_future_are_no_series(
    own: Fleet, kind: str, limit: int | None
) -> None:
    (own.home / "config/bots.json").write_text(json.dumps({"bots": [busy(words=["calm"], max_trades_per_hour=limit)]}))
    now = utc_now()
    other = now - timedelta(hours=50) if kind == "late" else now + timedelta(hours=3)
    pid = running(own, habit(now), *series(other), now)
    report = own.desk(Actor.ROUND).round()
    assert Fault.TRADING_TOO_OFTEN not in report.verdicts[0].faults
    assert report.actions == ()
    assert alive(pid)


def test_a_series_is_seen_among_trades_of_the_future_and_out_of_order(own: Fleet) -> None:
    now = utc_now()
    past = habit(now)
    past[20:40] = reversed(past[20:40])
    running(own, past, *reversed(series(now)), *(now + timedelta(days=2, minutes=number) for number in range(600)))
    assert Fault.TRADING_TOO_OFTEN in own.verdict().faults
