"""What the bots of a fleet earned, bot by bot: one file that cannot be read costs the others nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from .bench import Bench
from .config import Bot
from .earnings import Reported, Wish, earned, live_marks, reported
from .model import BotkeepError, UsageError
from .pnl_figures import PnlFigures
from .schedule import zone_of


def earned_by(bench: Bench, names: Sequence[str] | None, wish: Wish) -> list[PnlFigures]:
    """P&L, exact, of each bot that has a data file; of one that cannot be read only the reason.

    Raises UsageError for an unknown bot or method, BotkeepError where a bot was named and cannot be read.
    """
    asked = bench.fleet.asked(names)
    _ask_apis(bench, asked)
    found = []
    for name in asked:
        bot = bench.fleet.usable(name) if names else bench.fleet.get(name).bot
        if bot is None or bot.data_file is None:
            continue
        try:
            found.append(_earned(bench, bot, wish))
        except UsageError:
            raise
        except BotkeepError as error:
            if names:
                raise
            found.append(PnlFigures(name, wish.since, None, "unknown", (), notes=(str(error),)))
    return found


def _ask_apis(bench: Bench, names: Sequence[str]) -> None:
    """What open positions are worth now: only the bots' own APIs know."""
    known = [name for name in names if (bot := bench.fleet.get(name).bot) and bot.api and name not in bench.seen]
    if known:
        bench.seen.update(bench.look_at(known))


def _earned(bench: Bench, bot: Bot, wish: Wish) -> PnlFigures:
    seen = bench.seen.get(bot.name)
    live = live_marks(seen.observation) if seen else None
    return earned(bot, wish, bench.ledger, bench.clock(), zone_of(bench.fleet), live)


def reported_of(bench: Bench, since: datetime) -> dict[str, Reported | str]:
    """Each bot's figures, or why there are none: one unreadable file must not cost the others their report."""
    _ask_apis(bench, [bot.name for bot in bench.fleet.bots])
    zone = zone_of(bench.fleet)
    found: dict[str, Reported | str] = {}
    for bot in bench.fleet.bots:
        if bot.data_file is not None:
            seen = bench.seen.get(bot.name)
            live = live_marks(seen.observation) if seen else None
            try:
                found[bot.name] = reported(bot, since, bench.ledger, bench.clock(), zone, live)
            except BotkeepError as error:
                found[bot.name] = str(error)
    return found
