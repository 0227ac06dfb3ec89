"""Trade files for tests, and real processes that write them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botkeep.formats import FORMATS, FormatOptions
from botkeep.model import Inspection
from support.piped import Piped
from support.trade_writer import HEADER, row, table

__all__ = ["DATA", "HEADER", "NOW", "Eye", "Writer", "row", "table"]

DATA = Path(__file__).parents[1] / "data"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Eye:
    """Looks at a file again and again, as rounds do: each look is given the cursor of the one before."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path, self.options = path, FormatOptions(**options)
        self.now = NOW
        self.cursor: dict[str, Any] | None = None

    def look(self, *, writing: bool = False, after: float = 0.0, keep: bool = True) -> Inspection:
        """One inspection, `after` seconds later than the one before."""
        self.now += timedelta(seconds=after)
        seen = FORMATS["csv"].inspect(
            self.path, options=self.options, cursor=self.cursor, writing=writing, now=self.now
        )
        if keep:
            self.cursor = seen.cursor
        return seen

    def verdict(self, **how: Any) -> str:
        """Only the verdict."""
        return self.look(**how).verdict.value


class Writer(Piped):
    """A process of support/trade_writer.py."""

    def __init__(self, mode: str, path: Path) -> None:
        super().__init__("trade_writer.py", mode, str(path))


@contextmanager
def as_nobody() -> Iterator[None]:
    """What root may read nobody may not; everybody else is himself."""
    import os

    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
