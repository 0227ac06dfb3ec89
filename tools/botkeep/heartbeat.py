"""That `botkeep watch` lives: in the ledger for the next look, and at a URL for a dead-man's switch outside.

The kernel's lock says at once that a watcher is dead; the ledger says that one lives and hangs, and which one it was.
"""

from __future__ import annotations

import os
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from .durable import Lock
from .ledger import Ledger
from .model import BotkeepError, EngineError, LedgerError, iso, parse_iso
from .workspace import Workspace

CURSOR = "watch"
EVERY = timedelta(seconds=60)
"""How often a watcher writes that it lives."""
LATE = 3
"""So many of them missing, and it hangs."""
ASK_SECONDS = 10.0
WAITING = 8
"""Words to the outside that may wait; of more, the oldest are dropped: the newest says how it is."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]{0,126})\}")


@dataclass(frozen=True)
class Beat:
    """The newest sign of life."""

    pid: int
    began: datetime
    at: datetime
    ended: bool = False
    """It was told to end."""
    ticks: float | None = None
    """The same moment by a clock that nobody sets and that stands still while the machine sleeps."""

    def age(self, now: datetime, ticks: float) -> timedelta:
        """How long ago that was, for a machine that was awake."""
        if self.ticks is None or self.ticks > ticks:  # written by an older botkeep, or before the machine was booted
            return now - self.at
        return timedelta(seconds=ticks - self.ticks)


def lock_of(workspace: Workspace) -> Lock:
    """Held by the one watcher of a workspace, and by the kernel for nobody else."""
    return Lock(workspace.state_dir / "watch.lock")


def beat(ledger: Ledger, began: datetime, now: datetime, *, ended: bool = False) -> None:
    """Write down that this process watches. Raises LedgerError."""
    value = {"pid": os.getpid(), "began": iso(began), "at": iso(now), "ended": ended, "ticks": time.monotonic()}
    ledger.set_cursor("", CURSOR, value)


def mark(workspace: Workspace) -> None:
    """Date the lock's file: a health check that is a line of shell sees by it that the watcher lives."""
    with suppress(OSError):
        os.utime(lock_of(workspace).path)


def newest(ledger: Ledger) -> Beat | None:
    """What was written last; None: nobody ever watched, or that was forgotten. Raises LedgerError."""
    kept = ledger.cursor("", CURSOR)
    if not kept:
        return None
    began, at = parse_iso(kept["began"]), parse_iso(kept["at"])
    return Beat(int(kept["pid"]), began, at, bool(kept.get("ended")), kept.get("ticks"))


def forget(ledger: Ledger) -> None:
    """A person does without a watcher from now on. Raises LedgerError."""
    ledger.set_cursor("", CURSOR, {})


def is_free(workspace: Workspace) -> bool:
    """Whether nobody watches: the kernel would give us the lock."""
    lock = lock_of(workspace)
    try:
        return lock.acquire()
    except EngineError:
        return False
    finally:
        lock.release()


def problem(workspace: Workspace, ledger: Ledger, now: datetime, ticks: float | None = None) -> str:
    """One sentence about a watcher that died or hangs; empty: it lives, was told to end, or there never was one.

    `ticks`: of time.monotonic(), which is asked if they are not given. The wall clock alone would call every watcher
    hung when a clock was set forward, or a laptop was opened.
    """
    try:
        last = newest(ledger)
    except LedgerError:
        return ""  # whoever looks says so already
    if last is None or last.ended:
        return ""
    seen = f"it was last heard of at {last.at:%Y-%m-%d %H:%M:%SZ}"
    if is_free(workspace):
        return (
            f"botkeep watch (pid {last.pid}) is dead: {seen}. Start it again: `botkeep watch`; to do without it: "
            f"`botkeep watch --forget`."
        )
    if last.age(now, time.monotonic() if ticks is None else ticks) > EVERY * LATE:
        return (
            f"botkeep watch (pid {last.pid}) hangs: {seen}. End it (`kill -9 {last.pid}`) and start it again: "
            f"`botkeep watch`."
        )
    return ""


# ---------------------------------------------------------------------------------------------------- a service


class Service:
    """The systemd that started this process as a service (sd_notify): it is told that we watch, and that we live.

    Its variables are taken out of the environment: what we start is no such service.
    """

    def __init__(self) -> None:
        place = os.environ.pop("NOTIFY_SOCKET", "")
        self._place = f"\0{place[1:]}" if place.startswith("@") else place
        for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
            os.environ.pop(name, None)

    def tell(self, *words: str) -> None:
        """One datagram; nothing where no systemd waits for it. Never waits: what it misses, the next beat says."""
        if not self._place:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.setblocking(False)
            line.sendto("\n".join(words).encode(), self._place)


class Heart:
    """Writes that this process watches, in a thread of its own: a ledger that somebody holds keeps no watcher from
    ending when it is told to. `told` hears how each beat went: (what hindered it or nothing, what was asked for)."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime], told: Callable[[str, str | None], None]) -> None:
        self._ledger, self._clock, self._told = ledger, clock, told
        self._began = clock()
        self._asked: queue.SimpleQueue[tuple[str | None, bool]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)
        self._thread.start()

    def beat(self, word: str | None = None) -> None:
        """Ask for a beat; `word`: what those outside are told of it, if it could be written. Never waits."""
        self._asked.put((word, False))

    def stop(self, seconds: float) -> None:
        """The last one: it was told to end. Waits for so long at most."""
        self._asked.put((None, True))
        self._thread.join(seconds)

    def _beat(self) -> None:
        ended = False
        while not ended:
            word, ended = self._asked.get()
            trouble = ""
            try:
                beat(self._ledger, self._began, self._clock(), ended=ended)
            except LedgerError as error:
                trouble = str(error)
            if not ended:
                self._told(trouble, word)


# ---------------------------------------------------------------------------------------------------- outside


class Outside:
    """Tells a URL how the watcher is, in a thread of its own: a server that is away delays nobody.

    As Healthchecks.io takes it: URL/start when it begins, URL when all is looked at, URL/fail when that failed.
    """

    def __init__(self) -> None:
        self._words: queue.Queue[str] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why the newest word did not arrive, a sentence; empty: it did, or none was said."""
        return self._problem

    def say(self, url: str, word: str, environment: Mapping[str, str]) -> None:
        """Queue GET `url`/`word`; word empty: the URL itself. Never waits."""
        try:
            address = expanded(url, environment)
        except BotkeepError as error:
            self._problem = str(error)
            return
        with self._lock:
            if self._words.full():
                with suppress(queue.Empty):
                    self._words.get_nowait()
            self._words.put_nowait(f"{address.rstrip('/')}/{word}" if word else address)
            if self._thread is None:
                self._thread = threading.Thread(target=self._talk, name="heartbeat", daemon=True)
                self._thread.start()

    def flush(self, seconds: float) -> None:
        """Wait until all was said, for so long at most."""
        until = time.monotonic() + seconds
        while self._words.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)

    def _talk(self) -> None:
        while True:
            self._problem = _ask(self._words.get())
            self._words.task_done()


def _ask(address: str) -> str:
    """GET it; why that failed, without the address, which may hold a secret."""
    from urllib.error import HTTPError, URLError
    from urllib.parse import urlsplit
    from urllib.request import Request, urlopen

    request = Request(address, headers={"User-Agent": "botkeep"})  # noqa: S310 - the configuration takes http(s) only
    try:
        with urlopen(request, timeout=ASK_SECONDS) as answer:  # noqa: S310 - and its body, which may never end, is left
            if urlsplit(answer.url).hostname != urlsplit(address).hostname:  # a login page says 200 to everything
                return "heartbeat_url leads to another server, which hears nothing of it; write the address it has now."
    except HTTPError as error:
        return f"heartbeat_url answered {error.code}; look whether it is right."
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return f"heartbeat_url could not be asked: {type(reason).__name__}."
    return ""


def expanded(url: str, environment: Mapping[str, str]) -> str:
    """`url` with the values of its variables. Raises BotkeepError for one that is not set."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise BotkeepError(
                f"heartbeat_url names ${{{match[1]}}}, which is set neither in the environment nor in the file of "
                f"notify_env."
            )
        return environment[match[1]]

    return _VARIABLE.sub(value, url)


def environment_for(notify_env: Path | None) -> dict[str, str]:
    """Variables: the environment's, and those of the fleet's file. Raises BotkeepError as `load_env_file`."""
    from .envfile import load_env_file

    return {**os.environ, **(load_env_file(notify_env) if notify_env else {})}
