"""Whoever starts a bot is killed at each system call that changes something: at most one bot, and the next call heals.

Between two such calls the world does not change, so that this is as good as a kill at every instruction.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from botkeep.model import EngineError
from botkeep.runtimes import Target, process
from botkeep.runtimes.record import read_exit, read_record
from support import forks
from support.bots import Lab, ended, look, overlaps, pid_of, start, stop, wait_for
from support.kills import injected, needs_strace

pytestmark = needs_strace


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


def converges(lab: Lab, bot: Target) -> None:
    """At most one is up once nothing is under way; then the next caller has exactly one."""
    wait_for(lambda: not process.starting(bot))
    wait_for(lambda: set(lab.bots_and_no_tracers()) <= recorded(bot))
    assert len(look(bot).instances) <= 1
    assert stop(bot, 0.1).left == ()
    assert not lab.processes()
    pid = pid_of(start(bot))
    wait_for(lambda: lab.trading(pid))
    assert list(lab.bots()) == [pid]
    assert [one.pid for one in look(bot).instances] == [pid]
    assert stop(bot, 0.1).left == ()
    assert overlaps(lab.stamps()) == []


def recorded(bot: Target) -> set[int]:
    """The one bot that may live: there must be no unrecorded one."""
    record = read_record(bot.run_dir)
    return {record.pid} if record else set()


CALLER = ("flock", "write", "fsync", "rename", "unlink", "?vfork", "clone", "wait4", "exit_group")


@pytest.mark.parametrize("call", CALLER)
def test_a_caller_killed_in_the_middle_leaves_at_most_one_bot(lab: Lab, call: str) -> None:
    bot = lab.target()
    (bot.run_dir / "instance.json.1").touch()  # something to unlink

    def work() -> None:
        process.start(bot, "e1", time.monotonic() + 20)

    number = 0
    while injected(work, call, number := number + 1, "signal=SIGKILL") == -signal.SIGKILL:
        converges(lab, bot)
        (bot.run_dir / "instance.json.1").touch()
        assert number < 20


LAUNCHER = ("pipe2", "clone", "setsid")
WATCHER = ("dup2", "pipe2", "clone", "write", "fsync", "rename", "setsid", "chdir", "setitimer", "wait4")


@pytest.mark.parametrize(
    ("stage", "call"), [("launch", call) for call in LAUNCHER] + [("watch", call) for call in WATCHER]
)
def test_a_watcher_killed_in_the_middle_leaves_at_most_one_bot(
    lab: Lab, stage: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = lab.target()
    number = 0
    while was_killed(lab, bot, stage, call, number := number + 1, monkeypatch):
        converges(lab, bot)
        (bot.run_dir / "exit.json").unlink(missing_ok=True)
        assert number < 20
    assert number > 1, f"{stage} makes no call of {call}: nothing was tried"
    assert stop(bot, 0.1).left == ()


def test_a_launcher_killed_on_its_way_out_has_started_the_bot(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    bot = lab.target()
    monkeypatch.setattr(sys, "executable", str(python_killed_at(lab, "launch", "exit_group", 1)))
    pid = pid_of(start(bot))
    assert list(lab.bots()) == [pid]


def test_a_bot_whose_caller_and_launcher_were_killed_is_watched_all_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = lab.target()
    gate = lab.home / "go on"
    monkeypatch.setattr(sys, "executable", str(python_that_waits(lab, gate)))
    caller = forks.start(lambda: process.start(bot, "e1", time.monotonic() + 20) and None)
    launcher = wait_for(lambda: next((pid for pid, one in lab.watchers().items() if "launch" in one.argv), 0))
    wait_for(lambda: is_waiting(lab))
    for pid in (caller, launcher):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(caller, 0)
    gate.touch()
    (pid,) = wait_for(lambda: lab.pids("bot"))
    os.kill(pid, signal.SIGKILL)
    assert ended(bot).signal == signal.SIGKILL


def test_a_watcher_whose_launcher_was_killed_starts_nothing_after_the_caller_was_told_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = lab.target()
    slow = python_injected(lab, "watch", "pipe2", "delay_enter=3000000:when=1")
    monkeypatch.setattr(sys, "executable", str(slow))
    said, say = os.pipe()
    caller = forks.start(lambda: os.write(say, why_not(bot).encode()) and None)
    wait_for(lambda: any("watch" in one.argv[4:5] for one in lab.watchers().values()))
    (launcher,) = (pid for pid, one in lab.watchers().items() if "launch" in one.argv)
    os.kill(launcher, signal.SIGKILL)
    assert os.read(said, 1000).startswith(b"doge could not be started: its watcher ended")
    forks.finish([caller])
    wait_for(lambda: not lab.processes())
    assert lab.stamps() == []
    os.close(said)
    os.close(say)


def why_not(bot: Target) -> str:
    try:
        process.start(bot, "e1", time.monotonic() + 20)
    except EngineError as error:
        return str(error)
    return "started"


def test_a_start_under_way_is_void_once_its_lock_file_was_removed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice to remove a lock is common: the second caller is let in, and the first start must not happen too."""
    bot = lab.target()
    gate = lab.home / "go on"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(python_that_waits(lab, gate)))
        caller = forks.start(lambda: why_not(bot) and None)
        launcher = wait_for(lambda: next((pid for pid, one in lab.watchers().items() if "launch" in one.argv), 0))
        wait_for(lambda: is_waiting(lab))
    for pid in (caller, launcher):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(caller, 0)
    (bot.run_dir / "run.lock").unlink()
    second = pid_of(start(bot))
    gate.touch()
    wait_for(lambda: len(lab.watchers()) == 1 and not is_waiting(lab))
    assert list(lab.bots()) == [second]
    assert lab.pids("bot") <= {second}


def test_a_look_between_the_end_and_its_record_waits_for_the_record(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    bot = lab.target()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(python_injected(lab, "watch", "rename", "delay_enter=150000")))
        pid = pid_of(start(bot))
    os.kill(pid, signal.SIGKILL)
    assert ended(bot).signal == signal.SIGKILL


def was_killed(lab: Lab, bot: Target, stage: str, call: str, number: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Start and end the bot under a Python that is killed at that call; whether it was."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(python_killed_at(lab, stage, call, number)))
        try:
            started = process.start(bot, "e1", time.monotonic() + 20)
        except EngineError:
            return True
    assert len(lab.bots_and_no_tracers()) <= 1
    if started.instance is None:
        return True
    record = read_record(bot.run_dir)
    assert record
    os.kill(record.pid, signal.SIGKILL)
    wait_for(lambda: record.pid not in lab.processes())
    became = wait_for(lambda: _recorded(bot, record.key) or _gone(lab, record.shim_pid))
    return became == "gone"


def _recorded(bot: Target, key: str) -> str:
    seen = read_exit(bot.run_dir)
    return "recorded" if seen and seen["key"] == key else ""


def _gone(lab: Lab, watcher: int) -> str:
    return "" if watcher in lab.processes() else "gone"


def python_killed_at(lab: Lab, stage: str, call: str, number: int) -> Path:
    """A Python whose process of that stage (shim.py) is killed at its call of that number."""
    return python_injected(lab, stage, call, f"signal=SIGKILL:when={number}")


def python_injected(lab: Lab, stage: str, call: str, effect: str) -> Path:
    """A Python in whose process of that stage something happens at that call."""
    follow = "-f" if call in ("setsid", "chdir") else ""
    trace = f"-e trace={call} -e inject={call}:{effect}"
    real = os.path.realpath(sys.executable)
    return python(lab, f'[ "$4" = {stage} ] && exec strace -D -qq {follow} -o /dev/null {trace} {real} "$@"')


def python_that_waits(lab: Lab, gate: Path) -> Path:
    """A Python that becomes a watcher only once that file is there."""
    return python(lab, f'if [ "$4" = watch ]; then while [ ! -e "{gate}" ]; do sleep 0.01; done; fi')


def is_waiting(lab: Lab) -> bool:
    """Whether there is a watcher before that gate: bash, still."""
    return any(one.comm == "python" and "bash" in one.argv[0] for one in lab.processes().values())


def python(lab: Lab, first: str) -> Path:
    """A Python that does something else first; with a pyvenv.cfg, so that it finds its library wherever it is."""
    real = os.path.realpath(sys.executable)
    (lab.home / "venv/bin").mkdir(parents=True, exist_ok=True)
    (lab.home / "venv/pyvenv.cfg").write_text(f"home = {os.path.dirname(real)}\n")
    wrapper = lab.home / "venv/bin/python"
    wrapper.write_text(f'#!{shutil.which("bash")}\n{first}\nexec -a "$0" {real} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper
