"""A full disk: a script runs in a mount namespace of its own, with a few hundred KiB of tmpfs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

_MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'


@cache
def _unshare() -> list[str] | None:
    """The command that gives us our own mounts, as root or as anybody; None where neither is allowed."""
    tool = shutil.which("unshare")
    for flags in ("-m", "-Urm"):
        if tool and subprocess.run([tool, flags, "true"], capture_output=True, check=False).returncode == 0:
            return [tool, flags]
    return None


def available() -> bool:
    """Whether this machine lets us mount."""
    return _unshare() is not None


def run(script: str, *, size: str, at: Path, workspace_modules: str) -> str:
    """Run Python code with `at` as a disk of `size`; returns what it printed. The code gets `at` as sys.argv[1]."""
    command = _unshare()
    assert command, "ask available() first"
    at.mkdir(parents=True, exist_ok=True)
    inner = ["sh", "-c", _MOUNT, "sh", size, str(at), sys.executable, "-c", script, str(at)]
    env = {**os.environ, "PYTHONPATH": workspace_modules}
    done = subprocess.run([*command, *inner], capture_output=True, text=True, check=False, env=env, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
