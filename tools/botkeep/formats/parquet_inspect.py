"""Inspection of a Parquet file: nothing is read while it is the same file, all of it once it is another.

1. Device, inode, size and time of change are those of the last look: what was found then holds.
2. Both ends are looked at. Without a footer it is being written, or its writer died: who has it open tells.
3. Its row groups are read one by one, every page; each look reads so many cells, the next one goes on from there.
4. Its rows are compared with those that were seen before: a bot replaces its file, but it loses none of them.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..model import BotkeepError, DataVerdict, Finding, Inspection, Tempo
from ..openfiles import open_writers
from . import files
from .base import FormatOptions
from .files import Source, regular
from .inspecting import LISTED, PERSISTS, YOUNG
from .parquet_state import Before, Damage, State
from .parquet_table import Rows, Table, check_ends, digest, joined, said, shown
from .records import StrangeError, evidence

BUDGET = 20_000_000
"""Cells that one look reads, a second or two: whole row groups, one at least. The next look goes on from there."""
SILENT = timedelta(minutes=10)
"""A file without footer that nobody has open and nobody wrote to for so long is no file that is being written."""
BACK = 60_000_000
"""Microseconds that times may go back: exchanges report in batches."""
NEAR = 256
"""Trade ids in a row among which one that stands twice is found."""
LONGEST_KEY = 96
"""Characters of market, symbol and trade id together: longer ones are no such thing, and would swell the cursor."""
NAMES = 8000
"""Characters of all column names together that are remembered."""
_START = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = 3_600_000_000


def inspect(
    path: Path, *, options: FormatOptions, cursor: dict[str, Any] | None, writing: bool, now: datetime
) -> Inspection:
    """A format's `inspect`. Never raises for what is in a file or in its way."""
    known = State.from_json(cursor, _print_of(options))
    try:
        with regular(path) as source:
            look = _Look(path, source, options, known, writing, now)
            seen = look.inspection()
            return look.unsettled(cursor) if look.disturbed() else seen
    except FileNotFoundError:
        return _missing(path, known, cursor, writing)
    except OSError as error:
        text = f"It cannot be read: {error.strerror or error}."
        return Inspection(DataVerdict.UNREADABLE, (Finding("C15", text, False),), cursor=cursor or {})


def _print_of(options: FormatOptions) -> str:
    said = (sorted(options.columns.items()), options.timezone, options.mode)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


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
        self, path: Path, source: Source, options: FormatOptions, known: State | None, writing: bool, now: datetime
    ) -> None:
        self._path, self._source, self._options = path, source, options
        self._known, self._writing, self._now = known, writing, now
        self._findings: list[Finding] = []
        self._damaged = self._waits = self._replaced = False
        self._read_from = 0

    def inspection(self) -> Inspection:
        """Read what is to be read, and judge."""
        known = self._known
        state = known if known and known.file == self._source.identity else self._new()
        if state is known and not state.more:
            self._read_from = state.to
        else:
            self._read(state)
        if self._source.size == 0 or state.unread:
            self._tell_unread(state)
        if not state.more:
            self._compare(state)
        self._tell(state)
        return self._conclude(state)

    def disturbed(self) -> bool:
        """Whether somebody wrote to the file while it was read."""
        before = self._source.identity
        self._source.refresh()
        return self._source.identity != before

    def unsettled(self, cursor: dict[str, Any] | None) -> Inspection:
        """Nothing to go by: what was read may be of two files."""
        return Inspection(
            DataVerdict.PENDING,
            (Finding("C10", "It was written over while it was read.", False),),
            size=self._source.size,
            mtime=self._mtime(),
            identity=self._source.identity,
            tempo=self._known.tempo() if self._known else Tempo(),
            cursor=cursor or {},
        )

    def _new(self) -> State:
        """Another file than the known one: damages that it has too are as old as they are."""
        if self._known is None:
            return State()
        return State(before=self._known.missed(self._now), names=self._known.names, needed=self._known.needed)

    # --- reading ---

    def _read(self, state: State) -> None:
        state.file = self._source.identity
        if self._source.size == 0:
            return
        try:
            check_ends(self._source)
            self._groups(state, Table(self._source, self._options))
            marks = files.marks(self._source, self._source.size)
            state.to, state.head, state.anchor = self._source.size, marks["head"], marks["anchor"]
        except StrangeError as strange:
            self._strange(state, strange)
        except BotkeepError as error:  # no library: another look, once it is there, reads this very file
            state.unread, state.file = str(error), ""

    def _groups(self, state: State, table: Table) -> None:
        if state.group == 0:
            self._learn(state, table)
        spent = 0
        while state.group < state.groups and spent < BUDGET:
            try:
                for rows in table.group(state.group):
                    self._take(state, table, rows)
            except StrangeError as strange:
                if strange.rule != "P2":
                    raise
                self._damage(state, "P2", str(strange), table.starts[state.group])
            spent += max(1, table.group_rows(state.group) * len(table.names))
            state.group += 1

    def _learn(self, state: State, table: Table) -> None:
        """What the columns are, and whether those that trades were read from are still there."""
        gone = [name for name in state.needed if name not in table.names]
        if gone:
            text = f"Columns are gone: {shown(gone)}. Did another version of the bot write it?"
            raise StrangeError("C3", text)
        added = [name for name in table.names if name not in state.names]
        if state.names and added:
            state.notes.append(["C3", f"It has new columns: {shown(added)}."])
        state.groups = table.groups
        state.names = list(table.names) if sum(map(len, table.names)) < NAMES else []
        state.needed = sorted(table.names[place] for place in table.roles.values()) if table.typed else []

    def _take(self, state: State, table: Table, rows: Rows) -> None:
        """What is to be known of these rows."""
        state.records += rows.count
        if table.typed:
            self._values(state, table, rows)
            self._times(state, table, rows)
            self._twice(state, table, rows)

    def _values(self, state: State, table: Table, rows: Rows) -> None:
        for role, bad in table.flaws(rows).items():
            state.filled[role] = state.filled.get(role, 0) + rows.count
            state.unsound[role] = state.unsound.get(role, 0) + len(bad)
            for place in bad[:LISTED]:
                self._damage(state, "C9", said(table, rows, role, place), rows.first + place, role)

    def _times(self, state: State, table: Table, rows: Rows) -> None:
        import pyarrow.compute as pc

        horizon = int(self._now.timestamp() + 86400) * 1_000_000
        known = table.times(rows).drop_null()
        known = known.filter(pc.and_(pc.less(known, horizon), pc.greater(known, 0)))
        if len(known) == 0:
            return
        earlier = pc.subtract(known.slice(0, len(known) - 1), known.slice(1))
        state.back += (known[0].as_py() < state.newest - BACK) + (pc.sum(pc.greater(earlier, BACK)).as_py() or 0)
        state.newest = known[-1].as_py()
        state.recent.extend(at / 1_000_000 for at in known.slice(max(0, len(known) - 500)).to_pylist())
        for pair in pc.value_counts(pc.divide(known, _HOUR)).to_pylist():
            state.hours[pair["values"]] = state.hours.get(pair["values"], 0) + pair["counts"]
        for hour in sorted(state.hours)[:-336]:
            del state.hours[hour]

    def _twice(self, state: State, table: Table, rows: Rows) -> None:
        """The same trade id with the same content: partial fills have one order id, never one trade id."""
        import pyarrow as pa
        import pyarrow.compute as pc

        keys = table.keys(rows)
        if keys is None:
            return
        counted = [pair["values"] for pair in pc.value_counts(keys.drop_null()).to_pylist() if pair["counts"] > 1]
        near = pa.array([one.partition("\x1f")[0] for one in state.ids], pa.string())
        again = set(keys.filter(pc.fill_null(pc.is_in(keys, value_set=near), False)).to_pylist()) | set(counted)
        if again:
            self._name_twice(state, table, rows, keys, again)
        last = slice(max(0, rows.count - NEAR), rows.count)
        texts = joined(rows.batch.slice(last.start), table.names).to_pylist()
        fresh = zip(keys.slice(last.start).to_pylist(), texts, strict=True)
        marks = [f"{key}\x1f{digest(text).hex()}" for key, text in fresh if key and len(key) <= LONGEST_KEY]
        state.ids = [*state.ids, *marks][-NEAR:]

    def _name_twice(self, state: State, table: Table, rows: Rows, keys: Any, again: set[str]) -> None:
        seen = set(state.ids)
        for place, text in enumerate(joined(rows.batch, table.names).to_pylist()):
            key = keys[place].as_py()
            if key not in again:
                continue
            mark = f"{key}\x1f{digest(text).hex()}"
            if mark in seen:
                text = f"The trade {evidence(key.rpartition(chr(0))[2].encode())} stands in it twice."
                self._damage(state, "C7", text, rows.first + place)
            seen.add(mark)

    def _damage(self, state: State, rule: str, text: str, row: int | None = None, role: str = "") -> None:
        """One more damage; known ones keep the time at which they were seen first."""
        if len(state.damages) < LISTED:
            known = self._known.damages if self._known else []
            old = [one.seen for one in known if (one.rule, one.text, one.row) == (rule, text, row)]
            state.damages.append(Damage(rule, text, row, min(old, default=self._now.timestamp()), role))

    # --- judging ---

    def _strange(self, state: State, strange: StrangeError) -> None:
        """No Parquet: damage where it was once, or where its name says that it should be."""
        was_good = bool(state.before and state.before.rows)
        by_name = self._path.suffix.lower() in (".parquet", ".pq")
        other = strange.rule in ("C11", "kind")
        rule = "C11" if other else strange.rule
        state.group = state.groups = 0
        if rule in ("P1", "C2") or (other and (was_good or by_name)):
            self._damage(state, rule, str(strange))
        else:
            state.unread = str(strange)
            state.notes.append([rule, str(strange)])

    def _tell_unread(self, state: State) -> None:
        if state.unread and not state.notes:
            self._note("C15", state.unread)
        if self._source.size == 0 and not (state.before and state.before.rows):
            self._note("C10", "It is empty, and no row was ever seen in it.")
            self._waits = True

    def _note(self, rule: str, text: str) -> None:
        self._findings.append(Finding(rule, text, False))

    def _compare(self, state: State) -> None:
        """Are the rows there that were there before?"""
        before = state.before
        if before is None or state.unread or any(one.rule in ("P1", "P2", "C2", "C11") for one in state.damages):
            return
        if state.records >= before.rows or not before.rows:
            state.before = None
        elif files.moved_to(self._path, asdict(before)):
            state.before, self._replaced = None, True
        else:
            self._shrunk(state, before)

    def _shrunk(self, state: State, before: Before) -> None:
        lasts = self._now.timestamp() - before.seen >= PERSISTS.total_seconds()
        if self._writing and abs(self._now - self._mtime()) < YOUNG and not lasts:
            self._note("C10", f"It is being written anew: {state.records} of {before.rows} rows so far.")
            self._waits = True
            return
        has = f"{state.records} rows" if self._source.size else "no bytes"
        text = f"It has {has}; {before.rows} rows were in it before, and no file beside it has them."
        self._damaged = True
        self._findings.append(Finding("C10", text, not self._writing or (lasts and bool(state.records))))

    def _tell(self, state: State) -> None:
        for rule, text in state.notes:
            self._note(rule, text)
        if 0 < state.back * 2 < state.records:
            self._note("C8", f"Its times go back {state.back} times, by more than a minute.")
        if state.more:
            self._note("C0", f"{state.group} of {state.groups} row groups are read so far; the next look goes on.")
            self._waits = True
        for damage in state.standing():
            if damage.rule == "P1" and self._is_being_written():
                self._note("P1", damage.text)
                self._waits = True
            else:
                self._damaged = True
                certain = self._is_certain(damage)
                self._findings.append(Finding(damage.rule, damage.text, certain, damage.row))

    def _is_certain(self, damage: Damage) -> bool:
        """Damage of a file that is closed is; a trade that stands twice once it stays so."""
        lasts = self._now.timestamp() - damage.seen >= PERSISTS.total_seconds()
        if damage.rule == "P1":
            return not self._writing
        return lasts or (not self._writing and damage.rule != "C7")

    def _is_being_written(self) -> bool:
        """A writer adds the footer when it closes its file. Of another user's bot we do not see what it has open."""
        if not self._writing:
            return False
        ours = os.geteuid() in (0, self._source.stat.st_uid)
        silent = self._now - self._mtime() > SILENT
        return not ours or not silent or bool(open_writers(self._path))

    def _conclude(self, state: State) -> Inspection:
        found = sorted(self._findings, key=lambda one: (not one.certain, one.row or 0))
        if self._damaged:
            found = [one for one in found if one.certain or one.rule not in ("C3", "C8", "C0")]
        return Inspection(
            verdict=self._verdict(state),
            findings=tuple(found),
            rows=state.records - state.bad if state.groups or state.to else None,
            size=self._source.size,
            mtime=self._mtime(),
            identity=self._source.identity,
            read_from=self._read_from,
            tempo=self._tempo(state),
            cursor=state.as_json(_print_of(self._options)),
        )

    def _tempo(self, state: State) -> Tempo:
        """Of a file not read to its end yet: from its last rows, for its newest trade is no old one."""
        if not state.more:
            return state.tempo()
        end = State()
        try:
            table = Table(self._source, self._options)
            for rows in table.group(table.groups - 1) if table.typed else ():
                self._times(end, table, rows)
        except StrangeError:
            return state.tempo()
        return end.tempo()

    def _verdict(self, state: State) -> DataVerdict:
        if any(finding.certain for finding in self._findings):
            return DataVerdict.CORRUPT
        if self._damaged:
            return DataVerdict.SUSPECT
        if state.unread:
            return DataVerdict.UNREADABLE
        if self._replaced:
            return DataVerdict.REPLACED
        return DataVerdict.PENDING if self._waits else DataVerdict.OK

    def _mtime(self) -> datetime:
        return _START + timedelta(microseconds=self._source.stat.st_mtime_ns // 1000)
