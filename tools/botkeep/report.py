"""How it went: uptime, P&L, actions taken and what waits, from the ledger; then as text, through a template.

Uptime is claimed only for times at which somebody looked, or which the kernel's own record of an exit settles. The
rest is unknown, and said to be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from .config import Bot, Fleet
from .history import APPROVAL_LASTS
from .judge import length
from .keeping import Safety
from .ledger import Entry, Kind, Ledger
from .model import Action, Exit, Fault, History, Result, Span, Status, Verdict, parse_iso
from .permits import permit
from .playbooks import Playbooks
from .pnl import UNKNOWN, CurrencyFigures, OpenPosition, PnlFigures, rounded
from .proving import Proof
from .schedule import Missed
from .second import SecondStatus
from .untrusted import clean, escape_markdown

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")
MAX_ACTIONS = 30
"""Lines of one report. A bot that was restarted all night fills no chat."""
MAX_POSITIONS = 5
MAX_TIMES = 5
MAX_SENTENCE = 400
WORTH_SAYING = timedelta(minutes=1)
CENTS = frozenset({"USD", "USDT", "USDC", "FDUSD", "TUSD", "BUSD", "DAI", "EUR", "GBP", "CHF", "AUD", "CAD", UNKNOWN})
"""Currencies with two digits after the point; of others as many as they have, up to eight."""
NOTHING = timedelta()
DOWN = frozenset({Fault.BOT_NOT_RUNNING, Fault.BOT_HUNG, Fault.OUT_OF_MEMORY, Fault.BOT_CRASH_LOOPING})
"""As the first fault each says that the bot is down; with any other it may well be up."""
REACH_BACK = timedelta(days=1)
"""Before the window: what began earlier, or was last seen then, reaches into it."""


# --- uptime ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Uptime:
    """A window of time, split into what is known about it. The four add up to it exactly."""

    up: timedelta = NOTHING
    down: timedelta = NOTHING
    stopped: timedelta = NOTHING
    """On purpose: neither up nor down."""
    unknown: timedelta = NOTHING
    """Nobody looked, or nobody could say."""

    @property
    def percent(self) -> Decimal | None:
        """Up of up and down together, to the last digit; None when neither was seen."""
        seen = self.up + self.down
        if not seen:
            return None
        tick = timedelta(microseconds=1)
        return Decimal(self.up // tick) * 100 / Decimal(seen // tick)


class _Is(StrEnum):
    UP = "up"
    DOWN = "down"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


_Stretch = tuple[datetime, datetime, _Is]


def uptime(
    spans: Iterable[Span],
    since: datetime,
    until: datetime,
    exits: Iterable[Exit] = (),
    max_gap: timedelta = NOTHING,
) -> Uptime:
    """How [since, until) divides into up, down, stopped on purpose and unknown.

    1. A span counts, from its first to its last look, as what it says. Where spans overlap (the clock was set back)
       the earlier one counts.
    2. Between two neighbours the time is unknown, except: the same instance alive at both ends was alive between
       them; an instance whose exit is known was alive until then, and afterwards down if the next look says so; and
       down (or stopped) at both ends, at most `max_gap` apart, is down between them, as it is within a span.
    3. What is left, before the first look and after the last, is unknown.
    """
    ended = {one.key: one for one in exits if one.at is not None}
    until = max(since, until)
    total = dict.fromkeys(_Is, NOTHING)
    for start, end, what in _stretches(spans, ended, max_gap):
        total[what] += max(NOTHING, min(end, until) - max(start, since))
    known = total[_Is.UP] + total[_Is.DOWN] + total[_Is.STOPPED]
    return Uptime(total[_Is.UP], total[_Is.DOWN], total[_Is.STOPPED], until - since - known)


def _stretches(spans: Iterable[Span], ended: Mapping[str, Exit], max_gap: timedelta) -> Iterator[_Stretch]:
    """What is known, without overlaps, oldest first."""
    before: Span | None = None
    for span in sorted(spans, key=lambda one: (one.first, one.last)):
        if before is not None:
            yield from _between(before, span, ended, max_gap)
        yield max(span.first, before.last if before else span.first), span.last, _what(span)
        if before is None or span.last > before.last:
            before = span


def _what(span: Span) -> _Is:
    if span.up:
        return _Is.UP
    if span.status is Status.STOPPED:
        return _Is.STOPPED
    return _Is.UNKNOWN if span.up is None else _Is.DOWN


def _between(before: Span, after: Span, ended: Mapping[str, Exit], max_gap: timedelta) -> Iterator[_Stretch]:
    """What is certain about the time from the last look of one span to the first look of the next."""
    start, end, was, then = before.last, after.first, _what(before), _what(after)
    gone = ended.get(before.instance or "")
    if was is then is _Is.UP and before.instance and before.instance == after.instance:
        yield start, end, _Is.UP
    elif was is _Is.UP and gone and gone.at and start <= gone.at <= end:
        yield start, gone.at, _Is.UP
        if then in (_Is.DOWN, _Is.STOPPED):
            yield gone.at, end, then if gone.asked else _Is.DOWN
    elif was is then and was in (_Is.DOWN, _Is.STOPPED) and end - start <= max_gap:
        yield start, end, was


# --- the report as data ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BotReport:
    """One bot in the window of the report."""

    bot: str
    status: Status
    sentence: str
    uptime: Uptime
    fault: Fault | None = None
    down_since: datetime | None = None
    restarts: tuple[datetime, ...] = ()
    """Starts after a fault that somebody made with botkeep, oldest first."""
    pnl: PnlFigures | str | None = None
    """Or why there is none; None: it has no data file."""
    backup_at: datetime | None = None
    """Of its newest verified backup."""
    proven_at: datetime | None = None
    """When a restore from backup was last made and verified."""
    proof: Proof | None = None
    """What came of its last weekly proof."""
    second: SecondStatus | None = None
    """How its copy in the second store stood when that was asked last."""
    wants_backup: bool = False


@dataclass(frozen=True)
class Deed:
    """One action that was taken: the outcome's own sentence."""

    at: datetime
    bot: str | None
    action: str
    result: str
    sentence: str
    entry: str


@dataclass(frozen=True)
class Held:
    """Something that is not done now. `earliest`: until then. Without it a person is waited for."""

    bot: str
    reason: str
    earliest: datetime | None = None
    until: str = ""
    approval: str = ""
    """What `botkeep approve` takes."""


@dataclass(frozen=True)
class HealthReport:
    """How all bots were in [since, at), and how they are now."""

    at: datetime
    since: datetime
    bots: tuple[BotReport, ...] = ()
    actions: tuple[Deed, ...] = ()
    held: tuple[Held, ...] = ()
    missed: tuple[Missed, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def unwell(self) -> tuple[BotReport, ...]:
        """Bots that need attention: with a fault, or unknown."""
        return tuple(one for one in self.bots if one.status in (Status.FAULTY, Status.UNKNOWN))

    @property
    def stopped(self) -> tuple[BotReport, ...]:
        """Bots that are stopped on purpose."""
        return tuple(one for one in self.bots if one.status is Status.STOPPED)


@dataclass(frozen=True)
class Facts:
    """What a report is made of, besides the ledger. `rounds` gathers it; a bot may be missing from any mapping."""

    verdicts: Sequence[Verdict]
    histories: Mapping[str, History] = field(default_factory=dict)
    figures: Mapping[str, PnlFigures | str] = field(default_factory=dict)
    """Realised P&L of the window, or why it is not known."""
    safety: Mapping[str, Safety] = field(default_factory=dict)
    """How safe each bot's book is: backups, proofs, second copies."""
    gaps: Mapping[str, timedelta] = field(default_factory=dict)
    """How far apart two looks may be that the ledger joins into one span."""
    missed: Sequence[Missed] = ()
    problems: Sequence[str] = ()


def build(
    fleet: Fleet, playbooks: Playbooks, ledger: Ledger, facts: Facts, since: datetime, now: datetime
) -> HealthReport:
    """The report on [since, now). The verdicts should be of now, and recorded. Raises LedgerError."""
    entries = ledger.entries(since=since - REACH_BACK)
    proven = _proven(ledger)
    verdicts = {one.bot: one for one in facts.verdicts}
    of_bot: dict[str, list[Entry]] = {name: [] for name in verdicts}
    for one in entries:
        of_bot.setdefault(one.bot or "", []).append(one)
    bots = tuple(
        _bot(entry.bot, verdicts[name], of_bot[name], ledger.spans(name, since - REACH_BACK), facts, since, now)
        for entry in fleet.entries
        if (name := entry.name) in verdicts
    )
    return HealthReport(
        at=now,
        since=since,
        bots=tuple(replace(one, proven_at=_later(one.proven_at, proven.get(one.bot))) for one in bots),
        actions=tuple(_deeds(entries, since)),
        held=tuple(_held(fleet, playbooks, facts, entries, now)),
        missed=tuple(facts.missed),
        problems=tuple(facts.problems),
    )


def _proven(ledger: Ledger) -> dict[str, datetime]:
    """Bot -> its last restore that was made and verified."""
    restores = ledger.entries(action=Action.RESTORE.value, kinds=[Kind.OUTCOME])
    return {entry.bot: entry.at for entry in restores if entry.bot and entry.result == Result.DONE}


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max(filter(None, (one, other)), default=None)


def _bot(
    bot: Bot | None,
    verdict: Verdict,
    entries: Sequence[Entry],
    spans: Sequence[Span],
    facts: Facts,
    since: datetime,
    now: datetime,
) -> BotReport:
    name = verdict.bot
    seen = sorted([*spans, *_sightings(entries)], key=lambda one: (one.first, one.last))
    exits = [*_recorded_exits(entries), *_standing_exit(spans, verdict)]
    has_data = bot is not None and bot.data_file is not None
    past = facts.histories.get(name, History())
    safe = facts.safety.get(name, Safety())
    return BotReport(
        bot=name,
        status=verdict.status,
        sentence=verdict.sentence,
        uptime=uptime(seen, since, now, exits, facts.gaps.get(name, NOTHING)),
        fault=verdict.fault,
        down_since=verdict.down_since,
        restarts=tuple(one.at for one in past.restarts if since <= one.at and one.after_fault and one.ok is not False),
        pnl=facts.figures.get(name) if has_data else None,
        backup_at=safe.at,
        proven_at=safe.proof.at if safe.proof and safe.proof.ok else None,
        proof=safe.proof,
        second=safe.second,
        wants_backup=has_data,
    )


def _sightings(entries: Iterable[Entry]) -> Iterator[Span]:
    """Actions are looks too: an intent names the fault that was found, an outcome says that it is up, or gone.

    Of an outcome `data` holds the key of the instance that was seen; without it nothing is claimed.
    """
    for entry in entries:
        instance, bot, when = entry.data.get("instance"), entry.bot or "", entry.at
        if entry.kind is Kind.INTENT and entry.data.get("fault") in DOWN:
            yield Span(bot, Status.FAULTY, None, False, when, when)
        elif entry.kind is not Kind.OUTCOME or entry.result != Result.DONE:
            continue
        elif entry.action == Action.STOP:
            yield Span(bot, Status.STOPPED, None, None, when, when)
        elif isinstance(instance, str):
            yield Span(bot, Status.HEALTHY, None, True, when, when, instance)


def _recorded_exits(entries: Iterable[Entry]) -> Iterator[Exit]:
    """Exits that an action found, as its intent keeps them: {"exit": {"key", "at", "asked"}}."""
    for entry in entries:
        ended = entry.data.get("exit")
        if isinstance(ended, dict) and ended.get("at"):
            yield Exit(str(ended["key"]), parse_iso(str(ended["at"])), asked=bool(ended.get("asked")))


def _standing_exit(spans: Sequence[Span], verdict: Verdict) -> Iterator[Exit]:
    """The exit behind a verdict of now. Strictly between two looks it is the kernel's record, and not a look."""
    for before, after in pairwise(spans):
        gone = verdict.down_since
        if before.up and after.up is False and gone and before.last < gone < after.first:
            yield Exit(before.instance or "", gone)


def _deeds(entries: Sequence[Entry], since: datetime) -> Iterator[Deed]:
    """What was done to bots, at the time it was begun. Backups that were made are reported by their age instead."""
    begun = {entry.id: entry.at for entry in entries if entry.kind is Kind.INTENT}
    for entry in entries:
        routine = entry.action == Action.BACKUP and entry.result == Result.DONE
        if entry.kind is Kind.OUTCOME and entry.at >= since and not routine:
            at = max(since, begun.get(entry.ref or "", entry.at))
            yield Deed(at, entry.bot, entry.action, entry.result, entry.sentence, entry.id)


def _held(fleet: Fleet, playbooks: Playbooks, facts: Facts, entries: Sequence[Entry], now: datetime) -> Iterator[Held]:
    """What may not be done about standing faults, and until when or until what."""
    asked = _open_questions(entries, now)
    for verdict in facts.verdicts:
        bot = fleet.get(verdict.bot).bot
        if verdict.status is not Status.FAULTY or not verdict.fault or not verdict.confirmed or bot is None:
            continue
        allowed = "restore_data" in playbooks.get(verdict.fault).policy.actions
        action = Action.RESTORE if allowed else Action.RESTART
        past = facts.histories.get(bot.name, History())
        answer = permit(action, verdict, playbooks, past, now, can_restart=bot.runtime is not None)
        if not answer.allowed:
            question = asked.get((bot.name, verdict.fault.value), "")
            yield Held(bot.name, answer.reason, answer.earliest, answer.until, question)


def _open_questions(entries: Iterable[Entry], now: datetime) -> dict[tuple[str, str], str]:
    """(bot, fault) -> what a person may still approve."""
    recent = [entry for entry in entries if now - entry.at <= APPROVAL_LASTS]
    answered = {entry.ref for entry in recent if entry.kind is Kind.APPROVAL}
    return {
        (entry.bot or "", str(entry.data.get("fault", ""))): entry.id
        for entry in recent
        if entry.kind is Kind.ASK and entry.id not in answered and entry.action != Action.POLL
    }


# --- the report as text ------------------------------------------------------------------------------------------


def render(report: HealthReport, zone: tzinfo) -> str:
    """For people, in their zone. Whatever bots, logs and files wrote into it is text: no markup of theirs works."""
    environment = _environment(_Times(report, zone))
    return environment.get_template("health_report.md.j2").render(
        report=report,
        window=_window(report),
        zone=_zone(report.at, zone),
        earned=[one for one in report.bots if one.pnl is not None],
        open=[one for one in report.bots if isinstance(one.pnl, PnlFigures) and one.pnl.positions],
        actions=report.actions[-MAX_ACTIONS:],
        more_actions=max(0, len(report.actions) - MAX_ACTIONS),
        backups=[one for one in report.bots if one.wants_backup],
    )


def _environment(times: _Times) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: S701 - it is no HTML: `finalize` escapes every value for Markdown
        finalize=plain,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "day": times.day,
        "clock": times.clock,
        "uptime": times.uptime,
        "earned": _earned,
        "positions": _positions,
        "waits": times.waits,
        "backup": times.backup,
        "sentence": times.missed,
        "state": times.state,
    }
    return environment


_EMPHASIS = re.compile(r"(?<!\\)((?:\\\\)*)([*~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def plain(value: object) -> object:
    """A text on one line in which no Markdown works: emphasis and links neither. Other values are left as they are."""
    if not isinstance(value, str):
        return value
    text = escape_markdown(clean(value, MAX_SENTENCE)).replace("://", ": //")
    return _EMPHASIS.sub(r"\1\\\2", text)  # an odd number of backslashes before it: escaped already


def _window(report: HealthReport) -> str:
    """`24h`, `7d`, or the length in other words."""
    minutes = round((report.at - report.since).total_seconds() / 60)
    if minutes >= 2880 and minutes % 1440 == 0:
        return f"{minutes // 1440}d"
    return f"{minutes // 60}h" if minutes >= 60 and minutes % 60 == 0 else length(report.at - report.since)


def _zone(at: datetime, zone: tzinfo) -> str:
    """`Europe/Lisbon (WET)`, or what there is to say of a zone without a name."""
    short = at.astimezone(zone).tzname() or ""
    name = getattr(zone, "key", None) or f"UTC{at.astimezone(zone):%z}"
    return short if name in (short, "UTC+0000") else f"{name} ({short})"


@dataclass(frozen=True)
class _Times:
    """What of a report depends on the people's clock."""

    report: HealthReport
    zone: tzinfo

    def day(self, at: datetime) -> str:
        return at.astimezone(self.zone).strftime("%Y-%m-%d")

    def clock(self, at: datetime) -> str:
        """The day too where the time alone could mean two."""
        alone = abs(at - self.report.at) <= timedelta(hours=24)
        return at.astimezone(self.zone).strftime("%H:%M" if alone else "%m-%d %H:%M")

    def uptime(self, bot: BotReport) -> str:
        """`99.8% (1 restart at 03:15; 2.0 h unknown)`."""
        found = bot.uptime
        parts = [self._restarts(bot.restarts)] if bot.restarts else []
        for what, lasted in (("stopped on purpose", found.stopped), ("unknown", found.unknown)):
            if lasted >= WORTH_SAYING:
                parts.append(f"{length(lasted)} {what}")
        share = "not known" if found.percent is None else f"{_share(found.percent)}%"
        return f"{share} ({'; '.join(parts)})" if parts else share

    def _restarts(self, times: Sequence[datetime]) -> str:
        if len(times) > MAX_TIMES:
            return f"{len(times)} restarts, the last at {self.clock(times[-1])}"
        return f"{len(times)} restart{'s' * (len(times) > 1)} at {', '.join(map(self.clock, times))}"

    def waits(self, held: Held) -> str:
        reason = held.reason.rstrip(".")
        if held.earliest:
            return f"not before {self.clock(held.earliest)}: {reason}"
        if held.approval:
            return f"waits for a person: botkeep approve {held.approval} ({reason})"
        return f"waits until {held.until}: {reason}" if held.until else reason

    def backup(self, bot: BotReport) -> str:
        if bot.backup_at is None:
            return "none yet"
        proven = "no restore has proven it"
        if bot.proven_at:
            proven = f"proven by a restore {length(self.report.at - bot.proven_at)} ago"
        if bot.proof and not bot.proof.ok and (not bot.proven_at or bot.proof.at > bot.proven_at):
            proven = f"NOT PROVEN: {bot.proof.sentence.rstrip('.')}"
        return f"{length(self.report.at - bot.backup_at)} old; {proven}{self._second(bot.second)}"

    def _second(self, status: SecondStatus | None) -> str:
        if status is None:
            return ""
        if status.ok and not status.pending:
            return "; second copy in place"
        return f"; second copy lacks {status.pending or 'some'} of them: {status.trouble or 'the rest goes next time'}"

    def missed(self, missed: Missed) -> str:
        return missed.sentence(self.zone)

    def state(self, bot: BotReport) -> str:
        """Fault, since when, and the verdict's own sentence."""
        since = f" since {self.clock(bot.down_since)}" if bot.down_since else ""
        return f"{bot.fault.value if bot.fault else bot.status.value}{since}: {bot.sentence}"


def _share(percent: Decimal) -> str:
    """To a tenth, rounded down: 100 says that no second of downtime was seen."""
    return format(percent.quantize(Decimal("0.1"), ROUND_DOWN), "f").removesuffix(".0")


def _earned(found: PnlFigures | str) -> str:
    """`+12.40 USDT (+2.1%)`, one amount for each currency; or why there is none."""
    if isinstance(found, str):
        return f"not known: {found}"
    parts = [", ".join(map(_amount, found.currencies))]
    if found.other_fees:
        parts.append("less fees of " + ", ".join(f"{_number(paid)} {asset}" for asset, paid in found.other_fees))
    if found.skipped:
        parts.append(f"{found.skipped} rows could not be read")
    return "; ".join(parts)


def _amount(found: CurrencyFigures) -> str:
    currency = "(currency not named)" if found.currency == UNKNOWN else found.currency
    share = "" if found.percent is None else f" ({_signed(found.percent, 1)}%)"
    return f"{_signed(found.realised, 2 if found.currency in CENTS else 8)} {currency}{share}"


def _signed(amount: Decimal, places: int) -> str:
    """Rounded only here; what is not zero is not shown as zero."""
    shown = next(filter(None, (rounded(amount, more) for more in (places, 2, 4, 8))), Decimal(0))
    whole, _, digits = format(abs(shown), "f").partition(".")
    sign = "+" if shown > 0 else "-" if shown < 0 else ""
    return f"{sign}{whole}.{digits.rstrip('0').ljust(min(places, 2), '0')}"


def _number(amount: Decimal) -> str:
    return format(rounded(amount).normalize(), "f")


def _positions(found: PnlFigures) -> str:
    shown = ", ".join(map(_position, found.positions[:MAX_POSITIONS]))
    more = len(found.positions) - MAX_POSITIONS
    return f"{shown} and {more} more" if more > 0 else shown


def _position(held: OpenPosition) -> str:
    side = "short" if held.amount < 0 else "long"
    currency = "" if held.currency == UNKNOWN else f" {held.currency}"
    return f"{side} {_number(abs(held.amount))} {held.symbol} at {_number(held.average_price)}{currency}"
