"""A bot that keeps its fills in a table of a database; real bots' databases, and a process that writes to one."""

from __future__ import annotations

import ast
import csv
import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from support.formats.base import Files
from support.piped import Piped
from support.trade_files import DATA, row

TABLE = """
CREATE TABLE fills (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, symbol TEXT NOT NULL, side TEXT NOT NULL, price REAL NOT NULL,
    qty REAL NOT NULL, fee REAL, fee_asset TEXT, trade_id TEXT UNIQUE, order_id TEXT
)
"""


def write_rows(path: Path, rows: int, first: int) -> None:
    """A new database with these fills."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(TABLE)
    add_rows(path, rows, first)


def add_rows(path: Path, rows: int, first: int) -> None:
    """As the bot does: one transaction."""
    cells = [row(number).strip().split(",") for number in range(first, first + rows)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO fills VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", cells)


def _tear(path: Path) -> None:
    """The file was made longer for a page, and only half of that was written."""
    with path.open("ab") as file:
        file.write(bytes(2048))


def _spoil(path: Path, number: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE fills SET price = 'n/a' WHERE trade_id = ?", (str(1000 + number),))


FILES = Files("trades.sqlite", write_rows, add_rows, _tear, _spoil)


# --- real bots' databases ----------------------------------------------------------------------------------------

TRADE_FILL = """
CREATE TABLE "TradeFill" (
    config_file_path TEXT NOT NULL, strategy TEXT NOT NULL, market TEXT NOT NULL, symbol TEXT NOT NULL,
    base_asset TEXT NOT NULL, quote_asset TEXT NOT NULL, timestamp BIGINT NOT NULL, order_id TEXT NOT NULL,
    trade_type TEXT NOT NULL, order_type TEXT NOT NULL, price BIGINT NOT NULL, amount BIGINT NOT NULL,
    leverage INTEGER NOT NULL, trade_fee JSON NOT NULL, trade_fee_in_quote BIGINT, exchange_trade_id TEXT NOT NULL,
    position TEXT, PRIMARY KEY (market, order_id, exchange_trade_id)
)
"""


def freqtrade(folder: Path) -> Path:
    """A dry run's database: 308 closed trades and 4 open ones, copied while the bot ran."""
    return Path(shutil.copyfile(DATA / "freqtrade/tradesv3.dryrun.sqlite", folder / "tradesv3.sqlite"))


def freqtrade_wal(folder: Path) -> Path:
    """A database with 12 trades, all of them in the -wal, as a bot that was killed left it."""
    with tarfile.open(DATA / "freqtrade/wal_trio.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "wal_trio/tradesv3.sqlite"


def hummingbot(folder: Path) -> Path:
    """The 83 fills of a paper run, in the schema of version 20260922, made from the CSV that its own code wrote."""
    path = folder / "conf_simple_pmm_1.sqlite"
    with closing(sqlite3.connect(path)) as base, base, (DATA / HUMMINGBOT_CSV).open(newline="") as file:
        base.execute(TRADE_FILL)
        for one in csv.DictReader(file):
            values = {name: value for name, value in one.items() if name != "age"}
            values |= {name: str(_millionths(one[name])) for name in ("price", "amount", "trade_fee_in_quote")}
            values["trade_fee"] = json.dumps(ast.literal_eval(one["trade_fee"]))
            marks = ", ".join(f":{name}" for name in values)
            base.execute(f"INSERT INTO TradeFill ({', '.join(values)}) VALUES ({marks})", values)
    return path


HUMMINGBOT_CSV = "hummingbot/trades_conf_simple_pmm_1.csv"


def _millionths(text: str) -> int:
    return int(Decimal(text) * 1_000_000)


class Writer(Piped):
    """A process of support/sqlite_writer.py."""

    def __init__(self, path: Path, journal: str = "wal", timeout: float = 5.0) -> None:
        super().__init__("sqlite_writer.py", journal, str(path), str(timeout))
