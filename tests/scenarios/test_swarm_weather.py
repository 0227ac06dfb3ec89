"""A swarm that answers late, in pieces, or not at all, and looks at moments at which something just changes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from botkeep.model import EngineError
from botkeep.runtimes import RUNTIMES, Target, docker_transport, swarm, swarm_control
from support.bots import DEADLINE, Lab, pid_of, wait_for
from support.docker_engine import BUSYBOX
from support.docker_proxy import Proxy
from support.engine_bot import look, start
from support.swarm_rig import SECOND, SwarmServices

SWARM = RUNTIMES["swarm"]
RECORDED = Path(__file__).parents[1] / "data/swarm/recorded.json"
SLOW = 1.5
"""Seconds that a look at an engine gets that does not answer; and it may take a little longer to say so."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[SwarmServices]:
    with Lab(tmp_path) as lab:
        services = SwarmServices(lab)
        yield services
        services.close()
    docker_transport.hang_up()


class Holding(Proxy):
    """Keeps each request that matches until it is told to let go; or breaks off its connection, once."""

    holds: re.Pattern[bytes] | None = None
    breaks: re.Pattern[bytes] | None = None

    def __init__(self, *arguments: Any) -> None:
        self.has_one = threading.Event()
        super().__init__(*arguments)

    def _copy(self, source: socket.socket, sink: socket.socket, *, note: bool = False) -> None:
        if not note:
            super()._copy(source, sink)
            return
        with suppress(OSError):
            while data := source.recv(65536):
                if self.breaks and self.breaks.search(data):
                    self.breaks = None
                    break
                while self.holds and self.holds.search(data):
                    self.has_one.set()
                    threading.Event().wait(0.02)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def through(made: SwarmServices, tmp_path: Path, **more: Any) -> Iterator[tuple[Target, Holding]]:
    """The bot as it is seen through such a proxy."""
    with Holding.at(made.host, tmp_path / "p") as proxy:
        assert isinstance(proxy, Holding)
        yield made.target(made.name(), host=f"unix://{tmp_path}/p", **more), proxy
        proxy.holds = None
    docker_transport.hang_up()


def shell(made: SwarmServices, text: str, **more: Any) -> Target:
    """A service that runs a line of shell."""
    return made.bot(command=["sh", "-c", text], image=BUSYBOX, **more)


def runs(made: SwarmServices, target: Target, count: int) -> bool:
    """Whether so many containers of its run."""
    service = made.service(target)["ID"]
    return len(made.client.containers(filters={"label": f"com.docker.swarm.service.id={service}"})) == count


# ---------------------------------------------------------------------------------------------------- moments


@pytest.mark.parametrize("planned", [True, False])
def test_a_task_whose_container_came_during_the_look_is_no_copy(
    made: SwarmServices, tmp_path: Path, planned: bool
) -> None:
    target = shell(made, "exec sleep 1000", policy={"Condition": "any", "Delay": 3 * SECOND})
    if planned:
        os.kill(pid_of(start(target)), signal.SIGKILL)
        wait_for(lambda: made.tasks(target)[-1]["Status"]["State"] == "ready")
    with through(made, tmp_path) as (seen, proxy), ThreadPoolExecutor(1) as pool:
        proxy.holds = re.compile(rb" \S+/containers/json")
        looking = pool.submit(look, seen)
        assert proxy.has_one.wait(DEADLINE)
        if not planned:
            made.scale(target, 1)
        wait_for(lambda: runs(made, target, 1))
        proxy.holds = None
        found = looking.result()
    assert len(found.instances) == int(planned)
    assert found.notes == () if planned else "botkeep did not do that" in found.notes[0]
    assert len(look(target).instances) == 1


def test_a_copy_of_which_the_engine_says_nothing_makes_the_bot_unknown(made: SwarmServices, tmp_path: Path) -> None:
    target = made.bot("--graceful")
    home, command = str(made.lab.home), made.command("--graceful")
    host = made.client.create_host_config(binds=[f"{home}:{home}", "/proc:/machine/proc"], network_mode="none")
    spec = made.service(target)["Spec"]["TaskTemplate"]["ContainerSpec"]
    copy = made.client.create_container(
        spec["Image"], command, working_dir=home, host_config=host, labels={"botkeep.test": made.lab.token},
        environment=spec["Env"],
    )["Id"]  # fmt: skip
    made.client.start(copy)
    with through(made, tmp_path) as (seen, proxy):
        proxy.holds = re.compile(rf" \S+/containers/{copy}/json".encode())
        with pytest.raises(EngineError, match="no complete answer"):
            look(seen)
        with pytest.raises(EngineError, match="no complete answer"):
            SWARM.start(seen, "e1", time.monotonic() + DEADLINE)
    assert made.tasks(target) == []
    assert len(look(target).instances) == 1


def test_a_start_by_botkeep_right_after_a_crash_is_no_restart_of_the_swarms_own(made: SwarmServices) -> None:
    target = made.bot("--graceful")
    os.kill(pid_of(start(target)), signal.SIGKILL)
    wait_for(lambda: not look(target).instances)
    start(target)
    assert look(target).starts == ()


def test_a_start_in_the_moment_in_which_the_swarm_has_not_missed_its_process_yet(made: SwarmServices) -> None:
    target = made.bot("--graceful")
    for _ in range(4):
        os.kill(pid_of(start(target)), signal.SIGKILL)
        wait_for(lambda: not look(target).instances)


def test_a_new_memory_limit_starts_nothing(made: SwarmServices) -> None:
    limits = {"Resources": {"Limits": {"MemoryBytes": 64 << 20}}}
    target = made.bot("--exit-after=0.2", "--exit-code=3", template=limits)
    start(target)
    wait_for(lambda: made.tasks(target)[0]["Status"]["State"] == "failed")
    version = made.service(target)["Version"]
    with pytest.raises(EngineError, match="Stop it first"):
        swarm_control.set_memory(target.config, 65 << 20)
    assert made.service(target)["Version"] == version


def test_a_task_that_finds_its_place_while_it_is_stopped_is_ended_too(made: SwarmServices, tmp_path: Path) -> None:
    label = f"bots-{made.lab.token}"
    placed = {"Placement": {"Constraints": [f"node.labels.{label}==yes"]}}
    target = shell(made, "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.1; done", template=placed,
                   container={"StopGracePeriod": 10 * SECOND})  # fmt: skip
    made.scale(target, 1)
    wait_for(lambda: look(target).giving_up)
    node = made.client.nodes()[0]
    with through(made, tmp_path, stop_grace=5) as (seen, proxy), ThreadPoolExecutor(1) as pool:
        proxy.holds = re.compile(rb"POST \S+/update")
        stopping = pool.submit(SWARM.stop, seen, 9.0, time.monotonic() + 2 * DEADLINE)
        assert proxy.has_one.wait(DEADLINE)
        made.client.update_node(node["ID"], node["Version"]["Index"], {**node["Spec"], "Labels": {label: "yes"}})
        wait_for(lambda: made.running(target))
        proxy.holds = None
        stopped = stopping.result()
        assert runs(made, target, 0)
    assert stopped.left == ()


def test_the_grace_of_a_stop_begins_when_the_swarm_has_taken_the_order(made: SwarmServices, tmp_path: Path) -> None:
    target = shell(made, "trap 'sleep 1; exit 7' TERM; while :; do sleep 0.1; done", container={"StopGracePeriod": 0})
    made.update(target, lambda spec: spec["TaskTemplate"]["ContainerSpec"].update(StopGracePeriod=30 * SECOND))
    start(target)
    with through(made, tmp_path) as (seen, proxy), ThreadPoolExecutor(1) as pool:
        proxy.holds = re.compile(rb"POST \S+/update")
        stopping = pool.submit(SWARM.stop, seen, 5.5, time.monotonic() + 2 * DEADLINE)
        assert proxy.has_one.wait(DEADLINE)
        threading.Event().wait(4)  # so long a manager may take
        proxy.holds = None
        assert (stopping.result().left, stopping.result().killed) == ((), False)
    ended = look(target).exit
    assert ended is not None
    assert ended.code == 7


def test_the_last_words_of_a_run_are_read_later_when_the_engine_breaks_off(made: SwarmServices, tmp_path: Path) -> None:
    text = (
        "n=$(cat count 2>/dev/null || echo 0); n=$((n + 1)); echo $n > count; echo run $n; "
        "while ! test -e go$n; do sleep 0.1; done; echo end $n; exit 1"
    )
    policy = {"Condition": "any", "Delay": 0}
    target = shell(made, text, policy=policy, template={"LogDriver": {"Name": "local"}})

    def heard() -> bytes:
        path = SWARM.log(seen) if look(seen) else None
        return path.read_bytes() if path and path.exists() else b""

    with through(made, tmp_path) as (seen, proxy):
        made.scale(target, 1)
        wait_for(lambda: heard() == b"run 1\n")
        first = made.container(target)
        (made.lab.home / "go1").touch()
        wait_for(lambda: made.running(target) and made.container(target) != first)
        proxy.breaks = re.compile(f"/containers/{first}/logs".encode())
        heard()
        assert proxy.breaks is None
        wait_for(lambda: heard() == b"run 1\nend 1\nrun 2\n")


# ---------------------------------------------------------------------------------------------------- bad answers


class Manager:
    """Answers as a manager did that was recorded, or as it is told. A context manager."""

    def __init__(self, **said: Any) -> None:
        raw = json.loads(RECORDED.read_text())
        self.said = {"info": raw["info"], "services": raw["services"], "tasks": raw["tasks"],
                     "containers/json": raw["containers"], "nodes": raw["nodes"], **said}  # fmt: skip
        self.drop = 0.0
        """Seconds between two bytes of an answer."""
        self.changes: list[str] = []
        self.over = threading.Event()
        manager = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                manager.changes.append(self.path)
                self._send(b"{}")

            def do_GET(self) -> None:
                self._send(manager.answer(self.path.partition("?")[0]))

            def _send(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Api-Version", "1.41")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                step = 1 if manager.drop else max(1, len(body))
                for at in range(0, len(body), step):
                    if manager.drop and manager.over.wait(manager.drop):
                        return
                    self.wfile.write(body[at : at + step])
                    self.wfile.flush()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def answer(self, path: str) -> bytes:
        """The body."""
        what = re.sub(r"^/(v[\d.]+/)?", "", path)
        said = self.said.get(what)
        if said is None and what.startswith("services/"):
            said = next(one for one in self.said["services"] if one["ID"] == what.removeprefix("services/"))
        return said if isinstance(said, bytes) else json.dumps(said).encode()

    def config(self, service: str = "bots_second") -> swarm.Config:
        """A bot of its."""
        return swarm.Config(kind="swarm", service=service, host=f"tcp://127.0.0.1:{self.server.server_port}")

    def __enter__(self) -> Manager:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        docker_transport.hang_up()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def asked(config: swarm.Config, seconds: float = SLOW) -> Any:
    """What a look says, which ends in time whatever the engine does."""
    begin = time.monotonic()
    found = swarm.units({"doge": config}, seconds)["doge"]
    assert time.monotonic() - begin < seconds + 1
    return found


@pytest.mark.parametrize("path", ["info", "services", "tasks", "containers/json"])
def test_an_engine_that_does_not_answer_one_of_the_questions_is_an_error_in_time(
    made: SwarmServices, tmp_path: Path, path: str
) -> None:
    made.bot()
    with through(made, tmp_path) as (seen, proxy):
        assert not isinstance(asked(seen.config, 8.0), EngineError)
        proxy.holds = re.compile(rf" \S+/{path}\b".encode())
        assert "gave no complete answer within" in str(asked(seen.config))


def test_an_engine_that_drips_is_an_error_in_time() -> None:
    with Manager() as manager:
        assert len(asked(manager.config(), 8.0)) == 1
        manager.drop = 0.05
        assert "gave no complete answer within" in str(asked(manager.config()))


def task(**edit: Any) -> list[Mapping[str, Any]]:
    """The recorded ones, with one of another node changed."""
    raw = json.loads(RECORDED.read_text())
    mine = next(one["ID"] for one in raw["services"] if one["Spec"]["Name"] == "bots_second")
    return [{**one, **edit} if one["ServiceID"] == mine else one for one in raw["tasks"]]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("info", b""),
        ("info", b"<html>"),
        ("services", b"null"),
        ("services", [{"ID": "../x"}]),
        ("tasks", b"[{}]"),
        ("tasks", b"[" * 100_000),
        ("tasks", task(Status={"State": ["running"]})),
        ("containers/json", b'{"message": "no"}'),
        ("nodes", b"[1]"),
    ],
)
def test_rubbish_is_an_error_of_its_bots_and_no_traceback(what: str, said: Any) -> None:
    with Manager(**{what: said}) as manager:
        assert "is not understood" in str(asked(manager.config()))


@pytest.mark.parametrize("made_at", ["2026-13-45T00:00:00Z", "9999-12-31T23:59:59-23:59", "0000-00-00T00:00:00Z"])
def test_a_time_that_is_none_is_no_traceback(made_at: str) -> None:
    with Manager(tasks=task(CreatedAt=made_at, Status={"State": "failed", "Timestamp": made_at})) as manager:
        (unit,) = asked(manager.config())
        assert unit.started_at is None


# ---------------------------------------------------------------------------------------------------- lost for a day


def down(**edit: Any) -> list[Mapping[str, Any]]:
    """The nodes, with the second one lost."""
    nodes = json.loads(RECORDED.read_text())["nodes"]
    return [
        {**one, "Status": {"State": "down"}, **edit} if one["Description"]["Hostname"] == "second" else one
        for one in nodes
    ]


@pytest.mark.parametrize("state", ["running", "orphaned"])
def test_nothing_is_started_while_a_lost_machine_may_run_it_however_long_that_takes(state: str) -> None:
    status = {"State": state, "Timestamp": "2026-11-20T21:00:00Z"}
    with Manager(tasks=task(DesiredState="shutdown", Status=status), nodes=down()) as manager:
        (unit,) = asked(manager.config())
        assert (unit.state, len(unit.lost), unit.exit) == (None, 1, None)
        assert "nobody can say whether that copy still trades" in " ".join(unit.notes)
        with pytest.raises(EngineError, match="is still there on node second"):
            swarm.start(manager.config(), 2.0)
        assert manager.changes == []


def test_a_task_of_a_node_that_a_person_removed_is_over() -> None:
    nodes = [one for one in down() if one["Status"]["State"] != "down"]
    with Manager(tasks=task(DesiredState="shutdown", Status={"State": "orphaned"}), nodes=nodes) as manager:
        (unit,) = asked(manager.config())
        assert (unit.state, unit.lost) == (None, ())
