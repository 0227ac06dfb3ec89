"""Files that were deleted while a process has them open: their content lives until it lets go, and no longer.

A bot whose database is deleted goes on trading into it for hours, with every sign of health. Opened here before the bot
is stopped, the content outlives it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .formats.files import held_deleted

SUFFIXES = ("", "-wal", "-shm", "-journal")
"""The file itself, and what a database has beside it."""


@dataclass(frozen=True)
class Held:
    """Open descriptors of deleted files, by what follows the data file's name."""

    name: str
    descriptors: dict[str, int]

    def copy_to(self, folder: Path) -> Path:
        """Copy all of them into the folder, fsynced, under their names; gives the data file's. Raises OSError."""
        for suffix, fd in self.descriptors.items():
            with open(f"/proc/self/fd/{fd}", "rb") as source, (folder / f"{self.name}{suffix}").open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
                target.flush()
                os.fsync(target.fileno())
        return folder / self.name


@contextmanager
def hold(path: Path) -> Iterator[Held | None]:
    """Keep the deleted file of that path, and what belonged to it, from vanishing; None: nobody holds one.

    Another file may have taken its name: an editor that saves by renaming leaves the bot writing into the old one.
    """
    found: dict[str, int] = {}
    try:
        for suffix in SUFFIXES:
            if (place := held_deleted(path.with_name(path.name + suffix))) is not None:
                with suppress(OSError):
                    found[suffix] = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        yield Held(path.name, found) if "" in found else None
    finally:
        for fd in found.values():
            os.close(fd)


@contextmanager
def rescuing(path: Path | None, folder: Path) -> Iterator[None]:
    """Around the end of a bot: what only it held open is copied into `folder`, where a restore looks for it."""
    if path is None:
        yield
        return
    with hold(path) as held:
        yield
        if held is not None:
            with suppress(OSError):  # a full disk must not keep a bot alive
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                held.copy_to(folder)


def holds_deleted(path: Path, pids: Iterable[int]) -> bool:
    """Whether one of these processes has a file open that was deleted under this name."""
    wanted = f"{path} (deleted)"
    return any(_target(fd) == wanted for pid in pids for fd in _descriptors(pid))


def _descriptors(pid: int) -> list[str]:
    try:
        return [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []


def _target(fd: str) -> str:
    try:
        return os.readlink(fd)
    except OSError:
        return ""
