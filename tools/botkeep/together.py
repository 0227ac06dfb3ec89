"""What the bots of a fleet share: this machine, remembered from look to look, and incidents of several of them.

A watcher looks at each bot in a turn of its own. What a bot has that others may have too is therefore remembered with
its newest look, and counts for others as long as that look is as new as the bot's `check_interval` says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from . import hostring
from .bench import Bench
from .causekinds import CauseKind
from .incidents import Incident, Party, Share, incidents, party_of, shares_of
from .ledger import Kind
from .model import (
    Action,
    Actor,
    Cause,
    CauseClass,
    Fault,
    History,
    HostLook,
    LedgerError,
    Result,
    Status,
    Verdict,
    iso,
    parse_iso,
)

if TYPE_CHECKING:
    from .config import Bot

HOST = "host"
"""Cursor of no bot: what was seen of this machine."""
SHARES = "shares"
"""Cursor of a bot: what its newest look gave that others may have too; empty where that is nothing."""
LATE = timedelta(seconds=30)
"""By how much a turn may come late: a look takes its time, and so does the second one."""
CHANGING = frozenset({Action.START, Action.RESTART, Action.STOP, Action.RESTORE})
"""After one of these, what was seen of the bot before it is over."""
USUAL_INTERVAL = 300.0
"""Seconds; of a bot whose entry is broken."""


def host_of(bench: Bench) -> HostLook | None:
    """This machine, as the newest look of this run saw it."""
    return next((one.observation.host for one in bench.seen.values() if one.observation.host), None)


# --- remembering -------------------------------------------------------------------------------------------------


def remembered(bench: Bench, verdicts: Iterable[Verdict]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The cursors to be written after this look: (bot or none, name, value)."""
    host = host_of(bench)
    if host:
        yield "", HOST, hostring.remember(bench.cursor("", HOST), host)
    for party in _looked_at(bench, verdicts):
        shares = shares_of(party, host)
        yield party.bot, SHARES, _kept(party.verdict, shares) if shares else {}


def _kept(verdict: Verdict, shares: Iterable[Share]) -> dict[str, Any]:
    """As JSON holds it, times as text."""
    return {
        "at": iso(verdict.at), "status": verdict.status, "fault": verdict.fault, "others": list(verdict.others),
        "confirmed": verdict.confirmed, "up": verdict.up, "sentence": verdict.sentence,
        "down_since": iso(verdict.down_since) if verdict.down_since else None,
        "shares": [
            {"kind": one.kind, "what": one.what, "address": one.address, "cause": _timed(one.cause)} for one in shares
        ],
    }  # fmt: skip


def _timed(cause: Cause) -> dict[str, Any]:
    return {name: iso(value) if isinstance(value, datetime) else value for name, value in asdict(cause).items()}


def _party(bot: str, kept: Mapping[str, Any]) -> Party:
    """One bot as its newest look saw it."""
    down = kept["down_since"]
    verdict = Verdict(
        bot, Status(kept["status"]), parse_iso(kept["at"]), kept["sentence"],
        fault=Fault(kept["fault"]) if kept["fault"] else None, others=tuple(map(Fault, kept["others"])),
        confirmed=kept["confirmed"], up=kept["up"], down_since=parse_iso(down) if down else None,
    )  # fmt: skip
    return Party(bot, verdict, remembered=tuple(_share(one) for one in kept["shares"]))


def _share(kept: Mapping[str, Any]) -> Share:
    cause = dict(kept["cause"])
    for name in ("first_at", "last_at", "until", "fades_at"):
        cause[name] = parse_iso(cause[name]) if cause[name] else None
    fault = Fault(cause["fault"]) if cause["fault"] else None
    known = Cause(**{**cause, "klass": CauseClass(cause["klass"]), "fault": fault})
    return Share(CauseKind(kept["kind"]), kept["what"], kept["address"], known)


# --- what several have -------------------------------------------------------------------------------------------


def shared(bench: Bench, verdicts: Iterable[Verdict]) -> tuple[Incident, ...]:
    """What several bots have at once, at least one of these among them.

    Of bots that are not looked at now counts what their newest look gave, while it is new and nothing was done since.
    """
    parties = _looked_at(bench, verdicts)
    host, names = host_of(bench), {one.bot for one in parties}
    if not any(shares_of(one, host) for one in parties):
        return ()
    found = _incidents(bench, parties)
    return tuple(one for one in found if not names.isdisjoint(one.bots))


def standing(bench: Bench, verdicts: Iterable[Verdict]) -> tuple[Incident, ...]:
    """The same, whichever bots have it."""
    return _incidents(bench, _looked_at(bench, verdicts))


def _incidents(bench: Bench, parties: Sequence[Party]) -> tuple[Incident, ...]:
    now, names = bench.clock(), {one.bot for one in parties}
    others = [entry.name for entry in bench.fleet.entries if entry.name not in names]
    order = {entry.name: number for number, entry in enumerate(bench.fleet.entries)}
    every = sorted([*parties, *_elsewhere(bench, others, now)], key=lambda one: order[one.bot])
    return incidents(every, host_of(bench), now, len(order))


def _looked_at(bench: Bench, verdicts: Iterable[Verdict]) -> list[Party]:
    return [
        party_of(bench.fleet.get(one.bot).bot, one, bench.seen[one.bot].observation)
        for one in verdicts
        if one.bot in bench.seen
    ]


def _elsewhere(bench: Bench, bots: Sequence[str], now: datetime) -> Iterator[Party]:
    """Those of these that share something, as their newest look saw them."""
    for bot, kept in _memories(bench, bots).items():
        if not kept:
            continue
        party = _party(bot, kept)
        shares = tuple(one for one in party.remembered or () if not _is_over(one.cause, now))
        if shares and _is_new(bench, bot, party.verdict.at, now) and not _was_acted_on(bench, party.verdict):
            yield Party(bot, party.verdict, remembered=shares)


def _is_over(cause: Cause, now: datetime) -> bool:
    return cause.fades_at is not None and cause.fades_at <= now


def _is_new(bench: Bench, bot: str, at: datetime, now: datetime) -> bool:
    """Whether a look at that time is the last that there should be. One from the future: the clock was set back."""
    known: Bot | None = bench.fleet.get(bot).bot
    interval = timedelta(seconds=known.check_interval if known else USUAL_INTERVAL)
    return -LATE <= now - at <= interval + LATE


def _was_acted_on(bench: Bench, look: Verdict) -> bool:
    """Whether it was started or stopped since, or is now: how it is then, the next look says."""
    try:
        since = bench.ledger.entries(bot=look.bot, since=look.at, kinds=[Kind.INTENT, Kind.OUTCOME])
    except LedgerError:
        return True
    deeds = [one for one in since if one.action in CHANGING and one.actor != Actor.ENGINE]
    vain = {one.ref for one in deeds if one.kind is Kind.OUTCOME and one.result != Result.DONE}
    return any(one.id not in vain and one.ref not in vain for one in deeds)


def _memories(bench: Bench, bots: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What is remembered of these bots; without one that no look has remembered yet. None of it without a ledger."""
    try:
        kept = bench.ledger.cursors_named(SHARES, bots)
    except LedgerError:
        return {}
    return {bot: json.loads(value) for bot, value in kept.items()}


def newly_seen(bench: Bench, bots: Sequence[str], histories: Mapping[str, History]) -> frozenset[str]:
    """Those of these of which is known what they share now, although nobody looks at them in this turn."""
    now = bench.clock()
    looks = {bot: spans[-1].last for bot in _memories(bench, bots) if (spans := histories[bot].spans)}
    return frozenset(bot for bot, at in looks.items() if _is_new(bench, bot, min(at, now), now))
