"""The second copy: what the local store has and the other one lacks is copied over, object by object, proven.

It comes after the local backup and never fails it. Objects go first and are read back, those that are there already as
well, then the manifest: what the second store names it has. The newest snapshot goes first; what was not reached in
time goes the next time.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from datetime import datetime

from .model import StoreError, iso, parse_iso
from .stores.base import Store, locked
from .stores.manifests import Snapshot, from_bytes, is_complete, keys
from .stores.reading import holds

DEADLINE = 30.0
"""Seconds for one bot's copies."""


@dataclass(frozen=True)
class SecondStatus:
    """How the second copy of one bot's snapshots stands."""

    bot: str
    at: datetime
    ok: bool
    """Everything that the local store has is there now, or there was no time for more."""
    copied: int = 0
    """Snapshots that were copied this time."""
    bytes: int = 0
    """Bytes of objects and manifests that were written there this time."""
    pending: int = 0
    """Snapshots that it still lacks."""
    newest: str = ""
    """The newest snapshot that it is known to have."""
    trouble: str = ""
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """For people."""
        if not self.ok:
            return f"{self.bot} has no second copy of its last {self.pending or 'few'} backups. {self.trouble}"
        more = f" {self.pending} go there next time." if self.pending else ""
        notes = f" Note: {'; '.join(self.notes)}." if self.notes else ""
        return f"{self.bot}: {self.copied} backups copied to the second store and read back.{more}{notes}"


def copy_over(local: Store, second: Store, bot_name: str, *, now: datetime, deadline: float = DEADLINE) -> SecondStatus:
    """Copy to `second` every snapshot of the bot that it lacks, the newest first, for `deadline` seconds at most.

    Never raises StoreError: the status says what went wrong. It is kept in the local store for `last_copy`.
    """
    run = _Run(local, second, bot_name, time.monotonic() + deadline)
    try:
        with locked(second, bot_name):
            run.copy()
    except StoreError as error:
        status = run.status(now, trouble=str(error))
    else:
        status = run.status(now)
    _keep(local, status)
    return status


class _Run:
    def __init__(self, local: Store, second: Store, bot: str, until: float) -> None:
        self._local, self._second, self._bot, self._until = local, second, bot, until
        self._lacks: list[str] = []
        self._known: set[str] = set()
        """Keys of objects that the second store was seen to have, every byte of them."""
        self._newest = ""
        self._copied = self._bytes = 0
        self._notes: list[str] = []

    def copy(self) -> None:
        """Raises StoreError where a store fails; a snapshot that is damaged here is passed over."""
        ours = keys(self._local, self._bot)
        self._lacks = list(reversed(ours))
        theirs = set(keys(self._second, self._bot))
        self._newest = next((key for key in reversed(ours) if key in theirs), "")
        self._lacks = [key for key in reversed(ours) if key not in theirs]
        if not self._lacks:
            return
        for key in tuple(self._lacks):
            if time.monotonic() > self._until:
                return
            self._copy_snapshot(key)
            self._lacks.remove(key)

    def _copy_snapshot(self, key: str) -> None:
        data = self._local.get(key)
        snapshot = from_bytes(key, data) if data is not None else None
        if data is None or snapshot is None:
            return  # pruned meanwhile, or damaged: the local store's check tells of that
        if not (self._copy_objects(snapshot) and self._copy_pruned(snapshot)):
            self._notes.append(f"backup {snapshot.id} is damaged here and was not copied")
            return
        self._second.put(key, data)
        if self._second.get(key) != data:
            raise StoreError(f"The {self._second.name} store gave back another manifest than it was given.")
        self._copied, self._bytes = self._copied + 1, self._bytes + len(data)
        if not self._newest or self._order(key) > self._order(self._newest):
            self._newest = key

    def _copy_objects(self, snapshot: Snapshot) -> bool:
        for (key, _), (sha, _) in zip(snapshot.objects, snapshot.chunks, strict=True):
            if key in self._known or holds(self._second, key, sha):
                self._known.add(key)
                continue
            data = self._local.get(key)
            if data is None or hashlib.sha256(data).hexdigest() != sha:
                return False
            self._second.put(key, data)
            if not holds(self._second, key, sha):
                raise StoreError(f"The {self._second.name} store gave back other bytes than it was given ({key}).")
            self._known.add(key)
            self._bytes += len(data)
        return True

    def _copy_pruned(self, snapshot: Snapshot) -> bool:
        """Copy again what went meanwhile: the lock keeps out this machine's prune, not that of another one."""
        stored = {one.key: one for one in self._second.list(f"objects/{self._bot}")}
        if is_complete(snapshot, stored):
            return True
        self._known -= {key for key, length in snapshot.objects if key not in stored or stored[key].size != length}
        return self._copy_objects(snapshot)

    @staticmethod
    def _order(key: str) -> int:
        number = key.removesuffix(".json").rpartition("-")[2]
        return int(number) if number.isdecimal() else 0

    def status(self, now: datetime, trouble: str = "") -> SecondStatus:
        """What came of it."""
        return SecondStatus(
            bot=self._bot,
            at=now,
            ok=not trouble,
            copied=self._copied,
            bytes=self._bytes,
            pending=len(self._lacks),
            newest=self._newest.rpartition("/")[2].removesuffix(".json"),
            trouble=trouble,
            notes=tuple(self._notes),
        )


def _key(bot: str) -> str:
    return f"second/{bot}.json"


def _keep(local: Store, status: SecondStatus) -> None:
    """Best effort: the status is told to whoever asked, too."""
    body = {**asdict(status), "at": iso(status.at)}
    try:
        local.put(_key(status.bot), json.dumps(body, indent=1, sort_keys=True).encode())
    except StoreError:
        return


def last_copy(local: Store, bot_name: str) -> SecondStatus | None:
    """How the bot's second copy stood when it was made last; None: never, or that cannot be read. Raises StoreError."""
    data = local.get(_key(bot_name))
    try:
        body = json.loads(data or b"")
        return SecondStatus(**{**body, "at": parse_iso(body["at"]), "notes": tuple(body["notes"])})
    except (ValueError, KeyError, TypeError):
        return None
