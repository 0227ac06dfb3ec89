"""The straight line, written once: look, decide, record; act where the playbook says so.

Server, command and demo open a `Desk` and call it; nothing else drives the rooms below.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from . import (
    act,
    alerts,
    deaths,
    diagnose,
    heartbeat,
    host,
    planned,
    polling,
    probe,
    reconcile,
    settling,
    stillopen,
    together,
)
from . import history as past
from .bench import Bench
from .config import Bot, Fleet, load_fleet
from .durable import Lock
from .engine_restarts import since_last_look
from .fresh import Fresh, Rules
from .journal import Journal
from .judge import UNUSUAL_WITHIN_LIMIT, decide
from .ledger import Entry, Kind, Ledger, Seen
from .looking import confirmed_cursor
from .model import (
    FAULT_ORDER,
    Action,
    ActionReport,
    Actor,
    BotkeepError,
    ConfigError,
    DataVerdict,
    Diagnosis,
    EngineError,
    Fault,
    History,
    LedgerError,
    Result,
    RuntimeLook,
    Status,
    StoreError,
    UsageError,
    Verdict,
    iso,
    parse_iso,
    utc_now,
)
from .permits import times
from .playbooks import Playbook, Playbooks, load_playbooks
from .profiles.workspace_signatures import own_signatures
from .programs import profile_of
from .untrusted import clean
from .what_changed import files_of
from .workspace import Workspace

if TYPE_CHECKING:  # a check loads none of these: it has to be quick
    from concurrent.futures import ThreadPoolExecutor

    from .doctor import DoctorLine
    from .earnings import Reported, Wish
    from .incidents import Incident
    from .outbox import Delivery
    from .plans import RestorePlan
    from .pnl_figures import PnlFigures
    from .report import HealthReport
    from .retention import Pruned
    from .schedule import Due, Missed
    from .stores import Store
    from .stores.checking import Shelf, StoreReport
    from .wake import Call

SIDE_BY_SIDE = 4
"""Restarts in parallel: a thousand bots that died at once must not all start in the same second."""
AT_ONCE = 16
"""The same where somebody looks all day long: the first ones are started, and watched, for ten seconds each."""
UNSEEN_AFTER = 2.5
"""Check intervals without a look, after which the time between two looks counts as unknown."""
STATUS_ORDER = {Status.FAULTY: 0, Status.UNKNOWN: 1, Status.STOPPED: 2, Status.HEALTHY: 3}
SHORTEST_GAP = timedelta(minutes=12, seconds=30)
"""A five-minute cron may skip one look before the time between counts as unknown, whatever the bot's own interval."""
ALERTS_WAIT = 5.0
"""Seconds to wait for another round that is telling people right now."""
DELIVERING = 20.0
"""Seconds of a round for sending alerts, and again for the report; what is left waits for the next one."""
NEIGHBOURS = 50
"""Bots of a fleet that are all looked at to explain one: what several have at once is no fault of one."""
COMPARING_SECONDS = 30.0
IN_A_CALL = 40_000_000
"""Bytes of a data file whose restore an assistant's call can plan and carry out within its time."""
BACKUP_TAKES = timedelta(minutes=30)
MAX_NOTE = 1000


@dataclass(frozen=True)
class CheckReport:
    """One look at the fleet, unhealthy bots first. `problems`: what a person should mend that is no bot's fault."""

    at: datetime
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...] = ()
    incidents: tuple[Incident, ...] = ()

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
        return Bench(rules.fleet, rules.playbooks, self.ledger, self.journal, self.actor, self.clock, troubles=troubles)

    def check(self, names: Sequence[str] | None = None, *, confirm: bool = True) -> CheckReport:
        """Look, decide, record; `confirm`: suspect evidence takes its second look here. Raises UsageError."""
        bench = self.bench()
        asked = _asked(bench.fleet, names)
        self._reconcile(bench, asked)
        verdicts = self._verdicts(bench, asked, confirm=confirm)
        found = together.shared(bench, verdicts)
        return CheckReport(self.clock(), _unhealthy_first(verdicts), self._problems(bench), found)

    def diagnose(self, name: str) -> Diagnosis:
        """Why a bot is as it is, cause first. Raises UsageError for an unknown or unreadable bot."""
        bench = self.bench()
        bot = _good(bench.fleet, name)
        with suppress(BotkeepError):  # its keys are then known by value, and no line of its log shows one
            self._register_secrets(bot)
        names = _asked(bench.fleet, None) if len(bench.fleet.entries) <= NEIGHBOURS else [name]
        bench.seen.update(bench.look_at(names))
        verdicts = {one: self._decided(bench, one) for one in names}
        return self._explained(bench, bot, verdicts[name], together.shared(bench, verdicts.values()))

    def _decided(self, bench: Bench, name: str) -> Verdict:
        return decide(bench.seen[name].observation, bench.playbooks, bench.history(name), self.clock())

    def _explained(self, bench: Bench, bot: Bot, verdict: Verdict, found: Sequence[Incident]) -> Diagnosis:
        seen, now = bench.seen[bot.name].observation, self.clock()
        target = probe.targets(bench.fleet)[bot.name]
        return diagnose.explain(
            bot.name,
            seen,
            profile=profile_of(bot)[0],
            log=probe.log_file(bot, target) if verdict.pid else probe.last_words(bot, target),
            now=now,
            entries=self.ledger.entries(bot=bot.name, since=now - timedelta(days=2)),
            config_file=self.workspace.bots_file,
            found=verdict.sentence if verdict.fault else "",
            fault=verdict.fault,
            host=host.examine(seen.host, host.asked_about(bot, seen), now) if seen.host else None,
            files=files_of(bot, self.workspace.home),
            ring=bench.cursor("", together.HOST),
            incidents=found,
            prose=lambda fault: bench.playbooks.get(fault).prose,
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

    def pnl(self, names: Sequence[str] | None, wish: Wish) -> list[PnlFigures]:
        """P&L, exact, of each bot that has a data file; of one that cannot be read only the reason.

        Raises UsageError for an unknown bot or method, BotkeepError where a bot was named and cannot be read.
        """
        from .pnl_figures import PnlFigures

        bench = self.bench()
        asked = _asked(bench.fleet, names)
        self._ask_apis(bench, asked)
        found = []
        for name in asked:
            bot = _good(bench.fleet, name) if names else bench.fleet.get(name).bot
            if bot is None or bot.data_file is None:
                continue
            try:
                found.append(self._earned(bench, bot, wish))
            except UsageError:
                raise
            except BotkeepError as error:
                if names:
                    raise
                found.append(PnlFigures(name, wish.since, None, "unknown", (), notes=(str(error),)))
        return found

    def _ask_apis(self, bench: Bench, names: Sequence[str]) -> None:
        """What open positions are worth now: only the bots' own APIs know."""
        known = [name for name in names if (bot := bench.fleet.get(name).bot) and bot.api and name not in bench.seen]
        if known:
            bench.seen.update(bench.look_at(known))

    def _earned(self, bench: Bench, bot: Bot, wish: Wish) -> PnlFigures:
        from .earnings import earned, live_marks

        seen = bench.seen.get(bot.name)
        live = live_marks(seen.observation) if seen else None
        return earned(bot, wish, self.ledger, self.clock(), _zone_of(bench.fleet), live)

    def zone(self) -> tzinfo:
        """The people's: as the fleet names it, else the machine's."""
        return _zone_of(load_fleet(self.workspace))

    def report(self, since: datetime, missed: Sequence[Missed] = ()) -> HealthReport:
        """The morning report on [since, now): looks at every bot first. Raises LedgerError: then nothing is known."""
        from . import keeping, report

        bench = self.bench()
        names = _asked(bench.fleet, None)
        self._reconcile(bench, names)
        verdicts = _unhealthy_first(self._verdicts(bench, names, confirm=True))
        now = self.clock()
        earned = self._all_figures(bench, since)
        known = {name: one for name, one in earned.items() if not isinstance(one, str)}
        facts = report.Facts(
            verdicts=verdicts,
            histories=self._histories(bench, names),
            figures={name: one if isinstance(one, str) else one.window for name, one in earned.items()},
            months={name: one.month for name, one in known.items()},
            habits={name: one.habit for name, one in known.items()},
            safety=keeping.safety(bench, [bot.name for bot in bench.fleet.bots if bot.data_file]),
            gaps=_gaps(bench.fleet),
            missed=missed,
            problems=self._problems(bench),
            incidents=[one.sentence for one in together.shared(bench, verdicts)],
        )
        return report.build(bench.fleet, bench.playbooks, self.ledger, facts, since, now)

    def report_told(self, report: HealthReport, kind: str = "text") -> str:
        """A report for people, as `text`, `plain`, `markdown` or `html`; by the workspace's template if it has one."""
        from .report_words import told

        return told(report, self.zone(), kind, home=self.workspace.home).text

    def pictures(self, report: HealthReport) -> list[Path]:
        """A report's pictures as PNG, in the state folder for a week. Raises BotkeepError without matplotlib."""
        from .report_pictures import kept_pictures

        return kept_pictures(report, self.workspace.state_dir / "pictures", self.zone())

    def _all_figures(self, bench: Bench, since: datetime) -> dict[str, Reported | str]:
        """Each bot's figures, or why there are none: one unreadable file must not cost the others their report."""
        from .earnings import live_marks, reported

        self._ask_apis(bench, [bot.name for bot in bench.fleet.bots])
        zone = _zone_of(bench.fleet)
        found: dict[str, Reported | str] = {}
        for bot in bench.fleet.bots:
            if bot.data_file is not None:
                seen = bench.seen.get(bot.name)
                live = live_marks(seen.observation) if seen else None
                try:
                    found[bot.name] = reported(bot, since, self.ledger, self.clock(), zone, live)
                except BotkeepError as error:
                    found[bot.name] = str(error)
        return found

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
        return act.restart(bench, _good(bench.fleet, name), reason, override=override)

    def start(self, name: str, reason: str, *, override: str | None = None) -> ActionReport:
        """Start the bot if it does not run."""
        bench = self.bench()
        return act.start(bench, _good(bench.fleet, name), reason, override=override)

    def stop(self, name: str, reason: str) -> ActionReport:
        """End every copy, proven. Always allowed."""
        bench = self.bench()
        return act.stop(bench, _good(bench.fleet, name), reason)

    def poll(self, name: str, reason: str, *, less: bool) -> ActionReport:
        """A person's word: the bot asks its exchange less, or as usual again, as its `limits.polling` says."""
        if not reason.strip():
            raise UsageError("The reason is empty: write why, for the journal.")
        bench = self.bench()
        return (polling.reduce if less else polling.restore)(bench, _good(bench.fleet, name), reason)

    def plan_restore(self, name: str) -> RestorePlan:
        """What a restore would do, with an id. Raises BotkeepError if nothing is damaged or nothing could help."""
        from .planning import plan

        bench = self.bench()
        bot = _good(bench.fleet, name)
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
        return act.restore(bench, _good(bench.fleet, name), plan_id, reason)

    def back_up(self, names: Sequence[str] | None = None, *, accept: str = "") -> list[ActionReport]:
        """A verified snapshot of every bot's data file, then the second copies; one entry for all of them.

        `accept`: a person's reason to take the files as they are although rows that were backed up have changed.
        """
        from . import keeping

        bench = self.bench()
        bots = [bot for name in _asked(bench.fleet, names) if (bot := bench.fleet.get(name).bot) and bot.data_file]
        if not bots:
            raise UsageError("No bot with a data_file was asked for: there is nothing to back up.")
        intent = self._record(Kind.INTENT, Action.BACKUP, f"back up {', '.join(bot.name for bot in bots)}")
        kept = keeping.keep_all(bench, bots, accept=accept)
        proofs = [keeping.proof_data(one) for one in kept.proofs]
        data = {"proofs": proofs} if proofs else {}
        self._record(Kind.OUTCOME, Action.BACKUP, kept.sentence, ref=intent.id, result=kept.result.value, data=data)
        return list(kept.reports)

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
        early = self._tell_before(bench, verdicts)
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            actions = self._act_on_all(bench, verdicts, pool)
            if lacking := self._compare_further(bench):
                again = self._verdicts(bench, lacking, confirm=True)
                verdicts = _merged(verdicts, again)
                actions = (*actions, *self._act_on_all(bench, again, pool))
        actions = (*polling.follow(bench, verdicts), *actions)
        first = verdicts
        verdicts, shared, told = self._tell(bench, verdicts, actions)
        told = (*early, *told)
        calls = self._calls(bench, first, actions, shared)
        self._deliver(bench, DELIVERING)
        found, missed, kept, text = self._scheduled(bench)
        if text:
            self._deliver(bench, DELIVERING)
        self.wake(calls)
        unwritten = self.journal.sync(self.clock())
        self._commit(bench, (*actions, *kept))
        problems = (*self._problems(bench), *unwritten)
        return RoundReport(
            self.clock(), _unhealthy_first(verdicts), actions, told, found, missed, tuple(kept), text, problems, shared,
            calls,
        )  # fmt: skip

    def round_for(self, names: Sequence[str], seen: Callable[[Sequence[Verdict]], None] | None = None) -> RoundReport:
        """The round over some bots, without the schedule: certain faults are acted on at once, suspect ones after

        their second look, and nobody waits for anybody. Names of bots that are not configured any more are left out.
        `seen` is told the first verdicts, before the actions that may take minutes are over.
        """
        from concurrent.futures import ThreadPoolExecutor

        bench = self.bench()
        bench.actor = Actor.ROUND
        known = {entry.name for entry in bench.fleet.entries}
        asked = [name for name in names if name in known]
        self._reconcile(bench, asked)
        verdicts = self._verdicts(bench, asked, confirm=False, remember=False)
        with ThreadPoolExecutor(max(1, min(len(asked), AT_ONCE))) as pool:
            acts = [pool.submit(self._act_on, bench, one) for one in verdicts if self._has_work(bench, one)]
            self._remember(bench, {name: bench.seen[name] for name in asked}, verdicts)
            early = self._tell_before(bench, verdicts)
            if seen is not None:
                seen(verdicts)
            doubtful = [one for one in verdicts if not one.confirmed]
            if doubtful:
                time.sleep(max(_apart(bench.playbooks, one) for one in doubtful))
                again = self._look_again(bench, doubtful)
                verdicts = _merged(verdicts, again)
                acts += [pool.submit(self._act_on, bench, one) for one in again if _acts_alone(one, bench.playbooks)]
            done = [report for one in acts if (report := one.result())]
            if lacking := self._compare_further(bench):
                again = self._verdicts(bench, lacking, confirm=True)
                verdicts = _merged(verdicts, again)
                done += self._act_on_all(bench, again, pool)
        return self._tell_and_look(bench, verdicts, (*polling.follow(bench, verdicts), *done), early)

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
        calls = self._calls(bench, verdicts, actions, shared)
        self._commit(bench, actions)
        problems = self._problems(bench)
        return RoundReport(
            self.clock(), _unhealthy_first(after), actions, told, problems=problems, incidents=shared, calls=calls,
            planned={one.bot: at for one in after if (at := self._planned_at(bench, one.bot))},
        )  # fmt: skip

    def _calls(
        self, bench: Bench, verdicts: Sequence[Verdict], actions: Sequence[ActionReport], shared: Sequence[Incident]
    ) -> tuple[Call, ...]:
        """What an assistant is woken for, once for an incident. Most rounds load nothing for it.

        A bot that is silenced wakes nobody; what still stands at the end of its silence does then.
        """
        sick = {one.bot: bench.history(one.bot) for one in verdicts if one.status is Status.FAULTY}
        if not sick or not bench.fleet.wake:
            return ()
        from . import wake
        from .silences import active

        policies = {book.policy.fault: book.policy for book in bench.playbooks}
        try:
            silenced = {one.bot for one in active(self.ledger, self.clock())}
            heard = [one for one in verdicts if one.bot not in silenced]
            claimed = wake.claim(bench, wake.needed(heard, actions, shared, policies, sick))
        except LedgerError as error:
            bench.troubles.append(str(error))
            return ()
        known = {one.bot: one for one in verdicts}
        return tuple(self._with_packet(bench, one, known, shared) for one in claimed)

    def _commit(self, bench: Bench, actions: Sequence[ActionReport]) -> None:
        """The workspace's own history, after a round that did something."""
        done = [one.sentence for one in actions if one.result in (Result.DONE, Result.FAILED, Result.VERIFYING)]
        if not bench.fleet.commit or not done:
            return
        from .commits import commit

        if problem := commit(self.workspace, done):
            bench.troubles.append(problem)

    def _with_packet(
        self, bench: Bench, call: Call, verdicts: Mapping[str, Verdict], shared: Sequence[Incident]
    ) -> Call:
        from . import wake

        verdict = next((verdicts[bot] for bot in call.bots if bot in verdicts and verdicts[bot].fault), None)
        if call.refused or verdict is None or verdict.fault is None:
            return call
        found = self._explained(bench, _good(bench.fleet, verdict.bot), verdict, shared)
        since = self.clock() - timedelta(days=2)
        kinds = [Kind.OUTCOME, Kind.ALERT, Kind.NOTE, Kind.ASK]
        entries = self.ledger.entries(bot=verdict.bot, since=since, kinds=kinds, limit=12, newest_first=True)
        policy = bench.playbooks.get(call.fault or verdict.fault).policy
        return replace(call, packet=wake.packet(call, found, verdict, list(reversed(entries)), policy))

    def wake(self, calls: Sequence[Call]) -> None:
        """Make the calls, one after the other; what fails goes to people. May take minutes."""
        if not calls:
            return
        from . import wake

        bench = self.bench()
        for call in calls:
            try:
                if call.refused or not call.packet:
                    wake.refuse(bench, call)
                else:
                    wake.record(bench, call, wake.run(bench.fleet.wake, call.packet, self.workspace.home))
            except LedgerError as error:
                bench.troubles.append(str(error))
        self._deliver(bench, DELIVERING)

    def _tell(
        self, bench: Bench, verdicts: list[Verdict], actions: Sequence[ActionReport]
    ) -> tuple[list[Verdict], tuple[Incident, ...], tuple[alerts.Alert, ...]]:
        """The verdicts after what was done, what bots share, and what people have to be told: recorded and queued."""
        from . import telling

        shared, after = together.shared(bench, verdicts), verdicts
        if any(one.ok for one in actions):
            touched = list(dict.fromkeys(one.bot for one in actions))
            after = _merged(verdicts, self._verdicts(bench, touched, confirm=False))
        return after, shared, telling.tell(bench, verdicts, shared, actions, after)

    def _tell_before(self, bench: Bench, verdicts: Sequence[Verdict]) -> tuple[alerts.Alert, ...]:
        """What is told at once, before something is done about it: a round that is killed while it mends a duplicate
        leaves a bot that is well, and nobody would ever hear that two had traded."""
        from . import telling

        acted_on = [one for one in verdicts if _acts_alone(one, bench.playbooks) and not _asks(one, bench.playbooks)]
        if not acted_on:
            return ()
        together_ill = {bot for one in together.shared(bench, verdicts) for bot in one.bots}
        return telling.tell(bench, [one for one in acted_on if one.bot not in together_ill], (), ())

    def deliver(self, seconds: float = DELIVERING) -> Delivery:
        """Send what people have not been sent yet, for at most about so many seconds; another sender goes first."""
        from . import telling

        return telling.deliver(self.bench(), seconds)

    def _deliver(self, bench: Bench, seconds: float) -> None:
        from . import telling

        telling.deliver(bench, seconds)

    def do_what_is_due(self) -> RoundReport:
        """The backups and the report that the schedule wants now; looks at no bot."""
        bench = self.bench()
        found, missed, kept, text = self._scheduled(bench)
        return RoundReport(
            self.clock(), (), due=found, missed=missed, backups=tuple(kept), report=text, problems=tuple(bench.troubles)
        )

    def _scheduled(self, bench: Bench) -> tuple[tuple[Due, ...], tuple[Missed, ...], list[ActionReport], str]:
        """What is due, what was missed, and what came of it. One caller at a time: a watcher and a round of cron's
        that look at the same second make one report."""
        with Lock(self.workspace.state_dir / "schedule.lock") as lock:
            try:
                if not lock.acquire():
                    return (), (), [], ""
            except EngineError as error:
                bench.troubles.append(str(error))
            found, missed = self._due(bench)
            kept, text = self._run(bench, [one.task for one in found], missed)
        return found, missed, kept, text

    def _due(self, bench: Bench) -> tuple[tuple[Due, ...], tuple[Missed, ...]]:
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

    def _ran(self, bench: Bench, task: str) -> None:
        """Written down after it ran: what failed is due again at the next round."""
        try:
            ran = self.ledger.cursor("", "schedule") or {}
            self.ledger.set_cursor("", "schedule", {**ran, task: iso(self.clock())})
        except LedgerError as error:
            bench.troubles.append(str(error))

    def _run(self, bench: Bench, tasks: Sequence[str], missed: Sequence[Missed]) -> tuple[list[ActionReport], str]:
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
        report = self.report(self.clock() - timedelta(hours=24), missed)
        text = self.report_told(report)
        self._post(report)
        return text

    def _post(self, report: HealthReport) -> None:
        """The report to everybody of the fleet, with its pictures where they can be drawn."""
        bench = self.bench()
        if not bench.fleet.notify and not any(bot.notify for bot in bench.fleet.bots):
            return
        from . import alert_text, telling

        try:
            pictures = [str(path) for path in self.pictures(report)]
        except BotkeepError:
            pictures = []  # the extra for charts is not installed: the text says all
        lines = self.report_told(report, "plain").splitlines()
        telling.post(bench, lines[0], alert_text.plain_message("info", lines[0], lines, pictures))

    def _act_on_all(
        self, bench: Bench, verdicts: Sequence[Verdict], pool: ThreadPoolExecutor
    ) -> tuple[ActionReport, ...]:
        jobs = [one for one in verdicts if self._has_work(bench, one)]
        return tuple(report for report in pool.map(lambda one: self._act_on(bench, one), jobs) if report)

    def _has_work(self, bench: Bench, verdict: Verdict) -> bool:
        """Whether code has something to do for this bot: by playbook, or because it was planned."""
        return _acts_alone(verdict, bench.playbooks) or self._planned_now(bench, verdict) is not None

    def _planned_at(self, bench: Bench, name: str) -> datetime | None:
        """When the bot, as it was just seen, has its planned restart."""
        bot, seen = bench.fleet.get(name).bot, bench.seen.get(name)
        if bot is None or bot.restart_every is None or seen is None:
            return None
        from .schedule import people_zone

        zone = people_zone(bench.fleet.timezone, os.environ)
        return planned.due_at(bot, seen.observation, self.clock(), zone)

    def _planned_now(self, bench: Bench, verdict: Verdict) -> datetime | None:
        """Since when a planned restart is due, if it waits for nothing."""
        at = self._planned_at(bench, verdict.bot) if verdict.status is Status.HEALTHY else None
        if at is None or at > self.clock():
            return None
        from .silences import active

        try:
            silenced = {one.bot for one in active(self.ledger, self.clock())}
        except LedgerError:
            return None
        return None if planned.waits_for(verdict, silenced) else at

    def _restart_as_planned(self, bench: Bench, verdict: Verdict) -> ActionReport | None:
        bot, at = bench.fleet.get(verdict.bot).bot, self._planned_now(bench, verdict)
        if bot is None or at is None:
            return None
        try:
            report = act.restart(bench, bot, planned.reason(bot, at), pause=bot.pause)
        except (BotkeepError, OSError) as error:
            return ActionReport(bot.name, Action.RESTART, Result.FAILED, f"{bot.name}: {error}")
        return None if report.result is Result.REFUSED else report  # it waits: nobody has to do anything

    def _act_on(self, bench: Bench, verdict: Verdict) -> ActionReport | None:
        """One bot's action. A failure of one bot is that bot's report; the others go on."""
        bot, fault = bench.fleet.get(verdict.bot).bot, verdict.fault
        if verdict.status is Status.HEALTHY:
            return self._restart_as_planned(bench, verdict)
        if bot is None or fault is None:
            return None
        try:
            if _stops(verdict, bench.playbooks):
                return act.stop_for(bench, bot, fault, f"{fault.value}: {verdict.sentence}")
            if "restore_data" in bench.playbooks.get(fault).policy.actions:
                return self._restore_for(bench, bot, verdict)
            return act.restart(bench, bot, f"{fault.value}: {verdict.sentence}", only_for=fault)
        except (BotkeepError, OSError) as error:
            restores = "restore_data" in bench.playbooks.get(fault).policy.actions
            action = Action.RESTORE if restores else Action.RESTART
            return ActionReport(bot.name, action, Result.FAILED, f"{bot.name}: {error}", fault=fault)

    def _restore_for(self, bench: Bench, bot: Bot, verdict: Verdict) -> ActionReport:
        from .planning import plan

        if refusal := act.refusal_of_restore(bench, bot, verdict):
            return self._done_meanwhile(bench, bot) or refusal
        known = bench.cursor(bot.name, "compared")
        try:
            exchange = not deaths.waits(known, self.clock())
            made = plan(bot, self.workspace, bench.stores.all, self.clock(), exchange=exchange)
            report = act.restore(bench, bot, made.id, verdict.sentence)
            why = report.sentence if report.result is Result.FAILED else ""
        except BotkeepError as error:
            if done := self._done_meanwhile(bench, bot):
                return done
            report = ActionReport(bot.name, Action.RESTORE, Result.FAILED, f"{bot.name}: {error}", fault=verdict.fault)
            why = str(error)
        return self._go_on_without(bench, bot, verdict, report, why) if why and _only_lacks_trades(verdict) else report

    def _done_meanwhile(self, bench: Bench, bot: Bot) -> ActionReport | None:
        """Where a watcher and a round of cron's see the same damage, one of them comes first: no failure of the other.

        None: the damage is still there.
        """
        bench.forget(bot.name)
        (now,) = self._verdicts(bench, [bot.name], confirm=False, remember=False)
        if now.status is Status.UNKNOWN or Fault.DATA_CORRUPT in now.faults:
            return None
        text = f"{bot.name}'s data file is sound again: somebody else restored it meanwhile; nothing was done."
        return ActionReport(bot.name, Action.RESTORE, Result.COALESCED, text, fault=Fault.DATA_CORRUPT)

    def _go_on_without(self, bench: Bench, bot: Bot, verdict: Verdict, report: ActionReport, why: str) -> ActionReport:
        """Trades that cannot be added are told to people; the bot is not kept down for them."""
        known = self.ledger.cursor(bot.name, "compared")
        if known:
            self.ledger.set_cursor(bot.name, "compared", deaths.given_up(known, why))
        if Fault.BOT_NOT_RUNNING in verdict.faults and not report.data.get("started"):
            return act.restart(bench, bot, f"it is down; {why}", only_for=Fault.BOT_NOT_RUNNING)
        return report

    # ------------------------------------------------------------------------------------------------ inside

    def _reconcile(self, bench: Bench, names: Iterable[str]) -> None:
        """What killed callers owe, before anything is judged: an unrecorded stop would look like a death."""
        try:
            owing = {entry.bot for entry in self.ledger.open_intents()}
        except LedgerError as error:
            bench.troubles.append(str(error))
            return
        if None in owing:
            self._close_lost_backups()
        for name in names:
            settling.prepare_stop_mark(self.workspace, name)
            bot = bench.fleet.get(name).bot
            if bot is not None and (name in owing or settling.stopped_without_ledger(self.workspace, name)):
                self._reconcile_one(bench, bot)

    def _compare_further(self, bench: Bench) -> list[str]:
        """What a look leaves to the round: large files, and exchanges. After the restarts, for half a minute at most.

        Gives the bots that turn out to lack trades.
        """
        began, lacking = time.monotonic(), []
        for bot in bench.fleet.bots:
            seen = bench.seen.get(bot.name)
            if seen is None or time.monotonic() - began > COMPARING_SECONDS:
                continue
            try:
                if self._compare_one(bench, bot, seen):
                    lacking.append(bot.name)
            except (BotkeepError, OSError) as error:
                bench.troubles.append(f"{bot.name}: {error}")
        return lacking

    def _compare_one(self, bench: Bench, bot: Bot, seen: probe.Seen) -> bool:
        data, runtime = seen.observation.data, seen.observation.runtime
        if data is None or data.verdict not in (DataVerdict.OK, DataVerdict.REPLACED) or not reconcile.has_source(bot):
            return False
        death, known = deaths.death_of(runtime, data, seen.observation.marks), bench.cursor(bot.name, "compared")
        if death is None:
            return False
        done = deaths.is_compared(death, data, known)
        exchange = deaths.wants_more(bot, known if done else None, self.clock())
        if done and not exchange:
            return False
        found = deaths.compare(bot, bench.fleet, death, data.identity, self.clock(), exchange=exchange)
        if found is None:
            return False
        self.ledger.set_cursor(bot.name, "compared", found)
        return any(one["certain"] for one in found["findings"])

    def _close_lost_backups(self) -> None:
        """A backup of several bots belongs to no bot's lock: what was begun long ago is over."""
        for intent in self.ledger.open_intents():
            if intent.bot is None and self.clock() - intent.at > BACKUP_TAKES:
                text = "A backup was interrupted; what it had stored by then is whole."
                self._record(Kind.OUTCOME, Action.BACKUP, text, ref=intent.id, result=Result.FAILED.value)

    def _reconcile_one(self, bench: Bench, bot: Bot) -> None:
        try:
            settling.reconcile(bench, bot)
        except (BotkeepError, OSError) as error:
            bench.troubles.append(f"{bot.name}: {error}")

    def _verdicts(self, bench: Bench, names: Sequence[str], *, confirm: bool, remember: bool = True) -> list[Verdict]:
        seen = bench.look_at(names)
        self._count_engines(bench, seen)
        histories = self._histories(bench, names)
        verdicts = {
            name: decide(seen[name].observation, bench.playbooks, histories[name], self.clock()) for name in names
        }
        bench.seen.update(seen)
        doubtful = [one for one in verdicts.values() if not one.confirmed]
        if doubtful and confirm:
            time.sleep(max(_apart(bench.playbooks, one) for one in doubtful))
            verdicts |= {one.bot: one for one in self._look_again(bench, doubtful, remember=False)}
        if remember:
            self._remember(bench, {name: bench.seen[name] for name in names}, list(verdicts.values()))
        return list(verdicts.values())

    def _look_again(self, bench: Bench, doubtful: Sequence[Verdict], *, remember: bool = True) -> list[Verdict]:
        """The second look at what was only suspected at the first."""
        again = bench.look_at([one.bot for one in doubtful])
        bench.seen.update(again)
        histories = self._histories(bench, list(again))  # somebody may have stopped one while we waited
        found = [
            decide(again[one.bot].observation, bench.playbooks, histories[one.bot], self.clock(), one.evidence)
            for one in doubtful
        ]
        if remember:
            self._remember(bench, again, found)
        return found

    def _count_engines(self, bench: Bench, seen: Mapping[str, probe.Seen]) -> None:
        """Restarts that engines made by themselves, before anything is judged: they count like ours."""
        for name, look in seen.items():
            runtime = look.observation.runtime
            if runtime.restarts is None and not runtime.starts and not any(one.kept_by for one in runtime.instances):
                continue
            count, following = since_last_look(bench.cursor(name, "engine"), runtime, self.clock())
            look.cursors["engine"] = following
            if count:
                self._note_engine(bench, name, runtime)

    def _note_engine(self, bench: Bench, name: str, runtime: RuntimeLook) -> None:
        """Counted again with the lock held: two looks at the same time must not count one restart twice."""
        with Lock(self.workspace.state_dir / "engines.lock") as lock:
            with suppress(EngineError):
                lock.acquire(wait=ALERTS_WAIT)
            try:
                count, following = since_last_look(self.ledger.cursor(name, "engine"), runtime, self.clock())
                if not count:
                    return
                engine = next((one.kept_by for one in runtime.instances if one.kept_by), "its engine")
                self.journal.record(
                    Kind.OUTCOME, at=self.clock(), bot=name, action=Action.RESTART.value, actor=Actor.ENGINE.value,
                    sentence=f"{name} was restarted {times(count)} by {engine} itself.", result=Result.DONE.value,
                    data={"times": count},
                )  # fmt: skip
                self.ledger.set_cursor(name, "engine", following)
            except LedgerError as error:
                bench.troubles.append(str(error))

    def _histories(self, bench: Bench, names: Sequence[str]) -> dict[str, History]:
        return {name: bench.history(name) for name in names}

    def _remember(self, bench: Bench, seen: dict[str, probe.Seen], verdicts: Sequence[Verdict]) -> None:
        """Cursors and spans, in one transaction each. A full disk costs the memory of this look, not the look."""
        gaps = _gaps(bench.fleet)
        looks = [
            Seen(one.bot, one.status, one.fault, one.up, one.instance, one.at, gaps.get(one.bot, SHORTEST_GAP))
            for one in verdicts
        ]
        cursors = [(name, kind, value) for name, look in seen.items() for kind, value in look.cursors.items()]
        cursors += [(one.bot, "confirmed", confirmed_cursor(one)) for one in verdicts if one.fault and one.confirmed]
        try:
            self.ledger.see_all(looks)
            self.ledger.set_cursors([*cursors, *together.remembered(bench)])
        except LedgerError as error:
            bench.troubles.append(str(error))

    def _problems(self, bench: Bench) -> tuple[str, ...]:
        watcher = heartbeat.problem(self.workspace, self.ledger, self.clock())
        own = own_signatures(self.workspace).problems
        return (*bench.playbooks.problems, *own, *bench.troubles, *([watcher] if watcher else []), *_untold(bench))


def _untold(bench: Bench) -> Sequence[str]:
    """What keeps people from being told. Where nobody is to be told, nothing of that is loaded."""
    if not bench.fleet.notify and not any(bot.notify for bot in bench.fleet.bots):
        return ()
    from . import telling

    return telling.untold(bench)


def _zone_of(fleet: Fleet) -> tzinfo:
    from .schedule import people_zone

    return people_zone(fleet.timezone, os.environ)


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


def _only_lacks_trades(verdict: Verdict) -> bool:
    """Whether its file is sound, and only lacks trades that log or exchange have."""
    return _data_rules(verdict) == {"R1"}


def _data_rules(verdict: Verdict) -> set[str]:
    return {one.rule for one in verdict.evidence if one.fault is Fault.DATA_CORRUPT}


def _stops(verdict: Verdict, playbooks: Playbooks) -> bool:
    """Whether its playbook lets code stop the bot, which runs; not for what the person's own limit allows."""
    policy = playbooks.get(verdict.fault).policy if verdict.fault else None
    if policy is None or policy.mode != "auto" or "stop_bot" not in policy.actions or verdict.instance is None:
        return False
    return any(one.fault is verdict.fault and one.rule != UNUSUAL_WITHIN_LIMIT for one in verdict.evidence)


def _asks(verdict: Verdict, playbooks: Playbooks) -> bool:
    """Whether a person is asked: what people are told then names what they can say yes to."""
    return verdict.fault is not None and playbooks.get(verdict.fault).policy.mode == "ask"


def _acts_alone(verdict: Verdict, playbooks: Playbooks) -> bool:
    """Whether the first fault is confirmed and its playbook lets code, or asks a person to let it, do something."""
    if verdict.status is not Status.FAULTY or not verdict.confirmed or verdict.fault is None:
        return False
    if verdict.fault is Fault.DATA_CORRUPT and _data_rules(verdict) == {stillopen.RULE}:
        return False  # a restore has done what it can: only a person can close these trades, or start it with them
    if _stops(verdict, playbooks):
        return True
    return not {"restart_bot", "restore_data"}.isdisjoint(playbooks.get(verdict.fault).policy.actions)
