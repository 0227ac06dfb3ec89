"""What fell, for how long, and what was promised for a week: tables of spans, and the figure that each gives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from botkeep.goals import WEEK, Goal, Past, exactly, goals
from botkeep.ledger import Entry, Kind
from botkeep.model import Exit, Fault, Span, Status
from botkeep.uptime import Interruption, Is, Seen, Stretch, interruptions, not_looked, stretches

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
BEGAN = NOW - WEEK
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
GAP = timedelta(minutes=12)


def at(days: float) -> datetime:
    """So many days into the week."""
    return BEGAN + DAY * days


def up(first: datetime, last: datetime, key: str = "a") -> Span:
    return Span("doge", Status.HEALTHY, None, True, first, last, key)


def down(first: datetime, last: datetime, fault: Fault = Fault.BOT_NOT_RUNNING) -> Span:
    return Span("doge", Status.FAULTY, fault, False, first, last)


def damaged(first: datetime, last: datetime) -> Span:
    return Span("doge", Status.FAULTY, Fault.DATA_CORRUPT, True, first, last, "a")


def stopped(first: datetime, last: datetime) -> Span:
    return Span("doge", Status.STOPPED, None, None, first, last)


def entry(number: int, when: datetime, kind: Kind = Kind.OUTCOME, action: str = "restart", **data: Any) -> Entry:
    return Entry(number, f"e{number}", when, kind, "doge", action, "round", None, "done", "", data, "", "")


def week(
    spans: Sequence[Span],
    exits: Sequence[Exit] = (),
    entries: Sequence[Entry] = (),
    *,
    bot: str = "doge",
    began: datetime = BEGAN,
    has_data: bool = True,
) -> Past:
    """One bot's week, as the report gathers it."""
    return Past(bot, Seen(sorted(spans, key=lambda one: one.first), exits, GAP), spans, entries, began, has_data)


def judged(*cases: Past) -> dict[str, Goal]:
    """By the first word of each."""
    return {one.name.split()[0]: one for one in goals(cases, NOW)}


# --- interruptions -----------------------------------------------------------------------------------------------

FALLS: dict[str, tuple[list[Span], list[Exit], list[tuple[float, float, float, bool]]]] = {
    "up for the whole week": ([up(at(0), at(7))], [], []),
    "seen down between two looks": (
        [up(at(0), at(1)), down(at(1) + 30 * SECOND, at(1) + 60 * SECOND), up(at(1) + 90 * SECOND, at(7), "b")],
        [], [(0, 90, 30, True)],
    ),
    "its exit is known to the second": (
        [up(at(0), at(1)), down(at(1) + 60 * SECOND, at(1) + 60 * SECOND), up(at(1) + 70 * SECOND, at(7), "b")],
        [Exit("a", at(1) + 20 * SECOND)], [(20, 70, 40, True)],
    ),
    "it fell, and nobody saw for how long": (
        [up(at(0), at(1)), up(at(1) + 300 * SECOND, at(7), "b")],
        [Exit("a", at(1) + 20 * SECOND)], [(20, 300, 0, True)],
    ),
    "another copy without a known exit is no fall": ([up(at(0), at(1)), up(at(1) + 60 * SECOND, at(7), "b")], [], []),
    "an asked exit is none": (
        [up(at(0), at(1)), up(at(1) + 300 * SECOND, at(7), "b")], [Exit("a", at(1), asked=True)], [],
    ),
    "down and then stopped on purpose": (
        [up(at(0), at(1)), down(at(1) + MINUTE, at(1) + 2 * MINUTE), stopped(at(1) + 3 * MINUTE, at(2)),
         up(at(2), at(7))],
        [], [],
    ),
    "never seen up before": ([down(at(1), at(2)), up(at(2) + SECOND, at(7))], [], []),
    "down still": ([up(at(0), at(1)), down(at(1) + 30 * SECOND, at(7))], [], [(0, 518400, 518370, False)]),
    "restarted twice before it stayed up": (
        [up(at(0), at(1)), down(at(1) + 10 * SECOND, at(1) + 20 * SECOND),
         down(at(1) + 40 * SECOND, at(1) + 60 * SECOND), up(at(1) + 80 * SECOND, at(7), "b")],
        [], [(0, 80, 50, True)],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spans", "exits", "expected"), FALLS.values(), ids=FALLS)
def test_each_fall_has_a_length_that_is_certain_and_one_that_is_possible(
    spans: list[Span], exits: list[Exit], expected: list[tuple[float, float, float, bool]]
) -> None:
    found = interruptions(stretches(spans, exits, GAP), BEGAN, NOW)
    wanted = [
        Interruption(at(1) + a * SECOND, at(1) + b * SECOND, known * SECOND, over=over)
        for a, b, known, over in expected
    ]
    assert found == wanted


def test_a_strip_is_the_whole_window_without_a_gap() -> None:
    seen = Seen([up(at(1), at(2)), down(at(3), at(4)), up(at(5), at(9), "b")], (), GAP)
    found = seen.strip(BEGAN, NOW)
    assert [one.what for one in found] == [Is.UNKNOWN, Is.UP, Is.UNKNOWN, Is.DOWN, Is.UNKNOWN, Is.UP]
    assert (found[0].start, found[-1].end) == (BEGAN, NOW)
    assert all(one.end == then.start for one, then in pairwise(found))
    assert sum((one.length for one in found), timedelta()) == WEEK
    assert Seen().strip(BEGAN, NOW) == (Stretch(BEGAN, NOW, Is.UNKNOWN),)


def test_the_longest_time_without_a_look_counts_the_ends_too() -> None:
    assert not_looked([up(at(0), at(7))], BEGAN, NOW) == timedelta()
    assert not_looked([up(at(1), at(2)), up(at(5), at(6))], BEGAN, NOW) == 3 * DAY
    assert not_looked([up(at(0), at(2))], BEGAN, NOW) == 5 * DAY
    assert not_looked([], BEGAN, NOW) == WEEK
    assert not_looked([up(at(0), at(5)), up(at(1), at(2)), up(at(5.5), at(8))], BEGAN, NOW) == DAY / 2


# --- goals -------------------------------------------------------------------------------------------------------


def test_a_good_week_meets_all_three() -> None:
    found = judged(week([up(at(-1), NOW)]))
    assert [(one.met, one.word) for one in found.values()] == [(True, "met")] * 3
    assert found["uptime"].figure == "100% (doge)"
    assert found["recovery"].figure == "no bot fell in the time that was seen"
    assert found["damage"].figure == "none was seen, looks at most 12 min apart"


def test_a_week_with_no_looks_at_all_is_not_known() -> None:
    before = [up(at(-3), at(-1))]
    found = judged(week(before), week(before, bot="btc"))
    assert [one.met for one in found.values()] == [None, None, None]
    assert found["uptime"].figure == "nobody saw a bot run"
    assert found["recovery"].figure == "nobody saw a bot run"
    assert found["damage"].figure == "none was seen, but nobody looked at doge for 7.0 d"


def test_without_any_bot_nothing_is_known() -> None:
    assert [one.met for one in goals([], NOW)] == [None, None, None]
    assert [one.met for one in goals([week([], began=NOW)], NOW)] == [None, None, None]


def test_an_hour_down_in_a_week_is_too_much_and_the_entries_behind_it_are_named() -> None:
    fell = [up(at(-1), at(3)), down(at(3) + MINUTE, at(3) + HOUR), up(at(3) + HOUR + MINUTE, NOW, "b")]
    entries = [
        entry(5, at(2)),
        entry(7, at(3) + 6 * MINUTE, Kind.ALERT, "alert", fault="bot-not-running"),
        entry(9, at(3) + HOUR + MINUTE),
        entry(11, at(5)),
    ]
    found = judged(week(fell, entries=entries), week([up(at(-1), NOW)], bot="btc"))["uptime"]
    assert (found.met, found.figure, found.entries, found.bots) == (
        False, "99.4% (doge, the lowest)", ("e7", "e9"), ("doge",),
    )  # fmt: skip


def test_unknown_time_that_could_decide_it_leaves_it_open() -> None:
    """Two hours that nobody saw are more than half a percent of a week."""
    spans = [up(at(-1), at(3)), up(at(3) + 2 * HOUR, NOW, "b")]
    found = judged(week(spans))["uptime"]
    assert (found.met, found.figure) == (None, "100% (doge), and 2.0 h of doge nobody saw")
    little = [up(at(-1), at(3)), up(at(3) + 20 * MINUTE, NOW, "b")]
    assert judged(week(little))["uptime"].met is True


def test_a_bot_that_was_stopped_all_week_breaks_nothing() -> None:
    found = judged(week([stopped(at(-1), NOW)], bot="off"), week([up(at(-1), NOW)]))
    assert (found["uptime"].met, found["uptime"].figure) == (True, "100% (doge)")


@pytest.mark.parametrize(
    ("lasted", "met", "said"),
    [
        (100 * SECOND, True, "1 of 1 in time, the slowest 90 s to 110 s (doge)"),
        (130 * SECOND, False, "0 of 1 in time, the slowest 2 min to 2 min 20 s (doge)"),
        (115 * SECOND, None, "0 of 1 in time, the slowest 105 s to 2 min 5 s (doge)"),
    ],
)
def test_a_recovery_is_in_time_only_if_the_unseen_seconds_cannot_make_it_late(
    lasted: timedelta, met: bool | None, said: str
) -> None:
    back = at(2) + lasted
    spans = [up(at(-1), at(2) - 5 * SECOND), down(at(2), back - 10 * SECOND), up(back + 5 * SECOND, NOW, "b")]
    found = judged(week(spans, entries=[entry(4, back + 5 * SECOND)]))["recovery"]
    assert (found.met, found.figure, found.entries) == (met, said, ("e4",))


def test_a_bot_that_is_down_now_is_late_after_two_minutes_and_no_sooner() -> None:
    for lasts, met in ((90 * SECOND, True), (200 * SECOND, False)):
        spans = [up(at(-1), NOW - lasts), down(NOW - lasts, NOW)]
        assert judged(week(spans))["recovery"].met is met
    assert judged(week(spans))["recovery"].figure == "0 of 1 in time, the slowest 3 min 20 s so far (doge)"


def test_damage_that_a_look_found_is_as_old_as_the_look_before_at_most() -> None:
    spans = [up(at(-1), at(2)), damaged(at(2) + 5 * MINUTE, at(2) + 20 * MINUTE), up(at(2) + 25 * MINUTE, NOW)]
    entries = [entry(3, at(2) + 6 * MINUTE, Kind.ALERT, "alert", fault="data-corrupt"),
               entry(8, at(2) + 22 * MINUTE, action="restore"), entry(9, at(4), action="restore")]  # fmt: skip
    found = judged(week(spans, entries=entries))["damage"]
    assert (found.met, found.figure) == (True, "found once, doge's 5 min after a look that did not")
    assert found.entries == ("e3", "e8")


def test_damage_after_hours_without_a_look_may_have_been_there_for_long() -> None:
    found = judged(week([up(at(-1), at(2)), damaged(at(2) + 3 * HOUR, NOW)]))["damage"]
    assert (found.met, found.figure) == (None, "found once, doge's 3.0 h after a look that did not")


def test_damage_at_the_very_first_look_has_no_age() -> None:
    found = judged(week([damaged(at(2), NOW)], began=at(2)))["damage"]
    assert (found.met, found.figure) == (None, "found once; of doge's there was no look before")


def test_an_hour_has_to_pass_before_anything_is_said_of_it() -> None:
    began = NOW - 20 * MINUTE
    found = judged(week([up(began, NOW)], began=began))["damage"]
    assert (found.met, found.figure) == (None, "none was seen; first look 20 min ago")


def test_damage_is_nothing_to_a_fleet_without_data_files() -> None:
    found = judged(week([up(at(-1), NOW)], has_data=False))["damage"]
    assert (found.met, found.figure) == (None, "no bot with a data file was looked at")


def test_a_young_workspace_says_how_young_it_is() -> None:
    found = judged(week([up(at(5), NOW)], began=at(5)))
    assert [one.met for one in found.values()] == [True, True, True]
    assert all(one.figure.endswith("; first look 2.0 d ago") for one in found.values())


def test_a_week_that_lacks_a_minute_is_a_week() -> None:
    began = BEGAN + MINUTE
    assert judged(week([up(began, NOW)], began=began))["uptime"].figure == "100% (doge)"


def test_what_was_asked_of_a_person_is_behind_a_late_recovery_too() -> None:
    asked = entry(3, NOW - 5 * MINUTE, Kind.ASK)
    found = judged(week([up(BEGAN, NOW - 6 * MINUTE), down(NOW - 6 * MINUTE, NOW)], entries=[asked]))["recovery"]
    assert (found.met, found.entries) == (False, ("e3",))


def test_lengths_that_decide_something_have_seconds() -> None:
    lengths = [90 * SECOND, 120 * SECOND, 130 * SECOND, 599 * SECOND, 700 * SECOND]
    assert [exactly(one) for one in lengths] == ["90 s", "2 min", "2 min 10 s", "9 min 59 s", "11 min"]
