"""A bot that trades as often as people's do, by its own wall clock: `report_bot.py NAME SYMBOL A_DAY MEAN`.

A row in data/NAME.csv for each closed trade, about A_DAY of them, MEAN the average result. While there is a file
NAME.refused, its exchange refuses its key. SIGTERM ends it.
"""

import os
import random
import signal
import sys
import time

DAY = 86400
REFUSED_EVERY = 120
HEADER = "open_time,close_time,symbol,direction,entry_price,exit_price,qty,pnl\n"


def said(at: float) -> str:
    """UTC, as bots write it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def row(symbol: str, begin: float, end: float, result: float) -> str:
    """One closed trade."""
    entry = 100 + begin % 7
    return f"{said(begin)},{said(end)},{symbol},long,{entry:.4f},{entry + result / 10:.4f},10,{result:.8f}\n"


def main(name: str, symbol: str, a_day: float, mean: float) -> None:
    """Trade until SIGTERM."""
    going = [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    chance = random.Random(f"{name}-{os.getpid()}")
    trades = os.open(f"data/{name}.csv", os.O_WRONLY | os.O_APPEND)
    last = time.time()
    due = last + chance.expovariate(a_day / DAY)
    refused = 0.0
    print(f"{said(last)} INFO {name} starts", flush=True)
    while going:
        now = time.time()
        if now >= due:
            os.write(trades, row(symbol, last, due, chance.gauss(mean, 1)).encode())
            print(f"{said(now)} INFO {symbol} closed", flush=True)
            last, due = due, due + chance.expovariate(a_day / DAY)
        if now - refused > REFUSED_EVERY and os.path.exists(f"{name}.refused"):
            refused = now
            print(f'{said(now)} ERROR binance {{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}}',
                  flush=True)  # fmt: skip
        time.sleep(0.02)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
