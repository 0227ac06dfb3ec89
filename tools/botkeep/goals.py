"""What was promised for a week, and whether it was kept: uptime, recovery, damage seen in time. Pure.

A goal is met or not met only where what was seen proves it, whatever happened in the time that nobody saw. Otherwise
it is not known, and the figure says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal

from .judge import length
from .ledger import Entry, Kind
from .model import Action, Fault, Span
from .uptime import Interruption, Seen, interruptions, not_looked

WEEK = timedelta(days=7)
UPTIME = Decimal("99.5")
RECOVERY = timedelta(minutes=2)
DAMAGE_SEEN = timedelta(hours=1)
MENDING = frozenset({Action.START, Action.RESTART, Action.RESTORE})
AFTER = timedelta(minutes=2)
"""How long after its end an entry about an interruption may be written."""
SHORT = timedelta(hours=1)
"""A week with less than this missing is one."""
MAX_ENTRIES = 6
MAX_BOTS = 3


@dataclass(frozen=True)
class Goal:
    """One promise, the figure that decides it, and the ledger's entries behind that."""

    name: str
    met: bool | None
    """None: what was seen does not decide it."""
    figure: str
    entries: tuple[str, ...] = ()
    bots: tuple[str, ...] = ()
    """That broke it."""

    @property
    def word(self) -> str:
        """met, not met or not known."""
        return {True: "met", False: "not met", None: "not known"}[self.met]


@dataclass(frozen=True)
class Past:
    """One bot's week: what was seen of it, and its entries."""

    bot: str
    seen: Seen
    looks: Sequence[Span]
    """Recorded looks only: what actions saw is not among them."""
    entries: Sequence[Entry]
    began: datetime
    """The week's begin, or the first look ever if that was later."""
    has_data: bool = False


def goals(week: Sequence[Past], now: datetime) -> tuple[Goal, ...]:
    """The three, in the first users' order. Without a bot that was ever looked at none is known."""
    known = [one for one in week if one.began < now]
    return (_uptime(known, now), _recovery(known, now), _damage([one for one in known if one.has_data], now))


def _span_of(week: Iterable[Past], now: datetime) -> str:
    """Where the first look is less than a week ago: so much is all there is."""
    began = min((one.began for one in week), default=now)
    return "" if now - began > WEEK - SHORT else f"; first look {days(now - began)} ago"


def days(span: timedelta) -> str:
    """`2.0 d`, or as `length` says it where that is short."""
    return f"{span / timedelta(days=1):.1f} d" if span >= timedelta(days=2) else length(span)


def exactly(span: timedelta) -> str:
    """`2 min 10 s`: to the second where that decides something."""
    seconds = int(span.total_seconds())
    if not 120 <= seconds < 600:
        return length(span)
    return f"{seconds // 60} min {seconds % 60} s" if seconds % 60 else f"{seconds // 60} min"


def percent(share: Decimal) -> str:
    """To a tenth, rounded down: 100 says that no second of downtime was seen."""
    return format(share.quantize(Decimal("0.1"), ROUND_DOWN), "f").removesuffix(".0")


def _named(bots: Sequence[str]) -> str:
    more = f" and {len(bots) - MAX_BOTS} more" if len(bots) > MAX_BOTS else ""
    return f"{', '.join(bots[:MAX_BOTS])}{more}"


def _all(answers: Iterable[bool | None]) -> bool | None:
    """Met if every one is; not met if one is not; otherwise not known."""
    found = set(answers)
    return False if False in found else None if None in found or not found else True


# --- uptime ------------------------------------------------------------------------------------------------------


def _uptime(week: Sequence[Past], now: datetime) -> Goal:
    """Met only if it would be so were all unknown time downtime; not met only if no unknown uptime could mend it."""
    name = f"uptime over {UPTIME} % a week"
    found = {one.bot: one.seen.within(one.began, now) for one in week}
    ran = {bot: one for bot, one in found.items() if one.at_least is not None}
    judged = {
        bot: True if (one.at_least or 0) > UPTIME else False if (one.at_most or 0) <= UPTIME else None
        for bot, one in ran.items()
    }
    shares = {bot: one.percent for bot, one in ran.items() if one.percent is not None}
    if not shares:
        return Goal(name, None, "nobody saw a bot run")
    lowest = min(shares, key=lambda bot: (shares[bot], bot))
    low = [bot for bot in sorted(judged) if judged[bot] is False]
    figure = f"{percent(shares[lowest] or Decimal(0))}% ({lowest}{', the lowest' * (len(shares) > 1)})"
    unknown = [bot for bot in sorted(judged) if judged[bot] is None]
    if unknown:
        figure += f", and {days(max(ran[bot].unknown for bot in unknown))} of {_named(unknown)} nobody saw"
    broke = [entry for one in week if one.bot in low for entry in _of_all(one, _fell(one, now))]
    met = _all(judged.values())
    return Goal(name, met, figure + _span_of(week, now), tuple(dict.fromkeys(broke))[:MAX_ENTRIES], tuple(low))


def _fell(one: Past, now: datetime) -> list[Interruption]:
    return interruptions(one.seen.stretches, one.began, now)


def _of_all(one: Past, fell: Iterable[Interruption]) -> Iterator[str]:
    for each in sorted(fell, key=lambda each: each.at_most, reverse=True):
        yield from behind(one.entries, each)


def behind(entries: Iterable[Entry], fell: Interruption) -> Iterator[str]:
    """What was told, asked and done about it, by the ids of the entries."""
    for entry in entries:
        told = entry.kind in (Kind.ALERT, Kind.ASK)
        done = entry.kind is Kind.OUTCOME and entry.action in MENDING
        if (told or done) and fell.start <= entry.at <= fell.end + AFTER:
            yield entry.id


# --- recovery ----------------------------------------------------------------------------------------------------


def _recovery(week: Sequence[Past], now: datetime) -> Goal:
    """Each time from the last moment up to the first one up again, if that decides it."""
    name = "recovery under 2 minutes"
    fell = [(one, each) for one in week for each in _fell(one, now)]
    counted = [(one, each) for one, each in fell if each.over or each.down >= RECOVERY]
    if not counted:
        seen = any(one.seen.within(one.began, now).percent is not None for one in week)
        figure = "no bot fell in the time that was seen" if seen else "nobody saw a bot run"
        return Goal(name, True if seen else None, figure + _span_of(week, now) * seen)
    judged = [_in_time(each) for _, each in counted]
    late = [(one, each) for (one, each), good in zip(counted, judged, strict=True) if good is False]
    unsure = [(one, each) for (one, each), good in zip(counted, judged, strict=True) if good is None]
    slowest = max(late or unsure or counted, key=lambda case: case[1].at_most)
    figure = f"{sum(map(bool, judged))} of {len(judged)} in time, the slowest {lasted(slowest[1])} ({slowest[0].bot})"
    order = sorted(late or unsure or [slowest], key=lambda case: case[1].at_most, reverse=True)
    broke = dict.fromkeys(entry for one, each in order for entry in behind(one.entries, each))
    late_bots = tuple(dict.fromkeys(one.bot for one, _ in late))
    return Goal(name, _all(judged), figure + _span_of(week, now), tuple(broke)[:MAX_ENTRIES], late_bots)


def _in_time(fell: Interruption) -> bool | None:
    if fell.down >= RECOVERY:
        return False
    return True if fell.at_most < RECOVERY and fell.over else None


def lasted(fell: Interruption) -> str:
    """How long it was down: so long at least, to so long at most."""
    least, most = exactly(fell.down), exactly(fell.at_most)
    if not fell.over:
        return f"{least} so far"
    if least == most:
        return most
    return f"{least} to {most}" if fell.down else f"at most {most}"


# --- damage ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Damage:
    bot: str
    at: datetime
    after: timedelta | None
    """Since the look before, which did not find it; None: there was none."""
    entries: tuple[str, ...]


def _damage(week: Sequence[Past], now: datetime) -> Goal:
    """Damage is older than the look that found it by the time since the look before, at most."""
    name = "damage to data seen within an hour"
    if not week:
        return Goal(name, None, "no bot with a data file was looked at")
    found = [each for one in week for each in _damages(one, now)]
    if found:
        return _of_damages(name, found)
    unseen = {one.bot: max(not_looked(one.looks, one.began, now), one.seen.max_gap) for one in week}
    longest = max(unseen, key=lambda bot: (unseen[bot], bot))
    gap = unseen[longest]
    if gap > DAMAGE_SEEN:
        return Goal(name, None, f"none was seen, but nobody looked at {longest} for {days(gap)}")
    if now - min(one.began for one in week) < DAMAGE_SEEN:
        return Goal(name, None, f"none was seen{_span_of(week, now)}")
    return Goal(name, True, f"none was seen, looks at most {length(gap)} apart{_span_of(week, now)}")


def _of_damages(name: str, found: Sequence[_Damage]) -> Goal:
    judged = [True if one.after is not None and one.after <= DAMAGE_SEEN else None for one in found]
    latest = max(found, key=lambda one: (one.after is None, one.after or timedelta()))
    after = "there was no look before" if latest.after is None else f"{days(latest.after)} after a look that did not"
    times = "once" if len(found) == 1 else f"{len(found)} times"
    slowest = " at the latest" * (len(found) > 1)
    figure = f"found {times}, {latest.bot}'s{slowest} {after}" if latest.after is not None else (
        f"found {times}; of {latest.bot}'s {after}"
    )  # fmt: skip
    behind = dict.fromkeys(entry for one in found for entry in one.entries)
    return Goal(name, _all(judged), figure, tuple(behind)[:MAX_ENTRIES])


def _damages(one: Past, now: datetime) -> Iterator[_Damage]:
    before: Span | None = None
    for span in one.looks:
        damaged = span.fault is Fault.DATA_CORRUPT
        if damaged and span.first >= one.began and (before is None or before.fault is not Fault.DATA_CORRUPT):
            after = max(timedelta(), span.first - before.last) if before else None
            end = min(now, span.last + DAMAGE_SEEN)
            yield _Damage(one.bot, span.first, after, tuple(_about_damage(one.entries, span.first, end)))
        before = span


def _about_damage(entries: Iterable[Entry], start: datetime, end: datetime) -> Iterator[str]:
    """Alerts and restores of that damage."""
    for entry in entries:
        restored = entry.kind is Kind.OUTCOME and entry.action == Action.RESTORE
        told = entry.kind is Kind.ALERT and entry.data.get("fault") == Fault.DATA_CORRUPT.value
        if (restored or told) and start <= entry.at <= end:
            yield entry.id
