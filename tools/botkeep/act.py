"""ACT: start, stop, restart, restore. The only module that changes a bot; written once for every runtime.

Each action: the bot's op.lock; what an interrupted one left is reconciled; look; permit; a durable intent; the deed;
look again; the outcome. Whoever is killed in between leaves an intent that the next caller reconciles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import history as past
from . import probe
from .config import Bot, Fleet
from .durable import Lock
from .envfile import load_env_file
from .formats.base import open_writers
from .history import clock
from .journal import Journal
from .judge import decide, how_it_ended
from .ledger import Entry, Kind, Ledger
from .model import (
    Action,
    ActionReport,
    Actor,
    BotkeepError,
    EngineError,
    Evidence,
    Exit,
    Fault,
    History,
    Instance,
    LedgerError,
    Permit,
    Result,
    Status,
    Verdict,
    Wanted,
    iso,
    parse_iso,
)
from .permits import permit
from .playbooks import Playbooks, Policy
from .runtimes import Runtime, Target
from .runtimes.procs import ProcessTable
from .untrusted import clean
from .workspace import Workspace

if TYPE_CHECKING:
    from .restore import RestoreProof

CALL_SECONDS = {Actor.ASSISTANT: 46.0, Actor.PERSON: 150.0, Actor.ROUND: 150.0}
"""Hosts cut a tool call at 60 s: a tool answers within 50 s. A command and a round may wait for a slow stop."""
LOCK_SECONDS = 40.0
LOOKING_TAKES = 5.0
"""Seconds a waiter keeps to look at what the other caller did, and to say so."""
STOPPING_TAKES = 4.0
"""Seconds on top of a bot's grace: to kill, to scan twice, to start, to write it down."""
CONFIRMED_LASTS = timedelta(seconds=60)
COALESCE_WITHIN = timedelta(seconds=60)
"""A restart asked this soon after one that worked is the same wish, asked twice."""
POLL_SECONDS = 0.2
UNATTEMPTED = {"attempted": False}
"""In an outcome: nothing was started, so that it does not count for the back-off."""
HISTORY_REACHES = timedelta(days=8)


@dataclass
class Bench:
    """What an action needs: one open workspace as it is now, who asks, and the clock."""

    fleet: Fleet
    playbooks: Playbooks
    ledger: Ledger
    journal: Journal
    actor: Actor
    clock: Callable[[], datetime]
    troubles: list[str] = field(default_factory=list)
    """What could not be read: a look goes on without it, and says so; an action does not."""

    def history(self, bot: str) -> History:
        """What the ledger says about one bot, for a look: nothing if it cannot be read. No action rests on this."""
        try:
            return self.known_history(bot)
        except LedgerError as error:
            self._trouble(error)
            return History()

    def known_history(self, bot: str) -> History:
        """The same for an action. Raises LedgerError: without history there is no back-off, and no stop on purpose."""
        now = self.clock()
        since = now - HISTORY_REACHES
        entries = self.ledger.entries(bot=bot, since=since)
        return past.history(entries, self.ledger.spans(bot, since=since), now, self.ledger.last_wish(bot))

    def cursor(self, bot: str, name: str) -> dict[str, Any] | None:
        """Where the last look ended."""
        try:
            return self.ledger.cursor(bot, name)
        except LedgerError as error:
            self._trouble(error)
            return None

    def _trouble(self, error: LedgerError) -> None:
        if str(error) not in self.troubles:
            self.troubles.append(str(error))

    @property
    def answer_within(self) -> float:
        """Seconds a health endpoint may take, from its playbook."""
        when = self.playbooks.get(Fault.HEALTH_ENDPOINT_FAILING).policy.when
        return float(when.answer_within.total_seconds())

    def look(self, name: str) -> probe.Seen:
        """One look at one bot."""
        return probe.look(self.fleet, [name], self.cursor, self.clock(), self.answer_within)[name]


@dataclass(frozen=True)
class _Case:
    """One action on one bot, from the moment its lock is held."""

    bench: Bench
    bot: Bot
    action: Action
    reason: str
    deadline: float
    runtime: Runtime
    target: Target
    data: dict[str, Any] = field(default_factory=dict)

    def report(self, result: Result, sentence: str, **more: Any) -> ActionReport:
        return ActionReport(self.bot.name, self.action, result, sentence, **more)

    def record(self, kind: Kind, sentence: str, **more: Any) -> Entry:
        bench = self.bench
        return bench.journal.record(
            kind, at=bench.clock(), bot=self.bot.name, action=self.action.value, actor=bench.actor.value,
            sentence=sentence, **more,
        )  # fmt: skip

    def finish(self, intent: Entry, result: Result, sentence: str, **more: Any) -> ActionReport:
        """Write the outcome; the same sentence is returned, journaled and reported."""
        data = more.pop("data", {})
        entry = self.record(Kind.OUTCOME, sentence, ref=intent.id, result=result.value, data=data)
        return self.report(result, sentence, entry=entry.id, data=data, **more)


# ---------------------------------------------------------------------------------------------------- the verbs


def restart(
    bench: Bench,
    bot: Bot,
    reason: str,
    *,
    override: str | None = None,
    action: Action = Action.RESTART,
    only_for: Fault | None = None,
) -> ActionReport:
    """Stop every copy, prove that none is left, start one, watch it. `action` START leaves a running bot alone.

    `only_for`: code came for this fault alone; it does nothing if that is gone when the bot's lock is held.

    Raises LedgerError if no intent can be recorded: then nothing was done.
    """
    case = _case(bench, bot, action, reason)
    if bot.runtime is None:
        refusal = permit(action, _blank(bench, bot), bench.playbooks, History(), bench.clock(), can_restart=False)
        return _refused(case, refusal)
    asked_at = case.runtime.look(case.target, ProcessTable.read()).generation
    with _locked(case) as held:
        if not held:
            return _busy(case)
        _settle(case)
        return _restart_locked(case, asked_at, override, only_for)


def start(bench: Bench, bot: Bot, reason: str, *, override: str | None = None) -> ActionReport:
    """Start the bot if it does not run."""
    return restart(bench, bot, reason, override=override, action=Action.START)


def stop(bench: Bench, bot: Bot, reason: str) -> ActionReport:
    """Ask it to end, kill it after its grace, prove that no copy is left. Always allowed.

    A full disk must not keep a runaway bot alive: this alone goes on without a ledger, and is recorded later.
    """
    case = _case(bench, bot, Action.STOP, reason)
    with _locked(case) as held:
        if not held:
            return _busy(case)
        try:
            _settle(case)
            intent = case.record(Kind.INTENT, clean(reason))
        except (LedgerError, OSError) as error:
            return _stop_unrecorded(case, error)
        return _stop_recorded(case, intent)


def restore(bench: Bench, bot: Bot, plan_id: str, reason: str) -> ActionReport:
    """Carry out a restore plan: stop, prove no writer, quarantine, rebuild, verify, replace, start, look again.

    Raises BotkeepError if the plan is unknown, used, expired, or the file is not the one it was made for.
    """
    case = _case(bench, bot, Action.RESTORE, reason)
    with _locked(case) as held:
        if not held:
            return _busy(case)
        _settle(case)
        return _restore_locked(case, plan_id)


def _case(bench: Bench, bot: Bot, action: Action, reason: str) -> _Case:
    bench.fleet.workspace.run_dir(bot.name).mkdir(mode=0o700, exist_ok=True)
    target = probe.targets(bench.fleet)[bot.name]
    deadline = time.monotonic() + CALL_SECONDS[bench.actor]
    return _Case(bench, bot, action, reason, deadline, probe.runtime_of(bot), target)


def _blank(bench: Bench, bot: Bot) -> Verdict:
    return Verdict(bot=bot.name, status=Status.UNKNOWN, at=bench.clock(), sentence="")


@contextmanager
def _locked(case: _Case) -> Iterator[bool]:
    """The bot's op.lock: one action at a time, whoever asks, from whatever program."""
    lock = Lock(case.target.run_dir / "op.lock")
    try:
        yield lock.acquire(wait=max(1.0, min(LOCK_SECONDS, case.deadline - time.monotonic() - LOOKING_TAKES)))
    finally:
        lock.release()


def _busy(case: _Case) -> ActionReport:
    sentence = f"{case.bot.name}: another action on it is under way; nothing was done. `check_bot` says how it went."
    return case.report(Result.BUSY, sentence)


# ---------------------------------------------------------------------------------------------------- reconcile


def reconcile(bench: Bench, bot: Bot) -> None:
    """Write the outcomes that killed or slow callers of this bot owe, unless an action is under way now."""
    case = _case(bench, bot, Action.RESTART, "")
    lock = Lock(case.target.run_dir / "op.lock")
    if lock.acquire():
        try:
            _settle(case)
        finally:
            lock.release()


def _settle(case: _Case) -> None:
    """With the lock held nobody else acts: an intent without an outcome is of a caller that died or ran out of time."""
    _record_stop_made_without_ledger(case)
    owed = case.bench.ledger.open_intents(case.bot.name)
    if not owed:
        return
    _wait_for_start_under_way(case)
    seen = case.runtime.look(case.target, ProcessTable.read())
    for intent in owed:
        result, sentence, data = _what_became_of(case, intent, seen.instances, seen.exit)
        case.bench.journal.record(
            Kind.OUTCOME, at=case.bench.clock(), bot=case.bot.name, action=intent.action, actor=intent.actor,
            sentence=sentence, ref=intent.id, result=result.value, data={**data, "reconciled": True},
        )  # fmt: skip


def _wait_for_start_under_way(case: _Case) -> None:
    """A caller killed between spawning the watcher and its record: the watcher goes on, and is waited for."""
    under_way = getattr(case.runtime, "starting", None)
    until = time.monotonic() + 5.0
    while under_way and under_way(case.target) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)


def _what_became_of(
    case: _Case, intent: Entry, instances: Sequence[Instance], ended: Exit | None
) -> tuple[Result, str, dict[str, Any]]:
    name, action = case.bot.name, Action(intent.action)
    if action is Action.STOP:
        if instances:
            return Result.FAILED, f"{name}: a stop was interrupted; it still runs (pid {instances[0].pid}).", {}
        return Result.DONE, f"{name} is stopped; whoever asked was interrupted before it could say so.", {}
    if action is Action.RESTORE:
        text = (
            f"{name}: a restore was interrupted; its data file is either the old one or the new one. Make a new plan."
        )
        return Result.FAILED, text, {}
    mine = next((one for one in instances if one.entry == intent.id), None)
    if mine:
        return Result.DONE, f"{name} was started (pid {mine.pid}) and is up, found at the next look.", {}
    if case.bench.ledger.cursor(case.bot.name, "launched") == {"entry": intent.id}:
        return Result.FAILED, f"{name} was started and is down again: {how_it_ended(ended)}.", {}
    return Result.FAILED, f"{name}: a {action} was interrupted before it started anything.", UNATTEMPTED


def _stop_mark(workspace: Workspace, bot: str) -> Path:
    """One byte, made while there is room: `1` says that the bot was stopped and the ledger does not know it."""
    return workspace.run_dir(bot) / "unrecorded-stop"


def _write_mark(mark: Path, value: bytes) -> None:
    """One byte in place: needs no space on a full disk. Raises OSError if there is no mark to write to."""
    with mark.open("r+b") as file:
        file.write(value)


def prepare_stop_mark(workspace: Workspace, bot: str) -> None:
    """Make it while there is room: every look does."""
    mark = _stop_mark(workspace, bot)
    with suppress(OSError):
        if not mark.exists():
            mark.parent.mkdir(mode=0o700, exist_ok=True)
            mark.write_bytes(b"0")


def stopped_without_ledger(workspace: Workspace, bot: str) -> bool:
    """Whether a stop waits to be recorded."""
    try:
        return _stop_mark(workspace, bot).read_bytes() == b"1"
    except OSError:
        return False


def _record_stop_made_without_ledger(case: _Case) -> None:
    """A stop on a full disk is written down now, so that no round takes the bot for one that died."""
    prepare_stop_mark(case.bench.fleet.workspace, case.bot.name)
    mark = _stop_mark(case.bench.fleet.workspace, case.bot.name)
    if not stopped_without_ledger(case.bench.fleet.workspace, case.bot.name):
        return
    intent = case.bench.journal.record(
        Kind.INTENT, at=case.bench.clock(), bot=case.bot.name, action=Action.STOP.value, actor=Actor.PERSON.value,
        sentence="asked while the ledger could not be written",
    )  # fmt: skip
    case.bench.journal.record(
        Kind.OUTCOME, at=case.bench.clock(), bot=case.bot.name, action=Action.STOP.value, actor=Actor.PERSON.value,
        sentence=f"{case.bot.name} was stopped while the ledger could not be written.", ref=intent.id,
        result=Result.DONE.value,
    )  # fmt: skip
    _write_mark(mark, b"0")


# ---------------------------------------------------------------------------------------------------- examine


def examine(bench: Bench, name: str, deadline: float) -> Verdict:
    """Look and decide; suspect evidence takes its second look here, `apart` seconds later, if `deadline` allows.

    A verdict that was confirmed less than a minute ago counts as the first look. Raises LedgerError.
    """
    seen = bench.look(name)
    past_ = bench.known_history(name)
    first = _recent_evidence(bench, name)
    verdict = decide(seen.observation, bench.playbooks, past_, bench.clock(), first) if first else None
    if verdict is None or not verdict.fault:
        verdict = decide(seen.observation, bench.playbooks, past_, bench.clock())
    if verdict.confirmed or verdict.fault is None:
        return verdict
    apart = bench.playbooks.get(verdict.fault).policy.confirm.apart.total_seconds()
    if time.monotonic() + apart > deadline:
        return verdict
    time.sleep(apart)
    again = bench.look(name)
    return decide(again.observation, bench.playbooks, past_, bench.clock(), verdict.evidence)


def _recent_evidence(bench: Bench, name: str) -> list[Evidence]:
    kept = bench.ledger.cursor(name, "confirmed")
    if not kept or bench.clock() - parse_iso(kept["at"]) > CONFIRMED_LASTS:
        return []
    return [Evidence(Fault(fault), rule, False, "", key) for fault, rule, key in kept["evidence"]]


def confirmed_cursor(verdict: Verdict) -> dict[str, Any]:
    """What `examine` needs to know later that this verdict was confirmed."""
    return {"at": iso(verdict.at), "evidence": [[one.fault.value, one.rule, one.key] for one in verdict.evidence]}


# ---------------------------------------------------------------------------------------------------- restart


def _restart_locked(case: _Case, asked_at: int, override: str | None, only_for: Fault | None) -> ActionReport:
    bench = case.bench
    seen = case.runtime.look(case.target, ProcessTable.read())
    before = bench.known_history(case.bot.name)
    already = _already(case, seen.instances, seen.generation != asked_at, before, override)
    if already:
        return already
    verdict = examine(bench, case.bot.name, case.deadline)
    if only_for and verdict.fault is not only_for:
        return case.report(Result.COALESCED, f"{case.bot.name}: {only_for.value} is gone; nothing was done.")
    if not verdict.confirmed:
        return _later(case, verdict)
    allowed = permit(case.action, verdict, bench.playbooks, before, bench.clock(), override=override)
    if not allowed.allowed:
        return _ask(case, verdict, allowed) if allowed.needs_approval else _refused(case, allowed, verdict)
    if verdict.instance and _too_late(case):
        return _later(case, verdict)
    ready = _with_environment(case)  # a missing env file must be found before the running copy is stopped
    data = {**_intent_data(verdict, allowed, override), **_what_counts(verdict, before)}
    if not seen.instances and seen.exit and seen.exit.at:
        data["exit"] = {"key": seen.exit.key, "at": iso(seen.exit.at), "asked": seen.exit.asked}
    intent = case.record(Kind.INTENT, clean(case.reason), data=data)
    return _replace(replace(case, target=ready), intent, verdict)


def _what_counts(verdict: Verdict, before: History) -> dict[str, bool]:
    """Whether this start counts as a failure for the back-off, or is no repetition of anything."""
    known = bool(before.restarts) or any(span.up for span in before.spans) or verdict.instance is not None
    fresh = verdict.instance is None and (verdict.status is Status.STOPPED or not known)
    return {"after_fault": verdict.fault is not None and known, "fresh": fresh}


def _too_late(case: _Case) -> bool:
    """Whether this call would have to cut the bot's grace short: it is to close its positions and sockets in peace."""
    return time.monotonic() + case.runtime.grace(case.target) + STOPPING_TAKES > case.deadline


def _later(case: _Case, verdict: Verdict) -> ActionReport:
    """Nothing was done, for want of time in this call; a confirmed verdict is kept for the next one."""
    if verdict.confirmed:
        case.bench.ledger.set_cursor(case.bot.name, "confirmed", confirmed_cursor(verdict))
        why = "That is confirmed, but this call has too little time left to stop it gracefully"
    else:
        why = "That is suspected only, and this call has too little time left for the second look"
    sentence = f"{case.bot.name}: {verdict.sentence.rstrip('.')}. {why}; nothing was done. Ask again at once."
    return case.report(Result.BUSY, sentence, fault=verdict.fault, playbook=verdict.fault)


def _intent_data(verdict: Verdict, allowed: Permit, override: str | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "fault": verdict.fault.value if verdict.fault else None,
        "found": verdict.sentence,
    }
    if allowed.approval:
        data["approval"] = allowed.approval
    if override:
        data["override"] = clean(override)
    return data


def _already(
    case: _Case, instances: Sequence[Instance], newer: bool, before: History, override: str | None
) -> ActionReport | None:
    """Nothing to do: it was started while we waited, or just now, or `start` finds it running."""
    if not instances:
        return None
    one, name = instances[0], case.bot.name
    if case.action is Action.START and len(instances) > 1:
        text = f"{name} runs {len(instances)} times; a start does not help. `restart` brings it back to one."
        return case.report(Result.REFUSED, text, until="its copies are one again", fault=Fault.BOT_DUPLICATED)
    if len(instances) > 1:
        return None
    if case.action is Action.START and not newer:
        _want_up(case, before)
        return case.report(Result.COALESCED, f"{name} runs already (pid {one.pid}); nothing was done.", pid=one.pid)
    last = before.restarts[-1] if before.restarts else None
    just_now = last is not None and last.entry == one.entry and case.bench.clock() - last.at < COALESCE_WITHIN
    insists = override or case.bench.actor is Actor.PERSON
    if not newer and (insists or not just_now or one.state == "frozen"):
        return None
    when = "meanwhile" if newer else "within the last minute"
    sentence = f"{name} was started {when} (pid {one.pid}, {one.entry or 'by another caller'}); nothing more was done."
    return case.report(Result.COALESCED, sentence, entry=one.entry, pid=one.pid)


def _want_up(case: _Case, before: History) -> None:
    """A start that finds the bot running still says what is wanted: it must not be left down when it dies."""
    if before.wanted is Wanted.DOWN:
        intent = case.record(Kind.INTENT, clean(case.reason), data=UNATTEMPTED)
        case.finish(intent, Result.DONE, f"{case.bot.name} runs already and is wanted up again.", data=UNATTEMPTED)


def _refused(case: _Case, refusal: Permit, verdict: Verdict | None = None) -> ActionReport:
    earliest = f" Earliest: {clock(refusal.earliest)}." if refusal.earliest else ""
    until = f" Not before {refusal.until}." if refusal.until else ""
    what = _DONE_TO_IT[case.action]
    return case.report(
        Result.REFUSED,
        f"{case.bot.name} was not {what}: {refusal.reason.rstrip('.')}.{earliest}{until}{_may_override(case)}",
        earliest=refusal.earliest,
        until=refusal.until,
        fault=verdict.fault if verdict else None,
        playbook=refusal.playbook,
    )


_DONE_TO_IT = {Action.START: "started", Action.RESTART: "restarted", Action.RESTORE: "restored"}


def _may_override(case: _Case) -> str:
    person = case.bench.actor is Actor.PERSON and case.action is not Action.RESTORE
    return " You can lift this with --override REASON." if person else ""


def _ask(case: _Case, verdict: Verdict, refusal: Permit) -> ActionReport:
    """One open question per bot, action and fault: asked again, it is the same one."""
    fault = verdict.fault.value if verdict.fault else Fault.BOT_NOT_RUNNING.value
    since = case.bench.clock() - past.APPROVAL_LASTS
    asked = case.bench.ledger.entries(bot=case.bot.name, kinds=[Kind.ASK, Kind.APPROVAL], since=since)
    answered = {entry.ref for entry in asked if entry.kind is Kind.APPROVAL}
    same = [
        one for one in asked if one.kind is Kind.ASK and one.action == case.action and one.data.get("fault") == fault
    ]
    entry = next((one for one in same if one.id not in answered), None)
    if entry is None:
        what = _DONE_TO_IT[case.action]
        text = f"{case.bot.name}: may it be {what}? {verdict.sentence} (`botkeep approve` with the id of this entry.)"
        entry = case.record(Kind.ASK, text, data={"fault": fault})
    sentence = (
        f"{case.bot.name} was not {_DONE_TO_IT[case.action]}: {refusal.reason}. A person approves it with "
        f"`botkeep approve {entry.id}` within the hour; then ask again.{_may_override(case)}"
    )
    return case.report(
        Result.ASKED, sentence, approval=entry.id, fault=verdict.fault, playbook=refusal.playbook, until=refusal.until
    )


def _replace(case: _Case, intent: Entry, verdict: Verdict) -> ActionReport:
    """Stop all, prove none, start one, watch it."""
    case.bench.ledger.set_cursor(case.bot.name, "launched", {"entry": ""})  # no ledger, no stop either
    try:
        ended = case.runtime.look(case.target, ProcessTable.read()).exit
        stopped = case.runtime.stop(case.target, case.runtime.grace(case.target), case.deadline)
    except EngineError as error:
        return case.finish(intent, Result.FAILED, f"{case.bot.name} was not started: {error}", data=UNATTEMPTED)
    if stopped.left:
        left = ", ".join(stopped.left)
        return case.finish(
            intent,
            Result.FAILED,
            f"{case.bot.name} was not started: {left} cannot be stopped.",
            data=UNATTEMPTED,
        )
    was = _what_was(verdict, [one.pid for one in stopped.stopped], ended)
    return _start(case, intent, was, case.bench.playbooks.get(verdict.fault or Fault.BOT_NOT_RUNNING).policy)


def _what_was(verdict: Verdict, stopped: Sequence[int | None], ended: Exit | None) -> str:
    if verdict.fault is Fault.BOT_NOT_RUNNING:
        return how_it_ended(ended) if ended else "it was down"
    if verdict.fault:
        return f"before: {verdict.sentence.rstrip('.')}"
    return f"pid {', '.join(map(str, stopped))} was stopped" if stopped else "it was stopped"


def _start(case: _Case, intent: Entry, was: str, policy: Policy) -> ActionReport:
    name = case.bot.name
    with suppress(LedgerError):  # we stopped it: a disk that filled up meanwhile must not keep it down
        case.bench.ledger.set_cursor(name, "launched", {"entry": intent.id})
    try:
        started = case.runtime.start(case.target, intent.id, case.deadline)
    except BotkeepError as error:
        return case.finish(intent, Result.FAILED, f"{name} was not started: {error}", data={"attempted": True})
    if started.instance is None:
        return case.finish(intent, Result.FAILED, f"{name} could not be started: {how_it_ended(started.exit)}.")
    return _verify(case, intent, started.instance, was, policy)


def _with_environment(case: _Case) -> Target:
    """The bot's keys, read at the last moment and never kept."""
    config = case.target.config
    environment = dict(config.env)
    if config.env_file:
        environment |= load_env_file(case.target.home / config.env_file)
    return replace(case.target, environment=environment)


def _verify(case: _Case, intent: Entry, instance: Instance, was: str, policy: Policy) -> ActionReport:
    """Look again until it was up for `up_for`, or `within` is over, or this call must answer."""
    name = case.bot.name
    began = time.monotonic()
    up_for, within = policy.verify.up_for.total_seconds(), policy.verify.within.total_seconds()
    while time.monotonic() - began < up_for:
        try:
            failure = _failed_since(case, instance)
        except EngineError:
            return _not_yet_proven(case, intent, instance, was)
        if failure:
            return case.finish(intent, Result.FAILED, failure)
        if time.monotonic() > case.deadline or time.monotonic() - began > within:
            return _not_yet_proven(case, intent, instance, was)
        time.sleep(POLL_SECONDS)
    verb = "restarted" if intent.data.get("after_fault") else "started"
    sentence = f"{name} was {verb} (pid {instance.pid}) and is up for {up_for:.0f} s; {was}.{_why(case, intent)}"
    data = {"pid": instance.pid, "instance": instance.key}
    return case.finish(intent, Result.DONE, sentence, pid=instance.pid, data=data)


def _not_yet_proven(case: _Case, intent: Entry, instance: Instance, was: str) -> ActionReport:
    """The intent stays open: the next look writes its outcome."""
    sentence = f"{case.bot.name} was started (pid {instance.pid}); {was}. Whether it stays up is seen at the next look."
    return case.report(Result.VERIFYING, sentence, entry=intent.id, pid=instance.pid)


def _failed_since(case: _Case, instance: Instance) -> str | None:
    """What went wrong with a start since it was made, if something did. Raises EngineError where nobody can say."""
    name, seen = case.bot.name, case.runtime.look(case.target, ProcessTable.read())
    if not any(one.key == instance.key for one in seen.instances):
        return f"{name} was started and ended at once: {how_it_ended(seen.exit)}. `diagnose` shows its last lines."
    extra = next((one for one in seen.instances if one.key != instance.key), None)
    return f"{name} was started, and somebody started a second copy (pid {extra.pid})." if extra else None


def _why(case: _Case, intent: Entry) -> str:
    """The reason, for the journal's readers; a round's reason is the fault, which the sentence has already."""
    override = f" A person overrode the playbook: {intent.data['override']}." if "override" in intent.data else ""
    return "" if case.bench.actor is Actor.ROUND else f" Reason: {clean(case.reason).rstrip('.')}.{override}"


# ---------------------------------------------------------------------------------------------------- stop


def _stop_all(case: _Case) -> tuple[Result, str]:
    name, why = case.bot.name, clean(case.reason).rstrip(".")
    grace = case.runtime.grace(case.target)
    try:
        stopped = case.runtime.stop(case.target, grace, case.deadline)
    except EngineError as error:
        return Result.FAILED, f"{name} could not be stopped: {error}"
    if stopped.left:
        return Result.FAILED, f"{name} could not be stopped: {', '.join(stopped.left)} is left. A person has to end it."
    if not stopped.stopped:
        return Result.DONE, f"{name} did not run and stays down ({why}); two scans found nothing of it."
    pids = ", ".join(f"pid {one.pid}" for one in stopped.stopped)
    how = f"killed after {grace:.0f} s" if stopped.killed else "it ended as asked"
    return Result.DONE, f"{name} is stopped ({why}); {pids}: {how}; two scans found nothing left of it."


def _stop_recorded(case: _Case, intent: Entry) -> ActionReport:
    result, sentence = _stop_all(case)
    try:
        return case.finish(intent, result, sentence)
    except LedgerError as error:
        return case.report(result, f"{sentence} The outcome could not be recorded yet: {error}", entry=intent.id)


def _stop_unrecorded(case: _Case, error: Exception) -> ActionReport:
    result, sentence = _stop_all(case)
    mark = _stop_mark(case.bench.fleet.workspace, case.bot.name)
    try:
        _write_mark(mark, b"1")
    except OSError:
        sentence += " That it was stopped on purpose could not be noted: a later round may start it again."
    return case.report(result, f"{sentence} It is not recorded yet: {error}")


# ---------------------------------------------------------------------------------------------------- restore


def _restore_locked(case: _Case, plan_id: str) -> ActionReport:
    from .restore import apply_files, load_plan

    bench, workspace = case.bench, case.bench.fleet.workspace
    plan = load_plan(workspace, case.bot, plan_id, bench.clock())
    verdict = examine(bench, case.bot.name, case.deadline)
    if not verdict.confirmed:
        return _later(case, verdict)
    person = "a person carries out the plan" if bench.actor is Actor.PERSON else None
    allowed = permit(
        case.action, verdict, bench.playbooks, bench.known_history(case.bot.name), bench.clock(), override=person,
        can_restart=case.bot.runtime is not None or verdict.instance is None,
    )  # fmt: skip
    if not allowed.allowed:
        return _ask(case, verdict, allowed) if allowed.needs_approval else _refused(case, allowed, verdict)
    if verdict.instance and _too_late(case):
        return _later(case, verdict)
    if case.bot.runtime is not None:
        case = replace(case, target=_with_environment(case))
    data = {**_intent_data(verdict, allowed, None), "plan": plan_id}
    intent = case.record(Kind.INTENT, clean(case.reason or plan.sentence), data=data)
    try:
        running = case.runtime.look(case.target, ProcessTable.read()).instances
        stopped = case.runtime.stop(case.target, case.runtime.grace(case.target), case.deadline)
    except EngineError as error:
        return case.finish(intent, Result.FAILED, f"{case.bot.name}: nothing was restored: {error}")
    writers = open_writers(plan.path)
    if stopped.left or writers:
        left = ", ".join(stopped.left) or ", ".join(f"pid {pid}" for pid in writers)
        text = f"{case.bot.name}: nothing was restored, since {left} still may write its data file."
        return case.finish(intent, Result.FAILED, text)
    try:
        proof = apply_files(plan, case.bot, workspace, bench.clock())
    except BotkeepError as error:
        return case.finish(intent, Result.FAILED, f"{case.bot.name} was not restored, and it stays down: {error}")
    return _after_restore(case, intent, proof, verdict, was_running=bool(running))


def _after_restore(
    case: _Case, intent: Entry, proof: RestoreProof, verdict: Verdict, *, was_running: bool
) -> ActionReport:
    """Start it again where that can help; the proof is in the outcome either way."""
    data = proof.as_data()
    why_not = _why_no_start(case, verdict, was_running=was_running)
    if why_not:
        return case.finish(intent, Result.DONE, f"{proof.sentence} It was not started: {why_not}", data=data)
    data["started"] = True
    try:
        started = case.runtime.start(case.target, intent.id, case.deadline)
    except BotkeepError as error:
        return case.finish(intent, Result.DONE, f"{proof.sentence} It was not started: {error}", data=data)
    if started.instance is None:
        text = f"{proof.sentence} It could not be started: {how_it_ended(started.exit)}."
        return case.finish(intent, Result.DONE, text, data=data)
    data["instance"] = started.instance.key
    text = f"{proof.sentence} It runs again (pid {started.instance.pid})."
    return case.finish(intent, Result.DONE, text, data=data, pid=started.instance.pid)


def _why_no_start(case: _Case, verdict: Verdict, *, was_running: bool) -> str:
    """Why the restored bot stays down: nobody wants it up, or a fault that a restore does not mend forbids it."""
    if case.bot.runtime is None:
        return "it has no runtime, so start it yourself."
    if verdict.status is Status.STOPPED or (verdict.wanted is Wanted.DOWN and not was_running):
        return "it is stopped on purpose."
    if was_running:
        return ""  # it was up until we stopped it
    bench = case.bench
    rest = tuple(one for one in verdict.faults if "restore_data" not in bench.playbooks.get(one).policy.actions)
    left = replace(verdict, fault=rest[0] if rest else None, others=rest[1:])
    allowed = permit(Action.RESTART, left, bench.playbooks, bench.known_history(case.bot.name), bench.clock())
    earliest = f" Earliest: {clock(allowed.earliest)}." if allowed.earliest else ""
    return "" if allowed.allowed else f"{allowed.reason.rstrip('.')}.{earliest}"
