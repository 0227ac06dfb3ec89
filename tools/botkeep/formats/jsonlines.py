"""JSON lines as records: one object a line, in any order of members."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from . import columns, jsonlayout
from .base import FormatOptions
from .files import CHUNK, Source
from .jsonlayout import Layout, Records
from .jsontext import BOM, KEY, STRING, NotSoundError, parse, pieces
from .records import HEAD, Flaw, Row, StrangeError, evidence

_PACKED = (b"SQLite format 3\0", b"PAR1", b"\x1f\x8b", b"PK\x03\x04", b"ARROW1")
_LIST = re.compile(rb"\[\s*\{|\{\s*" + STRING + rb"\s*:\s*\{")
_EMPTY = re.compile(rb"(?:\{\s*\}|\[\s*\])\s*,")
_ERRORS = frozenset({"error", "errors", "code", "msg", "message", "retcode", "retmsg", "detail"})


class Lines(Records):
    """Reads one object a line."""

    def scan(self, source: Source, start: int, stop: int) -> LineScan:
        """The records of [start, stop); `start` is where one begins."""
        return LineScan(source, self, start, stop)


class Kind:
    """JSON lines, as a kind of record files. `split`: for rebuilding and adding up, see `Records`."""

    def __init__(self, *, split: bool = False) -> None:
        self._split = split

    def learn(self, source: Source, options: FormatOptions) -> Lines | None:
        """A reader for the file, from its first 64 KiB. None: not one whole line yet. Raises StrangeError."""
        layout = learned(source.read(0, HEAD), options)
        return Lines(layout, columns.zone_of(options.timezone), self._split) if layout else None

    def again(self, layout: Mapping[str, Any], options: FormatOptions) -> Lines:
        """The reader whose `as_json` this is. Raises KeyError, TypeError or ValueError where it is none of ours."""
        return Lines(Layout.from_json(layout), columns.zone_of(options.timezone), self._split)


# --- learning ----------------------------------------------------------------------------------------------------


def learned(head: bytes, options: FormatOptions) -> Layout | None:
    """The layout of JSON lines that begin with `head`. None: not one whole line yet. Raises StrangeError."""
    start = len(BOM) if head.startswith(BOM) else 0
    text = head[start:].lstrip()
    if text[:1] == b"[" or is_document(text):
        raise StrangeError("kind", 'It is one JSON document, not an object a line: "data_format": {"kind": "json"}.')
    lines = [line for line in head[start:].split(b"\n")[:-1] if line.strip()]
    found = [members for line in lines[: jsonlayout.SAMPLE] for members in _objects(line)]
    if not found:
        refuse_strange(text, "a JSON object a line", start)
    if not lines:
        if len(head) == HEAD:
            raise StrangeError("C4", f"Its first line is longer than {HEAD} bytes.")
        return None
    layout = jsonlayout.learned(found, options)
    if len(lines) == 1 and found and not layout.numbers and is_an_error(found[0]):
        raise StrangeError("C11", f"It holds an error message instead of trades: {evidence(lines[0])}.")
    return replace(layout, body=start)


def _objects(line: bytes) -> Iterator[dict[str, Any]]:
    for piece in pieces(line):
        try:
            yield parse(piece).members
        except NotSoundError:
            continue


def refuse_strange(text: bytes, wanted: str, offset: int) -> None:
    """Raise StrangeError for what cannot be JSON at all. `text` begins with what is no blank."""
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise StrangeError("C6", "It is UTF-16 text; the bot has to write UTF-8.")
    if text.startswith(_PACKED):
        raise StrangeError("kind", "It is no text but a database or a packed file: data_format.kind has to say which.")
    if text[:1] == b"\0":
        raise StrangeError("C2", "NUL bytes stand where its first record should be.", offset)
    if text[:1] == b"<":
        raise StrangeError("C11", f"It holds a web page instead of trades: {evidence(text)}.")
    if text and text[:1] not in b"{[":
        shown = evidence(text.split(b"\n", 1)[0])
        raise StrangeError("kind", f'It is not {wanted}; "data_format": {{"kind": "csv"}} if it is a table: {shown}.')


def is_document(text: bytes) -> bool:
    """Whether text that begins with `{` is an object over several lines, or one that holds the records."""
    first = text.split(b"\n", 1)[0].rstrip()
    if first.endswith((b"{", b"[", b",")):
        return True
    at = 1
    while key := KEY.match(first, at):
        value = first[key.end() : key.end() + HEAD]
        if value[:1] in (b"{", b"[") and _LIST.match(value):
            return True
        empty = _EMPTY.match(value)
        if empty is None:
            return False
        at = key.end() + empty.end()
    return False


def is_an_error(members: Mapping[str, Any]) -> bool:
    """Whether an object is what an exchange or a proxy answers in place of data."""
    return len(members) <= 6 and any(name.lower() in _ERRORS for name in members)


# --- all records -------------------------------------------------------------------------------------------------


class LineScan:
    """The records of [start, stop), in order. Afterwards `end` is where the first incomplete one begins.

    A line with two whole records is one damaged record (J1): whoever reads line by line stumbles over it. A splitting
    reader gives both, if both are sound. What follows the last line end is no record: it may be half of one.
    """

    def __init__(self, source: Source, reader: Records, start: int, stop: int) -> None:
        self._source, self._reader, self._stop = source, reader, stop
        self._read_to = start
        self._long = 0
        """Bytes of a line too long to be kept, that were read already."""
        self.end = start
        self.tail = b""
        """The first bytes of what is incomplete, at most 64 KiB."""
        self.hole: int | None = None
        """Offset of the first NUL byte in what is incomplete."""
        self.cut_short = False
        """The file ended before `stop`: somebody shortened it meanwhile."""

    def __iter__(self) -> Iterator[Row]:
        rest = b""
        while self._read_to < self._stop:
            data = self._source.read(self._read_to, min(CHUNK, self._stop - self._read_to))
            if not data:
                self.cut_short = True
                break
            self._find_hole(data, self._read_to)
            self._read_to += len(data)
            *lines, rest = (rest + data).split(b"\n")
            if lines and self._long:
                yield self._long_line(len(lines[0]))
                del lines[0]
            for line in lines:
                yield from self._line(line)
            rest = self._bounded(rest)
        self.tail = (self.tail if self._long else rest)[:HEAD]
        if not self.tail:
            self.hole = None

    def _line(self, line: bytes) -> Iterator[Row]:
        start = self.end
        self.end += len(line) + 1
        if self.hole is not None and self.hole < self.end:
            self.hole = None
        if not line.strip():
            return
        flaw, at = self._reader.flaw(line)
        if flaw is not None and flaw.rule == "J1" and (found := list(self._glued(line, start))):
            if self._reader.split:
                yield from found
                return
            text = f"{len(found)} records stand in it, with no line end between them: {evidence(line)}."
            flaw, at = Flaw("J1", text), None
        yield start, line, at, flaw

    def _glued(self, line: bytes, start: int) -> Iterator[Row]:
        """The records of a line that holds several, if every one is sound; else none."""
        found, at = [], 0
        for piece in pieces(line.removeprefix(BOM)):
            flaw, when = self._reader.flaw(piece)
            if flaw is not None:
                return
            at = line.index(piece, at)
            found.append((start + at, piece, when, None))
            at += len(piece)
        if len(found) > 1:
            yield from found

    # --- lines that are too long for any record: one line of a log once had 200 MB ---

    def _bounded(self, rest: bytes) -> bytes:
        if not self._long and len(rest) <= HEAD:
            return rest
        self.tail = self.tail if self._long else rest[:HEAD]
        self._long += len(rest)
        return b""

    def _long_line(self, more: int) -> Row:
        start, size, self._long = self.end, self._long + more, 0
        self.end += size + 1
        hole, head = self.hole, self.tail
        self.tail = b""
        if hole is not None and hole < self.end:
            self.hole = None
            return start, head, None, Flaw("C2", f"It holds NUL bytes from byte {hole} on: {evidence(head)}.")
        return start, head, None, Flaw("C4", f"It has {size} bytes, more than any record: {evidence(head)}.")

    def _find_hole(self, data: bytes, offset: int) -> None:
        if self.hole is None and (place := data.find(b"\0")) >= 0:
            self.hole = offset + place
