"""Bots in containers of a real engine: every state it has, its own restarts, its output, and botkeep killed at work."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep.bench import open_case
from botkeep.memory_limit import raise_limit
from botkeep.model import Action, Actor, EngineError, Fault, InstanceState, RuntimeLook, Status, utc_now
from botkeep.runtimes import Target, docker_control, docker_transport
from botkeep.runtimes.procs import ProcessTable
from support import kills
from support.bots import DEADLINE, Lab, overlaps, pid_of, wait_for
from support.docker_engine import BUSYBOX
from support.docker_proxy import Proxy
from support.docker_rig import Containers
from support.engine_bot import Place, ended, look, runtime, start, stop, surveyed
from support.fleet import fleet


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Containers]:
    with Lab(tmp_path) as lab:
        containers = Containers(lab)
        yield containers
        containers.close()
    docker_transport.hang_up()


def listed(target: Target) -> RuntimeLook:
    """As a look at many sees it."""
    (found,) = surveyed(target)
    return found


def shell(made: Containers, text: str, name: str = "doge", **more: Any) -> Target:
    """A container that runs a line of shell."""
    return made.docker_bot(name=name, command=["sh", "-c", text], image=BUSYBOX, **more)


# ---------------------------------------------------------------------------------------------------- states


def test_a_bot_with_pids_of_its_own_is_known_by_the_pids_that_this_machine_gives_it(made: Containers) -> None:
    target = made.docker_bot("--graceful", "--popen", host={"pid_mode": None})
    one = start(target)
    pid = pid_of(one)
    assert Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].split("\n")[0].split() == [str(pid), "1"]
    wait_for(lambda: {"bot", "child"} <= {stamp.role for stamp in made.lab.stamps()})
    assert {stamp.pid for stamp in made.lab.stamps() if stamp.role == "bot"} == {1}
    (seen,) = look(target).instances
    assert len(seen.members) == 2
    assert set(seen.members) == set(made.lab.bots())
    stopped = stop(target)
    assert (stopped.left, stopped.killed) == ((), False)
    assert not made.lab.bots()


def test_a_paused_container_is_frozen_and_ends_as_asked(made: Containers) -> None:
    target = made.docker_bot("--graceful")
    pid = pid_of(start(target))
    wait_for(lambda: made.lab.trading(pid))
    made.client.pause(target.config.container)
    assert look(target).instances[0].state is InstanceState.FROZEN
    stopped = stop(target, grace=20)
    assert (stopped.left, stopped.killed) == ((), False)
    assert ended(target).code == 0


def test_a_container_that_the_kernel_ended_for_lack_of_memory_says_so(made: Containers) -> None:
    target = shell(made, "x=a; while true; do x=$x$x; done", host={"mem_limit": 16 << 20})
    start(target)
    seen = ended(target)
    assert (seen.signal, seen.out_of_memory) == (signal.SIGKILL, True)


def test_a_container_that_somebody_killed_says_that_nobody_ran_out_of_memory(made: Containers) -> None:
    target = shell(made, "sleep 1000")
    os.kill(pid_of(start(target)), signal.SIGKILL)
    seen = ended(target)
    assert (seen.signal, seen.out_of_memory, seen.asked) == (signal.SIGKILL, False, False)


def test_an_unhealthy_container_lives_and_its_health_check_is_quoted(made: Containers) -> None:
    check = {"test": ["CMD-SHELL", "echo nobody answers; exit 1"], "interval": 10**9, "retries": 1}
    target = shell(made, "sleep 1000", healthcheck=check)
    start(target)
    health = wait_for(lambda: look(target).health)
    assert (health.ok, health.rule) == (False, "unhealthy")
    assert health.text.endswith("times in a row and says: nobody answers")
    assert listed(target).health is not None


def test_a_container_that_is_removed_when_it_ends_can_be_stopped_and_the_note_says_what_that_means(
    made: Containers,
) -> None:
    target = shell(made, "sleep 1000", host={"auto_remove": True})
    start(target)
    assert "not started again" in look(target).notes[0]
    assert stop(target).left == ()
    with pytest.raises(EngineError, match="There is no container"):
        wait_for(lambda: not look(target).instances)
        look(target)


# ---------------------------------------------------------------------------------------------------- its restarts


def test_what_an_engine_restarts_by_itself_is_counted_and_the_exit_before_is_still_known(made: Containers) -> None:
    target = made.docker_bot(host={"restart_policy": {"Name": "always"}})
    first = start(target)
    os.kill(pid_of(first), signal.SIGKILL)
    second = wait_for(lambda: next((one for one in look(target).instances if one.key != first.key and one.pid), None))
    seen = look(target)
    assert (seen.restarts, second.ours, seen.giving_up) == (1, False, "")
    assert second.started_at in seen.starts
    assert seen.exit is not None
    assert (seen.exit.signal, seen.exit.out_of_memory) == (signal.SIGKILL, False)
    assert "restart policy is `always`" in seen.notes[0]


def test_a_stop_holds_against_a_policy_that_restarts_always(made: Containers) -> None:
    target = made.docker_bot("--ignore-term", host={"restart_policy": {"Name": "always"}})
    start(target)
    assert stop(target, grace=1).left == ()
    lasting = time.monotonic() + 2
    while time.monotonic() < lasting:
        assert look(target).instances == ()
    assert made.inspect(target.config.container)["RestartCount"] == 0


def test_a_container_between_two_restarts_is_a_loop_and_can_be_stopped_and_started_there(made: Containers) -> None:
    target = shell(made, "exit 3", host={"restart_policy": {"Name": "always"}})
    made.client.start(target.config.container)
    word = wait_for(lambda: look(target).giving_up)
    assert re.fullmatch(r"Docker has restarted it \d+ times, and it ended again \(exit code 3\)", word)
    wait_for(lambda: look(target).instances[0].state is InstanceState.STARTING)
    stopped = stop(target)
    assert stopped.left == ()
    assert not look(target).instances
    assert runtime(target).start(target, "e2", time.monotonic() + DEADLINE).generation == 1


def test_a_policy_that_is_used_up_is_given_up(made: Containers) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    target = shell(made, "exit 3", host={"restart_policy": policy})
    made.client.start(target.config.container)
    word = wait_for(lambda: look(target).giving_up)
    assert word == "Docker has restarted it 2 times, which is all that its restart policy allows (exit code 3)"
    assert ended(target).code == 3


# ---------------------------------------------------------------------------------------------------- which one


def test_a_container_keeps_its_identity_under_the_name_that_compose_gives_it_meanwhile(made: Containers) -> None:
    target = made.docker_bot()
    one = start(target)
    container = made.inspect(target.config.container)["Id"]
    made.client.rename(container, f"{container[:12]}_{target.config.container}")
    assert [seen.key for seen in look(target).instances] == [one.key]
    assert stop(target).left == ()
    assert start(target).key != one.key


def test_a_name_that_a_person_changed_is_an_error_that_names_the_closest(made: Containers) -> None:
    target = made.docker_bot()
    start(target)
    made.client.rename(target.config.container, f"{target.config.container}-old")
    with pytest.raises(EngineError, match=rf"There is no container \S+: did you mean {target.config.container}-old\?"):
        look(target)


# ---------------------------------------------------------------------------------------------------- output

DRIVERS = {
    "the engine's file": {"log_config": {"Type": "json-file"}},
    "a file that is rotated": {"log_config": {"Type": "json-file", "Config": {"max-size": "300k", "max-file": "9"}}},
    "rotated and packed": {
        "log_config": {"Type": "json-file", "Config": {"max-size": "300k", "max-file": "9", "compress": "true"}}
    },
    "another driver": {"log_config": {"Type": "local"}},
}


def heard(target: Target) -> bytes:
    """What its copied output holds by now."""
    path: Path = runtime(target).log(target)
    return path.read_bytes() if path.exists() else b""


def numbers(path: Path) -> list[int]:
    return [int(line.split()[0]) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("tty", [False, True], ids=["streams", "tty"])
@pytest.mark.parametrize("driver", DRIVERS.values(), ids=DRIVERS)
def test_no_line_is_lost_or_doubled_over_many_looks(made: Containers, driver: dict[str, Any], tty: bool) -> None:
    target = made.docker_bot("--talk=20", "--exit-after=3", host=driver, tty=tty)
    start(target)
    while look(target).instances:
        runtime(target).log(target)
    path = runtime(target).log(target)
    said = numbers(path)
    assert len(said) > 1000
    assert said == list(range(1, said[-1] + 1))
    assert made.client.logs(target.config.container).splitlines()[-1].split()[0] == b"%09d" % said[-1]


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_of_a_long_log_that_nobody_has_read_the_newest_part_is_copied(made: Containers, driver: str) -> None:
    target = made.docker_bot("--chatter=40000", "--exit-after=0", host={"log_config": {"Type": driver}})
    made.client.start(target.config.container)
    ended(target)
    path = runtime(target).log(target)
    said = numbers(path)
    assert said == list(range(said[0], 40000))
    assert 200_000 < path.stat().st_size <= 256 << 10


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_what_was_said_since_the_last_look_is_copied_whole_however_much_it_is(made: Containers, driver: str) -> None:
    target = made.docker_bot("--say=0 first", "--chatter=150000", host={"log_config": {"Type": driver}})
    start(target)
    wait_for(lambda: made.lab.stamps())
    path, before = runtime(target).log(target), -1
    while path.stat().st_size != before:
        before = path.stat().st_size
        look(target)
        runtime(target).log(target)
    said = numbers(path)
    assert said[-1] == 149_999
    assert said == list(range(said[0], 150_000)) or said[:2] == [0, 0]


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_the_last_words_of_a_run_that_the_engine_restarted_are_not_the_new_runs(made: Containers, driver: str) -> None:
    policy = {"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 1}, "log_config": {"Type": driver}}
    text = "if [ -e was ]; then echo second; sleep 1000; fi; touch was; echo first; sleep 1; echo last words; exit 1"
    target = shell(made, text, host=policy)
    start(target)
    path = runtime(target).log(target)
    wait_for(lambda: look(target).restarts == 1 and look(target).instances[0].pid)

    wait_for(lambda: look(target).instances and heard(target).endswith(b"second\n"))
    assert path.read_bytes() == b"first\nlast words\nsecond\n"
    assert path.read_bytes()[runtime(target).run_offset(target) :] == b"second\n"


def test_a_container_made_anew_goes_on_in_the_same_copy(made: Containers) -> None:
    first = made.docker_bot("--say=first", "--exit-after=0")
    made.client.start(first.config.container)
    ended(first)
    path = runtime(first).log(first)
    second = made.docker_bot("--say=second", "--graceful")
    start(second)
    wait_for(lambda: heard(second).endswith(b"second\n"))
    assert path.read_bytes() == b"first\nsecond\n"
    assert path.read_bytes()[runtime(second).run_offset(second) :] == b"second\n"


@kills.needs_strace
@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_reader_that_was_killed_before_it_could_say_what_it_copied_leaves_nothing_twice(
    made: Containers, driver: str
) -> None:
    text = "echo one; while [ ! -e go ]; do sleep 0.1; done; echo two; sleep 1000"
    target = shell(made, text, host={"log_config": {"Type": driver}})
    start(target)
    wait_for(lambda: heard(target) == b"one\n")
    (made.lab.home / "go").touch()
    wait_for(lambda: made.client.logs(target.config.container) == b"one\ntwo\n")
    look(target)
    docker_transport.hang_up()
    assert kills.injected(lambda: runtime(target).log(target), "fsync", 1, "signal=SIGKILL") == -signal.SIGKILL
    assert target.log_path.read_bytes() == b"one\ntwo\n"
    assert heard(target) == b"one\ntwo\n"


def test_readers_side_by_side_copy_each_line_once_also_over_the_rotation_of_the_copy(made: Containers) -> None:
    target = replace(made.docker_bot("--talk=20", "--exit-after=3"), log_bytes=100_000)
    start(target)

    def read() -> None:
        while look(target).instances:
            runtime(target).log(target)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    paths = runtime(target).logs(target)
    assert len(paths) > 2
    said = [number for path in reversed(paths) for number in numbers(path)]
    assert said == list(range(said[0], said[-1] + 1))
    assert made.client.logs(target.config.container).splitlines()[-1].split()[0] == b"%09d" % said[-1]


def test_a_driver_that_keeps_nothing_is_a_note_and_no_error(made: Containers) -> None:
    target = shell(made, "echo unheard; sleep 1000", host={"log_config": {"Type": "none"}})
    start(target)
    seen = look(target)
    assert seen.error is None
    assert "log driver none" in seen.notes[0]
    assert runtime(target).logs(target) == ()


# ---------------------------------------------------------------------------------------------------- questions


def test_a_look_at_many_containers_that_run_on_is_one_question(made: Containers, tmp_path: Path) -> None:
    bots = [shell(made, "sleep 1000", name=f"b{number}") for number in range(5)]
    with Proxy.at(made.host, tmp_path / "p") as proxy:
        seen = [replace(one, config=one.config.model_copy(update={"host": f"unix://{tmp_path}/p"})) for one in bots]
        for one in seen:
            start(one)

        def questions() -> list[str]:
            proxy.asked.clear()
            looks = runtime(seen[0]).survey(seen, ProcessTable.read())
            assert all(one.error is None for one in looks.values())
            for one in seen:
                runtime(one).log(one)
            return [re.sub(r".*/v[\d.]+|\?.*", "", path) for path in proxy.asked if not path.endswith("_ping")]

        def settled() -> list[str]:
            return questions()

        wait_for(lambda: settled() == ["/containers/json"])
        os.kill(made.pid(seen[0].config.container), signal.SIGKILL)
        assert len(questions()) >= 1
        ended(seen[0])
        assert questions() == ["/containers/json", f"/containers/{made.inspect(bots[0].config.container)['Id']}/json"]
        assert [bool(listed(one).instances) for one in seen] == [False, True, True, True, True]
    docker_transport.hang_up()


def test_what_is_remembered_is_of_that_very_run(made: Containers) -> None:
    target = made.docker_bot(host={"restart_policy": {"Name": "always"}})
    first = start(target)
    assert listed(target).instances[0].key == first.key
    os.kill(pid_of(first), signal.SIGKILL)
    seen = wait_for(lambda: found if (found := listed(target)).restarts else None)
    again = wait_for(lambda: next((one for one in listed(target).instances if one.pid), None))
    assert again.key != first.key
    assert (seen.restarts, listed(target).exit) == (1, look(target).exit)
    told = listed(target)
    assert told == replace(look(target), instances=told.instances)  # its memory grows while we look


# ---------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("runs", [False, True])
def test_a_containers_memory_limit_is_raised_while_it_runs_or_not(made: Containers, runs: bool) -> None:
    target = shell(made, "sleep 1000", host={"mem_limit": 32 << 20})
    if runs:
        start(target)
    before = made.inspect(target.config.container)["HostConfig"]
    assert docker_control.memory_of(target.config) == 32 << 20
    assert docker_control.set_memory(target.config, 48 << 20) == 32 << 20
    after = made.inspect(target.config.container)["HostConfig"]
    assert after["Memory"] == 48 << 20
    if before["MemorySwap"] > 0:
        assert after["MemorySwap"] - after["Memory"] == before["MemorySwap"] - before["Memory"]
    if runs:
        assert memory_in_force(made.pid(target.config.container)) == 48 << 20


def memory_in_force(pid: int) -> int:
    from botkeep.memory import read_limit

    limit = read_limit(pid)
    assert limit is not None
    return limit.limit


def test_a_container_without_a_limit_has_none_to_raise(made: Containers) -> None:
    target = shell(made, "sleep 1000")
    assert docker_control.memory_of(target.config) is None


# ---------------------------------------------------------------------------------------------------- the whole way


@contextmanager
def place(home: Path, build: Callable[[Containers], Target], **more: Any) -> Iterator[Place[Containers]]:
    with fleet(home) as found, Lab(home) as lab:
        made = Containers(lab)
        try:
            here = Place(made, found, build(made))
            here.write(**more)
            yield here
            found.desk(Actor.PERSON).stop("doge", "the test is over")
        finally:
            made.close()
            docker_transport.hang_up()


KINDS = {"docker": Containers.docker_bot, "compose": Containers.compose_bot}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_bot_is_found_and_started_again_by_one_round(tmp_path: Path, kind: str) -> None:
    with place(tmp_path / "home", KINDS[kind]) as here:
        first = here.up()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: not look(here.target).instances)
        verdict = here.found.verdict()
        assert (verdict.status, verdict.fault) == (Status.FAULTY, Fault.BOT_NOT_RUNNING)
        assert "it was killed by signal 9" in verdict.sentence
        here.found.desk(Actor.ROUND).round()
        verdict = here.found.verdict()
        assert verdict.status is Status.HEALTHY
        assert verdict.pid not in (None, first)
        assert overlaps(here.lab.stamps()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_restarts_at_once_are_one_restart(tmp_path: Path, kind: str) -> None:
    with place(tmp_path / "home", KINDS[kind]) as here:
        here.found.edit("bot-not-running", r"within: \w+}", "within: 30s}")
        os.kill(here.up(), signal.SIGKILL)
        wait_for(lambda: not here.found.verdict().up)
        here.one_of_all_restarts()


@pytest.mark.parametrize("seed", range(3))
def test_whenever_botkeep_is_killed_the_next_restart_has_one_bot(tmp_path: Path, seed: int) -> None:
    with place(tmp_path / "home", KINDS["docker"]) as here:
        here.up()
        here.kill_callers(seed, times=6, within=2.5)


def test_a_container_made_like_the_bots_is_a_copy_of_it_and_one_with_other_words_or_variables_is_another_bot(
    made: Containers,
) -> None:
    target = made.docker_bot("--graceful")
    words = made.command("--graceful")
    name = {"NAMED": target.config.container}
    copy = made.make(f"{made.prefix}-again", words, environment=name)
    own = [f"{made.lab.home}:/of-its-own"]
    others = [
        made.make(f"{made.prefix}-5m", words, environment={**name, "TIMEFRAME": "5m"}),
        made.make(f"{made.prefix}-eth", [*words, "--popen"], environment=name),
        made.make(f"{made.prefix}-own", words, environment=name, host={"binds": own}),
    ]
    first = start(target)
    for one in others:
        made.client.start(one)
    assert [one.key for one in look(target).instances] == [first.key]
    made.client.start(copy)
    pids = {first.pid, made.pid(copy)}
    assert {one.pid for one in look(target).instances} == pids
    (surveyed,) = runtime(target).survey([target], ProcessTable.read()).values()
    assert {one.pid for one in surveyed.instances} == pids
    with pytest.raises(EngineError, match="still alive"):
        start(target)
    assert stop(target).left == ()
    assert {made.inspect(one)["State"]["Status"] for one in others} == {"running"}
    assert made.inspect(copy)["State"]["Status"] == "exited"
    assert [one.key != first.key for one in (start(target),)] == [True]


def test_two_containers_of_one_service_are_a_duplicate_and_the_older_one_is_left(tmp_path: Path) -> None:
    with place(tmp_path / "home", KINDS["compose"]) as here:
        here.up()
        here.made.compose("up", "-d", "--no-recreate", "--scale", "bot=2")
        wait_for(lambda: len(look(here.target).instances) == 2)
        verdict = here.found.verdict()
        assert verdict.fault is Fault.BOT_DUPLICATED
        here.found.desk(Actor.ROUND).round()
        states = {
            one["Labels"]["com.docker.compose.container-number"]: one["State"] for one in here.made.service_containers()
        }
        assert states == {"1": "running", "2": "exited"}
        assert here.found.verdict().status is Status.HEALTHY


def test_a_service_that_compose_made_anew_is_the_bot_and_an_edited_file_is_a_note(tmp_path: Path) -> None:
    with place(tmp_path / "home", KINDS["compose"]) as here:
        first = here.up()
        assert look(here.target).notes == ()
        here.made.write_compose(here.made.command("--say=anew"))
        at = time.time() + 60
        os.utime(here.lab.home / "compose.yml", (at, at))
        (note,) = look(here.target).notes
        assert note.startswith("compose.yml was edited at")
        assert "`docker compose up -d` makes it anew" in note
        os.utime(here.lab.home / "compose.yml")
        here.made.compose("up", "-d")
        (one,) = look(here.target).instances
        assert one.pid != first
        assert look(here.target).notes == ()
        assert here.found.verdict().status is Status.HEALTHY
        assert overlaps(here.lab.stamps()) == []


def test_an_engine_that_is_away_makes_its_bot_unknown_and_is_not_acted_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with place(home, KINDS["docker"]) as here:
        first = here.up()
        away = here.target.config.model_copy(update={"host": f"unix://{tmp_path}/p"}).model_dump(exclude_none=True)
        near = here.target.config.model_dump(exclude_none=True)
        other = {"kind": "docker", "container": shell(here.made, "sleep 1000", name="near").config.container}
        bots = [{"name": "doge", "runtime": away}, {"name": "near", "runtime": {**near, **other}}]
        (home / "config/bots.json").write_text(json.dumps({"bots": bots}))
        here.made.client.start(other["container"])
        proxy = Proxy.at(here.made.host, tmp_path / "p")
        statuses = {one.bot: one.status for one in here.found.desk().check([]).verdicts}
        assert statuses == {"doge": Status.HEALTHY, "near": Status.HEALTHY}
        proxy.close()
        docker_transport.hang_up()
        verdicts = {one.bot: one for one in here.found.desk().check([]).verdicts}
        assert verdicts["doge"].status is Status.UNKNOWN
        assert "Docker cannot be reached at unix://" in verdicts["doge"].sentence
        assert verdicts["near"].status is Status.HEALTHY
        here.found.desk(Actor.ROUND).round()
        assert here.lab.pids("bot") == {first}
        with Proxy.at(here.made.host, tmp_path / "p"):
            assert here.found.verdict("doge").status is Status.HEALTHY
            assert here.found.verdict("doge").pid == first
        docker_transport.hang_up()
        (home / "config/bots.json").write_text(json.dumps({"bots": [{"name": "doge", "runtime": near}]}))


def test_memory_is_raised_step_by_step_and_never_above_the_most_that_is_allowed(tmp_path: Path) -> None:
    limits = {"limits": {"memory": {"most": "40MiB", "step": 1.5}}}
    with place(
        tmp_path / "home", lambda made: shell(made, "sleep 1000", host={"mem_limit": 20 << 20}), **limits
    ) as here:
        bench = here.found.desk(Actor.ROUND).bench()
        bot = bench.fleet.get("doge").bot
        assert bot is not None
        case = open_case(bench, bot, Action.RESTART, "out of memory")
        mib = 1 << 20
        assert (
            raise_limit(case)
            == f"its memory limit was raised from 21 MB ({20 * mib} bytes) to 31 MB ({30 * mib} bytes)"
        )
        assert f"to 42 MB ({40 * mib} bytes)" in str(raise_limit(case))
        assert raise_limit(case) == f"its memory limit stays at 42 MB ({40 * mib} bytes): `limits` allow at most 42 MB"
        assert docker_control.memory_of(here.target.config) == 40 * mib
        here.made.remove(here.target.config.container)
        assert "could not be raised: There is no container" in str(raise_limit(case))
        plain = bot.model_copy(update={"limits": type(bot.limits)()})
        assert raise_limit(replace(case, bot=plain)) is None
        here.made.make(here.target.config.container, ["sleep", "1000"], image=BUSYBOX)
        assert raise_limit(case) is None


# ---------------------------------------------------------------------------------------------------- far away


def certificate(folder: Path, name: str, ca: str | None = None) -> None:
    """NAME.pem and NAME.key; signed by `ca`, or by itself."""
    config = folder / f"{name}.cnf"
    usage = "CA:TRUE" if ca is None else "CA:FALSE"
    config.write_text(f"subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,{usage}\n")
    key, request = folder / f"{name}.key", folder / f"{name}.csr"
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}"]
    subprocess.run(new, check=True, capture_output=True)
    signer = (
        ["-CA", folder / f"{ca}.pem", "-CAkey", folder / f"{ca}.key", "-CAcreateserial"] if ca else ["-signkey", key]
    )
    sign = ["openssl", "x509", "-req", "-in", request, "-days", "2", "-extfile", config, *signer]
    subprocess.run([*sign, "-out", folder / f"{name}.pem"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name, ca in (("ca", None), ("engine", "ca"), ("ours", "ca"), ("stranger", None)):
        certificate(folder, name, ca)
    return folder


def test_over_tls_both_sides_prove_who_they_are(made: Containers, certificates: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "engine.pem", certificates / "engine.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    near = made.docker_bot("--graceful")

    def far(**files: str) -> Target:
        tls = {key: f"{certificates}/{name}" for key, name in files.items()}
        return made.docker_target(near.config.container, host=f"tcp://127.0.0.1:{proxy.port}", tls=tls)

    with Proxy.over_tls(made.host, context) as proxy:
        good = far(ca="ca.pem", cert="ours.pem", key="ours.key")
        one = start(good)
        assert one.pid is None  # what another machine calls its processes means nothing here
        assert (one.members, one.ours, one.kept_by) == ((), True, "docker")
        wait_for(lambda: made.lab.stamps())
        with pytest.raises(EngineError, match=r"certificate verify failed|CERTIFICATE_VERIFY_FAILED"):
            look(far(ca="stranger.pem", cert="ours.pem", key="ours.key"))
        with pytest.raises(EngineError, match=r"Docker (cannot be reached at|at) tcp://127.0.0.1:\d+"):
            look(far(ca="ca.pem"))
        with pytest.raises(EngineError, match=r"cannot be reached.*No such file"):
            look(far(ca="gone.pem", cert="ours.pem", key="ours.key"))
        assert [seen.key for seen in look(good).instances] == [one.key]
        stopped = stop(good)
        assert (stopped.left, stopped.killed) == ((), False)
        assert not made.lab.bots()
        assert ended(good).code == 0


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Starts a real sshd whose users find the engine behind `docker system dial-stdio`; gives its port."""
    program = "/usr/sbin/sshd"
    if not os.access(program, os.X_OK):
        pytest.skip("sshd is not installed (openssh-server)")
    running: list[subprocess.Popen[bytes]] = []

    def run(engine: str) -> int:
        for name in ("host", "user"):
            generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / f"{name}_key"]
            subprocess.run(generate, check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        os.makedirs("/run/sshd", exist_ok=True)
        options = {
            "HostKey": tmp_path / "host_key",
            "AuthorizedKeysFile": tmp_path / "user_key.pub",
            "StrictModes": "no",
            "UsePAM": "no",
            "PidFile": "none",
            "SetEnv": f"DOCKER_HOST={engine}",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        running.append(
            subprocess.Popen(
                [program, "-D", "-e", "-f", "/dev/null", "-o", f"ListenAddress=127.0.0.1:{port}", *words],
                stderr=subprocess.DEVNULL,
            )
        )
        wait_for(lambda: _listens(port))
        return port

    yield run
    for process in running:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_over_ssh_the_machines_own_keys_and_known_hosts_are_used(
    made: Containers, sshd: Callable[[str], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = sshd(made.host)
    near = made.docker_bot("--graceful", "--say=heard over ssh")
    far = made.docker_target(near.config.container, host=f"ssh://root@127.0.0.1:{port}")
    folder = tmp_path / "bin"
    folder.mkdir()
    options = f"-o UserKnownHostsFile={tmp_path}/known -o IdentitiesOnly=yes -i {tmp_path}/user_key -F none"
    (folder / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh {options} "$@"\n')
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    with pytest.raises(EngineError, match="ssh says: Host key verification failed"):
        look(far)
    key = (tmp_path / "host_key.pub").read_text()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {key}")
    one = start(far)
    assert one.pid is None
    wait_for(lambda: heard(far) == b"heard over ssh\n")
    look_from_outside = made.lab.caller("look", far)
    assert json.loads(look_from_outside.communicate(timeout=DEADLINE)[0])["exit"] is None
    assert stop(far).left == ()
    assert ended(far).code == 0
    docker_transport.hang_up()
    wait_for(
        lambda: not [one for one in ProcessTable.read().procs.values() if one.comm == "ssh" and str(port) in one.argv]
    )


def test_an_ssh_host_that_is_not_there_is_that_bots_error(made: Containers) -> None:
    target = made.docker_target("bot", host="ssh://nobody@127.0.0.1:1")
    with pytest.raises(EngineError, match=r"cannot be reached at ssh://127.0.0.1:1: ssh says: .*Connection refused"):
        look(target)


# ---------------------------------------------------------------------------------------------------- a duplicate run


def test_a_bot_that_runs_for_long_keeps_its_identity_from_look_to_look(made: Containers) -> None:
    target = made.docker_bot()
    one = start(target)
    keys = {look(target).instances[0].key for _ in range(5)} | {listed(target).instances[0].key for _ in range(5)}
    assert keys == {one.key}
    began = look(target).instances[0].started_at
    assert began is not None
    assert utc_now() - began < timedelta(minutes=2)
