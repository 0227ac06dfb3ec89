"""Trades read again from a bot's own log or event file, with its rotated predecessors, strictly.

Whoever can put text into a log (an exchange by its error messages, a pair by its name) could try to write a trade
there. So a trade counts only where its whole line, from the first character to the last, is what the bot writes; every
number is of the bounded grammar; and two that contradict each other both do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from ..formats.columns import zone_of
from ..linetime import LineClock
from ..logfile import LogError
from ..model import BotkeepError, ClosedTrade, Fill, Replay, UsageError
from .base import Doubts, Gathered, Grammar, Reading, Trade
from .events import EventLines
from .freqtrade import Messages
from .hummingbot import Events
from .rotated import Piece, opened

GRAMMARS: dict[str, Callable[[Reading], Grammar]] = {
    "freqtrade": Messages,
    "hummingbot": Events,
    "jsonl": EventLines,
}
BUDGET = 256 << 20
"""Bytes that are read, the newest first; of a packed file they are counted unpacked."""

_One = TypeVar("_One", Fill, ClosedTrade)


def from_log(
    path: Path,
    grammar: str,
    *,
    zone: str = "UTC",
    since: datetime | None = None,
    now: datetime,
    budget: int = BUDGET,
    columns: Mapping[str, str] | None = None,
    currency: str = "",
) -> Replay:
    """The trades in the log `path` and in what was rotated away from it, back to `since` (None: as far as it goes).

    `grammar`: one of GRAMMARS. `zone`: of times without one. `budget`: bytes, the newest are read; a packed
    file that unpacks to more is not read, for its newest are its last. `columns`: of jsonl,
    botkeep's name of a value: the file's. `currency`: of amounts that name none. `since` of the result is where the
    log begins to be whole; None where it has no line of the kind that tells of trades, for then it proves nothing.
    Raises UsageError for an unknown grammar, BotkeepError for a log that cannot be read.
    """
    make = GRAMMARS.get(grammar)
    if make is None:
        raise UsageError(f"There is no grammar {grammar!r} for logs. Write one of: {', '.join(GRAMMARS)}.")
    zone_of(zone)  # an unknown one would be taken as UTC, and every time be wrong
    doubts = Doubts()
    clock = LineClock(zone, now.timestamp())
    try:
        with opened(path) as (pieces, notes):
            chosen, reach = _reach(pieces, since, budget, clock, notes)
            gathered = _read(chosen, make(Reading(now, doubts, zone, columns or {}, currency)))
    except LogError as error:
        raise BotkeepError(f"No trades can be read again from the log: {error}") from error
    return _replay(path.name, gathered, reach, doubts, notes)


def _reach(
    pieces: list[Piece], since: datetime | None, budget: int, clock: LineClock, notes: list[str]
) -> tuple[list[tuple[Piece, int]], float | None]:
    """The files to read, the oldest first, each with where to begin; and when the first of their lines was written."""
    chosen: list[tuple[Piece, int]] = []
    reach: float | None = None
    for piece in pieces:
        first = piece.first(clock.read)
        reach = first if first is not None else reach
        size = piece.size_up_to(budget)
        if size > budget:
            if not piece.packed:
                chosen.append((piece, piece.begin(budget)))
            reach = _first_from(chosen[-1], clock) if chosen else None
            notes.append(f"only the newest bytes of the log were read, back to {_told(reach)}")
            break
        budget -= size
        chosen.append((piece, 0))
        if since is not None and first is not None and first <= since.timestamp():
            break
    return chosen[::-1], reach


def _first_from(chosen: tuple[Piece, int], clock: LineClock) -> float | None:
    """When the first dated line from there on was written."""
    piece, start = chosen
    return next((at for line in piece.lines(start) if (at := clock.read(line.data)) is not None), None)


def _told(at: float | None) -> str:
    return "an unknown time" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}"


def _read(chosen: list[tuple[Piece, int]], grammar: Grammar) -> Gathered:
    for piece, start in chosen:
        for line in piece.lines(start):
            grammar.feed(line)
    return grammar.finish()


def _replay(name: str, gathered: Gathered, reach: float | None, doubts: Doubts, notes: list[str]) -> Replay:
    fills = _agreed(gathered.fills, doubts)
    closed = _agreed(gathered.closed, doubts)
    said = [*gathered.notes, *notes, *doubts.notes()]
    if not gathered.witnessed:
        said.append(f"The log {name} proves nothing. {gathered.unwitnessed}")
    if reach is None:  # the lines of an event file may be dated in a way that only its columns tell
        everything: tuple[Trade, ...] = (*fills, *closed)
        reach = min((trade.at.timestamp() for trade in everything), default=None)
    proven = gathered.witnessed and reach is not None
    return Replay(
        source="log",
        name=name,
        fills=fills,
        closed=closed,
        since=datetime.fromtimestamp(reach, UTC) if proven and reach is not None else None,
        quarantined=tuple(doubts.found),
        notes=tuple(dict.fromkeys(said)),
        ended=gathered.ended,
    )


def _agreed(trades: tuple[_One, ...], doubts: Doubts) -> tuple[_One, ...]:
    """Each once. A copied or repeated line tells the same again; those of one id that differ are all doubted."""
    found: dict[object, list[_One]] = {}
    for place, trade in enumerate(trades):
        known = found.setdefault(_name(trade, place), [])
        if trade not in known:
            known.append(trade)
    for group in found.values():
        if len(group) > 1:
            one = group[0]
            doubts.say(
                f"{len(group)} lines tell of trade {one.id} ({one.symbol}, {one.at:%Y-%m-%d %H:%M:%SZ}) and differ: "
                "none of them is taken"
            )
    return tuple(group[0] for group in found.values() if len(group) == 1)


def _name(trade: Fill | ClosedTrade, place: int) -> object:
    """What makes it this trade. A bot's own ids begin anew with a new database, so the opening time belongs to them."""
    if not trade.id:
        return place
    begun = trade.opened if isinstance(trade, ClosedTrade) else timedelta()
    return trade.market, trade.symbol, trade.id, begun
