"""A folder like an install of Hummingbot, with the programs of support/hbot.py and support/hbot_engine.py in it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from botkeep.model import Instance, InstanceState
from support.fleet import alive, wait_for
from support.formats.sqlite import TRADE_FILL

HERE = Path(__file__).parent
NAME = "conf_simple_pmm_1"
SAMPLE = HERE.parent / "data" / "hummingbot" / f"{NAME}.yml"


@dataclass
class Install:
    """One install; it runs one bot at the most, as the real one does."""

    home: Path
    started: list[int] = field(default_factory=list)
    past_hbot: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def hbot(self) -> list[str]:
        """The command, as bots.json names it."""
        return [str(self.home / "bin" / "hbot")]

    @property
    def log(self) -> Path:
        """The bot's."""
        return self.home / "logs" / f"logs_{NAME}.log"

    @property
    def data(self) -> Path:
        """The bot's database."""
        return self.home / "data" / f"{NAME}.sqlite"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """hbot, as a person calls it."""
        return subprocess.run([*self.hbot, *words], cwd=self.home, capture_output=True, text=True, check=False)

    def start(self, *, serving: bool = True) -> Instance:
        """Start its bot. `serving`: wait until its engine answers."""
        if not serving:
            (self.home / "boots").touch()
        done = self.run("start", NAME)
        assert done.returncode == 0, done.stderr
        pid = int((self.home / "data/bot/bot.pid").read_text())
        self.started.append(pid)
        wait_for(lambda: self.log.exists() and (not serving or (self.home / "data/bot/status.json").exists()))
        return Instance(f"test:{pid}", pid, InstanceState.RUNNING, datetime.now(UTC), True, "command", (pid,))

    def start_second(self) -> Instance:
        """Start another one past hbot, which would refuse, and wait until it trades."""
        before = self.log.read_text().count("started successfully")
        command = [sys.executable, "-m", "hummingbot.cli.engine", "--name", NAME]
        process = subprocess.Popen(command, cwd=self.home, stdin=subprocess.DEVNULL)
        self.past_hbot.append(process)
        wait_for(lambda: self.log.read_text().count("started successfully") > before)
        pid = process.pid
        return Instance(f"test:{pid}", pid, InstanceState.RUNNING, datetime.now(UTC), True, "command", (pid,))

    def serve(self) -> None:
        """Let one that boots go on."""
        (self.home / "boots").unlink()
        wait_for(lambda: (self.home / "data/bot/status.json").exists())

    def tell(self, what: str) -> None:
        """Have the engine do something, and wait until it has."""
        (self.home / ".tell").write_text(what)
        os.replace(self.home / ".tell", self.home / "tell")
        wait_for(lambda: not (self.home / "tell").exists())

    def misbehave(self, how: str) -> None:
        """From now on, `hbot status`."""
        (self.home / "misbehave").write_text(how)

    def orphans(self) -> list[int]:
        """What a misbehaving `hbot status` left behind."""
        return [int(word) for word in (self.home / "orphans").read_text().split()]


@contextmanager
def install(home: Path) -> Iterator[Install]:
    """The folder; at the end nothing of it runs."""
    for folder in ("bin", "hummingbot/cli", "data", "logs", "conf/scripts"):
        (home / folder).mkdir(parents=True)
    script = (HERE / "hbot.py").read_text().partition("\n")[2]
    (home / "bin/hbot").write_text(f"#!{sys.executable}\n{script}")
    (home / "bin/hbot").chmod(0o755)
    shutil.copyfile(HERE / "hbot_engine.py", home / "hummingbot/cli/engine.py")
    (home / "hummingbot/VERSION").write_text("20260922\n")
    shutil.copyfile(SAMPLE, home / "conf/scripts" / SAMPLE.name)
    with closing(sqlite3.connect(home / "data" / f"{NAME}.sqlite")) as base, base:
        base.execute(TRADE_FILL)
    found = Install(home)
    try:
        yield found
    finally:
        orphans = found.orphans() if (home / "orphans").exists() else []
        for pid in (*found.started, *orphans):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in found.past_hbot:
            process.kill()
            process.wait()
        wait_for(lambda: not any(alive(pid) for pid in (*found.started, *orphans)))
