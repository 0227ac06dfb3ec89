"""Quarantine: damaged files are copied aside, durably, before anything is done to them. Never moved, never deleted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from .durable import fsync_dir, write_atomic
from .formats.files import UnreadableError, regular
from .model import BotkeepError, iso
from .workspace import Workspace


def quarantine(
    bot_name: str,
    path: Path,
    companions: Iterable[Path],
    workspace: Workspace,
    now: datetime,
    *,
    source: Path | None = None,
) -> Path:
    """Copy the data file and its companions, whatever is in them, to a new folder of .botkeep/quarantine; gives it.

    `source`: what a deleted file of that name held; beside a file that took its name it is kept as NAME.deleted.
    Nothing is moved: a bot whose file was moved away went on writing into the moved one. Beside the copies lies
    `note.json` (where from, when, size, sha256 of each); for a missing file, only that. Raises BotkeepError.
    """
    folder = _unused(workspace.quarantine_dir / bot_name / f"{now:%Y%m%dT%H%M%S.%fZ}")
    try:
        folder.mkdir(mode=0o700, parents=True)
        source = source or path
        first = path if path.exists() else source
        note = {"path": str(path), "at": iso(now), **_copy_aside(first, folder / path.name)}
        beside = {one.name: _copy_aside(one, folder / one.name) for one in companions}
        if source != first:
            beside[f"{path.name}.deleted"] = _copy_aside(source, folder / f"{path.name}.deleted")
        if beside:
            note["companions"] = beside
        write_atomic(folder / "note.json", json.dumps(note, indent=1).encode(), 0o400)
        for made in (folder, folder.parent, workspace.quarantine_dir):
            fsync_dir(made)
    except UnreadableError as error:
        raise BotkeepError(f"{path} cannot be copied to quarantine: {error}.") from error
    except OSError as error:
        raise BotkeepError(
            f"The quarantine {folder} cannot be written: {error.strerror}. Nothing was changed."
        ) from error
    return folder


def _unused(folder: Path) -> Path:
    """That name, or with a number behind it: what is in quarantine is never written over."""
    names = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(name for name in chain((folder,), names) if not name.exists())


def _copy_aside(path: Path, target: Path) -> dict[str, Any]:
    """The copy. Runs of zeros stay holes: a sparse file of 10 GiB would fill the disk."""
    running = hashlib.sha256()
    try:
        with regular(path) as source, target.open("xb") as file:
            for data in source.chunks(0, source.size):
                running.update(data)
                if data.count(0) == len(data):
                    file.seek(len(data), os.SEEK_CUR)
                else:
                    file.write(data)
            file.truncate(file.tell())
            file.flush()
            os.fchmod(file.fileno(), 0o400)
            os.fsync(file.fileno())
            return {"size": file.tell(), "sha256": running.hexdigest(), "mtime_ns": source.stat.st_mtime_ns}
    except FileNotFoundError:
        return {"missing": True}
