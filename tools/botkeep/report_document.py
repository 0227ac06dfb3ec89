"""The whole report as one JSON document, as `botkeep report --format json` prints it: every figure with its entries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from pydantic import Field

from .earnings import Habit
from .pnl import rounded
from .report import BotReport, Fall, HealthReport, Wakes
from .report_words import answer
from .results import BotHealth, BotPnl, Document, Report, bot_pnl, moment, plain, report_document, stamp
from .uptime import Stretch, Uptime, floored


class Window(Document):
    """Uptime up to now. Seconds add up to the window; unknown: nobody looked."""

    window: str
    percent: str | None = None
    up_s: int
    down_s: int
    stopped_s: int
    unknown_s: int


class Restarted(Document):
    """One start after a fault."""

    at: str
    cause: str | None = None
    entry: str | None = None


class Piece(Document):
    """A stretch of the report's window."""

    start: str
    end: str
    what: str


class Trading(Document):
    """How often it traded in the window, and usually."""

    trades: int
    usual_a_day: str | None = None
    over_days: str


class FallDocument(Document):
    """One time that it was down: from when it was last seen up to when it was up again, or to now."""

    start: str
    end: str
    down_s: int = Field(description="Known to have been down; what is left of start to end nobody saw.")
    over: bool
    entries: list[str] = Field(default_factory=list)


class FullBot(BotHealth):
    """All that is known of one bot."""

    state: str
    windows: list[Window] = Field(default_factory=list)
    made: list[Restarted] = Field(default_factory=list)
    planned_restarts: int | None = None
    trading: Trading | None = None
    figures: BotPnl | None = None
    month: BotPnl | None = None
    falls: list[FallDocument] = Field(default_factory=list)
    backup_entry: str | None = None
    proven_at: str | None = None
    proven_entry: str | None = None
    proof: str | None = None
    strip: list[Piece] = Field(default_factory=list)


class GoalDocument(Document):
    """One promise; `met` is left out where it is not known."""

    goal: str
    met: bool | None = None
    figure: str
    entries: list[str] = Field(default_factory=list)
    bots: list[str] = Field(default_factory=list)


class ToldDocument(Document):
    """Something that people were told: an alert, a reminder, or that it is resolved."""

    at: str
    bot: str | None = None
    kind: str
    text: str
    entry: str


class WakesDocument(Document):
    """Wakes of the assistant; tokens and cost (US dollars) of those that its host reported."""

    count: int
    failed: int
    tokens: int | None = None
    cost: str | None = None
    unreported: int | None = None
    entries: list[str] = Field(default_factory=list)


class SilenceDocument(Document):
    """Alerts that are held back, or were within the window."""

    bot: str
    began: str
    until: str
    reason: str
    entry: str


class FullReport(Report):
    """The health report, all of it."""

    answer: str
    bots: list[FullBot]  # type: ignore[assignment]  # more of the same
    goals: list[GoalDocument] = Field(default_factory=list)
    told: list[ToldDocument] = Field(default_factory=list)
    wakes: WakesDocument
    silences: list[SilenceDocument] = Field(default_factory=list)
    incidents: list[str] = Field(default_factory=list)
    mend: list[str] = Field(default_factory=list)
    stopped: list[str] = Field(default_factory=list)


def full_document(report: HealthReport, text: str, zone: tzinfo) -> FullReport:
    """`text`: the same, for people, in their zone."""
    short = report_document(report, text)
    bots = [_bot(health, one) for health, one in zip(short.bots, report.bots, strict=True)]
    return FullReport(
        **{**dict(short), "bots": bots},
        answer=plain(answer(report, zone)),
        goals=[
            GoalDocument(goal=one.name, met=one.met, figure=plain(one.figure), entries=list(one.entries),
                         bots=list(one.bots))
            for one in report.goals
        ],
        told=[
            ToldDocument(at=stamp(one.at), bot=one.bot, kind=one.kind, text=plain(one.sentence), entry=one.entry)
            for one in report.told
        ],
        wakes=_wakes(report.wakes),
        silences=[
            SilenceDocument(bot=one.bot, began=stamp(one.began), until=stamp(one.until), reason=plain(one.reason),
                            entry=one.entry)
            for one in report.silences
        ],
        incidents=[plain(one) for one in report.incidents],
        mend=[plain(one) for one in (*(missed.sentence(zone) for missed in report.missed), *report.problems)],
        stopped=[one.bot for one in report.stopped],
    )  # fmt: skip


def _bot(health: BotHealth, one: BotReport) -> FullBot:
    figures = None if one.pnl is None or isinstance(one.pnl, str) else bot_pnl(one.pnl)
    return FullBot(
        **dict(health),
        state=plain(one.sentence),
        windows=[_window(label, found) for label, found in one.windows],
        made=[Restarted(at=stamp(m.at), cause=m.cause or None, entry=m.entry or None) for m in one.restarts],
        planned_restarts=one.planned or None,
        trading=_trading(one.habit) if one.habit else None,
        figures=figures,
        month=bot_pnl(one.month) if one.month else None,
        falls=[_fall(each) for each in one.falls],
        backup_entry=one.backup_entry or None,
        proven_at=moment(one.proven_at),
        proven_entry=one.proven_entry or None,
        proof=plain(one.proof.sentence) if one.proof else None,
        strip=_pieces(one.strip),
    )


def _fall(fall: Fall) -> FallDocument:
    seen = fall.seen
    return FallDocument(
        start=stamp(seen.start), end=stamp(seen.end), down_s=round(seen.down.total_seconds()), over=seen.over,
        entries=list(fall.entries),
    )  # fmt: skip


def _window(label: str, found: Uptime) -> Window:
    return Window(
        window=label,
        percent=floored(found.percent),
        up_s=round(found.up.total_seconds()),
        down_s=round(found.down.total_seconds()),
        stopped_s=round(found.stopped.total_seconds()),
        unknown_s=round(found.unknown.total_seconds()),
    )


def _trading(habit: Habit) -> Trading:
    usual = None if habit.usual is None else format(rounded(habit.usual, 4).normalize(), "f")
    return Trading(trades=habit.trades, usual_a_day=usual, over_days=format(rounded(habit.days, 2).normalize(), "f"))


def _pieces(found: Sequence[Stretch]) -> list[Piece]:
    return [Piece(start=stamp(one.start), end=stamp(one.end), what=one.what.value) for one in found]


def _wakes(found: Wakes) -> WakesDocument:
    return WakesDocument(
        count=found.count,
        failed=found.failed,
        tokens=found.tokens,
        cost=None if found.cost is None else format(found.cost, "f"),
        unreported=found.silent or None,
        entries=list(found.entries),
    )
