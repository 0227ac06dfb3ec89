"""Why a bot is as it is: the cause first, then how it ended, its last lines, what changed before and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .advice import advice_for
from .causekinds import CauseKind, kind_of
from .causes import read_log
from .exits import exit_meaning
from .hostring import Ring
from .incidents import Incident
from .ledger import Entry
from .logfile import FIRST_READ, LogError, last_bytes
from .model import Cause, CauseClass, Diagnosis, Exit, Fault, HostCause, HostLook, LogLook, Observation
from .profiles import Profile
from .sizes import size_text
from .untrusted import FENCE_LIMIT, clean, clean_lines
from .what_changed import Watched, what_changed

__all__ = ["LogLook", "exit_meaning", "explain", "leading", "read_log", "tail"]

TAIL_LINES = 40
TAIL_READ = 32 * 1024
EVIDENCE = 4
"""Lines: of so many causes the newest one."""


# ---------------------------------------------------------------------------------------------------- the last lines


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


def part_read(path: Path) -> str:
    """`the last 256 KiB of 5.0 GB`, of a log that is larger than what a tail reads; else empty."""
    try:
        size = path.stat().st_size
    except OSError:
        return ""
    return f"the last {FIRST_READ // 1024} KiB of {size_text(size)}" if size > FIRST_READ else ""


def _last_lines(log: Path | None) -> tuple[list[str], int, bool]:
    if log is None:
        return ["(no log_file is configured, and botkeep did not start it)"], 0, False
    try:
        return tail(log)
    except LogError as error:
        return [f"({error})"], 0, False


# ------------------------------------------------------------------------------------------------------ the cause

_WEIGHT = {CauseClass.STOP: 0, CauseClass.HOST: 1, CauseClass.REPAIR: 2, CauseClass.WAIT: 3, CauseClass.RESTART: 4}
_ASKS_FOR = {
    CauseClass.WAIT: "wait, a restart does not help",
    CauseClass.RESTART: "a restart helps",
    CauseClass.STOP: "a restart does not help, a person has to see to it",
    CauseClass.REPAIR: "its data have to be repaired",
    CauseClass.HOST: "this machine has to be mended first",
}
_EXPLAINS = {
    "clock": frozenset({CauseKind.CLOCK}),
    "dns": frozenset({CauseKind.DNS, CauseKind.EXCHANGE}),
    "disk": frozenset({CauseKind.DISK}),
    "memory": frozenset({CauseKind.MEMORY}),
    "oom-kill": frozenset({CauseKind.MEMORY}),
}
"""A host's cause -> what a log then complains of."""


def leading(causes: Sequence[Cause]) -> Cause | None:
    """The cause to name first: of the newest run, the one that forbids most, with an end or a playbook."""
    return min(causes, key=_weight, default=None)


def _weight(one: Cause) -> tuple[bool, int, bool, bool, int]:
    """Lines of a bot that backs off are many, and the ban that it backs off from is named once."""
    return not one.this_run, _WEIGHT[one.klass], one.until is None, one.fault is None, -one.count


@dataclass(frozen=True)
class _Case:
    """One bot's state and what explains it."""

    bot: str
    seen: Observation
    log: Cause | None
    """What its log names first."""
    host: HostCause | None
    """What is wrong with the machine and explains the state, or what the log complains of."""
    meaning: str
    """How it ended, in words."""
    found: str
    now: datetime

    @property
    def alive(self) -> bool:
        return bool(self.seen.runtime.instances)

    @property
    def klass(self) -> CauseClass | None:
        """What the cause asks for; the run that died asks for nothing any more."""
        if self.log is not None and self.log.this_run:
            return self.log.klass
        if self.host is None:
            return None
        return CauseClass.RESTART if self.host.id == "oom-kill" else CauseClass.HOST

    @property
    def until(self) -> datetime | None:
        until = self.log.until if self.log else None
        return until if until and until > self.now else None

    def sentence(self) -> str:
        """Cause, class, until when; how often; how it ended."""
        if self.host is None and self.log is None:
            return f"{self._state()}; its log names no known cause."
        if self.host is None and self.log is not None and not self.log.this_run and self.found:
            return f"{self.found.rstrip('.')}; before its newest start: {self._logged(self.log)}."
        asks = f": {_ASKS_FOR[self.klass]}" if self.klass else ""
        ended = f"; {self.meaning}" if self.meaning and not self.alive else ""
        return f"{self.bot}: {self._cause()}{asks}{ended}."

    def _state(self) -> str:
        return self.found.rstrip(".") or f"{self.bot}: {'it runs' if self.alive else self.meaning}"

    def _cause(self) -> str:
        logged = self._logged(self.log) if self.log else ""
        before = "" if self.log is None or self.log.this_run else "Before its newest start: "
        if self.host is None:
            return f"{before}{logged}"
        text = self.host.text.rstrip(".")
        return f"{text}; {before.lower() or 'its log says: '}{logged}" if logged else text

    def _logged(self, cause: Cause) -> str:
        until = f" until {_short(self.until)}" if self.until else ""
        return f"{cause.cause.rstrip('.')}{until} ({_how_often(cause)})"


def _how_often(cause: Cause) -> str:
    lines = "one line" if cause.count == 1 else f"{cause.count} lines"
    if cause.first_at is None or cause.last_at is None:
        return f"{lines} in its log"
    if cause.last_at - cause.first_at < timedelta(seconds=1):
        return f"{lines} in its log at {_short(cause.last_at)}"
    return f"{lines} in its log from {_short(cause.first_at)} to {_short(cause.last_at)}"


def _short(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _explaining(host: HostLook | None, log: Cause | None, *, alive: bool, found: str) -> HostCause | None:
    """What of the machine explains what the log complains of; or, where it says nothing, a bot that is not well."""
    kind = kind_of(log) if log and log.this_run else None
    for one in host.causes if host else ():
        if kind is not None and kind in _EXPLAINS.get(one.id, ()):
            return one
        if one.id == "oom-kill" and not alive and (one.certain or kind is None):
            return one
        if kind is None and one.id == "disk" and (found or not alive):
            return one
    return None


# ------------------------------------------------------------------------------------------------------- explaining


def explain(
    bot: str,
    seen: Observation,
    *,
    profile: Profile,
    log: Path | None,
    now: datetime,
    entries: Sequence[Entry] = (),
    config_file: Path | None = None,
    found: str = "",
    fault: Fault | None = None,
    host: HostLook | None = None,
    files: Iterable[Watched] = (),
    ring: Ring | None = None,
    incidents: Iterable[Incident] = (),
    prose: Callable[[Fault], str] = lambda _: "",
) -> Diagnosis:
    """Why the bot is as it is: cause first, then exit, then its last lines and what changed before. Reads the tail.

    `entries`: of the ledger, about this bot, oldest first. `config_file`: bots.json; `files`: `files_of` the bot.
    `found`, `fault`: what the verdict says of a bot that is not well; a frozen or doubled bot has no cause in its
    log, and "it runs" would invite to leave it so. `host`: as `host.examine` gave it, else what the look saw.
    `ring`: the cursor of `hostring.remember`. `prose`: of a fault's playbook, for what to do.
    """
    lines, total, truncated = _last_lines(log)
    host = host or seen.host
    first, alive = leading(seen.causes), bool(seen.runtime.instances)
    of_host = _explaining(host, first, alive=alive, found=found)
    ended = _as_the_kernel_saw(seen.runtime.exit, of_host)
    meaning = "" if alive and ended is None else exit_meaning(ended, profile, seen.causes)
    case = _Case(bot, seen, first, of_host, meaning, found, now)
    watched = [*files, *([Watched(config_file.name, config_file)] if config_file else [])]
    return Diagnosis(
        bot=bot,
        at=now,
        sentence=case.sentence(),
        causes=seen.causes,
        exit=ended,
        exit_meaning=meaning,
        lines=tuple(lines),
        lines_total=total,
        truncated=truncated,
        changed=what_changed(
            _began(seen, first, now), entries=entries, files=watched, versions=_versions(seen), ring=ring
        ),
        cause=of_host.id if of_host else first.signature if first else "",
        klass=case.klass,
        until=case.until,
        advice=clean(advice_for(first, of_host, fault, prose, profile.catalogue().rules)),
        host=_explaining_first(host, of_host),
        evidence=_evidence(seen.causes, first),
        incident=next((one.sentence for one in incidents if bot in one.bots), ""),
        log_part=part_read(log) if log and truncated else "",
        notes=host.notes if host else (),
    )


def _as_the_kernel_saw(ended: Exit | None, host: HostCause | None) -> Exit | None:
    """The watcher of a bot cannot tell a kill of the machine's from somebody's; the kernel's log can."""
    if ended is not None and host is not None and host.id == "oom-kill" and host.certain:
        return replace(ended, out_of_memory=True)
    return ended


def _explaining_first(host: HostLook | None, first: HostCause | None) -> tuple[HostCause, ...]:
    causes = host.causes if host else ()
    return (*((first,) if first else ()), *(one for one in causes if one is not first))


def _evidence(causes: Sequence[Cause], first: Cause | None) -> tuple[str, ...]:
    """The newest line of each cause, the leading one's first; cleaned anew, for more secrets may be known by now."""
    ordered = sorted(causes, key=lambda one: one is not first)
    return tuple(dict.fromkeys(clean(one.line) for one in ordered if one.line))[:EVIDENCE]


def _versions(seen: Observation) -> Mapping[str, Any]:
    versions = seen.program.cursor.get("versions")
    return versions if isinstance(versions, dict) else {}


def _began(seen: Observation, cause: Cause | None, now: datetime) -> datetime:
    """The moment to explain: the end of a bot that is down, else the first line of the cause, else now."""
    ended = seen.runtime.exit
    if not seen.runtime.instances and ended and ended.at:
        return ended.at
    return cause.first_at if cause and cause.first_at else now
