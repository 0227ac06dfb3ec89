"""Inspection of files made of records: only new bytes, a verdict with evidence, and a cursor for the next look.

1. What was verified before is known again by a few hashed bytes at its two ends; then only what came after is read.
2. If it is not there any more, the file is read from its start and compared with what is remembered: as many rows are
   as good as ever (a writer that replaces its file); fewer are looked for beside it (a rotation); else they are lost.
3. A file that seems torn while its writer lives is looked at again for a fifth of a second: `to_csv` truncates and
   writes, and one look in five at such a file saw it empty.
4. Damage with a live writer is suspect. It is certain once nobody writes any more, or when a later inspection, half a
   minute or more after, finds the very same bytes in the same place.
5. A header that is gone is damage; one with other columns is an upgrade, told and never restored.
6. What is odd and harmless (an order of rows, letters, equal rows without an id) is a note; the verdict stays ok.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..model import DataVerdict, Finding, Inspection, Tempo
from ..openfiles import open_writers
from . import files, headers
from .base import FormatOptions
from .files import CAP, Source, regular
from .knowledge import LISTED as LISTED
from .knowledge import OWN_WAY, PAGE, Before, Damage, State, copy_of, print_of, state_from
from .records import HEAD, Flaw, Kind, Reader, Scan, StrangeError, evidence

BUDGET = 64 << 20
"""New bytes that one inspection reads: about three seconds. The next one goes on from there."""
SAMPLE = 1 << 20
ENOUGH = 20
"""Rows from which a layout is learned for good."""
PERSISTS = timedelta(seconds=30)
YOUNG = timedelta(seconds=5)
PAUSES = (0.02, 0.05, 0.1, 0.0)
_START = datetime(1970, 1, 1, tzinfo=UTC)


def inspect(
    kind: Kind, path: Path, *, options: FormatOptions, cursor: dict[str, Any] | None, writing: bool, now: datetime
) -> Inspection:
    """A format's `inspect`, for a kind of record files."""
    known = state_from(cursor, kind, options)
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
        held = None if moved else files.held_deleted(path)
        where = f"; its bytes are in {moved.name} beside it" if moved else ""
        where = f"; a process still holds it, so its bytes are in {held} until that ends" if held else where
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
            if not self.settled or self._source.cut:
                return self._unsettled()
            if not self._more:
                self._compare(state)
            self._name_damages(state)
        except StrangeError as strange:
            self._strange(state, strange)
        return self._unsettled() if self._slipped() else self._conclude(state, read_from)

    def _slipped(self) -> bool:
        """Whether what we read may be half of one version of the file and half of the next.

        A damaged row was read twice; that rows are gone, or that it is another file, is said of one that stood still.
        """
        says = any(one.certain and one.rule in _OF_ALL for one in self._damages)
        return self._source.cut or (self._writing and says and self._source.changed())

    def _begin(self) -> tuple[State, int]:
        known = self._known
        if known is None:
            return State(), 0
        unchanged = known.file == self._source.identity
        if unchanged or (files.bears(self._source, _marks_of(known)) and self._damages_stand(known.damages)):
            self._steady = unchanged or known.to > 0
            return copy_of(known), known.to
        drift = known.drift if known.unfit else ""
        return State(before=known.missed(self._now), header=known.header, drift=drift, unfit=known.unfit), 0

    def _damages_stand(self, damages: Iterable[Damage]) -> bool:
        return all(damage.stands(self._source) for damage in damages)

    def _read(self, state: State, start: int) -> int:
        """Read what is new into `state`; returns where it began."""
        reader = state.reader
        if reader is None or reader.sample < ENOUGH:
            reader = self._learned(state) or reader
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

    def _learned(self, state: State) -> Reader | None:
        """The layout of the file; where its header is gone, the one that it had."""
        reader = self._kind.learn(self._source, self._options)
        known = self._known.reader if self._known else None
        if reader is None:
            return None
        if known is None or not state.header:
            state.header = headers.header_of(reader)
            return reader
        return self._against(state, known, reader)

    def _against(self, state: State, known: Reader, reader: Reader) -> Reader:
        """The header that was learned against the one that was there before."""
        change = headers.change({**known.as_json(), "header": state.header}, reader.as_json())
        if change is None:
            return reader
        if not change.lost:
            state.drift, state.unfit = change.text, change.unfit
            state.header = state.header if change.unfit else headers.header_of(reader)
            return reader
        first = self._source.read(0, HEAD).split(b"\n", 1)[0]
        again = headers.headless(self._kind, known, first, self._options)
        if state.before and files.moved_to(self._path, asdict(state.before)):
            state.header = ""  # a new file after a rotation: its bot writes a header only when it starts
        elif again is not None and not any(damage.rule == "C3" for damage in state.damages):
            text = f"Its header is gone; it begins with a row: {evidence(first)}."
            state.keep(Flaw("C3", text), 0, first, None, self._now)
        return again or reader

    def _read_new(self, state: State, reader: Reader, start: int) -> None:
        fresh = len(state.damages)
        stop = min(self._source.size, start + BUDGET)
        scan = reader.scan(self._source, start, stop)
        state.take(scan, self._now)
        state.look_back(self._source, self._now)
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
        if rule != "C6" and (was_good or by_name or rule == "C2"):
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
        ways = {"odd": state.odd >= OWN_WAY, "C7": state.twice >= OWN_WAY and state.passage.paired * 3 > state.records}
        for damage in state.damages:
            if ways.get("odd" if damage.odd else damage.rule):
                continue
            if damage.rule != "C2" and state.reader and not state.reader.typed:
                self._unreadable = True
                self._note(damage.rule, f"It is no table of trades that botkeep knows. {damage.text}", damage.offset)
                continue
            lasts = self._now.timestamp() - damage.seen >= PERSISTS.total_seconds()
            text = damage.text + (self._writers() if damage.rule == "C12" else "")
            self._damage(damage.rule, text, not self._writing or lasts, damage.offset, damage.row)
        if ways["odd"]:
            text = f"{state.odd} rows have more columns than its header: a person should look, no restore can help."
            places = [(damage.offset, damage.row) for damage in state.damages if damage.odd]
            self._note("C3", text, *(places[0] if places else (None,)))
        if ways["C7"]:
            text = f"{state.twice} of {state.records} rows stand in it twice: the bot writes so. They are counted once."
            self._note("C7", text, None)
        self._name_oddities(state)

    def _writers(self) -> str:
        """Who has it open for writing, if that is more than one."""
        found = [str(pid) for pid in open_writers(self._path)] if self._writing else []
        return f" Processes {' and '.join(found)} have it open for writing." if len(found) > 1 else ""

    def _name_oddities(self, state: State) -> None:
        """What is to be known and is no damage."""
        passage = state.passage
        if state.sampled:
            text = f"It has {self._source.size / 1e9:.1f} GB: only its first and its last {SAMPLE >> 20} MiB were read."
            self._note("C0", text, None)
        if wrong := headers.misnamed(state.reader, self._options):
            self._unreadable = True
            self._note("C3", wrong, 0)
        if state.drift:
            self._unreadable = self._unreadable or state.unfit
            self._note("C3", state.drift, 0)
        if state.note:
            self._note("C6", state.note, None)
        if state.turns:
            self._note("C12", state.turns + self._writers(), None)
        if passage.alike:
            text = f"{passage.alike} rows are as one before them and have no trade id: perhaps fills, perhaps copies."
            self._note("C7", text, None)
        if passage.first_back and passage.back * 3 < state.records:
            text = f"{passage.back} rows are more than a minute older than the row before them."
            self._note("C8", text, passage.first_back[1], passage.first_back[0] if not state.sampled else None)

    # --- the verdict ---

    def _unsettled(self) -> Inspection:
        self.settled = False
        text = "It was written over while it was read."
        return Inspection(
            DataVerdict.PENDING,
            (Finding("C10", text, False),),
            size=self._source.size,
            mtime=self._mtime(),
            identity=self._source.identity,
            tempo=self._known.tempo() if self._known else Tempo(),
            cursor=self._known.as_json(print_of(self._options), False) if self._known else {},
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
            cursor=state.as_json(print_of(self._options), self._more),
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
        waits = self._more or any(note.rule in ("C1", "C10") for note in self._notes)
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
_OF_ALL = frozenset({"C3", "C10", "C11"})
"""Findings about a file as a whole."""


def _marks_of(state: State) -> dict[str, Any]:
    """What `files.bears` needs of a state."""
    return {"to": state.to, "head": state.head, "anchor": state.anchor}
