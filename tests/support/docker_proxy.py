"""Something between botkeep and an engine: counts what is asked, goes away and comes back, speaks TLS."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_REQUEST = re.compile(rb"(?:GET|POST|DELETE|HEAD) (\S+) HTTP/1\.1\r\n")


class Proxy:
    """Forwards connections to the engine's socket. A context manager."""

    def __init__(self, engine: str, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.engine = engine.removeprefix("unix://")
        self.listener = listener
        self.context = context
        self.asked: list[str] = []
        """Path of every request, in order."""
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @classmethod
    def at(cls, engine: str, path: Path) -> Proxy:
        """On a unix socket."""
        listener = socket.socket(socket.AF_UNIX)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(64)
        return cls(engine, listener)

    @classmethod
    def over_tls(cls, engine: str, context: ssl.SSLContext) -> Proxy:
        """On a port of this machine."""
        return cls(engine, socket.create_server(("127.0.0.1", 0)), context)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.listener.getsockname()[1])

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self.listener.accept()[0]
                self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self.context:
                connection = self.context.wrap_socket(connection, server_side=True)
            engine = socket.socket(socket.AF_UNIX)
            self._open += [connection, engine]
            engine.connect(self.engine)
            back = threading.Thread(target=self._copy, args=(engine, connection), daemon=True)
            self._threads.append(back)
            back.start()
            self._copy(connection, engine, note=True)
        connection.close()

    def _copy(self, source: socket.socket, sink: socket.socket, *, note: bool = False) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if note:
                    self.asked += [found.decode() for found in _REQUEST.findall(data)]
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Gone, with every connection."""
        for one in (self.listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self._threads:
            thread.join(5)
        for one in self._open:
            one.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
