"""Results as they come in, the oldest first: their sums, how far they fell, their days, and a curve of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal

from .pnl_figures import ZERO, CurrencyFigures, DayFigures

MAX_POINTS = 8192
"""Of a curve: thinned out to a quarter when it has as many, which is still more than a picture has columns."""
GROUP = 8
HUNDRED = Decimal(100)

Point = tuple[datetime, Decimal]


class Sum:
    """Results of one symbol or day."""

    __slots__ = ("fees", "losses", "realised", "staked", "trades", "wins")

    def __init__(self) -> None:
        self.realised = self.fees = ZERO
        self.trades = self.wins = self.losses = 0
        self.staked: Decimal | None = ZERO

    def add(self, result: Decimal) -> None:
        """One result."""
        self.realised += result
        self.trades += 1
        if result > 0:
            self.wins += 1
        elif result < 0:
            self.losses += 1

    def ratio(self) -> Decimal | None:
        """Results over stakes; None where a stake was not known."""
        return self.realised / self.staked if self.staked else None


class CurrencySum(Sum):
    """Results of one currency, with all that is said of them."""

    __slots__ = (
        "curve", "drawdown", "fall_from", "fall_high", "fall_to", "gross_loss", "gross_profit", "high", "high_at",
        "open_realised", "ratios", "unrealised", "volume",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.gross_profit = self.gross_loss = ZERO
        self.high = self.drawdown = self.fall_high = ZERO
        self.high_at: datetime | None = None
        self.fall_from: datetime | None = None
        self.fall_to: datetime | None = None
        self.volume: Decimal | None = ZERO
        self.ratios: Decimal | None = ZERO
        self.open_realised = ZERO
        self.unrealised: Decimal | None = None
        self.curve: list[Point] = []

    def add_at(self, at: datetime, result: Decimal) -> None:
        """One result, no earlier than the ones before."""
        self.trades += 1
        self.realised = stands = self.realised + result
        if result > 0:
            self.wins += 1
            self.gross_profit += result
        elif result < 0:
            self.losses += 1
            self.gross_loss -= result
        self._fall(at, stands)
        self.curve.append((at, stands))
        if len(self.curve) >= MAX_POINTS:
            self.curve = thinned(self.curve)

    def _fall(self, at: datetime, stands: Decimal) -> None:
        if stands > self.high or self.high_at is None:
            self.high, self.high_at = max(self.high, stands), at
        fallen = self.high - stands
        if fallen > self.drawdown:
            self.drawdown, self.fall_from, self.fall_to, self.fall_high = fallen, self.high_at, at, self.high

    def figures(self, currency: str, capital: Decimal | None) -> CurrencyFigures:
        """Everything that follows from the sums. `capital` only if it is in this currency.

        Profit factor and the share of a drawdown: freqtrade's documentation, Telegram usage, `/profit` (gross profits
        over gross losses; absolute drawdown over its high plus the starting balance).
        """
        return CurrencyFigures(
            currency=currency,
            realised=self.realised,
            fees=self.fees,
            trades=self.trades,
            wins=self.wins,
            losses=self.losses,
            win_rate=Decimal(self.wins) / self.trades if self.trades else None,
            drawdown=self.drawdown,
            percent=self.realised / capital * HUNDRED if capital else None,
            gross_profit=self.gross_profit,
            gross_loss=self.gross_loss,
            profit_factor=self.gross_profit / self.gross_loss if self.gross_loss else None,
            expectancy=self.realised / self.trades if self.trades else None,
            expectancy_ratio=self.expectancy_ratio(),
            drawdown_from=self.fall_from,
            drawdown_to=self.fall_to,
            drawdown_percent=self.drawdown / (capital + self.fall_high) * HUNDRED if capital else None,
            drawdown_now=self.high - self.realised,
            drawdown_now_percent=(self.high - self.realised) / (capital + self.high) * HUNDRED if capital else None,
            volume=self.volume,
            ratio_mean=self.ratios / self.trades if self.ratios is not None and self.trades else None,
            open_realised=self.open_realised,
            unrealised=self.unrealised,
            curve=tuple(self.curve),
        )

    def expectancy_ratio(self) -> Decimal | None:
        """(1 + R) x W - 1, with the share of wins W and R the average win over the average loss.

        Van K. Tharp, Trade Your Way to Financial Freedom, 1998; freqtrade's documentation, Edge positioning: R x W - L,
        which is the same. What is left of W when something was neither won nor lost counts as lost, as it does there.
        """
        if not self.wins or not self.losses:
            return None
        reward = (self.gross_profit / self.wins) / (self.gross_loss / self.losses)
        return (1 + reward) * self.wins / self.trades - 1


def thinned(points: Sequence[Point]) -> list[Point]:
    """A quarter as many: of each eight the highest and the lowest, in order; first and last stay.

    So the highest and the lowest point of all are never lost, however often it is done.
    """
    kept = [points[0]]
    inner = points[1:-1]
    for start in range(0, len(inner), GROUP):
        group = inner[start : start + GROUP]
        values = [value for _, value in group]
        low, high = values.index(min(values)), values.index(max(values))
        kept += [group[place] for place in sorted({low, high})]
    return [*kept, points[-1]]


class Days:
    """Results by calendar day of a zone and currency. Times come in order, so a day's ends are looked up once."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._begins = self._ends = datetime.max.replace(tzinfo=UTC)
        self._sums: dict[date, dict[str, Sum]] = {}
        self._today: dict[str, Sum] = {}

    def of(self, at: datetime, currency: str) -> Sum:
        """The sum that a result at that time belongs to."""
        if not self._begins <= at < self._ends:
            self._today = self._sums.setdefault(self._turn(at), {})
        found = self._today.get(currency)
        if found is None:
            found = self._today[currency] = Sum()
        return found

    def _turn(self, at: datetime) -> date:
        """Midnights by the zone's clock: a day may have 23 or 25 hours."""
        try:
            day = at.astimezone(self._zone).date()
            midnight = datetime.combine(day, time(), self._zone)
            next_one = datetime.combine(day + timedelta(days=1), time(), self._zone)
            self._begins, self._ends = midnight.astimezone(UTC), next_one.astimezone(UTC)
        except OverflowError:  # a file may say 9999-12-31, which in Auckland is no date any more
            day, self._begins, self._ends = at.date(), at, at
        return day

    def figures(self) -> tuple[DayFigures, ...]:
        """The oldest first."""
        return tuple(
            DayFigures(day, currency, one.realised, one.fees, one.trades, one.wins, one.losses)
            for day, sums in sorted(self._sums.items())
            for currency, one in sorted(sums.items())
        )
