"""Rows that stand twice, and rows older than the ones before them: seen in one pass, with a memory that does not grow.

1. Each row is looked for among the last few hundred; their hashes are in the cursor, so that a look goes on there.
2. A row that is older than the newest one so far may stand further back. The first of them are remembered, and looked
   for once in the bytes before them. A row that is newer than all others stands nowhere else, for a row that stands
   twice has one time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .files import Source

WINDOW = 256
"""Rows among which a copy is found at once; up to twice as many while a file is read."""
LONGEST = 4096
"""Bytes of the longest row that is remembered."""
FAR = 200
"""Older rows of one look that are looked for further back."""
REACH = 16 << 20
"""Bytes before them in which they are looked for: about 170,000 rows, a twentieth of a second."""
TOLERANCE = 60.0
"""Seconds that a row may be older than the one before it: exchanges report in batches, and the clocks of two differ."""


@dataclass
class Passage:
    """What is remembered of the rows so far."""

    newest: float | None = None
    """Epoch seconds."""
    last: float | None = None
    back: int = 0
    """Rows that are older than the one before them by more than the tolerance."""
    first_back: tuple[int, int] | None = None
    """Row and offset of the first of them."""
    paired: int = 0
    """Rows like the very one before them."""
    alike: int = 0
    """Rows like another one that have no trade id: perhaps two fills, perhaps one."""
    window: tuple[str, ...] = ()
    """Hashes of the last rows of the looks before this one."""
    near: dict[bytes, None] = field(default_factory=dict)
    nearer: dict[bytes, None] = field(default_factory=dict)
    far: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Passage:
        """The reverse of `as_json`. Raises KeyError, TypeError or ValueError."""
        back = raw["first_back"]
        return cls(**{**raw, "first_back": tuple(back) if back else None, "window": tuple(raw["window"])})

    def as_json(self) -> dict[str, Any]:
        """For a cursor."""
        plain = ("newest", "last", "back", "first_back", "paired", "alike")
        return {name: getattr(self, name) for name in plain} | {"window": self._hashes()}

    def copy(self) -> Passage:
        """One to go on from, while this one stays for another try."""
        return replace(self, window=tuple(self._hashes()), near={}, nearer={}, far={})

    def _hashes(self) -> list[str]:
        read = [*self.near, *self.nearer][-WINDOW:]
        kept = self.window[len(self.window) - (WINDOW - len(read)) :] if len(read) < WINDOW else ()
        return [*kept, *map(_hash, read)]

    def meet(self, raw: bytes, at: float | None, row: int, offset: int) -> bool:
        """The next sound row; whether one like it was among the last ones."""
        near = raw in self.nearer or raw in self.near or bool(self.window and _hash(raw) in self.window)
        if at is not None:
            if self.newest is not None and at > self.newest:
                self.newest = self.last = at
            else:
                self._late(raw, at, row, offset, near)
        if near:
            self.paired += raw == next(reversed(self.nearer), b"")
        elif len(raw) <= LONGEST:
            self.nearer[raw] = None
            if len(self.nearer) >= WINDOW:
                self.near, self.nearer, self.window = self.nearer, {}, ()
        return near

    def _late(self, raw: bytes, at: float, row: int, offset: int, near: bool) -> None:
        """A row that is no newer than all before it."""
        if self.newest is None or self.last is None:
            self.newest = self.last = at
            return
        if at < self.last - TOLERANCE:
            self.back += 1
            self.first_back = self.first_back or (row, offset)
        self.last = at
        if not near and at < self.newest - TOLERANCE and len(self.far) < FAR and len(raw) <= LONGEST:
            self.far.setdefault(raw, (row, offset))

    def found_further_back(self, source: Source, body: int) -> Iterator[tuple[bytes, int, int]]:
        """(bytes, row, offset) of each older row that stands in the bytes before the first of them, too."""
        if not self.far:
            return
        stop = min(offset for _, offset in self.far.values())
        there: set[bytes] = set()
        rest = b""
        for data in source.chunks(max(body, stop - REACH), stop):
            *lines, rest = (rest + data).split(b"\n")
            there.update(filter(self.far.__contains__, lines))
        for raw in there:
            yield raw, *self.far[raw]


def _hash(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=6).hexdigest()
