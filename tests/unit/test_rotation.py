"""A file that began anew is told from one that lost rows beside a copy, a moving file from one that stands."""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from botkeep.formats import FORMATS, delimited, inspecting
from botkeep.formats.base import Format, FormatOptions
from botkeep.formats.files import Source, began_anew, regular
from botkeep.formats.knowledge import state_from
from botkeep.model import DataVerdict
from support.formats import FACTORIES
from support.formats.sqlite import write_rows
from support.trade_files import HEADER, NOW, row, table

OPTIONS = FormatOptions()


def look(kind: Format, path: Path, cursor: dict[str, object] | None = None) -> tuple[str, dict[str, object]]:
    seen = kind.inspect(path, options=OPTIONS, cursor=cursor, writing=False, now=NOW)
    return seen.verdict.value, seen.cursor


# --- a rotation, or only a copy ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trades.csv.bak", "trades_yesterday.csv", "trades.csv.1.gz"])
@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_a_copy_beside_a_file_that_begins_as_before_is_no_rotation(tmp_path: Path, kind: str, name: str) -> None:
    files, path = FACTORIES[kind], tmp_path / "trades.csv"
    files.write(path, 100, 0)
    verdict, cursor = look(FORMATS[kind], path)
    assert verdict == "ok"
    beside = path.with_name(name)
    beside.write_bytes(gzip.compress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes())
    for first, verdict in ((0, "corrupt"), (30, "corrupt"), (100, "replaced")):
        files.write(path, 39, first)
        assert look(FORMATS[kind], path, cursor)[0] == verdict, first


@pytest.mark.parametrize(
    ("now", "anew"),
    [
        ("", True),
        (HEADER, True),
        (HEADER[:20], True),
        ("when,what\n", True),
        (table(3, start=100), True),
        (row(100), True),
        (HEADER + row(100)[:30], True),
        (table(100), False),
        (table(39), False),
        (table(1), False),
        (HEADER + row(0)[:30], False),
        (table(100).replace("0.100000", "0.100009"), False),
        (HEADER + "".join(row(n) for n in range(60, 100)), False),
        (HEADER + row(200) + row(99), False),
        (table(2, start=100) + table(99), False),
        ("\0" * 7909, False),
        ("<html><body>1,2,3</body></html>\n", False),
    ],
)
def test_a_file_began_anew_if_it_has_none_of_the_old_rows(tmp_path: Path, now: str, anew: bool) -> None:
    path, beside = tmp_path / "trades.csv", tmp_path / "trades.csv.1"
    beside.write_text(table(100))
    path.write_text(now)
    assert began_anew(path, beside, beside.stat().st_size) is anew


def test_a_file_that_is_gone_has_none_of_the_old_rows(tmp_path: Path) -> None:
    (tmp_path / "trades.csv.1").write_text(table(100))
    assert began_anew(tmp_path / "trades.csv", tmp_path / "trades.csv.1", 7909)


# --- a file that moves under a look ------------------------------------------------------------------------------


class Shortened(Source):
    """A file that its writer opens anew just when it is hashed."""

    name: Path

    def digest(self, start: int, stop: int) -> str:
        os.truncate(self.name, 34)
        return super().digest(start, stop)


def moving(path: Path, cursor: dict[str, object] | None, now: datetime) -> inspecting._Look:
    with regular(path) as plain:
        source = Shortened(os.dup(plain.fd))
    source.name = path
    known = state_from(cursor, delimited, OPTIONS)
    return inspecting._Look(delimited, path, source, OPTIONS, known, True, now)


def test_a_digest_says_when_the_file_ended_before(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text(table(100))
    with regular(path) as source:
        source.digest(0, source.size)
        assert not source.cut
        os.truncate(path, 34)
        assert source.changed()
        source.digest(0, 1024)
        assert source.cut


def test_a_file_that_is_cut_while_its_head_is_hashed_is_not_called_corrupt(tmp_path: Path) -> None:
    path, csv = tmp_path / "trades.csv", FORMATS["csv"]
    path.write_text(table(100))
    cursor = csv.inspect(path, options=OPTIONS, cursor=None, writing=True, now=NOW).cursor
    path.write_text(table(49))
    cursor = csv.inspect(path, options=OPTIONS, cursor=cursor, writing=True, now=NOW).cursor
    one = moving(path, cursor, NOW + timedelta(minutes=5))
    seen = one.inspection()
    os.close(one._source.fd)
    assert (seen.verdict, one.settled, seen.cursor) == (DataVerdict.PENDING, False, cursor)


def test_no_mark_of_a_file_that_was_cut_meanwhile_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text(table(100))
    one = moving(path, None, NOW)
    seen = one.inspection()
    os.close(one._source.fd)
    assert (seen.verdict, one.settled, seen.cursor) == (DataVerdict.PENDING, False, {})


REWRITER = """
import sys, time
until = time.monotonic() + 60
rows = 100
while time.monotonic() < until:
    rows += 1
    with open(sys.argv[1], "w") as file:
        file.write("time,symbol,side,price,amount,fee\\n")
        for n in range(rows % 400):
            if n % 40 == 0:
                file.flush()
                time.sleep(0.0003)
            at = f"2026-11-01 {n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}"
            file.write(f"{at},BTC/USDT,buy,{100 + n},1,0.1\\n")
"""


def test_a_table_that_is_written_anew_and_flushed_on_the_way_is_never_corrupt(tmp_path: Path) -> None:
    path, csv, cursor = tmp_path / "bot.csv", FORMATS["csv"], None
    path.write_text("time,symbol,side,price,amount,fee\n")
    seen: Counter[str] = Counter()
    with subprocess.Popen([sys.executable, "-c", REWRITER, str(path)]) as writer:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            for one in [cursor["before"]] if cursor and cursor["before"] else []:
                one["seen"] -= 300
            got = csv.inspect(path, options=OPTIONS, cursor=cursor, writing=True, now=datetime.now(UTC))
            cursor = got.cursor
            seen[got.verdict.value] += 1
        writer.kill()
    assert seen["corrupt"] == 0, seen


def test_a_copy_of_a_database_beside_it_does_not_explain_rows_that_it_lost(tmp_path: Path) -> None:
    path = tmp_path / "trades.sqlite"
    write_rows(path, 10, 0)
    kind, now = FORMATS["sqlite"], datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    first = kind.inspect(path, options=FormatOptions(), cursor=None, writing=False, now=now)
    shutil.copy(path, tmp_path / "trades.sqlite.bak")
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("DELETE FROM fills WHERE id > 3")
    seen = kind.inspect(path, options=FormatOptions(), cursor=first.cursor, writing=False, now=now)
    assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.CORRUPT, "C10")
