"""Which processes have a file open for writing, as far as we may see their descriptors."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

Inode = tuple[int, int]
"""(device, inode)."""


def inode_of(path: Path) -> Inode | None:
    """Of the file at `path`; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def nobody_writes(path: Path) -> bool:
    """Whether the kernel itself says that no process has this file open for writing. False: it may be, or nobody knows.

    It gives a read lease for nothing but such a file; to ask the descriptors of all processes takes a hundred times
    as long. Never for a database that this program may be reading: to close a file drops its own locks on it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # who opens it now has us told: SIGIO would end us
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)


def open_writers(path: Path) -> tuple[int, ...]:
    """Processes that have the file of `path` open for writing.

    Found by (device, inode), so under any name. A program that opens its file for every row has it open only then.
    """
    wanted = inode_of(path)
    if wanted is None:
        return ()
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())
    return tuple(sorted(pid for pid in pids if any(_is_for_writing(pid, fd) for fd in _descriptors(pid, wanted))))


def written_by(pid: int) -> set[Inode]:
    """The regular files that the process has open for writing. One that ends meanwhile has none."""
    return {inode for fd, inode in _regular_files(pid) if _is_for_writing(pid, fd)}


def _descriptors(pid: int, wanted: Inode) -> Iterator[str]:
    return (fd for fd, inode in _regular_files(pid) if inode == wanted)


def _regular_files(pid: int) -> Iterator[tuple[str, Inode]]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            seen = os.stat(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if stat.S_ISREG(seen.st_mode):
            yield name, (seen.st_dev, seen.st_ino)


def _is_for_writing(pid: int, fd: str) -> bool:
    try:
        lines = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines()
    except OSError:
        return False
    flags = next((int(line.split()[1], 8) for line in lines if line.startswith("flags:")), 0)
    return flags & os.O_ACCMODE != os.O_RDONLY
