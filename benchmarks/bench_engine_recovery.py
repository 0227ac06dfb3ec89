"""kill -9 to running again, under every engine: one `botkeep round` against the engine's own restart, in one run.

botkeep's figures count from the kill, through a cold start of the command: to the new process's first word, and to the
end of the round, which has seen it up for the playbook's `up_for` and written the outcome. The engine's own restart is
the same bot where the engine itself keeps it: `--restart always`, Compose's `restart: always`, a swarm's without delay,
`autorestart=true`, `Restart=always`. Each of those is killed once, after its first ten seconds: what lives for less is
restarted ever more slowly, by engines and by botkeep.
"""

from __future__ import annotations

import json
import os
import re
import signal
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

from engines import PYTHON, Containers, NotHereError, here, interpreter, supervisord, until
from tests.support.bots import Lab
from tests.support.swarm_rig import SwarmServices
from tests.support.systemd_box import box
from tests.support.systemd_rig import Services

from support import BOTKEEP, said, workspace

RUNS = 7
BOUND = 3.0
"""Times supervisord's own restart, most of which is its one-second beat: so long may a round take to a new process."""
UP_FOR = 1
SETTLED = 11.0
"""Seconds after which engines forget that a bot had just been started."""
BOT = """\
import os, time
machine = "/machine/proc/self"  # a task of a swarm has pids of its own
pid = os.readlink(machine) if os.path.lexists(machine) else os.getpid()
open("starts", "a").write(f"{pid} {time.time()}\\n")
time.sleep(1000)
"""


@dataclass(frozen=True)
class Rig:
    """One bot that botkeep keeps, and a few that the engine keeps by itself."""

    kind: str
    ours: Path
    """Where botkeep's bot works; the workspace."""
    runtime: Mapping[str, Any]
    theirs: Sequence[Path]
    """Where the others do; none: there is no engine."""


def starts(folder: Path) -> list[tuple[int, float]]:
    """(pid, epoch seconds) that the bot wrote at each of its starts."""
    file = folder / "starts"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(pid), float(at)) for pid, at in (line.split() for line in lines)]


def recovery(folder: Path, deed: Callable[[], None]) -> tuple[float, float]:
    """Seconds from kill -9 to the bot's own first word after it, and to the end of `deed`."""
    before = starts(folder)
    killed = time.time()
    os.kill(before[-1][0], signal.SIGKILL)
    deed()
    ended = time.time() - killed
    until(lambda: len(starts(folder)) > len(before), f"no new process in {folder}")
    return starts(folder)[-1][1] - killed, ended


def place(folder: Path) -> Path:
    """A folder with the bot in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bot.py").write_text(BOT)
    return folder


# ---------------------------------------------------------------------------------------------------- the engines


@contextmanager
def processes(folder: Path) -> Iterator[Rig]:
    """A plain process: nobody else restarts it."""
    yield Rig("process", place(folder / "ours"), {"kind": "process", "command": [sys.executable, "bot.py"]}, ())


@contextmanager
def containers(folder: Path) -> Iterator[Rig]:
    """botkeep's container has no restart policy."""
    theirs = [place(folder / f"theirs-{number}") for number in range(RUNS)]
    mine = place(folder / "ours")
    with Containers() as engine:
        for number, home in enumerate([mine, *theirs]):
            policy = {"restart_policy": {"Name": "always"}} if number else {}
            engine.make(number, [interpreter(), "bot.py"], image=PYTHON, home=home, pid_mode="host", **policy)
        engine.start(*(engine.name(number) for number in range(1, RUNS + 1)))
        yield Rig("docker", mine, engine.runtime(engine.name(0)), theirs)


@contextmanager
def services(folder: Path) -> Iterator[Rig]:
    """The same, made by Compose."""
    theirs = [place(folder / f"theirs-{number}") for number in range(RUNS)]
    mine = place(folder / "ours")
    with Containers() as engine:
        made = {f"bot-{number}": _service(home, number > 0) for number, home in enumerate([mine, *theirs])}
        (folder / "compose.yml").write_text(json.dumps({"version": "2.4", "services": made}))
        command = ["docker-compose", "-H", engine.host, "-p", engine.token, "-f", folder / "compose.yml"]
        try:
            subprocess.run([*command, "up", "--no-start"], check=True, capture_output=True)
        except FileNotFoundError as error:
            raise NotHereError("docker-compose is not installed") from error
        subprocess.run(
            [*command, "start", *(name for name in made if name != "bot-0")], check=True, capture_output=True
        )
        runtime = {"kind": "compose", "project": engine.token, "service": "bot-0", "host": engine.host, "stop_grace": 1}
        yield Rig("compose", mine, runtime, theirs)


def _service(home: Path, always: bool) -> dict[str, Any]:
    fields = {"image": PYTHON, "command": [interpreter(), "bot.py"], "working_dir": str(home), "pid": "host"}
    more = {"volumes": [f"{home}:{home}"], "network_mode": "none", "restart": "always" if always else "no"}
    return {**fields, **more}


@contextmanager
def programs(folder: Path) -> Iterator[Rig]:
    """botkeep's program has no autorestart."""
    theirs = [place(folder / f"theirs-{number}") for number in range(RUNS)]
    mine = place(folder / "ours")
    command = f"{sys.executable} bot.py"
    made = {
        f"bot-{number}": {"command": command, "directory": home, "autorestart": "true"}
        for number, home in enumerate(theirs, 1)
    }
    with supervisord({**made, "bot-0": {"command": command, "directory": mine, "autorestart": "false"}}) as server:
        server.rpc.stopProcess("bot-0")
        (mine / "starts").unlink(missing_ok=True)
        runtime = {"kind": "supervisord", "program": "bot-0", "server": server.server, "stop_grace": 1}
        yield Rig("supervisord", mine, runtime, theirs)


@contextmanager
def swarm_services(folder: Path) -> Iterator[Rig]:
    """A swarm restarts by itself; botkeep's service is told not to, as one is that has given up."""
    homes = [place(folder / f"bot-{number}") for number in range(RUNS + 1)]
    with here(), Lab(place(folder / "lab")) as lab, Containers():
        made = SwarmServices(lab)
        try:
            for number, home in enumerate(homes):
                again = {"policy": {"Condition": "any", "Delay": 0}, "replicas": 1} if number else {}
                binds = [(home, home), ("/proc", "/machine/proc")]
                mounts = [{"Type": "bind", "Source": str(one), "Target": str(other)} for one, other in binds]
                container = {"Dir": str(home), "Mounts": mounts}
                made.make(made.name(home.name), [interpreter(), "bot.py"], container=container, **again)
            runtime = {"kind": "swarm", "service": made.name("bot-0"), "host": made.host, "stop_grace": 1}
            yield Rig("swarm", homes[0], runtime, homes[1:])
        finally:
            made.close()


@contextmanager
def systemd_services(folder: Path) -> Iterator[Rig]:
    """Of a user's manager; `Restart=always` with its usual tenth of a second."""
    homes = [place(folder / f"bot-{number}") for number in range(RUNS + 1)]
    with here(), Lab(place(folder / "lab")) as lab, ExitStack() as stack:
        made = Services(lab, box())
        stack.callback(made.close)
        for number, home in enumerate(homes):
            settings = {"WorkingDirectory": home, "Restart": "always" if number else "no"}
            often = {"StartLimitIntervalSec": 0}
            made.bot(name=home.name, command=[sys.executable, "bot.py"], unit=often, **settings)
            if number:
                made.start(home.name)
        runtime = {"kind": "systemd", "unit": made.unit("bot-0"), "user": not made.box.system, "stop_grace": 1}
        yield Rig("systemd", homes[0], runtime, homes[1:])


RIGS = (programs, processes, systemd_services, containers, services, swarm_services)


# ---------------------------------------------------------------------------------------------------- measuring


def prepared(rig: Rig) -> Path:
    """The bot's workspace: one that may be killed often, and waits for a second only."""
    home = workspace(rig.ours, [{"name": "bot", "runtime": dict(rig.runtime)}])
    edit(home, "bot-not-running", {r"backoff: .*": f"backoff: [{', '.join(['0s'] * 4 * RUNS)}]"})
    edit(home, "bot-not-running", {r"max_per_day: .*": "max_per_day: 99", r"up_for: \w+": f"up_for: {UP_FOR}s"})
    edit(home, "bot-crash-looping", {r"restarts: \d+": "restarts: 99"})
    (home / "config/schedule.json").unlink()
    return home


def edit(home: Path, fault: str, changes: Mapping[str, str]) -> None:
    """A person's edit of a playbook."""
    path = home / "playbooks" / f"{fault}.md"
    for pattern, new in changes.items():
        path.write_text(re.sub(pattern, new, path.read_text(), count=1))


def one_round(home: Path) -> None:
    """A cold `botkeep round`, as cron starts it. Exits unless it brought the bot back, verified."""
    done = subprocess.run([BOTKEEP, "round", "--json", "--home", home], check=False, capture_output=True, text=True)
    results = [action["result"] for action in json.loads(done.stdout)["actions"]] if done.stdout else []
    if results != ["done"]:
        sys.exit(f"round: exit {done.returncode}\n{done.stdout}\n{done.stderr}")


def botkeeps(rig: Rig) -> list[tuple[float, float]]:
    """(seconds to the new process, to the end of the round) of several kills."""
    home = prepared(rig)
    subprocess.run([BOTKEEP, "start", "bot", "--home", home], check=True, capture_output=True)
    try:
        until(lambda: starts(home), "the bot was not started")
        one_round_at_rest(home)
        return [recovery(home, lambda: one_round(home)) for _ in range(RUNS)]
    finally:
        subprocess.run([BOTKEEP, "stop", "bot", "--home", home], check=True, capture_output=True)


def one_round_at_rest(home: Path) -> None:
    """The bot was seen running before it is killed, as in every five minutes."""
    subprocess.run([BOTKEEP, "round", "--home", home], check=True, capture_output=True)


def engines_own(rig: Rig) -> list[float]:
    """Seconds to the engine's new process, each of a bot that has run for a while."""
    for folder in rig.theirs:
        until(lambda folder=folder: starts(folder), f"{folder} was not started")
    newest = max((starts(folder)[-1][1] for folder in rig.theirs), default=-SETTLED)
    until(lambda: time.time() > newest + SETTLED, "time stands still")
    found = []
    for number, folder in enumerate(rig.theirs):
        time.sleep(number * 0.37 % 1)  # an engine that looks once a second is met at every moment of it
        found.append(recovery(folder, lambda: None)[0])
    return found


@dataclass(frozen=True)
class Row:
    """Medians of one engine, in seconds; `own`: None where nobody else restarts."""

    kind: str
    new: float
    verified: float
    own: float | None
    spread: str


def measured(rig: Rig) -> Row:
    """Both, one after the other."""
    own = engines_own(rig)
    new, verified = zip(*botkeeps(rig), strict=True)
    spread = f"{min(new):.2f} to {max(new):.2f}" + (f"; {min(own):.2f} to {max(own):.2f}" if own else "")
    return Row(
        rig.kind, statistics.median(new), statistics.median(verified), statistics.median(own) if own else None, spread
    )


def told(row: Row, beat: float) -> bool:
    """Its line; whether its bound is held. `beat`: supervisord's own, in seconds."""
    own = f"the engine's own: {row.own:.2f} s, ratio {row.new / row.own:.1f}" if row.own else "nobody else restarts it"
    figure = f"{row.new:.2f} s to the new process, {row.verified:.2f} s until it was seen up for {UP_FOR} s; {own}"
    shown = f"{figure} ({row.spread}); {row.new / beat:.2f} times supervisord's own"
    return said(f"kill -9 to recovered, {row.kind}", shown, f"{BOUND:.0f} times", held=row.new / beat <= BOUND)


def main() -> None:
    """Every engine that is here; supervisord's own is the yardstick."""
    beat, held = 0.0, True
    for rig in RIGS:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            try:
                row = measured(stack.enter_context(rig(folder)))
            except NotHereError as why:
                print(f"not measured: {why}", flush=True)
                continue
        beat = beat or row.own or 0.0
        held &= told(row, beat)
    sys.exit(not held)


if __name__ == "__main__":
    main()
