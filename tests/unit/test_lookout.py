"""Who is waited for: real processes that end, freeze and are mistaken for others, and descriptors that run out."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from botkeep.lookout import FDS, SPARE, Lookout
from botkeep.model import utc_now
from support.fleet import wait_for


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.fixture
def poller() -> select.poll:
    return select.poll()


@pytest.fixture
def lookout(poller: select.poll) -> Iterator[Lookout]:
    made = Lookout(poller)
    yield made
    made.close()


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def follow(lookout: Lookout, pid: int | None, run: str = "one", **ago: float) -> int:
    """As a run of an engine, seen so long ago."""
    return lookout.follow("doge", run, pid, utc_now() - timedelta(**ago), exact=False)


def test_the_end_of_a_process_is_told_once_and_then_it_is_found_gone_again_and_again(
    lookout: Lookout, poller: select.poll, sleeper: subprocess.Popen[bytes]
) -> None:
    assert follow(lookout, sleeper.pid) == 0
    assert poller.poll(0) == []
    sleeper.kill()
    ((fd, _),) = poller.poll(5000)
    assert (lookout.ended(fd), lookout.bots) == ("doge", frozenset())
    sleeper.wait()
    assert [follow(lookout, sleeper.pid) for _ in range(3)] == [1, 2, 3]
    assert follow(lookout, sleeper.pid, "two") == 1


def test_a_process_that_began_after_it_was_seen_is_somebody_else_with_its_pid(
    lookout: Lookout, sleeper: subprocess.Popen[bytes]
) -> None:
    assert follow(lookout, sleeper.pid, seconds=3600) == 1
    assert lookout.bots == frozenset()
    assert follow(lookout, sleeper.pid) == 0


def test_a_process_that_is_stopped_by_a_signal_is_told_once_for_each_time(
    lookout: Lookout, sleeper: subprocess.Popen[bytes]
) -> None:
    follow(lookout, sleeper.pid)
    for _ in range(2):
        os.kill(sleeper.pid, signal.SIGSTOP)
        assert wait_for(lookout.frozen) == ["doge"]
        assert lookout.frozen() == []
        os.kill(sleeper.pid, signal.SIGCONT)
        wait_for(lambda: not lookout.frozen() and not lookout._frozen)


def test_a_bot_for_which_no_descriptor_is_left_is_no_bot_that_ended(
    lookout: Lookout, sleeper: subprocess.Popen[bytes], limits: tuple[int, int]
) -> None:
    follow(lookout, None)
    highest = max(int(one) for one in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    try:
        assert follow(lookout, sleeper.pid) == 0
        assert lookout.problem == "The end of doge cannot be waited for: Too many open files."
    finally:
        for fd in taken:
            os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert follow(lookout, sleeper.pid) == 0
    assert (lookout.problem, lookout.bots) == ("", frozenset({"doge"}))


def test_a_large_fleet_gets_its_descriptors_and_a_small_ones_limit_stays_as_it_is() -> None:
    code = (
        "import resource, sys; from botkeep.lookout import make_room\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (300, 1000))\n"
        "for bots in map(int, sys.argv[1:]):\n"
        "    make_room(bots); print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    words = [sys.executable, "-c", code, "5", "100", "10000"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["300 1000", f"{FDS * 100 + SPARE} 1000", "1000 1000"]
