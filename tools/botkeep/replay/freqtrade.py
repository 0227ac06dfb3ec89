"""freqtrade's log: the message it sends about every entry and exit, whether anybody listens or not.

    2026-11-21 09:21:55,530 - freqtrade.rpc.rpc_manager - INFO - Sending rpc message: {'type': exit_fill, ...}

The message is the `repr` of a dict, its times in UTC. A log file has it in one line. What goes to a terminal or to
`docker logs` was folded by its console at 200 columns, between words; such lines are joined only where the fold had to
be, so that text which merely looks like a message's next line is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from unicodedata import east_asian_width

from ..model import ClosedTrade, Ended
from .base import Gathered, Line, NotATradeError, Reading, exact, past, positive, word
from .pydict import Number, Value, read_dict

WIDTH = 200
"""Columns of its console where no terminal says otherwise."""
MOST_LINES = 40
"""That one message is folded into."""
UNEXPLAINED = Decimal("0.1")
"""Part of what was bought and sold by which a result may differ from its own rates: fees, funding, interest."""

_START = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - ")
_INFO = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - freqtrade\.[a-z_.]{1,80} - INFO - ")
_MESSAGE = re.compile(
    rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - freqtrade\.rpc\.rpc_manager - INFO - Sending rpc message: ?"
)
_FILLED = re.compile(r"'type':\s*+(?:entry|exit)_fill\b")
_DATE = len("2026-11-21")
_SIDES = {"Long": "long", "Short": "short"}
_SILENT = "It has no line of freqtrade's own at level INFO, and trades stand only in those: look at its log settings."


@dataclass
class _Message:
    """A message that is being joined. `doubtful`: a fold could have put it at the beginning of its line."""

    lines: list[Line]
    start: int
    doubtful: bool


@dataclass
class _Seen:
    """What the log tells of one trade: its id is used again after its database was lost, so pair and time count."""

    entered: dict[tuple[str, str, datetime], str] = field(default_factory=dict)
    """(id, pair, opened) -> how it is told to people."""
    parted: set[tuple[str, str, datetime]] = field(default_factory=set)
    closed: set[tuple[str, str, datetime]] = field(default_factory=set)
    ended: dict[tuple[str, str, datetime], None] = field(default_factory=dict)
    """Closed as well, but with figures that may not be believed."""


class Messages:
    """The trades in the messages."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._message: _Message | None = None
        self._before: Line | None = None
        self._closed: list[ClosedTrade] = []
        self._seen = _Seen()
        self._witnessed = False

    def feed(self, line: Line) -> None:
        """One line: the beginning of a message, a part of it, or neither."""
        if _START.match(line.data):
            self._end()
            self._begin(line)
        elif self._message is not None:
            self._message.lines.append(line)
            if len(self._message.lines) > MOST_LINES:
                self._end()
        self._before = line

    def _begin(self, line: Line) -> None:
        self._witnessed = self._witnessed or _INFO.match(line.data) is not None
        if found := _MESSAGE.match(line.data):
            self._message = _Message([line], found.end(), self._may_be_folded(line))

    def _may_be_folded(self, line: Line) -> bool:
        """Whether this may be the next line of the one before, put there by a fold: its date had no room there."""
        if self._before is None or self._before.name != line.name or len(line.data) > WIDTH:
            return False
        return WIDTH - _DATE < _columns(_shown(self._before)) <= WIDTH

    def _end(self) -> None:
        message, self._message = self._message, None
        if message is None:
            return
        text = _joined(message)
        if text is None or not _FILLED.search(text):
            return
        try:
            self._take(message, text)
        except NotATradeError as why:
            self._reading.doubts.add(message.lines[0], str(why), b" ".join(line.data for line in message.lines))

    def _take(self, message: _Message, text: str) -> None:
        told = read_dict(text[message.start :].strip()) if message.lines[-1].whole else None
        if told is None:
            raise NotATradeError("a message that is cut short or not written as freqtrade writes it")
        if told.get("type") not in ("entry_fill", "exit_fill"):
            return  # a strategy's own message that quotes one
        if message.doubtful:
            raise NotATradeError("a message at a place where it may be a part of the message before")
        key = (_whole(told, "trade_id"), word(told.get("pair"), "pair"), self._time(told, "open_date"))
        if told["type"] == "entry_fill":
            self._seen.entered[key] = f"{key[0]} {key[1]} of {key[2]:%Y-%m-%d %H:%M:%SZ}"
        elif told.get("is_final_exit") == "True":
            self._seen.ended[key] = None
            self._closed.append(self._close(told, key))
            self._seen.closed.add(key)
        elif told.get("is_final_exit") == "False":
            self._seen.parted.add(key)
        else:
            raise NotATradeError("it does not say whether it is the last exit of the trade")

    def _time(self, told: dict[str, Value], key: str) -> datetime:
        at = told.get(key)
        if not isinstance(at, datetime):
            raise NotATradeError(f"the {key} is not a time in UTC")
        return past(at, self._reading.now)

    def _close(self, told: dict[str, Value], key: tuple[str, str, datetime]) -> ClosedTrade:
        side = _SIDES.get(str(told.get("direction")))
        if side is None:
            raise NotATradeError("the direction is neither Long nor Short")
        amount, entry, left = (positive(_figure(told, name), name) for name in ("amount", "open_rate", "close_rate"))
        _explain(_result(told, "profit_amount"), amount, entry, left, side)
        at = self._time(told, "close_date")
        if at < key[2]:
            raise NotATradeError("it was closed before it was opened")
        return ClosedTrade(
            at=at,
            symbol=key[1],
            pnl=self._pnl(told, key),
            currency=word(told.get("stake_currency"), "stake currency"),
            id=key[0],
            opened=key[2],
            side=side,
            amount=amount,
            entry=entry,
            exit=left,
            stake=positive(_figure(told, "stake_amount"), "stake_amount"),
            ratio=_ratio(told),
            market=word(told.get("exchange"), "exchange").lower(),
            reason=_reason(told),
        )

    def _pnl(self, told: dict[str, Value], key: tuple[str, str, datetime]) -> Decimal:
        """Of all exits of the trade: `cumulative_profit`; older versions say only what the last one brought.

        Source: `_notify_exit` in freqtrade/freqtradebot.py, where it is the trade's `realized_profit`, which
        `recalc_trade_from_orders` in persistence/trade_model.py sums over all exits as it does `close_profit_abs`.
        """
        last = _result(told, "profit_amount")
        whole = _result(told, "cumulative_profit") if "cumulative_profit" in told else None
        if whole is None and key in self._seen.parted:
            raise NotATradeError("the trade was closed in parts, and this version logs only the last one's result")
        if whole is None or whole == last:
            return last
        if key not in self._seen.parted:
            raise NotATradeError("its result is of several exits, and the log has only the last one")
        return whole

    def finish(self) -> Gathered:
        """All closed trades; those that the log shows as open are told in a note."""
        self._end()
        still = [said for key, said in self._seen.entered.items() if key not in self._seen.closed]
        notes = ["the log does not tell fees apart: they are in each result already"] if self._closed else []
        if still:
            shown = ", ".join(still[-5:])
            notes.append(f"by the log, {len(still)} trades are still open, the last of them: {shown}")
        return Gathered(
            closed=tuple(self._closed),
            witnessed=self._witnessed,
            unwitnessed=_SILENT,
            notes=tuple(notes),
            ended=tuple(Ended(*key) for key in self._seen.ended),
        )


# --- lines -> one text -------------------------------------------------------------------------------------------


def _shown(line: Line) -> str:
    return line.data.decode("utf-8", "replace")


def _columns(text: str) -> int:
    return len(text) if text.isascii() else sum(2 if east_asian_width(sign) in "WF" else 1 for sign in text)


def _joined(message: _Message) -> str | None:
    """The message in one line; None if its lines are not one message folded."""
    texts = [_shown(line) for line in message.lines]
    if len(texts) == 1:
        return texts[0]
    if not all(_had_to_fold(first, second) for first, second in pairwise(texts)):
        return _as_far_as_folded(texts)
    return _glue(texts)


def _as_far_as_folded(texts: list[str]) -> str:
    """What follows is something else, like the lines of a traceback: the message ends where no fold was needed."""
    end = next(place for place, (first, second) in enumerate(pairwise(texts), 1) if not _had_to_fold(first, second))
    return _glue(texts[:end])


def _glue(texts: list[str]) -> str:
    """The blank at a fold stays at the end of the line if it had room there, else it is gone."""
    return "".join(text if text.endswith(" ") else f"{text} " for text in texts[:-1]) + texts[-1]


def _had_to_fold(first: str, second: str) -> bool:
    """Whether the first word of `second` had no room in the line before."""
    width = _columns(first)
    return width <= WIDTH < width + (not first.endswith(" ")) + _columns(second.split(" ", 1)[0])


# --- what a message says -----------------------------------------------------------------------------------------


def _figure(told: dict[str, Value], name: str) -> object:
    """A bare number, as Python writes it; a text that looks like one is somebody's text."""
    value = told.get(name)
    return str(value) if isinstance(value, Number) else None


def _result(told: dict[str, Value], name: str) -> Decimal:
    return exact(_figure(told, name), name)


def _ratio(told: dict[str, Value]) -> Decimal | None:
    name = "final_profit_ratio" if isinstance(told.get("final_profit_ratio"), Number) else "profit_ratio"
    return _result(told, name) if name in told else None


def _whole(told: dict[str, Value], name: str) -> str:
    value = _figure(told, name)
    if not isinstance(value, str) or not re.fullmatch(r"[1-9]\d{0,17}", value, re.ASCII):
        raise NotATradeError(f"the {name} is not a whole number")
    return value


def _reason(told: dict[str, Value]) -> str:
    reason = told.get("exit_reason")
    return reason[:100] if isinstance(reason, str) and reason.isprintable() else ""


def _explain(pnl: Decimal, amount: Decimal, entry: Decimal, left: Decimal, side: str) -> None:
    """A result must follow from its own rates, but for fees and funding."""
    made = amount * (left - entry) * (1 if side == "long" else -1)
    if abs(pnl - made) > UNEXPLAINED * amount * (entry + left):
        raise NotATradeError("its result does not follow from its own amount and rates")
