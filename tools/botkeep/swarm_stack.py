"""`botkeep swarm-stack`: a stack file for a Docker Swarm from bots.json, with what was measured to be safe.

One service of one replica for each bot whose command is known, and one for botkeep's own watcher. No key is written
here: names are taken from the env file, values from the swarm's secrets.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import socket
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from .config import Bot, Fleet
from .envfile import load_env_file
from .heartbeat import lock_of
from .model import UsageError
from .runtimes.docker_address import DEFAULT, place_of
from .runtimes.swarm_units import SECRETS
from .workspace import is_under
from .wrapped import folder_of, has_command, left_out, watching

STACK = "botkeep"
WATCHER = "watcher"
DATED = 4
"""Minutes for which a watcher that hangs has not dated its mark: it does so every minute."""
SECRET_LENGTH = 64
_WORD = re.compile(r"[A-Za-z_/][A-Za-z_/ -][A-Za-z0-9_/ .=-]*")
TIMES_LATE = 3
"""So many times its own `every`, and a bot's progress file says that it gets nowhere."""
HEAD = """\
# Made by `botkeep swarm-stack` from config/bots.json: change that, and make it anew. Deploy it on a manager:
#   docker stack deploy --compose-file FILE {stack}
# Each setting is there for a reason:
#   replicas 1, order stop-first  never two: start-first, or a second replica, is a second copy that trades
#   restart_policy                what ends well stays down; what fails is started again after 5 s, 5 times in 10 min
#   stop_grace_period             the bot's stop_grace: it closes its orders and sockets in peace (swarm's own: 10 s)
#   healthcheck                   on progress: a process that is alive and stands still is replaced
#   secrets                       keys come from `docker secret create`, as files; they stand nowhere in this file
#   networks: host                addresses like 127.0.0.1 in bots.json mean the same as before
#   node.hostname                 the workspace is a folder of this machine, so its bots stay on it
"""
_KEYS = 'for name in {names}; do value="$(cat "/run/secrets/$name")" || exit 78; export "$name=$value"; done; exec "$@"'


@dataclass(frozen=True)
class Written:
    """The file, and what there is to say about it."""

    text: str
    stack: str
    """What the stack is to be called, so that the services have the names that bots.json has."""
    notes: tuple[str, ...]
    """Which bots are not in it and why; secrets that are to be made; what is to be changed in bots.json."""


def written(fleet: Fleet, *, image: str | None = None) -> Written:
    """Everything for one stack. `image`: of the watcher, and of bots that name none.

    Raises UsageError for what such a file cannot hold, BotkeepError for an env file that cannot be read.
    """
    if image is None:
        raise UsageError("Name an image with botkeep in it for the watcher: --image IMAGE. Bots may name their own.")
    chosen, notes = [bot for bot in fleet.bots if has_command(bot)], left_out(fleet)
    if not chosen:
        raise UsageError('No bot of config/bots.json can be a service: give one a runtime with its "command".')
    stack = _stack(chosen)
    place = _Place(fleet, stack, image)
    services = {_key(bot, stack): place.service(bot) for bot in chosen}
    if len(services) < len(chosen) or WATCHER in services:
        raise UsageError(f"Two services would have one name, or that of the {WATCHER}. Give each bot its own.")
    names = [place.secret(bot, name) for bot in chosen for name in _secrets(fleet, bot)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"Keys of two bots would be one secret, {twice}. Rename a bot, or a variable of its env file.")
    secrets = {name: {"external": True} for name in names}
    document = {
        "version": "3.8",
        "services": {**services, WATCHER: place.watcher()},
        "networks": {"host": {"external": True, "name": "host"}},
        **({"secrets": secrets} if secrets else {}),
    }
    return Written(HEAD.format(stack=stack) + _yaml(document), stack, (*notes, *place.notes(chosen)))


def _stack(bots: Sequence[Bot]) -> str:
    """Of the services that bots.json names already: STACK_NAME."""
    named = [str(bot.runtime.service) for bot in bots if _is_swarms(bot)]
    alone = [name for name in named if "_" not in name.strip("_")]
    if alone:
        raise UsageError(f"A service of a stack is called STACK_NAME; found {alone[0]}. Write {STACK}_{alone[0]}.")
    stacks = sorted({_prefix(bot) for bot in bots if _is_swarms(bot)})
    if len(stacks) > 1:
        raise UsageError(f"The bots' services are of several stacks: {', '.join(stacks)}. Let them be of one.")
    return stacks[0] if stacks else STACK


def _prefix(bot: Bot) -> str:
    service = str(bot.runtime.service)
    return service.removesuffix(f"_{bot.name}") if service.endswith(f"_{bot.name}") else service.partition("_")[0]


def _key(bot: Bot, stack: str) -> str:
    return str(bot.runtime.service).removeprefix(f"{stack}_") if bot.runtime.kind == "swarm" else bot.name


def _secrets(fleet: Fleet, bot: Bot) -> list[str]:
    """Names of what its env file holds."""
    file = bot.runtime.env_file
    return sorted(load_env_file(fleet.workspace.home / file)) if file else []


# ---------------------------------------------------------------------------------------------------- services


@dataclass(frozen=True)
class _Place:
    """What all services share."""

    fleet: Fleet
    stack: str
    image: str

    @property
    def home(self) -> str:
        """The workspace, which has the same path in every container."""
        return str(self.fleet.workspace.home)

    @property
    def user(self) -> os.stat_result:
        """Whose it is: nobody else's files may come into it."""
        return os.stat(self.home)

    def service(self, bot: Bot) -> dict[str, Any]:
        """One bot."""
        runtime, secrets = bot.runtime, _secrets(self.fleet, bot)
        health = _health(bot)
        memory = bot.limits.memory
        return {
            "image": getattr(runtime, "image", None) or self.image,
            "entrypoint": [*_reading(secrets), *runtime.command],
            "working_dir": folder_of(self.fleet, bot),
            "user": f"{self.user.st_uid}:{self.user.st_gid}",
            "networks": ["host"],
            "volumes": [_bind(folder) for folder in self.folders(bot)],
            "stop_grace_period": f"{runtime.stop_grace}s",
            **({"environment": dict(runtime.env)} if runtime.env else {}),
            **({"secrets": [self._mounted(bot, name) for name in secrets]} if secrets else {}),
            **({"healthcheck": health} if health else {}),
            "logging": LOGGING,
            "deploy": self._deploy(memory.most if memory else None),
        }

    def folders(self, bot: Bot) -> list[str]:
        """The workspace, and where the bot writes outside of it."""
        files = [bot.data_file, bot.log_file, bot.progress.file if bot.progress else None]
        outside = {str(one.parent) for one in files if one is not None and not is_under(str(one), self.home)}
        return [self.home, *sorted(outside)]

    def secret(self, bot: Bot, name: str) -> str:
        """What the swarm calls it: its secrets are those of all bots. Raises UsageError for a name that is too long."""
        called = f"{bot.name}_{name}"
        if len(called) > SECRET_LENGTH:
            raise UsageError(f"{bot.name}: a secret of a swarm has at most {SECRET_LENGTH} signs in its name: {called}")
        return called

    def _mounted(self, bot: Bot, name: str) -> dict[str, Any]:
        """A file that the bot alone may read."""
        return {"source": self.secret(bot, name), "target": name, "uid": str(self.user.st_uid), "mode": stat.S_IRUSR}

    def _deploy(self, memory: int | None = None) -> dict[str, Any]:
        one_by_one = {"parallelism": 1, "order": "stop-first", "failure_action": "pause"}
        return {
            "mode": "replicated",
            "replicas": 1,
            "update_config": one_by_one,
            "rollback_config": one_by_one,
            "restart_policy": {"condition": "on-failure", "delay": "5s", "max_attempts": 5, "window": "10m"},
            "placement": {"constraints": [f"node.hostname == {socket.gethostname()}"]},
            **({"resources": {"limits": {"memory": str(memory)}}} if memory else {}),
        }

    def watcher(self) -> dict[str, Any]:
        """`botkeep watch`: one for the workspace. It talks to a manager, since only managers know the services."""
        deploy, mark = self._deploy(), str(lock_of(self.fleet.workspace).path)
        deploy["placement"]["constraints"].append("node.role == manager")
        deploy["restart_policy"] = {"condition": "any", "delay": "5s"}
        return {
            "image": self.image,
            "entrypoint": watching(self.fleet, "botkeep"),
            "working_dir": self.home,
            "user": f"{self.user.st_uid}:{_group_of(self.sockets, self.user.st_gid)}",
            "networks": ["host"],
            "volumes": [_bind(path) for path in (*self._all_folders(), *self.sockets)],
            "stop_grace_period": "15s",
            "healthcheck": {
                "test": ["CMD-SHELL", f'test -n "$(find {shlex.quote(mark)} -mmin -{DATED})"'],
                "interval": "60s",
                "timeout": "10s",
                "retries": 3,
                "start_period": f"{DATED}m",
            },
            "logging": LOGGING,
            "deploy": deploy,
        }

    @property
    def sockets(self) -> list[str]:
        """Where the managers' engines are asked, if that is on this machine."""
        hosts = [bot.runtime.host or DEFAULT for bot in self.fleet.bots if _is_swarms(bot)] or [DEFAULT]
        places = [place for host in hosts if (place := place_of(host)) is not None]
        return sorted({place.path for place in places if place.path})

    def _all_folders(self) -> list[str]:
        outside = {folder for bot in self.fleet.bots for folder in self.folders(bot)[1:]}
        return [self.home, *sorted(outside)]

    def notes(self, bots: Sequence[Bot]) -> Iterator[str]:
        """What is left for a person."""
        for bot in bots:
            yield from self._about(bot)

    def _about(self, bot: Bot) -> Iterator[str]:
        for name in _secrets(self.fleet, bot):
            keys = self.fleet.workspace.home / bot.runtime.env_file
            make = f'printf %s "${name}" | docker secret create {self.secret(bot, name)} -'
            words = [sys.executable, "-I", "-m", "botkeep.exec_env", "--env-file", str(keys), "--", "sh", "-c", make]
            yield f"{bot.name} wants the secret {self.secret(bot, name)}, once: {shlex.join(words)}"
        if bot.progress is None:
            yield (
                f'{bot.name} has no health check in it, since nothing says that it gets somewhere: give it "progress" '
                "with a file that it touches. A quiet market is no reason to end it."
            )
        if bot.runtime.kind != "swarm":
            yield (
                f'To have the swarm run {bot.name}, stop it, and write into its runtime "kind": "swarm", '
                f'"service": "{self.stack}_{_key(bot, self.stack)}" instead of "kind": "{bot.runtime.kind}".'
            )


LOGGING = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}


def _is_swarms(bot: Bot) -> bool:
    return bot.runtime is not None and bot.runtime.kind == "swarm"


def _bind(path: str) -> dict[str, str]:
    return {"type": "bind", "source": path, "target": path}


def _group_of(sockets: Sequence[str], otherwise: int) -> int:
    """Whose members may use an engine's socket."""
    try:
        return os.stat(sockets[0]).st_gid
    except (OSError, LookupError):
        return otherwise


def _reading(secrets: Sequence[str]) -> list[str]:
    """What reads the keys into the bot's environment, and becomes the bot: any image with a shell has it."""
    return ["sh", "-c", _KEYS.format(names=" ".join(secrets)), SECRETS] if secrets else []


def _health(bot: Bot) -> dict[str, Any] | None:
    """Whether its progress file is being touched; None: there is none."""
    if bot.progress is None:
        return None
    late = max(1, math.ceil(TIMES_LATE * bot.progress.every / timedelta(minutes=1)))
    every = max(10, int(bot.progress.every.total_seconds()))
    return {
        "test": ["CMD-SHELL", f'test -n "$(find {shlex.quote(str(bot.progress.file))} -mmin -{late})"'],
        "interval": f"{min(every, 300)}s",
        "timeout": "10s",
        "retries": 3,
        "start_period": f"{max(60, TIMES_LATE * every)}s",
    }


def _yaml(document: Mapping[str, Any]) -> str:
    import yaml

    class Whole(yaml.SafeDumper):
        """Writes everything out: an anchor is no help to people."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            return True

    def text(dumper: Whole, value: str) -> Any:
        """In quotes unless it is surely a word: Docker takes 1e-4, 0888 and 0o14 for numbers, this dumper does not."""
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, None if _WORD.fullmatch(value) else '"')

    Whole.add_representer(str, text)
    return str(yaml.dump(_literal(document), Dumper=Whole, sort_keys=False, allow_unicode=True, width=110))


def _literal(value: Any) -> Any:
    """Compose fills in $NAME from the environment of whoever deploys; here nothing is to be filled in."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _literal(inner) for key, inner in value.items()}
    return [_literal(inner) for inner in value] if isinstance(value, list) else value
