"""The files of a SQLite database as files: what they are called, what their first bytes say, who holds them.

Closing any descriptor of a file drops every POSIX lock that the process has on it, those of SQLite included. Whatever
opens a database file or a connection in this process therefore does it while it holds LOCK.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from ..model import BotkeepError
from .files import UnreadableError, regular
from .records import evidence

LOCK = threading.RLock()
MAGIC = b"SQLite format 3\0"
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
WAL, SHM, JOURNAL = ENDS = ("-wal", "-shm", "-journal")
_WEB = (b"<", b"{")


@dataclass(frozen=True)
class Head:
    """What the first hundred bytes of a database say."""

    page_size: int
    wal: bool
    pages: int
    """0: not said."""

    @classmethod
    def of(cls, data: bytes) -> Head | None:
        """None: these are not the first bytes of a database. https://www.sqlite.org/fileformat.html, section 1.3."""
        if len(data) < 100 or not data.startswith(MAGIC):
            return None
        size = int.from_bytes(data[16:18]) % 65535 or 65536  # 1 stands for 65536
        if size < 512 or size & (size - 1):
            return None
        said = data[24:28] == data[92:96]  # else written by a program that did not know of the page count
        return cls(size, wal=data[18] == 2, pages=int.from_bytes(data[28:32]) if said else 0)


@dataclass(frozen=True)
class Files:
    """A database and its companions as they were at one moment."""

    path: Path
    stat: os.stat_result
    first: bytes
    """The first bytes of the main file."""
    wal: os.stat_result | None
    shm: os.stat_result | None
    journal: os.stat_result | None

    @property
    def head(self) -> Head | None:
        """None: it is no database."""
        return Head.of(self.first)

    @property
    def identity(self) -> str:
        """The main file as every format writes it, and the companions that hold content."""
        seen = self.stat
        text = f"{seen.st_dev}:{seen.st_ino}:{seen.st_size}:{seen.st_mtime_ns}"
        for end, beside in ((WAL, self.wal), (JOURNAL, self.journal)):
            if beside is not None and beside.st_size:
                text += f"{end}:{beside.st_ino}:{beside.st_size}:{beside.st_mtime_ns}"
        return text

    @property
    def recoverable(self) -> bool:
        """A companion holds pages that the main file is to get or to get back: its length alone says nothing."""
        hot = self.journal is not None and _begins(companion(self.path, JOURNAL), JOURNAL_MAGIC)
        return hot or bool(self.wal and self.wal.st_size)

    @property
    def inode(self) -> str:
        """Of the main file."""
        return f"{self.stat.st_dev}:{self.stat.st_ino}"

    @property
    def size(self) -> int:
        """Of the main file and what belongs to it."""
        return sum(one.st_size for one in (self.stat, self.wal, self.journal) if one)

    @property
    def mtime_ns(self) -> int:
        """When any of them was last written: a database with a write-ahead log leaves the main file alone for hours."""
        return max(one.st_mtime_ns for one in (self.stat, self.wal, self.journal) if one)

    @property
    def unattended(self) -> bool:
        """In write-ahead mode, and nobody has it open, for both other files would be there: opening it makes them."""
        return bool(self.head and self.head.wal and (self.shm is None or self.wal is None))


def _begins(path: Path, magic: bytes) -> bool:
    """A journal that is kept between transactions has zeros there."""
    try:
        with regular(path) as source:
            return source.read(0, len(magic)) == magic
    except OSError:
        return False


def companion(path: Path, end: str) -> Path:
    """The file of that ending beside a database."""
    return path.with_name(path.name + end)


def companions(path: Path) -> tuple[Path, ...]:
    """Those that exist."""
    return tuple(beside for end in ENDS if os.path.lexists(beside := companion(path, end)))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def look(path: Path) -> Files:
    """The files as they are now. Raises FileNotFoundError, and UnreadableError for anything that is no regular file."""
    with LOCK, regular(path) as source:
        beside = [_stat(companion(path, end)) for end in ENDS]
        return Files(path, source.stat, source.read(0, 4096), *beside)


def restat(files: Files) -> Files:
    """The files as they are now, without opening one: for while a connection is open."""
    beside = [_stat(companion(files.path, end)) for end in ENDS]
    return Files(files.path, files.path.stat(), files.first, *beside)


def no_database(files: Files) -> tuple[str, str]:
    """(rule, sentence) for a file with content that is no database."""
    first = files.first
    shown = evidence(first[:60], 100)
    if first.lstrip()[:1] in _WEB:
        kind = "a web page" if first.lstrip().startswith(b"<") else "JSON"
        return "C11", f"It is {kind}, no SQLite database: {shown}."
    if not first.strip(b"\0"):
        return "C2", "It begins with NUL bytes, so the head of the database is lost."
    return "Q1", f"It does not begin as a SQLite database does: {shown}."


# --- who holds it ------------------------------------------------------------------------------------------------


def lock_holders(path: Path) -> tuple[int, ...]:
    """Processes that hold a POSIX lock on the database or its shared memory, as far as the kernel tells us.

    /proc/locks names device and inode; some file systems (btrfs, overlay) show another device there than stat does, so
    the inode decides.
    """
    wanted = {found.st_ino for end in ("", SHM) if (found := _stat(companion(path, end)))}
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ()
    holders = {_holder(line.split(), wanted) for line in lines}
    return tuple(sorted(pid for pid in holders if pid > 0 and pid != os.getpid()))


def _holder(words: list[str], wanted: set[int]) -> int:
    """`1: POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF` -> 1234, if that is one of the inodes."""
    if len(words) < 6 or words[1] not in ("POSIX", "OFDLCK") or "->" in words:
        return 0
    inode = words[5].rpartition(":")[2]
    return int(words[4]) if inode.isdecimal() and int(inode) in wanted and words[4].isdecimal() else 0


def shown(pids: tuple[int, ...]) -> str:
    """`process 12`, `processes 12 and 15`."""
    return f"process{'es' if len(pids) > 1 else ''} {' and '.join(str(pid) for pid in pids[:4])}"


# --- copies ------------------------------------------------------------------------------------------------------

_TRIES = 5
STALE = 3600.0
"""Seconds after which nobody looks at a copy any more."""


@contextmanager
def private_copy(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """A copy of the database with its companions, which SQLite may recover as it likes; gone afterwards.

    For a database that nobody has open. Where somebody writes to it meanwhile, the copy is made again; raises
    UnreadableError if that does not end, and OSError.
    """
    with TemporaryDirectory(prefix=".database-", dir=folder or _room()) as made:
        copy = Path(made) / "copy.sqlite"
        for _ in range(_TRIES):
            before = look(path)
            _copy_all(path, copy)
            if look(path).identity == before.identity:
                break
        else:
            raise UnreadableError("it is written to all the time")
        yield copy


def _room() -> Path | None:
    """A folder of ours for copies, from which those of killed processes are swept; None: there can be none."""
    room = Path(gettempdir()) / f"botkeep-{os.geteuid()}"
    try:
        room.mkdir(mode=0o700, exist_ok=True)
        seen = os.lstat(room)
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o077:
            return None
        with os.scandir(room) as entries:
            for entry in entries:
                if _is_stale(entry):
                    shutil.rmtree(entry.path, ignore_errors=True)
    except OSError:
        return None
    return room


def _is_stale(entry: os.DirEntry[str]) -> bool:
    """Not if another look removes its copy just now."""
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE
    except OSError:
        return False


def _copy_all(path: Path, copy: Path) -> None:
    with LOCK:
        _copy_file(path, copy)
        for end in (WAL, JOURNAL):
            companion(copy, end).unlink(missing_ok=True)
            try:
                _copy_file(companion(path, end), companion(copy, end))
            except FileNotFoundError:
                continue


def _copy_file(path: Path, target: Path) -> None:
    with regular(path) as source, target.open("wb") as file:
        for data in source.chunks(0, source.size):
            file.write(data)


def hashed(path: Path) -> tuple[int, str]:
    """(size, sha256) of a file of ours."""
    with LOCK, regular(path) as source:
        return source.size, source.digest(0, source.size)


def sync(path: Path) -> None:
    """fsync a file and the folder that it is in. Raises BotkeepError."""
    try:
        for one, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
            with LOCK:
                fd = os.open(one, flags | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
    except OSError as error:
        raise BotkeepError(f"{path} cannot be made durable: {error.strerror}.") from error
