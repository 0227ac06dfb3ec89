"""What the bots earned, each from its own trade file, with the prices and rates that somebody gave."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path

from .config import Bot
from .datafile import kind_name
from .formats import FORMATS
from .formats.base import TradeTable
from .formats.columns import number
from .formats.values import plain_symbol
from .ledger import Kind, Ledger
from .model import Action, LedgerError, Observation, Result, UsageError
from .pnl import figures, last_prices
from .pnl_figures import Mark, PnlFigures, UsedRate

_RATE = re.compile(r"([A-Za-z0-9]{2,10})/([A-Za-z0-9]{2,10})=(.{1,40})")
_MARK = re.compile(r"([A-Za-z0-9:/_.-]{2,40})=(.{1,40})")


@dataclass(frozen=True)
class Wish:
    """What is asked: a window, a method, and prices that a person knows."""

    since: datetime | None = None
    method: str = "fifo"
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """Symbol -> its price now; for the others the price of their last trade in the file is taken, and said so."""
    rates: Mapping[tuple[str, str], Mark] = field(default_factory=dict)


def live_marks(seen: Observation) -> dict[str, Mark]:
    """What the bot's own API says its open positions are worth now."""
    held = seen.program.positions or ()
    return {one.symbol: Mark(one.price, "its own API", seen.at) for one in held if one.price is not None}


def earned(
    bot: Bot, wish: Wish, ledger: Ledger, now: datetime, zone: tzinfo, live: Mapping[str, Mark] | None = None
) -> PnlFigures:
    """One bot's figures. `live`: prices of now, which count less than those of `wish`.

    Raises UsageError: no data file, unknown method; BotkeepError: it cannot be read.
    """
    table = _table(bot)
    found = figures(
        bot.name,
        table,
        since=wish.since,
        until=now,
        method=wish.method,
        capital=bot.capital,
        currency=bot.currency,
        marks={**last_prices(table, now), **(live or {}), **wish.marks},
        rates=wish.rates,
        zone=zone,
    )
    return _noted(found, ledger)


def _table(bot: Bot) -> TradeTable:
    if bot.data_file is None:
        raise UsageError(f"{bot.name} has no data_file in config/bots.json: there are no trades to count.")
    return FORMATS[kind_name(bot)].trades(bot.data_file, options=bot.format_options())


def _noted(found: PnlFigures, ledger: Ledger) -> PnlFigures:
    """Trades that came back from a log are as good as that log: the figures say which restore put some back."""
    try:
        restores = ledger.entries(bot=found.bot, action=Action.RESTORE.value, kinds=[Kind.OUTCOME])
    except LedgerError:
        return found
    last = next((one for one in reversed(restores) if one.result == Result.DONE and one.data.get("replayed")), None)
    if last is None:
        return found
    note = (
        f"{last.data['replayed']} trades were read again from its log or the exchange ({last.id}, {last.at:%Y-%m-%d})"
    )
    return replace(found, notes=(*found.notes, note))


def read_marks(texts: Sequence[str]) -> dict[str, Mark]:
    """`BTC/USDT=61000.5`, as a person gives them. Raises UsageError."""
    found = {}
    for text in texts:
        match = _MARK.fullmatch(text)
        price = number(match[2]) if match else None
        if match is None or price is None or price <= 0:
            raise UsageError(f"{text!r} is no price. Write SYMBOL=PRICE, like BTC/USDT=61000.5")
        found[match[1]] = Mark(price, "given")
    return found


def read_rates(texts: Sequence[str]) -> dict[tuple[str, str], Mark]:
    """`BNB/USDT=600`, as a person gives them: what one BNB is worth. Raises UsageError."""
    found = {}
    for text in texts:
        match = _RATE.fullmatch(text)
        price: Decimal | None = number(match[3]) if match else None
        if match is None or price is None or price <= 0:
            raise UsageError(f"{text!r} is no rate. Write ASSET/CURRENCY=PRICE, like BNB/USDT=600")
        found[match[1].upper(), match[2].upper()] = Mark(price, "given")
    return found


def unused(wish: Wish, found: Sequence[PnlFigures]) -> list[str]:
    """Prices and rates that no figure rests on: a misspelled symbol must not look like an answer."""
    marked = {plain_symbol(held.symbol) for one in found for held in one.positions}
    rated = {(used.asset, used.currency) for one in found for used in (*one.rates, *_together(one))}
    said = [
        f"--mark {symbol} is used by no open position" for symbol in wish.marks if plain_symbol(symbol) not in marked
    ]
    return said + [f"--rate {a}/{b} is used by no figure" for a, b in wish.rates if (a, b) not in rated]


def _together(one: PnlFigures) -> tuple[UsedRate, ...]:
    return one.together.rates if one.together else ()


def draw(found: Sequence[PnlFigures], folder: Path, zone: tzinfo) -> list[Path]:
    """Each bot's equity curve and daily P&L as PNG and SVG in the folder; gives their paths. Raises BotkeepError."""
    from .charts import daily_pnl, equity_curve

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be used for charts: {error.strerror}.") from error
    made = []
    for one in found:
        if not one.currencies:
            continue
        for ending in ("png", "svg"):
            made += [folder / f"{one.bot}-equity.{ending}", folder / f"{one.bot}-daily.{ending}"]
            equity_curve(one, made[-2], title=f"{one.bot}: realised", zone=zone)
            daily_pnl(one, made[-1], title=f"{one.bot}: by day")
    return made


# --- for the report ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Habit:
    """How often a bot traded in a window, against its own habit."""

    trades: int
    """Executions, or closed trades, as its file has them."""
    usual: Decimal | None
    """A day, on average over `days` before the window; None: that is not long enough to tell."""
    days: Decimal
    """At most 14."""


@dataclass(frozen=True)
class Reported:
    """What a report says of one bot's trades: its window, the last 30 days, and the pace."""

    window: PnlFigures
    month: PnlFigures
    habit: Habit


HABIT_DAYS = 14
MONTH = timedelta(days=30)


def reported(
    bot: Bot, since: datetime, ledger: Ledger, now: datetime, zone: tzinfo, live: Mapping[str, Mark] | None = None
) -> Reported:
    """One reading of the bot's file, for all that a report says of it. Raises as `earned`."""
    table = _table(bot)
    marks = {**last_prices(table, now), **(live or {})}

    def within(begin: datetime) -> PnlFigures:
        return figures(
            bot.name, table, since=begin, until=now, capital=bot.capital, currency=bot.currency, marks=marks, zone=zone
        )

    return Reported(_noted(within(since), ledger), within(now - MONTH), habit(table, since, now))


def habit(table: TradeTable, since: datetime, now: datetime) -> Habit:
    """Trades in [since, now), and those a day in the 14 days before, or since the first trade if that is less."""
    times = [one.at for one in (table.closed if table.kind == "closed" else table.fills)]
    begins = max(since - timedelta(days=HABIT_DAYS), min(times, default=since))
    days = max(Decimal(0), Decimal((since - begins) // timedelta(seconds=1)) / 86400)
    before = sum(1 for at in times if begins <= at < since)
    return Habit(sum(1 for at in times if since <= at < now), before / days if days >= 1 else None, days)
