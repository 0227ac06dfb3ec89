"""Bots in containers of Docker: found by name or id, started and stopped by id, never made or removed.

docker_control.py asks the engine, docker_transport.py talks to it, docker_log.py reads what a container says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from . import docker_control
from .docker_control import memory_of, set_memory, start, stop
from .docker_facts import Containers, Listed
from .docker_log import read_log, said_nothing_since
from .engine import NoSuchUnitError

KIND = "docker"
FAMILY = "docker"
"""Whatever runs containers of this engine may mean the same one."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
_IDENTITY = re.compile(r"[0-9a-f]{12,64}")

__all__ = [
    "FAMILY", "KIND", "Config", "memory_of", "read_log", "said_nothing_since", "set_memory", "start", "stop", "units",
]  # fmt: skip


class Config(docker_control.BotConfig):
    """How to find the bot's container; it is made by whoever made it."""

    kind: Literal["docker"]
    container: str = Field(pattern=NAME, max_length=255, description="Its name, or its id of 12 digits or more.")

    def among(self, containers: Containers) -> tuple[Listed, ...]:
        """The one of that name or id; beside it, whatever runs under the name that Compose gives it for the time in
        which it makes it anew. Raises NoSuchUnitError, naming the closest."""
        named = containers.by_name.get(self.container)
        own = [named] if named else containers.by_id(self.container) if _IDENTITY.fullmatch(self.container) else []
        found = (*own, *(one for one in containers.renamed.get(self.container, ()) if one.lives or not own))
        if not found:
            raise NoSuchUnitError(
                f"There is no container {self.container}: {closest(self.container, containers.names)}"
            )
        return found


def closest(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about something that is not there."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    mean = f"did you mean {near[0]}? " if near else ""
    return f"{mean}The engine has {shown}." if known else "the engine has none."


def units(configs: Mapping[str, Any], seconds: float) -> Mapping[str, docker_control.Found]:
    """The containers of many bots; see `Engine.units`."""
    return docker_control.units(configs, seconds)
