"""From systemd's words about a service to a unit: pure, so that its tests are tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from botkeep.exec_env import LOCKED
from botkeep.model import Exit, InstanceState
from botkeep.untrusted import clean

from .engine import Unit
from .find import Twin
from .systemd_facts import EXITED, Shown, span
from .systemd_history import History, Run

LOOPS_FROM = 3
"""Restarts by systemd itself, before a unit that stands between two of them is called a loop."""
SHORT_RUN = timedelta(seconds=10)
AT_ONCE = timedelta(seconds=1)
"""Within which systemd gives up a command that it cannot execute; a program's own exit code may be the same number."""
_STATES = {
    "active": InstanceState.RUNNING,
    "reloading": InstanceState.RUNNING,
    "refreshing": InstanceState.RUNNING,
    "activating": InstanceState.STARTING,
    "deactivating": InstanceState.RUNNING,
}
_STEPS = {
    200: "CHDIR", 201: "NICE", 202: "FDS", 203: "EXEC", 204: "MEMORY", 205: "LIMITS", 206: "OOM_ADJUST",
    207: "SIGNAL_MASK", 208: "STDIN", 209: "STDOUT", 210: "CHROOT", 211: "IOPRIO", 213: "SECUREBITS",
    214: "SETSCHEDULER", 215: "CPUAFFINITY", 216: "GROUP", 217: "USER", 218: "CAPABILITIES", 219: "CGROUP",
    220: "SETSID", 222: "STDERR", 224: "PAM", 225: "NETWORK", 226: "NAMESPACE", 227: "NO_NEW_PRIVILEGES",
    228: "SECCOMP", 232: "ADDRESS_FAMILIES", 233: "RUNTIME_DIRECTORY", 235: "CHOWN", 237: "KEYRING",
    238: "STATE_DIRECTORY", 239: "CACHE_DIRECTORY", 240: "LOGS_DIRECTORY", 241: "CONFIGURATION_DIRECTORY",
    242: "NUMA_POLICY", 243: "CREDENTIALS", 245: "BPF",
}  # fmt: skip
"""Exit codes of systemd itself, for what keeps it from executing a command."""
_NEVER_RAN = {
    "resources": "systemd could not get what it needs to start it (resources), for example its EnvironmentFile",
    "exec-condition": "its ExecCondition says that it must not be started",
    "protocol": "it did not behave as its Type says",
    "timeout": "it was not up within its TimeoutStartSec",
}
WHAT_HAPPENED = {
    "watchdog": "systemd ended it because it gave no sign of life within its WatchdogSec (watchdog).",
    "timeout": "systemd ended it because it was too slow at starting, stopping or ending (timeout).",
    "oom-kill": "The kernel ended a process of it for lack of memory, and systemd the rest (oom-kill).",
    "core-dump": "It dumped core: `coredumpctl` shows where it stood, if that is installed.",
}
Executable = Callable[[str], str]
"""A path -> why it cannot be executed, in the kernel's words; empty if it can."""


@dataclass(frozen=True)
class Service(Unit):
    """A service as a unit, and what it takes to stop it and to read its output."""

    user: bool = False
    invocation: str = ""
    is_frozen: bool = False
    """By systemd itself, which has to thaw it before it can end."""
    keeps_output: bool = True
    """In the journal; False: nowhere, or in a file."""


def unit_of(shown: Shown, history: History, *, user: bool, pid: int | None, twin: Twin, grace: int) -> Service:
    """The unit. `pid`: of its main process, if that is one of this machine."""
    runs = history.of(shown.id)
    invocation = shown.text("InvocationID")
    started = shown.moment("ExecMainStartTimestamp")
    return Service(
        id=shown.id,
        run=_run(shown, invocation),
        state=state_of(shown),
        pid=pid,
        cgroup=shown.group,
        started_at=started if shown.lives else None,
        exit=exit_of(shown, runs, why_not_executed),
        restarts=shown.number("NRestarts"),
        starts=starts_of(shown, runs),
        giving_up=giving_up(shown, is_pending=shown.id in history.pending),
        tells_restarts=True,
        twin=twin,
        log_file=_output_file(shown),
        notes=tuple(notes_of(shown, grace, user=user)),
        identity=f"systemd/{os.geteuid() if user else ''}/{shown.id}",
        called=f"service {shown.id}",
        why_frozen=_why_frozen(shown, user=user),
        only_once=_only_once(shown),
        user=user,
        invocation=invocation,
        is_frozen=shown.text("FreezerState") not in ("", "running"),
        keeps_output=any(shown.text(name) in ("journal", "journal+console", "") for name in _OUTPUTS),
    )


_OUTPUTS = ("StandardOutput", "StandardError")


def _run(shown: Shown, invocation: str) -> str:
    if shown.is_queued:
        return f"queued/{shown.text('Job')}"
    return f"waiting/{invocation}" if shown.waits else invocation or shown.id


def state_of(shown: Shown) -> InstanceState | None:
    """None: it does not run."""
    if shown.waits or shown.is_queued:
        return InstanceState.STARTING
    if not shown.lives:
        return None
    frozen = shown.text("FreezerState") in ("frozen", "freezing")
    return InstanceState.FROZEN if frozen else _STATES.get(shown.state)


def _why_frozen(shown: Shown, *, user: bool) -> str:
    if shown.text("FreezerState") not in ("frozen", "freezing"):
        return ""
    return f"systemd holds it; `systemctl{' --user' if user else ''} thaw {shown.id}` lets it go on"


def _only_once(shown: Shown) -> str:
    if "/systemd/transient/" not in shown.text("FragmentPath"):
        return ""
    return (
        f"{shown.id} was made by systemd-run and is gone when it ends. `botkeep systemd-units` writes one that stays."
    )


def starts_of(shown: Shown, runs: Sequence[Run]) -> tuple[datetime, ...]:
    """When systemd itself started it, and when the newest run began: a person's starts are nobody's restarts."""
    live = shown.text("InvocationID") if shown.lives else ""
    own = {one.started for one in runs if one.started and one.by_itself and one.id != live}
    began = shown.moment("ExecMainStartTimestamp") if live else None
    return tuple(sorted(own | ({began} if began else set())))


# ---------------------------------------------------------------------------------------------------- how it ended


def exit_of(shown: Shown, runs: Sequence[Run], why_not: Executable) -> Exit | None:
    """How its newest run that ended did: of the run before, if one lives, which only the journal knows."""
    own = None if shown.lives else _own_exit(shown, why_not)
    if own is not None:
        return own
    live = shown.text("InvocationID") if shown.lives else ""
    over = [one.exit() for one in runs if one.id != live]
    return next((one for one in reversed(over) if one is not None), None)


def _own_exit(shown: Shown, why_not: Executable) -> Exit | None:
    at, key = shown.moment("ExecMainExitTimestamp"), shown.text("InvocationID")
    result = shown.text("Result")
    if at is None or not key or _is_of_the_run_before(shown):
        never = _NEVER_RAN.get(result)
        return Exit(f"{key}/not-started", None, failed_to_start=never) if never else None
    status, killed = shown.number("ExecMainStatus"), shown.number("ExecMainCode") != EXITED
    if not killed and _is_systemds_own(shown, status, at):
        return Exit(key, at, failed_to_start=_why_not_started(shown, status, why_not))
    out_of_memory = True if result == "oom-kill" else None
    number = status if killed and status else None
    return Exit(key, at, code=None if killed else status, signal=number, out_of_memory=out_of_memory)


def _is_of_the_run_before(shown: Shown) -> bool:
    """Whether what systemd tells of the main process is older than the newest attempt, which never came to one."""
    ended, attempt = shown.moment("ExecMainExitTimestamp"), shown.moment("InactiveExitTimestamp")
    older = not shown.waits and ended is not None and attempt is not None and ended < attempt
    return older and shown.text("Result") in _NEVER_RAN


def _is_systemds_own(shown: Shown, status: int, ended: datetime) -> bool:
    began = shown.moment("ExecMainStartTimestamp")
    return status in _STEPS and began is not None and ended - began < AT_ONCE


def _why_not_started(shown: Shown, status: int, why_not: Executable) -> str:
    step = _STEPS[status]
    reason = why_not(shown.path) if step == "EXEC" and not shown.has_own_root else ""
    folder = shown.folder
    if step == "CHDIR" and folder and not os.path.isdir(folder):
        return clean(f"{folder}: {os.strerror(20 if os.path.exists(folder) else 2)}", 300)
    if reason:
        return clean(f"{shown.path}: {reason}", 300)
    return clean(f"{shown.path}: systemd could not execute it (step {step}, exit status {status})", 300)


def why_not_executed(path: str) -> str:
    """As the kernel would say it; empty if nothing is to be seen."""
    try:
        os.stat(path)
    except OSError as error:
        return os.strerror(error.errno or 0)
    if os.path.isdir(path) or not os.access(path, os.X_OK):
        return os.strerror(13)
    return ""


def giving_up(shown: Shown, *, is_pending: bool) -> str:
    """Said of a service that systemd starts again and again, or does not start any more.

    `is_pending`: systemd said that it starts it again, and did not. Its own word for that, start-limit-hit, is only
    there where the run before had ended well.
    """
    if _is_kept_out(shown) or shown.is_queued:
        return ""
    count, how = shown.number("NRestarts"), _said(shown)
    if shown.text("Result") == "start-limit-hit" or (is_pending and shown.state == "failed" and count):
        within = shown.text("StartLimitIntervalUSec")
        most = shown.text("StartLimitBurst")
        return f"systemd gave it up after {most} starts within {within} (start-limit-hit{how})"
    if shown.waits and count >= LOOPS_FROM and _was_short(shown):
        return f"systemd has restarted it {count} times, and it ended again ({how.removeprefix(', ') or 'ended well'})"
    return ""


def _said(shown: Shown) -> str:
    ended = _own_exit(shown, lambda _: "")
    if ended is None:
        return ""
    if ended.failed_to_start:
        return f", {ended.failed_to_start}"
    if ended.out_of_memory:
        return ", out of memory"
    return f", exit code {ended.code}" if ended.code is not None else f", signal {ended.signal}"


def _was_short(shown: Shown) -> bool:
    began, ended = shown.moment("ExecMainStartTimestamp"), shown.moment("ExecMainExitTimestamp")
    return began is None or ended is None or ended - began < SHORT_RUN


def _is_kept_out(shown: Shown) -> bool:
    """Whether it is not started because a copy that systemd knows nothing of still lives: no loop, and what we want."""
    left = shown.number("ExecMainCode") == EXITED and shown.number("ExecMainStatus") == LOCKED
    return shown.is_locked and left and not shown.lives


# ---------------------------------------------------------------------------------------------------- its output


def _output_file(shown: Shown) -> Path | None:
    """Where its output goes, if that is one file; `systemctl show` says `append`, and not to which."""
    kind = shown.text("StandardOutput")
    if kind not in ("append", "file", "truncate") or shown.has_own_root:
        return None
    paths = [shown.text("FragmentPath"), *shown.words("DropInPaths")]
    last = None
    for path in paths:
        for name, value in _settings(path):
            if name == "StandardOutput":
                last = value
    _, _, path = (last or "").partition(":")
    path = _filled_in(path, shown.id)
    return Path(path) if os.path.isabs(path) and "\0" not in path else None


def _settings(path: str) -> Iterator[tuple[str, str]]:
    try:
        text = Path(path).read_text("utf-8", "replace") if path else ""
    except OSError:
        return
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            yield name.strip(), value.strip()


def _filled_in(path: str, unit: str) -> str:
    """With what systemd fills in; empty if that is not known here."""
    whole, _, _ = unit.rpartition(".")
    prefix, at, instance = whole.partition("@")
    known = {"%%": "%", "%n": unit, "%N": whole, "%p": prefix, "%i": instance if at else ""}
    done, rest = "", path
    while rest:
        piece, percent, rest = rest.partition("%")
        done += piece
        if percent:
            if f"%{rest[:1]}" not in known:
                return ""
            done += known[f"%{rest[:1]}"]
            rest = rest[1:]
    return done


# ---------------------------------------------------------------------------------------------------- notes


def notes_of(shown: Shown, grace: int, *, user: bool) -> Iterator[str]:
    """What a person should know of the service and nothing is done about."""
    unit, option = shown.id, " --user" if user else ""
    yield from _about_its_file(shown, unit, option)
    yield from _about_its_end(shown, grace)
    others = [clean(one, 80) for one in (*shown.words("TriggeredBy"), *shown.words("UpheldBy"))]
    if others:
        yield f"{', '.join(others)} starts it too, so that a stop may not hold: `systemctl{option} stop {others[0]}`."
    if shown.is_queued:
        yield f"Its start waits for other units: `systemctl{option} list-jobs` says which; a stop takes the order back."
    if _is_kept_out(shown):
        yield (
            "systemd did not start it, since another copy of it lives and holds its lock: `botkeep restart` ends that "
            "one and starts it under systemd."
        )
    if all(shown.text(name) in ("null", "inherit") for name in _OUTPUTS) and shown.text("StandardOutput") == "null":
        yield "Its output is kept nowhere (StandardOutput=null), so that nothing can be read in it."


def _about_its_file(shown: Shown, unit: str, option: str) -> Iterator[str]:
    load = shown.text("LoadState")
    if load == "masked":
        yield f"It is masked: systemd starts it for nobody. `systemctl{option} unmask {unit}` ends that."
    elif load not in ("loaded", ""):
        yield f"systemd cannot read its unit file ({clean(load, 40)}): `systemctl{option} status {unit}` says why."
    if shown.text("NeedDaemonReload") == "yes":
        yield f"Its unit file was edited since: `systemctl{option} daemon-reload` before the next start brings that in."
    if shown.text("UnitFileState") == "disabled":
        yield (
            f"It is not enabled: it does not come up with the machine, and systemd forgets how it ended. `systemctl"
            f"{option} enable {unit}`."
        )


def _about_its_end(shown: Shown, grace: int) -> Iterator[str]:
    if shown.text("Result") in WHAT_HAPPENED and not shown.lives:
        yield WHAT_HAPPENED[shown.text("Result")]
    if shown.text("KillMode") in ("process", "none"):
        yield (
            f"What it starts outlives a stop by systemd (KillMode={shown.text('KillMode')}): write control-group. "
            "botkeep ends it."
        )
    patience = span(shown.text("TimeoutStopUSec"))
    if patience is not None and patience < timedelta(seconds=grace):
        yield (
            f"systemd kills it {shown.text('TimeoutStopUSec')} after a stop (TimeoutStopSec), though its stop_grace is "
            f"{grace} s."
        )
