"""Processes that are waited for: the kernel says at once when one ends, and never mistakes a reused pid for it."""

from __future__ import annotations

import os
import re
import select
from dataclasses import dataclass

from .runtimes.procs import boot_id, has_pidfs, read_proc

KEY = re.compile(r"([0-9a-f]{8}):(\d+):(\d+):(\d+)")
"""An instance's key, if it is a process of this machine: boot, pid, start time, inode of its pidfd."""


@dataclass(frozen=True)
class _Followed:
    bot: str
    key: str
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
        self._gone: set[str] = set()
        """Keys that were found gone: said once, then the bot's next look says what is true."""

    def follow(self, bot: str, key: str | None) -> bool:
        """Wait for the end of this instance. False: it has ended already, and nobody was told of that yet."""
        known = self._by_bot.get(bot)
        if known is not None and known.key == key:
            return True
        self.drop(bot)
        match = KEY.fullmatch(key or "")
        if match is None or match[1] != self._boot or key is None:
            return True  # nothing to wait for: it is down, or its engine says how it is
        fds = _opened(int(match[2]), int(match[3]), int(match[4]))
        if fds is None:
            told = key in self._gone
            self._gone = {key}
            return told
        followed = _Followed(bot, key, *fds)
        self._by_bot[bot] = self._by_fd[followed.fd] = followed
        self._poller.register(followed.fd, select.POLLIN)
        return True

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
    """A pidfd of exactly this process, and its state: opened first, then proven, so that no reused pid slips in."""
    fds: list[int] = []
    try:
        fds.append(os.pidfd_open(pid))
        fds.append(os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC))
        proc = read_proc(pid)
        same = proc is not None and not proc.dead and proc.start_ticks == ticks
        if same and (not inode or not has_pidfs() or os.fstat(fds[0]).st_ino == inode):
            return fds[0], fds[1]
    except OSError:
        pass
    for fd in fds:
        os.close(fd)
    return None
