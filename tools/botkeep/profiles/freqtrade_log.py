"""What freqtrade's log says of the bot: its heartbeats, whose they are, and which other copy wrote into it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median

from botkeep import web
from botkeep.model import EngineError, Instance, Mark
from botkeep.openfiles import inode_of, written_by
from botkeep.runtimes.procs import read_proc

from .base import Subject
from .freqtrade_api import STATES

USUAL_HEARTBEAT = timedelta(seconds=60)
"""freqtrade's own default, where the log does not tell yet."""
BEATS_FOR_OTHERS = 3
ENOUGH_GAPS = 3
KNOWN_PAIRS = 8
STANDS_STILL = timedelta(minutes=3)
"""freqtrade says of each pair that its candles are old whenever it would look at it: several times a minute."""
_SUBCOMMAND = r"[a-z][a-z-]+"


def subcommands(command: Sequence[str]) -> set[str]:
    """The words after every `freqtrade` of a command line, also behind `env`, `poetry run` or in a `bash -c`."""
    words = [part.strip("'\"();") for word in command for part in word.split()]
    return {right for left, right in pairwise(words) if _is_program(left) and re.fullmatch(_SUBCOMMAND, right)}


def _is_program(word: str) -> bool:
    """`freqtrade`, wherever it is; the image of that name, of any version; its package's own main module."""
    folder, _, name = word.rpartition("/")
    is_package = name in ("main.py", "__main__.py") and folder.rpartition("/")[2] == "freqtrade"
    return is_package or name.partition(":")[0] == "freqtrade"


def state_of(word: str) -> str:
    """A state of freqtrade's in our words; empty for one that is not known.

    One that reads its configuration again comes up as if it were started.
    """
    lower = word.lower()
    return "starting" if lower == "reload_config" else lower if lower in STATES else ""


class LoggedBot:
    """The marks of one look at one bot's log, with the bot's processes beside them."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._instances = subject.instances
        started = [one.started_at for one in subject.instances if one.started_at is not None]
        self._since = min(started) if started else None
        self._newest_start = max(started) if started else None

    def mark(self, name: str) -> Mark | None:
        """The newest such line of this run."""
        mark = self.subject.log.marks.get(name) if self.subject.log else None
        return mark if mark is not None and mark.this_run else None

    def newest_beat(self) -> tuple[datetime | None, int | None]:
        """(when, pid) of our own copy's newest heartbeat: a second one's must not hide that ours is silent."""
        mark = self.mark("heartbeat")
        if mark is None:
            return None, None
        who, at = self._own_beat(mark)
        return (at, _pid(who)) if at is not None and self._is_of_ours(at) else (None, None)

    def _is_of_ours(self, at: datetime) -> bool:
        """Not of a process before ours: in a container each of them has pid 1."""
        return self._since is None or at >= self._since

    def _own_beat(self, mark: Mark) -> tuple[str, datetime | None]:
        """(pid as written, when). Where pids of the log and of this machine cannot be compared, the newest of all."""
        for who, at in mark.who:
            if _is_of(who, self._instances):
                return who, at
        if mark.who and _are_comparable(self._instances):
            return "", None
        return mark.who[0] if mark.who else ("", mark.at)

    def state(self) -> tuple[str, str]:
        """(state, `log`) by the newest heartbeat or change of state; both empty if the log tells none.

        A dead bot has no state, and a new one not that of the one before it: it would be started into it.
        """
        if not self._instances:
            return "", ""
        marks = [mark for name in ("heartbeat", "state-changed") if (mark := self.mark(name)) is not None]
        ours = [mark for mark in marks if self._is_of_ours(mark.at) and self._is_no_copys(mark)]
        for mark in sorted(ours, key=lambda mark: mark.at, reverse=True):
            if state := state_of(mark.values.get("state", "")):
                return state, "log"
        return "", ""

    def _is_no_copys(self, mark: Mark) -> bool:
        """Whether its newest line, which `values` are of, is our own. A change of state has no pid."""
        return not mark.who or mark.who[0] == self._own_beat(mark)

    def told(self, name: str, group: str) -> str:
        """A value of the newest such line of this run; empty if there is none."""
        mark = self.mark(name)
        return mark.values.get(group) or "" if mark else ""

    def blind(self) -> str:
        """Why it has no fresh candle for any pair, a clause; empty: it has, or nobody can say.

        One thin pair is no dead feed. A mark knows eight pairs: where all eight stand still, all do.
        """
        mark, pairs = self.mark("outdated-history"), self.told("whitelist", "pairs")
        if mark is None or not pairs.isdecimal() or pairs == "0":
            return ""
        stale = [pair for pair, at in mark.who if self.subject.now - at <= STANDS_STILL]
        if len(stale) < min(int(pairs), KNOWN_PAIRS):
            return ""
        return f"no candle of any of its {pairs} pairs is fresh, the last is {mark.values.get('minutes')} minutes old"

    @property
    def every(self) -> timedelta | None:
        """The usual distance of heartbeats. While two copies beat in one log it is halved, and so not known."""
        mark = self.mark("heartbeat")
        if mark is None or len(mark.gaps) < ENOUGH_GAPS:
            return None
        since = mark.at - timedelta(seconds=sum(mark.gaps))
        beating = [who for who, at in mark.who if at >= since]
        return timedelta(seconds=median(mark.gaps)) if len(beating) <= 1 else None

    def has_begun(self) -> bool:
        """Whether the newest copy has a word of its main loop in the log."""
        marks = [mark for name in ("heartbeat", "state-changed") if (mark := self.mark(name)) is not None]
        return any(self._newest_start is None or mark.at >= self._newest_start for mark in marks)

    def strangers(self) -> Iterator[int]:
        """Pids that are not ours and said in this log, within three heartbeats, that they are this bot."""
        mark = self.mark("heartbeat")
        since = self.subject.now - BEATS_FOR_OTHERS * (self.every or USUAL_HEARTBEAT)
        for who, at in mark.who if mark else ():
            pid = _pid(who)
            if pid is not None and at >= since and not _is_of(who, self._instances):
                yield pid


# ------------------------------------------------------------------------------------------------------- processes


def pids_of(instances: Sequence[Instance]) -> frozenset[int]:
    """Every process that is known to be the bot's."""
    return frozenset(pid for one in instances for pid in (*one.members, one.pid) if pid is not None)


def others(log: LoggedBot, holders: Sequence[int]) -> tuple[int, ...]:
    """Other living copies of this very bot: they said so in its log, or hold its API's port (`holders`).

    Both are only a trace, and pids are used again: each must be a freqtrade that has the bot's database or log open.
    """
    files = {inode for path in _files(log.subject) if (inode := inode_of(path)) is not None}
    traced = dict.fromkeys((*log.strangers(), *holders))
    return tuple(pid for pid in traced if _trades(pid) and not files.isdisjoint(written_by(pid)))


def _files(subject: Subject) -> Iterator[Path]:
    """What only this bot writes."""
    if subject.data_file is not None:
        yield from (subject.data_file, Path(f"{subject.data_file}-wal"))
    if subject.log_file is not None:
        yield subject.log_file


def _pid(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,9}", text) else None


def _is_of(who: str, instances: Sequence[Instance]) -> bool:
    """Whether a pid of the log is one of theirs, or of a process that they started meanwhile."""
    pid, ours = _pid(who), pids_of(instances)
    if pid is None or not ours:
        return False
    return pid in ours or pid in _inner_pids(ours) or not ours.isdisjoint(web.ancestors(pid))


def _inner_pids(pids: Set[int]) -> frozenset[int]:
    """What the processes are called inside of their containers: the log of one has those."""
    return frozenset(inner[-1] for pid in pids if len(inner := _namespaced(pid)) > 1)


def _namespaced(pid: int) -> list[int]:
    """What the process is called in our pid namespace, in the one within, and so on."""
    try:
        text = Path(f"/proc/{pid}/status").read_bytes()  # a process may call itself anything, in any encoding
    except OSError:
        return []
    found = re.search(rb"^NSpid:([\s\d]+)$", text, re.MULTILINE)
    return [int(number) for number in found[1].split()] if found else []


def _are_comparable(instances: Sequence[Instance]) -> bool:
    """Whether one of their processes is a freqtrade that we see: then a pid that is none of theirs is another's.

    It is not where the engine runs on another machine, or botkeep itself in a container; nor where the bot is in one,
    for of its processes only the first may be known, which often is an init and not freqtrade.
    """
    return any(len(_namespaced(pid)) == 1 and _trades(pid) for pid in pids_of(instances))


def _trades(pid: int) -> bool:
    """Whether it lives and is a `freqtrade trade`."""
    try:
        proc = read_proc(pid)
    except EngineError:
        return False
    return proc is not None and not proc.dead and "trade" in subcommands(proc.argv)
