"""What every runtime gives. Adding one: a module with these names, one line in `RUNTIMES`, one contract factory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from botkeep.model import EngineError, Exit, Instance, RuntimeLook

from .procs import Command, Kin, ProcessTable, program_key

LOG_BYTES = 10 << 20


@dataclass(frozen=True)
class Target:
    """One bot as a runtime needs it: no workspace, no policy."""

    name: str
    config: Any
    """The runtime's own `Config`, or None: the bot can be watched by its process name, not started."""
    process_name: str | None
    home: Path
    run_dir: Path
    log_path: Path
    names_are_shared: bool = False
    """Several bots have this process name, so only the command tells them apart."""
    rivals: Mapping[tuple[str, ...], tuple[Command, ...]] = field(default_factory=dict)
    """From `rivals`: a process that runs another bot's command is not this bot, whatever it is called."""
    data_file: Path | None = None
    """What only this bot writes."""
    kin: Kin | None = None
    """Which command lines are of the same kind of program as the bot; None: its kind is not known."""
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    """From env_file and env; loaded just before a start, never shown."""
    table: ProcessTable | None = field(default=None, repr=False)
    """The processes of this very moment, where the caller of a start has just read them: its first scan."""
    log_bytes: int = LOG_BYTES
    """Size from which the bot's output is rotated."""


def rivals(commands: Iterable[Command]) -> dict[tuple[str, ...], tuple[Command, ...]]:
    """The commands of all bots, this one's too, by `program_key`: made once, shared by all targets."""
    found: dict[tuple[str, ...], tuple[Command, ...]] = {}
    for command in commands:
        key = program_key(command.argv)
        found[key] = (*found.get(key, ()), command)
    return found


@dataclass(frozen=True)
class Started:
    """A start that was made: the new instance, or how it ended at once."""

    instance: Instance | None
    exit: Exit | None
    generation: int


class StillAliveError(EngineError):
    """Nothing was started, since something of the bot is alive: a stop comes first."""


@dataclass(frozen=True)
class Stopped:
    """What stopping left. `left` empty: proven gone, by two empty scans and a free lock."""

    stopped: tuple[Instance, ...]
    left: tuple[str, ...] = ()
    killed: bool = False
    """Some did not end by SIGTERM in time."""


class Runtime(Protocol):
    """One engine that runs bots. Each function may raise EngineError; none may start a second instance."""

    @property
    def KIND(self) -> str:  # noqa: N802
        """The `kind` of bots.json."""
        ...

    @property
    def Config(self) -> type[BaseModel]:  # noqa: N802
        """What bots.json says about a bot of this kind."""
        ...

    def survey(self, targets: Sequence[Target], table: ProcessTable) -> dict[str, RuntimeLook]:
        """Many bots at one moment, by name, with one question to the engine. Never raises: `error` says what failed."""
        ...

    def look(self, target: Target, table: ProcessTable) -> RuntimeLook:
        """Live instances and the last exit. Changes nothing."""
        ...

    def stop(self, target: Target, grace: float, deadline: float) -> Stopped:
        """Ask, wait `grace` seconds, kill, prove. `deadline`: a time.monotonic() by which to have given up."""
        ...

    def start(self, target: Target, entry: str, deadline: float) -> Started:
        """Start one, bound to the ledger entry. Raises EngineError if anything of the bot still lives."""
        ...

    def log(self, target: Target) -> Path | None:
        """The file with the bot's output, brought up to date; it may not exist yet. None: there is none."""
        ...

    def run_offset(self, target: Target) -> int | None:
        """Where in that file the newest run began, in bytes; None: the runtime does not know."""
        ...

    def logs(self, target: Target) -> tuple[Path, ...]:
        """The files the bot's output goes to, the newest first."""
        ...

    def grace(self, target: Target) -> float:
        """Seconds between asking and killing."""
        ...
