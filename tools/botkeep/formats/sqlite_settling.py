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
from .sqlite_open import LockedError, connect, told, translated

WAIT = 5.0


def settle(path: Path, options: FormatOptions) -> dict[str, Any]:  # noqa: ARG001  # as every job is called
    """Roll back, check in, remove. Killed at any moment, the content is what it was: SQLite makes the main file durable
    before it empties the log, and no companion is removed before.

    What is no database any more cannot be folded into: its companions are removed only. They are a danger to whatever
    is put in its place: a left-over -wal is played into it.
    """
    try:
        with told(path):
            database = path.exists() and look(path).head is not None
            if database:
                _fold(path)
                sync(path)
            for beside in companions(path):
                beside.unlink(missing_ok=True)
            fsync_dir(path.parent)
    except sqlite3.Error as error:
        raise BotkeepError(f"{path} cannot be made to stand alone: {error}.") from error
    return {"settled": database}


def _fold(path: Path) -> None:
    try:
        with translated(), closing(connect(path, "rw", WAIT)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # rolls a hot journal back
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except LockedError:
        busy = 1
    if busy:
        holders = lock_holders(path)
        by = f" by {shown(holders)}" if holders else ""
        raise BotkeepError(f"{path} is in use{by}. Stop whoever uses it first.")
