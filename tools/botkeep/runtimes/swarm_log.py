"""Output of a bot whose every run is another task, read as one log: each run's whole, one after the other.

What a run said lives as long as its container: until the swarm has started it some more times, or a moment after it
was told to end. So the rest of the runs before is read first; and while one is told to end, somebody listens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from botkeep.model import EngineError

from .docker_address import Address, address_of
from .docker_log import OVERLAP, Message, UnreadableError, listen, read_heard
from .docker_log import read_log as read_run
from .engine import Unit
from .swarm_control import ServiceConfig
from .swarm_units import Task

LISTENS_ON = 1.0
"""Seconds after the end of a stop, for the last of its words."""


def read_log(
    config: ServiceConfig, unit: Unit, cursor: Mapping[str, Any], seconds: float
) -> tuple[bytes, dict[str, Any]]:
    """Output since `cursor`, and the next cursor; see `Engine.read_log`. Raises EngineError."""
    if not isinstance(unit, Task):
        return b"", dict(cursor)
    until, data, known = time.monotonic() + seconds, b"", dict(cursor)
    for one in _before(unit, known):
        with suppress(UnreadableError):  # its container is gone by now
            more, known = _read_on(config, one, known, until)
            data += more
    size = len(data)
    more, following = _read_on(config, unit, known, until)
    began = {} if cursor.get("task") == unit.run else {"began": size}
    return data + more, {**following, **began}


def _before(unit: Task, known: Mapping[str, Any]) -> Sequence[Task]:
    """Runs before the unit's that may have said something since; of a bot nobody has read yet, the one before."""
    last = known.get("task")
    return [one for one in unit.past if one.run >= last] if isinstance(last, str) else unit.past[-1:]


def _read_on(config: ServiceConfig, unit: Task, known: Mapping[str, Any], until: float) -> tuple[bytes, dict[str, Any]]:
    if unit.began is None:
        return b"", dict(known)
    if known.get("task") == unit.run and known.get("id") != unit.id:  # its container has come, or has gone
        known = {**{key: value for key, value in known.items() if key != "file"}, "id": unit.id}
    words = _heard.get(unit.run)
    if words is not None and (words.whole or words.messages):
        data, following = read_heard(unit, words.messages, known)
    else:
        data, following = read_run(config, unit, known, max(0.1, until - time.monotonic()))
    following.pop("began", None)
    return data, {**following, "task": unit.run}


# ---------------------------------------------------------------------------------------------------- listening

_heard: dict[str, _Words] = {}
"""By run: what was heard of it, while the look after its end reads that."""


@dataclass
class _Words:
    """What a run says from a moment on."""

    address: Address
    unit: Task
    since: int
    seconds: float
    messages: list[Message] = field(default_factory=list)
    whole: bool = False
    """Heard to the end. Of a task on another machine nobody tells when that is."""

    def hear(self) -> None:
        """Until it ends."""
        with suppress(EngineError):
            for one in listen(self.address, self.unit, self.since, self.seconds):
                self.messages.append(one)
            self.whole = True


@contextmanager
def listening(config: ServiceConfig, units: Sequence[Task], seconds: float) -> Iterator[None]:
    """Hear what these say while they are ended; `read_log` gives it until `forget`."""
    since = time.time_ns() - OVERLAP
    words = [_Words(address_of(config), one, since, seconds) for one in units if one.began is not None]
    threads = [threading.Thread(target=one.hear, daemon=True) for one in words]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        until = time.monotonic() + LISTENS_ON
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        _heard.update((one.unit.run, one) for one in words)


def forget(units: Sequence[Task]) -> None:
    """What was heard of these stands in the copy by now."""
    for one in units:
        _heard.pop(one.run, None)
