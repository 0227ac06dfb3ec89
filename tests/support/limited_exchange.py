"""An exchange on loopback that counts what it is asked, and refuses whoever asks too often, as Binance does."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WINDOW = 1.0
"""Seconds over which questions are counted."""
TOO_MANY = "Too much request weight used; current limit is {limit} request weight per 1 SECOND."
BANNED = "Way too much request weight used; IP banned until {until}."


class Exchange:
    """Its limit, and what it was asked. A limit of None refuses nobody."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.banned_until = 0.0
        """Epoch seconds."""
        self.closed = ""
        """A path at which it refuses everybody."""
        self.asked = 0
        self.refused = 0
        self.paths: deque[str] = deque(maxlen=1000)
        self._times: deque[float] = deque()
        self._lock = threading.Lock()
        self.url = ""

    def answer(self, path: str) -> tuple[int, str]:
        """Status and what is said."""
        with self._lock:
            now = time.monotonic()
            self._times.append(now)
            self.asked += 1
            self.paths.append(path)
            while self._times[0] < now - WINDOW:
                self._times.popleft()
            if time.time() < self.banned_until:
                self.refused += 1
                return 418, BANNED.format(until=int(self.banned_until * 1000))
            if path == self.closed or (self.limit is not None and len(self._times) > self.limit):
                self.refused += 1
                return 429, TOO_MANY.format(limit=self.limit)
            return 200, "ok"

    def ban(self, seconds: float) -> None:
        """Refuse everything for so long, and say until when."""
        self.banned_until = time.time() + seconds

    def rate(self) -> int:
        """Questions within the last second."""
        with self._lock:
            now = time.monotonic()
            return sum(at >= now - WINDOW for at in self._times)


@contextmanager
def exchange(limit: int | None = None) -> Iterator[Exchange]:
    """It listens at `url` until the test is over."""
    one = Exchange(limit)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, said = one.answer(self.path)
            body = json.dumps({"price": "1"} if status == 200 else {"code": -1003, "msg": said}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    one.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
