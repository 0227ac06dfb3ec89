"""What a snapshot is made of: the manifest, written last and read first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..model import DataVerdict, StoreError, iso, parse_iso
from .base import Store, StoredObject

SCHEMA = 2
"""1 had no mark, no reason of a person's, and no figures; it is still read."""


@dataclass(frozen=True)
class Snapshot:
    """A verified copy of a bot's data file, as its manifest says."""

    id: str
    bot: str
    at: datetime
    seq: int
    """Counts a bot's snapshots: their order, whatever a clock said."""
    kind: str
    size: int
    sha256: str
    rows: int | None
    first_at: datetime | None
    last_at: datetime | None
    chunks: tuple[tuple[str, int], ...]
    """(sha256, length)."""
    source: Mapping[str, int]
    """dev, ino, size, mtime_ns, mode, uid and gid of the data file."""
    journal: tuple[int, str]
    """(seq, hash) of the newest ledger entry then: a rewritten ledger disagrees with it."""
    notes: tuple[str, ...] = ()
    skipped: int = 0
    """Set by `newest_good`: how many newer snapshots were found damaged."""
    mark: Mapping[str, Any] = field(default_factory=dict)
    """By which the format knows this content again."""
    accepted: str = ""
    """A person's reason to take the file as it was, although rows of the snapshot before were changed or gone."""
    figures: Mapping[str, Any] | None = None
    """{trades, realised: {currency: amount}} when it was backed up; None: not counted then."""
    checked: str = ""
    """By which options and which botkeep it was found sound."""
    path: str = ""
    """Of the data file, links followed; empty: not noted then."""

    @property
    def key(self) -> str:
        """Of its manifest."""
        return f"manifests/{self.bot}/{self.id}.json"

    @property
    def objects(self) -> Iterator[tuple[str, int]]:
        """(key, length) of every object it is made of."""
        return ((object_key(self.bot, sha), length) for sha, length in self.chunks)

    @property
    def sentence(self) -> str:
        """What was stored, for people."""
        rows = f"{self.rows} rows" if self.rows is not None else f"{self.size} bytes"
        last = f", the last of {self.last_at:%Y-%m-%d %H:%M:%SZ}" if self.last_at else ""
        more = f" Note: {'; '.join(self.notes)}." if self.notes else ""
        return f"{self.bot} was backed up: {rows}{last}, verified by reading it back.{more}"

    def as_data(self) -> dict[str, Any]:
        """For a ledger entry or a result."""
        return {
            "snapshot": self.id,
            "at": iso(self.at),
            "rows": self.rows,
            "size": self.size,
            "sha256": self.sha256,
            "last_at": iso(self.last_at) if self.last_at else None,
            "notes": list(self.notes),
        }


def object_key(bot: str, sha: str) -> str:
    """Where a chunk is."""
    return f"objects/{bot}/{sha[:2]}/{sha}"


def to_bytes(snapshot: Snapshot) -> bytes:
    """The manifest."""
    body = {
        "schema": SCHEMA,
        "bot": snapshot.bot,
        "at": iso(snapshot.at),
        "seq": snapshot.seq,
        "kind": snapshot.kind,
        "size": snapshot.size,
        "sha256": snapshot.sha256,
        "rows": snapshot.rows,
        "first_at": iso(snapshot.first_at) if snapshot.first_at else None,
        "last_at": iso(snapshot.last_at) if snapshot.last_at else None,
        "chunks": [list(chunk) for chunk in snapshot.chunks],
        "source": dict(snapshot.source),
        "cut": snapshot.source["size"] - snapshot.size,
        "journal": {"seq": snapshot.journal[0], "hash": snapshot.journal[1]},
        "verdict": DataVerdict.OK.value,
        "read_back": True,
        "notes": list(snapshot.notes),
        "mark": dict(snapshot.mark),
        "accepted": snapshot.accepted,
        "figures": snapshot.figures,
        "checked": snapshot.checked,
        "path": snapshot.path,
    }
    body["check"] = _check_of(body)
    return json.dumps(body, indent=1, sort_keys=True).encode()


def _check_of(body: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in body.items() if name != "check"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def from_bytes(key: str, data: bytes) -> Snapshot | None:
    """The snapshot; None for a manifest that was torn, changed, or is of another bot or version."""
    _, bot, name = key.split("/")
    try:
        body = json.loads(data)
        if body["check"] != _check_of(body) or body["schema"] not in (1, SCHEMA) or body["bot"] != bot:
            return None
        return Snapshot(
            id=name.removesuffix(".json"),
            bot=bot,
            at=parse_iso(body["at"]),
            seq=int(body["seq"]),
            kind=body["kind"],
            size=int(body["size"]),
            sha256=body["sha256"],
            rows=body["rows"],
            first_at=parse_iso(body["first_at"]) if body["first_at"] else None,
            last_at=parse_iso(body["last_at"]) if body["last_at"] else None,
            chunks=tuple((sha, int(length)) for sha, length in body["chunks"]),
            source=body["source"],
            journal=(body["journal"]["seq"], body["journal"]["hash"]),
            notes=tuple(body["notes"]),
            mark=body.get("mark") or {name: body[name] for name in ("size", "sha256", "rows")},
            accepted=body.get("accepted", ""),
            figures=body.get("figures"),
            checked=body.get("checked", ""),
            path=body.get("path", ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


# --- a bot's manifests in a store --------------------------------------------------------------------------------


def keys(store: Store, bot: str) -> list[str]:
    """Keys of the bot's manifests, the newest last, by the count in their names."""
    return sorted((one.key for one in store.list(f"manifests/{bot}")), key=_order)


def _order(key: str) -> tuple[int, str]:
    number = key.removesuffix(".json").rpartition("-")[2]
    return (int(number) if number.isdecimal() and number.isascii() else 0, key)


def newest(store: Store, bot: str) -> tuple[Snapshot | None, int]:
    """The newest snapshot whose manifest can be read, and the count that the next one gets."""
    found = keys(store, bot)
    count = _order(found[-1])[0] + 1 if found else 1
    return next(_readable(store, reversed(found)), None), count


def newest_first(store: Store, bot: str) -> Iterator[Snapshot]:
    """The bot's snapshots, each read when it is asked for."""
    return _readable(store, reversed(keys(store, bot)))


def _readable(store: Store, found: Iterator[str]) -> Iterator[Snapshot]:
    for key in found:
        data = store.get(key)
        snapshot = from_bytes(key, data) if data is not None else None
        if snapshot is not None:
            yield snapshot


def read_all(store: Store, bot: str) -> tuple[list[Snapshot], list[str]]:
    """The bot's snapshots, oldest first, and the keys of manifests that cannot be read."""
    found, broken = [], []
    for key in keys(store, bot):
        data = store.get(key)
        snapshot = from_bytes(key, data) if data is not None else None
        if snapshot is not None:
            found.append(snapshot)
        elif data is not None:
            broken.append(key)
    return sorted(found, key=lambda one: (one.seq, one.id)), broken


def snapshots(store: Store, bot_name: str) -> list[Snapshot]:
    """The bot's snapshots as their manifests say, oldest first. Objects are not read: `newest_good` does that."""
    return read_all(store, bot_name)[0]


def broken_manifests(store: Store, bot_name: str) -> list[str]:
    """Keys of manifests that were torn or changed. They are left where they are, and nothing is restored from them."""
    return read_all(store, bot_name)[1]


def commit(store: Store, snapshot: Snapshot) -> Snapshot:
    """Store the manifest: with it the snapshot is there. Raises StoreError."""
    data = to_bytes(snapshot)
    store.put(snapshot.key, data)
    if store.get(snapshot.key) != data:
        raise StoreError(f"The {store.name} backup store gave back another manifest than it was given.")
    return snapshot


def is_complete(snapshot: Snapshot, stored: Mapping[str, StoredObject]) -> bool:
    """Whether every object it needs is listed with its length."""
    return all(key in stored and stored[key].size == length for key, length in snapshot.objects)
