"""Verified snapshots of data files in a store.

    objects/<bot>/<aa>/<sha256>     one piece of at most 1 MiB, named by its content, never changed
    manifests/<bot>/<time>-<n>.json what a snapshot is made of, written last: with it the snapshot is there

A backup writes objects, reads them back, then writes the manifest. Reading goes from manifest to objects; deleting
removes manifests, and later the objects that no manifest names. Killed anywhere, a store has every snapshot whose
manifest it has, and at worst some objects too many. Trade files grow at their end, so a snapshot of a grown file stores
its last pieces anew, one of an unchanged file nothing. Objects are kept per bot: no two bots share a trade.

Only a file that was found sound is stored, and nothing that is stored is ever replaced: a damaged file is refused, and
the last good snapshot stays what it was. So is one that lost or changed rows that the last snapshot has, until a person
says that it is right as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from . import __version__
from .changes import ShrunkError, accepted, differences, refusal, rotated
from .config import Bot
from .formats.base import Format, FormatOptions, SnapshotCut, inspect_whole, more_to_read
from .formats.files import Source, facts_of, regular
from .model import BotkeepError, DataVerdict, Inspection, StoreError, Tempo
from .retention import GRACE, POLICY, Pruned, prune, to_keep
from .stores import FolderStore, LocalStore, S3Store, Store, Stores, open_stores
from .stores.base import StoredObject, locked, scratch
from .stores.local import KEEP_FREE
from .stores.manifests import Snapshot, broken_manifests, commit, newest, object_key, snapshots
from .stores.reading import fetch, holds, is_whole, newest_good, newest_of

__all__ = [
    "CHUNK", "GRACE", "KEEP_FREE", "POLICY", "FolderStore", "LocalStore", "Pruned", "S3Store", "Snapshot", "Store",
    "StoredObject", "Stores", "back_up", "broken_manifests", "fetch", "newest_good", "newest_of", "open_stores",
    "prune", "rotated", "snapshots", "to_keep",
]  # fmt: skip

CHUNK = 1 << 20
LEAST = 64 << 10
"""Bytes of the smallest piece that stays as it is while the file grows."""
TRIES = 8
FIGURED = 32 << 20
"""Bytes of the largest file whose profit and loss is noted: about four seconds."""


@dataclass(frozen=True)
class _How:
    """With what a file is read."""

    format: Format
    options: FormatOptions
    now: datetime
    accept: str = ""
    figures: bool = False

    @property
    def print(self) -> str:
        """Changes with the options and with botkeep: what one version found sound another has to look at again."""
        return hashlib.sha256(repr((__version__, self.format.KIND, self.options)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Last:
    """The snapshot before this one, and where it is."""

    store: Store
    snapshot: Snapshot


@dataclass(frozen=True)
class _Taken:
    """A sound copy, and what is to be noted of it."""

    cut: SnapshotCut
    seen: Inspection
    notes: tuple[str, ...] = ()
    figures: Mapping[str, Any] | None = None
    chunks: tuple[tuple[str, int], ...] = ()


def back_up(
    bot: Bot,
    store: Store,
    *,
    format: Format,  # noqa: A002
    options: FormatOptions,
    now: datetime,
    head: tuple[int, str],
    accept: str = "",
    figures: bool = False,
) -> Snapshot:
    """Take, verify and store a snapshot of the bot's data file. `head`: (seq, hash) of the newest ledger entry.

    `accept`: a person's reason to take the file as it is although rows of the last snapshot are changed or gone; it is
    noted in the manifest. `figures`: note its profit and loss, for `proving` (always done at the first snapshot; kept
    while the file does not change).

    Raises BotkeepError if the file is missing, empty, damaged, or has lost or changed rows that the last good snapshot
    has, and StoreError if the store cannot take it. Whatever is raised, every snapshot that was good before still is.
    """
    path = _data_file(bot)
    store.require_room(_size_of(path, format.companions(path)))
    how = _How(format, options, now, accept.strip(), figures)
    with locked(store, bot.name):
        before, seq = newest(store, bot.name)
        last = _Last(store, before) if before else None
        unchanged = _unchanged(path, last, how) if last else None
        taken = unchanged or _copied(bot, path, store, last, how)
        cut, seen = taken.cut, taken.seen
        made = commit(
            store,
            Snapshot(
                id=f"{now:%Y%m%dT%H%M%S.%fZ}-{seq}",
                bot=bot.name,
                at=now,
                seq=seq,
                kind=format.KIND,
                size=cut.size,
                sha256=cut.sha256,
                rows=seen.rows,
                first_at=cut.first_at,
                last_at=seen.tempo.newest,
                chunks=taken.chunks,
                source=cut.source,
                journal=head,
                notes=taken.notes,
                mark=cut.mark or {"size": cut.size, "sha256": cut.sha256, "rows": seen.rows},
                accepted=how.accept,
                figures=taken.figures,
                checked=how.print,
                path=os.path.realpath(path),
            ),
        )
        if not unchanged:
            _remember(store, made, seen)
        return made


def _copied(bot: Bot, path: Path, store: Store, last: _Last | None, how: _How) -> _Taken:
    """A sound copy, and its pieces in the store."""
    with scratch(store) as folder:
        taken = _take(bot, path, folder / "copy", last, how)
        return replace(taken, chunks=tuple(_store_pieces(store, bot.name, folder / "copy", taken.cut.size)))


def _take(bot: Bot, path: Path, copy: Path, last: _Last | None, how: _How) -> _Taken:
    """A sound copy with what has to be noted about it. A table caught half written is waited for."""
    for tried in range(1, TRIES + 1):
        cut = how.format.snapshot(path, copy, options=how.options)
        try:
            return _examine(bot, path, copy, cut, last, how)
        except ShrunkError:
            if tried == TRIES:
                raise
            time.sleep(0.05)
    raise AssertionError("unreachable")


def _examine(bot: Bot, path: Path, copy: Path, cut: SnapshotCut, last: _Last | None, how: _How) -> _Taken:
    known = last if last is not None and last.snapshot.checked == how.print else None
    if known is not None and cut.size and known.snapshot.sha256 == cut.sha256:
        seen = replace(_as_before(known, cut), cursor=_cursor(known) or {})
        return _Taken(cut, seen, figures=known.snapshot.figures or _figures(bot, copy, how))
    begins = known is not None and _begins_with(copy, known.snapshot)
    more = _inspect_more(known, copy, how) if known is not None and begins else None
    seen = more or inspect_whole(how.format, copy, options=how.options, now=how.now)
    _refuse_damaged(bot, path, cut, seen)
    notes = () if last is None or begins else _compare(bot, path, copy, last, seen, how)
    return _Taken(cut, seen, notes, _figures(bot, copy, how, wanted=last is None))


def _data_file(bot: Bot) -> Path:
    if bot.data_file is None:
        raise BotkeepError(f"{bot.name} has no data_file in bots.json: there is nothing to back up.")
    return bot.data_file


def _size_of(path: Path, companions: Sequence[Path]) -> int:
    """Of the file with all that belongs to it."""
    total = 0
    for one in (path, *companions):
        try:
            total += one.stat().st_size
        except OSError:
            continue  # what is wrong with it is said when it is copied
    return total


def _refuse_damaged(bot: Bot, path: Path, cut: SnapshotCut, seen: Inspection) -> None:
    if seen.verdict is DataVerdict.OK and cut.size:
        return
    if not cut.size and not cut.source["size"]:
        raise ShrunkError(f"{path} is empty: there is nothing of {bot.name} to back up yet.")
    found = seen.findings[0] if seen.findings else None
    where = f" (row {found.row})" if found and found.row else ""
    what = f"{found.rule}{where}: {found.text}" if found else seen.verdict.value
    raise BotkeepError(
        f"{path} was not backed up, since it is not sound. {what} The last good backup is unchanged. "
        f"`botkeep restore {bot.name}` shows what can be done."
    )


# --- what the last snapshot makes known --------------------------------------------------------------------------


def _unchanged(path: Path, last: _Last, how: _How) -> _Taken | None:
    """The last snapshot once more, read back, if the file holds the same bytes; None: it has to be copied.

    Only where the format knows a file by all of its bytes: what lies beside a database belongs to it as well.
    """
    before = last.snapshot
    if before.checked != how.print or not before.size or before.mark.get("sha256") != before.sha256:
        return None
    if how.figures and before.figures is None:
        return None
    try:
        with regular(path) as source:
            same = _is_same(source, before)
            facts = facts_of(source.stat)
    except OSError:
        return None  # what is wrong with it is said when it is copied
    if not same or not is_whole(last.store, before):
        return None
    cut = SnapshotCut(before.size, before.sha256, facts, before.first_at, before.mark)
    return _Taken(cut, _as_before(last, cut), figures=before.figures, chunks=before.chunks)


def _is_same(source: Source, before: Snapshot) -> bool:
    """As many bytes, with the same content; behind a row that is being written, the very same state of the file."""
    if source.size != before.source["size"]:
        return False
    facts = facts_of(source.stat)
    if source.size > before.size and any(facts[name] != before.source[name] for name in ("dev", "ino", "mtime_ns")):
        return False
    return source.digest(0, before.size) == before.sha256


def _begins_with(copy: Path, last: Snapshot) -> bool:
    with regular(copy) as source:
        return source.size >= last.size > 0 and source.digest(0, last.size) == last.sha256


def _as_before(last: _Last, cut: SnapshotCut) -> Inspection:
    """The same bytes as in the last snapshot: it was found sound then."""
    before = last.snapshot
    return Inspection(DataVerdict.OK, rows=before.rows, size=cut.size, tempo=Tempo(before.last_at))


def _inspect_more(last: _Last, copy: Path, how: _How) -> Inspection | None:
    """Only what came after the last snapshot, whose bytes the copy begins with. None: it has to be read whole."""
    cursor = _cursor(last)
    if not cursor:
        return None
    seen = how.format.inspect(copy, options=how.options, cursor=cursor, writing=False, now=how.now)
    sound = seen.verdict is DataVerdict.OK and not seen.findings and not more_to_read(seen)
    return seen if sound and seen.rows is not None and seen.rows >= (last.snapshot.rows or 0) else None


def _cursor(last: _Last) -> dict[str, Any] | None:
    """What the inspection of the last snapshot knew; None if that was lost, which costs nothing but time."""
    try:
        name, _, text = last.store.cache(last.snapshot.bot).read_text().partition("\n")
        cursor = json.loads(text) if name == _name_of(last.snapshot, text) else None
    except (OSError, ValueError, StoreError):
        return None
    return cursor if isinstance(cursor, dict) else None


def _remember(store: Store, made: Snapshot, seen: Inspection) -> None:
    text = json.dumps(seen.cursor)
    try:
        store.cache(made.bot).write_text(f"{_name_of(made, text)}\n{text}")
    except (OSError, StoreError):
        return  # the next backup reads the whole file


def _name_of(snapshot: Snapshot, text: str) -> str:
    """Of which content this is the cursor, and that it is whole: it is written without care."""
    return hashlib.sha256(f"{snapshot.kind} {snapshot.sha256} {snapshot.checked} {text}".encode()).hexdigest()


def _figures(bot: Bot, copy: Path, how: _How, *, wanted: bool = False) -> Mapping[str, Any] | None:
    """Profit and loss as `proving` compares it. None where nobody asked, or it cannot be counted."""
    if not (wanted or how.figures) or copy.stat().st_size > FIGURED:
        return None
    from .proving import count

    try:
        return count(bot, how.format, copy, how.options)
    except BotkeepError:
        return None  # a file whose columns nobody knows is backed up all the same


def _compare(bot: Bot, path: Path, copy: Path, last: _Last, seen: Inspection, how: _How) -> tuple[str, ...]:
    """What has to be noted against the last snapshot. Raises BotkeepError if rows of it are changed or gone."""
    found = differences(how.format, how.options, copy, last.snapshot, seen.rows)
    if not found:
        return ()
    if how.accept:
        return (accepted(found, how.accept),)
    if beside := rotated(path, last.snapshot):
        return (f"the file began anew; what it held before is in {beside.name}",)
    raise refusal(bot, path, copy, last.snapshot, last.store, rows=seen.rows, found=found)


# --- storing -----------------------------------------------------------------------------------------------------


def pieces(size: int) -> Iterator[tuple[int, int]]:
    """(start, length) of what a file of that size is cut into: mebibytes, then halves of one, and a rest. Pure.

    A rest of 200 kB is cut into 128 KiB, 64 KiB and what is over. So while a file grows by little, less than 64 KiB of
    what was stored is stored again, and now and then two pieces as one that is twice as large.
    """
    start, length = 0, CHUNK
    while length >= LEAST:
        if size - start >= length:
            yield start, length
            start += length
        else:
            length //= 2
    if start < size:
        yield start, size - start


def _store_pieces(store: Store, bot: str, copy: Path, size: int) -> Iterator[tuple[str, int]]:
    """Store what is not there yet and read everything back. An object that went bad on the disk is written again."""
    with regular(copy) as source:
        for start, length in pieces(size):
            yield _store_piece(store, bot, source, start, length)


def _store_piece(store: Store, bot: str, source: Source, start: int, length: int) -> tuple[str, int]:
    data = source.read(start, length)
    sha = hashlib.sha256(data).hexdigest()
    key = object_key(bot, sha)
    if not holds(store, key, sha):
        store.put(key, data)
        if not holds(store, key, sha):
            raise StoreError(f"The {store.name} backup store gave back other bytes than it was given ({key}).")
    return sha, len(data)
