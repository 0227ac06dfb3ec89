"""What the configurations that botkeep writes for engines have in common: how bots and the watcher are started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import exec_env
from .config import Bot, Fleet
from .model import UsageError

WRAPPER = exec_env.__name__
"""The module that a bot is started by: it holds the bot's lock, and reads its keys, so that no engine has them."""
WATCHER = "botkeep-watch"
"""What an engine calls the service that runs `botkeep watch`."""


def folder_of(fleet: Fleet, bot: Bot) -> str:
    """Where it runs."""
    return os.path.realpath(os.path.join(fleet.workspace.home, bot.runtime.cwd))


def wrapped(fleet: Fleet, bot: Bot) -> list[str]:
    """Its command as an engine starts it: with its lock and its env file, and in this very Python."""
    place, runtime = fleet.workspace, bot.runtime
    keys = ["--env-file", os.path.join(place.home, runtime.env_file)] if runtime.env_file else []
    lock = ["--lock", str(place.run_dir(bot.name) / "run.lock")]
    return [sys.executable, "-I", "-m", WRAPPER, *lock, *keys, "--", *runtime.command]


def watching(fleet: Fleet, command: str) -> list[str]:
    """The command that watches this workspace. `command`: the path of botkeep."""
    return [command, "--home", str(fleet.workspace.home), "watch"]


def left_out(fleet: Fleet, kinds: tuple[str, ...] | None = None) -> list[str]:
    """Who of these kinds (None: of any) cannot be written, and why: a sentence each."""
    told = [
        f'{bot.name} is left out: its runtime has no "command" to be written.'
        for bot in fleet.bots
        if bot.runtime is not None and is_of(bot, kinds) and not has_command(bot)
    ]
    return told + [f"{one.name} is left out: {one.problem}" for one in fleet.entries if one.bot is None]


def is_of(bot: Bot, kinds: tuple[str, ...] | None) -> bool:
    """Whether one of these kinds runs it; None: any."""
    return bot.runtime is not None and (kinds is None or bot.runtime.kind in kinds)


def has_command(bot: Bot) -> bool:
    """Whether it can be written: some kinds know no command, and where they do it may be missing."""
    return bool(getattr(bot.runtime, "command", None))


def save(text: str, path: Path) -> None:
    """Write a file, for its owner alone. Raises UsageError if that cannot be."""
    from .durable import write_atomic

    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
