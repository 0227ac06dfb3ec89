"""The ledger: durable, numbered, chained, append-only; spans and cursors beside it."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import botkeep
from botkeep.ledger import GENESIS, Entry, Kind, Ledger, Memory, Seen
from botkeep.model import Fault, LedgerError, Status
from support import forks, places, small_disk

T0 = datetime(2026, 11, 21, 3, 15, 2, 123456, tzinfo=UTC)
MODULES = str(Path(botkeep.__file__).parents[1])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def add(ledger: Ledger, kind: Kind = Kind.NOTE, **fields: Any) -> Entry:
    given: dict[str, Any] = {"at": T0, "bot": "doge-long", "action": "note", "actor": "person", "sentence": "Hm."}
    return ledger.append(kind, **{**given, **fields})


def tampered(ledger: Ledger, sql: str) -> None:
    """What somebody does who knows SQLite: the triggers are no defence against that, the chain is."""
    ledger.close()
    with sqlite3.connect(ledger.path) as db:
        for trigger in ("entries_stay", "entries_remain", "entries_follow"):
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute(sql)
    db.close()


def test_an_entry_is_read_back_as_it_was_appended(ledger: Ledger) -> None:
    intent = add(ledger, Kind.INTENT, action="restart", data={"b": [1, None], "a": Decimal("1.50")})
    outcome = add(ledger, Kind.OUTCOME, action="restart", ref=intent.id, result="done", at=T0 + timedelta(seconds=9))
    assert (intent.seq, intent.id, intent.prev) == (1, "e1", GENESIS)
    assert (outcome.id, outcome.prev, outcome.ref) == ("e2", intent.hash, "e1")
    assert intent.data == {"a": "1.50", "b": [1, None]}
    assert Ledger(ledger.path).entries() == [intent, outcome]
    assert ledger.entry("e2") == outcome
    assert ledger.head() == (2, outcome.hash)
    assert ledger.verify() == []


def test_a_new_ledger_is_empty_and_sound(ledger: Ledger) -> None:
    assert ledger.entries() == []
    assert ledger.head() == (0, GENESIS)
    assert ledger.verify() == []


@pytest.mark.parametrize("id_", ["e0", "e2", "1", "", "e1 OR 1", "e٣", "e99999999999999999999"])
def test_an_id_without_an_entry_gives_none(ledger: Ledger, id_: str) -> None:
    add(ledger)
    assert ledger.entry(id_) is None


def test_text_that_is_no_utf8_and_numbers_that_are_no_json_are_stored(ledger: Ledger) -> None:
    entry = add(ledger, sentence="half a pair \ud83d and \x00", data={"x": float("nan"), "at": T0})
    assert entry.sentence == "half a pair \\ud83d and \x00"
    assert Ledger(ledger.path).entry("e1") is not None
    assert ledger.verify() == []


def test_entries_are_filtered_and_keep_their_order(ledger: Ledger) -> None:
    for hour in range(6):
        add(
            ledger,
            Kind.ALERT if hour % 2 else Kind.NOTE,
            at=T0 + timedelta(hours=hour),
            bot=f"bot{hour % 3}",
            action=f"a{hour}",
        )

    def ids(**asked: Any) -> list[str]:
        return [entry.id for entry in ledger.entries(**asked)]

    assert ids(bot="bot0") == ["e1", "e4"]
    assert ids(since=T0 + timedelta(hours=2), until=T0 + timedelta(hours=4)) == ["e3", "e4"]
    assert ids(kinds=[Kind.ALERT]) == ["e2", "e4", "e6"]
    assert ids(kinds=[]) == []
    assert ids(action="a4") == ["e5"]
    assert ids(after_seq=4) == ["e5", "e6"]
    assert ids(newest_first=True, limit=2) == ["e6", "e5"]
    assert ids(bot="bot1", kinds=[Kind.ALERT], since=T0) == ["e2"]


@pytest.mark.parametrize(
    "asked",
    [
        {"bot": "b3", "since": T0 + timedelta(days=1)},
        {"bot": "b3", "newest_first": True, "limit": 1},
        {"bot": "b3", "kinds": [Kind.INTENT]},
        {"since": T0 + timedelta(days=1)},
        {"until": T0 - timedelta(days=1)},
        {"after_seq": 10},
        {"newest_first": True, "limit": 5},
    ],
)
def test_a_question_about_one_bot_or_one_day_reads_no_other_entries(ledger: Ledger, asked: dict[str, Any]) -> None:
    add(ledger)
    statements: list[str] = []
    ledger._connection().set_trace_callback(statements.append)
    ledger.entries(**asked)
    plan = str(ledger._rows(f"EXPLAIN QUERY PLAN {statements[-1]}"))
    assert "SEARCH entries" in plan or "limit" in asked


def test_an_intent_is_open_until_an_outcome_refers_to_it(ledger: Ledger) -> None:
    first = add(ledger, Kind.INTENT, bot="a")
    second = add(ledger, Kind.INTENT, bot="b")
    add(ledger, Kind.NOTE, ref=first.id)
    assert ledger.open_intents() == [first, second]
    add(ledger, Kind.OUTCOME, bot="a", ref=first.id)
    assert ledger.open_intents() == [second]
    assert ledger.open_intents("a") == []
    assert ledger.answered_at(["e1", "e2"]) == {"e1": T0}


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE entries SET sentence = 'nicer' WHERE seq = 1",
        "DELETE FROM entries WHERE seq = 2",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE seq = 1",
        "INSERT INTO entries SELECT seq + 5, at, kind, bot, action, actor, ref, result, sentence, data, prev, hash "
        "FROM entries WHERE seq = 1",
    ],
)
def test_the_database_itself_refuses_to_change_an_entry(ledger: Ledger, sql: str) -> None:
    before = [add(ledger), add(ledger)]
    with sqlite3.connect(ledger.path) as db, pytest.raises(sqlite3.IntegrityError, match="entries are"):
        db.execute(sql)
    db.close()
    assert ledger.entries() == before


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("UPDATE entries SET sentence = 'x' WHERE seq = 3", "Entry e3 of the ledger was changed"),
        ("UPDATE entries SET data = '{}' WHERE seq = 3", "Entry e3 of the ledger was changed"),
        ("UPDATE entries SET bot = x'00' WHERE seq = 3", "Entry e3 of the ledger was changed"),
        ("UPDATE entries SET hash = prev WHERE seq = 3", "Entry e4 of the ledger does not continue e3"),
        ("DELETE FROM entries WHERE seq = 3", "Entry e3 is gone from the ledger."),
        ("DELETE FROM entries WHERE seq IN (2, 3, 4)", "Entries e2 to e4 are gone from the ledger."),
        ("DELETE FROM entries WHERE seq = 1", "Entry e1 is gone from the ledger."),
    ],
)
def test_verify_names_what_was_done_past_the_triggers(ledger: Ledger, sql: str, sentence: str) -> None:
    for number in range(5):
        add(ledger, sentence=f"Note {number}.", data={"number": number})
    tampered(ledger, sql)
    assert any(found.startswith(sentence) for found in ledger.verify())


@pytest.fixture
def quick() -> Iterator[Path]:
    with places.quick_folder() as folder:
        yield folder


def test_fifty_processes_that_begin_at_once_lose_and_mix_nothing(quick: Path) -> None:
    path = quick / "ledger.db"

    def work() -> None:
        mine = Ledger(path)
        for number in range(4):
            add(mine, sentence=f"{os.getpid()} {number}")

    pids = [forks.start(work) for _ in range(50)]
    forks.finish(pids)
    ledger = Ledger(path)
    assert {entry.sentence for entry in ledger.entries()} == {f"{pid} {number}" for pid in pids for number in range(4)}
    assert ledger.head()[0] == 200
    assert ledger.verify() == []


def test_threads_share_one_ledger(ledger: Ledger) -> None:
    def work() -> None:
        for _ in range(10):
            add(ledger)
            ledger.entries(limit=1)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.head()[0] == 80
    assert ledger.verify() == []


def test_after_a_fork_both_sides_write_and_the_child_holds_locks_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    add(ledger, sentence="before")

    def work() -> None:
        add(ledger, sentence="child")
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        inode = ledger.path.with_name("ledger.db-shm").stat().st_ino
        mine = [words for words in held if words[4] == str(os.getpid()) and words[5].endswith(f":{inode}")]
        (tmp_path / "held").write_text(str(len(mine)))

    pid = forks.start(work)
    add(ledger, sentence="parent")
    forks.finish([pid])
    assert int((tmp_path / "held").read_text()) > 0
    assert sorted(entry.sentence for entry in ledger.entries()) == ["before", "child", "parent"]
    assert ledger.verify() == []


def test_a_ledger_that_nobody_holds_any_more_has_no_open_file(tmp_path: Path) -> None:
    add(Ledger(tmp_path / "ledger.db"))
    opened = {os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
    assert not [name for name in opened if name.startswith(str(tmp_path))]


def test_only_its_owner_may_read_it(ledger: Ledger) -> None:
    os.close(os.open(ledger.path, os.O_CREAT | os.O_WRONLY, 0o644))
    add(ledger)
    files = [ledger.path, ledger.path.with_name("ledger.db-wal"), ledger.path.with_name("ledger.db-shm")]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_ledger_that_is_moved_away_is_begun_anew_at_once(ledger: Ledger) -> None:
    add(ledger, sentence="old")
    for suffix in ("", "-wal", "-shm"):
        os.rename(f"{ledger.path}{suffix}", f"{ledger.path}.old{suffix}")
    add(ledger, sentence="new")
    assert [entry.sentence for entry in Ledger(ledger.path).entries()] == ["new"]
    assert [entry.sentence for entry in Ledger(Path(f"{ledger.path}.old")).entries()] == ["old"]


def make_directory(path: Path) -> None:
    path.mkdir()


def make_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def make_garbage(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to have a header " * 50)


def make_torn(path: Path) -> None:
    add(Ledger(path))
    Ledger(path).close()
    data = bytearray(path.read_bytes())
    data[100:4000] = b"\xff" * 3900
    path.write_bytes(data)


def make_foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE trades (id)")
    db.close()


def make_newer(path: Path) -> None:
    ledger = Ledger(path)
    add(ledger)
    ledger.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '9'")
    db.close()


@pytest.mark.parametrize(
    ("make", "found", "advice"),
    [
        (make_directory, "is not a regular file", "Move it away"),
        (make_link, "is not a regular file", "Move it away"),
        (make_garbage, "is damaged", "move it away"),
        (make_torn, "is damaged", "move it away"),
        (make_foreign, "is a database of something else", "move the file away"),
        (make_newer, "has schema 9, and this botkeep knows schema 1", "Use the botkeep that wrote it"),
    ],
)
def test_a_ledger_that_cannot_be_used_says_what_is_wrong_and_what_to_do(
    tmp_path: Path, make: Any, found: str, advice: str
) -> None:
    path = tmp_path / "ledger.db"
    make(path)
    with pytest.raises(LedgerError) as caught:
        add(Ledger(path))
    assert str(path) in str(caught.value)
    assert found in str(caught.value)
    assert advice in str(caught.value)


def test_a_missing_folder_is_a_ledger_error_too(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be made: No such file or directory"):
        add(Ledger(tmp_path / "no" / "ledger.db"))


def test_an_entry_of_a_newer_kind_is_named(ledger: Ledger) -> None:
    add(ledger)
    tampered(ledger, "UPDATE entries SET kind = 'prophecy'")
    with pytest.raises(LedgerError, match="Entry e1 of the ledger cannot be read"):
        ledger.entries()


FULL_DISK = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from botkeep.ledger import Kind, Ledger
from botkeep.model import LedgerError

disk = Path(sys.argv[1])
ledger = Ledger(disk / "ledger.db")
def add():
    ledger.append(Kind.NOTE, at=datetime(2026, 11, 21, tzinfo=UTC), bot=None, action="note", actor="person",
                  sentence="x" * 300)
add()
filler = disk / "filler"
try:
    filler.write_bytes(bytes(1 << 20))
except OSError:
    pass
acknowledged = 1
try:
    while True:
        add()
        acknowledged += 1
except LedgerError as error:
    print(error)
filler.unlink()
add()
print(ledger.head()[0] == acknowledged + 1, ledger.verify())
"""


@pytest.mark.skipif(not small_disk.available(), reason="no right to mount a small disk here")
def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    told = small_disk.run(FULL_DISK, size="512k", at=tmp_path / "disk", workspace_modules=MODULES).splitlines()
    assert "the disk is full" in told[0]
    assert "Free space" in told[0]
    assert told[1] == "True []"


# --- spans and cursors ------------------------------------------------------------------------------------------

GAP = timedelta(minutes=10)


def look(minutes: float, **fields: Any) -> Seen:
    given: dict[str, Any] = {"bot": "b", "status": Status.HEALTHY, "fault": None, "up": True, "instance": "i1"}
    return Seen(**{**given, **fields}, at=T0 + timedelta(minutes=minutes), max_gap=GAP)


def minutes_of(ledger: Ledger, bot: str = "b") -> list[tuple[float, float]]:
    return [
        ((span.first - T0) / timedelta(minutes=1), (span.last - T0) / timedelta(minutes=1))
        for span in ledger.spans(bot)
    ]


def test_looks_that_see_the_same_extend_one_span(ledger: Ledger) -> None:
    ledger.see_all([look(0), look(5), look(15)])
    assert minutes_of(ledger) == [(0, 15)]
    span = ledger.spans("b")[0]
    assert (span.status, span.fault, span.up, span.instance) == (Status.HEALTHY, None, True, "i1")


@pytest.mark.parametrize(
    "change",
    [
        {"status": Status.UNKNOWN},
        {"status": Status.FAULTY, "fault": Fault.BOT_HUNG},
        {"up": False},
        {"up": None},
        {"instance": "i2"},
        {"instance": None},
    ],
)
def test_a_look_that_sees_something_else_opens_a_span(ledger: Ledger, change: dict[str, Any]) -> None:
    ledger.see_all([look(0), look(5, **change), look(6, **change)])
    assert minutes_of(ledger) == [(0, 0), (5, 6)]


def test_a_gap_in_which_nobody_looked_opens_a_span(ledger: Ledger) -> None:
    ledger.see_all([look(0), look(10), look(20.1)])
    assert minutes_of(ledger) == [(0, 10), (20.1, 20.1)]


def test_a_clock_that_goes_back_extends_no_span_backwards(ledger: Ledger) -> None:
    ledger.see_all([look(10), look(15), look(12), look(3), look(5)])
    assert minutes_of(ledger) == [(10, 15), (3, 5)]


@pytest.mark.parametrize("late", [4.999, 5.0, 5.5])
def test_a_look_that_is_written_down_late_is_not_the_newest(ledger: Ledger, late: float) -> None:
    down = {"status": Status.FAULTY, "fault": Fault.BOT_NOT_RUNNING, "up": False, "instance": None}
    ledger.see_all([look(0), look(5.001, **down), look(5.6, **down), look(late), look(6, **down)])
    assert minutes_of(ledger) == [(0, 0), (late, late), (5.001, 6)]
    assert ledger.spans("b")[-1].up is False


def test_spans_that_ended_before_are_left_out(ledger: Ledger) -> None:
    ledger.see("b", status=Status.HEALTHY, fault=None, up=True, instance=None, at=T0, max_gap=GAP)
    ledger.see_all([look(60), look(61), look(0, bot="other")])
    assert [span.first for span in ledger.spans("b", since=T0 + timedelta(minutes=61))] == [T0 + timedelta(minutes=60)]


def test_a_round_over_a_thousand_bots_is_one_transaction(ledger: Ledger) -> None:
    add(ledger)
    wal = ledger.path.with_name("ledger.db-wal")
    before = wal.stat().st_size
    ledger.see_all([look(0, bot=f"bot{number}") for number in range(1000)])
    assert ledger.spans("bot999")
    assert wal.stat().st_size - before < 1000 * 4096  # one transaction per bot would log two pages for each


def test_a_cursor_is_what_was_stored_last(ledger: Ledger) -> None:
    assert ledger.cursor("b", "log") is None
    ledger.set_cursor("b", "log", {"offset": 1})
    ledger.set_cursors([("b", "log", {"offset": 2}), ("b", "data", {}), ("", "log", {"x": None})])
    assert ledger.cursor("b", "log") == {"offset": 2}
    assert ledger.cursor("b", "data") == {}
    assert ledger.cursor("", "log") == {"x": None}


def test_of_a_look_all_is_kept_or_nothing_if_somebody_has_written_what_it_rests_on(ledger: Ledger) -> None:
    ledger.set_cursors([("b", "data", {"rows": 1}), ("b", "log", {"offset": 1}), ("c", "data", {"rows": 9})])
    found = {name: text for (_, name), text in ledger.cursors(["b"]).items()}
    older = Memory("b", {**found, "left": None}, {"data": {"rows": 2}, "left": {"state": "x"}})
    newer = Memory("b", {**found, "left": None}, {"log": {"offset": 3}})
    ledger.see_all([], memories=[newer])
    ledger.see_all([look(0)], [("b", "confirmed", {})], [older, Memory("c", {"data": '{"rows": 9}'}, {"data": {}})])
    told = {key: json.loads(value) for key, value in ledger.cursors(["b", "c"]).items()}
    assert told == {
        ("b", "data"): {"rows": 1}, ("b", "log"): {"offset": 3}, ("b", "confirmed"): {}, ("c", "data"): {},
    }  # fmt: skip
    assert minutes_of(ledger) == [(0, 0)], "that somebody looked is kept"
    first, second = (Memory("b", {"left": None}, {"left": {"y": number}}) for number in (1, 2))
    ledger.see_all([], memories=[first, second])
    assert ledger.cursor("b", "left") == {"y": 1}


def test_a_cursor_is_swapped_only_for_what_is_known_of_it(ledger: Ledger) -> None:
    assert ledger.swap_cursor("b", "log", None, {"offset": 1})
    assert not ledger.swap_cursor("b", "log", None, {"offset": 2})
    assert not ledger.swap_cursor("b", "log", {"offset": 0}, {"offset": 2})
    assert ledger.cursor("b", "log") == {"offset": 1}
    assert ledger.swap_cursor("b", "log", {"offset": 1}, {"offset": 2})
    assert ledger.cursor("b", "log") == {"offset": 2}


def test_what_was_tidied_stands_in_the_ledgers_own_file(ledger: Ledger, tmp_path: Path) -> None:
    add(ledger)
    ledger.tidy()
    alone = tmp_path / "alone.db"
    subprocess.run(["cp", ledger.path, alone], check=True)  # by another process: nobody opens a ledger beside SQLite
    assert Ledger(alone).head() == ledger.head()
    assert ledger.head()[0] == 1


def test_the_cursors_of_many_bots_are_read_at_once_and_of_no_others(ledger: Ledger) -> None:
    ledger.set_cursors([("a", "log", {"x": 1}), ("a", "data", {}), ("b", "log", {}), ("o'c", "log", {"y": [2]})])
    found = ledger.cursors(["a", "o'c", "unknown"])
    assert {key: json.loads(value) for key, value in found.items()} == {
        ("a", "log"): {"x": 1}, ("a", "data"): {}, ("o'c", "log"): {"y": [2]},
    }  # fmt: skip
    assert ledger.cursors([]) == {}


def test_what_is_told_of_many_bots_at_once_is_what_is_told_of_each(ledger: Ledger) -> None:
    gap = timedelta(minutes=1)
    for number, bot in enumerate(("a", "o'c", "a", "b", None, "o'c")):
        at = T0 + timedelta(hours=number)
        add(ledger, bot=bot, at=at)
        add(ledger, Kind.INTENT, bot=bot, at=at, action="stop" if number % 2 else "start")
        add(ledger, Kind.INTENT, bot=bot, at=at, action="restart", actor="round")
        if bot:
            ledger.see_all([Seen(bot, Status.HEALTHY, None, True, str(number), at, gap)])
    add(ledger, Kind.INTENT, bot="a", at=T0 + timedelta(hours=9), action="stop", actor="assistant")
    since = T0 + timedelta(hours=2)
    found = ledger.told_of(["a", "b", "o'c", "unknown"], since)
    for bot, one in found.items():
        assert one.entries == ledger.entries(bot=bot, since=since)
        assert one.spans == ledger.spans(bot, since=since)
        assert one.wish == ledger.last_wish(bot)
    assert {bot: (len(one.entries), len(one.spans), one.wish is None) for bot, one in found.items()} == {
        "a": (4, 1, False), "b": (3, 1, False), "o'c": (3, 1, False), "unknown": (0, 0, True),
    }  # fmt: skip
    assert ledger.told_of([], since) == {}


def test_a_cursor_that_is_there_already_costs_no_write(ledger: Ledger) -> None:
    ledger.set_cursor("b", "log", {"offset": 1})
    wal = ledger.path.with_name("ledger.db-wal")
    before = wal.stat().st_size
    ledger.set_cursor("b", "log", {"offset": 1})
    assert wal.stat().st_size == before
