"""Output that an engine keeps, copied as it grows: one file here for all engines, so that a log is read in one way.

The copy outlives the container that wrote it: how a run died is asked after Compose has made a new one. Each byte
stands in it once: one reader at a time, and what a killed one appended without saying so is not appended again.
Nothing is ever taken off: a bot that ran under another engine meanwhile, or as a plain process, wrote into this file.
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
NEAR = 64
"""Bytes that are not the same by chance: every line has its time."""
MARK = "engine-log.adding"
"""Where a reader who has not yet written the cursor began to add, and how much."""


def bring_up_to_date(engine: Engine, target: Target, unit: Unit) -> Path:
    """Append what is new to the bot's log; gives its path. An engine that does not answer leaves it as it is."""
    if _is_up_to_date(engine, target, unit):
        return target.log_path
    with suppress(OSError):  # a full disk costs the copy, not the look
        target.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = Lock(target.run_dir / LOCK)
        with suppress(EngineError), lock:
            if lock.acquire():  # else somebody else is just doing it
                _read_on(engine, target, unit)
    return target.log_path


def _is_up_to_date(engine: Engine, target: Target, unit: Unit) -> bool:
    """Whether there is nothing to do, so that nobody has to be kept out: this run has said nothing since the copy was
    made, nobody was killed at that, and the copy is still the file that it was."""
    asks = getattr(engine, "said_nothing_since", None)
    cursor = read_json(target.run_dir / CURSOR) if asks else None
    if not asks or not cursor or cursor.get("run") != unit.run or os.path.lexists(f"{target.run_dir}/{MARK}"):
        return False
    known = cursor.get("engine", {})
    try:
        copy = os.stat(target.log_path)
        here = copy.st_ino == cursor.get("inode") and ("begins" not in known or copy.st_size == cursor.get("offset"))
    except FileNotFoundError:
        here = cursor.get("inode") is None
    except OSError:
        return False
    return here and bool(asks(unit, known))


def _read_on(engine: Engine, target: Target, unit: Unit) -> None:
    cursor = read_json(target.run_dir / CURSOR) or {}
    data, following = engine.read_log(target.config, unit, cursor.get("engine", {}), READ_SECONDS)
    _append(target, unit.run, cursor, data, following)


def run_offset(target: Target) -> int | None:
    """Where in the copy the newest run began."""
    offset = (read_json(target.run_dir / CURSOR) or {}).get("offset")
    return offset if isinstance(offset, int) else None


def _append(target: Target, run: str, cursor: dict[str, Any], data: bytes, following: dict[str, Any]) -> None:
    """A mark of what will be added, the data, the cursor: whoever is killed in between leaves the mark.

    `began` of `following`: from which byte of `data` on it belongs to the newest run; -1: none of it does yet. An
    engine that does not say so starts a run with what it says first after it.
    """
    path, mark = target.log_path, target.run_dir / MARK
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    done, at = _added_already(path, read_json(mark), data)
    rotated = _rotate(path, target.log_bytes)
    size, inode = _add(path, mark, data, done)
    same = cursor.get("run") == run
    began = following.pop("began", None if same else 0)
    offset = cursor.get("offset") if cursor.get("inode") == inode else 0
    if began is not None:
        began = len(data) if began < 0 else began
        offset = size + began - done if began >= done else 0 if rotated else at + began
    state = {"run": run, "offset": offset, "inode": inode, "engine": following}
    if state != cursor:
        write_atomic(target.run_dir / CURSOR, json.dumps(state).encode())
    mark.unlink(missing_ok=True)


def _add(path: Path, mark: Path, data: bytes, done: int) -> tuple[int, int | None]:
    """Append `data` from its byte `done` on; gives size before, and inode, of the file; None: there is still none."""
    if done == len(data) and not path.exists():
        return 0, None
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "ab") as file:
        status = os.fstat(file.fileno())
        if done < len(data):
            _note(mark, {"inode": status.st_ino, "size": status.st_size, "from": done, "count": len(data) - done})
            file.write(data[done:])
    return status.st_size, status.st_ino


def _note(mark: Path, said: dict[str, int]) -> None:
    """For whoever comes after a kill, which takes nothing from the disk that was written: no fsync."""
    fresh = mark.with_name(f"{mark.name}.new")
    fresh.write_bytes(json.dumps(said).encode())
    fresh.replace(mark)


def _added_already(path: Path, mark: dict[str, Any] | None, data: bytes) -> tuple[int, int]:
    """How many bytes of `data` were added by a reader who was killed before he could write the cursor, and where.

    The engine says the same again, so that his part of the file is the beginning of `data`. What stands there otherwise
    is somebody else's, and then all is added: twice is better than never.
    """
    if mark is None or not all(isinstance(mark.get(name), int) for name in ("inode", "size", "from", "count")):
        return 0, 0
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            if os.fstat(file.fileno()).st_ino != mark["inode"]:
                return 0, 0
            file.seek(mark["size"])
            there = file.read(mark["count"])
    except OSError:
        return 0, 0
    done = min(mark["from"], len(data))
    return done + _overlap(there, data[done:]), mark["size"] - done


def _overlap(there: bytes, data: bytes) -> int:
    """How much of the beginning of `data` stands in `there`: at its start, or, where the newest part of a long log was
    asked for and has moved on since, at its end."""
    if data.startswith(there):
        return len(there)
    there = there[max(0, there.find(data[:NEAR])) :]
    pairs = zip(there, data, strict=False)
    return next((count for count, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(there), len(data)))


def _rotate(path: Path, limit: int) -> bool:
    """At `limit` bytes the file becomes NAME.1; three are kept."""
    if not path.exists() or path.stat().st_size < limit:
        return False
    for number in range(ROTATED, 0, -1):
        older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number}"))
    return True
