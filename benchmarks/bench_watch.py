"""`botkeep watch` against supervisord, side by side in one run, with the same trivial bot; and what it costs to watch.

- kill -9 to the new process's own first word, the median of 20: at most 50 ms. supervisord starts on its next
  one-second pass. runit restarts in milliseconds and proves nothing; measured where it is installed.
- frozen (SIGSTOP) to the new process, default settings: nobody is told of that, so it is looked for. monit's usual rule
  for a file that grows no more takes 20 s; supervisord never sees it.
- memory, and CPU of one core, with a hundred idle bots at the default `check_interval`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support import BOTKEEP, say, workspace

RUNS = 20
FREEZES = 3
IDLE_BOTS = 100
IDLE_SECONDS = 330.0
"""More than one `check_interval`: each bot is looked at at least once in it."""
KILL_BOUND, FROZEN_BOUND, MIB_BOUND, CPU_BOUND = 0.050, 20.0, 60.0, 0.2
BOT = 'echo "$$ $(date +%s.%N)" >> starts\nexec sleep 100000\n'
TICKS = os.sysconf("SC_CLK_TCK")


def starts(folder: Path) -> list[tuple[int, float]]:
    """(pid, epoch seconds) that the bot wrote at each of its starts."""
    file = folder / "starts"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(pid), float(at)) for pid, at in (line.split() for line in lines if line.count(" ") == 1)]


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll until it holds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            sys.exit("the bot was not started in time")
        time.sleep(0.005)


def hit(folder: Path, number: signal.Signals) -> float:
    """Seconds from the signal to the new process's own first word."""
    before = starts(folder)
    began = time.time()
    os.kill(before[-1][0], number)
    wait_for(lambda: len(starts(folder)) > len(before))
    return starts(folder)[-1][1] - began


def without_limits(home: Path) -> None:
    """Twenty kills in a row are no usual day: no back-off, no cap, and a short look afterwards."""
    pauses = ", ".join(["0s"] * RUNS)
    for name in ("bot-not-running", "bot-hung"):
        book = home / f"playbooks/{name}.md"
        text = re.sub(r"backoff: .*", f"backoff: [{pauses}]", book.read_text())
        book.write_text(re.sub(r"max_per_day: .*", "max_per_day: 999", re.sub(r"up_for: \w+", "up_for: 1s", text)))
    loop = home / "playbooks/bot-crash-looping.md"
    loop.write_text(re.sub(r"restarts: \d+", "restarts: 999", loop.read_text()))


@contextmanager
def watching(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A watcher that has looked at every bot."""
    process = subprocess.Popen([BOTKEEP, "watch", "--home", home], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def follows(watcher: subprocess.Popen[str], pid: int) -> bool:
    """Whether it waits for the end of that process."""
    for path in Path(f"/proc/{watcher.pid}/fdinfo").iterdir():
        try:
            if f"\nPid:\t{pid}\n" in path.read_text():
                return True
        except OSError:
            continue
    return False


def ours(folder: Path, number: signal.Signals, times: int) -> list[float]:
    """Seconds from so many of these signals to a new process."""
    entry = {"name": "bot", "runtime": {"kind": "process", "command": ["/bin/sh", "bench_watch_bot.sh"]}}
    home = workspace(folder, [entry])
    (home / "bench_watch_bot.sh").write_text(BOT)
    (home / "config/schedule.json").unlink()
    without_limits(home)
    subprocess.run([BOTKEEP, "start", "bot", "--home", home], check=True, capture_output=True)
    found = []
    try:
        with watching(home) as watcher:
            for _ in range(times):
                up = time.monotonic() + 1.5  # past up_for
                wait_for(lambda up=up: time.monotonic() > up and follows(watcher, starts(home)[-1][0]))
                found.append(hit(home, number))
    finally:
        subprocess.run([BOTKEEP, "stop", "bot", "--home", home], check=True, capture_output=True)
    return found


def supervisords(folder: Path) -> list[float]:
    """Seconds to supervisord's new process, of as many kills."""
    (folder / "bot.sh").write_text(BOT)
    (folder / "supervisord.conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={folder}/pid\n"
        f"[program:bot]\ncommand=/bin/sh bot.sh\ndirectory={folder}\nstartsecs=1\nstartretries=9\n"
    )
    program = Path(sys.executable).with_name("supervisord")
    daemon = subprocess.Popen([program, "-c", folder / "supervisord.conf"], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: bool(starts(folder)))
        found = []
        for _ in range(RUNS):
            up = time.monotonic() + 1.5  # past startsecs, so that supervisord takes it for a running one
            wait_for(lambda up=up: time.monotonic() > up)
            found.append(hit(folder, signal.SIGKILL))
    finally:
        daemon.terminate()
        daemon.wait()
    return found


def runits(folder: Path) -> list[float] | None:
    """The same of runit; None where it is not installed."""
    program = shutil.which("runsv")
    if program is None:
        return None
    (folder / "bot").mkdir()
    run = folder / "bot/run"
    run.write_text(f"#!/bin/sh\ncd {folder}\n{BOT}")
    run.chmod(0o755)
    daemon = subprocess.Popen([program, str(folder / "bot")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: bool(starts(folder)))
        found = []
        for _ in range(RUNS):
            up = time.monotonic() + 1.5  # it makes a pause of a second after a run that was shorter
            wait_for(lambda up=up: time.monotonic() > up)
            found.append(hit(folder, signal.SIGKILL))
    finally:
        last = starts(folder)[-1][0]
        daemon.terminate()
        os.kill(last, signal.SIGTERM)
        daemon.wait()
    return found


def cpu_seconds(pid: int) -> float:
    """Of all its threads, and of the children that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def memory_mib(pid: int) -> float:
    """Its own and its share of what others have too."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return max(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024


def idle(folder: Path) -> tuple[float, float]:
    """(MiB, percent of a core) of a watcher over a hundred bots that do nothing, after its first looks."""
    runtime = {"kind": "process", "cwd": ".", "stop_grace": 1}
    entries = [
        {"name": f"idle-{number}", "runtime": {**runtime, "command": ["sleep", f"{200000 + number}"]}}
        for number in range(IDLE_BOTS)
    ]
    home = workspace(folder, entries)
    (home / "config/schedule.json").unlink()
    bots = [
        subprocess.Popen(["sleep", f"{200000 + number}"], cwd=home, start_new_session=True)
        for number in range(IDLE_BOTS)
    ]
    try:
        with watching(home) as watcher:
            wait_for(lambda: all(follows(watcher, bot.pid) for bot in bots))
            before, began = cpu_seconds(watcher.pid), time.monotonic()
            wait_for(lambda: time.monotonic() - began > IDLE_SECONDS, IDLE_SECONDS + 60)
            spent = (cpu_seconds(watcher.pid) - before) / (time.monotonic() - began)
            return memory_mib(watcher.pid), spent * 100
    finally:
        for bot in bots:
            bot.kill()
            bot.wait()


def main() -> None:
    """All in one run."""
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        tempfile.TemporaryDirectory() as three,
        tempfile.TemporaryDirectory() as four,
    ):
        killed, frozen = ours(Path(one), signal.SIGKILL, RUNS), ours(Path(four), signal.SIGSTOP, FREEZES)
        theirs, runit = supervisords(Path(two)), runits(Path(three))
    median, other = statistics.median(killed), statistics.median(theirs)
    third = f"runit's {statistics.median(runit) * 1000:.0f} ms" if runit else "runit is not installed (Debian: runit)"
    figure = (
        f"{median * 1000:.0f} ms (fastest {min(killed) * 1000:.0f}, slowest {max(killed) * 1000:.0f}) of {RUNS}; "
        f"supervisord's {other * 1000:.0f} ms; {third}"
    )
    with tempfile.TemporaryDirectory() as five:
        mib, cpu = idle(Path(five))
    slow = statistics.median(frozen)
    figures = (
        ("kill -9 to the new process, watch", figure, f"{KILL_BOUND * 1000:.0f} ms", median <= KILL_BOUND),
        (
            "frozen to the new process, watch",
            f"{slow:.1f} s; supervisord: never",
            f"{FROZEN_BOUND:.0f} s",
            slow <= FROZEN_BOUND,
        ),
        (f"memory with {IDLE_BOTS} idle bots", f"{mib:.0f} MiB", f"{MIB_BOUND:.0f} MiB", mib <= MIB_BOUND),
        (f"CPU with {IDLE_BOTS} idle bots", f"{cpu:.2f} % of a core", f"{CPU_BOUND} %", cpu <= CPU_BOUND),
    )
    failed = [name for name, said, bound, held in figures if not _said(name, said, bound, held)]
    if failed:
        sys.exit(1)


def _said(name: str, figure: str, bound: str, held: bool) -> bool:
    """Like `say`, but the figures after one that is not held are told as well."""
    if held:
        say(name, figure, bound, held=True)
    else:
        print(f"{name}: {figure} (bound: {bound}) NOT HELD", flush=True)
    return held


if __name__ == "__main__":
    main()
