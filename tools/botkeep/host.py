"""This machine: what keeps bots from working that is no bot's fault. Memory, disks, clock, names, the kernel's kills.

`look` is cheap and part of each look at the fleet; `examine` adds what costs time, for a diagnosis.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .causekinds import CauseKind, kind_of
from .kernelclock import offset_in, read_clock
from .memory import CGROUPS, PROC, Limit, Memory, read_limit, read_memory, read_small
from .model import Cause, DiskLook, Exit, HostCause, HostLook, LogLook, Mark, Observation, OomKill
from .oomkills import FILES, JOURNAL, KMSG, KnownKills, read_kills
from .sizes import size_text

if TYPE_CHECKING:
    from .config import Bot

FREE_BELOW = 100_000_000
"""Bytes of disk. Rounds give the number of the playbook disk-full instead."""
FILES_BELOW = 64
"""A bot with a database, its journal and a rotating log needs a few at once."""
MEMORY_BELOW = 0.03
"""Of all there is: less, and the next larger allocation of anybody makes the kernel choose a victim."""
PRESSURE_ABOVE = 25.0
"""Percent of a minute in which tasks waited for memory: a machine that only frees caches stays below one."""
CLOCK_OFF = 1.0
"""Seconds: Binance takes what is up to one second ahead, others five either way."""
KILL_NEAR = timedelta(seconds=60)
DRIFT = 1e-4
"""Of the time since boot: by how much the kernel's log may be off against the wall clock."""
RECENT = timedelta(hours=1)
COMM_LENGTH = 15
MOST_PIDS = 4
"""Of one bot: its workers share its cgroup as a rule."""
_KEY = re.compile(r"(?P<boot>[0-9a-f]{8}):(?P<pid>\d{1,10}):\d{1,20}:\d{1,20}")
"""A process's key, as the process runtime makes it: boot, pid, start, pidfd."""


@dataclass(frozen=True)
class Places:
    """Where the kernel is asked; tests have others."""

    proc: Path = PROC
    cgroups: Path = CGROUPS
    kmsg: Path = KMSG
    kernel_logs: tuple[Path, ...] = FILES
    journal: tuple[str, ...] = JOURNAL


PLACES = Places()


@dataclass(frozen=True)
class Asked:
    """One bot, as an examination of its machine needs it."""

    causes: Sequence[Cause] = ()
    """What its log names."""
    marks: Sequence[Mark] = ()
    """Facts that its log states."""
    exit: Exit | None = None
    alive: bool = True
    pids: tuple[int, ...] = ()
    """Of its living processes."""
    names: frozenset[str] = field(default_factory=frozenset)
    """What its process may call itself."""
    hosts: tuple[str, ...] = ()
    """Names it needs: from the table of exchanges or the configuration, never from a log."""


# ----------------------------------------------------------------------------------------------------- the cheap part


def look(
    paths: Iterable[Path],
    now: datetime,
    *,
    logs: Iterable[LogLook | None] = (),
    free_below: int = FREE_BELOW,
    places: Places = PLACES,
) -> HostLook:
    """What is true of this machine now, in under two milliseconds. `paths`: folders that bots write to. Never raises.

    `logs`: the looks at all bots' logs, which may have measured the clock. `free_below`: bytes of disk that count as
    full.
    """
    memory, limit, clock = read_memory(places.proc), read_limit(None, places.proc, places.cgroups), read_clock()
    disks, broken = _disks(paths)
    total = memory.total
    available, tight = memory.available, None
    if limit is not None and (available is None or limit.left < available):
        available, total, tight = limit.left, limit.limit, limit
    full = [text for one in disks if (text := disk_trouble(one, free_below))]
    short = _memory_short(available, total, memory, tight, now)
    return HostLook(
        at=now,
        causes=(*(HostCause("disk", text, certain=True, at=now) for text in (*broken, *full)), *short),
        memory_available=available,
        memory_total=total,
        memory_pressure=memory.pressure,
        swap_free=memory.swap_free,
        clock_synchronised=clock.synchronised if clock else None,
        clock_offset=_measured(logs, now),
        clock_error=clock.error if clock else None,
        disks=disks,
        booted_at=_booted_at(now),
        oom_kills=memory.oom_kills,
    )


def _measured(logs: Iterable[LogLook | None], now: datetime) -> float | None:
    """What bots measured of the clock within the last hour: it drifts."""
    known = [log for log in logs if log is not None]
    causes = [cause for log in known for cause in log.causes]
    return offset_in(causes, [mark for log in known for mark in log.marks.values()], now - RECENT)


def _booted_at(now: datetime) -> datetime:
    """To the second: the two clocks are not read at one moment."""
    return (now - timedelta(seconds=time.clock_gettime(time.CLOCK_BOOTTIME))).replace(microsecond=0)


def _disks(paths: Iterable[Path]) -> tuple[tuple[DiskLook, ...], list[str]]:
    """Each file system once; and those that do not answer, one sentence each."""
    folders: dict[int, list[str]] = {}
    broken = []
    for path in dict.fromkeys(paths):
        try:
            folder, device = _existing(path)
            folders.setdefault(device, []).append(str(folder))
        except OSError as error:
            if error.errno in (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO):
                broken.append(f"The disk of {path} does not answer: {error.strerror}.")
    return tuple(one for named in folders.values() if (one := _disk(named))), broken


def _existing(path: Path) -> tuple[Path, int]:
    """The folder, or the nearest one above it that is there; and its device. Raises OSError."""
    for folder in (path, *path.parents):
        try:
            return folder, os.stat(folder).st_dev
        except (FileNotFoundError, NotADirectoryError):
            continue
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _disk(folders: Sequence[str]) -> DiskLook | None:
    try:
        found = os.statvfs(folders[0])
    except OSError:
        return None
    return DiskLook(
        path=folders[0],
        paths=tuple(folders),
        free=found.f_bavail * found.f_frsize,
        total=found.f_blocks * found.f_frsize,
        files_free=found.f_favail if found.f_files else None,
        read_only=bool(found.f_flag & os.ST_RDONLY),
        mount=_mount_of(Path(folders[0])),
    )


def _mount_of(folder: Path) -> str:
    """Where the file system begins that the folder is on."""
    real = folder.resolve()
    return str(next((one for one in (real, *real.parents) if os.path.ismount(one)), folder))


def disk_trouble(disk: DiskLook, free_below: int = FREE_BELOW) -> str:
    """What keeps bots from writing there, one sentence; empty if nothing does."""
    if disk.read_only:
        return f"The disk of {disk.path} is mounted read-only, so nothing can be written there."
    if disk.files_free is not None and disk.files_free < FILES_BELOW:
        return (
            f"The disk of {disk.path} takes only {disk.files_free} more files, whatever room it has "
            f"({size_text(disk.free)} of {size_text(disk.total)})."
        )
    if disk.free < free_below:
        return f"The disk of {disk.path} has {size_text(disk.free)} of {size_text(disk.total)} left."
    return ""


def _memory_short(
    available: int | None, total: int | None, memory: Memory, tight: Limit | None, now: datetime
) -> Iterator[HostCause]:
    if available is not None and total and available < total * MEMORY_BELOW:
        swap = f", {size_text(memory.swap_free)} of swap" if memory.swap_free else ", no swap"
        where = "the memory that botkeep's cgroup may use" if tight else "this machine's memory"
        text = f"Of {where} {size_text(available)} of {size_text(total)} are left{'' if tight else swap}."
        yield HostCause("memory", text, certain=True, at=now)
    elif memory.pressure is not None and memory.pressure >= PRESSURE_ABOVE:
        text = f"Memory is short: tasks waited for it {memory.pressure:.0f} % of the last minute."
        yield HostCause("memory", text, certain=False, at=now)


# ------------------------------------------------------------------------------------------------ the expensive part


def asked_about(bot: Bot, seen: Observation) -> Asked:
    """The question about the machine of one bot, from its configuration and a look at it."""
    from .resolving import hosts_of

    account = bot.replay.exchange
    exchange = seen.program.exchange or (account.id if account else "")
    endpoint = account.endpoint if account else None
    return Asked(
        causes=seen.causes,
        marks=tuple(seen.marks.values()),
        exit=seen.runtime.exit,
        alive=bool(seen.runtime.instances),
        pids=tuple(pid for one in seen.runtime.instances for pid in one.members or ((one.pid,) if one.pid else ())),
        names=_names(bot),
        hosts=hosts_of(exchange, endpoint, bot.health_endpoint),
    )


def _names(bot: Bot) -> frozenset[str]:
    """Program and script, as the kernel cuts them."""
    command = tuple(getattr(bot.runtime, "command", None) or ())
    words = [*command[:1], *(word for word in command[1:3] if not word.startswith("-")), bot.process_name or ""]
    return frozenset(os.path.basename(word)[:COMM_LENGTH] for word in words if word)


def examine(seen: HostLook, asked: Asked, now: datetime, *, seconds: float = 3.0, places: Places = PLACES) -> HostLook:
    """`seen` with what only a diagnosis is worth: the kernel's kills, the bot's own cgroup, clock and names.

    `seconds`: for names, all together; they are asked only where the bot's log complains of names or of the network.
    Never raises.
    """
    kills, unread = read_kills(now, places.kmsg, places.kernel_logs, places.journal)
    ended = asked.exit.at if asked.exit and not asked.alive else None
    offset = offset_in(asked.causes, asked.marks, (ended or now) - RECENT)
    unresolved, resolved = _names_asked(asked, seconds, now)
    causes = (
        *_ended_by_the_kernel(kills, asked, seen, places, now),
        *_bots_own_limit(asked, places, now),
        *_clock_cause(seen, asked, offset, now),
        *unresolved,
        *seen.causes,
    )
    notes = (*seen.notes, *([unread] if unread and _may_be_memory(asked) else []), *resolved)
    offset = seen.clock_offset if offset is None else offset
    return replace(seen, causes=causes, clock_offset=offset, kills=kills, notes=notes)


def ended_for_memory(looks: Iterable[Observation], now: datetime, places: Places = PLACES) -> frozenset[str]:
    """The bots of which the kernel's own log says that it ended them for lack of memory: pid and time agree.

    A watcher and supervisord only see a SIGKILL. The log is read where a bot ended by one and the kernel counts such
    kills at all. Never raises.
    """
    killed = [one for one in looks if _is_by_an_unknown_hand(one)]
    counted = max((one.host.oom_kills or 0 for one in killed if one.host), default=0)
    if not counted:
        return frozenset()
    kills = _known_kills(places).newest(counted, now)
    return frozenset(one.bot for one in killed if any(_is_the_end_of(one, kill, places) for kill in kills))


@cache
def _known_kills(places: Places) -> KnownKills:
    return KnownKills(places.kmsg, places.kernel_logs, places.journal)


def know_kills(now: datetime, places: Places = PLACES) -> None:
    """Read what the kernel said of its kills before a look waits for it. Never raises."""
    counted = read_memory(places.proc).oom_kills
    if counted:
        _known_kills(places).newest(counted, now)


def _is_by_an_unknown_hand(seen: Observation) -> bool:
    ended = seen.runtime.exit
    return not seen.runtime.instances and ended is not None and ended.signal == 9 and not ended.out_of_memory


def _is_the_end_of(seen: Observation, kill: OomKill, places: Places) -> bool:
    asked = Asked(exit=seen.runtime.exit, alive=False)
    return seen.host is not None and _is_of_this_bot(kill, asked, seen.host, places) is True


def _may_be_memory(asked: Asked) -> bool:
    """Whether the kernel may have ended this bot. An exit with a code of the program's own says that it did not."""
    if any(kind_of(one) is CauseKind.MEMORY for one in asked.causes):
        return True
    ended = asked.exit
    return not asked.alive and (ended is None or ended.signal == 9 or ended.code in (None, 137))


def _ended_by_the_kernel(
    kills: Sequence[OomKill], asked: Asked, seen: HostLook, places: Places, now: datetime
) -> Iterator[HostCause]:
    """The kill that ended this bot; else those that show that the machine was short of memory lately."""
    for kill in reversed(kills):
        certain = _is_of_this_bot(kill, asked, seen, places)
        if certain is not None:
            yield _kill_cause(kill, certain=certain)
            return
    recent = [kill for kill in kills if kill.whole_machine and now - kill.at <= RECENT]
    if recent:
        last, others = recent[-1], f" and {len(recent) - 1} more" if len(recent) > 1 else ""
        text = (
            f"Within the last hour the kernel ended {last.name} (pid {last.pid}){others} for lack of memory, "
            f"the last at {last.at:%H:%M:%SZ}."
        )
        yield HostCause("memory", text, certain=True, at=last.at)


def _kill_cause(kill: OomKill, *, certain: bool) -> HostCause:
    held = f", which held {size_text(kill.rss_bytes)}" if kill.rss_bytes else ""
    lack = "the machine had no memory left" if kill.whole_machine else "its cgroup had used up its memory limit"
    what = f"it (pid {kill.pid}, {kill.name}{held})" if certain else f"a {kill.name} (pid {kill.pid}{held})"
    doubt = "" if certain else ", about when the bot ended"
    return HostCause(
        "oom-kill", f"The kernel killed {what} at {kill.at:%Y-%m-%d %H:%M:%SZ}{doubt}: {lack}.", certain, kill.at
    )


def _is_of_this_bot(kill: OomKill, asked: Asked, seen: HostLook, places: Places) -> bool | None:
    """True: the bot's pid, at the time of its end. False: it may be. None: another process, or no such end.

    A wrapper ends with 137 when its child was killed: then the child's name has to do. A bot that was killed itself
    has the pid that the kernel names, or was killed by somebody else.
    """
    ended = asked.exit
    if ended is None or ended.asked or ended.signal not in (9, None) or ended.code not in (137, None):
        return None
    near, known = _near(kill.at, ended.at, seen), _KEY.fullmatch(ended.key)
    if known and int(known["pid"]) == kill.pid:
        same_boot = read_small(places.proc / "sys/kernel/random/boot_id").startswith(known["boot"].encode())
        return True if near else False if ended.at is None and same_boot else None
    if known and ended.signal == 9:
        return None
    return False if near and kill.name in asked.names else None


def _near(killed: datetime, ended: datetime | None, seen: HostLook) -> bool:
    """Within what the kernel's clock may be off by now."""
    drift = (seen.at - seen.booted_at) * DRIFT if seen.booted_at else timedelta()
    return ended is not None and abs(killed - ended) <= max(KILL_NEAR, drift)


def _bots_own_limit(asked: Asked, places: Places, now: datetime) -> Iterator[HostCause]:
    """A bot in a container or unit of its own has a limit that the machine's memory says nothing about."""
    for pid in asked.pids[:MOST_PIDS]:
        limit = read_limit(pid, places.proc, places.cgroups)
        if limit and limit.left < limit.limit * MEMORY_BELOW:
            text = (
                f"The bot's cgroup has used {size_text(limit.used)} of the {size_text(limit.limit)} of memory that it "
                f"may use."
            )
            yield HostCause("memory", text, certain=True, at=now)
            return


def _clock_cause(seen: HostLook, asked: Asked, offset: float | None, now: datetime) -> Iterator[HostCause]:
    """Only where the bot's log complains: a clock that nothing sets may be right all the same. Always suspect."""
    if not any(kind_of(one) is CauseKind.CLOCK for one in asked.causes):
        return
    if offset is not None and abs(offset) >= CLOCK_OFF:
        way = "ahead" if offset > 0 else "behind"
        measured = f"By what the bot's log says, this machine's clock is {abs(offset):.1f} s {way}"
    else:
        measured = "By what the bot's log says, this machine's clock is off"
    yield HostCause("clock", f"{measured}; {_kept_by(seen)}.", certain=False, at=now)


def _kept_by(seen: HostLook) -> str:
    if seen.clock_synchronised is None:
        return "whether a time service sets it is not known"
    reckoned = seen.clock_error if seen.clock_error and seen.clock_error >= CLOCK_OFF else None
    error = f", which reckons with an error of up to {reckoned:.0f} s" if reckoned else ""
    verb = "a time service sets it" if seen.clock_synchronised else "no time service sets it"
    return f"{verb} by the kernel's word{error}"


def _names_asked(asked: Asked, seconds: float, now: datetime) -> tuple[list[HostCause], list[str]]:
    """What cannot be resolved; or, where the log complains of names, that all can by now."""
    kinds = {kind_of(one) for one in asked.causes}
    answered = kinds & {CauseKind.RATE, CauseKind.KEY} and CauseKind.DNS not in kinds
    if not asked.hosts or answered or not kinds & {CauseKind.DNS, CauseKind.EXCHANGE}:
        return [], []  # an exchange that bans us was found
    from .resolving import resolve

    answers = resolve(asked.hosts, seconds)
    failed = [one for one in answers if not one.ok]
    if failed:
        names = ", ".join(one.host for one in failed)
        text = f"This machine cannot resolve {names}: {failed[0].why} (asked for {failed[0].seconds:.1f} s)."
        return [HostCause("dns", text, certain=True, at=now)], []
    names = ", ".join(one.host for one in answers)
    return [], [f"This machine resolves {names} now."] if CauseKind.DNS in kinds else []
