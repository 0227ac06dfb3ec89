"""What supervisord says about its programs, as far as it is used; anything else in its place is refused."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from enum import IntEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

_THEIRS = ConfigDict(extra="ignore", frozen=True)


class State(IntEnum):
    """The eight states of a program."""

    STOPPED = 0
    STARTING = 10
    RUNNING = 20
    BACKOFF = 30
    STOPPING = 40
    EXITED = 100
    FATAL = 200
    UNKNOWN = 1000


Name = Annotated[str, Field(min_length=1, max_length=300)]
Second = Annotated[int, Field(ge=0, lt=1 << 37)]
"""No year that a calendar does not have."""


class Program(BaseModel):
    """One program at one moment. Times in seconds since 1970; 0: never."""

    model_config = _THEIRS

    name: Name
    group: Name
    state: State
    pid: int = Field(ge=0, lt=1 << 31)
    start: Second
    """Of its newest run, or of the newest attempt."""
    stop: Second
    """Of the newest run that ended."""
    now: Second
    exitstatus: int = Field(ge=-(1 << 31), lt=1 << 31)
    """-1: a signal. 0 also stands for one that nobody knows any more."""
    spawnerr: str
    """Why it could not be started, or that it ended too quickly."""
    stdout_logfile: str
    stderr_logfile: str

    @property
    def spec(self) -> str:
        """How supervisord is asked for it: never the whole group."""
        return f"{self.group}:{self.name}"


def _none(value: object) -> object:
    return "" if value in ("none", "auto") else value


class Settings(BaseModel):
    """What the configuration says about a program; the interface has neither autorestart nor stopasgroup."""

    model_config = _THEIRS

    name: Name
    group: Name
    command: str
    directory: Annotated[str, BeforeValidator(_none)] = ""
    serverurl: Annotated[str, BeforeValidator(_none)] = ""
    killasgroup: bool
    startsecs: int
    stopwaitsecs: int

    @property
    def spec(self) -> str:
        """As `Program.spec`."""
        return f"{self.group}:{self.name}"

    @property
    def argv(self) -> tuple[str, ...]:
        """The command as a list, without the wrapper that `botkeep supervisord-config` puts before it."""
        try:
            words = tuple(shlex.split(self.command))
        except ValueError:
            return ()
        return words[words.index("--") + 1 :] if self.is_locked and "--" in words else words

    @property
    def is_locked(self) -> bool:
        """Whether it is started by the wrapper, which starts no second copy."""
        return f" {WRAPPER} " in self.command


WRAPPER = "botkeep.exec_env"
"""The module that `botkeep supervisord-config` has a program started by."""
LOCKED = 75
"""What the wrapper ends with when another copy lives."""

_PROGRAMS = TypeAdapter(list[Program])
_SETTINGS = TypeAdapter(list[Settings])


def programs_of(raw: Any) -> list[Program]:
    """From getAllProcessInfo. Raises ValueError."""
    return _PROGRAMS.validate_python(raw)


def settings_of(raw: Any) -> list[Settings]:
    """From getAllConfigInfo. Raises ValueError."""
    return _SETTINGS.validate_python(raw)


def names(programs: Iterable[Program]) -> list[str]:
    """As a person writes them."""
    return [one.name if one.group == one.name else one.spec for one in programs]
