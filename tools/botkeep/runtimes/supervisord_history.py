"""What supervisord's own log tells: which runs its programs had, how they ended, and who began the next one. Pure.

The XML-RPC interface knows only the newest start and stop, in whole seconds, no signal, and no restart: a program that
was started 33 times within two minutes is RUNNING there, like any other.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import pairwise

TAIL = 64 << 10
"""Bytes of the log that are read: some 160 restarts. Who restarts more than that loops anyway."""
MATCHES = timedelta(seconds=2.5)
"""How far the log and the interface may be apart about one moment: the one has milliseconds, the other seconds."""
BY_ITSELF = timedelta(seconds=3)
"""supervisord starts what ended within a second or two, a person or botkeep hardly ever."""
_EVENT = re.compile(
    r"^(?P<at>20\d\d-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) [A-Z]{4} (?:"
    r"spawned: '(?P<spawned>[^\s']+)' with pid (?P<pid>\d{1,10})"
    r"|(?P<kind>exited|stopped): (?P<ended>\S+) \((?P<how>[^\n]{1,100})\)"
    r"|supervisord started with pid (?P<daemon>\d{1,10}))$",
    re.MULTILINE,
)
_TALKS = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} DEBG '[^\n]{1,300}' std(?:out|err) output:$", re.MULTILINE)
_HOW = re.compile(
    r"exit status (?P<code>\d{1,5})|terminated by (?P<name>SIG[A-Z0-9+-]{1,12}|signal (?P<number>\d{1,3}))"
)
_QUARTER = 900


@dataclass
class Run:
    """One run of a program; times are UTC."""

    pid: int
    started: datetime
    ended: datetime | None = None
    """None: it lives, or nobody saw its end."""
    code: int | None = None
    signal: int | None = None
    as_told: bool = False
    """supervisord was told to stop it."""
    expected: bool = False
    """Its exit code is one of those that are no failure."""
    lost: bool = False
    """supervisord itself was started anew meanwhile."""
    begins: bool = False
    """The first one of its program since supervisord itself was started."""

    def is_at(self, pid: int, second: int) -> bool:
        """Whether it is the run that the interface has with this pid, started in that second."""
        return self.pid == pid and self.began_in(second)

    def began_in(self, second: int) -> bool:
        """Whether the interface may call that its start."""
        return abs(self.started - datetime.fromtimestamp(second, UTC)) <= MATCHES


@dataclass(frozen=True)
class History:
    """Runs by the program's name, the oldest first. A name may be that of several programs, in different groups."""

    runs: Mapping[str, tuple[Run, ...]] = field(default_factory=dict)
    believed: bool = True
    """False: what programs say stands in the same log, so that any of them could say the rest as well."""

    def of(self, name: str) -> tuple[Run, ...]:
        """The runs of the programs of that name."""
        return self.runs.get(name, ())


def read_history(text: str, starts: Iterable[tuple[str, int, int]], local: tzinfo | None = None) -> History:
    """The runs in the end of a log. `starts`: (name, pid, start) of what lives, by which its clock is understood.

    The log has the local time of supervisord's own process; `local`: this program's, which is the same one as a rule.
    """
    if _TALKS.search(text):
        return History(believed=False)
    events = list(_events(text))
    zone = _zone(events, starts, local)
    runs: dict[str, list[Run]] = {}
    began = False
    for naive, event in events:
        at = naive.replace(tzinfo=zone).astimezone(UTC) if zone else naive.astimezone(UTC)
        began = began or bool(event["daemon"])
        _take(runs, event, at, began=began)
    return History({name: tuple(found) for name, found in runs.items()})


def _events(text: str) -> Iterator[tuple[datetime, re.Match[str]]]:
    """With their times, without a zone; a line whose time is none is no line of supervisord's."""
    for event in _EVENT.finditer(text):
        with suppress(ValueError):
            yield datetime.fromisoformat(event["at"].replace(",", ".")), event


def _zone(
    events: list[tuple[datetime, re.Match[str]]], starts: Iterable[tuple[str, int, int]], local: tzinfo | None
) -> tzinfo | None:
    """None: this program's own zone, with its summer time."""
    begun = {(name, str(pid)): second for name, pid, second in starts}
    for naive, event in reversed(events):
        second = begun.get((event["spawned"] or "", event["pid"] or ""))
        if second is None:
            continue
        ahead = naive.replace(tzinfo=UTC).timestamp() - second
        offset = timedelta(seconds=round(ahead / _QUARTER) * _QUARTER)
        if abs(ahead - offset.total_seconds()) > MATCHES.total_seconds() or abs(offset) >= timedelta(days=1):
            continue  # the pid of an older run
        ours = (naive.replace(tzinfo=local) if local else naive.astimezone()).utcoffset()
        return local if ours == offset else timezone(offset)
    return local


def _take(runs: dict[str, list[Run]], event: re.Match[str], at: datetime, *, began: bool) -> None:
    if event["daemon"]:
        for one in (run for found in runs.values() for run in found if run.ended is None):
            one.lost = True
        return
    if event["spawned"]:
        known = runs.setdefault(event["spawned"], [])
        known.append(Run(int(event["pid"]), at, begins=known[-1].lost if known else began))
        return
    last = next((one for one in reversed(runs.get(event["ended"], ())) if one.ended is None and not one.lost), None)
    how = _HOW.match(event["how"])
    if last is None or how is None:
        return
    last.ended, last.as_told = at, event["kind"] == "stopped"
    last.expected = event["how"].endswith("; expected")
    if how["code"]:
        last.code = int(how["code"])
    else:
        last.signal = int(how["number"]) if how["number"] else _signal(how["name"])


def _signal(name: str) -> int | None:
    try:
        return signal.Signals[name].value
    except KeyError:
        return None


def restarts_what_is_done(runs: Iterable[Run]) -> bool:
    """Whether a run that ended as it should was followed by another one at once: autorestart=true."""
    done = ((one, after) for one, after in pairwise(runs) if one.expected and one.ended)
    return any(one.ended is not None and after.started - one.ended < BY_ITSELF for one, after in done)


def asked_for(runs: Iterable[Run], startsecs: int) -> Iterator[datetime]:
    """Starts that somebody asked supervisord for, or that came with its own start: no restarts of its own.

    What it was told to stop it does not start by itself; what ended, it starts within a moment, and what ended before
    `startsecs` after as many seconds as it has tried.
    """
    tries, before = 0, None
    for one in runs:
        if before is None or before.ended is None:
            if one.begins:
                yield one.started
        else:
            tries = tries + 1 if before.ended - before.started < timedelta(seconds=startsecs + 1) else 0
            if before.as_told or one.started - before.ended > BY_ITSELF + timedelta(seconds=tries):
                yield one.started
        before = one
