"""A program that is called freqtrade and does what botkeep sees of one without its API: database open, heartbeats.

`freqtrade trade [--config FILE] [--db-url PATH] [--mute]`. The real one is in tests/bots.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from datetime import datetime


def note(line: str) -> None:
    """Dated as freqtrade dates its lines."""
    now = datetime.now().strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]  # noqa: DTZ005
    with open("freqtrade.log", "a") as log:
        log.write(f"{now} - {line}\n")


def main() -> None:
    words = sys.argv[1:]
    path = words[words.index("--db-url") + 1] if "--db-url" in words else "tradesv3.sqlite"
    state = os.environ.get("FREQTRADE__INITIAL_STATE", "running").upper()
    base = sqlite3.connect(path)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("CREATE TABLE IF NOT EXISTS heartbeats (at)")
    base.commit()
    note("freqtrade.freqtradebot - INFO - Starting freqtrade 2026.9")
    while True:
        if os.path.exists("state"):
            with open("state") as file:
                state = file.read().strip()
        if "--mute" not in words:
            said = f"Bot heartbeat. PID={os.getpid()}, version='2026.9', state='{state}'"
            note(f"freqtrade.worker - INFO - {said}")
        time.sleep(0.1)


main()
