"""LOOK: everything about every bot at one moment. Changes no bot; returns new cursors, which `rounds` records."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from . import deaths, diagnose, health, progress
from .config import Bot, BotEntry, Fleet
from .datafile import kind_name
from .formats import FORMATS
from .formats.base import open_writers
from .held import holds_deleted
from .model import DataVerdict, EngineError, Finding, HealthLook, Inspection, Observation, RuntimeLook
from .profiles import PROFILES
from .runtimes import RUNTIMES, Runtime, Target
from .runtimes.base import rivals
from .runtimes.procs import Command, ProcessTable

Cursor = dict[str, Any]
ReadCursor = Callable[[str, str], Cursor | None]
"""(bot, `data` or `log`) -> where the last look ended."""
WATCHING_RUNTIME = "process"
"""What sees a bot without a configured runtime: the process table."""
ENDPOINT_THREADS = 8


@dataclass(frozen=True)
class Seen:
    """One bot's observation, and where the next look goes on."""

    observation: Observation
    cursors: dict[str, Cursor] = field(default_factory=dict)


def runtime_of(bot: Bot) -> Runtime:
    """The runtime that starts and stops the bot, or the one that can at least see it."""
    return RUNTIMES[bot.runtime.kind if bot.runtime else WATCHING_RUNTIME]


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
    )


def look(
    fleet: Fleet, names: Iterable[str], cursor: ReadCursor, now: datetime, answer_within: float
) -> dict[str, Seen]:
    """Look at these bots: one pass over the process table for all, endpoints asked side by side.

    `answer_within`: seconds, in all, that a health endpoint may take.
    """
    table = ProcessTable.read()
    known = targets(fleet)
    entries = [fleet.get(name) for name in names]
    runtimes = {entry.name: _ask_runtime(entry.bot, known[entry.name], table) for entry in entries if entry.bot}
    endpoints = _ask_endpoints([entry.bot for entry in entries if entry.bot], runtimes, fleet, answer_within)
    disks: dict[int, int] = {}
    spend = deaths.Spend()
    return {
        entry.name: _look_at(entry, fleet, known, runtimes, endpoints, cursor, now, disks, spend) for entry in entries
    }


def _ask_runtime(bot: Bot, target: Target, table: ProcessTable) -> RuntimeLook:
    if bot.runtime is None and not bot.process_name:
        return RuntimeLook(error="neither process_name nor runtime is configured, so nothing says how to find it.")
    try:
        return runtime_of(bot).look(target, table)
    except (EngineError, OSError) as error:
        return RuntimeLook(error=str(error))


def _ask_endpoints(
    bots: Sequence[Bot], runtimes: dict[str, RuntimeLook], fleet: Fleet, seconds: float
) -> dict[str, HealthLook]:
    """Endpoints of living bots. A dead bot's port may be anybody's: it is not asked."""
    asked = [bot for bot in bots if bot.health_endpoint and runtimes[bot.name].instances]
    if not asked:
        return {}
    from concurrent.futures import ThreadPoolExecutor  # it loads logging: a fleet without endpoints does not wait

    def ask(bot: Bot) -> HealthLook:
        owners = {pid for one in runtimes[bot.name].instances for pid in one.members}
        url = str(bot.health_endpoint)
        return health.look(url, deadline=seconds, owner_pids=owners, allowed_hosts=frozenset(fleet.allowed_hosts))

    with ThreadPoolExecutor(ENDPOINT_THREADS) as pool:
        return dict(zip((bot.name for bot in asked), pool.map(ask, asked), strict=True))


def _look_at(
    entry: BotEntry,
    fleet: Fleet,
    known: dict[str, Target],
    runtimes: dict[str, RuntimeLook],
    endpoints: dict[str, HealthLook],
    cursor: ReadCursor,
    now: datetime,
    disks: dict[int, int],
    spend: deaths.Spend,
) -> Seen:
    if entry.bot is None:
        return Seen(Observation(bot=entry.name, at=now, config_error=entry.problem or "its entry is broken"))
    bot, target, runtime = entry.bot, known[entry.name], runtimes[entry.name]
    try:
        data = _look_at_data(bot, runtime, cursor(bot.name, "data"), now)
        log = _look_at_log(bot, target, runtime, cursor(bot.name, "log"), now)
        compared = deaths.at_a_look(bot, fleet, runtime, data, cursor(bot.name, "compared"), now, spend)
    except OSError as error:  # a disk that fails under one bot's files is that bot's verdict
        return Seen(Observation(bot=bot.name, at=now, runtime=RuntimeLook(error=f"its files cannot be read: {error}.")))
    signs = progress.measure(log=log, tempo=data.tempo if data else None, configured=bot.progress, now=now)
    observation = Observation(
        bot=bot.name,
        at=now,
        runtime=runtime,
        health=endpoints.get(bot.name),
        data=_with_lost_and_changed(data, compared, cursor(bot.name, "changed")),
        progress=signs,
        causes=log.causes if log else (),
        disk_free=_disk_free(bot, target, disks),
        can_restart=bot.runtime is not None,
        max_trades_per_hour=bot.max_trades_per_hour,
    )
    cursors = {"data": data.cursor if data else None, "log": log.cursor if log else None, "compared": compared}
    return Seen(observation, {name: value for name, value in cursors.items() if value})


def _with_lost_and_changed(
    data: Inspection | None, compared: Cursor | None, changed: Cursor | None
) -> Inspection | None:
    """What no look at the file alone can find: trades it never got, and rows that are others than in the backup."""
    if data is None or data.verdict not in (DataVerdict.OK, DataVerdict.REPLACED):
        return data
    found = [Finding(**raw) for raw in (compared or {}).get("findings", ())]
    if changed and changed.get("inode") == ":".join(data.identity.split(":")[:2]):
        found += [Finding(**raw) for raw in changed["findings"]]
    if not found:
        return data
    sure, doubtful = any(one.certain for one in found), any(one.rule in SUSPECTS for one in found)
    verdict = DataVerdict.CORRUPT if sure else DataVerdict.SUSPECT if doubtful else data.verdict
    kept = found if verdict is not data.verdict else [*data.findings, *found]
    return replace(data, verdict=verdict, findings=tuple(kept))


SUSPECTS = ("C13", "Q6")
"""Rows that are others than in the backup: suspect, for a person may have edited them."""


def _look_at_data(bot: Bot, runtime: RuntimeLook, cursor: Cursor | None, now: datetime) -> Inspection | None:
    if bot.data_file is None:
        return None
    reader, options, path = FORMATS[kind_name(bot)], bot.format_options(), bot.data_file
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
    """The log to read: the configured one, else the output of a bot that botkeep starts."""
    return bot.log_file or (target.log_path if bot.runtime else None)


def last_words(bot: Bot, target: Target) -> Path | None:
    """The log whose last lines tell how a run ended: what was written last, for a bot that died before it could log."""
    written = [path for path in (bot.log_file, target.log_path if bot.runtime else None) if path and path.is_file()]
    return max(written, key=lambda path: path.stat().st_mtime, default=log_file(bot, target))


def _look_at_log(
    bot: Bot, target: Target, runtime: RuntimeLook, cursor: Cursor | None, now: datetime
) -> diagnose.LogLook | None:
    path = log_file(bot, target)
    if path is None:
        return None
    profile = PROFILES[bot.profile or "plain"]
    ended = runtime.exit.at if runtime.exit and not runtime.instances else None
    started = [one.started_at for one in runtime.instances if one.started_at]
    return diagnose.read_log(
        path,
        cursor=cursor,
        now=ended or now,
        zone=bot.timezone,
        signatures=profile.signatures(),
        run_offset=run_offset(bot, target) if path == target.log_path else None,
        run_started=max(started, default=None),
    )


def run_offset(bot: Bot, target: Target) -> int | None:
    """Where the newest run's lines begin in the bot's own output, if its runtime knows."""
    find = getattr(runtime_of(bot), "run_offset", None)
    return find(target) if find else None


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
