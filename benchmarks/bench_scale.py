"""What one machine holds: N bots under each engine, and what keeping them costs in memory, processor time and disk.

`bench_scale.py` takes 50 bots of each kind, `bench_scale.py 50 100 200` as many as that, a row each. A bot here is as
small as one can be (a shell that writes a line and a trade a minute), so that what is weighed is what the keeping
costs: the engine's own processes, botkeep's watchers, and the rounds. A round is measured as cron starts it, the first
one in a new workspace and later ones, and in a process that lives on, as the server's does. The engine's work in it is
counted. What a day writes is seen in two days of a clock that is told to hurry: a round every five minutes, with its
backups.
"""

from __future__ import annotations

import itertools
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from engines import Containers, NotHereError, all_are_up, cpu_seconds, memory, supervisord, until

from botkeep.model import Actor, Status, utc_now
from botkeep.rounds import Desk
from botkeep.runtimes import Target, process
from botkeep.runtimes.record import read_record
from botkeep.workspace import Workspace
from support import BOTKEEP, said, workspace

COUNTS = (50,)
ROUNDS = 5
EVERY = 300.0
"""Seconds between two rounds, as the schedule has them."""
DAY_BOTS = 20
DAY_ROUNDS = 288
MEGABYTES = {"process": 8.0, "docker": 20.0, "supervisord": 1.0}
"""Bound, per bot: what stays in memory beside it."""
SHARE = 0.01
"""Bound: of one core, for the rounds."""
KILOBYTES_A_DAY = 5.0
"""Bound, per bot of which nothing is to be told, from the second day on."""
BOT = """\
i=60
while :; do
  at=$(busybox date -u +%Y-%m-%dT%H:%M:%SZ)
  echo "$at looked at the market, trade $i"
  echo "$at,BTCUSDT,BUY,100.5,0.25,$i" >> data/$1.csv
  i=$((i+1))
  busybox sleep 60
done
"""
HEADER = "time,symbol,side,price,qty,trade_id\n"


@dataclass(frozen=True)
class Kept:
    """N bots that run under one engine, in one workspace."""

    home: Path
    bots: Sequence[int]
    """Their main processes."""
    keepers: Callable[[], Sequence[int]]
    """The processes that the engine, or botkeep, needs for them."""
    alone: int
    """Bytes that the engine took before it ran any of them."""


def command(number: int) -> list[str]:
    """A bot's own."""
    return ["busybox", "sh", "bot.sh", str(number)]


def prepared(folder: Path, count: int, runtime: Callable[[int], dict[str, Any]]) -> Path:
    """A workspace with so many bots; each has a data file."""
    bots: list[dict[str, object]] = [
        {"name": f"bot-{number}", "data_file": f"data/{number}.csv", "runtime": {**runtime(number), "stop_grace": 1}}
        for number in range(count)
    ]
    home = workspace(folder, bots)
    (home / "config/schedule.json").unlink()
    (home / "bot.sh").write_text(BOT)
    (home / "data").mkdir()
    for number in range(count):
        (home / f"data/{number}.csv").write_text(HEADER)
    return home


# ---------------------------------------------------------------------------------------------------- the engines


@contextmanager
def processes(folder: Path, count: int) -> Iterator[Kept]:
    """Plain ones, each with its watcher."""
    home = prepared(folder, count, lambda number: {"kind": "process", "command": command(number)})
    place = Workspace(home.resolve())
    place.prepare()
    targets = [_target(place, number) for number in range(count)]
    try:
        for one in targets:
            process.start(one, "e1", time.monotonic() + 20)
        records = [record for one in targets if (record := read_record(one.run_dir))]
        pids = [record.pid for record in records if record.pid]
        yield Kept(home, pids, lambda: [record.shim_pid for record in records if record.shim_pid], 0)
    finally:
        for one in targets:
            process.stop(one, 1.0, time.monotonic() + 20)


def _target(place: Workspace, number: int) -> Target:
    name = f"bot-{number}"
    place.run_dir(name).mkdir(mode=0o700, exist_ok=True)
    config = process.Config(kind="process", command=command(number), stop_grace=1)
    return Target(name, config, None, place.home, place.run_dir(name), place.log_path(name))


@contextmanager
def containers(folder: Path, count: int) -> Iterator[Kept]:
    """Without a network of their own."""
    with Containers() as engine:
        engine.list_call()
        alone = memory(engine.engine_pids())
        home = prepared(folder, count, lambda number: engine.runtime(engine.name(number)))
        names = [engine.make(number, command(number), home=home) for number in range(count)]
        engine.start(*names)
        pids = [engine.client.inspect_container(name)["State"]["Pid"] for name in names]
        yield Kept(home, pids, engine.engine_pids, alone)


@contextmanager
def programs(folder: Path, count: int) -> Iterator[Kept]:
    """Of one supervisord."""
    with supervisord({"first": {"command": "sleep 100000"}}) as alone:
        empty = memory([alone.pid])
    home = folder.resolve()
    made = {f"bot-{n}": {"command": " ".join(command(n)), "directory": home} for n in range(count)}
    prepared(folder, count, lambda number: {"kind": "supervisord", "program": f"bot-{number}", "server": "unix:///x"})
    with supervisord(made) as server:
        bots = home / "config/bots.json"
        bots.write_text(bots.read_text().replace("unix:///x", server.server))
        until(lambda: all_are_up(server), "supervisord's programs are not up")
        pids = [one["pid"] for one in server.rpc.getAllProcessInfo()]
        yield Kept(home, pids, lambda: [server.pid], empty)


RIGS: dict[str, Callable[[Path, int], AbstractContextManager[Kept]]] = {
    "process": processes, "docker": containers, "supervisord": programs
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Round:
    """Seconds of one: by the clock, and of processor, botkeep's and the engine's."""

    seconds: float
    cpu: float
    engine_cpu: float


def one_round(kept: Kept) -> Round:
    """As cron starts it. Exits unless every bot is well."""
    before = sum(map(cpu_seconds, kept.keepers()))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run([BOTKEEP, "round", "--home", kept.home], check=False, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"round: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return Round(took, cpu, max(0.0, sum(map(cpu_seconds, kept.keepers())) - before))


def ledger_bytes(home: Path) -> int:
    """What is in use in the ledger's file."""
    with sqlite3.connect(f"file:{Workspace(home).ledger_file}?mode=ro", uri=True) as ledger:
        pages, free, size = (
            ledger.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    ledger.close()
    return int((pages - free) * size)


@dataclass(frozen=True)
class Row:
    """What N bots of one kind cost."""

    kind: str
    count: int
    bot: float
    """MB of a bot itself."""
    beside: float
    """MB beside each."""
    alone: float
    """MB of the engine without any."""
    first: Round
    later: Round
    """Medians."""
    warm: float
    """Seconds in a process that lives on."""

    @property
    def share(self) -> float:
        """Of one core, of a round every five minutes."""
        return (self.later.cpu + self.later.engine_cpu) / EVERY

    def line(self) -> str:
        """Of the table."""
        cells = (
            self.kind, str(self.count), f"{self.alone:.0f} MB", f"{self.beside:.1f} MB", f"{self.bot:.1f} MB",
            f"{self.first.seconds:.2f} s", f"{self.later.seconds:.2f} s",
            f"{self.warm:.2f} s", f"{self.later.cpu:.2f} + {self.later.engine_cpu:.2f} s", f"{self.share * 100:.2f} %",
        )  # fmt: skip
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| kind | bots | the engine alone | beside each bot | a bot of this benchmark | first round | later ones | warm "
    "| processor, botkeep + engine | of one core |\n" + "| --- " * 10 + "|"
)


def measured(kind: str, count: int, folder: Path) -> Row:
    """Start them, look at them, end them."""
    with RIGS[kind](folder, count) as kept:
        until(lambda: all(_has_traded(kept.home, number) for number in range(count)), "not all bots trade")
        first = one_round(kept)
        later = [one_round(kept) for _ in range(ROUNDS)]
        warm = warm_round(kept.home)
        bot = memory(pid for one in kept.bots for pid in _family(one)) / count
        beside = (memory(kept.keepers()) - kept.alone) / count
    median = Round(
        *(statistics.median(getattr(one, name) for one in later) for name in ("seconds", "cpu", "engine_cpu"))
    )
    return Row(kind, count, bot / 1e6, beside / 1e6, kept.alone / 1e6, first, median, warm)


def _has_traded(home: Path, number: int) -> bool:
    return len((home / f"data/{number}.csv").read_text()) > len(HEADER)


def _family(pid: int) -> list[int]:
    """A bot and what it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def warm_round(home: Path) -> float:
    """Median of a few, in this process."""
    desk = Desk.open(Workspace(home), Actor.ROUND)
    try:
        return statistics.median(_timed(desk.round) for _ in range(ROUNDS))
    finally:
        desk.close()


def _timed(deed: Callable[[], object]) -> float:
    began = time.perf_counter()
    deed()
    return time.perf_counter() - began


# ---------------------------------------------------------------------------------------------------- a day


def bytes_a_day(home: Path) -> tuple[float, float]:
    """Of ledger and journal, per bot: what the first day writes, and the second. The bots do what they should."""
    runtime = {"kind": "process", "stop_grace": 1}
    commands = [["sleep", f"{400000 + number}"] for number in range(DAY_BOTS)]
    workspace(home, [
        {"name": f"bot-{n}", "data_file": f"data/{n}.csv", "runtime": {**runtime, "command": one}}
        for n, one in enumerate(commands)
    ])  # fmt: skip
    (home / "data").mkdir()
    for number in range(DAY_BOTS):
        (home / f"data/{number}.csv").write_text(HEADER)
    bots = [subprocess.Popen(one, cwd=home, start_new_session=True) for one in commands]
    try:
        sizes = list(_days(home))
    finally:
        for bot in bots:
            bot.kill()
            bot.wait()
    first, second = (after - before for before, after in itertools.pairwise(sizes))
    return first / DAY_BOTS, second / DAY_BOTS


def _days(home: Path) -> Iterator[int]:
    """Bytes written after the first round, a day later, and two."""
    now = began = utc_now()
    desk = Desk.open(Workspace(home), Actor.ROUND, lambda: now)
    for number in range(2 * DAY_ROUNDS + 1):
        now = began + timedelta(seconds=EVERY * number)
        _trade(home, now, number)
        faulty = [one.sentence for one in desk.round().verdicts if one.status is not Status.HEALTHY]
        if faulty:
            sys.exit(f"round {number}: {faulty[0]}")
        if number % DAY_ROUNDS == 0:
            yield ledger_bytes(home) + Workspace(home).journal_file.stat().st_size
    desk.close()


def _trade(home: Path, now: datetime, number: int) -> None:
    """Each bot's trades since the round before."""
    times = [(now - timedelta(minutes=5 - n), number * 5 + n) for n in range(5)]
    rows = "".join(f"{at:%Y-%m-%dT%H:%M:%SZ},BTCUSDT,BUY,100.5,0.25,{n}\n" for at, n in times)
    for bot in range(DAY_BOTS):
        with open(home / f"data/{bot}.csv", "a") as file:
            file.write(rows)


# ---------------------------------------------------------------------------------------------------- reporting


def bounds(row: Row) -> bool:
    """A line each; whether all are held."""
    name, most = f"{row.count} bots, {row.kind}", MEGABYTES[row.kind]
    memory, share = row.beside <= most, row.share <= SHARE
    said(f"memory beside each of {name}", f"{row.beside:.1f} MB", f"{most:.0f} MB", held=memory)
    said(f"rounds over {name}, one every 5 minutes", f"{row.share:.2%} of one core", f"{SHARE:.0%}", held=share)
    return memory and share


def a_day() -> bool:
    """The line; whether its bound is held."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = bytes_a_day(Path(folder) / "workspace")
    figure = f"{second / 1e3:.1f} kB (the first day: {first / 1e3:.1f} kB)"
    return said(
        "ledger and journal of a bot that is well, a day",
        figure,
        f"{KILOBYTES_A_DAY:.0f} kB",
        held=second <= KILOBYTES_A_DAY * 1e3,
    )


def main() -> None:
    """Every engine that is here, with each number of bots."""
    rows, held = [], True
    for kind in RIGS:
        for count in [int(word) for word in sys.argv[1:]] or COUNTS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    rows.append(measured(kind, count, Path(folder) / "workspace"))
                except NotHereError as why:
                    print(f"not measured: {why}", flush=True)
                    break
            held &= bounds(rows[-1])
    held &= a_day()
    print(f"{HEAD}\n" + "\n".join(row.line() for row in rows), flush=True)
    print(f"on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end", flush=True)
    sys.exit(not held)


if __name__ == "__main__":
    main()
