"""A week and a morning of the first users' bots in fast time, for a report with everything in it; all of them real.

The clock of all programs is moved (moved_clock.py). Six calm days with a look every fifty minutes, then a day of
five-minute rounds in which things happen; it ends at 08:00.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from botkeep import silences
from botkeep.model import Actor
from botkeep.rounds import Desk
from support.fleet import Fleet, fleet
from support.moved_clock import MovedClock
from support.report_bot import HEADER, row

T = TypeVar("T")
HERE = Path(__file__).parent
MORNING = datetime(2026, 11, 22, 8, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
CALM, EVERY = 50 * MINUTE, 5 * MINUTE
TRADERS = {
    "doge-long": ("DOGEUSDT", 9, 0.25),
    "doge-short": ("DOGEUSDT", 7, -0.1),
    "btc-optimized": ("BTCUSDT", 4, 0.6),
    "hummingbot-mm": ("ETHUSDT", 16, 0.05),
}
"""Name -> symbol, trades a day, average result."""
FREQTRADE = "swing-paper"
ASSISTANT = """
import json, sys
sys.stdin.read()
print(json.dumps({"result": "I looked.", "total_cost_usd": 0.021,
                  "usage": {"input_tokens": 3100, "output_tokens": 300}}))
"""


@dataclass
class Week:
    """The workspace, and its clock."""

    bots: Fleet
    clock: MovedClock
    rough: bool = False
    """Also a bot that waits for a person's yes, and one that has to back off."""

    @property
    def home(self) -> Path:
        return self.bots.home

    def live(self) -> None:
        """To the morning. What happens is in the order of the day."""
        at = MORNING - 7 * DAY
        for name in (*TRADERS, FREQTRADE):
            self.at(at, lambda desk, name=name: desk.start(name, "the week begins"))  # type: ignore[misc]
        while at < MORNING - DAY:
            at += CALM
            self.round(at)
        happens: dict[datetime, list[Callable[[], None]]] = {}
        for when, what in self._events():
            happens.setdefault(self._round_at(when), []).append(what)
        while at < MORNING - EVERY:
            at += EVERY
            self.clock.set(at)
            for what in happens.get(at, ()):
                what()
            self.round(at + 25 * timedelta(seconds=1))
        self.clock.set(MORNING)

    def _events(self) -> Iterator[tuple[datetime, Callable[[], None]]]:
        """When, and what happens then."""
        yield MORNING - 13 * HOUR, lambda: self.silence("hummingbot-mm", "4h", "moving it to the new server")
        yield MORNING - 12 * HOUR, lambda: self.stop("hummingbot-mm", "moving it to the new server")
        yield MORNING - 9 * HOUR, lambda: self.start("hummingbot-mm", "it is on the new server")
        yield MORNING - 285 * MINUTE, lambda: self.kill("doge-long")
        yield MORNING - 140 * MINUTE, lambda: self.damage("doge-short")
        yield MORNING - 80 * MINUTE, lambda: self.refuse("btc-optimized")
        if self.rough:
            yield MORNING - 25 * MINUTE, lambda: self.freeze("hummingbot-mm")
            yield MORNING - 15 * MINUTE, lambda: self.kill("doge-long")
            yield MORNING - 5 * MINUTE, lambda: self.kill("doge-long")

    def _round_at(self, at: datetime) -> datetime:
        """The five-minute round at or after it."""
        begin = MORNING - 7 * DAY
        while begin < MORNING - DAY:
            begin += CALM
        return begin + -(-(at - begin) // EVERY) * EVERY

    # ------------------------------------------------------------------------------------------------ what happens

    def at(self, when: datetime, what: Callable[[Desk], T], actor: Actor = Actor.PERSON) -> T:
        """Done at that time, by that clock."""
        self.clock.set(when)
        desk = Desk.open(self.bots.workspace, actor, self.clock.now)
        try:
            return what(desk)
        finally:
            desk.close()

    def round(self, at: datetime) -> None:
        """One of cron's."""
        self.at(at, Desk.round, Actor.ROUND)

    def pid(self, bot: str) -> int:
        return self.at(self.clock.now(), lambda desk: desk.check([bot], confirm=False)).verdicts[0].pid or 0

    def kill(self, bot: str) -> None:
        self.bots.kill(self.pid(bot))

    def freeze(self, bot: str) -> None:
        os.kill(self.pid(bot), signal.SIGSTOP)

    def damage(self, bot: str) -> None:
        """What a machine leaves that loses its power."""
        with (self.home / f"data/{bot}.csv").open("r+b") as file:
            file.seek(-60, os.SEEK_END)
            file.write(bytes(40))

    def refuse(self, bot: str) -> None:
        """Its exchange refuses its key from now on."""
        (self.home / f"{bot}.refused").touch()

    def stop(self, bot: str, why: str) -> None:
        self.at(self.clock.now(), lambda desk: desk.stop(bot, why))

    def start(self, bot: str, why: str) -> None:
        self.at(self.clock.now(), lambda desk: desk.start(bot, why))

    def silence(self, bot: str, lasts: str, why: str) -> None:
        self.at(self.clock.now(), lambda desk: silences.begin(
            desk.journal, bot, silences.lasting(lasts), why, Actor.PERSON.value, self.clock.now()
        ))  # fmt: skip


@contextmanager
def a_week(folder: Path, *, rough: bool = False) -> Iterator[Week]:
    """Everything ready for it; nothing of it is left afterwards."""
    clock = MovedClock(folder / "clock")
    clock.set(MORNING - 7 * DAY)
    with fleet(folder / "bots", *(_entry(name, clock) for name in TRADERS), _freqtrade(clock)) as bots:
        for name in ("report_bot.py", "still_bot.py"):
            shutil.copyfile(HERE / name, bots.home / name)
        _history(bots.home)
        (bots.home / "assistant_of_report.py").write_text(ASSISTANT)
        rules = bots.home / "config/bots.json"
        more = {"timezone": "Europe/Lisbon", "wake": [sys.executable, "assistant_of_report.py"]}
        rules.write_text(json.dumps({**more, **json.loads(rules.read_text())}))
        bots.edit("bot-hung", "mode: auto", "mode: ask")
        yield Week(bots, clock, rough)


def _entry(name: str, clock: MovedClock) -> dict[str, object]:
    symbol, a_day, mean = TRADERS[name]
    command = [sys.executable, "report_bot.py", name, symbol, str(a_day), str(mean)]
    runtime = {"kind": "process", "command": command, "stop_grace": 2, "env": clock.environment}
    return {"name": name, "data_file": f"data/{name}.csv", "currency": "USDT", "capital": "600", "runtime": runtime}


def _freqtrade(clock: MovedClock) -> dict[str, object]:
    """Its database has trades that are open; no process of its own is needed for that."""
    command = [sys.executable, "still_bot.py", "data/swing.sqlite"]
    runtime = {"kind": "process", "command": command, "env": clock.environment}
    money = {"capital": "10000", "currency": "USDT"}
    return {"name": FREQTRADE, "data_file": "data/swing.sqlite", **money, "runtime": runtime}


def _history(home: Path) -> None:
    """A month of trades before the week."""
    shutil.copyfile(HERE.parent / "data/freqtrade/tradesv3.dryrun.sqlite", home / "data/swing.sqlite")
    for name, (symbol, a_day, mean) in TRADERS.items():
        chance, at = random.Random(name), (MORNING - 40 * DAY).timestamp()
        with (home / f"data/{name}.csv").open("w") as file:
            file.write(HEADER)
            while (end := at + chance.expovariate(a_day / 86400)) < (MORNING - 7 * DAY).timestamp():
                file.write(row(symbol, at, end, chance.gauss(mean, 1)))
                at = end
