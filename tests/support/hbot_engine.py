"""A program that behaves as Hummingbot's engine does towards hbot, its log and its database. See support/hbot.py.

    python -m hummingbot.cli.engine --name NAME

It logs in the format of Hummingbot's own hummingbot_logs.yml, answers SIGUSR1 with a snapshot once it serves, and ends
on SIGTERM. What it does meanwhile stands in the file `tell` of the install's folder, which it takes away when done:
`trade N` makes N fills, each an EVENT_LOG line and then a row of TradeFill; `hang` blocks its event loop for good, as a
strategy in an endless call does; `say TEXT` logs a line. `slow SECONDS` makes every snapshot take as long. With a file
`boots`, it serves only when that is gone.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sqlite3
import sys
import time
from decimal import Decimal
from pathlib import Path

EVENT_LOG = 29  # hummingbot's own levels: NETWORK 26, EVENT_LOG 29
FEE = {"percent": "0.001", "percent_token": None, "flat_fees": []}
PREFIX = Path.cwd()


class Engine:
    """One bot."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.number = 0
        self.slow = 0.0
        self.over = asyncio.Event()
        self.writing: set[asyncio.Task[None]] = set()
        self.base = sqlite3.connect(PREFIX / "data" / f"{name}.sqlite", timeout=0.05)

    def log(self, logger: str, level: int, text: str, *, failed: bool = False) -> None:
        logging.getLogger(logger).log(level, text, exc_info=failed)

    async def serve(self) -> None:
        """Boot, then answer until SIGTERM."""
        self.log("root", logging.INFO, "Starting V2 script strategy: simple_pmm")
        self.log("hummingbot.core.connector_manager", logging.INFO, "Created connector: binance_paper_trade")
        while (PREFIX / "boots").exists():
            await asyncio.sleep(0.02)
        self.log("hummingbot.core.trading_core", logging.INFO, "Strategy simple_pmm started successfully")
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.over.set)
        loop.add_signal_handler(signal.SIGUSR1, self.answer)
        await self.snapshot(running=True)
        while not self.over.is_set():
            self.obey()
            await asyncio.sleep(0.02)
        self.log("root", logging.INFO, "Stop requested — winding down strategy and cancelling orders.")
        self.log("hummingbot.core.trading_core", logging.INFO, "Trading core shutdown complete")
        await self.snapshot(running=False)

    def answer(self) -> None:
        task = asyncio.get_running_loop().create_task(self.snapshot(running=True))
        self.writing.add(task)
        task.add_done_callback(self.writing.discard)

    async def snapshot(self, *, running: bool) -> None:
        """The moment is that of the question; balances may take their time."""
        found = {"name": self.name, "pid": os.getpid(), "running": running, "updated_at": time.time()}
        await asyncio.sleep(self.slow)
        found["format_status"] = "\n  Balances: {[{[ETH 20.19895 ]}]}"
        found["balances"] = {"binance_paper_trade": {"ETH": 20.19895, "USDT": 99463.62723145}}
        file = PREFIX / "data" / "bot" / ".status.json"
        file.write_text(json.dumps(found))
        os.replace(file, PREFIX / "data" / "bot" / "status.json")

    # -- told

    def obey(self) -> None:
        tell = PREFIX / "tell"
        if not tell.exists():
            return
        word, _, rest = tell.read_text().partition(" ")
        if word == "hang":
            tell.unlink()
            time.sleep(3600)
        elif word == "slow":
            self.slow = float(rest)
        elif word == "say":
            self.log("hummingbot.strategy.strategy_v2_base", logging.INFO, rest)
        elif word == "trade":
            for _ in range(int(rest)):
                self.trade()
        tell.unlink()

    def trade(self) -> None:
        """A fill: told to every listener, of which the reporter logs it and the recorder stores it."""
        self.number += 1
        at = time.time()
        side, price = ("BUY", "2640.320001") if self.number % 2 else ("SELL", "2642.4")
        fill = {
            "timestamp": at, "order_id": f"{side.lower()}://ETH-USDT/{self.number:026x}", "trading_pair": "ETH-USDT",
            "trade_type": f"TradeType.{side}", "order_type": "OrderType.LIMIT", "price": price, "amount": "0.05",
            "trade_fee": FEE, "exchange_trade_id": f"{int(at * 1e6)}{self.number}", "leverage": 1, "position": "NIL",
            "event_name": "OrderFilledEvent", "event_source": "binance_PaperTrade",
        }  # fmt: skip
        self.log("hummingbot.core.event.event_reporter", EVENT_LOG, json.dumps(fill))
        try:
            self.store(fill, side)
        except sqlite3.Error:
            self.base.rollback()
            self.log(
                "hummingbot.core.pubsub", logging.ERROR, "Unexpected error while processing event 107.", failed=True
            )

    def store(self, fill: dict, side: str) -> None:
        """Prices and amounts as millionths."""
        price, amount = Decimal(fill["price"]), Decimal(fill["amount"])
        row = (
            f"{self.name}.yml", "simple_pmm", fill["event_source"], "ETH-USDT", "ETH", "USDT",
            int(fill["timestamp"] * 1000), fill["order_id"], side, "LIMIT", int(price * 10**6), int(amount * 10**6), 1,
            json.dumps({"fee_type": "DeductedFromReturns", **FEE}), int(price * amount * 1000),
            fill["exchange_trade_id"], "NIL",
        )  # fmt: skip
        with self.base:
            self.base.execute(f"INSERT INTO TradeFill VALUES ({', '.join('?' * len(row))})", row)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--name", required=True)
    name = options.parse_args().name
    logging.addLevelName(EVENT_LOG, "EVENT_LOG")
    logging.basicConfig(
        filename=PREFIX / "logs" / f"logs_{name}.log",
        level=logging.INFO,
        format="%(asctime)s - %(process)d - %(name)s - %(levelname)s - %(message)s",
    )
    logging.Formatter.converter = time.gmtime
    engine = Engine(name)
    asyncio.run(engine.serve())
    sys.exit(0)


if __name__ == "__main__":
    main()
