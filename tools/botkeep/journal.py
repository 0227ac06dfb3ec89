"""`memory/bot-operations.md`: the ledger for people, plus their own notes.

The ledger is the truth and is written first; the Markdown is brought up to it, each entry exactly once, by whoever
holds the lock. People edit the file with whatever they like and lock nothing, so:

1. After each write the file's identity (device, inode, size, both times) is kept. While it is the same, new entries
   are appended and nothing is read.
2. Before each write, its place and text are kept. A writer that is killed leaves a tail that is the beginning of that
   text; the next one completes it. Nothing is ever truncated.
3. Any other difference is somebody's edit. The whole file is read, and entries that it misses (an editor saved what it
   had opened before they were written) are added at its end, marked `restored`. Other lines stay as they are.
4. After each write, the file at the path must be the one written to, and as long as expected. Otherwise somebody saved
   meanwhile, and the file is read again.
5. Past months' sections move, with everything in them, to memory/archive/: first into the archive, then the rest
   replaces the file, unless it changed since it was read. Of a section that is in the archive already (a kill between
   the two, or an editor that saved it back), only the lines are added that the archive does not have.

What was written last is kept in .botkeep/journal.json: not in the ledger, where it would cost every entry two more
transactions among all writers, and not on the disk at once, because it only ever saves reading the whole file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from .durable import Lock, fsync_dir, read_json
from .journal_file import (
    ChangedError,
    Identity,
    JournalError,
    Replacement,
    Scan,
    Section,
    Shown,
    copy,
    id_in,
    identity_at,
    identity_of,
    key_of,
    keys_in,
    line_of,
    lines_in,
    month_in,
    month_of,
    not_yet_in,
    opened,
    refuse_utf16,
    render,
    scan,
    shown_in,
    write_all,
)
from .ledger import Entry, Kind, Ledger, Within
from .model import BotkeepError
from .untrusted import clean
from .workspace import Workspace

EMPTY = """\
# Bot operations

What botkeep saw and did: one line for each entry, the newest last. Past months move to `archive/`.
Write your own lines anywhere: they are never changed, and a line of botkeep's that an edit loses comes back.
To see whether an entry was changed, removed or forged: `botkeep journal --verify`
"""

OVERDUE = timedelta(minutes=10)
"""An intent without an outcome for longer than this is shown."""
SKEW = timedelta(days=1)
"""By how much the clocks of two writers may differ at the end of a month."""
SENTENCE_LIMIT = 500
NOTE_LIMIT = 2000
LOCK_SECONDS = 2.0
"""A writer that does not get the lock leaves its line to the next one: the ledger has the entry."""
LOCK_POLL_SECONDS = 0.002
QUIET_SECONDS = 0.1
"""How long a file that somebody else changed must have stayed the same. An editor that saves in place empties the
file first; entries added in that moment would be half overwritten by the rest of its save."""
EMPTY_QUIET_SECONDS = 1.0
"""The same for an empty or missing file: a slow save is likelier than a person who wants to be rid of the journal."""
TRIES = 10
BATCH = 1000
CHUNK = 64 * 1024
"""Characters in one write; kept beforehand as JSON of at most twelve times as many bytes."""
TAIL_LIMIT = 8 << 20
SENTENCES = 100
"""Findings that `verify` lists one by one."""


# --- what was written last --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kept:
    """What the last writer left for the next one."""

    file: Identity | None = None
    """The file after the last write; None: it has to be read."""
    through: int = 0
    """Number of the newest entry that was looked at; all up to it are in the file or the archive, or wait."""
    hash: str = ""
    """Its hash: another one means another ledger."""
    waiting: tuple[int, ...] = ()
    """Intents up to `through` that are not yet overdue."""
    settled: int = 0
    """Entries up to this one are in the archive, not in the file; they are not looked for after an edit."""
    first_month: str = ""
    last_month: str = ""
    offset: int = 0
    pending: str = ""
    """Text that was about to be written at `offset`."""


def _kept_from(value: dict[str, Any] | None) -> _Kept | None:
    """None when there is nothing usable: torn by a power cut, removed, or of another version."""
    try:
        kept = _Kept(**(value or {}))
        identity = None if kept.file is None else (*(int(number) for number in kept.file),)
        waiting = tuple(int(number) for number in kept.waiting)
    except (TypeError, ValueError):
        return None
    if value is None or (identity is not None and len(identity) != 5):
        return None
    return replace(kept, file=identity, waiting=waiting)


# --- the journal ------------------------------------------------------------------------------------------------


class Journal:
    """The only writer of entries, and the keeper of their Markdown."""

    def __init__(self, workspace: Workspace, ledger: Ledger) -> None:
        self.ledger = ledger
        self.path = workspace.journal_file
        self._archive_dir = workspace.archive_dir
        self._home = workspace.home
        self._kept_file = workspace.state_dir / "journal.json"
        self._lock_file = workspace.state_dir / "journal.lock"
        self._patience = LOCK_SECONDS

    def record(
        self,
        kind: Kind,
        *,
        at: datetime,
        bot: str | None,
        action: str,
        actor: str,
        sentence: str,
        ref: str | None = None,
        result: str = "",
        data: dict[str, Any] | None = None,
        within: Within | None = None,
    ) -> Entry:
        """Add an entry to the ledger, durably, then to the Markdown. Raises LedgerError if the ledger cannot take it.

        `within`: written in the same transaction as the entry.

        A Markdown file that cannot be written now is no failure: the next `sync` says so and mends it.
        """
        sentence = clean(sentence.strip(), NOTE_LIMIT if kind is Kind.NOTE else SENTENCE_LIMIT)
        entry = self.ledger.append(
            kind, at=at, bot=bot, action=action, actor=actor, sentence=sentence, ref=ref, result=result, data=data,
            within=within,
        )  # fmt: skip
        if kind is not Kind.INTENT:
            self.sync(at)
        return entry

    def sync(self, now: datetime) -> list[str]:
        """Bring the Markdown up to the ledger: new entries, entries lost in an edit, torn tails, past months.

        Returns what prevented it, as sentences, and never raises for a file or ledger that cannot be used.
        """
        try:
            with self._locked():
                self._bring_up(now)
        except BotkeepError as error:
            return [str(error)]
        except OSError as error:
            return [
                f"{self._name(self.path)} cannot be brought up to date: {error.strerror or error}. No entry is lost: "
                f"the ledger has them all, and they are added to the file as soon as that is mended."
            ]
        return []

    def own_lines(self, limit: int) -> list[str]:
        """The last `limit` lines that people wrote into the journal, newest last, cleaned; of the last 8 MiB."""
        known = set(EMPTY.splitlines())
        kept: deque[str] = deque(maxlen=limit)
        try:
            with opened(self.path, os.O_RDONLY) as fd:
                for line in lines_in(fd, max(0, os.fstat(fd).st_size - TAIL_LIMIT)):
                    text = clean(line.decode("utf-8", "replace").strip())
                    if text and text not in known and not keys_in(line) and not month_in(line):
                        kept.append(text)
        except (OSError, JournalError):
            return []
        return [*kept]

    # --- writing ---

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = Lock(self._lock_file)
        deadline = time.monotonic() + self._patience
        while not lock.acquire():
            if time.monotonic() >= deadline:
                self._patience = 0.0  # once is enough: a round of many actions must not wait for each
                raise JournalError(
                    f"{self._name(self.path)} is being written by another botkeep, longer than {LOCK_SECONDS:.0f} "
                    f"seconds. No entry is lost: whoever writes next adds them all."
                )
            time.sleep(LOCK_POLL_SECONDS)
        self._patience = LOCK_SECONDS
        with lock:
            yield

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._home)) if path.is_relative_to(self._home) else str(path)

    def _bring_up(self, now: datetime) -> None:
        moved: Identity | None = None
        for _ in range(TRIES):
            with suppress(ChangedError):
                moved = self._attempt(now, moved)
                if moved is None:
                    return
        raise JournalError(
            f"{self._name(self.path)} is being changed by another program all the time. No entry is lost: they are "
            f"added as soon as it stays the same for a moment."
        )

    def _attempt(self, now: datetime, moved: Identity | None) -> Identity | None:
        """One try; None when all is done. Otherwise months were moved and left this file, which is to be read."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = self._load()
        ours = {kept.file, moved}
        with self._open(kept, ours) as fd:
            if kept.file == identity_of(fd) and not "" < kept.first_month < month_of(now):
                self._catch_up(fd, kept, now)
                return None
            return self._heal(fd, kept, now, ours)

    @contextmanager
    def _open(self, kept: _Kept, ours: set[Identity | None]) -> Iterator[int]:
        """The file, made if it is missing; what we made ourselves is added to `ours`."""
        new = identity_at(self.path) is None
        if new and kept.through:
            self._wait_until_quiet(None)  # an editor moves the old file away before it makes the new one
        with opened(self.path, os.O_RDWR | os.O_APPEND | (os.O_CREAT | os.O_EXCL if new else 0)) as fd:
            if new:
                ours.add(identity_of(fd))
            yield fd

    def _heal(self, fd: int, kept: _Kept, now: datetime, ours: set[Identity | None]) -> Identity | None:
        """Somebody edited the file, a writer was killed, or a month is over."""
        refuse_utf16(fd, self._name(self.path))
        if kept != _Kept() and not self._completed(fd, kept) and identity_of(fd) not in ours:
            self._wait_until_quiet(identity_of(fd))
        found = scan(fd)
        past = [section for section in found.sections if section.month < month_of(now)]
        if past:
            return self._rotate(fd, found, past)
        months = [section.month for section in found.sections]
        first, last = min(months, default=""), months[-1] if months else ""
        kept = replace(kept, file=found.identity, first_month=first, last_month=last)
        self._catch_up(fd, kept, now, _Present(found.keys, self._archives()))
        return None

    def _completed(self, fd: int, kept: _Kept) -> bool:
        """True if a killed writer explains the end of the file; what it did not get to write is then added."""
        text = kept.pending.encode()
        tail = os.pread(fd, len(text) + 1, kept.offset)
        if not tail or not text.startswith(tail):
            return False
        write_all(fd, text[len(tail) :])
        return True

    def _wait_until_quiet(self, seen: Identity | None) -> None:
        time.sleep(QUIET_SECONDS if seen and seen[2] else EMPTY_QUIET_SECONDS)
        if identity_at(self.path) != seen:
            raise ChangedError

    def _catch_up(self, fd: int, kept: _Kept, now: datetime, present: _Present | None = None) -> None:
        """Write what is to be shown and not there: entries after the last one or, with `present`, all that it lacks."""
        healing = present is not None
        queue = _Queue(self.ledger, kept, now, after=kept.settled if healing else kept.through)
        pen = _Pen(self.path, fd, kept, now, save=self._save, healing=healing)
        lowest = present.lowest if present else kept.settled + 1
        for entry in queue:
            if present is None or entry not in present:
                lost = healing and entry.seq <= kept.through and entry.seq not in kept.waiting
                pen.write(render(line_of(entry, restored=lost)), entry.at)
                lowest = min(lowest, entry.seq)
        if pen.finish() or healing:
            # A writer whose clock is behind sees intents as not yet overdue that another one has shown already.
            waiting = tuple(intent.seq for intent in queue.waiting if present is None or intent not in present)
            settled = min(lowest - 1, queue.through)
            done = replace(pen.kept, through=queue.through, hash=queue.hash, waiting=waiting, settled=settled)
            self._save(replace(done, offset=0, pending=""))

    def _load(self) -> _Kept:
        """What the last writer left, if it was about this ledger."""
        kept = _kept_from(read_json(self._kept_file))
        if kept is None or not kept.through:
            return kept or _Kept()
        entry = self.ledger.entry(f"e{kept.through}")
        return kept if entry and entry.hash == kept.hash else _Kept()

    def _save(self, kept: _Kept) -> None:
        """Whole or not at all for a kill; not for a power cut, after which it differs from the file and is ignored."""
        temp = self._kept_file.with_suffix(".new")
        temp.write_text(json.dumps(vars(kept)), "utf-8")
        temp.replace(self._kept_file)

    # --- months ---

    def _archives(self) -> dict[str, Path]:
        """Month -> its archive, oldest first."""
        found = sorted(self._archive_dir.glob("bot-operations-[0-9][0-9][0-9][0-9]-[0-9][0-9].md"))
        return {path.stem[-7:]: path for path in found}

    def _rotate(self, fd: int, found: Scan, past: Sequence[Section]) -> Identity:
        """Move these sections into the archive: there first, so that a kill between the two loses nothing.

        Returns the identity of the file that is left.
        """
        self._archive_dir.mkdir(parents=True, exist_ok=True)
        fsync_dir(self._archive_dir.parent)
        for month in sorted({section.month for section in past}):
            self._move(fd, found, month, [section for section in past if section.month == month])
        with Replacement(self.path, like=fd) as new:
            place = 0
            for section in past:
                copy(fd, new.fd, place, section.start)
                place = section.end
            copy(fd, new.fd, place, found.identity[2])
            new.install(found.identity)
            return identity_of(new.fd)

    def _move(self, fd: int, found: Scan, month: str, sections: Sequence[Section]) -> None:
        """Put the sections of one month into its archive, made or extended; nothing if the archive has them."""
        path = self._archive_dir / f"bot-operations-{month}.md"
        if identity_at(path) is not None:
            with opened(path, os.O_RDONLY) as old:
                self._extend(path, old, fd, found, sections)
            return
        with Replacement(path, like=fd) as new:
            for section in sections:
                copy(fd, new.fd, section.start, section.end)
            self._require(found.identity)
            new.install(None)

    def _extend(self, path: Path, old: int, fd: int, found: Scan, sections: Sequence[Section]) -> None:
        before = identity_of(old)
        lines = [line for section in sections for line in lines_in(fd, section.start, section.end)]
        added = not_yet_in(old, lines)
        if not added:
            return
        with Replacement(path, like=old) as new:
            copy(old, new.fd, 0, before[2])
            if os.pread(old, 1, max(0, before[2] - 1)) != b"\n":
                write_all(new.fd, b"\n")
            write_all(new.fd, b"".join(added))
            self._require(found.identity)
            new.install(before)

    def _require(self, identity: Identity) -> None:
        """Raise ChangedError if the journal is not what was read: half of an editor's save must not be archived."""
        if identity_at(self.path) != identity:
            raise ChangedError

    # --- checking ---

    def verify(self, now: datetime) -> list[str]:
        """One sentence for each break of the ledger's chain, and for each entry that the Markdown or its archive shows
        changed, misses, has twice, or shows although the ledger does not have it. Changes nothing.
        """
        findings = self.ledger.verify()
        try:
            with self._locked():
                findings += self._verify_files(now)
        except BotkeepError as error:
            findings += [str(error)] if str(error) not in findings else []
        rest = len(findings) - SENTENCES
        return [*findings[:SENTENCES], f"And {rest} more like these."] if rest > 0 else findings

    def _verify_files(self, now: datetime) -> list[str]:
        findings: list[str] = []
        places: dict[bytes, str] = {}
        for path in [*self._archives().values(), self.path]:
            try:
                with opened(path, os.O_RDONLY) as fd:
                    for shown in shown_in(fd):
                        findings += self._compare(self._name(path), shown, places)
            except FileNotFoundError:
                continue
            except OSError as error:
                findings.append(f"{self._name(path)} cannot be read: {error.strerror}.")
        return [*findings, *self._missing(places, now)]

    def _compare(self, name: str, shown: Sequence[Shown], places: dict[bytes, str]) -> Iterator[str]:
        """What is wrong with a batch of lines. `places` is added to: where each entry was seen first."""
        known = self.ledger.entries_by_id(id_in(key) for one in shown for key in one.keys)
        head = self.ledger.head()[0]
        for one in shown:
            place = f"{name}:{one.number}"
            if not one.keys:
                yield f"{place} looks like an entry but has no mark: botkeep did not write it, or it was changed."
            for key in one.keys:
                entry = known.get(id_in(key))
                yield from _judge(place, one.line, key, entry, head)
                if key in places:
                    yield f"{place} has {id_in(key)} a second time; it is at {places[key]} already."
                places.setdefault(key, place)

    def _missing(self, places: dict[bytes, str], now: datetime) -> Iterator[str]:
        """Entries that were written once and are not there. Those not written yet are no finding."""
        kept = _kept_from(read_json(self._kept_file))
        through = kept.through if kept else self.ledger.head()[0]
        waiting = set(kept.waiting) if kept else set()
        for entry in _Queue(self.ledger, _Kept(), now, after=0):
            if entry.seq <= through and entry.seq not in waiting and key_of(entry) not in places:
                yield (
                    f"{entry.id} is missing from {self._name(self.path)} and its archive. "
                    f"The ledger says: {render(line_of(entry))}"
                )


def _judge(place: str, line: bytes, key: bytes, entry: Entry | None, head: int) -> Iterator[str]:
    name = id_in(key)
    if entry is None or key_of(entry) != key:
        lost = f" (it ends at e{head})" if int(name[1:]) > head else ""
        yield (
            f"{place} shows {name} with a mark that the ledger does not have{lost}: the line was forged, or the ledger "
            f"lost entries or was begun anew."
        )
    elif line not in (render(line_of(entry, restored=restored)).encode() for restored in (False, True)):
        yield f"{place} was changed. The ledger says: {render(line_of(entry))}"


class _Queue:
    """The entries that are to be shown, oldest first, after number `after`; then how far it looked.

    An intent is shown if no outcome was recorded within ten minutes; one that still may get it is in `waiting`.
    """

    def __init__(self, ledger: Ledger, kept: _Kept, now: datetime, *, after: int) -> None:
        self.ledger = ledger
        self.now = now
        self.after = after
        self.through, self.hash = kept.through, kept.hash
        self.waiting: list[Entry] = []
        self._waited = [f"e{seq}" for seq in kept.waiting if seq <= after]

    def __iter__(self) -> Iterator[Entry]:
        if self._waited:
            waited = self.ledger.entries_by_id(self._waited).values()
            yield from self._shown(sorted(waited, key=lambda entry: entry.seq))
        while batch := self.ledger.entries(after_seq=self.after, limit=BATCH):
            yield from self._shown(batch)
            self.after = self.through = batch[-1].seq
            self.hash = batch[-1].hash

    def _shown(self, batch: Sequence[Entry]) -> Iterator[Entry]:
        intents = [entry.id for entry in batch if entry.kind is Kind.INTENT]
        answered = self.ledger.answered_at(intents) if intents else {}
        for entry in batch:
            if entry.kind is not Kind.INTENT or self._overdue(entry, answered.get(entry.id)):
                yield entry

    def _overdue(self, intent: Entry, answered: datetime | None) -> bool:
        overdue = (answered or self.now) - intent.at > OVERDUE
        if answered is None and not overdue:
            self.waiting.append(intent)
        return overdue


class _Present:
    """What the file shows, and the archives in which an entry may be: those of its own month and of later ones."""

    def __init__(self, keys: set[bytes], archives: dict[str, Path]) -> None:
        self._keys = keys
        self._archives = archives
        self.lowest = min((int(id_in(key)[1:]) for key in keys), default=sys.maxsize)

    def __contains__(self, entry: Entry) -> bool:
        key = key_of(entry)
        if key in self._keys:
            return True
        for month in [month for month in self._archives if month >= month_of(entry.at)]:
            with opened(self._archives.pop(month), os.O_RDONLY) as fd:
                self._keys |= scan(fd).keys
        return key in self._keys


class _Pen:
    """Gathers lines and writes them at the end of a file, in pieces small enough to be kept beforehand."""

    def __init__(
        self, path: Path, fd: int, kept: _Kept, now: datetime, *, save: Callable[[_Kept], None], healing: bool
    ) -> None:
        self.kept = kept
        self._path = path
        self._fd = fd
        self._now = now
        self._save = save
        self._healing = healing
        self._text = ""
        self._wrote = False

    def write(self, line: str, at: datetime) -> None:
        """Add one entry's line."""
        if not self._text:
            self._text = self._opening()
        self._text += f"{self._heading(at)}{line}\n"
        if len(self._text) > CHUNK:
            self._flush()

    def finish(self) -> bool:
        """Write what is left, and the title into an empty file. True if anything was written."""
        if self._healing and not self._text and not self._size:
            self._text = self._opening()
        if self._text:
            self._flush()
        return self._wrote

    def _flush(self) -> None:
        """Keep place and text, write, and see that nobody else wrote meanwhile; ChangedError otherwise."""
        if identity_at(self._path) != self.kept.file:
            raise ChangedError
        data, offset = self._text.encode(), self._size
        partial = self._healing or self._wrote  # a kill now must not make the next writer trust the file
        file = None if partial else self.kept.file
        self._save(replace(self.kept, file=file, offset=offset, pending=self._text))
        write_all(self._fd, data)
        written = identity_of(self._fd)
        if written[2] != offset + len(data) or identity_at(self._path) != written:
            raise ChangedError
        self.kept = replace(self.kept, file=written)
        self._text, self._wrote = "", True

    @property
    def _size(self) -> int:
        return self.kept.file[2] if self.kept.file else 0

    def _opening(self) -> str:
        """What has to stand before our first line: the title, or the end of a person's last line."""
        if not self._size:
            return EMPTY
        return "" if os.pread(self._fd, 1, self._size - 1) == b"\n" else "\n"

    def _heading(self, at: datetime) -> str:
        """The heading of a month that begins here. An entry never stands under a month before its own: it is looked
        for after an edit only in the archives from its own month on. A clock a little behind begins no old month.
        """
        time_ = max(at, self._now)
        month, last = month_of(time_), self.kept.last_month
        if last and month <= last <= month_of(time_ + SKEW):
            return ""
        first = min(self.kept.first_month or month, month)
        self.kept = replace(self.kept, first_month=first, last_month=month)
        before = (os.pread(self._fd, 2, max(0, self._size - 2)) + self._text.encode())[-2:]
        return f"## {month}\n\n" if before == b"\n\n" else f"\n## {month}\n\n"
