"""What the ledger says about one bot, read for `judge`: pure functions of entries, spans and `now`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from .ledger import Entry, Kind
from .model import Action, Actor, Approval, History, Restart, Span, Verdict, Wanted

STARTING_ACTIONS = frozenset({Action.START, Action.RESTART})
APPROVAL_LASTS = timedelta(hours=1)
"""A person approves what stands now, not whatever may stand tomorrow."""


def history(entries: Sequence[Entry], spans: Sequence[Span], now: datetime) -> History:
    """What the ledger's entries of one bot (oldest first) and its spans say, as `decide` and `permit` need it."""
    outcomes = {entry.ref: entry for entry in entries if entry.kind is Kind.OUTCOME and entry.ref}
    wanted, wanted_by = _wanted(entries)
    return History(
        wanted=wanted,
        wanted_by=wanted_by,
        restarts=tuple(_restarts(entries, outcomes)),
        spans=tuple(spans),
        approvals=_open_approvals(entries, now),
    )


def _wanted(entries: Sequence[Entry]) -> tuple[Wanted, str]:
    """Stop sets down; only an explicit start or restart sets up; rounds never do."""
    for entry in reversed(entries):
        if entry.kind is not Kind.INTENT:
            continue
        if entry.action == Action.STOP:
            return Wanted.DOWN, f"stopped by {_who(entry.actor)} at {clock(entry.at)}: {entry.sentence}"
        if entry.action in STARTING_ACTIONS and entry.actor != Actor.ROUND:
            return Wanted.UP, f"started by {_who(entry.actor)} at {clock(entry.at)}"
    return Wanted.UP, ""


def _who(actor: str) -> str:
    return {"person": "a person", "assistant": "the assistant", "round": "a round"}.get(actor, actor)


def clock(at: datetime) -> str:
    """To the minute, for a sentence."""
    return at.strftime("%Y-%m-%d %H:%MZ")


def _restarts(entries: Sequence[Entry], outcomes: Mapping[str, Entry]) -> Iterable[Restart]:
    """Starts that were made or are being made; one that was interrupted before it started anything is none."""
    for entry in entries:
        if entry.kind is not Kind.INTENT or entry.action not in STARTING_ACTIONS:
            continue
        outcome = outcomes.get(entry.id)
        if outcome is not None and outcome.data.get("attempted") is False:
            continue
        yield Restart(
            at=entry.at,
            entry=entry.id,
            actor=Actor(entry.actor),
            after_fault=bool(entry.data.get("after_fault", True)),
            ok=None if outcome is None else outcome.result == "done",
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


def failures_in_a_row(past: History, reset_after: timedelta, now: datetime) -> list[Restart]:
    """The restarts after faults since the bot last stayed up for `reset_after`, oldest first."""
    counted = [one for one in past.restarts if one.after_fault]
    ends = [*(one.at for one in counted[1:]), now]
    streak: list[Restart] = []
    for restart, end in reversed(list(zip(counted, ends, strict=False))):
        if up_between(past.spans, restart.at, end) >= reset_after:
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
    """When the standing stretch of this fault was first seen, or when the bot went down if that is known."""
    began = verdict.at
    for span in reversed(past.spans):
        if span.fault is not verdict.fault:
            break
        began = span.first
    return min(began, verdict.down_since or began)
