"""A stand-in for an exchange, on loopback, that answers as Binance's spot API does, and misbehaves as asked.

Only what reading one's own trades needs: exchangeInfo, time and myTrades with fromId, startTime and limit. Every
request is remembered with its headers, so that a test can say what was sent where.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "stand-in-key-0123456789abcdef0123456789"
SECRET = "stand-in-secret-fedcba9876543210fedcba98"
NEW_YEAR = 1_795_219_200_000
"""2026-11-21 00:00:00 UTC, in milliseconds."""
MINUTE = 60_000


def trade(number: int, *, at: int | None = None, symbol: str = "BTCUSDT", **other: Any) -> dict[str, Any]:
    """One of the account's trades, in Binance's words."""
    row = {
        "symbol": symbol, "id": 1000 + number * 3, "orderId": 500 + number // 2, "orderListId": -1,
        "price": f"{60000 + number}.10000000", "qty": "0.00320000", "quoteQty": "192.00000000",
        "commission": "0.19200000", "commissionAsset": "USDT",
        "time": NEW_YEAR + number * MINUTE if at is None else at,
        "isBuyer": number % 2 == 0, "isMaker": False, "isBestMatch": True,
    }  # fmt: skip
    return row | other


@dataclass
class Answer:
    """What is sent instead of the true answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """Told instead of the true one: more than is sent is a truncated answer."""
    drip: float = 0.0
    """Seconds between two bytes."""
    silent: float = 0.0
    """Seconds before anything is sent."""


def error(status: int, code: int, text: str, **headers: str) -> Answer:
    """As Binance tells an error."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps({"code": code, "msg": text}).encode(), told)


Fault = Callable[["StandIn", int, list[dict[str, Any]]], Answer | list[dict[str, Any]] | None]
"""(exchange, number of the myTrades request from 0 on, the true page) -> something else, or None for the true page."""


class StandIn:
    """The exchange: its trades, its habits, and what it was asked."""

    def __init__(self, trades: Sequence[dict[str, Any]], fault: Fault | None = None, page: int = 1000) -> None:
        self.trades = sorted(trades, key=lambda row: row["id"])
        self.fault, self.page = fault, page
        self.newest = False
        """Asked for trades from a moment on, it gives the newest of all."""
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        """(path, query, headers)."""
        self.base = ""
        self.stopped = threading.Event()

    @property
    def pages(self) -> list[dict[str, str]]:
        """The queries of myTrades."""
        return [query for path, query, _ in self.asked if path.endswith("/myTrades")]

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str], signed: str) -> Answer:
        self.asked.append((path, query, headers))
        if path == "/api/v3/exchangeInfo":
            return _json({"timezone": "UTC", "rateLimits": [], "symbols": [_market("BTC"), _market("ETH")]})
        if path == "/api/v3/time":
            return _json({"serverTime": int(time.time() * 1000)})
        if path not in ("/api/v3/myTrades", "/sapi/v1/margin/myTrades"):
            return error(404, -1, f"no such path here: {path}")
        return self._refusal(query, headers, signed) or self._trades(query)

    def _refusal(self, query: dict[str, str], headers: dict[str, str], signed: str) -> Answer | None:
        if headers.get("X-MBX-APIKEY") != KEY:
            return error(401, -2014, "API-key format invalid.")
        if hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest() != query.get("signature"):
            return error(400, -1022, "Signature for this request is not valid.")
        if "fromId" in query and "startTime" in query:
            return error(400, -1128, "Combination of optional parameters invalid.")
        return None

    def _trades(self, query: dict[str, str]) -> Answer:
        most = min(int(query.get("limit", "500")), self.page)
        mine = [row for row in self.trades if row["symbol"] == query["symbol"]]
        if "fromId" in query:
            found = [row for row in mine if row["id"] >= int(query["fromId"])][:most]
        elif "startTime" in query:
            found = [row for row in mine if row["time"] >= int(query["startTime"])]
            found = found[-most:] if self.newest else found[:most]
        else:
            found = mine[-most:]
        said = self.fault(self, len(self.pages) - 1, found) if self.fault else None
        return said if isinstance(said, Answer) else _json(found if said is None else said)


def _json(value: Any) -> Answer:
    return Answer(body=json.dumps(value).encode())


def _market(base: str) -> dict[str, Any]:
    return {
        "symbol": f"{base}USDT", "status": "TRADING", "baseAsset": base, "baseAssetPrecision": 8,
        "quoteAsset": "USDT", "quotePrecision": 8, "quoteAssetPrecision": 8, "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "permissions": [], "permissionSets": [["SPOT"]],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
        ],
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    exchange: StandIn

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        signed = address.query.partition("&signature=")[0]
        answer = self.exchange.answer(address.path, query, dict(self.headers.items()), signed)
        self.exchange.stopped.wait(answer.silent)
        try:
            self._send(answer)
        except OSError:  # nobody waits for it any more
            self.close_connection = True

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
        self.end_headers()
        if answer.drip:
            self._drip(answer)
        else:
            self.wfile.write(answer.body)
        if answer.length is not None:
            self.close_connection = True

    def _drip(self, answer: Answer) -> None:
        for byte in answer.body:
            if self.exchange.stopped.wait(answer.drip):
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Silent."""


@contextmanager
def running(exchange: StandIn) -> Iterator[StandIn]:
    """The exchange at a free port of this machine; `base` is its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"exchange": exchange}))
    server.daemon_threads = True
    exchange.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield exchange
    finally:
        exchange.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
