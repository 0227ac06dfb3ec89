"""What a bot's watcher (shim.py) wrote down, read back. A torn, planted or foreign file counts as no record."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints

from botkeep.durable import read_json, write_atomic
from botkeep.model import Exit

from .procs import Proc, ProcessTable, pidfd_inode

ASKED_LASTS = timedelta(minutes=2)
"""An exit this long after a stop was asked for is no answer to it: whoever asked was killed before it could ask."""


@dataclass(frozen=True)
class Record:
    """The newest run that botkeep started."""

    generation: int
    entry: str
    pid: int
    start_ticks: int
    pidfd_inode: int
    boot_id: str
    shim_pid: int
    shim_ticks: int
    at: float
    log_offset: int
    lock: str
    """dev:ino of the lock that it holds, whatever became of the file's name."""

    @property
    def key(self) -> str:
        """The instance's key, as a look gives it while it lives."""
        return f"{self.boot_id[:8]}:{self.pid}:{self.start_ticks}:{self.pidfd_inode}"

    def bot(self, table: ProcessTable) -> Proc | None:
        """The recorded bot, if it lives and is that very process: same boot, start time and pidfd inode."""
        proc = self._alive(table, self.pid, self.start_ticks)
        if proc is None or not self.pidfd_inode:
            return proc
        return proc if pidfd_inode(proc.pid) in (self.pidfd_inode, None) else None

    def watcher(self, table: ProcessTable) -> Proc | None:
        """Its watcher, if it lives."""
        return self._alive(table, self.shim_pid, self.shim_ticks)

    def _alive(self, table: ProcessTable, pid: int, ticks: int) -> Proc | None:
        proc = table.procs.get(pid) if self.boot_id == table.boot else None
        return None if proc is None or proc.dead or proc.start_ticks != ticks else proc


_TYPES = get_type_hints(Record)


def read_record(run_dir: Path) -> Record | None:
    """The newest run; None if botkeep never started this bot."""
    raw = read_json(run_dir / "instance.json")
    if raw is None:
        return None
    values = {one.name: raw.get(one.name) for one in fields(Record)}
    values["at"] = float(values["at"]) if isinstance(values["at"], (int, float)) else None
    sound = all(type(value) is _TYPES[name] for name, value in values.items())
    return Record(**values) if sound else None  # type: ignore[arg-type]


def read_exit(run_dir: Path) -> dict[str, Any] | None:
    """The newest exit that was seen, raw; None if there is none."""
    raw = read_json(run_dir / "exit.json")
    wanted = {"generation": int, "key": str, "at": float, "peak_rss_kib": int}
    return raw if raw and all(type(raw.get(name)) is kind for name, kind in wanted.items()) else None


def exit_of(raw: dict[str, Any], run_dir: Path, command: str, cwd: str) -> Exit:
    """The exit as everybody else reads it."""
    at = datetime.fromtimestamp(raw["at"], UTC)
    failed = _failed_to_start(raw.get("error"), command, cwd)
    return Exit(
        key=raw["key"],
        at=at,
        code=None if failed else raw.get("code"),
        signal=raw.get("signal"),
        peak_rss_bytes=raw["peak_rss_kib"] * 1024,
        out_of_memory=raw.get("oom"),
        failed_to_start=failed,
        asked=_was_asked(run_dir, raw["generation"], at),
    )


def _failed_to_start(error: object, command: str, cwd: str) -> str | None:
    """`c2` or `d2` from the watcher: which step failed (the command, its folder), and the errno."""
    if not isinstance(error, str) or not error[1:].isdigit():
        return None
    number = int(error[1:])
    what = f"the folder {cwd}" if error.startswith("d") else command
    hint = " (is it executable, with a `#!` line?)" if number in (errno.EACCES, errno.ENOEXEC) else ""
    return f"{what}: {os.strerror(number)}{hint}"


def ask(run_dir: Path, generation: int) -> None:
    """Note that the end of this generation was asked for. Raises OSError."""
    write_atomic(run_dir / "stopping.json", b'{"generation": %d, "at": %.6f}' % (generation, time.time()))


def unask(run_dir: Path) -> None:
    """It did not end: whatever ends it later was not this. Raises OSError."""
    (run_dir / "stopping.json").unlink(missing_ok=True)


def _was_asked(run_dir: Path, generation: int, ended: datetime) -> bool:
    asked = read_json(run_dir / "stopping.json")
    if not asked or asked.get("generation") != generation or not isinstance(asked.get("at"), float):
        return False
    since = ended - datetime.fromtimestamp(asked["at"], UTC)
    return timedelta(seconds=-1) <= since <= ASKED_LASTS
