"""A paper-trading bot for the demo: a random walk, a log line for each tick, a row for each closed trade.

    paper_bot.py SYMBOL FILE [--port N]

It writes whole rows and flushes them, and it ends on SIGTERM within one tick, as a good bot does.
"""

import csv
import random
import signal
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COLUMNS = ["open_time", "close_time", "symbol", "direction", "entry_price", "exit_price", "qty", "pnl"]
TICK_SECONDS = 0.25


class Health(BaseHTTPRequestHandler):
    """Says ok: no more than most bots do."""

    def do_GET(self) -> None:
        """200, always."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *args: object) -> None:
        """Not a line for each look."""


def now() -> str:
    """UTC, as many bots write it: without a zone."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")


def main(symbol: str, file: str, port: int) -> None:
    """Trade until SIGTERM."""
    running = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: running.set())
    if port:
        threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", port), Health).serve_forever, daemon=True).start()
    chance, price = random.Random(file), 100.0  # noqa: S311 - a walk, not a secret
    path = Path(file)
    with path.open("a", newline="") as output:
        rows = csv.writer(output, lineterminator="\n")
        if not path.stat().st_size:
            rows.writerow(COLUMNS)
        while not running.is_set():
            opened, entry = now(), price
            running.wait(TICK_SECONDS)
            price = round(price * (1 + chance.gauss(0, 0.002)), 4)
            qty = 0.5
            rows.writerow([opened, now(), symbol, "long", entry, price, qty, f"{(price - entry) * qty:.8f}"])
            output.flush()
            print(f"{now()} INFO {symbol} closed at {price}", flush=True)
    print(f"{now()} INFO {symbol} ends", flush=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    main(words[0], words[1], int(words[words.index("--port") + 1]) if "--port" in words else 0)
