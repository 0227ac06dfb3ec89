"""What Hummingbot's own files say of a bot: which connectors it trades with, and which version it is.

Each file is read as text, and of its YAML only lines that are a key and one plain word: a configuration is somebody's
to write, and nothing of it is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from botkeep.durable import read_regular

LIMIT = 64 * 1024
MOST_CONTROLLERS = 16
FOLDERS = ("conf/scripts", "conf/strategies", "conf/controllers", "conf")
PAPER = "_paper_trade"

_CONNECTOR = re.compile(
    rb"^(?:exchange|connector|connector_name|(?:spot|perp|maker|taker)_connector|(?:maker|taker|primary|secondary)_market"
    rb"|(?:maker|taker)_exchange|derivative)[ ]?:[ ]{1,4}['\"]?([a-z0-9_]{1,64})['\"]?[ \t]*\r?$",
    re.MULTILINE,
)
_MARKETS = re.compile(rb"^markets:[ \t]*\r?\n((?:[ -][^\n]*\n)*)", re.MULTILINE)
_MARKET = re.compile(rb"^ {1,4}([a-z0-9_]{1,64}):", re.MULTILINE)
_CONTROLLER = re.compile(rb"^[ ]{0,4}- ([A-Za-z0-9_][A-Za-z0-9_.-]{0,100}\.ya?ml)[ \t]*\r?$", re.MULTILINE)
_VERSION = re.compile(rb"\A\s*([A-Za-z0-9][A-Za-z0-9.+_-]{0,39})\s*\Z")
_NAMED_OTHERWISE = {
    "binance_perpetual": "binanceusdm",
    "coinbase_advanced_trade": "coinbase",
    "dydx_v4_perpetual": "dydx",
    "gate_io": "gate",
    "gate_io_perpetual": "gate",
    "kucoin_hft": "kucoin",
    "kucoin_perpetual": "kucoinfutures",
}
"""Connectors whose exchange ccxt calls something else than the rule in `exchange_of` says."""


def installs(data_file: Path | None, log_file: Path | None, cwd: Path | None) -> tuple[Path, ...]:
    """Folders that may hold the bot's conf, data and logs: above its data file, above its log, where it runs."""
    found = [path.parent.parent for path in (data_file, log_file) if path and path.parent.name in ("data", "logs")]
    return tuple(dict.fromkeys([*found, *([cwd] if cwd else [])]))


def connectors(data_file: Path | None, log_file: Path | None, places: Iterable[Path]) -> tuple[str, ...]:
    """The connectors that the bot's configuration names. It has the name of its log (`logs_NAME.log`) or database."""
    names = [_named_by(log_file, "logs_"), _named_by(data_file, "")]
    for place in places:
        for name in filter(None, dict.fromkeys(names)):
            if found := tuple(dict.fromkeys(_named(place, name))):
                return found
    return ()


def _named_by(path: Path | None, start: str) -> str:
    return path.stem.removeprefix(start) if path and path.name.startswith(start) else ""


def _named(place: Path, name: str) -> Iterator[str]:
    text = _first(place / folder / f"{name}.yml" for folder in FOLDERS)
    yield from _connectors_in(text)
    for controller in _CONTROLLER.findall(text)[:MOST_CONTROLLERS]:
        yield from _connectors_in(_first([place / "conf/controllers" / controller.decode()]))


def _connectors_in(text: bytes) -> Iterator[str]:
    yield from (name.decode() for name in _CONNECTOR.findall(text))
    for markets in _MARKETS.findall(text):
        yield from (name.decode() for name in _MARKET.findall(markets))


def _first(paths: Iterable[Path]) -> bytes:
    """The first of these files that can be read; empty if none can."""
    for path in paths:
        with suppress(OSError):
            if (data := read_regular(path, LIMIT)) is not None:
                return data
    return b""


def version(places: Iterable[Path]) -> str:
    """As Hummingbot's file VERSION has it; empty if there is none."""
    found = _VERSION.match(_first(place / "hummingbot/VERSION" for place in places))
    return found[1].decode() if found else ""


def exchange_of(names: Iterable[str]) -> str:
    """The one exchange of these connectors, as ccxt calls it; empty for none and for several."""
    found = {_exchange(name) for name in names}
    return found.pop() if len(found) == 1 else ""


def _exchange(connector: str) -> str:
    name = connector.lower().removesuffix(PAPER).removesuffix("_papertrade").removesuffix("_testnet")
    return _NAMED_OTHERWISE.get(name) or name.removesuffix("_perpetual").replace("_", "")


def is_paper(names: Iterable[str]) -> bool | None:
    """Whether all of these connectors only trade on paper; None for none."""
    found = [name.lower().endswith((PAPER, "_papertrade")) for name in names]
    return all(found) if found else None
