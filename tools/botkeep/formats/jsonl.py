"""JSON lines: one object a line, appended to or rewritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..model import ClosedTrade, Fill, Finding, Inspection
from . import copying, inspecting, jsontrades
from .base import Appended, FormatOptions, Rebuilt, SnapshotCut, TradeTable
from .jsonlines import Kind

KIND = "jsonl"

_KIND = Kind()
_SPLITTING = Kind(split=True)


def inspect(
    path: Path, *, options: FormatOptions, cursor: dict[str, Any] | None, writing: bool, now: datetime
) -> Inspection:
    """What is new in the file, and whether it is sound. Never raises for what is in a file or in its way."""
    return inspecting.inspect(_KIND, path, options=options, cursor=cursor, writing=writing, now=now)


def trades(path: Path, *, options: FormatOptions) -> TradeTable:
    """Every record that can be read, exact. Raises BotkeepError: no such file, or its members do not make trades."""
    return jsontrades.trades(_SPLITTING, path, options)


def snapshot(path: Path, target: Path, *, options: FormatOptions) -> SnapshotCut:
    """Copy `path` as it is now to `target`, cut at its last whole line, fsynced. Raises BotkeepError."""
    return copying.snapshot(_KIND, path, target, options=options)


def rebuild(good: Path | None, damaged: Path, target: Path, *, options: FormatOptions) -> Rebuilt:
    """Write `target` from a good copy and the sound records of `damaged`, fsynced. Raises BotkeepError."""
    return copying.rebuild(_SPLITTING, good, damaged, target, options=options)


def append(path: Path, trades: Sequence[Fill | ClosedTrade], *, options: FormatOptions) -> Appended:
    """Add trades to a file that nobody else uses, written as its records are, fsynced. Raises BotkeepError."""
    return copying.append(_KIND, path, trades, options=options)


def compare(copy: Path, last: Mapping[str, Any], *, options: FormatOptions) -> tuple[Finding, ...]:
    """What of an earlier snapshot is lost (C10) or changed (C13) in this copy. Raises BotkeepError."""
    return copying.compare(_KIND, copy, last, options=options)


def companions(path: Path) -> tuple[Path, ...]:  # noqa: ARG001  # a text file has none
    """None: a text file stands alone."""
    return ()


def settle(path: Path) -> None:
    """Nothing to do: a text file stands alone."""


def evidence(path: Path) -> dict[str, Any]:
    """What a restore plan is bound to. Raises BotkeepError for what is no file."""
    return copying.evidence(path)


def stands(path: Path, evidence: Mapping[str, Any]) -> bool:
    """Whether the file is still the one of that evidence, or has only records added since."""
    return copying.stands(path, evidence)
