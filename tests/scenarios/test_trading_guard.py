"""27 trades in 14 minutes: told at once, stopped by playbook, and started again by a person only."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from datetime import timedelta
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
    assert bots.desk().start("doge", "back").ok


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
