"""Pictures of P&L: that they are there, say what they must, are always the same, and take any figures."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from botkeep.charts import DPI, GAIN, INCHES, LOSS, _amount, _letters, _number, _unit, daily_pnl, equity_curve
from botkeep.formats import TradeTable
from botkeep.model import BotkeepError, ClosedTrade, UsageError
from botkeep.pnl import DayFigures, PnlFigures, figures

pytest.importorskip("matplotlib", reason="the pictures need botkeep[charts]")

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
FIRST = date(2026, 11, 1)
BOTH: tuple[Callable[..., None], ...] = (equity_curve, daily_pnl)


def earned(*results: str | int, currency: str = "USDT", hours: float = 12) -> PnlFigures:
    """Figures of a bot that closed trades with these results."""
    made = [
        ClosedTrade(START + timedelta(hours=n * hours), "BTC/USDT", Decimal(one), currency)
        for n, one in enumerate(results)
    ]
    return figures("doge", TradeTable("closed", closed=tuple(made)))


SOME = earned(5, -2, "1.25", -9, 4, 3, -1, 8)


def size(png: Path) -> tuple[int, int]:
    """As the header of the file says."""
    head = png.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def colours(png: Path) -> set[str]:
    """Every colour in the picture, as `#rrggbb`."""
    from matplotlib.image import imread

    pixels = (imread(png)[..., :3].reshape(-1, 3) * 255).round().astype(int)
    return {f"#{one >> 16 & 255:02X}{one >> 8 & 255:02X}{one & 255:02X}" for one in set(pixels @ [65536, 256, 1])}


@pytest.mark.parametrize("draw", BOTH)
def test_a_png_is_twice_as_wide_as_it_is_read(draw: Callable[..., None], tmp_path: Path) -> None:
    draw(SOME, tmp_path / "p.png")
    assert size(tmp_path / "p.png") == (round(INCHES[0] * DPI), round(INCHES[1] * DPI)) == (1600, 840)
    assert (tmp_path / "p.png").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("draw", BOTH)
@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_same_figures_are_the_same_bytes_in_another_process_too(
    draw: Callable[..., None], kind: str, tmp_path: Path
) -> None:
    draw(SOME, tmp_path / f"a.{kind}")
    again = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_charts as here; from pathlib import Path; "
        "getattr(here, sys.argv[2])(here.SOME, Path(sys.argv[3]))"
    )
    command = [sys.executable, "-c", again, str(Path(__file__).parent), draw.__name__, str(tmp_path / f"b.{kind}")]
    subprocess.run(command, check=True, cwd=tmp_path, env={"PYTHONHASHSEED": "77", "MPLCONFIGDIR": str(tmp_path)})
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


@pytest.mark.parametrize("draw", BOTH)
def test_an_svg_loads_nothing_and_holds_no_date_and_no_script(draw: Callable[..., None], tmp_path: Path) -> None:
    draw(SOME, tmp_path / "p.svg")
    text = (tmp_path / "p.svg").read_text()
    assert not re.search(r"<script|<image|<text|@import|@font-face|font-family|dc:date", text)
    assert set(re.findall(r'(?:href|src)="([^#"][^"]*)"', text)) == set()
    assert not re.search(r"url\((?!#)", text)


def test_a_losing_day_is_hatched_and_hangs_and_a_winning_one_is_full(tmp_path: Path) -> None:
    """Not by its colour alone: vermilion never fills an area, blue does."""
    daily_pnl([DayFigures(FIRST, "USDT", Decimal(-3))], tmp_path / "loss.svg")
    daily_pnl([DayFigures(FIRST, "USDT", Decimal(3))], tmp_path / "gain.svg")
    loss, gain = ((tmp_path / f"{one}.svg").read_text() for one in ("loss", "gain"))
    assert "<pattern" in loss
    assert "<pattern" not in gain
    assert f"fill: {GAIN.lower()}" in gain
    assert f"stroke: {LOSS.lower()}" in loss


def test_both_colours_are_in_the_picture_and_its_ground_is_white(tmp_path: Path) -> None:
    daily_pnl(SOME, tmp_path / "p.png")
    assert {GAIN, LOSS, "#FFFFFF"} <= colours(tmp_path / "p.png")


@pytest.mark.parametrize("draw", BOTH)
@pytest.mark.parametrize(
    "found",
    [
        earned(),
        earned(1),
        earned(-1),
        earned(0, 0, 0),
        earned(1, 2, 3),
        earned(-1, -2, -3),
        earned("0.0000000001", "-0.0000000002"),
        earned("123456789012345678e60", "-1e99"),
        earned(*[(-1) ** n * n for n in range(400)], hours=24),
        earned(1, -1, hours=24 * 365 * 9),
        earned(1, currency=""),
    ],
    ids=["none", "one", "loss", "zeros", "gains", "losses", "tiny", "huge", "a year", "far apart", "no currency"],
)
def test_any_figures_can_be_drawn(draw: Callable[..., None], found: PnlFigures, tmp_path: Path) -> None:
    """Warnings are errors in these tests: none may come from limits, dates or fonts."""
    draw(found, tmp_path / "p.png")
    assert size(tmp_path / "p.png") == (1600, 840)


@pytest.mark.parametrize("draw", BOTH)
def test_trades_of_the_year_9999_do_not_stretch_the_picture(draw: Callable[..., None], tmp_path: Path) -> None:
    far = [ClosedTrade(datetime(year, 12, 31, tzinfo=UTC), "X", Decimal(1), "USDT") for year in (1, 9999)]
    near = [ClosedTrade(START, "X", Decimal(2), "USDT")]
    draw(figures("b", TradeTable("closed", closed=tuple(far + near))), tmp_path / "p.png", title="same")
    assert size(tmp_path / "p.png") == (1600, 840)


@pytest.mark.parametrize("title", ["$\\frac{1}{0$", "bot\n\x1b[31m<script>", "交易 🤖", "%s {0}", "x" * 500])
def test_a_title_of_any_letters_is_text(title: str, tmp_path: Path) -> None:
    for draw in BOTH:
        draw(SOME, tmp_path / "p.svg", title=title)
        assert "<script" not in (tmp_path / "p.svg").read_text()


def test_what_the_font_has_not_is_a_question_mark() -> None:
    assert _letters("Zürich €5 交易\x1b[0m") == "Zürich €5 ??"


def test_a_list_of_points_or_days_is_drawn_as_figures_are(tmp_path: Path) -> None:
    equity_curve(SOME, tmp_path / "a.svg")
    equity_curve(SOME.main.curve, tmp_path / "b.svg", title="doge", currency="USDT")
    daily_pnl(SOME, tmp_path / "c.svg")
    daily_pnl(SOME.days, tmp_path / "d.svg", title="doge", currency="USDT")
    same = [(tmp_path / f"{one}.svg").read_bytes() for one in "abcd"]
    assert same[0] == same[1] != same[2] == same[3]


def test_the_zone_changes_the_times_that_are_written(tmp_path: Path) -> None:
    equity_curve(SOME, tmp_path / "a.svg")
    equity_curve(SOME, tmp_path / "b.svg", zone=ZoneInfo("Asia/Tokyo"))
    assert (tmp_path / "a.svg").read_bytes() != (tmp_path / "b.svg").read_bytes()


def test_one_currency_at_a_time_the_main_one_unless_asked(tmp_path: Path) -> None:
    euro = ClosedTrade(START, "ETH/EUR", Decimal(7), "EUR")
    dollars = [ClosedTrade(START, "BTC/USDT", Decimal(n), "USDT") for n in (1, -2)]
    found = figures("doge", TradeTable("closed", closed=(euro, *dollars)))
    daily_pnl(found, tmp_path / "a.svg")
    daily_pnl(found, tmp_path / "b.svg", currency="eur")
    assert "<pattern" in (tmp_path / "a.svg").read_text(), "-1 USDT"
    assert "<pattern" not in (tmp_path / "b.svg").read_text(), "+7 EUR"
    with pytest.raises(UsageError, match=r"no picture of doge in GBP.*EUR"):
        equity_curve(found, tmp_path / "c.svg", currency="GBP")
    assert not (tmp_path / "c.svg").exists()


def test_figures_that_could_not_be_computed_have_no_picture(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="could not be computed"):
        equity_curve(PnlFigures("doge", None, None, "unknown", ()), tmp_path / "c.svg")


@pytest.mark.parametrize("name", ["p.pdf", "p", "p.html"])
def test_another_ending_is_refused_with_what_is_allowed(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        equity_curve(SOME, tmp_path / name)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BotkeepError, match=r"p\.svg could not be written to .*gone: No such file"):
        equity_curve(SOME, tmp_path / "gone/p.svg")


def test_drawing_leaves_matplotlibs_settings_as_they_were(tmp_path: Path) -> None:
    code = (
        "import sys, matplotlib as mpl; from pathlib import Path; import botkeep.charts as c; "
        "before = dict(mpl.rcParams); c.equity_curve([], Path(sys.argv[1])); assert dict(mpl.rcParams) == before"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "p.svg")], check=True)


def test_a_persons_own_settings_of_matplotlib_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text(
        "axes.facecolor: black\ntext.usetex: True\nsavefig.dpi: 30\nlines.color: r\n"
    )
    daily_pnl([DayFigures(FIRST, "USDT", Decimal(3))], tmp_path / "a.png")
    code = (
        "import sys; from pathlib import Path; from datetime import date; from decimal import Decimal; "
        "import botkeep.charts as c; "
        "c.daily_pnl([c.DayFigures(date(2026, 11, 1), 'USDT', Decimal(3))], Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "b.png")]
    subprocess.run(command, check=True, cwd=tmp_path, env={"MATPLOTLIBRC": str(tmp_path)})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_threads_draw_the_same_as_one_alone(tmp_path: Path) -> None:
    daily_pnl(SOME, tmp_path / "alone.svg")
    threads = [threading.Thread(target=daily_pnl, args=(SOME, tmp_path / f"{n}.svg")) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert {(tmp_path / f"{n}.svg").read_bytes() for n in range(4)} == {(tmp_path / "alone.svg").read_bytes()}


def test_nothing_of_pyplot_or_a_window_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import botkeep.charts as c; assert 'matplotlib' not in sys.modules; "
        "c.equity_curve([], Path(sys.argv[1])); print([m for m in sys.modules if 'pyplot' in m or 'tkinter' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p.png")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_without_matplotlib_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('none here')\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import botkeep.charts as c; from pathlib import Path\n"
        "try: c.equity_curve([], Path('p.png'))\nexcept c.BotkeepError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == 'Pictures of P&L need botkeep[charts]: pip install "botkeep[charts]".\n'


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0.00"),
        ("1234.5678", "+1,234.57"),
        ("-0.5", "-0.50"),
        ("0.012345", "+0.0123"),
        ("-0.0000004", "-0.0000004"),
        ("1e3", "+1,000.00"),
    ],
)
def test_amounts_are_short_and_never_nothing(amount: str, text: str) -> None:
    assert _number(Decimal(amount), signed=True) == text
    assert _amount(Decimal(amount), "USDT") == f"{text} USDT"


@pytest.mark.parametrize(
    ("largest", "unit"),
    [("0", "1"), ("0.01", "1"), ("999999", "1"), ("0.0042", "0.001"), ("2.5e-8", "1e-9"), ("-3e6", "1e6")],
)
def test_the_axis_counts_in_a_unit_in_which_numbers_are_short(largest: str, unit: str) -> None:
    assert _unit([Decimal(0), Decimal(largest)]) == Decimal(unit)
