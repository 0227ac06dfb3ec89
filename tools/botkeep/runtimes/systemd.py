"""Bots as services of systemd, the machine's or a user's: one question for all bots of one.

systemd_ctl.py talks, systemd_facts.py reads, systemd_history.py knows from the journal what systemd forgets,
systemd_units.py says what it means, systemd_log.py reads output, systemd_left.py finds what a stop left behind.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, StrictBool
from pydantic_core import PydanticCustomError

from botkeep.fields import STRICT, Whole
from botkeep.model import EngineError, Exit
from botkeep.untrusted import clean

from .engine import FailedToStartError, NoSuchUnitError, Unit
from .find import Twin
from .procs import cgroup_of, read_proc
from .systemd_ctl import Answer, LateError, Manager, ctl, journal, journal_is_open, lingers, refused, show, user_name
from .systemd_facts import PROPERTIES, Shown, by_name, records
from .systemd_history import History, entries, question, read_history
from .systemd_log import read_log
from .systemd_units import Service, exit_of, unit_of, why_not_executed

__all__ = ["KIND", "Config", "memory_of", "read_log", "set_memory", "start", "stop", "units"]

KIND = "systemd"
POLL_SECONDS = 0.05
SETTLED_SECONDS = 10.0
"""That a start may take until it is seen what comes of it."""
JOURNAL_SECONDS = 3.0
HISTORY_BYTES = 8 << 20
KILL_SECONDS = 2.0
LEAST_SECONDS = 0.5
FORGOTTEN_SECONDS = 1.0
MEMORY_SECONDS = 5.0
_OTHER_KINDS = ("automount", "device", "mount", "path", "scope", "slice", "socket", "swap", "target", "timer")
Found = tuple[Service, ...] | EngineError


def _service(name: str) -> str:
    """Only a service can be a bot; a template is none before it has a name."""
    whole = name.removesuffix(".service")
    if whole.endswith("@") or name.rpartition(".")[2] in _OTHER_KINDS:
        raise PydanticCustomError("unit", 'write the name of a service, like "doge" or "bot@3m.service"')
    return name


UnitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_:.\\@-]*$", max_length=200), AfterValidator(_service)]


class Config(BaseModel):
    """How to find the bot's service; `botkeep systemd-units` writes one from `command` and the rest."""

    model_config = STRICT

    kind: Literal["systemd"]
    unit: UnitName = Field(description="Its name, with or without .service.")
    user: StrictBool = Field(False, description="It is one of the user's own systemd (systemctl --user).")
    stop_grace: Whole = Field(
        30, ge=1, le=35, description="Seconds between SIGTERM and SIGKILL; a tool call must end within 50 s."
    )
    command: list[str] | None = Field(
        None, min_length=1, description="What the service runs, for `botkeep systemd-units`."
    )
    cwd: str = Field(".", description="Where it runs, from the workspace; for the same.")
    env_file: str | None = Field(None, description="KEY=VALUE lines, mode 0600: the bot's keys. Never shown.")
    env: dict[str, str] = Field({}, description="Further variables that are no secrets, for the same.")

    @property
    def service(self) -> str:
        """The whole name."""
        return self.unit if self.unit.endswith(".service") else f"{self.unit}.service"

    @property
    def manager(self) -> Manager:
        """Which systemd is asked."""
        return Manager(self.user)


# ---------------------------------------------------------------------------------------------------- look


def units(configs: Mapping[str, Config], seconds: float) -> dict[str, Found]:
    """The services of many bots: one question to each systemd. Never raises, never takes longer than `seconds`."""
    groups: dict[Manager, dict[str, Config]] = {}
    for name, config in configs.items():
        groups.setdefault(config.manager, {})[name] = config
    if len(groups) < 2:
        return {name: one for manager, group in groups.items() for name, one in _look(manager, group, seconds).items()}
    with ThreadPoolExecutor(len(groups)) as pool:
        looks = [pool.submit(_look, manager, group, seconds) for manager, group in groups.items()]
        return {name: one for look in looks for name, one in look.result().items()}


def _look(manager: Manager, configs: Mapping[str, Config], seconds: float) -> dict[str, Found]:
    until = time.monotonic() + seconds
    try:
        asked = sorted({one.service for one in configs.values()})
        shown = by_name(records(show(manager, PROPERTIES, asked, seconds)))
        history, unread = _history(manager, shown.values(), until)
    except EngineError as error:
        return dict.fromkeys(configs, error)
    owners: dict[str, list[str]] = {}
    for name, config in configs.items():
        found = shown.get(config.service)
        owners.setdefault(found.id if found else config.service, []).append(name)
    return {name: _unit(names, configs, shown, history, unread, until) for names in owners.values() for name in names}


def _unit(
    names: Sequence[str],
    configs: Mapping[str, Config],
    shown: Mapping[str, Shown],
    history: History,
    unread: str,
    until: float,
) -> Found:
    config = configs[names[0]]
    one = shown.get(config.service)
    if len(names) > 1:
        return EngineError(f"{' and '.join(names)} both mean {config.service}; give each bot its own.")
    if one is None:
        return EngineError(f"{config.manager} says nothing of {config.service}.")
    if one.text("LoadState") == "not-found" and not one.lives:
        return _no_such_unit(config, max(0.5, until - time.monotonic()))
    pid = _pid(one)
    twin = Twin(command=_command(one, config, pid), cwd=one.folder or "/", service=one.id)
    unit = unit_of(one, history, user=config.user, pid=pid, twin=twin, grace=config.stop_grace)
    more = (*((unread,) if unread else ()), *_about_the_user(config), *_about_the_journal(config, unit))
    return (replace(unit, notes=(*unit.notes, *more)),)


def _about_the_user(config: Config) -> Sequence[str]:
    if not config.user or lingers():
        return ()
    return (
        f"The systemd of user {user_name()} ends with the last session, and its services with it: `loginctl "
        f"enable-linger {user_name()}` keeps it up.",
    )


def _about_the_journal(config: Config, unit: Service) -> Sequence[str]:
    if config.user or not unit.keeps_output or journal_is_open():
        return ()
    return (
        f"User {user_name()} may not read the machine's journal, so nothing of its output is seen: `usermod -aG "
        f"systemd-journal {user_name()}`, then log in anew.",
    )


def _history(manager: Manager, shown: Iterable[Shown], until: float) -> tuple[History, str]:
    """What the journal tells of those of which systemd has forgotten something; and why it cannot be read."""
    asked = sorted({one.id for one in shown if _has_more_to_tell(one)})
    if not asked:
        return History(), ""
    seconds = max(0.1, min(JOURNAL_SECONDS, until - time.monotonic()))
    try:
        answer = journal(question(manager, asked, os.geteuid()), seconds, HISTORY_BYTES, enough=True)
    except EngineError as error:
        return History(), f"{error} So its restarts are only counted from look to look."
    return read_history(entries(answer.out)), ""


def _has_more_to_tell(shown: Shown) -> bool:
    """A unit that was restarted has had other runs; one that nothing refers to was forgotten with its end."""
    forgotten = not shown.lives and not shown.text("InvocationID") and shown.text("LoadState") != "not-found"
    return shown.number("NRestarts") > 0 or forgotten


def _pid(shown: Shown) -> int | None:
    """Of its main process, if the process of that number here is in its control group: systemd may be another
    machine's, with us in a container of it."""
    pid = shown.number("MainPID")
    return pid if pid and shown.lives and shown.group in cgroup_of(pid) else None


def _command(shown: Shown, config: Config, pid: int | None) -> tuple[str, ...]:
    """What a copy started by hand would run. systemd shows it without quotes: what runs, or bots.json, tells words."""
    line = shown.command
    if not line or not shown.folder:
        return ()
    proc = read_proc(pid) if pid else None
    for words in (config.command, proc.argv if proc else None):
        if words and " ".join(words) == line:
            return tuple(words)
    return tuple(line.split())


def _no_such_unit(config: Config, seconds: float) -> NoSuchUnitError:
    """Names the closest."""
    import difflib

    mean = ""
    try:
        listed = ctl(config.manager, "list-unit-files", "--type=service", "--no-legend", names=[], seconds=seconds)
        known = [line.split()[0] for line in listed.out.decode("utf-8", "replace").splitlines() if line.strip()]
        near = difflib.get_close_matches(config.service, known, n=1)
        mean = f": did you mean {clean(near[0], 80)}?" if near else "."
    except EngineError:
        mean = "."
    other = "" if config.user else ' If it is one of the user\'s own, write "user": true.'
    return NoSuchUnitError(f"{config.manager} has no unit {config.service}{mean}{other}")


# ---------------------------------------------------------------------------------------------------- start


def start(config: Config, seconds: float) -> None:
    """Start the service; one that systemd had given up begins anew. Raises FailedToStartError, EngineError."""
    manager, unit, end = config.manager, config.service, time.monotonic() + seconds
    until, ordered = min(end, time.monotonic() + SETTLED_SECONDS), time.time()
    before = _shown(config, _left(end))
    ctl(manager, "reset-failed", names=[unit], seconds=_left(end))  # else earlier starts count against this one
    answer = ctl(manager, "start", "--no-block", names=[unit], seconds=_left(end))
    if answer.code:
        raise _not_started(config, before, answer)
    while not _is_under_way(now := _shown(config, _left(end)), before):
        if _is_over(now):
            _require_not_forgotten(config, now, ordered)
            raise _came_to_nothing(config, now)
        if time.monotonic() > until:
            _require_not_queued(config, now)
            return
        time.sleep(POLL_SECONDS)


def _left(end: float) -> float:
    return max(LEAST_SECONDS, end - time.monotonic())


def _require_not_queued(config: Config, now: Shown) -> None:
    if now.is_queued:
        raise EngineError(
            f"{config.manager} has not started {config.service} yet: its start waits for other units. It comes up "
            "after them by itself; a stop takes the order back."
        )


def _require_not_forgotten(config: Config, now: Shown, ordered: float) -> None:
    """Of a unit that nothing refers to and that ended well before anybody could look, systemd knows nothing any more,
    not even that it ran; the journal has that it was started."""
    until = time.monotonic() + FORGOTTEN_SECONDS
    while _has_more_to_tell(now) and not now.text("ConditionTimestamp"):
        history, _ = _history(config.manager, [now], until)
        for run in history.of(now.id):
            if run.started and run.started.timestamp() >= ordered:
                text = f"{config.manager} started {config.service}, and it ended well at once."
                raise FailedToStartError(text, Exit(run.id, datetime.now(UTC)))
        if time.monotonic() > until:
            return
        time.sleep(POLL_SECONDS)  # the journal may be a moment behind


def _shown(config: Config, seconds: float) -> Shown:
    found = by_name(records(show(config.manager, PROPERTIES, [config.service], seconds))).get(config.service)
    if found is None:
        raise EngineError(f"{config.manager} says nothing of {config.service}.")
    if found.text("LoadState") == "not-found" and not found.lives:
        raise _no_such_unit(config, seconds)
    return found


def _is_under_way(now: Shown, before: Shown) -> bool:
    """It has its main process, or had one that ended already."""
    if now.text("InvocationID") in ("", before.text("InvocationID")):
        return False
    if _is_over(now):
        ended = exit_of(now, (), why_not_executed)
        return ended is not None and ended.at is not None
    return now.waits or (now.number("MainPID") > 0 and now.lives)


def _is_over(now: Shown) -> bool:
    return now.state in ("inactive", "failed") and not now.number("Job")


def _not_started(config: Config, before: Shown, answer: Answer) -> EngineError:
    load = before.text("LoadState")
    if load in ("masked", "bad-setting", "error"):
        why = "it is masked" if load == "masked" else f"systemd cannot read its unit file ({load})"
        text = clean(before.text("LoadError"), 200).strip()
        return _failed(config, f"{config.service}: {why}{f': {text}' if text else ''}")
    return refused(config.manager, "start", config.service, answer)


def _came_to_nothing(config: Config, now: Shown) -> EngineError:
    never = exit_of(now, (), why_not_executed)
    if never is not None and never.failed_to_start and now.text("InvocationID"):
        return FailedToStartError(f"{config.manager} did not start {config.service}: {never.failed_to_start}.", never)
    if now.text("ConditionResult") == "no" and now.text("ConditionTimestamp"):
        return _failed(config, f"{config.service}: a condition in its unit file does not hold")
    if now.text("Result") == "start-limit-hit":
        return EngineError(f"{config.manager} does not start {config.service}: it was started too often (StartLimit).")
    return _failed(config, f"{config.service}: systemd did not start it, since another unit that it needs failed")


def _failed(config: Config, why: str) -> FailedToStartError:
    now = datetime.now(UTC)
    ended = Exit(key=f"not-started/{now.timestamp():.3f}", at=now, failed_to_start=why)
    return FailedToStartError(f"{config.manager} did not start {why}.", ended)


# ---------------------------------------------------------------------------------------------------- stop


def stop(config: Config, unit: Unit, grace: float, seconds: float) -> None:
    """systemd asks it to end and kills it after its own TimeoutStopSec, or after `grace` seconds if that is earlier.

    Returns when it has ended, or when the time is over. Raises EngineError.
    """
    manager, until = config.manager, time.monotonic() + seconds
    if isinstance(unit, Service) and unit.is_frozen:
        ctl(manager, "thaw", names=[unit.id], seconds=seconds)
    if _stopped(manager, unit.id, min(grace, seconds)):
        return
    left = max(KILL_SECONDS, until - time.monotonic())
    killed = ctl(manager, "kill", "--signal=SIGKILL", names=[unit.id], seconds=left)
    if killed.code and not re.search(r"not loaded|No main process|not active|No process", killed.said):
        raise refused(manager, "kill", unit.id, killed)
    _stopped(manager, unit.id, max(KILL_SECONDS, until - time.monotonic()))


def _stopped(manager: Manager, unit: str, seconds: float) -> bool:
    """Whether a stop was through within that time; else it goes on, with nobody waiting."""
    try:
        answer = ctl(manager, "stop", names=[unit], seconds=seconds)
    except LateError:
        return False
    if answer.code and "not loaded" not in answer.said:
        raise refused(manager, "stop", unit, answer)
    return True


# ---------------------------------------------------------------------------------------------------- memory


def memory_of(config: Config) -> int | None:
    """The service's memory limit in bytes; None: it has none. Raises EngineError."""
    said = ctl(
        config.manager, "show", "--property=MemoryMax", "--value", names=[config.service], seconds=MEMORY_SECONDS
    )
    text = said.out.decode("ascii", "replace").strip()
    return int(text) if text.isdecimal() and len(text) < 19 else None


def set_memory(config: Config, count: int) -> int | None:
    """Give it another memory limit, at once and for good; gives the old one. Raises EngineError."""
    old = memory_of(config)
    words = [config.service, f"MemoryMax={count}"]
    answer = ctl(config.manager, "set-property", names=words, seconds=MEMORY_SECONDS)
    if answer.code:
        raise refused(config.manager, "change", config.service, answer)
    return old
