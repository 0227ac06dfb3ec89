"""Building a restored file: from a backup, from what is sound in the damaged one, and from trades read again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from . import backups
from .backups import Snapshot, Store
from .datafile import DataFile
from .formats.base import Rebuilt, TradeTable, inspect_whole
from .model import BotkeepError, DataVerdict, Ended
from .plans import Counts, Money
from .reconcile import Missing
from .stillopen import unclosed


@dataclass(frozen=True)
class Built:
    """A new file, tried out."""

    path: Path
    rebuilt: Rebuilt
    missing: Missing
    added: int
    left_out: tuple[str, ...]
    sha256: str
    table: TradeTable | None
    closed: int = 0
    """Rows that were open in the backup and that the log closed: no new ones."""

    @property
    def counts(self) -> Counts:
        """Where its rows are from. What is sound in both files is kept; the rest of the backup's rows are restored."""
        made = self.rebuilt
        kept = max(0, min(made.kept, made.damaged_good - made.salvaged - made.dropped_sound))
        return Counts(
            rows=made.rows + self.added,
            kept=kept,
            restored=made.kept - kept,
            salvaged=made.salvaged,
            replayed=self.added,
            dropped=made.dropped - made.dropped_sound,
            closed=self.closed,
            contradicting=made.dropped_sound,
        )

    @property
    def still_open(self) -> tuple[Ended, ...]:
        """Trades that it has as open, and that the log shows closed: a bot that goes on with it closes them again."""
        return unclosed(self.table, self.missing.ended)


def add(file: DataFile, target: Path, rebuilt: Rebuilt, missing: Missing, table: TradeTable | None) -> Built:
    """Add the missing trades to a file that was just built. Raises BotkeepError."""
    if not missing.trades:
        return Built(target, rebuilt, missing, 0, (), rebuilt.sha256, table)
    added = file.kind.append(target, missing.trades, options=file.options)
    count = len(missing.trades) - len(added.left_out) - added.closed
    table = file.table(target)
    return Built(target, rebuilt, missing, count, added.left_out, added.sha256, table, added.closed)


def bad_rows(rebuilt: Rebuilt) -> int:
    """Damaged rows; sound ones that are left out for another reason are no damage."""
    return rebuilt.dropped - rebuilt.dropped_sound


def fetched(store: Store | None, good: Snapshot | None, scratch: Path) -> Path | None:
    """The snapshot's content in the scratch folder; None without one. Raises StoreError."""
    if good is None or store is None:
        return None
    backups.fetch(store, good, scratch / "good")
    return scratch / "good"


@contextmanager
def scratch_of(store: Store) -> Iterator[Path]:
    """A temporary folder of the store."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="restore-", dir=store.scratch()))
    except OSError as error:
        raise BotkeepError(f"There is no room for a trial restore: {error.strerror}.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_sound(file: DataFile, built: Path, rows: int, now: datetime) -> None:
    """Raises BotkeepError if the built file is not sound, or has not so many rows."""
    seen = inspect_whole(file.kind, built, options=file.options, now=now)
    if seen.verdict is not DataVerdict.OK or seen.rows != rows:
        why = seen.findings[0].text if seen.findings else f"It has {seen.rows} rows, not {rows}."
        raise BotkeepError(
            f"{file.path} cannot be restored: what could be put in its place is not sound either. {why} Nothing was "
            f"changed. A person has to look at the file."
        )


def money_text(before: Money | None, after: Money | None) -> str:
    """What the restore does to the realised P&L, for people."""
    if after is None:
        return ""
    now = {name: f"{amount:f}" for name, amount in before or ()}
    parts = [f"{now.get(name, 'unknown')} before, {amount:f} {name} after" for name, amount in after]
    return f" Realised P&L of the readable rows: {'; '.join(parts)}."
