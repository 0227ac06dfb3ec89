"""A cgroup of our own with a memory limit, where this machine lets us make one, and a program that uses it up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WHY_NOT = "this machine lets us make no cgroup with a memory limit"
PLACES = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)
MOST = 300_000_000
"""Bytes that the program may eat, whatever becomes of its cgroup."""
HOG = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MOST}, {MOST}))
sys.stdin.readline()
held = [bytearray(b"x" * 1_000_000) for _ in range({MOST // 1_000_000})]
"""


@contextmanager
def limited(limit: int) -> Iterator[Path | None]:
    """The folder of a new cgroup; None where there can be none. Removed afterwards: its processes must be gone."""
    made = _make(limit)
    try:
        yield made
    finally:
        if made is not None:
            made.rmdir()


def _make(limit: int) -> Path | None:
    for root, name in PLACES:
        folder = root / f"botkeep-test-{os.getpid()}"
        with suppress(OSError):
            folder.mkdir()
            try:
                with (folder / name).open("r+") as file:  # the kernel's own file: in any other folder there is none
                    file.write(str(limit))
            except OSError:
                folder.rmdir()
                continue
            return folder
    return None


@contextmanager
def hog(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python in that cgroup. It eats memory once a line comes in at its standard input; ended in any case."""
    process = subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE)
    try:
        (folder / "cgroup.procs").write_text(str(process.pid))
        assert folder.name in Path(f"/proc/{process.pid}/cgroup").read_text()
        yield process
    finally:
        process.kill()
        process.communicate()
