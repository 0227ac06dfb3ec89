"""Whom to tell of what, and only once: verdicts, incidents and the ledger's entries in, alerts out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from botkeep.alerts import Alert, due_together
from botkeep.incidents import Incident
from botkeep.ledger import Entry, Kind, Ledger
from botkeep.model import Action, ActionReport, Actor, CauseClass, Fault, History, Result, Span, Status, Verdict
from botkeep.playbooks import packaged_playbooks
from support.tables import NOW

BOOKS = packaged_playbooks()
BOTS = ("doge", "btc", "eth")
LIMITED, DOWN, KEY = Fault.API_RATE_LIMITED, Fault.BOT_NOT_RUNNING, Fault.API_KEY_REJECTED


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def verdict(bot: str, fault: Fault | None = LIMITED, *others: Fault, confirmed: bool = True) -> Verdict:
    status = Status.FAULTY if fault else Status.HEALTHY
    up = fault not in (DOWN, Fault.OUT_OF_MEMORY)
    return Verdict(bot, status, NOW, f"{bot}: {fault}.", fault, others, confirmed=confirmed, up=up)


def past(fault: Fault | None = LIMITED, since: float = 40) -> History:
    """The fault stands since so many minutes."""
    return History(spans=(Span("x", Status.FAULTY, fault, True, ago(since), NOW),))


def incident(
    *bots: str,
    since: float = 40,
    fault: Fault | None = LIMITED,
    klass: CauseClass = CauseClass.WAIT,
    name: str = "rate:binance",
) -> Incident:
    return Incident(name, f"{len(bots)} of 4 bots: binance refuses.", bots, klass, fault, ago(since))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    found = Ledger(tmp_path / "ledger.db")
    yield found
    found.close()


def told(ledger: Ledger, alerts: Iterable[Alert], at: datetime = NOW) -> Sequence[Entry]:
    """What the next round reads, after this one recorded its alerts."""
    for one in alerts:
        ledger.append(
            Kind.ALERT, at=at, bot=one.bot or None, action=Action.ALERT.value, actor=Actor.ROUND.value,
            sentence=one.sentence, data=one.data,
        )  # fmt: skip
    return ledger.entries(kinds=[Kind.ALERT])


def due(
    verdicts: Sequence[Verdict],
    *incidents: Incident,
    known: Sequence[Entry] = (),
    since: float = 40,
    reports: Sequence[ActionReport] = (),
    now: datetime = NOW,
) -> list[Alert]:
    histories = {one.bot: past(one.fault, since) for one in verdicts}
    return list(due_together(verdicts, incidents, BOOKS, histories, known, now, reports))


# -------------------------------------------------------------------------------------------------- several bots


def test_several_bots_with_one_cause_are_one_alert_and_the_next_round_is_silent(ledger: Ledger) -> None:
    bots, shared = [verdict(bot) for bot in BOTS], incident(*BOTS)
    (alert,) = due(bots, shared)
    assert (alert.bot, alert.incident, alert.fault, alert.severity) == ("", "rate:binance", LIMITED, "warning")
    assert alert.sentence == f"3 of 4 bots: binance refuses. (since {ago(40):%Y-%m-%d %H:%M:%SZ})"
    assert due(bots, shared, known=told(ledger, [alert])) == []


def test_an_incident_is_told_after_as_long_as_its_playbook_says() -> None:
    bots = [verdict(bot) for bot in BOTS]
    assert due(bots, incident(*BOTS, since=29), since=29) == []
    assert len(due(bots, incident(*BOTS, since=30), since=30)) == 1


def test_what_was_seen_once_only_is_not_told() -> None:
    assert due([verdict(bot, confirmed=False) for bot in BOTS], incident(*BOTS)) == []


def test_a_bot_that_joins_an_incident_of_which_people_know_is_not_told_alone(ledger: Ledger) -> None:
    first = due([verdict("doge"), verdict("btc")], incident("doge", "btc"))
    assert due([verdict(bot) for bot in BOTS], incident(*BOTS), known=told(ledger, first)) == []


def test_when_all_but_one_are_well_again_the_last_one_was_told_already(ledger: Ledger) -> None:
    known = told(ledger, due([verdict(bot) for bot in BOTS], incident(*BOTS)))
    assert due([verdict("doge"), verdict("btc", None)], known=known) == []


def test_a_lone_bot_of_which_people_know_becomes_an_incident_that_they_do_not_know(ledger: Ledger) -> None:
    alone = due([verdict("doge")])
    assert [(one.bot, one.incident) for one in alone] == [("doge", "")]
    known = told(ledger, alone)
    assert due([verdict("doge")], known=known) == []
    assert [one.incident for one in due([verdict(bot) for bot in BOTS], incident(*BOTS), known=known)] == [
        "rate:binance"
    ]


def test_an_incident_that_comes_back_after_it_was_over_is_told_again(ledger: Ledger) -> None:
    bots = [verdict(bot) for bot in BOTS]
    known = told(ledger, due(bots, incident(*BOTS)), at=ago(35))
    assert due(bots, incident(*BOTS, since=40), known=known, since=40) == []
    assert len(due(bots, incident(*BOTS, since=31), known=known, since=31)) == 1


def test_two_incidents_at_once_are_two_alerts() -> None:
    bots = [verdict("doge"), verdict("btc"), verdict("eth", KEY), verdict("sol", KEY)]
    keys = incident("eth", "sol", fault=KEY, klass=CauseClass.STOP, name="key:$KRAKEN_KEY")
    assert [one.incident for one in due(bots, incident("doge", "btc"), keys)] == ["rate:binance", "key:$KRAKEN_KEY"]


# ------------------------------------------------------------------------------ what follows from it, and what not


def test_bots_that_died_of_it_are_told_with_it_and_at_once_when_one_alone_would_be(ledger: Ledger) -> None:
    """Names cannot be resolved for six minutes: two bots are down, and one waits. bot-not-running tells after five."""
    bots = [verdict("doge", DOWN), verdict("btc", DOWN), verdict("eth", None)]
    names = incident(*BOTS, since=6, fault=None, klass=CauseClass.HOST, name="dns")
    (alert,) = due(bots, names, since=6)
    assert alert.sentence.startswith("3 of 4 bots: binance refuses. Down: doge, btc. (since ")
    assert alert.severity == "critical"
    assert alert.covers == (("doge", DOWN), ("btc", DOWN))
    assert due(bots, names, known=told(ledger, [alert]), since=6) == []


def test_a_bot_that_goes_down_after_people_were_told_is_told_by_itself(ledger: Ledger) -> None:
    known = told(ledger, due([verdict(bot) for bot in BOTS], incident(*BOTS)), at=ago(20))
    later = due([verdict("doge", LIMITED), verdict("btc", LIMITED), verdict("eth", DOWN)], incident(*BOTS), known=known)
    assert [(one.bot, one.fault) for one in later] == [("eth", DOWN)]


def test_a_members_other_fault_is_its_own() -> None:
    bots = [verdict("doge", Fault.BOT_DUPLICATED, LIMITED), verdict("btc"), verdict("eth")]
    told_of = [(one.bot, one.incident, one.fault) for one in due(bots, incident(*BOTS))]
    assert told_of == [("", "rate:binance", LIMITED), ("doge", "", Fault.BOT_DUPLICATED)]


@pytest.mark.parametrize(
    ("klass", "after", "severity"),
    [(CauseClass.WAIT, 30, "warning"), (CauseClass.HOST, 5, "critical"), (CauseClass.STOP, 5, "critical")],
)
def test_what_is_no_bots_fault_is_told_when_it_lasts(klass: CauseClass, after: float, severity: str) -> None:
    bots = [verdict(bot, None) for bot in BOTS]

    def at(minutes: float) -> list[Alert]:
        return due(bots, incident(*BOTS, since=minutes, fault=None, klass=klass), since=minutes)

    assert at(after - 1) == []
    (alert,) = at(after)
    assert (alert.fault, alert.severity) == (None, severity)


# ----------------------------------------------------------------------------------------------------- single bots


def test_a_lone_bots_fault_is_one_alert_and_told_once(ledger: Ledger) -> None:
    (alert,) = due([verdict("doge", DOWN)])
    assert (alert.bot, alert.fault, alert.severity) == ("doge", DOWN, "critical")
    assert alert.data == {"fault": "bot-not-running", "given_up": False}
    known = told(ledger, [alert])
    assert due([verdict("doge", DOWN)], known=known) == []
    assert [one.bot for one in due([verdict("doge", DOWN), verdict("btc", DOWN)], known=known)] == ["btc"]


def stuck(bot: str, result: Result, fault: Fault = DOWN, **more: object) -> ActionReport:
    return ActionReport(bot, Action.RESTART, result, f"{bot}: it did not work.", fault=fault, **more)  # type: ignore[arg-type]


def test_an_action_that_failed_or_that_no_clock_allows_again_is_told_once_more(ledger: Ledger) -> None:
    bots = [verdict("doge", DOWN)]
    known = told(ledger, due(bots))
    for result, earliest, count in ((Result.FAILED, None, 1), (Result.REFUSED, None, 1), (Result.REFUSED, NOW, 0)):
        found = due(bots, known=known, reports=[stuck("doge", result, earliest=earliest)])
        assert [(one.bot, one.given_up, one.severity) for one in found] == [("doge", True, "critical")] * count
    known = told(ledger, due(bots, known=known, reports=[stuck("doge", Result.FAILED)]))
    assert due(bots, known=known, reports=[stuck("doge", Result.FAILED)]) == []


def test_refusals_that_an_incident_explains_are_not_told_bot_by_bot() -> None:
    bots = [verdict(bot, DOWN) for bot in BOTS]
    keys = incident(*BOTS, fault=None, klass=CauseClass.HOST, name="clock")
    reports = [stuck("doge", Result.REFUSED), stuck("btc", Result.REFUSED), stuck("eth", Result.FAILED)]
    found = due(bots, keys, reports=reports)
    assert [(one.bot, one.incident, one.given_up) for one in found] == [("", "clock", False), ("eth", "", True)]


def test_whatever_becomes_of_three_bots_nobody_is_told_twice_of_the_same(ledger: Ledger) -> None:
    """All ways in which three bots may be well, limited or down in three rounds: no (bot, fault) is told twice."""
    states = (None, LIMITED, DOWN)
    for rounds in itertools.product(itertools.product(states, repeat=2), repeat=3):
        known: list[Entry] = []
        seen: list[tuple[str, Fault | None]] = []
        for number, faults in enumerate(rounds):
            bots = [verdict(bot, fault) for bot, fault in zip(BOTS, faults, strict=False)]
            limited = [one.bot for one in bots if one.fault is LIMITED]
            shared = [incident(*limited)] if len(limited) > 1 else []
            now = NOW + timedelta(minutes=number)
            alerts = due(bots, *shared, known=known, now=now)
            pairs = [pair for one in alerts for pair in one.covers or ((one.bot, one.fault),)]
            assert len(pairs) == len(set(pairs))
            alone = [pair for one in alerts if not one.incident for pair in [(one.bot, one.fault)]]
            assert not set(alone) & set(seen)
            seen += pairs
            known += [_entry(one, now) for one in alerts]


def _entry(alert: Alert, at: datetime) -> Entry:
    return Entry(
        0, "e1", at, Kind.ALERT, alert.bot or None, "alert", "round", None, "", alert.sentence, alert.data, "", ""
    )
