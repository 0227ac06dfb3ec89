"""A container's output, read on from where the last look ended: no line lost, none twice.

Two ways lead to it. The engine's own file, where its driver writes one that we may read: a look at a bot that said
nothing costs one `stat`, no lock and no question. Else the engine, which is asked for what came since the newest line
known: it keeps lines by their time, which two streams may write a little out of order, so that it is asked for a little
more and what was seen is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from botkeep.model import EngineError

from .docker_address import Address, EngineConfig, address_of
from .docker_control import transport
from .docker_facts import nanoseconds
from .docker_units import Container
from .engine import Unit

FIRST_BYTES = 256 << 10
"""Of output that nobody has read yet, the newest."""
MOST_BYTES = 8 << 20
"""In one look; the next one goes on."""
FIRST_LINES = 5000
MUTE_SECONDS = 30.0
MAYBE_NEW = 10**9
"""Nanoseconds. A container that nobody has read yet is mostly a new one, which may have said much before its engine
noted the start."""
OVERLAP = 2 * 10**9
"""Nanoseconds by which lines may be out of order."""
REMEMBERED = 400
"""Lines of that time whose traces are kept: of a bot that writes more, the time is shorter."""
AROUND = 40
"""Bytes of header and stamp around each message."""
PIECE = 16 << 10
"""Bytes after which an engine cuts a line."""
_STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d) "
_AT_START = re.compile(_STAMP)
_HEADER = struct.Struct(">BxxxL")
_LONGEST_LINE = 4 << 20
"""Of the driver's own file; it holds at most a piece of a line, written as JSON."""
_TAIL = 64
"""Bytes by which the place where a look ended is known again: no two are the same, since every line ends with its time
to the nanosecond."""


@dataclass(frozen=True)
class Message:
    """One line or piece of a line."""

    at: int
    """Nanoseconds since 1970."""
    text: bytes

    @property
    def size(self) -> int:
        """Bytes on the way from the engine."""
        return len(self.text) + AROUND

    @property
    def trace(self) -> str:
        """Equal for the same message in two answers."""
        return f"{self.at}:{hashlib.blake2b(self.text, digest_size=6).hexdigest()}"


class UnreadableError(EngineError):
    """The engine answered, and has no such output."""


def read_log(
    config: EngineConfig, unit: Unit, cursor: Mapping[str, Any], seconds: float
) -> tuple[bytes, dict[str, Any]]:
    """Output since `cursor`, and the next cursor; see `Engine.read_log`. `began` in it as enginelog wants it.

    Raises EngineError.
    """
    if not isinstance(unit, Container) or unit.began is None:
        return b"", {**cursor, "began": -1}
    known = cursor if cursor.get("id") == unit.id else {}
    found = _from_file(unit, known) or _from_engine(config, unit, known, seconds)
    over = unit.state is None and found.whole
    return found.data, {
        **found.cursor,
        "id": unit.id,
        "run": unit.run,
        "over": over,
        **_began(unit, known, found),
    }


def said_nothing_since(unit: Unit, cursor: Mapping[str, Any]) -> bool:
    """Whether `read_log` would bring nothing, and the same cursor: the driver's file is as it was when it had been read
    to its end. One `stat`; False also where that does not tell."""
    place = cursor.get("file")
    if not isinstance(unit, Container) or not place or not _has_file(unit):
        return False
    if (cursor.get("id"), cursor.get("run"), cursor.get("over")) != (unit.id, unit.run, unit.state is None):
        return False
    if cursor.get("begins", unit.began) != unit.began:
        return False
    try:
        status = os.lstat(unit.log_path)
    except OSError:
        return False
    known = (place["inode"], place["offset"], place.get("changed"))
    return known == (status.st_ino, status.st_size, status.st_ctime_ns)


@dataclass(frozen=True)
class _Read:
    """What one look brought."""

    messages: Sequence[Message]
    cursor: dict[str, Any]
    whole: bool = True
    """False: there is more."""

    @property
    def data(self) -> bytes:
        """As the bot wrote it."""
        return b"".join(one.text for one in self.messages)


def _began(unit: Container, known: Mapping[str, Any], found: _Read) -> dict[str, int]:
    """From which byte on this is the newest run's, if the copy holds another run so far."""
    if known.get("run") == unit.run and "begins" not in known:
        return {}
    if known.get("over") and known.get("run") != unit.run:
        return {"began": 0}  # all that the run before wrote was read when it had ended
    boundary, size = (unit.began or 0) - (0 if known else MAYBE_NEW), 0
    for one in found.messages:
        if one.at >= boundary:
            return {"began": size}
        size += len(one.text)
    return {"began": -1, "begins": boundary}


# ---------------------------------------------------------------------------------------------------- the file


def _has_file(unit: Container) -> bool:
    """Whether its driver writes one on this machine."""
    return unit.is_here and unit.driver == "json-file" and unit.log_path.endswith(f"{unit.id}-json.log")


def _from_file(unit: Container, known: Mapping[str, Any]) -> _Read | None:
    """None: there is no file that we may read, or it does not go on from what is known."""
    if not _has_file(unit):
        return None
    try:
        fd = os.open(unit.log_path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        place = known.get("file")
        if place is None:
            return _first_of_file(file, status) if not known else None
        if place["inode"] == status.st_ino:
            return _rest_of_file(unit, file, status, place, known)
        return _over_rotation(unit, file, status, place, known)


def _first_of_file(file: Any, status: os.stat_result) -> _Read:
    """The newest 256 KiB of output: JSON makes it a little longer, most of it the time of each line."""
    begin = max(0, status.st_size - 4 * FIRST_BYTES)
    file.seek(begin)
    lines, end = _whole_lines(file, begin, status.st_size - begin)
    messages = _newest([one for one in map(_message, lines[1:] if begin else lines) if one], FIRST_BYTES)
    return _Read(messages, _cursor(messages, {}, _place(file, status, end)))


def _rest_of_file(
    unit: Container, file: Any, status: os.stat_result, place: Mapping[str, Any], known: Mapping[str, Any]
) -> _Read | None:
    begin = place["offset"]
    if begin > status.st_size or place.get("tail", _tail(file, begin)) != _tail(file, begin):
        if os.path.lexists(f"{unit.log_path}.1"):
            return None  # turned over twice, and this is a new file with an old number: the engine has what was between
        begin = 0  # emptied in place, as the driver does that keeps one file
    file.seek(begin)
    lines, end = _whole_lines(file, begin, MOST_BYTES)
    messages = [one for one in map(_message, lines) if one]
    whole = end - begin < MOST_BYTES - _LONGEST_LINE
    return _Read(messages, _cursor(messages, known, _place(file, status, end)), whole)


def _place(file: Any, status: os.stat_result, end: int) -> dict[str, Any]:
    """Where the next look goes on, and by what it sees that this is still the place. `status`: from before the
    file was read."""
    return {"inode": status.st_ino, "offset": end, "changed": status.st_ctime_ns, "tail": _tail(file, end)}


def _tail(file: Any, end: int) -> str:
    begin = max(0, end - _TAIL)
    return hashlib.blake2b(os.pread(file.fileno(), end - begin, begin), digest_size=6).hexdigest()


def _over_rotation(
    unit: Container, file: Any, status: os.stat_result, place: Mapping[str, Any], known: Mapping[str, Any]
) -> _Read | None:
    """The driver renamed the file that we know to NAME.1 and began another. Were there more, the engine has them."""
    try:
        with open(os.open(f"{unit.log_path}.1", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as older:
            before = os.fstat(older.fileno())
            if before.st_ino != place["inode"]:
                return None
            older.seek(place["offset"])
            lines, end = _whole_lines(older, place["offset"], MOST_BYTES)
            more, left_at = older.read(1), _place(older, before, end)
    except OSError:
        return None
    messages = [one for one in map(_message, lines) if one]
    if more:
        return _Read(messages, _cursor(messages, known, left_at), whole=False)
    file.seek(0)
    lines, end = _whole_lines(file, 0, MOST_BYTES)
    messages += [one for one in map(_message, lines) if one]
    return _Read(messages, _cursor(messages, known, _place(file, status, end)), end < MOST_BYTES - _LONGEST_LINE)


def _whole_lines(file: Any, begin: int, most: int) -> tuple[list[bytes], int]:
    """Lines that end, and where the last of them does; one that is being written is left for the next look."""
    data = file.read(most)
    end = data.rfind(b"\n") + 1
    if not end and len(data) >= min(most, _LONGEST_LINE):
        end = len(data)  # what has no end within megabytes is no line of the driver's
    return data[:end].splitlines(), begin + end


def _message(line: bytes) -> Message | None:
    """A line of the driver's file; None for what a power cut left of one."""
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        raw = json.loads(line)
        at = nanoseconds(raw["time"])
        return None if at is None else Message(at, raw["log"].encode("utf-8", "surrogatepass"))
    return None


# ---------------------------------------------------------------------------------------------------- the engine


def _from_engine(config: EngineConfig, unit: Container, known: Mapping[str, Any], seconds: float) -> _Read:
    address, used = address_of(config), transport()
    if time.monotonic() < _mute.get(address, 0.0):
        raise EngineError(f"Docker at {address} had no answer in time a moment ago; it is not asked again so soon.")
    try:
        return _asked(address, unit, known, seconds)
    except used.TooSlowError:
        _mute[address] = time.monotonic() + MUTE_SECONDS
        raise


_mute: dict[Address, float] = {}
"""Until when an engine is not asked for output: a hundred bots would each wait for it."""


def _asked(address: Address, unit: Container, known: Mapping[str, Any], seconds: float) -> _Read:
    newest, seen = known.get("at"), set(known.get("seen", ()))
    since = {"since": _seconds_text(_asked_from(known))} if newest is not None else {"tail": str(FIRST_LINES)}
    most = MOST_BYTES if newest is not None else FIRST_LINES * PIECE
    with transport().talk(address, seconds, 2 * most) as client:
        url = _url(client, unit)
        flags = {"stdout": "1", "stderr": "1", "timestamps": "1", **since}
        with client.get(url, params=flags, stream=True) as answer:
            if answer.status_code != 200:
                raise UnreadableError(f"The output of {unit.name} cannot be read: {_said(answer)}")
            pieces = _tty(answer.raw) if unit.tty else _frames(answer.raw)
            fresh = (one for one in pieces if one.trace not in seen and one.at >= _asked_from(known))
            messages = _bounded(fresh, MOST_BYTES) if newest is not None else _newest(fresh, FIRST_BYTES)
    whole = sum(one.size for one in messages) < MOST_BYTES
    return _Read(messages, _cursor(messages, known), whole)


def _url(client: Any, unit: Container) -> str:
    return f"{client.base_url}/v{client.api_version}/{unit.logs_at or f'containers/{unit.id}'}/logs"


def listen(address: Address, unit: Container, since: int, seconds: float) -> Iterator[Message]:
    """Its output from `since` (nanoseconds since 1970) until it has ended, as it comes. Raises EngineError.

    Of a container that is removed with its end, nobody can read the last words afterwards.
    """
    flags = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": "1", "since": _seconds_text(since)}
    with (
        transport().talk(address, seconds, 2 * MOST_BYTES) as client,
        client.get(_url(client, unit), params=flags, stream=True) as answer,
    ):
        if answer.status_code != 200:
            raise UnreadableError(f"The output of {unit.name} cannot be read: {_said(answer)}")
        yield from _tty(answer.raw) if unit.tty else _frames(answer.raw)


def read_heard(unit: Container, heard: Sequence[Message], cursor: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """As `read_log`, of what somebody has listened to."""
    known = cursor if cursor.get("id") == unit.id else {}
    seen, begin = set(known.get("seen", ())), _asked_from(known)
    found = _Read([one for one in heard if one.trace not in seen and one.at >= begin], {})
    return found.data, {**_cursor(found.messages, known), "id": unit.id, "run": unit.run, "over": True}


def _said(answer: Any) -> str:
    from botkeep.untrusted import clean

    try:
        return clean(str(answer.json()["message"]), 200)
    except (ValueError, LookupError, TypeError):
        return f"Docker answered {answer.status_code}."


def _asked_from(known: Mapping[str, Any]) -> int:
    """From when on lines may be new: those before were all seen."""
    return int(known.get("from", 0))


def _seconds_text(count: int) -> str:
    return f"{count // 10**9}.{count % 10**9:09d}"


def _frames(raw: Any) -> Iterator[Message]:
    """The two streams, in frames of one message each."""
    while len(head := _exactly(raw, _HEADER.size)) == _HEADER.size:
        _, size = _HEADER.unpack(head)
        frame = _exactly(raw, size)
        found = _AT_START.match(frame)
        if found is None or len(frame) < size:
            return  # broken off: the next look asks for it again
        at = nanoseconds(found[0][:-1].decode())
        if at is not None:
            yield Message(at, frame[found.end() :])


def _tty(raw: Any) -> Iterator[Message]:
    """One stream without frames: a stamp at the begin of each line, and of each piece of a long one."""
    rest = b""
    while data := raw.read(64 << 10):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield from _pieces(line + b"\n")
    if rest:
        yield from _pieces(rest)


def _pieces(line: bytes) -> Iterator[Message]:
    while found := _AT_START.match(line):
        at, body = nanoseconds(found[0][:-1].decode()), line[found.end() :]
        again = _AT_START.match(body, PIECE)
        text, line = (body[:PIECE], body[PIECE:]) if again else (body, b"")
        if at is not None:
            yield Message(at, text)


def _exactly(raw: Any, size: int) -> bytes:
    found = b""
    while len(found) < size and (more := raw.read(size - len(found))):
        found += more
    return found


# ---------------------------------------------------------------------------------------------------- both


def _bounded(messages: Iterable[Message], most: int) -> list[Message]:
    """The first of them."""
    kept, size = [], 0
    for one in messages:
        kept.append(one)
        size += one.size
        if size >= most:
            break
    return kept


def _newest(messages: Iterable[Message], most: int) -> list[Message]:
    """The last of them, whole ones; never more than the last megabyte in memory."""
    from collections import deque

    kept: deque[Message] = deque()
    size = 0
    for one in messages:
        kept.append(one)
        size += len(one.text)
        while size > most and len(kept) > 1:
            size -= len(kept.popleft().text)
    return list(kept)


def _cursor(
    messages: Sequence[Message], known: Mapping[str, Any], place: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Where to go on, in both ways: the file may be gone at the next look."""
    at = max([int(known.get("at", 0)), *(one.at for one in messages)])
    begin = max(at - OVERLAP, int(known.get("from", 0)))
    recent = sorted((one for one in messages if one.at >= begin), key=lambda one: one.at)
    if len(recent) > REMEMBERED:
        begin = recent[-REMEMBERED].at + 1
    traces = [*known.get("seen", ()), *(one.trace for one in recent if one.at >= begin)]
    kept = [one for one in traces if int(one.partition(":")[0]) >= begin]
    file = {"file": dict(place)} if place else {}
    return {"at": at, "from": begin, "seen": kept, **file} if messages or known or file else {}
