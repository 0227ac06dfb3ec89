"""How it went: uptime, P&L, actions taken and what waits, from the ledger; then as text, through a template.

Uptime is claimed only for times at which somebody looked, or which the kernel's own record of an exit settles. The
rest is unknown, and said to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

from .config import Bot, Fleet
from .history import APPROVAL_LASTS
from .ledger import Entry, Kind, Ledger
from .model import Action, Exit, Fault, History, Permit, Result, Span, Status, Verdict, parse_iso
from .permits import permit
from .playbooks import Playbooks
from .pnl import PnlFigures
from .schedule import Missed
from .untrusted import clean, escape_markdown

TEMPLATES = Path(__file__).with_name("templates")
MAX_ACTIONS = 30
"""Lines of one report. A bot that was restarted all night fills no chat."""
MAX_SENTENCE = 400
NOTHING = timedelta()


# --- uptime ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Uptime:
    """A window of time, split into what is known about it. The four add up to it exactly."""

    up: timedelta = NOTHING
    down: timedelta = NOTHING
    stopped: timedelta = NOTHING
    """On purpose: neither up nor down."""
    unknown: timedelta = NOTHING
    """Nobody looked, or nobody could say."""

    @property
    def percent(self) -> Decimal | None:
        """Up of up and down together, to the last digit; None when neither was seen."""
        seen = self.up + self.down
        if not seen:
            return None
        tick = timedelta(microseconds=1)
        return Decimal(self.up // tick) * 100 / Decimal(seen // tick)


class _Is(StrEnum):
    UP = "up"
    DOWN = "down"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


_Stretch = tuple[datetime, datetime, _Is]


def uptime(
    spans: Iterable[Span],
    since: datetime,
    until: datetime,
    exits: Iterable[Exit] = (),
    max_gap: timedelta = NOTHING,
) -> Uptime:
    """How [since, until) divides into up, down, stopped on purpose and unknown.

    1. A span counts, from its first to its last look, as what it says. Where spans overlap (the clock was set back)
       the earlier one counts.
    2. Between two neighbours the time is unknown, except: the same instance alive at both ends was alive between
       them; an instance whose exit is known was alive until then, and afterwards down if the next look says so; and
       down (or stopped) at both ends, at most `max_gap` apart, is down between them, as it is within a span.
    3. What is left, before the first look and after the last, is unknown.
    """
    ended = {one.key: one for one in exits if one.at is not None}
    until = max(since, until)
    total = dict.fromkeys(_Is, NOTHING)
    for start, end, what in _stretches(spans, ended, max_gap):
        total[what] += max(NOTHING, min(end, until) - max(start, since))
    known = total[_Is.UP] + total[_Is.DOWN] + total[_Is.STOPPED]
    return Uptime(total[_Is.UP], total[_Is.DOWN], total[_Is.STOPPED], until - since - known)


def _stretches(spans: Iterable[Span], ended: Mapping[str, Exit], max_gap: timedelta) -> Iterator[_Stretch]:
    """What is known, without overlaps, oldest first."""
    before: Span | None = None
    for span in sorted(spans, key=lambda one: (one.first, one.last)):
        if before is not None:
            yield from _between(before, span, ended, max_gap)
        yield max(span.first, before.last if before else span.first), span.last, _what(span)
        if before is None or span.last > before.last:
            before = span


def _what(span: Span) -> _Is:
    if span.up:
        return _Is.UP
    if span.status is Status.STOPPED:
        return _Is.STOPPED
    return _Is.UNKNOWN if span.up is None else _Is.DOWN


def _between(before: Span, after: Span, ended: Mapping[str, Exit], max_gap: timedelta) -> Iterator[_Stretch]:
    """What is certain about the time from the last look of one span to the first look of the next."""
    start, end, was, then = before.last, after.first, _what(before), _what(after)
    gone = ended.get(before.instance or "")
    if was is then is _Is.UP and before.instance and before.instance == after.instance:
        yield start, end, _Is.UP
    elif was is _Is.UP and gone and gone.at and start <= gone.at <= end:
        yield start, gone.at, _Is.UP
        if then in (_Is.DOWN, _Is.STOPPED):
            yield gone.at, end, then if gone.asked else _Is.DOWN
    elif was is then and was in (_Is.DOWN, _Is.STOPPED) and end - start <= max_gap:
        yield start, end, was


# --- the report as data ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BotReport:
    """One bot in the window of the report."""

    bot: str
    status: Status
    sentence: str
    uptime: Uptime
    fault: Fault | None = None
    down_since: datetime | None = None
    restarts: tuple[datetime, ...] = ()
    """Starts after a fault that somebody made with botkeep, oldest first."""
    pnl: PnlFigures | str | None = None
    """Or why there is none; None: it has no data file."""
    backup_at: datetime | None = None
    """Of its newest verified backup."""
    proven_at: datetime | None = None
    """When a restore from backup was last made and verified."""
    wants_backup: bool = False


@dataclass(frozen=True)
class Deed:
    """One action that was taken: the outcome's own sentence."""

    at: datetime
    bot: str | None
    action: str
    result: str
    sentence: str
    entry: str


@dataclass(frozen=True)
class Held:
    """Something that is not done now. `earliest`: until then. Without it a person is waited for."""

    bot: str
    reason: str
    earliest: datetime | None = None
    until: str = ""
    approval: str = ""
    """What `botkeep approve` takes."""


@dataclass(frozen=True)
class HealthReport:
    """How all bots were in [since, at), and how they are now."""

    at: datetime
    since: datetime
    bots: tuple[BotReport, ...] = ()
    actions: tuple[Deed, ...] = ()
    held: tuple[Held, ...] = ()
    missed: tuple[Missed, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def unwell(self) -> tuple[BotReport, ...]:
        """Bots that need attention: with a fault, or unknown."""
        return tuple(one for one in self.bots if one.status in (Status.FAULTY, Status.UNKNOWN))

    @property
    def stopped(self) -> tuple[BotReport, ...]:
        """Bots that are stopped on purpose."""
        return tuple(one for one in self.bots if one.status is Status.STOPPED)
