"""What every runtime promises, on real bots. A new runtime adds one factory to RIGS."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from botkeep.model import EngineError, Exit, Instance, InstanceState, RuntimeLook
from botkeep.runtimes import RUNTIMES, Runtime, Started, Stopped, Target
from botkeep.runtimes.procs import ProcessTable
from support.bots import DEADLINE, Lab, pid_of, wait_for
from support.docker_rig import Containers
from support.supervisor import Programs, Supervisor
from support.swarm_rig import SwarmServices
from support.systemd_box import box
from support.systemd_rig import Services


@dataclass
class Rig:
    """One runtime with a place to run bots in."""

    runtime: Runtime
    lab: Lab
    bot: Callable[..., Target]
    """(*switches of the paper bot) -> a bot named doge that is not running; it has a second to stop."""
    broken: Callable[[], Target]
    """A bot whose command does not exist."""
    by_hand: Callable[[Target], int]
    """Start a copy as a person would, past botkeep; returns its pid."""
    given: Callable[[Target, Sequence[str], Mapping[str, str]], Target]
    """(bot, switches, variables) -> the bot with these variables, in the way in which it gets them."""
    path: str | None = None
    """What it has as PATH; None: its caller's."""
    how_adopted: str = "command"
    """By what a copy started by hand is known."""
    knows_every_exit: bool = False
    """Its engine tells how a run ended that somebody else started."""
    tells_peak: bool = True
    """How much memory a run used at most is known when it has ended."""
    missing: str = "./no-such-bot"
    """What the broken bot's command is."""
    close: Callable[[], None] = lambda: None
    """Take away what was made for the test."""

    def look(self, target: Target) -> RuntimeLook:
        return self.runtime.look(target, ProcessTable.read())

    def start(self, target: Target, entry: str = "e1") -> Started:
        return self.runtime.start(target, entry, time.monotonic() + DEADLINE)

    def up(self, target: Target, entry: str = "e1") -> Instance:
        """Started, and trading."""
        started = self.start(target, entry)
        assert started.instance, started.exit
        pid = pid_of(started.instance)
        wait_for(lambda: self.lab.trading(pid))
        return started.instance

    def stop(self, target: Target) -> Stopped:
        return self.runtime.stop(target, self.runtime.grace(target), time.monotonic() + DEADLINE)

    def ended(self, target: Target) -> Exit:
        return wait_for(lambda: None if (seen := self.look(target)).instances else seen.exit)


def process_rig(lab: Lab) -> Rig:
    """Plain processes of this machine."""
    return Rig(
        runtime=RUNTIMES["process"],
        lab=lab,
        bot=lambda *switches: lab.target("doge", *switches),
        broken=lambda: lab.target("doge", command=["./no-such-bot"]),
        by_hand=lambda target: lab.by_hand(*target.config.command),
        given=lambda target, _, variables: replace(target, environment=dict(variables)),
    )


CONTAINER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def docker_rig(lab: Lab) -> Rig:
    """Containers, each made as a person makes it. A copy by hand is `docker start`: there is only the one."""
    made = Containers(lab)
    return Rig(
        runtime=RUNTIMES["docker"],
        lab=lab,
        bot=made.docker_bot,
        broken=lambda: made.docker_bot(command=["./no-such-bot"]),
        by_hand=made.start_by_hand,
        given=made.docker_given,
        path=CONTAINER_PATH,
        how_adopted="docker",
        knows_every_exit=True,
        tells_peak=False,
        close=made.close,
    )


def compose_rig(lab: Lab) -> Rig:
    """Services of a project that Compose itself makes."""
    made = Containers(lab)
    return Rig(
        runtime=RUNTIMES["compose"],
        lab=lab,
        bot=made.compose_bot,
        broken=lambda: made.compose_bot(command=["./no-such-bot"]),
        by_hand=made.up_by_hand,
        given=made.compose_given,
        path=CONTAINER_PATH,
        how_adopted="compose",
        knows_every_exit=True,
        tells_peak=False,
        close=made.close,
    )


def swarm_rig(lab: Lab) -> Rig:
    """Services of a swarm, each made as a person makes it, that it does not restart by itself."""
    made = SwarmServices(lab)
    return Rig(
        runtime=RUNTIMES["swarm"],
        lab=lab,
        bot=made.bot,
        broken=lambda: made.bot(command=["./no-such-bot"]),
        by_hand=made.start_by_hand,
        given=made.given,
        path=CONTAINER_PATH,
        how_adopted="swarm",
        knows_every_exit=True,
        tells_peak=False,
        close=made.close,
    )


def supervisord_rig(lab: Lab) -> Rig:
    """Programs of a supervisord that restarts nothing by itself. A copy by hand is one that it knows nothing of."""
    supervisor = Supervisor().up()
    made = Programs(lab, supervisor)
    return Rig(
        runtime=RUNTIMES["supervisord"],
        lab=lab,
        bot=made.bot,
        broken=lambda: made.bot(command=["./no-such-bot"]),
        by_hand=made.copy_of,
        given=made.given,
        tells_peak=False,
        close=supervisor.close,
    )


def systemd_rig(lab: Lab) -> Rig:
    """Services of a real systemd, a user's or (inside of a box where it is the first process) the system's."""
    made = Services(lab, box())
    missing = str(lab.home / "no-such-bot")
    return Rig(
        runtime=RUNTIMES["systemd"],
        lab=lab,
        bot=made.bot,
        broken=lambda: made.bot(command=[missing]),
        by_hand=made.copy_of,
        given=made.given,
        path=made.path,
        tells_peak=False,
        missing=missing,
        close=made.close,
    )


RIGS: dict[str, Callable[[Lab], Rig]] = {
    "process": process_rig,
    "docker": docker_rig,
    "compose": compose_rig,
    "swarm": swarm_rig,
    "supervisord": supervisord_rig,
    "systemd": systemd_rig,
}


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with Lab(tmp_path) as lab:
        one = RIGS[request.param](lab)
        yield one
        one.close()


def test_every_runtime_has_a_rig_here() -> None:
    assert set(RIGS) == set(RUNTIMES)
    assert [runtime.KIND for runtime in RUNTIMES.values()] == list(RUNTIMES)


def test_a_bot_that_was_never_started_is_nowhere(rig: Rig) -> None:
    seen = rig.look(rig.bot())
    assert (seen.instances, seen.exit, seen.generation, seen.error) == ((), None, 0, None)


def test_a_started_bot_is_one_running_instance_of_ours_bound_to_its_entry(rig: Rig) -> None:
    bot = rig.bot()
    started = rig.up(bot, "e42")
    seen = rig.look(bot)
    assert [one.key for one in seen.instances] == [started.key]
    one = seen.instances[0]
    assert (one.state, one.ours, one.entry, one.pid) == (InstanceState.RUNNING, True, "e42", started.pid)
    assert one.pid in one.members
    assert one.rss_bytes is not None
    assert 1 << 20 < one.rss_bytes < 1 << 28
    assert one.started_at is not None
    assert abs(datetime.now(UTC) - one.started_at) < timedelta(seconds=30)


def test_a_bot_that_ends_as_asked_is_stopped_without_a_kill(rig: Rig) -> None:
    bot = rig.bot("--graceful")
    instance = rig.up(bot)
    stopped = rig.stop(bot)
    assert ([one.pid for one in stopped.stopped], stopped.left, stopped.killed) == ([instance.pid], (), False)
    assert not rig.lab.bots()
    seen = rig.ended(bot)
    assert (seen.key, seen.code, seen.signal, seen.asked) == (instance.key, 0, None, True)


def test_a_bot_that_ignores_the_request_is_killed_after_its_grace(rig: Rig) -> None:
    bot = rig.bot("--ignore-term")
    rig.up(bot)
    stopped = rig.stop(bot)
    assert (stopped.left, stopped.killed) == ((), True)
    assert not rig.lab.bots()
    seen = rig.ended(bot)
    assert (seen.code, seen.signal, seen.asked) == (None, signal.SIGKILL, True)


def test_a_frozen_bot_is_seen_as_frozen_and_can_be_stopped(rig: Rig) -> None:
    bot = rig.bot("--graceful")
    pid = pid_of(rig.up(bot))
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: rig.look(bot).instances[0].state is InstanceState.FROZEN)
    stopped = rig.stop(bot)
    assert (stopped.left, stopped.killed) == ((), False)
    assert not rig.lab.bots()


def test_stopping_a_bot_that_does_not_run_finds_nothing_and_leaves_nothing(rig: Rig) -> None:
    assert rig.stop(rig.bot()) == Stopped(())


def test_a_start_is_refused_while_one_lives(rig: Rig) -> None:
    bot = rig.bot()
    first = rig.up(bot)
    with pytest.raises(EngineError, match=r"doge was not started: .*Stop it first"):
        rig.start(bot, "e2")
    assert [one.key for one in rig.look(bot).instances] == [first.key]
    assert rig.lab.pids("bot") == {first.pid}


def test_a_start_is_refused_while_a_copy_lives_that_somebody_started_by_hand(rig: Rig) -> None:
    bot = rig.bot()
    pid = rig.by_hand(bot)
    wait_for(lambda: rig.lab.trading(pid))
    with pytest.raises(EngineError, match=str(pid)):
        rig.start(bot)
    assert rig.lab.pids("bot") == {pid}


def test_a_command_that_does_not_exist_fails_to_start_and_says_why(rig: Rig) -> None:
    bot = rig.broken()
    started = rig.start(bot)
    assert started.instance is None
    assert started.exit is not None
    assert started.exit.failed_to_start == f"{rig.missing}: No such file or directory"
    assert (started.exit.code, started.exit.signal) == (None, None)
    seen = rig.look(bot)
    assert (seen.instances, seen.exit, seen.generation) == ((), started.exit, 1)
    wait_for(lambda: not rig.lab.processes())


@pytest.mark.parametrize(
    ("switches", "code", "killed_by"), [(["--exit-after=0.2", "--exit-code=3"], 3, None), ([], None, signal.SIGKILL)]
)
def test_how_a_bot_ended_is_known_though_nothing_of_botkeep_was_running(
    rig: Rig, switches: list[str], code: int | None, killed_by: int | None
) -> None:
    bot = rig.bot("--touch=40", *switches)
    starter = rig.lab.caller("start", bot)
    answer, _ = starter.communicate(timeout=DEADLINE)
    pid = json.loads(answer)["pid"]
    wait_for(lambda: rig.lab.trading(pid))
    if killed_by:
        os.kill(pid, killed_by)
    wait_for(lambda: not rig.lab.processes())
    reader = rig.lab.caller("look", bot)
    said = json.loads(reader.communicate(timeout=DEADLINE)[0])
    assert said["pids"] == []
    assert (said["exit"]["code"], said["exit"]["signal"]) == (code, killed_by)
    peak = said["exit"]["peak"]
    assert (peak is not None) == rig.tells_peak
    assert peak is None or 40 << 20 < peak < 120 << 20


def test_a_crash_stays_a_crash_when_somebody_stops_the_bot_afterwards(rig: Rig) -> None:
    bot = rig.bot("--exit-after=0.1", "--exit-code=1")
    rig.up(bot)
    assert rig.ended(bot).asked is False
    assert rig.stop(bot).stopped == ()
    assert rig.ended(bot).asked is False


def test_a_bot_that_ends_at_once_tells_its_exit_code_at_the_first_look(rig: Rig) -> None:
    for _ in range(5):
        bot = rig.bot("--exit-code=7", "--exit-after=0")
        rig.start(bot)
        assert rig.ended(bot).code == 7


def test_a_copy_started_by_hand_is_adopted_and_how_it_ended_is_known_where_an_engine_saw_it(rig: Rig) -> None:
    bot = rig.bot("--graceful")
    pid = rig.by_hand(bot)
    wait_for(lambda: rig.lab.trading(pid))
    one = rig.look(bot).instances[0]
    assert (one.pid, one.ours, one.entry, one.how) == (pid, False, None, rig.how_adopted)
    assert [instance.pid for instance in rig.stop(bot).stopped] == [pid]
    seen = rig.look(bot)
    assert (seen.instances, seen.generation) == ((), 0)
    assert (seen.exit.code if seen.exit else None) == (0 if rig.knows_every_exit else None)


def test_generations_count_starts_and_the_newest_exit_is_the_one_that_is_told(rig: Rig) -> None:
    bot = rig.bot("--graceful")
    keys = []
    for generation in (1, 2, 3):
        keys.append(rig.up(bot, f"e{generation}").key)
        seen = rig.look(bot)
        assert seen.generation == generation
        assert (seen.exit.key if seen.exit else None) == (keys[-2] if generation > 1 else None)
        rig.stop(bot)
        assert rig.ended(bot).key == keys[-1]
    assert len(set(keys)) == 3


def test_the_output_is_kept_and_the_newest_run_can_be_told_from_the_ones_before(rig: Rig) -> None:
    for word in ("first", "second"):
        bot = rig.bot(f"--say={word}", "--graceful")
        rig.up(bot)
        rig.stop(bot)
    newest = rig.runtime.logs(bot)[0]
    assert newest.read_bytes() == b"first\nsecond\n"
    assert newest.stat().st_mode & 0o077 == 0
    run_offset = getattr(rig.runtime, "run_offset", None)
    assert run_offset is None or newest.read_bytes()[run_offset(bot) :] == b"second\n"


def test_a_bot_gets_the_variables_of_its_configuration_and_none_of_the_callers_secrets(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMEBODY_ELSES_KEY", "hunter2")
    switches = ["--ask-environment=environment"]
    rig.up(rig.given(rig.bot(*switches), switches, {"API_KEY": "k1", "EMPTY": ""}))
    given = dict(pair.split("=", 1) for pair in (rig.lab.home / "environment").read_text().split("\0"))
    assert (given["API_KEY"], given["EMPTY"]) == ("k1", "")
    assert "SOMEBODY_ELSES_KEY" not in given
    assert given["PATH"] == (rig.path or os.environ["PATH"])


def test_memory_that_a_bot_may_not_have_ends_it_with_its_own_words(rig: Rig) -> None:
    bot = rig.bot("--allocate=100")
    started = rig.start(bot)
    seen = rig.ended(bot)
    assert seen.code == 1, started
    assert seen.out_of_memory is not True
    assert b"MemoryError" in rig.runtime.logs(bot)[0].read_bytes()
