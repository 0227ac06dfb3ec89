"""POLL: a bot asks its exchange less for a while, and as usual again, by the one setting that it names for that.

Each call: the bot's op.lock; what an interrupted one left; which document the file holds; a durable intent; the
document; the bot is told; the outcome. Killed between the document and the telling, the next call tells it.

A reload is more than it sounds: freqtrade loads all markets anew, and ends if the exchange refuses; and it comes up as
it is configured, so that one which a person paused or stopped would trade again. So it waits until neither is so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from . import probe
from .answers import ask
from .bench import Bench, Case, busy, locked, open_case
from .config import Bot
from .history import clock
from .judge import how_it_ended
from .ledger import Entry, Kind
from .model import (
    Action,
    ActionReport,
    Actor,
    BotkeepError,
    CauseClass,
    EngineError,
    Fault,
    Instance,
    Observation,
    Permit,
    Result,
    Span,
    Status,
    Verdict,
)
from .overlay import NONE, Change, Level, Polling, hindrance, last_change, outcomes, state, write
from .playbooks import Policy
from .profiles import Subject
from .runtimes.procs import ProcessTable
from .settling import settle
from .untrusted import clean

__all__ = ["Level", "Polling", "follow", "reduce", "restore", "state", "waits", "wish"]

FAULT = Fault.API_RATE_LIMITED
TOOL = "poll_less"
RELOADS_TAKE = 60.0
"""Seconds of a round: a reload asks the exchange for everything, so they come one by one, the rest in the next one."""
LOOK_SECONDS = 1.0
"""Between two questions whether a reload is done."""
DAY = timedelta(hours=24)
HOW = {Level.REDUCED: "less", Level.NORMAL: "as usual"}


# ---------------------------------------------------------------------------------------------------- the verbs


def reduce(bench: Bench, bot: Bot, reason: str) -> ActionReport:
    """Have the bot ask its exchange less. What code reduced, a later round puts back; what a person did, stays.

    Raises LedgerError if no intent can be recorded: then nothing was done.
    """
    return _poll(bench, bot, Level.REDUCED, reason)


def restore(bench: Bench, bot: Bot, reason: str) -> ActionReport:
    """Have the bot ask its exchange as usual again. Raises LedgerError as `reduce`."""
    return _poll(bench, bot, Level.NORMAL, reason)


def follow(bench: Bench, verdicts: Iterable[Verdict]) -> tuple[ActionReport, ...]:
    """What the playbook wants done about the polling of these bots, as a round has just seen them.

    One bot's failure is that bot's report; the others go on. Bots that have to be told to reload come last.
    """
    until = time.monotonic() + RELOADS_TAKE
    jobs = [(bot, one) for one in verdicts if (bot := bench.fleet.get(one.bot).bot) and bot.limits.polling]
    jobs.sort(key=lambda job: job[0].limits.polling is not None and job[0].limits.polling.apply == "reload")
    found = (_follow_one(bench, bot, verdict) for bot, verdict in jobs if time.monotonic() < until)
    return tuple(report for report in found if report)


def _follow_one(bench: Bench, bot: Bot, verdict: Verdict) -> ActionReport | None:
    try:
        case = _case_of(bench, bot, verdict)
        to = wish(case) if case else None
        if case is None or to is None or _backs_off(case):
            return None
        reason = f"{FAULT.value}: {verdict.sentence}" if case.stands else f"{FAULT.value} is over"
        return _poll(bench, bot, to, reason)
    except (BotkeepError, OSError) as error:
        return ActionReport(bot.name, Action.POLL, Result.FAILED, f"{bot.name}: {error}", fault=verdict.fault)


# ------------------------------------------------------------------------------------------------- what a round wants


@dataclass(frozen=True)
class Facts:
    """One bot's case, for a round."""

    bot: Bot
    verdict: Verdict
    file: Polling
    change: Change | None
    seen: Observation
    calls: Sequence[Entry]
    """Outcomes so far, newest first."""
    spans: Sequence[Span]
    policy: Policy
    now: datetime

    @property
    def stands(self) -> bool:
        """The rate limit is the bot's first fault, and confirmed."""
        verdict = self.verdict
        return verdict.status is Status.FAULTY and verdict.fault is FAULT and verdict.confirmed

    @property
    def owed(self) -> bool:
        """The file was written, and copies that run were neither told nor started since."""
        return _is_owed(self.bot, self.file, self.change, self.seen.runtime.instances)


def _case_of(bench: Bench, bot: Bot, verdict: Verdict) -> Facts | None:
    seen = bench.seen.get(bot.name)
    if seen is None or verdict.status is Status.UNKNOWN:
        return None
    calls = outcomes(bench.ledger, bot.name)
    policy = bench.playbooks.get(FAULT).policy
    spans = bench.known_history(bot.name).spans
    return Facts(bot, verdict, state(bot), last_change(calls), seen.observation, calls, spans, policy, bench.clock())


def wish(case: Facts) -> Level | None:
    """Which document the playbook wants in the file, or read by the bot; None: nothing is to be done. Pure.

    What a person said is not undone: polling that a person reduced stays reduced, and polling that a person put back
    is not reduced again before `reset_after`. What code reduced is put back after `reset_after` without such a line,
    `max_per_day` times: a bot that meets the limit again and again stays reduced.
    """
    if case.stands and TOOL in case.policy.actions and case.file.level is not Level.REDUCED:
        return None if _person_put_it_back(case) else Level.REDUCED
    if case.file.level is Level.REDUCED and not case.stands and _is_over(case):
        return Level.NORMAL
    if case.owed and not waits(case.seen, case.policy.when.calm, case.now):
        return case.file.level
    return None


def _person_put_it_back(case: Facts) -> bool:
    change = case.change
    said = change.person_at if change and change.to is Level.NORMAL else None
    return said is not None and case.file.level is Level.NORMAL and case.now - said < case.policy.reset_after


def _is_over(case: Facts) -> bool:
    change = case.change
    if change is None or change.to is not Level.REDUCED or change.person_at:
        return False
    back = [one for one in case.calls if one.data.get("to") == Level.NORMAL and one.result == Result.DONE]
    if len([one for one in back if case.now - one.at < DAY]) >= case.policy.max_per_day:
        return False
    return case.now - _last_sign(case, change) >= case.policy.reset_after


def _last_sign(case: Facts, change: Change) -> datetime:
    """When the exchange last refused, as far as anybody saw it: a line, the end of a ban, a look at which it stood."""
    causes = [one for one in case.seen.causes if one.fault is FAULT]
    lines = [at for one in causes for at in (one.last_at, one.until) if at]
    return max([change.since, *lines, *(span.last for span in case.spans if span.fault is FAULT)])


def _backs_off(case: Facts) -> bool:
    """What failed is tried again by the playbook's back-off, not in each round."""
    failed = list(
        takewhile(lambda one: one.result == Result.FAILED and one.data.get("attempted") is not False, case.calls)
    )
    backoff = case.policy.backoff
    return bool(failed) and case.now - failed[0].at < backoff[min(len(failed), len(backoff) - 1)]


# ---------------------------------------------------------------------------------------------------- when to reload


@dataclass(frozen=True)
class Waits:
    """Why a bot is not told to reload now: a clause; `until` where a clock can say."""

    why: str
    until: datetime | None = None


OWN_STATE = {
    "paused": "its own state is paused, and a reload would forget that",
    "stopped": "its own state is stopped, and a reload would have it trade again",
    "starting": "it is starting",
}


def waits(seen: Observation, calm: timedelta, now: datetime) -> Waits | None:
    """Why this bot must not be told to reload now; None: it may. Pure.

    `calm`: how long after the newest line of an exchange that refuses.
    """
    program = seen.program
    if seen.runtime.error:
        return Waits(clean(seen.runtime.error.rstrip("."), 200))
    if len(seen.runtime.instances) > 1:
        return Waits(f"it runs {len(seen.runtime.instances)} times")
    if program.state != "running" or program.state_from != "api":
        unknown = f"its API does not tell its state ({program.api.rstrip('.') or 'nothing was asked'})"
        return Waits(OWN_STATE.get(program.state, unknown))
    return _refused(seen, calm, now)


def _refused(seen: Observation, calm: timedelta, now: datetime) -> Waits | None:
    """A start would fail, and so would a reload: the longest of the causes that say so."""
    found = []
    for cause in seen.causes:
        if not cause.this_run or cause.klass is CauseClass.RESTART:
            continue
        quiet = cause.last_at + calm if cause.klass is CauseClass.WAIT and cause.last_at else cause.fades_at
        until = cause.until or quiet
        if until is None or until > now:
            found.append(Waits(cause.cause.rstrip("."), until))
    endless = [one for one in found if one.until is None]
    return next(iter(endless), None) or max(found, key=lambda one: one.until or now, default=None)


def _is_owed(bot: Bot, file: Polling, change: Change | None, instances: Sequence[Instance]) -> bool:
    reloads = bot.limits.polling is not None and bot.limits.polling.apply == "reload"
    return reloads and change is not None and change.to is file.level and not change.is_read_by(instances)


# ---------------------------------------------------------------------------------------------------- one call


def _poll(bench: Bench, bot: Bot, to: Level, reason: str) -> ActionReport:
    case = open_case(bench, bot, Action.POLL, reason)
    if bot.limits.polling is None:
        return _refused_call(case, to, NONE, "`limits.polling` is configured")
    with locked(case) as held:
        if not held:
            return busy(case)
        settle(case)
        return _poll_locked(case, to)


def _refused_call(case: Case, to: Level, why: str, until: str) -> ActionReport:
    text = f"{case.bot.name} was not told to poll {HOW[to]}: {why}. Not before {until}."
    return case.report(Result.REFUSED, text, until=until, fault=FAULT, playbook=FAULT.value)


def _poll_locked(case: Case, to: Level) -> ActionReport:
    bench, bot = case.bench, case.bot
    file, change = state(bot), last_change(outcomes(bench.ledger, bot.name))
    if refusal := _must_not(case, file, to):
        return refusal
    seen = bench.look(bot.name).observation
    writes, owed = file.level is not to, _is_owed(bot, file, change, seen.runtime.instances)
    if not writes and not _is_word(case, change, to) and not (owed and not _waits(case, seen)):
        return _already(case, to, change, _waits(case, seen) if owed else None)
    data = {"to": to, "fault": FAULT.value}
    if writes:
        refusal, approval = _not_approved(case, to)
        if refusal:
            return refusal
        data |= {"approval": approval} if approval else {}
    intent = case.record(Kind.INTENT, clean(case.reason), data=data)
    if writes:
        try:
            write(bot, to)
        except OSError as error:
            text = f"{bot.name} was not told to poll {HOW[to]}: its polling file cannot be written: {error.strerror}."
            return case.finish(intent, Result.FAILED, text, data={"to": to})
    return _tell(case, intent, to, seen, told=_is_told(change, to, seen.runtime.instances, writes=writes))


def _is_told(change: Change | None, to: Level, instances: Sequence[Instance], *, writes: bool) -> bool:
    """Whether the copies that run go by `to` already: they read it, or never read the other one in between."""
    if change is None or not instances:
        return False
    if not writes:
        return change.to is to and change.is_read_by(instances)
    return change.to is not to and change.is_unknown_to(instances)


def _must_not(case: Case, file: Polling, to: Level) -> ActionReport | None:
    """A file that somebody edited, protects, or has not made yet: only what is known is replaced."""
    if file.level is Level.UNKNOWN and not (file.missing and case.bench.actor is Actor.PERSON):
        made = f"a person runs `botkeep poll {case.bot.name} normal REASON`, which makes it, and has the bot read it"
        edited = "a person puts one of the two into it, or writes into bots.json what it should hold"
        return _refused_call(case, to, file.why, made if file.missing else edited)
    if file.level is not to and (why := hindrance(case.bot)):
        return _refused_call(case, to, why, "that is mended")
    return None


def _is_word(case: Case, change: Change | None, to: Level) -> bool:
    """A person says what a round did already: from now on it is the person's, and has to be remembered."""
    known = change is not None and change.to is to and change.person_at is not None
    return case.bench.actor is Actor.PERSON and not known


def _already(case: Case, to: Level, change: Change | None, waiting: Waits | None) -> ActionReport:
    since = f" since {clock(change.since)}" if change and change.to is to else ""
    later = f" It is not told to reload yet: {waiting.why}." if waiting else ""
    text = f"{case.bot.name} polls {HOW[to]} already{since}; nothing more was done.{later}"
    return case.report(Result.COALESCED, text, fault=FAULT, earliest=waiting.until if waiting else None)


def _not_approved(case: Case, to: Level) -> tuple[ActionReport | None, str]:
    """The question to a person where the playbook's mode is `ask`, or the approval that this uses up.

    Putting back what was there before needs none.
    """
    bench = case.bench
    if bench.actor is Actor.PERSON or to is Level.NORMAL or bench.playbooks.get(FAULT).policy.mode == "auto":
        return None, ""
    approvals = bench.known_history(case.bot.name).approvals
    given = next((one.id for one in approvals if (one.action, one.fault) == (Action.POLL, FAULT)), "")
    if given:
        return None, given
    reason = f"the playbook {FAULT.value} asks a person first"
    asks = Permit(False, reason, None, "a person approves it", needs_approval=True, playbook=FAULT.value)
    verdict = Verdict(case.bot.name, Status.FAULTY, bench.clock(), clean(case.reason), fault=FAULT)
    return ask(case, verdict, asks), ""


# ---------------------------------------------------------------------------------------------------- telling the bot


def _waits(case: Case, seen: Observation) -> Waits | None:
    when = case.bench.playbooks.get(FAULT).policy.when
    return waits(seen, when.calm, case.bench.clock())


def _tell(case: Case, intent: Entry, to: Level, seen: Observation, *, told: bool) -> ActionReport:
    """Have the bot read the file again, by the way that `apply` names. `told`: it goes by it already."""
    polling = case.bot.limits.polling
    apply = polling.apply if polling else "restart"
    if told or apply == "watched":
        return _done(case, intent, to, "", applied=True)
    if apply == "restart" or not seen.runtime.instances:
        return _done(case, intent, to, ", from its next start on", applied=False)
    waiting = _waits(case, seen)
    if waiting is None:
        return _reload(case, intent, to, seen.runtime.instances[0])
    when = f", not before {clock(waiting.until)}" if waiting.until else ""
    text = f", from its next start on, or once it can be told to reload{when}: {waiting.why}"
    return _done(case, intent, to, text, applied=False, earliest=waiting.until)


def _done(case: Case, intent: Entry, to: Level, how: str, *, applied: bool, **more: Any) -> ActionReport:
    """`how`: a clause that begins with a comma."""
    text = f"{case.bot.name} polls {HOW[to]}{how}; {state(case.bot).why}.{_stays(case, to)}{_why(case)}"
    return case.finish(intent, Result.DONE, text, data={"to": to, "written": True, "applied": applied}, **more)


def _stays(case: Case, to: Level) -> str:
    person = case.bench.actor is Actor.PERSON and to is Level.REDUCED
    return f" It stays so until a person runs `botkeep poll {case.bot.name} normal REASON`." if person else ""


def _why(case: Case) -> str:
    return f" Reason: {clean(case.reason).rstrip('.')}." if case.bench.actor is not Actor.ROUND else ""


def _reload(case: Case, intent: Entry, to: Level, instance: Instance) -> ActionReport:
    name, data = case.bot.name, {"to": to, "written": True}
    program = probe.see_program(
        case.bench.fleet, case.bot, case.target, case.bench.cursor, case.bench.clock(), ask=False
    )
    tell: Callable[[Subject], str | None] | None = getattr(program.profile, "reload_config", None)
    if tell is None:
        how = f", from its next start on: its profile {program.profile.NAME} knows no API that reloads"
        return _done(case, intent, to, how, applied=False)
    why_not = tell(program.subject)
    if why_not:
        text = f"{name} polls {HOW[to]} from its next start on; it was not told to reload: {why_not.rstrip('.')}."
        return case.finish(intent, Result.FAILED, text, data={**data, "asked": True})
    failure = _failed(case, instance)
    if failure:
        return case.finish(intent, Result.FAILED, failure, data={**data, "applied": True})
    return _done(case, intent, to, ", and was told to reload", applied=True)


def _failed(case: Case, instance: Instance) -> str | None:
    """What went wrong with a reload, as far as the playbook's `within` shows it."""
    bench, name = case.bench, case.bot.name
    within = bench.playbooks.get(FAULT).policy.verify.within.total_seconds()
    until = min(time.monotonic() + within, case.deadline)
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        try:
            seen = probe.see_program(bench.fleet, case.bot, case.target, bench.cursor, bench.clock())
        except EngineError:
            continue
        if not any(one.key == instance.key for one in seen.subject.instances):
            ended = case.runtime.look(case.target, ProcessTable.read()).exit
            return f"{name} ended when it was told to reload: {how_it_ended(ended)}. Its next start reads its settings."
        if seen.program.state in ("paused", "stopped"):
            return (
                f"{name} came up {seen.program.state} when it was told to reload, as its own configuration says: "
                f"it trades nothing until a person starts it there."
            )
        if seen.program.state == "running":
            return None
    return None
