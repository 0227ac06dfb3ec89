"""Which processes have a file open for writing, as far as we may see their descriptors.

Other programs' descriptors are never asked through their files: `stat` on one that lies on a network mount which is
gone hangs, and with it the look at every bot. What the kernel itself says of them is enough: fdinfo names mount and
inode, mountinfo the mount's device. Only a descriptor in which all of that agrees with the file that is looked for,
which is ours to ask, is asked itself: a snapshot of a btrfs volume has the same device and inode.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Inode = tuple[str, int]
"""(device of the mount, inode), as the kernel tells them of a descriptor; not what `stat` gives."""
FDINFO_BYTES = 4096
"""mnt_id and ino are among its first lines."""
NO_FILES = frozenset({"/dev/null", "/dev/tty", "/dev/console"})
MOUNTINFO_BYTES = 16 << 20


def inode_of(path: Path) -> Inode | None:
    """Of the file at `path`; None if there is none."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status, said = os.fstat(fd), _described(os.getpid(), str(fd))
        mount = _Mounts().device(os.getpid(), said.mount) if said else None
        device = mount or f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        return device, said.inode if said and said.inode is not None else status.st_ino
    finally:
        os.close(fd)


def open_writers(path: Path) -> tuple[int, ...]:
    """Processes that have the file of `path` open for writing.

    Found by its inode, so under any name. A program that opens its file for every row has it open only then.
    """
    wanted = inode_of(path)
    if wanted is None:
        return ()
    mounts = _Mounts()
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())
    return tuple(sorted(pid for pid in pids if _has_open(pid, path, wanted, mounts)))


def writes_to(pid: int, path: Path) -> bool:
    """Whether the process has the file of `path` open for writing."""
    wanted = inode_of(path)
    return wanted is not None and _has_open(pid, path, wanted, _Mounts())


def written_by(pid: int) -> set[Inode]:
    """What the process has open for writing and has a name in a file system. One that ends meanwhile has nothing."""
    mounts, found = _Mounts(), set()
    for one in _descriptors(pid):
        device = mounts.device(pid, one.mount)
        inode = _inode(pid, one) if device else None
        if device and inode is not None:
            found.add((device, inode))
    return found


def _has_open(pid: int, path: Path, wanted: Inode, mounts: _Mounts) -> bool:
    for one in _descriptors(pid):
        if one.inode not in (None, wanted[1]):
            continue
        device = mounts.device(pid, one.mount)
        taken_away = device is None and one.inode is not None
        if (device == wanted[0] or taken_away) and _is_the_same(f"/proc/{pid}/fd/{one.fd}", path):
            return True
    return False


def _is_the_same(held: str, path: Path) -> bool:
    try:
        return os.path.samestat(os.stat(held), path.stat())
    except OSError:
        return False


# ---------------------------------------------------------------------------------------------------- descriptors


@dataclass(frozen=True)
class _Descriptor:
    """One open file of a process."""

    fd: str
    mount: int
    inode: int | None
    """None: the kernel does not say so (before Linux 5.14)."""


def _descriptors(pid: int) -> Iterator[_Descriptor]:
    """Those that it has open for writing, of files with a name: no sockets, no pipes."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        said = _described(pid, name) if _is_for_writing(f"{folder}/{name}") else None
        if said is not None:
            yield said


def _is_for_writing(link: str) -> bool:
    """What stands in the link, and the link's own rights: neither asks the file."""
    try:
        named = os.readlink(link)
        if not named.startswith("/") or named in NO_FILES:
            return False
        return bool(os.lstat(link).st_mode & stat.S_IWUSR)
    except OSError:
        return False


def _described(pid: int, fd: str) -> _Descriptor | None:
    try:
        info = os.open(f"/proc/{pid}/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        lines = os.read(info, FDINFO_BYTES).split(b"\n")
    except OSError:
        return None
    finally:
        os.close(info)
    said = {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    if b"mnt_id" not in said:
        return None
    return _Descriptor(fd, int(said[b"mnt_id"]), int(said[b"ino"]) if b"ino" in said else None)


def _inode(pid: int, one: _Descriptor) -> int | None:
    """As the kernel says; one that does not has to be asked by way of the file."""
    if one.inode is not None:
        return one.inode
    try:
        return os.stat(f"/proc/{pid}/fd/{one.fd}").st_ino
    except OSError:
        return None


# ---------------------------------------------------------------------------------------------------- mounts


class _Mounts:
    """The devices of mounts, read once for each place that processes see mounts from."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Mapping[int, str]] = {}

    def device(self, pid: int, mount: int) -> str | None:
        """`major:minor`; None for what is mounted nowhere that we can see: memory, a mount that was taken away."""
        return self._seen_by(pid).get(mount) or self._seen_by(os.getpid()).get(mount)

    def _seen_by(self, pid: int) -> Mapping[int, str]:
        place = _link(f"/proc/{pid}/ns/mnt"), _link(f"/proc/{pid}/root")
        if place not in self._known:
            self._known[place] = _mounts(pid)
        return self._known[place]


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return path


def _mounts(pid: int) -> dict[int, str]:
    """Mount to device; empty for a process that is gone."""
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            lines = file.read(MOUNTINFO_BYTES).splitlines()
    except OSError:
        return {}
    return {int(fields[0]): fields[2].decode() for line in lines if len(fields := line.split(b" ", 3)) == 4}
