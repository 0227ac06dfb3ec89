"""Every store keeps the same promises: botkeep's own folder, a configured one, and buckets of two S3 servers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from botkeep import backups, retention
from botkeep.backups import LocalStore, Snapshot, Store, newest_good, snapshots
from botkeep.config import Bot
from botkeep.formats import FORMATS
from botkeep.model import StoreError
from botkeep.stores import FolderStore
from botkeep.stores.checking import bots_in, store_check, store_list
from support import s3
from support.trade_files import row, table

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
KINDS = ("own folder", "configured folder", "moto", "rclone")
_numbers = count()


@dataclass
class Shelf:
    """A store, a bot with a data file, and the clock."""

    store: Store
    path: Path
    now: datetime = NOW

    def back_up(self, text: str | None = None) -> Snapshot:
        if text is not None:
            self.path.write_text(text)
        self.now += timedelta(hours=1)
        bot = Bot(name="doge", data_file=self.path)
        csv, options = FORMATS["csv"], bot.format_options()
        return backups.back_up(bot, self.store, format=csv, options=options, now=self.now, head=(1, "0" * 64))

    def content(self, snapshot: Snapshot) -> str:
        target = self.path.with_name("fetched")
        backups.fetch(self.store, snapshot, target)
        return target.read_text()


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with s3.moto() as address:
        yield address


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3.rclone(tmp_path_factory.mktemp("rclone")) as address:
        yield address


@pytest.fixture(params=KINDS)
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    store: Store
    if request.param == "own folder":
        store = LocalStore(tmp_path / "store", keep_free=0)
    elif request.param == "configured folder":
        store = FolderStore(tmp_path / "store", tmp_path / "state", keep_free=0)
    else:
        address = request.getfixturevalue(request.param)
        store = s3.store(address, tmp_path / "work", prefix=f"t{os.getpid()}/{next(_numbers)}")
    return Shelf(store, tmp_path / "trades.csv")


def test_what_was_put_is_listed_given_back_and_deleted(shelf: Shelf) -> None:
    store = shelf.store
    assert store.get("objects/doge/ab/x1") is None
    assert list(store.list("objects/doge")) == []
    began = time.time()
    store.put("objects/doge/ab/x1", b"one")
    store.put("objects/doge/cd/x2", b"")
    store.put("objects/cat/ab/x1", b"of another bot")
    assert store.get("objects/doge/ab/x1") == b"one"
    listed = store.list("objects/doge")
    assert [(one.key, one.size) for one in listed] == [("objects/doge/ab/x1", 3), ("objects/doge/cd/x2", 0)]
    assert all(abs(one.modified - began) < 60 for one in listed)
    store.delete("objects/doge/ab/x1")
    store.delete("objects/doge/ab/x1")
    assert store.get("objects/doge/ab/x1") is None
    assert [one.key for one in store.list("objects/doge")] == ["objects/doge/cd/x2"]


def test_the_same_object_twice_is_one_and_a_damaged_one_is_replaced(shelf: Shelf) -> None:
    shelf.store.put("objects/doge/ab/x1", b"good")
    shelf.store.put("objects/doge/ab/x1", b"good")
    shelf.store.put("objects/doge/ab/x1", b"better")
    assert shelf.store.get("objects/doge/ab/x1") == b"better"
    assert len(shelf.store.list("objects/doge")) == 1


def test_no_key_leaves_the_store(shelf: Shelf) -> None:
    for key in ("../x", "/etc/passwd", "objects/../../x", "objects//x", "a/.hidden", "objects/a\0b/c", ""):
        with pytest.raises(StoreError, match="is no key"):
            shelf.store.get(key)
        with pytest.raises(StoreError, match="is no key"):
            shelf.store.put(key, b"x")
        with pytest.raises(StoreError, match="is no key"):
            shelf.store.delete(key)


def test_a_list_of_more_than_one_page_is_whole(shelf: Shelf) -> None:
    """1,000 keys are a page of S3; only some of the stores make this test slow."""
    many = 30 if isinstance(shelf.store, LocalStore) else 1010
    for number in range(many):
        shelf.store.put(f"objects/doge/{number % 256:02x}/k{number:05}", b"1")
    assert len(shelf.store.list("objects/doge")) == many


def test_backups_come_back_byte_by_byte(shelf: Shelf) -> None:
    texts = [table(40), table(41), table(20_000)]
    made = [shelf.back_up(text) for text in texts]
    assert [shelf.content(one) for one in made] == texts
    assert snapshots(shelf.store, "doge") == made
    assert newest_good(shelf.store, "doge") == made[-1]
    assert bots_in(shelf.store) == ["doge"]
    listed = store_list(shelf.store)
    assert [(one.bot, one.snapshots, one.broken) for one in listed] == [("doge", tuple(made), 0)]


def test_a_damaged_object_is_found_by_the_check_and_no_restore_uses_it(shelf: Shelf) -> None:
    good, bad = shelf.back_up(table(40)), shelf.back_up(table(5000))
    gone, changed, *_ = (key for key, _ in bad.objects)
    shelf.store.delete(gone)
    shelf.store.put(changed, b"other bytes")
    report = store_check(shelf.store, None, sample=None, now=NOW)
    found = report.bots[0]
    assert not report.ok
    assert set(found.missing) == {gone, changed}, "one is gone, the other has another length"
    assert found.damaged == (bad.id,)
    assert "1 backups damaged, 2 objects missing" in report.sentence
    picked = newest_good(shelf.store, "doge")
    assert picked is not None
    assert (picked.id, picked.skipped) == (good.id, 1)
    shelf.back_up(table(5000))
    assert store_check(shelf.store, ["doge"], sample=None, now=NOW).ok, "the next backup wrote them again"


def test_pruning_keeps_what_the_policy_says(shelf: Shelf) -> None:
    shelf.now = NOW - timedelta(days=90)
    many = 60
    for number in range(many):
        shelf.back_up(table(10) + "".join(row(10 + extra) for extra in range(number)))
    dry = retention.prune(shelf.store, "doge", NOW, dry_run=True)
    assert len(snapshots(shelf.store, "doge")) == many
    done = retention.prune(shelf.store, "doge", NOW)
    assert dry.removed == done.removed
    left = snapshots(shelf.store, "doge")
    assert [one.id for one in left] == [name for name, _ in done.kept]
    assert 48 < len(left) < many
    assert store_check(shelf.store, ["doge"], sample=None, now=NOW).ok
