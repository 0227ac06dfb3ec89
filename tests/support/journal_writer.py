"""A writer for the kill test: records entries for ever, while its parent kills it at random moments and starts it anew.

Run as: python journal_writer.py WORKSPACE SEED KILLS ACKS START DAYS_PER_SECOND. Every entry's id is written to the
file ACKS once `record` has returned it. START is the common zero of the writers' clocks on CLOCK_MONOTONIC; the clock
of their entries begins in January and runs DAYS_PER_SECOND.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from botkeep.journal import Journal
from botkeep.ledger import Kind, Ledger
from botkeep.workspace import Workspace

BEGIN = datetime(2026, 1, 20, tzinfo=UTC)


def clock(start: float, days_per_second: float) -> datetime:
    """The time of the test's world."""
    return BEGIN + timedelta(days=days_per_second, seconds=1) * (time.monotonic() - start)


def write_for_ever(workspace: Workspace, acks: int, begun: int, start: float, days_per_second: float) -> None:
    journal = Journal(workspace, Ledger(workspace.ledger_file))
    number = 0
    while True:
        number += 1
        at = clock(start, days_per_second)
        bot = f"bot{os.getpid() % 4}"
        intent = journal.record(Kind.INTENT, at=at, bot=bot, action="restart", actor="round", sentence="Exit 137.")
        os.write(acks, f"{intent.id}\n".encode())
        for kind, ref in ((Kind.OUTCOME, intent.id), (Kind.NOTE, None)):
            text = f"Writer {os.getpid()} was here. " * (number % 40)  # some lines reach over a page
            entry = journal.record(kind, at=at, bot=bot, action="restart", actor="round", sentence=text, ref=ref)
            os.write(acks, f"{entry.id}\n".encode())
        os.write(begun, b".")


def main() -> None:
    home, seed, kills, acks_file, start, days = sys.argv[1:]
    luck = random.Random(int(seed))
    acks = os.open(acks_file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    for _ in range(int(kills)):
        read, begun = os.pipe()
        pid = os.fork()
        if pid == 0:
            write_for_ever(Workspace(Path(home)), acks, begun, float(start), float(days))
        os.close(begun)
        if luck.random() < 0.7:  # the others are killed in the middle of their first steps
            os.read(read, 1)
        time.sleep(luck.expovariate(1 / 0.015))  # the moment of the kill is what is random here
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)


if __name__ == "__main__":
    main()
