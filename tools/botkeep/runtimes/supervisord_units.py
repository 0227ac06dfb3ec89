"""From supervisord's words about a program to a unit: pure, so that its tests are tables."""

from __future__ import annotations

import errno
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from botkeep.model import Exit, InstanceState
from botkeep.untrusted import clean

from .engine import Unit
from .find import Twin
from .procs import program_key
from .supervisord_facts import LOCKED, Program, Settings, State
from .supervisord_history import MATCHES, History, Run, asked_for, restarts_what_is_done
from .supervisord_rpc import Place

URL = "SUPERVISOR_SERVER_URL"
"""The variable in which a program is told who runs it."""
SAFE_STARTSECS = 10
"""With one second, a program that lived 0.05 s was called RUNNING in 5 of 61 starts."""
SPAN = 64
"""Seconds of a run's start that go into its name: the interface and the log have moments that are some milliseconds
apart, and so a second in one run of forty. Nobody gets a pid twice within a minute."""
_STATES = {
    State.STARTING: InstanceState.STARTING,
    State.RUNNING: InstanceState.RUNNING,
    State.STOPPING: InstanceState.RUNNING,
    State.BACKOFF: InstanceState.STARTING,
}
"""Of what lives, or will in a moment without anybody's doing."""
_HAS_PROCESS = frozenset({State.STARTING, State.RUNNING, State.STOPPING, State.UNKNOWN})
_ENDED = re.compile(r"Exited too quickly|Bad exit code")
_NOT_STARTED = (
    (re.compile(r"can't find command '(.{1,300})'"), errno.ENOENT),
    (re.compile(r"command at '(.{1,300})' is not executable"), errno.EACCES),
    (re.compile(r"command at '(.{1,300})' is a directory"), errno.EISDIR),
    (re.compile(r"no permission to run command '(.{1,300})'"), errno.EACCES),
)


@dataclass(frozen=True)
class Surroundings:
    """What is the same for all programs of one server."""

    place: Place
    boot: str
    is_here: bool
    """Its pids are those of this machine."""
    is_trusted: bool
    """It is of this user or of root: its word for where a file is may be taken."""
    url: str
    """What it gives its programs as SUPERVISOR_SERVER_URL."""
    folder: str
    """Where it works, and so its programs without a directory of their own; empty: not known."""
    history: History
    shared: frozenset[str] = frozenset()
    """Names that several of its programs have, in different groups: its log does not tell them apart."""
    repeated: frozenset[tuple[object, ...]] = frozenset()
    """Commands that several of its programs run in one folder: by them no program is known."""
    is_logging: bool = True
    """Its own log can be read."""
    server: str = ""
    """Names this very supervisord, by whatever address it was asked; empty: it is none of this machine's."""


@dataclass(frozen=True)
class Own:
    """The main process of a program, proven to be it."""

    pid: int
    url: str
    """Its SUPERVISOR_SERVER_URL; empty if that cannot be read."""


@dataclass(frozen=True)
class Supervised(Unit):
    """A program as a unit, and what it takes to read its output."""

    stdout: str = ""
    stderr: str = ""
    """Paths, as supervisord has them; empty: there is none."""
    is_readable: bool = False
    """They are files of this machine, and may be opened."""
    stopped_at: datetime | None = None
    """When somebody told supervisord to stop it, and nobody has started it since."""


def unit_of(
    program: Program, settings: Settings | None, around: Surroundings, own: Own | None, grace: int
) -> Supervised:
    """The unit. `own`: its main process, if it lives on this machine. `grace`: the bot's, in seconds."""
    runs = _runs(program, around)
    current = next((one for one in reversed(runs) if one.is_at(program.pid, program.start)), None)
    lives = program.state in _HAS_PROCESS and program.pid > 0
    state = _STATES.get(program.state, InstanceState.RUNNING if lives and own else None)
    started = current.started if current else _at(program.start)
    begun = {one.started for one in runs}
    if started is not None and lives:
        begun.add(started)
    stdout, stderr = _files(program)
    readable = around.is_here and around.is_trusted
    return Supervised(
        id=program.spec,
        run=_waiting(program, around) if state and not lives else _key(around, program, _pid(program, runs)),
        state=state,
        pid=own.pid if own else None,
        started_at=started if lives else None,
        exit=_exit(program, runs, around, lives=lives),
        starts=tuple(sorted(begun)),
        asked=tuple(asked_for(runs, settings.startsecs if settings else SAFE_STARTSECS)),
        tells_restarts=bool(runs) and program.name not in around.shared and not (lives and current is None),
        giving_up="" if _is_kept_out(settings, runs) else _giving_up(program, runs),
        twin=_twin(program, settings, around, own),
        log_file=Path(stdout or stderr) if readable and (stdout or stderr) and not (stdout and stderr) else None,
        notes=tuple(_notes(program, settings, around, runs, grace)),
        identity=f"{around.server or around.place} {program.spec}",
        called=f"program {program.spec.partition(':')[2] if program.group == program.name else program.spec}",
        stdout=stdout,
        stderr=stderr,
        is_readable=readable,
        stopped_at=runs[-1].ended if program.state is State.STOPPED and runs and runs[-1].as_told else None,
    )


def _runs(program: Program, around: Surroundings) -> tuple[Run, ...]:
    runs = around.history.of(program.name)
    if program.name not in around.shared:
        return runs
    return tuple(one for one in runs if program.pid and one.is_at(program.pid, program.start))


def _at(second: int) -> datetime | None:
    return datetime.fromtimestamp(second, UTC) if second else None


def _files(program: Program) -> tuple[str, str]:
    """stdout and stderr; the second is empty where it goes into the first."""
    found = [path if os.path.isabs(path) and "\0" not in path else "" for path in _paths(program)]
    return found[0], found[1] if found[1] != found[0] else ""


def _paths(program: Program) -> tuple[str, str]:
    return program.stdout_logfile, program.stderr_logfile


# ---------------------------------------------------------------------------------------------------- runs


def _key(around: Surroundings, program: Program, pid: int, second: int | None = None) -> str:
    """Names one run. On this machine as the kernel's words about a killed process are matched: boot, pid, ..."""
    began = program.start if second is None else second
    began = began // SPAN if pid else began
    mark = zlib.crc32(f"{around.place} {program.spec}".encode())
    if around.place.is_loopback:
        return f"{around.boot[:8]}:{pid}:{began}:{mark}"
    return f"{around.place}/{program.spec}/{pid}/{began}"


def _waiting(program: Program, around: Surroundings) -> str:
    """Between two attempts: none of them, so that nobody takes it for a run that goes on."""
    return f"waiting/{_key(around, program, 0)}"


def _pid(program: Program, runs: Sequence[Run]) -> int:
    """Of its newest run; an ended one has none any more but in the log."""
    if program.pid:
        return program.pid
    last = runs[-1] if runs else None
    return last.pid if last is not None and last.began_in(program.start) else 0


def _exit(program: Program, runs: Sequence[Run], around: Surroundings, *, lives: bool) -> Exit | None:
    """How its newest run that ended did: of the run before, if one lives."""
    if not lives and program.spawnerr and not _ENDED.match(program.spawnerr):
        key = f"{_key(around, program, 0)}/not-started"
        return Exit(key=key, at=_at(program.start), failed_to_start=why_not(program.spawnerr))
    over = [one for one in runs if one.ended is not None or one.lost]
    last = over[-1] if over else None
    if last is not None and (last.ended is None or _is_newest(last.ended, program)):
        newest = not lives and last.began_in(program.start)
        key = _key(around, program, last.pid, None if newest else int(last.started.timestamp()))
        return Exit(key=key, at=last.ended, code=last.code, signal=last.signal)
    if not program.stop:
        return None
    code = program.exitstatus if program.state in (State.EXITED, State.STOPPED) and program.exitstatus >= 0 else None
    key = _key(around, program, 0) if not lives else f"{_key(around, program, 0, program.stop)}/before"
    return Exit(key=key, at=_at(program.stop), code=code)


def _is_newest(ended: datetime, program: Program) -> bool:
    """Whether no later end is known: the log may have been cut, or turned over."""
    known = _at(program.stop)
    return known is None or ended >= known - MATCHES


def why_not(spawnerr: str) -> str:
    """supervisord's reason for not starting a program, in the kernel's words."""
    for pattern, number in _NOT_STARTED:
        found = pattern.search(spawnerr)
        if found:
            return clean(f"{found[1]}: {os.strerror(number)}", 300)
    return clean(spawnerr, 300).rstrip(".")


def _giving_up(program: Program, runs: Sequence[Run]) -> str:
    """Said of a program that supervisord starts again and again, or does not start any more."""
    if program.state is State.UNKNOWN:
        return "supervisord calls it UNKNOWN: it could not stop it, and ends itself when its process does"
    if program.state not in (State.BACKOFF, State.FATAL):
        return ""
    if program.spawnerr and not _ENDED.match(program.spawnerr):
        how = why_not(program.spawnerr)
    else:
        last = runs[-1] if runs and runs[-1].began_in(program.start) else None
        how = f"it exited too quickly{_said(last)}"
    more = "gave it up" if program.state is State.FATAL else "tries it again"
    return f"supervisord calls it {program.state.name} and {more} ({how})"


def _is_kept_out(settings: Settings | None, runs: Sequence[Run]) -> bool:
    """Whether it is not started because a copy that outlived supervisord still lives: no loop, and what we want."""
    return settings is not None and settings.is_locked and bool(runs) and runs[-1].code == LOCKED


def _said(run: Run | None) -> str:
    if run is None or run.ended is None:
        return ""
    return f", with exit code {run.code}" if run.code is not None else f", by signal {run.signal}" if run.signal else ""


# ---------------------------------------------------------------------------------------------------- copies, notes


def _twin(program: Program, settings: Settings | None, around: Surroundings, own: Own | None) -> Twin:
    """supervisord marks what it starts; a copy started by hand has the command, where that is this program's alone."""
    if not around.is_here:
        return Twin()
    environment = {
        "SUPERVISOR_PROCESS_NAME": program.name,
        "SUPERVISOR_GROUP_NAME": program.group,
        URL: (own.url if own else "") or (settings.serverurl if settings else "") or around.url,
    }
    if settings is None or command_key(settings) in around.repeated:
        return Twin(environment=environment, engine=URL)
    folder = os.path.join(around.folder, settings.directory)
    argv = settings.argv if os.path.isabs(folder) else ()
    return Twin(command=argv, cwd=folder if argv else "/", environment=environment, engine=URL)


def command_key(settings: Settings) -> tuple[object, ...]:
    """Equal for two programs of which nobody can say, by command and folder, which one a process is."""
    return (program_key(settings.argv), settings.directory)


def _notes(
    program: Program, settings: Settings | None, around: Surroundings, runs: Sequence[Run], grace: int
) -> Iterator[str]:
    """What a person should know of the program and nothing is done about."""
    if settings is not None:
        yield from _about_settings(settings, grace)
    if _is_kept_out(settings, runs):
        yield (
            "supervisord did not start it, since another copy of it lives and holds its lock: `botkeep restart` ends "
            "that one and starts it under supervisord."
        )
    if restarts_what_is_done(runs):
        yield (
            "supervisord restarts it also after a good exit (autorestart=true), so that it looks well whatever it "
            "does: write autorestart=unexpected."
        )
    if not program.stdout_logfile and not program.stderr_logfile:
        yield "Its output is kept nowhere, so that nothing can be read in it: write stdout_logfile."
    yield from _about_the_log(program, around)
    if not around.place.is_loopback:
        yield "Its supervisord is asked over the network, where everybody on the way can read the password."


def _about_settings(settings: Settings, grace: int) -> Iterator[str]:
    if settings.startsecs < SAFE_STARTSECS:
        yield (
            f"supervisord calls it RUNNING after {settings.startsecs} s, and forgets its failed starts then: write "
            f"startsecs={SAFE_STARTSECS}."
        )
    if not settings.killasgroup:
        yield (
            "What it starts outlives a stop by supervisord (stopasgroup and killasgroup are off): write both as true. "
            "botkeep ends it."
        )
    if settings.stopwaitsecs < grace:
        yield (
            f"supervisord kills it {settings.stopwaitsecs} s after a stop (stopwaitsecs), though its stop_grace is "
            f"{grace} s."
        )
    elif settings.stopwaitsecs > grace:
        yield (
            f"botkeep kills it {grace} s after a stop (stop_grace); supervisord would wait {settings.stopwaitsecs} s "
            f"(stopwaitsecs)."
        )


def _about_the_log(program: Program, around: Surroundings) -> Iterator[str]:
    counted = "its restarts are only counted from look to look, and no signal is known."
    if not around.is_logging:
        yield f"supervisord keeps no log of its own that can be read: {counted}"
    elif not around.history.believed:
        yield f"supervisord's log (loglevel=debug) holds what programs say, so nothing in it is believed: {counted}"
    elif program.name in around.shared:
        yield f"Several groups have a program of its name, and supervisord's log does not tell them apart: {counted}"
