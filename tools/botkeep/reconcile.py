"""Trades that the bot's own log or the exchange has and its data file has not.

A bot that is killed loses up to eight kilobytes of buffered rows and leaves a perfect file: no look at the file alone
can find that. So after every unclean death the file is compared with what the bot logged, or with the exchange.
Ranked by what can be trusted: the exchange, the file's own rows, the log. Text from a log is anybody's: only trades at
plausible prices are taken from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from .config import Bot, ReplayConfig
from .formats.base import TradeTable
from .model import BotkeepError, ClosedTrade, Ended, Fill, Finding, Replay, iso, parse_iso
from .programs import environment_of
from .workspace import Workspace

NOTHING = ReplayConfig()
LOOK_BACK = timedelta(days=1)
BEGUN = timedelta(seconds=5)
SAME = 0.8
"""Share of the file's trades that a source must have too, before it is believed to tell of the same bot."""
REACHES = timedelta(days=7)
"""How far back a log is read after a death: rotated logs of real bots reach about as far."""
LOG_BUDGET = 64 << 20
EXCHANGE_SECONDS = 20.0
ASKED_JUST_NOW = timedelta(minutes=1)
MOST = 50_000
"""Trades that one plan adds; more is a new file, and a person's work."""

Trade = Fill | ClosedTrade


@dataclass(frozen=True)
class Missing:
    """What the file has not, ready to be added, and what nobody can say."""

    trades: tuple[Trade, ...] = ()
    sources: tuple[str, ...] = ()
    """Where they are from, a phrase each: `3 from the log hummingbot.log`."""
    origin: tuple[str, ...] = ()
    """log or exchange, one for each trade."""
    quarantined: tuple[Finding, ...] = ()
    unprovable: str = ""
    """What no source can show, a sentence; empty: everything since the asked moment is known."""
    notes: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    """Sources that could be read to the end: log, exchange."""
    wait: datetime | None = None
    """The exchange is not to be asked again before then."""
    ended: tuple[Ended, ...] = ()
    """What a log shows closed, whether it is missing or not."""


def has_source(bot: Bot) -> bool:
    """Whether something is configured that trades can be read again from."""
    if bot.profile is None and bot.replay == NOTHING:
        return False  # most bots: nothing is loaded for them

    from . import replay

    return bool(replay.sources(bot).log or replay.sources(bot).exchange)


def gather(
    bot: Bot,
    workspace: Workspace,
    table: TradeTable,
    *,
    since: datetime | None,
    now: datetime,
    exchange: bool,
    until: datetime | None = None,
    budget: int = LOG_BUDGET,
) -> Missing:
    """Read what is configured, and tell which of its trades `table` has not.

    `since`, `until`: what may be lost lies between them; since None: the oldest trade of the table. `exchange`: ask
    that too (over the network, up to 20 s). `budget`: bytes of log. A source that cannot be read is a note, never an
    error: the others still count.
    """
    start = since or min((trade.at for trade in _trades_of(table)), default=None)
    if start is None:
        return Missing(unprovable="Whether trades are missing cannot be proven: there is no row and no backup.")
    replays, notes, wait = _read(bot, workspace, table, start, now, exchange=exchange, budget=budget)
    found = _Found(table, start, until)
    for one in replays:
        found.take(one)
    return Missing(
        trades=tuple(found.trades[:MOST]),
        sources=tuple(found.sources),
        origin=tuple(found.origin[:MOST]),
        quarantined=tuple(found.odd),
        unprovable=_unprovable(bot, replays, start, now),
        notes=tuple(dict.fromkeys([*notes, *found.notes])),
        asked=tuple(one.source for one in replays if one.source == "log" or one.until is None),
        wait=wait,
        ended=tuple(ended for one in replays for ended in one.ended),
    )


def _trades_of(table: TradeTable) -> Sequence[Trade]:
    return table.fills if table.kind == "fills" else table.closed


def _read(
    bot: Bot, workspace: Workspace, table: TradeTable, since: datetime, now: datetime, *, exchange: bool, budget: int
) -> tuple[list[Replay], list[str], datetime | None]:
    """What could be read, why the rest could not, and until when the exchange wants to be left alone.

    Read from a day before `since`: trades that both have show that source and file tell of the same bot.
    """
    from . import replay

    begin = max(since - LOOK_BACK, now - REACHES)

    found: list[Replay] = []
    notes: list[str] = []
    wait = None
    configured = replay.sources(bot)
    if configured.exchange is not None and exchange:
        try:
            found.append(
                replay.from_exchange(
                    configured.exchange,
                    symbols=_symbols(table),
                    since=begin,
                    now=now,
                    environment=environment_of(bot, workspace.home),
                    deadline=EXCHANGE_SECONDS,
                )
            )
        except replay.ReplayWaitError as error:
            notes.append(str(error))
            wait = error.until
        except BotkeepError as error:
            notes.append(str(error))
    if configured.log is not None:
        try:
            found.append(
                replay.from_log(
                    configured.log,
                    configured.grammar,
                    zone=bot.timezone,
                    since=begin,
                    now=now,
                    budget=budget,
                    columns=bot.replay.columns,
                    currency=bot.currency,
                )
            )
        except BotkeepError as error:
            notes.append(str(error))
    return found, notes, wait


def _symbols(table: TradeTable) -> list[str]:
    return sorted({trade.symbol for trade in (*_trades_of(table), *table.open) if trade.symbol})


class _Found:
    """The trades that the table has not, source by source, each once."""

    def __init__(self, table: TradeTable, start: datetime, until: datetime | None) -> None:
        self._table, self._start, self._until = table, start, until
        self.trades: list[Trade] = []
        self.origin: list[str] = []
        self.sources: list[str] = []
        self.odd: list[Finding] = []
        self.notes: list[str] = []

    def take(self, one: Replay) -> None:
        """What this source has besides. Of a log, only trades at plausible prices."""
        from . import replay

        left = replay.missing(self._table, one)
        self.odd += left.quarantined
        self.notes += left.notes
        fresh = [trade for trade in left.trades if self._may_be_lost(trade)]
        if fresh and not _tells_of_this(self._table, one, left):
            self.notes.append(
                f"the {one.source} {one.name} and the data file do not tell the same trades (another bot's, or "
                f"another time zone?): nothing is taken from it"
            )
            return
        if one.source == "log":
            sound, wild = replay.split(fresh, _trades_of(self._table))
            fresh, self.odd = list(sound), [*self.odd, *wild]
        if fresh:
            self._add(one, fresh)

    def _add(self, one: Replay, fresh: list[Trade]) -> None:
        self._table = _with(self._table, fresh)
        self.trades += fresh
        self.origin += [one.source] * len(fresh)
        self.sources.append(f"{len(fresh)} from the {one.source} {one.name}")
        if len(self.trades) > MOST:
            self.notes.append(f"{len(self.trades)} trades are missing; only the first {MOST} are taken")

    def _may_be_lost(self, trade: Trade) -> bool:
        """What a living bot has traded since is in its buffer, and no loss."""
        return trade.at >= self._start and (self._until is None or trade.at <= self._until)


def _tells_of_this(table: TradeTable, one: Replay, left: Replay) -> bool:
    """Whether what the file has of the stretch that the source covers is, nearly all of it, in the source too.

    A log of another bot, or times of another zone, would double every trade. Without one trade in common nothing shows
    that they are the same bot's.
    """
    told = [trade.at for trade in one.trades]
    first = min([*told, *([one.since] if one.since else [])], default=None)
    if first is None:
        return True
    last = one.until or max(told, default=first)
    rows = sum(first <= trade.at <= last for trade in _trades_of(table))
    matched = len(told) - len(left.trades)
    known = bool(_trades_of(table))
    return matched >= rows * SAME and (matched > 0 or not known)


def _with(table: TradeTable, trades: Sequence[Trade]) -> TradeTable:
    fills = tuple(one for one in trades if isinstance(one, Fill))
    closed = tuple(one for one in trades if isinstance(one, ClosedTrade))
    return replace(table, fills=(*table.fills, *fills), closed=(*table.closed, *closed))


def _unprovable(bot: Bot, replays: Sequence[Replay], since: datetime | None, now: datetime) -> str:
    """The stretch that no source covers."""
    reaches = min((one.since for one in replays if one.since is not None), default=None)
    if reaches is None:
        return f"Whether trades are missing cannot be proven: {_why_not(bot)}."
    said = []
    if since is not None and reaches > since:
        said.append(f"Not provable before {reaches:%Y-%m-%d %H:%M:%SZ}: what there is to read again begins there.")
    ends = [one.until for one in replays if one.since is not None]
    if all(ends) and (last := max(filter(None, ends))) < now - ASKED_JUST_NOW:
        said.append(f"Not provable after {last:%Y-%m-%d %H:%M:%SZ}: what there is to read again ends there.")
    return " ".join(said)


def _why_not(bot: Bot) -> str:
    """In a few words; `replay.sources` says what to configure."""
    if has_source(bot):
        return "what is configured could not be read, or tells of no trade"
    if bot.paper:
        return "it trades on paper, so that no exchange knows its trades, and no log of its fills is configured"
    return "neither a log of its fills nor an exchange is configured (replay)"


def finding_of(missing: Missing) -> Finding | None:
    """What speaks for a restore, if trades are missing."""
    if not missing.trades:
        return None
    first = min(missing.trades, key=lambda trade: trade.at)
    count = "1 trade is" if len(missing.trades) == 1 else f"{len(missing.trades)} trades are"
    text = f"{count} not in it ({'; '.join(missing.sources)}), the first of {first.at:%Y-%m-%d %H:%M:%SZ}."
    return Finding("R1", text, True)


def lost_since(path: Path, table: TradeTable, backed_up_to: datetime | None) -> datetime | None:
    """Where what may be lost begins: what the newest backup has was verified, or a person accepted it as it is.

    Of a file without a row and without a backup: when it was begun, but not if it took the place of a rotated one,
    whose trades would all come back into the new file.
    """
    if backed_up_to is not None or _trades_of(table):
        return backed_up_to
    try:
        rotated = [one for one in path.parent.iterdir() if one.name.startswith(path.stem) and one != path]
        return None if rotated else datetime.fromtimestamp(path.stat().st_mtime, UTC) - BEGUN
    except OSError:
        return None


# --- kept with a plan --------------------------------------------------------------------------------------------


def trade_json(trade: Trade) -> dict[str, Any]:
    """Plain JSON of a trade, exact."""
    values = {name: _plain(value) for name, value in asdict(trade).items()}
    return {"kind": "fill" if isinstance(trade, Fill) else "closed", **values}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    return str(value) if isinstance(value, Decimal) else value


def trade_from(raw: Mapping[str, Any]) -> Trade:
    """The reverse. Raises KeyError, TypeError or ValueError where it is none of ours."""
    kind: type[Fill] | type[ClosedTrade] = Fill if raw["kind"] == "fill" else ClosedTrade
    types = {one.name: str(one.type) for one in fields(kind)}
    values = {name: _typed(value, types[name]) for name, value in raw.items() if name != "kind"}
    return kind(**values)


def _typed(value: Any, kind: str) -> Any:
    if value is None or kind.startswith("str"):
        return value
    return parse_iso(value) if kind.startswith("datetime") else Decimal(value)


def marked(missing: Missing) -> list[dict[str, Any]]:
    """The trades with where each is from, for the record that lies beside the damaged file."""
    pairs = zip(missing.trades, missing.origin, strict=True)
    return [{"source": source, **trade_json(trade)} for trade, source in pairs]


def record_path(folder: Path) -> Path:
    """Where `marked` is kept in a quarantine folder."""
    return folder / "replayed.json"
