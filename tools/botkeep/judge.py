"""DECIDE: one look at a bot and its history in, a verdict out. Pure: no clock, no file, no process.

All numbers come from the front matter of the playbooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from .history import clock
from .model import (
    FAULT_ORDER,
    Actor,
    Cause,
    CauseClass,
    DataVerdict,
    Evidence,
    Exit,
    Fault,
    Finding,
    History,
    Inspection,
    Instance,
    InstanceState,
    Observation,
    ProgramLook,
    Progress,
    Status,
    Tempo,
    Verdict,
    Wanted,
)
from .playbooks import Playbooks, Policy
from .progress import trades_last_hour, usual_busiest_hour

DAMAGED_ROWS = frozenset({"C2", "C4", "C5", "C9"})
"""Rules about rows inside a file; the others are about the file as a whole."""


@dataclass(frozen=True)
class _Look:
    """One bot's case: what all the rules below read."""

    seen: Observation
    playbooks: Playbooks
    history: History
    now: datetime

    def policy(self, fault: Fault) -> Policy:
        return self.playbooks.get(fault).policy

    @property
    def alive(self) -> bool:
        return bool(self.seen.runtime.instances)

    @property
    def ended(self) -> Exit | None:
        """How the run that is missing now ended. An exit after which another copy was seen up is of an older run."""
        ended = self.seen.runtime.exit
        if ended is None or ended.at is None:
            return ended
        later = (one for one in self.history.spans if one.up and one.instance != ended.key and one.last > ended.at)
        return None if next(later, None) else ended


def decide(
    seen: Observation,
    playbooks: Playbooks,
    past: History,
    now: datetime,
    first: Sequence[Evidence] | None = None,
) -> Verdict:
    """What is true of this bot, and which playbook handles it.

    `first`: the evidence of an earlier look. Suspect evidence then counts only if that look saw the very same
    thing, and what counts is confirmed.
    """
    look = _Look(seen, playbooks, past, now)
    unknown = _unknown(look)
    if unknown:
        return _verdict(look, Status.UNKNOWN, unknown)
    if past.wanted is Wanted.DOWN and not look.alive:
        damaged = next((one.text for one in _data(look)), "")
        sentence = f"{seen.bot} is stopped on purpose ({past.wanted_by}). {damaged}".rstrip()
        return _verdict(look, Status.STOPPED, sentence)
    evidence = _sorted(_evidence(look))
    if first is not None:
        known = {(one.fault, one.rule, one.key) for one in first}
        evidence = [one for one in evidence if one.certain or (one.fault, one.rule, one.key) in known]
    if not evidence:
        return _verdict(look, Status.HEALTHY, _healthy(look))
    return _faulty(look, evidence, confirmed=first is not None or not _needs_second_look(look, evidence))


def _needs_second_look(look: _Look, evidence: Sequence[Evidence]) -> bool:
    """Suspect evidence of the first fault waits for a second look where its playbook says so."""
    leading = [one for one in evidence if one.fault is evidence[0].fault]
    if any(one.certain for one in leading):
        return False
    return look.policy(evidence[0].fault).confirm.looks > 1


def _sorted(evidence: Iterable[Evidence]) -> list[Evidence]:
    return sorted(evidence, key=lambda one: (FAULT_ORDER[one.fault], not one.certain))


def _unknown(look: _Look) -> str | None:
    """Why nothing can be said, if so."""
    seen = look.seen
    if seen.config_error:
        return f"{seen.bot} cannot be looked at: {seen.config_error}"
    if seen.runtime.error:
        return f"{seen.bot} cannot be looked at: {seen.runtime.error}"
    sure_of_the_bot = len(seen.runtime.instances) == 1 or look.history.wanted is Wanted.DOWN
    if seen.data and seen.data.verdict is DataVerdict.UNREADABLE and sure_of_the_bot:
        found = seen.data.findings[0].text if seen.data.findings else "it cannot be read."
        return f"{seen.bot} {'runs' if look.alive else 'does not run'}, but its data file says nothing: {found}"
    return None


def _verdict(look: _Look, status: Status, sentence: str) -> Verdict:
    seen, instances = look.seen, look.seen.runtime.instances
    return Verdict(
        bot=seen.bot,
        status=status,
        at=seen.at,
        sentence=sentence,
        up=_up(look, status),
        wanted=look.history.wanted,
        causes=tuple(cause for cause in seen.causes if _speaks(look, cause) and not _answered(look, cause)),
        instance=instances[0].key if instances else None,
        pid=instances[0].pid if instances else None,
        generation=seen.runtime.generation,
        notes=_notes(seen),
        profile=seen.profile,
        profile_why=seen.profile_why,
        program=seen.program,
    )


def _notes(seen: Observation) -> tuple[str, ...]:
    """What a person should know and nothing is done about: an odd but sound data file, an API that cannot be asked."""
    sound = seen.data is not None and seen.data.verdict in (DataVerdict.OK, DataVerdict.REPLACED)
    odd = [f"Its data file ({one.rule}): {one.text}" for one in seen.data.findings] if seen.data and sound else []
    engine = seen.runtime.notes
    unusable = [f"Its API says nothing that can be used: {seen.program.api}"] if seen.program.api else []
    return (*odd, *engine, *unusable, *seen.program.notes, *seen.notes)


def _up(look: _Look, status: Status) -> bool | None:
    """Up: an instance was alive and not frozen. None: nobody can say, or it is stopped on purpose."""
    if look.seen.config_error or look.seen.runtime.error or status is Status.STOPPED:
        return None
    return any(one.state is not InstanceState.FROZEN for one in look.seen.runtime.instances)


def _healthy(look: _Look) -> str:
    instance = look.seen.runtime.instances[0]
    since = f" since {clock(instance.started_at)}" if instance.started_at else ""
    known = instance.ours or instance.kept_by
    adopted = "" if known else ", adopted: botkeep did not start it, so its exit will not be known"
    stopped = f"; the last word was: {look.history.wanted_by}" if look.history.wanted is Wanted.DOWN else ""
    return f"{look.seen.bot} runs{since} (pid {instance.pid}{adopted}){stopped}{_state(look.seen.program)}."


STATES = {
    "stopped": "; its own state is stopped, so it trades nothing until somebody starts it there",
    "paused": "; its own state is paused, so it opens no new positions",
    "starting": "; it is starting",
}


def _state(program: ProgramLook) -> str:
    """What a person set in the bot itself is no fault, and must not be overlooked."""
    return STATES.get(program.state, "")


def _faulty(look: _Look, evidence: Sequence[Evidence], *, confirmed: bool) -> Verdict:
    faults = tuple(dict.fromkeys(one.fault for one in evidence))
    verdict = _verdict(look, Status.FAULTY, evidence[0].text)
    stalled = Fault.BOT_HUNG in faults and confirmed
    return replace(
        verdict,
        fault=faults[0],
        others=faults[1:],
        evidence=tuple(evidence),
        confirmed=confirmed,
        up=False if stalled else verdict.up,
        down_since=_down_since(look) if not look.alive or stalled else None,
    )


def _down_since(look: _Look) -> datetime:
    """When it went down: the recorded exit, a hung bot's last sign of life, else the first look that found it down.

    While it was stopped on purpose it was not down: that counts from when somebody wanted it up again.
    """
    ended = look.ended
    if not look.alive and ended and ended.at:
        return max(ended.at, look.history.wanted_since or ended.at)
    signs = [one.at for one in look.seen.progress if one.at]
    if look.alive and signs:
        return max(signs)
    first = look.now
    for span in reversed(look.history.spans):
        if span.up is not False:
            break
        first = span.first
    return first


# ---------------------------------------------------------------------------------------------------- the rules


def _evidence(look: _Look) -> Iterable[Evidence]:
    yield from _duplicated(look)
    yield from _another_copy(look)
    yield from _held(look)
    yield from _trading_too_often(look)
    yield from _from_the_log(look)
    yield from _disk(look)
    yield from _data(look)
    yield from _looping(look)
    yield from _down(look)
    if look.alive:
        yield from _hung(look)
        yield from _blind(look)
        yield from _endpoint(look)
        yield from _stale(look)


def _duplicated(look: _Look) -> Iterable[Evidence]:
    instances = look.seen.runtime.instances
    if len(instances) > 1:
        which = ", ".join(f"pid {one.pid} ({_origin(one)})" for one in instances)
        text = f"{look.seen.bot} runs {len(instances)} times: {which}."
        yield Evidence(Fault.BOT_DUPLICATED, "instances", True, text, "|".join(one.key for one in instances))


def _another_copy(look: _Look) -> Iterable[Evidence]:
    """A copy that the runtime cannot end: it says in this bot's log, or on its port, that it is this bot."""
    known = {pid for one in look.seen.runtime.instances for pid in one.members}
    others = [pid for pid in look.seen.program.others if pid not in known]
    if others:
        which = ", ".join(f"pid {pid}" for pid in others)
        text = f"{look.seen.bot} has another copy, {which}, which botkeep neither started nor finds by its command."
        yield Evidence(Fault.BOT_DUPLICATED, ANOTHER_COPY, False, text, which)


ANOTHER_COPY = "another-copy"


def _origin(instance: Instance) -> str:
    since = f" at {instance.started_at:%H:%M:%SZ}" if instance.started_at else ""
    return f"started by {'botkeep' if instance.ours else 'somebody else'}{since}"


def _trading_too_often(look: _Look) -> Iterable[Evidence]:
    """More trades in the last hour than the person allows, or than the bot's own busiest hour makes usual.

    Trades that a person knew of when they started it again do not count a second time.
    """
    if look.seen.data is None:
        return
    tempo, allowed, bot = look.seen.data.tempo, look.seen.max_trades_per_hour, look.seen.bot
    count = trades_last_hour(tempo, look.now, look.history.traded_anew)
    made = f"{bot} made {count} trades within {_within(tempo, count)}"
    if allowed is not None and count > allowed:
        text = f"{made}; max_trades_per_hour allows {allowed}."
        yield Evidence(Fault.TRADING_TOO_OFTEN, OVER_LIMIT, True, text)
    when = look.policy(Fault.TRADING_TOO_OFTEN).when
    usual = usual_busiest_hour(tempo, look.now, look.history.runaway_hours)
    if usual and count >= when.at_least and count > usual * when.times_usual:
        text = f"{made}; the busiest hour of its last 14 days had {usual}."
        yield Evidence(Fault.TRADING_TOO_OFTEN, UNUSUAL if allowed is None else UNUSUAL_WITHIN_LIMIT, False, text)


OVER_LIMIT = "max_trades_per_hour"
UNUSUAL = "usual"
UNUSUAL_WITHIN_LIMIT = "usual-within-limit"
"""Told and not restarted, but not stopped either: the person's own limit allows it."""
HELD = "held"
"""A round stopped it, and no clock will start it again."""


def _within(tempo: Tempo, count: int) -> str:
    """`14 minutes`, or `an hour` where they are spread over it."""
    newest = sorted(tempo.recent)[-count:]
    minutes = round((newest[-1] - newest[0]) / 60) if newest else 60
    return "an hour" if minutes > 50 else "a minute" if minutes < 2 else f"{minutes} minutes"


def _held(look: _Look) -> Iterable[Evidence]:
    """What a round stopped is down for that, and not because it died."""
    held, bot = look.history.held, look.seen.bot
    if held is not None and not look.alive:
        text = (
            f"{bot} was stopped by a round at {clock(held.at)}: {held.why.rstrip('.')}. It stays down until a person "
            f"starts it: `botkeep start {bot}`."
        )
        yield Evidence(held.fault, HELD, True, text, held.entry)


def _speaks(look: _Look, cause: Cause) -> bool:
    """Whether a log line still says something: of the newest run, and a ban that is not over."""
    if not cause.this_run:
        return False
    if cause.until is not None:
        return cause.until > look.now
    if cause.klass is CauseClass.WAIT and cause.last_at is not None:
        return bool(look.now - cause.last_at < look.policy(Fault.API_RATE_LIMITED).when.wait)
    return True


def _from_the_log(look: _Look) -> Iterable[Evidence]:
    """Faults that the log names. What the log says is text: it may forbid an action, it never starts one alone."""
    for cause in look.seen.causes:
        if cause.fault is None or not _speaks(look, cause) or _answered(look, cause):
            continue
        until = f" until {clock(cause.until)}" if cause.until else ""
        lines = f"{cause.count} line{'s' * (cause.count != 1)}"
        text = f"{look.seen.bot}: {cause.cause.rstrip('.')}{until} ({lines} in its log)."
        yield Evidence(cause.fault, cause.signature, False, text, cause.signature)


def _answered(look: _Look, cause: Cause) -> bool:
    """What the world shows to be mended is no fault any more, whatever the last lines of a dead run say."""
    if cause.klass is CauseClass.REPAIR and look.seen.data is not None:
        return look.seen.data.verdict is DataVerdict.OK
    if cause.fault is Fault.DISK_FULL and look.seen.disk_free is not None:
        return bool(look.seen.disk_free > 10 * look.policy(Fault.DISK_FULL).when.free_below)
    return cause.fault is Fault.OUT_OF_MEMORY and look.alive


def _disk(look: _Look) -> Iterable[Evidence]:
    free, bound = look.seen.disk_free, look.policy(Fault.DISK_FULL).when.free_below
    if free is not None and free < bound:
        text = f"{look.seen.bot} has {free / 1e6:.0f} MB of disk left where it writes."
        yield Evidence(Fault.DISK_FULL, "free_below", True, text)


def _data(look: _Look) -> Iterable[Evidence]:
    data = look.seen.data
    if data is None or data.verdict not in (DataVerdict.CORRUPT, DataVerdict.SUSPECT, DataVerdict.MISSING):
        return
    if data.verdict is DataVerdict.MISSING and not data.findings:
        return  # never seen: a bot that has not traded yet has no file
    corrupt = data.verdict is DataVerdict.CORRUPT
    for finding in data.findings:
        text = f"{look.seen.bot}'s data file is damaged ({finding.rule}): {finding.text}"
        yield Evidence(Fault.DATA_CORRUPT, finding.rule, finding.certain and corrupt, text, _damage_key(data, finding))


def _damage_key(data: Inspection, finding: Finding) -> str:
    """What two looks must agree on. Damage inside a file that a living bot appends to stays at its place; a file

    that is short, empty or torn as a whole has to be the very same one: a bot that rewrites its file shows each of
    these for a moment, and two such moments are no evidence.
    """
    inode = ":".join(data.identity.split(":")[:2])
    if finding.key:
        return f"{inode}:{finding.key}"
    where = inode if finding.rule in DAMAGED_ROWS else data.identity
    return f"{where}:{finding.offset}:{finding.text}"


def _looping(look: _Look) -> Iterable[Evidence]:
    """An engine restarts a bot that dies again and again, and calls it running."""
    when, bot = look.policy(Fault.BOT_CRASH_LOOPING).when, look.seen.bot
    word = look.seen.runtime.giving_up
    if word:
        yield Evidence(Fault.BOT_CRASH_LOOPING, "engine", True, f"{bot} is not kept up any more: {word}.", word)
    own = [one for one in look.history.restarts if one.actor is Actor.ENGINE and look.now - one.at <= when.within]
    if len(own) >= when.restarts:
        text = f"{bot} was restarted {len(own)} times by its engine since {clock(own[0].at)}."
        yield Evidence(Fault.BOT_CRASH_LOOPING, "engine-restart-loop", True, text)


def _down(look: _Look) -> Iterable[Evidence]:
    if look.alive:
        return
    bot, ended = look.seen.bot, look.ended
    if ended is not None and ended.out_of_memory:
        text = f"{bot} was killed by the kernel for lack of memory{_peak(ended)}."
        yield Evidence(Fault.OUT_OF_MEMORY, "kernel-oom", True, text)
    when = look.policy(Fault.BOT_CRASH_LOOPING).when
    recent = [one for one in look.history.restarts if one.after_fault and look.now - one.at <= when.within]
    if len(recent) >= when.restarts:
        text = f"{bot} was started {len(recent)} times since {clock(recent[0].at)} and is down again."
        yield Evidence(Fault.BOT_CRASH_LOOPING, "restarts", True, text)
    rule = "silent-exit" if ended and ended.code and not look.seen.causes else "no-instance"
    yield Evidence(Fault.BOT_NOT_RUNNING, rule, True, f"{bot} is not running: {how_it_ended(ended)}.")


def how_it_ended(ended: Exit | None) -> str:
    """A clause: exit code, signal and peak memory where they were seen, `not known` where not."""
    if ended is None:
        return "no copy was found; how it ended is not known, since botkeep did not start it"
    if ended.failed_to_start:
        return f"its command could not be executed ({ended.failed_to_start})"
    if ended.code is None and ended.signal is None:
        return "how it ended is not known, since what watched it is gone too"
    how = f"it ended with exit code {ended.code}" if ended.signal is None else f"it was killed by signal {ended.signal}"
    when = f" at {ended.at:%Y-%m-%d %H:%M:%SZ}" if ended.at else ""
    return f"{how}{when}{_peak(ended)}"


def _peak(ended: Exit) -> str:
    return f", peak memory {ended.peak_rss_bytes / 1e6:.0f} MB" if ended.peak_rss_bytes else ""


def _hung(look: _Look) -> Iterable[Evidence]:
    """A frozen process is certain. Silence is suspect, and only against the bot's own history of pauses."""
    bot = look.seen.bot
    frozen = [one for one in look.seen.runtime.instances if one.state is InstanceState.FROZEN]
    if frozen:
        how = frozen[0].why_frozen or f"pid {frozen[0].pid} is stopped by a signal"
        text = f"{bot} is frozen: {how}{_last_sign(look)}."
        yield Evidence(Fault.BOT_HUNG, "frozen", True, text)
        return
    if not _waits_for_an_exchange(look):
        yield from _stands(look) if _tells(look.seen.program) else _silent(look)


def _tells(program: ProgramLook) -> bool:
    """Whether the program itself tells that it works: then the age of its log says nothing."""
    return program.loop_known or (program.heartbeat_every is not None and program.heartbeat_at is not None)


def _stands(look: _Look) -> Iterable[Evidence]:
    """A main loop that is not done any more. The API of such a bot goes on answering: it is a thread of its own.

    Not a hang: the first loop, which loads everything; `stopped`, in which no loop is done; a loop that asks a mute
    exchange once for each open trade.
    """
    program, bot = look.seen.program, look.seen.bot
    when = look.policy(Fault.BOT_HUNG).when
    limit = max(when.loop_at_least, when.per_open_trade * ((program.open_trades or 0) + 1))
    if program.loop_known:
        if program.state != "stopped" and program.loop_at is not None and look.now - program.loop_at > limit:
            text = (
                f"{bot} does nothing: its main loop was last done at {_moment(program.loop_at)}, and "
                f"{length(limit)} is the most that is normal with {_trades(program)}."
            )
            yield Evidence(Fault.BOT_HUNG, "main-loop-stands", False, text, f"loop:{program.loop_at}")
        return
    every, last = program.heartbeat_every, program.heartbeat_at
    if every is not None and last is not None and look.now - last > max(limit, every * when.heartbeats):
        text = f"{bot} sends no heartbeat since {_moment(last)}; it used to send one every {length(every)}."
        yield Evidence(Fault.BOT_HUNG, "no-heartbeat", False, text, f"heartbeat:{last}")


def _trades(program: ProgramLook) -> str:
    count = program.open_trades
    return "its open trades" if count is None else "1 open trade" if count == 1 else f"{count} open trades"


def _silent(look: _Look) -> Iterable[Evidence]:
    """Silence, against the bot's own history of pauses. A sign without a history counts while it is fresh."""
    bot, when = look.seen.bot, look.policy(Fault.BOT_HUNG).when
    known = [one for one in look.seen.progress if one.source != "data" and not _is_extra(look, one)]
    extra = [one for one in look.seen.progress if _is_extra(look, one)]
    measured = [one for one in known if one.normal is not None] or known
    untold = [*extra, *(one for one in known if one not in measured)]
    if any(one.at is not None and look.now - one.at <= when.silent_at_least for one in untold):
        return
    signs = [*measured, *(one for one in extra if one.normal is not None)]
    silent = [one for one in signs if _is_silent(one, look.now, when.silent_at_least, when.times_normal)]
    if signs and len(silent) == len(signs) and not _fresh_trade(look, when.silent_at_least):
        worst = silent[0]
        text = (
            f"{bot} is silent: its {worst.source} says nothing since {_moment(worst.at)}, "
            f"and its longest normal pause is {length(worst.normal)}."
        )
        yield Evidence(Fault.BOT_HUNG, "silent", False, text, f"{worst.source}:{worst.at}")


def _is_extra(look: _Look, sign: Progress) -> bool:
    """Whether only the bot's profile knows of this sign."""
    return sign in look.seen.program.progress


def _last_sign(look: _Look) -> str:
    signs = [(one.at, one.source) for one in look.seen.progress if one.at]
    return f"; its last sign of life was its {max(signs)[1]} at {_moment(max(signs)[0])}" if signs else ""


def _waits_for_an_exchange(look: _Look) -> bool:
    return any(cause.klass is CauseClass.WAIT and _speaks(look, cause) for cause in look.seen.causes)


def _is_silent(sign: Progress, now: datetime, at_least: timedelta, times: float) -> bool:
    if sign.at is None or sign.normal is None:
        return False
    return now - sign.at > max(at_least, sign.normal * times)


def _fresh_trade(look: _Look, within: timedelta) -> bool:
    data = [one for one in look.seen.progress if one.source == "data"]
    return any(one.at is not None and look.now - one.at <= within for one in data)


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%SZ}" if at else "an unknown time"


def length(span: timedelta | None) -> str:
    """A length of time for people."""
    seconds = int(span.total_seconds()) if span else 0
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _blind(look: _Look) -> Iterable[Evidence]:
    """Green, and without data: its loop goes on, its API answers, and its candles stand still."""
    if look.seen.program.blind and not _waits_for_an_exchange(look):
        text = f"{look.seen.bot} is blind: {look.seen.program.blind}."
        yield Evidence(Fault.BOT_IMPAIRED, "no-fresh-data", False, text, "no-fresh-data")


def _endpoint(look: _Look) -> Iterable[Evidence]:
    health, program = look.seen.health, look.seen.program
    if _just_started(look):
        return
    if health is not None and not health.ok:
        text = f"{look.seen.bot}'s health endpoint fails ({health.rule}): {health.text}"
        yield Evidence(Fault.HEALTH_ENDPOINT_FAILING, health.rule, health.certain, text, health.rule)
    elif (own := look.seen.runtime.health) is not None and not own.ok:
        text = f"{look.seen.bot}'s health check fails, says its engine ({own.rule}): {own.text}"
        yield Evidence(Fault.HEALTH_ENDPOINT_FAILING, own.rule, own.certain, text, own.rule)
    elif health is None and program.api_rule in API_GONE:
        text = f"{look.seen.bot}'s API fails ({program.api_rule}): {program.api}"
        yield Evidence(Fault.HEALTH_ENDPOINT_FAILING, program.api_rule, False, text, program.api_rule)


API_GONE = ("refused", "timeout", "wrong-owner")
"""What the API of a living bot does not do. A wrong password or an answer of another version is a person's to mend."""


def _just_started(look: _Look) -> bool:
    """A starting bot does not listen yet: not before it has been up as long as its playbook verifies a start."""
    grace = look.policy(Fault.BOT_NOT_RUNNING).verify.within
    started = [one.started_at for one in look.seen.runtime.instances if one.started_at]
    return any(look.now - at < grace for at in started)


def _stale(look: _Look) -> Iterable[Evidence]:
    """No trade for far longer than ever before. Suspect for ever: a quiet market looks the same."""
    if look.seen.program.state in ("stopped", "paused"):
        return  # somebody told it not to trade
    when = look.policy(Fault.DATA_STALE).when
    for sign in look.seen.progress:
        if sign.source == "data" and _is_silent(sign, look.now, when.quiet_at_least, when.times_normal):
            text = (
                f"{look.seen.bot} has written no trade since {_moment(sign.at)}; "
                f"its longest normal pause is {length(sign.normal)}."
            )
            yield Evidence(Fault.DATA_STALE, "quiet", False, text, str(sign.at))
