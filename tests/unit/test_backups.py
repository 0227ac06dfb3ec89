"""Backups: what is stored is proven, what is proven is never lost."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import random
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from botkeep import backups, retention
from botkeep.backups import CHUNK, LocalStore, Pruned, Snapshot, newest_good, snapshots
from botkeep.config import Bot
from botkeep.formats import FORMATS
from botkeep.model import BotkeepError, StoreError
from botkeep.proving import prove
from botkeep.stores import Stores
from support import forks, kills, small_disk
from support.formats import FACTORIES
from support.trade_files import HEADER, Writer, row, table

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HEAD = (7, "f" * 64)


class Shelf:
    """A bot's data file and a store."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trades.csv"
        self.store = LocalStore(folder / "store", keep_free=0)
        self.bot = Bot(name="doge", data_file=self.path)
        self.now = NOW

    def back_up(self, after: timedelta = timedelta(hours=1), accept: str = "") -> Snapshot:
        self.now += after
        return back_up(self.bot, self.store, self.now, accept)

    def content(self, snapshot: Snapshot) -> bytes:
        target = self.path.with_name("fetched")
        backups.fetch(self.store, snapshot, target)
        return target.read_bytes()

    def objects(self) -> list[Path]:
        return sorted(path for path in (self.store.root / "objects").rglob("*") if path.is_file())


def back_up(bot: Bot, store: LocalStore, now: datetime, accept: str = "") -> Snapshot:
    csv, options = FORMATS["csv"], bot.format_options()
    return backups.back_up(bot, store, format=csv, options=options, now=now, head=HEAD, accept=accept)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path)
    made.path.write_text(table(100))
    return made


# --- what a backup is --------------------------------------------------------------------------------------------


def test_a_backup_gives_back_every_byte_and_says_what_it_holds(shelf: Shelf) -> None:
    made = shelf.back_up()
    assert shelf.content(made) == shelf.path.read_bytes()
    assert (made.rows, made.size, made.journal, made.skipped) == (100, shelf.path.stat().st_size, HEAD, 0)
    assert (made.first_at, made.last_at) == (
        datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 1, 1, 39, tzinfo=UTC),
    )  # fmt: skip
    assert (
        made.sentence == "doge was backed up: 100 rows, the last of 2026-11-01 01:39:00Z, verified by reading it back."
    )
    assert newest_good(shelf.store, "doge") == made
    manifest = json.loads((shelf.store.root / made.key).read_text())
    seen = shelf.path.stat()
    assert manifest["source"] == {
        "dev": seen.st_dev, "ino": seen.st_ino, "size": seen.st_size, "mtime_ns": seen.st_mtime_ns,
        "mode": stat.S_IMODE(seen.st_mode), "uid": seen.st_uid, "gid": seen.st_gid,
    }  # fmt: skip
    assert manifest["sha256"] == hashlib.sha256(shelf.path.read_bytes()).hexdigest()
    assert manifest["journal"] == {"seq": 7, "hash": "f" * 64}


def test_nothing_in_the_store_can_be_written_to(shelf: Shelf) -> None:
    made = shelf.back_up()
    for path in (*shelf.objects(), shelf.store.root / made.key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_a_grown_file_stores_its_last_chunk_and_an_unchanged_one_nothing(shelf: Shelf) -> None:
    with shelf.path.open("w") as file:
        file.write(table(40_000))
    shelf.back_up()
    first = set(shelf.objects())
    assert len(first) == len(list(backups.pieces(shelf.path.stat().st_size))) > 2
    shelf.back_up()
    assert set(shelf.objects()) == first
    with shelf.path.open("a") as file:
        file.write(row(40_000))
    made = shelf.back_up()
    assert len(set(shelf.objects()) - first) == 1
    assert shelf.content(made) == shelf.path.read_bytes()


def test_a_file_in_use_is_backed_up_to_its_last_whole_row(shelf: Shelf) -> None:
    with Writer("step", shelf.path) as writer:
        writer.tell("rows 5")
        writer.tell("half")
        made = shelf.back_up()
    assert (made.rows, shelf.content(made)) == (105, table(105).encode())


def test_a_table_that_is_rewritten_all_the_time_is_backed_up_whole(shelf: Shelf) -> None:
    with Writer("frame", shelf.path):
        for _ in range(8):
            with suppress(BotkeepError):  # on a machine that is busy for long, a half-written table is all there is
                made = shelf.back_up()
                assert table(3000).startswith(shelf.content(made).decode())
    rows = [one.rows or 0 for one in snapshots(shelf.store, "doge")]
    assert rows
    assert rows == sorted(rows)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data.replace(b"0.100040,100.0", b"0.100040,nan", 1), "C9 (row 41)"),
        (lambda data: data[:2000] + bytes(500) + data[2500:], "C2 (row"),
        (lambda _: b"<html>502</html>\n", "C11"),
        (lambda data: data.replace(b",DOGEUSDT,", b',"DOGEUSDT,', 1), "C5 (row 1)"),
        (lambda data: data[:4000], "it has 50 rows, and the backup of 2026-11-21 13:00:00Z has 100"),
        (lambda _: b"", "is empty"),
    ],
)
def test_a_damaged_file_is_refused_and_the_last_good_backup_stays(
    shelf: Shelf, damage: Callable[[bytes], bytes], says: str
) -> None:
    good = shelf.back_up()
    whole = shelf.path.read_bytes()
    shelf.path.write_bytes(damage(whole))
    with pytest.raises(BotkeepError) as caught:
        shelf.back_up()
    assert says in str(caught.value)
    assert snapshots(shelf.store, "doge") == [good]
    assert shelf.content(good) == whole
    assert list(shelf.store.scratch().iterdir()) == []


def test_a_file_that_lost_rows_is_refused_unless_they_lie_beside_it(shelf: Shelf) -> None:
    shelf.back_up()
    shutil.copy(shelf.path, shelf.path.with_name("trades.csv.1"))
    shelf.path.write_text(table(3, start=100))
    made = shelf.back_up()
    assert made.notes == ("the file began anew; what it held before is in trades.csv.1",)
    shelf.path.write_text(table(1, start=200))
    with pytest.raises(BotkeepError, match="it has 1 rows, and the backup of 2026-11-21 14:00:00Z has 3"):
        shelf.back_up()


@pytest.mark.parametrize("beside", ["trades.csv.bak", "trades_yesterday.csv", "trades.csv.1.gz"])
@pytest.mark.parametrize(
    ("now", "says"),
    [
        (table(100).replace("0.100049", "0.100949"), "C13"),
        (table(49), "it has 49 rows"),
        (HEADER + "".join(row(n) for n in range(20, 130)), "C13"),
    ],
)
def test_a_copy_beside_a_file_explains_nothing_that_the_file_lost(
    shelf: Shelf, beside: str, now: str, says: str
) -> None:
    good = shelf.back_up()
    data = shelf.path.read_bytes()
    shelf.path.with_name(beside).write_bytes(gzip.compress(data) if beside.endswith(".gz") else data)
    shelf.path.write_text(now)
    with pytest.raises(BotkeepError, match=says):
        shelf.back_up()
    assert newest_good(shelf.store, "doge") == good


def test_a_copy_beside_a_database_explains_nothing_that_the_database_lost(tmp_path: Path) -> None:
    files, path = FACTORIES["sqlite"], tmp_path / "trades.sqlite"
    bot = Bot.model_validate({"name": "doge", "data_file": path, "data_format": {"kind": "sqlite"}})
    store = LocalStore(tmp_path / "store", keep_free=0)

    def take(hour: int) -> Snapshot:
        now, options = NOW + timedelta(hours=hour), bot.format_options()
        return backups.back_up(bot, store, format=FORMATS["sqlite"], options=options, now=now, head=HEAD)

    files.write(path, 10, 0)
    good = take(0)
    backups.fetch(store, good, tmp_path / "trades.sqlite.bak")
    for ask in ("DELETE FROM fills WHERE id > 7", "DELETE FROM fills WHERE id < 5"):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(ask)
        assert backups.rotated(path, good) is None
        with pytest.raises(BotkeepError, match="was not backed up"):
            take(1)
    files.write(path, 2, 10)
    assert take(2).notes == ("the file began anew; what it held before is in trades.sqlite.bak",)


def test_rows_that_changed_since_are_refused_and_named_unless_the_bot_rewrites_its_rows(shelf: Shelf) -> None:
    good = shelf.back_up()
    shelf.path.write_text(table(100).replace("0.100040", "0.100041"))
    with pytest.raises(BotkeepError, match=r"are not in it as they were\. C13 .* Lines that differ: 42\.") as caught:
        shelf.back_up()
    assert '"mode": "rewrite"' in str(caught.value)
    assert newest_good(shelf.store, "doge") == good
    rewriter = Bot.model_validate(
        {"name": "doge", "data_file": shelf.path, "data_format": {"kind": "csv", "mode": "rewrite"}}
    )
    shelf.path.write_text(table(100).replace("0.100040", "0.100042"))
    assert back_up(rewriter, shelf.store, shelf.now + timedelta(hours=1)).notes == ()
    shelf.path.write_text(table(99))
    with pytest.raises(BotkeepError, match="it has 99 rows, and the backup of"):
        back_up(rewriter, shelf.store, shelf.now + timedelta(hours=2))


@pytest.mark.parametrize(
    ("change", "notes"),
    [
        (lambda text: text.replace("0.100040", "0.100041"), "is not as it was"),
        (lambda text: text.replace(row(41), "").replace(row(42), ""), "It has 98 rows; the last backup has 100."),
        (lambda text: text[: len(table(50))], "It has 50 rows; the last backup has 100."),
    ],
)
def test_a_person_can_have_the_file_taken_as_it_is(shelf: Shelf, change: Callable[[str], str], notes: str) -> None:
    good = shelf.back_up()
    shelf.path.write_text(change(table(100)))
    with pytest.raises(BotkeepError, match="--accept REASON"):
        shelf.back_up()
    made = shelf.back_up(accept="the exchange took two trades back")
    assert made.accepted == "the exchange took two trades back"
    assert notes in made.notes[0]
    assert made.notes[0].endswith("): the exchange took two trades back")
    assert snapshots(shelf.store, "doge") == [good, made]
    with shelf.path.open("a") as file:
        file.write(row(100))
    assert shelf.back_up().notes == (), "it is the new truth"


def test_nobody_can_have_a_damaged_file_taken(shelf: Shelf) -> None:
    shelf.back_up()
    shelf.path.write_text(table(100).replace("0.100040,100.0", "0.100040,nan"))
    with pytest.raises(BotkeepError, match="C9"):
        shelf.back_up(accept="it is right")


def test_a_file_that_is_longer_but_lost_old_rows_is_refused(shelf: Shelf) -> None:
    """D21: as many rows as before came behind ten that are gone."""
    shelf.back_up()
    shelf.path.write_text(HEADER + "".join(row(n) for n in range(140) if not 30 <= n < 40))
    with pytest.raises(BotkeepError, match="Lines that differ: 32, 33, 34, 35, 36 and 65 more"):
        shelf.back_up()


def test_a_rotated_file_is_known_again_in_its_compressed_copy(shelf: Shelf) -> None:
    shelf.back_up()
    shelf.path.with_name("trades.csv.2.gz").write_bytes(gzip.compress(table(100).encode() + b"more"))
    shelf.path.with_name("trades.csv.1.gz").write_bytes(b"no gzip")
    shelf.path.with_name("trades.csv.0.gz").write_bytes(gzip.compress(table(99).encode()))
    shelf.path.write_text(table(3, start=100))
    assert shelf.back_up().notes == ("the file began anew; what it held before is in trades.csv.2.gz",)


def test_snapshots_of_the_version_before_are_still_good(shelf: Shelf) -> None:
    made = shelf.back_up()
    path = shelf.store.root / made.key
    body = json.loads(path.read_text())
    for name in ("mark", "accepted", "figures", "checked", "check"):
        del body[name]
    body["schema"] = 1
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    body["check"] = hashlib.sha256(text.encode()).hexdigest()
    _spoil(path, json.dumps(body).encode())
    old = newest_good(shelf.store, "doge")
    assert old is not None
    assert (old.id, old.rows, old.mark) == (made.id, 100, {"size": made.size, "sha256": made.sha256, "rows": 100})
    assert shelf.content(old) == shelf.path.read_bytes()
    with shelf.path.open("a") as file:
        file.write(row(100))
    assert shelf.back_up().seq == 2
    shelf.path.write_text(table(99))
    with pytest.raises(BotkeepError, match="it has 99 rows, and the backup of"):
        shelf.back_up()


def test_another_kind_is_not_compared_but_may_not_have_fewer_rows(shelf: Shelf) -> None:
    shelf.back_up()
    lines = [json.dumps({"time": f"2026-11-01T00:{n // 60:02}:{n % 60:02}Z", "symbol": "DOGEUSDT", "side": "BUY",
                         "price": 0.1, "qty": 5, "trade_id": str(n)}) for n in range(120)]  # fmt: skip
    bot = Bot.model_validate({"name": "doge", "data_file": shelf.path, "data_format": {"kind": "jsonl"}})

    def take() -> Snapshot:
        options, now = bot.format_options(), shelf.now + timedelta(hours=1)
        return backups.back_up(bot, shelf.store, format=FORMATS["jsonl"], options=options, now=now, head=HEAD)

    shelf.path.write_text("\n".join(lines[:50]) + "\n")
    with pytest.raises(BotkeepError, match="it has 50 rows"):
        take()
    shelf.path.write_text("\n".join(lines) + "\n")
    assert take().rows == 120


# --- what is not done twice --------------------------------------------------------------------------------------


def test_of_a_grown_file_only_new_rows_are_read_and_damage_in_them_is_found(shelf: Shelf) -> None:
    shelf.path.write_text(table(30_000))
    shelf.back_up()
    with shelf.path.open("a") as file:
        file.write(row(30_000))
    assert shelf.back_up().rows == 30_001
    for spoilt in (row(30_001).replace(",100.0,", ",nan,"), "\0" * 512, row(29_999)):
        whole = shelf.path.read_bytes()
        with shelf.path.open("a") as file:
            file.write(spoilt + row(30_002))
        with pytest.raises(BotkeepError, match="it is not sound"):
            shelf.back_up()
        shelf.path.write_bytes(whole)
    assert shelf.back_up().rows == 30_001


@pytest.mark.parametrize("spoil", [b"", b"{", b"0" * 64 + b'\n{"v": 1}', b"\xff\xfe"])
def test_what_was_remembered_may_be_lost_or_wrong_at_any_time(shelf: Shelf, spoil: bytes) -> None:
    shelf.back_up()
    shelf.store.cache("doge").write_bytes(spoil)
    with shelf.path.open("a") as file:
        file.write(row(100))
    assert shelf.back_up().rows == 101
    shelf.store.cache("doge").unlink()
    shelf.path.write_text(shelf.path.read_text() + row(101).replace(",100.0,", ",nan,"))
    with pytest.raises(BotkeepError, match="C9"):
        shelf.back_up()


def test_a_byte_that_changed_without_a_trace_is_found(shelf: Shelf) -> None:
    """Size and times are as they were: the whole file is hashed at each backup."""
    shelf.back_up()
    before, data = shelf.path.stat(), shelf.path.read_bytes()
    with shelf.path.open("r+b") as file:
        file.write(data.replace(b"0.100040", b"0.100041"))
    os.utime(shelf.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert shelf.path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(BotkeepError, match="C13"):
        shelf.back_up()


def test_other_options_have_an_unchanged_file_looked_at_again(shelf: Shelf) -> None:
    shelf.back_up()
    bot = Bot.model_validate(
        {"name": "doge", "data_file": shelf.path, "data_format": {"kind": "csv", "columns": {"price": "nowhere"}}}
    )
    with pytest.raises(BotkeepError):
        back_up(bot, shelf.store, shelf.now + timedelta(hours=1))


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 200_000, CHUNK - 1, CHUNK, 3 * CHUNK + 777_777])
def test_pieces_are_a_whole_and_the_next_ones_share_all_but_the_last_of_them(size: int) -> None:
    cut = list(backups.pieces(size))
    assert sum(length for _, length in cut) == size
    assert [start for start, _ in cut] == [sum(length for _, length in cut[:n]) for n in range(len(cut))]
    assert all(length <= CHUNK for _, length in cut)
    fresh = set(backups.pieces(size + 8000)) - set(cut)
    assert sum(length for _, length in fresh) <= 2 * CHUNK


def test_a_file_that_grows_to_a_mebibyte_is_stored_a_few_times_over_not_a_hundred() -> None:
    stored, written = set(), 0
    for size in range(8000, CHUNK + 1, 8000):
        fresh = set(backups.pieces(size)) - stored
        written += sum(length for _, length in fresh)
        stored |= fresh
    assert written < 10 * CHUNK, "the last mebibyte anew each time would be 66 of them"


def test_a_missing_file_and_a_bot_without_one_are_said_so(shelf: Shelf) -> None:
    shelf.path.unlink()
    with pytest.raises(BotkeepError, match="There is no file"):
        shelf.back_up()
    with pytest.raises(BotkeepError, match="no data_file"):
        back_up(Bot(name="doge"), shelf.store, NOW)


def test_a_backup_leaves_room_on_the_disk(shelf: Shelf) -> None:
    full = LocalStore(shelf.store.root, keep_free=1 << 60)
    with pytest.raises(StoreError, match="nothing was stored"):
        back_up(shelf.bot, full, NOW)
    assert snapshots(shelf.store, "doge") == []


def test_keys_cannot_leave_the_store(shelf: Shelf) -> None:
    for key in ("../x", "/etc/passwd", "objects/../../x", "objects//x", "a/.hidden", "objects/a\0b/c", ""):
        with pytest.raises(StoreError):
            shelf.store.get(key)


# --- a disk that goes bad ----------------------------------------------------------------------------------------


def _spoil(path: Path, data: bytes | None = None) -> None:
    path.chmod(0o600)
    good = path.read_bytes()
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:] if data is None else data)


def test_damaged_snapshots_are_passed_over_and_counted(shelf: Shelf) -> None:
    made = []
    for number in range(4):
        with shelf.path.open("a") as file:
            file.write(row(100 + number))
        made.append(shelf.back_up())
    for snapshot in made[1:]:
        _spoil(shelf.store.root / f"objects/doge/{snapshot.chunks[0][0][:2]}/{snapshot.chunks[0][0]}")
    found = newest_good(shelf.store, "doge")
    assert found == replace(made[0], skipped=3)
    with pytest.raises(StoreError, match="is damaged"):
        backups.fetch(shelf.store, made[3], shelf.path.with_name("x"))


def test_an_object_that_went_bad_is_written_again_by_the_next_backup(shelf: Shelf) -> None:
    made = shelf.back_up()
    _spoil(shelf.objects()[0])
    assert newest_good(shelf.store, "doge") is None
    shelf.back_up()
    assert shelf.content(made) == shelf.path.read_bytes()


@pytest.mark.parametrize(
    "change", [lambda data: data[:-30], lambda data: data.replace(b'"rows": 100', b'"rows": 999'), lambda _: b""]
)
def test_a_torn_or_changed_manifest_is_ignored_and_listed(shelf: Shelf, change: Callable[[bytes], bytes]) -> None:
    good, bad = shelf.back_up(), shelf.back_up()
    path = shelf.store.root / bad.key
    _spoil(path, change(path.read_bytes()))
    assert newest_good(shelf.store, "doge") == good
    assert backups.broken_manifests(shelf.store, "doge") == [bad.key]
    pruned = backups.prune(shelf.store, "doge", shelf.now + timedelta(days=900))
    assert "1 manifests cannot be read" in pruned.notes[0]
    assert path.exists()


def test_before_names_an_older_snapshot(shelf: Shelf) -> None:
    one, two = shelf.back_up(), shelf.back_up()
    assert newest_good(shelf.store, "doge", before=two.at) == one
    assert newest_good(shelf.store, "doge", before=one.at) is None
    assert newest_good(shelf.store, "other") is None


# --- retention ---------------------------------------------------------------------------------------------------


def _calendar(*ats: datetime) -> list[Snapshot]:
    return [
        Snapshot(
            id=f"s{n}", bot="doge", at=at, seq=n, kind="csv", size=1, sha256="", rows=1, first_at=None, last_at=None,
            chunks=(), source={}, journal=HEAD,
        )
        for n, at in enumerate(ats, start=1)
    ]  # fmt: skip


def _keep(found: list[Snapshot], now: datetime, good: str | None = None) -> dict[str, str]:
    return backups.to_keep(found, now, good, lambda _: True)


def test_a_year_of_hourly_backups_is_thinned_by_hour_day_week_and_month() -> None:
    start = datetime(2025, 11, 21, 0, 30, tzinfo=UTC)
    found = _calendar(*(start + timedelta(hours=n) for n in range(24 * 366)))
    keep = _keep(found, found[-1].at)
    kept = [one for one in found if one.id in keep]
    newest = kept[-1].at
    assert sum("hourly" in keep[one.id] for one in kept) == 48
    assert len({one.at.date() for one in kept if "daily" in keep[one.id]}) == 14
    assert len({one.at.isocalendar()[:2] for one in kept if "weekly" in keep[one.id]}) == 8
    assert len({one.at.month for one in kept if "monthly" in keep[one.id]}) == 12
    assert keep[found[0].id] == "the oldest"
    assert len(kept) < 90
    days = [one.at for one in kept if "daily" in keep[one.id]]
    assert all(at.hour == 23 for at in days[:-1]), "the last of each day"
    assert days[-1] == newest


def test_only_hours_with_snapshots_count_and_a_pause_costs_nothing() -> None:
    found = _calendar(*(NOW - timedelta(days=10 * n) for n in reversed(range(30))))
    assert len(_keep(found, NOW + timedelta(days=4000))) == 30


def test_future_snapshots_are_kept_and_push_nothing_out() -> None:
    hours = [NOW - timedelta(hours=n) for n in reversed(range(60))]
    late = datetime(2099, 1, 1, tzinfo=UTC)
    plain = _keep(_calendar(*hours), NOW)
    found = _calendar(*hours, *(late + timedelta(hours=n) for n in range(60)))
    keep = _keep(found, NOW)
    assert {name: why for name, why in keep.items() if why != "dated in the future"} == plain
    assert sum(why == "dated in the future" for why in keep.values()) == 60


def test_a_clock_at_2099_and_back_deletes_nothing_wrong(shelf: Shelf) -> None:
    for _ in range(3):
        shelf.back_up()
    shelf.now = datetime(2099, 1, 1, tzinfo=UTC)
    future = shelf.back_up()
    assert backups.prune(shelf.store, "doge", shelf.now).removed == ()
    shelf.now = NOW + timedelta(hours=9)
    with shelf.path.open("a") as file:
        file.write(row(100))
    after = shelf.back_up()
    assert newest_good(shelf.store, "doge") == after, "order is by count, not by clock"
    pruned = backups.prune(shelf.store, "doge", shelf.now)
    assert (future.id, "dated in the future") in pruned.kept
    assert len(pruned.kept) == 5


def test_the_last_good_the_oldest_and_everything_young_stay() -> None:
    minutes = [NOW - timedelta(days=9) + timedelta(minutes=n) for n in range(5)]
    young = [NOW - timedelta(minutes=n) for n in (30, 20, 10)]
    found = _calendar(*minutes, *young)
    keep = _keep(found, NOW, good="s2")
    assert keep["s1"] == "the oldest"
    assert keep["s2"] == "the last verified good"
    assert "s3" not in keep
    assert all("younger than a day" in keep[one.id] for one in found[-3:])


def test_incomplete_snapshots_take_nobodys_place() -> None:
    found = _calendar(
        *(NOW - timedelta(days=40) + timedelta(hours=n) for n in range(100)),
        *(NOW - timedelta(hours=n) for n in range(60)),
    )
    sound = {one.id for one in found[:100]}
    keep = backups.to_keep(found, NOW, "s100", lambda one: one.id in sound)
    assert sum("hourly" in why for why in keep.values()) == 48
    assert all(one in sound for one, why in keep.items() if "hourly" in why)


def test_pruning_removes_manifests_and_only_old_objects_that_nobody_names(shelf: Shelf) -> None:
    shelf.now = NOW - timedelta(days=100)
    for number in range(80):
        with shelf.path.open("a") as file:
            file.write(row(100 + number))
        shelf.back_up()
    before = len(shelf.objects())
    dry = backups.prune(shelf.store, "doge", NOW, dry_run=True)
    assert len(shelf.objects()) == before == 80
    _prove(dry, backups.prune(shelf.store, "doge", NOW))
    assert len(shelf.objects()) == 80, "objects younger than a day stay, whatever the manifests say"
    for path in shelf.objects():
        os.utime(path, (0, 0))
    pruned = backups.prune(shelf.store, "doge", NOW)
    assert pruned.objects == 80 - len(pruned.kept)
    assert all(backups.newest_good(shelf.store, "doge", before=one.at) for one in snapshots(shelf.store, "doge")[1:])


def test_pruning_is_due_when_half_a_day_of_backups_can_go(shelf: Shelf) -> None:
    shelf.now = NOW - timedelta(days=30)
    due = []
    for _ in range(70):
        shelf.back_up()
        if retention.is_due(shelf.store, "doge", shelf.now):
            due.append(len(snapshots(shelf.store, "doge")))
            assert len(backups.prune(shelf.store, "doge", shelf.now).removed) >= retention.WORTH
            assert not retention.is_due(shelf.store, "doge", shelf.now)
    assert due == [62], "48 hours, the end of the first day, the oldest, and a dozen more"
    shelf.store.put("manifests/doge/strange.json", b"{}")
    assert not retention.is_due(shelf.store, "doge", shelf.now)


def _prove(dry: Pruned, done: Pruned) -> None:
    assert dry.removed == done.removed
    assert dry.removed


# --- two at once, kills, a full disk -----------------------------------------------------------------------------


def test_backups_at_once_are_all_whole(shelf: Shelf) -> None:
    pids = [
        forks.start(lambda n=n: back_up(shelf.bot, shelf.store, NOW + timedelta(seconds=n)) and None) for n in range(8)
    ]
    forks.finish(pids)
    found = snapshots(shelf.store, "doge")
    assert [one.seq for one in found] == list(range(1, 9))
    assert all(shelf.content(one) == shelf.path.read_bytes() for one in found)


def _is_valid(shelf: Shelf, contents: dict[str, bytes]) -> None:
    """Every snapshot whose manifest is there is whole; the ones that were there still are."""
    found = {one.id: shelf.content(one) for one in snapshots(shelf.store, "doge")}
    assert backups.broken_manifests(shelf.store, "doge") == []
    assert contents.items() <= found.items()
    assert set(found.values()) <= {*contents.values(), shelf.path.read_bytes()}


@kills.needs_strace
def test_a_backup_killed_at_any_system_call_leaves_a_valid_store(shelf: Shelf) -> None:
    first = shelf.back_up()
    contents = {first.id: shelf.path.read_bytes()}
    with shelf.path.open("a") as file:
        file.write(table(9000, start=100).removeprefix(HEADER))
    killed = 0
    for _ in kills.at_each_call(lambda: shelf.back_up() and None):
        killed += 1
        _is_valid(shelf, contents)
        for snapshot in snapshots(shelf.store, "doge")[1:]:  # as if it had never been: the next kill meets the same
            (shelf.store.root / snapshot.key).unlink()
    assert killed > 10
    assert shelf.content(shelf.back_up()) == shelf.path.read_bytes()


def test_a_backup_killed_at_random_moments_leaves_a_valid_store(shelf: Shelf) -> None:
    started = time.perf_counter()
    first = shelf.back_up()
    usual = time.perf_counter() - started
    contents = {first.id: shelf.path.read_bytes()}
    for number in range(15):
        with shelf.path.open("a") as file:
            file.write(row(100 + number))
        kills.within(lambda: shelf.back_up() and None, random.uniform(0, 2 * usual))
        for one in snapshots(shelf.store, "doge"):
            data = shelf.content(one)
            assert shelf.path.read_bytes().startswith(data)
            assert contents.setdefault(one.id, data) == data
    assert backups.broken_manifests(shelf.store, "doge") == []
    old = time.time() - 10**6
    for path in shelf.store.root.rglob("*"):
        os.utime(path, (old, old))
    backups.prune(shelf.store, "doge", datetime.now(UTC))
    left = [path for path in shelf.store.root.rglob("*") if path.name.startswith(".") or path.parent.name == "tmp"]
    assert left == [], "what killed backups left is gone"


@kills.needs_strace
@pytest.mark.parametrize(("call", "error"), [("fsync", "EIO"), ("write", "ENOSPC"), ("rename", "EIO")])
def test_a_backup_whose_disk_fails_says_so_and_loses_nothing(shelf: Shelf, call: str, error: str) -> None:
    first = shelf.back_up()
    whole = shelf.path.read_bytes()
    with shelf.path.open("a") as file:
        file.write(row(100))

    def attempt() -> None:
        with pytest.raises(BotkeepError):
            shelf.back_up()

    failed = 0
    while kills.injected(attempt, call, failed + 1, f"error={error}") == 0:
        failed += 1
        _is_valid(shelf, {first.id: whole})
    assert failed > 1, "and the backup after the last of these calls went well"


@pytest.mark.skipif(not small_disk.available(), reason="this machine lets nobody mount a small disk")
def test_a_full_disk_leaves_the_last_good_backup(tmp_path: Path) -> None:
    script = """
import sys
from datetime import datetime, timedelta, UTC
from pathlib import Path
from botkeep import backups
from botkeep.config import Bot
from botkeep.formats import FORMATS
from botkeep.model import BotkeepError
home = Path(sys.argv[1])
data, store = home / "t.csv", backups.LocalStore(home / "store", keep_free=0)
bot, now = Bot(name="doge", data_file=data), datetime(2026, 11, 21, tzinfo=UTC)
rows = "".join(f"2026-11-21 09:{n // 60 % 60:02}:{n % 60:02},BTCUSDT,1.5\\n" for n in range(2000))
data.write_text("time,symbol,pnl\\n" + rows)
how = {"format": FORMATS["csv"], "options": bot.format_options(), "head": (0, "")}
back_up = lambda now: backups.back_up(bot, store, now=now, **how)
good = back_up(now)
with data.open("a") as file:
    file.write(rows)
try:
    back_up(now + timedelta(hours=1))
except BotkeepError as error:
    print("refused:", error)
assert backups.newest_good(store, "doge") == good, "the last good one is lost"
print("kept")
"""
    tools = str(Path(backups.__file__).parents[1])
    printed = small_disk.run(script, size="320k", at=tmp_path / "disk", workspace_modules=tools)
    assert printed.startswith("refused: ")
    assert printed.endswith("kept\n")


# --- every format ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_backed_up_grown_and_refused_when_it_lost_rows(tmp_path: Path, kind: str) -> None:
    files, path = FACTORIES[kind], tmp_path / "trades.data"
    bot = Bot.model_validate({"name": "doge", "data_file": path, "data_format": {"kind": kind}})
    store, clock = LocalStore(tmp_path / "store", keep_free=0), itertools.count()

    def take(**how: str) -> Snapshot:
        now, options = NOW + timedelta(hours=next(clock)), bot.format_options()
        return backups.back_up(bot, store, format=FORMATS[kind], options=options, now=now, head=HEAD, **how)

    files.write(path, 60, 0)
    made = [take(), take()]
    files.append(path, 5, 60)
    made.append(take())
    assert [one.rows for one in made] == [60, 60, 65]
    path.unlink()
    files.write(path, 50, 0)
    with pytest.raises(BotkeepError, match=r"has 50 rows|not backed up"):
        take()
    assert newest_good(store, "doge") == made[-1]
    proof = prove(bot, Stores(store), format=FORMATS[kind], options=bot.format_options(), now=NOW)
    assert (proof.ok, proof.rows, proof.figures and proof.figures["trades"]) == (True, 65, 65), proof.sentence
    made.append(take(accept="fifteen of them were of a test"))
    assert made[-1].rows == 50
    for one in made:
        target = tmp_path / "fetched"
        backups.fetch(store, one, target)
        assert len(FORMATS[kind].trades(target, options=bot.format_options()).fills) == one.rows
