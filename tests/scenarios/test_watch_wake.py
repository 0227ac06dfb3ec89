"""When an assistant is woken, and when people are: real bots, a real command, a real watcher."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep import silences, wake, wake_command
from botkeep.durable import Lock
from botkeep.ledger import Entry, Kind, Ledger
from botkeep.model import Actor, Fault, History, Result, Status, utc_now
from botkeep.wake_packet import tokens_at_most
from support import model_client
from support.fleet import Fleet, alive, entry, fleet, wait_for
from support.model_server import FLAKY, LAST_WORDS, PLAN, model_server
from support.watcher import BOTKEEP, watching

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
    assert tokens_at_most(packet) <= 2000
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


def down(bots: Fleet, *names: str) -> None:
    """Both run, as a person started them; these are killed after a look at them."""
    pids = {name: bots.desk(Actor.PERSON).start(name, "x", override="test").pid for name in ("doge", "btc")}
    bots.desk(Actor.PERSON).check()
    for name in names:
        bots.kill(int(pids[name] or 0))


def test_a_bot_that_comes_and_goes_does_not_wake_more_often_than_the_hour_allows(bots: Fleet) -> None:
    """Each wake counts, also the second one for the same bot and fault."""
    ask_first(bots)
    configure(bots, wakes_per_hour=1)
    for _ in range(3):
        down(bots, "doge")
        bots.desk(Actor.ROUND).round()
    assert len(calls(bots)) == 1
    assert any("was not woken (it was woken 1 times" in one.sentence for one in of_kind(bots, Kind.ALERT))


def test_after_two_wakes_a_bot_has_to_stay_well_for_a_while_before_the_next(bots: Fleet) -> None:
    ask_first(bots)
    configure(bots, wakes_per_hour=60)
    for _ in range(4):
        down(bots, "doge")
        bots.desk(Actor.ROUND).round()
    assert len(calls(bots)) == 2


def test_watcher_cron_and_assistants_at_once_and_a_watcher_that_is_killed_wake_once(bots: Fleet) -> None:
    ask_first(bots)
    pid = int(bots.desk(Actor.PERSON).start("doge", "x", override="test").pid or 0)
    bots.desk(Actor.PERSON).start("btc", "x", override="test")
    with watching(bots.home) as first, ThreadPoolExecutor(4) as pool:
        wait_for(lambda: bots.verdict().status is Status.HEALTHY)
        bots.kill(pid)
        rounds = [pool.submit(subprocess.run, [BOTKEEP, "round", "--home", str(bots.home)], capture_output=True)
                  for _ in range(3)]  # fmt: skip
        wait_for(lambda: calls(bots), 40)
        first.process.kill()
        for one in rounds:
            one.result()
    with watching(bots.home) as second:
        second.said("doge is not running")
        bots.desk(Actor.ROUND).round()
    kept = bots.desk(Actor.ROUND).ledger.cursor("", "wakes")
    spans = bots.desk(Actor.ROUND).ledger.spans("doge")
    assert len(calls(bots)) == 1, (kept, spans, [one.splitlines()[:9] for one in calls(bots)])


def test_what_the_woken_assistant_did_is_linked_to_its_incident(bots: Fleet) -> None:
    (bots.home / "assistant_of_wake.py").write_text(
        "from pathlib import Path\nfrom botkeep.model import Actor\nfrom botkeep.rounds import Desk\n"
        "from botkeep.workspace import Workspace\ndesk = Desk.open(Workspace(Path.cwd()), Actor.ASSISTANT)\n"
        "desk.stop('doge', 'it needs a person')\ndesk.note('Its key is old.', 'doge')\n"
        "desk.note('Nothing of this incident.', 'btc')\n"
    )
    ask_first(bots)
    down(bots, "doge")
    bots.desk(Actor.ROUND).round()
    (one,) = wakes(bots)
    assert one["ok"], one
    (stopped,) = [entry for entry in of_kind(bots, Kind.OUTCOME) if entry.action == "stop"]
    (note,) = [entry for entry in of_kind(bots, Kind.NOTE) if entry.sentence == "Its key is old."]
    assert (one["incident"], one["did"]) == ("doge:bot-not-running", [stopped.id, note.id])
    assert f"It did: stop doge ({stopped.id}), note doge ({note.id})." in bots.journal()


def test_several_incidents_at_once_wake_for_each_and_one_that_hangs_keeps_no_other_waiting(
    bots: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_first(bots)
    down(bots, "doge", "btc")
    made = bots.desk(Actor.ROUND).round_for(["doge", "btc"]).calls
    assert {one.incident for one in made} == {"doge:bot-not-running", "btc:bot-not-running"}
    (bots.home / "assistant_of_wake.py").write_text("import time; time.sleep(1000)")
    monkeypatch.setattr(wake_command.run, "__defaults__", (1.0,))
    bots.desk(Actor.ROUND).wake(made)
    (one,) = wakes(bots)
    assert "did not end within 1 s" in one["trouble"]
    told = [entry.sentence for entry in of_kind(bots, Kind.ALERT)]
    assert any("needs you: the assistant could not help" in text for text in told), told
    assert any("was not woken (the call before it hung: it did not end within 1 s" in text for text in told), told


def test_a_call_that_waits_for_its_turn_is_not_taken_for_lost(bots: Fleet) -> None:
    """Three calls of five minutes each: the last one begins when its claim is ten minutes old."""
    ask_first(bots)
    down(bots, "doge", "btc")
    made = bots.desk(Actor.ROUND).round_for(["doge", "btc"]).calls
    later = bots.desk(Actor.ROUND, lambda: utc_now() + timedelta(minutes=5))
    wake.still_ours(later.bench(), made)
    at_ten = bots.desk(Actor.ROUND, lambda: utc_now() + timedelta(minutes=10))
    assert at_ten.round_for(["doge", "btc"]).calls == ()
    at_twelve = bots.desk(Actor.ROUND, lambda: utc_now() + timedelta(minutes=12))
    assert len(at_twelve.round_for(["doge", "btc"]).calls) == 2


def test_a_round_of_cron_does_not_wait_for_an_assistant_that_hangs(bots: Fleet) -> None:
    ask_first(bots)
    (bots.home / "assistant_of_wake.py").write_text(
        "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(1000)"
    )
    down(bots, "doge")
    subprocess.run([BOTKEEP, "round", "--home", str(bots.home)], capture_output=True, timeout=60, check=False)
    pid = int(wait_for(lambda: (bots.home / "pid").exists() and (bots.home / "pid").read_text()))
    assert alive(pid), "the round is over, and the assistant thinks on"
    bots.kill(pid)
    wait_for(lambda: wakes(bots))
    assert "it ended with signal 9" in wakes(bots)[0]["trouble"]
    wait_for(lambda: any("the assistant could not help" in one.sentence for one in of_kind(bots, Kind.ALERT)))


def test_without_the_lock_nobody_is_woken_twice_but_told_so(bots: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_first(bots)
    down(bots, "doge")
    monkeypatch.setattr(wake, "LOCK_SECONDS", 0.1)
    with Lock(bots.workspace.state_dir / "wake.lock") as lock:
        assert lock.acquire()
        report = bots.desk(Actor.ROUND).round_for(["doge"])
    assert report.calls == ()
    assert any("another process holds wake.lock" in one for one in report.problems), report.problems
    assert len(bots.desk(Actor.ROUND).round_for(["doge"]).calls) == 1


def test_a_client_of_a_model_brings_a_real_bot_back_with_the_tools(bots: Fleet) -> None:
    """The whole way: rounds that fail, the wake, a model over HTTP, its calls over MCP, the bot, the report."""
    file = bots.home / "config/bots.json"
    (bots.home / "flaky_of_wake.py").write_text(FLAKY)
    runtime = {"kind": "process", "command": [sys.executable, "flaky_of_wake.py"], "stop_grace": 1}
    bots.edit("bot-not-running", r"backoff: \[.*\]", "backoff: [0s, 0s, 0s, 0s]")
    with model_server() as model:
        client = [sys.executable, str(Path(model_client.__file__)), model.url, BOTKEEP]
        file.write_text(json.dumps({"wake": client, "bots": [{"name": "doge", "runtime": runtime}]}))
        bots.kill(int(bots.desk(Actor.PERSON).start("doge", "x").pid or 0))
        for _ in range(2):
            bots.desk(Actor.ROUND).round()
    assert model.called == list(PLAN)
    (one,) = wakes(bots)
    assert (one["ok"], one["said"], one["tokens"], one["cost"]) == (True, LAST_WORDS, 7500, "0.06")
    assert bots.verdict().status is Status.HEALTHY
    assert "It did: restart doge (" in bots.journal()
    report = subprocess.run([BOTKEEP, "report", "--home", str(bots.home)], capture_output=True, text=True, check=False)
    assert "woken once, 7,500 tokens, $0.06" in report.stdout


def test_a_model_that_is_away_is_told_to_people(bots: Fleet) -> None:
    ask_first(bots)
    with model_server(away=529) as model:
        configure(bots, wake=[sys.executable, str(Path(model_client.__file__)), model.url, BOTKEEP])
        down(bots, "doge")
        bots.desk(Actor.ROUND).round()
    assert model.refused == [529]
    told = [entry.sentence for entry in of_kind(bots, Kind.ALERT)]
    assert any("doge needs you: the assistant could not help (it ended with exit code 1" in text for text in told), told


def test_a_cause_that_more_and_more_bots_share_and_then_fewer_is_one_incident(bots: Fleet) -> None:
    """First doge alone, then both behind one ban, then btc alone: one assistant looks into it."""
    now = utc_now()
    fault = Fault.BOT_NOT_RUNNING
    alone = wake.Call("doge:bot-not-running", ("doge",), fault, "why", "doge is down", saw=now)
    both = wake.Call("rate:binance", ("btc", "doge"), fault, "why", "both are down", saw=now, since=now)
    other = wake.Call("btc:disk-full", ("btc",), Fault.DISK_FULL, "why", "another fault", saw=now)
    bench, never_well = bots.desk(Actor.ROUND).bench(), {"doge": History(), "btc": History()}
    assert [one.incident for one in wake.claim(bench, [alone], never_well)] == ["doge:bot-not-running"]
    assert wake.claim(bench, [both], never_well) == []
    assert wake.claim(bench, [alone], never_well) == []
    assert [one.incident for one in wake.claim(bench, [other], never_well)] == ["btc:disk-full"]


def test_a_clock_that_was_set_back_holds_no_wake_back(bots: Fleet) -> None:
    """The claim of an hour ahead is over as soon as its bot was seen well by the clock that holds now."""
    ask_first(bots)
    ahead = wake.Call("doge:bot-not-running", ("doge",), Fault.BOT_NOT_RUNNING, "why", "doge is down", saw=utc_now())
    later = bots.desk(Actor.ROUND, lambda: utc_now() + timedelta(hours=1)).bench()
    (made,) = wake.claim(later, [replace(ahead, saw=later.clock())], {})
    wake.over(later, made)
    wake.claim(bots.desk(Actor.ROUND).bench(), [], {})
    down(bots, "doge")
    bots.desk(Actor.ROUND).round()
    assert len(calls(bots)) == 1
