"""Restore plans: what a restore would do, bound to what was seen, kept under an id for ten minutes and one use."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from . import stillopen
from .durable import read_json, write_atomic
from .model import BotkeepError, Ended, Finding, iso, parse_iso
from .workspace import Workspace

LASTS = timedelta(minutes=10)
KEPT = timedelta(days=7)
"""How long old plans are kept for people to read."""
USED = "used"
"""Name of the mark in a folder of rescued content that a restore has taken."""
_ID = re.compile(r"[0-9a-f]{12}")

Money = tuple[tuple[str, Decimal], ...]
"""(currency, realised over the whole file)."""


@dataclass(frozen=True)
class Counts:
    """Where the rows of a restored file are from, and what is not in it. The first four add up to `rows`."""

    rows: int = 0
    kept: int = 0
    """Rows of the damaged file that the backup has too: they stay."""
    restored: int = 0
    """Rows that only the backup has."""
    salvaged: int = 0
    """Sound rows that only the damaged file has."""
    replayed: int = 0
    """Trades read again from the log or the exchange."""
    dropped: int = 0
    """Unreadable rows and remains of the damaged file."""
    contradicting: int = 0
    """Sound rows of the damaged file that are others than the backup's, and not newer: left out. Perhaps an edit."""
    closed: int = 0
    """Of the rows, those that were open in the backup and are closed as the log says."""

    @property
    def text(self) -> str:
        """For people: `100 kept, 2 from the backup, 10 salvaged, 1 replayed; 2 unreadable rows left out`."""
        parts = [f"{self.kept} kept", f"{self.restored} from the backup", f"{self.salvaged} salvaged"]
        if self.replayed:
            parts.append(f"{self.replayed} replayed")
        if self.closed:
            parts.append(f"{self.closed} of these closed from the log")
        edited = f", and {self.contradicting} sound ones that contradict the backup" if self.contradicting else ""
        return f"{', '.join(parts)}; {self.dropped} unreadable rows left out{edited}"


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would do. `id` is bound to the evidence, the snapshot and the bot."""

    id: str
    bot: str
    path: Path
    made_at: datetime
    expires_at: datetime
    evidence: Mapping[str, Any]
    """The damaged file as its format knows it again; empty: there was no file."""
    findings: tuple[Finding, ...]
    snapshot: str | None
    """None: there is no backup, only what can be salvaged from the damaged file."""
    snapshot_at: datetime | None
    store: str
    """Name of the store that the snapshot is in; empty without one."""
    snapshots_skipped: int
    """Newer snapshots that were damaged themselves."""
    rows_good: int
    """Rows that can be read in the damaged file."""
    rows_bad: int
    counts: Counts
    replay_from: tuple[str, ...]
    """`3 from the log hummingbot.log`."""
    unprovable: str
    """What no source can show; empty: everything since the backup is known."""
    rescued: str
    """Where an earlier restore put what a deleted file held; empty: the file itself is read."""
    from_held: bool
    """The content is that of a deleted file which a process holds open."""
    merges: bool
    """What the deleted file held is added to the file that took its name; no backup is needed."""
    trades_known: int
    """Trades of the file without those that would be replayed: what comes behind them was written since."""
    only_adds: bool
    """The file is sound; missing trades are added to it."""
    pnl_now: Money | None
    """Of the rows that can be read; None where none can."""
    pnl_expected: Money | None
    sha256_expected: str
    """Of the file as it would be now; rows that come in until the plan is carried out change it."""
    notes: tuple[str, ...]
    sentence: str
    still_open: tuple[Ended, ...] = ()
    """Open in the restored file and closed by the log: with any, the bot is not started afterwards."""

    @property
    def rows_expected(self) -> int:
        """Rows of the restored file."""
        return self.counts.rows


def id_of(made: RestorePlan) -> str:
    """Twelve hexadecimal digits that no other evidence, snapshot, bot or moment gives."""
    bound = (made.bot, str(made.path), dict(made.evidence), made.snapshot, iso(made.made_at))
    return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()[:12]


def folder_of(workspace: Workspace, bot: str) -> Path:
    """Where a bot's plans are."""
    return workspace.run_dir(bot) / "plans"


def file_of(workspace: Workspace, made: RestorePlan) -> Path:
    """A plan's record."""
    return folder_of(workspace, made.bot) / f"{made.id}.json"


def keep(workspace: Workspace, made: RestorePlan, replayed: list[dict[str, Any]]) -> None:
    """Write the plan down with the trades that it would add. Raises BotkeepError."""
    folder = folder_of(workspace, made.bot)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in folder.glob("*.json"):
            if made.made_at.timestamp() - old.stat().st_mtime > KEPT.total_seconds():
                old.unlink(missing_ok=True)
        write_atomic(_replayed_file(folder, made.id), json.dumps(replayed).encode())
        write(folder / f"{made.id}.json", {"plan": _as_json(made)})
    except OSError as error:
        raise BotkeepError(f"The plan cannot be kept in {folder}: {error.strerror}.") from error


def _replayed_file(folder: Path, plan_id: str) -> Path:
    return folder / f"{plan_id}.replayed.json"


def replayed(workspace: Workspace, made: RestorePlan) -> list[dict[str, Any]]:
    """The trades that the plan would add, each with its source. Raises BotkeepError."""
    path = _replayed_file(folder_of(workspace, made.bot), made.id)
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        text = f"The trades that plan {made.id} would add cannot be read: {error}. Make a new plan."
        raise BotkeepError(text) from error
    return list(found)


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Durably, the old record or the new one. Raises OSError."""
    write_atomic(path, json.dumps(record, indent=1).encode())


def record_of(workspace: Workspace, bot: str, plan_id: str) -> dict[str, Any]:
    """The record of that id. Raises BotkeepError: no id, unknown, another bot's."""
    if not _ID.fullmatch(plan_id):
        raise BotkeepError(f"{plan_id[:40]!r} is no plan id: those have twelve digits of 0-9 and a-f.")
    record = read_json(folder_of(workspace, bot) / f"{plan_id}.json")
    if record is None:
        others = [path.parents[1].name for path in workspace.run_dir(bot).parent.glob(f"*/plans/{plan_id}.json")]
        if others and bot not in others:
            raise BotkeepError(f"Plan {plan_id} is for {others[0]}, not for {bot}.")
        raise BotkeepError(f"There is no plan {plan_id} of {bot}. Make one: restore_data without a plan_id.")
    return record


def plan_of(record: Mapping[str, Any]) -> RestorePlan:
    """The plan that a record keeps."""
    raw = record["plan"]
    return RestorePlan(
        **{
            **raw,
            "path": Path(raw["path"]),
            "made_at": parse_iso(raw["made_at"]),
            "expires_at": parse_iso(raw["expires_at"]),
            "findings": tuple(Finding(**finding) for finding in raw["findings"]),
            "snapshot_at": parse_iso(raw["snapshot_at"]) if raw["snapshot_at"] else None,
            "counts": Counts(**raw["counts"]),
            "replay_from": tuple(raw["replay_from"]),
            "notes": tuple(raw["notes"]),
            "still_open": stillopen.from_json(raw.get("still_open", ())),
            "pnl_now": money_from(raw["pnl_now"]),
            "pnl_expected": money_from(raw["pnl_expected"]),
        }
    )


def _as_json(made: RestorePlan) -> dict[str, Any]:
    return {
        **asdict(made),
        "path": str(made.path),
        "made_at": iso(made.made_at),
        "expires_at": iso(made.expires_at),
        "snapshot_at": iso(made.snapshot_at) if made.snapshot_at else None,
        "still_open": stillopen.as_json(made.still_open),
        "pnl_now": money_json(made.pnl_now),
        "pnl_expected": money_json(made.pnl_expected),
    }


def money_json(money: Money | None) -> list[list[str]] | None:
    """Plain JSON, exact."""
    return None if money is None else [[name, str(amount)] for name, amount in money]


def money_from(raw: Any) -> Money | None:
    """The reverse."""
    return None if raw is None else tuple((name, Decimal(amount)) for name, amount in raw)
