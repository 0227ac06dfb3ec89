"""A real process that writes a trade file, in one of the ways that bots do. Driven line by line on stdin.

    python trade_writer.py MODE FILE

Modes: append (holds the file open), step (as append; `half` writes half a row, `rest` the other, `text` what is given
as JSON), rewrite (truncates and writes the whole table for ever), frame (the same with pandas), replace (writes beside,
renames, for ever), drip (a few bytes at a time, for ever), edit (a table whose open rows are closed later, for ever).
It answers `ready` once it works, and after every command.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

HEADER = "time,symbol,side,price,qty,fee,fee_asset,trade_id,order_id\n"


def row(number: int) -> str:
    """A fill a minute."""
    hour, minute = divmod(number, 60)
    side = "SELL" if number % 2 else "BUY"
    day, hour = divmod(hour, 24)
    at = f"2026-11-{1 + day:02}T{hour:02}:{minute:02}:00.000+00:00"
    return f"{at},DOGEUSDT,{side},0.1{number:05},100.0,0.01,USDT,{1000 + number},{5000 + number // 3}\n"


def table(rows: int, start: int = 0) -> str:
    """Header and rows."""
    return HEADER + "".join(row(number) for number in range(start, start + rows))


def main() -> None:
    mode, path = sys.argv[1], Path(sys.argv[2])
    threading.excepthook = lambda _: os._exit(1)  # whoever waits for `ready` must see that it will not come
    if mode in ("append", "step"):
        _append(path)
    else:
        work = {"rewrite": _rewrite, "frame": _frame, "replace": _replace, "drip": _drip, "edit": _edit}[mode]
        threading.Thread(target=work, args=(path,), daemon=True).start()
        sys.stdin.read()


def _say(text: str) -> None:
    print(text, flush=True)


def _append(path: Path) -> None:
    number = max(0, path.read_text().count("\n") - 1) if path.exists() else 0
    with path.open("a") as file:
        if not file.tell():
            _put(file, HEADER)
        _say("ready")
        for line in sys.stdin:
            word, _, count = line.strip().partition(" ")
            text = row(number)
            if word == "rows":
                _put(file, "".join(row(n) for n in range(number, number + int(count))))
                number += int(count)
            elif word == "half":
                _put(file, text[: len(text) // 2])
            elif word == "rest":
                _put(file, text[len(text) // 2 :])
                number += 1
            elif word == "text":
                _put(file, json.loads(count))
            _say("ready")


def _put(file: TextIO, text: str) -> None:
    file.write(text)
    file.flush()


def _rewrite(path: Path) -> None:
    """As a bot that saves its whole table after every trade, a few lines at a time."""
    rows = 60
    while True:
        with path.open("w") as file:
            _put(file, HEADER)
            for number in range(rows):
                file.write(row(number))
                if number % 7 == 0:
                    file.flush()
                if number == 30:
                    time.sleep(0.002)
        rows += 1
        if rows == 61:
            _say("ready")
        time.sleep(0.004)


def _frame(path: Path) -> None:
    import pandas as pd

    rows = [row(number).strip().split(",") for number in range(400)]
    names = HEADER.strip().split(",")
    said = False
    while True:
        pd.DataFrame(rows, columns=names).to_csv(path, index=False)
        rows.append(row(len(rows)).strip().split(","))
        if not said:
            said = True
            _say("ready")
        time.sleep(0.004)


def _replace(path: Path) -> None:
    rows, beside = 20, path.with_suffix(".new")
    while True:
        beside.write_text(table(rows))
        os.replace(beside, path)
        rows += 1
        if rows == 21:
            _say("ready")


def _drip(path: Path) -> None:
    """As a program whose rows come out in pieces."""
    with path.open("a") as file:
        _put(file, table(20))
        _say("ready")
        number = 20
        while True:
            text = row(number)
            for start in range(0, len(text), 9):
                _put(file, text[start : start + 9])
                time.sleep(0.001)
            number += 1


EDITED = "open_time,close_time,symbol,qty,pnl,trade_id\n"


def _edited(number: int, closed: bool) -> str:
    at = f"2026-11-{1 + number // 1440:02} {number // 60 % 24:02}:{number % 60:02}"
    return f"{at}:00,{at + ':30' if closed else ''},DOGEUSDT,100.0,{'1.25' if closed else ''},{number}\n"


def _edit(path: Path) -> None:
    rows = 40
    while True:
        text = EDITED + "".join(_edited(number, closed=number < rows - 5) for number in range(rows))
        with path.open("w") as file:
            _put(file, text)
        rows += 1
        if rows == 41:
            _say("ready")
        time.sleep(0.003)


if __name__ == "__main__":
    main()
