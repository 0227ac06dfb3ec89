"""Extension point 1: what runs a bot. One module each; the key is the `kind` of bots.json."""

from __future__ import annotations

from . import process
from .base import Runtime, Started, Stopped, Target
from .later import later

RUNTIMES: dict[str, Runtime] = {
    "process": process,
    "docker": later("docker", "docker_memory:ContainerRuntime"),
    "compose": later("compose", "docker_memory:ContainerRuntime"),
    "swarm": later("swarm", "swarm_memory:ServiceRuntime"),
    "supervisord": later("supervisord", "supervisord_memory:ProgramRuntime"),
    "systemd": later("systemd", "systemd_left:ServiceRuntime"),
}

__all__ = ["RUNTIMES", "Runtime", "Started", "Stopped", "Target"]
