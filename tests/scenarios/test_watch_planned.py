"""`restart_every` with `pause`: planned restarts are made, are no failures, and wait for what they have to wait for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from botkeep import planned, silences
from botkeep.config import load_fleet
from botkeep.ledger import Entry, Kind, Ledger
from botkeep.model import (
    Actor,
    Instance,
    InstanceState,
    Observation,
    ProgramLook,
    Result,
    RuntimeLook,
    Status,
    Verdict,
    utc_now,
)
from support.fleet import Fleet, alive, entry, fleet, wait_for
from support.watcher import watching


@pytest.fixture
def bots(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, entry("doge", restart_every="1h", pause="2s")) as found:
        (found.home / "config/schedule.json").unlink()
        yield found


def configure(found: Fleet, **more: Any) -> None:
    (found.home / "config/bots.json").write_text(json.dumps({"bots": [entry("doge", **more)]}))


def in_(**length: float) -> Callable[[], datetime]:
    return lambda: utc_now() + timedelta(**length)


def intents(found: Fleet) -> list[Entry]:
    ledger = Ledger(found.workspace.ledger_file)
    try:
        return ledger.entries(bot="doge", kinds=[Kind.INTENT])
    finally:
        ledger.close()


def test_a_round_restarts_it_after_its_time_with_the_pause_and_says_that_it_was_planned(bots: Fleet) -> None:
    first = bots.up()
    assert bots.desk(Actor.ROUND, in_(minutes=59)).round().actions == ()
    began = utc_now()
    (report,) = bots.desk(Actor.ROUND, in_(minutes=61)).round().actions
    assert utc_now() - began > timedelta(seconds=2)
    assert report.result is Result.DONE
    assert report.data["planned"] is True
    assert "doge was restarted as planned (pid" in report.sentence
    assert not alive(first)
    assert intents(bots)[-1].sentence.startswith("planned: it ran for 1h")
    assert bots.desk(Actor.ROUND).round().actions == ()
    assert "restarted as planned" in bots.journal()


def test_planned_ones_count_neither_for_the_back_off_nor_for_the_daily_cap(bots: Fleet) -> None:
    bots.edit("bot-not-running", "max_per_day: 6", "max_per_day: 1")
    bots.edit("bot-not-running", r"backoff: .*", "backoff: [0s, 24h]")
    configure(bots, restart_every="1h")
    bots.up()
    for hour in (1, 2, 3):
        (report,) = bots.desk(Actor.ROUND, in_(hours=hour, minutes=1)).round().actions
        assert report.result is Result.DONE, report.sentence
    pid = int(bots.verdict().pid or 0)
    bots.kill(pid)
    (report,) = bots.desk(Actor.ROUND).round().actions
    assert report.result is Result.DONE, report.sentence
    assert "planned" not in report.data


def test_a_bot_that_is_not_well_or_on_which_somebody_works_is_left_alone(bots: Fleet) -> None:
    bots.up()
    desk = bots.desk(Actor.PERSON)
    silences.begin(desk.journal, "doge", timedelta(hours=5), "moving it", Actor.PERSON, utc_now())
    assert bots.desk(Actor.ROUND, in_(minutes=61)).round().actions == ()
    silences.end(desk.journal, "doge", Actor.PERSON, utc_now())
    copy = bots.copy_by_hand()
    wait_for(lambda: len(bots.desk().bench().look("doge").observation.runtime.instances) == 2)
    (report,) = bots.desk(Actor.ROUND, in_(minutes=61)).round().actions
    assert "planned" not in report.data
    assert copy.wait(10) is not None


def test_one_that_was_stopped_on_purpose_is_not_started_by_a_plan(bots: Fleet) -> None:
    bots.up()
    bots.desk(Actor.PERSON).stop("doge", "holiday")
    assert bots.desk(Actor.ROUND, in_(hours=3)).round().actions == ()


def verdict(**more: Any) -> Verdict:
    return Verdict("doge", Status.HEALTHY, utc_now(), "doge runs.", instance="a", **more)


def test_it_waits_while_the_bot_says_that_positions_are_open() -> None:
    assert planned.waits_for(verdict()) == ""
    assert planned.waits_for(verdict(program=ProgramLook(open_trades=0))) == ""
    assert planned.waits_for(verdict(program=ProgramLook(positions=()))) == ""
    assert planned.waits_for(verdict(program=ProgramLook(open_trades=2))) == "it has 2 open positions"
    assert "silenced" in planned.waits_for(verdict(), {"doge"})


NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def due(home: Path, every: str, started: datetime, now: datetime = NOW, zone: str = "UTC") -> datetime | None:
    (home / "config").mkdir(exist_ok=True)
    (home / "config/bots.json").write_text(json.dumps({"bots": [entry("doge", restart_every=every)]}))
    from botkeep.workspace import Workspace

    (bot,) = load_fleet(Workspace(home)).bots
    instance = Instance("k", 1, InstanceState.RUNNING, started, True, "recorded")
    seen = Observation("doge", now, RuntimeLook(instances=(instance,)))
    return planned.due_at(bot, seen, now, ZoneInfo(zone))


@pytest.mark.parametrize(
    ("every", "started", "zone", "at"),
    [
        ("1h", NOW - timedelta(minutes=50), "UTC", NOW + timedelta(minutes=10)),
        ("1h", NOW - timedelta(hours=9), "UTC", NOW - timedelta(hours=8)),
        ("0 * * * *", NOW - timedelta(minutes=30), "UTC", NOW),
        ("0 * * * *", NOW, "UTC", NOW + timedelta(hours=1)),
        ("0 3 * * *", NOW - timedelta(days=2), "UTC", NOW + timedelta(hours=15)),
        ("30 11 * * *", NOW - timedelta(days=2), "UTC", NOW - timedelta(minutes=30)),
        ("30 12 * * *", NOW - timedelta(days=2), "Europe/Madrid", NOW - timedelta(minutes=30)),
    ],
)
def test_when_it_is_due(tmp_path: Path, every: str, started: datetime, zone: str, at: datetime) -> None:
    assert due(tmp_path, every, started, zone=zone) == at


AUTUMN = datetime(2026, 10, 25, tzinfo=UTC)  # 03:00 in Madrid is 02:00 again, at 01:00 UTC
SPRING = datetime(2027, 3, 28, tzinfo=UTC)  # 02:00 in Madrid is 03:00, at 01:00 UTC


def after(day: datetime, minutes: int) -> datetime:
    return day + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("every", "started", "now", "at"),
    [
        ("0 * * * *", after(AUTUMN, 30), after(AUTUMN, 40), after(AUTUMN, 60)),
        ("0 * * * *", after(AUTUMN, 61), after(AUTUMN, 70), after(AUTUMN, 120)),
        ("*/20 * * * *", after(AUTUMN, 41), after(AUTUMN, 45), after(AUTUMN, 60)),
        ("* * * * *", after(AUTUMN, 59), after(AUTUMN, 59), after(AUTUMN, 60)),
        ("30 2 * * *", after(AUTUMN, -600), after(AUTUMN, 20), after(AUTUMN, 30)),
        ("30 2 * * *", after(AUTUMN, 31), after(AUTUMN, 95), after(AUTUMN, 24 * 60 + 90)),
        ("0 * * * *", after(SPRING, 30), after(SPRING, 40), after(SPRING, 60)),
        ("30 2 * * *", after(SPRING, -600), after(SPRING, 50), after(SPRING, 90)),
        ("30 2 * * *", after(SPRING, 91), after(SPRING, 95), after(SPRING, 24 * 60 + 30)),
    ],
)
def test_an_hourly_restart_keeps_its_pace_and_a_nightly_one_comes_once_when_clocks_change(
    tmp_path: Path, every: str, started: datetime, now: datetime, at: datetime
) -> None:
    assert due(tmp_path, every, started, now, "Europe/Madrid") == at


@pytest.mark.slow
def test_the_watcher_is_there_at_the_minute(bots: Fleet) -> None:
    configure(bots, restart_every="* * * * *", pause="1s")
    first = bots.up()
    with watching(bots.home) as watcher:
        assert "doge was restarted as planned" in watcher.said("done: doge", 90)
    assert not alive(first)
