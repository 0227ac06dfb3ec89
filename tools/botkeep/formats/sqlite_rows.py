"""Rows of a table in the order of their rowids, around pages that cannot be read."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from .sqlite_open import BrokenError, Database, quoted

NEAR = 20_000
"""Rowids behind a damaged page that are tried one by one: less than a second."""
CHUNK = 4000
"""Some hundredths of a second."""
LARGEST = (1 << 63) - 1


@dataclass
class Gaps:
    """Rowids that no row could be read for: (first, last) of each stretch. The last one may be open: None."""

    found: list[tuple[int, int | None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.found)


def rows(
    database: Database, table: str, columns: Sequence[str], *, after: int | None = None, gaps: Gaps | None = None
) -> Generator[tuple[int, tuple[Any, ...]], None, None]:
    """(rowid, values) of each row, in order of rowid. With `gaps`, damaged pages are passed over and noted there.

    Without: raises BrokenError at the first one. Rowids have to grow: a damaged tree may go round in a circle.
    """
    picked = ", ".join(["rowid", *map(quoted, columns)])
    ask = f"SELECT {picked} FROM {quoted(table)} WHERE rowid {{}} ? ORDER BY rowid"  # noqa: S608  # names, quoted
    last = -LARGEST if after is None else after
    while True:
        try:
            for row in database.rows(ask.format(">"), (last,)):
                last = _grown(row[0], last)
                yield last, row[1:]
        except BrokenError:
            if gaps is None:
                raise
            start = max(last, 0) + 1 if last == -LARGEST else last + 1
            found = _next(database, table, ask, start, gaps)
            if found is None:
                return
            last = found[0]
            yield found
        else:
            return


def gently(
    database: Database, table: str, columns: Sequence[str], *, after: int | None = None, gaps: Gaps | None = None
) -> Generator[tuple[int, tuple[Any, ...]], None, None]:
    """The same, some thousand rows at a time where a bot has to wait for us: it writes between them."""
    while True:
        count = 0
        with closing(rows(database, table, columns, after=after, gaps=gaps)) as found:
            for key, cells in islice(found, CHUNK if database.in_the_way else None):
                count, after = count + 1, key
                yield key, cells
        if count < CHUNK or not database.in_the_way:
            return
        database.breathe()


def _grown(key: Any, last: int) -> int:
    if not isinstance(key, int) or key <= last:
        raise BrokenError("Its rows are not in the order of their ids.")
    return key


def _next(database: Database, table: str, ask: str, start: int, gaps: Gaps) -> tuple[int, tuple[Any, ...]] | None:
    """The first row from `start` on that can be read: one by one nearby, then in strides that double."""
    top = _top(database, table)
    near = min(top or LARGEST, start + NEAR)
    found = None
    for rowid in range(start, near + 1):
        if found := _readable(database, ask.format("="), rowid):
            break
    else:
        found = _further(database, ask.format(">=") + " LIMIT 1", near + 1, top or LARGEST)
    if found is None or found[0] > start:
        gaps.found.append((start, found[0] - 1 if found else top))
    return found


def _further(database: Database, ask: str, start: int, top: int) -> tuple[int, tuple[Any, ...]] | None:
    stride = NEAR
    while start <= top:
        if found := _readable(database, ask, start):
            return found
        start, stride = start + stride, stride * 2
    return None


def _readable(database: Database, ask: str, rowid: int) -> tuple[int, tuple[Any, ...]] | None:
    try:
        found = database.ask(ask, (rowid,))
    except BrokenError:
        return None
    return (found[0][0], found[0][1:]) if found else None


def _top(database: Database, table: str) -> int | None:
    """The largest rowid: from the table, or from an index of it, which has it too."""
    indexes = [name for (name,) in _indexes(database, table)]
    asks = [f"SELECT max(rowid) FROM {quoted(table)}"]  # noqa: S608  # names, quoted
    asks += [f"SELECT max(rowid) FROM {quoted(table)} INDEXED BY {quoted(name)}" for name in indexes]  # noqa: S608
    for ask in asks:
        try:
            found = database.ask(ask)[0][0]
        except (BrokenError, OSError):
            continue
        if isinstance(found, int):
            return found
    return None


def _indexes(database: Database, table: str) -> list[tuple[Any, ...]]:
    try:
        return database.ask("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? LIMIT 20", (table,))
    except (BrokenError, OSError):
        return []
