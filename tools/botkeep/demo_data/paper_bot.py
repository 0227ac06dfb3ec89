"""A paper-trading bot for the demo: a random walk, a log line for each tick, a row for each closed trade.

    paper_bot.py SYMBOL FILE [--port N]

It writes whole rows and flushes them, and it ends on SIGTERM within one tick, as a good bot does.
"""

import csv
import random
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COLUMNS = ["open_time", "close_time", "symbol", "direction", "entry_price", "exit_price", "qty", "pnl"]
TICK_SECONDS = 0.25


class Health(BaseHTTPRequestHandler):
    """Says ok: no more than most bots do."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *args):
        pass


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def main(symbol, file, port):
    running = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: running.set())
    if port:
        threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", port), Health).serve_forever, daemon=True).start()
    chance, price = random.Random(file), 100.0
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
    arguments = sys.argv[1:]
    port = int(arguments[arguments.index("--port") + 1]) if "--port" in arguments else 0
    main(arguments[0], arguments[1], port)
