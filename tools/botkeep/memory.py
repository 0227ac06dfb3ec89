"""How much memory there is: the machine's, and what is left of the limit of the cgroup that we or a bot run in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
MOST = 1 << 16
NO_LIMIT = 1 << 60
"""The old hierarchy writes a number as large as its type allows where there is none."""
_LINE = re.compile(rb"^(MemTotal|MemAvailable|SwapFree):\s+(\d{1,15}) kB$", re.MULTILINE)
_SOME = re.compile(rb"^some avg10=\S+ avg60=(\d{1,3}\.\d{1,2})", re.MULTILINE)
_OOM_KILLS = re.compile(rb"^oom_kill (\d{1,15})$", re.MULTILINE)
_INACTIVE = re.compile(rb"^(?:total_)?inactive_file (\d{1,18})$", re.MULTILINE)


@dataclass(frozen=True)
class Memory:
    """Bytes, of the machine as a whole. None: it does not say."""

    total: int | None = None
    available: int | None = None
    swap_free: int | None = None
    pressure: float | None = None
    """Percent of the last 60 seconds in which some task waited for memory."""
    oom_kills: int | None = None
    """Processes that the kernel ended for lack of memory since the machine was started, in cgroups too."""


@dataclass(frozen=True)
class Limit:
    """The cgroup, of those that a process is in, that has least left. Bytes."""

    limit: int
    used: int
    """Without the cache that the kernel gives back when it is short."""

    @property
    def left(self) -> int:
        """Never below zero."""
        return max(0, self.limit - self.used)


def read_memory(proc: Path = PROC) -> Memory:
    """The machine's memory. Never raises: what cannot be read is not known."""
    found = {name: int(size) * 1024 for name, size in _LINE.findall(read_small(proc / "meminfo"))}
    some = _SOME.search(read_small(proc / "pressure/memory"))
    kills = _OOM_KILLS.search(read_small(proc / "vmstat"))
    return Memory(
        total=found.get(b"MemTotal"),
        available=found.get(b"MemAvailable"),
        swap_free=found.get(b"SwapFree"),
        pressure=float(some[1]) if some else None,
        oom_kills=int(kills[1]) if kills else None,
    )


def read_limit(pid: int | None = None, proc: Path = PROC, cgroups: Path = CGROUPS) -> Limit | None:
    """The tightest limit of a process (None: our own); None where there is none, or nobody says."""
    limits = [one for folder in _folders(pid, proc, cgroups) if (one := _limit(folder))]
    return min(limits, key=lambda one: one.left, default=None)


def _folders(pid: int | None, proc: Path, cgroups: Path) -> Iterator[Path]:
    """The process's own cgroup and those above it, in the new hierarchy and in the old one."""
    for line in read_small(proc / str(pid or "self") / "cgroup").splitlines():
        _, _, rest = line.partition(b":")
        controllers, _, inner = rest.partition(b":")
        if controllers == b"":
            yield from _upwards(cgroups, os.fsdecode(inner))
        elif b"memory" in controllers.split(b","):
            yield from _upwards(cgroups / "memory", os.fsdecode(inner))


def _upwards(root: Path, inner: str) -> Iterator[Path]:
    """From the cgroup to the root. In a container the path is the host's, and only the root is there."""
    parts = [part for part in inner.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield root.joinpath(*parts[:length])


def _limit(folder: Path) -> Limit | None:
    for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        limit, current = _number(folder / most), _number(folder / used)
        if limit is not None and current is not None and limit < NO_LIMIT:
            cache = _INACTIVE.findall(read_small(folder / "memory.stat"))
            return Limit(limit, max(0, current - max(map(int, cache), default=0)))
    return None


def _number(path: Path) -> int | None:
    """`max` is no number."""
    text = read_small(path).strip()
    return int(text) if text.isdigit() else None


def read_small(path: Path) -> bytes:
    """All of a small file of the kernel's, which gives a page a read; nothing if it may not be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    found = b""
    try:
        while len(found) < MOST and (piece := os.read(fd, MOST)):
            found += piece
    except OSError:
        return b""
    finally:
        os.close(fd)
    return found
