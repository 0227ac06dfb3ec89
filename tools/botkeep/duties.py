"""What the schedule asks for: backups and the morning report, once each, whoever comes first."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from .bench import Bench
from .durable import Lock
from .ledger import Kind, cursor_in, store_cursors
from .model import Action, ActionReport, BotkeepError, ConfigError, EngineError, LedgerError, UsageError, iso, parse_iso

if TYPE_CHECKING:  # most rounds have nothing to do here
    from .report import HealthReport
    from .schedule import Due, Missed

BACKUP, REPORT = "bot_backup", "bot_morning_report"
SCHEDULE = "schedule"
"""Cursor of no bot: when each task ran last."""


@dataclass(frozen=True)
class Duties:
    """What was due and came of it."""

    due: tuple[Due, ...] = ()
    missed: tuple[Missed, ...] = ()
    """Times of the schedule at which nothing ran."""
    backups: tuple[ActionReport, ...] = ()
    report: str = ""
    """The morning report, if it was due."""


def do_what_is_due(bench: Bench) -> Duties:
    """One caller at a time: a watcher and a round of cron's that look at the same second make one report."""
    with Lock(bench.fleet.workspace.state_dir / "schedule.lock") as lock:
        try:
            if not lock.acquire():
                return Duties()
        except EngineError as error:
            bench.troubles.append(str(error))
        found, missed = _due(bench)
        kept, text = _run(bench, [one.task for one in found], missed)
    return Duties(found, missed, tuple(kept), text)


def _due(bench: Bench) -> tuple[tuple[Due, ...], tuple[Missed, ...]]:
    """What the schedule wants now. A broken schedule is a problem of the round, not its end."""
    from .schedule import due, load_schedule, zone_of

    ran = bench.cursor("", SCHEDULE) or {}
    now, zone = bench.clock(), zone_of(bench.fleet)
    try:
        tasks = load_schedule(bench.fleet.workspace)
    except ConfigError as error:
        bench.troubles.append(str(error))
        return (), ()
    found, missed = due(tasks, {task: parse_iso(at) for task, at in ran.items()}, now, zone)
    return found, tuple(one for one in missed if one.task in ran)


def _run(bench: Bench, tasks: Sequence[str], missed: Sequence[Missed]) -> tuple[list[ActionReport], str]:
    """Backups and the report, where they are due; the health check is the round itself."""
    kept: list[ActionReport] = []
    text = ""
    for task in tasks:
        try:
            if task == BACKUP and any(bot.data_file for bot in bench.fleet.bots):
                kept = back_up(bench)
            if task == REPORT and bench.fleet.tells:
                text = _morning(bench, missed, told=True)
                continue
            if task == REPORT:
                text = _morning(bench, missed)
        except (BotkeepError, OSError) as error:
            bench.troubles.append(f"{task} failed: {error}")
            continue
        _ran(bench, task)
    return kept, text


def _ran(bench: Bench, task: str) -> None:
    """Written down after it ran: what failed is due again at the next round."""
    try:
        with bench.ledger.writing() as db:
            _mark(db, task, bench.clock())
    except LedgerError as error:
        bench.troubles.append(str(error))


def _mark(db: sqlite3.Connection, task: str, at: datetime) -> None:
    """That it ran, in somebody's transaction."""
    ran = cursor_in(db, "", SCHEDULE) or {}
    store_cursors(db, [("", SCHEDULE, {**ran, task: iso(at)})])


def _morning(bench: Bench, missed: Sequence[Missed], *, told: bool = False) -> str:
    """The report; `told`: queued for everybody of the fleet, and marked as run in the same transaction, so that a
    caller who is killed leaves either both or a report that is still due."""
    from .report_facts import report_since
    from .report_words import told as worded
    from .schedule import zone_of

    home, zone = bench.fleet.workspace.home, zone_of(bench.fleet)
    report = report_since(bench, bench.clock() - timedelta(hours=24), missed)
    text = worded(report, zone, "text", home=home).text
    if told:
        _post(bench, worded(report, zone, "plain", home=home).text.strip().splitlines(), _pictures(bench, report))
    return text


def _post(bench: Bench, lines: Sequence[str], pictures: Sequence[str]) -> None:
    """The report to everybody of the fleet. Raises LedgerError: then it is due again."""
    from . import alert_text, telling

    message = alert_text.plain_message("info", lines[0], lines, pictures)
    telling.post(bench, lines[0], message, also=lambda db, entry: _mark(db, REPORT, entry.at))


def _pictures(bench: Bench, report: HealthReport) -> list[str]:
    """Where they can be drawn: without the extra for charts the text says all."""
    from .report_pictures import kept_pictures
    from .schedule import zone_of

    workspace = bench.fleet.workspace
    try:
        return [str(one) for one in kept_pictures(report, workspace.state_dir / "pictures", zone_of(bench.fleet))]
    except BotkeepError:
        return []


def back_up(bench: Bench, names: Sequence[str] | None = None, *, accept: str = "") -> list[ActionReport]:
    """A verified snapshot of every bot's data file, then the second copies; one entry for all of them.

    `accept`: a person's reason to take the files as they are although rows that were backed up have changed.
    """
    from . import keeping

    bots = [bot for name in bench.fleet.asked(names) if (bot := bench.fleet.get(name).bot) and bot.data_file]
    if not bots:
        raise UsageError("No bot with a data_file was asked for: there is nothing to back up.")
    intent = bench.record(Kind.INTENT, Action.BACKUP, f"back up {', '.join(bot.name for bot in bots)}")
    kept = keeping.keep_all(bench, bots, accept=accept)
    proofs = [keeping.proof_data(one) for one in kept.proofs]
    data = {"proofs": proofs} if proofs else {}
    bench.record(Kind.OUTCOME, Action.BACKUP, kept.sentence, ref=intent.id, result=kept.result.value, data=data)
    return list(kept.reports)
