"""Bots in containers of the tests' own engine: made as a person makes them, found and run by botkeep."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from botkeep.runtimes import Target, compose, docker

from .bots import Lab, wait_for
from .docker_engine import PYTHON, client, engine_host, interpreter

LABEL = "botkeep.test"
SCRIPT = "doge.py"


class Containers:
    """The containers of one test. Whatever was made here is gone afterwards, whoever made it anew meanwhile."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.host = engine_host()
        self.client = client()
        lab.program(SCRIPT)

    @property
    def prefix(self) -> str:
        """Of the names: what no other test has."""
        return f"t{self.lab.token}"

    def command(self, *switches: str) -> list[str]:
        """The paper bot's."""
        return [interpreter(), SCRIPT, *switches]

    def make(self, name: str, command: Sequence[str], **more: Any) -> str:
        """Make a container that works in the lab's folder, and sees pids as we do; gives its id. Each has a variable
        of its own, as bots have: two that have everything in common are one bot twice."""
        host = {"network_mode": "none", "pid_mode": "host", **more.pop("host", {})}
        home = str(self.lab.home)
        binds = [f"{home}:{home}", *host.pop("binds", ())]
        made = self.client.create_container(
            more.pop("image", PYTHON),
            list(command),
            name=name,
            working_dir=home,
            labels={LABEL: self.lab.token, **more.pop("labels", {})},
            host_config=self.client.create_host_config(binds=binds, **host),
            environment={"NAMED": name, **more.pop("environment", {})},
            **more,
        )
        return str(made["Id"])

    def remove(self, name: str) -> None:
        """As `docker rm -f`; nothing if there is none."""
        import docker.errors

        try:
            self.client.remove_container(name, force=True, v=True)
        except docker.errors.NotFound:
            return

    def docker_bot(self, *switches: str, name: str = "doge", **more: Any) -> Target:
        """A bot in a container of its own, made anew; it has a second to stop."""
        called = f"{self.prefix}-{name}"
        self.remove(called)
        self.make(called, more.pop("command", None) or self.command(*switches), **more)
        return self.docker_target(called, name=name)

    def docker_target(self, container: str, name: str = "doge", **more: Any) -> Target:
        """The bot in this container."""
        config = {"kind": "docker", "container": container, "host": self.host, "stop_grace": 1, **more}
        return replace(self.lab.target(name, script=SCRIPT), config=docker.Config(**config))

    def pid(self, container: str) -> int:
        """Of its main process, once it has one."""
        return wait_for(lambda: int(self.inspect(container)["State"]["Pid"]))

    def inspect(self, container: str) -> dict[str, Any]:
        """All about it."""
        found: dict[str, Any] = self.client.inspect_container(container)
        return found

    def start_by_hand(self, target: Target) -> int:
        """As `docker start`."""
        self.client.start(target.config.container)
        return self.pid(target.config.container)

    # ------------------------------------------------------------------------------------------------ compose

    def compose(self, *words: str) -> str:
        """Run Compose in the lab's folder; gives what it says."""
        command = ["docker-compose", "-H", self.host, "-p", self.prefix, "-f", "compose.yml", *words]
        try:
            done = subprocess.run(command, cwd=self.lab.home, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("docker-compose is not installed")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def write_compose(self, command: Sequence[str], **more: Any) -> None:
        """A project with the one service `bot`."""
        home = str(self.lab.home)
        service = {
            "image": PYTHON,
            "command": list(command),
            "working_dir": home,
            "volumes": [f"{home}:{home}"],
            "network_mode": "none",
            "pid": "host",
            "labels": {LABEL: self.lab.token},
            **more,
        }
        (self.lab.home / "compose.yml").write_text(json.dumps({"version": "2.4", "services": {"bot": service}}))

    def compose_bot(self, *switches: str, command: Sequence[str] = (), **more: Any) -> Target:
        """A bot that is a service, made anew by Compose itself."""
        self.write_compose(command or self.command(*switches), **more)
        self.compose("up", "--no-start", "--force-recreate")
        return self.compose_target()

    def compose_target(self, **more: Any) -> Target:
        """The bot that is the service."""
        config = {"kind": "compose", "project": self.prefix, "service": "bot", "host": self.host, "stop_grace": 1}
        return replace(self.lab.target("doge", script=SCRIPT), config=compose.Config(**config, **more))

    def service_containers(self) -> list[dict[str, Any]]:
        """What the engine has of the project."""
        filters = {"label": f"com.docker.compose.project={self.prefix}"}
        found: list[dict[str, Any]] = self.client.containers(all=True, filters=filters)
        return found

    def up_by_hand(self, _: Target) -> int:
        """As `docker compose start`."""
        (one,) = self.service_containers()
        self.client.start(one["Id"])
        return self.pid(one["Id"])

    # ------------------------------------------------------------------------------------------------ environment

    def docker_given(self, target: Target, switches: Sequence[str], variables: Mapping[str, str]) -> Target:
        """The same bot, made anew with these variables: a container gets its own when it is made."""
        self.remove(target.config.container)
        self.make(target.config.container, self.command(*switches), environment=dict(variables))
        return target

    def compose_given(self, _: Target, switches: Sequence[str], variables: Mapping[str, str]) -> Target:
        """The same for a service."""
        return self.compose_bot(*switches, environment=dict(variables))

    def close(self) -> None:
        """Remove every container of this test."""
        for one in self.client.containers(all=True, filters={"label": f"{LABEL}={self.lab.token}"}):
            self.remove(one["Id"])
