"""Output that an engine keeps, copied as it grows: one file here for all engines, so that a log is read in one way.

The copy outlives the container that wrote it: how a run died is asked after Compose has made a new one. Each byte
stands in it once: one reader at a time, and what a killed one appended without saying so is taken off again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botkeep.durable import Lock, read_json, write_atomic
from botkeep.model import EngineError

from .base import Target

if TYPE_CHECKING:
    from .engine import Engine, Unit

READ_SECONDS = 4.0
ROTATED = 3
CURSOR = "engine-log.json"
LOCK = "engine-log.lock"


def bring_up_to_date(engine: Engine, target: Target, unit: Unit) -> Path:
    """Append what is new to the bot's log; gives its path. An engine that does not answer leaves it as it is."""
    with suppress(OSError):  # a full disk costs the copy, not the look
        target.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = Lock(target.run_dir / LOCK)
        with suppress(EngineError), lock:
            if lock.acquire():  # else somebody else is just doing it
                _read_on(engine, target, unit)
    return target.log_path


def _read_on(engine: Engine, target: Target, unit: Unit) -> None:
    cursor = read_json(target.run_dir / CURSOR) or {}
    data, following = engine.read_log(target.config, unit, cursor.get("engine", {}), READ_SECONDS)
    _append(target, unit.run, cursor, data, following)


def run_offset(target: Target) -> int | None:
    """Where in the copy the newest run began."""
    offset = (read_json(target.run_dir / CURSOR) or {}).get("offset")
    return offset if isinstance(offset, int) else None


def _append(target: Target, run: str, cursor: dict[str, Any], data: bytes, following: dict[str, Any]) -> None:
    """The cursor is written last, with the size of the copy that it stands for.

    `began` of `following`: from which byte of `data` on it belongs to the newest run; -1: none of it does yet. An
    engine that does not say so starts a run with what it says first after it.
    """
    path = target.log_path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _take_off(path, cursor)
    rotated = _rotate(path, target.log_bytes)
    size = path.stat().st_size if path.exists() else 0
    if data:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "ab") as file:
            file.write(data)
    same = cursor.get("run") == run
    began = following.pop("began", None if same else 0)
    offset = cursor.get("offset") if same and not rotated else 0 if same else size
    if began is not None:
        offset = size + (began if began >= 0 else len(data))
    inode = path.stat().st_ino if path.exists() else None
    state = {"run": run, "offset": offset, "size": size + len(data), "inode": inode, "engine": following}
    if state != cursor:
        write_atomic(target.run_dir / CURSOR, json.dumps(state).encode())


def _take_off(path: Path, cursor: dict[str, Any]) -> None:
    """What somebody appended who was killed before he could write the cursor comes again."""
    size = cursor.get("size")
    if not isinstance(size, int) or not path.exists():
        return
    status = path.stat()
    kept = size if status.st_ino == cursor.get("inode") else 0  # he had just begun a new file
    if status.st_size > kept:
        os.truncate(path, kept)


def _rotate(path: Path, limit: int) -> bool:
    """At `limit` bytes the file becomes NAME.1; three are kept."""
    if not path.exists() or path.stat().st_size < limit:
        return False
    for number in range(ROTATED, 0, -1):
        older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number}"))
    return True
