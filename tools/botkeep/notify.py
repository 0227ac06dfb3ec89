"""Sending: which channels an alert goes to, and one message handed to one of them, through a courier process.

Text arrives literally: no service is told that it holds markup, and those that always read some get it escaped. It is
split where the service has to, never inside what people see as one character.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from . import untrusted
from .channels import Channel, channels_of, names_in
from .config import Fleet
from .envfile import load_env_file
from .model import BotkeepError

Rule = Literal["sent", "limited", "refused", "redirect", "away"]
SECONDS = 15.0
"""What one message may take."""
MARGIN = 0.5
"""Seconds by which the process gives up on a silent service before it is given up itself."""
STARTING = 10.0
"""What Apprise may take to be loaded, on a small machine."""
REPEATED = "(repeated: it is not known whether this arrived) "
ROOM = len(REPEATED) + 16
"""Kept free in each part: for that, and for `(12/34) `."""
ENTRY = "\ue000"
"""In a text that is queued: stands for the id of its entry, which is known then. Cleaned text never holds it."""
SHORTEST = 40
"""Of a service that takes less in one message nothing readable could come."""


# --- which channels ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Directory:
    """The channels of a fleet, with their secrets, as they are now."""

    fleet: tuple[Channel, ...] = ()
    own: dict[str, tuple[Channel, ...]] = field(default_factory=dict)
    """Bot -> the channels that it has instead of the fleet's."""
    problem: str = ""
    """Why the file with the values cannot be read."""

    @property
    def all(self) -> dict[str, Channel]:
        """Every channel once, by its key."""
        return {one.key: one for group in (self.fleet, *self.own.values()) for one in group}

    def of(self, bots: Sequence[str]) -> tuple[Channel, ...]:
        """Who is told of something about these bots: of one bot its own people; of several the fleet's, or all."""
        if len(bots) == 1:
            return self.own.get(bots[0]) or self.fleet
        if self.fleet:
            return self.fleet
        members = [one for bot in bots or self.own for one in self.own.get(bot, ())]
        return tuple({one.key: one for one in members}.values())


def directory(fleet: Fleet) -> Directory:
    """The channels as bots.json, its file of values and the environment have them. Their values are never shown."""
    entries = {bot.name: tuple(bot.notify) for bot in fleet.bots if bot.notify}
    names = names_in([*fleet.notify, *(entry for own in entries.values() for entry in own)])
    values = {name: os.environ[name] for name in names if os.environ.get(name)}
    untrusted.register_secrets(values.values())
    problem = ""
    if fleet.notify_env is not None and names:
        try:
            values |= load_env_file(fleet.notify_env)
        except BotkeepError as error:
            problem = f"notify_env: {error}"
    own = {bot: tuple(channels_of(one, values)) for bot, one in entries.items()}
    return Directory(tuple(channels_of(fleet.notify, values)), own, problem)


# --- splitting ---------------------------------------------------------------------------------------------------


def units(text: str) -> int:
    """As Telegram counts: UTF-16 code units. No service counts more."""
    return len(text) + sum(sign > "\uffff" for sign in text)


def split(text: str, limit: int) -> list[str]:
    """`text` in parts of at most `limit` UTF-16 units each, numbered if there are several. Nothing is lost but blanks.

    Cut at the end of a line, else at a blank, else between two characters as people see them.
    """
    if units(text) <= limit - len(REPEATED):
        return [text]
    parts = list(_parts(text, limit - ROOM))
    return [f"({number}/{len(parts)}) {part}" for number, part in enumerate(parts, 1)]


def _parts(text: str, limit: int) -> Iterator[str]:
    while units(text) > limit:
        end = _fitting(text, limit)
        cut = next((at for sign in "\n " if (at := text.rfind(sign, end // 2, end + 1)) > 0), 0) or _between(text, end)
        yield text[:cut].rstrip()
        text = text[cut:].lstrip("\n ") if text[cut] in "\n " else text[cut:]
    yield text


def _fitting(text: str, limit: int) -> int:
    """How many characters from the start have at most `limit` units."""
    end = min(len(text), limit)
    while units(text[:end]) > limit:
        end -= max(1, (units(text[:end]) - limit) // 2)
    return end


def _between(text: str, end: int) -> int:
    """The last place up to `end` that is not inside of one visible character; `end` if it is absurdly long."""
    for at in range(end, max(1, end - 64), -1):
        if not _joined(text, at):
            return at
    return end


def _joined(text: str, at: int) -> bool:
    """Whether the characters before and after `at` are seen as one."""
    before, after = text[at - 1], text[at]
    if unicodedata.combining(after) or after in "\u200d\ufe0e\ufe0f\u20e3" or before == "\u200d":
        return True
    if unicodedata.category(after) in ("Mn", "Me", "Mc") or "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    flags = 0  # two letters are one flag: count how many stand before
    while flags < at and "\U0001f1e6" <= text[at - 1 - flags] <= "\U0001f1ff":
        flags += 1
    return flags % 2 == 1 and "\U0001f1e6" <= after <= "\U0001f1ff"


# --- the courier -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """What is told: plain text, its title for services that have one, and files."""

    text: str
    title: str = ""
    severity: str = "info"
    """info, warning, critical, or resolved."""
    attachments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measure:
    """What a service takes in one message."""

    limit: int
    attachments: bool
    service: str


@dataclass(frozen=True)
class Outcome:
    """What came of one message. `doubt`: it may have arrived although it was not acknowledged."""

    rule: Rule
    text: str = ""
    doubt: bool = False
    retry_after: float | None = None
    """Seconds that the service asks to wait."""
    status: int | None = None
    """Of HTTP."""

    @property
    def sent(self) -> bool:
        """The service took it."""
        return self.rule == "sent"


_TYPES = {"info": "info", "warning": "warning", "critical": "failure", "resolved": "success"}


class Courier:
    """A courier process, started at the first message and ended with the `with` block.

    `lock_fd`: the sender's lock, which the process holds as well: nobody else sends while it may still be sending.
    `slip`: the file in which it writes what became of a message that has a ticket, should the sender not live to hear.
    """

    def __init__(self, lock_fd: int | None = None, slip: Path | None = None) -> None:
        self._lock_fd = lock_fd
        self._slip = slip
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._measures: dict[str, Measure] = {}

    def __enter__(self) -> Courier:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.end()

    def measure(self, channel: Channel, seconds: float = SECONDS) -> Measure | Outcome:
        """What the channel takes in one message; an outcome, if Apprise cannot use it at all."""
        if known := self._measures.get(channel.url):
            return known
        answer = self._ask({"do": "measure", "url": channel.url, "seconds": seconds}, seconds + STARTING)
        if answer is None:
            return Outcome("away", "Apprise could not be asked: its process ended or hung")
        if not answer["ok"]:
            return Outcome("refused", _clean(f"Apprise cannot use this address. {answer['text']}"))
        found = Measure(max(SHORTEST + ROOM, answer["limit"]), answer["attachments"], answer["service"])
        self._measures[channel.url] = found
        return found

    def send(self, channel: Channel, message: Message, seconds: float = SECONDS, ticket: str = "") -> Outcome:
        """One message to one channel, once, in at most `seconds`."""
        asked = {
            "do": "send", "url": channel.url, "title": message.title, "body": message.text,
            "type": _TYPES[message.severity], "attach": [*message.attachments], "seconds": max(1.0, seconds - MARGIN),
        }  # fmt: skip
        if self._slip is not None and ticket:
            asked |= {"ticket": ticket, "slip": str(self._slip)}
        answer = self._ask(asked, seconds)
        if answer is None:
            return Outcome("away", f"it did not answer to the end within {seconds:.0f} s", doubt=True)
        retry, status = answer.get("retry_after"), answer.get("status")
        return Outcome(answer["rule"], _clean(str(answer["text"])), bool(answer["doubt"]), retry, status)

    def _ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """The answer; None if there is none in time, and then the process is ended: it may be writing one still."""
        until = time.monotonic() + seconds
        try:
            process = self._started()
            os.write(_fd(process.stdin), json.dumps(question).encode() + b"\n")
            line = self._line(_fd(process.stdout), until)
        except OSError:
            line = b""
        if not line:
            self.end()
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._buffer = b""
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "botkeep.courier"], cwd="/", stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
                pass_fds=() if self._lock_fd is None else (self._lock_fd,),
            )  # fmt: skip
        return self._process

    def _line(self, fd: int, until: float) -> bytes:
        """One line of the process's answers; empty if it ends first, or the time is over."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(fd, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not waiting.select(max(0.0, until - time.monotonic())):
                    return b""
                piece = os.read(fd, 65536)
                if not piece:
                    return b""
                self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def end(self) -> None:
        """End the process; one that is idle has nothing to lose, and one that hangs is what this is for."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _fd(pipe: IO[bytes] | None) -> int:
    if pipe is None:
        raise OSError("a courier has pipes")
    return pipe.fileno()


def _clean(text: str) -> str:
    return untrusted.clean(" ".join(text.split()), 200)
