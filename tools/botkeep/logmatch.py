"""Matching what a program wrote at once against one pattern, and giving up patterns that take too long."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import NamedTuple

from .logjoin import Record
from .profiles.patterns import Match
from .profiles.signature import LinePattern, MarkPattern

TOO_LONG = 0.5
"""Seconds of processor time that a pattern may take in one look beyond what is usual."""
ALTOGETHER, A_LITTLE = 1.0, 0.02
"""Seconds that all may take beyond it; after that, each one no more than a little."""
PER_TEXT, PER_CHARACTER = 1e-4, 1e-7
"""Seconds that are usual, on a slow machine too; most take a twentieth of that."""


class Found(NamedTuple):
    """A match."""

    pattern: LinePattern
    match: Match
    paragraph: str
    """The paragraph of the record in which it begins."""

    def group(self, name: str) -> str | None:
        """What a named group matched; None if it matched nothing, or there is none of this name."""
        return _text(self.match.group(name)) if name in self.pattern.groups else None

    def groups(self) -> dict[str, str]:
        """What the named groups matched."""
        found = {name: _text(value) for name, value in self.match.groupdict().items()}
        return {name: value for name, value in found.items() if value is not None}


def _text(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class Patience:
    """Tries patterns during one look; one that takes too long is lost for the rest of it.

    The time of each grows with the line and not faster, but a person's may have thousands of steps for a character.
    """

    def __init__(self) -> None:
        self.lost: set[str] = set()
        """Ids."""
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._altogether = 0.0

    def find(self, pattern: LinePattern, seen: Record) -> Found | None:
        """The match of a pattern in a record, unless it was lost."""
        if pattern.id in self.lost:
            return None
        began = time.thread_time()
        found = _find(pattern, seen)
        beyond = time.thread_time() - began - PER_TEXT - PER_CHARACTER * len(seen.text)
        if beyond > 0:
            self._spend(pattern.id, beyond)
        return found

    def _spend(self, name: str, seconds: float) -> None:
        self._spent[name] += seconds
        self._altogether += seconds
        if self._spent[name] > (TOO_LONG if self._altogether < ALTOGETHER else A_LITTLE):
            self.lost.add(name)


def _find(pattern: LinePattern, seen: Record) -> Found | None:
    found = _first(pattern, seen)
    if found is None or not pattern.is_excepted(seen.text):
        return found
    return None


def _first(pattern: LinePattern, seen: Record) -> Found | None:
    """In the whole, else in a paragraph, which has its own beginning and end. A fact is stated by the first alone."""
    text = seen.text
    match = pattern.regex.search(text.encode() if text.isascii() else text)  # the places are the same, and bytes faster
    if match is not None:
        return Found(pattern, match, seen.paragraph_at(match.start()))
    if len(seen.paragraphs) == 1:
        return None
    for paragraph in seen.paragraphs[:1] if isinstance(pattern, MarkPattern) else seen.paragraphs:
        match = pattern.regex.search(paragraph)
        if match is not None:
            return Found(pattern, match, paragraph)
    return None
