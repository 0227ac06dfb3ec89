"""Uptime that can be stood by: up, down, stopped on purpose and unknown, from spans and known exits. Pure.

Uptime is claimed only for times at which somebody looked, or which the kernel's own record of an exit settles. The
rest is unknown, and said to be.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum

from .model import Exit, Span, Status

NOTHING = timedelta()
WINDOWS: tuple[tuple[str, timedelta], ...] = (
    ("24h", timedelta(hours=24)),
    ("7d", timedelta(days=7)),
    ("30d", timedelta(days=30)),
)
"""What every report says besides its own window."""
REACH_BACK = timedelta(days=1)
"""Before a window: what began earlier, or was last seen then, reaches into it."""


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
        return share(self.up, self.up + self.down)

    @property
    def at_least(self) -> Decimal | None:
        """The percentage if all of the unknown time was down; None for a window that was stopped as a whole."""
        return share(self.up, self.up + self.down + self.unknown)

    @property
    def at_most(self) -> Decimal | None:
        """The percentage if all of the unknown time was up."""
        return share(self.up + self.unknown, self.up + self.down + self.unknown)


def share(part: timedelta, whole: timedelta) -> Decimal | None:
    """Percent, exact to the microsecond; None of nothing."""
    tick = timedelta(microseconds=1)
    return Decimal(part // tick) * 100 / Decimal(whole // tick) if whole else None


def floored(found: Decimal | None, places: int = 4) -> str | None:
    """For documents, rounded down: 100 says that no moment of downtime was seen."""
    if found is None:
        return None
    text = format(found.quantize(Decimal(1).scaleb(-places), ROUND_DOWN), "f")
    return text.rstrip("0").rstrip(".")


class Is(StrEnum):
    """What is known of one moment of a bot."""

    UP = "up"
    DOWN = "down"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Stretch:
    """A stretch of time of which one thing is known. First and last may be the same: a single look."""

    start: datetime
    end: datetime
    what: Is

    @property
    def length(self) -> timedelta:
        """From start to end."""
        return self.end - self.start


@dataclass(frozen=True)
class Seen:
    """What there is to know about one bot's past, as the ledger has it."""

    spans: Sequence[Span] = ()
    exits: Sequence[Exit] = ()
    max_gap: timedelta = NOTHING
    """How far apart two looks may be that the ledger joins into one span."""
    stretches: tuple[Stretch, ...] = field(init=False)
    """All of it, without overlaps, oldest first; what is in none of them is unknown."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stretches", tuple(stretches(self.spans, self.exits, self.max_gap)))

    def within(self, since: datetime, until: datetime) -> Uptime:
        """How [since, until) divides."""
        return divided(self.stretches, since, until)

    def strip(self, since: datetime, until: datetime) -> tuple[Stretch, ...]:
        """[since, until) as stretches that follow one another without a gap: for a picture."""
        return tuple(_filled(self.stretches, since, until))


def uptime(
    spans: Iterable[Span],
    since: datetime,
    until: datetime,
    exits: Iterable[Exit] = (),
    max_gap: timedelta = NOTHING,
) -> Uptime:
    """How [since, until) divides into up, down, stopped on purpose and unknown.

    1. A span counts, from its first to its last look, as what it says. Where spans overlap (the clock was set back)
       the earlier one counts, but what was seen down was down: the hour that came twice hides no downtime.
    2. Between two neighbours the time is unknown, except: the same instance alive at both ends was alive between
       them; an instance whose exit is known was alive until then, and afterwards down if the next look says so; and
       down (or stopped) at both ends, at most `max_gap` apart, is down between them, as it is within a span.
    3. What is left, before the first look and after the last, is unknown.
    """
    return divided(stretches(spans, exits, max_gap), since, max(since, until))


def divided(found: Iterable[Stretch], since: datetime, until: datetime) -> Uptime:
    """The four sums of [since, until)."""
    total = dict.fromkeys(Is, NOTHING)
    for one in found:
        total[one.what] += max(NOTHING, min(one.end, until) - max(one.start, since))
    known = total[Is.UP] + total[Is.DOWN] + total[Is.STOPPED]
    return Uptime(total[Is.UP], total[Is.DOWN], total[Is.STOPPED], until - since - known)


def stretches(spans: Iterable[Span], exits: Iterable[Exit] = (), max_gap: timedelta = NOTHING) -> list[Stretch]:
    """What is known, without overlaps, oldest first; by the rules of `uptime`."""
    ended = {one.key: one for one in exits if one.at is not None}
    ordered = sorted(spans, key=lambda one: (one.first, one.last))
    plain = [one for one in _in_turn(ordered, ended, max_gap) if one.start <= one.end]
    return _with_downtime(plain, [one for one in ordered if what(one) is Is.DOWN])


def _in_turn(spans: Iterable[Span], ended: Mapping[str, Exit], max_gap: timedelta) -> Iterator[Stretch]:
    before: Span | None = None
    for span in spans:
        if before is not None:
            yield from _between(before, span, ended, max_gap)
        yield Stretch(max(span.first, before.last if before else span.first), span.last, what(span))
        if before is None or span.last > before.last:
            before = span


def what(span: Span) -> Is:
    """What a span says of its whole length."""
    if span.up:
        return Is.UP
    if span.status is Status.STOPPED:
        return Is.STOPPED
    return Is.UNKNOWN if span.up is None else Is.DOWN


def _between(before: Span, after: Span, ended: Mapping[str, Exit], max_gap: timedelta) -> Iterator[Stretch]:
    """What is certain about the time from the last look of one span to the first look of the next."""
    start, end, was, then = before.last, after.first, what(before), what(after)
    gone = ended.get(before.instance or "")
    if was is then is Is.UP and before.instance and before.instance == after.instance:
        yield Stretch(start, end, Is.UP)
    elif was is Is.UP and gone and gone.at and start <= gone.at <= end:
        yield Stretch(start, gone.at, Is.UP)
        if then in (Is.DOWN, Is.STOPPED):
            yield Stretch(gone.at, end, Is(then) if gone.asked else Is.DOWN)
        elif not gone.asked:
            yield Stretch(gone.at, gone.at, Is.DOWN)  # it fell: how long for, nobody saw
    elif was is then and was in (Is.DOWN, Is.STOPPED) and end - start <= max_gap:
        yield Stretch(start, end, was)


def _with_downtime(found: list[Stretch], fell: Sequence[Span]) -> list[Stretch]:
    """Time that was seen down is down also where an earlier look, of the hour that came twice, saw it up."""
    starts = [one.start for one in found]
    for span in fell:
        if _hidden(found, starts, span):
            cut = [piece for one in found for piece in _without(one, span.first, span.last)]
            found = sorted([*cut, Stretch(span.first, span.last, Is.DOWN)], key=lambda one: (one.start, one.end))
            starts = [one.start for one in found]
    return found


def _hidden(found: Sequence[Stretch], starts: Sequence[datetime], span: Span) -> bool:
    """Whether something else than downtime is said of a part of this span."""
    place = bisect_right(starts, span.last) - 1
    while place >= 0 and found[place].end > span.first:
        if found[place].what is not Is.DOWN and found[place].start < span.last:
            return True
        place -= 1
    return False


def _without(one: Stretch, start: datetime, end: datetime) -> Iterator[Stretch]:
    """What is left of a stretch outside [start, end)."""
    if one.end <= start or end <= one.start:
        yield one
        return
    if one.start < start:
        yield Stretch(one.start, start, one.what)
    if end < one.end:
        yield Stretch(end, one.end, one.what)


def _filled(found: Iterable[Stretch], since: datetime, until: datetime) -> Iterator[Stretch]:
    """Clipped, with the unknown time between, neighbours of one kind joined."""
    last = Stretch(since, since, Is.UNKNOWN)
    for one in (*found, Stretch(until, until, Is.UNKNOWN)):
        start, end = max(since, min(one.start, until)), max(since, min(one.end, until))
        for piece in (Stretch(last.end, start, Is.UNKNOWN), Stretch(start, end, one.what)):
            if not piece.length:
                continue
            if piece.what is last.what:
                last = Stretch(last.start, piece.end, last.what)
            else:
                yield from [last] if last.length else []
                last = piece
    yield from [last] if last.length else []


# --- interruptions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interruption:
    """From the last moment that a bot was known to be up to the first at which it was up again, down in between."""

    start: datetime
    end: datetime
    down: timedelta
    """Of that time, what is known to have been down: it lasted at least so long, and at most from start to end."""
    over: bool
    """False: it is down still."""

    @property
    def at_most(self) -> timedelta:
        """From start to end, the unknown time in it counted."""
        return self.end - self.start


def interruptions(found: Iterable[Stretch], since: datetime, until: datetime) -> list[Interruption]:
    """Every time that the bot fell and was not stopped on purpose, if it ended in [since, until) or stands at `until`.

    A bot that was never seen up was not interrupted; after a stop on purpose nothing was.
    """
    done: list[Interruption] = []
    fell: datetime | None = None
    down, seen_down = NOTHING, False
    for one in (one for one in found if one.start < until):
        if one.what is Is.DOWN and fell is not None:
            down, seen_down = down + min(one.end, until) - one.start, True
        elif one.what is Is.UP:
            if seen_down and fell is not None and one.start >= since:
                done.append(Interruption(fell, one.start, down, over=True))
            fell, down, seen_down = one.end, NOTHING, False
        elif one.what is Is.STOPPED:
            fell, down, seen_down = None, NOTHING, False
    if seen_down and fell is not None:
        done.append(Interruption(fell, until, down, over=False))
    return done


def not_looked(spans: Iterable[Span], since: datetime, until: datetime) -> timedelta:
    """The longest time within [since, until) between two looks that are in no span: nobody looked then."""
    reached, longest = since, NOTHING
    for span in sorted(spans, key=lambda one: one.first):
        if span.last < since or span.first > until:
            continue
        longest = max(longest, span.first - reached)
        reached = max(reached, span.last)
    return max(longest, until - reached)
