"""The rows of the matrix: each fault as it happens, and what the world has to look like afterwards.

Every row gives one phrase for its cell, made of what the run measured.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from botkeep.ledger import Kind
from botkeep.memory import read_memory
from botkeep.model import Actor, Fault, Result, Status, utc_now
from matrix.cell import NS, POLL, Cell, Run, cell
from matrix.columns import GRACE, Column, Wish
from support.bots import DEADLINE, Lab, overlaps, wait_for
from support.fleet import entry

MIB = 1 << 20
LIMIT, MOST = 100 * MIB, 200 * MIB
"""What a bot may use that runs out of memory, and how far botkeep may raise that."""
SILENT = timedelta(minutes=6)
"""How much later a round looks that has to find a bot hung."""
REFUSED = 1
"""systemd counts the restart that its start limit then refuses."""

Build = Callable[[Lab, Wish], Column]
Phrase = str


@dataclass(frozen=True)
class Row:
    """One fault."""

    name: str
    run: Callable[[Path, Build], Phrase]
    """(an empty folder, the column) -> what came of it. Raises AssertionError where that is wrong."""


def since(at: int, run: Run) -> str:
    """How long it took until the new one traded."""
    return f"{(run.first - at) / NS:.1f} s"


def now() -> int:
    return time.monotonic_ns()


# ---------------------------------------------------------------------------------------------------- ended, halted


def killed(home: Path, build: Build) -> Phrase:
    """kill -9 of its process, by nobody."""
    with cell(home, build, Wish(("--graceful",))) as one:
        pid, at = one.up(), now()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not one.lab.bots(), every=POLL)
        new = one.one_new(pid)
        assert len(one.runs()) == 2
        return f"back in {since(at, new)}, one instance"


def frozen(home: Path, build: Build) -> Phrase:
    """SIGSTOP, or the engine's own pause."""
    with cell(home, build, Wish(("--graceful",))) as one:
        pid, at = one.up(), now()
        one.column.freeze(pid)
        verdict = one.verdict()
        assert (verdict.fault, verdict.confirmed) == (Fault.BOT_HUNG, True), verdict.sentence
        new = one.one_new(pid)
        return f"{verdict.fault}, back in {since(at, new)}, one instance"


def busy(home: Path, build: Build) -> Phrase:
    """It uses the processor, and gets nowhere: its file is not touched any more."""
    wish = Wish(("--graceful", "--say=waiting for a signal", "--turn=busy"))
    with cell(home, build, wish, progress={"file": "data/doge.csv", "every": "10s"}) as one:
        pid = one.up()
        os.kill(pid, signal.SIGUSR1)
        wait_for(lambda: not one.trades_now(), every=POLL)
        assert one.starts_nothing(timedelta()) == [], "what is silent for a moment is not hung"
        one.ahead, at = SILENT, now()
        report = one.round()
        (action,) = report.actions
        assert action.fault is Fault.BOT_HUNG or "silent" in action.sentence, action.sentence
        one.ahead = timedelta()
        new = one.one_new(pid)
        policy = one.policy(Fault.BOT_HUNG)
        silence, looks = short(policy.when.silent_at_least), policy.confirm.looks
        return f"{Fault.BOT_HUNG} after {silence} of silence and {looks} looks, back in {since(at, new)}, one instance"


def deaf(home: Path, build: Build) -> Phrase:
    """It hangs, and will not end when asked."""
    with cell(home, build, Wish(("--ignore-term",))) as one:
        pid, at = one.up(), now()
        one.column.freeze(pid)
        verdict = one.verdict()
        assert verdict.fault is Fault.BOT_HUNG, verdict.sentence
        frozen_at = now()
        new = one.one_new(pid)
        awake = [stamp.at for stamp in one.stamps() if stamp.root == pid and stamp.at > frozen_at]
        lived = (awake[-1] - awake[0]) / NS
        assert GRACE - 0.5 <= lived <= GRACE + 3.0, f"it was killed {lived:.1f} s after it had been asked to end"
        return f"killed {lived:.1f} s after it was asked to end, back in {since(at, new)}, one instance"


# ---------------------------------------------------------------------------------------------------- crashes


def crash(*lives: float) -> Callable[[Path, Build], Phrase]:
    """It ends with exit code 1 after so many seconds, at its first run, its second, ...; the last is of all others."""

    def run(home: Path, build: Build) -> Phrase:
        switches = (f"--lives={','.join(map(str, lives))}", "--exit-code=1")
        with cell(home, build, Wish(switches, restarts=True)) as one:
            one.column.start(home)
            phrase = _engines_loop(one, lives) if one.column.engine else _own_loop(one, lives)
            assert overlaps(one.stamps()) == [], "two lived at the same time"
            assert one.traded_in_turn(), "two wrote into the data file at the same time"
            one.books_are_good()
            return phrase

    return run


def _own_loop(one: Cell, lives: Sequence[float]) -> Phrase:
    """Nobody restarts it but rounds, each time later, and in the end nobody."""
    backoff = one.policy(Fault.BOT_NOT_RUNNING).backoff
    for number, wait in enumerate(backoff, start=1):
        _wait_for_end(one, number, lives)
        if wait:
            one.ahead = _since_last(one) + wait - timedelta(seconds=30)
            one.starts_nothing(timedelta())
            one.ahead += timedelta(seconds=30)
        one.round()
        assert one.restarts_by_rounds() == number, "it was not restarted when its back-off was over"
    _wait_for_end(one, len(backoff) + 1, lives)
    verdict = one.verdict()
    assert verdict.fault is Fault.BOT_CRASH_LOOPING, verdict.sentence
    asked = _is_left_to_a_person(one)
    waits = ", ".join(map(short, backoff))
    return f"{verdict.fault}: {one.restarts_by_rounds()} restarts ({waits} later), {_lived(one.runs())}; {asked}"


def _wait_for_end(one: Cell, runs: int, lives: Sequence[float]) -> None:
    due = lives[min(runs, len(lives)) - 1]
    one.wait_for_runs(runs, due + DEADLINE)
    wait_for(lambda: not one.lab.bots(), due + DEADLINE, every=POLL)
    lived = one.runs()[-1].seconds
    assert abs(lived - due) < 2, f"it lived for {lived:.1f} s"


def _since_last(one: Cell) -> timedelta:
    """How far the newest restart lies ahead of the machine's clock."""
    return one.entries(Kind.INTENT)[-1].at - utc_now()


def _engines_loop(one: Cell, lives: Sequence[float]) -> Phrase:
    """Its engine restarts it by itself, and calls it running meanwhile."""
    enough = one.policy(Fault.BOT_CRASH_LOOPING).when.restarts
    known = one.counted_from()
    runs = one.wait_for_runs(enough + 1, sum(lives) + enough * lives[-1] + DEADLINE)
    one.rounds_until(lambda seen: seen.verdicts[0].fault is Fault.BOT_CRASH_LOOPING)
    own = one.restarts_by_rounds()
    least = len(runs) - known.most - own - 1  # one may have been under way at the first look
    one.rounds_until(lambda _: one.restarts_by_engine() >= least)
    counted = one.restarts_by_engine()
    wait_for(lambda: len(one.runs()) - known.least >= counted - REFUSED, every=POLL)  # the newest may be silent yet
    asked = _is_left_to_a_person(one)
    restarts = len(one.runs()) - 1 - own
    return f"{Fault.BOT_CRASH_LOOPING}: {restarts} restarts by {one.column.engine}, {_lived(runs)}; {asked}"


def _lived(runs: Sequence[Run]) -> str:
    """How long the runs lasted, as far as they differ."""
    first, rest = runs[0].seconds, [run.seconds for run in runs[1:-1]]
    later = sum(rest) / len(rest)
    return f"up for {later:.1f} s each" if abs(first - later) < 1 else f"up for {first:.0f} s, then {later:.1f} s each"


def _is_left_to_a_person(one: Cell) -> str:
    """Now, and an hour later. A loop that is seen between two of its ends is none for that moment: nothing is done."""
    answers = one.starts_nothing(timedelta(hours=1))
    until = time.monotonic() + DEADLINE
    while Result.ASKED not in {answer.result for answer in answers}:
        assert time.monotonic() < until, answers
        answers += one.starts_nothing(timedelta())
    return "a person is asked"


def short(wait: timedelta) -> str:
    """0 s, 5 m."""
    seconds = int(wait.total_seconds())
    return f"{seconds // 60} m" if seconds else "0 s"


# ---------------------------------------------------------------------------------------------------- memory


def out_of_memory(home: Path, build: Build) -> Phrase:
    """The kernel ends it at its memory limit."""
    wish = Wish(("--graceful", "--turn=hungry"), memory=LIMIT, raised_to=MOST)
    with cell(home, build, wish) as one:
        pid, kills = one.up(), kernels_kills()
        limit, at = one.column.memory(), now()
        one.column.starve(pid)
        wait_for(lambda: not one.lab.bots(), every=POLL)
        assert kernels_kills() > kills, "the kernel ended nothing for lack of memory"
        verdict = wait_for(lambda: seen if (seen := one.verdict()).fault else None)
        assert verdict.fault is Fault.OUT_OF_MEMORY, verdict.sentence
        new = one.one_new(pid)
        phrase = f"{verdict.fault}, back in {since(at, new)}, one instance"
        raised = one.column.memory()
        assert raised is None or (limit is not None and limit < raised <= MOST)
        return phrase if raised is None else f"{phrase}, limit raised from {(limit or 0) // MIB} to {raised // MIB} MiB"


def kernels_kills() -> int:
    """For lack of memory, since the machine was started."""
    return read_memory().oom_kills or 0


# ---------------------------------------------------------------------------------------------------- several


def second_copy(home: Path, build: Build) -> Phrase:
    """Somebody starts it once more, past botkeep."""
    with cell(home, build, Wish(("--graceful",))) as one:
        pid = one.up()
        one.column.copy()
        first, second = wait_for(lambda: found if len(found := one.traders()) == 2 else None, every=POLL)
        assert pid == first
        verdict = one.verdict()
        assert verdict.fault is Fault.BOT_DUPLICATED, verdict.sentence
        one.one_new(first, second)
        lives = {run.root: run for run in one.runs()}
        both = (min(lives[first].last, lives[second].last) - lives[second].first) / NS
        return f"{verdict.fault}, two traded for {both:.1f} s, then one new instance"


def orphans(home: Path, build: Build) -> Phrase:
    """The shell that it was started by is killed; then a person restarts it."""
    with cell(home, build, Wish(("--graceful",), wrapped=True, restarts=True)) as one:
        pid = one.up()
        (shell,) = one.copies()
        assert shell != pid
        os.kill(shell, signal.SIGKILL)
        wait_for(lambda: shell not in one.lab.bots(), every=POLL)
        if one.column.engine:
            wait_for(lambda: len(one.runs()) == 2, every=POLL)
        lived_on = pid in one.lab.bots()
        one.rounds_until(lambda _: one.trader() != 0)
        found = one.trader()
        one.is_well(found)
        report = one.desk(Actor.PERSON).restart("doge", "is anything left of it?", override="the matrix asks")
        assert report.ok, report.sentence
        one.one_new(pid, found)
        assert pid not in one.lab.bots()
        became = "its orphan was ended" if lived_on else "its orphan ended with it"
        return f"{became}, one instance; none is left by a restart"


# ---------------------------------------------------------------------------------------------------- away


def engine_away(home: Path, build: Build) -> Phrase:
    """The engine does not answer any more, while another bot is down that it has nothing to do with."""
    with cell(home, build, Wish(("--graceful",), remote=True)) as one:
        pid = one.up()
        one.add(entry("near"))
        near = int(one.desk(Actor.PERSON).start("near", "first start").pid or 0)
        assert {verdict.status for verdict in one.round().verdicts} == {Status.HEALTHY}
        with one.column.away():
            one.found.kill(near)
            verdicts = {verdict.bot: verdict for verdict in one.round().verdicts}
            assert verdicts["near"].status is Status.HEALTHY, verdicts["near"].sentence
            assert verdicts["near"].pid not in (None, near)
            seen = verdicts["doge"]
            assert seen.status is (Status.UNKNOWN if one.column.engine else Status.HEALTHY), seen.sentence
            assert one.went_on(pid)
        one.is_well(pid)
        assert one.round().actions == ()
        assert (len(one.runs()), one.restarts_by_rounds()) == (1, 0)
        if not one.column.engine:
            return "no engine: it runs on without its watcher"
        return f"{seen.status}, left alone, the others went on; healthy when {one.column.engine} is back"


ROWS = (
    Row("killed", killed),
    Row("frozen", frozen),
    Row("busy but not progressing", busy),
    Row("crash at once", crash(0.05)),
    Row("crash after 3 s", crash(3)),
    Row("crash after 25 s", crash(25, 0.05)),
    Row("out of memory", out_of_memory),
    Row("second copy", second_copy),
    Row("wrapper with orphans", orphans),
    Row("ignores SIGTERM", deaf),
    Row("engine away", engine_away),
)
