"""`botkeep watch` against supervisord, PM2, runit and monit in one run, with the same trivial bot; and what it costs.

- kill -9 to the new process's own first word, the median of 20: at most 50 ms. supervisord starts on its next
  one-second pass. PM2 and runit start at once, and prove nothing; each is measured where it is installed.
- frozen (SIGSTOP) to the new process, default settings: nobody is told of that, so it is looked for. monit's usual rule
  for a file that grows no more takes 20 s; the others never see it.
- memory, and CPU of one core, with a hundred idle bots at the default `check_interval`. The others are measured
  meanwhile: an idle watcher takes nothing from them, and the run is over in seven minutes.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from support import BOTKEEP, said, workspace

RUNS = 20
FREEZES = 3
IDLE_BOTS = 100
IDLE_SECONDS = 330.0
"""More than one `check_interval`: each bot is looked at at least once in it."""
KILL_BOUND, FROZEN_BOUND, MIB_BOUND, CPU_BOUND = 0.050, 20.0, 60.0, 0.2
STARTS = 'echo "$$ $(date +%s.%N)" >> starts\n'
BOT = STARTS + "exec sleep 100000\n"
BEATING = STARTS + "while :; do : > beat; sleep 1; done\n"
"""One whose file tells that it is frozen."""
FILE_AGE = 20
"""Seconds, as monit's manual and most who copy it have it."""
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


def followed(watcher: subprocess.Popen[str]) -> set[int]:
    """The processes for whose end it waits."""
    found = set()
    for path in Path(f"/proc/{watcher.pid}/fdinfo").iterdir():
        with suppress(OSError):
            found |= {int(pid) for pid in re.findall(r"^Pid:\t(\d+)$", path.read_text(), re.MULTILINE)}
    return found


def ours(folder: Path, number: signal.Signals, times: int) -> list[float]:
    """Seconds from so many of these signals to a new process."""
    entry = {"name": "bot", "runtime": {"kind": "process", "command": ["/bin/sh", "bench_watch_bot.sh"]}}
    home = workspace(folder, [entry])
    (home / "bench_watch_bot.sh").write_text(BEATING if number is signal.SIGSTOP else BOT)
    (home / "config/schedule.json").unlink()
    without_limits(home)
    subprocess.run([BOTKEEP, "start", "bot", "--home", home], check=True, capture_output=True)
    found = []
    try:
        with watching(home) as watcher:
            for _ in range(times):
                up = time.monotonic() + 1.5  # past up_for
                wait_for(lambda up=up: time.monotonic() > up and starts(home)[-1][0] in followed(watcher))
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
        return kills(folder)
    finally:
        daemon.terminate()
        daemon.wait()


def kills(folder: Path) -> list[float]:
    """Seconds to the new process, of as many kills; each of a run that was long enough to be taken for a good one."""
    wait_for(lambda: bool(starts(folder)))
    found = []
    for _ in range(RUNS):
        up = time.monotonic() + 1.5
        wait_for(lambda up=up: time.monotonic() > up)
        found.append(hit(folder, signal.SIGKILL))
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
        return kills(folder)
    finally:
        daemon.terminate()
        end(folder)
        daemon.wait()


def end(folder: Path) -> None:
    """The newest process of a bot that nobody starts again."""
    for pid, _ in starts(folder)[-1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def pm2s(folder: Path) -> list[float] | None:
    """The same of PM2, with a home of its own; None where it is not installed."""
    program = shutil.which("pm2")
    if program is None:
        return None
    (folder / "bot.sh").write_text(BOT)
    known = {**os.environ, "PM2_HOME": str(folder / "home"), "PM2_DISABLE_VERSION_CHECK": "true"}

    def ask(*words: str) -> None:
        subprocess.run([program, *words], cwd=folder, env=known, check=True, capture_output=True)

    try:
        ask("start", "bot.sh", "--name", "bot", "--interpreter", "/bin/sh", "--cwd", str(folder))
        return kills(folder)
    finally:
        ask("kill")


MONIT = """\
set daemon 1
set pidfile {folder}/monit.pid
set idfile {folder}/monit.id
set statefile {folder}/monit.state
check file beat with path {folder}/beat
    start program = "{folder}/start"
    stop program = "{folder}/stop"
    if timestamp > {age} seconds then restart
"""


def monits(folder: Path) -> float | None:
    """Seconds from a freeze to the new process by monit's file-age rule, looked at each second; None without monit."""
    program = shutil.which("monit")
    if program is None:
        return None
    start = f"#!/bin/sh\ncd {folder}\nsetsid /bin/sh bot.sh > /dev/null 2>&1 &\n"
    stop = f"#!/bin/sh\nkill -9 $(tail -n 1 {folder}/starts | cut -d' ' -f1)\n"
    for name, text in (("bot.sh", BEATING), ("start", start), ("stop", stop)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    rules = folder / "monitrc"
    rules.write_text(MONIT.format(folder=folder, age=FILE_AGE))
    rules.chmod(0o600)
    subprocess.run([folder / "start"], check=True)
    wait_for((folder / "beat").exists)
    daemon = subprocess.Popen([program, "-I", "-c", rules], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        up = time.monotonic() + 3
        wait_for(lambda: time.monotonic() > up)
        return hit(folder, signal.SIGSTOP)
    finally:
        daemon.terminate()
        daemon.wait()
        end(folder)


def cpu_seconds(pid: int) -> float:
    """Of all its threads, and of the children that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def memory_mib(pid: int) -> float:
    """Its own and its share of what others have too."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return max(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024


def idle(folder: Path, meanwhile: Callable[[], None]) -> tuple[float, float]:
    """(MiB, percent of a core) of a watcher over a hundred bots that do nothing, after its first looks."""
    runtime = {"kind": "process", "cwd": ".", "stop_grace": 1}
    first = os.getpid() * 1000  # another run's bots must not be taken for second copies of ours
    commands = [["sleep", str(first + number)] for number in range(IDLE_BOTS)]
    home = workspace(
        folder,
        [{"name": f"idle-{at}", "runtime": {**runtime, "command": one}} for at, one in enumerate(commands)],
    )
    (home / "config/schedule.json").unlink()
    bots = [subprocess.Popen(one, cwd=home, start_new_session=True) for one in commands]
    try:
        with watching(home) as watcher:
            wait_for(lambda: followed(watcher).issuperset(bot.pid for bot in bots))
            before, began = cpu_seconds(watcher.pid), time.monotonic()
            meanwhile()
            wait_for(lambda: time.monotonic() - began > IDLE_SECONDS, IDLE_SECONDS + 60)
            spent = (cpu_seconds(watcher.pid) - before) / (time.monotonic() - began)
            return memory_mib(watcher.pid), spent * 100
    finally:
        for bot in bots:
            bot.kill()
            bot.wait()


@dataclass
class Others:
    """What the others take, in seconds; None: not installed."""

    supervisord: list[float] = field(default_factory=list)
    pm2: list[float] | None = None
    runit: list[float] | None = None
    monit: float | None = None

    def measure(self, folder: Path) -> None:
        """One after the other."""
        for name in ("supervisord", "pm2", "runit", "monit"):
            (folder / name).mkdir()
        self.supervisord = supervisords(folder / "supervisord")
        self.pm2, self.runit = pm2s(folder / "pm2"), runits(folder / "runit")
        self.monit = monits(folder / "monit")


def told(name: str, seconds: list[float] | None) -> str:
    """A clause about another one's median."""
    return f"{name}'s {statistics.median(seconds) * 1000:.0f} ms" if seconds else f"{name} is not installed"


def main() -> None:
    """All in one run."""
    others = Others()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        killed, frozen = ours(Path(one), signal.SIGKILL, RUNS), ours(Path(two), signal.SIGSTOP, FREEZES)
    with tempfile.TemporaryDirectory() as three, tempfile.TemporaryDirectory() as four:
        mib, cpu = idle(Path(three), lambda: others.measure(Path(four)))
    median, slow = statistics.median(killed), statistics.median(frozen)
    theirs = (told("supervisord", others.supervisord), told("PM2", others.pm2), told("runit", others.runit))
    figure = (
        f"{median * 1000:.0f} ms (fastest {min(killed) * 1000:.0f}, slowest {max(killed) * 1000:.0f}) of {RUNS}; "
        f"{', '.join(theirs)}"
    )
    monit = f"monit's {others.monit:.1f} s" if others.monit else "monit is not installed"
    figures = (
        ("kill -9 to the new process, watch", figure, f"{KILL_BOUND * 1000:.0f} ms", median <= KILL_BOUND),
        (
            "frozen to the new process, watch",
            f"{slow:.1f} s; {monit}; supervisord, PM2, runit: never",
            f"{FROZEN_BOUND:.0f} s",
            slow <= FROZEN_BOUND,
        ),
        (f"memory with {IDLE_BOTS} idle bots", f"{mib:.0f} MiB", f"{MIB_BOUND:.0f} MiB", mib <= MIB_BOUND),
        (f"CPU with {IDLE_BOTS} idle bots", f"{cpu:.2f} % of a core", f"{CPU_BOUND} %", cpu <= CPU_BOUND),
    )
    failed = [name for name, words, bound, held in figures if not said(name, words, bound, held=held)]
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
