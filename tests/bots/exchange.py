"""A stand-in for Binance's spot market, on loopback, that moves with real time and misbehaves as it is told.

What a dry run of freqtrade asks: exchangeInfo, time, klines, depth, the tickers. Prices are a function of time, so
that two questions at one moment agree and every trade earns or loses something. The server is support.exchange's.

A dry run signs nothing. Binance gives -1021 and -2015 to signed questions only; here they come to open ones too, so
that the bot meets what a live one meets.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from support.exchange import MINUTE, Answer, StandIn, error

PRICES = {"BTC": 62000.0, "ETH": 2640.0, "SOL": 141.0, "XRP": 0.52, "ADA": 0.35, "DOGE": 0.11}
"""Base currency -> about what it costs in USDT."""
PAIRS = tuple(f"{base}/USDT" for base in PRICES)
CANDLES = 500
"""Binance's own number, where the question names none."""
NEVER = 3600.0
"""Seconds: longer than any test."""
HTML = {"Content-Type": "text/html"}
OVERLOADED = b"<html><head><title>503 Service Unavailable</title></head></html>"
MAINTENANCE = b"<html><body><h1>System upgrade</h1><p>We will be back soon.</p></body></html>"


class Mood(StrEnum):
    """How it behaves."""

    WELL = "well"
    BANNED = "banned"
    """418 with the end of the ban, until that very moment; then well."""
    LIMITED = "limited"
    """429, -1003."""
    WRONG_CLOCK = "wrong-clock"
    """Its time is another than ours: -1021."""
    STALE = "stale"
    """The candles stand still; everything else goes on."""
    MUTE = "mute"
    """Takes a question and never answers."""
    AWAY = "away"
    """503."""
    UPGRADING = "upgrading"
    """200 with a page of HTML."""
    KEY_REFUSED = "key-refused"
    """-2015."""


class Market(StandIn):
    """The exchange: set `mood`, and what belongs to it, at any time."""

    def __init__(self) -> None:
        super().__init__([])
        self.mood = Mood.WELL
        self.banned_until = 0
        """Milliseconds since the epoch."""
        self.ahead = 0.0
        """Seconds that its clock is ahead of ours."""
        self.candles_end: float | None = None
        """Epoch seconds at which the candles stopped; None: they go on."""

    @property
    def place(self) -> str:
        """host:port."""
        return self.base.removeprefix("http://")

    def behave(self) -> None:
        """All is well again."""
        self.mood, self.ahead, self.candles_end = Mood.WELL, 0.0, None

    def ban(self, seconds: float) -> int:
        """Ban the bot's address for so long; the end in milliseconds, as the exchange names it."""
        self.banned_until = int((time.time() + seconds) * 1000)
        self.mood = Mood.BANNED
        return self.banned_until

    def set_clock(self, ahead: float) -> None:
        """Its clock is so many seconds ahead of ours, and it refuses what is signed with another time."""
        self.mood, self.ahead = Mood.WRONG_CLOCK, ahead

    def stop_candles(self, ago: float = 0.0) -> None:
        """Its candles have not moved for so many seconds."""
        self.mood, self.candles_end = Mood.STALE, time.time() - ago

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str], signed: str) -> Answer:  # noqa: ARG002
        """What it says to one question; who asks is all the same to it."""
        trouble = _TROUBLE.get(self.mood)
        said = trouble(self, path) if trouble else None
        if said is not None:
            return said
        find = _PATHS.get(path)
        return _json(find(self, query)) if find else error(404, -1, f"no such path here: {path}")

    def candles(self, symbol: str, since: int | None, most: int, step: int) -> list[list[Any]]:
        """Binance's candles of `step` milliseconds, the last one not finished yet."""
        end = int((self.candles_end or time.time()) * 1000)
        first = end // step * step - (most - 1) * step if since is None else -(-since // step) * step
        return [_candle(symbol, at, step) for at in range(first, end + 1, step)[:most]]


def price(symbol: str, at: float) -> float:
    """What it costs at that moment (epoch seconds): two waves, half a percent and two of them."""
    base = symbol.removesuffix("USDT")
    shift = list(PRICES).index(base)
    wave = 0.005 * math.sin(at / 37 + shift) + 0.02 * math.sin(at / 7 + 2 * shift)
    return PRICES[base] * (1 + wave)


def _candle(symbol: str, at: int, step: int) -> list[Any]:
    prices = [price(symbol, (at + part * step / 8) / 1000) for part in range(9)]
    told = (prices[0], max(prices), min(prices), prices[-1])
    return [at, *map(_text, told), "1200.0", at + step - 1, "120000.0", 300, "600.0", "60000.0", "0"]


def _text(amount: float) -> str:
    return f"{amount:.6f}"


# ---------------------------------------------------------------------------------------------------- what it answers


def _info(market: Market, query: dict[str, str]) -> dict[str, Any]:
    return {"timezone": "UTC", "serverTime": 0, "rateLimits": [], "symbols": [_symbol(base) for base in PRICES]}


def _symbol(base: str) -> dict[str, Any]:
    return {
        "symbol": f"{base}USDT", "status": "TRADING", "baseAsset": base, "baseAssetPrecision": 8,
        "quoteAsset": "USDT", "quotePrecision": 8, "quoteAssetPrecision": 8, "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "permissions": [], "permissionSets": [["SPOT"]],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.00001", "maxPrice": "1000000", "tickSize": "0.00001"},
            {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000000", "stepSize": "0.00001"},
            {"filterType": "NOTIONAL", "minNotional": "5.0", "applyMinToMarket": True, "maxNotional": "9000000"},
        ],
    }  # fmt: skip


def _time(market: Market, query: dict[str, str]) -> dict[str, int]:
    return {"serverTime": int((time.time() + market.ahead) * 1000)}


def _klines(market: Market, query: dict[str, str]) -> list[list[Any]]:
    since = int(query["startTime"]) if "startTime" in query else None
    step = {"1m": MINUTE, "5m": 5 * MINUTE, "1h": 60 * MINUTE, "1d": 1440 * MINUTE}[query.get("interval", "1m")]
    return market.candles(query["symbol"], since, int(query.get("limit", CANDLES)), step)


def _depth(market: Market, query: dict[str, str]) -> dict[str, Any]:
    now = price(query["symbol"], time.time())
    levels = range(1, int(query.get("limit", "100")) + 1)
    asks = [[_text(now * (1 + 0.0001 * level)), "100000.0"] for level in levels]
    bids = [[_text(now * (1 - 0.0001 * level)), "100000.0"] for level in levels]
    return {"lastUpdateId": int(time.time() * 1000), "bids": bids, "asks": asks}


def _each(tell: Callable[[str], dict[str, Any]]) -> Callable[[Market, dict[str, str]], Any]:
    """Of the one symbol that was asked for, else of all."""

    def find(market: Market, query: dict[str, str]) -> Any:
        if "symbol" in query:
            return tell(query["symbol"])
        return [tell(f"{base}USDT") for base in PRICES]

    return find


def _ticker(symbol: str) -> dict[str, Any]:
    now, ms = price(symbol, time.time()), int(time.time() * 1000)
    return {
        **_book(symbol), "lastPrice": _text(now), "openPrice": _text(now), "highPrice": _text(now * 1.01),
        "lowPrice": _text(now * 0.99), "weightedAvgPrice": _text(now), "prevClosePrice": _text(now),
        "priceChange": "0.0", "priceChangePercent": "0.0", "lastQty": "1.0", "volume": "100000.0",
        "quoteVolume": "9000000.0", "openTime": ms - 1440 * MINUTE, "closeTime": ms,
        "firstId": 1, "lastId": 2, "count": 2,
    }  # fmt: skip


def _book(symbol: str) -> dict[str, Any]:
    now = price(symbol, time.time())
    bid, ask = _text(now * 0.9999), _text(now * 1.0001)
    return {"symbol": symbol, "bidPrice": bid, "bidQty": "100000.0", "askPrice": ask, "askQty": "100000.0"}


def _price(symbol: str) -> dict[str, Any]:
    return {"symbol": symbol, "price": _text(price(symbol, time.time()))}


_PATHS: dict[str, Callable[[Market, dict[str, str]], Any]] = {
    "/api/v3/exchangeInfo": _info,
    "/api/v3/time": _time,
    "/api/v3/klines": _klines,
    "/api/v3/depth": _depth,
    "/api/v3/ticker/24hr": _each(_ticker),
    "/api/v3/ticker/bookTicker": _each(_book),
    "/api/v3/ticker/price": _each(_price),
}


# ---------------------------------------------------------------------------------------------------- how it fails


def _ban(market: Market, path: str) -> Answer | None:
    if time.time() * 1000 >= market.banned_until:
        return None
    text = f"Way too much request weight used; IP banned until {market.banned_until}. Please use WebSocket Streams."
    return error(418, -1003, text, Retry_After=str(max(1, market.banned_until // 1000 - int(time.time()))))


def _limit(market: Market, path: str) -> Answer:
    return error(429, -1003, "Too much request weight used; current limit is 6000 request weight per 1 MINUTE.")


def _clock(market: Market, path: str) -> Answer | None:
    if path in ("/api/v3/time", "/api/v3/exchangeInfo"):
        return None
    return error(400, -1021, "Timestamp for this request is outside of the recvWindow.")


def _away(market: Market, path: str) -> Answer:
    return Answer(503, OVERLOADED, HTML)


def _upgrade(market: Market, path: str) -> Answer:
    return Answer(200, MAINTENANCE, HTML)


def _refuse(market: Market, path: str) -> Answer:
    return error(401, -2015, "Invalid API-key, IP, or permissions for action.")


def _mute(market: Market, path: str) -> Answer:
    return Answer(silent=NEVER)


_TROUBLE: dict[Mood, Callable[[Market, str], Answer | None]] = {
    Mood.BANNED: _ban,
    Mood.LIMITED: _limit,
    Mood.WRONG_CLOCK: _clock,
    Mood.MUTE: _mute,
    Mood.AWAY: _away,
    Mood.UPGRADING: _upgrade,
    Mood.KEY_REFUSED: _refuse,
}


def _json(value: Any) -> Answer:
    return Answer(body=json.dumps(value).encode())
