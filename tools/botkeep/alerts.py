"""Which faults people have to be told of now: one alert for one incident, of one bot or several. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .history import incident_began
from .incidents import Incident
from .ledger import Entry, Kind
from .model import ActionReport, CauseClass, Fault, History, Result, Status, Verdict
from .playbooks import Playbooks, Policy

SEVERITIES = ("info", "warning", "critical")
FOLLOWS = frozenset(
    {
        Fault.BOT_NOT_RUNNING,
        Fault.BOT_HUNG,
        Fault.BOT_CRASH_LOOPING,
        Fault.HEALTH_ENDPOINT_FAILING,
        Fault.DATA_STALE,
    }
)
"""What may come of a shared cause; the other faults of its bots are their own."""


@dataclass(frozen=True)
class Alert:
    """What a person is told: one sentence about one bot, or about several that have one cause."""

    bot: str
    """Empty: several."""
    sentence: str
    fault: Fault | None
    severity: str
    incident: str = ""
    """Its id, where several bots have it."""
    covers: tuple[tuple[str, Fault], ...] = ()
    """(bot, fault) that people know of by this alert too."""
    given_up: bool = False

    @property
    def data(self) -> dict[str, Any]:
        """For the ledger's entry, by which the next round knows that this was told."""
        known: dict[str, Any] = {"fault": self.fault.value if self.fault else None, "given_up": self.given_up}
        if self.incident:
            known |= {"incident": self.incident, "covers": {bot: fault.value for bot, fault in self.covers}}
        return known


def due_together(
    verdicts: Sequence[Verdict],
    incidents: Iterable[Incident],
    playbooks: Playbooks,
    histories: Mapping[str, History],
    told: Sequence[Entry],
    now: datetime,
    reports: Iterable[ActionReport] = (),
) -> tuple[Alert, ...]:
    """All alerts that are due: incidents of several bots first, then what single bots have beside them.

    `told`: the ledger's alerts of all bots, those without a bot among them. `reports`: this round's actions. Each
    alert has to be recorded with its `data`, under the lock under which `told` was read.
    """
    cases = [_Case(one, _members(one, verdicts), playbooks, histories, told, now) for one in incidents]
    shared = [alert for case in cases if (alert := case.alert())]
    known = {pair for alert in shared for pair in alert.covers} | {pair for case in cases for pair in case.known()}
    alone = [
        alert
        for one in verdicts
        if (one.bot, one.fault) not in known
        and (alert := due(one, playbooks, histories.get(one.bot, History()), told, now))
    ]
    stuck = [
        alert
        for report in reports
        if not (report.result is Result.REFUSED and (report.bot, report.fault) in known)
        and (alert := _given_up(report, verdicts, histories, told, now))
    ]
    return (*shared, *alone, *stuck)


def _members(incident: Incident, verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    return tuple(one for one in verdicts if one.bot in incident.bots)


@dataclass(frozen=True)
class _Case:
    """One incident, with what was told before."""

    incident: Incident
    members: tuple[Verdict, ...]
    playbooks: Playbooks
    histories: Mapping[str, History]
    told: Sequence[Entry]
    now: datetime

    def alert(self) -> Alert | None:
        """If it stands long enough, or a member's own alert would be due, and nobody was told yet."""
        explained = [one for one in self.members if one.fault and self._explains(one)]
        if self._was_told() or not self._is_seen(explained):
            return None
        own = [one for one in explained if self._member_is_due(one)]
        if self.now - self._began() < self._policy().alert.after and not own:
            return None
        down = [one.bot for one in self.members if one.up is False and one.status is Status.FAULTY]
        suffix = f" Down: {', '.join(down)}." if down else ""
        return Alert(
            bot="",
            sentence=f"{self.incident.sentence}{suffix} (since {self._began():%Y-%m-%d %H:%M:%SZ})",
            fault=self.incident.fault,
            severity=self._severity(explained),
            incident=self.incident.id,
            covers=tuple((one.bot, one.fault) for one in explained if one.fault),
        )

    def known(self) -> Iterable[tuple[str, Fault | None]]:
        """What nobody is told again: bots that joined an incident of which people know."""
        if self._was_told():
            yield from ((one.bot, one.fault) for one in self.members if one.fault is self.incident.fault)

    def _explains(self, verdict: Verdict) -> bool:
        return verdict.status is Status.FAULTY and verdict.fault in (self.incident.fault, *FOLLOWS)

    def _is_seen(self, explained: Sequence[Verdict]) -> bool:
        """Confirmed for one bot at least. What is no fault of a bot (no names) is told by how long it stands."""
        if self.incident.fault is None:
            return True
        return any(one.confirmed and self.incident.fault in one.faults for one in explained)

    def _member_is_due(self, verdict: Verdict) -> bool:
        return due(verdict, self.playbooks, self._history(verdict), self.told, self.now) is not None

    def _history(self, verdict: Verdict) -> History:
        return self.histories.get(verdict.bot, History())

    def _began(self) -> datetime:
        same = [one for one in self.members if one.fault and one.fault is self.incident.fault]
        return min([self.incident.since, *(incident_began(one, self._history(one)) for one in same)])

    def _was_told(self) -> bool:
        began = self._began()
        return any(
            one.kind is Kind.ALERT and one.at >= began and one.data.get("incident") == self.incident.id
            for one in self.told
        )

    def _policy(self) -> Policy:
        """Of its fault. Without one it is as urgent as waiting for an exchange, or as a bot that is down."""
        without = Fault.API_RATE_LIMITED if self.incident.klass is CauseClass.WAIT else Fault.BOT_NOT_RUNNING
        return self.playbooks.get(self.incident.fault or without).policy

    def _severity(self, explained: Iterable[Verdict]) -> str:
        found = [self._policy().severity]
        found += [self.playbooks.get(one.fault).policy.severity for one in explained if one.fault]
        return max(found, key=SEVERITIES.index)


# ---------------------------------------------------------------------------------------------------- single bots


def due(verdict: Verdict, playbooks: Playbooks, past: History, entries: Sequence[Entry], now: datetime) -> Alert | None:
    """The alert for the first fault, if it stands for longer than its playbook's `alert.after` and was not told yet.

    `entries`: of the ledger; an ALERT about this bot with this fault since the incident began means: told.
    """
    if verdict.status is not Status.FAULTY or verdict.fault is None or not verdict.confirmed:
        return None
    policy = playbooks.get(verdict.fault).policy
    began = incident_began(verdict, past)
    if now - began < policy.alert.after or _told(entries, verdict.bot, verdict.fault, began):
        return None
    return Alert(verdict.bot, f"{verdict.sentence} (since {began:%Y-%m-%d %H:%M:%SZ})", verdict.fault, policy.severity)


def given_up(report: ActionReport, entries: Sequence[Entry], began: datetime) -> Alert | None:
    """The alert for an action that failed or that no clock will allow again: somebody has to come."""
    stuck = report.result is Result.FAILED or (report.result is Result.REFUSED and report.earliest is None)
    if not stuck or _told(entries, report.bot, report.fault, began, given_up=True):
        return None
    return Alert(report.bot, report.sentence, report.fault, "critical", given_up=True)


def _given_up(
    report: ActionReport,
    verdicts: Iterable[Verdict],
    histories: Mapping[str, History],
    told: Sequence[Entry],
    now: datetime,
) -> Alert | None:
    verdict = next((one for one in verdicts if one.bot == report.bot), None)
    began = incident_began(verdict, histories.get(report.bot, History())) if verdict else now
    return given_up(report, told, began)


def _told(entries: Iterable[Entry], bot: str, fault: Fault | None, since: datetime, *, given_up: bool = False) -> bool:
    return any(
        entry.kind is Kind.ALERT
        and entry.at >= since
        and bool(entry.data.get("given_up")) is given_up
        and _is_about(entry, bot, fault.value if fault else None)
        for entry in entries
    )


def _is_about(entry: Entry, bot: str, fault: str | None) -> bool:
    if entry.data.get("incident"):
        covers = entry.data.get("covers") or {}
        return bot in covers and covers[bot] == fault
    return entry.bot == bot and entry.data.get("fault") == fault
