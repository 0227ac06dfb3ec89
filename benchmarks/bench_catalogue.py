"""A hundred megabytes of new log lines through every signature and mark of freqtrade's catalogue, against grep.

The lines are a real freqtrade's, from its log and its console, with a failure in every 2000 lines. `grep -c -P` is
given the same patterns, joined: it knows no other syntax that has them all. `grep -c -F` is given only the texts that
the lines must hold, which is the least that a search can do.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botkeep.causes import read_log
from botkeep.model import LogLook
from botkeep.profiles import PROFILES
from botkeep.profiles.catalogue import Catalogue
from support import say, seconds, side_by_side

SIZE = 100 << 20
FAILURE_EVERY = 2000
RUNS = 5
BOUND = 3.0
NOW = datetime(2026, 11, 21, 10, 26, tzinfo=UTC)
"""Just after the lines were written."""
SAMPLES = Path(__file__).parents[1] / "tests/data/freqtrade"


def lines(catalogue: Catalogue) -> Iterator[bytes]:
    """The samples over and over, and every FAILURE_EVERY lines the example of the next signature."""
    sample = [
        line
        for name in ("start.log", "stdout-folded.log")
        for line in (SAMPLES / name).read_bytes().splitlines(keepends=True)[1:]
    ]
    number = 0
    while True:
        for line in sample:
            number += 1
            yield line
            if number % FAILURE_EVERY == 0:
                failure = catalogue.signatures[number // FAILURE_EVERY % len(catalogue.signatures)]
                said = re.sub(r"\A\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - ", "", failure.example)
                yield f"2026-11-21 10:25:00,000 - {said}\n".encode()


def write(path: Path, catalogue: Catalogue) -> dict[str, Any]:
    """A log of a few lines, looked at; then SIZE more. Returns the cursor of that look."""
    source = lines(catalogue)
    with path.open("wb") as file:
        file.writelines(next(source) for _ in range(100))
    cursor = look(path, None, catalogue).cursor
    with path.open("ab") as file:
        written = 0
        while written < SIZE:
            written += file.write(next(source))
    return cursor


def look(path: Path, cursor: dict[str, Any] | None, catalogue: Catalogue) -> LogLook:
    """One look, at the time of the samples."""
    return read_log(path, cursor=cursor, now=NOW, zone="UTC", catalogue=lambda: catalogue)


def patterns(catalogue: Catalogue) -> str:
    """All of them as one; a name can be given once only, so none is."""
    return "|".join(f"(?:{re.sub(r'[?]P<[a-z_]+>', '?:', one.pattern)})" for one in catalogue.patterns)


def main() -> None:
    """Write the log, then read it and have it grepped in turn."""
    os.environ["LC_ALL"] = "C"  # grep is at its fastest
    catalogue = PROFILES["freqtrade"].catalogue()
    with tempfile.TemporaryDirectory() as folder:
        log, texts, joined = (Path(folder) / name for name in ("freqtrade.log", "texts", "patterns"))
        cursor = write(log, catalogue)
        texts.write_text("".join(f"{text}\n" for text in {text for one in catalogue.patterns for text in one.contains}))
        joined.write_text(patterns(catalogue))
        seen = look(log, cursor, catalogue)

        def ours() -> float:
            began = time.perf_counter()
            look(log, cursor, catalogue)
            return time.perf_counter() - began

        whole = seen.skipped == 0 and not seen.slow and len(seen.causes) > len(catalogue.signatures) * 2 / 3
        same = ["grep", "-c", "-P", "-f", str(joined), str(log)]
        least = ["grep", "-c", "-F", "-f", str(texts), str(log)]
        about = f"{log.stat().st_size >> 20} MiB, {len(catalogue.signatures)} signatures, {len(catalogue.marks)} marks"
        for name, command, runs in (("the texts alone", least, RUNS), ("the same patterns", same, 1)):
            mine, other, ratio = side_by_side(ours, lambda command=command: seconds(command), runs)
            figure = f"{mine:.2f} s, {ratio:.2f} times the {other:.2f} s of {' '.join(command[:3])} with {name}"
            say(f"new lines of a log ({about})", figure, f"{BOUND:.0f} times", held=whole and ratio <= BOUND)


if __name__ == "__main__":
    main()
