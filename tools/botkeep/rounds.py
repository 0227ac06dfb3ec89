"""The straight line, written once: look, decide, record; act where the playbook says so.

Server, command and demo open a `Desk` and call it; nothing else drives the rooms below.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from . import act, alerts, diagnose, probe
from . import history as past
from .config import Bot, Fleet, load_fleet
from .durable import Lock
from .formats import FORMATS
from .journal import Journal
from .judge import decide
from .ledger import Entry, Kind, Ledger, Seen
from .model import (
    FAULT_ORDER,
    Action,
    ActionReport,
    Actor,
    BotkeepError,
    ConfigError,
    Diagnosis,
    EngineError,
    Fault,
    History,
    LedgerError,
    Result,
    Status,
    UsageError,
    Verdict,
    iso,
    parse_iso,
    utc_now,
)
from .playbooks import Playbook, Playbooks, load_playbooks
from .profiles import PROFILES
from .untrusted import clean
from .workspace import Workspace

if TYPE_CHECKING:  # a check loads none of these: it has to be quick
    from .doctor import DoctorLine
    from .pnl import PnlFigures
    from .report import HealthReport
    from .restore import RestorePlan
    from .schedule import Due, Missed

SIDE_BY_SIDE = 4
"""Restarts in parallel: a thousand bots that died at once must not all start in the same second."""
UNSEEN_AFTER = 2.5
"""Check intervals without a look, after which the time between two looks counts as unknown."""
STATUS_ORDER = {Status.FAULTY: 0, Status.UNKNOWN: 1, Status.STOPPED: 2, Status.HEALTHY: 3}
SHORTEST_GAP = timedelta(minutes=12, seconds=30)
"""A five-minute cron may skip one look before the time between counts as unknown, whatever the bot's own interval."""
ALERTS_WAIT = 5.0
"""Seconds to wait for another round that is telling people right now."""
BACKUP_TAKES = timedelta(minutes=30)
MAX_NOTE = 1000


@dataclass(frozen=True)
class CheckReport:
    """One look at the fleet, unhealthy bots first. `problems`: what a person should mend that is no bot's fault."""

    at: datetime
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...] = ()

    @property
    def fine(self) -> bool:
        """Every bot is healthy or stopped on purpose."""
        return all(one.status in (Status.HEALTHY, Status.STOPPED) for one in self.verdicts)


@dataclass(frozen=True)
class RoundReport:
    """One round: the verdicts after acting, what was done, and which tasks were due."""

    at: datetime
    verdicts: tuple[Verdict, ...]
    actions: tuple[ActionReport, ...] = ()
    alerts: tuple[alerts.Alert, ...] = ()
    due: tuple[Due, ...] = ()
    """The scheduled tasks that were due and ran in this round."""
    missed: tuple[Missed, ...] = ()
    """Times of the schedule at which nothing ran."""
    backups: tuple[ActionReport, ...] = ()
    report: str = ""
    """The morning report, if it was due."""
    problems: tuple[str, ...] = ()

    @property
    def fine(self) -> bool:
        """Every bot is healthy or stopped on purpose, and nothing failed."""
        good = all(one.status in (Status.HEALTHY, Status.STOPPED) for one in self.verdicts)
        return good and not any(one.result is Result.FAILED for one in (*self.actions, *self.backups))


@dataclass
class Desk:
    """One open workspace. Fleet and playbooks are read afresh for each call: an edit takes effect on the next one."""

    workspace: Workspace
    actor: Actor
    ledger: Ledger
    journal: Journal
    clock: Callable[[], datetime] = utc_now

    @staticmethod
    def open(workspace: Workspace, actor: Actor, clock: Callable[[], datetime] = utc_now) -> Desk:
        """Prepare the state folder and open the ledger (lazily). Raises BotkeepError if that folder cannot be used."""
        workspace.prepare()
        ledger = Ledger(workspace.ledger_file)
        return Desk(workspace, actor, ledger, Journal(workspace, ledger), clock)

    def close(self) -> None:
        """Let the ledger go."""
        self.ledger.close()

    # ------------------------------------------------------------------------------------------------ reading

    def bench(self) -> act.Bench:
        """Fleet and playbooks as they are on disk now. Raises ConfigError if there is no usable fleet."""
        return act.Bench(
            load_fleet(self.workspace),
            load_playbooks(self.workspace),
            self.ledger,
            self.journal,
            self.actor,
            self.clock,
        )

    def check(self, names: Sequence[str] | None = None, *, confirm: bool = True) -> CheckReport:
        """Look, decide, record; `confirm`: suspect evidence takes its second look here. Raises UsageError."""
        bench = self.bench()
        asked = _asked(bench.fleet, names)
        self._reconcile(bench, asked)
        verdicts = self._verdicts(bench, asked, confirm=confirm)
        return CheckReport(self.clock(), _unhealthy_first(verdicts), self._problems(bench))

    def diagnose(self, name: str) -> Diagnosis:
        """Why a bot is as it is, cause first. Raises UsageError for an unknown or unreadable bot."""
        bench = self.bench()
        bot = _good(bench.fleet, name)
        with suppress(BotkeepError):  # its keys are then known by value, and no line of its log shows one
            self._register_secrets(bot)
        seen = bench.look(name)
        verdict = decide(seen.observation, bench.playbooks, bench.history(name), self.clock())
        target = probe.targets(bench.fleet)[name]
        since = self.clock() - timedelta(days=2)
        return diagnose.explain(
            name,
            seen.observation,
            profile=PROFILES[bot.profile or "plain"],
            log=probe.log_file(bot, target) if verdict.pid else probe.last_words(bot, target),
            now=self.clock(),
            entries=self.ledger.entries(bot=name, since=since),
            config_file=self.workspace.bots_file,
            found=verdict.sentence if verdict.fault else "",
        )

    def _register_secrets(self, bot: Bot) -> None:
        from .envfile import load_env_file

        env_file = getattr(bot.runtime, "env_file", None)
        if env_file:
            load_env_file(self.workspace.home / env_file)

    def playbook(self, fault: str) -> Playbook:
        """The playbook of a fault. Raises UsageError naming the faults."""
        known = [one.value for one in Fault]
        if fault not in known:
            raise UsageError(f"There is no fault {clean(fault, 60)!r}. The faults are: {', '.join(known)}.")
        return self.bench().playbooks.get(Fault(fault))

    def memory(self, bot: str | None, since: datetime | None, limit: int = 50) -> list[Entry]:
        """What was done, noted and told, newest last; intents only where no outcome was recorded."""
        if bot is not None:
            load_fleet(self.workspace).get(bot)
        kinds = [Kind.OUTCOME, Kind.NOTE, Kind.ALERT, Kind.ASK, Kind.APPROVAL]
        found = self.ledger.entries(bot=bot, since=since, kinds=kinds, limit=limit, newest_first=True)
        return list(reversed(found))

    def pnl(self, names: Sequence[str] | None, since: datetime | None, method: str = "fifo") -> list[PnlFigures]:
        """Realised P&L, exact, of each bot that has a data file; of one that cannot be read only the reason.

        Raises UsageError for an unknown bot or method, BotkeepError where a bot was named and cannot be read.
        """
        from .pnl import PnlFigures

        bench = self.bench()
        found = []
        for name in _asked(bench.fleet, names):
            bot = bench.fleet.get(name).bot
            if bot is None or bot.data_file is None:
                continue
            try:
                found.append(self._figures(bot, since, method))
            except UsageError:
                raise
            except BotkeepError as error:
                if names:
                    raise
                found.append(PnlFigures(name, since, None, "unknown", (), notes=(str(error),)))
        return found

    def _figures(self, bot: Bot, since: datetime | None, method: str) -> PnlFigures:
        from .pnl import figures

        if bot.data_file is None:
            raise UsageError(f"{bot.name} has no data_file in config/bots.json: there are no trades to count.")
        table = FORMATS[probe.data_kind(bot)].trades(bot.data_file, options=bot.format_options())
        return figures(
            bot.name, table, since=since, until=self.clock(), method=method, capital=bot.capital, currency=bot.currency
        )

    def zone(self) -> tzinfo:
        """The people's: as the fleet names it, else the machine's."""
        from .schedule import people_zone

        return people_zone(load_fleet(self.workspace).timezone, os.environ)

    def report(self, since: datetime, missed: Sequence[Missed] = ()) -> HealthReport:
        """The morning report on [since, now): looks at every bot first. Raises LedgerError: then nothing is known."""
        from . import report

        bench = self.bench()
        checked = self.check()
        now = self.clock()
        names = [one.bot for one in checked.verdicts]
        facts = report.Facts(
            verdicts=checked.verdicts,
            histories=self._histories(bench, names),
            figures=self._all_figures(bench, since),
            backups=self._newest_backups(bench),
            gaps=_gaps(bench.fleet),
            missed=missed,
            problems=checked.problems,
        )
        return report.build(bench.fleet, bench.playbooks, self.ledger, facts, since, now)

    def _all_figures(self, bench: act.Bench, since: datetime | None) -> dict[str, PnlFigures | str]:
        """Each bot's figures, or why there are none: one unreadable file must not cost the others their report."""
        found: dict[str, PnlFigures | str] = {}
        for bot in bench.fleet.bots:
            if bot.data_file is not None:
                try:
                    found[bot.name] = self._figures(bot, since, "fifo")
                except BotkeepError as error:
                    found[bot.name] = str(error)
        return found

    def _newest_backups(self, bench: act.Bench) -> dict[str, datetime]:
        from . import backups

        store = backups.LocalStore(self.workspace.backups_dir)
        kept = {bot.name: backups.snapshots(store, bot.name) for bot in bench.fleet.bots if bot.data_file}
        return {name: max(one.at for one in found) for name, found in kept.items() if found}

    def doctor(self) -> tuple[DoctorLine, ...]:
        """What is missing, bot by bot, and how to mend it."""
        from . import doctor

        return doctor.examine(self.bench())

    # ------------------------------------------------------------------------------------------------ acting

    def restart(self, name: str, reason: str, *, override: str | None = None) -> ActionReport:
        """Stop every copy, start one, watch it; or a refusal with the earliest time."""
        bench = self.bench()
        return act.restart(bench, _good(bench.fleet, name), reason, override=override)

    def start(self, name: str, reason: str, *, override: str | None = None) -> ActionReport:
        """Start the bot if it does not run."""
        bench = self.bench()
        return act.start(bench, _good(bench.fleet, name), reason, override=override)

    def stop(self, name: str, reason: str) -> ActionReport:
        """End every copy, proven. Always allowed."""
        bench = self.bench()
        return act.stop(bench, _good(bench.fleet, name), reason)

    def plan_restore(self, name: str) -> RestorePlan:
        """What a restore would do, with an id. Raises BotkeepError if nothing is damaged or nothing could help."""
        from .backups import LocalStore
        from .restore import plan

        bench = self.bench()
        bot = _good(bench.fleet, name)
        return plan(bot, self.workspace, LocalStore(self.workspace.backups_dir), self.clock())

    def restore(self, name: str, plan_id: str, reason: str = "") -> ActionReport:
        """Carry out a plan."""
        bench = self.bench()
        return act.restore(bench, _good(bench.fleet, name), plan_id, reason)

    def back_up(self, names: Sequence[str] | None = None) -> list[ActionReport]:
        """A verified snapshot of every bot's data file; one entry for all of them."""
        bench = self.bench()
        bots = [bot for name in _asked(bench.fleet, names) if (bot := bench.fleet.get(name).bot) and bot.data_file]
        if not bots:
            raise UsageError("No bot with a data_file was asked for: there is nothing to back up.")
        intent = self._record(Kind.INTENT, Action.BACKUP, f"back up {', '.join(bot.name for bot in bots)}")
        reports = [self._back_up_one(bot) for bot in bots]
        failed = [one for one in reports if not one.ok]
        kept = ", ".join(f"{one.bot} {one.data['rows']} rows" for one in reports if one.ok)
        sentence = " ".join(
            [*(one.sentence for one in failed), *([f"Backed up and read back: {kept}."] if kept else [])]
        )
        result = Result.FAILED if failed else Result.DONE
        self._record(Kind.OUTCOME, Action.BACKUP, sentence, ref=intent.id, result=result.value)
        return reports

    def _back_up_one(self, bot: Bot) -> ActionReport:
        from . import backups

        store = backups.LocalStore(self.workspace.backups_dir)
        reader = FORMATS[probe.data_kind(bot)]
        try:
            kept = backups.back_up(
                bot, store, format=reader, options=bot.format_options(), now=self.clock(), head=self.ledger.head()
            )
            backups.prune(store, bot.name, self.clock())
        except (BotkeepError, OSError) as error:
            return ActionReport(bot.name, Action.BACKUP, Result.FAILED, f"{bot.name} was not backed up: {error}")
        return ActionReport(bot.name, Action.BACKUP, Result.DONE, kept.sentence, data=kept.as_data())

    def note(self, text: str, bot: str | None = None) -> Entry:
        """A note in the journal. Raises UsageError if it is empty or the bot is unknown."""
        if bot is not None:
            load_fleet(self.workspace).get(bot)
        kept = clean(text, MAX_NOTE)
        if not kept.strip():
            raise UsageError("The note is empty: write what should be remembered.")
        return self._record(Kind.NOTE, Action.NOTE, kept, bot=bot)

    def approve(self, asked: str, by: str) -> Entry:
        """A person's yes to an asked action; it holds for an hour and for one action."""
        ask = self.ledger.entry(asked)
        if ask is None or ask.kind is not Kind.ASK:
            raise UsageError(f"{clean(asked, 40)!r} is nothing that was asked. `botkeep journal` shows what is.")
        if any(entry.ref == ask.id for entry in self.ledger.entries(kinds=[Kind.APPROVAL], since=ask.at)):
            raise UsageError(f"{ask.id} is approved already. An approval holds for an hour and for one action.")
        if self.clock() - ask.at > past.APPROVAL_LASTS:
            raise UsageError(f"{ask.id} was asked more than an hour ago. Ask for the action again, and approve that.")
        text = f"{clean(by, 60)} approved to {ask.action} {ask.bot} ({ask.data.get('fault', '')})."
        return self._record(Kind.APPROVAL, Action.APPROVE, text, bot=ask.bot, ref=ask.id, data=dict(ask.data))

    def _record(self, kind: Kind, action: Action, sentence: str, **more: Any) -> Entry:
        bot = more.pop("bot", None)
        return self.journal.record(
            kind, at=self.clock(), bot=bot, action=action.value, actor=self.actor.value, sentence=sentence, **more
        )

    # ------------------------------------------------------------------------------------------------ the round

    def round(self) -> RoundReport:
        """What the woken assistant would do, by playbook: check, act where the mode is auto, tell, run what is due."""
        from concurrent.futures import ThreadPoolExecutor

        bench = self.bench()
        bench.actor = Actor.ROUND  # whoever asked for the round: it never sets `wanted`
        names = _asked(bench.fleet, None)
        self._reconcile(bench, names)
        verdicts = self._verdicts(bench, names, confirm=True)
        jobs = [one for one in verdicts if _acts_alone(one, bench.playbooks)]
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            actions = tuple(report for report in pool.map(lambda one: self._act_on(bench, one), jobs) if report)
        told = tuple(self._tell(bench, verdicts, actions))
        if any(one.ok for one in actions):
            touched = [one.bot for one in actions]
            verdicts = _merged(verdicts, self._verdicts(bench, touched, confirm=False))
        found, missed = self._due(bench)
        kept, text = self._run(bench, [one.task for one in found], missed)
        problems = (*self._problems(bench), *self.journal.sync(self.clock()))
        return RoundReport(
            self.clock(), _unhealthy_first(verdicts), actions, told, found, missed, tuple(kept), text, problems
        )

    def _due(self, bench: act.Bench) -> tuple[tuple[Due, ...], tuple[Missed, ...]]:
        """What the schedule wants now. A broken schedule is a problem of the round, not its end."""
        from .schedule import due, load_schedule, people_zone

        ran = bench.cursor("", "schedule") or {}
        now, zone = self.clock(), people_zone(bench.fleet.timezone, os.environ)
        try:
            tasks = load_schedule(self.workspace)
        except ConfigError as error:
            bench.troubles.append(str(error))
            return (), ()
        found, missed = due(tasks, {task: parse_iso(at) for task, at in ran.items()}, now, zone)
        return found, tuple(one for one in missed if one.task in ran)

    def _ran(self, bench: act.Bench, task: str) -> None:
        """Written down after it ran: what failed is due again at the next round."""
        try:
            ran = self.ledger.cursor("", "schedule") or {}
            self.ledger.set_cursor("", "schedule", {**ran, task: iso(self.clock())})
        except LedgerError as error:
            bench.troubles.append(str(error))

    def _run(self, bench: act.Bench, tasks: Sequence[str], missed: Sequence[Missed]) -> tuple[list[ActionReport], str]:
        """Backups and the report, where they are due; the health check is the round itself."""
        kept: list[ActionReport] = []
        text = ""
        for task in tasks:
            try:
                if task == "bot_backup" and any(bot.data_file for bot in bench.fleet.bots):
                    kept = self.back_up()
                if task == "bot_morning_report":
                    text = self._morning(missed)
            except (BotkeepError, OSError) as error:
                bench.troubles.append(f"{task} failed: {error}")
                continue
            self._ran(bench, task)
        return kept, text

    def _morning(self, missed: Sequence[Missed]) -> str:
        from . import report

        return report.render(self.report(self.clock() - timedelta(hours=24), missed), self.zone())

    def _act_on(self, bench: act.Bench, verdict: Verdict) -> ActionReport | None:
        """One bot's action. A failure of one bot is that bot's report; the others go on."""
        bot, fault = bench.fleet.get(verdict.bot).bot, verdict.fault
        if bot is None or fault is None:
            return None
        try:
            if "restore_data" in bench.playbooks.get(fault).policy.actions:
                return self._restore_for(bench, bot, verdict)
            return act.restart(bench, bot, f"{fault.value}: {verdict.sentence}", only_for=fault)
        except (BotkeepError, OSError) as error:
            return ActionReport(bot.name, Action.RESTART, Result.FAILED, f"{bot.name}: {error}", fault=fault)

    def _restore_for(self, bench: act.Bench, bot: Bot, verdict: Verdict) -> ActionReport:
        from .backups import LocalStore
        from .restore import plan

        made = plan(bot, self.workspace, LocalStore(self.workspace.backups_dir), self.clock())
        return act.restore(bench, bot, made.id, verdict.sentence)

    def _tell(
        self, bench: act.Bench, verdicts: Iterable[Verdict], actions: Iterable[ActionReport]
    ) -> Iterable[alerts.Alert]:
        """Alerts that are due. Two rounds at the same time tell once; a full disk keeps nobody from telling."""
        reports = {one.bot: one for one in actions}
        faulty = [one for one in verdicts if one.status is Status.FAULTY]
        with Lock(self.workspace.state_dir / "alerts.lock") as lock:
            with suppress(EngineError):
                lock.acquire(wait=ALERTS_WAIT)
            for verdict in faulty:
                for alert, data in self._due_alerts(bench, verdict, reports.get(verdict.bot)):
                    try:
                        self._record(Kind.ALERT, Action.ALERT, alert.sentence, bot=alert.bot, data=data)
                    except LedgerError as error:
                        bench.troubles.append(str(error))
                    yield alert

    def _due_alerts(
        self, bench: act.Bench, verdict: Verdict, report: ActionReport | None
    ) -> list[tuple[alerts.Alert, dict[str, Any]]]:
        now, before = self.clock(), bench.history(verdict.bot)
        try:
            told = self.ledger.entries(bot=verdict.bot, kinds=[Kind.ALERT], since=now - act.HISTORY_REACHES)
        except LedgerError as error:
            bench.troubles.append(str(error))
            told = []
        began = past.incident_began(verdict, before)
        found = [(alerts.due(verdict, bench.playbooks, before, told, now), False)]
        if report:
            found.append((alerts.given_up(report, told, began), True))
        return [
            (alert, {"fault": alert.fault.value if alert.fault else None, "given_up": stuck})
            for alert, stuck in found
            if alert
        ]

    # ------------------------------------------------------------------------------------------------ inside

    def _reconcile(self, bench: act.Bench, names: Iterable[str]) -> None:
        """What killed callers owe, before anything is judged: an unrecorded stop would look like a death."""
        try:
            owing = {entry.bot for entry in self.ledger.open_intents()}
        except LedgerError as error:
            bench.troubles.append(str(error))
            return
        if None in owing:
            self._close_lost_backups()
        for name in names:
            act.prepare_stop_mark(self.workspace, name)
            bot = bench.fleet.get(name).bot
            if bot is not None and (name in owing or act.stopped_without_ledger(self.workspace, name)):
                self._reconcile_one(bench, bot)

    def _close_lost_backups(self) -> None:
        """A backup of several bots belongs to no bot's lock: what was begun long ago is over."""
        for intent in self.ledger.open_intents():
            if intent.bot is None and self.clock() - intent.at > BACKUP_TAKES:
                text = "A backup was interrupted; what it had stored by then is whole."
                self._record(Kind.OUTCOME, Action.BACKUP, text, ref=intent.id, result=Result.FAILED.value)

    def _reconcile_one(self, bench: act.Bench, bot: Bot) -> None:
        try:
            act.reconcile(bench, bot)
        except (BotkeepError, OSError) as error:
            bench.troubles.append(f"{bot.name}: {error}")

    def _verdicts(self, bench: act.Bench, names: Sequence[str], *, confirm: bool) -> list[Verdict]:
        seen = probe.look(bench.fleet, names, bench.cursor, self.clock(), bench.answer_within)
        histories = self._histories(bench, names)
        verdicts = {
            name: decide(seen[name].observation, bench.playbooks, histories[name], self.clock()) for name in names
        }
        doubtful = [name for name in names if not verdicts[name].confirmed]
        if doubtful and confirm:
            time.sleep(max(_apart(bench.playbooks, verdicts[name]) for name in doubtful))
            again = probe.look(bench.fleet, doubtful, bench.cursor, self.clock(), bench.answer_within)
            histories = self._histories(bench, doubtful)  # somebody may have stopped one while we waited
            for name in doubtful:
                first = verdicts[name].evidence
                verdicts[name] = decide(again[name].observation, bench.playbooks, histories[name], self.clock(), first)
            seen |= again
        self._remember(bench, seen, list(verdicts.values()))
        return list(verdicts.values())

    def _histories(self, bench: act.Bench, names: Sequence[str]) -> dict[str, History]:
        return {name: bench.history(name) for name in names}

    def _remember(self, bench: act.Bench, seen: dict[str, probe.Seen], verdicts: Sequence[Verdict]) -> None:
        """Cursors and spans, in one transaction each. A full disk costs the memory of this look, not the look."""
        gaps = _gaps(bench.fleet)
        looks = [
            Seen(one.bot, one.status, one.fault, one.up, one.instance, one.at, gaps.get(one.bot, SHORTEST_GAP))
            for one in verdicts
        ]
        cursors = [(name, kind, value) for name, look in seen.items() for kind, value in look.cursors.items()]
        cursors += [
            (one.bot, "confirmed", act.confirmed_cursor(one)) for one in verdicts if one.fault and one.confirmed
        ]
        try:
            self.ledger.see_all(looks)
            self.ledger.set_cursors(cursors)
        except LedgerError as error:
            bench.troubles.append(str(error))

    def _problems(self, bench: act.Bench) -> tuple[str, ...]:
        return (*bench.playbooks.problems, *bench.troubles)


def _gaps(fleet: Fleet) -> dict[str, timedelta]:
    """How far apart two looks at a bot may be that count as one stretch."""
    return {bot.name: max(SHORTEST_GAP, UNSEEN_AFTER * timedelta(seconds=bot.check_interval)) for bot in fleet.bots}


def _apart(playbooks: Playbooks, verdict: Verdict) -> float:
    return playbooks.get(verdict.fault).policy.confirm.apart.total_seconds() if verdict.fault else 0.0


def _asked(fleet: Fleet, names: Sequence[str] | None) -> list[str]:
    """The names asked for, each once; all of them if none. Raises UsageError for an unknown one."""
    if not names:
        return [entry.name for entry in fleet.entries]
    return list(dict.fromkeys(fleet.get(name).name for name in names))


def _good(fleet: Fleet, name: str) -> Bot:
    """The bot. Raises UsageError if it is unknown or its entry is broken."""
    entry = fleet.get(name)
    if entry.bot is None:
        raise UsageError(f"{name} cannot be used: {entry.problem}")
    return entry.bot


def _unhealthy_first(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Faulty ones first, the most important fault before the others: the order to work in."""
    last = len(FAULT_ORDER)
    return tuple(
        sorted(
            verdicts, key=lambda one: (STATUS_ORDER[one.status], FAULT_ORDER[one.fault] if one.fault else last, one.bot)
        )
    )


def _merged(before: Sequence[Verdict], after: Sequence[Verdict]) -> list[Verdict]:
    newer = {one.bot: one for one in after}
    return [newer.get(one.bot, one) for one in before]


def _acts_alone(verdict: Verdict, playbooks: Playbooks) -> bool:
    """Whether the first fault is confirmed and its playbook lets code, or asks a person to let it, do something."""
    if verdict.status is not Status.FAULTY or not verdict.confirmed or verdict.fault is None:
        return False
    return bool(playbooks.get(verdict.fault).policy.actions)
