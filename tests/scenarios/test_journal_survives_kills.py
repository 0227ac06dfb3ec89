"""Four writers, killed hundreds of times at random moments, while a person edits the file and months end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import botkeep
from botkeep.journal import OVERDUE, Journal
from botkeep.journal_file import key_of, keys_in
from botkeep.ledger import Entry, Kind, Ledger
from botkeep.workspace import Workspace
from support import journal_writer, places

WRITERS = 4
KILLS = 50
"""Of each writer."""
MODULES = str(Path(botkeep.__file__).parents[1])


class Writers:
    """Four processes, each with a child that records, is killed, and is begun anew."""

    def __init__(self, workspace: Workspace, days_per_second: float) -> None:
        self.folder = workspace.home
        self.start = time.monotonic()
        self.days_per_second = days_per_second
        self.acks = [workspace.home / f"acks{number}" for number in range(WRITERS)]
        clock = [str(self.start), str(days_per_second)]
        self.processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    journal_writer.__file__,
                    str(workspace.home),
                    str(seed),
                    str(KILLS),
                    str(acks),
                    *clock,
                ],
                env={**os.environ, "PYTHONPATH": MODULES},
            )
            for seed, acks in enumerate(self.acks)
        ]

    def running(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def finish(self) -> None:
        """Wait for their end."""
        assert [process.wait(timeout=60) for process in self.processes] == [0] * WRITERS

    def acknowledged(self) -> set[str]:
        """What the writers were told is recorded. A line torn by a kill is one that nobody was told."""
        lines = [line for file in self.acks for line in file.read_bytes().decode().split("\n")[:-1]]
        return {line for line in lines if re.fullmatch(r"e\d+", line)}


class Person:
    """Opens the file in an editor, types a line at its end, and saves some time later, by rename and in place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[bytes] = []

    def edit(self) -> None:
        try:
            opened = self.path.read_bytes()
        except FileNotFoundError:
            return
        time.sleep(0.04)  # in which the writers go on
        line = b"our own line %d, caf\xe9\r\n" % len(self.lines)
        ends = opened.endswith(b"\n") or not opened
        if len(self.lines) % 2:
            self.path.write_bytes(opened + (b"" if ends else b"\n") + line)
        else:
            beside = self.path.with_name("4913")
            beside.write_bytes(opened + (b"" if ends else b"\n") + line)
            beside.rename(self.path)
        self.lines.append(line)


@pytest.fixture
def quick() -> Iterator[Path]:
    with places.quick_folder() as folder:
        yield folder


def to_be_shown(entries: list[Entry]) -> set[bytes]:
    """The keys of all entries that have to be in the Markdown once the last intent is overdue."""
    outcomes = {entry.ref: entry for entry in entries if entry.kind is Kind.OUTCOME}
    return {
        key_of(entry)
        for entry in entries
        if entry.kind is not Kind.INTENT or entry.id not in outcomes or outcomes[entry.id].at - entry.at > OVERDUE
    }


@pytest.mark.parametrize(
    "days_per_second", [pytest.param(0, id="within a month"), pytest.param(60, id="a month every half second")]
)
def test_no_acknowledged_entry_is_lost_and_none_is_doubled(quick: Path, days_per_second: float) -> None:
    workspace = Workspace(quick)
    workspace.prepare()
    person = Person(workspace.journal_file)
    writers = Writers(workspace, days_per_second)
    while writers.running():
        person.edit()
        time.sleep(0.2)
    writers.finish()

    journal = Journal(workspace, Ledger(workspace.ledger_file))
    now = journal_writer.clock(writers.start, days_per_second) + 2 * OVERDUE
    assert journal.sync(now) == []
    entries = journal.ledger.entries()
    assert writers.acknowledged() <= {entry.id for entry in entries}
    assert journal.ledger.verify() == []

    files = [*sorted(workspace.archive_dir.glob("*.md")), workspace.journal_file]
    lines = [line for file in files for line in file.read_bytes().splitlines(keepends=True)]
    counted = Counter(key for line in lines for key in keys_in(line))
    expected = to_be_shown(entries)
    may_be = {key_of(entry) for entry in entries if entry.kind is Kind.INTENT}  # late when looked at, answered since
    assert {key for key, count in counted.items() if count > 1} == set()
    assert expected <= set(counted) <= expected | may_be
    assert journal.verify(now + timedelta(seconds=1)) == []
    assert Counter(line for line in lines if line in set(person.lines)) == Counter(person.lines)

    assert len(person.lines) >= 3
    assert (len(files) > 1) == (days_per_second > 0)
    assert sorted(path.name for path in workspace.journal_file.parent.iterdir() if path.is_file()) == [
        "bot-operations.md"
    ]
