"""A bot that has its database open for writing and writes nothing: what is in it, a test says.

still_bot.py DATABASE
"""

import signal
import sqlite3
import sys
import threading


def main(path: str) -> None:
    """Wait for SIGTERM."""
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    base = sqlite3.connect(path)
    base.execute("SELECT count(*) FROM sqlite_master").fetchone()
    print("ready", flush=True)
    while not done.wait(0.5):
        pass
    base.close()


if __name__ == "__main__":
    main(sys.argv[1])
