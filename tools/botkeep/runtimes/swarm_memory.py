"""The runtime of a swarm's services: remembers how a run ended that botkeep itself told to end.

A swarm forgets a task, and its node removes the container, within a second or two after the service was scaled down.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from botkeep.durable import read_json, write_atomic
from botkeep.model import Exit, RuntimeLook, iso, parse_iso

from . import swarm_control, swarm_log
from .base import Stopped, Target
from .engine import KILL_SECONDS, EngineRuntime, Unit
from .procs import ProcessTable
from .swarm_units import Task

FILE = "swarm-exit.json"
ASKED_AFTER = 3.5
"""Seconds that a node lets pass between the order to end a task and SIGTERM, and a little more: 3.0 s with the engine
20.10, as measured; 2 s in older ones, by their source."""


class ServiceRuntime(EngineRuntime):
    """A `Runtime` of a swarm's services."""

    KEEPS_KEYS = True
    """A start needs no env file: the swarm has the bot's keys as secrets."""

    def stop(self, target: Target, grace: float, deadline: float) -> Stopped:
        """As `EngineRuntime.stop`; and what does not run is not to be started by the swarm either, when a node comes
        back or a place is found. How the newest run ended is kept: the swarm forgets it."""
        try:
            stopped = super().stop(target, grace, deadline)
            first = next((one for one in self._units(target) if isinstance(one, Task)), None)
        finally:
            swarm_log.forget([one for one in self.known.get(target.name, ()) if isinstance(one, Task)])
        if first is not None and not first.is_scaled_down:
            _keep(target, first)
            swarm_control.scale_down(target.config, deadline)
            if any(one.state is not None for one in self._units(target)):  # the swarm started one meanwhile
                stopped = super().stop(target, grace, deadline)
        return replace(stopped, left=(*stopped.left, *first.lost)) if first is not None and first.lost else stopped

    def grace(self, target: Target) -> float:
        """The bot's own, and the time for which its node only takes it out of the network."""
        return super().grace(target) + ASKED_AFTER

    def _stop_units(self, target: Target, units: Sequence[Unit], grace: float, deadline: float) -> None:
        """Copies side by side. What they say to the end is heard; how they ended is written down at once."""
        seconds = max(1.0, deadline - KILL_SECONDS - time.monotonic())
        self.log(target)
        tasks = [one for one in units if isinstance(one, Task)]
        with swarm_log.listening(target.config, tasks, seconds + 1.0):
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(max(1, len(tasks))) as pool:
                jobs = [pool.submit(swarm_control.stop, target.config, one, grace, seconds) for one in tasks]
                ended = [one for job in jobs if (one := job.result()) is not None]
        if ended:
            _keep(target, max(ended, key=lambda one: one.run))

    def _units_left(self, target: Target) -> tuple[Unit, ...]:
        before = [one for one in self.known[target.name] if isinstance(one, Task) and one.state and one.service]
        after = super()._units_left(target)
        if any(one.state is not None for one in after) or not before:
            return after
        last = max(before, key=lambda one: one.run)  # the unit whose last words are read now
        merged = tuple(_with_exit(target, one) for one in after)
        following = (replace(last, state=None, pid=None, exit=merged[0].exit if merged else None),)
        self.known[target.name] = following
        return following

    def _told(self, target: Target, units: tuple[Unit, ...], table: ProcessTable) -> RuntimeLook:
        units = tuple(_with_exit(target, one) for one in units[:1]) + units[1:]
        seen = super()._told(target, units, table)
        notes = tuple(_about_a_stop(seen, units, target.name))
        return replace(seen, notes=(*seen.notes, *notes)) if notes else seen


def _about_a_stop(seen: RuntimeLook, units: Sequence[Unit], name: str) -> Iterator[str]:
    """A person who scales it down does not say so to botkeep, which keeps it up."""
    down = any(isinstance(one, Task) and one.is_scaled_down for one in units)
    if down and not seen.instances and (seen.exit is None or not seen.exit.asked) and not seen.giving_up:
        yield (
            f"Its service is scaled to 0, and botkeep did not do that: `botkeep stop {name}` says that it is to stay "
            "down."
        )


# ---------------------------------------------------------------------------------------------------- records


def _path(target: Target) -> Path:
    return target.run_dir / FILE


def _keep(target: Target, ended: Task) -> None:
    if ended.exit is None:
        return
    kept = {**asdict(ended.exit), "at": iso(ended.exit.at) if ended.exit.at else None}
    with suppress(OSError):  # a full disk costs the exit code, not the stop
        target.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(_path(target), json.dumps({"run": ended.exit.key, "exit": kept}).encode())


def _kept(target: Target) -> tuple[str, Exit] | None:
    raw: Any = read_json(_path(target))
    try:
        kept = raw["exit"]
        return str(raw["run"]), Exit(**{**kept, "at": parse_iso(kept["at"]) if kept["at"] else None})
    except (LookupError, TypeError, ValueError):
        return None


def _with_exit(target: Target, unit: Unit) -> Unit:
    """With how its newest run ended, if that is one that the swarm has forgotten."""
    kept = _kept(target)
    if kept is None or (unit.exit is not None and unit.exit.key > kept[0]):
        return unit
    if isinstance(unit, Task) and unit.state is None and kept[0] > unit.run:
        unit = replace(unit, run=kept[0], began=None, past=())  # what it said was heard when it was stopped
    return replace(unit, exit=kept[1])
