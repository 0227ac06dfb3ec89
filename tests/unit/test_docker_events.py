"""Which bots an event is about; and a stream over a real socket, from engines that break off, flood and begin anew."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from botkeep.runtimes import RUNTIMES
from botkeep.runtimes.docker_events import Streams, concerned
from support.fleet import wait_for

ID = "0123456789ab" + "c" * 52
PROJECT = {"com.docker.compose.project": "bots", "com.docker.compose.service": "btc", "name": "bots-btc-1"}
TASK = {"com.docker.swarm.service.name": "st_eth", "com.docker.swarm.service.id": "s3rv1ce", "name": "st_eth.1.x"}
BOTS: dict[str, dict[str, str]] = {
    "by-name": {"kind": "docker", "container": "doge"},
    "by-id": {"kind": "docker", "container": ID[:12]},
    "service": {"kind": "compose", "project": "bots", "service": "btc"},
    "task": {"kind": "swarm", "service": "st_eth"},
    "task-by-id": {"kind": "swarm", "service": "s3rv1ce"},
    "plain": {"kind": "process"},
}


def configs(host: str = "tcp://127.0.0.1:1", *names: str) -> dict[str, Any]:
    found = {}
    for name in names or tuple(BOTS):
        more = {"command": ["x"]} if name == "plain" else {"host": host}
        found[name] = RUNTIMES[BOTS[name]["kind"]].Config(**{**BOTS[name], **more})
    return found


@pytest.mark.parametrize(
    ("container", "said", "names"),
    [
        ("f" * 64, {"name": "doge"}, ["by-name"]),
        ("f" * 64, {"name": "0123456789ab_doge"}, ["by-name"]),
        ("f" * 64, {"name": "doge2"}, []),
        (ID, {"name": "other"}, ["by-id"]),
        ("f" * 64, PROJECT, ["service"]),
        ("f" * 64, {**PROJECT, "com.docker.compose.service": "eth"}, []),
        ("f" * 64, TASK, ["task", "task-by-id"]),
        ("f" * 64, {}, []),
    ],
)
def test_an_event_is_about_the_bots_whose_container_it_names(
    container: str, said: dict[str, str], names: list[str]
) -> None:
    known = [(name, one) for name, one in configs().items() if name != "plain"]
    assert list(concerned(known, container, said)) == names


# ---------------------------------------------------------------------------------------------------- a stream


class Engine(ThreadingHTTPServer):
    """Answers `/events` with what it was given, one answer for each time it is asked; then it breaks off."""

    daemon_threads = True

    def __init__(self, *answers: bytes, stays: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.answers = list(answers)
        self.over = threading.Event()
        self.stays = stays
        """It answers without chunks, a byte at a time, and does not break off."""
        self.asked_at: list[float] = []
        self.queries: list[dict[str, list[str]]] = []


class _Asked(BaseHTTPRequestHandler):
    server: Engine
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        if path.path.endswith("/events"):
            self.server.queries.append(parse_qs(path.query))
            self.server.asked_at.append(time.monotonic())
            if self.server.stays:
                self._stay()
                return
        self.send_response(200)
        self.send_header("Api-Version", "1.41")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if path.path.endswith("/events") and self.server.answers:
            data = self.server.answers.pop(0)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        elif path.path.endswith("/_ping"):
            self.wfile.write(b"0\r\n\r\n")
            return
        self.close_connection = True

    def _stay(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        for byte in self.server.answers.pop(0):
            self.wfile.write(bytes([byte]))
        self.server.over.wait(30)

    def log_message(self, *_: object) -> None:
        """Nowhere."""


class Heard:
    """Who is told."""

    def __init__(self) -> None:
        self.told: list[tuple[tuple[str, ...], str]] = []

    def __call__(self, names: tuple[str, ...], about: str, trouble: str) -> None:
        assert about.startswith("tcp://127.0.0.1:")
        self.told.append((names, trouble))

    def names(self) -> list[tuple[str, ...]]:
        return [names for names, _ in self.told if names]

    def troubles(self) -> list[str]:
        return [trouble for _, trouble in self.told if trouble]


def event(name: str, at: int) -> bytes:
    return json.dumps({"timeNano": at, "Actor": {"ID": "f" * 64, "Attributes": {"name": name}}}).encode() + b"\n"


@pytest.fixture
def heard() -> Heard:
    return Heard()


def listening(engine: Engine, heard: Heard) -> Iterator[None]:
    threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    streams = Streams(heard)
    streams.listen_for(configs(f"tcp://127.0.0.1:{engine.server_address[1]}", "by-name", "plain"))
    yield
    streams.end()
    engine.over.set()
    engine.shutdown()
    engine.server_close()


def test_events_are_told_and_a_stream_that_broke_off_goes_on_where_it_was(heard: Heard) -> None:
    engine = Engine(event("doge", 7 * 10**9) + event("other", 8 * 10**9), event("doge", 9 * 10**9))
    for _ in listening(engine, heard):
        wait_for(lambda: len(heard.names()) >= 4)
    first, second = engine.queries[:2]
    assert "since" not in first
    assert second["since"] == ["8.000000001"]
    asked = json.loads(first["filters"][0])
    assert (asked["type"], "die" in asked["event"]) == (["container"], True)
    assert heard.names()[:4] == [("by-name",)] * 4, "all bots, the event, all bots after the gap, the next event"
    assert heard.troubles()


@pytest.mark.parametrize(
    "answer",
    [b"x" * (3 << 20), b"not json\n", b"[]\n", b"{}\n", b'{"timeNano": 1, "Actor": null}\n', b"[" * 9999 + b"\n"],
    ids=["a line without end", "no JSON", "a list", "an empty one", "no actor", "nested"],
)
def test_what_is_no_event_is_trouble_and_the_thread_goes_on(heard: Heard, answer: bytes) -> None:
    engine = Engine(answer, event("doge", 9 * 10**9))
    for _ in listening(engine, heard):
        wait_for(lambda: len(heard.names()) >= 3)
    assert "Docker" in heard.troubles()[0]


def test_an_event_is_told_as_it_comes_also_where_the_answer_has_no_chunks_and_comes_a_byte_at_a_time(
    heard: Heard,
) -> None:
    engine = Engine(event("doge", 7 * 10**9), stays=True)
    for _ in listening(engine, heard):
        wait_for(lambda: len(heard.names()) >= 2, 5)
    assert heard.troubles() == []


def test_half_a_document_is_trouble_that_is_said_once_and_what_came_before_it_was_told(heard: Heard) -> None:
    half = event("doge", 9 * 10**9)[:40]
    engine = Engine(event("doge", 8 * 10**9) + half, half, event("doge", 10**10))
    for _ in listening(engine, heard):
        wait_for(lambda: len(engine.queries) >= 4, 20)
    assert heard.names()[:5] == [("by-name",)] * 5, "the event, and all bots at first and after each gap"
    assert len(heard.troubles()) == 1
    pauses = [later - earlier for earlier, later in pairwise(engine.asked_at)]
    assert all(later > 1.5 * earlier for earlier, later in pairwise(pauses[:3]))


def test_what_cannot_be_read_is_not_asked_for_again(heard: Heard) -> None:
    engine = Engine(event("doge", 8 * 10**9) + b"rubbish\n")
    for _ in listening(engine, heard):
        wait_for(lambda: len(engine.queries) >= 2)
    assert "since" not in engine.queries[1]


def test_an_engine_that_is_away_is_asked_again_after_growing_pauses(heard: Heard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    streams = Streams(heard)
    streams.listen_for(configs(f"tcp://127.0.0.1:{port}", "by-name"))
    wait_for(heard.troubles)
    with socket.create_server(("127.0.0.1", port)) as rude:
        times = []
        for _ in range(3):
            rude.accept()[0].close()
            times.append(time.monotonic())
    streams.end()
    assert "cannot be reached" in heard.troubles()[0]
    assert len(heard.troubles()) == 1, "it is said once, however it is away"
    assert times[2] - times[1] > 1.5 * (times[1] - times[0]) > 0


def test_who_has_no_bots_in_containers_loads_nothing_for_them() -> None:
    import subprocess
    import sys

    code = "import sys, botkeep.watch; sys.exit('docker' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
