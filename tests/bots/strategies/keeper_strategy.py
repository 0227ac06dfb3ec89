"""Enters whatever it may, holds the first pair, leaves the others after some seconds: trades come and stay open.

Run by freqtrade in its own virtual environment. Once a file lies at `hang_file` of the configuration, the next
analysis takes it away and never returns, while the API's thread goes on answering.
"""
# ruff: noqa: ARG002, RUF012 - freqtrade's own interface

from datetime import datetime
from pathlib import Path
from threading import Event

from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy
from pandas import DataFrame


class KeeperStrategy(IStrategy):
    """Every candle is a signal."""

    INTERFACE_VERSION = 3
    timeframe = "1m"
    startup_candle_count = 5
    process_only_new_candles = False
    minimal_roi = {"0": 10.0}
    stoploss = -0.5
    order_types = {"entry": "market", "exit": "market", "stoploss": "market", "stoploss_on_exchange": False}

    def version(self) -> str:
        return "keeper-1"

    def populate_indicators(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        hang = Path(self.config["hang_file"])
        if hang.exists():
            hang.unlink()
            Event().wait()
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        dataframe.loc[:, ["enter_long", "enter_tag"]] = (1, "every")
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        return dataframe

    def custom_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float, current_profit: float, **kwargs
    ) -> str | None:
        held = (current_time - trade.open_date_utc).total_seconds()
        return "held" if pair not in self.config["held_pairs"] and held > self.config["hold_seconds"] else None
