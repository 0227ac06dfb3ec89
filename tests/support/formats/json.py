"""A bot that writes its whole list of fills as one JSON document, each time anew."""

from __future__ import annotations

import json
from pathlib import Path

from support.formats.base import Files
from support.formats.jsonl import record


def document(rows: int, first: int = 0) -> str:
    """The document with these fills, indented as `json.dump(..., indent=1)` does it."""
    return json.dumps([record(number) for number in range(first, first + rows)], indent=1)


def _write(path: Path, rows: int, first: int) -> None:
    path.write_text(document(rows, first))


def _append(path: Path, rows: int, first: int) -> None:
    """Added before the closing bracket, whatever stands before it: another test may have spoilt that."""
    more = document(rows, first).removeprefix("[").encode()
    path.write_bytes(path.read_bytes().removesuffix(b"\n]") + b"," + more)


def _tear(path: Path) -> None:
    _append(path, 1, 999)
    path.write_bytes(path.read_bytes()[:-120])


def _spoil(path: Path, number: int) -> None:
    whole = document(1, number).removeprefix("[\n").removesuffix("\n]").encode()
    path.write_bytes(path.read_bytes().replace(whole, bytes(len(whole))))


FILES = Files("trades.json", _write, _append, _tear, _spoil)
