"""What a program says: the files that supervisord writes, or what it reads out of them for somebody elsewhere.

supervisord hands out text, and fails over a byte that is none: what it cannot read out in one piece is asked for in
smaller ones.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botkeep.model import EngineError

from .engine import Unit
from .supervisord_rpc import Client, FaultError
from .supervisord_units import Supervised

if TYPE_CHECKING:
    from .supervisord import Config

FIRST = 256 << 10
"""Bytes of what was said before anybody asked."""
MOST = 2 << 20
"""Bytes that one reading takes of each file; the rest comes with the next."""
MOST_ASKED = 512 << 10
"""The same through supervisord, whose answer may be six times as long as the text in it."""
SMALLEST = 64
ASKED_MOST = 40
"""Questions for one stretch that holds bytes which are no text."""
CHANNELS = ("stdout", "stderr")
Cursor = dict[str, Any]


def read_log(config: Config, unit: Unit, cursor: Mapping[str, Any], seconds: float) -> tuple[bytes, dict[str, Any]]:
    """What is new of stdout and, where that is a file of its own, of stderr; see `Engine.read_log`."""
    if not isinstance(unit, Supervised):
        return b"", {}
    data, following = b"", Cursor()
    reader = _Remote(config, unit, time.monotonic() + seconds)
    for channel in CHANNELS:
        path = unit.stdout if channel == "stdout" else unit.stderr
        if not path:
            continue
        kept = cursor.get(channel) or {}
        here = unit.is_readable and not _is_hidden(Path(path))
        new, following[channel] = _read_file(Path(path), kept) if here else reader.read(channel, kept)
        data += new
    return data, following


# ---------------------------------------------------------------------------------------------------- here


def _is_hidden(path: Path) -> bool:
    """Whether a file is there and may not be read, or is none that can be."""
    try:
        return not (stat.S_ISREG(path.stat().st_mode) and os.access(path, os.R_OK))
    except OSError as error:
        return not isinstance(error, FileNotFoundError)


def _read_file(path: Path, kept: Mapping[str, Any]) -> tuple[bytes, Cursor]:
    """What a file has since the last time, and what the one before it had that was turned over meanwhile."""
    fd = _open(path)
    if fd is None:
        return b"", dict(kept)  # it is just being turned over
    try:
        now = os.fstat(fd)
        offset = kept.get("offset", max(0, now.st_size - FIRST))
        before = b""
        if kept.get("inode", now.st_ino) != now.st_ino:
            before, offset = _rest_of_rotated(path, kept), 0
        elif offset > now.st_size:
            offset = 0
        data = os.pread(fd, MOST, offset)
    finally:
        os.close(fd)
    return before + data, {"inode": now.st_ino, "offset": offset + len(data)}


def _open(path: Path) -> int | None:
    """Only regular files: /dev/stdout is a common one too."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _rest_of_rotated(path: Path, kept: Mapping[str, Any]) -> bytes:
    fd = _open(path.with_name(f"{path.name}.1"))
    if fd is None:
        return b""
    try:
        same = os.fstat(fd).st_ino == kept.get("inode")
        return os.pread(fd, MOST, int(kept.get("offset", 0))) if same else b""
    finally:
        os.close(fd)


# ---------------------------------------------------------------------------------------------------- elsewhere


class _Remote:
    """Reads through supervisord itself."""

    def __init__(self, config: Config, unit: Supervised, until: float) -> None:
        from .supervisord import address_of

        self.client = Client(address_of(config))
        self.spec = unit.id
        self.until = until
        self.asked = 0

    def read(self, channel: str, kept: Mapping[str, Any]) -> tuple[bytes, Cursor]:
        """Raises EngineError."""
        size = self._size(channel)
        offset = kept.get("offset", max(0, size - FIRST))
        if offset > size:
            offset = 0  # it was turned over, or cleared
        count = min(size - offset, MOST_ASKED)
        self.asked = 0
        return (self._stretch(channel, offset, count) if count else b""), {"offset": offset + count}

    def _size(self, channel: str) -> int:
        """Of the file now: a tail of no bytes tells it."""
        told = self._ask(f"supervisor.tailProcess{channel.title()}Log", self.spec, 0, 0)
        if not isinstance(told, list) or len(told) != 3 or not isinstance(told[1], int):
            raise EngineError(f"What supervisord at {self.client.address} says of a log is not understood.")
        return told[1]

    def _stretch(self, channel: str, offset: int, count: int) -> bytes:
        """Bytes of the file; where some are no text, those around them are marks."""
        self.asked += 1
        with suppress(FaultError):
            told = self._ask(f"supervisor.readProcess{channel.title()}Log", self.spec, offset, count)
            return str(told).encode("utf-8", "replace")
        if count <= SMALLEST or self.asked > ASKED_MOST:
            return b"?" * min(count, SMALLEST) + b"\n"
        half = count // 2
        return self._stretch(channel, offset, half) + self._stretch(channel, offset + half, count - half)

    def _ask(self, *wanted: Any) -> Any:
        """As one of several questions: alone, a file that is no text makes supervisord write a page into its log."""
        (told,) = self.client.calls(wanted, seconds=max(0.0, self.until - time.monotonic()))
        if isinstance(told, FaultError):
            raise told
        return told
