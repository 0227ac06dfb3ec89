"""A real freqtrade's database, its times moved to now, and the log lines that freqtrade writes about its trades."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.trade_files import DATA

SOURCE = DATA / "freqtrade/tradesv3.dryrun.sqlite"
TIMES = ("open_date", "close_date")


def recent(database: Path, now: datetime) -> Path:
    """A copy of the database whose newest trade is a minute old."""
    shutil.copyfile(SOURCE, database)
    with closing(sqlite3.connect(database)) as base, base:
        newest = datetime.fromisoformat(
            base.execute("SELECT max(coalesce(close_date, open_date)) FROM trades").fetchone()[0]
        )
        by = now.replace(tzinfo=None) - timedelta(minutes=1) - newest
        for key, *found in base.execute("SELECT id, open_date, close_date FROM trades").fetchall():
            moved = [one and f"{datetime.fromisoformat(one) + by:%Y-%m-%d %H:%M:%S.%f}" for one in found]
            base.execute("UPDATE trades SET open_date = ?, close_date = ? WHERE id = ?", (*moved, key))
    return database


def rows(database: Path, where: str) -> list[dict[str, Any]]:
    """Trades as the database has them."""
    with closing(sqlite3.connect(database)) as base:
        base.row_factory = sqlite3.Row
        return [dict(row) for row in base.execute(f"SELECT * FROM trades WHERE {where} ORDER BY id")]


def close(row: dict[str, Any], at: datetime, rate: float) -> dict[str, Any]:
    """The open trade as freqtrade closes it: net of both fees, rounded to eight decimals."""
    result = round(row["amount"] * rate * (1 - row["fee_close"]) - row["open_trade_value"], 8)
    return {
        **row, "is_open": 0, "close_date": f"{at:%Y-%m-%d %H:%M:%S.%f}", "close_rate": rate, "exit_reason": "roi",
        "close_profit_abs": result, "close_profit": result / row["open_trade_value"], "realized_profit": result,
    }  # fmt: skip


def told(row: dict[str, Any], **other: str) -> str:
    """The line that freqtrade logs when this trade's last exit is filled."""
    opened, closed = (datetime.fromisoformat(row[name]) for name in TIMES)
    fields = {
        "type": "exit_fill", "trade_id": row["id"], "exchange": "'Binance'", "pair": f"'{row['pair']}'",
        "leverage": 1.0, "direction": "'Long'", "amount": row["amount"], "open_rate": row["open_rate"],
        "close_rate": row["close_rate"], "profit_amount": row["close_profit_abs"], "profit_ratio": row["close_profit"],
        "exit_reason": f"'{row['exit_reason']}'", "open_date": _time(opened), "close_date": _time(closed),
        "stake_amount": row["stake_amount"], "stake_currency": "'USDT'", "cumulative_profit": row["close_profit_abs"],
        "is_final_exit": True,
    } | other  # fmt: skip
    inside = ", ".join(f"'{name}': {value}" for name, value in fields.items())
    return f"{closed:%Y-%m-%d %H:%M:%S},017 - freqtrade.rpc.rpc_manager - INFO - Sending rpc message: {{{inside}}}\n"


def _time(at: datetime) -> str:
    at = at.replace(tzinfo=UTC)
    parts = (at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond)
    return f"datetime.datetime({', '.join(map(str, parts))}, tzinfo=datetime.timezone.utc)"
