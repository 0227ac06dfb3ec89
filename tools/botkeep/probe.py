"""LOOK: everything about every bot at one moment. Changes no bot; returns new cursors, which `rounds` records."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from . import deaths, diagnose, health, host, progress, stillopen
from .config import Bot, BotEntry, Fleet
from .datafile import kind_name
from .formats import FORMATS
from .held import holds_deleted
from .model import (
    BotkeepError,
    Cause,
    DataVerdict,
    EngineError,
    Finding,
    HealthLook,
    HostLook,
    Inspection,
    LogLook,
    Observation,
    ProgramLook,
    RuntimeLook,
)
from .openfiles import open_writers
from .profiles import Profile, Subject
from .profiles.workspace_signatures import signatures_for
from .programs import kin_of, profile_of, subject_of
from .runtimes import RUNTIMES, Runtime, Target
from .runtimes.base import rivals
from .runtimes.procs import Command, ProcessTable
from .untrusted import clean
from .what_changed import remember_versions
from .workspace import Workspace

Cursor = dict[str, Any]
ReadCursor = Callable[[str, str], Cursor | None]
"""(bot, `data`, `log` or `output`) -> where the last look ended."""
WATCHING_RUNTIME = "process"
"""What sees a bot without a configured runtime: the process table."""
ENDPOINT_THREADS = 8
ACTION_SECONDS = 3.0
"""For a bot's API, when an action asks it."""
SAME_RUN = timedelta(seconds=5)
"""A log that was written longer after the end of the run that we know is another run's."""
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Seen:
    """One bot's observation, and where the next look goes on."""

    observation: Observation
    cursors: dict[str, Cursor] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)
    """The bot's cursors as they were when the look began, as JSON."""

    def knew(self, name: str) -> Cursor | None:
        """One of them."""
        return dict(json.loads(self.found[name])) if name in self.found else None

    @property
    def rests_on(self) -> dict[str, str | None]:
        """Those that have to be the same still when it is written down: whoever wrote one since knows better."""
        return {name: self.found.get(name) for name in (*self.cursors, "data")}


def runtime_of(bot: Bot) -> Runtime:
    """The runtime that starts and stops the bot, or the one that can at least see it."""
    return RUNTIMES[_kind(bot)]


def _kind(bot: Bot) -> str:
    return bot.runtime.kind if bot.runtime else WATCHING_RUNTIME


def targets(fleet: Fleet) -> dict[str, Target]:
    """Every good bot as its runtime needs it, told apart from its neighbours."""
    names = Counter(bot.process_name for bot in fleet.bots if bot.process_name)
    commands = rivals(_commands(fleet))
    return {bot.name: _target(fleet, bot, names[bot.process_name or ""], commands) for bot in fleet.bots}


def _commands(fleet: Fleet) -> Iterable[Command]:
    """What the bots run that are plain processes of this machine."""
    for bot in fleet.bots:
        if bot.runtime is not None and bot.runtime.kind == WATCHING_RUNTIME:
            yield Command(bot.name, tuple(bot.runtime.command), str(fleet.workspace.home / bot.runtime.cwd))


def _target(fleet: Fleet, bot: Bot, sharing: int, commands: Mapping[tuple[str, ...], tuple[Command, ...]]) -> Target:
    place = fleet.workspace
    return Target(
        name=bot.name,
        config=bot.runtime,
        process_name=bot.process_name,
        home=place.home,
        run_dir=place.run_dir(bot.name),
        log_path=place.log_path(bot.name),
        names_are_shared=sharing > 1,
        rivals=commands,
        data_file=bot.data_file,
        kin=kin_of(bot),
    )


@dataclass
class _Look:
    """One bot's look, as it fills."""

    entry: BotEntry
    bot: Bot
    target: Target
    runtime: RuntimeLook
    profile: Profile
    why: str
    path: Path | None = None
    """Of its log."""
    log: LogLook | None = None
    """With the causes that only its output names."""
    output: LogLook | None = None
    """What it wrote past its log before it ended."""
    problem: str = ""
    """Why its files cannot be read."""
    program: ProgramLook = field(default_factory=ProgramLook)
    health: HealthLook | None = None


def look(
    fleet: Fleet,
    names: Iterable[str],
    cursor: ReadCursor,
    now: datetime,
    answer_within: float,
    free_below: int = host.FREE_BELOW,
    table: ProcessTable | None = None,
) -> dict[str, Seen]:
    """Look at these bots: one pass over the process table for all, endpoints and APIs asked side by side.

    `answer_within`: seconds, in all, that a health endpoint may take, and a bot's API. `free_below`: bytes of disk that
    count as full.
    """
    table = table or ProcessTable.read()
    known = targets(fleet)
    entries = [fleet.get(name) for name in names]
    runtimes = _each_its_own(fleet, _ask_runtimes([one.bot for one in entries if one.bot], known, table), known, table)
    looks = {one.name: _begin(one, one.bot, known[one.name], runtimes[one.name]) for one in entries if one.bot}
    for one in looks.values():
        _guarded(one, partial(_read_log, one, cursor, now))
    _ask(list(looks.values()), fleet, cursor, now, answer_within)
    around = _Around(fleet, cursor, now, _look_at_machine(list(looks.values()), now, free_below))
    seen = {entry.name: around.finished(looks[entry.name]) if entry.bot else _broken(entry, now) for entry in entries}
    starved = host.ended_for_memory([one.observation for one in seen.values()], now)
    return {name: _ended_for_memory(one) if name in starved else one for name, one in seen.items()}


def _ended_for_memory(one: Seen) -> Seen:
    """What the kernel says of an end of which its runtime only knows the signal."""
    runtime = one.observation.runtime
    ended = replace(runtime.exit, out_of_memory=True) if runtime.exit else None
    return replace(one, observation=replace(one.observation, runtime=replace(runtime, exit=ended)))


def _guarded(one: _Look, job: Callable[[], None]) -> None:
    """A part of one bot's look; what it fails over is that bot's problem."""

    def failed(why: str) -> None:
        one.problem = why

    _alone(job, failed)


def _look_at_machine(looks: Sequence[_Look], now: datetime, free_below: int) -> HostLook:
    folders = {one.bot.data_file.parent if one.bot.data_file else one.target.home for one in looks}
    return host.look(folders, now, logs=[one.log for one in looks], free_below=free_below)


def _broken(entry: BotEntry, now: datetime) -> Seen:
    return Seen(Observation(bot=entry.name, at=now, config_error=entry.problem or "its entry is broken"))


def _begin(entry: BotEntry, bot: Bot, target: Target, runtime: RuntimeLook) -> _Look:
    profile, why = profile_of(bot)
    return _Look(entry, bot, target, runtime, profile, why)


def _ask_runtimes(bots: Sequence[Bot], known: Mapping[str, Target], table: ProcessTable) -> dict[str, RuntimeLook]:
    """Each engine is asked once, whatever the number of its bots; several side by side."""
    groups: dict[str, list[Target]] = {}
    found: dict[str, RuntimeLook] = {}
    for bot in bots:
        if bot.runtime is None and not bot.process_name:
            found[bot.name] = RuntimeLook(error=NOT_FOUND_BY)
        else:
            groups.setdefault(_kind(bot), []).append(known[bot.name])
    if len(groups) < 2:
        for kind, targets in groups.items():
            found |= _survey(kind, targets, table)
        return found
    from concurrent.futures import ThreadPoolExecutor  # it loads logging: a fleet of one engine does not wait

    with ThreadPoolExecutor(len(groups)) as pool:
        for looks in pool.map(lambda kind: _survey(kind, groups[kind], table), groups):
            found |= looks
    return found


def _survey(kind: str, targets: Sequence[Target], table: ProcessTable) -> dict[str, RuntimeLook]:
    """The bots of one engine; where that fails over one of them, each by itself."""

    def failed(why: str) -> dict[str, RuntimeLook]:
        if len(targets) < 2:
            return {one.name: RuntimeLook(error=why) for one in targets}
        return {name: look for one in targets for name, look in _survey(kind, [one], table).items()}

    return _alone(lambda: RUNTIMES[kind].survey(targets, table), failed)


_Result = TypeVar("_Result")


def _alone(job: Callable[[], _Result], otherwise: Callable[[str], _Result]) -> _Result:
    """One bot's crash is that bot's verdict, and the others go on: the only place in which whatever comes is caught."""
    try:
        return job()
    except Exception as error:  # noqa: BLE001 - see above
        known = isinstance(error, BotkeepError)
        said = clean(f"{type(error).__name__}: {error}", 300)
        return otherwise(str(error) if known else f"botkeep itself failed over it ({said}).")


def _each_its_own(
    fleet: Fleet, found: dict[str, RuntimeLook], known: Mapping[str, Target], table: ProcessTable
) -> dict[str, RuntimeLook]:
    """Two bots that mean one container, by its name and its id, by two addresses of its engine: a restart of one
    would restart the other. Neither can be acted on, whichever is looked at."""
    owners: dict[str, list[str]] = {}
    called: dict[str, str] = {}
    looked_at = {name: look.units for name, look in found.items()}
    for name, units in (*looked_at.items(), *_fellows(fleet, found, known, table)):
        called |= units
        for unit in units:
            owners.setdefault(unit, []).append(name)
    for unit, names in owners.items():
        if len(names) > 1:
            twice = RuntimeLook(error=f"{' and '.join(sorted(names))} both mean {called[unit]}; give each bot its own.")
            found |= {name: twice for name in names if name in found}
    return found


def _fellows(
    fleet: Fleet, found: Mapping[str, RuntimeLook], known: Mapping[str, Target], table: ProcessTable
) -> Iterable[tuple[str, Mapping[str, str]]]:
    """What the bots mean that nobody looks at just now, and that may have a unit in common with one that is."""
    families = {_family(bot) for bot in fleet.bots if (look := found.get(bot.name)) is not None and look.units}
    groups: dict[str, list[Target]] = {}
    for bot in fleet.bots:
        if families and bot.name not in found and _family(bot) in families:
            groups.setdefault(_kind(bot), []).append(known[bot.name])
    for kind, targets in groups.items():
        yield from _alone(partial(_meant, kind, targets, table), _nothing).items()


def _family(bot: Bot) -> str:
    """Of its engine; empty for a plain process."""
    if _kind(bot) == WATCHING_RUNTIME:
        return ""
    return _alone(lambda: str(getattr(runtime_of(bot), "FAMILY", _kind(bot))), lambda _: "")


def _meant(kind: str, targets: Sequence[Target], table: ProcessTable) -> Mapping[str, Mapping[str, str]]:
    ask = getattr(RUNTIMES[kind], "meant", None)
    return dict(ask(targets, table)) if ask else {}


def _nothing(_: str) -> Mapping[str, Mapping[str, str]]:
    return {}


NOT_FOUND_BY = "neither process_name nor runtime is configured, so nothing says how to find it."


# ---------------------------------------------------------------------------------------------------- asked


def _ask(looks: Sequence[_Look], fleet: Fleet, cursor: ReadCursor, now: datetime, seconds: float) -> None:
    """Endpoints and APIs of living bots, side by side. A dead bot's port may be anybody's: it is not asked."""
    jobs = [one for one in looks if one.runtime.instances and (one.bot.health_endpoint or one.bot.api)]
    for one in looks:
        if one not in jobs:
            kept = cursor(one.bot.name, "program")
            _guarded(one, partial(_see_program, one, fleet, kept, now, seconds))
    if not jobs:
        return
    from concurrent.futures import ThreadPoolExecutor  # it loads logging: a fleet without endpoints does not wait

    known = {one.bot.name: cursor(one.bot.name, "program") for one in jobs}  # the ledger is read by this thread

    def ask(one: _Look) -> None:
        if one.bot.health_endpoint:
            one.health = _ask_endpoint(one, fleet, seconds)
        _see_program(one, fleet, known[one.bot.name], now, seconds)

    with ThreadPoolExecutor(ENDPOINT_THREADS) as pool:
        list(pool.map(lambda one: _guarded(one, partial(ask, one)), jobs))


def _ask_endpoint(one: _Look, fleet: Fleet, seconds: float) -> HealthLook:
    owners = {pid for instance in one.runtime.instances for pid in instance.members}
    url = str(one.bot.health_endpoint)
    return health.look(url, deadline=seconds, owner_pids=owners, allowed_hosts=frozenset(fleet.allowed_hosts))


@dataclass(frozen=True)
class SeenProgram:
    """One bot as its profile sees it, without its data."""

    profile: Profile
    subject: Subject
    program: ProgramLook


def see_program(
    fleet: Fleet, bot: Bot, target: Target, cursor: ReadCursor, now: datetime, *, ask: bool = True
) -> SeenProgram:
    """A look at the program alone, for an action. `ask`: whether its profile looks too. Raises EngineError."""

    def failed(why: str) -> SeenProgram:
        raise EngineError(why)

    return _alone(lambda: _seen_alone(fleet, bot, target, cursor, now, ask=ask), failed)


def _seen_alone(fleet: Fleet, bot: Bot, target: Target, cursor: ReadCursor, now: datetime, *, ask: bool) -> SeenProgram:
    runtime = runtime_of(bot).look(target, ProcessTable.read())
    profile, why = profile_of(bot)
    one = _Look(BotEntry(bot.name, bot), bot, target, runtime, profile, why)
    _read_log(one, cursor, now)
    subject = _subject(one, fleet, cursor(bot.name, "program"), now, ACTION_SECONDS)
    return SeenProgram(profile, subject, profile.look(subject) if ask else ProgramLook())


def _see_program(one: _Look, fleet: Fleet, cursor: Cursor | None, now: datetime, seconds: float) -> None:
    if not one.runtime.error and not one.problem:
        one.program = one.profile.look(_subject(one, fleet, cursor, now, seconds))


def _subject(one: _Look, fleet: Fleet, cursor: Cursor | None, now: datetime, seconds: float) -> Subject:
    return subject_of(one.bot, fleet, one.runtime, one.log, now, cursor=cursor, log_file=one.path, seconds=seconds)


# ---------------------------------------------------------------------------------------------------- one bot


@dataclass
class _Around:
    """What the looks of all bots share."""

    fleet: Fleet
    cursor: ReadCursor
    now: datetime
    host: HostLook | None = None
    disks: dict[int, int] = field(default_factory=dict)
    spend: deaths.Spend = field(default_factory=deaths.Spend)

    def finished(self, one: _Look) -> Seen:
        """The same, whatever happens."""

        def failed(why: str) -> Seen:
            return Seen(Observation(bot=one.bot.name, at=self.now, runtime=RuntimeLook(error=why)))

        return _alone(partial(self.finish, one), failed)

    def finish(self, one: _Look) -> Seen:
        """Its data file, and everything together."""
        bot, name, now = one.bot, one.bot.name, self.now
        if one.problem:
            return Seen(Observation(bot=name, at=now, runtime=RuntimeLook(error=one.problem)))
        try:
            data = _look_at_data(bot, one.runtime, self.cursor(name, "data"), now)
            data = deaths.missed(bot, self.fleet, data, writing=bool(one.runtime.instances))
            known, marks = self.cursor(name, "compared"), one.log.marks if one.log else {}
            open_still = deaths.left_open(bot, data, self.cursor(name, stillopen.CURSOR))
            compared = deaths.at_a_look(bot, self.fleet, one.runtime, data, marks, known, now, self.spend)
        except OSError as error:  # a disk that fails under one bot's files is that bot's verdict
            return Seen(Observation(bot=name, at=now, runtime=RuntimeLook(error=_unreadable(error))))
        data_seen = _with_lost_and_changed(data, compared, self.cursor(name, "changed"), open_still)
        one.program = _with_versions(one, self.cursor(name, "program"), now)
        cursors = {
            "data": data.cursor if data else None,
            "log": one.log.cursor if one.log else None,
            "output": one.output.cursor if one.output else None,
            "compared": compared,
            "program": one.program.cursor,
            **_left(one, self.cursor),
        }
        observed = self._observation(one, data, data_seen)
        return Seen(observed, {name: value for name, value in cursors.items() if value})

    def _observation(self, one: _Look, data: Inspection | None, seen: Inspection | None) -> Observation:
        bot, log = one.bot, one.log
        signs = progress.measure(log=log, tempo=data.tempo if data else None, configured=bot.progress, now=self.now)
        return Observation(
            bot=bot.name,
            at=self.now,
            runtime=one.runtime,
            health=one.health,
            data=seen,
            progress=(*signs, *one.program.progress),
            causes=log.causes if log else (),
            disk_free=_disk_free(bot, one.target, self.disks),
            can_restart=bot.runtime is not None,
            max_trades_per_hour=bot.max_trades_per_hour,
            profile=one.profile.NAME,
            profile_why=one.why,
            program=one.program,
            marks=log.marks if log else {},
            host=self.host,
            notes=_unread(log) if log else (),
        )


def _unread(log: LogLook) -> tuple[str, ...]:
    """What a look at a log had to leave out: nobody may take it for silence."""
    said = []
    if log.skipped:
        said.append(f"{log.skipped / 1e6:.0f} MB of its log came at once and were not read.")
    if log.slow:
        said.append(f"Of its log these take too long to find and were left out: {', '.join(log.slow)}.")
    return tuple(said)


def _with_versions(one: _Look, kept: Cursor | None, now: datetime) -> ProgramLook:
    """Which versions the bot names, and named before, beside what its profile remembers."""
    program, marks = one.program, one.log.marks if one.log else {}
    known = remember_versions((kept or {}).get("versions"), marks, program.version, now)
    return replace(program, cursor={**program.cursor, "versions": known}) if known else program


HOLDING = "holding"
"""The cursor of a bot that we asked to open nothing new: {instance, entry}."""
ITS_OWN_STOP = "stopped-by-itself"
"""The signature of a bot that stopped trading over an error: nobody left it so."""


def _left(one: _Look, cursor: ReadCursor) -> dict[str, Cursor]:
    """In which state of its own the living bot is, as a person wants it; cursors to be written.

    One that stopped itself over an error was left so by nobody, and stays so until it was seen running again, also when
    its log line has faded.
    """
    state, name = one.program.state, one.bot.name
    if state not in ("running", "paused", "stopped") or len(one.runtime.instances) != 1:
        return {}
    key, kept = one.runtime.instances[0].key, cursor(name, "left") or {}
    if (cursor(name, HOLDING) or {}).get("instance") == key:
        return {HOLDING: {"over": key}, "left": {"state": state}} if state == "running" else {}  # else we asked it to
    if state == "running":
        return {"left": {"state": state}}
    failed = any(cause.signature == ITS_OWN_STOP and cause.this_run for cause in (one.log.causes if one.log else ()))
    if state == "stopped" and (kept.get("failed") == key or (failed and kept.get("state") != state)):
        return {"left": {"state": "", "failed": key}}
    return {"left": {"state": state}}


def left_in(kept: Cursor | None) -> str:
    """The state in which a bot was last seen as a person left it; empty if nobody knows of any."""
    return str((kept or {}).get("state") or "")


def _unreadable(error: OSError) -> str:
    return f"its files cannot be read: {error}."


def _with_lost_and_changed(
    data: Inspection | None, compared: Cursor | None, changed: Cursor | None, open_still: Sequence[Finding]
) -> Inspection | None:
    """What no look at the file alone can find: trades it never got, rows that are others than in the backup, and what

    a restore had to leave open.
    """
    if data is None or data.verdict not in (DataVerdict.OK, DataVerdict.REPLACED):
        return data
    found = [*open_still, *(Finding(**raw) for raw in (compared or {}).get("findings", ()))]
    if changed and changed.get("inode") == ":".join(data.identity.split(":")[:2]):
        found += [Finding(**raw) for raw in changed["findings"]]
    if not found:
        return data
    sure, doubtful = any(one.certain for one in found), any(one.rule in SUSPECTS for one in found)
    verdict = DataVerdict.CORRUPT if sure else DataVerdict.SUSPECT if doubtful else data.verdict
    kept = found if verdict is not data.verdict else [*data.findings, *found]
    return replace(data, verdict=verdict, findings=tuple(kept))


AFTER = "after_restore"
"""In the cursor `data`, alone, the plan of the restore after which nobody has looked yet."""
SUSPECTS = ("C13", "Q6")
"""Rows that are others than in the backup: suspect, for a person may have edited them."""


def _look_at_data(bot: Bot, runtime: RuntimeLook, kept: Cursor | None, now: datetime) -> Inspection | None:
    """What the file is now. What it was before a restore of ours does not count: it may have had more rows."""
    if bot.data_file is None:
        return None
    return _inspected(bot, runtime, bot.data_file, None if kept and AFTER in kept else kept, now)


def _inspected(bot: Bot, runtime: RuntimeLook, path: Path, cursor: Cursor | None, now: datetime) -> Inspection:
    reader, options = FORMATS[kind_name(bot)], bot.format_options()
    writing = bool(runtime.instances)
    seen = reader.inspect(path, options=options, cursor=cursor, writing=writing, now=now)
    if seen.verdict is DataVerdict.CORRUPT and not writing and open_writers(path):
        # The bot is gone, but somebody has its file open: what looks torn may be half written.
        seen = reader.inspect(path, options=options, cursor=cursor, writing=True, now=now)
    members = [pid for one in runtime.instances for pid in one.members]
    if seen.verdict in (DataVerdict.OK, DataVerdict.PENDING) and holds_deleted(path, members):
        text = "The bot writes into a file that was deleted under it; the file of its name is another one."
        return replace(seen, verdict=DataVerdict.SUSPECT, findings=(Finding("C14", text, False),))
    return seen


def log_file(bot: Bot, target: Target) -> Path | None:
    """The log to read: the configured one, else its output, as its runtime keeps it. Raises EngineError."""
    return bot.log_file or (runtime_of(bot).log(target) if bot.runtime else None)


def last_words(bot: Bot, target: Target) -> Path | None:
    """The log whose last lines tell how a run ended: what was written last, for a bot that died before it could log."""
    usual, output = log_file(bot, target), target.log_path if bot.runtime else None
    written = [path for path in (bot.log_file, usual, output) if path and path.is_file()]
    return max(written, key=lambda path: path.stat().st_mtime, default=usual)


def _read_log(one: _Look, cursor: ReadCursor, now: datetime) -> None:
    runtime = one.runtime
    if runtime.error:
        return
    try:
        path = one.path = log_file(one.bot, one.target)
    except EngineError as error:
        one.runtime = RuntimeLook(error=str(error))
        return
    if path is None:
        return
    kept = cursor(one.bot.name, "log")
    try:
        one.log = _read(one, path, kept, now)
        one.output = _read_output(one, path, cursor(one.bot.name, "output"), now)
    except OSError as error:
        one.problem = _unreadable(error)
        return
    if kept is None:
        one.log = replace(one.log, skipped=0)  # of a log that nobody has read before, the end is what is looked at
    if one.output is not None:
        one.log = _with_output(one.log, one.output)


def _read(one: _Look, path: Path, kept: Cursor | None, now: datetime) -> LogLook:
    """What is new in a file that the bot writes. Raises OSError."""
    started = [instance.started_at for instance in one.runtime.instances if instance.started_at]
    return diagnose.read_log(
        path,
        cursor=kept,
        now=_ended(one.runtime) or now,
        zone=one.bot.timezone,
        catalogue=lambda: signatures_for(Workspace(one.target.home), one.bot.name, one.profile)[0],
        run_offset=runtime_of(one.bot).run_offset(one.target) if _is_its_output(one, path) else None,
        run_started=max(started, default=None),
    )


def _is_its_output(one: _Look, path: Path) -> bool:
    """Whether its runtime keeps this file, and so knows where in it a run began: not a log that the bot opens."""
    return path == one.target.log_path or path != one.bot.log_file


def _ended(runtime: RuntimeLook) -> datetime | None:
    """When the bot that is down ended, if anybody knows."""
    return runtime.exit.at if runtime.exit and not runtime.instances else None


def _read_output(one: _Look, log: Path, kept: Cursor | None, now: datetime) -> LogLook | None:
    """The last words of a bot that is down, which it may have said before it opened its log, or after it broke.

    None: it runs, its output is its log, or is of another run than the log: a person started it since. Raises OSError.
    """
    if one.bot.log_file is None or one.bot.runtime is None or one.runtime.instances:
        return None
    ended, written = _ended(one.runtime), one.log.mtime if one.log else None
    if ended and written and written - ended > SAME_RUN:
        return None
    try:
        path = runtime_of(one.bot).log(one.target)
    except EngineError:  # it answered a moment ago, and what it keeps adds to the log only
        return None
    if path is None or not path.is_file() or os.path.realpath(path) == os.path.realpath(log):
        return None
    said = _read(one, path, kept, now)
    return said if kept is not None else replace(said, skipped=0)


def _with_output(log: LogLook, output: LogLook) -> LogLook:
    """What the log says, and the causes that only the output names: many bots write each line to both."""
    more = [one for one in output.causes if not any(_is_same(known, one) for known in log.causes)]
    causes = sorted((*log.causes, *more), key=lambda one: one.last_at or LONG_AGO, reverse=True)
    return replace(
        log,
        causes=tuple(sorted(causes, key=lambda one: not one.this_run)),
        skipped=max(log.skipped, output.skipped),
        slow=tuple(sorted({*log.slow, *output.slow})),
    )


def _is_same(known: Cause, said: Cause) -> bool:
    """The same of the run before is another: but a log cannot always tell the runs apart, and then says `this_run`."""
    return known.signature == said.signature and (known.this_run or not said.this_run)


def _disk_free(bot: Bot, target: Target, known: dict[int, int]) -> int | None:
    """Bytes free where the bot writes; asked once for each file system."""
    folder = bot.data_file.parent if bot.data_file else target.home
    try:
        device = folder.stat().st_dev
        if device not in known:
            status = os.statvfs(folder)
            known[device] = status.f_bavail * status.f_frsize
    except OSError:
        return None
    return known[device]
