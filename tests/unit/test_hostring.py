"""What the machine was like before: a ring of figures that stays small, and what it tells."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botkeep.hostring import changes, remember
from botkeep.model import DiskLook, HostLook

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BOOTED = NOW - timedelta(days=9)


def look(ago: float = 0, **more: Any) -> HostLook:
    """The machine so many minutes before now."""
    disk = DiskLook("/srv", ("/srv",), more.pop("disk", 50_000_000_000), 100_000_000_000)
    known: dict[str, Any] = {"memory_available": 4_000_000_000, "booted_at": BOOTED, "oom_kills": 2, "disks": (disk,)}
    return HostLook(NOW - timedelta(minutes=ago), **{**known, **more})


def ring(*looks: HostLook) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for one in looks:
        made = json.loads(json.dumps(remember(made, one)))  # as the ledger keeps it
    return made


def told(*looks: HostLook, began: datetime = NOW) -> list[str]:
    return [text for _, text in changes(ring(*looks), began)]


def test_a_machine_that_stays_as_it_is_has_not_changed() -> None:
    assert told(*(look(ago) for ago in range(90, -1, -5))) == []


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (
            look(60),
            look(memory_available=310_000_000),
            "memory that can be had fell from 4.0 GB to 310 MB within 60 min",
        ),
        (look(55), look(disk=900_000_000), "the disk of /srv fell from 50 GB free to 900 MB within 55 min"),
        (look(60), look(oom_kills=3), "the kernel ended a process for lack of memory, within 60 min"),
        (look(60), look(oom_kills=4), "the kernel ended 2 processes for lack of memory, within 60 min"),
        (
            look(60, clock_synchronised=True),
            look(clock_synchronised=False),
            "the time service stopped setting the clock within 60 min",
        ),
        (
            look(60),
            look(clock_offset=-3.2),
            "the clock's error went from nothing that was noticed to -3.2 s within 60 min",
        ),
        (
            look(60, clock_offset=0.4),
            look(clock_offset=3.2),
            "the clock's error went from +0.4 s to +3.2 s within 60 min",
        ),
        (
            look(60),
            look(booted_at=NOW - timedelta(minutes=7), oom_kills=0, memory_available=100_000_000),
            "this machine was started anew at 2026-11-21 11:53:00Z",
        ),
    ],
)
def test_what_changed_within_an_hour_is_told_with_its_figures(before: HostLook, after: HostLook, sentence: str) -> None:
    assert told(before, after) == [sentence]


def test_what_breathes_is_no_change() -> None:
    assert told(look(60), look(memory_available=2_100_000_000, disk=49_000_000_000, clock_offset=0.2)) == []
    assert told(look(60, memory_available=300_000_000), look(memory_available=140_000_000)) == []


def test_without_a_look_about_an_hour_before_nothing_is_claimed() -> None:
    assert told(look(memory_available=1)) == []
    assert told(look(5), look(memory_available=1)) == []
    assert told(look(300), look(memory_available=1)) == []
    assert changes(None, NOW) == ()


def test_of_a_death_in_the_past_the_figures_before_it_and_the_kills_after_it_are_told() -> None:
    began = NOW - timedelta(minutes=100)
    looks = [look(ago) for ago in range(300, 105, -5)]
    looks += [look(102, memory_available=200_000_000), look(98, oom_kills=3), look(60, oom_kills=3)]
    assert told(*looks, look(0, oom_kills=9), began=began) == [
        "memory that can be had fell from 4.0 GB to 200 MB within 58 min",
        "the kernel ended a process for lack of memory, within 62 min",
    ]


def test_of_a_death_yesterday_the_machine_is_still_known_roughly() -> None:
    looks = [look(ago, memory_available=300_000_000 if ago < 1000 else 4_000_000_000) for ago in range(1500, -1, -5)]
    (found,) = told(*looks, began=NOW - timedelta(minutes=970))
    assert found.startswith("memory that can be had fell from 4.0 GB to 300 MB within ")


def test_a_ring_of_looks_each_minute_for_three_days_stays_small() -> None:
    made: dict[str, Any] = {}
    for minute in range(3 * 24 * 60, -1, -1):
        made = remember(made, look(minute))
    assert 100 <= len(made["samples"]) <= 135
    assert len(json.dumps(made)) < 25_000
    times = [one["at"] for one in made["samples"]]
    assert times == sorted(times)
    assert times[0] >= (NOW - timedelta(hours=26)).strftime("%Y-%m-%dT%H:%M")


def test_what_happens_at_one_moment_is_kept_at_once() -> None:
    assert len(ring(look(10), look(9), look(8, oom_kills=3), look(7, oom_kills=3))["samples"]) == 2


def test_after_the_clock_was_set_back_the_ring_begins_with_what_is_not_of_the_future() -> None:
    made = ring(look(60), look(0), look(30))
    assert [one["at"][:16] for one in made["samples"]] == ["2026-11-21T11:00", "2026-11-21T11:30"]


@pytest.mark.parametrize(
    "broken", [{}, {"samples": 3}, {"samples": [{}]}, {"samples": [{"at": "yesterday"}]}, {"x": 1}]
)
def test_a_broken_ring_is_as_good_as_none(broken: dict[str, Any]) -> None:
    assert changes(broken, NOW) == ()
    assert len(remember(broken, look())["samples"]) == 1


@given(st.lists(st.floats(0, 5000), max_size=40), st.floats(0, 3000))
def test_whatever_looks_there_were_the_ring_can_be_asked(agos: list[float], began: float) -> None:
    made = ring(*(look(ago, memory_available=int(ago * 1e6), oom_kills=int(ago)) for ago in agos))
    changes(made, NOW - timedelta(minutes=began))
