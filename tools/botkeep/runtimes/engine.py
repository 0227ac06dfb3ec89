"""What is written once for all engines (Docker, supervisord, systemd, ...): never two, proof, records, logs.

An engine knows the one unit that a bot is configured as: a container, a program, a service. That no second copy lives
beside it - under another engine, started by hand, left by a supervisor that was killed, by a shell that was its
wrapper - is seen here, in the process table: an engine does not know what it did not start.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from botkeep.durable import read_json, write_atomic
from botkeep.model import EngineError, Exit, HealthLook, Instance, InstanceState, RuntimeLook, iso, parse_iso

from .base import Started, Stopped, Target
from .ending import describe, kill, signal_all, wait_until_gone
from .find import Twin, heirs, lock_name, strangers
from .procs import Proc, ProcessTable, lives_on, lock_holders, process_key, watched_by

LOOK_SECONDS = 8.0
"""That an engine may take to say what it runs; one that is away must not hold up the others."""
KILL_SECONDS = 3.0
STARTED_SECONDS = 10.0
POLL_SECONDS = 0.1
RUN_RECORD = "engine.json"
OWN_STARTS = 20
"""Of botkeep's own starts that are remembered."""
ORDER_HOLDS = 60.0
"""Seconds after the order within which a new run may be the one that was ordered, though nobody lived to see it."""


class FailedToStartError(EngineError):
    """The engine took the order and could not carry it out: the unit's own exit says why, or `ended` does."""

    def __init__(self, text: str, ended: Exit | None = None) -> None:
        super().__init__(text)
        self.ended = ended
        """Of an engine that keeps nothing of an attempt."""


class NoSuchUnitError(EngineError):
    """The engine answers, and has no such unit: one that runs is proven not to be there."""


@dataclass(frozen=True)
class Unit:
    """One thing that an engine runs for a bot: a container, a program, a task, a service, at one moment."""

    id: str
    """By which the engine is asked; never a name that somebody may give to another one."""
    run: str
    """Names this very run: equal in two looks only while it was not started anew."""
    state: InstanceState | None
    """None: it does not run."""
    pid: int | None = None
    """Of its main process on this machine; None elsewhere, or if it does not run."""
    cgroup: str = ""
    """What the control group of all its processes has in its path; empty: those below `pid` are its processes."""
    started_at: datetime | None = None
    exit: Exit | None = None
    """How its newest run that ended did; `key` is that run."""
    restarts: int | None = None
    """By the engine itself, as it counts them."""
    starts: tuple[datetime, ...] = ()
    """When it was started, by whomever, as far back as the engine tells."""
    asked: tuple[datetime, ...] = ()
    """Those of `starts` that somebody asked the engine for."""
    tells_restarts: bool = False
    """Its engine tells its own restarts from a person's: by `restarts` or, where it counts none, by `asked`."""
    giving_up: str = ""
    """The engine's word for a unit that it starts again and again, or does not start any more."""
    health: HealthLook | None = None
    twin: Twin = field(default_factory=Twin)
    """By what a copy that the engine does not know is known."""
    log_file: Path | None = None
    """Where the engine writes its output, if that is a file of this machine."""
    notes: tuple[str, ...] = ()
    identity: str = ""
    """Names the thing itself, by whatever address and name it is asked for, and nothing else; empty: nobody can say."""
    called: str = ""
    """With its kind, for a sentence: `container doge`."""
    why_frozen: str = ""
    """Of one that its engine holds: how, and what lets it go on; empty: by a signal."""
    only_once: str = ""
    """Why it cannot be started again once it has ended, and what to do; empty: it can."""


def side_by_side(jobs: Sequence[Callable[[], None]], seconds: float) -> None:
    """One job here, several each in a thread; gives up on those that take longer."""
    if len(jobs) == 1:
        jobs[0]()
        return
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


class Engine(Protocol):
    """One kind of engine. A new one is a module with these names and one line in `RUNTIMES`."""

    @property
    def KIND(self) -> str:  # noqa: N802
        """The `kind` of bots.json."""
        ...

    @property
    def Config(self) -> type[BaseModel]:  # noqa: N802
        """What bots.json says about a bot of this kind; has `stop_grace`."""
        ...

    def units(self, configs: Mapping[str, Any], seconds: float) -> Mapping[str, tuple[Unit, ...] | EngineError]:
        """The units of many bots, by the names given: one question to each engine, however many bots it runs.

        Several units of one bot: copies. None: the engine knows no such unit (a NoSuchUnitError says what it knows).
        Never raises; never takes longer than `seconds`.
        """
        ...

    def start(self, config: Any, seconds: float) -> None:
        """Start the unit; return when the engine has it under way. Raises FailedToStartError, EngineError."""
        ...

    def stop(self, config: Any, unit: Unit, grace: float, seconds: float) -> None:
        """Ask it to end, kill it after `grace` seconds; the engine must not start it again. Raises EngineError."""
        ...

    def read_log(
        self, config: Any, unit: Unit, cursor: Mapping[str, Any], seconds: float
    ) -> tuple[bytes, dict[str, Any]]:
        """Output since `cursor` (empty: the newest 256 KiB of it), and the next cursor, JSON. Raises EngineError.

        Only asked for a unit without `log_file`. An engine that can tell without a question that nothing was said since
        (and that the cursor would stay the same) also has `said_nothing_since(unit, cursor) -> bool`.
        """
        ...


@dataclass
class EngineRuntime:
    """A `Runtime` made of an engine."""

    engine: Engine
    known: dict[str, tuple[Unit, ...]] = field(default_factory=dict)
    """Units by bot, of the newest look: for logs, which are read right after it."""

    @property
    def KIND(self) -> str:  # noqa: N802
        """The engine's."""
        return self.engine.KIND

    @property
    def Config(self) -> type[BaseModel]:  # noqa: N802
        """The engine's."""
        return self.engine.Config

    @property
    def FAMILY(self) -> str:  # noqa: N802
        """Kinds of one family may run the same unit: a service of Compose is a container of Docker."""
        return str(getattr(self.engine, "FAMILY", self.KIND))

    # ------------------------------------------------------------------------------------------------ look

    def meant(self, targets: Sequence[Target], table: ProcessTable) -> dict[str, Mapping[str, str]]:
        """What each of these bots means, as in `RuntimeLook.units`; nothing where the engine does not say."""
        found = self.ask({one.name: one.config for one in targets}, targets, table)
        return {name: {} if isinstance(units, EngineError) else self._names(units) for name, units in found.items()}

    def _names(self, units: Sequence[Unit]) -> dict[str, str]:
        return {one.identity: one.called or f"{self.KIND} {one.id}" for one in units if one.identity}

    def survey(self, targets: Sequence[Target], table: ProcessTable) -> dict[str, RuntimeLook]:
        """All these bots at one moment; what cannot be seen of one is that one's error."""
        found = self.ask({one.name: one.config for one in targets}, targets, table)
        return {one.name: self._seen(one, found[one.name], table) for one in targets}

    def ask(
        self, configs: Mapping[str, Any], targets: Sequence[Target], table: ProcessTable
    ) -> Mapping[str, tuple[Unit, ...] | EngineError]:
        """Put the one question about many bots; an engine that can save questions by what it remembers overrides it."""
        del targets, table
        return self.engine.units(configs, LOOK_SECONDS)

    def look(self, target: Target, table: ProcessTable) -> RuntimeLook:
        """Raises EngineError if the engine does not say."""
        units = self._units(target)
        return self._told(target, units, table)

    def _units(self, target: Target) -> tuple[Unit, ...]:
        found = self.engine.units({target.name: target.config}, LOOK_SECONDS)[target.name]
        if isinstance(found, EngineError):
            raise found
        return found

    def _seen(self, target: Target, found: tuple[Unit, ...] | EngineError, table: ProcessTable) -> RuntimeLook:
        if isinstance(found, EngineError):
            return RuntimeLook(error=str(found))
        try:
            return self._told(target, found, table)
        except EngineError as error:
            return RuntimeLook(error=str(error))

    def _told(self, target: Target, units: tuple[Unit, ...], table: ProcessTable) -> RuntimeLook:
        self.known[target.name] = units
        record = _read_record(target)
        living = [one for one in units if one.state is not None]
        instances = [_instance(one, self.KIND, record, table) for one in living]
        members = {pid for one in instances for pid in one.members} | _coming_up(living, table)
        others = _copies(target, units, members, table)
        own = _of_runs_that_are_over(record, instances)
        newest = max((one for one in units if one.exit), key=_ended_at, default=None)
        return RuntimeLook(
            instances=(*instances, *others),
            exit=_last(_exit(target, newest), record),
            generation=record.get("generation", 0),
            restarts=sum(counts) if (counts := [one.restarts for one in units if one.restarts is not None]) else None,
            starts=tuple(sorted(at for one in units for at in one.starts if iso(at) not in own)),
            asked=tuple(sorted(at for one in units for at in one.asked)),
            tells_restarts=bool(units) and all(one.tells_restarts for one in units),
            giving_up=next((one.giving_up for one in units if one.giving_up), ""),
            health=next((one.health for one in living if one.health), None),
            notes=tuple(note for one in units for note in one.notes),
            units=self._names(units),
            only_once=units[0].only_once if units and all(one.only_once for one in units) else "",
        )

    # ------------------------------------------------------------------------------------------------ stop

    def stop(self, target: Target, grace: float, deadline: float) -> Stopped:
        """The engine stops its units; then everything that lives on, or never was the engine's, is ended here.

        A wrapper's children outlive `supervisorctl stop`, and are ended before anything is started. Proof: the engine
        says that none runs, and two scans of the process table are empty. Raises EngineError.
        """
        table = ProcessTable.read()
        before = self.look(target, table)
        units = [one for one in self.known[target.name] if one.state is not None]
        _require_outside(target, before, units, table)
        family = {pid: proc for one in before.instances for pid in one.members if (proc := table.procs.get(pid))}
        _ask(target, [one.run for one in units])
        asked = _Asked(grace)
        asked.tell(_beside(target, before, table))  # at the same moment as the engine its units: all have their grace
        self._stop_units(target, units, grace, deadline)
        killed = not self._end_rest(target, family, asked, deadline)
        rest = tuple(describe(proc) for proc in self._rest(target, family).values())
        after = self._units_left(target)
        still = tuple(f"{self.KIND} {one.id}" for one in after if one.state is not None)
        if after and time.monotonic() < deadline:
            self.log(target)  # the last words of this run, before the unit is started anew or made anew
        return Stopped(before.instances, (*rest, *still), killed=killed or _were_killed(units, after))

    def _stop_units(self, target: Target, units: Sequence[Unit], grace: float, deadline: float) -> None:
        """Copies side by side: each may need all of its grace."""

        def stop(unit: Unit) -> None:
            seconds = max(1.0, deadline - KILL_SECONDS - time.monotonic())
            self.engine.stop(target.config, unit, grace, seconds)

        if len(units) < 2:
            for unit in units:
                stop(unit)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(len(units)) as pool:
            list(pool.map(stop, units))

    def _units_left(self, target: Target) -> tuple[Unit, ...]:
        """What the engine knows after a stop; a unit may be gone with its run."""
        try:
            units = self._units(target)
        except NoSuchUnitError:
            units = ()
        self.known[target.name] = units
        return units

    def _end_rest(self, target: Target, family: dict[int, Proc], asked: _Asked, deadline: float) -> bool:
        """True: nothing had to be killed."""
        asked.tell(self._rest(target, family))

        def rest() -> dict[int, Proc]:
            found = self._rest(target, family)
            asked.tell_newcomers(found)
            return found

        until = asked.until or time.monotonic() + asked.grace  # nobody was there to be asked, and somebody may appear
        if wait_until_gone(rest, min(until, deadline - KILL_SECONDS)):
            return True
        kill(lambda: self._rest(target, family), deadline)
        return False

    def _rest(self, target: Target, family: dict[int, Proc]) -> dict[int, Proc]:
        """Of those that were the bot's, who lives; copies that the engine does not know; and who holds its lock."""
        table = ProcessTable.read()
        living = {pid: proc for pid, proc in family.items() if _lives(table, proc)} | _holders(target, table)
        copies = {
            one.pid: table.procs[one.pid] for one in _copies(target, self.known[target.name], set(), table) if one.pid
        }
        return {**living, **copies}

    # ------------------------------------------------------------------------------------------------ start

    def start(self, target: Target, entry: str, deadline: float) -> Started:
        """Start the unit, bound to the ledger entry. Raises EngineError if anything of the bot still lives."""
        table = ProcessTable.read()
        seen = self.look(target, table)
        alive = [f"pid {one.pid}" if one.pid else one.key for one in seen.instances]
        alive = alive or [f"pid {pid}" for pid in _holders(target, table)]
        if alive:
            raise EngineError(f"{target.name} was not started: {', '.join(alive)} is still alive. Stop it first.")
        generation = seen.generation + 1
        units = self.known[target.name]
        record = {"generation": generation, "entry": entry, "run": None, "before": _runs(units), "at": time.time()}
        record |= {"exit": _exit_as_json(seen.exit), "log": _mark_of_log(units), "own": _own_starts(target)}
        _write_record(target, record)
        try:
            self.engine.start(target.config, max(1.0, deadline - time.monotonic()))
        except FailedToStartError as error:
            if error.ended is not None:
                _write_record(target, {**record, "exit": _exit_as_json(error.ended)})
            ended = self.look(target, ProcessTable.read()).exit
            if ended is None or ended.failed_to_start is None:
                raise
            return Started(None, ended, generation)
        return self._started(target, generation, min(deadline, time.monotonic() + STARTED_SECONDS))

    def _started(self, target: Target, generation: int, until: float) -> Started:
        """Wait for a run that was not there before, or for how it ended."""
        before = set(_read_record(target).get("before", ()))
        while True:
            units = self._units(target)
            seen = self._told(target, units, ProcessTable.read())
            ours = next((one for one in seen.instances if one.kept_by and one.key not in before), None)
            if ours is not None:
                _bind(target, ours)
                return Started(replace(ours, ours=True, entry=_read_record(target).get("entry")), None, generation)
            if seen.exit is not None and seen.exit.key not in before:
                return Started(None, seen.exit, generation)
            if time.monotonic() > until:
                raise EngineError(f"{target.name} was not started: {self.KIND} took the order, and nothing runs.")
            time.sleep(POLL_SECONDS)

    # ------------------------------------------------------------------------------------------------ logs

    def grace(self, target: Target) -> float:
        """Seconds between asking and killing."""
        return float(target.config.stop_grace)

    def log(self, target: Target) -> Path | None:
        """The file with its output, brought up to date: the engine's own, or a copy that is kept here."""
        from .enginelog import bring_up_to_date

        newest = _newest(self.known.get(target.name) or self._units(target))
        if newest is None:
            return target.log_path if target.log_path.exists() else None
        return newest.log_file or bring_up_to_date(self.engine, target, newest)

    def logs(self, target: Target) -> tuple[Path, ...]:
        """The files its output goes to, the newest first."""
        path = self.log(target)
        rotated = [path.with_name(f"{path.name}.{number}") for number in (1, 2, 3)] if path else []
        return tuple(one for one in (path, *rotated) if one and one.exists())

    def run_offset(self, target: Target) -> int | None:
        """Where in its log the newest run began, in bytes; None for a run that an engine made, in a file of its own."""
        from .enginelog import run_offset

        newest = _newest(self.known.get(target.name, ()))
        if newest is None or newest.log_file is None:
            return run_offset(target)
        record = _read_record(target)
        return _offset_by_mark(newest.log_file, record.get("log")) if record.get("run") == newest.run else None


# ---------------------------------------------------------------------------------------------------- ending


@dataclass
class _Asked:
    """Who was asked to end, each once: a second request makes many programs drop what they were just saving."""

    grace: float
    until: float = 0.0
    """A time.monotonic(): by then the last one that was told has had its whole grace."""
    known: dict[int, int] = field(default_factory=dict)
    """Pid to start."""

    def tell(self, found: dict[int, Proc]) -> None:
        """Ask those of them that were not asked yet; they have their grace from now on."""
        if self.tell_newcomers(found):
            self.until = time.monotonic() + self.grace

    def tell_newcomers(self, found: dict[int, Proc]) -> bool:
        """The same for what appears while the others end: nobody waits longer for it."""
        fresh = {pid: proc for pid, proc in found.items() if self.known.get(pid) != proc.start_ticks}
        signal_all(fresh, signal.SIGTERM, signal.SIGCONT)
        self.known |= {pid: proc.start_ticks for pid, proc in fresh.items()}
        return bool(fresh)


def _beside(target: Target, seen: RuntimeLook, table: ProcessTable) -> dict[int, Proc]:
    """Copies that the engine does not know, and what holds the bot's lock without being one of the engine's."""
    kept = {pid for one in seen.instances if one.kept_by for pid in one.members}
    copies = {pid for one in seen.instances if not one.kept_by for pid in one.members} - kept
    found = {pid: proc for pid in copies if (proc := table.procs.get(pid)) is not None}
    return {pid: proc for pid, proc in (found | _holders(target, table)).items() if pid not in kept}


def _require_outside(target: Target, seen: RuntimeLook, units: Sequence[Unit], table: ProcessTable) -> None:
    """To end the bot would end us, before anything is started again."""
    above = [one.pid for one in seen.instances if one.pid in table.own_line]
    around = [one for one in units if one.pid and one.cgroup and one.cgroup in table.own_cgroup]
    if above or around:
        raise EngineError(
            f"{target.name} cannot be stopped or started from here: botkeep itself runs inside it. Ask from outside of "
            "it."
        )


# ---------------------------------------------------------------------------------------------------- instances


def _newest(units: Sequence[Unit]) -> Unit | None:
    return max(units, key=lambda one: (one.state is not None, one.run), default=None)


def _instance(unit: Unit, kind: str, record: Mapping[str, Any], table: ProcessTable) -> Instance:
    ours = record.get("run") == unit.run or (record.get("run") is None and _is_new(unit, record))
    members = _members(unit, table)
    return Instance(
        key=unit.run,
        pid=unit.pid,
        state=_state(unit, table),
        why_frozen=unit.why_frozen,
        started_at=unit.started_at,
        ours=ours,
        how=kind,
        members=members,
        rss_bytes=sum(table.procs[pid].rss_bytes for pid in members) if members else None,
        entry=record.get("entry") if ours else None,
        kept_by=kind,
    )


def _is_new(unit: Unit, record: Mapping[str, Any]) -> bool:
    """Whether a start that was killed before it could say so made this run: it is new, and began when it was ordered.

    What began later was started by a person, or by the engine, which counts what it does by itself.
    """
    if "at" not in record or unit.run in record.get("before", ()) or (unit.tells_restarts and unit.restarts):
        return False
    began = unit.started_at.timestamp() if unit.started_at else time.time()
    return bool(began - record["at"] <= ORDER_HOLDS)


def _state(unit: Unit, table: ProcessTable) -> InstanceState:
    """A main process that is stopped by a signal is frozen, whatever the engine says of it."""
    proc = table.procs.get(unit.pid) if unit.pid else None
    return InstanceState.FROZEN if proc is not None and proc.state == "T" else unit.state or InstanceState.RUNNING


def _members(unit: Unit, table: ProcessTable) -> tuple[int, ...]:
    if unit.pid is None or unit.pid not in table.procs:
        return ()
    grouped = table.in_cgroup(unit.cgroup) if unit.cgroup else _left_the_tree(unit, table.procs[unit.pid], table)
    return tuple(dict.fromkeys((unit.pid, *table.descendants(unit.pid), *grouped)))


def _coming_up(living: Sequence[Unit], table: ProcessTable) -> set[int]:
    """What lives already where a unit's processes belong, whose engine has not noted it yet: a container's process runs
    a while before its engine says so, the longer the more the machine has to do. It is no copy."""
    return {pid for one in living if one.cgroup and one.pid not in table.procs for pid in table.in_cgroup(one.cgroup)}


def _left_the_tree(unit: Unit, main: Proc, table: ProcessTable) -> tuple[int, ...]:
    """What this run started that hangs below it no more: a daemon, a helper of a shell that ended.

    It carries the unit's variables and is younger than its main process. A main process of another engine would too:
    that one leads a process group in somebody else's session.
    """
    carriers = [one for one in heirs(unit.twin, table) if one.start_ticks >= main.start_ticks]
    return tuple(one.pid for one in carriers if not _leads_a_group(one.pid))


def _leads_a_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid != os.getsid(pid)
    except ProcessLookupError:
        return False


def _copies(target: Target, units: Sequence[Unit], members: set[int], table: ProcessTable) -> tuple[Instance, ...]:
    """Copies of the bot that are none of the engine's processes: each family of processes is one."""
    twins = [one.twin for one in units]
    engines = {above for one in units if one.pid for above in table.ancestors(one.pid)}
    strange = strangers(target, twins, table, members | engines)
    found = {pid: how for pid, how in strange.items() if lives_on(table.procs[pid])}
    tops = [pid for pid in found if not any(above in found or above in members for above in table.ancestors(pid))]
    return tuple(_copy(table, pid, found[pid]) for pid in sorted(tops))


def _copy(table: ProcessTable, pid: int, how: str) -> Instance:
    proc = table.procs[pid]
    members = (pid, *table.descendants(pid))
    return Instance(
        key=process_key(proc, table.boot),
        pid=pid,
        state=InstanceState.FROZEN if proc.state == "T" else InstanceState.RUNNING,
        started_at=table.started_at(proc),
        ours=False,
        how=how,
        members=members,
        rss_bytes=sum(table.procs[one].rss_bytes for one in members),
    )


def _holders(target: Target, table: ProcessTable) -> dict[int, Proc]:
    """Who holds the bot's lock: what botkeep started as a plain process, or an engine through `exec_env`, whatever it
    calls itself by now. Looking through all open files takes too long for a mere look."""
    lock = lock_name(target)
    found = {pid: table.find(pid) for pid in lock_holders({lock})} if lock else {}
    return {
        pid: proc
        for pid, proc in found.items()
        if proc is not None and not proc.dead and pid not in table.own_line and watched_by(proc) is None
    }


def _lives(table: ProcessTable, proc: Proc) -> bool:
    now = table.procs.get(proc.pid)
    return now is not None and not now.dead and now.start_ticks == proc.start_ticks


# ---------------------------------------------------------------------------------------------------- records


def _of_runs_that_are_over(record: Mapping[str, Any], living: Sequence[Instance]) -> frozenset[str]:
    """Starts that botkeep made, of runs that ended meanwhile; who counts an engine's restarts knows those that live."""
    alive = {iso(one.started_at) for one in living if one.started_at}
    return frozenset(record.get("own", ())) - alive


def _runs(units: Sequence[Unit]) -> list[str]:
    """Every run that is known before a start, the ones that ended too."""
    return [key for one in units for key in (one.run, one.exit.key if one.exit else "") if key]


def _read_record(target: Target) -> dict[str, Any]:
    return read_json(target.run_dir / RUN_RECORD) or {}


def _write_record(target: Target, record: Mapping[str, Any]) -> None:
    target.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(target.run_dir / RUN_RECORD, json.dumps(record).encode())


def _bind(target: Target, ours: Instance) -> None:
    """This run is the one that the entry started."""
    record = _read_record(target)
    own = [*record.get("own", ()), *([iso(ours.started_at)] if ours.started_at else [])]
    with suppress(OSError):  # it runs; without the record the next look knows it by not having been there before
        _write_record(target, {**record, "run": ours.key, "own": own[-OWN_STARTS:]})


def _own_starts(target: Target) -> list[str]:
    """When botkeep itself started it: an engine counts these like its own."""
    return list(_read_record(target).get("own", ()))


def _mark_of_log(units: Sequence[Unit]) -> list[Any] | None:
    """Where the next run begins in a log that the engine writes itself: path, inode, size."""
    path = next((one.log_file for one in units if one.log_file), None)
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return [str(path), None, 0]
    return [str(path), status.st_ino, status.st_size]


def _offset_by_mark(path: Path, mark: list[Any] | None) -> int | None:
    """Where the run began that was started when the mark was made; a file turned over since is all of that run."""
    if mark is None or mark[0] != str(path):
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return int(mark[2]) if status.st_ino == mark[1] and status.st_size >= mark[2] else 0


def _ask(target: Target, runs: Sequence[str]) -> None:
    """Note that we end these, so that their exit is not taken for a crash."""
    with suppress(OSError):
        _write_record(target, {**_read_record(target), "asked": list(runs)})


def _were_killed(before: Sequence[Unit], after: Sequence[Unit]) -> bool:
    """Whether the engine had to kill a run that it was told to end."""
    runs = {one.run for one in before}
    return any(one.exit is not None and one.exit.key in runs and one.exit.signal == signal.SIGKILL for one in after)


def _exit_as_json(seen: Exit | None) -> dict[str, Any] | None:
    return None if seen is None else {**asdict(seen), "at": iso(seen.at) if seen.at else None}


def _last(told: Exit | None, record: Mapping[str, Any]) -> Exit | None:
    """What the engine tells; of a run that it forgot when it started the next one, what was seen just before that."""
    kept = record.get("exit")
    if kept is None:
        return told
    known = Exit(**{**kept, "at": parse_iso(kept["at"]) if kept["at"] else None})
    if told is None or (told.at is not None and known.at is not None and told.at <= known.at):
        return known
    return told


def _exit(target: Target, unit: Unit | None) -> Exit | None:
    if unit is None or unit.exit is None:
        return None
    asked = unit.exit.key in _read_record(target).get("asked", ())
    return replace(unit.exit, asked=unit.exit.asked or asked)


def _ended_at(unit: Unit) -> float:
    return unit.exit.at.timestamp() if unit.exit and unit.exit.at else 0.0
