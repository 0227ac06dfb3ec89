"""What killed or slow callers owe: an intent without an outcome is settled by the next one, before anything else.

Beside the ledger there is one byte a bot: a stop on a full disk cannot be recorded, and must not be forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import deaths, leaving, overlay, stillopen
from .bench import POLL_SECONDS, UNATTEMPTED, Bench, Case, open_case
from .config import Bot
from .durable import Lock
from .judge import how_it_ended, length
from .ledger import Entry, Kind
from .model import Action, Actor, Ended, Instance, Result, RuntimeLook
from .probe import AFTER, HOLDING
from .runtimes.procs import ProcessTable
from .workspace import Workspace

if TYPE_CHECKING:
    from .restore import RestoreProof

LAUNCHED = "launched"
"""The cursor of the newest start that was to be made: {entry}, and {after}: the generation before it."""
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
        result, sentence, data = _what_became_of(case, intent, seen)
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


def _what_became_of(case: Case, intent: Entry, seen: RuntimeLook) -> tuple[Result, str, dict[str, Any]]:
    name, action, instances = case.bot.name, Action(intent.action), seen.instances
    if action is Action.STOP:
        if instances:
            return Result.FAILED, f"{name}: a stop was interrupted; it still runs (pid {instances[0].pid}).", {}
        return Result.DONE, f"{name} is stopped; whoever asked was interrupted before it could say so.", {}
    if action is Action.RESTORE:
        return _what_became_of_restore(case, intent, instances)
    if action is Action.POLL:
        return _what_became_of_polling(case, intent)
    mine = next((one for one in instances if one.entry == intent.id), None)
    if mine and leaving.works(case, mine) is False:
        late = case.bench.clock() - intent.at > HEARD_WITHIN
        said = f"has not said {f'within {length(HEARD_WITHIN)}' if late else 'so far'} that it works"
        return Result.FAILED, f"{name} was started (pid {mine.pid}) and is alive, but {said}.", {}
    if mine:
        return Result.DONE, f"{name} was started (pid {mine.pid}) and is up, found at the next look.", {}
    if _was_launched(case, intent, seen):
        return Result.FAILED, f"{name} was started and is down again: {how_it_ended(seen.exit)}.", {}
    return Result.FAILED, f"{name}: a {action} was interrupted before it started anything.", UNATTEMPTED


def _was_launched(case: Case, intent: Entry, seen: RuntimeLook) -> bool:
    """Whether a start was made for it, as far as that is noted. One of a bot that was down is noted with its intent,
    and was made if a run came after the one before it."""
    noted = case.bench.ledger.cursor(case.bot.name, LAUNCHED) or {}
    return noted.get("entry") == intent.id and noted.get("after") != seen.generation


def _what_became_of_restore(
    case: Case, intent: Entry, instances: Sequence[Instance]
) -> tuple[Result, str, dict[str, Any]]:
    """The file says it. Once it is the new one, what is remembered of the old one must not speak against it."""
    from .restore import applied

    proof = applied(case.bench.fleet.workspace, case.bot, str(intent.data.get("plan")))
    if proof is None:
        return Result.FAILED, f"{case.bot.name}: a restore was interrupted before it changed its data file.", {}
    forget_what_was_wrong(case, proof)
    mine = next((one for one in instances if one.entry == intent.id), None)
    runs = f" It runs again (pid {mine.pid})." if mine else ""
    sentence = f"{proof.sentence}{runs} Whoever restored it was interrupted before it could say so."
    return Result.DONE, sentence, {**proof.as_data(), **({"started": True, "instance": mine.key} if mine else {})}


def remember_open(case: Case, trades: Sequence[Ended]) -> None:
    """Trades that keep the bot down for as long as its file has them open."""
    kept = {"trades": stillopen.as_json(trades)} if trades else {}
    case.bench.ledger.set_cursor(case.bot.name, stillopen.CURSOR, kept)


def forget_what_was_wrong(case: Case, proof: RestoreProof) -> None:
    """What looks, log and backup said about the old file says nothing about the new one."""
    remember_open(case, proof.still_open)
    ledger, name = case.bench.ledger, case.bot.name
    ended = case.runtime.look(case.target, ProcessTable.read()).exit
    new = {
        "data": {AFTER: proof.plan},  # the plan's id is of this restore alone: no look that began before it fits to it
        "compared": deaths.settled(ledger.cursor(name, "compared"), ended),
        "changed": {},
        "restored": {"plan": proof.plan, "sha256": proof.sha256, "size": proof.size},
    }
    ledger.set_cursors([(name, kind, value) for kind, value in new.items()])


def _what_became_of_polling(case: Case, intent: Entry) -> tuple[Result, str, dict[str, Any]]:
    """The file says it. Whether the bot was told is not known: it is told again, which does no harm."""
    name, to = case.bot.name, intent.data.get("to")
    if overlay.state(case.bot).level == to:
        text = f"{name}'s polling file holds `{to}`; whoever wrote it was interrupted before it could say so."
        return Result.DONE, text, {"to": to, "written": True, "asked": True}
    return Result.FAILED, f"{name}: a change of its polling was interrupted before it was made.", UNATTEMPTED


UNRECORDED = {
    b"1": (Actor.PERSON, Result.DONE),
    b"2": (Actor.PERSON, Result.FAILED),
    b"3": (Actor.ASSISTANT, Result.DONE),
    b"4": (Actor.ASSISTANT, Result.FAILED),
}
"""What the mark says of a stop that the ledger does not know: who asked for it, and what came of it."""


def stop_mark(workspace: Workspace, bot: str) -> Path:
    """One byte, made while there is room: a key of `UNRECORDED`, or `0`."""
    return workspace.run_dir(bot) / "unrecorded-stop"


def write_mark(mark: Path, value: bytes) -> None:
    """One byte in place: needs no space on a full disk. Raises OSError if there is no mark to write to."""
    with mark.open("r+b") as file:
        file.write(value)


def note_stop(workspace: Workspace, bot: str, actor: Actor, result: Result) -> None:
    """Remember a stop that the ledger cannot take. Raises OSError if there is no mark to write to.

    Of several the person's is the one, as in the ledger: no assistant's takes it back.
    """
    mark = stop_mark(workspace, bot)
    before = UNRECORDED.get(mark.read_bytes())
    by = Actor.ASSISTANT if actor is Actor.ASSISTANT and (before is None or before[0] is actor) else Actor.PERSON
    came = Result.DONE if result is Result.DONE else Result.FAILED
    write_mark(mark, next(byte for byte, said in UNRECORDED.items() if said == (by, came)))


def stopped_without_ledger(workspace: Workspace, bot: str) -> tuple[Actor, Result] | None:
    """Whose stop waits to be recorded, and how it went. Makes the mark while there is room: every look does."""
    mark = stop_mark(workspace, bot)
    try:
        return UNRECORDED.get(mark.read_bytes())
    except FileNotFoundError:
        with suppress(OSError):
            mark.parent.mkdir(mode=0o700, exist_ok=True)
            mark.write_bytes(b"0")
    except OSError:
        pass
    return None


def _record_stop_made_without_ledger(case: Case) -> None:
    """A stop on a full disk is written down now, so that no round takes the bot for one that died."""
    waiting = stopped_without_ledger(case.bench.fleet.workspace, case.bot.name)
    if waiting is None:
        return
    actor, result = waiting
    intent = case.bench.journal.record(
        Kind.INTENT, at=case.bench.clock(), bot=case.bot.name, action=Action.STOP.value, actor=actor.value,
        sentence="asked while the ledger could not be written",
    )  # fmt: skip
    was = "was stopped" if result is Result.DONE else "could not be stopped"
    case.bench.journal.record(
        Kind.OUTCOME, at=case.bench.clock(), bot=case.bot.name, action=Action.STOP.value, actor=actor.value,
        sentence=f"{case.bot.name} {was} while the ledger could not be written.", ref=intent.id, result=result.value,
    )  # fmt: skip
    write_mark(stop_mark(case.bench.fleet.workspace, case.bot.name), b"0")
