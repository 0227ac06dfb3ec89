"""A service of somebody's own: takes JSON over plain HTTP, answers with the status that it is told, keeps what came."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Webhook:
    """What came, and what is answered."""

    port: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    came: list[dict[str, Any]] = field(default_factory=list)
    """Also what was refused."""
    taken: list[dict[str, Any]] = field(default_factory=list)
    """What was answered with 2xx."""

    @property
    def url(self) -> str:
        """For `notify`; holds no secret."""
        return f"json://127.0.0.1:{self.port}/alerts"


@contextmanager
def webhook() -> Iterator[Webhook]:
    """One that runs until the block ends."""
    known = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing: pytest shows what failed."""

        def do_POST(self) -> None:
            message, status = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0)))), known.status
            known.came.append(message)
            if status < 300:
                known.taken.append(message)
            self.send_response(status)
            for name, value in known.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
