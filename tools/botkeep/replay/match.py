"""Which of the trades that were read again a data file has not. Pure: two sets of trades, one answer.

A trade id names a trade, but not everybody's ids are the same: a file may count its rows, and a bot counts from 1
again with a new database. So ids are believed where they agree with what the trades say, and else symbol, side, price,
amount and time decide, each row of the file standing for one trade. A market has as many names as there are sources
(`binance_perpetual` of a bot is `binanceusdm` of ccxt): where id and all else agree, its name makes no second trade.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from ..formats.base import TradeTable
from ..formats.columns import side_of, split_symbol
from ..formats.values import plain_market
from ..model import ClosedTrade, Fill, Finding, Replay
from .base import DOUBTED, LISTED, Trade

NEAR = timedelta(seconds=2)
"""Two times of one trade: a bot's and the exchange's, or one cut to seconds."""
ALIKE = Decimal("1e-6")
"""Part by which two writings of one price or amount may differ: floats, and integers that count millionths."""

Where = tuple[str, tuple[str, str]]
"""Market (where it matters) and symbol."""


def missing(table: TradeTable, replay: Replay) -> Replay:
    """The replay with only those trades that `table` has not. Order and all else stay, but a market is named as in the
    file, so that a table with the trades added knows them again, whichever source tells of them next.

    Fills are compared with fills and closed trades with closed ones; of a kind that the table does not keep, nothing
    can be told, so none is missing and a note says so. A trade whose id the file gives to quite another trade is
    among `quarantined`: it is neither known to be there nor safe to add.
    """
    known: Sequence[Trade] = table.fills if table.kind == "fills" else table.closed
    asked: Sequence[Trade] = replay.fills if table.kind == "fills" else replay.closed
    apart: Sequence[Trade] = replay.closed if table.kind == "fills" else replay.fills
    fresh, conflicts = _Comparison(known, asked).fresh()
    fresh = _as_named(fresh, known, asked)
    return replace(
        replay,
        fills=tuple(trade for trade in fresh if isinstance(trade, Fill)),
        closed=tuple(trade for trade in fresh if isinstance(trade, ClosedTrade)),
        quarantined=(*replay.quarantined, *_findings(conflicts)),
        notes=(*replay.notes, *_uncompared(table, apart)),
    )


def _uncompared(table: TradeTable, apart: Sequence[Trade]) -> tuple[str, ...]:
    if not apart:
        return ()
    kept, found = ("fills", "closed trades") if table.kind == "fills" else ("closed trades", "fills")
    return (f"{len(apart)} {found} cannot be compared with a file that keeps {kept}",)


def _findings(conflicts: Sequence[tuple[Trade, Trade]]) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            DOUBTED,
            f"Trade {found.id} of {found.symbol} at {found.at:%Y-%m-%d %H:%M:%SZ} has the id of another trade in the "
            f"file (at {known.at:%Y-%m-%d %H:%M:%SZ}): not added, a person has to look.",
            certain=False,
        )
        for found, known in conflicts[:LISTED]
    )


def _as_named(fresh: Sequence[Trade], known: Sequence[Trade], asked: Sequence[Trade]) -> list[Trade]:
    """With the file's name of their market: the one it knows by that plain name, or its only one, be it none.

    A replay that itself tells several markets apart is not put into one.
    """
    if not known:
        return list(fresh)
    names = {trade.market: trade.market for trade in known if trade.market}
    for name in tuple(names):
        names.setdefault(_plain_market(name), name)
    plain = {_plain_market(name) for name in names.values()}
    only = next(iter(names), "")
    is_only = not plain or (len(plain) == 1 and len({_market(trade) for trade in asked} - {""}) < 2)

    def named(trade: Trade) -> Trade:
        found = names.get(trade.market) or names.get(_market(trade)) or (only if is_only else trade.market)
        return trade if found == trade.market else replace(trade, market=found)

    return [named(trade) for trade in fresh]


class _Comparison:
    """One file's trades against one replay's, all of the same kind."""

    def __init__(self, known: Sequence[Trade], asked: Sequence[Trade]) -> None:
        self._known, self._asked = known, asked
        # A file of one market need not say which, and one market has many names: binance, Binance, binance_PaperTrade.
        self._one_market = len({_market(trade) for trade in known} - {""}) < 2
        self._ids = {key: place for place, trade in enumerate(known) if (key := self._key(trade))}
        self._anywhere: dict[tuple[tuple[str, str], str], list[int]] = {}
        for place, trade in enumerate(known):
            if trade.id and not self._one_market:
                self._anywhere.setdefault((_symbol(trade), trade.id), []).append(place)

    def _where(self, trade: Trade) -> Where:
        return "" if self._one_market else _market(trade), _symbol(trade)

    def _key(self, trade: Trade) -> tuple[Where, str] | None:
        return (self._where(trade), trade.id) if trade.id else None

    def fresh(self) -> tuple[list[Trade], list[tuple[Trade, Trade]]]:
        """What the file has not; and pairs of one id that are not one trade."""
        rows = {place: row for place, trade in enumerate(self._asked) if (row := self._row(trade)) is not None}
        same = {place for place, row in rows.items() if _is_one(self._asked[place], self._known[row])}
        others = {place: row for place, row in rows.items() if place not in same}
        free = _Rows(self._known, {rows[place] for place in same}, self._where, ids_agree=bool(same))
        left = [place for place in range(len(self._asked)) if place not in same]
        left.sort(key=lambda place: self._asked[place].at)
        fresh = {place for place in left if not free.take(self._asked[place])}
        conflicts = {place for place in fresh if same and place in others}
        return (
            [trade for place, trade in enumerate(self._asked) if place in fresh - conflicts],
            [(self._asked[place], self._known[others[place]]) for place in sorted(conflicts)],
        )

    def _row(self, trade: Trade) -> int | None:
        """The one of its id: in its market, or in another if nothing else tells the two apart."""
        key = self._key(trade)
        if key is None:
            return None
        row = self._ids.get(key)
        if row is not None and _is_one(trade, self._known[row]):
            return row
        others = self._anywhere.get((_symbol(trade), trade.id), ())
        return next((place for place in others if _is_equal(trade, self._known[place])), row)


class _Rows:
    """The file's rows that no id has claimed, by where they are and in order of time; each can be taken once."""

    def __init__(
        self, known: Sequence[Trade], claimed: set[int], where: Callable[[Trade], Where], *, ids_agree: bool
    ) -> None:
        self._where, self._ids_agree = where, ids_agree
        self._rows: dict[Where, list[tuple[datetime, int, Trade]]] = {}
        for place, trade in enumerate(known):
            if place not in claimed:
                self._rows.setdefault(where(trade), []).append((trade.at, place, trade))
        for rows in self._rows.values():
            rows.sort(key=lambda row: row[:2])
        self._used: set[int] = set()

    def take(self, trade: Trade) -> bool:
        """Whether a row was left that is this trade."""
        rows = self._rows.get(self._where(trade), [])
        start = bisect_left(rows, trade.at - NEAR, key=lambda row: row[0])
        for number in range(start, len(rows)):
            at, place, row = rows[number]
            if at > trade.at + NEAR:
                return False
            if place not in self._used and self._may_be(trade, row) and _is_alike(trade, row):
                self._used.add(place)
                return True
        return False

    def _may_be(self, trade: Trade, row: Trade) -> bool:
        """Where ids of both are of one kind, two different ids are two trades: parts of one order look alike."""
        return not (self._ids_agree and trade.id and row.id and trade.id != row.id)


def _is_one(trade: Trade, row: Trade) -> bool:
    """Of one id. Times may be told in another zone, figures be rounded; but not both be different."""
    begun = _opened(trade), _opened(row)
    if None not in begun and abs(begun[0] - begun[1]) > NEAR:  # type: ignore[operator]
        return False
    return abs(trade.at - row.at) <= NEAR or _is_alike(trade, row)


def _is_equal(trade: Trade, row: Trade) -> bool:
    """All that both say is the same, and their times."""
    return abs(trade.at - row.at) <= NEAR and _is_one(trade, row) and _is_alike(trade, row)


def _opened(trade: Trade) -> datetime | None:
    return trade.opened if isinstance(trade, ClosedTrade) else None


def _is_alike(trade: Trade, row: Trade) -> bool:
    """All that both say is the same, but for their times."""
    if isinstance(trade, Fill) and isinstance(row, Fill):
        return (
            _side(trade.side) == _side(row.side) and _near(trade.price, row.price) and _near(trade.amount, row.amount)
        )
    if isinstance(trade, ClosedTrade) and isinstance(row, ClosedTrade):
        return (
            _rounded_alike(trade.pnl, row.pnl)
            and not _differ(trade.side, row.side)
            and all(_near(*pair) for pair in _pairs(trade, row))
        )
    return False


def _pairs(trade: ClosedTrade, row: ClosedTrade) -> Iterable[tuple[Decimal, Decimal]]:
    """Figures that both have."""
    told = ((trade.entry, row.entry), (trade.exit, row.exit))
    return ((one, other) for one, other in told if one is not None and other is not None)


def _differ(one: str, other: str) -> bool:
    return bool(one and other) and one != other


def _near(one: Decimal, other: Decimal) -> bool:
    return abs(one - other) <= ALIKE * max(abs(one), abs(other))


def _rounded_alike(one: Decimal, other: Decimal) -> bool:
    """Results are often kept rounded: equal to the last digit of the one that has fewer."""
    fewer = max(_exponent(one), _exponent(other))
    return _near(one, other) or abs(one - other) <= Decimal(1).scaleb(fewer) / 2


def _exponent(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return min(exponent, -2) if isinstance(exponent, int) else -2


def _symbol(trade: Trade) -> tuple[str, str]:
    return split_symbol(trade.symbol)


def _side(side: str) -> str:
    return side_of(side) or side


def _market(trade: Trade) -> str:
    return _plain_market(trade.market)


def _plain_market(name: str) -> str:
    """As it is compared; `binance_PaperTrade` is `binance`: one bot is on paper or it is not."""
    return plain_market(name).removesuffix("papertrade")
