"""Verdicts from tables of histories: no clock, no file, no process."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from botkeep.history import history
from botkeep.judge import decide
from botkeep.model import (
    Exit,
    Fault,
    History,
    Observation,
    ProgramLook,
    Progress,
    RuntimeLook,
    Status,
    Tempo,
    Verdict,
    Wanted,
)
from botkeep.playbooks import packaged_playbooks
from support.tables import (
    NOW,
    ago,
    beating,
    cause,
    damage,
    entry,
    failing,
    healthy_file,
    instance,
    looping,
    restarted,
    seen,
    silent,
    span,
    unmeasured,
)

BOOKS = packaged_playbooks()
KILLED = Exit("boot:1", ago(minutes=3), signal=9, peak_rss_bytes=50_000_000)


def judged(look: Observation, *entries: object, spans: tuple[object, ...] = (), first: object = None) -> Verdict:
    flat = [one for group in entries for one in (group if isinstance(group, list) else [group])]
    return decide(look, BOOKS, history(flat, spans, NOW), NOW, first)


CASES = [
    ("a running bot is healthy", seen(instance()), None),
    ("no copy is not running", seen(ended=KILLED), Fault.BOT_NOT_RUNNING),
    ("two copies are duplicated", seen(instance(1), instance(2, ours=False)), Fault.BOT_DUPLICATED),
    ("a frozen copy is hung", seen(instance(state="frozen")), Fault.BOT_HUNG),
    ("a silent log is hung", seen(instance(), progress=(silent("log", 30),)), Fault.BOT_HUNG),
    ("a log within its own pauses is fine", seen(instance(), progress=(silent("log", 30, normal=20),)), None),
    ("a quiet market is no hang", seen(instance(), progress=(silent("log", 0.1), silent("data", 180, 60))), None),
    (
        "a market far quieter than ever is stale",
        seen(instance(), progress=(silent("data", 600, 30),)),
        Fault.DATA_STALE,
    ),
    (
        "a bot that waits for an exchange is not hung",
        seen(instance(), progress=(silent("log", 30),), causes=(cause("wait", Fault.API_RATE_LIMITED),)),
        Fault.API_RATE_LIMITED,
    ),
    (
        "a silent log with a fresh trade is no hang",
        seen(instance(), progress=(silent("log", 30), silent("data", 1))),
        None,
    ),
    (
        "a progress file that stands is a hang, though the log is too short to tell what is normal in it",
        seen(instance(), progress=(unmeasured("log", 30), silent("beat.txt", 30))),
        Fault.BOT_HUNG,
    ),
    (
        "while that log goes on it is none",
        seen(instance(), progress=(unmeasured("log", 1), silent("beat.txt", 30))),
        None,
    ),
    ("such a log alone says nothing", seen(instance(), progress=(unmeasured("log", 30),)), None),
    ("a failing endpoint is its own fault", seen(instance(), health=failing()), Fault.HEALTH_ENDPOINT_FAILING),
    (
        "a bot that just started need not listen yet",
        seen(instance(started=ago(seconds=5)), health=failing()),
        None,
    ),
    ("damage in the file is data-corrupt", seen(instance(), data=damage("C2", certain=True)), Fault.DATA_CORRUPT),
    ("a row still being written is none", seen(instance(), data=damage("C1", certain=False, verdict="pending")), None),
    ("a rotated file is none", seen(instance(), data=damage("C10", certain=False, verdict="replaced")), None),
    ("damage comes before down", seen(ended=KILLED, data=damage("C1", certain=True)), Fault.DATA_CORRUPT),
    ("a full disk is certain", seen(instance(), disk_free=1000), Fault.DISK_FULL),
    (
        "a full disk in the log of a dead run counts while the disk is tight",
        seen(ended=KILLED, causes=(cause("host", Fault.DISK_FULL),), disk_free=200_000_000),
        Fault.DISK_FULL,
    ),
    (
        "and not once it is free again",
        seen(ended=KILLED, causes=(cause("host", Fault.DISK_FULL),), disk_free=10**11),
        Fault.BOT_NOT_RUNNING,
    ),
    (
        "a refused key comes before down",
        seen(ended=KILLED, causes=(cause("stop", Fault.API_KEY_REJECTED),)),
        Fault.API_KEY_REJECTED,
    ),
    (
        "a refused key of an older run says nothing",
        seen(ended=KILLED, causes=(cause("stop", Fault.API_KEY_REJECTED, this_run=False),)),
        Fault.BOT_NOT_RUNNING,
    ),
    (
        "a ban that is over says nothing",
        seen(ended=KILLED, causes=(cause("wait", Fault.API_RATE_LIMITED, until=ago(minutes=1)),)),
        Fault.BOT_NOT_RUNNING,
    ),
    ("a main loop that stands is hung", seen(instance(), program=looping(6)), Fault.BOT_HUNG),
    ("five minutes of it are not", seen(instance(), program=looping(4.9)), None),
    ("nor eight with nine open trades: each may be asked for a minute", seen(instance(), program=looping(8, 9)), None),
    ("but eleven are", seen(instance(), program=looping(11, 9)), Fault.BOT_HUNG),
    ("the first loop loads everything", seen(instance(), program=looping(None)), None),
    ("a bot that a person stopped does no loop", seen(instance(), program=looping(600, state="stopped")), None),
    ("a paused one does", seen(instance(), program=looping(6, state="paused")), Fault.BOT_HUNG),
    (
        "a loop that backs off under a ban is not hung",
        seen(
            instance(),
            program=looping(30, 6),
            causes=(cause("wait", Fault.API_RATE_LIMITED, until=ago(minutes=-20)),),
        ),
        Fault.API_RATE_LIMITED,
    ),
    (
        "nor one that asks a mute exchange",
        seen(instance(), program=looping(30, 6), causes=(cause("wait"),)),
        None,
    ),
    (
        "a loop that goes on makes a silent log no hang",
        seen(instance(), program=looping(0.1), progress=(silent("log", 30),)),
        None,
    ),
    ("heartbeats that stopped are a hang", seen(instance(), program=beating(6)), Fault.BOT_HUNG),
    ("one that is late is none", seen(instance(), program=beating(2.5)), None),
    ("a bot that beats every ten minutes has thirty", seen(instance(), program=beating(29, 10)), None),
    (
        "a trade written by a database's log is a sign of life",
        seen(
            instance(),
            program=ProgramLook(progress=(Progress("wal", ago(minutes=1), None, 0),)),
            progress=(silent("log", 30), Progress("wal", ago(minutes=1), None, 0)),
        ),
        None,
    ),
    (
        "a market is not stale for a bot that was told not to trade",
        seen(instance(), program=looping(0, state="paused"), progress=(silent("data", 600, 30),)),
        None,
    ),
    (
        "an API that hangs is a failing endpoint where no other is configured",
        seen(instance(), program=ProgramLook(api="no answer within 3 s.", api_rule="timeout")),
        Fault.HEALTH_ENDPOINT_FAILING,
    ),
    (
        "a wrong password is for a person, and no fault of the bot",
        seen(instance(), program=ProgramLook(api="it answers 401.", api_rule="unauthorized")),
        None,
    ),
    (
        "a bot without fresh candles for any pair is blind, however green",
        seen(instance(), program=ProgramLook(loop_known=True, loop_at=ago(seconds=1), blind="no pair has a candle")),
        Fault.BOT_IMPAIRED,
    ),
    (
        "a log that says its own strategy fails is no healthy bot",
        seen(instance(), causes=(cause("stop", Fault.BOT_IMPAIRED),)),
        Fault.BOT_IMPAIRED,
    ),
    (
        "a database that was damaged and is sound again says nothing",
        seen(instance(), data=healthy_file(), causes=(cause("repair", Fault.DATA_CORRUPT),)),
        None,
    ),
    (
        "the kernel's word for lack of memory",
        seen(ended=Exit("boot:1", ago(minutes=1), signal=9, out_of_memory=True)),
        Fault.OUT_OF_MEMORY,
    ),
]


@pytest.mark.parametrize(("look", "fault"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_first_fault_is(look: Observation, fault: Fault | None) -> None:
    verdict = judged(look)
    assert verdict.fault is fault
    assert verdict.status is (Status.FAULTY if fault else Status.HEALTHY)


def test_every_fault_has_a_case_that_reaches_it() -> None:
    elsewhere = {Fault.TRADING_TOO_OFTEN, Fault.BOT_CRASH_LOOPING}
    assert {case[2] for case in CASES if case[2]} | elsewhere == set(Fault)


def test_the_other_faults_are_named_too() -> None:
    verdict = judged(seen(ended=KILLED, data=damage("C1", certain=True)))
    assert verdict.faults == (Fault.DATA_CORRUPT, Fault.BOT_NOT_RUNNING)


def test_certain_evidence_is_confirmed_at_once_and_suspect_evidence_is_not() -> None:
    assert judged(seen(ended=KILLED)).confirmed
    assert not judged(seen(instance(), progress=(silent("log", 30),))).confirmed


def test_a_second_look_that_sees_the_same_confirms() -> None:
    look = seen(instance(), progress=(silent("log", 30),))
    first = judged(look)
    assert judged(look, first=first.evidence).confirmed
    assert judged(look, first=first.evidence).fault is Fault.BOT_HUNG


def test_a_second_look_that_sees_something_else_clears() -> None:
    first = judged(seen(instance(), data=damage("C10", certain=False, identity="1:2:3:4")))
    again = judged(seen(instance(), data=damage("C10", certain=False, identity="1:2:0:5")), first=first.evidence)
    assert again.status is Status.HEALTHY, "a file that is being rewritten looks damaged in another way each time"


def test_a_bot_that_a_person_stopped_is_not_down() -> None:
    verdict = judged(seen(), entry("intent", "stop", ago(hours=1), actor="person"))
    assert verdict.status is Status.STOPPED
    assert "a person" in verdict.sentence


def test_only_an_explicit_start_sets_up_again_and_a_round_does_not() -> None:
    stop = entry("intent", "stop", ago(hours=2))
    assert judged(seen(), stop, entry("intent", "restart", ago(hours=1), actor="round")).wanted is Wanted.DOWN
    assert judged(seen(), stop, entry("intent", "restart", ago(hours=1))).wanted is Wanted.UP


def test_a_broken_entry_is_unknown_and_says_where() -> None:
    look = Observation("doge", NOW, config_error="config/bots.json $.bots[0].runtime.kind: found ...")
    verdict = judged(look)
    assert (verdict.status, verdict.up) == (Status.UNKNOWN, None)
    assert "$.bots[0].runtime.kind" in verdict.sentence


def test_an_engine_that_cannot_be_asked_is_unknown_not_down() -> None:
    verdict = judged(Observation("doge", NOW, runtime=RuntimeLook(error="the daemon is away.")))
    assert (verdict.status, verdict.up) == (Status.UNKNOWN, None)


def test_a_file_that_cannot_be_read_is_unknown_not_corrupt() -> None:
    verdict = judged(seen(instance(), data=damage("C15", certain=True, verdict="unreadable")))
    assert verdict.status is Status.UNKNOWN
    assert verdict.up is True


def test_restarts_that_did_not_help_become_a_crash_loop() -> None:
    times = [ago(minutes=minutes) for minutes in (100, 80, 50, 10)]
    verdict = judged(seen(ended=KILLED), *(restarted(at) for at in times))
    assert verdict.fault is Fault.BOT_CRASH_LOOPING
    assert Fault.BOT_NOT_RUNNING in verdict.others


def test_restarts_long_ago_do_not() -> None:
    times = [ago(hours=hours) for hours in (20, 15, 9, 3)]
    assert judged(seen(ended=KILLED), *(restarted(at) for at in times)).fault is Fault.BOT_NOT_RUNNING


def per_hour(*counts: int) -> tuple[tuple[int, int], ...]:
    hour = int(NOW.timestamp()) // 3600
    return tuple((hour - place - 2, count) for place, count in enumerate(counts))


def recent(count: int) -> tuple[float, ...]:
    return tuple(NOW.timestamp() - 30 * number for number in reversed(range(count)))


def test_27_trades_in_14_minutes_break_the_configured_limit() -> None:
    data = healthy_file(Tempo(newest=NOW, recent=recent(27)))
    verdict = judged(seen(instance(), data=data, max_trades_per_hour=3))
    assert verdict.fault is Fault.TRADING_TOO_OFTEN
    assert verdict.evidence[0].certain
    assert "27 trades" in verdict.sentence


def test_without_a_limit_the_bots_own_busiest_hour_counts() -> None:
    busy = Tempo(newest=NOW, recent=recent(60), per_hour=per_hour(*[2] * 48))
    usual = Tempo(newest=NOW, recent=recent(60), per_hour=per_hour(*[55] * 48))
    assert judged(seen(instance(), data=healthy_file(busy))).fault is Fault.TRADING_TOO_OFTEN
    assert judged(seen(instance(), data=healthy_file(usual))).fault is None


def test_down_since_is_the_recorded_exit_or_the_first_look_that_missed_it() -> None:
    assert judged(seen(ended=KILLED)).down_since == KILLED.at
    spans = (span(Status.FAULTY, ago(minutes=30), ago(minutes=5), Fault.BOT_NOT_RUNNING, up=False),)
    assert judged(seen(), spans=spans).down_since == ago(minutes=30)


def test_a_bot_that_was_stopped_on_purpose_is_down_since_somebody_wants_it_up_again() -> None:
    stop = entry("intent", "stop", ago(hours=3))
    first, second = (entry("intent", "start", ago(minutes=minutes), actor="person") for minutes in (9, 1))
    assert judged(seen(ended=replace(KILLED, at=ago(hours=3))), stop, first, second).down_since == ago(minutes=9)
    restart = entry("intent", "restart", ago(minutes=1))
    assert judged(seen(ended=replace(KILLED, at=ago(minutes=4))), stop, first, restart).down_since == ago(minutes=4)
    assert judged(seen(ended=replace(KILLED, at=ago(hours=3))), restart).down_since == ago(hours=3)


def test_a_copy_that_its_engine_holds_is_not_said_to_be_stopped_by_a_signal() -> None:
    held = replace(instance(state="frozen"), why_frozen="its container is paused; `docker unpause x` lets it go on")
    verdict = judged(seen(held))
    assert verdict.fault is Fault.BOT_HUNG
    assert verdict.sentence == "doge is frozen: its container is paused; `docker unpause x` lets it go on."


def test_an_adopted_copys_end_is_not_claimed_to_be_known() -> None:
    assert "not known" in judged(seen()).sentence
    assert "adopted" in judged(seen(instance(ours=False))).sentence


def test_an_unknown_history_is_no_history() -> None:
    assert decide(seen(instance()), BOOKS, History(), NOW).status is Status.HEALTHY
    assert decide(seen(instance()), BOOKS, History(), NOW + timedelta(days=1)).status is Status.HEALTHY


def test_what_a_person_set_in_the_bot_itself_is_said_of_a_healthy_one() -> None:
    assert "its own state is stopped" in judged(seen(instance(), program=looping(600, state="stopped"))).sentence
    assert "opens no new positions" in judged(seen(instance(), program=looping(0, state="paused"))).sentence


def test_an_api_that_cannot_be_used_is_a_note() -> None:
    (note,) = judged(seen(instance(), program=ProgramLook(api="it answers 401.", api_rule="unauthorized"))).notes
    assert "it answers 401" in note


def test_a_standing_loop_names_its_rule_and_takes_two_looks() -> None:
    look = seen(instance(), program=looping(6))
    first = judged(look)
    assert (first.evidence[0].rule, first.confirmed) == ("main-loop-stands", False)
    assert judged(look, first=first.evidence).confirmed
    gone_on = seen(instance(), program=looping(0.1))
    assert judged(gone_on, first=first.evidence).status is Status.HEALTHY
