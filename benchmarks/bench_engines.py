"""`botkeep check`, cold, of a hundred containers and of a hundred programs of supervisord: one question to the engine,
and at most 1.5 times the engine's own list on top of what it takes to start.

The engine's own list is its own command (`docker ps -a`, `supervisorctl status`), a process as ours is; how long the
bare question takes is printed beside it. The start is `botkeep check` of one plain process, and loading the engine's
client on top of that. All in turn, in one run. Questions are counted by a proxy between botkeep and the engine.
"""

from __future__ import annotations

import compileall
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import Containers, NotHereError, supervisord
from tests.support.docker_proxy import Proxy

import botkeep
from support import BOTKEEP, said, seconds, workspace

COUNT = 100
RUNS = 11
BOUND = 1.5
NEEDED = "import botkeep.rounds, botkeep.terminal, botkeep.runtimes.process"
"""What a check of plain processes loads as well."""
HELLO = "/_ping"
"""By which Docker is asked for the versions that it speaks, once for each connection."""
_QUERY = re.compile(r"\?.*")
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass
class Rig:
    """One engine with a hundred bots, and how it is asked by itself."""

    kind: str
    address: str
    """unix://..."""
    runtimes: Sequence[Mapping[str, Any]]
    list_call: Callable[[], float]
    list_command: Sequence[str]
    client_modules: str
    """What a check of this engine's bots loads, and one of plain processes does not."""
    is_list: Callable[[str], bool]
    """Whether a question is the list, by its path."""


@contextmanager
def containers() -> Iterator[Rig]:
    """A hundred that sleep."""
    with Containers() as mine:
        names = [mine.make(number, ["sleep", f"{200000 + number}"]) for number in range(COUNT)]
        mine.start(*names)
        modules = "botkeep.runtimes.docker_memory, botkeep.runtimes.docker, botkeep.runtimes.docker_transport"
        runtimes = [mine.runtime(name) for name in names]
        is_list = re.compile(r"(/v[\d.]+)?/containers/json").fullmatch
        yield Rig(
            "docker", mine.host, runtimes, mine.list_call, mine.list_command, modules, lambda at: bool(is_list(at))
        )


@contextmanager
def programs() -> Iterator[Rig]:
    """A hundred that sleep."""
    with supervisord({f"bot-{number}": {"command": f"sleep {300000 + number}"} for number in range(COUNT)}) as server:

        def list_call() -> float:
            began = time.perf_counter()
            server.rpc.getAllProcessInfo()
            return time.perf_counter() - began

        runtimes = [
            {"kind": "supervisord", "program": name, "server": server.server, "stop_grace": 1}
            for name in server.programs
        ]
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-s", server.server, "status"]
        modules = "botkeep.runtimes.supervisord_memory, botkeep.runtimes.supervisord, http.client, xmlrpc.client"
        yield Rig("supervisord", server.server, runtimes, list_call, command, modules, lambda at: at == "/RPC2")


def bots(runtimes: Sequence[Mapping[str, Any]], address: tuple[str, str] = ("", "")) -> list[dict[str, object]]:
    """Their entries in bots.json; `address`: an address of an engine, and what to write instead."""
    old, new = address
    changed = [{key: new if value == old else value for key, value in one.items()} for one in runtimes]
    return [{"name": f"bot-{number}", "runtime": one} for number, one in enumerate(changed)]


def check(home: Path) -> float:
    """Seconds of a cold one; exits unless every bot is healthy."""
    return seconds([BOTKEEP, "check", "--home", str(home)])


def questions(rig: Rig, folder: Path) -> list[list[str]]:
    """Paths that three checks asked for, one after another, in a workspace that has never looked."""
    socket = folder / "proxy.sock"
    home = workspace(folder / "counted", bots(rig.runtimes, (rig.address, f"unix://{socket}")))
    asked = []
    with Proxy.at(rig.address, socket) as proxy:
        for _ in range(3):
            del proxy.asked[:]
            check(home)
            asked.append([_ID.sub("ID", _QUERY.sub("", path)) for path in proxy.asked])
    return asked


def loading(rig: Rig) -> float:
    """Seconds that loading the engine's client takes, on top of what every check loads."""
    without = seconds([sys.executable, "-c", NEEDED])
    return seconds([sys.executable, "-c", f"{NEEDED}, {rig.client_modules}"]) - without


def measure(rig: Rig, plain: Path, folder: Path) -> bool:
    """Print this engine's lines; whether its bounds are held."""
    home = workspace(folder / "asked", bots(rig.runtimes))
    began = check(home)
    steps = (
        lambda: check(home),
        lambda: check(plain),
        lambda: loading(rig),
        rig.list_call,
        lambda: seconds(rig.list_command),
    )
    turns = [[step() for step in steps] for _ in range(RUNS)]
    ours, one, loaded, bare, command = (statistics.median(column) for column in zip(*turns, strict=True))
    ratio = statistics.median((all_ - one - load) / listed for all_, one, load, _, listed in turns)
    shown = (
        f"{ours * 1000:.0f} ms, of which the start is {one * 1000:.0f} and the engine's client {loaded * 1000:.0f}; "
        f"the rest is {ratio:.2f} times the {command * 1000:.0f} ms of `{_short(rig.list_command)}`, and "
        f"{(ours - one - loaded) / bare:.1f} times the {bare * 1000:.0f} ms of its bare answer (the first look: "
        f"{began * 1000:.0f} ms)"
    )
    held = said(f"check of {COUNT} bots of {rig.kind}, cold", shown, f"{BOUND} times", held=ratio <= BOUND)
    return count(rig, folder) and held


def count(rig: Rig, folder: Path) -> bool:
    """One question for the list, and none for one bot, once each has been looked at."""
    first, *later = questions(rig, folder)
    lists = [sum(rig.is_list(path) for path in asked) for asked in later]
    others = {path for asked in later for path in asked if not rig.is_list(path)}
    figure = f"{lists[-1]} list{', and ' + ', '.join(others) if others else ''} (the first look: {len(first)} in all)"
    held = lists == [1, 1] and others <= {HELLO}
    return said(f"questions of a check of {COUNT} bots to {rig.kind}", figure, "1 list, none for one bot", held=held)


def _short(command: Sequence[str]) -> str:
    return "docker ps -a" if command[0] == "docker" else "supervisorctl status"


def main() -> None:
    """Each engine in turn."""
    compileall.compile_dir(Path(botkeep.__file__).parent, quiet=2)  # as every installed package is
    held = True
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runtime = {"kind": "process", "command": ["sleep", "100001"], "stop_grace": 1}
        plain = workspace(folder / "plain", [{"name": "bot", "runtime": runtime}])
        subprocess.run([BOTKEEP, "start", "bot", "--home", plain], check=True, capture_output=True)
        stack.callback(subprocess.run, [BOTKEEP, "stop", "bot", "--home", plain], check=True, capture_output=True)
        for rig in (containers, programs):
            try:
                with rig() as engine:
                    (folder / engine.kind).mkdir()
                    held &= measure(engine, plain, folder / engine.kind)
            except NotHereError as why:
                print(f"not measured: {why}", flush=True)
    sys.exit(not held)


if __name__ == "__main__":
    main()
