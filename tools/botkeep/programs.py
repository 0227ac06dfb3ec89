"""What kind of program a bot is, by its configuration or by what it is recognised by, and how its profile sees it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path

from .config import Bot, Fleet
from .envfile import load_env_file
from .logfile import LogError, open_log
from .model import BotkeepError, LogLook, RuntimeLook
from .profiles import PROFILES, Hints, Profile, Subject, recognised
from .runtimes.procs import Kin
from .untrusted import register_secrets

CONFIGURED = "configured"
HEAD = 4096
"""Bytes of a log in which a program shows what it is."""


def profile_of(bot: Bot) -> tuple[Profile, str]:
    """The bot's profile, and why it is that one: `configured`, or a clause."""
    profile, why = configured_profile(bot)
    if bot.profile is None and profile.NAME == "plain" and bot.log_file is not None:
        name, why = recognised(Hints(log_head=_head(bot.log_file)))
        profile = PROFILES[name]
    return profile, why


def configured_profile(bot: Bot) -> tuple[Profile, str]:
    """The same by its configuration alone: no file is opened."""
    if bot.profile is not None:
        return PROFILES[bot.profile], CONFIGURED
    name, why = recognised(_hints(bot))
    return PROFILES[name], why


def _hints(bot: Bot) -> Hints:
    command = tuple(getattr(bot.runtime, "command", None) or ())
    return Hints(command=command, process_name=bot.process_name or "", data_file=bot.data_file)


def _head(path: Path) -> str:
    try:
        with open_log(path) as log:
            return os.pread(log.fd, HEAD, 0).decode("utf-8", "replace")
    except (LogError, OSError):
        return ""


def kin_of(bot: Bot) -> Kin | None:
    """Which command lines are of the bot's kind of program; None for one that no command line tells."""
    name = configured_profile(bot)[0].NAME
    return None if name == "plain" else _kin(name)


@cache
def _kin(name: str) -> Kin:
    """One and the same for all bots of a profile: the process table answers it once."""
    return lambda argv: PROFILES[name].recognise(Hints(command=argv)) is not None


def subject_of(
    bot: Bot,
    fleet: Fleet,
    runtime: RuntimeLook,
    log: LogLook | None,
    now: datetime,
    *,
    cursor: Mapping[str, object] | None = None,
    log_file: Path | None = None,
    seconds: float = 3.0,
) -> Subject:
    """The bot as its profile needs it. `seconds`: that its API may take, in all, unless it needs more."""
    home = fleet.workspace.home
    return Subject(
        bot=bot.name,
        now=now,
        instances=runtime.instances,
        log=log,
        command=tuple(getattr(bot.runtime, "command", None) or ()),
        cwd=home / getattr(bot.runtime, "cwd", ".") if bot.runtime else home,
        data_file=bot.data_file,
        log_file=log_file or bot.log_file,
        zone=bot.timezone,
        settings=bot.api,
        secret=_secrets(bot, home),
        cursor=cursor or {},
        seconds=patience(bot, seconds),
        allowed_hosts=frozenset(fleet.allowed_hosts),
    )


HBOT_SECONDS = 7.5
"""`hbot status` itself waits five for an engine that does not answer."""
MQTT_SECONDS = 12.0
"""A heartbeat comes every ten."""
BOTH_SECONDS = 14.0
"""Two looks and the pause between them have to fit into one call."""


def patience(bot: Bot, seconds: float) -> float:
    """How long a look may ask the bot's API: as its playbook says, or as long as the way to ask it needs at least."""
    hbot, mqtt = bool(bot.api and bot.api.hbot), bool(bot.api and bot.api.mqtt)
    needed = BOTH_SECONDS if hbot and mqtt else MQTT_SECONDS if mqtt else HBOT_SECONDS if hbot else 0.0
    return max(seconds, needed)


def environment_of(bot: Bot, home: Path) -> Mapping[str, str]:
    """Where the bot's keys are named: where botkeep runs, and above that its own env file. Raises BotkeepError."""
    file = getattr(bot.runtime, "env_file", None)
    return {**os.environ, **(load_env_file(home / file) if file else {})}


def _secrets(bot: Bot, home: Path) -> Callable[[str], str | None]:
    """Variable -> value. An env file that cannot be read is told by `doctor` and by the next start."""

    def find(name: str) -> str | None:
        try:
            value = environment_of(bot, home).get(name)
        except BotkeepError:
            value = os.environ.get(name)
        register_secrets([value] if value else [])
        return value

    return find
