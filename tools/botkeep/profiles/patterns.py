"""Patterns for lines that anybody may have put into a log: RE2, whose time grows with the line and not faster.

RE2 is imported when a line first needs a pattern: a look at a log with nothing new pays nothing for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Protocol, cast

LONGEST = 4096
"""Characters of a pattern."""
MEMORY = 256 * 1024
"""Bytes that RE2 may use for a pattern and its automaton."""
STEPS = 5000
"""Of a compiled pattern: a character of a line costs at most so many, if its automaton grows too large."""
MEMORY_OF_TEXTS = 16 << 20
"""Bytes that RE2 may use for the automaton that finds hundreds of texts; it needs a tenth of them."""


class Match(Protocol):
    """What is used of a match. Groups are text or bytes, as what was searched."""

    def start(self) -> int:
        """Where it begins."""
        ...

    def group(self, name: str) -> str | bytes | None:
        """A named group. Raises IndexError if there is none of this name."""
        ...

    def groupdict(self) -> dict[str, str | bytes | None]:
        """The named groups."""
        ...


class Pattern(Protocol):
    """What is used of a compiled pattern."""

    @property
    def groupindex(self) -> Mapping[str, int]:
        """The named groups."""
        ...

    def search(self, text: str | bytes) -> Match | None:
        """The first match; in bytes as in the text that they encode."""
        ...


TOO_LARGE = "it is too large; write smaller repetitions, and in all at most 1000 times"


@cache
def compiled(pattern: str) -> Pattern:
    """The pattern, compiled once. Raises ValueError with what to write instead."""
    import re2

    if len(pattern) > LONGEST:
        raise ValueError(f"it has {len(pattern)} characters; write at most {LONGEST}")
    options = re2.Options()
    options.max_mem = MEMORY
    options.log_errors = False
    try:
        regex = re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(_advice(_text(error))) from error
    if regex.programsize > STEPS:
        raise ValueError(TOO_LARGE)
    return cast("Pattern", regex)


class Found(Protocol):
    """Where a text was found."""

    def span(self) -> tuple[int, int]:
        """Its first byte, and the one after its last."""
        ...


Search = Callable[..., Found | None]
"""(data, place) -> what is found first from there on."""


@lru_cache(maxsize=64)
def compiled_texts(pattern: bytes) -> Search:
    """A search for the texts that `pattern` holds as its branches: bytes as they are, whatever they encode."""
    import re2

    options = re2.Options()
    options.max_mem = MEMORY_OF_TEXTS
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    options.log_errors = False
    return cast("Search", re2.compile(pattern, options).search)


def _text(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def _advice(said: str) -> str:
    """What to write, for the differences between RE2 and Python's re that people run into."""
    if "perl operator" in said and re.search(r"\(\?<?[=!]", said):
        return "RE2 has no look-around; use `unless` for what the line must not hold, and A.*B|B.*A for two texts"
    if re.search(r"escape sequence: \\([1-9]|g)", said) or said.endswith("operator: (?P"):
        return "RE2 has no back references; write the text out"
    if re.search(r"escape sequence: \\Z", said):
        return r"RE2 writes the end of the text as \z"
    if "(?>" in said or re.search(r"repetition operator: .\+\Z", said):
        return "RE2 has no atomic groups and no possessive repetition, and needs none; write it without"
    if "repetition size" in said or "too large" in said:
        return TOO_LARGE
    return f"write one that RE2 knows: {said}"
