"""A pass over bots: look, decide, and remember what was seen. Nothing is done to a bot here."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

from . import heartbeat, probe, settling, together
from .bench import Bench
from .config import Bot, Fleet
from .durable import Lock
from .engine_restarts import since_last_look
from .judge import decide
from .ledger import Kind, Memory, Seen
from .looking import confirmed_cursor
from .model import (
    FAULT_ORDER,
    Action,
    Actor,
    BotkeepError,
    EngineError,
    History,
    LedgerError,
    Result,
    Status,
    Verdict,
)
from .permits import times
from .playbooks import Playbooks
from .profiles.workspace_signatures import own_signatures

UNSEEN_AFTER = 2.5
"""Check intervals without a look, after which the time between two looks counts as unknown."""
SHORTEST_GAP = timedelta(minutes=12, seconds=30)
"""A five-minute cron may skip one look before the time between counts as unknown, whatever the bot's own interval."""
COUNTING_WAITS = 5.0
"""Seconds to wait for another look that is counting an engine's restarts right now."""
BACKUP_TAKES = timedelta(minutes=30)
STATUS_ORDER = {Status.FAULTY: 0, Status.UNKNOWN: 1, Status.STOPPED: 2, Status.HEALTHY: 3}


def reconcile_owed(bench: Bench, names: Iterable[str]) -> None:
    """What killed callers owe, before anything is judged: an unrecorded stop would look like a death."""
    try:
        owing = {entry.bot for entry in bench.ledger.open_intents()}
    except LedgerError as error:
        bench.troubles.append(str(error))
        return
    if None in owing:
        _close_lost_backups(bench)
    for name in names:
        stopped = settling.stopped_without_ledger(bench.fleet.workspace, name)
        bot = bench.fleet.get(name).bot
        if bot is not None and (name in owing or stopped is not None):
            _reconcile_one(bench, bot)


def _close_lost_backups(bench: Bench) -> None:
    """A backup of several bots belongs to no bot's lock: what was begun long ago is over."""
    for intent in bench.ledger.open_intents():
        if intent.bot is None and bench.clock() - intent.at > BACKUP_TAKES:
            text = "A backup was interrupted; what it had stored by then is whole."
            bench.record(Kind.OUTCOME, Action.BACKUP, text, ref=intent.id, result=Result.FAILED.value)


def _reconcile_one(bench: Bench, bot: Bot) -> None:
    try:
        settling.reconcile(bench, bot)
    except (BotkeepError, OSError) as error:
        bench.troubles.append(f"{bot.name}: {error}")


def verdicts_of(bench: Bench, names: Sequence[str], *, confirm: bool, keep: bool = True) -> list[Verdict]:
    """Look at these bots and decide; `confirm`: what is only suspected takes its second look here, after a pause.

    `keep`: what was seen goes into the ledger's spans and cursors.
    """
    seen = bench.look_at(names)
    _count_engines(bench, seen)
    histories = histories_of(bench, names)
    verdicts = {name: decide(seen[name].observation, bench.playbooks, histories[name], bench.clock()) for name in names}
    bench.seen.update(seen)
    doubtful = [one for one in verdicts.values() if not one.confirmed]
    if doubtful and confirm:
        time.sleep(max(apart(bench.playbooks, one) for one in doubtful))
        verdicts |= {one.bot: one for one in look_again(bench, doubtful, keep=False)}
    if keep:
        remember(bench, {name: bench.seen[name] for name in names}, list(verdicts.values()))
    return list(verdicts.values())


def look_again(bench: Bench, doubtful: Sequence[Verdict], *, keep: bool = True) -> list[Verdict]:
    """The second look at what was only suspected at the first."""
    again = bench.look_at([one.bot for one in doubtful])
    bench.seen.update(again)
    histories = histories_of(bench, list(again))  # somebody may have stopped one while we waited
    found = [
        decide(again[one.bot].observation, bench.playbooks, histories[one.bot], bench.clock(), one.evidence)
        for one in doubtful
    ]
    if keep:
        remember(bench, again, found)
    return found


def _count_engines(bench: Bench, seen: Mapping[str, probe.Seen]) -> None:
    """Restarts that engines made by themselves, before anything is judged: they count like ours."""
    for name, look in seen.items():
        runtime = look.observation.runtime
        if runtime.restarts is None and not runtime.starts and not any(one.kept_by for one in runtime.instances):
            continue
        count, following = since_last_look(look.knew("engine"), runtime, bench.clock())
        look.cursors["engine"] = following
        if count:
            _note_engine(bench, name, look, count)


def _note_engine(bench: Bench, name: str, look: probe.Seen, count: int) -> None:
    """Two looks at the same time must not count one restart twice, nor the older one take a counter for a lower one.

    Where another look has counted since this one began, the next look counts what is left.
    """
    runtime, following = look.observation.runtime, look.cursors["engine"]
    with Lock(bench.fleet.workspace.state_dir / "engines.lock") as lock:
        with suppress(EngineError):
            lock.acquire(wait=COUNTING_WAITS)
        try:
            if bench.ledger.cursor(name, "engine") != look.knew("engine"):
                return
            engine = next((one.kept_by for one in runtime.instances if one.kept_by), "its engine")
            bench.journal.record(
                Kind.OUTCOME, at=bench.clock(), bot=name, action=Action.RESTART.value, actor=Actor.ENGINE.value,
                sentence=f"{name} was restarted {times(count)} by {engine} itself.", result=Result.DONE.value,
                data={"times": count},
            )  # fmt: skip
            bench.ledger.set_cursor(name, "engine", following)
            look.found["engine"] = bench.ledger.cursors_named("engine", [name])[name]
        except LedgerError as error:
            bench.troubles.append(str(error))


def histories_of(bench: Bench, names: Sequence[str]) -> dict[str, History]:
    """What the ledger says about each of them."""
    return bench.histories(names)


def remember(bench: Bench, seen: dict[str, probe.Seen], verdicts: Sequence[Verdict]) -> None:
    """Spans and cursors, in one transaction. A full disk costs the memory of this look, not the look.

    What a look left is forgotten where a restore, or another look, has written since it began: it may be of a file that
    is gone, and whoever comes next would miss rows of that.
    """
    gaps = gaps_of(bench.fleet)
    looks = [
        Seen(one.bot, one.status, one.fault, one.up, one.instance, one.at, gaps.get(one.bot, SHORTEST_GAP))
        for one in verdicts
    ]
    memories = [Memory(name, look.rests_on, look.cursors) for name, look in seen.items()]
    cursors = [(one.bot, "confirmed", confirmed_cursor(one)) for one in verdicts if one.fault and one.confirmed]
    try:
        bench.ledger.see_all(looks, [*cursors, *together.remembered(bench, verdicts)], memories)
    except LedgerError as error:
        bench.troubles.append(str(error))


def gaps_of(fleet: Fleet) -> dict[str, timedelta]:
    """How far apart two looks at a bot may be that count as one stretch."""
    return {bot.name: max(SHORTEST_GAP, UNSEEN_AFTER * timedelta(seconds=bot.check_interval)) for bot in fleet.bots}


def apart(playbooks: Playbooks, verdict: Verdict) -> float:
    """Seconds between the two looks that this verdict's fault wants."""
    return playbooks.get(verdict.fault).policy.confirm.apart.total_seconds() if verdict.fault else 0.0


def merged(before: Sequence[Verdict], after: Sequence[Verdict]) -> list[Verdict]:
    """The newer verdict of each bot, in the order of the older ones."""
    newer = {one.bot: one for one in after}
    return [newer.get(one.bot, one) for one in before]


def unhealthy_first(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Faulty ones first, the most important fault before the others: the order to work in."""
    last = len(FAULT_ORDER)
    return tuple(
        sorted(
            verdicts, key=lambda one: (STATUS_ORDER[one.status], FAULT_ORDER[one.fault] if one.fault else last, one.bot)
        )
    )


def problems_of(bench: Bench) -> tuple[str, ...]:
    """What a person should mend that is no bot's fault: playbooks, signatures, the watcher, what keeps alerts back."""
    workspace = bench.fleet.workspace
    watcher = heartbeat.problem(workspace, bench.ledger, bench.clock())
    own = own_signatures(workspace).problems
    return (*bench.playbooks.problems, *own, *bench.troubles, *([watcher] if watcher else []), *_untold(bench))


def _untold(bench: Bench) -> Sequence[str]:
    """What keeps people from being told. Where nobody is to be told, nothing of that is loaded."""
    if not bench.fleet.tells:
        return ()
    from . import telling

    return telling.untold(bench)
