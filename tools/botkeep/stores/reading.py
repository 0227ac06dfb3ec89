"""Getting snapshots back: nothing is believed that was not hashed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from ..model import StoreError
from .base import Store
from .manifests import Snapshot, newest_first, object_key


def holds(store: Store, key: str, sha: str) -> bool:
    """Whether the object is there and is what it should be."""
    data = store.get(key)
    return data is not None and hashlib.sha256(data).hexdigest() == sha


def is_whole(store: Store, snapshot: Snapshot) -> bool:
    """Whether every byte of it is as it was stored."""
    return all(holds(store, object_key(snapshot.bot, sha), sha) for sha, _ in snapshot.chunks)


def newest_good(store: Store, bot_name: str, *, before: datetime | None = None) -> Snapshot | None:
    """The newest snapshot (of those made before `before`) whose every byte is as it was stored.

    Damaged ones are passed over; `skipped` of the result says how many.
    """
    skipped = 0
    for snapshot in newest_first(store, bot_name):
        if before is not None and snapshot.at >= before:
            continue
        if is_whole(store, snapshot):
            return replace(snapshot, skipped=skipped)
        skipped += 1
    return None


def newest_of(
    stores: Sequence[Store], bot_name: str, *, before: datetime | None = None
) -> tuple[Store, Snapshot] | None:
    """Where the newest good snapshot is: in the first store, unless it has none or only older ones than the next.

    The next store is asked only if the first cannot be read, has none, or had to pass over damaged ones. Raises
    StoreError if none has one and one of them could not be asked.
    """
    found: tuple[Store, Snapshot] | None = None
    trouble: StoreError | None = None
    for store in stores:
        try:
            good = newest_good(store, bot_name, before=before)
        except StoreError as error:
            trouble = trouble or error
            continue
        if good is not None and (found is None or good.seq > found[1].seq):
            found = (store, good)
        if found is not None and not found[1].skipped:
            return found
    if found is None and trouble is not None:
        raise trouble
    return found


def fetch(store: Store, snapshot: Snapshot, target: Path) -> None:
    """Write the snapshot's content to `target`, every chunk and the whole checked, fsynced.

    Raises StoreError if an object is missing or damaged; then `target` is not to be used.
    """
    running = hashlib.sha256()
    try:
        with target.open("wb") as file:
            for sha, _ in snapshot.chunks:
                data = store.get(object_key(snapshot.bot, sha))
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
