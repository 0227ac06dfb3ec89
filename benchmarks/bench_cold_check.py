"""`botkeep check` of four running bots, cold, against importing pydantic and psutil: at most 4 times as long."""

from __future__ import annotations

import compileall
import subprocess
import sys
import tempfile
from pathlib import Path

import botkeep
from support import BOTKEEP, say, seconds, side_by_side, workspace

RUNS = 11
BOUND = 4.0


def main() -> None:
    """Start four bots, then time both commands in turn."""
    compileall.compile_dir(Path(botkeep.__file__).parent, quiet=2)  # as every installed package is
    names = [f"bot-{number}" for number in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        runtime = {"kind": "process", "stop_grace": 1}
        bots = [{"name": name, "runtime": {**runtime, "command": ["sleep", f"100{name[-1]}"]}} for name in names]
        home = workspace(Path(folder), bots)
        subprocess.run([BOTKEEP, "start", "--all", "--home", home], check=True, capture_output=True)
        try:
            mine, other, ratio = side_by_side(
                lambda: seconds([BOTKEEP, "check", "--home", str(home)]),
                lambda: seconds([sys.executable, "-c", "import pydantic, psutil"]),
                RUNS,
            )
        finally:
            subprocess.run([BOTKEEP, "stop", "--all", "--home", home], check=True, capture_output=True)
    figure = f"{mine * 1000:.0f} ms, {ratio:.2f} times the {other * 1000:.0f} ms of importing pydantic and psutil"
    say("check of 4 bots, cold", figure, f"{BOUND:.0f} times", held=ratio <= BOUND)


if __name__ == "__main__":
    main()
