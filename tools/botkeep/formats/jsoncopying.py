"""Copies of JSON documents: a point-in-time snapshot, one rebuilt from two, one with trades added, two compared."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..model import BotkeepError, ClosedTrade, Fill, Finding
from . import copying
from .base import Appended, FormatOptions, Rebuilt, SnapshotCut
from .files import CAP, Source, UnreadableError, facts_of, marks, regular
from .jsondoc import Document, Kind
from .jsonfolding import Frame, Unfolded, fold, frame_of, unfold
from .merging import HashedWriter, all_named
from .records import StrangeError

TRIES = 5
NEWEST = 20
"""Records at the end of a snapshot whose trade ids are remembered."""
MOST_SOME = 50
"""And of how many from all over it."""
_TAIL = 4096


# --- snapshot ----------------------------------------------------------------------------------------------------


def snapshot(kind: Kind, path: Path, target: Path, options: FormatOptions) -> SnapshotCut:
    """A format's `snapshot`.

    1. Copy what the file holds now, from one descriptor; again, if it changed meanwhile or is not whole: five times.
    2. A document that stays torn is nobody's any more: its copy ends with its last whole record, and is closed.
    """
    try:
        torn = ""
        for tried in range(TRIES):
            time.sleep(tried * 0.05)
            with regular(path) as source:
                before, identity, last = source.stat, source.identity, tried == TRIES - 1
                if identity == torn and not last:
                    continue
                sha256 = _copied(source, target)
                source.refresh()
                torn = identity if identity == source.identity else ""
            if torn and (made := _cut(kind, target, before, sha256, options, last=last)):
                return made
    except FileNotFoundError as error:
        raise BotkeepError(f"There is no file {path}, so there is nothing to copy.") from error
    except UnreadableError as error:
        raise BotkeepError(f"{path} cannot be copied: {error}.") from error
    except OSError as error:
        raise BotkeepError(f"{path} cannot be copied to {target.parent}: {error.strerror}.") from error
    raise BotkeepError(f"{path} is written over all the time: {TRIES} copies were each of two versions. Ask again.")


def _copied(source: Source, target: Path) -> str:
    with target.open("wb") as file:
        writer = HashedWriter(file)
        for data in source.chunks(0, source.size):
            writer.write(data)
        writer.done()
        return writer.sha256


def _cut(
    kind: Kind, target: Path, seen: os.stat_result, sha256: str, options: FormatOptions, *, last: bool
) -> SnapshotCut | None:
    """The copy, closed where it is torn; None: it is torn, and this was not the last try."""
    facts = facts_of(seen)
    with regular(target) as copy:
        reader = _learn(kind, copy, options)
        if reader is None:
            return SnapshotCut(copy.size, sha256, facts)  # the check of the copy will say so
        scan = reader.scan(copy, reader.body, copy.size)
        summary = _Summary(reader)
        for _, raw, at, flaw in scan:
            summary.add(raw, at, sound=flaw is None)
        if scan.closed:
            return SnapshotCut(copy.size, sha256, facts, summary.first, summary.mark(copy.size, sha256))
        if not last:
            return None
        frame = frame_of(reader, copy)
    size, sha256 = _closed(target, scan.end, frame)
    return SnapshotCut(size, sha256, facts, summary.first, summary.mark(size, sha256))


def _learn(kind: Kind, copy: Source, options: FormatOptions) -> Document | None:
    try:
        return kind.learn(copy, options)
    except StrangeError:
        return None


def _closed(target: Path, end: int, frame: Frame) -> tuple[int, str]:
    """Cut behind the last whole record, and write the brackets that are missing. Returns size and sha256."""
    with target.open("r+b") as file:
        file.truncate(end)
        file.seek(end)
        file.write(frame.after)
        file.flush()
        os.fsync(file.fileno())
    with regular(target) as copy:
        return copy.size, copy.digest(0, copy.size)


class _Summary:
    """What is remembered of a snapshot: how many records, and ids of the newest ones and of some from all over it."""

    def __init__(self, reader: Document) -> None:
        self._reader = reader
        self._rows = 0
        self._newest: deque[bytes] = deque(maxlen=NEWEST)
        self._some: list[bytes] = []
        self._step = 1
        self.first: datetime | None = None

    def add(self, raw: bytes, at: float | None, *, sound: bool) -> None:
        """The next record."""
        self._rows += 1
        if not sound:
            return
        self._newest.append(raw)
        if self._rows % self._step == 1 % self._step:
            self._some.append(raw)
        if len(self._some) > MOST_SOME:
            del self._some[1::2]
            self._step *= 2
        if self.first is None and at is not None:
            self.first = datetime.fromtimestamp(at, UTC)

    def mark(self, size: int, sha256: str) -> dict[str, Any]:
        """Plain JSON."""
        newest, some = self._keys(self._newest), self._keys(self._some)
        return {"size": size, "sha256": sha256, "rows": self._rows, "newest": newest, "some": some}

    def _keys(self, records: Iterable[bytes]) -> list[str]:
        return [_short(key) for raw in records if (key := self._reader.key(raw))]


def _short(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16]


# --- comparison --------------------------------------------------------------------------------------------------


def compare(kind: Kind, copy: Path, last: Mapping[str, Any], options: FormatOptions) -> tuple[Finding, ...]:
    """A format's `compare`: fewer records, or such that were there and are not any more, by their ids.

    Records that were changed are none to speak of: such a file is written anew each time, an open trade is closed in
    it. In mode rewrite the oldest ones may go where others take their place: a bot may keep only its last thousand.
    """
    try:
        rows, wanted = int(last["rows"]), {str(one) for one in last["newest"]}
        wanted |= set() if options.mode == "rewrite" else {str(one) for one in last["some"]}
        with regular(copy) as source:
            if source.size == last["size"] and source.digest(0, source.size) == last["sha256"]:
                return ()
            reader = kind.learn(source, options)
            return _lost(reader, source, rows, wanted)
    except StrangeError as strange:
        return (Finding(strange.rule, str(strange), True, offset=strange.offset),)
    except FileNotFoundError as error:
        raise BotkeepError(f"There is no file {copy}: it cannot be compared with the last backup.") from error
    except UnreadableError as error:
        raise BotkeepError(f"{copy} cannot be compared with the last backup: {error}.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BotkeepError(f"The mark of the last backup cannot be read ({error!r}): back up anew.") from error


def _lost(reader: Document | None, source: Source, rows: int, wanted: set[str]) -> tuple[Finding, ...]:
    has = 0
    for _, raw, _, flaw in reader.scan(source, reader.body, source.size) if reader else ():
        has += 1
        if wanted and (flaw is None or flaw.sound):
            wanted.discard(_short(reader.key(raw)) if reader else "")
    if has < rows:
        return (Finding("C10", f"It has {has} records; the last backup has {rows}.", True),)
    if wanted:
        text = (
            f"It has {has} records, and yet at least {len(wanted)} of the {rows} in the last backup are gone. "
            'If the bot keeps only its newest records, say so: "data_format": {"mode": "rewrite"}.'
        )
        return (Finding("C10", text, True),)
    return ()


# --- what a plan is bound to -------------------------------------------------------------------------------------


def evidence(path: Path) -> dict[str, Any]:
    """A format's `evidence`: the whole content by hash, and that up to the closing brackets by itself."""
    found = copying.evidence(path)
    if not found:
        return {}
    with regular(path) as source:
        to = _before_brackets(source)
        return found | {"to": to, "begins": _print_of(source, to)}


def _before_brackets(source: Source) -> int:
    """Where the last thing stands that is neither a bracket nor a blank: a file with more records goes on there."""
    start = max(0, source.size - _TAIL)
    return start + len(source.read(start, _TAIL).rstrip(b" \t\r\n]}"))


def _print_of(source: Source, to: int) -> str:
    return source.digest(0, to) if to <= CAP else marks(source, to)["anchor"]


def stands(path: Path, evidence: Mapping[str, Any]) -> bool:
    """A format's `stands`: the document begins with the records of the evidence, under whatever inode."""
    try:
        with regular(path) as source:
            if not evidence:
                return False
            to = int(evidence["to"])
            grown = source.size > int(evidence["size"]) and _print_of(source, to) == evidence["begins"]
            return grown or copying.stands(path, {name: evidence[name] for name in _SAME if name in evidence})
    except FileNotFoundError:
        return not evidence
    except (UnreadableError, KeyError, TypeError, ValueError):
        return False


_SAME = ("size", "sha256", "head", "anchor")


# --- rebuilt, and added to ---------------------------------------------------------------------------------------


def rebuild(kind: Kind, good: Path | None, damaged: Path, target: Path, options: FormatOptions) -> Rebuilt:
    """A format's `rebuild`: both documents as lines, merged as lines are, and put together as the good copy is.

    Records are told by their trade ids, or keys; the newer version of one takes the place of the older. Without ids,
    records count as new that the good copy has not and that are later.
    """
    with _errors(f"{target.name} cannot be built from {damaged.name}"), _scratch(target) as folder:
        pattern = good or damaged
        with regular(pattern) as source:
            reader = kind.learn(source, options)
            if reader is None:
                what = "The backup" if good else damaged.name
                raise BotkeepError(f"{what} has not one whole record: it cannot be built on.")
            frame = frame_of(reader, source)
        lines = _as_lines(reader, good, folder / "good") if good else None
        torn, holes = _damaged_lines(kind, reader, damaged, folder / "damaged", options)
        made = copying.rebuild(
            Unfolded(reader), lines, torn, folder / "new", options=_merging(reader, lines, options, holes=holes)
        )
        size, sha256 = _folded(frame, reader, folder / "new", target)
        dropped = tuple(replace(finding, offset=None) for finding in made.dropped_rows)
        return replace(made, size=size, sha256=sha256, dropped_rows=dropped)


def _as_lines(reader: Document, path: Path, target: Path) -> Path:
    with regular(path) as source, target.open("wb") as file:
        unfold(reader, source, file)
    return target


def _damaged_lines(kind: Kind, reader: Document, path: Path, target: Path, options: FormatOptions) -> tuple[Path, int]:
    """The damaged document as lines, and how many of them are damage; a missing one is a missing file.

    It is read in its own layout if it has one; a lost beginning is damage before its first record.
    """
    try:
        with regular(path) as source, target.open("wb") as file:
            own = _learn(kind, source, options)
            if own is None or (reader.typed and not own.typed):
                own = replace(reader, layout=replace(reader.layout, body=0))
            return target, unfold(own, source, file)
    except FileNotFoundError:
        return target.with_name("missing"), 0


def _merging(reader: Document, good: Path | None, options: FormatOptions, *, holes: int) -> FormatOptions:
    """By ids, a newer version replaces an older: where each has its own.

    By position only if no record can have been lost in between.
    """
    named = "id" in reader.layout.roles or reader.layout.keyed
    versions = (named or options.mode == "rewrite") and (not holes or _all_named(reader, good))
    return replace(options, mode="rewrite" if versions else "append")


def _all_named(reader: Document, lines: Path | None) -> bool:
    if lines is None:
        return False
    with regular(lines) as source:
        unfolded = Unfolded(reader).learn(source, FormatOptions())
        return unfolded is not None and all_named(source, unfolded)


def _folded(frame: Frame, reader: Document, lines: Path, target: Path) -> tuple[int, str]:
    with target.open("wb") as file:
        writer = HashedWriter(file)
        fold(frame, reader, lines, writer)
        writer.done()
    return writer.size, writer.sha256


def append(kind: Kind, path: Path, trades: Sequence[Fill | ClosedTrade], options: FormatOptions) -> Appended:
    """A format's `append`: as lines, each trade where its time belongs; the old file is whole until the new one is."""
    with _errors(f"no trade can be added to {path.name}"), _scratch(path) as folder:
        with regular(path) as source:
            reader = kind.learn(source, options)
            if reader is None:
                raise BotkeepError(f"{path.name} has no record: it is not clear how a trade is written in it.")
            frame, mode = frame_of(reader, source), source.stat.st_mode & 0o7777
        lines = _as_lines(reader, path, folder / "lines")
        made = copying.append(Unfolded(reader), lines, trades, options=options)
        size, sha256 = _folded(frame, reader, lines, folder / "new")
        (folder / "new").chmod(mode)
        os.replace(folder / "new", path)
        _sync(path.parent)
        return replace(made, size=size, sha256=sha256)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A folder beside the file, on its disk, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name[:40]}-", dir=target.parent) as folder:
        yield Path(folder)


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Whatever is in the way, as a BotkeepError."""
    try:
        yield
    except StrangeError as error:
        raise BotkeepError(f"{what[:1].upper()}{what[1:]}: {error}") from error
    except FileNotFoundError as error:
        raise BotkeepError(f"{what[:1].upper()}{what[1:]}: {error.filename} is not there.") from error
    except UnreadableError as error:
        raise BotkeepError(f"{what[:1].upper()}{what[1:]}: {error}.") from error
    except OSError as error:
        raise BotkeepError(f"{what[:1].upper()}{what[1:]}: {error.strerror or error}.") from error
