"""Carrying out a restore plan on the file. Who stops and starts the bot is not here.

Copy the damaged file to quarantine, build the new one beside it, check it, write down that it is about to take the old
one's place, replace, fsync the folder, write down that it has. Killed at any point, the file is the old one or the new
one. Asked again with the same plan, an old one is replaced and a new one recognised.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Any

from . import backups, plans, reconcile, stillopen
from .backups import Snapshot, Store
from .building import Built, add, bad_rows, fetched, money_text, require_sound, scratch_of
from .config import Bot
from .datafile import DataFile, begins_as_restored
from .durable import fsync_dir, write_atomic
from .formats.base import Rebuilt, TradeTable
from .held import Held
from .model import BotkeepError, ClosedTrade, Ended, Fill, Finding, Replay, iso, parse_iso
from .plans import Counts, Money, RestorePlan, money_from, money_json
from .quarantine import quarantine
from .reconcile import Missing
from .workspace import Workspace


@dataclass(frozen=True)
class RestoreProof:
    """What a restore did to the file."""

    plan: str
    bot: str
    path: Path
    snapshot: str | None
    snapshot_at: datetime | None
    quarantine: Path
    """Folder with the damaged file as it was, and `replayed.json`: which trades are from where."""
    rows_before: int
    rows_bad: int
    counts: Counts
    dropped_rows: tuple[Finding, ...]
    unprovable: str
    pnl_before: Money | None
    pnl_after: Money | None
    sha256: str
    size: int
    sentence: str
    still_open: tuple[Ended, ...] = ()
    """Open in the restored file and closed by the log: the bot must not go on with it."""

    @property
    def rows_after(self) -> int:
        """Rows of the restored file."""
        return self.counts.rows

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
            **{name: count for name, count in asdict(self.counts).items() if name != "rows"},
            "dropped_rows": [asdict(finding) for finding in self.dropped_rows],
            "unprovable": self.unprovable,
            "still_open": stillopen.as_json(self.still_open),
            "pnl_before": money_json(self.pnl_before),
            "pnl_after": money_json(self.pnl_after),
            "sha256": self.sha256,
            "size": self.size,
        }


# --- is it still the same? ---------------------------------------------------------------------------------------


def load_plan(workspace: Workspace, bot: Bot, plan_id: str, now: datetime) -> RestorePlan:
    """The plan of that id, if it may still be carried out.

    Raises BotkeepError: unknown, another bot's, used, expired, or the file is not what it was. Rows that were only
    added since are no change of the evidence: a bot that is not stopped yet goes on writing.
    """
    record = plans.record_of(workspace, bot.name, plan_id)
    made = plans.plan_of(record)
    again = f"Make a new plan: restore_data without a plan_id, or `botkeep restore {bot.name}`."
    if "used" in record:
        done = record["proof"]["sentence"]
        raise BotkeepError(f"Plan {plan_id} of {bot.name} was carried out at {record['used']}: {done} {again}")
    if now > made.expires_at:
        raise BotkeepError(f"Plan {plan_id} of {bot.name} expired at {made.expires_at:%H:%M:%SZ}. {again}")
    file = DataFile.of(bot)
    if file.path != made.path:
        raise BotkeepError(f"Plan {plan_id} is for {made.path}, and {bot.name} has another data file now. {again}")
    if not _stands(file, made, record) and not _is_applied(file, record):
        raise BotkeepError(f"{made.path} is not what it was when plan {plan_id} was made. {again}")
    return made


def _stands(file: DataFile, made: RestorePlan, record: Mapping[str, Any]) -> bool:
    """The file of the plan; or the same inode, which we had begun to settle when we were killed."""
    if file.stands(made.evidence):
        return True
    return "proof" in record and bool(made.evidence) and _inode(file.path) == _inode_of(made.evidence)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


def _inode_of(evidence: Mapping[str, Any]) -> tuple[Any, Any]:
    return evidence.get("dev"), evidence.get("ino")


def _is_applied(file: DataFile, record: Mapping[str, Any]) -> bool:
    """Whether the file is what the plan was about to put there: we were killed before we could write that down."""
    return "proof" in record and _sha256(file.path) == str(record["proof"]["sha256"])


def applied(workspace: Workspace, bot: Bot, plan_id: str) -> RestoreProof | None:
    """What a restore had done to the file when whoever made it was killed; None: the old one is there.

    The bot may have been started since, and have written more.
    """
    try:
        record = plans.record_of(workspace, bot.name, plan_id)
    except BotkeepError:
        return None
    path, proof, evidence = DataFile.of(bot).path, record.get("proof"), record["plan"]["evidence"]
    if not proof or (evidence and _inode(path) == _inode_of(evidence)):
        return None  # a file that lost nothing but a torn end would begin with just the bytes of the new one
    return _proof_from(proof) if begins_as_restored(path, proof) else None


def _sha256(path: Path) -> str:
    """Of the file's bytes; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


# --- applying ----------------------------------------------------------------------------------------------------


def apply_files(
    made: RestorePlan,
    bot: Bot,
    workspace: Workspace,
    now: datetime,
    *,
    stores: Sequence[Store],
    held: Held | None = None,
) -> RestoreProof:
    """Carry out a plan on the file. The bot has to be stopped: refused while any process can write to the file.

    `held`: a deleted file whose content we keep open. Raises BotkeepError, leaving the old file in place; its copy
    in quarantine stays.
    """
    file = DataFile.of(bot)
    record = plans.record_of(workspace, bot.name, made.id)
    if not _is_applied(file, record):
        record = _rescue(held, made, workspace, record)
        rescued = record.get("rescued") or made.rescued
        file = file.read_from(Path(rescued)) if rescued else file
        record = _replace_file(made, file, workspace, stores, record, now)
    _clear(file.path)  # of a killed attempt, too, that had already replaced the file
    try:
        fsync_dir(file.path.parent)
        plans.write(plans.file_of(workspace, made), {**record, "used": iso(now)})
        for rescued in filter(None, (made.rescued, record.get("rescued"))):
            (Path(rescued).parent / plans.USED).touch()
    except OSError as error:
        raise BotkeepError(
            f"{file.path} is restored, but that could not be made durable ({error.strerror}). Ask again with the plan."
        ) from error
    return _proof_from(record["proof"])


def _rescue(held: Held | None, made: RestorePlan, workspace: Workspace, record: dict[str, Any]) -> dict[str, Any]:
    """Put the content of a deleted file where a resumed restore finds it again."""
    if held is None or not made.from_held or "rescued" in record:
        return record
    folder = workspace.quarantine_dir / made.bot / f"rescued-{made.id}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = {**record, "rescued": str(held.copy_to(folder))}
        fsync_dir(folder)
        plans.write(plans.file_of(workspace, made), record)
    except OSError as error:
        raise BotkeepError(
            f"What {made.path} held when it was deleted cannot be copied to {folder}: {error.strerror}."
        ) from error
    return record


def _replace_file(
    made: RestorePlan,
    file: DataFile,
    workspace: Workspace,
    stores: Sequence[Store],
    record: dict[str, Any],
    now: datetime,
) -> dict[str, Any]:
    _require_quiet(made, file, record)
    kept = plans.file_of(workspace, made)
    aside = _aside(file, workspace, record, now)
    record = {**record, "quarantine": str(aside)}
    workshop = file.path.parent / f".{file.path.name}.restore-{made.id}"
    beside = workshop / file.path.name
    try:
        _clear(file.path)
        workshop.mkdir(mode=0o700)
        plans.write(kept, record)
        file = _as_it_was(file, aside, record, workshop / "before")
        built = _build(made, file, stores, plans.replayed(workspace, made), beside, now)
        _dress(file.path, beside, made, stores)
        proof = _proof_of(made, file, built, aside)
        _mark_replayed(aside, plans.replayed(workspace, made))
        record = {**record, "proof": _proof_json(proof)}
        plans.write(kept, record)
        _require_quiet(made, file, record)
        file.kind.settle(file.path)
        os.replace(beside, file.path)
    except OSError as error:
        raise BotkeepError(
            f"{file.path} was not restored: {error.strerror or error}. It is unchanged, its copy is in {aside}."
        ) from error
    finally:
        _clear(file.path)
    return record


def _as_it_was(file: DataFile, aside: Path, record: Mapping[str, Any], folder: Path) -> DataFile:
    """The content to build from, with its companions.

    They are removed before a damaged database is replaced. Where we were killed in between, what they held is only in
    quarantine: a copy of that is read, made in `folder`, for reading a database may write beside it.
    """
    kept = aside / file.path.name
    beside = file.kind.companions(kept) if "proof" in record and file.source == file.path else ()
    lost = [one for one in beside if one.stat().st_size and not file.path.with_name(one.name).exists()]
    if not lost or _sha256(kept) != _sha256(file.path):
        return file  # also one into which they were folded: it holds all that there is
    folder.mkdir(mode=0o700)
    for one in (kept, *beside):
        shutil.copyfile(one, folder / one.name)
    return file.read_from(folder / kept.name)


def _clear(path: Path) -> None:
    """Remove the folders beside the file in which restores were built, ours and those of killed ones."""
    for left in path.parent.glob(f".{escape(path.name)}.restore-*"):
        shutil.rmtree(left, ignore_errors=True)


def _aside(file: DataFile, workspace: Workspace, record: Mapping[str, Any], now: datetime) -> Path:
    """The copy in quarantine: made once for a plan, however often it is resumed."""
    if "quarantine" in record:
        return Path(record["quarantine"])
    beside = file.kind.companions(file.path)
    return quarantine(file.bot.name, file.path, beside, workspace, now, source=file.source)


def _mark_replayed(aside: Path, replayed: Sequence[Mapping[str, Any]]) -> None:
    if replayed:
        write_atomic(reconcile.record_path(aside), json.dumps(replayed, indent=1).encode(), 0o400)


def _build(
    made: RestorePlan,
    file: DataFile,
    stores: Sequence[Store],
    replayed: Sequence[Mapping[str, Any]],
    beside: Path,
    now: datetime,
) -> Built:
    """The new file beside the old one, checked: it has what the plan promised, more if rows came in since."""
    store = _store_of(stores, made)
    with scratch_of(stores[0]) as scratch:
        good = _snapshot_of(store, made)
        copy = fetched(store, good, scratch)
        if made.merges:
            copy = scratch / "current"
            file.kind.snapshot(file.path, copy, options=file.options)
        rebuilt = file.copy(beside, now) if made.only_adds else file.rebuild(copy, beside)
        built = add(file, beside, rebuilt, *_still_missing(made, file, beside, replayed))
        require_sound(file, beside, built.counts.rows, now)
        if built.counts.rows < made.rows_expected:
            raise BotkeepError(
                f"{file.path} was not restored: the rebuilt file has {built.counts.rows} rows, the plan promised "
                f"{made.rows_expected}. Nothing was changed. Make a new plan."
            )
        if good is not None and not made.only_adds:
            _require_backup_in(file, beside, rebuilt, good)
    return built


def _still_missing(
    made: RestorePlan, file: DataFile, built: Path, replayed: Sequence[Mapping[str, Any]]
) -> tuple[Missing, TradeTable | None]:
    """The plan's trades, but for those that the bot wrote into the file itself since; and what the file has.

    Only rows that came since can be those trades: two fills of one second may well be equal in all but their ids.
    """
    from . import replay

    table = file.table(built) if replayed else None
    if table is None:
        return Missing(), None
    trades = [reconcile.trade_from({k: v for k, v in raw.items() if k != "source"}) for raw in replayed]
    asked = Replay(
        "plan",
        made.id,
        tuple(one for one in trades if isinstance(one, Fill)),
        tuple(one for one in trades if isinstance(one, ClosedTrade)),
    )
    since = replace(table, fills=table.fills[made.trades_known :], closed=table.closed[made.trades_known :])
    left = replay.missing(since, asked)
    return Missing(trades=left.trades, origin=("plan",) * len(left.trades)), table


def _require_backup_in(file: DataFile, beside: Path, rebuilt: Rebuilt, good: Snapshot) -> None:
    """No row of the backup may be lost on the way."""
    if good.rows is not None and rebuilt.kept + rebuilt.replaced < good.rows:
        raise BotkeepError(f"{file.path} was not restored: rows of the backup would be missing. Nothing was changed.")
    options = replace(file.options, mode="rewrite") if rebuilt.replaced else file.options
    lost = file.kind.compare(beside, good.mark, options=options)
    if any(one.certain for one in lost):
        raise BotkeepError(f"{file.path} was not restored: {lost[0].text} Nothing was changed.")


def _require_quiet(made: RestorePlan, file: DataFile, record: Mapping[str, Any]) -> None:
    """Nobody writes, and the file is what the plan saw: else trades would go into a file that is thrown away."""
    if writers := file.writers():
        pids = ", ".join(map(str, writers))
        raise BotkeepError(f"{file.path} was not restored: it is open for writing (pid {pids}). Stop {made.bot} first.")
    if not _stands(file, made, record):
        raise BotkeepError(f"{file.path} is not what it was when plan {made.id} was made. Make a new plan.")


def _store_of(stores: Sequence[Store], made: RestorePlan) -> Store | None:
    return next((one for one in stores if one.name == made.store), None)


def _snapshot_of(store: Store | None, made: RestorePlan) -> Snapshot | None:
    if made.snapshot is None:
        return None
    found = (
        next((one for one in backups.snapshots(store, made.bot) if one.id == made.snapshot), None) if store else None
    )
    if found is None:
        raise BotkeepError(f"Snapshot {made.snapshot} of plan {made.id} is no longer in the store. Make a new plan.")
    return found


def _dress(path: Path, beside: Path, made: RestorePlan, stores: Sequence[Store]) -> None:
    """Owner, mode and extended attributes of the file that is replaced; of a missing one, as it was backed up."""
    try:
        seen = path.stat()
        mode, owner, group = seen.st_mode & 0o7777, seen.st_uid, seen.st_gid
    except FileNotFoundError:
        good = _snapshot_of(_store_of(stores, made), made)
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


# --- the proof ---------------------------------------------------------------------------------------------------


def _proof_of(made: RestorePlan, file: DataFile, built: Built, aside: Path) -> RestoreProof:
    if built.sha256 == made.sha256_expected:
        before, after = made.pnl_now, made.pnl_expected
    else:
        before, after = file.money(file.table()), file.money(built.table or file.table(built.path))
    counts = built.counts
    if made.only_adds:
        what = f"{made.bot}'s data file was completed"
    else:
        origin = f"the backup of {made.snapshot_at:%Y-%m-%d %H:%M:%SZ}" if made.snapshot_at else "its own sound rows"
        what = f"{made.bot}'s data file was restored from {origin}"
    replayed = f" Replayed: {', '.join(made.replay_from)}." if counts.replayed or counts.closed else ""
    unprovable = f" {made.unprovable}" if made.unprovable else ""
    still_open = stillopen.unclosed(built.table or file.table(built.path), made.still_open)
    sentence = (
        f"{what}: {counts.rows} rows, where {built.rebuilt.damaged_good} could be read before ({counts.text})."
        f"{replayed}{unprovable}{money_text(before, after)} The file as it was is in quarantine."
        f"{stillopen.text_of(still_open, made.bot)}"
    )
    return RestoreProof(
        plan=made.id,
        bot=made.bot,
        path=file.path,
        snapshot=made.snapshot,
        snapshot_at=made.snapshot_at,
        quarantine=aside,
        rows_before=built.rebuilt.damaged_good,
        rows_bad=bad_rows(built.rebuilt),
        counts=counts,
        dropped_rows=built.rebuilt.dropped_rows,
        unprovable=made.unprovable,
        pnl_before=before,
        pnl_after=after,
        sha256=built.sha256,
        size=built.path.stat().st_size,
        sentence=sentence,
        still_open=still_open,
    )


def _proof_json(proof: RestoreProof) -> dict[str, Any]:
    return {
        **proof.as_data(),
        "bot": proof.bot,
        "path": str(proof.path),
        "sentence": proof.sentence,
        "counts": asdict(proof.counts),
    }


def _proof_from(raw: Mapping[str, Any]) -> RestoreProof:
    counts = Counts(**raw["counts"])
    plain = {name: value for name, value in raw.items() if name not in (*asdict(counts), "rows_after", "counts")}
    return RestoreProof(
        **{
            **plain,
            "counts": counts,
            "path": Path(raw["path"]),
            "quarantine": Path(raw["quarantine"]),
            "snapshot_at": parse_iso(raw["snapshot_at"]) if raw["snapshot_at"] else None,
            "dropped_rows": tuple(Finding(**finding) for finding in raw["dropped_rows"]),
            "still_open": stillopen.from_json(raw.get("still_open", ())),
            "pnl_before": money_from(raw["pnl_before"]),
            "pnl_after": money_from(raw["pnl_after"]),
        }
    )
