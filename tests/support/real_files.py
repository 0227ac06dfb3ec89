"""Data files as real bots wrote them, in every format: a part of them that was backed up, then all of them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
HUMMINGBOT = DATA / "hummingbot/trades_conf_simple_pmm_1.csv"
FREQTRADE = DATA / "freqtrade/tradesv3.dryrun.sqlite"


@dataclass(frozen=True)
class RealFile:
    """One bot's file. `write(path, rows)` leaves its first rows there, as the bot has them at that moment."""

    kind: str
    name: str
    rows: int
    kept: int
    """Rows that were there at the last backup."""
    write: Callable[[Path, int], None]


def _csv(path: Path, rows: int) -> None:
    lines = HUMMINGBOT.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: rows + 1]))


def _jsonl(path: Path, rows: int) -> None:
    lines = (DATA / "custom/fills.jsonl").read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:rows]))


def _json(path: Path, rows: int) -> None:
    whole = json.loads((DATA / "custom/fills.json").read_text())
    path.write_text(json.dumps(whole[:rows], indent=1))


def _sqlite(path: Path, rows: int) -> None:
    """The first trades of freqtrade's database; what it has already is left as it is, as freqtrade does."""
    if not path.exists():
        shutil.copy(FREQTRADE, path)
        _sqlite_cut(path, rows)
        return
    with sqlite3.connect(path) as database:
        database.execute("ATTACH ? AS whole", (str(FREQTRADE),))
        has = database.execute("SELECT max(id) FROM trades").fetchone()[0]
        span = (has, rows)
        database.execute("INSERT INTO trades SELECT * FROM whole.trades WHERE id > ? AND id <= ?", span)
        database.execute(
            "INSERT INTO orders SELECT * FROM whole.orders WHERE ft_trade_id > ? AND ft_trade_id <= ?", span
        )
    database.close()


def _sqlite_cut(path: Path, rows: int) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM orders WHERE ft_trade_id > ?", (rows,))
        database.execute("DELETE FROM trades WHERE id > ?", (rows,))
    database.execute("VACUUM")
    database.close()


def frame(rows: int) -> dict[str, list[Any]]:
    """Hummingbot's trades as a data frame has them."""
    import pandas as pd

    whole = pd.read_csv(HUMMINGBOT, keep_default_na=False).head(rows)
    return {str(name): list(column) for name, column in whole.to_dict(orient="list").items()}


def save_frame(path: Path, columns: dict[str, list[Any]], **how: Any) -> None:
    """As Parquet, in row groups of ten rows, with a checksum on every page."""
    from support.formats.parquet import save

    save(path, columns, **{"row_group_size": 10, "write_page_checksum": True, **how})


def _parquet(path: Path, rows: int) -> None:
    save_frame(path, frame(rows))


REAL_FILES: dict[str, RealFile] = {
    one.kind: one
    for one in (
        RealFile("csv", "trades_conf_simple_pmm_1.csv", 83, 60, _csv),
        RealFile("jsonl", "fills.jsonl", 240, 200, _jsonl),
        RealFile("json", "fills.json", 240, 200, _json),
        RealFile("sqlite", "tradesv3.dryrun.sqlite", 312, 290, _sqlite),
        RealFile("parquet", "trades.parquet", 83, 60, _parquet),
    )
}
