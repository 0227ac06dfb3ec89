"""A real process that does what it is told, a line at a time, and says `ready` when it has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self


class Piped:
    """One program of this folder, started with these words."""

    def __init__(self, program: str, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(program)), *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._said()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def tell(self, command: str) -> list[str]:
        """Have it do something, and wait until it has; gives what it said besides."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._said()

    def _said(self) -> list[str]:
        assert self.process.stdout is not None
        said: list[str] = []
        while (line := self.process.stdout.readline().strip()) != "ready":
            assert line, "the program has ended"
            said.append(line)
        return said

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
