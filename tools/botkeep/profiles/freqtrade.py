"""freqtrade: its own word about itself, from its log and its REST API, and how to ask it for things.

A process that lives and an API that answers prove little: the API is a thread beside the main loop. What counts is
when the main loop was last done, what state it is in, and whose pid the heartbeat in the log has.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from botkeep import web
from botkeep.model import Instance, LivePosition, ProgramLook, Progress, iso, parse_iso
from botkeep.untrusted import clean

from . import plain
from .base import Hints, Subject
from .catalogue import Catalogue, Signature, merged, packaged
from .freqtrade_api import MOST_POSITIONS, STATES, Access, Api, Health, ShownConfig
from .freqtrade_log import LoggedBot, others, pids_of, state_of, subcommands

NAME = "freqtrade"
GRAMMAR: str | None = "freqtrade"

AHEAD = timedelta(seconds=60)
"""How far a time may be in the future before it is not believed."""
EARLY = timedelta(seconds=2)
"""Its API cuts times to the second, and the kernel's clock and ours differ by as much."""
FRESH_PRICES = timedelta(minutes=4)
"""freqtrade remembers a price for five minutes; for an older one /status makes it ask the exchange, trade by trade."""
PATIENCE = timedelta(minutes=5)
"""After /status took too long it is not asked again: freqtrade goes on working on each question."""
BOOTS_WITHIN = timedelta(minutes=10)
"""After that, one that says stopped and has no log is stopped, and not still loading its markets."""
LOG_COMES_WITHIN = timedelta(minutes=1)
LOG_LINES = 100
RUNMODES: dict[str, bool] = {"live": False, "dry_run": True}
"""In which it trades, and whether that is on paper."""


@cache
def catalogue() -> Catalogue:
    """Signatures, marks and exit meanings of freqtrade, then those of any program."""
    return merged((packaged(NAME), plain.catalogue()))


def signatures() -> Sequence[Signature]:
    """What a log line of it may mean."""
    return catalogue().signatures


# ------------------------------------------------------------------------------------------------------ recognised

_DATA_FILE = r"tradesv3(?:[._-][\w.-]*)?\.sqlite"
_LOGGER = r"\bfreqtrade(?:\.\w{1,40}){0,6} - (?:DEBUG|INFO|WARNING|ERROR|CRITICAL) - "


def recognise(hints: Hints) -> str | None:
    """By its command, its data file's name, the loggers in its log, or its process's name, in this order.

    A command that makes freqtrade do something else than trade (backtesting, webserver) is no bot of it.
    """
    told = subcommands(hints.command)
    if told:
        return "its command is freqtrade trade" if "trade" in told else None
    if hints.data_file is not None and re.fullmatch(_DATA_FILE, hints.data_file.name):
        return f"its data file is called {clean(hints.data_file.name, 80)}"
    if re.search(_LOGGER, hints.log_head):
        return "its log has freqtrade's loggers"
    return "its process is called freqtrade" if hints.process_name == NAME else None


# ------------------------------------------------------------------------------------------------------------ look


@dataclass
class _Seen:
    """A look, as it fills; the fields are those of ProgramLook."""

    state: str = ""
    state_from: str = ""
    booted_at: datetime | None = None
    loop_known: bool = False
    loop_at: datetime | None = None
    open_trades: int | None = None
    positions: tuple[LivePosition, ...] | None = None
    version: str = ""
    exchange: str = ""
    paper: bool | None = None
    api: str = ""
    api_rule: str = ""
    notes: list[str] = field(default_factory=list)
    cursor: dict[str, Any] = field(default_factory=dict)
    holders: tuple[int, ...] = ()
    """Of the API's port, where they are none of the instances."""


def look(subject: Subject) -> ProgramLook:
    """What log, API and WAL say. Asks health, show_config and count; /status only if positions are open."""
    seen = _Seen()
    _see_api(subject, seen)
    log = LoggedBot(subject)
    if not seen.state:
        seen.state, seen.state_from = log.state()
    beat_at, beat_pid = _believed(log, subject, seen.notes)
    return ProgramLook(
        state=seen.state,
        state_from=seen.state_from,
        booted_at=seen.booted_at,
        loop_known=seen.loop_known,
        loop_at=seen.loop_at,
        heartbeat_at=beat_at,
        heartbeat_pid=beat_pid,
        heartbeat_every=log.every,
        others=others(log, seen.holders),
        blind=log.blind(),
        open_trades=seen.open_trades,
        positions=seen.positions,
        version=seen.version or log.told("heartbeat", "version"),
        exchange=seen.exchange or _exchange_name(log.told("exchange", "exchange")),
        paper=seen.paper if seen.paper is not None else RUNMODES.get(log.told("runmode", "runmode")),
        api=seen.api,
        api_rule=seen.api_rule,
        progress=_wal(subject),
        notes=tuple(seen.notes),
        cursor=seen.cursor,
    )


def _believed(log: LoggedBot, subject: Subject, notes: list[str]) -> tuple[datetime | None, int | None]:
    """Its newest heartbeat, if that is not in the future."""
    at, pid = log.newest_beat()
    if at is None or at <= subject.now + AHEAD:
        return at, pid
    notes.append(f"its log is dated in the future ({iso(at)}): see `timezone` of the bot in config/bots.json.")
    return None, None


def _wal(subject: Subject) -> tuple[Progress, ...]:
    """The database's -wal grows with every write. The file itself only changes at a checkpoint, every 4 MB."""
    if subject.data_file is None:
        return ()
    try:
        status = os.stat(f"{subject.data_file}-wal")
    except OSError:
        return ()
    if not stat.S_ISREG(status.st_mode):
        return ()
    return (Progress("wal", min(datetime.fromtimestamp(status.st_mtime, UTC), subject.now), None, 0),)


# --------------------------------------------------------------------------------------------------------- its API


def _access(subject: Subject, instances: Sequence[Instance]) -> Access | None:
    """Where and as whom to ask; None if no address is configured."""
    url = getattr(subject.settings, "url", None)
    if not url:
        return None
    names = [getattr(subject.settings, key, None) for key in ("username_env", "password_env")]
    values = [subject.secret(name) if name else None for name in names]
    username, password = values
    return Access(
        url,
        credentials=web.Credentials(username, password) if username and password else None,
        mend=_what_to_set(names, values),
        owner_pids=pids_of(instances) or None,
        allowed_hosts=subject.allowed_hosts,
    )


def _what_to_set(names: Sequence[str | None], values: Sequence[str | None]) -> str:
    """What a person should do when the API does not know us."""
    if None in names:
        return (
            "Write api.username_env and api.password_env into config/bots.json: the names of the variables that hold "
            "the user name and the password of its api_server."
        )
    unset = [str(name) for name, value in zip(names, values, strict=True) if not value]
    if unset:
        return f"Set {' and '.join(unset)} in the bot's env file or where botkeep runs."
    return f"{' and '.join(map(str, names))} are not the user name and password of its api_server."


def _see_api(subject: Subject, seen: _Seen) -> None:
    """Ask it. Without a living instance nothing is asked: the port may be anybody's by now."""
    access = _access(subject, subject.instances)
    if access is None:
        return
    if not subject.instances:
        seen.holders = web.listeners(access.url)
        return
    api = Api(access, web.Deadline(subject.seconds))
    try:
        shown = api.show_config()
        if not _see_config(shown, seen):
            return
        health = api.health()
        _see_health(subject, health, seen)
        seen.state = _settled(subject, api, shown, health)
    except web.WebError as failure:
        _see_failure(failure, seen)
        return
    seen.api_rule = "ok"
    if seen.state != "starting":
        _see_trades(subject, api, seen)


def _see_config(shown: ShownConfig, seen: _Seen) -> bool:
    """False if there is nothing more to ask: it trades nothing, or only starts or stops."""
    if shown.runmode not in RUNMODES:
        seen.api_rule, seen.api = "status", f"it is a freqtrade in mode {shown.runmode}, which trades nothing."
        return False
    seen.state, seen.state_from = state_of(shown.state), "api"
    if shown.state not in STATES:
        seen.state_from = ""
        seen.notes.append(f"its API says that it is {shown.state}, a state that botkeep does not know.")
    seen.version, seen.paper = shown.version, shown.dry_run
    seen.exchange = _exchange_name(shown.exchange)
    if shown.state in ("", "reload_config"):
        seen.state, seen.api_rule = "starting", "not-ready"
        seen.api = "it is starting or stopping, and says no more yet."
        return False
    return True


def _exchange_name(name: str) -> str:
    """As ccxt calls it; empty for one that its log writes out otherwise (`Gate.io`)."""
    return name.lower() if re.fullmatch(r"[A-Za-z0-9_]{1,40}", name) else ""


def _see_health(subject: Subject, health: Health, seen: _Seen) -> None:
    times = [at for at in (health.last_process, health.startup) if at is not None]
    if times and max(times) > subject.now + AHEAD:
        seen.notes.append(f"its API gives a time in the future ({iso(max(times))}), so its times are not used.")
        return
    seen.loop_known = True
    seen.loop_at = min(health.last_process, subject.now) if health.last_process else None
    if health.startup and _is_of_this_run(health.startup, subject.instances):
        seen.booted_at = min(health.startup, subject.now)


def _is_of_this_run(startup: datetime, instances: Sequence[Instance]) -> bool:
    """freqtrade keeps the time in its database: until it runs again it is that of an earlier process."""
    started = [one.started_at for one in instances if one.started_at is not None]
    return not started or startup >= min(started) - EARLY


def _settled(subject: Subject, api: Api, shown: ShownConfig, health: Health) -> str:
    """Its state. While it loads its list of pairs it says `stopped`, whatever it is going to be.

    Taken for granted, a bot that dies then would be started as one that a person stopped.
    """
    state = state_of(shown.state)
    if state != "stopped" or LoggedBot(subject).state()[0] == "stopped":
        return state
    if not _has_begun(api, health, otherwise=_is_old(subject)):
        return "starting"
    return state_of(api.show_config().state)  # anew: it may have begun after it had said `stopped`


def _is_old(subject: Subject) -> bool:
    started = [one.started_at for one in subject.instances if one.started_at is not None]
    return bool(started) and subject.now - max(started) > BOOTS_WITHIN


def _has_begun(api: Api, health: Health, *, otherwise: bool) -> bool:
    """Whether its worker is at work, by its main loop or by what the process itself remembers of its log.

    `otherwise`: what is said where that remembers no word of the worker.
    """
    if health.last_process is not None:
        return True
    told = [line.text for line in api.logs(LOG_LINES) if line.logger == "freqtrade.worker"]
    words = [text for text in told if text.startswith(("Changing state", "Bot heartbeat"))]
    return "RELOAD_CONFIG" not in words[-1] if words else otherwise


def _see_failure(failure: web.WebError, seen: _Seen) -> None:
    seen.api, seen.api_rule = str(failure), failure.rule
    if failure.rule == "not-ready":
        seen.state, seen.state_from = "starting", "api"
    elif seen.state == "stopped":  # or only starting: without more it cannot be told
        seen.state = seen.state_from = ""
    if failure.pid is not None:
        seen.holders = (failure.pid,)


def _see_trades(subject: Subject, api: Api, seen: _Seen) -> None:
    """How many are open, and which. A stopped bot does not count them, but lists them."""
    after = subject.cursor.get("status_after")
    too_early = isinstance(after, str) and _is_later(after, subject.now)
    if too_early:
        seen.cursor["status_after"] = after
    try:
        if seen.state != "stopped":
            seen.open_trades = api.count()
        if seen.open_trades == 0:
            seen.positions = ()
        elif not too_early and _prices_are_fresh(subject, seen):
            seen.positions = api.positions(seen.open_trades or MOST_POSITIONS)
            seen.open_trades = len(seen.positions)
    except web.WebError as failure:
        seen.notes.append(f"its open trades could not be read: {failure}")
        if failure.rule == "timeout":
            seen.cursor["status_after"] = iso(subject.now + PATIENCE)


def _is_later(moment: str, now: datetime) -> bool:
    try:
        return now < parse_iso(moment) <= now + PATIENCE
    except ValueError:
        return False


def _prices_are_fresh(subject: Subject, seen: _Seen) -> bool:
    """A stopped bot is asked all the same: its open trades are what a person has to know."""
    return seen.state == "stopped" or (seen.loop_at is not None and subject.now - seen.loop_at < FRESH_PRICES)


# --------------------------------------------------------------------------------------------------- what is asked


def hold_entries(subject: Subject) -> str | None:
    """Ask it to open no new positions; it goes on looking after the open ones. None: it does, or does anyway."""
    return _tell(subject, _hold)


def resume_entries(subject: Subject) -> str | None:
    """Take `hold_entries` back. Only for one that was running before: one that a person paused would trade again."""
    return _tell(subject, _resume)


def _tell(subject: Subject, what: Callable[[Api], str | None]) -> str | None:
    access = _access(subject, subject.instances)
    if access is None:
        return "config/bots.json has no api.url for it"
    if not subject.instances:
        return "nothing of it runs"
    try:
        return what(Api(access, web.Deadline(subject.seconds)))
    except web.WebError as failure:
        return str(failure).removesuffix(".")


def _hold(api: Api) -> str | None:
    """A stopped one must not be told: freqtrade's /pause starts it."""
    state = api.show_config().state
    if state == "stopped" and _has_begun(api, api.health(), otherwise=False):
        state = api.show_config().state  # anew: it may have begun after it had said `stopped`
        if state == "stopped":
            return None
    if state == "paused":
        return None
    if state != "running":
        return "it is starting or stopping"
    how = api.stop_entries()
    after = api.show_config()
    if after.state in ("paused", "stopped") or (not _knows_pause(after.version) and after.max_open_trades == 0):
        return None
    return f"it took {how}, and still says that it is {after.state or 'starting'}"


def _resume(api: Api) -> str | None:
    """A stopped one stays so: nobody's hold did that."""
    shown = api.show_config()
    if shown.state == "paused":
        api.start()
        after = api.show_config().state
        return None if after == "running" else f"it took start, and still says that it is {after or 'starting'}"
    if shown.state != "running":
        return f"it is {shown.state or 'starting or stopping'}"
    if not _knows_pause(shown.version) and shown.max_open_trades == 0:
        api.reload_config()
    return None


def reload_config(subject: Subject) -> str | None:
    """Have it read its configuration again. None: it took it; it does so after its present loop.

    Only for one whose exchange answers: it loads all markets anew, and ends where that is refused. It comes up in the
    state that is configured, so one that a person paused or stopped is not told.
    """
    return _tell(subject, _reload)


def _reload(api: Api) -> str | None:
    state = api.show_config().state
    if state != "running":
        return f"it is {state or 'starting or stopping'}"
    api.reload_config()
    return None


def _knows_pause(version: str) -> bool:
    """2025.4 and later have the state; earlier ones allow themselves no open trades instead."""
    found = re.match(r"(\d{4})\.(\d{1,2})", version)
    return found is None or (int(found[1]), int(found[2])) >= (2025, 4)


def environment(state: str) -> Mapping[str, str]:
    """With this a start comes up paused or stopped, whatever its configuration says; other states need nothing."""
    return {"FREQTRADE__INITIAL_STATE": state} if state in ("paused", "stopped") else {}


# --------------------------------------------------------------------------------------------------- sign of life


def sign_of_life(subject: Subject, instance: Instance) -> bool | None:
    """A heartbeat of its own pid since it was started, or its own API that says it booted since.

    None where neither the log nor the API can ever tell. A bot that comes up stopped boots no further than to say so.
    """
    logged = _has_beaten(subject, instance)
    if logged:
        return True
    told = _has_booted(subject, instance)
    return told if told is not None else logged


def _has_beaten(subject: Subject, instance: Instance) -> bool | None:
    """None without a log. With heartbeats switched off, the first change of state has to do."""
    if subject.log is None or subject.log.problem is not None:
        return False if _log_may_come(subject, instance) else None
    log = LoggedBot(replace(subject, instances=(instance,)))
    if "heartbeat" not in subject.log.marks:
        return log.has_begun()
    return log.newest_beat()[0] is not None


def _log_may_come(subject: Subject, instance: Instance) -> bool:
    """A first start makes its log; one that never comes is configured wrong, and must not make every start fail."""
    if subject.log is None or subject.log_file is None or subject.log_file.exists() or instance.started_at is None:
        return False
    return subject.now - instance.started_at < LOG_COMES_WITHIN


def _has_booted(subject: Subject, instance: Instance) -> bool | None:
    """None where the API is not configured, or will not ever say."""
    access = _access(subject, [instance])
    if access is None or instance.started_at is None:
        return None
    api = Api(access, web.Deadline(subject.seconds))
    try:
        health = api.health()
        if health.startup and instance.started_at - EARLY <= health.startup <= subject.now + AHEAD:
            return True
        return api.show_config().state == "stopped" and _has_begun(api, health, otherwise=False)
    except web.WebError as failure:
        return None if failure.rule in ("unauthorized", "not-allowed", "redirect", "not-json") else False
