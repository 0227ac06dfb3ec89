"""Two real S3 servers, and a proxy before them that loses, cuts and forges answers.

moto honours If-None-Match and lets anybody in; `rclone serve s3` ignores it, checks signatures and keeps objects as
files. Each is started on a free port and ended by its pid.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest

from botkeep.config import S3Config
from botkeep.stores import S3Store
from support.bots import wait_for

BUCKET = "trades"
KEY, SECRET = "BOTKEEPTESTKEY00", "botkeep-test-secret-0123456789"
ENVIRON = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
Fault = Literal["lost", "cut", "html", "503", "403", "404", "reset", "hang", "endless"]


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str:
    found = Path(sys.executable).with_name(name)
    path = str(found) if found.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: the S3 tests need it")
    return path


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True


@contextmanager
def _served(command: list[str], port: int) -> Iterator[str]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/") as server:
        try:
            wait_for(lambda: _listens(port) or server.poll() is not None, 30)
            assert server.poll() is None, f"{command[0]} ended"
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


@contextmanager
def moto() -> Iterator[str]:
    """Its address. The bucket is there."""
    port = free_port()
    with _served([_program("moto_server"), "-H", "127.0.0.1", "-p", str(port)], port) as address:
        make = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
        urllib.request.urlopen(make, timeout=10).close()
        yield address


@contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """Its address; `folder` holds the buckets."""
    (folder / BUCKET).mkdir(parents=True)
    port = free_port()
    command = [_program("rclone"), "serve", "s3", "--auth-key", f"{KEY},{SECRET}", "--addr", f"127.0.0.1:{port}"]
    with _served([*command, "--config", os.devnull, "--vfs-cache-mode", "off", str(folder)], port) as address:
        yield address


def store(address: str, work: Path, *, prefix: str = "botkeep", deadline: float = 5.0, **config: str) -> S3Store:
    """A store there, with these tests' credentials."""
    made = S3Config(bucket=config.pop("bucket", BUCKET), prefix=prefix, endpoint=address, **config)
    return S3Store(made, work, ENVIRON, deadline=deadline)


# --- the proxy ---------------------------------------------------------------------------------------------------


@dataclass
class Proxy:
    """What it does to requests: `fault` to those that `when` says, at most `times` of them; the rest it passes on."""

    address: str
    fault: Fault | None = None
    times: int = 1 << 30
    when: Callable[[str, str], bool] = lambda _method, _path: True
    seen: list[tuple[str, str]] = field(default_factory=list)
    """(method, path) of every request."""
    released: threading.Event = field(default_factory=threading.Event)
    """Ends what hangs."""

    def break_(
        self, fault: Fault, *, times: int = 1 << 30, when: Callable[[str, str], bool] = lambda _method, _path: True
    ) -> None:
        """From now on."""
        self.fault, self.times, self.when = fault, times, when
        self.seen.clear()

    def mend(self) -> None:
        """Pass everything on."""
        self.fault = None

    def fault_for(self, method: str, path: str) -> Fault | None:
        """What to do with this request."""
        self.seen.append((method, path))
        if self.fault is None or self.times <= 0 or not self.when(method, path):
            return None
        self.times -= 1
        return self.fault


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """A proxy of our own on loopback, before `upstream`."""
    made = Proxy("")

    class Handler(_Handler):
        to = upstream.removeprefix("http://")
        control = made

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        made.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.released.set()
            server.shutdown()
            thread.join()


PAGE = b"<!doctype html><html><title>Log in to the network</title></html>"
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    to: str
    control: Proxy

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.control.fault_for(self.command, self.path)
        if fault in ("lost", "cut", None):
            self._pass_on(body, fault)
        elif fault == "hang":
            self.control.released.wait(60)
            self.close_connection = True
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        elif fault == "endless":
            self._drip()
        elif fault == "html":
            self._answer(200, PAGE, {"Content-Type": "text/html", "ETag": '"page"'})
        else:
            self._answer(int(fault or 0), EXPIRED if fault == "403" else b"", {})

    def _pass_on(self, body: bytes, fault: Fault | None) -> None:
        link = http.client.HTTPConnection(self.to, timeout=10)
        try:
            link.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                link.putheader(name, value)
            link.endheaders(body or None)
            answer = link.getresponse()
            data = answer.read()
        finally:
            link.close()
        if fault == "lost":
            self.close_connection = True
            return
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OURS}
        self._answer(answer.status, data, kept, cut=fault == "cut")

    def _answer(self, status: int, data: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response_only(status)
        if "Last-Modified" not in headers:
            headers["Last-Modified"] = "Sat, 21 Nov 2026 10:00:00 GMT"
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut

    def _drip(self) -> None:
        """An answer that never ends, a byte at a time."""
        self.send_response_only(200)
        self.send_header("ETag", '"slow"')
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 10:00:00 GMT")
        self.send_header("Content-Length", "100000")
        self.end_headers()
        try:
            while not self.control.released.wait(0.05):
                self.wfile.write(b"a")
        except OSError:
            pass
        self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815  # the names that http.server calls


_OURS = {"content-length", "transfer-encoding", "connection"}
