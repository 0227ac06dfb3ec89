"""What is known of a record file from one look to the next: the cursor, as objects."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from ..model import Tempo
from .base import FormatOptions
from .doubles import Passage
from .files import Source
from .records import Flaw, Kind, Reader, Scan, evidence

LISTED = 20
"""Damaged rows that are remembered one by one."""
OWN_WAY = 3
"""Rows with odd columns from which on this is how the bot writes, and no damage: a restore would drop good trades."""
VERSION = 2
PAGE = 4096


@dataclass
class Damage:
    """A damaged record that was seen; it stays damage for as long as the same bytes are there."""

    rule: str
    text: str
    row: int | None
    offset: int
    length: int
    sha: str
    seen: float
    """Epoch seconds of the inspection that found it first."""
    odd: bool = False

    def stands(self, source: Source) -> bool:
        """Whether its bytes are still there."""
        return source.digest(self.offset, self.offset + self.length) == self.sha


@dataclass
class Before:
    """Content that was there once and is not any more: rows, and by which bytes it can be known again."""

    rows: int
    to: int
    head: str
    anchor: str
    seen: float
    """Epoch seconds of the inspection that missed it first."""


@dataclass
class State:
    """What is known of a file up to `to`: the cursor, as an object."""

    reader: Reader | None = None
    to: int = 0
    head: str = ""
    anchor: str = ""
    records: int = 0
    bad: int = 0
    odd: int = 0
    damages: list[Damage] = field(default_factory=list)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=500))
    hours: dict[int, int] = field(default_factory=dict)
    before: Before | None = None
    sampled: bool = False
    file: str = ""
    """Identity at the last inspection."""
    note: str = ""
    """What is odd, but no damage (text that is not UTF-8)."""
    turns: str = ""
    """Two programs seem to write by turns: why."""
    glued: int = 0
    """The last record that two rows stand in."""
    twice: int = 0
    """Rows that stand in it already, with their trade id."""
    passage: Passage = field(default_factory=Passage)
    header: str = ""
    """The last header that was learned, also while there is none."""
    drift: str = ""
    """How the header differs from the one before."""
    unfit: bool = False
    """It has lost columns that are needed."""

    @property
    def rows(self) -> int:
        """Sound rows."""
        return self.records - self.bad - (self.odd if self.odd < OWN_WAY else 0) - self.twice

    def take(self, scan: Scan, now: datetime) -> None:
        """Read all records of the scan into what is known."""
        horizon, numbered = now.timestamp() + 86400, not self.sampled
        recent, hours, passage = self.recent, self.hours, self.passage
        for offset, raw, at, flaw in scan:
            self.records += 1
            if flaw is not None:
                self._note(flaw, offset, raw, self.records if numbered else None, now)
            if at is not None and at >= horizon:
                at = None
            if at is not None:
                recent.append(at)
                hour = int(at // 3600)
                hours[hour] = hours.get(hour, 0) + 1
            if (flaw is None or flaw.sound) and passage.meet(raw, at, self.records, offset):
                self.double(raw, self.records if numbered else None, offset, now)
        self.to = scan.end
        for hour in sorted(hours)[:-336]:
            del hours[hour]

    def double(self, raw: bytes, row: int | None, offset: int, now: datetime) -> None:
        """A row that stands there already. Without a trade id it may be another fill all the same."""
        if self.reader is None or not self.reader.typed or not self.reader.key(raw):
            self.passage.alike += 1
            return
        self.twice += 1
        text = f"It stands in the file already, with the same trade id: {evidence(raw)}."
        self.keep(Flaw("C7", text), offset, raw, row, now)

    def look_back(self, source: Source, now: datetime) -> None:
        """Look for the rows that came too late further back in the file."""
        if self.reader is None:
            return
        for raw, row, offset in self.passage.found_further_back(source, self.reader.body):
            self.double(raw, row if not self.sampled else None, offset, now)

    def _note(self, flaw: Flaw, offset: int, raw: bytes, row: int | None, now: datetime) -> None:
        if flaw.harmless and flaw.rule == "C6":
            self.note = self.note or flaw.text
        elif flaw.harmless:
            self.turns = self.turns or flaw.text
        else:
            flaw = self._rest_of_one(flaw)
            self.odd += flaw.sound
            self.bad += not flaw.sound
            self.keep(flaw, offset, raw, row, now)

    def _rest_of_one(self, flaw: Flaw) -> Flaw:
        """Two rows in one line and the rest of one of them soon after: two programs wrote at once."""
        if flaw.glued:
            self.glued = self.records
        elif not flaw.sound and flaw.rule in ("C4", "C9") and 0 < self.glued >= self.records - 3:
            return replace(
                flaw, rule="C12", text=f"Another row was written into its row by a second program. {flaw.text}"
            )
        return flaw

    def keep(self, flaw: Flaw, offset: int, raw: bytes, row: int | None, now: datetime) -> None:
        """Remember a damaged record, of which the first are told one by one."""
        if len(self.damages) < LISTED:
            kept = raw[:PAGE]
            sha = hashlib.sha256(kept).hexdigest()
            self.damages.append(Damage(flaw.rule, flaw.text, row, offset, len(kept), sha, now.timestamp(), flaw.sound))

    def tempo(self) -> Tempo:
        """How often the bot trades. Rows need not be in order: exchanges report in batches."""
        times = sorted(self.recent)
        gaps = tuple(round(later - at, 3) for at, later in pairwise(times))[-200:]
        newest = datetime.fromtimestamp(times[-1], UTC) if times else None
        return Tempo(newest, gaps, tuple(sorted(self.hours.items())), tuple(self.recent))

    def missed(self, now: datetime) -> Before | None:
        """What is missed if this content is gone: the larger of itself and what was missed already."""
        if self.before and self.before.rows >= self.rows:
            return self.before
        return Before(self.rows, self.to, self.head, self.anchor, now.timestamp()) if self.to else self.before

    def as_json(self, options: str, more: bool) -> dict[str, Any]:
        """The cursor."""
        return {
            "v": VERSION,
            "options": options,
            "layout": self.reader.as_json() if self.reader else None,
            **{name: getattr(self, name) for name in _PLAIN},
            "damages": [asdict(damage) for damage in self.damages],
            "recent": list(self.recent),
            "hours": [list(pair) for pair in sorted(self.hours.items())],
            "before": asdict(self.before) if self.before else None,
            "passage": self.passage.as_json(),
            "more": more,
        }


_PLAIN = (
    "to", "head", "anchor", "records", "bad", "odd", "sampled", "file", "note", "turns", "glued", "twice", "header",
    "drift", "unfit",
)  # fmt: skip


def copy_of(state: State) -> State:
    """A state to change, while the known one stays for another try."""
    copy = State(**vars(state))
    copy.damages, copy.recent, copy.hours = list(state.damages), deque(state.recent, maxlen=500), dict(state.hours)
    copy.passage = state.passage.copy()
    return copy


def state_from(cursor: Mapping[str, Any] | None, kind: Kind, options: FormatOptions) -> State | None:
    """What a cursor says; None for no cursor, one of another version or of other options, or a damaged one."""
    if not cursor or cursor.get("v") != VERSION or cursor.get("options") != print_of(options):
        return None
    try:
        return State(
            reader=kind.again(cursor["layout"], options) if cursor["layout"] else None,
            damages=[Damage(**damage) for damage in cursor["damages"]],
            recent=deque(cursor["recent"], maxlen=500),
            hours={int(hour): int(count) for hour, count in cursor["hours"]},
            before=Before(**cursor["before"]) if cursor["before"] else None,
            passage=Passage.from_json(cursor["passage"]),
            **{name: cursor[name] for name in _PLAIN},
        )
    except (KeyError, TypeError, ValueError):
        return None


def print_of(options: FormatOptions) -> str:
    said = (options.delimiter, options.header, sorted(options.columns.items()), options.timezone, options.mode)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]
