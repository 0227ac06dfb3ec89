"""A network and a name server of our own: a script runs in namespaces where /etc/resolv.conf names only 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

WHY_NOT = "this machine lets us make no network namespace (unshare)"
_MOUNTS = (
    'mount --bind "$1" "$(readlink -f /etc/resolv.conf)" && shift'
    " && for other in /run/systemd/resolve /run/nscd; do [ ! -d $other ] || mount -t tmpfs tmpfs $other; done"
    ' && exec "$@"'
)
"""Resolvers of the machine are asked through sockets in its file system, which a network of our own does not hide."""
_LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as _one:
    fcntl.ioctl(_one, 0x8914, struct.pack("16sh", b"lo", 1))
"""


@cache
def _unshare() -> list[str] | None:
    tool = shutil.which("unshare")
    for flags in ("-mn", "-Urmn"):
        command = [str(tool), flags]
        if tool and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return None


def available() -> bool:
    """Whether there can be such namespaces; in CI there must be."""
    return _unshare() is not None or bool(os.environ.get("CI"))


def run(script: str, folder: Path, modules: Path) -> str:
    """Run Python code there; returns what it printed."""
    command = _unshare()
    assert command, WHY_NOT
    resolv = folder / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\noptions timeout:2 attempts:1\n")
    done = subprocess.run(
        [*command, "sh", "-c", _MOUNTS, "sh", str(resolv), sys.executable, "-c", _LOOPBACK_UP + script],
        env={**os.environ, "PYTHONPATH": str(modules)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
