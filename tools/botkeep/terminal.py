"""Plain, aligned text for people: what the `botkeep` command prints. Text goes last in a line, where it may be long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, TextIO

from .model import ActionReport, Cause, Diagnosis, Observation, StoreError, Verdict
from .silences import sentences
from .untrusted import strip

if TYPE_CHECKING:
    from .doctor import DoctorLine
    from .incidents import Incident
    from .ledger import Entry
    from .playbooks import Playbook, Playbooks
    from .results import BotPnl, CurrencyPnl, Pnl, Restore
    from .retention import Pruned
    from .rounds import CheckReport, RoundReport
    from .stores.checking import Shelf, StoreReport

NONE = "-"
NEWEST = 5
"""Backups of a bot that a list names one by one."""
NO_BOTS = "No bots are configured yet: write them into config/bots.json."
_COLOURS = {
    "healthy": "32", "done": "32", "coalesced": "32", "faulty": "31", "failed": "31", "unknown": "33",
    "refused": "33", "asked": "33", "busy": "33", "verifying": "33", "stopped": "2", "ok": "32", "problem": "31",
}  # fmt: skip


def coloured(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Only on a terminal that is not told otherwise."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def paint(word: str, *, colour: bool) -> str:
    """The word in its colour; it keeps the width it was padded to."""
    code = _COLOURS.get(word.strip()) if colour else None
    return f"\033[{code}m{word}\033[0m" if code else word


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, colour: bool = False) -> Iterator[str]:
    """Left-aligned columns as wide as they need to be; the last one is free."""
    lines = [[*heads], *([strip(cell) or NONE for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        *cells, last = line
        padded = [paint(cell.ljust(width), colour=colour) for cell, width in zip(cells, widths, strict=False)]
        yield "  ".join([*padded, last]).rstrip()


def clock(at: datetime | None, zone: tzinfo) -> str:
    """To the minute, in people's zone, which is shown."""
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M %Z}" if at else NONE


def age(length: timedelta | None) -> str:
    """`40s`, `12m`, `3h 05m`, `9d 4h`."""
    if length is None:
        return NONE
    seconds = max(0, int(length.total_seconds()))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m"
    if seconds < 86400:
        return f"{seconds // 3600}h {seconds % 3600 // 60:02}m"
    return f"{seconds // 86400}d {seconds % 86400 // 3600}h"


def megabytes(size: int | None) -> str:
    """`45 MB`."""
    return NONE if size is None else f"{size / 1e6:.0f} MB"


def verdict_lines(verdicts: Sequence[Verdict], *, colour: bool) -> Iterator[str]:
    """One line per bot; below a faulty one its fault and what else was found."""
    if not verdicts:
        yield NO_BOTS
        return
    name_width = max(len(one.bot) for one in verdicts)
    indent = " " * (name_width + 11)
    for one in verdicts:
        yield f"{one.bot.ljust(name_width)}  {paint(one.status.ljust(7), colour=colour)}  {strip(one.sentence)}"
        if one.fault:
            yield f"{indent}{one.fault}: botkeep playbooks {one.fault}"
        for fact in one.evidence:
            if fact.text != one.sentence:
                yield f"{indent}also {fact.fault}: {strip(fact.text)}"
        for note in one.notes:
            yield f"{indent}note: {strip(note)}"


def action_line(report: ActionReport, *, colour: bool) -> str:
    """The result, then the one sentence."""
    return f"{paint(report.result.ljust(9), colour=colour)}  {strip(report.sentence)}"


def incident_lines(incidents: Iterable[Incident], zone: tzinfo) -> Iterator[str]:
    """What several bots have at once: above the bots, for it is handled once."""
    for one in incidents:
        lines = f"; {one.lines}" if one.lines else ""
        yield f"{strip(one.sentence)} ({one.klass}, since {clock(one.since, zone)}{lines})"
        if one.advice:
            yield f"  do: {strip(one.advice)}"


def check_lines(report: CheckReport, zone: tzinfo, *, colour: bool) -> Iterator[str]:
    """What bots share first, then each bot, of whom nobody is told, then what a person should mend."""
    yield from incident_lines(report.incidents, zone)
    yield from verdict_lines(report.verdicts, colour=colour)
    yield from (strip(one) for one in sentences(report.silenced, report.at, zone))
    yield from labelled("mend", report.problems)


def diagnosis_lines(found: Diagnosis, zone: tzinfo) -> Iterator[str]:
    """The cause and what to do first, then the rest, and the log's last lines, each behind a bar."""
    yield strip(found.sentence)
    yield from labelled("  do", [found.advice] if found.advice else [])
    yield from labelled("  incident", [found.incident] if found.incident else [])
    for one in found.host:
        yield f"  host: {one.id} ({'certain' if one.certain else 'suspect'}): {strip(one.text)}"
    for cause in sorted(found.causes, key=lambda one: one.signature != found.cause):
        yield f"  log: {_logged(cause, zone)}"
    yield from (f"  | {strip(line)}" for line in found.evidence if line not in found.lines)
    if found.exit_meaning:
        yield f"  exit: {strip(found.exit_meaning)}"
    yield from labelled("  changed", found.changed)
    yield from labelled("  note", found.notes)
    if found.lines:
        part = f", of {found.log_part}" if found.log_part else ""
        yield f"The last {len(found.lines)} of {found.lines_total} lines of its log{part}:"
        yield from (f"  | {strip(line)}" for line in found.lines)


def _logged(cause: Cause, zone: tzinfo) -> str:
    lines = "1 line" if cause.count == 1 else f"{cause.count} lines"
    since = f" since {clock(cause.first_at, zone)}" if cause.first_at and cause.count > 1 else ""
    when = f", the last at {clock(cause.last_at, zone)}" if cause.last_at else ""
    until = f", until {clock(cause.until, zone)}" if cause.until else ""
    run = "" if cause.this_run else ", in the run before"
    return f"{cause.signature} ({cause.klass}): {strip(cause.cause)} {lines}{since}{when}{until}{run}."


def labelled(label: str, texts: Iterable[str]) -> Iterator[str]:
    """Each text on a line of its own, behind the label."""
    return (f"{label}: {strip(text)}" for text in texts)


def status_lines(seen: Sequence[tuple[Verdict, Observation]], now: datetime, *, colour: bool) -> Iterator[str]:
    """One row per bot."""
    if not seen:
        yield NO_BOTS
        return
    heads = ("BOT", "STATUS", "WANTED", "PID", "UP", "MEMORY", "LAST TRADE", "FAULT")
    yield from table(heads, (_status_row(verdict, look, now) for verdict, look in seen), colour=colour)


def _status_row(verdict: Verdict, look: Observation, now: datetime) -> tuple[str, ...]:
    instance = next(iter(look.runtime.instances), None)
    started = instance.started_at if instance else None
    traded = look.data.tempo.newest if look.data else None
    return (
        verdict.bot,
        verdict.status,
        verdict.wanted,
        str(verdict.pid or ""),
        age(now - started if started else None),
        megabytes(instance.rss_bytes if instance else None),
        f"{age(now - traded)} ago" if traded else NONE,
        " ".join(verdict.faults),
    )


def doctor_lines(found: Sequence[DoctorLine], *, colour: bool) -> Iterator[str]:
    """What was found, and below it what mends it."""
    for one in found:
        yield f"{paint(one.level.ljust(7), colour=colour)}  {one.what}"
        if one.mend:
            yield f"         {one.mend}"


def round_lines(report: RoundReport, zone: tzinfo, *, colour: bool) -> Iterator[str]:
    """What was done first, then what bots share, how they are, and what was due."""
    yield from (action_line(one, colour=colour) for one in (*report.actions, *report.backups))
    yield from labelled("alert", (one.sentence for one in report.alerts))
    yield from incident_lines(report.incidents, zone)
    yield from verdict_lines(report.verdicts, colour=colour)
    yield from (f"due: {one.task}, for {clock(one.scheduled, zone)}" for one in report.due)
    yield from labelled("missed", (one.sentence(zone) for one in report.missed))
    yield from labelled("mend", report.problems)
    if report.report:
        yield report.report.rstrip("\n")


def journal_lines(entries: Sequence[Entry], zone: tzinfo) -> Iterator[str]:
    """One row per entry, the newest last."""
    heads = ("WHEN", "ENTRY", "BOT", "WHAT", "RESULT", "BY", "")
    rows = (
        (clock(one.at, zone), one.id, one.bot or "", _what(one), one.result, one.actor, one.sentence) for one in entries
    )
    yield from table(heads, rows) if entries else ("Nothing is recorded yet, or nothing that was asked for.",)


def _what(entry: Entry) -> str:
    return entry.action if entry.kind == "outcome" or entry.kind == entry.action else f"{entry.kind} {entry.action}"


def playbook_table(books: Playbooks) -> Iterator[str]:
    """One row per fault, in the order of importance, then what is wrong with the files."""
    from .results import short

    heads = ("FAULT", "SEVERITY", "MODE", "ALLOWS", "PER DAY", "BACK-OFF")
    rows = []
    for book in books:
        policy = book.policy
        waits = " ".join(short(wait) for wait in policy.backoff)
        allows = " ".join(policy.actions)
        rows.append((policy.fault, policy.severity, policy.mode, allows, str(policy.max_per_day), waits))
    yield from table(heads, rows)
    yield from labelled("mend", books.problems)


def pnl_lines(document: Pnl) -> Iterator[str]:
    """One row per bot and currency, open positions, notes."""
    heads = ("BOT", "REALISED", "CURRENCY", "%", "FEES", "TRADES", "WON", "DRAWDOWN", "BY")
    if not document.bots:
        yield "No bot that was asked for has a data_file, so there are no trades to count."
        return
    yield from table(heads, (row for one in document.bots for row in _pnl_rows(one)))
    for bot in document.bots:
        for held in bot.positions:
            now = f"; {held.unrealised} {held.currency} unrealised at {held.mark}" if held.unrealised else ""
            yield f"{bot.bot} holds {held.amount} {held.symbol} at {held.average_price} {held.currency} on average{now}"
        for one in bot.currencies:
            yield from _per_trade(bot.bot, one)
        for day in bot.days if len(bot.days) > 1 else ():
            yield f"{bot.bot} {day.day}: {day.realised} {day.currency} in {day.trades} trades"
        if bot.together:
            yield f"{bot.bot}, all together: {bot.together}"
        skipped = [f"{bot.skipped_rows} rows could not be read"] if bot.skipped_rows else []
        yield from labelled(bot.bot, [*skipped, *bot.notes])


def _per_trade(name: str, one: CurrencyPnl) -> Iterator[str]:
    if one.expectancy is not None:
        factor = one.profit_factor or "unknown (nothing lost)"
        yield f"{name}: {one.expectancy} {one.currency} a trade on average, profit factor {factor}"


def _pnl_rows(bot: BotPnl) -> Iterator[tuple[str, ...]]:
    for one in bot.currencies:
        won = f"{one.wins} of {one.trades}"
        percent = one.percent or NONE
        yield (bot.bot, one.realised, one.currency, percent, one.fees, str(one.trades), won, one.drawdown, bot.method)


def plan_lines(plan: Restore) -> Iterator[str]:
    """What a restore would do, and the command that does it."""
    yield strip(plan.sentence)
    yield from (f"  {strip(damage)}" for damage in plan.damage)
    yield "  rows: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in plan.rows.items())
    yield from labelled("  note", [*([plan.unprovable] if plan.unprovable else []), *plan.notes])
    yield from (f"  realised before: {amount} {currency}" for currency, amount in plan.pnl_before.items())
    yield from (f"  realised after: {amount} {currency}" for currency, amount in plan.pnl_after.items())
    yield f"To carry it out, before {plan.expires_at}: botkeep restore {plan.bot} --plan {plan.plan_id}"


def playbook_text(book: Playbook) -> Iterator[str]:
    """The file in force, as it is written, and what is wrong with the one that should be."""
    yield book.path.read_text(encoding="utf-8-sig").rstrip("\n")
    yield from labelled("mend", [book.problem] if book.problem else [])


# --- stores ------------------------------------------------------------------------------------------------------


def store_lines(reports: Sequence[StoreReport | StoreError]) -> Iterator[str]:
    """What a check of the stores found."""
    for report in reports:
        if isinstance(report, StoreError):
            yield strip(str(report))
            continue
        yield strip(report.sentence)
        for bot in report.bots:
            for key in (*bot.broken, *bot.missing, *bot.bad):
                yield f"  {strip(bot.bot)}: damaged: {strip(key)}"


def shelf_lines(stores: Sequence[tuple[str, Sequence[Shelf] | StoreError]]) -> Iterator[str]:
    """What the stores hold."""
    for name, shelves in stores:
        if isinstance(shelves, StoreError):
            yield strip(str(shelves))
            continue
        yield f"The {name} store:" if shelves else f"The {name} store is empty."
        for one in shelves:
            yield from _shelf(one)


def _shelf(one: Shelf) -> Iterator[str]:
    broken = f", {one.broken} manifests unreadable" if one.broken else ""
    yield f"  {strip(one.bot)}: {len(one.snapshots)} backups in {one.bytes / 1e6:.1f} MB{broken}"
    for snapshot in reversed(one.snapshots[-NEWEST:]):
        rows = f"{snapshot.rows} rows" if snapshot.rows is not None else f"{snapshot.size} bytes"
        accepted = f", taken as it was: {strip(snapshot.accepted)}" if snapshot.accepted else ""
        yield f"    {snapshot.at:%Y-%m-%d %H:%M:%SZ}  {rows}{accepted}"
    if len(one.snapshots) > NEWEST:
        oldest = one.snapshots[0].at
        yield f"    and {len(one.snapshots) - NEWEST} older ones, the oldest of {oldest:%Y-%m-%d %H:%M:%SZ}"


def pruned_lines(found: Sequence[tuple[str, str, Pruned]], *, dry_run: bool) -> Iterator[str]:
    """What retention removed, or would."""
    verb = "would be removed" if dry_run else "removed"
    for store, bot, one in found:
        yield (
            f"{store}, {strip(bot)}: {len(one.removed)} backups and {one.objects} objects {verb} "
            f"({one.freed / 1e6:.1f} MB); {len(one.kept)} backups kept"
        )
        yield from labelled("  would go" if dry_run else "  removed", one.removed)
        yield from labelled("  note", one.notes)
