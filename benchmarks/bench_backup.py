"""The hourly backup of 1,000 files of 200 kB, read back: first, unchanged, and grown by 100 rows each."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from botkeep import backups, retention
from botkeep.config import Bot
from botkeep.formats import FORMATS
from support import say

BOTS = 1000
SIZE = 200_000
NEW = 100
HOURS = 3
HEADER = "time,symbol,side,price,qty,fee,fee_asset,trade_id,order_id\n"
START = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 21, tzinfo=UTC)
BOUND = 10.0
REST = backups.LEAST
"""Bytes of the last piece, at most: with the manifest, all that a backup writes besides what grew."""


def row(number: int) -> str:
    """One fill."""
    at = (START + timedelta(seconds=25 * number)).isoformat(timespec="milliseconds")
    side, price = "SELL" if number % 2 else "BUY", 60_000 + number % 999
    return f"{at},BTCUSDT,{side},{price}.51,0.00325000,0.00020000,USDT,{number},{number}\n"


class Fleet:
    """Files of bots, and their store."""

    def __init__(self, folder: Path) -> None:
        self.store = backups.LocalStore(folder / "store", keep_free=0)
        self.rows = SIZE // len(row(10_000))
        text = HEADER + "".join(row(number) for number in range(self.rows))
        self.bots = [Bot(name=f"bot-{number}", data_file=folder / f"bot-{number}.csv") for number in range(BOTS)]
        for bot in self.bots:
            assert bot.data_file is not None
            bot.data_file.write_text(text)
        self.now = NOW

    def grow(self) -> int:
        """A hundred rows each; returns the bytes of them all."""
        added = "".join(row(self.rows + number) for number in range(NEW))
        self.rows += NEW
        for bot in self.bots:
            assert bot.data_file is not None
            with bot.data_file.open("a") as file:
                file.write(added)
        return len(added) * BOTS

    def back_up(self) -> None:
        """Every bot, as the hourly task does, with what it removes."""
        self.now += timedelta(hours=1)
        for bot in self.bots:
            options = bot.format_options()
            backups.back_up(bot, self.store, format=FORMATS["csv"], options=options, now=self.now, head=(1, "0" * 64))
            if retention.is_due(self.store, bot.name, self.now):
                backups.prune(self.store, bot.name, self.now)

    def stored(self, *folders: str) -> int:
        """Bytes in the store."""
        paths = (path for name in folders for path in (self.store.root / name).rglob("*"))
        return sum(path.stat().st_size for path in paths if path.is_file())


class Spent(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float
    """What is not this waits for the disk, or for whoever else uses the processors."""

    def __str__(self) -> str:
        return f"{self.wall:.1f} s ({self.cpu:.1f} s of CPU)"


def timed(work: Callable[[], None]) -> Spent:
    """What it took."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - began, time.process_time() - used)


def raw(folder: Path, fleet: Fleet) -> Spent:
    """The yardstick: copy every file and fsync it, nothing else."""
    target = folder / "raw"
    target.mkdir()

    def copy() -> None:
        for bot in fleet.bots:
            assert bot.data_file is not None
            with bot.data_file.open("rb") as source, (target / bot.name).open("wb") as file:
                shutil.copyfileobj(source, file)
                file.flush()
                os.fsync(file.fileno())

    spent = timed(copy)
    shutil.rmtree(target)
    return spent


def main() -> None:
    """One first backup, one of unchanged files, and several of grown ones."""
    with tempfile.TemporaryDirectory() as name:
        fleet = Fleet(Path(name))
        copying = raw(Path(name), fleet)
        first = timed(fleet.back_up)
        before = fleet.stored("objects")
        unchanged = timed(fleet.back_up)
        again = fleet.stored("objects") - before
        grown, written, added = [], [], 0
        for _ in range(HOURS):
            added = fleet.grow()
            before = fleet.stored("objects")
            grown.append(timed(fleet.back_up))
            written.append(fleet.stored("objects") - before)
        manifest = fleet.stored("manifests") / BOTS / (HOURS + 2)
    most = max(written)
    say(
        "bytes that it writes",
        f"unchanged {again}; grown by {added / 1e6:.1f} MB: {' '.join(f'{one / 1e6:.1f}' for one in written)} MB of "
        f"objects, where storing the last mebibyte anew is {BOTS * SIZE / 1e6:.0f} MB; a manifest {manifest:.0f} bytes",
        f"nothing; what grew, and {REST // 1024} KiB a file, and pieces that become one",
        held=again == 0 and most <= added + BOTS * 3 * REST,
    )
    worst = max(one.wall for one in (*grown, unchanged))
    say(
        f"hourly backup of {BOTS:,} files of {SIZE // 1000} kB, read back and pruned",
        f"unchanged {unchanged}; grown by {NEW} rows {', '.join(map(str, grown))}; the first {first}; only to copy "
        f"and fsync them {copying}",
        f"{BOUND:.0f} s",
        held=worst <= BOUND,
    )


if __name__ == "__main__":
    main()
