"""Whether something sets this machine's clock, by the kernel's word (adjtimex), and how far a log says it is off."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from .causekinds import CauseKind, kind_of
from .model import Cause, Mark

STA_UNSYNC = 0x40
TIME_ERROR = 5
BEYOND = 10 * 365 * 86400.0
"""Seconds: a clock that is further off was never set at all, and the figure is no measurement."""

MEASURES = {"time-offset": ("milliseconds", 0.001), "time-deviation": ("seconds", 1.0)}
"""Marks whose group is a measured offset, and the group's unit in seconds."""

# What exchanges and bots measured, as they word it: the groups are seconds, or milliseconds, or two times to compare.
_SECONDS = re.compile(r"system time deviates by (-?\d{1,12}(?:\.\d{1,6})?)s\b")
_MILLISECONDS = re.compile(r"Timestamp for this request was (\d{1,12})ms ahead of the server's time")
_TWO_TIMES = re.compile(r"req_timestamp\[(\d{13})\],\s?server_timestamp\[(\d{13})\]")


@dataclass(frozen=True)
class Clock:
    """What the kernel says of its clock."""

    synchronised: bool
    error: float
    """Seconds by which it may be wrong."""


def read_clock() -> Clock | None:
    """None where the kernel may not be asked (some containers), or is none that can be."""
    call, layout = _adjtimex()
    if call is None:
        return None
    found = layout()  # its `modes` are zero: it only asks
    state = int(call(found))
    if state < 0:
        return None
    return Clock(state != TIME_ERROR and not found.status & STA_UNSYNC, found.esterror / 1e6)


@cache
def _adjtimex() -> tuple[Any, Any]:
    """The C library's function, and what it fills: the beginning, with room for the rest. None where there is none."""
    import ctypes  # two milliseconds, once

    class Timex(ctypes.Structure):
        _fields_ = (
            ("modes", ctypes.c_uint),
            ("offset", ctypes.c_long),
            ("freq", ctypes.c_long),
            ("maxerror", ctypes.c_long),
            ("esterror", ctypes.c_long),
            ("status", ctypes.c_int),
            ("rest", ctypes.c_char * 512),
        )

    try:
        call = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return None, None
    call.argtypes, call.restype = [ctypes.POINTER(Timex)], ctypes.c_int
    return call, Timex


def offset_in(causes: Iterable[Cause], marks: Iterable[Mark] = (), since: datetime | None = None) -> float | None:
    """Seconds by which the clock is ahead (behind: negative), by the newest line of a log that measured it.

    `since`: what was measured before says nothing. Marks are facts that a bot states each time it starts.
    """
    found = [
        (cause.last_at, offset)
        for cause in causes
        if cause.last_at and kind_of(cause) is CauseKind.CLOCK and (offset := _offset(cause.line)) is not None
    ]
    found += [(mark.at, offset) for mark in marks if (offset := _marked(mark)) is not None]
    return max(((at, offset) for at, offset in found if since is None or at >= since), default=(None, None))[1]


def _marked(mark: Mark) -> float | None:
    group, unit = MEASURES.get(mark.id, ("", 1.0))
    try:
        seconds = float(mark.values.get(group, "")) * unit
    except ValueError:
        return None
    return seconds if abs(seconds) <= BEYOND else None


def _offset(line: str) -> float | None:
    if found := _SECONDS.search(line):
        seconds = float(found[1])
    elif found := _MILLISECONDS.search(line):
        seconds = int(found[1]) / 1000
    elif found := _TWO_TIMES.search(line):
        seconds = (int(found[1]) - int(found[2])) / 1000
    else:
        return None
    return seconds if abs(seconds) <= BEYOND else None
