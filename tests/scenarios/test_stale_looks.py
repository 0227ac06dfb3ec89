"""A look that began before a restore, or before another look, and is written down after it, must not be believed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from botkeep import survey
from botkeep.bench import Bench
from botkeep.keeping import keep_all
from botkeep.model import Actor, Fault, Result, Verdict, utc_now
from botkeep.rounds import Desk
from support.bots import Lab
from support.engine_bot import Place, look
from support.fleet import Fleet, fleet, wait_for
from support.supervisor import Programs, Supervisor


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Fleet]:
    """A bot that was seen sound, is dead, and has lost rows that no backup has; started again, it trades no more."""
    with fleet(tmp_path / "home") as found:
        pid = found.up(rows=8)
        assert found.desk().back_up()[0].result is Result.DONE
        before = found.rows()
        wait_for(lambda: found.rows() >= before + 6)
        found.kill(pid)
        found.desk().check(confirm=False)
        (found.home / "paper_bot.py").write_text("import time\nwhile True:\n    time.sleep(1)\n")
        damage(found)
        yield found


def damage(one: Fleet) -> None:
    """Zeros within its last row."""
    with one.data().open("r+b") as file:
        file.seek(one.data().read_bytes().rstrip(b"\n").rfind(b"\n") + 5)
        file.write(b"\0" * 10)


def known(one: Fleet, name: str = "data") -> dict[str, object]:
    """What is remembered of the bot."""
    return one.desk().ledger.cursor("doge", name) or {}


def begun(desk: Desk) -> tuple[Bench, list[Verdict]]:
    """A look that is not written down yet: the watcher writes it half a second later, where bots have to be started."""
    bench = desk.bench()
    return bench, survey.verdicts_of(bench, ["doge"], confirm=False, keep=False)


def written_down(look: tuple[Bench, list[Verdict]]) -> None:
    bench, verdicts = look
    survey.remember(bench, {"doge": bench.seen["doge"]}, verdicts)
    assert bench.troubles == []


def restored(one: Fleet) -> None:
    """A person's restore: nobody looks after it."""
    desk = one.desk(Actor.PERSON)
    done = desk.restore("doge", desk.plan_restore("doge").id, "its last row is damaged")
    assert done.result is Result.DONE, done.sentence


def stays_well(one: Fleet) -> None:
    """At two looks, of which the second is an hour later: time makes nothing worse."""
    for later in (timedelta(0), timedelta(hours=1)):
        found = one.desk(clock=lambda later=later: utc_now() + later).check().verdicts[0]  # type: ignore[misc]
        assert Fault.DATA_CORRUPT not in found.faults, found.sentence


def test_a_backup_that_comes_before_the_first_look_after_a_restore_leaves_the_bot_well(one: Fleet) -> None:
    restored(one)
    assert one.desk().back_up()[0].result is Result.DONE
    stays_well(one)


@pytest.mark.parametrize("backed_up", [False, True])
def test_a_look_from_before_a_restore_that_is_written_down_after_it_is_not_believed(
    one: Fleet, *, backed_up: bool
) -> None:
    old = begun(one.desk(Actor.ROUND))
    restored(one)
    if backed_up:
        assert one.desk().back_up()[0].result is Result.DONE
    written_down(old)
    stays_well(one)


def test_a_look_from_before_a_restore_is_not_believed_though_another_came_between(one: Fleet) -> None:
    old = begun(one.desk(Actor.ROUND))
    restored(one)
    one.desk().check()
    assert one.desk().back_up()[0].result is Result.DONE
    after = known(one)
    written_down(old)
    assert known(one) == after
    stays_well(one)


def test_an_older_look_that_is_written_down_last_forgets_nothing_of_a_newer_one(one: Fleet) -> None:
    restored(one)
    one.desk().check()
    old = begun(one.desk(Actor.ROUND))
    with one.data().open("ab") as file:
        file.write(one.data().read_bytes().splitlines(keepends=True)[-1])
    one.desk().check()
    newer = known(one)
    written_down(old)
    assert known(one) == newer
    with one.data().open("ab") as file:
        file.write(one.data().read_bytes().splitlines(keepends=True)[-1])
    written_down(begun(one.desk(Actor.ROUND)))
    assert known(one) != newer, "a look that nobody came before is remembered"


def test_a_backup_from_before_a_restore_does_not_count_as_one_of_what_it_restored(one: Fleet) -> None:
    """Its mark is for the next backup, which would take rows that were put where they belong for changed ones."""
    whole = one.data().read_bytes().rstrip(b"\n").rfind(b"\n") + 1
    os.truncate(one.data(), whole)
    calls: list[int] = []

    def clock() -> datetime:
        calls.append(1)
        if len(calls) == 2:  # the copy is in the store, and that is not written down yet
            damage(one)
            restored(one)
        return utc_now()

    bench = one.desk(clock=clock).bench()
    (kept,) = keep_all(bench, [bench.fleet.usable("doge")]).reports
    assert kept.result is Result.DONE, kept.sentence
    assert len(calls) >= 2
    assert known(one, "restored")["plan"]
    assert one.desk().back_up()[0].result is Result.DONE
    assert known(one, "restored") == {}


@contextmanager
def under_supervisord(home: Path) -> Iterator[Place[Programs]]:
    with fleet(home) as found, Lab(home) as lab, Supervisor() as supervisor:
        made = Programs(lab, supervisor)
        here = Place(made, found, made.bot(autorestart="true"))
        here.write()
        yield here


def test_an_older_look_makes_nobody_count_an_engines_restart_twice(tmp_path: Path) -> None:
    with under_supervisord(tmp_path / "home") as here:
        first = here.up()
        here.found.verdict()
        old = begun(here.found.desk(Actor.ROUND))
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: any(one.pid not in (None, first) for one in look(here.target).instances))
        here.found.desk().check(confirm=False)
        written_down(old)
        here.found.desk().check(confirm=False)
        desk = here.found.desk()
        counted = [one for one in desk.ledger.entries(bot="doge") if one.actor == Actor.ENGINE]
        assert [one.data for one in counted] == [{"times": 1}]
