"""CSV: what is damage and what is not, told apart on real files and with real writers."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import time
import tracemalloc
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep.formats import FORMATS, FormatOptions, kind_of
from botkeep.formats.base import more_to_read
from botkeep.formats.delimited import Quoted, learn
from botkeep.formats.files import regular
from botkeep.model import BotkeepError, DataVerdict, Finding, Inspection
from botkeep.openfiles import open_writers
from support.bots import wait_for
from support.trade_files import DATA, HEADER, NOW, Eye, Writer, as_nobody, row, table

CSV = FORMATS["csv"]


@pytest.fixture
def trades(tmp_path: Path) -> Path:
    """A sound file of 100 fills."""
    path = tmp_path / "trades.csv"
    path.write_text(table(100))
    return path


def first(seen: Inspection) -> Finding:
    assert seen.findings, seen
    return seen.findings[0]


def told(seen: Inspection) -> tuple[str, str, bool]:
    """Verdict, rule and certainty of the first finding."""
    return seen.verdict.value, first(seen).rule, first(seen).certain


# --- samples of real files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("custom/fills.csv", 240),
        ("custom/fills_noheader.csv", 240),
        ("custom/closed_trades.csv", 118),
        ("custom/closed_trades_noheader.csv", 118),
        ("hummingbot/trades_conf_simple_pmm_1.csv", 83),
        ("hummingbot/export_trades_command.csv", 83),
    ],
)
def test_files_that_real_bots_wrote_are_sound(name: str, rows: int) -> None:
    for writing in (True, False):
        seen = Eye(DATA / name).look(writing=writing)
        assert (seen.verdict, seen.rows, seen.findings) == (DataVerdict.OK, rows, ())


@pytest.mark.parametrize(
    ("name", "rule", "row_number", "offset", "alive"),
    [
        ("bad_nan.csv", "C9", 40, 3947, "suspect"),
        ("bad_nul_tail.csv", "C2", 114, 11417, "suspect"),
        ("bad_truncated_last_line.csv", "C1", 118, 11719, "pending"),
    ],
)
def test_damage_is_named_with_its_place_and_certain_once_nobody_writes(
    name: str, rule: str, row_number: int, offset: int, alive: str
) -> None:
    dead = Eye(DATA / "custom" / name).look()
    assert told(dead) == ("corrupt", rule, True)
    assert (first(dead).row, first(dead).offset) == (row_number, offset)
    assert Eye(DATA / "custom" / name).verdict(writing=True) == alive


def test_evidence_is_escaped_short_and_redacted(trades: Path) -> None:
    nasty = b"\x1b[31mapi_secret=abcdefgh12345678\x00" + b"x" * 5000 + b"\n"
    trades.write_bytes(trades.read_bytes() + nasty)
    text = first(Eye(trades).look()).text
    assert text.isprintable()
    assert text.isascii()
    assert "abcdefgh12345678" not in text
    assert len(text) < 260


# --- incremental -------------------------------------------------------------------------------------------------


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table(20_000))
    eye = Eye(path)
    assert eye.look().rows == 20_000
    with path.open("a") as file:
        file.write(row(20_000) + row(20_001))
    before = _bytes_read()
    seen = eye.look(writing=True)
    added = len(row(20_000) + row(20_001))
    assert seen.rows == 20_002
    assert seen.read_from == path.stat().st_size - added
    assert _bytes_read() - before < added + 6000


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def test_a_cursor_is_json_and_a_damaged_or_foreign_one_is_ignored(trades: Path) -> None:
    eye = Eye(trades)
    eye.cursor = json.loads(json.dumps(eye.look().cursor))
    assert eye.look().rows == 100
    for cursor in ({}, {"v": 99}, {"v": 2}, {**eye.cursor, "damages": [1]}, {**eye.cursor, "layout": {"x": 1}}):
        seen = CSV.inspect(trades, options=FormatOptions(), cursor=cursor, writing=False, now=NOW)
        assert (seen.verdict, seen.rows, seen.read_from) == (DataVerdict.OK, 100, len(HEADER))


def test_damage_that_was_seen_stands_until_its_bytes_change(trades: Path) -> None:
    good = trades.read_bytes()
    bad = good.replace(b"0.100040,100.0", b"0.100040,nan..", 1)
    trades.write_bytes(bad)
    eye = Eye(trades)
    assert told(eye.look(writing=True)) == ("suspect", "C9", False)
    with trades.open("a") as file:
        file.write(row(100))
    seen = eye.look(writing=True, after=10)
    assert told(seen) == ("suspect", "C9", False)
    assert (first(seen).row, seen.rows) == (41, 100)
    assert told(eye.look(writing=True, after=25)) == ("corrupt", "C9", True), "the same bytes half a minute later"
    trades.write_bytes(good + row(100).encode())
    assert eye.look(writing=True, after=30).verdict is DataVerdict.OK


def test_a_first_look_at_a_large_file_goes_on_at_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    wide = "x" * 4000
    with path.open("w") as file:
        file.write("time,symbol,side,price,qty,note\n")
        for number in range(17_500):
            file.write(f"{1_795_000_000 + number},DOGEUSDT,BUY,0.1,{number}.5,{wide}\n")
    eye = Eye(path)
    seen = eye.look(writing=True)
    assert (seen.verdict, more_to_read(seen)) == (DataVerdict.PENDING, True)
    assert "the next look goes on" in first(seen).text
    assert seen.tempo.newest == datetime.fromtimestamp(1_795_000_000 + 17_499, UTC), "the newest trade is no old one"
    seen = eye.look(writing=True)
    assert (seen.verdict, seen.rows, more_to_read(seen)) == (DataVerdict.OK, 17_500, False)


def test_tempo_is_that_of_the_trades(trades: Path) -> None:
    tempo = Eye(trades).look().tempo
    assert tempo.newest == datetime(2026, 11, 1, 1, 39, tzinfo=UTC)
    assert set(tempo.gaps) == {60.0}
    start = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) // 3600
    assert tempo.per_hour == ((start, 60), (start + 1, 40))
    assert len(tempo.recent) == 100


def test_a_row_dated_in_the_future_does_not_make_the_file_look_fresh_for_ever(trades: Path) -> None:
    with trades.open("a") as file:
        file.write(row(100).replace("2026-11-01", "2062-11-01"))
    seen = Eye(trades).look()
    assert (seen.rows, seen.tempo.newest) == (101, datetime(2026, 11, 1, 1, 39, tzinfo=UTC))


# --- writers at work ---------------------------------------------------------------------------------------------


def test_a_row_in_progress_is_pending_and_torn_only_once_its_writer_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    eye = Eye(path)
    with Writer("step", path) as writer:
        writer.tell("rows 50")
        assert eye.look(writing=True).rows == 50
        writer.tell("half")
        for _ in range(20):
            seen = eye.look(writing=True, after=300)
            assert told(seen) == ("pending", "C1", False)
        assert open_writers(path) == (writer.process.pid,)
        writer.tell("rest")
        assert (eye.verdict(writing=True), eye.look(writing=True).rows) == ("ok", 51)
        writer.tell("half")
        writer.kill()
    assert open_writers(path) == ()
    seen = eye.look()
    assert told(seen) == ("corrupt", "C1", True)
    assert (first(seen).row, seen.rows) == (52, 51)
    assert first(seen).offset == len(table(51))


@pytest.mark.parametrize("mode", ["rewrite", "frame"])
def test_a_table_that_is_rewritten_all_the_time_is_never_damaged(tmp_path: Path, mode: str) -> None:
    """A thousand looks: none says corrupt, and what one of them suspects no second look would confirm."""
    path = tmp_path / "t.csv"
    eye = Eye(path)
    seen: Counter[str] = Counter()
    with Writer(mode, path):
        wait_for(lambda: eye.look(writing=True).verdict is DataVerdict.OK)
        while seen.total() < 500 or not seen["torn"]:
            eye.now = datetime.now(UTC)
            one = eye.look(writing=True)
            seen[one.verdict.value] += 1
            assert one.rows != 0 or one.verdict is not DataVerdict.OK, "an empty table was taken for the whole"
            if one.verdict is DataVerdict.SUSPECT:
                wait_for(lambda one=one: _identity(path) != one.identity)
            seen["torn"] += _rows_in(path) < 60  # so the trap was there
    assert seen["corrupt"] == 0
    assert seen["ok"] > 0


def _identity(path: Path) -> str:
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def _rows_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") - 1


def test_a_table_caught_half_written_twice_is_not_lost_while_its_writer_lives(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table(100))
    eye = Eye(path)
    eye.now = datetime.now(UTC)
    eye.look(writing=True)
    for rows in (20, 40, 60):
        path.write_text(table(rows))
        eye.now = datetime.now(UTC) + timedelta(seconds=4)
        seen = eye.look(writing=True)
        assert seen.verdict in (DataVerdict.PENDING, DataVerdict.SUSPECT)
        assert not first(seen).certain
    path.write_text(table(101))
    assert eye.verdict(writing=True) == "ok"


def test_a_table_that_is_replaced_by_renaming_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    eye = Eye(path)
    seen_rows = set()
    with Writer("replace", path):
        for _ in range(300):
            seen = eye.look(writing=True)
            assert seen.verdict is DataVerdict.OK, seen
            seen_rows.add(seen.rows)
    assert len(seen_rows) > 1


@pytest.mark.parametrize("writing", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_a_file_that_was_copied_aside_and_truncated_is_rotated_not_lost(
    tmp_path: Path, writing: bool, packed: bool
) -> None:
    path = tmp_path / "t.csv"
    eye = Eye(path)
    with Writer("append", path) as writer:
        writer.tell("rows 50")
        eye.look(writing=True)
        if packed:
            (tmp_path / "t.csv.1.gz").write_bytes(gzip.compress(path.read_bytes()))
        else:
            shutil.copy(path, tmp_path / "t.csv.1")
        os.truncate(path, 0)
        assert eye.verdict(writing=writing) == "replaced"
        writer.tell("rows 3")
        seen = eye.look(writing=writing)
        assert (seen.verdict, seen.rows) == (DataVerdict.OK, 3)


def test_a_file_that_was_renamed_aside_is_rotated_not_lost(trades: Path) -> None:
    eye = Eye(trades)
    eye.look()
    trades.rename(trades.with_name("trades-20261121.csv"))
    assert eye.verdict(writing=True) == "missing"
    trades.write_text(table(2, start=100))
    assert eye.verdict(writing=True) == "replaced"
    assert eye.verdict(writing=True) == "ok"


def test_a_moved_file_is_missed_and_found_beside(trades: Path) -> None:
    eye = Eye(trades)
    assert Eye(trades.with_name("never.csv")).look().findings == ()
    eye.look()
    trades.rename(trades.with_name("trades.csv.bak"))
    seen = eye.look()
    assert told(seen) == ("missing", "C14", True)
    assert "100 rows were in it; its bytes are in trades.csv.bak" in first(seen).text


@pytest.mark.parametrize(("left", "has"), [(0, "no bytes"), (len(table(30)), "30 rows")])
def test_lost_rows_are_certain_when_nobody_writes(trades: Path, left: int, has: str) -> None:
    eye = Eye(trades)
    eye.look()
    os.truncate(trades, left)
    for _ in range(2):
        seen = eye.look(after=60)
        assert told(seen) == ("corrupt", "C10", True)
        assert f"It has {has}; 100 rows were in it before" in first(seen).text


def test_lost_rows_are_suspect_while_a_quiet_writer_lives_with_the_same_identity_twice(trades: Path) -> None:
    eye = Eye(trades)
    eye.look()
    os.truncate(trades, 0)
    eye.now = datetime.now(UTC) + timedelta(seconds=60)
    one, two = eye.look(writing=True), eye.look(writing=True, after=20)
    assert told(one) == told(two) == ("suspect", "C10", False)
    assert one.identity == two.identity


def test_a_busy_writer_whose_rows_were_taken_is_found_out_after_half_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    eye = Eye(path)
    with Writer("append", path) as writer:
        writer.tell("rows 200")
        eye.now = datetime.now(UTC)
        eye.look(writing=True)
        os.truncate(path, 0)
        writer.tell("rows 40")
        seen = eye.look(writing=True)
        assert told(seen) == ("suspect", "C3", False), "its header went with its rows"
        writer.tell("rows 40")
        eye.now = datetime.now(UTC)
        seen = eye.look(writing=True, after=31)
        assert [(found.rule, found.certain) for found in seen.findings] == [("C3", True), ("C10", True)]
        assert "It has 80 rows" in seen.findings[1].text


def test_equal_fills_of_one_order_are_legal(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("time,symbol,side,price,qty,order_id\n" + "2026-11-21 09:00:00,BTCUSDT,BUY,61526.51,0.001,77\n" * 5)
    assert Eye(path).verdict() == "ok"
    assert len(CSV.trades(path, options=FormatOptions()).fills) == 5


# --- damage ------------------------------------------------------------------------------------------------------


def _damaged(path: Path, old: str, new: bytes) -> bytes:
    data = path.read_bytes()
    assert old.encode() in data
    return data.replace(old.encode(), new, 1)


def test_nul_bytes_are_found_in_the_middle_at_the_head_and_at_the_end(trades: Path) -> None:
    good = trades.read_bytes()
    place = good.index(row(50).encode())
    for start, length, expected in ((place, 200, 51), (0, 200, None), (len(good) - 30, 30, 100)):
        trades.write_bytes(good[:start] + bytes(length) + good[start + length :])
        seen = Eye(trades).look()
        assert told(seen) == ("corrupt", "C2", True)
        assert first(seen).row == expected
        eye = Eye(trades)
        assert eye.look(writing=True).verdict is DataVerdict.SUSPECT
    assert eye.verdict(writing=True, after=60) in ("suspect", "corrupt")


@pytest.mark.parametrize(
    "cell", ["nan", "NaN", "inf", "-inf", "1_000", "１００", "1e400", "1e1000000", " 1.5x", "0x10", "--1", "1.2.3", "٣"]
)
def test_numbers_are_read_by_our_own_grammar(trades: Path, cell: str) -> None:
    trades.write_bytes(_damaged(trades, "0.100040,100.0", f"0.100040,{cell}".encode()))
    started = time.monotonic()
    seen = Eye(trades).look()
    assert told(seen) == ("corrupt", "C9", True)
    assert first(seen).row == 41
    assert "`qty`" in first(seen).text
    assert time.monotonic() - started < 1
    table_read = CSV.trades(trades, options=FormatOptions())
    assert (len(table_read.fills), table_read.skipped) == (99, 1)


def test_thousands_are_read_where_no_comma_can_be_a_decimal_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        'time,symbol,pnl\n2026-11-21 09:00:00,BTCUSDT,"-1,234.50"\n2026-11-21 09:00:00,BTCUSDT,"1,234"\n' * 3
    )
    assert [one.pnl for one in CSV.trades(path, options=FormatOptions()).closed] == [Decimal("-1234.50")] * 3


@pytest.mark.parametrize("cell", ["1e5", "1E-08", "+12", "0.0012345678901234567", "-0.5", "123456789012345678"])
def test_numbers_that_programs_write_are_sound(trades: Path, cell: str) -> None:
    trades.write_bytes(_damaged(trades, "0.100040,100.0", f"0.100040,{cell}".encode()))
    assert Eye(trades).verdict() == "ok"
    fills = CSV.trades(trades, options=FormatOptions()).fills
    assert fills[40].amount == abs(Decimal(cell))


def test_a_time_that_is_none_is_damage(trades: Path) -> None:
    trades.write_bytes(_damaged(trades, "2026-11-01T00:40:00.000+00:00", b"2026-02-31T00:40:00.000+00:00"))
    seen = Eye(trades).look()
    assert (told(seen), first(seen).row) == (("corrupt", "C9", True), 41)


def test_one_bad_row_among_many_is_one_finding(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table(30_000).replace(row(20_000), "garbage,row\n"))
    seen = Eye(path).look()
    assert (len(seen.findings), first(seen).rule, first(seen).row, seen.rows) == (1, "C4", 20_001, 29_999)


_CLOSED = "time,symbol,side,entry,exit,qty,fee,pnl\n"


def _closed(number: int, word: str) -> str:
    """A closed trade; every fourth is still open, and says so by a word where its result will be."""
    left, fee, pnl = (word, word, word) if number % 4 == 0 else ("101", "0.1", "1.5")
    return f"2026-11-21 00:{number:02}:00,BTC/USDT,long,100,{left},1,{fee},{pnl}\n"


@pytest.mark.parametrize("word", ["None", "N/A", "NA", "-", "null", "nan", "NaN", '"None"'])
def test_a_word_for_no_result_yet_is_read_as_nothing_by_check_trades_and_rebuild(tmp_path: Path, word: str) -> None:
    path, copy, new = (tmp_path / name for name in ("t.csv", "copy.csv", "new.csv"))
    path.write_text(_CLOSED + "".join(_closed(n, word) for n in range(40)))
    assert (Eye(path).verdict(), Eye(path).look().rows) == ("ok", 40)
    read = CSV.trades(path, options=FormatOptions())
    assert (len(read.closed), read.skipped) == (30, 0)
    assert "10 open trades have no result yet and are not counted" in read.notes
    CSV.snapshot(path, copy, options=FormatOptions())
    path.write_text(path.read_text() + _closed(40, word) + "2026-11-2")
    CSV.rebuild(copy, path, new, options=FormatOptions())
    assert new.read_text() == _CLOSED + "".join(_closed(n, word) for n in range(41))


def test_a_trade_whose_time_to_close_is_none_yet_is_open(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"2026-11-21 0{n}:00:00,2026-11-21 0{n}:30:00,BTC/USDT,1.5\n" for n in range(1, 6)]
    path.write_text("open_time,close_time,symbol,pnl\n" + "".join(rows) + "2026-11-21 06:00:00,None,BTC/USDT,None\n")
    assert Eye(path).verdict() == "ok"
    assert len(CSV.trades(path, options=FormatOptions()).closed) == 5


@pytest.mark.parametrize(("word", "every"), [("nan", 20), ("open", 4), ("none at all", 4), ("0.0.1", 4)])
def test_other_words_in_place_of_a_result_are_damage(tmp_path: Path, word: str, every: int) -> None:
    path = tmp_path / "t.csv"
    path.write_text(_CLOSED + "".join(_closed(n if n % every == 0 else 1, word) for n in range(40)))
    assert told(Eye(path).look())[:2] == ("corrupt", "C9")


def test_a_price_or_amount_that_no_row_was_without_may_not_be_a_word_for_nothing(trades: Path) -> None:
    trades.write_bytes(_damaged(trades, "0.100040,100.0", b"0.100040,None"))
    assert told(Eye(trades).look()) == ("corrupt", "C9", True)


def test_two_rows_glued_together_are_damage(trades: Path) -> None:
    trades.write_bytes(_damaged(trades, row(40) + row(41), (row(40)[:60] + row(41)).encode()))
    assert told(Eye(trades).look()) == ("corrupt", "C4", True)


def test_a_stray_quote_damages_its_own_row_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table(1001).replace("DOGEUSDT,SELL,0.100101", '"DOGEUSDT,SELL,0.100101'))
    seen = Eye(path).look()
    assert [(found.rule, found.row) for found in seen.findings] == [("C5", 102)]
    assert seen.rows == 1000
    assert len(CSV.trades(path, options=FormatOptions()).fills) == 1000


def test_quotes_that_stay_open_over_many_lines_cost_one_pass_over_them(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table(50) + '"\n' + 'x""y\n' * 99)
    lines = path.read_bytes().split(b"\n")[:-1]
    with regular(path) as source:
        reader = learn(source, FormatOptions())
    assert reader is not None
    quoted = Quoted(reader, lines, 51)
    parsed = Counter[str]()
    for text in quoted.fed():
        parsed[text] += 1
    assert (parsed.total(), quoted.taken) == (100, 100)
    assert parsed.most_common(1) == [('x""y\n', 99)]
    with path.open("a") as file:
        file.write(('"\n' + 'x""y\n' * 99) * 199)
    started = time.process_time()
    assert Eye(path).look().verdict is DataVerdict.CORRUPT
    assert time.process_time() - started < 1.5


def test_quoted_notes_may_span_lines_hold_commas_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = ["time,symbol,side,price,qty,note"]
    lines += [f'2026-11-21 09:{n:02}:00,BTCUSDT,BUY,1.5,2,"a ""note"",\nline {n}\n\n2026"' for n in range(60)]
    path.write_text("\n".join(lines) + "\n")
    seen = Eye(path).look()
    assert (seen.verdict, seen.rows) == (DataVerdict.OK, 60)
    assert len(CSV.trades(path, options=FormatOptions()).fills) == 60
    with path.open("a") as file:
        file.write('2026-11-21 10:00:00,BTCUSDT,BUY,1.5,2,"begun\nand not')
    assert told(Eye(path).look(writing=True)) == ("pending", "C1", False)
    assert Eye(path).look().rows == 60


def test_an_unquoted_comma_once_is_damage_and_always_is_the_bots_own_way(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = [f"2026-11-21 09:{n:02}:00,BTCUSDT,BUY,1.5,2,reason" for n in range(50)]
    path.write_text("\n".join(["time,symbol,side,price,qty,reason", *lines[:-1], lines[-1] + ", second"]) + "\n")
    assert told(Eye(path).look()) == ("corrupt", "C4", True)
    path.write_text("\n".join(["time,symbol,side,price,qty,reason", *(line + ", second" for line in lines)]) + "\n")
    seen = Eye(path).look()
    assert (told(seen), seen.rows) == (("ok", "C3", False), 50)
    assert len(CSV.trades(path, options=FormatOptions()).fills) == 50


@pytest.mark.parametrize("page", ["<!DOCTYPE html><html>502 Bad Gateway</html>\n", "\n <html>\n<body>\n"])
def test_a_web_page_instead_of_trades_is_certain_even_while_the_bot_runs(trades: Path, page: str) -> None:
    eye = Eye(trades)
    eye.look()
    trades.write_text(page)
    assert told(eye.look(writing=True)) == ("corrupt", "C11", True)
    assert told(Eye(trades).look()) == ("corrupt", "C11", True)


def test_json_instead_of_trades_is_damage_and_a_json_file_is_a_mistake_in_the_configuration(trades: Path) -> None:
    eye = Eye(trades)
    eye.look()
    trades.write_text('{"code": -1003, "msg": "Too many requests"}\n')
    assert told(eye.look(writing=True)) == ("corrupt", "C11", True)
    other = trades.with_name("trades.jsonl")
    other.write_text('{"time": 1}\n')
    assert Eye(other).look().verdict is DataVerdict.UNREADABLE


def test_other_kinds_of_files_are_unreadable_not_damaged(tmp_path: Path) -> None:
    for name, data in {
        "db.csv": b"SQLite format 3\0" + bytes(100),
        "utf16.csv": table(3).encode("utf-16"),
        "log.txt": b"10:00 started\n10:01, waiting, for, it\n10:02 ended\n" * 30,
        "million.csv": b"," * 60_000 + b"\n",
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert Eye(path).look().verdict in (DataVerdict.UNREADABLE, DataVerdict.OK), name
        assert Eye(path).look().verdict is not DataVerdict.CORRUPT


def test_text_that_is_not_utf8_is_reported_and_a_bom_is_harmless(trades: Path) -> None:
    trades.write_bytes(b"\xef\xbb\xbf" + trades.read_bytes())
    assert Eye(trades).look().rows == 100
    assert len(CSV.trades(trades, options=FormatOptions()).fills) == 100
    path = trades.with_name("notes.csv")
    path.write_bytes(b"time,symbol,side,price,qty,note\n" + b"2026-11-21 09:00:00,BTCUSDT,BUY,1.5,2,caf\xe9\n" * 3)
    seen = Eye(path).look()
    assert (seen.verdict, seen.rows, first(seen).rule) == (DataVerdict.OK, 3, "C6")


def test_a_header_that_was_written_again_is_no_row(trades: Path) -> None:
    trades.write_text(table(10) + table(10, start=10))
    assert (Eye(trades).verdict(), Eye(trades).look().rows) == ("ok", 20)
    assert CSV.trades(trades, options=FormatOptions()).skipped == 0


def test_a_sound_last_row_without_a_line_end_is_suspect_only(trades: Path) -> None:
    trades.write_bytes(trades.read_bytes()[:-1])
    assert told(Eye(trades).look()) == ("suspect", "C1", False)
    assert Eye(trades).verdict(writing=True) == "pending"


def test_an_empty_file_is_pending_until_rows_were_seen_in_it(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.touch()
    eye = Eye(path)
    assert eye.verdict() == "pending"
    path.write_text(HEADER)
    assert (eye.verdict(), eye.look().rows) == ("ok", 0)
    path.write_text(table(5).replace("100.0", "nan", 1))
    assert told(eye.look()) == ("corrupt", "C9", True), "what a column holds is learned when there are rows"


# --- what is no file ---------------------------------------------------------------------------------------------


def test_what_is_no_regular_file_is_unreadable_at_once(tmp_path: Path) -> None:
    fifo, link, end = tmp_path / "fifo", tmp_path / "loop", tmp_path / "socket"
    os.mkfifo(fifo)
    link.symlink_to(link)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(end))
        for path in (tmp_path, fifo, link, end, Path("/dev/zero"), Path("/dev/full"), tmp_path / ("x" * 300)):
            started = time.monotonic()
            seen = Eye(path).look()
            assert (seen.verdict, first(seen).rule) == (DataVerdict.UNREADABLE, "C15"), path
            assert time.monotonic() - started < 0.5
            with pytest.raises(BotkeepError):
                CSV.trades(path, options=FormatOptions())


def test_a_file_that_we_may_not_read_is_unreadable_and_keeps_its_cursor(trades: Path) -> None:
    eye = Eye(trades)
    cursor = eye.look().cursor
    trades.chmod(0)
    trades.parent.chmod(0o711)
    with as_nobody():
        seen = eye.look()
    assert told(seen) == ("unreadable", "C15", False)
    assert "Permission denied" in first(seen).text
    assert seen.cursor == cursor


@pytest.mark.parametrize("head", [b"", table(200).encode()])
def test_ten_sparse_gigabytes_are_answered_at_once(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(head)
    os.truncate(path, 10 << 30)
    tracemalloc.start()
    started = time.perf_counter()
    seen = Eye(path).look()
    spent, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert told(seen) == ("corrupt", "C2", True)
    assert first(seen).offset == len(head)
    assert spent < 0.5
    assert peak < 20 << 20


def test_one_endless_line_is_damage_and_takes_little_memory(trades: Path) -> None:
    with trades.open("ab") as file:
        for _ in range(80):
            file.write(b"x" * (1 << 20))
    tracemalloc.start()
    seen = Eye(trades).look()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told(seen) == ("corrupt", "C4", True)
    assert peak < 20 << 20
    with trades.open("ab") as file:
        file.write(b"\n" + row(100).encode())
    table_read = CSV.trades(trades, options=FormatOptions())
    assert (len(table_read.fills), table_read.skipped) == (101, 1)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 3000), st.booleans())
def test_no_bytes_whatever_make_a_look_fail(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, writing: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    data = table(30).encode()
    path.write_bytes(data)
    eye = Eye(path)
    eye.look()
    path.write_bytes(data[:at] + junk + data[at + len(junk) // 2 :])
    seen = eye.look(writing=writing)
    json.dumps(seen.cursor)
    assert all(found.text.isprintable() for found in seen.findings)
    path.write_bytes(junk)
    assert Eye(path).look(writing=writing).verdict in set(DataVerdict)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=30),
    st.lists(
        st.tuples(st.integers(0, 59), st.sampled_from(["x,y\n", "\0" * 40 + "\n", '"a\n', "", "nan\n"])), max_size=4
    ),
)
def test_many_small_looks_see_what_one_look_sees(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], damages: list[tuple[int, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "steps.csv"
    lines = [row(number) for number in range(60)]
    for number, junk in damages:
        lines[number] = junk
    data = (HEADER + "".join(lines)).encode()
    path.write_bytes(b"")
    eye, at = Eye(path), 0
    for step in steps:
        path.write_bytes(data[: at + step])
        at += step
        eye.look(writing=True)
    path.write_bytes(data)
    stepwise, once = eye.look(), Eye(path).look()
    assert (stepwise.verdict, stepwise.rows, stepwise.tempo) == (once.verdict, once.rows, once.tempo)
    assert [(one.rule, one.row, one.offset) for one in stepwise.findings] == [
        (one.rule, one.row, one.offset) for one in once.findings
    ]


# --- trades ------------------------------------------------------------------------------------------------------


def _read(path: Path, text: str, **options: object) -> object:
    path.write_text(text)
    return CSV.trades(path, options=FormatOptions(**options))


def test_results_that_bots_wrote_are_read_exactly_and_open_trades_left_out(tmp_path: Path) -> None:
    table_read = CSV.trades(_written(tmp_path, (
        "timestamp,symbol,side,quantity,entry,take_profit,stop_loss,status,profit\n"
        "2026-11-21 09:00:00,BTC/USDT,long,1,10,12,9,closed,12.5$\n"
        "2026-11-21 09:01:00,BTC/USDT,long,1,10,12,9,closed,-$3.20\n"
        "2026-11-21 09:02:00,ETH/EUR,long,1,10,12,9,closed,0.1\n"
        "2026-11-21 09:03:00,BTC/USDT,long,1,10,12,9,open,\n"
        "2026-11-21 09:04:00,BTC/USDT,long,1,10,12,9,closed,oops\n"
    )), options=FormatOptions())  # fmt: skip
    assert table_read.kind == "closed"
    assert [(one.pnl, one.currency) for one in table_read.closed] == [
        (Decimal("12.5"), "USDT"),
        (Decimal("-3.20"), "USDT"),
        (Decimal("0.1"), "EUR"),
    ]
    assert table_read.skipped == 1
    assert any("row 5 could not be read" in note for note in table_read.notes)
    assert "1 open trades have no result yet and are not counted" in table_read.notes


def _written(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("written", "zone", "expected"),
    [
        ("2026-11-21 09:00:00", "UTC", "2026-11-21T09:00:00+00:00"),
        ("2026-11-21 09:00:00", "Europe/Berlin", "2026-11-21T08:00:00+00:00"),
        ("2026-07-21 09:00:00.5", "Europe/Berlin", "2026-07-21T07:00:00.500000+00:00"),
        ("2026-11-21T09:00:00Z", "Europe/Berlin", "2026-11-21T09:00:00+00:00"),
        ("2026-11-21T09:00:00.123456+02:00", "UTC", "2026-11-21T07:00:00.123456+00:00"),
        ("2026/11/21 09:00", "UTC", "2026-11-21T09:00:00+00:00"),
        ("2026-11-21 09:00:00 UTC", "Europe/Berlin", "2026-11-21T09:00:00+00:00"),
        ("1795251600", "Europe/Berlin", "2026-11-21T09:00:00+00:00"),
        ("1795251600.25", "UTC", "2026-11-21T09:00:00.250000+00:00"),
        ("1795251600719", "UTC", "2026-11-21T09:00:00.719000+00:00"),
        ("1795251600719001", "UTC", "2026-11-21T09:00:00.719001+00:00"),
        ("1795251600719001999", "UTC", "2026-11-21T09:00:00.719001+00:00"),
    ],
)
def test_times_are_understood_as_bots_write_them(tmp_path: Path, written: str, zone: str, expected: str) -> None:
    path = _written(tmp_path, f"time,symbol,pnl\n{written},BTCUSDT,1\n")
    options = FormatOptions(timezone=zone)
    assert CSV.trades(path, options=options).closed[0].at == datetime.fromisoformat(expected)
    seen = CSV.inspect(path, options=options, cursor=None, writing=False, now=NOW + timedelta(days=1))
    assert (seen.verdict, seen.tempo.newest) == (DataVerdict.OK, datetime.fromisoformat(expected))


@pytest.mark.parametrize(
    "text",
    [
        "time;symbol;side;price;qty\n2026-11-21 09:00:00;BTCUSDT;BUY;0,5;2\n",
        "time\tsymbol\tside\tprice\tqty\n2026-11-21 09:00:00\tBTCUSDT\tBUY\t0.5\t2\n",
        "time, symbol, side, price, qty\n2026-11-21 09:00:00, BTCUSDT, BUY, 0.5, 2\n",
        '"time","symbol","side","price","qty"\r\n"2026-11-21 09:00:00","BTCUSDT","BUY","0.5","2"\r\n',
        "Date(UTC),Pair,Side,Price,Executed Qty\n2026-11-21 09:00:00,BTC-USDT,buy,0.5,2\n",
        "orderId,tradeId,Timestamp,Trading Pair,tradeType,avgPrice,filledQty\n"
        "7,9,1795251600000,BTC/USDT,TradeType.BUY,0.5,2\n",
    ],
)
def test_the_same_fill_is_read_from_every_way_of_writing_it(tmp_path: Path, text: str) -> None:
    path = _written(tmp_path, text)
    (fill,) = CSV.trades(path, options=FormatOptions()).fills
    assert (fill.at, fill.side, fill.price, fill.amount, fill.quote) == (
        datetime(2026, 11, 21, 9, tzinfo=UTC), "buy", Decimal("0.5"), Decimal(2), "USDT",
    )  # fmt: skip
    assert Eye(path).verdict() == "ok"


def test_columns_that_cannot_be_told_apart_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(BotkeepError, match=r'columns": \{"price"'):
        CSV.trades(DATA / "custom/closed_trades_noheader.csv", options=FormatOptions())
    chosen = FormatOptions(columns={"pnl": "8"})
    assert len(CSV.trades(DATA / "custom/closed_trades_noheader.csv", options=chosen).closed) == 118
    with pytest.raises(BotkeepError, match="names 'net', and there is no such column"):
        CSV.trades(DATA / "custom/closed_trades.csv", options=FormatOptions(columns={"pnl": "net"}))
    with pytest.raises(BotkeepError, match="it is not clear which column is the"):
        CSV.trades(_written(tmp_path, "a,b\nx,y\n"), options=FormatOptions())


def test_files_without_a_header_are_recognised_where_nothing_can_be_mistaken() -> None:
    named = CSV.trades(DATA / "custom/fills.csv", options=FormatOptions()).fills
    bare = CSV.trades(DATA / "custom/fills_noheader.csv", options=FormatOptions()).fills
    assert [(f.at, f.price, f.amount, f.fee, f.fee_currency) for f in bare] == [
        (f.at, f.price, f.amount, f.fee, f.fee_currency) for f in named
    ]


def test_orders_that_were_not_filled_are_no_trades(tmp_path: Path) -> None:
    text = "time,symbol,side,price,filled,status\n" + "".join(
        f"2026-11-21 09:0{n}:00,BTCUSDT,BUY,1.5,2,{status}\n" for n, status in enumerate(["closed", "canceled", "open"])
    )
    table_read = CSV.trades(_written(tmp_path, text), options=FormatOptions())
    assert len(table_read.fills) == 1
    assert "2 rows are orders that were not filled and are not counted" in table_read.notes


# --- snapshots and who writes ------------------------------------------------------------------------------------


def test_a_snapshot_of_a_file_in_use_ends_at_a_whole_record(tmp_path: Path) -> None:
    path, copy = tmp_path / "t.csv", tmp_path / "copy"
    with Writer("step", path) as writer:
        writer.tell("rows 20")
        writer.tell("half")
        cut = CSV.snapshot(path, copy, options=FormatOptions())
        writer.tell("rest")
    assert copy.read_text() == table(20)
    assert (cut.size, cut.cut) == (len(table(20)), len(row(20)) // 2)
    assert cut.first_at == datetime(2026, 11, 1, tzinfo=UTC)


def test_a_snapshot_is_not_cut_within_a_quoted_note(tmp_path: Path) -> None:
    path, copy = tmp_path / "t.csv", tmp_path / "copy"
    whole = "time,symbol,pnl,note\n2026-11-21 09:00:00,BTCUSDT,1,plain\n"
    path.write_text(whole + '2026-11-21 09:01:00,BTCUSDT,1,"first line\nsecond line\nthi')
    CSV.snapshot(path, copy, options=FormatOptions())
    assert copy.read_text() == whole


@pytest.mark.parametrize("mode", ["append", "rewrite"])
def test_snapshots_of_a_table_rewritten_all_the_time_are_whole_or_refused(tmp_path: Path, mode: str) -> None:
    path, copy = tmp_path / "t.csv", tmp_path / "copy"
    taken = tries = 0
    with Writer("frame", path):
        while tries < 30 or (not taken and tries < 1000):
            tries += 1
            with suppress(BotkeepError):
                CSV.snapshot(path, copy, options=FormatOptions(mode=mode))
                taken += 1
                assert table(3000).startswith(copy.read_text())
    assert taken


def test_who_writes_is_found_under_any_name_and_readers_are_not(tmp_path: Path, trades: Path) -> None:
    other = tmp_path / "link.csv"
    other.symlink_to(trades)
    with trades.open() as reader, Writer("append", trades) as writer:
        assert reader.readable()
        assert open_writers(trades) == open_writers(other) == (writer.process.pid,)
    assert open_writers(trades) == ()
    assert open_writers(tmp_path / "missing") == ()


def test_the_format_of_a_file_is_configured_or_told_by_its_ending() -> None:
    assert [kind_of(Path(name)) for name in ("a.csv", "a.txt", "a")] == ["csv"] * 3
    assert (kind_of(None), kind_of(Path("a.csv"), "other")) == ("csv", "other")
