"""A copy of a database at one moment that stands alone, the mark by which it is compared later, and plain evidence."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from ..model import BotkeepError, Finding
from ..untrusted import clean
from .base import FormatOptions
from .files import facts_of
from .sqlite_files import companions, hashed, look, sync
from .sqlite_open import (
    BrokenError,
    Database,
    DriftError,
    LockedError,
    NoTradesError,
    quoted,
    reading,
    told,
)
from .sqlite_rows import rows
from .sqlite_shapes import Shape, recognise

BLOCKS = 48
"""Stretches of rows that are hashed for the mark."""
MOST_OPEN = 100
"""Rows not settled yet that a mark lists."""
TRIES = 60
PAUSE = 0.25


# --- the copy ----------------------------------------------------------------------------------------------------


def take(path: Path, target: Path, options: FormatOptions) -> dict[str, Any]:
    """Copy by SQLite's backup API, in one step, so that it is one version and a bot with a write-ahead log never waits.

    A bot without one waits for as long as the copy takes. Raises BotkeepError. Only called in a process of its own.
    """
    with told(path):
        files = look(path)
        for old in (target, *companions(target)):
            old.unlink(missing_ok=True)
        if not files.stat.st_size:
            target.touch()
        else:
            _copy(path, target)
        mark = _mark(target, options)
    sync(target)
    size, sha256 = hashed(target)
    return {"size": size, "sha256": sha256, "source": facts_of(files.stat), **mark}


def _copy(path: Path, target: Path) -> None:
    """Wait for a moment in which nobody holds the database for himself."""
    for tried in range(TRIES):
        try:
            _copy_once(path, target)
        except LockedError:
            if tried == TRIES - 1:
                raise
            time.sleep(PAUSE)
        else:
            return


def _copy_once(path: Path, target: Path) -> None:
    with reading(path, Path(gettempdir())) as source, closing(sqlite3.connect(target, isolation_level=None)) as copy:
        source.connection.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")


def _mark(target: Path, options: FormatOptions) -> dict[str, Any]:
    if not target.stat().st_size:
        return {"first_at": None, "mark": {"table": "", "rows": 0}}
    with reading(target) as database:
        sound = [str(row[0]) for row in database.ask("PRAGMA integrity_check(3)")]
        if sound != ["ok"]:
            return {"first_at": None, "mark": {"integrity": clean("; ".join(sound), 200)}}
        try:
            shape = recognise(database.tables(), options)
        except (DriftError, NoTradesError) as why:
            return {"first_at": None, "mark": {"integrity": "ok", "unknown": clean(str(why), 200)}}
        return {"first_at": _first(database, shape), "mark": {"integrity": "ok", **mark_of(database, shape)}}


def _first(database: Database, shape: Shape) -> float | None:
    found = next(rows(database, shape.table, shape.columns), None)
    return shape.times(found[1])[0] if found else None


def first_at(answer: Mapping[str, Any]) -> datetime | None:
    """The time of the first trade, from the answer of the job."""
    found = answer["first_at"]
    return None if found is None else datetime.fromtimestamp(float(found), UTC)


# --- the mark ----------------------------------------------------------------------------------------------------


def mark_of(database: Database, shape: Shape) -> dict[str, Any]:
    """Counts, the rows not settled yet, and hashes of stretches of what lasts in the others; below 8 KiB."""
    table = quoted(shape.table)
    count, top = database.ask(f"SELECT count(*), max(rowid) FROM {table}")[0]  # noqa: S608  # a name, quoted
    ask = f"SELECT rowid FROM {table} WHERE NOT ({shape.settled}) ORDER BY rowid LIMIT {MOST_OPEN + 1}"  # noqa: S608
    still = [int(row[0]) for row in database.ask(ask)]
    known = len(still) <= MOST_OPEN
    return {
        "table": shape.table,
        "columns": list(shape.lasting),
        "rows": int(count),
        "top": int(top or 0),
        "open": still if known else [],
        "blocks": _blocks(database, shape.table, shape.lasting, set(still), int(count)) if known else [],
    }


def _blocks(
    database: Database, table: str, columns: Iterable[str], still: set[int], count: int
) -> list[tuple[int, int, int, str]]:
    """(first rowid, last rowid, rows, hash) of each stretch."""
    size = max(1, -(-count // BLOCKS))
    made: list[tuple[int, int, int, str]] = []
    running, first, last, held = hashlib.sha256(), 0, 0, 0
    for key, cells in rows(database, table, tuple(columns)):
        if key in still:
            continue
        if not held:
            first = key
        running.update(_hashable(key, cells))
        last, held = key, held + 1
        if held == size:
            made.append((first, last, held, running.hexdigest()[:16]))
            running, held = hashlib.sha256(), 0
    return [*made, (first, last, held, running.hexdigest()[:16])] if held else made


def _hashable(key: int, cells: tuple[Any, ...]) -> bytes:
    return repr((key, *cells)).encode("utf-8", "backslashreplace")


# --- comparing ---------------------------------------------------------------------------------------------------


def compare(copy: Path, last: Mapping[str, Any], options: FormatOptions) -> tuple[Finding, ...]:
    """A format's `compare`."""
    if "integrity" not in last and "table" not in last:
        raise BotkeepError("The mark of the last backup is not one of a database: back up anew.")
    if not last.get("table"):
        return ()  # there was nothing yet, or nothing that could be counted
    with told(copy):
        return _compared(copy, last, options)


def _compared(copy: Path, last: Mapping[str, Any], options: FormatOptions) -> tuple[Finding, ...]:
    try:
        with reading(copy) as database:
            shape = recognise(database.tables(), options)
            if shape.table != last["table"]:
                return (Finding("Q3", f"The table {last['table']} of the last backup is not in it.", True),)
            return tuple(_differences(database, shape, last, options))
    except BrokenError as broken:
        return (Finding(broken.rule, str(broken), True),)
    except NoTradesError as nothing:
        return (Finding("Q3", f"It has lost the {last['rows']} rows of the last backup. {nothing}", True),)
    except (KeyError, TypeError, ValueError) as error:
        raise BotkeepError(f"The mark of the last backup cannot be read ({error!r}): back up anew.") from error


def _differences(database: Database, shape: Shape, last: Mapping[str, Any], options: FormatOptions) -> list[Finding]:
    table, still = quoted(shape.table), {int(key) for key in last["open"]}
    count, top = database.ask(f"SELECT count(*), max(rowid) FROM {table}")[0]  # noqa: S608  # a name, quoted
    if options.mode == "rewrite":
        gone = 0 if shape.settled == "0" else sum(not _is_in(database, table, key) for key in still)
        lost = int(count) + gone < int(last["rows"]) and int(top or 0) <= int(last["top"])
        return [_lost(f"It has {count} rows; the last backup has {last['rows']}.", None)] if lost else []
    columns = tuple(str(name) for name in last["columns"] if name in shape.lasting)
    if columns != tuple(last["columns"]):
        return [Finding("Q7", "Columns of the last backup are gone: their rows cannot be compared.", False)]
    found: list[Finding] = []
    for first, end, held, digest in last["blocks"]:
        there, now = _block(database, shape.table, columns, still, (int(first), int(end)))
        if there < int(held):
            text = f"{int(held) - there} of the {held} rows {first} to {end} of the last backup are not in it."
            found.append(_lost(text, int(first)))
        elif now != digest:
            text = f"Something in rows {first} to {end}, which were backed up and settled, is not as it was."
            found.append(Finding("Q6", text, True, row=int(first)))
    return sorted(found, key=lambda one: one.rule != "C10")[:20]


def _is_in(database: Database, table: str, key: int) -> bool:
    return bool(database.ask(f"SELECT 1 FROM {table} WHERE rowid = ?", (key,)))  # noqa: S608  # a name, quoted


def _lost(text: str, row: int | None) -> Finding:
    return Finding("C10", text, True, row=row)


def _block(
    database: Database, table: str, columns: tuple[str, ...], still: set[int], ends: tuple[int, int]
) -> tuple[int, str]:
    running, there = hashlib.sha256(), 0
    for key, cells in rows(database, table, columns, after=ends[0] - 1):
        if key > ends[1]:
            break
        if key not in still:
            there += 1
            running.update(_hashable(key, cells))
    return there, running.hexdigest()[:16]


# --- evidence ----------------------------------------------------------------------------------------------------


def evidence(path: Path, options: FormatOptions) -> dict[str, Any]:
    """A format's `evidence`: the inode, and how far the trades go. Of what cannot be read: that it cannot."""
    try:
        with told(path):
            files = look(path)
    except BotkeepError:
        if not path.exists() and not path.is_symlink():
            return {}
        raise
    found = {"dev": files.stat.st_dev, "ino": files.stat.st_ino, "size": files.stat.st_size}
    try:
        with reading(path) as database:
            shape = recognise(database.tables(), options)
            settled = _settled(database, shape)
            return found | {"table": shape.table, "columns": _columns_hash(database, shape), **settled}
    except LockedError:
        with told(path):
            raise
    except (BrokenError, DriftError, NoTradesError):
        return found | {"broken": True}


def _columns_hash(database: Database, shape: Shape) -> str:
    columns = database.tables()[shape.table].columns
    return hashlib.sha256(repr(columns).encode()).hexdigest()[:16]


def _settled(database: Database, shape: Shape) -> dict[str, Any]:
    """How many settled rows there are, the last of them, and what lasts in it."""
    where = shape.settled if shape.settled != "0" else "1"
    ask = f"SELECT count(*), max(rowid) FROM {quoted(shape.table)} WHERE {where}"  # noqa: S608  # ours
    count, top = database.ask(ask)[0]
    last = next(rows(database, shape.table, shape.lasting, after=int(top) - 1), None) if top is not None else None
    digest = hashlib.sha256(_hashable(*last)).hexdigest()[:16] if last and shape.settled != "0" else ""
    return {"rows": int(count), "top": int(top or 0), "last": digest}


def stands(path: Path, known: Mapping[str, Any], options: FormatOptions) -> bool:
    """A format's `stands`: the same file, with at least the rows that it had, the last of them as it was."""
    try:
        now = evidence(path, options)
    except BotkeepError:
        return False
    if not known or not now:
        return not known and not now
    same = all(now.get(name) == known.get(name) for name in ("dev", "ino", "table", "columns", "broken"))
    return same and ("broken" in known or _has(path, known, now, options))


def _has(path: Path, known: Mapping[str, Any], now: Mapping[str, Any], options: FormatOptions) -> bool:
    try:
        if now["rows"] < int(known["rows"]) or now["top"] < int(known["top"]):
            return False
        with reading(path) as database:
            shape = recognise(database.tables(), options)
            found = next(rows(database, shape.table, shape.lasting, after=int(known["top"]) - 1), None)
    except (KeyError, TypeError, ValueError, OSError, LockedError, BrokenError, DriftError, NoTradesError):
        return False
    return not known["last"] or (
        found is not None and hashlib.sha256(_hashable(*found)).hexdigest()[:16] == known["last"]
    )
