"""Whom to tell of what, and only once: verdicts, incidents and what people know already in, alerts out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from botkeep.alerts import Alert, due_together, is_part_of, joining, opened
from botkeep.incidents import Incident
from botkeep.model import Action, ActionReport, CauseClass, Fault, History, Result, Span, Status, Verdict, Wanted
from botkeep.open_alerts import Known
from botkeep.playbooks import packaged_playbooks
from support.tables import NOW

BOOKS = packaged_playbooks()
BOTS = ("doge", "btc", "eth")
NOTHING = Known()
NUMBERS = itertools.count(1)
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


def told(alerts: Iterable[Alert], at: datetime = NOW, known: Known = NOTHING) -> Known:
    """What people know after these."""
    for one in alerts:
        own = known.of(one.bot) if one.bot else None
        merged = [] if one.bot else [other for other in known.opens if is_part_of(other, one)]
        new = opened(one, own, merged, at)
        number = f"e{next(NUMBERS)}"
        known = known.without(other.id for other in merged).having(replace(new, id=new.id or number))
    return known


def due(
    verdicts: Sequence[Verdict],
    *incidents: Incident,
    known: Known = NOTHING,
    since: float = 40,
    reports: Sequence[ActionReport] = (),
    silenced: Sequence[str] = (),
) -> list[Alert]:
    histories = {one.bot: past(one.fault, since) for one in verdicts}
    return list(due_together(verdicts, incidents, BOOKS, histories, known, reports, silenced))


# -------------------------------------------------------------------------------------------------- several bots


def test_several_bots_with_one_cause_are_one_alert_and_the_next_round_is_silent() -> None:
    bots, shared = [verdict(bot) for bot in BOTS], incident(*BOTS)
    (alert,) = due(bots, shared)
    assert (alert.bot, alert.incident, alert.fault, alert.severity) == ("", "rate:binance", LIMITED, "warning")
    assert alert.sentence == f"3 of 4 bots: binance refuses. (since {ago(40):%Y-%m-%d %H:%M:%SZ})"
    assert due(bots, shared, known=told([alert])) == []


def test_an_incident_is_told_after_as_long_as_its_playbook_says() -> None:
    bots = [verdict(bot) for bot in BOTS]
    assert due(bots, incident(*BOTS, since=29), since=29) == []
    assert len(due(bots, incident(*BOTS, since=30), since=30)) == 1


def test_what_was_seen_once_only_is_not_told() -> None:
    assert due([verdict(bot, confirmed=False) for bot in BOTS], incident(*BOTS)) == []


def test_a_bot_that_joins_an_incident_of_which_people_know_is_not_told_alone() -> None:
    first = due([verdict("doge"), verdict("btc")], incident("doge", "btc"))
    assert due([verdict(bot) for bot in BOTS], incident(*BOTS), known=told(first)) == []


def test_when_all_but_one_are_well_again_the_last_one_was_told_already() -> None:
    known = told(due([verdict(bot) for bot in BOTS], incident(*BOTS)))
    assert due([verdict("doge"), verdict("btc", None)], known=known) == []


def test_a_lone_bot_of_which_people_know_becomes_an_incident_that_they_do_not_know() -> None:
    alone = due([verdict("doge")])
    assert [(one.bot, one.incident) for one in alone] == [("doge", "")]
    known = told(alone)
    assert due([verdict("doge")], known=known) == []
    assert [one.incident for one in due([verdict(bot) for bot in BOTS], incident(*BOTS), known=known)] == [
        "rate:binance"
    ]


def test_two_incidents_at_once_are_two_alerts() -> None:
    bots = [verdict("doge"), verdict("btc"), verdict("eth", KEY), verdict("sol", KEY)]
    keys = incident("eth", "sol", fault=KEY, klass=CauseClass.STOP, name="key:$KRAKEN_KEY")
    assert [one.incident for one in due(bots, incident("doge", "btc"), keys)] == ["rate:binance", "key:$KRAKEN_KEY"]


# ------------------------------------------------------------------------------ what follows from it, and what not


def test_bots_that_died_of_it_are_told_with_it_and_at_once_when_one_alone_would_be() -> None:
    """Names cannot be resolved for six minutes: two bots are down, and one waits. bot-not-running tells after five."""
    bots = [verdict("doge", DOWN), verdict("btc", DOWN), verdict("eth", None)]
    names = incident(*BOTS, since=6, fault=None, klass=CauseClass.HOST, name="dns")
    (alert,) = due(bots, names, since=6)
    assert alert.sentence.startswith("3 of 4 bots: binance refuses. Down: doge, btc. (since ")
    assert alert.severity == "critical"
    assert alert.covers == (("doge", DOWN), ("btc", DOWN))
    assert alert.members == BOTS
    assert due(bots, names, known=told([alert]), since=6) == []


def test_a_bot_that_goes_down_after_people_were_told_is_told_by_itself() -> None:
    known = told(due([verdict(bot) for bot in BOTS], incident(*BOTS)), at=ago(20))
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


def test_a_lone_bots_fault_is_one_alert_and_told_once() -> None:
    (alert,) = due([verdict("doge", DOWN)])
    assert (alert.bot, alert.fault, alert.severity) == ("doge", DOWN, "critical")
    assert alert.data == {"fault": "bot-not-running", "given_up": False}
    known = told([alert])
    assert due([verdict("doge", DOWN)], known=known) == []
    assert [one.bot for one in due([verdict("doge", DOWN), verdict("btc", DOWN)], known=known)] == ["btc"]


def stuck(bot: str, result: Result, fault: Fault = DOWN, **more: object) -> ActionReport:
    return ActionReport(bot, Action.RESTART, result, f"{bot}: it did not work.", fault=fault, **more)  # type: ignore[arg-type]


def test_an_action_that_failed_or_that_no_clock_allows_again_is_told_once_more() -> None:
    bots = [verdict("doge", DOWN)]
    known = told(due(bots))
    for result, earliest, count in ((Result.FAILED, None, 1), (Result.REFUSED, None, 1), (Result.REFUSED, NOW, 0)):
        found = due(bots, known=known, reports=[stuck("doge", result, earliest=earliest)])
        assert [(one.bot, one.given_up, one.severity) for one in found] == [("doge", True, "critical")] * count
    known = told(due(bots, known=known, reports=[stuck("doge", Result.FAILED)]), known=known)
    assert due(bots, known=known, reports=[stuck("doge", Result.FAILED)]) == []


def test_refusals_that_an_incident_explains_are_not_told_bot_by_bot() -> None:
    bots = [verdict(bot, DOWN) for bot in BOTS]
    keys = incident(*BOTS, fault=None, klass=CauseClass.HOST, name="clock")
    reports = [stuck("doge", Result.REFUSED), stuck("btc", Result.REFUSED), stuck("eth", Result.FAILED)]
    found = due(bots, keys, reports=reports)
    assert [(one.bot, one.incident, one.given_up) for one in found] == [("", "clock", False), ("eth", "", True)]


def test_whatever_becomes_of_two_bots_nobody_is_told_twice_of_the_same() -> None:
    """All ways in which two bots may be well, limited or down in three rounds: no (bot, fault) is told twice."""
    states = (None, LIMITED, DOWN)
    for rounds in itertools.product(itertools.product(states, repeat=2), repeat=3):
        known, seen = NOTHING, set[tuple[str, str]]()
        for number, faults in enumerate(rounds):
            bots = [verdict(bot, fault) for bot, fault in zip(BOTS, faults, strict=False)]
            limited = [one.bot for one in bots if one.fault is LIMITED]
            shared = [incident(*limited)] if len(limited) > 1 else []
            now = NOW + timedelta(minutes=number)
            alerts = due(bots, *shared, known=known)
            pairs = [pair for one in alerts for pair in one.faults]
            assert len(pairs) == len(set(pairs))
            assert not {pair for one in alerts if not one.incident for pair in one.faults} & seen
            seen |= set(pairs)
            known = told(alerts, now, known)


def test_a_bots_second_fault_is_told_and_belongs_to_the_incident_that_is_open() -> None:
    known = told(due([verdict("doge", DOWN)]))
    second = due([verdict("doge", KEY, DOWN)], known=known)
    assert [one.fault for one in second] == [KEY]
    (one,) = told(second, known=known).opens
    assert (one.bot, one.faults, one.id) == (
        "doge", (("doge", "bot-not-running"), ("doge", "api-key-rejected")), known.opens[0].id,
    )  # fmt: skip


def test_a_lone_incident_becomes_part_of_the_shared_one_that_explains_it() -> None:
    known = told(due([verdict("doge")]), at=ago(10))
    known = told(due([verdict(bot) for bot in BOTS], incident(*BOTS), known=known), known=known)
    (one,) = known.opens
    assert (one.incident, one.bots, one.began) == ("rate:binance", BOTS, ago(40))


def test_what_a_round_takes_after_its_look_is_not_counted_as_time_that_the_bot_was_down() -> None:
    """A round that hung told people at 10:16 of a bot that it had seen down at 10:11, and that was restarted then."""
    down = verdict("doge", DOWN)
    assert due([replace(down, at=ago(36))], since=40) == []
    assert [one.bot for one in due([replace(down, at=ago(35))], since=40)] == ["doge"]


# ------------------------------------------------------------------------------------------------------- silences


def test_of_a_silenced_bot_nobody_is_told_and_of_the_others_they_are() -> None:
    bots = [verdict("doge", DOWN), verdict("btc", DOWN)]
    reports = [stuck("doge", Result.FAILED)]
    assert [one.bot for one in due(bots, silenced=["doge"], reports=reports)] == ["btc"]


def test_what_several_have_is_told_unless_all_of_them_are_silenced() -> None:
    bots = [verdict(bot) for bot in BOTS]
    assert [one.incident for one in due(bots, incident(*BOTS), silenced=["doge"])] == ["rate:binance"]
    assert due(bots, incident(*BOTS), silenced=BOTS) == []


# --------------------------------------------------------------------------- bots of which nobody can say a thing


def unseen(bot: str, why: str = "the Docker engine does not answer", wanted: Wanted = Wanted.UP) -> Verdict:
    return Verdict(bot, Status.UNKNOWN, NOW, f"{bot} cannot be looked at: {why}.", wanted=wanted)


def unknown(*verdicts: Verdict, minutes: float, known: Known = NOTHING) -> list[Alert]:
    span = Span("x", Status.UNKNOWN, None, None, ago(minutes), NOW)
    histories = {one.bot: History(spans=(span,)) for one in verdicts}
    return list(due_together(verdicts, (), BOOKS, histories, known))


def test_a_bot_that_nobody_can_see_for_as_long_as_one_may_be_down_is_told_once() -> None:
    assert unknown(unseen("doge"), minutes=4.9) == []
    (alert,) = unknown(unseen("doge"), minutes=6)
    assert alert.sentence.startswith("Nobody knows since 6 min how doge is: doge cannot be looked at: the Docker")
    assert (alert.members, alert.severity, alert.faults) == (("doge",), "critical", (("doge", "unknown"),))
    assert unknown(unseen("doge"), minutes=7, known=told([alert])) == []


def test_bots_of_one_engine_that_is_away_are_one_alert_and_those_that_follow_join_it() -> None:
    (alert,) = unknown(*map(unseen, BOTS), minutes=6)
    assert "how 3 bots are (doge, btc, eth)" in alert.sentence
    known, sol = told([alert]), unseen("sol")
    assert unknown(sol, minutes=6, known=known) == []
    ((wider, parts),) = joining((), [sol], known, NOW)
    assert (wider.bots, parts) == ((*BOTS, "sol"), ())
    assert list(joining((), [sol], known, NOW, ["sol"])) == []
    two = unknown(unseen("doge"), unseen("btc", "bots.json: no such key"), minutes=6)
    assert [one.members for one in two] == [("doge",), ("btc",)]


def test_a_bot_that_was_stopped_on_purpose_and_cannot_be_seen_is_no_alert() -> None:
    assert unknown(unseen("doge", wanted=Wanted.DOWN), minutes=60) == []
