"""A report's pictures: inline SVG for its page, and the same as PNG for a message.

The SVG have no colours of their own: the page's style gives them, light or dark. What is up, down, stopped and unknown
differs in height too, so that nobody has to tell colours apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from .earnings import MONTH
from .goals import days, percent
from .pnl_figures import PnlFigures
from .pnl_sums import thinned
from .report import BotReport, HealthReport
from .untrusted import clean
from .uptime import Is, Stretch

if TYPE_CHECKING:
    from .charts import Lane

WIDE, HIGH, CURVE_HIGH, DAY_HIGH = 1000, 26, 84, 44
SHAPE = {Is.UP: (6, 14), Is.DOWN: (0, 26), Is.STOPPED: (10, 6), Is.UNKNOWN: (12, 2)}
"""Top and height of each in a strip."""
THINNEST = 3.0
"""Of a thousand: half a minute of downtime is seen in a day too."""
MAX_POINTS = 400
MAX_LANES = 30
MAX_CURVES = 12


def inline(report: HealthReport, bots: Iterable[str]) -> dict[str, str]:
    """Name -> SVG: `strip:BOT` and `curve:BOT` of these bots, and `timeline`."""
    chosen = set(bots)
    found = {"timeline": _timeline(report)}
    for one in report.bots:
        if one.bot in chosen:
            found[f"strip:{one.bot}"] = _strip(report, one)
            if points := curve(one, report.at):
                found[f"curve:{one.bot}"] = _curve(points, one)
    return found


def _svg(css: str, height: int, said: str, inner: str) -> str:
    return (
        f'<svg class="{css}" viewBox="0 0 {WIDE} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(clean(said, 200))}">{inner}</svg>'
    )


def _place(at: datetime, report: HealthReport) -> float:
    """Of a thousand, from the window's begin to now."""
    return max(0.0, min(1.0, (at - report.since) / (report.at - report.since))) * WIDE


def _strip(report: HealthReport, bot: BotReport) -> str:
    """Downtime is drawn last and never thinner than can be seen."""
    order = sorted(bot.strip, key=lambda one: one.what is Is.DOWN)
    share = "not known" if bot.uptime.percent is None else f"{percent(bot.uptime.percent)}%"
    said = f"{bot.bot}: uptime {share}, down {days(bot.uptime.down)}, unknown {days(bot.uptime.unknown)}"
    return _svg("strip", HIGH, said, "".join(_bar(one, report) for one in order))


def _bar(one: Stretch, report: HealthReport) -> str:
    left, right = _place(one.start, report), _place(one.end, report)
    if one.what is Is.DOWN and right - left < THINNEST:
        left = max(0.0, min(WIDE - THINNEST, (left + right - THINNEST) / 2))
        right = left + THINNEST
    top, high = SHAPE[one.what]
    return f'<rect class="s-{one.what}" x="{left:.2f}" y="{top}" width="{right - left:.2f}" height="{high}"/>'


def _timeline(report: HealthReport) -> str:
    """Hours as faint marks; actions below, what people were told above."""
    every = timedelta(hours=1) if report.at - report.since <= timedelta(hours=48) else timedelta(days=1)
    steps = int((report.at - report.since) / every)
    marks = [f'<rect class="e-axis" x="0" y="21" width="{WIDE}" height="2"/>']
    marks += [_tick("axis", report.at - every * n, report, 17, 10, 1.0) for n in range(1, min(steps, 400) + 1)]
    marks += [_tick("action", one.at, report, 22, 18, 4.0) for one in report.actions]
    marks += [
        _tick("resolved" if one.kind == "resolved" else "alert", one.at, report, 4, 18, 4.0) for one in report.told
    ]
    return _svg(
        "day", DAY_HIGH, f"{len(report.actions)} actions, {len(report.told)} messages to people", "".join(marks)
    )


def _tick(css: str, at: datetime, report: HealthReport, top: int, high: int, wide: float) -> str:
    left = min(WIDE - wide, _place(at, report))
    return f'<rect class="e-{css}" x="{left:.2f}" y="{top}" width="{wide}" height="{high}"/>'


def curve(bot: BotReport, now: datetime) -> list[tuple[datetime, Decimal]]:
    """What it earned in the last 30 days, from zero on, up to now; empty without a closed trade."""
    found = bot.month
    if not isinstance(found, PnlFigures) or not found.currencies or not found.main.curve:
        return []
    points = list(found.main.curve)
    while len(points) > MAX_POINTS:
        points = thinned(points)
    return [(now - MONTH, Decimal(0)), *points, (now, points[-1][1])]


def _curve(points: Sequence[tuple[datetime, Decimal]], bot: BotReport) -> str:
    """Steps: between two results nothing is known."""
    first, last = points[0][0], points[-1][0]
    low, high = min(value for _, value in points), max(value for _, value in points)
    room = (high - low) or Decimal(1)

    def x(at: datetime) -> float:
        return max(0.0, min(1.0, (at - first) / (last - first))) * WIDE

    def y(value: Decimal) -> float:
        return 4 + float((high - value) / room) * (CURVE_HIGH - 8)

    steps = "".join(f"H{x(at):.1f}V{y(value):.1f}" for at, value in points[1:])
    path, zero = f"M0 {y(points[0][1]):.1f}{steps}", y(Decimal(0))
    inner = (
        f'<path class="c-fill" d="{path}V{zero:.1f}H0Z"/>'
        f'<line class="c-zero" x1="0" x2="{WIDE}" y1="{zero:.1f}" y2="{zero:.1f}"/><path class="c-line" d="{path}"/>'
    )
    return _svg("curve", CURVE_HIGH, f"{bot.bot}: summed results of 30 days", inner)


# --- as PNG ------------------------------------------------------------------------------------------------------


def pictures(report: HealthReport, folder: Path, zone: tzinfo = UTC) -> list[Path]:
    """Write the pictures of a report to `folder` (made if missing) as PNG and give their paths, the uptime first.

    At most two: the bots' uptime with what was done, and the equity curves of those that traded in 30 days. Bots with
    most to say come first. Raises BotkeepError without matplotlib ([charts]), or if a file cannot be written.
    """
    from .charts import curves, lanes, made_folder

    made_folder(folder)
    stem = f"{report.at.astimezone(zone):%Y-%m-%d-%H%M}"
    chosen = _most_to_say(report, MAX_LANES)
    made = []
    if chosen:
        made.append(folder / f"{stem}-uptime.png")
        title = f"Uptime, {report.since.astimezone(zone):%Y-%m-%d %H:%M} to {report.at.astimezone(zone):%Y-%m-%d %H:%M}"
        lanes([_lane(one) for one in chosen], list(_events(report)), made[-1], (report.since, report.at), title, zone)
    traded = [(one.bot, points, _currency(one)) for one in report.bots if (points := curve(one, report.at))]
    if traded:
        made.append(folder / f"{stem}-equity.png")
        largest = sorted(traded, key=lambda one: -abs(one[1][-1][1]))[:MAX_CURVES]
        curves(largest, made[-1], f"Summed results of 30 days, {len(largest)} of {len(traded)} bots", zone)
    return made


def _most_to_say(report: HealthReport, most: int) -> list[BotReport]:
    ranked = sorted(report.bots, key=lambda one: (one not in report.unwell, -one.uptime.down, -one.uptime.unknown))
    kept = {one.bot for one in ranked[:most]}
    return [one for one in report.bots if one.bot in kept]


def _lane(bot: BotReport) -> Lane:
    from .charts import Lane

    share = "not known" if bot.uptime.percent is None else f"{percent(bot.uptime.percent)}%"
    return Lane(bot.bot, share, [(one.start, one.end, one.what.value) for one in bot.strip])


def _events(report: HealthReport) -> Iterator[tuple[datetime, str]]:
    yield from ((one.at, "action") for one in report.actions)
    yield from ((one.at, "resolved" if one.kind == "resolved" else "alert") for one in report.told)


def _currency(bot: BotReport) -> str:
    return bot.month.currency if isinstance(bot.month, PnlFigures) else ""


KEPT = timedelta(days=7)
"""As long as a message with them may wait for its channel."""


def kept_pictures(report: HealthReport, folder: Path, zone: tzinfo) -> list[Path]:
    """The same, in a folder of botkeep's own in which older ones are removed. Raises as `pictures`."""
    made = pictures(report, folder, zone)
    oldest = (report.at - KEPT).timestamp()
    for path in folder.glob("*.png"):
        if path not in made and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
    return made
