"""Verified snapshots of data files in a store.

    objects/<bot>/<aa>/<sha256>     one chunk of at most 1 MiB, named by its content, never changed
    manifests/<bot>/<time>-<n>.json what a snapshot is made of, written last: with it the snapshot is there

A backup writes objects, reads them back, then writes the manifest. Reading goes from manifest to objects; deleting
removes manifests, and later the objects that no manifest names. Killed anywhere, a store has every snapshot whose
manifest it has, and at worst some objects too many. Trade files grow at their end, so a snapshot of a grown file stores
its last chunk anew, one of an unchanged file nothing. Objects are kept per bot: no two bots share a trade.

Only a file that was found sound is stored, and nothing that is stored is ever replaced: a damaged file is refused, and
the last good snapshot stays what it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .config import Bot
from .durable import Lock, fsync_dir, write_atomic
from .formats.base import Format, FormatOptions, SnapshotCut, inspect_whole
from .formats.files import regular
from .model import BotkeepError, DataVerdict, EngineError, Inspection, StoreError, iso, parse_iso

CHUNK = 1 << 20
SCHEMA = 1
GRACE = timedelta(hours=24)
"""Nothing younger is ever deleted, neither a snapshot nor an object that nobody names yet."""
KEEP_FREE = 1 << 30
"""Bytes of disk that a backup leaves alone: a full disk is worse than an old backup."""
LOCK_WAIT = 20.0
TRIES = 8

_KEY = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,120}/){1,4}[A-Za-z0-9_][A-Za-z0-9._-]{0,120}")


class StoredObject(NamedTuple):
    """One key of a store, as listed."""

    key: str
    size: int
    modified: float
    """Epoch seconds."""


class Store(Protocol):
    """Where snapshots are kept. Keys are paths of plain words. Every method may raise StoreError."""

    name: str
    """What people call it."""

    def put(self, key: str, data: bytes) -> None:
        """Store durably, replacing what a damaged disk made of it. The same key always means the same bytes."""
        ...

    def get(self, key: str) -> bytes | None:
        """The bytes, or None if there are none of that key."""
        ...

    def list(self, prefix: str) -> Sequence[StoredObject]:
        """Every key under the folder `prefix`, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove it if it is there."""
        ...

    def require_room(self, size: int) -> None:
        """Raises StoreError if `size` more bytes should not be written."""
        ...

    def scratch(self) -> Path:
        """A local folder for temporary files."""
        ...

    def lock(self, bot: str) -> Lock:
        """Held while a bot's snapshots are written or deleted."""
        ...

    def tidy(self, bot: str, before: float) -> None:
        """Remove what killed backups left: temporary files last changed before that epoch second."""
        ...


class LocalStore:
    """A folder of this machine."""

    name = "local"

    def __init__(self, root: Path, keep_free: int = KEEP_FREE) -> None:
        self.root = root
        self._keep_free = keep_free

    def put(self, key: str, data: bytes) -> None:
        """Temporary file, fsync, rename, fsync of the folder; mode 0400."""
        path = self._path(key)
        try:
            _make_folders(path.parent, self.root)
            write_atomic(path, data, 0o400)
        except OSError as error:
            raise self._trouble("written", error) from error

    def get(self, key: str) -> bytes | None:
        """The bytes, or None."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._trouble("read", error) from error

    def list(self, prefix: str) -> Sequence[StoredObject]:
        """Every key under the folder `prefix`."""
        return sorted(
            StoredObject(str(path.relative_to(self.root)), seen.st_size, seen.st_mtime)
            for path, seen in self._files(prefix)
            if not path.name.startswith(".")
        )

    def _files(self, prefix: str) -> Iterator[tuple[Path, os.stat_result]]:
        """Every file under the folder; one that a backup renames or removes meanwhile is passed over."""
        if not (self.root / prefix).exists():
            return
        try:
            for folder, _, names in os.walk(self.root / prefix, onerror=_raise):
                for path in (Path(folder) / name for name in names):
                    if (seen := _seen(path)) is not None:
                        yield path, seen
        except OSError as error:
            raise self._trouble("listed", error) from error

    def delete(self, key: str) -> None:
        """Durably."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
            fsync_dir(path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._trouble("cleaned up", error) from error

    def require_room(self, size: int) -> None:
        """Twice the size, and never the last gibibyte."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self.root).free
        except OSError as error:
            raise self._trouble("used", error) from error
        needed = max(self._keep_free, 2 * size)
        if free < needed:
            raise StoreError(
                f"The disk of the backup store {self.root} has {free / 1e6:.0f} MB free, and a backup leaves at least "
                f"{needed / 1e6:.0f} MB: nothing was stored. Free some space there."
            )

    def scratch(self) -> Path:
        """A folder inside the store, on the same disk."""
        folder = self.root / "tmp"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._trouble("used", error) from error
        return folder

    def lock(self, bot: str) -> Lock:
        """One per bot: backups of different bots do not wait for each other."""
        folder = self.root / "locks"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._trouble("used", error) from error
        return Lock(folder / f"{bot}.lock")

    def tidy(self, bot: str, before: float) -> None:
        """Half-written objects and manifests of the bot, and folders in the scratch folder."""
        for prefix in (f"objects/{bot}", f"manifests/{bot}"):
            for path, seen in tuple(self._files(prefix)):
                if seen.st_mtime < before and path.name.startswith("."):
                    path.unlink(missing_ok=True)
        for folder in tuple(self.scratch().iterdir()):
            found = _seen(folder)
            if found is not None and found.st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise StoreError(f"{key!r} is no key of a backup store.")
        return self.root / key

    def _trouble(self, verb: str, error: OSError) -> StoreError:
        return StoreError(f"The backup store {self.root} cannot be {verb}: {error.strerror or error}.")


def _raise(error: OSError) -> None:
    raise error


def _seen(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _make_folders(folder: Path, root: Path) -> None:
    """As mkdir -p, each new name made durable: a file in a folder that a power cut forgot is lost as well."""
    missing = [one for one in (folder, *folder.parents) if one.is_relative_to(root) and not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)
        fsync_dir(one.parent)


# --- manifests ---------------------------------------------------------------------------------------------------


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

    @property
    def key(self) -> str:
        """Of its manifest."""
        return f"manifests/{self.bot}/{self.id}.json"

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


def _as_manifest(snapshot: Snapshot) -> bytes:
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
    }
    body["check"] = _check_of(body)
    return json.dumps(body, indent=1, sort_keys=True).encode()


def _check_of(body: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in body.items() if name != "check"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _from_manifest(key: str, data: bytes) -> Snapshot | None:
    """The snapshot; None for a manifest that was torn, changed, or is of another bot or version."""
    _, bot, name = key.split("/")
    try:
        body = json.loads(data)
        if body["check"] != _check_of(body) or body["schema"] != SCHEMA or body["bot"] != bot:
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
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _manifests(store: Store, bot: str) -> tuple[list[Snapshot], list[str]]:
    """The bot's snapshots, oldest first, and the keys of manifests that cannot be read."""
    found, broken = [], []
    for stored in store.list(f"manifests/{bot}"):
        data = store.get(stored.key)
        snapshot = _from_manifest(stored.key, data) if data is not None else None
        if snapshot is not None:
            found.append(snapshot)
        elif data is not None:
            broken.append(stored.key)
    return sorted(found, key=lambda one: (one.seq, one.id)), broken


def snapshots(store: Store, bot_name: str) -> list[Snapshot]:
    """The bot's snapshots as their manifests say, oldest first. Objects are not read: `newest_good` does that."""
    return _manifests(store, bot_name)[0]


def broken_manifests(store: Store, bot_name: str) -> list[str]:
    """Keys of manifests that were torn or changed. They are left where they are, and nothing is restored from them."""
    return _manifests(store, bot_name)[1]


def _object_key(bot: str, sha: str) -> str:
    return f"objects/{bot}/{sha[:2]}/{sha}"


# --- backing up --------------------------------------------------------------------------------------------------


def back_up(
    bot: Bot,
    store: Store,
    *,
    format: Format,  # noqa: A002
    options: FormatOptions,
    now: datetime,
    head: tuple[int, str],
) -> Snapshot:
    """Take, verify and store a snapshot of the bot's data file. `head`: (seq, hash) of the newest ledger entry.

    Raises BotkeepError if the file is missing, empty, damaged, or has lost rows that the last good snapshot has, and
    StoreError if the store cannot take it. Whatever is raised, every snapshot that was good before still is.
    """
    path = _data_file(bot)
    store.require_room(_size_of(path))
    with _locked(store, bot.name), _scratch(store) as folder:
        known, _ = _manifests(store, bot.name)
        cut, seen, notes = _take(bot, path, folder / "copy", known[-1] if known else None, (format, options, now))
        seq = known[-1].seq + 1 if known else 1
        return _commit(
            store,
            Snapshot(
                id=f"{now:%Y%m%dT%H%M%S.%fZ}-{seq}",
                bot=bot.name,
                at=now,
                seq=seq,
                kind=format.KIND,
                size=cut.size,
                sha256=cut.sha256,
                rows=seen.rows,
                first_at=cut.first_at,
                last_at=seen.tempo.newest,
                chunks=tuple(_store_chunks(store, bot.name, folder / "copy", cut.size)),
                source=cut.source,
                journal=head,
                notes=notes,
            ),
        )


class _ShrunkError(BotkeepError):
    """Rows are gone, or not yet written again by a bot that saves its whole table."""


def _take(
    bot: Bot, path: Path, copy: Path, last: Snapshot | None, how: tuple[Format, FormatOptions, datetime]
) -> tuple[SnapshotCut, Inspection, tuple[str, ...]]:
    """A sound copy with what has to be noted about it. A table caught half written is waited for."""
    kind, options, now = how
    for tried in range(1, TRIES + 1):
        cut = kind.snapshot(path, copy, options=options)
        seen = inspect_whole(kind, copy, options=options, now=now)
        try:
            _refuse_damaged(bot, path, cut, seen)
            return cut, seen, _compare(bot, path, copy, last, seen, options)
        except _ShrunkError:
            if tried == TRIES:
                raise
            time.sleep(0.05)
    raise AssertionError("unreachable")


def _data_file(bot: Bot) -> Path:
    if bot.data_file is None:
        raise BotkeepError(f"{bot.name} has no data_file in bots.json: there is nothing to back up.")
    return bot.data_file


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # what is wrong with it is said when it is copied


@contextmanager
def _locked(store: Store, bot: str) -> Iterator[None]:
    lock = store.lock(bot)
    try:
        if not lock.acquire(LOCK_WAIT):
            raise StoreError(f"Another backup of {bot} has been under way for {LOCK_WAIT:.0f} s. Ask again later.")
    except EngineError as error:
        raise StoreError(f"The backup store cannot be used: {error}") from error
    with lock:
        yield


@contextmanager
def _scratch(store: Store) -> Iterator[Path]:
    """A temporary folder. One that a killed backup left is removed by `prune`."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="backup-", dir=store.scratch()))
    except OSError as error:
        raise StoreError(f"The backup store has no room for a temporary file: {error.strerror}.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_damaged(bot: Bot, path: Path, cut: SnapshotCut, seen: Inspection) -> None:
    if seen.verdict is DataVerdict.OK and cut.size:
        return
    if not cut.size and not cut.source["size"]:
        raise _ShrunkError(f"{path} is empty: there is nothing of {bot.name} to back up yet.")
    found = seen.findings[0] if seen.findings else None
    where = f" (row {found.row})" if found and found.row else ""
    what = f"{found.rule}{where}: {found.text}" if found else seen.verdict.value
    raise BotkeepError(
        f"{path} was not backed up, since it is not sound. {what} The last good backup is unchanged. "
        f"`botkeep restore {bot.name}` shows what can be done."
    )


def _compare(
    bot: Bot, path: Path, copy: Path, last: Snapshot | None, seen: Inspection, options: FormatOptions
) -> tuple[str, ...]:
    """What has to be noted against the last snapshot. Raises BotkeepError if rows of it are gone."""
    if last is None or last.rows is None or seen.rows is None:
        return ()
    with regular(copy) as source:
        if source.digest(0, last.size) == last.sha256:
            return ()
    if seen.rows >= last.rows:
        return () if options.mode == "rewrite" else ("rows that were backed up before have changed in the file",)
    if beside := rotated(path, last):
        return (f"the file began anew; what it held before is in {beside.name}",)
    raise _ShrunkError(
        f"{path} was not backed up: it has {seen.rows} rows, and the backup of {last.at:%Y-%m-%d %H:%M:%SZ} has "
        f"{last.rows}. That backup is unchanged. `botkeep restore {bot.name}` puts the missing rows back; if they were "
        f"taken out on purpose, put the old file beside it (as {path.name}.1)."
    )


def rotated(path: Path, last: Snapshot) -> Path | None:
    """The file beside it that begins with the content of the last snapshot."""
    for sibling in sorted(path.parent.glob(f"{escape(path.stem)}*")):
        if sibling == path:
            continue
        try:
            with regular(sibling) as source:
                if source.size >= last.size and source.digest(0, last.size) == last.sha256:
                    return sibling
        except OSError:
            continue
    return None


def _store_chunks(store: Store, bot: str, copy: Path, size: int) -> Iterator[tuple[str, int]]:
    """Store what is not there yet and read everything back. An object that went bad on the disk is written again."""
    with regular(copy) as source:
        for data in source.chunks(0, size):
            sha = hashlib.sha256(data).hexdigest()
            key = _object_key(bot, sha)
            if not _holds(store, key, sha):
                store.put(key, data)
                if not _holds(store, key, sha):
                    raise StoreError(f"The {store.name} backup store gave back other bytes than it was given ({key}).")
            yield sha, len(data)


def _holds(store: Store, key: str, sha: str) -> bool:
    data = store.get(key)
    return data is not None and hashlib.sha256(data).hexdigest() == sha


def _commit(store: Store, snapshot: Snapshot) -> Snapshot:
    """The manifest: with it the snapshot is there."""
    data = _as_manifest(snapshot)
    store.put(snapshot.key, data)
    if store.get(snapshot.key) != data:
        raise StoreError(f"The {store.name} backup store gave back another manifest than it was given.")
    return snapshot


# --- reading back ------------------------------------------------------------------------------------------------


def newest_good(store: Store, bot_name: str, *, before: datetime | None = None) -> Snapshot | None:
    """The newest snapshot (of those made before `before`) whose every byte is as it was stored.

    Damaged ones are passed over; `skipped` of the result says how many.
    """
    skipped = 0
    for snapshot in reversed(snapshots(store, bot_name)):
        if before is not None and snapshot.at >= before:
            continue
        if _is_whole(store, snapshot):
            return replace(snapshot, skipped=skipped)
        skipped += 1
    return None


def _is_whole(store: Store, snapshot: Snapshot) -> bool:
    return all(_holds(store, _object_key(snapshot.bot, sha), sha) for sha, _ in snapshot.chunks)


def fetch(store: Store, snapshot: Snapshot, target: Path) -> None:
    """Write the snapshot's content to `target`, every chunk and the whole checked, fsynced.

    Raises StoreError if an object is missing or damaged; then `target` is not to be used.
    """
    running = hashlib.sha256()
    try:
        with target.open("wb") as file:
            for sha, _ in snapshot.chunks:
                data = store.get(_object_key(snapshot.bot, sha))
                if data is None or hashlib.sha256(data).hexdigest() != sha:
                    raise StoreError(f"Snapshot {snapshot.id} of {snapshot.bot} is damaged in the {store.name} store.")
                running.update(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"Snapshot {snapshot.id} cannot be written to {target}: {error.strerror}.") from error
    if running.hexdigest() != snapshot.sha256:
        raise StoreError(f"Snapshot {snapshot.id} of {snapshot.bot} is not what its manifest says.")


# --- pruning -----------------------------------------------------------------------------------------------------

Bucket = Callable[[datetime], tuple[int, ...]]

POLICY: tuple[tuple[str, int, Bucket], ...] = (
    ("hourly", 48, lambda at: (at.year, at.month, at.day, at.hour)),
    ("daily", 14, lambda at: (at.year, at.month, at.day)),
    ("weekly", 8, lambda at: tuple(at.isocalendar()[:2])),
    ("monthly", 12, lambda at: (at.year, at.month)),
)
"""(name, how many, what part of the time tells two apart), in UTC."""


@dataclass(frozen=True)
class Pruned:
    """What `prune` kept and why, and what it removed (or would remove)."""

    kept: tuple[tuple[str, str], ...]
    """(snapshot, reasons)."""
    removed: tuple[str, ...]
    objects: int
    freed: int
    """Bytes."""
    notes: tuple[str, ...] = ()


def to_keep(
    found: Sequence[Snapshot], now: datetime, good: str | None, is_complete: Callable[[Snapshot], bool]
) -> dict[str, str]:
    """Snapshot id -> why it is kept. Pure.

    As restic's `forget --keep-hourly 48 --keep-daily 14 --keep-weekly 8 --keep-monthly 12`: from the newest to the
    oldest, the last snapshot of an hour (day, week, month) is kept until so many hours that have one are found. Ages
    count from the newest snapshot, not from now: a bot that was off for a month loses none. Besides: the last verified
    good one, the oldest, everything younger than a day, everything dated in the future (a clock was wrong; nobody
    knows when it was), and nothing that misses an object takes the place of one that does not.
    """
    keep: dict[str, list[str]] = {}
    past = sorted((one for one in found if one.at <= now), key=lambda one: (one.at, one.seq), reverse=True)
    for snapshot in found:
        if snapshot.at > now:
            keep.setdefault(snapshot.id, []).append("dated in the future")
    counted = [one for one in past if is_complete(one)]
    for name, count, bucket in POLICY:
        for snapshot in _last_of_each(counted, bucket, count):
            keep.setdefault(snapshot.id, []).append(name)
    for snapshot in past:
        if past[0].at - snapshot.at < GRACE:
            keep.setdefault(snapshot.id, []).append("younger than a day")
    if past:
        keep.setdefault(past[-1].id, []).append("the oldest")
    if good is not None:
        keep.setdefault(good, []).append("the last verified good")
    return {name: ", ".join(reasons) for name, reasons in keep.items()}


def _last_of_each(newest_first: Iterable[Snapshot], bucket: Bucket, count: int) -> Iterator[Snapshot]:
    seen: tuple[int, ...] | None = None
    for snapshot in newest_first:
        if count > 0 and bucket(snapshot.at) != seen:
            seen, count = bucket(snapshot.at), count - 1
            yield snapshot


def prune(store: Store, bot_name: str, now: datetime, dry_run: bool = False) -> Pruned:
    """Remove what the policy does not keep: manifests first, then objects that none names, older than a day.

    Raises StoreError. With `dry_run` nothing is changed.
    """
    with _locked(store, bot_name):
        found, broken = _manifests(store, bot_name)
        stored = {one.key: one for one in store.list(f"objects/{bot_name}")}
        good = newest_good(store, bot_name)
        keep = to_keep(found, now, good.id if good else None, lambda one: _is_complete(one, stored))
        removed = [one for one in found if one.id not in keep]
        used = {_object_key(bot_name, sha) for one in found if one.id in keep for sha, _ in one.chunks}
        oldest = now.timestamp() - GRACE.total_seconds()
        loose = [one for one in stored.values() if one.key not in used and one.modified < oldest]
        notes = []
        if broken:
            loose = []  # a person may still mend the manifest, as long as its objects are there
            notes.append(f"{len(broken)} manifests cannot be read, so no object was removed: {', '.join(broken[:3])}")
        if not dry_run:
            for key in [*(one.key for one in removed), *(one.key for one in loose)]:
                store.delete(key)
            store.tidy(bot_name, oldest)
        return Pruned(
            kept=tuple((one.id, keep[one.id]) for one in found if one.id in keep),
            removed=tuple(one.id for one in removed),
            objects=len(loose),
            freed=sum(one.size for one in loose),
            notes=tuple(notes),
        )


def _is_complete(snapshot: Snapshot, stored: Mapping[str, StoredObject]) -> bool:
    keys = [(_object_key(snapshot.bot, sha), length) for sha, length in snapshot.chunks]
    return all(key in stored and stored[key].size == length for key, length in keys)
