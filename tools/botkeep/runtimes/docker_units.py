"""From an engine's words about a container to a unit: pure, so that its tests are tables."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from botkeep.model import Exit, HealthLook, InstanceState
from botkeep.untrusted import clean

from .docker_facts import Inspected, Listed, State, moment, nanoseconds
from .engine import Unit

CONFIG_FILES = "com.docker.compose.project.config_files"
ENVIRONMENT_FILES = "com.docker.compose.project.environment_file"
WORKING_DIR = "com.docker.compose.project.working_dir"
NUMBER = "com.docker.compose.container-number"
BEFORE = "before"
"""Ends the key of an exit whose run has no name any more."""
LOOPS_FROM = 3
"""Restarts by the engine itself, before one that stands between two of them is called a loop."""
EARLY = 50 * 10**6
"""Nanoseconds by which output may come before the engine has noted the start."""
SHORT_RUN = timedelta(seconds=10)
"""A run this long makes the engine begin anew to count its pauses."""
_STATES = {
    "running": InstanceState.RUNNING,
    "paused": InstanceState.FROZEN,
    "restarting": InstanceState.STARTING,
}
_NOT_FOUND = re.compile(r'exec: "([^"]{1,300})": (?:stat \S+: )?([a-z ]{5,80})')


@dataclass(frozen=True)
class Container(Unit):
    """A container as a unit, and what it takes to read its output and to choose the one to start."""

    name: str = ""
    order: tuple[bool, int, int] = (False, 0, 0)
    """Of several containers of one bot, the least one is started."""
    tty: bool = False
    driver: str = ""
    """Of its log."""
    log_path: str = ""
    """The driver's own file, as the engine's machine sees it."""
    is_here: bool = False
    """Its engine is reached through a socket of this machine, so that the file may be this machine's."""
    began: int | None = None
    """Nanoseconds since 1970: what was written later belongs to its newest run. None: it was never started."""
    logs_at: str = ""
    """Under which path the engine tells its output, if not under that of its container."""


def run_of(state: State, container: str) -> str:
    """Names one run; of two, the newer one is the greater text."""
    return f"{state.started or '0001-01-01T00:00:00Z'}/{container[:12]}"


def container_of(one: Listed, seen: Inspected, *, is_here: bool) -> Container:
    """The unit. `pid` is as the engine has it: whether it is this machine's, the caller has to find out."""
    state = seen.state
    return Container(
        id=one.id,
        run=run_of(state, one.id),
        state=_STATES.get(state.status),
        pid=state.pid or None,
        cgroup=one.id,
        started_at=moment(state.started),
        exit=exit_of(state, one.id),
        restarts=seen.restarts,
        starts=tuple(at for at in (moment(state.started),) if at),
        giving_up=giving_up(seen),
        health=health_of(one, state),
        notes=tuple(notes_of(one, seen, is_here=is_here)),
        tells_restarts=True,
        identity=one.id,
        called=f"container {one.name}",
        why_frozen=why_frozen(one, state),
        only_once=only_once(one, seen),
        name=one.name,
        order=order_of(one),
        tty=seen.made.tty,
        driver=seen.host.log.type,
        log_path=seen.log_path,
        is_here=is_here,
        began=boundary(state),
    )


def order_of(one: Listed) -> tuple[bool, int, int]:
    """A name that Compose gave for the time of a change comes last; then the service's number; then the oldest."""
    number = one.labels.get(NUMBER, "")
    return bool(re.match(r"[0-9a-f]{12}_", one.name)), int(number) if number.isdecimal() else 1 << 30, one.created


def boundary(state: State) -> int | None:
    """Between the end of the run before and the start of this one: the last words of a dead run come a little late,
    and the first ones of a new run before the engine has noted its start. The engine waits 100 ms and longer between
    the two."""
    finished, started = nanoseconds(state.finished), nanoseconds(state.started)
    if started is None:
        return None
    if state.status in ("running", "paused") and finished is None:
        return 0  # its first run
    if state.status in ("running", "paused") and finished is not None and finished < started:
        return (finished + started) // 2
    return started - EARLY


# ---------------------------------------------------------------------------------------------------- how it ended


def exit_of(state: State, container: str) -> Exit | None:
    """How its newest run ended. Of the one before a run that lives, the engine only knows when."""
    run = run_of(state, container)
    if state.status in ("running", "paused"):
        at = moment(state.finished)
        return Exit(key=f"{state.finished}/{container[:12]}/{BEFORE}", at=at) if at else None
    if state.error and state.status in ("created", "exited"):
        return Exit(key=f"{run}/not-started", at=None, failed_to_start=why_not(state.error))
    if moment(state.started) is None:
        return None
    code, number = code_or_signal(state.exit_code)
    return Exit(key=run, at=moment(state.finished), code=code, signal=number, out_of_memory=state.oom_killed)


def code_or_signal(code: int) -> tuple[int | None, int | None]:
    """An engine writes a death by signal as 128 and its number."""
    return (None, code - 128) if code - 128 in signal.valid_signals() else (code, None)


def why_not(error: str) -> str:
    """The engine's reason for not starting a container, without its own layers around it."""
    found = _NOT_FOUND.search(error)
    if found:
        return clean(f"{found[1]}: {found[2].strip().capitalize()}", 300)
    inner = error.rpartition("unable to start container process: ")[2].rpartition("OCI runtime create failed: ")[2]
    return clean(inner.removesuffix(": unknown"), 300)


def giving_up(seen: Inspected) -> str:
    """Said of a container that the engine starts again and again, or not any more."""
    state, policy = seen.state, seen.host.policy
    how = f"exit code {state.exit_code}{', out of memory' if state.oom_killed else ''}"
    if state.status == "dead":
        return "Docker calls it dead: it could not be removed, and cannot be started"
    if state.status == "restarting" and seen.restarts >= LOOPS_FROM and _was_short(state):
        return f"Docker has restarted it {seen.restarts} times, and it ended again ({how})"
    if state.status == "exited" and policy.name == "on-failure" and 0 < policy.most <= seen.restarts:
        return f"Docker has restarted it {seen.restarts} times, which is all that its restart policy allows ({how})"
    return ""


def why_frozen(one: Listed, state: State) -> str:
    """Somebody told the engine to hold it; the engine never does so by itself."""
    if state.status != "paused":
        return ""
    return f"its container is paused (somebody ran `docker pause`); `docker unpause {one.name}` lets it go on"


def only_once(one: Listed, seen: Inspected) -> str:
    """A container that is removed with its end can be stopped, and then nobody can start it."""
    if not seen.host.removed_at_end:
        return ""
    return f"container {one.name} was made with --rm, so that a stop removes it and nothing is left to start"


def _was_short(state: State) -> bool:
    started, finished = moment(state.started), moment(state.finished)
    return started is None or finished is None or finished - started < SHORT_RUN


# ---------------------------------------------------------------------------------------------------- health, notes


def health_of(one: Listed, state: State) -> HealthLook | None:
    """The container's own health check; None without one, or while it starts."""
    if state.status != "running":
        return None
    if not one.is_unhealthy:
        return HealthLook(ok=True, text="healthy", rule="ok") if one.is_healthy else None
    last = state.health.log[-1] if state.health and state.health.log else None
    if state.health is None or last is None:
        return HealthLook(ok=False, text="unhealthy", rule="unhealthy")
    said = clean(last.output.strip(), 200) or f"nothing, exit code {last.exit_code}"
    text = f"it failed {state.health.streak} times in a row and says: {said}"
    return HealthLook(ok=False, text=text, rule="unhealthy")


def notes_of(one: Listed, seen: Inspected, *, is_here: bool) -> Iterator[str]:
    """What a person should know of the container and nothing is done about."""
    host, name = seen.host, one.name
    if host.policy.name == "always":
        yield (
            "Its restart policy is `always`: Docker restarts it by itself, and starts it whenever Docker itself is "
            f"started, even after a stop on purpose. `docker update --restart unless-stopped {name}` ends the latter."
        )
    if host.removed_at_end:
        yield "It is removed when it ends (--rm), so that it can be stopped and not started again. Make it without."
    if host.log.type == "none":
        yield "Its output is kept nowhere (log driver none), so that nothing can be read in it."
    elif host.log.options.get("cache-disabled") == "true":
        yield f"Its output cannot be read back (log driver {clean(host.log.type, 40)}, cache-disabled)."
    if one.image.startswith("sha256:") and seen.made.image and not seen.made.image.startswith("sha256:"):
        image = clean(seen.made.image, 80)
        yield f"Its image {image} is a newer one by now: it runs the old one until the container is made anew."
    if one.state == "running" and seen.state.oom_killed:
        yield "The kernel ended one of its processes for lack of memory, and it runs on."
    if is_here:
        yield from _edited_since(one, seen)


def _edited_since(one: Listed, seen: Inspected) -> Iterator[str]:
    """Compose puts settings into a container when it makes it; a restart brings in nothing new."""
    made = moment(seen.created)
    for path in _compose_files(one) if made else ():
        try:
            edited = datetime.fromtimestamp(os.stat(path).st_mtime, made.tzinfo if made else None)
        except (OSError, ValueError):
            continue
        if made and edited > made + timedelta(seconds=1):
            yield (
                f"{clean(os.path.basename(path), 80)} was edited at {edited:%Y-%m-%d %H:%M:%SZ}, after this container "
                "was made: a restart does not bring in what changed, `docker compose up -d` makes it anew."
            )


def _compose_files(one: Listed) -> Iterator[str]:
    folder = one.labels.get(WORKING_DIR, "")
    for label in (CONFIG_FILES, ENVIRONMENT_FILES):
        for name in filter(None, one.labels.get(label, "").split(",")):
            path = os.path.join(folder, name)
            if os.path.isabs(path) and "\0" not in path:
                yield path
