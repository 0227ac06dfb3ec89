"""A bot that writes its whole table anew with every trade, and one that closes a row group now and then."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.formats.base import Files

START = datetime(2026, 11, 1, tzinfo=UTC)


def fills(rows: int, first: int = 0) -> dict[str, list[Any]]:
    """Fills as columns, in the types that a bot's data frame has."""
    numbers = range(first, first + rows)
    return {
        "time": [START + timedelta(minutes=number) for number in numbers],
        "symbol": ["DOGEUSDT"] * rows,
        "side": ["SELL" if number % 2 else "BUY" for number in numbers],
        "price": [float(f"0.1{number:05}") for number in numbers],
        "qty": [100.0] * rows,
        "fee": [0.01] * rows,
        "fee_asset": ["USDT"] * rows,
        "trade_id": [1000 + number for number in numbers],
        "order_id": [5000 + number // 2 for number in numbers],
    }


def save(path: Path, columns: dict[str, Any], **how: Any) -> None:
    """A whole table, written beside and put in its place."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = path.with_name(path.name + ".part")
    pq.write_table(pa.table(columns), part, **how)
    os.replace(part, path)


def load(path: Path) -> dict[str, list[Any]]:
    """The columns of a table."""
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        found: dict[str, list[Any]] = pq.read_table(file).to_pydict()
    return found


def _write(path: Path, rows: int, first: int) -> None:
    save(path, fills(rows, first))


def _append(path: Path, rows: int, first: int) -> None:
    more = fills(rows, first)
    save(path, {name: [*cells, *more[name]] for name, cells in load(path).items()})


def _tear(path: Path) -> None:
    """As a bot that was killed while it wrote: the end, which says where everything is, was not written yet."""
    os.truncate(path, path.stat().st_size * 3 // 4)


def _spoil(path: Path, number: int) -> None:
    columns = load(path)
    columns["price"][columns["trade_id"].index(1000 + number)] = float("nan")
    save(path, columns)


FILES = Files("trades.parquet", _write, _append, _tear, _spoil)
