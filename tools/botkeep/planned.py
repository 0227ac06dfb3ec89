"""Planned restarts, as `restart_every` of a bot asks for them: when one is due, and what it waits for. Pure.

They are no failures: neither the back-off nor `max_per_day` counts them.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta, tzinfo

from .config import Bot
from .history import clock
from .model import Observation, Status, Verdict

LATE = timedelta(hours=1)
"""A time of the calendar that nobody could keep for so long is left out: nobody wants the nightly restart at noon."""
CLOCKS_CHANGE = timedelta(hours=2)
"""No zone changes its clocks by more at once."""


def due_at(bot: Bot, seen: Observation, now: datetime, zone: tzinfo) -> datetime | None:
    """When this run of the bot has its planned restart: of a length of time, counted from its start.

    None: it has none, or nobody knows since when it runs. `zone`: the people's, for the calendar.
    """
    started = [one.started_at for one in seen.runtime.instances if one.started_at]
    if bot.restart_every is None or bot.runtime is None or len(started) != 1:
        return None
    if isinstance(bot.restart_every, timedelta):
        return started[0] + bot.restart_every
    return _of_the_calendar(bot.restart_every, max(started[0], now - LATE), zone)


def _of_the_calendar(fields: str, after: datetime, zone: tzinfo) -> datetime | None:
    """The first time after that, as a clock on the wall shows it."""
    from croniter import CroniterBadDateError, croniter

    from .schedule import keeps_pace, moments

    begin = after.astimezone(zone).replace(tzinfo=None) - CLOCKS_CHANGE
    steps, pace, found = croniter(fields, begin), keeps_pace(fields), set[datetime]()
    try:
        for _ in range(400):
            wall = steps.get_next(datetime)
            if found and wall - CLOCKS_CHANGE > begin + CLOCKS_CHANGE:  # an hour that comes twice is over by now
                break
            found |= {at for at in moments(wall, zone, keeps_pace=pace) if at > after}
    except CroniterBadDateError:
        pass
    return min(found, default=None)


def waits_for(verdict: Verdict, silenced: Collection[str] = ()) -> str:
    """What a planned restart waits for, a clause; empty: for nothing."""
    if verdict.status is not Status.HEALTHY or verdict.instance is None:
        return "it is not well"
    if verdict.bot in silenced:
        return "it is silenced: somebody works on it"
    program = verdict.program
    count = len(program.positions) if program.positions is not None else program.open_trades
    if count:
        return f"it has {count} open position{'s' * (count != 1)}"
    return ""


def reason(bot: Bot, at: datetime) -> str:
    """For the journal."""
    every = bot.restart_every
    how = f"restart_every {every}" if isinstance(every, str) else f"it ran for {length_of(every)}"
    return f"planned: {how} (due at {clock(at)})"


def length_of(every: timedelta | None) -> str:
    """As people write it in the configuration."""
    seconds = int(every.total_seconds()) if every else 0
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
