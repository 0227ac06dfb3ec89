"""Text files of trades: every damage of the table is found and undone, and what only looks like one is left alone.

The traps have a live writer each: a real process that writes the file in one of the ways that bots do.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep.formats import FORMATS, FormatOptions, Rebuilt
from botkeep.formats.base import inspect_whole
from botkeep.formats.files import held_deleted
from botkeep.model import BotkeepError, ClosedTrade, DataVerdict, Fill, Finding, Inspection
from botkeep.openfiles import open_writers
from support.bots import wait_for
from support.trade_files import DATA, HEADER, NOW, Eye, Writer, as_nobody, row, table

CSV = FORMATS["csv"]
OPTIONS = FormatOptions()


def rules(seen: Inspection) -> list[tuple[str, bool]]:
    """Rule and certainty of each finding."""
    return [(found.rule, found.certain) for found in seen.findings]


def verdict(path: Path, options: FormatOptions = OPTIONS) -> str:
    """Of a file that nobody writes to."""
    return inspect_whole(CSV, path, options=options, now=NOW).verdict.value


class Case:
    """A bot's file of 60 fills, and the backup of its first 50."""

    def __init__(self, folder: Path) -> None:
        self.path, self.good, self.new = folder / "trades.csv", folder / "good.csv", folder / "new.csv"
        self.path.write_text(table(60))
        self.good.write_text(table(50))

    def look(self, *, since: str | None = None) -> Inspection:
        """A look by somebody who saw the file sound before, or who never did (since=None)."""
        eye = Eye(self.path)
        if since is not None:
            damaged = self.path.read_bytes()
            self.path.write_text(since)
            eye.look()
            self.path.write_bytes(damaged)
        return eye.look(after=1)

    def rebuild(self, *, alone: bool = False) -> Rebuilt:
        """From backup and file; what comes of it is sound."""
        made = CSV.rebuild(None if alone else self.good, self.path, self.new, options=OPTIONS)
        assert verdict(self.new) == "ok"
        return made

    @property
    def result(self) -> str:
        """What the rebuilt file holds."""
        return self.new.read_text()


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def _edit(old: str, new: str | bytes) -> Callable[[bytes], bytes]:
    """A damage: one text in the file, replaced."""
    put = new if isinstance(new, bytes) else new.encode()

    def made(data: bytes) -> bytes:
        assert data.count(old.encode()) == 1
        return data.replace(old.encode(), put)

    return made


# --- the table of damages ----------------------------------------------------------------------------------------

TORN = row(60)[:40]
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "D01 torn tail": (lambda data: data + TORN.encode(), "C1", table(60)),
    "D04 truncated to nothing": (lambda _: b"", "C10", table(50)),
    "D05 NUL tail of a page": (lambda data: data + bytes(4096), "C2", table(60)),
    "D06 NUL in the middle": (_edit(row(55), bytes(len(row(55)))), "C2", table(55) + "".join(map(row, range(57, 60)))),
    "D07 header lost": (_edit(HEADER, ""), "C3", table(60)),
    "D07 header and first row lost": (_edit(HEADER + row(0), ""), "C3", table(60)),
    "D08 one bad row": (_edit(row(55), "garbage,row\n"), "C4", table(60).replace(row(55), "")),
    "D10 a UTF-16 row": (lambda data: data + row(60).encode("utf-16-le"), "C6", table(60)),
    "D11 the last rows twice": (lambda data: data + "".join(map(row, range(50, 60))).encode(), "C7", table(60)),
    "D11 the whole file twice": (lambda data: data + data, "C7", table(60)),
    "D15 infinity": (_edit(row(55), row(55).replace("100.0", "inf")), "C9", table(60).replace(row(55), "")),
    "D15 not a number": (_edit(row(55), row(55).replace("100.0", "NaN")), "C9", table(60).replace(row(55), "")),
    "D15 underscore": (_edit(row(55), row(55).replace("100.0", "1_000")), "C9", table(60).replace(row(55), "")),
    "D15 wide digits": (_edit(row(55), row(55).replace("100.0", "１００")), "C9", table(60).replace(row(55), "")),
    "D15 a huge exponent": (
        _edit(row(55), row(55).replace("100.0", "1e1000000")), "C9", table(60).replace(row(55), ""),
    ),
    "D17 a web page": (lambda _: b"<!DOCTYPE html>\n<title>502 Bad Gateway</title>\n", "C11", table(50)),
}  # fmt: skip
"""What is done to the file, the rule that names it, and what backup and file together give."""


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_named_certain_when_nobody_writes_and_undone(case: Case, name: str) -> None:
    damage, rule, expected = DAMAGES[name]
    case.path.write_bytes(damage(case.path.read_bytes()))
    seen = case.look(since=table(60))
    assert seen.verdict is DataVerdict.CORRUPT, seen
    assert (rule, True) in rules(seen)
    case.rebuild()
    assert case.result == expected


@pytest.mark.parametrize("name", DAMAGES)
def test_no_damage_is_certain_at_the_first_look_while_the_bot_runs(case: Case, name: str) -> None:
    eye = Eye(case.path)
    eye.look(writing=True)
    case.path.write_bytes(DAMAGES[name][0](case.path.read_bytes()))
    seen = eye.look(writing=True)
    if name.startswith("D17"):
        assert rules(seen) == [("C11", True)], "no bot writes web pages: somebody else did"
    else:
        assert seen.verdict in (DataVerdict.SUSPECT, DataVerdict.PENDING)


def test_d03_a_table_that_pandas_rewrites_all_the_time_survives_a_thousand_looks(tmp_path: Path) -> None:
    """None of them would lead to an action: corrupt is never said, and a suspicion is another one each time."""
    path = tmp_path / "t.csv"
    eye, seen = Eye(path), Counter[str]()
    with Writer("frame", path):
        for _ in range(1000):
            eye.now = datetime.now(UTC)
            one = eye.look(writing=True)
            seen[one.verdict.value] += 1
            if one.verdict is DataVerdict.SUSPECT:
                wait_for(lambda one=one: _identity(path) != one.identity)
    assert seen["corrupt"] == 0
    assert seen["ok"] > 100


def _identity(path: Path) -> str:
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def test_d10_what_is_odd_about_the_letters_is_named_and_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + table(20).encode())
    assert (verdict(path), rules(Eye(path).look())) == ("ok", [])
    path.write_bytes(table(20).encode() + b"\xef\xbb\xbf" + table(20, start=20).encode())
    seen = Eye(path).look()
    assert (seen.verdict, seen.rows, rules(seen)) == (DataVerdict.OK, 40, []), "the header again, marked"
    path.write_bytes(table(20).encode() + b"\xef\xbb\xbf" + row(20).encode())
    seen = Eye(path).look()
    assert (seen.verdict, seen.rows, rules(seen)) == (DataVerdict.OK, 21, [("C6", False)])
    assert "byte order mark" in seen.findings[0].text
    assert len(CSV.trades(path, options=OPTIONS).fills) == 21
    path.write_bytes(b"time,symbol,pnl,note\n" + b"2026-11-21 09:00:00,BTCUSDT,1,caf\xe9 \x80\n" * 2)
    assert ("C6", False) in rules(Eye(path).look())
    assert verdict(path) == "ok"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_d10_a_file_that_somebody_saved_as_utf16_is_for_a_person_not_for_a_restore(case: Case, encoding: str) -> None:
    case.path.write_bytes(table(60).encode(encoding))
    for seen in (case.look(), case.look(since=table(60))):
        assert (seen.verdict, rules(seen)) == (DataVerdict.UNREADABLE, [("C6", False)])
        assert "UTF-16" in seen.findings[0].text


def test_d11_a_doubled_row_is_counted_once_and_kept_once(case: Case) -> None:
    case.path.write_text(table(60) + row(3) + row(59))
    seen = case.look()
    assert (seen.rows, [found.row for found in seen.findings]) == (60, [61, 62])
    read = CSV.trades(case.path, options=OPTIONS)
    assert len(read.fills) == 60
    assert "2 rows stand in the file twice, with the same trade id: each is counted once" in read.notes
    made = case.rebuild(alone=True)
    assert (case.result, made.dropped, {one.rule for one in made.dropped_rows}) == (table(60), 2, {"C7"})


def test_d11_a_copy_far_behind_its_row_is_found_too_even_by_the_next_look(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table(3000))
    eye = Eye(path)
    assert eye.verdict(writing=True) == "ok"
    with path.open("a") as file:
        file.write(row(3000) + row(17) + row(18))
    eye.cursor = json.loads(json.dumps(eye.cursor))
    seen = eye.look(writing=True)
    assert [(found.rule, found.row) for found in seen.findings] == [("C7", 3002), ("C7", 3003)]
    assert (seen.verdict, seen.rows) == (DataVerdict.SUSPECT, 3001)
    assert eye.look(writing=True, after=31).verdict is DataVerdict.CORRUPT


def test_d11_a_bot_that_writes_every_row_twice_does_so(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "".join(row(number) * 2 for number in range(30)))
    seen = Eye(path).look()
    assert (seen.verdict, rules(seen), seen.rows) == (DataVerdict.OK, [("C7", False)], 30)
    assert len(CSV.trades(path, options=OPTIONS).fills) == 30


def test_d13_two_seconds_are_a_batch_and_two_hours_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    at = [f"2026-11-21 09:00:{second:02}" for second in range(0, 60, 2)]
    shuffled = [time for pair in zip(at[1::2], at[::2], strict=True) for time in pair]
    rows = [f"{time},BTCUSDT,BUY,1.5,2,{number}\n" for number, time in enumerate(shuffled)]
    path.write_text("time,symbol,side,price,qty,trade_id\n" + "".join(rows))
    assert (verdict(path), rules(Eye(path).look())) == ("ok", [])
    with path.open("a") as file:
        file.write("2026-11-21 07:00:00,BTCUSDT,BUY,1.5,2,900\n2026-11-21 09:01:00,BTCUSDT,BUY,1.5,2,901\n")
    seen = Eye(path).look()
    assert (seen.verdict, rules(seen), seen.findings[0].row) == (DataVerdict.OK, [("C8", False)], 31)


def test_d13_a_file_with_the_newest_row_first_is_in_order(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "".join(row(number) for number in reversed(range(600))))
    seen = Eye(path).look()
    assert (seen.verdict, rules(seen), seen.rows) == (DataVerdict.OK, [], 600)


def test_d18_two_writers_at_once_are_named_and_no_whole_row_is_lost(case: Case) -> None:
    case.path.write_text(table(50))
    with Writer("step", case.path) as one, Writer("step", case.path) as other:
        one.tell("half")
        other.tell(f"text {json.dumps(row(51) + row(52))}")
        one.tell("rest")
        assert len(open_writers(case.path)) == 2
        one.tell(f"text {json.dumps(row(53))}")
        both = " and ".join(map(str, sorted(one_of.process.pid for one_of in (one, other))))
        seen = Eye(case.path).look(writing=True)
        assert seen.verdict is DataVerdict.SUSPECT
        assert f"Processes {both} have it open for writing." in seen.findings[1].text
    seen = case.look()
    assert [found.rule for found in seen.findings] == ["C4", "C12"]
    assert "two rows begin in it" in seen.findings[0].text
    assert "second program" in seen.findings[1].text
    made = case.rebuild()
    assert case.result == table(50) + row(52) + row(53)
    assert made.dropped == 2


def test_d18_rows_of_two_programs_by_turns_are_told_and_a_restart_is_none(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"

    def written(pids: list[int]) -> Inspection:
        lines = [f"2026-11-21 09:{n:02}:00,BTCUSDT,BUY,1.5,2,{n},{pid}\n" for n, pid in enumerate(pids)]
        path.write_text("time,symbol,side,price,qty,trade_id,pid\n" + "".join(lines))
        return Eye(path).look()

    assert rules(written([11] * 10 + [12] * 10 + [13])) == []
    seen = written([11] * 10 + [12, 11, 12, 11, 12, 12])
    assert (seen.verdict, rules(seen), seen.rows) == (DataVerdict.OK, [("C12", False)], 16)
    assert "(`11` and `12`)" in seen.findings[0].text
    assert len(CSV.trades(path, options=OPTIONS).fills) == 16
    CSV.rebuild(None, path, tmp_path / "new.csv", options=OPTIONS)
    assert (tmp_path / "new.csv").read_bytes() == path.read_bytes()


def test_d21_rows_deleted_in_the_middle_are_lost_or_changed_against_the_backup(case: Case) -> None:
    copy = case.path.with_name("copy.csv")
    mark = CSV.snapshot(case.path, copy, options=OPTIONS).mark
    case.path.write_text(HEADER + "".join(row(n) for n in range(60) if not 20 <= n < 30))
    assert [found.rule for found in CSV.compare(case.path, mark, options=OPTIONS)] == ["C10", "C13"]
    with case.path.open("a") as file:
        file.write("".join(map(row, range(60, 80))))
    (found,) = CSV.compare(case.path, mark, options=OPTIONS)
    assert (found.rule, found.certain) == ("C13", True)
    assert found.row is not None
    assert 15 < found.row <= 21, found
    assert CSV.compare(case.path, mark, options=FormatOptions(mode="rewrite")) == ()
    case.good.write_text(table(60))
    case.rebuild()
    assert case.result == table(80)


def test_d21_one_changed_figure_is_told_within_a_few_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table(5000))
    mark = json.loads(json.dumps(dict(CSV.snapshot(path, tmp_path / "copy", options=OPTIONS).mark)))
    path.write_text(table(5100).replace(row(3333), row(3333).replace("100.0", "900.0")))
    (found,) = CSV.compare(path, mark, options=OPTIONS)
    first, last = (int(word.rstrip(",")) for word in found.text.split() if word.rstrip(",").isdecimal())
    assert first <= 3334 <= last
    assert last - first < 100


def test_d23_the_rows_of_a_deleted_file_are_copied_from_the_process_that_holds_it(case: Case) -> None:
    case.path.unlink()
    eye = Eye(case.path)
    with Writer("append", case.path) as writer:
        writer.tell("rows 60")
        eye.look(writing=True)
        assert held_deleted(case.path) is None
        identity = eye.look(writing=True).identity
        case.path.unlink()
        writer.tell("rows 5")
        held = held_deleted(case.path, identity)
        assert held is not None
        assert held.parts[:3] == ("/", "proc", str(writer.process.pid))
        assert held_deleted(case.path, "1:2:3") is None
        seen = eye.look(writing=True)
        assert (seen.verdict, rules(seen)) == (DataVerdict.MISSING, [("C14", False)])
        assert str(held) in seen.findings[0].text
        made = CSV.rebuild(case.good, held, case.new, options=OPTIONS)
        assert (made.kept, made.salvaged, case.result) == (50, 15, table(65))
    assert held_deleted(case.path) is None


def test_d24_a_file_that_may_not_be_read_is_not_damaged(case: Case) -> None:
    case.path.chmod(0)
    case.path.parent.chmod(0o711)
    with as_nobody():
        seen = case.look()
    assert (seen.verdict, rules(seen)) == (DataVerdict.UNREADABLE, [("C15", False)])


# --- headers -----------------------------------------------------------------------------------------------------


def test_a_lost_header_is_certain_after_half_a_minute_and_stays_known(case: Case) -> None:
    eye = Eye(case.path)
    eye.look(writing=True)
    case.path.write_text(table(60).removeprefix(HEADER))
    assert rules(eye.look(writing=True)) == [("C3", False)]
    with case.path.open("a") as file:
        file.write(row(60))
    seen = eye.look(writing=True, after=31)
    assert (seen.verdict, rules(seen), seen.rows) == (DataVerdict.CORRUPT, [("C3", True)], 61)
    case.path.write_text(table(61))
    assert eye.verdict(writing=True) == "ok"


def test_a_column_that_an_upgrade_added_is_told_and_nothing_is_restored(case: Case) -> None:
    eye = Eye(case.path)
    eye.look(writing=True)
    newer = "".join(line + (",leverage\n" if n == 0 else ",1\n") for n, line in enumerate(table(61).splitlines()))
    case.path.write_text(newer)
    for seen in (eye.look(writing=True), eye.look(after=60), eye.look(after=600)):
        assert (seen.verdict, rules(seen), seen.rows) == (DataVerdict.OK, [("C3", False)], 61)
        assert "with `leverage`" in seen.findings[0].text


def test_a_header_without_a_column_that_is_needed_is_for_a_person(case: Case) -> None:
    eye = Eye(case.path)
    eye.look()
    case.path.write_text(table(61).replace("price", "cost"))
    for _ in range(3):
        seen = eye.look(after=60)
        assert (seen.verdict, rules(seen)) == (DataVerdict.UNREADABLE, [("C3", False)])
        assert "without `price` and with `cost`" in seen.findings[0].text
    case.path.write_text(table(62).replace("price", "cost").replace("100.0", "100.5"))
    assert eye.look(after=60).verdict is DataVerdict.UNREADABLE, "written anew, it lacks it still"
    case.path.write_text(table(62))
    assert eye.verdict() == "ok"


def test_a_lost_header_of_a_short_file_is_one_finding_at_every_look(case: Case) -> None:
    case.path.write_text(table(5))
    eye = Eye(case.path)
    eye.look()
    case.path.write_text(table(5).removeprefix(HEADER))
    for _ in range(3):
        assert rules(eye.look(after=60)) == [("C3", True)]


def test_a_new_file_after_a_rotation_needs_no_header(case: Case) -> None:
    eye = Eye(case.path)
    eye.look(writing=True)
    shutil.copy(case.path, case.path.with_name("trades.csv.1"))
    case.path.write_text(row(60) + row(61))
    assert eye.look(writing=True).verdict is DataVerdict.REPLACED
    for rows in (62, 63):
        with case.path.open("a") as file:
            file.write(row(rows))
        seen = eye.look(writing=True, after=60)
        assert (seen.verdict, rules(seen), seen.rows) == (DataVerdict.OK, [], rows - 59)


def test_a_bot_that_writes_its_table_anew_without_a_header_does_not_make_it_forgotten(case: Case) -> None:
    eye = Eye(case.path)
    eye.look(writing=True)
    for rows in (60, 61, 62):
        case.path.write_text("".join(row(n).replace("100.0", f"{rows}.0") for n in range(rows)))
        assert rules(eye.look(writing=True, after=60)) == [("C3", False)]
    case.path.write_text(table(63))
    assert eye.verdict(writing=True) == "ok"


def test_the_backup_names_a_header_that_nobody_saw_vanish(case: Case) -> None:
    mark = CSV.snapshot(case.path, case.new, options=OPTIONS).mark
    case.path.write_text(table(60).removeprefix(HEADER))
    assert "C3" in [found.rule for found in CSV.compare(case.path, mark, options=OPTIONS)]


# --- traps -------------------------------------------------------------------------------------------------------


def test_a_row_that_comes_in_pieces_is_never_damaged(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    eye, seen = Eye(path), Counter[str]()
    with Writer("drip", path):
        stop = time.monotonic() + 30
        while (seen.total() < 300 or len(seen) < 2) and time.monotonic() < stop:
            seen[eye.verdict(writing=True, after=0.5)] += 1
    assert set(seen) == {"ok", "pending"}


def test_rows_that_the_bot_edits_later_are_its_way_in_mode_rewrite(tmp_path: Path) -> None:
    path, copy, new = tmp_path / "t.csv", tmp_path / "copy.csv", tmp_path / "new.csv"
    options = FormatOptions(mode="rewrite")
    eye, seen = Eye(path, mode="rewrite"), Counter[str]()
    with Writer("edit", path):
        mark = _whole(path, copy, options)
        for _ in range(200):
            eye.now = datetime.now(UTC)
            seen[eye.verdict(writing=True)] += 1
        _whole(path, new, options)
        assert CSV.compare(new, mark, options=options) == ()
        assert CSV.compare(new, mark, options=OPTIONS) != ()
    assert seen["corrupt"] == 0
    assert seen["ok"] > 20


def _whole(path: Path, copy: Path, options: FormatOptions) -> dict[str, Any]:
    """The mark of a snapshot that was not taken while the table was half written."""
    while True:
        with suppress(BotkeepError):  # it says so where every copy was of two versions
            mark = dict(CSV.snapshot(path, copy, options=options).mark)
            if mark["rows"] >= 40:
                return mark


_BY_PLACE = "time,symbol,side,price,amount,note\n"


def _placed(number: int, note: str = "") -> str:
    return f"2026-11-21 09:{number // 2:02}:00,BTC/USDT,buy,{100 + number},1,{note}\n"


@pytest.mark.parametrize(
    ("gone", "edited"), [((4, 5), 2), ((4,), 2), ((3, 8), 2), ((1, 10), 2), ((10, 9), 2), ((2,), 3), ((), 2), ((), 10)]
)
def test_in_mode_rewrite_no_row_of_the_backup_is_lost_where_rows_went_and_as_many_came(
    tmp_path: Path, gone: tuple[int, ...], edited: int
) -> None:
    good, path, new = (tmp_path / name for name in ("good.csv", "t.csv", "new.csv"))
    good.write_text(_BY_PLACE + "".join(_placed(n) for n in range(1, 11)))
    rows = [_placed(n, "amended" if n == edited else "") for n in range(1, 13) if n not in gone]
    path.write_text(_BY_PLACE + "".join(rows) + "2026-11-21 09:1")
    CSV.rebuild(good, path, new, options=FormatOptions(mode="rewrite"))
    found = new.read_text().splitlines(keepends=True)[1:]
    assert {line.rpartition(",")[0] for line in found} == {_placed(n).rpartition(",")[0] for n in range(1, 13)}
    assert len(found) == 12
    if not gone:
        assert found == rows


def test_in_mode_rewrite_a_trade_that_was_closed_since_the_backup_is_taken_as_it_is_now(tmp_path: Path) -> None:
    good, path, new = (tmp_path / name for name in ("good.csv", "t.csv", "new.csv"))
    head = "open_time,close_time,symbol,side,entry,exit,qty,pnl\n"
    old = [f"2026-11-21 0{n}:00:00,2026-11-21 0{n}:30:00,BTC/USDT,long,100,101,1,{n}\n" for n in range(1, 5)]
    still = "2026-11-21 05:00:00,,BTC/USDT,long,100,,1,\n"
    now = [*old, "2026-11-21 05:00:00,2026-11-21 06:00:00,BTC/USDT,long,100,103,1,3\n"]
    good.write_text(head + "".join([*old, still]))
    path.write_text(head + "".join(now) + "2026-11-21 0")
    made = CSV.rebuild(good, path, new, options=FormatOptions(mode="rewrite"))
    assert (made.replaced, new.read_text()) == (1, head + "".join(now))


def test_partial_fills_of_one_order_at_one_price_and_time_are_fills(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    line = "2026-11-21T09:00:00.000+00:00,DOGEUSDT,BUY,0.1,100.0,0.01,USDT,{},77\n"
    eye = Eye(path)
    with Writer("step", path) as writer:
        writer.tell(f"text {json.dumps(''.join(line.format(number) for number in range(5)))}")
        assert rules(eye.look(writing=True)) == []
        for _ in range(3):
            writer.tell(f"text {json.dumps(line.format(''))}")
            seen = eye.look(writing=True, after=60)
            assert seen.verdict is DataVerdict.OK
        assert rules(seen) == [("C7", False)], "without an id: only to be known"
        assert seen.rows == 8
    assert eye.verdict() == "ok"
    assert len(CSV.trades(path, options=OPTIONS).fills) == 8
    CSV.rebuild(None, path, tmp_path / "new.csv", options=OPTIONS)
    assert (tmp_path / "new.csv").read_bytes() == path.read_bytes()


def test_a_quiet_market_is_no_damage_however_long(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    eye = Eye(path)
    with Writer("append", path) as writer:
        writer.tell("rows 30")
        for _ in range(50):
            seen = eye.look(writing=True, after=6 * 3600)
            assert (seen.verdict, rules(seen), seen.rows) == (DataVerdict.OK, [], 30)
    assert eye.verdict(after=86_400) == "ok"


def test_a_log_rotated_by_copying_and_truncating_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    eye = Eye(path)
    with Writer("append", path) as writer:
        for turn in range(4):
            writer.tell("rows 25")
            assert eye.verdict(writing=True) in ("ok", "replaced"), turn
            (tmp_path / f"t.csv.{turn}.gz").write_bytes(gzip.compress(path.read_bytes()))
            os.truncate(path, 0)
            writer.tell(f"text {json.dumps(HEADER)}") if turn % 2 else None
            assert eye.verdict(writing=True) in ("replaced", "ok", "pending")


def test_a_table_that_is_renamed_into_place_is_sound_at_every_look(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    eye = Eye(path)
    with Writer("replace", path):
        assert {eye.verdict(writing=True) for _ in range(200)} == {"ok"}
        assert held_deleted(path) is None


def test_a_log_shipper_only_reads(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table(20))
    with path.open("rb") as shipper:
        assert shipper.read(10)
        assert open_writers(path) == ()
        assert Eye(path).verdict() == "ok"


# --- bad input ---------------------------------------------------------------------------------------------------


def test_a_column_that_the_configuration_names_and_the_file_has_not_is_said(case: Case) -> None:
    seen = Eye(case.path, columns={"price": "cost"}).look()
    assert seen.verdict is DataVerdict.UNREADABLE
    assert "data_format.columns.price names 'cost', and there is no such column" in seen.findings[0].text
    with pytest.raises(BotkeepError, match="names 'cost'"):
        CSV.trades(case.path, options=FormatOptions(columns={"price": "cost"}))


def test_five_sparse_gigabytes_between_rows_are_sampled_at_once_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table(14_000))
    with path.open("r+b") as file:
        file.seek(5 << 30)
        file.write(b"\n" + "".join(map(row, range(14_000, 28_000))).encode())
    with _flat(20 << 20):
        started = time.perf_counter()
        seen = Eye(path).look(writing=True)
        assert time.perf_counter() - started < 10, "tracing included"
    assert (seen.verdict, seen.rows, rules(seen)) == (DataVerdict.OK, None, [("C0", False)])
    assert "5.4 GB: only its first and its last 1 MiB were read" in seen.findings[0].text


@contextmanager
def _flat(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEADER)
    with path.open("a") as file:
        for start in range(0, 30_000, 5000):
            file.write("".join(map(row, range(start, start + 5000))).replace("2026-11-", "2026-10-"))
    with _flat(12 << 20):
        assert Eye(path).look().rows is not None
    with _flat(8 << 20):
        CSV.snapshot(path, tmp_path / "copy", options=OPTIONS)


def test_a_row_of_a_million_columns_is_one_damaged_row(case: Case) -> None:
    case.path.write_bytes(table(60).encode() + b"," * 1_000_000 + b"\n" + row(60).encode())
    started = time.monotonic()
    seen = case.look()
    assert (seen.verdict, rules(seen), seen.rows) == (DataVerdict.CORRUPT, [("C4", True)], 61)
    assert time.monotonic() - started < 5
    case.rebuild()
    assert case.result == table(61)
    case.path.write_bytes(b"a," * 3000 + b"\n")
    assert case.look().verdict is DataVerdict.UNREADABLE


def test_the_cursor_stays_small_whatever_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    names = ["time", "symbol", "pnl", "trade_id", *(f"ü{n}" for n in range(700))]
    lines = [",".join(names)]
    for number in range(1500):
        bad = "\x01\x02é" * 300 if number % 3 else "1.5"
        at = datetime(2026, 9, 1, tzinfo=UTC) + timedelta(hours=number, microseconds=number)
        lines.append(f"{at.isoformat()},DOGEUSDT,{bad},{number}" + "," * 700)
    path.write_text("\n".join(lines) + "\n")
    assert len(json.dumps(Eye(path).look().cursor)) < 64 << 10


def test_one_bad_row_of_two_hundred_thousand_is_one_finding(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w") as file:
        file.write("time,symbol,side,price,qty,trade_id\n")
        for start in range(0, 200_000, 10_000):
            rows = [f"{1_700_000_000 + n},DOGEUSDT,BUY,0.1,100.0,{n}\n" for n in range(start, start + 10_000)]
            if start == 140_000:
                rows[5] = "1700140005,DOGEUSDT,BUY,0.1,oops,140005\n"
            file.writelines(rows)
    seen = inspect_whole(CSV, path, options=OPTIONS, now=NOW)
    assert [(found.rule, found.row) for found in seen.findings] == [("C9", 140_006)]
    assert seen.rows == 199_999


# --- adding ------------------------------------------------------------------------------------------------------

AT = datetime(2026, 11, 21, 9, 30, 15, 250_000, tzinfo=UTC)
FILL = Fill(
    at=AT, symbol="BTC/USDT", side="sell", price=Decimal("61526.5"), amount=Decimal("0.00325"), fee=Decimal("0.2"),
    fee_currency="USDT", id="77", order_id="8", quote="USDT",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "time,symbol,side,price,qty\n2026-11-21 09:00:00,BTCUSDT,BUY,1.5,0.00200000\n",
            "2026-11-21 09:30:15,BTCUSDT,SELL,61526.5,0.00325000",
        ),
        (
            "time;symbol;side;price;qty;fee;fee_asset;trade_id;note\n21;;;;;;;;\n"
            "2026-11-21T09:00:00.000Z;eth-usdt;buy;1,5;2;0,1;USDT;5;hello\n",
            "2026-11-21T09:30:15.250Z;btc-usdt;sell;61526,5;0,00325;0,2;USDT;77;",
        ),
        (
            '"time","pair","type","side","price","amount"\r\n"1795251600123","BTC/USDT","limit","TradeType.BUY","1","2"\r\n',
            '"1795253415250","BTC/USDT","","TradeType.SELL","61526.5","0.00325"\r',
        ),
        (
            "time, symbol, side, price, qty\n2026/11/21 09:00, BTC_USDT, Long, 1.5, 2.0\n",
            "2026/11/21 09:30, BTC_USDT, Short, 61526.5, 0.00325",
        ),
    ],
)
def test_a_trade_is_added_in_the_files_own_way_of_writing(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, newline="")
    made = CSV.append(path, [FILL], options=OPTIONS)
    assert made.left_out == ()
    assert path.read_bytes().decode() == text + expected + "\n"
    read = CSV.trades(path, options=OPTIONS).fills[-1]
    assert (read.side, read.price, read.amount) == ("sell", FILL.price, FILL.amount)


def _with_status(statuses: Sequence[str]) -> str:
    lines = (f"2026-11-21 09:{n:02}:00,BTC/USDT,buy,1.5,2,{one}\n" for n, one in enumerate(statuses))
    return "time,symbol,side,price,qty,status\n" + "".join(lines)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["FILLED", "CANCELED"], "FILLED"),
        (["done", "done", "rejected"], "done"),
        (["CANCELED"], "FILLED"),
        (["canceled"], "filled"),
        (["expired", "closed"], "closed"),
    ],
)
def test_a_trade_is_not_added_as_an_order_that_was_not_filled(
    tmp_path: Path, statuses: list[str], expected: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(_with_status(statuses))
    before = len(CSV.trades(path, options=OPTIONS).fills)
    assert CSV.append(path, [FILL], options=OPTIONS).left_out == ()
    assert path.read_text().splitlines()[-1].endswith(f",{expected}")
    assert len(CSV.trades(path, options=OPTIONS).fills) == before + 1


@pytest.mark.parametrize(
    ("markets", "own", "expected"),
    [
        (["binance"], "Binance", "binance"),
        (["gate_io", "kraken"], "gateio", "gate_io"),
        (["gate_io", "kraken"], "Kraken", "kraken"),
        (["binance_spot"], "binance", "binance_spot"),
        (["binance"], "", "binance"),
        (["binance", "kraken"], "okx", "okx"),
    ],
)
def test_a_trade_is_added_with_its_market_as_the_file_spells_it(
    tmp_path: Path, markets: list[str], own: str, expected: str
) -> None:
    path = tmp_path / "t.csv"
    lines = (f"2026-11-21 09:{n:02}:00,{market},BTC/USDT,buy,1.5,2\n" for n, market in enumerate(markets))
    path.write_text("time,exchange,symbol,side,price,qty\n" + "".join(lines))
    CSV.append(path, [Fill(**(vars(FILL) | {"market": own}))], options=OPTIONS)
    assert CSV.trades(path, options=OPTIONS).fills[-1].market == expected


def test_a_time_that_a_zone_has_twice_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("time,symbol,side,price,qty\n2026-10-24 09:00:00,BTCUSDT,BUY,1.5,2\n")
    options = FormatOptions(timezone="Europe/Berlin")
    early, late = (datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1))
    made = CSV.append(path, [_at(early), _at(late)], options=options)
    assert [fill.at for fill in CSV.trades(path, options=options).fills][1:] == [early]
    assert len(made.left_out) == 1
    assert "its time cannot be written in the way of 2026-10-24 09:00:00" in made.left_out[0]


def _at(at: datetime) -> Fill:
    return Fill(at=at, symbol="BTC/USDT", side="buy", price=Decimal(1), amount=Decimal(2), quote="USDT")


def test_what_the_columns_cannot_hold_is_left_out_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("time,symbol,side,price,qty,fee\n2026-11-21 09:00:00,BTCUSDT,BUY,1.5,2,0.1\n")
    before = path.read_bytes()
    closed = ClosedTrade(at=AT, symbol="BTC/USDT", pnl=Decimal(5))
    in_bnb = Fill(**(vars(FILL) | {"fee_currency": "BNB", "id": "x\n=cmd()"}))
    hostile = Fill(**(vars(FILL) | {"symbol": 'BTC"\n,/USDT'}))
    made = CSV.append(path, [closed, in_bnb, hostile], options=OPTIONS)
    assert path.read_bytes() == before
    assert (made.rows, len(made.left_out)) == (1, 3)
    assert "its fee is in BNB" in made.left_out[1]
    assert all(text.isprintable() for text in made.left_out)


def test_a_trade_goes_where_its_time_belongs_and_behind_a_file_without_order(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table(10).replace(row(4), "").replace(row(7), ""))
    fills = {fill.id: fill for fill in CSV.trades(DATA / "custom/fills.csv", options=OPTIONS).fills}
    assert fills
    shutil.copy(path, tmp_path / "whole.csv")
    (tmp_path / "whole.csv").write_text(table(10))
    missing = [CSV.trades(tmp_path / "whole.csv", options=OPTIONS).fills[n] for n in (7, 4)]
    CSV.append(path, missing, options=OPTIONS)
    assert path.read_text() == table(10)
    mixed = HEADER + "".join(row(n) for n in (9, 1, 8, 2))
    path.write_text(mixed)
    CSV.append(path, missing, options=OPTIONS)
    assert path.read_text() == mixed + row(4) + row(7)


@settings(max_examples=60, deadline=None)
@given(
    after=st.timedeltas(timedelta(0), timedelta(days=30_000)),
    side=st.sampled_from(["buy", "sell"]),
    price=st.decimals(min_value="0.00000001", max_value="9999999", places=8),
    amount=st.decimals(min_value="0.00000001", max_value="9999999", places=8),
    fee=st.decimals(min_value="-10", max_value="10", places=8),
    name=st.text("abc0123456789-:/", max_size=20),
)
def test_whatever_is_added_is_read_again_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    after: timedelta,
    side: str,
    price: Decimal,
    amount: Decimal,
    fee: Decimal,
    name: str,
) -> None:
    path = tmp_path_factory.getbasetemp() / "added.csv"
    path.write_text(
        "time,symbol,side,price,qty,fee,fee_asset,trade_id\n"
        "2017-01-01T00:00:00.000001+00:00,BTCUSDT,BUY,1.0,2.5,0.1,USDT,1\n"
    )
    fill = Fill(
        at=datetime(2017, 1, 1, tzinfo=UTC) + after, symbol="BTCUSDT", side=side, price=price, amount=amount, fee=fee,
        fee_currency="USDT", id=name, quote="USDT",
    )  # fmt: skip
    made = CSV.append(path, [fill], options=OPTIONS)
    assert made.left_out == ()
    assert fill in CSV.trades(path, options=OPTIONS).fills
    assert verdict(path) == "ok"


def test_findings_never_carry_what_a_terminal_would_obey(case: Case) -> None:
    nasty = b"\x1b[2J\x9b31m,\xe2\x80\xae,token=abcdefgh12345678,\n"
    case.path.write_bytes(table(5).encode() + nasty)
    found: tuple[Finding, ...] = case.look().findings
    assert found
    assert all(one.text.isascii() and one.text.isprintable() for one in found)


def test_a_column_that_is_named_for_a_price_and_holds_words_is_said(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table(30))
    seen = CSV.inspect(
        path, options=FormatOptions(columns={"price": "symbol"}), cursor=None, writing=False, now=datetime.now(UTC)
    )
    assert seen.verdict is DataVerdict.UNREADABLE
    assert "columns.price names 'symbol'" in seen.findings[0].text
