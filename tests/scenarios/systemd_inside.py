"""What only a system's systemd can do, on a real one: run by tests/contract/test_systemd_inside.py, inside of a box."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from botkeep.runtimes import RUNTIMES
from botkeep.runtimes.procs import ProcessTable
from support.bots import DEADLINE, Lab, wait_for
from support.systemd_box import box
from support.systemd_rig import Services

EATING = "held = [bytearray(b'x' * 1_000_000) for _ in iter(int, 1)]"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Services]:
    with Lab(tmp_path) as lab:
        services = Services(lab, box())
        yield services
        services.close()


def test_a_bot_that_reached_its_memory_limit_is_known_to_have_been_killed(made: Services) -> None:
    """By the kernel; that it was for lack of memory, systemd only sees with the newer kind of control groups."""
    runtime = RUNTIMES["systemd"]
    target = made.bot(command=[sys.executable, "-c", EATING], MemoryMax="64M", MemorySwapMax=0)
    started = runtime.start(target, "e1", time.monotonic() + DEADLINE)
    assert started.instance
    seen = wait_for(lambda: None if (found := runtime.look(target, ProcessTable.read())).instances else found.exit)
    assert (seen.key, seen.signal) == (started.instance.key, signal.SIGKILL)
    assert seen.out_of_memory is (None if Path("/sys/fs/cgroup/unified").exists() else True)
