"""One pass over /proc, and what can be said about a process that is never mistaken for another one.

pid and start time are no identity: with a forced pid reuse both were equal in 250 of 300 trials, since the kernel's
clock tick is 10 ms long. The inode of a pidfd (Linux 6.9) is unique for a boot; it is used where the kernel has it.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
DEAD_STATES = frozenset("ZXx")
INTERPRETER = re.compile(r"(?:python|pypy|perl|ruby|bash|dash|sh|zsh|ksh|node|nodejs|bun)[\d.]*")
SCRIPT_ENDINGS = (".py", ".pyc", ".pyw", ".sh", ".js", ".mjs", ".ts", ".rb", ".pl")
OPTIONS_WITH_VALUE = frozenset({"-W", "-X", "-r", "--require", "--import", "-o", "-O", "--rcfile"})
COMM_LENGTH = 15


@dataclass(frozen=True, slots=True)
class Proc:
    """One line of the process table. Times in clock ticks since boot."""

    pid: int
    ppid: int
    state: str
    start_ticks: int
    uid: int
    comm: str
    argv: tuple[str, ...]
    rss_bytes: int

    @property
    def dead(self) -> bool:
        """A zombie is dead: kill(pid, 0) and most tools say that it runs."""
        return self.state in DEAD_STATES


@dataclass(frozen=True)
class Program:
    """A command line, read as interpreter, script and the arguments after it."""

    interpreter: str
    """`python` for python3.11; empty for a program of its own."""
    script: str
    """The script, the module after -m, or the program."""
    is_module: bool
    arguments: tuple[str, ...]

    @cached_property
    def names(self) -> frozenset[str]:
        """What a `process_name` may call it, the extension optional."""
        base = self.script.rsplit("/", 1)[-1]
        names = {base, without_ending(base)}
        if self.is_module:
            names.add(base.rsplit(".", 1)[-1])
        return frozenset(name for name in names if name)


def without_ending(name: str) -> str:
    """`doge.py` and `doge` are one process name; `bot.v2` stays what it is."""
    return next((name[: -len(end)] for end in SCRIPT_ENDINGS if name.endswith(end) and name != end), name)


def read_program(argv: tuple[str, ...]) -> Program | None:
    """Take a command line apart. None for an interpreter without a script (`python -c`, an interactive shell)."""
    if not argv or not argv[0]:
        return None
    base = argv[0].rsplit("/", 1)[-1].lstrip("-")
    if not INTERPRETER.fullmatch(base):
        return Program("", argv[0], False, argv[1:])
    place = 1
    while place < len(argv):
        word = argv[place]
        if word == "-m" and place + 1 < len(argv):
            return Program(base.rstrip("0123456789."), argv[place + 1], True, argv[place + 2 :])
        if word in {"-c", "-"}:
            return None
        if not word.startswith("-"):
            return Program(base.rstrip("0123456789."), word, False, argv[place + 1 :])
        place += 2 if word in OPTIONS_WITH_VALUE else 1
    return None


def _parse_stat(data: bytes) -> tuple[str, str, int, int, int]:
    """comm, state, ppid, start ticks, rss pages of /proc/PID/stat; comm may hold spaces and parentheses."""
    left, right = data.index(b"("), data.rindex(b")")
    rest = data[right + 2 :].split()
    return data[left + 1 : right].decode(errors="replace"), chr(rest[0][0]), int(rest[1]), int(rest[19]), int(rest[21])


def read_proc(pid: int) -> Proc | None:
    """One process as it is now; None if there is none (any more)."""
    base = f"/proc/{pid}"
    try:
        with open(f"{base}/stat", "rb") as file:
            comm, state, ppid, ticks, rss = _parse_stat(file.read())
        with open(f"{base}/cmdline", "rb") as file:
            line = file.read(131072)
        uid = os.stat(base).st_uid
    except (OSError, ValueError):
        return None
    argv = tuple(part.decode(errors="surrogateescape") for part in line.rstrip(b"\0").split(b"\0")) if line else ()
    return Proc(pid, ppid, state, ticks, uid, comm, argv, rss * PAGE_BYTES)


def boot_id() -> str:
    """Changes at every boot: a record with another one is void, whatever its pid."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@cache
def has_pidfs() -> bool:
    """Linux 6.9 and later; before it every pidfd shares one anonymous inode, which says nothing."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor.split("-")[0])) >= (6, 9)


def pidfd_inode(pid: int) -> int | None:
    """The unique number of this process for this boot; None if it is gone or the kernel has no pidfs."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        inode = os.fstat(fd).st_ino
    finally:
        os.close(fd)
    return inode if has_pidfs() else None


def process_key(proc: Proc, boot: str) -> str:
    """A name for this process that no other one ever has."""
    return f"{boot[:8]}:{proc.pid}:{proc.start_ticks}:{pidfd_inode(proc.pid) or 0}"


@dataclass
class ProcessTable:
    """All processes at one moment, read once for all bots: a scan for each bot costs 52 s a tick with 1,000."""

    procs: dict[int, Proc]
    boot: str = field(default_factory=boot_id)

    @classmethod
    def read(cls) -> ProcessTable:
        """Read /proc once."""
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
        return cls({proc.pid: proc for proc in map(read_proc, pids) if proc is not None})

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """Parent to children."""
        found: dict[int, list[int]] = defaultdict(list)
        for proc in self.procs.values():
            found[proc.ppid].append(proc.pid)
        return found

    @cached_property
    def excluded(self) -> frozenset[int]:
        """This program and its ancestors: never a bot, whatever their command line says."""
        own = os.getpid()
        return frozenset({own, *self.ancestors(own)})

    @cached_property
    def by_name(self) -> dict[str, list[Proc]]:
        """Living processes of this user by each name they answer to. Never by a part of a name."""
        found: dict[str, list[Proc]] = defaultdict(list)
        own = os.geteuid()
        for proc in self.procs.values():
            if proc.uid == own and not proc.dead and proc.pid not in self.excluded:
                for name in _names(proc):
                    found[name].append(proc)
        return found

    @cached_property
    def booted_at(self) -> datetime:
        """When this machine started, to the second."""
        with open("/proc/stat", "rb") as file:
            seconds = next(int(line.split()[1]) for line in file if line.startswith(b"btime"))
        return datetime.fromtimestamp(seconds, UTC)

    def started_at(self, proc: Proc) -> datetime:
        """When a process started, in UTC."""
        return self.booted_at + timedelta(seconds=proc.start_ticks / CLOCK_TICKS)

    def ancestors(self, pid: int) -> Iterator[int]:
        """Parents, nearest first. A loop (pids were reused while we read) ends it."""
        seen = {pid}
        while (proc := self.procs.get(pid)) and proc.ppid and proc.ppid not in seen:
            pid = proc.ppid
            seen.add(pid)
            yield pid

    def descendants(self, pid: int) -> tuple[int, ...]:
        """Every living process below `pid`."""
        found: list[int] = []
        stack = list(self.children.get(pid, ()))
        while stack:
            child = stack.pop()
            if child not in found:
                found.append(child)
                stack.extend(self.children.get(child, ()))
        return tuple(child for child in found if not self.procs[child].dead)


def _names(proc: Proc) -> frozenset[str]:
    program = read_program(proc.argv)
    names = {proc.comm} | (program.names if program else set())
    if proc.argv and proc.argv[0]:
        base = proc.argv[0].rsplit("/", 1)[-1]
        names |= {base, without_ending(base)}
    return frozenset(names)


def _resolve(path: str, cwd: str) -> str:
    return os.path.realpath(os.path.join(cwd, path))


def is_same_program(proc: Proc, command: tuple[str, ...], cwd: str) -> bool:
    """Whether a process runs exactly this command: same script file, same arguments.

    A copy started by hand from another folder, by another spelling of the path or by `python3` for `python`, is the
    same program. Where a working directory cannot be read, equal text counts as equal.
    """
    theirs, ours = read_program(proc.argv), read_program(command)
    if theirs is None or ours is None:
        return proc.argv == command
    if (theirs.interpreter, theirs.is_module, theirs.arguments) != (ours.interpreter, ours.is_module, ours.arguments):
        return False
    if ours.is_module or ("/" not in theirs.script and "/" not in ours.script and not ours.interpreter):
        return theirs.script == ours.script
    try:
        place = os.readlink(f"/proc/{proc.pid}/cwd")
    except OSError:
        return theirs.script == ours.script
    if not ours.interpreter and ("/" not in theirs.script or "/" not in ours.script):
        # One of the two was found through PATH: the base name is all that is left to compare.
        return theirs.script.rsplit("/", 1)[-1] == ours.script.rsplit("/", 1)[-1]
    return _resolve(theirs.script, place) == _resolve(ours.script, cwd)


def lock_holders(path: Path) -> set[int]:
    """Every process that has this file open, whatever it calls itself: the kernel's own list."""
    try:
        wanted = os.stat(path)
    except FileNotFoundError:
        return set()
    return {pid for pid, dev, ino in _open_files() if (dev, ino) == (wanted.st_dev, wanted.st_ino)}


def _open_files() -> Iterator[tuple[int, int, int]]:
    """(pid, dev, inode) of every open file that we may look at."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            for fd in os.scandir(f"/proc/{name}/fd"):
                try:
                    status = fd.stat()
                except OSError:
                    continue
                yield int(name), status.st_dev, status.st_ino
        except OSError:
            continue


def marked(marker: str) -> set[int]:
    """Processes whose environment holds this marker: children started with closed descriptors keep it."""
    wanted = marker.encode()
    found = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if wanted in file.read(262144).split(b"\0"):
                    found.add(int(name))
        except OSError:
            continue
    return found
