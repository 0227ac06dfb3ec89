"""What an action needs: one open workspace, one bot with its lock, the words in which the outcome is written down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from . import history as past
from . import probe
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
ONE_MOMENT = 0.1
"""Seconds for which what was seen counts as seen now, by whoever decides. What a start proves is looked for anew."""


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
    _table: tuple[float, ProcessTable] | None = None
    _looked: dict[str, tuple[float, probe.Seen]] = field(default_factory=dict)

    def history(self, bot: str) -> History:
        """What the ledger says about one bot, for a look: nothing if it cannot be read. No action rests on this."""
        try:
            return self.known_history(bot)
        except LedgerError as error:
            self._trouble(error)
            return History()

    def known_history(self, bot: str) -> History:
        """The same for an action. Raises LedgerError: without history there is no back-off, and no stop on purpose."""
        now = self.clock()
        since = now - HISTORY_REACHES
        entries = self.ledger.entries(bot=bot, since=since)
        spans, wish = self.ledger.spans(bot, since=since), self.ledger.last_wish(bot)
        return past.history(entries, spans, now, wish, self._held_since_long(bot))

    def _held_since_long(self, bot: str) -> Hold | None:
        """A round's stop, however long ago."""
        kept = self.ledger.cursor(bot, HELD)
        entry = self.ledger.entry(str(kept["entry"])) if kept else None
        return past.hold_of(entry) if entry else None

    def cursor(self, bot: str, name: str) -> dict[str, Any] | None:
        """Where the last look ended."""
        try:
            return self.ledger.cursor(bot, name)
        except LedgerError as error:
            self._trouble(error)
            return None

    def _cursors_of(self, names: Sequence[str]) -> Callable[[str, str], dict[str, Any] | None]:
        """As `cursor`, asked once for all of them; others are asked for one by one."""
        try:
            kept, asked = self.ledger.cursors(names), frozenset(names)
        except LedgerError as error:
            self._trouble(error)
            return self.cursor

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
        began, table = time.monotonic(), ProcessTable.read()
        cursor = self._cursors_of(names)
        found = probe.look(self.fleet, names, cursor, now, self.answer_within, full, table=table)
        self._table = (began, table)
        self._looked |= {name: (began, seen) for name, seen in found.items()}
        return found

    def table(self) -> ProcessTable:
        """The process table of this moment, read once for several questions."""
        now = time.monotonic()
        if self._table is None or now - self._table[0] > ONE_MOMENT:
            self._table = (now, ProcessTable.read())
        return self._table[1]

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
