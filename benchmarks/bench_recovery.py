"""kill -9 to a new process: one `botkeep round` against supervisord's own restart, in turn, in one run.

botkeep's figure counts from the kill, through a cold start of the command, to the new process; verified is when the
round has seen it up for the playbook's `up_for`. supervisord notices by SIGCHLD and starts on its next one-second pass.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from support import BOTKEEP, say, workspace

RUNS = 5
BOUND = 3.0
UP_FOR = 1.0
BOT = "import time, os\nopen('starts', 'a').write(f'{os.getpid()} {time.time()}\\n')\ntime.sleep(1000)\n"


def starts(folder: Path) -> list[tuple[int, float]]:
    """(pid, epoch seconds) that the bot wrote at each of its starts."""
    file = folder / "starts"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(pid), float(at)) for pid, at in (line.split() for line in lines)]


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll until it holds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            sys.exit("the bot was not started in time")
        time.sleep(0.005)


def kill_and_wait(folder: Path, deed: Callable[[], None]) -> float:
    """Seconds from kill -9 to the bot's own first word after it."""
    before = starts(folder)
    killed = time.time()
    os.kill(before[-1][0], signal.SIGKILL)
    deed()
    wait_for(lambda: len(starts(folder)) > len(before))
    return starts(folder)[-1][1] - killed


def ours(folder: Path) -> tuple[list[float], list[float]]:
    """Seconds to a new process, and to a verified one, of several rounds."""
    home = workspace(folder, [{"name": "bot", "runtime": {"kind": "process", "command": [sys.executable, "bot.py"]}}])
    (home / "bot.py").write_text(BOT)
    playbook = home / "playbooks/bot-not-running.md"
    text = re.sub(r"backoff: .*", "backoff: [0s, 0s, 0s, 0s, 0s, 0s, 0s, 0s]", playbook.read_text())
    text = re.sub(r"max_per_day: .*", "max_per_day: 99", text)
    playbook.write_text(re.sub(r"up_for: \w+", f"up_for: {UP_FOR:.0f}s", text))
    (home / "playbooks/bot-crash-looping.md").write_text(
        re.sub(r"restarts: \d+", "restarts: 99", (home / "playbooks/bot-crash-looping.md").read_text())
    )
    subprocess.run([BOTKEEP, "start", "bot", "--home", home], check=True, capture_output=True)
    new, verified = [], []
    try:
        for _ in range(RUNS):
            began = time.time()
            new.append(kill_and_wait(home, lambda: one_round(home)))
            verified.append(time.time() - began)
    finally:
        subprocess.run([BOTKEEP, "stop", "bot", "--home", home], check=True, capture_output=True)
    return new, verified


def one_round(home: Path) -> None:
    """A cold `botkeep round`, as cron starts it."""
    done = subprocess.run([BOTKEEP, "round", "--json", "--home", home], check=True, capture_output=True, text=True)
    assert [action["result"] for action in json.loads(done.stdout)["actions"]] == ["done"], done.stdout


def supervisords(folder: Path) -> list[float]:
    """Seconds to supervisord's new process, of as many kills."""
    (folder / "bot.py").write_text(BOT)
    (folder / "supervisord.conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={folder}/pid\n"
        f"[program:bot]\ncommand={sys.executable} bot.py\ndirectory={folder}\nstartsecs=1\nstartretries=9\n"
    )
    daemon = subprocess.Popen(
        [Path(sys.executable).with_name("supervisord"), "-c", folder / "supervisord.conf"], stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: bool(starts(folder)))
        found = []
        for _ in range(RUNS):
            up = time.monotonic() + 1.5  # past startsecs, so that supervisord takes it for a running one
            wait_for(lambda up=up: time.monotonic() > up)
            found.append(kill_and_wait(folder, lambda: None))
    finally:
        daemon.terminate()
        daemon.wait()
    return found


def main() -> None:
    """Both in one run."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        new, verified = ours(Path(first))
        theirs = supervisords(Path(second))
    ratio = statistics.median(new) / statistics.median(theirs)
    figure = (
        f"{statistics.median(new):.2f} s to the new process, {statistics.median(verified):.2f} s until it was seen up "
        f"for {UP_FOR:.0f} s and the outcome was written; supervisord's new one: {statistics.median(theirs):.2f} s; "
        f"ratio {ratio:.2f}"
    )
    say("kill -9 to recovered, one round", figure, f"ratio {BOUND:.0f}", held=ratio <= BOUND)


if __name__ == "__main__":
    main()
