"""Who has a file open for writing: by what the kernel says of descriptors, never by asking strangers' files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from botkeep.openfiles import inode_of, open_writers, writes_to, written_by
from support.kills import needs_strace

TOOLS = Path(__file__).parents[2] / "tools"
HOLD = """
import os, sys, time
for one in sys.argv[1:]:
    os.open(one, os.O_RDWR | os.O_CREAT)
print(flush=True)
time.sleep(1000)
"""


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for one in found:
        one.kill()
        one.wait()
        if one.stdout:
            one.stdout.close()


def holding(started: list[subprocess.Popen[bytes]], *paths: Path, under: tuple[str, ...] = ()) -> int:
    """A process that has these open for writing."""
    command = [*under, sys.executable, "-c", HOLD, *map(str, paths)]
    one = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    started.append(one)
    assert one.stdout
    one.stdout.readline()
    return one.pid


def test_who_writes_a_file_is_found_under_any_of_its_names_and_a_reader_is_not(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    path, other = tmp_path / "trades.csv", tmp_path / "other.csv"
    path.touch()
    os.link(path, tmp_path / "linked.csv")
    (tmp_path / "symbolic.csv").symlink_to(path)
    pid = holding(started, tmp_path / "linked.csv")
    holding(started, other)
    with path.open():
        assert open_writers(path) == open_writers(tmp_path / "symbolic.csv") == (pid,)
    assert writes_to(pid, path)
    assert not writes_to(pid, other)
    assert inode_of(path) in written_by(pid)
    assert inode_of(other) not in written_by(pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system over a folder")
def test_a_file_is_found_through_another_place_that_it_is_mounted_to(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    """As a container has the machine's folder: with mounts of its own."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    path = tmp_path / "here/trades.csv"
    path.touch()
    script = f'mount --bind {tmp_path}/here {tmp_path}/there && exec "$@"'
    pid = holding(started, tmp_path / "there/trades.csv", under=("unshare", "-m", "sh", "-c", script, "sh"))
    assert open_writers(path) == (pid,)
    assert inode_of(path) in written_by(pid)
    assert not (tmp_path / "there/trades.csv").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system over a folder")
def test_the_same_inode_on_another_file_system_is_another_file(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    script = 'mount -t tmpfs none a && mount -t tmpfs none b && touch a/x b/x && stat -c %i a/x b/x && exec "$@"'
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    ask = (
        f"import os, sys; sys.path.insert(0, {str(TOOLS)!r}); from pathlib import Path; "
        "from botkeep.openfiles import inode_of, open_writers; held = open('a/x', 'w'); "
        "a, b = Path('a/x'), Path('b/x'); assert a.stat().st_ino == b.stat().st_ino; "
        "assert inode_of(a) != inode_of(b); assert open_writers(a) == (os.getpid(),); assert open_writers(b) == ()"
    )
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", ask]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_strace
def test_no_strangers_file_is_asked_for_anything(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    """A `stat` through /proc/PID/fd of a file on a network mount that is gone never comes back."""
    path = tmp_path / "trades.csv"
    path.touch()
    strangers = [tmp_path / f"stranger-{number}" for number in range(20)]
    pid, writer = holding(started, *strangers), holding(started, path)
    ask = (
        f"import sys; sys.path.insert(0, {str(TOOLS)!r}); from pathlib import Path; from botkeep import openfiles; "
        f"print(openfiles.open_writers(Path({str(path)!r}))); print(len(openfiles.written_by({pid})))"
    )
    trace = tmp_path / "trace"
    calls = "trace=stat,newfstatat,statx,fstatat64,stat64,open,openat,access,faccessat"
    command = ["strace", "-f", "-qq", "-e", calls, "-o", str(trace), sys.executable, "-c", ask]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"({writer},)\n20\n"
    asked = [line for line in trace.read_text().splitlines() if re.search(r"/proc/\d+/fd/\d+", line)]
    followed = [line for line in asked if "AT_SYMLINK_NOFOLLOW" not in line]
    assert len(asked) >= 20
    assert {re.search(r"/proc/(\d+)/", line)[1] for line in followed} == {str(writer)}  # type: ignore[index]


def test_a_file_that_is_not_there_has_no_writers(tmp_path: Path) -> None:
    assert inode_of(tmp_path / "missing") is None
    assert open_writers(tmp_path / "missing") == ()
    assert not writes_to(os.getpid(), tmp_path / "missing")
    assert written_by(1 << 22) == set()
