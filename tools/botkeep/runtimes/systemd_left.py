"""The runtime of systemd's services: what lives in a service's control group is its, whatever systemd calls the unit.

With KillMode=process a stop leaves children behind, and systemd calls the unit inactive: they are the bot all the same,
and a start beside them would make two.
"""

from __future__ import annotations

from dataclasses import replace

from botkeep.model import InstanceState, RuntimeLook

from .base import Target
from .engine import EngineRuntime, Unit
from .procs import Proc, ProcessTable, read_proc


class ServiceRuntime(EngineRuntime):
    """A `Runtime` of systemd's services."""

    def _told(self, target: Target, units: tuple[Unit, ...], table: ProcessTable) -> RuntimeLook:
        return super()._told(target, tuple(_with_what_is_left(one, table) for one in units), table)


def _with_what_is_left(unit: Unit, table: ProcessTable) -> Unit:
    """A unit that does not run and has living processes in its control group runs."""
    if unit.state is not None:
        return unit
    found = (table.procs[pid] for pid in table.in_cgroup(unit.cgroup) if pid not in table.own_line)
    left = [proc for proc in found if _lives_on(proc)]
    if not left:
        return unit
    eldest = min(left, key=lambda proc: proc.start_ticks)
    return replace(
        unit,
        run=f"{unit.run}/left",
        state=InstanceState.RUNNING,
        pid=eldest.pid,
        started_at=table.started_at(eldest),
        notes=(*unit.notes, "systemd calls it ended, and processes of it live on: a stop ends them."),
    )


def _lives_on(proc: Proc) -> bool:
    """Whether it is still there, now that systemd has answered."""
    now = read_proc(proc.pid)
    return now is not None and not now.dead and now.start_ticks == proc.start_ticks
