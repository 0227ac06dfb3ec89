"""One question over HTTP to a bot, which may be hostile, hung, or somebody else's by now.

The address is resolved once, checked, and that very address is connected to. One deadline holds for everything:
a timeout for each read was stretched from 1 s to 6 s by a server that sent a byte at a time.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from .model import BotkeepError
from .untrusted import MARK, clean

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 64 * 1024
CHUNK_LINE_LIMIT = 1024
_PORTS = {"http": 80, "https": 443}
_IN_URL = "/%?:@!$&'()*+,;=~-._"
_STATUS = rb"\AHTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]{0,200})?\r?\n"
_LENGTH = rb"(?i)\r?\ncontent-length:[ \t]{0,8}(\d{1,15})[ \t]{0,8}\r?\n"
_CHUNKED = rb"(?i)\r?\ntransfer-encoding:[^\r\n]{0,100}chunked"
_CONTENT_TYPE = rb"(?i)\r?\ncontent-type:[ \t]{0,8}([a-z0-9.+/-]{1,100})"
_CHUNK_SIZE = rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n"
_NUMERIC_HOST = r"(?i)[0-9.]+|0x[0-9a-f.x]*"
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class WebError(BotkeepError):
    """A question that got no usable answer: `rule` is the one that was broken, as in `HealthLook.rule`."""

    def __init__(self, rule: str, text: str, *, certain: bool = False, pid: int | None = None) -> None:
        super().__init__(text)
        self.rule = rule
        self.certain = certain
        self.pid = pid
        """With wrong-owner: the process that listens there, if it can be seen."""


class Credentials(NamedTuple):
    """For basic authentication. Never shown, not even in a traceback."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({MARK})"

    @property
    def token(self) -> str:
        """As the header has them."""
        return base64.b64encode(f"{self.username}:{self.password}".encode("utf-8", "surrogateescape")).decode()

    def hide(self, text: str) -> str:
        """`text` without them, in the ways in which a server may give them back."""
        password = self.password
        forms = (self.token, password, quote(password, safe=""), quote(password), dumps(password)[1:-1])
        for form in filter(None, forms):
            text = text.replace(form, MARK)
        return text


class Deadline:
    """Seconds that are left for everything together; it runs from here on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._start

    def left(self) -> float:
        """Raises WebError when there are none."""
        left = self.seconds - self.spent
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> WebError:
        """What to raise when they were not enough."""
        return WebError("timeout", f"no complete answer within {self.seconds:g} s.")


@dataclass(frozen=True)
class Question:
    """What is asked, of whom, and who may answer."""

    url: str
    method: str = "GET"
    json: bytes | None = None
    """The body, JSON that was encoded already."""
    credentials: Credentials | None = None
    limit: int = BODY_LIMIT
    """Bytes of the answer's body that are read."""
    owner_pids: Set[int] | None = None
    """The bot's processes: an answer counts only if one of them listens on that port. After a start that found its
    port taken, the old copy would answer for the new one."""
    allowed_hosts: Set[str] = frozenset()
    """Hosts that may be asked although they are not this machine."""


@dataclass(frozen=True)
class Answer:
    """A whole head, and a body of at most as many bytes as were asked for. Any status but 1xx and 3xx."""

    status: int
    content_type: str
    """In lower case, without parameters; empty if there was none."""
    body: bytes = field(repr=False)
    missing: str = ""
    """Why the body is not all of it: too-long, broken; empty: it is."""
    credentials: Credentials | None = field(default=None, repr=False)

    def said(self, limit: int = 100) -> str:
        """The beginning of the body, fit to be shown, without the credentials of the question."""
        text = self.body.decode("utf-8", "replace")
        return clean(self.credentials.hide(text) if self.credentials else text, limit)


class _Target(NamedTuple):
    """A URL, taken apart."""

    scheme: str
    host: str
    port: int
    path: str
    authority: str


def ask(question: Question, clock: Deadline) -> Answer:
    """Ask once and return the answer, whatever its status; no redirects, no proxies. Changes nothing by itself.

    Raises WebError with the rule: refused, timeout, status (what came is no HTTP, or broke off within its head),
    redirect, too-long (the headers), wrong-owner, not-allowed. Its text never holds the credentials.
    """
    target = _parse(question.url)
    allowed = frozenset(host.lower() for host in question.allowed_hosts)
    connection, address = _connect(target, _checked(target, _resolve(target, clock), allowed), clock)
    with connection:
        if question.owner_pids is not None and address.is_loopback:
            _check_owner(address, target.port, question.owner_pids)
        return _exchange(_secured(connection, target, clock), target, question, clock)


def addresses(host: str, port: int, clock: Deadline, allowed_hosts: Set[str] = frozenset()) -> tuple[str, ...]:
    """Where `host` is, as numbers, as far as it may be asked: the rule of URLs, for a question that is not HTTP.

    Raises WebError: refused, timeout, not-allowed.
    """
    target = _Target("", host, port, "", host)
    allowed = frozenset(one.lower() for one in allowed_hosts)
    return tuple(str(one) for one in _checked(target, _resolve(target, clock), allowed))


def listeners(url: str) -> tuple[int, ...]:
    """Processes of this machine that listen where `url` leads; nothing is sent. Empty where that cannot be seen."""
    try:
        target = _parse(url)
    except WebError:
        return ()
    links: set[str] = set()
    for address in _own_addresses(target.host):
        links |= _listeners(address, target.port)
    return tuple(pid for pid in _all_pids() if _holds(pid, links)) if links else ()


def _own_addresses(host: str) -> Iterator[_Address]:
    for text in ("127.0.0.1", "::1") if host == "localhost" else (host,):
        with suppress(ValueError):
            address = ipaddress.ip_address(text)
            if address.is_loopback:
                yield address


# ---------------------------------------------------------------------------------------------- where it leads


def _parse(url: str) -> _Target:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise WebError("not-allowed", f"{clean(url, 100)} is not a URL: {error}.") from error
    if parts.scheme not in _PORTS or not host:
        raise WebError("not-allowed", f"{clean(url, 100)} is not asked: only http and https URLs with a host are.")
    if "@" in parts.netloc or "%" in host:
        raise WebError(
            "not-allowed", f"the URL's host {clean(host, 100)} is not asked: write it plainly, without user or zone."
        )
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port in (None, _PORTS[parts.scheme]) else f"{shown}:{port}"
    path = quote(parts.path or "/", safe=_IN_URL) + (f"?{quote(parts.query, safe=_IN_URL)}" if parts.query else "")
    return _Target(parts.scheme, host, port or _PORTS[parts.scheme], path, authority)


def _resolve(target: _Target, clock: Deadline) -> list[_Address]:
    """The addresses of the host. A name is looked up in a thread of its own, since resolvers keep no deadline."""
    with suppress(ValueError):
        return [ipaddress.ip_address(target.host)]
    if re.fullmatch(_NUMERIC_HOST, target.host):
        # 0x7f.1 and 127.1 are addresses to the C library only; what they hide is not worth guessing.
        raise WebError(
            "not-allowed", f"the host {clean(target.host, 60)} is not asked: write the address as 127.0.0.1."
        )
    found: list[_Address] = []
    thread = threading.Thread(target=_look_up, args=(target, found), daemon=True)
    thread.start()
    thread.join(clock.left())
    if thread.is_alive():
        raise clock.over()
    if not found:
        raise WebError("refused", f"the name {clean(target.host, 100)} cannot be resolved.")
    return found


def _look_up(target: _Target, found: list[_Address]) -> None:
    with suppress(OSError, UnicodeError):
        answers = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        found += dict.fromkeys(ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in answers)


def _checked(target: _Target, addresses: list[_Address], allowed: Set[str]) -> list[_Address]:
    """Those that may be asked. A listed host may be anywhere but where clouds keep their credentials."""
    plain = [(getattr(one, "ipv4_mapped", None) or one) for one in addresses]
    listed = target.host.lower() in allowed
    good = [one for one in plain if one.is_loopback or (listed and _is_ordinary(one))]
    if not good:
        raise WebError(
            "not-allowed",
            f"the host {clean(target.host, 100)} is at {plain[0]}; only loopback addresses are asked. "
            "List the host in allowed_hosts of config/bots.json if it is meant.",
        )
    return good


def _is_ordinary(address: _Address) -> bool:
    return not (address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved)


# --------------------------------------------------------------------------------------------------- the question


def _connect(target: _Target, addresses: list[_Address], clock: Deadline) -> tuple[socket.socket, _Address]:
    """The first address that answers: `localhost` is often ::1 first, and bots listen on 127.0.0.1."""
    problem: OSError | None = None
    for address in addresses:
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(clock.left())
            connection.connect((str(address), target.port))
        except OSError as error:
            connection.close()
            problem = error
        except WebError:
            connection.close()
            raise
        else:
            return connection, address
    if isinstance(problem, TimeoutError):
        raise clock.over() from problem
    why = problem.strerror if problem else "no address"
    raise WebError("refused", f"nothing answers at {target.authority}: {why}.") from problem


def _secured(connection: socket.socket, target: _Target, clock: Deadline) -> socket.socket:
    if target.scheme == "http":
        return connection
    import ssl  # few endpoints of bots speak TLS

    connection.settimeout(clock.left())
    try:
        return ssl.create_default_context().wrap_socket(connection, server_hostname=target.host)
    except TimeoutError as error:
        raise clock.over() from error
    except OSError as error:
        raise WebError("refused", f"{target.authority} does not complete TLS: {clean(str(error), 150)}.") from error


def _exchange(connection: socket.socket, target: _Target, question: Question, clock: Deadline) -> Answer:
    with connection:
        try:
            connection.settimeout(clock.left())
            connection.sendall(_request(target, question))
            stream = _Stream(connection, clock)
            head = _read_head(stream, quiet=question.credentials is not None)
            return _answer(head, *_read_body(stream, head, question.limit), question)
        except TimeoutError as error:
            raise clock.over() from error
        except OSError as error:
            raise WebError(
                "status", f"the connection broke before an answer was complete: {error.strerror}."
            ) from error


def _request(target: _Target, question: Question) -> bytes:
    lines = [
        f"{question.method} {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        "User-Agent: botkeep",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if question.credentials is not None:
        lines.append(f"Authorization: Basic {question.credentials.token}")
    if question.json is not None:
        lines.append("Content-Type: application/json")
    if question.json is not None or question.method != "GET":
        lines.append(f"Content-Length: {len(question.json or b'')}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (question.json or b"")


class _Stream:
    """What a server sends, some bytes at a time."""

    def __init__(self, connection: socket.socket, clock: Deadline) -> None:
        self._connection = connection
        self._clock = clock
        self.data = bytearray()
        """Received and not yet taken."""

    def more(self) -> bool:
        """Receive some; False at the end. The deadline is set anew before each read, or a drip would extend it."""
        self._connection.settimeout(self._clock.left())
        got = self._connection.recv(65536)
        self.data += got
        return bool(got)

    def take(self, size: int) -> bytes:
        """The first `size` bytes, or those there are."""
        taken = bytes(self.data[:size])
        del self.data[:size]
        return taken

    def fill(self, size: int) -> bool:
        """Receive until there are `size` bytes; False if it ended before."""
        while len(self.data) < size:
            if not self.more():
                return False
        return True

    def line(self) -> bytes:
        """The next line with its end; empty if none comes within 1 KiB."""
        while (end := self.data.find(b"\n")) < 0:
            if len(self.data) > CHUNK_LINE_LIMIT or not self.more():
                return b""
        return self.take(end + 1)


def _read_head(stream: _Stream, *, quiet: bool) -> bytes:
    """Status line and headers. Interim answers (1xx) are passed over. `quiet`: what came instead is not quoted."""
    while True:
        found = re.search(rb"\r?\n\r?\n", stream.data)
        if found:
            head = stream.take(found.end())[: found.start()] + b"\r\n"
            if not re.match(rb"HTTP/1\.[01] 1\d\d", head):
                return head
            continue
        if len(stream.data) > HEAD_LIMIT:
            raise WebError("too-long", f"its headers do not end within {HEAD_LIMIT // 1024} KiB.")
        if len(stream.data) >= 5 and not stream.data.startswith(b"HTTP/"):
            raise _not_http(bytes(stream.data), quiet=quiet)
        if not stream.more():
            raise _not_http(bytes(stream.data), quiet=quiet)


def _not_http(data: bytes, *, quiet: bool) -> WebError:
    """`quiet`: credentials were sent, and what came back may hold them, even in part."""
    if not data:
        return WebError("status", "it closed the connection without an answer.")
    what = "." if quiet else f": {clean(data[:60].decode('utf-8', 'replace'), 60)}"
    return WebError("status", f"what it answers is not HTTP{what}")


def _answer(head: bytes, body: bytes, missing: str, question: Question) -> Answer:
    status = re.match(_STATUS, head)
    if status is None:
        raise _not_http(head, quiet=question.credentials is not None)
    code = int(status[1])
    if 300 <= code < 400:
        raise WebError("redirect", f"it answers {code} and sends elsewhere; redirects are not followed.")
    kind = re.search(_CONTENT_TYPE, head)
    return Answer(code, kind[1].decode().lower() if kind else "", body, missing, question.credentials)


# ------------------------------------------------------------------------------------------------------- the body


def _read_body(stream: _Stream, head: bytes, limit: int) -> tuple[bytes, str]:
    """(body, why it is not all of it). An endless one is cut at `limit` bytes, a dripping one runs out of time."""
    if re.match(rb"HTTP/1\.[01] (?:204|3\d\d)", head):
        return b"", ""
    if re.search(_CHUNKED, head):
        return _read_chunks(stream, limit)
    length = re.search(_LENGTH, head)
    if length is None:
        more = stream.fill(limit + 1)
        return stream.take(limit), "too-long" if more else ""
    size = int(length[1])
    whole = stream.fill(min(size, limit))
    return stream.take(min(size, limit)), "broken" if not whole else "too-long" if size > limit else ""


def _read_chunks(stream: _Stream, limit: int) -> tuple[bytes, str]:
    """Without what follows the last chunk: a server that keeps the connection sends no end of it."""
    body = bytearray()
    while (size := _chunk_size(stream)) is not None:
        if size == 0:
            return bytes(body), ""
        wanted = min(size, limit - len(body))
        whole = stream.fill(wanted)
        body += stream.take(wanted)
        if wanted < size:
            return bytes(body), "too-long"
        if not whole or stream.line().strip():
            break
    return bytes(body), "broken"


def _chunk_size(stream: _Stream) -> int | None:
    found = re.fullmatch(_CHUNK_SIZE, stream.line())
    return int(found[1], 16) if found else None


# ------------------------------------------------------------------------------------------------ who listens there


def _check_owner(address: _Address, port: int, owner_pids: Set[int]) -> None:
    """Raises WebError if somebody else's socket listens there. Where that cannot be seen, nothing is said."""
    listening = _listeners(address, port)
    if not listening or not any(_is_in_our_network(pid) for pid in owner_pids):
        return  # closed, or restarted, since the look at the processes; or behind a container's forwarded port
    if any(_holds(pid, listening) is not False for pid in owner_pids):
        return
    stranger = next((pid for pid in _all_pids() if _holds(pid, listening)), None)
    if stranger is None:
        raise WebError("wrong-owner", f"port {port} belongs to a process that is not the bot's.")
    if owner_pids.isdisjoint(ancestors(stranger)):
        text = f"port {port} belongs to pid {stranger} ({_name(stranger)}), which is not the bot."
        raise WebError("wrong-owner", text, certain=True, pid=stranger)


def _is_in_our_network(pid: int) -> bool:
    """Whether a living process could listen here itself. A container's ports are held by its engine's forwarder."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    except FileNotFoundError:
        return False
    except OSError:
        return os.path.exists(f"/proc/{pid}")


def _listeners(address: _Address, port: int) -> set[str]:
    """`socket:[inode]` of what listens on this very address, else on all addresses."""
    exact: set[str] = set()
    every: set[str] = set()
    for local, inode in _listening(port):
        local = getattr(local, "ipv4_mapped", None) or local
        if local == address:
            exact.add(f"socket:[{inode}]")
        elif local.is_unspecified and (local.version == 6 or local.version == address.version):
            every.add(f"socket:[{inode}]")
    return exact or every


def _listening(port: int) -> Iterator[tuple[_Address, str]]:
    """(address, inode) of every TCP socket that listens on `port`."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                where, _, number = fields[1].partition(":")
                if fields[3] == "0A" and int(number, 16) == port:
                    yield _kernel_address(where), fields[9]


def _kernel_address(text: str) -> _Address:
    """As /proc/net prints it: words of 32 bits in the machine's own byte order."""
    raw = bytes.fromhex(text)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return ipaddress.ip_address(raw)


def _holds(pid: int, links: Set[str]) -> bool | None:
    """Whether the process has one of these sockets open; None if that may not be seen."""
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return any(_link(entry.path) in links for entry in entries)
    except FileNotFoundError:
        return False
    except OSError:
        return None


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _all_pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def ancestors(pid: int) -> Iterator[int]:
    """The process, its parent, and so on: a worker forked a moment ago is the bot's too."""
    while pid > 1:
        yield pid
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            pid = int(stat[stat.rindex(b")") + 2 :].split()[1])
        except (OSError, ValueError, IndexError):
            return


def _name(pid: int) -> str:
    try:
        return clean(Path(f"/proc/{pid}/comm").read_bytes().decode("utf-8", "replace").strip(), 20)
    except OSError:
        return "gone"
