"""Real engines for the benchmarks, started by themselves: containers and programs of supervisord, as many as wanted.

The engines are the tests' own (tests/support). Where one cannot be had, its figures are not taken, and the run says so.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # for tests.support

import pytest
from tests.support.docker_engine import BUSYBOX, PYTHON, client, engine_host, interpreter
from tests.support.supervisor import Supervisor

__all__ = ["BUSYBOX", "PYTHON", "Containers", "NotHereError", "here", "interpreter", "memory", "supervisord", "until"]

SECONDS = 60.0


class NotHereError(Exception):
    """An engine that this machine does not have; the text says which and why."""


@contextmanager
def here() -> Iterator[None]:
    """What would skip a test raises NotHereError."""
    try:
        yield
    except pytest.skip.Exception as why:
        raise NotHereError(str(why)) from why


def until(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """Poll until it gives something true, and give that. Exits if it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            sys.exit(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.005)
    return value


def memory(pids: Iterable[int]) -> int:
    """Bytes of these processes together: what is a process's own, and what those of one program share, once."""
    shared: dict[str, int] = {}
    own = 0
    for pid in pids:
        try:
            program = os.readlink(f"/proc/{pid}/exe")
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        mine = sizes["Private_Clean"] + sizes["Private_Dirty"]
        own += mine
        shared[program] = max(shared.get(program, 0), sizes["Rss"] - mine)
    return own + sum(shared.values())


@dataclass
class Containers:
    """Containers of the tests' own engine, or of the one that $DOCKER_HOST names. A context manager: none is left."""

    token: str = field(default_factory=lambda: f"bench-{secrets.token_hex(3)}")
    """Every name begins with it."""

    def __enter__(self) -> Containers:
        """Raises NotHereError."""
        with here():
            self.host = engine_host()
        self.client = client()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.client.containers(all=True, filters={"name": self.token}):
            self.client.remove_container(one["Id"], force=True, v=True)

    def name(self, number: int) -> str:
        """Of one that was made here."""
        return f"{self.token}-{number}"

    def make(
        self, number: int, command: Sequence[str], *, image: str = BUSYBOX, home: Path | None = None, **host: Any
    ) -> str:
        """A container that does not run yet and works in `home`; gives its name."""
        binds = {"binds": [f"{home}:{home}"]} if home else {}
        config = self.client.create_host_config(network_mode="none", **binds, **host)
        where = {"working_dir": str(home)} if home else {}
        self.client.create_container(image, list(command), name=self.name(number), host_config=config, **where)
        return self.name(number)

    def start(self, *names: str) -> None:
        """As `docker start`."""
        for name in names:
            self.client.start(name)

    def runtime(self, name: str) -> dict[str, Any]:
        """What bots.json says about a bot in this container."""
        return {"kind": "docker", "container": name, "host": self.host, "stop_grace": 1}

    def list_call(self) -> float:
        """Seconds of the engine's own list: the question and its answer, nothing else."""
        began = time.perf_counter()
        self.client.containers(all=True)
        return time.perf_counter() - began

    @property
    def list_command(self) -> Sequence[str]:
        """The same as a person asks for it."""
        return ("docker", "-H", self.host, "ps", "-a")

    def engine_pids(self) -> list[int]:
        """The daemon's and those below it that are none of the containers': containerd, a keeper for each container.

        Empty for an engine of somebody else, whose processes serve others as well.
        """
        table = [line.split(None, 2) for line in _ps()]
        children: dict[int, list[int]] = {}
        named = {int(pid): name for pid, _, name in table}
        for pid, parent, _ in table:
            children.setdefault(int(parent), []).append(int(pid))
        socket = f"--host={self.host}"
        daemons = [pid for pid, name in named.items() if name.startswith("dockerd ") and socket in name]
        found = list(daemons)
        for pid in found:
            found += [child for child in children.get(pid, ()) if named[child].startswith("containerd")]
        keepers = [pid for pid, name in named.items() if "containerd-shim" in name and self._place in name]
        return sorted({*found, *keepers})

    @property
    def _place(self) -> str:
        return str(Path(self.host.removeprefix("unix://")).parent)


def _ps() -> list[str]:
    done = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@contextmanager
def supervisord(programs: Mapping[str, Mapping[str, Any]]) -> Iterator[Supervisor]:
    """One supervisord that runs these programs, all of them up."""
    with ExitStack() as stack:
        server = Supervisor(minfds=4096)
        stack.callback(server.close)
        safe = {"startsecs": 1, "stopwaitsecs": 1, "stopasgroup": "true", "killasgroup": "true"}
        for name, options in programs.items():
            log = {"redirect_stderr": "true", "stdout_logfile": server.folder / f"{name}.log"}
            server.programs[name] = {"autostart": "true", "autorestart": "false", **safe, **log, **options}
        server.up()
        until(lambda: all_are_up(server), "supervisord's programs are not up")
        yield server


def all_are_up(server: Supervisor) -> bool:
    """Whether no program is on its way up any more."""
    return all(one["statename"] == "RUNNING" for one in server.rpc.getAllProcessInfo())


def cpu_seconds(pid: int) -> float:
    """That a process has used; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
