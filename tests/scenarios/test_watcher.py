"""The watcher beside each bot: small, and its records and logs hold on a full disk and in a long run."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from botkeep.model import EngineError
from botkeep.runtimes import process
from support import small_disk
from support.bots import DEADLINE, Lab, look, pid_of, start, stop, wait_for

PSS_LIMIT = 8_000_000
"""Bytes, mean over four: what the watchers of a small fleet may cost each."""
BUILT_IN = {"_signal", "os", "sys", "time"}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


def pss(pid: int) -> int:
    """Bytes of memory, what is shared counted in parts."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def test_a_watcher_costs_at_most_eight_megabytes(lab: Lab) -> None:
    bots = [lab.target(name) for name in ("one", "two", "three", "four")]
    for bot in bots:
        start(bot)
    watchers = list(lab.watchers())
    assert len(watchers) == len(bots)
    assert sum(map(pss, watchers)) / len(watchers) <= PSS_LIMIT


def test_a_watcher_has_loaded_no_extension_module(lab: Lab) -> None:
    start(lab.target())
    (watcher,) = lab.watchers()
    assert "lib-dynload" not in Path(f"/proc/{watcher}/maps").read_text()


def test_the_watchers_program_imports_only_os_and_what_is_built_in() -> None:
    tree = ast.parse(process.SHIM.read_text())
    top = {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    everywhere = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert top == BUILT_IN
    inside = {name.name for node in everywhere if node not in tree.body for name in node.names}
    assert inside == {"ctypes", "_socket"}, "in the launchers alone: what stays beside a bot has neither"
    assert set(sys.builtin_module_names) >= BUILT_IN - {"os"}
    quiet = ["-I", "-S", "-X", "importtime"]
    whole = imported([*quiet, "-c", f"exec(open({str(process.SHIM)!r}).read().partition('if __name__')[0])"])
    of_os = {"os", "stat", "_stat", "posixpath", "genericpath", "_collections_abc"}
    assert whole - imported([*quiet, "-c", ""]) <= of_os


def imported(arguments: list[str]) -> set[str]:
    """The modules that Python loads."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}


def numbers(path: Path) -> list[int]:
    return [int(line[:9]) for line in path.read_text().splitlines()]


def test_a_log_is_rotated_three_are_kept_and_the_bot_writes_on_into_the_same_file(lab: Lab) -> None:
    bot = lab.target("doge", "--talk=20", log_bytes=64 << 10)
    start(bot)
    inode = wait_for(lambda: bot.log_path.stat().st_ino)
    third = bot.log_path.with_name("doge.log.3")
    first = bot.log_path.with_name("doge.log.1")
    wait_for(third.exists)
    newest = first.stat().st_ino
    wait_for(lambda: first.stat().st_ino != newest)
    os.kill(pid_of(look(bot).instances[0]), signal.SIGSTOP)
    assert bot.log_path.stat().st_ino == inode
    older, *rest = [numbers(path) for path in reversed(process.logs(bot))]
    said = [*older, *(number for numbers_ in rest for number in numbers_)]
    assert not bot.log_path.with_name("doge.log.4").exists()
    assert said == sorted(set(said))
    assert said[-1] - said[0] + 1 - len(said) <= 20 * len(rest)
    assert process.run_offset(bot) == 0
    stop(bot)


def test_what_keeps_a_start_from_happening_is_named(lab: Lab) -> None:
    torn = lab.target("torn", command=["sleep", "1\0 2"])
    nowhere = lab.target("nowhere", command=["sleep", "1000.5"], config={"cwd": "no/such/folder"})
    unlogged = lab.target("unlogged", command=["sleep", "1000.5"])
    for bot, why in (
        (torn, "NUL"),
        (replace(unlogged, log_path=lab.home / "gone/bot.log"), "No such file or directory"),
    ):
        with pytest.raises(EngineError, match=f"{bot.name} could not be started: .*{why}"):
            start(bot)
    failed = process.start(nowhere, "e1", time.monotonic() + DEADLINE).exit
    assert failed is not None
    assert failed.failed_to_start == "the folder no/such/folder: No such file or directory"
    watched = lab.target("watched", command=[])
    with pytest.raises(EngineError, match="it can be watched, not started"):
        start(watched)
    wait_for(lambda: not lab.processes())


FULL_DISK = """
import json, sys, time
from pathlib import Path
from botkeep.model import EngineError
from botkeep.runtimes import process
from support.bots import Lab, ended, start, stop

with Lab(Path(sys.argv[1])) as lab:
    bot = lab.target(command=["bash", "-c", "cat /dev/zero > filled 2> /dev/null; echo full; exit 7"])
    process.start(bot, "e1", time.monotonic() + 20)
    seen = ended(bot)
    left = stop(bot).left
    try:
        start(bot)
        refused = ""
    except EngineError as error:
        refused = str(error)
    print(json.dumps([seen.code, list(left), refused]))
"""


@pytest.mark.skipif(not small_disk.available(), reason="this machine does not let us mount a small disk")
def test_how_a_bot_ended_is_known_though_it_filled_the_disk(tmp_path: Path, lab: Lab) -> None:
    said = small_disk.run(FULL_DISK, size="512k", at=tmp_path / "disk", workspace_modules=lab.python_path)
    code, left, refused = json.loads(said)
    assert (code, left) == (7, [])
    assert "No space left on device" in refused
