"""A JSON document taken apart into one record a line, and put together again as it was written.

What can be done with lines (merging a good copy and a damaged file, adding trades) is so done with documents too. A
record keeps every byte; its line ends become carriage returns while it is a line, which JSON reads as the same blank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from .base import FormatOptions
from .files import Source, regular
from .jsondoc import Document
from .jsonlines import Lines
from .jsontext import KEY
from .merging import HashedWriter
from .records import StrangeError

_BETWEEN = re.compile(rb"\s*,\s*")
_RETURN = re.compile(rb"\r\r?")


@dataclass(frozen=True)
class Frame:
    """What stands around the records of a document."""

    before: bytes
    """Up to and with the bracket."""
    lead: bytes
    """Between the bracket and the first record."""
    between: bytes
    after: bytes
    """From the end of the last record on."""


def frame_of(reader: Document, source: Source) -> Frame:
    """The frame of a document; where it has no end, or no two records, the plainest one that goes with the rest."""
    scan = reader.scan(source, reader.body, source.size)
    first: tuple[int, int] | None = None
    between = b""
    for offset, raw, _, _ in scan:
        if first and not between:
            between = _between(source.read(first[1], offset - first[1]))
        first = first or (offset, offset + len(raw))
    lead = source.read(reader.body, first[0] - reader.body) if first else b""
    lead = lead if not lead.strip() else b""
    between = between or b"," + (lead or b" ")
    end = b"\n" if b"\n" in between else b""
    after = source.read(scan.end, source.size - scan.end) if scan.closed else end + reader.closers + end
    return Frame(source.read(0, reader.body), lead, between, after)


def _between(gap: bytes) -> bytes:
    """What stands between two records; where the comma is missing, or damage stands there, what has to."""
    if not gap.strip():
        return b"," + gap
    return gap if _BETWEEN.fullmatch(gap) else b""


def as_line(raw: bytes) -> bytes:
    """A record as one line, without line end."""
    return raw.replace(b"\r\n", b"\r\r").replace(b"\n", b"\r")


def _as_it_was(line: bytes) -> bytes:
    return _RETURN.sub(lambda found: b"\r\n" if len(found[0]) == 2 else b"\n", line)


def unfold(reader: Document, source: Source, file: BinaryIO) -> int:
    """Write one record a line, damage as it stands, and what is torn without a line end. Returns the damaged ones."""
    scan = reader.scan(source, reader.body, source.size)
    damaged = 0
    for _, raw, _, flaw in scan:
        damaged += flaw is not None and not flaw.sound
        file.write(as_line(raw) + b"\n")
    if scan.tail:
        file.write(as_line(scan.tail))
    return damaged


def fold(frame: Frame, reader: Document, lines: Path, writer: HashedWriter) -> None:
    """Write the document of these lines. A key that the object has already is counted on."""
    writer.write(frame.before)
    gap, keys = frame.lead, _Keys() if reader.layout.keyed else None
    for line in _lines(lines):
        raw = _as_it_was(line)
        writer.write(gap + (keys.own(raw) if keys else raw))
        gap = frame.between
    writer.write(frame.after)


def _lines(path: Path) -> Iterator[bytes]:
    rest = b""
    with regular(path) as source:
        for data in source.chunks(0, source.size):
            *lines, rest = (rest + data).split(b"\n")
            yield from (line for line in lines if line.strip())


class _Keys:
    """The keys of an object, each once."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._highest = 0

    def own(self, raw: bytes) -> bytes:
        """The record with a key that none before it has."""
        key = KEY.match(raw)
        if key is None:
            raise StrangeError("J1", "a record has no key.")
        name = key[1]
        if name in self._seen:
            name = b'"%d"' % (self._highest + 1)
        self._seen.add(name)
        digits = name.strip(b'"')
        self._highest = max(self._highest, int(digits)) if digits.isdigit() and len(digits) < 19 else self._highest
        return raw[: key.start(1)] + name + raw[key.end(1) :]


class Unfolded:
    """The lines of such a document, as a kind of record files: read as the document's own records are."""

    def __init__(self, reader: Document) -> None:
        self._reader = Lines(replace(reader.layout, body=0), reader.zone, split=True)

    def learn(self, source: Source, options: FormatOptions) -> Lines | None:  # noqa: ARG002  # it is known already
        """The reader; a document without records is one too."""
        return self._reader

    def again(self, layout: Mapping[str, Any], options: FormatOptions) -> Lines:  # noqa: ARG002
        """The same."""
        return self._reader
