"""`botkeep systemd-units`: units from bots.json and config/schedule.json, with what was measured to be safe.

One service for each bot of kind process or systemd, started by `botkeep.exec_env`: no secret is written here, and no
second copy is started while one lives, under whichever engine. And botkeep itself, twice: `botkeep watch` as a
service, which acts in the second in which a bot dies, and the rounds of config/schedule.json by a timer, which look
after the bots whenever the watcher does not, and say so. Locks and ledger keep the two from acting twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .config import Bot, Fleet
from .exec_env import LOCKED, WRONG
from .heartbeat import EVERY, LATE
from .model import UsageError
from .oncalendar import on_calendar
from .schedule import TASKS, Task
from .wrapped import WATCHER, folder_of, has_command, is_of, left_out, save, watching, wrapped

KINDS = ("process", "systemd")
OWN = "botkeep"
"""Of botkeep's own units; a bot's may not begin with it."""
HEAD = "# Made by `botkeep systemd-units` from {source}: change that, and make it anew."
BOT_WHY = """\
# Each setting is there for a reason:
#   Type                 exec: what cannot be executed is no start
#   exec_env --lock      a copy that systemd knows nothing of keeps the next one from being started beside it
#   exec_env --env-file  its keys, read as it is started; they stand nowhere else, not even in `systemctl show`
#   Restart              on-failure: what ends well stays down. botkeep counts these restarts, and a loop is a fault
#   RestartPrevent...    {locked}: another copy lives; {wrong}: its env file is wrong. Starting it again mends neither
#   StartLimit...        a bot that dies at once is given up instead of hammering its exchange; botkeep then decides
#   TimeoutStopSec       the bot's stop_grace: it closes its orders and sockets in peace, then systemd kills it
#   KillMode             control-group: with `process`, what it started would outlive each stop as a second copy
#   UMask, Standard...   one log, for its owner alone, which botkeep reads; append, so that no start empties it
#   MemoryMax            limits.memory.most of bots.json: the bot is ended before the machine has no memory left
"""
TIMER_WHY = """\
# Persistent: a time that came while the machine was off is made up for once it is on.
# AccuracySec, RandomizedDelaySec: at the time that was written, not within a minute of it.
"""
WATCH_WHY = """\
# Each setting is there for a reason:
#   After                it comes up after what runs the bots, and ends before them at shutdown: it brings them back
#   Type, WatchdogSec    notify: started is what really watches. Silent for so long, it hangs, and is started anew
#   Restart, StartLimit  always, and never given up. Killed, it reconciles at its next start what it had begun
#   KillMode             process: bots that it started as plain processes live on when it ends or is started again
#   OOMPolicy            continue: such a bot that runs out of memory does not take the watcher along
# While somebody watches this workspace by hand, it tries again and again, and takes over when that one ends.
"""
ROUND_WHY = """\
# KillMode process: bots that botkeep starts as plain processes live on when the round is over.
# OOMPolicy continue: such a bot that runs out of memory does not end the round.
# TimeoutStartSec: a round that hangs does not keep the next ones from beginning.
"""
ENGINES = {
    "docker": ("docker.service",),
    "compose": ("docker.service",),
    "swarm": ("docker.service",),
    "supervisord": ("supervisor.service", "supervisord.service"),
}
"""What the machine's systemd calls the engines of other kinds; one that it does not know is no mistake in After."""
AGAIN = 2
"""Seconds after which a watcher that ended is started again."""
ROTATE = "{name}.logrotate"
ROTATION = """\
# For /etc/logrotate.d: systemd turns no file over. copytruncate: the bots keep theirs open.
"{logs}/*.log" {{
    su {user} {group}
    size 10M
    rotate 3
    copytruncate
    missingok
    notifempty
}}
"""
_SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Written:
    """The files by name, and what there is to say about them."""

    files: dict[str, str]
    notes: tuple[str, ...]
    """Which bots are not among them and why; what is to be changed in bots.json, and how they are taken over."""
    bots: tuple[str, ...] = ()
    """The bots that have a unit here."""

    @property
    def text(self) -> str:
        """All of them, one after the other."""
        return "\n".join(f"# ---- {name}\n{text}" for name, text in self.files.items())


@dataclass(frozen=True)
class Owner:
    """Whose the bots are."""

    user: str
    group: str
    own: bool
    """They are services of the user's own systemd."""

    @property
    def wanted_by(self) -> str:
        """What comes up with the machine, or with the user's systemd."""
        return "default.target" if self.own else "multi-user.target"


def written(fleet: Fleet, tasks: Sequence[Task], command: str, *, user: bool = False) -> Written:
    """Units for the machine's systemd, or (`user`) for that of whoever asks. `command`: the path of botkeep.

    Raises UsageError for what such a file cannot hold.
    """
    if not fleet.entries:
        raise UsageError("There is nothing to write: config/bots.json has no bot.")
    owner = _owner(own=user)
    bots, notes = _chosen(fleet, user=user)
    files = {_unit_name(bot): _bot_unit(fleet, bot, owner) for bot in bots}
    if len(files) < len(bots):
        raise UsageError("Several bots have one unit. Each needs a name of its own.")
    own = {f"{WATCHER}.service": _watch_unit(fleet, command, owner, files), **_rounds(fleet, tasks, command, owner)}
    rotation = {ROTATE.format(name=OWN): _rotation(fleet, owner)} if files else {}
    told = (*notes, *_about_wake(fleet), *_moved(bots, user=user), *_installing(files, own, owner))
    return Written({**files, **own, **rotation}, told, tuple(bot.name for bot in bots))


def _owner(*, own: bool) -> Owner:
    import grp
    import pwd

    try:
        return Owner(pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name, own)
    except KeyError:
        return Owner(str(os.geteuid()), str(os.getegid()), own)


def _chosen(fleet: Fleet, *, user: bool) -> tuple[list[Bot], list[str]]:
    notes = left_out(fleet, KINDS)
    chosen = []
    for bot in fleet.bots:
        if not is_of(bot, KINDS) or not has_command(bot):
            continue
        if getattr(bot.runtime, "user", user) == user:
            chosen.append(bot)
        else:
            whose = "of the machine's systemd: without --user" if user else "of the user's own systemd: with --user"
            notes.append(f"{bot.name} is left out: it is {whose} it is written.")
    return chosen, [*notes, *(note for bot in chosen for note in _about_its_program(bot))]


def _about_its_program(bot: Bot) -> Iterator[str]:
    program = bot.runtime.command[0]
    if "PATH" not in bot.runtime.env and _is_not_found(program):
        yield f"{bot.name}: {program} is not where systemd looks for programs ({_SEARCHED}). Write its whole path."


def _about_wake(fleet: Fleet) -> Iterator[str]:
    if fleet.wake and _is_not_found(fleet.wake[0]):
        yield f"wake: {fleet.wake[0]} is not where systemd looks for programs ({_SEARCHED}). Write its whole path."


def _is_not_found(program: str) -> bool:
    import shutil

    return "/" not in program and shutil.which(program, path=_SEARCHED) is None


def _moved(bots: Sequence[Bot], *, user: bool) -> Iterator[str]:
    for bot in bots:
        if bot.runtime.kind == "process":
            own = ', "user": true' if user else ""
            yield (
                f'To have systemd run {bot.name}, stop it, and write into its runtime "kind": "systemd", '
                f'"unit": "{_unit_name(bot).removesuffix(".service")}"{own} instead of "kind": "process". '
                "The rest stays."
            )


def _installing(files: Iterable[str], own: Iterable[str], owner: Owner) -> Iterator[str]:
    option, folder = (" --user", "~/.config/systemd/user") if owner.own else ("", "/etc/systemd/system")
    enabled = [*files, *(name for name in own if name.endswith(".timer") or name.startswith(WATCHER))]
    yield (
        f"To take them over: copy them into {folder}, then `systemctl{option} daemon-reload`, then `systemctl{option} "
        f"enable --now {' '.join(enabled)}`."
    )
    if owner.own:
        yield (
            f"`loginctl enable-linger {owner.user}` keeps them up when nobody is logged in. Without it the last logout "
            "also kills the plain processes that the watcher started."
        )


# ---------------------------------------------------------------------------------------------------- bots


def _unit_name(bot: Bot) -> str:
    """Of a bot that systemd does not run yet: no name of a unit that the machine has already."""
    if bot.runtime.kind == "systemd":
        name = str(bot.runtime.service)
    else:
        name = f"{bot.name if bot.name.startswith('bot') else f'bot-{bot.name}'}.service"
    if name.startswith((f"{OWN}.", f"{OWN}-")):
        raise UsageError(f"{bot.name}: {name} is the name of a unit of botkeep's own. Choose another one.")
    return name


def _bot_unit(fleet: Fleet, bot: Bot, owner: Owner) -> str:
    runtime, memory = bot.runtime, bot.limits.memory
    log = str(fleet.workspace.log_path(bot.name))
    unit = [("Description", _text(f"Trading bot {bot.name}")), *_network(owner)]
    unit += [("StartLimitIntervalSec", 300), ("StartLimitBurst", 5)]
    service = [
        ("Type", "exec"),
        *_user(owner),
        ("WorkingDirectory", _path(folder_of(fleet, bot))),
        ("ExecStart", _command(bot.name, wrapped(fleet, bot))),
        *(("Environment", _assignment(bot.name, name, value)) for name, value in runtime.env.items()),
        ("Restart", "on-failure"),
        ("RestartSec", 5),
        ("RestartPreventExitStatus", f"{LOCKED} {WRONG}"),
        ("KillSignal", "SIGTERM"),
        ("KillMode", "control-group"),
        ("TimeoutStopSec", runtime.stop_grace),
        ("UMask", "0077"),
        ("StandardOutput", f"append:{_path(log)}"),
        ("StandardError", "inherit"),
        *([("MemoryMax", memory.most)] if memory else []),
    ]
    head = f"{HEAD.format(source='config/bots.json')}\n{BOT_WHY.format(locked=LOCKED, wrong=WRONG)}"
    return _file(head, Unit=unit, Service=service, Install=[("WantedBy", owner.wanted_by)])


def _network(owner: Owner) -> list[tuple[str, object]]:
    """A user's systemd has no such target."""
    network = "network-online.target"
    return [] if owner.own else [("Wants", network), ("After", network)]


def _user(owner: Owner) -> list[tuple[str, object]]:
    return [] if owner.own else [("User", owner.user)]


def _rotation(fleet: Fleet, owner: Owner) -> str:
    return ROTATION.format(logs=fleet.workspace.logs_dir, user=owner.user, group=owner.group)


# ---------------------------------------------------------------------------------------------------- botkeep itself


def _watch_unit(fleet: Fleet, command: str, owner: Owner, bots: Iterable[str]) -> str:
    """`bots`: the units that are written with it."""
    home = str(fleet.workspace.home)
    unit = [
        ("Description", "botkeep watch: it looks after the bots all day long"),
        *_network(owner),
        ("After", " ".join(dict.fromkeys([*bots, *_run_by(fleet, owner)]))),
        ("StartLimitIntervalSec", 0),
    ]
    service = [
        ("Type", "notify"),
        *_user(owner),
        ("WorkingDirectory", _path(home)),
        ("ExecStart", _command(OWN, watching(fleet, command))),
        ("Restart", "always"),
        ("RestartSec", AGAIN),
        ("WatchdogSec", int((EVERY * LATE).total_seconds())),
        ("WatchdogSignal", "SIGKILL"),
        ("KillMode", "process"),
        ("OOMPolicy", "continue"),
        ("TimeoutStopSec", 15),
        ("UMask", "0077"),
    ]
    head = f"{HEAD.format(source='config/bots.json')}\n{WATCH_WHY}"
    written_ones = [pair for pair in unit if pair != ("After", "")]
    return _file(head, Unit=written_ones, Service=service, Install=[("WantedBy", owner.wanted_by)])


def _run_by(fleet: Fleet, owner: Owner) -> Iterator[str]:
    """The units of bots that are not written here, and those of the engines of other kinds."""
    for bot in fleet.bots:
        if bot.runtime is None:
            continue
        if bot.runtime.kind == "systemd" and bot.runtime.user == owner.own:
            yield str(bot.runtime.service)
        elif not owner.own:
            yield from ENGINES.get(bot.runtime.kind, ())


def _rounds(fleet: Fleet, tasks: Sequence[Task], command: str, owner: Owner) -> dict[str, str]:
    """A timer and what it starts. With a health check one is enough: its round does what else is due."""
    rounds = [task for task in tasks if task.name == "bot_health_check"]
    units = {}
    for name in dict.fromkeys(task.name for task in rounds or tasks):
        called = OWN if rounds else f"{OWN}-{TASKS[name]}"
        lines = [line for task in tasks if task.name == name for line in on_calendar(task.schedule, fleet.timezone)]
        units[f"{called}.service"] = _round_unit(fleet, TASKS[name], command, owner)
        units[f"{called}.timer"] = _timer(called, TASKS[name], lines)
    return units


def _round_unit(fleet: Fleet, what: str, command: str, owner: Owner) -> str:
    home = str(fleet.workspace.home)
    service = [
        ("Type", "oneshot"),
        *_user(owner),
        ("WorkingDirectory", _path(home)),
        ("ExecStart", _command(OWN, [command, "--home", home, what])),
        ("KillMode", "process"),
        ("OOMPolicy", "continue"),
        ("TimeoutStartSec", "10min"),
        ("UMask", "0077"),
    ]
    head = f"{HEAD.format(source='config/schedule.json')}\n{ROUND_WHY}"
    unit = [("Description", f"botkeep {what}: it looks after the bots"), *_network(owner)]
    return _file(head, Unit=unit, Service=service)


def _timer(called: str, what: str, lines: Sequence[str]) -> str:
    timer = [
        *(("OnCalendar", line) for line in lines),
        ("AccuracySec", "1s"),
        ("RandomizedDelaySec", 0),
        ("Persistent", "true"),
        ("Unit", f"{called}.service"),
    ]
    head = f"{HEAD.format(source='config/schedule.json')}\n{TIMER_WHY}"
    unit = [("Description", f"When botkeep does its {what}")]
    return _file(head, Unit=unit, Timer=timer, Install=[("WantedBy", "timers.target")])


# ---------------------------------------------------------------------------------------------------- values


def _file(head: str, **sections: Sequence[tuple[str, object]]) -> str:
    """A unit's file."""
    parts = [_section(name, pairs) for name, pairs in sections.items()]
    return "\n".join([head.rstrip("\n") + "\n", *parts])


def _section(name: str, pairs: Sequence[tuple[str, object]]) -> str:
    return "".join([f"[{name}]\n", *(f"{key}={value}\n" for key, value in pairs)])


def _text(text: str) -> str:
    return text.replace("%", "%%")


def _path(path: str) -> str:
    """Where nothing is unquoted. Raises UsageError for one that systemd would not read as it is."""
    if _CONTROL.search(path) or path != path.strip() or path.endswith("\\"):
        raise UsageError(f"A unit's file cannot hold {path!r}. Choose a folder without such signs.")
    return _text(path)


def _command(owner: str, words: Sequence[str]) -> str:
    """As systemd takes it apart again: a program and its arguments, in which %, $ and quotes stand for themselves."""
    if any("\0" in word for word in words):
        raise UsageError(f"{owner}: no command can hold a NUL.")
    program, *arguments = words
    return " ".join([_quoted(program), *(_quoted(word).replace("$", "$$") for word in arguments)])


def _quoted(word: str) -> str:
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + _CONTROL.sub(lambda sign: f"\\x{ord(sign[0]):02x}", escaped) + '"'


def _assignment(bot: str, name: str, value: str) -> str:
    if not _VARIABLE.fullmatch(name) or "\0" in value:
        raise UsageError(f"{bot}: a unit's file cannot hold the variable {name!r}. Put it into its env_file.")
    return _quoted(f"{name}={value}")


def store(made: Written, folder: Path) -> None:
    """Write every file into a folder. Raises UsageError if that cannot be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}.") from error
    for name, text in made.files.items():
        save(text, folder / name)


def prepare_logs(fleet: Fleet, names: Iterable[str]) -> None:
    """Make the logs before systemd does: the machine's would own them as root, and nobody else could read them."""
    for name in names:
        path = fleet.workspace.log_path(name)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.close(fd)
