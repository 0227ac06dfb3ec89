"""`memory/bot-operations.md`: the ledger for people, plus their own notes.

The ledger is the truth and is written first; the Markdown is brought up to it, each entry exactly once, by whoever
holds the lock. People edit the file with whatever they like and lock nothing, so:

1. After each write the file's identity (device, inode, size, both times) is kept. While it is the same, new entries
   are appended and nothing is read.
2. Before each write, its place and text are kept. A writer that is killed leaves a tail that is the beginning of that
   text; the next one completes it. Nothing is ever truncated.
3. Any other difference is somebody's edit. The whole file is read, and entries that it misses (an editor saved what it
   had opened before they were written) are added at its end, marked `restored`. Other lines stay as they are.
4. After each write, the file at the path must be the one written to, and as long as expected. Otherwise somebody saved
   meanwhile, and the file is read again.
5. Past months' sections move, with everything in them, to memory/archive/: first into the archive, then the rest
   replaces the file, unless it changed since it was read. Of a section that is in the archive already (a kill between
   the two, or an editor that saved it back), only the lines are added that the archive does not have.

What was written last is kept in .botkeep/journal.json: not in the ledger, where it would cost every entry two more
transactions among all writers, and not on the disk at once, because it only ever saves reading the whole file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from .durable import Lock, fsync_dir, read_json
from .ledger import Entry, Kind, Ledger
from .model import BotkeepError
from .untrusted import clean, escape_markdown
from .workspace import Workspace

EMPTY = """\
# Bot operations

What botkeep saw and did: one line for each entry, the newest last. Past months move to `archive/`.
Write your own lines anywhere: they are never changed, and a line of botkeep's that an edit loses comes back.
Whether an entry was changed, removed or forged says `botkeep journal --verify`.
"""

OVERDUE = timedelta(minutes=10)
"""An intent without an outcome for longer than this is shown."""
SKEW = timedelta(days=1)
"""By how much the clocks of two writers may differ at the end of a month."""
SENTENCE_LIMIT = 500
NOTE_LIMIT = 2000
LOCK_SECONDS = 2.0
"""A writer that does not get the lock leaves its line to the next one: the ledger has the entry."""
QUIET_SECONDS = 0.1
"""How long a file that somebody else changed must have stayed the same. An editor that saves in place empties the
file first; entries added in that moment would be half overwritten by the rest of its save."""
TRIES = 10
BATCH = 1000
CHUNK = 128 * 1024
"""Characters in one write; kept beforehand as JSON of at most eight times as many bytes."""
LINE_LIMIT = 64 * 1024
TAIL_LIMIT = 8 << 20
SENTENCES = 100
"""Findings that `verify` lists one by one."""

_MARK = re.compile(rb"<!-- (e[1-9][0-9]{0,17}) ([0-9a-f]{12})(?: restored)? -->")
_MONTH = re.compile(rb"\A## ([0-9]{4}-(?:0[1-9]|1[0-2]))[ \t]*\r?\n?\Z")
_LIKE_AN_ENTRY = re.compile(rb"\A- [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}Z \xc2\xb7 ")
_LINE = re.compile(
    r"\A- ([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2})Z · ([^·]*) · ([^·]*) · ([^·]*) · (.*) "
    r"<!-- (e[1-9][0-9]{0,17}) ([0-9a-f]{12})( restored)? -->\Z"
)
_CLOCK = "%Y-%m-%d %H:%M:%S"


class _JournalError(BotkeepError):
    """Why the Markdown is not up to date, and what to do."""


class _ChangedError(Exception):
    """Somebody saved the file while we worked on it: read it again."""


# --- one line ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """An entry as people see it. `at` has whole seconds; the texts are Markdown; `mark` is twelve digits of the hash.

    `restored`: the line was lost in an edit and added again.
    """

    at: datetime
    bot: str
    action: str
    result: str
    text: str
    id: str
    mark: str
    restored: bool = False


def line_of(entry: Entry, *, restored: bool = False) -> Line:
    """How an entry is shown. It must not change between versions: `verify` compares old lines with it."""
    late = entry.kind is Kind.INTENT
    result = "unknown" if late else entry.result
    text = f"no outcome was recorded within ten minutes: {entry.sentence}" if late else entry.sentence
    return Line(
        entry.at.replace(microsecond=0),
        _field(entry.bot or ""),
        _field(entry.action),
        _field(result),
        escape_markdown(text),
        entry.id,
        entry.hash[:12],
        restored,
    )


def _field(text: str) -> str:
    return escape_markdown(text).replace("·", "-") if text else "-"


def render(line: Line) -> str:
    """The line of Markdown, without its newline; `parse` is the reverse."""
    fields = (f"{line.at.astimezone(UTC):{_CLOCK}}Z", line.bot, line.action, line.result, line.text)
    return f"- {' · '.join(fields)} <!-- {line.id} {line.mark}{' restored' if line.restored else ''} -->"


def parse(text: str) -> Line | None:
    """The entry line that `text` is; None if it is anything else."""
    match = _LINE.match(text)
    if match is None:
        return None
    at, bot, action, result, sentence, id_, mark, restored = match.groups()
    try:
        when = datetime.strptime(at, _CLOCK).replace(tzinfo=UTC)
    except ValueError:
        return None
    return Line(when, bot, action, result, sentence, id_, mark, bool(restored))


def _key(entry: Entry) -> bytes:
    """What identifies an entry's line: the number alone would collide with those of a ledger begun anew."""
    return f"{entry.id} {entry.hash[:12]}".encode()


def _keys(line: bytes) -> list[bytes]:
    """The entries that a line of the file stands for; more than one if somebody joined lines."""
    return [b" ".join(match) for match in _MARK.findall(line)] if b"<!-- e" in line else []


def _month(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m}"


# --- one file ---------------------------------------------------------------------------------------------------

Identity = tuple[int, int, int, int, int]


def _identity(found: os.stat_result) -> Identity:
    """Different after every edit. The change time catches tools that put the modification time back."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _identity_at(path: Path) -> Identity | None:
    try:
        return _identity(path.lstat())
    except FileNotFoundError:
        return None


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor of the regular file at `path`; never through a symbolic link, never waiting for a FIFO."""
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _JournalError(_NOT_REGULAR.format(path=path, kind="a symbolic link")) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _JournalError(_NOT_REGULAR.format(path=path, kind="no regular file"))
        yield fd
    finally:
        os.close(fd)


_NOT_REGULAR = (
    "{path} is {kind}, so it is neither read nor written: what it leads to might be anything. Move it away; "
    "the ledger has every entry, and the file is made again."
)


def _reader(fd: int, start: int = 0) -> BinaryIO:
    file = os.fdopen(os.dup(fd), "rb")
    file.seek(start)
    return file


def _lines(fd: int, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The lines that begin in [start, end), with their ends; one of 200 MB comes in pieces."""
    with _reader(fd, start) as file:
        place = start
        while (end is None or place < end) and (line := file.readline(LINE_LIMIT)):
            place += len(line)
            yield line


@dataclass(frozen=True)
class _Section:
    """A month: its heading and everything down to the next one, as bytes [start, end) of the file."""

    month: str
    start: int
    end: int


@dataclass(frozen=True)
class _Scan:
    identity: Identity
    keys: frozenset[bytes]
    sections: tuple[_Section, ...]


def _scan(fd: int) -> _Scan:
    """Everything that has to be known about a file that somebody edited; one pass."""
    identity = _identity(os.fstat(fd))
    keys: set[bytes] = set()
    starts: list[tuple[str, int]] = []
    place = 0
    for line in _lines(fd):
        keys.update(_keys(line))
        if heading := _MONTH.match(line):
            starts.append((heading[1].decode(), place))
        place += len(line)
    ends = [start for _, start in starts[1:]] + [place]
    sections = tuple(_Section(month, start, end) for (month, start), end in zip(starts, ends, strict=True))
    return _Scan(identity, frozenset(keys), sections)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _copy(source: int, target: int, start: int, end: int) -> None:
    while start < end and (count := os.sendfile(target, source, start, end - start)):
        start += count


class _Replacement:
    """A new version of `path`, in a file beside it, that takes its place when `install` finds the old one unchanged.

    One at a time, under the lock, so that what a killed writer left has a known name and is written over.
    """

    def __init__(self, path: Path, *, like: os.stat_result) -> None:
        self.path = path
        self.temp = path.with_name(f".{path.name}.new")
        self.temp.unlink(missing_ok=True)
        self.fd = os.open(self.temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with suppress(PermissionError):  # another owner's file stays readable by its group, if not theirs
            os.fchown(self.fd, like.st_uid, like.st_gid)
        os.fchmod(self.fd, stat.S_IMODE(like.st_mode))

    def __enter__(self) -> _Replacement:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        self.temp.unlink(missing_ok=True)

    def install(self, expected: Identity | None) -> None:
        """Durably; raises _ChangedError if somebody touched the old version since it was read."""
        os.fsync(self.fd)
        if _identity_at(self.path) != expected:
            raise _ChangedError
        os.replace(self.temp, self.path)
        fsync_dir(self.path.parent)


# --- what was written last --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kept:
    """What the last writer left for the next one."""

    file: Identity | None = None
    """The file after the last write; None: it has to be read."""
    through: int = 0
    """Number of the newest entry that was looked at; all up to it are in the file or the archive, or wait."""
    hash: str = ""
    """Its hash: another one means another ledger."""
    waiting: tuple[int, ...] = ()
    """Intents up to `through` that are not yet overdue."""
    settled: int = 0
    """Entries up to this one are in the archive, not in the file; they are not looked for after an edit."""
    first_month: str = ""
    last_month: str = ""
    offset: int = 0
    pending: str = ""
    """Text that was about to be written at `offset`."""


def _kept_from(value: dict[str, Any] | None) -> _Kept | None:
    """None when there is nothing usable: torn by a power cut, removed, or of another version."""
    try:
        kept = _Kept(**(value or {}))
        identity = None if kept.file is None else (*(int(number) for number in kept.file),)
        waiting = tuple(int(number) for number in kept.waiting)
    except (TypeError, ValueError):
        return None
    if value is None or (identity is not None and len(identity) != 5):
        return None
    return replace(kept, file=identity, waiting=waiting)


# --- the journal ------------------------------------------------------------------------------------------------


class Journal:
    """The only writer of entries, and the keeper of their Markdown."""

    def __init__(self, workspace: Workspace, ledger: Ledger) -> None:
        self.ledger = ledger
        self.path = workspace.journal_file
        self._archive_dir = workspace.archive_dir
        self._home = workspace.home
        self._kept_file = workspace.state_dir / "journal.json"
        self._lock_file = workspace.state_dir / "journal.lock"

    def record(
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
    ) -> Entry:
        """Add an entry to the ledger, durably, then to the Markdown. Raises LedgerError if the ledger cannot take it.

        A Markdown file that cannot be written now is no failure: the next `sync` says so and mends it.
        """
        sentence = clean(sentence.strip(), NOTE_LIMIT if kind is Kind.NOTE else SENTENCE_LIMIT)
        entry = self.ledger.append(
            kind, at=at, bot=bot, action=action, actor=actor, sentence=sentence, ref=ref, result=result, data=data
        )
        if kind is not Kind.INTENT:
            self.sync(at)
        return entry

    def sync(self, now: datetime) -> list[str]:
        """Bring the Markdown up to the ledger: new entries, entries lost in an edit, torn tails, past months.

        Returns what prevented it, as sentences, and never raises for a file or ledger that cannot be used.
        """
        try:
            with self._locked():
                self._bring_up(now)
        except BotkeepError as error:
            return [str(error)]
        except OSError as error:
            return [
                f"{self._name(self.path)} cannot be brought up to date: {error.strerror or error}. No entry is lost: "
                f"the ledger has them all, and they are added to the file as soon as that is mended."
            ]
        return []

    def own_lines(self, limit: int) -> list[str]:
        """The last `limit` lines that people wrote into the journal, newest last, cleaned; of the last 8 MiB."""
        known = set(EMPTY.splitlines())
        kept: deque[str] = deque(maxlen=limit)
        try:
            with _opened(self.path, os.O_RDONLY) as fd:
                for line in _lines(fd, max(0, os.fstat(fd).st_size - TAIL_LIMIT)):
                    text = clean(line.decode("utf-8", "replace").strip())
                    if text and text not in known and not _keys(line) and not _MONTH.match(line):
                        kept.append(text)
        except (OSError, _JournalError):
            return []
        return [*kept]

    # --- writing ---

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = Lock(self._lock_file)
        if not lock.acquire(LOCK_SECONDS):
            raise _JournalError(
                f"{self._name(self.path)} is being written by another botkeep, longer than {LOCK_SECONDS:.0f} seconds. "
                f"No entry is lost: whoever writes next adds them all."
            )
        with lock:
            yield

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._home)) if path.is_relative_to(self._home) else str(path)

    def _bring_up(self, now: datetime) -> None:
        for _ in range(TRIES):
            with suppress(_ChangedError):
                self._attempt(now)
                return
        raise _JournalError(
            f"{self._name(self.path)} is being changed by another program all the time. No entry is lost: they are "
            f"added as soon as it stays the same for a moment."
        )

    def _attempt(self, now: datetime) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = self._load()
        with _opened(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as fd:
            if kept and kept.file == _identity(os.fstat(fd)) and not "" < kept.first_month < _month(now):
                _Appending(self, fd, kept, now).new()
            else:
                self._reread(fd, kept, now)

    def _reread(self, fd: int, kept: _Kept | None, now: datetime) -> None:
        """Somebody edited the file, a writer was killed, or a month is over."""
        _refuse_utf16(fd, self._name(self.path))
        if kept and not self._completed(fd, kept):
            self._wait_until_quiet(fd)
        scan = _scan(fd)
        past = [section for section in scan.sections if section.month < _month(now)]
        if past:
            self._rotate(fd, scan, past)
            raise _ChangedError  # by ourselves
        months = [section.month for section in scan.sections]
        first, last = (months[0], months[-1]) if months else ("", "")
        kept = replace(kept or _Kept(), file=None, first_month=min(months, default=""), last_month=last)
        _Appending(self, fd, kept, now).missing(scan.keys)
