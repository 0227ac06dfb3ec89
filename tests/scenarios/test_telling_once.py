"""Two rounds that tell people at the same time: each alert once, also when one of them hangs with the lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from botkeep import together
from botkeep.ledger import Kind
from botkeep.model import Actor
from botkeep.rounds import Desk
from support.fleet import Fleet, entry, fleet

NAMES = ("doge", "pepe", "shib")


def telling(found: Fleet) -> together.Iterator[together.alerts.Alert]:
    """One round's alerts, as they are told one by one."""
    desk: Desk = found.desk(Actor.ROUND)
    bench = desk.bench()
    bench.actor = Actor.ROUND
    return together.tell(bench, desk._verdicts(bench, NAMES, confirm=True), (), ())


def test_a_round_that_hangs_while_it_tells_people_silences_nobody_and_nothing_is_told_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "WAIT", 0.2)
    with fleet(tmp_path / "home", *(entry(name) for name in NAMES)) as found:
        found.edit("bot-not-running", r"alert: {after: \w+}", "alert: {after: 0s}")
        hanging = telling(found)
        told = [next(hanging)]
        told += list(telling(found))  # it waits for the lock in vain, and tells what the other one has not told yet
        told += list(hanging)
        assert sorted(one.bot for one in told) == sorted(NAMES)
        assert list(telling(found)) == []
        recorded = found.desk().ledger.entries(kinds=[Kind.ALERT])
        assert sorted(str(one.bot) for one in recorded) == sorted(NAMES)


def test_of_two_rounds_that_record_the_same_alert_the_first_one_tells_it(tmp_path: Path) -> None:
    with fleet(tmp_path / "home", entry("doge")) as found:
        found.edit("bot-not-running", r"alert: {after: \w+}", "alert: {after: 0s}")
        desk = found.desk(Actor.ROUND)
        bench = desk.bench()
        (alert,) = together.alerts.due_together(
            desk._verdicts(bench, ["doge"], confirm=True), (), bench.playbooks, {}, (), bench.clock()
        )
        mine, theirs = together._record(bench, alert), together._record(found.desk(Actor.ROUND).bench(), alert)
        assert together._is_first(bench, alert, 0, mine)
        assert not together._is_first(bench, alert, 0, theirs)
        assert together._is_first(bench, alert, 0, None), "what could not be recorded is told all the same"
