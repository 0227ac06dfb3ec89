"""A real MQTT broker of a test's own, on loopback, and a real program that publishes to it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.piped import Piped

USER, PASSWORD = "botkeep-test", "correct horse battery"
PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
"""Debian keeps the broker where only root's PATH leads."""
ATTEMPTS = 5
SECONDS = 15.0


@dataclass(frozen=True)
class Broker:
    """Where it listens."""

    port: int
    process: subprocess.Popen[bytes]


@contextmanager
def broker(folder: Path, *, password: bool = False, extra: str = "") -> Iterator[Broker]:
    """Mosquitto with a configuration of its own. `password`: it lets in USER only. Skips where it is not installed."""
    program = shutil.which("mosquitto", path=PLACES)
    if program is None:
        pytest.skip("mosquitto, the MQTT broker, is not installed (apt-get install mosquitto)")
    found = next((one for one in (_start(program, folder, password, extra) for _ in range(ATTEMPTS)) if one), None)
    assert found is not None, (folder / "mosquitto.log").read_text()
    try:
        yield found
    finally:
        found.process.terminate()
        found.process.wait(SECONDS)


def _start(program: str, folder: Path, password: bool, extra: str) -> Broker | None:
    """None if its port was taken in the meantime."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    config = folder / "mosquitto.conf"
    lines = [f"listener {port} 127.0.0.1", "user root", "persistence false", *_who_may(folder, password), extra]
    config.write_text("\n".join(lines) + "\n")
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    if _is_up(port, process):
        return Broker(port, process)
    process.kill()
    process.wait()
    return None


def _who_may(folder: Path, password: bool) -> list[str]:
    if not password:
        return ["allow_anonymous true"]
    passwords = folder / "passwords"
    passwords.write_text(f"{USER}:{PASSWORD}\n")
    passwords.chmod(0o600)
    tool = shutil.which("mosquitto_passwd", path=PLACES)
    assert tool is not None
    subprocess.run([tool, "-U", str(passwords)], check=True)
    return ["allow_anonymous false", f"password_file {passwords}"]


def _is_up(port: int, process: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return process.poll() is None
    return False


class Publisher(Piped):
    """A process of support/mqtt_publisher.py."""

    def __init__(self, port: int, topic: str, **who: Any) -> None:
        name = [USER, PASSWORD] if who.get("password") else []
        super().__init__("mqtt_publisher.py", str(port), topic, *name)
