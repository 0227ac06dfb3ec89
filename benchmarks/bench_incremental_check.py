"""A check of 100 new rows behind a hundred thousand, a million and ten million: only the new ones are read.

The three files are checked in turn, run by run, so that a machine that changes its speed changes all of them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botkeep.formats import FORMATS, FormatOptions
from botkeep.formats.base import more_to_read
from botkeep.formats.files import ANCHOR
from botkeep.model import Inspection
from support import say

SIZES = (100_000, 1_000_000, 10_000_000)
NEW = 100
RUNS = 15
HEADER = "time,symbol,side,price,qty,fee,fee_asset,trade_id,order_id\n"
NOW = datetime(2027, 1, 1, tzinfo=UTC)
START = NOW - timedelta(days=300)
OVERHEAD = 8 * ANCHOR
"""What is read besides: the bytes by which the old content is known again, and by which it will be next time."""
SLOWER = 2.0
"""Times that the check behind a hundred times as many rows may take."""


def row(number: int) -> str:
    """One fill, two seconds after the one before: ten million of them fit into the past."""
    at = (START + timedelta(seconds=2 * number)).isoformat(timespec="milliseconds")
    side, price = "SELL" if number % 2 else "BUY", 60_000 + number % 999
    return f"{at},BTCUSDT,{side},{price}.51,0.00325000,0.00020000,USDT,{number},{number}\n"


def inspect(path: Path, cursor: dict[str, Any] | None) -> Inspection:
    """A whole inspection, however many calls that takes."""
    seen = FORMATS["csv"].inspect(path, options=FormatOptions(), cursor=cursor, writing=True, now=NOW)
    while more_to_read(seen):
        seen = FORMATS["csv"].inspect(path, options=FormatOptions(), cursor=seen.cursor, writing=True, now=NOW)
    return seen


def bytes_read() -> int:
    """By this process, as the kernel counts them."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


@dataclass
class Case:
    """A file of so many rows, and what its checks took."""

    path: Path
    rows: int
    full: float = 0.0
    seen: Inspection | None = None
    spent: list[float] = field(default_factory=list)
    extra: list[int] = field(default_factory=list)

    def prepare(self) -> None:
        """Write the file and check it in full."""
        with self.path.open("w") as file:
            file.write(HEADER)
            file.writelines(row(number) for number in range(self.rows))
        started = time.perf_counter()
        self.seen = inspect(self.path, None)
        self.full = time.perf_counter() - started

    def once(self) -> None:
        """A hundred rows more, and the check of them."""
        assert self.seen is not None
        first = self.rows + len(self.spent) * NEW
        added = "".join(row(number) for number in range(first, first + NEW))
        with self.path.open("a") as file:
            file.write(added)
        before, started = bytes_read(), time.perf_counter()
        self.seen = inspect(self.path, self.seen.cursor)
        self.spent.append(time.perf_counter() - started)
        self.extra.append(bytes_read() - before - len(added))

    @property
    def whole(self) -> bool:
        """Whether every row was seen, and the file found sound."""
        seen = self.seen
        return seen is not None and seen.rows == self.rows + RUNS * NEW and seen.verdict == "ok"

    def tell(self, bound: float) -> float:
        """One line; returns the median seconds of a check."""
        once = statistics.median(self.spent)
        rate = f"{self.full:.1f} s, {self.rows / self.full / 1000:.0f} thousand rows a second"
        say(
            f"check of {NEW} new rows behind {self.rows:,} ({self.path.stat().st_size >> 20} MiB)",
            f"{once * 1000:.1f} ms, {self.full / once:.0f} times faster than a full check ({rate}); "
            f"{max(self.extra)} bytes read besides the new rows",
            f"at most {OVERHEAD} bytes besides, {bound * 1000:.1f} ms",
            held=self.whole and max(self.extra) <= OVERHEAD and once <= bound,
        )
        return once


def main() -> None:
    """Check each file in full, then after every hundred rows that come in."""
    with tempfile.TemporaryDirectory() as folder:
        cases = [Case(Path(folder) / f"trades-{rows}.csv", rows) for rows in SIZES]
        for case in cases:
            case.prepare()
        for _ in range(RUNS):
            for case in cases:
                case.once()
        smallest, *larger = cases
        once = smallest.tell(1.0)
        for case in larger:
            case.tell(SLOWER * once)


if __name__ == "__main__":
    main()
