"""Servers on loopback that answer as they are told: well-behaved, slow, endless, lying."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each connection in a thread of its own, until it is closed."""

    def __init__(
        self, answer: Answer, family: int = socket.AF_INET, host: str = "127.0.0.1", *, reads: bool = True
    ) -> None:
        self.answer = answer
        self.reads = reads
        self.socket = socket.create_server((host, 0), family=family)
        self.port = self.socket.getsockname()[1]
        self.over = threading.Event()
        self.requests: list[bytes] = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=self._answer, args=(self.socket.accept()[0],), daemon=True)
                self.threads.append(thread)
                thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            if self.reads:
                self.requests.append(connection.recv(65536))
            self.answer(connection)

    def close(self) -> None:
        self.over.set()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in self.threads:
            thread.join(5)


Serve = Callable[..., Server]


@contextmanager
def servers() -> Iterator[Serve]:
    """What starts them; all of them are closed in the end."""
    started: list[Server] = []

    def start(answer: Answer, family: int = socket.AF_INET, host: str = "127.0.0.1", *, reads: bool = True) -> Server:
        started.append(Server(answer, family, host, reads=reads))
        return started[-1]

    try:
        yield start
    finally:
        for server in started:
            server.close()


def url(server: Server, path: str = "/health") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def send(*parts: bytes) -> Answer:
    """These bytes, and the connection is closed."""

    def answer(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)

    return answer


def drip(server: Server, start: bytes, drop: bytes) -> Answer:
    """`start`, then a drop each 20 ms until the server is closed."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while not server.over.wait(0.02):
            connection.sendall(drop)

    return answer


def endless(start: bytes, more: bytes) -> Answer:
    """`start`, then as much as is taken."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(more)

    return answer
