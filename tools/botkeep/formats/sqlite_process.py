"""Work on a database in a process of its own.

A connection whose file some other part of this process opens and closes loses its locks: what takes long, and has to be
one version of the database, is done where nothing else is done. A file that SQLite cannot cope with, or a disk that
does not answer, ends that process and not ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..model import BotkeepError
from .base import FormatOptions

LEAST = 60.0
BYTES_A_SECOND = 5_000_000
_PACKAGE = Path(__file__).parents[2]
_PROGRAM = f"{__package__}.sqlite_child"


def run(job: str, paths: Mapping[str, Path | None], options: FormatOptions, size: int) -> dict[str, Any]:
    """Have it done; returns what the job answers. `size`: bytes to work on, for the deadline.

    Raises BotkeepError: the job's own, or that it did not end in time, or ended without an answer.
    """
    said = {name: str(path.absolute()) if path else None for name, path in paths.items()}
    asked = json.dumps({"job": job, "paths": said, "options": {**asdict(options)}})
    seconds = LEAST + size / BYTES_A_SECOND
    target = paths.get("target")
    try:
        # Room for copies, on the disk of the target; removed here, however the other process ends.
        with TemporaryDirectory(prefix=".database-", dir=target.absolute().parent if target else None) as room:
            done = subprocess.run(
                [sys.executable, "-S", "-m", _PROGRAM],
                input=asked,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                cwd="/",
                env=_environment() | {"TMPDIR": room},
            )
    except subprocess.TimeoutExpired as error:
        raise BotkeepError(
            f"{_named(paths)} could not be worked on within {seconds:.0f} s: is its disk slow?"
        ) from error
    except OSError as error:
        raise BotkeepError(f"No process could be started for {_named(paths)}: {error.strerror}.") from error
    return _answer(done, _named(paths))


def _environment() -> dict[str, str]:
    """What we can import the other process can as well, without its looking for it again: that takes a third of it."""
    found = [str(_PACKAGE), *(path for path in sys.path if path)]
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
    return {"PYTHONPATH": os.pathsep.join(found), "PATH": os.defpath, **kept}


def _named(paths: Mapping[str, Path | None]) -> str:
    return str(paths.get("path") or paths.get("damaged"))


def _answer(done: subprocess.CompletedProcess[str], name: str) -> dict[str, Any]:
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2][:200] or f"exit code {done.returncode}"
        raise BotkeepError(f"The work on {name} ended without an answer: {last}.") from None
    if "error" in answer:
        raise BotkeepError(str(answer["error"]))
    return dict(answer)
