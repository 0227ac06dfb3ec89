"""Which snapshots are kept, and the removal of the others: manifests first, then objects that none names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .stores.base import Store, StoredObject, locked
from .stores.manifests import Snapshot, is_complete, keys, read_all
from .stores.reading import is_whole

GRACE = timedelta(hours=24)
"""Nothing younger is ever deleted, neither a snapshot nor an object that nobody names yet."""
WORTH = 12
"""Snapshots that have to be removable before every manifest is read for it."""

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


def is_due(store: Store, bot_name: str, now: datetime) -> bool:
    """Whether pruning is worth its while: half a day of hourly snapshots could go, by the times in their names.

    To prune reads every manifest; this reads none. Raises StoreError.
    """
    times = [at for key in keys(store, bot_name) if (at := _time_in(key)) is not None]
    return len(times) - len(to_keep([_stub(n, at) for n, at in enumerate(times)], now, None, lambda _: True)) >= WORTH


def _time_in(key: str) -> datetime | None:
    name = key.rpartition("/")[2].partition("-")[0]
    try:
        return datetime.strptime(name, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _stub(number: int, at: datetime) -> Snapshot:
    return Snapshot(str(number), "", at, number, "", 0, "", None, None, None, (), {}, (0, ""))


def prune(store: Store, bot_name: str, now: datetime, dry_run: bool = False) -> Pruned:
    """Remove what the policy does not keep: manifests first, then objects that none names, older than a day.

    Raises StoreError. With `dry_run` nothing is changed.
    """
    with locked(store, bot_name):
        stored = {one.key: one for one in store.list(f"objects/{bot_name}")}
        found, broken = read_all(store, bot_name)
        good = next((one for one in reversed(found) if is_whole(store, one)), None)
        keep = to_keep(found, now, good.id if good else None, lambda one: is_complete(one, stored))
        removed = [one for one in found if one.id not in keep]
        oldest = now.timestamp() - GRACE.total_seconds()
        loose = _loose(stored.values(), (one for one in found if one.id in keep), oldest)
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


def _loose(stored: Iterable[StoredObject], kept: Iterable[Snapshot], before: float) -> list[StoredObject]:
    """Objects that no kept snapshot is made of, older than that epoch second."""
    used = {key for one in kept for key, _ in one.objects}
    return [one for one in stored if one.key not in used and one.modified < before]
