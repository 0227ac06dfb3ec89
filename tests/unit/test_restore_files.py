"""Restoring a data file: rebuilt from backup and salvage, proven, replaced; never anything between old and new."""

from __future__ import annotations

import json
import os
import random
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep import backups, planning, restore
from botkeep.backups import LocalStore, Snapshot
from botkeep.config import Bot
from botkeep.formats import FORMATS, FormatOptions, Rebuilt
from botkeep.formats.base import inspect_whole
from botkeep.model import BotkeepError, DataVerdict
from botkeep.plans import Counts, RestorePlan
from botkeep.quarantine import quarantine
from botkeep.restore import RestoreProof
from botkeep.workspace import Workspace
from support import kills
from support.trade_files import DATA, HEADER, Writer, row, table

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CSV = FORMATS["csv"]


# --- rebuild -----------------------------------------------------------------------------------------------------


class Bench:
    """A good copy, a damaged file, and what is built from them."""

    def __init__(self, folder: Path) -> None:
        self.good, self.damaged, self.target = folder / "good.csv", folder / "bad.csv", folder / "new.csv"

    def build(self, good: str | None, damaged: bytes | str | None, **options: str) -> tuple[Rebuilt, str]:
        if good is not None:
            self.good.write_text(good)
        if damaged is not None:
            self.damaged.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
        chosen = FormatOptions(**options)
        made = CSV.rebuild(self.good if good is not None else None, self.damaged, self.target, options=chosen)
        seen = inspect_whole(CSV, self.target, options=chosen, now=NOW)
        assert (seen.verdict, seen.rows) == (DataVerdict.OK, made.rows)
        assert made.rows == made.kept + made.salvaged
        return made, self.target.read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_new_rows_behind_the_backup_are_salvaged_and_a_torn_tail_is_dropped(bench: Bench) -> None:
    made, text = bench.build(table(50), table(60) + row(60)[:30])
    assert text == table(60)
    assert (made.kept, made.salvaged, made.dropped, made.damaged_good) == (50, 10, 1, 60)
    assert [(one.rule, one.row, one.offset) for one in made.dropped_rows] == [("C1", 61, len(table(60)))]


def test_rows_damaged_in_place_come_from_the_backup(bench: Bench) -> None:
    bad = table(60).encode()
    for number in (5, 20, 55):
        bad = bad.replace(row(number).encode(), bytes(len(row(number)) - 1) + b"\n")
    made, text = bench.build(table(50), bad)
    assert text == table(60).replace(row(55), "")
    assert (made.kept, made.salvaged, made.dropped, made.damaged_good) == (50, 9, 3, 57)


def test_a_hole_over_the_end_of_the_backup_loses_only_what_is_in_it(bench: Bench) -> None:
    whole = table(60)
    start, stop = whole.index(row(45)) + 10, whole.index(row(53)) + 20
    made, text = bench.build(table(50), whole[:start].encode() + bytes(stop - start) + whole[stop:].encode())
    assert text == table(50) + "".join(row(number) for number in range(54, 60))
    assert made.dropped == 1


@pytest.mark.parametrize("damaged", [None, b"", b"<html>502</html>\n", b"\0" * 5000, b'{"code": -1003}'])
def test_a_file_with_nothing_in_it_is_the_backup(bench: Bench, damaged: bytes | None) -> None:
    made, text = bench.build(table(50), damaged)
    assert text == table(50)
    assert (made.kept, made.salvaged, made.damaged_good) == (50, 0, 0)


def test_a_truncated_file_with_new_rows_gives_both(bench: Bench) -> None:
    made, text = bench.build(table(50), table(30) + "".join(row(number) for number in range(50, 55)))
    assert text == table(55)
    assert (made.kept, made.salvaged) == (50, 5)


def test_a_lost_header_and_deleted_rows_come_back(bench: Bench) -> None:
    left = "".join(row(number) for number in range(60) if not 10 <= number < 20)
    made, text = bench.build(table(50), left)
    assert text == table(60)
    assert (made.kept, made.salvaged, made.dropped) == (50, 10, 0)


PLAIN = "time,symbol,side,price,qty,order_id\n"


def _fill(minute: int, amount: str = "1") -> str:
    return f"2026-11-21 09:{minute:02}:00,BTCUSDT,BUY,61526.51,{amount},77\n"


def test_equal_partial_fills_are_neither_dropped_nor_doubled(bench: Bench) -> None:
    good = PLAIN + _fill(0) * 3 + _fill(1) * 2
    made, text = bench.build(good, good + _fill(1) * 4 + _fill(2) + "torn,")
    assert text == good + _fill(1) * 4 + _fill(2)
    made, text = bench.build(good, PLAIN + _fill(0) * 2 + _fill(1) * 2 + _fill(2) * 2 + "torn,")
    assert text == good + _fill(2) * 2, "one was deleted: nothing is where it was, but none is new before the last"
    assert made.dropped == 1


def test_a_row_changed_in_place_does_not_become_a_second_trade(bench: Bench) -> None:
    good = PLAIN + "".join(_fill(minute) for minute in range(30))
    bad = good.replace(_fill(12), _fill(12, "9")) + _fill(30) + "torn,"
    made, text = bench.build(good, bad)
    assert text == good + _fill(30)
    assert [(one.rule, one.row) for one in made.dropped_rows] == [("C13", 13), ("C1", 32)]
    assert (made.dropped, made.dropped_sound) == (2, 1)


def test_with_trade_ids_a_late_row_is_new_and_a_known_one_is_not(bench: Bench) -> None:
    good = table(50)
    late = row(7).replace(",1007,", ",9999,")
    made, text = bench.build(good, HEADER + late + table(48).removeprefix(HEADER) + row(50) + "garbage\n")
    assert text == good + late + row(50)
    assert (made.salvaged, made.dropped) == (2, 1)


@pytest.mark.parametrize("ids", [True, False])
def test_a_bot_that_rewrites_its_rows_keeps_its_newer_versions(bench: Bench, ids: bool) -> None:
    head = "id,open_time,close_time,symbol,pnl\n" if ids else "open_time,close_time,symbol,pnl\n"

    def trade(number: int, close: str, pnl: str) -> str:
        name = f"{number}," if ids else ""
        return f"{name}2026-11-21 09:{number:02}:00,{close},BTCUSDT,{pnl}\n"

    old = head + "".join(trade(number, "", "") for number in range(20))
    new = head + "".join(trade(number, "2026-11-21 10:00:00", "1.5") for number in range(22))
    bad = new.replace(trade(4, "2026-11-21 10:00:00", "1.5"), trade(4, "2026-11-21 10:00:00", "nan"))
    made, text = bench.build(old, bad, mode="rewrite")
    assert text == new.replace(trade(4, "2026-11-21 10:00:00", "1.5"), trade(4, "", ""))
    assert (made.kept, made.replaced, made.salvaged, made.dropped) == (1, 19, 21, 1)


def test_without_a_backup_the_sound_rows_and_the_header_remain(bench: Bench) -> None:
    bad = table(30).replace(row(7), "x\n").replace("0.100009,100.0", "0.100009,inf") + "torn"
    made, text = bench.build(None, bad)
    assert text == table(30).replace(row(7), "").replace(row(9), "")
    assert (made.kept, made.salvaged, made.dropped) == (0, 28, 3)
    with pytest.raises(BotkeepError, match="Nothing can be salvaged"):
        bench.build(None, b"<html></html>")


@pytest.mark.parametrize("name", ["bad_nan.csv", "bad_nul_tail.csv", "bad_truncated_last_line.csv"])
def test_real_damage_is_undone_to_the_byte_where_the_backup_has_the_rows(bench: Bench, name: str) -> None:
    whole = (DATA / "custom/closed_trades.csv").read_bytes()
    made, _ = bench.build(whole.decode(), (DATA / "custom" / name).read_bytes())
    assert bench.target.read_bytes() == whole
    assert made.kept == 118


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(0, 20),
    st.lists(
        st.tuples(st.integers(0, 5000), st.integers(1, 300), st.sampled_from(["nul", "cut", "junk", "flip"])),
        min_size=1,
        max_size=3,
    ),
)
def test_whatever_is_damaged_the_backups_rows_stay_and_no_row_is_invented(
    tmp_path_factory: pytest.TempPathFactory, backed: int, newer: int, damages: list[tuple[int, int, str]]
) -> None:
    bench = Bench(tmp_path_factory.getbasetemp())
    data = table(backed + newer).encode()
    for at, length, kind in damages:
        end = min(len(data), at + length)
        middle = {
            "nul": bytes(max(0, end - at)),
            "cut": b"",
            "junk": b'x"\n,',
            "flip": data[at:end].replace(b"1", b"2"),
        }[kind]
        data = data[:at] + middle + data[end:]
    made, text = bench.build(table(backed), data)
    assert text.startswith(table(backed))
    added = text.removeprefix(table(backed)).splitlines(keepends=True)
    assert all(line.encode() in data for line in added)
    assert len(added) == made.salvaged


# --- plan and apply ----------------------------------------------------------------------------------------------


class Case:
    """A workspace with one bot, its data file and its backups."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.workspace = Workspace(home)
        self.workspace.prepare()
        self.path = home / "data" / "trades.csv"
        self.path.parent.mkdir()
        self.path.write_text(table(100))
        self.bot = Bot(name="doge", data_file=self.path)
        self.store = LocalStore(self.workspace.backups_dir, keep_free=0)

    def back_up(self, at: datetime = NOW - timedelta(hours=2)) -> Snapshot:
        options = self.bot.format_options()
        return backups.back_up(self.bot, self.store, format=CSV, options=options, now=at, head=(1, "0" * 64))

    def plan(self, at: datetime = NOW) -> RestorePlan:
        return planning.plan(self.bot, self.workspace, (self.store,), at)

    def load(self, plan_id: str, at: datetime = NOW) -> RestorePlan:
        return restore.load_plan(self.workspace, self.bot, plan_id, at)

    def apply(self, plan_id: str, at: datetime = NOW) -> RestoreProof:
        return restore.apply_files(self.load(plan_id, at), self.bot, self.workspace, at, stores=(self.store,))

    def damage(self, rows: int = 110, bad: int = 40) -> bytes:
        """New rows, one row of NULs among the old ones and a torn tail; gives the damaged bytes."""
        whole = table(rows).encode()
        hole = row(bad).encode()
        data = whole.replace(hole, bytes(len(hole))) + row(rows)[:20].encode()
        self.path.write_bytes(data)
        return data


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_plan_says_what_is_damaged_what_will_be_and_what_it_costs(case: Case) -> None:
    made = case.back_up()
    data = case.damage()
    found = case.plan()
    assert (found.bot, found.path, found.snapshot, found.snapshot_at) == ("doge", case.path, made.id, made.at)
    assert (found.rows_good, found.rows_bad, found.rows_expected) == (108, 2, 110)
    assert found.counts == Counts(rows=110, kept=98, restored=2, salvaged=10, replayed=0, dropped=2)
    assert {one.rule for one in found.findings} == {"C1", "C2"}
    assert found.evidence["size"] == len(data)
    assert found.pnl_now is not None
    assert found.pnl_expected == _money(case, table(110))
    assert found.sentence.startswith("doge's data file is damaged (C2, row 41: ")
    assert (
        "backup of 2026-11-21 10:00:00Z (2 h old) would give 110 rows, where 108 can be read now: "
        "98 kept, 2 from the backup, 10 salvaged;" in found.sentence
    )
    assert case.path.read_bytes() == data, "a plan changes nothing"
    assert case.load(found.id) == found


def _money(case: Case, text: str) -> tuple[tuple[str, Decimal], ...]:
    from botkeep.pnl import figures, rounded

    path = case.home / "check.csv"
    path.write_text(text)
    found = figures("doge", CSV.trades(path, options=FormatOptions()))
    return ((found.currency, rounded(found.realised)),)


def test_a_restore_proves_what_it_did(case: Case) -> None:
    case.back_up()
    data = case.damage()
    before = case.path.stat()
    case.path.chmod(0o640)
    found = case.plan()
    proof = case.apply(found.id)
    assert case.path.read_text() == table(110)
    assert (proof.rows_before, proof.rows_bad, proof.rows_after) == (108, 2, 110)
    assert (proof.counts, len(proof.dropped_rows)) == (found.counts, 2)
    assert (proof.pnl_before, proof.pnl_after) == (found.pnl_now, found.pnl_expected)
    assert (proof.quarantine / "trades.csv").read_bytes() == data
    assert proof.quarantine.parent == case.workspace.quarantine_dir / "doge"
    after = case.path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (before.st_uid, before.st_gid, 0o640)
    assert sorted(path.name for path in case.path.parent.iterdir()) == ["trades.csv"]
    assert "110 rows, where 108 could be read before" in proof.sentence
    assert "(98 kept, 2 from the backup, 10 salvaged; 2 unreadable rows left out)" in proof.sentence
    assert json.loads(json.dumps(proof.as_data()))["rows_after"] == 110


def test_a_plan_is_for_one_use_one_bot_ten_minutes_and_the_file_it_saw(case: Case) -> None:
    case.back_up()
    case.damage()
    found = case.plan()
    with pytest.raises(BotkeepError, match="expired"):
        case.load(found.id, NOW + timedelta(minutes=10, seconds=1))
    other = Bot(name="other", data_file=case.path)
    with pytest.raises(BotkeepError, match="is for doge, not for other"):
        restore.load_plan(case.workspace, other, found.id, NOW)
    for wrong in ("0" * 12, "../../x", "", "A" * 12, found.id + "0"):
        with pytest.raises(BotkeepError, match=r"There is no plan|is no plan id"):
            case.load(wrong)
    moved = Bot(name="doge", data_file=case.home / "elsewhere.csv")
    with pytest.raises(BotkeepError, match="has another data file now"):
        restore.load_plan(case.workspace, moved, found.id, NOW)
    case.apply(found.id)
    with pytest.raises(BotkeepError, match="was carried out"):
        case.load(found.id)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"y" + path.read_bytes()[1:]),
        lambda path: path.unlink(),
    ],
)
def test_a_plan_does_not_fit_a_file_that_changed_since(case: Case, change: Callable[[Path], object]) -> None:
    case.back_up()
    case.damage()
    found = case.plan()
    change(case.path)
    with pytest.raises(BotkeepError, match="is not what it was"):
        case.load(found.id)
    with pytest.raises(BotkeepError, match="is not what it was"):
        restore.apply_files(found, case.bot, case.workspace, NOW, stores=(case.store,))


def test_rows_that_came_in_after_the_plan_are_salvaged_too(case: Case) -> None:
    case.back_up()
    whole = table(103)
    case.path.write_text(whole.replace(row(40), "\0" * 20 + "\n"))
    found = case.plan()
    with case.path.open("a") as file:
        file.write(row(103) + row(104))
    proof = case.apply(found.id)
    assert (found.rows_expected, proof.rows_after) == (103, 105)
    assert case.path.read_text() == table(105)


def test_nothing_is_replaced_under_a_process_that_writes(case: Case) -> None:
    case.back_up()
    data = case.damage()
    found = case.plan()
    with Writer("step", case.path) as writer:
        with pytest.raises(BotkeepError, match=f"open for writing \\(pid {writer.process.pid}\\)"):
            case.apply(found.id)
        assert case.path.read_bytes() == data
    assert case.apply(found.id).rows_after == 110


def test_nothing_is_restored_where_nothing_is_damaged(case: Case) -> None:
    with pytest.raises(BotkeepError, match="There is nothing to restore"):
        case.plan()
    case.back_up()
    with case.path.open("a") as file:
        file.write(row(100))
    with pytest.raises(BotkeepError, match=r"There is nothing to restore.*101 rows, all sound"):
        case.plan()


def test_a_row_in_progress_is_nothing_to_restore(case: Case) -> None:
    case.back_up()
    with Writer("step", case.path) as writer:
        writer.tell("half")
        with pytest.raises(BotkeepError, match="There is nothing to restore"):
            case.plan()


@pytest.mark.parametrize("left", [None, 0, 3000])
def test_lost_rows_are_known_from_the_backup(case: Case, left: int | None) -> None:
    case.path.chmod(0o604)
    case.back_up()
    if left is None:
        case.path.unlink()
    else:
        os.truncate(case.path, left)
    found = case.plan()
    assert found.findings[0].rule in ("C1", "C10", "C14")
    proof = case.apply(found.id)
    assert case.path.read_text() == table(100)
    assert stat.S_IMODE(case.path.stat().st_mode) == 0o604
    assert json.loads((proof.quarantine / "note.json").read_text()).get("missing", False) is (left is None)


def test_a_lost_header_is_known_from_the_backup_and_put_back(case: Case) -> None:
    case.back_up()
    case.path.write_text(table(103).removeprefix(HEADER))
    found = case.plan()
    assert found.findings[0].rule == "C3"
    assert case.apply(found.id).counts == Counts(rows=103, kept=100, restored=0, salvaged=3, replayed=0, dropped=0)
    assert case.path.read_text() == table(103)


def test_rows_that_are_others_than_in_the_backup_are_planned_for(case: Case) -> None:
    case.back_up()
    case.path.write_text(table(103).replace("0.100040", "9.100040"))
    found = case.plan()
    assert found.findings[0].rule == "C13"
    case.apply(found.id)
    assert case.path.read_text() == table(103)


def test_a_rotated_file_is_nothing_to_restore(case: Case) -> None:
    case.back_up()
    case.path.rename(case.path.with_name("trades.csv.1"))
    case.path.write_text(table(2, start=100))
    with pytest.raises(BotkeepError, match="There is nothing to restore"):
        case.plan()


def test_the_newest_backup_that_is_whole_is_taken_and_it_is_said_how_many_were_not(case: Case) -> None:
    case.back_up(NOW - timedelta(hours=3))
    with case.path.open("a") as file:
        file.write(row(100))
    case.back_up(NOW - timedelta(hours=1))
    newest = max(
        case.store.root.joinpath("objects").rglob("*"),
        key=lambda path: path.stat().st_mtime_ns if path.is_file() else 0,
    )
    newest.chmod(0o600)
    newest.write_bytes(b"gone")
    case.path.write_bytes(bytes(100))
    found = case.plan()
    assert (found.snapshots_skipped, found.rows_expected) == (1, 100)
    assert "(3 h old, 1 newer ones being damaged)" in found.sentence


def test_without_a_backup_what_is_sound_is_salvaged_and_without_anything_it_is_said_so(case: Case) -> None:
    case.path.write_text(table(20) + "torn")
    found = case.plan()
    assert (found.snapshot, found.rows_expected) == (None, 20)
    assert "there is no backup" in found.sentence
    assert case.apply(found.id).rows_after == 20
    assert case.path.read_text() == table(20)
    case.path.write_bytes(bytes(2000))
    with pytest.raises(BotkeepError, match=r"Nothing can be salvaged|no verified backup"):
        case.plan()
    case.path.unlink()
    with pytest.raises(BotkeepError, match="there is no verified backup of doge"):
        case.plan()


def test_what_a_restore_cannot_mend_is_said(case: Case) -> None:
    case.back_up()
    case.path.unlink()
    case.path.mkdir()
    with pytest.raises(BotkeepError, match="it is a directory"):
        case.plan()
    case.path.rmdir()
    case.damage()
    os.link(case.path, case.path.with_name("second.csv"))
    with pytest.raises(BotkeepError, match="2 names"):
        case.plan()
    case.path.with_name("second.csv").unlink()
    os.truncate(case.path, 10 << 30)
    with pytest.raises(BotkeepError, match="more than a restore can check"):
        case.plan()


def test_a_link_is_kept_and_its_target_replaced(case: Case) -> None:
    case.back_up()
    real = case.home / "disk" / "real.csv"
    real.parent.mkdir()
    case.path.rename(real)
    case.path.symlink_to(real)
    real.write_bytes(table(100).encode()[:-30])
    case.apply(case.plan().id)
    assert case.path.is_symlink()
    assert real.read_text() == table(100)


def test_extended_attributes_are_kept(case: Case) -> None:
    case.back_up()
    case.damage()
    try:
        os.setxattr(case.path, "user.note", b"mine")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    case.apply(case.plan().id)
    assert os.getxattr(case.path, "user.note") == b"mine"


def test_quarantine_copies_holes_as_holes_and_never_the_same_folder_twice(case: Case) -> None:
    os.truncate(case.path, 1 << 26)
    folder = quarantine("doge", case.path, (), case.workspace, NOW)
    copy = folder / "trades.csv"
    assert copy.stat().st_size == 1 << 26
    assert copy.stat().st_blocks * 512 <= 1 << 20
    assert copy.read_bytes()[: len(table(100))] == table(100).encode()
    assert json.loads((folder / "note.json").read_text())["size"] == 1 << 26
    assert stat.S_IMODE(copy.stat().st_mode) == 0o400
    assert quarantine("doge", case.path, (), case.workspace, NOW) == folder.with_name(f"{folder.name}-2")


# --- kills -------------------------------------------------------------------------------------------------------


def _old_or_new(case: Case, old: bytes, new: bytes) -> bool:
    """Whether the file is the old one; it is the new one else. Nothing of the damage is ever lost."""
    now = case.path.read_bytes()
    assert now in (old, new)
    if now == new:
        copies = [path.read_bytes() for path in case.workspace.quarantine_dir.rglob("trades.csv")]
        assert old in copies
    assert backups.newest_good(case.store, "doge") is not None
    return now == old


@kills.needs_strace
def test_a_restore_killed_at_any_system_call_leaves_the_old_file_or_the_new_one_and_goes_on(case: Case) -> None:
    case.back_up()
    new = table(110).encode()
    seen = {True: 0, False: 0}
    old, found = case.damage(), case.plan()

    def prepare() -> None:
        nonlocal old, found
        old = case.damage()
        found = case.plan()

    for _ in kills.at_each_call(lambda: case.apply(found.id) and None, prepare):
        seen[_old_or_new(case, old, new)] += 1
        if "used" in _record(case, found.id):
            with pytest.raises(BotkeepError, match=r"was carried out.*110 rows, where 108 could be read before"):
                case.load(found.id)
        else:
            proof = case.apply(found.id)
            assert proof.counts == Counts(rows=110, kept=98, restored=2, salvaged=10, replayed=0, dropped=2)
        assert case.path.read_bytes() == new
        assert [path.name for path in case.path.parent.iterdir()] == ["trades.csv"]
    assert seen[True] > 10
    assert seen[False] > 0


def test_a_restore_killed_at_random_moments_converges(case: Case) -> None:
    case.back_up()
    new = table(110).encode()
    usual = 0.2
    for _ in range(8):
        old = case.damage()
        found = case.plan()
        kills.within(lambda found=found: case.apply(found.id) and None, random.uniform(0, usual))
        if _old_or_new(case, old, new) or "used" not in _record(case, found.id):
            started = time.perf_counter()
            case.apply(found.id)
            usual = 1.5 * (time.perf_counter() - started)
        assert case.path.read_bytes() == new
        with pytest.raises(BotkeepError, match="was carried out"):
            case.load(found.id)


def _record(case: Case, plan_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((case.workspace.run_dir("doge") / "plans" / f"{plan_id}.json").read_text())
    return found


@kills.needs_strace
@pytest.mark.parametrize(("call", "error"), [("fsync", "EIO"), ("write", "ENOSPC"), ("rename", "EACCES")])
def test_a_restore_whose_disk_fails_says_so_and_keeps_the_file(case: Case, call: str, error: str) -> None:
    case.back_up()
    old = case.damage()
    found = case.plan()
    new = table(110).encode()

    def attempt() -> None:
        with pytest.raises(BotkeepError):
            case.apply(found.id)

    failed = 0
    while kills.injected(attempt, call, failed + 1, f"error={error}") == 0:
        failed += 1
        if not _old_or_new(case, old, new):
            case.path.write_bytes(old)
            found = case.plan()
    assert failed > 1
