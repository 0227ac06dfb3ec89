"""What the members of JSON records mean, learned from the first of them, and which records are sound by that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import Any

from ..model import BotkeepError, ClosedTrade, Fill
from . import columns, jsonwriting
from .base import FormatOptions
from .jsontext import KEY, NotSoundError, Record, is_no_number_of_json, names_of, parse, text_at
from .knowledge import OWN_WAY
from .records import Flaw, evidence
from .roles import later_columns, nan_columns, says_nothing, told_markets, told_status
from .values import NAN, NOTHING

SAMPLE = 200
"""Records from which it is learned what a member holds."""
MOST_NAMES = 300
LONGEST_NAME = 100
MOST_WRAPPERS = 8
"""Objects within a record; one with more is no record but a list of them."""
_FIGURE = re.compile(columns.NUMBER, re.ASCII).fullmatch
_EVENTS = ("event", "event_type", "type", "kind", "action", "msg", "status", "state")
_KINDS = ("event", "event_name", "event_type", "kind", "type", "msg_type")
_FILLS = ("fill", "trade", "execut")
_NO_FILLS = ("unfilled", "not_filled", "order_placed", "submitted", "cancel", "reject", "signal", "open_order")
_ORDERS = frozenset({"order", "orders", "placed", "submit", "accepted", "ack", "requested", "intent", "quote"})
_OPENS = frozenset({"open", "opened", "opening", "entry", "enter", "entered", "open_position", "position_opened"})
_CLOSES = frozenset({"close", "closed", "closing", "exit", "exited", "close_position", "position_closed"})


@dataclass(frozen=True)
class Layout:
    """How the records of a file are written. Learned once, kept in the cursor."""

    names: tuple[str, ...]
    """Names of members, the first seen first; of an object within, with a dot."""
    roles: Mapping[str, int]
    numbers: tuple[int, ...]
    """Members that hold numbers, as far as the sample tells."""
    needed: tuple[int, ...]
    """Those of them that hold one in every sound record."""
    always: tuple[int, ...]
    """Members without which a record is no trade, and that no record of the sample was without."""
    time: int | None
    side: int | None = None
    """The member that says buy or sell in every record of the sample."""
    events: str = ""
    """The member that says whether a record opens or closes a trade, where both are written as records of their own."""
    sample: int = 0
    body: int = 0
    """Offset of the first record."""
    keyed: bool = False
    """The records stand in an object, each behind its key."""
    path: tuple[str, ...] = ()
    """Keys that lead to the records in a whole document."""
    nan: tuple[int, ...] = ()
    """Members in which the bot writes `nan` where there is no result yet."""
    status: str = ""
    """The newest status of a record that is a trade."""
    markets: tuple[str, ...] = ()
    """The first markets, as they are spelled."""
    kind: str = ""
    """The member that says what kind of event a record is, where some of them are executions."""
    execution: str = ""
    """Its newest word for one that counts."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Layout:
        """The reverse of `asdict`. Raises KeyError, TypeError or ValueError where it is not one of ours."""
        plain = dict(raw)
        for name in ("names", "numbers", "needed", "always", "path"):
            plain[name] = tuple(plain[name])
        for name in ("nan", "markets"):
            plain[name] = tuple(plain.get(name, ()))
        found = cls(**plain)
        if any(not 0 <= place < len(found.names) for place in (*found.roles.values(), *found.numbers)):
            raise ValueError("a role names no member")
        return found


def learned(found: Sequence[Mapping[str, Any]], options: FormatOptions) -> Layout:
    """The layout of records, from the first of them."""
    return _Learner([dict(members) for members in found[:SAMPLE]], options).layout()


class _Learner:
    def __init__(self, found: Sequence[dict[str, Any]], options: FormatOptions) -> None:
        self._found, self._options = found, options
        self._zone = columns.zone_of(options.timezone)
        seen = dict.fromkeys(name for members in found for name in names_of(members))
        self._names = tuple(name for name in seen if len(name) <= LONGEST_NAME)[:MOST_NAMES]
        self._roles: dict[str, int] = {}
        self._later: tuple[int, ...] = ()
        self._nan: tuple[int, ...] = ()

    def layout(self) -> Layout:
        self._roles = self._all_roles()
        later = [column for column in later_columns(self._roles) if column != self._roles.get("time")]
        self._nan = nan_columns({column: self._texts(column) for column in later}, OWN_WAY)
        self._later = later_columns(self._roles)
        numbers = tuple(sorted(column for column in self._number_columns() if self._holds_numbers(column)))
        kind, word = self._kind()
        return Layout(
            names=self._names,
            roles=self._roles,
            numbers=numbers,
            needed=self._needed(numbers),
            always=self._always(),
            time=self._time_column(),
            side=self._side_column(),
            events=self._events(),
            sample=len(self._found),
            nan=self._nan,
            status=told_status(self._of("status")),
            markets=told_markets(self._of("market")),
            kind=kind,
            execution=word,
        )

    def _of(self, role: str) -> list[str]:
        return self._texts(self._roles[role]) if role in self._roles else []

    def _texts(self, column: int) -> list[str]:
        """What the member holds, in the records where it holds something."""
        texts = [text for members in self._found if (text := text_at(members, self._names[column]))]
        return [text for text in texts if not says_nothing(text, column, self._later, self._nan)]

    # --- roles ---

    def _all_roles(self) -> dict[str, int]:
        """By the full names; where these make no trade, by the names within the one object that makes one."""
        roles = columns.roles_of(self._names, self._options.columns)
        if _makes_a_trade(roles):
            return roles
        wrappers = dict.fromkeys(name.rpartition(".")[0] for name in self._names if "." in name)
        if len(wrappers) > MOST_WRAPPERS:
            return roles
        within = [found for one in wrappers if _makes_a_trade(found := self._roles_within(one))]
        return within[0] if len(within) == 1 else roles

    def _roles_within(self, wrapper: str) -> dict[str, int]:
        bare = [name.removeprefix(f"{wrapper}.") for name in self._names]
        if len(set(bare)) < len(bare):  # the same name outside: it keeps its meaning
            bare = [inner if inner == own or inner not in self._names else own
                    for own, inner in zip(self._names, bare, strict=True)]  # fmt: skip
        roles = columns.roles_of(bare, {})
        return roles | columns.roles_of(self._names, self._options.columns)

    def _number_columns(self) -> set[int]:
        known = {self._roles[role] for role in columns.NUMBERS if role in self._roles}
        return known - {self._roles.get("time", -1), self._roles.get("opened", -1)}

    def _holds_numbers(self, column: int) -> bool:
        """A member that held other things from the start (a fee as `0.1 %`) is the bot's own way."""
        filled = self._texts(column)
        sound = sum(columns.money(text) is not None for text in filled)
        strange = len(filled) - sound
        sure = column in {self._roles.get(role) for role in ("price", "amount", "pnl")}
        return sound >= strange or (sure and strange < 3)

    def _needed(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """A fill without price or amount is none; a blank result is an open trade."""
        wanted = () if "pnl" in self._roles else ("price", "amount")
        found = {self._roles[role] for role in wanted if self._roles.get(role) in numbers}
        return tuple(sorted(column for column in found if len(self._texts(column)) == len(self._found)))

    def _always(self) -> tuple[int, ...]:
        wanted = () if "pnl" in self._roles else ("time", "symbol", "side", "price", "amount")
        places = {self._roles[role] for role in wanted if role in self._roles}
        return tuple(sorted(place for place in places if self._is_everywhere(self._names[place])))

    def _is_everywhere(self, name: str) -> bool:
        return all(text_at(members, name) is not None for members in self._found)

    def _time_column(self) -> int | None:
        column = self._roles.get("time")
        if column is None:
            return None
        filled = self._texts(column)
        sound = sum(columns.moment(text, self._zone) is not None for text in filled)
        return column if sound >= len(filled) - sound else None

    def _side_column(self) -> int | None:
        column = self._roles.get("side")
        if column is None or "pnl" in self._roles:
            return None
        texts = self._texts(column)
        strange = sum(columns.side_of(text) is None for text in texts)
        return column if len(texts) == len(self._found) and strange < min(3, len(texts)) else None

    # --- executions among other events, openings and closings as records of their own ---

    def _kind(self) -> tuple[str, str]:
        """The member that says the kind of event, and its newest word for an execution; empty: there is none."""
        for column, name in enumerate(self._names):
            if columns.plain_name(name.rpartition(".")[2]) in _KINDS and column not in self._roles.values():
                words = [text for text in self._texts(column) if tells_execution(text)]
                if words:
                    return name, words[-1]
        return "", ""

    def _events(self) -> str:
        for column, name in enumerate(self._names):
            plain = columns.plain_name(name.rpartition(".")[2])
            if plain in _EVENTS and self._both(column, shared=plain in ("status", "state")):
                return name
        return ""

    def _both(self, column: int, *, shared: bool) -> bool:
        """Whether it says `open` in some records and `close` in others; `shared`: of the same trades."""
        opens, closes = self._ids(column, _OPENS), self._ids(column, _CLOSES)
        return bool(opens & closes - {""}) if shared else bool(opens and closes)

    def _ids(self, column: int, words: frozenset[str]) -> set[str]:
        """Trade ids of the records in which the member is one of these words; an empty one for those without."""
        name, place = self._names[column], self._roles.get("id")
        found = [members for members in self._found if columns.plain_name(text_at(members, name) or "") in words]
        return {(text_at(members, self._names[place]) if place is not None else "") or "" for members in found}


def tells_execution(kind: str) -> bool:
    """Whether a kind of event is an execution: `fill`, `TRADE_EXECUTED`, `OrderFilledEvent`."""
    said = columns.plain_name(kind)
    return any(part in said for part in _FILLS) and not any(part in said for part in _NO_FILLS)


def tells_none(kind: str) -> bool:
    """Whether it certainly is none: `order_placed`, `signal`. Of a word that says neither, the record may be one."""
    said = columns.plain_name(kind)
    named = any(part in said for part in _NO_FILLS) or bool(_ORDERS & set(said.split("_")))
    return named and not tells_execution(kind)


def _makes_a_trade(roles: Mapping[str, int]) -> bool:
    return "pnl" in roles or {"price", "amount"} <= set(roles)


# --- one record --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Records:
    """Tells sound records from others; the ground of both readers, of lines and of whole documents."""

    layout: Layout
    zone: tzinfo = UTC
    split: bool = False
    """Records of which only the mark between them is missing are sound: for rebuilding and for adding up."""
    _last: list[Any] = field(default_factory=lambda: [None, None], repr=False, compare=False)
    """The record that was parsed last, and what it held: it is asked for soundness, key and cells one by one."""

    @property
    def body(self) -> int:
        """Offset of the first record."""
        return self.layout.body

    @property
    def sample(self) -> int:
        """Records that the layout was learned from."""
        return self.layout.sample

    @property
    def typed(self) -> bool:
        """Whether trades were recognised."""
        return bool(self.layout.numbers)

    def as_json(self) -> dict[str, Any]:
        """The layout, for a cursor."""
        return asdict(self.layout)

    def blank(self, line: bytes) -> bool:
        """Whether a line is no record at all."""
        return not line.strip()

    def parse(self, raw: bytes) -> Record:
        """The object of a record. Raises NotSoundError."""
        if self._last[0] is not raw:
            key = KEY.match(raw) if self.layout.keyed else None
            self._last[:] = [raw, parse(raw[key.end() :] if key else raw)]
        found: Record = self._last[1]
        return found

    def flaw(self, raw: bytes) -> tuple[Flaw | None, float | None]:
        """What is wrong with one record, and its time where it has one."""
        try:
            members, odd = self.parse(raw)
        except NotSoundError as why:
            return why.flaw, None
        for name in self._always:
            if text_at(members, name) is None:
                return Flaw("C4", f"It has no {_shown(name)}: {evidence(raw)}.", sound=True), None
        at, wrong = self._time(members)
        wrong = wrong or self._wrong_number(members) or self._wrong_side(members)
        return (wrong, None) if wrong and not wrong.sound else (wrong or odd, at)

    @cached_property
    def _always(self) -> tuple[str, ...]:
        return tuple(self.layout.names[place] for place in self.layout.always)

    @cached_property
    def _figures(self) -> tuple[tuple[str, bool], ...]:
        """(name, whether every sound record has it) of the members that hold numbers."""
        return tuple((self.layout.names[place], place in self.layout.needed) for place in self.layout.numbers)

    def _wrong_number(self, members: dict[str, Any]) -> Flaw | None:
        for name, needed in self._figures:
            text = text_at(members, name)
            if text and not self._says_nothing(text, name):
                if _FIGURE(text) is None and columns.money(text) is None:
                    return _no("J2" if is_no_number_of_json(text) else "C9", name, text, "number")
            elif needed and text is not None:
                return _no("C9", name, "", "number")
        return None

    def _wrong_side(self, members: dict[str, Any]) -> Flaw | None:
        """A newer version of a record takes the place of the good copy's: not one that is no trade any more."""
        if self.layout.side is None:
            return None
        name = self.layout.names[self.layout.side]
        text = text_at(members, name) or ""
        return None if columns.side_of(text) else _no("C9", name, text, "side")

    @cached_property
    def _clock(self) -> str:
        return "" if self.layout.time is None else self.layout.names[self.layout.time]

    def _time(self, members: dict[str, Any]) -> tuple[float | None, Flaw | None]:
        """Blank in an open trade, whose time to close has not come."""
        text = text_at(members, self._clock) if self._clock else None
        if not text or self._says_nothing(text, self._clock):
            blank = text is None or "pnl" in self.layout.roles
            return None, None if blank else _no("C9", self._clock, "", "time")
        if self.zone is UTC and len(text) > 16 and text[4:5] == "-" and text[10:11] in ("T", " "):
            try:
                at = datetime.fromisoformat(text)
            except ValueError:
                return None, _no("C9", self._clock, text, "time")
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(), None
        found = columns.moment(text, self.zone)
        return (found.timestamp(), None) if found else (None, _no("C9", self._clock, text, "time"))

    def key(self, raw: bytes) -> str:
        """Market, symbol and trade id of a sound record; in an object, else, its key. Empty: it has neither."""
        place, names = self.layout.roles, self.layout.names
        if "id" in place:
            members = self.parse(raw).members
            found = [text_at(members, names[place[role]]) or "" for role in ("market", "symbol", "id") if role in place]
            if found[-1]:
                return "\0".join(found)
        key = KEY.match(raw) if self.layout.keyed else None
        return "\0" + key[1].decode("utf-8", "replace") if key else ""

    def cells(self, raw: bytes) -> list[str]:
        """What the members of a sound record hold, in the order of the names; blank where it has none of that name."""
        members = self.parse(raw).members
        found = [""] * len(self.layout.names)
        for place, name in self._told:
            text = (text_at(members, name) or "").strip()
            found[place] = "" if self._says_nothing(text, name) else text
        return found

    def _says_nothing(self, text: str, name: str) -> bool:
        """Whether it is the bot's word for a result that is not known yet."""
        return text in self._nothing and name in self._nothing[text]

    @cached_property
    def _nothing(self) -> dict[str, frozenset[str]]:
        """Names of the members in which each word says that."""
        names, later = self.layout.names, later_columns(self.layout.roles)
        nan = frozenset(names[place] for place in self.layout.nan)
        return dict.fromkeys(NOTHING, frozenset(names[place] for place in later)) | dict.fromkeys(NAN, nan)

    @cached_property
    def _told(self) -> tuple[tuple[int, str], ...]:
        """(column, name) of the members that mean something."""
        return tuple((place, self.layout.names[place]) for place in sorted(set(self.layout.roles.values())))

    def encode(self, trade: Fill | ClosedTrade, like: bytes | None) -> bytes | str:
        """The record of a trade in the way of writing of `like`. Text: why it cannot hold the trade."""
        if like is None or not self.typed:
            return "the file has no record that shows how a trade is written in it"
        return jsonwriting.encode(self.layout, self.zone, trade, like, self.cells(like))


def _no(rule: str, name: str, text: str, what: str) -> Flaw:
    shown = evidence(text.encode("utf-8", "replace"), 60)
    return Flaw(rule, f"Its {_shown(name)} holds {shown}, which is no {what}.")


def _shown(name: str) -> str:
    return evidence(name.encode("utf-8", "replace"), 40)


def refuse_unclear(layout: Layout, options: FormatOptions, what: str) -> None:
    """Raise BotkeepError where openings and closings are records of their own and nobody says which counts.

    A closing that repeats the `long` of its opening would be read as a second purchase.
    """
    if not layout.events or "pnl" in options.columns or {"side", "price", "amount"} <= set(options.columns):
        return
    raise BotkeepError(
        f"{what}: a trade is two records in it, an opening and a closing ({layout.events} says which), and it is not "
        f'clear what counts. Say so in bots.json: "data_format": {{"columns": {{"pnl": "NAME OF THE RESULT"}}}} if '
        "closings hold the result (openings are then not counted), or name side, price and amount there if every "
        f"record is one execution that says buy or sell. The file has: {', '.join(layout.names[:30])}."
    )
