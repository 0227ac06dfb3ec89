"""Ending processes: exactly these, each proven to be the one that was meant, and two empty scans as proof."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from botkeep.model import EngineError

from .procs import Proc, read_proc

EMPTY_SCANS = 2
SCAN_PAUSE = 0.05

Find = Callable[[], dict[int, Proc]]
"""A scan for what is to end: pid -> process."""


def signal_all(found: dict[int, Proc], *signals: int) -> None:
    """Signal exactly these: open the pidfd first, then look again, which closes the window for a reused pid."""
    for pid, proc in found.items():
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        except OSError as error:
            raise EngineError(f"pid {pid} cannot be signalled: {error.strerror}.") from error
        try:
            now = read_proc(pid)
            if now is not None and now.start_ticks == proc.start_ticks:
                for number in signals:
                    signal.pidfd_send_signal(fd, number)
        except (ProcessLookupError, PermissionError):
            continue  # gone already, or not ours to signal: the scan that follows says what is left
        finally:
            os.close(fd)


def wait_until_gone(find: Find, until: float) -> bool:
    """True after two scans in a row found nothing; False when it is `until`, a time.monotonic()."""
    empty = 0
    while empty < EMPTY_SCANS:
        found = find()
        empty = 0 if found else empty + 1
        if not found:
            time.sleep(SCAN_PAUSE)
        elif time.monotonic() >= until:
            return False
        else:
            wait_for_any(found, min(until - time.monotonic(), 1.0))
    return True


def wait_for_any(found: dict[int, Proc], seconds: float) -> None:
    """Sleep until one of these processes ends (a pidfd becomes readable, also for a zombie)."""
    fds = []
    for pid in found:
        with suppress(OSError):
            fds.append(os.pidfd_open(pid))
    try:
        poller = select.poll()
        for fd in fds:
            poller.register(fd, select.POLLIN)
        poller.poll(max(10, int(seconds * 1000)) if fds else 10)
    finally:
        for fd in fds:
            os.close(fd)


def kill(find: Find, deadline: float) -> bool:
    """SIGKILL until two scans are empty: a process may fork while it is being killed. False: the time was over."""
    while time.monotonic() < deadline:
        signal_all(find(), signal.SIGKILL)
        if wait_until_gone(find, min(deadline, time.monotonic() + 1.0)):
            return True
    return False


def describe(proc: Proc) -> str:
    """For a person who has to end it."""
    if os.geteuid() not in (proc.uid, 0):
        return f"pid {proc.pid} ({proc.comm}), which belongs to user {proc.uid},"
    state = " in uninterruptible sleep" if proc.state == "D" else ""
    return f"pid {proc.pid} ({proc.comm}){state}"
