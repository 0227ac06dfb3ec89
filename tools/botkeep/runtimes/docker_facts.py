"""What an engine of Docker's kind says of containers, taken out of its JSON and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

RENAMED = re.compile(r"([0-9a-f]{12})_(.+)")
PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
_NAMED_BY_ENGINE = re.compile(r"[0-9a-f]{64}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")


def nanoseconds(text: str) -> int | None:
    """Since 1970, of a time as the engine writes it; None for none, which it writes as year one."""
    found = _TIME.fullmatch(text)
    if found is None or text.startswith(("0001-", "9999-")):  # the latter may be year 10000 of UTC
        return None
    try:
        seconds = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00")) - _EPOCH
    except (ValueError, OverflowError):  # a month that is none
        return None
    return (seconds.days * 86400 + seconds.seconds) * 10**9 + int((found[2] or "").ljust(9, "0"))


def moment(text: str) -> datetime | None:
    """The same as a datetime, to the microsecond."""
    count = nanoseconds(text)
    return None if count is None else datetime.fromtimestamp(count // 1000 / 10**6, UTC)


def or_empty(value: Any) -> Any:
    """Where an engine says null for an object that has nothing in it."""
    return {} if value is None else value


def or_none_listed(value: Any) -> Any:
    """The same for a list."""
    return [] if value is None else value


class Said(BaseModel):
    """A part of an answer. What else stands in it does not matter; what is missing or of another kind is an error."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class Mounted(Said):
    """A folder or volume that a container has."""

    type: str = Field("", alias="Type")
    name: str = Field("", alias="Name")
    source: str = Field("", alias="Source")
    target: str = Field("", alias="Destination")
    writable: bool = Field(False, alias="RW")


class Listed(Said):
    """A container in the engine's list."""

    id: str = Field(alias="Id", pattern=r"^[0-9a-f]{64}$")
    all_names: Annotated[list[str], BeforeValidator(or_none_listed)] = Field([], alias="Names")
    image: str = Field("", alias="Image")
    command: str = Field("", alias="Command")
    created: int = Field(0, alias="Created")
    labels: Annotated[dict[str, str], BeforeValidator(or_empty)] = Field({}, alias="Labels")
    state: str = Field(alias="State")
    status: str = Field("", alias="Status")
    mounts: Annotated[list[Mounted], BeforeValidator(or_none_listed)] = Field([], alias="Mounts")

    @cached_property
    def name(self) -> str:
        """Its own; `/other/alias` is what a linked container calls it."""
        own = [one[1:] for one in self.all_names if one.startswith("/") and one.count("/") == 1]
        return own[0] if own else self.id[:12]

    @property
    def lives(self) -> bool:
        """Whether it runs, is paused, or is about to be started again."""
        return self.state in ("running", "paused", "restarting")

    @property
    def folders(self) -> set[tuple[str, str]]:
        """What it has, and where."""
        return {(one.name if one.type == "volume" else one.source, one.target) for one in self.mounts}

    @property
    def lasting(self) -> set[tuple[str, str]]:
        """The same without volumes that the engine named itself, for this container alone."""
        return {(place, target) for place, target in self.folders if not _NAMED_BY_ENGINE.fullmatch(place)}

    @property
    def written(self) -> frozenset[str]:
        """Places of the machine that it can write to."""
        return frozenset(one.source for one in self.mounts if one.writable and one.source)

    @property
    def is_unhealthy(self) -> bool:
        """Says its own health check."""
        return "(unhealthy)" in self.status

    @property
    def is_healthy(self) -> bool:
        """Says its own health check."""
        return "(healthy)" in self.status


class Probe(Said):
    """One run of a container's health check."""

    exit_code: int = Field(0, alias="ExitCode")
    output: str = Field("", alias="Output")


class Health(Said):
    """What the health check says."""

    status: str = Field("", alias="Status")
    streak: int = Field(0, alias="FailingStreak")
    log: Annotated[list[Probe], BeforeValidator(or_none_listed)] = Field([], alias="Log")


class State(Said):
    """How a container is."""

    status: str = Field(alias="Status")
    oom_killed: bool = Field(False, alias="OOMKilled")
    pid: int = Field(0, alias="Pid")
    exit_code: int = Field(0, alias="ExitCode")
    error: str = Field("", alias="Error")
    started: str = Field("", alias="StartedAt")
    finished: str = Field("", alias="FinishedAt")
    health: Health | None = Field(None, alias="Health")


class Policy(Said):
    """Whether the engine starts it again by itself."""

    name: str = Field("", alias="Name")
    most: int = Field(0, alias="MaximumRetryCount")


class LogConfig(Said):
    """Where its output goes."""

    type: str = Field("", alias="Type")
    options: Annotated[dict[str, str], BeforeValidator(or_empty)] = Field({}, alias="Config")


class HostConfig(Said):
    """How the engine treats it."""

    policy: Policy = Field(Policy(), alias="RestartPolicy")
    log: LogConfig = Field(LogConfig(), alias="LogConfig")
    removed_at_end: bool = Field(False, alias="AutoRemove")
    memory: int = Field(0, alias="Memory")
    memory_and_swap: int = Field(0, alias="MemorySwap")


class Made(Said):
    """Of what it was made."""

    tty: bool = Field(False, alias="Tty")
    image: str = Field("", alias="Image")


class Inspected(Said):
    """All about one container."""

    id: str = Field(alias="Id", pattern=r"^[0-9a-f]{64}$")
    created: str = Field("", alias="Created")
    state: State = Field(alias="State")
    restarts: int = Field(0, alias="RestartCount")
    log_path: str = Field("", alias="LogPath")
    made: Made = Field(Made(), alias="Config")
    host: HostConfig = Field(HostConfig(), alias="HostConfig")


class Containers:
    """Everything in an engine's list, to be found by what bots are configured as: a hundred of them in one pass."""

    def __init__(self, everything: Iterable[Listed]) -> None:
        self.all = tuple(everything)

    @classmethod
    def of(cls, answer: Any) -> Containers:
        """Raises ValueError (pydantic's) or TypeError if it is no such list."""
        if not isinstance(answer, list):
            raise TypeError("a list of containers is a JSON array")
        return cls(Listed.model_validate(one) for one in answer)

    @cached_property
    def names(self) -> list[str]:
        """For a sentence about one that is not there."""
        return sorted(self.by_name)

    @cached_property
    def by_name(self) -> dict[str, Listed]:
        """Each has one name of its own, and no two have the same."""
        return {one.name: one for one in self.all}

    @cached_property
    def renamed(self) -> dict[str, list[Listed]]:
        """By the name that they had: Compose puts an id before it for the time in which it makes one anew, that of
        the container itself, or (from 2.0 on) of the one before."""
        found: dict[str, list[Listed]] = {}
        for one in self.all:
            part = RENAMED.fullmatch(one.name)
            if part and (one.id.startswith(part[1]) or PROJECT in one.labels):
                found.setdefault(part[2], []).append(one)
        return found

    @cached_property
    def services(self) -> dict[str, dict[str, list[Listed]]]:
        """Project -> service -> containers, by Compose's labels."""
        found: dict[str, dict[str, list[Listed]]] = {}
        for one in self.all:
            if project := one.labels.get(PROJECT):
                found.setdefault(project, {}).setdefault(one.labels.get(SERVICE, ""), []).append(one)
        return found

    def by_id(self, start: str) -> list[Listed]:
        """Those whose id begins so."""
        return [one for one in self.all if one.id.startswith(start)]
