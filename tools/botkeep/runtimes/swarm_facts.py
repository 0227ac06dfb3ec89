"""What a manager of a swarm says of services, tasks and nodes, taken out of its JSON and checked."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field

from .docker_facts import Said, moment, nanoseconds, or_empty, or_none_listed

OVER = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})
"""Of a task that has ended. Whatever else a state is called, something of it may live."""
ALIVE = frozenset({"starting", "running"})
"""Of a task that may have a process; before that it is only planned."""
WANTED = frozenset({"new", "pending", "allocated", "assigned", "accepted", "preparing", "ready", "starting", "running"})
"""What the swarm may want of a task that is not to be ended."""
ID = r"^[0-9a-z]{1,64}$"
_LONGEST = 1 << 63
"""Nanoseconds that an engine can say."""


Texts = Annotated[list[str], BeforeValidator(or_none_listed)]


Answer = TypeVar("Answer", bound=BaseModel)


class Mount(Said):
    """A folder or volume that a service's tasks get."""

    type: str = Field("", alias="Type")
    source: str = Field("", alias="Source")
    target: str = Field("", alias="Target")


class LogDriver(Said):
    """Where output goes; empty: where the node's engine puts it."""

    name: str = Field("", alias="Name")


class ContainerSpec(Said):
    """Of what a service's tasks are made."""

    image: str = Field("", alias="Image")
    command: Texts = Field([], alias="Command")
    args: Texts = Field([], alias="Args")
    folder: str = Field("", alias="Dir")
    tty: bool = Field(False, alias="TTY")
    mounts: Annotated[list[Mount], BeforeValidator(or_none_listed)] = Field([], alias="Mounts")
    stop_grace: int | None = Field(None, alias="StopGracePeriod", ge=0, le=_LONGEST)
    """Nanoseconds; None: ten seconds."""


class RestartPolicy(Said):
    """Whether the swarm starts it again by itself."""

    condition: str = Field("any", alias="Condition")
    delay: int = Field(5 * 10**9, alias="Delay", ge=0, le=_LONGEST)
    """Nanoseconds."""
    most: int = Field(0, alias="MaxAttempts")
    """0: as often as it takes."""

    def restarts(self, task: TaskSaid) -> bool:
        """Whether it starts what ended so."""
        return self.condition == "any" or (
            self.condition == "on-failure" and task.state not in ("complete", "shutdown")
        )


class Limits(Said):
    """What a task may use at most."""

    memory: int = Field(0, alias="MemoryBytes")


class Resources(Said):
    """What a task may use."""

    limits: Annotated[Limits, BeforeValidator(or_empty)] = Field(Limits(), alias="Limits")


class Template(Said):
    """How a service's tasks are made."""

    container: ContainerSpec = Field(ContainerSpec(), alias="ContainerSpec")
    policy: Annotated[RestartPolicy, BeforeValidator(or_empty)] = Field(RestartPolicy(), alias="RestartPolicy")
    log: Annotated[LogDriver, BeforeValidator(or_empty)] = Field(LogDriver(), alias="LogDriver")
    resources: Annotated[Resources, BeforeValidator(or_empty)] = Field(Resources(), alias="Resources")


class Replicated(Said):
    """A service of so many tasks."""

    replicas: int = Field(1, alias="Replicas")


class Mode(Said):
    """How many tasks a service has."""

    replicated: Replicated | None = Field(None, alias="Replicated")


class Order(Said):
    """Whether an update ends the old task first."""

    order: str = Field("stop-first", alias="Order")


class UpdateStatus(Said):
    """How the newest update of a service went."""

    state: str = Field("", alias="State")
    message: str = Field("", alias="Message")


class ServiceSpec(Said):
    """A service as somebody wrote it."""

    name: str = Field(alias="Name")
    template: Template = Field(alias="TaskTemplate")
    mode: Mode = Field(alias="Mode")
    update: Annotated[Order, BeforeValidator(or_empty)] = Field(Order(), alias="UpdateConfig")
    rollback: Annotated[Order, BeforeValidator(or_empty)] = Field(Order(), alias="RollbackConfig")


class Version(Said):
    """Which edition of something a change is for: the swarm refuses a change of an older one."""

    index: int = Field(alias="Index")


class Service(Said):
    """One service."""

    id: str = Field(alias="ID", pattern=ID)
    version: Version = Field(alias="Version")
    spec: ServiceSpec = Field(alias="Spec")
    update: Annotated[UpdateStatus, BeforeValidator(or_empty)] = Field(UpdateStatus(), alias="UpdateStatus")

    @property
    def name(self) -> str:
        """What people call it."""
        return self.spec.name

    @property
    def replicas(self) -> int | None:
        """How many tasks it is to have; None: one on each node, or a job."""
        return self.spec.mode.replicated.replicas if self.spec.mode.replicated else None


class ContainerStatus(Said):
    """The process of a task."""

    container: str = Field("", alias="ContainerID")
    pid: int = Field(0, alias="PID")
    code: int = Field(0, alias="ExitCode")
    """-1: it is being ended."""


class TaskStatus(Said):
    """How a task is."""

    at: str = Field("", alias="Timestamp")
    state: str = Field(alias="State")
    message: str = Field("", alias="Message")
    error: str = Field("", alias="Err")
    container: Annotated[ContainerStatus, BeforeValidator(or_empty)] = Field(ContainerStatus(), alias="ContainerStatus")


class TaskSaid(Said):
    """One task: one run of one replica, on one node."""

    id: str = Field(alias="ID", pattern=ID)
    service: str = Field("", alias="ServiceID")
    slot: int = Field(0, alias="Slot")
    node: str = Field("", alias="NodeID")
    made: str = Field("", alias="CreatedAt")
    wanted: str = Field("running", alias="DesiredState")
    status: TaskStatus = Field(alias="Status")
    spec: Annotated[dict[str, Any], BeforeValidator(or_empty)] = Field({}, alias="Spec")
    """Of what it was made: that of the task before, unless somebody changed the service."""

    @property
    def state(self) -> str:
        """Where it is on its way from new to its end."""
        return self.status.state

    @property
    def is_over(self) -> bool:
        """Whether it has ended, says the swarm."""
        return self.state in OVER

    @property
    def is_to_live(self) -> bool:
        """Whether the swarm does not want it ended."""
        return self.wanted in WANTED

    @property
    def container(self) -> str:
        """The id of its container; empty: it has none yet, or never had one."""
        return self.status.container.container

    @cached_property
    def made_at(self) -> datetime | None:
        """When the swarm planned it."""
        return moment(self.made)

    @cached_property
    def changed_at(self) -> datetime | None:
        """When it came to be as it is: since when it runs, or when it ended."""
        return moment(self.status.at)

    @property
    def run(self) -> str:
        """Names this run; of two, the newer one is the greater text."""
        return f"{nanoseconds(self.made) or 0:019d}/{self.id}"

    @property
    def lasted(self) -> timedelta:
        """From being planned to its end."""
        if self.made_at is None or self.changed_at is None:
            return timedelta(0)
        return self.changed_at - self.made_at


class NodeStatus(Said):
    """How a machine is."""

    state: str = Field("", alias="State")


class NodeDescription(Said):
    """What a machine says of itself."""

    hostname: str = Field("", alias="Hostname")


class Node(Said):
    """One machine of the swarm."""

    id: str = Field(alias="ID", pattern=ID)
    about: Annotated[NodeDescription, BeforeValidator(or_empty)] = Field(NodeDescription(), alias="Description")
    status: Annotated[NodeStatus, BeforeValidator(or_empty)] = Field(NodeStatus(), alias="Status")

    @property
    def is_lost(self) -> bool:
        """Whether the managers do not hear from it."""
        return self.status.state in ("down", "disconnected")


class OwnSwarm(Said):
    """What an engine says of the swarm that it is in."""

    state: str = Field("inactive", alias="LocalNodeState")
    node: str = Field("", alias="NodeID")
    is_manager: bool = Field(False, alias="ControlAvailable")
    error: str = Field("", alias="Error")


class EngineInfo(Said):
    """What an engine says of itself."""

    root: str = Field("", alias="DockerRootDir")
    driver: str = Field("", alias="LoggingDriver")
    swarm: Annotated[OwnSwarm, BeforeValidator(or_empty)] = Field(OwnSwarm(), alias="Swarm")


def each(kind: type[Answer], answer: Any) -> list[Answer]:
    """A list of them. Raises ValueError (pydantic's) or TypeError if it is no such list."""
    if not isinstance(answer, list):
        raise TypeError("a list is a JSON array")
    return [kind.model_validate(one) for one in answer]
