"""The append-only table of entries: the truth for back-off, caps, uptime and reports. One SQLite file.

An entry is on the disk when `append` returns. Entries are numbered one by one, chained by SHA-256, and held by
triggers against change; `verify` names every break that somebody made past the triggers. Spans and cursors are
derived and may be rewritten.

Threads: one connection per ledger, used under one lock of the process. A connection per thread would gain nothing,
because SQLite lets only one write at a time anyway, and would leak one for every worker thread that ends.

Fork: SQLite's record of its kernel locks is copied into the child but the locks are not, so a connection that the
child opens later runs without any lock at all (seen in /proc/locks: the child held none). So every connection of the
process is closed before a fork and opened again afterwards.

Nothing in a process that uses a ledger may open() that file in another way: closing it drops SQLite's locks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from .durable import fsync_dir
from .model import Fault, LedgerError, Span, Status, iso, parse_iso

SCHEMA = "1"
GENESIS = "0" * 64
BUSY_SECONDS = 30.0
"""How long one writer waits for the others. Fifty at once need about one second on a slow disk."""
BATCH = 1000
_ID = re.compile(r"\Ae([1-9]\d{0,17})\Z")

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, bot TEXT, action TEXT NOT NULL,
    actor TEXT NOT NULL, ref TEXT, result TEXT NOT NULL, sentence TEXT NOT NULL, data TEXT NOT NULL,
    prev TEXT NOT NULL, hash TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS entries_of_bot ON entries (bot);
CREATE INDEX IF NOT EXISTS entries_of_bot_by_time ON entries (bot, at);
CREATE INDEX IF NOT EXISTS entries_by_time ON entries (at);
CREATE INDEX IF NOT EXISTS entries_by_ref ON entries (ref) WHERE ref IS NOT NULL;
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT raise(ABORT, 'entries are never changed'); END;
CREATE TRIGGER IF NOT EXISTS entries_remain BEFORE DELETE ON entries
    BEGIN SELECT raise(ABORT, 'entries are never removed'); END;
CREATE TRIGGER IF NOT EXISTS entries_follow BEFORE INSERT ON entries
    WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM entries)
    BEGIN SELECT raise(ABORT, 'entries are numbered one by one'); END;
CREATE TABLE IF NOT EXISTS open_intents (seq INTEGER PRIMARY KEY, bot TEXT);
CREATE TRIGGER IF NOT EXISTS intents_open AFTER INSERT ON entries WHEN NEW.kind = 'intent'
    BEGIN INSERT INTO open_intents VALUES (NEW.seq, NEW.bot); END;
CREATE TRIGGER IF NOT EXISTS outcomes_close AFTER INSERT ON entries WHEN NEW.kind = 'outcome' AND NEW.ref IS NOT NULL
    BEGIN DELETE FROM open_intents WHERE seq = CAST(substr(NEW.ref, 2) AS INTEGER); END;
CREATE TABLE IF NOT EXISTS spans (
    id INTEGER PRIMARY KEY, bot TEXT NOT NULL, status TEXT NOT NULL, fault TEXT, up INTEGER, instance TEXT,
    first TEXT NOT NULL, last TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS spans_of_bot ON spans (bot);
CREATE TABLE IF NOT EXISTS cursors (bot TEXT, name TEXT, value TEXT NOT NULL, PRIMARY KEY (bot, name)) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('schema', '1');
COMMIT;
"""


class Kind(StrEnum):
    """What an entry records."""

    INTENT = "intent"
    OUTCOME = "outcome"
    NOTE = "note"
    ALERT = "alert"
    ASK = "ask"
    APPROVAL = "approval"


@dataclass(frozen=True)
class Entry:
    """One entry. `ref` is the id of the entry it answers; `data` is JSON; `prev` and `hash` are the chain."""

    seq: int
    id: str
    at: datetime
    kind: Kind
    bot: str | None
    action: str
    actor: str
    ref: str | None
    result: str
    sentence: str
    data: dict[str, Any]
    prev: str
    hash: str


@dataclass(frozen=True)
class Seen:
    """One look at one bot, for the spans. It extends the newest span if that ended at most `max_gap` before."""

    bot: str
    status: Status
    fault: Fault | None
    up: bool | None
    instance: str | None
    at: datetime
    max_gap: timedelta


@dataclass(frozen=True)
class Memory:
    """What one look at one bot leaves for the next: cursors, all of them or none."""

    bot: str
    found: Mapping[str, str | None]
    """By name, as JSON, what it rests on, as that was when the look began; None for what was not there."""
    left: Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Told:
    """What is known of one bot: its newest entries and spans, and what it is wanted to be, as `Ledger.last_wish`."""

    entries: list[Entry]
    spans: list[Span]
    wish: Entry | None


LATE = timedelta(minutes=1)
"""A look that is older than the newest one by no more than this was written down after it: starts go first, and others
look meanwhile. By more, the clock was set back."""
Within = Callable[[sqlite3.Connection, Entry], None]
"""What is written in the transaction of a new entry."""
_GATE = threading.RLock()
"""One for all ledgers of the process: a fork has to stop them all, and in no order could two forks then block."""
_LEDGERS: weakref.WeakSet[Ledger] = weakref.WeakSet()


def _before_fork() -> None:
    _GATE.acquire()
    for ledger in _LEDGERS:
        ledger.close()


os.register_at_fork(before=_before_fork, after_in_parent=_GATE.release, after_in_child=_GATE.release)


class Ledger:
    """The ledger at `path`. Opened at the first use, and made if it is not there (its folder must be).

    Every method raises LedgerError when the ledger cannot be read or written. Safe for threads and over a fork.
    """

    def __init__(self, path: Path) -> None:
        self._db: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self.path = path
        with _GATE:
            _LEDGERS.add(self)

    def __del__(self) -> None:
        """A dropped connection lives on in a reference cycle, where the next fork would not find it."""
        self.close()

    def append(
        self,
        kind: Kind,
        *,
        at: datetime,
        bot: str | None,
        action: str,
        actor: str,
        sentence: str,
        ref: str | None = None,
        result: str = "",
        data: dict[str, Any] | None = None,
        within: Within | None = None,
    ) -> Entry:
        """Add one entry; it is on the disk when this returns. What JSON does not know in `data` becomes text.

        `within`: what is written in the same transaction, with the new entry; both are there afterwards, or neither.
        """
        texts = tuple(_storable(text) for text in (bot, action, actor, ref, result, sentence))
        stored = json.dumps(data or {}, default=str, sort_keys=True)
        with self.writing() as db:
            seq, prev = _head(db)
            fields = (seq + 1, iso(at), str(kind), *texts, stored, prev)
            row = (*fields, _hash(fields))
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            entry = _entry(row)
            if within is not None:
                within(db, entry)
        return entry

    def entries(
        self,
        *,
        bot: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        kinds: Iterable[Kind] | None = None,
        action: str | None = None,
        after_seq: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> list[Entry]:
        """The entries in their order, filtered: `since` <= at < `until`, and of them the first `limit`."""
        tests: dict[str, Any] = {
            "bot = ?": bot,
            "at >= ?": since and iso(since),
            "at < ?": until and iso(until),
            "kind IN (SELECT value FROM json_each(?))": None if kinds is None else json.dumps([*kinds]),
            "action = ?": action,
            "seq > ?": after_seq,
        }
        asked = {test: value for test, value in tests.items() if value is not None}
        where = f"WHERE {' AND '.join(asked)}" if asked else ""
        # Without the plus sign SQLite reads the whole table in the order of seq instead of sorting one day's entries.
        order = f"{'+' if since or until else ''}seq {'DESC' if newest_first else 'ASC'}"
        sql = f"SELECT * FROM entries {where} ORDER BY {order} LIMIT ?"  # noqa: S608
        return self._entries(sql, *asked.values(), -1 if limit is None else limit)

    def entry(self, id: str) -> Entry | None:  # noqa: A002
        """The entry with this id, or None."""
        return self.entries_by_id([id]).get(id)

    def entries_by_id(self, ids: Iterable[str]) -> dict[str, Entry]:
        """The entries with these ids; an id that there is no entry for is left out."""
        numbers = [int(match[1]) for match in map(_ID.match, ids) if match]
        sql = "SELECT * FROM entries WHERE seq IN (SELECT value FROM json_each(?))"
        return {entry.id: entry for entry in self._entries(sql, json.dumps(numbers))}

    def open_intents(self, bot: str | None = None) -> list[Entry]:
        """The intents that no outcome refers to, oldest first; of every bot if none is named."""
        where = "" if bot is None else "WHERE bot = ?"
        sql = f"SELECT * FROM entries WHERE seq IN (SELECT seq FROM open_intents {where}) ORDER BY seq"  # noqa: S608
        return self._entries(sql, *([] if bot is None else [bot]))

    def last_wish(self, bot: str) -> Entry | None:
        """The newest intent to stop, start or restart that was not a round's: what the bot is wanted to be.

        However old it is: a bot that was stopped for a long holiday is not one that died. An assistant's stop of what a
        person has stopped already takes nothing back: the person's is the one.
        """
        sql = (
            "SELECT * FROM entries WHERE bot = ? AND kind = 'intent' AND action IN ('stop', 'start', 'restart') "
            "AND actor <> 'round' ORDER BY seq DESC LIMIT 1"
        )
        newest = next(iter(self._entries(sql, bot)), None)
        if newest is None or newest.action != "stop" or newest.actor == "person":
            return newest
        before = (
            "SELECT * FROM entries WHERE bot = ? AND kind = 'intent' AND action = 'stop' AND actor = 'person' "
            "AND seq > (SELECT coalesce(max(seq), 0) FROM entries WHERE bot = ? AND kind = 'intent' "
            "AND action IN ('start', 'restart') AND actor <> 'round') ORDER BY seq DESC LIMIT 1"
        )
        return next(iter(self._entries(before, bot, bot)), newest)

    def told_of(self, bots: Iterable[str], since: datetime) -> dict[str, Told]:
        """The same of many bots at once as `entries`, `spans` and `last_wish` tell of one."""
        told = {bot: Told([], [], None) for bot in bots}
        asked, begin = json.dumps([*told]), iso(since)
        among = "bot IN (SELECT value FROM json_each(?))"
        for entry in self._entries(f"SELECT * FROM entries WHERE {among} AND at >= ? ORDER BY +seq", asked, begin):  # noqa: S608
            told[str(entry.bot)].entries.append(entry)
        columns = "bot, status, fault, up, instance, first, last"
        for row in self._rows(f"SELECT {columns} FROM spans WHERE {among} AND last >= ? ORDER BY id", asked, begin):  # noqa: S608
            told[row[0]].spans.append(_span(row))
        wishing = (
            "SELECT value FROM json_each(?) WHERE EXISTS (SELECT 1 FROM entries WHERE bot = value AND kind = 'intent' "
            "AND action IN ('stop', 'start', 'restart') AND actor <> 'round')"
        )
        wishes = {bot: self.last_wish(bot) for (bot,) in self._rows(wishing, asked)}
        return {bot: replace(one, wish=wishes.get(bot)) for bot, one in told.items()}

    def answered_at(self, ids: Iterable[str]) -> dict[str, datetime]:
        """When the first outcome of each of these intents was recorded; an intent without one is left out."""
        sql = (
            "SELECT ref, min(at) FROM entries WHERE ref IN (SELECT value FROM json_each(?)) "
            "AND kind = 'outcome' GROUP BY ref"
        )
        return {ref: parse_iso(at) for ref, at in self._rows(sql, json.dumps([*ids]))}

    def head(self) -> tuple[int, str]:
        """(seq, hash) of the newest entry, or (0, sixty-four zeros): a witness to keep outside, as in a manifest."""
        with self.reading() as db:
            return _head(db)

    def see(
        self,
        bot: str,
        *,
        status: Status,
        fault: Fault | None,
        up: bool | None,
        instance: str | None,
        at: datetime,
        max_gap: timedelta,
    ) -> None:
        """Record one look at one bot: extend its newest span if it is the same and near enough, else open one."""
        self.see_all([Seen(bot, status, fault, up, instance, at, max_gap)])

    def see_all(
        self,
        looks: Iterable[Seen],
        cursors: Iterable[tuple[str, str, dict[str, Any]]] = (),
        memories: Iterable[Memory] = (),
    ) -> None:
        """Record many looks in one transaction: a round over a thousand bots waits for the disk once.

        `cursors`: as for `set_cursors`. `memories`: left out where somebody has written what one rests on since its
        look began, be it a restore or another look; the next look goes on from what they wrote.
        """
        with self.writing() as db:
            for look in looks:
                _see(db, look)
            store_cursors(db, cursors)
            for memory in memories:
                if _stands(db, memory):
                    store_cursors(db, [(memory.bot, name, value) for name, value in memory.left.items()])

    def spans(self, bot: str, since: datetime | None = None) -> list[Span]:
        """The bot's spans, the newest last; with `since`, those that ended then or later."""
        sql = "SELECT bot, status, fault, up, instance, first, last FROM spans WHERE bot = ? AND last >= ? ORDER BY id"
        return [_span(row) for row in self._rows(sql, bot, iso(since) if since else "")]

    def cursor(self, bot: str, name: str) -> dict[str, Any] | None:
        """What `set_cursor` stored last for this bot and name; `bot` is empty for what belongs to no bot."""
        rows = self._rows("SELECT value FROM cursors WHERE bot = ? AND name = ?", bot, name)
        return dict(json.loads(rows[0][0])) if rows else None

    def cursors(self, bots: Iterable[str]) -> dict[tuple[str, str], str]:
        """Every cursor of these bots, as JSON, by (bot, name): a look at many reads all of them in one question."""
        sql = "SELECT bot, name, value FROM cursors WHERE bot IN (SELECT value FROM json_each(?))"
        return {(bot, name): value for bot, name, value in self._rows(sql, json.dumps([*bots]))}

    def cursors_named(self, name: str, bots: Iterable[str]) -> dict[str, str]:
        """One cursor of each of these bots, as JSON, by bot; a bot that has none is left out."""
        sql = "SELECT bot, value FROM cursors WHERE bot IN (SELECT value FROM json_each(?)) AND name = ?"
        return dict(self._rows(sql, json.dumps([*bots]), name))

    def set_cursor(self, bot: str, name: str, value: dict[str, Any]) -> None:
        """Store a JSON object under this bot and name."""
        self.set_cursors([(bot, name, value)])

    def set_cursors(self, many: Iterable[tuple[str, str, dict[str, Any]]]) -> None:
        """Store many (bot, name, value) in one transaction; values that are there already cost no write."""
        with self.writing() as db:
            store_cursors(db, many)

    def swap_cursor(self, bot: str, name: str, known: dict[str, Any] | None, value: dict[str, Any]) -> bool:
        """Store the value if what is there is still `known` (None: nothing); whether it was."""
        with self.writing() as db:
            stands = cursor_in(db, bot, name) == known
            if stands:
                store_cursors(db, [(bot, name, value)])
        return stands

    def verify(self) -> list[str]:
        """One sentence for every place where the chain does not hold, and for a ledger that cannot be read."""
        breaks: list[str] = []
        seq, prev = 0, GENESIS
        try:
            for row in self._chain():
                breaks += _breaks(row, seq, prev)
                seq, prev = row[0], row[-1]
        except LedgerError as error:
            breaks.append(str(error))
        return breaks

    def tidy(self) -> None:
        """Copy what was written lately into the ledger's own file, as far as no reader hinders it. SQLite does so by
        itself once in a while, and then whoever writes waits for it, for as long as the disk takes."""
        with self.reading() as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Close the connection. The next use opens it again."""
        with _GATE:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _chain(self) -> Iterator[tuple[Any, ...]]:
        """Every row, a batch at a time: others may write in between."""
        seq = -(1 << 63)
        while rows := self._rows("SELECT * FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", seq, BATCH):
            yield from rows
            seq = rows[-1][0]

    def _entries(self, sql: str, *values: Any) -> list[Entry]:
        return [_entry(row) for row in self._rows(sql, *values)]

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.reading() as db:
            return db.execute(sql, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that has the right to write from its start, on the disk when it ends. For derived tables."""
        with self.reading() as db:
            _begin(db)
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, alone in this process. Raises LedgerError for what SQLite cannot do."""
        with _GATE:
            try:
                yield self._connection()
            except sqlite3.Error as error:
                self.close()  # after a full disk or an I/O error, nothing cached is trusted
                raise LedgerError(_explain(self.path, error)) from error

    def _connection(self) -> sqlite3.Connection:
        """The open connection; a new one if somebody moved the file away under it, or else appends went nowhere."""
        if self._db is not None and _inode(self.path) == self._inode:
            return self._db
        self.close()
        _make_file(self.path)
        self._inode = _inode(self.path)
        self._db = self._open()
        return self._db

    def _open(self) -> sqlite3.Connection:
        """SQLite does not wait out its busy timeout while a file turns to WAL: beginners at once are told `locked`."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return _connect(self.path)
            except sqlite3.OperationalError as error:
                if _primary(error) not in _BUSY or time.monotonic() >= deadline:
                    raise
            time.sleep(0.01)


def _make_file(path: Path) -> None:
    """An empty file of mode 0600. By mknod: to open and close a ledger would drop the locks others hold on it."""
    try:
        os.mknod(path, 0o600 | stat.S_IFREG)
        fsync_dir(path.parent)
    except FileExistsError:
        _check_file(path)
    except OSError as error:
        raise LedgerError(
            f"The ledger {path} cannot be made: {error.strerror}. Without it nothing is done; mend that (botkeep init "
            f"makes the folder) and ask again."
        ) from error


def _check_file(path: Path) -> None:
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        raise LedgerError(f"The ledger {path} is not a regular file, so it is not touched. Move it away and ask again.")
    if mode & 0o077:
        path.chmod(0o600)


def _inode(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _prepare(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise LedgerError(
            f"The ledger {path} cannot be written safely: its file system gives no shared memory (SQLite fell back to "
            f"journal mode {mode}). Put the workspace on a local disk."
        )
    db.execute("PRAGMA synchronous = FULL")
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if not tables:
        db.executescript(_SCHEMA)
    _check_schema(db, path, known=not tables or "meta" in tables)


def _check_schema(db: sqlite3.Connection, path: Path, *, known: bool) -> None:
    row = db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() if known else None
    if row == (SCHEMA,):
        return
    found = f"has schema {row[0]}, and this botkeep knows schema {SCHEMA}" if row else "is a database of something else"
    raise LedgerError(
        f"The ledger {path} {found}, so it is not touched. Use the botkeep that wrote it, or move the file away "
        f"together with its -wal and -shm; the next call then begins a new ledger."
    )


def _explain(path: Path, error: sqlite3.Error) -> str:
    """What is wrong with the ledger and what mends it."""
    found, advice = _REASONS.get(_primary(error), ("cannot be used", "Mend that and ask again."))
    return f"The ledger {path} {found} ({error}). Without it nothing is done. {advice}"


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code; its extended codes carry more in the upper bytes."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL)
_MOVE_AWAY = (
    "Stop what uses it, move it away together with its -wal and -shm, and ask again: a new ledger begins, and "
    "memory/bot-operations.md still tells what happened."
)
_DISK = "Free space on its disk or mend the disk, then ask again."
_RIGHTS = "Let the user who runs botkeep write that file and its folder, then ask again."
_REASONS = {
    sqlite3.SQLITE_FULL: ("cannot be written: the disk is full", _DISK),
    sqlite3.SQLITE_IOERR: ("cannot be read or written: the disk is full or failing", _DISK),
    sqlite3.SQLITE_CORRUPT: ("is damaged", _MOVE_AWAY),
    sqlite3.SQLITE_NOTADB: ("is damaged", _MOVE_AWAY),
    sqlite3.SQLITE_READONLY: ("may not be written", _RIGHTS),
    sqlite3.SQLITE_PERM: ("may not be written", _RIGHTS),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", _RIGHTS),
    sqlite3.SQLITE_BUSY: (
        f"was busy for more than {BUSY_SECONDS:.0f} seconds",
        "Look for a process that holds it (a frozen botkeep, a database browser), end that, and ask again.",
    ),
}


def _begin(db: sqlite3.Connection) -> None:
    """Wait for the right to write in short turns: SQLite's own turns grow, and one of sixteen writers got late."""
    deadline = time.monotonic() + BUSY_SECONDS
    db.execute("PRAGMA busy_timeout = 10")
    try:
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if _primary(error) not in _BUSY or time.monotonic() >= deadline:
                    raise
            else:
                return
    finally:
        db.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")


def _head(db: sqlite3.Connection) -> tuple[int, str]:
    row = db.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, GENESIS)


def _hash(fields: tuple[Any, ...]) -> str:
    """SHA-256 of the previous hash (the last field) and of the other fields, in the table's order, as JSON."""
    *others, prev = fields
    text = json.dumps(others, separators=(",", ":"), default=repr)
    return hashlib.sha256(f"{prev}{text}".encode()).hexdigest()


def _storable(text: str | None) -> str | None:
    """Half a surrogate pair, as a damaged log yields it, is no UTF-8: SQLite would refuse the entry."""
    return text if text is None else str(text).encode("utf-8", "backslashreplace").decode()


def _entry(row: tuple[Any, ...]) -> Entry:
    seq, at, kind, bot, action, actor, ref, result, sentence, data, prev, hash_ = row
    try:
        return Entry(
            seq, f"e{seq}", parse_iso(at), Kind(kind), bot, action, actor, ref, result, sentence, json.loads(data),
            prev, hash_,
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise LedgerError(
            f"Entry e{seq} of the ledger cannot be read: {error}. Somebody changed it, or a newer botkeep wrote it; "
            f"`botkeep journal --verify` says which."
        ) from error


def _breaks(row: tuple[Any, ...], seq: int, prev: str) -> Iterator[str]:
    """What is wrong between this row and the one before it, which was number `seq` with hash `prev`."""
    number = row[0]
    if number == seq + 2:
        yield f"Entry e{seq + 1} is gone from the ledger."
    elif number != seq + 1:
        yield f"Entries e{seq + 1} to e{number - 1} are gone from the ledger."
    elif row[-2] != prev:
        yield f"Entry e{number} of the ledger does not continue e{seq}: one of the two was changed or replaced."
    if _hash(row[:-1]) != row[-1]:
        yield f"Entry e{number} of the ledger was changed: what it says does not match its hash."


def cursor_in(db: sqlite3.Connection, bot: str, name: str) -> dict[str, Any] | None:
    """As `Ledger.cursor`, in somebody's transaction."""
    row = db.execute("SELECT value FROM cursors WHERE bot = ? AND name = ?", (bot, name)).fetchone()
    return dict(json.loads(row[0])) if row else None


def store_cursors(db: sqlite3.Connection, many: Iterable[tuple[str, str, dict[str, Any]]]) -> None:
    """As `Ledger.set_cursors`, in somebody's transaction."""
    db.executemany(
        "INSERT INTO cursors VALUES (?, ?, ?) ON CONFLICT (bot, name) "
        "DO UPDATE SET value = excluded.value WHERE value <> excluded.value",
        [(bot, name, json.dumps(value, sort_keys=True)) for bot, name, value in many],
    )


def _stands(db: sqlite3.Connection, memory: Memory) -> bool:
    """Whether nobody has written what a look rests on since it began."""
    there = dict(db.execute("SELECT name, value FROM cursors WHERE bot = ?", (memory.bot,)))
    return all(there.get(name) == text for name, text in memory.found.items())


def _see(db: sqlite3.Connection, look: Seen) -> None:
    """Extend the newest span, or open one. A look inside it that saw the same adds nothing. One that was only written
    down late comes before it: what was seen last stays the newest."""
    state = (look.status, look.fault, None if look.up is None else int(look.up), look.instance)
    newest = db.execute(
        "SELECT id, first, last, status, fault, up, instance FROM spans WHERE bot = ? ORDER BY id DESC LIMIT 1",
        (look.bot,),
    ).fetchone()
    same = newest is not None and newest[3:] == state and look.at >= parse_iso(newest[1])
    since = look.at - parse_iso(newest[2]) if newest else look.max_gap
    if same and since <= timedelta():
        return
    if same and since <= look.max_gap:
        db.execute("UPDATE spans SET last = ? WHERE id = ?", (iso(look.at), newest[0]))
        return
    db.execute("INSERT INTO spans VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", (look.bot, *state, iso(look.at), iso(look.at)))
    if -LATE <= since < timedelta():
        _put_last(db, newest[0])


def _put_last(db: sqlite3.Connection, span: int) -> None:
    """Open a span anew, with all that it says: it is the newest then."""
    columns = "bot, first, last, status, fault, up, instance"
    db.execute(f"INSERT INTO spans ({columns}) SELECT {columns} FROM spans WHERE id = ?", (span,))  # noqa: S608
    db.execute("DELETE FROM spans WHERE id = ?", (span,))


def _span(row: tuple[Any, ...]) -> Span:
    bot, status, fault, up, instance, first, last = row
    return Span(
        bot, Status(status), None if fault is None else Fault(fault), None if up is None else bool(up),
        parse_iso(first), parse_iso(last), instance,
    )  # fmt: skip
