"""Bots that log their fills and buffer their rows: what a test of lost rows says in a word."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from botkeep.formats import FORMATS, FormatOptions
from botkeep.model import utc_now
from support.fill_bot import HEADER, line
from support.fleet import Fleet, entry, fleet, wait_for

SCRIPT = Path(__file__).with_name("fill_bot.py")


def fill_entry(*words: str, **more: Any) -> dict[str, Any]:
    """A bot that logs its fills and buffers its rows."""
    command = [sys.executable, "fill_bot.py", "data/doge.csv", "fills.log", *words]
    return {
        **entry(),
        "runtime": {"kind": "process", "command": command, "stop_grace": 3},
        "replay": {"log": "fills.log", "grammar": "hummingbot"},
        **more,
    }


def logged(one: Fleet) -> list[str]:
    """Ids of the fills in the log."""
    text = (one.home / "fills.log").read_text() if (one.home / "fills.log").exists() else ""
    return [
        json.loads(line.split(" - EVENT_LOG - ")[1])["exchange_trade_id"]
        for line in text.rpartition("\n")[0].splitlines()
    ]


def written(one: Fleet) -> list[str]:
    """Ids of the fills in the file."""
    return [fill.id for fill in FORMATS["csv"].trades(one.data(), options=FormatOptions()).fills]


def run_and_kill(one: Fleet, fills: int = 8) -> list[str]:
    """Let it trade, then kill -9; the ids it had logged."""
    pid = int(one.desk().restart("doge", "first start").pid or 0)
    before = len(logged(one))
    wait_for(lambda: len(logged(one)) >= before + fills)
    one.kill(pid)
    return logged(one)


def seed(one: Fleet, rows: int = 3) -> None:
    """Rows that were written in an earlier life, so that the file is known."""
    at = utc_now().replace(microsecond=0) - timedelta(minutes=5)
    body = "".join(
        f"{at:%Y-%m-%dT%H:%M:%SZ},DOGE-USDT,buy,0.1012,50,0.005,USDT,{number},o-{number}\n"
        for number in range(1000, 1000 + rows)
    )
    one.data().write_text(HEADER + body)
    (one.home / "fills.log").write_text(
        "".join(line(at, number, "buy", "0.1012") for number in range(1000, 1000 + rows))
    )


@contextmanager
def filling(home: Path, *entries: dict[str, Any]) -> Iterator[Fleet]:
    """A workspace with such bots, and their program."""
    with fleet(home, *(entries or (fill_entry(),))) as found:
        shutil.copyfile(SCRIPT, found.home / "fill_bot.py")
        yield found
