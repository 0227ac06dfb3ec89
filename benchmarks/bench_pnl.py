"""P&L of a 1,000,000-row file, beside what pandas and polars take to read it at all and the disk to hand it over.

Processor seconds, all in one run, one after the other: a machine that is busy or changes its speed changes all of it.
pandas and polars read into floats and stop there: no check, no decimals, no P&L. What they read is not what botkeep
needs, but it is what people would do instead.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import localcontext
from pathlib import Path
from typing import TypeVar

from botkeep.formats import FORMATS, FormatOptions
from botkeep.formats.base import inspect_whole
from botkeep.pnl import DIGITS, PnlFigures, figures, rounded
from support import say

ROWS = 1_000_000
HEADER = "time,symbol,side,price,qty,fee,fee_asset,trade_id,order_id\n"
NOW = datetime(2027, 1, 1, tzinfo=UTC)
START = NOW - timedelta(days=300)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
Found = TypeVar("Found")
PER_FILL = 8.0
"""Processor microseconds of P&L for each fill, at most; about twice what it takes on an idle machine."""


def row(number: int) -> str:
    """One fill: of each symbol in turn, buys and sells of changing sizes, so that lots are divided and flipped."""
    at = (START + timedelta(seconds=25 * number)).isoformat(timespec="milliseconds")
    side = "SELL" if number // len(SYMBOLS) % 2 else "BUY"
    size, price = 300_000 + number * 7919 % 400_000, 60_000 + number % 999
    return f"{at},{SYMBOLS[number % 4]},{side},{price}.51,0.00{size},0.00020000,USDT,{number},{number}\n"


def timed(call: Callable[[], Found]) -> tuple[float, Found]:
    """Processor seconds of all threads, and what it gave."""
    began = time.process_time()
    found = call()
    return time.process_time() - began, found


def read_once(path: Path) -> int:
    """As the kernel hands it over, a megabyte at a time."""
    with path.open("rb", buffering=0) as file:
        return sum(len(part) for part in iter(lambda: file.read(1 << 20), b""))


def main() -> None:
    """Measure, print, and compare with the bound."""
    import pandas as pd
    import polars as pl

    options = FormatOptions()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trades.csv"
        with path.open("w") as file:
            file.write(HEADER)
            file.writelines(row(number) for number in range(ROWS))
        raw, size = timed(lambda: read_once(path))
        pandas, _ = timed(lambda: len(pd.read_csv(path)))
        polars, _ = timed(lambda: pl.read_csv(path).height)
        check, seen = timed(lambda: inspect_whole(FORMATS["csv"], path, options=options, now=NOW))
        reading, table = timed(lambda: FORMATS["csv"].trades(path, options=options))
    fifo, found = timed(lambda: figures("bot", table))
    average, _ = timed(lambda: figures("bot", table, method="average"))
    whole = check + reading + fifo
    print(f"{ROWS:,} fills in {size / 1e6:.0f} MB; Python {sys.version.split()[0]}")
    for name, took in (
        ("reading the bytes once", raw),
        ("polars.read_csv, floats", polars),
        ("pandas.read_csv, floats", pandas),
        ("full check", check),
        ("reading exact trades", reading),
        ("P&L, first in first out", fifo),
        ("P&L, average cost", average),
        ("check, trades and P&L", whole),
    ):
        print(f"  {name:<26}{took:7.2f} s   {took / pandas:7.2f} of pandas' read")
    sound = seen.verdict == "ok" and seen.rows == ROWS == len(table.fills) and _adds_up(found)
    each = max(fifo, average) / ROWS * 1e6
    say(
        f"P&L of {ROWS:,} fills",
        f"{each:.1f} us a fill; check, trades and P&L together {whole / pandas:.1f} times pandas' bare read, "
        f"{whole / polars:.0f} times polars'",
        f"at most {PER_FILL} us a fill, and exact",
        held=sound and each <= PER_FILL,
    )


def _adds_up(found: PnlFigures) -> bool:
    """The days, the symbols and the whole are the same amount, to thirty decimals."""
    with localcontext() as context:
        context.prec = DIGITS
        by_day = sum(one.realised for one in found.days)
        by_symbol = sum(one.realised for one in found.symbols)
    return rounded(by_day - found.realised, 30) == 0 == rounded(by_symbol - found.realised, 30)


if __name__ == "__main__":
    main()
