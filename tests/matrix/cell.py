"""One cell of the matrix: a workspace with a real bot on a real engine, and the world by which its end is judged.

The bot's own stamps say who lived when, its file who traded in which order, the process table who is left. The ledger
only says what botkeep did.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from botkeep.ledger import Entry, Kind
from botkeep.model import ActionReport, Actor, BotkeepError, Fault, Result, Status, Verdict, utc_now
from botkeep.playbooks import Policy
from botkeep.rounds import Desk, RoundReport
from botkeep.runtimes.procs import ProcessTable
from matrix.columns import Column, Wish, script_of
from support.bots import Lab, Stamp, overlaps, wait_for
from support.fleet import Fleet, fleet

NS = 1e9
POLL = 0.05
SETTLES = 40.0
"""Seconds in which rounds have to bring the world to where the playbooks want it."""


@dataclass(frozen=True)
class Run:
    """One run of the bot, by its own stamps; moments are time.monotonic_ns()."""

    root: int
    first: int
    last: int

    @property
    def seconds(self) -> float:
        return (self.last - self.first) / NS


class Known(NamedTuple):
    """Runs that there were at a moment between two looks at the world."""

    least: int
    most: int


@dataclass
class Cell:
    """One bot with one fault."""

    found: Fleet
    lab: Lab
    column: Column
    said: list[str] = field(default_factory=list)
    """What botkeep said and what the test did, for whoever reads why a cell failed."""
    ahead: timedelta = timedelta()
    """How far botkeep's clock is ahead: what a playbook waits for is not waited for."""

    # ------------------------------------------------------------------------------------------------ botkeep

    def now(self) -> datetime:
        return utc_now() + self.ahead

    def desk(self, actor: Actor = Actor.ROUND) -> Desk:
        return self.found.desk(actor, self.now)

    def round(self) -> RoundReport:
        """One `botkeep round`."""
        report = self.desk().round()
        self.said += [f"{one.bot}: {one.status.value}: {one.sentence}" for one in report.verdicts]
        self.said += [f"{one.result.value}: {one.sentence}" for one in report.actions]
        return report

    def verdict(self) -> Verdict:
        """A confirmed look."""
        found = self.desk(Actor.ASSISTANT).check(["doge"]).verdicts[0]
        self.said.append(f"{found.bot}: {found.status.value}: {found.sentence}")
        return found

    def policy(self, fault: Fault) -> Policy:
        return self.desk().playbook(fault.value).policy

    def up(self) -> int:
        """The first start, by a person; the pid of the bot's process that trades."""
        self.column.start(self.found.home)
        return wait_for(self.trader, every=POLL)

    def add(self, entry: dict[str, Any]) -> None:
        """Another bot in bots.json."""
        bots = self.found.home / "config/bots.json"
        known = json.loads(bots.read_text())["bots"]
        bots.write_text(json.dumps({"bots": [*known, entry]}))

    def entries(self, kind: Kind) -> list[Entry]:
        """Of the ledger, oldest first."""
        return self.desk().ledger.entries(bot="doge", kinds=[kind])

    def counted_from(self) -> Known:
        """A first look: restarts of the engine that come later are counted. How many runs there were about then."""
        before = len(self.runs())
        self.verdict()
        return Known(before, len(self.runs()))

    def restarts_by_engine(self) -> int:
        """How many the ledger has that the engine made by itself."""
        made = [one for one in self.entries(Kind.OUTCOME) if one.actor == Actor.ENGINE.value]
        return sum(int(one.data["times"]) for one in made)

    def restarts_by_rounds(self) -> int:
        """How often botkeep itself set about to restart it."""
        return sum(1 for one in self.entries(Kind.INTENT) if one.actor == Actor.ROUND.value)

    # ------------------------------------------------------------------------------------------------ the world

    def stamps(self) -> list[Stamp]:
        return self.lab.stamps()

    def runs(self) -> list[Run]:
        """Every run so far, in the order of their starts."""
        moments: dict[int, list[int]] = {}
        for one in self.stamps():
            moments.setdefault(one.root, []).append(one.at)
        return sorted((Run(root, min(at), max(at)) for root, at in moments.items()), key=lambda run: run.first)

    def traders(self) -> list[int]:
        """Who lives and has traded, the oldest first."""
        alive = self.lab.bots()
        return [one.root for one in self.runs() if one.root in alive]

    def trader(self) -> int:
        """The one that trades now; 0: none, or several."""
        return found[0] if len(found := self.traders()) == 1 else 0

    def copies(self) -> list[int]:
        """The topmost processes of each family of the bot's that lives."""
        script = script_of(self.lab)
        alive = {pid for pid, proc in self.lab.bots().items() if any(script in word for word in proc.argv)}
        table = ProcessTable.read()
        return [pid for pid in alive if not any(above in alive for above in table.ancestors(pid))]

    def went_on(self, pid: int, seconds: float = 0.3) -> bool:
        """Whether this one, and no other, trades for a while."""
        began, until = time.monotonic_ns(), time.monotonic() + seconds
        wait_for(lambda: time.monotonic() > until and any(one.at > began for one in self.stamps()), every=POLL)
        return {one.root for one in self.stamps() if one.at > began} == {pid}

    def trades_now(self) -> bool:
        """Whether anybody has given a sign of life within the last second."""
        return any(one.at > time.monotonic_ns() - NS for one in self.stamps())

    def wait_for_runs(self, count: int, seconds: float) -> list[Run]:
        """Until so many runs were seen by their own stamps."""
        return wait_for(lambda: found if len(found := self.runs()) >= count else None, seconds, every=POLL)

    def traded_in_turn(self) -> bool:
        """Whether in the data file nobody's trades stand among another's."""
        rows = (self.lab.home / "data/doge.csv").read_text().splitlines()[1:]
        order = [row.partition("-")[0] for row in rows]
        changes = sum(1 for one, two in pairwise(order) if one != two)
        return changes == len(set(order)) - 1

    # ------------------------------------------------------------------------------------------------ grades

    def rounds_until(self, good: Callable[[RoundReport], bool]) -> RoundReport:
        """Rounds, as cron makes them, until the world is as it should be."""
        until = time.monotonic() + SETTLES
        while True:
            report = self.round()
            if good(report):
                return report
            assert time.monotonic() < until, f"it is not so within {SETTLES:.0f} s of rounds"

    def one_new(self, old: int, *more: int) -> Run:
        """Rounds until exactly one runs, which is none of the old ones; nobody ever lived beside another."""
        self.rounds_until(lambda _: self.trader() not in (0, old, *more))
        new = self.trader()
        self.is_well(new)
        if not more:
            assert overlaps(self.stamps()) == [], "two lived at the same time"
            assert self.traded_in_turn(), "two wrote into the data file at the same time"
        return next(one for one in self.runs() if one.root == new)

    def is_well(self, pid: int) -> None:
        """One instance, which trades and is the one that botkeep sees; its books are in order."""
        assert len(self.copies()) == 1, f"several families live: {self.copies()}"
        assert self.went_on(pid), "another one trades, or none"
        verdict = self.verdict()
        assert verdict.status is Status.HEALTHY, verdict.sentence
        self.books_are_good()

    def books_are_good(self) -> None:
        desk = self.desk(Actor.ASSISTANT)
        assert desk.ledger.verify() == []
        assert desk.ledger.open_intents("doge") == []
        assert desk.journal.verify(self.now()) == []

    def starts_nothing(self, ahead: timedelta) -> list[ActionReport]:
        """One round, so far ahead of now: it starts nothing. Gives what it answered."""
        before, restarts = self.ahead, self.restarts_by_rounds()
        self.ahead += ahead
        answers = list(self.round().actions)
        assert {one.result for one in answers} <= {Result.ASKED, Result.REFUSED, Result.COALESCED}, answers
        assert self.restarts_by_rounds() == restarts, "botkeep restarted it before its time"
        self.ahead = before
        return answers


@contextmanager
def cell(home: Path, build: Callable[[Lab, Wish], Column], wish: Wish, **entry: Any) -> Iterator[Cell]:
    """A workspace with the bot doge in this column. `entry`: more of what bots.json says about it."""
    with fleet(home) as found, Lab(home) as lab, build(lab, wish) as column:
        one = Cell(found, lab, column)
        config = column.target.config.model_dump(exclude_none=True)
        usual = {"name": "doge", "process_name": script_of(lab), "data_file": "data/doge.csv", "runtime": config}
        bots = [{**usual, **column.entry, **entry}]
        (home / "config/bots.json").write_text(json.dumps({"bots": bots}))
        try:
            yield one
        except Exception as error:
            error.add_note("\n".join(one.said))
            raise
        finally:
            with suppress(BotkeepError):
                found.desk(Actor.PERSON).stop("doge", "the cell is over")
