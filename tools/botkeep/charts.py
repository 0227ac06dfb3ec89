"""Pictures of P&L, as PNG or SVG: what was earned so far, and day by day.

Made to be read at 800 pixels and without colours: losses are hatched and stand below a zero line, and blue and
vermilion are two that every kind of eye tells apart (Okabe and Ito, Color Universal Design, 2008). The same figures
give the same bytes. An SVG holds its letters as outlines, so it asks nobody for a font.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .durable import write_atomic
from .model import BotkeepError, UsageError
from .pnl_figures import CurrencyFigures, DayFigures, PnlFigures
from .pnl_sums import MAX_POINTS, thinned
from .untrusted import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Sequence[tuple[datetime, Decimal]]
"""Times, and what all results up to each add up to; the oldest first."""

INCHES = (8.0, 4.2)
DPI = 200
"""Of a PNG: 1600 pixels, shown in 800."""
MAX_DAYS = 92
"""Bars of one picture; of more days, the newest."""
LABELLED_DAYS = 12
"""Up to so many days have their amounts written on their bars, if all are short."""
LABEL_LETTERS = 9

YEARS = range(1990, 2200)
"""A file may say that a trade was closed in 9999: beside it no other could be seen."""

GAIN, LOSS, INK, PALE, GREY = "#0072B2", "#D55E00", "#1a1a1a", "#d9d9d9", "#8a8f96"
HATCH = "////"
STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 11,
    "text.parse_math": False,  # a bot's name is no formula
    "svg.fonttype": "path",
    "svg.hashsalt": "botkeep",
    "hatch.linewidth": 0.8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
}

_DRAWING = threading.Lock()
"""matplotlib's settings are the whole process's."""


def equity_curve(
    found: PnlFigures | Curve, path: Path, *, title: str = "", currency: str = "", zone: tzinfo = UTC
) -> None:
    """Draw what was earned so far, with its deepest fall, to `path` (.png or .svg).

    Of figures, their main currency and their bot's name unless others are given; of a list, its values as they are.
    Raises UsageError for another ending or a currency that the figures have not, BotkeepError without matplotlib or
    if the file cannot be written.
    """
    if isinstance(found, PnlFigures):
        chosen = _chosen(found, currency)
        points, title, currency = list(chosen.curve), title or found.bot, chosen.currency
    else:
        points = list(found)
    points = [one for one in points if one[0].year in YEARS]
    while len(points) >= MAX_POINTS:
        points = thinned(points)
    with _picture(path, f"{title}: summed results" if title else "Summed results") as (axes, say):
        if not points:
            _say_empty(axes)
            return
        unit = _unit(value for _, value in points)
        fall = _draw_curve(axes, points, unit)
        _date_axis(axes, zone)
        _amount_axis(axes, unit, currency)
        deepest = f"; deepest fall {_number(fall)} (dashed)" if fall else ""
        say(f"{_amount(points[-1][1], currency)}, {_span(points, zone)}{deepest}")


def daily_pnl(found: PnlFigures | Sequence[DayFigures], path: Path, *, title: str = "", currency: str = "") -> None:
    """Draw what was earned on each day to `path` (.png or .svg), at most the newest 92 days. As `equity_curve`."""
    if isinstance(found, PnlFigures):
        currency = _chosen(found, currency).currency
        title, days = title or found.bot, list(found.days)
    else:
        days = list(found)
    days = [one for one in days if one.day.year in YEARS]
    currency = currency or (days[0].currency if days else "")
    ours = [one for one in days if one.currency == currency]
    newest = [one for one in ours if one.day > ours[-1].day - timedelta(days=MAX_DAYS)]
    with _picture(path, f"{title}: result per day" if title else "Result per day") as (axes, say):
        if not newest:
            _say_empty(axes)
            return
        unit = _unit(one.realised for one in newest)
        _draw_bars(axes, newest, unit)
        _amount_axis(axes, unit, currency)
        left_out = f" (the newest {MAX_DAYS} days)" if len(newest) < len(ours) else ""
        whole = sum((one.realised for one in newest), Decimal(0))
        until = f" to {newest[-1].day}" if len(newest) > 1 else ""
        say(f"{_amount(whole, currency)}, {newest[0].day}{until}{left_out}")


def _chosen(found: PnlFigures, currency: str) -> CurrencyFigures:
    names = [one.currency for one in found.currencies]
    if not names or (currency and currency.upper() not in names):
        have = ", ".join(names) or "none: they could not be computed"
        raise UsageError(
            f"There is no picture of {found.bot} in {currency or 'any currency'}. Its figures are in: {have}."
        )
    return found.currencies[names.index(currency.upper()) if currency else 0]


# --- what is drawn -----------------------------------------------------------------------------------------------


def _draw_curve(axes: Axes, points: Curve, unit: Decimal) -> Decimal:
    """Steps, for between two results nothing is known; what lies below zero is hatched. Gives the deepest fall."""
    times: Any = [at for at, _ in points]
    values = [float(value / unit) for _, value in points]
    axes.fill_between(times, [max(one, 0.0) for one in values], 0, step="post", color=GAIN, alpha=0.15, lw=0)
    axes.fill_between(
        times, [min(one, 0.0) for one in values], 0, step="post",
        facecolor="none", edgecolor=LOSS, hatch=HATCH, alpha=0.45, lw=0,
    )  # fmt: skip
    axes.axhline(0, color=INK, lw=1.2, zorder=2)
    axes.plot(times, values, color=INK, lw=1.6, drawstyle="steps-post", zorder=3)
    axes.margins(x=0.02, y=0.08)
    fall, begins, ends = _deepest_fall(points)
    if fall:
        ends_of_fall: Any = [begins[0], ends[0]]
        heights = [float(begins[1] / unit), float(ends[1] / unit)]
        axes.plot(ends_of_fall, heights, color=LOSS, lw=1.2, ls=(0, (4, 3)), marker="o", ms=4.5, zorder=4)
    return fall


def _deepest_fall(points: Curve) -> tuple[Decimal, tuple[datetime, Decimal], tuple[datetime, Decimal]]:
    """How deep, from where and to where; it may begin at zero before anything was won."""
    high = begins = (points[0][0], max(points[0][1], Decimal(0)))
    ends, deepest = high, Decimal(0)
    for point in points:
        if point[1] > high[1]:
            high = point
        if high[1] - point[1] > deepest:
            deepest, begins, ends = high[1] - point[1], high, point
    return deepest, begins, ends


def _draw_bars(axes: Axes, days: Sequence[DayFigures], unit: Decimal) -> None:
    """Gains stand on the zero line and are full, losses hang from it and are hatched."""
    texts = [_number(one.realised / unit, signed=True) for one in days]
    labelled = (days[-1].day - days[0].day).days < LABELLED_DAYS and max(map(len, texts)) <= LABEL_LETTERS
    for one, text in zip(days, texts, strict=True):
        place: Any = datetime.combine(one.day, time(), UTC)
        height, loses = float(one.realised / unit), one.realised < 0
        axes.bar(
            place, height, width=0.72, facecolor="white" if loses else GAIN,
            edgecolor=LOSS if loses else GAIN, hatch=HATCH if loses else None, lw=1.0, zorder=3,
        )  # fmt: skip
        if labelled:
            axes.annotate(
                text, (place, height), xytext=(0, -4 if loses else 4), textcoords="offset points",
                ha="center", va="top" if loses else "bottom", fontsize=9.5, zorder=5,
            )  # fmt: skip
    axes.axhline(0, color=INK, lw=1.2, zorder=4)
    axes.use_sticky_edges = False  # with losses only, the zero line would be the frame
    axes.margins(y=0.14)
    _day_axis(axes, days[0].day, days[-1].day)


def _say_empty(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([0])
    axes.text(0.5, 0.5, "nothing was closed in this time", ha="center", va="center", transform=axes.transAxes)


# --- several bots in one picture ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lane:
    """One bot's time, stretch by stretch: (start, end, `up`, `down`, `stopped` or `unknown`)."""

    name: str
    share: str
    """What is written at its end."""
    stretches: Sequence[tuple[datetime, datetime, str]]


LANE_LOOKS: dict[str, tuple[float, dict[str, Any]]] = {
    "up": (0.5, {"facecolor": GAIN, "lw": 0}),
    "stopped": (0.2, {"facecolor": GREY, "lw": 0}),
    "unknown": (0.06, {"facecolor": GREY, "lw": 0}),
    "down": (0.86, {"facecolor": "white", "edgecolor": LOSS, "hatch": HATCH, "lw": 1.4}),
}
"""Height and looks: told apart without colours too. Downtime comes last, so that nothing hides it."""
EVENT_LOOKS = {"action": ("o", GAIN), "alert": ("v", LOSS), "resolved": ("^", INK)}
LANE_INCHES = 0.42


def lanes(
    found: Sequence[Lane],
    events: Sequence[tuple[datetime, str]],
    path: Path,
    window: tuple[datetime, datetime],
    title: str,
    zone: tzinfo = UTC,
) -> None:
    """Draw bots' uptime one below the other, and above them what was done and told (`action`, `alert`, `resolved`).

    Raises as `equity_curve`.
    """
    high = 1.5 + LANE_INCHES * (len(found) + 1)
    with _figure(path, title, (INCHES[0], high)) as figure:
        axes = figure.add_axes((0.2, 0.75 / high, 0.7, 1 - 1.25 / high))
        for row, lane in enumerate(found):
            _draw_lane(axes, row, lane, (window[1] - window[0]) / 400)
            axes.text(1.02, row, lane.share, transform=axes.get_yaxis_transform(), va="center", fontsize=10.5)
        for kind, (marker, colour) in EVENT_LOOKS.items():
            times: Any = [at for at, what in events if what == kind]
            if times:
                axes.plot(times, [-1] * len(times), marker, color=colour, ms=7, ls="none", label=kind, alpha=0.85)
        axes.set_ylim(len(found) - 0.4, -1.6)
        axes.set_xlim(*(_dates().date2num(at) for at in window))
        axes.set_yticks(range(-1, len(found)), ["done, told", *(_letters(one.name)[:18] for one in found)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=PALE, lw=0.8)
        axes.set_axisbelow(True)
        _date_axis(axes, zone)
        _legend_of_lanes(figure, high)


def _draw_lane(axes: Axes, row: int, lane: Lane, thinnest: timedelta) -> None:
    for kind, (height, looks) in LANE_LOOKS.items():
        least = thinnest if kind == "down" else timedelta()
        bars: Any = [(start, max(end - start, least)) for start, end, what in lane.stretches if what == kind]
        if bars:
            axes.broken_barh(bars, (row - height / 2, height), zorder=3, **looks)


def _legend_of_lanes(figure: Figure, high: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = {"up": "up", "down": "down", "stopped": "stopped on purpose", "unknown": "nobody looked"}
    handles: list[Any] = [
        Patch(label=names[kind], **looks) for kind, (_, looks) in LANE_LOOKS.items() if kind != "unknown"
    ]
    handles.append(Line2D([], [], color=GREY, lw=1.5, label=names["unknown"]))
    handles += [Line2D([], [], color=c, marker=m, ls="none", label=k) for k, (m, c) in EVENT_LOOKS.items()]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.06 / high), ncols=7, frameon=False,
                  fontsize=9, handlelength=1.2, columnspacing=1.1, handletextpad=0.5)  # fmt: skip


def curves(found: Sequence[tuple[str, Curve, str]], path: Path, title: str, zone: tzinfo = UTC) -> None:
    """Draw (name, points, currency) side by side, two in a row, each in its own unit. Raises as `equity_curve`."""
    rows = (len(found) + 1) // 2
    high = 0.75 + 2.1 * rows
    with _figure(path, title, (INCHES[0], high)) as figure:
        for place, (name, points, currency) in enumerate(found):
            row, column = divmod(place, 2)
            bottom = (high - 0.75 - 2.1 * (row + 1) + 0.45) / high
            axes = figure.add_axes((0.09 + 0.49 * column, bottom, 0.4, 1.25 / high))
            unit = _unit(value for _, value in points)
            _draw_curve(axes, points, unit)
            _date_axis(axes, zone)
            _amount_axis(axes, unit, "" if unit == 1 else currency)
            axes.tick_params(labelsize=9)
            axes.set_title(_letters(f"{name}  {_amount(points[-1][1], currency)}")[:46], fontsize=11, loc="left")


# --- axes and words ----------------------------------------------------------------------------------------------


def _dates() -> Any:
    """matplotlib's module of that name, which has no types."""
    return import_module("matplotlib.dates")


def _date_axis(axes: Axes, zone: tzinfo) -> None:
    locator = _dates().AutoDateLocator(tz=zone, minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(_dates().ConciseDateFormatter(locator, tz=zone))


def _day_axis(axes: Axes, first: date, last: date) -> None:
    """Room for at least a week, so that one day is a bar and no wall; a tick at midnights only."""
    days = (last - first).days + 1
    before = max(0, 7 - days) / 2
    begin, end = (_dates().date2num(datetime.combine(one, time(), UTC)) for one in (first, last))
    axes.set_xlim(begin - before - 0.6, end + before + 0.6)
    locator = _dates().AutoDateLocator(tz=UTC, minticks=1, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(_dates().ConciseDateFormatter(locator, tz=UTC))


def _amount_axis(axes: Axes, unit: Decimal, currency: str) -> None:
    """Plain numbers, in a unit in which they are short, said with the currency."""
    from matplotlib.ticker import FuncFormatter

    low, high = axes.get_ylim()
    places = max(0, 1 - math.floor(math.log10(high - low)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.{places}f}"))
    axes.set_ylabel(_letters(currency if unit == 1 else f"{unit:,f} {currency}".strip()))
    axes.grid(axis="y", color=PALE, lw=0.8)
    axes.set_axisbelow(True)


def _unit(amounts: Iterable[Decimal]) -> Decimal:
    """1, or the power of a thousand in which amounts far from one are read: bars of 0.00000224 BTC are not."""
    largest = max((abs(one) for one in amounts), default=Decimal(0))
    if not largest or Decimal("0.01") <= largest < 1_000_000:
        return Decimal(1)
    return Decimal(1).scaleb(largest.adjusted() // 3 * 3)


def _span(points: Curve, zone: tzinfo) -> str:
    """From when to when; with the time of day where days alone would say little."""
    first, last = (at.astimezone(zone) for at in (points[0][0], points[-1][0]))
    if last - first > timedelta(days=2):
        return f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M %Z}".strip()


def _amount(amount: Decimal, currency: str) -> str:
    return f"{_number(amount, signed=True)} {currency}".strip()


def _number(amount: Decimal, *, signed: bool = False) -> str:
    """Two decimals, or of less than one as many as make three digits, but no end of zeros."""
    places = 2 if not amount or amount.adjusted() >= 0 else 2 - amount.adjusted()
    whole, _, digits = f"{amount:{'+' if signed and amount else ''},.{min(places, 20)}f}".partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(2, '0')}"


def _letters(text: str) -> str:
    """One short line of letters that the font has: a name may hold anything."""
    return "".join(one if ord(one) < 0x250 or one in "€₽" else "?" for one in clean(text, 140))


# --- the file ----------------------------------------------------------------------------------------------------


@contextmanager
def _picture(path: Path, title: str) -> Iterator[tuple[Axes, Callable[[str], object]]]:
    """Axes to draw on, and what writes the line below the title. The file is written when the block ends well."""
    with _figure(path, title, INCHES) as figure:
        axes = figure.add_axes((0.115, 0.11, 0.865, 0.68))
        yield axes, lambda text: figure.text(0.02, 0.878, _letters(text), va="top")


@contextmanager
def _figure(path: Path, title: str, inches: tuple[float, float]) -> Iterator[Figure]:
    """An empty sheet with its title. The file is written when the block ends well."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise UsageError(f"{path.name} cannot be drawn: pictures are .png or .svg. Give it such an ending.")
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BotkeepError('Pictures of P&L need botkeep[charts]: pip install "botkeep[charts]".') from error
    with _DRAWING, mpl.rc_context():
        mpl.rcdefaults()  # a matplotlibrc of somebody's must not change what is drawn
        settings: Any = mpl.rcParams
        settings.update(STYLE)
        figure = Figure(figsize=inches, facecolor="white")
        FigureCanvasAgg(figure)
        figure.text(0.02, 1 - 0.15 / inches[1], _letters(title), fontsize=14, fontweight="bold", va="top")
        yield figure
        data = io.BytesIO()
        nameless = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(data, format=kind, dpi=DPI, metadata=nameless)
    try:
        write_atomic(path, data.getvalue(), 0o644)
    except OSError as error:
        raise BotkeepError(
            f"The picture {path.name} could not be written to {path.parent}: {error.strerror}. "
            "Mend that, and draw it again."
        ) from error


def made_folder(folder: Path) -> None:
    """Make it if it is not there. Raises BotkeepError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BotkeepError(f"The folder {folder} cannot be used for pictures: {error.strerror}.") from error
