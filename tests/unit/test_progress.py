"""A bot that gets somewhere, a quiet market, and a bot that does neither."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep.causes import LogLook
from botkeep.model import Progress, Tempo
from botkeep.progress import measure, normal_pause, trades_last_hour, usual_busiest_hour, with_last_hour

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
HOUR = int(NOW.timestamp()) // 3600


@dataclass(frozen=True)
class _Configured:
    file: Path
    every: timedelta


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_no_sign_is_no_entry() -> None:
    assert measure(log=None, tempo=None, configured=None, now=NOW) == ()
    assert measure(log=LogLook(problem="gone"), tempo=Tempo(), configured=None, now=NOW) == ()


def test_each_source_gives_its_own_sign() -> None:
    log = LogLook(newest_line_at=ago(10), mtime=ago(10), gaps=(5.0,) * 30)
    tempo = Tempo(newest=ago(600), gaps=(60.0, 3600.0) * 10)
    assert measure(log=log, tempo=tempo, configured=None, now=NOW) == (
        Progress("log", ago(10), timedelta(seconds=5), 30),
        Progress("data", ago(600), timedelta(hours=1), 20),
    )


def test_the_longest_pause_so_far_is_normal() -> None:
    assert normal_pause((1.0,) * 199 + (7200.0,)) == timedelta(hours=2)


def test_fewer_than_twenty_pauses_make_nothing_normal() -> None:
    assert normal_pause((60.0,) * 19) is None
    assert normal_pause((60.0,) * 20) == timedelta(minutes=1)


@given(st.lists(st.floats(1, 1e5), min_size=21, max_size=60))
@settings(deadline=None, max_examples=50)
def test_of_n_plus_one_pauses_at_most_one_is_longer_than_the_others_make_normal(pauses: list[float]) -> None:
    """The bound behind the formula: whichever of them comes last, it is the longest with probability 1/(n+1)."""
    others = [pauses[:place] + pauses[place + 1 :] for place in range(len(pauses))]
    longer = [one for one, rest in zip(pauses, others, strict=True) if one > _seconds(normal_pause(rest))]
    assert len(longer) <= 1


def _seconds(normal: timedelta | None) -> float:
    assert normal is not None
    return normal.total_seconds() + 1e-6  # a timedelta has microseconds


def test_a_log_that_grows_without_dates_or_in_another_zone_is_progress() -> None:
    (sign,) = measure(log=LogLook(newest_line_at=ago(7200), mtime=ago(3)), tempo=None, configured=None, now=NOW)
    assert sign.at == ago(3)
    (sign,) = measure(log=LogLook(newest_line_at=None, mtime=ago(3)), tempo=None, configured=None, now=NOW)
    assert sign.at == ago(3)


def test_nothing_is_newer_than_now() -> None:
    (sign,) = measure(log=LogLook(mtime=ago(-500)), tempo=None, configured=None, now=NOW)
    assert sign.at == NOW


def test_a_configured_file_is_normal_as_often_as_the_person_says(tmp_path: Path) -> None:
    beat = tmp_path / "heartbeat"
    beat.touch()
    os.utime(beat, (ago(90).timestamp(),) * 2)
    configured = _Configured(beat, timedelta(minutes=1))
    assert measure(log=None, tempo=None, configured=configured, now=NOW) == (
        Progress("heartbeat", ago(90), timedelta(minutes=1), 0),
    )


@pytest.mark.parametrize("make", [str, Path.mkdir, os.mkfifo])
def test_a_configured_file_that_is_none_says_nothing(tmp_path: Path, make: object) -> None:
    make(tmp_path / "heartbeat")  # type: ignore[operator]
    configured = _Configured(tmp_path / "heartbeat", timedelta(minutes=1))
    (sign,) = measure(log=None, tempo=None, configured=configured, now=NOW)
    assert sign.at is None


# -------------------------------------------------------------------------------------------------- trading too often


def test_the_trades_of_the_last_sixty_minutes_are_counted() -> None:
    tempo = Tempo(recent=tuple(ago(seconds).timestamp() for seconds in (7200, 3601, 3600, 3599, 60, 0, -30, -7200)))
    assert trades_last_hour(tempo, NOW) == 4  # neither an hour old nor of tomorrow


def test_the_usual_busiest_hour_leaves_the_current_one_out() -> None:
    per_hour = tuple((HOUR - number, number % 5 + 1) for number in range(20, 1, -1))
    tempo = Tempo(per_hour=(*per_hour, (HOUR - 1, 27), (HOUR, 27)))
    assert usual_busiest_hour(tempo, NOW) == 5


def test_hours_it_was_stopped_for_are_no_habit() -> None:
    per_hour = (*((HOUR - number, 2) for number in range(40, 25, -1)), (HOUR - 25, 19), (HOUR - 24, 8))
    assert usual_busiest_hour(Tempo(per_hour=per_hour), NOW) == 19
    stopped = with_last_hour(set(), NOW - timedelta(hours=24))
    assert usual_busiest_hour(Tempo(per_hour=per_hour), NOW, set(stopped)) == 2
    assert with_last_hour(set(stopped), NOW + timedelta(days=20)) == with_last_hour(set(), NOW + timedelta(days=20))


def test_a_new_bot_has_no_usual_hour() -> None:
    assert usual_busiest_hour(Tempo(per_hour=tuple((HOUR - number, 9) for number in range(11, 0, -1))), NOW) is None
    assert usual_busiest_hour(Tempo(), NOW) is None
