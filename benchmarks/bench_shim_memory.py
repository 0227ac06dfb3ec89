"""What stays behind to see a bot exit: at most 8 MB (PSS, mean over four watchers)."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from botkeep.runtimes import Target, process
from botkeep.runtimes.record import read_record
from botkeep.workspace import Workspace
from support import say

BOTS = 4
MEGABYTES = 8.0


def target(place: Workspace, number: int) -> Target:
    """A bot that sleeps; each for its own time, or they would be copies of one another."""
    name = f"bot-{number}"
    place.run_dir(name).mkdir(mode=0o700)
    config = process.Config(kind="process", command=["sleep", f"1000.{number}"], stop_grace=1)
    return Target(name, config, None, place.home, place.run_dir(name), place.log_path(name))


def pss(pid: int) -> float:
    """Megabytes, what is shared counted in parts."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def main() -> None:
    """Start four, weigh their watchers, stop them."""
    with tempfile.TemporaryDirectory() as folder:
        place = Workspace(Path(folder).resolve())
        place.prepare()
        bots = [target(place, number) for number in range(BOTS)]
        try:
            for bot in bots:
                process.start(bot, "e1", time.monotonic() + 20)
            records = [read_record(bot.run_dir) for bot in bots]
            weights = [pss(record.shim_pid) for record in records if record]
        finally:
            for bot in bots:
                process.stop(bot, 1.0, time.monotonic() + 20)
    mean = sum(weights) / BOTS
    figure = f"{mean:.1f} MB ({', '.join(f'{one:.1f}' for one in weights)}), Python {sys.version.split()[0]}"
    say("memory of a watcher, mean over four", figure, f"{MEGABYTES:.0f} MB", held=mean <= MEGABYTES)


if __name__ == "__main__":
    main()
