"""What is wrong with the machine: read from a real kernel where it lets us break something, else from its own lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep import host, oomkills
from botkeep.config import Bot, load_fleet
from botkeep.host import Asked, Places, asked_about, ended_for_memory, examine, look
from botkeep.kernelclock import offset_in, read_clock
from botkeep.memory import Limit, read_limit, read_memory
from botkeep.model import (
    Cause,
    CauseClass,
    Exit,
    Fault,
    HostLook,
    Instance,
    InstanceState,
    LogLook,
    Mark,
    Observation,
    OomKill,
    ProgramLook,
    RuntimeLook,
)
from botkeep.oomkills import KnownKills, parse_kills, read_kills
from botkeep.playbooks import packaged_playbooks
from botkeep.resolving import hosts_of, resolve
from botkeep.runtimes.procs import boot_id, process_key, read_proc
from botkeep.workspace import Workspace
from support import memory_cgroup, own_network, small_disk

NOW = datetime.now(UTC).replace(microsecond=0)
TOOLS = Path(__file__).parents[2] / "tools"
NOWHERE = Places(kmsg=Path("/nowhere/kmsg"), kernel_logs=(), journal=("/nowhere/journalctl",))
MEMINFO = """MemTotal:       16307832 kB
MemFree:          512000 kB
MemAvailable:   {available} kB
SwapCached:            0 kB
SwapTotal:       2097148 kB
SwapFree:         {swap} kB
"""
KILLED = (
    "Out of memory: Killed process {pid} ({name}) total-vm:5160812kB, anon-rss:812340kB, file-rss:128kB, "
    "shmem-rss:0kB, UID:1000 pgtables:3148kB oom_score_adj:0"
)


def cause(signature: str, klass: CauseClass = CauseClass.HOST, line: str = "", fault: Fault | None = None) -> Cause:
    return Cause(signature, "It complains.", klass, fault, line, 3, NOW - timedelta(minutes=2), NOW)


CLOCK, DNS = cause("clock-off"), cause("name-resolution")


def proc(folder: Path, *, available: int = 8_000_000, swap: int = 0, pressure: str | None = None) -> Path:
    """A /proc with what is read of one."""
    (folder / "pressure").mkdir(parents=True)
    (folder / "meminfo").write_text(MEMINFO.format(available=available, swap=swap))
    (folder / "vmstat").write_text("nr_free_pages 5\n" * 3000 + "oom_kill 7\n")
    if pressure is not None:
        text = f"some avg10=0.50 avg60={pressure} avg300=0.10 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
        (folder / "pressure/memory").write_text(text)
    return folder


def kinds(seen: HostLook) -> list[str]:
    return [one.id for one in seen.causes]


# -------------------------------------------------------------------------------------------------------- memory


def test_memory_swap_pressure_and_kills_are_read_in_bytes_and_percent(tmp_path: Path) -> None:
    seen = read_memory(proc(tmp_path / "proc", swap=1024, pressure="31.40"))
    assert (seen.total, seen.available, seen.swap_free) == (16307832 << 10, 8_000_000 << 10, 1 << 20)
    assert (seen.pressure, seen.oom_kills) == (31.4, 7)


def test_a_kernel_that_says_nothing_leaves_all_unknown(tmp_path: Path) -> None:
    seen = look([], NOW, places=Places(proc=tmp_path, cgroups=tmp_path))
    assert (seen.memory_available, seen.memory_total, seen.memory_pressure, seen.oom_kills) == (None,) * 4
    assert seen.causes == ()


def test_this_machine_has_some_memory() -> None:
    seen = read_memory()
    assert 0 < (seen.available or 0) < (seen.total or 0)


def test_a_machine_that_is_short_of_memory_is_a_cause_with_figures(tmp_path: Path) -> None:
    places = Places(proc=proc(tmp_path / "proc", available=120_000), cgroups=tmp_path)
    (found,) = look([], NOW, places=places).causes
    assert (found.id, found.certain, found.at) == ("memory", True, NOW)
    assert found.text == "Of this machine's memory 123 MB of 17 GB are left, no swap."


def test_tasks_that_wait_for_memory_are_a_suspect_cause(tmp_path: Path) -> None:
    places = Places(proc=proc(tmp_path / "proc", pressure="43.70"), cgroups=tmp_path)
    (found,) = look([], NOW, places=places).causes
    assert (found.id, found.certain) == ("memory", False)
    assert "44 % of the last minute" in found.text


def _cgroup(folder: Path, limit: str, used: int, cache: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\n")


def test_the_tightest_limit_on_the_way_up_counts_and_cache_is_no_use(tmp_path: Path) -> None:
    place, groups = proc(tmp_path / "proc"), tmp_path / "cgroup"
    (place / "self").mkdir()
    (place / "self/cgroup").write_text("0::/bots.slice/doge.service\n")
    _cgroup(groups / "bots.slice/doge.service", "max", 900)
    _cgroup(groups / "bots.slice", "1000000000", 990_000_000, cache=10_000_000)
    assert read_limit(None, place, groups) == Limit(1_000_000_000, 980_000_000)
    seen = look([], NOW, places=Places(proc=place, cgroups=groups))
    assert (seen.memory_available, seen.memory_total) == (20_000_000, 1_000_000_000)
    assert seen.causes[0].text == "Of the memory that botkeep's cgroup may use 20 MB of 1.0 GB are left."


def test_in_a_container_only_the_root_of_the_hierarchy_is_there(tmp_path: Path) -> None:
    place = proc(tmp_path / "proc")
    (place / "812").mkdir()
    (place / "812/cgroup").write_text("4:memory:/docker/0123\n0::/docker/0123\n")
    old = tmp_path / "cgroup/memory"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("536870912\n")
    (old / "memory.usage_in_bytes").write_text("100000000\n")
    (old / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 40000000\n")
    assert read_limit(812, place, tmp_path / "cgroup") == Limit(536870912, 60_000_000)
    (old / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # none, in the old hierarchy's word
    assert read_limit(812, place, tmp_path / "cgroup") is None


# ---------------------------------------------------------------------------------- the kernel kills a real process


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A process that the kernel killed for lack of memory: (pid, key, limit while it lived, moment, its name)."""
    with memory_cgroup.limited(40_000_000) as group:
        if group is None:
            pytest.skip(memory_cgroup.WHY_NOT)
        with memory_cgroup.hog(group) as process:
            found = read_proc(process.pid)
            assert found is not None
            key, limit = process_key(found, boot_id()), read_limit(process.pid)
            process.communicate(b"\n", timeout=30)
        assert process.returncode == -9, "its cgroup's limit did not hold"
        return process.pid, key, limit, datetime.now(UTC), found.comm


def test_the_limit_of_a_bot_in_a_cgroup_of_its_own_is_seen(killed: Any) -> None:
    limit = killed[2]
    assert limit is not None
    assert 39_000_000 < limit.limit <= 40_000_000


def test_a_kill_by_the_kernel_is_tied_to_the_bot_by_pid_and_time(killed: Any) -> None:
    pid, key, _, at, name = killed
    asked = Asked(exit=Exit(key, at, signal=9), alive=False)
    seen = examine(look([], at), asked, at)
    if not seen.kills:
        pytest.skip("the kernel's log may not be read here")
    (found,) = [one for one in seen.causes if one.id == "oom-kill"]
    assert found.certain
    assert found.text.startswith(f"The kernel killed it (pid {pid}, {name}, which held ")
    assert found.text.endswith(": its cgroup had used up its memory limit.")


def test_a_bot_that_ended_by_itself_at_that_time_was_not_killed(killed: Any) -> None:
    _, key, _, at, _ = killed
    for ended in (Exit(key, at, code=1), Exit(key, at, signal=15), Exit(key, at, signal=9, asked=True)):
        assert "oom-kill" not in kinds(examine(look([], at), Asked(exit=ended, alive=False), at))


def test_whom_the_kernel_ended_for_memory_is_known_from_its_log_and_nobody_else_is_taken_for_it(killed: Any) -> None:
    _, key, _, at, _ = killed
    if not read_kills(datetime.now(UTC))[0]:
        pytest.skip("the kernel's log may not be read here")
    ends = {
        "starved": Exit(key, at, signal=9),
        "asked": Exit(key, at, signal=9, asked=True),
        "earlier": Exit(key, at - timedelta(hours=1), signal=9),
        "another": Exit(key.replace(key.split(":")[1], "99999998", 1), at, signal=9),
        "by itself": Exit(key, at, code=1),
    }
    looks = [Observation(bot=name, at=NOW, runtime=RuntimeLook(exit=end)) for name, end in ends.items()]
    known = [replace(one, host=look([], NOW)) for one in looks]
    assert ended_for_memory(known, datetime.now(UTC)) == {"starved"}
    assert ended_for_memory(known, datetime.now(UTC), NOWHERE) == frozenset()
    assert ended_for_memory(looks, datetime.now(UTC)) == frozenset()


def test_the_machine_counts_its_kills_where_everybody_may_read(killed: Any) -> None:
    assert (look([], NOW).oom_kills or 0) >= 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may write into the kernel's log")
def test_what_a_program_writes_into_the_kernels_log_is_not_the_kernels(killed: Any) -> None:
    if not read_kills(datetime.now(UTC))[0]:
        pytest.skip("the kernel's log may not be read here")
    Path("/dev/kmsg").write_text(KILLED.format(pid=99_999_999, name="forged") + "\n")
    assert 99_999_999 not in [one.pid for one in read_kills(datetime.now(UTC))[0]]


# ---------------------------------------------------------------------------------------- the kernel's lines, recorded


def said(*texts: str) -> list[tuple[datetime, str]]:
    return [(NOW + timedelta(seconds=number), text) for number, text in enumerate(texts)]


def test_kernel_lines_of_all_ages_are_read() -> None:
    found = parse_kills(
        said(
            "python3 invoked oom-killer: gfp_mask=0x1100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
            "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,global_oom,task=python3,pid=812,uid=1000",
            KILLED.format(pid=812, name="python3"),
            "oom_reaper: reaped process 812 (python3), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
            "Memory cgroup out of memory: Killed process 813 (freqtrade) total-vm:9kB, anon-rss:7kB, file-rss:1kB",
            "Memory cgroup out of memory: Kill process 814 (node) score 1001 or sacrifice child",
            "Killed process 814 (node) total-vm:9kB, anon-rss:5kB, file-rss:1kB, shmem-rss:0kB",
            "Out of memory (oom_kill_allocating_task): Killed process 815 (a) b) total-vm:1kB, anon-rss:2kB",
            "Killed process 816 (java), UID 1000, total-vm:9kB, anon-rss:3kB, file-rss:1kB",
        )
    )
    assert [(one.pid, one.name, one.rss_bytes, one.whole_machine) for one in found] == [
        (812, "python3", 812340 << 10, True),
        (813, "freqtrade", 7 << 10, False),
        (814, "node", 5 << 10, False),
        (815, "a) b", 2 << 10, True),
        (816, "java", 3 << 10, True),
    ]


@pytest.mark.parametrize(
    "line", ["", "x Killed process 1 (a) total-vm:1kB, anon-rss:1kB", "Killed process 1 (a)", "Killed process x (a) t"]
)
def test_other_lines_are_no_kills(line: str) -> None:
    assert parse_kills(said(line)) == ()


def test_a_name_with_escapes_is_stripped() -> None:
    (found,) = parse_kills(said(KILLED.format(pid=1, name="\x1b[31mbot\u202e")))
    assert found.name == "bot"


def test_the_copies_of_the_kernels_log_are_read_where_the_kernel_lets_nobody(tmp_path: Path) -> None:
    copy = tmp_path / "kern.log"
    at = NOW - timedelta(minutes=5)
    lines = [
        f"{at:%Y-%m-%dT%H:%M:%S.123456+00:00} myhost kernel: [ 4711.123456] {KILLED.format(pid=812, name='python3')}",
        f"{at:%Y-%m-%dT%H:%M:%S+00:00} myhost evil[9]: x kernel: {KILLED.format(pid=666, name='forged')}",
        f"{at:%Y-%m-%dT%H:%M:%S+00:00} myhost kernel: eth0: link up, Killed nothing",
    ]
    copy.write_text("\n".join(lines) + "\n")
    found, problem = read_kills(NOW, Path("/nowhere"), [tmp_path / "none.log", copy], ("/nowhere",))
    assert [(one.pid, one.at.replace(microsecond=0)) for one in found] == [(812, at)]
    assert problem == ""
    journal = tmp_path / "journal"
    journal.write_text(f"{at.timestamp():.6f} myhost kernel: {KILLED.format(pid=813, name='python3')}\n")
    found, problem = read_kills(NOW, Path("/nowhere"), [], ("/bin/cat", str(journal)))
    assert [(one.pid, one.at) for one in found] == [(813, at)]


def kills_in(log: Path, *pids: int) -> None:
    at = NOW - timedelta(minutes=5)
    lines = [f"{at:%Y-%m-%dT%H:%M:%S+00:00} myhost kernel: {KILLED.format(pid=pid, name='python3')}" for pid in pids]
    log.write_text("".join(f"{line}\n" for line in lines))


def pids_of(kills: Sequence[OomKill]) -> list[int]:
    return [one.pid for one in kills]


def test_the_kernels_log_is_read_again_once_the_kernel_has_counted_another_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oomkills, "SETTLED", 0.0)
    log = tmp_path / "kern.log"
    known = KnownKills(Path("/nowhere"), [log], ("/nowhere",))
    kills_in(log, 812)
    assert pids_of(known.newest(1, NOW)) == [812]
    kills_in(log, 812, 813)
    assert pids_of(known.newest(1, NOW)) == [812]
    assert pids_of(known.newest(2, NOW)) == [812, 813]
    kills_in(log, 814)
    assert pids_of(known.newest(2, NOW + timedelta(minutes=2))) == [814]  # the clock was set: its dates are others


def test_a_kill_that_was_counted_just_now_is_looked_for_until_its_line_must_be_there(tmp_path: Path) -> None:
    log = tmp_path / "kern.log"
    known = KnownKills(Path("/nowhere"), [log], ("/nowhere",))
    kills_in(log)
    assert known.newest(1, datetime.now(UTC)) == ()
    assert known.newest(2, datetime.now(UTC)) == ()
    kills_in(log, 812)
    assert pids_of(known.newest(2, datetime.now(UTC))) == [812]


def test_where_nobody_may_read_the_kernels_log_that_is_said_of_a_bot_it_may_have_killed(tmp_path: Path) -> None:
    for ended, noted in (
        (Exit("x", NOW, signal=9), True),
        (Exit("x", NOW, code=137), True),
        (Exit("x", NOW, code=1), False),
    ):
        seen = examine(look([], NOW), Asked(exit=ended, alive=False), NOW, places=NOWHERE)
        assert bool(seen.notes) is noted
        assert "oom-kill" not in kinds(seen)
    assert examine(look([], NOW), Asked(), NOW, places=NOWHERE).notes == ()


@pytest.fixture
def logged(tmp_path: Path) -> Callable[..., Places]:
    """A kernel's log in a file: (seconds before now, pid, name) of each kill."""

    def write(*kills: tuple[float, int, str]) -> Places:
        copy = tmp_path / "kern.log"
        lines = [
            f"{NOW - timedelta(seconds=ago):%Y-%m-%dT%H:%M:%S+00:00} h kernel: {KILLED.format(pid=pid, name=name)}\n"
            for ago, pid, name in kills
        ]
        copy.write_text("".join(lines))
        return replace(NOWHERE, kernel_logs=(copy,))

    return write


def _tied(places: Places, ended: Exit, names: str = "python3") -> list[bool]:
    asked = Asked(exit=ended, alive=False, names=frozenset({names}))
    return [one.certain for one in examine(look([], NOW), asked, NOW, places=places).causes if one.id == "oom-kill"]


def test_a_kill_is_tied_to_a_bot_by_pid_by_name_or_not_at_all(logged: Callable[..., Places]) -> None:
    places, ended = logged((30, 812, "python3")), NOW - timedelta(seconds=32)
    own, other = "0123abcd:812:99:7", "0123abcd:900:99:7"
    assert _tied(places, Exit(own, ended, signal=9)) == [True]
    assert _tied(places, Exit(other, ended, signal=9)) == []  # killed by somebody, at the same time
    assert _tied(places, Exit(other, ended, code=137)) == [False]  # a wrapper, whose child was killed
    assert _tied(places, Exit("container-1", ended, code=137)) == [False]
    assert _tied(places, Exit("container-1", ended, code=137), names="freqtrade") == []
    assert _tied(places, Exit(own, NOW - timedelta(days=2), signal=9)) == []  # a reused pid
    assert _tied(places, Exit(own, None)) == []  # of another boot
    assert _tied(places, Exit(f"{boot_id()[:8]}:812:99:7", None)) == [False]


def test_what_the_kernel_killed_else_lately_shows_that_memory_is_short(logged: Callable[..., Places]) -> None:
    places = logged((7200, 1, "old"), (900, 812, "python3"), (600, 813, "postgres"))
    (found,) = examine(look([], NOW), Asked(), NOW, places=places).causes
    assert (found.id, found.certain) == ("memory", True)
    assert "ended postgres (pid 813) and 1 more for lack of memory" in found.text


# -------------------------------------------------------------------------------------------------------------- disks

FILL = """
import json, subprocess, sys
from datetime import UTC, datetime
from pathlib import Path
from botkeep.host import look
place = Path(sys.argv[1])
def show():
    seen = look([place / "data/not/there/yet", place], datetime.now(UTC), free_below=50_000)
    print(json.dumps([[one.id, one.certain, one.text] for one in seen.causes]), flush=True)
    return seen
seen = show()
assert len(seen.disks) == 1 and seen.disks[0].paths == (str(place),) * 2, seen.disks
{how}
show()
"""
FULL = "(place / 'x').write_bytes(b'x' * 370_000)"
FILES = "[(place / str(number)).touch() for number in range(40)]"
READ_ONLY = "subprocess.run(['mount', '-o', 'remount,ro', str(place)], check=True)"


@pytest.mark.skipif(not small_disk.available(), reason="no right to mount a small disk here")
@pytest.mark.parametrize(
    ("size", "how", "said_of_it"),
    [
        ("400k", FULL, "has 37 kB of 410 kB left."),
        ("4m,nr_inodes=100", FILES, "takes only 59 more files, whatever room it has (4.2 MB of 4.2 MB)."),
        ("400k", READ_ONLY, "is mounted read-only, so nothing can be written there."),
    ],
)
def test_a_disk_that_takes_nothing_more_is_a_certain_cause(
    tmp_path: Path, size: str, how: str, said_of_it: str
) -> None:
    script = FILL.replace("{how}", how)
    before, after = small_disk.run(script, size=size, at=tmp_path / "disk", workspace_modules=str(TOOLS)).splitlines()
    assert json.loads(before) == []
    (found,) = json.loads(after)
    assert found == ["disk", True, f"The disk of {tmp_path / 'disk'} {said_of_it}"]


def test_each_disk_is_told_once_and_a_folder_that_may_not_be_seen_is_left_out(tmp_path: Path) -> None:
    seen = look([tmp_path, tmp_path / "data", tmp_path / "data", Path("/proc")], NOW)
    assert [one.path for one in seen.disks] == [str(tmp_path), "/proc"]
    assert seen.disks[0].free > 0


# -------------------------------------------------------------------------------------------------------------- clock


def test_the_kernel_says_whether_something_sets_its_clock() -> None:
    clock = read_clock()
    assert clock is None or clock.error >= 0


def test_where_the_kernel_may_not_be_asked_the_clock_is_not_known() -> None:
    script = Path(__file__).parents[1] / "support/forbidden_clock.py"
    done = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(TOOLS)}, capture_output=True, text=True
    )
    if "KeyError" in done.stderr:
        pytest.skip("the numbers of this machine's system calls are not known here")
    assert done.stdout == "None None True\n", done.stderr


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("WARNING - Your system time deviates by 3.2s from the time of Binance. This can cause failing requests", 3.2),
        ("WARNING - Your system time deviates by -41.0s from the time of Bybit.", -41.0),
        ("binance -1021 Timestamp for this request was 1000ms ahead of the server's time.", 1.0),
        ("10002 req_timestamp[1695893467000],server_timestamp[1695893480000],recv_window[5000]", -13.0),
        ("system time deviates by 999999999999s from", None),
        ("Timestamp for this request is outside of the recvWindow.", None),
    ],
)
def test_a_measured_offset_is_read_from_the_line_that_names_it(line: str, seconds: float | None) -> None:
    assert offset_in([cause("clock-off", line=line)]) == seconds
    assert offset_in([cause("binance-ip-ban", CauseClass.WAIT, line, Fault.API_RATE_LIMITED)]) is None


def test_of_several_measured_offsets_the_newest_counts_and_it_is_suspect() -> None:
    old = replace(cause("clock-off", line="system time deviates by 9.0s from"), last_at=NOW - timedelta(minutes=9))
    new = cause("clock-off", line="system time deviates by -3.2s from the time of Binance")
    seen = examine(look([], NOW), Asked(causes=(old, new)), NOW, places=NOWHERE)
    (found,) = seen.causes
    assert (found.id, found.certain, seen.clock_offset) == ("clock", False, -3.2)
    assert found.text.startswith("By what the bot's log says, this machine's clock is 3.2 s behind; ")
    assert look([], NOW, logs=[None, LogLook(causes=(old, new))]).clock_offset == -3.2


def test_what_a_bot_measures_when_it_starts_is_known_for_an_hour() -> None:
    def marked(at: datetime, mark: str = "time-offset", **values: str) -> LogLook:
        return LogLook(marks={mark: Mark(mark, at, values, 1, at)})

    assert look([], NOW, logs=[marked(NOW, milliseconds="-43")]).clock_offset == pytest.approx(-0.043)
    assert look([], NOW, logs=[marked(NOW, "time-deviation", seconds="5.0")]).clock_offset == 5.0
    for log in (marked(NOW - timedelta(hours=2), milliseconds="1"), marked(NOW, milliseconds="x"), marked(NOW, "x")):
        assert look([], NOW, logs=[log]).clock_offset is None


@pytest.mark.parametrize(
    ("synchronised", "error", "words"),
    [
        (True, 0.004, "a time service sets it by the kernel's word."),
        (False, 16.0, "no time service sets it by the kernel's word, which reckons with an error of up to 16 s."),
        (None, None, "whether a time service sets it is not known."),
    ],
)
def test_what_the_kernel_says_of_the_clock_stands_beside_the_logs_complaint(
    synchronised: bool | None, error: float | None, words: str
) -> None:
    seen = HostLook(NOW, clock_synchronised=synchronised, clock_error=error)
    assert examine(seen, Asked(), NOW, places=NOWHERE).causes == ()  # without a complaint it is no cause
    (found,) = examine(seen, Asked(causes=(CLOCK,)), NOW, places=NOWHERE).causes
    assert found.text == f"By what the bot's log says, this machine's clock is off; {words}"


# -------------------------------------------------------------------------------------------------------------- names

SERVER = """
import json, socket, struct, threading, time
from botkeep.playbooks import packaged_playbooks
from botkeep.resolving import resolve

def answer(query):
    labels = query[12:query.index(0, 12)]
    known, ipv4 = b"binance" in labels, query[-4:-2] == bytes([0, 1])
    head = query[:2] + struct.pack("!5H", 0x8180 if known else 0x8183, 1, int(known and ipv4), 0, 0) + query[12:]
    return head + (bytes([0xC0, 12]) + struct.pack("!HHIH4B", 1, 1, 60, 4, 127, 0, 0, 9) if known and ipv4 else b"")

def serve(server):
    while True:
        query, asker = server.recvfrom(512)
        server.sendto(answer(query), asker)

"""
NAMES = (
    SERVER
    + """
said = {"no server": resolve(["api.binance.com"])}
mute = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
mute.bind(("127.0.0.1", 53))
began = time.monotonic()
said["mute server"] = resolve(["api.binance.com", "api.kraken.com"], 0.5)
waited = time.monotonic() - began
threading.Thread(target=serve, args=(mute,), daemon=True).start()
said["server"] = resolve(["api.binance.com", "no.such.name"])
print(json.dumps({name: [[one.host, one.ok, one.why] for one in found] for name, found in said.items()}))
print(json.dumps(waited))
"""
)


@pytest.mark.skipif(not own_network.available(), reason=own_network.WHY_NOT)
def test_names_are_asked_for_with_a_deadline_whatever_the_server_does(tmp_path: Path) -> None:
    told, waited = map(json.loads, own_network.run(NAMES, tmp_path, TOOLS).splitlines())
    assert told["no server"] == [["api.binance.com", False, "the name servers do not answer"]]
    assert told["mute server"] == [
        ["api.binance.com", False, "no answer within 0.5 s"],
        ["api.kraken.com", False, "no answer within 0.5 s"],
    ]
    assert told["server"] == [["api.binance.com", True, ""], ["no.such.name", False, "there is no such name"]]
    assert 0.5 <= waited < 2  # for both together


ASK = (
    SERVER
    + """
from datetime import UTC, datetime
from pathlib import Path
from botkeep.host import Asked, Places, examine, look
from botkeep.model import Cause, CauseClass
now = datetime.now(UTC)
nowhere = Places(kmsg=Path("/nowhere"), kernel_logs=(), journal=("/nowhere",))
def cause(name, klass):
    return Cause(name, "x", klass, None, "cannot resolve api.evil.example", 1, now, now)
def ask(*causes):
    seen = examine(look([], now), Asked(causes=causes, hosts=("api.binance.com",)), now, places=nowhere)
    print(json.dumps([[[one.id, one.certain, one.text] for one in seen.causes], seen.notes]), flush=True)
ask()
ask(cause("name-resolution", CauseClass.HOST))
ask(cause("connection-lost", CauseClass.WAIT))
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
threading.Thread(target=serve, args=(server,), daemon=True).start()
ask(cause("name-resolution", CauseClass.HOST))
"""
)


@pytest.mark.skipif(not own_network.available(), reason=own_network.WHY_NOT)
def test_a_resolver_that_is_broken_is_a_certain_cause_where_a_log_complains(tmp_path: Path) -> None:
    quiet, names, network, mended = map(json.loads, own_network.run(ASK, tmp_path, TOOLS).splitlines())
    assert quiet == [[], []]
    assert [one[:2] for one in (*names[0], *network[0])] == [["dns", True]] * 2
    text = "This machine cannot resolve api.binance.com: the name servers do not answer (asked for "
    assert names[0][0][2].startswith(text)
    assert mended == [[], ["This machine resolves api.binance.com now."]]


def test_only_names_of_the_table_and_the_configuration_are_asked_for() -> None:
    assert hosts_of("binance") == ("api.binance.com",)
    assert hosts_of("Gate.io", "https://proxy.example/x", None) == ("api.gateio.ws", "proxy.example")
    assert hosts_of("kraken_paper_trade", "http://127.0.0.1:8080", "http://localhost:1/") == ("api.kraken.com",)
    assert hosts_of("evil.example", "http://[::1]:8080/") == ()
    assert resolve([]) == ()


# --------------------------------------------------------------------------------------------------- the whole question


def _bot(home: Path, **more: Any) -> Bot:
    (home / "config").mkdir(parents=True)
    (home / "config/bots.json").write_text(json.dumps({"bots": [{"name": "doge", **more}]}))
    bot = load_fleet(Workspace(home)).bots[0]
    assert isinstance(bot, Bot)
    return bot


def test_the_question_about_a_bots_machine_comes_from_its_configuration_and_the_look(tmp_path: Path) -> None:
    bot = _bot(
        tmp_path,
        process_name="doge_long",
        health_endpoint="http://bots.example:8080/health",
        runtime={"kind": "process", "command": ["/opt/venv/bin/python3.11", "-u", "a_long_name_of_a_script.py", "-x"]},
        replay={"exchange": {"id": "binance", "endpoint": "https://proxy.example"}},
    )
    living = Instance("k", 812, InstanceState.RUNNING, NOW, ours=True, how="recorded", members=(812, 813))
    seen = Observation("doge", NOW, RuntimeLook((living,)), causes=(DNS,), program=ProgramLook(exchange="okx"))
    asked = asked_about(bot, seen)
    assert asked.names == {"python3.11", "a_long_name_of_", "doge_long"}
    assert asked.hosts == ("www.okx.com", "proxy.example", "bots.example")
    assert (asked.alive, asked.pids, asked.causes) == (True, (812, 813), (DNS,))
    assert asked_about(bot, replace(seen, program=ProgramLook())).hosts[0] == "api.binance.com"


def test_a_bot_at_its_own_cgroups_limit_is_told(tmp_path: Path) -> None:
    place, groups = proc(tmp_path / "proc"), tmp_path / "cgroup"
    (place / "812").mkdir()
    (place / "812/cgroup").write_text("0::/doge\n")
    _cgroup(groups / "doge", "500000000", 499_000_000)
    places = replace(NOWHERE, proc=place, cgroups=groups)
    (found,) = examine(look([], NOW, places=places), Asked(pids=(812,)), NOW, places=places).causes
    assert (found.id, found.certain) == ("memory", True)
    assert found.text == "The bot's cgroup has used 499 MB of the 500 MB of memory that it may use."


def test_a_look_costs_less_than_two_milliseconds(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(20)]
    look(folders, NOW)
    costs = []
    for _ in range(20):
        began = time.process_time()
        look(folders, NOW)
        costs.append(time.process_time() - began)
    assert min(costs) < 0.002  # 0.4 ms measured


def test_the_machines_start_is_known_to_the_second() -> None:
    booted = look([], datetime.now(UTC)).booted_at
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert booted is not None
    assert abs((datetime.now(UTC) - booted).total_seconds() - uptime) < 3


def test_a_disk_counts_as_full_where_the_playbook_says_so() -> None:
    assert packaged_playbooks().get(Fault.DISK_FULL).policy.when.free_below == host.FREE_BELOW
