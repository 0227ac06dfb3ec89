"""A day of a fleet in fast time: 288 rounds of cron's, a watcher and three assistants at once, and a script of faults.

All of them are programs of their own, and have one clock, which goes five minutes further with each round. What the
script did, and what the bots themselves wrote down, is the truth that botkeep's word is held against.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from botkeep.model import Actor, LedgerError, Status
from support.day_callers import HANDS, WHIMS
from support.fleet import Fleet, alive, fleet, wait_for
from support.moved_clock import MovedClock
from support.watcher import BOTKEEP, Watcher
from support.webhook import Webhook, webhook

HERE = Path(__file__).parent
ROUNDS, EVERY = 288, timedelta(minutes=5)
ASSISTANTS = 3
CALM = 24
"""Rounds at the end in which nothing happens any more."""
HIT, CRASHING = ("ada", "bea", "cleo"), "dora"
BOTS = (*HIT, CRASHING, HANDS, WHIMS)
CASUALTIES = ("kill",) * 4 + ("freeze",) * 3 + ("copy",) * 2 + ("tear",) * 2 + ("zero",) * 2
ZEROED = 40
PLAYBOOKS = {r"max_per_day: \d+": "max_per_day: 100", r"apart: \w+": "apart: 1s"}
"""As the day needs them: more faults than a bot has in months."""


@dataclass(frozen=True)
class Done:
    """One thing that the script did: `at` by the moved clock, `mono` by the machine's."""

    round: int
    what: str
    bot: str
    at: datetime
    mono: int
    pid: int = 0
    other: int = 0
    """Of a copy: the one that ran already."""
    mark: int = 0
    """Of a damage: how many trades the bot had written by then."""
    rows: tuple[str, ...] = ()
    """Of zeros: the trades that stood where they are now."""


@dataclass(frozen=True)
class Stamp:
    """One sign of life, by the bot itself."""

    mono: int
    at: float
    """Epoch seconds of the moved clock."""
    pid: int


@dataclass
class Day:
    """The day, as it goes. `plan`: what happens before which round."""

    bots: Fleet
    clock: MovedClock
    people: Webhook
    seed: str
    begin: datetime
    plan: Plan = field(init=False)
    done: list[Done] = field(default_factory=list)
    rounds: list[dict[str, object]] = field(default_factory=list)
    """What cron's rounds said; of one that was killed, nothing."""
    watchers: list[Watcher] = field(default_factory=list)
    assistants: list[subprocess.Popen[str]] = field(default_factory=list)
    cron: subprocess.Popen[str] | None = None
    round: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.plan = _plan(self.chance)
        self.environment = {**os.environ, **self.clock.environment, "PYTHONPATH": str(HERE.parent)}

    @property
    def home(self) -> Path:
        return self.bots.home

    # ------------------------------------------------------------------------------------------------ the day

    def live(self) -> None:
        """From the first round to the last; everybody is ended then but the bots."""
        for number in range(ASSISTANTS):
            self.assistants.append(self._caller("assistant", f"{self.seed}-{number}"))
        self.cron = self._caller("cron")
        self._watch()
        for self.round in range(ROUNDS):
            self.clock.set(self.begin + self.round * EVERY)
            events = self.plan.get(self.round, [])
            for what, bot in events:
                self._happen(what, bot)
            self._let_cron(events)
            self._settled()
        self._end()

    def _caller(self, *words: str) -> subprocess.Popen[str]:
        role, *more = words
        output = subprocess.PIPE if role == "cron" else (self.home / "assistants.jsonl").open("a")
        try:
            return subprocess.Popen(
                [sys.executable, HERE / "day_callers.py", role, self.home, *more], env=self.environment, text=True,
                stdin=subprocess.PIPE if role == "cron" else subprocess.DEVNULL, stdout=output, start_new_session=True,
            )  # fmt: skip
        finally:
            if not isinstance(output, int):
                output.close()

    def _watch(self) -> None:
        self.watchers.append(Watcher(self.home, self.environment))

    def _let_cron(self, events: list[tuple[str, str]]) -> None:
        words = [what for what, _ in events]
        if "two rounds" in words:
            both = [self._command("round", stdout=subprocess.DEVNULL) for _ in range(2)]
            for one in both:
                assert one.wait(120) in (0, 1)
            self.rounds.append({})
            return
        assert self.cron
        assert self.cron.stdin
        assert self.cron.stdout
        self.cron.stdin.write("round\n")
        self.cron.stdin.flush()
        if "kill cron" in words:
            time.sleep(self.chance.uniform(0.0, 1.5))
            self._finish(self.cron)
            self.cron = self._caller("cron")
            self.rounds.append({})
        else:
            self.rounds.append(json.loads(self.cron.stdout.readline()))

    def _command(self, *words: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [BOTKEEP, *words, "--home", self.home], env=self.environment, text=True, stdout=stdout,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def _settled(self, seconds: float = 2.5) -> None:
        """The clock is set further when no action is under way; but one that was killed must not stop the clock."""
        ledger, until = self.bots.desks[0].ledger, time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(LedgerError):
                if not ledger.open_intents():
                    return
            time.sleep(0.02)

    def _end(self) -> None:
        for one in (*self.assistants, self.cron):
            if one:
                self._finish(one)
        last = self.watchers[-1]
        if last.process.poll() is None:
            assert last.end() == 0, last.lines[-5:]

    def _finish(self, one: subprocess.Popen[str]) -> None:
        """Kill it, as a machine does: in the middle of whatever it does."""
        one.kill()
        one.wait()
        for stream in (one.stdin, one.stdout):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()

    # ------------------------------------------------------------------------------------------------ what happens

    def _happen(self, what: str, bot: str) -> None:
        """A kill of ours comes after a fault, at any moment of what is done about it."""
        among = what.startswith("kill ") and len(self.plan[self.round]) > 1
        time.sleep(self.chance.uniform(0.05, 1.4 if among else 0.25))
        if what not in ("two rounds", "kill cron"):  # the round itself
            getattr(self, f"_{what.replace(' ', '_')}")(bot)

    def _note(self, what: str, bot: str = "", pid: int = 0, **more: Any) -> None:
        self.done.append(Done(self.round, what, bot, self.clock.now(), time.monotonic_ns(), pid, **more))

    def living(self, bot: str) -> int:
        """The pid that stamps now; 0: none."""
        until = time.monotonic() + 0.3
        before = len(self.stamps(bot))
        while time.monotonic() < until:
            found = self.stamps(bot)
            if len(found) > before and alive(found[-1].pid):
                return found[-1].pid
            time.sleep(0.01)
        return 0

    def _kill(self, bot: str) -> None:
        if pid := self.living(bot):
            self._note("kill", bot, pid=pid)
            os.kill(pid, signal.SIGKILL)

    def _freeze(self, bot: str) -> None:
        if pid := self.living(bot):
            os.kill(pid, signal.SIGSTOP)
            self._note("freeze", bot, pid=pid)

    def _copy(self, bot: str) -> None:
        """A second one by hand; it counts once it trades beside the first."""
        if pid := self.living(bot):
            with (self.home / "by-hand.log").open("a") as log:
                copy = subprocess.Popen(
                    self._command_of(bot), cwd=self.home, env=self.environment, stdout=log, stderr=log
                )
            self.bots.others.append(copy)
            wait_for(lambda: any(one.pid == copy.pid for one in self.stamps(bot)) or copy.poll() is not None)
            self._note("copy", bot, pid=copy.pid, other=pid)

    def _command_of(self, bot: str) -> list[str]:
        return [sys.executable, "day_bot.py", bot]

    def _tear(self, bot: str) -> None:
        """Half a row at the end, and dead: the next run's first row continues it."""
        if pid := self.living(bot):
            file = os.open(self.bots.data(bot), os.O_WRONLY | os.O_APPEND)
            self._note("tear", bot, pid=pid, mark=len(self.wrote(bot)))
            os.write(file, b"%d-99999,2026-11-2" % pid)
            os.close(file)
            os.kill(pid, signal.SIGKILL)

    def _zero(self, bot: str) -> None:
        """What a machine leaves that loses its power: the last rows are zeros."""
        if pid := self.living(bot):
            file = os.open(self.bots.data(bot), os.O_RDWR)
            size = os.fstat(file).st_size
            if size > 400:
                self._note("zero", bot, pid=pid, mark=len(self.wrote(bot)), rows=_rows_at(file, size - 2 * ZEROED))
                os.pwrite(file, bytes(ZEROED), size - 2 * ZEROED)
            else:
                self._note("kill", bot, pid=pid)
            os.close(file)
            os.kill(pid, signal.SIGKILL)

    def _crash(self, bot: str) -> None:
        """From now on it dies at start."""
        (self.home / f"{bot}.crash").touch()
        self._kill(bot)
        self._note("crash", bot)

    def _mend(self, bot: str) -> None:
        (self.home / f"{bot}.crash").unlink(missing_ok=True)
        self._note("mend", bot)

    def _insist(self, bot: str) -> None:
        """A person comes, where everybody else has given up."""
        desk = self.bots.desk(Actor.PERSON, self.clock.now)
        if desk.check([bot]).verdicts[0].status is Status.FAULTY:
            report = desk.restart(bot, "the module is mended", override="a person mended it")
            assert report.ok, report.sentence

    def _stop(self, bot: str) -> None:
        """Now and then of one that hangs, while everybody else is about to restart it."""
        if self.chance.random() < 0.5:
            self._freeze(bot)
        report = self.bots.desk(Actor.PERSON, self.clock.now).stop(bot, "a person wants it down")
        assert report.ok, report.sentence
        self._note("stop", bot)

    def _start(self, bot: str) -> None:
        self._note("start", bot)
        report = self.bots.desk(Actor.PERSON, self.clock.now).start(bot, "a person wants it up")
        assert report.ok, report.sentence

    def _kill_watcher(self, _: str) -> None:
        last = self.watchers[-1].process
        if last.poll() is None:
            last.kill()
            last.wait()
            self._note("kill watcher", pid=last.pid)

    def _end_watcher(self, _: str) -> None:
        if self.watchers[-1].process.poll() is None:
            assert self.watchers[-1].end() == 0
            self._note("end watcher")

    def _start_watcher(self, _: str) -> None:
        if self.watchers[-1].process.poll() is not None:
            self._watch()
            self.watchers[-1].said("watching ")
            self._note("start watcher", pid=self.watchers[-1].process.pid)

    def _kill_assistant(self, _: str) -> None:
        place = self.chance.randrange(ASSISTANTS)
        self._finish(self.assistants[place])
        self.assistants[place] = self._caller("assistant", f"{self.seed}-{self.round}")
        self._note("kill assistant")

    def _away(self, _: str) -> None:
        self.people.status = self.chance.choice((500, 503, 429))

    def _back(self, _: str) -> None:
        self.people.status = 200

    # ------------------------------------------------------------------------------------------------ the truth

    def wrote(self, bot: str) -> list[str]:
        """Its trades so far, as it wrote them."""
        try:
            return (self.home / f"{bot}.wrote").read_text().splitlines()
        except FileNotFoundError:
            return []

    def stamps(self, bot: str) -> list[Stamp]:
        """Every sign of life of a bot so far."""
        try:
            lines = (self.home / f"{bot}.stamps").read_text().splitlines()
        except FileNotFoundError:
            return []
        found = (line.split() for line in lines)
        return [Stamp(int(mono), int(at) / 1e9, int(pid)) for mono, at, pid in found]

    def did(self, *what: str) -> list[Done]:
        """What the script did of that."""
        return [one for one in self.done if one.what in what]


def _rows_at(file: int, begin: int) -> tuple[str, ...]:
    """The rows of which something stands within `ZEROED` bytes from there."""
    before = os.pread(file, begin, 0)
    until = begin + ZEROED
    text, first = os.pread(file, until + 400, 0), before.rfind(b"\n") + 1
    return tuple(text[first : text.index(b"\n", until - 1)].decode().split("\n"))


class Plan(dict[int, list[tuple[str, str]]]):
    """Round -> (what, to whom)."""

    def at(self, number: int, what: str, bot: str = "") -> None:
        """One thing more before that round."""
        self.setdefault(number, []).append((what, bot))


def _plan(chance: random.Random) -> Plan:
    """The same for the same seed."""
    made = Plan()

    at = made.at

    last = ROUNDS - CALM
    for bot in HIT:
        number = chance.randint(3, 12)
        while number < last:
            at(number, chance.choice(CASUALTIES), bot)
            number += chance.randint(18, 52)
    for begin in (chance.randint(20, 60), chance.randint(140, 190)):
        length = chance.randint(3, 10)
        at(begin, "crash", CRASHING)
        at(begin + length, "mend", CRASHING)
        at(begin + length + 15, "insist", CRASHING)
    for begin in (chance.randint(30, 60), chance.randint(110, 150), chance.randint(200, 230)):
        at(begin, "stop", HANDS)
        at(begin + chance.randint(8, 25), "start", HANDS)
        at(begin - chance.randint(13, 20), "kill", HANDS)
    _add_kills(chance, made, last)
    at(last, "back")
    return made


def _add_kills(chance: random.Random, made: Plan, last: int) -> None:
    """Of those who look after the bots: most of them in the middle of their work."""
    at = made.at
    faults = [number for number, events in made.items() if number < last and events[0][0] in CASUALTIES]
    for number in (*chance.sample(faults, 5), *chance.sample(range(4, last), 3)):
        at(number, chance.choice(("kill watcher", "kill watcher", "kill watcher", "end watcher")))
        at(number + chance.randint(1, 6), "start watcher")
    at(last, "start watcher")
    for number in (*chance.sample(faults, 4), *chance.sample(range(2, last), 2)):
        at(number, "kill assistant")
    for number in (*chance.sample(faults, 2), *chance.sample(range(2, last), 1)):
        at(number, "kill cron")
    for number in (*chance.sample(faults, 3), *chance.sample(range(2, last), 1)):
        at(number, "two rounds")
    told = [number for number in faults if {what for what, _ in made[number]} & {"copy", "tear", "zero"}]
    for number in chance.sample(told, min(len(told), 3)):
        made[number].insert(0, ("away", ""))
        at(number + chance.randint(1, 3), "back")


@contextmanager
def a_day(folder: Path, seed: str, begin: datetime) -> Iterator[Day]:
    """Everything ready for it, all bots up; nothing of it is left afterwards."""
    clock = MovedClock(folder / "clock")
    clock.set(begin)
    with webhook() as people, fleet(folder / "home", *(_entry(name, clock) for name in BOTS)) as bots:
        shutil.copyfile(HERE / "day_bot.py", bots.home / "day_bot.py")
        rules = bots.home / "config/bots.json"
        rules.write_text(json.dumps({"notify": [people.url], "timezone": "UTC", **json.loads(rules.read_text())}))
        for path in (bots.home / "playbooks").glob("*.md"):
            text = path.read_text()
            for pattern, new in PLAYBOOKS.items():
                text = re.sub(pattern, new, text, count=1)
            path.write_text(text)
        bots.desk(Actor.ROUND, clock.now)
        day = Day(bots, clock, people, seed, begin)
        try:
            for name in BOTS:
                report = bots.desk(Actor.PERSON, clock.now).start(name, "the day begins")
                assert report.ok, report.sentence
            yield day
        finally:
            _leave_nobody(day)


def _entry(name: str, clock: MovedClock) -> dict[str, object]:
    command = [sys.executable, "day_bot.py", name]
    runtime = {"kind": "process", "command": command, "stop_grace": 2, "env": clock.environment}
    return {"name": name, "data_file": f"data/{name}.csv", "currency": "USDT", "runtime": runtime}


def _leave_nobody(day: Day) -> None:
    for one in (*day.assistants, *([day.cron] if day.cron else [])):
        if one.poll() is None:
            day._finish(one)
    for watcher in day.watchers:
        if watcher.process.poll() is None:
            watcher.process.kill()
        watcher.process.wait()
        watcher._reader.join(5)
        if watcher.process.stdout:
            watcher.process.stdout.close()


def measured(work: Callable[[], None]) -> float:
    """Seconds that it takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began
