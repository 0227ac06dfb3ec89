"""What people, assistants and rounds may do to one bot at the same time, and for how long it holds."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from botkeep import act
from botkeep.model import Actor, BotkeepError, Fault, LedgerError, Result, Status, utc_now
from support.fleet import Fleet, alive, entry, fleet, wait_for


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
