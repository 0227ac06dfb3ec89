"""Hummingbot: what its log, its own command and its heartbeat say of it.

It is silent by design. An idle strategy writes no line, its file status.json is written only when somebody asks, and
its heartbeat over MQTT is a thread's, which beats on while the rest hangs. So nothing here is a proof by itself:

- a log that never paused for long and does now tells of market data that have stopped, for the process runs, hbot
  answers and heartbeats come all the same. Then those two are told as a note, not as progress;
- for a log that is often silent, they are what tells an idle bot from a dead one;
- an engine that does not answer hbot any more is frozen, whatever its log was like: the time of its last answer is
  when its main loop was last done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from botkeep.model import Instance, InstanceState, ProgramLook, Progress, iso
from botkeep.untrusted import clean
from botkeep.web import Deadline

from . import hummingbot_cli, hummingbot_conf, mqtt, plain
from .base import Hints, Subject
from .catalogue import Catalogue, Signature, merged, packaged
from .hummingbot_log import EARLY, LoggedBot, is_called, is_this_bot, names_of, pids_of, starts_it

NAME = "hummingbot"
GRAMMAR: str | None = "hummingbot"

ANSWERS_WITHIN = timedelta(seconds=15)
"""What an engine takes at the most to answer hbot: it asks exchanges for balances, 10 s each."""
HEARTBEAT_EVERY = timedelta(seconds=10)
LISTEN = 12.0
"""Seconds in which a heartbeat comes, if there is one."""
SKEW = timedelta(seconds=60)
"""By which a heartbeat's own time may differ from ours. An older one was kept or is repeated by somebody."""


@cache
def catalogue() -> Catalogue:
    """Signatures, marks and exit meanings of Hummingbot, then those of any program."""
    return merged((packaged(NAME), plain.catalogue()))


def signatures() -> Sequence[Signature]:
    """What a log line of it may mean."""
    return catalogue().signatures


# ------------------------------------------------------------------------------------------------------ recognised

_DATA_FILE = r"(?:trades_)?(conf_[\w.-]{1,200})\.(?:sqlite|csv)"
_LOGGED = r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - \d{1,10} - hummingbot\."


def recognise(hints: Hints) -> str | None:
    """By its command, its data file with the log beside it, the loggers in its log, or its process's name."""
    if starts_it(hints.command):
        return "its command is Hummingbot's"
    if hints.data_file is not None and _has_its_log(hints.data_file):
        return f"its data file {clean(hints.data_file.name, 80)} has a log of Hummingbot's beside it"
    if re.search(_LOGGED, hints.log_head):
        return "its log has Hummingbot's loggers"
    return f"its process is called {clean(hints.process_name, 80)}" if is_called(hints.process_name) else None


def _has_its_log(data_file: Path) -> bool:
    """`data/conf_x.sqlite` and `logs/logs_conf_x.log` in one folder."""
    named = re.fullmatch(_DATA_FILE, data_file.name)
    if named is None or data_file.parent.name != "data":
        return False
    return (data_file.parent.parent / "logs" / f"logs_{named[1]}.log").is_file()


# ------------------------------------------------------------------------------------------------------------ look


@dataclass
class _Seen:
    """A look, as it fills."""

    state: str = ""
    state_from: str = ""
    booted_at: datetime | None = None
    loop_known: bool = False
    loop_at: datetime | None = None
    others: list[int] = field(default_factory=list)
    connectors: tuple[str, ...] = ()
    api: str = ""
    api_rule: str = ""
    answers: str = ""
    """What says that the program lives: `hbot`, `mqtt`."""
    progress: list[Progress] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cursor: dict[str, Any] = field(default_factory=dict)


def look(subject: Subject) -> ProgramLook:
    """What its log, hbot and its heartbeat say. Asks nobody about a bot of which nothing runs."""
    seen, log, clock = _Seen(), LoggedBot(subject), Deadline(subject.seconds)
    _see_log(subject, log, seen)
    if any(one.state is not InstanceState.FROZEN for one in subject.instances):  # a frozen one cannot answer
        _ask_hbot(subject, seen, clock)
        _hear(subject, log, seen, clock)
    _weigh(log, seen)
    places = hummingbot_conf.installs(subject.data_file, subject.log_file, subject.cwd)
    connectors = seen.connectors or hummingbot_conf.connectors(subject.data_file, subject.log_file, places)
    return ProgramLook(
        state=seen.state,
        state_from=seen.state_from,
        booted_at=seen.booted_at,
        loop_known=seen.loop_known,
        loop_at=seen.loop_at,
        others=tuple(dict.fromkeys(seen.others)),
        version=hummingbot_conf.version(places),
        exchange=hummingbot_conf.exchange_of(connectors),
        paper=hummingbot_conf.is_paper(connectors),
        api=seen.api,
        api_rule=seen.api_rule,
        progress=tuple(seen.progress),
        notes=tuple(seen.notes),
        cursor=seen.cursor,
    )


def _see_log(subject: Subject, log: LoggedBot, seen: _Seen) -> None:
    if subject.instances and (state := log.state()):
        seen.state, seen.state_from = state, "log"
    if (sign := log.progress()) is not None:
        seen.progress.append(sign)
    if lost := log.fills_lost():
        seen.notes.append(lost)
    for who, at in log.left_closed():
        seen.notes.append(f"{clean(who, 80)} lost its websocket at {iso(at)} and has not subscribed again since.")
    seen.others = [pid for pid in log.strangers() if is_this_bot(subject, pid)]
    seen.connectors = log.connectors()


def _weigh(log: LoggedBot, seen: _Seen) -> None:
    """What says that the program lives is no progress of a bot that wrote all the time and writes no more."""
    if not seen.answers or not log.fell_silent():
        return
    seen.progress = [one for one in seen.progress if one.source != seen.answers]
    although = {"hbot": "its engine answers", "mqtt": "its heartbeat comes"}[seen.answers]
    seen.notes.append(
        f"Although {although}, its log has said nothing for {_length(log.silence)}, and it never paused for more than "
        f"{_length(log.normal)}: its market data may have stopped."
    )


def _length(span: timedelta | None) -> str:
    seconds = int(span.total_seconds()) if span else 0
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


# ---------------------------------------------------------------------------------------------------------- hbot


def _ask_hbot(subject: Subject, seen: _Seen, clock: Deadline) -> None:
    hbot = getattr(subject.settings, "hbot", None)
    if not hbot:
        return
    pids = pids_of(subject.instances)
    if not hummingbot_cli.can_answer(pids):
        _see_unready(seen, has_engine=hummingbot_cli.has_engine(pids))
        return
    said = hummingbot_cli.ask(hbot, subject.cwd, clock.seconds - clock.spent)
    seen.api, seen.api_rule = said.text, said.rule
    if said.status is not None and _is_ours(subject, seen, said.status):
        _see_status(subject, seen, said.status)


def _see_unready(seen: _Seen, *, has_engine: bool) -> None:
    if not has_engine:
        seen.api_rule = "not-allowed"
        seen.api = "hbot is not asked, for none of the bot's processes is an engine that hbot started."
        return
    seen.api_rule = "not-ready"
    seen.api = "hbot is not asked yet: the signal that it sends would end an engine that still starts."
    if not seen.state:
        seen.state, seen.state_from = "starting", "api"


def _is_ours(subject: Subject, seen: _Seen, status: hummingbot_cli.Status) -> bool:
    """Whether hbot speaks of this bot: there is one for each install, and a second copy may have taken its pid file."""
    known = status.pid is None or status.pid in names_of(subject.instances)
    if status.running and known:
        return True
    what = (
        f"is pid {status.pid}, none of this bot's processes" if status.running else "does not run, though this one does"
    )
    seen.api_rule = "wrong-owner"
    seen.api = f"the bot that hbot knows {what}: the command may belong to another install."
    if status.running and status.pid is not None and is_this_bot(subject, status.pid):
        seen.others.append(status.pid)
    return False


def _see_status(subject: Subject, seen: _Seen, status: hummingbot_cli.Status) -> None:
    if seen.state != "stopped":  # what hbot calls running is the process, not the strategy
        seen.state, seen.state_from = "running", "api"
    seen.connectors = status.connectors or seen.connectors
    if status.uptime is not None:
        seen.booted_at = subject.now - status.uptime
    if status.errors:
        last = f"; the last one: {status.last_error}" if status.last_error else "."
        seen.notes.append(f"hbot counts {status.errors} errors in the newest lines of its log{last}")
    if status.snapshot_age is not None:
        _see_snapshot(subject, seen, subject.now - status.snapshot_age)


def _see_snapshot(subject: Subject, seen: _Seen, at: datetime) -> None:
    """The engine answered at `at`. One that was asked and did not answer now has not done its main loop since.

    A snapshot of an earlier run is none of this one, whose first is being written.
    """
    started = [one.started_at for one in subject.instances if one.started_at is not None]
    if started and at < max(started) - EARLY:
        return
    seen.progress.append(Progress("hbot", at, ANSWERS_WITHIN, 0))
    if subject.now - at <= ANSWERS_WITHIN:
        seen.answers = "hbot"
    else:
        seen.loop_known, seen.loop_at = True, at


# ----------------------------------------------------------------------------------------------------- heartbeat


def _hear(subject: Subject, log: LoggedBot, seen: _Seen, clock: Deadline) -> None:
    """Listen for a heartbeat, where the log is silent and nothing better has answered."""
    settings = getattr(subject.settings, "mqtt", None)
    last = _last_heartbeat(subject)
    if last is not None:
        seen.cursor["heartbeat"] = last.timestamp()
    seconds = min(LISTEN, clock.seconds - clock.spent)
    if settings is None or seen.answers or not log.is_silent() or seconds <= 0:
        return
    topic = _topic(settings, subject)
    if isinstance(topic, str):
        seen.notes.append(topic)
        return
    heard = mqtt.listen(topic, seconds, lambda payload: is_heartbeat(payload, subject.now, clock.spent))
    if heard.rule == "ok":
        seen.cursor["heartbeat"] = subject.now.timestamp()
        seen.progress.append(Progress("mqtt", subject.now, HEARTBEAT_EVERY, 0))
        seen.answers, seen.api_rule = "mqtt", seen.api_rule or "ok"
    elif heard.rule == "silent":
        _see_no_heartbeat(seen, heard, last)
    else:
        seen.notes.append(f"Its heartbeat could not be listened for: {heard.text}")


def _last_heartbeat(subject: Subject) -> datetime | None:
    """When one was last heard, as an earlier look remembers."""
    known = subject.cursor.get("heartbeat")
    if not isinstance(known, int | float) or not 0 < known <= subject.now.timestamp():
        return None
    return datetime.fromtimestamp(known, UTC)


def _topic(settings: Any, subject: Subject) -> mqtt.Topic | str:
    """What to listen to, or what is missing for it: a sentence."""
    values = {}
    for key in ("username_env", "password_env"):
        name = getattr(settings, key)
        values[key] = subject.secret(name) if name else None
        if name and not values[key]:
            return f"Its heartbeat is not listened for: set {name} in the bot's env file or where botkeep runs."
    return mqtt.Topic(
        settings.topic,
        host=settings.host,
        port=settings.port,
        username=values["username_env"],
        password=values["password_env"],
        allowed_hosts=subject.allowed_hosts,
    )


def _see_no_heartbeat(seen: _Seen, heard: mqtt.Heard, last: datetime | None) -> None:
    """Only who listened for longer than from one to the next knows that there is none."""
    if heard.listened <= HEARTBEAT_EVERY.total_seconds() + 1:
        return
    seen.notes.append(f"Its heartbeat, one every {_length(HEARTBEAT_EVERY)}, does not come: {heard.text}")
    if last is not None:
        seen.progress.append(Progress("mqtt", last, HEARTBEAT_EVERY, 0))


def is_heartbeat(payload: bytes, now: datetime, spent: float) -> bool:
    """Whether this is `{"ts": microseconds}` of a moment that is not far from now, `spent` seconds after `now`."""
    found = hummingbot_cli.strict_object(payload)
    if found is None or found.keys() != {"ts"} or type(found["ts"]) is not int or not 0 < found["ts"] < 1 << 62:
        return False
    return abs(found["ts"] / 1e6 - now.timestamp() - spent) <= SKEW.total_seconds()


# ---------------------------------------------------------------------------------------------------- what is asked


def hold_entries(subject: Subject) -> str | None:  # noqa: ARG001 - every profile is asked the same
    """Hummingbot knows no such state."""
    return "Hummingbot cannot be asked to: its strategy trades or is stopped"


def resume_entries(subject: Subject) -> str | None:  # noqa: ARG001
    """Hummingbot knows no such state."""
    return "Hummingbot cannot be asked to: its strategy trades or is stopped"


def environment(state: str) -> Mapping[str, str]:  # noqa: ARG001
    """It comes up as its configuration says."""
    return {}


def sign_of_life(subject: Subject, instance: Instance) -> bool | None:
    """True once its log has a line of this copy's strategy: started, an event, an order, a fill. Else None.

    One that waits for its exchange says nothing for minutes, and that is no failure.
    """
    return True if LoggedBot(subject).has_started(instance) else None
