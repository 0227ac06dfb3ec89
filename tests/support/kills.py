"""Killing work at a chosen system call (strace), or at any moment; and letting a system call fail."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from support import forks
from support.bots import wait_for

CALLS = ("write", "fsync", "rename", "unlink", "mkdir", "fchmod", "ftruncate", "truncate", "chmod", "chown", "rmdir")
"""What changes files, as our Python does it."""

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None and not os.environ.get("CI"),
    reason="strace is not installed: killing at each system call is left to CI",
)


def injected(work: Callable[[], None], call: str, number: int, effect: str) -> int:
    """Run `work` in a child with `effect` (signal=SIGKILL, error=EIO) at the call of that number; its exit status."""
    pid = forks.start(lambda: (os.kill(os.getpid(), signal.SIGSTOP), work())[1])
    os.waitpid(pid, os.WUNTRACED)
    inject = f"inject={call}:{effect}:when={number}"
    command = ["strace", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", f"trace={call}", "-e", inject]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        wait_for(lambda: _is_traced(pid) or tracer.poll() is not None)
        assert tracer.poll() is None, tracer.stderr.read() if tracer.stderr else ""
        os.kill(pid, signal.SIGCONT)
        status = os.waitpid(pid, 0)[1]
        tracer.wait()
    return os.waitstatus_to_exitcode(status)


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def at_each_call(
    work: Callable[[], None],
    prepare: Callable[[], None] = lambda: None,
    calls: Iterable[str] = CALLS,
) -> Iterator[tuple[str, int]]:
    """Kill `work` at its first, second, ... system call of each kind that changes files; yields after each kill.

    `prepare` comes before each run, also before the last one of each kind, which is not killed.
    """
    for call in calls:
        number = 1
        prepare()
        while (status := injected(work, call, number, "signal=SIGKILL")) == -signal.SIGKILL:
            yield call, number
            number += 1
            prepare()
        assert status == 0, f"the run that was not killed at {call} failed"


def within(work: Callable[[], None], seconds: float) -> bool:
    """Kill `work` after that time if it has not ended; whether it was killed."""
    pid = forks.start(work)
    handle = os.pidfd_open(pid)
    try:
        if not select.select([handle], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    finally:
        os.close(handle)
