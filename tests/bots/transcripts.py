"""Puts what botkeep said in a run of `make bots` into docs/bots.md: `transcripts.py FOLDER FILE`.

A transcript is one file of the folder: its title, an empty line, then commands and answers. What only this machine and
this minute have (folders, ports, pids, times) is replaced, the same by the same; of a bot's log the last lines stay.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

BEGIN, END = "<!-- bots:transcripts -->\n", "<!-- /bots:transcripts -->"
SHOWN = "2026-11-21 09:30:00"
"""The first time of each transcript; the others keep their distance."""
LOG_LINES = 3
WIDTH = 200

_TIME = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)(?P<between>[ T])(?P<clock>\d\d:\d\d(?::\d\d)?)")
_CLOCK = re.compile(r"(?<![\d:-])(?<!\d[ T])(?P<clock>\d\d:\d\d:\d\d)(?=Z)")
_EPOCH = re.compile(r"(?<=banned until )\d{13}")
_PID = re.compile(r"(?<=\bpid )\d+|(?<=\bPID=)\d+")
_PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+|(?<=\('127\.0\.0\.1', )\d+")


def main(folder: Path, page: Path) -> None:
    """Replace what stands between the markers. Raises SystemExit if the page has none, or the folder no transcript."""
    found = [path.read_text() for path in sorted(folder.glob("*.txt"))]
    text = page.read_text()
    if not found or text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"{page} needs one pair of markers, and {folder} at least one transcript")
    before, rest = text.split(BEGIN)
    page.write_text(before + BEGIN + "\n" + "\n".join(map(section, found)) + "\n" + END + rest.split(END)[1])


def section(transcript: str) -> str:
    """One transcript as Markdown."""
    title, _, text = transcript.partition("\n\n")
    lines = [shorten(line) for line in fewer(normal(text).rstrip().splitlines())]
    return f"### {title[0].upper()}{title[1:]}\n\n```console\n" + "\n".join(lines) + "\n```\n"


def normal(text: str) -> str:
    """Without what only one machine and one minute have."""
    text = re.sub(r"/\S*?/home(?=/|\b)", "/srv/keeper", text)
    text = re.sub(r"/\S*?/(?:\.venv-bots|site-packages)/(?:\S*/site-packages/)?", "", text)
    text = re.sub(r"/\S*?/tests/bots/", "/srv/keeper/", text)
    text = _same(_PID, text, lambda number: str(4200 + number))
    text = _same(_PORT, text, lambda number: str(8080 + number))
    return _shifted(text)


def _same(pattern: re.Pattern[str], text: str, name: Callable[[int], str]) -> str:
    """Each thing by its number in the order in which they come."""
    known: dict[str, str] = {}
    return pattern.sub(lambda match: known.setdefault(match[0], name(len(known))), text)


def _shifted(text: str) -> str:
    """All times moved so that the first is SHOWN."""
    times = [_moment(match) for match in _TIME.finditer(text)]
    if not times:
        return text
    shift = datetime.fromisoformat(SHOWN) - min(times)

    def moved(match: re.Match[str]) -> str:
        shown = _moment(match) + shift
        return f"{shown:%Y-%m-%d}{match['between']}{shown:{_form(match['clock'])}}"

    def clock(match: re.Match[str]) -> str:
        return f"{datetime.fromisoformat(f'{min(times):%Y-%m-%d} {match[0]}') + shift:%H:%M:%S}"

    def epoch(match: re.Match[str]) -> str:
        return str(int(match[0]) + int(shift / timedelta(milliseconds=1)))

    return _TIME.sub(moved, _CLOCK.sub(clock, _EPOCH.sub(epoch, text)))


def _moment(match: re.Match[str]) -> datetime:
    return datetime.fromisoformat(f"{match['day']} {match['clock']}")


def _form(clock: str) -> str:
    return "%H:%M:%S" if len(clock) == len("09:30:00") else "%H:%M"


def fewer(lines: list[str]) -> list[str]:
    """Of a log's last lines only the very last."""
    kept: list[str] = []
    held: list[str] = []
    for line in [*lines, ""]:
        if line.startswith("  | ") and (held or kept[-1].startswith("The last ")):
            held.append(line)
            continue
        kept += [*(["  | ..."] if len(held) > LOG_LINES else []), *held[-LOG_LINES:], line]
        held = []
    return kept[:-1]


def shorten(line: str) -> str:
    """A log's line not wider than a page takes; what botkeep says stays whole."""
    return line if len(line) <= WIDTH or not line.startswith("  | ") else line[: WIDTH - 1] + "…"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
