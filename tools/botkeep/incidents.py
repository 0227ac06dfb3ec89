"""Several bots with one cause are one incident: of this machine, of an exchange at this address, of one API key. Pure.

What bots share decides: all plain processes of a machine have one address, so one ban hits all that use one exchange;
a bot that goes through a proxy or another endpoint has an address of its own.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .causekinds import CauseKind, kind_of
from .exchanges import exchange_id, named_in
from .model import Cause, CauseClass, Fault, HostLook, Observation, Verdict
from .untrusted import clean

if TYPE_CHECKING:
    from .config import Bot

WINDOW = timedelta(minutes=10)
"""Lines of several bots so near to each other are of one incident."""
NAMED = 10
"""Bots that a sentence names; of more, how many more."""
FOREVER = datetime.max.replace(tzinfo=UTC)
SEVERAL = "several"
_CODE = re.compile(r"(?<![\d.])(418|429|403)(?![\d.])")
"""What an exchange answers with, in a line."""
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")


@dataclass(frozen=True)
class Share:
    """One cause of one bot, and what it shares with another bot's if the two are equal: (kind, what, address)."""

    kind: CauseKind
    what: str
    """Exchange, key, or disk."""
    address: str
    cause: Cause


@dataclass(frozen=True)
class Party:
    """One bot as incidents need it: how it is, and what it may share with others."""

    bot: str
    verdict: Verdict
    exchange: str = ""
    """As ccxt calls it; empty: its log lines may say."""
    address: str = ""
    """Empty: this machine's own. Else the host that it goes through."""
    key: str = ""
    """What names its API key: `$BINANCE_KEY@doge.env`. Empty: not known."""
    folder: str = ""
    """Where it writes."""
    remembered: tuple[Share, ...] | None = None
    """Of a bot that is not looked at now: what its newest look gave."""


@dataclass(frozen=True)
class Incident:
    """What several bots have at once."""

    id: str
    """The same in every round while it lasts: `rate:binance`, `clock`, `disk:/srv/bots`."""
    sentence: str
    bots: tuple[str, ...]
    klass: CauseClass
    fault: Fault | None
    since: datetime
    until: datetime | None = None
    advice: str = ""
    lines: str = ""
    """How often logs say so: `412 lines from 3 bots in 10 min`. Empty: no log does."""
    elsewhere: tuple[Verdict, ...] = ()
    """Of those bots that were not looked at now: how their newest look saw them."""


@dataclass(frozen=True)
class Strain:
    """How often one exchange told bots behind one address that they ask too much."""

    exchange: str
    """Empty: no line says which."""
    address: str
    bots: tuple[str, ...]
    lines: int
    since: datetime
    last: datetime
    until: datetime | None = None
    """The end of a ban, if one was announced."""

    @property
    def words(self) -> str:
        """`412 lines from 3 bots in 10 min`."""
        return _counted(self.lines, len(self.bots), self.last - self.since)


def _counted(lines: int, bots: int, within: timedelta) -> str:
    minutes = max(1, round(within.total_seconds() / 60))
    return f"{lines} line{'s' * (lines != 1)} from {bots} bot{'s' * (bots != 1)} in {minutes} min"


def party_of(bot: Bot | None, verdict: Verdict, seen: Observation) -> Party:
    """From a bot's configuration (None: broken), its verdict and the look behind it."""
    if bot is None:
        return Party(verdict.bot, verdict)
    account = bot.replay.exchange
    named = seen.program.exchange or (account.id if account else "")
    several = any(sign in named for sign in ",; ")
    return Party(
        bot=bot.name,
        verdict=verdict,
        exchange="" if several else exchange_id(named),
        address=_address(account.endpoint if account else None, getattr(bot.runtime, "env", None) or {}),
        key=_key(account.api_key_env if account else None, getattr(bot.runtime, "env_file", None)),
        folder=str(bot.data_file.parent) if bot.data_file else "",
    )


def _key(variable: str | None, env_file: str | None) -> str:
    """Two variables of one name in two env files hold two keys."""
    if not variable:
        return ""
    return f"${variable}@{clean(env_file, 100)}" if env_file else f"${variable}"


def _address(endpoint: str | None, environment: Mapping[str, str]) -> str:
    """The host that stands between the bot and the exchange; a password in a proxy's URL stays where it is."""
    through = endpoint or next((environment[name] for name in _PROXIES if environment.get(name)), "")
    return clean(urlsplit(through).hostname or "", 100) if through else ""


# ---------------------------------------------------------------------------------------------------- grouping


@dataclass(frozen=True)
class _Share:
    """One bot's part in what may be an incident."""

    bot: str
    cause: Cause


@dataclass
class _Group:
    """All bots with one cause, whose lines lie within one window."""

    kind: CauseKind
    what: str = ""
    """Exchange, key, or disk."""
    address: str = ""
    shares: list[_Share] = field(default_factory=list)

    @property
    def id(self) -> str:
        return ":".join(part for part in (self.kind.value, self.what, self.address) if part)

    @property
    def bots(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.bot for one in self.shares))

    @property
    def causes(self) -> list[Cause]:
        return [one.cause for one in self.shares]

    @property
    def since(self) -> datetime:
        return min(one.first_at or one.last_at or FOREVER for one in self.causes)

    @property
    def last(self) -> datetime:
        return max(one.last_at or one.first_at or FOREVER for one in self.causes)

    @property
    def lines(self) -> int:
        return sum(one.count for one in self.causes)

    def until(self, now: datetime) -> datetime | None:
        return max((one.until for one in self.causes if one.until and one.until > now), default=None)

    def within_window(self, now: datetime) -> _Group:
        """Without bots whose newest line is much older than the newest of all, and whose ban is over."""
        newest = max((one.cause.last_at or now for one in self.shares), default=now)
        kept = [one for one in self.shares if _bans(one.cause, now) or newest - (one.cause.last_at or now) <= WINDOW]
        return _Group(self.kind, self.what, self.address, kept)

    def without(self, bots: Container[str]) -> _Group:
        return _Group(self.kind, self.what, self.address, [one for one in self.shares if one.bot not in bots])


def _bans(cause: Cause, now: datetime) -> bool:
    return cause.until is not None and cause.until > now


def incidents(
    parties: Sequence[Party], host: HostLook | None, now: datetime, fleet: int | None = None
) -> tuple[Incident, ...]:
    """What two or more bots have at once, what concerns most of them first.

    `parties`: every bot of the fleet; or those that may share something, and `fleet`, how many there are in all. A bot
    that reaches no exchange because no name can be resolved is only counted for that.
    """
    groups = [one.within_window(now) for one in _groups(parties, host)]
    nameless = {bot for one in groups if one.kind is CauseKind.DNS and len(one.bots) > 1 for bot in one.bots}
    reached = [one.without(nameless) for one in groups if one.kind is CauseKind.EXCHANGE]
    others = [one for one in groups if one.kind is not CauseKind.EXCHANGE]
    shared = [one for one in (*others, *_networks(reached)) if len(one.bots) > 1]
    elsewhere = {one.bot: one.verdict for one in parties if one.remembered is not None}
    found = [_incident(one, len(parties) if fleet is None else fleet, host, now, elsewhere) for one in shared]
    return tuple(sorted(found, key=lambda one: (-len(one.bots), one.id)))


def _groups(parties: Iterable[Party], host: HostLook | None) -> list[_Group]:
    groups: dict[_Place, _Group] = {}
    for party in parties:
        for one in shares_of(party, host) if party.remembered is None else party.remembered:
            place = one.kind, one.what, one.address
            groups.setdefault(place, _Group(*place)).shares.append(_Share(party.bot, one.cause))
    return list(groups.values())


def shares_of(party: Party, host: HostLook | None) -> tuple[Share, ...]:
    """What this bot has that others may have too."""
    causes = [one for one in (*party.verdict.causes, *_certain(party.verdict)) if one.this_run]
    return tuple(Share(*place, one) for one in causes if (place := _place(party, one, host)) is not None)


def _certain(verdict: Verdict) -> Iterator[Cause]:
    """What needs no log: a disk without room, a kill that the kernel counted."""
    for one in verdict.evidence:
        if one.certain and one.fault in (Fault.DISK_FULL, Fault.OUT_OF_MEMORY):
            klass = CauseClass.HOST if one.fault is Fault.DISK_FULL else CauseClass.RESTART
            at = verdict.down_since or verdict.at
            yield Cause(one.rule, one.text, klass, one.fault, line="", count=0, first_at=at, last_at=at)


_Place = tuple[CauseKind, str, str]


def _place(party: Party, cause: Cause, host: HostLook | None) -> _Place | None:
    """What this cause shares with another bot's, if the two are equal; None: it is the bot's own affair."""
    kind = kind_of(cause)
    if kind in (CauseKind.CLOCK, CauseKind.DNS, CauseKind.MEMORY):
        return kind, "", ""
    if kind is CauseKind.DISK:
        return (kind, disk, "") if (disk := _disk_of(party.folder, host)) else None
    if kind is CauseKind.KEY and party.key:
        return kind, party.key, ""
    exchange = _exchange_of(party, cause)
    if kind is CauseKind.EXCHANGE or (exchange and kind is not CauseKind.OWN):
        return kind, exchange, party.address
    return None


def _exchange_of(party: Party, cause: Cause) -> str:
    """As the bot says, or its configuration; else as the signature is called or the line names it."""
    return party.exchange or named_in(cause.signature.replace("-", " ")) or named_in(cause.line)


def _disk_of(folder: str, host: HostLook | None) -> str:
    """What stands for the disk in every look; a folder that the machine's look did not ask for stands for itself."""
    return next((one.mount or one.path for one in host.disks if folder in one.paths), folder) if host else folder


def _networks(reached: Sequence[_Group]) -> list[_Group]:
    """Exchanges that are not reached. Several at once from this address: it is the way to them that is broken."""
    direct = [one for one in reached if not one.address and one.shares]
    if len(direct) < 2:
        return list(reached)
    shares = [share for one in direct for share in one.shares]
    return [_Group(CauseKind.EXCHANGE, SEVERAL, "", shares), *(one for one in reached if one.address)]


# ---------------------------------------------------------------------------------------------------- in words


def _incident(
    group: _Group, fleet: int, host: HostLook | None, now: datetime, elsewhere: Mapping[str, Verdict]
) -> Incident:
    leading = max(group.causes, key=lambda one: (_bans(one, now), one.count))
    until = group.until(now)
    ends = f" until {_clock(until, now)}" if until else ""
    what = _what(group, leading, host, banned=until is not None).rstrip(".")
    return Incident(
        id=group.id,
        sentence=f"{len(group.bots)} of {fleet} bots: {what}{ends}: {_names(group.bots)}.",
        bots=group.bots,
        klass=leading.klass,
        fault=leading.fault,
        since=min(group.since, now),
        until=until,
        advice=next((one.advice for one in (leading, *group.causes) if one.advice), ""),
        lines=_counted(group.lines, len(group.bots), group.last - group.since) if group.lines else "",
        elsewhere=tuple(elsewhere[bot] for bot in group.bots if bot in elsewhere),
    )


def _what(group: _Group, leading: Cause, host: HostLook | None, *, banned: bool) -> str:
    if group.kind in (CauseKind.RATE, CauseKind.PLACE, CauseKind.EXCHANGE):
        return _of_an_exchange(group, leading, banned=banned)
    if group.kind is CauseKind.KEY and group.what.startswith("$"):
        return f"the API key {group.what[1:].partition('@')[0]} is refused"
    return _of_the_host(group, host) or leading.cause


def _of_an_exchange(group: _Group, leading: Cause, *, banned: bool) -> str:
    from_here = f"that come through {group.address}" if group.address else "from this address"
    if group.kind is CauseKind.RATE:
        code = _CODE.search(leading.line)
        does = "refuses requests" if banned else "gets too many requests"
        return f"{group.what} {does} {from_here}{f' ({code[1]})' if code else ''}"
    if group.kind is CauseKind.PLACE:
        return f"{group.what} does not serve the country that {group.address or 'this machine'} is in"
    if group.what == SEVERAL:
        return "several exchanges are not reached, so it is most likely this machine's network"
    through = f" through {group.address}" if group.address else ""
    return f"{group.what or 'their exchange'} is not reached{through}, or does not serve requests"


def _of_the_host(group: _Group, host: HostLook | None) -> str:
    """What the machine itself says about it, with the figures; empty: nothing."""
    if host is None:
        return ""
    if group.kind is CauseKind.CLOCK and host.clock_offset is not None:
        way = "ahead" if host.clock_offset > 0 else "behind"
        return f"by what a log says, this machine's clock is {abs(host.clock_offset):.1f} s {way}"
    found = [one.text for one in host.causes if one.id == group.kind.value]
    paths = [one.path for one in host.disks if group.what in (one.mount, one.path)] or [group.what]
    return next((text for text in found if any(path in text for path in paths)), "")


def _names(bots: Sequence[str]) -> str:
    more = len(bots) - NAMED
    return ", ".join(bots[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _clock(at: datetime, now: datetime) -> str:
    """To the minute; the day too where the time alone could mean two."""
    near = abs(at - now) < timedelta(hours=18)
    return at.astimezone(UTC).strftime("%H:%MZ" if near else "%Y-%m-%d %H:%MZ")


# ---------------------------------------------------------------------------------------------------- rate limits


def strains(parties: Iterable[Party], now: datetime) -> tuple[Strain, ...]:
    """Rate limits over all bots, per exchange and per address, bans and then the worst first; of single bots too."""
    groups: dict[_Place, _Group] = {}
    for party in parties:
        for cause in party.verdict.causes:
            if cause.this_run and kind_of(cause) is CauseKind.RATE:
                place = CauseKind.RATE, _exchange_of(party, cause), party.address
                groups.setdefault(place, _Group(*place)).shares.append(_Share(party.bot, cause))
    found = [_strain(group.within_window(now), now) for group in groups.values()]
    return tuple(sorted(found, key=lambda one: (one.until is None, -one.lines)))


def _strain(group: _Group, now: datetime) -> Strain:
    return Strain(
        exchange=group.what,
        address=group.address,
        bots=group.bots,
        lines=group.lines,
        since=min(group.since, now),
        last=min(group.last, now),
        until=group.until(now),
    )
