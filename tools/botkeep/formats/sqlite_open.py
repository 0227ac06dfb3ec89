"""Opening a SQLite database to read it, without ever taking a lock that could make its bot's own write fail for long.

A database that somebody may have open is read where it is, `mode=ro`: committed rows of the -wal are seen, nothing is
checkpointed. `immutable=1` is never used: it loses the -wal, and reads the garbage of a transaction that was cut off.
What cannot be read in place (a hot journal, a folder that we may not write to), or would be left with new companions
(write-ahead mode, nobody has it open), is copied with its companions, and SQLite recovers the copy.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..model import BotkeepError
from ..untrusted import clean
from .files import UnreadableError
from .sqlite_files import LOCK, Files, lock_holders, look, no_database, private_copy, restat, shown

COPY_LIMIT = 256 << 20
"""Bytes of a closed database that is copied to be looked at; a larger one is opened where it is."""
WAIT = 1.0
"""Seconds to wait for a lock. Who waits for a bot's transaction to end holds nothing that the bot needs."""
BREATH = 0.005
"""Seconds. Who waits to write keeps new readers out, so he is next, however short this is."""
BREATHS = 5
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NOT_HERE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
LONGEST = 16 << 20
"""Bytes of a value that is believed."""


class LockedError(Exception):
    """Somebody holds the database just now: no damage."""


class BrokenError(Exception):
    """It is no sound database. The text is a sentence."""

    def __init__(self, text: str, rule: str = "Q1") -> None:
        super().__init__(text)
        self.rule = rule


class TooLongError(Exception):
    """The time that a question was given is over."""


class DriftError(Exception):
    """It is a known program's database, and what is needed of it is not there: another version. A sentence."""


class NoTradesError(Exception):
    """No table of trades is in it. A sentence."""


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Whatever stands in the way of reading a database, as a BotkeepError that stands alone."""
    try:
        yield
    except FileNotFoundError as error:
        raise BotkeepError(f"There is no file {path}, so nothing can be read or copied.") from error
    except LockedError as error:
        holders = lock_holders(path)
        by = f" by {shown(holders)}" if holders else ""
        raise BotkeepError(f"{path} is locked{by}: ask again once that transaction has ended.") from error
    except (BrokenError, DriftError, NoTradesError) as error:
        raise BotkeepError(f"{path.name} cannot be read as a database of trades. {error}") from error
    except TooLongError as error:
        raise BotkeepError(f"{path} could not be read in the time that there is for it.") from error
    except UnreadableError as error:
        raise BotkeepError(f"{path} cannot be read: {error}.") from error
    except OSError as error:
        raise BotkeepError(f"{path} cannot be read or copied: {error.strerror or error}.") from error


@dataclass(frozen=True)
class Table:
    """One table: its columns in order."""

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    """As declared, upper case."""
    needed: tuple[bool, ...]
    """NOT NULL without a default."""
    key: tuple[str, ...]
    """The primary key."""
    by_rowid: bool
    """Rows have a rowid."""


class Database:
    """An open connection, with the time that all questions together may take."""

    def __init__(
        self, connection: sqlite3.Connection, files: Files, *, hot: bool = False, shared: bool = False
    ) -> None:
        self.connection, self.files = connection, files
        self.hot = hot
        """A transaction was cut off; this is a copy in which it was rolled back."""
        self.in_the_way = shared and not (files.head and files.head.wal)
        """Whoever wants to write has to wait until we have read: there is no write-ahead log."""

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Questions inside raise TooLongError once the time is over."""
        end = time.monotonic() + seconds
        self.connection.set_progress_handler(lambda: time.monotonic() > end, 20_000)
        try:
            yield
        finally:
            self.connection.set_progress_handler(None, 0)

    def ask(self, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of an answer. Raises LockedError, BrokenError, TooLongError, UnreadableError."""
        with translated():
            return self.connection.execute(text, values).fetchall()

    def rows(self, text: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The same one by one."""
        with translated():
            yield from self.connection.execute(text, values)

    def breathe(self) -> None:
        """Let go for a moment, so that a bot without a write-ahead log can write; then read on. Raises LockedError."""
        with translated():
            self.connection.execute("COMMIT")
        for tried in range(BREATHS):
            time.sleep(BREATH)
            try:
                with translated():
                    _begin(self.connection)
            except LockedError:
                if tried == BREATHS - 1:
                    raise
                self.connection.rollback()
            else:
                return

    def tables(self) -> dict[str, Table]:
        """The tables that hold rows: no views, no virtual tables, none of SQLite's own."""
        named = self.ask("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 ORDER BY rootpage")
        return {name: self._table(name) for (name,) in named[:500] if _is_ours(name)}

    def _table(self, name: str) -> Table:
        seen = self.ask(f"PRAGMA table_info({quoted(name)})")
        key = sorted((place, column) for _, column, _, _, _, place in seen if place)
        return Table(
            name=name,
            columns=tuple(row[1] for row in seen),
            types=tuple(str(row[2]).upper() for row in seen),
            needed=tuple(bool(row[3]) and row[4] is None for row in seen),
            key=tuple(column for _, column in key),
            by_rowid=self._has_rowid(name),
        )

    def _has_rowid(self, name: str) -> bool:
        listed = self.ask(f"PRAGMA table_list({quoted(name)})")
        return not any(row[4] for row in listed)


def _is_ours(name: Any) -> bool:
    return isinstance(name, str) and not name.startswith("sqlite_")


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise meaning(error) from error


def meaning(error: sqlite3.Error) -> Exception:
    """What an error of SQLite says about the file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    said = clean(str(error), 200)
    if code in _BUSY:
        return LockedError(said)
    if code in _BROKEN:
        return BrokenError(f"SQLite says: {said}.")
    if code == sqlite3.SQLITE_INTERRUPT:
        return TooLongError(said)
    return UnreadableError(said)


def connect(path: Path, mode: str, wait: float = WAIT) -> sqlite3.Connection:
    """A connection that trusts nothing in the file. `mode`: ro, rw, or rwc. Raises sqlite3.Error."""
    made = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}",
        uri=True,
        timeout=wait,
        isolation_level=None,
        check_same_thread=False,
    )
    made.text_factory = _text
    made.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    made.execute("PRAGMA trusted_schema = OFF")
    made.execute("PRAGMA cell_size_check = ON")
    return made


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


@contextmanager
def reading(path: Path, folder: Path | None = None) -> Iterator[Database]:
    """The database at one moment: everything asked inside is about the same content.

    `folder`: where a private copy may be made. Raises FileNotFoundError, UnreadableError, LockedError, BrokenError.
    """
    with LOCK:
        files = look(path)
        if files.head is None:
            raise (
                BrokenError(*reversed(no_database(files))) if files.stat.st_size else BrokenError("It is empty.", "Q5")
            )
        if files.unattended and files.size <= COPY_LIMIT:
            opened = _copied(files, folder, hot=False)
        else:
            opened = _in_place(files, folder)
        with opened as database:
            yield database


@contextmanager
def _in_place(files: Files, folder: Path | None) -> Iterator[Database]:
    hot = False
    with translated(), closing(connect(files.path, "ro")) as connection:
        try:
            _begin(connection)
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF not in _NOT_HERE:
                raise
            hot = error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK
        else:
            yield Database(connection, restat(files), shared=True)
            return
    with _copied(files, folder, hot=hot) as database:
        yield database


@contextmanager
def _copied(files: Files, folder: Path | None, *, hot: bool) -> Iterator[Database]:
    if folder is None and files.size > 4 * COPY_LIMIT:
        raise UnreadableError(f"it has to be recovered, and its {files.size} bytes are too many to copy for a look")
    with private_copy(files.path, folder) as copy, translated(), closing(connect(copy, "rw")) as connection:
        _begin(connection)
        yield Database(connection, files, hot=hot)


def _begin(connection: sqlite3.Connection) -> None:
    """A transaction that reads: from here on all answers are about one version."""
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
