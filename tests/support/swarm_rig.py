"""Bots that are services of a swarm of the tests' own engine: made as a person makes them, found and run by botkeep."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from botkeep.runtimes import Target, swarm

from .bots import Lab, wait_for
from .docker_engine import PYTHON, client, interpreter, manager_host, root_files

LABEL = "botkeep.test"
SCRIPT = "doge.py"
SECOND = 10**9
PIDS_OF_THIS_MACHINE = """\
# A task has pids of its own, and no service can have its machine's: the machine's /proc tells them.
import os
os.getpid = lambda: int(os.readlink("/machine/proc/self"))
"""


WITH_SHELL = "botkeep-test-python-shell:1"


def image_with_shell() -> str:
    """Python and a shell with its tools, as most bots' images have them."""
    repository, _, tag = WITH_SHELL.partition(":")
    if not client().images(WITH_SHELL):
        client().import_image_from_data(root_files(), repository=repository, tag=tag)
    return WITH_SHELL


class SwarmServices:
    """The services of one test. Whatever was made here is gone afterwards."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.host = manager_host()
        self.client = client()
        lab.program(SCRIPT)
        (lab.home / "sitecustomize.py").write_text(PIDS_OF_THIS_MACHINE)

    @property
    def prefix(self) -> str:
        """Of the names: what no other test has."""
        return f"t{self.lab.token}"

    def command(self, *switches: str) -> list[str]:
        """The paper bot's."""
        return [interpreter(), SCRIPT, *switches]

    def name(self, bot: str = "doge") -> str:
        """Of its service."""
        return f"{self.prefix}-{bot}"

    # ------------------------------------------------------------------------------------------------ making

    def spec(self, name: str, command: Sequence[str], **more: Any) -> dict[str, Any]:
        """A service that works in the lab's folder, sees its machine's pids, and restarts nothing by itself."""
        home = str(self.lab.home)
        container = {
            "Image": more.pop("image", PYTHON),
            "Command": list(command),
            "Dir": home,
            "Env": [f"PYTHONPATH={home}", *(f"{key}={value}" for key, value in more.pop("env", {}).items())],
            "Mounts": [
                {"Type": "bind", "Source": home, "Target": home},
                {"Type": "bind", "Source": "/proc", "Target": "/machine/proc"},
            ],
            "Labels": {LABEL: self.lab.token},
            **more.pop("container", {}),
        }
        template = {
            "ContainerSpec": container,
            "RestartPolicy": more.pop("policy", {"Condition": "none"}),
            "Networks": [{"Target": "host"}],
            **more.pop("template", {}),
        }
        mode = {"Replicated": {"Replicas": more.pop("replicas", 0)}}
        return {"Name": name, "Labels": {LABEL: self.lab.token}, "TaskTemplate": template, "Mode": mode, **more}

    def make(self, name: str, command: Sequence[str], **more: Any) -> str:
        """Make a service; gives its id."""
        answer = self.client.post(self._url("/services/create"), json=self.spec(name, command, **more))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["ID"])

    def _url(self, path: str) -> str:
        return f"{self.client.base_url}/v{self.client.api_version}{path}"

    def remove(self, name: str) -> None:
        """As `docker service rm`, and until its containers are gone; nothing if there is none."""
        import docker.errors

        try:
            found = self.client.inspect_service(name)
            self.client.remove_service(name)
        except docker.errors.NotFound:
            return
        filters = {"label": f"com.docker.swarm.service.id={found['ID']}"}
        for one in self.client.containers(all=True, filters=filters):
            self._end(one["Id"])

    def _end(self, container: str) -> None:
        import docker.errors

        try:
            self.client.remove_container(container, force=True, v=True)
        except docker.errors.APIError:  # its node is just removing it
            wait_for(lambda: not self.client.containers(all=True, filters={"id": container}))

    def bot(self, *switches: str, name: str = "doge", **more: Any) -> Target:
        """A bot that is a service, made anew, without a replica; it has a second to stop."""
        called = self.name(name)
        self.remove(called)
        self.make(called, more.pop("command", None) or self.command(*switches), **more)
        return self.target(called, name=name)

    def target(self, service: str, name: str = "doge", **more: Any) -> Target:
        """The bot that is this service."""
        config = {"kind": "swarm", "service": service, "host": self.host, "stop_grace": 1, **more}
        return replace(self.lab.target(name, script=SCRIPT), config=swarm.Config(**config))

    def given(self, target: Target, switches: Sequence[str], variables: Mapping[str, str]) -> Target:
        """The same bot, made anew with these variables."""
        return self.bot(*switches, name=target.name, env=variables)

    # ------------------------------------------------------------------------------------------------ as a person

    def service(self, target: Target) -> dict[str, Any]:
        """All about it."""
        found: dict[str, Any] = self.client.inspect_service(target.config.service)
        return found

    def scale(self, target: Target, replicas: int) -> None:
        """As `docker service scale`."""

        def set_replicas(spec: dict[str, Any]) -> None:
            spec["Mode"]["Replicated"]["Replicas"] = replicas

        self.update(target, set_replicas)

    def update(self, target: Target, edit: Any) -> None:
        """As `docker service update`."""
        until = time.monotonic() + 30
        while True:
            seen = self.service(target)
            edit(seen["Spec"])
            url, version = self._url(f"/services/{seen['ID']}/update"), seen["Version"]["Index"]
            answer = self.client.post(url, params={"version": version}, json=seen["Spec"])
            if answer.status_code == 200:
                return
            assert "out of sequence" in answer.text, answer.text
            assert time.monotonic() < until

    def tasks(self, target: Target) -> list[dict[str, Any]]:
        """The service's, the oldest first."""
        found = self.client.tasks(filters={"service": target.config.service})
        return sorted(found, key=lambda one: str(one["CreatedAt"]))

    def running(self, target: Target) -> list[dict[str, Any]]:
        """Those that run."""
        return [one for one in self.tasks(target) if one["Status"]["State"] == "running"]

    def pid(self, target: Target) -> int:
        """Of its main process, once it has one."""
        return wait_for(lambda: next((int(one["Status"]["ContainerStatus"]["PID"]) for one in self.running(target)), 0))

    def container(self, target: Target) -> str:
        """The id of its running task's."""
        return str(wait_for(lambda: self.running(target))[0]["Status"]["ContainerStatus"]["ContainerID"])

    def start_by_hand(self, target: Target) -> int:
        """As `docker service scale NAME=1`."""
        self.scale(target, 1)
        return self.pid(target)

    def close(self) -> None:
        """Remove every service of this test."""
        for one in self.client.services(filters={"label": f"{LABEL}={self.lab.token}"}):
            self.remove(one["Spec"]["Name"])
        for one in self.client.containers(all=True, filters={"label": f"{LABEL}={self.lab.token}"}):
            self._end(one["Id"])
