"""Trades added to a record file that was rebuilt, each where its time belongs, written as the file itself is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..model import BotkeepError, ClosedTrade, Fill
from ..untrusted import clean
from .base import Appended, FormatOptions
from .files import Source, UnreadableError, regular
from .merging import HashedWriter
from .records import Kind, Reader, StrangeError

IN_ORDER = 60.0
"""Seconds that a row may be older than one before it in a file in order of time: exchanges report in batches."""

Trade = Fill | ClosedTrade


@dataclass
class _Place:
    """Where a trade goes."""

    trade: Trade
    at: float
    offset: int
    like: bytes | None = None
    """The last row with a time before it, or the first one behind it."""


@dataclass
class _Plan:
    """Where all trades go, and how many rows there are."""

    places: list[_Place]
    end: int
    rows: int = 0
    left_out: list[str] = field(default_factory=list)


def append(kind: Kind, path: Path, trades: Sequence[Trade], *, options: FormatOptions) -> Appended:
    """A format's `append`, for record files.

    The new file is written beside, fsynced and renamed, so that the old one is whole until the new one is.
    """
    part = path.with_name(f"{path.name}.adding")
    try:
        with regular(path) as source, part.open("wb") as file:
            reader = kind.learn(source, options)
            if reader is None:
                raise BotkeepError(f"{path.name} has not one whole line: it is not clear how a trade is written in it.")
            os.fchmod(file.fileno(), source.stat.st_mode & 0o7777)
            plan = _planned(reader, source, trades)
            writer = HashedWriter(file)
            added = _written(reader, source, plan, writer)
            writer.done()
        os.replace(part, path)
        _sync(path.parent)
        return Appended(plan.rows + added, tuple(plan.left_out), writer.size, writer.sha256)
    except StrangeError as error:
        raise BotkeepError(f"No trade can be added to {path.name}: {error}") from error
    except UnreadableError as error:
        raise BotkeepError(f"{path} cannot be read: {error}.") from error
    except OSError as error:
        raise BotkeepError(f"No trade can be added to {path}: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _planned(reader: Reader, source: Source, trades: Sequence[Trade]) -> _Plan:
    """Before the first row that is later; at the end if the file is not in order of time."""
    places = [_Place(trade, trade.at.timestamp(), 0) for trade in sorted(trades, key=lambda trade: trade.at)]
    plan = _Plan(places, 0)
    waiting, newest, in_order = 0, float("-inf"), True
    like: bytes | None = None
    scan = reader.scan(source, reader.body, source.size)
    for offset, raw, at, flaw in scan:
        plan.rows += 1
        if flaw is not None or at is None:
            continue
        in_order = in_order and at >= newest - IN_ORDER
        newest = max(newest, at)
        while waiting < len(places) and places[waiting].at < at:
            places[waiting].offset, places[waiting].like = offset, like or raw
            waiting += 1
        like = raw
    if scan.tail:
        raise StrangeError("C1", "it ends within a row.")
    plan.end = source.size
    for place in places if not in_order else places[waiting:]:
        place.offset, place.like = plan.end, like
    return plan


def _written(reader: Reader, source: Source, plan: _Plan, writer: HashedWriter) -> int:
    """Write the file with the trades in their places; returns how many could be."""
    at = added = 0
    for place in plan.places:
        made = reader.encode(place.trade, place.like)
        if isinstance(made, str):
            plan.left_out.append(f"{_said(place.trade)}: {made}")
            continue
        for data in source.chunks(at, place.offset):
            writer.write(data)
        at = place.offset
        writer.write(made + b"\n")
        added += 1
    for data in source.chunks(at, plan.end):
        writer.write(data)
    return added


def _said(trade: Trade) -> str:
    """A trade as a phrase; its texts may come from an exchange or a log."""
    what = f"{trade.side} of {trade.symbol}" if isinstance(trade, Fill) else f"trade in {trade.symbol}"
    name = f" ({trade.id})" if trade.id else ""
    return clean(f"{what} at {trade.at:%Y-%m-%d %H:%M:%SZ}{name}", 120)
