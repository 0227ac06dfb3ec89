"""The runtime of supervisord's programs: remembers their settings from look to look, and does not fight another
supervisord that runs the same.

The list of programs says how each one is; which command it runs and how it is stopped takes a question that costs as
much as three lists, and the answer changes when a person edits the configuration.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from botkeep.durable import read_regular, write_atomic
from botkeep.model import EngineError, Instance, RuntimeLook

from . import supervisord
from .base import Started, Stopped, Target
from .engine import LOOK_SECONDS, EngineRuntime, Unit
from .procs import ProcessTable
from .supervisord_facts import Settings, settings_of
from .supervisord_rpc import Address
from .supervisord_units import Supervised

FILE = "supervisord-settings.json"
"""Beside the bots' folders; none of these can have a name with a dot."""
LIMIT = 16 << 20
KNOWN_FOR = 600.0
"""Seconds."""
STARTED_AGAIN = 2.5
"""Seconds in which a supervisord starts what ended under it."""
POLL_SECONDS = 0.1


class SettingsMemory(supervisord.Memory):
    """Of the servers of one workspace, in one file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.known = self._read()
        self.changed = False

    def _read(self) -> dict[str, Any]:
        try:
            raw = json.loads(read_regular(self.path, LIMIT) or b"{}")
        except (OSError, ValueError):
            return {}
        return raw if isinstance(raw, dict) else {}

    def recall(self, address: Address, pid: int | None = None, newest: int = 0) -> list[Settings] | None:
        """As they were a few minutes ago, unless another supervisord answers now, or has started something since."""
        try:
            kept = self.known[str(address)]
            fresh = 0 <= time.time() - kept["at"] < KNOWN_FOR and pid in (None, kept["pid"]) and newest < kept["at"]
            return settings_of(kept["settings"]) if fresh else None
        except (LookupError, TypeError, ValueError):
            return None

    def keep(self, address: Address, pid: int, settings: Sequence[Settings]) -> None:
        """For the next looks."""
        known = [one.model_dump() for one in settings]
        self.known[str(address)] = {"at": time.time(), "pid": pid, "settings": known}
        self.changed = True

    def write(self) -> None:
        """If there is anything new."""
        if not self.changed:
            return
        now = time.time()
        fresh = {key: one for key, one in self.known.items() if now - one["at"] < KNOWN_FOR}
        with suppress(OSError):  # a full disk costs questions, nothing else
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps(fresh).encode())


class ProgramRuntime(EngineRuntime):
    """A `Runtime` of supervisord's programs."""

    def ask(
        self, configs: Mapping[str, Any], targets: Sequence[Target], table: ProcessTable
    ) -> Mapping[str, tuple[Unit, ...] | EngineError]:
        """As `EngineRuntime.ask`. An action's look at its one bot does not come here: it asks for the settings too."""
        del table
        memory = SettingsMemory(targets[0].run_dir.parent)
        found = supervisord.units(configs, LOOK_SECONDS, memory)
        memory.write()
        return found

    # ------------------------------------------------------------------------------------------------ the login

    def meant(self, targets: Sequence[Target], table: ProcessTable) -> dict[str, Mapping[str, str]]:
        """As `EngineRuntime.meant`."""
        return super().meant([_placed(one) for one in targets], table)

    def survey(self, targets: Sequence[Target], table: ProcessTable) -> dict[str, RuntimeLook]:
        """As `EngineRuntime.survey`."""
        return super().survey([_placed(one) for one in targets], table)

    def look(self, target: Target, table: ProcessTable) -> RuntimeLook:
        """As `EngineRuntime.look`."""
        return super().look(_placed(target), table)

    def start(self, target: Target, entry: str, deadline: float) -> Started:
        """As `EngineRuntime.start`."""
        return super().start(_placed(target), entry, deadline)

    def log(self, target: Target) -> Path | None:
        """As `EngineRuntime.log`."""
        return super().log(_placed(target))

    # ------------------------------------------------------------------------------------------------ other keepers

    def stop(self, target: Target, grace: float, deadline: float) -> Stopped:
        """As `EngineRuntime.stop`. A copy that another supervisord starts anew whenever it ends is left: to end it
        again and again would end nothing, and a start beside it would make two."""
        table = ProcessTable.read()
        stopped = super().stop(_placed(target), grace, deadline)
        kept = [one for one in stopped.stopped if _keeper(one, table)]
        if not kept or stopped.left:
            return stopped
        until = min(deadline, time.monotonic() + STARTED_AGAIN)
        while time.monotonic() < until:
            table = ProcessTable.read()
            again = [one for one in self.look(target, table).instances if _keeper(one, table)]
            if again:
                return replace(stopped, left=tuple(_described(one, table) for one in again))
            time.sleep(POLL_SECONDS)
        return stopped

    def _told(self, target: Target, units: tuple[Unit, ...], table: ProcessTable) -> RuntimeLook:
        seen = super()._told(target, units, table)
        notes = (*_about_others(seen, table), *_about_a_stop(seen, units, target.name))
        return replace(seen, notes=(*seen.notes, *notes)) if notes else seen


def _placed(target: Target) -> Target:
    """With the path of the env file in which the login may stand."""
    config = target.config
    if config.env_file is None or not config.username_env:
        return target
    path = str(target.home / config.env_file)
    return replace(target, config=config.model_copy(update={"env_file": path}))


def _about_others(seen: RuntimeLook, table: ProcessTable) -> Iterator[str]:
    for one in seen.instances:
        keeper = _keeper(one, table)
        if keeper:
            yield (
                f"Another supervisord (pid {keeper}) runs a copy of it (pid {one.pid}). If its socket was removed or "
                f"taken over, nobody can reach it any more: `kill {keeper}` ends it with all its programs."
            )


def _about_a_stop(seen: RuntimeLook, units: Sequence[Unit], name: str) -> Iterator[str]:
    """A person who stops it there does not say so to botkeep, which keeps it up."""
    at = next((one.stopped_at for one in units if isinstance(one, Supervised) and one.stopped_at), None)
    if at is not None and not seen.instances and seen.exit is not None and not seen.exit.asked:
        yield (
            f"Somebody stopped it through supervisord at {at:%Y-%m-%d %H:%M:%SZ}, and botkeep starts it again: "
            f"`botkeep stop {name}` keeps it down."
        )


def _keeper(one: Instance, table: ProcessTable) -> int:
    """The living supervisord that runs this copy and is not the one that was asked; 0: nobody does."""
    proc = table.procs.get(one.pid or 0)
    parent = table.procs.get(proc.ppid) if proc and not one.kept_by else None
    return parent.pid if parent is not None and not parent.dead and supervisord.is_supervisord(parent) else 0


def _described(one: Instance, table: ProcessTable) -> str:
    return f"pid {one.pid}, which another supervisord (pid {_keeper(one, table)}) starts again whenever it ends,"
