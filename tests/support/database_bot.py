"""A bot that closes a trade ten times a second in a database of freqtrade's, with a write-ahead log, as that has.

database_bot.py DATABASE
"""

import signal
import sqlite3
import sys
import threading


def main(path: str) -> None:
    """Trade until SIGTERM; a clean end does not fold the log in, which is how freqtrade ends too."""
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    base = sqlite3.connect(path, isolation_level=None)
    base.execute("PRAGMA journal_mode = wal")
    names = [name for _, name, *_ in base.execute("PRAGMA table_info(trades)")]
    now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    made = {"id": "(SELECT max(id) + 1 FROM trades)", "open_date": now, "close_date": now}
    new = [made.get(name, f'"{name}"') for name in names]
    columns = ", ".join(f'"{name}"' for name in names)
    copy = f"INSERT INTO trades ({columns}) SELECT {', '.join(new)} FROM trades WHERE id = 1"
    while not done.wait(0.1):
        base.execute(copy)


if __name__ == "__main__":
    main(sys.argv[1])
