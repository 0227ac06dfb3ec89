"""`botkeep supervisord-config`: a configuration for supervisord from bots.json, with what was measured to be safe.

One program for each bot of kind process or supervisord, started by `botkeep.exec_env`: no secret is written here, and
no second copy is started while one lives. And one for `botkeep watch`, which looks after all bots.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .config import Bot, Fleet
from .model import UsageError
from .runtimes.supervisord_rpc import Place, place_of
from .wrapped import WATCHER, folder_of, has_command, is_of, left_out, watching, wrapped

KINDS = ("process", "supervisord")
SOCKET = "supervisor.sock"
HEAD = """\
; Made by `botkeep supervisord-config` from config/bots.json: change that, and make it anew.
; Each setting of a program is there for what was measured without it:
;   autostart        it comes up with supervisord, also one that was stopped on purpose: `botkeep stop` says so again
;   startsecs        with 1, what lived 0.05 s was called RUNNING in 5 of 61 starts, and its failures were forgotten
;   autorestart      unexpected: what ends well stays down. botkeep counts these restarts, and a loop is a fault
;   stopasgroup,     without them a shell's children outlive each stop: 3 copies after 2 restarts
;   killasgroup
;   stopwaitsecs     the bot's stop_grace: it closes its orders and sockets in peace
;   exec_env --lock  a copy that outlived supervisord keeps the next one from being started beside it
;   exec_env --env-file  its keys, read as it is started; they stand nowhere else
"""
WATCH_WHY = """\
; botkeep watch looks after the bots, whatever runs them. One for a workspace is enough: --no-watch leaves it out.
;   autorestart      always; killed, it reconciles at its next start what it had begun
;   startretries     never given up: while somebody watches by hand, it tries again after growing pauses
;   priority         started after the bots and stopped before them: it would bring them back
;   stopasgroup,     not set: bots that it started as plain processes live on when it ends
;   killasgroup
"""
RETRIES = 1_000_000
"""supervisord waits a second longer before each: so many are for ever."""
LAST = 1000
"""Priority after the usual one."""
_UNFIT = re.compile(r"[\x00-\x1f\x7f]|%\(here\)s")
_COMMENT = re.compile(r"(?<=[ \t])(?=[;#])")
_APART = re.compile(r"(?<=[ \t])(?=[;#])|(?<=%)(?=\(here\)s)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Written:
    """The file, and what there is to say about it."""

    text: str
    notes: tuple[str, ...]
    """Which bots are not in it and why; what is to be changed in bots.json."""


def written(
    fleet: Fleet, *, server: str | None = None, programs_only: bool = False, watcher: str | None = None
) -> Written:
    """Everything for one supervisord; `programs_only`: to be included by one that is there already.

    `server`: which one, where the bots name several. `watcher`: the path of the botkeep that watches here; None: it
    is run by something else. Raises UsageError for what such a file cannot hold.
    """
    chosen, notes = _chosen(fleet, server)
    if not chosen:
        raise UsageError(
            "No bot of config/bots.json can be a program of supervisord: give one a runtime of kind process or "
            'supervisord with its "command".'
        )
    place, login = _asked_at(fleet, chosen, server)
    general = [] if programs_only else [_general(fleet, place, login)]
    programs = [_program(fleet, bot) for bot in chosen]
    watch = [_watch(fleet, watcher)] if watcher else []
    text = "\n".join([HEAD, *general, *programs, *_groups(chosen), *watch])
    return Written(text, (*notes, *_moved(chosen, place)))


def _chosen(fleet: Fleet, server: str | None) -> tuple[list[Bot], list[str]]:
    written_ones = [bot for bot in fleet.bots if is_of(bot, KINDS) and has_command(bot)]
    chosen = [
        bot
        for bot in written_ones
        if server in (None, getattr(bot.runtime, "server", None)) or bot.runtime.kind == "process"
    ]
    return chosen, left_out(fleet, KINDS)


def _moved(chosen: Sequence[Bot], place: Place) -> Iterator[str]:
    for bot in chosen:
        if bot.runtime is not None and bot.runtime.kind == "process":
            yield (
                f'To have supervisord run {bot.name}, stop it, and write into its runtime "kind": "supervisord", '
                f'"server": "{place}", "program": "{bot.name}" instead of "kind": "process". The rest stays.'
            )


def _asked_at(fleet: Fleet, chosen: Sequence[Bot], server: str | None) -> tuple[Place, tuple[str, str] | None]:
    """Where supervisord will answer, and the variables that hold its login."""
    bots = [bot.runtime for bot in chosen if bot.runtime is not None and bot.runtime.kind == "supervisord"]
    servers = sorted({str(one.server) for one in bots})
    if len(servers) > 1 and server is None:
        raise UsageError(f"The bots name several servers: {', '.join(servers)}. Choose one: --server {servers[0]}")
    logins = sorted({(one.username_env, one.password_env) for one in bots if one.username_env})
    if len(logins) > 1:
        raise UsageError(f"The bots name several logins for one server: {logins}. Let them name the same variables.")
    named = servers[0] if servers else server or f"unix://{fleet.workspace.state_dir / SOCKET}"
    place = place_of(named)
    if place is None or not place.is_loopback:
        raise UsageError(f"A supervisord of this machine cannot be asked at {named}.")
    return place, (logins[0] if logins else None)


# ---------------------------------------------------------------------------------------------------- sections


def _section(name: str, values: Mapping[str, Any]) -> str:
    return "".join([f"[{name}]\n", *(f"{key}={value}\n" for key, value in values.items())])


def _general(fleet: Fleet, place: Place, login: tuple[str, str] | None) -> str:
    own = fleet.workspace.state_dir  # in the folder of logs a bot may have the same name
    let_in = {"username": f"%(ENV_{login[0]})s", "password": f"%(ENV_{login[1]})s"} if login else {}
    if place.path:
        server = _section("unix_http_server", {"file": _value(place.path), "chmod": "0700", **let_in})
    else:
        server = _section("inet_http_server", {"port": f"{place.host}:{place.port}", **let_in})
    daemon = {
        "logfile": _value(str(own / "supervisord.log")),
        "logfile_maxbytes": "10MB",
        "logfile_backups": 3,
        "pidfile": _value(str(own / "supervisord.pid")),
        "umask": "077",
    }
    factory = {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"}
    sections = [server, _section("supervisord", daemon), _section("rpcinterface:supervisor", factory)]
    return "\n".join([*sections, _section("supervisorctl", {"serverurl": _value(str(place)), **let_in})])


def program_of(bot: Bot) -> tuple[str, str]:
    """Group and name."""
    group, _, name = str(getattr(bot.runtime, "program", bot.name)).rpartition(":")
    return group or name, name


def _program(fleet: Fleet, bot: Bot) -> str:
    place, runtime = fleet.workspace, bot.runtime
    values = {
        "command": _command(bot.name, wrapped(fleet, bot)),
        "directory": _value(folder_of(fleet, bot)),
        **({"environment": _environment(bot.name, runtime.env)} if runtime.env else {}),
        "autostart": "true",
        "autorestart": "unexpected",
        "exitcodes": 0,
        "startsecs": 10,
        "startretries": 3,
        "stopsignal": "TERM",
        "stopasgroup": "true",
        "killasgroup": "true",
        "stopwaitsecs": runtime.stop_grace,
        "redirect_stderr": "true",
        "stdout_logfile": _value(str(place.log_path(bot.name))),
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": 3,
    }
    return _section(f"program:{program_of(bot)[1]}", values)


def _watch(fleet: Fleet, command: str) -> str:
    place = fleet.workspace
    values = {
        "command": _command(WATCHER, watching(fleet, command)),
        "directory": _value(str(place.home)),
        "priority": LAST,
        "autostart": "true",
        "autorestart": "true",
        "startsecs": 1,
        "startretries": RETRIES,
        "stopsignal": "TERM",
        "stopwaitsecs": 15,
        "redirect_stderr": "true",
        "stdout_logfile": _value(str(place.state_dir / "watch.log")),
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": 3,
    }
    return WATCH_WHY + _section(f"program:{WATCHER}", values)


def _groups(bots: Iterable[Bot]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    names: list[str] = []
    for bot in bots:
        group, name = program_of(bot)
        names.append(name)
        if group != name:
            groups.setdefault(group, []).append(name)
    if WATCHER in names:
        raise UsageError(f"{WATCHER} is the name of botkeep's own program. Choose another one for the bot's.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"Several bots have the program {', '.join(twice)}. supervisord needs a name of its own each.")
    for group, members in groups.items():
        yield _section(f"group:{group}", {"programs": ",".join(members)})


# ---------------------------------------------------------------------------------------------------- values


def _value(text: str) -> str:
    """A path. Raises UsageError for one that supervisord's parser would not give back."""
    if _UNFIT.search(text) or _COMMENT.search(text) or text != text.strip():
        raise UsageError(f"supervisord's file cannot hold {text!r}. Choose a folder without such signs.")
    return text.replace("%", "%%")


def _command(bot: str, words: Sequence[str]) -> str:
    """As supervisord takes it apart again: comments are cut off and %() filled in before anything is unquoted."""
    if any(_CONTROL.search(word) for word in words):
        raise UsageError(f"{bot}: supervisord's file cannot hold a command with line breaks. Put it into a script.")
    line = shlex.join(words).replace("%", "%%")
    return _APART.sub("''", line)


def _environment(bot: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
        unfit = _UNFIT.search(value) or _COMMENT.search(value) or '"' in value or value != value.strip("'")
        if unfit or not plain:
            raise UsageError(f"{bot}: supervisord's file cannot hold the value of {name}. Put it into its env_file.")
    return ",".join(f'{name}="{value}"' for name, value in variables.items()).replace("%", "%%")
