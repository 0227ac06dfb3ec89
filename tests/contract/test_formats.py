"""What every format promises. A new format is one more factory in FACTORIES."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botkeep.formats import FORMATS, Format, FormatOptions, kind_of
from botkeep.formats.base import inspect_whole
from botkeep.model import BotkeepError, DataVerdict, Fill, Inspection
from support.trade_files import row, table

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
OPTIONS = FormatOptions()
START = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Files:
    """How a bot writes fills in a format: fill n is made at minute n, of 100 DOGE, with trade id 1000 + n."""

    name: str
    write: Callable[[Path, int, int], None]
    """(path, rows, first): a new file with these fills."""
    append: Callable[[Path, int, int], None]
    """(path, rows, first): add them, as the bot does."""
    tear: Callable[[Path], None]
    """Leave half of one more fill at the end, as a bot that was killed."""
    spoil: Callable[[Path, int], None]
    """Make the fill of that number unreadable, in its place."""


def _write_csv(path: Path, rows: int, first: int) -> None:
    path.write_text(table(rows, start=first))


def _append_csv(path: Path, rows: int, first: int) -> None:
    with path.open("a") as file:
        file.write("".join(row(number) for number in range(first, first + rows)))


def _tear_csv(path: Path) -> None:
    with path.open("a") as file:
        file.write(row(999)[:33])


def _spoil_csv(path: Path, number: int) -> None:
    line = row(number).encode()
    path.write_bytes(path.read_bytes().replace(line, bytes(len(line) - 1) + b"\n"))


FACTORIES: dict[str, Files] = {
    "csv": Files("trades.csv", _write_csv, _append_csv, _tear_csv, _spoil_csv),
}


def test_every_format_has_a_factory_here() -> None:
    assert set(FACTORIES) == set(FORMATS)


class Subject:
    """A format with a file of fifty fills."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind: Format = FORMATS[kind]
        self.files = FACTORIES[kind]
        self.folder = folder
        self.path = folder / self.files.name
        self.files.write(self.path, 50, 0)

    def inspect(self, cursor: dict[str, Any] | None = None, *, writing: bool = False, later: float = 0) -> Inspection:
        now = NOW + timedelta(seconds=later)
        return self.kind.inspect(self.path, options=OPTIONS, cursor=cursor, writing=writing, now=now)

    def fills(self, path: Path | None = None) -> tuple[Fill, ...]:
        return self.kind.trades(path or self.path, options=OPTIONS).fills

    def copy(self, name: str) -> Path:
        target = self.folder / f"{name}-of-{self.files.name}"
        self.kind.snapshot(self.path, target, options=OPTIONS)
        return target


@pytest.fixture(params=sorted(FORMATS))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    return Subject(request.param, tmp_path)


def test_the_module_is_what_its_kind_says(subject: Subject) -> None:
    assert FORMATS[subject.kind.KIND] is subject.kind
    assert kind_of(subject.path) == subject.kind.KIND


def test_a_sound_file_is_ok_and_its_rows_and_tempo_are_known(subject: Subject) -> None:
    for writing in (True, False):
        seen = subject.inspect(writing=writing)
        assert (seen.verdict, seen.rows, seen.findings) == (DataVerdict.OK, 50, ())
        assert seen.size == subject.path.stat().st_size
        assert seen.tempo.newest == START + timedelta(minutes=49)
        assert sum(count for _, count in seen.tempo.per_hour) == 50


def test_a_look_changes_nothing(subject: Subject) -> None:
    before, data = subject.path.stat(), subject.path.read_bytes()
    subject.inspect(subject.inspect().cursor)
    subject.fills()
    subject.copy("a")
    after = subject.path.stat()
    assert subject.path.read_bytes() == data
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_the_second_look_reads_on_from_the_first(subject: Subject) -> None:
    first = subject.inspect()
    subject.files.append(subject.path, 5, 50)
    second = subject.inspect(json.loads(json.dumps(first.cursor)), writing=True)
    assert (second.verdict, second.rows) == (DataVerdict.OK, 55)
    assert second.read_from >= (first.size or 0)
    assert second.identity != first.identity


def test_an_unchanged_file_has_the_same_identity(subject: Subject) -> None:
    first = subject.inspect()
    assert subject.inspect(first.cursor).identity == first.identity


def test_a_torn_end_is_pending_while_somebody_writes_and_corrupt_after(subject: Subject) -> None:
    subject.files.tear(subject.path)
    assert subject.inspect(writing=True).verdict is DataVerdict.PENDING
    seen = subject.inspect()
    assert (seen.verdict, seen.rows, seen.findings[0].certain) == (DataVerdict.CORRUPT, 50, True)


def test_a_spoilt_row_is_found_and_not_forgotten(subject: Subject) -> None:
    subject.files.spoil(subject.path, 7)
    first = subject.inspect(writing=True)
    assert first.verdict is DataVerdict.SUSPECT
    subject.files.append(subject.path, 1, 50)
    assert subject.inspect(first.cursor, writing=True, later=31).verdict is DataVerdict.CORRUPT
    assert subject.inspect().verdict is DataVerdict.CORRUPT


def test_lost_rows_are_corrupt_and_rotated_ones_are_not(subject: Subject) -> None:
    first = subject.inspect()
    shutil.copy(subject.path, subject.path.with_name(subject.path.name + ".1"))
    subject.files.write(subject.path, 3, 50)
    assert subject.inspect(first.cursor).verdict in (DataVerdict.REPLACED, DataVerdict.OK)
    subject.path.with_name(subject.path.name + ".1").unlink()
    seen = subject.inspect(first.cursor)
    assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.CORRUPT, "C10")


def test_what_is_not_there_or_no_file_is_said_so_at_once(subject: Subject) -> None:
    first = subject.inspect()
    subject.path.unlink()
    assert subject.inspect().verdict is DataVerdict.MISSING
    assert subject.inspect().findings == ()
    assert subject.inspect(first.cursor).findings[0].rule == "C14"
    for make in (os.mkdir, os.mkfifo):
        make(subject.path)
        assert subject.inspect(first.cursor).verdict is DataVerdict.UNREADABLE
        with pytest.raises(BotkeepError):
            subject.fills()
        with pytest.raises(BotkeepError):
            subject.copy("x")
        (subject.path.rmdir if subject.path.is_dir() else subject.path.unlink)()


def test_fills_are_read_exactly(subject: Subject) -> None:
    fills = subject.fills()
    assert [fill.at for fill in fills] == [START + timedelta(minutes=number) for number in range(50)]
    assert fills[3] == Fill(
        at=START + timedelta(minutes=3), symbol="DOGEUSDT", side="sell", price=Decimal("0.100003"),
        amount=Decimal("100.0"), fee=Decimal("0.01"), fee_currency="USDT", id="1003", order_id="5001", quote="USDT",
    )  # fmt: skip


def test_rows_that_cannot_be_read_are_counted_not_fatal(subject: Subject) -> None:
    subject.files.spoil(subject.path, 7)
    read = subject.kind.trades(subject.path, options=OPTIONS)
    assert (len(read.fills), read.skipped) == (49, 1)
    assert read.notes


def test_a_snapshot_holds_the_same_trades_and_is_sound(subject: Subject) -> None:
    subject.files.tear(subject.path)
    copy = subject.copy("snapshot")
    assert subject.fills(copy) == subject.fills()
    assert inspect_whole(subject.kind, copy, options=OPTIONS, now=NOW).verdict is DataVerdict.OK


def test_a_rebuilt_file_has_the_backups_rows_and_the_newer_sound_ones(subject: Subject) -> None:
    good = subject.copy("good")
    subject.files.append(subject.path, 4, 50)
    whole = subject.fills()
    subject.files.spoil(subject.path, 7)
    subject.files.tear(subject.path)
    target = subject.folder / f"new-{subject.files.name}"
    made = subject.kind.rebuild(good, subject.path, target, options=OPTIONS)
    assert subject.fills(target) == whole
    assert (made.rows, made.kept, made.salvaged, made.dropped) == (54, 50, 4, 2)
    assert inspect_whole(subject.kind, target, options=OPTIONS, now=NOW).verdict is DataVerdict.OK


def test_a_missing_file_is_rebuilt_from_the_backup_alone(subject: Subject) -> None:
    good, whole = subject.copy("good"), subject.fills()
    subject.path.unlink()
    target = subject.folder / f"new-{subject.files.name}"
    made = subject.kind.rebuild(good, subject.path, target, options=OPTIONS)
    assert (made.rows, subject.fills(target)) == (50, whole)


def test_without_a_backup_the_sound_rows_are_salvaged(subject: Subject) -> None:
    subject.files.spoil(subject.path, 7)
    subject.files.tear(subject.path)
    target = subject.folder / f"new-{subject.files.name}"
    made = subject.kind.rebuild(None, subject.path, target, options=OPTIONS)
    assert (made.rows, made.kept, made.dropped) == (49, 0, 2)
    assert len(subject.fills(target)) == 49
