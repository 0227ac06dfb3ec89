"""Which incidents of a round wake an assistant, and making those calls. Most rounds load nothing for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from .bench import Bench
from .explaining import explained
from .ledger import Kind
from .model import ActionReport, LedgerError, Status, Verdict

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
        claimed = wake.claim(bench, wake.needed(heard, actions, shared, policies, sick))
    except LedgerError as error:
        bench.troubles.append(str(error))
        return ()
    known = {one.bot: one for one in verdicts}
    return tuple(_with_packet(bench, one, known, shared) for one in claimed)


def _with_packet(bench: Bench, call: Call, verdicts: Mapping[str, Verdict], shared: Sequence[Incident]) -> Call:
    from . import wake

    verdict = next((verdicts[bot] for bot in call.bots if bot in verdicts and verdicts[bot].fault), None)
    if call.refused or verdict is None or verdict.fault is None:
        return call
    found = explained(bench, bench.fleet.usable(verdict.bot), verdict, shared)
    since = bench.clock() - PACKET_REACHES
    kinds = [Kind.OUTCOME, Kind.ALERT, Kind.NOTE, Kind.ASK]
    entries = bench.ledger.entries(bot=verdict.bot, since=since, kinds=kinds, limit=12, newest_first=True)
    policy = bench.playbooks.get(call.fault or verdict.fault).policy
    return replace(call, packet=wake.packet(call, found, verdict, list(reversed(entries)), policy))


def make_calls(bench: Bench, calls: Sequence[Call]) -> None:
    """Make them one after the other; what fails goes to people, and is queued then. May take minutes."""
    from . import wake

    for call in calls:
        try:
            if call.refused or not call.packet:
                wake.refuse(bench, call)
            else:
                wake.record(bench, call, wake.run(bench.fleet.wake, call.packet, bench.fleet.workspace.home))
        except LedgerError as error:
            bench.troubles.append(str(error))
