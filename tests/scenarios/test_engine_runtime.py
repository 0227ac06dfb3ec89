"""What all engines have in common, on real ones: each copy's own grace, who made a run, who inherited a variable, one
unit for one bot, restarts beside an engine's own, and an engine that is away."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from botkeep.cli import main
from botkeep.ledger import Kind
from botkeep.model import Action, Actor, EngineError, Fault, InstanceState, Result, Status
from botkeep.runtimes import Target, docker_transport
from botkeep.runtimes.find import lock_name, marker_value
from botkeep.runtimes.procs import MARKER, ProcessTable
from support.bots import DEADLINE, Lab, overlaps, pid_of, wait_for
from support.docker_engine import BUSYBOX
from support.docker_proxy import Proxy
from support.docker_rig import Containers
from support.engine_bot import look, runtime, start, stop
from support.fleet import Fleet, fleet
from support.supervisor import Programs, Supervisor


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    with Lab(tmp_path) as lab:
        made = Containers(lab)
        yield made
        made.close()
    docker_transport.hang_up()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    with Lab(tmp_path) as lab, Supervisor() as supervisor:
        yield Programs(lab, supervisor)


@dataclass
class Place:
    """A workspace with bots that engines run."""

    found: Fleet
    lab: Lab
    bots: list[dict[str, Any]]

    def write(self, **bots: Target) -> None:
        """bots.json with these."""
        self.bots = [
            {"name": name, "runtime": one.config.model_dump(exclude_none=True, exclude_defaults=True)}
            for name, one in bots.items()
        ]
        (self.lab.home / "config/bots.json").write_text(json.dumps({"bots": self.bots}))

    def statuses(self) -> dict[str, tuple[Status, str]]:
        return {one.bot: (one.status, one.sentence) for one in self.found.desk().check([]).verdicts}

    def person(self) -> Any:
        return self.found.desk(Actor.PERSON)


@contextmanager
def in_containers(home: Path) -> Iterator[tuple[Place, Containers]]:
    with fleet(home) as found, Lab(home) as lab:
        made = Containers(lab)
        try:
            yield Place(found, lab, []), made
        finally:
            made.close()
            docker_transport.hang_up()


@contextmanager
def under_supervisord(home: Path, **more: Any) -> Iterator[tuple[Place, Programs]]:
    with fleet(home) as found, Lab(home) as lab, Supervisor(**more) as supervisor:
        yield Place(found, lab, []), Programs(lab, supervisor)


# ---------------------------------------------------------------------------------------------------- its own grace

SLOW = """
if [ "$1$SUPERVISOR_ENABLED" = unit ] || [ "$SUPERVISOR_ENABLED" ]; then trap '' TERM; else
trap 'n=$((n+1)); sleep 4; echo $n > saved; exit' TERM; fi
while :; do sleep 0.1; done
"""
"""As the engine's unit it ends only by force; as a copy by hand it takes four seconds to save, if it is not hurried."""


def test_a_copy_beside_a_program_that_uses_up_the_grace_has_all_of_it(programs: Programs) -> None:
    (programs.lab.home / "slow.sh").write_text(SLOW)
    target = programs.bot(command=["/bin/sh", "slow.sh"], stopwaitsecs=60)
    copy = programs.copy_of(target)
    programs.supervisor.start("doge")
    wait_for(lambda: {one.pid for one in look(target).instances} == {copy, programs.supervisor.process("doge")})
    stopped = stop(target, grace=5)
    assert (stopped.left, stopped.killed) == ((), True)
    assert (programs.lab.home / "saved").read_text() == "1\n"
    assert not programs.lab.bots()


def test_a_copy_beside_a_container_that_uses_up_the_grace_has_all_of_it(containers: Containers) -> None:
    lab, script = containers.lab, f"slow{containers.lab.token}.sh"
    (lab.home / script).write_text(SLOW)
    made = containers.docker_bot(command=["sh", script, "unit"], image=BUSYBOX, host={"pid_mode": ""})
    target = replace(made, process_name=script)
    start(target)
    copy = lab.by_hand("/bin/sh", script)
    wait_for(lambda: copy in {one.pid for one in look(target).instances})
    began = time.monotonic()
    stopped = stop(target, grace=5)
    assert (stopped.left, stopped.killed) == ((), True)
    assert (lab.home / "saved").read_text() == "1\n"
    assert time.monotonic() - began < 9


# ---------------------------------------------------------------------------------------------------- its log


def test_the_log_of_a_bot_that_moves_between_runtimes_keeps_what_each_of_them_wrote(containers: Containers) -> None:
    lab = containers.lab
    inside = containers.docker_bot("--say=in a container", "--exit-after=0")
    outside = lab.target("doge", "--say=as a plain process", "--exit-after=0")

    def run(target: Target, said: bytes) -> None:
        runtime(target).start(target, "e1", time.monotonic() + DEADLINE)
        wait_for(lambda: not look(target).instances and runtime(target).log(target).read_bytes() == said)

    run(inside, b"in a container\n")
    run(outside, b"in a container\nas a plain process\n")
    run(inside, b"in a container\nas a plain process\nin a container\n")
    run(outside, b"in a container\nas a plain process\nin a container\nas a plain process\n")
    assert inside.log_path == outside.log_path


# ---------------------------------------------------------------------------------------------------- who made a run


def killed_before_it_was_bound(target: Target, ago: float) -> None:
    """What a caller leaves that was killed when the engine had its order, so many seconds ago."""
    path = target.run_dir / "engine.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "run": None, "own": [], "at": kept["at"] - ago}))


@pytest.mark.parametrize(("ago", "ours"), [(0.0, True), (120.0, False)])
def test_a_run_is_taken_for_that_of_a_killed_start_only_if_it_began_with_it(
    programs: Programs, ago: float, ours: bool
) -> None:
    target = programs.bot()
    one = start(target)
    killed_before_it_was_bound(target, ago)
    (seen,) = look(target).instances
    assert (seen.key, seen.ours, seen.entry) == (one.key, ours, "e1" if ours else None)


def test_a_run_that_the_engine_made_by_itself_is_nobodys_start(containers: Containers) -> None:
    target = containers.docker_bot(host={"restart_policy": {"Name": "always"}})
    first = start(target)
    killed_before_it_was_bound(target, 0.0)
    assert look(target).instances[0].ours
    os.kill(pid_of(first), signal.SIGKILL)
    second = wait_for(lambda: next((one for one in look(target).instances if one.key != first.key and one.pid), None))
    assert (second.ours, second.entry) == (False, None)


# ---------------------------------------------------------------------------------------------------- by a person


def test_a_person_who_restarts_a_container_again_and_again_makes_no_loop_and_its_engine_does(tmp_path: Path) -> None:
    with in_containers(tmp_path / "home") as (place, made):
        target = made.docker_bot("--graceful", host={"restart_policy": {"Name": "always"}})
        place.write(doge=target)
        made.start_by_hand(target)
        for _ in range(6):
            assert place.statuses()["doge"][0] is Status.HEALTHY
            made.client.restart(target.config.container, timeout=5)
        assert place.statuses()["doge"][0] is Status.HEALTHY
        assert not [one for one in place.found.desk().ledger.entries(bot="doge") if one.actor == Actor.ENGINE.value]
        for number in range(1, 6):
            os.kill(made.pid(target.config.container), signal.SIGKILL)
            wait_for(lambda number=number: made.inspect(target.config.container)["RestartCount"] >= number)
            wait_for(lambda: made.inspect(target.config.container)["State"]["Status"] == "running")
            place.statuses()
        assert place.found.verdict().fault is Fault.BOT_CRASH_LOOPING


def test_a_person_who_restarts_a_program_again_and_again_makes_no_loop_and_supervisord_does(tmp_path: Path) -> None:
    with under_supervisord(tmp_path / "home") as (place, made):
        target = made.bot("--graceful", autorestart="true")
        place.write(doge=target)
        rpc = made.supervisor.rpc
        made.supervisor.start("doge")
        for _ in range(6):
            assert place.statuses()["doge"][0] is Status.HEALTHY
            rpc.stopProcess("doge")
            rpc.startProcess("doge")
        assert place.statuses()["doge"][0] is Status.HEALTHY
        assert not [one for one in place.found.desk().ledger.entries(bot="doge") if one.actor == Actor.ENGINE.value]
        for _ in range(5):
            pid = made.supervisor.process("doge")
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: made.supervisor.process("doge") not in (0, pid))
            place.statuses()
        assert place.found.verdict().fault is Fault.BOT_CRASH_LOOPING


# ---------------------------------------------------------------------------------------------------- an engine away


def test_a_stop_that_nobody_can_carry_out_is_one_line_and_stands_in_the_ledger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_containers(tmp_path / "home") as (place, made):
        near = made.docker_bot("--graceful")
        far = replace(near, config=near.config.model_copy(update={"host": f"unix://{tmp_path}/p"}))
        place.write(doge=far)
        with Proxy.at(made.host, tmp_path / "p"):
            assert place.person().start("doge", "first start").ok
        docker_transport.hang_up()
        owed = place.person()
        now = owed.clock()
        owed.journal.record(Kind.INTENT, at=now, bot="doge", action="restart", actor="person", sentence="it was killed")
        assert main(["stop", "doge", "--reason", "it must end", "--home", str(place.lab.home)]) == 1
        said = capsys.readouterr()
        assert "doge could not be stopped: Docker cannot be reached at unix://" in said.out + said.err
        assert "Traceback" not in said.err
        newest = place.found.desk().ledger.entries(bot="doge", limit=1, newest_first=True)[0]
        assert (newest.kind, newest.action, newest.result) == (Kind.OUTCOME, Action.STOP.value, Result.FAILED.value)
        place.write(doge=near)
        assert place.person().stop("doge", "the engine is back").ok
        assert not place.lab.bots()
        assert place.found.desk().ledger.open_intents("doge") == []


# ---------------------------------------------------------------------------------------------------- words


def test_a_paused_container_is_said_to_be_paused_and_what_lets_it_go_on(tmp_path: Path) -> None:
    with in_containers(tmp_path / "home") as (place, made):
        target = made.docker_bot("--graceful")
        place.write(doge=target)
        pid = place.person().start("doge", "first start").pid
        made.client.pause(target.config.container)
        verdict = place.found.verdict()
        assert verdict.fault is Fault.BOT_HUNG
        assert "its container is paused (somebody ran `docker pause`)" in verdict.sentence
        assert f"`docker unpause {target.config.container}` lets it go on" in verdict.sentence
        made.client.unpause(target.config.container)
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: look(target).instances[0].state is InstanceState.FROZEN)
        assert f"pid {pid} is stopped by a signal" in place.found.verdict().sentence
        os.kill(pid, signal.SIGCONT)


def test_doctor_says_of_no_adopted_container_that_nobody_will_know_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_containers(tmp_path / "home") as (place, made):
        target = made.docker_bot("--graceful", environment={"API_KEY": "k"})
        place.write(doge=target)
        made.start_by_hand(target)
        main(["doctor", "--home", str(place.lab.home)])
        said = capsys.readouterr().out
        assert "doge" in said
        assert "how it ends will not be known" not in said
        assert "that a start by botkeep would not give it" not in said


def test_what_can_be_started_only_once_is_not_stopped_for_a_restart(tmp_path: Path) -> None:
    with in_containers(tmp_path / "home") as (place, made):
        target = made.docker_bot("--graceful", host={"auto_remove": True})
        place.write(doge=target)
        pid = place.person().start("doge", "first start").pid
        for override in (None, "I insist"):
            report = place.person().restart("doge", "by hand", override=override)
            assert (report.result, report.until) == (Result.REFUSED, "a person has made it anew without that")
            assert f"container {target.config.container} was made with --rm" in report.sentence
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: look(target).instances[0].state is InstanceState.FROZEN)
        (told,) = place.found.desk(Actor.ROUND).round().actions
        assert told.result is Result.REFUSED
        os.kill(pid, signal.SIGCONT)
        assert [one.pid for one in look(target).instances] == [pid]
        assert place.person().stop("doge", "that is always allowed").ok


def test_a_bot_that_a_person_stopped_in_itself_is_left_so_and_the_way_out_is_said(tmp_path: Path) -> None:
    """freqtrade's `/stop`: its engine would start it as it is configured, unless that says that it comes up stopped."""
    with in_containers(tmp_path / "home") as (place, made):
        target = made.docker_bot("--graceful")
        place.write(doge=target)
        place.bots[0]["profile"] = "freqtrade"
        (place.lab.home / "config/bots.json").write_text(json.dumps({"bots": place.bots}))
        first = place.person().start("doge", "first start")
        desk = place.person()
        desk.ledger.set_cursor("doge", "left", {"state": "stopped"})
        report = desk.restart("doge", "by hand")
        assert report.result is Result.REFUSED
        assert report.sentence == (
            "doge was left as it is: a person told it not to trade, and docker would start it as it is configured, so "
            "that it does."
        )
        assert report.until == (
            "a person lets it trade again in the bot itself, or uses --override REASON, or has docker give it "
            "FREQTRADE__INITIAL_STATE=stopped and make it anew"
        )
        assert [one.pid for one in look(target).instances] == [first.pid]
        made.docker_given(target, ["--graceful"], {"FREQTRADE__INITIAL_STATE": "stopped"})
        pid = made.start_by_hand(target)
        report = desk.restart("doge", "by hand")
        assert report.result is not Result.REFUSED, report.sentence
        assert look(target).instances[0].pid not in (None, pid)


# ---------------------------------------------------------------------------------------------------- one unit, one bot


def refused_for_both(place: Place, words: str) -> None:
    """Looked at together or alone, restarted by a person or a round: neither is acted on."""
    alive = set(place.lab.bots())
    assert place.statuses() == {name: (Status.UNKNOWN, f"{name} cannot be looked at: {words}") for name in ("a", "b")}
    for name in ("a", "b"):
        assert place.found.verdict(name).status is Status.UNKNOWN
        report = place.person().restart(name, "by hand", override="I insist")
        assert report.result is Result.REFUSED
        assert words in report.sentence
    place.found.desk(Actor.ROUND).round()
    assert set(place.lab.bots()) == alive


def test_two_bots_with_one_container_by_name_and_by_id_or_by_two_addresses_are_both_told_so(tmp_path: Path) -> None:
    with in_containers(tmp_path / "home") as (place, made), Proxy.at(made.host, tmp_path / "p"):
        target = made.docker_bot("--graceful")
        name, one = target.config.container, made.inspect(target.config.container)["Id"]
        made.start_by_hand(target)
        words = f"a and b both mean container {name}; give each bot its own."
        place.write(a=target, b=made.docker_target(one[:12], name="b"))
        refused_for_both(place, words)
        place.write(a=target, b=made.docker_target(one, name="b", host=f"unix://{tmp_path}/p"))
        refused_for_both(place, words)
        docker_transport.hang_up()


def test_a_container_and_the_service_that_it_is_of_are_one(tmp_path: Path) -> None:
    with in_containers(tmp_path / "home") as (place, made):
        service = made.compose_bot("--graceful")
        made.up_by_hand(service)
        (one,) = made.service_containers()
        name = one["Names"][0].lstrip("/")
        place.write(a=service, b=made.docker_target(name, name="b"))
        refused_for_both(place, f"a and b both mean container {name}; give each bot its own.")
        place.write(a=service)
        assert place.found.verdict("a").status is Status.HEALTHY


@pytest.mark.parametrize("runs", [True, False])
def test_one_program_of_a_supervisord_with_two_addresses_is_one(tmp_path: Path, runs: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with under_supervisord(tmp_path / "home", port=port) as (place, made):
        target = made.bot("--graceful")
        other = made.bot("other", "--graceful", name="other")
        if runs:
            made.supervisor.start("doge")
        place.write(a=target, b=made.target(server=f"http://127.0.0.1:{port}"), c=other)
        words = "a and b both mean program doge; give each bot its own."
        told = place.statuses()
        assert {name: told[name][0] for name in ("a", "b")} == dict.fromkeys("ab", Status.UNKNOWN)
        assert told["a"][1].endswith(words)
        assert told["c"][0] is Status.FAULTY
        report = place.person().restart("b", "by hand")
        assert report.result is Result.REFUSED
        assert place.person().start("c", "it is another").ok


def test_an_engines_bot_that_botkeep_itself_fails_over_is_that_bots_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An SDK that is broken in a way that nobody foresaw: what is in its place cannot even be loaded."""
    with under_supervisord(tmp_path / "home") as (place, made):
        target = made.bot("--graceful")
        place.write(doge=target, far=Containers.docker_target(_NoContainers(place.lab), "far", name="far"))
        made.supervisor.start("doge")
        broken = tmp_path / "broken/docker"
        broken.mkdir(parents=True)
        (broken / "__init__.py").write_text("raise RuntimeError('half an upgrade')\n")
        script = "import sys; from botkeep.cli import main; sys.exit(main(sys.argv[1:]))"
        done = subprocess.run(
            [sys.executable, "-c", script, "check", "--home", str(place.lab.home)],
            env={**os.environ, "PYTHONPATH": f"{broken.parent}:{place.lab.python_path}"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "far cannot be looked at: botkeep itself failed over it (RuntimeError: half an upgrade)" in _one_line(
            done.stdout
        ), done
        assert "doge runs since" in _one_line(done.stdout) or "1 healthy" in done.stdout, done
        assert "Traceback" not in done.stderr


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _NoContainers:
    """Names a container of an engine that nobody asks."""

    host = "unix:///nowhere/docker.sock"

    def __init__(self, lab: Lab) -> None:
        self.lab = lab


# ---------------------------------------------------------------------------------------------------- side by side

RESTARTS = 30


@pytest.mark.parametrize("kind", ["docker", "compose", "supervisord"])
def test_thirty_restarts_beside_an_engine_that_restarts_always_never_make_two(tmp_path: Path, kind: str) -> None:
    """Every other one comes just when the bot has died, and its engine is about to start it by itself."""
    chance, policy = random.Random(kind), {"restart_policy": {"Name": "always"}}
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(tmp_path))
        if kind == "supervisord":
            target = Programs(lab, stack.enter_context(Supervisor())).bot("--graceful", autorestart="true")
        else:
            made = Containers(lab)
            stack.callback(made.close)
            build = made.docker_bot if kind == "docker" else made.compose_bot
            more = {"host": policy} if kind == "docker" else {"restart": "always"}
            target = build("--graceful", **more)
        keys = []
        for number in range(RESTARTS):
            if number % 2:
                with suppress(ProcessLookupError):
                    os.kill(pid_of(look(target).instances[0]), signal.SIGKILL)
                time.sleep(chance.random() * 0.6)  # the moment between the death and its engine's start
            assert stop(target).left == ()
            assert not lab.bots()
            one = start(target)
            keys.append(one.key)
            assert [seen.key for seen in look(target).instances] == [one.key]
            wait_for(lambda one=one: lab.trading(pid_of(one)))
        assert len(set(keys)) == RESTARTS
        assert stop(target).left == ()
        assert overlaps(lab.stamps()) == []
        quiet = time.monotonic() + 2
        while time.monotonic() < quiet:
            assert not lab.bots()


# ---------------------------------------------------------------------------------------------------- who inherited


@pytest.fixture
def heirs() -> Iterator[Callable[..., int]]:
    """Starts what has a bot's variables, as a person or the bot itself does."""
    children: list[subprocess.Popen[bytes]] = []

    def begin(*argv: str, given: dict[str, str], **more: Any) -> int:
        child = subprocess.Popen(argv, env={"PATH": os.environ["PATH"], **given}, **more)
        children.append(child)
        return child.pid

    yield begin
    for child in children:
        child.kill()
        child.wait()


def with_marker(target: Target) -> dict[str, str]:
    """What every process has that botkeep started as this bot."""
    (target.run_dir / "run.lock").touch()
    return {MARKER: marker_value(str(lock_name(target)), target.name)}


def test_who_only_inherited_the_bots_marker_is_no_copy_and_lives_on(
    programs: Programs, heirs: Callable[..., int]
) -> None:
    target = programs.bot("--graceful")
    given = with_marker(target)
    tool = heirs("sleep", "1000", given=given, start_new_session=True)
    log = heirs("tail", "-f", "/dev/null", given=given)
    start(target)
    assert [one.kept_by for one in look(target).instances] == ["supervisord"]
    assert stop(target).left == ()
    start(target)
    assert [state_of(pid) for pid in (tool, log)] == ["S", "S"]


def test_who_has_the_marker_and_the_bots_lock_or_its_data_is_a_copy(
    programs: Programs, heirs: Callable[..., int]
) -> None:
    data = programs.lab.home / "trades.csv"
    target = replace(programs.bot("--graceful"), data_file=data)
    given = with_marker(target)
    with open(target.run_dir / "run.lock") as lock, open(data, "w") as file:
        holder = heirs("sleep", "1000", given=given, pass_fds=[lock.fileno()])
        writer = heirs("sleep", "1000", given=given, pass_fds=[file.fileno()])
    wait_for(lambda: {(one.pid, one.how) for one in look(target).instances} == {(holder, "marker"), (writer, "marker")})
    with pytest.raises(EngineError, match="is still alive"):
        start(target)
    assert stop(target).left == ()
    assert look(target).instances == ()


def test_botkeep_that_a_program_called_is_no_copy_whatever_it_inherited_and_an_orphan_is(
    programs: Programs, heirs: Callable[..., int]
) -> None:
    target = programs.bot("--graceful")
    start(target)
    given = {
        "SUPERVISOR_PROCESS_NAME": "doge", "SUPERVISOR_GROUP_NAME": "doge",
        "SUPERVISOR_SERVER_URL": programs.supervisor.server,
    }  # fmt: skip
    tool = programs.lab.home / "botkeep"
    tool.write_text("#!/bin/sh\nwhile :; do sleep 0.1; done\n")
    tool.chmod(0o755)
    watch = heirs("/bin/sh", str(tool), "watch", given=given)
    orphan = heirs("sleep", "1000", given=given)
    wait_for(lambda: any(one.ppid == watch for one in ProcessTable.read().procs.values()))
    (seen,) = look(target).instances
    assert set(seen.members) == {programs.supervisor.process("doge"), orphan}
    assert stop(target).left == ()
    assert state_of(watch) != "Z"
    assert state_of(orphan) == "Z"


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


INSIDE = """
import json, subprocess, sys, time
from botkeep.model import BotkeepError
from botkeep.runtimes import RUNTIMES
from support.bots import from_json
target = from_json(json.load(open("target.json")))
runtime = RUNTIMES[target.config.kind]
try:
    runtime.stop(target, 1.0, time.monotonic() + 20)
    said = "stopped"
except BotkeepError as error:
    said = str(error)
open("said.new", "w").write(said)
__import__("os").rename("said.new", "said")
time.sleep(1000)
"""


def test_botkeep_that_is_called_inside_a_program_does_not_end_it_from_there(programs: Programs) -> None:
    (programs.lab.home / "inside.py").write_text(INSIDE)
    path = f'PYTHONPATH="{programs.lab.python_path}"'
    text = f"{sys.executable} inside.py; sleep 1000"
    target = programs.bot(command=["/bin/sh", "-c", text], environment=path)
    (programs.lab.home / "target.json").write_text(json.dumps(programs.lab.as_json(target)))
    one = start(target)
    said = programs.lab.home / "said"
    wait_for(said.exists)
    assert said.read_text().startswith("doge cannot be stopped or started from here: botkeep itself runs inside it")
    assert [seen.key for seen in look(target).instances] == [one.key]
