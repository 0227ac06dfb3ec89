"""Telling people: what they have to know now is recorded and queued in one step, under a lock that all rounds share.

Sending is the outbox's; whom to tell of what, `alerts` and `alert_life` say.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from . import alert_life, alert_text, alerts, open_alerts, outbox, silences, together
from .bench import Bench
from .durable import Lock
from .incidents import Incident
from .ledger import Entry, Kind, Within
from .model import Action, ActionReport, EngineError, History, LedgerError, Status, Verdict
from .notify import ENTRY, Courier, Directory, Message, directory
from .open_alerts import Known, Open
from .schedule import zone_of

UNRECORDED = "(not recorded, for the ledger cannot be written; so this may come again) "
AGAIN_AFTER = timedelta(minutes=30)
"""How often something is told that nothing can remember."""
STAMP = "told-directly"
"""An empty file: it needs no room on a full disk."""
DIRECTLY = 10.0
"""Seconds for telling what cannot be queued."""
WAIT = 5.0
"""Seconds to wait for another round that is telling people right now."""


def tell(
    bench: Bench,
    verdicts: Sequence[Verdict],
    found: Sequence[Incident],
    actions: Sequence[ActionReport],
    after: Sequence[Verdict] | None = None,
) -> tuple[alerts.Alert, ...]:
    """What people have to be told, recorded and queued: alerts, reminders, and that something is over.

    `verdicts`: before anything was done; `after`: of all these bots, after it. Two rounds at the same time tell once.
    A full disk keeps nobody from telling: the alert is in the answer although nothing holds it.
    """
    with Lock(bench.fleet.workspace.state_dir / "alerts.lock") as lock:
        with suppress(EngineError):
            lock.acquire(wait=WAIT)
        return _Telling(bench, verdicts, found, actions, verdicts if after is None else after).run()


def post(bench: Bench, sentence: str, message: Message, also: Within | None = None) -> Entry:
    """Tell everybody of the fleet something that is no incident: a report. Recorded and queued. Raises LedgerError.

    `also`: what is true from then on, written in the same transaction.
    """
    queue = outbox.queueing(directory(bench.fleet).of(()), message)

    def within(db: sqlite3.Connection, entry: Entry) -> None:
        queue(db, entry)
        if also is not None:
            also(db, entry)

    return bench.journal.record(
        Kind.ALERT, at=bench.clock(), bot=None, action=Action.ALERT.value, actor=bench.actor.value, sentence=sentence,
        data={"report": True}, within=within,
    )  # fmt: skip


def deliver(bench: Bench, seconds: float) -> outbox.Delivery:
    """Send what waits, for at most about so many seconds. What keeps it from being sent is in `untold`."""
    state = bench.fleet.workspace.state_dir
    try:
        return outbox.deliver(bench.ledger, directory(bench.fleet), state, bench.clock, seconds)
    except (LedgerError, EngineError) as error:
        bench.troubles.append(str(error))
        return outbox.Delivery()


def untold(bench: Bench) -> list[str]:
    """Why people are not told, or were not: one sentence each."""
    try:
        return outbox.problems(bench.ledger, directory(bench.fleet), bench.clock())
    except LedgerError:
        return []  # said by whoever looked before


@dataclass
class _Telling:
    """One turn of telling, with the lock held."""

    bench: Bench
    verdicts: Sequence[Verdict]
    found: Sequence[Incident]
    actions: Sequence[ActionReport]
    after: Sequence[Verdict]
    known: Known = field(default_factory=Known)
    told: list[alerts.Alert] = field(default_factory=list)
    unrecorded: list[tuple[Sequence[str], Message]] = field(default_factory=list)

    def run(self) -> tuple[alerts.Alert, ...]:
        self.known = self._load()
        over = self._end(self.known.opens)
        again = {one.id for one, end in over if end.why is alert_life.End.AGAIN}
        heard = self.known.having(*(one for one, end in over if one.id not in again))
        self._join()
        for alert in self._due(heard):
            self._open(alert)
        before = {one.id for one, _ in over}
        self._remind()
        self._end([one for one in self.known.opens if one.id not in before])
        if self.unrecorded and self._may_tell_directly():
            self._tell_directly()
        return tuple(self.told)

    # --- what is known

    @cached_property
    def now(self) -> datetime:
        return self.bench.clock()

    @cached_property
    def histories(self) -> dict[str, History]:
        bots = {one.bot for one in self.verdicts if one.status in (Status.FAULTY, Status.UNKNOWN)}
        bots |= {one.bot for incident in self.found for one in incident.elsewhere}
        bots |= {bot for one in self.known.opens for bot in one.bots}
        return {bot: self.bench.history(bot) for bot in bots}

    @cached_property
    def state(self) -> alert_life.Now:
        return alert_life.Now(
            verdicts={one.bot: one for one in self.after},
            histories=self.histories,
            configured=frozenset(entry.name for entry in self.bench.fleet.entries),
            standing=frozenset(one.id for one in self._standing),
            now=self.now,
            newly_seen=self._newly_seen(),
        )

    @cached_property
    def _standing(self) -> tuple[Incident, ...]:
        """What several have by everybody's newest look, where something of that kind is open."""
        if not any(one.incident for one in self.known.opens):
            return tuple(self.found)
        ids = {one.id for one in self.found}
        return (*self.found, *(one for one in together.standing(self.bench, self.verdicts) if one.id not in ids))

    def _newly_seen(self) -> frozenset[str]:
        looked_at = {one.bot for one in self.after}
        configured = {entry.name for entry in self.bench.fleet.entries}
        others = {bot for one in self.known.opens if one.incident for bot in one.bots if bot in configured} - looked_at
        return together.newly_seen(self.bench, sorted(others), self.histories) if others else frozenset()

    @cached_property
    def silenced(self) -> frozenset[str]:
        try:
            return frozenset(one.bot for one in silences.active(self.bench.ledger, self.now))
        except LedgerError as error:
            self._trouble(error)
            return frozenset()

    @cached_property
    def channels(self) -> Directory:
        return directory(self.bench.fleet)

    def _load(self) -> Known:
        try:
            return open_alerts.load(self.bench.ledger)
        except LedgerError as error:
            self._trouble(error)
            return Known()

    def _trouble(self, error: LedgerError) -> None:
        if str(error) not in self.bench.troubles:
            self.bench.troubles.append(str(error))

    def _is_silenced(self, bots: Sequence[str]) -> bool:
        return bool(bots) and self.silenced.issuperset(bots)

    # --- new ones

    def _due(self, known: Known) -> tuple[alerts.Alert, ...]:
        names = {one.bot for one in self._fresh if one.status is Status.FAULTY}
        reports = [one for one in self.actions if one.bot in names]
        return alerts.due_together(
            self._fresh, self._fresh_found, self.bench.playbooks, self.histories, known, reports, self.silenced
        )

    @cached_property
    def _fresh(self) -> list[Verdict]:
        """Looks after which nobody was told that it is over."""
        return [one for one in self.verdicts if not alert_life.is_outdated(one, self._ended)]

    @cached_property
    def _fresh_found(self) -> list[Incident]:
        """What several have by such looks alone."""
        looks = (*self._fresh, *(each for one in self.found for each in one.elsewhere))
        fresh = {one.bot for one in looks if not alert_life.is_outdated(one, self._ended)}
        return [one for one in self.found if fresh.issuperset(one.bots)]

    def _join(self) -> None:
        """Further bots of an incident that people know: nothing is said of them now, but soon."""
        joined = list(alerts.joining(self._fresh_found, self.verdicts, self.known, self.now, self.silenced))
        if not joined:
            return
        wider = [alert_life.reminded_soon(one, self.now) for one, _ in joined]
        gone = [part.id for _, parts in joined for part in parts]
        self.known = self.known.without(gone).having(*wider)
        self._keep(wider, gone)

    def _open(self, alert: alerts.Alert) -> None:
        """A new incident; or a further fault of a bot of which people know already."""
        own = self.known.of(alert.bot) if alert.bot else None
        merged = [] if alert.bot else [one for one in self.known.opens if alerts.is_part_of(one, alert)]
        one = alerts.opened(alert, own, merged, self.now)
        message = self._writer.alert(alert, self.actions)
        data = alert.data | ({"merged": [one.id for one in merged]} if merged else {})
        gone = [part.id for part in merged]
        try:
            entry = self._record(alert.members, alert.sentence, message, data, one, own, gone)
        except _ToldMeanwhileError:
            return
        if entry is not None:
            self.known = self.known.without(gone).having(replace(one, id=one.id or entry.id))
        self.told.append(alert)

    # --- those that stand

    def _remind(self) -> None:
        for one in self.known.opens:
            now_known = alert_life.rebased(one, self.now)
            if now_known != one:
                self._keep([now_known])
            if alert_life.reminder_due(now_known, self.now) and not self._is_silenced(one.bots):
                self._remind_of(now_known)

    def _remind_of(self, one: Open) -> None:
        sentence = alert_life.reminder(one, self._sentence(one), self.now)
        number = one.reminders + 1
        following = replace(one, reminders=number, last=self.now)
        message = self._writer.reminder(one.severity, sentence, number)
        try:
            self._record(one.bots, sentence, message, {"reminder": number}, following, one)
        except _ToldMeanwhileError:
            return
        self.known = self.known.having(following)
        self.told.append(alerts.Alert(one.bot, sentence, None, one.severity, one.incident, bots=one.bots))

    def _sentence(self, one: Open) -> str:
        """How it is now, in the words of the newest look; else as it was told."""
        shared = next((incident.sentence for incident in self._standing if incident.id == one.incident), "")
        own = next((verdict.sentence for verdict in self.after if verdict.bot == one.bot), "")
        return shared or own or one.sentence

    # --- the end

    def _end(self, opens: Iterable[Open]) -> list[tuple[Open, alert_life.Ending]]:
        """Those of these that are over, told. What is silenced is told when that ends."""
        ends = [(one, end) for one in opens if (end := alert_life.ending(one, self.state, self._ended))]
        over = [(one, end) for one, end in ends if not self._is_acted_on(one, end)]
        spoken = [(one, end) for one, end in over if not self._is_silenced(one.bots)]
        for one, end in spoken:
            sentence = alert_life.resolved(one, end, self._deeds(one))
            data = {"resolved": {"why": end.why.value, "at": end.at, "began": one.began, "bots": one.bots}}
            message = self._writer.resolved(sentence)
            try:
                self._record(one.bots, sentence, message, data, None, one, [one.id])
            except _ToldMeanwhileError:
                continue
            self.told.append(alerts.Alert(one.bot, sentence, None, "info", one.incident, bots=one.bots))
        self.known = self.known.without(one.id for one, _ in spoken)
        return spoken

    def _is_acted_on(self, one: Open, end: alert_life.Ending) -> bool:
        """Whether somebody else's action on it is under way: whether it helped, and what it was, its outcome says."""
        by_itself = end.why in (alert_life.End.WELL, alert_life.End.AGAIN)
        return by_itself and not self._under_way.isdisjoint(one.bots)

    @cached_property
    def _under_way(self) -> frozenset[str]:
        try:
            return frozenset(entry.bot for entry in self.bench.ledger.open_intents() if entry.bot)
        except LedgerError as error:
            self._trouble(error)
            return frozenset()

    @cached_property
    def _ended(self) -> list[Entry]:
        return self._entries(kinds=[Kind.ALERT], since=self.now - alert_life.RECENTLY)

    def _deeds(self, one: Open) -> list[Entry]:
        since = one.began - alert_life.BEFORE
        kinds = [Kind.INTENT, Kind.OUTCOME]
        entries = [entry for bot in one.bots for entry in self._entries(bot=bot, kinds=kinds, since=since)]
        return alert_life.deeds_of(one, sorted(entries, key=lambda entry: entry.seq))

    def _entries(self, **which: Any) -> list[Entry]:
        try:
            return self.bench.ledger.entries(**which)
        except LedgerError as error:
            self._trouble(error)
            return []

    # --- writing

    @cached_property
    def _writer(self) -> alert_text.Writer:
        zone = zone_of(self.bench.fleet)
        return alert_text.Writer(self.bench.fleet.workspace.home, zone, self.bench.troubles)

    def _keep(self, opens: Iterable[Open], ended: Iterable[str] = ()) -> None:
        try:
            open_alerts.keep_quietly(self.bench.ledger, opens, ended)
        except LedgerError as error:
            self._trouble(error)

    def _record(
        self,
        bots: Sequence[str],
        sentence: str,
        message: Message,
        data: Mapping[str, Any],
        one: Open | None,
        about: Open | None = None,
        ended: Sequence[str] = (),
    ) -> Entry | None:
        """The entry, its messages and the incident's row: all of them, or none.

        Raises _ToldMeanwhileError, and writes nothing, if another round told it since we read what is known: one that
        hung with the lock, for whose end nobody waited.
        """
        queue = outbox.queueing(self.channels.of(bots), message, bots)

        def within(db: sqlite3.Connection, entry: Entry) -> None:
            _refuse_second(open_alerts.known_in(db), one, about)
            open_alerts.keep(db, *([replace(one, id=one.id or entry.id)] if one else []), ended=ended)
            queue(db, entry)

        try:
            return self.bench.journal.record(
                Kind.ALERT, at=self.now, bot=bots[0] if len(bots) == 1 else None, action=Action.ALERT.value,
                actor=self.bench.actor.value, sentence=sentence, ref=about.id if about else None, data=dict(data),
                within=within,
            )  # fmt: skip
        except LedgerError as error:
            self._trouble(error)
            self.unrecorded.append((bots, message))
            return None

    # --- where nothing can be recorded: people should know of a full disk before the bots do

    def _may_tell_directly(self) -> bool:
        """Not at every round; a disk that does not even take the mark is told of all the same."""
        stamp = self.bench.fleet.workspace.state_dir / STAMP
        try:
            if self.now.timestamp() - stamp.stat().st_mtime < AGAIN_AFTER.total_seconds():
                return False
        except OSError:
            pass
        with suppress(OSError):
            stamp.touch()
        return True

    def _tell_directly(self) -> None:
        until = time.monotonic() + DIRECTLY
        with Courier() as courier:
            for bots, message in self.unrecorded:
                said = replace(message, text=f"{UNRECORDED}{message.text.replace(ENTRY, '').rstrip()}")
                for channel in self.channels.of(bots):
                    if not channel.problem and (left := until - time.monotonic()) > 1:
                        courier.send(channel, said, left)


class _ToldMeanwhileError(Exception):
    """Another round told people of it."""


def _refuse_second(known: Known, one: Open | None, about: Open | None) -> None:
    """In the transaction that tells it: a new incident must still be new, one that goes on must be as we knew it.

    Raises _ToldMeanwhileError.
    """
    if about is not None:
        now = next((row for row in known.opens if row.id == about.id), None)
        same = now is not None and (now.reminders, now.faults, now.given_up) == (
            about.reminders, about.faults, about.given_up,
        )  # fmt: skip
    elif one is not None and one.incident:
        same = known.incident(one.incident) is None
    else:
        same = one is None or not any(row.bot == one.bot and not row.incident for row in known.opens)
    if not same:
        raise _ToldMeanwhileError
