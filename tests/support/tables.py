"""Short words for tables of histories: what a test of the pure rooms writes instead of starting processes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from botkeep.ledger import Entry, Kind
from botkeep.model import (
    Cause,
    CauseClass,
    DataVerdict,
    Exit,
    Fault,
    Finding,
    HealthLook,
    Inspection,
    Instance,
    InstanceState,
    Observation,
    ProgramLook,
    Progress,
    RuntimeLook,
    Span,
    Status,
    Tempo,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def ago(**length: float) -> datetime:
    """NOW minus a timedelta."""
    return NOW - timedelta(**length)


def instance(
    number: int = 1, *, ours: bool = True, state: str = "running", started: datetime | None = None
) -> Instance:
    """A live copy."""
    return Instance(
        key=f"boot:{number}",
        pid=number,
        state=InstanceState(state),
        started_at=started or ago(hours=5),
        ours=ours,
        how="recorded" if ours else "command",
        members=(number,),
        entry=f"e{number}" if ours else None,
    )


def seen(*instances: Instance, ended: Exit | None = None, **more: Any) -> Observation:
    """One look at the bot `doge`."""
    return Observation(
        bot="doge", at=NOW, runtime=RuntimeLook(instances=instances, exit=ended, generation=1), can_restart=True, **more
    )


def cause(klass: str, fault: Fault | None = None, **more: Any) -> Cause:
    """A log signature that matched two minutes ago."""
    plain = Cause("sig", "The log says so.", CauseClass(klass), fault, "line", 3, ago(minutes=9), ago(minutes=2))
    return replace(plain, **more)


def damage(rule: str, *, certain: bool, verdict: str = "corrupt", identity: str = "1:2:3:4") -> Inspection:
    """A data file with one finding."""
    finding = Finding(rule, "something is wrong in it.", certain, row=7, offset=99)
    return Inspection(DataVerdict(verdict), (finding,), identity=identity)


def healthy_file(tempo: Tempo | None = None) -> Inspection:
    """A sound data file."""
    return Inspection(DataVerdict.OK, tempo=tempo or Tempo())


def silent(source: str, minutes: float, normal: float = 1.0) -> Progress:
    """Nothing for so many minutes, where pauses of `normal` minutes were the longest."""
    return Progress(source, ago(minutes=minutes), timedelta(minutes=normal), 100)


def unmeasured(source: str, minutes: float) -> Progress:
    """Nothing for so many minutes, where nobody knows yet which pauses are normal."""
    return Progress(source, ago(minutes=minutes), None, 3)


def looping(minutes: float | None, trades: int = 0, state: str = "running") -> ProgramLook:
    """A freqtrade whose API says when its main loop was last done; None: its first is not done yet."""
    at = None if minutes is None else ago(minutes=minutes)
    return ProgramLook(state=state, state_from="api", loop_known=True, loop_at=at, open_trades=trades)


def beating(minutes: float, every: float = 1.0, state: str = "running") -> ProgramLook:
    """One that can only be heard in its log: the newest heartbeat, and their distance, in minutes."""
    pause = timedelta(minutes=every)
    return ProgramLook(state=state, state_from="log", heartbeat_at=ago(minutes=minutes), heartbeat_every=pause)


def failing(rule: str = "status", *, certain: bool = False) -> HealthLook:
    """A health endpoint that does not say 200."""
    return HealthLook(False, "it answered 500.", rule, certain)


def span(status: Status, start: datetime, end: datetime, fault: Fault | None = None, *, up: bool | None = None) -> Span:
    """A stretch of one status."""
    return Span("doge", status, fault, (status is Status.HEALTHY) if up is None else up, start, end)


_SEQ = iter(range(1, 10**9))


def entry(kind: str, action: str, at: datetime, **more: Any) -> Entry:
    """A ledger entry of the bot `doge`."""
    number = next(_SEQ)
    plain = Entry(number, f"e{number}", at, Kind(kind), "doge", action, "assistant", None, "", "because", {}, "", "")
    return replace(plain, **more)


def restarted(at: datetime, *, ok: bool | None = False, actor: str = "assistant", **data: Any) -> list[Entry]:
    """A restart: its intent and, unless `ok` is None, its outcome."""
    intent = entry("intent", "restart", at, actor=actor, data={"after_fault": True, **data})
    if ok is None:
        return [intent]
    result = "done" if ok else "failed"
    return [intent, entry("outcome", "restart", at, ref=intent.id, result=result)]
