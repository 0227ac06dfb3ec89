"""Whether this machine finds the hosts that a bot needs, by names from botkeep's table or the configuration only."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from .exchanges import HOSTS, exchange_id

DEADLINE = 3.0
"""Seconds for all names together: the resolver of the C library takes ten for one server that is mute."""
MOST = 4
_WHY = {
    socket.EAI_AGAIN: "the name servers do not answer",
    socket.EAI_NONAME: "there is no such name",
    socket.EAI_NODATA: "the name has no address",
    socket.EAI_FAIL: "the name servers refuse",
}


@dataclass(frozen=True)
class Resolved:
    """What came of one name."""

    host: str
    ok: bool
    seconds: float
    why: str = ""
    """Why not, a clause."""


def hosts_of(exchange: str, *urls: str | None) -> tuple[str, ...]:
    """The names that a bot needs: its exchange's, from the table, and those of configured URLs. Addresses need none."""
    known = HOSTS.get(exchange_id(exchange), "")
    named = [urlsplit(url).hostname or "" for url in urls if url]
    return tuple(dict.fromkeys(host for host in (known, *named) if _needs_dns(host)))[:MOST]


def _needs_dns(host: str) -> bool:
    if not host or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def resolve(hosts: Iterable[str], deadline: float = DEADLINE) -> tuple[Resolved, ...]:
    """Ask for each name, side by side; whatever has no answer after `deadline` seconds in all has none. Never raises.

    The threads that wait for a mute server end with the process or with the server's time-out: nobody can end them.
    """
    names = tuple(dict.fromkeys(hosts))[:MOST]
    answers: queue.SimpleQueue[Resolved] = queue.SimpleQueue()
    for host in names:
        threading.Thread(target=_ask, args=(host, answers), name="botkeep-resolve", daemon=True).start()
    found: dict[str, Resolved] = {}
    until = time.monotonic() + deadline
    while len(found) < len(names):
        try:
            answer = answers.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        found[answer.host] = answer
    mute = f"no answer within {deadline:g} s"
    return tuple(found.get(host, Resolved(host, ok=False, seconds=deadline, why=mute)) for host in names)


def _ask(host: str, answers: queue.SimpleQueue[Resolved]) -> None:
    began = time.monotonic()
    try:
        socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
        why = ""
    except OSError as error:
        why = _WHY.get(error.errno or 0, f"the resolver failed (error {error.errno})")
    except UnicodeError:
        why = "it is no name that can be asked for"
    answers.put(Resolved(host, ok=not why, seconds=time.monotonic() - began, why=why))
