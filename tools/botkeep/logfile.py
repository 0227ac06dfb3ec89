"""Reading a log that grows, rotates, is cut or replaced while we read: each byte once, and never more than a bound.

Only regular files: a FIFO would hang us, /dev/zero never ends. A symbolic link counts if it stays in its folder
(`current.log`), for a bot could point its log at another's keys.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from .model import BotkeepError

FIRST_READ = 256 * 1024
"""Bytes of an unknown log that are looked at."""
CATCH_UP = 128 * 1024 * 1024
"""Bytes of new lines that one look reads; of more, the newest. A third of a second, if few of them mean anything."""
IN_A_HURRY = 4 * 1024 * 1024
"""Bytes before the end that are still read once a look has taken long."""
LINE_LIMIT = 64 * 1024
"""Bytes of a line that count; the rest of it is skipped."""
CHUNK = 256 * 1024
ANCHOR = 64
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW


class LogError(BotkeepError):
    """A log that cannot be read: one sentence."""


class Position(NamedTuple):
    """Up to where a log was read. JSON by `_asdict()`."""

    dev: int
    ino: int
    offset: int
    anchor: int
    """Checksum of the bytes before `offset`: a file that was cut and has grown again does not have them."""
    skipping: bool = False
    """`offset` is inside a line that was too long."""
    back: int = 0
    """Bytes before `offset` that are to be read again, with what follows them."""

    @property
    def begin(self) -> int:
        """The first byte to read."""
        return self.offset - self.back


class Block(NamedTuple):
    """Some lines, each ended by a newline."""

    data: bytes
    offset: int
    """Of the first byte, in its file."""
    older: bool = False
    """From the rotated predecessor of the log."""

    @property
    def end(self) -> int:
        """The byte after the last, in its file."""
        return self.offset + len(self.data)


class OpenLog(NamedTuple):
    """A regular file, open for reading; what was true of it then."""

    fd: int
    dev: int
    ino: int
    size: int
    mtime: float

    def anchor(self, offset: int) -> int:
        """Checksum of the (at most 64) bytes before `offset`."""
        length = min(ANCHOR, offset)
        return zlib.crc32(os.pread(self.fd, length, offset - length))

    def continues(self, position: Position) -> bool:
        """Whether the bytes before `position` are still those that were read."""
        return self.size >= position.offset and self.anchor(position.offset) == position.anchor

    def starts_line(self, offset: int) -> bool:
        """Whether a line begins at `offset`."""
        return offset == 0 or os.pread(self.fd, 1, offset - 1) == b"\n"


@contextmanager
def open_log(path: Path) -> Iterator[OpenLog]:
    """Open a log. Raises LogError for what is missing, not regular, not readable, or leads out of its folder."""
    fd = _open(path)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise LogError(f"The log {path} is {_kind(status.st_mode)}; only regular files are read. Name another.")
        yield OpenLog(fd, status.st_dev, status.st_ino, status.st_size, status.st_mtime)
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    try:
        return os.open(path, _FLAGS)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise LogError(_why(path, error)) from error
    target = os.path.realpath(path)
    if os.path.dirname(target) != os.path.realpath(path.parent):
        raise LogError(f"The log {path} is a symbolic link out of its folder, to {target}. Name the file itself.")
    try:
        return os.open(target, _FLAGS)
    except OSError as error:
        raise LogError(_why(path, error)) from error


def _why(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"The log {path} does not exist (yet)."
    if error.errno == errno.ENXIO:
        return f"The log {path} is a socket; only regular files are read. Name another."
    return f"The log {path} cannot be read: {error.strerror}. Mend its permissions or name another."


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


class Reading:
    """One look at a log: iterate over its new blocks, then ask for the position and the unfinished last line."""

    def __init__(self, path: Path, log: OpenLog, position: Position | None) -> None:
        self.path = path
        self.log = log
        self.first = position is None
        self.skipped = 0
        """Bytes that were too much for one look."""
        self.rotated = position is not None and not self._same_file(position)
        self.rest = b""
        """The last line, if nothing ended it yet."""
        self._hurried = False
        self._before = position
        self._offset = 0 if position is None or self.rotated else position.begin
        self._skipping = bool(position and position.skipping and not self.rotated)

    def _same_file(self, position: Position) -> bool:
        return (self.log.dev, self.log.ino) == (position.dev, position.ino) and self.log.continues(position)

    def __iter__(self) -> Iterator[Block]:
        if self.rotated and self._before is not None:
            yield from self._end_of_predecessor(self._before)
        self._jump(self.log, FIRST_READ if self.first else CATCH_UP)
        yield from self._blocks(self.log, older=False)

    def position(self, back: int = 0) -> Position:
        """Where the next look goes on: at the unfinished last line, or `back` bytes before it."""
        offset = self._offset
        return Position(self.log.dev, self.log.ino, offset, self.log.anchor(offset), self._skipping, back)

    @property
    def goes_on(self) -> bool:
        """Whether what follows the position can be read: in the log, or after a rotation in its predecessor."""
        if not self.rotated or self._before is None:
            return True
        with suppress(LogError), open_log(self._predecessor) as older:
            return older.continues(self._before)
        return False

    @property
    def _predecessor(self) -> Path:
        return self.path.with_name(f"{self.path.name}.1")

    def has_more_than(self, size: int | None) -> bool:
        """Whether there may be something new: the log is not as it was with `size` bytes."""
        return self.first or self.rotated or size != self.log.size

    def hurry(self) -> None:
        """Pass over all but the last 4 MiB: these lines take longer than lines do."""
        self._hurried = True

    @property
    def rest_offset(self) -> int:
        """Where the unfinished last line begins."""
        return self._offset

    def _end_of_predecessor(self, position: Position) -> Iterator[Block]:
        """What was written between the last look and a rotation: the cause of a death often stands there.

        The predecessor is the same file under another name, or a copy of it when the log is cut in place.
        """
        with suppress(LogError), open_log(self._predecessor) as older:
            if older.continues(position):
                self._offset, self._skipping = position.begin, position.skipping
                self._jump(older, CATCH_UP)
                yield from self._blocks(older, older=True)
                if self.rest:
                    yield Block(self.rest + b"\n", self._offset, older=True)
        self._offset, self._skipping, self.rest = 0, False, b""

    def _jump(self, log: OpenLog, most: int) -> None:
        """Go no further back than `most` bytes from the end."""
        start = log.size - most
        if start > self._offset:
            self.skipped += start - self._offset
            self._offset, self._skipping = start, not log.starts_line(start)

    def _blocks(self, log: OpenLog, *, older: bool) -> Iterator[Block]:
        """Whole lines up to the size at the time of opening. Moves `_offset`; leaves the unfinished line in `rest`."""
        self.rest, place = b"", self._offset
        while place < log.size:
            chunk = os.pread(log.fd, min(CHUNK, log.size - place), place)
            if not chunk:
                return  # cut while we read: the next look sees it
            place += len(chunk)
            data = self._after_long_line(chunk) if self._skipping else self.rest + chunk
            cut = data.rfind(b"\n") + 1
            self.rest = data[cut:]
            if cut:
                yield Block(data[:cut], self._offset, older)
                self._offset += cut
                if self._hurried and log.size - IN_A_HURRY > place:
                    self._jump(log, IN_A_HURRY)
                    self.rest, place = b"", self._offset
                    continue
            if len(self.rest) > LINE_LIMIT:
                yield Block(self.rest[:LINE_LIMIT] + b"\n", self._offset, older)
                self._offset, self._skipping, self.rest = place, True, b""

    def _after_long_line(self, chunk: bytes) -> bytes:
        end = chunk.find(b"\n") + 1
        self._offset += end or len(chunk)
        self._skipping = not end
        return chunk[end:] if end else b""


def last_bytes(path: Path, most: int = FIRST_READ) -> tuple[bytes, bool]:
    """The end of a log, from the beginning of a line on, and whether there is more before it. Raises LogError."""
    with open_log(path) as log:
        start = max(0, log.size - most)
        data = os.pread(log.fd, log.size - start, start)
        if start and not log.starts_line(start) and b"\n" in data:
            data = data[data.index(b"\n") + 1 :]
        return data, start > 0


def position_from(raw: Any) -> Position | None:
    """A position from a cursor; None if it is none."""
    try:
        return Position(**raw)
    except TypeError:
        return None
