"""What the ledger says about one bot, read for `judge`: pure functions of entries, spans and `now`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import takewhile

from .ledger import Entry, Kind
from .model import Action, Actor, Approval, Fault, History, Hold, PersonStop, Restart, Result, Span, Verdict, Wanted

STARTING_ACTIONS = frozenset({Action.START, Action.RESTART})
WISHES = STARTING_ACTIONS | {Action.STOP}
APPROVAL_LASTS = timedelta(hours=1)
"""A person approves what stands now, not whatever may stand tomorrow."""
MOST_AT_ONCE = 1000
CLOCK_TRUST = timedelta(hours=2)
"""An entry this far in the future was written by a clock that was wrong; nearer ones may be a step of NTP."""


def history(
    entries: Sequence[Entry],
    spans: Sequence[Span],
    now: datetime,
    wish: Entry | None = None,
    kept: Hold | None = None,
    runaway: frozenset[int] = frozenset(),
) -> History:
    """What the ledger's entries of one bot (oldest first) and its spans say, as `decide` and `permit` need it.

    `wish`: the newest intent that says whether the bot is wanted up or down, where the entries do not reach back to it.
    `kept`: the same of a round's stop. `runaway`: the hours whose trades such stops were made for.
    """
    outcomes = {entry.ref: entry for entry in entries if entry.kind is Kind.OUTCOME and entry.ref}
    held = _held(entries, outcomes) or kept
    held = None if held and wish and wish.action != Action.STOP and wish.at >= held.at else held
    wishes = list(_wishes(_in_order(entries, wish)))
    standing = _standing(wishes)
    wanted, wanted_by = _wanted(standing)
    return History(
        wanted=wanted,
        wanted_by=wanted_by,
        wanted_since=_wanted_since(wishes),
        restarts=tuple(_restarts(entries, outcomes, now)),
        restores=tuple(_attempts(entries, outcomes, frozenset({Action.RESTORE}), now)),
        spans=tuple(spans),
        approvals=_open_approvals(entries, now),
        held=held,
        person_stop=_person_stop(standing, outcomes),
        traded_anew=_traded_anew(entries, outcomes, held),
        runaway_hours=runaway,
    )


def _in_order(entries: Sequence[Entry], wish: Entry | None) -> Sequence[Entry]:
    """As they were written: one made while the clock was far behind is the newest, whatever its time is."""
    if wish is None or any(one.seq == wish.seq for one in entries):
        return entries
    return sorted((wish, *entries), key=lambda one: one.seq)


def _wishes(entries: Iterable[Entry]) -> Iterable[Entry]:
    """Intents that say what the bot is wanted to be: starts and stops that are not a round's."""
    for entry in entries:
        if entry.kind is Kind.INTENT and entry.actor != Actor.ROUND and entry.action in WISHES:
            yield entry


def _standing(wishes: Sequence[Entry]) -> Entry | None:
    """The newest; of several stops in a row a person's, which no assistant's takes back."""
    if not wishes or wishes[-1].action != Action.STOP:
        return wishes[-1] if wishes else None
    stops = list(takewhile(lambda one: one.action == Action.STOP, reversed(wishes)))
    return next((one for one in stops if one.actor == Actor.PERSON), stops[0])


def _wanted_since(wishes: Sequence[Entry]) -> datetime | None:
    starts = list(takewhile(lambda one: one.action != Action.STOP, reversed(wishes)))
    return starts[-1].at if starts and len(starts) < len(wishes) else None


def _wanted(wish: Entry | None) -> tuple[Wanted, str]:
    """Stop sets down; only an explicit start or restart sets up; rounds never do."""
    if wish is None:
        return Wanted.UP, ""
    if wish.action == Action.STOP:
        return Wanted.DOWN, f"stopped by {_who(wish.actor)} at {clock(wish.at)}: {wish.sentence}"
    return Wanted.UP, f"started by {_who(wish.actor)} at {clock(wish.at)}"


def _person_stop(wish: Entry | None, outcomes: Mapping[str, Entry]) -> PersonStop | None:
    if wish is None or wish.action != Action.STOP or wish.actor != Actor.PERSON:
        return None
    outcome = outcomes.get(wish.id)  # none: it is older than these entries, and was settled long ago
    return PersonStop(wish.at, wish.sentence, outcome is not None and outcome.result != Result.DONE)


def _held(entries: Sequence[Entry], outcomes: Mapping[str, Entry]) -> Hold | None:
    """The newest stop that a round made, unless somebody has started the bot since."""
    for entry in reversed(entries):
        if entry.kind is not Kind.INTENT:
            continue
        if entry.action == Action.STOP and entry.actor == Actor.ROUND:
            return hold_of(entry)
        if _is_started(entry, outcomes):
            return None
    return None


def hold_of(entry: Entry) -> Hold:
    """A round's stop, from its intent."""
    fault = Fault(entry.data.get("fault") or Fault.TRADING_TOO_OFTEN)
    return Hold(entry.at, entry.id, fault, str(entry.data.get("found") or entry.sentence))


def _is_started(entry: Entry, outcomes: Mapping[str, Entry]) -> bool:
    """Whether somebody, not a round, started the bot by it."""
    if entry.action not in STARTING_ACTIONS or entry.actor == Actor.ROUND:
        return False
    outcome = outcomes.get(entry.id)
    return outcome is None or outcome.data.get("attempted") is not False


def _traded_anew(entries: Sequence[Entry], outcomes: Mapping[str, Entry], held: Hold | None) -> datetime | None:
    """When somebody last started what a round had stopped, or lifted its playbook; or when a round stopped it."""
    anew, waits = None, False
    for entry in entries:
        if entry.kind is Kind.INTENT and entry.action == Action.STOP and entry.actor == Actor.ROUND:
            waits = True
        elif entry.kind is Kind.INTENT and (waits or "override" in entry.data) and _is_started(entry, outcomes):
            anew, waits = entry.at, False
    return held.at if held else anew


def _who(actor: str) -> str:
    return {"person": "a person", "assistant": "the assistant", "round": "a round"}.get(actor, actor)


def clock(at: datetime) -> str:
    """To the minute, for a sentence."""
    return at.strftime("%Y-%m-%d %H:%MZ")


def _restarts(entries: Sequence[Entry], outcomes: Mapping[str, Entry], now: datetime) -> Iterable[Restart]:
    """Starts that were made or are being made, and those that a restore made at its end."""
    restored = {entry.id for entry in entries if entry.action == Action.RESTORE}
    started = {ref for ref, one in outcomes.items() if one.data.get("started")}
    made = [
        one
        for one in _attempts(entries, outcomes, STARTING_ACTIONS | {Action.RESTORE}, now)
        if one.entry not in restored or one.entry in started
    ]
    yield from sorted([*made, *_by_an_engine(entries)], key=lambda one: one.at)


def _by_an_engine(entries: Sequence[Entry]) -> Iterable[Restart]:
    """What Docker or a supervisor restarted by itself: each is one, however few looks saw them."""
    for entry in entries:
        if entry.kind is Kind.OUTCOME and entry.actor == Actor.ENGINE:
            one = Restart(at=entry.at, entry=entry.id, actor=Actor.ENGINE, after_fault=True, ok=True)
            yield from [one] * min(int(entry.data.get("times", 1)), MOST_AT_ONCE)


def _attempts(
    entries: Sequence[Entry], outcomes: Mapping[str, Entry], actions: frozenset[Action], now: datetime
) -> Iterable[Restart]:
    """Actions that were begun; one that was interrupted before it did anything is none."""
    for entry in entries:
        if entry.kind is not Kind.INTENT or entry.action not in actions:
            continue
        outcome = outcomes.get(entry.id)
        if outcome is not None and outcome.data.get("attempted") is False:
            continue
        yield Restart(
            # Written while the clock was far ahead: when it was is not known, only that it is over.
            at=entry.at if entry.at <= now + CLOCK_TRUST else now - CLOCK_TRUST,
            entry=entry.id,
            actor=Actor(entry.actor),
            after_fault=bool(entry.data.get("after_fault", True)),
            ok=None if outcome is None else outcome.result == "done",
            fresh=bool(entry.data.get("fresh")),
        )


def _open_approvals(entries: Sequence[Entry], now: datetime) -> tuple[Approval, ...]:
    """What a person approved, not longer ago than an hour, that no intent has used yet."""
    asked = {entry.id: entry for entry in entries if entry.kind is Kind.ASK}
    used = {str(entry.data["approval"]) for entry in entries if entry.data.get("approval")}
    given = (one for one in entries if one.kind is Kind.APPROVAL and one.id not in used)
    return tuple(
        Approval(one.id, Action(ask.action), str(ask.data.get("fault", "")))
        for one in given
        if now - one.at <= APPROVAL_LASTS and (ask := asked.get(one.ref or ""))
    )


def in_a_row(counted: Sequence[Restart], spans: Sequence[Span], reset_after: timedelta, now: datetime) -> list[Restart]:
    """Those of these restarts (oldest first) since which the bot did not stay up for `reset_after`."""
    ends = [*(one.at for one in counted[1:]), now]
    streak: list[Restart] = []
    for restart, end in reversed(list(zip(counted, ends, strict=False))):
        if up_between(spans, restart.at, end) >= reset_after:
            break
        streak.insert(0, restart)
    return streak


def up_between(spans: Sequence[Span], start: datetime, end: datetime) -> timedelta:
    """How long the bot was seen up within [start, end): unseen time does not count."""
    total = timedelta()
    for span in spans:
        if span.up:
            total += max(timedelta(), min(span.last, end) - max(span.first, start))
    return total


def incident_began(verdict: Verdict, past: History) -> datetime:
    """When the standing stretch of this fault was first seen, or when the bot went down if that is known.

    The earliest time there is: after a clock was set back, an older look has the later one.
    """
    began = verdict.at
    for span in reversed(past.spans):
        if span.fault is not verdict.fault:
            break
        began = min(began, span.first)
    return min(began, verdict.down_since or began)
