"""A bot that appends a JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.formats.base import Files
from support.trade_files import HEADER, row

_NAMES = HEADER.strip().split(",")


def record(number: int) -> dict[str, Any]:
    """The fill of support.trade_writer, as a bot in Python has it."""
    cells = dict(zip(_NAMES, row(number).strip().split(","), strict=True))
    return cells | {"trade_id": 1000 + number, "order_id": int(cells["order_id"])}


def line(number: int) -> str:
    """It as a line."""
    return json.dumps(record(number)) + "\n"


def _write(path: Path, rows: int, first: int) -> None:
    path.write_text("".join(line(number) for number in range(first, first + rows)))


def _append(path: Path, rows: int, first: int) -> None:
    with path.open("a") as file:
        file.write("".join(line(number) for number in range(first, first + rows)))


def _tear(path: Path) -> None:
    with path.open("a") as file:
        file.write(line(999)[:77])


def _spoil(path: Path, number: int) -> None:
    whole = line(number).encode()
    path.write_bytes(path.read_bytes().replace(whole, bytes(len(whole) - 1) + b"\n"))


FILES = Files("trades.jsonl", _write, _append, _tear, _spoil)
