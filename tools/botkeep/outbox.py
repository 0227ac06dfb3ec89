"""What people have to be told, until they are: a queue in the ledger's file, and its one sender at a time.

A message is queued in the transaction of the entry that it tells, once for each channel. Before it is handed over,
that it is being sent is on the disk; so a sender that is killed leaves either a message that nobody sent, or one of
which nobody knows, and that one is sent again with a mark. The kernel frees the sender's lock when the last process
that may still be sending is gone.

A channel that fails is left alone for a while, each time longer; the others go on. After a day a message has become
news of yesterday: it is given up, and that is said until somebody has read it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from .channels import Channel
from .durable import Lock, read_json
from .judge import length
from .ledger import Entry, Ledger, Within
from .model import iso, parse_iso
from .notify import ENTRY, REPEATED, SECONDS, Courier, Directory, Measure, Message, Outcome, split

LOCK = "outbox.lock"
SLIP = "courier.json"
"""What became of the last message, as the courier itself wrote it down."""
PAUSES = tuple(timedelta(seconds=seconds) for seconds in (30, 60, 120, 300, 600, 900))
"""After the 1st, 2nd, ... failure in a row of one channel."""
LONGEST_PAUSE = timedelta(hours=6)
"""However long a service asks us to wait."""
GIVEN_UP_AFTER = timedelta(hours=24)
KEPT = timedelta(days=30)
"""How long what was sent, or given up, is remembered here; the ledger's entries stay for good."""
SAID_AFTER = timedelta(minutes=10)
"""A channel that is away for less is no news."""
AT_LEAST = 5.0
"""Seconds that have to be left for a message to be begun: one that is cut short may arrive twice."""
OF_THE_MESSAGE = (400, 413, 422)
"""What a service answers to a message that it does not take, or to a chat that it does not know: others may pass."""
SHOWN = 5

_TABLES = (
    """CREATE TABLE IF NOT EXISTS outbox (
        id INTEGER PRIMARY KEY, entry INTEGER NOT NULL, channel TEXT NOT NULL, bots TEXT NOT NULL,
        title TEXT NOT NULL, text TEXT NOT NULL, severity TEXT NOT NULL, attachments TEXT NOT NULL,
        state TEXT NOT NULL, queued TEXT NOT NULL,
        part INTEGER NOT NULL DEFAULT 0, doubt INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
        since TEXT NOT NULL DEFAULT '', due TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '',
        done TEXT NOT NULL DEFAULT '', UNIQUE (entry, channel))""",
    "CREATE INDEX IF NOT EXISTS outbox_waiting ON outbox (id) WHERE state IN ('queued', 'sending')",
    """CREATE TABLE IF NOT EXISTS outbox_channels (
        channel TEXT PRIMARY KEY, digest TEXT NOT NULL, failures INTEGER NOT NULL, first TEXT NOT NULL,
        since TEXT NOT NULL, due TEXT NOT NULL, rule TEXT NOT NULL, error TEXT NOT NULL)""",
)
_COLUMNS = (
    "id, entry, channel, bots, title, text, severity, attachments, state, queued, part, doubt, attempts, since, due, "
    "error, done"
)
_COPIED = "entry, bots, title, text, severity, attachments, queued"


@dataclass(frozen=True)
class Row:
    """One message to one channel."""

    id: int
    entry: str
    """Of the ledger."""
    channel: str
    bots: tuple[str, ...]
    message: Message
    state: str
    """queued, sending, sent, moved (the channel is gone; others have it), dead."""
    queued: datetime
    part: int = 0
    """Parts that arrived."""
    doubt: bool = False
    """Whether the next part arrived before is not known."""
    attempts: int = 0
    since: datetime | None = None
    """When it was last tried."""
    due: datetime | None = None
    error: str = ""
    done: datetime | None = None


@dataclass(frozen=True)
class Trouble:
    """One channel that fails."""

    channel: str
    digest: str
    """Of its address: with another one it is tried at once."""
    failures: int
    first: datetime
    """When it began to fail."""
    since: datetime
    """When it was last tried."""
    due: datetime
    rule: str
    error: str

    def waits(self, channel: Channel, now: datetime) -> bool:
        """Whether it is to be left alone now."""
        return self.digest == channel.digest and _waits(self.since, self.due, now)


@dataclass(frozen=True)
class Delivery:
    """What one delivery did."""

    sent: int = 0
    failed: int = 0
    waiting: int = 0
    """Messages that are still to be delivered."""
    busy: bool = False
    """Another one is under way: it does what there is to do."""


def _waits(since: datetime | None, due: datetime | None, now: datetime) -> bool:
    """A clock that was set back must not make a pause longer than it was meant to be."""
    return since is not None and due is not None and since <= now < due


# --- queueing ----------------------------------------------------------------------------------------------------


def queueing(channels: Iterable[Channel], message: Message, bots: Sequence[str] = ()) -> Within:
    """Queue the message for each channel, in the transaction of its entry. For `Journal.record`."""
    keys = list(dict.fromkeys(one.key for one in channels))

    def write(db: sqlite3.Connection, entry: Entry) -> None:
        if keys:
            _make(db)
        for key in keys:
            _queue(db, entry, key, message, bots)

    return write


def _queue(db: sqlite3.Connection, entry: Entry, key: str, message: Message, bots: Sequence[str]) -> None:
    db.execute(
        "INSERT OR IGNORE INTO outbox (entry, channel, bots, title, text, severity, attachments, state, queued) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 'queued', ?)",
        (
            entry.seq, key, json.dumps([*bots]), message.title, message.text.replace(ENTRY, entry.id), message.severity,
            json.dumps([*message.attachments]), iso(entry.at),
        ),
    )  # fmt: skip


def _make(db: sqlite3.Connection) -> None:
    for statement in _TABLES:
        db.execute(statement)


def _exists(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'outbox_channels'").fetchone() is not None


# --- what there is -----------------------------------------------------------------------------------------------


def rows(ledger: Ledger, states: Iterable[str], limit: int = 1000, *, newest_first: bool = False) -> list[Row]:
    """Messages in these states, in their order. Raises LedgerError."""
    order = "DESC" if newest_first else "ASC"
    sql = (
        f"SELECT {_COLUMNS} FROM outbox WHERE state IN (SELECT value FROM json_each(?)) "  # noqa: S608
        f"ORDER BY id {order} LIMIT ?"
    )
    with ledger.reading() as db:
        if not _exists(db):
            return []
        return [_row(found) for found in db.execute(sql, (json.dumps([*states]), limit)).fetchall()]


def troubles(ledger: Ledger) -> dict[str, Trouble]:
    """Channels that fail, by their key. Raises LedgerError."""
    sql = "SELECT channel, digest, failures, first, since, due, rule, error FROM outbox_channels"
    with ledger.reading() as db:
        found = db.execute(sql).fetchall() if _exists(db) else []
    return {
        key: Trouble(key, digest, failures, parse_iso(first), parse_iso(since), parse_iso(due), rule, error)
        for key, digest, failures, first, since, due, rule, error in found
    }


def _row(found: Sequence[object]) -> Row:
    (id_, entry, channel, bots, title, text, severity, files, state, queued, part, doubt, attempts, since, due, error,
     done) = map(str, found)  # fmt: skip
    message = Message(text, title, severity, tuple(json.loads(files)))
    return Row(
        int(id_), f"e{entry}", channel, tuple(json.loads(bots)), message, state, parse_iso(queued), int(part),
        doubt == "1", int(attempts), _at(since), _at(due), error, _at(done),
    )  # fmt: skip


def _at(text: str) -> datetime | None:
    return parse_iso(text) if text else None


def problems(ledger: Ledger, directory: Directory, now: datetime) -> list[str]:
    """What keeps people from being told, one sentence each: channels that are wrong, away, or lost something.

    Raises LedgerError.
    """
    found = [directory.problem] if directory.problem else []
    known, failing, waiting = directory.all, troubles(ledger), rows(ledger, ("queued", "sending"))
    found += [f"Nobody is told at {one.name}: {one.problem}" for one in known.values() if one.problem]
    for key, trouble in failing.items():
        channel = known.get(key)
        if channel is not None and trouble.digest == channel.digest and _worth_saying(trouble, now):
            count = sum(one.channel == key for one in waiting)
            found.append(_failing(channel, trouble, count, now))
    return [*found, *_given_up(ledger, known, now)]


def _worth_saying(trouble: Trouble, now: datetime) -> bool:
    return trouble.rule in ("refused", "redirect") or now - trouble.first >= SAID_AFTER


def _failing(channel: Channel, trouble: Trouble, count: int, now: datetime) -> str:
    waits = f"{count} message{'s' * (count != 1)} wait{'s' * (count == 1)}"
    mend = "Mend its address, then: botkeep alerts test." if trouble.rule != "away" else "It is tried again and again."
    since = length(max(timedelta(), now - trouble.first))
    return f"Alerts do not reach {channel.name} since {since}: {trouble.error}. {waits}. {mend}"


def _given_up(ledger: Ledger, known: dict[str, Channel], now: datetime) -> Iterator[str]:
    dead: dict[str, list[Row]] = {}
    for row in rows(ledger, ("dead",), newest_first=True):
        if now - row.queued <= KEPT and not row.done:
            dead.setdefault(row.channel, []).append(row)
    for key, lost in dead.items():
        ids = ", ".join(one.entry for one in reversed(lost[:SHOWN]))
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        where = known[key].name if key in known else "a channel that is configured no more"
        yield (
            f"{len(lost)} message{'s' * (len(lost) > 1)} never arrived at {where} ({ids}{more}): {lost[0].error}. "
            f"`botkeep alerts --seen` when you have read them."
        )


def seen(ledger: Ledger, now: datetime) -> int:
    """A person has read what never arrived: it is no problem any more. How many there were. Raises LedgerError."""
    with ledger.writing() as db:
        _make(db)
        return db.execute("UPDATE outbox SET done = ? WHERE state = 'dead' AND done = ''", (iso(now),)).rowcount


def works(ledger: Ledger, channel: Channel) -> None:
    """A test arrived there: what waits for it is due at once. Raises LedgerError."""
    with ledger.writing() as db:
        _make(db)
        db.execute("DELETE FROM outbox_channels WHERE channel = ?", (channel.key,))
        db.execute("UPDATE outbox SET due = '' WHERE state = 'queued' AND channel = ?", (channel.key,))


# --- delivering --------------------------------------------------------------------------------------------------


def deliver(
    ledger: Ledger, directory: Directory, state_dir: Path, clock: Callable[[], datetime], seconds: float
) -> Delivery:
    """Send what is due, for at most about `seconds`; what is left waits for the next call.

    One sender at a time: while another one is at work this returns at once. Raises LedgerError, EngineError.
    """
    if not rows(ledger, ("queued", "sending"), 1):
        return Delivery()
    lock = Lock(state_dir / LOCK)
    if not lock.acquire():
        return Delivery(busy=True)
    slip = state_dir / SLIP
    with lock, Courier(lock.fd, slip) as courier:
        return _Sender(ledger, directory, clock, courier, time.monotonic() + seconds, read_json(slip) or {}).run()


@dataclass
class _Sender:
    """One delivery, with the lock held."""

    ledger: Ledger
    directory: Directory
    clock: Callable[[], datetime]
    courier: Courier
    deadline: float
    word: dict[str, Any]
    """What the courier of the sender before left, which may have been killed."""
    sent: int = 0
    failed: int = 0

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def run(self) -> Delivery:
        self._tidy()
        while self.left >= AT_LEAST:
            if found := self._next():
                self._deliver(*found)
            elif wait := self._short_wait():
                time.sleep(wait)
            else:
                break
        return Delivery(self.sent, self.failed, len(rows(self.ledger, ("queued",))))

    def _tidy(self) -> None:
        """What a killed sender left, what is too old, what was meant for channels that are gone."""
        now = self.clock()
        with self.ledger.writing() as db:
            _make(db)
            self._recover(db)
            db.execute(
                "UPDATE outbox SET state = 'dead', error = CASE error WHEN '' THEN 'nothing could be sent there' ELSE "
                "error END WHERE state = 'queued' AND queued < ?",
                (iso(now - GIVEN_UP_AFTER),),
            )
            db.execute("DELETE FROM outbox WHERE state NOT IN ('queued', 'sending') AND queued < ?", (iso(now - KEPT),))
            self._move(db)

    def _recover(self, db: sqlite3.Connection) -> None:
        """A sender was killed. Its courier, which outlived it, may have written down what became of the message."""
        for id_, part, attempts in db.execute(
            "SELECT id, part, attempts FROM outbox WHERE state = 'sending'"
        ).fetchall():
            known = self.word.get("ticket") == _ticket(id_, part, attempts)
            arrived = known and self.word.get("rule") == "sent"
            doubt = not known or bool(self.word.get("doubt"))
            db.execute(
                "UPDATE outbox SET state = 'queued', part = ?, doubt = ? WHERE id = ?",
                (part + arrived, int(doubt and not arrived), id_),
            )

    def _move(self, db: sqlite3.Connection) -> None:
        known = self.directory.all
        sql = "SELECT id, channel, bots FROM outbox WHERE state = 'queued'"
        for id_, key, bots in db.execute(sql).fetchall():
            if key in known:
                continue
            others = self.directory.of(json.loads(bots))
            for other in others:
                db.execute(
                    f"INSERT OR IGNORE INTO outbox ({_COPIED}, channel, state) "  # noqa: S608
                    f"SELECT {_COPIED}, ?, 'queued' FROM outbox WHERE id = ?",
                    (other.key, id_),
                )
            state, error = ("moved", "") if others else ("dead", "config/bots.json names nobody to tell any more")
            db.execute("UPDATE outbox SET state = ?, error = ? WHERE id = ?", (state, error, id_))

    def _next(self) -> tuple[Row, Channel] | None:
        """The oldest message that is due, of a channel that is."""
        known, failing, now = self.directory.all, troubles(self.ledger), self.clock()
        for row in rows(self.ledger, ("queued",)):
            channel = known.get(row.channel)
            if channel is None or channel.problem:
                continue
            trouble = failing.get(channel.key)
            mended = trouble is not None and trouble.digest != channel.digest
            paused = _waits(row.since, row.due, now) or (trouble is not None and trouble.waits(channel, now))
            if mended or not paused:
                return row, channel
        return None

    def _short_wait(self) -> float:
        """Seconds until a service that only wants us to go slower takes more; 0: not in this call."""
        now, waiting = self.clock(), {row.channel for row in rows(self.ledger, ("queued",))}
        pauses = [
            (one.due - now).total_seconds()
            for key, one in troubles(self.ledger).items()
            if one.rule == "limited" and key in waiting and _waits(one.since, one.due, now)
        ]
        soonest = min(pauses, default=0.0)
        return soonest if soonest <= self.left - AT_LEAST else 0.0

    def _deliver(self, row: Row, channel: Channel) -> None:
        """All parts of one message, from the first that did not arrive."""
        measure = self.courier.measure(channel, min(SECONDS, self.left))
        if isinstance(measure, Outcome):
            self._note(row, channel, measure)
            return
        parts = parts_of(row.message, measure)
        for number in range(row.part, len(parts)):
            if self.left < AT_LEAST and number > row.part:
                return
            row = replace(row, part=number, attempts=row.attempts + 1)
            self._set(row.id, "state = 'sending', attempts = ?", row.attempts)
            ticket = _ticket(row.id, number, row.attempts)
            outcome = self.courier.send(channel, _marked(parts[number], row.doubt), min(SECONDS, self.left), ticket)
            if not outcome.sent:
                self._note(row, channel, outcome)
                return
            self._set(row.id, "state = 'queued', part = ?, doubt = 0", number + 1)
            row = replace(row, doubt=False)
        self._arrived(row, channel)

    def _arrived(self, row: Row, channel: Channel) -> None:
        self.sent += 1
        with self.ledger.writing() as db:
            db.execute("UPDATE outbox SET state = 'sent', error = '', done = ? WHERE id = ?", (self._now, row.id))
            db.execute("DELETE FROM outbox_channels WHERE channel = ?", (channel.key,))

    def _note(self, row: Row, channel: Channel, outcome: Outcome) -> None:
        """It did not arrive, or nobody knows; the channel is left alone for a while."""
        self.failed += 1
        now = self.clock()
        before = troubles(self.ledger).get(channel.key)
        mended = before is not None and before.digest != channel.digest
        failures = 1 if before is None or mended else before.failures + 1
        first = now if before is None or mended or before.first > now else before.first
        due = now + _pause(outcome, failures)
        only_this = outcome.status in OF_THE_MESSAGE
        with self.ledger.writing() as db:
            db.execute(
                "UPDATE outbox SET state = 'queued', doubt = max(doubt, ?), since = ?, due = ?, error = ? WHERE id = ?",
                (int(outcome.doubt), iso(now), iso(due), outcome.text, row.id),
            )
            db.execute(
                "INSERT OR REPLACE INTO outbox_channels VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (channel.key, channel.digest, failures, iso(first), iso(now), iso(now if only_this else due),
                 outcome.rule, outcome.text),
            )  # fmt: skip

    @property
    def _now(self) -> str:
        return iso(self.clock())

    def _set(self, id_: int, what: str, *values: object) -> None:
        with self.ledger.writing() as db:
            db.execute(f"UPDATE outbox SET {what} WHERE id = ?", (*values, id_))  # noqa: S608


def _ticket(id_: int, part: int, attempts: int) -> str:
    """Names one attempt to send one part of one message, and no other."""
    return f"{id_}:{part}:{attempts}"


def _pause(outcome: Outcome, failures: int) -> timedelta:
    usual = PAUSES[min(failures, len(PAUSES)) - 1]
    if outcome.rule == "limited" and outcome.retry_after is not None:
        return min(LONGEST_PAUSE, max(timedelta(seconds=outcome.retry_after), timedelta(seconds=1)))
    return max(usual, PAUSES[3]) if outcome.rule in ("refused", "redirect") else usual


def parts_of(message: Message, measure: Measure) -> list[Message]:
    """What is handed over one by one: the text in parts that fit, then each file by itself, where files are taken."""
    texts = [replace(message, text=one, attachments=()) for one in split(message.text, measure.limit)]
    files = [path for path in message.attachments if measure.attachments and Path(path).is_file()]
    return [*texts, *(replace(message, text="", attachments=(path,)) for path in files)]


def _marked(part: Message, doubt: bool) -> Message:
    return replace(part, text=f"{REPEATED}{part.text}".strip()) if doubt else part
