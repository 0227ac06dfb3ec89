"""Restores of every kind of data file, killed at each call that changes a file: the old content or the new one."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from botkeep import backups, planning, restore
from botkeep.backups import LocalStore
from botkeep.config import Bot
from botkeep.formats import FORMATS, kind_of, sqlite_settling
from botkeep.model import BotkeepError, Fill
from botkeep.plans import RestorePlan
from botkeep.restore import RestoreProof
from botkeep.workspace import Workspace
from support import forks, kills
from support.formats import FACTORIES
from support.formats.base import Files
from support.trade_files import row

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def leave_in_wal(path: Path, rows: int, first: int) -> None:
    """These fills, committed by a process that is killed before it folds its -wal into the file."""

    def work() -> None:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode = wal")
        cells = [row(number).strip().split(",") for number in range(first, first + rows)]
        connection.executemany("INSERT INTO fills VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", cells)
        connection.commit()
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(forks.start(work), 0)


class Case:
    """A bot whose file lost some rows and got others since its backup."""

    rows = 50
    """In the backup."""

    def __init__(self, home: Path, kind: str) -> None:
        self.workspace = Workspace(home)
        self.workspace.prepare()
        self.files: Files = FACTORIES[kind]
        self.kind = FORMATS[kind]
        self.path = home / "data" / self.files.name
        self.path.parent.mkdir()
        self.bot = Bot(name="doge", data_file=self.path)
        self.options = self.bot.format_options()
        self.store = LocalStore(self.workspace.backups_dir, keep_free=0)
        self.files.write(self.path, self.rows, 0)
        backups.back_up(
            self.bot,
            self.store,
            format=self.kind,
            options=self.options,
            now=NOW - timedelta(hours=2),
            head=(1, "0" * 64),
        )
        self.damage()
        self.whole = self.planned().counts.rows

    def damage(self) -> None:
        """Four fills more, one of the old ones spoilt; of a database, all of it in a -wal that nobody folds in."""
        for beside in self.path.parent.iterdir():
            beside.unlink()
        self.files.write(self.path, 50, 0)
        self.files.append(self.path, 4, 50)
        self.files.spoil(self.path, 7)
        if self.kind.KIND == "sqlite":
            leave_in_wal(self.path, 5, 54)
        self.old = self.content()

    def planned(self) -> RestorePlan:
        return planning.plan(self.bot, self.workspace, (self.store,), NOW)

    def apply(self, plan_id: str) -> RestoreProof:
        made = restore.load_plan(self.workspace, self.bot, plan_id, NOW)
        return restore.apply_files(made, self.bot, self.workspace, NOW, stores=(self.store,))

    def content(self) -> tuple[Fill, ...]:
        """All that can be read."""
        return self.kind.trades(self.path, options=self.options).fills


@pytest.fixture(params=sorted(set(FORMATS) - {"parquet"}))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(tmp_path, request.param)


TEXT_CALLS = kills.CALLS
"""Every call by which Python changes a file."""
DATABASE_CALLS = ("pwrite64", "fsync", "rename", "unlink", "ftruncate", "rmdir")
"""And those by which SQLite does; Python's plain writes of the plan are the same as for text."""
LOOPS = [
    *((kind, TEXT_CALLS) for kind in sorted(set(FORMATS) - {"parquet", "sqlite"})),
    *(("sqlite", (call,)) for call in DATABASE_CALLS),
]


@kills.needs_strace
@pytest.mark.parametrize(("kind", "calls"), LOOPS, ids=lambda one: one if isinstance(one, str) else one[0])
def test_a_restore_killed_at_any_call_leaves_the_old_content_or_the_new_one_and_can_be_resumed(
    kind: str, calls: tuple[str, ...], tmp_path: Path
) -> None:
    case = Case(tmp_path, kind)
    found = case.planned()
    rows, old = len(case.content()) + 1, case.old
    seen = {"old": 0, "new": 0}

    def prepare() -> None:
        nonlocal found, old
        case.damage()
        found, old = case.planned(), case.old

    for _ in kills.at_each_call(lambda: case.apply(found.id) and None, prepare, calls):
        now = case.content()
        assert now == old or len(now) == rows, "a third state"
        seen["new" if len(now) == rows else "old"] += 1
        assert backups.newest_good(case.store, "doge") is not None
        try:
            assert case.apply(found.id).rows_after == case.whole
        except BotkeepError as done:
            assert "was carried out" in str(done)  # noqa: PT017 - either answer is right, by when it was killed
        assert len(case.content()) == rows
        assert [path.name for path in case.path.parent.iterdir()] == [case.files.name], "nothing is left beside it"
        kept = [path for path in case.workspace.quarantine_dir.rglob(case.files.name) if path.is_file()]
        assert kept, "the damaged file is in quarantine"
    assert seen["old"] + seen["new"] > 0, "no such call was made"
    if len(calls) > 1:
        assert seen["old"] > 5
        assert seen["new"] > 0


class Halved(Case):
    """A database whose second half is lost, with a -wal beside it that SQLite will not fold into what is left."""

    rows = 3000
    """What is lost is more than SQLite takes for a file that was about to grow."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, "sqlite")

    @property
    def wal(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    def damage(self) -> None:
        """Nine fills more since the backup, five of them only in the -wal; then the main file is cut."""
        for beside in self.path.parent.iterdir():
            beside.unlink()
        self.files.write(self.path, self.rows, 0)
        self.files.append(self.path, 4, self.rows)
        leave_in_wal(self.path, 5, self.rows + 4)
        os.truncate(self.path, self.path.stat().st_size // 2)
        self.old = ()
        self.cut = self.path.read_bytes()
        self.log = self.wal.read_bytes()


def test_a_database_that_sqlite_cannot_fold_is_restored_all_the_same(tmp_path: Path) -> None:
    case = Halved(tmp_path)
    assert case.log
    with closing(sqlite3.connect(case.path)) as base, pytest.raises(sqlite3.DatabaseError, match="malformed"):
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    case.damage()
    proof = case.apply(case.planned().id)
    assert proof.rows_after == case.whole == len(case.content()) > case.rows, "fills that only the -wal had are there"
    assert [path.name for path in case.path.parent.iterdir()] == [case.files.name]
    assert (proof.quarantine / case.wal.name).read_bytes() == case.log
    assert (proof.quarantine / case.path.name).read_bytes() == case.cut


@kills.needs_strace
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_no_restore_of_a_database_that_cannot_be_folded_leaves_its_log_beside_the_new_file(
    call: str, tmp_path: Path
) -> None:
    case = Halved(tmp_path)
    found = case.planned()
    seen: set[tuple[bool, bool]] = set()

    def prepare() -> None:
        nonlocal found
        case.damage()
        found = case.planned()

    for _ in kills.at_each_call(lambda: case.apply(found.id) and None, prepare, (call,)):
        old, logged = case.path.read_bytes() == case.cut, case.wal.exists()
        seen.add((old, logged))
        assert old or not logged, "a new file beside an old log"
        assert old or len(case.content()) == case.whole, "a third state"
        assert not logged or case.wal.read_bytes() == case.log
        try:
            assert case.apply(found.id).rows_after == case.whole
        except BotkeepError as done:
            assert "was carried out" in str(done)  # noqa: PT017 - either answer is right, by when it was killed
        assert len(case.content()) == case.whole
        assert [path.name for path in case.path.parent.iterdir()] == [case.files.name], "nothing is left beside it"
    assert (True, True) in seen
    if call == "rename":
        assert (True, False) in seen, "it was not killed between the log's end and the new file"


@kills.needs_strace
def test_settling_what_cannot_be_folded_never_touches_the_file_and_can_be_killed_at_any_call(tmp_path: Path) -> None:
    case = Halved(tmp_path)

    def work() -> None:
        assert sqlite_settling.settle(case.path, case.options) == {"settled": False}

    left = set()
    for _ in kills.at_each_call(work, case.damage, DATABASE_CALLS):
        assert case.path.read_bytes() == case.cut
        left.add(case.wal.exists())
        work()
        assert case.path.read_bytes() == case.cut
        assert [path.name for path in case.path.parent.iterdir()] == [case.files.name]
    assert left == {True, False}


def test_the_quarantine_holds_what_belongs_to_a_database_too(tmp_path: Path) -> None:
    case = Case(tmp_path, "sqlite")
    wal = case.path.with_name(case.path.name + "-wal").read_bytes()
    assert wal
    proof = case.apply(case.planned().id)
    assert (proof.quarantine / f"{case.files.name}-wal").read_bytes() == wal
    assert not case.path.with_name(case.path.name + "-wal").exists()
    assert len(case.content()) == proof.rows_after


def test_a_restore_keeps_owner_and_mode_of_every_kind_of_file(case: Case) -> None:
    case.path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(case.path, 65534, 65534)
    before = case.path.stat()
    case.apply(case.planned().id)
    after = case.path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert kind_of(case.path) == case.kind.KIND
