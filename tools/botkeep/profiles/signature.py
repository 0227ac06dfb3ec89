"""What one entry of a signature file says: a line that means something, a line that states a fact, or a rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TypeVar

from botkeep.model import CauseClass, Fault

from .patterns import Match, Pattern, compiled


@dataclass(frozen=True, kw_only=True)
class LinePattern:
    """A kind of log line. The keys are explained in the signature files."""

    id: str
    pattern: str
    contains: tuple[str, ...] = ()
    unless: str | None = None
    example: str
    source: str = ""

    @cached_property
    def regex(self) -> Pattern:
        """Compiled when a line first holds the literal text. Raises ValueError."""
        return compiled(self.pattern)

    @cached_property
    def groups(self) -> frozenset[str]:
        """The names of its groups."""
        return frozenset(self.regex.groupindex)

    @cached_property
    def literals(self) -> tuple[bytes, ...]:
        """`contains` as a log file has it."""
        return tuple(text.encode() for text in self.contains)

    def match(self, text: str) -> Match | None:
        """The match in a line's text, unless the line is one that does not count."""
        found = self.regex.search(text)
        return None if found is None or self.is_excepted(text) else found

    def is_excepted(self, text: str) -> bool:
        """Whether `unless` matches."""
        return self.unless is not None and compiled(self.unless).search(text) is not None

    def check(self) -> None:
        """Raises ValueError with `key: what to write` if a pattern does not compile or the example does not match."""
        for key, pattern in (("pattern", self.pattern), ("unless", self.unless)):
            try:
                _ = pattern is None or compiled(pattern)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        if self.regex.search(self.example) is None or not self.may_match(self.example):
            raise ValueError("example: write a line that pattern and contains match")
        if self.match(self.example) is None:
            raise ValueError("example: write a line that `unless` does not match")

    def may_match(self, text: str) -> bool:
        """Whether the text holds what every match holds."""
        return not self.contains or any(literal in text for literal in self.contains)


@dataclass(frozen=True, kw_only=True)
class After:
    """A cause that counts only when it lasts: so many lines within so long."""

    lines: int
    within: timedelta


@dataclass(frozen=True, kw_only=True)
class Signature(LinePattern):
    """A log line with a meaning."""

    cause: str
    klass: CauseClass
    fault: Fault | None
    recent: timedelta
    until: str | None = None
    advice: str = ""
    """What a good operator does: the key `do`."""
    modes: tuple[int, ...] = ()
    """Its numbers in the catalogue of failure modes."""
    after: After | None = None

    def check(self) -> None:
        """As LinePattern.check; also if the pattern lacks the group `until`."""
        super().check()
        if self.until is not None and self.until not in self.groups:
            raise ValueError("until: name a group of the pattern, like (?P<until>[0-9]{13})")


@dataclass(frozen=True, kw_only=True)
class MarkPattern(LinePattern):
    """A log line that states a fact. The named groups of its pattern are the fact's values."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A cause without a line of its own: botkeep's code finds it, and names it by `id`."""

    id: str
    modes: tuple[int, ...]
    cause: str
    klass: CauseClass
    fault: Fault | None
    advice: str
    source: str


_Line = TypeVar("_Line", bound=LinePattern)


def candidates(patterns: Sequence[_Line], line: bytes) -> Iterator[_Line]:
    """Those whose literal text the line holds: a find in bytes costs a hundredth of a pattern."""
    for pattern in patterns:
        if not pattern.contains or any(text in line for text in pattern.literals):
            yield pattern
