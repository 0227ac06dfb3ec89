"""Bots as plain processes of this machine: never two, each in its own session, outliving whoever started it.

The kernel's lock on run.lock is handed to the bot and to its watcher (shim.py), so that a free lock proves that no
descendant which kept it is alive. A child started with closed descriptors escapes the lock, a program that renames
itself escapes the command line, a double fork escapes the process tree: the hunt takes the union of all of them.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..durable import Lock, read_json, write_atomic
from ..model import EngineError, Exit, Instance, InstanceState, RuntimeLook
from .base import Started, Stopped, Target
from .procs import (
    Proc,
    ProcessTable,
    is_same_program,
    lock_holders,
    marked,
    pidfd_inode,
    process_key,
    read_proc,
    read_program,
    without_ending,
)

KIND = "process"
SHIM = Path(__file__).with_name("shim.py")
PASSED_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR")
EMPTY_SCANS = 2
SCAN_PAUSE = 0.05
LAUNCH_SECONDS = 10.0


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


def look(target: Target, table: ProcessTable) -> RuntimeLook:
    """Live instances and the last exit, from one pass over the process table. Changes nothing."""
    record = _record(target)
    instances = _instances(target, table, record)
    return RuntimeLook(
        instances=instances,
        exit=_last_exit(target, table, record, instances),
        generation=_generation(record),
        command_seen=_command_line(table, instances),
    )


def logs(target: Target) -> tuple[Path, ...]:
    """The bot's output, the newest file first."""
    older = (target.log_path.with_name(f"{target.log_path.name}.{number}") for number in (1, 2, 3))
    return tuple(path for path in (target.log_path, *older) if path.exists())


def grace(target: Target) -> float:
    """Seconds between SIGTERM and SIGKILL."""
    return float(target.config.stop_grace) if target.config else 30.0


def run_offset(target: Target) -> int | None:
    """Where in the log the newest run began, in bytes; None if botkeep did not start it."""
    record = _record(target)
    offset = record.get("log_offset") if record else None
    return offset if isinstance(offset, int) else None


def _record(target: Target) -> dict[str, Any] | None:
    return read_json(target.run_dir / "instance.json")


def _generation(record: dict[str, Any] | None) -> int:
    return int(record.get("generation", 0)) if record else 0


def _recorded_alive(record: dict[str, Any] | None, table: ProcessTable, which: str) -> Proc | None:
    """The recorded bot or its shim, if it is that very process: same boot, start time and pidfd inode."""
    if not record or record.get("boot_id") != table.boot:
        return None
    ticks = record.get("start_ticks" if which == "pid" else "shim_ticks")
    proc = table.procs.get(int(record.get(which, 0)))
    if proc is None or proc.dead or proc.start_ticks != ticks:
        return None
    inode = record.get("pidfd_inode") if which == "pid" else None
    return None if inode and pidfd_inode(proc.pid) not in (inode, None) else proc


def _is_shim(proc: Proc) -> bool:
    return len(proc.argv) > 4 and proc.argv[1:3] == ("-I", "-S") and proc.argv[3].endswith("/runtimes/shim.py")


def _matches(target: Target, table: ProcessTable) -> dict[int, str]:
    """Processes that are this bot by their command line or name, and by which."""
    found: dict[int, str] = {}
    command = tuple(target.config.command) if target.config else ()
    cwd = str(target.home / target.config.cwd) if target.config else ""
    for proc in _candidates(target, table, command):
        if _is_shim(proc):
            continue
        if command and is_same_program(proc, command, cwd):
            found[proc.pid] = "command"
        elif _has_name(target, proc, table) and proc.argv not in target.rivals:
            found[proc.pid] = "process_name"
    return found


def _candidates(target: Target, table: ProcessTable, command: tuple[str, ...]) -> Iterable[Proc]:
    names = {target.process_name} if target.process_name else set()
    program = read_program(command) if command else None
    if program:
        names |= program.names
    elif command:
        names.add(command[0].rsplit("/", 1)[-1])
    names |= {without_ending(name) for name in names if name}
    seen = {proc.pid: proc for name in names if name for proc in table.by_name.get(name, ())}
    return seen.values()


def _has_name(target: Target, proc: Proc, table: ProcessTable) -> bool:
    """Whether `process_name` names this process, the extension optional, never by a part of it."""
    if not target.process_name or (target.names_are_shared and target.config):
        return False
    wanted = {target.process_name, without_ending(target.process_name)}
    return any(proc in table.by_name.get(name, ()) for name in wanted)


def _instances(target: Target, table: ProcessTable, record: dict[str, Any] | None) -> tuple[Instance, ...]:
    """Group the processes found: workers and wrapper shells belong to their topmost ancestor that was found too."""
    found = _matches(target, table)
    recorded = _recorded_alive(record, table, "pid")
    if recorded:
        found[recorded.pid] = "recorded"
    roots = {pid: how for pid, how in found.items() if not any(above in found for above in table.ancestors(pid))}
    if recorded:
        roots = _without_shims_children(roots, recorded, record, table)
    return tuple(_instance(table, pid, how, record) for pid, how in sorted(roots.items()))


def _without_shims_children(
    roots: dict[int, str], recorded: Proc, record: dict[str, Any] | None, table: ProcessTable
) -> dict[int, str]:
    """A worker that was double-forked hangs below our shim: it is part of the recorded instance, no second one."""
    shim = _recorded_alive(record, table, "shim_pid")
    below = set(table.descendants(shim.pid)) - {recorded.pid} if shim else set()
    kept = {pid: how for pid, how in roots.items() if pid not in below}
    if recorded.pid not in kept and not set(table.ancestors(recorded.pid)) & set(kept):
        kept[recorded.pid] = "recorded"
    return kept


def _instance(table: ProcessTable, pid: int, how: str, record: dict[str, Any] | None) -> Instance:
    proc = table.procs[pid]
    recorded = _recorded_alive(record, table, "pid")
    members = (pid, *table.descendants(pid))
    ours = recorded is not None and recorded.pid in members
    return Instance(
        key=process_key(proc, table.boot),
        pid=pid,
        state=InstanceState.FROZEN if proc.state == "T" else InstanceState.RUNNING,
        started_at=table.started_at(proc),
        ours=ours,
        how="recorded" if ours else how,
        members=members,
        rss_bytes=sum(table.procs[member].rss_bytes for member in members if member in table.procs),
        entry=str(record["entry"]) if ours and record else None,
    )


def _command_line(table: ProcessTable, instances: tuple[Instance, ...]) -> str | None:
    proc = table.procs.get(instances[0].pid or 0) if instances else None
    return " ".join(proc.argv) if proc else None


def _last_exit(
    target: Target, table: ProcessTable, record: dict[str, Any] | None, instances: tuple[Instance, ...]
) -> Exit | None:
    """How the newest run that ended did: as its shim recorded it, or `not known`, never guessed."""
    seen = read_json(target.run_dir / "exit.json")
    if seen and (not record or seen.get("generation") == record.get("generation")):
        return _exit(seen, asked=_was_asked(target, seen))
    if record and not any(one.ours for one in instances):
        return Exit(key=_record_key(record), at=None, asked=False)
    return _exit(seen, asked=_was_asked(target, seen)) if seen else None


def _record_key(record: dict[str, Any]) -> str:
    return f"{str(record['boot_id'])[:8]}:{record['pid']}:{record['start_ticks']}:{record['pidfd_inode']}"


def _was_asked(target: Target, seen: dict[str, Any]) -> bool:
    asked = read_json(target.run_dir / "stopping.json")
    return bool(asked) and asked is not None and asked.get("generation") == seen.get("generation")


def _exit(seen: dict[str, Any], *, asked: bool) -> Exit:
    errno = seen.get("errno")
    return Exit(
        key=str(seen["key"]),
        at=datetime.fromtimestamp(float(seen["at"]), UTC),
        code=None if errno else seen["code"],
        signal=seen["signal"],
        peak_rss_bytes=int(seen["peak_rss_kib"]) * 1024,
        out_of_memory=seen["oom"],
        failed_to_start=os.strerror(errno) if errno else None,
        asked=asked,
    )


def marker(target: Target) -> str:
    """What the bot's environment carries, and every child's that inherits it: this very run folder.

    Not the lock's own inode: whoever removes the lock file must not hide the bot's children with it.
    """
    status = target.run_dir.stat()
    return f"BOTKEEP_INSTANCE={status.st_dev}:{status.st_ino}"


def hunt(target: Target) -> dict[int, Proc]:
    """Every living process of the bot, by the union of all that can be asked; the shims of botkeep left out.

    Each single way misses one: lock holders a child with closed descriptors, the environment a program that renamed
    itself, the process tree a double fork, the command line a renamed one.
    """
    table = ProcessTable.read()
    record = _record(target)
    found = set(_matches(target, table)) | lock_holders(target.run_dir / "run.lock") | marked(marker(target))
    for which in ("pid", "shim_pid"):
        proc = _recorded_alive(record, table, which)
        if proc:
            found.add(proc.pid)
    for pid in tuple(found):
        found.update(table.descendants(pid))
    return {pid: proc for pid in found - table.excluded if (proc := _of_the_bot(table, pid)) is not None}


def _of_the_bot(table: ProcessTable, pid: int) -> Proc | None:
    proc = table.procs.get(pid)
    return None if proc is None or proc.dead or _is_shim(proc) else proc


def stop(target: Target, grace: float, deadline: float) -> Stopped:
    """SIGTERM and SIGCONT, wait `grace` seconds, SIGKILL, and two empty scans as proof. `deadline` is monotonic."""
    record = _record(target)
    before = look(target, ProcessTable.read()).instances
    with suppress(OSError):  # a full disk must not keep a runaway bot alive: only the word `asked` is lost
        write_atomic(target.run_dir / "stopping.json", b'{"generation": %d}' % _generation(record))
    _signal_all(hunt(target), signal.SIGTERM, signal.SIGCONT)
    gone = _wait_until_gone(target, min(time.monotonic() + grace, deadline))
    if not gone:
        _kill(target, deadline)
    left = hunt(target)
    if not left:
        _end_idle_shims(target)
    return Stopped(before, tuple(_describe(proc) for proc in left.values()), killed=not gone)


def _describe(proc: Proc) -> str:
    if proc.uid != os.geteuid() and os.geteuid() != 0:
        return f"pid {proc.pid} ({proc.comm}) belongs to user {proc.uid}"
    state = " in uninterruptible sleep" if proc.state == "D" else ""
    return f"pid {proc.pid} ({proc.comm}){state}"


def _signal_all(found: dict[int, Proc], *signals: int) -> None:
    """Signal exactly these processes: open the pidfd first, then look again, which closes the window for a reused pid."""
    for pid, proc in found.items():
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            now = read_proc(pid)
            if now is not None and now.start_ticks == proc.start_ticks:
                for number in signals:
                    signal.pidfd_send_signal(fd, number)
        except (ProcessLookupError, PermissionError):
            continue  # gone already, or not ours to signal: the scan that follows says what is left
        finally:
            os.close(fd)


def _wait_until_gone(target: Target, until: float) -> bool:
    """True after two scans in a row found nothing."""
    empty = 0
    while empty < EMPTY_SCANS:
        found = hunt(target)
        empty = 0 if found else empty + 1
        if not found:
            time.sleep(SCAN_PAUSE)
        elif time.monotonic() >= until:
            return False
        else:
            _wait_for_any(found, min(until - time.monotonic(), 1.0))
    return True


def _wait_for_any(found: dict[int, Proc], seconds: float) -> None:
    """Sleep until one of these processes ends (a pidfd becomes readable, also for a zombie)."""
    fds = []
    for pid in found:
        with suppress(OSError):
            fds.append(os.pidfd_open(pid))
    try:
        poller = select.poll()
        for fd in fds:
            poller.register(fd, select.POLLIN)
        poller.poll(max(10, int(seconds * 1000)) if fds else 10)
    finally:
        for fd in fds:
            os.close(fd)


def _kill(target: Target, deadline: float) -> None:
    """SIGKILL until two scans are empty: a process may fork while it is being killed."""
    while time.monotonic() < deadline:
        _signal_all(hunt(target), signal.SIGKILL)
        if _wait_until_gone(target, min(deadline, time.monotonic() + 1.0)):
            return


def _end_idle_shims(target: Target) -> None:
    """A shim whose bot is gone ends by itself; one that somebody froze is woken, and ended if it will not."""
    until = time.monotonic() + 2.0
    while holders := lock_holders(target.run_dir / "run.lock") - {os.getpid()}:
        shims = {pid: proc for pid in holders if (proc := read_proc(pid)) is not None and _is_shim(proc)}
        if not shims:
            return
        _signal_all(shims, signal.SIGCONT)
        if time.monotonic() > until:
            _signal_all(shims, signal.SIGKILL)
            return
        _wait_for_any(shims, 0.05)


def start(target: Target, entry: str, deadline: float) -> Started:
    """Start the bot through its shim, bound to ledger entry `entry`, and return when it is recorded and executed.

    Raises EngineError if anything of the bot is alive, its lock is held, or the command cannot be executed.
    """
    if target.config is None:
        raise EngineError(f"{target.name} has no runtime in config/bots.json: it can be watched, not started.")
    lock = Lock(target.run_dir / "run.lock")
    if not lock.acquire(wait=max(0.0, min(3.0, deadline - time.monotonic()))):
        holders = ", ".join(f"pid {pid}" for pid in sorted(lock_holders(lock.path))) or "a process that cannot be seen"
        raise EngineError(f"{target.name} was not started: its lock is held by {holders}. Stop it first.")
    try:
        alive = hunt(target)
        alive.pop(os.getpid(), None)
        if alive:
            left = ", ".join(_describe(proc) for proc in alive.values())
            raise EngineError(f"{target.name} was not started: {left} is still alive. Stop it first.")
        return _launch(target, lock, entry)
    finally:
        lock.release()


def _launch(target: Target, lock: Lock, entry: str) -> Started:
    generation = _generation(_record(target)) + 1
    cwd = str((target.home / target.config.cwd).resolve())
    fields = [str(generation), cwd, str(target.log_path), marker(target), *target.config.command]
    write_atomic(target.run_dir / "spawn", b"\0".join(os.fsencode(field) for field in fields))
    command = [sys.executable, "-I", "-S", str(SHIM), "launch", str(target.run_dir), str(lock.fd), str(generation), entry]
    try:
        done = subprocess.run(
            command,
            env=bot_environment(target),
            pass_fds=[lock.fd] if lock.fd is not None else [],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            timeout=LAUNCH_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{target.name} could not be started: {error}.") from error
    return _launched(target, done.returncode, generation)


def _launched(target: Target, code: int, generation: int) -> Started:
    seen = look(target, ProcessTable.read())
    if code == 0 and seen.generation == generation:
        ours = next((one for one in seen.instances if one.ours), None)
        return Started(ours, None if ours else seen.exit, generation)
    if seen.generation == generation:
        return Started(None, seen.exit, generation)
    raise EngineError(
        f"{target.name} could not be started: its watcher ended before it recorded anything. "
        f"Look at free disk space, and whether {target.log_path} can be written."
    )


def bot_environment(target: Target) -> dict[str, str]:
    """What the bot gets: the few variables every program needs, and what its own configuration names."""
    passed = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ}
    return passed | target.environment


def starting(target: Target) -> bool:
    """Whether a start is under way that has not recorded its bot yet: its caller was killed in between."""
    spawn = target.run_dir / "spawn"
    try:
        generation = int(spawn.read_bytes().split(b"\0", 1)[0])
    except (OSError, ValueError):
        return False
    if generation <= _generation(_record(target)):
        return False
    return any((proc := read_proc(pid)) and _is_shim(proc) for pid in lock_holders(target.run_dir / "run.lock"))


def find_command(target: Target) -> str | None:
    """Where the configured program is, for `doctor`; None if it cannot be found."""
    command = target.config.command[0]
    if "/" in command:
        path = target.home / target.config.cwd / command
        return str(path) if os.access(path, os.X_OK) else None
    return shutil.which(command, path=bot_environment(target).get("PATH"))
