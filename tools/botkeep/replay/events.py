"""A file of events, one JSON object a line: what many own bots write beside their data file."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..formats.base import FormatOptions
from ..formats.columns import Trades, plain_name, roles_of
from ..model import BotkeepError, ClosedTrade, Fill
from .base import Gathered, Line, NotATradeError, Reading, past, word
from .strictjson import json_object

EVENT = "event"
"""Our name, in `columns`, of the value that says what kind of event a line is."""
_KINDS = ("event", "event_name", "event_type", "kind", "type", "msg_type")
_TELLS_FILLS = ("fill", "trade", "execut", "closed", "exit")
_TELLS_NONE = ("unfilled", "not_filled", "order_placed", "submitted", "cancel", "reject", "signal", "open_order")
_NONE = (
    "No line of it is a trade. Name its values in bots.json, "
    '"replay": {"columns": {"time": ..., "symbol": ..., "side": ..., "price": ..., "amount": ...}}; '
    '"event" names the value that says what kind of line it is.'
)


class EventLines:
    """The trades among the events. With a kind of event in the line, that must say a fill, a trade or an execution."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._columns = {role: name for role, name in reading.columns.items() if role != EVENT}
        self._event = reading.columns.get(EVENT, "")
        self._options = FormatOptions(columns=self._columns, timezone=reading.zone, quote=reading.currency)
        self._fills: list[Fill] = []
        self._closed: list[ClosedTrade] = []
        self._torn = 0

    def feed(self, line: Line) -> None:
        """One line."""
        if not line.data.strip():
            return
        found = json_object(line.data.strip()) if line.whole else None
        if found is None:
            self._torn += 1
            return
        names, cells = _flattened(found)
        try:
            if _may_be_trade(names, cells, self._event):
                self._take(names, cells)
        except NotATradeError as why:
            self._reading.doubts.add(line, str(why))

    def _take(self, names: tuple[str, ...], cells: list[str]) -> None:
        roles = _roles(names, tuple(sorted(self._columns.items())))
        try:
            one = Trades(names, roles, self._options, "The event file")
        except BotkeepError:
            return  # an event of another kind: it lacks what every trade has
        one.add(1, cells, None)
        table = one.table()
        if table.skipped:
            raise NotATradeError(table.notes[0].partition(": ")[2])
        for closed in table.closed:
            past(closed.at, self._reading.now)
            self._closed.append(closed)
        for fill in table.fills:
            self._keep(fill)

    def _keep(self, fill: Fill) -> None:
        past(fill.at, self._reading.now)
        word(fill.symbol, "symbol")
        if fill.price <= 0 or fill.amount <= 0:
            raise NotATradeError("price or amount is not above zero")
        self._fills.append(fill)

    def finish(self) -> Gathered:
        """All of them. A file of both keeps the closed trades apart from the fills."""
        notes = [f"{self._torn} lines are no JSON objects and were not read"] if self._torn else []
        return Gathered(
            fills=tuple(self._fills),
            closed=tuple(self._closed),
            witnessed=bool(self._fills or self._closed),
            unwitnessed=_NONE,
            notes=tuple(notes),
        )


@lru_cache(maxsize=256)
def _roles(names: tuple[str, ...], chosen: tuple[tuple[str, str], ...]) -> dict[str, int]:
    return roles_of(names, dict(chosen))


def _flattened(found: dict[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    """Names and cells; of an object in the object with a dot: `fee.cost`."""
    names: list[str] = []
    cells: list[str] = []
    for name, value in found.items():
        inner = value.items() if isinstance(value, dict) else (("", value),)
        for key, cell in inner:
            names.append(f"{name}.{key}" if isinstance(value, dict) else name)
            cells.append(cell if isinstance(cell, str) else "")
    return tuple(names), cells


def _may_be_trade(names: tuple[str, ...], cells: list[str], event: str) -> bool:
    """Without a kind every line may be one; its columns decide then."""
    if event:
        kind = cells[names.index(event)] if event in names else ""
        return _tells_fill(kind)
    kinds = [cell for name, cell in zip(names, cells, strict=True) if plain_name(name) in _KINDS]
    told = [kind for kind in kinds if not _is_order_type(kind)]
    return all(_tells_fill(kind) for kind in told)


def _tells_fill(kind: str) -> bool:
    said = plain_name(kind)
    return any(part in said for part in _TELLS_FILLS) and not any(part in said for part in _TELLS_NONE)


def _is_order_type(kind: str) -> bool:
    """`"type": "limit"` is the order's, and `"type": "buy"` its side: neither is a kind of event."""
    return plain_name(kind) in ("limit", "market", "stop", "stop_limit", "buy", "sell", "long", "short", "spot", "")
