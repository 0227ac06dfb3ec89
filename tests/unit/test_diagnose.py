"""What a log says, read once while it grows, rotates and lies; and the explanation made of it."""

from __future__ import annotations

import json
import os
import random
import socket
import time
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep import diagnose
from botkeep.causes import LogLook, read_log
from botkeep.linetime import LineClock
from botkeep.model import (
    BotkeepError,
    Cause,
    CauseClass,
    Exit,
    Fault,
)
from botkeep.profiles import PROFILES, Catalogue, Signature

PLAIN = PROFILES["plain"]
SIGNATURES = PLAIN.signatures()
NOW = datetime.now(UTC).replace(microsecond=0)
LOCKED = "sqlite3.OperationalError: database is locked"
REFUSED = '{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}'


def dated(text: str, ago: float = 0.0, now: datetime = NOW) -> str:
    return f"{now - timedelta(seconds=ago):%Y-%m-%d %H:%M:%S} - bot - ERROR - {text}\n"


def look(
    path: Path,
    cursor: dict[str, Any] | None = None,
    *,
    now: datetime = NOW,
    zone: str = "UTC",
    signatures: Sequence[Signature] = SIGNATURES,
    run_offset: int | None = None,
    run_started: datetime | None = None,
) -> LogLook:
    cursor = json.loads(json.dumps(cursor))  # as the ledger keeps it
    known = Catalogue(signatures=tuple(signatures))
    return read_log(
        path, cursor=cursor, now=now, zone=zone, catalogue=lambda: known, run_offset=run_offset, run_started=run_started
    )


def counts(seen: LogLook) -> dict[str, int]:
    return {cause.signature: cause.count for cause in seen.causes}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "bot.log"


# ------------------------------------------------------------------------------------------------------ one look


def test_a_cause_carries_class_fault_count_times_and_its_newest_line(log: Path) -> None:
    log.write_text(dated(f"first {REFUSED}", 60) + dated("all quiet", 30) + dated(f"second {REFUSED}", 10))
    (cause,) = look(log).causes
    assert (cause.signature, cause.klass, cause.fault) == (
        "binance-key-refused",
        CauseClass.STOP,
        Fault.API_KEY_REJECTED,
    )
    assert cause.count == 2
    assert cause.first_at == NOW - timedelta(seconds=60)
    assert cause.last_at == NOW - timedelta(seconds=10)
    assert "second" in cause.line
    assert cause.this_run


def test_the_newest_line_is_shown_without_secrets_and_terminal_escapes(log: Path) -> None:
    log.write_text(dated(f"\x1b[31mGET /account?signature={'9f' * 32}&x=1\x1b[0m \u202e{REFUSED}"))
    (cause,) = look(log).causes
    assert "9f9f" not in cause.line
    assert cause.line.isprintable()
    assert "signature=[redacted]&x=1" in cause.line


def test_a_coloured_line_is_known_too(log: Path) -> None:
    log.write_text(f"\x1b[32m{NOW:%Y-%m-%d %H:%M:%S}\x1b[0m | \x1b[31mdatabase \x1b[1mis locked\x1b[0m\n")
    assert counts(look(log)) == {"database-locked": 1}


def test_a_line_of_a_traceback_has_the_time_of_the_line_above_it(log: Path) -> None:
    log.write_text(dated("Traceback (most recent call last):", 120) + '  File "bot.py", line 3\nMemoryError\n')
    (cause,) = look(log).causes
    assert cause.last_at == NOW - timedelta(seconds=120)


def test_a_match_loses_its_meaning_after_its_time(log: Path) -> None:
    log.write_text(dated(LOCKED, 60))
    first = look(log)
    assert counts(first) == {"database-locked": 1}
    assert counts(look(log, first.cursor, now=NOW + timedelta(minutes=8))) == {"database-locked": 1}
    assert counts(look(log, first.cursor, now=NOW + timedelta(minutes=10))) == {}


def test_what_was_old_at_the_first_look_means_nothing(log: Path) -> None:
    log.write_text(dated(LOCKED, 3600) + dated("fine", 5))
    assert counts(look(log)) == {}


def test_a_new_episode_is_counted_from_its_own_beginning(log: Path) -> None:
    log.write_text(dated(LOCKED, 5000) + dated(LOCKED, 4990) + dated(LOCKED, 10))
    (cause,) = look(log).causes
    assert (cause.count, cause.first_at) == (1, NOW - timedelta(seconds=10))


def test_a_line_counts_for_one_signature_only(log: Path) -> None:
    log.write_text(dated('binance 429 Too Many Requests {"code":-1003,"msg":"x"}'))
    assert counts(look(log)) == {"binance-weight": 1}


def test_an_undated_log_is_as_old_as_its_last_write_but_only_its_end_counts(log: Path) -> None:
    log.write_text(f"{REFUSED}\n" + "tick\n" * 5000 + f"{LOCKED}\n")
    seen = look(log)
    assert counts(seen) == {"database-locked": 1}
    assert seen.newest_line_at is None
    assert seen.mtime is not None


def test_the_last_word_of_a_dying_bot_needs_no_newline_and_is_counted_once(log: Path) -> None:
    log.write_text(dated("x") + "MemoryError")
    first = look(log)
    assert counts(first) == {"out-of-memory": 1}
    again = look(log, first.cursor)
    assert counts(again) == {"out-of-memory": 1}
    with log.open("a") as file:
        file.write(": no more\n")
    assert counts(look(log, again.cursor)) == {"out-of-memory": 1}


# --------------------------------------------------------------------------------------------------- bans that end


def _ban(until: datetime) -> str:
    return dated(f"418 I'm a Teapot Way too much; IP banned until {int(until.timestamp() * 1000)}.")


def test_a_ban_lasts_until_its_own_time(log: Path) -> None:
    log.write_text(_ban(NOW + timedelta(hours=5)))
    first = look(log)
    assert first.causes[0].until == NOW + timedelta(hours=5)
    assert counts(look(log, first.cursor, now=NOW + timedelta(hours=4))) == {"binance-ip-ban": 1}
    assert counts(look(log, first.cursor, now=NOW + timedelta(hours=6))) == {}


@pytest.mark.parametrize("days", [31, 4000, -31])
def test_a_ban_that_ends_beyond_thirty_days_is_not_believed(log: Path, days: int) -> None:
    log.write_text(_ban(NOW + timedelta(days=days)))
    assert look(log).causes[0].until is None


# ------------------------------------------------------------------------------------------------ only what is new


def test_an_incremental_look_reads_only_what_was_appended(log: Path) -> None:
    log.write_text(dated("fine", 50) * 100 + dated(LOCKED, 40))
    first = look(log)
    old = log.stat().st_size
    with log.open("r+") as file:  # what was read is changed behind the back of the reader
        file.write(dated(REFUSED, 50))
    with log.open("a") as file:
        file.write(dated(LOCKED, 1))
    second = look(log, first.cursor)
    assert counts(second) == {"database-locked": 2}
    assert first.cursor["position"]["offset"] == old
    assert second.cursor["position"]["offset"] == log.stat().st_size


def test_nothing_new_leaves_everything_as_it_was(log: Path) -> None:
    log.write_text(dated(LOCKED, 40))
    first = look(log)
    second = look(log, first.cursor)
    assert second.causes == first.causes
    assert second.newest_line_at == first.newest_line_at == NOW - timedelta(seconds=40)


@given(st.lists(st.sampled_from([f"{LOCKED}\n", f"{REFUSED}\n", "fine\n", "é\n", "\n", "MemoryError"]), max_size=12),
       st.integers(0, 2**32))  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_however_the_bytes_arrive_each_line_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], seed: int
) -> None:
    log = tmp_path_factory.mktemp("log") / "bot.log"
    data, dice = "".join(lines).encode(), random.Random(seed)
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(3))
    log.write_bytes(b"")
    now = datetime.now(UTC)
    seen = look(log, now=now)
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        with log.open("ab") as file:
            file.write(data[start:end])
        seen = look(log, seen.cursor, now=now)
    assert counts(seen) == counts(look(log, now=now))


# --------------------------------------------------------------------------------- rotation, truncation, replacement


def test_a_renamed_log_is_read_to_its_end_before_the_new_one(log: Path) -> None:
    log.write_text(dated("fine", 50))
    first = look(log)
    with log.open("a") as file:
        file.write(dated(REFUSED, 20))
    log.rename(f"{log}.1")
    log.write_text(dated(LOCKED, 10))
    second = look(log, first.cursor)
    assert counts(second) == {"binance-key-refused": 1, "database-locked": 1}
    assert counts(look(log, second.cursor)) == counts(second)


def test_a_log_that_is_copied_and_cut_is_read_to_the_end_of_the_copy(log: Path) -> None:
    log.write_text(dated("fine", 50))
    first = look(log)
    with log.open("a") as file:
        file.write(dated(REFUSED, 20))
    Path(f"{log}.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)
    with log.open("a") as file:
        file.write(dated(LOCKED, 10))
    assert counts(look(log, first.cursor)) == {"binance-key-refused": 1, "database-locked": 1}


def test_a_log_that_was_cut_and_has_outgrown_its_old_length_is_read_from_its_beginning(log: Path) -> None:
    log.write_text(dated("fine", 50) * 3)
    first = look(log)
    log.write_text(dated(LOCKED, 10) + dated("fine", 5) * 50)
    assert counts(look(log, first.cursor)) == {"database-locked": 1}


def test_a_log_that_was_replaced_by_an_old_one_says_nothing_new(log: Path) -> None:
    log.write_text(dated("fine", 50))
    first = look(log)
    log.unlink()
    log.write_text(dated(REFUSED, 7200) + dated("fine", 7000))
    assert counts(look(log, first.cursor)) == {}


def test_a_log_that_is_gone_keeps_what_was_known(log: Path) -> None:
    log.write_text(dated(LOCKED, 10))
    first = look(log)
    log.unlink()
    second = look(log, first.cursor)
    assert counts(second) == {"database-locked": 1}
    assert second.problem == f"The log {log} does not exist (yet)."
    log.write_text(dated(LOCKED, 5))
    assert counts(look(log, second.cursor)) == {"database-locked": 2}


@pytest.mark.parametrize("cursor", [{}, {"position": 3}, {"causes": [{}]}, {"position": {"dev": 1}, "looked_at": None}])
def test_a_broken_cursor_is_as_good_as_none(log: Path, cursor: dict[str, Any]) -> None:
    log.write_text(dated(LOCKED, 10))
    assert counts(look(log, cursor)) == {"database-locked": 1}


@given(st.lists(st.sampled_from(["append", "append", "look", "rename", "copy"]), max_size=14))
@settings(deadline=None, max_examples=60)
def test_over_any_rotations_each_line_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    log = tmp_path_factory.mktemp("log") / "bot.log"
    log.write_text("starting\n")
    now = datetime.now(UTC)
    seen, written, turned = look(log, now=now), 0, False
    for number, step in enumerate(steps):
        if step == "append":
            written += 1
            with log.open("a") as file:
                file.write(f"{LOCKED} {written}\n")
        elif step == "look" or turned:  # of two rotations between two looks nobody could know
            seen, turned = look(log, seen.cursor, now=now), False
        elif step == "rename":
            log.rename(f"{log}.1")
            log.write_text(f"starting {number}\n")
            turned = True
        else:
            Path(f"{log}.1").write_bytes(log.read_bytes())
            os.truncate(log, 0)
            with log.open("a") as file:
                file.write(f"going on {number}\n")
            turned = True
    assert counts(look(log, seen.cursor, now=now)).get("database-locked", 0) == written


# ----------------------------------------------------------------------------------- the newest run and the dead one


def test_lines_before_the_newest_run_belong_to_the_run_that_died(log: Path) -> None:
    log.write_text(dated(REFUSED, 20))
    start = log.stat().st_size
    with log.open("a") as file:
        file.write(dated(LOCKED, 10))
    runs = {cause.signature: cause.this_run for cause in look(log, run_offset=start).causes}
    assert runs == {"database-locked": True, "binance-key-refused": False}


def test_a_restart_turns_what_was_known_into_the_past(log: Path) -> None:
    log.write_text(dated(REFUSED, 20))
    first = look(log, run_offset=0)
    assert first.causes[0].this_run
    start = log.stat().st_size
    with log.open("a") as file:
        file.write(dated("starting", 5))
    second = look(log, first.cursor, run_offset=start)
    assert [cause.this_run for cause in second.causes] == [False]
    with log.open("a") as file:
        file.write(dated(REFUSED, 1))
    third = look(log, second.cursor, run_offset=start)
    assert [(cause.this_run, cause.count) for cause in third.causes] == [(True, 1), (False, 1)]


def test_a_log_that_shrank_below_the_start_of_the_run_belongs_to_it_as_a_whole(log: Path) -> None:
    log.write_text(dated(LOCKED, 10))
    first = look(log, run_offset=1_000_000)
    assert first.causes[0].this_run
    with log.open("a") as file:
        file.write(dated("fine", 5) * 30_000)  # past the offset, that is of no use any more
        file.write(dated(LOCKED, 2))
    assert [cause.this_run for cause in look(log, first.cursor, run_offset=1_000_000).causes] == [True]


def test_a_rotation_in_the_middle_of_a_run_does_not_end_it(log: Path) -> None:
    log.write_text(dated("of the dead run", 90))
    start = log.stat().st_size
    first = look(log, run_offset=start)
    with log.open("a") as file:
        file.write(dated(REFUSED, 20))
    log.rename(f"{log}.1")
    log.write_text(dated(LOCKED, 10))
    second = look(log, first.cursor, run_offset=start)
    assert {cause.signature: cause.this_run for cause in second.causes} == {
        "binance-key-refused": True,
        "database-locked": True,
    }


def test_where_only_the_start_of_the_bot_is_known_it_divides_the_lines_by_time(log: Path) -> None:
    log.write_text(dated(REFUSED, 60) + dated(LOCKED, 10))
    started = NOW - timedelta(seconds=30)
    first = look(log, run_started=started)
    assert [(one.signature, one.this_run) for one in first.causes] == [
        ("database-locked", True),
        ("binance-key-refused", False),
    ]
    again = look(log, first.cursor, run_started=started + timedelta(seconds=1))  # computed from the uptime anew
    assert [one.this_run for one in again.causes] == [True, False]
    dead = look(log, again.cursor, run_started=None)  # a bot that is down has no start
    assert [one.this_run for one in dead.causes] == [True, False]
    restarted = look(log, dead.cursor, run_started=NOW)
    assert [one.this_run for one in restarted.causes] == [False]


# ---------------------------------------------------------------------------------------------------- when it was


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-21 09:17:48,604 - x", "[2026-11-21T09:17:48.604Z] x", "INFO:     2026-11-21 09:17:48 x",
        "[INFO | 2026-11-21T09:17:48] msg", "2026-11-21T09:17:48.604123456Z from a container", "1795252668 x",
        "1795252668.604 x", "1795252668604 x", "[1795252668604123] x", '{"level":"info","ts":1795252668.6,"msg":"x"}',
        '{"timestamp": "2026-11-21T10:17:48+01:00"}', "Nov 21 09:17:48 host bot: x", "2026/11/21 09:17:48 x",
        "bot-3m  | 2026-11-21 09:17:48 x", "2026-11-21 09:17:48.604 | INFO     | x", "2026-11-21 14:47:48 +0530 x",
        "\x1b[32m2026-11-21 09:17:48.604\x1b[0m | x", "<2026-11-21 09:17:48> x", "WARNING 2026-11-21 09:17:48 x",
    ],
)  # fmt: skip
def test_the_common_ways_to_date_a_line_are_read(line: str) -> None:
    clock = LineClock("UTC", datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp())
    at = clock.read(line.encode())
    assert at is not None
    assert int(at) == datetime(2026, 11, 21, 9, 17, 48, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "line",
    ["", "  File x", "2026-02-31 00:00:00 x", "2026-11-21 25:00:00 x", "0000-00-00 00:00:00", "17952546 x",
     "Closing the trade opened 2026-11-01 00:00:00", "order 1795252668604 filled", "99999999999999999999999", "{}"],
)  # fmt: skip
def test_a_line_that_only_mentions_a_date_is_undated(line: str) -> None:
    assert LineClock("UTC", NOW.timestamp()).read(line.encode()) is None


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_dated_or_not_without_an_error(line: bytes) -> None:
    LineClock("Europe/Lisbon", NOW.timestamp()).read(line, 1.0)


def test_an_hour_that_occurs_twice_is_told_apart_by_the_lines_before_it() -> None:
    clock = LineClock("Europe/Lisbon", datetime(2026, 10, 25, 3, tzinfo=UTC).timestamp())
    last: float | None = None
    times = []
    for local in ("00:59", "01:10", "01:50", "01:05", "01:59", "02:05"):
        last = clock.read(f"2026-10-25 {local}:00 x".encode(), last)
        assert last is not None
        times.append(datetime.fromtimestamp(last, UTC).strftime("%d %H:%M"))
    assert times == ["24 23:59", "25 00:10", "25 00:50", "25 01:05", "25 01:59", "25 02:05"]


def test_without_lines_before_it_such_an_hour_is_the_later_one_that_has_been() -> None:
    at = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    for moment, expected in ((at, at), (at + timedelta(hours=1), at + timedelta(hours=1))):
        clock = LineClock("Europe/Lisbon", moment.timestamp())
        assert clock.read(b"2026-10-25 01:30:00 x") == expected.timestamp()


def test_lines_are_dated_in_the_bots_own_zone(log: Path) -> None:
    local = NOW.astimezone(ZoneInfo("Asia/Tokyo"))
    log.write_text(f"{local:%Y-%m-%d %H:%M:%S} {LOCKED}\n")
    seen = look(log, zone="Asia/Tokyo")
    assert seen.newest_line_at == seen.causes[0].last_at == NOW


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_new_line_dated_in_a_wrong_zone_is_as_new_as_its_arrival(log: Path, hours: int) -> None:
    """The zone was not configured: a line that came after the last look was written after it, whatever it says."""
    log.write_text(dated("fine"))
    first = look(log)
    with log.open("a") as file:
        file.write(dated(LOCKED, -3600 * hours))
    later = NOW + timedelta(seconds=30)
    (cause,) = look(log, first.cursor, now=later).causes
    assert cause.last_at is not None
    assert NOW <= cause.last_at <= later


def test_a_line_from_the_future_does_not_stay_recent_for_ever(log: Path) -> None:
    log.write_text(dated(LOCKED, -86400 * 365))
    seen = look(log)
    assert seen.causes[0].last_at is not None
    assert seen.causes[0].last_at <= NOW
    assert counts(look(log, seen.cursor, now=NOW + timedelta(hours=1))) == {}


# -------------------------------------------------------------------------------------------------------- pauses


def test_the_pauses_between_lines_are_remembered_over_looks(log: Path) -> None:
    log.write_text(dated("a", 100) + dated("b", 100) + dated("c", 70))
    first = look(log)
    assert first.gaps == (30.0,)
    with log.open("a") as file:
        file.write(dated("d", 10))
    assert look(log, first.cursor).gaps == (30.0, 60.0)


def test_being_down_is_no_pause(log: Path) -> None:
    log.write_text(dated("a", 900) + dated("b", 890))
    start = log.stat().st_size
    first = look(log, run_offset=0)
    with log.open("a") as file:
        file.write(dated("c", 20) + dated("d", 10))
    assert look(log, first.cursor, run_offset=start).gaps == (10.0, 10.0)
    assert look(log, run_offset=start).gaps == (10.0, 10.0)
    assert look(log, run_started=NOW - timedelta(seconds=30)).gaps == (10.0, 10.0)


def test_a_burst_of_lines_does_not_push_the_long_pauses_out(log: Path) -> None:
    burst = "".join(dated("tick", 600 - second) for second in range(600))
    log.write_text(dated("a", 5000) + dated("b", 1200) + burst)
    gaps = look(log).gaps
    assert len(gaps) == 200
    assert max(gaps) == 3800.0


def test_a_clock_that_jumps_is_no_pause(log: Path) -> None:
    log.write_text(dated("a", 60) + dated("b", -86400 * 3650) + dated("c", 30) + dated("d", 20))
    assert look(log).gaps == (10.0,)


# ------------------------------------------------------------------------------------------------------ hostile files


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def _zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_fifo, "is a FIFO"),
        (Path.mkdir, "is a folder"),
        (_socket, "is a socket"),
        (_zero, "is a symbolic link out of its folder, to /dev/zero"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        (str, "does not exist"),
    ],
)
def test_what_is_no_log_is_refused_in_one_sentence(
    tmp_path: Path, make: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    path = Path("x.log")
    make(path)
    seen = look(path)
    assert seen.problem is not None
    assert said in seen.problem
    assert seen.causes == ()
    with pytest.raises(BotkeepError, match=r"x\.log"):
        diagnose.tail(path)


def test_a_link_to_the_current_log_in_the_same_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "bot-2026-11-21.log").write_text(dated(LOCKED, 10))
    (tmp_path / "current.log").symlink_to("bot-2026-11-21.log")
    assert counts(look(tmp_path / "current.log")) == {"database-locked": 1}


def test_a_log_that_may_not_be_read_says_so(log: Path) -> None:
    log.write_text("x")
    log.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root reads everything
    try:
        seen = look(log)
    finally:
        if root:
            os.seteuid(0)
    assert "Permission denied" in (seen.problem or "")


def _peak_and_seconds(path: Path, cursor: dict[str, Any] | None) -> tuple[LogLook, int, float]:
    began = time.process_time()
    seen = look(path, cursor)
    took = time.process_time() - began
    tracemalloc.start()
    look(path, cursor)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seen, peak, took


def test_a_line_of_200_mb_costs_little_time_and_memory(log: Path) -> None:
    log.write_text(dated("fine", 60))
    first = look(log)
    with log.open("ab") as file:
        file.truncate(200_000_000)  # no newline in it
    known, peak, took = _peak_and_seconds(log, first.cursor)
    unknown, other, longer = _peak_and_seconds(log, None)
    assert max(peak, other) < 20 << 20
    assert max(took, longer) < 0.5  # of a processor; 0.02 s measured
    with log.open("ab") as file:
        file.write(f"\n{dated(LOCKED, 5)}".encode())
    assert counts(look(log, known.cursor)) == counts(look(log, unknown.cursor)) == {"database-locked": 1}


def test_the_beginning_of_a_long_line_still_counts(log: Path) -> None:
    log.write_text(dated("fine", 60))
    first = look(log)
    with log.open("a") as file:
        file.write(dated(LOCKED, 5).rstrip("\n") + " x" * 500_000)
    second = look(log, first.cursor)
    assert counts(second) == {"database-locked": 1}
    with log.open("a") as file:
        file.write("y" * 100_000 + LOCKED + "\n" + dated(LOCKED, 1))
    assert counts(look(log, second.cursor)) == {"database-locked": 2}


def test_a_sparse_file_of_ten_gib_is_looked_at_quickly(log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(10 << 30)
    seen, peak, took = _peak_and_seconds(log, None)
    assert seen.causes == ()
    assert peak < 20 << 20
    assert took < 0.5


def test_a_flood_is_read_from_its_newest_end_and_what_was_passed_over_is_said(log: Path) -> None:
    log.write_text(dated("fine", 60))
    first = look(log)
    with log.open("a") as file:
        file.write(dated(REFUSED, 50))
        file.truncate(log.stat().st_size + (129 << 20))  # more than one look reads
        file.write("\n" + dated(LOCKED, 5))
    seen = look(log, first.cursor)
    assert counts(seen) == {"database-locked": 1}
    assert seen.skipped > 0


def test_a_log_full_of_matching_lines_is_counted_in_reasonable_time(log: Path) -> None:
    log.write_text(dated("fine", 60))
    first = look(log)
    with log.open("a") as file:
        file.write(dated(LOCKED, 5) * 10_000)
    began = time.process_time()
    assert counts(look(log, first.cursor)) == {"database-locked": 10_000}
    assert time.process_time() - began < 3


# ---------------------------------------------------------------------------------------------------------- the tail


def test_the_tail_is_clean_capped_and_says_that_it_is_a_tail(log: Path) -> None:
    log.write_text("".join(f"{number} token=abcdef{number} \x1b[31m{'x' * 600}\n" for number in range(3000)))
    lines, total, truncated = diagnose.tail(log)
    assert truncated
    assert total > len(lines)
    assert sum(len(line.encode()) + 1 for line in lines) <= 4096
    assert lines[-1].startswith("2999 token=[redacted]")
    assert not any("\x1b" in line or "abcdef" in line for line in lines)


def test_a_short_log_is_shown_as_a_whole(log: Path) -> None:
    log.write_text("one\ntwo")
    assert diagnose.tail(log) == (["one", "two"], 2, False)


def test_an_empty_log_has_no_last_lines(log: Path) -> None:
    log.write_text("")
    assert diagnose.tail(log) == ([], 0, False)


# -------------------------------------------------------------------------------------------------------- exits


def _exit(**how: Any) -> Exit:
    return Exit(key="x", at=NOW, **how)


def _cause(name: str, *, this_run: bool = True, count: int = 3, until: datetime | None = None) -> Cause:
    known = {one.id: one for one in SIGNATURES}[name]
    return Cause(
        signature=name,
        cause=known.cause,
        klass=known.klass,
        fault=known.fault,
        line="line",
        count=count,
        first_at=NOW - timedelta(minutes=5),
        last_at=NOW - timedelta(seconds=10),
        until=until,
        this_run=this_run,
    )


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (None, "how it ended is not known: botkeep did not start it"),
        (_exit(), "how it ended is not known: what watched it is gone too"),
        (_exit(failed_to_start="Not a directory"), "its command could not be executed: Not a directory"),
        (_exit(code=0), "it ended by itself and reported no error"),
        (_exit(code=1), "it ended over an error that it did not handle (exit code 1)"),
        (_exit(code=2), "does not accept (exit code 2)"),
        (_exit(code=130), "it was interrupted, as by Ctrl-C (exit code 130)"),
        (_exit(code=137), "by the kernel for lack of memory or by somebody's SIGKILL (exit code 137)"),
        (_exit(code=139), "it crashed on a memory access, mostly in a native library (exit code 139)"),
        (_exit(code=136), "it crashed on an arithmetic error (exit code 136)"),
        (_exit(code=42), "it ended with a code of its own (exit code 42)"),
        (_exit(code=-11), "it crashed on a memory access, mostly in a native library (signal 11, SIGSEGV)"),
        (_exit(signal=15, asked=True), "botkeep stopped it: it was asked to end (SIGTERM) and did (signal 15"),
        (_exit(signal=9), "by the kernel for lack of memory or by somebody's SIGKILL (signal 9, SIGKILL)"),
        (_exit(signal=9, out_of_memory=False), "killed outright by somebody, not by the kernel"),
        (_exit(signal=9, out_of_memory=True, peak_rss_bytes=512_000_000),
         "the kernel killed it for lack of memory (signal 9), at a peak of 512 MB"),
        (_exit(signal=77), "a signal ended it (signal 77, unnamed)"),
    ],
)  # fmt: skip
def test_an_exit_is_put_into_words(ended: Exit | None, said: str) -> None:
    assert said in diagnose.exit_meaning(ended, PLAIN)


def test_an_exit_after_memory_ran_out_says_so() -> None:
    meaning = diagnose.exit_meaning(_exit(code=1, peak_rss_bytes=80_000_000), PLAIN, [_cause("out-of-memory")])
    assert meaning.endswith("(exit code 1), after its log said that it ran out of memory, at a peak of 80 MB")
