"""A bot that logs every fill at once and buffers its rows: killed, it loses rows and leaves a clean file.

    fill_bot.py FILE LOG [--flush] [--every SECONDS]

The log is Hummingbot's own way of writing; the rows are plain fills with trade ids that go on from the file's last one.
"""

import json
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

HEADER = "time,symbol,side,price,qty,fee,fee_asset,trade_id,order_id\n"


def main(file: str, log: str, flush: bool, every: float) -> None:
    """Trade until SIGTERM."""
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    path = Path(file)
    rows = path.read_text().splitlines()[1:] if path.exists() else []
    number = int(rows[-1].split(",")[7]) + 1 if rows else 1000
    with path.open("a") as output, open(log, "a", buffering=1) as events:
        if not path.stat().st_size:
            output.write(HEADER)
            output.flush()
        while not done.wait(every):
            at = datetime.now(UTC).replace(microsecond=0)
            side, price = ("buy", "0.1012") if number % 2 else ("sell", "0.1034")
            events.write(line(at, number, side, price))
            output.write(f"{at:%Y-%m-%dT%H:%M:%SZ},DOGE-USDT,{side},{price},50,0.005,USDT,{number},o-{number}\n")
            if flush:
                output.flush()
            number += 1


def line(at: datetime, number: int, side: str, price: str) -> str:
    """One fill as Hummingbot's event reporter logs it."""
    event = {
        "timestamp": at.timestamp(),
        "order_id": f"o-{number}",
        "trading_pair": "DOGE-USDT",
        "trade_type": f"TradeType.{side.upper()}",
        "order_type": "OrderType.LIMIT",
        "price": price,
        "amount": "50",
        "trade_fee": {"percent": "0", "percent_token": None, "flat_fees": [{"token": "USDT", "amount": "0.005"}]},
        "exchange_trade_id": str(number),
        "leverage": 1,
        "position": "NIL",
        "event_name": "OrderFilledEvent",
        "event_source": "binance_paper_trade",
    }
    reporter = "hummingbot.core.event.event_reporter"
    return f"{at:%Y-%m-%d %H:%M:%S},000 - 4242 - {reporter} - EVENT_LOG - {json.dumps(event)}\n"


if __name__ == "__main__":
    words = sys.argv[1:]
    pause = float(words[words.index("--every") + 1]) if "--every" in words else 0.05
    main(words[0], words[1], "--flush" in words, pause)
