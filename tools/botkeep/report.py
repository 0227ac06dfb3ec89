"""How it went: uptime, goals, P&L, actions taken and what waits, from the ledger, as data. Words: `report_words`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any

from . import silences
from .config import Bot, Fleet
from .earnings import Habit
from .goals import WEEK, Goal, Past, behind, goals
from .history import APPROVAL_LASTS, history, incident_began
from .keeping import Safety
from .ledger import Entry, Kind, Ledger
from .model import Action, Actor, Exit, Fault, History, Result, Span, Status, Verdict, parse_iso
from .permits import permit
from .playbooks import Playbooks
from .pnl_figures import PnlFigures
from .proving import Proof
from .schedule import Missed
from .second import SecondStatus
from .silences import Silence
from .uptime import NOTHING, REACH_BACK, WINDOWS, Interruption, Is, Seen, Stretch, Uptime, interruptions

DOWN = frozenset({Fault.BOT_NOT_RUNNING, Fault.BOT_HUNG, Fault.OUT_OF_MEMORY, Fault.BOT_CRASH_LOOPING})
"""As the first fault each says that the bot is down; with any other it may well be up."""


@dataclass(frozen=True)
class Made:
    """A start after a fault, by botkeep or by the engine itself."""

    at: datetime
    cause: str = ""
    """The fault that it was made for; `by its engine`; empty: nothing says."""
    entry: str = ""


@dataclass(frozen=True)
class Fall:
    """One time that it was down, and the ledger's entries about it: what was told, asked and done."""

    seen: Interruption
    entries: tuple[str, ...] = ()


@dataclass(frozen=True)
class BotReport:
    """One bot in the window of the report."""

    bot: str
    status: Status
    sentence: str
    uptime: Uptime
    fault: Fault | None = None
    down_since: datetime | None = None
    restarts: tuple[Made, ...] = ()
    """Oldest first."""
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
    windows: tuple[tuple[str, Uptime], ...] = ()
    """24h, 7d and 30d up to now: those at whose begin it had been looked at already."""
    strip: tuple[Stretch, ...] = ()
    """The window, stretch by stretch."""
    month: PnlFigures | None = None
    """P&L of the last 30 days, for a curve."""
    habit: Habit | None = None
    planned: int = 0
    """Restarts in the window that the configuration asks for (`restart_every`): no failures."""
    falls: tuple[Fall, ...] = ()
    """The times that the window's downtime is made of, the oldest first."""
    backup_entry: str = ""
    """The ledger's entry about that backup; empty: older than the ledger was asked for, or not made by botkeep."""
    proven_entry: str = ""


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
class Told:
    """Something that people were told of."""

    at: datetime
    bot: str | None
    sentence: str
    entry: str
    kind: str = "alert"
    """alert, reminder or resolved."""


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
class Wakes:
    """How often the assistant was woken, and what that cost where its host says so."""

    count: int = 0
    failed: int = 0
    tokens: int | None = None
    cost: Decimal | None = None
    """US dollars, as the host reckons."""
    entries: tuple[str, ...] = ()
    silent: int = 0
    """Wakes of which the host did not say what they took: the sums are of the others."""


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
    goals: tuple[Goal, ...] = ()
    told: tuple[Told, ...] = ()
    wakes: Wakes = Wakes()
    silences: tuple[Silence, ...] = ()
    """Those that hold now first, then those that ended within the window."""
    incidents: tuple[str, ...] = ()
    """What several bots have at once: one sentence each."""

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
    months: Mapping[str, PnlFigures] = field(default_factory=dict)
    habits: Mapping[str, Habit] = field(default_factory=dict)
    incidents: Sequence[str] = ()


def build(
    fleet: Fleet, playbooks: Playbooks, ledger: Ledger, facts: Facts, since: datetime, now: datetime
) -> HealthReport:
    """The report on [since, now). The verdicts should be of now, and recorded. Raises LedgerError."""
    reach = min(since, *(now - length for _, length in WINDOWS)) - REACH_BACK
    entries = ledger.entries(since=reach)
    verdicts = {one.bot: one for one in facts.verdicts}
    of_bot: dict[str, list[Entry]] = {name: [] for name in verdicts}
    for one in entries:
        of_bot.setdefault(one.bot or "", []).append(one)
    looks = {name: ledger.spans(name, reach) for name in verdicts}
    cases = {
        name: _Case(
            facts, looks[name], of_bot[name], _seen(verdicts[name], looks[name], of_bot[name], facts), since, now
        )
        for name in verdicts
    }
    ours = [entry for entry in fleet.entries if entry.name in cases]
    proofs = _Proofs.of(ledger, entries)
    bots = [cases[entry.name].report(entry.bot, verdicts[entry.name]) for entry in ours]
    week = [_past(ledger, entry.bot, entry.name, cases[entry.name]) for entry in ours]
    recent = [entry for entry in entries if entry.at >= since]
    return HealthReport(
        at=now,
        since=since,
        bots=tuple(map(proofs.named, bots)),
        actions=tuple(_deeds(entries, since)),
        held=tuple(_held(fleet, playbooks, facts, entries, now)),
        missed=tuple(facts.missed),
        problems=tuple(facts.problems),
        goals=goals(week, now) if week else (),
        told=tuple(map(_told, (entry for entry in recent if entry.kind is Kind.ALERT))),
        wakes=wakes(recent),
        silences=tuple(_silences(silences.active(ledger, now), entries, since, now)),
        incidents=tuple(facts.incidents),
    )


@dataclass(frozen=True)
class _Proofs:
    """Which entries of the ledger stand behind what is said of backups."""

    restored: Mapping[str, Entry]
    """Bot -> its last restore that was made and verified."""
    kept: Sequence[tuple[datetime, Entry]]
    """(when it was begun, its outcome) of each backup run."""

    @staticmethod
    def of(ledger: Ledger, entries: Sequence[Entry]) -> _Proofs:
        """`entries`: of the time that the report reaches back. Raises LedgerError."""
        restores = ledger.entries(action=Action.RESTORE.value, kinds=[Kind.OUTCOME])
        begun = {entry.id: entry.at for entry in entries if entry.kind is Kind.INTENT}
        runs = [one for one in entries if one.kind is Kind.OUTCOME and one.action == Action.BACKUP]
        return _Proofs(
            {one.bot: one for one in restores if one.bot and one.result == Result.DONE},
            [(begun.get(one.ref or "", one.at), one) for one in runs],
        )

    def named(self, bot: BotReport) -> BotReport:
        """With the entries, and a restore that was made for real as the proof that it is."""
        restore = self.restored.get(bot.bot)
        if restore is not None and (bot.proven_at is None or restore.at >= bot.proven_at):
            bot = replace(bot, proven_at=restore.at, proven_entry=restore.id)
        elif bot.proven_at is not None:
            bot = replace(bot, proven_entry=self._run_at(bot.proven_at))
        return replace(bot, backup_entry=self._run_at(bot.backup_at)) if bot.backup_at else bot

    def _run_at(self, at: datetime) -> str:
        """The run that this moment is in; of two, after a clock was set back, the later one."""
        return next((one.id for begun, one in reversed(self.kept) if begun <= at <= one.at), "")


# --- one bot -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Case:
    """What the ledger has on one bot."""

    facts: Facts
    looks: Sequence[Span]
    entries: Sequence[Entry]
    seen: Seen
    since: datetime
    now: datetime

    def report(self, bot: Bot | None, verdict: Verdict) -> BotReport:
        """All of it; of a bot whose entry is broken what is known."""
        name, facts = verdict.bot, self.facts
        has_data = bot is not None and bot.data_file is not None
        safe = facts.safety.get(name, Safety())
        return BotReport(
            bot=name,
            status=verdict.status,
            sentence=verdict.sentence,
            uptime=self.seen.within(self.since, self.now),
            fault=verdict.fault,
            down_since=self._down_since(verdict),
            restarts=tuple(self._restarts()),
            pnl=facts.figures.get(name) if has_data else None,
            backup_at=safe.at,
            proven_at=safe.proof.at if safe.proof and safe.proof.ok else None,
            proof=safe.proof,
            second=safe.second,
            wants_backup=has_data,
            windows=tuple(self._windows()),
            strip=self.seen.strip(self.since, self.now),
            month=facts.months.get(name) if has_data else None,
            habit=facts.habits.get(name) if has_data else None,
            planned=sum(1 for one in self.entries if _is_planned(one) and one.at >= self.since),
            falls=tuple(self._falls()),
        )

    def _down_since(self, verdict: Verdict) -> datetime | None:
        """Never before the last moment that counts as uptime: a hung bot's last sign of life may be hours older."""
        if verdict.down_since is None:
            return None
        ends = [one.end for one in self.seen.stretches if one.what is Is.UP and one.end <= self.now]
        return max([verdict.down_since, *ends[-1:]])

    def _falls(self) -> Iterator[Fall]:
        for one in interruptions(self.seen.stretches, self.since, self.now):
            yield Fall(one, tuple(behind(self.entries, one)))

    def _windows(self) -> Iterator[tuple[str, Uptime]]:
        for label, length in WINDOWS:
            begins = self.now - length
            if any(one.first <= begins for one in self.looks):
                yield label, self.seen.within(begins, self.now)

    def _restarts(self) -> Iterator[Made]:
        causes = {entry.id: str(entry.data.get("fault") or "") for entry in self.entries}
        for one in history(self.entries, (), self.now).restarts:
            if self.since <= one.at and one.after_fault and one.ok is not False:
                cause = "by its engine" if one.actor is Actor.ENGINE else causes.get(one.entry, "")
                yield Made(one.at, cause, one.entry)


def _is_planned(entry: Entry) -> bool:
    return entry.kind is Kind.INTENT and bool(entry.data.get("planned"))


def _seen(verdict: Verdict, looks: Sequence[Span], entries: Sequence[Entry], facts: Facts) -> Seen:
    """Looks of rounds, and those that actions took."""
    spans = sorted([*looks, *_sightings(entries)], key=lambda one: (one.first, one.last))
    exits = [*_recorded_exits(entries), *_standing_exit(looks, verdict)]
    return Seen(spans, exits, facts.gaps.get(verdict.bot, NOTHING))


def _past(ledger: Ledger, bot: Bot | None, name: str, case: _Case) -> Past:
    """The bot's last week, for the goals."""
    week = case.now - WEEK
    spans = case.looks
    if spans and min(one.first for one in spans) > week:
        spans = ledger.spans(name)  # whether that was its first look, or nobody looked for a month
    began = max(week, min((one.first for one in (*spans, *case.seen.spans)), default=case.now))
    has_data = bot is not None and bot.data_file is not None
    return Past(name, case.seen, case.looks, case.entries, began, has_data)


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


def _recorded_exits(entries: Sequence[Entry]) -> Iterator[Exit]:
    """Exits that an action found, as its intent keeps them: {"exit": {"key", "at", "asked"}}.

    One that happened while botkeep stopped the bot was asked for, also where its program did not note that.
    """
    stops = list(_stops(entries))
    for entry in entries:
        ended = entry.data.get("exit")
        if isinstance(ended, dict) and ended.get("at"):
            at = parse_iso(str(ended["at"]))
            asked = bool(ended.get("asked")) or any(begun <= at <= over for begun, over in stops)
            yield Exit(str(ended["key"]), at, asked=asked)


def _stops(entries: Sequence[Entry]) -> Iterator[tuple[datetime, datetime]]:
    """From intent to outcome of each stop that was made."""
    begun = {entry.id: entry.at for entry in entries if entry.kind is Kind.INTENT and entry.action == Action.STOP}
    for entry in entries:
        if entry.kind is Kind.OUTCOME and entry.ref in begun and entry.result == Result.DONE:
            yield begun[entry.ref], entry.at


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
        elif given_up := _given_up(entries, verdict, incident_began(verdict, past)):
            yield Held(bot.name, f"{given_up.sentence.rstrip('.')} ({given_up.id})", None, "a person has looked at it")


def _given_up(entries: Sequence[Entry], verdict: Verdict, began: datetime) -> Entry | None:
    """What people were told when code could do no more about the standing fault."""
    told = [one for one in entries if one.kind is Kind.ALERT and one.bot == verdict.bot and one.at >= began]
    last = next((one for one in reversed(told) if one.data.get("given_up") or one.data.get("resolved")), None)
    return last if last is not None and last.data.get("given_up") else None


def _open_questions(entries: Iterable[Entry], now: datetime) -> dict[tuple[str, str], str]:
    """(bot, fault) -> what a person may still approve."""
    recent = [entry for entry in entries if now - entry.at <= APPROVAL_LASTS]
    answered = {entry.ref for entry in recent if entry.kind is Kind.APPROVAL}
    return {
        (entry.bot or "", str(entry.data.get("fault", ""))): entry.id
        for entry in recent
        if entry.kind is Kind.ASK and entry.id not in answered and entry.action != Action.POLL
    }


# --- what else the ledger tells ----------------------------------------------------------------------------------


def _told(entry: Entry) -> Told:
    kind = "resolved" if entry.data.get("resolved") else "reminder" if entry.data.get("reminder") else "alert"
    return Told(entry.at, entry.bot, entry.sentence, entry.id, kind)


def wakes(entries: Iterable[Entry]) -> Wakes:
    """Of these entries the notes with `data.wake`; what a host did not report of them is not known, not zero."""
    notes = [entry for entry in entries if entry.kind is Kind.NOTE and isinstance(entry.data.get("wake"), dict)]
    said: list[dict[str, Any]] = [entry.data["wake"] for entry in notes]
    tokens = [int(one["tokens"]) for one in said if _is_number(one.get("tokens"))]
    costs = [Decimal(str(one["cost"])) for one in said if _is_number(one.get("cost"))]
    return Wakes(
        count=len(notes),
        failed=sum(1 for one in said if one.get("ok") is False),
        tokens=sum(tokens) if tokens else None,
        cost=sum(costs, Decimal(0)) if costs else None,
        entries=tuple(entry.id for entry in notes),
        silent=sum(1 for one in said if not _is_number(one.get("tokens")) or not _is_number(one.get("cost"))),
    )


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and Decimal(str(value)).is_finite() and Decimal(str(value)) >= 0
    except InvalidOperation:
        return False


def _silences(active: Sequence[Silence], entries: Iterable[Entry], since: datetime, now: datetime) -> Iterator[Silence]:
    """Those that hold, and those that held in [since, now): a quiet night is not taken for a good one."""
    yield from active
    began: dict[str, Silence] = {}
    for entry in entries:
        said = entry.data.get("silence") if entry.kind is Kind.NOTE else None
        if not isinstance(said, dict) or not entry.bot:
            continue
        if before := began.pop(entry.bot, None):
            yield from _held_until(replace(before, until=min(before.until, entry.at)), active, since, now)
        if not said.get("ended"):
            reason = str(said.get("reason", ""))
            began[entry.bot] = Silence(entry.bot, entry.at, parse_iso(str(said["until"])), reason, entry.id)
    for one in began.values():
        yield from _held_until(one, active, since, now)


def _held_until(one: Silence, active: Sequence[Silence], since: datetime, now: datetime) -> Iterator[Silence]:
    if since < one.until <= now and one.entry not in {held.entry for held in active}:
        yield one
