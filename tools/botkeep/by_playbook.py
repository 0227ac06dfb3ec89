"""What code does by itself: whatever the playbook of a bot's first fault allows, and restarts that were planned."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from . import act, deaths, planned, stillopen
from .bench import Bench
from .config import Bot
from .judge import UNUSUAL_WITHIN_LIMIT
from .model import Action, ActionReport, BotkeepError, Fault, LedgerError, Result, Status, Verdict
from .playbooks import Playbooks
from .survey import verdicts_of

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


def act_on_all(bench: Bench, verdicts: Sequence[Verdict], pool: ThreadPoolExecutor) -> tuple[ActionReport, ...]:
    """Whatever there is to do for these bots, as many at once as the pool has threads."""
    jobs = [one for one in verdicts if has_work(bench, one)]
    return tuple(report for report in pool.map(lambda one: act_on(bench, one), jobs) if report)


def has_work(bench: Bench, verdict: Verdict) -> bool:
    """Whether code has something to do for this bot: by playbook, or because it was planned."""
    return acts_alone(verdict, bench.playbooks) or _planned_now(bench, verdict) is not None


def act_on(bench: Bench, verdict: Verdict) -> ActionReport | None:
    """One bot's action. A failure of one bot is that bot's report; the others go on."""
    try:
        return _act_on(bench, verdict)
    finally:
        bench.starts.over(verdict.bot)


def _act_on(bench: Bench, verdict: Verdict) -> ActionReport | None:
    bot, fault = bench.fleet.get(verdict.bot).bot, verdict.fault
    if verdict.status is Status.HEALTHY:
        return _restart_as_planned(bench, verdict)
    if bot is None or fault is None:
        return None
    try:
        if _stops(verdict, bench.playbooks):
            return act.stop_for(bench, bot, fault, f"{fault.value}: {verdict.sentence}")
        if "restore_data" in bench.playbooks.get(fault).policy.actions:
            return _restore_for(bench, bot, verdict)
        return act.restart(bench, bot, f"{fault.value}: {verdict.sentence}", only_for=fault)
    except (BotkeepError, OSError) as error:
        restores = "restore_data" in bench.playbooks.get(fault).policy.actions
        action = Action.RESTORE if restores else Action.RESTART
        return ActionReport(bot.name, action, Result.FAILED, f"{bot.name}: {error}", fault=fault)


def _restore_for(bench: Bench, bot: Bot, verdict: Verdict) -> ActionReport:
    from .planning import plan

    if refusal := act.refusal_of_restore(bench, bot, verdict):
        return _done_meanwhile(bench, bot) or refusal
    known = bench.cursor(bot.name, "compared")
    try:
        exchange = not deaths.waits(known, bench.clock())
        made = plan(bot, bench.fleet.workspace, bench.stores.all, bench.clock(), exchange=exchange)
        report = act.restore(bench, bot, made.id, verdict.sentence)
        why = report.sentence if report.result is Result.FAILED else ""
    except BotkeepError as error:
        if done := _done_meanwhile(bench, bot):
            return done
        report = ActionReport(bot.name, Action.RESTORE, Result.FAILED, f"{bot.name}: {error}", fault=verdict.fault)
        why = str(error)
    return _go_on_without(bench, bot, verdict, report, why) if why and _only_lacks_trades(verdict) else report


def _done_meanwhile(bench: Bench, bot: Bot) -> ActionReport | None:
    """Where a watcher and a round of cron's see the same damage, one of them comes first: no failure of the other.

    None: the damage is still there.
    """
    bench.forget(bot.name)
    (now,) = verdicts_of(bench, [bot.name], confirm=False, keep=False)
    if now.status is Status.UNKNOWN or Fault.DATA_CORRUPT in now.faults:
        return None
    text = f"{bot.name}'s data file is sound again: somebody else restored it meanwhile; nothing was done."
    return ActionReport(bot.name, Action.RESTORE, Result.COALESCED, text, fault=Fault.DATA_CORRUPT)


def _go_on_without(bench: Bench, bot: Bot, verdict: Verdict, report: ActionReport, why: str) -> ActionReport:
    """Trades that cannot be added are told to people; the bot is not kept down for them."""
    known = bench.ledger.cursor(bot.name, "compared")
    if known:
        bench.ledger.set_cursor(bot.name, "compared", deaths.given_up(known, why))
    if Fault.BOT_NOT_RUNNING in verdict.faults and not report.data.get("started"):
        return act.restart(bench, bot, f"it is down; {why}", only_for=Fault.BOT_NOT_RUNNING)
    return report


def _only_lacks_trades(verdict: Verdict) -> bool:
    """Whether its file is sound, and only lacks trades that log or exchange have."""
    return _data_rules(verdict) == {"R1"}


def _data_rules(verdict: Verdict) -> set[str]:
    return {one.rule for one in verdict.evidence if one.fault is Fault.DATA_CORRUPT}


def _stops(verdict: Verdict, playbooks: Playbooks) -> bool:
    """Whether its playbook lets code stop the bot, which runs; not for what the person's own limit allows."""
    policy = playbooks.get(verdict.fault).policy if verdict.fault else None
    if policy is None or policy.mode != "auto" or "stop_bot" not in policy.actions or verdict.instance is None:
        return False
    return any(one.fault is verdict.fault and one.rule != UNUSUAL_WITHIN_LIMIT for one in verdict.evidence)


def acts_unasked(verdict: Verdict, playbooks: Playbooks) -> bool:
    """Whether code does it by itself; what a person is asked for, people are told of with what they can say yes to."""
    return acts_alone(verdict, playbooks) and not _asks(verdict, playbooks)


def is_told_now(verdict: Verdict, playbooks: Playbooks) -> bool:
    """Whether people have to be told of it before anything is done: it has stood long enough, and is soon mended.

    Whoever mends it may be killed before they tell it, and nothing would be left of it. A death that is only a moment
    old is mended first.
    """
    if verdict.fault is None or not acts_unasked(verdict, playbooks):
        return False
    began = min(verdict.at, verdict.down_since or verdict.at)  # it may have ended while it was looked at
    return verdict.at - began >= playbooks.get(verdict.fault).policy.alert.after


def _asks(verdict: Verdict, playbooks: Playbooks) -> bool:
    return verdict.fault is not None and playbooks.get(verdict.fault).policy.mode == "ask"


def acts_alone(verdict: Verdict, playbooks: Playbooks) -> bool:
    """Whether the first fault is confirmed and its playbook lets code, or asks a person to let it, do something."""
    if verdict.status is not Status.FAULTY or not verdict.confirmed or verdict.fault is None:
        return False
    if verdict.fault is Fault.DATA_CORRUPT and _data_rules(verdict) == {stillopen.RULE}:
        return False  # a restore has done what it can: only a person can close these trades, or start it with them
    if _stops(verdict, playbooks):
        return True
    return not {"restart_bot", "restore_data"}.isdisjoint(playbooks.get(verdict.fault).policy.actions)


# ---------------------------------------- planned restarts


def planned_at(bench: Bench, name: str) -> datetime | None:
    """When the bot, as it was just seen, has its planned restart."""
    bot, seen = bench.fleet.get(name).bot, bench.seen.get(name)
    if bot is None or bot.restart_every is None or seen is None:
        return None
    from .schedule import zone_of

    return planned.due_at(bot, seen.observation, bench.clock(), zone_of(bench.fleet))


def _planned_now(bench: Bench, verdict: Verdict) -> datetime | None:
    """Since when a planned restart is due, if it waits for nothing."""
    at = planned_at(bench, verdict.bot) if verdict.status is Status.HEALTHY else None
    if at is None or at > bench.clock():
        return None
    from .silences import active

    try:
        silenced = {one.bot for one in active(bench.ledger, bench.clock())}
    except LedgerError:
        return None
    return None if planned.waits_for(verdict, silenced) else at


def _restart_as_planned(bench: Bench, verdict: Verdict) -> ActionReport | None:
    bot, at = bench.fleet.get(verdict.bot).bot, _planned_now(bench, verdict)
    if bot is None or at is None:
        return None
    try:
        report = act.restart(bench, bot, planned.reason(bot, at), pause=bot.pause)
    except (BotkeepError, OSError) as error:
        return ActionReport(bot.name, Action.RESTART, Result.FAILED, f"{bot.name}: {error}")
    return None if report.result is Result.REFUSED else report  # it waits: nobody has to do anything
