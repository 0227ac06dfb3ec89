"""Which known causes a log names, and which facts it states: read once as it grows, over rotations and restarts.

A log is text that anybody may have put there. Only lines that match a pattern count, and a cause only forbids:
it never starts an action.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from .linetime import AHEAD, LineClock
from .logfile import FIRST_READ, LINE_LIMIT, Block, LogError, Reading, open_log
from .logjoin import Joined, Lines, Record, record
from .logmatch import Found, Patience
from .logmemory import Fact, Meaning, Memory, moment
from .logscan import Crowded, Hit, Searched
from .model import Cause, LogLook
from .profiles.catalogue import DATED, Catalogue
from .profiles.signature import LinePattern, MarkPattern, Signature

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
STARTED_SLACK = 1.0
NEAR = 1 << 20
"""Bytes before the end in which every line that states something is looked at."""
LONG = 4.0
"""Seconds of processor time after which a look passes over what is old."""
NEVER = datetime(1970, 1, 1, tzinfo=UTC)

NOTHING = Block(b"", 0)

GetCatalogue = Callable[[], Catalogue]
"""Asked when the log has something new to say, or has said something: reading the signature files takes time."""


def read_log(
    path: Path,
    *,
    cursor: Mapping[str, Any] | None,
    now: datetime,
    zone: str,
    catalogue: GetCatalogue,
    run_offset: int | None = None,
    run_started: datetime | None = None,
) -> LogLook:
    """Read what is new in a log: the known causes it names, the facts it states. Never raises for a bad log.

    Only new bytes are read: of an unknown log the last 256 KiB, of a flood the last 128 MiB, or 4 MiB if they mean
    so much that it takes long. `zone` is that of dates without one. `now`: for a bot that has ended, the time of its
    end, so that its last words keep their meaning. The newest run began at `run_offset` of the file, or, where only
    that is known, at `run_started`; lines before it belong to the run that died.
    """
    memory = Memory.load(cursor)
    moment_of_look = now.timestamp()
    try:
        with open_log(path) as log:
            reading = Reading(path, log, memory.position)
            run = _Run(memory, reading, run_offset, run_started)
            return _Look(memory, reading, catalogue, LineClock(zone, moment_of_look), moment_of_look, run).take()
    except (LogError, OSError) as error:
        problem = str(error) if isinstance(error, LogError) else f"The log {path} cannot be read: {error.strerror}."
        with memory.for_now():
            seen = _known(memory, catalogue, moment_of_look)
        return replace(seen, cursor=memory.dump(), problem=problem)


class _Run:
    """Which lines belong to the newest run, and which to those that died."""

    def __init__(self, memory: Memory, reading: Reading, offset: int | None, started: datetime | None) -> None:
        self.offset = offset
        self.started = started.timestamp() - STARTED_SLACK if started else None
        new = memory.begin_run(offset, self.started)
        self.was_turned = memory.turned
        if (reading.rotated and not new) or (offset is not None and offset > reading.log.size):
            memory.turned = True
        self.turned = memory.turned
        self._before = False

    def holds(self, offset: int, at: float, *, older: bool) -> bool:
        """Whether the line at `offset` of its file (`older`: the one before), written at `at`, is of the newest run."""
        if self.offset is None:
            return self.started is None or at >= self.started
        if older:
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
        memory: Memory,
        reading: Reading,
        catalogue: GetCatalogue,
        clock: LineClock,
        now: float,
        run: _Run,
    ) -> None:
        self.memory = memory
        self.reading = reading
        self.get_catalogue = catalogue
        self.clock = clock
        self.now = now
        self.run = run
        self.pending = NOTHING
        """Whole lines that may go on: the next look sees them again."""
        self.patience = Patience()
        self._heard: float | None = memory.last
        """When the newest line that was dated says it was written: it tells doubled hours apart."""
        since = self.memory.looked_at if not (self.reading.first or self.reading.rotated) else None
        self.not_before = None if since is None else since - LATE
        mtime = self.reading.log.mtime
        self.arrival = min(max(mtime, since or mtime), self.now)
        """When a new line came that does not say so credibly."""

    @cached_property
    def catalogue(self) -> Catalogue:
        """What lines mean; asked for when there are new ones."""
        return self.get_catalogue()

    @cached_property
    def lines(self) -> Lines:
        """Which lines belong together."""
        return Joined() if self.catalogue.joins == DATED else Lines()

    @cached_property
    def search(self) -> Crowded:
        """Finds the lines that may mean something."""
        return Crowded(self.catalogue)

    def take(self) -> LogLook:
        """Take in all that is new; the result holds the cursor for the next look."""
        memory = self.memory
        if self.reading.has_more_than(memory.heard):
            memory.settle_last_words(read_again=self.reading.goes_on)
            self._read()
        memory.looked_at = self.now
        memory.forget(self.now)
        memory.tidy()
        with memory.for_now():
            self._hear_last_words()
            seen = _known(memory, self.get_catalogue, self.now)
        return replace(
            seen,
            cursor=memory.dump(),
            mtime=moment(self.reading.log.mtime),
            skipped=self.reading.skipped,
            slow=tuple(sorted(self.patience.lost)),
        )

    # -- what is complete, and what may go on

    def _read(self) -> None:
        began = time.thread_time()
        for block in self._complete():
            self._search(block)
            self._pace(block)
            if time.thread_time() - began > LONG:
                self.reading.hurry()
        self._pace(self.pending)
        self.memory.position = self.reading.position(back=len(self.pending.data))
        self.memory.heard = self.reading.log.size

    def _complete(self) -> Iterator[Block]:
        """The new lines, in blocks that end where lines that belong together do; those that may go on are pending."""
        for block in self.reading:
            kept = self.pending
            if kept.data and (kept.older, kept.end) != (block.older, block.offset):
                yield kept
                kept = NOTHING
            whole = Block(kept.data + block.data, kept.offset if kept.data else block.offset, block.older)
            cut = self.lines.open_from(whole.data)
            self.pending = Block(whole.data[cut:], whole.offset + cut, whole.older)
            if cut:
                yield Block(whole.data[:cut], whole.offset, whole.older)
        if self.pending.older:
            yield self.pending
            self.pending = NOTHING

    def _hear_last_words(self) -> None:
        """Also the lines that may go on, and the last one without its newline: a dying program writes no more.

        The next look sees them again, if there is more then.
        """
        rest = self.reading.rest
        data = self.pending.data + (rest[:LINE_LIMIT] + b"\n" if rest else b"")
        if data:
            self._search(Block(data, self.pending.offset if self.pending.data else self.reading.rest_offset))

    # -- causes and marks

    def _search(self, block: Block) -> None:
        searched = Searched(block)
        far = block.older or block.end < self.reading.log.size - NEAR
        for hit in self.search.hits(searched.data, self.lines.bounds, far=far):
            self._weigh(searched, hit)

    def _weigh(self, block: Searched, hit: Hit) -> None:
        """Count the record for the first signature that it matches, and for every mark."""
        seen = record(block.data[hit.start : min(hit.end, hit.start + LINE_LIMIT)], MATCH_CHARS)
        meant: tuple[Signature, Found] | None = None
        stated: list[tuple[MarkPattern, Found]] = []
        for pattern in self._possible(hit, seen):
            if isinstance(pattern, MarkPattern):
                if (found := self.patience.find(pattern, seen)) is not None:
                    stated.append((pattern, found))
            elif meant is None and isinstance(pattern, Signature):
                found = self.patience.find(pattern, seen)
                meant = (pattern, found) if found is not None else None
        if meant or stated:
            self._count(block, hit, meant, stated)

    def _possible(self, hit: Hit, seen: Record) -> Iterable[LinePattern]:
        if hit.patterns is not None:
            return hit.patterns
        return [one for one in self.catalogue.patterns if one.may_match(seen.text)]

    def _count(
        self,
        block: Searched,
        hit: Hit,
        meant: tuple[Signature, Found] | None,
        stated: Sequence[tuple[MarkPattern, Found]],
    ) -> None:
        written, offset = self._written(block.data, hit.start), block.offset(hit.start)
        if written is None and self._too_old(offset):
            return
        at = self._believed(written)
        this_run = self.run.holds(offset, at, older=block.older)
        if meant is not None:
            signature, found = meant
            meaning = self.memory.meanings.setdefault((signature.id, this_run), Meaning())
            until = _ban_end(found.group(signature.until), self.now) if signature.until else None
            meaning.add(found.paragraph, at, until, signature.recent.total_seconds(), signature.after)
        for mark, found in stated:
            fact = self.memory.facts.setdefault(mark.id, Fact())
            if hit.alone:
                fact.skip()
            fact.add(found, at, written, this_run=this_run)
            self.search.stated(mark)

    def _written(self, data: bytes, start: int) -> float | None:
        """When the line at `start` says it was written, or the nearest line above it that says so."""
        for _ in range(LINES_BACK):
            at = self.clock.read_at(data, start, self._heard)
            if at is not None or start == 0:
                break
            start = data.rfind(b"\n", 0, start - 1) + 1
        if at is None:
            return self._heard
        if at <= self.now + AHEAD:
            self._heard = at
        return at

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
        behind = self.reading.log.size - FIRST_READ - block.offset
        if block.older or behind >= len(block.data):
            return
        for start in _line_starts(block.data, max(0, behind)):
            at = self.clock.read_at(block.data, start, self.memory.last)
            if at is None:
                continue
            if self.run.begins(block.offset + start, at, self.memory.last):
                self.memory.last = None
            self.memory.pause(at)
            self.memory.newest = self._believed(at)


def _line_starts(data: bytes, behind: int) -> Iterator[int]:
    """Where lines begin, from the byte `behind` on."""
    start = data.rfind(b"\n", 0, behind) + 1 if behind else 0
    while start < len(data):
        yield start
        start = data.find(b"\n", start) + 1 or len(data)


def _ban_end(digits: str | None, now: float) -> float | None:
    """The end of a ban that the line names in milliseconds, if it is plausible."""
    if not digits or len(digits) > 16 or not digits.isdecimal():
        return None
    until = int(digits) / 1000
    return until if abs(until - now) <= LONGEST_BAN.total_seconds() else None


# ------------------------------------------------------------------------------------------------------- the result


def _known(memory: Memory, catalogue: GetCatalogue, now: float) -> LogLook:
    """What is known of a log now. The catalogue is not asked for while nothing in the log has a meaning."""
    memory.tidy()
    return LogLook(
        causes=_causes(memory, catalogue().signatures, now) if memory.meanings else (),
        marks={name: fact.mark(name) for name, fact in memory.facts.items()},
        newest_line_at=moment(memory.newest),
        gaps=tuple(seconds for _, seconds in memory.pauses),
    )


def _causes(memory: Memory, signatures: Sequence[Signature], now: float) -> tuple[Cause, ...]:
    """What still means something at `now`."""
    known = {one.id: one for one in signatures}
    causes = [
        _cause(known[name], meaning, this_run=this_run)
        for (name, this_run), meaning in memory.meanings.items()
        if name in known and _still_means_something(known[name], meaning, now)
    ]
    return tuple(sorted(causes, key=lambda one: (not one.this_run, -(one.last_at or NEVER).timestamp())))


def _still_means_something(signature: Signature, meaning: Meaning, now: float) -> bool:
    if meaning.until is not None and meaning.until > now:
        return True
    newest = meaning.last if signature.after is None else meaning.lasted
    return newest is not None and now - newest <= signature.recent.total_seconds()


def _cause(signature: Signature, meaning: Meaning, *, this_run: bool) -> Cause:
    return Cause(
        signature=signature.id,
        cause=signature.cause,
        klass=signature.klass,
        fault=signature.fault,
        line=meaning.line,
        count=meaning.count,
        first_at=moment(meaning.first),
        last_at=moment(meaning.last),
        until=moment(meaning.until),
        this_run=this_run,
        source=signature.source,
        advice=signature.advice,
    )
