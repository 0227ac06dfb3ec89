"""Damaged trade files come back with proof, and a bot's own habits are never taken for damage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from botkeep import by_playbook
from botkeep.demo import tear
from botkeep.ledger import Kind
from botkeep.model import Actor, BotkeepError, Fault, Result, Status, utc_now
from support.fleet import Fleet, alive, entry, fleet, wait_for


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Fleet]:
    """One paper bot."""
    with fleet(tmp_path / "home") as found:
        yield found


def dead_and_damaged(one: Fleet) -> int:
    """A bot with a backup that died in the middle of a row; how many whole rows it had before."""
    pid = one.up(rows=8)
    assert one.desk().back_up()[0].result is Result.DONE
    before = one.rows()
    wait_for(lambda: one.rows() >= before + 4)
    one.kill(pid)
    rows = one.rows()
    tear(one.data())
    return rows


def test_a_dead_bots_torn_file_is_restored_by_plan_and_the_bot_is_back(one: Fleet) -> None:
    rows = dead_and_damaged(one)
    found = one.verdict()
    assert found.fault is Fault.DATA_CORRUPT
    assert Fault.BOT_NOT_RUNNING in found.others
    assert "restore_data" in one.desk().restart("doge", "just restart it").until
    desk = one.desk()
    plan = desk.plan_restore("doge")
    assert plan.rows_expected == rows - 1, "all but the row that was torn; the zeros are in the backup"
    done = desk.restore("doge", plan.id)
    assert done.result is Result.DONE, done.sentence
    assert done.data["rows_after"] == rows - 1
    assert done.data["pnl_after"] is not None
    assert (Path(done.data["quarantine"])).is_dir()
    found = wait_for(lambda: (verdict := one.verdict()).status is Status.HEALTHY and verdict)
    assert found.pid == done.pid
    wait_for(lambda: one.rows() > rows)
    assert b"\0" not in one.data().read_bytes()


def test_a_start_after_a_restore_is_watched_like_any_other(tmp_path: Path) -> None:
    """It used to be called running in the moment in which it was started."""
    runs = entry()["runtime"]
    script = (
        "import os, sys, time\n"
        "if os.path.exists('broken'):\n"
        "    time.sleep(0.5)\n"
        "    sys.exit(3)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    bot = entry() | {"runtime": {**runs, "command": [runs["command"][0], "wrap.py", *runs["command"]]}}
    with fleet(tmp_path / "home", bot) as one:
        (one.home / "wrap.py").write_text(script)
        dead_and_damaged(one)
        desk = one.desk()
        plan = desk.plan_restore("doge")
        (one.home / "broken").touch()
        done = desk.restore("doge", plan.id)
        assert (done.result, done.pid, done.data["lasts"]) == (Result.DONE, None, False)
        assert "doge was started and ended at once: it ended with exit code 3" in done.sentence
        assert "It runs again" not in done.sentence


def test_a_restored_bot_that_stays_up_is_said_to(one: Fleet) -> None:
    dead_and_damaged(one)
    desk = one.desk()
    done = desk.restore("doge", desk.plan_restore("doge").id)
    assert done.data["lasts"] is True
    assert done.sentence.endswith(f" It runs again (pid {done.pid}) and is up for 1 s.")


def test_a_round_restores_without_an_assistant(one: Fleet) -> None:
    dead_and_damaged(one)
    done = one.desk(Actor.ROUND).round()
    assert [(report.action, report.result) for report in done.actions] == [("restore", Result.DONE)]
    assert wait_for(lambda: one.verdict().status is Status.HEALTHY)


KILLED_AFTER = """
import os, signal, sys
from pathlib import Path
from botkeep.model import Actor
from botkeep.rounds import Desk
from botkeep.workspace import Workspace
go_on = os.replace
def replace(old, new):
    go_on(old, new)
    if str(new).endswith("data/doge.csv"):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
Desk.open(Workspace(Path(sys.argv[1])), Actor.ROUND).round()
"""


@pytest.mark.parametrize("call", ["round()", "round_for(['doge'])"])
def test_damage_is_told_before_it_is_mended_so_that_a_kill_cannot_hide_it(one: Fleet, call: str) -> None:
    two_rows_lost(one)
    killed = subprocess.run([sys.executable, "-c", KILLED_AFTER.replace("round()", call), one.home], check=False)
    assert killed.returncode == -signal.SIGKILL
    (told,) = one.desk().ledger.entries(kinds=[Kind.ALERT])
    assert told.data["fault"] == Fault.DATA_CORRUPT


def two_rows_lost(one: Fleet) -> None:
    """Seen to be sound, then dead, with zeros where the end of one row and the beginning of the next were."""
    pid = one.up(rows=8)
    assert one.desk().back_up()[0].result is Result.DONE
    before = one.rows()
    wait_for(lambda: one.rows() >= before + 6)
    os.kill(pid, signal.SIGSTOP)
    one.desk().check(confirm=False)
    one.kill(pid)
    with one.data().open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        last = one.data().read_bytes().rstrip(b"\n").rfind(b"\n")
        assert last < size - 10
        file.seek(last - 5)
        file.write(b"\0" * 10)


def test_a_round_that_is_killed_when_the_new_file_is_in_place_leaves_a_bot_that_the_next_one_starts(one: Fleet) -> None:
    """What was verified before had more rows than could be restored: that must not keep the bot down for ever."""
    two_rows_lost(one)
    killed = subprocess.run([sys.executable, "-c", KILLED_AFTER, one.home], check=False)
    assert killed.returncode == -signal.SIGKILL
    done = one.desk(Actor.ROUND).round()
    assert [(report.action, report.result) for report in done.actions] == [("restart", Result.DONE)]
    (restored,) = one.desk().ledger.entries(bot="doge", kinds=[Kind.OUTCOME], action="restore")
    assert restored.result == "done"
    assert restored.sentence.endswith(" Whoever restored it was interrupted before it could say so.")
    assert one.verdict().status is Status.HEALTHY


def test_a_restore_that_was_killed_before_it_replaced_the_file_is_said_to_have_changed_nothing(one: Fleet) -> None:
    """A file that has only lost its torn end begins with just the bytes of the new one."""
    pid = one.up(rows=8)
    assert one.desk().back_up()[0].result is Result.DONE
    one.kill(pid)
    with one.data().open("ab") as file:
        file.write(b"2026-11-2")
    before = one.data().read_bytes()
    code = KILLED_AFTER.replace("    go_on(old, new)\n", "").replace("    if ", "    if not ", 1)
    code = code.replace("        os.kill(os.getpid(), signal.SIGKILL)", "        return go_on(old, new)")
    code = code.replace("os.replace = replace", "    os.kill(os.getpid(), signal.SIGKILL)\nos.replace = replace")
    killed = subprocess.run([sys.executable, "-c", code, one.home], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert one.data().read_bytes() == before
    done = one.desk(Actor.ROUND, clock=lambda: utc_now() + timedelta(hours=1)).round()  # it counts for the back-off
    assert [(report.action, report.result) for report in done.actions] == [("restore", Result.DONE)]
    first, second = one.desk().ledger.entries(bot="doge", kinds=[Kind.OUTCOME], action="restore")
    assert (first.result, second.result) == ("failed", "done")
    assert first.sentence == "doge: a restore was interrupted before it changed its data file."


def test_a_bot_that_trades_seldom_is_well_after_a_restore_that_could_not_bring_all_rows_back(one: Fleet) -> None:
    two_rows_lost(one)
    (one.home / "paper_bot.py").write_text("import time\nwhile True:\n    time.sleep(1)\n")
    done = one.desk(Actor.ROUND).round()
    assert [(report.action, report.result) for report in done.actions] == [("restore", Result.DONE)]
    assert one.verdict().status is Status.HEALTHY
    later = one.desk(Actor.ROUND, clock=lambda: utc_now() + timedelta(hours=1))
    for _ in range(2):
        verdict = later.check().verdicts[0]
        assert Fault.DATA_CORRUPT not in verdict.faults, verdict.sentence
    with one.data().open("r+b") as file:
        file.truncate(one.data().read_bytes().rstrip(b"\n").rfind(b"\n") + 1)
    assert later.check().verdicts[0].fault is Fault.DATA_CORRUPT, "rows that are lost after it are lost"


def test_a_round_that_comes_second_to_a_restore_does_nothing_and_calls_nobody(one: Fleet) -> None:
    dead_and_damaged(one)
    late = one.desk(Actor.ROUND)
    found = late.check().verdicts[0]
    assert one.desk(Actor.ROUND).round().actions[0].result is Result.DONE
    report = by_playbook.act_on(late.bench(), found)
    assert report
    assert report.result is Result.COALESCED, report.sentence
    assert "somebody else restored it meanwhile" in report.sentence
    assert one.verdict().status is Status.HEALTHY


def test_a_plan_is_for_one_use_and_for_the_very_damage_it_saw(one: Fleet) -> None:
    dead_and_damaged(one)
    desk = one.desk()
    plan = desk.plan_restore("doge")
    with pytest.raises(BotkeepError):
        desk.restore("doge", "no-such-plan")
    with one.data().open("r+b") as file:
        file.write(b"\0\0\0")
    with pytest.raises(BotkeepError, match="plan"):
        desk.restore("doge", plan.id)
    again = desk.plan_restore("doge")
    assert again.id != plan.id
    assert desk.restore("doge", again.id).result is Result.DONE
    with pytest.raises(BotkeepError):
        desk.restore("doge", again.id)


def test_damage_under_a_living_bot_takes_a_second_look_then_stops_it_first(one: Fleet) -> None:
    pid = one.up(rows=8)
    one.desk().back_up()
    with one.data().open("r+b") as file:
        file.seek(200)
        file.write(b"\0" * 60)
    found = one.verdict()
    assert found.fault is Fault.DATA_CORRUPT
    assert found.confirmed
    done = one.desk(Actor.ROUND).round()
    assert done.actions[0].result is Result.DONE, done.actions
    assert not alive(pid)
    assert wait_for(lambda: one.verdict().status is Status.HEALTHY)
    assert b"\0" not in one.data().read_bytes()


def test_a_sound_file_is_not_restored(one: Fleet) -> None:
    one.up()
    one.desk().back_up()
    with pytest.raises(BotkeepError, match=r"(?i)nothing"):
        one.desk().plan_restore("doge")


def test_a_truncated_file_comes_back_from_the_backup_alone(one: Fleet) -> None:
    pid = one.up(rows=8)
    one.desk().back_up()
    one.desk().check()
    kept = one.data().read_bytes()
    one.kill(pid)
    one.desk().check()
    os.truncate(one.data(), 0)
    assert one.verdict().fault is Fault.DATA_CORRUPT
    done = one.desk(Actor.ROUND).round()
    assert done.actions[0].result is Result.DONE
    assert one.data().read_bytes()[:200] == kept[:200]


def test_a_bot_that_rewrites_its_file_is_left_alone(tmp_path: Path) -> None:
    script = (
        "import time\n"
        "rows = []\n"
        "while True:\n"
        "    minute, second = divmod(len(rows), 60)\n"
        "    at = f'2026-11-21T09:{minute % 60:02}:{second:02}Z'\n"
        "    rows.append(f'{at},BTCUSDT,BUY,100.5,0.25,{len(rows)}\\n')\n"
        "    with open('data/doge.csv', 'w') as file:\n"
        "        file.write('time,symbol,side,price,qty,trade_id\\n')\n"
        "        for row in rows:\n"
        "            file.write(row)\n"
        "            file.flush()\n"
        "    time.sleep(0.01)\n"
    )
    bot = entry() | {"runtime": {"kind": "process", "command": ["python3", "rewriter.py"], "stop_grace": 2}}
    with fleet(tmp_path / "home", bot) as one:
        (one.home / "rewriter.py").write_text(script)
        one.up()
        for _ in range(15):
            done = one.desk(Actor.ROUND).round()
            assert not [report for report in done.actions if report.action == "restore"]


def test_the_report_counts_what_happened(one: Fleet) -> None:
    one.kill(one.up())
    one.desk(Actor.ROUND).round()
    desk = one.desk()
    text = desk.report_told(desk.report(utc_now() - timedelta(hours=1)), "plain")
    assert "doge" in text
    assert "1 restart" in text
    assert "USDT" in text
