"""What a start rests on: a proof of this moment, a lock that is ours, an order that nobody else carries out.

Each of these showed a copy that was missed, a start that came too late, or a bot that was kept waiting.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from pathlib import Path

import pytest

from botkeep import bench as benches
from botkeep.act import require_only_writer, restart
from botkeep.bench import open_case
from botkeep.durable import Lock
from botkeep.model import Action, Actor, EngineError, Result
from botkeep.runtimes import Target, process, ready
from botkeep.runtimes.base import StillAliveError
from botkeep.runtimes.find import hunt
from botkeep.runtimes.procs import Proc, ProcessTable, carried_marker, is_launcher, read_proc
from support import forks
from support.bots import Lab, overlaps, pid_of, start, stop, wait_for
from support.fleet import Fleet, entry, fleet
from support.kills import injected, needs_strace

from .test_killed_starts import converges, python_injected, python_killed_at, why_not

DELAY_SECONDS = 3.0


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab
        ready.give_up()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Lab, Fleet]]:
    """One stamping bot with a data file."""
    home = tmp_path / "home"
    runtime = {"kind": "process", "command": [sys.executable, "doge.py", "--csv=data/doge.csv"], "stop_grace": 2}
    with fleet(home, entry("doge", runtime=runtime)) as found, Lab(home) as lab:
        lab.program("doge.py")
        yield lab, found


# ---------------------------------------------------------------------------------------------------- the table


IN_PLACE = """
import os, sys, time
while not os.path.exists("go on"):
    time.sleep(0.005)
with open("/proc/self/stat", "rb") as file:
    fields = file.read().rpartition(b")")[2].split()
begin, end = int(fields[45]), int(fields[46])
words = b"\\0".join(map(os.fsencode, sys.argv[1:])) + b"\\0"
with open("/proc/self/mem", "r+b", buffering=0) as memory:
    memory.seek(begin)
    memory.write(words.ljust(end - begin, b"\\0"))
open("went on", "w").close()
while True:
    time.sleep(1)
"""
BY_EXEC = """
import os, sys, time
while not os.path.exists("go on"):
    time.sleep(0.005)
os.execv(sys.executable, [sys.executable, "doge.py"])
"""


def test_a_process_that_became_the_bot_since_the_table_was_read_is_found(lab: Lab) -> None:
    """By writing another command line over its own: the program, and where its stack lies, are the same as before."""
    bot = lab.target()
    (lab.home / "some.py").write_text(IN_PLACE)
    pid = lab.by_hand(sys.executable, "some.py", sys.executable, "doge.py")
    wait_for(lambda: (one := read_proc(pid)) and one.argv[1:2] == ("some.py",))
    table = ProcessTable.read()
    hunt(bot, table)
    (lab.home / "go on").touch()
    wait_for((lab.home / "went on").exists)
    refuses(lab, bot, table, pid)


def test_a_process_that_executed_the_bot_where_stacks_are_not_at_random_is_found(lab: Lab) -> None:
    bot = lab.target()
    (lab.home / "some.py").write_text(BY_EXEC)
    pid = lab.by_hand("setarch", "-R", sys.executable, "some.py", env={"LC_ALL": "C.UTF-8"})
    wait_for(lambda: (one := read_proc(pid)) and one.argv[1:2] == ("some.py",))
    table = ProcessTable.read()
    hunt(bot, table)
    (lab.home / "go on").touch()
    wait_for(lambda: lab.trading(pid))
    refuses(lab, bot, table, pid)


def refuses(lab: Lab, bot: Target, table: ProcessTable, pid: int, before: Set[int] = frozenset()) -> None:
    with pytest.raises(StillAliveError, match=f"pid {pid} "):
        process.start(Target(**{**vars(bot), "table": table}), "e1", time.monotonic() + 20)
    assert lab.pids("bot") <= {pid, *before}


def test_a_copy_by_hand_started_after_the_table_was_read_is_found_at_whatever_moment(lab: Lab) -> None:
    """As fast as processes come and go, so that some are in the midst of an execution while they are looked at."""
    bot, ended = lab.target(), set[int]()
    for _ in range(5):
        table = ProcessTable.read()
        pid = lab.by_hand("sh", "-c", 'exec sh -c \'exec "$0" doge.py\' "$0"', sys.executable)
        wait_for(lambda pid=pid: lab.trading(pid))
        refuses(lab, bot, table, pid, ended)
        ended.add(pid)
        os.kill(pid, signal.SIGKILL)
        lab.children.pop().wait()


def test_what_a_program_was_executed_with_is_asked_again_once_it_executed_another(lab: Lab) -> None:
    marked = {"BOTKEEP_INSTANCE": "some lock:some bot"}
    (lab.home / "some.py").write_text(
        BY_EXEC.replace(
            'os.execv(sys.executable, [sys.executable, "doge.py"])',
            ('os.execve(sys.executable, [sys.executable, "doge.py"], {"BOTKEEP_INSTANCE": "another"})'),
        )
    )
    lab.program("doge.py")
    pid = lab.by_hand(sys.executable, "some.py", env=marked)
    wait_for(lambda: (one := read_proc(pid)) and one.argv[1:2] == ("some.py",) and carried_marker(pid))
    table = ProcessTable.read()
    assert table.marker(pid) == table.again().marker(pid) == "some lock:some bot"
    (lab.home / "go on").touch()
    wait_for(lambda: lab.trading(pid))
    assert table.again().marker(pid) == "another"


# ---------------------------------------------------------------------------------------------------- the lock


def test_who_holds_a_lock_made_since_ours_was_taken_is_found(lab: Lab) -> None:
    """A person removed our lock's file, and somebody made another one: it is not ours to be skipped."""
    bot = lab.target()
    path = bot.run_dir / "run.lock"
    with Lock(path) as lock:
        assert lock.acquire()
        held = process._name_of(lock)
        path.unlink()
        holder = f"import time, fcntl; f = open({str(path)!r}, 'w'); fcntl.flock(f, 2); time.sleep(600)"
        pid = lab.by_hand(sys.executable, "-c", holder)
        wait_for(lambda: is_locked(path))
        assert set(hunt(bot, held=held)) == {pid}


def is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# ---------------------------------------------------------------------------------------------------- the leave


class Order:
    """A launcher and its watcher that wait for leave, as a start has them."""

    def __init__(self, bot: Target) -> None:
        self.bot = bot
        self.lock = Lock(bot.run_dir / "run.lock")
        assert self.lock.acquire()
        process._write_order(bot, 1)
        permit, self.leave = os.pipe()
        self.launcher = process._launcher(bot, 1, "e1", (self.lock.fd or 0, permit))
        os.close(permit)

    def waits(self) -> bool:
        """Whether the watcher has read its order."""
        return any(self._has_log_open(pid) for pid in process._watchers(self.bot) if pid != self.launcher.pid)

    def _has_log_open(self, pid: int) -> bool:
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            return False
        return str(self.bot.log_path) in links

    def give(self, moment: float) -> int:
        """Leave, for a proof of that moment; the launcher's exit code."""
        os.write(self.leave, b"%.6f" % moment)
        os.close(self.leave)
        self.lock.release()
        return self.launcher.wait(60)


def test_leave_of_this_moment_starts_the_bot(lab: Lab) -> None:
    order = Order(lab.target())
    wait_for(order.waits)
    assert order.give(time.monotonic()) == 0
    wait_for(lambda: lab.pids("bot"))


def test_leave_for_an_old_proof_starts_nothing(lab: Lab) -> None:
    """The caller was frozen between its proof and its word, or the watcher between the word and the start: what
    somebody started in between nobody has looked for."""
    order = Order(lab.target())
    wait_for(order.waits)
    assert order.give(time.monotonic() - 11) == 4
    wait_for(lambda: not lab.processes())
    assert lab.stamps() == []


def test_leave_starts_nothing_once_the_lock_file_was_removed_while_it_was_waited_for(lab: Lab) -> None:
    bot = lab.target()
    order = Order(bot)
    wait_for(order.waits)
    (bot.run_dir / "run.lock").unlink()
    with Lock(bot.run_dir / "run.lock") as second:
        assert second.acquire()
        assert order.give(time.monotonic()) == 4
    wait_for(lambda: not lab.processes())
    assert lab.stamps() == []


def test_a_frozen_watcher_that_was_given_leave_is_not_woken_to_start_what_is_being_stopped(lab: Lab) -> None:
    bot = lab.target()
    order = Order(bot)
    wait_for(order.waits)
    (watcher,) = (pid for pid in process._watchers(bot) if pid != order.launcher.pid)
    freeze(watcher)
    os.write(order.leave, b"%.6f" % time.monotonic())
    order.lock.release()
    assert stop(bot).left == ()
    os.close(order.leave)
    assert order.launcher.wait(60) != 0
    assert not lab.processes()
    assert lab.stamps() == []


# ---------------------------------------------------------------------------------------------------- who waits ready


def test_a_start_by_a_launcher_that_waited_is_one_start(lab: Lab) -> None:
    bot = lab.target()
    ready.keep()
    waiting = ready._kept[0].process.pid
    pid = pid_of(start(bot))
    wait_for(lambda: lab.trading(pid))
    assert list(lab.bots()) == [pid]
    assert ready._kept[0].process.pid != waiting, "it was not used"
    with pytest.raises(StillAliveError):
        start(bot)
    assert stop(bot).left == ()
    assert not lab.processes()


@needs_strace
@pytest.mark.parametrize("call", ["sendmsg", "write", "wait4", "?vfork"])
def test_a_caller_killed_in_the_middle_of_an_order_leaves_at_most_one_bot(lab: Lab, call: str) -> None:
    bot = lab.target()

    def work() -> None:
        ready.keep()
        process.start(bot, "e1", time.monotonic() + 20)

    number = 0
    while injected(work, call, number := number + 1, "signal=SIGKILL") == -signal.SIGKILL:
        converges(lab, bot)
        assert number < 20
    assert number > 1, f"no call of {call}: nothing was tried"


@needs_strace
@pytest.mark.parametrize("call", ["recvmsg", "pipe2", "clone", "setsid", "execve"])
def test_a_launcher_that_waited_and_is_killed_in_the_middle_leaves_at_most_one_bot(
    lab: Lab, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = lab.target()
    for number in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(python_killed_at(lab, "ready", call, number)))
            ready.keep()
        with suppress(EngineError):
            start(bot)
        ready.give_up()
        converges(lab, bot)


@needs_strace
def test_what_a_killed_launcher_had_forked_starts_nothing_after_the_caller_was_told_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no bot in its command line yet, only the lock."""
    bot = lab.target()
    slow = python_injected(lab, "ready", "setsid", f"delay_enter={int(DELAY_SECONDS * 1e6)}")
    monkeypatch.setattr(sys, "executable", str(slow))
    said, say = os.pipe()

    def work() -> None:
        ready.keep()
        ready._wanted = False  # this one, and none after it
        os.write(say, why_not(bot).encode())

    caller = forks.start(work)
    launcher = wait_for(lambda: launcher_below(caller))
    forked = wait_for(lambda: launcher_below(launcher))
    os.kill(launcher, signal.SIGKILL)
    assert os.read(said, 1000).startswith(b"doge could not be started: its watcher ended")
    assert wait_for(lambda: what_became_of(forked)) == "gone"
    forks.finish([caller])
    assert lab.stamps() == []
    os.close(said)
    os.close(say)


def launcher_below(parent: int) -> int:
    """A child of that process that waits for an order, or that was forked from one."""
    procs = ProcessTable.read().procs.values()
    return next((one.pid for one in procs if one.ppid == parent and not one.dead and is_ready(one)), 0)


def is_ready(one: Proc) -> bool:
    return is_launcher(one) and one.argv[4] == "ready"


def what_became_of(pid: int) -> str:
    now = read_proc(pid)
    if now is None or now.dead:
        return "gone"
    return "" if is_ready(now) else "a watcher"


def test_a_frozen_launcher_whose_caller_was_killed_keeps_no_start_from_happening(lab: Lab) -> None:
    """The lock is in an order that it has not read: no process has it open, and yet it is held."""
    bot = lab.target()
    said, say = os.pipe()
    caller = forks.start(lambda: (ready.keep(), freeze(ready._kept[0].process.pid), start(bot))[0])
    launcher = wait_for(lambda: launcher_below(caller))
    wait_for(lambda: is_locked(bot.run_dir / "run.lock") and (bot.run_dir / "spawn").exists())
    wait_for(lambda: not process_has(caller, "socket"))
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    try:
        with pytest.raises(StillAliveError):
            start(bot)
        assert stop(bot).left == ()
        pid = pid_of(start(bot))
        wait_for(lambda: lab.trading(pid))
        assert lab.pids("bot") == {pid}
    finally:
        end(launcher)
    os.close(said)
    os.close(say)


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: (one := read_proc(pid)) and one.state == "T")


def end(pid: int) -> None:
    if (one := read_proc(pid)) and is_launcher(one):
        os.kill(pid, signal.SIGKILL)


def process_has(pid: int, kind: str) -> bool:
    """Whether it has a descriptor of that kind open."""
    links = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return any(link.startswith(kind) for link in links)


def test_a_frozen_launcher_keeps_nobody_from_ending(lab: Lab) -> None:
    ready.keep()
    freeze(ready._kept[0].process.pid)
    ending = threading.Thread(target=ready.give_up, daemon=True)
    ending.start()
    ending.join(20)
    assert not ending.is_alive()


# ---------------------------------------------------------------------------------------------------- actions


def test_a_leftover_that_still_writes_the_data_file_is_ended_before_the_start(place: tuple[Lab, Fleet]) -> None:
    """The bot itself is down, and what it left has neither its command nor its name, only its lock."""
    lab, found = place
    data = found.data()
    heir = f"import os, time; f = open({str(data)!r}, 'a'); open('left', 'w').close(); time.sleep(600)"
    (lab.home / "doge.py").write_text(
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {heir!r}], close_fds=False)\n"
        + (lab.home / "doge.py").read_text()
    )
    first = found.desk(Actor.PERSON).start("doge", "first start")
    assert first.ok, first.sentence
    wait_for((lab.home / "left").exists)
    found.kill(int(first.pid or 0))
    left = set(lab.bots())
    assert len(left) == 1
    report = found.desk(Actor.PERSON).start("doge", "again")
    assert report.result is Result.DONE, report.sentence
    assert not left & set(lab.bots())


def test_a_bot_that_somebody_started_since_the_table_was_read_is_not_started_anew(
    place: tuple[Lab, Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever started it was killed, so that its lock is free at once; what it recorded is newer than our table."""
    lab, found = place
    monkeypatch.setattr(benches, "ONE_MOMENT", 60.0)
    bench = found.desk().bench()
    bot = bench.fleet.get("doge").bot
    assert bot
    bench.look("doge")
    other = open_case(found.desk().bench(), bot, Action.RESTART, "another caller's")
    started = other.runtime.start(other.target, "another", time.monotonic() + 20).instance
    report = restart(bench, bot, "it was down a moment ago", action=Action.RESTART)
    assert report.result is Result.COALESCED, report.sentence
    assert list(lab.bots()) == [pid_of(started)]


@pytest.mark.parametrize(
    ("dies_in", "became"),
    [("start", "a restart was interrupted before it started anything"), ("over", "was started and is down again")],
)
def test_of_a_round_that_died_it_is_known_whether_it_had_started_the_bot(
    place: tuple[Lab, Fleet], dies_in: str, became: str
) -> None:
    """The start is noted together with its intent, which is before it is made."""
    lab, found = place
    found.kill(int(found.desk(Actor.PERSON).start("doge", "first start").pid or 0))
    before = set(lab.pids("bot"))

    def work() -> None:
        setattr(*{"start": (process, "start"), "over": (benches.Starts, "over")}[dies_in], die)
        found.desk(Actor.ROUND).round()

    os.waitpid(forks.start(work), 0)
    for pid in lab.bots():
        wait_for(lambda pid=pid: pid in lab.pids("bot"))
        found.kill(pid)
    assert bool(set(lab.pids("bot")) - before) is (dies_in == "over")
    found.desk().check(["doge"])
    (last,) = found.desk().memory("doge", None, 1)
    assert became in last.sentence
    assert lab.stamps()
    assert overlaps(lab.stamps()) == []


def test_a_restart_killed_between_its_stop_and_its_start_has_started_nothing(place: tuple[Lab, Fleet]) -> None:
    """That it was about to is noted by then: it must not count as a start that did not last."""
    lab, found = place
    assert found.desk(Actor.PERSON).start("doge", "first start").ok

    def work() -> None:
        process.start = die  # type: ignore[assignment]
        found.desk(Actor.PERSON).restart("doge", "new settings")

    os.waitpid(forks.start(work), 0)
    assert not lab.bots()
    found.desk().check(["doge"])
    (last,) = found.desk().memory("doge", None, 1)
    assert "a restart was interrupted before it started anything" in last.sentence
    assert last.data["attempted"] is False


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# ---------------------------------------------------------------------------------------------------- who writes


@needs_strace
def test_who_asks_for_writers_keeps_no_bot_waiting_wherever_it_is_frozen(place: tuple[Lab, Fleet]) -> None:
    """A kernel's lease, which says the same a hundred times as fast, lets the next writer wait for 45 seconds."""
    _, found = place
    bench = found.desk().bench()
    bot = bench.fleet.get("doge").bot
    assert bot
    found.data().write_text("id,timestamp,symbol,side,price,amount,fee,pnl\n")
    case = open_case(bench, bot, Action.RESTART, "a test")
    for call in ("fcntl", "openat", "readlink", "close"):
        for number in (1, 2, 3):
            asking = frozen_at(lambda: require_only_writer(case), call, number, found.home / "calls")
            opened = subprocess.run(["sh", "-c", f": >>{found.data()}"], timeout=15, check=False)
            assert opened.returncode == 0
            os.kill(asking, signal.SIGKILL)
            os.waitpid(asking, 0)


def frozen_at(work: Callable[[], None], call: str, number: int, log: Path) -> int:
    """A process that is frozen after its call of that number, or that has ended before there was one."""
    pid = forks.start(lambda: (os.kill(os.getpid(), signal.SIGSTOP), work())[1])
    os.waitpid(pid, os.WUNTRACED)
    log.unlink(missing_ok=True)
    inject = f"inject={call}:signal=SIGSTOP:when={number}"
    with subprocess.Popen(["strace", "-qq", "-o", log, "-p", str(pid), "-e", f"trace={call}", "-e", inject]) as tracer:
        wait_for(lambda: stops(log) == 1)
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: stops(log) == 2 or (one := read_proc(pid)) is None or one.dead)
        tracer.terminate()
    return pid


def stops(log: Path) -> int:
    """How often the traced process was stopped so far."""
    return log.read_text().count("stopped by SIGSTOP") if log.exists() else 0
