"""A real process that writes a database, in one of the ways that bots do. Driven line by line on stdin.

    python sqlite_writer.py JOURNAL FILE TIMEOUT

JOURNAL is wal or delete, TIMEOUT the seconds it waits for a lock. The table is freqtrade's, Hummingbot's, or `fills`.
Commands: `rows N` adds N trades in one transaction; `hold` begins one that keeps every reader out, `let go` ends it;
`half` changes every row in a transaction and leaves it open, with the changed pages in the file; `storm` adds trades as
fast as it can until `calm`, which is answered with how many it made and how many failed. It answers `ready` once it
works, and after every command.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from pathlib import Path

from trade_writer import row


class Bot:
    """One connection, as a bot has it."""

    def __init__(self, journal: str, path: Path, timeout: float) -> None:
        self.base = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
        self.base.execute(f"PRAGMA journal_mode = {journal}")
        names = {name for (name,) in self.base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        self.table = next(name for name in ("trades", "TradeFill", "fills") if name in names)
        self.made = self.failed = 0
        self.storming = threading.Event()
        self.thread: threading.Thread | None = None

    def add(self, count: int) -> None:
        """In one transaction."""
        self.base.execute("BEGIN IMMEDIATE")
        for _ in range(count):
            getattr(self, f"_add_{self.table}")()
        self.base.execute("COMMIT")

    def _add_fills(self) -> None:
        number = self.base.execute("SELECT max(CAST(trade_id AS INTEGER)) - 999 FROM fills").fetchone()[0] or 0
        cells = row(number).strip().split(",")
        self.base.execute("INSERT INTO fills VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", cells)

    def _add_trades(self) -> None:
        self._clone("trades", "is_open = 0", {"id": "max(id) + 1"})

    def _add_TradeFill(self) -> None:
        self._clone("TradeFill", "1", {"exchange_trade_id": "'new' || count(*)", "timestamp": "max(timestamp) + 1000"})

    def _clone(self, table: str, where: str, new: dict[str, str]) -> None:
        names = [name for _, name, *_ in self.base.execute(f"PRAGMA table_info({table})")]
        picked = [f"(SELECT {new[name]} FROM {table})" if name in new else name for name in names]
        self.base.execute(
            f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(picked)} FROM {table} WHERE {where} "
            "ORDER BY rowid DESC LIMIT 1"
        )

    def hold(self) -> None:
        """Nobody else gets in, not even to read, where there is no write-ahead log."""
        self.base.execute("BEGIN EXCLUSIVE")

    def let_go(self) -> None:
        """The end of it."""
        self.base.execute("COMMIT")

    def half(self) -> None:
        """A transaction too large for its memory: changed pages are in the file, the old ones in the journal."""
        self.base.execute("PRAGMA cache_size = 3")
        self.base.execute("BEGIN IMMEDIATE")
        column = {"trades": "strategy", "TradeFill": "strategy", "fills": "symbol"}[self.table]
        self.base.execute(f"UPDATE {self.table} SET {column} = {column} || hex(zeroblob(200))")
        for _ in range(50):
            getattr(self, f"_add_{self.table}")()

    def storm(self) -> None:
        """Until `calm`."""
        self.storming.set()
        self.thread = threading.Thread(target=self._storm, daemon=True)
        self.thread.start()

    def _storm(self) -> None:
        while self.storming.is_set():
            try:
                self.add(1)
                self.made += 1
            except sqlite3.OperationalError:
                self.failed += 1
                if self.base.in_transaction:
                    self.base.execute("ROLLBACK")
            time.sleep(0.001)

    def calm(self) -> None:
        """Say how it went."""
        self.storming.clear()
        if self.thread:
            self.thread.join()
        print(f"{self.made} {self.failed}", flush=True)


def main() -> None:
    bot = Bot(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
    print("ready", flush=True)
    for line in sys.stdin:
        word, _, count = line.strip().partition(" ")
        if word == "rows":
            bot.add(int(count))
        else:
            getattr(bot, line.strip().replace(" ", "_"))()
        print("ready", flush=True)


if __name__ == "__main__":
    main()
