"""One record file made from two: the rows of a good copy, and the good rows of a damaged file that it has not."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from ..model import BotkeepError, Finding
from .base import FormatOptions, Rebuilt
from .files import ANCHOR, Source, regular
from .knowledge import LISTED, OWN_WAY
from .records import Flaw, Kind, Reader, StrangeError


class HashedWriter:
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


class Merge:
    """The rows of a good copy and of a damaged file, written into one."""

    def __init__(self, kind: Kind, options: FormatOptions, writer: HashedWriter) -> None:
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
            if known is not None and known.keyed and known.has(raw):
                continue
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
        """Rows by their place, as far as the copy has the same trade in that place; else only those that can be new.

        Rows may be gone and as many others have come: then a place says nothing, and no count of them tells. Once one
        row stands in another's place, the others have to be alike in price and amount too to be the same trades.
        """
        own = self._kind.learn(source, self._options)
        first = own.body if own else 0
        found = {row: (raw, offset) for row, raw, offset in self._sound_rows(source, reader, first)}
        known = _Known(good, reader)
        old = {row: raw for row, (_, raw, _, _) in enumerate(reader.scan(good, reader.body, good.size), start=1)}
        both = [(row, old[row], raw) for row, (raw, _) in found.items() if row in old]
        same = [pair for pair in both if known.in_place(*pair[1:], _SAME)]
        shifted = len(same) < len(both)
        newer = {f"row {row}": raw for row, before, raw in same if not shifted or known.in_place(before, raw, _ALIKE)}
        for row, before, _ in same:
            if f"row {row}" in newer:
                known.has(before)
                del found[row]
        straight = not shifted and self._sound + self._dropped >= len(old)
        for row, (raw, offset) in found.items():
            if straight or self._is_new(known, row, raw, offset, 0):
                newer[f"new {row}"] = raw
        return newer

    # --- rows ---

    def _sound_rows(self, source: Source, reader: Reader, start: int) -> Iterator[tuple[int, bytes, int]]:
        """(row, bytes, offset) of each sound row; the others are counted and listed."""
        odd = sum(1 for *_, flaw in reader.scan(source, start, source.size) if flaw is not None and _is_odd(flaw))
        scan = reader.scan(source, start, source.size)
        row = 0
        met: set[bytes] = set()
        for row, (offset, raw, _, flaw) in enumerate(scan, start=1):
            if (flaw is None or flaw.sound) and _met(reader, raw, met):
                self._drop(Finding("C7", "It stands in the file already, with the same trade id.", True, row, offset))
            elif flaw is None or flaw.harmless or (flaw.sound and odd >= OWN_WAY):
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


def _met(reader: Reader, raw: bytes, met: set[bytes]) -> bool:
    """Whether this very row, with its trade id, was met before. Without an id an equal row may be another fill."""
    if not reader.key(raw):
        return False
    digest, before = _digest(raw), len(met)
    met.add(digest)
    return len(met) == before


class _Roles(Protocol):
    @property
    def roles(self) -> Mapping[str, int]: ...


@runtime_checkable
class _Telling(Protocol):
    """A reader that tells what a row says, cell by cell."""

    @property
    def layout(self) -> _Roles: ...
    def cells(self, raw: bytes) -> list[str]: ...


_SAME = ("opened", "time", "symbol", "side", "id", "order_id")
_ALIKE = (*_SAME, "price", "amount", "entry")


def _said(reader: Reader, raw: bytes, wanted: Sequence[str]) -> list[str]:
    """What a row says in these roles; blank where the file has no such column."""
    flaw, at = reader.flaw(raw)
    if not isinstance(reader, _Telling) or (flaw is not None and not flaw.sound):
        return [str(at or "")] * len(wanted)
    cells, roles = reader.cells(raw), reader.layout.roles
    return [cells[roles[role]].strip() if role in roles else "" for role in wanted]


def all_named(good: Source, reader: Reader) -> bool:
    """Whether every record of the copy has a trade id, or key, and no other has the same."""
    return _Known(good, reader).keyed


def _is_odd(flaw: Flaw) -> bool:
    return flaw.sound and not flaw.harmless


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

    def in_place(self, old: bytes, raw: bytes, roles: Sequence[str]) -> bool:
        """Whether a row is the copy's row of the same place, or a newer version of it: not another row of the copy.

        What the older one says in these roles, the newer one says too: the time at which a trade was closed is blank
        while it is open.
        """
        if raw == old:
            return True
        said = zip(_said(self._reader, old, roles), _said(self._reader, raw, roles), strict=True)
        return self._times[_digest(raw)] <= 0 and all(before in ("", after) for before, after in said)

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
