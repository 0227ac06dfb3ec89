"""Command lines as people write them: which program, which script, which arguments."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botkeep.runtimes.base import rivals
from botkeep.runtimes.procs import (
    Command,
    Proc,
    ProcessTable,
    Program,
    interpreter_of,
    is_same_program,
    program_key,
    read_proc,
    read_program,
    watched_by,
    without_ending,
)
from support.bots import wait_for

READ = {
    "python doge.py": ("python", "doge.py", False, []),
    "/usr/bin/python3.11 -u ./doge.py 3m --dry": ("python", "./doge.py", False, ["3m", "--dry"]),
    "python -O doge.py x": ("python", "doge.py", False, ["x"]),
    "python -OO -W error -X dev doge.py": ("python", "doge.py", False, []),
    "python -Xtracemalloc -Wignore doge.py": ("python", "doge.py", False, []),
    "python -bb -X importtime doge.py -m": ("python", "doge.py", False, ["-m"]),
    "python -m bots.doge 3m": ("python", "bots.doge", True, ["3m"]),
    "python -um bots.doge": ("python", "bots.doge", True, []),
    "python -I -S -m doge": ("python", "doge", True, []),
    "pypy3 doge.py": ("pypy", "doge.py", False, []),
    "bash run.sh": ("bash", "run.sh", False, []),
    "-bash": None,
    "bash": None,
    "bash -c 'python doge.py; true'": None,
    "sh -ec 'python doge.py'": None,
    "bash -euo pipefail run.sh fast": ("bash", "run.sh", False, ["fast"]),
    "bash -O extglob +o posix run.sh": ("bash", "run.sh", False, []),
    "python -c 'import doge' doge.py": None,
    "python -Ic 'import doge'": None,
    "python -": None,
    "python -m": None,
    "node --max-old-space-size=99 -r ts-node/register bot.ts": ("node", "bot.ts", False, []),
    "node -e 'run()' bot.js": None,
    "bun run bot.ts": ("bun", "bot.ts", False, []),
    "java -Xmx512m -cp lib/* -jar bot.jar live": ("java", "bot.jar", False, ["live"]),
    "ruby -rjson bot.rb": ("ruby", "bot.rb", False, []),
    "perl -I lib bot.pl": ("perl", "bot.pl", False, []),
    "freqtrade trade -c a.json": ("", "freqtrade", False, ["trade", "-c", "a.json"]),
    "./doge": ("", "./doge", False, []),
    "pythonic doge.py": ("", "pythonic", False, ["doge.py"]),
    "''": None,
}


@pytest.mark.parametrize(("line", "wanted"), READ.items())
def test_a_command_line_is_read_as_its_interpreter_reads_it(
    line: str, wanted: tuple[str, str, bool, list[str]] | None
) -> None:
    expected = wanted and Program(wanted[0], wanted[1], wanted[2], tuple(wanted[3]))
    assert read_program(tuple(shlex.split(line))) == expected


@given(st.lists(st.text(max_size=5), max_size=6))
def test_any_command_line_can_be_read(argv: list[str]) -> None:
    program = read_program(("python", *argv))
    assert program is None or program.script in argv
    program_key(tuple(argv))


@pytest.mark.parametrize(
    ("word", "name"),
    [("/usr/bin/python3.11", "python"), ("-bash", "bash"), ("node18", "node"), ("doge", ""), ("python3-doge", "")],
)
def test_an_interpreter_is_known_by_its_whole_name(word: str, name: str) -> None:
    assert interpreter_of(word) == name


def test_only_the_ending_of_a_script_is_left_off() -> None:
    assert [without_ending(name) for name in ("doge.py", "bot.v2", ".py", "doge.py.bak")] == [
        "doge",
        "bot.v2",
        ".py",
        "doge.py.bak",
    ]


def own(*argv: str) -> Proc:
    """This process, with another command line: it works in the folder that the tests run in."""
    proc = read_proc(os.getpid())
    assert proc
    return Proc(proc.pid, proc.ppid, "S", proc.start_ticks, proc.uid, proc.comm, argv, proc.rss_bytes)


SAME = [
    ("python doge.py", "python3 ./doge.py", True),
    ("python doge.py", "/venv/bin/python3.11 -u {cwd}/doge.py", True),
    ("./doge.py", "python {cwd}/doge.py", True),
    ("python doge.py ''", "python doge.py", True),
    ("freqtrade trade", "/venv/bin/python /venv/bin/freqtrade trade", True),
    ("python -m doge", "python3 -m doge", True),
    ("bash -c 'python doge.py; true'", "bash -c 'python doge.py; true'", True),
    ("python doge.py", "python elsewhere/doge.py", False),
    ("python doge.py", "python /elsewhere/doge.py", False),
    ("python doge.py", "python doge.py 3m", False),
    ("python doge.py", "python doge_test.py", False),
    ("python doge.py", "node doge.py", False),
    ("python doge.py", "python -m doge", False),
    ("python -m doge", "python -m doge2", False),
    ("freqtrade trade", "freqtrade backtest", False),
    ("bash -c 'python doge.py; true'", "bash -c 'python doge.py'", False),
    ("./a/doge", "./b/doge", False),
]


@pytest.mark.parametrize(("command", "running", "same"), SAME)
def test_two_command_lines_are_one_program_or_two(command: str, running: str, same: bool) -> None:
    cwd = os.getcwd()
    argv = shlex.split(running.format(cwd=cwd))
    assert is_same_program(own(*argv), tuple(shlex.split(command)), cwd) is same


def test_a_program_text_is_another_one_in_another_folder(tmp_path: Path) -> None:
    command = ("bash", "-c", "python doge.py; true")
    assert not is_same_program(own(*command), command, str(tmp_path))


def test_rivals_are_found_by_the_name_and_the_arguments_of_their_program() -> None:
    first, second = Command("a", ("python", "x/bot.py", "3m"), "/a"), Command("b", ("./bot.py", "3m"), "/b")
    known = rivals([first, second, Command("c", ("freqtrade", "trade"), "/c")])
    assert known == {
        ("bot.py", "3m"): (first, second),
        ("freqtrade", "trade"): (Command("c", ("freqtrade", "trade"), "/c"),),
    }


SHIM = "/any/venv/botkeep/runtimes/shim.py"


@pytest.mark.parametrize(
    ("argv", "folder"),
    [
        ((sys.executable, "-I", "-S", SHIM, "watch", "/ws/run/doge", "3", "1", "e1", "5"), "/ws/run/doge"),
        ((sys.executable, "-I", "-S", SHIM, "launch", "/ws/run/doge", "3", "1", "e1"), "/ws/run/doge"),
        ((sys.executable, "-I", "-S", SHIM, "sleep", "/ws/run/doge"), None),
        ((sys.executable, "-I", "-S", "/ws/shim.py", "watch", "/ws/run/doge"), None),
        ((sys.executable, SHIM, "watch", "/ws/run/doge"), None),
        (("tail", "-f", SHIM), None),
    ],
)
def test_a_watcher_is_known_by_its_whole_command_line(argv: tuple[str, ...], folder: str | None) -> None:
    assert watched_by(own(*argv)) == folder


def proc(pid: int, ppid: int, ticks: int = 10, state: str = "S", threads: int = 1, *argv: str) -> Proc:
    return Proc(pid, ppid, state, ticks, os.geteuid(), "x", argv, 0, threads)


def test_nobody_is_older_than_their_parent() -> None:
    """A parent that started after its child has a reused pid: the child is a stranger's."""
    table = ProcessTable({one.pid: one for one in (proc(10, 1, 50), proc(11, 10, 50), proc(12, 10, 40))})
    assert table.descendants(10) == (11,)


def test_a_loop_of_parents_ends() -> None:
    table = ProcessTable({one.pid: one for one in (proc(10, 11), proc(11, 10))})
    assert list(table.ancestors(10)) == [11]
    assert set(table.descendants(10)) == {10, 11}


def test_this_program_and_what_another_watcher_guards_are_nobodys_descendants() -> None:
    me = os.getpid()
    watch = (sys.executable, "-I", "-S", SHIM, "watch")
    family = [
        proc(10, 1),
        proc(11, 10, 10, "S", 1, *watch, "/run/other"),
        proc(12, 11),
        proc(13, 10, 10, "S", 1, *watch, "/run/own"),
        proc(14, 13),
        proc(15, 10, 10, "Z"),
        proc(16, 10, 10, "Z", 2),
        proc(me, 10),
        proc(17, me),
    ]
    table = ProcessTable({one.pid: one for one in family})
    assert set(table.descendants(10, "/run/own")) == {13, 14, 16}


def test_a_table_made_from_another_sees_who_died_who_is_new_and_who_became_another_program() -> None:
    sleeper, dies = (subprocess.Popen(["sleep", "600"]) for _ in range(2))
    changes = subprocess.Popen(["sh", "-c", "read line; exec sleep 601"], stdin=subprocess.PIPE)
    new = None
    try:
        wait_for(lambda: all(is_asleep(one.pid) for one in (sleeper, dies)) and read_proc(changes.pid))
        before = ProcessTable.read().to_keep()
        dies.kill()
        assert changes.stdin
        with changes.stdin as line:
            line.write(b"go\n")
        new = subprocess.Popen(["sleep", "602"])
        wait_for(lambda: is_dead(dies.pid) and words_of(changes.pid) == ("sleep", "601"))
        after = before.again()
        assert after.procs[sleeper.pid] is before.procs[sleeper.pid]
        assert before.procs[dies.pid].dead is False
        assert after.procs[dies.pid].dead is True
        assert after.procs[changes.pid].argv == ("sleep", "601")
        assert new.pid in after.procs
    finally:
        for one in (sleeper, dies, changes, new):
            if one is not None:
                one.kill()
                one.wait()


def is_asleep(pid: int) -> bool:
    """As itself, and no longer as what it was forked from."""
    now = read_proc(pid)
    return now is not None and now.state == "S" and now.argv == ("sleep", "600")


def is_dead(pid: int) -> bool:
    now = read_proc(pid)
    return now is None or now.dead


def words_of(pid: int) -> tuple[str, ...]:
    now = read_proc(pid)
    return now.argv if now else ()
