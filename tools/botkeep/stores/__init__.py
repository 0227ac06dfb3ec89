"""Where backups are kept: a local folder, and a second copy in an S3 bucket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..config import Fleet
from .base import Store, StoredObject
from .local import KEEP_FREE, FolderStore, LocalStore
from .s3 import S3Store

__all__ = ["FolderStore", "LocalStore", "S3Store", "Store", "StoredObject", "Stores", "open_stores"]


@dataclass(frozen=True)
class Stores:
    """The stores of a workspace, for one run."""

    local: LocalStore
    second: S3Store | None = None

    @property
    def all(self) -> tuple[Store, ...]:
        """In the order in which they are asked."""
        return (self.local, self.second) if self.second else (self.local,)


def open_stores(fleet: Fleet, environ: Mapping[str, str] | None = None, keep_free: int = KEEP_FREE) -> Stores:
    """The stores that the configuration names. Touches no disk and no network: what is wrong is said at the first use.

    `environ`: where credentials are looked for; None: our own environment.
    """
    state, backup = fleet.workspace.state_dir, fleet.backup
    local = (
        FolderStore(backup.folder, state, keep_free)
        if backup.folder is not None
        else LocalStore(fleet.workspace.backups_dir, keep_free)
    )
    second = S3Store(backup.s3, state / "second", environ) if backup.s3 is not None else None
    return Stores(local, second)
