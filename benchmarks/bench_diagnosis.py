"""Why a bot is as it is, with a log of five gigabytes that nobody has looked at before: at most 200 ms.

The log is a file with a hole, then a real freqtrade's last megabytes and the line that it died of.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from botkeep import diagnose
from botkeep.causes import read_log
from botkeep.model import Diagnosis, Exit, Observation, RuntimeLook, utc_now
from botkeep.profiles import PROFILES
from support import say

SIZE = 5 << 30
TAIL = 8 << 20
"""Bytes of it that are lines."""
RUNS = 15
SECONDS = 0.2
SAMPLE = Path(__file__).parents[1] / "tests/data/freqtrade/stdout-folded.log"
DIED_OF = "sqlite3.OperationalError: database or disk is full"


def write(path: Path) -> None:
    """SIZE bytes, of which the last TAIL are lines, the very last ones written now."""
    sample = SAMPLE.read_bytes().partition(b"\n")[2]
    died = f"{utc_now():%Y-%m-%d %H:%M:%S},000 - freqtrade - ERROR - Fatal exception!\n{DIED_OF}\n".encode()
    lines = sample * (TAIL // len(sample)) + died
    with path.open("wb") as file:
        file.truncate(SIZE - len(lines))
    with path.open("ab") as file:
        file.write(b"\n" + lines)


def explain(path: Path) -> Diagnosis:
    """A first look at the log, and what is made of it."""
    profile, now = PROFILES["freqtrade"], utc_now()
    log = read_log(path, cursor=None, now=now, zone="UTC", catalogue=profile.catalogue)
    ended = Exit(key="x", at=now - timedelta(seconds=1), code=1)
    seen = Observation("bot", now, RuntimeLook(exit=ended), causes=log.causes)
    return diagnose.explain("bot", seen, profile=profile, log=path, now=now)


def main() -> None:
    """Write the log, then explain it several times; the first time also reads the signatures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "freqtrade.log"
        write(path)
        spent = []
        for _ in range(RUNS):
            began = time.perf_counter()
            found = explain(path)
            spent.append(time.perf_counter() - began)
        told = found.cause == "disk-full" and DIED_OF in found.lines[-1] and found.truncated
        once = statistics.median(spent)
        figure = f"{once * 1000:.0f} ms ({spent[0] * 1000:.0f} ms the first time), from {found.log_part}"
        held = told and max(once, spent[0]) <= SECONDS and found.log_part.startswith("the last ")
        say("diagnosis of a bot with a log of 5 GiB", figure, f"{SECONDS * 1000:.0f} ms, said to be a tail", held=held)


if __name__ == "__main__":
    main()
