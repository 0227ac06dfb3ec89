"""A whole JSON document with the trades in an array or an object, which the bot writes anew for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..model import ClosedTrade, Fill, Finding, Inspection
from . import inspecting, jsoncopying, jsontrades
from .base import Appended, FormatOptions, Rebuilt, SnapshotCut, TradeTable
from .jsondoc import Kind

KIND = "json"

_KIND = Kind()
_SPLITTING = Kind(split=True)


def inspect(
    path: Path, *, options: FormatOptions, cursor: dict[str, Any] | None, writing: bool, now: datetime
) -> Inspection:
    """What is new in the file, and whether it is sound. Never raises for what is in a file or in its way."""
    seen = inspecting.inspect(_KIND, path, options=options, cursor=cursor, writing=writing, now=now)
    return replace(seen, findings=tuple(map(_of_a_document, seen.findings)))


_LINES = {
    "Not one whole line is in it": "Not one whole record is in it",
    "Its last row is not finished yet": "It is not written to its end yet",
    "Its last row is cut off": "It ends, or goes on, where no document can",
    "Its last line has": "It goes on where no document can",
}


def _of_a_document(finding: Finding) -> Finding:
    """What is said of an unfinished last line, said of a document: there may be something behind its end, too."""
    begins, colon, seen = finding.text.partition(": ")
    said = next((text for line, text in _LINES.items() if begins.startswith(line)), None)
    if said is None or not colon:
        return finding
    return replace(finding, text=f"{said}, from byte {finding.offset} on: {seen}")


def trades(path: Path, *, options: FormatOptions) -> TradeTable:
    """Every record that can be read, exact. Raises BotkeepError: no such file, or its members do not make trades."""
    return jsontrades.trades(_SPLITTING, path, options)


def snapshot(path: Path, target: Path, *, options: FormatOptions) -> SnapshotCut:
    """Copy `path` as it is now to `target`; one that is torn ends with its last whole record. Raises BotkeepError."""
    return jsoncopying.snapshot(_KIND, path, target, options)


def rebuild(good: Path | None, damaged: Path, target: Path, *, options: FormatOptions) -> Rebuilt:
    """Write `target` from a good copy and the sound records of `damaged`, fsynced. Raises BotkeepError."""
    return jsoncopying.rebuild(_SPLITTING, good, damaged, target, options)


def append(path: Path, trades: Sequence[Fill | ClosedTrade], *, options: FormatOptions) -> Appended:
    """Add trades to a file that nobody else uses, written as its records are, fsynced. Raises BotkeepError."""
    return jsoncopying.append(_KIND, path, trades, options)


def compare(copy: Path, last: Mapping[str, Any], *, options: FormatOptions) -> tuple[Finding, ...]:
    """What of an earlier snapshot is lost (C10) in this copy. Raises BotkeepError."""
    return jsoncopying.compare(_SPLITTING, copy, last, options)


def companions(path: Path) -> tuple[Path, ...]:  # noqa: ARG001  # a text file has none
    """None: a text file stands alone."""
    return ()


def settle(path: Path) -> None:
    """Nothing to do: a text file stands alone."""


def evidence(path: Path) -> dict[str, Any]:
    """What a restore plan is bound to. Raises BotkeepError for what is no file."""
    return jsoncopying.evidence(path)


def stands(path: Path, evidence: Mapping[str, Any]) -> bool:
    """Whether the file is still the one of that evidence, or has only records added since."""
    return jsoncopying.stands(path, evidence)
