"""Rows of a damaged database put into a good one: what is in both, what is newer, and under which id."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from ..model import BotkeepError, Finding
from ..untrusted import clean
from .sqlite_open import Database, Table, connect, quoted

LISTED = 20


@dataclass
class Counts:
    """What came of the rows of the trade table; `dropped` of all tables."""

    kept: int = 0
    same: int = 0
    """In both files, with the same content."""
    new: int = 0
    replaced: int = 0
    gone: int = 0
    """Open trades of the good copy that the bot took back since."""
    dropped: int = 0
    dropped_sound: int = 0
    sound: int = 0
    listed: list[Finding] = field(default_factory=list)

    def drop(self, finding: Finding, count: int = 1, *, sound: bool = False) -> None:
        """Rows or remains that cannot be used."""
        self.dropped += count
        self.dropped_sound += count if sound else 0
        if len(self.listed) < LISTED:
            self.listed.append(finding)

    def require_all(self, table: str) -> None:
        """Each sound row of the trade table is in one of the counts. Raises BotkeepError."""
        if self.same + self.new + self.replaced + self.dropped_sound != self.sound:
            raise BotkeepError(
                f"Of {self.sound} sound rows of {clean(table, 60)}, {self.same} are in the backup, {self.new} are new, "
                f"{self.replaced} newer and {self.dropped_sound} left out, which does not add up: nothing is built."
            )


class Into:
    """One table of the new database, and the same one of the damaged.

    Rows go from one connection to the other as values: where a damaged page is met inside a transaction, the connection
    that meets it takes no more rows.
    """

    def __init__(self, new: Database, old: Database, table: Table, old_table: Table) -> None:
        self._new, self._old, self.table = new, old, table
        self.alias = alias_of(table)
        self.columns = tuple(name for name in table.columns if name in old_table.columns)
        self.name = quoted(table.name)
        self._listed = ", ".join(map(quoted, self.columns))
        self._different = self._all_different()
        self.given: set[int] = set()
        """Ids of the new database that rows of the damaged one got instead of their own."""

    def put(self, key: int, changes: Mapping[str, int | None] | None = None, *, replace: bool = False) -> bool:
        """Copy a row as it is, but for `changes`. False: it cannot be read, or a constraint does not let it in."""
        row = self._row(self._old, key)
        if row is None:
            return False
        values = dict(zip(self.columns, row, strict=True)) | dict(changes or {})
        if not self.alias:
            values.setdefault("rowid", key)
        names = ", ".join(_name(name) for name in values)
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        text = f"{verb} INTO {self.name} ({names}) VALUES ({', '.join('?' * len(values))})"
        try:
            done = self._new.connection.execute(text, list(values.values())).rowcount == 1
        except sqlite3.IntegrityError:
            return False
        if changes and (given := changes.get(self.alias or "rowid")):
            self.given.add(given)
        return done

    def _row(self, database: Database, key: int) -> tuple[Any, ...] | None:
        """All of a row; None: there is none, or not all of it can be read, or a text in it is none."""
        text = f"SELECT {self._listed} FROM {self.name} WHERE rowid = ?"  # noqa: S608  # names, quoted
        lenient = database.connection.text_factory
        database.connection.text_factory = str
        try:
            found = database.connection.execute(text, (key,)).fetchone()
        except sqlite3.DatabaseError:
            return None
        finally:
            database.connection.text_factory = lenient
        return tuple(found) if found else None

    def alike(self, key: int, columns: Sequence[str]) -> bool:
        """Whether the rows of both say the same in these columns; what only one of them says is no difference."""
        mine, other = self._row(self._new, key), self._row(self._old, key)
        if mine is None or other is None:
            return False
        pairs = [(a, b) for name, a, b in zip(self.columns, mine, other, strict=True) if name in columns]
        return all(a == b for a, b in pairs if a is not None and b is not None)

    def same(self, key: int) -> bool:
        """Whether both have the row, with the same content: asked of rows whose id was not given to another one."""
        if self._different is not None:
            return key not in self._different
        return self._row(self._old, key) == self._row(self._new, key)

    def _all_different(self) -> set[int] | None:
        """The ids of both whose rows differ, in one question; None: a damaged page lets it have no answer."""
        unlike = " OR ".join(f"m.{quoted(name)} IS NOT o.{quoted(name)}" for name in self.columns)
        text = f"SELECT o.rowid FROM {self.name} o JOIN new.{self.name} m ON m.rowid = o.rowid WHERE {unlike}"  # noqa: S608
        try:
            with closing(connect(self._old.files.path, "ro")) as both:
                both.execute("ATTACH ? AS new", (str(self._new.files.path),))
                return {int(key) for (key,) in both.execute(text)}
        except sqlite3.DatabaseError:
            return None

    def has(self, key: int) -> bool:
        """Whether the new database has a row of that id."""
        text = f"SELECT 1 FROM {self.name} WHERE rowid = ?"  # noqa: S608  # a name, quoted
        return bool(self._new.ask(text, (key,)))

    def remove(self, column: str, values: Iterable[int]) -> None:
        """Take the rows with these values out of the new database."""
        text = f"DELETE FROM {self.name} WHERE {_name(column)} = ?"  # noqa: S608  # names, quoted
        for value in values:
            self._new.ask(text, (value,))

    def top(self) -> int:
        """The largest id of the new database."""
        text = f"SELECT max(rowid) FROM {self.name}"  # noqa: S608  # a name, quoted
        return int(self._new.ask(text)[0][0] or 0)

    def renumbered(self) -> dict[str, int | None]:
        """The changes that give a row a new id."""
        return {self.alias or "rowid": self.top() + 1}


def _name(name: str) -> str:
    return name if name == "rowid" else quoted(name)


def alias_of(table: Table) -> str:
    """The column that is the rowid itself; empty: none.

    https://www.sqlite.org/lang_createtable.html#rowid: the one primary key column of the exact type INTEGER.
    """
    if len(table.key) != 1:
        return ""
    kind = table.types[table.columns.index(table.key[0])]
    return table.key[0] if kind == "INTEGER" else ""


def in_order(tables: Iterable[str], parents: Mapping[str, Iterable[str]]) -> list[str]:
    """Tables so that each comes after those that its foreign keys name; those in a circle as they stand."""
    left, made = list(tables), list[str]()
    while left:
        ready = [one for one in left if not any(parent in left and parent != one for parent in parents.get(one, ()))]
        made += ready or left
        left = [one for one in left if one not in made]
    return made


def references(database: Database, table: str) -> list[tuple[str, str]]:
    """(parent table, column) of each foreign key of one column."""
    listed = database.ask(f"PRAGMA foreign_key_list({quoted(table)})")
    return [(str(row[2]), str(row[3])) for row in listed]
