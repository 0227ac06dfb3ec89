"""A log with its rotated predecessors, as one text that is read backwards as far as needed and forwards from there.

`name.1`, `name.2.gz`, `name.2026-11-20`, `name-20261120.gz`: as Python's handlers and logrotate name them. Where one
of the row is missing, what is older is not used, for a hole cannot be told from silence.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path

from ..logfile import LINE_LIMIT, LogError, OpenLog, open_log
from ..model import BotkeepError
from .base import Line

CHUNK = 1 << 20
HEAD = 256 * 1024
"""Bytes in which a file's first dated line is looked for."""
HEAD_CHUNKS = 16
"""And of a file that begins with a line without an end, at most so many chunks."""
MOST_FILES = 400
TRIES = 5

_NUMBERED = re.compile(r"\.([1-9]\d{0,2})(\.gz)?", re.ASCII)
_DATED = re.compile(r"[.-](\d{4})-?(\d\d)-?(\d\d)(?:[_-](\d\d)(?:-\d\d){0,2})?(\.log)?(\.gz)?", re.ASCII)


@dataclass(frozen=True)
class Piece:
    """One file of the log, held open: a rotation cannot take it away any more."""

    name: str
    log: OpenLog
    packed: bool

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """Its bytes from `start` up to the size it had when it was opened. Of a packed one: unpacked ones."""
        if self.packed:
            yield from self._unpacked()
            return
        while start < self.log.size:
            data = os.pread(self.log.fd, min(CHUNK, self.log.size - start), start)
            if not data:
                return  # cut while we read
            yield data
            start += len(data)

    def _unpacked(self) -> Iterator[bytes]:
        os.lseek(self.log.fd, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self.log.fd), "rb") as raw, gzip.GzipFile(fileobj=raw) as file:
            while data := file.read(CHUNK):
                yield data

    def size_up_to(self, most: int) -> int:
        """Its bytes, of a packed one unpacked: counted until they are more than `most`, for a few may hold a flood.

        Raises BotkeepError for a packed file that is damaged.
        """
        if not self.packed:
            return self.log.size
        size = 0
        with self._sound():
            for data in self.chunks():
                size += len(data)
                if size > most:
                    break
        return size

    def lines(self, start: int = 0, chunks: int | None = None) -> Iterator[Line]:
        """Its lines from `start`, where one begins. Of one that is too long, the beginning, marked as not whole.

        `chunks`: of CHUNK bytes, read at most. Raises BotkeepError for a packed file that is damaged.
        """
        with self._sound():
            yield from _split(islice(self.chunks(start), chunks), self.name, start)

    @contextmanager
    def _sound(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, zlib.error, OSError) as error:
            raise BotkeepError(f"The rotated log {self.name} cannot be unpacked: {error}. Move it away.") from error

    def first(self, clock: Callable[[bytes], float | None]) -> float | None:
        """When its first dated line was written."""
        for line in self.lines(chunks=HEAD_CHUNKS):
            if (at := clock(line.data)) is not None:
                return at
            if line.offset > HEAD:
                return None
        return None

    def begin(self, most: int) -> int:
        """Where to begin so that no more than about `most` bytes are read: at a line."""
        start = max(0, self.log.size - most)
        if not start or self.packed:
            return 0
        data = os.pread(self.log.fd, LINE_LIMIT, start - 1)
        end = data.find(b"\n")
        return start + end if end >= 0 else self.log.size


def _split(chunks: Iterator[bytes], name: str, offset: int) -> Iterator[Line]:
    rest, skipping = b"", False
    for chunk in chunks:
        *ended, last = (rest + chunk).split(b"\n")
        for data in ended:
            if not skipping:
                yield Line(data[:LINE_LIMIT].removesuffix(b"\r"), name, offset, len(data) <= LINE_LIMIT)
            offset += len(data) + 1
            skipping = False
        if skipping or len(last) > LINE_LIMIT:
            if not skipping:
                yield Line(last[:LINE_LIMIT], name, offset, whole=False)
            offset, skipping, last = offset + len(last), True, b""
        rest = last
    if rest:
        yield Line(rest, name, offset, whole=False)


@contextmanager
def opened(path: Path) -> Iterator[tuple[list[Piece], list[str]]]:
    """The log and its predecessors without a hole, the newest first; and what there is to know about them.

    Raises LogError if not even the log itself can be read.
    """
    with ExitStack() as stack:
        for _ in range(TRIES):
            found = _open_all(path, stack)
            if _is_still(path, found[0][0]):
                break
        yield found


def _is_still(path: Path, newest: Piece) -> bool:
    """Whether the log was not rotated while its predecessors were opened."""
    try:
        seen = path.stat()
    except OSError:
        return False
    return (seen.st_dev, seen.st_ino) == (newest.log.dev, newest.log.ino)


def _open_all(path: Path, stack: ExitStack) -> tuple[list[Piece], list[str]]:
    pieces = [Piece(path.name, stack.enter_context(open_log(path)), packed=path.suffix == ".gz")]
    siblings, notes = _siblings(path)
    known = {(pieces[0].log.dev, pieces[0].log.ino)}
    for sibling in siblings:
        try:
            log = stack.enter_context(open_log(sibling))
        except LogError as error:
            return pieces, [*notes, f"What is older than {pieces[-1].name} was not read: {error}"]
        if (log.dev, log.ino) not in known:
            known.add((log.dev, log.ino))
            pieces.append(Piece(sibling.name, log, packed=sibling.suffix == ".gz"))
    return pieces, notes


def _siblings(path: Path) -> tuple[list[Path], list[str]]:
    """The predecessors without a hole, the newest first."""
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(path.name) and name != path.name]
    except OSError:
        return [], []
    numbered = {int(match[1]): name for name in names if (match := _NUMBERED.fullmatch(name, len(path.name)))}
    dated = {at: name for name in names if (at := _date_of(name, len(path.name))) is not None}
    row, hole = _unbroken(numbered) if numbered else _stepwise(dated)
    notes = [f"The log is not read further back than {row[-1] if row else path.name}: {hole}"] if hole else []
    return [path.with_name(name) for name in row[:MOST_FILES]], notes


def _date_of(name: str, after: int) -> datetime | None:
    match = _DATED.fullmatch(name, after)
    if match is None:
        return None
    try:
        return datetime(int(match[1]), int(match[2]), int(match[3]), int(match[4] or 0), tzinfo=UTC)
    except ValueError:
        return None


def _unbroken(numbered: dict[int, str]) -> tuple[list[str], str]:
    row: list[str] = []
    for count in range(1, max(numbered) + 1):
        if count not in numbered:
            return row, f"number {count} of its rotated files is missing."
        row.append(numbered[count])
    return row, ""


def _stepwise(dated: dict[datetime, str]) -> tuple[list[str], str]:
    """Rotated at even steps: a step that is longer than the shortest by half may be a file that was deleted."""
    days = sorted(dated, reverse=True)
    steps = [later - earlier for later, earlier in pairwise(days)]
    longest = min(steps, default=timedelta()) * 1.5
    for place, step in enumerate(steps):
        if step > longest:
            hole = f"there is none between {dated[days[place + 1]]} and {dated[days[place]]}."
            return [dated[day] for day in days[: place + 1]], hole
    return [dated[day] for day in days], ""
