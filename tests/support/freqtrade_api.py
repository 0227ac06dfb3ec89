"""freqtrade's REST API on loopback, as a dry run of 2026.9 answered it; any path can be told to answer otherwise."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parents[1] / "data/freqtrade/api_dry"
ASKED_AT = datetime(2026, 11, 21, 10, 21, 30, tzinfo=UTC)
"""When the samples were taken."""
USER, PASSWORD = "keeper", "correct-horse-7"
UNAUTHORIZED = b'{"detail":"Unauthorized"}'
NOT_READY = b'{"error":"Error querying /api/v1/health: Bot is not in the correct state"}'
Reply = Callable[[socket.socket], None]


def http(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A whole answer."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def saying(value: Any) -> bytes:
    """JSON, as it is written; text is taken as JSON already."""
    return http((value if isinstance(value, str) else json.dumps(value)).encode())


class FreqtradeApi:
    """One bot's API. `asked` is what it was asked, `replies` what it answers, by method and path after /api/v1/."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.replies: dict[str, Reply] = {}
        self.over = threading.Event()
        for name in ("health", "show_config", "count", "status", "version", "sysinfo"):
            self.says(name, json.loads((SAMPLES / f"{name}.json").read_text()))
        self.says("logs?limit=100", (SAMPLES / "logs_limit_20.json").read_text())
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------------ told

    def says(self, path: str, value: Any, method: str = "GET") -> None:
        """JSON with status 200."""
        self.sends(path, saying(value), method)

    def sends(self, path: str, answer: bytes, method: str = "GET") -> None:
        """These very bytes."""
        self.replies[f"{method} {path}"] = lambda connection: connection.sendall(answer)

    def does(self, path: str, reply: Reply, method: str = "GET") -> None:
        """Whatever that does with the connection."""
        self.replies[f"{method} {path}"] = reply

    def hangs(self, path: str) -> None:
        """It takes the question, and never answers."""

        def reply(connection: socket.socket) -> None:
            self.over.wait()

        self.does(path, reply)

    def configured(self, **changed: Any) -> None:
        """/show_config, with some of it changed."""
        self.says("show_config", {**json.loads((SAMPLES / "show_config.json").read_text()), **changed})

    def healthy(self, **changed: Any) -> None:
        """/health, with some of it changed."""
        self.says("health", {**json.loads((SAMPLES / "health.json").read_text()), **changed})

    def logged(self, *texts: str, logger: str = "freqtrade.worker") -> None:
        """What the process remembers of its log."""
        stamp = ASKED_AT.timestamp() * 1000
        rows = [["2026-11-21 10:21:30", stamp + number, logger, "INFO", text] for number, text in enumerate(texts)]
        self.says("logs?limit=100", {"log_count": len(rows), "logs": rows})

    def obeys(self) -> None:
        """Its state follows what is posted, as that of 2026.9 does: /pause starts a stopped one."""
        self._on_post("pause", "paused")
        self._on_post("start", "running")

    def _on_post(self, name: str, state: str) -> None:
        def reply(connection: socket.socket) -> None:
            self.configured(state=state)
            connection.sendall(saying({"status": f"{state} ..."}))

        self.does(name, reply, "POST")

    # ------------------------------------------------------------------------------------------------ asked

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._socket.accept()[0]
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and (more := connection.recv(65536)):
                head += more
            if head:
                self._reply(head.decode(), connection)

    def _reply(self, head: str, connection: socket.socket) -> None:
        method, path, _ = head.split("\r\n")[0].split(" ")
        name = f"{method} {path.removeprefix('/api/v1/')}"
        self.asked.append(name)
        key = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if f"Authorization: Basic {key}" not in head:
            connection.sendall(http(UNAUTHORIZED, "401 Unauthorized"))
        elif name in self.replies:
            self.replies[name](connection)
        else:
            connection.sendall(http(b'{"detail":"Not Found"}', "404 Not Found"))

    def close(self) -> None:
        self.over.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@contextmanager
def freqtrade_api() -> Iterator[FreqtradeApi]:
    """One that listens; it belongs to this process."""
    api = FreqtradeApi()
    try:
        yield api
    finally:
        api.close()
