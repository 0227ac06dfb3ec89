"""What the sources of a replay share: a line, a trade that is not believed, a request to wait."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple, Protocol

from ..formats.columns import number
from ..formats.records import evidence
from ..model import BotkeepError, ClosedTrade, Ended, Fill, Finding

DOUBTED = "R2"
"""Rule of a trade that was read and is not believed: not strictly written, implausible, or against another one."""
LISTED = 50
"""Of them, those that are told one by one."""
AHEAD = timedelta(seconds=60)
"""How far a trade's time may be ahead of our clock."""

_WORD = re.compile(r"[^\s'\"\\,;|=<>`\x00-\x20\x7f]{1,64}")

Trade = Fill | ClosedTrade


class ReplayWaitError(BotkeepError):
    """The exchange wants to be left alone. The text says until when, where the exchange did."""

    def __init__(self, text: str, until: datetime | None = None) -> None:
        super().__init__(text)
        self.until = until
        """When it may be asked again; None: it did not say."""


class NotATradeError(Exception):
    """Why something that looks like a trade is none: a phrase."""


class Line(NamedTuple):
    """One line of a log, without its end."""

    data: bytes
    name: str
    """Of the file it is from: a log rotates."""
    offset: int
    whole: bool = True
    """False: longer than any line that is read, or nothing has ended it yet."""


@dataclass
class Doubts:
    """Collects what is not believed: the first ones one by one, of all the number."""

    found: list[Finding] = field(default_factory=list)
    count: int = 0

    def add(self, line: Line, why: str, data: bytes | None = None) -> None:
        """`data`: the evidence, if it is more than the line."""
        self.say(f"{line.name}: {why}: {evidence(line.data if data is None else data)}", line.offset)

    def say(self, text: str, offset: int | None = None) -> None:
        """In words of ours."""
        self.count += 1
        if len(self.found) < LISTED:
            self.found.append(Finding(DOUBTED, text, certain=False, offset=offset))

    def notes(self) -> list[str]:
        """How many there are, if not all are listed."""
        more = self.count - len(self.found)
        return [f"{self.count} trades are not believed, the first {LISTED} are listed"] if more else []


@dataclass(frozen=True)
class Gathered:
    """What a grammar read from all lines of a log."""

    fills: tuple[Fill, ...] = ()
    closed: tuple[ClosedTrade, ...] = ()
    witnessed: bool = False
    """Lines of the kind that tell of trades were there. Without any the log proves nothing, whatever it holds."""
    unwitnessed: str = ""
    """Why it proves nothing then, a sentence."""
    notes: tuple[str, ...] = ()
    ended: tuple[Ended, ...] = ()


class Grammar(Protocol):
    """How trades stand in a log. Gets every line, oldest first."""

    def feed(self, line: Line) -> None:
        """One line."""
        ...

    def finish(self) -> Gathered:
        """After the last one."""
        ...


@dataclass(frozen=True)
class Reading:
    """What a grammar is told."""

    now: datetime
    doubts: Doubts
    zone: str = "UTC"
    columns: Mapping[str, str] = field(default_factory=dict)
    currency: str = ""


# --- values: all of them may be anybody's text -------------------------------------------------------------------


def positive(text: object, what: str) -> Decimal:
    """A number above zero. Raises NotATradeError."""
    found = exact(text, what)
    if found <= 0:
        raise NotATradeError(f"the {what} is not above zero")
    return found


def exact(text: object, what: str) -> Decimal:
    """Any number of the bounded grammar. Raises NotATradeError."""
    found = number(text) if isinstance(text, str) else None
    if found is None:
        raise NotATradeError(f"the {what} is not a number" if text else f"the {what} is missing")
    return found


def word(text: object, what: str) -> str:
    """A short text without spaces, quotes or anything invisible. Raises NotATradeError."""
    if not isinstance(text, str) or not _WORD.fullmatch(text) or not text.isprintable():
        raise NotATradeError(f"the {what} is not one" if text else f"the {what} is missing")
    return text


def past(at: datetime, now: datetime) -> datetime:
    """A time that has been. Raises NotATradeError."""
    if at > now + AHEAD:
        raise NotATradeError("its time is still to come")
    return at
