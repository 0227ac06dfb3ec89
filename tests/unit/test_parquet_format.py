"""Parquet: what is damage and what is not, told apart on files that pyarrow, pandas and polars write."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from botkeep.formats import FORMATS, FormatOptions, kind_of
from botkeep.formats.base import inspect_whole, more_to_read
from botkeep.model import BotkeepError, DataVerdict, Finding, Inspection
from support.formats.parquet import fills, load, save

PARQUET = FORMATS["parquet"]
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PLAIN = FormatOptions()


class Eye:
    """Looks at a file again and again, as rounds do."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path, self.options, self.now = path, FormatOptions(**options), datetime.now(UTC)
        self.cursor: dict[str, Any] | None = None

    def look(self, *, writing: bool = False, after: float = 0.0) -> Inspection:
        """One inspection, `after` seconds later than the one before."""
        self.now += timedelta(seconds=after)
        seen = PARQUET.inspect(self.path, options=self.options, cursor=self.cursor, writing=writing, now=self.now)
        self.cursor = json.loads(json.dumps(seen.cursor))
        return seen


def told(seen: Inspection) -> tuple[str, str, bool]:
    """Verdict, rule and certainty of the first finding."""
    assert seen.findings, seen
    return seen.verdict.value, seen.findings[0].rule, seen.findings[0].certain


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound file of 1,000 fills in ten row groups, with a checksum on every page."""
    found = tmp_path / "trades.parquet"
    save(found, fills(1000), row_group_size=100, write_page_checksum=True)
    return found


def flip(path: Path, group: int, column: str) -> None:
    """One bit at the end of a column's last page in that row group."""
    chunk = pq.ParquetFile(path).metadata.row_group(group).column(load_names(path).index(column))
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    data[start + chunk.total_compressed_size - 3] ^= 0x10
    path.write_bytes(data)


def load_names(path: Path) -> list[str]:
    return list(pq.read_schema(path).names)


# --- what bots write ---------------------------------------------------------------------------------------------


def test_what_three_libraries_write_gives_the_same_exact_fills(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.parquet" for name in ("arrow", "pandas", "polars")]
    save(paths[0], fills(500))
    pd.DataFrame(fills(500)).to_parquet(paths[1])
    pl.DataFrame(fills(500)).write_parquet(paths[2])
    read = [PARQUET.trades(path, options=PLAIN) for path in paths]
    assert read[0] == read[1] == read[2]
    assert (len(read[0].fills), read[0].skipped, read[0].notes) == (500, 0, ())
    assert read[0].fills[3].price == Decimal("0.100003")
    for one in paths:
        seen = Eye(one).look()
        assert (seen.verdict, seen.rows, seen.findings) == (DataVerdict.OK, 500, ())


@pytest.mark.parametrize(
    "times",
    [
        lambda at: pa.array(at, pa.timestamp("ns", "UTC")),
        lambda at: pa.array([one.replace(tzinfo=None) for one in at], pa.timestamp("ms")),
        lambda at: pa.array(at, pa.timestamp("us", "Asia/Tokyo")),
        lambda at: pa.array([int(one.timestamp() * 1000) for one in at]),
        lambda at: pa.array([one.isoformat() for one in at]),
        lambda at: pa.array([one.isoformat() for one in at]).dictionary_encode(),
    ],
)
def test_a_time_may_be_written_in_any_of_these_ways(tmp_path: Path, times: Any) -> None:
    path = tmp_path / "t.parquet"
    columns = fills(5)
    save(path, {**columns, "time": times(columns["time"])})
    assert [fill.at for fill in PARQUET.trades(path, options=PLAIN).fills] == columns["time"]
    seen = Eye(path).look()
    assert (seen.verdict, seen.tempo.newest) == (DataVerdict.OK, columns["time"][-1])


def test_times_without_a_zone_are_in_the_configured_one(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    save(path, {**fills(1), "time": [datetime(2026, 11, 1, 12, tzinfo=UTC).replace(tzinfo=None)]})
    found = PARQUET.trades(path, options=FormatOptions(timezone="Europe/Berlin")).fills[0].at
    assert found == datetime(2026, 11, 1, 11, tzinfo=UTC)
    newest = Eye(path, timezone="Europe/Berlin").look().tempo.newest
    assert newest == found


@pytest.mark.parametrize(
    ("prices", "options", "expected"),
    [
        (pa.array([Decimal("0.10000300")]), {}, "0.10000300"),
        (pa.array(["0.100003"]), {}, "0.100003"),
        (pa.array([0.1], pa.float32()), {}, "0.1"),
        (pa.array([1e-8]), {}, "0.00000001"),
        (pa.array([100003]), {"scale": {"price": 1_000_000}}, "0.100003"),
        (pa.array([1234567890123456789]), {"scale": {"price": 10**18}}, "1.234567890123456789"),
        (pa.array([b"0.5"]), {}, "0.5"),
    ],
)
def test_numbers_are_exact_in_whatever_type_they_are(
    tmp_path: Path, prices: Any, options: dict[str, Any], expected: str
) -> None:
    path = tmp_path / "t.parquet"
    save(path, {**fills(1), "price": prices})
    assert PARQUET.trades(path, options=FormatOptions(**options)).fills[0].price == Decimal(expected)
    assert Eye(path).look().verdict is DataVerdict.OK


def test_columns_of_other_names_are_mapped_by_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = fills(3)
    save(
        path,
        {"a": columns["time"], "b": columns["symbol"], "c": columns["side"], "d": columns["price"], "e": [1.0] * 3},
    )
    with pytest.raises(BotkeepError, match="not clear which column is the time"):
        PARQUET.trades(path, options=PLAIN)
    assert Eye(path).look().verdict is DataVerdict.OK, "it may be something else than trades"
    named = {"time": "a", "symbol": "b", "side": "c", "price": "d", "amount": "5"}
    assert len(PARQUET.trades(path, options=FormatOptions(columns=named)).fills) == 3
    with pytest.raises(BotkeepError, match="names 'x', and there is no such column"):
        PARQUET.trades(path, options=FormatOptions(columns={**named, "fee": "x"}))


def test_closed_trades_keep_the_result_that_the_bot_wrote(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    at = [datetime(2026, 11, 1, hour, tzinfo=UTC) for hour in range(4)]
    save(path, {"close_time": [*at[:3], None], "symbol": ["BTC/USDT"] * 4, "pnl": [1.5, -0.1, 2e-7, None]})
    read = PARQUET.trades(path, options=PLAIN)
    assert [trade.pnl for trade in read.closed] == [Decimal("1.5"), Decimal("-0.1"), Decimal("2e-7")]
    assert read.notes == ("1 open trades have no result yet and are not counted",)
    assert Eye(path).look().verdict is DataVerdict.OK, "an open trade has no result yet"


def test_lists_and_objects_are_refused_where_a_role_needs_them_and_let_alone_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    save(path, {**fills(3), "tags": [["a"], [], ["b", "c"]], "meta": [{"x": 1}] * 3})
    assert Eye(path).look().verdict is DataVerdict.OK
    assert len(PARQUET.trades(path, options=PLAIN).fills) == 3
    save(path, {**fills(3), "price": [[1.0], [2.0], [3.0]]})
    assert told(Eye(path).look()) == ("unreadable", "C3", False)
    with pytest.raises(BotkeepError, match="only flat ones are read"):
        PARQUET.trades(path, options=PLAIN)


# --- damage ------------------------------------------------------------------------------------------------------


def test_an_open_writer_has_no_footer_and_is_pending_for_as_long_as_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with writer_process(path) as process:
        eye = Eye(path)
        assert told(eye.look(writing=True)) == ("pending", "P1", False)
        assert told(eye.look(writing=True, after=3600)) == ("pending", "P1", False), "its writer has it open"
        with pytest.raises(BotkeepError, match="no footer"):
            PARQUET.snapshot(path, tmp_path / "copy", options=PLAIN)
        process.kill()
        process.wait()
    seen = eye.look(after=1)
    assert told(seen) == ("corrupt", "P1", True)
    assert "no footer" in seen.findings[0].text


@contextmanager
def writer_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A bot that has its file open and wrote one row group."""
    code = (
        "import sys, pyarrow as pa, pyarrow.parquet as pq\n"
        "table = pa.table({'time': [1761955200000] * 5000, 'symbol': ['DOGEUSDT'] * 5000})\n"
        "file = open(sys.argv[1], 'wb', buffering=0)\n"
        "writer = pq.ParquetWriter(file, table.schema)\n"
        "writer.write_table(table); file.flush(); print('ready', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_footer_that_nobody_is_going_to_write_any_more_is_suspect_beside_a_live_bot(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)
    assert told(Eye(path).look(writing=True)) == ("pending", "P1", False)
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))
    assert told(Eye(path).look(writing=True)) == ("suspect", "P1", False)


def test_a_bot_that_writes_its_table_anew_all_the_time_is_never_damaged(path: Path) -> None:
    code = (
        "import sys, pandas as pd\n"
        "table = pd.read_parquet(sys.argv[1]); print('ready', flush=True)\n"
        "while True: table.to_parquet(sys.argv[1])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        eye, seen = Eye(path), set[str]()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            eye.now = datetime.now(UTC)
            seen.add(eye.look(writing=True).verdict.value)
        assert seen <= {"ok", "pending"}
        assert "ok" in seen
    finally:
        process.kill()
        process.communicate()
    for number in range(5):
        with suppress(BotkeepError):
            PARQUET.snapshot(path, path.with_name(f"copy{number}"), options=PLAIN)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"<!doctype html><html>502 Bad Gateway</html>", "C11"),
        (b'{"error": "rate limited"}', "C11"),
        (bytes(4096), "C2"),
        (b"time,symbol\n", "C11"),
        (b"PA", "P1"),
        (b"PAR1", "P1"),
        (b"PAR1" + bytes(200) + b"\xff\xff\xff\x7fPAR1", "P1"),
        (b"PAR1" + b"\x15\x99" * 100 + (100).to_bytes(4, "little") + b"PAR1", "P1"),
        (b"", "C10"),
    ],
)
def test_what_stands_in_its_place_is_named_and_certain_once_nobody_writes(path: Path, data: bytes, rule: str) -> None:
    eye = Eye(path)
    eye.look()
    path.write_bytes(data)
    assert told(eye.look()) == ("corrupt", rule, True)
    with pytest.raises(BotkeepError):
        PARQUET.trades(path, options=PLAIN)


def test_an_empty_file_is_a_first_start(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.touch()
    assert told(Eye(path).look()) == ("pending", "C10", False)
    save(path, fills(0))
    assert Eye(path).look().verdict is DataVerdict.OK, "a table without rows is one"


def test_another_kind_of_file_under_a_name_that_says_nothing_is_for_a_person(tmp_path: Path) -> None:
    path = tmp_path / "trades.dat"
    path.write_text("time,symbol\n")
    assert told(Eye(path).look()) == ("unreadable", "C11", False)


@pytest.mark.parametrize("column", ["price", "order_id", "trade_id"])
def test_a_flipped_bit_is_found_by_the_checksum_of_its_page(path: Path, column: str) -> None:
    flip(path, 4, column)
    eye = Eye(path)
    assert told(eye.look(writing=True)) == ("suspect", "P2", False)
    assert told(eye.look(writing=True, after=31)) == ("corrupt", "P2", True)
    seen = Eye(path).look()
    assert told(seen) == ("corrupt", "P2", True)
    assert (seen.rows, seen.findings[0].row) == (900, 401)
    assert "Row group 5 of 10" in seen.findings[0].text
    read = PARQUET.trades(path, options=PLAIN)
    assert (len(read.fills), read.skipped) == (900, 100), "nothing of that row group is believed"


def test_without_checksums_the_comparison_with_the_last_backup_finds_a_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    save(path, fills(1000), compression="none", use_dictionary=False, row_group_size=100)
    mark = PARQUET.snapshot(path, tmp_path / "copy", options=PLAIN).mark
    flip(path, 4, "price")
    assert Eye(path).look().verdict is DataVerdict.OK, "nobody can see it in the file alone"
    found = PARQUET.compare(path, mark, options=PLAIN)
    assert [(one.rule, one.certain) for one in found] == [("C13", True)]
    assert found[0].row is not None
    assert found[0].row <= 500 < found[0].row + 16, "the last row of the fifth row group"


def test_hundreds_of_flipped_bytes_end_in_a_verdict_and_never_in_a_crash(tmp_path: Path) -> None:
    path, sound = tmp_path / "t.parquet", tmp_path / "sound.parquet"
    save(sound, {**fills(60), "note": ["x"] * 60}, row_group_size=20, compression="none")
    data, dice, seen = sound.read_bytes(), random.Random(7), set[str]()
    for _ in range(400):
        spoilt = bytearray(data)
        for _ in range(dice.randint(1, 3)):
            spoilt[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(spoilt)
        seen.add(Eye(path).look().verdict.value)
        with suppress(BotkeepError):
            PARQUET.trades(path, options=PLAIN)
        with suppress(BotkeepError):
            PARQUET.rebuild(sound, path, tmp_path / "new", options=PLAIN)
            assert PARQUET.trades(tmp_path / "new", options=PLAIN).fills[:1] != ()
    assert {"ok", "corrupt"} <= seen


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_price_that_is_none_is_damage_in_its_row(path: Path, value: float | None) -> None:
    columns = load(path)
    columns["price"][6] = value
    save(path, columns)
    seen = Eye(path).look()
    assert told(seen) == ("corrupt", "C9", True)
    assert (seen.findings[0].row, seen.rows) == (7, 999)
    read = PARQUET.trades(path, options=PLAIN)
    assert (len(read.fills), read.skipped) == (999, 1)


def test_a_time_in_no_calendar_is_damage_in_its_row(path: Path) -> None:
    columns = load(path)
    micros = [int(at.timestamp()) * 1_000_000 for at in columns["time"]]
    micros[6] = -(2**62)
    save(path, {**columns, "time": pa.array(micros, pa.timestamp("us", "UTC"))})
    assert told(Eye(path).look()) == ("corrupt", "C9", True)
    assert PARQUET.trades(path, options=PLAIN).skipped == 1


@pytest.mark.parametrize("text", ["1_000", "inf", "１２", "1e1000000", "abc"])
def test_text_in_a_column_of_numbers_is_damage_where_most_of_it_are_numbers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.parquet"
    columns = fills(50)
    save(path, {**columns, "price": [str(price) for price in columns["price"][:49]] + [text]})
    assert told(Eye(path).look()) == ("corrupt", "C9", True)
    save(path, {**columns, "fee": [text] * 50})
    assert Eye(path).look().verdict is DataVerdict.OK, "its own way of writing is no damage"


def test_the_same_trade_twice_is_suspect_until_it_lasts_and_partial_fills_are_none(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = fills(50)
    save(path, {name: [*cells, cells[7]] for name, cells in columns.items()})
    eye = Eye(path)
    assert told(eye.look()) == ("suspect", "C7", False)
    assert told(eye.look(after=31)) == ("corrupt", "C7", True)
    made = PARQUET.rebuild(None, path, tmp_path / "new.parquet", options=PLAIN)
    assert (made.rows, Eye(tmp_path / "new.parquet").look().verdict) == (50, DataVerdict.OK)
    partial = {name: [*cells, cells[7]] for name, cells in columns.items()}
    partial["trade_id"][-1] = 9999
    save(path, partial)
    assert Eye(path).look().verdict is DataVerdict.OK, "the parts of one order share order id, time and price"


def test_times_that_go_back_are_a_note(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = fills(50)
    columns["time"][30] -= timedelta(hours=2)
    save(path, columns)
    seen = Eye(path).look()
    assert told(seen) == ("ok", "C8", False)
    columns["time"][30] += timedelta(hours=2) - timedelta(seconds=58)
    save(path, columns)
    assert Eye(path).look().findings == ()


def test_the_cursor_stays_small_whatever_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = fills(2000)
    columns["trade_id"] = [f"{'x' * 500}{number}" for number in range(2000)]
    columns["price"] = [float("nan") if number % 9 == 0 else 1.0 for number in range(2000)]
    save(path, {**columns, **{f"{'column' * 30}{number}": [0] * 2000 for number in range(300)}}, row_group_size=100)
    seen = Eye(path).look()
    assert seen.verdict is DataVerdict.CORRUPT
    assert len(json.dumps(seen.cursor)) < 64 << 10
    save(path, {"x" * 201: [1]})
    assert told(Eye(path).look()) == ("unreadable", "C4", False)
    save(path, {**fills(1), "\x1b[31mprice": [[1]]})
    with pytest.raises(BotkeepError, match="x1b"):
        PARQUET.trades(path, options=FormatOptions(columns={"fee": "\x1b[31mprice"}))


def test_thousands_of_row_groups_are_read_in_time(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    save(path, {name: cells for name, cells in fills(4000).items() if name in ("time", "price")}, row_group_size=1)
    began = time.process_time()
    assert inspect_whole(PARQUET, path, options=PLAIN, now=NOW).rows == 4000
    assert time.process_time() - began < 5


def test_an_added_column_is_a_note_and_a_lost_one_is_for_a_person(path: Path) -> None:
    eye = Eye(path)
    eye.look()
    save(path, {**fills(1001), "strategy": ["x"] * 1001})
    assert told(eye.look()) == ("ok", "C3", False)
    columns = fills(1001)
    del columns["price"]
    save(path, columns)
    assert told(eye.look()) == ("unreadable", "C3", False)


# --- one look after the other ------------------------------------------------------------------------------------


def test_a_file_that_did_not_change_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eye = Eye(path)
    first = eye.look()
    before = bytes_read()
    second = eye.look(after=300)
    assert bytes_read() - before < 2000
    assert (second.verdict, second.rows, second.tempo, second.read_from) == (
        first.verdict, first.rows, first.tempo, first.size,
    )  # fmt: skip


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def test_a_large_file_is_read_in_several_looks_and_its_newest_trade_known_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botkeep.formats.parquet_inspect.BUDGET", 2000)
    eye = Eye(path)
    seen = eye.look()
    assert told(seen) == ("pending", "C0", False)
    assert more_to_read(seen)
    assert seen.tempo.newest == fills(1000)["time"][-1]
    whole = inspect_whole(PARQUET, path, options=PLAIN, now=NOW)
    assert (whole.verdict, whole.rows, whole.findings) == (DataVerdict.OK, 1000, ())
    assert sum(count for _, count in whole.tempo.per_hour) == 1000


def test_lost_rows_are_damage_and_a_rotation_is_not(path: Path) -> None:
    for writing, verdict in ((False, "corrupt"), (True, "suspect")):
        save(path, fills(1000))
        eye = Eye(path)
        eye.look()
        save(path, fills(990))
        eye.now = datetime.now(UTC) + timedelta(seconds=10)
        assert told(eye.look(writing=writing))[:2] == (verdict, "C10")
    save(path, fills(1000))
    eye = Eye(path)
    eye.look()
    os.rename(path, path.with_name("trades-2026-11.parquet"))
    save(path, fills(3, 1000))
    assert eye.look().verdict is DataVerdict.REPLACED
    assert eye.look().verdict is DataVerdict.OK


def test_without_the_library_it_says_how_to_get_it_and_still_looks_at_both_ends(path: Path, tmp_path: Path) -> None:
    code = (
        "import sys, datetime, pathlib; sys.modules['pyarrow'] = None\n"
        "from botkeep.formats import FORMATS, FormatOptions\n"
        "now = datetime.datetime.now(datetime.UTC)\n"
        "for name in sys.argv[1:]:\n"
        "    path, options = pathlib.Path(name), FormatOptions()\n"
        "    seen = FORMATS['parquet'].inspect(path, options=options, cursor=None, writing=False, now=now)\n"
        "    print(seen.verdict.value, seen.findings[0].text)\n"
    )
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(path.read_bytes()[:5000])
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(torn)], capture_output=True, text=True, check=True
    )
    sound, broken = done.stdout.splitlines()
    assert sound == 'unreadable Reading Parquet needs botkeep[parquet]: pip install "botkeep[parquet]".'
    assert broken.startswith("corrupt It has no footer")


def test_memory_stays_flat_however_many_rows_there_are(tmp_path: Path) -> None:
    """A file of a few kilobytes that unpacks to twelve million rows of text."""
    path = tmp_path / "t.parquet"
    block = pa.table({"time": [1761955200000] * 4_000_000, "note": ["abcdefgh" * 4] * 4_000_000})
    with pq.ParquetWriter(path, block.schema) as writer:
        for _ in range(3):
            writer.write_table(block, row_group_size=4_000_000)
    del block
    code = (
        "import re, sys, datetime, pathlib\n"
        "from botkeep.formats import FORMATS, FormatOptions\n"
        "from botkeep.formats.base import inspect_whole\n"
        "seen = inspect_whole(FORMATS['parquet'], pathlib.Path(sys.argv[1]), options=FormatOptions(),\n"
        "                     now=datetime.datetime.now(datetime.UTC))\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1]\n"
        "print(seen.verdict.value, seen.rows, int(peak) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    verdict, rows, mebibytes = done.stdout.split()
    assert (verdict, rows) == ("ok", "12000000")
    assert int(mebibytes) < 250


# --- copies ------------------------------------------------------------------------------------------------------


def test_a_rebuilt_file_is_the_copy_itself_where_nothing_can_be_salvaged(path: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    PARQUET.snapshot(path, good, options=PLAIN)
    os.truncate(path, 9000)
    made = PARQUET.rebuild(good, path, tmp_path / "new", options=PLAIN)
    assert (tmp_path / "new").read_bytes() == good.read_bytes()
    assert (made.rows, made.kept, made.salvaged, made.dropped) == (1000, 1000, 0, 1)
    assert made.dropped_rows[0].rule == "P1"
    with pytest.raises(BotkeepError, match="Nothing can be salvaged"):
        PARQUET.rebuild(None, path, tmp_path / "new", options=PLAIN)


def test_row_groups_that_can_be_read_are_salvaged_and_others_not_believed(path: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    PARQUET.snapshot(path, good, options=PLAIN)
    save(path, fills(1300), row_group_size=100, write_page_checksum=True)
    flip(path, 3, "price")
    flip(path, 11, "qty")
    made = PARQUET.rebuild(good, path, tmp_path / "new", options=PLAIN)
    assert (made.rows, made.kept, made.salvaged, made.dropped, made.damaged_good) == (1200, 1000, 200, 200, 1100)
    ids = [fill.id for fill in PARQUET.trades(tmp_path / "new", options=PLAIN).fills]
    assert ids == [str(1000 + number) for number in (*range(1100), *range(1200, 1300))]
    whole = inspect_whole(PARQUET, tmp_path / "new", options=PLAIN, now=NOW)
    assert (whole.verdict, whole.rows) == (DataVerdict.OK, 1200)
    assert pq.ParquetFile(tmp_path / "new").schema_arrow.equals(pq.ParquetFile(good).schema_arrow)
    alone = PARQUET.rebuild(None, path, tmp_path / "alone", options=PLAIN)
    assert (alone.rows, alone.kept, alone.dropped) == (1100, 0, 200)


def test_rows_without_an_id_are_new_if_they_are_later(tmp_path: Path) -> None:
    path, good, new = tmp_path / "t.parquet", tmp_path / "good", tmp_path / "new"
    columns = fills(30)
    del columns["trade_id"]
    save(path, {name: cells[:20] for name, cells in columns.items()})
    PARQUET.snapshot(path, good, options=PLAIN)
    columns["price"][3], columns["price"][29] = 9.0, float("nan")
    save(path, columns)
    made = PARQUET.rebuild(good, path, new, options=PLAIN)
    assert (made.rows, made.salvaged, made.dropped, made.dropped_sound) == (29, 9, 2, 1)
    assert [one.rule for one in made.dropped_rows] == ["C9", "C13"]


def test_in_mode_rewrite_a_newer_version_of_a_row_takes_its_place(tmp_path: Path) -> None:
    path, good, new = tmp_path / "t.parquet", tmp_path / "good", tmp_path / "new"
    columns = fills(30)
    columns["status"] = ["closed"] * 28 + ["partial"] * 2
    save(path, columns)
    PARQUET.snapshot(path, good, options=PLAIN)
    columns["status"][28] = "closed"
    columns["price"][2] = float("inf")
    save(path, columns)
    made = PARQUET.rebuild(good, path, new, options=FormatOptions(mode="rewrite"))
    assert (made.rows, made.kept, made.salvaged, made.replaced, made.dropped) == (30, 29, 1, 1, 1)
    found = load(new)
    assert found["status"][27:] == ["closed", "closed", "partial"]
    assert found["price"][2] == fills(3)["price"][2]
    kept = PARQUET.rebuild(good, path, new, options=PLAIN)
    assert (kept.salvaged, kept.dropped_sound) == (0, 1), "in mode append an old row does not change"


def test_new_columns_are_kept_and_other_types_are_for_a_person(tmp_path: Path) -> None:
    path, good, new = tmp_path / "t.parquet", tmp_path / "good", tmp_path / "new"
    save(path, fills(20))
    PARQUET.snapshot(path, good, options=PLAIN)
    save(path, {**fills(22), "strategy": ["a"] * 22})
    assert PARQUET.rebuild(good, path, new, options=PLAIN).salvaged == 2
    assert load(new)["strategy"] == [None] * 20 + ["a"] * 2
    save(path, {**fills(22), "trade_id": [f"x{number}" for number in range(22)]})
    made = PARQUET.rebuild(good, path, new, options=PLAIN)
    assert (made.rows, made.salvaged, made.dropped_rows[-1].rule) == (20, 0, "C3")
    assert new.read_bytes() == good.read_bytes()


def test_the_comparison_knows_equal_rows_however_they_are_packed(path: Path, tmp_path: Path) -> None:
    mark = json.loads(json.dumps(dict(PARQUET.snapshot(path, tmp_path / "copy", options=PLAIN).mark)))
    for how in ({"compression": "gzip"}, {"row_group_size": 7}, {"use_dictionary": False}):
        save(path, fills(1017), **how)
        assert PARQUET.compare(path, mark, options=PLAIN) == ()
    pl.DataFrame({**fills(1000), "new": list(range(1000))}).write_parquet(path)
    assert PARQUET.compare(path, mark, options=PLAIN) == (), "a column more loses nothing"
    columns = fills(1000)
    columns["price"][500] = 9.0
    save(path, columns)
    assert rules(PARQUET.compare(path, mark, options=PLAIN)) == ["C13"]
    assert PARQUET.compare(path, mark, options=FormatOptions(mode="rewrite")) == ()
    del columns["price"]
    save(path, columns)
    assert rules(PARQUET.compare(path, mark, options=PLAIN)) == ["C10"]
    os.truncate(path, 100)
    assert rules(PARQUET.compare(path, mark, options=PLAIN)) == ["P1"]


def rules(found: tuple[Finding, ...]) -> list[str]:
    return [one.rule for one in found]


def test_a_plan_stands_while_the_bot_adds_rows_to_a_table_that_it_writes_anew(path: Path) -> None:
    found = json.loads(json.dumps(PARQUET.evidence(path)))
    assert len(json.dumps(found)) < 8192
    save(path, fills(1001))
    assert PARQUET.stands(path, found)
    save(path, fills(999))
    assert not PARQUET.stands(path, found)


def test_kinds_are_known_by_their_endings() -> None:
    assert kind_of(Path("a/trades.parquet")) == kind_of(Path("a/trades.pq")) == "parquet"


def test_a_column_of_days_is_a_time(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    save(path, {"date": [date(2026, 11, 1)], "symbol": ["BTC/USDT"], "pnl": [Decimal("1.10")]})
    assert PARQUET.trades(path, options=PLAIN).closed[0].at == datetime(2026, 11, 1, tzinfo=UTC)


def test_a_copy_of_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    with pytest.raises(BotkeepError, match="There is no file"):
        PARQUET.snapshot(tmp_path / "none", target, options=PLAIN)
    shutil.copy(__file__, tmp_path / "t.parquet")
    with pytest.raises(BotkeepError, match="no Parquet file"):
        PARQUET.snapshot(tmp_path / "t.parquet", target, options=PLAIN)
