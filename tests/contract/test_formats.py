"""What every format promises. A new format is one more factory in `support.formats.FACTORIES`."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botkeep.formats import FORMATS, Format, FormatOptions, kind_of
from botkeep.formats.base import inspect_whole
from botkeep.model import BotkeepError, DataVerdict, Fill, Inspection
from support.formats import FACTORIES

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
OPTIONS = FormatOptions()
START = datetime(2026, 11, 1, tzinfo=UTC)
WHOLE = frozenset({"parquet"})
"""Kinds that are written anew each time, and of which no row can be read while the end is missing."""


def test_every_format_has_a_factory_here() -> None:
    assert set(FACTORIES) == set(FORMATS)


class Subject:
    """A format with a file of fifty fills."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind: Format = FORMATS[kind]
        self.files = FACTORIES[kind]
        self.folder = folder
        self.whole = kind in WHOLE
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
    assert second.read_from >= (0 if subject.whole else (first.size or 0) - 8), "a closing bracket is read again"
    assert second.identity != first.identity


def test_an_unchanged_file_has_the_same_identity(subject: Subject) -> None:
    first = subject.inspect()
    assert subject.inspect(first.cursor).identity == first.identity


def test_a_torn_end_is_pending_while_somebody_writes_and_corrupt_after(subject: Subject) -> None:
    subject.files.tear(subject.path)
    assert subject.inspect(writing=True).verdict is DataVerdict.PENDING
    seen = subject.inspect()
    rows = None if subject.whole else 50
    assert (seen.verdict, seen.rows, seen.findings[0].certain) == (DataVerdict.CORRUPT, rows, True)


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
    if not subject.whole:
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
    newer = 0 if subject.whole else 4
    assert subject.fills(target) == whole[: 50 + newer]
    assert (made.rows, made.kept, made.salvaged) == (50 + newer, 50, newer)
    assert made.dropped == 2 or subject.whole
    assert inspect_whole(subject.kind, target, options=OPTIONS, now=NOW).verdict is DataVerdict.OK


def test_a_missing_file_is_rebuilt_from_the_backup_alone(subject: Subject) -> None:
    good, whole = subject.copy("good"), subject.fills()
    subject.path.unlink()
    target = subject.folder / f"new-{subject.files.name}"
    made = subject.kind.rebuild(good, subject.path, target, options=OPTIONS)
    assert (made.rows, subject.fills(target)) == (50, whole)


def test_without_a_backup_the_sound_rows_are_salvaged(subject: Subject) -> None:
    subject.files.spoil(subject.path, 7)
    if not subject.whole:
        subject.files.tear(subject.path)
    target = subject.folder / f"new-{subject.files.name}"
    made = subject.kind.rebuild(None, subject.path, target, options=OPTIONS)
    assert (made.kept, made.dropped) == (0, 1 if subject.whole else 2)
    assert len(subject.fills(target)) == made.rows == 49


def test_where_nothing_can_be_salvaged_it_is_said(subject: Subject) -> None:
    subject.path.write_bytes(b"<html>502 Bad Gateway</html>")
    with pytest.raises(BotkeepError):
        subject.kind.rebuild(None, subject.path, subject.folder / "new", options=OPTIONS)


# --- adding, comparing, and what a plan is bound to --------------------------------------------------------------


def test_trades_are_added_as_the_file_writes_them_or_left_out_with_the_reason(subject: Subject) -> None:
    whole = subject.fills()
    subject.files.write(subject.path, 20, 0)
    subject.files.append(subject.path, 25, 25)
    gap, beginning = whole[20:25], subject.fills()
    made = subject.kind.append(subject.path, [*reversed(gap)], options=OPTIONS)
    assert made.rows == 45 + 5 - len(made.left_out)
    assert made.size == subject.path.stat().st_size
    if made.left_out:
        assert (len(made.left_out), subject.fills()) == (5, beginning), "all or nothing: the columns are the same"
        assert all("DOGE" in why and ": " in why for why in made.left_out)
    else:
        assert sorted(subject.fills(), key=lambda fill: fill.at) == list(whole)
    assert inspect_whole(subject.kind, subject.path, options=OPTIONS, now=NOW).verdict is DataVerdict.OK
    assert [one.name for one in subject.folder.iterdir()] == [subject.path.name], "nothing is left beside it"


def test_a_grown_file_holds_all_of_the_last_snapshot(subject: Subject) -> None:
    target = subject.folder / "copy"
    mark = json.loads(json.dumps(dict(subject.kind.snapshot(subject.path, target, options=OPTIONS).mark)))
    assert len(json.dumps(mark)) < 8192
    assert subject.kind.compare(target, mark, options=OPTIONS) == ()
    subject.files.append(subject.path, 5, 50)
    assert subject.kind.compare(subject.copy("grown"), mark, options=OPTIONS) == ()


def test_lost_and_changed_rows_are_named_by_comparison_with_the_last_snapshot(subject: Subject) -> None:
    mark = subject.kind.snapshot(subject.path, subject.folder / "copy", options=OPTIONS).mark
    subject.files.write(subject.path, 30, 0)
    lost = subject.kind.compare(subject.copy("shrunk"), mark, options=OPTIONS)
    assert lost[0].rule in ("C10", "Q3")
    assert lost[0].certain
    subject.files.write(subject.path, 50, 1)
    changed = subject.kind.compare(subject.copy("changed"), mark, options=OPTIONS)
    assert {one.rule for one in changed} <= {"C10", "C13", "Q3", "Q6"}
    assert changed


def test_a_mark_that_nobody_made_is_an_error_with_a_text(subject: Subject) -> None:
    for mark in ({}, {"size": "many"}):
        with pytest.raises(BotkeepError):
            subject.kind.compare(subject.path, mark, options=OPTIONS)


def test_evidence_stands_while_rows_are_added_and_falls_with_another_file(subject: Subject) -> None:
    found = json.loads(json.dumps(subject.kind.evidence(subject.path)))
    assert subject.kind.stands(subject.path, found)
    subject.files.append(subject.path, 5, 50)
    assert subject.kind.stands(subject.path, found)
    assert not subject.kind.stands(subject.path, {})
    subject.path.unlink()
    assert not subject.kind.stands(subject.path, found)
    assert subject.kind.evidence(subject.path) == {}
    assert subject.kind.stands(subject.path, {})
    subject.files.write(subject.path, 3, 500)
    assert not subject.kind.stands(subject.path, found)


def test_there_is_no_evidence_of_what_is_no_file(subject: Subject) -> None:
    subject.path.unlink()
    os.mkfifo(subject.path)
    with pytest.raises(BotkeepError):
        subject.kind.evidence(subject.path)
    assert not subject.kind.stands(subject.path, {"size": 1})


def test_a_settled_file_stands_alone_with_the_same_trades(subject: Subject) -> None:
    whole = subject.fills()
    subject.kind.settle(subject.path)
    assert subject.kind.companions(subject.path) == ()
    assert subject.fills() == whole
