"""What the bots of a fleet share: this machine, remembered from look to look, and incidents of several of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import hostring
from .bench import Bench
from .incidents import Incident, incidents, party_of
from .model import HostLook, Verdict

HOST = "host"
"""Cursor of no bot: what was seen of this machine."""


def host_of(bench: Bench) -> HostLook | None:
    """This machine, as the newest look of this run saw it."""
    return next((one.observation.host for one in bench.seen.values() if one.observation.host), None)


def remembered(bench: Bench) -> list[tuple[str, str, dict[str, Any]]]:
    """The cursor to be written for this machine: (no bot, its name, value)."""
    host = host_of(bench)
    return [("", HOST, hostring.remember(bench.cursor("", HOST), host))] if host else []


def shared(bench: Bench, verdicts: Iterable[Verdict]) -> tuple[Incident, ...]:
    """What several of these bots have at once."""
    parties = [
        party_of(bench.fleet.get(one.bot).bot, one, bench.seen[one.bot].observation)
        for one in verdicts
        if one.bot in bench.seen
    ]
    return incidents(parties, host_of(bench), bench.clock())
