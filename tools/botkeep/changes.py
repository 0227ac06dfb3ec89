"""What a data file lost or changed against the last snapshot of it, and the words for it."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from glob import escape
from itertools import zip_longest
from pathlib import Path

from .config import Bot
from .formats.base import Format, FormatOptions
from .formats.files import GZIP_LIMIT, began_anew, regular
from .formats.sqlite_open import reading, told
from .formats.sqlite_rows import rows
from .model import BotkeepError, Finding, StoreError
from .stores.base import Store, scratch
from .stores.manifests import Snapshot
from .stores.reading import fetch

NAMED = 5
"""Findings and changed lines that are named."""
LOST = frozenset({"C10", "Q3"})


class ShrunkError(BotkeepError):
    """Rows are gone, or not yet written again by a bot that saves its whole table."""


class ChangedError(BotkeepError):
    """Rows that were backed up are not as they were: a person's edit, or damage."""

    def __init__(self, text: str, path: Path, findings: Sequence[Finding]) -> None:
        super().__init__(text)
        self.findings = tuple(findings[:NAMED])
        seen = path.stat()
        self.inode = f"{seen.st_dev}:{seen.st_ino}"


def differences(
    kind: Format, options: FormatOptions, copy: Path, last: Snapshot, rows: int | None
) -> tuple[Finding, ...]:
    """What of the last snapshot the copy has lost or changed. Raises BotkeepError if it cannot be compared."""
    if last.kind == kind.KIND:
        return kind.compare(copy, last.mark, options=options)
    if rows is not None and last.rows is not None and rows >= last.rows:
        return ()
    return (Finding("C10", f"It was backed up as {last.kind}, with more rows than it has now.", False),)


def refusal(
    bot: Bot, path: Path, copy: Path, last: Snapshot, store: Store, *, rows: int | None, found: Sequence[Finding]
) -> BotkeepError:
    """What differs, and what a person can do about it; a ShrunkError where rows are gone."""
    if any(one.rule in LOST for one in found) and rows is not None and (last.rows or 0) > rows:
        return ShrunkError(_lost(bot, path, last, rows))
    text = _changed(bot, path, last, [*map(_said, found[:NAMED]), _changed_lines(store, last, copy)])
    return ChangedError(text, path, found)


def accepted(found: Sequence[Finding], reason: str) -> str:
    """The note of a file that a person took as it is."""
    return f"taken as it is ({' '.join(one.text for one in found[:NAMED])}): {reason}"


def _said(found: Finding) -> str:
    row = f" (row {found.row})" if found.row else ""
    return f"{found.rule}{row}: {found.text}"


def _lost(bot: Bot, path: Path, last: Snapshot, rows: int) -> str:
    return (
        f"{path} was not backed up: it has {rows} rows, and the backup of {last.at:%Y-%m-%d %H:%M:%SZ} has "
        f"{last.rows}. That backup is unchanged. `botkeep restore {bot.name}` puts the missing rows back. If they were "
        f"taken out on purpose: {_accept(bot)}; or put the old file beside it (as {path.name}.1)."
    )


def _changed(bot: Bot, path: Path, last: Snapshot, said: Sequence[str]) -> str:
    return (
        f"{path} was not backed up: rows that the backup of {last.at:%Y-%m-%d %H:%M:%SZ} has are not in it as "
        f"they were. {' '.join(filter(None, said))} That backup is unchanged. `botkeep restore {bot.name}` puts them "
        f"back. If they were changed on purpose: {_accept(bot)}. If the bot itself edits rows that it wrote, give it "
        f'"data_format": {{"mode": "rewrite"}}.'
    )


def _accept(bot: Bot) -> str:
    return f"botkeep backup {bot.name} --accept REASON"


def _changed_lines(store: Store, last: Snapshot, copy: Path) -> str:
    """Which lines of a text differ from the last snapshot's, for people; empty for what is no text."""
    try:
        with scratch(store) as folder:
            fetch(store, last, folder / "last")
            found = list(_differing(folder / "last", copy))
    except (StoreError, OSError):
        return ""
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"Lines that differ: {', '.join(map(str, found[:NAMED]))}{more}." if found else ""


def _differing(old: Path, new: Path) -> Iterator[int]:
    """Numbers of the old text's lines, from 1, that the new one has otherwise in their place. Nothing for no text."""
    with old.open("rb") as before, new.open("rb") as after:
        if b"\0" in before.read(4096):
            return
        before.seek(0)
        for number, (line, other) in enumerate(zip_longest(before, after), start=1):
            if line is None:
                return
            if line != other:
                yield number


def rotated(path: Path, last: Snapshot) -> Path | None:
    """The file beside it that begins with the content of the last snapshot; compressed ones too.

    None where the file goes on as before: then the other is only a copy, and says nothing of rows that are gone.
    """
    for sibling in sorted(path.parent.glob(f"{escape(path.stem)}*")):
        if sibling == path:
            continue
        try:
            if (
                _unzipped(sibling, last.size) if sibling.suffix == ".gz" else _plain(sibling, last.size)
            ) == last.sha256:
                return sibling if _began_anew(path, sibling, last) else None
        except (OSError, EOFError, zlib.error):
            continue
    return None


def _began_anew(path: Path, beside: Path, last: Snapshot) -> bool:
    return _has_none_of(path, beside, last) if last.kind == "sqlite" else began_anew(path, beside, last.size)


def _has_none_of(path: Path, beside: Path, last: Snapshot) -> bool:
    """Of a database: whether it is empty or new. One that cannot be read is neither."""
    try:
        if not path.exists() or not path.stat().st_size:
            return True
        return _lasting(path, last).isdisjoint(_lasting(beside, last))
    except (BotkeepError, OSError, KeyError, TypeError):
        return False


def _lasting(path: Path, last: Snapshot) -> set[int]:
    """What lasts in the rows of the table that was backed up: their numbers may be given again."""
    name, columns = str(last.mark["table"]), tuple(map(str, last.mark["columns"]))
    with told(path), reading(path) as database:
        if name not in database.tables():
            return set()
        return {hash(cells) for _, cells in rows(database, name, columns)}


def _plain(path: Path, size: int) -> str:
    with regular(path) as source:
        return source.digest(0, size) if source.size >= size else ""


def _unzipped(path: Path, size: int) -> str:
    """sha256 of the first `size` bytes that it holds; empty for fewer, and for more than is unpacked."""
    if size > GZIP_LIMIT:
        return ""
    with regular(path), gzip.open(path) as file:
        data = file.read(size)
    return hashlib.sha256(data).hexdigest() if len(data) == size else ""
