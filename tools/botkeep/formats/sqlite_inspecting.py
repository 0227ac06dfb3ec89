"""Inspection of a database: what changed since the last look, a verdict with evidence, a cursor for the next one.

1. Nothing is opened while the files are the same. The main file alone does not tell: in write-ahead mode all that is
   new is in the -wal.
2. From outside: length, magic, whole pages. Then one read transaction, as short as the bot's way of writing asks for:
   quick_check, the schema, how many rows there are, the rows above the last known id.
3. Fewer settled rows than before are lost ones, whatever SQLite says: integrity_check finds nothing wrong with an empty
   file, nor with a database whose -wal was deleted. A bot that found none and made a new one has lost them as well.
4. Locked is not damaged. A hot journal is not damaged: whoever opens the database for writing rolls it back.
5. Damage with a live writer is suspect, and certain once nobody writes any more or when a later inspection, half a
   minute or more after, finds the same.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..model import DataVerdict, Finding, Inspection, Tempo
from ..untrusted import clean
from .base import FormatOptions
from .files import held_deleted
from .sqlite_files import LOCK, SHM, WAL, Files, Head, companion, lock_holders, look, no_database, shown
from .sqlite_open import (
    BrokenError,
    Database,
    DriftError,
    LockedError,
    NoTradesError,
    Table,
    TooLongError,
    quoted,
    reading,
)
from .sqlite_rows import gently, rows
from .sqlite_shapes import Shape, recognise
from .sqlite_state import LISTED, Before, Damage, State, print_of, state_from

PERSISTS = timedelta(seconds=30)
IN_THE_WAY = 0.3
"""Seconds of reading that a bot without write-ahead log has to wait for at the most."""
BESIDE = 2.0
"""Seconds of reading where nobody waits for us."""
PATIENCE = (5.0, 20.0, 60.0)
"""Seconds for the check of all pages of a database that nobody writes to: at the first, second, third try."""
WINDOW = 50
"""Rows at the end that are read again each time where the bot edits its rows."""
MOST_OPEN = 200
SIBLINGS = 16
_START = datetime(1970, 1, 1, tzinfo=UTC)


def inspect(
    path: Path, *, options: FormatOptions, cursor: dict[str, Any] | None, writing: bool, now: datetime
) -> Inspection:
    """A format's `inspect`."""
    known = state_from(cursor, options)
    try:
        with LOCK:
            return _Look(path, options, known, writing, now).inspection()
    except FileNotFoundError:
        return _missing(path, known, cursor, writing, options)
    except OSError as error:
        text = f"It cannot be read: {error.strerror or error}."
        return Inspection(DataVerdict.UNREADABLE, (Finding("C15", text, False),), cursor=cursor or {})


def _missing(
    path: Path, known: State | None, cursor: dict[str, Any] | None, writing: bool, options: FormatOptions
) -> Inspection:
    missed = known and known.missed()
    if not missed or not missed.rows:
        return Inspection(DataVerdict.MISSING, cursor=cursor or {})
    text = f"It is gone; {missed.rows} rows were in it"
    if held := held_deleted(path):
        text += f", and process {held.parts[2]} still holds the deleted file, as {held}"
    elif moved := _moved(path, missed, options):
        text += f"; they are in {moved.name} beside it"
    elif companion(path, WAL).exists():
        text += "; its -wal is still there"
    finding = Finding("C14", f"{text}.", bool(held) or not writing)
    return Inspection(DataVerdict.MISSING, (finding,), cursor=cursor or {})


class _Look:
    """One look at one database."""

    def __init__(self, path: Path, options: FormatOptions, known: State | None, writing: bool, now: datetime) -> None:
        self._path, self._options, self._known = path, options, known
        self._writing, self._now = writing, now
        self._horizon = now.timestamp() + 86400
        self._damages: list[tuple[Damage, bool]] = []
        self._notes: list[Finding] = []
        self._pending = self._unreadable = self._replaced = self._more = False
        self._counted = False
        self._read_from = 0

    def inspection(self) -> Inspection:
        """Look and judge. Raises OSError where it cannot be read."""
        files = look(self._path)
        if self._known and self._known.clean and self._known.file == files.identity:
            return self._same(files, self._known)
        state = self._known.copy() if self._known else State()
        try:
            self._check_outside(files, state)
            with reading(self._path) as database:
                files = database.files
                self._check_inside(database, state)
        except LockedError:
            self._locked()
        except BrokenError as broken:
            self._damage(broken.rule, str(broken))
        except DriftError as drift:
            self._unreadable = True
            self._note("Q7", str(drift))
        except NoTradesError as nothing:
            self._no_trades(files, state, str(nothing))
        except _EmptyError:
            pass
        return self._conclude(files, state)

    # --- findings ---

    def _damage(self, rule: str, text: str, *, key: int | None = None, sure: bool = False) -> None:
        old = self._known.damages if self._known else []
        seen = next((one.seen for one in old if (one.rule, one.key) == (rule, key)), self._now.timestamp())
        lasts = self._now.timestamp() - seen >= PERSISTS.total_seconds()
        self._damages.append((Damage(rule, text, key, seen), sure or lasts or not self._writing))

    def _note(self, rule: str, text: str) -> None:
        self._notes.append(Finding(rule, text, False))

    def _wait(self, rule: str, text: str) -> None:
        self._pending = True
        self._note(rule, text)

    def _locked(self) -> None:
        holders = lock_holders(self._path)
        by = f" by {shown(holders)}" if holders else ""
        self._wait("Q2", f"It is locked{by}, so it was not looked into. That is no damage.")

    def _no_trades(self, files: Files, state: State, text: str) -> None:
        if self._lost_all(state):
            return
        if files.stat.st_size and "has no tables" not in text:
            self._unreadable = True
        self._note("Q5", text)

    def _lost_all(self, state: State) -> bool:
        missed = self._known.missed() if self._known else None
        if missed is None or not missed.rows:
            return False
        state.before = missed
        if moved := _moved(self._path, missed, self._options):
            self._note("C10", f"It has no trades yet; the {missed.rows} rows of before are in {moved.name} beside it.")
            self._replaced = True
        else:
            text = f"No table of trades is in it, and {missed.rows} rows were in it before. {self._held(missed)}"
            self._damage("Q5", text.strip())
        return True

    # --- from outside ---

    def _check_outside(self, files: Files, state: State) -> None:
        if not files.stat.st_size and not (files.wal and files.wal.st_size):
            if not self._lost_all(state):
                self._note("Q5", "It is empty, and no row was ever seen in it.")
            raise _EmptyError
        head = files.head
        if head is None:
            rule, text = no_database(files)
            raise BrokenError(text, rule)
        self._check_length(files, head)
        if head.wal and files.shm and files.wal is None:
            self._note(
                "Q3", f"{companion(self._path, SHM).name} is there and its -wal is not: what was in that is gone."
            )

    def _check_length(self, files: Files, head: Head) -> None:
        rest = files.stat.st_size % head.page_size
        short = head.pages * head.page_size - files.stat.st_size
        if files.recoverable:
            return
        if rest:
            text = f"Its last {rest} bytes are no whole page of {head.page_size}."
            self._wait("Q1", text) if self._writing else self._damage("Q1", text)
        if short > 0:
            self._damage("Q1", f"It ends {short} bytes before its last page: {files.stat.st_size} bytes are left.")

    # --- from inside ---

    def _check_inside(self, database: Database, state: State) -> None:
        if database.hot:
            text = "A transaction in it was cut off. Whoever opens it for writing takes that back first"
            if self._writing:
                self._wait("Q4", f"{text}.")
            else:
                self._note("Q4", f"{text}; a copy in which that was done is what was looked at.")
        self._check_pages(database, state)
        if any(damage.rule == "Q1" for damage, _ in self._damages) and not self._whole(database):
            return
        tables = database.tables()
        shape = recognise(tables, self._options)
        self._check_schema(tables[shape.table], shape, state)
        self._count(database, shape, state)
        self._check_rows(database, shape, state)
        if not self._more:
            self._compare(database, shape, state)

    def _whole(self, database: Database) -> bool:
        """Whether its rows can be counted, whatever else is wrong."""
        try:
            shape = recognise(database.tables(), self._options)
            return sum(1 for _ in rows(database, shape.table, shape.columns)) >= 0
        except (BrokenError, DriftError, NoTradesError):
            return False

    def _check_pages(self, database: Database, state: State) -> None:
        tries = min(state.patience, len(PATIENCE) - 1)
        seconds = PATIENCE[tries] if not self._writing else IN_THE_WAY if database.in_the_way else BESIDE
        try:
            with database.within(seconds):
                said = [str(row[0]) for row in database.ask("PRAGMA quick_check(5)")]
        except TooLongError:
            self._more = not self._writing and state.patience < len(PATIENCE) - 1
            state.patience += not self._writing
            self._note("C0", f"Its pages were not all checked in {seconds:g} s; each backup checks all of its copy.")
            return
        state.patience = 0
        if said != ["ok"]:
            self._damage("Q1", f"SQLite's check says: {clean('; '.join(said), 200)}.")

    def _check_schema(self, table: Table, shape: Shape, state: State) -> None:
        added = sorted(set(table.columns) - set(state.columns)) if state.columns else []
        gone = sorted(set(state.columns) - set(table.columns))
        if state.table == shape.table and (added or gone):
            words = [f"new: {', '.join(added[:8])}" if added else "", f"gone: {', '.join(gone[:8])}" if gone else ""]
            what = "; ".join(word for word in words if word)
            self._note(
                "Q7", f"The columns of {shape.table} are not those of before ({clean(what, 120)}), as after an upgrade."
            )
        for text in shape.notes:
            self._note("Q7", text)
        state.table, state.columns = shape.table, list(table.columns)

    def _count(self, database: Database, shape: Shape, state: State) -> None:
        table = quoted(shape.table)
        every = database.ask(f"SELECT count(*), max(rowid) FROM {table}")[0]  # noqa: S608  # a name, quoted
        settled = every
        if shape.settled != "1":
            ask = f"SELECT count(*), max(rowid) FROM {table} WHERE {shape.settled}"  # noqa: S608  # ours
            settled = database.ask(ask)[0]
        state.before = self._known.missed() if self._known else None
        state.rows, state.top = int(every[0]), int(every[1] or 0)
        state.settled, state.mark = int(settled[0]), int(settled[1] or 0)
        state.anchor = _anchor(database, shape, state.mark) if state.mark else ""
        state.wal = bool(database.files.wal and database.files.wal.st_size)
        self._counted = True

    def _check_rows(self, database: Database, shape: Shape, state: State) -> None:
        """The rows that are new, those at the end once more, and those that were bad."""
        known = state.read if state.before and not self._gone(state.before, state) else None
        state.read = known
        if known is None:
            state.recent.clear()
            state.hours.clear()
            state.newest = None
        else:
            self._read_from = state.size
        flaws: dict[int, str] = {}
        after = min(known, state.top - WINDOW) if known is not None and shape.settled == "0" else known
        try:
            with database.within(BESIDE if self._writing else PATIENCE[-1]):
                self._read_rows(database, shape, state, after, flaws)
                self._look_again(database, shape, state, flaws)
        except TooLongError:
            self._more = True
            self._wait("C0", f"Its rows are read up to number {state.read or 0} so far; the next look goes on there.")
        for key, text in list(flaws.items())[:LISTED]:
            self._damage("C9", text, key=key)

    def _read_rows(
        self, database: Database, shape: Shape, state: State, after: int | None, flaws: dict[int, str]
    ) -> None:
        known = state.read
        for key, cells in gently(database, shape.table, shape.columns, after=after):
            flaw = shape.flaw(cells)
            if flaw is not None and len(flaws) < LISTED:
                flaws[key] = flaw
            made, last = shape.times(cells)
            state.happened(last, self._horizon)
            if known is None or key > known:
                state.count(made, self._horizon)
                state.read = key

    def _look_again(self, database: Database, shape: Shape, state: State, flaws: dict[int, str]) -> None:
        """At rows that were bad, and stay so until somebody mends them, and at those that were not settled: a trade is
        closed in the row that it was opened in.
        """
        old = self._known.damages if self._known else []
        bad = [one.key for one in old if one.key is not None]
        for key in {*bad, *state.open} - set(flaws):
            found = next(rows(database, shape.table, shape.columns, after=key - 1), None)
            if found is None or found[0] != key:
                continue
            state.happened(shape.times(found[1])[1], self._horizon)
            flaw = shape.flaw(found[1])
            if flaw is not None:
                flaws[key] = flaw
        ask = (
            f"SELECT rowid FROM {quoted(shape.table)} WHERE NOT ({shape.settled}) ORDER BY rowid DESC LIMIT {MOST_OPEN}"  # noqa: S608
        )
        state.open = [int(key) for (key,) in database.ask(ask)] if shape.settled not in ("0", "1") else []

    # --- what was there before ---

    def _compare(self, database: Database, shape: Shape, state: State) -> None:
        before = state.before
        if before is None or not before.rows:
            return
        another = self._is_another(database, shape, before, state)
        if not another and not self._gone(before, state):
            state.before = None
        elif moved := _moved(self._path, before, self._options, first=_first(database, shape)):
            state.before, self._replaced = None, True
            self._note("C10", f"The {before.rows} rows of before are in {moved.name} beside it.")
        else:
            self._say_lost(database.files, before, state, another)

    def _gone(self, before: Before, state: State) -> bool:
        """Fewer rows, and fewer of those that stay. In mode rewrite none has to stay, but the newest are the newest."""
        if before.settled or state.settled:
            return state.settled < before.settled and state.rows < before.rows
        return state.rows < before.rows and state.top < before.top

    def _is_another(self, database: Database, shape: Shape, before: Before, state: State) -> bool:
        """Another file in the same place, whose last settled row of before is another trade."""
        if not before.anchor or before.inode == database.files.inode or not state.settled:
            return False
        return _anchor(database, shape, before.mark) != before.anchor

    def _say_lost(self, files: Files, before: Before, state: State, another: bool) -> None:
        no_wal = before.wal and not (files.wal and files.wal.st_size) and before.inode == files.inode
        rule = "Q3" if no_wal else "C10"
        if another and state.rows >= before.rows:
            text = f"Another database is in its place: row {before.mark} is not the trade that it was."
        else:
            text = f"It has {state.rows} rows; {before.rows} were in it before, and no file beside it has them."
        if no_wal:
            text += " Its -wal, in which the newest were, is gone."
        self._damage(rule, f"{text} {self._held(before)}".strip())

    def _held(self, before: Before) -> str:
        """Who still writes into a file that was deleted under him."""
        held = held_deleted(self._path, before.inode) or held_deleted(companion(self._path, WAL))
        return f"Process {held.parts[2]} still holds what was deleted, as {held}." if held else ""

    def _check_held(self, files: Files) -> None:
        """Another file than before, and the bot goes on in the old one: every health sign green, all trades lost."""
        if not self._known or not self._known.inode or self._known.inode == files.inode:
            return
        if held := held_deleted(self._path, self._known.inode):
            text = (
                f"Process {held.parts[2]} writes into a file that was deleted from here: its trades are in {held} only."
            )
            self._damage("C14", text, sure=True)

    # --- the verdict ---

    def _same(self, files: Files, known: State) -> Inspection:
        """Nothing was written since all was well."""
        notes = tuple(Finding(rule, text, False) for rule, text in known.notes)
        return self._made(files, known, DataVerdict.OK, notes, known.size)

    def _conclude(self, files: Files, state: State) -> Inspection:
        self._check_held(files)
        verdict = self._verdict()
        found = sorted(self._damages, key=lambda one: not one[1])
        findings = tuple(
            Finding(one.rule, one.text, certain, row=one.key, key=_key(one, state)) for one, certain in found
        )
        state.damages = [one for one, _ in self._damages]
        state.notes = [
            [note.rule, note.text] for note in self._notes if note.rule != "Q7" or verdict is not DataVerdict.OK
        ]
        state.clean = verdict is DataVerdict.OK
        return self._made(files, state, verdict, findings or tuple(self._notes), self._read_from)

    def _made(
        self, files: Files, state: State, verdict: DataVerdict, findings: tuple[Finding, ...], read_from: int
    ) -> Inspection:
        held = self._known.inode if self._known and any(one.rule == "C14" for one in findings) else files.inode
        state.file, state.size, state.inode = files.identity, files.stat.st_size, held
        return Inspection(
            verdict=verdict,
            findings=findings,
            rows=state.sound if self._counted or verdict is not DataVerdict.CORRUPT else None,
            size=files.stat.st_size,
            mtime=_START + timedelta(microseconds=files.mtime_ns // 1000),
            identity=files.identity,
            read_from=read_from,
            tempo=state.tempo() if state.recent or state.newest else Tempo(),
            cursor=state.as_json(print_of(self._options), self._more),
        )

    def _verdict(self) -> DataVerdict:
        if any(certain for _, certain in self._damages):
            return DataVerdict.CORRUPT
        if self._damages:
            return DataVerdict.SUSPECT
        if self._unreadable:
            return DataVerdict.UNREADABLE
        if self._replaced:
            return DataVerdict.REPLACED
        return DataVerdict.PENDING if self._pending or self._more else DataVerdict.OK


class _EmptyError(Exception):
    """There is nothing to look into."""


def _anchor(database: Database, shape: Shape, key: int) -> str:
    """A hash of what lasts in a row; empty: there is no such row."""
    found = next(rows(database, shape.table, shape.lasting, after=key - 1), None)
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16] if found and found[0] == key else ""


First = tuple[int, tuple[Any, ...]] | None
"""The first row of the table with what lasts in it; None: the table is empty."""


def _first(database: Database, shape: Shape) -> First:
    return next(rows(database, shape.table, shape.lasting), None)


def _moved(path: Path, before: Before, options: FormatOptions, *, first: First = None) -> Path | None:
    """The database beside `path` that holds what was here before: somebody put it aside.

    `first`: the first row that is here now. A database beside this one that begins with the same row is a copy of it,
    and explains nothing that is lost here.
    """
    try:
        near = [one for one in path.parent.iterdir() if one.name.startswith(path.stem) and one.name != path.name]
    except OSError:
        return None
    ours = {companion(path, end).name for end in ("-wal", "-shm", "-journal")}
    beside = (one for one in sorted(near)[:SIBLINGS] if one.name not in ours)
    return next((one for one in beside if _bears(one, before, options, first)), None)


def _bears(path: Path, before: Before, options: FormatOptions, first: First) -> bool:
    try:
        with reading(path) as database:
            shape = recognise(database.tables(), options)
            count = database.ask(f"SELECT count(*) FROM {quoted(shape.table)}")[0][0]  # noqa: S608  # a name, quoted
            bears = int(count) >= before.rows and _anchor(database, shape, before.mark) == before.anchor
            return bears and (first is None or _first(database, shape) != first)
    except (OSError, LockedError, BrokenError, DriftError, NoTradesError, TooLongError):
        return False


def _key(damage: Damage, state: State) -> str:
    """Rows that are gone stay gone while the bot goes on writing: nobody makes a database anew at each write."""
    lost = state.before is not None and damage.rule in LOST
    return f"{damage.rule}:{state.before.mark}:{state.before.rows}" if lost and state.before else ""


LOST = ("C10", "Q3", "Q5")
