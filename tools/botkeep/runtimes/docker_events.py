"""What happens to containers, as it happens: an engine's stream of events, read by a thread for each engine.

Nothing rests on it: an event only says which bot to look at now. While a stream is away, whoever listens looks at its
bots at their usual times, and at all of them once it is back.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol

from botkeep.model import BotkeepError, EngineError

from .docker_address import Address, EngineConfig, address_of
from .docker_control import transport

if TYPE_CHECKING:  # it loads the SDK
    from .docker_transport import Link

KINDS = ("docker", "compose", "swarm")
EVENTS = ("start", "die", "oom", "pause", "unpause", "health_status")
"""`start` too: a second container of a bot is found before it trades for long."""
BEGIN_SECONDS = 10.0
"""Until an engine has answered at all."""
SECONDS = 300.0
"""That one conversation lasts, so that a connection that is dead without anybody's word is noticed."""
LONGEST_PAUSE = 60.0
STEADY = 30.0
"""Seconds after which a stream that breaks off had been a good one."""
PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"
SWARM_SERVICE, SWARM_ID = "com.docker.swarm.service.name", "com.docker.swarm.service.id"


class Hears(Protocol):
    """Who is told, from the streams' threads: never waits."""

    def __call__(self, names: tuple[str, ...], about: str, trouble: str) -> None:
        """Look at these bots of the engine `about`; `trouble`: why its events are away, said once for each time that
        they are; empty: they are not, or that was said."""


class Streams:
    """One thread for each engine that runs bots of the fleet."""

    def __init__(self, tell: Hears) -> None:
        self._tell = tell
        self._streams: dict[Address, Stream] = {}

    def listen_for(self, configs: Mapping[str, Any]) -> None:
        """Listen to the engines of these bots, and to no others. `configs`: each bot's `runtime`, of any kind."""
        groups: dict[Address, dict[str, EngineConfig]] = {}
        for name, config in configs.items():
            if getattr(config, "kind", None) in KINDS:
                with suppress(EngineError):  # an environment that names none: looking at the bot says so
                    groups.setdefault(address_of(config), {})[name] = config
        for gone in self._streams.keys() - groups.keys():
            self._streams.pop(gone).end()
        for address, bots in groups.items():
            if address in self._streams:
                self._streams[address].bots = bots
            else:
                self._streams[address] = Stream(address, bots, self._tell)

    def end(self) -> None:
        """Listen to nobody any more; waits for nobody."""
        for one in self._streams.values():
            one.end()
        self._streams.clear()


class Stream:
    """One engine's, with a thread that ends with it or with the process."""

    def __init__(self, address: Address, bots: Mapping[str, EngineConfig], tell: Hears) -> None:
        self.address, self.bots, self._tell = address, bots, tell
        self._over = threading.Event()
        self._link: Link | None = None
        self._since = ""
        """The engine's time from which on nothing was heard yet, in seconds since 1970; empty: from now on."""
        self._away = True
        """Nobody knows what happened since the last look: before the first word, too."""
        self._said = False
        """Whoever listens knows that it is away."""
        threading.Thread(target=self._run, name=f"events {address}", daemon=True).start()

    def end(self) -> None:
        """Let the engine go."""
        self._over.set()
        if (link := self._link) is not None:
            link.cut()

    def _run(self) -> None:
        pause = 1.0
        while not self._over.is_set():
            began = time.monotonic()
            trouble = self._hear()
            if self._over.is_set():
                return
            if not trouble or time.monotonic() - began > STEADY:
                pause, self._said = 1.0, False
            if not trouble:
                continue
            self._away = True
            if not self._said:
                self._said = True
                self._tell((), str(self.address), trouble)
            self._over.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _hear(self) -> str:
        """One conversation. Why it broke off; empty: its time was over."""
        try:
            ways = transport()
        except EngineError as error:
            return str(error)
        self._link = link = ways.Link(self.address)
        begun = False
        try:
            with ways.listen(link, "/events", self._query(), BEGIN_SECONDS) as (date, lines):
                link.clock.begin(SECONDS)
                begun = True
                self._began(date)
                for line in lines:
                    self._heard(line)
        except ways.TooSlowError as error:
            return "" if begun else str(error)
        except BotkeepError as error:
            return str(error)
        return f"Docker at {self.address} told no more events."

    def _query(self) -> dict[str, str]:
        filters = json.dumps({"type": ["container"], "event": list(EVENTS)})
        return {"filters": filters, **({"since": self._since} if self._since else {})}

    def _began(self, date: str) -> None:
        """What came while nobody listened is told first; after trouble nobody knows how much that is."""
        if not self._since:
            with suppress(ValueError):
                self._since = f"{parsedate_to_datetime(date).timestamp():.0f}"
        if self._away:
            self._away = False
            self._tell(tuple(self.bots), str(self.address), "")

    def _heard(self, line: bytes) -> None:
        """One event. Raises ValueError, LookupError, TypeError or AttributeError for what is none."""
        if not line.strip():
            return
        self._since = ""  # what cannot be read is not asked for again
        event = json.loads(line)
        names = tuple(concerned(self.bots.items(), event["Actor"]["ID"], event["Actor"]["Attributes"]))
        self._since = _after(int(event["timeNano"]))
        if names:
            self._tell(names, str(self.address), "")


def _after(nanoseconds: int) -> str:
    """The next moment, as the engine takes times."""
    seconds, rest = divmod(nanoseconds + 1, 10**9)
    return f"{seconds}.{rest:09d}"


def concerned(bots: Iterable[tuple[str, Any]], container: str, said: Mapping[str, str]) -> Iterator[str]:
    """The bots that a container may be of: by its id, its name and its labels, which `said` holds."""
    name = said.get("name", "")
    for bot, config in bots:
        if config.kind == "compose":
            mine = (said.get(PROJECT), said.get(SERVICE)) == (config.project, config.service)
        elif config.kind == "swarm":
            mine = config.service in (said.get(SWARM_SERVICE), said.get(SWARM_ID))
        else:
            # Compose gives a container another name for the time of a change: twelve digits, then its own
            mine = name in (config.container, name[:13] + config.container) or container.startswith(config.container)
        if mine:
            yield bot
