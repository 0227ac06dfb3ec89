"""Restoring a data file: a plan bound to what was seen, and its application to the file. Who stops and starts the bot
is not here.

1. Plan: what is damaged, which verified snapshot, what the damaged file adds to it; tried out in a scratch folder, so
   that rows and P&L in the plan are counted and not guessed. The plan is kept for ten minutes, for one use.
2. Apply: copy the damaged file to quarantine, build the new one beside it, check it, write down that it is about to
   take the old one's place, replace, fsync the folder, write down that it has.

Killed at any point, the file is the old one or the new one. Asked again with the same plan, an old one is replaced and
a new one recognised.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain, count
from pathlib import Path
from typing import Any

from . import backups
from .backups import LocalStore, Snapshot, Store
from .config import Bot
from .durable import fsync_dir, read_json, write_atomic
from .formats import FORMATS, kind_of
from .formats.base import Format, FormatOptions, Rebuilt, inspect_whole, more_to_read, open_writers
from .formats.files import CAP, UnreadableError, regular
from .model import BotkeepError, DataVerdict, Finding, Inspection, iso, parse_iso
from .pnl import figures, rounded
from .workspace import Workspace

LASTS = timedelta(minutes=10)
KEPT = timedelta(days=7)
"""How long old plans are kept for people to read."""
_ID = re.compile(r"[0-9a-f]{12}")

Money = tuple[tuple[str, Decimal], ...]
"""(currency, realised over the whole file)."""


@dataclass(frozen=True)
class FileEvidence:
    """The damaged file as it was seen. All None: there was no file."""

    dev: int | None = None
    ino: int | None = None
    size: int | None = None
    mtime_ns: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would do. `id` is bound to the evidence, the snapshot and the bot."""

    id: str
    bot: str
    path: Path
    made_at: datetime
    expires_at: datetime
    evidence: FileEvidence
    findings: tuple[Finding, ...]
    snapshot: str | None
    """None: there is no backup, only what can be salvaged from the damaged file."""
    snapshot_at: datetime | None
    snapshots_skipped: int
    """Newer snapshots that were damaged themselves."""
    rows_good: int
    rows_bad: int
    rows_expected: int
    kept: int
    salvaged: int
    dropped: int
    pnl_now: Money | None
    """Of the rows that can be read; None where none can."""
    pnl_expected: Money | None
    sha256_expected: str
    """Of the file as it would be now; rows that come in until the plan is carried out change it."""
    sentence: str


@dataclass(frozen=True)
class RestoreProof:
    """What a restore did to the file."""

    plan: str
    bot: str
    path: Path
    snapshot: str | None
    snapshot_at: datetime | None
    quarantine: Path
    """Folder with the damaged file as it was."""
    rows_before: int
    rows_bad: int
    rows_after: int
    kept: int
    salvaged: int
    dropped: int
    dropped_rows: tuple[Finding, ...]
    pnl_before: Money | None
    pnl_after: Money | None
    sha256: str
    sentence: str

    def as_data(self) -> dict[str, Any]:
        """For a ledger entry or a result."""
        return {
            "plan": self.plan,
            "snapshot": self.snapshot,
            "snapshot_at": iso(self.snapshot_at) if self.snapshot_at else None,
            "quarantine": str(self.quarantine),
            "rows_before": self.rows_before,
            "rows_bad": self.rows_bad,
            "rows_after": self.rows_after,
            "kept": self.kept,
            "salvaged": self.salvaged,
            "dropped": self.dropped,
            "dropped_rows": [asdict(finding) for finding in self.dropped_rows],
            "pnl_before": _money_json(self.pnl_before),
            "pnl_after": _money_json(self.pnl_after),
            "sha256": self.sha256,
        }


# --- planning ----------------------------------------------------------------------------------------------------


def plan(bot: Bot, workspace: Workspace, store: Store, now: datetime) -> RestorePlan:
    """Find out what a restore would do, and keep it under an id for ten minutes. Changes no data file.

    Raises BotkeepError: nothing is damaged; the file cannot be read for a reason that no restore mends; there is
    neither a backup nor a row to salvage.
    """
    file = _File.of(bot)
    evidence = file.evidence()
    seen = file.look(now)
    good = backups.newest_good(store, bot.name)
    findings = _damages(file, seen, good)
    with _folder(store) as scratch:
        rebuilt = file.rebuild(_fetched(store, good, scratch), scratch / "new")
        if good is None and not rebuilt.rows:
            raise BotkeepError(
                f"{file.path} cannot be restored: there is no verified backup of {bot.name}, and no sound row is left "
                f"in it. `botkeep diagnose {bot.name}` shows what its log says."
            )
        _require_sound(file, scratch / "new", rebuilt, now)
        made = RestorePlan(
            id="",
            bot=bot.name,
            path=file.path,
            made_at=now,
            expires_at=now + LASTS,
            evidence=evidence,
            findings=findings,
            snapshot=good.id if good else None,
            snapshot_at=good.at if good else None,
            snapshots_skipped=good.skipped if good else 0,
            rows_good=rebuilt.damaged_good,
            rows_bad=_bad_rows(rebuilt),
            rows_expected=rebuilt.rows,
            kept=rebuilt.kept,
            salvaged=rebuilt.salvaged,
            dropped=rebuilt.dropped,
            pnl_now=file.money(file.path),
            pnl_expected=file.money(scratch / "new"),
            sha256_expected=rebuilt.sha256,
            sentence="",
        )
    made = replace(made, sentence=_plan_sentence(made))
    made = replace(made, id=_id_of(made))
    _keep(workspace, made)
    return made


@dataclass(frozen=True)
class _File:
    """A bot's data file with its format."""

    bot: Bot
    path: Path
    """Of the file itself, never of a link to it: a link is kept, its target replaced."""
    kind: Format
    options: FormatOptions

    @classmethod
    def of(cls, bot: Bot) -> _File:
        if bot.data_file is None:
            raise BotkeepError(f"{bot.name} has no data_file in bots.json: there is nothing to restore.")
        configured = bot.data_format.kind if bot.data_format else ""
        kind = FORMATS[kind_of(bot.data_file, configured)]
        return cls(bot, Path(os.path.realpath(bot.data_file)), kind, bot.format_options())

    def evidence(self) -> FileEvidence:
        """The file as it is. Raises BotkeepError for what no restore mends, and for a file with a second name."""
        try:
            with regular(self.path) as source:
                seen = source.stat
                if seen.st_nlink > 1:
                    raise BotkeepError(
                        f"{self.path} has {seen.st_nlink} names (hard links): replacing one would leave the others "
                        f"with the damage. Leave only one, then ask again."
                    )
                if seen.st_size > CAP:
                    raise BotkeepError(
                        f"{self.path} has {seen.st_size / 1e9:.1f} GB, more than a restore can check within a call. "
                        f"Stop the bot, move the file aside, and ask again: the backup is put in its place."
                    )
                return FileEvidence(
                    seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, source.digest(0, seen.st_size)
                )
        except FileNotFoundError:
            return FileEvidence()
        except UnreadableError as error:
            raise BotkeepError(f"{self.path} cannot be restored: {error}. Mend that first.") from error

    def look(self, now: datetime) -> Inspection:
        """A whole inspection."""
        writing = bool(open_writers(self.path))
        seen = self.kind.inspect(self.path, options=self.options, cursor=None, writing=writing, now=now)
        while more_to_read(seen):
            seen = self.kind.inspect(self.path, options=self.options, cursor=seen.cursor, writing=writing, now=now)
        return seen

    def rebuild(self, good: Path | None, target: Path) -> Rebuilt:
        """The new file."""
        return self.kind.rebuild(good, self.path, target, options=self.options)

    def money(self, path: Path) -> Money | None:
        """Realised over all rows that can be read; None if it is no table of trades."""
        try:
            table = self.kind.trades(path, options=self.options)
        except BotkeepError:
            return None
        found = figures(self.bot.name, table, currency=self.bot.currency)
        return tuple((one.currency, rounded(one.realised)) for one in found.currencies)


def _damages(file: _File, seen: Inspection, good: Snapshot | None) -> tuple[Finding, ...]:
    """What speaks for a restore. Raises BotkeepError if nothing does."""
    if seen.verdict is DataVerdict.UNREADABLE:
        why = seen.findings[0].text if seen.findings else "It cannot be read."
        raise BotkeepError(f"{file.path} cannot be restored. {why} A restore does not mend that.")
    if seen.verdict in (DataVerdict.CORRUPT, DataVerdict.SUSPECT):
        return seen.findings
    if good is not None and (lost := _lost(file, seen, good)):
        return (lost,)
    if seen.verdict is DataVerdict.MISSING:
        raise BotkeepError(
            f"{file.path} is missing, and there is no verified backup of {file.bot.name}: nothing can be restored."
        )
    raise BotkeepError(f"There is nothing to restore: {file.path} is not damaged ({seen.rows} rows, all sound).")


def _lost(file: _File, seen: Inspection, good: Snapshot) -> Finding | None:
    """Rows that the backup has and the file has not, and no rotated file beside it either."""
    if not good.rows:
        return None
    when = f"the backup of {good.at:%Y-%m-%d %H:%M:%SZ} has {good.rows} rows"
    if seen.verdict is DataVerdict.MISSING:
        return Finding("C14", f"The file is gone; {when}.", True)
    if seen.rows is None or seen.rows >= good.rows or backups.rotated(file.path, good):
        return None
    return Finding("C10", f"It has {seen.rows} rows; {when}.", True, offset=seen.size)


def _bad_rows(rebuilt: Rebuilt) -> int:
    """Damaged rows; sound ones that are left out for another reason are no damage."""
    return rebuilt.dropped - rebuilt.dropped_sound


def _fetched(store: Store, good: Snapshot | None, scratch: Path) -> Path | None:
    if good is None:
        return None
    backups.fetch(store, good, scratch / "good")
    return scratch / "good"


@contextmanager
def _folder(store: Store) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix="restore-", dir=store.scratch()))
    except OSError as error:
        raise BotkeepError(f"There is no room for a trial restore: {error.strerror}.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _id_of(made: RestorePlan) -> str:
    """Twelve hexadecimal digits that no other evidence, snapshot, bot or moment gives."""
    bound = (made.bot, str(made.path), asdict(made.evidence), made.snapshot, iso(made.made_at))
    return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()[:12]


def _plan_sentence(made: RestorePlan) -> str:
    found = made.findings[0]
    row = f", row {found.row}" if found.row else ""
    source = "what can be salvaged from it (there is no backup)"
    if made.snapshot_at is not None:
        age = _age(made.made_at - made.snapshot_at)
        passed = f", {made.snapshots_skipped} newer ones being damaged" if made.snapshots_skipped else ""
        source = f"the backup of {made.snapshot_at:%Y-%m-%d %H:%M:%SZ} ({age} old{passed})"
    return (
        f"{made.bot}'s data file is damaged ({found.rule}{row}: {found.text}) "
        f"A restore from {source} would give {made.rows_expected} rows, where {made.rows_good} can be read now: "
        f"{made.kept} from the backup, {made.salvaged} salvaged; {made.dropped} unreadable rows left out."
        f"{_money_text(made.pnl_now, made.pnl_expected)}"
    )


def _age(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"


def _money_text(before: Money | None, after: Money | None) -> str:
    if after is None:
        return ""
    now = {name: str(amount) for name, amount in before or ()}
    parts = [f"{now.get(name, 'unknown')} before, {amount} {name} after" for name, amount in after]
    return f" Realised P&L of the readable rows: {'; '.join(parts)}."


# --- kept plans --------------------------------------------------------------------------------------------------


def _plans(workspace: Workspace, bot: str) -> Path:
    return workspace.run_dir(bot) / "plans"


def _keep(workspace: Workspace, made: RestorePlan) -> None:
    folder = _plans(workspace, made.bot)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in folder.glob("*.json"):
            if made.made_at.timestamp() - old.stat().st_mtime > KEPT.total_seconds():
                old.unlink(missing_ok=True)
        _write(folder / f"{made.id}.json", {"plan": _plan_json(made)})
    except OSError as error:
        raise BotkeepError(f"The plan cannot be kept in {folder}: {error.strerror}.") from error


def _write(path: Path, record: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(record, indent=1).encode())


def load_plan(workspace: Workspace, bot: Bot, plan_id: str, now: datetime) -> RestorePlan:
    """The plan of that id, if it may still be carried out.

    Raises BotkeepError: unknown, another bot's, used, expired, or the file is not what it was. Rows that were only
    added since are no change of the evidence: a bot that is not stopped yet goes on writing.
    """
    record = _record(workspace, bot.name, plan_id)
    made = _plan_from(record["plan"])
    again = f"Make a new plan: restore_data without a plan_id, or `botkeep restore {bot.name}`."
    if "used" in record:
        done = record["proof"]["sentence"]
        raise BotkeepError(f"Plan {plan_id} of {bot.name} was carried out at {record['used']}: {done} {again}")
    if now > made.expires_at:
        raise BotkeepError(f"Plan {plan_id} of {bot.name} expired at {made.expires_at:%H:%M:%SZ}. {again}")
    file = _File.of(bot)
    if file.path != made.path:
        raise BotkeepError(f"Plan {plan_id} is for {made.path}, and {bot.name} has another data file now. {again}")
    if not _stands(file, made.evidence) and not _is_applied(file, record):
        raise BotkeepError(f"{made.path} is not what it was when plan {plan_id} was made. {again}")
    return made


def _record(workspace: Workspace, bot: str, plan_id: str) -> dict[str, Any]:
    if not _ID.fullmatch(plan_id):
        raise BotkeepError(f"{plan_id[:40]!r} is no plan id: those have twelve digits of 0-9 and a-f.")
    record = read_json(_plans(workspace, bot) / f"{plan_id}.json")
    if record is None:
        other = next(workspace.run_dir(bot).parent.glob(f"*/plans/{plan_id}.json"), None)
        if other is not None:
            raise BotkeepError(f"Plan {plan_id} is for {other.parents[1].name}, not for {bot}.")
        raise BotkeepError(f"There is no plan {plan_id} of {bot}. Make one: restore_data without a plan_id.")
    return record


def _stands(file: _File, evidence: FileEvidence) -> bool:
    """Whether the file still is, or begins with, the bytes of the plan."""
    try:
        with regular(file.path) as source:
            if evidence.size is None or (source.stat.st_dev, source.stat.st_ino) != (evidence.dev, evidence.ino):
                return False
            return source.size >= evidence.size and source.digest(0, evidence.size) == evidence.sha256
    except FileNotFoundError:
        return evidence.size is None
    except OSError:
        return False


def _is_applied(file: _File, record: Mapping[str, Any]) -> bool:
    """Whether the file is what the plan was about to put there: we were killed before we could write that down."""
    proof = record.get("proof")
    if not proof:
        return False
    try:
        with regular(file.path) as source:
            return source.digest(0, source.size) == str(proof["sha256"])
    except OSError:
        return False


# --- quarantine --------------------------------------------------------------------------------------------------


def quarantine(bot: Bot, workspace: Workspace, now: datetime) -> Path:
    """Copy the bot's data file, whatever is in it, to a new folder of .botkeep/quarantine, durably; gives the folder.

    Nothing is moved: a bot whose file was moved away went on writing into the moved one. Beside the copy lies
    `note.json` (where from, when, size, sha256); for a missing file, only that. Raises BotkeepError.
    """
    file = _File.of(bot)
    folder = _unused(workspace.quarantine_dir / bot.name / f"{now:%Y%m%dT%H%M%S.%fZ}")
    try:
        folder.mkdir(mode=0o700, parents=True)
        note = {"path": str(file.path), "at": iso(now), **_copy_aside(file.path, folder)}
        write_atomic(folder / "note.json", json.dumps(note, indent=1).encode(), 0o400)
        for made in (folder, folder.parent, workspace.quarantine_dir):
            fsync_dir(made)
    except UnreadableError as error:
        raise BotkeepError(f"{file.path} cannot be copied to quarantine: {error}.") from error
    except OSError as error:
        raise BotkeepError(
            f"The quarantine {folder} cannot be written: {error.strerror}. Nothing was changed."
        ) from error
    return folder


def _unused(folder: Path) -> Path:
    """That name, or with a number behind it: what is in quarantine is never written over."""
    names = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(name for name in chain((folder,), names) if not name.exists())


def _copy_aside(path: Path, folder: Path) -> dict[str, Any]:
    """The copy. Runs of zeros stay holes: a sparse file of 10 GiB would fill the disk."""
    running = hashlib.sha256()
    try:
        with regular(path) as source, (folder / path.name).open("xb") as target:
            for data in source.chunks(0, source.size):
                running.update(data)
                if data.count(0) == len(data):
                    target.seek(len(data), os.SEEK_CUR)
                else:
                    target.write(data)
            target.truncate(target.tell())
            target.flush()
            os.fchmod(target.fileno(), 0o400)
            os.fsync(target.fileno())
            return {"size": target.tell(), "sha256": running.hexdigest(), "mtime_ns": source.stat.st_mtime_ns}
    except FileNotFoundError:
        return {"missing": True}


# --- applying ----------------------------------------------------------------------------------------------------


def apply_files(
    made: RestorePlan, bot: Bot, workspace: Workspace, now: datetime, *, store: Store | None = None
) -> RestoreProof:
    """Carry out a plan on the file. The bot has to be stopped: refused while any process can write to the file.

    Raises BotkeepError, leaving the old file in place; its copy in quarantine stays.
    """
    file = _File.of(bot)
    record = _record(workspace, bot.name, made.id)
    if not _is_applied(file, record):
        record = _replace_file(made, file, workspace, store or LocalStore(workspace.backups_dir), record, now)
    try:
        fsync_dir(file.path.parent)
        _write(_plans(workspace, bot.name) / f"{made.id}.json", {**record, "used": iso(now)})
    except OSError as error:
        raise BotkeepError(
            f"{file.path} is restored, but that could not be made durable ({error.strerror}). Ask again with the plan."
        ) from error
    return _proof_from(record["proof"])


def _replace_file(
    made: RestorePlan, file: _File, workspace: Workspace, store: Store, record: dict[str, Any], now: datetime
) -> dict[str, Any]:
    _require_quiet(made, file)
    kept = workspace.run_dir(made.bot) / "plans" / f"{made.id}.json"
    aside = Path(record["quarantine"]) if "quarantine" in record else quarantine(file.bot, workspace, now)
    record = {**record, "quarantine": str(aside)}
    beside = file.path.parent / f".{file.path.name}.restore-{made.id}"
    try:
        _write(kept, record)
        with _folder(store) as scratch:
            rebuilt = file.rebuild(_fetched(store, _snapshot_of(store, made), scratch), beside)
        _verify(made, file, beside, rebuilt, store, now)
        _dress(file.path, beside, made, store)
        proof = _proof_of(made, file, beside, rebuilt, aside)
        record = {**record, "proof": _proof_json(proof)}
        _write(kept, record)
        _require_quiet(made, file)
        os.replace(beside, file.path)
    except OSError as error:
        raise BotkeepError(
            f"{file.path} was not restored: {error.strerror or error}. It is unchanged, its copy is in {aside}."
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return record


def _require_quiet(made: RestorePlan, file: _File) -> None:
    """Nobody writes, and the file is what the plan saw: else trades would go into a file that is thrown away."""
    writers = open_writers(file.path)
    if writers:
        pids = ", ".join(map(str, writers))
        raise BotkeepError(f"{file.path} was not restored: it is open for writing (pid {pids}). Stop {made.bot} first.")
    if not _stands(file, made.evidence):
        raise BotkeepError(f"{file.path} is not what it was when plan {made.id} was made. Make a new plan.")


def _snapshot_of(store: Store, made: RestorePlan) -> Snapshot | None:
    if made.snapshot is None:
        return None
    found = next((one for one in backups.snapshots(store, made.bot) if one.id == made.snapshot), None)
    if found is None:
        raise BotkeepError(f"Snapshot {made.snapshot} of plan {made.id} is no longer in the store. Make a new plan.")
    return found


def _verify(made: RestorePlan, file: _File, beside: Path, rebuilt: Rebuilt, store: Store, now: datetime) -> None:
    """The new file is sound, has the rows that the plan promised (more, if some came in since), and the backup's."""
    _require_sound(file, beside, rebuilt, now)
    if rebuilt.rows < made.rows_expected:
        raise BotkeepError(
            f"{file.path} was not restored: the rebuilt file has {rebuilt.rows} rows, the plan promised "
            f"{made.rows_expected}. Nothing was changed. Make a new plan."
        )
    good = _snapshot_of(store, made)
    if good is not None and not _has_all(beside, rebuilt, good):
        raise BotkeepError(f"{file.path} was not restored: rows of the backup would be missing. Nothing was changed.")


def _require_sound(file: _File, built: Path, rebuilt: Rebuilt, now: datetime) -> None:
    seen = inspect_whole(file.kind, built, options=file.options, now=now)
    if seen.verdict is not DataVerdict.OK or seen.rows != rebuilt.rows:
        why = seen.findings[0].text if seen.findings else f"It has {seen.rows} rows, not {rebuilt.rows}."
        raise BotkeepError(
            f"{file.path} cannot be restored: what could be put in its place is not sound either. {why} Nothing was "
            f"changed. A person has to look at the file."
        )


def _has_all(beside: Path, rebuilt: Rebuilt, good: Snapshot) -> bool:
    if rebuilt.replaced:
        return good.rows is None or rebuilt.kept + rebuilt.replaced == good.rows
    with regular(beside) as source:
        return source.digest(0, good.size) == good.sha256


def _dress(path: Path, beside: Path, made: RestorePlan, store: Store) -> None:
    """Owner, mode and extended attributes of the file that is replaced; of a missing one, as it was backed up."""
    try:
        seen = path.stat()
        mode, owner, group = seen.st_mode & 0o7777, seen.st_uid, seen.st_gid
    except FileNotFoundError:
        good = _snapshot_of(store, made)
        known = good.source if good else {}
        mode, owner, group = known.get("mode", 0o600), known.get("uid", os.geteuid()), known.get("gid", os.getegid())
    else:
        for name in os.listxattr(path):
            with suppress(OSError):  # the system's own ones follow from the folder
                os.setxattr(beside, name, os.getxattr(path, name))
    now = beside.stat()
    if (now.st_uid, now.st_gid) != (owner, group):
        os.chown(beside, owner, group)
    beside.chmod(mode)
    with beside.open("rb") as file:
        os.fsync(file.fileno())


def _proof_of(made: RestorePlan, file: _File, beside: Path, rebuilt: Rebuilt, aside: Path) -> RestoreProof:
    if rebuilt.sha256 == made.sha256_expected:
        before, after = made.pnl_now, made.pnl_expected
    else:
        before, after = file.money(file.path), file.money(beside)
    origin = f"the backup of {made.snapshot_at:%Y-%m-%d %H:%M:%SZ}" if made.snapshot_at else "its own sound rows"
    sentence = (
        f"{made.bot}'s data file was restored from {origin}: {rebuilt.rows} rows, where {rebuilt.damaged_good} could "
        f"be read before ({rebuilt.kept} from the backup, {rebuilt.salvaged} salvaged; {rebuilt.dropped} unreadable "
        f"rows left out).{_money_text(before, after)} "
        f"The damaged file is in quarantine."
    )
    return RestoreProof(
        plan=made.id,
        bot=made.bot,
        path=file.path,
        snapshot=made.snapshot,
        snapshot_at=made.snapshot_at,
        quarantine=aside,
        rows_before=rebuilt.damaged_good,
        rows_bad=_bad_rows(rebuilt),
        rows_after=rebuilt.rows,
        kept=rebuilt.kept,
        salvaged=rebuilt.salvaged,
        dropped=rebuilt.dropped,
        dropped_rows=rebuilt.dropped_rows,
        pnl_before=before,
        pnl_after=after,
        sha256=rebuilt.sha256,
        sentence=sentence,
    )


# --- as JSON -----------------------------------------------------------------------------------------------------


def _money_json(money: Money | None) -> list[list[str]] | None:
    return None if money is None else [[name, str(amount)] for name, amount in money]


def _money_from(raw: Any) -> Money | None:
    return None if raw is None else tuple((name, Decimal(amount)) for name, amount in raw)


def _plan_json(made: RestorePlan) -> dict[str, Any]:
    return {
        **asdict(made),
        "path": str(made.path),
        "made_at": iso(made.made_at),
        "expires_at": iso(made.expires_at),
        "snapshot_at": iso(made.snapshot_at) if made.snapshot_at else None,
        "pnl_now": _money_json(made.pnl_now),
        "pnl_expected": _money_json(made.pnl_expected),
    }


def _plan_from(raw: Mapping[str, Any]) -> RestorePlan:
    return RestorePlan(
        **{
            **raw,
            "path": Path(raw["path"]),
            "made_at": parse_iso(raw["made_at"]),
            "expires_at": parse_iso(raw["expires_at"]),
            "evidence": FileEvidence(**raw["evidence"]),
            "findings": tuple(Finding(**finding) for finding in raw["findings"]),
            "snapshot_at": parse_iso(raw["snapshot_at"]) if raw["snapshot_at"] else None,
            "pnl_now": _money_from(raw["pnl_now"]),
            "pnl_expected": _money_from(raw["pnl_expected"]),
        }
    )


def _proof_json(proof: RestoreProof) -> dict[str, Any]:
    return {**proof.as_data(), "bot": proof.bot, "path": str(proof.path), "sentence": proof.sentence}


def _proof_from(raw: Mapping[str, Any]) -> RestoreProof:
    return RestoreProof(
        **{
            **raw,
            "path": Path(raw["path"]),
            "quarantine": Path(raw["quarantine"]),
            "snapshot_at": parse_iso(raw["snapshot_at"]) if raw["snapshot_at"] else None,
            "dropped_rows": tuple(Finding(**finding) for finding in raw["dropped_rows"]),
            "pnl_before": _money_from(raw["pnl_before"]),
            "pnl_after": _money_from(raw["pnl_after"]),
        }
    )
