"""A folder of real bots, what starts and stops them, and the proof that nothing of it is left afterwards.

Processes are told apart by what only this test has: its folder, which is their working folder, in their command line,
or in their environment. Never by a name.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from botkeep.model import Exit, Instance, RuntimeLook
from botkeep.runtimes import RUNTIMES, Stopped, Target, process
from botkeep.runtimes.base import rivals
from botkeep.runtimes.procs import Command, Proc, ProcessTable
from botkeep.workspace import Workspace

HERE = Path(__file__).parent
TOOLS = HERE.parents[1] / "tools"
PROGRAM = HERE / "paper_bot.py"
CALLER = HERE / "caller.py"
DEADLINE = 60.0
"""Only a test that fails waits so long: a machine may be busy."""
T = TypeVar("T")


def wait_for(condition: Callable[[], T], seconds: float = DEADLINE, every: float = 0.01) -> T:
    """The first true value of `condition`; fails the test if there is none within `seconds`."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, f"waited {seconds} s in vain; last value: {value!r}"
        time.sleep(every)


@dataclass(frozen=True)
class Stamp:
    """One sign of life, written by the bot itself."""

    at: int
    root: int
    pid: int
    role: str


class Lab:
    """A workspace's folder with its bots. A context manager: whatever was started in it is gone afterwards."""

    def __init__(self, home: Path) -> None:
        self.home = Path(os.path.realpath(home))
        self.workspace = Workspace(self.home)
        self.workspace.prepare()
        self.token = secrets.token_hex(3)
        """For names that no other test's process may have: a process_name is looked for on the whole machine."""
        self.children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_everything()

    # ---------------------------------------------------------------------------------------------- building

    def program(self, path: str = "doge.py", mode: int = 0o644) -> Path:
        """The paper bot as a script of this folder."""
        script = self.home / path
        script.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROGRAM, script)
        script.chmod(mode)
        return script

    def target(self, name: str = "doge", *switches: str, **more: Any) -> Target:
        """A bot whose script is NAME.py, unless `command` says otherwise; it stops within a second."""
        command = more.pop("command", None)
        if command is None:
            script = more.pop("script", f"{name}.py")
            if not (self.home / script).exists():
                self.program(script)
            command = [sys.executable, script, *switches]
        config = {"kind": "process", "command": command, "stop_grace": 1, **more.pop("config", {})}
        place = self.workspace
        place.run_dir(name).mkdir(mode=0o700, exist_ok=True)
        fields = {"process_name": None, "home": self.home, **more}
        return Target(
            name=name,
            config=process.Config(**config) if config["command"] else None,
            run_dir=place.run_dir(name),
            log_path=place.log_path(name),
            **fields,
        )

    def neighbours(self, *targets: Target) -> list[Target]:
        """The same bots, as the bots of one fleet that know of one another."""
        commands = [Command(one.name, tuple(one.config.command), str(one.home / one.config.cwd)) for one in targets]
        known = rivals(commands)
        return [Target(**{**vars(one), "rivals": known}) for one in targets]

    def by_hand(self, *argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> int:
        """Start something as a person would, in a session of its own; returns its pid."""
        child = subprocess.Popen(
            argv,
            cwd=cwd or self.home,
            env={**os.environ, **(env or {}), "BOTKEEP_TEST_HOME": str(self.home)},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.children.append(child)
        return child.pid

    def caller(self, todo: str, target: Target, **more: Any) -> subprocess.Popen[bytes]:
        """Another program that does `todo` (see caller.py) to the bot, and ends."""
        under = more.pop("under", [])
        spec = {"todo": todo, "target": as_json(target), "home": str(self.home), **more}
        child = subprocess.Popen(
            [*under, sys.executable, str(CALLER), json.dumps(spec)],
            env={**os.environ, "PYTHONPATH": self.python_path, "BOTKEEP_TEST_HOME": str(self.home)},
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.children.append(child)
        return child

    @property
    def python_path(self) -> str:
        """What a program outside of this one needs to import botkeep and these helpers."""
        return f"{TOOLS}:{HERE.parent}"

    def as_json(self, target: Target) -> dict[str, Any]:
        """A target for another program, see caller.py."""
        return as_json(target)

    def give_to(self, user: int) -> None:
        """Everything in this folder belongs to another user now."""
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, user, user)

    # ---------------------------------------------------------------------------------------------- asking

    def stamps(self, folder: Path | None = None) -> list[Stamp]:
        """Every sign of life so far, oldest first."""
        try:
            lines = ((folder or self.home) / "stamps.txt").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = (line.split() for line in lines)
        return sorted((Stamp(int(at), int(root), int(pid), role) for at, root, pid, role in found), key=lambda s: s.at)

    def trading(self, pid: int) -> bool:
        """Whether this process has stamped."""
        return self.trading_in(self.home, pid)

    def trading_in(self, folder: Path, pid: int) -> bool:
        """Whether this process has stamped in that folder."""
        return any(stamp.pid == pid for stamp in self.stamps(folder))

    def pids(self, role: str) -> set[int]:
        """The pids that stamped in this role."""
        return {stamp.pid for stamp in self.stamps() if stamp.role == role}

    def processes(self) -> dict[int, Proc]:
        """Everything that lives and belongs to this folder, the watchers too."""
        table = ProcessTable.read()
        return {
            pid: proc
            for pid, proc in table.procs.items()
            if pid not in table.own_line and not proc.dead and _belongs(proc, str(self.home))
        }

    def bots(self) -> dict[int, Proc]:
        """Every living process that trades, or could."""
        return {pid: proc for pid, proc in self.processes().items() if "shim.py" not in " ".join(proc.argv[:4])}

    def bots_and_no_tracers(self) -> dict[int, Proc]:
        """The same without strace, which traces a watcher and so hangs below it."""
        return {pid: proc for pid, proc in self.bots().items() if proc.comm != "strace"}

    def watchers(self) -> dict[int, Proc]:
        """The living watchers."""
        return {pid: proc for pid, proc in self.processes().items() if "shim.py" in " ".join(proc.argv[:4])}

    # ---------------------------------------------------------------------------------------------- ending

    def end_everything(self) -> None:
        """Kill by pid whatever is left, and prove that nothing is."""

        def nothing_left() -> bool:
            for pid in (left := self.processes()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for child in self.children:
                child.poll()
            return not left

        wait_for(nothing_left)
        for child in self.children:
            child.wait()
            if child.stdout:
                child.stdout.close()


def _belongs(proc: Proc, home: str) -> bool:
    """Whether a process works in this folder, names it in its command line, or carries it in its environment."""
    if any(word == home or home + "/" in word for word in proc.argv):
        return True
    try:
        cwd = os.readlink(f"/proc/{proc.pid}/cwd")
        environment = Path(f"/proc/{proc.pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    marked = f"BOTKEEP_TEST_HOME={home}".encode() in environment
    return marked or cwd == home or cwd.startswith(home + "/")


def overlaps(stamps: Iterable[Stamp]) -> list[tuple[int, int]]:
    """Pairs of bots that lived at the same time, by their own stamps: must be empty for one bot."""
    runs: dict[int, list[int]] = {}
    for stamp in stamps:
        runs.setdefault(stamp.root, []).append(stamp.at)
    spans = sorted((min(times), max(times), root) for root, times in runs.items())
    return [(one[2], two[2]) for place, one in enumerate(spans) for two in spans[place + 1 :] if two[0] <= one[1]]


def as_json(target: Target) -> dict[str, Any]:
    """A target for another program; `from_json` is the reverse."""
    config = target.config.model_dump() if target.config else None
    names = ("name", "process_name", "names_are_shared", "environment", "log_bytes")
    paths = {name: str(getattr(target, name)) for name in ("home", "run_dir", "log_path")}
    return {**{name: getattr(target, name) for name in names}, **paths, "config": config}


def from_json(raw: Mapping[str, Any]) -> Target:
    """The reverse of `as_json`."""
    paths = {name: Path(raw[name]) for name in ("home", "run_dir", "log_path")}
    config = raw["config"]
    return Target(**{**raw, **paths, "config": RUNTIMES[config["kind"]].Config(**config) if config else None})


# -------------------------------------------------------------------------------------------------- the runtime


def look(target: Target) -> RuntimeLook:
    """One look, through a fresh process table."""
    return process.look(target, ProcessTable.read())


def start(target: Target, entry: str = "e1") -> Instance:
    """Start it; fails unless it is up."""
    started = process.start(target, entry, time.monotonic() + DEADLINE)
    assert started.instance, started.exit
    return started.instance


def stop(target: Target, grace: float = 1.0) -> Stopped:
    """Stop it, whatever it takes."""
    return process.stop(target, grace, time.monotonic() + DEADLINE)


def ended(target: Target) -> Exit:
    """How it ended, once it has."""
    return wait_for(lambda: None if (seen := look(target)).instances else seen.exit)


def pid_of(instance: Instance | None) -> int:
    """The pid of an instance that must be there."""
    assert instance is not None
    assert instance.pid is not None
    return instance.pid
