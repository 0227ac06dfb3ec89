"""The straight line, written once: look, decide, record; act where the playbook says so.

Server, command and demo open a `Desk` and call it; nothing else drives the rooms below.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from . import act, alerts, by_playbook, comparing, deaths, polling, silences, survey, together, waking
from . import history as past
from .bench import Bench
from .config import Bot, load_fleet
from .explaining import explained
from .fresh import Fresh, Rules
from .journal import Journal
from .judge import decide
from .ledger import Entry, Kind, Ledger
from .model import (
    Action,
    ActionReport,
    Actor,
    BotkeepError,
    Diagnosis,
    Fault,
    Result,
    Status,
    StoreError,
    UsageError,
    Verdict,
    utc_now,
)
from .playbooks import Playbook, load_playbooks
from .runtimes.procs import ProcessTable
from .untrusted import clean
from .workspace import Workspace

if TYPE_CHECKING:  # a check loads none of these: it has to be quick
    from .doctor import DoctorLine
    from .earnings import Wish
    from .incidents import Incident
    from .outbox import Delivery
    from .plans import RestorePlan
    from .pnl_figures import PnlFigures
    from .report import HealthReport
    from .retention import Pruned
    from .schedule import Due, Missed
    from .silences import Silence
    from .stores import Store
    from .stores.checking import Shelf, StoreReport
    from .wake import Call

SIDE_BY_SIDE = 4
"""Restarts in parallel: a thousand bots that died at once must not all start in the same second."""
AT_ONCE = 16
"""The same where somebody looks all day long: the first ones are started, and watched, for ten seconds each."""
DELIVERING = 20.0
"""Seconds of a round for sending alerts, and again for the report; what is left waits for the next one."""
STARTS_FIRST = 0.5
"""Seconds that a turn leaves disk and processor to the starts of bots that are down, before it writes what it saw."""
NEIGHBOURS = 50
"""Bots of a fleet that are all looked at to explain one: what several have at once is no fault of one."""
IN_A_CALL = 40_000_000
"""Bytes of a data file whose restore an assistant's call can plan and carry out within its time."""
MAX_NOTE = 1000


@dataclass(frozen=True)
class CheckReport:
    """One look at the fleet, unhealthy bots first. `problems`: what a person should mend that is no bot's fault."""

    at: datetime
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...] = ()
    incidents: tuple[Incident, ...] = ()
    silenced: tuple[Silence, ...] = ()
    """Bots of which nobody is told now."""

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
    incidents: tuple[Incident, ...] = ()
    calls: tuple[Call, ...] = ()
    """What an assistant is woken for: claimed, so that nobody else does it; `Desk.wake` makes the calls."""
    planned: Mapping[str, datetime] = field(default_factory=dict)
    """When these bots have their next planned restart."""

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
    fresh: Fresh | None = None
    """For whoever looks all day long: files are read again only when they changed."""
    _table: ProcessTable | None = None
    """The newest process table of its turns."""

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

    def bench(self) -> Bench:
        """Fleet and playbooks as they are on disk now. Raises ConfigError if there is no usable fleet."""
        rules = self.fresh.read() if self.fresh else Rules(load_fleet(self.workspace), load_playbooks(self.workspace))
        troubles = [rules.problem] if rules.problem else []
        return Bench(
            rules.fleet, rules.playbooks, self.ledger, self.journal, self.actor, self.clock, troubles=troubles,
            before=self._table,
        )  # fmt: skip

    def check(self, names: Sequence[str] | None = None, *, confirm: bool = True) -> CheckReport:
        """Look, decide, record; `confirm`: suspect evidence takes its second look here. Raises UsageError."""
        bench = self.bench()
        asked = bench.fleet.asked(names)
        survey.reconcile_owed(bench, asked)
        verdicts = survey.verdicts_of(bench, asked, confirm=confirm)
        found = together.shared(bench, verdicts)
        worst, problems = survey.unhealthy_first(verdicts), survey.problems_of(bench)
        return CheckReport(self.clock(), worst, problems, found, silences.holding(self.ledger, self.clock()))

    def diagnose(self, name: str) -> Diagnosis:
        """Why a bot is as it is, cause first. Raises UsageError for an unknown or unreadable bot."""
        bench = self.bench()
        bot = bench.fleet.usable(name)
        with suppress(BotkeepError):  # its keys are then known by value, and no line of its log shows one
            self._register_secrets(bot)
        names = bench.fleet.asked(None) if len(bench.fleet.entries) <= NEIGHBOURS else [name]
        bench.seen.update(bench.look_at(names))
        verdicts = {one: self._decided(bench, one) for one in names}
        return explained(bench, bot, verdicts[name], together.shared(bench, verdicts.values()))

    def _decided(self, bench: Bench, name: str) -> Verdict:
        return decide(bench.seen[name].observation, bench.playbooks, bench.history(name), self.clock())

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

    def pnl(self, names: Sequence[str] | None, wish: Wish) -> list[PnlFigures]:
        """P&L, exact, of each bot that has a data file; of one that cannot be read only the reason.

        Raises UsageError for an unknown bot or method, BotkeepError where a bot was named and cannot be read.
        """
        from .books import earned_by

        return earned_by(self.bench(), names, wish)

    def zone(self) -> tzinfo:
        """The people's: as the fleet names it, else the machine's."""
        from .schedule import zone_of

        return zone_of(load_fleet(self.workspace))

    def report(self, since: datetime, missed: Sequence[Missed] = ()) -> HealthReport:
        """The morning report on [since, now): looks at every bot first. Raises LedgerError: then nothing is known."""
        from .report_facts import report_since

        return report_since(self.bench(), since, missed)

    def report_told(self, report: HealthReport, kind: str = "text") -> str:
        """A report for people, as `text`, `plain`, `markdown` or `html`; by the workspace's template if it has one."""
        from .report_words import told

        return told(report, self.zone(), kind, home=self.workspace.home).text

    def pictures(self, report: HealthReport) -> list[Path]:
        """A report's pictures as PNG, in the state folder for a week. Raises BotkeepError without matplotlib."""
        from .report_pictures import kept_pictures

        return kept_pictures(report, self.workspace.state_dir / "pictures", self.zone())

    # ------------------------------------------------------------------------------------------------ stores

    def store_check(self, sample: float | None = None) -> list[StoreReport | StoreError]:
        """Every manifest and every object (or a share of them) of each store, read; or why one cannot be."""
        from .stores.checking import store_check

        def check(store: Store) -> StoreReport:
            return store_check(store, None, sample=sample, now=self.clock())

        return [_told(check, store) for store in self.bench().stores.all]

    def store_list(self, names: Sequence[str] | None = None) -> list[tuple[str, list[Shelf] | StoreError]]:
        """(store, what it holds of each bot, or why that cannot be read); also of bots no longer configured."""
        from .stores.checking import store_list

        def shelves(store: Store) -> list[Shelf]:
            return store_list(store, names or None)

        return [(store.name, _told(shelves, store)) for store in self.bench().stores.all]

    def store_prune(self, names: Sequence[str] | None = None, *, dry_run: bool) -> list[tuple[str, str, Pruned]]:
        """(store, bot, what the retention removes) for each store and bot; recorded. Raises StoreError."""
        from .retention import prune
        from .stores.checking import bots_in

        done = [
            (store.name, bot, prune(store, bot, self.clock(), dry_run))
            for store in self.bench().stores.all
            for bot in names or bots_in(store)
        ]
        removed, freed = sum(len(one.removed) for *_, one in done), sum(one.freed for *_, one in done)
        if not dry_run and removed:
            text = f"Retention removed {removed} backups; {freed / 1e6:.1f} MB are free again."
            self._record(Kind.NOTE, Action.NOTE, text)
        return done

    def doctor(self) -> tuple[DoctorLine, ...]:
        """What is missing, bot by bot, and how to mend it."""
        from . import doctor

        return doctor.examine(self.bench())

    # ------------------------------------------------------------------------------------------------ acting

    def restart(self, name: str, reason: str, *, override: str | None = None) -> ActionReport:
        """Stop every copy, start one, watch it; or a refusal with the earliest time."""
        bench = self.bench()
        return act.restart(bench, bench.fleet.usable(name), reason, override=override)

    def start(self, name: str, reason: str, *, override: str | None = None) -> ActionReport:
        """Start the bot if it does not run."""
        bench = self.bench()
        return act.start(bench, bench.fleet.usable(name), reason, override=override)

    def stop(self, name: str, reason: str) -> ActionReport:
        """End every copy, proven. Always allowed."""
        bench = self.bench()
        return act.stop(bench, bench.fleet.usable(name), reason)

    def poll(self, name: str, reason: str, *, less: bool) -> ActionReport:
        """A person's word: the bot asks its exchange less, or as usual again, as its `limits.polling` says."""
        if not reason.strip():
            raise UsageError("The reason is empty: write why, for the journal.")
        bench = self.bench()
        return (polling.reduce if less else polling.restore)(bench, bench.fleet.usable(name), reason)

    def plan_restore(self, name: str) -> RestorePlan:
        """What a restore would do, with an id. Raises BotkeepError if nothing is damaged or nothing could help."""
        from .planning import plan

        bench = self.bench()
        bot = bench.fleet.usable(name)
        if self.actor is Actor.ASSISTANT and bot.data_file is not None and _size(bot.data_file) > IN_A_CALL:
            raise BotkeepError(
                f"{name}'s data file has {_size(bot.data_file) / 1e6:.0f} MB: planning its restore takes longer than a "
                f"tool call may. The next round does it by playbook, or a person: `botkeep restore {name}`."
            )
        known = bench.cursor(name, "compared")
        return plan(bot, self.workspace, bench.stores.all, self.clock(), exchange=not deaths.waits(known, self.clock()))

    def restore(self, name: str, plan_id: str, reason: str = "") -> ActionReport:
        """Carry out a plan."""
        bench = self.bench()
        return act.restore(bench, bench.fleet.usable(name), plan_id, reason)

    def back_up(self, names: Sequence[str] | None = None, *, accept: str = "") -> list[ActionReport]:
        """A verified snapshot of every bot's data file, then the second copies; one entry for all of them.

        `accept`: a person's reason to take the files as they are although rows that were backed up have changed.
        """
        from .duties import back_up

        return back_up(self.bench(), names, accept=accept)

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
        """Without the fleet: a note can be written while bots.json is broken."""
        bot, actor = more.pop("bot", None), self.actor.value
        return self.journal.record(
            kind, at=self.clock(), bot=bot, action=action.value, actor=actor, sentence=sentence, **more
        )

    # ------------------------------------------------------------------------------------------------ the round

    def round(self, *, aside: bool = False) -> RoundReport:
        """What the woken assistant would do, by playbook: check, act where the mode is auto, tell, run what is due.

        `aside`: a process of its own wakes the assistant where that is needed; else this call does, for minutes.
        """
        from concurrent.futures import ThreadPoolExecutor

        from . import duties, telling

        bench = self.bench()
        bench.actor = Actor.ROUND  # whoever asked for the round: it never sets `wanted`
        names = bench.fleet.asked(None)
        survey.reconcile_owed(bench, names)
        verdicts = survey.verdicts_of(bench, names, confirm=True)
        early = self._tell_before(bench, verdicts)
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            actions = by_playbook.act_on_all(bench, verdicts, pool)
            if lacking := comparing.compare_further(bench):
                again = survey.verdicts_of(bench, lacking, confirm=True)
                verdicts = survey.merged(verdicts, again)
                actions = (*actions, *by_playbook.act_on_all(bench, again, pool))
        actions = (*polling.follow(bench, verdicts), *actions)
        first = verdicts
        verdicts, shared, told = self._tell(bench, verdicts, actions)
        told = (*early, *told)
        calls = waking.calls_for(bench, first, actions, shared)
        telling.deliver(bench, DELIVERING)
        duty = duties.do_what_is_due(bench)
        if duty.report:
            telling.deliver(bench, DELIVERING)
        if calls and aside:
            waking.hand_over(self.workspace.home, calls)
        else:
            self.wake(calls)
        unwritten = self.journal.sync(self.clock())
        self._commit(bench, (*actions, *duty.backups))
        problems = (*survey.problems_of(bench), *unwritten)
        return RoundReport(
            self.clock(), survey.unhealthy_first(verdicts), actions, told, duty.due, duty.missed, duty.backups,
            duty.report, problems, shared, calls,
        )  # fmt: skip

    def round_for(self, names: Sequence[str], seen: Callable[[Sequence[Verdict]], None] | None = None) -> RoundReport:
        """The round over some bots, without the schedule. Nobody waits for anybody.

        Certain faults are acted on at once, suspect ones after their second look. Names of bots that are not
        configured any more are left out. `seen` is told the first verdicts, before the actions that may take minutes
        are over.
        """
        from concurrent.futures import ThreadPoolExecutor

        bench = self.bench()
        bench.actor = Actor.ROUND
        known = {entry.name for entry in bench.fleet.entries}
        asked = [name for name in names if name in known]
        survey.reconcile_owed(bench, asked)
        verdicts = survey.verdicts_of(bench, asked, confirm=False, keep=False)
        with ThreadPoolExecutor(max(1, min(len(asked), AT_ONCE))) as pool:
            working = [one for one in verdicts if by_playbook.has_work(bench, one)]
            early = self._tell_before(bench, [one for one in working if by_playbook.is_told_now(one, bench.playbooks)])
            acts = [pool.submit(by_playbook.act_on, bench, one) for one in working]
            if seen is not None:
                seen(verdicts)
            bench.starts.wait_for([one.bot for one in working if one.instance is None], STARTS_FIRST)
            survey.remember(bench, {name: bench.seen[name] for name in asked}, verdicts)
            early = (*early, *self._tell_before(bench, verdicts))
            doubtful = [one for one in verdicts if not one.confirmed]
            if doubtful:
                time.sleep(max(survey.apart(bench.playbooks, one) for one in doubtful))
                again = survey.look_again(bench, doubtful)
                verdicts = survey.merged(verdicts, again)
                ill = [one for one in again if by_playbook.acts_alone(one, bench.playbooks)]
                acts += [pool.submit(by_playbook.act_on, bench, one) for one in ill]
            done = [report for one in acts if (report := one.result())]
            if lacking := comparing.compare_further(bench):
                again = survey.verdicts_of(bench, lacking, confirm=True)
                verdicts = survey.merged(verdicts, again)
                done += by_playbook.act_on_all(bench, again, pool)
        told = self._tell_and_look(bench, verdicts, (*polling.follow(bench, verdicts), *done), early)
        self._table = bench.newest_table()
        return told

    def prepare(self) -> None:
        """What the next action would wait for otherwise: for whoever looks all day long, after its turns."""
        from .host import know_kills

        with suppress(BotkeepError, OSError):
            if self._table is not None:
                self._table = self._table.to_keep()
            know_kills(self.clock())
            self.ledger.tidy()

    def _tell_and_look(
        self,
        bench: Bench,
        verdicts: list[Verdict],
        actions: tuple[ActionReport, ...],
        early: tuple[alerts.Alert, ...],
    ) -> RoundReport:
        """What bots share, whom to tell, and how the bots are after what was done. Sending is left to `deliver`."""
        after, shared, told = self._tell(bench, verdicts, actions)
        told = (*early, *told)
        calls = waking.calls_for(bench, verdicts, actions, shared)
        self._commit(bench, actions)
        problems = survey.problems_of(bench)
        return RoundReport(
            self.clock(), survey.unhealthy_first(after), actions, told, problems=problems, incidents=shared,
            calls=calls, planned={one.bot: at for one in after if (at := by_playbook.planned_at(bench, one.bot))},
        )  # fmt: skip

    def _commit(self, bench: Bench, actions: Sequence[ActionReport]) -> None:
        """The workspace's own history, after a round that did something."""
        done = [one.sentence for one in actions if one.result in (Result.DONE, Result.FAILED, Result.VERIFYING)]
        if not bench.fleet.commit or not done:
            return
        from .commits import commit

        if problem := commit(self.workspace, done):
            bench.troubles.append(problem)

    def wake(self, calls: Sequence[Call]) -> None:
        """Make the calls, one after the other; what fails goes to people. May take minutes."""
        if not calls:
            return
        from . import telling

        bench = self.bench()
        waking.make_calls(bench, calls)
        telling.deliver(bench, DELIVERING)

    def _tell(
        self, bench: Bench, verdicts: list[Verdict], actions: Sequence[ActionReport]
    ) -> tuple[list[Verdict], tuple[Incident, ...], tuple[alerts.Alert, ...]]:
        """The verdicts after what was done, what bots share, and what people have to be told: recorded and queued."""
        from . import telling

        shared, after = together.shared(bench, verdicts), verdicts
        if any(one.ok for one in actions):
            touched = list(dict.fromkeys(one.bot for one in actions))
            after = survey.merged(verdicts, survey.verdicts_of(bench, touched, confirm=False))
        return after, shared, telling.tell(bench, verdicts, shared, actions, after)

    def _tell_before(self, bench: Bench, verdicts: Sequence[Verdict]) -> tuple[alerts.Alert, ...]:
        """What is told at once, before something is done about it: a round that is killed while it mends a duplicate
        leaves a bot that is well, and nobody would ever hear that two had traded."""
        from . import telling

        acted_on = [one for one in verdicts if by_playbook.acts_unasked(one, bench.playbooks)]
        if not acted_on:
            return ()
        together_ill = {bot for one in together.shared(bench, verdicts) for bot in one.bots}
        return telling.tell(bench, [one for one in acted_on if one.bot not in together_ill], (), ())

    def deliver(self, seconds: float = DELIVERING) -> Delivery:
        """Send what people have not been sent yet, for at most about so many seconds; another sender goes first."""
        from . import telling

        return telling.deliver(self.bench(), seconds)

    def do_what_is_due(self) -> RoundReport:
        """The backups and the report that the schedule wants now; looks at no bot."""
        from . import duties

        bench = self.bench()
        bench.actor = Actor.ROUND
        duty = duties.do_what_is_due(bench)
        return RoundReport(
            self.clock(), (), due=duty.due, missed=duty.missed, backups=duty.backups, report=duty.report,
            problems=tuple(bench.troubles),
        )  # fmt: skip


Told = TypeVar("Told")


def _told(work: Callable[[Store], Told], store: Store) -> Told | StoreError:
    """One store that is away hides nothing of the other."""
    try:
        return work(store)
    except StoreError as error:
        return error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
