"""A bot whose day is watched: `day_bot.py NAME`. It tells by itself when it lived, and which trades it wrote.

Each 50 ms a line `monotonic_ns wall_ns pid` in NAME.stamps; each 300 ms a trade in data/NAME.csv, its number before
that in NAME.wrote. While there is a file NAME.crash, it dies at start. SIGTERM ends it.
"""

import os
import signal
import sys
import time

TICK = 0.05
TRADE_EVERY = 6


def main(name: str) -> None:
    """Trade until SIGTERM."""
    going = [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    if os.path.exists(f"{name}.crash"):
        print("RuntimeError: the strategy's module cannot be loaded", flush=True)
        sys.exit(3)
    stamps, wrote, trades = (appended(f"{name}.stamps"), appended(f"{name}.wrote"), appended(f"data/{name}.csv"))
    if not os.fstat(trades).st_size:
        os.write(trades, b"id,timestamp,symbol,side,price,amount,fee,pnl\n")
    ticks = 0
    while going:
        os.write(stamps, b"%d %d %d\n" % (time.monotonic_ns(), time.time_ns(), os.getpid()))
        if ticks % TRADE_EVERY == 0:
            number, now = f"{os.getpid()}-{ticks}", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            os.write(wrote, f"{number}\n".encode())
            os.write(trades, f"{number},{now},DOGE/USDT,buy,0.1{ticks % 100:02d},10,0.001,0.05\n".encode())
        ticks += 1
        time.sleep(TICK)


def appended(path: str) -> int:
    """A descriptor whose every write is one piece at the end."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


if __name__ == "__main__":
    main(sys.argv[1])
