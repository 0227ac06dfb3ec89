"""The book of a real bot's database, through a crash, a bad disk and a lost log; and backups that lie elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from botkeep.formats import FORMATS, FormatOptions
from botkeep.model import Actor, ClosedTrade, Fault, Result, Status
from support import s3
from support.fleet import Fleet, entry, fleet, wait_for
from support.trade_files import DATA

PROGRAM = Path(__file__).parents[1] / "support" / "database_bot.py"
OPTIONS = FormatOptions()


def database_entry() -> dict[str, Any]:
    """A bot that keeps its trades as freqtrade does."""
    runtime = {"kind": "process", "command": [sys.executable, "database_bot.py", "data/doge.sqlite"], "stop_grace": 3}
    return {**entry(), "data_file": "data/doge.sqlite", "runtime": runtime}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Fleet]:
    """One bot with a dry run's database: 308 closed trades, 4 open ones."""
    with fleet(tmp_path / "home", database_entry()) as one:
        shutil.copyfile(PROGRAM, one.home / "database_bot.py")
        shutil.copyfile(DATA / "freqtrade/tradesv3.dryrun.sqlite", path_of(one))
        yield one


def path_of(one: Fleet) -> Path:
    """The database."""
    return one.home / "data/doge.sqlite"


def closed(one: Fleet) -> tuple[ClosedTrade, ...]:
    """All that can be read of it."""
    return FORMATS["sqlite"].trades(path_of(one), options=OPTIONS).closed


def trade(one: Fleet, more: int = 5) -> int:
    """Start it if need be, have it trade, back it up, have it trade on; its pid."""
    pid = int(one.desk().restart("doge", "start").pid or 0)
    before = len(closed(one))
    wait_for(lambda: len(closed(one)) >= before + more)
    assert one.desk().back_up()[0].result is Result.DONE
    wait_for(lambda: len(closed(one)) >= before + 2 * more)
    return pid


def sound(one: Fleet) -> bool:
    """Whether SQLite finds nothing wrong with it."""
    with closing(sqlite3.connect(path_of(one))) as base:
        return bool(base.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def test_a_page_that_the_disk_lost_comes_back_with_the_trades_since_the_backup(book: Fleet) -> None:
    pid = trade(book)
    book.kill(pid)
    known = {one.id for one in closed(book)}
    assert known
    with closing(sqlite3.connect(path_of(book))) as base:
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path_of(book).open("r+b") as file:
        file.seek(4096 * 20)
        file.write(bytes(4096))
    found = book.verdict()
    assert found.fault is Fault.DATA_CORRUPT, found.sentence
    done = book.desk(Actor.ROUND).round().actions[0]
    assert (done.action, done.result) == ("restore", Result.DONE), done.sentence
    assert wait_for(lambda: book.verdict().status is Status.HEALTHY)
    assert known <= {one.id for one in closed(book)}
    book.desk().stop("doge", "look at it")
    assert sound(book)


def test_a_log_that_was_deleted_is_noticed_before_the_bot_trades_on(book: Fleet) -> None:
    pid = trade(book)
    book.desk().check()
    rows = len(closed(book))
    book.kill(pid)
    for suffix in ("-wal", "-shm"):
        path_of(book).with_name(f"doge.sqlite{suffix}").unlink()
    assert len(closed(book)) < rows
    found = book.verdict()
    assert found.fault is Fault.DATA_CORRUPT, found.sentence
    done = book.desk(Actor.ROUND).round().actions[0]
    assert (done.action, done.result) == ("restore", Result.DONE), done.sentence
    assert done.data["rows_after"] > 312
    assert wait_for(lambda: book.verdict().status is Status.HEALTHY)


def test_an_empty_database_after_a_crash_is_no_fresh_start(book: Fleet) -> None:
    pid = trade(book)
    book.desk().check()
    book.kill(pid)
    for path in path_of(book).parent.iterdir():
        path.unlink()
    path_of(book).touch()
    assert book.verdict().fault is Fault.DATA_CORRUPT
    done = book.desk(Actor.ROUND).round().actions[0]
    assert (done.action, done.result) == ("restore", Result.DONE), done.sentence
    assert len(closed(book)) > 308


# --- where backups are -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with s3.moto() as address:
        yield address


def configure(one: Fleet, **backup: Any) -> None:
    """Set `backup` of bots.json."""
    path = one.home / "config/bots.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "backup": backup}))


@pytest.fixture
def away(tmp_path: Path, moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A paper bot whose backups have a second copy in a bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.SECRET)
    with fleet(tmp_path / "home") as one:
        configure(one, s3={"bucket": s3.BUCKET, "prefix": f"books{os.getpid()}", "endpoint": moto})
        yield one


def test_a_machine_that_lost_its_backups_restores_from_the_bucket(away: Fleet) -> None:
    pid = away.up(rows=8)
    kept = away.desk().back_up()[0]
    assert (kept.result, kept.data["second"]["ok"], kept.data["second"]["pending"]) == (Result.DONE, True, 0)
    away.desk().check()
    rows = away.rows()
    away.kill(pid)
    away.desk().check()
    shutil.rmtree(away.home / ".botkeep/backups")
    away.data().write_bytes(b"")
    done = away.desk(Actor.ROUND).round().actions[0]
    assert (done.action, done.result) == ("restore", Result.DONE), done.sentence
    assert done.data["rows_after"] >= 8
    assert rows >= 8
    assert wait_for(lambda: away.verdict().status is Status.HEALTHY)


def test_a_bucket_that_is_away_fails_no_backup_and_is_told(away: Fleet) -> None:
    away.up(rows=8)
    configure(away, s3={"bucket": s3.BUCKET, "endpoint": f"http://127.0.0.1:{s3.free_port()}"})
    kept = away.desk().back_up()[0]
    assert kept.result is Result.DONE
    assert kept.data["second"]["ok"] is False
    assert "The second store" in away.journal()
    report = away.desk().report(kept_since(away))
    assert report.bots[0].second is not None
    assert not report.bots[0].second.ok


def kept_since(one: Fleet) -> Any:
    """An hour ago."""
    from datetime import timedelta

    return one.desk().clock() - timedelta(hours=1)


def botkeep(one: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, as a person runs it."""
    command = [sys.executable, "-m", "botkeep", "--home", str(one.home), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_person_checks_lists_and_prunes_the_stores(away: Fleet) -> None:
    away.up(rows=8)
    away.desk(Actor.PERSON).back_up()
    told = botkeep(away, "store", "check")
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("All of it is as it was stored.") == 2
    assert "doge: 1 backups" in botkeep(away, "store", "list").stdout
    dry = botkeep(away, "store", "prune", "--dry-run")
    assert (dry.returncode, dry.stdout.count("0 backups and 0 objects would be removed")) == (0, 2), dry.stdout
    damaged = next((away.home / ".botkeep/backups/objects").rglob("*/*/*"))
    damaged.chmod(0o600)
    damaged.write_bytes(b"other bytes")
    told = botkeep(away, "store", "check")
    assert told.returncode == 1
    assert "doge: damaged: objects/doge/" in told.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("store", "check", "--dry-run"), "changes nothing"),
        (("store", "check", "--sample", "2"), "is no share"),
        (("backup", "--accept", "why not"), "name the bots"),
        (("pnl", "--mark", "BTC"), "is no price"),
        (("pnl", "--rate", "BNB=6"), "is no rate"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    with fleet(tmp_path / "home") as one:
        told = botkeep(one, *words)
    assert told.returncode == 2
    assert said in told.stderr
    assert "Traceback" not in told.stderr


def test_a_backup_folder_that_vanished_is_said_and_the_bots_are_still_looked_at(tmp_path: Path) -> None:
    with fleet(tmp_path / "home") as one:
        folder = tmp_path / "mount" / "botkeep"
        folder.mkdir(parents=True)
        configure(one, folder=str(folder))
        one.up(rows=4)
        assert one.desk().back_up()[0].result is Result.DONE
        assert list(folder.rglob("*.json"))
        shutil.rmtree(tmp_path / "mount")
        failed = one.desk().back_up()[0]
        assert failed.result is Result.FAILED
        assert str(folder) in failed.sentence
        assert not folder.exists(), "no new empty store where one was"
        assert one.verdict().status is Status.HEALTHY
        assert [str(folder) in str(told) for told in one.desk().store_check()] == [True]


def test_the_weekly_proof_is_made_once_and_is_in_the_report(tmp_path: Path) -> None:
    with fleet(tmp_path / "home") as one:
        one.up(rows=4)
        one.desk(Actor.ROUND).back_up()
        report = one.desk().report(kept_since(one))
        assert report.bots[0].proof is not None
        assert report.bots[0].proof.ok
        assert "was restored into a folder and read" in one.journal()
        one.desk(Actor.ROUND).back_up()
        assert one.journal().count("was restored into a folder and read") == 1
