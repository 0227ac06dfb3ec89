"""An incremental check of a 1,000,000-row file with 100 new rows: only those are read."""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botkeep.formats import FORMATS, FormatOptions
from botkeep.formats.base import more_to_read
from botkeep.formats.files import ANCHOR
from botkeep.model import Inspection
from support import say

ROWS = 1_000_000
NEW = 100
RUNS = 15
HEADER = "time,symbol,side,price,qty,fee,fee_asset,trade_id,order_id\n"
NOW = datetime(2027, 1, 1, tzinfo=UTC)
START = NOW - timedelta(days=300)
OVERHEAD = 8 * ANCHOR
"""What is read besides: the bytes by which the old content is known again, and by which it will be next time."""


def row(number: int) -> str:
    """One fill."""
    at = (START + timedelta(seconds=25 * number)).isoformat(timespec="milliseconds")
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


def main() -> None:
    """Check a file in full, then after every hundred rows that come in."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trades.csv"
        with path.open("w") as file:
            file.write(HEADER)
            file.writelines(row(number) for number in range(ROWS))
        started = time.perf_counter()
        seen = inspect(path, None)
        full = time.perf_counter() - started
        spent, extra = [], []
        for run in range(RUNS):
            added = "".join(row(ROWS + run * NEW + number) for number in range(NEW))
            with path.open("a") as file:
                file.write(added)
            before, started = bytes_read(), time.perf_counter()
            seen = inspect(path, seen.cursor)
            spent.append(time.perf_counter() - started)
            extra.append(bytes_read() - before - len(added))
        whole = seen.rows == ROWS + RUNS * NEW and seen.verdict == "ok"
        once = statistics.median(spent)
    rate = f"{full:.1f} s, {ROWS / full / 1000:.0f} thousand rows a second"
    say(
        f"check of {NEW} new rows behind {ROWS:,}",
        f"{once * 1000:.1f} ms, {full / once:.0f} times faster than a full check ({rate}); "
        f"{max(extra)} bytes read besides the new rows",
        f"at most {OVERHEAD} bytes besides",
        held=whole and max(extra) <= OVERHEAD,
    )


if __name__ == "__main__":
    main()
