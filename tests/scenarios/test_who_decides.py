"""What people, assistants and rounds may do to one bot at the same time, and for how long it holds."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from botkeep import act
from botkeep.model import ActionReport, Actor, BotkeepError, Fault, LedgerError, Result, Status, utc_now
from botkeep.runtimes.procs import ProcessTable
from support.fleet import Fleet, alive, entry, fleet, wait_for
from support.watcher import BOTKEEP


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Fleet]:
    """One paper bot."""
    with fleet(tmp_path / "home") as found:
        yield found


def zeros(one: Fleet) -> None:
    """Damage in the middle of the file."""
    with one.data().open("r+b") as file:
        file.seek(200)
        file.write(b"\0" * 60)


@pytest.mark.parametrize("days", [9, 400])
def test_a_bot_that_was_stopped_on_purpose_stays_down_however_long_ago_that_was(one: Fleet, days: int) -> None:
    one.up()
    one.desk(Actor.PERSON).stop("doge", "a long holiday")
    later = one.desk(Actor.ROUND, clock=lambda: utc_now() + timedelta(days=days))
    done = later.round()
    assert done.actions == ()
    assert done.verdicts[0].status is Status.STOPPED


def test_code_that_came_for_a_fault_does_nothing_when_it_is_gone(one: Fleet) -> None:
    pid = one.up()
    bench = one.desk(Actor.ROUND).bench()
    bot = bench.fleet.bots[0]
    report = act.restart(bench, bot, "the endpoint failed", only_for=Fault.HEALTH_ENDPOINT_FAILING)
    assert report.result is Result.COALESCED
    assert alive(pid)
    one.kill(pid)
    one.desk(Actor.PERSON).stop("doge", "stopped while the round was waiting")
    report = act.restart(bench, bot, "it was down", only_for=Fault.BOT_NOT_RUNNING)
    assert report.result is Result.COALESCED
    assert one.verdict().status is Status.STOPPED


def test_without_readable_history_nothing_is_done(one: Fleet) -> None:
    one.up()
    one.desk(Actor.PERSON).stop("doge", "keep it down")
    for desk in one.desks:
        desk.close()
    with sqlite3.connect(one.workspace.ledger_file) as ledger:
        for (trigger,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            ledger.execute(f"DROP TRIGGER {trigger}")
        ledger.execute("INSERT INTO entries SELECT seq + 1000, at, 'kind-of-tomorrow', " + _rest(ledger) + " LIMIT 1")
    ledger.close()
    done = one.desk(Actor.ROUND).round()
    assert all(report.result is not Result.DONE for report in done.actions)
    assert done.problems
    with pytest.raises(LedgerError):
        one.desk().restart("doge", "go")


def _rest(ledger: sqlite3.Connection) -> str:
    names = [row[1] for row in ledger.execute("PRAGMA table_info(entries)")]
    return ", ".join(names[3:]) + " FROM entries"


def test_a_start_that_finds_the_bot_running_says_that_it_is_wanted_up_again(one: Fleet) -> None:
    one.up()
    one.desk(Actor.PERSON).stop("doge", "holiday")
    copy = one.copy_by_hand()
    wait_for(lambda: one.verdict().pid == copy.pid)
    assert one.desk(Actor.PERSON).start("doge", "back").result is Result.COALESCED
    copy.kill()
    copy.wait()
    assert one.verdict().fault is Fault.BOT_NOT_RUNNING


def test_a_start_never_ends_copies_that_run(one: Fleet) -> None:
    pid = one.up()
    copy = one.copy_by_hand()
    wait_for(lambda: one.verdict().fault is Fault.BOT_DUPLICATED)
    assert one.desk(Actor.PERSON).start("doge", "just in case").result is Result.REFUSED
    assert alive(pid)
    assert copy.poll() is None


def test_a_person_may_start_what_a_person_stopped(one: Fleet) -> None:
    one.up()
    person = one.desk(Actor.PERSON)
    assert person.restart("doge", "new settings").result is Result.DONE
    for _ in range(2):
        assert person.stop("doge", "wait").result is Result.DONE
        assert person.start("doge", "go on").result is Result.DONE


def test_an_assistant_is_refused_what_a_person_stopped_and_is_told_what_a_person_can_run(one: Fleet) -> None:
    one.up()
    person, assistant = one.desk(Actor.PERSON), one.desk(Actor.ASSISTANT)
    assert person.stop("doge", "holiday").result is Result.DONE
    for ask in (assistant.restart, assistant.start):
        refusal = ask("doge", "it is down")
        assert refusal.result is Result.REFUSED
        assert re.search(r"a person stopped it at 2\d{3}-[\d-]+ [\d:]+Z: holiday\.", refusal.sentence), refusal.sentence
        assert "Not before a person starts it (`botkeep start doge`)." in refusal.sentence
    assert assistant.stop("doge", "so that it is my own").result is Result.DONE
    assert assistant.restart("doge", "it was my own stop").result is Result.REFUSED
    assert "stopped by a person" in one.verdict().sentence
    assert person.start("doge", "back").result is Result.DONE
    assert assistant.stop("doge", "a pause").result is Result.DONE
    assert assistant.restart("doge", "go on").result is Result.DONE


@pytest.mark.parametrize("days", [9, 400])
def test_a_persons_stop_outranks_an_assistants_of_the_day_after_however_long_ago(one: Fleet, days: int) -> None:
    one.up()
    assert one.desk(Actor.PERSON).stop("doge", "a long holiday").ok
    day_after = one.desk(Actor.ASSISTANT, clock=lambda: utc_now() + timedelta(days=1))
    assert day_after.stop("doge", "to be sure").ok
    later = one.desk(Actor.ASSISTANT, clock=lambda: utc_now() + timedelta(days=days))
    refusal = later.restart("doge", "it is down")
    assert refusal.result is Result.REFUSED
    assert "a long holiday" in refusal.sentence


def test_a_persons_stop_wins_against_a_restart_that_waited_for_it(one: Fleet) -> None:
    pid = one.up()
    os.kill(pid, signal.SIGSTOP)  # its stop takes as long as its grace
    assistant = one.desk(Actor.ASSISTANT)
    assert assistant.check(["doge"]).verdicts[0].fault is Fault.BOT_HUNG
    person = one.desk(Actor.PERSON)
    ledger = one.desk().ledger
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(person.stop, "doge", "I sell by hand")
        wait_for(lambda: ledger.open_intents("doge"))
        refusal = assistant.restart("doge", "it hangs")
        assert stopping.result().result is Result.DONE
    assert refusal.result is Result.REFUSED
    assert "I sell by hand" in refusal.sentence
    assert one.verdict().status is Status.STOPPED


@pytest.mark.parametrize("actor", [Actor.ASSISTANT, Actor.ROUND])
def test_what_was_seen_a_moment_before_a_persons_stop_starts_nothing(
    one: Fleet, monkeypatch: pytest.MonkeyPatch, actor: Actor
) -> None:
    """What was just seen counts for a moment; here that moment lasts for the whole stop."""
    monkeypatch.setattr("botkeep.bench.ONE_MOMENT", 60.0)
    pid = one.up()
    os.kill(pid, signal.SIGSTOP)
    bench = one.desk(actor).bench()
    assert bench.look("doge").observation.runtime.instances[0].pid == pid
    bench.table()
    assert one.desk(Actor.PERSON).stop("doge", "I sell by hand").ok
    only_for = Fault.BOT_HUNG if actor is Actor.ROUND else None
    report = act.restart(bench, bench.fleet.bots[0], "it hangs", only_for=only_for)
    assert report.result in (Result.REFUSED, Result.COALESCED)
    assert one.verdict().status is Status.STOPPED


def test_a_persons_stop_that_was_killed_in_the_middle_is_not_undone(one: Fleet) -> None:
    pid = one.up()
    os.kill(pid, signal.SIGSTOP)
    stopping = subprocess.Popen(
        [BOTKEEP, "stop", "doge", "--home", one.home], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    ledger = one.desk().ledger
    wait_for(lambda: ledger.open_intents("doge"))
    stopping.kill()
    stopping.wait()
    assert alive(pid)
    done = one.desk(Actor.ROUND).round()
    assert [report.result for report in done.actions] == [Result.REFUSED]
    assert "a person stopped it at" in done.actions[0].sentence
    assert one.desk(Actor.ASSISTANT).restart("doge", "it hangs").result is Result.REFUSED
    assert alive(pid)
    assert one.desk(Actor.PERSON).stop("doge", "again").ok
    assert one.verdict().status is Status.STOPPED


def test_a_stop_written_by_a_clock_far_behind_is_still_the_newest_wish(one: Fleet) -> None:
    one.up()
    behind = one.desk(Actor.PERSON, clock=lambda: utc_now() - timedelta(days=400))
    assert behind.stop("doge", "holiday").ok
    done = one.desk(Actor.ROUND).round()
    assert done.actions == ()
    assert done.verdicts[0].status is Status.STOPPED
    assert one.desk(Actor.ASSISTANT).restart("doge", "it is down").result is Result.REFUSED


@contextmanager
def full_ledger(one: Fleet) -> Iterator[None]:
    """Nothing can be written into it, as on a full disk."""
    with closing(sqlite3.connect(one.workspace.ledger_file)) as ledger:
        ledger.execute("CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'full'); END")
    yield
    with closing(sqlite3.connect(one.workspace.ledger_file)) as ledger:
        ledger.execute("DROP TRIGGER full")


def unrecorded_stop(one: Fleet, actor: Actor) -> ActionReport:
    report = one.desk(actor).stop("doge", "it trades like mad")
    assert "It is not recorded yet" in report.sentence
    return report


def test_an_assistants_stop_that_could_not_be_recorded_is_an_assistants_to_take_back(one: Fleet) -> None:
    one.up()
    with full_ledger(one):
        assert unrecorded_stop(one, Actor.ASSISTANT).ok
    assert one.desk(Actor.ROUND).round().verdicts[0].status is Status.STOPPED
    assert one.desk().ledger.last_wish("doge").actor == Actor.ASSISTANT
    report = one.desk(Actor.ASSISTANT).restart("doge", "it was my own stop")
    assert report.result is Result.DONE, report.sentence


@pytest.mark.parametrize("actors", [(Actor.PERSON, Actor.ASSISTANT), (Actor.ASSISTANT, Actor.PERSON)])
def test_of_stops_that_could_not_be_recorded_a_persons_is_the_one(one: Fleet, actors: tuple[Actor, Actor]) -> None:
    one.up()
    with full_ledger(one):
        assert all(unrecorded_stop(one, actor).ok for actor in actors)
    report = one.desk(Actor.ASSISTANT).restart("doge", "it is down")
    assert report.result is Result.REFUSED
    assert "a person stopped it at" in report.sentence


def test_a_stop_that_failed_and_could_not_be_recorded_is_not_said_to_have_worked(
    one: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked from inside of the bot, where nothing may be ended."""
    pid = one.up()
    with full_ledger(one), monkeypatch.context() as inside:
        inside.setattr(ProcessTable, "own_line", frozenset({os.getpid(), pid}))
        assert unrecorded_stop(one, Actor.PERSON).result is Result.FAILED
    assert one.verdict().pid == pid
    (last,) = one.desk().memory("doge", None, 1)
    assert "doge could not be stopped while the ledger could not be written" in last.sentence
    os.kill(pid, signal.SIGSTOP)
    report = one.desk(Actor.ASSISTANT).restart("doge", "it hangs")
    assert report.result is Result.REFUSED, report.sentence
    assert "a person stopped it at" in report.sentence


def test_a_look_that_is_written_down_after_the_bot_died_does_not_say_that_it_is_well_again(one: Fleet) -> None:
    """A round lets starts go first: meanwhile another one sees the death, and tells people."""
    pid = one.up()
    one.edit("bot-not-running", "mode: auto", "mode: ask")
    one.edit("bot-not-running", r"alert: {after: \w+", "alert: {after: 0s")

    def meanwhile(seen: object) -> None:
        one.kill(pid)
        told = one.desk(Actor.ROUND).round_for(["doge"])
        assert [alert.fault for alert in told.alerts] == [Fault.BOT_NOT_RUNNING]

    assert one.desk(Actor.ROUND).round_for(["doge"], meanwhile).alerts == ()
    ledger = one.desk().ledger
    assert ledger.spans("doge")[-1].up is False
    assert not any(entry.data.get("resolved") for entry in ledger.entries(bot="doge"))


def test_restarts_of_a_bot_that_was_well_do_not_use_up_what_a_failure_needs(one: Fleet) -> None:
    one.up()
    report = one.desk(Actor.PERSON).restart("doge", "new settings", override="I insist")
    assert report.result is Result.DONE
    assert "I insist" in report.sentence
    assert "I insist" in one.journal()
    one.kill(int(report.pid or 0))
    assert one.desk(Actor.ROUND).round().actions[0].result is Result.DONE


def test_a_missing_env_file_is_found_before_the_running_bot_is_stopped(tmp_path: Path) -> None:
    bot = entry()
    bot["runtime"]["env_file"] = "doge.env"
    with fleet(tmp_path / "home", bot) as one:
        env = one.home / "doge.env"
        env.write_text("KEY=value\n")
        env.chmod(0o600)
        pid = one.up()
        env.unlink()
        with pytest.raises(BotkeepError, match=r"doge\.env"):
            one.desk(Actor.PERSON).restart("doge", "new code")
        assert alive(pid)
        assert one.desk().ledger.open_intents("doge") == []


def test_an_approved_restore_is_approved_once(one: Fleet) -> None:
    one.edit("data-corrupt", r"mode: auto", "mode: ask")
    pid = one.up(rows=8)
    one.desk().back_up()
    one.kill(pid)
    zeros(one)
    asked = one.desk(Actor.ROUND).round().actions[0]
    assert asked.result is Result.ASKED
    one.desk(Actor.PERSON).approve(str(asked.approval), "ann")
    assert one.desk(Actor.ROUND).round().actions[0].result is Result.DONE
    one.kill(wait_for(lambda: one.verdict().pid))
    zeros(one)
    assert one.desk(Actor.ROUND).round().actions[0].result is Result.ASKED


def test_a_file_that_is_damaged_again_and_again_is_not_restored_for_ever(one: Fleet) -> None:
    one.up(rows=8)
    one.desk().back_up()
    results = []
    for _ in range(3):
        pid = one.verdict().pid
        if pid:
            one.kill(pid)
        zeros(one)
        results.append(one.desk(Actor.ROUND).round().actions[0].result)
    assert results[0] is Result.DONE
    assert results[-1] is Result.REFUSED


def test_a_round_does_not_stop_a_bot_that_it_could_not_start_again(tmp_path: Path) -> None:
    name = f"only_here_{os.getpid()}"  # a process name counts on the whole machine, so it must be nobody else's
    bot = entry() | {"process_name": name}
    bot["runtime"]["command"][1] = f"{name}.py"
    with fleet(tmp_path / "home", bot) as one:
        (one.home / f"{name}.py").write_bytes((one.home / "paper_bot.py").read_bytes())
        one.up(rows=8)
        one.desk().back_up()
        one.desk(Actor.PERSON).stop("doge", "moved to a terminal")
        copy = one.copy_by_hand()
        del bot["runtime"]
        (one.home / "config/bots.json").write_text(json.dumps({"bots": [bot]}))
        wait_for(lambda: one.verdict().pid == copy.pid)
        zeros(one)
        done = one.desk(Actor.ROUND).round()
        assert [report.result for report in done.actions] == [Result.REFUSED]
        assert copy.poll() is None


def test_a_stopped_bots_file_can_be_restored_and_it_stays_down(one: Fleet) -> None:
    one.up(rows=8)
    one.desk().back_up()
    one.desk(Actor.PERSON).stop("doge", "to mend its file")
    zeros(one)
    found = one.verdict()
    assert found.status is Status.STOPPED
    assert "damaged" in found.sentence
    desk = one.desk(Actor.PERSON)
    report = desk.restore("doge", desk.plan_restore("doge").id)
    assert report.result is Result.DONE
    assert "stopped on purpose" in report.sentence
    assert one.verdict().pid is None


def test_the_death_of_another_copy_is_not_the_death_of_now(one: Fleet) -> None:
    one.kill(one.up())
    one.verdict()
    copy = one.copy_by_hand()
    wait_for(lambda: one.verdict().pid == copy.pid)
    copy.kill()
    copy.wait()
    found = one.verdict()
    assert found.fault is Fault.BOT_NOT_RUNNING
    assert "not known" in found.sentence


def test_one_bots_failing_files_do_not_end_the_round(tmp_path: Path) -> None:
    with fleet(tmp_path / "home", entry("aaa", "BTCUSDT"), entry()) as two:
        two.up("aaa")
        two.up("doge")
        two.kill(int(two.verdict("aaa").pid or 0))
        two.kill(int(two.verdict("doge").pid or 0))
        lock = two.workspace.run_dir("aaa") / "op.lock"
        lock.unlink()
        lock.mkdir()
        done = two.desk(Actor.ROUND).round()
        results = {report.bot: report.result for report in done.actions}
        assert results == {"aaa": Result.FAILED, "doge": Result.DONE}
        lock.rmdir()


def test_a_dead_bot_behind_an_unreadable_file_is_still_dead(one: Fleet) -> None:
    pid = one.up()
    one.kill(pid)
    one.data().unlink()
    os.mkfifo(one.data())
    assert one.verdict().fault is Fault.BOT_NOT_RUNNING


def test_a_restart_written_by_a_clock_far_ahead_does_not_keep_a_dead_bot_down(one: Fleet) -> None:
    one.up()
    ahead = one.desk(clock=lambda: utc_now() + timedelta(days=5))
    one.kill(wait_for(lambda: one.verdict().pid))
    assert ahead.restart("doge", "down").result is Result.DONE
    one.kill(wait_for(lambda: one.verdict().pid))
    assert one.desk().restart("doge", "the clock is right again").result is Result.DONE


def test_the_reason_of_a_frozen_bots_restart_names_its_last_sign_of_life(one: Fleet) -> None:
    pid = one.up()
    wait_for(lambda: one.verdict().status is Status.HEALTHY)
    os.kill(pid, signal.SIGSTOP)
    found = wait_for(lambda: (verdict := one.verdict()).fault is Fault.BOT_HUNG and verdict)
    assert "last sign of life" in found.sentence


def test_a_bot_that_dies_before_it_can_log_is_diagnosed_by_its_own_output(tmp_path: Path) -> None:
    bot = entry() | {"log_file": "bot.log"}
    bot["runtime"]["command"][1] = "no_such_bot.py"
    with fleet(tmp_path / "home", bot) as one:
        (one.home / "bot.log").write_text("2026-11-20 10:00:00 INFO all is well\n")
        assert any("no_such_bot.py" in line.what for line in one.desk().doctor())
        assert one.desk().restart("doge", "new code").result is Result.FAILED
        assert any("no_such_bot.py" in line for line in one.desk().diagnose("doge").lines)
