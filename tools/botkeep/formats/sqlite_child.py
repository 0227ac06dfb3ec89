"""The other side of `sqlite_process`: one job as JSON on stdin, one answer as JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..model import BotkeepError
from .base import FormatOptions
from .sqlite_copying import take
from .sqlite_rebuilding import build
from .sqlite_settling import settle

JOBS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "snapshot": take,
    "rebuild": build,
    "settle": settle,
}


def main() -> None:
    """Do the job. Any other exception than ours ends the process with its trace: the asker says so."""
    asked = json.load(sys.stdin)
    paths = {name: Path(path) if path else None for name, path in asked["paths"].items()}
    try:
        answer = JOBS[asked["job"]](**paths, options=FormatOptions(**asked["options"]))
    except BotkeepError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
