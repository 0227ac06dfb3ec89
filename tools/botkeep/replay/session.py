"""The HTTP connection that ccxt uses for us: never followed elsewhere, never longer than asked, never read without end.

The keys stand in headers and in signed addresses. So no redirect is followed, no proxy is taken from the environment,
and with an endpoint configured nothing goes to another host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from requests import RequestException, Response, Session

BODY_LIMIT = 64 << 20
"""Bytes of one answer: the list of all markets of a large exchange is a fifth of it."""
ONE_REQUEST = 10.0
"""Seconds in which an answer must begin, and go on."""

_T = TypeVar("_T")


class AnswerError(Exception):
    """An answer that is none of an exchange, or none at all: a phrase."""


class OutOfTimeError(Exception):
    """The time for the whole question is over."""


class Deadline:
    """Until when the whole question may take."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._given_up = threading.Event()

    def left(self) -> float:
        """Seconds. Raises OutOfTimeError if there are none."""
        seconds = self._end - time.monotonic()
        if seconds <= 0 or self._given_up.is_set():
            raise OutOfTimeError
        return seconds

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end. Raises OutOfTimeError."""
        if seconds >= self.left():
            raise OutOfTimeError
        self._given_up.wait(seconds)

    def run(self, work: Callable[[], _T]) -> _T:
        """What `work` gives, or OutOfTimeError: a name that is not resolved and a header that drips know no timeout.

        The thread that was given up sends nothing any more and ends with the request it is in.
        """
        answer: list[_T] = []
        trouble: list[BaseException] = []

        def worker() -> None:
            try:
                answer.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again below, by the thread that asked
                trouble.append(error)

        thread = threading.Thread(target=worker, name="exchange", daemon=True)
        thread.start()
        thread.join(max(0.0, self._end - time.monotonic()))
        if trouble:
            raise trouble[0]
        if not answer:
            self._given_up.set()
            raise OutOfTimeError
        return answer[0]


class GuardedSession(Session):
    """requests' session with those rules."""

    def __init__(self, deadline: Deadline, host: str | None) -> None:
        super().__init__()
        self.trust_env = False
        self._deadline = deadline
        self._host = host
        """`host:port` of the configured endpoint."""

    def request(self, method: str, url: str | bytes, *args: Any, **more: Any) -> Response:
        """As in requests. Raises AnswerError, OutOfTimeError, or RequestException."""
        self._refuse_elsewhere(url if isinstance(url, str) else url.decode())
        more |= {"allow_redirects": False, "stream": True, "timeout": min(ONE_REQUEST, self._deadline.left())}
        answer = super().request(method, url, *args, **more)
        # requests has no other way to hand on a body that was read with a limit.
        answer._content = self._body(answer)  # noqa: SLF001
        if answer.is_redirect:
            raise AnswerError("it answered with a redirect, which is not followed because the key would go along")
        if answer.ok and answer.content.lstrip()[:1] not in (b"{", b"["):
            raise AnswerError("it answered with something else than JSON, like a maintenance page")
        return answer

    def _refuse_elsewhere(self, url: str) -> None:
        address = urlsplit(url)
        if self._host is None and address.scheme != "https":
            raise AnswerError(f"an address of it ({address.scheme}://{address.netloc}) is not encrypted")
        if self._host is not None and address.netloc != self._host:
            raise AnswerError(f"an address of it ({address.netloc}) is not at the configured endpoint {self._host}")

    def _body(self, answer: Response) -> bytes:
        data = bytearray()
        try:
            for chunk in answer.iter_content(1 << 16):
                data += chunk
                self._deadline.left()
                if len(data) > BODY_LIMIT:
                    raise AnswerError(f"its answer has more than {BODY_LIMIT >> 20} MiB")
        except RequestException as error:
            raise AnswerError("it broke off in the middle of its answer") from error
        finally:
            answer.close()
        return bytes(data)
