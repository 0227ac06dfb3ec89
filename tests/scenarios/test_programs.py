"""Bots of one shared program: whose copy is whose, what a restart keeps, and when it is done."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from botkeep.model import Actor, Fault, Result, Status
from support.fleet import Fleet, alive, fleet, wait_for

HERE = Path(__file__).parents[1]
WORDS = ("trade", "--config", "config.json")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """One installation for all of them, as a virtual environment is."""
    path = tmp_path / "bin/freqtrade"
    path.parent.mkdir()
    source = (HERE / "support/small_freqtrade.py").read_text()
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)
    return path


def entry(program: Path, *words: str, **more: object) -> dict[str, object]:
    return {
        "name": "keeper",
        "data_file": "bot/tradesv3.sqlite",
        "log_file": "bot/freqtrade.log",
        "runtime": {
            "kind": "process", "command": [str(program), *words], "cwd": "bot", "stop_grace": 2, "env": {"TZ": "UTC"},
        },
        **more,
    }  # fmt: skip


@pytest.fixture
def make(tmp_path: Path, program: Path) -> Iterator[Callable[..., Fleet]]:
    opened = []

    def go(*words: str) -> Fleet:
        context = fleet(tmp_path / "home", entry(program, *(words or WORDS)))
        one = context.__enter__()
        opened.append(context)
        folder(one.home / "bot")
        one.edit("bot-not-running", r"within: \w+}", "within: 15s}")
        return one

    yield go
    for context in opened:
        context.__exit__(None, None, None)


def folder(place: Path) -> Path:
    """Where a bot works: its database and its configuration."""
    place.mkdir()
    (place / "config.json").write_text("{}")
    database = place / "tradesv3.sqlite"
    shutil.copyfile(HERE / "data/freqtrade/tradesv3.dryrun.sqlite", database)
    with closing(sqlite3.connect(database)) as base, base:  # as if it had traded until now
        (days,) = base.execute("SELECT julianday('now') - max(julianday(close_date)) FROM trades").fetchone()
        for column in ("open_date", "close_date"):
            moved = f"strftime('%Y-%m-%d %H:%M:%f', julianday({column}) + ?)"
            base.execute(f"UPDATE trades SET {column} = {moved} WHERE {column} IS NOT NULL", (days,))
    return place


def up(one: Fleet) -> int:
    report = one.desk().restart("keeper", "first start")
    assert report.result is Result.DONE, report.sentence
    return int(report.pid or 0)


def by_hand(one: Fleet, program: Path, *words: str, place: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([program, *words], cwd=place, env={**os.environ, "TZ": "UTC"})
    one.others.append(process)
    return process


def writes(pid: int, path: Path) -> bool:
    return any(os.path.realpath(one) == str(path) for one in Path(f"/proc/{pid}/fd").iterdir())


def test_somebody_elses_bot_of_the_same_program_and_the_same_words_is_left_alone(
    make: Callable[..., Fleet], program: Path, tmp_path: Path
) -> None:
    one = make()
    theirs = by_hand(one, program, *WORDS, place=folder(tmp_path / "theirs"))
    wait_for(lambda: writes(theirs.pid, tmp_path / "theirs/tradesv3.sqlite"))
    pid = up(one)
    verdict = one.verdict("keeper")
    assert (verdict.status, verdict.pid) == (Status.HEALTHY, pid), verdict.sentence
    assert one.desk(Actor.PERSON).stop("keeper", "by hand").result is Result.DONE
    assert not alive(pid)
    assert theirs.poll() is None


def test_a_configuration_named_in_one_word_is_another_one_in_another_folder(
    make: Callable[..., Fleet], program: Path, tmp_path: Path
) -> None:
    words = ("trade", "--config=config.json", "--userdir", str(tmp_path))
    one = make(*words)
    theirs = by_hand(one, program, *words, place=folder(tmp_path / "theirs"))
    wait_for(lambda: writes(theirs.pid, tmp_path / "theirs/tradesv3.sqlite"))
    pid = up(one)
    assert one.desk(Actor.PERSON).restart("keeper", "by hand").result is Result.DONE
    assert not alive(pid)
    assert theirs.poll() is None


def test_a_bot_is_not_stopped_for_a_start_that_would_not_be_allowed(make: Callable[..., Fleet]) -> None:
    one = make()
    pid = up(one)
    with (one.home / "bot/tradesv3.sqlite").open("ab"):
        report = one.desk(Actor.PERSON).restart("keeper", "by hand")
    assert report.result is Result.REFUSED
    assert f"pid {os.getpid()} has its data file open" in report.sentence
    assert alive(pid)


@pytest.mark.parametrize("words", [WORDS, ("trade", "--db-url", "{database}")], ids=["same words", "other words"])
def test_a_copy_on_the_same_database_is_found_and_brought_back_to_one(
    make: Callable[..., Fleet], program: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    one = make()
    pid = up(one)
    database = one.home / "bot/tradesv3.sqlite"
    place = one.home / "bot" if words == WORDS else tmp_path
    copy = by_hand(one, program, *(word.format(database=database) for word in words), place=place)
    wait_for(lambda: writes(copy.pid, database))
    verdict = one.verdict("keeper")
    assert verdict.fault is Fault.BOT_DUPLICATED, verdict.sentence
    (action,) = one.desk().round().actions
    assert action.result is Result.DONE, action.sentence
    assert copy.wait(10) is not None
    assert not alive(pid)
    assert action.pid
    assert alive(action.pid)


@pytest.mark.parametrize("state", ["STOPPED", "PAUSED"])
def test_a_state_that_a_person_set_is_kept_over_a_restart(make: Callable[..., Fleet], state: str) -> None:
    one = make()
    pid = up(one)
    (one.home / "bot/state").write_text(state)
    wait_for(
        lambda: (
            f"state='{state.lower()}'" in one.verdict("keeper").sentence
            or state.lower() in one.verdict("keeper").sentence
        )
    )
    (one.home / "bot/state").unlink()
    one.kill(pid)
    (action,) = one.desk().round().actions
    assert action.result is Result.DONE, action.sentence
    assert f"comes up {state.lower()}, as it was left" in action.sentence
    assert one.verdict("keeper").program.state == state.lower()


def test_a_start_is_done_when_the_new_process_has_sent_its_own_heartbeat(make: Callable[..., Fleet]) -> None:
    report_of_one = make()
    report = report_of_one.desk().restart("keeper", "first start")
    assert "says that it works" in report.sentence


def test_a_start_that_says_nothing_is_not_called_done(make: Callable[..., Fleet]) -> None:
    one = make("trade", "--mute")
    one.edit("bot-not-running", r"within: \w+}", "within: 2s}")
    report = one.desk().restart("keeper", "first start")
    assert report.result is Result.VERIFYING, report.sentence
    assert one.verdict("keeper").status is Status.HEALTHY
    assert [intent.bot for intent in one.desk().ledger.open_intents()] == ["keeper"]


def test_a_bot_that_stopped_itself_over_an_error_does_not_come_up_stopped(make: Callable[..., Fleet]) -> None:
    one = make()
    pid = up(one)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]
    with (one.home / "bot/freqtrade.log").open("a") as log:
        log.write(f"{now} - freqtrade.worker - ERROR - OperationalException. Stopping trader ...\n")
    (one.home / "bot/state").write_text("STOPPED")
    wait_for(lambda: one.verdict("keeper").program.state == "stopped")
    assert one.verdict("keeper").fault is Fault.BOT_IMPAIRED
    (one.home / "bot/state").unlink()
    one.kill(pid)
    (action,) = one.desk().round().actions
    assert action.result is Result.DONE, action.sentence
    assert "as it was left" not in action.sentence
    assert one.verdict("keeper").program.state == "running"
