"""A program that is asked one thing: real ones that answer, hang, write without end, and leave children behind."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from botkeep.profiles import command
from botkeep.profiles.command import Ran, run
from support.fleet import alive, wait_for

SECONDS = 20.0
"""Enough for a program that ends by itself, on a busy machine."""


def python(text: str, *, seconds: float = SECONDS, cwd: Path | None = None) -> Ran:
    return run([sys.executable, "-c", text], cwd, seconds)


def test_what_it_writes_and_how_it_ends_is_told() -> None:
    ran = run(["sh", "-c", "echo out; echo err >&2; exit 3"], None, SECONDS)
    assert ran == Ran("ok", code=3, output=b"out\n", errors=b"err\n")


def test_a_signal_that_ended_it_is_told_as_one() -> None:
    assert run(["sh", "-c", "kill -TERM $$"], None, SECONDS).code == -15


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["/nowhere/hbot"], "No such file or directory"),
        (["/etc/passwd"], "Permission denied"),
        (["a\0b"], "embedded null byte"),
    ],
)
def test_a_command_that_is_none_is_refused_and_said(words: list[str], why: str) -> None:
    assert run(words, None, SECONDS) == Ran("refused", f"cannot be executed: {why}")


def test_a_folder_that_is_gone_is_refused(tmp_path: Path) -> None:
    assert run(["true"], tmp_path / "gone", SECONDS).rule == "refused"


def test_it_runs_in_its_folder_and_in_a_session_of_its_own_with_nothing_to_read(tmp_path: Path) -> None:
    ran = python(
        "import os, sys; print(os.getcwd(), os.getsid(0) == os.getpid(), repr(sys.stdin.read()))", cwd=tmp_path
    )
    assert ran.output.decode() == f"{tmp_path} True ''\n"


def test_it_gets_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCHANGE_SECRET", "hunter2hunter2")
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    words = dict(line.split("=", 1) for line in run(["env"], None, SECONDS).output.decode().splitlines())
    assert "EXCHANGE_SECRET" not in words
    assert words["PATH"] == os.environ["PATH"]
    assert words["DOCKER_HOST"].endswith("docker.sock")


def test_what_it_wrote_before_it_closed_its_output_counts_and_so_does_how_it_ends_later() -> None:
    ran = run(["sh", "-c", "echo early; exec >&- 2>&-; sleep 0.3; exit 4"], None, SECONDS)
    assert (ran.rule, ran.code, ran.output) == ("ok", 4, b"early\n")


def test_all_of_a_long_answer_is_read() -> None:
    ran = python(f"import os; os.write(1, b'x' * {command.LIMIT - 1})")
    assert (ran.rule, len(ran.output)) == ("ok", command.LIMIT - 1)


@pytest.mark.parametrize("fd", [1, 2])
def test_output_without_end_is_cut_off(fd: int) -> None:
    assert python(f"import os\nwhile True: os.write({fd}, b'x' * 65536)") == Ran(
        "too-long", f"writes more than {command.LIMIT // 1024} KiB"
    )


def test_an_answer_that_is_too_long_does_not_count_although_it_ended() -> None:
    assert (
        python(f"import os; [os.write(1, b'x' * 1024) for _ in range({command.LIMIT // 1024 + 1})]").rule == "too-long"
    )


FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
pids = [subprocess.Popen(sleep, start_new_session=apart).pid for apart in (False, True)]
open(sys.argv[1] + ".new", "w").write(" ".join(map(str, [os.getpid(), *pids])))
os.replace(sys.argv[1] + ".new", sys.argv[1])
"""


def family(path: Path, after: str, seconds: float) -> tuple[Ran, list[int]]:
    """A program with a child of its own session and one in another, all deaf to SIGTERM; their pids."""
    ran = run([sys.executable, "-c", FAMILY + after, str(path)], None, seconds)
    return ran, [int(word) for word in path.read_text().split()]


def test_one_that_hangs_is_ended_with_its_children_at_the_deadline(tmp_path: Path) -> None:
    ran, pids = family(tmp_path / "pids", "time.sleep(600)", 3.0)
    assert (ran.rule, ran.text) == ("timeout", "did not answer within 3 s")
    assert len(pids) == 3
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_children_that_hold_its_pipes_neither_delay_an_answer_nor_outlive_it(tmp_path: Path) -> None:
    ran, pids = family(tmp_path / "pids", "print('done')", SECONDS)
    assert (ran.rule, ran.output) == ("ok", b"done\n")
    wait_for(lambda: not any(alive(pid) for pid in pids))


WRITER = """
import os, sys
open(sys.argv[1] + ".new", "w").write(str(os.getpid()))
os.replace(sys.argv[1] + ".new", sys.argv[1])
while True: os.write(1, b"x" * 65536)
"""


def test_a_child_that_goes_on_writing_after_its_parents_end_is_cut_off(tmp_path: Path) -> None:
    words = shlex.join(["setsid", sys.executable, "-c", WRITER, str(tmp_path / "pid")])
    ran = run(["sh", "-c", f"{words} & while [ ! -s {tmp_path}/pid ]; do sleep 0.01; done"], None, SECONDS)
    assert ran.rule in ("ok", "too-long"), "but not the deadline's"
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not alive(pid))


def test_nobody_elses_process_is_ended(tmp_path: Path) -> None:
    ran = python(
        "import os, subprocess, sys\n"
        "one = subprocess.Popen(['sleep', '600'], start_new_session=True, env={}); print(one.pid)"
    )
    stranger = int(ran.output)
    try:
        assert alive(stranger), "without our mark it is not known to be of ours"
    finally:
        os.kill(stranger, 9)


def test_no_descriptor_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    for words in (["true"], ["/nowhere"], ["sh", "-c", "setsid sleep 600 &"]):
        run(words, None, SECONDS)
    run(["sleep", "600"], None, 0.05)
    assert os.listdir("/proc/self/fd") == before


def test_the_hunt_for_children_is_short() -> None:
    begun = time.thread_time()
    for _ in range(10):
        run(["true"], None, SECONDS)
    assert time.thread_time() - begun < 2
