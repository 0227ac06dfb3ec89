"""Files that are whole or absent, and locks that the kernel frees: what survives kill -9 and a power cut."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from .model import EngineError

JSON_LIMIT = 1 << 20


def fsync_dir(path: Path) -> None:
    """Make a rename or a new name in `path` survive a power cut: without it a finished restore was lost."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`: readers see the old file or the new one. Raises OSError, leaving the old one."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def read_regular(path: Path, limit: int = JSON_LIMIT) -> bytes | None:
    """The bytes of a regular file of at most `limit` bytes; None if there is none. Never hangs on a FIFO.

    Raises OSError for anything that is not such a file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} is not a regular file")
    with os.fdopen(fd, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"{path} has more than {limit} bytes")
    return data


def read_json(path: Path) -> dict[str, Any] | None:
    """A small JSON object of ours; None if it is missing or was torn (our own files are written atomically)."""
    try:
        data = read_regular(path)
        value = json.loads(data) if data else None
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


class Lock:
    """An flock on a file that is never renamed. Freed by the kernel when its last holder dies.

    After locking, the inode is compared with the path's: whoever removed the file would otherwise let a second
    holder in (advice to `rm bot.lock` is common).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd: int | None = None

    def acquire(self, wait: float = 0.0) -> bool:
        """Try for `wait` seconds. True: we hold it. Raises EngineError if the file cannot be opened."""
        deadline, pause = time.monotonic() + wait, 0.001
        while True:
            if self._try():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(0.02, pause * 2)

    def _try(self) -> bool:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise EngineError(f"The lock {self.path} cannot be opened: {error.strerror}.") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours, named = os.fstat(fd), os.stat(self.path)
        except (BlockingIOError, FileNotFoundError):
            os.close(fd)
            return False
        if (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino):
            os.close(fd)
            return False
        self.fd = fd
        return True

    def release(self) -> None:
        """Close our descriptor: the lock is free once no inheritor holds it either."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
