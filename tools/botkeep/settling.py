"""What killed or slow callers owe: an intent without an outcome is settled by the next one, before anything else.

Beside the ledger there is one byte a bot: a stop on a full disk cannot be recorded, and must not be forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from . import leaving, overlay
from .bench import POLL_SECONDS, UNATTEMPTED, Bench, Case, open_case
from .config import Bot
from .durable import Lock
from .judge import how_it_ended, length
from .ledger import Entry, Kind
from .model import Action, Actor, Exit, Instance, Result
from .probe import HOLDING
from .runtimes.procs import ProcessTable
from .workspace import Workspace

HEARD_WITHIN = timedelta(minutes=5)
"""How long a start may take until the bot's first heartbeat; loading all markets takes a minute."""


def reconcile(bench: Bench, bot: Bot) -> None:
    """Write the outcomes that killed or slow callers of this bot owe, unless an action is under way now."""
    case = open_case(bench, bot, Action.RESTART, "")
    lock = Lock(case.target.run_dir / "op.lock")
    if lock.acquire():
        try:
            settle(case, waits=True)
        finally:
            lock.release()


def settle(case: Case, *, waits: bool = False) -> None:
    """With the lock held nobody else acts: an intent without an outcome is of a caller that died or ran out of time.

    `waits`: leave a start open that may still say that it works; an action that is about to end it cannot wait for it.
    """
    _record_stop_made_without_ledger(case)
    owed = case.bench.ledger.open_intents(case.bot.name)
    if not owed:
        if case.bench.ledger.cursor(case.bot.name, HOLDING):
            leaving.take_back(case, case.runtime.look(case.target, ProcessTable.read()).instances)
        return
    _wait_for_start_under_way(case)
    seen = case.runtime.look(case.target, ProcessTable.read())
    leaving.take_back(case, seen.instances)
    for intent in owed:
        if waits and _is_not_heard_yet(case, intent, seen.instances):
            continue
        result, sentence, data = _what_became_of(case, intent, seen.instances, seen.exit)
        case.bench.journal.record(
            Kind.OUTCOME, at=case.bench.clock(), bot=case.bot.name, action=intent.action, actor=intent.actor,
            sentence=sentence, ref=intent.id, result=result.value, data={**data, "reconciled": True},
        )  # fmt: skip


def _is_not_heard_yet(case: Case, intent: Entry, instances: Sequence[Instance]) -> bool:
    """Whether what it started is alive, has still some time, and has not said that it works. Only freqtrade says it."""
    mine = next((one for one in instances if one.entry == intent.id), None)
    if mine is None or case.bench.clock() - intent.at > HEARD_WITHIN:
        return False
    return leaving.works(case, mine) is False


def _wait_for_start_under_way(case: Case) -> None:
    """A caller killed between spawning the watcher and its record: the watcher goes on, and is waited for."""
    under_way = getattr(case.runtime, "starting", None)
    until = time.monotonic() + 5.0
    while under_way and under_way(case.target) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)


def _what_became_of(
    case: Case, intent: Entry, instances: Sequence[Instance], ended: Exit | None
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
    if action is Action.POLL:
        return _what_became_of_polling(case, intent)
    mine = next((one for one in instances if one.entry == intent.id), None)
    if mine and leaving.works(case, mine) is False:
        late = case.bench.clock() - intent.at > HEARD_WITHIN
        said = f"has not said {f'within {length(HEARD_WITHIN)}' if late else 'so far'} that it works"
        return Result.FAILED, f"{name} was started (pid {mine.pid}) and is alive, but {said}.", {}
    if mine:
        return Result.DONE, f"{name} was started (pid {mine.pid}) and is up, found at the next look.", {}
    if case.bench.ledger.cursor(case.bot.name, "launched") == {"entry": intent.id}:
        return Result.FAILED, f"{name} was started and is down again: {how_it_ended(ended)}.", {}
    return Result.FAILED, f"{name}: a {action} was interrupted before it started anything.", UNATTEMPTED


def _what_became_of_polling(case: Case, intent: Entry) -> tuple[Result, str, dict[str, Any]]:
    """The file says it. Whether the bot was told is not known: it is told again, which does no harm."""
    name, to = case.bot.name, intent.data.get("to")
    if overlay.state(case.bot).level == to:
        text = f"{name}'s polling file holds `{to}`; whoever wrote it was interrupted before it could say so."
        return Result.DONE, text, {"to": to, "written": True, "asked": True}
    return Result.FAILED, f"{name}: a change of its polling was interrupted before it was made.", UNATTEMPTED


def stop_mark(workspace: Workspace, bot: str) -> Path:
    """One byte, made while there is room: `1` says that the bot was stopped and the ledger does not know it."""
    return workspace.run_dir(bot) / "unrecorded-stop"


def write_mark(mark: Path, value: bytes) -> None:
    """One byte in place: needs no space on a full disk. Raises OSError if there is no mark to write to."""
    with mark.open("r+b") as file:
        file.write(value)


def prepare_stop_mark(workspace: Workspace, bot: str) -> None:
    """Make it while there is room: every look does."""
    mark = stop_mark(workspace, bot)
    with suppress(OSError):
        if not mark.exists():
            mark.parent.mkdir(mode=0o700, exist_ok=True)
            mark.write_bytes(b"0")


def stopped_without_ledger(workspace: Workspace, bot: str) -> bool:
    """Whether a stop waits to be recorded."""
    try:
        return stop_mark(workspace, bot).read_bytes() == b"1"
    except OSError:
        return False


def _record_stop_made_without_ledger(case: Case) -> None:
    """A stop on a full disk is written down now, so that no round takes the bot for one that died."""
    prepare_stop_mark(case.bench.fleet.workspace, case.bot.name)
    mark = stop_mark(case.bench.fleet.workspace, case.bot.name)
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
    write_mark(mark, b"0")
