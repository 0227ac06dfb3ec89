"""Asking the managers of a swarm about all bots at once; starting and stopping a bot's service.

Start and stop are changes of the number of replicas. Each names the edition of the service that it was made for, so
that of two callers one is refused and looks again.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from botkeep.model import EngineError

from . import docker_control
from .docker_address import Address, EngineConfig, address_of
from .docker_control import INSPECT_SECONDS, STOP_TAKES, if_there, own_pid
from .docker_facts import Inspected, Listed
from .docker_units import container_of
from .engine import FailedToStartError, Unit, side_by_side
from .swarm_facts import ID, EngineInfo, Node, Service, TaskSaid, each
from .swarm_units import TASK_LABEL, Around, Task, command_of, exit_of, same_elsewhere, units_of

POLL_SECONDS = 0.1
REFUSED = 20
"""Changes that were too late for the service's newest edition, before it is given up: somebody changes it all the
time."""
FORGETS_WITHIN = 5.0
PLANS_WITHIN = 3.0
"""Seconds in which a swarm plans the task that it was told to run."""
NOT_A_MANAGER = "write a `host` that is one of the swarm's managers"
KILLED = 128 + signal.SIGKILL
"""The exit code of a container that was killed, as its engine says it."""

Found = tuple[Task, ...] | EngineError


class ServiceConfig(EngineConfig, ABC):
    """The `runtime` of a bot in a swarm: knows its own service among all."""

    @abstractmethod
    def among(self, services: Sequence[Service]) -> Service:
        """This bot's. Raises NoSuchUnitError, naming the closest."""


# ---------------------------------------------------------------------------------------------------- look


@dataclass
class Swarm:
    """All that one engine says at one moment: four questions, however many bots there are."""

    address: Address
    engine: EngineInfo
    services: list[Service]
    tasks: dict[str, list[TaskSaid]]
    """By service."""
    around: Around

    def of(self, service: Service) -> list[TaskSaid]:
        """A service's tasks."""
        return self.tasks.get(service.id, [])


def units(configs: Mapping[str, ServiceConfig], seconds: float) -> dict[str, Found]:
    """The tasks of many bots: one set of questions to each engine. Never raises, never takes longer than `seconds`."""
    found: dict[str, Found] = {}
    groups: dict[Address, dict[str, ServiceConfig]] = {}
    for name, config in configs.items():
        try:
            groups.setdefault(address_of(config), {})[name] = config
        except EngineError as error:
            found[name] = error
    try:
        docker_control.transport()  # before the clock runs
    except EngineError as error:
        return dict.fromkeys(configs, error)
    looks = [_Look(address, group, seconds) for address, group in groups.items()]
    side_by_side([one.run for one in looks], seconds)
    for look in looks:
        found |= look.found()
    return found


@dataclass
class _Look:
    """One engine and the bots that it runs, as the answers come in."""

    address: Address
    configs: Mapping[str, ServiceConfig]
    seconds: float
    answers: dict[str, Found] = field(default_factory=dict)
    error: EngineError | None = None

    def run(self) -> None:
        """Ask everything. Does not raise."""
        until = time.monotonic() + self.seconds
        try:
            swarm = ask(self.address, self.seconds)
            chosen = _chosen(self.configs, swarm, self.answers)
            seen = inspect(swarm, list(chosen.values()), until)
        except EngineError as error:
            self.error = error
            return
        for name, service in chosen.items():
            try:
                self.answers[name] = _units(seen, service, self.configs[name], until)
            except EngineError as error:
                self.answers[name] = error

    def found(self) -> dict[str, Found]:
        """By bot, also what is not known because the time was over."""
        late = EngineError(f"Docker at {self.address} gave no complete answer within {self.seconds:.0f} s.")
        return {name: self.error or self.answers.get(name, late) for name in self.configs}


def _chosen(configs: Mapping[str, ServiceConfig], swarm: Swarm, answers: dict[str, Found]) -> dict[str, Service]:
    """Each bot's service. Two bots that mean the same one are both told so: neither may be acted on."""
    chosen: dict[str, Service] = {}
    owners: dict[str, list[str]] = {}
    for name, config in configs.items():
        try:
            chosen[name] = config.among(swarm.services)
        except EngineError as error:
            answers[name] = error
            continue
        owners.setdefault(chosen[name].id, []).append(name)
    for names in owners.values():
        if len(names) > 1:
            called = chosen[names[0]].name
            twice = EngineError(f"{' and '.join(names)} both mean service {called}; give each bot its own.")
            answers.update((name, twice) for name in names)
            chosen = {name: service for name, service in chosen.items() if name not in names}
    return chosen


def ask(address: Address, seconds: float) -> Swarm:
    """Everything of one swarm. Raises EngineError: not reached, no manager, too slow, rubbish."""
    used = docker_control.transport()
    try:
        with used.talk(address, seconds) as client:
            engine = EngineInfo.model_validate(client.info())
            require_manager(address, engine)
            services = each(Service, client.services())
            tasks = each(TaskSaid, client.tasks())
            containers = each(Listed, client.containers(all=True))
            away = any(one.node not in ("", engine.swarm.node) for one in tasks)
            nodes = each(Node, client.nodes()) if away else []
    except used.RefusedError as error:
        raise _explained(address, error) from error
    grouped: dict[str, list[TaskSaid]] = {}
    for one in tasks:
        grouped.setdefault(one.service, []).append(one)
    around = Around(
        now=datetime.now(UTC),
        is_here=address.is_here,
        engine=engine,
        containers={one.id: one for one in containers},
        nodes={one.id: one for one in nodes},
        repeated=_repeated(services),
    )
    return Swarm(address, engine, services, grouped, around)


def require_manager(address: Address, engine: EngineInfo) -> None:
    """Raises EngineError, and says what to do, for an engine that does not know the services."""
    if engine.swarm.is_manager:
        return
    if engine.swarm.state == "inactive":
        raise EngineError(f"The engine at {address} is in no swarm: {NOT_A_MANAGER}, or run `docker swarm init` there.")
    if engine.swarm.state == "locked":
        raise EngineError(f"The swarm at {address} is locked: a person has to run `docker swarm unlock` there.")
    raise EngineError(f"The engine at {address} is a worker, and only managers know the services: {NOT_A_MANAGER}.")


def _explained(address: Address, error: EngineError) -> EngineError:
    said = getattr(error, "said", "")
    if "not a swarm manager" in said:
        return EngineError(f"The engine at {address} is no manager of a swarm: {NOT_A_MANAGER}.")
    return error


def _repeated(services: Sequence[Service]) -> frozenset[tuple[object, ...]]:
    if len(services) < 2:
        return frozenset()
    counts = Counter(command_of(one.spec.template.container) for one in services)
    return frozenset(one for one, count in counts.items() if one[0] and count > 1)


# ---------------------------------------------------------------------------------------------------- containers


def inspect(swarm: Swarm, services: Sequence[Service], until: float) -> Swarm:
    """With what only a container itself tells: how one ended that was killed, or that its swarm has not missed yet;
    the process of one that has not proven its health. Of few, and only of the engine that was asked."""
    wanted = [one for service in services for one in _to_inspect(swarm, service)]
    seen: dict[str, Inspected] = {}
    for container in dict.fromkeys(wanted):
        with suppress(EngineError):
            seen[container] = _inspect(swarm.address, container, until)
    return replace(swarm, around=replace(swarm.around, inspected=seen)) if seen else swarm


def _to_inspect(swarm: Swarm, service: Service) -> Iterator[str]:
    around = swarm.around
    tasks = sorted(swarm.of(service), key=lambda one: one.run)
    ended = [one for one in tasks if around.has_ended(one)]
    for one in tasks:
        if around.has_process(one) and one.container in around.containers and not one.status.container.pid:
            yield one.container
    for one in ended[-1:]:
        killed = one.status.container.code == KILLED
        if one.container in around.containers and (killed or not one.is_over):
            yield one.container


def _inspect(address: Address, container: str, until: float) -> Inspected:
    with docker_control.transport().talk(address, _seconds_for_one(until)) as client:
        return Inspected.model_validate(client.inspect_container(container))


def _seconds_for_one(until: float) -> float:
    return min(INSPECT_SECONDS, max(0.0, until - time.monotonic()))


def _units(swarm: Swarm, service: Service, config: ServiceConfig, until: float) -> tuple[Task, ...]:
    found = units_of(service, swarm.of(service), swarm.around, config.stop_grace)
    found = tuple(replace(one, pid=own_pid(one)) if one.pid else one for one in found)
    return (*found, *_copies(swarm, service, found, until))


def _copies(swarm: Swarm, service: Service, known: Sequence[Task], until: float) -> Iterator[Task]:
    """Containers that are the bot and no task: somebody made or started them past the swarm. Raises EngineError if
    nobody says whether one is: nothing may be started beside it."""
    tasks = {one.id for one in known if one.state is not None}
    for listed in same_elsewhere(service, swarm.of(service), swarm.around):
        if listed.id in tasks or _is_newer_task(swarm, listed, until):
            continue
        seen = if_there(lambda one=listed: _inspect(swarm.address, one.id, until))  # type: ignore[misc]
        unit = container_of(listed, seen, is_here=swarm.address.is_here) if seen else None
        if unit is not None and unit.state is not None:
            yield Task(
                id=unit.id, run=unit.run, state=unit.state, pid=own_pid(unit), cgroup=unit.id, is_local=True,
                started_at=unit.started_at, name=unit.name, order=unit.order, tells_restarts=True,
                notes=(f"Container {listed.name} runs the same, and the swarm knows nothing of it.",),
            )  # fmt: skip


def _is_newer_task(swarm: Swarm, listed: Listed, until: float) -> bool:
    """Whether it is that of a task which was planned after the tasks were told: an engine may be slow."""
    task = listed.labels.get(TASK_LABEL, "")
    if not re.fullmatch(ID, task) or task in {one.id for group in swarm.tasks.values() for one in group}:
        return False
    seen = if_there(lambda: _task_of(swarm.address, task, until))
    return seen is not None and not seen.is_over


def _task_of(address: Address, task: str, until: float) -> TaskSaid:
    with docker_control.transport().talk(address, _seconds_for_one(until)) as client:
        return TaskSaid.model_validate(client.inspect_task(task))


# ---------------------------------------------------------------------------------------------------- changing


def change(
    config: ServiceConfig, until: float, make: Callable[[Service, list[TaskSaid], Swarm, dict[str, Any]], bool]
) -> Service:
    """Change the bot's service; `make` edits its specification, and says whether there is anything to change.

    Raises what `make` raises, and EngineError.
    """
    address = address_of(config)
    used = docker_control.transport()
    for _ in range(REFUSED):
        seconds = max(0.5, until - time.monotonic())
        swarm = ask(address, seconds)
        service = config.among(swarm.services)
        try:
            with used.talk(address, seconds) as client:
                raw = client.inspect_service(service.id)
                spec = deepcopy(raw["Spec"])
                now = Service.model_validate(raw)
                if now.version.index == service.version.index:
                    if make(now, swarm.of(now), swarm, spec):
                        url = f"{client.base_url}/v{client.api_version}/services/{now.id}/update"
                        _post(client, url, {"version": now.version.index}, spec)
                    return now
        except used.RefusedError as error:
            if "out of sequence" not in error.said:
                raise _explained(address, error) from error
        if time.monotonic() > until:
            break
        time.sleep(POLL_SECONDS)
    raise EngineError(f"The swarm did not take a change of service {config.among(swarm.services).name}: somebody else "
                      "changes it at the same time.")  # fmt: skip


def _post(client: Any, url: str, params: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    import docker.errors
    import requests

    answer = client.post(url, params=params, json=spec)
    try:
        answer.raise_for_status()
    except requests.exceptions.HTTPError as error:
        raise docker.errors.create_api_error_from_http_exception(error) from error


def require_one(service: Service) -> None:
    """Raises EngineError for a service that cannot have one replica."""
    if service.replicas is None:
        raise EngineError(
            f"Service {service.name} is no replicated one, so that nobody can start or stop one copy of it: make it "
            f"anew with mode replicated and one replica."
        )


def stop_first(spec: dict[str, Any]) -> None:
    """An update, or its rollback, never has two."""
    for key in ("UpdateConfig", "RollbackConfig"):
        if (spec.get(key) or {}).get("Order") == "start-first":
            spec[key]["Order"] = "stop-first"


# ---------------------------------------------------------------------------------------------------- start


def start(config: ServiceConfig, seconds: float) -> None:
    """One replica, and return when it has a process. Raises FailedToStartError with the swarm's reason; EngineError."""
    docker_control.transport()  # before the clock runs
    until = time.monotonic() + seconds
    before: set[str] = set()

    def one_replica(service: Service, tasks: list[TaskSaid], swarm: Swarm, spec: dict[str, Any]) -> bool:
        require_one(service)
        living = sorted((one for one in tasks if swarm.around.may_live(one)), key=lambda one: not one.node)
        if living:
            raise _not_beside(service, living[0], swarm)
        before.clear()
        before.update(one.id for one in tasks)
        if service.replicas:  # a number that is there already starts nothing
            spec["TaskTemplate"]["ForceUpdate"] = int(spec["TaskTemplate"].get("ForceUpdate") or 0) + 1
        spec["Mode"]["Replicated"]["Replicas"] = 1
        stop_first(spec)
        return True

    _wait_until_forgotten(config, until)
    service = change(config, until, one_replica)
    if not _wait_for_process(config, service, before, until):
        change(config, until, one_replica)  # said again, in another way, it is heard
        if not _wait_for_process(config, service, before, until):
            raise EngineError(f"The swarm took the order to start service {service.name}, and plans nothing.")


def _not_beside(service: Service, task: TaskSaid, swarm: Swarm) -> EngineError:
    """Why nothing is started while a task is there."""
    where = swarm.around.where(task)
    place = f" on node {where}" if where else ""
    if not task.node and task.status.error:
        return FailedToStartError(f"The swarm has no place for service {service.name}: {task.status.error}.")
    return EngineError(f"Task {task.id[:12]} of service {service.name} is still there{place} ({task.state}).")


def _wait_until_forgotten(config: ServiceConfig, until: float) -> None:
    """For a quarter of a second after its end a scaled down task is still listed. A service that is scaled up in
    that time gets no task at all, until somebody changes it again; found with 20.10. And for a moment after the end of
    its container a task still counts as running."""
    until = min(until, time.monotonic() + FORGETS_WITHIN)
    while time.monotonic() < until:
        swarm = ask(address_of(config), max(0.5, until - time.monotonic()))
        tasks = swarm.of(config.among(swarm.services))
        ended = [one for one in tasks if swarm.around.has_ended(one)]
        if not any(one.wanted == "remove" or not one.is_over for one in ended):
            return
        time.sleep(POLL_SECONDS)


def _wait_for_process(config: ServiceConfig, service: Service, before: set[str], until: float) -> bool:
    """False: the swarm plans nothing. Raises FailedToStartError, or EngineError if it takes too long."""
    planned_by = time.monotonic() + PLANS_WITHIN
    while True:
        swarm = ask(address_of(config), max(0.5, until - time.monotonic()))
        fresh = [one for one in swarm.of(service) if one.id not in before]
        if any(_has_begun(one, swarm) for one in sorted(fresh, key=lambda task: task.run)):
            return True
        stuck = next((one for one in fresh if one.status.error and not one.node), None)
        if stuck is not None:
            raise FailedToStartError(f"The swarm has no place for it: {stuck.status.error}.")
        if time.monotonic() > planned_by and not fresh:
            return False
        if time.monotonic() > until:
            raise EngineError(f"The swarm has not started service {service.name} so far.")
        time.sleep(POLL_SECONDS)


def _has_begun(task: TaskSaid, swarm: Swarm) -> bool:
    """Whether it has a process, or had one. Raises FailedToStartError if it could not get one."""
    if swarm.around.has_process(task):
        return _is_under_way(task, swarm)
    if not swarm.around.has_ended(task):
        return False
    ended = exit_of(task, swarm.around)
    if ended is not None and ended.failed_to_start:
        raise FailedToStartError(f"The swarm could not start it: {ended.failed_to_start}.", ended)
    return True


def _is_under_way(task: TaskSaid, swarm: Swarm) -> bool:
    """Whether its process is there. One that has a health check only counts as running once that is well."""
    if task.state == "running":
        return True
    listed = swarm.around.containers.get(task.container)
    return listed is not None and listed.lives


# ---------------------------------------------------------------------------------------------------- stop


def scale_down(config: ServiceConfig, until: float) -> None:
    """No replicas: the swarm asks what runs to end, and starts nothing. Raises EngineError."""

    def none(service: Service, tasks: list[TaskSaid], swarm: Swarm, spec: dict[str, Any]) -> bool:
        del tasks, swarm
        require_one(service)
        if service.replicas == 0:
            return False
        spec["Mode"]["Replicated"]["Replicas"] = 0
        stop_first(spec)
        return True

    change(config, until, none)


def stop(config: ServiceConfig, unit: Unit, grace: float, seconds: float) -> Task | None:
    """End the bot's task, or a copy of it that is no task; kill it after `grace` seconds. Gives the task as it ended,
    if the swarm told that before it forgot it. Raises EngineError."""
    if not isinstance(unit, Task) or not unit.service:
        docker_control.stop(config, unit, grace, seconds)
        return None
    docker_control.transport()  # before the clock runs
    until = time.monotonic() + seconds
    scale_down(config, until)
    done = threading.Event()
    waker = threading.Thread(target=docker_control.keep_awake, args=(unit, done), daemon=True)
    waker.start()
    try:
        return _see_it_end(config, unit, time.monotonic() + grace, until)
    finally:
        done.set()
        waker.join()


def _see_it_end(config: ServiceConfig, unit: Task, kill_at: float, until: float) -> Task | None:
    """Look until no task of the service is there; remember how this one ended: the swarm forgets it at once."""
    ended: Task | None = None
    killed = False
    while True:
        left = max(0.5, until - time.monotonic())
        swarm = ask(address_of(config), left)
        service = next((one for one in swarm.services if one.id == unit.service), None)
        if service is None:
            return ended
        tasks = swarm.of(service)
        mine = next((one for one in tasks if one.id == unit.task), None)
        if mine is not None and swarm.around.has_ended(mine):
            ended = _as_it_ended(swarm, unit, mine, until) or ended
        if all(one.is_over or swarm.around.is_lost(one) for one in tasks):
            return ended
        if time.monotonic() > until:
            return ended
        if not killed and time.monotonic() > kill_at and unit.is_local:
            killed = True
            _kill(config, unit)
        time.sleep(POLL_SECONDS / 2)


def _as_it_ended(swarm: Swarm, unit: Task, task: TaskSaid, until: float) -> Task | None:
    """The unit with its exit; its container is asked once, while it is there."""
    around = swarm.around
    if task.container in around.containers:
        with suppress(EngineError):
            around = replace(around, inspected={task.container: _inspect(swarm.address, task.container, until)})
    seen = exit_of(task, around)
    return replace(unit, state=None, pid=None, exit=seen) if seen else None


def _kill(config: ServiceConfig, unit: Task) -> None:
    """The swarm would wait longer than the bot's own grace."""
    used = docker_control.transport()
    with suppress(used.RefusedError), used.talk(address_of(config), STOP_TAKES) as client:
        client.kill(unit.id)


# ---------------------------------------------------------------------------------------------------- memory


def memory_of(config: ServiceConfig) -> int | None:
    """Bytes that each task of the bot's service may use; None: there is no limit. Raises EngineError."""
    swarm = ask(address_of(config), docker_control.MEMORY_SECONDS)
    return config.among(swarm.services).spec.template.resources.limits.memory or None


def set_memory(config: ServiceConfig, count: int) -> int | None:
    """Give the tasks that the service has from now on a limit of `count` bytes; while it is stopped. For one that is
    to run the swarm would start a new task, also where it had given up.

    Returns the old limit, None if there was none. Raises EngineError.
    """

    def limit(service: Service, tasks: list[TaskSaid], swarm: Swarm, spec: dict[str, Any]) -> bool:
        del tasks, swarm
        if service.replicas != 0:
            raise EngineError(
                f"Service {service.name} is to run, and a new memory limit would start it anew. Stop it first."
            )
        resources = spec["TaskTemplate"].setdefault("Resources", {})
        resources.setdefault("Limits", {})["MemoryBytes"] = count
        return True

    before = change(config, time.monotonic() + docker_control.MEMORY_SECONDS, limit)
    return before.spec.template.resources.limits.memory or None
