"""Processes that are waited for: the kernel says at once when one ends, and never mistakes a reused pid for it."""

from __future__ import annotations

import os
import re
import resource
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from .model import utc_now
from .runtimes.procs import CLOCK_TICKS, Proc, boot_id, has_pidfs, read_proc

KEY = re.compile(r"([0-9a-f]{8}):(\d+):(\d+):(\d+)")
"""An instance's key, if it is a process of this machine: boot, pid, start time, inode of its pidfd."""
FDS = 2
"""Descriptors for each bot."""
SPARE = 256
"""Descriptors for everything else that a watcher does at one time."""
CLOCK_STEP = 0.02
"""Seconds by which the kernel rounds the start of a process."""


@dataclass(frozen=True)
class _Followed:
    bot: str
    what: tuple[str | None, int]
    """Which run, and its pid."""
    fd: int
    state: int
    """Its /proc/PID/stat, open: of this process for ever, whoever has the pid later."""


class Lookout:
    """A pidfd for each living bot, in one poll object."""

    def __init__(self, poller: select.poll) -> None:
        self._poller = poller
        self._boot = boot_id()[:8]
        self._by_bot: dict[str, _Followed] = {}
        self._by_fd: dict[int, _Followed] = {}
        self._frozen: set[str] = set()
        self.problem = ""
        """Why the newest one could not be waited for; empty: it could."""
        self._gone: dict[str, tuple[tuple[str | None, int], int]] = {}
        """Bot -> the run that was found gone, and how often: an engine may be slow to say what the kernel knows."""

    def follow(self, bot: str, key: str | None, pid: int | None, at: datetime, *, exact: bool) -> int:
        """Wait for the end of this run, which lived at `at`; `pid`: its main process here, None: it has none.

        `exact`: its key is that of a process; an engine's names its run in the engine's own way. Gives how often this
        run was found to be over already; 0: it is waited for, or there is nothing to wait for.
        """
        self.problem = ""
        match = KEY.fullmatch(key or "") if exact else None
        if pid is None or (match is not None and match[1] != self._boot):
            self.drop(bot)
            return 0  # it is down, or its engine says how it is
        what, known = (key, pid), self._by_bot.get(bot)
        if known is not None and known.what == what:
            return 0
        self.drop(bot)
        try:
            fds = _opened(int(match[2]), int(match[3]), int(match[4])) if match else _opened_before(pid, at)
        except OSError as error:  # no more descriptors: it has its turns at the usual times
            self.problem = f"The end of {bot} cannot be waited for: {error.strerror}."
            return 0
        if fds is None:
            before, times = self._gone.get(bot, (what, 0))
            self._gone[bot] = (what, times + 1 if before == what else 1)
            return self._gone[bot][1]
        self._gone.pop(bot, None)
        followed = _Followed(bot, what, *fds)
        self._by_bot[bot] = self._by_fd[followed.fd] = followed
        self._poller.register(followed.fd, select.POLLIN)
        return 0

    def frozen(self) -> list[str]:
        """Bots whose process is stopped by a signal, each once while it is: no event tells that."""
        now = {bot for bot, one in self._by_bot.items() if _is_stopped(one.state)}
        fresh = now - self._frozen
        self._frozen = now
        return sorted(fresh)

    def ended(self, fd: int) -> str | None:
        """The bot whose process ended; it is not waited for any more. None: that descriptor is none of ours."""
        followed = self._by_fd.get(fd)
        if followed is None:
            return None
        self.drop(followed.bot)
        return followed.bot

    def drop(self, bot: str) -> None:
        """Wait for it no longer."""
        followed = self._by_bot.pop(bot, None)
        if followed is not None:
            del self._by_fd[followed.fd]
            self._poller.unregister(followed.fd)
            os.close(followed.fd)
            os.close(followed.state)

    def close(self) -> None:
        """Wait for nobody."""
        for bot in tuple(self._by_bot):
            self.drop(bot)

    @property
    def bots(self) -> frozenset[str]:
        """Whose process is waited for."""
        return frozenset(self._by_bot)


def _is_stopped(state: int) -> bool:
    try:
        line = os.pread(state, 512, 0)
    except OSError:
        return False  # it has ended: its pidfd says so
    return line[line.rindex(b")") + 2 : line.rindex(b")") + 3] == b"T"


def _opened(pid: int, ticks: int, inode: int) -> tuple[int, int] | None:
    """A pidfd of exactly this process, and its state."""

    def same(proc: Proc, fd: int) -> bool:
        return proc.start_ticks == ticks and (not inode or not has_pidfs() or os.fstat(fd).st_ino == inode)

    return _proven(pid, same)


def _opened_before(pid: int, at: datetime) -> tuple[int, int] | None:
    """The same for a run of an engine, which names only the pid: whoever took that over since began later."""
    ago = (utc_now() - at).total_seconds()
    until = time.clock_gettime(time.CLOCK_BOOTTIME) - max(0.0, ago) + CLOCK_STEP
    return _proven(pid, lambda proc, _: proc.start_ticks / CLOCK_TICKS <= until)


def _proven(pid: int, same: Callable[[Proc, int], bool]) -> tuple[int, int] | None:
    """Opened first, then proven, so that no reused pid slips in. None: it is gone. Raises OSError if nobody knows."""
    fds: list[int] = []
    try:
        fds.append(os.pidfd_open(pid))
        fds.append(os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC))
        proc = read_proc(pid)
        if proc is not None and not proc.dead and same(proc, fds[0]):
            return fds[0], fds[1]
    except (ProcessLookupError, FileNotFoundError):
        pass
    except OSError:
        _close(fds)
        raise
    _close(fds)
    return None


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def make_room(bots: int) -> None:
    """Let so many be waited for at one time, as far as this machine allows; what is started by us has the same limit,
    so that a small fleet's stays as it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FDS * bots + SPARE
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most and soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
