"""Entries as lines of Markdown, and the file that holds them among the lines of people.

Everything here works on bytes: what people wrote may have any line ends, a byte order mark, or be no UTF-8 at all.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from .durable import fsync_dir
from .ledger import Entry, Kind
from .model import BotkeepError
from .untrusted import escape_markdown

LINE_LIMIT = 64 * 1024
"""Bytes of one line that are looked at together."""
BATCH = 1000

_MARK = re.compile(rb"<!-- (e[1-9][0-9]{0,17}) ([0-9a-f]{12})(?: restored)? -->")
_MONTH = re.compile(rb"\A## ([0-9]{4}-(?:0[1-9]|1[0-2]))[ \t]*\r?\n?\Z")
_LIKE_AN_ENTRY = re.compile(rb"\A- [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}Z \xc2\xb7 ")
_LINE = re.compile(
    r"\A- ([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2})Z · ([^·]*) · ([^·]*) · ([^·]*) · (.*) "
    r"<!-- (e[1-9][0-9]{0,17}) ([0-9a-f]{12})( restored)? -->\Z"
)
_CLOCK = "%Y-%m-%d %H:%M:%S"


class JournalError(BotkeepError):
    """Why the Markdown is not up to date, and what to do."""


class ChangedError(Exception):
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
    """How an entry is shown. It must stay so from version to version: `verify` compares old lines with it."""
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


def key_of(entry: Entry) -> bytes:
    """What identifies an entry's line: its number alone would collide with those of a ledger begun anew."""
    return f"{entry.id} {entry.hash[:12]}".encode()


def id_in(key: bytes) -> str:
    """The entry's id in a key."""
    return key.split()[0].decode()


def keys_in(line: bytes) -> list[bytes]:
    """The entries that a line of the file stands for; more than one if somebody joined lines."""
    return [b" ".join(match) for match in _MARK.findall(line)] if b"<!-- e" in line else []


def month_in(line: bytes) -> str:
    """The month whose section this line begins, as `2026-11`; empty for any other line."""
    match = _MONTH.match(line)
    return match[1].decode() if match else ""


def month_of(at: datetime) -> str:
    """`2026-11`, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m}"


# --- one file ---------------------------------------------------------------------------------------------------

Identity = tuple[int, int, int, int, int]


def identity_of(fd: int) -> Identity:
    """Different after every edit. The change time catches tools that put the modification time back."""
    return _identity(os.fstat(fd))


def identity_at(path: Path) -> Identity | None:
    """The identity of what is at `path` (of a symbolic link: the link's); None if nothing is."""
    try:
        return _identity(path.lstat())
    except FileNotFoundError:
        return None


def _identity(found: os.stat_result) -> Identity:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A descriptor of the regular file at `path`; never through a symbolic link, never waiting for a FIFO.

    Raises JournalError for anything else, ChangedError if it was to be made and is there, OSError as open() does.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refusal(path, "a symbolic link") from error
        if error.errno == errno.EEXIST:
            raise ChangedError from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _refusal(path, "no regular file")
        yield fd
    finally:
        os.close(fd)


def _refusal(path: Path, kind: str) -> JournalError:
    return JournalError(
        f"{path} is {kind}, so it is neither read nor written: what it leads to might be anything. Move it away; the "
        f"ledger has every entry, and the file is made again."
    )


def refuse_utf16(fd: int, name: str) -> None:
    """Our lines in a file of two-byte characters would make it unreadable for the editor that wrote it."""
    if os.pread(fd, 2, 0) in (b"\xff\xfe", b"\xfe\xff"):
        raise JournalError(
            f"{name} was saved as UTF-16, so it is not written to. Save it as UTF-8; no entry is lost meanwhile."
        )


def lines_in(fd: int, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The lines that begin in [start, end), with their ends; one of 200 MB comes in pieces."""
    with _reader(fd, start) as file:
        place = start
        while (end is None or place < end) and (line := file.readline(LINE_LIMIT)):
            place += len(line)
            yield line


def _reader(fd: int, start: int) -> BinaryIO:
    file = os.fdopen(os.dup(fd), "rb")
    file.seek(start)
    return file


@dataclass(frozen=True)
class Section:
    """A month: its heading and everything down to the next one, as bytes [start, end) of the file."""

    month: str
    start: int
    end: int


@dataclass(frozen=True)
class Scan:
    """What has to be known about a file that somebody edited. `identity` is from before it was read."""

    identity: Identity
    keys: set[bytes]
    sections: tuple[Section, ...]


def scan(fd: int) -> Scan:
    """Read the whole file once, line by line."""
    identity = identity_of(fd)
    keys: set[bytes] = set()
    starts: list[tuple[str, int]] = []
    place = 0
    for line in lines_in(fd):
        keys.update(keys_in(line))
        if month := month_in(line):
            starts.append((month, place))
        place += len(line)
    ends = [*(start for _, start in starts[1:]), place]
    sections = tuple(Section(month, start, end) for (month, start), end in zip(starts, ends, strict=False))
    return Scan(identity, keys, sections)


@dataclass(frozen=True)
class Shown:
    """A line that shows an entry, or pretends to: then it has no keys. Lines are counted from 1, as editors do."""

    number: int
    line: bytes
    keys: list[bytes]


def shown_in(fd: int) -> Iterator[list[Shown]]:
    """The entry lines of a file, in batches."""
    batch: list[Shown] = []
    number, starts = 0, True
    for line in lines_in(fd):
        number += starts
        keys = keys_in(line)
        if keys or (starts and _LIKE_AN_ENTRY.match(line)):
            batch.append(Shown(number, line.rstrip(b"\r\n"), keys))
        starts = line.endswith(b"\n")
        if len(batch) >= BATCH:
            yield batch
            batch = []
    yield batch


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, or raise OSError: a nearly full disk takes the first part of it without a word."""
    while data:
        data = data[os.write(fd, data) :]


def copy(source: int, target: int, start: int, end: int) -> None:
    """Append bytes [start, end) of one file to another without reading them into memory."""
    while start < end and (count := os.sendfile(target, source, start, end - start)):
        start += count


class Replacement:
    """A new version of `path`, in a file beside it, that takes its place when `install` finds the old one unchanged.

    One at a time, under the lock, so that what a killed writer left has a known name and is written over.
    """

    def __init__(self, path: Path, like: int) -> None:
        self.path = path
        self.temp = path.with_name(f".{path.name}.new")
        self.temp.unlink(missing_ok=True)
        self.fd = os.open(self.temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        found = os.fstat(like)
        with suppress(PermissionError):  # only root may give a file away
            os.fchown(self.fd, found.st_uid, found.st_gid)
        os.fchmod(self.fd, stat.S_IMODE(found.st_mode))

    def __enter__(self) -> Replacement:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        self.temp.unlink(missing_ok=True)

    def install(self, expected: Identity | None) -> None:
        """Durably; raises ChangedError if somebody touched the old version since it was `expected`."""
        os.fsync(self.fd)
        if identity_at(self.path) != expected:
            raise ChangedError
        os.replace(self.temp, self.path)
        fsync_dir(self.path.parent)


def not_yet_in(archive: int, lines: Sequence[bytes]) -> Sequence[bytes]:
    """`lines`; but if the archive has these lines already, as far as it goes, only those that it lacks.

    That is so when one of their entries is in the archive or, of lines without any entry, when all are: a writer was
    killed between archive and journal, or an editor saved a section back that had been moved meanwhile.
    """
    keys = scan(archive).keys
    known = Counter(_bare(line) for line in lines_in(archive))
    mine = [key for line in lines for key in keys_in(line)]
    twice = any(key in keys for key in mine) if mine else not Counter(map(_bare, lines)) - known
    return _without(lines, known) if twice else lines


def _without(lines: Sequence[bytes], known: Counter[bytes]) -> list[bytes]:
    rest = []
    for line in lines:
        known[_bare(line)] -= 1
        if known[_bare(line)] < 0:
            rest.append(line)
    return rest


def _bare(line: bytes) -> bytes:
    """Equal for the same line after another editor's line ends, and after an edit lost and botkeep restored it."""
    return line.rstrip(b"\r\n").replace(b" restored -->", b" -->")
