"""Why a bot is as it is: what its log says by known signatures, how it ended, what changed before."""

from __future__ import annotations

import signal as signals
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from .causes import read_log
from .logfile import LogError, last_bytes
from .model import Cause, CauseClass, Diagnosis, Exit, Fault, LogLook, Observation
from .profiles import Profile
from .untrusted import FENCE_LIMIT, clean, clean_lines

__all__ = ["LogLook", "exit_meaning", "explain", "leading", "read_log", "tail"]

TAIL_LINES = 40
TAIL_READ = 32 * 1024
CHANGES = 8
CHANGED_WITHIN = timedelta(hours=24)


def tail(path: Path, lines: int = TAIL_LINES) -> tuple[list[str], int, bool]:
    """The last lines, cleaned, at most 4 KiB of them; how many lines were looked at; whether there are more.

    Raises BotkeepError if the log cannot be read.
    """
    data, more = last_bytes(path)
    total = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    text = data[-TAIL_READ:].decode("utf-8", "replace").removesuffix("\n")
    cleaned = clean_lines(text.split("\n")) if text else []
    kept: list[str] = []
    room = FENCE_LIMIT
    for line in reversed(cleaned[-lines:]):
        room -= len(line.encode()) + 1
        if room < 0:
            break
        kept.insert(0, line)
    return kept, total, more or total > len(kept)


# ------------------------------------------------------------------------------------------------------ explaining


class Happened(Protocol):
    """What an explanation needs of a ledger entry."""

    @property
    def at(self) -> datetime:
        """When."""
        ...

    @property
    def sentence(self) -> str:
        """What."""
        ...


NOT_KNOWN = "how it ended is not known: botkeep did not start it"
NOT_SEEN = "how it ended is not known: what watched it is gone too"
_WEIGHT = {CauseClass.STOP: 0, CauseClass.HOST: 1, CauseClass.REPAIR: 2, CauseClass.WAIT: 3, CauseClass.RESTART: 4}


def exit_meaning(ended: Exit | None, profile: Profile, causes: Sequence[Cause] = ()) -> str:
    """What an exit means for this kind of program, as one phrase with `it` as its subject and the number in it."""
    if ended is None:
        return NOT_KNOWN
    if ended.failed_to_start:
        return f"its command could not be executed: {ended.failed_to_start}"
    meaning = _code_or_signal(ended, profile, causes)
    if meaning is None:
        return NOT_SEEN
    return f"botkeep stopped it: {meaning}" if ended.asked else meaning


def _code_or_signal(ended: Exit, profile: Profile, causes: Sequence[Cause]) -> str | None:
    number = ended.signal if ended.signal is not None else -(ended.code or 0)
    if number > 0:
        return _killed(ended, number, profile, causes)
    if ended.code is None:
        return None
    codes, by_signal = profile.catalogue().codes, profile.catalogue().signals
    meaning = codes.get(ended.code) or by_signal.get(ended.code - 128) or "it ended with a code of its own"
    return f"{meaning} (exit code {ended.code}){_memory(ended, causes)}"


def _killed(ended: Exit, number: int, profile: Profile, causes: Sequence[Cause]) -> str:
    if ended.out_of_memory:
        return f"the kernel killed it for lack of memory (signal {number}){_peak(ended)}"
    meaning = profile.catalogue().signals.get(number, "a signal ended it")
    if number == signals.SIGKILL and ended.out_of_memory is False:
        meaning = "it was killed outright by somebody, not by the kernel for lack of memory"
    return f"{meaning} (signal {number}, {_signal_name(number)}){_memory(ended, causes)}"


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return "unnamed"


def _memory(ended: Exit, causes: Sequence[Cause]) -> str:
    short = any(cause.fault is Fault.OUT_OF_MEMORY and cause.this_run for cause in causes)
    return f", after its log said that it ran out of memory{_peak(ended)}" if short else ""


def _peak(ended: Exit) -> str:
    return f", at a peak of {ended.peak_rss_bytes / 1e6:.0f} MB" if ended.peak_rss_bytes else ""


def leading(causes: Sequence[Cause]) -> Cause | None:
    """The cause to name first: of the newest run, and the one that forbids most."""
    return min(causes, key=lambda one: (not one.this_run, _WEIGHT[one.klass], -one.count), default=None)


def explain(
    bot: str,
    seen: Observation,
    *,
    profile: Profile,
    log: Path | None,
    now: datetime,
    entries: Sequence[Happened] = (),
    config_file: Path | None = None,
    found: str = "",
) -> Diagnosis:
    """Why the bot is as it is: cause first, then exit, then its last lines and what changed before.

    `entries`: of the ledger, about this bot, oldest first. `found`: what the verdict says of a bot that is not well;
    a frozen or doubled bot has no cause in its log, and "it runs" would invite to leave it so.
    """
    lines, total, truncated = _last_lines(log)
    first = leading(seen.causes)
    alive = bool(seen.runtime.instances)
    unseen = alive and seen.runtime.exit is None
    meaning = "" if unseen else exit_meaning(seen.runtime.exit, profile, seen.causes)
    return Diagnosis(
        bot=bot,
        at=now,
        sentence=_sentence(bot, first, meaning, found, alive=alive),
        causes=seen.causes,
        exit=seen.runtime.exit,
        exit_meaning=meaning,
        lines=tuple(lines),
        lines_total=total,
        truncated=truncated,
        changed=_changed(_began(seen, first, now), entries, config_file),
    )


def _last_lines(log: Path | None) -> tuple[list[str], int, bool]:
    if log is None:
        return ["(no log_file is configured, and botkeep did not start it)"], 0, False
    try:
        return tail(log)
    except LogError as error:
        return [f"({error})"], 0, False


def _sentence(bot: str, cause: Cause | None, meaning: str, found: str, *, alive: bool) -> str:
    if cause is None:
        state = found.rstrip(".") or f"{bot}: {'it runs' if alive else meaning}"
        return f"{state}; its log names no known cause."
    before = "" if cause.this_run else "Before its newest start: "
    until = f" until {_short(cause.until)}" if cause.until else ""
    state = "" if alive else f"; {meaning}"
    return f"{bot}: {before}{cause.cause.rstrip('.')}{until} ({_how_often(cause)}){state}."


def _how_often(cause: Cause) -> str:
    lines = "one line" if cause.count == 1 else f"{cause.count} lines"
    if cause.first_at is None or cause.last_at is None:
        return f"{lines} in its log"
    if cause.last_at - cause.first_at < timedelta(seconds=1):
        return f"{lines} in its log at {_short(cause.last_at)}"
    return f"{lines} in its log from {_short(cause.first_at)} to {_short(cause.last_at)}"


def _short(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _began(seen: Observation, cause: Cause | None, now: datetime) -> datetime:
    """The moment to explain: the end of a bot that is down, else the first line of the cause, else now."""
    ended = seen.runtime.exit
    if not seen.runtime.instances and ended and ended.at:
        return ended.at
    return cause.first_at if cause and cause.first_at else now


def _changed(began: datetime, entries: Sequence[Happened], config_file: Path | None) -> tuple[str, ...]:
    """What happened in the day before `began`, newest last."""
    changes = [(one.at, clean(one.sentence)) for one in entries]
    if config_file is not None:
        changes += _edited(config_file)
    near = sorted(one for one in changes if began - CHANGED_WITHIN <= one[0] <= began)
    return tuple(f"{_short(at)}: {text}" for at, text in near[-CHANGES:])


def _edited(path: Path) -> list[tuple[datetime, str]]:
    try:
        return [(datetime.fromtimestamp(path.stat().st_mtime, UTC), f"{path.name} was edited")]
    except OSError:
        return []
