"""Bots that are services of a real swarm: what it restarts, what it cannot, copies, output, botkeep killed at work."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from botkeep.config import load_fleet
from botkeep.model import Actor, EngineError, Fault, Instance, InstanceState, RuntimeLook, Status
from botkeep.runtimes import RUNTIMES, Target, docker_transport, swarm_control
from botkeep.runtimes.procs import ProcessTable
from botkeep.swarm_stack import written
from support.bots import DEADLINE, Lab, overlaps, pid_of, wait_for
from support.docker_engine import BUSYBOX
from support.docker_proxy import Proxy
from support.engine_bot import Place, ended, look, start
from support.fleet import fleet
from support.swarm_rig import SECOND, SwarmServices, image_with_shell

SWARM = RUNTIMES["swarm"]
AT_ONCE = {"Condition": "any", "Delay": 0}
SOON = {"Condition": "any", "Delay": SECOND}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[SwarmServices]:
    with Lab(tmp_path) as lab:
        services = SwarmServices(lab)
        yield services
        services.close()
    docker_transport.hang_up()


def stop(target: Target, grace: float = 2.0) -> Any:
    return SWARM.stop(target, grace + 3.5, time.monotonic() + DEADLINE)


def shell(made: SwarmServices, text: str, name: str = "doge", **more: Any) -> Target:
    """A service that runs a line of shell."""
    return made.bot(name=name, command=["sh", "-c", text], image=BUSYBOX, **more)


def another(target: Target, than: str) -> Instance:
    """The instance that has a process and is not that one."""
    return wait_for(lambda: next((one for one in look(target).instances if one.key != than and one.pid), None))


# ---------------------------------------------------------------------------------------------------- states


def test_a_killed_task_is_starting_until_the_swarm_has_replaced_it_and_never_down(made: SwarmServices) -> None:
    target = made.bot(policy={"Condition": "any", "Delay": 2 * SECOND})
    first = start(target)
    os.kill(pid_of(first), signal.SIGKILL)
    seen: list[RuntimeLook] = []

    def replaced() -> bool:
        seen.append(look(target))
        (one,) = seen[-1].instances
        return one.key != first.key and one.pid is not None and one.state is InstanceState.RUNNING

    wait_for(replaced)
    assert {one.instances[0].state for one in seen} >= {InstanceState.STARTING, InstanceState.RUNNING}
    last = seen[-1]
    assert (len(last.starts), last.instances[0].ours, last.giving_up) == (1, False, "")
    assert last.exit is not None
    assert (last.exit.key, last.exit.signal, last.exit.out_of_memory) == (first.key, signal.SIGKILL, False)


def test_what_a_person_replaces_is_no_restart_of_the_swarms_own(made: SwarmServices) -> None:
    target = made.bot("--graceful", policy=AT_ONCE)
    first = start(target)

    def anew(spec: dict[str, Any]) -> None:
        spec["TaskTemplate"]["ForceUpdate"] = 1

    made.update(target, anew)
    counts = []

    def replaced() -> bool:
        seen = look(target)
        counts.append(len(seen.instances))
        return seen.instances[0].key != first.key and seen.instances[0].pid is not None

    wait_for(replaced)
    assert set(counts) == {1}
    assert look(target).starts == ()


def test_a_service_that_was_scaled_to_none_does_not_run_and_the_note_says_who_did_not_do_it(
    made: SwarmServices,
) -> None:
    target = made.bot("--graceful")
    start(target)
    made.scale(target, 0)
    wait_for(lambda: not look(target).instances)
    (note,) = look(target).notes
    assert note.startswith("Its service is scaled to 0, and botkeep did not do that: `botkeep stop doge`")
    start(target)
    assert stop(target).left == ()
    assert look(target).notes == ()


def test_a_task_that_the_kernel_ended_for_lack_of_memory_says_so(made: SwarmServices) -> None:
    limits = {"Resources": {"Limits": {"MemoryBytes": 16 << 20}}}
    target = shell(made, "x=a; while true; do x=$x$x; done", template=limits)
    SWARM.start(target, "e1", time.monotonic() + DEADLINE)
    seen = ended(target)
    assert (seen.signal, seen.out_of_memory) == (signal.SIGKILL, True)
    assert swarm_control.memory_of(target.config) == 16 << 20
    assert stop(target).left == ()
    assert swarm_control.set_memory(target.config, 24 << 20) == 16 << 20
    spec = made.service(target)["Spec"]
    assert spec["TaskTemplate"]["Resources"]["Limits"]["MemoryBytes"] == 24 << 20


def test_a_paused_task_is_frozen_and_ends_as_asked(made: SwarmServices) -> None:
    target = made.bot("--graceful")
    pid = pid_of(start(target))
    wait_for(lambda: made.lab.trading(pid))
    made.client.pause(made.container(target))
    one = look(target).instances[0]
    assert one.state is InstanceState.FROZEN
    assert "`docker unpause " in one.why_frozen
    stopped = stop(target, grace=20)
    assert (stopped.left, stopped.killed) == ((), False)
    assert ended(target).code == 0


def test_a_task_that_has_not_proven_its_health_is_starting_and_has_its_process(made: SwarmServices) -> None:
    check = {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 4 * SECOND}}
    target = shell(made, "sleep 1000", container=check)
    one = start(target)
    assert (one.state, one.pid is None) == (InstanceState.STARTING, False)
    wait_for(lambda: look(target).instances[0].state is InstanceState.RUNNING)
    healthy = look(target)
    assert healthy.instances[0].key == one.key
    assert healthy.health is not None
    assert healthy.health.ok


def test_a_task_that_the_swarm_ended_for_its_health_says_so(made: SwarmServices) -> None:
    test = ["CMD-SHELL", "cat sound"]
    check = {"Healthcheck": {"Test": test, "Interval": SECOND, "Retries": 1, "StartPeriod": SECOND}}
    sound = made.lab.home / "sound"
    sound.touch()
    target = shell(made, "exec sleep 1000", container={**check, "StopGracePeriod": SECOND}, policy=SOON)
    start(target)
    wait_for(lambda: (seen := look(target)).health and seen.health.ok)
    sound.unlink()
    note = wait_for(lambda: next(iter(look(target).notes), ""))
    assert re.fullmatch(r"The swarm ended it at \S+ \S+Z, since its health check failed, and replaced it\.", note)


# ---------------------------------------------------------------------------------------------------- why not


def test_an_image_that_is_missing_is_named(made: SwarmServices) -> None:
    target = made.bot(command=["bot"], image="botkeep-no-such-image:1")
    started = SWARM.start(target, "e1", time.monotonic() + DEADLINE)
    assert started.instance is None
    assert started.exit is not None
    assert started.exit.failed_to_start == "No such image: botkeep-no-such-image:1"
    assert look(target).exit == started.exit


def test_a_service_that_has_no_place_says_why_and_is_not_started_again(made: SwarmServices) -> None:
    target = made.bot(template={"Placement": {"Constraints": ["node.labels.bots==yes"]}})
    started = SWARM.start(target, "e1", time.monotonic() + DEADLINE)
    why = "the swarm has no place for it: no suitable node (scheduling constraints not satisfied on 1 node)"
    assert started.instance is None
    assert started.exit is not None
    assert started.exit.failed_to_start == why
    seen = look(target)
    assert (seen.instances, seen.giving_up) == ((), why)
    version = made.service(target)["Version"]
    SWARM.start(target, "e2", time.monotonic() + DEADLINE)
    assert made.service(target)["Version"] == version
    stop(target)
    assert not look(target).instances
    assert look(target).giving_up == ""
    assert made.service(target)["Spec"]["Mode"]["Replicated"]["Replicas"] == 0


def test_restarts_that_are_used_up_are_given_up(made: SwarmServices) -> None:
    target = shell(made, "exit 4", policy={"Condition": "any", "Delay": 0, "MaxAttempts": 2})
    made.scale(target, 1)
    word = wait_for(lambda: look(target).giving_up)
    assert word == "the swarm has restarted it 2 times, which is all that its restart policy allows (exit code 4)"
    seen = look(target)
    assert (seen.instances, len(seen.starts)) == ((), 2)
    assert seen.exit is not None
    assert seen.exit.code == 4
    assert stop(target).left == ()
    assert made.service(target)["Spec"]["Mode"]["Replicated"]["Replicas"] == 0
    assert (ended(target), look(target).giving_up) == (seen.exit, "")


def test_a_loop_without_an_end_is_a_loop_and_can_be_stopped_and_started(made: SwarmServices) -> None:
    target = shell(made, "exit 5", policy=AT_ONCE)
    made.scale(target, 1)
    word = wait_for(lambda: look(target).giving_up)
    assert re.fullmatch(r"the swarm restarts it again and again, and it ended \d times at once \(exit code 5\)", word)
    assert stop(target).left == ()
    assert not look(target).instances
    assert made.service(target)["Spec"]["Mode"]["Replicated"]["Replicas"] == 0


def test_a_service_that_is_not_there_is_an_error_that_names_the_closest(made: SwarmServices) -> None:
    target = made.bot()
    with pytest.raises(EngineError, match=rf"There is no service \S+: did you mean {made.name()}\?"):
        look(made.target(f"{made.name()}x"))
    assert look(made.target(made.service(target)["ID"])).instances == ()


def test_a_service_of_every_node_is_a_note_and_cannot_be_started_or_stopped(made: SwarmServices) -> None:
    spec = made.spec(made.name(), made.command("--graceful"))
    spec["Mode"] = {"Global": {}}
    made.client.post(f"{made.client.base_url}/v{made.client.api_version}/services/create", json=spec)
    target = made.target(made.name())
    wait_for(lambda: look(target).instances and look(target).instances[0].pid)
    assert "a bot needs mode replicated" in look(target).notes[0]
    with pytest.raises(EngineError, match="is no replicated one"):
        stop(target)
    assert look(target).instances


def test_two_bots_of_one_service_are_both_told_so(made: SwarmServices) -> None:
    one = made.bot()
    two = made.target(made.service(one)["ID"], name="shib")
    found = SWARM.survey([one, two], ProcessTable.read())
    assert {seen.error for seen in found.values()} == {
        f"doge and shib both mean service {made.name()}; give each bot its own."
    }


# ---------------------------------------------------------------------------------------------------- never two


def test_a_start_right_after_somebody_scaled_it_down_gets_a_task(made: SwarmServices) -> None:
    target = made.bot("--graceful")
    for _ in range(3):
        start(target)
        made.scale(target, 0)
        wait_for(lambda: not look(target).instances)
    one = start(target)
    assert [seen.key for seen in look(target).instances] == [one.key]


def test_an_order_that_starts_first_is_a_note_and_is_mended_by_the_next_start(made: SwarmServices) -> None:
    target = made.bot("--graceful", UpdateConfig={"Order": "start-first"})
    assert "stop-first" in look(target).notes[0]
    start(target)
    assert made.service(target)["Spec"]["UpdateConfig"]["Order"] == "stop-first"
    assert look(target).notes == ()


def test_a_start_on_a_service_whose_only_task_ended_makes_one_more(made: SwarmServices) -> None:
    target = made.bot("--exit-after=0.2", "--exit-code=3")
    keys = []
    for _ in range(3):
        keys.append(start(target).key)
        assert ended(target).key == keys[-1]
    assert len(set(keys)) == 3
    assert made.service(target)["Spec"]["TaskTemplate"]["ForceUpdate"] == 2


def test_while_somebody_changes_the_service_all_the_time_start_and_stop_get_through(made: SwarmServices) -> None:
    target = made.bot("--graceful")
    over = threading.Event()

    def relabel() -> None:
        number = 0
        while not over.wait(0.05):
            number += 1
            made.update(target, lambda spec, value=str(number): spec["Labels"].update(number=value))

    person = threading.Thread(target=relabel)
    person.start()
    try:
        one = start(target)
        assert [seen.key for seen in look(target).instances] == [one.key]
        assert stop(target).left == ()
    finally:
        over.set()
        person.join()
    assert overlaps(made.lab.stamps()) == []


def test_a_plain_process_of_the_same_command_is_a_copy(made: SwarmServices) -> None:
    target = made.bot("--graceful")
    start(target)
    copy = made.lab.by_hand(*made.command("--graceful"))
    seen = wait_for(lambda: found if len((found := look(target)).instances) == 2 else None)
    assert [one.pid for one in seen.instances if not one.kept_by] == [copy]
    assert stop(target).left == ()
    assert not made.lab.bots()


@pytest.mark.parametrize("how", ["anew", "again"])
def test_a_container_that_somebody_started_beside_the_service_is_a_copy(made: SwarmServices, how: str) -> None:
    target = made.bot("--graceful", policy={"Condition": "none"})
    first = start(target)
    home, command = str(made.lab.home), made.command("--graceful")
    if how == "again":
        container = made.container(target)
        os.kill(pid_of(first), signal.SIGKILL)
        ended(target)
        start(target)
    else:
        host = made.client.create_host_config(binds=[f"{home}:{home}", "/proc:/machine/proc"], network_mode="none")
        spec = made.service(target)["Spec"]["TaskTemplate"]["ContainerSpec"]
        container = made.client.create_container(
            spec["Image"], command, working_dir=home, host_config=host, labels={"botkeep.test": made.lab.token},
            environment=spec["Env"],
        )["Id"]  # fmt: skip
    made.client.start(container)
    seen = wait_for(lambda: found if len((found := look(target)).instances) == 2 else None)
    assert all(one.pid for one in seen.instances)
    assert "the swarm knows nothing of it" in " ".join(seen.notes)
    assert stop(target).left == ()
    assert not made.lab.bots()
    assert not look(target).instances


# ---------------------------------------------------------------------------------------------------- output


def heard(target: Target) -> bytes:
    """What its copied output holds by now."""
    path = SWARM.log(target)
    return path.read_bytes() if path and path.exists() else b""


def test_what_each_run_of_a_loop_said_is_read_once_and_in_order(made: SwarmServices) -> None:
    count = "n=$(cat count 2>/dev/null || echo 0); n=$((n + 1)); echo $n > count"
    target = shell(made, f"{count}; echo run $n; sleep 0.3; echo end $n; exit 1", policy=AT_ONCE)
    made.scale(target, 1)
    wait_for(lambda: look(target) and b"run 6\n" in heard(target))
    made.scale(target, 0)
    ended(target)
    said = heard(target).decode().split("\n")
    assert said[:12] == [f"{word} {number}" for number in range(1, 7) for word in ("run", "end")]
    path = SWARM.log(target)
    assert path is not None
    assert path.read_bytes()[SWARM.run_offset(target) or 0 :].startswith(b"run ")


def test_the_last_words_after_a_stop_are_heard_before_the_container_is_removed(made: SwarmServices) -> None:
    text = "trap 'for n in 1 2 3; do echo closing $n; sleep 0.1; done; echo bye; exit 0' TERM; echo hello; "
    target = shell(made, f"{text} while :; do sleep 0.05; done")
    start(target)
    wait_for(lambda: heard(target) == b"hello\n")
    stopped = stop(target)
    assert (stopped.left, stopped.killed, ended(target).code) == ((), False, 0)
    assert heard(target) == b"hello\nclosing 1\nclosing 2\nclosing 3\nbye\n"
    start(target)
    wait_for(lambda: heard(target).endswith(b"bye\nhello\n"))


def test_no_line_is_lost_or_doubled_over_many_looks_and_a_stop(made: SwarmServices) -> None:
    target = made.bot("--talk=20", "--graceful")
    start(target)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        look(target)
        heard(target)
    stop(target)
    said = [int(line.split()[0]) for line in heard(target).splitlines()]
    assert len(said) > 1000
    assert said == list(range(1, said[-1] + 1))


# ---------------------------------------------------------------------------------------------------- questions


def test_a_look_at_many_services_is_one_set_of_questions(made: SwarmServices, tmp_path: Path) -> None:
    bots = [shell(made, "sleep 1000", name=f"b{number}") for number in range(4)]
    for one in bots:
        made.scale(one, 1)
    for one in bots:
        made.pid(one)
    with Proxy.at(made.host, tmp_path / "p") as proxy:
        config = {"host": f"unix://{tmp_path}/p", "stop_grace": 1}
        seen = [made.target(one.config.service, name=one.name, **config) for one in bots]
        looks = SWARM.survey(seen, ProcessTable.read())
        assert [(one.error, len(one.instances)) for one in looks.values()] == [(None, 1)] * 4
        for one in seen:
            SWARM.log(one)
        asked = [re.sub(r".*/v[\d.]+|\?.*", "", path) for path in proxy.asked if not path.endswith("_ping")]
        assert asked == ["/info", "/services", "/tasks", "/containers/json"]
    docker_transport.hang_up()


# ---------------------------------------------------------------------------------------------------- the whole way


@contextmanager
def place(home: Path, build: Callable[[SwarmServices], Target], **more: Any) -> Iterator[Place[SwarmServices]]:
    with fleet(home) as found, Lab(home) as lab:
        made = SwarmServices(lab)
        try:
            here = Place(made, found, build(made))
            here.write(**more)
            found.edit("bot-not-running", r"within: \w+}", "within: 30s}")
            found.edit("bot-hung", r"within: \w+}", "within: 30s}")
            found.edit("bot-duplicated", r"within: \w+}", "within: 30s}")
            yield here
            found.desk(Actor.PERSON).stop("doge", "the test is over")
        finally:
            made.close()
            docker_transport.hang_up()


def restarting(made: SwarmServices) -> Target:
    """A bot that the swarm restarts after a second."""
    return made.bot("--graceful", policy=SOON)


def plain(made: SwarmServices) -> Target:
    """A bot that the swarm does not restart."""
    return made.bot("--graceful")


def test_a_bot_whose_env_file_is_gone_is_started_since_the_swarm_has_its_keys(tmp_path: Path) -> None:
    def with_keys(made: SwarmServices) -> Target:
        target = plain(made)
        return replace(target, config=target.config.model_copy(update={"env_file": "gone.env"}))

    with place(tmp_path / "home", with_keys) as here:
        first = here.up()
        report = here.found.desk(Actor.PERSON).restart("doge", "its keys are the swarm's")
        assert report.ok, report.sentence
        assert report.pid != first
        told = [line.what for line in here.found.desk().doctor() if line.bot == "doge"]
        assert not [text for text in told if "env file" in text]


def test_what_the_swarm_restarts_botkeep_only_counts(tmp_path: Path) -> None:
    with place(tmp_path / "home", restarting) as here:
        first = here.up()
        assert here.found.verdict().status is Status.HEALTHY
        os.kill(first, signal.SIGKILL)
        statuses = []

        def replaced() -> bool:
            here.found.desk(Actor.ROUND).round()
            verdict = here.found.verdict()
            statuses.append(verdict.status)
            return verdict.pid not in (None, first)

        wait_for(replaced)
        here.found.verdict()
        assert set(statuses) == {Status.HEALTHY}
        journal = here.found.journal()
        assert journal.count("was restarted once by swarm itself") == 1, journal
        assert journal.count("· restart ·") == 1, journal
        assert len(here.lab.pids("bot")) == 2
        assert overlaps(here.lab.stamps()) == []


def test_a_bot_that_the_swarm_does_not_restart_is_started_by_one_round(tmp_path: Path) -> None:
    with place(tmp_path / "home", plain) as here:
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


def test_a_loop_that_the_swarm_calls_running_becomes_one_in_the_ledger(tmp_path: Path) -> None:
    with place(tmp_path / "home", lambda made: made.bot("--exit-after=2", "--exit-code=3", policy=AT_ONCE)) as here:
        here.found.edit("bot-crash-looping", r"restarts: \d+", "restarts: 2")
        here.found.verdict()
        here.made.scale(here.target, 1)

        def looping() -> Any:
            verdict = here.found.verdict()
            return verdict if verdict.fault is Fault.BOT_CRASH_LOOPING else None

        verdict = wait_for(looping)
        assert any("was restarted 2 times by its engine since" in one.text for one in verdict.evidence), verdict
        version = here.made.service(here.target)["Version"]
        here.found.desk(Actor.ROUND).round()
        assert here.made.service(here.target)["Version"] == version  # a person is asked first


def test_a_frozen_bot_is_hung_and_restarted_by_botkeep(tmp_path: Path) -> None:
    with place(tmp_path / "home", restarting) as here:
        first = here.up()
        os.kill(first, signal.SIGSTOP)
        verdict = here.found.verdict()
        assert (verdict.status, verdict.fault) == (Status.FAULTY, Fault.BOT_HUNG)
        here.found.desk(Actor.ROUND).round()
        verdict = here.found.verdict()
        assert verdict.status is Status.HEALTHY
        assert verdict.pid not in (None, first)
        assert here.lab.pids("bot") == {first, verdict.pid}
        assert overlaps(here.lab.stamps()) == []
        assert "by swarm itself" not in here.found.journal()


def test_a_service_scaled_to_two_is_a_duplicate_and_brought_back_to_one(tmp_path: Path) -> None:
    with place(tmp_path / "home", restarting) as here:
        here.up()
        here.made.scale(here.target, 2)
        wait_for(lambda: len(look(here.target).instances) == 2)
        verdict = here.found.verdict()
        assert verdict.fault is Fault.BOT_DUPLICATED
        assert "is to run 2 times" in " ".join(verdict.notes)
        here.found.desk(Actor.ROUND).round()
        assert here.found.verdict().status is Status.HEALTHY
        assert len(look(here.target).instances) == len(here.lab.bots()) == 1
        assert here.made.service(here.target)["Spec"]["Mode"]["Replicated"]["Replicas"] == 1


def test_twenty_restarts_at_once_are_one_restart(tmp_path: Path) -> None:
    with place(tmp_path / "home", plain) as here:
        os.kill(here.up(), signal.SIGKILL)
        wait_for(lambda: not here.found.verdict().up)
        here.one_of_all_restarts()


@pytest.mark.parametrize("seed", range(2))
def test_whenever_botkeep_is_killed_the_next_restart_has_one_bot(tmp_path: Path, seed: int) -> None:
    with place(tmp_path / "home", plain) as here:
        here.up()
        here.kill_callers(seed, times=5, within=7)


def test_a_manager_that_is_away_makes_its_bot_unknown_and_nothing_is_done(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with place(home, plain) as here:
        first = here.up()
        near = json.loads((home / "config/bots.json").read_text())
        away = json.loads(json.dumps(near))
        away["bots"][0]["runtime"]["host"] = f"unix://{tmp_path}/p"
        (home / "config/bots.json").write_text(json.dumps(away))
        verdict = here.found.verdict()
        assert verdict.status is Status.UNKNOWN
        assert "Docker cannot be reached at unix://" in verdict.sentence
        here.found.desk(Actor.ROUND).round()
        assert here.lab.pids("bot") == {first}
        with Proxy.at(here.made.host, tmp_path / "p"):
            assert here.found.verdict().pid == first
        docker_transport.hang_up()
        (home / "config/bots.json").write_text(json.dumps(near))


# ---------------------------------------------------------------------------------------------------- the stack


def docker(host: str, *words: str) -> str:
    """As a person at a manager; gives what it says."""
    done = subprocess.run(
        ["docker", *words], env={**os.environ, "DOCKER_HOST": host}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Stack:
    """A workspace whose stack is deployed; its waits are short."""

    home: Path
    name: str
    host: str
    lab: Lab
    asked: Any

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """By name in the file."""
        return {one["Spec"]["Name"].removeprefix(f"{self.name}_"): one for one in self.asked.services()}

    def pid(self, service: str) -> int:
        """Of the one that runs; 0 if none does."""
        found = self.asked.tasks(filters={"service": f"{self.name}_{service}"})
        return next(
            (one["Status"]["ContainerStatus"]["PID"] for one in found if one["Status"]["State"] == "running"), 0
        )


def shortened(document: dict[str, Any], more: Sequence[str]) -> dict[str, Any]:
    """With waits of seconds, a bot that knows its machine's pids, and a watcher whose botkeep is this checkout's."""
    services = document["services"]
    services["doge"]["healthcheck"].update(interval="1s", start_period="1s", retries=2)
    services["doge"]["deploy"]["restart_policy"]["delay"] = "0s"
    services["doge"]["volumes"].append({"type": "bind", "source": "/proc", "target": "/machine/proc"})
    watcher = services["watcher"]
    places = {path: os.path.realpath(path) for path in ("/usr", "/lib", "/lib64", *more)}
    watcher["volumes"] += [{"type": "bind", "source": here, "target": path} for path, here in places.items()]
    watcher["environment"] = {"PATH": f"{Path(sys.executable).parent}:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return document


@contextmanager
def deployed(home: Path) -> Iterator[Stack]:
    with fleet(home) as found, Lab(home) as lab:
        made = SwarmServices(lab)
        name = f"s{lab.token}"
        (home / ".env").write_text("API_KEY='k 1$x'\nAPI_SECRET=two\n")
        (home / ".env").chmod(0o600)
        lab.program("doge.py")
        runtime = {
            "kind": "swarm", "service": f"{name}_doge", "host": made.host, "stop_grace": 5, "env_file": ".env",
            "command": [*made.command("--graceful", "--ask-environment=environment", "--say=$HOME up")],
            "env": {"PYTHONPATH": str(home), "PRICE": "5$"},
        }  # fmt: skip
        bot = {"name": "doge", "runtime": runtime, "progress": {"file": "stamps.txt", "every": "10s"},
               "limits": {"memory": {"most": "512MiB"}}}  # fmt: skip
        (home / "config/bots.json").write_text(json.dumps({"bots": [bot]}))
        found.edit("bot-not-running", r"within: \w+}", "within: 30s}")
        made_of = written(load_fleet(found.workspace), image=image_with_shell())
        secrets = [one.partition(", once: ")[2] for one in made_of.notes if "wants the secret" in one]
        document = shortened(
            yaml.safe_load(made_of.text), [str(Path(__file__).parents[2]), sys.prefix, sys.base_prefix]
        )
        (home / "stack.yml").write_text(yaml.safe_dump(document))
        assert (made_of.stack, len(secrets)) == (name, 2)
        try:
            for one in secrets:
                subprocess.run(one, shell=True, check=True, env={**os.environ, "DOCKER_HOST": made.host})
            docker(made.host, "stack", "deploy", "--resolve-image", "never", "-c", str(home / "stack.yml"), name)
            yield Stack(home, name, made.host, lab, made.client)
        finally:
            for service in made.client.services(filters={"label": f"com.docker.stack.namespace={name}"}):
                made.remove(service["Spec"]["Name"])
            for secret in made.client.secrets():
                if secret["Spec"]["Name"].startswith("doge_"):
                    made.client.remove_secret(secret["ID"])
            docker_transport.hang_up()


def test_a_stack_is_deployed_and_its_watcher_and_its_health_checks_keep_the_bot_up(tmp_path: Path) -> None:
    with deployed(tmp_path / "home") as here:
        first = wait_for(lambda: here.pid("doge"))
        environment = wait_for(lambda: (here.home / "environment").exists() and (here.home / "environment").read_text())
        given = dict(pair.split("=", 1) for pair in environment.split("\0"))
        assert (given["API_KEY"], given["API_SECRET"], given["PRICE"]) == ("k 1$x", "two", "5$")
        text = (here.home / "stack.yml").read_text() + json.dumps(here.services["doge"])
        assert "k 1" not in text
        assert_safe(here.services["doge"])
        target = here.lab.target("doge", script="doge.py")
        config = RUNTIMES["swarm"].Config(kind="swarm", service=f"{here.name}_doge", host=here.host, stop_grace=5)
        target = replace(target, config=config)
        (one,) = look(target).instances
        assert (one.pid, look(target).notes) == (first, ())
        journal = here.home / "memory/bot-operations.md"
        # somebody scales it down: the watcher, alone, has it started again
        docker(here.host, "service", "scale", "--detach", f"{here.name}_doge=0")
        wait_for(lambda: not here.pid("doge"))
        second = wait_for(lambda: here.pid("doge"), 120)
        assert second != first
        wait_for(lambda: re.search(r"doge was (re)?started .*and is up", journal.read_text()), 60)
        # it stands still: its health check fails, and the swarm replaces it
        wait_for(lambda: look(target).instances and look(target).instances[0].state is InstanceState.RUNNING)
        os.kill(second, signal.SIGSTOP)
        long_ago = time.time() - 3600
        os.utime(here.home / "stamps.txt", (long_ago, long_ago))
        third = wait_for(lambda: (pid := here.pid("doge")) != second and pid, 120)
        assert {first, second, third} == here.lab.pids("bot")
        assert overlaps(here.lab.stamps()) == []


def assert_safe(service: dict[str, Any]) -> None:
    """What was measured to be safe, as the swarm itself has it."""
    spec = service["Spec"]
    template = spec["TaskTemplate"]
    assert spec["Mode"] == {"Replicated": {"Replicas": 1}}
    assert (spec["UpdateConfig"]["Order"], spec["RollbackConfig"]["Order"]) == ("stop-first", "stop-first")
    assert template["RestartPolicy"]["Condition"] == "on-failure"
    assert (template["RestartPolicy"]["MaxAttempts"], template["RestartPolicy"]["Window"]) == (5, 600 * SECOND)
    assert template["ContainerSpec"]["StopGracePeriod"] == 5 * SECOND
    assert template["Resources"]["Limits"]["MemoryBytes"] == 512 << 20
    assert {one["SecretName"] for one in template["ContainerSpec"]["Secrets"]} == {"doge_API_KEY", "doge_API_SECRET"}
    assert {one["File"]["Mode"] for one in template["ContainerSpec"]["Secrets"]} == {0o400}
