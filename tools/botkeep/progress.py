"""Whether a bot gets somewhere, against what its own history makes normal. Pure but for one `stat`.

`normal` is the longest of the last pauses (at most 200), if there are at least 20 of them. That is the upper bound
of a distribution-free prediction interval (Wilks 1941; Hahn and Meeker, Statistical Intervals, ch. 5): of n pauses
that come from one process, the next one exceeds the longest with probability 1/(n+1): below 5 % from 20 on, 0.5 % at
200. No shape is assumed, so a quiet night, a bot that trades in bursts and one that polls each minute are all held to
their own measure. A bot has many pauses in a week, and so a playbook multiplies this before it calls a bot hung.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence, Set
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from .model import LogLook, Progress, Tempo

ENOUGH_PAUSES = 20
ENOUGH_HOURS = 12
"""Hours with trades, before a busiest one says anything."""
HABIT_HOURS = 14 * 24
HOUR = 3600
AHEAD = 60.0
"""Seconds that a trade's time may be ahead of our clock."""


class Configured(Protocol):
    """The `progress` of a bot's configuration."""

    @property
    def file(self) -> Path:
        """A file that the bot touches while it gets somewhere."""
        ...

    @property
    def every(self) -> timedelta:
        """How often it does so at the least."""
        ...


def measure(
    *, log: LogLook | None, tempo: Tempo | None, configured: Configured | None, now: datetime
) -> tuple[Progress, ...]:
    """The signs of progress that there are: `log`, `data`, and the configured file. No sign, no entry."""
    signs = [_of_log(log, now), _of_data(tempo, now), _of_file(configured, now)]
    return tuple(sign for sign in signs if sign is not None)


def _of_log(log: LogLook | None, now: datetime) -> Progress | None:
    """The newest line, or the last write where that is later: a log that grows is progress in any time zone."""
    if log is None or log.mtime is None:
        return None
    times = [at for at in (log.newest_line_at, log.mtime) if at is not None]
    return _sign("log", max(times), log.gaps, now)


def _of_data(tempo: Tempo | None, now: datetime) -> Progress | None:
    if tempo is None or tempo.newest is None:
        return None
    return _sign("data", tempo.newest, tempo.gaps, now)


def _sign(source: str, at: datetime, pauses: Sequence[float], now: datetime) -> Progress:
    return Progress(source, min(at, now), normal_pause(pauses), len(pauses))


def normal_pause(pauses: Sequence[float]) -> timedelta | None:
    """The longest pause, if there are enough to tell."""
    return timedelta(seconds=max(pauses)) if len(pauses) >= ENOUGH_PAUSES else None


def _of_file(configured: Configured | None, now: datetime) -> Progress | None:
    """The person says what is normal. A file that is missing or no regular file is no sign."""
    if configured is None:
        return None
    try:
        status = configured.file.stat()
    except OSError:
        return Progress(configured.file.name, None, configured.every, 0)
    at = datetime.fromtimestamp(status.st_mtime, UTC) if stat.S_ISREG(status.st_mode) else None
    return Progress(configured.file.name, min(at, now) if at else None, configured.every, 0)


def trades_last_hour(tempo: Tempo, now: datetime, since: datetime | None = None) -> int:
    """How many of the last 500 trades are of the hour before `now`, and after `since`."""
    end = now.timestamp()
    begin = max(end - HOUR, since.timestamp() if since else 0.0)
    return sum(1 for at in tempo.recent if begin < at <= end + AHEAD)


def usual_busiest_hour(tempo: Tempo, now: datetime, runaway: Set[int] = frozenset()) -> int | None:
    """The most trades in one clock hour of the last 14 days, before the last 60 minutes.

    None with fewer than 12 such hours: a new bot has no usual yet. `runaway`: hours that are no habit, since the bot
    was stopped for them; with them, the same series a day later would be usual.
    """
    current = int(now.timestamp() - HOUR) // HOUR
    counts = [
        count for hour, count in tempo.per_hour if current - HABIT_HOURS <= hour < current and hour not in runaway
    ]
    return max(counts) if len(counts) >= ENOUGH_HOURS else None


def with_last_hour(runaway: Set[int], now: datetime) -> list[int]:
    """Those, without the ones that are no part of a habit any more, and the clock hours of the last 60 minutes."""
    current = int(now.timestamp()) // HOUR
    return sorted({hour for hour in runaway if hour > current - HABIT_HOURS - 2} | {current - 1, current})
