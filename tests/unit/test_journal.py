"""The journal: the ledger for people, each entry exactly once, among lines of theirs that nobody touches."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import botkeep
from botkeep.durable import Lock
from botkeep.journal import EMPTY, Journal
from botkeep.journal_file import ChangedError, Replacement, identity_at, keys_in, line_of, opened, parse, render
from botkeep.ledger import Entry, Kind, Ledger
from botkeep.workspace import Workspace
from support import forks, small_disk

T0 = datetime(2026, 11, 21, 3, 15, 2, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MODULES = str(Path(botkeep.__file__).parents[1])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.prepare()
    return made


@pytest.fixture
def journal(workspace: Workspace) -> Journal:
    return Journal(workspace, Ledger(workspace.ledger_file))


def record(journal: Journal, kind: Kind = Kind.OUTCOME, **fields: Any) -> Entry:
    given_: dict[str, Any] = {"at": T0, "bot": "doge-long", "action": "restart", "actor": "person", "result": "done"}
    return journal.record(kind, **{**given_, "sentence": "It is up again.", **fields})


def shown(*paths: Path) -> list[str]:
    """The ids of all entry lines in these files, in their order."""
    lines = [line for path in paths if path.exists() for line in path.read_bytes().splitlines()]
    return [key.split()[0].decode() for line in lines for key in keys_in(line)]


def month_file(workspace: Workspace, month: str) -> Path:
    return workspace.archive_dir / f"bot-operations-{month}.md"


def save_by_rename(path: Path, data: bytes) -> None:
    """As vim does."""
    beside = path.with_name("4913")
    beside.write_bytes(data)
    beside.rename(path)


def save_in_place(path: Path, data: bytes) -> None:
    """As nano does."""
    path.write_bytes(data)


SAVES = [save_by_rename, save_in_place]


# --- one line ---------------------------------------------------------------------------------------------------


def entry_with(**fields: Any) -> Entry:
    given_: dict[str, Any] = {
        "seq": 42, "id": "e42", "at": T0, "kind": Kind.OUTCOME, "bot": "doge-long", "action": "restart",
        "actor": "round", "ref": "e41", "result": "done", "sentence": "Exit 137; up again after 9 s.", "data": {},
        "prev": "0" * 64, "hash": "9f2c1a0b3d4e" + "5" * 52,
    }  # fmt: skip
    return Entry(**{**given_, **fields})


def test_an_entry_is_one_line_that_never_changes_between_versions() -> None:
    assert render(line_of(entry_with())) == (
        "- 2026-11-21 03:15:02Z · doge-long · restart · done · Exit 137; up again after 9 s. <!-- e42 9f2c1a0b3d4e -->"
    )
    assert render(line_of(entry_with(), restored=True)).endswith(" <!-- e42 9f2c1a0b3d4e restored -->")
    assert render(line_of(entry_with(bot=None, result="", kind=Kind.NOTE, action="note"))).startswith(
        "- 2026-11-21 03:15:02Z · - · note · - · Exit 137"
    )
    assert render(line_of(entry_with(kind=Kind.INTENT, sentence="Exit 137.", result=""))) == (
        "- 2026-11-21 03:15:02Z · doge-long · restart · unknown · no outcome was recorded within ten minutes: "
        "Exit 137. <!-- e42 9f2c1a0b3d4e -->"
    )


text_with_traps = st.text(
    st.one_of(st.sampled_from("·-<!>e42 \n|`#\\&;\u202e\u200b\u2028"), st.characters()), max_size=60
)


@settings(deadline=None, max_examples=150)
@given(
    at=st.datetimes(timezones=st.just(UTC)).filter(lambda at: at.year > 1000),
    sentence=text_with_traps,
    fields=st.tuples(text_with_traps, text_with_traps, text_with_traps),
    seq=st.integers(1, 10**15),
    kind=st.sampled_from(Kind),
    restored=st.booleans(),
)
def test_a_line_is_parsed_into_what_it_was_rendered_from(
    at: datetime, sentence: str, fields: tuple[str, str, str], seq: int, kind: Kind, restored: bool
) -> None:
    bot, action, result = fields
    entry = entry_with(
        seq=seq, id=f"e{seq}", at=at, kind=kind, bot=bot, action=action, result=result, sentence=sentence
    )
    line = line_of(entry, restored=restored)
    text = render(line)
    assert parse(text) == line
    assert "\n" not in text
    assert len(keys_in(text.encode("utf-8", "replace"))) == 1


@pytest.mark.parametrize(
    "text",
    ["", "- bought milk", "## 2026-11", "- 2026-13-41 03:15:02Z · a · b · c · d <!-- e1 000000000000 -->"],
)
def test_what_is_no_entry_line_is_not_parsed(text: str) -> None:
    assert parse(text) is None


# --- what is shown ----------------------------------------------------------------------------------------------


def test_the_first_entry_makes_the_file(journal: Journal) -> None:
    entry = record(journal)
    assert journal.path.read_text() == f"{EMPTY}\n## 2026-11\n\n{render(line_of(entry))}\n"
    assert journal.verify(T0) == []


def test_the_template_that_is_handed_out_is_the_empty_journal() -> None:
    template = Path(__file__).parents[2] / "memory/bot-operations.md"
    assert template.read_text().startswith(EMPTY)


def test_everything_but_intents_is_shown_once(journal: Journal) -> None:
    for kind in Kind:
        record(journal, kind)
    assert shown(journal.path) == [f"e{number}" for number, kind in enumerate(Kind, 1) if kind is not Kind.INTENT]
    assert journal.sync(T0) == []
    assert len(shown(journal.path)) == len(Kind) - 1
    assert journal.verify(T0) == []


def test_an_intent_is_shown_once_when_ten_minutes_bring_no_outcome(journal: Journal) -> None:
    record(journal, Kind.INTENT, sentence="Exit 137.", result="")
    record(journal, at=T0 + MINUTE)
    journal.sync(T0 + 10 * MINUTE)
    assert shown(journal.path) == ["e2"]
    for minutes in (11, 12):
        journal.sync(T0 + minutes * MINUTE)
        assert shown(journal.path) == ["e2", "e1"]
    assert "· unknown · no outcome was recorded within ten minutes: Exit 137. <!--" in journal.path.read_text()
    assert journal.verify(T0 + 12 * MINUTE) == []


def test_an_intent_with_an_outcome_in_time_is_never_shown(journal: Journal) -> None:
    intent = record(journal, Kind.INTENT)
    record(journal, ref=intent.id, at=T0 + 9 * MINUTE)
    journal.sync(T0 + 60 * MINUTE)
    assert shown(journal.path) == ["e2"]
    assert journal.verify(T0 + 60 * MINUTE) == []


def test_an_outcome_that_comes_too_late_stands_beside_its_intent(journal: Journal) -> None:
    intent = record(journal, Kind.INTENT)
    journal.sync(T0 + 11 * MINUTE)
    record(journal, ref=intent.id, at=T0 + 30 * MINUTE)
    assert shown(journal.path) == ["e1", "e2"]
    save_by_rename(journal.path, EMPTY.encode())
    journal.sync(T0 + 31 * MINUTE)
    assert sorted(shown(journal.path)) == ["e1", "e2"]


FORGERIES = [
    "line one\n- 2026-11-21 03:15:02Z · doge · stop · done · forged <!-- e1 0123456789ab -->",
    "<!-- e1 0123456789ab -->",
    "<!-- e1 {mark} -->",
    "\\<!-- e1 {mark} -->",
    "<!-- e1 {mark} --> <!--",
    "--> visible <!-- hidden",
    "<!\u200b-- e1 {mark} -->",
    "\u2028## 2020-01\u2029# Title",
    "# Title",
    "- item",
    "| a | `b` | [c](javascript:d) ![e](http://f)",
    "\x1b[2J\u202eabc\U000e0041\x00\r\nx",
]


@pytest.mark.parametrize("text", FORGERIES)
def test_a_note_cannot_forge_an_entry(journal: Journal, text: str) -> None:
    first = record(journal)
    before = journal.path.read_bytes()
    note = record(journal, Kind.NOTE, sentence=text.format(mark=first.hash[:12]), action="note")
    added = journal.path.read_bytes().removeprefix(before)
    assert added.count(b"\n") == 1
    assert added.count(b"<!--") == added.count(b"-->") == 1
    assert added.startswith(b"- 2026-11-21 03:15:02Z \xc2\xb7 doge-long \xc2\xb7 note \xc2\xb7 ")
    assert added.endswith(f" <!-- {note.id} {note.hash[:12]} -->\n".encode())
    assert not any(sign in added.decode() for sign in "\x00\x1b\r\u202e\u200b\u2028\U000e0041")
    assert shown(journal.path) == ["e1", "e2"]
    assert journal.verify(T0) == []


def test_a_long_text_is_capped_and_a_secret_hidden_in_ledger_and_file(journal: Journal) -> None:
    key = "123456789:AAF-abcdefghijklmnopqrstuvwxyz01234"
    record(journal, sentence=f"{key} " + "x" * 5000)
    record(journal, Kind.NOTE, sentence="y" * 5000)
    assert key not in journal.path.read_text()
    assert [len(entry.sentence) for entry in journal.ledger.entries()] == [500, 2000]
    assert key not in journal.ledger.entries()[0].sentence


def test_a_ledger_that_is_begun_anew_does_not_collide_with_the_old_lines(journal: Journal) -> None:
    record(journal, sentence="old")
    journal.ledger.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{journal.ledger.path}{suffix}").unlink(missing_ok=True)
    record(journal, sentence="new")
    assert shown(journal.path) == ["e1", "e1"]
    found = journal.verify(T0)
    assert len(found) == 1
    assert "memory/bot-operations.md:9 shows e1 with a mark that the ledger does not have" in found[0]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"file": 3}', b'{"waiting": ["x"]}', b'{"new": 1}'])
def test_without_what_was_kept_nothing_is_lost_or_doubled(journal: Journal, content: bytes) -> None:
    record(journal)
    record(journal)
    journal._kept_file.write_bytes(content)
    record(journal)
    assert shown(journal.path) == ["e1", "e2", "e3"]
    assert b"restored" not in journal.path.read_bytes()


# --- people edit ------------------------------------------------------------------------------------------------

OWN = [
    b"\xef\xbb\xbf# Our bots\r\n\r\ncalled the exchange\r\n",
    b"caf\xe9, no UTF-8 \xff\xfe\x80\x00 here\n",
    b"no newline at the end",
    b"## 2026-99\n```\n- an open fence\n",
    b"- 2026 was a good year\n<!-- our own comment -->\n",
    b"",
]


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("save", SAVES)
def test_lines_of_people_stay_byte_for_byte(journal: Journal, own: bytes, save: Callable[[Path, bytes], None]) -> None:
    record(journal)
    save(journal.path, own + journal.path.read_bytes() + own)
    with_own = journal.path.read_bytes()
    record(journal)
    record(journal)
    after = journal.path.read_bytes()
    assert after.startswith(with_own)
    assert after[len(with_own) :].count(b"\n- 2026-11-21 03:15:02Z") >= 1
    assert shown(journal.path) == ["e1", "e2", "e3"]
    assert journal.verify(T0) == []


@pytest.mark.parametrize("save", SAVES)
def test_entries_that_an_open_editor_loses_come_back_once(
    journal: Journal, save: Callable[[Path, bytes], None]
) -> None:
    record(journal)
    in_the_editor = journal.path.read_bytes()
    lost = [record(journal), record(journal)]
    save(journal.path, in_the_editor + b"looked at it myself\n")
    for _ in range(2):
        assert journal.sync(T0) == []
        assert journal.path.read_bytes() == in_the_editor + b"looked at it myself\n" + b"".join(
            f"{render(line_of(entry, restored=True))}\n".encode() for entry in lost
        )
    assert journal.verify(T0) == []
    record(journal)
    assert shown(journal.path) == ["e1", "e2", "e3", "e4"]


def test_a_save_that_puts_the_modification_time_back_is_noticed(journal: Journal) -> None:
    record(journal)
    before = journal.path.stat()
    text = journal.path.read_bytes()
    lines = text.splitlines(keepends=True)
    with journal.path.open("r+b") as file:
        file.write(b"".join(lines[:-1]) + b"x" * (len(lines[-1]) - 1) + b"\n")
    os.utime(journal.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    journal.sync(T0)
    assert shown(journal.path) == ["e1"]


@pytest.mark.parametrize("save", SAVES)
def test_a_save_in_the_very_moment_of_our_write_is_noticed(
    workspace: Workspace, save: Callable[[Path, bytes], None]
) -> None:
    in_the_editor: list[bytes] = []

    class Interrupted(Journal):
        def _save(self, kept: Any) -> None:
            super()._save(kept)
            if kept.pending and in_the_editor:
                save(self.path, in_the_editor.pop())

    journal = Interrupted(workspace, Ledger(workspace.ledger_file))
    record(journal)
    in_the_editor.append(journal.path.read_bytes() + b"a person's line\n")
    record(journal)
    assert not in_the_editor
    assert b"a person's line\n" in journal.path.read_bytes()
    assert shown(journal.path) == ["e1", "e2"]


def test_nothing_is_added_to_a_file_that_an_editor_has_half_saved(journal: Journal) -> None:
    record(journal)
    whole = journal.path.read_bytes() + b"a person's line\n"
    record(journal)
    reader, writer = os.pipe()

    def work() -> None:
        with journal.path.open("wb", buffering=0) as file:
            file.write(whole[:-10])
            os.write(writer, b".")
            time.sleep(0.05)  # a slow editor is what this is about
            file.write(whole[-10:])

    pid = forks.start(work)
    os.read(reader, 1)
    assert journal.sync(T0) == []
    forks.finish([pid])
    assert journal.sync(T0) == []
    assert journal.path.read_bytes().startswith(whole)
    assert shown(journal.path) == ["e1", "e2"]
    assert journal.verify(T0) == []
    os.close(reader)
    os.close(writer)


def test_a_file_that_a_windows_editor_saved_is_read(journal: Journal) -> None:
    record(journal)
    record(journal)
    save_in_place(journal.path, b"\xef\xbb\xbf" + journal.path.read_bytes().replace(b"\n", b"\r\n"))
    record(journal)
    assert shown(journal.path) == ["e1", "e2", "e3"]
    assert journal.verify(T0) == []


def test_a_file_saved_as_utf16_is_not_written_to(journal: Journal) -> None:
    record(journal)
    data = journal.path.read_text().encode("utf-16")
    save_in_place(journal.path, data)
    assert "was saved as UTF-16" in journal.sync(T0)[0]
    assert journal.path.read_bytes() == data


@pytest.mark.parametrize("gone", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_file_that_is_removed_or_emptied_is_made_again(journal: Journal, gone: Callable[[Path], None]) -> None:
    record(journal)
    record(journal)
    gone(journal.path)
    record(journal)
    assert shown(journal.path) == ["e1", "e2", "e3"]
    assert journal.path.read_text().startswith(EMPTY)


def test_what_people_wrote_is_given_back_newest_last(journal: Journal) -> None:
    record(journal)
    own = "one\n\n## Our own heading\ntwo \u202e\x1b[31m\n- 2026 three\n"
    save_in_place(journal.path, journal.path.read_bytes() + own.encode() + b"caf\xe9\n")
    record(journal)
    assert journal.own_lines(10) == ["one", "## Our own heading", "two ", "- 2026 three", "caf\ufffd"]
    assert journal.own_lines(2) == ["- 2026 three", "caf\ufffd"]
    journal.path.unlink()
    assert journal.own_lines(2) == []


# --- torn, full, refused ----------------------------------------------------------------------------------------


def tear(journal: Journal, at: int) -> None:
    """Another process adds an entry; the kernel lets it write only `at` bytes of the line."""
    save_in_place(journal.path, journal.path.read_bytes() + b"our own line\n" * 20_000)
    journal.sync(T0)
    size = journal.path.stat().st_size

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + at, size + at))
        entry = record(journal, sentence="torn")
        assert "File too large" in journal.sync(T0)[0]
        assert journal.ledger.entry(entry.id) == entry

    forks.finish([forks.start(work)])
    assert journal.path.stat().st_size == size + at


@pytest.mark.parametrize("at", [0, 1, 30, 80])
def test_a_torn_line_is_completed(journal: Journal, at: int) -> None:
    record(journal)
    tear(journal, at)
    record(journal)
    assert shown(journal.path) == ["e1", "e2", "e3"]
    assert journal.path.read_bytes().count(b"torn") == 1
    assert journal.verify(T0) == []


def test_a_tail_that_somebody_else_wrote_is_left_alone(journal: Journal) -> None:
    record(journal)
    tear(journal, 30)
    with journal.path.open("ab") as file:
        file.write(b" - what is this?\n")
    before = journal.path.read_bytes()
    record(journal)
    assert journal.path.read_bytes().startswith(before)
    assert shown(journal.path) == ["e1", "e2", "e3"]


FULL_DISK = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from botkeep.journal import Journal
from botkeep.ledger import Kind, Ledger
from botkeep.model import LedgerError
from botkeep.workspace import Workspace

NOW = datetime(2026, 11, 21, tzinfo=UTC)
disk = Path(sys.argv[1])
workspace = Workspace(disk)
workspace.prepare()
journal = Journal(workspace, Ledger(workspace.ledger_file))
filler = disk / "filler"
told, acknowledged = set(), 0
def add():
    global acknowledged
    journal.record(Kind.NOTE, at=NOW, bot="b", action="note", actor="person", sentence="x" * 200)
    acknowledged += 1
    told.update(journal.sync(NOW))
add()
for room in (20_000, 9_000, 4_096, 0):
    fd = os.open(filler, os.O_CREAT | os.O_WRONLY)
    try:
        while os.write(fd, bytes(1024)):
            pass
    except OSError:
        os.ftruncate(fd, max(0, os.fstat(fd).st_size - room))
    os.close(fd)
    try:
        for _ in range(400):
            add()
    except LedgerError as error:
        told.add(str(error))
    filler.unlink()
    assert journal.sync(NOW) == [], journal.sync(NOW)
add()
from botkeep.journal_file import keys_in
keys = [key for line in journal.path.read_bytes().splitlines() for key in keys_in(line)]
print(len(keys) == len(set(keys)) == journal.ledger.head()[0] == acknowledged, journal.verify(NOW))
print(any("the disk is full" in one for one in told), any("No space left on device" in one for one in told))
"""


@pytest.mark.skipif(not small_disk.available(), reason="no right to mount a small disk here")
def test_a_full_disk_loses_no_acknowledged_entry_and_is_healed(tmp_path: Path) -> None:
    told = small_disk.run(FULL_DISK, size="700k", at=tmp_path / "disk", workspace_modules=MODULES).splitlines()
    assert told == ["True []", "True True"]


def link_away(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def dangle(path: Path, outside: Path) -> None:
    outside.unlink()
    path.symlink_to(outside)


def pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, outside: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("put", [link_away, dangle, pipe, folder])
def test_anything_but_a_regular_file_is_refused(
    journal: Journal, tmp_path: Path, put: Callable[[Path, Path], None]
) -> None:
    outside = tmp_path / "authorized_keys"
    outside.write_bytes(b"ssh-ed25519 AAAA me\n")
    record(journal)
    journal.path.rename(journal.path.with_name("aside"))
    put(journal.path, outside)
    entry = record(journal)
    told = journal.sync(T0)
    assert len(told) == 1
    assert "bot-operations.md" in told[0]
    assert put is dangle or outside.read_bytes() == b"ssh-ed25519 AAAA me\n"
    assert put is not dangle or not outside.exists()
    assert journal.ledger.entry(entry.id) == entry
    journal.path.rmdir() if put is folder else journal.path.unlink()
    journal.path.with_name("aside").rename(journal.path)
    assert journal.sync(T0) == []
    assert shown(journal.path) == ["e1", "e2"]


def test_a_writer_that_does_not_get_the_lock_leaves_its_line_to_the_next(journal: Journal) -> None:
    with Lock(journal._lock_file) as lock:
        assert lock.acquire()
        entry = record(journal)
        assert not journal.path.exists()
        assert journal.ledger.entry(entry.id) == entry
        assert "by another botkeep" in journal.sync(T0)[0]
    record(journal)
    assert shown(journal.path) == ["e1", "e2"]


def test_a_folder_that_is_missing_is_made_and_a_file_in_its_place_is_a_problem(journal: Journal) -> None:
    journal.path.parent.write_bytes(b"")
    record(journal)
    assert "No entry is lost" in journal.sync(T0)[0]
    journal.path.parent.unlink()
    assert journal.sync(T0) == []
    assert shown(journal.path) == ["e1"]


def test_new_entries_are_added_to_a_large_file_without_reading_it(journal: Journal) -> None:
    journal.path.parent.mkdir()
    with journal.path.open("wb") as file:
        for _ in range(24):
            file.write(b"a line of our own, of no interest to anybody at all\n" * (1 << 14))
    record(journal)

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = bytes_read()
    for _ in range(5):
        record(journal)
    assert bytes_read() - before < 1 << 18 < journal.path.stat().st_size / 50
    assert shown(journal.path) == [f"e{number}" for number in range(1, 7)]


# --- months -----------------------------------------------------------------------------------------------------

OCTOBER = datetime(2026, 10, 31, 23, 59, 58, tzinfo=UTC)
NOVEMBER = datetime(2026, 11, 1, 0, 0, 1, tzinfo=UTC)
NOTE = b"our own line \xff\r\n"


def october(journal: Journal) -> bytes:
    """An entry in October and a person's line after it; returns the file."""
    record(journal, at=OCTOBER, sentence="in October")
    save_in_place(journal.path, b"on top\n" + journal.path.read_bytes() + NOTE)
    journal.sync(OCTOBER)
    return journal.path.read_bytes()


def test_a_month_that_is_over_moves_to_the_archive_with_everything_in_it(
    journal: Journal, workspace: Workspace
) -> None:
    before = october(journal)
    journal.path.chmod(0o640)
    record(journal, at=NOVEMBER, sentence="in November")
    archive = month_file(workspace, "2026-10")
    start = before.index(b"## 2026-10")
    assert archive.read_bytes() == before[start:]
    assert journal.path.read_bytes().startswith(before[:start] + b"## 2026-11\n\n- 2026-11-01 00:00:01Z")
    assert (archive.stat().st_mode & 0o777, journal.path.stat().st_mode & 0o777) == (0o640, 0o640)
    assert journal.verify(NOVEMBER) == []
    assert sorted(path.name for path in journal.path.parent.iterdir()) == ["archive", "bot-operations.md"]


def test_a_kill_between_archive_and_journal_doubles_nothing(journal: Journal, workspace: Workspace) -> None:
    before = october(journal)
    record(journal, at=NOVEMBER)
    archive = month_file(workspace, "2026-10")
    archived = archive.read_bytes()
    save_by_rename(journal.path, before)  # as it is when the writer dies before it replaces the journal
    for _ in range(2):
        journal.sync(NOVEMBER)
        assert archive.read_bytes() == archived
        assert shown(archive, journal.path) == ["e1", "e2"]
    assert NOTE not in journal.path.read_bytes()


def test_a_section_that_an_editor_saves_back_adds_only_what_is_new_in_it(
    journal: Journal, workspace: Workspace
) -> None:
    before = october(journal)
    record(journal, at=NOVEMBER)
    save_in_place(journal.path, before.replace(b"\n", b"\r\n") + NOTE + b"written while the month ended\n")
    journal.sync(NOVEMBER)
    archive = month_file(workspace, "2026-10")
    assert archive.read_bytes() == before[before.index(b"## 2026-10") :] + NOTE + b"written while the month ended\n"
    assert shown(archive, journal.path) == ["e1", "e2"]
    assert journal.verify(NOVEMBER) == []


def test_an_entry_lost_just_before_the_month_ended_comes_back(journal: Journal, workspace: Workspace) -> None:
    before = october(journal)
    record(journal, at=OCTOBER)
    save_in_place(journal.path, before)
    record(journal, at=NOVEMBER)
    assert sorted(shown(month_file(workspace, "2026-10"), journal.path)) == ["e1", "e2", "e3"]
    assert journal.verify(NOVEMBER) == []


def test_a_section_that_people_wrote_for_an_archived_month_is_added_whole(
    journal: Journal, workspace: Workspace
) -> None:
    october(journal)
    record(journal, at=NOVEMBER)
    archive = month_file(workspace, "2026-10")
    archived = archive.read_bytes()
    later = b"## 2026-10\n\n" + NOTE + NOTE + b"what we found out later"
    save_in_place(journal.path, journal.path.read_bytes() + later)
    journal.sync(NOVEMBER)
    assert archive.read_bytes() == archived + later
    assert b"later" not in journal.path.read_bytes()
    assert shown(archive, journal.path) == ["e1", "e2"]


def test_many_months_go_to_as_many_files(journal: Journal, workspace: Workspace) -> None:
    for month in range(1, 7):
        record(journal, at=datetime(2026, month, 3, tzinfo=UTC))
    files = [month_file(workspace, f"2026-0{month}") for month in range(1, 6)]
    assert [shown(file) for file in files] == [[f"e{number}"] for number in range(1, 6)]
    assert shown(journal.path) == ["e6"]
    assert journal.path.read_text().startswith(f"{EMPTY}\n## 2026-06\n\n- ")
    assert journal.verify(datetime(2026, 6, 3, tzinfo=UTC)) == []


def test_a_clock_that_jumps_to_another_century_and_back_loses_and_doubles_nothing(
    journal: Journal, workspace: Workspace
) -> None:
    october(journal)
    record(journal, at=datetime(2099, 1, 1, tzinfo=UTC))
    record(journal, at=OCTOBER)
    record(journal, at=NOVEMBER)
    save_in_place(journal.path, EMPTY.encode())
    record(journal, at=NOVEMBER)
    files = [*sorted(workspace.archive_dir.iterdir()), journal.path]
    assert sorted(shown(*files)) == ["e1", "e2", "e3", "e4", "e5"]
    assert journal.verify(NOVEMBER) == []


def test_a_writer_whose_clock_is_a_little_behind_begins_no_old_month_again(journal: Journal) -> None:
    record(journal, at=NOVEMBER)
    record(journal, at=OCTOBER)
    assert b"2026-10\n" not in journal.path.read_bytes()
    assert shown(journal.path) == ["e1", "e2"]


def test_a_writer_whose_clock_is_behind_puts_no_entry_under_an_older_month(
    journal: Journal, workspace: Workspace
) -> None:
    october(journal)
    journal.ledger.append(Kind.NOTE, at=NOVEMBER, bot="b", action="note", actor="person", sentence="in November")
    record(journal, at=OCTOBER)
    text = journal.path.read_text(errors="replace")
    assert text.index("## 2026-10") < text.index("## 2026-11") < text.index("in November")
    record(journal, at=NOVEMBER)
    save_in_place(journal.path, EMPTY.encode())
    record(journal, at=NOVEMBER)
    files = [month_file(workspace, "2026-10"), journal.path]
    assert sorted(shown(*files)) == ["e1", "e2", "e3", "e4", "e5"]


def test_a_writer_whose_clock_is_behind_shows_no_intent_twice(journal: Journal) -> None:
    record(journal, Kind.INTENT)
    journal.sync(T0 + 11 * MINUTE)
    save_in_place(journal.path, journal.path.read_bytes() + NOTE)
    journal.sync(T0 + 9 * MINUTE)
    journal.sync(T0 + 12 * MINUTE)
    record(journal, at=T0 + 12 * MINUTE)
    assert shown(journal.path) == ["e1", "e2"]


def test_an_edit_made_while_the_file_is_replaced_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with opened(path, os.O_RDONLY) as fd, Replacement(path, like=fd) as new:
        read = identity_at(path)
        os.write(new.fd, b"new")
        save_in_place(path, b"a person's")
        with pytest.raises(ChangedError):
            new.install(read)
    assert path.read_bytes() == b"a person's"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_an_archive_that_is_a_link_stops_the_move_and_loses_nothing(journal: Journal, workspace: Workspace) -> None:
    before = october(journal)
    workspace.archive_dir.mkdir()
    outside = workspace.home / "outside"
    outside.write_bytes(b"mine\n")
    month_file(workspace, "2026-10").symlink_to(outside)
    record(journal, at=NOVEMBER)
    assert "is a symbolic link" in journal.sync(NOVEMBER)[0]
    assert (outside.read_bytes(), journal.path.read_bytes()) == (b"mine\n", before)
    month_file(workspace, "2026-10").unlink()
    assert journal.sync(NOVEMBER) == []
    assert shown(month_file(workspace, "2026-10"), journal.path) == ["e1", "e2"]


# --- verify -----------------------------------------------------------------------------------------------------


@pytest.fixture
def full(journal: Journal) -> Journal:
    """Two entries in the archive, e1 and e2; two in the file, e3 and e4."""
    for at in (OCTOBER, OCTOBER, NOVEMBER, NOVEMBER):
        record(journal, at=at)
    assert journal.verify(NOVEMBER) == []
    return journal


def edit(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


JOURNAL, ARCHIVE = "memory/bot-operations.md", "memory/archive/bot-operations-2026-10.md"


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        (JOURNAL, lambda lines: [*lines[:-1], lines[-1].replace(b"up again", b"fine")], f"{JOURNAL}:10 was changed"),
        (ARCHIVE, lambda lines: [*lines[:-1], lines[-1].replace(b"doge", b"cat")], f"{ARCHIVE}:4 was changed"),
        (JOURNAL, lambda lines: [*lines[:-1], b"> " + lines[-1]], f"{JOURNAL}:10 was changed"),
        (JOURNAL, lambda lines: [*lines[:-2], lines[-2].strip() + lines[-1]], f"{JOURNAL}:9 was changed"),
        (JOURNAL, lambda lines: lines[:-1], f"e4 is missing from {JOURNAL} and its archive"),
        (ARCHIVE, lambda lines: lines[:-1], f"e2 is missing from {JOURNAL} and its archive"),
        (JOURNAL, lambda lines: [*lines, lines[-1]], f"{JOURNAL}:11 has e4 a second time; it is at {JOURNAL}:10"),
        (ARCHIVE, lambda lines: [*lines, lines[-2]], f"{ARCHIVE}:5 has e1 a second time; it is at {ARCHIVE}:3"),
        (
            JOURNAL,
            lambda lines: [*lines, lines[-1].replace(b"e4", b"e5")],
            f"{JOURNAL}:11 shows e5 with a mark that the ledger does not have (it ends at e4): the line was forged",
        ),
        (
            JOURNAL,
            lambda lines: [*lines[:-1], lines[-1].replace(b"e4", b"e3")],
            f"{JOURNAL}:10 shows e3 with a mark that the ledger does not have: the line was forged",
        ),
        (
            JOURNAL,
            lambda lines: [*lines, lines[-1].split(b"<!--")[0] + b"\n"],
            f"{JOURNAL}:11 looks like an entry but has no mark",
        ),
        (
            ARCHIVE,
            lambda lines: [*lines, b"- 2026-10-31 23:59:58Z \xc2\xb7 doge \xc2\xb7 stop \xc2\xb7 done \xc2\xb7 x"],
            f"{ARCHIVE}:5 looks like an entry but has no mark",
        ),
    ],
)
def test_verify_finds_what_was_done_to_the_files(
    full: Journal, name: str, change: Callable[[list[bytes]], list[bytes]], found: str
) -> None:
    edit(full.path.parents[1] / name, change)
    assert any(sentence.startswith(found) for sentence in full.verify(NOVEMBER))


def test_verify_changes_nothing_and_lines_of_people_are_no_finding(full: Journal) -> None:
    edit(full.path, lambda lines: [b"hello\n", *lines, b"- 2026-11-21 we looked\n", b"<!-- e -->\n"])
    before = full.path.read_bytes()
    assert full.verify(NOVEMBER) == []
    assert full.path.read_bytes() == before


def test_an_entry_that_was_changed_is_not_added_again(full: Journal) -> None:
    edit(full.path, lambda lines: [*lines[:-1], lines[-1].replace(b"up again", b"fine")])
    full.sync(NOVEMBER)
    assert shown(full.path) == ["e3", "e4"]


def test_a_removed_archive_is_found_missing(full: Journal, workspace: Workspace) -> None:
    shutil.rmtree(workspace.archive_dir)
    assert [sentence.split()[0] for sentence in full.verify(NOVEMBER)] == ["e1", "e2"]


def tamper(journal: Journal, *statements: str) -> None:
    journal.ledger.close()
    with sqlite3.connect(journal.ledger.path) as db:
        for trigger in ("entries_stay", "entries_remain", "entries_follow"):
            db.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            db.execute(statement)
    db.close()


def test_verify_finds_a_break_of_the_ledgers_chain(full: Journal) -> None:
    tamper(full, "UPDATE entries SET result = 'failed' WHERE seq = 3")
    found = full.verify(NOVEMBER)
    assert "Entry e3 of the ledger was changed: what it says does not match its hash." in found
    assert any(sentence.startswith(f"{JOURNAL}:9 was changed") for sentence in found)


def test_verify_finds_by_the_lines_that_the_ledger_lost_its_newest_entries(full: Journal) -> None:
    tamper(full, "DELETE FROM entries WHERE seq = 4")
    assert full.ledger.verify() == []
    assert len(full.verify(NOVEMBER)) == 1
    assert "shows e4 with a mark that the ledger does not have (it ends at e3)" in full.verify(NOVEMBER)[0]


def test_verify_finds_by_the_lines_that_a_chain_was_written_anew(full: Journal) -> None:
    tamper(full, "DELETE FROM entries WHERE seq = 4")
    full.ledger.append(Kind.OUTCOME, at=NOVEMBER, bot="doge-long", action="restart", actor="person", sentence="Other.")
    assert full.ledger.verify() == []
    assert any("shows e4 with a mark that the ledger does not have" in found for found in full.verify(NOVEMBER))


def test_verify_of_a_broken_ledger_says_so(full: Journal) -> None:
    full.ledger.close()
    full.ledger.path.write_bytes(b"not a database, but long enough to have a header " * 50)
    assert len(full.verify(NOVEMBER)) == 1
    assert "is damaged" in full.verify(NOVEMBER)[0]
    assert "is damaged" in full.sync(NOVEMBER)[0]


def test_verify_names_an_entry_that_cannot_even_be_read(full: Journal) -> None:
    tamper(full, "UPDATE entries SET at = 'yesterday' WHERE seq = 3")
    found = full.verify(NOVEMBER)
    assert "Entry e3 of the ledger was changed" in found[0]
    assert "Entry e3 of the ledger cannot be read" in found[1]


def test_verify_lists_a_hundred_findings_and_counts_the_rest(journal: Journal) -> None:
    record(journal)
    edit(journal.path, lambda lines: [*lines, *(lines[-1:] * 150)])
    found = journal.verify(T0)
    assert len(found) == 101
    assert found[-1] == "And 50 more like these."


def test_a_line_longer_than_any_is_read_in_pieces(journal: Journal) -> None:
    record(journal)
    save_in_place(journal.path, journal.path.read_bytes() + b"x" * 300_000 + b"\n")
    entry = record(journal)
    assert shown(journal.path) == ["e1", "e2"]
    edit(journal.path, lambda lines: [*lines, lines[-1]])
    assert f"{JOURNAL}:12 has {entry.id} a second time; it is at {JOURNAL}:11" in journal.verify(T0)[0]
