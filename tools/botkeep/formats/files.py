"""Files as the formats read them: opened once, regular ones only, told apart by inode and by a few hashed bytes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
CAP = 2 << 30
"""Bytes of a file that is not read whole: its ends say what there is to say in time."""
ANCHOR = 1024
"""Bytes hashed at both ends of what was verified: enough to know the old content again, wherever it went."""
SIBLINGS = 64
GZIP_LIMIT = 64 << 20

KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class UnreadableError(OSError):
    """The path cannot be read as a file. The text is one phrase: why."""


class Source:
    """An open regular file. All reads are at given offsets, so that nothing depends on a position."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.stat = os.fstat(fd)

    @property
    def size(self) -> int:
        """Size when it was opened, or at the last `refresh`."""
        return self.stat.st_size

    @property
    def identity(self) -> str:
        """dev:ino:size:mtime_ns."""
        seen = self.stat
        return f"{seen.st_dev}:{seen.st_ino}:{seen.st_size}:{seen.st_mtime_ns}"

    def refresh(self) -> None:
        """Look at size and times again."""
        self.stat = os.fstat(self.fd)

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`; fewer only at the end of the file."""
        data = os.pread(self.fd, size, start)
        while data and len(data) < size:
            more = os.pread(self.fd, size - len(data), start + len(data))
            if not more:
                break
            data += more
        return data

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of [start, stop), fewer if the file ends before."""
        while start < stop:
            data = self.read(start, min(CHUNK, stop - start))
            if not data:
                return
            yield data
            start += len(data)

    def digest(self, start: int, stop: int) -> str:
        """sha256 of [start, stop)."""
        running = hashlib.sha256()
        for data in self.chunks(start, stop):
            running.update(data)
        return running.hexdigest()


@contextmanager
def regular(path: Path) -> Iterator[Source]:
    """Open a regular file to read. Raises FileNotFoundError, and UnreadableError for anything else in the way.

    Looked at before it is opened: opening a FIFO or a device already does something to it.
    """
    try:
        _refuse_strange(path.stat())
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except UnreadableError:
        raise
    except (OSError, ValueError) as error:
        raise UnreadableError(getattr(error, "strerror", None) or str(error)) from error
    try:
        source = Source(fd)
        _refuse_strange(source.stat)
        yield source
    finally:
        os.close(fd)


def _refuse_strange(seen: os.stat_result) -> None:
    for test, name in KINDS:
        if test(seen.st_mode):
            raise UnreadableError(f"it is {name}, not a file")


def marks(source: Source, to: int) -> dict[str, str]:
    """Hashes by which the content [0, to) can be known again."""
    return {
        "head": source.digest(0, min(ANCHOR, to)),
        "anchor": source.digest(max(0, to - ANCHOR), to),
    }


def bears(source: Source, old: dict[str, Any]) -> bool:
    """Whether the file still begins with the content that `old` (to, head, anchor) was taken from."""
    to = int(old["to"])
    return source.size >= to and marks(source, to) == {"head": old["head"], "anchor": old["anchor"]}


def moved_to(path: Path, old: dict[str, Any]) -> Path | None:
    """The rotated file beside `path` that holds the old content: `name.1`, `name-20261121.gz`, `stem_old_1.csv`."""
    for sibling in _siblings(path):
        holds = _gzip_bears if sibling.suffix == ".gz" else _plain_bears
        if holds(sibling, old):
            return sibling
    return None


def _siblings(path: Path) -> list[Path]:
    """Regular files beside `path` with its stem, the newest first."""
    try:
        with os.scandir(path.parent) as entries:
            near = [entry for entry in entries if entry.name.startswith(path.stem) and entry.name != path.name]
            found = [(entry.stat().st_mtime_ns, Path(entry.path)) for entry in near if entry.is_file()]
    except OSError:
        return []
    return [sibling for _, sibling in sorted(found, reverse=True)[:SIBLINGS]]


def _plain_bears(path: Path, old: dict[str, Any]) -> bool:
    try:
        with regular(path) as source:
            return bears(source, old)
    except OSError:
        return False


def _gzip_bears(path: Path, old: dict[str, Any]) -> bool:
    import gzip  # only where a file has shrunk
    import zlib

    to = int(old["to"])
    if to > GZIP_LIMIT:
        return False
    try:
        with gzip.open(path) as file:
            data = file.read(to)
    except (OSError, EOFError, zlib.error):
        return False
    head, anchor = data[:ANCHOR], data[max(0, to - ANCHOR) :]
    return len(data) == to and old["head"] == _sha(head) and old["anchor"] == _sha(anchor)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
