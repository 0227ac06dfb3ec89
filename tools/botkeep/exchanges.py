"""Exchanges by name: what ccxt calls them, the host of their public API, and which one a log line is about."""

from __future__ import annotations

import re
from functools import cache

HOSTS = {
    "binance": "api.binance.com",
    "binancecoinm": "dapi.binance.com",
    "binanceus": "api.binance.us",
    "binanceusdm": "fapi.binance.com",
    "bingx": "open-api.bingx.com",
    "bitfinex": "api.bitfinex.com",
    "bitget": "api.bitget.com",
    "bitmart": "api-cloud.bitmart.com",
    "bitmex": "www.bitmex.com",
    "bitstamp": "www.bitstamp.net",
    "bitvavo": "api.bitvavo.com",
    "bybit": "api.bybit.com",
    "coinbase": "api.coinbase.com",
    "coinbaseexchange": "api.exchange.coinbase.com",
    "cryptocom": "api.crypto.com",
    "deribit": "www.deribit.com",
    "dydx": "indexer.dydx.trade",
    "gate": "api.gateio.ws",
    "gemini": "api.gemini.com",
    "htx": "api.huobi.pro",
    "hyperliquid": "api.hyperliquid.xyz",
    "kraken": "api.kraken.com",
    "krakenfutures": "futures.kraken.com",
    "kucoin": "api.kucoin.com",
    "kucoinfutures": "api-futures.kucoin.com",
    "mexc": "api.mexc.com",
    "okx": "www.okx.com",
    "phemex": "api.phemex.com",
    "poloniex": "api.poloniex.com",
    "upbit": "api.upbit.com",
    "whitebit": "whitebit.com",
    "woo": "api.woox.io",
}
"""As ccxt calls the exchange -> the host of its public API. No other name is ever looked up on a log's word."""
ALIASES = {
    "cryptodotcom": "cryptocom", "gateio": "gate", "huobi": "htx", "okex": "okx", "binanceperpetual": "binanceusdm",
    "krakenperpetual": "krakenfutures", "kucoinperpetual": "kucoinfutures",
}  # fmt: skip
_SUFFIXES = ("papertrade", "testnet", "derivative", "perpetual", "spot")
"""What Hummingbot puts behind the name of an exchange."""


def exchange_id(name: str) -> str:
    """As ccxt calls it: `binance` for `Binance`, `binance_paper_trade`. What is not known stays, in lower case."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())[:40]
    for _ in _SUFFIXES:
        if plain in HOSTS or plain in ALIASES:
            break
        plain = next((plain.removesuffix(end) for end in _SUFFIXES if plain.endswith(end) and plain != end), plain)
    return ALIASES.get(plain, plain)


def named_in(text: str) -> str:
    """The one exchange that a log line names, as ccxt calls it; empty for none, and for several."""
    found = {exchange_id(name) for name in _names().findall(text.lower())}
    return found.pop() if len(found) == 1 else ""


@cache
def _names() -> re.Pattern[str]:
    """Names stand between what is no letter: `api.binance.com`, `freqtrade.exchange.binance`, `binance GET https`."""
    names = sorted((*HOSTS, *ALIASES), key=len, reverse=True)
    return re.compile(rf"(?<![a-z0-9])(?:{'|'.join(names)})(?![a-z0-9])")
