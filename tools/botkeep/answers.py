"""Answers of actions that did nothing: refused, asked of a person, too late in this call."""

from __future__ import annotations

from typing import Any

from . import history as past
from .bench import Case
from .history import clock
from .ledger import Kind
from .looking import confirmed_cursor
from .model import Action, ActionReport, Actor, Fault, Permit, Result, Verdict
from .overlay import step
from .untrusted import clean


def later(case: Case, verdict: Verdict) -> ActionReport:
    """Nothing was done, for want of time in this call; a confirmed verdict is kept for the next one."""
    if verdict.confirmed:
        case.bench.ledger.set_cursor(case.bot.name, "confirmed", confirmed_cursor(verdict))
        why = "That is confirmed, but this call has too little time left to stop it gracefully"
    else:
        why = "That is suspected only, and this call has too little time left for the second look"
    sentence = f"{case.bot.name}: {verdict.sentence.rstrip('.')}. {why}; nothing was done. Ask again at once."
    return case.report(Result.BUSY, sentence, fault=verdict.fault, playbook=verdict.fault)


def intent_data(verdict: Verdict, allowed: Permit, override: str | None) -> dict[str, Any]:
    """What an intent says besides its reason: what was found, and what made it possible."""
    data: dict[str, Any] = {
        "fault": verdict.fault.value if verdict.fault else None,
        "found": verdict.sentence,
    }
    if allowed.approval:
        data["approval"] = allowed.approval
    if override:
        data["override"] = clean(override)
    return data


def refused(case: Case, refusal: Permit, verdict: Verdict | None = None) -> ActionReport:
    """The permit's no, with what has to happen first."""
    earliest = f" Earliest: {clock(refusal.earliest)}." if refusal.earliest else ""
    until = f" Not before {refusal.until}." if refusal.until else ""
    what = DONE_TO_IT[case.action]
    return case.report(
        Result.REFUSED,
        f"{case.bot.name} was not {what}: {refusal.reason.rstrip('.')}.{earliest}{until}{_step(case, verdict)}"
        f"{may_override(case)}",
        earliest=refusal.earliest,
        until=refusal.until,
        fault=verdict.fault if verdict else None,
        playbook=refusal.playbook,
    )


DONE_TO_IT = {
    Action.START: "started",
    Action.RESTART: "restarted",
    Action.RESTORE: "restored",
    Action.POLL: "told to poll less",
}


def _step(case: Case, verdict: Verdict | None) -> str:
    """What is done about a rate limit instead: whoever was refused need not look for it."""
    limited = verdict is not None and Fault.API_RATE_LIMITED in verdict.faults
    return f" {step(case.bot, case.bench.ledger)}" if limited else ""


def may_override(case: Case) -> str:
    """What a person can do about it, and nobody else."""
    person = case.bench.actor is Actor.PERSON and case.action is not Action.RESTORE and case.bot.runtime is not None
    return " You can lift this with --override REASON." if person else ""


def ask(case: Case, verdict: Verdict, refusal: Permit) -> ActionReport:
    """One open question per bot, action and fault: asked again, it is the same one."""
    fault = refusal.playbook or Fault.BOT_NOT_RUNNING.value  # as the permit will look for it
    since = case.bench.clock() - past.APPROVAL_LASTS
    asked = case.bench.ledger.entries(bot=case.bot.name, kinds=[Kind.ASK, Kind.APPROVAL], since=since)
    answered = {entry.ref for entry in asked if entry.kind is Kind.APPROVAL}
    same = [
        one for one in asked if one.kind is Kind.ASK and one.action == case.action and one.data.get("fault") == fault
    ]
    entry = next((one for one in same if one.id not in answered), None)
    if entry is None:
        what = DONE_TO_IT[case.action]
        text = f"{case.bot.name}: may it be {what}? {verdict.sentence} (`botkeep approve` with the id of this entry.)"
        entry = case.record(Kind.ASK, text, data={"fault": fault})
    sentence = (
        f"{case.bot.name} was not {DONE_TO_IT[case.action]}: {refusal.reason}. A person approves it with "
        f"`botkeep approve {entry.id}` within the hour; then ask again.{may_override(case)}"
    )
    return case.report(
        Result.ASKED, sentence, approval=entry.id, fault=verdict.fault, playbook=refusal.playbook, until=refusal.until
    )
