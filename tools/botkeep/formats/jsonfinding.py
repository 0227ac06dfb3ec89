"""Where the records of a whole JSON document stand: an array of them, or the member of an object that holds them.

[{...}, {...}]     {"trades": [{...}]}     {"all_trades": {"1": {...}, "2": {...}}}     {"T1": {...}, "T2": {...}}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .files import CHUNK, Source
from .jsontext import BOM, KEY, STRING, VALUE, NotSoundError, parse
from .records import HEAD

MOST_MEMBERS = 50
"""Members of an object that are looked through for the one with the records."""
FARTHEST = 64 << 20
"""Bytes of other members before it that are passed over."""
_GAP = re.compile(rb"[\s,]*")
_TOKEN = re.compile(STRING + rb'|[{}\[\]"]')


class Container(NamedTuple):
    """An array, or an object, that may hold the records."""

    path: tuple[str, ...]
    body: int
    """Offset behind its opening bracket."""
    keyed: bool


def containers(source: Source) -> list[Container]:
    """Whatever may hold the records, in the order of the document; empty: it begins as none."""
    head = source.read(0, HEAD)
    start = len(BOM) if head.startswith(BOM) else 0
    start += len(head) - start - len(head[start:].lstrip())
    if head[start : start + 1] == b"[":
        return [Container((), start + 1, False)]
    if head[start : start + 1] != b"{":
        return []
    return list(_within(source, start + 1, ()))


def _within(source: Source, start: int, path: tuple[str, ...]) -> Iterator[Container]:
    """The object whose members begin at `start`, if it may hold records itself, and what its members hold."""
    members = _members(source, start, path)
    first = next(members, None)
    if first is None:
        yield Container(path, start, True)
        return
    if first[1] == b"{":
        yield Container(path, start, True)
    yield from _inside(source, first, path)
    for member in members:
        yield from _inside(source, member, path)


_Member = tuple[str, bytes, int]
"""Its key, the first byte of its value, and where that begins."""


def _inside(source: Source, member: _Member, path: tuple[str, ...]) -> Iterator[Container]:
    name, first, at = member
    if first == b"[" and source.read(at + 1, HEAD).lstrip()[:1] in (b"{", b"]", b""):
        yield Container((*path, name), at + 1, False)
    elif first == b"{" and len(path) < 2:
        yield from _within(source, at + 1, (*path, name))


def _members(source: Source, start: int, path: tuple[str, ...]) -> Iterator[_Member]:
    at, most = start, MOST_MEMBERS if not path else 3  # deeper, the first ones tell
    for _ in range(most):
        window = source.read(at, HEAD)
        gap = _GAP.match(window)
        key = KEY.match(window, gap.end() if gap else 0)
        if key is None:
            return
        value = at + key.end()
        yield _name(key[1]), window[key.end() : key.end() + 1], value
        behind = behind_value(source, value)
        if behind is None or behind - start > FARTHEST:
            return
        at = behind


def _name(key: bytes) -> str:
    try:
        return next(iter(parse(b"{" + key + b":0}").members))
    except NotSoundError:
        return ""


def behind_value(source: Source, start: int) -> int | None:
    """Where the value that begins there ends; None: not in this file, or not in the next 64 MiB."""
    window = source.read(start, HEAD)
    short = VALUE.match(window)
    if short is not None and (short.end() < len(window) or window[:1] in b'{["'):
        return start + short.end()
    return _behind_long(source, start) if window[:1] in (b"{", b"[") else None


def _behind_long(source: Source, start: int) -> int | None:
    depth, rest, at = 0, b"", start
    for data in source.chunks(start, start + FARTHEST):
        text, rest, base = rest + data, b"", at - len(rest)
        at += len(data)
        for token in _TOKEN.finditer(text):
            mark = token[0]
            if mark == b'"':  # a string that goes on in the next chunk
                rest = text[token.start() :]
                break
            depth += (mark in (b"{", b"[")) - (mark in (b"}", b"]"))
            if not depth:
                return base + token.end()
        if len(rest) > CHUNK:
            return None
    return None
