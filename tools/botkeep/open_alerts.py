"""Incidents of which people were told and that are not over yet: one row each, beside the ledger's entries.

An entry opens one (the alert), others add to it (a further fault, a reminder), the last one ends it (resolved). The row
is written in the transaction of its entry; the entries are the truth, the row saves reading years of them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .ledger import Ledger
from .model import iso, parse_iso

_TABLE = "CREATE TABLE IF NOT EXISTS alerts_open (entry INTEGER PRIMARY KEY, data TEXT NOT NULL)"
UNKNOWN = "unknown"
"""Stands for a fault where nobody can say how the bot is."""
SHARED = "shared"
"""The same where several bots have something that is no fault of theirs."""


@dataclass(frozen=True)
class Open:
    """One incident that people know of."""

    id: str
    """The entry by which they were told."""
    told: datetime
    began: datetime
    last: datetime
    """When something was said of it last."""
    bots: tuple[str, ...]
    """Whom it is about: one, or several with one cause."""
    faults: tuple[tuple[str, str], ...]
    """(bot, fault) of which people know by it; `unknown` where nobody can say how the bot is."""
    sentence: str
    severity: str
    incident: str = ""
    """Id of what several bots share; empty: one bot's own."""
    given_up: tuple[str, ...] = ()
    """Bots of which people know that nothing more is done by itself."""
    reminders: int = 0

    @property
    def bot(self) -> str:
        """The only one; empty: several have it."""
        return self.bots[0] if len(self.bots) == 1 else ""

    def data(self) -> str:
        """For the row."""
        found: dict[str, Any] = {
            "told": iso(self.told), "began": iso(self.began), "last": iso(self.last), "bots": self.bots,
            "faults": self.faults, "sentence": self.sentence, "severity": self.severity, "incident": self.incident,
            "given_up": self.given_up, "reminders": self.reminders,
        }  # fmt: skip
        return json.dumps(found)


@dataclass(frozen=True)
class Known:
    """What people know already."""

    opens: tuple[Open, ...] = ()

    def fault(self, bot: str, fault: str) -> bool:
        """Whether they were told that this bot has it."""
        return any((bot, fault) in one.faults for one in self.opens)

    def incident(self, id_: str) -> Open | None:
        """What was said of this shared cause."""
        return next((one for one in self.opens if one.incident == id_), None)

    def given_up(self, bot: str) -> bool:
        """Whether they know that nothing more is done for this bot by itself."""
        return any(bot in one.given_up for one in self.opens)

    def of(self, bot: str) -> Open | None:
        """The bot's own incident."""
        return next((one for one in self.opens if one.bot == bot), None)

    def having(self, *more: Open) -> Known:
        """With these, each in the place of the one that had its id."""
        ids = {one.id for one in more}
        return Known((*(one for one in self.opens if one.id not in ids), *more))

    def without(self, ids: Iterable[str]) -> Known:
        """Without these."""
        gone = {*ids}
        return Known(tuple(one for one in self.opens if one.id not in gone))


def load(ledger: Ledger) -> Known:
    """What people know now. Raises LedgerError."""
    with ledger.reading() as db:
        return known_in(db)


def known_in(db: sqlite3.Connection) -> Known:
    """The same in somebody's transaction."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'alerts_open'").fetchone():
        return Known()
    return Known(tuple(_open(*row) for row in db.execute("SELECT entry, data FROM alerts_open ORDER BY entry")))


def keep(db: sqlite3.Connection, *opens: Open, ended: Iterable[str] = ()) -> None:
    """Write these, and remove the rows with these ids; in somebody's transaction."""
    db.execute(_TABLE)
    db.executemany("INSERT OR REPLACE INTO alerts_open VALUES (?, ?)", [(_seq(one.id), one.data()) for one in opens])
    db.executemany("DELETE FROM alerts_open WHERE entry = ?", [(_seq(one),) for one in ended])


def keep_quietly(ledger: Ledger, opens: Iterable[Open], ended: Iterable[str] = ()) -> None:
    """The same where there is nothing to say; what somebody else has ended meanwhile stays so. Raises LedgerError."""
    with ledger.writing() as db:
        there = {one.id for one in known_in(db).opens}
        keep(db, *(one for one in opens if one.id in there), ended=ended)


def _seq(id_: str) -> int:
    return int(id_[1:])


def _open(entry: int, data: str) -> Open:
    found = json.loads(data)
    return Open(
        id=f"e{entry}",
        told=parse_iso(found["told"]),
        began=parse_iso(found["began"]),
        last=parse_iso(found["last"]),
        bots=tuple(found["bots"]),
        faults=tuple((bot, fault) for bot, fault in found["faults"]),
        sentence=found["sentence"],
        severity=found["severity"],
        incident=found["incident"],
        given_up=tuple(found["given_up"]),
        reminders=found["reminders"],
    )
