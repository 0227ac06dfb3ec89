"""Never two instances of a bot: every way in which one hides, doubles, or looks like somebody else. Real processes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from botkeep.model import EngineError, InstanceState
from botkeep.runtimes import Target, process
from botkeep.runtimes.find import lock_name
from botkeep.runtimes.procs import Proc, lock_holders
from support import namespaces
from support.bots import DEADLINE, Lab, ended, look, overlaps, pid_of, start, stop, wait_for

NOBODY = 65534


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


def up(lab: Lab, target: Target, count: int = 1) -> int:
    """Started, and `count` of its processes trade; returns the bot's pid."""
    pid = pid_of(start(target))
    wait_for(lambda: len({one.pid for one in lab.stamps() if one.root == pid}) == count)
    return pid


def hand(lab: Lab, *argv: str, cwd: Path | None = None) -> int:
    """A copy of the paper bot that somebody started by hand and that trades."""
    pid = lab.by_hand(*argv, cwd=cwd)
    wait_for(lambda: lab.trading_in(cwd or lab.home, pid))
    return pid


def pids(target: Target) -> set[int | None]:
    return {one.pid for one in look(target).instances}


def watcher_of(lab: Lab) -> int:
    (pid,) = lab.watchers()
    return pid


def set_record(target: Target, **changes: object) -> None:
    """What a person, a restored folder or another boot may have left there."""
    path = target.run_dir / "instance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# ---------------------------------------------------------------------------------------------------- what hides

HIDING = {
    "a daemon that left session, group and parent": (["--daemon"], 2),
    "a plain child, whose descriptors are closed": (["--popen"], 2),
    "a daemon under another name": (["--daemon", "--rename=something else"], 2),
    "forked workers with an identical command line": (["--workers=3"], 4),
    "all of them, and SIGTERM ignored": (["--ignore-term", "--popen", "--daemon", "--workers=1"], 5),
}


@pytest.mark.parametrize(("switches", "count"), HIDING.values(), ids=HIDING)
@pytest.mark.parametrize("killed", ["nothing", "the bot", "the bot and its watcher"])
def test_whatever_a_bot_leaves_behind_is_ended_before_the_next_one_starts(
    lab: Lab, switches: list[str], count: int, killed: str
) -> None:
    bot = lab.target("doge", *switches)
    first = up(lab, bot, count)
    if killed != "nothing":
        victims = [first] if killed == "the bot" else [watcher_of(lab), first]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not set(victims) & set(lab.processes()))
        with pytest.raises(EngineError, match="Stop it first"):
            start(bot)
    stopped = stop(bot)
    assert stopped.left == ()
    assert stopped.stopped
    assert not lab.processes()
    second = up(lab, bot, count)
    assert stop(bot).left == ()
    assert overlaps(lab.stamps()) == []
    assert lab.pids("bot") == {first, second}


def test_a_plain_child_escapes_the_lock_and_is_found_all_the_same(lab: Lab) -> None:
    bot = lab.target("doge", "--popen")
    first = up(lab, bot, 2)
    (child,) = lab.pids("child")
    assert child not in lock_holders({str(lock_name(bot))})
    os.kill(watcher_of(lab), signal.SIGKILL)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: set(lab.processes()) == {child})
    assert {one.pid for one in stop(bot).stopped} == {child}
    assert not lab.processes()


def test_what_renamed_itself_and_closed_nothing_is_found_by_the_lock_alone(lab: Lab) -> None:
    bot = lab.target("doge", "--daemon", "--rename=nginx: worker process")
    first = up(lab, bot, 2)
    (daemon,) = lab.pids("daemon")
    os.kill(watcher_of(lab), signal.SIGKILL)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: set(lab.processes()) == {daemon})
    assert Path(f"/proc/{daemon}/cmdline").read_bytes().rstrip(b"\0") == b"nginx: worker process"
    assert b"BOTKEEP" not in Path(f"/proc/{daemon}/environ").read_bytes()
    assert lock_holders({str(lock_name(bot))}) == {daemon}
    assert {one.pid for one in stop(bot).stopped} == {daemon}


def test_workers_and_daemons_belong_to_one_instance(lab: Lab) -> None:
    bot = lab.target("doge", "--popen", "--daemon", "--workers=2")
    first = up(lab, bot, 7)
    (one,) = look(bot).instances
    assert one.pid == first
    assert set(one.members) == {stamp.pid for stamp in lab.stamps()}


def test_workers_whose_bot_and_watcher_died_are_one_instance_and_no_duplicates(lab: Lab) -> None:
    bot = lab.target("doge", "--workers=3")
    first = up(lab, bot, 4)
    os.kill(watcher_of(lab), signal.SIGKILL)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: first not in lab.processes())
    (one,) = look(bot).instances
    assert set(one.members) == lab.pids("worker")


def test_workers_of_a_copy_started_by_hand_are_no_duplicates(lab: Lab) -> None:
    bot = lab.target("doge", "--workers=3")
    pid = hand(lab, *bot.config.command)
    wait_for(lambda: len(lab.pids("worker")) == 3)
    (one,) = look(bot).instances
    assert (one.pid, set(one.members)) == (pid, {pid, *lab.pids("worker")})


def test_a_wrapper_shell_belongs_to_its_bot(lab: Lab) -> None:
    script = lab.program(f"{lab.token}.py").name
    bot = lab.target(command=["bash", "-c", f"{sys.executable} {script}; true"], process_name=script)
    shell = pid_of(start(bot))
    (python,) = wait_for(lambda: lab.pids("bot"))
    (one,) = look(bot).instances
    assert (one.pid, set(one.members)) == (shell, {shell, python})
    assert stop(bot).left == ()
    assert not lab.processes()


def test_a_bot_whose_wrapper_shell_was_killed_is_not_doubled(lab: Lab) -> None:
    lab.program()
    bot = lab.target(command=["bash", "-c", f"{sys.executable} doge.py; true"])
    shell = pid_of(start(bot))
    (python,) = wait_for(lambda: lab.pids("bot"))
    os.kill(shell, signal.SIGKILL)
    assert ended(bot).signal == signal.SIGKILL
    assert python in lab.bots()
    with pytest.raises(EngineError, match="Stop it first"):
        start(bot)
    assert [one.pid for one in stop(bot).stopped] == [python]
    start(bot)
    wait_for(lambda: len(lab.pids("bot")) == 2)
    stop(bot)
    assert overlaps(lab.stamps()) == []


def test_a_shell_that_restarts_its_bot_is_told_to_be_in_the_way(lab: Lab) -> None:
    bot = lab.target()
    loop = lab.by_hand("bash", "-c", f"while true; do {sys.executable} doge.py; done")
    wait_for(lambda: lab.pids("bot"))
    stopped = process.stop(bot, 0.2, time.monotonic() + 4)
    assert stopped.left
    with pytest.raises(EngineError, match="still alive"):
        start(bot)
    os.kill(loop, signal.SIGKILL)
    assert stop(bot).left == ()


def test_a_process_whose_first_thread_ended_is_alive(lab: Lab) -> None:
    bot = lab.target("doge", "--leader-exits")
    pid = up(lab, bot)
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z")
    assert pids(bot) == {pid}
    assert stop(bot).left == ()
    assert not lab.processes()


def test_a_zombie_is_dead(lab: Lab) -> None:
    bot = lab.target()
    pid = hand(lab, *bot.config.command)
    assert pids(bot) == {pid}
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z")
    os.kill(pid, 0)
    assert pids(bot) == set()
    up(lab, bot)


# ---------------------------------------------------------------------------------------------------- the watcher


def test_a_killed_watcher_leaves_a_bot_that_is_adopted_by_its_record(lab: Lab) -> None:
    bot = lab.target()
    pid = up(lab, bot)
    os.kill(watcher_of(lab), signal.SIGKILL)
    wait_for(lambda: not lab.watchers())
    (one,) = look(bot).instances
    assert (one.pid, one.how, one.ours, one.entry) == (pid, "recorded", True, "e1")
    assert lock_holders({str(lock_name(bot))}) == {pid}
    with pytest.raises(EngineError, match="Stop it first"):
        start(bot)
    os.kill(pid, signal.SIGKILL)
    seen = ended(bot)
    assert (seen.key, seen.code, seen.signal, seen.at) == (one.key, None, None, None)


def test_a_frozen_watcher_neither_hides_its_bot_nor_keeps_it_from_being_started_again(lab: Lab) -> None:
    bot = lab.target()
    first = up(lab, bot)
    watcher = watcher_of(lab)
    os.kill(watcher, signal.SIGSTOP)
    assert pids(bot) == {first}
    os.kill(first, signal.SIGKILL)
    assert ended(bot).signal is None
    assert stop(bot).left == ()
    assert ended(bot).signal == signal.SIGKILL
    assert not lab.processes()
    up(lab, bot)
    assert overlaps(lab.stamps()) == []


@pytest.mark.parametrize("leave", [False, True], ids=["before it may begin", "when it may begin"])
def test_a_watcher_frozen_before_it_started_its_bot_is_ended_with_the_next_stop(lab: Lab, leave: bool) -> None:
    """Whoever called was killed meanwhile: what it set going must not come up after the stop."""
    bot = lab.target()
    order = lab.caller("start", bot, halts=True)
    watcher, argv = wait_for(lambda: next((found for found in map(waits, lab.watchers().values()) if found), None))
    wait_for(lambda: state_of(order.pid) == "T")
    os.kill(watcher, signal.SIGSTOP)
    wait_for(lambda: state_of(watcher) == "T")
    if leave:
        os.kill(order.pid, signal.SIGCONT)
        wait_for(lambda: bytes_in_pipe(watcher, int(argv[-1])) > 0)
    order.kill()
    assert not lab.pids("bot")
    assert stop(bot).left == ()
    assert not lab.processes()
    first = up(lab, bot)
    assert list(lab.bots()) == [first]
    assert lab.pids("bot") == {first}


def waits(one: Proc) -> tuple[int, tuple[str, ...]] | None:
    """A watcher, which is told to begin by a pipe, its last argument; not what it was forked from."""
    return (one.pid, one.argv) if one.argv[4] == "watch" else None


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def bytes_in_pipe(pid: int, number: int) -> int:
    """How many bytes wait there for that process."""
    end = os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int.from_bytes(fcntl.ioctl(end, termios.FIONREAD, bytes(4)), sys.byteorder)
    finally:
        os.close(end)


def test_signals_for_the_group_do_not_reach_the_watcher(lab: Lab) -> None:
    bot = lab.target("doge", "--graceful")
    up(lab, bot)
    watcher = watcher_of(lab)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        os.kill(watcher, number)
    stop(bot)
    assert ended(bot).code == 0


def test_a_bot_inherits_no_ignored_and_no_blocked_signal_of_its_starter(lab: Lab) -> None:
    """Under an ignored SIGCHLD, which some hosts pass on, the kernel would throw the exit away."""
    bot = lab.target("doge", "--exit-after=0.1", "--exit-code=5", "--signals=signals")
    lab.caller("start", bot, ignoring=[signal.SIGCHLD, signal.SIGQUIT, signal.SIGUSR1], blocking=[signal.SIGTERM])
    wait_for(lambda: lab.pids("bot"))
    assert ended(bot).code == 5
    assert (lab.home / "signals").read_text() == "[]"


# ---------------------------------------------------------------------------------------------------- lock and record


def test_a_removed_lock_file_lets_no_second_one_in(lab: Lab) -> None:
    bot = lab.target()
    pid = up(lab, bot)
    (bot.run_dir / "run.lock").unlink()
    with pytest.raises(EngineError, match=f"pid {pid} .* is still alive"):
        start(bot)
    assert pids(bot) == {pid}


def test_with_lock_and_record_removed_what_escaped_everything_else_is_found_by_the_watcher(lab: Lab) -> None:
    bot = lab.target("doge", "--daemon", "--rename=something else")
    up(lab, bot, 2)
    for name in ("run.lock", "instance.json"):
        (bot.run_dir / name).unlink()
    with pytest.raises(EngineError, match="Stop it first"):
        start(bot)
    assert stop(bot).left == ()
    assert not lab.processes()


def test_with_its_lock_file_removed_and_its_watcher_killed_the_recorded_lock_still_finds_all(lab: Lab) -> None:
    bot = lab.target("doge", "--daemon", "--rename=something else")
    first = up(lab, bot, 2)
    (bot.run_dir / "run.lock").unlink()
    os.kill(watcher_of(lab), signal.SIGKILL)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: set(lab.processes()) == lab.pids("daemon"))
    with pytest.raises(EngineError, match="still alive"):
        start(bot)
    assert stop(bot).left == ()
    assert not lab.processes()


def test_after_a_reboot_the_record_is_void_whatever_its_pid_is_now(lab: Lab) -> None:
    bot = lab.target()
    up(lab, bot)
    stop(bot)
    stranger = lab.by_hand("sleep", "100")
    ticks = int(Path(f"/proc/{stranger}/stat").read_text().split(") ")[1].split()[19])
    inode = os.fstat(fd := os.pidfd_open(stranger)).st_ino
    os.close(fd)
    set_record(
        bot, boot_id="11111111-2222-3333-4444-555555555555", pid=stranger, start_ticks=ticks, pidfd_inode=inode,
        shim_pid=stranger, shim_ticks=ticks,
    )  # fmt: skip
    assert pids(bot) == set()
    assert stop(bot).stopped == ()
    up(lab, bot)
    assert stranger in lab.processes()


def test_a_record_that_names_a_living_innocent_harms_nobody(lab: Lab) -> None:
    bot = lab.target()
    up(lab, bot)
    stop(bot)
    stranger = lab.by_hand("sleep", "100")
    set_record(bot, pid=stranger, shim_pid=stranger)
    assert pids(bot) == set()
    assert stop(bot).stopped == ()
    assert stranger in lab.processes()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"generation": 1}', "\0" * 512])
def test_a_torn_or_planted_record_is_no_record_and_the_bot_is_found_without_it(lab: Lab, text: str) -> None:
    bot = lab.target()
    pid = up(lab, bot)
    for name in ("instance.json", "exit.json", "stopping.json"):
        (bot.run_dir / name).write_text(text)
    assert pids(bot) == {pid}
    with pytest.raises(EngineError):
        start(bot)
    stop(bot)
    assert not lab.bots()
    up(lab, bot)


def test_the_litter_of_killed_writers_is_swept_at_the_next_start(lab: Lab) -> None:
    bot = lab.target()
    for name in ("instance.json.4711", "exit.json.4711", ".spawn.abcd", ".stopping.json.abcd"):
        (bot.run_dir / name).touch()
    up(lab, bot)
    assert sorted(path.name for path in bot.run_dir.iterdir()) == ["exit.json", "instance.json", "run.lock", "spawn"]


@pytest.mark.skipif(not namespaces.available(), reason=namespaces.WHY_NOT)
def test_a_reused_pid_is_a_stranger_and_lives(lab: Lab) -> None:
    said = namespaces.run("reused_pid.py", str(lab.home))
    assert said == "the stranger lives\n"


# ---------------------------------------------------------------------------------------------------- copies


def test_a_second_copy_started_by_hand_is_seen_however_it_is_spelt(lab: Lab) -> None:
    (lab.home / "elsewhere").mkdir()
    (lab.home / "link").symlink_to(lab.home)
    lab.program(mode=0o755).write_text(f"#!{sys.executable}\n" + (lab.home / "doge.py").read_text())
    bot = lab.target("doge", command=["python", "doge.py", "3m"])
    version = f"{os.path.dirname(sys.executable)}/python{sys.version_info.major}"
    copies = {
        pid_of(start(bot)),
        hand(lab, sys.executable, "doge.py", "3m"),
        hand(lab, version, "-u", str(lab.home / "doge.py"), "3m", cwd=lab.home / "elsewhere"),
        hand(lab, sys.executable, "-X", "utf8", "../link/./doge.py", "3m", cwd=lab.home / "elsewhere"),
        hand(lab, "./doge.py", "3m"),
    }
    assert pids(bot) == copies
    assert {one.pid for one in stop(bot).stopped} == copies
    assert not lab.processes()


def test_a_program_found_through_path_is_known_again_when_python_runs_its_script(lab: Lab) -> None:
    script = lab.program("bin/doge-trader", 0o755)
    script.write_text(f"#!{sys.executable}\n{script.read_text()}")
    bot = lab.target("doge", command=["doge-trader", "trade"])
    target = Target(**{**vars(bot), "environment": {"PATH": f"{script.parent}:{os.environ['PATH']}"}})
    own, other = up(lab, target), hand(lab, str(script), "trade")
    assert pids(target) == {own, other}
    hand(lab, str(script), "backtest")
    assert pids(target) == {own, other}


@pytest.mark.parametrize("ending", ["", ".py"])
def test_a_process_name_is_the_name_or_the_script_of_a_process_extension_or_not(lab: Lab, ending: str) -> None:
    stem = f"doge{lab.token}"
    lab.program(f"{stem}.py")
    bot = lab.target(command=[], process_name=stem + ending)
    found = {
        hand(lab, sys.executable, f"{stem}.py", "--as-role=any"),
        hand(lab, sys.executable, "-m", stem),
        hand(lab, sys.executable, f"{stem}.py", f"--rename={stem}{ending}"),
    }
    assert pids(bot) == found
    assert all(one.how == "process_name" for one in look(bot).instances)


def test_what_only_mentions_the_bot_is_no_copy(lab: Lab) -> None:
    name = f"bot{lab.token}"
    for script in (f"{name}.py", f"{name}0.py", "other.py"):
        lab.program(script)
    (lab.home / f"{name}.log").touch()
    (lab.home / name).mkdir()
    bot = lab.target(name, process_name=name)
    strangers = [
        lab.by_hand("tail", "-f", f"{name}.log"),
        lab.by_hand("bash", "-c", f"exec -a vim tail -f {name}.py"),
        lab.by_hand("bash", "-c", f"mkfifo wait; grep {name} < wait"),
        lab.by_hand("bash", "-c", f"exec -a {name}.py.bak sleep 100"),
        lab.by_hand("bash", "-c", f"sleep 100; echo {name}.py"),
        lab.by_hand(sys.executable, "-c", "import time; time.sleep(100)", f"{name}.py"),
        hand(lab, sys.executable, f"{name}0.py"),
        hand(lab, sys.executable, "other.py", f"{name}.py", name),
        hand(lab, sys.executable, str(lab.home / "other.py"), cwd=lab.home / name),
    ]
    assert pids(bot) == set()
    up(lab, bot)
    assert len(pids(bot)) == 1
    assert stop(bot).left == ()
    assert set(strangers) <= set(lab.processes())


def test_bots_with_names_that_begin_alike_are_left_alone_by_one_another(lab: Lab) -> None:
    names = (f"bot{lab.token}1", f"bot{lab.token}10")
    one, ten = lab.neighbours(*(lab.target(name, process_name=name) for name in names))
    first, tenth = pid_of(start(one)), pid_of(start(ten))
    assert (pids(one), pids(ten)) == ({first}, {tenth})
    stop(one)
    assert (pids(one), pids(ten)) == (set(), {tenth})


TIMEFRAMES = ("3m", "15m", "1h")


def timeframes_by_argument(lab: Lab) -> list[Target]:
    lab.program("signal_bot.py")
    return [
        lab.target(f"bot-{one}", command=[sys.executable, "signal_bot.py", one], process_name="signal_bot",
                   names_are_shared=True)
        for one in TIMEFRAMES
    ]  # fmt: skip


def timeframes_by_link(lab: Lab) -> list[Target]:
    lab.program("signal_bot.py")
    for one in TIMEFRAMES:
        (lab.home / f"bot-{one}.py").symlink_to("signal_bot.py")
    return [lab.target(f"bot-{one}", process_name="python3", names_are_shared=True) for one in TIMEFRAMES]


def timeframes_by_folder(lab: Lab) -> list[Target]:
    script = lab.program("signal_bot.py")
    for one in TIMEFRAMES:
        (lab.home / one).mkdir()
    return [lab.target(f"bot-{one}", command=[sys.executable, str(script)], config={"cwd": one}) for one in TIMEFRAMES]


@pytest.mark.parametrize("make", [timeframes_by_argument, timeframes_by_link, timeframes_by_folder])
@pytest.mark.parametrize("starter", ["botkeep", "a person"])
def test_three_bots_of_one_script_are_told_apart(lab: Lab, make: object, starter: str) -> None:
    assert callable(make)
    bots = lab.neighbours(*make(lab))
    if starter == "botkeep":
        own = [pid_of(start(bot)) for bot in bots]
    else:
        own = [hand(lab, *bot.config.command, cwd=lab.home / bot.config.cwd) for bot in bots]
    wait_for(lambda: all(pids(bot) == {pid} for bot, pid in zip(bots, own, strict=True)))
    assert {one.pid for one in stop(bots[0]).stopped} == {own[0]}
    assert [pids(bot) for bot in bots] == [set(), {own[1]}, {own[2]}]


def test_bots_with_one_command_in_one_folder_are_told_apart_while_botkeep_starts_them(lab: Lab) -> None:
    command = [sys.executable, str(lab.program("signal_bot.py"))]
    one, two = lab.neighbours(lab.target("one", command=command), lab.target("two", command=command))
    first, second = pid_of(start(one)), pid_of(start(two))
    assert (pids(one), pids(two)) == ({first}, {second})
    nobodys = hand(lab, *command)
    for bot in (one, two):
        with pytest.raises(EngineError, match=f"pid {nobodys} runs the same command as one, two"):
            look(bot)
    with pytest.raises(EngineError):
        stop(one)
    assert {first, second, nobodys} <= set(lab.bots())


def test_another_bots_program_is_not_taken_for_this_one_because_of_its_name(lab: Lab) -> None:
    script = lab.program(f"{lab.token}.py").name
    named = lab.target("named", command=[], process_name=lab.token)
    by_command = lab.target("by-command", command=[sys.executable, script, "5m"])
    commands = lab.neighbours(by_command)[0].rivals
    named = Target(**{**vars(named), "rivals": commands})
    hand(lab, sys.executable, "-u", f"./{script}", "5m")
    assert pids(named) == set()
    other = hand(lab, sys.executable, script, "1h")
    assert pids(named) == {other}


def test_a_process_name_that_names_every_program_of_an_interpreter_is_refused(lab: Lab) -> None:
    bot = lab.target(command=[], process_name="python3")
    for ask in (look, stop):
        with pytest.raises(EngineError, match="Write the name of the bot's script instead"):
            ask(bot)


def test_a_process_name_that_several_bots_share_says_nothing_once_one_of_them_runs(lab: Lab) -> None:
    lab.program(f"{lab.token}.py")
    bots = [lab.target(name, command=[], process_name=lab.token, names_are_shared=True) for name in ("a", "b")]
    assert [pids(bot) for bot in bots] == [set(), set()]
    hand(lab, sys.executable, f"{lab.token}.py")
    for bot in bots:
        with pytest.raises(EngineError, match="that of several bots"):
            look(bot)


def test_something_that_only_looks_like_a_watcher_hides_nobody(lab: Lab) -> None:
    """A stranger's shim.py, and another bot's watcher, are not ours; a copy below a shell is seen beside them."""
    fake = lab.program("runtimes/shim.py")
    bot = lab.target("doge", process_name=lab.token)
    for folder in ("/somewhere/else", str(bot.run_dir) + "0"):
        lab.by_hand(sys.executable, "-I", "-S", str(fake), "watch", folder, "3", "1", "e1", "5")
    pid = up(lab, bot)
    copy = hand(lab, *bot.config.command)
    assert pids(bot) == {pid, copy}
    assert {one.pid for one in stop(bot).stopped} == {pid, copy}
    assert len(lab.watchers()) == 2


# ---------------------------------------------------------------------------------------------------- who asks


@pytest.mark.parametrize("how", ["its group is killed", "its output is closed"])
def test_a_started_bot_outlives_whoever_started_it(lab: Lab, how: str) -> None:
    bot = lab.target("doge", "--chatter=20")
    server = lab.caller("start", bot, stay=True)
    assert server.stdout
    pid = json.loads(server.stdout.readline())["pid"]
    server.stdout.close()
    if how == "its group is killed":
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    before = wait_for(lambda: len(lab.stamps()))
    wait_for(lambda: len(lab.stamps()) > before + 10)
    assert pids(bot) == {pid}
    assert bot.log_path.read_bytes().count(b"\n") == 20
    for process_ in (pid, watcher_of(lab)):
        files = {os.readlink(one.path) for one in os.scandir(f"/proc/{process_}/fd")}
        allowed = {"/dev/null", str(bot.log_path), str(bot.run_dir / "run.lock"), str(lab.home / "stamps.txt")}
        assert files <= allowed
    assert os.getsid(pid) == pid
    assert os.getsid(watcher_of(lab)) not in (os.getsid(0), server.pid)


def test_botkeep_inside_a_bot_does_not_end_it_from_there(lab: Lab) -> None:
    """The assistant may be one of the bots: asked for itself, it must not pull its own chair away."""
    caller = f"{sys.executable} {Path(__file__).parents[1] / 'support/caller.py'}"
    assistant = lab.target("assistant", command=["bash", "-c", 'eval "$TO_DO" > answer; sleep 100'])
    spec = json.dumps({"todo": "restart", "target": lab.as_json(assistant), "home": str(lab.home)})
    environment = {"TO_DO": f"{caller} '{spec}'", "PYTHONPATH": lab.python_path}
    target = Target(**{**vars(assistant), "environment": environment})
    pid = pid_of(start(target))
    answer = wait_for(lambda: (lab.home / "answer").exists() and (lab.home / "answer").read_text())
    assert "botkeep itself runs inside it" in json.loads(answer)["error"]
    assert pids(target) == {pid}


def test_bots_that_an_assistant_started_outlive_the_assistant(lab: Lab) -> None:
    """The assistant may be a bot too: what it starts hangs below its watcher, and is not its own."""
    doge = lab.target("doge")
    caller = f"{sys.executable} {Path(__file__).parents[1] / 'support/caller.py'}"
    assistant = lab.target("assistant", command=["bash", "-c", 'eval "$TO_DO" > answer; sleep 100'])
    spec = json.dumps({"todo": "start", "target": lab.as_json(doge), "home": str(lab.home)})
    environment = {"TO_DO": f"{caller} '{spec}'", "PYTHONPATH": lab.python_path}
    target = Target(**{**vars(assistant), "environment": environment})
    start(target)
    (pid,) = wait_for(lambda: lab.pids("bot"))
    wait_for(lambda: (lab.home / "answer").read_text())
    os.kill(pid_of(look(target).instances[0]), signal.SIGKILL)
    assert pid not in {member for one in look(target).instances for member in one.members}
    assert stop(target).left == ()
    assert pids(doge) == {pid}
    assert lab.pids("bot") == {pid}


def test_children_of_botkeep_itself_are_nobodys_bot(lab: Lab) -> None:
    """While it starts a bot, this program holds the bot's lock; what else it has running does not keep that up."""
    other = subprocess.Popen(["sleep", "100"], cwd=lab.home)
    lab.children.append(other)
    bot = lab.target()
    up(lab, bot)
    stop(bot)
    assert other.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a bot of another user")
def test_a_bot_of_another_user_is_left_alone_and_not_doubled() -> None:
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
        bot = lab.target()
        pid = up(lab, bot)
        lab.give_to(NOBODY)
        stopped, started = (
            json.loads(lab.caller(todo, bot, user=NOBODY, within=4).communicate(timeout=DEADLINE)[0])
            for todo in ("stop", "start")
        )
        assert f"pid {pid} ({Path(sys.executable).name}), which belongs to user 0," in stopped["left"]
        assert "Stop it first" in started["error"]
        assert pids(bot) == {pid}


def test_what_cannot_be_signalled_is_said_to_be_left_and_nothing_is_started(lab: Lab) -> None:
    namespaces.require("strace")
    bot = lab.target()
    pid = up(lab, bot)
    stopper = lab.caller("stop", bot, within=4, under=["strace", "-qq", "-o", "/dev/null", "-e",
                                                       "inject=pidfd_send_signal:error=EPERM"])  # fmt: skip
    said = json.loads(stopper.communicate(timeout=DEADLINE)[0])
    assert said["left"] == [f"pid {pid} ({Path(sys.executable).name})"]
    assert pids(bot) == {pid}
    with pytest.raises(EngineError, match="Stop it first"):
        start(bot)
    os.kill(pid, signal.SIGKILL)
    assert ended(bot).asked is False


@pytest.mark.parametrize("files", [3, 4, 5])
def test_a_caller_that_may_open_no_more_files_proves_nothing_and_starts_nothing(lab: Lab, files: int) -> None:
    """A process table that could not be read must not look like an empty one."""
    bot = lab.target("doge", "--popen")
    pid = up(lab, bot, 2)
    for todo in ("look", "stop", "start"):
        said = json.loads(lab.caller(todo, bot, files=files).communicate(timeout=DEADLINE)[0])
        assert said.get("error") or said.get("pids") == [pid] or pid in said.get("stopped", ()), said
    assert len(lab.bots()) in (0, 2)


def test_a_bot_that_is_frozen_for_good_is_one_instance_and_is_replaced_by_one(lab: Lab) -> None:
    bot = lab.target("doge", "--workers=1")
    first = up(lab, bot, 2)
    for pid in lab.bots():
        os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: [one.state for one in look(bot).instances] == [InstanceState.FROZEN])
    assert stop(bot).left == ()
    second = up(lab, bot, 2)
    stop(bot)
    assert overlaps(lab.stamps()) == []
    assert first != second
