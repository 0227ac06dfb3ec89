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

from botkeep.ledger import Entry, Kind, Ledger
from botkeep.model import Actor, Status, utc_now
from botkeep.runtimes import RUNTIMES, Target, docker_transport
from botkeep.runtimes.procs import ProcessTable
from support.bots import Lab, overlaps
from support.docker_engine import interpreter
from support.docker_proxy import Proxy
from support.docker_rig import Containers
from support.fleet import Fleet, alive, fleet, wait_for
from support.supervisor import Programs, Supervisor
from support.swarm_rig import SECOND, SwarmServices
from support.systemd_box import box
from support.systemd_rig import Services
from support.watcher import Watcher, follows_with, watching

INTERVAL = 300
AT_ONCE = 5.0
"""Seconds that a look, a start and its record may take on a busy machine."""
NOTICED = 3.0
"""Seconds until it is being brought back; a second or so where nothing else runs."""


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
    """Whether the watcher waits for the end of that process."""
    return follows_with(watcher.process.pid, pid)


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


def test_a_container_that_its_health_check_calls_unhealthy_is_looked_at_long_before_its_interval_is_over(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    with fleet(home) as found, Lab(home) as lab:
        (home / "config/schedule.json").unlink()
        (home / "well").touch()
        made = Containers(lab)
        try:
            health = {"Test": ["CMD", interpreter(), "-c", f"open({str(home / 'well')!r})"], "Interval": SECOND}
            target = made.docker_bot(healthcheck={"Timeout": 5 * SECOND, "Retries": 1, **health})
            write(found, target)
            first = up(found, lab)
            with watching(home) as watcher:
                wait_for(lambda: follows(watcher, first))
                name = target.config.container
                wait_for(lambda: made.inspect(name)["State"]["Health"]["Status"] == "healthy")
                (home / "well").unlink()
                wait_for(lambda: made.inspect(name)["State"]["Health"]["Status"] == "unhealthy")
                watcher.said("doge", 30)
            found.desk(Actor.PERSON).stop("doge", "the test is over")
        finally:
            made.close()
            docker_transport.hang_up()


def test_a_second_container_of_a_service_is_found_as_it_starts_and_one_bot_is_left(tmp_path: Path) -> None:
    with place(tmp_path / "home", "compose") as here:
        first = up(here.found, here.made.lab)
        with watching(here.found.home) as watcher:
            wait_for(lambda: follows(watcher, first) and here.listens())
            here.made.compose("up", "-d", "--no-recreate", "--scale", "bot=2")
            watcher.said("done: doge was restarted", 30)
        wait_for(lambda: len(here.made.lab.bots()) == 1)


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
            watcher.said("are back.", 30)
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


def test_a_task_of_a_swarm_that_is_paused_is_seen_long_before_its_interval_is_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with fleet(home) as found, Lab(home) as lab:
        (home / "config/schedule.json").unlink()
        made = SwarmServices(lab)
        try:
            target = made.bot()
            write(found, target)
            first = up(found, lab)
            with watching(home) as watcher:
                wait_for(lambda: follows(watcher, first))
                made.client.pause(made.container(target))
                watcher.said("doge", 30)
            assert "doge" in watcher.lines[-1]
            found.desk(Actor.PERSON).stop("doge", "the test is over")
        finally:
            made.close()
            docker_transport.hang_up()


# ---------------------------------------------------------------------------------------------------- every engine


@contextmanager
def of_docker(lab: Lab, *, restarts: bool) -> Iterator[Target]:
    made = Containers(lab)
    try:
        yield made.docker_bot(host={"restart_policy": {"Name": "always" if restarts else "no"}})
    finally:
        made.close()
        docker_transport.hang_up()


@contextmanager
def of_compose(lab: Lab, *, restarts: bool) -> Iterator[Target]:
    made = Containers(lab)
    try:
        yield made.compose_bot(restart="always" if restarts else "no")
    finally:
        made.close()
        docker_transport.hang_up()


@contextmanager
def of_swarm(lab: Lab, *, restarts: bool) -> Iterator[Target]:
    made = SwarmServices(lab)
    try:
        yield made.bot(policy={"Condition": "any", "Delay": 0} if restarts else {"Condition": "none"})
    finally:
        made.close()
        docker_transport.hang_up()


@contextmanager
def of_supervisord(lab: Lab, *, restarts: bool) -> Iterator[Target]:
    with Supervisor() as supervisor:
        yield Programs(lab, supervisor).bot(autorestart="true" if restarts else "false")


@contextmanager
def of_systemd(lab: Lab, *, restarts: bool) -> Iterator[Target]:
    made = Services(lab, box())
    try:
        yield made.bot(Restart="always" if restarts else "no", RestartSec="0.3")
    finally:
        made.close()


ENGINES = {
    "docker": of_docker,
    "compose": of_compose,
    "swarm": of_swarm,
    "supervisord": of_supervisord,
    "systemd": of_systemd,
}


@contextmanager
def one_bot(home: Path, kind: str, *, restarts: bool) -> Iterator[tuple[Fleet, Lab, Target]]:
    """A workspace with one bot; `restarts`: its engine brings it back by itself."""
    with fleet(home) as found, Lab(home) as lab, ENGINES[kind](lab, restarts=restarts) as target:
        (home / "config/schedule.json").unlink()
        write(found, target)
        yield found, lab, target
        found.desk(Actor.PERSON).stop("doge", "the test is over")


def entries(found: Fleet, kind: Kind) -> list[Entry]:
    ledger = Ledger(found.workspace.ledger_file)
    try:
        return [one for one in ledger.entries(bot="doge", kinds=[kind]) if "first start" not in one.sentence]
    finally:
        ledger.close()


@pytest.mark.parametrize("kind", ENGINES)
def test_a_bot_that_its_engine_does_not_restart_is_noticed_within_a_second_or_so(tmp_path: Path, kind: str) -> None:
    with one_bot(tmp_path / "home", kind, restarts=False) as (found, lab, target):
        first = up(found, lab)
        with watching(found.home) as watcher:
            wait_for(lambda: follows(watcher, first))
            began = utc_now()
            found.kill(first)
            intent = wait_for(lambda: [one for one in entries(found, Kind.INTENT) if one.at > began], 30)[0]
            assert (intent.at - began).total_seconds() < NOTICED
            second = another(target, first)
            watcher.said("done: doge was restarted")
            wait_for(lambda: follows(watcher, second))
        assert found.verdict().status is Status.HEALTHY
        assert overlaps(lab.stamps()) == []


@pytest.mark.parametrize("kind", ENGINES)
def test_an_engines_own_restart_is_left_to_it_counted_once_and_never_doubled(tmp_path: Path, kind: str) -> None:
    with one_bot(tmp_path / "home", kind, restarts=True) as (found, lab, target):
        first = up(found, lab)
        with watching(found.home) as watcher:
            wait_for(lambda: follows(watcher, first))
            found.kill(first)
            second = another(target, first)
            wait_for(lambda: follows(watcher, second), 30)
            wait_for(lambda: lab.trading(second))
            told = wait_for(lambda: by_engine(found))
            assert len(told) == 1
            assert told[0].sentence.startswith("doge was restarted once by ")
            wait_for(lambda: found.verdict().status is Status.HEALTHY)
        assert len(by_engine(found)) == 1
        ours = [one.sentence for one in entries(found, Kind.OUTCOME) if one.actor != Actor.ENGINE]
        assert not any("restarted" in one for one in ours), ours
        assert overlaps(lab.stamps()) == []
        assert lab.pids("bot") == {first, second}


def by_engine(found: Fleet) -> list[Entry]:
    return [one for one in entries(found, Kind.OUTCOME) if one.actor == Actor.ENGINE]
