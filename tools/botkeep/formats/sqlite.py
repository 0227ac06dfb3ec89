"""SQLite: the database of freqtrade, of Hummingbot, or any one with a table of trades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..model import ClosedTrade, Fill, Finding, Inspection
from . import sqlite_adding, sqlite_copying, sqlite_files, sqlite_inspecting, sqlite_process
from .base import Appended, FormatOptions, Rebuilt, SnapshotCut, TradeTable
from .sqlite_open import reading, told
from .sqlite_rows import Gaps, gently
from .sqlite_shapes import recognise

KIND = "sqlite"


def inspect(
    path: Path, *, options: FormatOptions, cursor: dict[str, Any] | None, writing: bool, now: datetime
) -> Inspection:
    """What is new in the database, and whether it is sound. Never raises for what is in a file or in its way."""
    return sqlite_inspecting.inspect(path, options=options, cursor=cursor, writing=writing, now=now)


def trades(path: Path, *, options: FormatOptions) -> TradeTable:
    """Every row that can be read, exact, in order of time. Raises BotkeepError: no database, locked, no trades."""
    with told(path), sqlite_files.LOCK:
        files = sqlite_files.look(path)
        if not files.stat.st_size:
            return TradeTable("fills", notes=("the file has no rows yet",))
        with reading(path) as database:
            shape = recognise(database.tables(), options)
            gaps = Gaps()
            found = shape.table_of(gently(database, shape.table, shape.columns, gaps=gaps))
    return _noted(found, gaps)


def _noted(found: TradeTable, gaps: Gaps) -> TradeTable:
    said = [f"{first} to {last}" if last else f"{first} on" for first, last in gaps.found[:10]]
    if not said:
        return found
    note = f"rows {' and '.join(said)} stand on damaged pages and are not counted"
    return TradeTable(
        found.kind, found.fills, found.closed, found.open, found.skipped + len(said), (*found.notes, note)
    )


def snapshot(path: Path, target: Path, *, options: FormatOptions) -> SnapshotCut:
    """Copy `path` at one moment to `target`, standing alone, fsynced. Raises BotkeepError."""
    size = _size_of(path)
    made = sqlite_process.run("snapshot", {"path": path, "target": target}, options, size)
    return SnapshotCut(
        int(made["size"]), str(made["sha256"]), dict(made["source"]), sqlite_copying.first_at(made), dict(made["mark"])
    )


def _size_of(path: Path) -> int:
    with told(path):
        return sqlite_files.look(path).size


def rebuild(good: Path | None, damaged: Path, target: Path, *, options: FormatOptions) -> Rebuilt:
    """Build `target` from a good copy and what can be read of `damaged`, fsynced. Raises BotkeepError."""
    size = sum(one.stat().st_size for one in (good, damaged) if one and one.exists())
    paths = {"good": good, "damaged": damaged, "target": target}
    made = sqlite_process.run("rebuild", paths, options, 4 * size)
    return Rebuilt(
        rows=made["kept"] + made["new"] + made["replaced"],
        kept=made["kept"],
        salvaged=made["new"] + made["replaced"],
        replaced=made["replaced"] + made["gone"],  # the newer version of what the bot took back is none
        dropped=made["dropped"],
        dropped_sound=made["dropped_sound"],
        dropped_rows=tuple(Finding(rule, text, certain, row) for rule, text, certain, row in made["listed"]),
        damaged_good=made["sound"],
        size=made["size"],
        sha256=made["sha256"],
    )


def append(path: Path, trades: Sequence[Fill | ClosedTrade], *, options: FormatOptions) -> Appended:
    """Add trades in the way in which the bot writes them, fsynced. Raises BotkeepError."""
    return sqlite_adding.append(path, trades, options)


def compare(copy: Path, last: Mapping[str, Any], *, options: FormatOptions) -> tuple[Finding, ...]:
    """What of the snapshot with the mark `last` is lost or, once settled, changed in `copy`. Raises BotkeepError."""
    return sqlite_copying.compare(copy, last, options)


def companions(path: Path) -> tuple[Path, ...]:
    """Its -wal, -shm and -journal, those that exist: without them it is another database."""
    return sqlite_files.companions(path)


def settle(path: Path) -> None:
    """Roll back or check in what the companions hold, then remove them, durably. Raises BotkeepError: in use."""
    size = path.stat().st_size if path.exists() else 0
    sqlite_process.run("settle", {"path": path}, FormatOptions(), size)


def evidence(path: Path) -> dict[str, Any]:
    """Inode, and how far the trades go. Raises BotkeepError for no file, and for one that is locked just now."""
    return sqlite_copying.evidence(path, FormatOptions())


def stands(path: Path, evidence: Mapping[str, Any]) -> bool:
    """Whether it is the same file, with at least the trades of that evidence."""
    return sqlite_copying.stands(path, evidence, FormatOptions())
