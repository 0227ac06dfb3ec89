"""What is known of a Parquet file between two looks at it: the cursor, as an object."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from ..model import Tempo

VERSION = 1


@dataclass
class Damage:
    """A damage that was seen; it is the same one for as long as rule, row and text are."""

    rule: str
    text: str
    row: int | None
    seen: float
    """Epoch seconds of the look that found it first."""
    role: str = ""
    """Of a value: what its column means."""


@dataclass
class Before:
    """Content that was there once: rows, and by which bytes it can be known again."""

    rows: int
    to: int
    head: str
    anchor: str
    seen: float
    """Epoch seconds of the look that missed it first."""


@dataclass
class State:
    """What is known of a file."""

    file: str = ""
    """Identity of what was read."""
    to: int = 0
    head: str = ""
    anchor: str = ""
    records: int = 0
    group: int = 0
    """Row groups that were read."""
    groups: int = 0
    names: list[str] = field(default_factory=list)
    needed: list[str] = field(default_factory=list)
    """Columns that trades were read from."""
    unsound: dict[str, int] = field(default_factory=dict)
    """Role -> rows whose value is none."""
    filled: dict[str, int] = field(default_factory=dict)
    """Role -> rows that have a value."""
    damages: list[Damage] = field(default_factory=list)
    notes: list[list[Any]] = field(default_factory=list)
    """[rule, text] of what is odd, but no damage."""
    unread: str = ""
    """Why nothing can be said about it."""
    back: int = 0
    newest: int = 0
    ids: list[str] = field(default_factory=list)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=500))
    hours: dict[int, int] = field(default_factory=dict)
    before: Before | None = None

    @property
    def more(self) -> bool:
        """Not read to its end yet."""
        return self.group < self.groups and not self.unread

    @property
    def bad(self) -> int:
        """Rows that are not sound: of the remembered ones each once, of others as many as one column has."""
        listed = {damage.row for damage in self.standing() if damage.role}
        counts = [count for role, count in self.unsound.items() if not self.own_way(role)]
        return max([len(listed), *counts])

    def own_way(self, role: str) -> bool:
        """A column that holds other things most of the time is how the bot writes, and no damage."""
        return 2 * self.unsound.get(role, 0) > self.filled.get(role, 0)

    def standing(self) -> list[Damage]:
        """The damages that are some."""
        return [damage for damage in self.damages if not (damage.role and self.own_way(damage.role))]

    def missed(self, now: datetime) -> Before | None:
        """What is missed if this content is gone."""
        rows = self.records - self.bad
        if self.before and self.before.rows >= rows:
            return self.before
        return Before(rows, self.to, self.head, self.anchor, now.timestamp()) if self.to else self.before

    def tempo(self) -> Tempo:
        """How often the bot trades."""
        times = sorted(self.recent)
        gaps = tuple(round(later - at, 3) for at, later in pairwise(times))[-200:]
        newest = datetime.fromtimestamp(times[-1], UTC) if times else None
        return Tempo(newest, gaps, tuple(sorted(self.hours.items())), tuple(self.recent))

    def as_json(self, options: str) -> dict[str, Any]:
        """The cursor."""
        plain = {**asdict(self), "recent": list(self.recent), "hours": [list(pair) for pair in self.hours.items()]}
        if not self.more:
            plain["ids"] = []
        return {**plain, "v": VERSION, "options": options, "more": self.more}

    @classmethod
    def from_json(cls, cursor: Mapping[str, Any] | None, options: str) -> State | None:
        """The reverse; None for no cursor, one of other options, or one that is not ours."""
        if not cursor or cursor.get("v") != VERSION or cursor.get("options") != options:
            return None
        plain = {name: value for name, value in cursor.items() if name not in ("v", "options", "more")}
        try:
            plain["damages"] = [Damage(**damage) for damage in plain["damages"]]
            plain["before"] = Before(**plain["before"]) if plain["before"] else None
            plain["recent"] = deque(plain["recent"], maxlen=500)
            plain["hours"] = {int(hour): int(count) for hour, count in plain["hours"]}
            return cls(**plain)
        except (KeyError, TypeError, ValueError):
            return None
