"""Which faults people have to be told of now: one alert for one incident, of one bot or several. Pure.

What they know already is in the incidents that are open (`open_alerts`); how those go on is `alert_life`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .history import incident_began
from .incidents import WINDOW, Incident
from .judge import length
from .model import ActionReport, CauseClass, Fault, History, Result, Status, Verdict, Wanted
from .open_alerts import SHARED, UNKNOWN, Known, Open
from .playbooks import Playbooks, Policy

SEVERITIES = ("info", "warning", "critical")
NAMED = 10
"""Bots that a sentence names; of more, how many more."""
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
    covers: tuple[tuple[str, str], ...] = ()
    """(bot, fault) that people know of by this alert too."""
    given_up: bool = False
    bots: tuple[str, ...] = ()
    """Whom it is about, where that is not the one bot."""
    began: datetime | None = None
    unknown: bool = False
    """Nobody can say how the bot is."""

    @property
    def members(self) -> tuple[str, ...]:
        """Everyone whom it is about."""
        return (self.bot,) if self.bot else self.bots

    @property
    def faults(self) -> tuple[tuple[str, str], ...]:
        """(bot, fault) that people know of by it."""
        own = ((self.bot, fault_word(self)),) if self.bot else ()
        return (*self.covers, *own)

    @property
    def data(self) -> dict[str, Any]:
        """For the ledger's entry, by which the next round knows that this was told."""
        known: dict[str, Any] = {"fault": self.fault.value if self.fault else None, "given_up": self.given_up}
        if self.unknown:
            known["unknown"] = True
        if self.incident:
            known |= {"incident": self.incident, "covers": dict(self.covers)}
        return known


def fault_word(alert: Alert) -> str:
    """The fault, or what stands for none."""
    return alert.fault.value if alert.fault else UNKNOWN if alert.unknown else SHARED


def due_together(
    verdicts: Sequence[Verdict],
    incidents: Iterable[Incident],
    playbooks: Playbooks,
    histories: Mapping[str, History],
    known: Known,
    reports: Iterable[ActionReport] = (),
    silenced: Container[str] = (),
) -> tuple[Alert, ...]:
    """All alerts that are due: incidents of several bots first, then what single bots have beside them.

    `known`: what people were told and is not over. `reports`: this round's actions. `silenced`: bots that nobody is
    told of now; what several have is told if one of them is not among these.
    """
    heard = [one for one in verdicts if one.bot not in silenced]
    told_of = [one for one in incidents if _is_news(one, known, silenced)]
    cases = [_Case(one, _members(one, verdicts), playbooks, histories, known) for one in told_of]
    shared = [alert for case in cases if (alert := case.alert())]
    covered = {pair for alert in shared for pair in alert.covers} | {pair for case in cases for pair in case.joined()}
    alone = [
        alert
        for one in heard
        if one.fault
        and (one.bot, one.fault.value) not in covered
        and (alert := due(one, playbooks, histories.get(one.bot, History()), known))
    ]
    stuck = [
        alert
        for report in reports
        if not (report.result is Result.REFUSED and (report.bot, _value(report.fault)) in covered)
        and report.bot not in silenced
        and (alert := _given_up(report, verdicts, histories, known))
    ]
    return (*shared, *alone, *stuck, *_unknown(heard, playbooks, histories, known))


def _is_news(incident: Incident, known: Known, silenced: Container[str]) -> bool:
    """Whether it has a bot of which people are told and do not know that already."""
    heard = [bot for bot in incident.bots if bot not in silenced]
    word = _value(incident.fault)
    return bool(heard) and not (word and all(known.fault(bot, word) for bot in heard))


def _value(fault: Fault | None) -> str:
    return fault.value if fault else ""


def _members(incident: Incident, verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """How its bots are: by this look, else by their newest one."""
    seen = [one for one in verdicts if one.bot in incident.bots]
    names = {one.bot for one in seen}
    return (*seen, *(one for one in incident.elsewhere if one.bot not in names))


@dataclass(frozen=True)
class _Case:
    """One incident, with what was told before."""

    incident: Incident
    members: tuple[Verdict, ...]
    playbooks: Playbooks
    histories: Mapping[str, History]
    known: Known

    def alert(self) -> Alert | None:
        """If it stands long enough, or a member's own alert would be due, and nobody was told yet."""
        explained = [one for one in self.members if one.fault and self._explains(one)]
        if self.known.incident(self.incident.id) or not self._is_seen(explained):
            return None
        own = [one for one in explained if self._member_is_due(one)]
        if self._seen_last() - self._began() < self._policy().alert.after and not own:
            return None
        down = [one.bot for one in self.members if one.up is False and one.status is Status.FAULTY]
        suffix = f" Down: {', '.join(down)}." if down else ""
        return Alert(
            bot="",
            sentence=f"{self.incident.sentence}{suffix} {_since(self._began())}",
            fault=self.incident.fault,
            severity=self._severity(explained),
            incident=self.incident.id,
            covers=tuple((one.bot, one.fault.value) for one in explained if one.fault),
            bots=self.incident.bots,
            began=self._began(),
        )

    def joined(self) -> Iterable[tuple[str, str]]:
        """What nobody is told again: bots that joined an incident of which people know."""
        if self.known.incident(self.incident.id):
            yield from ((one.bot, _value(one.fault)) for one in self.members if one.fault is self.incident.fault)

    def _explains(self, verdict: Verdict) -> bool:
        return verdict.status is Status.FAULTY and verdict.fault in (self.incident.fault, *FOLLOWS)

    def _is_seen(self, explained: Sequence[Verdict]) -> bool:
        """Confirmed for one bot at least. What is no fault of a bot (no names) is told by how long it stands."""
        if self.incident.fault is None:
            return True
        return any(one.confirmed and self.incident.fault in one.faults for one in explained)

    def _member_is_due(self, verdict: Verdict) -> bool:
        return due(verdict, self.playbooks, self._history(verdict), self.known) is not None

    def _history(self, verdict: Verdict) -> History:
        return self.histories.get(verdict.bot, History())

    def _seen_last(self) -> datetime:
        return max((one.at for one in self.members), default=self.incident.since)

    def _began(self) -> datetime:
        same = [one for one in self.members if one.fault and one.fault is self.incident.fault]
        return min([self.incident.since, *(incident_began(one, self._history(one)) for one in same)])

    def _policy(self) -> Policy:
        """Of its fault. Without one it is as urgent as waiting for an exchange, or as a bot that is down."""
        without = Fault.API_RATE_LIMITED if self.incident.klass is CauseClass.WAIT else Fault.BOT_NOT_RUNNING
        return self.playbooks.get(self.incident.fault or without).policy

    def _severity(self, explained: Iterable[Verdict]) -> str:
        found = [self._policy().severity]
        found += [self.playbooks.get(one.fault).policy.severity for one in explained if one.fault]
        return max(found, key=SEVERITIES.index)


# ----------------------------------------------------------------------------------------------- what is known then


def is_part_of(one: Open, alert: Alert) -> bool:
    """One bot's own incident, of which the cause that several have says all."""
    return bool(one.bot) and not one.incident and one.bot in alert.members and {*one.faults} <= {*alert.covers}


def opened(alert: Alert, own: Open | None, merged: Sequence[Open], now: datetime) -> Open:
    """What people know by this alert: a new incident (its id is the entry's), or `own` with a further fault.

    `merged`: incidents of single bots, of which it says all.
    """
    began = min([alert.began or now, *(one.began for one in (*merged, *([own] if own else [])))])
    given_up = (alert.bot,) if alert.given_up else tuple(bot for one in merged for bot in one.given_up)
    if own is None:
        return Open(
            id="", told=now, began=began, last=now, bots=alert.members, faults=tuple(dict.fromkeys(alert.faults)),
            sentence=alert.sentence, severity=alert.severity, incident=alert.incident, given_up=given_up,
        )  # fmt: skip
    return replace(
        own,
        began=began,
        last=now,
        faults=tuple(dict.fromkeys((*own.faults, *alert.faults))),
        sentence=alert.sentence,
        severity=max(own.severity, alert.severity, key=SEVERITIES.index),
        given_up=tuple(dict.fromkeys((*own.given_up, *given_up))),
    )


def joining(
    incidents: Iterable[Incident],
    verdicts: Sequence[Verdict],
    known: Known,
    now: datetime,
    silenced: Container[str] = (),
) -> Iterable[tuple[Open, tuple[Open, ...]]]:
    """Open incidents whose cause has reached further bots: the same ones, with these; and what becomes part of them.

    One bot's own incident, of which people heard a moment ago, becomes the one of all that have its cause; later it is
    news that others have it too. `silenced`: bots that join when people are told of them again.
    """
    for incident in incidents:
        parts = _alone_with(incident, known)
        bots = [bot for bot in incident.bots if bot not in silenced]
        new = {*bots} - {part.bot for part in parts}
        just_now = any(abs(now - part.told) <= WINDOW for part in parts)
        one = known.incident(incident.id) or (next(iter(parts), None) if just_now or not new else None)
        if one is None:
            continue
        members = [each for each in _members(incident, verdicts) if each.bot not in silenced]
        same = [(member.bot, _value(member.fault)) for member in members if member.fault is incident.fault]
        for wider in _with(_made_one(one, parts, incident), bots, same, one):
            yield wider, tuple(part for part in parts if part.id != one.id)
    for verdict in verdicts:
        found = known.incident(reason_id(verdict)) if _is_unknown(verdict) and verdict.bot not in silenced else None
        if found is not None:
            yield from ((wider, ()) for wider in _with(found, (verdict.bot,), [(verdict.bot, UNKNOWN)], found))


def _alone_with(incident: Incident, known: Known) -> list[Open]:
    """Incidents of single bots that are nothing but this one."""
    if incident.fault is None:
        return []
    explained = {_value(fault) for fault in (incident.fault, *FOLLOWS)}
    return [
        one
        for one in known.opens
        if not one.incident
        and one.bot in incident.bots
        and (one.bot, incident.fault.value) in one.faults
        and {fault for _, fault in one.faults} <= explained
    ]


def _made_one(one: Open, parts: Iterable[Open], incident: Incident) -> Open:
    """With what people know by its parts."""
    every = (one, *parts)
    return replace(
        one,
        began=min(part.began for part in every),
        bots=tuple(dict.fromkeys(bot for part in every for bot in part.bots)),
        faults=_once(pair for part in every for pair in part.faults),
        sentence=one.sentence if one.incident else incident.sentence,
        severity=max((part.severity for part in every), key=SEVERITIES.index),
        incident=incident.id,
        given_up=tuple(dict.fromkeys(bot for part in every for bot in part.given_up)),
    )


def _with(one: Open, bots: Iterable[str], faults: Iterable[tuple[str, str]], before: Open) -> Iterable[Open]:
    wider = replace(one, bots=tuple(dict.fromkeys((*one.bots, *bots))), faults=_once((*one.faults, *faults)))
    if len(wider.bots) > 1 and wider != before:
        yield wider


def _once(faults: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(dict.fromkeys(faults))


# ---------------------------------------------------------------------------------------------------- single bots


def due(verdict: Verdict, playbooks: Playbooks, past: History, known: Known) -> Alert | None:
    """The alert for the first fault, if it stands for longer than its playbook's `alert.after` and is not known.

    As of the look: what took this round minutes after it, the bot may have been well in.
    """
    if verdict.status is not Status.FAULTY or verdict.fault is None or not verdict.confirmed:
        return None
    policy = playbooks.get(verdict.fault).policy
    began = incident_began(verdict, past)
    if verdict.at - began < policy.alert.after or known.fault(verdict.bot, verdict.fault.value):
        return None
    sentence = f"{verdict.sentence} {_since(began)}"
    return Alert(verdict.bot, sentence, verdict.fault, policy.severity, began=began)


def _since(began: datetime) -> str:
    return f"(since {began:%Y-%m-%d %H:%M:%SZ})"


def _given_up(
    report: ActionReport,
    verdicts: Iterable[Verdict],
    histories: Mapping[str, History],
    known: Known,
) -> Alert | None:
    """The alert for an action that failed or that no clock will allow again: somebody has to come."""
    stuck = report.result is Result.FAILED or (report.result is Result.REFUSED and report.earliest is None)
    verdict = next((one for one in verdicts if one.bot == report.bot), None)
    if not stuck or known.given_up(report.bot) or verdict is None or verdict.status is not Status.FAULTY:
        return None
    began = incident_began(verdict, histories.get(report.bot, History()))
    return Alert(report.bot, report.sentence, report.fault or verdict.fault, "critical", given_up=True, began=began)


# ------------------------------------------------------------------------------------ of which nobody can say a thing


def _unknown(
    verdicts: Iterable[Verdict], playbooks: Playbooks, histories: Mapping[str, History], known: Known
) -> Iterable[Alert]:
    """Bots that nobody can see for as long as one may be down; those with one reason (an engine is away) together.

    Whether they trade or died cannot be said: that is as urgent as one that is down.
    """
    policy = playbooks.get(Fault.BOT_NOT_RUNNING).policy
    groups: dict[str, list[Verdict]] = {}
    for one in verdicts:
        if _is_unknown(one) and not known.fault(one.bot, UNKNOWN) and not known.incident(reason_id(one)):
            groups.setdefault(reason_id(one), []).append(one)
    for id_, group in groups.items():
        began = min(unknown_since(one, histories.get(one.bot, History())) for one in group)
        seen = max(one.at for one in group)
        if seen - began >= policy.alert.after:
            yield _nobody_knows(id_, group, began, policy.severity, seen)


def _is_unknown(verdict: Verdict) -> bool:
    return verdict.status is Status.UNKNOWN and verdict.wanted is not Wanted.DOWN


def _nobody_knows(id_: str, group: Sequence[Verdict], began: datetime, severity: str, seen: datetime) -> Alert:
    bots = tuple(one.bot for one in group)
    named = ", ".join(bots[:NAMED]) + (f" and {len(bots) - NAMED} more" if len(bots) > NAMED else "")
    who = f"{bots[0]} is" if len(bots) == 1 else f"{len(bots)} bots are ({named})"
    sentence = f"Nobody knows since {length(seen - began)} how {who}: {group[0].sentence} {_since(began)}"
    covers = tuple((bot, UNKNOWN) for bot in bots)
    return Alert("", sentence, None, severity, id_, covers, bots=bots, began=began, unknown=True)


def reason_id(verdict: Verdict) -> str:
    """The same for all bots that cannot be seen for one reason: `unknown:` and a digest."""
    reason = verdict.sentence.replace(verdict.bot, "")
    return f"{UNKNOWN}:{hashlib.sha256(reason.encode('utf-8', 'replace')).hexdigest()[:12]}"


def unknown_since(verdict: Verdict, past: History) -> datetime:
    """When nobody could say for the first time in this stretch how the bot is."""
    since = verdict.at
    for span in reversed(past.spans):
        if span.status is not Status.UNKNOWN:
            break
        since = min(since, span.first)
    return since
