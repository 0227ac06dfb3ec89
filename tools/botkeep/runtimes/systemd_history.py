"""What the journal tells that systemd itself forgets: the restarts it made, and how the runs before ended. Pure.

`systemctl show` knows the newest run only; and of a unit that nothing refers to, nothing at all once it has ended well.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botkeep.model import Exit

from .systemd_ctl import Manager, fields_of

STARTED = "39f53479d3a045ac8e11786248231fbf"
RESTARTS = "5eb03494b6584870a536b337290809b3"
ENDED = "98e322203f7a4ed290d09fe03c09fe15"
WELL = "7ad2d189f7e94e70a38c781354912448"
BADLY = "d9b373ed55a64feb8242e02dbe79a49c"
STOPPED = "9d1aaa27d60140bd96365438aad20286"
NO_MEMORY = "fe6faa94e7774663a0da52717891d8ef"
FIELDS = (
    "MESSAGE_ID", "UNIT", "USER_UNIT", "INVOCATION_ID", "USER_INVOCATION_ID", "EXIT_CODE", "EXIT_STATUS", "COMMAND",
    "UNIT_RESULT", "__REALTIME_TIMESTAMP", "_SOURCE_REALTIME_TIMESTAMP",
)  # fmt: skip
LINES = 200
LINES_EACH = 40
MOST_LINES = 4000


@dataclass
class Run:
    """One run of a unit, by its invocation id; times are UTC."""

    id: str
    started: datetime | None = None
    by_itself: bool = False
    """systemd started it, because the run before had ended."""
    ended: datetime | None = None
    code: int | None = None
    signal: int | None = None
    out_of_memory: bool | None = None

    def exit(self) -> Exit | None:
        """How it ended; None: nothing is known of its end."""
        if self.ended is None:
            return None
        return Exit(self.id, self.ended, code=self.code, signal=self.signal, out_of_memory=self.out_of_memory)


@dataclass(frozen=True)
class History:
    """Runs by the unit's name, the oldest first."""

    runs: Mapping[str, tuple[Run, ...]] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()
    """Units of which systemd said that it starts them again, and then did not."""

    def of(self, unit: str) -> tuple[Run, ...]:
        """The runs of one unit."""
        return self.runs.get(unit, ())


def question(manager: Manager, units: Sequence[str], uid: int) -> list[str]:
    """What journalctl is asked: systemd's own words about these units, the newest first.

    Anybody may write a line with any MESSAGE_ID into the journal; who wrote it (_PID, _UID) is the journal's own word.
    """
    trusted = f"_UID={uid}" if manager.user else "_PID=1"
    about = "USER_UNIT" if manager.user else "UNIT"
    kinds = [f"MESSAGE_ID={one}" for one in (STARTED, RESTARTS, ENDED, WELL, BADLY, STOPPED, NO_MEMORY)]
    lines = min(MOST_LINES, LINES + LINES_EACH * len(units))
    options = ["--reverse", f"--lines={lines}", f"--output-fields={','.join(FIELDS)}"]
    return [*options, trusted, *(f"{about}={unit}" for unit in units), *kinds]


def entries(raw: bytes) -> Iterator[dict[str, Any]]:
    """Lines of JSON; one that is cut off, or none, is passed over."""
    for line in raw.split(b"\n"):
        try:
            entry = json.loads(line) if line else None
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def read_history(newest_first: Iterable[Mapping[str, Any]]) -> History:
    """The runs that the journal tells of."""
    runs: dict[str, dict[str, Run]] = {}
    restarted: dict[str, bool] = {}
    for entry in reversed(list(newest_first)):
        unit = fields_of(entry, "UNIT") or fields_of(entry, "USER_UNIT")
        name = fields_of(entry, "INVOCATION_ID") or fields_of(entry, "USER_INVOCATION_ID")
        if unit and name:
            found = runs.setdefault(unit, {})
            if name not in found:
                found[name] = Run(name, by_itself=restarted.pop(unit, False))
            _take(found[name], entry)
            if fields_of(entry, "MESSAGE_ID") == RESTARTS:
                restarted[unit] = True
    pending = frozenset(unit for unit, waits in restarted.items() if waits)
    return History({unit: tuple(found.values()) for unit, found in runs.items()}, pending)


def _take(run: Run, entry: Mapping[str, Any]) -> None:
    kind, at = fields_of(entry, "MESSAGE_ID"), _at(entry)
    if kind == STARTED:
        run.started = at
    elif kind == NO_MEMORY or fields_of(entry, "UNIT_RESULT") == "oom-kill":
        run.out_of_memory = True
    if kind in (WELL, BADLY, STOPPED):
        run.ended = run.ended or at
    if kind == ENDED and fields_of(entry, "COMMAND") in ("", "ExecStart"):
        run.ended = at
        run.code, run.signal = _how(fields_of(entry, "EXIT_CODE"), fields_of(entry, "EXIT_STATUS"))


def _how(kind: str, status: str) -> tuple[int | None, int | None]:
    if kind == "exited":
        return (int(status), None) if status.isdecimal() else (None, None)
    try:
        return None, int(status) if status.isdecimal() else signal.Signals[f"SIG{status}"].value
    except KeyError:
        return None, None


def _at(entry: Mapping[str, Any]) -> datetime | None:
    text = fields_of(entry, "_SOURCE_REALTIME_TIMESTAMP") or fields_of(entry, "__REALTIME_TIMESTAMP")
    return datetime.fromtimestamp(int(text) / 1e6, UTC) if text.isdecimal() and len(text) < 18 else None
