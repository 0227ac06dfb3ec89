"""Bots as programs of a real supervisord: every state it has, its own restarts, copies that it does not know, its
output, servers that are none, and botkeep killed at work."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from botkeep.cli import main
from botkeep.engine_restarts import since_last_look
from botkeep.model import Actor, EngineError, Fault, Instance, InstanceState, Status, utc_now
from botkeep.runtimes import Target
from support import namespaces
from support.bots import DEADLINE, Lab, overlaps, pid_of, wait_for
from support.docker_proxy import Proxy
from support.engine_bot import Place, ended, look, runtime, start, surveyed
from support.fleet import Fleet, fleet
from support.kills import needs_strace
from support.supervisor import Programs, Supervisor


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Programs]:
    with Lab(tmp_path) as lab, Supervisor() as supervisor:
        yield Programs(lab, supervisor)


def stop(target: Target, grace: float = 1.0) -> Any:
    return runtime(target).stop(target, grace, time.monotonic() + DEADLINE)


def shell(made: Programs, text: str, name: str = "doge", **options: Any) -> Target:
    """A program that is a line of shell."""
    return made.bot(name=name, command=["/bin/sh", "-c", text], **options)


def up(made: Programs, target: Target) -> Instance:
    """Started, and trading."""
    one = start(target)
    wait_for(lambda: made.lab.trading(pid_of(one)))
    return one


# ---------------------------------------------------------------------------------------------------- eight states


def test_a_program_that_is_stopped_runs_nowhere(made: Programs) -> None:
    target = made.bot()
    assert made.supervisor.state("doge") == "STOPPED"
    seen = look(target)
    assert (seen.instances, seen.exit, seen.giving_up, seen.starts) == ((), None, "", ())


def test_a_program_that_is_starting_is_alive_and_only_starts(made: Programs) -> None:
    target = made.bot(startsecs=60)
    one = start(target)
    assert made.supervisor.state("doge") == "STARTING"
    assert (one.state, one.pid) == (InstanceState.STARTING, made.supervisor.process("doge"))
    assert stop(target).left == ()


def test_a_program_that_runs_has_its_pid_its_start_and_its_family(made: Programs) -> None:
    target = made.bot("--popen")
    one = up(made, target)
    wait_for(lambda: {"bot", "child"} <= {stamp.role for stamp in made.lab.stamps()})
    assert made.supervisor.state("doge") == "RUNNING"
    (seen,) = look(target).instances
    assert (seen.key, seen.pid, seen.state, seen.kept_by) == (one.key, one.pid, InstanceState.RUNNING, "supervisord")
    assert set(seen.members) == set(made.lab.bots())
    assert len(seen.members) == 2
    assert seen.started_at in look(target).starts


def test_a_program_in_backoff_is_a_loop_that_is_alive_and_can_be_stopped(made: Programs) -> None:
    target = shell(made, "exit 3", startsecs=1, startretries=99)
    made.supervisor.start("doge")
    wait_for(lambda: made.supervisor.state("doge") == "BACKOFF" and "exit status 3" in made.supervisor.log())
    seen = wait_for(lambda: found if (found := look(target)).giving_up else None)
    assert seen.giving_up == "supervisord calls it BACKOFF and tries it again (it exited too quickly, with exit code 3)"
    assert [(one.pid, one.state) for one in seen.instances] == [(None, InstanceState.STARTING)]
    assert seen.exit is not None
    assert seen.exit.code == 3
    assert stop(target).left == ()
    assert made.supervisor.state("doge") == "STOPPED"
    assert look(target).giving_up == ""


def test_a_program_that_is_stopping_is_alive(made: Programs) -> None:
    target = made.bot("--ignore-term", stopwaitsecs=60)
    one = up(made, target)
    made.supervisor.rpc.stopProcess("doge", False)
    assert made.supervisor.state("doge") == "STOPPING"
    (seen,) = look(target).instances
    assert (seen.key, seen.state) == (one.key, InstanceState.RUNNING)
    stopped = stop(target)
    assert (stopped.left, stopped.killed) == ((), True)


@pytest.mark.parametrize(
    ("text", "code", "number"),
    [("exit 0", 0, None), ("exit 3", 3, None), ("kill -9 $$", None, 9), ("kill -TERM $$", None, 15)],
)
def test_a_program_that_exited_says_how(made: Programs, text: str, code: int | None, number: int | None) -> None:
    target = shell(made, f"sleep 0.3; {text}")
    one = start(target)
    seen = ended(target)
    assert made.supervisor.state("doge") == "EXITED"
    assert (seen.key, seen.code, seen.signal, seen.asked) == (one.key, code, number, False)
    assert seen.at is not None
    assert look(target).giving_up == ""


def test_a_program_that_was_given_up_says_why_and_a_start_begins_anew(made: Programs) -> None:
    target = shell(made, "test -e good && sleep 1000; exit 4", startsecs=1, startretries=1)
    made.supervisor.start("doge")
    wait_for(lambda: made.supervisor.state("doge") == "FATAL")
    seen = look(target)
    assert seen.giving_up == "supervisord calls it FATAL and gave it up (it exited too quickly, with exit code 4)"
    assert (seen.instances, seen.exit.code if seen.exit else None) == ((), 4)
    assert len(seen.starts) == 2
    (made.lab.home / "good").touch()
    assert start(target).pid
    assert look(target).giving_up == ""


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/no/such/bot", "No such file or directory"),
        ("./doge.py", "No such file or directory"),
        ("/etc", "Is a directory"),
    ],
)
def test_a_program_that_supervisord_cannot_start_is_fatal_and_says_why(made: Programs, command: str, why: str) -> None:
    target = made.bot(autostart="true", startsecs=1, command=[command])
    wait_for(lambda: made.supervisor.state("doge") == "FATAL")
    seen = look(target)
    assert seen.exit is not None
    assert (seen.exit.failed_to_start, seen.exit.code) == (f"{command}: {why}", None)
    assert seen.giving_up == f"supervisord calls it FATAL and gave it up ({command}: {why})"


@needs_strace
def test_a_program_that_supervisord_could_not_stop_is_unknown_and_is_left_to_a_person(made: Programs) -> None:
    target = made.bot("--graceful")
    pid = pid_of(up(made, target))
    refusing = ["strace", "-qq", "-o", "/dev/null", "-p", str(made.supervisor.pid), "-e", "trace=kill"]
    with subprocess.Popen([*refusing, "-e", "inject=kill:error=EPERM"], stderr=subprocess.DEVNULL) as tracer:
        status = Path(f"/proc/{made.supervisor.pid}/status")
        wait_for(lambda: f"TracerPid:\t{tracer.pid}" in status.read_text())
        with pytest.raises(EngineError, match="a person has to restart supervisord"):
            stop(target)
        tracer.terminate()
    assert made.supervisor.state("doge") == "UNKNOWN"
    seen = look(target)
    assert [(one.pid, one.state) for one in seen.instances] == [(pid, InstanceState.RUNNING)]
    assert "UNKNOWN" in seen.giving_up
    with pytest.raises(EngineError, match="a person has to restart supervisord"):
        stop(target)
    assert set(made.lab.bots()) == {pid}
    os.kill(pid, signal.SIGTERM)  # what that person is told: it takes supervisord along
    made.supervisor.children[-1].wait(DEADLINE)


# ---------------------------------------------------------------------------------------------------- its restarts


def test_a_restart_by_supervisord_itself_is_counted_and_the_exit_before_is_still_known(made: Programs) -> None:
    target = made.bot(autorestart="true")
    first = up(made, target)
    _, kept = since_last_look(None, look(target), utc_now())
    os.kill(pid_of(first), signal.SIGKILL)
    second = wait_for(lambda: next((one for one in look(target).instances if one.pid not in (None, first.pid)), None))
    seen = look(target)
    assert second.key != first.key
    assert (second.ours, seen.giving_up) == (False, "")
    assert seen.exit is not None
    assert (seen.exit.key, seen.exit.signal) == (first.key, signal.SIGKILL)
    assert since_last_look(kept, seen, utc_now())[0] == 1


def test_every_restart_since_the_last_look_is_counted_and_none_of_ours(made: Programs) -> None:
    target = shell(made, "sleep 0.2; exit 1", autorestart="true")
    _, kept = since_last_look(None, look(target), utc_now())
    start(target)
    wait_for(lambda: made.supervisor.log().count("spawned: 'doge'") >= 4)
    made.supervisor.rpc.stopProcess("doge")
    spawned = made.supervisor.log().count("spawned: 'doge'")
    assert since_last_look(kept, look(target), utc_now())[0] == spawned - 1


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/St_Johns"])
def test_the_clock_of_a_supervisord_in_another_time_zone_is_understood(tmp_path: Path, zone: str) -> None:
    with Lab(tmp_path) as lab, Supervisor(given={"TZ": zone}) as supervisor:
        target = shell(Programs(lab, supervisor), "sleep 0.2; test -e on || exit 1; sleep 1000", autorestart="true")
        before = utc_now()
        start(target)
        wait_for(lambda: supervisor.log().count("spawned: 'doge'") >= 3)
        (lab.home / "on").touch()
        seen = wait_for(lambda: found if (found := look(target)).instances and found.instances[0].pid else None)
        assert len(seen.starts) >= 2
        assert all(before <= at <= utc_now() for at in seen.starts)


def test_what_programs_say_into_supervisords_own_log_is_not_believed(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab, Supervisor(loglevel="debug") as supervisor:
        forged = f"{utc_now():%Y-%m-%d %H:%M:%S},000 INFO spawned: 'doge' with pid 1"
        target = shell(Programs(lab, supervisor), f'for i in 1 2 3 4 5 6; do echo "{forged}"; done; sleep 1000')
        start(target)
        wait_for(lambda: supervisor.log().count(forged) == 6)
        seen = look(target)
        assert len(seen.starts) == 1
        assert any("loglevel=debug" in note for note in seen.notes)


def test_without_a_log_of_its_own_a_restart_is_still_seen_by_another_run(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab, Supervisor(logfile="/dev/null", logfile_maxbytes=0) as supervisor:
        target = Programs(lab, supervisor).bot(autorestart="true")
        first = start(target)
        _, kept = since_last_look(None, look(target), utc_now())
        os.kill(pid_of(first), signal.SIGKILL)
        wait_for(lambda: supervisor.process("doge") not in (0, first.pid))
        assert since_last_look(kept, look(target), utc_now())[0] == 1


def test_a_good_exit_that_is_restarted_all_the_same_is_told(made: Programs) -> None:
    target = shell(made, "sleep 0.2; exit 0", autorestart="true")
    made.supervisor.start("doge")
    wait_for(lambda: made.supervisor.log().count("spawned: 'doge'") >= 2)
    assert any("autorestart=true" in note for note in look(target).notes)


def test_a_stop_between_an_end_and_its_restart_holds(made: Programs) -> None:
    target = shell(made, "sleep 0.1; exit 1", autorestart="true")
    for _ in range(3):
        made.supervisor.start("doge")
        wait_for(lambda: made.supervisor.state("doge") != "RUNNING")
        stop(target)
        lasting = time.monotonic() + 1.5
        while time.monotonic() < lasting:
            assert look(target).instances == ()


def test_a_stop_by_somebody_else_is_told_and_ours_is_not(made: Programs) -> None:
    target = made.bot("--graceful")
    up(made, target)
    made.supervisor.rpc.stopProcess("doge")
    assert "Somebody stopped it through supervisord" in look(target).notes[-1]
    up(made, target)
    stop(target)
    assert not any("Somebody" in note for note in look(target).notes)
    assert look(target).exit == ended(target)
    assert ended(target).asked


# ---------------------------------------------------------------------------------------------------- copies


WRAPPED = f"{shlex.quote(sys.executable)} doge.py & wait"


def test_what_a_shell_leaves_behind_at_each_stop_is_ended_before_the_next_start(made: Programs) -> None:
    target = shell(made, WRAPPED)
    for _ in range(3):
        one = start(target)
        wait_for(lambda: len(made.lab.bots()) == 2 and made.lab.stamps())
        assert len(look(target).instances[0].members) == 2, one
        assert stop(target).left == ()
        assert not made.lab.bots()
    assert overlaps(made.lab.stamps()) == []
    assert any("stopasgroup" in note for note in look(target).notes)


def test_what_outlives_a_stop_by_somebody_else_is_a_copy_and_no_second_is_started_beside_it(made: Programs) -> None:
    target = shell(made, WRAPPED)
    start(target)
    wait_for(lambda: len(made.lab.bots()) == 2)
    made.supervisor.rpc.stopProcess("doge")
    (orphan,) = wait_for(lambda: found if len(found := made.lab.bots()) == 1 else None)
    (seen,) = look(target).instances
    assert (seen.pid, seen.how, seen.kept_by) == (orphan, "environment", "")
    with pytest.raises(EngineError, match=f"pid {orphan} is still alive"):
        start(target)
    assert stop(target).left == ()
    assert start(target).pid != orphan
    assert overlaps(made.lab.stamps()) == []


def test_what_a_shell_leaves_behind_has_the_bots_own_grace(made: Programs) -> None:
    slow = "trap 'sleep 4; touch closed; exit' TERM; while :; do sleep 0.1; done"
    target = shell(made, f"sh -c {shlex.quote(slow)} & wait", stopwaitsecs=10)
    start(target)
    wait_for(lambda: len(made.lab.bots()) >= 2)
    stopped = stop(target, grace=10)
    assert (stopped.left, stopped.killed) == ((), False)
    assert (made.lab.home / "closed").exists()


@pytest.mark.parametrize("switch", ["--daemon", "--popen"])
def test_what_a_bot_starts_beside_itself_is_no_second_copy(made: Programs, switch: str) -> None:
    target = made.bot(switch, "--graceful")
    up(made, target)
    wait_for(lambda: len({stamp.role for stamp in made.lab.stamps()}) == 2)
    (seen,) = look(target).instances
    assert set(seen.members) == set(made.lab.bots())
    assert len(seen.members) == 2
    assert stop(target).left == ()
    assert not made.lab.bots()


def test_a_copy_started_by_hand_is_known_by_its_command_whether_the_program_runs_or_not(made: Programs) -> None:
    target = made.bot("3m")
    by_hand = made.by_hand("3m")
    wait_for(lambda: made.lab.trading(by_hand))
    assert [(one.pid, one.how) for one in look(target).instances] == [(by_hand, "command")]
    made.supervisor.start("doge")
    assert {one.pid for one in look(target).instances} == {by_hand, made.supervisor.process("doge")}
    assert stop(target).left == ()
    assert not made.lab.bots()


def test_three_programs_of_one_script_are_three_bots_by_their_arguments_or_by_their_variables(made: Programs) -> None:
    bots = [made.bot(frame, name=f"bot-{frame}") for frame in ("3m", "5m")]
    bots += [made.bot(name=f"bot-{frame}", environment=f'FRAME="{frame}"') for frame in ("7m", "9m")]
    bots = [replace(one, process_name="doge.py", names_are_shared=True) for one in bots]
    pids = [pid_of(start(one)) for one in bots]
    assert [[one.pid for one in seen.instances] for seen in surveyed(*bots)] == [[pid] for pid in pids]
    assert [seen.error for seen in surveyed(*bots)] == [None] * 4
    assert stop(bots[2]).left == ()
    assert set(made.lab.bots()) == {pids[0], pids[1], pids[3]}
    assert stop(bots[0]).left == ()
    assert set(made.lab.bots()) == {pids[1], pids[3]}


def test_members_of_a_group_are_addressed_one_by_one_and_one_name_in_two_groups_is_two_programs(made: Programs) -> None:
    place = {"directory": made.lab.home, "autostart": "false", "autorestart": "false", "startsecs": 0}
    first = {**place, "command": shlex.join(made.command("a")), "process_name": "bot"}
    second = {**place, "command": shlex.join(made.command("b")), "process_name": "bot"}
    made.supervisor.programs |= {"one": first, "two": second, "group:g": {"programs": "one"}}
    made.supervisor.write()
    made.supervisor.update("g", "two")
    bots = [replace(made.target(f"{group}:bot"), name=group) for group in ("g", "two")]
    pids = [pid_of(start(one)) for one in bots]
    assert [[one.pid for one in seen.instances] for seen in surveyed(*bots)] == [[pid] for pid in pids]
    assert any("Several groups" in note for note in look(bots[0]).notes)
    assert stop(bots[0]).left == ()
    assert set(made.lab.bots()) == {pids[1]}
    assert look(bots[1]).instances[0].pid == pids[1]


def test_two_bots_that_mean_one_program_are_both_told_so_and_neither_is_acted_on(made: Programs) -> None:
    first = made.bot()
    second = replace(made.target("doge:doge"), name="other")
    for seen in surveyed(first, second):
        assert (
            str(seen.error).replace("doge:doge", "doge")
            == "doge and other both mean program doge; give each bot its own."
        )


# ---------------------------------------------------------------------------------------------------- its output


def both(target: Target) -> bytes:
    path = runtime(target).log(target)
    return path.read_bytes() if path and path.exists() else b""


def test_a_log_of_its_own_is_read_where_it_is_and_its_newest_run_is_known(made: Programs) -> None:
    for word in ("first", "second"):
        target = made.bot(f"--say={word}", "--graceful")
        up(made, target)
        path = runtime(target).log(target)
        assert path == made.supervisor.folder / "doge.log"
        said = f"{word}\n".encode()
        wait_for(lambda path=path, said=said: path.read_bytes().endswith(said))
        assert path.read_bytes()[runtime(target).run_offset(target) :] == said
        stop(target)
    assert path.read_bytes() == b"first\nsecond\n"


def test_stdout_and_stderr_in_two_files_are_read_together_over_a_rotation(made: Programs) -> None:
    more = {"redirect_stderr": "false", "stdout_logfile_maxbytes": 20000, "stdout_logfile_backups": 3}
    target = made.bot("--talk=5", "--exit-after=3", **more)
    assert up(made, target)
    while look(target).instances:
        both(target)
    said = [int(line.split()[0]) for line in both(target).splitlines()]
    assert len(list(made.supervisor.folder.glob("doge.log*"))) > 1
    assert len(said) > 300
    assert said == list(range(1, said[-1] + 1))
    crashed = shell(
        made, "echo out; echo err >&2; sleep 1000", redirect_stderr="false", stderr_logfile=made.lab.home / "err"
    )
    start(crashed)
    wait_for(lambda: both(crashed).endswith((b"out\nerr\n", b"err\nout\n")))


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Programs]:
    """A supervisord in a place with pids of its own, as in a container whose socket is shared."""
    with Lab(tmp_path) as lab:
        supervisor = Supervisor()
        unshare = namespaces._unshare()
        if unshare is None:
            assert not namespaces.available(), namespaces.WHY_NOT
            pytest.skip(namespaces.WHY_NOT)
        supervisor.up(under=[*unshare, "--kill-child"])
        yield Programs(lab, supervisor)
        supervisor.close()


def test_a_server_with_pids_of_its_own_is_believed_no_pid_and_no_path(inside: Programs) -> None:
    target = inside.bot("--graceful", "--say=heard")
    one = start(target)
    wait_for(lambda: inside.lab.stamps())
    (seen,) = look(target).instances
    assert (seen.key, seen.pid, seen.members, seen.how) == (one.key, None, (), "supervisord")
    assert inside.supervisor.process("doge") in (2, 3, 4, 5, 6)
    wait_for(lambda: both(target) == b"heard\n")
    assert runtime(target).log(target) == target.log_path
    stopped = stop(target)
    assert (stopped.left, stopped.killed) == ((), False)
    assert ended(target).code == 0


def test_output_elsewhere_is_read_through_supervisord_though_it_is_no_text(inside: Programs) -> None:
    text = r"printf 'caf\303\251 \033[31mred\n\377\376 broken\n'; seq 1 2000; echo end; exec sleep 1000"
    target = shell(inside, text)
    start(target)
    wait_for(lambda: both(target).endswith(b"1999\n2000\nend\n"))
    said = both(target)
    assert said.count(b"\n1000\n") == 1
    assert len(said) > 8900
    assert "unexpected exception" not in inside.supervisor.log()
    inside.supervisor.rpc.clearProcessLogs("doge")
    stop(target)
    again = shell(inside, "echo café; exec sleep 1000")
    start(again)
    wait_for(lambda: both(again).endswith("café\n".encode()))
    assert both(again).startswith(said)


def test_output_that_is_kept_nowhere_is_a_note_and_no_error(made: Programs) -> None:
    target = made.bot("--say=unheard", stdout_logfile="NONE", stderr_logfile="NONE")
    up(made, target)
    seen = look(target)
    assert seen.error is None
    assert any("kept nowhere" in note for note in seen.notes)
    assert runtime(target).logs(target) == ()


# ---------------------------------------------------------------------------------------------------- servers


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_over_tcp_with_a_password_that_a_variable_or_the_env_file_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    with Lab(tmp_path) as lab, Supervisor(port=port, login=("keeper", "s3cret-word"), unix=False) as supervisor:
        made = Programs(lab, supervisor)
        made.bot("--graceful")
        names = {"username_env": "SV_USER", "password_env": "SV_PASSWORD"}
        target = made.target(**names)
        with pytest.raises(EngineError, match=r"\$SV_USER, which names supervisord's login, is not set"):
            look(target)
        (lab.home / "doge.env").write_text("SV_USER=keeper\nSV_PASSWORD=s3cret-word\n")
        (lab.home / "doge.env").chmod(0o600)
        filed = made.target(**names, env_file="doge.env")
        one = up(made, filed)
        assert pid_of(one) in look(filed).instances[0].members
        assert surveyed(filed)[0].instances[0].key == one.key
        assert runtime(filed).log(filed) == supervisor.folder / "doge.log"
        monkeypatch.setenv("SV_USER", "keeper")
        monkeypatch.setenv("SV_PASSWORD", "wrong")
        with pytest.raises(EngineError, match=r"refuses the user name and password that \$SV_USER and \$SV_PASSWORD"):
            look(target)
        with pytest.raises(EngineError, match="wants a user name and a password"):
            look(made.target())
        monkeypatch.setenv("SV_PASSWORD", "s3cret-word")
        assert stop(target).left == ()
        assert look(target).notes == look(filed).notes


def test_a_program_that_does_not_exist_is_an_error_that_names_the_closest(made: Programs) -> None:
    made.bot(name="bot-3m")
    made.bot(name="bot-5m")
    with pytest.raises(EngineError, match=r"has no program bot-4m: did you mean bot-[35]m\? It has bot-3m, bot-5m\."):
        look(made.target("bot-4m"))
    with pytest.raises(EngineError, match="has no program bot-4m"):
        start(made.target("bot-4m"))


def test_a_server_that_is_not_there_is_its_bots_error_and_the_others_go_on(made: Programs, tmp_path: Path) -> None:
    near = made.bot()
    far = replace(made.target("far", server=f"unix://{tmp_path}/nobody.sock"))
    shut = replace(made.target("shut", server=f"http://127.0.0.1:{free_port()}"))
    start(near)
    here, away, closed = surveyed(near, far, shut)
    assert (here.error, len(here.instances)) == (None, 1)
    assert away.error == (
        f"supervisord cannot be reached at unix://{tmp_path}/nobody.sock: No such file or directory. Is it running?"
    )
    assert str(closed.error).endswith("Connection refused. Is it running?")


def test_a_look_at_many_programs_is_one_question(made: Programs, tmp_path: Path) -> None:
    bots = [made.bot(str(number), name=f"b{number}") for number in range(20)]
    with Proxy.at(made.supervisor.server, made.supervisor.folder / "p") as proxy:
        server = f"unix://{made.supervisor.folder}/p"
        seen = [replace(one, config=one.config.model_copy(update={"server": server})) for one in bots]
        pids = [pid_of(start(one)) for one in seen]
        surveyed(*seen)
        proxy.asked.clear()
        looks = surveyed(*seen)
        assert [[one.pid for one in look.instances] for look in looks] == [[pid] for pid in pids]
        assert proxy.asked == ["/RPC2"]


# ---------------------------------------------------------------------------------------------------- the whole way


@contextmanager
def place(home: Path, build: Callable[[Programs], Target] = Programs.bot, **more: Any) -> Iterator[Place[Programs]]:
    with fleet(home) as found, Lab(home) as lab, Supervisor(**more) as supervisor:
        made = Programs(lab, supervisor)
        here = Place(made, found, build(made))
        here.write()
        yield here


def test_a_killed_bot_is_found_and_started_again_by_one_round(tmp_path: Path) -> None:
    with place(tmp_path / "home") as here:
        first = here.up()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: not look(here.target).instances)
        verdict = here.found.verdict()
        assert (verdict.status, verdict.fault) == (Status.FAULTY, Fault.BOT_NOT_RUNNING)
        assert "it was killed by signal 9" in verdict.sentence
        here.round()
        verdict = here.found.verdict()
        assert verdict.status is Status.HEALTHY
        assert verdict.pid not in (None, first)
        assert overlaps(here.lab.stamps()) == []


def test_a_bot_that_runs_under_supervisord_already_is_adopted_as_it_is(tmp_path: Path) -> None:
    with place(tmp_path / "home") as here:
        here.made.supervisor.start("doge")
        pid = here.made.supervisor.process("doge")
        verdict = here.found.verdict()
        assert (verdict.status, verdict.pid) == (Status.HEALTHY, pid)
        here.round()
        assert here.found.desk(Actor.PERSON).start("doge", "is it up?").result == "coalesced"
        assert set(here.lab.bots()) == {pid}


def test_a_frozen_bot_is_started_anew_by_one_round(tmp_path: Path) -> None:
    with place(tmp_path / "home") as here:
        first = here.up()
        os.kill(first, signal.SIGSTOP)
        wait_for(lambda: look(here.target).instances[0].state is InstanceState.FROZEN)
        assert here.found.verdict().fault is Fault.BOT_HUNG
        here.round()
        assert here.found.verdict().status is Status.HEALTHY
        assert overlaps(here.lab.stamps()) == []


def looping(text: str, **options: Any) -> Callable[[Programs], Target]:
    def build(made: Programs) -> Target:
        return shell(made, f"{shlex.quote(sys.executable)} doge.py {text}", **options)

    return build


@pytest.mark.parametrize("kind", ["slow", "late"])
def test_a_loop_that_supervisord_calls_running_is_a_loop(tmp_path: Path, kind: str) -> None:
    """A slow one lives longer than startsecs each time; a late one ran well before."""
    slow = looping("--exit-after=1.2 --exit-code=1", autorestart="true", startsecs=1)
    late = shell_that_ends_at_once_later
    with place(tmp_path / "home", slow if kind == "slow" else late) as here:
        assert here.found.desk(Actor.PERSON).start("doge", "first start").result in ("done", "failed", "verifying")
        here.found.verdict()
        (here.lab.home / "late").touch()
        log = here.made.supervisor.log
        before = log().count("spawned: 'doge'")
        wait_for(lambda: log().count("spawned: 'doge'") >= before + 4)
        wait_for(lambda: here.made.supervisor.state("doge") in ("RUNNING", "STARTING"))
        verdict = here.found.desk().check(["doge"]).verdicts[0]
        assert verdict.fault is Fault.BOT_CRASH_LOOPING, (verdict.sentence, look(here.target))
        assert "by its engine" in verdict.sentence
        report = here.found.desk(Actor.ROUND).round()
        assert here.found.verdict().fault is Fault.BOT_CRASH_LOOPING, report


def shell_that_ends_at_once_later(made: Programs) -> Target:
    return shell(made, "test -e late && exit 1; while test ! -e late; do sleep 0.1; done", autorestart="true")


def test_after_kill_9_of_supervisord_and_a_normal_start_one_round_brings_two_copies_back_to_one(tmp_path: Path) -> None:
    build = partial(Programs.bot, autostart="true", autorestart="true")
    with place(tmp_path / "home", lambda made: build(made, "--graceful")) as here:
        wait_for(lambda: here.made.supervisor.state("doge") == "RUNNING")
        first = here.made.supervisor.process("doge")
        wait_for(lambda: here.lab.trading(first))
        here.made.supervisor.kill()
        verdict = here.found.verdict()
        assert verdict.status is Status.UNKNOWN
        assert "supervisord cannot be reached" in verdict.sentence
        here.round()
        assert set(here.lab.bots()) == {first}
        here.made.supervisor.up()
        second = wait_for(lambda: here.made.supervisor.process("doge"))
        wait_for(lambda: here.lab.trading(second))
        assert set(here.lab.bots()) == {first, second}
        verdict = here.found.verdict()
        assert verdict.fault is Fault.BOT_DUPLICATED
        here.round()
        (only,) = here.lab.bots()
        assert only not in (first, second)
        assert here.found.verdict().status is Status.HEALTHY


@pytest.mark.parametrize("restarts", ["false", "true"])
def test_a_second_supervisord_is_found_and_one_round_brings_two_copies_back_to_one(
    tmp_path: Path, restarts: str
) -> None:
    build = partial(Programs.bot, autostart="true", autorestart=restarts)
    with place(tmp_path / "home", lambda made: build(made, "--graceful")) as here:
        first = wait_for(lambda: here.made.supervisor.process("doge"))
        other = here.made.supervisor.pid
        here.made.supervisor.socket.unlink()
        here.made.supervisor.up()
        second = wait_for(lambda: here.made.supervisor.process("doge"))
        wait_for(lambda: here.lab.trading(first) and here.lab.trading(second))
        verdict = here.found.verdict()
        assert verdict.fault is Fault.BOT_DUPLICATED
        assert any(f"Another supervisord (pid {other}) runs a copy of it" in note for note in verdict.notes)
        here.round()
        lasting = time.monotonic() + 3
        while time.monotonic() < lasting:
            assert len(here.lab.bots()) <= 1
        verdict = here.found.verdict()
        assert (verdict.status, len(here.lab.bots())) == (Status.HEALTHY, 1)
        (only,) = look(here.target).instances
        assert only.kept_by == ("supervisord" if restarts == "false" else "")
        assert any("Another supervisord" in note for note in verdict.notes) == (restarts == "true")
        if restarts == "true":
            told = here.found.journal()
            assert f"another supervisord (pid {other}) starts again whenever it ends" in told


def test_twenty_restarts_at_once_are_one_restart(tmp_path: Path) -> None:
    with place(tmp_path / "home") as here:
        here.found.edit("bot-not-running", r"within: \w+}", "within: 30s}")
        os.kill(here.up(), signal.SIGKILL)
        wait_for(lambda: not here.found.verdict().up)
        here.one_of_all_restarts()


@pytest.mark.parametrize("seed", range(3))
def test_whenever_botkeep_is_killed_the_next_restart_has_one_bot(tmp_path: Path, seed: int) -> None:
    with place(tmp_path / "home", lambda made: shell(made, WRAPPED)) as here:
        here.found.desk(Actor.PERSON).start("doge", "first start")
        here.kill_callers(seed, times=6, within=2.5, members=2)


# ---------------------------------------------------------------------------------------------------- its own file


@contextmanager
def generated(home: Path) -> Iterator[tuple[Fleet, Lab, Supervisor]]:
    """A workspace with two timeframes of one script, and the supervisord that its own file makes of it."""
    with fleet(home) as found, Lab(home) as lab:
        lab.program("doge.py")
        supervisor = Supervisor()
        supervisor.made = supervisor.folder / "made.conf"
        (home / "keys.env").write_text("API_KEY=k3y-of-the-bot\n")
        (home / "keys.env").chmod(0o600)
        runtimes = {
            frame: {
                "kind": "supervisord", "server": supervisor.server, "program": f"tf:bot-{frame}", "stop_grace": 3,
                "command": [sys.executable, "doge.py", "--graceful", f"--ask-environment=given-{frame}", frame],
                "env": {"FRAME": frame}, "env_file": "keys.env",
            }
            for frame in ("3m", "5m")
        }  # fmt: skip
        bots = [{"name": f"bot-{frame}", "runtime": runtime} for frame, runtime in runtimes.items()]
        (home / "config/bots.json").write_text(json.dumps({"bots": bots}))
        with redirected() as said:
            assert main(["supervisord-config", "--home", str(home), "--no-watch", "--out", str(supervisor.config)]) == 0
        assert f"{supervisor.config} is written" in said.getvalue()
        with supervisor:
            yield found, lab, supervisor


@contextmanager
def redirected() -> Iterator[io.StringIO]:
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        yield said


def frames(found: Fleet) -> dict[str, Any]:
    return {one.bot: one for one in found.desk().check([]).verdicts}


def test_a_supervisord_with_the_file_that_botkeep_wrote_runs_each_timeframe_with_its_keys(tmp_path: Path) -> None:
    with generated(tmp_path / "home") as (found, lab, supervisor):
        wait_for(lambda: len(lab.pids("bot")) == 2)
        verdicts = frames(found)
        assert {name: (one.status, one.notes) for name, one in verdicts.items()} == {
            "bot-3m": (Status.HEALTHY, ()),
            "bot-5m": (Status.HEALTHY, ()),
        }
        assert {one.pid for one in verdicts.values()} == set(lab.bots())
        for frame in ("3m", "5m"):
            given = dict(pair.split("=", 1) for pair in (lab.home / f"given-{frame}").read_text().split("\0"))
            assert (given["API_KEY"], given["FRAME"]) == ("k3y-of-the-bot", frame)
        assert "k3y" not in supervisor.config.read_text()
        assert supervisor.config.stat().st_mode & 0o077 == 0
        by_hand = lab.by_hand(sys.executable, "doge.py", "--graceful", "--ask-environment=given-3m", "3m")
        wait_for(lambda: lab.trading(by_hand))
        verdicts = frames(found)
        assert (verdicts["bot-3m"].fault, verdicts["bot-5m"].fault) == (Fault.BOT_DUPLICATED, None)
        report = found.desk(Actor.PERSON).restart("bot-3m", "two of them")
        assert report.ok, report.sentence
        assert len(lab.bots()) == 2
        assert {one.status for one in frames(found).values()} == {Status.HEALTHY}


def test_what_outlives_a_killed_supervisord_keeps_a_second_copy_from_being_started_at_all(tmp_path: Path) -> None:
    with generated(tmp_path / "home") as (found, lab, supervisor):
        wait_for(lambda: len(lab.pids("bot")) == 2)
        before = set(lab.bots())
        supervisor.kill()
        supervisor.up()
        log = lab.home / ".botkeep/supervisord.log"
        wait_for(lambda: log.read_text().count("(exit status 75; not expected)") >= 2)
        wait_for(lambda: {supervisor.state(f"tf:bot-{frame}") for frame in ("3m", "5m")} == {"FATAL"})
        assert lab.pids("bot") == before
        verdicts = frames(found)
        assert {one.status for one in verdicts.values()} == {Status.HEALTHY}, verdicts
        assert {one.pid for one in verdicts.values()} == before
        assert all("holds its lock" in one.notes[-1] for one in verdicts.values())
        for frame in ("3m", "5m"):
            report = found.desk(Actor.PERSON).restart(f"bot-{frame}", "back under supervisord")
            assert report.ok, report.sentence
        verdicts = frames(found)
        assert {(one.status, one.notes) for one in verdicts.values()} == {(Status.HEALTHY, ())}
        assert {one.pid for one in verdicts.values()} == set(lab.bots())
        assert before.isdisjoint(lab.bots())
        assert overlaps([stamp for stamp in lab.stamps() if stamp.pid in before]) != []  # two bots, each by itself


@pytest.mark.parametrize("switch", ["--graceful", "--rename=something else"])
def test_a_copy_that_botkeep_started_as_a_plain_process_is_ended_when_the_bot_moves_to_supervisord(
    tmp_path: Path, switch: str
) -> None:
    """Whatever it calls itself: with another name it has no environment either, and still holds its lock."""
    with place(tmp_path / "home", lambda made: made.bot("under supervisord")) as here:
        process = {"kind": "process", "command": [sys.executable, "doge.py", switch], "stop_grace": 2}
        bots = here.lab.home / "config/bots.json"
        moved = bots.read_text()
        bots.write_text(json.dumps({"bots": [{"name": "doge", "runtime": process}]}))
        first = here.up()
        bots.write_text(moved)
        if switch == "--graceful":
            assert [(one.pid, one.how) for one in look(here.target).instances] == [(first, "marker")]
        with pytest.raises(EngineError, match=f"pid {first} is still alive"):
            start(here.target)
        report = here.found.desk(Actor.PERSON).restart("doge", "it moves to supervisord")
        assert report.ok, report.sentence
        (only,) = look(here.target).instances
        assert only.kept_by == "supervisord"
        assert list(here.lab.bots()) == [only.pid]
        assert overlaps(here.lab.stamps()) == []
