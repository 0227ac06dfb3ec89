"""When an assistant is woken, and when people are: real bots, a real command, a real watcher."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep import silences
from botkeep.ledger import Entry, Kind, Ledger
from botkeep.model import Actor, Result, Status, utc_now
from support.fleet import Fleet, entry, fleet, wait_for
from support.watcher import watching

ASSISTANT = """
import json, pathlib, sys
calls = pathlib.Path("calls")
calls.mkdir(exist_ok=True)
number = len(list(calls.iterdir()))
(calls / str(number)).write_text(sys.stdin.read())
print(json.dumps({"result": "I looked.", "total_cost_usd": 0.02, "usage": {"input_tokens": 900, "output_tokens": 100}}))
sys.exit(int(pathlib.Path("exit").read_text()) if pathlib.Path("exit").exists() else 0)
"""


@pytest.fixture
def bots(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, entry("doge"), entry("btc", "BTCUSDT")) as found:
        (found.home / "config/schedule.json").unlink()
        (found.home / "assistant_of_wake.py").write_text(ASSISTANT)
        configure(found, wake=[sys.executable, "assistant_of_wake.py", "-p"])
        yield found


def configure(found: Fleet, **more: Any) -> None:
    file = found.home / "config/bots.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))


def calls(found: Fleet) -> list[str]:
    folder = found.home / "calls"
    return [path.read_text() for path in sorted(folder.iterdir())] if folder.exists() else []


def of_kind(found: Fleet, kind: Kind) -> list[Entry]:
    ledger = Ledger(found.workspace.ledger_file)
    try:
        return ledger.entries(kinds=[kind])
    finally:
        ledger.close()


def wakes(found: Fleet) -> list[Any]:
    return [one.data["wake"] for one in of_kind(found, Kind.NOTE) if "wake" in one.data]


def ask_first(found: Fleet) -> None:
    found.edit("bot-not-running", "mode: auto", "mode: ask")


def test_a_healthy_fleet_and_one_that_code_can_mend_wake_nobody(bots: Fleet) -> None:
    first = bots.up("doge")
    bots.up("btc")
    bots.desk(Actor.ROUND).round()
    bots.kill(first)
    assert bots.desk(Actor.ROUND).round().actions[0].result is Result.DONE
    assert calls(bots) == []
    assert wakes(bots) == []


def test_where_the_playbook_asks_the_assistant_is_woken_once_with_all_that_is_known(bots: Fleet) -> None:
    ask_first(bots)
    first = int(bots.desk(Actor.PERSON).start("doge", "x", override="test").pid or 0)
    bots.desk(Actor.PERSON).start("btc", "x", override="test")
    bots.kill(first)
    for _ in range(3):
        bots.desk(Actor.ROUND).round()
    (packet,) = calls(bots)
    assert "doge is not running: it was killed by signal 9" in packet
    assert "restart_bot; mode ask" in packet
    assert len(packet) <= 6000
    (one,) = wakes(bots)
    assert (one["exit"], one["ok"], one["tokens"], one["cost"]) == (0, True, 1000, "0.02")
    assert one["incident"] == "doge:bot-not-running"
    assert "The assistant was woken for doge: it ended well" in bots.journal()


def test_the_next_incident_wakes_again_and_several_rounds_at_once_wake_once(bots: Fleet) -> None:
    ask_first(bots)
    for number in (1, 2):
        report = bots.desk(Actor.PERSON).start("doge", "x", override="test")
        bots.desk(Actor.PERSON).start("btc", "x", override="test")
        bots.desk(Actor.ROUND).round()
        bots.kill(int(report.pid or 0))
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda desk: desk.round(), [bots.desk(Actor.ROUND) for _ in range(3)]))
        assert len(calls(bots)) == number


def test_a_command_that_fails_sends_the_incident_to_people(bots: Fleet) -> None:
    ask_first(bots)
    (bots.home / "exit").write_text("1")
    report = bots.desk(Actor.PERSON).start("doge", "x", override="test")
    bots.kill(int(report.pid or 0))
    desk = bots.desk(Actor.ROUND)
    made = desk.round_for(["doge"]).calls
    assert desk.round_for(["doge"]).calls == (), "the first turn has claimed it"
    desk.wake(made)
    (one,) = wakes(bots)
    assert (one["exit"], one["ok"]) == (1, False)
    told = [entry.sentence for entry in of_kind(bots, Kind.ALERT)]
    assert any("doge needs you: the assistant could not help (it ended with exit code 1" in text for text in told)


def test_a_silenced_bot_wakes_nobody_until_its_silence_is_over(bots: Fleet) -> None:
    ask_first(bots)
    bots.desk(Actor.PERSON).start("btc", "x", override="test")
    report = bots.desk(Actor.PERSON).start("doge", "x", override="test")
    person = bots.desk(Actor.PERSON)
    silences.begin(person.journal, "doge", timedelta(hours=1), "moving it", Actor.PERSON.value, utc_now())
    bots.kill(int(report.pid or 0))
    looked = bots.desk(Actor.ROUND).round()
    assert [one.status for one in looked.verdicts if one.bot == "doge"] == [Status.FAULTY]
    assert (looked.calls, calls(bots)) == ((), [])
    silences.end(person.journal, "doge", Actor.PERSON.value, utc_now())
    bots.desk(Actor.ROUND).round()
    assert len(calls(bots)) == 1


def test_a_call_whose_caller_was_killed_is_told_to_people(bots: Fleet) -> None:
    ask_first(bots)
    report = bots.desk(Actor.PERSON).start("doge", "x", override="test")
    bots.kill(int(report.pid or 0))
    assert bots.desk(Actor.ROUND).round_for(["doge"]).calls
    later = bots.desk(Actor.ROUND, lambda: utc_now() + timedelta(minutes=10))
    (lost,) = later.round_for(["doge"]).calls
    assert lost.refused == "whoever woke it was killed meanwhile"
    later.wake([lost])
    assert calls(bots) == []
    assert any("the assistant was not woken" in entry.sentence for entry in of_kind(bots, Kind.ALERT))


def test_people_are_told_when_the_command_is_missing_and_when_it_was_called_too_often(bots: Fleet) -> None:
    ask_first(bots)
    configure(bots, wake=["/no/such/assistant"], wakes_per_hour=1)
    for bot in ("doge", "btc"):
        report = bots.desk(Actor.PERSON).start(bot, "x", override="test")
        bots.kill(int(report.pid or 0))
    bots.desk(Actor.ROUND).round()
    said = [one.sentence for one in of_kind(bots, Kind.ALERT)]
    assert any("the assistant could not help (/no/such/assistant cannot be run" in one for one in said), said
    assert any("was not woken (it was woken 1 times within an hour" in one for one in said), said
    (one,) = wakes(bots)
    assert one["ok"] is False
    bots.desk(Actor.ROUND).round()
    assert len(wakes(bots)) == 1


def test_an_end_that_nothing_explains_wakes_although_the_bot_runs_again(bots: Fleet) -> None:
    (bots.home / "fails_once_of_wake.py").write_text(
        "import os, sys, time\n"
        "if os.path.exists('failed'): time.sleep(1000)\n"
        "time.sleep(3); open('failed', 'w'); sys.exit(7)\n"
    )
    file = bots.home / "config/bots.json"
    runtime = {"kind": "process", "command": [sys.executable, "fails_once_of_wake.py"], "stop_grace": 1}
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "bots": [{"name": "odd", "runtime": runtime}]}))
    assert bots.desk(Actor.PERSON).start("odd", "x").ok
    with watching(bots.home) as watcher:
        watcher.said("done: odd was restarted")
        watcher.said("waking the assistant for odd: It ended with an error")
        wait_for(lambda: len(wakes(bots)) == 1)
    assert "exit code 7" in calls(bots)[0]
