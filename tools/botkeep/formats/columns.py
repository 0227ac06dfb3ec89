"""What the columns of a trade table mean, whatever file they come from, and the trades that its rows are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from operator import itemgetter
from typing import Literal, TypeVar

from ..model import BotkeepError, ClosedTrade, Fill
from .base import FormatOptions, TradeTable
from .roles import NUMBERS, ROLES, chosen_column, misnamed, plain_name, roles_by_shape, roles_of
from .values import (
    NOT_FILLED,
    NUMBER,
    QUOTES,
    moment,
    money,
    number,
    side_of,
    split_symbol,
    zone_of,
)

__all__ = [
    "NUMBER",
    "NUMBERS",
    "QUOTES",
    "ROLES",
    "Trades",
    "chosen_column",
    "misnamed",
    "moment",
    "money",
    "number",
    "plain_name",
    "roles_by_shape",
    "roles_of",
    "side_of",
    "split_symbol",
    "zone_of",
]

Trade = TypeVar("Trade", Fill, ClosedTrade)

_OF_FILL = (
    "status", "side", "symbol", "quote", "market", "id", "order_id", "fee_currency", "price", "amount", "fee_quote",
    "fee", "time",
)  # fmt: skip
_OF_CLOSED = (
    "status", "side", "symbol", "quote", "market", "id", "pnl", "fee", "opened", "amount", "entry", "exit", "time",
)  # fmt: skip
_NOTHING = Decimal(0)
REPEATED = 4096
"""Texts that are read once: lots and fees are often the same ones, and so are symbols."""


class Trades:
    """Builds a TradeTable row by row. Making one raises BotkeepError where the columns do not make trades."""

    def __init__(
        self,
        names: Sequence[str],
        roles: Mapping[str, int],
        options: FormatOptions,
        what: str,
        decimal_comma: bool = False,
    ) -> None:
        self._options, self._zone, self._comma = options, zone_of(options.timezone), decimal_comma
        self._roles = roles
        self._names = names
        self.closing = "pnl" in roles
        self._pick = _picker(_OF_CLOSED if self.closing else _OF_FILL, roles)
        self._width = max(roles.values(), default=0) + 1
        self._symbols: dict[tuple[str, str], tuple[str, str]] = {}
        self._numbers: dict[str, Decimal] = {}
        self._fills: list[Fill] = []
        self._closed: list[ClosedTrade] = []
        self._problems: dict[str, list[int]] = {}
        self._said: list[str] = []
        self._skipped = 0
        self._open = self._unfilled = 0
        self._require(what)
        self._currency = self._pnl_currency() if self.closing else ""

    def _require(self, what: str) -> None:
        if wrong := misnamed(self._options.columns, self._names):
            raise BotkeepError(f"{what}: {wrong} The file has: {', '.join(self._names[:30])}.")
        needed = ("time",) if self.closing else ("time", "symbol", "side", "price", "amount")
        missing = [role for role in needed if role not in self._roles]
        if missing:
            raise BotkeepError(
                f"{what}: it is not clear which column is the {' and the '.join(missing)}. Say so in bots.json: "
                f'"data_format": {{"columns": {{"{missing[0]}": "NAME OR NUMBER OF THE COLUMN"}}}}, or name the column '
                f"of the result as pnl. The file has: {', '.join(self._names[:30])}."
            )

    def add(self, row: int, cells: Sequence[str], at: float | None) -> None:
        """One sound row, with its time in epoch seconds where that was read already."""
        try:
            if self.closing:
                self._add_closed(self._picked(cells), at)
            else:
                self._add_fill(self._picked(cells), at)
        except _NotATradeError as why:
            self.skip(row, str(why))

    def skip(self, row: int, why: str) -> None:
        """One row that cannot be read."""
        self._skipped += 1
        self._problems.setdefault(why, []).append(row)

    def note(self, text: str) -> None:
        """Something to know about the figures."""
        self._said.append(text)

    def table(self) -> TradeTable:
        """What was read; a trade that stands in the file twice, with its id, once."""
        fills, closed = tuple(self._once(self._fills)), tuple(self._once(self._closed))
        notes = tuple(self._notes())
        kind: Literal["closed", "fills"] = "closed" if self.closing else "fills"
        return TradeTable(kind, fills, closed, skipped=self._skipped, notes=notes, knows_open=not self.closing)

    def _once(self, trades: list[Trade]) -> list[Trade]:
        if "id" not in self._roles:
            return trades
        named = [trade.id for trade in trades if trade.id]
        if len(set(named)) == len(named):
            return trades
        kept = list(dict.fromkeys((trade if trade.id else place, trade) for place, trade in enumerate(trades)))
        if twice := len(trades) - len(kept):
            self.note(f"{twice} rows stand in the file twice, with the same trade id: each is counted once")
        return [trade for _, trade in kept]

    def _notes(self) -> list[str]:
        notes = [f"{_rows(rows)} could not be read: {why}" for why, rows in self._problems.items()] + self._said
        if self._open:
            notes.append(f"{self._open} open trades have no result yet and are not counted")
        if self._unfilled:
            notes.append(f"{self._unfilled} rows are orders that were not filled and are not counted")
        if self._fills and "fee" in self._roles and "fee_currency" not in self._roles:
            notes.append("the fee column names no currency: taken as the quote currency")
        if self._fills and not {"fee", "fee_quote"} & set(self._roles):
            notes.append("the file has no column of fees: figures are before fees")
        return notes[:20]

    # --- one row ---

    def _picked(self, cells: Sequence[str]) -> Sequence[str]:
        """The cells of the roles that are asked for; blank where the file has no such column."""
        short = self._width - len(cells)
        return self._pick([*cells, *[""] * short, ""] if short > 0 else [*cells, ""])

    def _number(self, role: str, text: str) -> Decimal:
        found = self._numbers.get(text)
        if found is not None:
            return found
        found = money(text.replace(",", ".") if self._comma else text)
        if found is None:
            raise _NotATradeError(f"the {role} is not a number" if text.strip() else f"the {role} is missing")
        if len(self._numbers) < REPEATED:
            self._numbers[text] = found
        return found

    def _number_if_any(self, text: str) -> Decimal | None:
        return money(text.replace(",", ".") if self._comma else text) if text else None

    def _time(self, text: str, stamp: float | None) -> datetime:
        if stamp is not None:
            return datetime.fromtimestamp(stamp, UTC)
        at = moment(text.strip(), self._zone)
        if at is None:
            raise _NotATradeError("the time is not one")
        return at

    def _symbol(self, symbol: str, quote: str) -> tuple[str, str]:
        """Symbol and quote currency; one text for all rows that have it."""
        known = self._symbols.get((symbol, quote))
        if known is None:
            named = quote.strip().upper() or split_symbol(symbol)[1] or self._options.quote.upper()
            known = symbol.strip(), named
            if len(self._symbols) < REPEATED:
                self._symbols[symbol, quote] = known
        return known

    def _add_closed(self, cells: Sequence[str], at: float | None) -> None:
        status, side, symbol, quote, market, name, pnl, fee, opened, amount, entry, left, time = cells
        if not pnl.strip() or (status and status.strip().lower() in NOT_FILLED):
            self._open += 1
            return
        symbol, quote = self._symbol(symbol, quote)
        self._closed.append(
            ClosedTrade(
                at=self._time(time, at),
                symbol=symbol,
                pnl=self._number("pnl", pnl),
                currency=self._currency or quote,
                fee=self._number("fee", fee) if fee.strip() else _NOTHING,
                id=name.strip(),
                opened=moment(opened.strip(), self._zone) if opened else None,
                side=side.strip().lower() if side.strip().lower() in ("long", "short") else "",
                amount=self._number_if_any(amount),
                entry=self._number_if_any(entry),
                exit=self._number_if_any(left),
                market=market.strip(),
            )
        )

    def _pnl_currency(self) -> str:
        last = plain_name(self._names[self._roles["pnl"]]).rpartition("_")[2].upper()
        return last if last in QUOTES else ""

    def _add_fill(self, cells: Sequence[str], at: float | None) -> None:
        status, side, symbol, quote, market, name, order, fee_currency, price, amount, fee_quote, fee, time = cells
        if status and status.strip().lower() in NOT_FILLED:
            self._unfilled += 1
            return
        word = side_of(side)
        if word is None:
            raise _NotATradeError("the side is neither buy nor sell")
        symbol, quote = self._symbol(symbol, quote)
        if fee_quote.strip():
            fee, fee_currency = fee_quote, quote
        self._fills.append(
            Fill(
                at=self._time(time, at),
                symbol=symbol,
                side=word,
                price=self._number("price", price),
                amount=abs(self._number("amount", amount)),
                fee=self._number("fee", fee) if fee.strip() else _NOTHING,
                fee_currency=(fee_currency.strip().upper() if fee.strip() else "") or quote,
                id=name.strip(),
                order_id=order.strip(),
                market=market.strip(),
                quote=quote,
            )
        )


def _picker(wanted: Sequence[str], roles: Mapping[str, int]) -> Callable[[Sequence[str]], Sequence[str]]:
    """The cells of these roles out of a row that ends with a blank one: that of the roles that the file has not."""
    return itemgetter(*(roles.get(role, -1) for role in wanted))


class _NotATradeError(Exception):
    """Why a row is no trade."""


def _rows(rows: Sequence[int]) -> str:
    return f"row {rows[0]}" if len(rows) == 1 else f"{len(rows)} rows, the first of them row {rows[0]},"
