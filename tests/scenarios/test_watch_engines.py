"""`botkeep watch` and bots that an engine runs: real containers and programs that end and freeze, and engines that go
away. Their check_interval is so long that only an event can be the reason of what is seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from botkeep.model import Actor, Status
from botkeep.runtimes import RUNTIMES, Target, docker_transport
from botkeep.runtimes.procs import ProcessTable
from support.bots import Lab
from support.docker_proxy import Proxy
from support.docker_rig import Containers
from support.fleet import Fleet, alive, fleet, wait_for
from support.supervisor import Programs, Supervisor
from support.watcher import Watcher, watching

INTERVAL = 300
AT_ONCE = 5.0
"""Seconds that a look, a start and its record may take on a busy machine."""


def write(found: Fleet, target: Target, **more: Any) -> None:
    config = target.config.model_dump(exclude_none=True)
    bot = {"name": "doge", "runtime": config, "check_interval": INTERVAL, **more}
    (found.home / "config/bots.json").write_text(json.dumps({"bots": [bot]}))


def up(found: Fleet, lab: Lab) -> int:
    report = found.desk(Actor.PERSON).start("doge", "first start")
    assert report.ok, report.sentence
    wait_for(lambda: lab.trading(int(report.pid or 0)))
    return int(report.pid or 0)


def follows(watcher: Watcher, pid: int) -> bool:
    """Whether the watcher has a pidfd of that process: from the kernel's own list."""
    return any(f"\nPid:\t{pid}\n" in _text(one) for one in Path(f"/proc/{watcher.process.pid}/fdinfo").iterdir())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def pid_now(target: Target) -> int:
    seen = RUNTIMES[target.config.kind].look(target, ProcessTable.read())
    return int(seen.instances[0].pid or 0) if seen.instances else 0


def another(target: Target, first: int) -> int:
    return int(wait_for(lambda: (now := pid_now(target)) not in (0, first) and now, 30))


# ---------------------------------------------------------------------------------------------------- Docker


class Here:
    """A workspace with one bot in a container, and the way to its engine."""

    def __init__(self, made: Containers, found: Fleet, target: Target, way: Path) -> None:
        self.made, self.found, self.target, self.way = made, found, target, way
        self.proxy = Proxy.at(made.host, way)

    def listens(self) -> int:
        """How often the engine was asked for its events without an end."""
        return sum("/events?" in one and "until=" not in one for one in self.proxy.asked)

    @property
    def container(self) -> str:
        """Its id."""
        if self.target.config.kind == "docker":
            return str(self.made.inspect(self.target.config.container)["Id"])
        return str(self.made.service_containers()[0]["Id"])


KINDS: dict[str, Callable[[Containers], Target]] = {
    "docker": Containers.docker_bot,
    "compose": Containers.compose_bot,
}


@contextmanager
def place(home: Path, kind: str = "docker", **more: Any) -> Iterator[Here]:
    with fleet(home) as found, Lab(home) as lab:
        (home / "config/schedule.json").unlink()
        made = Containers(lab)
        here = None
        try:
            target = KINDS[kind](made)
            way = Path(f"/tmp/{made.prefix}.sock")
            target = replace(target, config=target.config.model_copy(update={"host": f"unix://{way}"}))
            here = Here(made, found, target, way)
            write(found, target, **more)
            yield here
            found.desk(Actor.PERSON).stop("doge", "the test is over")
        finally:
            made.close()
            docker_transport.hang_up()
            if here:
                here.proxy.close()
                here.way.unlink(missing_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_that_is_killed_runs_again_long_before_its_interval_is_over(tmp_path: Path, kind: str) -> None:
    with place(tmp_path / "home", kind) as here:
        first = up(here.found, here.made.lab)
        with watching(here.found.home) as watcher:
            wait_for(lambda: follows(watcher, first) and here.listens())
            began = time.monotonic()
            here.made.client.kill(here.container)
            second = another(here.target, first)
            assert time.monotonic() - began < AT_ONCE
            watcher.said("done: doge was restarted")
            wait_for(lambda: follows(watcher, second))
        assert here.found.verdict().status is Status.HEALTHY


def test_a_container_that_is_paused_is_seen_at_once_although_no_process_ended(tmp_path: Path) -> None:
    with place(tmp_path / "home") as here:
        first = up(here.found, here.made.lab)
        with watching(here.found.home) as watcher:
            wait_for(lambda: follows(watcher, first) and here.listens())
            here.made.client.pause(here.container)
            watcher.said("done: doge was restarted", AT_ONCE)
        assert any("is frozen" in line or "paused" in line for line in watcher.lines)


def test_without_its_events_a_bot_has_its_turns_and_they_are_used_again_when_they_are_back(tmp_path: Path) -> None:
    with place(tmp_path / "home", check_interval=5) as here:
        first = up(here.found, here.made.lab)
        with watching(here.found.home) as watcher:
            wait_for(lambda: follows(watcher, first) and here.listens())
            here.proxy.close()
            watcher.said("Until its events are back, its bots are looked at every check_interval.")
            here.proxy = Proxy.at(here.made.host, here.way)
            here.made.client.pause(here.container)
            watcher.said("done: doge was restarted", 30)
            wait_for(here.listens, 30)
            began = time.monotonic()
            assert watcher.end() == 0
            assert time.monotonic() - began < 3
        assert sum("Until its events are back" in line for line in watcher.lines) == 1
        assert alive(pid_now(here.target))


def test_an_engine_that_accepts_and_never_answers_keeps_no_watcher_from_its_end(tmp_path: Path) -> None:
    import socket

    with place(tmp_path / "home") as here, socket.socket(socket.AF_UNIX) as mute:
        up(here.found, here.made.lab)
        here.proxy.close()
        here.way.unlink()
        mute.bind(str(here.way))
        mute.listen(64)
        mute.settimeout(30)
        with watching(here.found.home) as watcher:
            mute.accept()[0].close()
            waits, _ = mute.accept()
            with waits:
                began = time.monotonic()
                assert watcher.end() == 0
                assert time.monotonic() - began < 3
        here.way.unlink()
        here.proxy = Proxy.at(here.made.host, here.way)


# ---------------------------------------------------------------------------------------------------- supervisord


def test_a_program_that_is_killed_runs_again_long_before_its_interval_is_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with fleet(home) as found, Lab(home) as lab, Supervisor() as supervisor:
        (home / "config/schedule.json").unlink()
        target = Programs(lab, supervisor).bot(autorestart="false")
        write(found, target)
        first = up(found, lab)
        with watching(home) as watcher:
            wait_for(lambda: follows(watcher, first))
            began = time.monotonic()
            found.kill(first)
            second = another(target, first)
            assert time.monotonic() - began < AT_ONCE
            watcher.said("done: doge was restarted")
            wait_for(lambda: follows(watcher, second))
        assert found.verdict().status is Status.HEALTHY
