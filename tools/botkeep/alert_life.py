"""The life of an incident: when people are reminded of it, when it is over, and in which words. Pure.

It ends when its bot is healthy again or was stopped on purpose, or is configured no more; one that several bots have,
when that is true of all of them. A bot that comes and goes is told to be well only when it has stayed so for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from .judge import length
from .ledger import Entry, Kind
from .model import Action, Actor, History, Result, Span, Status, Verdict, Wanted
from .open_alerts import Open

GAPS = (timedelta(minutes=30), timedelta(minutes=90), timedelta(hours=4))
"""Between the alert and the 1st reminder, the 1st and the 2nd, ...: at 30 min, 2 h and 6 h."""
LAST_GAP = timedelta(hours=24)
SOON = timedelta(minutes=5)
"""From the moment at which further bots join to the first reminder."""
OFTEN = 2
"""Incidents of one bot that ended within `RECENTLY`: from then on it has to stay well for `CALM`."""
RECENTLY = timedelta(hours=2)
CALM = timedelta(minutes=10)
BEFORE = timedelta(seconds=2)
"""A deed this long before the incident was first seen belongs to it: clocks are read apart. An earlier one was done
for something else."""
MOST_DEEDS = 8
_DONE = {
    Action.START: "started", Action.RESTART: "restarted", Action.RESTORE: "data restored", Action.STOP: "stopped",
    Action.POLL: "polling changed",
}  # fmt: skip


class End(StrEnum):
    """Why an incident is over."""

    WELL = "well"
    STOPPED = "stopped"
    GONE = "gone"
    """Not configured any more."""
    AGAIN = "again"
    """It was well in between, and something is wrong again: another incident."""


@dataclass(frozen=True)
class Ending:
    """How and when an incident was over."""

    why: End
    at: datetime
    by: str = ""
    """Who stopped the bot, and when."""


@dataclass(frozen=True)
class Now:
    """How the bots are, after what was done in this round."""

    verdicts: Mapping[str, Verdict]
    """Of the bots that were looked at."""
    histories: Mapping[str, History]
    configured: frozenset[str]
    standing: frozenset[str]
    """Ids of what several bots have at once."""
    now: datetime
    newly_seen: frozenset[str] = frozenset()
    """Bots that were not looked at now, and whose newest look says what they share with others."""

    def last_seen(self, bot: str) -> Status | None:
        """As this look says, else as the newest one did."""
        if bot in self.verdicts:
            return self.verdicts[bot].status
        spans = self.histories.get(bot, History()).spans
        return spans[-1].status if spans else None


# --- reminders ---------------------------------------------------------------------------------------------------


def reminder_due(one: Open, now: datetime) -> bool:
    """Whether it has stood long enough since something was said of it."""
    gap = GAPS[one.reminders] if one.reminders < len(GAPS) else LAST_GAP
    return now - one.last >= gap


def reminded_soon(one: Open, now: datetime) -> Open:
    """With its first reminder after some minutes: its alert did not name all of its bots."""
    return replace(one, last=min(one.last, now - GAPS[0] + SOON)) if not one.reminders else one


def rebased(one: Open, now: datetime) -> Open:
    """With times that are not in the future: a clock that was set back must not silence anybody for an hour."""
    return replace(one, told=min(one.told, now), last=min(one.last, now), began=min(one.began, now))


def reminder(one: Open, sentence: str, now: datetime) -> str:
    """`Still, after 2.0 h: doge is down.`"""
    return f"Still, after {length(now - one.began)}: {sentence}"


# --- the end -----------------------------------------------------------------------------------------------------


def ending(one: Open, here: Now, ended: Sequence[Entry] = ()) -> Ending | None:
    """How it is over; None: it is not. `ended`: the ledger's entries of incidents that ended lately."""
    present = [bot for bot in one.bots if bot in here.configured]
    if not present:
        return Ending(End.GONE, here.now)
    if one.incident:
        looked_at = all(bot in here.verdicts or bot in here.newly_seen for bot in present)
        if not looked_at or one.incident in here.standing:
            return None
    ends = [found for bot in present if (found := _of_bot(one, bot, here, ended))]
    if len(ends) < len(present):
        return None
    return max(ends, key=lambda end: (end.why is End.WELL, end.at))


def _of_bot(one: Open, bot: str, here: Now, ended: Sequence[Entry]) -> Ending | None:
    past, status = here.histories.get(bot, History()), here.last_seen(bot)
    calm = CALM if _often(bot, ended, here.now) else timedelta()
    if status is Status.STOPPED or (status is Status.UNKNOWN and past.wanted is Wanted.DOWN):
        return Ending(End.STOPPED, here.now, past.wanted_by)
    if status is Status.HEALTHY and not _seen_worse(here.verdicts.get(bot), past.spans):
        since = _well_since(past.spans, here.now)
        return Ending(End.WELL, max(since, one.began)) if here.now - since >= calm else None
    look = here.verdicts.get(bot)
    until = look.at if look else here.now  # what somebody saw after it, it cannot be wrong again since
    between = [span for span in past.spans if span.status is Status.HEALTHY and one.told < span.first < until]
    if between and not calm and not one.incident:
        return Ending(End.AGAIN, between[0].first)
    return None


def is_outdated(look: Verdict, ended: Iterable[Entry]) -> bool:
    """Whether people were told, after this look, that it is over: another round had repaired what it saw."""
    return any(one.at >= look.at and look.bot in _resolved_bots(one) for one in ended)


def _resolved_bots(entry: Entry) -> Sequence[str]:
    found = entry.data.get("resolved")
    return found.get("bots", ()) if isinstance(found, dict) else ()


def _seen_worse(look: Verdict | None, spans: Sequence[Span]) -> bool:
    """Whether somebody else has seen it otherwise since this look."""
    newest = spans[-1] if spans else None
    return look is not None and newest is not None and newest.status is not Status.HEALTHY and newest.last > look.at


def _well_since(spans: Sequence[Span], now: datetime) -> datetime:
    since = now
    for span in reversed(spans):
        if span.status is not Status.HEALTHY:
            break
        since = min(since, span.first)
    return since


def _often(bot: str, ended: Iterable[Entry], now: datetime) -> bool:
    lately = [one for one in ended if bot in _resolved_bots(one) and now - one.at <= RECENTLY]
    return len(lately) >= OFTEN


def resolved(one: Open, end: Ending, deeds: Sequence[Entry]) -> str:
    """`doge: resolved after 4 s: restarted (e12).`"""
    who = one.bot or ", ".join(one.bots)
    lasted = length(max(timedelta(), end.at - one.began))
    if end.why is End.GONE:
        return f"{who}: over after {lasted}: not in config/bots.json any more."
    if end.why is End.STOPPED:
        by = f" ({end.by})" if end.by else ""
        return f"{who}: over after {lasted}: stopped on purpose{by}."
    done = _done(deeds, several=not one.bot)
    again = " Something is wrong again; that is told by itself." if end.why is End.AGAIN else ""
    return f"{who}: resolved after {lasted}: {done or 'not by an action of botkeep'}.{again}"


def _done(deeds: Sequence[Entry], *, several: bool) -> str:
    words = [_deed(one, several=several) for one in deeds]
    more = len(words) - MOST_DEEDS
    return ", ".join(words[-MOST_DEEDS:]) + (f" and {more} earlier" if more > 0 else "")


def _deed(one: Entry, *, several: bool) -> str:
    what = _DONE[Action(one.action)]
    by = " by its engine" if one.actor == Actor.ENGINE else ""
    return f"{one.bot} {what}{by} ({one.id})" if several else f"{what}{by} ({one.id})"


def deeds_of(one: Open, entries: Iterable[Entry]) -> list[Entry]:
    """What was done about it: of the entries of its bots since it began, the outcomes.

    What was begun before it and ended before people knew of it was done for something else: the start from which the
    bot came up, a second before it crashed.
    """
    found = [entry for entry in entries if entry.bot in one.bots and entry.at >= one.began - BEFORE]
    begun = {entry.id for entry in found if entry.kind is Kind.INTENT}
    return [
        entry
        for entry in found
        if entry.kind is Kind.OUTCOME
        and (entry.ref is None or entry.ref in begun or entry.at >= one.told)
        and entry.result == Result.DONE
        and entry.action in {action.value for action in _DONE}
    ]
