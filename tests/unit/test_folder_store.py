"""A configured folder for backups: a disk that may be gone, swapped, full, read-only or hung."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from botkeep import backups
from botkeep.config import BackupConfig, Bot, Fleet
from botkeep.formats import FORMATS
from botkeep.model import StoreError
from botkeep.stores import FolderStore, open_stores
from botkeep.workspace import Workspace
from support import small_disk
from support.trade_files import table

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TOOLS = str(Path(backups.__file__).parents[1])

needs_mounts = pytest.mark.skipif(
    not small_disk.available(), reason="this machine lets nobody mount a disk: what a mount does is left to CI"
)


class Disk:
    """A workspace whose backups go to a folder elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.state, self.root = folder / "home/.botkeep", folder / "mnt/disk"
        self.state.parent.mkdir()
        self.root.parent.mkdir()
        self.bot = Bot(name="doge", data_file=folder / "trades.csv")
        (folder / "trades.csv").write_text(table(10))

    def store(self) -> FolderStore:
        """As the next run opens it."""
        return FolderStore(self.root, self.state, keep_free=0)

    def back_up(self) -> backups.Snapshot:
        csv, options = FORMATS["csv"], self.bot.format_options()
        return backups.back_up(self.bot, self.store(), format=csv, options=options, now=NOW, head=(1, "0" * 64))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_a_new_folder_is_made_and_known_again(disk: Disk) -> None:
    made = disk.back_up()
    assert disk.root.stat().st_mode & 0o777 == 0o700
    assert backups.newest_good(disk.store(), "doge") == made
    assert not (disk.root / "tmp").exists(), "temporary files and locks are on the workspace's own disk"


def test_the_configuration_names_the_folder(disk: Disk) -> None:
    fleet = Fleet(Workspace(disk.state.parent), (), backup=BackupConfig(folder=disk.root))
    store = open_stores(fleet).local
    assert isinstance(store, FolderStore)
    assert (store.root, store.name) == (disk.root, "local")
    assert list(store.list("manifests")) == []


def test_a_folder_that_is_gone_is_not_made_anew(disk: Disk) -> None:
    made = disk.back_up()
    disk.root.rename(disk.root.with_name("unplugged"))
    with pytest.raises(
        StoreError, match=r"is not where the backups were: there is no such folder now\. Mount the disk"
    ):
        disk.back_up()
    assert not disk.root.exists()
    disk.root.mkdir()
    with pytest.raises(StoreError, match="has no backups of ours in it"):
        disk.back_up()
    assert list(disk.root.iterdir()) == []
    disk.root.rmdir()
    disk.root.with_name("unplugged").rename(disk.root)
    assert backups.newest_good(disk.store(), "doge") == made


def test_a_folder_that_goes_away_in_the_middle_is_noticed_at_the_next_object(disk: Disk) -> None:
    disk.back_up()
    store = disk.store()
    assert store.get("objects/doge/ab/x") is None
    disk.root.rename(disk.root.with_name("unplugged"))
    disk.root.mkdir()
    with pytest.raises(StoreError, match="it was there a moment ago"):
        store.put("objects/doge/ab/x", b"1")
    assert list(disk.root.iterdir()) == []
    with pytest.raises(StoreError, match="it was there a moment ago"):
        store.get("objects/doge/ab/x")


def test_another_disk_in_its_place_is_not_used(disk: Disk, tmp_path: Path) -> None:
    disk.back_up()
    other = Disk(tmp_path / "other") if (tmp_path / "other").mkdir() is None else disk
    other.back_up()
    shutil.rmtree(disk.root)
    shutil.copytree(other.root, disk.root)
    with pytest.raises(StoreError, match="is another store"):
        disk.back_up()


def test_a_person_can_begin_anew_and_move_a_store(disk: Disk) -> None:
    made = disk.back_up()
    shutil.copytree(disk.root, disk.root.with_name("moved"))
    disk.root = disk.root.with_name("moved")
    assert backups.newest_good(disk.store(), "doge") == made, "a store that was copied is known by its own id"
    shutil.rmtree(disk.root)
    with pytest.raises(StoreError, match=r"remove .*/stores\.json"):
        disk.back_up()
    (disk.state / "stores.json").unlink()
    assert disk.back_up().seq == 1


def test_a_folder_of_other_things_and_one_without_a_parent_are_refused(disk: Disk) -> None:
    disk.root.mkdir()
    (disk.root / "holiday.jpg").write_text("x")
    with pytest.raises(StoreError, match=r"holds something else \('holiday.jpg'\): name an empty folder"):
        disk.back_up()
    disk.root = disk.root.with_name("none") / "such"
    with pytest.raises(StoreError, match=r"There is no folder .*/none: make it, or mount it"):
        disk.back_up()
    assert not disk.root.parent.exists()


def test_a_store_that_was_botkeeps_own_can_be_moved_to_a_disk(disk: Disk) -> None:
    own = backups.LocalStore(disk.state / "backups", keep_free=0)
    csv, options = FORMATS["csv"], disk.bot.format_options()
    made = backups.back_up(disk.bot, own, format=csv, options=options, now=NOW, head=(1, "0" * 64))
    shutil.copytree(own.root, disk.root)
    assert backups.newest_good(disk.store(), "doge") == made


def test_a_damaged_mark_and_a_file_in_its_place_are_said(disk: Disk) -> None:
    disk.back_up()
    (disk.root / "store.json").chmod(0o600)
    (disk.root / "store.json").write_text("{")
    with pytest.raises(StoreError, match=r"its store\.json is damaged"):
        disk.back_up()
    shutil.rmtree(disk.root)
    disk.root.write_text("a file")
    with pytest.raises(StoreError, match="Not a directory"):
        disk.back_up()


MOUNTED = """
import ctypes, os, sys, time
from datetime import datetime, timedelta, UTC
from pathlib import Path
from botkeep import backups
from botkeep.config import Bot
from botkeep.formats import FORMATS
from botkeep.model import StoreError
from botkeep.stores import FolderStore
home = Path(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, place, kind, flags, data):
    done = libc.mount(source.encode(), str(place).encode(), kind.encode(), flags, data.encode())
    assert done == 0, os.strerror(ctypes.get_errno())
data, root, state = home / "t.csv", home / "disk", home / "state"
data.write_text("time,symbol,pnl\\n2026-11-21 09:00:00,BTCUSDT,1.5\\n")
bot, now = Bot(name="doge", data_file=data), datetime(2026, 11, 21, tzinfo=UTC)
def store():
    return FolderStore(root, state, keep_free=0, answer=1.0)
def back_up():
    how = {"format": FORMATS["csv"], "options": bot.format_options(), "now": now, "head": (0, "")}
    return backups.back_up(bot, store(), **how)
def refused(work):
    began = time.monotonic()
    try:
        work()
    except StoreError as error:
        print(f"{'late' if time.monotonic() - began > 4 else 'in time'}: {error}".replace(str(home), ""))
    else:
        print("not refused")
"""


@needs_mounts
def test_a_disk_that_is_full_or_read_only_is_said_and_can_still_be_read(tmp_path: Path) -> None:
    script = (
        MOUNTED
        + """
root.mkdir()
mount("tmpfs", root, "tmpfs", 0, "size=64k")
good, whole = back_up(), data.read_text()
times = (f"{9 + n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}" for n in range(4000))
data.write_text(whole + "".join(f"2026-11-21 {time},BTCUSDT,1.5\\n" for time in times))
now += timedelta(hours=1)
refused(back_up)
data.write_text(whole)
mount("tmpfs", root, "tmpfs", 32 | 1, "")
refused(back_up)
assert backups.newest_good(store(), "doge") == good
print("kept")
"""
    )
    printed = small_disk.run(script, size="4m", at=tmp_path / "disk", workspace_modules=TOOLS).splitlines()
    assert printed[0].startswith("in time: The disk of the backup store /disk has ")
    assert printed[1] == "in time: The backup store /disk cannot be written: Read-only file system."
    assert printed[2] == "kept"


@needs_mounts
def test_a_hung_mount_costs_its_deadline_once_and_stops_nobody(tmp_path: Path) -> None:
    """A FUSE file system whose server never answers: whoever touches it waits for ever."""
    script = (
        MOUNTED
        + """
back_up()
try:
    fuse = os.open("/dev/fuse", os.O_RDWR)
    mount("hung", root, "fuse", 0, f"fd={fuse},rootmode=40000,user_id=0,group_id=0")
except (OSError, AssertionError) as error:
    print("no fuse:", error)
    sys.exit()
refused(back_up)
hung = store()
refused(lambda: hung.list("manifests/doge"))
began = time.monotonic()
for _ in range(100):
    try:
        hung.get("objects/doge/ab/x")
    except StoreError:
        pass
print("asked once" if time.monotonic() - began < 0.5 else "asked again")
os.close(fuse)
libc.umount2(str(root).encode(), 2)
now += timedelta(hours=1)
print(back_up().seq)
"""
    )
    printed = small_disk.run(script, size="4m", at=tmp_path / "disk", workspace_modules=TOOLS).splitlines()
    if printed[0].startswith("no fuse"):
        pytest.skip(f"this machine lets nobody mount FUSE: {printed[0]}")
    says = "in time: The backup folder /disk did not answer within 1 s: the disk or the server behind it hangs."
    assert printed[0].startswith(says)
    assert printed[1].startswith(says)
    assert printed[2:] == ["asked once", "2"]


def test_asking_a_folder_that_answers_is_cheap(disk: Disk) -> None:
    store = disk.store()
    store.list("manifests")
    began = time.perf_counter()
    for _ in range(200):
        store.get("objects/doge/ab/x")
    assert time.perf_counter() - began < 0.5
