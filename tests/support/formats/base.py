"""How a bot writes a format, for the contract suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Files:
    """How a bot writes fills in a format: fill n is made at minute n, of 100 DOGE, with trade id 1000 + n."""

    name: str
    write: Callable[[Path, int, int], None]
    """(path, rows, first): a new file with these fills."""
    append: Callable[[Path, int, int], None]
    """(path, rows, first): add them, as the bot does."""
    tear: Callable[[Path], None]
    """Leave half of one more fill at the end, as a bot that was killed."""
    spoil: Callable[[Path, int], None]
    """Make the fill of that number unreadable, in its place."""
