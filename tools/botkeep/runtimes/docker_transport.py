"""Talking to an engine of Docker's kind through its SDK, over connections that keep one deadline and one bound.

The SDK's own connections have a time limit for each read, which an engine that sends a byte at a time never breaks;
over ssh they have none, and want a library of their own for what the machine's `ssh` does. Here every way leads over
a socket that knows when the whole conversation has to be over and how much it may bring.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import docker
import docker.constants
import docker.errors
import requests
import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions
from docker.transport.basehttpadapter import BaseHTTPAdapter

from botkeep.model import EngineError
from botkeep.untrusted import clean

from .docker_address import Address

BYTES = 64 << 20
"""That one conversation may bring: a list of ten thousand containers is a fifth of it."""
LINE = 1 << 20
"""Bytes of one line of what an engine tells as it happens."""
URL = "http+docker://engine"
STATED = 2048
"""Bytes of what `ssh` says that are read."""


class RefusedError(EngineError):
    """The engine answered, and said no."""

    def __init__(self, text: str, status: int, said: str) -> None:
        super().__init__(text)
        self.status = status
        self.said = said
        """Its own words, cleaned."""


class TooSlowError(EngineError):
    """The time was over before the engine had answered."""


class Clock:
    """What is left of a conversation: seconds and bytes."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.begin(0.0)

    def begin(self, seconds: float, most: int = BYTES) -> None:
        """A new conversation begins."""
        self.seconds, self.until, self.most = seconds, time.monotonic() + seconds, most

    def left(self) -> float:
        """Seconds. Raises EngineError when there are none."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> TooSlowError:
        """What to raise when they were not enough."""
        return TooSlowError(f"Docker at {self.address} gave no complete answer within {self.seconds:.0f} s.")

    def took(self, count: int) -> int:
        """Note what came. Raises EngineError when it is more than any engine has to say."""
        self.most -= count
        if self.most < 0:
            raise EngineError(f"Docker at {self.address} does not stop talking: its answer is too long.")
        return count


class _Socket(socket.socket):
    """Each wait ends with the conversation, whatever time limit somebody sets for it."""

    clock: Clock

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(self.clock.left())
        try:
            return self.clock.took(super().recv_into(*arguments))
        except TimeoutError as error:
            raise self.clock.over() from error

    def sendall(self, *arguments: Any) -> None:
        self.settimeout(self.clock.left())
        try:
            super().sendall(*arguments)
        except TimeoutError as error:
            raise self.clock.over() from error


class _TlsSocket(ssl.SSLSocket):
    """The same over TLS."""

    clock: Clock

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(self.clock.left())
        try:
            return self.clock.took(super().recv_into(*arguments))
        except TimeoutError as error:
            raise self.clock.over() from error

    def sendall(self, *arguments: Any) -> None:
        self.settimeout(self.clock.left())
        try:
            super().sendall(*arguments)
        except TimeoutError as error:
            raise self.clock.over() from error


# ---------------------------------------------------------------------------------------------------- connecting


class Link:
    """One connection to one engine, with the SDK's client on top. Used by one conversation at a time."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.clock = Clock(address)
        self.client: Any = None
        self._child: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self.socket: socket.socket | None = None
        """The newest one."""
        self._adapter = _Adapter(self)

    def open(self) -> None:
        """Be connected, to something that is an engine. Raises EngineError, and what `requests` raises."""
        if self.client is not None:
            return
        with requests.Session() as session:
            session.trust_env = False  # no proxies, no .netrc: an engine is asked directly
            session.mount(URL, self._adapter)
            version = session.get(f"{URL}/_ping", allow_redirects=False).headers.get("Api-Version", "")
            self.client = docker.APIClient(base_url="unix:///", version=self._agreed(version))
            self.client.base_url, self.client.trust_env, self.client.max_redirects = URL, False, 0
            self.client.mount(URL, self._adapter)
            session.adapters.clear()  # closing the session would close the connection, which the client goes on using

    def _agreed(self, theirs: str) -> str:
        """The newest version that both speak."""
        parts = theirs.split(".")
        if len(parts) != 2 or not all(part.isdecimal() and len(part) < 5 for part in parts):
            raise EngineError(f"What answers at {self.address} is not Docker.")
        ours = docker.constants.DEFAULT_DOCKER_API_VERSION
        return min(theirs, str(ours), key=lambda version: [int(part) for part in version.split(".")])

    def dial(self) -> socket.socket:
        """A connected socket. Raises EngineError."""
        place = self.address.place
        if place.kind == "ssh":
            return self._through_ssh()
        connection = self._to_socket() if place.kind == "unix" else self._to_port()
        return self._secured(connection) if self.address.tls else connection

    def _to_socket(self) -> _Socket:
        connection = self._new(socket.AF_UNIX)
        try:
            connection.connect(self.address.place.path)
        except OSError as error:
            connection.close()
            raise self._cannot(error) from error
        return connection

    def _new(self, family: int) -> _Socket:
        connection = _Socket(family, socket.SOCK_STREAM)
        connection.clock = self.clock
        connection.settimeout(self.clock.left())
        return connection

    def _to_port(self) -> _Socket:
        """The first address that answers."""
        problem: OSError | None = None
        for family, address in self._addresses():
            connection = self._new(family)
            try:
                connection.connect(address)
            except OSError as error:
                connection.close()
                problem = error
            else:
                return connection
        raise self._cannot(problem or OSError("the name is not known")) from problem

    def _addresses(self) -> list[tuple[int, Any]]:
        """A name is looked up in a thread of its own, since resolvers keep no deadline."""
        place, found = self.address.place, list[tuple[int, Any]]()

        def look_up() -> None:
            with suppress(OSError, UnicodeError):
                answers = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
                found.extend((one[0], one[4]) for one in answers)

        thread = threading.Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(self.clock.left())
        return list(found)

    def _secured(self, connection: _Socket) -> _TlsSocket:
        files = self.address.tls
        used: Any = connection
        try:
            context = ssl.create_default_context(cafile=files.ca if files else None)
            if files and files.cert:
                context.load_cert_chain(files.cert, files.key)
            context.sslsocket_class = _TlsSocket
            host = self.address.place.host
            used = context.wrap_socket(connection, server_hostname=host, do_handshake_on_connect=False)
            used.clock = self.clock
            used.settimeout(self.clock.left())
            used.do_handshake()
        except OSError as error:  # a file that cannot be read, a certificate that does not convince
            used.close()
            raise self._cannot(error) from error
        secured: _TlsSocket = used
        return secured

    def _through_ssh(self) -> _Socket:
        """The machine's own `ssh`, with its keys, agent and known hosts, as Docker's command uses it."""
        place = self.address.place
        ours, theirs = socket.socketpair()
        user = ["-l", place.user] if place.user else []
        port = ["-p", str(place.port)] if place.port else []
        options = ["-T", "-x", "-a", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={max(1, int(self.clock.left()))}"]
        self._end_child()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - read when it fails, closed with the link
        try:
            with theirs:
                self._child = subprocess.Popen(
                    ["ssh", *options, *user, *port, "--", place.host, "docker", "system", "dial-stdio"],  # noqa: S607
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=self._stderr,
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise self._cannot(error) from error
        connection = _Socket(fileno=ours.detach())
        connection.clock = self.clock
        return connection

    # ------------------------------------------------------------------------------------------------ failing

    def _cannot(self, error: OSError) -> EngineError:
        if isinstance(error, TimeoutError):
            return self.clock.over()
        advice = {
            FileNotFoundError: "Is the engine running?",
            ConnectionRefusedError: "Is the engine running?",
            PermissionError: "This user may not use it; a member of the group docker may.",
        }.get(type(error), "")
        what = clean(error.strerror or str(error), 200).rstrip(".")
        return EngineError(f"Docker cannot be reached at {self.address}: {what}. {advice}".rstrip())

    def explained(self, error: Exception) -> EngineError:
        """What went wrong with an answer, in one sentence."""
        if (said := self._ssh_said()) and not isinstance(error, requests.exceptions.InvalidJSONError):
            return EngineError(f"Docker cannot be reached at {self.address}: ssh says: {said}")
        inner = next((one for one in _causes(error) if isinstance(one, ssl.SSLError)), None)
        if inner is not None:
            return self._cannot(inner)
        if any(isinstance(one, ConnectionError | http.client.RemoteDisconnected) for one in _causes(error)):
            return EngineError(f"Docker at {self.address} broke off before it had answered.")
        return EngineError(f"What Docker at {self.address} answers is not understood ({type(error).__name__}).")

    def _ssh_said(self) -> str:
        """Its last line, once it has ended."""
        if self._child is None or self._stderr is None:
            return ""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(min(1.0, max(0.0, self.clock.until - time.monotonic())))
        if self._child.poll() is None:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read(STATED).decode("utf-8", "replace").strip().splitlines()
        return clean(lines[-1], 200) if lines else f"nothing, and ended with exit code {self._child.returncode}"

    def cut(self) -> None:
        """From another thread: whoever waits for an answer gets an error now, and closes the link."""
        connection, child = self.socket, self._child
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if child is not None:
            child.kill()

    def close(self) -> None:
        """Nothing of it is left."""
        self._adapter.close()
        if self.client is not None:
            self.client.close()
            self.client = None
        self._end_child()

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error with all that led to it, which `requests` and `urllib3` also keep among their arguments."""
    while error is not None:
        yield error
        yield from (one for one in error.args if isinstance(one, BaseException))
        error = error.__cause__ or error.__context__


class _Connection(urllib3.connection.HTTPConnection):
    def __init__(self, link: Link) -> None:
        super().__init__("engine")
        self._link = link

    def connect(self) -> None:
        self.sock = self._link.socket = self._link.dial()


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    def __init__(self, link: Link) -> None:
        super().__init__("engine", maxsize=1)
        self._link = link

    def _new_conn(self) -> _Connection:
        return _Connection(self._link)


class _Adapter(BaseHTTPAdapter):  # type: ignore[misc] # the SDK has no types
    """Leads every request of a client to its link."""

    def __init__(self, link: Link) -> None:
        self._pool = _Pool(link)
        super().__init__(max_retries=0)

    def get_connection(self, url: str, proxies: Any = None) -> _Pool:  # noqa: ARG002 - the SDK's signature
        return self._pool

    def request_url(self, request: Any, proxies: Any) -> str:  # noqa: ARG002
        return str(request.path_url)

    def close(self) -> None:
        super().close()
        self._pool.close()


# ---------------------------------------------------------------------------------------------------- conversations

_idle: dict[tuple[int, Address], list[Link]] = {}
"""Links that nobody uses, by process: what was forked does not talk on its parent's connections."""
_lock = threading.Lock()
IDLE_MOST = 4


@contextmanager
def talk(address: Address, seconds: float, most: int = BYTES) -> Iterator[Any]:
    """The SDK's APIClient for one conversation of at most so many seconds and bytes, both hard.

    Whatever goes wrong in it, also an answer that makes no sense (ValueError, KeyError, TypeError), comes out as an
    EngineError; RefusedError where the engine answered with an error.
    """
    link = _take(address)
    link.clock.begin(seconds, most)
    sound = False
    try:
        link.open()
        yield link.client
        sound = True
    except docker.errors.APIError as error:
        sound = True
        raise _refused(address, error) from error
    except _TROUBLE as error:
        raise link.explained(error) from error
    finally:
        _give_back(link, sound=sound)


@contextmanager
def listen(link: Link, path: str, query: dict[str, str], seconds: float) -> Iterator[tuple[str, Iterator[bytes]]]:
    """What an engine tells for as long as it is listened to: (its clock's time, the lines as they come).

    `seconds`: until it has to have begun; set `link.clock` for how long it may go on. The link is closed afterwards.
    Raises EngineError as `talk`, TooSlowError when the time is over.
    """
    link.clock.begin(seconds)
    try:
        link.open()
        client: Any = link.client
        version = client.api_version
        answer = client.get(f"{URL}/v{version}{path}", params=query, stream=True, allow_redirects=False)
        answer.raise_for_status()
        yield str(answer.headers.get("Date", "")), _lines(answer.raw)
    except _TROUBLE as error:
        raise link.explained(error) from error
    finally:
        link.close()


def _lines(raw: Any) -> Iterator[bytes]:
    """As they come. Raises ValueError for one that no event is as long as."""
    rest = b""
    for data in _pieces(raw):
        *whole, rest = (rest + data).split(b"\n")
        if len(rest) > LINE:
            raise ValueError("a line without end")
        yield from whole


def _pieces(raw: Any) -> Iterator[bytes]:
    """Whatever has come: of an answer without chunks, as some proxies give one, `stream` waits for 64 KiB."""
    if not hasattr(raw, "read1"):  # urllib3 before 2.2
        yield from raw.stream(65536, decode_content=False)
        return
    while data := raw.read1(65536, decode_content=False):
        yield data


_TROUBLE = (
    requests.exceptions.RequestException,
    docker.errors.DockerException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)


def _refused(address: Address, error: docker.errors.APIError) -> RefusedError:
    said = clean(str(error.explanation or error), 400).rstrip(".")
    return RefusedError(f"Docker at {address} says: {said}.", error.status_code or 0, said)


def _take(address: Address) -> Link:
    with _lock:
        waiting = _idle.get((os.getpid(), address))
        return waiting.pop() if waiting else Link(address)


def _give_back(link: Link, *, sound: bool) -> None:
    """For the next conversation; not one that broke, on which the rest of an answer may still come."""
    with _lock:
        waiting = _idle.setdefault((os.getpid(), link.address), [])
        if sound and len(waiting) < IDLE_MOST:
            waiting.append(link)
            return
    link.close()


def hang_up() -> None:
    """Close every idle connection of this process."""
    with _lock:
        mine = [key for key in _idle if key[0] == os.getpid()]
        links = [link for key in mine for link in _idle.pop(key)]
    for link in links:
        link.close()
