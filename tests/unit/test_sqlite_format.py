"""SQLite: what is damage and what is not, on databases that real bots wrote and while real processes write."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep.formats import FORMATS, FormatOptions, sqlite_files, sqlite_process
from botkeep.formats.base import inspect_whole
from botkeep.formats.sqlite_files import Head
from botkeep.formats.sqlite_hummingbot import fee_of
from botkeep.formats.sqlite_merging import Counts
from botkeep.formats.sqlite_open import reading
from botkeep.formats.sqlite_values import ValueProblemError, exact
from botkeep.model import BotkeepError, ClosedTrade, DataVerdict, Fill, Inspection
from support.bots import wait_for
from support.formats.sqlite import HUMMINGBOT_CSV, Writer, add_rows, freqtrade, freqtrade_wal, hummingbot, write_rows
from support.trade_files import DATA, NOW, as_nobody

SQLITE = FORMATS["sqlite"]
OPTIONS = FormatOptions()
PROFIT = json.loads((DATA / "freqtrade/api_dry/profit_all.json").read_text(), parse_float=Decimal)["all"]


class Eye:
    """Looks again and again, as rounds do."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path, self.options = path, FormatOptions(**options)
        self.now = NOW
        self.cursor: dict[str, Any] | None = None

    def look(self, *, writing: bool = False, after: float = 0.0) -> Inspection:
        """One inspection, `after` seconds later, its cursor kept as the ledger keeps it."""
        self.now += timedelta(seconds=after)
        seen = SQLITE.inspect(self.path, options=self.options, cursor=self.cursor, writing=writing, now=self.now)
        self.cursor = json.loads(json.dumps(seen.cursor))
        return seen

    def told(self, *, writing: bool = False, after: float = 0.0) -> tuple[str, list[str]]:
        """Verdict and rules."""
        seen = self.look(writing=writing, after=after)
        return seen.verdict.value, [one.rule for one in seen.findings]


def change(path: Path, text: str, *values: Any) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(text, values)


def value_of(path: Path, text: str) -> Any:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
        return base.execute(text).fetchone()[0]


def count(path: Path, **options: Any) -> int:
    found = SQLITE.trades(path, options=FormatOptions(**options))
    return len(found.fills) + len(found.closed) + len(found.open)


def zero_page(path: Path, number: int, size: int = 4096) -> None:
    with path.open("r+b") as file:
        file.seek((number - 1) * size)
        file.write(bytes(size))


def leaf_of(path: Path, table: str, row: int) -> int:
    """The page on which a row stands: the one whose loss makes it unreadable."""
    with closing(sqlite3.connect(path)) as base:
        pages = base.execute("PRAGMA page_count").fetchone()[0]
    for number in range(2, pages + 1):
        copy = path.with_name("probe")
        shutil.copy(path, copy)
        zero_page(copy, number)
        with closing(sqlite3.connect(copy)) as base:
            try:
                base.execute(f"SELECT * FROM {table} WHERE rowid = {row}").fetchone()
                base.execute(f"SELECT * FROM {table} WHERE rowid = 1").fetchone()
            except sqlite3.DatabaseError:
                try:
                    base.execute(f"SELECT * FROM {table} WHERE rowid = 1").fetchone()
                except sqlite3.DatabaseError:
                    continue
                return number
            finally:
                copy.unlink()
    raise AssertionError(f"no leaf of {table} has row {row}")


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    """freqtrade's database."""
    return freqtrade(tmp_path)


@pytest.fixture
def fills(tmp_path: Path) -> Path:
    """A table of fifty fills."""
    path = tmp_path / "trades.sqlite"
    write_rows(path, 50, 0)
    return path


# --- trades ------------------------------------------------------------------------------------------------------


def test_freqtrades_trades_add_up_to_what_its_api_said(bot: Path) -> None:
    found = SQLITE.trades(bot, options=OPTIONS)
    assert (found.kind, found.skipped, found.notes) == ("closed", 0, ())
    assert len(found.closed) == PROFIT["closed_trade_count"]
    assert len(found.closed) + len(found.open) == PROFIT["trade_count"]
    assert sum(trade.pnl for trade in found.closed) == PROFIT["profit_closed_coin"]
    assert sum(trade.pnl > 0 for trade in found.closed) == PROFIT["winning_trades"]
    traded = sum(t.amount * (t.entry + t.exit) for t in found.closed if t.amount and t.entry and t.exit)
    traded += sum(trade.amount * trade.entry for trade in found.open)
    assert round(traded, 9) == round(PROFIT["trading_volume"], 9)


def test_a_trade_of_freqtrade_is_read_exactly_as_it_was_written(bot: Path) -> None:
    found = SQLITE.trades(bot, options=OPTIONS)
    assert next(trade for trade in found.closed if trade.id == "1") == ClosedTrade(
        at=datetime(2026, 11, 21, 9, 21, 55, 522000, tzinfo=UTC), symbol="BTC/USDT", pnl=Decimal("-0.8747007"),
        currency="USDT", fee=Decimal("0.3988490996"), id="1",
        opened=datetime(2026, 11, 21, 9, 21, 14, 699550, tzinfo=UTC), side="long", amount=Decimal("0.00322"),
        entry=Decimal("62006.98"), exit=Decimal("61859.2"), stake=Decimal("199.6624756"),
        ratio=Decimal("-0.004376520277538185"), market="binance", reason="time_40s",
    )  # fmt: skip
    first = found.open[0]
    assert (first.id, first.symbol, first.side, first.amount) == ("308", "ETH/USDT", "long", Decimal("0.0754"))
    assert (first.value, first.fee_close, first.leverage) == (Decimal("200.154722768"), Decimal("0.001"), 1)


def test_all_twelve_trades_are_read_though_the_main_file_has_none_of_them(tmp_path: Path) -> None:
    path = freqtrade_wal(tmp_path)
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as wrong:
        assert wrong.execute("SELECT count(*) FROM trades").fetchone() == (0,)
    assert count(path) == 12
    path.with_name(path.name + "-shm").unlink()
    assert count(path) == 12


def test_hummingbots_fills_are_those_of_its_own_csv(tmp_path: Path) -> None:
    ours = SQLITE.trades(hummingbot(tmp_path), options=OPTIONS)
    theirs = FORMATS["csv"].trades(DATA / HUMMINGBOT_CSV, options=OPTIONS)
    assert ours.notes == ()
    assert len(ours.fills) == 83
    for one, other in zip(ours.fills, sorted(theirs.fills, key=lambda fill: fill.at), strict=True):
        assert one == other


def test_a_fee_without_a_sum_in_the_quote_currency_comes_from_its_parts() -> None:
    flat = '{"percent": "0", "flat_fees": [{"token": "bnb", "amount": "0.0001"}, {"token": "BNB", "amount": "1e-4"}]}'
    assert fee_of('{"percent": "0.001", "flat_fees": []}', Decimal(132), "USDT") == (Decimal("0.132"), "USDT")
    assert fee_of(flat, Decimal(132), "USDT") == (Decimal("0.0002"), "BNB")
    assert fee_of("", Decimal(132), "USDT") == (0, "USDT")
    for wrong in ("[1]", "{", '{"percent": "1e999999"}', '{"flat_fees": [{"token": "A"}]}', "[" * 5000, flat[:-1]):
        with pytest.raises(ValueProblemError):
            fee_of(wrong, Decimal(1), "USDT")


def test_a_table_is_recognised_by_its_columns_or_named_by_the_configuration(fills: Path) -> None:
    assert count(fills) == 50
    change(fills, "CREATE TABLE old_fills AS SELECT * FROM fills WHERE id < 4")
    with pytest.raises(BotkeepError, match="fills and old_fills could be it"):
        count(fills)
    assert (count(fills, table="fills"), count(fills, table="old_fills")) == (50, 3)
    with pytest.raises(BotkeepError, match="has no table 'nothing'"):
        count(fills, table="nothing")


def test_scaled_integers_and_mapped_columns_are_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("CREATE TABLE log (n INTEGER PRIMARY KEY, t INTEGER, coin TEXT, way TEXT, p INTEGER, q INTEGER)")
        base.execute("INSERT INTO log VALUES (7, 1795254686000, 'ETH-USDT', 'B', 2640320000, 50000)")
    columns = {"time": "t", "symbol": "coin", "side": "way", "price": "p", "amount": "q", "id": "n"}
    scale = {"price": 1_000_000, "amount": 1_000_000}
    found = SQLITE.trades(path, options=FormatOptions(table="log", columns=columns, scale=scale))
    assert found.fills == (
        Fill(datetime(2026, 11, 21, 9, 51, 26, tzinfo=UTC), "ETH-USDT", "buy", Decimal("2640.32"), Decimal("0.05"),
             fee_currency="USDT", id="7", quote="USDT"),
    )  # fmt: skip


def test_a_virtual_table_or_a_view_is_no_table_of_trades(tmp_path: Path) -> None:
    path = tmp_path / "odd.sqlite"
    change(path, "CREATE VIEW trades AS SELECT 1 AS time, 2 AS pnl")
    with pytest.raises(BotkeepError):
        count(path)
    assert Eye(path).told() == ("ok", ["Q5"])


def _bounded(value: float) -> bool:
    return value == 0 or abs(value) > 1e-90  # the grammar takes two digits of exponent


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e17, max_value=1e17).filter(_bounded))
@settings(deadline=None)
def test_a_float_is_its_shortest_exact_text(value: float) -> None:
    assert float(exact(value, "price")) == value
    assert exact(value, "price") == Decimal(repr(value))


@pytest.mark.parametrize("value", [float("inf"), 1e200, b"\0\1", "1_000", "1e1000000", "", None])
def test_what_is_no_number_is_none(value: Any) -> None:
    with pytest.raises(ValueProblemError):
        exact(value, "price")


# --- what is no damage -------------------------------------------------------------------------------------------


def test_databases_of_real_bots_are_sound_and_an_unchanged_one_is_not_opened_again(tmp_path: Path) -> None:
    for path, rows in ((freqtrade(tmp_path), 312), (hummingbot(tmp_path), 83), (freqtrade_wal(tmp_path), 12)):
        eye = Eye(path)
        seen = eye.look(writing=True)
        assert (seen.verdict, seen.rows, seen.findings) == (DataVerdict.OK, rows, ())
        assert len(json.dumps(seen.cursor)) < 64 * 1024
        reads = _bytes_read()
        again = eye.look(writing=True, after=300)
        assert (again.verdict, again.rows, again.tempo) == (seen.verdict, seen.rows, seen.tempo)
        assert _bytes_read() - reads < 20_000


def _bytes_read() -> int:
    """What this process has read so far, by the kernel's count."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_look_at_a_closed_database_leaves_no_companions(tmp_path: Path) -> None:
    path = freqtrade_wal(tmp_path)
    with closing(sqlite3.connect(path)) as base:
        base.execute("SELECT count(*) FROM trades").fetchone()
    assert SQLITE.companions(path) == ()
    Eye(path).look()
    count(path)
    SQLITE.snapshot(path, tmp_path / "copy", options=OPTIONS)
    assert SQLITE.companions(path) == ()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_new_trades_are_seen_while_the_bot_runs(bot: Path, journal: str) -> None:
    eye = Eye(bot)
    with Writer(bot, journal) as writer:
        assert eye.look(writing=True).rows == 312
        for expected in (315, 318):
            writer.tell("rows 3")
            seen = eye.look(writing=True, after=300)
            assert (seen.verdict, seen.rows, seen.findings) == (DataVerdict.OK, expected, ())
            assert seen.read_from > 0


def test_an_order_taken_back_takes_its_open_trade_along_and_that_is_no_loss(bot: Path) -> None:
    """freqtrade deletes a trade whose first order is cancelled, and gives its id to the next one."""
    eye = Eye(bot)
    eye.look(writing=True)
    change(bot, "DELETE FROM trades WHERE id = 312")
    assert eye.told(writing=True, after=60) == ("ok", [])
    change(bot, "UPDATE trades SET is_open = 0, close_date = open_date, close_rate = 1, close_profit = 0, "
                "close_profit_abs = 0 WHERE id = 311")  # fmt: skip
    assert eye.told(after=60) == ("ok", [])


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_long_transaction_is_no_damage_and_its_holder_is_named(fills: Path, journal: str) -> None:
    eye = Eye(fills)
    with Writer(fills, journal) as writer:
        eye.look(writing=True)
        writer.tell("rows 1")
        writer.tell("hold")
        for _ in range(3):
            seen = eye.look(writing=True, after=30)
            if journal == "delete":
                assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.PENDING, "Q2")
                assert str(writer.pid) in seen.findings[0].text
                with pytest.raises(BotkeepError, match=f"locked by process {writer.pid}"):
                    count(fills)
            else:
                assert seen.verdict is DataVerdict.OK
        writer.tell("let go")
        assert eye.look(writing=True, after=30).rows == 51


@pytest.mark.parametrize("make", [freqtrade, hummingbot])
def test_a_transaction_cut_off_by_kill_9_is_taken_back_and_no_row_is_missed(tmp_path: Path, make: Any) -> None:
    path: Path = make(tmp_path)
    eye, whole = Eye(path), SQLITE.trades(path, options=OPTIONS)
    rows = eye.look().rows
    with Writer(path, "delete") as writer:
        writer.tell("half")
    assert path.with_name(path.name + "-journal").stat().st_size > 0
    bytes_before = path.read_bytes()
    assert eye.told(writing=True, after=10) == ("pending", ["Q4"])
    seen = eye.look(after=10)
    assert (seen.verdict, seen.rows, [one.rule for one in seen.findings]) == (DataVerdict.OK, rows, ["Q4"])
    assert SQLITE.trades(path, options=OPTIONS) == whole
    copy = tmp_path / "copy"
    SQLITE.snapshot(path, copy, options=OPTIONS)
    assert SQLITE.trades(copy, options=OPTIONS) == whole
    assert path.read_bytes() == bytes_before
    SQLITE.settle(path)
    assert (SQLITE.companions(path), SQLITE.trades(path, options=OPTIONS)) == ((), whole)


def test_a_journal_that_is_kept_between_transactions_is_not_hot(fills: Path) -> None:
    with Writer(fills, "persist") as writer:
        writer.tell("rows 1")
    assert fills.with_name(fills.name + "-journal").stat().st_size > 0
    assert Eye(fills).told() == ("ok", [])
    assert SQLITE.rebuild(None, fills, fills.with_name("new"), options=OPTIONS).dropped == 0


def test_a_checkpoint_that_was_cut_off_is_no_damage(tmp_path: Path) -> None:
    path = freqtrade_wal(tmp_path)
    with path.open("r+b") as file:
        file.seek(28)
        file.write((1000).to_bytes(4))  # the head says already how long the file is going to be
        file.seek(0, os.SEEK_END)
        file.write(bytes(100))
    assert Eye(path).told(writing=True) == ("ok", [])
    assert count(path) == 12


def test_one_part_of_this_process_does_not_touch_the_file_while_another_reads_it(fills: Path) -> None:
    """Closing any descriptor of the file would drop the lock of whoever reads."""
    done = threading.Event()

    def other() -> None:
        sqlite_files.look(fills)
        done.set()

    with reading(fills):
        thread = threading.Thread(target=other)
        thread.start()
        assert not done.wait(0.1)
    thread.join()
    assert done.is_set()


def test_columns_that_an_upgrade_adds_are_a_note_and_columns_that_are_gone_need_a_person(bot: Path) -> None:
    eye = Eye(bot)
    eye.look()
    change(bot, "ALTER TABLE trades ADD COLUMN mood TEXT")
    assert eye.told(writing=True, after=60) == ("ok", ["Q7"])
    change(bot, "ALTER TABLE trades RENAME COLUMN close_profit_abs TO profit_v9")
    assert eye.told(after=60) == ("unreadable", ["Q7"])
    with pytest.raises(BotkeepError, match="has no column close_profit_abs: another version"):
        count(bot)


def test_a_database_without_tables_or_bytes_is_a_first_start(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    path.touch()
    assert Eye(path).told(writing=True) == ("ok", ["Q5"])
    assert count(path) == 0
    change(path, "CREATE TABLE notes (text TEXT)")
    assert Eye(path).told() == ("unreadable", ["Q5"])


# --- what is damage ----------------------------------------------------------------------------------------------


def damage_zero(path: Path) -> None:
    path.write_bytes(b"")


def damage_page(path: Path) -> None:
    path.write_bytes(b"<!doctype html><html><body>502 Bad Gateway</body></html>")


def damage_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damage_hole(path: Path) -> None:
    zero_page(path, 20)


def damage_head(path: Path) -> None:
    zero_page(path, 1)


def damage_rows(path: Path) -> None:
    change(path, "DELETE FROM trades WHERE id > 100")


def damage_anew(path: Path) -> None:
    path.unlink()
    change(path, "CREATE TABLE trades (id INTEGER PRIMARY KEY)")


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (damage_zero, "Q5"), (damage_page, "C11"), (damage_half, "Q1"), (damage_hole, "Q1"), (damage_head, "C2"),
        (damage_rows, "C10"), (damage_anew, "Q5"),
    ],
)  # fmt: skip
def test_damage_is_suspect_while_the_bot_lives_and_certain_when_it_lasts_or_nobody_writes(
    tmp_path: Path, make: Any, rule: str
) -> None:
    path = freqtrade(tmp_path)
    eye = Eye(path)
    eye.look()
    make(path)
    assert eye.told(writing=True, after=1)[0] == "suspect"
    verdict, rules = eye.told(writing=True, after=31)
    assert (verdict, rules[0]) == ("corrupt", rule)
    dead = Eye(path)
    dead.cursor = Eye(freqtrade(tmp_path)).look().cursor
    make(path)
    assert dead.look().verdict is DataVerdict.CORRUPT
    shutil.copy(DATA / "freqtrade/tradesv3.dryrun.sqlite", path)
    assert eye.told(after=60) == ("ok", [])


def test_a_wal_that_was_deleted_is_found_by_the_trades_that_went_with_it(tmp_path: Path) -> None:
    path = freqtrade_wal(tmp_path)
    eye = Eye(path)
    assert eye.look().rows == 12
    path.with_name(path.name + "-wal").unlink()
    seen = eye.look(after=60)
    assert (seen.verdict, seen.findings[0].rule) == (DataVerdict.CORRUPT, "Q3")
    assert "Its -wal" in seen.findings[0].text


def test_a_bot_that_made_a_new_database_has_lost_the_old_one_though_it_is_green(bot: Path, tmp_path: Path) -> None:
    eye = Eye(bot)
    eye.look()
    change(bot, "UPDATE trades SET pair = 'NEW/USDT'")
    other = tmp_path / "other"
    shutil.copy(bot, other)
    os.replace(other, bot)
    assert eye.told(writing=True, after=1) == ("suspect", ["C10"])
    assert eye.told(writing=True, after=40) == ("corrupt", ["C10"])


def test_a_good_backup_beside_a_left_over_log_is_found_out(tmp_path: Path) -> None:
    path = freqtrade_wal(tmp_path)
    good = Eye(freqtrade(tmp_path))
    good.look()
    shutil.copy(good.path, path)
    eye = Eye(path)
    eye.cursor = good.cursor
    seen = eye.look()
    assert seen.verdict is DataVerdict.CORRUPT
    SQLITE.settle(path)
    shutil.copy(good.path, path)
    assert eye.told(after=60) == ("ok", [])


def test_a_bot_that_goes_on_in_a_deleted_database_is_found(bot: Path, tmp_path: Path) -> None:
    eye = Eye(bot)
    with Writer(bot, "wal") as writer:
        writer.tell("rows 1")
        eye.look(writing=True)
        bot.unlink()
        missing = eye.look(writing=True, after=1)
        assert (missing.verdict, missing.findings[0].rule) == (DataVerdict.MISSING, "C14")
        assert f"/proc/{writer.pid}/fd/" in missing.findings[0].text
        shutil.copy(DATA / "freqtrade/tradesv3.dryrun.sqlite", bot)
        for path in SQLITE.companions(bot):
            path.unlink()
        writer.tell("rows 5")
        for _ in range(2):
            seen = eye.look(writing=True, after=5)
            held = [one for one in seen.findings if one.rule == "C14"]
            assert (seen.verdict, held[0].certain) == (DataVerdict.CORRUPT, True)
            assert str(writer.pid) in held[0].text


def test_a_database_put_aside_by_a_person_is_no_loss(bot: Path) -> None:
    eye = Eye(bot)
    eye.look()
    shutil.move(bot, bot.with_name("tradesv3.sqlite.2026"))
    shutil.copy(bot.with_name("tradesv3.sqlite.2026"), bot)
    change(bot, "DELETE FROM trades")
    assert eye.told(writing=True, after=1) == ("replaced", ["C10"])


def test_a_number_that_is_none_is_named_with_its_row(bot: Path) -> None:
    change(bot, "UPDATE trades SET close_profit_abs = 9e999 WHERE id = 17")
    seen = Eye(bot).look()
    assert (seen.verdict, seen.findings[0].rule, seen.findings[0].row) == (DataVerdict.CORRUPT, "C9", 17)
    found = SQLITE.trades(bot, options=OPTIONS)
    assert (len(found.closed), found.skipped) == (307, 1)
    assert found.notes == ("row 17 could not be read: its close_profit_abs is not a number",)


def test_what_may_not_be_read_is_unreadable_and_no_damage(bot: Path) -> None:
    bot.chmod(0)
    with as_nobody():
        assert Eye(bot).told() == ("unreadable", ["C15"])


def test_a_reader_that_may_not_write_to_the_folder_reads_a_database_with_a_log(tmp_path: Path) -> None:
    path = freqtrade_wal(tmp_path)
    path.with_name(path.name + "-shm").unlink()
    for one, mode in ((tmp_path, 0o755), (path.parent, 0o555), (path, 0o644)):
        one.chmod(mode)
    if os.geteuid() == 0:
        for parent in list(tmp_path.parents)[:-2]:
            parent.chmod(parent.stat().st_mode | 0o011)
    with as_nobody():
        assert count(path) == 12


def test_a_huge_empty_file_or_one_of_no_kind_takes_no_time(tmp_path: Path) -> None:
    path, begun = tmp_path / "big.sqlite", time.monotonic()
    with path.open("wb") as file:
        file.truncate(5 << 30)
    assert Eye(path).look().verdict is DataVerdict.CORRUPT
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)
        server.bind("big.sqlite")
        assert Eye(path).told() == ("unreadable", ["C15"])
    assert time.monotonic() - begun < 2


def test_the_copy_of_a_look_that_was_killed_is_swept_by_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = freqtrade_wal(tmp_path)
    path.with_name(path.name + "-shm").unlink()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    room = tmp_path / f"botkeep-{os.geteuid()}"
    assert count(path) == 12
    for name, age in (("old", 7200), ("young", 60)):
        (room / name).mkdir()
        os.utime(room / name, (time.time() - age, time.time() - age))
    assert count(path) == 12
    assert [one.name for one in room.iterdir()] == ["young"]


# --- snapshots ---------------------------------------------------------------------------------------------------


def test_a_snapshot_has_the_trades_of_the_log_and_stands_alone(tmp_path: Path) -> None:
    path, copy = freqtrade_wal(tmp_path), tmp_path / "copies" / "copy"
    copy.parent.mkdir()
    with Writer(path, "wal") as writer:
        writer.tell("rows 2")
        cut = SQLITE.snapshot(path, copy, options=OPTIONS)
        assert SQLITE.trades(copy, options=OPTIONS) == SQLITE.trades(path, options=OPTIONS)
    assert (cut.size, cut.sha256) == sqlite_files.hashed(copy)
    assert cut.mark["rows"] == 14
    assert cut.source["ino"] == path.stat().st_ino
    assert list(copy.parent.iterdir()) == [copy]
    head = Head.of(copy.read_bytes())
    assert head is not None
    assert not head.wal


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_twenty_snapshots_while_a_bot_writes_are_all_sound_and_make_none_of_its_writes_fail(
    fills: Path, journal: str
) -> None:
    with Writer(fills, journal) as writer:
        writer.tell("storm")
        eye, before = Eye(fills), 0
        for number in range(20):
            copy = fills.with_name(f"copy{number}")
            cut = SQLITE.snapshot(fills, copy, options=OPTIONS)
            assert cut.mark["integrity"] == "ok"
            assert cut.mark["rows"] >= before
            before = cut.mark["rows"]
            assert eye.look(writing=True, after=5).verdict in (DataVerdict.OK, DataVerdict.PENDING)
        made, failed = writer.tell("calm")[0].split()
    assert (int(made) > 20, failed) == (True, "0")
    assert inspect_whole(SQLITE, fills.with_name("copy19"), options=OPTIONS, now=NOW).verdict is DataVerdict.OK


def test_a_bot_with_a_log_that_never_waits_is_not_disturbed_at_all(bot: Path) -> None:
    with Writer(bot, "wal", timeout=0) as writer:
        writer.tell("storm")
        eye = Eye(bot)
        for number in range(3):
            eye.look(writing=True, after=5)
            SQLITE.snapshot(bot, bot.with_name(f"copy{number}"), options=OPTIONS)
            count(bot)
        made, failed = writer.tell("calm")[0].split()
    assert (int(made) > 0, failed) == (True, "0")


def test_a_bot_without_a_log_can_write_while_a_long_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.sqlite"
    write_rows(path, 30_000, 0)
    with Writer(path, "delete", timeout=0.5) as writer:
        writer.tell("storm")
        assert count(path) >= 30_000
        eye = Eye(path)
        while eye.look(writing=True, after=60).verdict is DataVerdict.PENDING:
            pass
        made, failed = writer.tell("calm")[0].split()
    assert (int(made) > 0, failed) == (True, "0")


def test_what_is_no_database_or_stays_locked_is_not_copied(fills: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.sqlite"
    damage_page(page)
    with pytest.raises(BotkeepError, match="web page"):
        SQLITE.snapshot(page, tmp_path / "copy", options=OPTIONS)
    with pytest.raises(BotkeepError, match="There is no file"):
        SQLITE.snapshot(tmp_path / "none", tmp_path / "copy", options=OPTIONS)


def test_work_that_does_not_end_is_ended(fills: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_process, "LEAST", 2.0)
    with Writer(fills, "delete") as writer:
        writer.tell("hold")
        with pytest.raises(BotkeepError, match="could not be worked on within 2 s"):
            SQLITE.snapshot(fills, tmp_path / "copy", options=OPTIONS)
        writer.tell("let go")


# --- comparing ---------------------------------------------------------------------------------------------------


def test_a_cell_that_changed_silently_is_found_by_comparison_though_every_check_says_ok(bot: Path) -> None:
    copy = bot.with_name("copy")
    mark = json.loads(json.dumps(dict(SQLITE.snapshot(bot, copy, options=OPTIONS).mark)))
    assert len(json.dumps(mark)) < 8192
    change(bot, "UPDATE trades SET close_profit_abs = close_profit_abs + 1 WHERE id = 20")
    assert Eye(bot).told() == ("ok", [])
    (found,) = SQLITE.compare(bot, mark, options=OPTIONS)
    assert (found.rule, found.certain) == ("Q6", True)
    assert "rows 15 to 21" in found.text
    change(bot, "DELETE FROM trades WHERE id = 100")
    rules = [one.rule for one in SQLITE.compare(bot, mark, options=OPTIONS)]
    assert rules == ["C10", "Q6"]


def test_an_open_trade_that_was_closed_since_is_no_change(bot: Path) -> None:
    mark = SQLITE.snapshot(bot, bot.with_name("copy"), options=OPTIONS).mark
    change(bot, "UPDATE trades SET is_open = 0, close_date = open_date, close_rate = 1, close_profit = 0, "
                "close_profit_abs = 5 WHERE id = 310")  # fmt: skip
    change(bot, "DELETE FROM trades WHERE id = 312")
    change(bot, "ALTER TABLE trades ADD COLUMN mood TEXT DEFAULT 'fine'")
    assert SQLITE.compare(bot, mark, options=OPTIONS) == ()


def test_in_mode_rewrite_changed_rows_are_none(fills: Path) -> None:
    options = FormatOptions(mode="rewrite")
    mark = SQLITE.snapshot(fills, fills.with_name("copy"), options=options).mark
    change(fills, "UPDATE fills SET price = 1")
    assert SQLITE.compare(fills, mark, options=options) == ()
    change(fills, "DELETE FROM fills WHERE id > 40")
    assert [one.rule for one in SQLITE.compare(fills, mark, options=options)] == ["C10"]


# --- rebuilding --------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(bot: Path) -> tuple[Path, Path, Path]:
    """(a good copy, the database with 20 more trades, where to build)."""
    good = bot.with_name("good")
    SQLITE.snapshot(bot, good, options=OPTIONS)
    with Writer(bot, "delete") as writer:
        writer.tell("rows 20")
    return good, bot, bot.with_name("new")


def test_newer_trades_are_saved_around_a_page_that_is_lost(pair: tuple[Path, Path, Path]) -> None:
    good, damaged, new = pair
    zero_page(damaged, leaf_of(damaged, "trades", 150))
    made = SQLITE.rebuild(good, damaged, new, options=OPTIONS)
    assert (made.rows, made.kept, made.salvaged, made.dropped) == (332, 312, 20, 0)
    assert [one.rule for one in made.dropped_rows] == ["Q1"]
    assert inspect_whole(SQLITE, new, options=OPTIONS, now=NOW).verdict is DataVerdict.OK
    assert value_of(new, "SELECT count(*) FROM orders") == 620
    assert (made.size, made.sha256) == sqlite_files.hashed(new)


def test_without_a_backup_all_but_the_rows_of_the_lost_page_are_saved(pair: tuple[Path, Path, Path]) -> None:
    _, damaged, new = pair
    zero_page(damaged, leaf_of(damaged, "trades", 150))
    made = SQLITE.rebuild(None, damaged, new, options=OPTIONS)
    assert (made.kept, made.salvaged + made.dropped) == (0, 332)
    assert 0 < made.dropped < 40
    assert inspect_whole(SQLITE, new, options=OPTIONS, now=NOW).rows == made.rows
    read = SQLITE.trades(damaged, options=OPTIONS)
    assert len(read.closed) + len(read.open) == made.rows
    assert "damaged pages" in read.notes[0]


@pytest.mark.parametrize("make", [damage_zero, damage_page, damage_head])
def test_where_nothing_can_be_read_the_good_copy_is_what_is_built(pair: tuple[Path, Path, Path], make: Any) -> None:
    good, damaged, new = pair
    make(damaged)
    made = SQLITE.rebuild(good, damaged, new, options=OPTIONS)
    assert (made.rows, made.kept, made.salvaged, made.dropped) == (312, 312, 0, 1)
    with pytest.raises(BotkeepError, match="Nothing can be salvaged"):
        SQLITE.rebuild(None, damaged, new, options=OPTIONS)


def test_half_a_database_gives_the_half_that_is_left(pair: tuple[Path, Path, Path]) -> None:
    good, damaged, new = pair
    damage_half(damaged)
    alone = SQLITE.rebuild(None, damaged, new, options=OPTIONS)
    assert 100 < alone.rows < 200
    assert SQLITE.rebuild(good, damaged, new, options=OPTIONS).rows == 312
    assert inspect_whole(SQLITE, new, options=OPTIONS, now=NOW).verdict is DataVerdict.OK


def test_a_trade_closed_since_the_backup_is_taken_over_and_a_settled_one_stays(pair: tuple[Path, Path, Path]) -> None:
    good, damaged, new = pair
    change(damaged, "UPDATE trades SET is_open = 0, close_date = open_date, close_rate = 2, close_profit = 0, "
                    "close_profit_abs = 7 WHERE id = 310")  # fmt: skip
    change(damaged, "UPDATE trades SET close_profit_abs = 999 WHERE id = 5")
    made = SQLITE.rebuild(good, damaged, new, options=OPTIONS)
    assert (made.rows, made.kept, made.salvaged, made.replaced, made.dropped_sound) == (332, 311, 21, 1, 1)
    assert value_of(new, "SELECT close_profit_abs FROM trades WHERE id = 310") == 7
    assert value_of(new, "SELECT close_profit_abs FROM trades WHERE id = 5") == value_of(
        good, "SELECT close_profit_abs FROM trades WHERE id = 5"
    )


def test_a_bot_that_lost_its_database_counts_from_one_again_and_none_of_its_trades_is_lost(
    pair: tuple[Path, Path, Path],
) -> None:
    good, damaged, new = pair
    change(damaged, "DELETE FROM orders WHERE ft_trade_id != 312")
    change(damaged, "DELETE FROM trades WHERE id != 312")
    change(damaged, "UPDATE trades SET id = 1, open_date = '2026-11-21 11:00:00.000000'")
    change(damaged, "UPDATE orders SET id = 1, ft_trade_id = 1, order_id = 'anew'")
    made = SQLITE.rebuild(good, damaged, new, options=OPTIONS)
    assert (made.rows, made.kept, made.salvaged, made.dropped) == (313, 312, 1, 0)
    assert value_of(new, "SELECT ft_trade_id FROM orders WHERE order_id = 'anew'") == 313
    assert value_of(new, "SELECT count(*) FROM orders") == 621
    assert value_of(new, "SELECT open_date FROM trades WHERE id = 313").startswith("2026-11-21 11:00")


def part(folder: Path, name: str, trades: range, *, trade: int = 1, order: int = 1) -> Path:
    """Some of the bot's trades and their orders, with ids that begin at `trade` and `order`."""
    path = freqtrade(folder).rename(folder / name)
    orders = f"(SELECT count(*) + {order} FROM orders AS o WHERE o.id < orders.id)"
    for table, column in (("trades", "id"), ("orders", "ft_trade_id")):
        change(path, f"DELETE FROM {table} WHERE {column} NOT BETWEEN ? AND ?", trades[0], trades[-1])
    change(path, f"UPDATE trades SET id = id - {trades[0]} + {trade}")
    change(path, f"CREATE TABLE places AS SELECT id, {orders} AS place FROM orders")
    change(path, "UPDATE orders SET id = (SELECT place FROM places WHERE places.id = orders.id) + 1000000")
    change(path, f"UPDATE orders SET id = id - 1000000, ft_trade_id = ft_trade_id - {trades[0]} + {trade}")
    change(path, "DROP TABLE places")
    return path


def reopen(path: Path, trade: int) -> None:
    """As it was before its last order was filled."""
    change(path, "UPDATE trades SET is_open = 1, close_date = NULL, close_rate = NULL, close_profit = NULL, "
                 "close_profit_abs = NULL WHERE id = ?", trade)  # fmt: skip


def strays(path: Path) -> int:
    """Orders of no trade, or of a trade of another pair."""
    return int(
        value_of(
            path,
            "SELECT count(*) FROM orders LEFT JOIN trades ON trades.id = ft_trade_id "
            "WHERE pair IS NULL OR pair != ft_pair",
        )
    )


def shown(path: Path, trade: int) -> Any:
    """Pair and whether it is open."""
    return json.loads(value_of(path, f"SELECT json_array(pair, is_open) FROM trades WHERE id = {trade}"))


@pytest.mark.parametrize("last_is_open", [False, True])
def test_a_database_begun_anew_that_outgrew_the_backup_loses_no_trade_to_ids_that_were_given_anew(
    tmp_path: Path, last_is_open: bool
) -> None:
    good, damaged = part(tmp_path, "good", range(1, 11)), part(tmp_path, "damaged", range(101, 114))
    if last_is_open:
        reopen(good, 10)
    new = tmp_path / "new"
    made = SQLITE.rebuild(good, damaged, new, options=OPTIONS)
    assert (made.rows, made.kept, made.salvaged, made.replaced, made.dropped) == (23, 10, 13, 0, 0)
    assert value_of(new, "SELECT count(DISTINCT open_date) FROM trades") == 23
    assert shown(new, 10) == ["XRP/USDT", int(last_is_open)]
    assert (value_of(new, "SELECT count(*) FROM orders"), strays(new)) == (46, 0)


def test_fills_of_a_database_without_an_id_of_its_own_that_was_begun_anew_are_all_saved(tmp_path: Path) -> None:
    good = hummingbot(tmp_path).rename(tmp_path / "good")
    damaged, new = hummingbot(tmp_path), tmp_path / "new"
    change(
        good, "DELETE FROM TradeFill WHERE timestamp > (SELECT timestamp FROM TradeFill ORDER BY 1 LIMIT 1 OFFSET 39)"
    )
    kept = count(good)
    newest = value_of(good, "SELECT max(timestamp) FROM TradeFill")
    change(damaged, "DELETE FROM TradeFill WHERE timestamp <= ?", newest)
    change(damaged, "CREATE TABLE moved AS SELECT * FROM TradeFill ORDER BY timestamp")
    change(damaged, "DELETE FROM TradeFill")
    change(damaged, "INSERT INTO TradeFill SELECT * FROM moved")
    change(damaged, "DROP TABLE moved")
    assert 83 - kept > kept
    made = SQLITE.rebuild(good, damaged, new, options=OPTIONS)
    assert (made.rows, made.kept, made.salvaged, made.dropped) == (83, kept, 83 - kept, 0)


def test_a_sound_row_that_is_in_none_of_the_counts_lets_nothing_be_built() -> None:
    Counts(sound=5, same=1, new=1, replaced=1, dropped_sound=2, dropped=7).require_all("trades")
    with pytest.raises(BotkeepError, match="Of 5 sound rows of trades, 1 are in the backup"):
        Counts(sound=5, same=1, new=1, replaced=1, dropped_sound=1).require_all("trades")


def test_an_id_that_was_given_again_is_that_of_the_later_trade_and_the_one_taken_back_is_named(tmp_path: Path) -> None:
    good, damaged = part(tmp_path, "good", range(1, 11)), part(tmp_path, "damaged", range(1, 12))
    new = tmp_path / "new"
    reopen(good, 10)
    for table, column in (("orders", "ft_trade_id"), ("trades", "id")):
        change(damaged, f"DELETE FROM {table} WHERE {column} = 10")
        change(damaged, f"UPDATE {table} SET {column} = 10 WHERE {column} = 11")
    made = SQLITE.rebuild(good, damaged, new, options=OPTIONS)
    assert (made.rows, made.kept, made.salvaged, made.replaced, made.dropped) == (10, 9, 1, 1, 0)
    assert [(one.rule, one.row, "took back" in one.text) for one in made.dropped_rows] == [("C10", 10, True)]
    assert (shown(new, 10), value_of(new, "SELECT count(*) FROM orders"), strays(new)) == (["ADA/USDT", 0], 20, 0)


def test_an_open_trade_is_not_replaced_by_an_earlier_one_of_another_pair(tmp_path: Path) -> None:
    good, damaged = part(tmp_path, "good", range(1, 11)), part(tmp_path, "damaged", range(1, 11))
    new = tmp_path / "new"
    reopen(good, 10)
    change(damaged, "UPDATE trades SET pair = 'ETC/USDT', open_date = '2026-11-21 09:00:00.000000' WHERE id = 10")
    made = SQLITE.rebuild(good, damaged, new, options=OPTIONS)
    assert (made.rows, made.kept, made.salvaged, made.dropped_sound) == (10, 10, 0, 1)
    assert [(one.rule, one.row) for one in made.dropped_rows] == [("Q6", 10)]
    assert shown(new, 10) == ["XRP/USDT", 1]


def test_an_open_position_of_a_rewritten_table_is_not_replaced_by_another_trade(fills: Path) -> None:
    good, new = fills.with_name("good"), fills.with_name("new")
    shutil.copy(fills, good)
    change(fills, "UPDATE fills SET fee = 7 WHERE id = 49")
    change(fills, "UPDATE fills SET symbol = 'ADAUSDT', trade_id = 'x', time = '2030-01-01 00:00:00' WHERE id = 50")
    made = SQLITE.rebuild(good, fills, new, options=FormatOptions(mode="rewrite"))
    assert (made.rows, made.kept, made.salvaged, made.replaced, made.dropped) == (51, 49, 2, 1, 0)
    assert value_of(new, "SELECT fee FROM fills WHERE id = 49") == 7
    assert value_of(new, "SELECT symbol FROM fills WHERE id = 51") == "ADAUSDT"


def test_orders_of_the_backups_trades_stay_where_saved_trades_have_orders_with_their_ids(tmp_path: Path) -> None:
    good, new = part(tmp_path, "good", range(1, 11)), tmp_path / "new"
    damaged = part(tmp_path, "damaged", range(11, 14), trade=11, order=15)
    made = SQLITE.rebuild(good, damaged, new, options=OPTIONS)
    assert (made.rows, made.kept, made.salvaged, made.dropped) == (13, 10, 3, 0)
    assert (value_of(new, "SELECT count(*) FROM orders"), strays(new)) == (26, 0)
    assert value_of(new, "SELECT count(DISTINCT order_id) FROM orders") == 26


def test_an_open_trade_that_the_bot_took_back_does_not_come_to_life_again(tmp_path: Path) -> None:
    good, damaged = part(tmp_path, "good", range(1, 12)), part(tmp_path, "damaged", range(1, 12))
    new = tmp_path / "new"
    reopen(good, 10)
    reopen(good, 11)
    mark = SQLITE.snapshot(good, tmp_path / "copy", options=OPTIONS).mark
    change(damaged, "DELETE FROM orders WHERE ft_trade_id = 10")
    change(damaged, "DELETE FROM trades WHERE id = 10")
    made = SQLITE.rebuild(good, damaged, new, options=OPTIONS)
    assert (made.rows, made.kept, made.salvaged, made.dropped) == (10, 9, 1, 0)
    assert [(one.rule, one.row, "took back" in one.text) for one in made.dropped_rows] == [("C10", 10, True)]
    assert (value_of(new, "SELECT count(*) FROM orders"), strays(new)) == (20, 0)
    assert made.kept + made.replaced == 11, "no row of the backup is unaccounted for"
    for mode in ("append", "rewrite"):
        assert SQLITE.compare(new, mark, options=FormatOptions(mode=mode)) == ()


def test_an_open_trade_that_may_stand_on_a_lost_page_or_is_the_last_one_stays(
    tmp_path: Path, pair: tuple[Path, Path, Path]
) -> None:
    good, damaged, new = pair
    change(damaged, "DELETE FROM trades WHERE id = 310")
    zero_page(damaged, leaf_of(damaged, "trades", 150))
    assert SQLITE.rebuild(good, damaged, new, options=OPTIONS).rows == 332
    assert shown(new, 310) == ["XRP/USDT", 1]
    shorter, longer = part(tmp_path, "shorter", range(1, 10)), part(tmp_path, "longer", range(1, 11))
    reopen(longer, 10)
    assert SQLITE.rebuild(longer, shorter, new, options=OPTIONS).rows == 10


def test_a_left_over_log_is_played_in_before_and_cannot_spoil_what_is_built(tmp_path: Path) -> None:
    path = freqtrade_wal(tmp_path)
    new = tmp_path / "new"
    made = SQLITE.rebuild(None, path, new, options=OPTIONS)
    assert made.rows == 12
    SQLITE.settle(path)
    os.replace(new, path)
    assert SQLITE.companions(path) == ()
    assert (count(path), Eye(path).told()) == (12, ("ok", []))
    head = Head.of(path.read_bytes())
    assert head is not None
    assert head.wal, "the way of journaling stays as the bot had it"


def test_a_column_that_an_upgrade_added_does_not_stop_a_restore(pair: tuple[Path, Path, Path]) -> None:
    good, damaged, new = pair
    change(damaged, "ALTER TABLE trades ADD COLUMN mood TEXT DEFAULT 'fine'")
    assert SQLITE.rebuild(good, damaged, new, options=OPTIONS).rows == 332


@pytest.mark.parametrize("with_backup", [True, False])
def test_triggers_do_not_fire_for_rows_that_are_saved_and_are_there_afterwards(fills: Path, with_backup: bool) -> None:
    change(fills, "CREATE TABLE sums (total INTEGER)")
    change(fills, "INSERT INTO sums VALUES (50)")
    change(fills, "CREATE TRIGGER count_up AFTER INSERT ON fills BEGIN UPDATE sums SET total = total + 1; END")
    good, new = fills.with_name("good"), fills.with_name("new")
    SQLITE.snapshot(fills, good, options=OPTIONS)
    add_rows(fills, 5, 50)
    made = SQLITE.rebuild(good if with_backup else None, fills, new, options=OPTIONS)
    assert (made.rows, value_of(new, "SELECT total FROM sums")) == (55, 55)
    add_rows(new, 1, 55)
    assert value_of(new, "SELECT total FROM sums") == 56
    assert sorted(one.name for one in fills.parent.iterdir()) == ["good", "new", "trades.sqlite"]


# --- settling ----------------------------------------------------------------------------------------------------


def test_a_log_is_folded_in_and_companions_of_what_is_no_database_are_removed(tmp_path: Path) -> None:
    path = freqtrade_wal(tmp_path)
    SQLITE.settle(path)
    assert (SQLITE.companions(path), count(path)) == ((), 12)
    assert value_of(path, "SELECT count(*) FROM trades") == 12
    damage_page(path)
    for end in sqlite_files.ENDS:
        path.with_name(path.name + end).write_bytes(b"left over")
    SQLITE.settle(path)
    assert SQLITE.companions(path) == ()
    assert path.read_bytes().startswith(b"<!doctype")


def test_what_somebody_uses_is_not_settled(fills: Path) -> None:
    with Writer(fills, "wal") as writer:
        writer.tell("rows 1")
        writer.tell("hold")
        with pytest.raises(BotkeepError, match=f"in use by process {writer.pid}"):
            SQLITE.settle(fills)
        assert fills.with_name(fills.name + "-wal").exists()


# --- adding ------------------------------------------------------------------------------------------------------


def test_fills_are_added_as_hummingbot_writes_them(tmp_path: Path) -> None:
    path = hummingbot(tmp_path)
    whole = SQLITE.trades(path, options=OPTIONS).fills
    change(path, "DELETE FROM TradeFill WHERE rowid BETWEEN 20 AND 29")
    gone = [fill for fill in whole if fill not in SQLITE.trades(path, options=OPTIONS).fills]
    made = SQLITE.append(path, gone, options=OPTIONS)
    assert (len(gone), made.rows, made.left_out) == (10, 83, ())
    assert SQLITE.trades(path, options=OPTIONS).fills == whole
    assert (made.size, made.sha256) == sqlite_files.hashed(path)
    again = SQLITE.append(path, gone[:1], options=OPTIONS)
    assert again.rows == 83
    assert "the table does not take it (UNIQUE constraint failed" in again.left_out[0]
    closed = ClosedTrade(NOW, "ETH-USDT", Decimal(1))
    assert "executions" in SQLITE.append(path, [closed], options=OPTIONS).left_out[0]


def test_a_closed_trade_is_added_to_freqtrade_if_its_result_follows_from_what_is_known(bot: Path) -> None:
    whole = SQLITE.trades(bot, options=OPTIONS)
    lost = next(trade for trade in whole.closed if trade.id == "306")
    change(bot, "DELETE FROM trades WHERE id = 306")
    other = ClosedTrade(**{**vars(lost), "id": "5"})
    wrong = ClosedTrade(**{**vars(lost), "pnl": lost.pnl + 1, "id": "400"})
    blank = ClosedTrade(NOW, "ETH/USDT", Decimal(1), id="401")
    made = SQLITE.append(bot, [blank, other, wrong, lost], options=OPTIONS)
    assert made.rows == 312
    text = "\n".join(made.left_out)
    assert len(made.left_out) == 3
    assert "another trade has its id 5" in text
    assert "does not follow from its prices" in text
    assert "not known" in text
    found = next(trade for trade in SQLITE.trades(bot, options=OPTIONS).closed if trade.id == "306")
    assert ClosedTrade(**{**vars(found), "fee": lost.fee}) == lost
    assert abs(found.fee - lost.fee) < Decimal("0.0000001")
    assert Eye(bot).told() == ("ok", [])


def test_scaled_integers_are_written_as_scaled_integers(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("CREATE TABLE log (time INTEGER NOT NULL, symbol TEXT, side TEXT, price INTEGER, qty INTEGER)")
        base.execute("INSERT INTO log VALUES (1795254686000, 'ETH-USDT', 'SELL', 2640320000, 50000)")
    options = FormatOptions(scale={"price": 1_000_000, "amount": 1_000_000})
    at = datetime(2026, 11, 21, 9, 52, tzinfo=UTC)
    fill = Fill(at, "ETH/USDT", "buy", Decimal("2641.5"), Decimal("0.25"), fee_currency="USDT", quote="USDT")
    made = SQLITE.append(path, [fill], options=options)
    assert (made.rows, made.left_out) == (2, ())
    assert value_of(path, "SELECT json_array(time, symbol, side, price, qty) FROM log WHERE rowid = 2") == (
        '[1795254720000,"ETH-USDT","BUY",2641500000,250000]'
    )


def test_a_column_of_which_nothing_is_known_keeps_a_trade_out(fills: Path) -> None:
    change(fills, "ALTER TABLE fills ADD COLUMN desk TEXT NOT NULL DEFAULT 'a'")
    fill = SQLITE.trades(fills, options=OPTIONS).fills[0]
    assert SQLITE.append(fills, [Fill(**{**vars(fill), "id": "77"})], options=OPTIONS).left_out == ()
    with closing(sqlite3.connect(fills)) as base, base:
        base.execute(
            "CREATE TABLE trades2 (time TEXT, symbol TEXT, side TEXT, price REAL, qty REAL, desk TEXT NOT NULL)"
        )
        base.execute("INSERT INTO trades2 SELECT time, symbol, side, price, qty, 'x' FROM fills")
        base.execute("DROP TABLE fills")
    made = SQLITE.append(fills, [fill], options=OPTIONS)
    assert made.left_out == (f"DOGEUSDT at {fill.at:%Y-%m-%d %H:%M:%S}: nothing is known for the column desk",)


def test_floats_of_an_old_hummingbot_database_stay_floats(tmp_path: Path) -> None:
    path = hummingbot(tmp_path)
    text = value_of(path, "SELECT sql FROM sqlite_master WHERE name = 'TradeFill'")
    change(path, "ALTER TABLE TradeFill RENAME TO newer")
    change(path, text.replace("BIGINT", "FLOAT").replace("timestamp FLOAT", "timestamp BIGINT"))
    change(path, "INSERT INTO TradeFill SELECT * FROM newer")
    change(path, "UPDATE TradeFill SET price = price / 1e6, amount = amount / 1e6, trade_fee_in_quote = "
                 "CASE rowid WHEN 20 THEN trade_fee_in_quote / 1e6 END")  # fmt: skip
    change(path, "DROP TABLE newer")
    whole = SQLITE.trades(path, options=OPTIONS).fills
    assert max(fill.price for fill in whole) < 100_000
    change(path, "DELETE FROM TradeFill WHERE rowid = 20")
    left = SQLITE.trades(path, options=OPTIONS).fills
    made = SQLITE.append(path, [fill for fill in whole if fill not in left], options=OPTIONS)
    assert (len(left), made.rows, made.left_out) == (82, 83, ())
    assert SQLITE.trades(path, options=OPTIONS).fills == whole


def test_a_number_that_no_scaled_integer_holds_keeps_a_fill_out(tmp_path: Path) -> None:
    path = hummingbot(tmp_path)
    fill = SQLITE.trades(path, options=OPTIONS).fills[0]
    huge = Fill(**{**vars(fill), "id": "9", "amount": Decimal("1e15")})
    made = SQLITE.append(path, [huge], options=OPTIONS)
    assert (made.rows, made.left_out[0].endswith("one of its numbers is too large for the table")) == (83, True)


def test_floats_of_a_scaled_column_stay_floats(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    change(path, "CREATE TABLE log (time INTEGER, symbol TEXT, side TEXT, price REAL, qty INTEGER)")
    change(path, "INSERT INTO log VALUES (1795254686000, 'ETH-USDT', 'SELL', 2640.32, 50000)")
    options = FormatOptions(scale={"price": 1_000_000, "amount": 1_000_000})
    first = SQLITE.trades(path, options=options).fills[0]
    assert SQLITE.append(path, [first], options=options).left_out == ()
    assert SQLITE.trades(path, options=options).fills == (first, first)


@pytest.mark.parametrize(
    ("known", "said", "written"),
    [
        (("gate_io", "binance"), "gateio", "gate_io"),
        (("gate_io", "binance"), "kraken", "kraken"),
        (("gate_io", "binance"), "Binance", "binance"),
        (("binance_paper_trade",), "binance", "binance_paper_trade"),
    ],
)
def test_the_market_is_spelled_as_the_table_spells_it(
    tmp_path: Path, fills: Path, known: tuple[str, ...], said: str, written: str
) -> None:
    path = hummingbot(tmp_path)
    change(fills, "ALTER TABLE fills ADD COLUMN exchange TEXT")
    for table, database in (("TradeFill", path), ("fills", fills)):
        column = "market" if database == path else "exchange"
        for turn, market in enumerate(known):
            change(database, f"UPDATE {table} SET {column} = ? WHERE rowid % {len(known)} = ?", market, turn)
        sample = SQLITE.trades(database, options=OPTIONS).fills[0]
        fill = Fill(**{**vars(sample), "id": "new1", "market": said})
        assert SQLITE.append(database, [fill], options=OPTIONS).left_out == ()
        ask = f"SELECT {column} FROM {table} ORDER BY rowid DESC LIMIT 1"
        assert value_of(database, ask) == written


def test_a_status_is_taken_from_a_row_that_was_filled_or_the_trade_is_left_out(fills: Path) -> None:
    change(fills, "ALTER TABLE fills ADD COLUMN status TEXT")
    change(fills, "UPDATE fills SET status = CASE WHEN id < 50 THEN 'done' ELSE ' Canceled' END")
    whole = SQLITE.trades(fills, options=OPTIONS).fills
    fill = Fill(**{**vars(whole[0]), "id": "new1"})
    assert SQLITE.append(fills, [fill], options=OPTIONS).left_out == ()
    assert value_of(fills, "SELECT status FROM fills WHERE trade_id = 'new1'") == "done"
    assert fill in SQLITE.trades(fills, options=OPTIONS).fills
    change(fills, "UPDATE fills SET status = 'open'")
    (why,) = SQLITE.append(fills, [Fill(**{**vars(fill), "id": "new2"})], options=OPTIONS).left_out
    assert "no row of the table says in status how a trade that was filled is called" in why


# --- locks -------------------------------------------------------------------------------------------------------


def test_whoever_holds_a_lock_is_named_by_the_kernel(fills: Path) -> None:
    with Writer(fills, "delete") as writer:
        writer.tell("hold")
        wait_for(lambda: sqlite_files.lock_holders(fills) == (writer.pid,))
        writer.tell("let go")
        assert sqlite_files.lock_holders(fills) == ()


def test_evidence_does_not_stand_once_a_settled_trade_was_changed(fills: Path) -> None:
    found = SQLITE.evidence(fills)
    add_rows(fills, 1, 50)
    assert SQLITE.stands(fills, found)
    change(fills, "UPDATE fills SET price = 7 WHERE id = 50")
    assert not SQLITE.stands(fills, found)
