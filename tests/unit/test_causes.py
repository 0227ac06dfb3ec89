"""What lines state and mean where they belong together: facts, causes that have to last, folded and forged lines.

Most of how a log is read (growth, rotation, times, hostile files) is tested in test_diagnose.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep import logscan
from botkeep.causes import read_log
from botkeep.logjoin import Joined, Lines, record
from botkeep.logscan import Scanner
from botkeep.model import CauseClass, LogLook
from botkeep.profiles import PROFILES
from botkeep.profiles.catalogue import DATED, After, Catalogue, LinePattern, MarkPattern, Signature
from support.folding import fold

NOW = datetime.now(UTC).replace(microsecond=0)
DATA = Path(__file__).parents[1] / "data"
DATE = r"\A\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"


def signature(name: str, pattern: str, *contains: str, **more: Any) -> Signature:
    about: dict[str, Any] = {"cause": f"{name}.", "klass": CauseClass.WAIT, "fault": None, "example": ""}
    return Signature(id=name, pattern=pattern, contains=contains, recent=timedelta(minutes=30), **(about | more))


BEAT = MarkPattern(
    id="heartbeat",
    contains=("Bot heartbeat. PID=",),
    pattern=DATE + r" - worker - INFO - Bot heartbeat\. PID=(?P<who>\S+?), state='(?P<state>.*)'\z",
    example="",
)
ORDER = MarkPattern(id="order", contains=("order filled",), pattern=r"order filled (?P<id>\S+)", example="")
BANNED = signature("banned", r"IP banned until (?P<until>\d{13})", "IP banned until", until="until")
LOCKED = signature("locked", r"database is locked", "database is locked", advice="Find who holds it.")
BROKEN = signature("broken", r"\AModuleNotFoundError: ", "ModuleNotFoundError")
TICKS = signature("ticks", r"tick error", "tick error", after=After(lines=3, within=timedelta(minutes=5)))
KNOWN = Catalogue(signatures=(BANNED, LOCKED, BROKEN, TICKS), marks=(BEAT, ORDER))
JOINED = Catalogue(signatures=KNOWN.signatures, marks=KNOWN.marks, joins=DATED)


def dated(text: str, ago: float = 0.0, *, now: datetime = NOW) -> str:
    return f"{now - timedelta(seconds=ago):%Y-%m-%d %H:%M:%S},000 - {text}\n"


def beat(ago: float, who: str = "17", state: str = "RUNNING", *, now: datetime = NOW) -> str:
    return dated(f"worker - INFO - Bot heartbeat. PID={who}, state='{state}'", ago, now=now)


def look(
    path: Path,
    before: LogLook | None = None,
    *,
    known: Catalogue = KNOWN,
    now: datetime = NOW,
    zone: str = "UTC",
    run_offset: int | None = None,
    run_started: datetime | None = None,
) -> LogLook:
    cursor = json.loads(json.dumps(before.cursor, sort_keys=True)) if before else None  # as the ledger keeps it
    return read_log(
        path, cursor=cursor, now=now, zone=zone, catalogue=lambda: known, run_offset=run_offset, run_started=run_started
    )


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(lines)


def counts(seen: LogLook) -> dict[str, int]:
    return {cause.signature: cause.count for cause in seen.causes}


def ago(*seconds: float) -> tuple[datetime, ...]:
    return tuple(NOW - timedelta(seconds=one) for one in seconds)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "bot.log"


# --------------------------------------------------------------------------------------------- facts that lines state


def test_a_mark_has_the_values_of_its_newest_line_and_says_when_and_how_often(log: Path) -> None:
    log.write_text(beat(150) + beat(90, state="PAUSED") + dated("x - INFO - quiet", 60) + beat(30, state="STOPPED"))
    mark = look(log).marks["heartbeat"]
    assert (mark.count, mark.values) == (3, {"who": "17", "state": "STOPPED"})
    assert (mark.first_at, mark.at) == ago(150, 30)
    assert mark.gaps == (60.0, 60.0)
    assert mark.who == (("17", NOW - timedelta(seconds=30)),)
    assert mark.this_run


def test_what_a_mark_knows_is_remembered_over_looks(log: Path) -> None:
    log.write_text(beat(150) + beat(90))
    seen = look(log)
    append(log, beat(30, "18"))
    mark = look(log, seen).marks["heartbeat"]
    assert (mark.count, mark.gaps, mark.first_at) == (3, (60.0, 60.0), NOW - timedelta(seconds=150))
    assert [who for who, _ in mark.who] == ["18", "17"]
    assert look(log, look(log, seen)).marks["heartbeat"] == mark


def test_a_line_may_state_several_things_and_mean_one(log: Path) -> None:
    log.write_text(beat(5, state="order filled 81, database is locked"))
    seen = look(log)
    assert {name: mark.count for name, mark in seen.marks.items()} == {"heartbeat": 1, "order": 1}
    assert counts(seen) == {"locked": 1}
    assert seen.causes[0].advice == "Find who holds it."


def test_values_are_shown_without_secrets_and_capped(log: Path) -> None:
    key = "9f" * 32
    log.write_text(beat(5, who="\x1b[31m17\x1b[0m", state=f"api_key={key} " + "x" * 500))
    mark = look(log).marks["heartbeat"]
    assert mark.values["who"] == "17"
    assert key not in json.dumps(dict(mark.values))
    assert mark.values["state"].startswith("api_key=[redacted]")
    assert len(mark.values["state"]) == 80


def test_at_most_eight_that_said_it_are_kept_and_twenty_distances(log: Path) -> None:
    log.write_text("".join(beat(400 - 10 * number, str(100 + number % 12)) for number in range(40)))
    mark = look(log).marks["heartbeat"]
    assert len(mark.gaps) == 20
    assert [who for who, _ in mark.who] == [str(100 + number % 12) for number in range(39, 31, -1)]


@pytest.mark.parametrize("known", [KNOWN, JOINED])
def test_marks_are_read_over_a_rotation_between_two_looks(log: Path, known: Catalogue) -> None:
    log.write_text(beat(210))
    seen = look(log, known=known)
    append(log, beat(150))
    log.rename(f"{log}.1")
    log.write_text(beat(90))
    seen = look(log, seen, known=known)
    assert (seen.marks["heartbeat"].count, seen.marks["heartbeat"].gaps) == (3, (60.0, 60.0))
    Path(f"{log}.1").write_bytes(log.read_bytes() + beat(30).encode())  # and now copied and cut
    os.truncate(log, 0)
    append(log, beat(0))
    mark = look(log, seen, known=known).marks["heartbeat"]
    assert (mark.count, mark.gaps) == (5, (60.0, 60.0, 60.0, 30.0))


@given(st.lists(st.sampled_from(["beat", "beat", "part", "look", "rename", "copy", "lose"]), max_size=14))
@settings(deadline=None, max_examples=80)
def test_over_any_rotations_each_mark_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    log = tmp_path_factory.mktemp("log") / "bot.log"
    log.write_text(dated("x - INFO - starting"))
    seen, written, turned = look(log, known=JOINED), 0, False
    for step in steps:
        if step == "beat":
            written += 1
            append(log, beat(0, str(written)))
        elif step == "part":
            append(log, "a line without a date\n")
        elif step == "look" or turned:  # of two rotations between two looks nobody could know
            seen, turned = look(log, seen, known=JOINED), False
        elif step == "copy":
            Path(f"{log}.1").write_bytes(log.read_bytes())
            os.truncate(log, 0)
            append(log, dated(f"x - INFO - going on {written}"))
            turned = True
        else:
            seen = look(log, seen, known=JOINED) if step == "lose" else seen
            log.rename(f"{log}.1")
            Path(f"{log}.1").unlink() if step == "lose" else None
            log.write_text(dated(f"x - INFO - starting {written}"))
            turned = True
    mark = look(log, seen, known=JOINED).marks.get("heartbeat")
    assert (mark.count if mark else 0) == written


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("known", [KNOWN, JOINED])
def test_a_log_that_is_gone_or_was_replaced_keeps_its_marks(log: Path, known: Catalogue, end: str) -> None:
    log.write_text(beat(90) + beat(60).rstrip("\n") + end)
    seen = look(log, known=known)
    log.unlink()
    gone = look(log, seen, known=known)
    assert gone.problem is not None
    assert gone.marks["heartbeat"].count == 2
    log.write_text(beat(30, "18"))
    mark = look(log, gone, known=known).marks["heartbeat"]
    assert (mark.count, mark.values["who"]) == (3, "18")


def test_a_new_run_starts_its_own_count_and_the_one_before_is_told_as_such(log: Path) -> None:
    log.write_text(beat(300) + beat(240))
    seen = look(log, run_offset=0)
    start = log.stat().st_size
    append(log, dated("main - INFO - starting", 40))
    waiting = look(log, seen, run_offset=start)
    assert (waiting.marks["heartbeat"].this_run, waiting.marks["heartbeat"].count) == (False, 2)
    append(log, beat(30, "18"))
    mark = look(log, waiting, run_offset=start).marks["heartbeat"]
    assert (mark.this_run, mark.count, mark.first_at) == (True, 1, NOW - timedelta(seconds=30))
    assert mark.gaps == (60.0,)  # being down is no distance
    assert [who for who, _ in mark.who] == ["18"]


def test_where_only_the_start_of_the_bot_is_known_marks_before_it_are_of_the_dead_run(log: Path) -> None:
    log.write_text(beat(300) + beat(240))
    alone = look(log, run_started=NOW - timedelta(seconds=100)).marks["heartbeat"]
    assert (alone.this_run, alone.count) == (False, 2)
    append(log, beat(60, "18"))
    mark = look(log, run_started=NOW - timedelta(seconds=100)).marks["heartbeat"]
    assert (mark.this_run, mark.count, mark.who[0][0]) == (True, 1, "18")


def test_a_mark_in_an_hour_that_occurs_twice_keeps_its_distance(log: Path) -> None:
    end = datetime(2026, 10, 25, 2, 0, tzinfo=UTC)  # Lisbon's clock is set back at 01:00 UTC
    zone = ZoneInfo("Europe/Lisbon")
    times = [end - timedelta(minutes=10 * number) for number in range(13, -1, -1)]
    lines = [beat(0, now=at.astimezone(zone)) for at in times]
    log.write_text("".join(lines))
    whole = look(log, now=end, zone="Europe/Lisbon").marks["heartbeat"]
    assert (whole.at, whole.gaps) == (end, (600.0,) * 13)
    log.write_text(lines[0])
    seen = look(log, now=times[0], zone="Europe/Lisbon")
    for line, at in zip(lines[1:], times[1:], strict=True):
        append(log, line)
        seen = look(log, seen, now=at, zone="Europe/Lisbon")
        assert seen.marks["heartbeat"].at == at
    assert seen.marks["heartbeat"].gaps == (600.0,) * 13


def test_distances_are_those_of_the_lines_whatever_zone_they_are_dated_in(log: Path) -> None:
    log.write_text(dated("main - INFO - starting"))
    seen = look(log)
    append(log, beat(5 * 3600 + 90), beat(5 * 3600 + 30))
    seen = look(log, seen, now=NOW + timedelta(seconds=30))
    append(log, beat(5 * 3600 - 30))
    mark = look(log, seen, now=NOW + timedelta(seconds=60)).marks["heartbeat"]
    assert mark.gaps == (60.0, 60.0)
    assert NOW <= mark.at <= NOW + timedelta(seconds=60)


def test_a_mark_is_forgotten_after_a_week(log: Path) -> None:
    log.write_text(beat(30))
    seen = look(log)
    assert look(log, seen, now=NOW + timedelta(days=6)).marks
    assert not look(log, seen, now=NOW + timedelta(days=8)).marks


@pytest.mark.parametrize(
    "change",
    [
        {"marks": 3},
        {"marks": {"heartbeat": {}}},
        {"marks": {"x": {"odd": 1}}},
        {"quiet": "x"},
        {"causes": [{"id": "x"}]},
    ],
)
def test_a_broken_cursor_is_as_good_as_none(log: Path, change: dict[str, Any]) -> None:
    log.write_text(beat(30) + dated("a - ERROR - database is locked"))
    cursor = look(log).cursor | change
    seen = read_log(log, cursor=cursor, now=NOW, zone="UTC", catalogue=lambda: KNOWN)
    assert seen.marks["heartbeat"].values["state"] == "RUNNING"


# -------------------------------------------------------------------------------------------- causes that have to last


def _ticks(*seconds_ago: float) -> str:
    return "".join(dated("clock - ERROR - tick error", seconds) for seconds in seconds_ago)


def test_a_cause_that_has_to_last_counts_when_enough_lines_came_in_time(log: Path) -> None:
    log.write_text(_ticks(700, 390, 200))
    assert counts(look(log)) == {}
    append(log, _ticks(95))
    assert counts(look(log)) == {"ticks": 4}


def test_it_may_last_over_several_looks_and_is_over_when_it_was_long_ago(log: Path) -> None:
    log.write_text(_ticks(250))
    seen = look(log)
    for seconds in (150, 50):
        assert counts(seen) == {}
        append(log, _ticks(seconds))
        seen = look(log, seen)
    assert counts(seen) == {"ticks": 3}
    append(log, _ticks(-1500))  # one more, long after: that alone is nothing
    later = look(log, seen, now=NOW + timedelta(minutes=25))
    assert counts(later) == {"ticks": 4}
    assert counts(look(log, later, now=NOW + timedelta(minutes=31))) == {}


# ------------------------------------------------------------------------------------------- lines that belong together

MESSAGE = "exchange - WARNING - fetch() returned exception: Message: binance GET https://api.example/v3/klines?"


def _folded_at(text: str, before: int) -> str:
    """A dated line in which `text` begins `before` columns before the end of the first line, folded."""
    head = dated(MESSAGE)[:-1]
    padding = "p" * (198 - len(head) - before)
    whole = f"{head} {padding} {text} and so on"
    assert "\n" in fold(whole)
    return fold(whole) + "\n"


@pytest.mark.parametrize("before", range(30))
def test_a_text_that_the_console_folds_is_found(log: Path, before: int) -> None:
    until = NOW + timedelta(hours=1)
    log.write_text(_folded_at(f"IP banned until {until.timestamp() * 1000:.0f}", before) + dated("x - INFO - y"))
    (cause,) = look(log, known=JOINED).causes
    assert (cause.signature, cause.count, cause.until) == ("banned", 1, until)


@pytest.mark.parametrize("place", range(180, 201))
def test_a_text_that_the_console_cuts_inside_a_long_word_is_found(log: Path, place: int) -> None:
    known = Catalogue(signatures=(signature("key", r'"code":-2015\b', '"code":-2015'),), joins=DATED)
    body = "{" + '"a":0,' * 200
    body = body[:place] + '"code":-2015,' + body[place:300]
    log.write_text(fold(dated(f"{MESSAGE} {body} and so on")[:-1]) + "\n")
    assert counts(look(log, known=known)) == {"key": 1}


def test_a_log_that_drops_the_blank_at_the_end_of_a_line_is_joined_too(log: Path) -> None:
    text = _folded_at("database is locked", 12)
    assert " \n" in text
    log.write_text(text.replace(" \n", "\n"))
    assert counts(look(log, known=JOINED)) == {"locked": 1}
    log.write_text(text.replace("\n", "\r\n"))
    assert counts(look(log, known=JOINED)) == {"locked": 1}


def test_where_lines_stand_for_themselves_a_folded_text_is_none(log: Path) -> None:
    log.write_text(_folded_at("database is locked", 12))
    assert counts(look(log)) == {}


_WORDS = st.sampled_from(["a", "word", "x" * 150, "y" * 199, "z" * 231, "w" * 600, "{'type':", "database is locked"])


@given(st.lists(_WORDS, min_size=1, max_size=40))
@settings(deadline=None)
def test_what_was_folded_reads_as_it_was_written(words: list[str]) -> None:
    text = dated("a - INFO - " + " ".join(words))[:-1]
    assert record(fold(text).encode(), 100_000).paragraphs == (text,)


def test_a_real_console_reads_as_the_same_bots_log_file_would() -> None:
    folded = (DATA / "freqtrade/stdout-folded.log").read_bytes()
    lines, texts, place = Joined(), [], folded.index(b"\n2026") + 1
    while place < len(folded):
        start, end = lines.bounds(folded, place)
        texts.append(record(folded[start:end], 100_000))
        place = end + 1
    assert all(len(one.paragraphs) == 1 for one in texts)
    messages = [one.text.split("Sending rpc message: ")[1] for one in texts if "Sending rpc message" in one.text]
    assert len(messages) > 50
    assert all(message.startswith("{'") and message.endswith("}") and "  " not in message for message in messages)


def test_a_real_console_states_its_facts(tmp_path: Path) -> None:
    path = tmp_path / "stdout.log"
    path.write_bytes((DATA / "freqtrade/stdout-folded.log").read_bytes())
    seen = look(path, known=PROFILES["freqtrade"].catalogue(), now=datetime(2026, 11, 21, 10, 20, tzinfo=UTC))
    assert seen.marks["heartbeat"].values["state"] == "RUNNING"
    assert seen.marks["order-filled"].count == path.read_text().count("has been fulfilled")


TRACEBACK = """Traceback (most recent call last):
  File "/opt/bot/main.py", line 91, in query
    cursor.execute(statement)
sqlite3.OperationalError: database is locked

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/opt/bot/main.py", line 12, in main
sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database is locked
"""


def test_a_traceback_is_one_line_with_the_line_above_it(log: Path) -> None:
    log.write_text(dated("main - ERROR - Fatal exception!", 100) + TRACEBACK + dated("x - INFO - y"))
    (cause,) = look(log, known=JOINED).causes
    assert (cause.count, cause.last_at) == (1, NOW - timedelta(seconds=100))
    assert cause.line == "sqlite3.OperationalError: database is locked"
    (alone,) = look(log).causes
    assert alone.count == 2


def test_an_end_of_a_line_is_the_end_of_what_the_program_wrote_in_it(log: Path) -> None:
    """A print of a strategy's goes with the heartbeat above it; that one is known nevertheless."""
    log.write_text(beat(60) + "a strategy prints\nwithout a date\n" + beat(0))
    assert look(log, known=JOINED).marks["heartbeat"].count == 2


def test_a_lines_beginning_counts_for_each_line_that_the_program_made(log: Path) -> None:
    log.write_text(dated("main - ERROR - Could not import", 5) + "ModuleNotFoundError: No module named 'x'\n")
    assert counts(look(log, known=JOINED)) == {"broken": 1}


# ------------------------------------------------------------------------------------------------------ forged lines

FORGED = beat(0, "666", "STOPPED").rstrip("\n")


@pytest.mark.parametrize("known", [KNOWN, JOINED])
@pytest.mark.parametrize("between", ["", " ", "\r", "\x0b", "\x85", "\u2028", "\\n", "\x1b[1E", "\x00", "\u200b", "\t"])
def test_what_stands_at_the_beginning_of_a_line_is_not_believed_inside_another(
    log: Path, known: Catalogue, between: str
) -> None:
    log.write_text(dated(f"rpc - INFO - Sending message: x{between}{FORGED}") + dated("x - INFO - y"))
    seen = look(log, known=known)
    assert seen.marks == {}
    log.write_text(dated(f"rpc - INFO - pair x{between}ModuleNotFoundError: No module named 'x'"))
    assert counts(look(log, known=known)) == {}


@pytest.mark.parametrize("after", range(11))
def test_what_a_fold_puts_at_the_beginning_of_a_line_is_not_believed(log: Path, after: int) -> None:
    """Somebody chooses a text so that its second half begins a line of the console."""
    head = dated("rpc - INFO - Sending message:")[:-1]
    text = f"{head} {'p' * (WIDTH - len(head) - 1 - after)} {FORGED}"
    folded = fold(text)
    assert FORGED[:30] in folded.splitlines()[1][:80]
    log.write_text(dated("x - INFO - y") + folded + "\n" + dated("x - INFO - y"))
    assert look(log, known=JOINED).marks == {}


WIDTH = 200


def test_a_file_that_nothing_folds_has_lines_of_any_width(log: Path) -> None:
    """There a line that ends at the last column of a console is nothing special."""
    text = dated("rpc - INFO - y")[:-1]
    log.write_text(dated("x" * 300) + text + "y" * (WIDTH - len(text)) + "\n" + beat(0))
    assert look(log, known=JOINED).marks["heartbeat"].count == 1


def test_a_forged_run_of_lines_without_a_date_is_cut_where_records_end(log: Path) -> None:
    """Sixty lines and 8 KiB belong together at most; those after them stand for themselves."""
    log.write_text(dated("x - INFO - page") + "<p>\n" * 70 + "database is locked\n" * 3 + dated("x - INFO - y"))
    assert counts(look(log, known=JOINED)) == {"locked": 3}
    log.write_text(dated("x - INFO - page") + "<p>\n" * 40 + "database is locked\n" * 3 + dated("x - INFO - y"))
    assert counts(look(log, known=JOINED)) == {"locked": 1}
    log.write_text(dated("x - INFO - page") + "<p>" * 3000 + "\n" + "database is locked\n" * 3)
    assert counts(look(log, known=JOINED)) == {"locked": 3}


# ------------------------------------------------------------------------------- what is not complete, and what is new


@pytest.mark.parametrize("known", [KNOWN, JOINED])
def test_a_record_that_is_not_complete_yet_counts_once(log: Path, known: Catalogue) -> None:
    pieces = [
        dated("main - ERROR - Fatal exception!"),
        *TRACEBACK.splitlines(keepends=True),
        dated("x - INFO - y"),
        beat(0),
    ]
    log.write_text("")
    seen = look(log, known=known)
    for piece in pieces:
        append(log, piece[: len(piece) // 2])
        seen = look(log, seen, known=known)
        append(log, piece[len(piece) // 2 :])
        seen = look(log, seen, known=known)
    assert counts(seen) == counts(look(log, known=known))
    assert seen.marks == look(log, known=known).marks


@pytest.mark.parametrize("known", [KNOWN, JOINED])
def test_the_beginning_of_a_line_that_never_ends_counts_once(log: Path, known: Catalogue) -> None:
    log.write_text(dated("x - INFO - y"))
    seen = look(log, known=known)
    append(log, dated("a - ERROR - database is locked")[:-1])
    for _ in range(5):
        append(log, " x" * 50_000)
        seen = look(log, seen, known=known)
        assert counts(seen) == {"locked": 1}
    append(log, "database is locked\n", dated("a - ERROR - database is locked"))
    assert counts(look(log, seen, known=known)) == {"locked": 2}


_PIECES = [
    beat(9), beat(8, "18"), dated("a - ERROR - database is locked", 7), dated("a - ERROR - failed", 6), "MemoryError\n",
    "sqlite3.OperationalError: database is locked\n", "é\n", "\n", _folded_at("database is locked", 12), "  File x\n",
    _folded_at(FORGED, 3), dated("order filled 81", 5), "order filled 82\n", "<p>\n" * 65, dated("x" * 180, 4), "tail",
]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), max_size=12), st.integers(0, 2**32), st.sampled_from([KNOWN, JOINED]))
@settings(deadline=None, max_examples=150)
def test_however_the_bytes_arrive_each_record_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], seed: int, known: Catalogue
) -> None:
    log = tmp_path_factory.mktemp("log") / "bot.log"
    data, dice = "".join(pieces).encode(), random.Random(seed)
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(4))
    log.write_bytes(b"")
    seen = look(log, known=known)
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        with log.open("ab") as file:
            file.write(data[start:end])
        seen = look(log, seen, known=known)
    whole = look(log, known=known)
    assert counts(seen) == counts(whole)
    assert _told(seen) == _told(whole)
    assert seen.newest_line_at == whole.newest_line_at


def _told(seen: LogLook) -> dict[str, Any]:
    return {name: (mark.count, dict(mark.values), [who for who, _ in mark.who]) for name, mark in seen.marks.items()}


def test_a_look_at_a_log_with_nothing_new_reads_no_signatures(log: Path) -> None:
    log.write_text(beat(90) + dated("x - INFO - a line that may go on"))
    seen = look(log, known=JOINED)

    def asked() -> Catalogue:
        raise AssertionError("nothing is new")

    again = read_log(log, cursor=seen.cursor, now=NOW, zone="UTC", catalogue=asked)
    assert again.marks == seen.marks
    assert again.cursor["position"] == seen.cursor["position"]


def test_a_look_at_a_log_with_nothing_new_does_not_import_re2(log: Path) -> None:
    log.write_text(dated("freqtrade.worker - INFO - Bot heartbeat. PID=7, version='2026.9', state='RUNNING'"))
    seen = look(log, known=PROFILES["freqtrade"].catalogue())
    program = (
        "import json, sys\n"
        "from datetime import datetime, UTC\n"
        "from pathlib import Path\n"
        "from botkeep.causes import read_log\n"
        "from botkeep.profiles import PROFILES\n"
        "cursor = json.loads(sys.argv[2])\n"
        "for _ in range(2):\n"
        "    seen = read_log(Path(sys.argv[1]), cursor=cursor, now=datetime.now(UTC), zone='UTC',\n"
        "                    catalogue=PROFILES['freqtrade'].catalogue)\n"
        "    print('re2' in sys.modules, seen.marks['heartbeat'].count)\n"
        "    Path(sys.argv[1]).open('a').write(sys.argv[3])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(log), json.dumps(seen.cursor), dated("x - INFO - database is locked")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "1", "True", "1"]


# ------------------------------------------------------------------------------------------------- finding the lines


def _numbered(texts: Iterable[str]) -> list[LinePattern]:
    return [signature(str(number), text, text) for number, text in enumerate(texts)]


_TEXTS = ["429", "429000", "29", "9 ", "Too Many", "Many Requests", "code", '"code":', "a b", "b a b", "ab"]


@given(st.lists(st.sampled_from([*_TEXTS, "\n", " ", "x", "4", "2", "\x1b[0m"]), max_size=60), st.booleans())
@settings(deadline=None, max_examples=300)
def test_every_line_that_holds_a_text_is_found_with_all_its_patterns(pieces: list[str], joined: bool) -> None:
    patterns = _numbered(_TEXTS)
    data = "".join(pieces).encode() + b"\n"
    found: dict[int, set[str]] = {}
    for hit in Scanner(patterns, joined=joined).hits(data, Lines().bounds):
        every = patterns if hit.patterns is None else hit.patterns
        found.setdefault(hit.start, set()).update(one.id for one in every)
    start = 0
    for line in data.decode().split("\n"):
        expected = {one.id for one in patterns if one.may_match(line)}
        assert expected <= found.get(start, set())
        start += len(line) + 1


def test_a_colour_inside_a_text_does_not_hide_it_nor_move_the_run(log: Path) -> None:
    dead, alive = (
        dated("\x1b[31mdatabase \x1b[1mis locked\x1b[0m", 60),
        dated("\x1b[31mdatabase \x1b[1mis locked\x1b[0m", 9),
    )
    log.write_text(dead + alive)
    seen = look(log, run_offset=len(dead))
    assert [(one.this_run, one.count) for one in seen.causes] == [(True, 1), (False, 1)]


def test_a_signature_without_literal_text_is_tried_on_every_line(log: Path) -> None:
    known = Catalogue(signatures=(signature("number", r"\b7{3}\b"),), marks=KNOWN.marks)
    log.write_text(dated("x - INFO - 777") + beat(0) + dated("x - INFO - 7777"))
    seen = look(log, known=known)
    assert counts(seen) == {"number": 1}
    assert seen.marks["heartbeat"].count == 1


# ------------------------------------------------------------------------------------------------------------ floods


def test_of_a_mark_that_comes_by_the_thousand_the_newest_is_known_and_the_count_is_at_least(log: Path) -> None:
    log.write_text(dated("x - INFO - y"))
    seen = look(log)
    lines = 60_000
    append(log, *(dated(f"order filled {number}", (lines - number) / 60) for number in range(lines)), beat(0))
    mark = look(log, seen).marks["order"]
    assert logscan.MANY < mark.count < lines
    assert mark.values == {"id": str(lines - 1)}
    assert set(mark.gaps) <= {0.0, 1.0}


def test_a_mark_that_came_by_the_thousand_and_then_no_more_has_its_last_time(log: Path) -> None:
    log.write_text(dated("x - INFO - y"))
    seen = look(log)
    append(log, *(beat(1500 - number / 20) for number in range(20_001)), *[dated("x - INFO - y")] * 100_000)
    mark = look(log, seen).marks["heartbeat"]
    assert logscan.MANY < mark.count < 20_000
    assert mark.at == NOW - timedelta(seconds=500)


def test_a_flood_of_lines_that_mean_something_is_read_in_time_and_what_was_passed_over_is_said(log: Path) -> None:
    log.write_text(dated("x - INFO - y"))
    seen = look(log)
    line = dated("a - ERROR - database is locked")
    with log.open("a") as file:
        file.write(line * (40_000_000 // len(line)) + beat(0))
    began = time.thread_time()
    flooded = look(log, seen)
    took = time.thread_time() - began
    assert took < 30  # 7 s measured, and forty without a hurry
    assert flooded.marks["heartbeat"].count == 1
    assert flooded.skipped > 0
    read = log.stat().st_size - len(dated("x - INFO - y")) - len(beat(0)) - flooded.skipped
    assert counts(flooded)["locked"] * len(line) == pytest.approx(read, abs=len(line))
    assert look(log, flooded).skipped == 0


def test_a_pattern_that_takes_too_long_is_left_out_and_named(log: Path) -> None:
    dear = signature("dear", r"x.{0,400}z", "xy")
    known = Catalogue(signatures=(dear, *KNOWN.signatures), marks=KNOWN.marks)
    log.write_text(dated("x - INFO - y"))
    seen = look(log, known=known)
    dice = random.Random(1)
    append(
        log, *(dated("".join(dice.choices("xy", k=8000))) for _ in range(1000)), dated("a - ERROR - database is locked")
    )
    began = time.thread_time()
    tried = look(log, seen, known=known)
    assert time.thread_time() - began < 20
    assert tried.slow == ("dear",)
    assert counts(tried) == {"locked": 1}


@pytest.mark.parametrize("known", [KNOWN, JOINED])
@pytest.mark.parametrize(
    "unit", [b"a", b"\x00", b"\xff", b"\xc3", b"database is lock", b"2026-11-21 10:00:00,000 - ", b"\x1b["]
)
def test_a_line_of_a_megabyte_costs_time_by_its_length(log: Path, known: Catalogue, unit: bytes) -> None:
    def seconds(size: int) -> float:
        log.write_text(dated("x - INFO - y"))
        first = look(log, known=known)
        with log.open("ab") as file:
            file.write(((unit * (size // len(unit) + 1))[:size] + b"\n") * 4 + dated("x database is locked").encode())
        began = time.thread_time()
        seen = look(log, first, known=known)
        assert counts(seen) == {"locked": 1}
        return time.thread_time() - began

    small = min(seconds(100_000) for _ in range(3))
    assert min(seconds(1_000_000) for _ in range(3)) < 30 * small


def test_thirty_megabytes_take_little_memory(log: Path) -> None:
    log.write_text(dated("x - INFO - y"))
    first = look(log, known=JOINED)
    with log.open("a") as file:
        file.write(dated("x - INFO - all is well and nothing of it means anything to anybody") * 300_000)
    tracemalloc.start()
    seen = look(log, first, known=JOINED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen.skipped == 0
    assert peak < 20 << 20
