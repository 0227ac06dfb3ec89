"""What is remembered of a database from one inspection to the next: the cursor, as an object."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from ..model import Tempo
from .base import FormatOptions

VERSION = 1
LISTED = 20


@dataclass
class Damage:
    """A damage that was seen, and is looked for again."""

    rule: str
    text: str
    key: int | None
    """Rowid; None: it is about the whole file."""
    seen: float
    """Epoch seconds of the inspection that found it first."""


@dataclass
class Before:
    """Rows that were there once and are not any more."""

    rows: int
    settled: int
    top: int
    """Largest rowid."""
    mark: int
    """Rowid of the last settled row, and a hash of what lasts in it."""
    anchor: str
    wal: bool
    """There was content in the write-ahead log."""
    inode: str


@dataclass
class State:
    """What is known."""

    file: str = ""
    """Identity at the last inspection."""
    inode: str = ""
    size: int = 0
    table: str = ""
    columns: list[str] = field(default_factory=list)
    rows: int = 0
    settled: int = 0
    top: int = 0
    mark: int = 0
    anchor: str = ""
    wal: bool = False
    read: int | None = None
    """Rowid up to which the rows were checked."""
    open: list[int] = field(default_factory=list)
    """Rows that were not settled: they are looked at again."""
    newest: float | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=500))
    hours: dict[int, int] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    before: Before | None = None
    notes: list[list[str]] = field(default_factory=list)
    clean: bool = False
    """The last verdict was ok: the same file needs no other look."""
    patience: int = 0
    """How often the check of the pages was not done in its time."""

    @property
    def sound(self) -> int:
        """Rows that can be read."""
        return self.rows - sum(damage.key is not None for damage in self.damages)

    def missed(self) -> Before | None:
        """What is missed if this content is gone: the larger of itself and what was missed already."""
        if self.before and self.before.rows >= self.rows:
            return self.before
        now = Before(self.rows, self.settled, self.top, self.mark, self.anchor, self.wal, self.inode)
        return now if self.rows else self.before

    def count(self, at: float | None, horizon: float) -> None:
        """One more trade."""
        if at is not None and at < horizon:
            self.recent.append(at)
            hour = int(at // 3600)
            self.hours[hour] = self.hours.get(hour, 0) + 1

    def happened(self, at: float | None, horizon: float) -> None:
        """The last that a row tells of."""
        if at is not None and at < horizon:
            self.newest = max(at, self.newest or at)

    def tempo(self) -> Tempo:
        """How often the bot trades."""
        times = sorted(self.recent)
        gaps = tuple(round(later - at, 3) for at, later in pairwise(times))[-200:]
        newest = datetime.fromtimestamp(self.newest, UTC) if self.newest is not None else None
        return Tempo(newest, gaps, tuple(sorted(self.hours.items()))[-336:], tuple(self.recent))

    def copy(self) -> State:
        """One to change, while this one stays."""
        made = State(**vars(self))
        made.recent, made.hours = deque(self.recent, maxlen=500), dict(self.hours)
        made.damages, made.open, made.notes = list(self.damages), list(self.open), []
        return made

    def as_json(self, options: str, more: bool) -> dict[str, Any]:
        """The cursor."""
        return {
            **vars(self),
            "v": VERSION,
            "options": options,
            "recent": list(self.recent),
            "hours": [list(pair) for pair in sorted(self.hours.items())[-336:]],
            "damages": [asdict(damage) for damage in self.damages],
            "before": asdict(self.before) if self.before else None,
            "more": more,
        }


def state_from(cursor: Mapping[str, Any] | None, options: FormatOptions) -> State | None:
    """What a cursor says; None for no cursor, one of another version or of other options, or a damaged one."""
    if not cursor or cursor.get("v") != VERSION or cursor.get("options") != print_of(options):
        return None
    plain = {name: value for name, value in cursor.items() if name not in _OTHERS}
    try:
        return State(
            **plain,
            recent=deque(cursor["recent"], maxlen=500),
            hours={int(hour): int(count) for hour, count in cursor["hours"]},
            damages=[Damage(**damage) for damage in cursor["damages"]],
            before=Before(**cursor["before"]) if cursor["before"] else None,
        )
    except (KeyError, TypeError, ValueError):
        return None


_OTHERS = ("v", "options", "more", "recent", "hours", "damages", "before")


def print_of(options: FormatOptions) -> str:
    """A hash of what the configuration says."""
    said = (
        sorted(options.columns.items()),
        sorted(options.scale.items()),
        options.table,
        options.timezone,
        options.mode,
    )
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]
