"""Bots as services of a Docker Swarm: one replica each, which the swarm itself restarts and botkeep counts.

swarm_control.py asks and changes, swarm_units.py says what it means, swarm_log.py reads output. Never two is the
swarm's own promise as well (one replica, stop-first), and nothing is started while any task of the service is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from . import swarm_control
from .docker import NAME, closest
from .engine import NoSuchUnitError, Unit
from .swarm_control import memory_of, set_memory, start
from .swarm_facts import Service
from .swarm_log import read_log

KIND = "swarm"

__all__ = ["KIND", "Config", "memory_of", "read_log", "set_memory", "start", "stop", "units"]


class Config(swarm_control.ServiceConfig):
    """How to find the bot's service; `botkeep swarm-stack` writes one from `command` and the rest."""

    kind: Literal["swarm"]
    service: str = Field(
        pattern=NAME, max_length=255, description="Its name, STACK_NAME for one of a stack, or its whole id."
    )
    image: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_./:@-]*$", max_length=255, description="For `botkeep swarm-stack`."
    )
    command: list[str] | None = Field(None, min_length=1, description="What it runs, for the same.")
    cwd: str = Field(".", description="Where it runs, from the workspace; for the same.")
    env_file: str | None = Field(
        None,
        description="KEY=VALUE lines, mode 0600. Its names are those of the swarm's secrets; a start does not need it.",
    )
    env: dict[str, str] = Field({}, description="Further variables that are no secrets, for the same.")

    def among(self, services: Sequence[Service]) -> Service:
        """The one of that name or id. Raises NoSuchUnitError, naming the closest."""
        for one in services:
            if self.service in (one.name, one.id):
                return one
        names = sorted(one.name for one in services)
        raise NoSuchUnitError(f"There is no service {self.service}: {closest(self.service, names)}")


def units(configs: Mapping[str, Any], seconds: float) -> Mapping[str, swarm_control.Found]:
    """The tasks of many bots; see `Engine.units`."""
    return swarm_control.units(configs, seconds)


def stop(config: Config, unit: Unit, grace: float, seconds: float) -> None:
    """As `Engine.stop`."""
    swarm_control.stop(config, unit, grace, seconds)
