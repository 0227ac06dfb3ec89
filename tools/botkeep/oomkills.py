"""Whom the kernel ended for lack of memory, from its own log: /dev/kmsg, else the files and the journal that copy it.

Only records of the kernel itself count: in /dev/kmsg programs can write too, under another facility.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .linetime import LineClock
from .logfile import LogError, last_bytes
from .model import OomKill
from .untrusted import clean

KMSG = Path("/dev/kmsg")
FILES = (Path("/var/log/kern.log"), Path("/var/log/messages"))
"""Where syslog daemons put what the kernel says."""
JOURNAL = ("/usr/bin/journalctl", "-k", "-q", "--no-pager", "-o", "short-unix", "-n", "5000")
JOURNAL_SECONDS = 3.0
RECORD = 8192
"""Bytes: the kernel gives one record a read, and none is longer."""
MOST_RECORDS = 100_000
READING_SECONDS = 0.5
KEPT = 20
FILE_READ = 1 << 20
SETTLED = 5.0
"""Seconds after which a kill that the kernel has counted stands in its log, and in what copies that."""
CLOCK_SET = timedelta(seconds=1)
"""By how much the wall clock has to move against the kernel's for the dates of its log to be others."""

# "Out of memory: Killed process 812 (python3) total-vm:1048576kB, anon-rss:524288kB, ..." since Linux 5.0; before it
# a line "Kill process 812 (python3) score 900 or sacrifice child" and then "Killed process 812 (python3), UID 0, ...".
# A program gives itself its name, brackets and all: what follows the closing one is the kernel's.
_KILLED = re.compile(
    r"\A(?P<why>Out of memory[^:]{0,40}: |Memory cgroup out of memory: )?Killed process (?P<pid>\d{1,10}) "
    r"\((?P<name>.{0,64}?)\),? (?:UID:? ?\d+,? )?total-vm:\d{1,18}kB, anon-rss:(?P<rss>\d{1,18})kB"
)
_CHOSEN = re.compile(r"\A(?:(?P<group>Memory cgroup out)|Out) of memory: Kill process (?P<pid>\d{1,10}) \(")
_COPIED = re.compile(
    r"\A(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\S{10,40}) \S{1,255} kernel: (?:\[ {0,8}\d{1,9}\.\d{6}\] ?)?"
    r"(?P<text>.*)\Z",
    re.DOTALL,
)
"""Date, host, and the tag that only stands there: a program's line may hold the same words further on."""
_Said = tuple[datetime, str]


def read_kills(
    now: datetime, kmsg: Path = KMSG, files: Sequence[Path] = FILES, journal: Sequence[str] = JOURNAL
) -> tuple[tuple[OomKill, ...], str]:
    """The newest kills, the newest last; and why nobody may say (a sentence), if so. Bounded: half a second."""
    try:
        return parse_kills(_kmsg(kmsg, now)), ""
    except OSError as error:
        problem = f"{kmsg} cannot be read: {error.strerror}"
    for path in files:
        try:
            return parse_kills(_file(path, now)), ""
        except (LogError, OSError):
            continue
    lines = _journal(journal)
    if lines:
        return parse_kills(_dated(lines, now)), ""
    return (), f"Whom the kernel ended for lack of memory is not known: {problem}, and no log of the kernel either."


class KnownKills:
    """The newest kills, for whoever looks all day long: the log is read again only after the kernel counted another.

    To read it takes as long as everything else that is looked at when a bot has died. Safe for threads.
    """

    def __init__(self, kmsg: Path = KMSG, files: Sequence[Path] = FILES, journal: Sequence[str] = JOURNAL) -> None:
        self._places = (kmsg, files, journal)
        self._lock = threading.Lock()
        self._count = -1
        self._counted_at = 0.0
        self._booted = datetime.min.replace(tzinfo=UTC)
        self._read_at: float | None = None
        self._kills: tuple[OomKill, ...] = ()

    def newest(self, count: int, now: datetime) -> tuple[OomKill, ...]:
        """The newest kills, the newest last. `count`: how many the kernel has counted since it was booted."""
        with self._lock:
            moment = time.monotonic()
            booted = now - timedelta(seconds=moment)
            if count != self._count or abs(booted - self._booted) > CLOCK_SET:
                self._counted_at = moment if self._count >= 0 else moment - SETTLED  # those before us were long ago
                self._count, self._booted, self._read_at = count, booted, None
            if self._read_at is None or self._read_at - self._counted_at < SETTLED:
                self._kills, _ = read_kills(now, *self._places)
                self._read_at = moment
            return self._kills


def parse_kills(said: Iterable[_Said]) -> tuple[OomKill, ...]:
    """From what the kernel said, the oldest first: the newest kills, the newest last."""
    found: list[OomKill] = []
    in_group: dict[str, bool] = {}
    for at, text in said:
        chosen = _CHOSEN.match(text)
        if chosen:
            in_group[chosen["pid"]] = bool(chosen["group"])
        match = _KILLED.match(text)
        if match:
            found.append(_kill(at, match, in_group.pop(match["pid"], False)))
    return tuple(found[-KEPT:])


def _kill(at: datetime, match: re.Match[str], in_group: bool) -> OomKill:
    of_a_group = (match["why"] or "").startswith("Memory cgroup") or in_group
    rss = int(match["rss"]) * 1024
    return OomKill(at, int(match["pid"]), clean(match["name"], 40), rss, whole_machine=not of_a_group)


# ------------------------------------------------------------------------------------------------- /dev/kmsg


def _kmsg(path: Path, now: datetime) -> Iterator[_Said]:
    """Raises OSError, here and not later, if it may not be opened."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return _records(fd, now)


def _records(fd: int, now: datetime) -> Iterator[_Said]:
    """Each record of the kernel's own. Its clock stands still while the machine sleeps, as the monotonic one does."""
    booted = now - timedelta(seconds=time.monotonic())
    until = time.monotonic() + READING_SECONDS
    try:
        for _ in range(MOST_RECORDS):
            record = _read(fd)
            if not record or time.monotonic() > until:
                return
            head, _, text = record.partition(b";")
            fields = head.split(b",")
            if len(fields) >= 3 and fields[0].isdigit() and int(fields[0]) >> 3 == 0 and fields[2].isdigit():
                line = text.split(b"\n", 1)[0].decode("utf-8", "replace")
                yield booted + timedelta(microseconds=int(fields[2])), line
    finally:
        os.close(fd)


def _read(fd: int) -> bytes:
    """The next record; empty when there is none. Records that were overwritten while we read are passed over."""
    while True:
        try:
            return os.read(fd, RECORD)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EPIPE:
                return b""


# ------------------------------------------------------------------------------------------------- copies of it


def _file(path: Path, now: datetime) -> Iterator[_Said]:
    data, _ = last_bytes(path, FILE_READ)
    return _dated(data.split(b"\n"), now)


def _journal(argv: Sequence[str]) -> list[bytes]:
    """What the journal has of this boot; nothing where there is no journal or it may not be read."""
    try:
        done = subprocess.run(
            list(argv), capture_output=True, check=False, timeout=JOURNAL_SECONDS, stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout[-FILE_READ:].split(b"\n") if done.returncode == 0 and done.stdout.strip() else []


def _dated(lines: Iterable[bytes], now: datetime) -> Iterator[_Said]:
    """Lines of the kernel with the date in front of them; the rest does not count."""
    clock, last = LineClock(_zone_name(), now.timestamp()), None
    for line in lines:
        if b"Kill" not in line:
            continue
        match = _COPIED.match(line.decode("utf-8", "replace"))
        at = clock.read(line, last) if match else None
        if match and at is not None:
            last = at
            yield datetime.fromtimestamp(at, UTC), match["text"]


def _zone_name() -> str:
    """The machine's zone, in which syslog dates its lines; empty if it cannot be told."""
    real = os.path.realpath("/etc/localtime")
    return real.partition("/zoneinfo/")[2]
