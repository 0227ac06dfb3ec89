"""Bots as plain processes of this machine: never two, each in its own session, outliving whoever started it.

The kernel's lock on run.lock is handed to the bot and to its watcher (shim.py), so that a free lock proves that no
descendant which kept it is alive. What escapes the lock is hunted (find.py).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from botkeep.durable import Lock
from botkeep.model import EngineError, Exit, Instance, InstanceState, RuntimeLook

from . import ready
from .base import Started, StillAliveError, Stopped, Target
from .ending import EMPTY_SCANS, SCAN_PAUSE, Find, describe, kill, signal_all, wait_for_any, wait_until_gone
from .find import command_of, hunt, instances, lock_name, marker_value
from .procs import (
    MARKER,
    Proc,
    ProcessTable,
    is_launcher,
    lock_holders,
    process_key,
    read_proc,
    read_program,
    watched_by,
)
from .record import Record, ask, exit_of, read_exit, read_record, unask

KIND = "process"
TAKES_ENVIRONMENT = True
"""A start gives the bot the target's variables."""
START_PROVES = True
"""A start itself proves that nothing of the bot is alive: of one that is down nothing has to be stopped before."""
SHIM = ready.SHIM
PASSED_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR")
LAUNCH_SECONDS = 10.0
LOCK_SECONDS = 3.0
KILL_SECONDS = 3.0
"""Kept of a caller's deadline, so that a bot which ignores SIGTERM is killed and not left."""
ALONE_SECONDS = 0.3
EXIT_SECONDS = 0.5
"""How long a look waits for a watcher that has seen its bot end and is writing how."""
UNWRITTEN = re.compile(r"(\.(spawn|stopping\.json)\..*|(instance|exit)\.json\.\d+)")
"""Temporary files that a killed writer leaves."""
ERRNO_BASE = 100


class Config(BaseModel):
    """How to run a bot as a plain process of this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["process"]
    command: list[str] = Field(min_length=1, description="The program and its arguments; no shell reads them.")
    cwd: str = Field(".", description="Where it runs, from the workspace.")
    stop_grace: int = Field(
        30, ge=1, le=35, description="Seconds between SIGTERM and SIGKILL; a tool call must end within 50 s."
    )
    env_file: str | None = Field(None, description="KEY=VALUE lines, mode 0600: the bot's keys. Never shown.")
    env: dict[str, str] = Field(default_factory=dict, description="Further variables that are no secrets.")


# ---------------------------------------------------------------------------------------------------- look


def survey(targets: Sequence[Target], table: ProcessTable) -> dict[str, RuntimeLook]:
    """All these bots from one pass over the process table."""
    found = {}
    for target in targets:
        try:
            found[target.name] = look(target, table)
        except (EngineError, OSError) as error:
            found[target.name] = RuntimeLook(error=str(error))
    return found


def look(target: Target, table: ProcessTable) -> RuntimeLook:
    """Live instances and the last exit, from one pass over the process table. Changes nothing.

    Raises EngineError where what is configured cannot tell this bot from others.
    """
    record = read_record(target.run_dir)
    living = instances(target, table, record)
    return RuntimeLook(
        instances=living,
        exit=_last_exit(target, table, record, living),
        generation=record.generation if record else 0,
        command_seen=_command_line(table, living),
    )


def log(target: Target) -> Path | None:
    """The bot's output."""
    return target.log_path


def logs(target: Target) -> tuple[Path, ...]:
    """The bot's output, the newest file first."""
    older = (target.log_path.with_name(f"{target.log_path.name}.{number}") for number in (1, 2, 3))
    return tuple(path for path in (target.log_path, *older) if path.exists())


def grace(target: Target) -> float:
    """Seconds between SIGTERM and SIGKILL."""
    return float(target.config.stop_grace) if target.config else 30.0


def run_offset(target: Target) -> int | None:
    """Where in the log the newest run began, in bytes; None if botkeep did not start it."""
    record = read_record(target.run_dir)
    if record is None:
        return None
    rotated = target.log_path.with_name(f"{target.log_path.name}.1")
    with suppress(OSError):
        if rotated.stat().st_mtime > record.at:
            return 0
    return record.log_offset


def _command_line(table: ProcessTable, living: tuple[Instance, ...]) -> str | None:
    proc = table.procs.get(living[0].pid or 0) if living else None
    return " ".join(proc.argv) if proc else None


def _last_exit(target: Target, table: ProcessTable, record: Record | None, living: tuple[Instance, ...]) -> Exit | None:
    """How the newest run that ended did: as its watcher recorded it, or `not known`, never guessed."""
    seen = _exit_once_written(target, table, record)
    if record and not any(one.ours for one in living) and (seen is None or seen["key"] != record.key):
        return Exit(key=record.key, at=None)
    if seen is None:
        return None
    command = target.config.command[0] if target.config else ""
    return exit_of(seen, target.run_dir, command, target.config.cwd if target.config else "")


def _exit_once_written(target: Target, table: ProcessTable, record: Record | None) -> dict[str, Any] | None:
    """The newest recorded exit; a bot that ended a moment ago has a watcher that is just writing it down."""
    seen = read_exit(target.run_dir)
    if record is None or record.boot_id != table.boot or record.bot(table):
        return seen
    until = time.monotonic() + EXIT_SECONDS
    while (seen is None or seen["key"] != record.key) and time.monotonic() < until and _is_writing(record):
        time.sleep(0.001)
        seen = read_exit(target.run_dir)
    return seen if seen and seen["key"] == record.key else read_exit(target.run_dir)


def _is_writing(record: Record) -> bool:
    watcher = read_proc(record.shim_pid)
    alive = watcher is not None and not watcher.dead and watcher.start_ticks == record.shim_ticks
    return alive and watcher is not None and watcher.state != "T"


# ---------------------------------------------------------------------------------------------------- stop


def stop(target: Target, grace: float, deadline: float) -> Stopped:
    """SIGTERM and SIGCONT, wait `grace` seconds, SIGKILL; proof: two empty scans and a free lock.

    `deadline`: a time.monotonic(); one nearer than grace and a kill cuts the grace. Raises EngineError as `hunt`.
    """
    table = ProcessTable.read()
    before, first = instances(target, table, read_record(target.run_dir)), hunt(target, table)
    _ask(target, table)
    under_way = _starting_among(first, target)
    signal_all(under_way, signal.SIGKILL)  # a frozen one that is woken by us would start the bot first
    signal_all({pid: one for pid, one in first.items() if pid not in under_way}, signal.SIGTERM, signal.SIGCONT)
    ended = wait_until_gone(_hunting(target), min(time.monotonic() + grace, deadline - KILL_SECONDS))
    left = _still_held(target) if ended or kill(_hunting(target), deadline) else _left(target)
    if left:
        with suppress(OSError):
            unask(target.run_dir)
    return Stopped((*before, *_unseen(first, before, table)), left, killed=not ended)


def _starting_among(found: dict[int, Proc], target: Target) -> dict[int, Proc]:
    """Launchers and watchers of a start that has not recorded its bot; if they are killed, there will be none."""
    record = read_record(target.run_dir)
    recorded = (record.pid, record.shim_pid) if record else ()
    return {pid: one for pid, one in found.items() if is_launcher(one) and pid not in recorded}


def _hunting(target: Target) -> Find:
    return lambda: hunt(target)


def _ask(target: Target, table: ProcessTable) -> None:
    """Note that we end it, so that its exit is not taken for a crash; not for one that had ended before."""
    record = read_record(target.run_dir)
    if record and record.bot(table):
        with suppress(OSError):  # a full disk must not keep a runaway bot alive: only the word `asked` is lost
            ask(target.run_dir, record.generation)


def _unseen(first: dict[int, Proc], before: tuple[Instance, ...], table: ProcessTable) -> tuple[Instance, ...]:
    """What only the hunt found: left behind by a run that ended, and renamed or started with closed descriptors."""
    seen = {member for one in before for member in one.members}
    rest = {pid: proc for pid, proc in first.items() if pid not in seen and watched_by(proc) is None}
    tops = [proc for pid, proc in rest.items() if not {*rest, *seen} & set(table.ancestors(pid))]
    return tuple(_leftover(proc, table) for proc in tops)


def _leftover(proc: Proc, table: ProcessTable) -> Instance:
    key, since = process_key(proc, table.boot), table.started_at(proc)
    return Instance(key, proc.pid, InstanceState.RUNNING, since, ours=False, how="lock")


def _left(target: Target) -> tuple[str, ...]:
    """What could not be ended."""
    return tuple(describe(proc) for proc in hunt(target).values())


def _still_held(target: Target) -> tuple[str, ...]:
    """Whoever keeps the lock though no scan finds anything: a process that we may not see."""
    _end_idle_watchers(target)
    if lock_name(target) is None:
        return ()
    lock = Lock(target.run_dir / "run.lock")
    if lock.acquire(wait=ALONE_SECONDS) or (_end_frozen_launchers() and lock.acquire(wait=LOCK_SECONDS)):
        lock.release()
        return ()
    return (_holders(target),)


def _holders(target: Target) -> str:
    name = lock_name(target)
    pids = lock_holders({name} if name else ()) - {os.getpid()}
    return f"{', '.join(f'pid {pid}' for pid in sorted(pids)) or 'a process that we may not see'} (it holds its lock)"


def _end_frozen_launchers() -> bool:
    """A frozen launcher whose caller was killed has the lock in an order that it has not read.

    Awake, it would carry it out. One that waits for another caller is missed by nobody: that one starts its own."""
    procs = ProcessTable.read().procs
    frozen = {pid: proc for pid, proc in procs.items() if is_launcher(proc) and proc.state == "T"}
    signal_all(frozen, signal.SIGKILL)
    return bool(frozen)


def _end_idle_watchers(target: Target) -> None:
    """A watcher whose bot is gone ends by itself; one that somebody froze is woken, and ended if it will not."""
    until = time.monotonic() + 2.0
    while watchers := _watchers(target):
        signal_all(watchers, signal.SIGCONT)
        if time.monotonic() > until:
            signal_all(watchers, signal.SIGKILL)
            return
        wait_for_any(watchers, 0.05)


def _watchers(target: Target) -> dict[int, Proc]:
    table = ProcessTable.read()
    found = {pid: table.procs[pid] for pid in table.watchers.get(str(target.run_dir), ())}
    record = read_record(target.run_dir)
    watcher = record.watcher(table) if record else None
    return found | ({watcher.pid: watcher} if watcher else {})


# ---------------------------------------------------------------------------------------------------- start


def start(target: Target, entry: str, deadline: float) -> Started:
    """Start the bot through its watcher, bound to ledger entry `entry`; return when it is recorded and executed.

    Raises StillAliveError if anything of the bot is alive or its lock is held, EngineError if nothing could be started.
    A command that cannot be executed is an exit that says so.
    """
    if target.config is None:
        raise EngineError(f"{target.name} has no runtime in config/bots.json: it can be watched, not started.")
    lock = _take_lock(target, deadline)
    try:
        return _launch(target, lock, entry, deadline)
    finally:
        lock.release()
        with suppress(OSError):  # the next start then starts its launcher itself
            ready.refill()


def _take_lock(target: Target, deadline: float) -> Lock:
    """Ours now; a watcher that is about to end is waited for. Raises EngineError, naming who has it."""
    lock = Lock(target.run_dir / "run.lock")
    if lock.acquire(wait=ALONE_SECONDS):
        return lock
    _refuse_living(target, hunt(target))
    if lock.acquire(wait=max(0.0, min(LOCK_SECONDS, deadline - time.monotonic()))):
        return lock
    raise StillAliveError(f"{target.name} was not started: {_holders(target)} still lives. Stop it first.")


def _require_alone(target: Target, lock: Lock, launcher: int) -> float:
    """Nothing of the bot is alive but our own start: two scans in a row are empty, both of after we got the lock.
    Looked at for a while: what ends just now is a zombie or half gone for a moment. Returns a time.monotonic() before
    the last of them began."""
    until, table, empty, began = time.monotonic() + ALONE_SECONDS, target.table, 0, 0.0
    while empty < EMPTY_SCANS:
        began = time.monotonic()
        table = table.again() if table else ProcessTable.read()
        alive = hunt(target, table, held=_name_of(lock), starting=launcher)
        empty = 0 if alive else empty + 1
        if alive and time.monotonic() > until:
            _refuse_living(target, alive)
        if alive:
            time.sleep(SCAN_PAUSE)
    return began


def _name_of(lock: Lock) -> str:
    """`dev:ino` of the lock that we hold, whatever became of its name."""
    status = os.fstat(lock.fd) if lock.fd is not None else None
    return f"{status.st_dev}:{status.st_ino}" if status else ""


def _refuse_living(target: Target, alive: dict[int, Proc]) -> None:
    if alive:
        left = ", ".join(describe(proc) for proc in alive.values())
        raise StillAliveError(f"{target.name} was not started: {left} is still alive. Stop it first.")


def _launch(target: Target, lock: Lock, entry: str, deadline: float) -> Started:
    generation = _next_generation(target)
    try:
        _write_order(target, generation)
        code = _run_launcher(target, lock, generation, entry, deadline)
    except (OSError, ValueError) as error:
        raise EngineError(f"{target.name} could not be started: {error}.") from error
    record = read_record(target.run_dir)
    if record is None or record.generation != generation:
        _abandon(target, lock, generation)
        record = read_record(target.run_dir)
    if record is None or record.generation != generation:
        raise EngineError(f"{target.name} could not be started: {_why_not(target, code)}.")
    return _started(target, record)


def _next_generation(target: Target) -> int:
    record, seen = read_record(target.run_dir), read_exit(target.run_dir)
    return max(record.generation if record else 0, seen["generation"] if seen else 0) + 1


def _write_order(target: Target, generation: int) -> None:
    """What the watcher is to do, in a file: a command line would show it to everybody."""
    for name in os.listdir(target.run_dir):
        if UNWRITTEN.fullmatch(name):
            (target.run_dir / name).unlink(missing_ok=True)
    command = command_of(target)
    marker = f"{MARKER}={marker_value(str(lock_name(target)), target.name)}"
    fields = [str(generation), str(target.log_bytes), command.cwd if command else "/", str(target.log_path), marker]
    words = [os.fsencode(field) for field in (*fields, *target.config.command)]
    if any(b"\0" in word for word in words):
        raise ValueError("its command holds a NUL character")
    spawn = target.run_dir / f".spawn.{os.getpid()}"
    fd = os.open(spawn, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(b"\0".join(words))
    spawn.rename(target.run_dir / "spawn")  # without a sync: after a power cut nobody waits for it


def _run_launcher(target: Target, lock: Lock, generation: int, entry: str, deadline: float) -> int | None:
    """The launcher's exit code (see shim.launch); None if it did not answer in time.

    It is told to go on once nothing of the bot was found: it takes as long to get ready as two scans take.
    """
    permit, leave = os.pipe()
    try:
        launcher = _launcher(target, generation, entry, (lock.fd or 0, permit))
    except BaseException:
        os.close(leave)
        raise
    finally:
        os.close(permit)
    try:
        proven = _require_alone(target, lock, launcher.pid)
        with suppress(BrokenPipeError):  # it ended by itself, and says why
            os.write(leave, b"%.6f" % proven)
    finally:
        os.close(leave)
        code = _code_of(launcher, deadline)
    return code


def _launcher(target: Target, generation: int, entry: str, fds: tuple[int, int]) -> subprocess.Popen[bytes]:
    """The one that waits for an order, or a new one. `fds`: the lock, and the pipe by which it is told to go on."""
    environment, run_dir = bot_environment(target), str(target.run_dir)
    waiting = ready.launch((run_dir, str(generation), entry), environment, fds)
    lock, permit = fds
    arguments = [run_dir, str(lock), str(generation), entry, str(permit)]
    return waiting or subprocess.Popen(
        [sys.executable, "-I", "-S", str(SHIM), "launch", *arguments],
        env=environment,
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _code_of(launcher: subprocess.Popen[bytes], deadline: float) -> int | None:
    try:
        return launcher.wait(max(1.0, min(LAUNCH_SECONDS, deadline - time.monotonic())))
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()
        return None


def _abandon(target: Target, lock: Lock, generation: int) -> None:
    """The launcher was killed or did not answer: its watcher must not start the bot behind our back."""
    until = time.monotonic() + KILL_SECONDS
    while (under_way := _watchers(target) | _launchers_with(lock)) and time.monotonic() < until:
        record = read_record(target.run_dir)
        if record and record.generation == generation:
            return  # it was only late
        signal_all(under_way, signal.SIGKILL)
        wait_for_any(under_way, 0.05)


def _launchers_with(lock: Lock) -> dict[int, Proc]:
    """Who was launched with this very lock and has not yet become a watcher: a launcher that waited for its order
    names no bot in its command line, and what it forks does not either."""
    table = ProcessTable.read()
    shims = {pid: proc for pid, proc in table.procs.items() if is_launcher(proc) and not proc.dead}
    return {pid: shims[pid] for pid in lock_holders({_name_of(lock)}, shims)}


def _why_not(target: Target, code: int | None) -> str:
    if code is None:
        return f"its watcher did not answer within {LAUNCH_SECONDS:.0f} s"
    if code > ERRNO_BASE:
        reason = os.strerror(code - ERRNO_BASE)
        return f"{reason}. Look whether {target.run_dir} and {target.log_path} can be written"
    return f"its watcher ended before it recorded anything (exit code {code}). Look whether the machine lacks memory"


def _started(target: Target, record: Record) -> Started:
    seen = look(target, ProcessTable.read())
    ours = next((one for one in seen.instances if one.key == record.key), None)
    return Started(ours, None if ours else seen.exit, record.generation)


def bot_environment(target: Target) -> dict[str, str]:
    """What the bot gets: the few variables every program needs, and what its own configuration names."""
    passed = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ}
    return passed | target.environment


def starting(target: Target) -> bool:
    """Whether a start is under way that has not recorded its bot yet: its caller was killed in between."""
    record = read_record(target.run_dir)
    recorded = record.generation if record else 0
    return any(int(proc.argv[7]) > recorded for proc in _watchers(target).values() if proc.argv[7:8])


def missing_script(target: Target) -> str | None:
    """The script that the configured interpreter would not find, for `doctor`; None if there is no such mistake."""
    program = read_program(tuple(target.config.command))
    if program is None or not program.interpreter or program.is_module:
        return None
    path = target.home / target.config.cwd / program.script
    return None if path.is_file() else str(path)


def find_command(target: Target) -> str | None:
    """Where the configured program is, for `doctor`; None if it cannot be found."""
    command: str = target.config.command[0]
    if "/" in command:
        path = target.home / target.config.cwd / command
        return str(path) if os.access(path, os.X_OK) else None
    return shutil.which(command, path=bot_environment(target).get("PATH"))
