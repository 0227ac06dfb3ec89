"""Delimited text: `,`, `;` or tab, with a header or without, appended to or rewritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..model import BotkeepError, ClosedTrade, Fill, Finding, Inspection
from . import copying, delimited, inspecting
from .base import Appended, FormatOptions, Rebuilt, SnapshotCut, TradeTable
from .columns import Trades
from .files import Source, UnreadableError, regular
from .layout import comma
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
    found = Trades(layout.names, layout.roles, options, path.name, comma(layout.delimiter))
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


def append(path: Path, trades: Sequence[Fill | ClosedTrade], *, options: FormatOptions) -> Appended:
    """Add trades to a file that nobody else uses, written as its rows are, fsynced. Raises BotkeepError."""
    return copying.append(delimited, path, trades, options=options)


def compare(copy: Path, last: Mapping[str, Any], *, options: FormatOptions) -> tuple[Finding, ...]:
    """What of an earlier snapshot is lost (C10) or changed (C13) in this copy. Raises BotkeepError."""
    return copying.compare(delimited, copy, last, options=options)


def companions(path: Path) -> tuple[Path, ...]:  # noqa: ARG001  # a text file has none
    """None: a text file stands alone."""
    return ()


def settle(path: Path) -> None:
    """Nothing to do: a text file stands alone."""


def evidence(path: Path) -> dict[str, Any]:
    """What a restore plan is bound to. Raises BotkeepError for what is no file."""
    return copying.evidence(path)


def stands(path: Path, evidence: Mapping[str, Any]) -> bool:
    """Whether the file is still the one of that evidence, or has only rows added since."""
    return copying.stands(path, evidence)
