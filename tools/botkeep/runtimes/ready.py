"""A launcher that has started already and waits for its order, for whoever starts bots all day long.

An interpreter takes longer to start than everything else that a restart does. `keep` has one wait; each start takes it
and has another one wait afterwards. It ends when this program does: its end of the socket is closed then.
"""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SHIM = Path(__file__).with_name("shim.py")
ORDER_BYTES = 60_000
"""What one message holds; a larger environment takes a launcher of its own."""


@dataclass(frozen=True)
class _Waiting:
    process: subprocess.Popen[bytes]
    line: socket.socket

    def order(self, words: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]) -> bool:
        """Send it off. False: it is dead, or the order is too large."""
        pairs = [f"{name}={value}" for name, value in environment.items()]
        data = b"\0".join(os.fsencode(one) for one in (*words, *pairs))
        if len(data) > ORDER_BYTES:
            return False
        try:
            self.line.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        except OSError:
            return False
        return self.process.poll() is None

    def end(self) -> None:
        """Killed, since one that somebody froze would not see that the line is closed."""
        self.line.close()
        self.process.kill()
        self.process.wait()


_lock = threading.Lock()
_kept: list[_Waiting] = []
_wanted = False


def keep() -> None:
    """Have one wait from now on. Raises OSError if none can be started."""
    global _wanted
    with _lock:
        _wanted = True
    refill()


def give_up() -> None:
    """Have none wait any more."""
    global _wanted
    with _lock:
        _wanted = False
        waiting, _kept[:] = list(_kept), []
    for one in waiting:
        one.end()


def launch(words: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]) -> subprocess.Popen[bytes] | None:
    """The launcher that waited, now at work; None: none waits, start one. `fds` are the last words, in their order."""
    with _lock:
        taken = _kept.pop() if _kept else None
    if taken is None:
        return None
    if taken.order(words, environment, fds):
        taken.line.close()
        return taken.process
    taken.end()
    return None


def refill() -> None:
    """Have one wait again, if somebody wants that. Raises OSError."""
    with _lock:
        if _wanted and not _kept:
            _kept.append(_start())


def _start() -> _Waiting:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SHIM), "ready", str(theirs.fileno())],
            env={},
            cwd="/",
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return _Waiting(process, ours)
