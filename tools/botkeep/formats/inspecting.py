"""Inspection of files made of records: only new bytes, a verdict with evidence, and a cursor for the next look.

1. What was verified before is known again by a few hashed bytes at its two ends; then only what came after is read.
2. If it is not there any more, the file is read from its start and compared with what is remembered: as many rows are
   as good as ever (a writer that replaces its file); fewer are looked for beside it (a rotation); else they are lost.
3. A file that seems torn while its writer lives is looked at again for a fifth of a second: `to_csv` truncates and
   writes, and one look in five at such a file saw it empty.
4. Damage with a live writer is suspect. It is certain once nobody writes any more, or when a later inspection, half a
   minute or more after, finds the very same bytes in the same place.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..model import DataVerdict, Finding, Inspection, Tempo
from . import files
from .base import FormatOptions
from .files import CAP, Source, regular
from .records import HEAD, Flaw, Kind, Reader, Scan, StrangeError, evidence

BUDGET = 64 << 20
"""New bytes that one inspection reads: about three seconds. The next one goes on from there."""
SAMPLE = 1 << 20
LISTED = 20
"""Damaged rows that are remembered one by one."""
ENOUGH = 20
"""Rows from which a layout is learned for good."""
OWN_WAY = 3
"""Rows with odd columns from which on this is how the bot writes, and no damage: a restore would drop good trades."""
PERSISTS = timedelta(seconds=30)
YOUNG = timedelta(seconds=5)
PAUSES = (0.02, 0.05, 0.1, 0.0)
VERSION = 1
PAGE = 4096
_START = datetime(1970, 1, 1, tzinfo=UTC)


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

    @property
    def rows(self) -> int:
        """Sound rows."""
        return self.records - self.bad - (self.odd if self.odd < OWN_WAY else 0)

    def take(self, scan: Scan, now: datetime) -> None:
        """Read all records of the scan into what is known."""
        horizon, numbered = now.timestamp() + 86400, not self.sampled
        recent, hours = self.recent, self.hours
        for offset, raw, at, flaw in scan:
            self.records += 1
            if flaw is not None:
                self._note(flaw, offset, raw, self.records if numbered else None, now)
            if at is not None and at < horizon:
                recent.append(at)
                hour = int(at // 3600)
                hours[hour] = hours.get(hour, 0) + 1
        self.to = scan.end
        for hour in sorted(hours)[:-336]:
            del hours[hour]

    def _note(self, flaw: Flaw, offset: int, raw: bytes, row: int | None, now: datetime) -> None:
        if flaw.rule == "C6":
            self.note = self.note or flaw.text
            return
        self.odd += flaw.sound
        self.bad += not flaw.sound
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
            "more": more,
        }


_PLAIN = ("to", "head", "anchor", "records", "bad", "odd", "sampled", "file", "note")


def _state_from(cursor: Mapping[str, Any] | None, kind: Kind, options: FormatOptions) -> State | None:
    """What a cursor says; None for no cursor, one of another version or of other options, or a damaged one."""
    if not cursor or cursor.get("v") != VERSION or cursor.get("options") != _print_of(options):
        return None
    try:
        return State(
            reader=kind.again(cursor["layout"], options) if cursor["layout"] else None,
            damages=[Damage(**damage) for damage in cursor["damages"]],
            recent=deque(cursor["recent"], maxlen=500),
            hours={int(hour): int(count) for hour, count in cursor["hours"]},
            before=Before(**cursor["before"]) if cursor["before"] else None,
            **{name: cursor[name] for name in _PLAIN},
        )
    except (KeyError, TypeError, ValueError):
        return None


def _print_of(options: FormatOptions) -> str:
    said = (options.delimiter, options.header, sorted(options.columns.items()), options.timezone, options.mode)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def inspect(
    kind: Kind, path: Path, *, options: FormatOptions, cursor: dict[str, Any] | None, writing: bool, now: datetime
) -> Inspection:
    """A format's `inspect`, for a kind of record files."""
    known = _state_from(cursor, kind, options)
    try:
        for pause in PAUSES:
            seen, settled = _look(kind, path, options, known, writing, now)
            if settled:
                break
            time.sleep(pause)
    except FileNotFoundError:
        return _missing(path, known, cursor, writing)
    except OSError as error:
        text = f"It cannot be read: {error.strerror or error}."
        return Inspection(DataVerdict.UNREADABLE, (Finding("C15", text, False),), cursor=cursor or {})
    return seen


def _look(
    kind: Kind, path: Path, options: FormatOptions, known: State | None, writing: bool, now: datetime
) -> tuple[Inspection, bool]:
    with regular(path) as source:
        look = _Look(kind, path, source, options, known, writing, now)
        return look.inspection(), look.settled


def _missing(path: Path, known: State | None, cursor: dict[str, Any] | None, writing: bool) -> Inspection:
    findings: tuple[Finding, ...] = ()
    missed = known and known.missed(_START)
    if missed and missed.rows:
        moved = files.moved_to(path, asdict(missed))
        where = f"; its bytes are in {moved.name} beside it" if moved else ""
        findings = (Finding("C14", f"It is gone; {missed.rows} rows were in it{where}.", not writing),)
    return Inspection(DataVerdict.MISSING, findings, cursor=cursor or {})


class _Look:
    """One reading of one open file."""

    def __init__(
        self,
        kind: Kind,
        path: Path,
        source: Source,
        options: FormatOptions,
        known: State | None,
        writing: bool,
        now: datetime,
    ) -> None:
        self._kind, self._path, self._source, self._options = kind, path, source, options
        self._known, self._writing, self._now = known, writing, now
        self.settled = True
        """False: somebody was writing over what we read; look again."""
        self._more = False
        self._steady = False
        """The same content as at the last inspection, perhaps with more behind it."""
        self._replaced = False
        self._unreadable = False
        self._damages: list[Finding] = []
        self._notes: list[Finding] = []

    def inspection(self) -> Inspection:
        """Read and judge."""
        state, read_from = self._begin()
        try:
            read_from = self._read(state, read_from)
            if not self.settled:
                return self._unsettled()
            if not self._more:
                self._compare(state)
            self._name_damages(state)
        except StrangeError as strange:
            self._strange(state, strange)
        return self._conclude(state, read_from)

    def _begin(self) -> tuple[State, int]:
        known = self._known
        if known is None:
            return State(), 0
        unchanged = known.file == self._source.identity
        if unchanged or (files.bears(self._source, _marks_of(known)) and self._damages_stand(known.damages)):
            self._steady = unchanged or known.to > 0
            return _copy(known), known.to
        return State(before=known.missed(self._now)), 0

    def _damages_stand(self, damages: Iterable[Damage]) -> bool:
        return all(damage.stands(self._source) for damage in damages)

    def _read(self, state: State, start: int) -> int:
        """Read what is new into `state`; returns where it began."""
        reader = state.reader
        if reader is None or reader.sample < ENOUGH:
            reader = self._kind.learn(self._source, self._options) or reader
        if reader is None:
            self._no_line_yet(state)
            return start
        state.reader = reader
        start = max(start, reader.body)
        if self._source.size - start > CAP:
            self._read_ends(state, reader, start)
        else:
            self._read_new(state, reader, start)
        if state.to != start or not state.head:
            found = files.marks(self._source, state.to)
            state.head, state.anchor = found["head"], found["anchor"]
        return start

    def _read_new(self, state: State, reader: Reader, start: int) -> None:
        fresh = len(state.damages)
        stop = min(self._source.size, start + BUDGET)
        scan = reader.scan(self._source, start, stop)
        state.take(scan, self._now)
        self._settle(scan, state.damages[fresh:])
        stuck = stop < self._source.size and len(scan.tail) == HEAD
        if stop == self._source.size or stuck:
            self._judge_tail(state, reader, scan, stuck=stuck)
        else:
            self._more = True

    def _read_ends(self, state: State, reader: Reader, start: int) -> None:
        """A file too large to read: its first and its last mebibyte."""
        state.sampled = True
        size = self._source.size
        first = reader.scan(self._source, start, start + SAMPLE)
        state.take(first, self._now)
        if first.hole is not None:
            self._judge_tail(state, reader, first, stuck=False)
        last = reader.scan(self._source, self._line_after(size - SAMPLE), size)
        state.take(last, self._now)
        self._settle(last, state.damages)
        self._judge_tail(state, reader, last, stuck=False)

    def _line_after(self, offset: int) -> int:
        end = self._source.read(offset, HEAD).find(b"\n")
        return offset + end + 1

    def _settle(self, scan: Scan, damages: Iterable[Damage]) -> None:
        """What we read has to be what is there: a row cut together from two versions of a file is nobody's damage."""
        self.settled = not scan.cut_short and self._damages_stand(damages)

    # --- what is wrong ---

    def _damage(self, rule: str, text: str, certain: bool, offset: int | None, row: int | None = None) -> None:
        self._damages.append(Finding(rule, text, certain, row, offset))

    def _note(self, rule: str, text: str, offset: int | None, row: int | None = None) -> None:
        self._notes.append(Finding(rule, text, False, row, offset))

    def _no_line_yet(self, state: State) -> None:
        if self._source.size == 0:
            if not state.before:
                self._note("C10", "It is empty, and no row was ever seen in it.", 0)
            return
        text = f"Not one whole line is in it: {evidence(self._source.read(0, 200))}."
        if self._writing:
            self._note("C1", text, 0)
        else:
            self._damage("C1", text, False, 0)

    def _judge_tail(self, state: State, reader: Reader, scan: Scan, stuck: bool) -> None:
        """What stands behind the last whole record."""
        if not scan.tail:
            return
        row, left = state.records + 1 if not state.sampled else None, self._source.size - scan.end
        if scan.hole is not None:
            text = f"NUL bytes stand in its last {left} bytes: {evidence(self._source.read(scan.hole, 40))}."
            self._damage("C2", text, not self._writing, scan.hole, row)
        elif stuck or left > HEAD:
            text = f"Its last line has {left} bytes and no end: {evidence(scan.tail)}."
            self._damage("C4", text, not self._writing, scan.end, row)
        elif self._writing:
            self._note("C1", f"Its last row is not finished yet: {evidence(scan.tail)}.", scan.end, row)
        else:
            self._torn(reader, scan, row)

    def _torn(self, reader: Reader, scan: Scan, row: int | None) -> None:
        """A killed writer tears its file at a page boundary; elsewhere an editor may have left out the line end."""
        seems_whole = self._source.size % PAGE != 0 and reader.flaw(scan.tail)[0] is None
        why = "has no line end, so it may be cut" if seems_whole else "is cut off"
        self._damage("C1", f"Its last row {why}: {evidence(scan.tail)}.", not seems_whole, scan.end, row)

    def _strange(self, state: State, strange: StrangeError) -> None:
        """Not text of this kind: damage where it was once, or where its name says that it should be."""
        was_good = bool(state.before and state.before.rows)
        page = "web page" in str(strange)
        by_name = strange.rule == "C11" and (page or self._path.suffix.lower() in _OURS)
        rule = "C11" if strange.rule == "kind" else strange.rule
        if was_good or by_name or rule == "C2":
            certain = not self._writing or page or (was_good and rule == "C11")
            self._damage(rule, str(strange), certain, strange.offset)
        else:
            self._unreadable = True
            self._note(rule, str(strange), strange.offset)

    def _compare(self, state: State) -> None:
        """Are the rows there that were there before?"""
        before = state.before
        if before is None:
            return
        whole = self._source.size >= before.to if state.sampled else state.rows >= before.rows
        if whole or not before.rows:
            state.before = None
        elif files.moved_to(self._path, asdict(before)):
            state.before, self._replaced = None, True
        else:
            self._shrunk(state, before)

    def _shrunk(self, state: State, before: Before) -> None:
        lasts = self._steady and self._now.timestamp() - before.seen >= PERSISTS.total_seconds()
        if self._writing and abs(self._now - self._mtime()) < YOUNG:
            self.settled = False
            if not lasts:
                text = f"It is being written anew: {state.rows} of {before.rows} rows so far."
                self._note("C10", text, None)
                return
        has = f"{state.rows} rows" if self._source.size else "no bytes"
        text = f"It has {has}; {before.rows} rows were in it before, and no file beside it has them."
        certain = not self._writing or (lasts and self._begins_anew(state, before))
        self._damage("C10", text, certain, min(self._source.size, before.to))

    def _begins_anew(self, state: State, before: Before) -> bool:
        """Whether other rows stand at its head: what begins as it always did may be a table that is being written."""
        head = min(files.ANCHOR, before.to)
        return state.to >= head and self._source.digest(0, head) != before.head

    def _name_damages(self, state: State) -> None:
        own_way = state.odd >= OWN_WAY
        for damage in state.damages:
            if damage.odd and own_way:
                continue
            if damage.rule != "C2" and state.reader and not state.reader.typed:
                self._unreadable = True
                self._note(damage.rule, f"It is no table of trades that botkeep knows. {damage.text}", damage.offset)
                continue
            lasts = self._now.timestamp() - damage.seen >= PERSISTS.total_seconds()
            self._damage(damage.rule, damage.text, not self._writing or lasts, damage.offset, damage.row)
        if own_way:
            text = f"{state.odd} rows have more columns than its header: a person should look, no restore can help."
            places = [(damage.offset, damage.row) for damage in state.damages if damage.odd]
            self._note("C3", text, *(places[0] if places else (None,)))
        if state.note:
            self._note("C6", state.note, None)

    # --- the verdict ---

    def _unsettled(self) -> Inspection:
        text = "It was written over while it was read."
        return Inspection(
            DataVerdict.PENDING,
            (Finding("C10", text, False),),
            size=self._source.size,
            mtime=self._mtime(),
            identity=self._source.identity,
            tempo=self._known.tempo() if self._known else Tempo(),
            cursor=self._known.as_json(_print_of(self._options), False) if self._known else {},
        )

    def _conclude(self, state: State, read_from: int) -> Inspection:
        state.file = self._source.identity
        tempo = self._tempo_of_end(state.reader, state.to) if self._more and state.reader else state.tempo()
        if self._more:
            text = f"{state.to} of {self._source.size} bytes are read so far; the next look goes on there."
            self._note("C0", text, state.to)
        found = sorted(self._damages, key=lambda one: (not one.certain, one.offset or 0)) or self._notes
        return Inspection(
            verdict=self._verdict(),
            findings=tuple(found),
            rows=None if state.sampled else state.rows,
            size=self._source.size,
            mtime=self._mtime(),
            identity=self._source.identity,
            read_from=read_from,
            tempo=tempo,
            cursor=state.as_json(_print_of(self._options), self._more),
        )

    def _verdict(self) -> DataVerdict:
        if any(finding.certain for finding in self._damages):
            return DataVerdict.CORRUPT
        if self._damages:
            return DataVerdict.SUSPECT
        if self._unreadable:
            return DataVerdict.UNREADABLE
        if self._replaced:
            return DataVerdict.REPLACED
        waits = any(note.rule in ("C0", "C1", "C10") for note in self._notes)
        return DataVerdict.PENDING if waits else DataVerdict.OK

    def _tempo_of_end(self, reader: Reader, to: int) -> Tempo:
        """Of a file not read to its end yet: from its last rows, for its newest trade is no old one."""
        ends = State(sampled=True)
        start = self._line_after(max(to, self._source.size - HEAD))
        ends.take(reader.scan(self._source, start, self._source.size), self._now)
        return ends.tempo()

    def _mtime(self) -> datetime:
        return _START + timedelta(microseconds=self._source.stat.st_mtime_ns // 1000)


_OURS = frozenset({".csv", ".tsv"})


def _marks_of(state: State) -> dict[str, Any]:
    """What `files.bears` needs of a state."""
    return {"to": state.to, "head": state.head, "anchor": state.anchor}


def _copy(state: State) -> State:
    """A state to change, while the known one stays for another try."""
    copy = State(**vars(state))
    copy.damages, copy.recent, copy.hours = list(state.damages), deque(state.recent, maxlen=500), dict(state.hours)
    return copy
