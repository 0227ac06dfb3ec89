"""One question to a program of this machine: run once, bounded in time and output, and gone with all its children.

It runs in a session of its own, with nothing to read and the few variables that every program needs. What it starts
and leaves behind is ended too: by its process group, and by a mark in the environment, which a child that made itself
a session of its own carries still.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from botkeep.runtimes.find import QUESTION as MARK
from botkeep.runtimes.process import PASSED_ENVIRONMENT

LIMIT = 256 * 1024
"""Bytes of what it writes, to output and errors together."""
KEPT_OF_ERRORS = 4096

WRAPPERS_NEED = ("XDG_RUNTIME_DIR", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG")
"""A command may lead into a container."""
_GONE_SECONDS = 2.0
_PIECE = 64 * 1024


@dataclass(frozen=True)
class Ran:
    """What a program answered, or why it did not."""

    rule: str
    """ok: it ended by itself; refused: it could not be executed; timeout; too-long."""
    text: str = ""
    """Why it is not ok: a clause with the program as its subject."""
    code: int = 0
    """Its exit code, or minus the number of the signal that ended it. Only if ok."""
    output: bytes = b""
    errors: bytes = b""


def run(command: Sequence[str], cwd: Path | None, seconds: float) -> Ran:
    """Run `command` in the folder `cwd` for at most `seconds`. Never raises for what the program does."""
    until = time.monotonic() + seconds
    mark = f"{MARK}={os.urandom(16).hex()}"
    try:
        program = _start(command, cwd, mark)
    except (OSError, ValueError) as error:  # a word with a NUL is a ValueError
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Ran("refused", f"cannot be executed: {why}")
    try:
        return _listen(program, until, seconds)
    finally:
        _end(program, mark.encode())


def _start(command: Sequence[str], cwd: Path | None, mark: str) -> subprocess.Popen[bytes]:
    name, _, value = mark.partition("=")
    passed = {key: os.environ[key] for key in (*PASSED_ENVIRONMENT, *WRAPPERS_NEED) if key in os.environ}
    return subprocess.Popen(
        list(command), cwd=cwd or "/", env={**passed, name: value}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- what it answers


def _listen(program: subprocess.Popen[bytes], until: float, seconds: float) -> Ran:
    """Until it has ended. Its exit is what counts, not the end of its pipes: a child may hold them for ever."""
    with _Said(program) as said:
        while not said.ended and said.size <= LIMIT:
            if not said.more(until - time.monotonic()):
                return Ran("timeout", f"did not answer within {round(seconds, 1):g} s")
        said.rest()
        if said.size > LIMIT:
            return Ran("too-long", f"writes more than {LIMIT // 1024} KiB")
        return Ran("ok", code=_exit_code(program.pid), output=bytes(said.output), errors=bytes(said.errors))


class _Said:
    """What has come through the pipes of a program so far."""

    def __init__(self, program: subprocess.Popen[bytes]) -> None:
        self.output, self.errors = bytearray(), bytearray()
        self.size = 0
        self.ended = False
        self._fds = [stream.fileno() for stream in (program.stdout, program.stderr) if stream is not None]
        self._pidfd = os.pidfd_open(program.pid)
        self._ready = selectors.DefaultSelector()
        for fd in self._fds:
            os.set_blocking(fd, False)
            self._ready.register(fd, selectors.EVENT_READ)
        self._ready.register(self._pidfd, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ready.close()
        os.close(self._pidfd)

    def more(self, seconds: float) -> bool:
        """Wait for something; False if nothing came in time."""
        events = self._ready.select(max(seconds, 0))
        for key, _ in events:
            if key.fd == self._pidfd:
                self.ended = True
            elif not self._take(key.fd):
                self._ready.unregister(key.fd)
        return bool(events)

    def rest(self) -> None:
        """What lies in the pipes of a program that has ended. A child that lives may go on writing: not for long."""
        for fd in self._fds:
            with suppress(BlockingIOError):
                while self.size <= LIMIT and self._take(fd):
                    pass

    def _take(self, fd: int) -> bool:
        """One piece. False at the end."""
        data = os.read(fd, _PIECE)
        self.size += len(data)
        if fd == self._fds[0]:
            self.output += data
        else:
            self.errors += data[: KEPT_OF_ERRORS - len(self.errors)]
        return bool(data)


def _exit_code(pid: int) -> int:
    """Of a process that has ended and stays a zombie: its process group is not another's until it is reaped.

    0 where whoever started us has the kernel reap our children: then nobody can know.
    """
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return 0
    if ended is None:
        return 0
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


# ----------------------------------------------------------------------------------------------------- its end


def _end(program: subprocess.Popen[bytes], mark: bytes) -> None:
    """End the program and all that carries its mark, then let the kernel forget it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # on a disk that hangs nothing can be killed
        program.wait(_GONE_SECONDS)
    for stream in (program.stdout, program.stderr):
        if stream is not None:
            stream.close()
    until = time.monotonic() + _GONE_SECONDS
    while _kill_marked(mark) and time.monotonic() < until:
        time.sleep(0.01)


def _kill_marked(mark: bytes) -> bool:
    """Whether any was left to be killed."""
    found = False
    for pid in _marked(mark):
        with suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                if pid in _marked(mark, (pid,)):  # still the same one: a pid is reused at once
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    found = True
            finally:
                os.close(pidfd)
    return found


def _marked(mark: bytes, pids: Sequence[int] | None = None) -> Iterator[int]:
    """Processes with this variable, as far as we may see their environment. A zombie has none."""
    for pid in [int(name) for name in os.listdir("/proc") if name.isdecimal()] if pids is None else pids:
        with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:
            if mark in environment.read().split(b"\0"):
                yield pid
