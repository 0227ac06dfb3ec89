"""What a service says, from the journal: its own lines, and nothing that systemd or the kernel says about it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .engine import Unit
from .systemd_ctl import fields_of, journal
from .systemd_history import entries
from .systemd_units import Service

if TYPE_CHECKING:
    from .systemd import Config

FIRST_BYTES = 256 << 10
"""Of output that nobody has read yet, the newest."""
FIRST_LINES = 5000
MOST_BYTES = 8 << 20
"""That one reading takes from the journal; the rest comes with the next."""
FIELDS = ("MESSAGE", "_SYSTEMD_INVOCATION_ID", "MESSAGE_ID", "_STREAM_ID", "_LINE_BREAK")
STREAMS = 6
"""Of the newest runs that are remembered: each has one or two."""
SPAWN_FAILED = "641257651c1b4ec9a8624d7a40a9e1e7"
_ITS_OWN = frozenset({"stdout", "syslog", "journal"})
Cursor = dict[str, Any]


def read_log(config: Config, unit: Unit, cursor: Mapping[str, Any], seconds: float) -> tuple[bytes, Cursor]:
    """What is new in the journal; see `Engine.read_log`. `began` in the next cursor as enginelog wants it.

    Raises EngineError.
    """
    if not isinstance(unit, Service) or not unit.keeps_output:
        return b"", {**cursor}
    until = time.monotonic() + seconds
    streams = [str(one) for one in cursor.get("streams", ())]
    found = _lines(config, unit, cursor, streams, until)
    fresh = [one for one in _streams(found) if one not in streams]
    if fresh and config.user:
        streams = [*streams, *fresh][-STREAMS:]
        found = _lines(config, unit, cursor, streams, until)
    data, following = _text(found, unit.invocation, {**cursor, "streams": streams})
    return (data, following) if cursor else _newest(data, following)


def _lines(
    config: Config, unit: Service, cursor: Mapping[str, Any], streams: Iterable[str], until: float
) -> list[dict[str, Any]]:
    words = [f"--output-fields={','.join(FIELDS)}", *_since(cursor), *_of_the_unit(config, unit, streams)]
    for how in (["--all"], []):  # without it, what is longer than 4 KiB is left out
        answer = journal([*how, *words], max(0.1, until - time.monotonic()), MOST_BYTES, enough=True)
        whole = answer.out if answer.code is not None else answer.out[: answer.out.rfind(b"\n") + 1]
        found = [one for one in entries(whole) if one.get("__CURSOR") != cursor.get("at")]
        if found or answer.code is not None:
            return found
    return []  # not even one was short enough


def _streams(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(one for line in lines if (one := fields_of(line, "_STREAM_ID"))))


def _since(cursor: Mapping[str, Any]) -> list[str]:
    """From the line that was read last: where the journal has that no more, `--after-cursor` passes over the first
    line that it still has."""
    at = cursor.get("at")
    return [f"--cursor={at}"] if isinstance(at, str) and at else [f"--lines={FIRST_LINES}"]


def _of_the_unit(config: Config, unit: Service, streams: Iterable[str]) -> list[str]:
    """By the journal's own word about who wrote a line; a program may write any other field itself.

    A child of a user's service that has ended before the journal looks is nobody's to it: by the stream it is known.
    """
    kinds = [f"_TRANSPORT={one}" for one in sorted(_ITS_OWN)]
    if not config.user:
        return [f"_SYSTEMD_UNIT={unit.id}", *kinds]
    known = [f"_STREAM_ID={one}" for one in streams]
    return [f"_SYSTEMD_USER_UNIT={unit.id}", f"_UID={os.geteuid()}", *kinds, *(["+", *known] if known else [])]


def _text(lines: Iterable[Mapping[str, Any]], invocation: str, cursor: Cursor) -> tuple[bytes, Cursor]:
    """The lines, and where among them the newest run begins: with the first line that is its own."""
    data, began = bytearray(), -1 if cursor.get("run") != invocation else None
    for entry in lines:
        at = entry.get("__CURSOR")
        if isinstance(at, str):
            cursor["at"] = at
        if fields_of(entry, "MESSAGE_ID") == SPAWN_FAILED:
            continue  # systemd's, from the process that was to become the program
        if began == -1 and fields_of(entry, "_SYSTEMD_INVOCATION_ID") == invocation:
            began = len(data)
        data += _message(entry.get("MESSAGE")) + _end(entry)
    if began is None:
        return bytes(data), cursor
    return bytes(data), {**cursor, "began": began, **({"run": invocation} if began >= 0 else {})}


def _end(entry: Mapping[str, Any]) -> bytes:
    """A line that is too long for the journal stands there in pieces."""
    return b"" if fields_of(entry, "_LINE_BREAK") == "line-max" else b"\n"


def _message(value: object) -> bytes:
    """Text as text, anything else as numbers; several values of one field as a list of these."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, list):
        if all(isinstance(one, int) and 0 <= one < 256 for one in value):
            return bytes(value)
        return b"\n".join(_several(value))
    return b""


def _several(values: list[Any]) -> Iterator[bytes]:
    for one in values:
        yield _message(one)


def _newest(data: bytes, following: Cursor) -> tuple[bytes, Cursor]:
    """Of a long log only its end, from the beginning of a line."""
    if len(data) <= FIRST_BYTES:
        return data, following
    cut = data.find(b"\n", len(data) - FIRST_BYTES) + 1
    began = following.get("began")
    if isinstance(began, int) and began >= 0:
        following["began"] = max(0, began - cut)
    return data[cut:], following
