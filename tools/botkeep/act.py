"""ACT: start, stop, restart, restore. The only module that changes a bot; written once for every runtime.

Each action: the bot's op.lock; what an interrupted one left is reconciled; look; permit; a durable intent; the deed;
look again; the outcome. Whoever is killed in between leaves an intent that the next caller reconciles.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import leaving, planned, stillopen
from .answers import ask, intent_data, later, refused
from .bench import HELD, POLL_SECONDS, UNATTEMPTED, Bench, Case, blank, busy, locked, open_case
from .config import Bot
from .datafile import DataFile
from .envfile import load_env_file
from .held import hold, rescuing
from .history import clock
from .judge import how_it_ended
from .ledger import Entry, Kind, Within, store_cursors
from .looking import examine
from .model import (
    Action,
    ActionReport,
    Actor,
    BotkeepError,
    EngineError,
    Exit,
    Fault,
    History,
    Instance,
    LedgerError,
    Result,
    RuntimeLook,
    Status,
    Verdict,
    Wanted,
    iso,
)
from .permits import permit
from .playbooks import Policy
from .runtimes import Started, Stopped, Target
from .runtimes.base import StillAliveError
from .runtimes.procs import ProcessTable
from .settling import LAUNCHED, forget_what_was_wrong, note_stop, remember_open, settle
from .untrusted import clean

if TYPE_CHECKING:
    from .plans import RestorePlan
    from .restore import RestoreProof

STOPPING_TAKES = 4.0
"""Seconds on top of a bot's grace: to kill, to scan twice, to start, to write it down."""
REBUILT_A_SECOND = 3e6
"""Bytes of a trade file that a restore rebuilds and checks in a second; measured with CSV, on a slow machine."""
ASK_AGAIN = 1.0
"""Seconds between two looks for a new copy's sign of life."""
COALESCE_WITHIN = timedelta(seconds=60)
"""A restart asked this soon after one that worked is the same wish, asked twice."""

# ---------------------------------------------------------------------------------------------------- the verbs


def restart(
    bench: Bench,
    bot: Bot,
    reason: str,
    *,
    override: str | None = None,
    action: Action = Action.RESTART,
    only_for: Fault | None = None,
    pause: timedelta | None = None,
) -> ActionReport:
    """Stop every copy, prove that none is left, start one, watch it. `action` START leaves a running bot alone.

    `only_for`: code came for this fault alone; it does nothing if that is gone when the bot's lock is held. `pause`:
    this is a planned restart, with so long between stop and start; it does nothing to a bot that is not well then.

    Raises LedgerError if no intent can be recorded: then nothing was done.
    """
    case = open_case(bench, bot, action, reason)
    if pause is not None:
        case.data["pause"] = pause.total_seconds()
    if bot.runtime is None:
        refusal = permit(action, blank(bench, bot), bench.playbooks, History(), bench.clock(), can_restart=False)
        return refused(case, refusal)
    asked_at = _generation_seen(case)
    with locked(case) as held:
        if not held:
            return busy(case)
        settle(case)
        return _restart_locked(case, asked_at, override, only_for)


def start(bench: Bench, bot: Bot, reason: str, *, override: str | None = None) -> ActionReport:
    """Start the bot if it does not run."""
    return restart(bench, bot, reason, override=override, action=Action.START)


def stop(bench: Bench, bot: Bot, reason: str) -> ActionReport:
    """Ask it to end, kill it after its grace, prove that no copy is left. Always allowed.

    A full disk must not keep a runaway bot alive: this alone goes on without a ledger, and is recorded later.
    """
    case = open_case(bench, bot, Action.STOP, reason)
    with locked(case) as held:
        if not held:
            return busy(case)
        try:
            with suppress(EngineError):  # an engine that is away: the stop asks it again, and its outcome says so
                settle(case)
            intent = case.record(Kind.INTENT, clean(reason))
        except (LedgerError, OSError) as error:
            return _stop_unrecorded(case, error)
        return _stop_recorded(case, intent)


def stop_for(bench: Bench, bot: Bot, fault: Fault, reason: str) -> ActionReport:
    """Stop it by playbook: no wish of anybody's, so that it is no stop on purpose, and no clock starts it again.

    Does nothing if the fault is gone when the bot's lock is held. Raises LedgerError if no intent can be recorded.
    """
    case = open_case(bench, bot, Action.STOP, reason)
    with locked(case) as held:
        if not held:
            return busy(case)
        settle(case)
        verdict = examine(bench, bot.name, case.deadline)
        if verdict.fault is not fault or not verdict.confirmed or verdict.instance is None:
            return case.report(Result.COALESCED, f"{bot.name}: {fault.value} is gone; nothing was done.")
        intent = case.record(Kind.INTENT, clean(reason), data={"fault": fault.value, "found": verdict.sentence})
        bench.ledger.set_cursor(bot.name, HELD, {"entry": intent.id})
        if fault is Fault.TRADING_TOO_OFTEN:
            with suppress(LedgerError):  # that these trades are no habit is only told: the stop goes first
                bench.remember_runaway(bot.name)
        return _stop_recorded(case, intent, f" It stays down until a person starts it: `botkeep start {bot.name}`.")


def restore(bench: Bench, bot: Bot, plan_id: str, reason: str) -> ActionReport:
    """Carry out a restore plan: stop, prove no writer, quarantine, rebuild, verify, replace, start, look again.

    Raises BotkeepError if the plan is unknown, used, expired, or the file is not the one it was made for.
    """
    case = open_case(bench, bot, Action.RESTORE, reason)
    with locked(case) as held:
        if not held:
            return busy(case)
        settle(case)
        return _restore_locked(case, plan_id)


def refusal_of_restore(bench: Bench, bot: Bot, verdict: Verdict) -> ActionReport | None:
    """The playbook's no, or its question to a person, before anybody makes a plan; None: a restore may go on.

    A plan reads whole files and may ask an exchange: not for a restore that is not allowed yet.
    """
    case = open_case(bench, bot, Action.RESTORE, "")
    can = bot.runtime is not None or verdict.instance is None
    history = bench.known_history(bot.name)
    allowed = permit(Action.RESTORE, verdict, bench.playbooks, history, bench.clock(), can_restart=can)
    if allowed.allowed:
        return None
    return ask(case, verdict, allowed) if allowed.needs_approval else refused(case, allowed, verdict)


# ---------------------------------------------------------------------------------------------------- restart


def _restart_locked(case: Case, asked_at: int, override: str | None, only_for: Fault | None) -> ActionReport:
    bench = case.bench
    before = bench.known_history(case.bot.name)
    seen = _seen_now(case, asked_at, before)
    already = _already(case, seen.instances, seen.generation != asked_at, before, override)
    if already:
        return already
    verdict = examine(bench, case.bot.name, case.deadline)
    if gone := _nothing_to_do(case, verdict, only_for):
        return case.report(Result.COALESCED, f"{case.bot.name}: {gone}; nothing was done.")
    if not verdict.confirmed:
        return later(case, verdict)
    override = override or _acknowledged(case, verdict, before)
    now, by = bench.clock(), bench.actor
    allowed = permit(case.action, verdict, bench.playbooks, before, now, override=override, by=by)
    if not allowed.allowed:
        return ask(case, verdict, allowed) if allowed.needs_approval else refused(case, allowed, verdict)
    if verdict.instance and _too_late(case):
        return later(case, verdict)
    ready = _with_environment(case)  # a missing env file must be found before the running copy is stopped
    if hindrance := _in_the_way(case, seen, override):
        return hindrance
    data = {**intent_data(verdict, allowed, override), **_what_counts(verdict, before)}
    intent = _intend(case, data, seen, before)
    return _replace(replace(case, target=ready), intent, verdict)


def _nothing_to_do(case: Case, verdict: Verdict, only_for: Fault | None) -> str:
    """Why there is nothing to do for code that came for one thing only, a clause."""
    if only_for and verdict.fault is not only_for:
        return f"{only_for.value} is gone"
    waits = planned.waits_for(verdict) if "pause" in case.data else ""
    return f"its planned restart waits, since {waits}" if waits else ""


def _intend(case: Case, data: dict[str, Any], seen: RuntimeLook, before: History) -> Entry:
    """The durable intent; what held the bot back for a person is over if it is one who starts it."""
    ledger, name = case.bench.ledger, case.bot.name
    if "pause" in case.data:
        data |= {"planned": True, "after_fault": False, "fresh": True}
    if not seen.instances and seen.exit and seen.exit.at:
        data["exit"] = {"key": seen.exit.key, "at": iso(seen.exit.at), "asked": seen.exit.asked}
    intent = case.record(Kind.INTENT, clean(case.reason), data=data, within=_launching(case, seen))
    if before.held and case.bench.actor is not Actor.ROUND:
        ledger.set_cursor(name, HELD, {})
    if "override" in data:  # a person starts it with the trades as they are: it is not held back for them any more
        ledger.set_cursor(name, stillopen.CURSOR, {})
    return intent


def _launching(case: Case, seen: RuntimeLook) -> Within | None:
    """Of a bot that is down, what is to be launched is noted with the intent: the disk is waited for once. That a start
    came of it is known by the newer generation."""
    if not _is_down(case, seen):
        return None
    name, after = case.bot.name, seen.generation
    return lambda db, entry: store_cursors(db, [(name, LAUNCHED, {"entry": entry.id, "after": after})])


def _acknowledged(case: Case, verdict: Verdict, before: History) -> str | None:
    """A person's start of what a round stopped is the word that it waited for."""
    wanted = case.action is Action.START and case.bench.actor is Actor.PERSON and verdict.instance is None
    return f"a person starts what {before.held.entry} stopped" if wanted and before.held else None


def _generation_seen(case: Case) -> int:
    """Of the run that the caller knows of: what a start recorded since the process table was read is newer."""
    seen = case.bench.just_seen(case.bot.name)
    runtime = seen.observation.runtime if seen else case.runtime.look(case.target, case.bench.table())
    return runtime.generation


def _seen_now(case: Case, asked_at: int, before: History) -> RuntimeLook:
    """What is there, with the lock held. What was seen before it was says nothing if somebody started it meanwhile, or
    stopped it."""
    seen = case.runtime.look(case.target, case.bench.table())
    if seen.generation == asked_at and before.wanted is Wanted.UP and not before.held:
        return seen
    case.bench.forget(case.bot.name)
    return case.runtime.look(case.target, case.bench.table())


def _what_counts(verdict: Verdict, before: History) -> dict[str, bool]:
    """Whether this start counts as a failure for the back-off, or is no repetition of anything."""
    known = bool(before.restarts) or any(span.up for span in before.spans) or verdict.instance is not None
    fresh = verdict.instance is None and (verdict.status is Status.STOPPED or not known)
    return {"after_fault": verdict.fault is not None and known, "fresh": fresh}


def _too_late(case: Case, work: float = 0.0, *, stops: bool = True) -> bool:
    """Whether this call would have to cut the bot's grace short, or leave it stopped in the middle of the work.

    It is to close its positions and sockets in peace. `work`: seconds besides.
    """
    stopping = case.runtime.grace(case.target) + STOPPING_TAKES if stops else 0.0
    return time.monotonic() + stopping + work > case.deadline


def _already(
    case: Case, instances: Sequence[Instance], newer: bool, before: History, override: str | None
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
    insists = override or case.bench.actor is Actor.PERSON or "pause" in case.data
    if not newer and (insists or not just_now or one.state == "frozen"):
        return None
    when = "meanwhile" if newer else "within the last minute"
    sentence = f"{name} was started {when} (pid {one.pid}, {one.entry or 'by another caller'}); nothing more was done."
    return case.report(Result.COALESCED, sentence, entry=one.entry, pid=one.pid)


def _want_up(case: Case, before: History) -> None:
    """A start that finds the bot running still says what is wanted: it must not be left down when it dies."""
    if before.wanted is Wanted.DOWN:
        intent = case.record(Kind.INTENT, clean(case.reason), data=UNATTEMPTED)
        case.finish(intent, Result.DONE, f"{case.bot.name} runs already and is wanted up again.", data=UNATTEMPTED)


def _replace(case: Case, intent: Entry, verdict: Verdict) -> ActionReport:
    """Stop all, prove none, start one, watch it."""
    policy = case.bench.playbooks.get(verdict.fault or Fault.BOT_NOT_RUNNING).policy
    held = ""
    try:
        seen = case.runtime.look(case.target, case.bench.table())
        if _is_down(case, seen):
            stopped = Stopped(())
        else:
            case.bench.ledger.set_cursor(case.bot.name, LAUNCHED, {"entry": ""})  # no ledger, no stop either
            held = leaving.hold_entries(case, intent, policy)
            stopped = _stop_it(case)
    except EngineError as error:
        _let_go_on(case)
        return case.finish(intent, Result.FAILED, f"{case.bot.name} was not started: {error}", data=UNATTEMPTED)
    if stopped.left:
        _let_go_on(case)
        left = ", ".join(stopped.left)
        return case.finish(
            intent,
            Result.FAILED,
            f"{case.bot.name} was not started: {left} cannot be stopped.",
            data=UNATTEMPTED,
        )
    time.sleep(case.data.get("pause", 0.0))
    was = _what_was(verdict, [one.pid for one in stopped.stopped], seen.exit)
    more = _more_memory(case) if Fault.OUT_OF_MEMORY in verdict.faults else None
    said = [one for one in (was, held, more, leaving.said_of_left(case)) if one]
    return _start(case, intent, "; ".join(said), policy, seen.generation)


def _is_down(case: Case, seen: RuntimeLook) -> bool:
    """Whether nothing of it was seen, and its start proves by itself that nothing is: to prove it twice takes longer
    than to start it."""
    return not seen.instances and _start_proves(case)


def _start_proves(case: Case) -> bool:
    return bool(getattr(case.runtime, "START_PROVES", False))


def _stop_it(case: Case) -> Stopped:
    """All of it, proven; what only it held open is rescued. Raises EngineError."""
    case.bench.forget(case.bot.name)
    with rescuing(case.bot.data_file, _rescued_to(case)):
        return case.runtime.stop(case.target, case.runtime.grace(case.target), case.deadline)


def _start_it(case: Case, intent: Entry) -> Started:
    """One, after whatever no look had seen of it is stopped. Raises BotkeepError."""
    try:
        return case.runtime.start(replace(case.target, table=case.bench.table()), intent.id, case.deadline)
    except StillAliveError:
        stopped = _stop_it(case)
        if stopped.left:
            raise EngineError(f"{', '.join(stopped.left)} cannot be stopped.") from None
    require_only_writer(case)
    return case.runtime.start(case.target, intent.id, case.deadline)


def _let_go_on(case: Case) -> None:
    """A bot that we asked to open nothing new, and then could not stop, goes on as before."""
    with suppress(BotkeepError):
        leaving.take_back(case, case.runtime.look(case.target, ProcessTable.read()).instances)


def _more_memory(case: Case) -> str | None:
    """As far as the person's `limits` allow; in the outcome with the old and the new value."""
    from .memory_limit import raise_limit

    return raise_limit(case)


def _what_was(verdict: Verdict, stopped: Sequence[int | None], ended: Exit | None) -> str:
    if verdict.fault is Fault.BOT_NOT_RUNNING:
        return f"before: {how_it_ended(ended)}" if ended else "it was down"
    if verdict.fault:
        return f"before: {verdict.sentence.rstrip('.')}"
    return f"pid {', '.join(map(str, stopped))} was stopped" if stopped else "it was stopped"


def _start(case: Case, intent: Entry, was: str, policy: Policy, after: int) -> ActionReport:
    """`after`: the generation of the run before, which the record of a start made is newer than."""
    name = case.bot.name
    with suppress(LedgerError):  # we stopped it: a disk that filled up meanwhile must not keep it down
        if (case.bench.ledger.cursor(name, LAUNCHED) or {}).get("entry") != intent.id:
            case.bench.ledger.set_cursor(name, LAUNCHED, {"entry": intent.id, "after": after})
    try:
        _require_only_writer_left(case)
    except EngineError as error:  # nothing was tried, so it does not count for the back-off
        return case.finish(intent, Result.FAILED, f"{name} was not started: {error}", data=UNATTEMPTED)
    try:
        started = _start_it(case, intent)
    except StillAliveError as error:  # nothing was tried here either
        return case.finish(intent, Result.FAILED, f"{name} was not started: {error}", data=UNATTEMPTED)
    except BotkeepError as error:
        return case.finish(intent, Result.FAILED, f"{name} was not started: {error}", data={"attempted": True})
    if started.instance is None:
        return case.finish(intent, Result.FAILED, f"{name} could not be started: {how_it_ended(started.exit)}.")
    case.bench.starts.over(name)
    return _verify(case, intent, started.instance, was, policy)


def _in_the_way(case: Case, seen: RuntimeLook, override: str | None) -> ActionReport | None:
    """Why the bot must not be stopped for a start, found while it still runs; None: it may."""
    if not override and (why := leaving.cannot_keep(case, seen.instances)):
        done = "left as it is" if seen.instances else "not started"
        return case.report(Result.REFUSED, f"{case.bot.name} was {done}: {why}", until=leaving.to_go_on(case))
    if seen.instances and seen.only_once:
        return _only_once(case, seen)
    if stranger := _another_writer(case, seen.instances):
        return case.report(Result.REFUSED, f"{case.bot.name} was left as it is: {stranger}", until="it is ended")
    return None


def _only_once(case: Case, seen: RuntimeLook) -> ActionReport:
    """What can be stopped and not started again is not stopped for a start, whoever asks."""
    return case.report(Result.REFUSED, f"{case.bot.name} was left as it is: {seen.only_once}.", until=MADE_ANEW)


MADE_ANEW = "a person has made it anew without that"


def _another_writer(case: Case, instances: Sequence[Instance]) -> str:
    """Who else has the data file open for writing, while the bot still runs: it must not be stopped for nothing."""
    if case.bot.data_file is None or not instances:
        return ""
    members = {pid for one in instances for pid in one.members}
    others = [pid for pid in DataFile.of(case.bot).writers() if pid not in members]
    who = ", ".join(f"pid {pid}" for pid in others)
    beside = "has its data file open for writing too, and no start would be allowed beside it. End it first."
    return f"{who} {beside}" if who else ""


def require_only_writer(case: Case) -> None:
    """Nobody has the bot's data file open for writing, whatever runs it. Raises EngineError.

    A copy under an engine that is not configured any more has neither the bot's name nor its command line.
    """
    if case.bot.data_file is None:
        return
    writers = DataFile.of(case.bot).writers()
    if writers:
        who = ", ".join(f"pid {pid}" for pid in writers)
        raise EngineError(
            f"{who} has its data file open for writing, perhaps a copy under another engine. End it first."
        )


def _require_only_writer_left(case: Case) -> None:
    """The same, once what no look had seen of the bot is stopped: what a dead run left behind may be who writes."""
    try:
        require_only_writer(case)
    except EngineError:
        if not _start_proves(case):
            raise
        _stop_it(case)
        require_only_writer(case)


def _with_environment(case: Case) -> Target:
    """The bot's keys, read at the last moment and never kept."""
    config = case.target.config
    if not hasattr(config, "env"):
        return case.target  # an engine's units get theirs from whoever made them
    environment = {**config.env, **leaving.environment_as_left(case)}
    if config.env_file and not getattr(case.runtime, "KEEPS_KEYS", False):
        environment |= load_env_file(case.target.home / config.env_file)
    return replace(case.target, environment=environment)


def _verify(case: Case, intent: Entry, instance: Instance, was: str, policy: Policy) -> ActionReport:
    """Whether the start lasts, and the outcome."""
    name, watched = case.bot.name, _watch(case, instance, policy)
    if watched.failure:
        return case.finish(intent, Result.FAILED, watched.failure)
    if not watched.lasts:
        return _not_yet_proven(case, intent, instance, was)
    is_planned = "pause" in case.data
    verb = "restarted as planned" if is_planned else "restarted" if intent.data.get("after_fault") else "started"
    sentence = f"{name} was {verb} (pid {instance.pid}) and {watched.lasts}; {was}.{_why(case, intent)}"
    data = {"pid": instance.pid, "instance": instance.key, **({"planned": True} if is_planned else {})}
    return case.finish(intent, Result.DONE, sentence, pid=instance.pid, data=data)


@dataclass(frozen=True)
class _Watched:
    """What came of a start within its first seconds. Neither: nobody can say yet."""

    lasts: str = ""
    """A clause: up as long as its playbook wants."""
    failure: str = ""
    """A sentence: it ended, or somebody started a second one."""


def _watch(case: Case, instance: Instance, policy: Policy) -> _Watched:
    """Look again until it was up for `up_for`, or `within` is over, or this call must answer."""
    began = time.monotonic()
    asked = began - ASK_AGAIN
    up_for, within = policy.verify.up_for.total_seconds(), policy.verify.within.total_seconds()
    works: bool | None = False
    while time.monotonic() - began < up_for or works is False:
        try:
            failure = _failed_since(case, instance)
            if works is False and time.monotonic() - asked >= ASK_AGAIN:
                works, asked = leaving.works(case, instance), time.monotonic()
        except EngineError:
            return _Watched()
        if failure:
            return _Watched(failure=failure)
        if time.monotonic() > case.deadline or time.monotonic() - began > within:
            return _Watched()
        time.sleep(POLL_SECONDS)
    return _Watched(lasts=f"is up for {up_for:.0f} s{' and says that it works' if works else ''}")


def _not_yet_proven(case: Case, intent: Entry, instance: Instance, was: str) -> ActionReport:
    """The intent stays open: the next look writes its outcome."""
    sentence = f"{case.bot.name} was started (pid {instance.pid}); {was}. Whether it stays up is seen at the next look."
    return case.report(Result.VERIFYING, sentence, entry=intent.id, pid=instance.pid)


def _failed_since(case: Case, instance: Instance) -> str | None:
    """What went wrong with a start since it was made, if something did. Raises EngineError where nobody can say."""
    name, seen = case.bot.name, case.runtime.look(case.target, ProcessTable.read())
    if not any(one.key == instance.key for one in seen.instances):
        return f"{name} was started and ended at once: {how_it_ended(seen.exit)}. `diagnose` shows its last lines."
    extra = next((one for one in seen.instances if one.key != instance.key), None)
    return f"{name} was started, and somebody started a second copy (pid {extra.pid})." if extra else None


def _why(case: Case, intent: Entry) -> str:
    """The reason, for the journal's readers; a round's reason is the fault, which the sentence has already."""
    override = f" A person overrode the playbook: {intent.data['override']}." if "override" in intent.data else ""
    return "" if case.bench.actor is Actor.ROUND else f" Reason: {clean(case.reason).rstrip('.')}.{override}"


# ---------------------------------------------------------------------------------------------------- stop


def _stop_all(case: Case, intent: Entry | None) -> tuple[Result, str]:
    name, why = case.bot.name, clean(case.reason).rstrip(".")
    grace = case.runtime.grace(case.target)
    try:
        leaving.hold_entries(case, intent, case.bench.playbooks.get(Fault.BOT_NOT_RUNNING).policy)
        with rescuing(case.bot.data_file, _rescued_to(case)):
            stopped = case.runtime.stop(case.target, grace, case.deadline)
    except EngineError as error:
        _let_go_on(case)
        return Result.FAILED, f"{name} could not be stopped: {error}"
    if stopped.left:
        _let_go_on(case)
        return Result.FAILED, f"{name} could not be stopped: {', '.join(stopped.left)} is left. A person has to end it."
    if not stopped.stopped:
        return Result.DONE, f"{name} did not run and stays down ({why}); two scans found nothing of it."
    pids = ", ".join(f"pid {one.pid}" for one in stopped.stopped)
    how = f"killed after {grace:.0f} s" if stopped.killed else "it ended as asked"
    return Result.DONE, f"{name} is stopped ({why}); {pids}: {how}; two scans found nothing left of it."


def _rescued_to(case: Case) -> Path:
    """Where a restore looks for what a deleted file held."""
    when = f"{case.bench.clock():%Y%m%dT%H%M%S.%fZ}"
    return case.bench.fleet.workspace.quarantine_dir / case.bot.name / f"rescued-{when}"


def _stop_recorded(case: Case, intent: Entry, more: str = "") -> ActionReport:
    result, sentence = _stop_all(case, intent)
    sentence += more if result is Result.DONE else ""
    try:
        return case.finish(intent, result, sentence)
    except LedgerError as error:
        return case.report(result, f"{sentence} The outcome could not be recorded yet: {error}", entry=intent.id)


def _stop_unrecorded(case: Case, error: Exception) -> ActionReport:
    result, sentence = _stop_all(case, None)
    try:
        note_stop(case.bench.fleet.workspace, case.bot.name, case.bench.actor, result)
    except OSError:
        sentence += " That it was stopped on purpose could not be noted: a later round may start it again."
    return case.report(result, f"{sentence} It is not recorded yet: {error}")


# ---------------------------------------------------------------------------------------------------- restore


def _restore_locked(case: Case, plan_id: str) -> ActionReport:
    from .restore import apply_files, load_plan

    bench, workspace = case.bench, case.bench.fleet.workspace
    plan = load_plan(workspace, case.bot, plan_id, bench.clock())
    verdict = examine(bench, case.bot.name, case.deadline)
    if not verdict.confirmed:
        return later(case, verdict)
    person = "a person carries out the plan" if bench.actor is Actor.PERSON else None
    allowed = permit(
        case.action, verdict, bench.playbooks, bench.known_history(case.bot.name), bench.clock(), override=person,
        can_restart=case.bot.runtime is not None or verdict.instance is None, edited=_may_undo_an_edit(bench, plan),
    )  # fmt: skip
    if not allowed.allowed:
        return ask(case, verdict, allowed) if allowed.needs_approval else refused(case, allowed, verdict)
    if _too_late(case, (plan.evidence.get("size") or 0) / REBUILT_A_SECOND, stops=verdict.instance is not None):
        return later(case, verdict)
    if case.bot.runtime is not None:
        case = replace(case, target=_with_environment(case))
        now = case.runtime.look(case.target, ProcessTable.read())
        if now.instances and now.only_once:
            return _only_once(case, now)
    data = {**intent_data(verdict, allowed, None), "plan": plan_id}
    intent = case.record(Kind.INTENT, clean(case.reason or plan.sentence), data=data)
    with hold(plan.path) as held:  # a deleted file lives only until the bot that has it open is stopped
        try:
            running = case.runtime.look(case.target, ProcessTable.read()).instances
            with rescuing(None if plan.from_held else plan.path, _rescued_to(case)):
                stopped = case.runtime.stop(case.target, case.runtime.grace(case.target), case.deadline)
        except EngineError as error:
            return case.finish(intent, Result.FAILED, f"{case.bot.name}: nothing was restored: {error}")
        writers = DataFile.of(case.bot).writers()
        if stopped.left or writers:
            left = ", ".join(stopped.left) or ", ".join(f"pid {pid}" for pid in writers)
            text = f"{case.bot.name}: nothing was restored, since {left} still may write its data file."
            return case.finish(intent, Result.FAILED, text)
        remember_open(case, plan.still_open)  # before the file is there: killed in between, the bot stays down, too
        try:
            proof = apply_files(plan, case.bot, workspace, bench.clock(), stores=bench.stores.all, held=held)
        except BotkeepError as error:
            return _not_restored(case, intent, error, plan, was_running=bool(running))
    forget_what_was_wrong(case, proof)
    return _after_restore(case, intent, proof, verdict, was_running=bool(running))


def _may_undo_an_edit(bench: Bench, made: RestorePlan) -> bool:
    """Whether a person may have made what the plan would undo, whatever else is wrong with the file."""
    asks = set(bench.playbooks.get(Fault.DATA_CORRUPT).policy.when.ask_first)
    return made.counts.contradicting > 0 or any(one.rule in asks for one in made.findings)


def _not_restored(
    case: Case, intent: Entry, error: BotkeepError, made: RestorePlan, *, was_running: bool
) -> ActionReport:
    """The old file is in place. A bot whose file is sound, and only lacks trades, need not stay down for that."""
    name = case.bot.name
    if not (made.only_adds and was_running and case.bot.runtime is not None):
        return case.finish(intent, Result.FAILED, f"{name} was not restored, and it stays down: {error}")
    try:
        started = case.runtime.start(case.target, intent.id, case.deadline).instance
    except BotkeepError as trouble:
        return case.finish(intent, Result.FAILED, f"{name} was not restored, and it stays down: {error} {trouble}")
    data = {"started": True, "instance": started.key if started else None}
    runs, lasts = _how_it_came_up(case, started, data) if started else ("It could not be started again.", False)
    pid = started.pid if started and lasts else None
    return case.finish(intent, Result.FAILED, f"{name}'s file was not completed: {error} {runs}", data=data, pid=pid)


def _how_it_came_up(case: Case, started: Instance, data: dict[str, Any]) -> tuple[str, bool]:
    """A sentence about a bot that was started again after work on its file; whether it may be up. Fills `data`."""
    watched = _watch(case, started, case.bench.playbooks.get(Fault.DATA_CORRUPT).policy)
    data["lasts"] = False if watched.failure else True if watched.lasts else None
    if watched.failure:
        return watched.failure, False
    if watched.lasts:
        return f"It runs again (pid {started.pid}) and {watched.lasts}.", True
    return f"It was started again (pid {started.pid}); whether it stays up is seen at the next look.", True


def _after_restore(
    case: Case, intent: Entry, proof: RestoreProof, verdict: Verdict, *, was_running: bool
) -> ActionReport:
    """Start it again where that can help; the proof is in the outcome either way."""
    data = proof.as_data()
    if proof.still_open:  # the proof's sentence says so, and what a person does
        return case.finish(intent, Result.DONE, proof.sentence, data=data)
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
    runs, lasts = _how_it_came_up(case, started.instance, data)
    pid = started.instance.pid if lasts else None
    return case.finish(intent, Result.DONE, f"{proof.sentence} {runs}", data=data, pid=pid)


def _why_no_start(case: Case, verdict: Verdict, *, was_running: bool) -> str:
    """Why the restored bot stays down: nobody wants it up, or a fault that a restore does not mend forbids it."""
    if case.bot.runtime is None:
        return "it has no runtime, so start it yourself."
    bench = case.bench
    if verdict.status is Status.STOPPED or (verdict.wanted is Wanted.DOWN and not was_running):
        return "it is stopped on purpose."
    past = bench.known_history(case.bot.name)
    if was_running and past.person_stop and past.person_stop.failed:
        return f"a person stopped it at {clock(past.person_stop.at)}."
    if was_running:
        return ""  # it was up until we stopped it
    rest = tuple(one for one in verdict.faults if "restore_data" not in bench.playbooks.get(one).policy.actions)
    left = replace(verdict, fault=rest[0] if rest else None, others=rest[1:])
    allowed = permit(Action.RESTART, left, bench.playbooks, past, bench.clock())
    earliest = f" Earliest: {clock(allowed.earliest)}." if allowed.earliest else ""
    return "" if allowed.allowed else f"{allowed.reason.rstrip('.')}.{earliest}"
