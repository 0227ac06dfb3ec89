"""Maintenance windows: while a bot is silenced nobody is told of it. Looks, verdicts and actions go on.

A silence is a note in the ledger, so that the journal tells who wanted it and why; which ones hold is kept beside, in
the same transaction. What still stands when one ends is told then.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from .fields import parse_duration, show
from .journal import Journal
from .judge import length
from .ledger import Entry, Kind, Ledger
from .model import Action, LedgerError, UsageError, iso, parse_iso
from .untrusted import clean

CURSOR = "silences"
LONGEST = timedelta(days=30)
"""A bot that nobody is told of for longer has been forgotten."""
REASON_LIMIT = 200


@dataclass(frozen=True)
class Silence:
    """One bot of which nobody is told for a while."""

    bot: str
    began: datetime
    until: datetime
    reason: str
    entry: str
    """The note in the ledger."""

    def sentence(self, now: datetime, zone: tzinfo) -> str:
        """For people, in their zone."""
        left = length(self.until - now)
        until = self.until.astimezone(zone)
        return f"{self.bot} is silenced until {until:%Y-%m-%d %H:%M} ({left} more): {self.reason} ({self.entry})"


def lasting(text: str) -> timedelta:
    """`30m`, `2h`, `1d`. Raises UsageError."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{show(text)} is no length of time; write one like 30m, 2h or 1d.") from error


def begin(journal: Journal, bot: str, lasts: timedelta, reason: str, actor: str, now: datetime) -> Entry:
    """Silence a bot from now on. A longer or shorter one takes the place of one that holds. Raises UsageError."""
    said = clean(reason.strip(), REASON_LIMIT)
    if not said:
        raise UsageError(f'The reason is empty: botkeep silence {bot} 2h "moving it to the new server".')
    if not timedelta() < lasts <= LONGEST:
        raise UsageError(f"A silence lasts longer than 0s and at most {LONGEST.days}d; write a length like 2h.")
    until = now + lasts
    text = f"{bot} is silenced for {length(lasts)}, until {until:%Y-%m-%d %H:%MZ}: {said}"
    data = {"silence": {"until": iso(until), "reason": said}}

    def keep(db: sqlite3.Connection, entry: Entry) -> None:
        kept = _kept(db)
        kept[bot] = {"began": iso(now), "until": iso(until), "reason": said, "entry": entry.id}
        _keep(db, kept)

    return journal.record(
        Kind.NOTE, at=now, bot=bot, action=Action.NOTE.value, actor=actor, sentence=text, data=data, within=keep
    )


def end(journal: Journal, bot: str, actor: str, now: datetime) -> Entry:
    """End a bot's silence now. Raises UsageError if it has none."""
    if all(one.bot != bot for one in active(journal.ledger, now)):
        raise UsageError(f"{clean(bot, 80)} is not silenced. `botkeep silence` shows what is.")

    def keep(db: sqlite3.Connection, _: Entry) -> None:
        kept = _kept(db)
        kept.pop(bot, None)
        _keep(db, kept)

    text = f"{bot} is silenced no more."
    return journal.record(
        Kind.NOTE, at=now, bot=bot, action=Action.NOTE.value, actor=actor, sentence=text,
        data={"silence": {"until": iso(now), "ended": True}}, within=keep,
    )  # fmt: skip


def active(ledger: Ledger, now: datetime) -> tuple[Silence, ...]:
    """The silences that hold now, by the bots' names. Raises LedgerError."""
    with ledger.reading() as db:
        kept = _kept(db)
    found = (
        Silence(bot, parse_iso(one["began"]), parse_iso(one["until"]), one["reason"], one["entry"])
        for bot, one in sorted(kept.items())
    )
    return tuple(one for one in found if now < one.until)


def holding(ledger: Ledger, now: datetime) -> tuple[Silence, ...]:
    """The same for a list of bots; a ledger that cannot be read is said by their verdicts."""
    try:
        return active(ledger, now)
    except LedgerError:
        return ()


def sentences(found: Iterable[Silence], now: datetime, zone: tzinfo) -> Iterator[str]:
    """One for each, for reports and tables."""
    return (one.sentence(now, zone) for one in found)


def _kept(db: sqlite3.Connection) -> dict[str, dict[str, str]]:
    row = db.execute("SELECT value FROM cursors WHERE bot = '' AND name = ?", (CURSOR,)).fetchone()
    found: dict[str, dict[str, str]] = json.loads(row[0]) if row else {}
    return found


def _keep(db: sqlite3.Connection, kept: dict[str, dict[str, str]]) -> None:
    db.execute("INSERT OR REPLACE INTO cursors VALUES ('', ?, ?)", (CURSOR, json.dumps(kept, sort_keys=True)))
