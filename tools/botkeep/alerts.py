"""Which faults people have to be told of now: one alert for one incident. Pure; `rounds` records them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from .history import incident_began
from .ledger import Entry, Kind
from .model import ActionReport, Fault, History, Result, Status, Verdict
from .playbooks import Playbooks


@dataclass(frozen=True)
class Alert:
    """What a person is told: one sentence about one bot."""

    bot: str
    sentence: str
    fault: Fault | None
    severity: str


def due(verdict: Verdict, playbooks: Playbooks, past: History, entries: Sequence[Entry], now: datetime) -> Alert | None:
    """The alert for the first fault, if it stands for longer than its playbook's `alert.after` and was not told yet.

    `entries`: the bot's ledger entries; an ALERT with this fault since the incident began means: told.
    """
    if verdict.status is not Status.FAULTY or verdict.fault is None or not verdict.confirmed:
        return None
    policy = playbooks.get(verdict.fault).policy
    began = incident_began(verdict, past)
    if now - began < policy.alert.after or _told(entries, verdict.fault, began):
        return None
    return Alert(verdict.bot, f"{verdict.sentence} (since {began:%Y-%m-%d %H:%M:%SZ})", verdict.fault, policy.severity)


def given_up(report: ActionReport, entries: Sequence[Entry], began: datetime) -> Alert | None:
    """The alert for an action that failed or that no clock will allow again: somebody has to come."""
    stuck = report.result is Result.FAILED or (report.result is Result.REFUSED and report.earliest is None)
    if not stuck or _told(entries, report.fault, began, given_up=True):
        return None
    return Alert(report.bot, report.sentence, report.fault, "critical")


def _told(entries: Iterable[Entry], fault: Fault | None, since: datetime, *, given_up: bool = False) -> bool:
    value = fault.value if fault else None
    return any(
        entry.kind is Kind.ALERT
        and entry.at >= since
        and entry.data.get("fault") == value
        and bool(entry.data.get("given_up")) is given_up
        for entry in entries
    )
