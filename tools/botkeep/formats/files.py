"""Files as the formats read them: opened once, regular ones only, told apart by inode and by a few hashed bytes."""

from __future__ import annotations

import hashlib
import os
import re
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
NEAR = 64 * 1024
"""Bytes at both ends of a file by which it is told whether it began anew."""
OBJECT = 48
"""Bytes of the shortest piece of a JSON document that is taken for a trade: equal fees stand in many of them."""

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
        self.cut = False
        """A digest got fewer bytes than it was asked for: the file was shortened meanwhile; its hash says nothing."""

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

    def changed(self) -> bool:
        """Whether it was written to since it was opened, or the last `refresh`."""
        now = os.fstat(self.fd)
        return (now.st_size, now.st_mtime_ns) != (self.stat.st_size, self.stat.st_mtime_ns)

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
        """sha256 of [start, stop); `cut` says when the file ended before."""
        running = hashlib.sha256()
        for data in self.chunks(start, stop):
            running.update(data)
            start += len(data)
        self.cut = self.cut or start < stop
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


def facts_of(seen: os.stat_result) -> dict[str, int]:
    """dev, ino, size, mtime_ns, mode, uid and gid, as a SnapshotCut and a manifest keep them."""
    return {
        "dev": seen.st_dev,
        "ino": seen.st_ino,
        "size": seen.st_size,
        "mtime_ns": seen.st_mtime_ns,
        "mode": seen.st_mode & 0o7777,
        "uid": seen.st_uid,
        "gid": seen.st_gid,
    }


def moved_to(path: Path, old: dict[str, Any]) -> Path | None:
    """The rotated file beside `path` that holds the old content: `name.1`, `name-20261121.gz`, `stem_old_1.csv`.

    None where `path` goes on as before: then it is only a copy, and does not say where the rows of `path` are.
    """
    for sibling in _siblings(path):
        holds = _gzip_bears if sibling.suffix == ".gz" else _plain_bears
        if holds(sibling, old):
            return sibling if began_anew(path, sibling, int(old["to"])) else None
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


# --- a rotation, or only a copy ----------------------------------------------------------------------------------


def began_anew(path: Path, beside: Path, to: int) -> bool:
    """Whether `path` has no row of the first `to` bytes of the file `beside` it; also if it is empty or gone.

    Its two ends are looked at. A row is a line in which a number stands, or an object of a JSON document. What is
    neither (Parquet) begins anew with other bytes at its head. A file of other things than rows did not begin anew.
    """
    try:
        with regular(path) as live:
            head, tail = live.read(0, NEAR), live.read(max(0, live.size - NEAR), NEAR)
        first = next(_blocks(beside, to), b"")
        if b"\0" in first[:ANCHOR]:
            return head[:ANCHOR] != first[:ANCHOR]
        rows = _rows(head, first) | _rows(tail, first)
        if not rows:
            return _is_bare(head, first)
        if first.startswith(head) or head.lstrip().startswith(b"<"):
            return False
        return all(rows.isdisjoint(_rows(block, first)) for block in _blocks(beside, to))
    except FileNotFoundError:
        return not path.exists()
    except (OSError, EOFError, ValueError):
        return False


_NUMBER = re.compile(rb"(?:^|[,;:|\t\"' ])[-+]?\d")


def _rows(data: bytes, first: bytes) -> set[bytes]:
    """What tells one trade from another in a stretch of a file that begins with `first`."""
    lines = (line.strip().rstrip(b",") for line in data.split(b"\n"))
    if not first.lstrip().startswith((b"[", b"{")):
        return {line for line in lines if _NUMBER.search(line)}
    objects = {line for line in lines if line.startswith(b"{") and line.endswith(b"}")}
    pieces = b"".join(data.split()).split(b"}")
    return objects | {piece.lstrip(b",[]") for piece in pieces if len(piece) >= OBJECT}


def _is_bare(head: bytes, first: bytes) -> bool:
    """Empty, a header, or a JSON document without a trade."""
    text = head.strip()
    if first.lstrip().startswith((b"[", b"{")):
        return not text or (len(text) < OBJECT and text[:1] in (b"[", b"{") and text[-1:] in (b"]", b"}"))
    return len(head) < NEAR and b"\0" not in text and (first.startswith(text) or b"\n" not in text)


def _blocks(path: Path, to: int) -> Iterator[bytes]:
    """The first `to` bytes, unpacked, in pieces that overlap by more than a row."""
    import gzip  # only where a file has shrunk

    with regular(path) as source:
        if path.suffix != ".gz":
            for start in range(0, to, CHUNK):
                yield source.read(start, min(CHUNK + NEAR, to - start))
            return
    with gzip.open(path) as file:
        yield file.read(min(to, GZIP_LIMIT))


# --- deleted files that somebody still holds ---------------------------------------------------------------------


def held_deleted(path: Path, identity: str = "") -> Path | None:
    """`/proc/PID/fd/N` of the file that was deleted from `path` and that another process still holds open; else None.

    Its bytes are lost with that process, so they are to be copied before it is stopped. `identity` (dev:ino:...) names
    the inode where it is known. Among several: one that is open for writing, then the one that was written last.
    """
    wanted = identity.split(":")[:2]
    found = [one for one in _deleted(str(path)) if not identity or one[0] == wanted]
    return max(found, key=lambda one: one[1])[2] if found else None


def _deleted(name: str) -> Iterator[tuple[list[str], tuple[bool, int], Path]]:
    """([dev, ino], (for writing, mtime_ns), descriptor) of each file without a name that once had this one."""
    ours = str(os.getpid())
    for process in (entry for entry in os.listdir("/proc") if entry.isdecimal() and entry != ours):
        for fd in _listed(f"/proc/{process}/fd"):
            held = f"/proc/{process}/fd/{fd}"
            try:
                if os.readlink(held) != f"{name} (deleted)":
                    continue
                seen, writes = os.stat(held), bool(os.lstat(held).st_mode & stat.S_IWUSR)
            except OSError:
                continue  # closed meanwhile, or not ours to see
            if stat.S_ISREG(seen.st_mode) and not seen.st_nlink:
                yield [str(seen.st_dev), str(seen.st_ino)], (writes, seen.st_mtime_ns), Path(held)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
