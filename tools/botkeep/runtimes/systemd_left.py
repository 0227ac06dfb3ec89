"""The runtime of systemd's services: what lives in a service's control group is its, whatever systemd calls the unit.

With KillMode=process a stop leaves children behind, and systemd calls the unit inactive: they are the bot all the same,
and a start beside them would make two. And of a service that forks, systemd may know no main process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from botkeep.model import InstanceState, RuntimeLook

from .base import Target
from .engine import EngineRuntime, Unit
from .procs import Proc, ProcessTable, cgroup_of, lives_on


class ServiceRuntime(EngineRuntime):
    """A `Runtime` of systemd's services."""

    def _told(self, target: Target, units: tuple[Unit, ...], table: ProcessTable) -> RuntimeLook:
        return super()._told(target, tuple(_with_its_processes(one, table) for one in units), table)


def _with_its_processes(unit: Unit, table: ProcessTable) -> Unit:
    """A unit and what lives in its control group; one that does not run and has living processes there runs."""
    if unit.pid is not None:
        return replace(unit, cgroup=_anchored(unit.cgroup, cgroup_of(unit.pid)))
    eldest = min(_in_its_group(unit, table), key=lambda proc: proc.start_ticks, default=None)
    if eldest is None:
        return unit
    found = replace(unit, pid=eldest.pid, cgroup=_anchored(unit.cgroup, cgroup_of(eldest.pid)))
    if unit.state is not None:
        return found
    return replace(
        found,
        run=f"{unit.run}/left",
        state=InstanceState.RUNNING,
        started_at=table.started_at(eldest),
        notes=(*unit.notes, "systemd calls it ended, and processes of it live on: a stop ends them."),
    )


def _in_its_group(unit: Unit, table: ProcessTable) -> Iterator[Proc]:
    for pid in table.in_cgroup(unit.cgroup):
        if pid not in table.own_line and _is_of_this_machine(unit, pid) and lives_on(table.procs[pid]):
            yield table.procs[pid]


def _anchored(group: str, paths: str) -> str:
    """The same with all that is above it: a container may have a systemd of its own, with a service of this name."""
    line = next((one for one in paths.splitlines() if f"{group}/" in f"{one}/"), "")
    above, _, _ = line.partition(":")[2].partition(":")[2].partition(group)
    return f":{above}{group}" if line else group


def _is_of_this_machine(unit: Unit, pid: int) -> bool:
    """Whether it is in no container: in this very control group, or numbered as we are."""
    if any(f":{unit.cgroup}/" in f"{line}/" for line in cgroup_of(pid).splitlines()):
        return True
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False
