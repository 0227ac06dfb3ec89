"""What every backup store gives, and where the work of one is done."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from ..durable import Lock
from ..model import EngineError, StoreError

LOCK_WAIT = 20.0
"""Seconds that a backup waits for another one of the same bot."""

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

    def cache(self, bot: str) -> Path:
        """A local file for what may be lost at any time."""
        ...

    def lock(self, bot: str) -> Lock:
        """Held while a bot's snapshots are written or deleted."""
        ...

    def tidy(self, bot: str, before: float) -> None:
        """Remove what killed backups left: temporary files last changed before that epoch second."""
        ...


class Workplace:
    """A local folder beside a store, or in it: temporary files, locks, and what is worth keeping but may be lost."""

    def __init__(self, work: Path) -> None:
        self._work = work

    def scratch(self) -> Path:
        """A folder for temporary files."""
        return self._folder("tmp")

    def cache(self, bot: str) -> Path:
        """A file for what may be lost at any time."""
        return self._folder("cursors") / f"{bot}.json"

    def lock(self, bot: str) -> Lock:
        """One per bot: backups of different bots do not wait for each other."""
        return Lock(self._folder("locks") / f"{bot}.lock")

    def tidy_scratch(self, before: float) -> None:
        """Remove temporary folders last changed before that epoch second."""
        for folder in tuple(self.scratch().iterdir()):
            found = seen(folder)
            if found is not None and found.st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, name: str) -> Path:
        folder = self._work / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"The backup store cannot use its folder {folder}: {error.strerror or error}.") from error
        return folder


def seen(path: Path) -> os.stat_result | None:
    """Its status, or None if it is gone."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def require_key(key: str) -> str:
    """The key. Raises StoreError for one that could leave the store."""
    if not _KEY.fullmatch(key):
        raise StoreError(f"{key!r} is no key of a backup store.")
    return key


@contextmanager
def locked(store: Store, bot: str) -> Iterator[None]:
    """Alone with a bot's snapshots. Raises StoreError if that cannot be had in time."""
    lock = store.lock(bot)
    try:
        if not lock.acquire(LOCK_WAIT):
            raise StoreError(f"Another backup of {bot} has been under way for {LOCK_WAIT:.0f} s. Ask again later.")
    except EngineError as error:
        raise StoreError(f"The backup store cannot be used: {error}") from error
    with lock:
        yield


@contextmanager
def scratch(store: Store, prefix: str = "backup-") -> Iterator[Path]:
    """A temporary folder. One that a killed backup left is removed by `prune`."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=store.scratch()))
    except OSError as error:
        raise StoreError(f"The backup store has no room for a temporary file: {error.strerror}.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
