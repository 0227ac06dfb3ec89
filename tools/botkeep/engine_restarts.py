"""Restarts that an engine made by itself, from one look to the next: they count like ours.

A supervisor calls a bot RUNNING that it started 33 times within two minutes. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from .model import RuntimeLook, iso, parse_iso

Cursor = dict[str, Any]
LOOK_TAKES = timedelta(seconds=5)
"""That a start may be older than the end of the look that did not see it yet."""


def since_last_look(kept: Mapping[str, Any] | None, seen: RuntimeLook, now: datetime) -> tuple[int, Cursor]:
    """How many the engine made since the look that left `kept` (None: the first one), and what to keep.

    By the times that the engine tells, by its own counter, or by the run being another one that nobody of us started:
    whichever knows of more. Of an engine that tells its own restarts from a person's, only its own count: a person who
    tries out a bot makes no loop.
    """
    run = next((one for one in seen.instances if one.kept_by), None)
    before = dict(kept or {})
    following = {
        "at": iso(now),
        "restarts": seen.restarts,
        "run": run.key if run else before.get("run"),
        "newest": iso(max(seen.starts)) if seen.starts else before.get("newest"),
    }
    if kept is None or seen.error:
        return 0, before if seen.error else following
    if seen.tells_restarts:
        return _counted(before, seen) if seen.restarts is not None else _told(before, seen), following
    another = run is not None and not run.ours and before.get("run") not in (None, run.key)
    return max(_told(before, seen), _counted(before, seen), int(another)), following


def _told(before: Cursor, seen: RuntimeLook) -> int:
    """Those after the newest that was told before: a start between an engine's answer and the end of that look has an
    earlier time than the look, and nobody has counted it."""
    newest = before.get("newest")
    since = parse_iso(newest) if newest else parse_iso(before["at"]) - LOOK_TAKES
    ours = {*seen.asked, *(one.started_at for one in seen.instances if one.ours)}
    return sum(1 for at in seen.starts if at > since and at not in ours)


def _counted(before: Cursor, seen: RuntimeLook) -> int:
    """A counter that is lower than before began anew, with a start that somebody made."""
    old, new = before.get("restarts"), seen.restarts
    if new is None or old is None:
        return 0
    return new - old if new >= old else new
