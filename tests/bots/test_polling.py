"""A real freqtrade polls less by a second --config: what it overrides, when it is read again, and what that costs."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from botkeep.model import Action, ActionReport, Actor, Fault, Result
from botkeep.rounds import RoundReport
from bots.exchange import Mood
from bots.rig import BOOT, NAME, Rig, rig
from support.fleet import alive
from support.fleet import wait_for as wait

NORMAL: dict[str, Any] = {}
REDUCED = {"internals": {"process_throttle_secs": 7}}
SHORT = {r"wait: \w+": "wait: 2s", r"calm: \w+": "calm: 2s", r"reset_after: \w+": "reset_after: 8s"}


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Rig]:
    """A bot whose main loop runs each second, and more seldom by its second configuration."""
    with rig(tmp_path / "home") as found:
        overlay = found.home / "bot/polling.json"
        overlay.write_text(json.dumps(NORMAL))
        path = found.home / "config/bots.json"
        bots = json.loads(path.read_text())
        entry = bots["bots"][0]
        entry["runtime"]["command"] += ["--config", str(overlay)]
        polling = {"file": "bot/polling.json", "normal": NORMAL, "reduced": REDUCED, "apply": "reload"}
        path.write_text(json.dumps({"bots": [entry | {"limits": {"polling": polling}}]}))
        for pattern, short in SHORT.items():
            found.edit("api-rate-limited", pattern, short)
        yield found


def pace(one: Rig) -> int:
    """Whole seconds between its next two main loops."""

    def after(loop: int) -> int:
        told = wait(lambda: (at := (one.answers("health") or {}).get("last_process_ts")) != loop and at, 30)
        return int(told)

    first = after(after(0))
    return after(first) - first


def polled(done: RoundReport) -> ActionReport | None:
    return next((report for report in done.actions if report.action is Action.POLL), None)


def reloads(one: Rig) -> int:
    return one.lines().count("after config reloaded")


def test_a_freqtrade_that_was_banned_polls_less_once_the_ban_is_over_and_lives_on(one: Rig) -> None:
    pid = one.up(trades=0)
    wait(lambda: pace(one) <= 2, 60)
    until = one.market.ban(20) / 1000
    wait(lambda: "banned until" in one.lines(), BOOT)
    done = polled(one.round())
    assert done is not None
    assert done.result is Result.DONE, done.sentence
    assert "once it can be told to reload, not before" in done.sentence
    assert json.loads((one.home / "bot/polling.json").read_text()) == REDUCED
    assert reloads(one) == 0
    told = wait(lambda: polled(one.round()), 60)
    assert told.data["applied"] is True, told.sentence
    assert done.earliest is not None
    assert abs(done.earliest.timestamp() - until) < 1
    assert reloads(one) == 1
    wait(lambda: pace(one) >= 6, 60)  # the loop that begins with a candle comes earlier
    back = wait(lambda: polled(one.round()), 60)
    assert (back.data["to"], back.data["applied"]) == ("normal", True), back.sentence
    assert reloads(one) == 2
    wait(lambda: pace(one) <= 2, 60)
    assert alive(pid)
    assert one.copies() == {pid}


def test_a_reload_while_the_exchange_refuses_would_have_ended_it(tmp_path: Path) -> None:
    """Why botkeep waits: the same question, asked past it. Without open trades it is answered at once."""
    with rig(tmp_path / "home", max_open_trades=0) as one:
        pid = one.up(trades=0)
        one.market.mood = Mood.LIMITED
        one.ask("reload_config", post=True)
        wait(lambda: not alive(pid), 90)
        assert re.search("Could not load markets, therefore cannot start", one.lines())


@pytest.mark.parametrize(("word", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_a_freqtrade_that_a_person_paused_stays_so(one: Rig, word: str, state: str) -> None:
    one.up(trades=0)
    one.ask(word, post=True)
    wait(lambda: one.state() == state)
    said = one.fleet.desk(Actor.PERSON).poll(NAME, "they wrote to us", less=True)
    assert said.result is Result.DONE
    assert f"its own state is {state}" in said.sentence
    assert polled(one.round()) is None
    assert one.state() == state
    assert reloads(one) == 0


def test_a_frozen_freqtrade_is_not_told_anything_and_its_next_start_reads_the_file(one: Rig) -> None:
    pid = one.up(trades=0)
    os.kill(pid, signal.SIGSTOP)
    said = one.fleet.desk(Actor.PERSON).poll(NAME, "they wrote to us", less=True)
    assert said.result is Result.DONE
    assert "its API does not tell its state" in said.sentence
    done = one.round()
    assert done.verdicts[0].fault is not Fault.API_RATE_LIMITED
    new = wait(lambda: one.verdict().pid)
    assert new not in (None, pid)
    wait(lambda: new in one.heartbeats(), BOOT)
    wait(lambda: pace(one) >= 6, 60)
    assert reloads(one) == 0
