"""A JSON record for a trade, written as another record of the file is: its order, blanks, quotes and nesting."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Protocol

from ..model import ClosedTrade, Fill
from . import layout as delimited_layout
from . import rowwriting
from .jsontext import Place, places

_CUT = "\x1f"
"""Stands between cells while they are no JSON yet; no printable text has it."""
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_NAMELESS = frozenset({"base", "quote", "status", "market"})
"""Roles whose value may get lost: others say the same, or it is not the trade's."""


class _Layout(Protocol):
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def roles(self) -> Mapping[str, int]: ...
    @property
    def numbers(self) -> tuple[int, ...]: ...
    @property
    def needed(self) -> tuple[int, ...]: ...
    @property
    def time(self) -> int | None: ...
    @property
    def status(self) -> str: ...
    @property
    def markets(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...
    @property
    def execution(self) -> str: ...


def encode(layout: _Layout, zone: tzinfo, trade: Fill | ClosedTrade, like: bytes, cells: Sequence[str]) -> bytes | str:
    """The record; members of which nothing is known are null. Text: why the members of `like` cannot hold the trade."""
    row = rowwriting.encode(_as_row(layout), zone, trade, None, cells)
    if isinstance(row, str):
        return row
    values = dict(zip(layout.names, row.decode().split(_CUT), strict=True))
    if layout.kind:
        values[layout.kind] = layout.execution
    spots = places(like)
    lost = _lost(layout, values, {spot.name for spot in spots})
    if lost:
        return f"the records it is written like have no {lost}"
    return _written(like, spots, values, {layout.names[place] for place in layout.numbers})


def _as_row(layout: _Layout) -> delimited_layout.Layout:
    """The same columns, as a row of delimited text has them."""
    return delimited_layout.Layout(
        delimiter=_CUT,
        names=layout.names,
        header="",
        body=0,
        roles=layout.roles,
        numbers=layout.numbers,
        needed=layout.needed,
        time=layout.time,
        status=layout.status,
        markets=layout.markets,
    )


def _lost(layout: _Layout, values: Mapping[str, str], there: set[str]) -> str:
    """The first member that the trade needs and `like` has not."""
    wanted = {layout.names[place] for role, place in layout.roles.items() if role not in _NAMELESS}
    return next((name for name in layout.names if values[name] and name in wanted and name not in there), "")


def _written(like: bytes, spots: Sequence[Place], values: Mapping[str, str], figures: set[str]) -> bytes:
    parts, at = [], 0
    for spot in spots:
        old, text = like[spot.start : spot.end], values.get(spot.name, "")
        parts += [like[at : spot.start], _value(text, old, spot.name in figures)]
        at = spot.end
    return b"".join([*parts, like[at:]])


def _value(text: str, old: bytes, figure: bool) -> bytes:
    """In quotes where `old` is; a number where it is one."""
    if not text:
        return b"null"
    bare = not old.startswith(b'"') and (figure or old != b"null")
    if bare and _NUMBER.fullmatch(text):
        return text.encode()
    return json.dumps(text, ensure_ascii=not any(byte > 127 for byte in old)).encode()
