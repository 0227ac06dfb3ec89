"""Which known causes a log names: read once as it grows, over rotations and restarts of the bot.

A log is text that anybody may have put there. Only lines that match a signature count, and a cause only forbids:
it never starts an action.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .linetime import AHEAD, LineClock
from .logfile import FIRST_READ, LINE_LIMIT, Block, LogError, Position, Reading, open_log, position_from
from .model import Cause, LogLook
from .profiles import Signature
from .profiles.catalogue import candidates
from .untrusted import clean, strip

LONGEST_BAN = timedelta(days=30)
"""A ban that ends further away is a wrong number, or a lie that would keep the bot down."""
MATCH_CHARS = 8192
"""Of one line; what means something stands near its beginning."""
LATE = 29 * 60.0
"""Seconds that a new line may be dated before the last look: a program that buffers. More is a wrong time zone."""
LAST_WORDS = 16 * 1024
"""Bytes: of an unknown log whose lines bear no time, only its end is taken as recent."""
LINES_BACK = 50
"""How far above a line without a time (a traceback's last) its time is looked for."""
PAUSES = 200
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = timedelta(days=7).total_seconds()
FORGET = timedelta(days=7).total_seconds()
STARTED_SLACK = 1.0
SAME_START = 2.0
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


# ------------------------------------------------------------------------------------------------ what is remembered


@dataclass(eq=False, repr=False)
class _Match:
    """One signature in one run, over several looks. Times are seconds since 1970."""

    count: int = 0
    first: float | None = None
    last: float | None = None
    until: float | None = None
    line: str = ""
    raw: str = ""
    """The newest matching line of this look, not cleaned yet: that costs more than all the rest."""

    def add(self, text: str, at: float, until: float | None, recent: float) -> None:
        """One more line. After a pause longer than `recent` a new episode begins."""
        if self.last is not None and at - self.last > recent:
            self.count, self.first = 0, None
        self.count += 1
        self.first = at if self.first is None else min(self.first, at)
        if self.last is None or at >= self.last:
            self.last, self.raw, self.until = at, text, until


_Key = tuple[str, bool]
"""(signature, of the newest run)."""


@dataclass(eq=False, repr=False)
class _Memory:
    """The cursor, unpacked."""

    position: Position | None = None
    looked_at: float | None = None
    newest: float | None = None
    """When the newest line was written, as we believe."""
    last: float | None = None
    """The same as the lines have it, for pauses."""
    pauses: list[tuple[float, float]] = field(default_factory=list)
    """(end, seconds)."""
    run: tuple[int | None, float | None] = (None, None)
    """Where in the log, or when, the newest run began."""
    turned: bool = False
    """The log was rotated since that run began: all of it belongs to the run."""
    matches: dict[_Key, _Match] = field(default_factory=dict)

    @classmethod
    def load(cls, cursor: Mapping[str, Any] | None) -> _Memory:
        """A cursor of another version, or a broken one, is as good as none."""
        try:
            return cls._load(cursor) if cursor else cls()
        except (KeyError, TypeError, ValueError):
            return cls()

    @classmethod
    def _load(cls, raw: Mapping[str, Any]) -> _Memory:
        return cls(
            position=position_from(raw["position"]),
            looked_at=raw["looked_at"],
            newest=raw["newest"],
            last=raw["last"],
            pauses=[(float(end), float(seconds)) for end, seconds in raw["pauses"]],
            run=(raw["run"][0], raw["run"][1]),
            turned=raw["turned"],
            matches={(one.pop("id"), one.pop("this_run")): _Match(**one) for one in map(dict, raw["causes"])},
        )

    def dump(self) -> dict[str, Any]:
        """As JSON. Cleans the lines first."""
        for match in self.matches.values():
            if match.raw:
                match.line, match.raw = clean(match.raw), ""
        return {
            "position": self.position._asdict() if self.position else None,
            "looked_at": self.looked_at,
            "newest": self.newest,
            "last": self.last,
            "pauses": [list(pause) for pause in self.pauses],
            "run": list(self.run),
            "turned": self.turned,
            "causes": [
                {"id": name, "this_run": this_run, "count": one.count, "first": one.first, "last": one.last}
                | {"until": one.until, "line": one.line}
                for (name, this_run), one in self.matches.items()
            ],
        }

    def begin_run(self, offset: int | None, started: float | None) -> bool:
        """True if this run is new: what was known of the newest run is now of the run before it."""
        if offset is None and started is None:
            return False  # a bot that is down has no start: that is no new run
        before, self.run = self.run, (offset, started)
        if self.position is None or self._is_same_run(before):
            return False
        self.matches = {(name, False): one for (name, this_run), one in self.matches.items() if this_run}
        self.turned, self.last = False, None
        return True

    def _is_same_run(self, before: tuple[int | None, float | None]) -> bool:
        """The start of a process is computed from the uptime and may be off by a second between two looks."""
        (offset, started), (old_offset, old_started) = self.run, before
        if offset is not None:
            return offset == old_offset
        return started is not None and old_started is not None and abs(started - old_started) <= SAME_START

    def pause(self, at: float) -> None:
        """A line was written at `at`, as the lines have it: remember how long it was silent before.

        Lines come in bursts, and the last 200 gaps of a chatty bot may span a minute. So of two hundred the smallest
        of the older half goes first, and all go after a week.
        """
        if self.last is not None and SHORTEST_PAUSE <= at - self.last <= LONGEST_PAUSE:
            self.pauses.append((round(at), round(at - self.last, 1)))
            if len(self.pauses) > PAUSES:
                self.pauses = [one for one in self.pauses if at - one[0] <= FORGET]
            if len(self.pauses) > PAUSES:
                self.pauses.remove(min(self.pauses[: PAUSES // 2], key=lambda one: one[1]))
        self.last = at


# ------------------------------------------------------------------------------------------------------- one look


def read_log(
    path: Path,
    *,
    cursor: Mapping[str, Any] | None,
    now: datetime,
    zone: str,
    signatures: Sequence[Signature],
    run_offset: int | None = None,
    run_started: datetime | None = None,
) -> LogLook:
    """Read what is new in a log and say which known causes it names. Never raises for what is wrong with the log.

    Only new bytes are read: of an unknown log the last 256 KiB, of a flood the last 8 MiB. `zone` is that of dates
    without one. `now`: for a bot that has ended, the time of its end, so that its last words keep their meaning.
    The newest run began at `run_offset` of the file, or, where only that is known, at `run_started`; lines before
    it belong to the run that died.
    """
    memory = _Memory.load(cursor)
    moment = now.timestamp()
    try:
        with open_log(path) as log:
            reading = Reading(path, log, memory.position)
            run = _Run(memory, reading, run_offset, run_started)
            return _Look(memory, reading, signatures, LineClock(zone, moment), moment, run).take()
    except (LogError, OSError) as error:
        problem = str(error) if isinstance(error, LogError) else f"The log {path} cannot be read: {error.strerror}."
        return LogLook(causes=_causes(memory, signatures, moment), cursor=memory.dump(), problem=problem)


class _Run:
    """Which lines belong to the newest run, and which to those that died."""

    def __init__(self, memory: _Memory, reading: Reading, offset: int | None, started: datetime | None) -> None:
        self.offset = offset
        self.started = started.timestamp() - STARTED_SLACK if started else None
        new = memory.begin_run(offset, self.started)
        self.was_turned = memory.turned
        if (reading.rotated and not new) or (offset is not None and offset > reading.log.size):
            memory.turned = True
        self.turned = memory.turned
        self._before = False

    def holds(self, block: Block, offset: int, at: float) -> bool:
        """Whether the line of `block` at `offset` of its file, written at `at`, is of the newest run."""
        if self.offset is None:
            return self.started is None or at >= self.started
        if block.older:
            return self.was_turned or (self.turned and offset >= self.offset)
        return self.turned or offset >= self.offset

    def begins(self, offset: int, at: float, last: float | None) -> bool:
        """Whether this line, the next one with a time, is the run's first: being down is no pause of the bot's own."""
        if self.offset is None:
            return self.started is not None and last is not None and last < self.started <= at
        crossed = not self.turned and offset >= self.offset and self._before
        self._before = offset < self.offset
        return crossed


class _Look:
    """One look: the memory is brought up to date block by block."""

    def __init__(
        self,
        memory: _Memory,
        reading: Reading,
        signatures: Sequence[Signature],
        clock: LineClock,
        now: float,
        run: _Run,
    ) -> None:
        self.memory = memory
        self.reading = reading
        self.signatures = signatures
        self.clock = clock
        self.now = now
        self.run = run
        self.literals = sorted({text for one in self.signatures for text in one.literals})
        self.every_line = any(not one.contains for one in self.signatures)
        since = self.memory.looked_at if not (self.reading.first or self.reading.rotated) else None
        self.not_before = None if since is None else since - LATE
        mtime = self.reading.log.mtime
        self.arrival = min(max(mtime, since or mtime), self.now)
        """When a new line came that does not say so credibly."""

    def take(self) -> LogLook:
        """Take in all that is new; the result holds the cursor for the next look."""
        memory, log = self.memory, self.reading.log
        for block in self.reading:
            self._search(block, memory.matches)
            self._pace(block)
        memory.position, memory.looked_at = self.reading.position, self.now
        self._forget()
        cursor = memory.dump()
        return LogLook(
            cursor=cursor,
            causes=_causes(self._with_last_word(), self.signatures, self.now),
            newest_line_at=_moment(memory.newest),
            mtime=_moment(log.mtime),
            gaps=tuple(seconds for _, seconds in memory.pauses),
            skipped=self.reading.skipped,
        )

    def _with_last_word(self) -> _Memory:
        """Also the unfinished last line: a dying program's lacks its newline. The next look sees it again."""
        rest = self.reading.rest
        if not rest:
            return self.memory
        seen = _Memory(last=self.memory.last, matches={key: replace(one) for key, one in self.memory.matches.items()})
        self._search(Block(rest[:LINE_LIMIT] + b"\n", self.reading.rest_offset), seen.matches)
        seen.dump()
        return seen

    def _forget(self) -> None:
        kept = {key: one for key, one in self.memory.matches.items() if self.now - (one.last or 0.0) <= FORGET}
        self.memory.matches = kept

    # -- causes

    def _search(self, block: Block, matches: dict[_Key, _Match]) -> None:
        for start, end in self._hits(block.data):
            self._match(block, start, end, matches)

    def _hits(self, data: bytes) -> Iterable[tuple[int, int]]:
        """The lines that hold the literal text of a signature: a hundred times as fast as trying each line."""
        if self.every_line:
            return _line_bounds(data)
        found: set[tuple[int, int]] = set()
        for text in self.literals:
            at = data.find(text)
            while at >= 0:
                end = data.index(b"\n", at)
                found.add((data.rfind(b"\n", 0, at) + 1, end))
                at = data.find(text, end)
        return sorted(found)

    def _match(self, block: Block, start: int, end: int, matches: dict[_Key, _Match]) -> None:
        """Count the line for the first signature that it matches."""
        line = block.data[start : min(end, start + LINE_LIMIT)]
        text = strip(line[: MATCH_CHARS * 2].decode("utf-8", "replace"))[:MATCH_CHARS]
        for signature in candidates(self.signatures, line):
            found = signature.regex.search(text)
            if found is None:
                continue
            written = self._written(block.data, start, line)
            if written is None and self._too_old(block.offset + start):
                return
            at = self._believed(written)
            key = signature.id, self.run.holds(block, block.offset + start, at)
            match = matches.setdefault(key, _Match())
            match.add(text, at, _ban_end(signature, found.groupdict(), self.now), signature.recent.total_seconds())
            return

    def _written(self, data: bytes, start: int, line: bytes) -> float | None:
        """When the line says it was written, or the nearest line above it that says so."""
        for _ in range(LINES_BACK):
            at = self.clock.read(line, self.memory.last)
            if at is not None or start == 0:
                break
            above = data.rfind(b"\n", 0, start - 1) + 1
            start, line = above, data[above : above + LINE_LIMIT]
        return at if at is not None else self.memory.last

    def _too_old(self, offset: int) -> bool:
        return self.reading.first and offset < self.reading.log.size - LAST_WORDS

    def _believed(self, written: float | None) -> float:
        """The kernel knows between which moments a new line came; a date outside them is of a wrong zone or clock."""
        if written is None or written > self.now + AHEAD:
            return self.arrival
        if self.not_before is not None and written < self.not_before:
            return self.arrival
        return written

    # -- pauses

    def _pace(self, block: Block) -> None:
        """Learn the pauses between lines, from at most the last 256 KiB: a flood has none."""
        if block.older or block.offset + len(block.data) < self.reading.log.size - FIRST_READ:
            return
        for start, end in _line_bounds(block.data):
            at = self.clock.read(block.data[start : min(end, start + LINE_LIMIT)], self.memory.last)
            if at is None:
                continue
            if self.run.begins(block.offset + start, at, self.memory.last):
                self.memory.last = None
            self.memory.pause(at)
            self.memory.newest = self._believed(at)


def _line_bounds(data: bytes) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        if end < 0:
            return
        yield start, end
        start = end + 1


def _ban_end(signature: Signature, groups: Mapping[str, str | None], now: float) -> float | None:
    """The end of a ban that the line names in milliseconds, if it is plausible."""
    digits = groups.get(signature.until) if signature.until else None
    if not digits or len(digits) > 16 or not digits.isdecimal():
        return None
    until = int(digits) / 1000
    return until if abs(until - now) <= LONGEST_BAN.total_seconds() else None


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _causes(memory: _Memory, signatures: Sequence[Signature], now: float) -> tuple[Cause, ...]:
    """What still means something at `now`."""
    known = {one.id: one for one in signatures}
    causes = [
        _cause(known[name], match, this_run=this_run)
        for (name, this_run), match in memory.matches.items()
        if name in known and _still_means_something(known[name], match, now)
    ]
    return tuple(sorted(causes, key=lambda one: (not one.this_run, -(one.last_at or NEVER).timestamp())))


def _still_means_something(signature: Signature, match: _Match, now: float) -> bool:
    if match.until is not None and match.until > now:
        return True
    return match.last is not None and now - match.last <= signature.recent.total_seconds()


def _cause(signature: Signature, match: _Match, *, this_run: bool) -> Cause:
    return Cause(
        signature=signature.id,
        cause=signature.cause,
        klass=signature.klass,
        fault=signature.fault,
        line=match.line,
        count=match.count,
        first_at=_moment(match.first),
        last_at=_moment(match.last),
        until=_moment(match.until),
        this_run=this_run,
        source=signature.source,
    )
