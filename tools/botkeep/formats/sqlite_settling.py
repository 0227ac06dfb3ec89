"""Making a database stand alone: what its companions hold is folded into it, then they are removed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from ..durable import fsync_dir
from ..model import BotkeepError
from .base import FormatOptions
from .sqlite_files import companions, lock_holders, look, shown, sync
from .sqlite_open import BrokenError, LockedError, connect, told, translated

WAIT = 5.0


def settle(path: Path, options: FormatOptions) -> dict[str, Any]:  # noqa: ARG001  # as every job is called
    """Roll back, check in, remove. Killed at any moment, the content is what it was: SQLite makes the main file durable
    before it empties the log, and no companion is removed before.

    What is no database any more, or is so damaged that SQLite refuses, cannot be folded into: its companions are only
    removed, durably, before anything is put in its place. They are a danger to it: a left-over -wal is played in.
    `settled` in the answer: whether they were folded in. Raises BotkeepError: in use, or the disk fails.
    """
    try:
        with told(path):
            database = path.exists() and look(path).head is not None and _folded(path)
            for beside in companions(path):
                beside.unlink(missing_ok=True)
            fsync_dir(path.parent)
    except sqlite3.Error as error:
        raise BotkeepError(f"{path} cannot be made to stand alone: {error}.") from error
    return {"settled": database}


def _folded(path: Path) -> bool:
    """False: it is too damaged for that. A disk that fails, or somebody who uses it, is no such damage."""
    try:
        _fold(path)
    except BrokenError:
        if holders := lock_holders(path):  # SQLite may find the damage before it finds that another has it open
            raise _in_use(path, holders) from None
        return False
    sync(path)
    return True


def _fold(path: Path) -> None:
    try:
        with translated(), closing(connect(path, "rw", WAIT)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # rolls a hot journal back
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except LockedError:
        busy = 1
    if busy:
        raise _in_use(path, lock_holders(path))


def _in_use(path: Path, holders: tuple[int, ...]) -> BotkeepError:
    by = f" by {shown(holders)}" if holders else ""
    return BotkeepError(f"{path} is in use{by}. Stop whoever uses it first.")
