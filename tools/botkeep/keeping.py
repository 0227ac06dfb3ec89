"""Keeping the books safe: every bot's backup first, then the second copies, then the proof that is due this week."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from . import backups, proving, second
from .bench import Bench
from .changes import ChangedError
from .config import Bot
from .datafile import begins_as_restored, kind_name
from .formats import FORMATS
from .model import Action, ActionReport, Actor, BotkeepError, LedgerError, Result, StoreError, iso
from .retention import is_due, prune
from .stores import Store, Stores

SECOND_SECONDS = {Actor.ASSISTANT: 15.0, Actor.PERSON: 600.0, Actor.ROUND: 120.0}
"""For all second copies of one run; what was not reached goes the next time."""
PROVING_ENDS = {Actor.ASSISTANT: 0.0, Actor.PERSON: 600.0, Actor.ROUND: 120.0}
"""Seconds after the run's begin from which on no proof is begun: a tool call has to answer."""


@dataclass(frozen=True)
class Kept:
    """What one run did, beside the reports of each bot."""

    reports: tuple[ActionReport, ...]
    proofs: tuple[proving.Proof, ...] = ()
    notes: tuple[str, ...] = ()
    """One sentence each: what went wrong with the second store."""

    @property
    def sentence(self) -> str:
        """For the ledger and the journal: what failed in full, the rest as a list."""
        failed = [one.sentence for one in self.reports if not one.ok]
        kept = ", ".join(f"{one.bot} {one.data['rows']} rows" for one in self.reports if one.ok)
        stored = [f"Backed up and read back: {kept}."] if kept else []
        return " ".join([*failed, *stored, *self.notes, *(one.sentence for one in self.proofs)])

    @property
    def result(self) -> Result:
        """Done if every local backup is; a second store that is away fails none."""
        return Result.DONE if all(one.ok for one in self.reports) else Result.FAILED


@dataclass
class _Run:
    bench: Bench
    stores: Stores
    accept: str
    to_prove: frozenset[str]
    """Whose backup is proven in this run: it notes its profit and loss, so that the proof can compare it."""
    began: float = field(default_factory=time.monotonic)
    notes: list[str] = field(default_factory=list)

    def left(self) -> float:
        """Seconds for second copies."""
        return SECOND_SECONDS[self.bench.actor] - (time.monotonic() - self.began)


def keep_all(bench: Bench, bots: Sequence[Bot], *, accept: str = "") -> Kept:
    """Back up these bots' data files, copy what is new to the second store, prove one backup if one is due.

    `accept`: a person's reason to take files as they are although rows that were backed up have changed. A bot that
    cannot be backed up is that bot's report; the others go on.
    """
    run = _Run(bench, stores := bench.stores, accept, _waiting(bench, stores, bots))
    reports = [_keep_one(run, bot) for bot in bots]
    reports = _second_copies(run, reports)
    return Kept(tuple(reports), tuple(_proofs(run, reports)), tuple(run.notes))


def _keep_one(run: _Run, bot: Bot) -> ActionReport:
    bench, local = run.bench, run.stores.local
    restored = _restored(bench, bot)
    try:
        kept = backups.back_up(
            bot,
            local,
            format=FORMATS[kind_name(bot)],
            options=bot.format_options(),
            now=bench.clock(),
            head=bench.ledger.head(),
            accept=run.accept or _accepted(bot, restored),
            figures=bot.name in run.to_prove,
        )
        if is_due(local, bot.name, bench.clock()):
            prune(local, bot.name, bench.clock())
    except ChangedError as error:
        _remember_changed(bench, bot, {"inode": error.inode, "findings": [asdict(one) for one in error.findings]})
        return _failed(bot, error)
    except (BotkeepError, OSError) as error:
        return _failed(bot, error)
    _remember_changed(bench, bot, {})
    _remember_kept(bench, bot, restored)
    return ActionReport(bot.name, Action.BACKUP, Result.DONE, kept.sentence, data=kept.as_data())


def _failed(bot: Bot, error: Exception) -> ActionReport:
    return ActionReport(bot.name, Action.BACKUP, Result.FAILED, f"{bot.name} was not backed up: {error}")


def _restored(bench: Bench, bot: Bot) -> dict[str, Any]:
    """The newest restore of its file since it was backed up; empty for none."""
    try:
        return bench.ledger.cursor(bot.name, "restored") or {}
    except LedgerError:
        return {}


def _accepted(bot: Bot, known: Mapping[str, Any]) -> str:
    """A restore of ours puts lost rows where they belong, so the file is not as it was backed up: that is known.

    Only as long as the file begins with just those bytes: what somebody did to it later is another thing.
    """
    same = bool(known) and bot.data_file is not None and begins_as_restored(bot.data_file, known)
    return f"plan {known['plan']} restored it so" if same else ""


def _remember_changed(bench: Bench, bot: Bot, changed: dict[str, Any]) -> None:
    """What a backup found changed is damage, suspected, until it is restored or accepted: every look says so."""
    try:
        if changed or bench.ledger.cursor(bot.name, "changed"):
            bench.ledger.set_cursor(bot.name, "changed", changed)
    except LedgerError as error:
        bench.troubles.append(str(error))


def _remember_kept(bench: Bench, bot: Bot, restored: dict[str, Any]) -> None:
    """The restored file is backed up; not the one of a restore that came while the backup was made."""
    try:
        if restored:
            bench.ledger.swap_cursor(bot.name, "restored", restored, {})
    except LedgerError as error:
        bench.troubles.append(str(error))


# --- the second store --------------------------------------------------------------------------------------------


def _second_copies(run: _Run, reports: Sequence[ActionReport]) -> list[ActionReport]:
    """After all local ones, and never failing them. A store that failed once is not asked again in this run."""
    store = run.stores.second
    if store is None:
        return list(reports)
    done: list[ActionReport] = []
    for report in reports:
        if report.ok and not run.notes:
            done.append(_second_copy(run, store, report))
        else:
            more = " Its second copy was not tried: the second store failed before." if report.ok else ""
            done.append(replace(report, sentence=report.sentence + more))
    return done


def _second_copy(run: _Run, store: Store, report: ActionReport) -> ActionReport:
    now = run.bench.clock()
    status = second.copy_over(run.stores.local, store, report.bot, now=now, deadline=max(0.0, run.left()))
    if status.ok:
        _prune_second(run, store, report.bot)
    else:
        run.notes.append(f"The second store: {status.trouble}")
    told = {"ok": status.ok, "copied": status.copied, "pending": status.pending, "newest": status.newest}
    more = "The second copy is in place." if status.ok and not status.pending else status.sentence
    sentence = f"{report.sentence} {more}"
    return ActionReport(report.bot, report.action, report.result, sentence, data={**report.data, "second": told})


def _prune_second(run: _Run, store: Store, bot: str) -> None:
    try:
        if is_due(store, bot, run.bench.clock()):
            prune(store, bot, run.bench.clock())
    except StoreError as error:
        run.notes.append(f"The second store: {error}")


# --- proofs ------------------------------------------------------------------------------------------------------


def _waiting(bench: Bench, stores: Stores, bots: Sequence[Bot]) -> frozenset[str]:
    """The bot whose weekly proof is due. None while an assistant waits for its answer."""
    if bench.actor is Actor.ASSISTANT:
        return frozenset()
    try:
        return frozenset(proving.due(stores.local, [bot.name for bot in bots], bench.clock()))
    except StoreError:
        return frozenset()  # the backup itself will say what is wrong with the store


def _proofs(run: _Run, reports: Sequence[ActionReport]) -> list[proving.Proof]:
    """After everything else, where there is time."""
    if time.monotonic() - run.began > PROVING_ENDS[run.bench.actor]:
        return []
    names = [one.bot for one in reports if one.ok and one.bot in run.to_prove]
    bots = [bot for name in names if (bot := run.bench.fleet.get(name).bot)]
    return [_prove(run.stores, bot, run.bench.clock) for bot in bots]


def _prove(stores: Stores, bot: Bot, clock: Callable[[], datetime]) -> proving.Proof:
    return proving.prove(bot, stores, format=FORMATS[kind_name(bot)], options=bot.format_options(), now=clock())


@dataclass(frozen=True)
class Safety:
    """How safe one bot's book is, for the report."""

    at: datetime | None = None
    """Of its newest backup."""
    proof: proving.Proof | None = None
    second: second.SecondStatus | None = None


def safety(bench: Bench, names: Sequence[str]) -> dict[str, Safety]:
    """Of each of these bots. A store that cannot be read is a trouble of the bench, not the end of the report."""
    local = bench.stores.local
    found: dict[str, Safety] = {}
    for name in names:
        try:
            newest = max((one.at for one in backups.snapshots(local, name)), default=None)
            found[name] = Safety(newest, proving.last_proof(local, name), second.last_copy(local, name))
        except StoreError as error:
            if str(error) not in bench.troubles:
                bench.troubles.append(str(error))
    return found


def proof_data(proof: proving.Proof) -> dict[str, Any]:
    """For a ledger entry."""
    return {"bot": proof.bot, "at": iso(proof.at), "ok": proof.ok, "rows": proof.rows}
