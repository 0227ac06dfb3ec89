"""Finding the few lines of a log that may mean something: one search for the literal texts of all patterns at once.

A hundred megabytes of lines that mean nothing take as long as one `grep`; no line of them is decoded, or even told
from the next.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from .logfile import Block
from .logjoin import WIDTH
from .profiles.catalogue import DATED, Catalogue
from .profiles.patterns import Search, compiled_texts
from .profiles.signature import LinePattern, MarkPattern

ENOUGH = 16
"""Texts found in lines that belong together; then all patterns are tried."""
MANY = 500
"""Marks of one kind in one look before they may be a crowd: a day of heartbeats is none."""
PER_BLOCK = 12
"""Of them, on average: fewer are looked at in no time."""
_CUT_WORD = rb"\n(?:[!-\x7f]|[\xc0-\xff][\x80-\xbf]+){%d}\r?\n" % WIDTH
"""A line that a console made of the inside of a long word: a text may be cut by its ends."""
_FOLD = rb"\s{1,3}"
"""What stands for a blank where a line was folded: the blank itself may still be there."""
_NEWLINE = 10
_ESCAPE = b"\x1b"
_COLOURS = re.compile(rb"\x1b\[[0-?]{0,64}[@-~]")


class Hit(NamedTuple):
    """Lines that belong together, of which one holds the text of a pattern."""

    start: int
    end: int
    """Of the last newline, in the data that was searched."""
    patterns: tuple[LinePattern, ...] | None
    """Those that may match, in order; None: any."""
    alone: bool = False
    """There may be more of the kind above it that nobody looks at."""


class Searched:
    """A block as it is searched: without the colours that may stand inside a text."""

    def __init__(self, block: Block) -> None:
        self.older = block.older
        self._block = block
        coloured = _ESCAPE in block.data
        self.data = _COLOURS.sub(b"", block.data) if coloured else block.data
        self._line_ends = [found.start() for found in re.finditer(rb"\n", block.data)] if coloured else None

    def offset(self, line: int) -> int:
        """Where the line that begins at `line` of `data` begins in its file."""
        if self._line_ends is None:
            return self._block.offset + line
        above = self.data.count(b"\n", 0, line)
        return self._block.offset + (self._line_ends[above - 1] + 1 if above else 0)


Bounds = Callable[[bytes, int], tuple[int, int]]
"""(data, place) -> beginning and end of the lines that belong together there."""


class Scanner:
    """Searches blocks of whole lines for the texts of patterns."""

    def __init__(self, patterns: Sequence[LinePattern], *, joined: bool) -> None:
        """`joined`: a fold may stand where a text has a blank, or inside a long word."""
        self.patterns = tuple(patterns)
        self._numbers = _numbers_by_text(patterns)
        self._single = {text: self._numbered(numbers) for text, numbers in self._numbers.items()}
        self.is_slow = any(not one.contains for one in patterns)
        """A pattern without literal text: every line is tried."""
        self._search = None if self.is_slow or not patterns else _search_for(patterns, joined=joined)

    def hits(self, data: bytes, bounds: Bounds) -> Iterator[Hit]:
        """Where a pattern may match, in order, all lines that belong together once. `data` ends with a newline."""
        if self.is_slow:
            yield from _everything(data, bounds)
        elif self._search is not None:
            yield from self._found(data, bounds, self._search)

    def _found(self, data: bytes, bounds: Bounds, search: Search) -> Iterator[Hit]:
        found = search(data)
        while found is not None:
            place, after = found.span()
            start, end = bounds(data, place + (data[place] == _NEWLINE))
            texts: list[bytes] = []
            while found is not None and place < end and len(texts) < ENOUGH:
                texts.append(data[place:after])
                found = search(data, place + 1)
                place, after = found.span() if found is not None else (end, end)
            if found is not None and place < end:
                found = search(data, end)
            yield Hit(start, end, self._of(texts) if len(texts) < ENOUGH else None)

    def _of(self, texts: Sequence[bytes]) -> tuple[LinePattern, ...] | None:
        """The patterns of these texts; None if there is one that is none, but only a place where one may be cut."""
        if len(texts) == 1:
            return self._single.get(_key(texts[0]))
        found = [self._numbers.get(_key(text)) for text in set(texts)]
        if None in found:
            return None
        return self._numbered({number for numbers in found for number in numbers or ()})

    def _numbered(self, numbers: Iterable[int]) -> tuple[LinePattern, ...]:
        return tuple(self.patterns[number] for number in sorted(numbers))


@lru_cache(maxsize=32)
def scanner_for(patterns: tuple[LinePattern, ...], *, joined: bool) -> Scanner:
    """The scanner for these patterns: one for all looks and all bots."""
    return Scanner(patterns, joined=joined)


class Crowded:
    """Searches the blocks of one look. Of marks that come by the dozen, only the newest in each block is looked at.

    They state facts, and a fact of a flood's middle is of no use to anybody: not its time, and not one in thousands.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._all = catalogue.patterns
        self._joined = catalogue.joins == DATED
        self._marks = {mark.id: mark for mark in catalogue.marks if mark.contains}
        self._stated: Counter[str] = Counter()
        self._crowd: tuple[str, ...] = ()
        self._scanners: dict[tuple[str, ...], Scanner] = {}
        self._blocks = 0

    def hits(self, data: bytes, bounds: Bounds, *, far: bool) -> Iterator[Hit]:
        """As `Scanner.hits`. `far`: so far before the end of the log that the newest of a crowd are enough."""
        crowd = self._crowd if far else ()
        yield from self._scanner(crowd).hits(data, bounds)
        for name in crowd:
            place = max(data.rfind(text) for text in self._marks[name].literals)
            if place >= 0:
                yield Hit(*bounds(data, place), (self._marks[name],), alone=True)
        self._blocks += 1
        many = max(MANY, self._blocks * PER_BLOCK)
        known = self._crowd
        self._crowd += tuple(name for name, count in self._stated.items() if count > many and name not in known)

    def stated(self, mark: MarkPattern) -> None:
        """A line was one of these."""
        if mark.id in self._marks:
            self._stated[mark.id] += 1

    def _scanner(self, crowd: tuple[str, ...]) -> Scanner:
        if crowd not in self._scanners:
            left_out = [self._marks[name] for name in crowd]
            patterns = tuple(one for one in self._all if not any(one is mark for mark in left_out))
            self._scanners[crowd] = scanner_for(patterns, joined=self._joined)
        return self._scanners[crowd]


def _everything(data: bytes, bounds: Bounds) -> Iterator[Hit]:
    place = 0
    while place < len(data):
        start, end = bounds(data, place)
        yield Hit(start, end, None)
        place = end + 1


def _search_for(patterns: Sequence[LinePattern], *, joined: bool) -> Search:
    """The longest text first: where several begin, it is the one that is found."""
    texts = sorted({text for one in patterns for text in one.literals}, key=lambda text: (-len(text), text))
    written = [_FOLD.join(map(re.escape, re.split(rb"\s+", text))) if joined else re.escape(text) for text in texts]
    return compiled_texts(b"|".join([*written, _CUT_WORD] if joined else written))


def _numbers_by_text(patterns: Sequence[LinePattern]) -> Mapping[bytes, frozenset[int]]:
    """Found text -> the patterns that it may be of: with it, every text that it begins with was found."""
    numbers: defaultdict[bytes, set[int]] = defaultdict(set)
    for number, pattern in enumerate(patterns):
        for text in pattern.literals:
            numbers[_key(text)].add(number)
    starts = {text: [text[:end] for end in range(len(text) + 1) if text[:end] in numbers] for text in numbers}
    return {text: frozenset().union(*(numbers[start] for start in starts[text])) for text in numbers}


def _key(text: bytes) -> bytes:
    """A text whether it was folded or not."""
    return b" ".join(text.split())
