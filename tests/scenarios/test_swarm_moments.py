"""A swarm, its engine and the process table are asked one after another: what each says is of another moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from botkeep.model import InstanceState
from botkeep.runtimes import Target, docker_transport, swarm
from botkeep.runtimes.engine import EngineRuntime, Unit
from botkeep.runtimes.procs import ProcessTable
from botkeep.runtimes.swarm_units import Task
from support.bots import Lab, pid_of, wait_for
from support.engine_bot import look, start
from support.swarm_rig import LABEL, SECOND, SwarmServices


@pytest.fixture
def made(tmp_path: Path) -> Iterator[SwarmServices]:
    with Lab(tmp_path) as lab:
        services = SwarmServices(lab)
        yield services
        services.close()
    docker_transport.hang_up()


def told(target: Target) -> tuple[Task, ...]:
    found = swarm.units({target.name: target.config}, 8.0)[target.name]
    assert isinstance(found, tuple), found
    return found


@dataclass
class Earlier:
    """The swarm, as it was when these units were told."""

    units_then: tuple[Unit, ...]
    KIND: str = swarm.KIND
    Config: type[BaseModel] = swarm.Config

    def units(self, configs: Mapping[str, Any], seconds: float) -> Mapping[str, tuple[Unit, ...]]:
        del seconds
        return dict.fromkeys(configs, self.units_then)

    start = staticmethod(swarm.start)
    stop = staticmethod(swarm.stop)
    read_log = staticmethod(swarm.read_log)


def test_a_process_that_lives_before_the_swarm_has_told_of_it_is_no_copy(made: SwarmServices) -> None:
    target = made.bot("--graceful", policy={"Condition": "any", "Delay": SECOND})
    first = start(target)
    os.kill(pid_of(first), signal.SIGKILL)
    coming: list[tuple[Task, ...]] = []

    def replaced() -> bool:
        is_made = len(made.client.containers(all=True, filters={"label": f"{LABEL}={made.lab.token}"})) > 1
        units = told(target)
        (one,) = units
        if is_made and one.run != first.key and one.state is InstanceState.STARTING and one.pid is None:
            coming.append(units)
        return one.run != first.key and one.pid is not None

    wait_for(replaced)
    pid = wait_for(lambda: look(target).instances[0].pid)
    table = ProcessTable.read()
    assert pid in table.procs
    for units in coming:
        (seen,) = EngineRuntime(Earlier(units)).look(target, table).instances
        assert seen.kept_by == "swarm"
    assert coming, "the next task's container was never seen before its process was"


def test_a_copy_outside_of_the_swarm_is_one_also_while_the_next_task_comes_up(made: SwarmServices) -> None:
    target = made.bot("--graceful", policy={"Condition": "any", "Delay": 2 * SECOND})
    first = start(target)
    os.kill(pid_of(first), signal.SIGKILL)
    wait_for(lambda: (one := told(target)[0]).run != first.key and one.state is InstanceState.STARTING)
    copy = made.lab.by_hand(*made.command("--graceful"))
    seen = wait_for(lambda: found if len((found := look(target)).instances) == 2 else None)
    assert [one.pid for one in seen.instances if not one.kept_by] == [copy]
