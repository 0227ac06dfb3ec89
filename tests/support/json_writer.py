"""A real process that writes trades as JSON, in one of the ways that bots do. Driven line by line on stdin.

    python json_writer.py MODE FILE

Modes: lines (holds the file open; `rows N`, `half`, `rest`), rewrite (writes the whole document over the old one, for
ever), replace (writes it beside and renames, for ever), stall (writes half of one over the old one, and waits).
It answers `ready` once it works, and after every command.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

START = 1_793_491_200  # 2026-11-01


def fill(number: int) -> dict[str, Any]:
    """A fill a minute, as exchanges report it: times in milliseconds, the fee as an object of its own."""
    return {
        "id": 1000 + number,
        "timestamp": (START + 60 * number) * 1000,
        "symbol": "DOGE/USDT",
        "side": "sell" if number % 2 else "buy",
        "price": round(0.1 + number / 1_000_000, 6),
        "amount": 100.0,
        "fee": {"cost": 0.01, "currency": "USDT"},
        "info": {"raw": ["x", number], "maker": number % 3 == 0},
    }


def main() -> None:
    mode, path = sys.argv[1], Path(sys.argv[2])
    threading.excepthook = lambda _: os._exit(1)  # whoever waits for `ready` must see that it will not come
    if mode == "lines":
        _lines(path)
    elif mode == "stall":
        _stall(path)
    else:
        threading.Thread(target={"rewrite": _rewrite, "replace": _replace}[mode], args=(path,), daemon=True).start()
        sys.stdin.read()


def _say(text: str) -> None:
    print(text, flush=True)


def _put(file: TextIO, text: str) -> None:
    file.write(text)
    file.flush()


def _lines(path: Path) -> None:
    number = 0
    with path.open("a") as file:
        _say("ready")
        for line in sys.stdin:
            word, _, count = line.strip().partition(" ")
            text = json.dumps(fill(number)) + "\n"
            if word == "rows":
                _put(file, "".join(json.dumps(fill(n)) + "\n" for n in range(number, number + int(count))))
                number += int(count)
            elif word == "half":
                _put(file, text[: len(text) // 2])
            elif word == "rest":
                _put(file, text[len(text) // 2 :])
                number += 1
            _say("ready")


def _stall(path: Path) -> None:
    text = json.dumps([fill(number) for number in range(61)], indent=2)
    with path.open("w") as file:
        _put(file, text[: len(text) // 2])
        _say("ready")
        sys.stdin.read()


def _rewrite(path: Path) -> None:
    rows = 60
    while True:
        with path.open("w") as file:
            for place, piece in enumerate(json.JSONEncoder(indent=2).iterencode([fill(n) for n in range(rows)])):
                file.write(piece)
                if place % 97 == 0:
                    file.flush()
                if place == 400:
                    time.sleep(0.002)
        if rows == 60:
            _say("ready")
        rows = min(rows + 1, 150)  # then the same again: what is written must not grow slower than it is looked at
        time.sleep(0.01)


def _replace(path: Path) -> None:
    rows, beside = 20, path.with_suffix(".new")
    while True:
        beside.write_text(json.dumps({"trades": [fill(number) for number in range(rows)]}))
        os.replace(beside, path)
        rows += 1
        if rows == 21:
            _say("ready")


if __name__ == "__main__":
    main()
