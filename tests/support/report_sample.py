"""A morning report with something of everything in it: four bots, a fall, a question, a silence, wakes, goals."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from botkeep.earnings import Habit
from botkeep.goals import Goal
from botkeep.model import Fault, Status
from botkeep.pnl import CurrencyFigures, Mark, OpenPosition, PnlFigures
from botkeep.report import BotReport, Deed, HealthReport, Held, Made, Told, Wakes
from botkeep.silences import Silence
from botkeep.uptime import Is, Stretch, Uptime

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
SINCE = NOW - timedelta(hours=24)
HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)


def figures(bot: str, *results: str, positions: tuple[OpenPosition, ...] = ()) -> PnlFigures:
    """P&L of closed trades with these results, one every few hours up to now."""
    step = DAY * 29 / max(1, len(results))
    total, points = Decimal(0), []
    for n, one in enumerate(results):
        total += Decimal(one)
        points.append((NOW - DAY * 29 + step * n, total))
    wins = sum(1 for one in results if Decimal(one) > 0)
    rate = Decimal(wins) / len(results) if results else None
    open_now = sum((one.unrealised or Decimal(0) for one in positions), Decimal(0)) if positions else None
    found = CurrencyFigures(
        "USDT", total, trades=len(results), wins=wins, losses=len(results) - wins, win_rate=rate,
        drawdown=Decimal("3.2"), percent=total / 6, curve=tuple(points), unrealised=open_now,
    )  # fmt: skip
    return PnlFigures(bot, SINCE, NOW, "closed", (found,), positions=positions)


def strip(*pieces: tuple[float, float, Is]) -> tuple[Stretch, ...]:
    """Stretches in hours of the window."""
    return tuple(Stretch(SINCE + HOUR * a, SINCE + HOUR * b, what) for a, b, what in pieces)


def bot(name: str, **more: object) -> BotReport:
    """One that is well."""
    whole = Uptime(up=24 * HOUR)
    kept = BotReport(
        name, Status.HEALTHY, f"{name} runs since 2026-11-14 09:12Z (pid 4711).", whole,
        windows=(("24h", whole), ("7d", Uptime(up=7 * DAY)), ("30d", Uptime(up=28 * DAY, unknown=2 * DAY))),
        strip=strip((0, 24, Is.UP)), pnl=figures(name, "1.2", "-0.4", "0.9"),
        month=figures(name, *["1.2", "-0.4", "0.9", "-1.5", "2.2", "0.3"] * 6),
        habit=Habit(9, Decimal("8.2"), Decimal(14)), backup_at=NOW - 55 * MINUTE, proven_at=NOW - 3 * DAY,
        wants_backup=True,
    )  # fmt: skip
    return replace(kept, **more)  # type: ignore[arg-type]


def sample() -> HealthReport:
    """The first users' four bots on a morning on which one needs somebody."""
    fell = Uptime(up=24 * HOUR - 4 * MINUTE, down=2 * MINUTE, unknown=2 * MINUTE)
    mark = Mark(Decimal("61250"), "its own API")
    held = OpenPosition(
        "BTC/USDT", Decimal("0.012"), Decimal("61000.5"), "USDT", mark=mark, unrealised=Decimal("2.994")
    )
    refused = "btc-optimized is up and the exchange refuses its API key (code -2015)."
    return HealthReport(
        at=NOW,
        since=SINCE,
        bots=(
            bot("doge-long", uptime=fell, restarts=(Made(NOW - 4.75 * HOUR, "out-of-memory", "e41"),),
                windows=(("24h", fell), ("7d", Uptime(up=7 * DAY - HOUR, down=HOUR))),
                strip=strip((0, 19.2, Is.UP), (19.2, 19.25, Is.DOWN), (19.25, 24, Is.UP))),
            bot("doge-short", uptime=Uptime(up=16 * HOUR, unknown=8 * HOUR), pnl="its header is gone", month=None,
                habit=None, strip=strip((0, 8, Is.UP), (8, 16, Is.UNKNOWN), (16, 24, Is.UP))),
            bot("btc-optimized", status=Status.FAULTY, fault=Fault.API_KEY_REJECTED, sentence=refused,
                down_since=NOW - 2 * HOUR, pnl=figures("btc-optimized", "45.8", positions=(held,)),
                habit=Habit(27, Decimal("3.1"), Decimal(14)), uptime=Uptime(up=22 * HOUR, down=2 * HOUR),
                strip=strip((0, 22, Is.UP), (22, 24, Is.DOWN))),
            bot("hummingbot-mm", status=Status.STOPPED, uptime=Uptime(up=12 * HOUR, stopped=12 * HOUR),
                strip=strip((0, 12, Is.UP), (12, 24, Is.STOPPED)),
                pnl=figures("hummingbot-mm", "-3.2"), month=figures("hummingbot-mm", *["-0.4", "0.2"] * 20)),
        ),
        actions=(
            Deed(NOW - 4.75 * HOUR, "doge-long", "restart", "done",
                 "doge-long was restarted (pid 812) and is up for 10 s; it ran out of memory.", "e42"),
            Deed(NOW - 2.3 * HOUR, "doge-short", "restore", "done",
                 "doge-short is restored: 120 rows before, 121 after, P&L +12.40 USDT before and after.", "e47"),
        ),
        held=(
            Held("btc-optimized", "api-key-rejected does not allow it", None, "a person has mended the key"),
            Held("doge-short", "the playbook data-corrupt asks a person first", None, "", "e55"),
            Held("doge-long", "that was done twice, and has to back off", NOW + 15 * MINUTE),
        ),
        goals=(
            Goal("uptime over 99.5 % a week", False, "99.4% (doge-long, the lowest)", ("e41", "e42"), ("doge-long",)),
            Goal("recovery under 2 minutes", True, "2 of 2 in time, the slowest 40 s to 55 s (doge-long)", ("e42",)),
            Goal("damage to data seen within an hour", None, "none was seen, but nobody looked for 8.0 h"),
        ),
        told=(
            Told(NOW - 4.7 * HOUR, "doge-long", "doge-long is not running (since 2026-11-21 03:13:00Z)", "e43"),
            Told(NOW - 4.6 * HOUR, "doge-long", "doge-long is well after 2 min: restarted (e42)", "e44", "resolved"),
            Told(NOW - 2 * HOUR, "btc-optimized", refused, "e50"),
        ),
        wakes=Wakes(2, 1, 3400, Decimal("0.021"), ("e51", "e52")),
        silences=(Silence("hummingbot-mm", NOW - HOUR, NOW + HOUR, "moving it to the new server", "e53"),),
        problems=("playbooks/bot-hung.md:4: found maybe; write auto or ask",),
    )  # fmt: skip
