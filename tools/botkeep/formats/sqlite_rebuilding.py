"""A database built from a good copy and whatever can still be read of a damaged one.

1. The good copy, whole. Without one: the damaged database's own schema.
2. The damaged one is never opened: a copy of it and its companions is. A hot journal is rolled back there, a -wal is
   played in, missing pages at the end are filled up with zeros, so that SQLite reads what is before them.
3. Of the table of trades, in the order of ids, around pages that cannot be read: rows that the good copy has not and
   that are newer; and newer versions of those that it has as not settled yet (an open trade that was closed since). A
   settled row stays as the good copy has it. A bot that lost its database begins its ids anew: a trade with a known
   id that is newer than all of the good copy gets another id, and what refers to it as well. An open trade that the
   bot took back since the backup does not come to life again.
4. The other tables after those that they refer to. Nothing is completed by guessing.
5. integrity_check, and the way of journaling that the damaged one had.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..model import BotkeepError, Finding
from ..untrusted import clean
from .base import FormatOptions
from .sqlite_files import companions, hashed, look, private_copy, restat, sync
from .sqlite_merging import Counts, Into, in_order, references
from .sqlite_open import (
    BrokenError,
    Database,
    DriftError,
    NoTradesError,
    Table,
    connect,
    quoted,
    told,
    translated,
)
from .sqlite_rows import Gaps, rows
from .sqlite_shapes import Shape, recognise


def build(good: Path | None, damaged: Path, target: Path, options: FormatOptions) -> dict[str, Any]:
    """Write `target`. Raises BotkeepError. Only called in a process of its own."""
    for old in (target, *companions(target)):
        old.unlink(missing_ok=True)
    with told(damaged):
        counts = Counts()
        if not damaged.exists():
            if good is None:
                raise BotkeepError(f"There is neither a backup nor a file {damaged}: nothing can be built.")
            _copy_good(good, target)
            wal = False
        else:
            wal = _built(good, damaged, target, options, counts)
        made = _finish(target, options, wal=wal)
    counts.kept = made.pop("rows") - counts.new - counts.replaced
    return {**made, **_as_json(counts)}


def _as_json(counts: Counts) -> dict[str, Any]:
    listed = [[one.rule, one.text, one.certain, one.row] for one in counts.listed]
    return {**vars(counts), "listed": listed}


def _copy_good(good: Path, target: Path) -> None:
    shutil.copyfile(good, target)
    head = look(target).head
    if head is None:
        raise BotkeepError(f"The backup {good.name} is no database: it cannot be built on.")


def _built(good: Path | None, damaged: Path, target: Path, options: FormatOptions, counts: Counts) -> bool:
    files = look(damaged)
    with private_copy(damaged) as copy:
        readable = _mend(copy, counts)
        if good is not None:
            _copy_good(good, target)
        elif not readable:
            raise BotkeepError(
                f"Nothing can be salvaged from {damaged.name}: it is no database, and there is no backup."
            )
        if readable:
            _salvage(copy, target, options, counts, fresh=good is None)
    return bool(files.head and files.head.wal)


def _mend(copy: Path, counts: Counts) -> bool:
    """Have SQLite recover the copy, filled up to the length that its head says. False: it is no database at all."""
    files = look(copy)
    if files.head is None:
        counts.drop(Finding("Q1", "It is no database: nothing can be read from it.", True))
        return False
    rest = files.stat.st_size % files.head.page_size
    if rest and not files.recoverable:
        counts.drop(Finding("Q1", f"Its last {rest} bytes are no whole page.", True))
    try:
        with closing(connect(copy, "rw")) as connection:
            if files.recoverable and files.journal is not None:
                counts.drop(Finding("Q4", "A transaction that was cut off was taken back.", True))
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        pass  # what of it can be read is found out row by row
    wanted = files.head.pages * files.head.page_size
    if restat(files).stat.st_size < wanted:
        with copy.open("r+b") as file:
            file.truncate(wanted)
    return True


@contextmanager
def _both(copy: Path, target: Path) -> Iterator[tuple[Database, Database]]:
    """(the new one, the damaged one)."""
    with closing(connect(target, "rwc")) as connection, closing(connect(copy, "rw")) as other:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA cell_size_check = ON")
        yield Database(connection, look(target)), Database(other, look(copy))


def _salvage(copy: Path, target: Path, options: FormatOptions, counts: Counts, *, fresh: bool) -> None:
    with _both(copy, target) as (new, old):
        try:
            old_tables = old.tables()
        except BrokenError as broken:
            if fresh:
                raise
            counts.drop(Finding("Q1", f"None of its tables can be read. {broken}", True))
            return
        new.connection.execute("BEGIN IMMEDIATE")
        triggers = _make_tables(new, old, counts) if fresh else _take_triggers(new)
        _Salvage(new, old, old_tables, options, counts).run()
        for text in triggers:
            new.ask(text)
        new.connection.execute("COMMIT")


def _make_tables(new: Database, old: Database, counts: Counts) -> list[str]:
    """Tables and indexes as the damaged one has them; returns what makes its triggers."""
    made = old.ask(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'table' DESC, rowid"
    )
    for kind, name, text in made:
        if kind not in ("table", "index", "view") or not str(text).startswith("CREATE ") or name == "sqlite_sequence":
            continue
        try:
            new.ask(str(text))
        except OSError:
            counts.drop(Finding("Q5", f"Its {kind} {clean(str(name), 60)} could not be made again.", True))
    for name in ("user_version", "application_id"):
        new.ask(f"PRAGMA {name} = {int(old.ask(f'PRAGMA {name}')[0][0])}")
    return [str(text) for kind, _, text in made if kind == "trigger" and str(text).startswith("CREATE TRIGGER ")]


def _take_triggers(new: Database) -> list[str]:
    """Take them away, and return what makes them again: what they did for a salvaged row they did when it was made."""
    found = new.ask("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND sql IS NOT NULL")
    for name, _ in found:
        new.ask(f"DROP TRIGGER {quoted(str(name))}")
    return [str(text) for _, text in found]


class _Salvage:
    """The rows of one damaged database."""

    def __init__(
        self, new: Database, old: Database, old_tables: dict[str, Table], options: FormatOptions, counts: Counts
    ) -> None:
        self._new, self._old, self._old_tables, self._counts = new, old, old_tables, counts
        self._tables = new.tables()
        self._rewrite = options.mode == "rewrite"
        self._shape: Shape = recognise(self._tables, options)
        self._ids: dict[int, int] = {}
        """Trades that got another id."""
        self._touched: set[int] = set()
        """Trades that are new, or newer than in the good copy: what refers to them is newer as well."""
        self._strangers: list[int] = []
        """Trades with the id of another one, which the good copy has as not settled."""
        self._gone: set[int] = set()
        """Open trades of the good copy that the bot took back."""

    def run(self) -> None:
        """The trades, then the other tables."""
        trade_table = self._shape.table
        if trade_table in self._old_tables:
            self._trades(Into(self._new, self._old, self._tables[trade_table], self._old_tables[trade_table]))
        else:
            self._counts.drop(Finding("Q5", f"It has no table {trade_table}.", True))
        both = [name for name in self._tables if name in self._old_tables and name != trade_table]
        parents = {name: [parent for parent, _ in references(self._new, name)] for name in both}
        for name in in_order(both, parents):
            if self._tables[name].by_rowid:
                self._others(Into(self._new, self._old, self._tables[name], self._old_tables[name]))

    # --- trades ---

    def _trades(self, into: Into) -> None:
        try:
            mine = recognise(self._old_tables, FormatOptions(table=self._shape.table))
            columns = mine.columns if mine.columns == self._shape.columns else self._shape.columns
        except (DriftError, NoTradesError):
            columns = self._shape.columns
        if not set(columns) <= set(into.columns):
            self._counts.drop(Finding("Q7", f"Its table {self._shape.table} has other columns.", True))
            return
        top, newest, gaps = into.top(), self._newest(), Gaps()
        still, last = self._unsettled(), 0
        for key, cells in rows(self._old, self._shape.table, columns, gaps=gaps):
            last = key
            still.discard(key)
            flaw = self._shape.flaw(cells)
            if flaw is not None:
                self._counts.drop(Finding("C9", flaw, True, row=key))
                continue
            self._counts.sound += 1
            made = self._shape.times(cells)[0]
            later = made is not None and newest is not None and made > newest
            self._trade(into, key, top, later=later)
        agreed = bool(self._counts.same or self._counts.replaced)
        for key in self._strangers:
            self._stranger(into, key, agreed=agreed)
        if agreed and not (gaps or self._ids or self._rewrite):
            self._take_back(into, (key for key in sorted(still) if key < last))
        self._say_gaps(into, gaps)
        self._counts.require_all(into.table.name)

    def _trade(self, into: Into, key: int, top: int, *, later: bool) -> None:
        if key in into.given:
            self._add(into, key, into.renumbered())
        elif not into.has(key):
            if key > top or later or self._rewrite:
                self._add(into, key, {})
            else:
                self._leave(key, "C10", "It is sound, but not in the backup, and not later than the backup's last row.")
        elif into.same(key):
            self._counts.same += 1
        elif (open_yet := self._rewrite or not self._is_settled(key)) and into.alike(key, self._shape.identity):
            self._replace(into, key)
        elif open_yet and later:
            self._strangers.append(key)
        elif later:
            self._add(into, key, into.renumbered())
        elif open_yet:
            self._leave(key, "Q6", "It is sound, but the backup has another trade with its id, and it is not later.")
        else:
            self._leave(key, "Q6", "It is sound, but not as in the backup, where it was settled.")

    def _stranger(self, into: Into, key: int, *, agreed: bool) -> None:
        """A later trade with the id of one that was not settled: of a database that was begun anew, or given again.

        The id was given again if the other trades that both files have are the same ones (`agreed`) and none of them
        had to be renumbered: then the bot took the trade of the backup back.
        """
        if self._ids or self._rewrite or not agreed:
            self._add(into, key, into.renumbered())
        elif self._replace(into, key):
            self._gone.add(key)
            text = "The backup has another open trade with its id, which the bot took back since: it is left out."
            self._counts.drop(Finding("C10", text, False, row=key), 0)

    def _take_back(self, into: Into, keys: Iterable[int]) -> None:
        """Open trades of the backup that are not in a damaged file which was read whole and has later ones."""
        for key in keys:
            self._gone.add(key)
            self._counts.gone += 1
            text = "The backup has it as an open trade, which the bot took back since: it is left out."
            self._counts.drop(Finding("C10", text, False, row=key), 0)
            into.remove("rowid", [key])

    def _replace(self, into: Into, key: int) -> bool:
        done = into.put(key, replace=True)
        if done:
            self._counts.replaced += 1
            self._touched.add(key)
        else:
            self._leave(key, "C7", "It is newer than in the backup, but cannot be read whole.")
        return done

    def _add(self, into: Into, key: int, changes: dict[str, int | None]) -> None:
        if not into.put(key, changes):
            self._leave(key, "C7", "It cannot be read whole, or the backup has another row with its key.")
            return
        self._counts.new += 1
        given = next(iter(changes.values()), None)
        self._touched.add(given or key)
        if given:
            self._ids[key] = given

    def _leave(self, key: int, rule: str, text: str) -> None:
        self._counts.drop(Finding(rule, text, False, row=key), sound=True)

    def _is_settled(self, key: int) -> bool:
        table = quoted(self._shape.table)
        ask = f"SELECT {self._shape.settled} FROM {table} WHERE rowid = ?"  # noqa: S608  # ours
        return bool(self._new.ask(ask, (key,))[0][0])

    def _unsettled(self) -> set[int]:
        """Of the good copy."""
        ask = f"SELECT rowid FROM {quoted(self._shape.table)} WHERE NOT ({self._shape.settled})"  # noqa: S608  # ours
        return {int(key) for (key,) in self._new.ask(ask)}

    def _newest(self) -> float | None:
        """When the last trade of the good copy was made."""
        found = (self._shape.times(cells)[0] for _, cells in rows(self._new, self._shape.table, self._shape.columns))
        return max((at for at in found if at is not None), default=None)

    def _say_gaps(self, into: Into, gaps: Gaps) -> None:
        for first, last in gaps.found:
            lost = 1 if last is None else sum(not into.has(key) for key in range(first, min(last, first + 100_000) + 1))
            until = "on" if last is None else f"to {last}"
            text = f"The page with the rows {first} {until} of {into.table.name} cannot be read."
            self._counts.drop(Finding("Q1", text, True, row=first), lost)

    # --- the rest ---

    def _others(self, into: Into) -> None:
        links = [column for parent, column in references(self._new, into.table.name) if parent == self._shape.table]
        for column in links:
            into.remove(column, self._gone)
        gaps = Gaps()
        try:
            for key, cells in rows(self._old, into.table.name, tuple(links), gaps=gaps):
                self._other(
                    into, key, {name: trade for name, trade in zip(links, cells, strict=True) if trade is not None}
                )
        except (BrokenError, OSError) as error:
            self._counts.drop(Finding("Q1", f"{into.table.name}: {clean(str(error), 160)}", True))
        self._say_gaps(into, gaps)

    def _other(self, into: Into, key: int, trades: dict[str, int]) -> None:
        """A row that belongs to trades goes with them; another one is as new as the damaged file is."""
        changes: dict[str, int | None] = {
            name: self._ids[trade] for name, trade in trades.items() if trade in self._ids
        }
        belongs = all(self._ids.get(trade, trade) in self._touched for trade in trades.values())
        if not into.has(key):
            if belongs:
                into.put(key, changes)
        elif changes:
            into.put(key, changes | into.renumbered())
        elif not belongs or (self._ids and not trades):
            return
        elif key in into.given or not into.alike(key, tuple(trades)):
            into.put(key, into.renumbered())  # the backup has the row of another trade with its id
        elif not into.same(key):
            into.put(key, replace=True)


# --- the end -----------------------------------------------------------------------------------------------------


def _finish(target: Path, options: FormatOptions, *, wal: bool) -> dict[str, Any]:
    with translated(), closing(connect(target, "rw")) as connection:
        database = Database(connection, look(target))
        said = [str(row[0]) for row in database.ask("PRAGMA integrity_check(3)")]
        if said != ["ok"]:
            raise BotkeepError(f"What was built does not pass SQLite's check: {clean('; '.join(said), 200)}.")
        shape = recognise(database.tables(), options)
        count = int(database.ask(f"SELECT count(*) FROM {quoted(shape.table)}")[0][0])  # noqa: S608  # a name, quoted
        database.ask(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
    for beside in companions(target):
        beside.unlink()
    sync(target)
    size, sha256 = hashed(target)
    return {"rows": count, "size": size, "sha256": sha256}
