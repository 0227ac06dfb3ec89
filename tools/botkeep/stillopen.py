"""Trades that a restored file has as open although the bot's log shows them closed.

A backup is older than the damage: what was closed in between comes back open. A bot that goes on with such a file
closes the trade a second time, and sells what its account no longer has, or what belongs to somebody else there. So
such a bot is not started until a person has closed the rows, or says that it may start with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from .formats.base import TradeTable
from .formats.columns import split_symbol
from .model import Ended, Finding, OpenTrade, iso, parse_iso
from .untrusted import clean

CURSOR = "unclosed"
"""The ledger's, of a bot whose restored file has such trades: {trades: [{id, symbol, opened}]}."""
RULE = "R3"
SAME = timedelta(seconds=2)
"""Between the times at which log and file say that one trade was opened."""
SHOWN = 5


def unclosed(table: TradeTable | None, ended: Iterable[Ended]) -> tuple[Ended, ...]:
    """Those of `ended` that the table has as open: the same id, symbol and time of opening, for ids begin anew."""
    if table is None or not table.open:
        return ()
    rows = {one.id: one for one in table.open if one.id}
    found = {one: None for one in ended if (row := rows.get(one.id)) is not None and _is_one(one, row)}
    return tuple(found)


def _is_one(told: Ended, row: OpenTrade) -> bool:
    return split_symbol(told.symbol) == split_symbol(row.symbol) and abs(told.opened - row.at) <= SAME


def text_of(trades: Sequence[Ended], bot: str, *, planned: bool = False) -> str:
    """Sentences, with what a person does, behind another one; empty without any trade."""
    if not trades:
        return ""
    some = "1 trade is" if len(trades) == 1 else f"{len(trades)} trades are"
    shown = ", ".join(f"{clean(one.id, 20)} ({clean(one.symbol, 40)})" for one in trades[:SHOWN])
    more = f" and {len(trades) - SHOWN} more" if len(trades) > SHOWN else ""
    stays = "would not be started after it" if planned else "is not started"
    return (
        f" {some} open in it that the bot's log shows closed: {shown}{more}. It would close them a second time, so it "
        f"{stays}. Close them in its database (freqtrade: is_open = 0, with close_date, close_rate and profit of the "
        f"log), then `botkeep start {bot}`; or start it as it is: `botkeep restart {bot} --override REASON`."
    )


def finding_of(trades: Sequence[Ended], bot: str) -> tuple[Finding, ...]:
    """What keeps a bot down whose file has such trades."""
    return (Finding(RULE, text_of(trades, bot).strip(), True),) if trades else ()


def as_json(trades: Iterable[Ended]) -> list[dict[str, str]]:
    """Plain JSON."""
    return [{"id": one.id, "symbol": one.symbol, "opened": iso(one.opened)} for one in trades]


def from_json(raw: Iterable[Mapping[str, Any]]) -> tuple[Ended, ...]:
    """The reverse."""
    return tuple(Ended(str(one["id"]), str(one["symbol"]), parse_iso(one["opened"])) for one in raw)
