"""What `systemctl show` says about services, as far as it is used. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from botkeep import exec_env

PROPERTIES = (
    "Id", "Names", "LoadState", "LoadError", "ActiveState", "SubState", "Result", "Type", "Job", "InvocationID",
    "InactiveExitTimestamp", "MainPID", "ExecMainPID", "ExecMainStartTimestamp", "ExecMainExitTimestamp",
    "ExecMainCode", "ExecMainStatus", "NRestarts", "ControlGroup", "Slice", "FreezerState", "Restart", "RestartUSec",
    "StartLimitBurst", "StartLimitIntervalUSec", "KillMode", "TimeoutStopUSec", "WatchdogUSec", "StandardOutput",
    "StandardError", "FragmentPath", "DropInPaths", "UnitFileState", "NeedDaemonReload", "TriggeredBy", "UpheldBy",
    "ConditionResult", "ConditionTimestamp", "WorkingDirectory", "RootDirectory", "RootImage", "ExecStart",
)  # fmt: skip
WRAPPER = exec_env.__name__
"""The module that `botkeep systemd-units` has a unit started by."""
EXITED = 1
"""`ExecMainCode` of one that ended by itself: the kernel's CLD_EXITED; 2 and 3 are signals."""
_TIME = re.compile(r"(?:[A-Z][a-z]{2} )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?) UTC")
_COMMAND = re.compile(r"\{ path=(?P<path>.*?) ; argv\[\]=(?P<argv>.*) ; ignore_errors=(?:yes|no) ; ", re.DOTALL)
_COMMAND_BEGINS = "ExecStart={ path="
_COMMAND_ENDS = re.compile(r" ; ignore_errors=(?:yes|no) ; .*}\Z")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(y|month|w|d|h|min|ms|us|s)")
_UNITS = {
    "y": 31557600,
    "month": 2629800,
    "w": 604800,
    "d": 86400,
    "h": 3600,
    "min": 60,
    "s": 1,
    "ms": 1e-3,
    "us": 1e-6,
}


@dataclass(frozen=True)
class Shown:
    """One service at one moment."""

    values: Mapping[str, str]

    def text(self, name: str) -> str:
        """A property; empty if systemd does not know it, or it is not set."""
        return self.values.get(name, "")

    def number(self, name: str) -> int:
        """The same as a number; 0 if it is none."""
        text = self.text(name)
        return int(text) if text.isdecimal() and len(text) < 19 else 0

    def moment(self, name: str) -> datetime | None:
        """The same as a time."""
        found = _TIME.fullmatch(self.text(name))
        try:
            return datetime.fromisoformat(found[1]).replace(tzinfo=UTC) if found else None
        except ValueError:
            return None

    def words(self, name: str) -> tuple[str, ...]:
        """The same as a list."""
        return tuple(self.text(name).split())

    @property
    def id(self) -> str:
        """The unit's own name, whatever alias it was asked by."""
        return self.text("Id")

    @property
    def state(self) -> str:
        """`active`, `failed`, ..."""
        return self.text("ActiveState")

    @property
    def waits(self) -> bool:
        """It ended, and systemd will start it again in a moment."""
        return self.state == "activating" and self.text("SubState") in ("auto-restart", "auto-restart-queued")

    @property
    def is_queued(self) -> bool:
        """It was ordered to start, and other units come first: it runs once they are through, without being asked."""
        return self.state in ("inactive", "failed") and self.number("Job") > 0

    @property
    def lives(self) -> bool:
        """Something of it runs, or is just being started or ended."""
        return self.state in ("active", "reloading", "refreshing", "activating", "deactivating") and not (
            self.waits or (self.text("SubState") == "exited" and not self.number("MainPID"))
        )

    @property
    def path(self) -> str:
        """The program that it starts."""
        found = _COMMAND.search(self.text("ExecStart"))
        return found["path"] if found else ""

    @property
    def line(self) -> str:
        """Its command as systemd has it: words with one space between them, and nothing quoted."""
        found = _COMMAND.search(self.text("ExecStart"))
        return found["argv"] if found else ""

    @property
    def command(self) -> str:
        """The same without the wrapper that `botkeep systemd-units` puts before it."""
        return self.line.partition(" -- ")[2] if self.is_locked else self.line

    @property
    def is_locked(self) -> bool:
        """Whether it is started by the wrapper, which starts no second copy."""
        return f" {WRAPPER} " in self.line and " --lock " in self.line

    @property
    def folder(self) -> str:
        """Where it works; empty: not known, or in a place of its own."""
        folder = self.text("WorkingDirectory").lstrip("!") or "/"
        return folder if folder.startswith("/") and not self.has_own_root else ""

    @property
    def has_own_root(self) -> bool:
        """Whether paths mean something else for it."""
        return any(self.text(name) not in ("", "/") for name in ("RootDirectory", "RootImage"))

    @property
    def group(self) -> str:
        """What the control group of its processes has in its path."""
        return self.text("ControlGroup") or f"/{self.text('Slice') or 'system.slice'}/{self.id}"


def records(text: str) -> Iterator[Shown]:
    """From the whole answer: one record for each unit, with an empty line between two."""
    values: dict[str, str] = {}
    for line in [*_whole(text.split("\n")), ""]:
        name, equals, value = line.partition("=")
        if not line and values.get("Id"):
            yield Shown(values)
            values = {}
        elif equals and name in PROPERTIES:
            values.setdefault(name, value)


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """Properties, each as one: the words of a command may hold line breaks, empty lines, and what looks like another
    property; nothing of that may be taken for one, and least of all for one of the next unit."""
    open_: list[str] = []
    for line in lines:
        if open_ or line.startswith(_COMMAND_BEGINS):
            open_.append(line)
            if not _COMMAND_ENDS.search(line):
                continue
            yield "\n".join(open_)
            open_ = []
        else:
            yield line
    if open_:
        yield "\n".join(open_)


def by_name(found: Iterator[Shown]) -> dict[str, Shown]:
    """By each name that a unit has."""
    named: dict[str, Shown] = {}
    for one in found:
        for name in {one.id, *one.words("Names")}:
            named.setdefault(name, one)
    return named


def span(text: str) -> timedelta | None:
    """A length of time as systemd writes it (`1min 30s`); None for `infinity` and what is none."""
    parts = _SPAN.findall(text)
    if not parts or text == "infinity":
        return timedelta() if text == "0" else None
    seconds = sum(float(count) * float(_UNITS[unit]) for count, unit in parts)
    return timedelta(seconds=min(seconds, 3e9))
