"""Which living processes are this bot: by record, command line, name, lock, environment and descent.

Each single way misses one: the lock a child that was started with closed descriptors, the environment a program that
renamed itself, the process tree a double fork, the command line a renamed one. A look takes what the process table
says, for all bots at once; the hunt, before anything is stopped or started, takes the union of everything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from botkeep.model import EngineError, Instance, InstanceState
from botkeep.openfiles import inode_of, writes_to

from .base import Target
from .procs import (
    MARKER,
    Command,
    Proc,
    ProcessTable,
    carried_marker,
    cgroup_of,
    environment_of,
    interpreter_of,
    is_botkeep,
    is_same_program,
    lock_holders,
    process_key,
    program_key,
    watched_by,
    without_ending,
    working_folder,
)
from .record import Record, read_record


def command_of(target: Target) -> Command | None:
    """The bot's own command; None for one that is only watched."""
    if target.config is None:
        return None
    cwd = os.path.realpath(os.path.join(target.home, target.config.cwd))
    return Command(target.name, tuple(target.config.command), cwd)


def lock_name(target: Target) -> str | None:
    """`dev:ino` of the bot's lock; None if it has none yet."""
    try:
        status = os.stat(target.run_dir / "run.lock")
    except OSError:
        return None
    return f"{status.st_dev}:{status.st_ino}"


def marker_value(lock: str, name: str) -> str:
    """What the environment of the bot carries, and of every child that inherits it: this very lock, of this bot."""
    return f"{lock}:{name}"


# ---------------------------------------------------------------------------------------------------- matches


def matches(target: Target, table: ProcessTable) -> dict[int, str]:
    """Living processes that are this bot by their command line or name, and by which.

    Raises EngineError where what is configured cannot tell them from others.
    """
    command, names = command_of(target), _names(target)
    writers = _writers(target, table)
    found: dict[int, str] = {}
    for proc in _candidates(table, command, names):
        how = _how(proc, command, names, table)
        if (
            how
            and _is_of_this_place(target, proc, command, how, writers)
            and not _is_anothers(target, command, proc, how)
        ):
            found[proc.pid] = how
    found = {**writers, **found}
    if found and command is None and target.names_are_shared:
        raise EngineError(
            f"process_name {target.process_name!r} is that of several bots, so nothing tells pid {min(found)} from "
            f"theirs. Give each of them a `runtime` with its command."
        )
    return found


def _is_of_this_place(target: Target, proc: Proc, command: Command | None, how: str, writers: dict[int, str]) -> bool:
    """Whether a program that many bots share, like freqtrade, runs for this bot.

    Two people's `freqtrade trade --config config.json` are the same program with the same words: the folder decides, or
    what it writes. A script of one's own is told by where it lies. Arguments with whole paths tell by themselves.
    """
    if target.kin is None or proc.pid in writers or _tells_its_place(proc.argv[2:]):
        return True
    if how == "process_name":
        return not writers
    return command is None or _folder_of(proc.pid) in (None, os.path.realpath(command.cwd))


_RELATIVE = re.compile(r"[^-/].*(?:/|\.(?:json|ya?ml|toml|sqlite|db|log)\Z)")


def _tells_its_place(words: Sequence[str]) -> bool:
    """Whether arguments name files by their whole paths, and none by a path from the folder it runs in."""
    named = [_value_of(word) for word in words]
    return any(word.startswith("/") for word in named) and not any(_RELATIVE.match(word) for word in named)


def _value_of(word: str) -> str:
    """`--config=x.json` and `-cx.json` name a file as `--config x.json` does."""
    if word.startswith("--"):
        return word.partition("=")[2] or word
    return word[2:] if re.match(r"-[A-Za-z].", word) else word


def _writers(target: Target, table: ProcessTable) -> dict[int, str]:
    """Programs of the bot's kind that have its data file open for writing, however they were started.

    A second freqtrade on the same database starts silently behind the taken port, and trades without an API; from
    another folder and with another spelling of its arguments, nothing else tells it.
    """
    path = target.data_file
    inode = inode_of(path) if target.kin and path else None
    if target.kin is None or path is None or inode is None:
        return {}
    found = (pid for pid in table.writers(target.kin).get(inode, ()) if pid not in table.own_line)
    return {pid: "writer" for pid in found if writes_to(pid, path)}


def _names(target: Target) -> frozenset[str]:
    """What `process_name` may match; the extension is optional. Nothing where the command tells better."""
    name = target.process_name
    if not name or (target.config and (target.names_are_shared or _tells_itself(target))):
        return frozenset()
    if not interpreter_of(name):
        return frozenset({name, without_ending(name)})
    if target.config:
        return frozenset()
    raise EngineError(
        f"process_name {name!r} names every program that {name} runs. Write the name of the bot's script instead."
    )


def _tells_itself(target: Target) -> bool:
    """Whether the command is better than a name that every bot of its kind has."""
    return target.kin is not None and getattr(target.config, "command", None) is not None


def _candidates(table: ProcessTable, command: Command | None, names: frozenset[str]) -> Iterable[Proc]:
    found = {proc.pid: proc for name in names for proc in table.by_name.get(name, ())}
    if command:
        found |= {proc.pid: proc for proc in table.by_program.get(program_key(command.argv), ())}
    return found.values()


def _how(proc: Proc, command: Command | None, names: frozenset[str], table: ProcessTable) -> str | None:
    if watched_by(proc) is not None:
        return None
    if command and is_same_program(proc, command.argv, command.cwd):
        return "command"
    if proc.pid in table.own_line:
        return None  # a script called like the bot that calls us
    return "process_name" if any(proc in table.by_name.get(name, ()) for name in names) else None


def _is_anothers(target: Target, command: Command | None, proc: Proc, how: str) -> bool:
    """Whether a process that looks like this bot is another one of the fleet: same program, same name.

    Or our own question to it: `hbot status` bears the name that `hbot start` has.
    """
    if how == "process_name" and QUESTION in environment_of(proc.pid):
        return True
    rivals = [
        one
        for one in target.rivals.get(program_key(proc.argv), ())
        if one.owner != target.name and is_same_program(proc, one.argv, one.cwd)
    ]
    carried = carried_marker(proc.pid) if rivals or how == "process_name" else None
    if carried and _is_neighbours(target, carried):
        return True
    if not rivals or _is_own_marker(target, carried):
        return False
    return how == "process_name" or _works_elsewhere(target, command, proc, rivals)


def _is_own_marker(target: Target, carried: str | None) -> bool:
    lock = lock_name(target)
    return bool(carried and lock) and carried == marker_value(str(lock), target.name)


def _is_neighbours(target: Target, carried: str) -> bool:
    """Whether botkeep put this marker into another bot of this workspace."""
    lock, _, name = carried.rpartition(":")
    if not name or "/" in name or name == target.name:
        return False
    try:
        status = os.stat(target.run_dir.parent / name / "run.lock")
    except OSError:
        return False
    return lock == f"{status.st_dev}:{status.st_ino}"


def _works_elsewhere(target: Target, command: Command | None, proc: Proc, rivals: list[Command]) -> bool:
    """The same script with the same arguments: the folder decides, and where it does not, nobody may guess."""
    place = _folder_of(proc.pid)
    there = [one.owner for one in rivals if os.path.realpath(one.cwd) == place]
    here = command is not None and command.cwd == place
    if here != bool(there):
        return not here
    owners = ", ".join(sorted({target.name, *(one.owner for one in rivals)}))
    raise EngineError(
        f"pid {proc.pid} runs the same command as {owners}, and botkeep did not start it: nothing tells whose it is. "
        f"End it, or give the bots different arguments or folders."
    )


def _folder_of(pid: int) -> str | None:
    try:
        return working_folder(pid)
    except PermissionError:
        return None


@dataclass(frozen=True)
class Twin:
    """By what a copy of an engine's unit is known in the process table."""

    command: tuple[str, ...] = ()
    """As a plain process of this machine; empty: it runs in a place of its own, where the same words mean another."""
    cwd: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the engine gives to this unit's processes, and to no other's."""
    engine: str = ""
    """The one of them that names the engine: who has it, and not the rest, is another unit's, whatever it runs."""
    service: str = ""
    """The unit's name, where systemd is the engine: what it executes as another service is that one's."""


def strangers(target: Target, twins: Sequence[Twin], table: ProcessTable, own: Set[int]) -> dict[int, str]:
    """Processes that are the bot though its engine may not know them, and by which. `own`: those that it knows."""
    writers = _writers(target, table)
    found = {pid: how for pid, how in writers.items() if pid not in own}
    skipped = own | table.own_line
    alike = (*_twins(target, twins, table, skipped, writers), *_namesakes(target, twins, table, skipped))
    for proc, how in (*_marked(target, twins, table, skipped), *alike):
        if watched_by(proc) is None:
            found.setdefault(proc.pid, how)
    return found


def _marked(
    target: Target, twins: Sequence[Twin], table: ProcessTable, skipped: Set[int]
) -> Iterator[tuple[Proc, str]]:
    """What botkeep itself started as this bot, under whichever engine.

    Whatever the bot ever started has the marker too - a log viewer, another tool of an assistant's - and outlives it:
    nothing is the bot by that alone.
    """
    lock = lock_name(target)
    carriers = table.carriers({MARKER: marker_value(lock, target.name)}) if lock else ()
    for proc in carriers:
        if lock and proc.pid not in skipped and _is_the_bot(target, twins, table, proc, lock):
            yield proc, "marker"


def _is_the_bot(target: Target, twins: Sequence[Twin], table: ProcessTable, proc: Proc, lock: str) -> bool:
    """By what a mere heir of its variables does not have: its lock, its record, its command, its data."""
    if lock_holders({lock}, [proc.pid]) or (target.kin is not None and target.kin(proc.argv)):
        return True
    record = read_record(target.run_dir)
    recorded = record.bot(table) if record else None
    if recorded is not None and recorded.pid == proc.pid:
        return True
    if any(one.command and is_same_program(proc, one.command, one.cwd) for one in twins):
        return True
    return target.data_file is not None and writes_to(proc.pid, target.data_file)


def _twins(
    target: Target, twins: Sequence[Twin], table: ProcessTable, skipped: Set[int], writers: dict[int, str]
) -> Iterator[tuple[Proc, str]]:
    """By command, unless somebody runs it as another bot; by what the engine gave it, unless in a place of its own
    that has the same names."""
    for twin in twins:
        ours = Command(target.name, twin.command, twin.cwd)
        for proc in table.by_program.get(program_key(ours.argv), ()) if ours.argv else ():
            same = proc.pid not in skipped and is_same_program(proc, ours.argv, ours.cwd)
            here = same and _is_of_this_place(target, proc, ours, "command", writers)
            if here and not _is_known_as_another(target, proc, twin):
                yield proc, "command"
        for proc in heirs(twin, table):
            if proc.pid not in skipped and _container(cgroup_of(proc.pid)) == _container(table.own_cgroup):
                yield proc, "environment"


def heirs(twin: Twin, table: ProcessTable) -> tuple[Proc, ...]:
    """What has the variables that an engine gave a unit, without botkeep that the bot called, and what that called."""
    if not twin.environment:
        return ()
    carriers = {one.pid: one for one in table.carriers(twin.environment)}
    tools = {pid for pid, one in carriers.items() if is_botkeep(one)}
    return tuple(one for pid, one in carriers.items() if not tools or tools.isdisjoint((pid, *table.ancestors(pid))))


def _is_known_as_another(target: Target, proc: Proc, twin: Twin) -> bool:
    """Whether botkeep started it as another bot, or the engine as another unit: its settings may have been changed
    since, so that two units have swapped their commands in what it says."""
    if _is_neighbours(target, carried_marker(proc.pid) or "") or is_another_service(proc, twin.service):
        return True
    carried = environment_of(proc.pid) if twin.engine else {}
    of_this_engine = bool(carried) and carried.get(twin.engine) == twin.environment[twin.engine]
    return of_this_engine and not twin.environment.items() <= carried.items()


def _namesakes(
    target: Target, twins: Sequence[Twin], table: ProcessTable, skipped: Set[int]
) -> Iterator[tuple[Proc, str]]:
    for name in _names(target):
        for proc in table.by_name.get(name, ()):
            if proc.pid not in skipped and not _is_kept_for_another(proc, twins, table):
                yield proc, "process_name"


def _container(cgroup: str) -> str:
    """The container that a control group belongs to; empty: to none, or nobody may know."""
    found = _CONTAINER.search(cgroup)
    return found[0] if found else ""


def is_another_service(proc: Proc, service: str) -> bool:
    """Whether systemd itself executed this process, or the shell that did, as another service than this one.

    Three services of one script may have one command. What a person starts from a service (cron, sshd, a terminal) is
    not executed by systemd, and carries the pid of what was.
    """
    if not service or environment_of(proc.pid).get(_EXECUTED) not in (str(proc.pid), str(proc.ppid)):
        return False
    found = _SERVICE.findall(cgroup_of(proc.pid))
    return bool(found) and service not in found


_EXECUTED = "SYSTEMD_EXEC_PID"
_SERVICE = re.compile(r"(?<=/)[^/\n]+\.service(?=$|/)", re.MULTILINE)
QUESTION = "BOTKEEP_QUESTION"
"""The variable by which a program that botkeep runs to ask a bot is known (profiles/command.py)."""
_CONTAINER = re.compile(r"[0-9a-f]{64}")


def _is_kept_for_another(proc: Proc, twins: Sequence[Twin], table: ProcessTable) -> bool:
    """Whether an engine runs this process as something else: three programs of one script have one name."""
    if _CONTAINER.search(table.cgroups.get(proc.pid, "")):
        return True
    if any(is_another_service(proc, twin.service) for twin in twins):
        return True
    own = [twin.environment for twin in twins if twin.environment]
    carried = environment_of(proc.pid) if own else {}
    return any(carried.get(name, value) != value for one in own for name, value in one.items())


# ---------------------------------------------------------------------------------------------------- instances


@dataclass(frozen=True)
class _Family:
    """What belongs to the recorded run: the bot, what hangs below its watcher, what carries its lock or marker."""

    target: Target
    table: ProcessTable
    record: Record
    bot: Proc | None
    below: frozenset[int]

    def holds(self, pid: int) -> bool:
        if (self.bot and pid == self.bot.pid) or pid in self.below:
            return True
        if carried_marker(pid) == marker_value(self.record.lock, self.target.name):
            return True
        return bool(lock_holders({self.record.lock}, [pid]))


def instances(target: Target, table: ProcessTable, record: Record | None) -> tuple[Instance, ...]:
    """Group the processes found: workers and wrapper shells belong to their topmost ancestor that was found too."""
    found = matches(target, table)
    family = _family(target, table, record)
    if family and family.bot:
        found[family.bot.pid] = "recorded"
    tops = [pid for pid in found if not any(above in found for above in _up_to_watcher(table, pid))]
    ours = [pid for pid in tops if family and (len(tops) > 1 or family.bot) and family.holds(pid)]
    others = [_instance(table, pid, (), found[pid], str(target.run_dir)) for pid in tops if pid not in ours]
    own = (_own_instance(family, ours, found),) if family and ours else ()
    return (*own, *sorted(others, key=lambda one: one.pid or 0))


def _family(target: Target, table: ProcessTable, record: Record | None) -> _Family | None:
    if record is None or record.boot_id != table.boot:
        return None
    bot, watcher = record.bot(table), record.watcher(table)
    below = table.descendants(watcher.pid, str(target.run_dir)) if watcher else ()
    return _Family(target, table, record, bot, frozenset(below))


def _up_to_watcher(table: ProcessTable, pid: int) -> Iterable[int]:
    """Ancestors below the watcher: what is above it has nothing to do with this bot, even if it started us."""
    for above in table.ancestors(pid):
        if above not in table.procs or watched_by(table.procs[above]) is not None:
            return
        yield above


def _own_instance(family: _Family, tops: list[int], found: dict[int, str]) -> Instance:
    """One instance of all of them: the recorded bot, or the eldest of what it left behind."""
    table, run_dir = family.table, str(family.target.run_dir)
    eldest = min(tops, key=lambda pid: table.procs[pid].start_ticks)
    lead = family.bot.pid if family.bot else eldest
    more = (*tops, *(below for top in tops for below in table.descendants(top, run_dir)), *family.below)
    how = "recorded" if family.bot else "descendant" if lead in family.below else found[lead]
    return _instance(table, lead, more, how, run_dir, family.record if family.bot else None)


def _instance(
    table: ProcessTable, pid: int, more: Iterable[int], how: str, run_dir: str, record: Record | None = None
) -> Instance:
    proc = table.procs[pid]
    members = tuple(dict.fromkeys((pid, *table.descendants(pid, run_dir), *more)))
    return Instance(
        key=record.key if record else process_key(proc, table.boot),
        pid=pid,
        state=InstanceState.FROZEN if proc.state == "T" else InstanceState.RUNNING,
        started_at=table.started_at(proc),
        ours=record is not None,
        how=how,
        members=members,
        rss_bytes=sum(table.procs[member].rss_bytes for member in members),
        entry=record.entry if record else None,
    )


# ---------------------------------------------------------------------------------------------------- the hunt


def hunt(target: Target, table: ProcessTable | None = None, *, held: str = "", starting: int = 0) -> dict[int, Proc]:
    """Every living process of the bot, also a start under way; without the watcher that will say how it ended.

    `held`: the lock (`dev:ino`) that the caller holds, so that nobody else can have it who inherited it. `starting`:
    pid of the caller's own launcher, whose watcher waits for the word that nothing was found.

    Raises EngineError if this program runs inside the bot, or where two bots cannot be told apart.
    """
    table = table or ProcessTable.read()
    record = read_record(target.run_dir)
    run_dir = str(target.run_dir)
    watchers = [one for one in table.watchers.get(run_dir, ()) if starting not in (one, *table.ancestors(one))]
    found = {*matches(target, table), *watchers, *_carriers(target, table, record, held)}
    watcher = record.watcher(table) if record else None
    recorded = (record.bot(table), watcher) if record else ()
    found |= {proc.pid for proc in recorded if proc}
    found.discard(os.getpid())
    _require_outside(target, table, found)
    for pid in tuple(found):
        found.update(table.descendants(pid, run_dir))
    living = {pid: proc for pid in found if (proc := table.find(pid)) is not None and not proc.dead}
    if watcher:
        living.pop(watcher.pid, None)
    return living


def _carriers(target: Target, table: ProcessTable, record: Record | None, held: str) -> set[int]:
    """Whatever has the bot's lock open or carries its marker; the recorded lock too, should its file be gone.

    Who has it open is asked of every process's descriptors, which takes longer than all the rest: not for a lock that
    the caller got, since the kernel gives it to nobody while a process lives that inherited it.
    """
    locks = {lock for lock in (lock_name(target), record.lock if record else None) if lock}
    markers = {marker_value(lock, target.name) for lock in locks}
    asked = locks - {held}
    return (lock_holders(asked) if asked else set()) | {pid for pid in table.procs if table.marker(pid) in markers}


def _require_outside(target: Target, table: ProcessTable, found: set[int]) -> None:
    inside = sorted(found & table.own_line)
    if inside:
        raise EngineError(
            f"{target.name} cannot be stopped or started from here: botkeep itself runs inside it (below pid "
            f"{inside[0]}). Ask from outside of it."
        )
