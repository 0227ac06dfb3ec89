"""Parquet, read only: a flat table of trades that the bot writes anew, or closes when it is full. Needs `[parquet]`.

A Parquet file cannot be added to: its footer, which says where everything is, is written last. So while its writer has
it open it has none, and each look at a changed file reads all of it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..model import BotkeepError, ClosedTrade, Fill, Finding, Inspection
from ..untrusted import clean
from . import copying, parquet_inspect, parquet_rebuild
from .base import Appended, FormatOptions, Rebuilt, SnapshotCut, TradeTable
from .columns import Trades
from .files import Source, UnreadableError, facts_of, regular
from .parquet_table import Rows, Table, content, joined, shown
from .records import StrangeError

KIND = "parquet"

TRIES = 5
PARTS = 64
"""Pieces of a table that are hashed one by one, so that it can be said later where something changed."""
MARK_NAMES = 3000
"""Characters of column names in a mark; columns behind them are not compared."""
MOST_SKIPPED = 100_000
"""Rows of one unreadable row group that are counted one by one: a footer can claim any number."""
_START = datetime(1970, 1, 1, tzinfo=UTC)


def inspect(
    path: Path, *, options: FormatOptions, cursor: dict[str, Any] | None, writing: bool, now: datetime
) -> Inspection:
    """Whether the file is whole and its rows are sound. Never raises for what is in a file or in its way."""
    return parquet_inspect.inspect(path, options=options, cursor=cursor, writing=writing, now=now)


# --- trades ------------------------------------------------------------------------------------------------------


def trades(path: Path, *, options: FormatOptions) -> TradeTable:
    """Every row of the row groups that can be read, exact. Raises BotkeepError: no such file, or no trades in it."""
    try:
        with regular(path) as source:
            return _trades(Table(source, options), path.name)
    except FileNotFoundError as error:
        raise BotkeepError(f"There is no data file {path}: no trades can be read.") from error
    except UnreadableError as error:
        raise BotkeepError(f"{path} cannot be read: {error}.") from error
    except StrangeError as error:
        raise BotkeepError(f"{path.name} holds no trades: {error}") from error
    except OSError as error:
        raise BotkeepError(f"{path} cannot be read: {error.strerror or error}.") from error


def _trades(table: Table, name: str) -> TradeTable:
    found = Trades(table.names, table.roles, table.options, name)
    for rows in table.readable():
        if isinstance(rows, Rows):
            _add(found, table, rows)
        else:
            first, count, why = rows
            for row in range(first, first + min(count, MOST_SKIPPED)):
                found.skip(row, str(why).rstrip("."))
    return found.table()


def _add(found: Trades, table: Table, rows: Rows) -> None:
    times = table.times(rows).to_pylist()
    for (row, cells), at in zip(table.cells(rows), times, strict=True):
        found.add(row, cells, None if at is None else at / 1_000_000)


# --- copies ------------------------------------------------------------------------------------------------------


def snapshot(path: Path, target: Path, *, options: FormatOptions) -> SnapshotCut:
    """Copy a closed file to `target`, fsynced. Raises BotkeepError, also for one whose writer has it open."""
    why = ""
    try:
        for tried in range(TRIES):
            time.sleep(tried * 0.05)
            try:
                with regular(path) as source:
                    seen = source.stat
                    sha256 = _copied(source, target)
                    source.refresh()
                    if (source.size, source.stat.st_mtime_ns) == (seen.st_size, seen.st_mtime_ns):
                        return _cut(target, sha256, seen, options)
                    why = "it is written over all the time"
            except StrangeError as strange:
                why = str(strange).rstrip(".")
    except FileNotFoundError as error:
        raise BotkeepError(f"There is no file {path}, so there is nothing to copy.") from error
    except UnreadableError as error:
        raise BotkeepError(f"{path} cannot be copied: {error}.") from error
    except OSError as error:
        raise BotkeepError(f"{path} cannot be copied to {target.parent}: {error.strerror or error}.") from error
    raise BotkeepError(f"{path} cannot be copied: {why}. Ask again when its writer has closed it.")


def _copied(source: Source, target: Path) -> str:
    running = hashlib.sha256()
    with target.open("wb") as file:
        for data in source.chunks(0, source.size):
            file.write(data)
            running.update(data)
        file.flush()
        os.fsync(file.fileno())
    return running.hexdigest()


def _cut(target: Path, sha256: str, seen: os.stat_result, options: FormatOptions) -> SnapshotCut:
    facts = facts_of(seen)
    with regular(target) as copy:
        table = Table(copy, options)
        return SnapshotCut(copy.size, sha256, facts, _first_time(table), _mark(table, copy.size, sha256))


def _first_time(table: Table) -> datetime | None:
    if "time" not in table.roles:
        return None
    for rows in table.readable():
        known = table.times(rows).drop_null() if isinstance(rows, Rows) else None
        if known:
            return _START + timedelta(microseconds=int(known[0].as_py()))
    return None


def rebuild(good: Path | None, damaged: Path, target: Path, *, options: FormatOptions) -> Rebuilt:
    """Write `target` from a good copy and what can be read of `damaged`, fsynced. Raises BotkeepError."""
    return parquet_rebuild.rebuild(good, damaged, target, options=options)


def append(path: Path, trades: Sequence[Fill | ClosedTrade], *, options: FormatOptions) -> Appended:
    """Adds nothing: botkeep only reads Parquet. Every trade is left out, and said so. Raises BotkeepError."""
    try:
        with regular(path) as source:
            rows, sha256, size = Table(source, options).rows, source.digest(0, source.size), source.size
    except (StrangeError, OSError) as error:
        raise BotkeepError(f"{path.name} cannot be read: {error}") from error
    return Appended(rows, tuple(f"{_named(trade)}: botkeep only reads Parquet" for trade in trades), size, sha256)


def _named(trade: Fill | ClosedTrade) -> str:
    what = f"{trade.side} of {trade.symbol}" if isinstance(trade, Fill) else f"trade in {trade.symbol}"
    name = f" ({trade.id})" if trade.id else ""
    return clean(f"{what} at {trade.at:%Y-%m-%d %H:%M:%SZ}{name}", 120)


def companions(path: Path) -> tuple[Path, ...]:  # noqa: ARG001  # a Parquet file has none
    """None: a Parquet file stands alone."""
    return ()


def settle(path: Path) -> None:
    """Nothing to do: a Parquet file stands alone."""


# --- marks -------------------------------------------------------------------------------------------------------


def _mark(table: Table, size: int, sha256: str) -> dict[str, Any]:
    """What the table holds, by hashes of its rows: equal ones may be packed otherwise. Of a damaged one, the file's."""
    names = _marked(table.names)
    step = max(1, -(-table.rows // PARTS))
    mark: dict[str, Any] = {"size": size, "sha256": sha256}
    try:
        parts = list(_parts(table, names, step, table.rows))
    except StrangeError:
        return mark
    return {**mark, "rows": table.rows, "names": list(names), "step": step, "parts": parts}


def _marked(names: Sequence[str]) -> tuple[str, ...]:
    spent, found = 0, []
    for name in names:
        spent += len(name) + 4
        if spent > MARK_NAMES:
            break
        found.append(name)
    return tuple(found)


def _parts(table: Table, names: Sequence[str], step: int, stop: int) -> Iterator[str]:
    """A short hash of each `step` of the first `stop` rows. Raises StrangeError P2."""
    running, held = hashlib.sha256(), 0
    for rows in table.all():
        texts = joined(rows.batch, names).slice(0, max(0, stop - rows.first + 1))
        while len(texts):
            taken = texts.slice(0, step - held)
            running.update(content(taken))
            held, texts = held + len(taken), texts.slice(len(taken))
            if held == step:
                yield running.hexdigest()[:16]
                running, held = hashlib.sha256(), 0
    if held:
        yield running.hexdigest()[:16]


def compare(copy: Path, last: Mapping[str, Any], *, options: FormatOptions) -> tuple[Finding, ...]:
    """What of an earlier snapshot is lost (C10) or changed (C13) in this copy. Raises BotkeepError."""
    try:
        with regular(copy) as source:
            size = int(last["size"])
            if source.size == size and source.digest(0, size) == last["sha256"]:
                return ()
            return tuple(_differences(Table(source, options), last, options))
    except FileNotFoundError as error:
        raise BotkeepError(f"There is no file {copy}: it cannot be compared with the last backup.") from error
    except StrangeError as strange:
        return (Finding("C11" if strange.rule == "kind" else strange.rule, str(strange), True),)
    except OSError as error:
        raise BotkeepError(f"{copy} cannot be compared with the last backup: {error}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BotkeepError(f"The mark of the last backup cannot be read ({error!r}): back up anew.") from error


def _differences(table: Table, last: Mapping[str, Any], options: FormatOptions) -> Iterator[Finding]:
    before, step = int(last["rows"]), int(last["step"])
    names, parts = [str(name) for name in last["names"]], list(last["parts"])
    gone = [name for name in names if name not in table.names]
    if gone:
        yield Finding("C10", f"Its columns {shown(gone)} are gone; the last backup has them.", True)
    elif table.rows < before:
        yield Finding("C10", f"It has {table.rows} rows; the last backup has {before}.", True)
    elif options.mode != "rewrite":
        now = _parts(table, names, step, before)
        wrong = [place for place, (old, new) in enumerate(zip(parts, now, strict=True)) if old != new]
        if wrong:
            first, after = wrong[0] * step + 1, min((wrong[-1] + 1) * step, before)
            text = f"Something in rows {first} to {after}, which were backed up, is not as it was."
            yield Finding("C13", text, True, first)


# --- what a plan is bound to -------------------------------------------------------------------------------------


def evidence(path: Path) -> dict[str, Any]:
    """What a restore plan is bound to: the bytes, and where they can be read the rows. Raises BotkeepError."""
    found = copying.evidence(path)
    if not found:
        return found
    try:
        with regular(path) as source:
            mark = _mark(Table(source, FormatOptions()), source.size, str(found.get("sha256", "")))
    except (StrangeError, BotkeepError, OSError):
        return found
    return {**found, "mark": mark} if "parts" in mark else found


def stands(path: Path, evidence: Mapping[str, Any]) -> bool:
    """Whether the file is still the one of that evidence, or one with the same rows and more behind them."""
    if copying.stands(path, evidence):
        return True
    mark = evidence.get("mark", {})
    try:
        return bool(mark) and path.exists() and not compare(path, mark, options=FormatOptions())
    except BotkeepError:
        return False
