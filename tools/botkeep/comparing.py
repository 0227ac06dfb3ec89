"""After unclean deaths: the comparing that a look leaves to the round, of large files and with exchanges."""

from __future__ import annotations

import time

from . import deaths, probe, reconcile
from .bench import Bench
from .config import Bot
from .model import BotkeepError, DataVerdict

COMPARING_SECONDS = 30.0


def compare_further(bench: Bench) -> list[str]:
    """What a look leaves to the round: large files, and exchanges. After the restarts, for half a minute at most.

    Gives the bots that turn out to lack trades.
    """
    began, lacking = time.monotonic(), []
    for bot in bench.fleet.bots:
        seen = bench.seen.get(bot.name)
        if seen is None or time.monotonic() - began > COMPARING_SECONDS:
            continue
        try:
            if _compare_one(bench, bot, seen):
                lacking.append(bot.name)
        except (BotkeepError, OSError) as error:
            bench.troubles.append(f"{bot.name}: {error}")
    return lacking


def _compare_one(bench: Bench, bot: Bot, seen: probe.Seen) -> bool:
    data, runtime = seen.observation.data, seen.observation.runtime
    if data is None or data.verdict not in (DataVerdict.OK, DataVerdict.REPLACED) or not reconcile.has_source(bot):
        return False
    death, known = deaths.death_of(runtime, data, seen.observation.marks), bench.cursor(bot.name, "compared")
    if death is None:
        return False
    done = deaths.is_compared(death, data, known)
    exchange = deaths.wants_more(bot, known if done else None, bench.clock())
    if done and not exchange:
        return False
    found = deaths.compare(bot, bench.fleet, death, data.identity, bench.clock(), exchange=exchange)
    if found is None:
        return False
    if not bench.ledger.swap_cursor(bot.name, "compared", known, found):
        return False  # its file was restored, or somebody else compared it: the next look knows
    return any(one["certain"] for one in found["findings"])
