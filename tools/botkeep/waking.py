"""Which incidents of a round wake an assistant, and making those calls. Most rounds load nothing for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .bench import Bench
from .explaining import explained
from .ledger import Kind
from .model import ActionReport, LedgerError, Status, Verdict, iso

if TYPE_CHECKING:
    from .incidents import Incident
    from .wake import Call

PACKET_REACHES = timedelta(days=2)


def calls_for(
    bench: Bench, verdicts: Sequence[Verdict], actions: Sequence[ActionReport], shared: Sequence[Incident]
) -> tuple[Call, ...]:
    """What an assistant is woken for, once for an incident. Most rounds load nothing for it.

    A bot that is silenced wakes nobody; what still stands at the end of its silence does then.
    """
    sick = {one.bot: bench.history(one.bot) for one in verdicts if one.status is Status.FAULTY}
    if not sick or not bench.fleet.wake:
        return ()
    from . import wake
    from .silences import active

    policies = {book.policy.fault: book.policy for book in bench.playbooks}
    try:
        silenced = {one.bot for one in active(bench.ledger, bench.clock())}
        heard = [one for one in verdicts if one.bot not in silenced]
        claimed = wake.claim(bench, wake.needed(heard, actions, shared, policies, sick), sick)
    except LedgerError as error:
        bench.troubles.append(str(error))
        return ()
    known = {one.bot: one for one in verdicts}
    return tuple(_with_packet(bench, one, known, shared) for one in claimed)


def _with_packet(bench: Bench, call: Call, verdicts: Mapping[str, Verdict], shared: Sequence[Incident]) -> Call:
    from .wake_packet import packet

    verdict = next((verdicts[bot] for bot in call.bots if bot in verdicts and verdicts[bot].fault), None)
    if call.refused or verdict is None or verdict.fault is None:
        return call
    found = explained(bench, bench.fleet.usable(verdict.bot), verdict, shared)
    since = bench.clock() - PACKET_REACHES
    kinds = [Kind.OUTCOME, Kind.ALERT, Kind.NOTE, Kind.ASK]
    entries = bench.ledger.entries(bot=verdict.bot, since=since, kinds=kinds, limit=12, newest_first=True)
    policy = bench.playbooks.get(call.fault or verdict.fault).policy
    return replace(call, packet=packet(call, found, verdict, list(reversed(entries)), policy))


def make_calls(bench: Bench, calls: Sequence[Call]) -> None:
    """Make them one after the other; what fails goes to people, and is queued then. May take minutes.

    After one that hung the others are not tried: each would take as long, and people would hear of it that much later.
    """
    from . import wake

    hung = ""
    for number, call in enumerate(calls):
        try:
            wake.still_ours(bench, calls[number:])
            if hung and not call.refused:
                call = replace(call, refused=f"the call before it hung: {hung}")
            if call.refused or not call.packet:
                wake.refuse(bench, call)
            else:
                hung = _make(bench, call)
        except LedgerError as error:
            bench.troubles.append(str(error))


def _make(bench: Bench, call: Call) -> str:
    """One of them; why it had to be ended, empty if it ended itself. Raises LedgerError."""
    from . import wake
    from .wake_command import run

    began = wake.newest(bench)
    woken = run(bench.fleet.wake, call.packet, bench.fleet.workspace.home)
    wake.record(bench, call, woken, began)
    return woken.trouble if woken.late else ""


def hand_over(home: Path, calls: Sequence[Call]) -> None:
    """Have a process of its own make them: cron's next round must not wait minutes for a model.

    What it does not bring to an end, a later round tells people.
    """
    import subprocess

    told = json.dumps([asdict(one) for one in calls], default=iso).encode()
    words = [sys.executable, "-I", "-m", "botkeep.waker", str(home)]
    with suppress(OSError):
        subprocess.run(
            words, input=told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home, start_new_session=True,
            check=False,
        )  # fmt: skip
