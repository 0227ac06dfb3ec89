"""One question to a bot's health endpoint, which may be hostile, hung, or somebody else's by now.

The address is resolved once, checked, and that very address is connected to. One deadline holds for everything:
a timeout for each read was stretched from 1 s to 6 s by a server that sent a byte at a time.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from .model import BotkeepError, HealthLook
from .untrusted import clean

DEADLINE = 3.0
HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 64 * 1024
_PORTS = {"http": 80, "https": 443}
_IN_URL = "/%?:@!$&'()*+,;=~-._"
_STATUS = rb"\AHTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]{0,200})?\r?\n"
_LENGTH = rb"(?i)\r?\ncontent-length:[ \t]{0,8}(\d{1,15})[ \t]{0,8}\r?\n"
_CHUNKED = rb"(?i)\r?\ntransfer-encoding:[^\r\n]{0,100}chunked"
_NUMERIC_HOST = r"(?i)[0-9.]+|0x[0-9a-f.x]*"
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _RuleError(BotkeepError):
    """The endpoint broke a rule of HealthLook."""

    def __init__(self, rule: str, text: str, *, certain: bool = False) -> None:
        super().__init__(text)
        self.rule = rule
        self.certain = certain


class _Target(NamedTuple):
    """A URL, taken apart."""

    scheme: str
    host: str
    port: int
    path: str
    authority: str


class _Deadline:
    """Seconds that are left for everything together."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = time.monotonic()

    @property
    def spent(self) -> float:
        return time.monotonic() - self._start

    def left(self) -> float:
        """Raises _RuleError when there are none."""
        left = self.seconds - self.spent
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> _RuleError:
        return _RuleError("timeout", f"no complete answer within {self.seconds:g} s.")


def look(
    url: str,
    *,
    deadline: float = DEADLINE,
    owner_pids: Set[int] | None = None,
    allowed_hosts: Set[str] = frozenset(),
) -> HealthLook:
    """Ask once, `GET url`, and say whether a 2xx came back within `deadline` seconds. Never raises.

    Only loopback addresses are asked, unless the host is one of `allowed_hosts`. With `owner_pids`, the processes of
    the bot, an answer counts only if one of them listens on that port: after a start that found its port taken, the
    old copy would answer for the new one. No redirects, no proxies, at most 64 KiB of body.
    """
    clock = _Deadline(deadline)
    try:
        text = _ask(_parse(url), clock, owner_pids, frozenset(host.lower() for host in allowed_hosts))
    except _RuleError as failure:
        return HealthLook(False, str(failure), failure.rule, failure.certain, clock.spent)
    return HealthLook(True, text, "ok", False, clock.spent)


def _ask(target: _Target, clock: _Deadline, owner_pids: Set[int] | None, allowed: Set[str]) -> str:
    addresses = _checked(target, _resolve(target, clock), allowed)
    connection, address = _connect(target, addresses, clock)
    with connection:
        if owner_pids is not None and address.is_loopback:
            _check_owner(address, target.port, owner_pids)
        return _exchange(_secured(connection, target, clock), target, clock)


# ---------------------------------------------------------------------------------------------- where it leads


def _parse(url: str) -> _Target:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _RuleError("not-allowed", f"{clean(url, 100)} is not a URL: {error}.") from error
    if parts.scheme not in _PORTS or not host:
        raise _RuleError("not-allowed", f"{clean(url, 100)} is not asked: only http and https URLs with a host are.")
    if "@" in parts.netloc or "%" in host:
        raise _RuleError(
            "not-allowed", f"the URL's host {clean(host, 100)} is not asked: write it plainly, without user or zone."
        )
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port in (None, _PORTS[parts.scheme]) else f"{shown}:{port}"
    path = quote(parts.path or "/", safe=_IN_URL) + (f"?{quote(parts.query, safe=_IN_URL)}" if parts.query else "")
    return _Target(parts.scheme, host, port or _PORTS[parts.scheme], path, authority)


def _resolve(target: _Target, clock: _Deadline) -> list[_Address]:
    """The addresses of the host. A name is looked up in a thread of its own, since resolvers keep no deadline."""
    with suppress(ValueError):
        return [ipaddress.ip_address(target.host)]
    if re.fullmatch(_NUMERIC_HOST, target.host):
        # 0x7f.1 and 127.1 are addresses to the C library only; what they hide is not worth guessing.
        raise _RuleError(
            "not-allowed", f"the host {clean(target.host, 60)} is not asked: write the address as 127.0.0.1."
        )
    found: list[_Address] = []
    thread = threading.Thread(target=_look_up, args=(target, found), daemon=True)
    thread.start()
    thread.join(clock.left())
    if thread.is_alive():
        raise clock.over()
    if not found:
        raise _RuleError("refused", f"the name {clean(target.host, 100)} cannot be resolved.")
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
        raise _RuleError(
            "not-allowed",
            f"the host {clean(target.host, 100)} is at {plain[0]}; only loopback addresses are asked. "
            "List the host in allowed_hosts of config/bots.json if it is meant.",
        )
    return good


def _is_ordinary(address: _Address) -> bool:
    return not (address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved)


# --------------------------------------------------------------------------------------------------- the question


def _connect(target: _Target, addresses: list[_Address], clock: _Deadline) -> tuple[socket.socket, _Address]:
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
        except _RuleError:
            connection.close()
            raise
        else:
            return connection, address
    if isinstance(problem, TimeoutError):
        raise clock.over() from problem
    why = problem.strerror if problem else "no address"
    raise _RuleError("refused", f"nothing answers at {target.authority}: {why}.") from problem


def _secured(connection: socket.socket, target: _Target, clock: _Deadline) -> socket.socket:
    if target.scheme == "http":
        return connection
    import ssl  # few endpoints of bots speak TLS

    connection.settimeout(clock.left())
    try:
        return ssl.create_default_context().wrap_socket(connection, server_hostname=target.host)
    except TimeoutError as error:
        raise clock.over() from error
    except OSError as error:
        raise _RuleError("refused", f"{target.authority} does not complete TLS: {clean(str(error), 150)}.") from error


def _exchange(connection: socket.socket, target: _Target, clock: _Deadline) -> str:
    request = (
        f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: botkeep\r\nAccept: */*\r\n"
        "Accept-Encoding: identity\r\nConnection: close\r\n\r\n"
    )
    with connection:
        try:
            connection.settimeout(clock.left())
            connection.sendall(request.encode("ascii"))
            head, body = _read_head(connection, clock)
            body = _read_body(connection, clock, head, body)
        except TimeoutError as error:
            raise clock.over() from error
        except OSError as error:
            raise _RuleError(
                "status", f"the connection broke before an answer was complete: {error.strerror}."
            ) from error
    return _judge(head, body)


def _receive(connection: socket.socket, clock: _Deadline) -> bytes:
    """Some bytes; none at the end. The deadline is set anew before each read, or a drip would extend it."""
    connection.settimeout(clock.left())
    return connection.recv(16384)


def _read_head(connection: socket.socket, clock: _Deadline) -> tuple[bytes, bytes]:
    """Status line and headers, and what has come of the body. Interim answers (1xx) are passed over."""
    data = b""
    while True:
        head, end, body = _split_head(data)
        if end and not re.match(rb"HTTP/1\.[01] 1\d\d", head):
            return head, body
        if end:
            data = body
            continue
        if len(data) > HEAD_LIMIT:
            raise _RuleError("too-long", f"its headers do not end within {HEAD_LIMIT // 1024} KiB.")
        if len(data) >= 5 and not data.startswith(b"HTTP/"):
            raise _not_http(data)
        more = _receive(connection, clock)
        if not more:
            raise _not_http(data)
        data += more


def _split_head(data: bytes) -> tuple[bytes, bool, bytes]:
    found = re.search(rb"\r?\n\r?\n", data)
    if not found:
        return data, False, b""
    return data[: found.start()] + b"\r\n", True, data[found.end() :]


def _not_http(data: bytes) -> _RuleError:
    if not data:
        return _RuleError("status", "it closed the connection without an answer.")
    return _RuleError("status", f"what it answers is not HTTP: {clean(data[:60].decode('utf-8', 'replace'), 60)}")


def _read_body(connection: socket.socket, clock: _Deadline, head: bytes, body: bytes) -> bytes:
    """Up to its end or 64 KiB: an endless body is judged by its status, a dripping one runs out of time."""
    length = re.search(_LENGTH, head)
    most = min(int(length[1]), BODY_LIMIT) if length else BODY_LIMIT
    if re.match(rb"HTTP/1\.[01] (?:204|304)", head):
        most = 0
    chunked = re.search(_CHUNKED, head) is not None
    while len(body) < most and not (chunked and body.endswith(b"0\r\n\r\n")):
        more = _receive(connection, clock)
        if not more:
            break
        body += more
    return body[:most]


def _judge(head: bytes, body: bytes) -> str:
    status = re.match(_STATUS, head)
    if status is None:
        raise _not_http(head)
    code = int(status[1])
    if 200 <= code < 300:
        return f"answered {code}"
    if 300 <= code < 400:
        raise _RuleError("redirect", f"it answers {code} and sends elsewhere; redirects are not followed.")
    said = clean(body[:400].decode("utf-8", "replace"), 100)
    raise _RuleError("status", f"it answers {code}{': ' + said if said else '.'}")


# ------------------------------------------------------------------------------------------------ who listens there


def _check_owner(address: _Address, port: int, owner_pids: Set[int]) -> None:
    """Raises _RuleError if somebody else's socket listens there. Where that cannot be seen, nothing is said."""
    listening = _listeners(address, port)
    if not listening or not any(os.path.exists(f"/proc/{pid}") for pid in owner_pids):
        return  # closed, or restarted, since the look at the processes
    if any(_holds(pid, listening) is not False for pid in owner_pids):
        return
    stranger = next((pid for pid in _all_pids() if _holds(pid, listening)), None)
    if stranger is None:
        raise _RuleError("wrong-owner", f"port {port} belongs to a process that is not the bot's.")
    if owner_pids.isdisjoint(_ancestors(stranger)):
        text = f"port {port} belongs to pid {stranger} ({_name(stranger)}), which is not the bot."
        raise _RuleError("wrong-owner", text, certain=True)


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


def _ancestors(pid: int) -> Iterator[int]:
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
        return clean(Path(f"/proc/{pid}/comm").read_text().strip(), 20)
    except OSError:
        return "gone"
