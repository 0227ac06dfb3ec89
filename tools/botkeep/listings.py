"""Documents that only the command prints, with `--json`: tables, rounds, several actions at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from .model import ActionReport, Observation, Verdict
from .results import (
    ActionDocument,
    BotVerdict,
    Check,
    Document,
    PlaybookDocument,
    SharedTrouble,
    action_document,
    check_document,
    incident_document,
    moment,
    plain,
    playbook_document,
    stamp,
    verdict_document,
)

if TYPE_CHECKING:
    from .doctor import DoctorLine
    from .playbooks import Playbooks
    from .rounds import CheckReport, RoundReport
    from .silences import Silence


class BotStatus(Document):
    """One bot at one look."""

    bot: str
    status: str
    faults: tuple[str, ...] = ()
    wanted: str
    pid: int | None = None
    up_since: str | None = None
    memory_bytes: int | None = None
    last_trade_at: str | None = None


class SilencedBot(Document):
    """One bot of which nobody is told for a while."""

    bot: str
    until: str
    reason: str
    entry: str


def silence_document(one: Silence) -> SilencedBot:
    """One silence for a program."""
    return SilencedBot(bot=one.bot, until=stamp(one.until), reason=plain(one.reason), entry=one.entry)


class FullCheck(Check):
    """A look at bots, all of them."""

    silenced: tuple[SilencedBot, ...] = ()


def full_check(report: CheckReport) -> FullCheck:
    """With the healthy ones, and of whom nobody is told."""
    silenced = tuple(silence_document(one) for one in report.silenced)
    return FullCheck(**dict(check_document(report, fold=False)), silenced=silenced)


class StatusTable(Document):
    """Every bot that was asked for, in their order. Doubtful faults are in it: nobody took a second look."""

    at: str
    bots: list[BotStatus]
    silenced: tuple[SilencedBot, ...] = ()


def status_document(
    seen: Sequence[tuple[Verdict, Observation]], now: datetime, silenced: Sequence[Silence] = ()
) -> StatusTable:
    """What one look gave, and of whom nobody is told."""
    bots = [_status(verdict, look) for verdict, look in seen]
    return StatusTable(at=stamp(now), bots=bots, silenced=tuple(silence_document(one) for one in silenced))


def _status(verdict: Verdict, look: Observation) -> BotStatus:
    instance = next(iter(look.runtime.instances), None)
    return BotStatus(
        bot=verdict.bot,
        status=verdict.status,
        faults=verdict.faults,
        wanted=verdict.wanted,
        pid=verdict.pid,
        up_since=moment(instance.started_at if instance else None),
        memory_bytes=instance.rss_bytes if instance else None,
        last_trade_at=moment(look.data.tempo.newest if look.data else None),
    )


class Finding(Document):
    """What the doctor found."""

    bot: str | None = None
    level: str
    what: str
    mend: str | None = None


class Findings(Document):
    """Bot by bot, then the workspace."""

    findings: list[Finding]


def doctor_document(found: Sequence[DoctorLine]) -> Findings:
    """All of them, those that are fine too."""
    return Findings(findings=[Finding(bot=one.bot, level=one.level, what=one.what, mend=one.mend) for one in found])


class Actions(Document):
    """Several actions, in the order of the bots."""

    actions: list[ActionDocument]


def actions_document(reports: Sequence[ActionReport]) -> Actions:
    """All that were asked for."""
    return Actions(actions=[action_document(one) for one in reports])


class Task(Document):
    """A scheduled task."""

    task: str
    scheduled: str


class MissedTimes(Document):
    """Scheduled times at which nothing ran."""

    task: str
    count: int
    first: str
    last: str
    more: bool


class Round(Document):
    """One round: what was done, and how the bots are now."""

    at: str
    actions: list[ActionDocument]
    backups: tuple[ActionDocument, ...] = ()
    alerts: tuple[str, ...] = ()
    incidents: tuple[SharedTrouble, ...] = ()
    bots: list[BotVerdict]
    due: tuple[Task, ...] = ()
    missed: tuple[MissedTimes, ...] = ()
    report: str | None = None
    mend: tuple[str, ...] = ()


def round_document(report: RoundReport) -> Round:
    """All of it."""
    return Round(
        at=stamp(report.at),
        actions=[action_document(one) for one in report.actions],
        backups=[action_document(one) for one in report.backups],
        alerts=[plain(one.sentence) for one in report.alerts],
        incidents=[incident_document(one) for one in report.incidents],
        bots=[verdict_document(one) for one in report.verdicts],
        due=[Task(task=one.task, scheduled=stamp(one.scheduled)) for one in report.due],
        missed=[
            MissedTimes(task=one.task, count=one.count, first=stamp(one.first), last=stamp(one.last), more=one.more)
            for one in report.missed
        ],
        report=report.report,
        mend=[plain(one) for one in report.problems],
    )


class PlaybookList(Document):
    """All playbooks in force, in the order of importance."""

    playbooks: list[PlaybookDocument]
    mend: tuple[str, ...] = ()


def playbooks_document(books: Playbooks) -> PlaybookList:
    """The twelve, and what is wrong with their files."""
    mend = [plain(one) for one in books.problems]
    return PlaybookList(playbooks=[playbook_document(one) for one in books], mend=mend)
