"""What was found out about containers and still holds while the same process lives: so that a look at a hundred
containers asks their engine one question, not a hundred and one.

The list names containers and says whether they run; everything else takes a question for each. But the end of a
container is the end of its main process: while the very process lives that was looked at (pid and start time, of this
boot), it is the same run, and nothing that belongs to a run has changed. What can change within one (the restart
policy, by `docker update`) is asked again after some minutes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from botkeep.durable import read_regular, write_atomic
from botkeep.model import EngineError, Exit, iso, parse_iso

from . import docker_control
from .base import Target
from .docker_facts import Inspected, Listed
from .engine import LOOK_SECONDS, EngineRuntime, Unit
from .procs import ProcessTable, cgroup_of, read_proc

FILE = "docker-runs.json"
"""Beside the bots' folders; none of these can have a name with a dot."""
LIMIT = 16 << 20
KNOWN_FOR = 600.0
"""Seconds."""


class RunMemory(docker_control.Memory):
    """Of the containers of one workspace, in one file; of use only for processes of this machine."""

    def __init__(self, folder: Path, table: ProcessTable) -> None:
        self.path = folder / FILE
        self.table = table
        self.known = self._read()
        self.changed = False

    def _read(self) -> dict[str, Any]:
        try:
            raw = json.loads(read_regular(self.path, LIMIT) or b"{}")
        except (OSError, ValueError):
            return {}
        return raw if isinstance(raw, dict) else {}

    def recall(self, one: Listed) -> tuple[Inspected, Exit | None] | None:
        """What is known of a container that runs, if its run is the one that it is known of."""
        if one.state != "running" or one.is_unhealthy:
            return None
        try:
            kept = self.known[one.id]
            proc = self.table.procs[kept["pid"]]
            same = (proc.start_ticks, self.table.boot, proc.dead) == (kept["ticks"], kept["boot"], False)
            if not same or not 0 <= time.time() - kept["at"] < KNOWN_FOR:
                return None
            return Inspected.model_validate(kept["seen"]), _exit(kept["exit"])
        except (LookupError, TypeError, ValueError):
            return None

    def keep(self, seen: Inspected, exit: Exit | None) -> None:  # noqa: A002 - the noun of the model
        """Of a container that runs here."""
        proc = read_proc(seen.state.pid)
        if proc is None or seen.state.status != "running" or seen.id not in cgroup_of(proc.pid):
            return
        self.known[seen.id] = {
            "pid": proc.pid,
            "ticks": proc.start_ticks,
            "boot": self.table.boot,
            "at": time.time(),
            "seen": seen.model_dump(by_alias=True, exclude={"state": {"health"}}),
            "exit": {**asdict(exit), "at": iso(exit.at) if exit.at else None} if exit else None,
        }
        self.changed = True

    def write(self) -> None:
        """For the next look, if there is anything new; without the containers that nobody has run for long."""
        if not self.changed:
            return
        now = time.time()
        fresh = {
            key: one for key, one in self.known.items() if isinstance(one, dict) and now - one.get("at", 0) < KNOWN_FOR
        }
        with suppress(OSError):  # a full disk costs questions, nothing else
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps(fresh).encode())


def _exit(kept: dict[str, Any] | None) -> Exit | None:
    return Exit(**{**kept, "at": parse_iso(kept["at"]) if kept["at"] else None}) if kept else None


class ContainerRuntime(EngineRuntime):
    """A `Runtime` of containers, which remembers from look to look what cannot have changed."""

    def ask(
        self, configs: Mapping[str, Any], targets: Sequence[Target], table: ProcessTable
    ) -> Mapping[str, tuple[Unit, ...] | EngineError]:
        """As `EngineRuntime.ask`. An action's look at its one bot does not come here: it asks the engine."""
        memory = RunMemory(targets[0].run_dir.parent, table)
        found = docker_control.units(configs, LOOK_SECONDS, memory)
        memory.write()
        return found
