"""The main job on real processes: each fault as it happens, and the world afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from botkeep.model import Actor, Fault, Result, Status, UsageError, utc_now
from support.fleet import Fleet, alive, entry, fleet, wait_for


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Fleet]:
    """One paper bot."""
    with fleet(tmp_path / "home") as found:
        yield found


def instances(place: Fleet, bot: str = "doge") -> int:
    verdict = place.verdict(bot)
    return len(verdict.evidence) + 1 if verdict.fault is Fault.BOT_DUPLICATED else int(verdict.pid is not None)


def test_a_killed_bot_is_back_exactly_once_and_the_journal_says_so(one: Fleet) -> None:
    pid = one.up()
    one.kill(pid)
    found = one.verdict()
    assert (found.status, found.fault) == (Status.FAULTY, Fault.BOT_NOT_RUNNING)
    assert "killed by signal 9" in found.sentence
    report = one.desk().restart("doge", "it was killed")
    assert report.result is Result.DONE, report.sentence
    assert one.verdict().status is Status.HEALTHY
    assert one.verdict().pid == report.pid != pid
    assert one.journal().count("it was killed by signal 9") == 1
    assert one.desk().journal.verify(utc_now()) == []


def test_a_round_does_the_same_without_an_assistant(one: Fleet) -> None:
    one.kill(one.up())
    done = one.desk(Actor.ROUND).round()
    assert [report.result for report in done.actions] == [Result.DONE]
    assert done.fine
    assert one.verdict().status is Status.HEALTHY
    assert one.desk(Actor.ROUND).round().actions == ()


def test_a_frozen_bot_is_hung_and_comes_back(one: Fleet) -> None:
    pid = one.up()
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: one.verdict().fault is Fault.BOT_HUNG)
    assert one.desk(Actor.ROUND).round().actions[0].result is Result.DONE
    assert not alive(pid)
    assert one.verdict().status is Status.HEALTHY


def test_a_second_copy_is_found_and_brought_back_to_one(one: Fleet) -> None:
    pid = one.up()
    copy = one.copy_by_hand()
    wait_for(lambda: one.verdict().fault is Fault.BOT_DUPLICATED)
    done = one.desk(Actor.ROUND).round()
    assert done.actions[0].result is Result.DONE
    assert copy.wait(5) is not None
    assert not alive(pid)
    assert one.verdict().status is Status.HEALTHY
    assert done.alerts[0].fault is Fault.BOT_DUPLICATED
    assert done.alerts[1].sentence.startswith("doge: resolved after ")


def test_a_copy_started_by_hand_is_adopted_not_doubled(one: Fleet) -> None:
    copy = one.copy_by_hand()
    found = wait_for(lambda: (verdict := one.verdict()).status is Status.HEALTHY and verdict)
    assert found.pid == copy.pid
    assert "adopted" in found.sentence
    report = one.desk(Actor.PERSON).start("doge", "is it up?")
    assert report.result is Result.COALESCED
    assert one.verdict().pid == copy.pid


def test_stop_is_proven_and_a_stopped_bot_is_left_alone(one: Fleet) -> None:
    pid = one.up()
    assert one.desk(Actor.PERSON).stop("doge", "holiday").result is Result.DONE
    assert not alive(pid)
    found = one.verdict()
    assert found.status is Status.STOPPED
    assert "holiday" in found.sentence
    done = one.desk(Actor.ROUND).round()
    assert done.actions == ()
    assert done.fine
    assert one.desk(Actor.PERSON).start("doge", "back again").result is Result.DONE


def test_the_second_restart_has_to_wait_and_a_new_desk_remembers(one: Fleet) -> None:
    one.kill(one.up())
    first = one.desk().restart("doge", "down")
    assert first.result is Result.DONE
    one.kill(int(first.pid or 0))
    refusal = one.desk().restart("doge", "down again")
    assert refusal.result is Result.REFUSED
    assert refusal.earliest is not None
    assert timedelta(minutes=4) < refusal.earliest - utc_now() <= timedelta(minutes=5)
    assert one.verdict().status is Status.FAULTY
    later = one.desk(clock=lambda: utc_now() + timedelta(minutes=6))
    assert later.restart("doge", "six minutes later").result is Result.DONE


def test_a_persons_override_lifts_the_back_off(one: Fleet) -> None:
    one.kill(one.up())
    one.kill(int(one.desk().restart("doge", "down").pid or 0))
    report = one.desk(Actor.PERSON).restart("doge", "down again", override="I changed the config")
    assert report.result is Result.DONE
    assert "I changed the config" in str(one.desk().ledger.entries(bot="doge"))


def test_an_edit_of_a_playbook_takes_effect_on_the_next_call(one: Fleet) -> None:
    desk = one.desk()
    one.kill(one.up())
    one.edit("bot-not-running", r"actions: .*", "actions: []")
    refusal = desk.restart("doge", "down")
    assert refusal.result is Result.REFUSED
    assert "bot-not-running does not allow it" in refusal.sentence
    one.edit("bot-not-running", r"actions: .*", "actions: [restart_bot]")
    assert desk.restart("doge", "down").result is Result.DONE


def test_a_broken_edit_leaves_the_last_good_version_in_force_and_says_where(one: Fleet) -> None:
    desk = one.desk()
    one.kill(one.up())
    one.edit("bot-not-running", r"backoff: .*", "backoff: [-5m]")
    checked = desk.check()
    assert "playbooks/bot-not-running.md:8" in checked.problems[0] or "bot-not-running.md:" in checked.problems[0]
    assert desk.restart("doge", "down").result is Result.DONE


def test_a_playbook_that_asks_waits_for_a_person(one: Fleet) -> None:
    one.edit("bot-not-running", r"mode: auto", "mode: ask")
    one.desk(Actor.PERSON).restart("doge", "first", override="set up")
    one.kill(wait_for(lambda: one.verdict().pid))
    done = one.desk(Actor.ROUND).round()
    assert [report.result for report in done.actions] == [Result.ASKED]
    asked = done.actions[0].approval
    assert one.desk(Actor.ROUND).round().actions[0].approval == asked, "one question, not one for every round"
    assert one.journal().count("botkeep approve") == 1
    with pytest.raises(UsageError, match="nothing that was asked"):
        one.desk(Actor.PERSON).approve("e99999", "ann")
    one.desk(Actor.PERSON).approve(str(asked), "ann")
    assert one.desk(Actor.ROUND).round().actions[0].result is Result.DONE
    one.kill(wait_for(lambda: one.verdict().pid))
    assert one.desk().restart("doge", "again").result is Result.ASKED, "an approval is for one action"


def test_a_refused_key_is_never_answered_by_a_restart(tmp_path: Path) -> None:
    line = '{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}'
    command = [sys.executable, "-c", f"import time; print({line!r}, flush=True); time.sleep(2); raise SystemExit(2)"]
    bot = {"name": "doge", "runtime": {"kind": "process", "command": command, "stop_grace": 2}}
    with fleet(tmp_path / "home", bot) as one:
        one.desk().restart("doge", "first")
        wait_for(lambda: one.verdict().pid is None)
        found = one.verdict()
        assert found.fault is Fault.API_KEY_REJECTED
        done = one.desk(Actor.ROUND).round()
        assert all(report.result is not Result.DONE for report in done.actions)
        refusal = one.desk().restart("doge", "just restart it again")
        assert refusal.result is Result.REFUSED
        assert "API key" in refusal.until


def test_one_bots_mistake_is_its_own_verdict(tmp_path: Path) -> None:
    broken = entry("broken", "X") | {"runtime": {"kind": "procces"}}
    with fleet(tmp_path / "home", entry(), broken) as one:
        one.up()
        report = one.desk().check()
        assert [(verdict.bot, verdict.status) for verdict in report.verdicts] == [
            ("broken", Status.UNKNOWN),
            ("doge", Status.HEALTHY),
        ]
        assert "$.bots[1].runtime.kind" in report.verdicts[0].sentence
        with pytest.raises(UsageError, match=r"\$\.bots\[1\]"):
            one.desk().restart("broken", "why not")


def test_a_command_that_does_not_exist_is_one_attempt_with_its_cause(tmp_path: Path) -> None:
    bot = {"name": "doge", "runtime": {"kind": "process", "command": ["./venv/bin/python", "bot.py"]}}
    with fleet(tmp_path / "home", bot) as one:
        report = one.desk().restart("doge", "go")
        assert report.result is Result.FAILED
        assert "No such file or directory" in report.sentence
        assert one.verdict().fault is Fault.BOT_NOT_RUNNING


def test_a_killed_caller_leaves_an_intent_that_the_next_look_reconciles(one: Fleet) -> None:
    one.edit("bot-not-running", r"up_for: \w+, within: \w+", "up_for: 20s, within: 30s")
    script = (
        "import sys; from pathlib import Path; from botkeep.model import Actor; from botkeep.rounds import Desk;"
        "from botkeep.workspace import Workspace;"
        f"Desk.open(Workspace(Path({str(one.home)!r})), Actor.ASSISTANT).restart('doge', 'go')"
    )
    caller = subprocess.Popen([sys.executable, "-c", script])
    wait_for(lambda: one.rows() > 0)
    caller.kill()
    caller.wait()
    assert len(one.desk().ledger.open_intents("doge")) == 1
    found = one.verdict()
    assert found.status is Status.HEALTHY
    assert one.desk().ledger.open_intents("doge") == []
    assert "found at the next look" in one.journal()


def test_a_bot_outlives_the_program_that_started_it(one: Fleet) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "botkeep", "start", "doge", "--home", str(one.home)],
        start_new_session=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    before = one.rows()
    wait_for(lambda: one.rows() > before)
    assert one.verdict().status is Status.HEALTHY


def test_the_alert_is_told_once_for_one_incident(one: Fleet) -> None:
    one.edit("bot-not-running", r"actions: .*", "actions: []")
    one.edit("bot-not-running", r"\{after: \w+", "{after: 0s")
    one.desk(Actor.PERSON).restart("doge", "first", override="set up")
    one.kill(wait_for(lambda: one.verdict().pid))
    told = [alert.fault for _ in range(3) for alert in one.desk(Actor.ROUND).round().alerts]
    assert told == [Fault.BOT_NOT_RUNNING]
    assert one.journal().count("· alert ·") == 1
