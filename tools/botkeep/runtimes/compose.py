"""Bots that are services of Compose: found by the labels that it gives its containers, never by their names.

Compose makes and removes containers; botkeep starts and stops the ones that it made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from . import docker_control
from .docker import FAMILY, NAME, closest
from .docker_control import memory_of, set_memory, start, stop
from .docker_facts import Containers, Listed
from .docker_log import read_log, said_nothing_since
from .engine import NoSuchUnitError

KIND = "compose"
ONE_OFF = "com.docker.compose.oneoff"

__all__ = [
    "FAMILY", "KIND", "Config", "memory_of", "read_log", "said_nothing_since", "set_memory", "start", "stop", "units",
]  # fmt: skip


class Config(docker_control.BotConfig):
    """Which service of which project the bot is."""

    kind: Literal["compose"]
    project: str = Field(pattern=NAME, max_length=128, description="As `docker compose ls` names it.")
    service: str = Field(pattern=NAME, max_length=128, description="Its name in the Compose file.")

    def among(self, containers: Containers) -> tuple[Listed, ...]:
        """The service's containers; several that run are copies. Of those that `docker compose run` made, which are
        mostly there for something else, the ones that run the service's own command. Raises NoSuchUnitError."""
        mine = containers.services.get(self.project, {}).get(self.service, [])
        kept = [one for one in mine if not _is_one_off(one)]
        if not kept:
            raise NoSuchUnitError(self._not_there(containers))
        commands = {one.command for one in kept}
        return (*kept, *(one for one in mine if _is_one_off(one) and one.lives and one.command in commands))

    def _not_there(self, containers: Containers) -> str:
        services = containers.services.get(self.project)
        if services:
            near = closest(self.service, sorted(services))
            return f"Project {self.project} has no container of a service {self.service}: {near}"
        near = closest(self.project, sorted(containers.services))
        return f"There is no container of a Compose project {self.project}: {near}"


def _is_one_off(one: Listed) -> bool:
    return one.labels.get(ONE_OFF, "").lower() == "true"


def units(configs: Mapping[str, Any], seconds: float) -> Mapping[str, docker_control.Found]:
    """The containers of many bots; see `Engine.units`."""
    return docker_control.units(configs, seconds)
