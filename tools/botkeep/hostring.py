"""What this machine was like before: a small ring of its figures, as JSON between looks, and what changed in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from .model import HostLook, iso, parse_iso
from .sizes import size_text

APART = timedelta(minutes=4)
"""The samples of the last hours are at least so far apart, those of a day less closely."""
CLOSE = timedelta(hours=3)
FAR_APART = timedelta(minutes=18)
REACHES = timedelta(hours=26)
COMPARED_WITH = timedelta(hours=1)
"""A figure is told against one of an hour before."""
SLACK = timedelta(minutes=30)
FELL_TO = 0.5
FELL_BY = 200_000_000
"""Bytes: a machine whose caches breathe changes by less than this, or by less than half of what there was."""
CLOCK_MOVED = 0.5
"""Seconds."""
MOST_DISKS = 8
BOOT_MOVED = timedelta(minutes=1)
"""The moment of the start is reckoned, and moves with the clock."""

Ring = Mapping[str, Any]


@dataclass(frozen=True)
class _Sample:
    at: datetime
    memory: int | None = None
    disks: Mapping[str, int] = field(default_factory=dict)
    offset: float | None = None
    synchronised: bool | None = None
    booted: datetime | None = None
    kills: int | None = None


def remember(ring: Ring | None, look: HostLook) -> dict[str, Any]:
    """The ring with this look in it, as JSON: at most some 130 samples of the last day. A broken ring begins anew."""
    kept = [one for one in _samples(ring) if look.at - REACHES <= one.at < look.at]
    if kept and look.at - kept[-1].at < APART and not _differs(kept[-1], look):
        return {"samples": [_dump(one) for one in kept]}
    return {"samples": [_dump(one) for one in (*_thinned(kept, look.at), _sample(look))]}


def _differs(last: _Sample, look: HostLook) -> bool:
    """What happens at one moment is kept at once."""
    known = last.kills, last.synchronised, last.offset
    return known != (look.oom_kills, look.clock_synchronised, look.clock_offset)


def _thinned(samples: list[_Sample], now: datetime) -> list[_Sample]:
    kept: list[_Sample] = []
    for one in samples:
        old = now - one.at > CLOSE
        if not old or not kept or one.at - kept[-1].at >= FAR_APART:
            kept.append(one)
    return kept


def changes(ring: Ring | None, began: datetime) -> tuple[tuple[datetime, str], ...]:
    """What changed of this machine in the hour before `began`: (when it was seen, a sentence), the oldest first."""
    samples = _samples(ring)
    then = next((one for one in reversed(samples) if began - SLACK <= one.at <= began), None)
    later = next((one for one in samples if began <= one.at <= began + SLACK), None)
    last = then or later
    if last is None:
        return ()
    earlier = [one for one in samples if one.at < last.at and abs(last.at - COMPARED_WITH - one.at) <= SLACK]
    before = min(earlier, key=lambda one: abs(last.at - COMPARED_WITH - one.at), default=None)
    if before is None:
        return ()
    counted = later or last  # what is counted at the moment itself, only the look after it shows
    started = list(_started_anew(before, counted))
    figures = () if started else (*_figures(before, last), *_clock_moved(before, last))
    return (
        *((last.at, text) for text in figures),
        *((counted.at, text) for text in (*started, *_kills(before, counted))),
    )


def _within(before: _Sample, after: _Sample) -> str:
    return f"within {round((after.at - before.at).total_seconds() / 60)} min"


def _started_anew(before: _Sample, after: _Sample) -> Iterator[str]:
    if before.booted and after.booted and after.booted - before.booted > BOOT_MOVED:
        yield f"this machine was started anew at {after.booted:%Y-%m-%d %H:%M:%SZ}"


def _kills(before: _Sample, after: _Sample) -> Iterator[str]:
    count = (after.kills or 0) - (before.kills or 0)
    if before.kills is not None and count > 0:
        processes = "a process" if count == 1 else f"{count} processes"
        yield f"the kernel ended {processes} for lack of memory, {_within(before, after)}"


def _figures(before: _Sample, after: _Sample) -> Iterator[str]:
    within = _within(before, after)
    if _fell(before.memory, after.memory):
        fell = f"from {size_text(before.memory or 0)} to {size_text(after.memory or 0)}"
        yield f"memory that can be had fell {fell} {within}"
    for path, free in after.disks.items():
        if _fell(before.disks.get(path), free):
            yield f"the disk of {path} fell from {size_text(before.disks[path])} free to {size_text(free)} {within}"


def _fell(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after < before * FELL_TO and before - after >= FELL_BY


def _clock_moved(before: _Sample, after: _Sample) -> Iterator[str]:
    within = _within(before, after)
    if before.synchronised and after.synchronised is False:
        yield f"the time service stopped setting the clock {within}"
    if after.offset is not None and abs(after.offset - (before.offset or 0.0)) >= CLOCK_MOVED:
        was = f"{before.offset:+.1f} s" if before.offset is not None else "nothing that was noticed"
        yield f"the clock's error went from {was} to {after.offset:+.1f} s {within}"


# ---------------------------------------------------------------------------------------------------- as JSON


def _sample(look: HostLook) -> _Sample:
    return _Sample(
        at=look.at,
        memory=look.memory_available,
        disks={disk.path: disk.free for disk in look.disks[:MOST_DISKS]},
        offset=look.clock_offset,
        synchronised=look.clock_synchronised,
        booted=look.booted_at,
        kills=look.oom_kills,
    )


def _dump(one: _Sample) -> dict[str, Any]:
    raw = {
        "at": iso(one.at), "memory": one.memory, "disks": dict(one.disks), "offset": one.offset,
        "synchronised": one.synchronised, "booted": iso(one.booted) if one.booted else None, "kills": one.kills,
    }  # fmt: skip
    return {key: value for key, value in raw.items() if value not in (None, {})}


def _samples(ring: Ring | None) -> list[_Sample]:
    """A ring of another version, or a broken one, is as good as none."""
    try:
        return [_load(raw) for raw in ring["samples"]] if ring else []
    except (KeyError, TypeError, ValueError, AttributeError):
        return []


def _load(raw: Mapping[str, Any]) -> _Sample:
    booted = raw.get("booted")
    return _Sample(
        at=parse_iso(raw["at"]),
        memory=raw.get("memory"),
        disks=dict(raw.get("disks") or {}),
        offset=raw.get("offset"),
        synchronised=raw.get("synchronised"),
        booted=parse_iso(booted) if booted else None,
        kills=raw.get("kills"),
    )
