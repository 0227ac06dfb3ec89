"""Copies of record files: a point-in-time snapshot of one that is written to, and a file rebuilt from two."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ..model import BotkeepError, Finding
from .base import FormatOptions, Rebuilt, SnapshotCut
from .files import ANCHOR, CHUNK, Source, UnreadableError, regular
from .inspecting import LISTED, OWN_WAY
from .records import Flaw, Kind, Reader, StrangeError

TRIES = 5


class _Writer:
    """A new file that is hashed while it is written. `done` makes it durable."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._running = file, hashlib.sha256()
        self.size = 0
        self.quoted = False

    def write(self, data: bytes) -> None:
        """Append."""
        self._file.write(data)
        self._running.update(data)
        self.size += len(data)
        self.quoted = self.quoted or b'"' in data

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._running.hexdigest()

    def done(self) -> None:
        """Flush and fsync."""
        self._file.flush()
        os.fsync(self._file.fileno())


# --- snapshot ----------------------------------------------------------------------------------------------------


def snapshot(kind: Kind, path: Path, target: Path, *, options: FormatOptions) -> SnapshotCut:
    """A format's `snapshot`.

    1. Copy what the file holds now, from one descriptor.
    2. If it changed meanwhile, what was copied must still be what it begins with: then rows were only added. If not,
       again, five times; a copy put together from two versions of a table would be nobody's table.
    3. Cut at the last whole record, fsync.
    """
    try:
        for tried in range(TRIES):
            time.sleep(tried * 0.05)
            with regular(path) as source, target.open("wb") as file:
                writer = _Writer(file)
                for data in source.chunks(0, source.size):
                    writer.write(data)
                writer.done()
                if _is_one_version(source, writer):
                    return _cut(kind, target, writer, source, options)
    except FileNotFoundError as error:
        raise BotkeepError(f"There is no file {path}, so there is nothing to copy.") from error
    except UnreadableError as error:
        raise BotkeepError(f"{path} cannot be copied: {error}.") from error
    except OSError as error:
        raise BotkeepError(f"{path} cannot be copied to {target.parent}: {error.strerror}.") from error
    raise BotkeepError(f"{path} is written over all the time: {TRIES} copies were each of two versions. Ask again.")


def _is_one_version(source: Source, writer: _Writer) -> bool:
    before = source.stat
    if writer.size < before.st_size:
        return False
    after = os.fstat(source.fd)
    if (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
        return True
    return source.digest(0, before.st_size) == writer.sha256


def _cut(kind: Kind, target: Path, writer: _Writer, source: Source, options: FormatOptions) -> SnapshotCut:
    seen = source.stat
    facts = {
        "dev": seen.st_dev,
        "ino": seen.st_ino,
        "size": seen.st_size,
        "mtime_ns": seen.st_mtime_ns,
        "mode": seen.st_mode & 0o7777,
        "uid": seen.st_uid,
        "gid": seen.st_gid,
    }
    with regular(target) as copy:
        end, first = _ends(kind, copy, options, quoted=writer.quoted)
        if end == copy.size:
            return SnapshotCut(end, writer.sha256, facts, first)
        sha256 = copy.digest(0, end)
    os.truncate(target, end)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return SnapshotCut(end, sha256, facts, first)


def _ends(kind: Kind, copy: Source, options: FormatOptions, *, quoted: bool) -> tuple[int, datetime | None]:
    """Where the last whole record ends, and the time of the first one. A line end within quotes ends no record."""
    try:
        reader = kind.learn(copy, options)
    except StrangeError:
        return copy.size, None  # the check of the copy will say so
    if reader is None:
        return 0, None
    scan = reader.scan(copy, reader.body, copy.size)
    rows = iter(scan)
    first = next((at for _, _, at, flaw in rows if flaw is None), None)
    if quoted:
        for _ in rows:
            pass
        end = scan.end
    else:
        end = _last_line_end(copy)
    return end, datetime.fromtimestamp(first, UTC) if first is not None else None


def _last_line_end(copy: Source) -> int:
    stop = copy.size
    while stop > 0:
        start = max(0, stop - CHUNK)
        found = copy.read(start, stop - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        stop = start
    return 0


# --- rebuild -----------------------------------------------------------------------------------------------------


def rebuild(kind: Kind, good: Path | None, damaged: Path, target: Path, *, options: FormatOptions) -> Rebuilt:
    """A format's `rebuild`.

    1. The good copy, whole, as it is. Without one: the damaged file's own header.
    2. Of the damaged file, in its order, the sound rows that the copy has not. Where the copy's last bytes still stand
       in their place, everything behind them is newer, and two equal rows are two fills. Elsewhere a row is new if its
       trade id is; without ids, if the copy has fewer rows of exactly these bytes and none that is later.
    3. mode rewrite: a sound row takes the place of its older version: the one with its trade id, or in its position.
    4. Damaged rows are left out and listed. Nothing is completed by guessing.
    """
    try:
        with target.open("wb") as file:
            writer = _Writer(file)
            merge = _Merge(kind, options, writer)
            if good is None:
                merge.salvage_alone(damaged)
            else:
                with regular(good) as source:
                    merge.onto(source, damaged)
            writer.done()
    except StrangeError as error:
        raise BotkeepError(f"Nothing can be salvaged from {damaged.name}: {error}") from error
    except UnreadableError as error:
        raise BotkeepError(f"{damaged} cannot be read: {error}.") from error
    except OSError as error:
        raise BotkeepError(f"{target.name} cannot be built in {target.parent}: {error.strerror or error}.") from error
    return merge.result()


class _Merge:
    """The rows of a good copy and of a damaged file, written into one."""

    def __init__(self, kind: Kind, options: FormatOptions, writer: _Writer) -> None:
        self._kind, self._options, self._writer = kind, options, writer
        self._kept = self._new = self._replaced = 0
        self._dropped = self._dropped_sound = self._sound = 0
        self._listed: list[Finding] = []

    def result(self) -> Rebuilt:
        """What came of it."""
        return Rebuilt(
            rows=self._kept + self._new + self._replaced,
            kept=self._kept,
            salvaged=self._new + self._replaced,
            replaced=self._replaced,
            dropped=self._dropped,
            dropped_sound=self._dropped_sound,
            dropped_rows=tuple(self._listed),
            damaged_good=self._sound,
            size=self._writer.size,
            sha256=self._writer.sha256,
        )

    # --- without a good copy ---

    def salvage_alone(self, damaged: Path) -> None:
        """The damaged file's header and sound rows. Raises StrangeError where it is none of this kind."""
        with regular(damaged) as source:
            reader = self._kind.learn(source, self._options)
            if reader is None:
                raise StrangeError("C1", "there is not one whole line in it.")
            self._writer.write(source.read(0, reader.body))
            for _, raw, _ in self._sound_rows(source, reader, reader.body):
                self._add(raw)

    # --- with one ---

    def onto(self, good: Source, damaged: Path) -> None:
        """The good copy, and what only the damaged file has."""
        reader = self._kind.learn(good, self._options)
        if reader is None:
            raise BotkeepError("The backup has not one whole line: it cannot be built on.")
        try:
            with regular(damaged) as source:
                self._merge(good, source, reader)
        except FileNotFoundError:
            self._copy(good, reader)

    def _merge(self, good: Source, source: Source, reader: Reader) -> None:
        if self._options.mode == "rewrite" and not _begins_with(source, good):
            self._merge_versions(good, source, reader)
            return
        self._copy(good, reader)
        seam = source.read(max(0, good.size - ANCHOR), min(ANCHOR, good.size)) == good.read(
            max(0, good.size - ANCHOR), min(ANCHOR, good.size)
        )
        known = _Known(good, reader) if not _begins_with(source, good) else None
        for row, raw, offset in self._sound_rows(source, reader, 0):
            behind = seam and offset >= good.size
            if behind or (known is not None and self._is_new(known, row, raw, offset, good.size)):
                self._add(raw)

    def _is_new(self, known: _Known, row: int, raw: bytes, offset: int, size: int) -> bool:
        if known.has(raw):
            return False
        if known.can_be_new(raw, behind=offset >= size):
            return True
        self._dropped_sound += 1
        text = "It is sound, but not as in the backup, and not later than the backup's last row."
        self._drop(Finding("C13", text, False, row, offset))
        return False

    def _merge_versions(self, good: Source, source: Source, reader: Reader) -> None:
        """mode rewrite: newer versions of rows take the place of older ones."""
        by_key = _Known(good, reader).keyed
        newer = self._newer_by_key(source, reader) if by_key else self._newer_by_position(good, source, reader)
        self._writer.write(good.read(0, reader.body))
        for place, (_, raw, _, _) in enumerate(reader.scan(good, reader.body, good.size), start=1):
            fresh = newer.pop(reader.key(raw) if by_key else f"row {place}", raw)
            self._kept += fresh == raw
            self._replaced += fresh != raw
            self._write(fresh)
        for raw in newer.values():
            self._add(raw)

    def _newer_by_key(self, source: Source, reader: Reader) -> dict[str, bytes]:
        rows = self._sound_rows(source, reader, 0)
        return {reader.key(raw) or f"row {row}": raw for row, raw, _ in rows}

    def _newer_by_position(self, good: Source, source: Source, reader: Reader) -> dict[str, bytes]:
        """Rows by their place, if no row went missing; else only those behind the copy's last one in time."""
        own = self._kind.learn(source, self._options)
        first = own.body if own else 0
        found = {f"row {row}": raw for row, raw, _ in self._sound_rows(source, reader, first)}
        rows = sum(1 for _ in reader.scan(good, reader.body, good.size))
        if self._sound + self._dropped >= rows:
            return found
        # Rows are missing, so a place says nothing any more: `row n` must name no row of the copy.
        known = _Known(good, reader)
        found = {f"new {place}": raw for place, raw in found.items()}
        return {place: raw for place, raw in found.items() if not known.has(raw) and known.can_be_new(raw, behind=True)}

    # --- rows ---

    def _sound_rows(self, source: Source, reader: Reader, start: int) -> Iterator[tuple[int, bytes, int]]:
        """(row, bytes, offset) of each sound row; the others are counted and listed."""
        odd = sum(1 for *_, flaw in reader.scan(source, start, source.size) if flaw is not None and _is_odd(flaw))
        scan = reader.scan(source, start, source.size)
        row = 0
        for row, (offset, raw, _, flaw) in enumerate(scan, start=1):
            if flaw is None or (flaw.sound and (flaw.rule == "C6" or odd >= OWN_WAY)):
                self._sound += 1
                yield row, raw, offset
            else:
                self._drop(Finding(flaw.rule, flaw.text, True, row, offset))
        if scan.tail:
            rule = "C1" if scan.hole is None else "C2"
            self._drop(Finding(rule, "It is not whole: the file ends, or is torn, within it.", True, row + 1, scan.end))

    def _drop(self, finding: Finding) -> None:
        self._dropped += 1
        if len(self._listed) < LISTED:
            self._listed.append(finding)

    def _copy(self, good: Source, reader: Reader) -> None:
        for data in good.chunks(0, good.size):
            self._writer.write(data)
        self._kept = sum(1 for _ in reader.scan(good, reader.body, good.size))

    def _add(self, raw: bytes) -> None:
        self._new += 1
        self._write(raw)

    def _write(self, raw: bytes) -> None:
        self._writer.write(raw + b"\n")


def _is_odd(flaw: Flaw) -> bool:
    return flaw.sound and flaw.rule != "C6"


def _begins_with(source: Source, good: Source) -> bool:
    return source.size >= good.size and all(
        ours == theirs for ours, theirs in zip(source.chunks(0, good.size), good.chunks(0, good.size), strict=True)
    )


class _Known:
    """The rows of the good copy: by trade id where every row has its own, else how often each row is in it."""

    def __init__(self, good: Source, reader: Reader) -> None:
        self._reader = reader
        self._last: float | None = None
        self._by_key: dict[bytes, bytes] = {}
        self._times: Counter[bytes] = Counter()
        self.keyed = self._read_keys(good)
        if not self.keyed:
            self._by_key.clear()
            rows = reader.scan(good, reader.body, good.size)
            self._times.update(_digest(raw) for _, raw, _, _ in rows)

    def _read_keys(self, good: Source) -> bool:
        count = 0
        for _, raw, at, _ in self._reader.scan(good, self._reader.body, good.size):
            count += 1
            if at is not None:
                self._last = at if self._last is None else max(at, self._last)
            if key := self._reader.key(raw):
                self._by_key[_digest(key.encode())] = _digest(raw)
        return len(self._by_key) == count

    def has(self, raw: bytes) -> bool:
        """Whether the copy has this row; each of several equal ones is found once."""
        if self.keyed:
            return self._by_key.get(_digest(self._reader.key(raw).encode())) == _digest(raw)
        self._times[_digest(raw)] -= 1
        return self._times[_digest(raw)] >= 0

    def can_be_new(self, raw: bytes, *, behind: bool) -> bool:
        """Whether a row that the copy has not is another trade, and not an old one that was changed.

        Another trade id is another trade; an id that the copy knows may be counted anew by a bot that lost its file.
        """
        key = self._reader.key(raw)
        if self.keyed and key and _digest(key.encode()) not in self._by_key:
            return True
        at = self._reader.flaw(raw)[1]
        if at is None or self._last is None:
            return behind
        return at > self._last or (at == self._last and behind)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data.rstrip(b"\r"), digest_size=16).digest()
