"""What every profile gives. Adding one: a module with these names, its signature file, one line in `PROFILES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from botkeep.model import Instance, LogLook, ProgramLook

from .catalogue import Catalogue, Signature


@dataclass(frozen=True)
class Hints:
    """What may tell what kind of program a bot is, without asking anybody."""

    command: tuple[str, ...] = ()
    """Of its runtime; empty if there is none."""
    process_name: str = ""
    data_file: Path | None = None
    log_head: str = ""
    """The first 4 KiB of its log."""


@dataclass(frozen=True)
class Subject:
    """One bot as its profile needs it: no workspace, no policy."""

    bot: str
    now: datetime
    instances: tuple[Instance, ...] = ()
    log: LogLook | None = None
    """This look at its log."""
    command: tuple[str, ...] = ()
    cwd: Path | None = None
    data_file: Path | None = None
    log_file: Path | None = None
    zone: str = "UTC"
    """Of times in its log that name none."""
    settings: Any = None
    """The bot's `api` of bots.json (config.ApiConfig), or None."""
    secret: Callable[[str], str | None] = field(default=lambda _: None, repr=False)
    """Name of an environment variable -> its value, from botkeep's environment or the bot's env_file."""
    cursor: Mapping[str, Any] = field(default_factory=dict)
    """What `look` gave as `ProgramLook.cursor` the last time."""
    seconds: float = 3.0
    """For everything that is asked of the bot's API, together."""
    allowed_hosts: frozenset[str] = frozenset()


class Profile(Protocol):
    """What kind of program a bot is."""

    NAME: str
    GRAMMAR: str | None
    """How fills stand in its log: a key of replay.GRAMMARS; None: it writes none."""

    def catalogue(self) -> Catalogue:
        """What its log lines and exits mean. Read from its file once."""
        ...

    def signatures(self) -> Sequence[Signature]:
        """The signatures that can be used, the special ones before the general ones."""
        ...

    def recognise(self, hints: Hints) -> str | None:
        """Why a bot with these hints is such a program, as a clause; None if nothing says so."""
        ...

    def look(self, subject: Subject) -> ProgramLook:
        """What can be seen of the program beyond its process: state, main loop, heartbeat, positions. Never raises.

        Called after the log was read, for many bots side by side in threads. Asks the bot's API at most
        `subject.seconds`; changes nothing.
        """
        ...

    def hold_entries(self, subject: Subject) -> str | None:
        """Ask the bot to open no new positions, before it is stopped. None: done; else why it was not, a clause."""
        ...

    def resume_entries(self, subject: Subject) -> str | None:
        """Take `hold_entries` back. None: done; else why not."""
        ...

    def environment(self, state: str) -> Mapping[str, str]:
        """Variables with which a start comes up in `state` (paused, stopped) as a person left it; empty if none can."""
        ...

    def sign_of_life(self, subject: Subject, instance: Instance) -> bool | None:
        """Whether this very copy has said that it works since it was started; None: such programs never say so."""
        ...
