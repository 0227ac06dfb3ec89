"""Bots as services of a real systemd, set up as a person sets one up."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from botkeep.runtimes import RUNTIMES, Target

from .bots import Lab
from .systemd_box import Box

SCRIPT = "doge.py"


class Services:
    """The bots of one lab as services of the systemd in a box, which `systemctl` means from now on."""

    def __init__(self, lab: Lab, box: Box) -> None:
        self.lab = lab
        self.box = box
        self.commands: dict[str, list[str]] = {}
        self.path = os.environ["PATH"]
        os.environ["PATH"] = box.path
        lab.program(SCRIPT)

    def close(self) -> None:
        """End the bots, and mean this machine's systemd again."""
        os.environ["PATH"] = self.path
        self.box.close()

    def command(self, *switches: str) -> list[str]:
        """The paper bot's."""
        return [sys.executable, SCRIPT, *switches]

    def unit(self, name: str) -> str:
        """The name of a bot's unit: what no other test has."""
        return f"{name}-{self.lab.token}"

    def bot(self, *switches: str, name: str = "doge", command: Sequence[str] = (), **settings: Any) -> Target:
        """A bot that is a service; it has a second to stop, and nobody restarts it."""
        words = self.commands[name] = list(command) or self.command(*switches)
        given = settings.pop("unit", {})
        usual = {"WorkingDirectory": self.lab.home, "UMask": "0077", "Environment": f'"PATH={self.path}"'}
        self.box.service(self.unit(name), line_of(words), given, **{**usual, **settings})
        return self.target(name)

    def target(self, name: str = "doge", **more: Any) -> Target:
        """The bot that is this service."""
        config = {"kind": "systemd", "unit": self.unit(name), "user": not self.box.system, "stop_grace": 1, **more}
        return replace(self.lab.target(name, script=SCRIPT), config=RUNTIMES["systemd"].Config(**config))

    def given(self, _: Target, switches: Sequence[str], variables: Mapping[str, str]) -> Target:
        """The same bot with these variables, which its unit has."""
        pairs = {**variables, "PATH": self.path}
        return self.bot(*switches, Environment=" ".join(f'"{name}={value}"' for name, value in pairs.items()))

    def copy_of(self, target: Target) -> int:
        """Start a copy that systemd knows nothing of, with its service's own command."""
        return self.lab.by_hand(*self.commands[target.name])

    def count_questions(self) -> Callable[[], list[str]]:
        """What `systemctl` and `journalctl` are called with from now on."""
        seen = self.lab.home / "asked"
        for name in ("systemctl", "journalctl"):
            tool = self.lab.home / "bin" / name
            tool.parent.mkdir(exist_ok=True)
            real = shutil.which(name)
            tool.write_text(f'#!/bin/sh\necho "{name} $*" >> {seen}\nexec {real} "$@"\n')
            tool.chmod(0o755)
        os.environ["PATH"] = f"{self.lab.home}/bin:{os.environ['PATH']}"
        return lambda: seen.read_text().splitlines()

    def start(self, name: str = "doge") -> None:
        """As `systemctl start`, whatever comes of it."""
        self.box.ctl("start", self.unit(name))

    def state(self, name: str = "doge") -> str:
        """As `systemctl is-active`."""
        return self.box.ctl("is-active", self.unit(name)).stdout.decode().strip()

    def pid(self, name: str = "doge") -> int:
        """Of a service's main process, as systemd has it; 0: there is none."""
        with suppress(ValueError, IndexError):
            return int(self.box.show(self.unit(name), "MainPID")[0])
        return 0


def line_of(words: Sequence[str]) -> str:
    """For ExecStart, as a person quotes it."""
    return " ".join(
        '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$") + '"'
        for word in words
    )
