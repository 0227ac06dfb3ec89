"""One `botkeep round` over a thousand configured bots of which fifty run: at most 2 s and 150 MiB.

The others are stopped on purpose. Each bot has a data file: the first round reads every file; the second, as in every
later one, only what is new.
"""

from __future__ import annotations

import subprocess
import tempfile
from datetime import timedelta
from pathlib import Path

from botkeep.ledger import Kind, Ledger
from botkeep.model import utc_now
from botkeep.workspace import Workspace
from support import BOTKEEP, peak_of_children_mib, say, seconds, workspace

CONFIGURED = 1000
RUNNING = 50
SECONDS, MIB = 2.0, 150.0
HEADER = "time,symbol,side,price,qty,trade_id\n"


def entry(number: int) -> dict[str, object]:
    """A bot that runs if its number is low enough, and is stopped on purpose otherwise."""
    return {
        "name": f"bot-{number}",
        "data_file": f"data/{number}.csv",
        "runtime": {"kind": "process", "command": ["sleep", f"{100000 + number}"], "stop_grace": 1},
    }


def stop_the_others(home: Path) -> None:
    """What `botkeep stop` writes down, for the nine hundred and fifty that do not run."""
    place = Workspace(home)
    place.prepare()
    ledger = Ledger(place.ledger_file)
    for number in range(RUNNING, CONFIGURED):
        about = {"at": utc_now(), "bot": f"bot-{number}", "action": "stop", "actor": "person"}
        intent = ledger.append(Kind.INTENT, sentence="not today", **about)
        ledger.append(Kind.OUTCOME, sentence="It is stopped.", ref=intent.id, result="done", **about)
    ledger.close()


def main() -> None:
    """Fill the workspace, start fifty, round several times."""
    with tempfile.TemporaryDirectory() as folder:
        home = workspace(Path(folder), [entry(number) for number in range(CONFIGURED)])
        (home / "data").mkdir()
        start = utc_now() - timedelta(minutes=60)
        times = (start + timedelta(minutes=n) for n in range(60))
        rows = "".join(f"{at:%Y-%m-%dT%H:%M:%SZ},BTCUSDT,BUY,100.5,0.25,{n}\n" for n, at in enumerate(times))
        for number in range(CONFIGURED):
            (home / f"data/{number}.csv").write_text(HEADER + rows)
        (home / "config/schedule.json").unlink()
        stop_the_others(home)
        processes = [
            subprocess.Popen(["sleep", f"{100000 + number}"], cwd=home, start_new_session=True)
            for number in range(RUNNING)
        ]
        try:
            first = seconds([BOTKEEP, "round", "--home", str(home)])
            later = sorted(seconds([BOTKEEP, "round", "--home", str(home)]) for _ in range(5))[2]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    peak = peak_of_children_mib()
    figure = f"{later:.2f} s and {peak:.0f} MiB (the first, which reads every file: {first:.2f} s)"
    held = later <= SECONDS and peak <= MIB
    say(f"a round over {CONFIGURED} bots, {RUNNING} running", figure, f"{SECONDS:.0f} s, {MIB:.0f} MiB", held=held)


if __name__ == "__main__":
    main()
