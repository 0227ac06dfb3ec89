"""A real `botkeep watch` over a workspace, as a service runs it: its lines, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .fleet import wait_for

BOTKEEP = str(Path(sys.executable).with_name("botkeep"))


def follows_with(watcher: int, pid: int) -> bool:
    """Whether the watcher with that pid has a pidfd of that process: from the kernel's own list."""
    try:
        return any(f"\nPid:\t{pid}\n" in _text(one) for one in Path(f"/proc/{watcher}/fdinfo").iterdir())
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


class Watcher:
    """One process; `lines` fills as it says them."""

    def __init__(self, home: Path, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [BOTKEEP, "watch", "--home", str(home)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def _says(self, part: str) -> str:
        return next((line for line in list(self.lines) if part in line), "")

    def said(self, part: str, seconds: float = 30.0) -> str:
        """The first line with this in it, waited for."""
        try:
            return str(wait_for(lambda: self._says(part), seconds))
        except AssertionError as error:
            raise AssertionError(f"{part!r} was not said: {self.lines}") from error

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it, wait for its end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(15)
        self._reader.join(5)
        return code


@contextmanager
def watching(home: Path, environment: dict[str, str] | None = None) -> Iterator[Watcher]:
    """Started, and waiting; ended afterwards."""
    watcher = Watcher(home, environment)
    try:
        watcher.said("watching ")
        yield watcher
    finally:
        if watcher.process.poll() is None:
            watcher.process.kill()
        watcher.process.wait()
        watcher._reader.join(5)
        assert watcher.process.stdout is not None
        watcher.process.stdout.close()
