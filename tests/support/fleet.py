"""A workspace with real paper bots, for the scenarios: waits in its playbooks are short, and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from botkeep.model import Actor, BotkeepError, Verdict, utc_now
from botkeep.pack import init
from botkeep.rounds import Desk
from botkeep.workspace import Workspace

SHORT = {r"apart: \w+": "apart: 1s", r"up_for: \w+": "up_for: 1s", r"(?<=up_for: 1s, )within: \w+}": "within: 5s}"}


def wait_for(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Poll until the condition gives something true, and give that. Fails after `seconds`."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"waited {seconds} s in vain"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Fleet:
    """One workspace; desks are opened as assistant unless said otherwise."""

    home: Path
    desks: list[Desk] = field(default_factory=list)
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.home)

    def desk(self, actor: Actor = Actor.ASSISTANT, clock: Callable[[], Any] = utc_now) -> Desk:
        """A new desk: nothing is remembered but what is on disk."""
        desk = Desk.open(self.workspace, actor, clock)
        self.desks.append(desk)
        return desk

    def verdict(self, bot: str = "doge") -> Verdict:
        """A confirmed look at one bot."""
        return self.desk().check([bot]).verdicts[0]

    def data(self, bot: str = "doge") -> Path:
        """Its trade file."""
        return self.home / "data" / f"{bot}.csv"

    def rows(self, bot: str = "doge") -> int:
        """Trades in its file, the header not counted."""
        return self.data(bot).read_bytes().count(b"\n") - 1 if self.data(bot).exists() else 0

    def edit(self, fault: str, pattern: str, new: str) -> None:
        """A person's edit of a playbook."""
        path = self.home / "playbooks" / f"{fault}.md"
        text, count = re.subn(pattern, new, path.read_text(), count=1)
        assert count, f"{pattern} is not in {fault}.md"
        path.write_text(text)

    def up(self, bot: str = "doge", rows: int = 3) -> int:
        """Start it, wait until it has traded; its pid."""
        report = self.desk(Actor.PERSON).restart(bot, "first start")
        assert report.result == "done", report.sentence
        wait_for(lambda: self.rows(bot) >= rows)
        return int(report.pid or 0)

    def kill(self, pid: int) -> None:
        """kill -9, and wait until it is dead."""
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid))

    def copy_by_hand(self, bot: str = "doge") -> subprocess.Popen[bytes]:
        """A second copy, as a person starts it."""
        bots = json.loads((self.home / "config/bots.json").read_text())["bots"]
        entry = next(one for one in bots if one["name"] == bot)
        process = subprocess.Popen(
            entry["runtime"]["command"], cwd=self.home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.others.append(process)
        return process

    def journal(self) -> str:
        """What people read."""
        return (self.home / "memory/bot-operations.md").read_text()

    def clear(self) -> None:
        """Stop every bot, end every copy, close every desk."""
        with suppress(BotkeepError):
            desk = self.desk(Actor.PERSON)
            for bot in desk.bench().fleet.bots:
                desk.stop(bot.name, "the test is over")
        for process in self.others:
            process.kill()
            process.wait()
        for desk in self.desks:
            desk.close()


def entry(name: str = "doge", symbol: str = "DOGEUSDT", **more: Any) -> dict[str, Any]:
    """One paper bot in bots.json."""
    return {
        "name": name,
        "data_file": f"data/{name}.csv",
        "currency": "USDT",
        "runtime": {
            "kind": "process",
            "command": [sys.executable, "paper_bot.py", symbol, f"data/{name}.csv"],
            "stop_grace": 3,
        },
        **more,
    }


@contextmanager
def fleet(home: Path, *entries: dict[str, Any]) -> Iterator[Fleet]:
    """A fresh workspace with these bots (one paper bot if none); everything of it is ended afterwards."""
    init(home, utc_now())
    (home / "data").mkdir()
    with as_file(files("botkeep") / "demo_data/paper_bot.py") as source:
        shutil.copyfile(source, home / "paper_bot.py")
    (home / "config/bots.json").write_text(json.dumps({"bots": list(entries) or [entry()]}))
    for path in (home / "playbooks").glob("*.md"):
        text = path.read_text()
        for pattern, short in SHORT.items():
            text = re.sub(pattern, short, text, count=1)
        path.write_text(text)
    found = Fleet(home)
    try:
        yield found
    finally:
        found.clear()
