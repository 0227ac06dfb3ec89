"""A bot's data file with the format that reads it: what a restore and a reconciliation ask of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Any

from .config import Bot
from .formats import FORMATS, kind_of
from .formats.base import Format, FormatOptions, Rebuilt, TradeTable, inspect_whole, more_to_read
from .formats.files import CAP, UnreadableError, regular
from .model import BotkeepError, DataVerdict, Inspection
from .openfiles import open_writers
from .plans import Money

BESIDE = 64 << 20
"""Bytes of a rotated file that is read for its trades."""


def kind_name(bot: Bot) -> str:
    """The format of the bot's data file."""
    return kind_of(bot.data_file, bot.data_format.kind if bot.data_format else "")


def begins_as_restored(path: Path, known: Mapping[str, Any]) -> bool:
    """Whether the file begins with just the bytes that a restore of ours left, {sha256, size}."""
    try:
        with regular(path) as source:
            return source.size >= known["size"] and source.digest(0, known["size"]) == str(known["sha256"])
    except (OSError, KeyError):
        return False


@dataclass(frozen=True)
class DataFile:
    """One bot's data file."""

    bot: Bot
    path: Path
    """Of the file itself, never of a link to it: a link is kept, its target replaced."""
    kind: Format
    options: FormatOptions
    source: Path
    """Where its content is read from: the path, or a copy of a deleted file that a process still held."""

    @classmethod
    def of(cls, bot: Bot) -> DataFile:
        """Raises BotkeepError if the bot has no data file."""
        if bot.data_file is None:
            raise BotkeepError(f"{bot.name} has no data_file in bots.json: there is nothing to restore.")
        kind = FORMATS[kind_name(bot)]
        path = Path(os.path.realpath(bot.data_file))
        return cls(bot, path, kind, bot.format_options(), path)

    def read_from(self, source: Path) -> DataFile:
        """The same, its content read from elsewhere."""
        return replace(self, source=source)

    def evidence(self) -> dict[str, Any]:
        """The file as it is. Raises BotkeepError for what no restore mends, and for a file with a second name."""
        try:
            with regular(self.path) as source:
                self._refuse_hopeless(source.stat)
        except FileNotFoundError:
            return {}
        except UnreadableError as error:
            raise BotkeepError(f"{self.path} cannot be restored: {error}. Mend that first.") from error
        return self.kind.evidence(self.path)

    def _refuse_hopeless(self, seen: os.stat_result) -> None:
        if seen.st_nlink > 1:
            raise BotkeepError(
                f"{self.path} has {seen.st_nlink} names (hard links): replacing one would leave the others "
                f"with the damage. Leave only one, then ask again."
            )
        if seen.st_size > CAP:
            raise BotkeepError(
                f"{self.path} has {seen.st_size / 1e9:.1f} GB, more than a restore can check within a call. "
                f"Stop the bot, move the file aside, and ask again: the backup is put in its place."
            )

    def stands(self, evidence: Any) -> bool:
        """Whether it still is the file of that evidence; a missing one for no evidence."""
        if not evidence:
            return not self.path.exists()
        return self.kind.stands(self.path, evidence)

    def files(self) -> tuple[Path, ...]:
        """The file and its companions, as far as they exist."""
        return (*([self.path] if self.path.exists() else []), *self.kind.companions(self.path))

    def writers(self) -> tuple[int, ...]:
        """Processes that have one of them open for writing."""
        return tuple(sorted({pid for path in self.files() for pid in open_writers(path)}))

    def look(self, now: datetime) -> Inspection:
        """A whole inspection."""
        writing = bool(self.writers())
        seen = self.kind.inspect(self.path, options=self.options, cursor=None, writing=writing, now=now)
        while more_to_read(seen):
            seen = self.kind.inspect(self.path, options=self.options, cursor=seen.cursor, writing=writing, now=now)
        return seen

    def rebuild(self, good: Path | None, target: Path) -> Rebuilt:
        """The new file, from a good copy and what is sound here."""
        return self.kind.rebuild(good, self.source, target, options=self.options)

    def copy(self, target: Path, now: datetime) -> Rebuilt:
        """The file as it is, for one that is sound and only lacks trades. Raises BotkeepError if it is not."""
        cut = self.kind.snapshot(self.path, target, options=self.options)
        seen = inspect_whole(self.kind, target, options=self.options, now=now)
        if seen.verdict is not DataVerdict.OK:
            raise BotkeepError(f"{self.path} changed while it was read. Ask again.")
        rows = seen.rows or 0
        return Rebuilt(
            rows=rows, kept=rows, salvaged=0, replaced=0, dropped=0, dropped_sound=0, dropped_rows=(),
            damaged_good=rows, size=cut.size, sha256=cut.sha256,
        )  # fmt: skip

    def table(self, path: Path | None = None) -> TradeTable | None:
        """Its trades, or those of a copy; None if it is no table of trades."""
        try:
            return self.kind.trades(path or self.source, options=self.options)
        except BotkeepError:
            return None

    def known_trades(self, table: TradeTable) -> TradeTable:
        """The same with the trades of the newest file beside it that may be this one before a rotation.

        What is there is not lost, and must not come back into the new file.
        """
        beside = [one for one in self.path.parent.glob(f"{escape(self.path.stem)}*") if one != self.path]
        plain = [one for one in beside if one.is_file() and one.suffix != ".gz" and one.stat().st_size <= BESIDE]
        for one in sorted(plain, key=lambda path: path.stat().st_mtime_ns, reverse=True)[:1]:
            old = self.table(one)
            if old is not None and old.kind == table.kind:
                return replace(table, fills=(*old.fills, *table.fills), closed=(*old.closed, *table.closed))
        return table

    def money(self, table: TradeTable | None) -> Money | None:
        """Realised over all its trades."""
        if table is None:
            return None
        from .pnl import figures, rounded  # a health check counts no money

        found = figures(self.bot.name, table, currency=self.bot.currency)
        return tuple((one.currency, rounded(one.realised)) for one in found.currencies)
