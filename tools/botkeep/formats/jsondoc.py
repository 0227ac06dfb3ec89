"""A whole JSON document as records: the objects of the array, or of the object, that holds the trades.

What was verified is everything up to the end of the last record. A program that writes its file anew writes that
again, so that only what it added has to be read, as with lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import columns, jsonlayout
from .base import FormatOptions
from .files import CAP, CHUNK, Source
from .jsonfinding import Container, containers
from .jsonlayout import Layout, Records
from .jsonlines import is_an_error, refuse_strange
from .jsontext import BOM, KEYED, OBJECT, NotSoundError, parse, text_at
from .records import HEAD, Flaw, Row, StrangeError, evidence

MOST_TRIES = 20_000
"""Places in damage where a record might begin and does not; then what is left is not searched any more."""
_MARK = re.compile(rb"\s*(,?)\s*")
_SEAM = re.compile(rb",\s*(?=\{)")
_SEAM_KEYED = re.compile(rb',\s*(?="[^"]{0,200}"\s*:\s*\{)')
_TELLING = ("trade", "fill", "history", "closed", "position")
_OTHER = ("open", "order", "pending")


class Document(Records):
    """Reads the records of one document."""

    def scan(self, source: Source, start: int, stop: int) -> DocumentScan:
        """The records of [start, stop); `start` is the body, or where a record ended."""
        return DocumentScan(source, self, start, stop)

    @property
    def closers(self) -> bytes:
        """The brackets that must follow the last record."""
        return (b"}" if self.layout.keyed else b"]") + b"}" * len(self.layout.path)

    def plausible(self, raw: bytes) -> bool:
        """Whether an object found within damage is a record, and no object within one."""
        try:
            members = self.parse(raw).members
        except NotSoundError:
            return False
        names = {self.layout.names[place] for place in self.layout.roles.values()}
        return 2 * sum(text_at(members, name) is not None for name in names) >= len(names)


class Kind:
    """Whole documents, as a kind of record files. `split`: for rebuilding and adding up, see `Records`."""

    def __init__(self, *, split: bool = False) -> None:
        self._split = split

    def learn(self, source: Source, options: FormatOptions) -> Document | None:
        """A reader for the document. None: it has only begun. Raises StrangeError."""
        layout = _learned(source, options)
        return Document(layout, columns.zone_of(options.timezone), self._split) if layout else None

    def again(self, layout: Mapping[str, Any], options: FormatOptions) -> Document:
        """The reader whose `as_json` this is. Raises KeyError, TypeError or ValueError where it is none of ours."""
        return Document(Layout.from_json(layout), columns.zone_of(options.timezone), self._split)


# --- learning ----------------------------------------------------------------------------------------------------


def _learned(source: Source, options: FormatOptions) -> Layout | None:
    head = source.read(0, HEAD)
    start = len(BOM) if head.startswith(BOM) else 0
    text = head[start:].lstrip()
    if not text:
        return None
    refuse_strange(text, "a JSON document", start)
    _refuse_lines(text)
    found = containers(source)
    if options.table:
        found = _named(found, options.table)
    layouts = [_layout_of(source, one, options) for one in found]
    if not layouts or not (layouts[0].sample or layouts[0].path):
        _refuse_others(text, begun=len(head) < HEAD)
    return max(layouts, key=_rank) if layouts else None


def _refuse_lines(text: bytes) -> None:
    first, more, rest = text.partition(b"\n")
    if more and rest.lstrip()[:1] == b"{" and OBJECT.fullmatch(first.strip()):
        raise StrangeError("kind", 'It is JSON lines, and not one document: "data_format": {"kind": "jsonl"}.')


def _refuse_others(text: bytes, *, begun: bool) -> None:
    """A whole document without a list of records: perhaps an error message."""
    whole = OBJECT.match(text) if begun else None
    if whole is None:
        return
    try:
        members = parse(whole[0]).members
    except NotSoundError:
        return
    if members and is_an_error(members):
        raise StrangeError("C11", f"It holds an error message instead of trades: {evidence(text)}.")
    if members:
        raise StrangeError("kind", f"It is a JSON object without a list of records: {evidence(text)}.")


def _named(found: Sequence[Container], table: str) -> list[Container]:
    named = [one for one in found if table in (".".join(one.path), *one.path[-1:])]
    if found and not named:
        has = ", ".join(sorted({".".join(one.path) for one in found if one.path})[:20])
        raise StrangeError("kind", f"data_format.table names {table!r}, and it has no such member with records: {has}.")
    return named


def _layout_of(source: Source, one: Container, options: FormatOptions) -> Layout:
    """What can be learned from the first 64 KiB behind its bracket."""
    blank = replace(jsonlayout.learned((), options), body=one.body, keyed=one.keyed, path=one.path)
    reader = Document(blank, columns.zone_of(options.timezone))
    found = []
    for _, raw, _, flaw in reader.scan(source, one.body, min(source.size, one.body + HEAD)):
        if flaw is None or flaw.sound:
            found.append(reader.parse(raw).members)
        if len(found) == jsonlayout.SAMPLE:
            break
    return replace(jsonlayout.learned(found, options), body=one.body, keyed=one.keyed, path=one.path)


def _rank(layout: Layout) -> tuple[bool, bool, bool, bool, int]:
    """Trades before other lists; among them the one whose name says trades, and not orders."""
    name = columns.plain_name(layout.path[-1]) if layout.path else ""
    other = any(word in name for word in _OTHER)
    return bool(layout.numbers), bool(layout.path), not other, any(word in name for word in _TELLING), layout.sample


# --- all records -------------------------------------------------------------------------------------------------


class _Window:
    """The bytes around a place of a long file."""

    def __init__(self, source: Source, start: int, stop: int) -> None:
        self._source, self._stop = source, stop
        self.data, self.base = b"", start
        self.cut_short = False

    @property
    def last(self) -> bool:
        """Whether nothing follows what is in `data`."""
        return self.cut_short or self.base + len(self.data) >= self._stop

    def at(self, place: int) -> int:
        """The index in `data` of that offset; two records and more follow it there, unless it is the `last`."""
        index = place - self.base
        if not self.last and len(self.data) - index < 2 * HEAD:
            self.data, self.base = self.data[index:], place
            after = place + len(self.data)
            more = self._source.read(after, min(CHUNK, self._stop - after))
            self.cut_short = not more
            self.data += more
            return 0 if self.last or len(self.data) >= 2 * HEAD else self.at(place)
        return index


class DocumentScan:
    """The records of [start, stop), in order. Afterwards `end` is where the last whole one ends.

    1. A comma, or the bracket before the first, and then an object whose brackets match: a record.
    2. Otherwise it is damage up to the next comma with an object behind it that looks like a record.
    3. The closing bracket, and what has to follow it: then nothing is left. Without it, what is left is the tail.
    """

    def __init__(self, source: Source, reader: Document, start: int, stop: int) -> None:
        self._source, self._reader, self._stop = source, reader, stop
        self._object = KEYED if reader.layout.keyed else OBJECT
        self._seam = _SEAM_KEYED if reader.layout.keyed else _SEAM
        self._window = _Window(source, start, stop)
        self._sampled = start != reader.body and source.size - reader.body > CAP
        """A look at the end of a file too large to read begins anywhere."""
        self._first = start == reader.body
        self._tries = 0
        self.closed = False
        self.end = start
        self.tail = b""
        """The first bytes of what is incomplete, at most 64 KiB."""
        self.hole: int | None = None
        """Offset of the first NUL byte in what is incomplete."""
        self.cut_short = False
        """The file ended before `stop`: somebody shortened it meanwhile."""

    def __iter__(self) -> Iterator[Row]:
        if self._sampled:
            self.end = self._next(self.end) or self._stop
        going = self.end < self._stop
        while going:
            going = yield from self._one()
        self.cut_short = self._window.cut_short

    def _one(self) -> Generator[Row, None, bool]:
        """The next record; False: there is none."""
        index = self._window.at(self.end)
        data, base = self._window.data, self._window.base
        mark = _MARK.match(data, index)
        place = mark.end() if mark else index
        comma = bool(mark and mark[1])
        if place >= len(data):
            self._unclosed(self.end)
            return False
        found = self._object.match(data, place)
        flaw, at = self._reader.flaw(found[0]) if found else (None, None)
        if found and not (flaw and flaw.rule in ("J1", "C2")):
            flaw = flaw or self._unmarked(comma, found[0])
            self.end, self._first = base + found.end(), False
            yield base + place, found[0], at, flaw
            return True
        if not comma and data[place : place + 1] == self._reader.closers[:1]:
            self._close(base + place)
            return False
        return (yield from self._damaged(base + place, flaw))

    def _unmarked(self, comma: bool, raw: bytes) -> Flaw | None:
        if comma != self._first or self._reader.split:
            return None
        return Flaw("J1", f"No comma stands between it and the record before: {evidence(raw)}.")

    # --- damage ---

    def _damaged(self, start: int, flaw: Flaw | None) -> Generator[Row, None, bool]:
        """What is no record, up to the next one. Without a next one it may only be incomplete: half a record can end
        with a bracket, just as the document does.
        """
        stop = self._next(start + 1)
        if stop is None:
            self._unclosed(start)
            return False
        raw = self._source.read(start, min(stop - start, HEAD))
        if b"\0" in raw:
            flaw = Flaw("C2", f"It holds {raw.count(0)} NUL bytes: {evidence(raw)}.")
        self.end, self._first = stop, False
        yield start, raw, None, flaw or Flaw("J1", f"It is no whole JSON object: {evidence(raw)}.")
        return True

    def _next(self, place: int) -> int | None:
        """Where the comma before the next plausible record stands."""
        while True:
            index = self._window.at(place)
            data = self._window.data
            for seam in self._seam.finditer(data, index):
                found = self._object.match(data, seam.end())
                if found and self._reader.plausible(found[0]):
                    return self._window.base + seam.start()
                self._tries += 1
                if self._tries > MOST_TRIES:
                    return None
            if self._window.last:
                return None
            place = self._window.base + len(data) - HEAD

    # --- the end ---

    def _unclosed(self, start: int) -> None:
        self.tail = self._source.read(start, min(HEAD, self._stop - start))
        if not self.tail.strip(b" \t\r\n,") and self._stop == self._source.size:
            # Nothing is left, and yet it is not whole: what it ends with has to say so.
            self.tail = self._source.read(max(0, self.end - 40), 40) + self.tail
        self._find_hole(start)

    def _find_hole(self, start: int) -> None:
        place = self.tail.find(b"\0")
        self.hole = start + place if place >= 0 else None

    def _close(self, place: int) -> None:
        """The closing bracket at `place`, and what stands behind it."""
        self.closed = _ends_well(self._source, place + 1, len(self._reader.layout.path))
        if self.closed and self._source.size - place > CHUNK:
            self.end = self._source.size  # what follows is not read again and again
        if not self.closed:
            self.tail = self._source.read(place, HEAD)
            self._find_hole(place)


def _ends_well(source: Source, start: int, depth: int) -> bool:
    """Whether what follows closes as many objects as the records stand in, perhaps after other members of them.

    Members of more than a mebibyte are not looked into.
    """
    if not depth:
        return not any(data.strip() for data in source.chunks(start, source.size))
    behind = source.read(start, CHUNK)
    if source.size - start > CHUNK:
        return b"\0" not in behind and source.read(source.size - HEAD, HEAD).rstrip().endswith(b"}")
    try:
        json.loads(b'{"":' * depth + b"0" + behind, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True
