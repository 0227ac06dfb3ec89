"""One wall clock for many programs that a test sets: `botkeep watch`, cron's rounds, the bots and their shims alike.

A library of fifty lines of C is loaded before theirs (LD_PRELOAD). Only the wall clock moves, as when somebody sets a
machine's: pauses, time-outs and the kernel's stamps of files do not.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
BILLION = 1_000_000_000


class MovedClock:
    """A clock in `folder`; programs with `environment` go by it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        library, self._file = folder / "moved_clock.so", folder / "moved_clock"
        compiler = shutil.which("cc") or "gcc"
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        self._file.write_bytes(bytes(8))
        with self._file.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "MOVED_CLOCK": str(self._file)}

    @property
    def _offset(self) -> int:
        return int(struct.unpack("q", self._page[:8])[0])

    def now(self) -> datetime:
        """What those programs have."""
        return datetime.fromtimestamp((time.time_ns() + self._offset) / BILLION, UTC)

    def set(self, at: datetime) -> None:
        """For all of them at once, those that run too: eight bytes that lie together are written in one piece."""
        self._page[:8] = struct.pack("q", int(at.timestamp() * BILLION) - time.time_ns())
