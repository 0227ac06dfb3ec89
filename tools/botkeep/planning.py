"""Planning a restore: what is damaged or missing, what would come of it. Changes no data file.

The new file is tried out in a scratch folder, so that rows and P&L in the plan are counted and not guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from . import backups, plans, reconcile
from .backups import Snapshot, Store
from .building import Built, add, bad_rows, fetched, money_text, require_sound, scratch_of
from .config import Bot
from .datafile import DataFile
from .held import Held, hold
from .model import BotkeepError, DataVerdict, Finding, Inspection, StoreError
from .plans import USED, RestorePlan
from .reconcile import Missing
from .stillopen import text_of
from .workspace import Workspace


def plan(
    bot: Bot, workspace: Workspace, stores: Sequence[Store], now: datetime, *, exchange: bool = True
) -> RestorePlan:
    """Find out what a restore would do, and keep it under an id for ten minutes. Changes no data file.

    `stores`: the newest good snapshot counts, the first store's before the next. `exchange`: ask it for lost trades if
    one is configured.
    Raises BotkeepError: nothing is damaged or missing; the file cannot be read for a reason that no restore mends;
    there is neither a backup nor a row to salvage.
    """
    file = DataFile.of(bot)
    evidence = file.evidence()
    seen = file.look(now)
    store, good, note = _newest(stores, bot.name, seen)
    with scratch_of(stores[0]) as scratch, hold(file.path) as held:
        base = _base(file, workspace, seen, (good, fetched(store, good, scratch)), held, scratch)
        built = _try_out(base, workspace, good, scratch / "new", now, exchange=exchange)
        findings = base.findings or _missing_trades(base.file, seen, built)
        if good is None and not built.counts.rows:
            raise BotkeepError(
                f"{file.path} cannot be restored: there is no verified backup of {bot.name}, and no sound row is left "
                f"in it. `botkeep diagnose {bot.name}` shows what its log says."
            )
        require_sound(file, scratch / "new", built.counts.rows, now)
        made = _made(base, built, findings, good if base.backup else None, store, now)
    made = replace(made, evidence=evidence, notes=(*note, *made.notes))
    made = replace(made, sentence=_plan_sentence(made))
    made = replace(made, id=plans.id_of(made))
    plans.keep(workspace, made, reconcile.marked(built.missing))
    return made


@dataclass(frozen=True)
class _Base:
    """What a restore builds on, and why."""

    file: DataFile
    """Its content read from where it is: the file, or what a process held of a deleted one."""
    copy: Path | None
    """The backup's content, or the current file's; None: only what is sound in the damaged file."""
    findings: tuple[Finding, ...]
    """Empty: the file is sound; it may lack trades."""
    backup: bool = False
    """Whether `copy` is the backup's."""
    merges: bool = False
    rescued: Path | None = None
    from_held: bool = False
    """The content is only in a deleted file that a process has open."""


def _base(
    file: DataFile,
    workspace: Workspace,
    seen: Inspection,
    backup: tuple[Snapshot | None, Path | None],
    held: Held | None,
    scratch: Path,
) -> _Base:
    """The backup, but for a file that began anew since; and a deleted file's content, if one is held or was rescued."""
    good, copy = backup
    if good is not None and backups.rotated(file.path, good) is not None:
        copy = None
    rescued = _rescued(file, workspace, good) if held is None else None
    source = held.copy_to(scratch) if held is not None else rescued
    if source is not None and seen.verdict in (DataVerdict.OK, DataVerdict.REPLACED):
        current, both = _current(file, scratch), file.read_from(source)
        if findings := _only_held(both, current):
            return _Base(both, current, findings, merges=True, rescued=rescued, from_held=held is not None)
        source = rescued = None
    file = file.read_from(source) if source is not None else file
    findings = _changed(file, seen, good) or _damages(file, seen, good)
    from_held = source is not None and held is not None
    return _Base(file, copy, findings, backup=copy is not None, rescued=rescued, from_held=from_held)


def _made(
    base: _Base, built: Built, findings: tuple[Finding, ...], good: Snapshot | None, store: Store | None, now: datetime
) -> RestorePlan:
    """The plan without what binds it: evidence, id and sentence."""
    return RestorePlan(
        id="",
        bot=base.file.bot.name,
        path=base.file.path,
        made_at=now,
        expires_at=now + plans.LASTS,
        evidence={},
        findings=findings,
        snapshot=good.id if good else None,
        snapshot_at=good.at if good else None,
        store=store.name if store and good else "",
        snapshots_skipped=good.skipped if good else 0,
        rows_good=built.rebuilt.damaged_good,
        rows_bad=bad_rows(built.rebuilt),
        counts=built.counts,
        replay_from=built.missing.sources,
        unprovable=built.missing.unprovable,
        rescued=str(base.rescued or ""),
        from_held=base.from_held,
        merges=base.merges,
        trades_known=_trades(built) - built.added - built.closed,
        only_adds=findings[0].rule == "R1",
        pnl_now=base.file.money(base.file.table()),
        pnl_expected=base.file.money(built.table),
        sha256_expected=built.sha256,
        notes=(*built.missing.notes, *built.left_out, *(one.text for one in built.missing.quarantined)),
        sentence="",
        still_open=built.still_open,
    )


def _newest(
    stores: Sequence[Store], bot: str, seen: Inspection
) -> tuple[Store | None, Snapshot | None, tuple[str, ...]]:
    """The newest good snapshot. A file that is sound can be completed without one, so a store may be away."""
    try:
        return (*(backups.newest_of(stores, bot) or (None, None)), ())
    except StoreError as error:
        if seen.verdict not in (DataVerdict.OK, DataVerdict.REPLACED):
            raise
        return None, None, (str(error),)


def _rescued(file: DataFile, workspace: Workspace, good: Snapshot | None) -> Path | None:
    """What a deleted file held, copied when the bot was stopped and not put back since.

    Not from before the newest backup: with that, the book as it is was verified, or a person accepted it.
    """
    since = good.at.timestamp() if good else 0.0
    folders = workspace.quarantine_dir.joinpath(file.bot.name).glob("rescued-*")
    late = [one for one in folders if one.stat().st_mtime >= since]
    waiting = [one for one in late if not (one / USED).exists() and (one / file.path.name).exists()]
    newest = max(waiting, key=lambda one: one.stat().st_mtime_ns, default=None)
    return newest / file.path.name if newest else None


def _current(file: DataFile, scratch: Path) -> Path:
    """The file of the name as it is: another one than the bot wrote into."""
    file.kind.snapshot(file.path, scratch / "current", options=file.options)
    return scratch / "current"


def _only_held(file: DataFile, current: Path | None) -> tuple[Finding, ...]:
    """Whether the deleted file has rows that the file of its name has not."""
    if current is None:
        return ()
    try:
        more = file.kind.rebuild(current, file.source, current.with_name("merged"), options=file.options).salvaged
    except BotkeepError:
        return ()
    text = f"The bot wrote into a file that was deleted under it: {more} rows are not in the file of its name."
    return (Finding("C14", text, True),) if more else ()


def _trades(built: Built) -> int:
    return len(built.table.fills) + len(built.table.closed) if built.table else 0


def _try_out(
    base: _Base, workspace: Workspace, good: Snapshot | None, target: Path, now: datetime, *, exchange: bool
) -> Built:
    """Build the new file as it would be: the backup or the sound file itself, and what other sources know."""
    file = base.file
    rebuilt = file.rebuild(base.copy, target) if base.findings else file.copy(target, now)
    table = file.table(target)
    if table is None:
        return add(file, target, rebuilt, Missing(), None)
    since = reconcile.lost_since(file.path, table, good.last_at if good is not None else None)
    known = file.known_trades(table)
    missing = reconcile.gather(file.bot, workspace, known, since=since, now=now, exchange=exchange)
    return add(file, target, rebuilt, missing, table)


def _damages(file: DataFile, seen: Inspection, good: Snapshot | None) -> tuple[Finding, ...]:
    """What speaks for a restore, as far as the file itself shows. Raises BotkeepError for what none mends."""
    if seen.verdict is DataVerdict.UNREADABLE:
        why = seen.findings[0].text if seen.findings else "It cannot be read."
        raise BotkeepError(f"{file.path} cannot be restored. {why} A restore does not mend that.")
    if seen.verdict in (DataVerdict.CORRUPT, DataVerdict.SUSPECT):
        return seen.findings
    if file.source != file.path:
        return (Finding("C14", "The file was deleted; a process still holds it open.", True),)
    if good is not None and (lost := _lost(file, seen, good)):
        return (lost,)
    if seen.verdict is DataVerdict.MISSING:
        raise BotkeepError(
            f"{file.path} is missing, and there is no verified backup of {file.bot.name}: nothing can be restored."
        )
    return ()


def _lost(file: DataFile, seen: Inspection, good: Snapshot) -> Finding | None:
    """Rows that the backup has and the file has not, and no rotated file beside it either."""
    if not good.rows:
        return None
    when = f"the backup of {good.at:%Y-%m-%d %H:%M:%SZ} has {good.rows} rows"
    if seen.verdict is DataVerdict.MISSING:
        return Finding("C14", f"The file is gone; {when}.", True)
    if seen.rows is None or seen.rows >= good.rows or backups.rotated(file.path, good):
        return None
    return Finding("C10", f"It has {seen.rows} rows; {when}.", True, offset=seen.size)


def _changed(file: DataFile, seen: Inspection, good: Snapshot | None) -> tuple[Finding, ...]:
    """Rows that the backup has and that are others now, or a header that is gone, in a file that seems sound."""
    by_itself = seen.verdict in (DataVerdict.OK, DataVerdict.REPLACED, DataVerdict.UNREADABLE)
    if good is None or not by_itself or file.source != file.path or backups.rotated(file.path, good):
        return ()
    try:
        found = file.kind.compare(file.path, good.mark, options=file.options)
    except BotkeepError:
        return ()  # what is in the way of reading it is said by the look
    readable = seen.verdict is not DataVerdict.UNREADABLE
    return tuple(one for one in found if readable or one.rule == "C3")


def _missing_trades(file: DataFile, seen: Inspection, built: Built) -> tuple[Finding, ...]:
    """The one reason left. Raises BotkeepError if there is none, or the missing trades cannot be added."""
    found = reconcile.finding_of(built.missing)
    if found is None:
        about = f" {built.missing.unprovable}" if built.missing.unprovable else ""
        raise BotkeepError(
            f"There is nothing to restore: {file.path} is not damaged ({seen.rows} rows, all sound).{about}"
        )
    if not built.added and not built.closed:
        why = "; ".join(built.left_out) or "its format cannot take them"
        raise BotkeepError(f"{found.text} They cannot be added to {file.path}: {why}. A person has to look.")
    return (found,)


def _plan_sentence(made: RestorePlan) -> str:
    found = made.findings[0]
    row = f", row {found.row}" if found.row else ""
    if made.only_adds:
        head = f"{made.bot}'s data file is sound but not complete: {found.text} A restore would add them"
    else:
        head = f"{made.bot}'s data file is damaged ({found.rule}{row}: {found.text}) A restore from {_source(made)}"
        head += " would give"
    rows = f"{made.rows_expected} rows, where {made.rows_good} can be read now: {made.counts.text}."
    joined = f"{head}: {rows}" if made.only_adds else f"{head} {rows}"
    replayed = f" Replayed: {', '.join(made.replay_from)}." if made.counts.replayed or made.counts.closed else ""
    unprovable = f" {made.unprovable}" if made.unprovable else ""
    money = money_text(made.pnl_now, made.pnl_expected)
    return f"{joined}{replayed}{unprovable}{money}{text_of(made.still_open, made.bot, planned=True)}"


def _source(made: RestorePlan) -> str:
    if made.snapshot_at is None:
        return "what can be salvaged from it (there is no backup)"
    age = _age(made.made_at - made.snapshot_at)
    passed = f", {made.snapshots_skipped} newer ones being damaged" if made.snapshots_skipped else ""
    where = "" if made.store in ("", "local") else f" in the {made.store} store"
    return f"the backup of {made.snapshot_at:%Y-%m-%d %H:%M:%SZ}{where} ({age} old{passed})"


def _age(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"
