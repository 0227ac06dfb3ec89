"""The trades of JSON records, of lines and of whole documents alike."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..model import BotkeepError
from .base import FormatOptions, TradeTable
from .columns import Trades
from .files import Source, UnreadableError, regular
from .jsonlayout import Layout, refuse_unclear, tells_none
from .jsontext import Record, text_at
from .records import Scan, StrangeError, evidence

_MOST_WORDS = 100


class _Reader(Protocol):
    @property
    def layout(self) -> Layout: ...
    @property
    def body(self) -> int: ...
    def scan(self, source: Source, start: int, stop: int) -> Scan: ...
    def cells(self, raw: bytes) -> list[str]: ...
    def parse(self, raw: bytes) -> Record: ...


class _Kind(Protocol):
    def learn(self, source: Source, options: FormatOptions) -> _Reader | None: ...


def trades(kind: _Kind, path: Path, options: FormatOptions) -> TradeTable:
    """A format's `trades`. Raises BotkeepError."""
    try:
        with regular(path) as source:
            reader = kind.learn(source, options)
            if reader is None:
                return TradeTable("fills", notes=("the file has no records yet",))
            return _read(reader, source, path, options)
    except FileNotFoundError as error:
        raise BotkeepError(f"There is no data file {path}: no trades can be read.") from error
    except UnreadableError as error:
        raise BotkeepError(f"{path} cannot be read: {error}.") from error
    except StrangeError as error:
        raise BotkeepError(f"{path.name} holds no trades: {error}") from error


def _read(reader: _Reader, source: Source, path: Path, options: FormatOptions) -> TradeTable:
    layout = reader.layout
    if not layout.sample and not layout.names:
        return TradeTable("fills", notes=("the file has no records yet",))
    refuse_unclear(layout, options, path.name)
    found = Trades(layout.names, layout.roles, options, path.name, False)
    result = layout.roles.get("pnl") if layout.events else None
    openings, others = 0, _Others(reader)
    scan = reader.scan(source, reader.body, source.size)
    for row, (_, raw, at, flaw) in enumerate(scan, start=1):
        if flaw is not None and not flaw.sound:
            found.skip(row, flaw.text.rstrip("."))
            continue
        if others.has(raw):
            continue
        cells = reader.cells(raw)
        if result is not None and not cells[result]:
            openings += 1
        else:
            found.add(row, cells, at)
    if openings:
        found.note(f"{openings} records are openings without a result and are not counted")
    if others.count:
        found.note(others.said)
    if scan.tail:
        found.note("what stands behind its last whole record is not counted")
    return found.table()


class _Others:
    """Records that are events of another kind than executions: orders, signals."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader
        self._name = "" if reader.layout.events else reader.layout.kind
        self._words: dict[str, bool] = {}
        self.count = 0

    def has(self, raw: bytes) -> bool:
        """Whether this record is one; it is counted then."""
        word = text_at(self._reader.parse(raw).members, self._name) if self._name else None
        if not word:
            return False
        if len(self._words) > _MOST_WORDS:
            self._words.clear()
        found = self._words.setdefault(word, tells_none(word))
        self.count += found
        return found

    @property
    def said(self) -> str:
        """A note."""
        words = [evidence(word.encode("utf-8", "replace"), 40) for word, found in self._words.items() if found][:5]
        return f"{self.count} records are no executions but {', '.join(words)} and are not counted"
