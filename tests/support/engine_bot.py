"""A bot that an engine runs, as tests see it: through its runtime alone, and in a workspace with the whole of botkeep.

What one engine's tests say of it, every engine's say: twenty callers at once, and callers that are killed.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from botkeep.model import Actor, Exit, Instance, RuntimeLook, Status, utc_now
from botkeep.runtimes import RUNTIMES, Target
from botkeep.runtimes.procs import ProcessTable
from support.bots import DEADLINE, Lab, overlaps, wait_for
from support.fleet import Fleet


def runtime(target: Target) -> Any:
    """By its kind."""
    return RUNTIMES[target.config.kind]


def look(target: Target) -> RuntimeLook:
    """One look."""
    found: RuntimeLook = runtime(target).look(target, ProcessTable.read())
    return found


def surveyed(*targets: Target) -> list[RuntimeLook]:
    """Looks at several, asked for at once."""
    found = runtime(targets[0]).survey(targets, ProcessTable.read())
    return [found[one.name] for one in targets]


def start(target: Target) -> Instance:
    """Start it; it must not have ended by then."""
    started = runtime(target).start(target, "e1", time.monotonic() + DEADLINE)
    assert started.instance, started.exit
    found: Instance = started.instance
    return found


def stop(target: Target, grace: float = 2.0) -> Any:
    """Stop it; `grace` in seconds."""
    return runtime(target).stop(target, grace, time.monotonic() + DEADLINE)


def ended(target: Target) -> Exit:
    """How it ended, once it has."""
    return wait_for(lambda: None if (seen := look(target)).instances else seen.exit)


class Made(Protocol):
    """What an engine's tests make their bots with."""

    lab: Lab


M = TypeVar("M", bound=Made)


@dataclass
class Place(Generic[M]):
    """A workspace with the bot doge in an engine."""

    made: M
    found: Fleet
    target: Target

    @property
    def lab(self) -> Lab:
        """Where the bots' own signs of life are."""
        return self.made.lab

    def write(self, **more: Any) -> None:
        """bots.json with the bot; `more`: further settings of it."""
        config = self.target.config.model_dump(exclude_none=True, exclude_defaults=True)
        entry = {"name": "doge", "runtime": config, **more}
        (self.lab.home / "config/bots.json").write_text(json.dumps({"bots": [entry]}))

    def up(self) -> int:
        """Its pid, once it trades."""
        report = self.found.desk(Actor.PERSON).start("doge", "first start")
        assert report.ok, report.sentence
        wait_for(lambda: self.lab.trading(int(report.pid or 0)))
        return int(report.pid or 0)

    def round(self) -> None:
        """One of cron's."""
        self.found.desk(Actor.ROUND).round()

    def all_at_once(self, callers: int = 20) -> Counter[str]:
        """So many restarts of one bot at the same moment: how many ended how."""
        results = self.lab.home / "results"
        self.lab.caller("desk", self.target, fork=callers, results=str(results)).wait(2 * DEADLINE)
        told = [json.loads(line) for line in results.read_text().splitlines()]
        assert [one for one in told if "error" in one] == []
        assert len(told) == callers
        return Counter(one["result"] for one in told)

    def one_of_all_restarts(self) -> None:
        """The bot is down, twenty want it restarted: one does it, and the others are told so."""
        counted = self.all_at_once()
        assert counted["done"] == 1, counted
        assert counted["coalesced"] + counted["busy"] + counted["refused"] == 19, counted
        assert len(self.lab.bots()) == 1
        assert overlaps(self.lab.stamps()) == []
        assert len(self.lab.pids("bot")) == 2

    def kill_callers(self, seed: int, times: int, within: float, *, members: int = 1) -> None:
        """Restarts by callers that are killed at any moment; the next one settles what they left.

        `within`: seconds in which a caller dies. `members`: processes that are the bot.
        """
        chance = random.Random(seed)
        for _ in range(times):
            caller = self.lab.caller("desk", self.target, reason="asked by somebody who is killed")
            time.sleep(chance.random() * within)  # the moment at which it dies is what is tried out
            caller.kill()
            caller.wait()
            assert len(self.lab.bots()) <= members
            assert overlaps(self.lab.stamps()) == []
        report = self.found.desk(Actor.PERSON).restart("doge", "whatever became of it", override="the test asks")
        assert report.ok, report.sentence
        wait_for(lambda: len(self.lab.bots()) == members)
        assert self.found.verdict().status is Status.HEALTHY
        assert overlaps(self.lab.stamps()) == []
        self.all_is_settled()

    def all_is_settled(self) -> None:
        """Every intent has its outcome; ledger and journal agree."""
        desk = self.found.desk()
        assert desk.ledger.open_intents("doge") == []
        assert desk.ledger.verify() == []
        assert desk.journal.verify(utc_now()) == []
