"""What the bots of a fleet share: this machine, remembered from look to look, and incidents of several of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from . import alerts, hostring
from .bench import HISTORY_REACHES, Bench
from .durable import Lock
from .incidents import Incident, incidents, party_of
from .ledger import Entry, Kind
from .model import Action, ActionReport, EngineError, HostLook, LedgerError, Status, Verdict

WAIT = 5.0
"""Seconds to wait for another round that is telling people right now."""
HOST = "host"
"""Cursor of no bot: what was seen of this machine."""


def host_of(bench: Bench) -> HostLook | None:
    """This machine, as the newest look of this run saw it."""
    return next((one.observation.host for one in bench.seen.values() if one.observation.host), None)


def remembered(bench: Bench) -> list[tuple[str, str, dict[str, Any]]]:
    """The cursor to be written for this machine: (no bot, its name, value)."""
    host = host_of(bench)
    return [("", HOST, hostring.remember(bench.cursor("", HOST), host))] if host else []


def shared(bench: Bench, verdicts: Iterable[Verdict]) -> tuple[Incident, ...]:
    """What several of these bots have at once."""
    parties = [
        party_of(bench.fleet.get(one.bot).bot, one, bench.seen[one.bot].observation)
        for one in verdicts
        if one.bot in bench.seen
    ]
    return incidents(parties, host_of(bench), bench.clock())


def tell(
    bench: Bench, verdicts: Sequence[Verdict], found: Sequence[Incident], actions: Iterable[ActionReport]
) -> Iterator[alerts.Alert]:
    """Alerts that are due, recorded. Two rounds at the same time tell once; a full disk keeps nobody from telling.

    A round that hangs with the lock must not silence all others, so that after `WAIT` they go on without it. Then the
    ledger's order decides: an alert is recorded first, and told by the one whose entry of it is the oldest.
    """
    faulty = [one for one in verdicts if one.status is Status.FAULTY]
    histories = {one.bot: bench.history(one.bot) for one in faulty}
    with Lock(bench.fleet.workspace.state_dir / "alerts.lock") as lock:
        with suppress(EngineError):
            lock.acquire(wait=WAIT)
        told = _told(bench)
        due = alerts.due_together(
            faulty, found, bench.playbooks, histories, told, bench.clock(), _of_faulty(actions, faulty)
        )
        newest = max((one.seq for one in told), default=0)
        for alert in due:
            if not _told_meanwhile(bench, alert, newest) and _is_first(bench, alert, newest, _record(bench, alert)):
                yield alert


def _told_meanwhile(bench: Bench, alert: alerts.Alert, newest: int, before: int | None = None) -> bool:
    """Whether another round recorded the same alert since we read what was told, and before the entry `before`."""
    others = (one for one in _told(bench) if one.seq > newest and (before is None or one.seq < before))
    return any(_is_same(one, alert) for one in others)


def _is_same(one: Entry, alert: alerts.Alert) -> bool:
    names = ("fault", "given_up", "incident")
    return (one.bot or "") == alert.bot and all(one.data.get(name) == alert.data.get(name) for name in names)


def _is_first(bench: Bench, alert: alerts.Alert, newest: int, entry: Entry | None) -> bool:
    """What could not be recorded is told all the same."""
    return entry is None or not _told_meanwhile(bench, alert, newest, entry.seq)


def _of_faulty(actions: Iterable[ActionReport], faulty: Iterable[Verdict]) -> list[ActionReport]:
    names = {one.bot for one in faulty}
    return [one for one in actions if one.bot in names]


def _told(bench: Bench) -> list[Entry]:
    try:
        return bench.ledger.entries(kinds=[Kind.ALERT], since=bench.clock() - HISTORY_REACHES)
    except LedgerError as error:
        bench.troubles.append(str(error))
        return []


def _record(bench: Bench, alert: alerts.Alert) -> Entry | None:
    try:
        return bench.journal.record(
            Kind.ALERT, at=bench.clock(), bot=alert.bot or None, action=Action.ALERT.value, actor=bench.actor.value,
            sentence=alert.sentence, data=alert.data,
        )  # fmt: skip
    except LedgerError as error:
        bench.troubles.append(str(error))
        return None
