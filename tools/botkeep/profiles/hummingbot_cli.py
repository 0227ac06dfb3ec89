"""`hbot status --json`: what Hummingbot's own command says of its bot, read strictly. What comes is untrusted.

hbot sends SIGUSR1 to the engine and waits up to 5 s for the snapshot that the engine writes then; after that it shows
the old one, with its age and `"running": true`. So the age of a snapshot says when the engine last answered somebody,
and a frozen engine is the one whose snapshot stays as old as it is although it was asked.

The signal ends an engine that does not handle it yet: for as long as one starts, hbot must not be asked (`can_answer`).
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from botkeep.model import EngineError
from botkeep.runtimes.procs import read_proc, read_program
from botkeep.untrusted import clean

from .command import Ran, run

ENGINE = "hummingbot.cli.engine"
OWN_WAIT = 5.0
"""Seconds that hbot itself waits for an engine."""
ENOUGH = 7.0
"""Seconds in which it answers in any case, its own start included. In less, silence proves nothing."""
EXITS = {
    1: "failed",
    2: "knows no bot in its install",
    3: "says that its bot is not running",
    4: "has a configuration or a password that does not work",
    5: "gave up waiting",
}
RULES = {3: "not-ready", 5: "timeout"}
"""Of the other codes: status."""
MOST_CONNECTORS = 32
_CONNECTOR = re.compile(r"[a-z0-9_]{1,64}")
_LONGEST = timedelta(days=3650)
_LARGEST_PID = 1 << 22


@dataclass(frozen=True)
class Status:
    """What hbot says."""

    running: bool
    pid: int | None = None
    """Of the engine, as hbot counts: in a container, the container's."""
    uptime: timedelta | None = None
    snapshot_age: timedelta | None = None
    """How long ago the engine last answered."""
    errors: int = 0
    """ERROR and CRITICAL lines among the newest of its log."""
    last_error: str = ""
    """Cleaned."""
    connectors: tuple[str, ...] = ()
    """Those with a balance. Balances are no positions: what is open cannot be told from them."""


@dataclass(frozen=True)
class Said:
    """A status, or why there is none."""

    rule: str
    """ok, refused, timeout, too-long, not-ready, not-json, status."""
    text: str = ""
    """A sentence, empty if ok."""
    status: Status | None = None


# --------------------------------------------------------------------------------------------------- asking


def can_answer(pids: Iterable[int]) -> bool:
    """Whether one of these processes is an engine that handles the signal by which hbot asks it."""
    return any(_is_engine(pid) and catches(pid, signal.SIGUSR1) for pid in pids)


def has_engine(pids: Iterable[int]) -> bool:
    """Whether one of these processes is an engine as `hbot start` starts it."""
    return any(_is_engine(pid) for pid in pids)


def _is_engine(pid: int) -> bool:
    program = read_program(command_of(pid))
    return program is not None and program.is_module and program.script == ENGINE


def command_of(pid: int) -> tuple[str, ...]:
    """The command line of a living process; empty for one that is gone."""
    try:
        proc = read_proc(pid)
    except EngineError:
        return ()
    return proc.argv if proc is not None and not proc.dead else ()


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for this signal, as the kernel says. False for one that is gone."""
    caught = _kernels_word(pid, "SigCgt")
    return bool(caught and int(caught[0], 16) >> (number - 1) & 1)


def names_of(pid: int) -> frozenset[int]:
    """The process's number here and in the containers that it is in. Empty for one that is gone."""
    return frozenset(int(word) for word in _kernels_word(pid, "NSpid"))


def _kernels_word(pid: int, key: str) -> list[str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return []
    return next((line.split()[1:] for line in lines if line.startswith(f"{key}:")), [])


def ask(hbot: Sequence[str], cwd: Path | None, seconds: float) -> Said:
    """Run `hbot status --json` in the folder `cwd` for at most `seconds`. Never raises."""
    ran = run([*hbot, "status", "--json"], cwd, seconds)
    name = clean(os.path.basename(hbot[0]), 40)
    if ran.rule == "timeout" and round(seconds, 1) < ENOUGH:
        text = (
            f"{name} status did not answer within {round(seconds, 1):g} s, which proves nothing, since it waits "
            f"{OWN_WAIT:g} s for a busy engine; with {ENOUGH:g} s or more (`answer_within` of health-endpoint-failing) "
            "it would tell."
        )
        return Said("not-ready", text)
    if ran.rule != "ok":
        return Said(ran.rule, f"{name} status {ran.text}.")
    return _read(ran, name)


def _read(ran: Ran, name: str) -> Said:
    if ran.code != 0:
        what = EXITS.get(ran.code, f"was ended by signal {-ran.code}" if ran.code < 0 else "failed")
        return Said(RULES.get(ran.code, "status"), f"{name} {what} (exit code {ran.code}){_complaint(ran)}.")
    found = strict_object(ran.output)
    status = status_of(found) if found is not None else None
    if status is None:
        shown = clean(ran.output[:200].decode("utf-8", "replace").strip(), 80)
        return Said("not-json", f"what {name} status writes is no status: {shown or 'nothing'}.")
    return Said("ok", status=status)


def _complaint(ran: Ran) -> str:
    """The last line of its errors."""
    lines = ran.errors.decode("utf-8", "replace").strip().splitlines()
    return f": {clean(lines[-1], 120).rstrip('.')}" if lines else ""


# --------------------------------------------------------------------------------------------------- reading


def strict_object(data: bytes) -> dict[str, Any] | None:
    """One JSON object and nothing else: no key twice, no NaN, no number that is infinite. None for anything else."""
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_float=_finite, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number that is none")
    return number


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def status_of(found: dict[str, Any]) -> Status | None:
    """The status that this object is; None if one of its values is not what hbot writes."""
    try:
        return Status(
            running=_kind(found.get("running"), bool),
            pid=_pid(found.get("pid")),
            uptime=_length(found.get("uptime_s")),
            snapshot_age=_length(found.get("snapshot_age_s")),
            **_errors(found.get("errors")),
            connectors=_connectors(found.get("balances")),
        )
    except ValueError:
        return None


def _kind(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:  # a bool is an int to isinstance
        raise ValueError(f"not a {kind.__name__}")
    return value


def _pid(value: Any) -> int | None:
    if value is None:
        return None
    if not 0 < _kind(value, int) <= _LARGEST_PID:
        raise ValueError("no pid")
    return int(value)


def _length(value: Any) -> timedelta | None:
    """Seconds. A clock that was set back a little makes an age negative: that is none."""
    if value is None:
        return None
    if type(value) not in (int, float) or abs(value) > _LONGEST.total_seconds():
        raise ValueError("no length of time")
    return timedelta(seconds=max(0.0, float(value)))


def _errors(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    count, messages = _kind(value, dict).get("count"), value.get("messages", [])
    if _kind(count, int) < 0 or not all(type(one) is str for one in _kind(messages, list)):
        raise ValueError("no errors")
    return {"errors": count, "last_error": clean(messages[-1], 120) if messages else ""}


def _connectors(value: Any) -> tuple[str, ...]:
    names = list(_kind(value, dict)) if value is not None else []
    if len(names) > MOST_CONNECTORS or not all(_CONNECTOR.fullmatch(name) for name in names):
        raise ValueError("no balances")
    return tuple(sorted(names))
