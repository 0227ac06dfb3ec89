"""Restarts that an engine made by itself, counted from look to look."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from botkeep.engine_restarts import since_last_look
from botkeep.history import history
from botkeep.judge import decide
from botkeep.model import Actor, Fault, Instance, RuntimeLook
from botkeep.playbooks import packaged_playbooks
from support.tables import NOW, ago, entry, instance, seen


def kept(number: int, *, ours: bool = False, started: datetime | None = None) -> Instance:
    return replace(instance(number, ours=ours, started=started), kept_by="docker")


def counted(*looks: RuntimeLook) -> list[int]:
    """What each look adds, one after the other, a minute apart."""
    cursor, found = None, []
    for number, look in enumerate(looks):
        count, cursor = since_last_look(cursor, look, NOW + timedelta(minutes=number))
        found.append(count)
    return found


def test_the_first_look_counts_nothing() -> None:
    assert counted(RuntimeLook((kept(1),), restarts=40)) == [0]


def test_the_engines_own_counter_counts_what_no_look_saw() -> None:
    assert counted(*(RuntimeLook((kept(1),), restarts=number) for number in (2, 2, 35, 36))) == [0, 0, 33, 1]


def test_a_counter_that_began_anew_counts_from_nought() -> None:
    assert counted(RuntimeLook((kept(1),), restarts=9), RuntimeLook((kept(1),), restarts=2)) == [0, 2]


def test_without_a_counter_another_run_is_one_restart() -> None:
    assert counted(RuntimeLook((kept(1),)), RuntimeLook((kept(1),)), RuntimeLook((kept(2),))) == [0, 0, 1]


def test_a_run_that_we_started_is_none() -> None:
    assert counted(RuntimeLook((kept(1),)), RuntimeLook((kept(2, ours=True),))) == [0, 0]


def test_the_times_that_an_engine_tells_are_counted_each_once() -> None:
    times = tuple(NOW + timedelta(seconds=second) for second in (10, 14, 18, 70))
    first = RuntimeLook((kept(1),))
    second = RuntimeLook((kept(2, started=times[2]),), starts=times[:3])
    third = RuntimeLook((kept(3, started=times[3]),), starts=times)
    assert counted(first, second, third) == [0, 3, 1]


@pytest.mark.parametrize("told_before", [(), (NOW - timedelta(seconds=40),)])
def test_a_start_between_the_engines_answer_and_the_end_of_that_look_is_counted_by_the_next(
    told_before: tuple[datetime, ...],
) -> None:
    missed = (*told_before, NOW - timedelta(milliseconds=300))
    first = RuntimeLook((kept(1),), starts=told_before, tells_restarts=True)
    later = RuntimeLook((kept(2),), starts=missed, tells_restarts=True)
    assert counted(first, later, later) == [0, 1, 0]


def test_our_own_start_is_not_counted_among_the_times() -> None:
    at = NOW + timedelta(seconds=20)
    assert counted(RuntimeLook((kept(1),)), RuntimeLook((kept(2, ours=True, started=at),), starts=(at,))) == [0, 0]


def test_a_persons_restarts_are_none_of_an_engine_that_counts_its_own() -> None:
    def told(number: int, restarts: int) -> RuntimeLook:
        at = NOW + timedelta(minutes=number)
        return RuntimeLook((kept(number, started=at),), restarts=restarts, starts=(at,), tells_restarts=True)

    assert counted(told(0, 0), told(1, 0), told(2, 0), told(3, 2), told(4, 0)) == [0, 0, 0, 2, 0]


def test_a_persons_restarts_are_none_of_an_engine_that_tells_who_asked_for_a_start() -> None:
    times = tuple(NOW + timedelta(seconds=second) for second in (10, 20, 70))
    looks = [
        RuntimeLook((kept(1),), tells_restarts=True),
        RuntimeLook((kept(3, started=times[1]),), starts=times[:2], asked=times[:2], tells_restarts=True),
        RuntimeLook((kept(4, started=times[2]),), starts=times, asked=times[:2], tells_restarts=True),
    ]
    assert counted(*looks) == [0, 0, 1]


def test_a_look_that_saw_nothing_forgets_nothing() -> None:
    before, after = (RuntimeLook((kept(1),), restarts=number) for number in (3, 5))
    assert counted(before, RuntimeLook(error="docker is away"), after) == [0, 0, 2]


@pytest.mark.parametrize("times", [4, 33, 100_000])
def test_a_bot_that_its_engine_restarts_again_and_again_is_in_a_crash_loop_though_it_runs(times: int) -> None:
    books = packaged_playbooks()
    said = entry("outcome", "restart", ago(minutes=1), actor=Actor.ENGINE.value, result="done", data={"times": times})
    verdict = decide(seen(kept(1)), books, history([said], (), NOW), NOW)
    assert (verdict.fault, verdict.evidence[0].rule) == (Fault.BOT_CRASH_LOOPING, "engine-restart-loop")


def test_what_an_engine_gave_up_is_a_crash_loop() -> None:
    look = replace(seen(), runtime=RuntimeLook(giving_up="FATAL (exited too quickly)"))
    verdict = decide(look, packaged_playbooks(), history([], (), NOW), NOW)
    assert verdict.fault is Fault.BOT_CRASH_LOOPING
    assert "FATAL" in verdict.sentence
