"""The columns of the matrix: each runtime's way to have a bot, to freeze it, to double it, and to be away.

A new runtime is one class here and one entry in COLUMNS.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from botkeep.runtimes import Target, docker_transport
from support import memory_cgroup
from support.bots import Lab, wait_for
from support.docker_engine import interpreter
from support.docker_proxy import Proxy
from support.docker_rig import Containers
from support.supervisor import Programs, Supervisor
from support.swarm_rig import SECOND, SwarmServices
from support.systemd_box import box
from support.systemd_rig import Services

GRACE = 2
"""Seconds that every bot of the matrix has to end."""
STARTUP = 5
"""Times that a supervisor tries a program that ends at once."""
OLD_GROUPS = Path("/sys/fs/cgroup/memory")
"""The kernel's older kind of control groups, for memory."""


@dataclass(frozen=True)
class Wish:
    """How a bot is to run, for one fault."""

    switches: tuple[str, ...] = ()
    """Of the paper bot."""
    wrapped: bool = False
    """Below a shell that does not hand on what it is told."""
    restarts: bool = False
    """Its engine restarts it by itself."""
    memory: int | None = None
    """Bytes that it may use."""
    raised_to: int | None = None
    """How far botkeep may raise that."""
    remote: bool = False
    """Its engine can be taken away."""
    period: float = 0.02
    """Seconds between two of its signs of life."""


class Column(Protocol):
    """One runtime with one bot. A context manager: what it made is gone afterwards."""

    engine: str
    """What restarts bots by itself, in words; empty: nothing does."""
    target: Target

    @property
    def entry(self) -> dict[str, Any]:
        """What bots.json says about the bot beside its runtime, and only about bots of this kind."""
        ...

    def __enter__(self) -> Column: ...
    def __exit__(self, *_: object) -> None: ...

    def start(self, home: Path) -> None:
        """As a person does for the first time: `botkeep start`."""
        ...

    def freeze(self, pid: int, /) -> None:
        """Stop the bot in the middle of its work, in the engine's own way."""
        ...

    def starve(self, pid: int, /) -> None:
        """Let the bot use more memory than it may."""
        ...

    def copy(self) -> None:
        """Start a second one, past botkeep."""
        ...

    def away(self) -> Any:
        """A context manager: the engine does not answer while it is open."""
        ...

    def memory(self) -> int | None:
        """The bot's memory limit, where its engine sets one."""
        ...


def botkeep_start(home: Path, before: Sequence[str] = ()) -> None:
    """`botkeep start`, in a program of its own that ends. Whether that lasts is no matter of this one."""
    command = [*before, sys.executable, "-m", "botkeep", "start", "doge", "--home", str(home)]
    done = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr


def script_of(lab: Lab) -> str:
    """The bot's, which no other test's bot has: its name is looked for on the whole machine."""
    return f"bot{lab.token}.py"


class _Base:
    """What all have in common."""

    engine = ""
    target: Target

    def __init__(self, lab: Lab, wish: Wish) -> None:
        self.lab, self.wish = lab, wish
        self.stack = ExitStack()
        lab.program(script_of(lab))
        shutil.copy(str(shutil.which("busybox")), lab.home / "busybox")

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @property
    def entry(self) -> dict[str, Any]:
        return {}

    def command(self, python: str) -> list[str]:
        """The bot's, below a shell if that is wished."""
        switches = [*self.wish.switches, "--csv=data/doge.csv", f"--period={self.wish.period}"]
        bare = [python, script_of(self.lab), *switches]
        return [str(self.lab.home / "busybox"), "sh", "-c", f"{shlex.join(bare)} & wait"] if self.wish.wrapped else bare

    def start(self, home: Path) -> None:
        botkeep_start(home)

    def freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)

    def starve(self, pid: int) -> None:
        os.kill(pid, signal.SIGUSR1)

    def memory(self) -> int | None:
        return None

    def cgroup(self) -> Path:
        """One of our own with the limit that is wished, for what sets none itself."""
        assert self.wish.memory
        made = self.stack.enter_context(memory_cgroup.limited(self.wish.memory))
        if made is None:
            pytest.skip(memory_cgroup.WHY_NOT)
        self.stack.callback(wait_for, lambda: not (made / "cgroup.procs").read_text())
        return made


# ---------------------------------------------------------------------------------------------------- process


class Process(_Base):
    """A plain process: nothing runs it but botkeep's watcher."""

    def __enter__(self) -> Process:
        place = {"command": self.command(sys.executable), "config": {"stop_grace": GRACE}}
        self.target = self.lab.target("doge", **place)
        return self

    def start(self, home: Path) -> None:
        inside = ["sh", "-c", 'echo $$ > "$0"/cgroup.procs; exec "$@"']
        botkeep_start(home, [*inside, str(self.cgroup())] if self.wish.memory else ())

    def copy(self) -> None:
        self.lab.by_hand(*self.command(sys.executable))

    @contextmanager
    def away(self) -> Iterator[None]:
        """There is no engine. The nearest to one, its watcher, is killed."""
        for pid in self.lab.watchers():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.lab.watchers())
        yield


# ---------------------------------------------------------------------------------------------------- docker


class _Reached(_Base):
    """Whose engine is reached through a socket of our own, where it has to be away."""

    proxy: Proxy | None = None

    def reached(self, target: Target, engine: str) -> Target:
        config = target.config.model_copy(update={"stop_grace": GRACE})
        self.stack.callback(docker_transport.hang_up)
        if self.wish.remote:
            folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="mx-", dir="/tmp"))
            self.engine_host, self.socket = engine, Path(folder) / "s"
            self.proxy = Proxy.at(engine, self.socket)
            self.stack.callback(lambda: self.proxy and self.proxy.close())
            config = config.model_copy(update={"host": f"unix://{self.socket}"})
        return replace(target, config=config)

    @property
    def entry(self) -> dict[str, Any]:
        most = self.wish.raised_to
        return {"limits": {"memory": {"most": f"{most >> 20}MiB"}}} if most else {}

    @contextmanager
    def away(self) -> Iterator[None]:
        """The address is there, and nobody answers at it."""
        assert self.proxy
        self.proxy.close()
        self.socket.unlink()
        with socket.socket(socket.AF_UNIX) as mute:
            mute.bind(str(self.socket))
            mute.listen(64)
            yield
        self.proxy = Proxy.at(self.engine_host, self.socket)


class Docker(_Reached):
    """A container."""

    engine = "Docker"

    def __enter__(self) -> Docker:
        self.made = Containers(self.lab)
        self.stack.callback(self.made.close)
        self.target = self.reached(self.make(), self.made.host)
        return self

    def make(self) -> Target:
        host: dict[str, Any] = {"restart_policy": {"Name": "always"}} if self.wish.restarts else {}
        host |= {"mem_limit": self.wish.memory} if self.wish.memory else {}
        return self.made.docker_bot(command=self.command(interpreter()), host=host)

    @property
    def container(self) -> str:
        return str(self.target.config.container)

    def freeze(self, _: int) -> None:
        self.made.client.pause(self.container)

    def copy(self) -> None:
        """In a terminal beside the engine: by name there is only the one container."""
        self.lab.by_hand(*self.command(sys.executable))

    def memory(self) -> int | None:
        return int(self.made.inspect(self.container)["HostConfig"]["Memory"]) or None


class Compose(Docker):
    """A service of a project that Compose itself made."""

    def make(self) -> Target:
        more: dict[str, Any] = {"restart": "always"} if self.wish.restarts else {}
        more |= {"mem_limit": self.wish.memory} if self.wish.memory else {}
        return self.made.compose_bot(command=self.command(interpreter()), **more)

    @property
    def container(self) -> str:
        oldest = min(self.made.service_containers(), key=lambda one: int(one["Created"]))
        return str(oldest["Id"])

    def copy(self) -> None:
        """As a person scales a service."""
        self.made.compose("up", "-d", "--no-recreate", "--scale", "bot=2")


class Swarm(_Reached):
    """A service of one replica."""

    engine = "Swarm"

    def __enter__(self) -> Swarm:
        self.made = SwarmServices(self.lab)
        self.stack.callback(self.made.close)
        policy = {"Condition": "any", "Delay": SECOND} if self.wish.restarts else {"Condition": "none"}
        more = {"template": {"Resources": {"Limits": {"MemoryBytes": self.wish.memory}}}} if self.wish.memory else {}
        made = self.made.bot(command=self.command(interpreter()), policy=policy, **more)
        self.target = self.reached(made, self.made.host)
        return self

    def freeze(self, _: int) -> None:
        self.made.client.pause(self.made.container(self.target))

    def copy(self) -> None:
        """As a person scales a service."""
        self.made.scale(self.target, 2)

    def memory(self) -> int | None:
        limits = self.made.service(self.target)["Spec"]["TaskTemplate"].get("Resources", {}).get("Limits", {})
        return limits.get("MemoryBytes") or None


# ---------------------------------------------------------------------------------------------------- supervisord


class Supervised(_Base):
    """A program of a supervisord of its own."""

    engine = "supervisord"

    def __enter__(self) -> Supervised:
        folder = self.cgroup() if self.wish.memory else None
        self.supervisor = self.stack.enter_context(Supervisor())
        if folder:
            (folder / "cgroup.procs").write_text(str(self.supervisor.pid))
        self.programs = Programs(self.lab, self.supervisor)
        options = {"autorestart": "true", "startsecs": 1, "startretries": STARTUP} if self.wish.restarts else {}
        made = self.programs.bot(command=self.command(sys.executable), stopwaitsecs=GRACE, **options)
        self.target = replace(made, config=made.config.model_copy(update={"stop_grace": GRACE}))
        return self

    def copy(self) -> None:
        self.programs.copy_of(self.target)

    @contextmanager
    def away(self) -> Iterator[None]:
        """It is there, and does nothing."""
        os.kill(self.supervisor.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.supervisor.pid, signal.SIGCONT)


# ---------------------------------------------------------------------------------------------------- systemd


class Systemd(_Base):
    """A service of a systemd in a box of its own."""

    engine = "systemd"

    def __enter__(self) -> Systemd:
        settings: dict[str, Any] = {"Restart": "always"} if self.wish.restarts else {}
        group = None
        if self.wish.memory and OLD_GROUPS.exists():  # there a user's systemd limits nothing: it is limited itself
            group = self.cgroup()
        elif self.wish.memory:
            settings["MemoryMax"] = self.wish.memory
        self.box = box()
        self.made = Services(self.lab, self.box)
        self.stack.callback(self.made.close)
        if group:
            (group / "cgroup.procs").write_text(str(self.box._manager()))
        made = self.made.bot(command=self.command(sys.executable), TimeoutStopSec=GRACE, **settings)
        self.target = replace(made, config=made.config.model_copy(update={"stop_grace": GRACE}))
        return self

    def starve(self, pid: int) -> None:
        """The kernel's older groups tell systemd of no kill: the mark that systemd-oomd sets at the newer ones does."""
        if OLD_GROUPS.exists():
            newer = Path(f"/proc/{pid}/cgroup").read_text().partition("0::/")[2].splitlines()[0]
            os.setxattr(OLD_GROUPS.parent / "unified" / newer, "user.oomd_ooms", b"1")
        super().starve(pid)

    def copy(self) -> None:
        self.made.copy_of(self.target)

    @contextmanager
    def away(self) -> Iterator[None]:
        """It is there, and does nothing."""
        pid = self.box._manager()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


COLUMNS: dict[str, Callable[[Lab, Wish], Column]] = {
    "process": Process,
    "docker": Docker,
    "compose": Compose,
    "swarm": Swarm,
    "supervisord": Supervised,
    "systemd": Systemd,
}
