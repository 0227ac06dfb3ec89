"""Copies of record files: a point-in-time snapshot of one that is written to, a file rebuilt from two, one added to."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..model import BotkeepError, Finding
from .adding import append as append
from .base import FormatOptions, Rebuilt, SnapshotCut
from .files import CAP, CHUNK, Source, UnreadableError, facts_of, marks, regular
from .headers import header_of
from .merging import HashedWriter, Merge
from .records import HEAD, Kind, Reader, StrangeError

TRIES = 5
PARTS = 64
"""Pieces of a snapshot that are hashed one by one, so that it can be said later where something changed."""
SMALLEST = 256
"""Bytes of the smallest such piece."""
SHORT = 16
"""Hexadecimal digits of a piece's hash."""


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
                writer = HashedWriter(file)
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


def _is_one_version(source: Source, writer: HashedWriter) -> bool:
    before = source.stat
    if writer.size < before.st_size:
        return False
    after = os.fstat(source.fd)
    if (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
        return True
    return source.digest(0, before.st_size) == writer.sha256


def _cut(kind: Kind, target: Path, writer: HashedWriter, source: Source, options: FormatOptions) -> SnapshotCut:
    facts = facts_of(source.stat)
    with regular(target) as copy:
        end, rows, first, header = _ends(kind, copy, options, quoted=writer.quoted)
        sha256 = writer.sha256 if end == copy.size else copy.digest(0, end)
        mark = {
            "size": end,
            "sha256": sha256,
            "rows": rows,
            "parts": _parts(copy, end),
            "header": header,
        }
    if end < writer.size:
        os.truncate(target, end)
        with target.open("rb") as file:
            os.fsync(file.fileno())
    return SnapshotCut(end, sha256, facts, first, mark)


def _ends(kind: Kind, copy: Source, options: FormatOptions, *, quoted: bool) -> tuple[int, int, datetime | None, str]:
    """Where the last whole record ends, how many there are, the time of the first one, and the header.

    A line end within quotes ends no record.
    """
    try:
        reader = kind.learn(copy, options)
    except StrangeError:
        return copy.size, 0, None, ""  # the check of the copy will say so
    if reader is None:
        return 0, 0, None, ""
    if quoted:
        scan = reader.scan(copy, reader.body, copy.size)
        rows = sum(1 for _ in scan)
        end = scan.end
    else:
        end = _last_line_end(copy)
        rows = _count_lines(reader, copy, end)
    return end, rows, _first_time(reader, copy), header_of(reader)


def _count_lines(reader: Reader, copy: Source, end: int) -> int:
    """Records of a file without quotes. Where no line is blank or the header again, counting line ends is enough."""
    if end - reader.body <= CHUNK:
        data, header = copy.read(reader.body, end - reader.body), copy.read(0, reader.body).strip()
        if not _BLANK.search(b"\n" + data) and not (header and header in data):
            return data.count(b"\n")
    return sum(not reader.blank(line) for line in _lines(copy, reader.body, end))


_BLANK = re.compile(rb"\n[ \t\r\x0b\x0c]*\n")


def _first_time(reader: Reader, copy: Source) -> datetime | None:
    rows = reader.scan(copy, reader.body, min(copy.size, reader.body + HEAD))
    first = next((at for _, _, at, flaw in rows if flaw is None), None)
    return datetime.fromtimestamp(first, UTC) if first is not None else None


def _count(reader: Reader, copy: Source) -> int:
    return sum(1 for _ in reader.scan(copy, reader.body, copy.size))


def _lines(copy: Source, start: int, stop: int) -> Iterator[bytes]:
    """The lines of [start, stop) without their ends; `stop` is where a line ended."""
    rest = b""
    for data in copy.chunks(start, stop):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _last_line_end(copy: Source) -> int:
    stop = copy.size
    while stop > 0:
        start = max(0, stop - CHUNK)
        found = copy.read(start, stop - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        stop = start
    return 0


# --- comparison --------------------------------------------------------------------------------------------------


def _parts(copy: Source, size: int) -> list[str]:
    """A short hash of each of up to PARTS equal pieces of [0, size)."""
    step = _step(size)
    return [copy.digest(start, min(start + step, size))[:SHORT] for start in range(0, size, step)]


def _step(size: int) -> int:
    return max(SMALLEST, -(-size // PARTS))


def compare(kind: Kind, copy: Path, last: Mapping[str, Any], *, options: FormatOptions) -> tuple[Finding, ...]:
    """A format's `compare`, for record files.

    What the earlier snapshot held must still be what the copy begins with. Where it is not: fewer rows are lost ones;
    as many or more, in mode append, are rows that somebody changed. In mode rewrite only lost rows are said.
    """
    try:
        with regular(copy) as source:
            size = int(last["size"])
            if source.size >= size and source.digest(0, size) == last["sha256"]:
                return ()
            return _differences(kind, source, last, options)
    except FileNotFoundError as error:
        raise BotkeepError(f"There is no file {copy}: it cannot be compared with the last backup.") from error
    except UnreadableError as error:
        raise BotkeepError(f"{copy} cannot be compared with the last backup: {error}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BotkeepError(f"The mark of the last backup cannot be read ({error!r}): back up anew.") from error


def _differences(kind: Kind, source: Source, last: Mapping[str, Any], options: FormatOptions) -> tuple[Finding, ...]:
    try:
        reader = kind.learn(source, options)
    except StrangeError as strange:
        return (Finding(strange.rule, str(strange), True, offset=strange.offset),)
    rows, before = (_count(reader, source) if reader else 0), int(last["rows"])
    found: list[Finding] = []
    if last.get("header") and reader is not None and not header_of(reader):
        found.append(Finding("C3", "Its header, which the last backup has, is gone.", True, offset=0))
    if rows < before:
        text = f"It has {rows} rows; the last backup has {before}."
        found.append(Finding("C10", text, True, offset=min(source.size, int(last["size"]))))
    if options.mode != "rewrite" and reader is not None:
        found += _changed(reader, source, last)
    return tuple(found)


def _changed(reader: Reader, source: Source, last: Mapping[str, Any]) -> list[Finding]:
    """Where the copy differs from what was backed up, as far as the hashes of its pieces tell."""
    size, parts = int(last["size"]), [str(part) for part in last.get("parts", ())]
    step = _step(size)
    starts = range(0, size, step)
    same = [
        source.digest(start, min(start + step, size))[:SHORT] == part
        for start, part in zip(starts, parts, strict=False)
    ]
    wrong = [place for place, one in enumerate(same) if not one]
    if not wrong:
        return [Finding("C13", "Rows that were backed up are not as they were.", True)]
    first, after = wrong[0] * step, min((wrong[-1] + 1) * step, size)
    rows = [number for number, offset, end in _places(reader, source) if end > first and offset < after]
    if not rows:
        return [Finding("C13", f"Its bytes {first} to {after} are not as they were backed up.", True, None, first)]
    text = f"Something in rows {rows[0]} to {rows[-1]}, which were backed up, is not as it was."
    return [Finding("C13", text, True, rows[0], first)]


def _places(reader: Reader, source: Source) -> Iterator[tuple[int, int, int]]:
    """(row, where it begins, where it ends) of each record."""
    for row, (offset, raw, _, _) in enumerate(reader.scan(source, reader.body, source.size), start=1):
        yield row, offset, offset + len(raw)


# --- what a plan is bound to -------------------------------------------------------------------------------------


def evidence(path: Path) -> dict[str, Any]:
    """A format's `evidence`: the whole content, by hash. Of a file too large to read: of its two ends."""
    try:
        with regular(path) as source:
            seen = source.stat
            found = {"dev": seen.st_dev, "ino": seen.st_ino, "size": seen.st_size, "mtime_ns": seen.st_mtime_ns}
            return found | _content(source, seen.st_size)
    except FileNotFoundError:
        return {}
    except UnreadableError as error:
        raise BotkeepError(f"{path} cannot be read: {error}. Mend that first.") from error


def _content(source: Source, size: int) -> dict[str, str]:
    return {"sha256": source.digest(0, size)} if size <= CAP else marks(source, size)


def stands(path: Path, evidence: Mapping[str, Any]) -> bool:
    """A format's `stands`: the file begins with the content of the evidence, under whatever inode."""
    try:
        with regular(path) as source:
            if not evidence or source.size < int(evidence["size"]):
                return False
            found = _content(source, int(evidence["size"]))
            return all(evidence.get(name) == value for name, value in found.items())
    except FileNotFoundError:
        return not evidence
    except (UnreadableError, KeyError, TypeError, ValueError):
        return False


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
            writer = HashedWriter(file)
            merge = Merge(kind, options, writer)
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
