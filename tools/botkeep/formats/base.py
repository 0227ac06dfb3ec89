"""What every data format gives. Adding one: a module with these names, one line in `FORMATS`, one contract factory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from ..model import ClosedTrade, Fill, Finding, Inspection, OpenTrade


@dataclass(frozen=True)
class FormatOptions:
    """What the configuration says about a data file; everything else is recognised from the file itself."""

    delimiter: str | None = None
    header: bool | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """Role -> column: its name in the header, or its number counted from 1."""
    timezone: str = "UTC"
    """Zone of times that name none."""
    mode: str = "append"
    """append: rows are only added. rewrite: the bot also edits rows that it wrote before."""
    quote: str = ""
    """Currency of the amounts where neither symbol nor column says it."""
    table: str = ""
    """Of a database: the table with the trades. Empty: recognised."""
    scale: Mapping[str, int] = field(default_factory=dict)
    """Role -> what its integers are to be divided by (1000000: they count millionths)."""


@dataclass(frozen=True)
class TradeTable:
    """The trades of a data file: every execution (fills), or closed trades with the result the bot wrote itself."""

    kind: Literal["fills", "closed"]
    fills: tuple[Fill, ...] = ()
    closed: tuple[ClosedTrade, ...] = ()
    open: tuple[OpenTrade, ...] = ()
    """What the bot itself counts as open, where its file says so."""
    skipped: int = 0
    """Rows that could not be read; why is in the notes."""
    notes: tuple[str, ...] = ()
    knows_open: bool = True
    """Whether it would say so if something were open: a plain list of closed trades does not."""


@dataclass(frozen=True)
class SnapshotCut:
    """A point-in-time copy that was made: whole records only."""

    size: int
    sha256: str
    source: Mapping[str, int]
    """dev, ino, size, mtime_ns, mode, uid and gid of the file when it was read."""
    first_at: datetime | None = None
    mark: Mapping[str, Any] = field(default_factory=dict)
    """What `compare` needs to know later of this copy; plain JSON, at most a few kilobytes."""

    @property
    def cut(self) -> int:
        """Bytes at the end of the source that were no whole record yet."""
        return self.source["size"] - self.size


@dataclass(frozen=True)
class Rebuilt:
    """A file that was built from a good copy and the good rows of a damaged one."""

    rows: int
    kept: int
    """Rows from the good copy."""
    salvaged: int
    """Rows of the damaged file that the good copy has not, or (mode rewrite) has in an older version."""
    replaced: int
    """Of the salvaged ones: newer versions of rows of the good copy."""
    dropped: int
    """Rows and remains in the damaged file that could not be used."""
    dropped_sound: int
    """Of them, sound rows that are neither in the good copy nor newer."""
    dropped_rows: tuple[Finding, ...]
    """The first of them."""
    damaged_good: int
    """Sound rows in the damaged file."""
    size: int
    sha256: str


@dataclass(frozen=True)
class Appended:
    """What was added to a rebuilt file."""

    rows: int
    """Of the whole file, as it is now."""
    left_out: tuple[str, ...]
    """Why trades could not be added, a phrase each."""
    size: int
    sha256: str
    closed: int = 0
    """Of the trades, those whose rows were in it as open and are closed now: they made no new row."""


class Format(Protocol):
    """One kind of data file. No function but `append` and `settle` changes the file it is given; none hangs on what is
    no regular file.
    """

    KIND: str
    ENDINGS: tuple[str, ...]
    """File name endings, without the dot, that mean this kind."""

    def inspect(
        self, path: Path, *, options: FormatOptions, cursor: dict[str, Any] | None, writing: bool, now: datetime
    ) -> Inspection:
        """Look from the cursor on. `writing`: a live instance exists or some process can write to the file."""
        ...

    def trades(self, path: Path, *, options: FormatOptions) -> TradeTable:
        """Every row that can be read, oldest first as in the file. Raises BotkeepError if none ever could be."""
        ...

    def snapshot(self, path: Path, target: Path, *, options: FormatOptions) -> SnapshotCut:
        """Copy to `target`, cut at the last whole record, fsynced. Raises BotkeepError."""
        ...

    def rebuild(self, good: Path | None, damaged: Path, target: Path, *, options: FormatOptions) -> Rebuilt:
        """Write `target`: the rows of `good` and the good rows of `damaged`, fsynced. Raises BotkeepError."""
        ...

    def append(self, path: Path, trades: Sequence[Fill | ClosedTrade], *, options: FormatOptions) -> Appended:
        """Add trades to a file that nobody else uses (one that `rebuild` made), in its own way of writing, fsynced.

        Each is put where its time belongs if the file is in order of time, else at the end. A trade that the file's
        columns cannot hold is left out and said so. Raises BotkeepError.
        """
        ...

    def compare(self, copy: Path, last: Mapping[str, Any], *, options: FormatOptions) -> tuple[Finding, ...]:
        """What of an earlier snapshot, known by its `mark`, is lost (C10, Q3) or changed (C13, Q6) in this copy.

        Empty: the copy holds all of it as it was. In mode rewrite, changed rows are none. Raises BotkeepError.
        """
        ...

    def companions(self, path: Path) -> tuple[Path, ...]:
        """Files beside it that belong to it and exist (a database's -wal, -shm, -journal)."""
        ...

    def settle(self, path: Path) -> None:
        """Make the file stand alone, its content as it was: fold the companions into it and remove them, durably.

        Nobody may be using it. Killed at any moment, the content is what it was. Raises BotkeepError.
        """
        ...

    def evidence(self, path: Path) -> dict[str, Any]:
        """What a restore plan is bound to; plain JSON. Empty for a missing file. Raises BotkeepError for no file."""
        ...

    def stands(self, path: Path, evidence: Mapping[str, Any]) -> bool:
        """Whether the file is still the one of that evidence: the same, or with rows added since."""
        ...


def more_to_read(inspection: Inspection) -> bool:
    """Whether the inspection stopped at its budget: the next one, given its cursor, goes on from there."""
    return bool(inspection.cursor.get("more"))


def inspect_whole(kind: Format, path: Path, *, options: FormatOptions, now: datetime) -> Inspection:
    """Inspect a file that nobody writes to, to its end, however many budgets that takes."""
    seen = kind.inspect(path, options=options, cursor=None, writing=False, now=now)
    while more_to_read(seen):
        seen = kind.inspect(path, options=options, cursor=seen.cursor, writing=False, now=now)
    return seen
