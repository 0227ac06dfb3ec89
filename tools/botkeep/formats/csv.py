"""Delimited text: `,`, `;` or tab, with a header or without, appended to or rewritten."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from ..model import BotkeepError, Inspection
from . import copying, delimited, inspecting
from .base import FormatOptions, Rebuilt, SnapshotCut, TradeTable
from .columns import Trades
from .files import Source, UnreadableError, regular
from .records import StrangeError

KIND = "csv"


def inspect(
    path: Path, *, options: FormatOptions, cursor: dict[str, Any] | None, writing: bool, now: datetime
) -> Inspection:
    """What is new in the file, and whether it is sound. Never raises for what is in a file or in its way."""
    return inspecting.inspect(delimited, path, options=options, cursor=cursor, writing=writing, now=now)


def trades(path: Path, *, options: FormatOptions) -> TradeTable:
    """Every row that can be read, exact. Raises BotkeepError: no such file, or its columns do not make trades."""
    try:
        with regular(path) as source:
            return _trades(source, path, options)
    except FileNotFoundError as error:
        raise BotkeepError(f"There is no data file {path}: no trades can be read.") from error
    except UnreadableError as error:
        raise BotkeepError(f"{path} cannot be read: {error}.") from error
    except StrangeError as error:
        raise BotkeepError(f"{path.name} holds no trades: {error}") from error


def _trades(source: Source, path: Path, options: FormatOptions) -> TradeTable:
    reader = delimited.learn(source, options)
    if reader is None:
        return TradeTable("fills", notes=("the file has no rows yet",))
    layout = reader.layout
    found = Trades(layout.names, layout.roles, options, path.name, delimited.comma(layout.delimiter))
    scan = reader.scan(source, reader.body, source.size)
    for row, (_, raw, at, flaw) in enumerate(scan, start=1):
        if flaw is None or flaw.sound:
            found.add(row, reader.cells(raw), at)
        else:
            found.skip(row, flaw.text.rstrip("."))
    if scan.tail:
        found.note("the bytes behind its last line end are no whole row and are not counted")
    return found.table()


def snapshot(path: Path, target: Path, *, options: FormatOptions) -> SnapshotCut:
    """Copy `path` as it is now to `target`, cut at its last whole record, fsynced. Raises BotkeepError."""
    return copying.snapshot(delimited, path, target, options=options)


def rebuild(good: Path | None, damaged: Path, target: Path, *, options: FormatOptions) -> Rebuilt:
    """Write `target` from a good copy and the sound rows of `damaged`, fsynced. Raises BotkeepError."""
    return copying.rebuild(delimited, good, damaged, target, options=options)
