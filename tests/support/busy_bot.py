"""A bot that trades far too often: 27 trades, the first of them 14 minutes ago by its own clock, and then it waits.

    busy_bot.py FILE [calm]

With `calm` it trades no more: whoever mended it started it again.
"""

import csv
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

COLUMNS = ["open_time", "close_time", "symbol", "direction", "entry_price", "exit_price", "qty", "pnl"]
TRADES = 27
WITHIN = timedelta(minutes=14)


def main(file: str, *words: str) -> None:
    """Write them one by one, as such a bot does; then wait for SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    path, now = Path(file), datetime.now(UTC)
    with path.open("a", newline="") as output:
        rows = csv.writer(output, lineterminator="\n")
        if not path.stat().st_size:
            rows.writerow(COLUMNS)
        for number in () if "calm" in words else range(TRADES):
            at = now - WITHIN * ((TRADES - 1 - number) / (TRADES - 1))
            stamp = at.strftime("%Y-%m-%d %H:%M:%S")
            rows.writerow([stamp, stamp, "DOGEUSDT", "long", 100.0, 99.8, 0.5, f"{-0.21 + number / 1000:.8f}"])
            output.flush()
        ended.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
