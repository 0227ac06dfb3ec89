"""What a swarm takes to replace a task, and botkeep to restart one; and what a look at many services costs.

On the tests' own engine, made a swarm of one node. Where there is none, no figure is taken.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # for tests.support

import pytest
from tests.support.bots import DEADLINE, Lab, pid_of
from tests.support.docker_engine import BUSYBOX
from tests.support.swarm_rig import SECOND, SwarmServices

from botkeep.runtimes import RUNTIMES, Target
from botkeep.runtimes.procs import ProcessTable
from support import said

RUNS = 5
MANY = 30
SWARM = RUNTIMES["swarm"]
POLITE = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]


def until(condition: Callable[[], object]) -> None:
    """Poll until it is true."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            sys.exit("waited in vain")
        time.sleep(0.005)


def start(target: Target) -> int:
    """Its pid."""
    return pid_of(SWARM.start(target, "bench", time.monotonic() + DEADLINE).instance)


def replaced(made: SwarmServices, delay: float) -> float:
    """Seconds from kill -9 to the next task's process, by the swarm itself."""
    target = made.bot(command=POLITE, image=BUSYBOX, policy={"Condition": "any", "Delay": int(delay * SECOND)})
    start(target)
    times = []
    for _ in range(RUNS):
        pid = made.pid(target)
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        until(
            lambda pid=pid: any(one["Status"]["ContainerStatus"]["PID"] not in (0, pid) for one in made.running(target))
        )
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def restarted(made: SwarmServices) -> tuple[float, float]:
    """Seconds of a stop that is proven, and of the start after it."""
    target = made.bot(command=POLITE, image=BUSYBOX)
    stops, starts = [], []
    for _ in range(RUNS):
        began = time.perf_counter()
        start(target)
        starts.append(time.perf_counter() - began)
        began = time.perf_counter()
        left = SWARM.stop(target, SWARM.grace(target), time.monotonic() + DEADLINE).left
        stops.append(time.perf_counter() - began)
        if left:
            sys.exit(f"left: {left}")
    return statistics.median(stops), statistics.median(starts)


def looked(made: SwarmServices) -> tuple[float, float]:
    """Seconds of a look at many services, and of the engine's answers to the same questions."""
    bots = [made.bot(command=POLITE, image=BUSYBOX, name=f"b{number}") for number in range(MANY)]
    for one in bots:
        made.scale(one, 1)
    for one in bots:
        made.pid(one)
    ours, theirs = [], []
    for _ in range(RUNS):
        table = ProcessTable.read()
        began = time.perf_counter()
        SWARM.survey(bots, table)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        made.client.info()
        made.client.services()
        made.client.tasks()
        made.client.containers(all=True)
        theirs.append(time.perf_counter() - began)
    return statistics.median(ours), statistics.median(theirs)


def main() -> None:
    """Print the figures."""
    with Lab(Path(tempfile.mkdtemp())) as lab:
        try:
            made = SwarmServices(lab)
        except pytest.skip.Exception as why:
            print(f"no swarm: {why}")
            return
        held = []
        try:
            for delay, bound in ((0.0, 2.0), (5.0, 7.0)):
                took = replaced(made, delay)
                held.append(said(f"killed task replaced by the swarm, delay {delay:.0f} s", f"{took:.2f} s",
                                 f"{bound} s", held=took < bound))  # fmt: skip
            stop, begin = restarted(made)
            held.append(said("stop, proven", f"{stop:.2f} s", "8 s", held=stop < 8))
            held.append(said("start, with a process", f"{begin:.2f} s", "3 s", held=begin < 3))
            ours, theirs = looked(made)
            figure = f"{ours * 1000:.0f} ms, {ours / theirs:.1f} times the engine's own answers"
            held.append(said(f"look at {MANY} services", figure, "4 times", held=ours < 4 * theirs))
        finally:
            made.close()
        if not all(held):
            sys.exit(1)


if __name__ == "__main__":
    main()
