"""What every data format gives. Adding one: a module with these names, one line in `FORMATS`, one contract factory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from ..model import ClosedTrade, Fill, Finding, Inspection


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


@dataclass(frozen=True)
class TradeTable:
    """The trades of a data file: every execution (fills), or closed trades with the result the bot wrote itself."""

    kind: Literal["fills", "closed"]
    fills: tuple[Fill, ...] = ()
    closed: tuple[ClosedTrade, ...] = ()
    skipped: int = 0
    """Rows that could not be read; why is in the notes."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SnapshotCut:
    """A point-in-time copy that was made: whole records only."""

    size: int
    sha256: str
    source: Mapping[str, int]
    """dev, ino, size, mtime_ns, mode, uid and gid of the file when it was read."""
    first_at: datetime | None = None

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


class Format(Protocol):
    """One kind of data file. No function changes the file it is given; none hangs on what is no regular file."""

    KIND: str

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


def more_to_read(inspection: Inspection) -> bool:
    """Whether the inspection stopped at its budget: the next one, given its cursor, goes on from there."""
    return bool(inspection.cursor.get("more"))


def inspect_whole(kind: Format, path: Path, *, options: FormatOptions, now: datetime) -> Inspection:
    """Inspect a file that nobody writes to, to its end, however many budgets that takes."""
    seen = kind.inspect(path, options=options, cursor=None, writing=False, now=now)
    while more_to_read(seen):
        seen = kind.inspect(path, options=options, cursor=seen.cursor, writing=False, now=now)
    return seen


# --- who writes --------------------------------------------------------------------------------------------------


def open_writers(path: Path) -> tuple[int, ...]:
    """Processes that have the file of `path` open for writing, as far as we may see their descriptors.

    Found by (device, inode), so under any name. A program that opens its file for every row has it open only then.
    """
    try:
        wanted = path.stat()
    except OSError:
        return ()
    found = (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())
    return tuple(sorted(pid for pid in found if _writes(pid, (wanted.st_dev, wanted.st_ino))))


def _writes(pid: int, wanted: tuple[int, int]) -> bool:
    return any(_is_for_writing(pid, fd) for fd in _descriptors(pid, wanted))


def _descriptors(pid: int, wanted: tuple[int, int]) -> Iterator[str]:
    """The process's descriptors of that inode. A process that ends meanwhile has none."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            seen = os.stat(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if (seen.st_dev, seen.st_ino) == wanted:
            yield name


def _is_for_writing(pid: int, fd: str) -> bool:
    try:
        lines = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines()
    except OSError:
        return False
    flags = next((int(line.split()[1], 8) for line in lines if line.startswith("flags:")), 0)
    return flags & os.O_ACCMODE != os.O_RDONLY
