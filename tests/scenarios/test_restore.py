"""Damaged trade files come back with proof, and a bot's own habits are never taken for damage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from botkeep.demo import tear
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


def test_a_round_that_comes_second_to_a_restore_does_nothing_and_calls_nobody(one: Fleet) -> None:
    dead_and_damaged(one)
    late = one.desk(Actor.ROUND)
    found = late.check().verdicts[0]
    assert one.desk(Actor.ROUND).round().actions[0].result is Result.DONE
    report = late._act_on(late.bench(), found)
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
    text = desk.report_told(desk.report(utc_now().replace(hour=0)), "plain")
    assert "doge" in text
    assert "1 restart" in text
    assert "USDT" in text
