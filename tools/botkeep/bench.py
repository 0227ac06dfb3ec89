"""What an action needs: one open workspace, one bot with its lock, the words in which the outcome is written down."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from . import history as past
from . import probe, progress
from .config import Bot, Fleet
from .durable import Lock
from .journal import Journal
from .ledger import Entry, Kind, Ledger
from .model import Action, ActionReport, Actor, Fault, History, Hold, LedgerError, Result, Status, Verdict
from .playbooks import Playbooks
from .runtimes import Runtime, Target
from .runtimes.procs import ProcessTable
from .stores import Stores, open_stores

CALL_SECONDS = {Actor.ASSISTANT: 46.0, Actor.PERSON: 150.0, Actor.ROUND: 150.0}
"""Hosts cut a tool call at 60 s: a tool answers within 50 s. A command and a round may wait for a slow stop."""
LOCK_SECONDS = 40.0
LOOKING_TAKES = 5.0
"""Seconds a waiter keeps to look at what the other caller did, and to say so."""
POLL_SECONDS = 0.2
UNATTEMPTED = {"attempted": False}
"""In an outcome: nothing was started, so that it does not count for the back-off."""
HISTORY_REACHES = timedelta(days=8)
HELD = "held"
"""The cursor of a bot that a round has stopped: {entry}; empty once it was started again."""
RUNAWAY = "runaway"
"""Cursor: hours since the epoch whose trades a round stopped the bot for."""
ONE_MOMENT = 0.3
"""Seconds for which what was seen counts as seen now, by whoever decides. What a start proves is looked for anew."""


class Starts:
    """Which bots were started by now, for work that lets starts go first. Safe for threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._over: set[str] = set()

    def over(self, bot: str) -> None:
        """It was started, or nothing is going to be."""
        with self._changed:
            self._over.add(bot)
            self._changed.notify_all()

    def wait_for(self, bots: Collection[str], seconds: float) -> None:
        """Until all of them are over, for so many seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._over.issuperset(bots), seconds)


@dataclass
class Bench:
    """What an action needs: one open workspace as it is now, who asks, and the clock."""

    fleet: Fleet
    playbooks: Playbooks
    ledger: Ledger
    journal: Journal
    actor: Actor
    clock: Callable[[], datetime]
    seen: dict[str, probe.Seen] = field(default_factory=dict)
    """The newest look at each bot in this run."""
    troubles: list[str] = field(default_factory=list)
    """What could not be read: a look goes on without it, and says so; an action does not."""
    before: ProcessTable | None = None
    """An older process table: what its programs were executed with is not asked again."""
    starts: Starts = field(default_factory=Starts)
    _table: tuple[float, ProcessTable] | None = None
    _looked: dict[str, tuple[float, probe.Seen]] = field(default_factory=dict)

    def history(self, bot: str) -> History:
        """What the ledger says about one bot, for a look: nothing if it cannot be read. No action rests on this."""
        try:
            return self.known_history(bot)
        except LedgerError as error:
            self._trouble(error)
            return History()

    def histories(self, bots: Sequence[str]) -> dict[str, History]:
        """The same about many, in a few questions."""
        now = self.clock()
        try:
            told = self.ledger.told_of(bots, since=now - HISTORY_REACHES)
            cursor = self.cursors_of(bots)
            return {
                bot: past.history(
                    one.entries, one.spans, now, one.wish, self._hold(cursor(bot, HELD)), _hours(cursor(bot, RUNAWAY))
                )
                for bot, one in told.items()
            }
        except LedgerError as error:
            self._trouble(error)
            return {bot: History() for bot in bots}

    def known_history(self, bot: str) -> History:
        """The same for an action. Raises LedgerError: without history there is no back-off, and no stop on purpose."""
        now = self.clock()
        since = now - HISTORY_REACHES
        entries = self.ledger.entries(bot=bot, since=since)
        spans, wish = self.ledger.spans(bot, since=since), self.ledger.last_wish(bot)
        held, runaway = self._hold(self.ledger.cursor(bot, HELD)), _hours(self.ledger.cursor(bot, RUNAWAY))
        return past.history(entries, spans, now, wish, held, runaway)

    def remember_runaway(self, bot: str) -> None:
        """What it traded in the last hour is no habit. Raises LedgerError."""
        known = _hours(self.ledger.cursor(bot, RUNAWAY))
        self.ledger.set_cursor(bot, RUNAWAY, {"hours": progress.with_last_hour(known, self.clock())})

    def _hold(self, kept: dict[str, Any] | None) -> Hold | None:
        """A round's stop, however long ago. `kept`: the cursor of it."""
        entry = self.ledger.entry(str(kept["entry"])) if kept else None
        return past.hold_of(entry) if entry else None

    def cursor(self, bot: str, name: str) -> dict[str, Any] | None:
        """Where the last look ended."""
        try:
            return self.ledger.cursor(bot, name)
        except LedgerError as error:
            self._trouble(error)
            return None

    def cursors_of(self, names: Sequence[str]) -> Callable[[str, str], dict[str, Any] | None]:
        """As `cursor`, asked once for all of them; others are asked for one by one."""
        kept = self._cursors(names)
        return self.cursor if kept is None else self._among(kept, names)

    def _cursors(self, names: Sequence[str]) -> dict[tuple[str, str], str] | None:
        """Every cursor of these bots, as JSON; None where the ledger cannot be read."""
        try:
            return self.ledger.cursors(names)
        except LedgerError as error:
            self._trouble(error)
            return None

    def _among(
        self, kept: Mapping[tuple[str, str], str], names: Sequence[str]
    ) -> Callable[[str, str], dict[str, Any] | None]:
        asked = frozenset(names)

        def cursor(bot: str, name: str) -> dict[str, Any] | None:
            if bot not in asked:
                return self.cursor(bot, name)
            return dict(json.loads(kept[bot, name])) if (bot, name) in kept else None

        return cursor

    def record(self, kind: Kind, action: Action, sentence: str, *, bot: str | None = None, **more: Any) -> Entry:
        """An entry by whoever asks. Raises LedgerError."""
        return self.journal.record(
            kind, at=self.clock(), bot=bot, action=action.value, actor=self.actor.value, sentence=sentence, **more
        )

    def _trouble(self, error: LedgerError) -> None:
        if str(error) not in self.troubles:
            self.troubles.append(str(error))

    @property
    def stores(self) -> Stores:
        """Where backups are."""
        return open_stores(self.fleet)

    @property
    def answer_within(self) -> float:
        """Seconds a health endpoint may take, from its playbook."""
        when = self.playbooks.get(Fault.HEALTH_ENDPOINT_FAILING).policy.when
        return float(when.answer_within.total_seconds())

    def look(self, name: str) -> probe.Seen:
        """One look at one bot."""
        return self.look_at([name])[name]

    def look_at(self, names: Sequence[str]) -> dict[str, probe.Seen]:
        """One look at these bots, side by side."""
        full, now = self.playbooks.get(Fault.DISK_FULL).policy.when.free_below, self.clock()
        began, table = time.monotonic(), self._read_table()
        kept = self._cursors(names)
        cursor = self.cursor if kept is None else self._among(kept, names)
        found = probe.look(self.fleet, names, cursor, now, self.answer_within, full, table=table)
        found = _with_what_was_known(found, kept or {})
        self._table = (began, table)
        self._looked |= {name: (began, seen) for name, seen in found.items()}
        return found

    def table(self) -> ProcessTable:
        """The process table of this moment, read once for several questions."""
        now, newest = time.monotonic(), self._table  # another bot's action may forget it meanwhile
        if newest is None or now - newest[0] > ONE_MOMENT:
            self._table = newest = (now, self._read_table())
        return newest[1]

    def _read_table(self) -> ProcessTable:
        return self.before.again() if self.before else ProcessTable.read()

    def newest_table(self) -> ProcessTable | None:
        """The one that was read last, if any."""
        newest = self._table
        return newest[1] if newest else self.before

    def just_seen(self, name: str) -> probe.Seen | None:
        """What this run saw of the bot at this moment already."""
        at, seen = self._looked.get(name, (0.0, None))
        return seen if time.monotonic() - at <= ONE_MOMENT else None

    def forget(self, name: str) -> None:
        """Somebody acted on the bot: what was seen of it is over."""
        self._table = None
        self._looked.pop(name, None)


@dataclass(frozen=True)
class Case:
    """One action on one bot, from the moment its lock is held."""

    bench: Bench
    bot: Bot
    action: Action
    reason: str
    deadline: float
    runtime: Runtime
    target: Target
    data: dict[str, Any] = field(default_factory=dict)

    def report(self, result: Result, sentence: str, **more: Any) -> ActionReport:
        """An answer."""
        return ActionReport(self.bot.name, self.action, result, sentence, **more)

    def record(self, kind: Kind, sentence: str, **more: Any) -> Entry:
        """An entry of this action. Raises LedgerError."""
        return self.bench.record(kind, self.action, sentence, bot=self.bot.name, **more)

    def finish(self, intent: Entry, result: Result, sentence: str, **more: Any) -> ActionReport:
        """Write the outcome; the same sentence is returned, journaled and reported."""
        data = more.pop("data", {})
        entry = self.record(Kind.OUTCOME, sentence, ref=intent.id, result=result.value, data=data)
        return self.report(result, sentence, entry=entry.id, data=data, **more)


def open_case(bench: Bench, bot: Bot, action: Action, reason: str) -> Case:
    """An action that begins now."""
    bench.fleet.workspace.run_dir(bot.name).mkdir(mode=0o700, exist_ok=True)
    target = probe.targets(bench.fleet)[bot.name]
    deadline = time.monotonic() + CALL_SECONDS[bench.actor]
    return Case(bench, bot, action, reason, deadline, probe.runtime_of(bot), target)


@contextmanager
def locked(case: Case) -> Iterator[bool]:
    """The bot's op.lock: one action at a time, whoever asks, from whatever program."""
    lock = Lock(case.target.run_dir / "op.lock")
    try:
        yield lock.acquire(wait=max(1.0, min(LOCK_SECONDS, case.deadline - time.monotonic() - LOOKING_TAKES)))
    finally:
        lock.release()


def busy(case: Case) -> ActionReport:
    """Somebody else has the lock."""
    sentence = f"{case.bot.name}: another action on it is under way; nothing was done. `check_bot` says how it went."
    return case.report(Result.BUSY, sentence)


def blank(bench: Bench, bot: Bot) -> Verdict:
    """A verdict of a bot that nobody looked at."""
    return Verdict(bot=bot.name, status=Status.UNKNOWN, at=bench.clock(), sentence="")


def _with_what_was_known(found: Mapping[str, probe.Seen], kept: Mapping[tuple[str, str], str]) -> dict[str, probe.Seen]:
    """The same looks, each with the cursors that it began with."""
    known: dict[str, dict[str, str]] = {name: {} for name in found}
    for (bot, kind), text in kept.items():
        if bot in known:
            known[bot][kind] = text
    return {name: replace(seen, found=known[name]) for name, seen in found.items()}


def _hours(kept: dict[str, Any] | None) -> frozenset[int]:
    return frozenset(int(hour) for hour in (kept or {}).get("hours", ()))
