"""What the benchmarks share: a workspace, whole-process times, and one line a figure."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

BOTKEEP = str(Path(sys.executable).with_name("botkeep"))


def workspace(home: Path, bots: Sequence[dict[str, object]]) -> Path:
    """A fresh workspace with these bots."""
    subprocess.run([BOTKEEP, "init", str(home)], check=True, capture_output=True)
    (home / "config/bots.json").write_text(json.dumps({"bots": list(bots)}))
    return home


def seconds(command: Sequence[str], *, ok: Sequence[int] = (0,)) -> float:
    """Wall seconds of one run. Exits if it fails."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in ok:
        sys.exit(f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - began


def side_by_side(ours: Callable[[], float], theirs: Callable[[], float], runs: int) -> tuple[float, float, float]:
    """Medians of both and of the ratio, pair by pair, so that a machine that changes its speed changes both."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(runs)]
    mine, other = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(other), statistics.median(a / b for a, b in pairs)


def peak_of_children_mib() -> float:
    """The largest memory of any child that has ended, in MiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def said(name: str, figure: str, bound: str, *, held: bool) -> bool:
    """One line; gives `held`, for a run that goes on."""
    print(f"{name}: {figure} (bound: {bound}) {'held' if held else 'NOT HELD'}", flush=True)
    return held


def say(name: str, figure: str, bound: str, *, held: bool) -> None:
    """One line; a bound that is not held ends the run with exit code 1."""
    if not said(name, figure, bound, held=held):
        sys.exit(1)
