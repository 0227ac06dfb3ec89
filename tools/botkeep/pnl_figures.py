"""What a P&L computation gives: figures per currency, symbol and day, open positions, and the prices that were used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from .model import UsageError

ZERO = Decimal(0)
UNKNOWN = "?"
"""The currency of figures whose file and configuration name none."""


@dataclass(frozen=True)
class Mark:
    """A price that somebody gave, and where it is from: every figure that rests on it shows both."""

    price: Decimal
    source: str = "given"
    at: datetime | None = None


Prices = Mapping[str, Decimal | Mark]
"""Symbol -> its price now, in its quote currency."""
Rates = Mapping[tuple[str, str], Decimal | Mark]
"""(asset, currency) -> what one of the asset is worth in the currency."""


def as_mark(given: Decimal | Mark, what: str) -> Mark:
    """The same as a Mark. Raises UsageError for what is no price."""
    found = given if isinstance(given, Mark) else Mark(given)
    if not found.price.is_finite() or found.price <= 0:
        raise UsageError(f"The price of {what} was given as {found.price}. A price is a number above zero.")
    return found


@dataclass(frozen=True)
class CurrencyFigures:
    """What was realised in one currency."""

    currency: str
    realised: Decimal = ZERO
    """Net of fees in the quote or base currency, and of those in others for which a rate was given."""
    fees: Decimal = ZERO
    """Of the window's fills, those in base at their fill's price. `realised` has them already."""
    trades: int = 0
    """Fills that closed something, or closed trades."""
    wins: int = 0
    losses: int = 0
    win_rate: Decimal | None = None
    """wins / trades, 0 to 1; None without trades."""
    drawdown: Decimal = ZERO
    """The deepest fall of the summed results below their highest value so far, from zero at the window's start."""
    percent: Decimal | None = None
    """Of the configured capital; None without one, or if it is in another currency."""
    gross_profit: Decimal = ZERO
    gross_loss: Decimal = ZERO
    """Positive."""
    profit_factor: Decimal | None = None
    """gross_profit / gross_loss; None without losses, where freqtrade prints infinity."""
    expectancy: Decimal | None = None
    """What a trade brings on average, wins and losses by their shares; None without trades."""
    expectancy_ratio: Decimal | None = None
    """What a trade brings for each unit that is lost by an average losing one; None without wins or without losses."""
    drawdown_from: datetime | None = None
    """The high that the deepest fall began at; the first result if nothing was won before it."""
    drawdown_to: datetime | None = None
    drawdown_percent: Decimal | None = None
    """Of the capital plus what had been won at the high."""
    drawdown_now: Decimal = ZERO
    """How far below the highest value it stands at the end."""
    drawdown_now_percent: Decimal | None = None
    volume: Decimal | None = ZERO
    """Price x amount of every execution; None where the file's closed trades do not say enough."""
    ratio_mean: Decimal | None = None
    """Mean of the bot's own results over their stakes; None where it wrote none."""
    open_realised: Decimal = ZERO
    """By parts that trades which are still open have closed already: not in `realised`, as the bot counts."""
    unrealised: Decimal | None = None
    """Of everything open, at the marks; None where one of them is missing."""
    curve: tuple[tuple[datetime, Decimal], ...] = ()
    """Summed results after each; of very many, a few thousand with the highs and lows among them."""

    @property
    def total(self) -> Decimal | None:
        """Realised and unrealised together; None where not everything open has a mark."""
        return None if self.unrealised is None else self.realised + self.open_realised + self.unrealised


@dataclass(frozen=True)
class SymbolFigures:
    """What was realised in one market and symbol."""

    market: str
    symbol: str
    currency: str
    realised: Decimal
    trades: int
    wins: int = 0
    losses: int = 0
    fees: Decimal = ZERO
    ratio: Decimal | None = None
    """Results over stakes, both summed; None where the bot wrote no stakes."""


@dataclass(frozen=True)
class DayFigures:
    """What was realised on one calendar day of the zone that was asked for. Days without anything are left out."""

    day: date
    currency: str
    realised: Decimal
    fees: Decimal = ZERO
    trades: int = 0
    wins: int = 0
    losses: int = 0


@dataclass(frozen=True)
class OpenPosition:
    """What is held at the window's end. `amount` is negative for a short."""

    symbol: str
    amount: Decimal
    average_price: Decimal
    """From fills: with the fees of opening. Of a trade that the bot counts as open: the rate it was opened at."""
    currency: str
    market: str = ""
    id: str = ""
    """The bot's own; empty for what was computed from fills."""
    opened: datetime | None = None
    leverage: Decimal = Decimal(1)
    mark: Mark | None = None
    unrealised: Decimal | None = None
    """At the mark. Of a bot's own open trade with the fee of closing and funding, as the bot computes it."""
    ratio: Decimal | None = None
    """unrealised over what the opening cost, times the leverage: 0.01 is one percent."""
    realised: Decimal = ZERO
    """Of parts of it that were closed already, where the bot says so."""


@dataclass(frozen=True)
class UsedRate:
    """A rate that figures rest on: one `asset` counted as `mark.price` of `currency`."""

    asset: str
    currency: str
    mark: Mark


@dataclass(frozen=True)
class Together:
    """All currencies in one, because a rate was given for every other one."""

    currency: str
    realised: Decimal
    fees: Decimal
    rates: tuple[UsedRate, ...]


@dataclass(frozen=True)
class PnlFigures:
    """Realised P&L of one bot within [since, until), one set of figures per currency, the main one first."""

    bot: str
    since: datetime | None
    until: datetime | None
    method: str
    currencies: tuple[CurrencyFigures, ...]
    symbols: tuple[SymbolFigures, ...] = ()
    positions: tuple[OpenPosition, ...] = ()
    other_fees: tuple[tuple[str, Decimal], ...] = ()
    """(asset, amount) of fees in third currencies for which no rate was given: in no other figure."""
    skipped: int = 0
    notes: tuple[str, ...] = ()
    days: tuple[DayFigures, ...] = ()
    """The oldest first."""
    rates: tuple[UsedRate, ...] = ()
    """At which fees in third currencies were counted."""
    together: Together | None = None
    """None with one currency only, or without a rate for each of the others."""

    @property
    def main(self) -> CurrencyFigures:
        """The currency of the capital, else the one with most trades."""
        return self.currencies[0]

    @property
    def currency(self) -> str:
        """Of `main`."""
        return self.main.currency

    @property
    def realised(self) -> Decimal:
        """Of `main`."""
        return self.main.realised

    @property
    def fees(self) -> Decimal:
        """Of `main`."""
        return self.main.fees

    @property
    def trades(self) -> int:
        """Of `main`."""
        return self.main.trades

    @property
    def wins(self) -> int:
        """Of `main`."""
        return self.main.wins

    @property
    def losses(self) -> int:
        """Of `main`."""
        return self.main.losses

    @property
    def win_rate(self) -> Decimal | None:
        """Of `main`."""
        return self.main.win_rate

    @property
    def drawdown(self) -> Decimal:
        """Of `main`."""
        return self.main.drawdown

    @property
    def percent(self) -> Decimal | None:
        """Of `main`."""
        return self.main.percent

    @property
    def unrealised(self) -> Decimal | None:
        """Of `main`."""
        return self.main.unrealised

    @property
    def best_symbol(self) -> SymbolFigures | None:
        """The one of the main currency that brought most; None without any."""
        ours = [one for one in self.symbols if one.currency == self.currency]
        return max(ours, key=lambda one: one.realised, default=None)
