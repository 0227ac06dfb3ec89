"""May this action run now? Pure, and the same for models, people and code."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from .history import clock, in_a_row
from .judge import ANOTHER_COPY, HELD, length
from .model import Action, Actor, Cause, CauseClass, Fault, History, Permit, Restart, Status, Verdict
from .playbooks import Playbooks, Policy

TOOL_OF = {Action.START: "restart_bot", Action.RESTART: "restart_bot", Action.RESTORE: "restore_data"}
DAY = timedelta(hours=24)


def permit(
    action: Action,
    verdict: Verdict,
    playbooks: Playbooks,
    past: History,
    now: datetime,
    *,
    can_restart: bool = True,
    override: str | None = None,
    edited: bool = False,
    by: Actor = Actor.ROUND,
) -> Permit:
    """May this action run now? The same for models, people and code. `edited`: a plan would undo what may be an edit.

    Stop, backup and notes always may. `override` (a person's reason) lifts what the playbooks and the ledger say,
    never what never-two says: that is not asked here but proven by the runtime. `by`: what a person stopped, only a
    person starts.
    """
    if action not in TOOL_OF:
        return Permit(True, "always allowed")
    fault = _governing(action, verdict)
    name = fault.value
    if not can_restart:
        return Permit(
            False, f"{verdict.bot} has no runtime in config/bots.json", None, "a runtime is configured", playbook=name
        )
    if verdict.status is Status.UNKNOWN:
        return Permit(False, verdict.sentence, None, "that is mended", playbook=name)
    if override:
        return Permit(True, f"overridden by a person: {override}", playbook=name)
    forbidden = _stopped_by_a_person(action, verdict, past, by) or _forbidden(action, verdict, playbooks, now)
    if forbidden:
        return forbidden
    policy = playbooks.get(fault).policy
    asks = policy.mode == "ask" or edited or _looks_like_an_edit(action, verdict, policy)
    return _limits(action, fault, policy, _counted(action, verdict, past), past, now, asks=asks)


def _looks_like_an_edit(action: Action, verdict: Verdict, policy: Policy) -> bool:
    """Whether something that is wrong with the data may be what a person did to it on purpose."""
    rules = {one.rule for one in verdict.evidence if one.fault is Fault.DATA_CORRUPT}
    return action is Action.RESTORE and not rules.isdisjoint(policy.when.ask_first)


def _counted(action: Action, verdict: Verdict, past: History) -> list[Restart]:
    """What the back-off counts: restarts after faults; for a bot that is well every repetition; for restores those."""
    if action is Action.RESTORE:
        return list(past.restores)
    if verdict.status is Status.STOPPED:
        return []  # it did not fail: whoever stopped it may start it
    return [one for one in past.restarts if one.after_fault or (verdict.fault is None and not one.fresh)]


def _governing(action: Action, verdict: Verdict) -> Fault:
    """The fault whose playbook counts: the first; without one, restarts follow bot-not-running's caps."""
    if action is Action.RESTORE:
        return Fault.DATA_CORRUPT
    return verdict.fault or Fault.BOT_NOT_RUNNING


def _forbidden(action: Action, verdict: Verdict, playbooks: Playbooks, now: datetime) -> Permit | None:
    """A restart that cannot help, or a restore where nothing is damaged: refused with what has to happen first."""
    tool = TOOL_OF[action]
    if action is Action.RESTORE:
        allowing = [fault for fault in verdict.faults if tool in playbooks.get(fault).policy.actions]
        if allowing or verdict.status is Status.STOPPED:
            return None  # of a bot that is stopped on purpose only the plan looked at the file: it is the evidence
        return Permit(False, f"no fault of {verdict.bot} allows a restore", None, "its data is damaged", playbook=None)
    copy = next((one for one in verdict.evidence if one.rule == ANOTHER_COPY), None)
    if copy:
        return Permit(False, copy.text, None, "a person has ended that copy", playbook=Fault.BOT_DUPLICATED.value)
    held = next((one for one in verdict.evidence if one.rule == HELD), None)
    if held:
        until = f"a person starts it (`botkeep start {verdict.bot}`)"
        return Permit(False, held.text.partition(" It stays down")[0], None, until, playbook=held.fault.value)
    if _several(verdict):
        return None  # two copies trade: bringing them back to one is worth more than what else may be wrong
    for fault in verdict.faults:
        if tool not in playbooks.get(fault).policy.actions:
            return _cannot_help(fault, verdict, playbooks)
    cause = next((one for one in verdict.causes if _binds(one, verdict, now)), None)
    return None if cause is None else _cause_forbids(cause)


def _stopped_by_a_person(action: Action, verdict: Verdict, past: History, by: Actor) -> Permit | None:
    """A person's stop holds until a person's start, also where whoever asks has looked before it.

    One that runs although its stop succeeded was started since by somebody, and is looked after. Copies are brought
    back to one whatever was wanted.
    """
    stop = past.person_stop
    if stop is None or action is Action.RESTORE or by is Actor.PERSON:
        return None
    if verdict.instance is not None and (not stop.failed or _several(verdict)):
        return None
    until = f"a person starts it (`botkeep start {verdict.bot}`)"
    return Permit(False, f"a person stopped it at {clock(stop.at)}: {stop.why}", None, until)


def _several(verdict: Verdict) -> bool:
    """Whether copies were seen that a restart brings back to one. A log that only speaks of one is not seen."""
    return any(one.fault is Fault.BOT_DUPLICATED and one.certain for one in verdict.evidence)


def _binds(cause: Cause, verdict: Verdict, now: datetime) -> bool:
    """Whether a restart cannot help against this cause, whoever asks.

    Of a bot that lives, also where it only waits, or the machine has to be mended: a start would ask the exchange even
    more, or fail where the bot still holds its positions. One that is down is started by its back-off: whether the
    exchange is there again, the start itself shows. A frozen bot waits for nobody.
    """
    if cause.fault in (Fault.BOT_DUPLICATED, Fault.BOT_IMPAIRED) and verdict.instance is None:
        return False  # a port may be free by now; and one position that cannot be closed must not keep the others down
    if cause.klass in (CauseClass.STOP, CauseClass.REPAIR):
        return True
    if cause.until is not None:
        return cause.until > now
    frozen = any(one.fault is Fault.BOT_HUNG and one.certain for one in verdict.evidence)
    return cause.klass in (CauseClass.WAIT, CauseClass.HOST) and verdict.instance is not None and not frozen


UNTIL = {
    CauseClass.STOP: "a person has mended the cause",
    CauseClass.REPAIR: "its data is repaired (`restore_data`)",
    CauseClass.HOST: "this machine is mended",
    CauseClass.WAIT: "the exchange answers again",
}


def _cause_forbids(cause: Cause) -> Permit:
    waits = cause.klass is CauseClass.WAIT
    earliest = (cause.until or cause.fades_at) if waits else None
    return Permit(False, f"a restart cannot help: {cause.cause}", earliest, "" if earliest else UNTIL[cause.klass])


MENDING = {
    Fault.TRADING_TOO_OFTEN: "a person has looked at what it trades",
    Fault.API_KEY_REJECTED: "a person has mended the API key",
    Fault.DISK_FULL: "disk space is free again",
    Fault.DATA_CORRUPT: "its data is restored (`restore_data`)",
    Fault.API_RATE_LIMITED: "the exchange's limit is over",
}


def _cannot_help(fault: Fault, verdict: Verdict, playbooks: Playbooks) -> Permit:
    text = next((one.text for one in verdict.evidence if one.fault is fault), fault.value)
    reason = f"the playbook {fault.value} does not allow it: {text}"
    until = MENDING.get(fault, "that fault is gone")
    return Permit(False, reason, _wait_ends(fault, verdict, playbooks), until, playbook=fault.value)


def _wait_ends(fault: Fault, verdict: Verdict, playbooks: Playbooks) -> datetime | None:
    if fault is not Fault.API_RATE_LIMITED:
        return None
    wait = playbooks.get(fault).policy.when.wait
    ends = [cause.until or cause.last_at + wait for cause in verdict.causes if cause.fault is fault and cause.last_at]
    return max(ends, default=None)


def _limits(
    action: Action,
    fault: Fault,
    policy: Policy,
    counted: Sequence[Restart],
    past: History,
    now: datetime,
    *,
    asks: bool,
) -> Permit:
    """Mode, daily cap and back-off of the governing playbook."""
    approved = next((one for one in past.approvals if (one.action, one.fault) == (action, fault)), None)
    if asks and not approved:
        reason = f"the playbook {fault.value} asks a person first"
        return Permit(False, reason, None, "a person approves it", needs_approval=True, playbook=fault.value)
    made = past.restores if action is Action.RESTORE else [one for one in past.restarts if not one.fresh]
    refusal = _over_cap(fault, policy, made, now)
    if not refusal and not approved:
        refusal = _backing_off(fault, policy, in_a_row(counted, past.spans, policy.reset_after, now), now)
    if refusal:
        return refusal
    return Permit(True, "its playbook allows it", approval=approved.id if approved else "", playbook=fault.value)


def _over_cap(fault: Fault, policy: Policy, made: Sequence[Restart], now: datetime) -> Permit | None:
    today = [one.at for one in made if now - one.at < DAY]
    if len(today) < policy.max_per_day:
        return None
    earliest = sorted(today)[-policy.max_per_day] + DAY
    reason = (
        f"that was done {times(len(today))} within 24 hours, and max_per_day of {fault.value} is {policy.max_per_day}"
    )
    return Permit(False, reason, earliest, playbook=fault.value)


def _backing_off(fault: Fault, policy: Policy, streak: Sequence[Restart], now: datetime) -> Permit | None:
    """Before the 1st, 2nd, ... restart of a streak wait `backoff[0]`, `backoff[1]`, ...; after the last, a person."""
    if not streak:
        return None
    if len(streak) >= len(policy.backoff):
        reason = f"that was done {times(len(streak))} and did not last; {fault.value} allows no further automatic one"
        until = (
            f"a person runs `botkeep restart NAME --override REASON`, or it stays up for {length(policy.reset_after)}"
        )
        return Permit(False, reason, None, until, playbook=fault.value)
    earliest = streak[-1].at + policy.backoff[len(streak)]
    if earliest <= now:
        return None
    reason = f"that was done {times(len(streak))}, last at {clock(streak[-1].at)}, and has to back off"
    return Permit(False, reason, earliest, playbook=fault.value)


def times(count: int) -> str:
    """once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
