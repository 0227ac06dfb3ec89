"""What is remembered of a log between looks: where we are, what its lines meant and stated, and at what pace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from .logfile import Position, position_from
from .logmatch import Found
from .model import Mark
from .profiles.signature import After
from .untrusted import clean

PAUSES = 200
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = timedelta(days=7).total_seconds()
FORGET = timedelta(days=7).total_seconds()
SAME_START = 2.0
GAPS = 20
WHO = 8
VALUE = 80
"""Characters of a value of a mark that are kept."""
VALUE_READ = 1024
"""Characters of it that are looked at, so that a secret in it is known as one."""


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


@dataclass(eq=False, repr=False)
class Meaning:
    """One signature in one run, over several looks. Times are seconds since 1970."""

    count: int = 0
    first: float | None = None
    last: float | None = None
    until: float | None = None
    line: str = ""
    times: list[float] = field(default_factory=list)
    """Of the newest lines, as many as the signature's `after` asks for."""
    lasted: float | None = None
    """The newest line with which there were enough."""
    raw: str = ""
    """The newest matching line of this look, not cleaned yet: that costs more than all the rest."""

    def add(self, text: str, at: float, until: float | None, recent: float, after: After | None = None) -> None:
        """One more line. After a pause longer than `recent` a new episode begins."""
        if self.last is not None and at - self.last > recent:
            self.count, self.first = 0, None
        self.count += 1
        self.first = at if self.first is None else min(self.first, at)
        if self.last is None or at >= self.last:
            self.last, self.raw, self.until = at, text, until
        if after is not None:
            self._add_to_row(at, after)

    def _add_to_row(self, at: float, after: After) -> None:
        self.times = [*self.times, at][-after.lines :]
        if len(self.times) == after.lines and max(self.times) - min(self.times) <= after.within.total_seconds():
            self.lasted = max(self.times)

    def tidy(self) -> None:
        """Make what is kept fit to be shown."""
        if self.raw:
            self.line, self.raw = clean(self.raw), ""

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        kept: dict[str, Any] = {"count": self.count, "first": self.first, "last": self.last}
        kept |= {"until": self.until, "line": self.line}
        return kept | ({"times": self.times, "lasted": self.lasted} if self.times else {})


_FACT = ("count", "first", "last", "written", "this_run", "values", "gaps", "who")


@dataclass(eq=False, repr=False)
class Fact:
    """One kind of mark, over several looks: the newest run's, or the run's before while the newest has none."""

    count: int = 0
    first: float = 0.0
    last: float = 0.0
    written: float | None = None
    """When the newest line says that it was written, whatever we believe: for the distance to the next."""
    this_run: bool = True
    values: dict[str, str] = field(default_factory=dict)
    gaps: list[float] = field(default_factory=list)
    who: dict[str, float] = field(default_factory=dict)
    """Who said it -> when they last did, the newest last."""
    newest: Found | None = None
    """The newest match of this look, its values not cleaned yet."""

    def add(self, found: Found, at: float, written: float | None, *, this_run: bool) -> None:
        """One more line. A line of the run before says nothing once the newest run has had one."""
        if self.this_run is not this_run:
            if self.count and self.this_run:
                return
            self.count, self.written, self.who, self.this_run = 0, None, {}, this_run
        if self.written is not None and written is not None and written >= self.written:
            self.gaps = [*self.gaps[1 - GAPS :], round(written - self.written, 1)]
        self.first = at if self.count == 0 else min(self.first, at)
        if at >= self.last or self.count == 0:
            self.last, self.newest = at, found
        self.count += 1
        self.written = written
        self._add_who(found.group("who"), at)

    def skip(self) -> None:
        """There were more that nobody looked at: the next one's distance is not known."""
        self.written = None

    def _add_who(self, who: str | None, at: float) -> None:
        if who is None:
            return
        name = who if who.isalnum() and len(who) <= 20 else clean(who[:VALUE_READ], VALUE)
        self.who[name] = max(at, self.who.pop(name, at))
        if len(self.who) > WHO:
            del self.who[next(iter(self.who))]

    @classmethod
    def load(cls, raw: Mapping[str, Any]) -> Fact:
        """From what `dump` gave. Raises KeyError, TypeError."""
        return cls(**{name: raw[name] for name in _FACT}).copy()

    def copy(self) -> Fact:
        """One that may learn more without this one."""
        return replace(self, who=dict(sorted(self.who.items(), key=lambda one: one[1])))

    def tidy(self) -> None:
        """Make what is kept fit to be shown."""
        if self.newest is not None:
            self.values = {name: clean(value[:VALUE_READ], VALUE) for name, value in self.newest.groups().items()}
            self.newest = None

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in _FACT}

    def mark(self, name: str) -> Mark:
        """As a look gives it."""
        newest_first = sorted(self.who.items(), key=lambda one: -one[1])
        return Mark(
            id=name,
            at=datetime.fromtimestamp(self.last, UTC),
            values=self.values,
            count=self.count,
            first_at=datetime.fromtimestamp(self.first, UTC),
            this_run=self.this_run,
            gaps=tuple(self.gaps),
            who=tuple((one, datetime.fromtimestamp(at, UTC)) for one, at in newest_first),
        )


MeaningKey = tuple[str, bool]
"""(signature, of the newest run)."""
Learnt = tuple[dict[MeaningKey, Meaning], dict[str, Fact]]
_Key = TypeVar("_Key")
_Item = TypeVar("_Item", Meaning, Fact)


def _added(now: Mapping[_Key, _Item], before: Mapping[_Key, _Item]) -> dict[_Key, _Item]:
    """What is new, or has been counted since."""
    return {key: one for key, one in now.items() if key not in before or one.dump() != before[key].dump()}


def _died(meanings: Mapping[MeaningKey, Meaning]) -> dict[MeaningKey, Meaning]:
    """What the newest run meant is of the run before; what that meant is forgotten."""
    return {(name, False): one for (name, this_run), one in meanings.items() if this_run}


def _meanings(raw: Iterable[Mapping[str, Any]]) -> dict[MeaningKey, Meaning]:
    return {(one.pop("id"), one.pop("this_run")): Meaning(**one) for one in map(dict, raw)}


def _facts(raw: Mapping[str, Mapping[str, Any]]) -> dict[str, Fact]:
    return {name: Fact.load(one) for name, one in raw.items()}


def _dumped(learnt: Learnt) -> dict[str, Any]:
    meanings, facts = learnt
    return {
        "causes": [{"id": name, "this_run": this_run} | one.dump() for (name, this_run), one in meanings.items()],
        "marks": {name: one.dump() for name, one in facts.items()},
    }


@dataclass(eq=False, repr=False)
class Memory:
    """The cursor of a log, unpacked."""

    position: Position | None = None
    heard: int | None = None
    """Bytes that the log had: while it has no more, there is nothing to read."""
    looked_at: float | None = None
    newest: float | None = None
    """When the newest line was written, as we believe."""
    last: float | None = None
    """The same as the lines have it, for pauses."""
    pauses: list[tuple[float, float]] = field(default_factory=list)
    """(end, seconds)."""
    run: tuple[int | None, float | None] = (None, None)
    """Where in the log, or when, the newest run began."""
    turned: bool = False
    """The log was rotated since that run began: all of it belongs to the run."""
    meanings: dict[MeaningKey, Meaning] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    last_words: Learnt = field(default_factory=lambda: ({}, {}))
    """What the lines after `position` that are not complete add to that, for now."""

    @classmethod
    def load(cls, cursor: Mapping[str, Any] | None) -> Memory:
        """A cursor of another version, or a broken one, is as good as none."""
        try:
            return cls._load(cursor) if cursor else cls()
        except (KeyError, TypeError, ValueError, AttributeError):
            return cls()

    @classmethod
    def _load(cls, raw: Mapping[str, Any]) -> Memory:
        return cls(
            position=position_from(raw["position"]),
            heard=raw["heard"],
            looked_at=raw["looked_at"],
            newest=raw["newest"],
            last=raw["last"],
            pauses=[(float(end), float(seconds)) for end, seconds in raw["pauses"]],
            run=(raw["run"][0], raw["run"][1]),
            turned=raw["turned"],
            meanings=_meanings(raw["causes"]),
            facts=_facts(raw["marks"]),
            last_words=(_meanings(raw["last_words"]["causes"]), _facts(raw["last_words"]["marks"])),
        )

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        self.tidy()
        return {
            "position": self.position._asdict() if self.position else None,
            "heard": self.heard,
            "looked_at": self.looked_at,
            "newest": self.newest,
            "last": self.last,
            "pauses": [list(pause) for pause in self.pauses],
            "run": list(self.run),
            "turned": self.turned,
            **_dumped((self.meanings, self.facts)),
            "last_words": _dumped(self.last_words),
        }

    def tidy(self) -> None:
        """Make what is kept fit to be shown."""
        learnt: tuple[Meaning | Fact, ...] = (*self.meanings.values(), *self.facts.values())
        for one in learnt:
            one.tidy()

    @contextmanager
    def for_now(self) -> Iterator[None]:
        """What is learnt inside is of lines that are not complete: it is taken back at the end, as `last_words`."""
        meanings, facts = self.meanings, self.facts
        self.meanings = {key: replace(one) for key, one in meanings.items()} | self.last_words[0]
        self.facts = {name: one.copy() for name, one in facts.items()} | self.last_words[1]
        try:
            yield
        finally:
            self.last_words = _added(self.meanings, meanings), _added(self.facts, facts)
            self.meanings, self.facts = meanings, facts

    def settle_last_words(self, *, read_again: bool) -> None:
        """The incomplete lines of the last look are read again with what follows them, or they are gone and count."""
        if not read_again:
            self.meanings |= self.last_words[0]
            self.facts |= self.last_words[1]
        self.last_words = {}, {}

    def forget(self, now: float) -> None:
        """What is a week old."""
        self.meanings = {key: one for key, one in self.meanings.items() if now - (one.last or 0.0) <= FORGET}
        self.facts = {name: one for name, one in self.facts.items() if now - one.last <= FORGET}

    def begin_run(self, offset: int | None, started: float | None) -> bool:
        """True if this run is new: what was known of the newest run is now of the run before it."""
        if offset is None and started is None:
            return False  # a bot that is down has no start: that is no new run
        before, self.run = self.run, (offset, started)
        if self.position is None or self._is_same_run(before):
            return False
        self.meanings, self.last_words = _died(self.meanings), (_died(self.last_words[0]), self.last_words[1])
        for fact in (*self.facts.values(), *self.last_words[1].values()):
            fact.this_run = False
        self.turned, self.last = False, None
        return True

    def _is_same_run(self, before: tuple[int | None, float | None]) -> bool:
        """The start of a process is computed from the uptime and may be off by a second between two looks."""
        (offset, started), (old_offset, old_started) = self.run, before
        if offset is not None:
            return offset == old_offset
        return started is not None and old_started is not None and abs(started - old_started) <= SAME_START

    def pause(self, at: float) -> None:
        """A line was written at `at`, as the lines have it: remember how long it was silent before.

        Lines come in bursts, and the last 200 gaps of a chatty bot may span a minute. So of two hundred the smallest
        of the older half goes first, and all go after a week.
        """
        if self.last is not None and SHORTEST_PAUSE <= at - self.last <= LONGEST_PAUSE:
            self.pauses.append((round(at), round(at - self.last, 1)))
            if len(self.pauses) > PAUSES:
                self.pauses = [one for one in self.pauses if at - one[0] <= FORGET]
            if len(self.pauses) > PAUSES:
                self.pauses.remove(min(self.pauses[: PAUSES // 2], key=lambda one: one[1]))
        self.last = at
