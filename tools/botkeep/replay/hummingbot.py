"""Hummingbot's log: an EVENT_LOG line for every fill, written even when its database could not be.

`2026-11-21 09:51:26,198 - 23707 - hummingbot.core.event.event_reporter - EVENT_LOG - {"timestamp": 1795254686.0, ...}`:
the format of its own `hummingbot_logs.yml`, and the fields of its OrderFilledEvent with `event_name` and `event_source`
behind them. The time in the event is UTC; only the line's own is local.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from ..formats.columns import moment, split_symbol
from ..model import Fill
from .base import Gathered, Line, NotATradeError, Reading, exact, past, positive, word
from .strictjson import json_object

_EVENT = re.compile(
    rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - \d{1,10} - hummingbot\.core\.event\.event_reporter - EVENT_LOG - (?=\{)"
)
_FILLED = b"OrderFilledEvent"
_SIDES = {"TradeType.BUY": "buy", "TradeType.SELL": "sell", "BUY": "buy", "SELL": "sell"}
_SILENT = (
    "It has no EVENT_LOG line, and fills stand only in those: set `hummingbot.core.event.event_reporter` to level "
    "EVENT_LOG in conf/hummingbot_logs.yml."
)


class Events:
    """The fills in the EVENT_LOG lines."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._fills: list[Fill] = []
        self._witnessed = self._flat = False

    def feed(self, line: Line) -> None:
        """One line; only one that is an event from its first character to its last can be a fill."""
        match = _EVENT.match(line.data)
        if match is None:
            return
        self._witnessed = True
        if _FILLED not in line.data[match.end() :]:
            return
        try:
            if (fill := self._fill(line, match.end())) is not None:
                self._fills.append(fill)
        except NotATradeError as why:
            self._reading.doubts.add(line, str(why))

    def _fill(self, line: Line, start: int) -> Fill | None:
        event = json_object(line.data[start:]) if line.whole else None
        if event is None:
            raise NotATradeError("an event that is cut short or no JSON")
        if event.get("event_name") != "OrderFilledEvent":
            return None
        at = moment(str(event.get("timestamp")))
        if at is None:
            raise NotATradeError("the timestamp is not one")
        symbol = word(event.get("trading_pair"), "trading pair")
        fee, currency = self._fee(event, symbol)
        return Fill(
            at=past(at, self._reading.now),
            symbol=symbol,
            side=_side(event.get("trade_type")),
            price=positive(event.get("price"), "price"),
            amount=positive(event.get("amount"), "amount"),
            fee=fee,
            fee_currency=currency,
            id=word(event.get("exchange_trade_id"), "exchange trade id"),
            order_id=word(event.get("order_id"), "order id"),
            market=word(event["event_source"], "event source") if event.get("event_source") else "",
            quote=split_symbol(symbol)[1],
        )

    def _fee(self, event: dict[str, Any], symbol: str) -> tuple[Decimal, str]:
        """(fee, its currency). As Hummingbot adds it up: a share of price x amount in quote, and flat amounts.

        Source: `fee_amount_in_token` in hummingbot/core/data_type/trade_fee.py. A fee in a third currency stays there;
        one in several currencies cannot be told in one figure.
        """
        quote = split_symbol(symbol)[1]
        parts = _fee_parts(event, quote)
        if len(parts) > 1:
            raise NotATradeError("the fee is in several currencies")
        currency, fee = next(iter(parts.items()), (quote, Decimal(0)))
        return fee, currency

    def finish(self) -> Gathered:
        """All fills."""
        return Gathered(fills=tuple(self._fills), witnessed=self._witnessed, unwitnessed=_SILENT)


def _side(text: object) -> str:
    side = _SIDES.get(text) if isinstance(text, str) else None
    if side is None:
        raise NotATradeError("the trade type is neither buy nor sell")
    return side


def _fee_parts(event: dict[str, Any], quote: str) -> dict[str, Decimal]:
    """Currency -> fee. A share that is paid in a third currency is told by its worth in quote, as Hummingbot does."""
    told = event.get("trade_fee")
    if not isinstance(told, dict) or not isinstance(flat := told.get("flat_fees", []), list):
        raise NotATradeError("the trade fee is not one")
    parts: dict[str, Decimal] = {}
    percent = exact(told.get("percent"), "fee")
    if percent:
        parts[quote] = percent * exact(event.get("price"), "price") * exact(event.get("amount"), "amount")
    for one in flat:
        currency, amount = _flat_fee(one)
        if amount:
            parts[currency] = parts.get(currency, Decimal(0)) + amount
    return parts


def _flat_fee(told: Any) -> tuple[str, Decimal]:
    """`{"token": "BNB", "amount": "0.1"}`, or the same two as a list."""
    pair = (told.get("token"), told.get("amount")) if isinstance(told, dict) else told
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise NotATradeError("a flat fee is not one")
    return word(pair[0], "fee currency").upper(), exact(pair[1], "fee")
