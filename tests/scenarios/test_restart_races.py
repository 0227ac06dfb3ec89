"""Fifty programs ask for the same restart at once, and most of them are killed: one new instance, by its own word."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from botkeep.ledger import Entry, Kind
from botkeep.model import Actor, Status, utc_now
from support.bots import DEADLINE, Lab, overlaps, wait_for
from support.fleet import Fleet, entry, fleet

CALLERS = 50
KILLED = 30


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Lab, Fleet]]:
    """One stamping bot in a workspace whose playbooks have short waits."""
    home = tmp_path / "home"
    runtime = {"kind": "process", "command": [sys.executable, "doge.py"], "stop_grace": 2}
    with fleet(home, entry("doge", runtime=runtime, data_file=None)) as found, Lab(home) as lab:
        lab.program("doge.py")
        for fault in ("bot-not-running", "bot-hung"):
            found.edit(fault, r"within: \w+}", "within: 30s}")
        yield lab, found


def up(lab: Lab, found: Fleet) -> int:
    report = found.desk(Actor.PERSON).start("doge", "first start")
    assert report.ok, report.sentence
    wait_for(lambda: lab.trading(int(report.pid or 0)))
    return int(report.pid or 0)


def outcomes(found: Fleet) -> list[Entry]:
    return found.desk().ledger.entries(bot="doge", kinds=[Kind.OUTCOME], action="restart")


def ask(lab: Lab, **more: Any) -> Any:
    """Fifty processes that call Desk.restart; they are let go when this returns."""
    results = lab.home / "results"
    target = lab.target("doge", command=["unused"])
    return lab.caller("desk", target, fork=CALLERS, results=str(results), **more), results


@pytest.mark.parametrize("before", ["it was killed", "it is frozen"])
def test_fifty_restarts_at_once_are_one_restart(place: tuple[Lab, Fleet], before: str) -> None:
    lab, found = place
    first = up(lab, found)
    os.kill(first, signal.SIGKILL if before == "it was killed" else signal.SIGSTOP)
    wait_for(lambda: not found.verdict().up)
    callers, results = ask(lab)
    callers.wait(DEADLINE)
    told = [json.loads(line) for line in results.read_text().splitlines()]
    counted = Counter(one["result"] for one in told)
    assert len(told) == CALLERS
    assert counted["done"] == 1, told
    assert counted["coalesced"] + counted["busy"] + counted["refused"] == CALLERS - 1
    (outcome,) = outcomes(found)
    assert outcome.result == "done"
    new = next(one["pid"] for one in told if one["result"] == "done")
    assert {one["pid"] for one in told if one["result"] == "coalesced"} <= {new}
    assert list(lab.bots()) == [new]
    assert overlaps(lab.stamps()) == []
    assert lab.pids("bot") == {first, new}


@pytest.mark.parametrize("seed", range(2))
def test_of_fifty_restarts_most_are_killed_at_random_and_the_next_call_has_one_bot(
    place: tuple[Lab, Fleet], seed: int
) -> None:
    lab, found = place
    found.kill(up(lab, found))
    callers, _ = ask(lab)
    assert callers.stdout
    pids = json.loads(callers.stdout.readline())
    chance = random.Random(seed)
    for pid in chance.sample(pids, KILLED):
        callers_die_within(chance.random() * 0.1, pid)
        assert overlaps(lab.stamps()) == []
    callers.wait(DEADLINE)
    report = found.desk(Actor.PERSON).restart("doge", "whatever became of it", override="the test asks")
    assert report.ok, report.sentence
    assert len(lab.bots()) == 1
    assert found.verdict().status is Status.HEALTHY
    assert overlaps(lab.stamps()) == []
    desk = found.desk()
    assert desk.ledger.open_intents("doge") == []
    assert desk.ledger.verify() == []
    assert desk.journal.sync(utc_now()) == []
    assert desk.journal.verify(utc_now()) == []
    assert len(lab.pids("bot")) <= started_and_recorded(lab)


def callers_die_within(seconds: float, pid: int) -> None:
    time.sleep(seconds)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def started_and_recorded(lab: Lab) -> int:
    """How many starts the newest record counts; each is a bot that stamped, or was ended before it could."""
    return int(json.loads((lab.home / ".botkeep/run/doge/instance.json").read_text())["generation"])
