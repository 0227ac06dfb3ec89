"""A bot that appends rows of text."""

from __future__ import annotations

from pathlib import Path

from support.formats.base import Files
from support.trade_files import row, table


def _write_csv(path: Path, rows: int, first: int) -> None:
    path.write_text(table(rows, start=first))


def _append_csv(path: Path, rows: int, first: int) -> None:
    with path.open("a") as file:
        file.write("".join(row(number) for number in range(first, first + rows)))


def _tear_csv(path: Path) -> None:
    with path.open("a") as file:
        file.write(row(999)[:33])


def _spoil_csv(path: Path, number: int) -> None:
    line = row(number).encode()
    path.write_bytes(path.read_bytes().replace(line, bytes(len(line) - 1) + b"\n"))


FILES = Files("trades.csv", _write_csv, _append_csv, _tear_csv, _spoil_csv)
