"""Every damage that a data file can have, in every format where there is such a thing, on files that real bots wrote.

Each case: a backup was made of the file's first rows, the bot wrote the others, then something happened. It ends in the
verdict that CONTRIBUTING's table of damages asks for, and in a file that has every trade which could be saved. What has
no case in a format is in `NOT_HERE`, with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from botkeep.formats import FORMATS
from botkeep.formats.base import inspect_whole
from botkeep.formats.files import held_deleted
from botkeep.model import DataVerdict
from support import small_disk
from support.damages import COVERED, KINDS, NOT_HERE, ROWS, Case, also, damage, program, trades_of
from support.real_files import FREQTRADE, frame, save_frame
from support.trade_files import as_nobody


@pytest.fixture
def case(kind: str, tmp_path: Path) -> Case:
    return Case(kind, tmp_path)


def test_every_row_of_the_table_has_a_case_or_a_reason_in_every_format() -> None:
    reasons = [(row, kind) for row, kinds in NOT_HERE.items() for names in kinds for kind in names.split()]
    assert set(KINDS) == set(FORMATS)
    assert len(reasons) == len(set(reasons))
    assert not COVERED & set(reasons)
    assert COVERED | set(reasons) == {(row, kind) for row in ROWS for kind in KINDS}


# --- torn and half-written ---------------------------------------------------------------------------------------


@damage("C1 D01", "csv jsonl json")
def test_a_torn_end_loses_the_last_row_alone(case: Case) -> None:
    case.unseen(case.real.rows - 1)
    os.truncate(case.path, case.path.stat().st_size - 25)
    case.corrupt("C1", "J1", alive="pending")
    case.saves(lost=[case.real.rows - 1])


@damage("D02", "csv jsonl json parquet")
def test_a_row_that_is_being_written_is_nobodys_damage(case: Case) -> None:
    case.unseen(case.real.rows - 1)
    whole = case.path.read_bytes()
    with case.path.open("r+b") as file:
        file.truncate(len(whole) - 25)
        for after in (0, 31, 300):
            os.utime(case.path)
            case.now = datetime.now(UTC) + timedelta(seconds=after)
            assert case.look(writing=True).verdict is DataVerdict.PENDING
        file.seek(len(whole) - 25)
        file.write(whole[-25:])
    assert case.look(writing=True).verdict is DataVerdict.OK


STORM = """
import sys, time
from pathlib import Path
kind, path = sys.argv[1:]
whole = Path(path).read_bytes()
if kind == "parquet":
    import pandas
    table = pandas.read_parquet(path)
    write = lambda: table.to_parquet(path)
else:
    write = lambda: Path(path).write_bytes(whole)
print("ready", flush=True)
while True:
    write()
    time.sleep(0.005)
"""


@damage("D03", "csv jsonl json parquet")
def test_a_file_that_is_written_anew_all_the_time_is_nobodys_damage(case: Case) -> None:
    with program(STORM, case.real.kind, case.path):
        seen, began = set[str](), time.monotonic()
        while time.monotonic() < began + 3 or (seen == {"pending"} and time.monotonic() < began + 20):
            case.now = datetime.now(UTC)
            seen.add(case.look(writing=True).verdict.value)
    assert seen <= {"ok", "pending"}
    assert "ok" in seen


@damage("J1 D25", "jsonl")
def test_glued_json_lines_are_parted_and_torn_ones_left_out(case: Case) -> None:
    lines = case.lines()
    lines[220] = lines[220].rstrip(b"\n")
    lines[230] = lines[230][:40] + b"\n"
    case.put(lines)
    case.corrupt("J1", "C1")
    case.saves(lost=[230])


@damage("J1 D25", "json")
def test_an_array_torn_in_its_middle_keeps_its_whole_elements(case: Case) -> None:
    text = case.path.read_text()
    place = text.index(f'"trade_id": {case.elements()[220]["trade_id"]}')
    case.path.write_text(text[:place] + text[place + 60 :])
    case.corrupt("J1", "C1")
    case.saves(lost=[220, 221])


@damage("P1 D33", "parquet")
def test_parquet_without_its_end_is_the_backup_and_nothing_more(case: Case) -> None:
    os.truncate(case.path, case.path.stat().st_size // 2)
    os.utime(case.path)
    case.now = datetime.now(UTC)
    case.corrupt("P1", alive="pending")
    case.saves(lost=range(case.real.rows))


@damage("P2 D33", "parquet")
def test_a_flipped_bit_costs_its_row_group_alone(case: Case) -> None:
    import pyarrow.parquet as pq

    chunk = pq.ParquetFile(case.path).metadata.row_group(6).column(11)
    data = bytearray(case.path.read_bytes())
    data[(chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 2] ^= 4
    case.path.write_bytes(data)
    case.corrupt("P2")
    case.saves(lost=range(60, 70))


# --- bytes that are none of the bot's ------------------------------------------------------------------------------


@damage("C2 D05", "csv jsonl json")
def test_nul_bytes_at_the_end_cost_what_they_cover(case: Case) -> None:
    with case.path.open("ab") as file:
        file.write(bytes(4096))
    case.corrupt("C2", "J1")
    case.saves()


@damage("C2 D06", "csv jsonl json")
def test_nul_bytes_in_the_middle_cost_the_rows_they_cover(case: Case) -> None:
    data, rows = bytearray(case.path.read_bytes()), case.real.rows
    at = len(data) * (rows - 10) // rows
    data[at : at + 100] = bytes(100)
    case.path.write_bytes(data)
    case.cursor = None  # what was verified is read again at the next backup
    case.corrupt("C2", "J1")
    found = trades_of(case.rebuilt())
    assert found <= trades_of(case.whole)
    assert rows - 3 <= len(found) < rows


@damage("C2", "parquet")
def test_a_parquet_file_that_was_zeroed_is_the_backup(case: Case) -> None:
    case.path.write_bytes(bytes(case.path.stat().st_size))
    case.corrupt("C2")
    case.saves(lost=range(case.real.rows))


@damage("C11 D17", "csv jsonl json sqlite parquet")
def test_a_web_page_in_its_place_is_certain_and_the_backup_comes_back(case: Case) -> None:
    case.path.write_text("<!doctype html>\n<html><body>502 Bad Gateway</body></html>\n")
    case.corrupt("C11", alive="suspect corrupt")
    case.saves(lost=range(case.real.rows))


@damage("C10 D04", "csv jsonl json sqlite parquet")
def test_an_emptied_file_gets_the_backup_back(case: Case) -> None:
    os.truncate(case.path, 0)
    case.now += timedelta(seconds=60)
    seen = case.look()
    assert (seen.verdict, seen.findings[0].rule in ("C10", "Q5", "Q3")) == (DataVerdict.CORRUPT, True), seen
    case.saves(lost=range(case.real.rows))


@damage("C6 D10", "csv jsonl")
def test_a_byte_order_mark_is_harmless_and_utf_16_is_named(case: Case) -> None:
    text = case.path.read_bytes()
    case.path.write_bytes(b"\xef\xbb\xbf" + text)
    case.cursor = None
    assert case.look().verdict is DataVerdict.OK
    assert trades_of(case.table()) == trades_of(case.whole)
    case.path.write_bytes(text.decode().encode("utf-16"))
    seen = case.look()
    assert seen.findings[0].rule == "C6", seen
    assert "UTF-16" in seen.findings[0].text


@damage("C6 D10", "csv")
def test_a_byte_of_another_encoding_is_a_note(case: Case) -> None:
    case.change(70, "simple_pmm,", "caf\u00e9_pmm,")
    case.path.write_bytes(case.path.read_bytes().replace("\u00e9".encode(), b"\xe9"))
    case.cursor = None
    case.noted("C6")
    assert len(case.table().fills) == case.real.rows


# --- rows that are none ------------------------------------------------------------------------------------------


@damage("C3 D07", "csv")
def test_a_lost_header_is_put_back(case: Case) -> None:
    case.path.write_bytes(b"".join(case.lines()))
    case.corrupt("C3")
    case.saves()


@damage("C3 D07", "parquet")
def test_a_lost_column_is_for_a_person(case: Case) -> None:
    columns = frame(case.real.rows)
    del columns["price"]
    save_frame(case.path, columns)
    seen = case.look()
    assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.UNREADABLE, "C3")


@damage("C4", "csv")
def test_a_row_with_too_few_columns_is_left_out(case: Case) -> None:
    case.change(70, ",simple_pmm,", ",")
    case.corrupt("C4", "C9")
    case.saves(lost=[70])


@damage("C5", "csv")
def test_a_stray_quote_costs_its_own_row_alone(case: Case) -> None:
    case.change(70, ",LIMIT,", ',"LIMIT,')
    case.corrupt("C5", "C4")
    case.saves(lost=[70])


@damage("C9 D15", "csv")
@pytest.mark.parametrize("number", ["inf", "NaN", "1_000", "\uff11\uff12", "1e1000000"])
def test_a_number_that_is_none_costs_its_row(case: Case, number: str) -> None:
    lines = case.lines()
    cells = lines[70].split(b",")
    cells[11] = number.encode()
    lines[70] = b",".join(cells)
    case.put(lines)
    case.corrupt("C9")
    case.saves(lost=[70])


@damage("C9 D15 J2 D25", "jsonl json")
@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", '"1_000"', '"\uff11\uff12"', "null", "[[1]]"])
def test_a_json_number_that_is_none_costs_its_row(case: Case, number: str) -> None:
    text = case.path.read_text()
    elements = [json.loads(line) for line in case.lines()] if case.real.kind == "jsonl" else case.elements()
    place = text.index('"price": ', text.index(f'"trade_id": {elements[219]["trade_id"]}'))
    end = text.index(",", place)
    case.path.write_text(text[:place] + f'"price": {number}' + text[end:])
    case.corrupt("C9", "J2")
    case.saves(lost=[220])


@damage("J2 D25", "jsonl json")
def test_a_key_that_stands_twice_costs_its_row(case: Case) -> None:
    text = case.path.read_text()
    place = text.rindex('"price": ')
    case.path.write_text(text[:place] + '"price": "1.5", ' + text[place:])
    case.corrupt("J2")
    case.saves(lost=[case.real.rows - 1])


@damage("C9 D15", "parquet")
def test_a_parquet_number_that_is_none_costs_its_row(case: Case) -> None:
    columns = frame(case.real.rows)
    columns["price"][70] = float("inf")
    save_frame(case.path, columns)
    case.corrupt("C9")
    case.saves(lost=[70])


@damage("D08", "csv")
def test_one_bad_row_among_many_costs_one(case: Case) -> None:
    lines = case.lines()
    many = [lines[0].replace(b"1795254686157098", b"%d" % (10**15 + number)) for number in range(100_000)]
    case.put([*lines, *many[:70_000], many[70_000].replace(b",0.05,", b",0.o5,"), *many[70_001:]])
    seen = inspect_whole(case.kind, case.path, options=case.options, now=case.now)
    assert (seen.verdict, len(seen.findings), seen.rows) == (DataVerdict.CORRUPT, 1, 83 + 99_999)
    target = case.folder / "new.csv"
    made = case.kind.rebuild(case.good, case.path, target, options=case.options)
    assert (made.rows, made.dropped) == (83 + 99_999, 1)


@damage("C7 D11", "csv jsonl json parquet")
def test_the_same_trade_twice_is_kept_once(case: Case) -> None:
    if case.real.kind == "json":
        case.dump([*case.elements(), case.elements()[-3]])
    elif case.real.kind == "parquet":
        save_frame(case.path, {name: [*cells, cells[-3]] for name, cells in frame(case.real.rows).items()})
    else:
        case.put([*case.lines(), case.lines()[-3]])
    assert case.look(writing=True).verdict is DataVerdict.SUSPECT
    seen = case.look(after=31)
    assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.CORRUPT, "C7")
    assert len(case.table().fills) == case.real.rows, "and it is counted once"
    case.saves()


@damage("C8 D13", "csv jsonl json parquet")
def test_rows_out_of_order_are_no_damage(case: Case) -> None:
    rows = case.real.rows
    late = [*range(rows - 12), *range(rows - 2, rows), *range(rows - 12, rows - 2)]
    for order in (late, [*range(5, rows), *range(5)]):
        reorder(case, order)
        case.cursor = None
        seen = case.look(writing=True)
        assert seen.verdict is DataVerdict.OK, seen
        assert {one.rule for one in seen.findings} <= {"C8"}
        assert trades_of(case.table()) == trades_of(case.whole)
        case.real.write(case.path, rows)


def reorder(case: Case, order: list[int]) -> None:
    """The rows in this order."""
    if case.real.kind == "json":
        elements = case.elements()
        case.dump([elements[place] for place in order])
    elif case.real.kind == "parquet":
        save_frame(case.path, {name: [cells[place] for place in order] for name, cells in frame(len(order)).items()})
    else:
        lines = case.lines()
        case.put([lines[place] for place in order])


@damage("C12 D18", "csv jsonl")
def test_rows_of_two_writers_run_into_each_other_and_the_others_are_saved(case: Case) -> None:
    lines = case.lines()
    place = case.real.kept + 5
    one, two = lines[place], lines[place + 1]
    lines[place : place + 2] = [one[:50] + two[:-1] + one[50:-1] + b"\n"]
    case.put(lines)
    case.corrupt("C12", "C4", "C5", "J1")
    case.saves(lost=[place, place + 1])


# --- rows that were there ----------------------------------------------------------------------------------------


@damage("D21", "csv jsonl json sqlite parquet")
def test_rows_deleted_in_the_middle_are_found_by_the_next_backup_and_come_back(case: Case) -> None:
    if case.real.kind == "json":
        elements = case.elements()
        case.dump(elements[:20] + elements[30:])
    elif case.real.kind == "sqlite":
        with sqlite3.connect(case.path) as database:
            database.execute("DELETE FROM trades WHERE id BETWEEN 21 AND 30")
        database.close()
    elif case.real.kind == "parquet":
        save_frame(case.path, {name: cells[:20] + cells[30:] for name, cells in frame(case.real.rows).items()})
    else:
        case.put(case.lines()[:20] + case.lines()[30:])
    found = case.kind.compare(case.path, case.mark, options=case.options)
    assert {one.rule for one in found} & {"C13", "C10", "Q6", "Q3"}, found
    case.corrupt("C10", "C13", "Q3")
    case.saves()


@also("Q6", "sqlite")
@damage("C13", "csv jsonl sqlite parquet")
def test_a_row_changed_in_place_is_found_by_the_next_backup_and_comes_back(case: Case) -> None:
    if case.real.kind == "sqlite":
        with sqlite3.connect(case.path) as database:
            database.execute("UPDATE trades SET close_profit_abs = 999.0 WHERE id = 11 AND is_open = 0")
        database.close()
    elif case.real.kind == "parquet":
        columns = frame(case.real.rows)
        columns["price"][10] = 1.25
        save_frame(case.path, columns)
    else:
        case.change(10, "0.", "9.")
    found = case.kind.compare(case.path, case.mark, options=case.options)
    assert {one.rule for one in found} <= {"C13", "Q6"}, found
    assert found
    case.saves()


@damage("C14", "csv jsonl json sqlite parquet")
def test_a_file_that_is_gone_is_the_backup_again_and_a_replaced_one_is_fine(case: Case) -> None:
    part = case.path.with_name("part")
    shutil.copy(case.path, part)
    os.replace(part, case.path)
    assert case.look(writing=True).verdict in (DataVerdict.OK, DataVerdict.REPLACED)
    case.path.unlink()
    seen = case.look()
    assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.MISSING, "C14")
    case.saves(lost=range(case.real.rows))


HOLD = """
import sys, sqlite3
kind, path = sys.argv[1:]
if kind == "sqlite":
    database = sqlite3.connect(path)
    database.execute("SELECT count(*) FROM trades").fetchone()
else:
    file = open(path, "a")
print("ready", flush=True)
sys.stdin.read()
"""


@damage("D23", "csv jsonl sqlite")
def test_a_deleted_file_that_its_bot_still_holds_is_copied_from_it(case: Case) -> None:
    identity = case.look(writing=True).identity
    with program(HOLD, case.real.kind, case.path) as bot:
        case.path.unlink()
        assert case.look(writing=True).verdict is DataVerdict.MISSING
        held = held_deleted(case.path, identity)
        assert held is not None
        assert held.parts[2] == str(bot.pid)
        shutil.copyfile(held, case.path)
    case.saves()


@damage("C15 D24", "csv jsonl json sqlite parquet")
def test_a_file_that_may_not_be_read_is_for_a_person(case: Case) -> None:
    case.path.chmod(0)
    with as_nobody():
        seen = case.look(writing=True)
    case.path.chmod(0o600)
    assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.UNREADABLE, "C15"), seen
    assert case.look(writing=True).verdict is DataVerdict.OK


@damage("D22", "csv jsonl json sqlite parquet")
def test_a_quiet_market_is_no_damage(case: Case) -> None:
    for hours in (1, 6, 24):
        seen = case.look(writing=True, after=3600 * hours)
        assert (seen.verdict, seen.findings) == (DataVerdict.OK, ())


@also("Q7", "sqlite")
@damage("D31", "csv jsonl json sqlite parquet")
def test_a_column_that_an_upgrade_added_is_a_note_and_never_restored(case: Case) -> None:
    if case.real.kind == "csv":
        head, *lines = case.path.read_text().splitlines()
        case.path.write_text("\n".join([head + ",note", *(line + ",x" for line in lines)]) + "\n")
    elif case.real.kind == "sqlite":
        with sqlite3.connect(case.path) as database:
            database.execute("ALTER TABLE trades ADD COLUMN note TEXT")
        database.close()
    elif case.real.kind == "parquet":
        save_frame(case.path, {**frame(case.real.rows), "note": ["x"] * case.real.rows})
    elif case.real.kind == "json":
        case.dump([{**one, "note": "x"} for one in case.elements()])
    else:
        case.put([json.dumps({**json.loads(line), "note": "x"}).encode() + b"\n" for line in case.lines()])
    for writing in (True, False):
        seen = case.look(writing=writing, after=31)
        assert seen.verdict is DataVerdict.OK, seen
    assert trades_of(case.table()) == trades_of(case.whole)


FULL = """
import sys, sqlite3
from datetime import datetime, UTC
from pathlib import Path
from botkeep.formats import FORMATS, FormatOptions
folder, kind = Path(sys.argv[1]), "KIND"
path = folder / ("trades.csv" if kind == "csv" else "trades.sqlite")
if kind == "csv":
    file = open(path, "w", buffering=1)
    file.write("time,symbol,side,price,qty,trade_id\\n")
else:
    file = sqlite3.connect(path)
    columns = "trade_id INTEGER PRIMARY KEY, time TEXT, symbol TEXT, side TEXT, price REAL, qty REAL"
    file.execute(f"CREATE TABLE trades ({columns})")
try:
    for number in range(10**6):
        row = (f"2026-11-01T00:00:00Z", "DOGEUSDT", "BUY", "0.1", "100", number)
        if kind == "csv":
            file.write(",".join(map(str, row)) + "\\n")
        else:
            with file:
                file.execute("INSERT INTO trades (time, symbol, side, price, qty, trade_id) VALUES (?,?,?,?,?,?)", row)
except (OSError, sqlite3.OperationalError) as error:
    print(type(error).__name__)
seen = FORMATS[kind].inspect(path, options=FormatOptions(), cursor=None, writing=True, now=datetime.now(UTC))
print(seen.verdict.value)
"""


@damage("D32", "csv sqlite")
@pytest.mark.skipif(
    not small_disk.available() and not os.environ.get("CI"), reason="this machine lets nobody mount a small disk"
)
def test_a_bot_on_a_full_disk_has_no_damaged_file(kind: str, tmp_path: Path) -> None:
    tools = Path(__file__).parents[2] / "tools"
    said = small_disk.run(FULL.replace("KIND", kind), size="64k", at=tmp_path / "disk", workspace_modules=str(tools))
    error, verdict = said.split()
    assert error in ("OSError", "OperationalError")
    assert verdict in ("pending", "ok"), "the cause is in the bot's log: no restore, no restart"


# --- SQLite ------------------------------------------------------------------------------------------------------


@damage("Q1 D26", "sqlite")
@pytest.mark.parametrize("how", ["page", "half"])
def test_a_malformed_database_is_rebuilt_from_the_backup_and_what_can_be_read(case: Case, how: str) -> None:
    data = bytearray(case.path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    if how == "half":
        del data[len(data) // 2 :]
    else:
        place = _page_of(case.path, 300, size) * size
        data[place : place + size] = bytes(size)
    case.path.write_bytes(data)
    case.cursor = None  # what was verified is read again at the next backup
    case.corrupt("Q1")
    saved = case.at_least_the_backup()
    assert how == "half" or case.real.kept < saved < case.real.rows


def _page_of(path: Path, trade: int, size: int) -> int:
    """Number, from 0, of the page that has this trade's row."""
    database = sqlite3.connect(path)
    (opened,) = database.execute("SELECT open_date FROM trades WHERE id = ?", (trade,)).fetchone()
    database.close()
    return path.read_bytes().rindex(opened.encode()) // size


@damage("D26", "sqlite")
def test_html_in_the_place_of_a_database_is_certain(case: Case) -> None:
    case.path.write_text("<html>" + "x" * 4096)
    case.corrupt("C11", "Q1", alive="suspect corrupt")
    case.saves(lost=range(case.real.rows))


@damage("Q5 D27", "sqlite")
def test_a_database_of_no_bytes_or_another_schema_is_not_ok(case: Case) -> None:
    case.path.write_bytes(b"")
    seen = case.look()
    assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.CORRUPT, "Q5"), seen
    case.path.unlink()
    with sqlite3.connect(case.path) as database:
        database.execute("CREATE TABLE notes (text TEXT)")
    database.close()
    seen = case.look()
    assert seen.verdict in (DataVerdict.CORRUPT, DataVerdict.UNREADABLE), seen
    case.saves(lost=range(case.real.rows))


WAL = """
import os, sys, sqlite3
path, whole = sys.argv[1:]
database = sqlite3.connect(path)
database.execute("PRAGMA journal_mode=WAL")
database.execute("PRAGMA wal_autocheckpoint=0")
database.execute("ATTACH ? AS whole", (whole,))
with database:
    database.execute("INSERT INTO trades SELECT * FROM whole.trades WHERE id > (SELECT max(id) FROM main.trades)")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def walled(tmp_path: Path) -> Case:
    """A database whose newest trades are in its -wal alone, for its bot was killed."""
    found = Case("sqlite", tmp_path)
    found.path.unlink()
    shutil.copy(found.good, found.path)
    with program(WAL, found.path, FREQTRADE):
        found.cursor = None
        assert found.look(writing=True).verdict is DataVerdict.OK
    assert found.path.with_name(found.path.name + "-wal").exists()
    return found


@damage("Q3 D28", "sqlite")
def test_a_database_without_its_wal_has_lost_rows(kind: str, walled: Case) -> None:
    assert len(trades_of(walled.table())) == walled.real.rows, "with it, it has all of them"
    walled.path.with_name(walled.path.name + "-wal").unlink()
    seen = walled.look(after=60)
    assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.CORRUPT, "Q3"), seen
    walled.saves(lost=range(walled.real.rows))


HOT = """
import os, sys, sqlite3
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size=1")
database.execute("PRAGMA cache_spill=1")
database.execute("BEGIN IMMEDIATE")
for number in range(1, 300):
    database.execute("UPDATE trades SET close_profit_abs = 12345.0, strategy = ? WHERE id = ?", ("x" * 200, number))
print("ready", flush=True)
sys.stdin.read()
"""


@damage("Q4 D29", "sqlite")
def test_a_hot_journal_is_rolled_back_and_nothing_committed_is_lost(case: Case) -> None:
    with program(HOT, case.path) as bot:
        journal = case.path.with_name(case.path.name + "-journal")
        assert journal.stat().st_size > 0
        assert case.look(writing=True).verdict is DataVerdict.PENDING
        bot.send_signal(signal.SIGKILL)
        bot.wait()
    seen = case.look(after=60)
    assert {one.rule for one in seen.findings} == {"Q4"}, seen
    found = trades_of(case.rebuilt())
    assert found == trades_of(case.whole), "not one cell of the transaction that was never committed"


LOCK = """
import sys, sqlite3
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("ready", flush=True)
sys.stdin.read()
"""


@damage("Q2 D30", "sqlite")
def test_a_locked_database_is_not_damaged(case: Case) -> None:
    with program(LOCK, case.path):
        case.cursor = None
        for after in (0, 31, 300):
            seen = case.look(writing=True, after=after)
            assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.PENDING, "Q2"), seen
    assert case.look(writing=True).verdict is DataVerdict.OK
