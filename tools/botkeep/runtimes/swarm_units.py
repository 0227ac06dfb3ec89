"""From a swarm's words about a service and its tasks to units: pure, so that its tests are tables.

A task is one run: the swarm never starts one twice. What is to come after it is another task.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from botkeep.model import Exit, HealthLook, InstanceState
from botkeep.untrusted import clean

from .docker_facts import Inspected, Listed, moment
from .docker_units import LOOPS_FROM, SHORT_RUN, Container, code_or_signal, why_not
from .find import Twin
from .procs import read_program
from .swarm_facts import ALIVE, ContainerSpec, EngineInfo, Node, RestartPolicy, Service, TaskSaid

SERVICE_LABEL = "com.docker.swarm.service.id"
TASK_LABEL = "com.docker.swarm.task.id"
RESTARTED_WITHIN = timedelta(seconds=2)
"""In which the swarm plans the next task, when one has ended."""
PLACED_WITHIN = timedelta(seconds=5)
"""In which it finds a node for a task, if there is one."""
PLANNED_LATE = timedelta(seconds=5)
"""By which the next task may be later than the swarm's own delay says."""
NS = 10**9
ENGINES_GRACE = 10 * NS
SECRETS = "botkeep-secrets"
"""Names the small shell program by which `botkeep swarm-stack` has a bot's keys read from the swarm's secrets."""
_EXITED = re.compile(r"Exited \((\d{1,3})\)")
_RAN = re.compile(r"task: non-zero exit \((\d{1,3})\)(?:: (.{1,300}))?", re.DOTALL)


@dataclass(frozen=True)
class Task(Container):
    """One run as a unit, and what it takes to end it and to read its output. `id` is its container's where that is
    one of the asked engine, else the task's."""

    service: str = ""
    """The id of its service; empty: a container that somebody else made, which runs the same."""
    task: str = ""
    node: str = ""
    """What its machine is called, if that is another one."""
    is_local: bool = False
    """Its container is one of the asked engine."""
    is_scaled_down: bool = False
    """Its service is to have no replicas: somebody stopped it."""
    lost: tuple[str, ...] = ()
    """Of its service: tasks that may live where nobody can see them, as a sentence's part each."""
    past: tuple[Task, ...] = ()
    """Runs before this one whose output can still be read, the oldest first."""


@dataclass(frozen=True)
class Around:
    """What is the same for all services of one swarm."""

    now: datetime
    is_here: bool
    """The engine that was asked is one of this machine."""
    engine: EngineInfo = field(default_factory=EngineInfo)
    containers: Mapping[str, Listed] = field(default_factory=dict)
    """Of the asked engine, by id."""
    inspected: Mapping[str, Inspected] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    repeated: frozenset[tuple[object, ...]] = frozenset()
    """Commands that several services run in one folder: by them no bot is known."""

    @cached_property
    def of_service(self) -> Mapping[str, Sequence[Listed]]:
        """Living containers of the asked engine by the service that their labels name; "" for those of none."""
        found: dict[str, list[Listed]] = {}
        for one in self.containers.values():
            if one.lives:
                found.setdefault(one.labels.get(SERVICE_LABEL, ""), []).append(one)
        return found

    @cached_property
    def of_task(self) -> Mapping[str, Listed]:
        """Containers of the asked engine by the task that their labels name."""
        return {task: one for one in self.containers.values() if (task := one.labels.get(TASK_LABEL))}

    def listed(self, task: TaskSaid) -> Listed | None:
        """A task's container, if the asked engine has it: also where its node has not told the managers yet which one
        that is, as it does a moment after the container is there, and may do after its process is."""
        return self.containers.get(task.container) if task.container else self.of_task.get(task.id)

    def where(self, task: TaskSaid) -> str:
        """What a task's machine is called; empty: it is the one that was asked."""
        if not task.node or task.node == self.engine.swarm.node:
            return ""
        node = self.nodes.get(task.node)
        return clean(node.about.hostname, 80) if node and node.about.hostname else task.node[:12]

    def is_lost(self, task: TaskSaid) -> bool:
        """Whether nobody hears from its machine, and the swarm has given it up: it may live on there. After a day the
        swarm calls it orphaned, as it does at once when a person removes the node, who then answers for it."""
        node = self.nodes.get(task.node)
        if node is None or not node.is_lost or task.is_to_live:
            return False
        return not task.is_over or task.state == "orphaned"

    def may_live(self, task: TaskSaid) -> bool:
        """Whether anything of it may be there, seen or not."""
        return not task.is_over or self.is_lost(task)

    def has_ended(self, task: TaskSaid) -> bool:
        """Whether it is over: the engine that runs it knows that a little earlier than the swarm."""
        listed = self.containers.get(task.container)
        over = not self.may_live(task)
        return over or (listed is not None and listed.state in ("exited", "dead"))

    def has_process(self, task: TaskSaid) -> bool:
        """Whether something of it may run."""
        return not self.has_ended(task) and (task.state in ALIVE or bool(task.container))


def units_of(service: Service, tasks: Sequence[TaskSaid], around: Around, grace: int) -> tuple[Task, ...]:
    """The service's units: each task that may have a process; or the one that is planned; or what ended last.

    `tasks`: all of this service's. `grace`: the bot's, in seconds.
    """
    known = sorted(tasks, key=lambda one: one.run)
    living = [one for one in known if around.has_process(one) and not around.is_lost(one)]
    ended = [one for one in known if around.has_ended(one)]
    units = [_task(service, one, around, _state(one, around)) for one in living]
    if not units:
        units = [_not_running(service, known, ended, around)]
    past = tuple(_task(service, one, around, None) for one in ended if one.container)
    units = [replace(one, past=tuple(old for old in past if old.run < one.run)) for one in units]
    stuck = None if living else next((one for one in reversed(known) if _is_stuck(one, around)), None)
    return (replace(units[0], **_told(service, known, ended, stuck, around, grace)), *units[1:])


def _told(
    service: Service,
    known: Sequence[TaskSaid],
    ended: Sequence[TaskSaid],
    stuck: TaskSaid | None,
    around: Around,
    grace: int,
) -> dict[str, Any]:
    """What is said of the service once, however many tasks it has. `stuck`: a task without a place, and none lives."""
    exits = [seen for one in ended if (seen := exit_of(one, around)) is not None]
    no_place = _no_place(stuck) if stuck is not None and service.replicas else None
    return {
        "is_scaled_down": service.replicas == 0,
        "lost": tuple(_lost(one, around) for one in known if around.is_lost(one)),
        "exit": no_place or (exits[-1] if exits else None),
        "starts": tuple(engines_starts(service, known)),
        "giving_up": no_place.failed_to_start if no_place else giving_up(service, known, ended, around),
        "twin": twin_of(service, around),
        "notes": tuple(notes_of(service, known, around, grace)),
    }


def _lost(task: TaskSaid, around: Around) -> str:
    return f"task {task.id[:12]} on node {around.where(task)}, which the swarm has lost"


def _state(task: TaskSaid, around: Around) -> InstanceState:
    listed = around.containers.get(task.container)
    if listed is not None and listed.state == "paused":
        return InstanceState.FROZEN
    return InstanceState.RUNNING if task.state == "running" else InstanceState.STARTING


def _task(service: Service, task: TaskSaid, around: Around, state: InstanceState | None) -> Task:
    listed = around.listed(task)
    spec = service.spec.template
    driver = spec.log.name or around.engine.driver
    root = around.engine.root
    return Task(
        id=listed.id if listed else task.id,
        run=task.run,
        state=state,
        pid=_pid(task, around) if state and listed else None,
        cgroup=listed.id if listed else "",
        started_at=task.changed_at if task.state == "running" and task.status.container.code >= 0 else task.made_at,
        tells_restarts=True,
        identity=f"swarm/{service.id}",
        called=f"service {service.name}",
        health=_health(listed) if state else None,
        why_frozen=_why_frozen(listed),
        name=f"task {task.id[:12]} of {service.name}",
        tty=spec.container.tty,
        driver=driver,
        log_path=f"{root}/containers/{listed.id}/{listed.id}-json.log" if listed and root else "",
        is_here=around.is_here,
        began=0 if task.container else None,
        logs_at="" if listed else f"tasks/{task.id}",
        service=service.id,
        task=task.id,
        node=around.where(task),
        is_local=listed is not None,
    )


def _pid(task: TaskSaid, around: Around) -> int | None:
    seen = around.inspected.get(task.container)
    return task.status.container.pid or (seen.state.pid if seen else 0) or None


def _health(listed: Listed | None) -> HealthLook | None:
    if listed is None or not (listed.is_healthy or listed.is_unhealthy):
        return None
    ok = listed.is_healthy
    text = "healthy" if ok else "unhealthy, so that the swarm is about to replace it"
    return HealthLook(ok=ok, text=text, rule="ok" if ok else "unhealthy")


def _why_frozen(listed: Listed | None) -> str:
    if listed is None or listed.state != "paused":
        return ""
    name = listed.name
    return f"its container is paused (somebody ran `docker pause`); `docker unpause {name}` lets it go on"


def _not_running(service: Service, known: Sequence[TaskSaid], ended: Sequence[TaskSaid], around: Around) -> Task:
    """No task has a process: one may be planned, or the swarm may be just about to plan one."""
    planned = [one for one in known if not around.has_ended(one) and not around.is_lost(one)]
    last = next((one for one in reversed(planned) if not _is_stuck(one, around)), None)
    if last is not None and (last.is_to_live or last.node):
        return _task(service, last, around, InstanceState.STARTING)
    newest = ended[-1] if ended else None
    if newest is None:
        return Task(
            id=service.id,
            run=f"none/{service.id}",
            state=None,
            tells_restarts=True,
            identity=f"swarm/{service.id}",
            called=f"service {service.name}",
            service=service.id,
        )
    waits = not planned and is_about_to_restart(service, newest, around)
    return _task(service, newest, around, InstanceState.STARTING if waits else None)


def _is_stuck(task: TaskSaid, around: Around) -> bool:
    """Whether the swarm has found no machine for it."""
    late = task.made_at is None or around.now - task.made_at > PLACED_WITHIN
    return task.state in ("new", "pending") and not task.node and (bool(task.status.error) or late)


def _no_place(task: TaskSaid) -> Exit:
    said = clean(task.status.error, 300) or "no suitable node was found so far"
    return Exit(key=task.run, at=None, failed_to_start=f"the swarm has no place for it: {said}")


def is_about_to_restart(service: Service, newest: TaskSaid, around: Around) -> bool:
    """Whether the swarm itself will start it again in a moment: nobody else may do so meanwhile."""
    if not service.replicas or not service.spec.template.policy.restarts(newest):
        return False
    if newest.is_over and newest.is_to_live:
        return True  # the pause before the next attempt
    at = newest.changed_at
    return not newest.is_over or (at is not None and around.now - at < RESTARTED_WITHIN)


# ---------------------------------------------------------------------------------------------------- how it ended


def exit_of(task: TaskSaid, around: Around) -> Exit | None:
    """How a task ended; None: it was taken back before it had begun."""
    seen = around.inspected.get(task.container)
    at = task.changed_at if task.is_over else moment(seen.state.finished) if seen else None
    if not task.is_over:
        return _exit_of_container(task, around, at)
    if _never_ran(task):
        return Exit(key=task.run, at=None, failed_to_start=_reason(task)) if task.status.error else None
    if task.state == "orphaned" or task.status.container.code < 0:
        return Exit(key=task.run, at=at)
    found = _RAN.match(task.status.error)
    code, number = code_or_signal(int(found[1]) if found else task.status.container.code)
    return Exit(key=task.run, at=at, code=code, signal=number, out_of_memory=seen.state.oom_killed if seen else None)


def _exit_of_container(task: TaskSaid, around: Around, at: datetime | None) -> Exit:
    """Its engine knows that it ended, and the swarm does not yet."""
    seen, listed = around.inspected.get(task.container), around.containers.get(task.container)
    if seen is not None:
        code, number = code_or_signal(seen.state.exit_code)
        return Exit(key=task.run, at=at, code=code, signal=number, out_of_memory=seen.state.oom_killed)
    found = _EXITED.match(listed.status) if listed else None
    code, number = code_or_signal(int(found[1])) if found else (None, None)
    return Exit(key=task.run, at=at, code=code, signal=number)


def _never_ran(task: TaskSaid) -> bool:
    if task.state == "rejected" or not task.container:
        return True
    return task.state == "failed" and task.status.message != "started" and not _RAN.match(task.status.error)


def _reason(task: TaskSaid) -> str:
    """The engine's, in its own words: no such image, no such program."""
    return why_not(task.status.error)


def giving_up(service: Service, known: Sequence[TaskSaid], ended: Sequence[TaskSaid], around: Around) -> str:
    """Said of a service whose task the swarm starts again and again, or not any more."""
    if not service.replicas or not ended:
        return ""
    newest, policy = ended[-1], service.spec.template.policy
    if known[-1] is newest and newest.is_over and not newest.is_to_live and policy.restarts(newest):
        if newest.state not in ("shutdown", "remove") and not is_about_to_restart(service, newest, around):
            return f"{_tried(policy)} ({_how(newest, around)})"
        return ""
    streak = _short_runs(service, ended)
    live = next((one for one in reversed(known) if around.has_process(one)), None)
    young = live is None or live.made_at is None or around.now - live.made_at < _short(service)
    if streak >= LOOPS_FROM and young and policy.condition != "none":
        return f"the swarm restarts it again and again, and it ended {streak} times at once ({_how(newest, around)})"
    return ""


def _tried(policy: RestartPolicy) -> str:
    if policy.most:
        return f"the swarm has restarted it {policy.most} times, which is all that its restart policy allows"
    return "the swarm does not start it any more, though its restart policy says so"


def _short(service: Service) -> timedelta:
    return SHORT_RUN + timedelta(microseconds=service.spec.template.policy.delay / 1000)


def _short_runs(service: Service, ended: Sequence[TaskSaid]) -> int:
    count = 0
    for one in reversed(ended):
        by_itself = one.state in ("failed", "rejected", "complete") and service.spec.template.policy.restarts(one)
        if not by_itself or one.lasted > _short(service):
            break
        count += 1
    return count


def _how(task: TaskSaid, around: Around) -> str:
    seen = exit_of(task, around)
    if seen is None:
        return "how it ended is not known"
    if seen.failed_to_start:
        return seen.failed_to_start
    more = ", out of memory" if seen.out_of_memory else ""
    return f"signal {seen.signal}{more}" if seen.signal else f"exit code {seen.code}{more}"


def engines_starts(service: Service, known: Sequence[TaskSaid]) -> Iterator[datetime]:
    """When the swarm started it by itself: soon after the task before had ended by itself, and as that one was. What
    somebody asks for comes after a task that the swarm was told to end, or much later, or is made in another way."""
    policy = service.spec.template.policy
    late = PLANNED_LATE + timedelta(microseconds=policy.delay / 1000)
    before: dict[int, TaskSaid] = {}
    for task in known:
        last = before.get(task.slot)
        before[task.slot] = task
        if last is None or task.made_at is None or last.changed_at is None or not last.is_over:
            continue
        asked = last.state in ("shutdown", "remove") or not policy.restarts(last) or last.spec != task.spec
        if not asked and task.made_at - last.changed_at < late:
            yield task.made_at


# ---------------------------------------------------------------------------------------------------- copies, notes


def command_of(spec: ContainerSpec) -> tuple[tuple[str, ...], str]:
    """The command and its folder as a plain process of this machine would have them; none, where they are inside of
    the image, or the image adds to it."""
    words = _without_secrets((*spec.command, *spec.args)) if spec.command else ()
    folder = _outside(spec, spec.folder) if spec.folder else None
    return (words, folder) if folder is not None and _is_told_by_its_place(words) else ((), "/")


def _is_told_by_its_place(words: tuple[str, ...]) -> bool:
    """Not by a name that is looked for in PATH: everybody's `sleep 60` is the same."""
    program = read_program(words) if words else None
    return program is not None and (program.interpreter != "" or "/" in program.script)


def _without_secrets(words: tuple[str, ...]) -> tuple[str, ...]:
    """Without the shell that reads its keys, and becomes the bot."""
    if len(words) > 4 and words[:2] == ("sh", "-c") and words[3] == SECRETS:
        return words[4:]
    return words


def _outside(spec: ContainerSpec, path: str) -> str | None:
    """Where a path of the container is on its machine; None: inside of the image, or a volume."""
    for mount in sorted(spec.mounts, key=lambda one: -len(one.target)):
        target = PurePosixPath(mount.target)
        if target == PurePosixPath(path) or target in PurePosixPath(path).parents:
            inner = PurePosixPath(path).relative_to(target)
            return os.path.normpath(f"{mount.source}/{inner}") if mount.type == "bind" else None
    return None


def twin_of(service: Service, around: Around) -> Twin:
    """By what a copy outside of the swarm is known: the same command in the same folder of this machine."""
    command, folder = command_of(service.spec.template.container)
    if not around.is_here or not command or (command, folder) in around.repeated:
        return Twin()
    return Twin(command=command, cwd=folder)


def same_elsewhere(service: Service, tasks: Sequence[TaskSaid], around: Around) -> Iterator[Listed]:
    """Living containers of the asked engine that no task is, and that are the bot: a task's that somebody started
    again, or one that runs the same command of the same image on the same folders.

    A new task's container is there before its node has told the managers which one that is.
    """
    living = {one.id for one in tasks if not one.is_over and not around.is_lost(one)}
    spec = service.spec.template.container
    mounts = {(one.source, one.target) for one in spec.mounts}
    line = _line([*spec.command, *spec.args])
    yield from (one for one in around.of_service.get(service.id, ()) if one.labels.get(TASK_LABEL) not in living)
    if mounts and spec.command:
        alike = (one for one in around.of_service.get("", ()) if one.image == spec.image and one.command == line)
        yield from (one for one in alike if one.folders == mounts)


def _line(words: Sequence[str]) -> str:
    """A command as an engine's list shows it."""
    return " ".join([words[0], *(f"'{one}'" if " " in one else one for one in words[1:])]) if words else ""


def notes_of(service: Service, known: Sequence[TaskSaid], around: Around, grace: int) -> Iterator[str]:
    """What a person should know of the service and nothing is done about."""
    name = clean(service.name, 100)
    if service.replicas is None:
        yield f"Service {name} runs a task on every node, or is a job: a bot needs mode replicated with one replica."
    elif service.replicas > 1:
        yield (
            f"Service {name} is to run {service.replicas} times, and so trades {service.replicas} times: "
            f"`docker service scale {name}=1`."
        )
    for what, order in (("update", service.spec.update.order), ("rollback", service.spec.rollback.order)):
        if order == "start-first":
            yield (
                f"An {what} of service {name} starts the new copy before the old one has ended (start-first): "
                f"`docker service update --{what}-order stop-first {name}`."
            )
    yield from _about_grace(service, grace)
    if service.update.state.endswith("paused"):
        said = clean(service.update.message, 200)
        yield f"The swarm stopped in the middle of an update of service {name}: {said}."
    yield from _about_tasks(known, around)


def _about_grace(service: Service, grace: int) -> Iterator[str]:
    given = service.spec.template.container.stop_grace
    theirs = (ENGINES_GRACE if given is None else given) / NS
    if theirs < grace:
        yield (f"The swarm kills it {theirs:g} s after a stop (stop_grace_period), though its stop_grace is {grace} s.")


def _about_tasks(known: Sequence[TaskSaid], around: Around) -> Iterator[str]:
    for one in known:
        if around.is_lost(one):
            yield (
                f"The swarm has lost node {around.where(one)}, on which task {one.id[:12]} of it ran: nobody can say "
                "whether that copy still trades, also beside another one. botkeep starts none meanwhile: see to that "
                f"machine, or remove it (`docker node rm --force {around.where(one)}`)."
            )
    replaced = [one for one in known if one.is_over and "unhealthy container" in one.status.error]
    if replaced and (at := replaced[-1].changed_at):
        yield f"The swarm ended it at {at:%Y-%m-%d %H:%M:%SZ}, since its health check failed, and replaced it."
