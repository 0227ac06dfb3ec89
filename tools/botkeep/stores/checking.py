"""Whether a store still holds what it should, and what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from .base import Store, StoredObject
from .manifests import Snapshot, read_all
from .reading import holds


@dataclass(frozen=True)
class BotCheck:
    """What was found of one bot in a store."""

    bot: str
    snapshots: int
    broken: tuple[str, ...] = ()
    """Keys of manifests that cannot be read."""
    objects: int = 0
    """Objects that some snapshot needs."""
    hashed: int = 0
    """Of them, those that were read this time."""
    missing: tuple[str, ...] = ()
    """Keys of objects that a snapshot needs and that are not there, or not of their length."""
    bad: tuple[str, ...] = ()
    """Keys of objects that are there and hold other bytes."""
    loose: int = 0
    """Objects that no snapshot needs: of killed backups, or just being written. `prune` removes old ones."""
    damaged: tuple[str, ...] = ()
    """Snapshots that cannot be restored for that."""
    bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether everything that was looked at is as it was stored."""
        return not (self.broken or self.missing or self.bad)


@dataclass(frozen=True)
class StoreReport:
    """What `store_check` found."""

    store: str
    bots: tuple[BotCheck, ...] = field(default=())
    share: float = 1.0
    """Which share of the objects was hashed; manifests are always read."""

    @property
    def ok(self) -> bool:
        """Of every bot."""
        return all(one.ok for one in self.bots)

    @property
    def sentence(self) -> str:
        """For people."""
        count, hashed = sum(one.snapshots for one in self.bots), sum(one.hashed for one in self.bots)
        head = f"The {self.store} store has {count} backups of {len(self.bots)} bots; {hashed} objects were read."
        bad = [one for one in self.bots if not one.ok]
        if not bad:
            return f"{head} All of it is as it was stored."
        said = "; ".join(
            f"{one.bot}: {len(one.damaged)} backups damaged, {len(one.missing)} objects missing, {len(one.bad)} "
            f"changed, {len(one.broken)} manifests unreadable"
            for one in bad
        )
        return (
            f"{head} Damaged: {said}. No restore uses those; the next backup writes a bad object again if it needs it."
        )


def store_check(store: Store, bots: Sequence[str] | None, *, sample: float | None, now: datetime) -> StoreReport:
    """Read every manifest, and every object (`sample` None) or a share of them: 0.1 is a tenth, another one each day.

    `bots` None: every bot that the store knows. Raises StoreError if the store cannot be read.
    """
    turns = 1 if sample is None else max(1, round(1 / max(sample, 0.001)))
    turn = int(now.timestamp() // 86400) % turns
    names = bots_in(store) if bots is None else bots
    return StoreReport(store.name, tuple(_check(store, bot, turns, turn) for bot in names), 1 / turns)


def _check(store: Store, bot: str, turns: int, turn: int) -> BotCheck:
    stored = {one.key: one for one in store.list(f"objects/{bot}")}  # before the manifests: a backup may be under way
    found, broken = read_all(store, bot)
    needed = {
        key: (sha, length) for one in found for (key, length), (sha, _) in zip(one.objects, one.chunks, strict=True)
    }
    missing = {key for key, (_, length) in needed.items() if not _is_there(store, stored, key, length)}
    asked = [key for key, (sha, _) in needed.items() if key not in missing and int(sha[:8], 16) % turns == turn]
    bad = {key for key in asked if not holds(store, key, needed[key][0])}
    return BotCheck(
        bot=bot,
        snapshots=len(found),
        broken=tuple(broken),
        objects=len(needed),
        hashed=len(asked),
        missing=tuple(sorted(missing)),
        bad=tuple(sorted(bad)),
        loose=sum(key not in needed for key in stored),
        damaged=tuple(one.id for one in found if _needs(one, missing | bad)),
        bytes=sum(one.size for one in stored.values()),
    )


def _is_there(store: Store, stored: Mapping[str, StoredObject], key: str, length: int) -> bool:
    if key in stored:
        return stored[key].size == length
    data = store.get(key)  # it may have come after the list was made
    return data is not None and len(data) == length


def _needs(snapshot: Snapshot, keys: Iterable[str]) -> bool:
    return not {key for key, _ in snapshot.objects}.isdisjoint(keys)


def bots_in(store: Store) -> list[str]:
    """Every bot that the store has manifests of, by name. Raises StoreError."""
    return sorted({one.key.split("/")[1] for one in store.list("manifests")})


@dataclass(frozen=True)
class Shelf:
    """What a store holds of one bot."""

    bot: str
    snapshots: tuple[Snapshot, ...]
    """Oldest first."""
    broken: int
    objects: int
    bytes: int


def store_list(store: Store, bots: Sequence[str] | None = None) -> list[Shelf]:
    """What the store holds, bot by bot (None: every bot that it knows). Nothing is hashed. Raises StoreError."""
    return [_shelf(store, bot) for bot in (bots_in(store) if bots is None else bots)]


def _shelf(store: Store, bot: str) -> Shelf:
    found, broken = read_all(store, bot)
    stored = store.list(f"objects/{bot}")
    return Shelf(bot, tuple(found), len(broken), len(stored), sum(one.size for one in stored))
