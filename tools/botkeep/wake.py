"""Waking an assistant for what needs judgement: once for an incident, with all that is known of it, or people instead.

A round acts by playbook without a model. What it cannot do is told to the command that `wake` of bots.json names: a
playbook that asks, a bot that nothing brings back, an end that no line explains. Where the command fails, hangs or was
called too often, people are told that, and what it was about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from .alert_life import CALM, OFTEN, RECENTLY
from .bench import Bench
from .durable import Lock
from .history import incident_began
from .incidents import Incident
from .ledger import Entry, Kind
from .model import (
    Action,
    ActionReport,
    Actor,
    EngineError,
    Fault,
    History,
    LedgerError,
    Result,
    Status,
    Verdict,
    iso,
    parse_iso,
)
from .playbooks import Policy
from .untrusted import clean
from .wake_command import SECONDS, Woken

CURSOR = "wakes"
KEPT_FOR = timedelta(days=8)
HOUR = timedelta(hours=1)
LOST_AFTER = timedelta(seconds=SECONDS + 60)
"""Whoever made the call has said nothing for so long: it was killed."""
FAILURES = 2
"""Starts within one incident that did not last, after which the next one needs a reason."""
LOCK_SECONDS = 5.0
MOST_DEEDS = 10

Claim = dict[str, Any]
"""One wake in the ledger's cursor: id, incident, fault, bots, sentence, saw, at, alive, made, over."""


@dataclass(frozen=True)
class Call:
    """One wake that was claimed: nobody else makes it. `refused`: it is not made, and people are told why."""

    incident: str
    bots: tuple[str, ...]
    fault: Fault | None
    why: str
    sentence: str
    packet: str = ""
    refused: str = ""
    id: str = ""
    """Of the claim."""
    saw: datetime | None = None
    """When the bot was looked at."""
    since: datetime | None = None
    """When what several bots share began."""


# ---------------------------------------------------------------------------------------------------- what needs it


def needed(
    verdicts: Iterable[Verdict],
    actions: Iterable[ActionReport],
    found: Sequence[Incident],
    policies: Mapping[Fault, Policy],
    histories: Mapping[str, History],
) -> Iterator[Call]:
    """What code alone cannot decide; several bots with one cause are one. Pure."""
    done = {one.bot: one for one in actions}
    seen: set[str] = set()
    for verdict in verdicts:
        fault = verdict.fault
        if verdict.status is not Status.FAULTY or not verdict.confirmed or fault is None:
            continue
        why = _why(verdict, done.get(verdict.bot), policies[fault], histories.get(verdict.bot, History()))
        shared = next((one for one in found if verdict.bot in one.bots), None)
        key = shared.id if shared else f"{verdict.bot}:{fault.value}"
        if not why or key in seen:
            continue
        seen.add(key)
        if shared is None:
            yield Call(key, (verdict.bot,), fault, why, verdict.sentence, saw=verdict.at)
        else:
            bots = (verdict.bot, *(bot for bot in shared.bots if bot != verdict.bot))
            yield Call(key, bots, fault, why, shared.sentence, saw=verdict.at, since=shared.since)


def _why(verdict: Verdict, action: ActionReport | None, policy: Policy, past: History) -> str:
    """Why it needs judgement; empty: code goes on by itself, or a clock says when."""
    if policy.mode == "ask" or (action and action.result is Result.ASKED):
        return f"The playbook {policy.fault.value} leaves the decision to somebody who understands it."
    if action and action.result is Result.REFUSED and action.earliest is None:
        return f"Nothing more is done by itself: {action.sentence}"
    began = incident_began(verdict, past)
    failed = [one for one in past.restarts if one.ok is False and one.at >= began - HOUR]
    if action and action.result is Result.FAILED and len(failed) >= FAILURES:
        return f"{len(failed)} starts did not last: {action.sentence}"
    if any(one.rule == "silent-exit" for one in verdict.evidence):
        return "It ended with an error, and no line that is known explains it."
    return ""


# ---------------------------------------------------------------------------------------------------- claiming


def claim(bench: Bench, wanted: Iterable[Call], histories: Mapping[str, History]) -> list[Call]:
    """Those of these that nobody made since their incident began, now ours. Raises LedgerError.

    One that was claimed by somebody who was killed before it was over is given back as refused: people are told.
    """
    now = bench.clock()
    with _claims(bench, now) as kept:
        ours = [_lost(one) for one in kept if _is_lost(one, now)]
        for one in kept:
            one["over"] = one["over"] or _is_lost(one, now)
        for call in wanted:
            if any(_stands(one, call, histories, kept, now) for one in kept):
                continue
            made = [one for one in kept if one["made"] and now - parse_iso(one["at"]) < HOUR]
            if len(made) >= bench.fleet.wakes_per_hour:
                often = f"it was woken {len(made)} times within an hour, and wakes_per_hour is that"
                call = replace(call, refused=often)
            call = replace(call, id=f"{call.incident} {iso(now)}")
            kept.append(_claim_of(call, now))
            ours.append(call)
    return ours


@contextmanager
def _claims(bench: Bench, now: datetime) -> Iterator[list[Claim]]:
    """All claims of the last days, for whoever holds the lock; kept when the block ends. Raises LedgerError.

    Without the lock nothing is claimed: two who claim at once would wake twice. The next round comes soon.
    """
    with Lock(bench.fleet.workspace.state_dir / "wake.lock") as lock:
        try:
            held = lock.acquire(wait=LOCK_SECONDS)
        except EngineError as error:
            raise LedgerError(f"No assistant is woken: {error}") from error
        if not held:
            raise LedgerError(
                f"No assistant is woken: another process holds {lock.path.name} for {LOCK_SECONDS:.0f} s."
            )
        stored = (bench.ledger.cursor("", CURSOR) or {}).get("claims", [])
        kept = [_rebased(one, now) for one in stored if now - parse_iso(one["at"]) < KEPT_FOR]
        yield kept
        bench.ledger.set_cursor("", CURSOR, {"claims": kept})


def _rebased(kept: Claim, now: datetime) -> Claim:
    """With no time in the future: a clock that was set back must not hold a wake back."""
    return {**kept, **{name: iso(min(parse_iso(kept[name]), now)) for name in ("at", "saw", "alive")}}


def _claim_of(call: Call, now: datetime) -> Claim:
    return {
        "id": call.id, "incident": call.incident, "fault": call.fault.value if call.fault else None,
        "bots": list(call.bots), "sentence": call.sentence, "saw": iso(call.saw or now), "at": iso(now),
        "alive": iso(now), "made": not call.refused, "over": bool(call.refused),
    }  # fmt: skip


def _stands(kept: Claim, call: Call, histories: Mapping[str, History], all_: Sequence[Claim], now: datetime) -> bool:
    """Whether this claim was made for the incident that `call` is about, which then is not over.

    A cause that more and more bots share, or fewer and fewer, is the same incident by the bots that it has kept.
    """
    saw = parse_iso(kept["saw"])
    both = [bot for bot in call.bots if bot in kept["bots"]]
    if kept["incident"] != call.incident and (not both or kept["fault"] != (call.fault and call.fault.value)):
        return False
    if call.since is not None and call.since <= saw:
        return True
    often = sum(1 for one in all_ if set(both) & {*one["bots"]} and now - parse_iso(one["at"]) < RECENTLY) >= OFTEN
    calm, at = CALM if often else timedelta(), parse_iso(kept["at"])
    return any(not _was_well(histories.get(bot, History()), saw, at, calm) for bot in both)


def _was_well(past: History, saw: datetime, claimed: datetime, calm: timedelta) -> bool:
    """Whether it became healthy after that look, and was still so after the claim: what a slow look of before its end
    writes down late is no recovery. One that comes and goes has to stay well for a while."""
    well = [one for one in past.spans if one.status is Status.HEALTHY and one.first > saw and one.last > claimed]
    return any(span.last - span.first >= calm for span in well)


def _is_lost(kept: Claim, now: datetime) -> bool:
    return not kept["over"] and now - parse_iso(kept["alive"]) > LOST_AFTER


def _lost(kept: Claim) -> Call:
    why = "whoever woke it was killed meanwhile"
    return Call(kept["incident"], tuple(kept["bots"]), None, "", kept["sentence"], refused=why, id=kept["id"])


def still_ours(bench: Bench, calls: Iterable[Call]) -> None:
    """These wait for their turn, and whoever makes them lives. Raises LedgerError."""
    now, ours = bench.clock(), {one.id for one in calls}
    with _claims(bench, now) as kept:
        for one in kept:
            if one["id"] in ours:
                one["alive"] = iso(now)


def over(bench: Bench, call: Call) -> None:
    """It is settled. Raises LedgerError."""
    with _claims(bench, bench.clock()) as kept:
        for one in kept:
            one["over"] = one["over"] or one["id"] == call.id


# ---------------------------------------------------------------------------------------------------- recording


def newest(bench: Bench) -> int:
    """The ledger's end before a call: what comes after it may be the assistant's. Raises LedgerError."""
    return next((one.seq for one in bench.ledger.entries(limit=1, newest_first=True)), 0)


def record(bench: Bench, call: Call, woken: Woken, began: int = 0) -> Entry:
    """One note with what it cost and, after entry number `began`, what the assistant did for these bots; and people
    are told where it did not work. Raises LedgerError."""
    names = ", ".join(call.bots[:5])
    did = _deeds(bench, call, began)
    data = {
        "incident": call.incident, "bots": list(call.bots), "fault": call.fault.value if call.fault else None,
        "exit": woken.exit, "seconds": round(woken.seconds, 1), "ok": not woken.trouble, "tokens": woken.tokens,
        "cost": str(woken.cost) if woken.cost is not None else None, "said": woken.said, "trouble": woken.trouble,
        "did": [one.id for one in did],
    }  # fmt: skip
    tokens = f", {woken.tokens} tokens" if woken.tokens is not None else ""
    cost = f", {woken.cost} USD" if woken.cost is not None else ""
    how = woken.trouble or f"it ended well after {woken.seconds:.0f} s"
    deeds = f" It did: {', '.join(f'{_deed(one)} ({one.id})' for one in did[:MOST_DEEDS])}." if did else ""
    entry = bench.journal.record(
        Kind.NOTE, at=bench.clock(), bot=call.bots[0] if len(call.bots) == 1 else None, action=Action.NOTE.value,
        actor=bench.actor.value, sentence=f"The assistant was woken for {names}: {how}{tokens}{cost}.{deeds}",
        data={"wake": data},
    )  # fmt: skip
    over(bench, call)
    if woken.trouble:
        _tell(bench, call, f"{names} needs you: the assistant could not help ({woken.trouble}).")
    return entry


def _deeds(bench: Bench, call: Call, began: int) -> list[Entry]:
    """What an assistant did for these bots since then."""
    kinds = [Kind.OUTCOME, Kind.NOTE, Kind.ASK]
    found = bench.ledger.entries(after_seq=began, kinds=kinds) if began else []
    return [one for one in found if one.actor == Actor.ASSISTANT.value and one.bot in call.bots]


def _deed(entry: Entry) -> str:
    asked = "asked to " if entry.kind is Kind.ASK else ""
    failed = f", {entry.result}" if entry.result and entry.result != Result.DONE.value else ""
    return f"{asked}{entry.action} {entry.bot}{failed}"


def refuse(bench: Bench, call: Call) -> None:
    """It is not made: people are told at once, and why. Raises LedgerError."""
    _tell(bench, call, f"{', '.join(call.bots[:5])} needs you: the assistant was not woken ({call.refused}).")
    over(bench, call)


def _tell(bench: Bench, call: Call, text: str) -> None:
    from . import alert_text, telling

    telling.post(bench, text, alert_text.plain_message("critical", text, [text, clean(call.sentence, 400)], []))
