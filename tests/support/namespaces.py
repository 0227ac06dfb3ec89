"""What only some machines allow: a pid namespace, strace. Missing, a test is skipped by name; in CI it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WHY_NOT = "this machine lets us make no pid namespace (unshare)"


@cache
def _unshare() -> list[str] | None:
    """The command that makes us pid 1 of a namespace with a /proc of its own; None where that is not allowed."""
    tool = shutil.which("unshare")
    for flags in ("-pf", "-Urpf"):
        command = [str(tool), flags, "--mount-proc"]
        if tool and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return None


def available() -> bool:
    """Whether there can be a namespace; in CI there must be."""
    return _unshare() is not None or bool(os.environ.get("CI"))


def run(script: str, *arguments: str) -> str:
    """Run a script of this folder as pid 1 of its own namespace; returns what it printed."""
    command = _unshare()
    assert command, WHY_NOT
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parents[1] / 'tools'}:{HERE.parent}"}
    done = subprocess.run(
        [*command, sys.executable, str(HERE / script), *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def require(tool: str) -> None:
    """Skip the test where a tool is missing; in CI, fail it."""
    if shutil.which(tool) is None:
        assert not os.environ.get("CI"), f"{tool} must be installed in CI"
        pytest.skip(f"{tool} is not installed")
