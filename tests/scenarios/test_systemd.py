"""Bots as services of a real systemd: every state it has, its own restarts, copies that it does not know, its journal,
units that botkeep wrote, a systemd that is away, and botkeep killed at work."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from botkeep import exec_env
from botkeep.cli import main
from botkeep.engine_restarts import since_last_look
from botkeep.model import Actor, EngineError, Fault, Instance, InstanceState, Status, utc_now
from botkeep.runtimes import RUNTIMES, Target
from botkeep.runtimes.systemd_history import RESTARTS, STARTED
from support.bots import DEADLINE, Lab, overlaps, pid_of, wait_for
from support.engine_bot import Place, ended, look, start, surveyed
from support.fleet import fleet
from support.systemd_box import box
from support.systemd_rig import Services

RUNTIME: Any = RUNTIMES["systemd"]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Services]:
    with Lab(tmp_path) as lab:
        services = Services(lab, box())
        yield services
        services.close()


def stop(target: Target, grace: float = 1.0) -> Any:
    return RUNTIME.stop(target, grace, time.monotonic() + DEADLINE)


def shell(made: Services, text: str, name: str = "doge", **settings: Any) -> Target:
    """A service that is a line of shell."""
    return made.bot(name=name, command=["/bin/sh", "-c", text], **settings)


def up(made: Services, target: Target) -> Instance:
    """Started, and trading."""
    one = start(target)
    wait_for(lambda: made.lab.trading(pid_of(one)))
    return one


def restarts(made: Services, name: str = "doge") -> int:
    """As systemd counts them."""
    return int(made.box.show(made.unit(name), "NRestarts")[0])


def result(made: Services, name: str = "doge") -> str:
    """As systemd calls the end of the newest run."""
    return made.box.show(made.unit(name), "Result")[0]


# ---------------------------------------------------------------------------------------------------- its states


def test_a_service_that_runs_has_its_pid_its_start_and_its_family(made: Services) -> None:
    target = made.bot("--popen")
    one = up(made, target)
    wait_for(lambda: {"bot", "child"} <= {stamp.role for stamp in made.lab.stamps()})
    (seen,) = look(target).instances
    assert (seen.key, seen.pid, seen.state, seen.kept_by) == (one.key, made.pid(), InstanceState.RUNNING, "systemd")
    assert set(seen.members) == set(made.lab.bots())
    assert len(seen.members) == 2
    assert look(target).starts == (seen.started_at,)


def test_a_service_that_is_being_prepared_is_alive_and_only_starts(made: Services) -> None:
    target = made.bot(ExecStartPre="/bin/sleep 1000")
    made.box.ctl("start", "--no-block", made.unit("doge"))
    (seen,) = wait_for(lambda: look(target).instances)
    assert (seen.state, made.state()) == (InstanceState.STARTING, "activating")
    assert stop(target).left == ()
    assert made.state() != "activating"


def test_a_start_that_waits_for_another_unit_is_alive_and_a_stop_takes_it_back(made: Services) -> None:
    """Nothing of it runs yet, and it will by itself: a bot that is called stopped must not come up."""
    other = f"other-{made.lab.token}.service"
    made.box.write(other, "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n")
    target = made.bot(unit={"Wants": other, "After": other})
    with pytest.raises(EngineError, match=r"has not started doge-.* yet: its start waits for other units"):
        RUNTIME.engine.start(target.config, 1.0)
    (seen,) = look(target).instances
    assert (seen.pid, seen.state) == (None, InstanceState.STARTING)
    assert stop(target).left == ()
    assert look(target).instances == ()
    made.box.ctl("kill", "--signal=SIGKILL", other)
    wait_for(lambda: made.box.show(other, "Job") == [""])
    assert made.state() == "inactive"


def test_a_service_that_is_not_enabled_and_ended_well_at_once_is_told_so(made: Services) -> None:
    """systemd has forgotten by then that it ran, and calls its conditions not met. Now and then a look comes while it
    runs: then it was started, and is gone."""
    made.box.write(f"{made.unit('doge')}.service", "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/true\n")
    made.box.reload()

    def said() -> str:
        with pytest.raises(EngineError) as told:
            start(made.target())
        assert "ended well at once" in str(told.value) or "nothing runs" in str(told.value)
        return str(told.value)

    wait_for(lambda: "and it ended well at once" in said())
    seen = look(made.target())
    assert seen.instances == ()
    assert seen.exit is not None
    assert seen.exit.failed_to_start is None


def test_a_service_that_is_stopping_is_alive(made: Services) -> None:
    target = made.bot("--ignore-term", TimeoutStopSec=60)
    one = up(made, target)
    made.box.ctl("stop", "--no-block", made.unit("doge"))
    wait_for(lambda: made.state() == "deactivating")
    (seen,) = look(target).instances
    assert (seen.key, seen.state) == (one.key, InstanceState.RUNNING)
    stopped = stop(target)
    assert (stopped.left, stopped.killed) == ((), True)


def test_a_service_between_two_runs_is_a_loop_that_is_alive_and_can_be_stopped(made: Services) -> None:
    target = shell(made, "exit 3", unit={"StartLimitIntervalSec": 0}, Restart="always", RestartSec="0.4")
    made.start()
    wait_for(lambda: restarts(made) >= 3)
    seen = wait_for(lambda: found if (found := look(target)).giving_up else None)
    assert seen.giving_up.startswith("systemd has restarted it ")
    assert seen.giving_up.endswith("times, and it ended again (exit code 3)")
    assert [(one.pid, one.state) for one in seen.instances] == [(None, InstanceState.STARTING)]
    assert seen.exit is not None
    assert seen.exit.code == 3
    assert stop(target).left == ()
    assert look(target).giving_up == ""
    was = restarts(made)
    time.sleep(0.6)  # longer than RestartSec
    assert (made.state(), restarts(made)) == ("failed" if made.state() == "failed" else "inactive", was)


@pytest.mark.parametrize(
    ("text", "code", "number"),
    [("exit 0", 0, None), ("exit 3", 3, None), ("kill -9 $$$$", None, 9), ("kill -TERM $$$$", None, 15)],
)
def test_a_service_that_exited_says_how(made: Services, text: str, code: int | None, number: int | None) -> None:
    target = shell(made, f"sleep 0.3; {text.replace('$$$$', '$$')}")
    one = start(target)
    seen = ended(target)
    assert (seen.key, seen.code, seen.signal, seen.asked) == (one.key, code, number, False)
    assert seen.at is not None
    assert look(target).giving_up == ""


def test_a_service_that_was_given_up_says_why_and_a_start_begins_anew(made: Services) -> None:
    limit = {"StartLimitIntervalSec": 100, "StartLimitBurst": 3}
    target = shell(made, "test -e good && sleep 1000; exit 4", unit=limit, Restart="on-failure", RestartSec="0.1")
    made.start()
    wait_for(lambda: made.state() == "failed")
    seen = look(target)
    assert seen.giving_up == "systemd gave it up after 3 starts within 1min 40s (start-limit-hit, exit code 4)"
    assert (seen.instances, seen.exit.code if seen.exit else None) == ((), 4)
    (made.lab.home / "good").touch()
    assert start(target).pid
    assert look(target).giving_up == ""


def test_a_bot_that_gives_no_sign_of_life_is_ended_by_systemd_and_it_is_told(made: Services) -> None:
    target = made.bot("--ignore-term", WatchdogSec="0.3")
    up(made, target)
    seen = ended(target)
    assert (result(made), seen.signal) == ("watchdog", signal.SIGABRT)
    assert any("WatchdogSec" in note for note in look(target).notes)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"WorkingDirectory": "/no/such/folder"}, "/no/such/folder: No such file or directory"),
        ({"User": "nobody-has-this-name"}, r"systemd could not execute it \(step USER, exit status 217\)"),
        ({"ExecCondition": "/bin/false"}, "its ExecCondition says"),
        ({"EnvironmentFile": "/no/such.env"}, "systemd could not get what it needs to start it"),
        ({"unit": {"ConditionPathExists": "/no/such"}}, "a condition in its unit file does not hold"),
        ({"unit": {"Requires": "gone-for-good.service"}}, "another unit that it needs|not found"),
    ],
)
def test_what_keeps_systemd_from_starting_a_service_is_told(made: Services, settings: dict[str, Any], why: str) -> None:
    target = made.bot(**settings)
    try:
        started = RUNTIME.start(target, "e1", time.monotonic() + DEADLINE)
    except EngineError as error:
        said = str(error)
    else:
        assert started.instance is None
        assert started.exit
        said = str(started.exit.failed_to_start)
    assert re_search(why, said), said
    assert look(target).instances == ()


def re_search(pattern: str, text: str) -> bool:
    import re

    return re.search(pattern, text) is not None


def lack_memory(made: Services) -> None:
    """End the service as systemd-oomd does: a mark at its control group, then kill -9."""
    (group,) = made.box.groups[0].glob(f"user.slice/*/*/app.slice/{made.unit('doge')}.service")
    os.setxattr(group, "user.oomd_ooms", str(time.time_ns()).encode())  # a count that only grows
    os.kill(made.pid(), signal.SIGKILL)


def test_a_service_that_was_ended_for_lack_of_memory_says_so_also_when_systemd_has_restarted_it(made: Services) -> None:
    target = made.bot()
    up(made, target)
    lack_memory(made)
    seen = ended(target)
    assert (result(made), seen.signal, seen.out_of_memory) == ("oom-kill", signal.SIGKILL, True)
    assert any("for lack of memory" in note for note in look(target).notes)
    again = made.bot(Restart="always", RestartSec="0.1")
    first = up(made, again)
    lack_memory(made)
    wait_for(lambda: made.pid() not in (0, first.pid))
    before = wait_for(lambda: look(again).exit)
    assert (before.key, before.signal, before.out_of_memory) == (first.key, signal.SIGKILL, True)


def test_a_memory_limit_can_be_raised(made: Services) -> None:
    target = made.bot()
    engine = RUNTIME.engine
    assert engine.memory_of(target.config) is None
    made.bot(MemoryMax="100M")
    assert engine.set_memory(target.config, 150 << 20) == 100 << 20
    assert engine.memory_of(target.config) == 150 << 20
    assert made.box.show(made.unit("doge"), "MemoryMax") == [str(150 << 20)]


def test_a_masked_service_and_one_with_a_bad_file_are_told_and_not_started(made: Services) -> None:
    made.box.write(f"bad-{made.lab.token}.service", "[Service]\nExecStart=not-absolute/doge\n")
    (made.box.units / f"mask-{made.lab.token}.service").symlink_to("/dev/null")
    made.box.reload()
    for name, word in (("bad", "cannot read its unit file"), ("mask", "masked")):
        target = made.target(name)
        assert any(word in note for note in look(target).notes)
        started = RUNTIME.start(target, "e1", time.monotonic() + DEADLINE)
        assert started.instance is None
        assert word in started.exit.failed_to_start
        assert look(target).exit == started.exit


# ---------------------------------------------------------------------------------------------------- its restarts


def test_a_restart_by_systemd_itself_is_counted_and_the_exit_before_is_still_known(made: Services) -> None:
    target = made.bot(Restart="always", RestartSec="0.1")
    first = up(made, target)
    _, kept = since_last_look(None, look(target), utc_now())
    os.kill(pid_of(first), signal.SIGKILL)
    second = wait_for(lambda: next((one for one in look(target).instances if one.pid not in (None, first.pid)), None))
    seen = look(target)
    assert second.key != first.key
    assert (second.ours, seen.giving_up, seen.restarts) == (False, "", 1)
    assert seen.exit is not None
    assert (seen.exit.key, seen.exit.signal) == (first.key, signal.SIGKILL)
    assert since_last_look(kept, seen, utc_now())[0] == 1


def test_every_restart_since_the_last_look_is_counted_and_none_of_ours(made: Services) -> None:
    target = shell(made, "sleep 0.1; exit 1", unit={"StartLimitIntervalSec": 0}, Restart="always", RestartSec="0.1")
    _, kept = since_last_look(None, look(target), utc_now())
    start(target)
    wait_for(lambda: restarts(made) >= 4)
    made.box.ctl("stop", made.unit("doge"))
    assert since_last_look(kept, look(target), utc_now())[0] == restarts(made)


def test_restarts_before_a_start_of_ours_are_known_from_the_journal(made: Services) -> None:
    """Its own counter begins anew with every start that somebody makes."""
    more = {"Restart": "on-failure", "RestartSec": "0.1"}
    text = "sleep 0.1; test -e good || exit 1; sleep 1000"
    target = shell(made, text, unit={"StartLimitIntervalSec": 0}, **more)
    start(target)
    wait_for(lambda: restarts(made) >= 2)
    stop(target)
    before = restarts(made)
    (made.lab.home / "good").touch()
    start(target)
    pid = made.pid()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: made.pid() not in (0, pid))
    seen = look(target)
    assert seen.restarts == 1
    assert len(seen.starts) == before + 1


FORGING = (
    "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect('/run/systemd/journal/socket')"
)


def test_what_programs_say_into_the_journal_is_not_believed(made: Services) -> None:
    target = made.bot(Restart="always", RestartSec="0.1")
    first = up(made, target)
    os.kill(pid_of(first), signal.SIGKILL)
    wait_for(lambda: made.pid() not in (0, first.pid))
    known = look(target).starts
    whose = "" if made.box.system else "USER_"
    unit = f"{whose}UNIT={made.unit('doge')}.service"
    restart = f"MESSAGE_ID={RESTARTS}\\n{unit}\\n{whose}INVOCATION_ID={'a' * 32}\\n"
    begin = f"MESSAGE_ID={STARTED}\\n{unit}\\n{whose}INVOCATION_ID={'b' * 32}\\n"
    program = f"{FORGING}; s.send(b'{restart}'); s.send(b'{begin}')"
    liar = made.bot(name="liar", command=[sys.executable, "-c", program])
    RUNTIME.start(liar, "e1", time.monotonic() + DEADLINE)  # it may be over before anybody has looked
    ended(liar)
    seen = look(target)
    assert (seen.restarts, seen.instances[0].pid, seen.error) == (1, made.pid(), None)
    assert len(seen.starts) == len(known) + (0 if made.box.system else 1)  # a user's may speak for the user's systemd


# ---------------------------------------------------------------------------------------------------- copies


WRAPPED = f"{shlex.quote(sys.executable)} doge.py & wait"
LEAVING = {"KillMode": "process"}


def test_what_a_stop_by_systemd_leaves_behind_is_the_bot_and_no_second_is_started_beside_it(made: Services) -> None:
    target = shell(made, WRAPPED, **LEAVING)
    start(target)
    wait_for(lambda: len(made.lab.bots()) == 2 and made.lab.stamps())
    assert len(look(target).instances[0].members) == 2
    made.box.ctl("stop", made.unit("doge"))
    (orphan,) = wait_for(lambda: found if len(found := made.lab.bots()) == 1 else None)
    assert made.state() in ("inactive", "failed")
    (seen,) = look(target).instances
    assert (seen.pid, seen.kept_by) == (orphan, "systemd")
    assert any("KillMode=process" in note for note in look(target).notes)
    with pytest.raises(EngineError, match=f"pid {orphan} is still alive"):
        start(target)
    assert stop(target).left == ()
    assert not made.lab.bots()
    assert start(target).pid != orphan
    assert stop(target).left == ()
    assert not made.lab.bots()
    assert overlaps(made.lab.stamps()) == []


FORKING = (
    "import os, time\ntime.sleep(0.5)\nif os.fork(): os._exit(0)\nos.setsid()\nopen('up', 'w').close()\n"
    "time.sleep(1000)\n"
)


def test_a_service_that_forks_is_one_bot_also_where_systemd_knows_no_main_process(made: Services) -> None:
    (made.lab.home / "forking.py").write_text(FORKING)
    target = made.bot(command=[sys.executable, "forking.py"], Type="forking", GuessMainPID="no")
    made.box.ctl("start", "--no-block", made.unit("doge"))
    seen = wait_for(lambda: [one for one in look(target).instances if one.pid])
    assert [(one.state, one.kept_by) for one in seen] == [(InstanceState.STARTING, "systemd")]
    wait_for((made.lab.home / "up").exists)
    wait_for(lambda: made.state() == "active")
    (one,) = look(target).instances
    assert (one.state, one.kept_by, made.pid()) == (InstanceState.RUNNING, "systemd", 0)
    assert (one.pid,) == one.members
    assert stop(target).left == ()
    assert not os.path.exists(f"/proc/{one.pid}")


@pytest.mark.parametrize("runs", [False, True])
def test_a_container_with_a_service_of_the_same_name_is_left_alone(made: Services, runs: bool) -> None:
    target = made.bot()
    if runs:
        up(made, target)
    top = next(path for path in made.box.groups[0].rglob("*") if path.name == "init.scope").parent
    group = top / f"container.scope/app.slice/{made.unit('doge')}.service"
    group.mkdir(parents=True)
    line = f"echo 0 > {group}/cgroup.procs && exec sleep 1000"
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", line]) as other:
        wait_for(lambda: (group / "cgroup.procs").read_text())
        seen = look(target).instances
        assert [one.members for one in seen] == ([(made.pid(),)] if runs else [])
        stop(target)
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("switch", ["--daemon", "--popen"])
def test_what_a_bot_starts_beside_itself_is_no_second_copy(made: Services, switch: str) -> None:
    target = made.bot(switch, "--graceful")
    up(made, target)
    wait_for(lambda: len({stamp.role for stamp in made.lab.stamps()}) == 2)
    (seen,) = look(target).instances
    assert set(seen.members) == set(made.lab.bots())
    assert len(seen.members) == 2
    assert stop(target).left == ()
    assert not made.lab.bots()


def test_a_copy_started_by_hand_is_known_by_its_command_whether_the_service_runs_or_not(made: Services) -> None:
    target = made.bot("3m")
    by_hand = made.copy_of(target)
    wait_for(lambda: made.lab.trading(by_hand))
    assert [(one.pid, one.how) for one in look(target).instances] == [(by_hand, "command")]
    made.start()
    assert {one.pid for one in look(target).instances} == {by_hand, made.pid()}
    assert stop(target).left == ()
    assert not made.lab.bots()


def test_three_services_of_one_command_are_three_bots_by_their_units(made: Services) -> None:
    """They differ in their variables alone, and one of them is no bot of ours at all."""
    bots = [made.bot(name=f"bot-{frame}", Environment=f"FRAME={frame}") for frame in ("3m", "5m", "7m")]
    bots = [replace(one, process_name="doge.py", names_are_shared=True) for one in bots]
    pids = [pid_of(start(one)) for one in bots]
    ours = bots[:2]
    assert [[one.pid for one in seen.instances] for seen in surveyed(*ours)] == [[pids[0]], [pids[1]]]
    assert [[one.pid for one in look(one).instances] for one in ours] == [[pids[0]], [pids[1]]]
    assert stop(bots[0]).left == ()
    assert set(made.lab.bots()) == {pids[1], pids[2]}


def test_two_bots_that_mean_one_service_are_both_told_so_and_neither_is_acted_on(made: Services) -> None:
    first = made.bot()
    unit = f"{made.unit('doge')}.service"
    (made.box.units / f"alias-{made.lab.token}.service").symlink_to(made.box.units / unit)
    made.box.reload()
    for other in (replace(made.target(unit=unit), name="other"), replace(made.target("alias"), name="other")):
        for seen in surveyed(first, other):
            assert f"doge and other both mean {made.unit('doge')}.service; give each bot its own." == seen.error


# ---------------------------------------------------------------------------------------------------- its output


def said(target: Target) -> bytes:
    path = RUNTIME.log(target)
    return path.read_bytes() if path and path.exists() else b""


def test_output_is_read_from_the_journal_as_it_is_and_without_systemds_own_words(made: Services) -> None:
    text = r"printf 'caf\303\251 \033[31mred\n\377\376 broken\n\nlast\n' >&2; seq 1 3000; exec sleep 1000"
    target = shell(made, text)
    start(target)
    wait_for(lambda: said(target).endswith(b"2999\n3000\n"))
    now = said(target)
    assert len(now) == 13923
    assert now.startswith("café \x1b[31mred\n".encode() + b"\xff\xfe broken\n")
    assert now.count(b"\n1000\n") == 1
    assert b"Started" not in now
    made.box.ctl("restart", made.unit("doge"))
    look(target)
    wait_for(lambda: len(said(target)) == 2 * len(now))
    assert said(target)[RUNTIME.run_offset(target) :] == now


def test_long_lines_are_in_the_journal_as_it_is_said(made: Services) -> None:
    """The journal cuts them at 48 KiB, and journalctl leaves out what is longer than 4 KiB unless it is told not to."""
    program = "import time; print('x' * 6000); print('y' * 100_000); print('end', flush=True); time.sleep(1000)"
    target = made.bot(command=[sys.executable, "-c", program])
    start(target)
    wait_for(lambda: said(target).endswith(b"end\n"))
    assert [len(line) for line in said(target).split(b"\n")] == [6000, 100_000, 3, 0]


def test_after_the_journal_has_lost_what_was_read_nothing_new_is_missing(made: Services) -> None:
    target = shell(made, "echo one; until test -e more; do sleep 0.1; done; echo two; echo three; exec sleep 1000")
    start(target)
    wait_for(lambda: said(target) == b"one\n")
    for words in (["--rotate"], ["--directory=/run/log/journal", "--vacuum-files=1"]):
        subprocess.run([*made.box.inside(), "journalctl", *words], check=True, capture_output=True)
    (made.lab.home / "more").touch()
    wait_for(lambda: said(target).endswith(b"three\n"))
    assert said(target) == b"one\ntwo\nthree\n"


def test_a_long_log_begins_with_its_newest_lines_and_goes_on_without_a_gap(made: Services) -> None:
    target = shell(made, "seq -w 1 60000; test -e more || sleep 1000; exec sleep 1000")
    start(target)
    wait_for(lambda: made.lab.processes())
    wait_for(lambda: said(target).endswith(b"60000\n"))
    lines = said(target).split()
    assert lines == [b"%05d" % number for number in range(60001 - len(lines), 60001)]


def test_a_log_of_its_own_is_read_where_it_is_and_its_newest_run_is_known(made: Services) -> None:
    path = made.lab.home / "log" / f"{made.unit('doge')}.log"
    path.parent.mkdir()
    for word in ("first", "second"):
        target = made.bot(f"--say={word}", "--graceful", StandardOutput=f"append:{made.lab.home}/log/%N.log")
        up(made, target)
        assert RUNTIME.log(target) == path
        wait_for(lambda word=word: path.read_text().endswith(f"{word}\n"))
        assert path.read_text()[RUNTIME.run_offset(target) :] == f"{word}\n"
        stop(target)
    assert path.read_text() == "first\nsecond\n"


def test_output_that_is_kept_nowhere_is_a_note_and_no_error(made: Services) -> None:
    target = made.bot("--say=unheard", StandardOutput="null")
    up(made, target)
    seen = look(target)
    assert seen.error is None
    assert any("kept nowhere" in note for note in seen.notes)
    assert said(target) == b""


# ---------------------------------------------------------------------------------------------------- who is asked


def test_a_service_that_does_not_exist_is_an_error_that_names_the_closest(made: Services) -> None:
    made.bot(name="bot-3m")
    there, asked = made.unit("bot-3m"), made.unit("bot-4m")
    with pytest.raises(EngineError, match=rf"has no unit {asked}\.service: did you mean {there}\.service\?"):
        look(made.target("bot-4m"))
    with pytest.raises(EngineError, match=f"has no unit {asked}"):
        start(made.target("bot-4m"))


def test_a_look_at_many_services_is_one_question(made: Services) -> None:
    bots = [made.bot(str(number), name=f"b{number}") for number in range(20)]
    pids = [pid_of(start(one)) for one in bots]
    asked = made.count_questions()
    looks = surveyed(*bots)
    assert [[one.pid for one in seen.instances] for seen in looks] == [[pid] for pid in pids]
    assert len(asked()) == 1


def test_a_systemd_that_is_away_is_its_bots_error_and_its_bots_live_on(made: Services) -> None:
    target = made.bot()
    pid = pid_of(up(made, target))
    made.box.kill()
    (seen,) = surveyed(target)
    assert seen.error is not None
    assert "cannot be reached" in seen.error
    assert "loginctl enable-linger" in seen.error
    with pytest.raises(EngineError, match="cannot be reached"):
        start(target)
    assert set(made.lab.bots()) == {pid}


# ---------------------------------------------------------------------------------------------------- the whole way


@contextmanager
def place(home: Path, build: Callable[[Services], Target] = Services.bot) -> Iterator[Place[Services]]:
    with fleet(home) as found, Lab(home) as lab:
        made = Services(lab, box())
        try:
            here = Place(made, found, build(made))
            here.write()
            yield here
            found.clear()
        finally:
            made.close()


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


def test_a_bot_that_runs_under_systemd_already_is_adopted_as_it_is(tmp_path: Path) -> None:
    with place(tmp_path / "home") as here:
        here.made.start()
        pid = here.made.pid()
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


def test_a_bot_that_the_kernel_ended_for_lack_of_memory_is_that_fault(tmp_path: Path) -> None:
    with place(tmp_path / "home") as here:
        here.up()
        lack_memory(here.made)
        wait_for(lambda: here.made.state() == "failed")
        verdict = here.found.verdict()
        assert verdict.fault is Fault.OUT_OF_MEMORY, verdict.sentence


def test_a_slow_loop_that_systemd_calls_running_is_a_loop(tmp_path: Path) -> None:
    def build(made: Services) -> Target:
        more = {"Restart": "always", "RestartSec": "0.2", "unit": {"StartLimitIntervalSec": 0}}
        return made.bot("--exit-after=0.7", "--exit-code=1", **more)

    with place(tmp_path / "home", build) as here:
        assert here.found.desk(Actor.PERSON).start("doge", "first start").result in ("done", "failed", "verifying")
        here.found.verdict()
        before = restarts(here.made)
        wait_for(lambda: restarts(here.made) >= before + 4)
        wait_for(lambda: here.made.state() == "active")
        verdict = here.found.desk().check(["doge"]).verdicts[0]
        assert verdict.fault is Fault.BOT_CRASH_LOOPING, (verdict.sentence, look(here.target))
        here.round()
        assert here.found.verdict().fault is Fault.BOT_CRASH_LOOPING


def test_a_bot_that_systemd_gave_up_is_a_loop_and_says_so(tmp_path: Path) -> None:
    def build(made: Services) -> Target:
        limit = {"StartLimitIntervalSec": 100, "StartLimitBurst": 2}
        return made.bot("--exit-after=0.1", "--exit-code=4", Restart="on-failure", RestartSec="0.1", unit=limit)

    with place(tmp_path / "home", build) as here:
        here.made.start()
        wait_for(lambda: here.made.state() == "failed")
        verdict = here.found.verdict()
        assert verdict.fault is Fault.BOT_CRASH_LOOPING
        assert "start-limit-hit, exit code 4" in verdict.sentence


def test_two_copies_are_brought_back_to_one_by_one_round(tmp_path: Path) -> None:
    with place(tmp_path / "home") as here:
        first = here.up()
        second = here.made.copy_of(here.target)
        wait_for(lambda: here.lab.trading(second))
        verdict = here.found.verdict()
        assert verdict.fault is Fault.BOT_DUPLICATED
        here.round()
        (only,) = here.lab.bots()
        assert only not in (first, second)
        assert here.found.verdict().status is Status.HEALTHY


def test_a_systemd_that_is_away_makes_its_bot_unknown_and_nothing_is_done(tmp_path: Path) -> None:
    with place(tmp_path / "home") as here:
        pid = here.up()
        here.made.box.kill()
        verdict = here.found.verdict()
        assert verdict.status is Status.UNKNOWN
        assert "cannot be reached" in verdict.sentence
        here.round()
        assert set(here.lab.bots()) == {pid}


def test_twenty_restarts_at_once_leave_one_bot_and_never_two(tmp_path: Path) -> None:
    with place(tmp_path / "home", lambda made: made.bot("--graceful")) as here:
        here.up()
        here.all_at_once()
        assert overlaps(here.lab.stamps()) == []
        assert len(here.lab.bots()) == 1
        assert here.found.verdict().status is Status.HEALTHY


def test_botkeep_killed_at_any_moment_of_a_restart_leaves_no_second_bot(tmp_path: Path) -> None:
    chance = random.Random(7)
    with place(tmp_path / "home", lambda made: made.bot("--graceful", Restart="always", RestartSec="0.2")) as here:
        here.up()
        for _ in range(8):
            caller = here.lab.caller("restart", here.target)
            time.sleep(chance.uniform(0.1, 1.2))
            caller.kill()
            caller.communicate()
            wait_for(lambda: len(here.lab.bots()) <= 1)
        here.round()
        assert overlaps(here.lab.stamps()) == []
        wait_for(lambda: here.found.verdict().status is Status.HEALTHY)
        assert len(here.lab.bots()) == 1


# ---------------------------------------------------------------------------------------------------- written units

HARD = [
    "a b", "; rm", ";", "#no", "100%", "%n", "%%", "it's", 'say "x"', "\\", "\\n", "$HOME", "${HOME}", "$$", "é", "",
    "a\tb", "a\nb", "-", "@x", "{", "\x7f", "*", "~",
]  # fmt: skip
TELL = (
    "import json, os, sys, time; json.dump([sys.argv[1:], dict(os.environ)], open('told.json', 'w')); time.sleep(1000)"
)


def install(here: Lab, made: Services, runtime: dict[str, Any], **more: Any) -> Target:
    """Units as botkeep writes them for the bot, put where systemd finds them."""
    unit = made.unit("doge")
    config = {"kind": "systemd", "unit": unit, "user": not made.box.system, "stop_grace": 1, **runtime}
    (here.home / "config").mkdir(exist_ok=True)
    (here.home / "config/bots.json").write_text(json.dumps({"bots": [{"name": "doge", "runtime": config, **more}]}))
    option = [] if made.box.system else ["--user"]
    out = here.home / "units"
    assert main(["--home", str(here.home), "systemd-units", "--out", str(out), *option]) == 0
    for path in out.iterdir():
        if path.suffix in (".service", ".timer"):
            made.box.write(path.name, path.read_text())
    made.box.enable(f"{unit}.service")
    return replace(made.target(), config=RUNTIMES["systemd"].Config(**config))


def test_a_written_unit_gives_every_word_and_variable_as_it_stands_in_bots_json(made: Services) -> None:
    values = {f"V{number}": word for number, word in enumerate(HARD)}
    (made.lab.home / "keys.env").write_text("KEY=from $the file\n")
    (made.lab.home / "keys.env").chmod(0o600)
    command = [sys.executable, "-c", TELL, *HARD]
    target = install(made.lab, made, {"command": command, "env": values, "env_file": "keys.env"})
    start(target)
    told = made.lab.home / "told.json"
    words, given = wait_for(lambda: json.loads(told.read_text()) if told.exists() and told.stat().st_size else None)
    assert words == HARD
    assert {name: given[name] for name in values} == values
    assert given["KEY"] == "from $the file"
    assert "from $the file" not in made.box.ctl("show", made.unit("doge")).stdout.decode()


def test_a_written_unit_keeps_the_contract_and_lets_no_second_copy_up(made: Services) -> None:
    target = install(made.lab, made, {"command": [sys.executable, "doge.py", "--graceful", "--say=hello"]})
    one = up(made, target)
    assert RUNTIME.log(target) == target.log_path
    wait_for(lambda: target.log_path.read_text() == "hello\n")
    assert target.log_path.stat().st_mode & 0o077 == 0
    assert [each.key for each in look(target).instances] == [one.key]
    stopped = stop(target, grace=5)
    assert (stopped.left, stopped.killed) == ((), False)
    assert ended(target).code == 0
    lock = made.lab.workspace.run_dir("doge") / "run.lock"
    wrapper = [sys.executable, "-I", "-m", exec_env.__name__, "--lock", str(lock), "--"]
    other = made.lab.by_hand(*wrapper, sys.executable, "doge.py", "--graceful", "--say=hello")
    wait_for(lambda: made.lab.trading(other))
    made.start()
    wait_for(lambda: made.state() == "failed")
    seen = look(target)
    assert {each.pid for each in seen.instances} == {other}
    assert seen.giving_up == ""
    assert any("holds its lock" in note for note in seen.notes)
    assert set(made.lab.bots()) == {other}


def test_a_round_that_systemd_starts_leaves_the_plain_processes_that_it_started_alive(made: Services) -> None:
    home = made.lab.home
    (home / "config").mkdir(exist_ok=True)
    tasks = [{"schedule": "*/5 * * * *", "task": "bot_health_check"}, {"schedule": "0 8 * * *", "task": "bot_backup"}]
    (home / "config/schedule.json").write_text(json.dumps(tasks))
    runtime = {"kind": "process", "command": made.command(), "stop_grace": 1}
    bots = {"bots": [{"name": "doge", "runtime": runtime}]}
    install(made.lab, made, {"command": made.command()})
    (home / "config/bots.json").write_text(json.dumps(bots))
    assert made.box.ctl("start", "botkeep.timer").returncode == 0
    assert b"botkeep.service" in made.box.ctl("list-timers", "--all").stdout
    assert main(["--home", str(home), "start", "doge", "--reason", "first start"]) == 0
    (pid,) = made.lab.bots()
    os.kill(pid, signal.SIGKILL)
    done = made.box.ctl("start", "botkeep.service")
    assert done.returncode == 0, done.stderr
    assert made.box.show("botkeep.service", "ActiveState", "Result") == ["inactive", "success"] or made.box.show(
        "botkeep.service", "Result"
    ) == ["success"]
    (again,) = made.lab.bots()
    assert again != pid
    made.box.ctl("stop", "botkeep.timer")
