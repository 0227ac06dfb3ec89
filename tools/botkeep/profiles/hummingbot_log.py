"""What Hummingbot's log says of the bot: whether its strategy works, how silent it is, and who else writes there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from botkeep.model import Instance, Mark, Progress, iso
from botkeep.openfiles import inode_of, written_by
from botkeep.progress import normal_pause
from botkeep.runtimes.procs import read_program
from botkeep.web import ancestors

from . import hummingbot_cli
from .base import Subject

FILLS_LOST = "fills-lost"
"""The mark of a fill that its database does not have: it trades on."""
EVENT = "event"
"""The mark of an order or a fill, whatever became of it: only a strategy at work causes such lines."""
STARTED, STOPPED = "started", "stopped"
"""The marks of its strategy. The process lives on when that was stopped, by its kill switch for one."""
CLOSED, SUBSCRIBED = "websocket-closed", "subscribed"
CONNECTOR = "connector"
SUBSCRIBES_WITHIN = timedelta(seconds=60)
SHORTEST_PAUSE = 1.0
"""Seconds: events come in bursts."""
TALKATIVE = timedelta(minutes=2)
"""The longest normal pause of a log whose silence is not idleness."""
SILENT_AT_LEAST = timedelta(seconds=60)
"""A shorter silence is not worth asking about."""
LOST_RECENTLY = timedelta(hours=24)
EARLY = timedelta(seconds=2)
"""By which a line may be dated before the process that wrote it."""

_SCRIPTS = frozenset({"hummingbot_quickstart.py", "hummingbot_quickstart", "hummingbot.py"})
_STARTS = frozenset({"start", "deploy"})
_WRAPPERS = frozenset(
    {"docker", "podman", "conda", "mamba", "micromamba", "env", "nice", "sudo", "tini", "uv", "poetry"}
)
_IMAGE = re.compile(r"(?:\S{1,200}/)?hummingbot/hummingbot(?:[:@]\S{1,200})?")


class LoggedBot:
    """One look at one bot's log, with the bot's processes beside it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.log = subject.log
        self.normal = normal_pause(subject.log.gaps) if subject.log else None
        """Its own longest pause; None: not enough are known."""

    def mark(self, name: str) -> Mark | None:
        """The newest such line of this run."""
        mark = self.log.marks.get(name) if self.log else None
        return mark if mark is not None and mark.this_run else None

    def state(self) -> str:
        """running or stopped, by the newest word of its strategy in this run; empty if there is none."""
        marks = {name: mark.at for name in (STARTED, EVENT, STOPPED) if (mark := self.mark(name)) is not None}
        if not marks:
            return ""
        return "stopped" if max(marks, key=lambda name: marks[name]) == STOPPED else "running"

    def has_started(self, instance: Instance) -> bool:
        """Whether this very copy's strategy was started, or has done something."""
        names = frozenset(map(str, names_of([instance])))
        marks = [mark for name in (STARTED, EVENT) if (mark := self.mark(name)) is not None]
        return any(_is_of(mark, names, instance.started_at) for mark in marks)

    def progress(self) -> Progress | None:
        """Its newest event."""
        mark = self.mark(EVENT)
        if mark is None:
            return None
        pauses = [gap for gap in mark.gaps if gap >= SHORTEST_PAUSE]
        return Progress("events", min(mark.at, self.subject.now), normal_pause(pauses), len(pauses))

    def connectors(self) -> tuple[str, ...]:
        """Those that it created in this run."""
        mark = self.mark(CONNECTOR)
        return tuple(sorted(who for who, _ in mark.who)) if mark else ()

    def left_closed(self) -> Iterator[tuple[str, datetime]]:
        """(stream, since when) of websockets that were closed and, other than before, not subscribed again."""
        closed, subscribed = self.mark(CLOSED), self.mark(SUBSCRIBED)
        known = dict(subscribed.who) if subscribed else {}
        for who, at in closed.who if closed else ():
            if who in known and known[who] < at and self.subject.now - at > SUBSCRIBES_WITHIN:
                yield who, at

    def fills_lost(self) -> str:
        """A sentence about fills that its database does not have, of the last day; empty if there are none."""
        lost = self.log.marks.get(FILLS_LOST) if self.log else None
        if lost is None or self.subject.now - lost.at > LOST_RECENTLY:
            return ""
        who = "A fill" if lost.count == 1 else f"{lost.count} fills"
        return f"{who} did not reach its database, the newest at {iso(lost.at)}; its log has what is missing there."

    # --------------------------------------------------------------------------------------------------- silence

    @property
    def silence(self) -> timedelta | None:
        """For how long it has said nothing; None without a log."""
        times = [at for at in (self.log.newest_line_at, self.log.mtime) if at is not None] if self.log else []
        return self.subject.now - max(times) if times else None

    def is_silent(self) -> bool:
        """For longer than its own longest pause. Where there is no log, nothing of it is heard at all."""
        return self.silence is None or self.silence > max(SILENT_AT_LEAST, self.normal or SILENT_AT_LEAST)

    def fell_silent(self) -> bool:
        """Whether it wrote all the time, and writes no more: that is not an idle strategy."""
        talkative = self.normal is not None and self.normal <= TALKATIVE
        return talkative and self.silence is not None and self.is_silent()

    # ---------------------------------------------------------------------------------------------------- others

    def strangers(self) -> Iterator[int]:
        """Pids that are not ours and say in this run's log that they trade as this bot."""
        ours = names_of(self.subject.instances)
        for mark in (self.mark(STARTED), self.mark(EVENT)) if ours else ():
            for who, _ in mark.who if mark else ():
                if re.fullmatch("[1-9][0-9]{0,9}", who) and int(who) not in ours:
                    yield int(who)


def _is_of(mark: Mark, names: frozenset[str], started: datetime | None) -> bool:
    lines = [at for who, at in mark.who if who in names] if mark.who else [mark.at]
    return any(started is None or at >= started - EARLY for at in lines)


# ------------------------------------------------------------------------------------------------------- processes


def starts_it(command: tuple[str, ...]) -> bool:
    """Whether a command line is that of a Hummingbot: its engine, its scripts, or hbot when told to start one."""
    program = read_program(command)
    if program is not None and program.is_module:
        return program.script == hummingbot_cli.ENGINE or _is_it(program.script, program.arguments)
    if program is not None and program.base not in _WRAPPERS:
        return _is_it(program.base, program.arguments)
    words = [word.strip("'\"();") for part in command[1:] for word in part.split()]  # of a wrapper, or a shell's text
    return any(_is_named(words, place) for place in range(len(words)))


def _is_named(words: Sequence[str], place: int) -> bool:
    word = words[place]
    return (
        word == hummingbot_cli.ENGINE
        or bool(_IMAGE.fullmatch(word))
        or _is_it(word.rsplit("/", 1)[-1], words[place + 1 :])
    )


def _is_it(base: str, arguments: Sequence[str]) -> bool:
    """hbot is also what one asks about a bot: then it is none."""
    if base in ("hbot", "hummingbot.cli.main"):
        return not arguments or not _STARTS.isdisjoint(arguments)
    return base in _SCRIPTS


def is_called(process_name: str) -> bool:
    """Whether a process of this name is a Hummingbot."""
    return process_name == "hbot" or process_name in _SCRIPTS


def pids_of(instances: Sequence[Instance]) -> frozenset[int]:
    """Every process that is known to be the bot's."""
    return frozenset(pid for one in instances for pid in (*one.members, one.pid) if pid is not None)


def names_of(instances: Sequence[Instance]) -> frozenset[int]:
    """Their pids, and what those are called in their containers."""
    pids = pids_of(instances)
    return pids.union(*(hummingbot_cli.names_of(pid) for pid in pids))


def is_this_bot(subject: Subject, pid: int) -> bool:
    """Whether a process is another copy of this very bot: a Hummingbot with its database or its log open for writing.

    A pid alone is only a trace: it is used again, and a command for another install tells of another bot.
    """
    argv = hummingbot_cli.command_of(pid)
    if not starts_it(argv) or not pids_of(subject.instances).isdisjoint(ancestors(pid)):
        return False
    files = {inode_of(path) for path in (subject.data_file, subject.log_file) if path is not None}
    return not files.isdisjoint(written_by(pid))
