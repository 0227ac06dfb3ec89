"""One pass over /proc, and what can be said about a process that is never mistaken for another one.

pid and start time are no identity: with a forced pid reuse both were equal in 250 of 300 trials, since the kernel's
clock tick is 10 ms long. The inode of a pidfd (Linux 6.9) is unique for a boot; it is used where the kernel has it.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, lru_cache
from pathlib import Path

from botkeep.model import EngineError
from botkeep.openfiles import Inode, written_by

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
DEAD_STATES = frozenset("ZXx")
KERNEL_THREAD = 0x00200000
"""The flag (PF_KTHREAD) by which the kernel marks its own threads: they have no command line, and are nobody's bot."""
GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""A process that ended while we looked, or is another user's. Anything else (no free descriptor, no memory) is no
answer: taken for one, it would prove that nothing runs."""
SCRIPT_ENDINGS = (".py", ".pyc", ".pyw", ".sh", ".js", ".mjs", ".ts", ".rb", ".pl", ".jar")
MARKER = "BOTKEEP_INSTANCE"
LOCK_ENDINGS = ("/run.lock", "/run.lock (deleted)")
WATCHER_ENDING = "/runtimes/shim.py"
OWN_PROGRAMS = frozenset({"botkeep", "botkeep.cli", "botkeep.server"})
"""As a command and as modules; what becomes a bot (`botkeep.exec_env`) is none of them."""


@dataclass(frozen=True)
class Syntax:
    """How an interpreter's command line is read: what takes a value, and what stands where a script would."""

    values: frozenset[str] = frozenset()
    """Options whose value is the next word."""
    inline: str = ""
    """Letters that end a cluster of options when a program text follows: -c, -lc, -e."""
    module: str = ""
    """The letter of `python -m`."""
    verbs: frozenset[str] = frozenset()
    """Words before the script that are none: `bun run`."""


_PYTHON = Syntax(frozenset({"-W", "-X", "--check-hash-based-pycs"}), inline="c", module="m")
_SHELL = Syntax(frozenset({"-o", "+o", "-O", "+O", "--rcfile", "--init-file"}), inline="c")
_NODE = Syntax(frozenset({"-r", "--require", "--import", "--loader", "--env-file", "-C", "--conditions"}), inline="ep")
_PERL = Syntax(frozenset({"-I"}), inline="eE")
_RUBY = Syntax(frozenset({"-I", "-r", "-C"}), inline="e")
_BUN = Syntax(frozenset({"-r", "--preload", "--cwd", "--env-file"}), inline="ep", verbs=frozenset({"run"}))
_JAVA = Syntax(frozenset({"-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-opens"}))
SYNTAXES = {
    **dict.fromkeys(("python", "pypy"), _PYTHON),
    **dict.fromkeys(("bash", "dash", "sh", "zsh", "ksh", "ash"), _SHELL),
    **dict.fromkeys(("node", "nodejs"), _NODE),
    "bun": _BUN,
    "perl": _PERL,
    "ruby": _RUBY,
    "java": _JAVA,
}
INTERPRETER = re.compile(rf"({'|'.join(SYNTAXES)})[\d.]*")
COMM_LENGTH = 15
"""What the kernel keeps of the name that a process gives itself."""


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
    threads: int = 1
    stack: int = 0
    """Address at which its stack begins, if we may know: another one for each program that it executes."""

    @property
    def dead(self) -> bool:
        """A zombie is dead: kill(pid, 0) and most tools say that it runs. One whose other threads run is not."""
        return self.state in DEAD_STATES and self.threads <= 1


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
    def base(self) -> str:
        """The script without its folders."""
        return self.script.rsplit("/", 1)[-1]

    @cached_property
    def names(self) -> frozenset[str]:
        """What a `process_name` may call it, the extension optional."""
        names = {self.base, without_ending(self.base)}
        if self.is_module:
            names.add(self.base.rsplit(".", 1)[-1])
        return frozenset(name for name in names if name)


@dataclass(frozen=True)
class Command:
    """A configured command and the folder it runs in. `owner`: the bot that it belongs to."""

    owner: str
    argv: tuple[str, ...]
    cwd: str


def without_ending(name: str) -> str:
    """`doge.py` and `doge` are one process name; `bot.v2` stays what it is."""
    return next((name[: -len(end)] for end in SCRIPT_ENDINGS if name.endswith(end) and name != end), name)


def interpreter_of(word: str) -> str:
    """`python` for /usr/bin/python3.11 and for a login shell's `-bash`; empty for what is no interpreter."""
    found = INTERPRETER.fullmatch(word.rsplit("/", 1)[-1].lstrip("-"))
    return found[1] if found else ""


def read_program(argv: tuple[str, ...]) -> Program | None:
    """Take a command line apart. None for an interpreter without a script (`python -c`, an interactive shell)."""
    if not argv or not argv[0]:
        return None
    name = interpreter_of(argv[0])
    if not name:
        return Program("", argv[0], False, argv[1:])
    syntax, place = SYNTAXES[name], 1
    while place < len(argv):
        word = argv[place]
        if not word.startswith(("-", "+")) and word not in syntax.verbs:
            return Program(name, word, False, argv[place + 1 :])
        letter = _last_letter(word, syntax)
        if word == "-" or (letter and letter in syntax.inline):
            return None
        if letter and letter == syntax.module:
            return Program(name, argv[place + 1], True, argv[place + 2 :]) if place + 1 < len(argv) else None
        place += 2 if word in syntax.values or f"-{letter}" in syntax.values else 1
    return None


def _last_letter(word: str, syntax: Syntax) -> str:
    """What decides in a cluster of short options: `c` of -lc, `m` of -um. Not of -Xtracemalloc: that is a value."""
    attached = len(word) > 2 and word[:2] in syntax.values
    return word[-1] if syntax.inline and not attached and re.fullmatch(r"-[A-Za-z]+", word) else ""


def _parse_stat(data: bytes) -> tuple[str, str, list[bytes]]:
    """comm, state and the fields from the fourth on of /proc/PID/stat; comm may hold spaces and parentheses."""
    left, right = data.index(b"("), data.rindex(b")")
    return data[left + 1 : right].decode(errors="replace"), chr(data[right + 2]), data[right + 4 :].split(None, 26)


def all_pids() -> list[int]:
    """Every pid there is now. Raises EngineError if nothing can be read."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError as error:
        raise EngineError(f"The process table cannot be read: {error.strerror}. Nothing was proven.") from error


def read_proc(pid: int) -> Proc | None:
    """One process as it is now; None if there is none (any more). Raises EngineError if nothing can be read."""
    line = _read_line(pid, None)
    return line.proc if line else None


@dataclass(frozen=True, slots=True)
class _Line:
    """What the kernel told of a process, and how that is read: most sleep, and it tells the same of them again."""

    stat: bytes
    words: bytes
    is_kernels: bool
    proc: Proc


def _read_line(pid: int, known: _Line | None) -> _Line | None:
    """Asked anew; only to take the answer apart is spared where it is that of `known`."""
    base = f"/proc/{pid}"
    try:
        stat = _read(f"{base}/stat", 4096)
        same = known is not None and known.stat == stat
        is_kernels = known.is_kernels if known is not None and same else _is_kernels(stat)
        words = b"" if is_kernels else _read(f"{base}/cmdline", 131072)
        uid = 0 if is_kernels else os.stat(base).st_uid
        if known is not None and same and known.words == words and known.proc.uid == uid:
            return known
        return _Line(stat, words, is_kernels, _parsed(pid, uid, stat, words))
    except (*GONE, ValueError):
        return None
    except OSError as error:
        raise EngineError(f"The process table cannot be read: {error.strerror}. Nothing was proven.") from error


def _read_lines(known: Mapping[int, _Line]) -> dict[int, _Line]:
    return {pid: line for pid in all_pids() if (line := _read_line(pid, known.get(pid))) is not None}


def _procs(lines: Mapping[int, _Line]) -> dict[int, Proc]:
    return {pid: line.proc for pid, line in lines.items()}


def _is_kernels(stat: bytes) -> bool:
    """Whether it is a thread of the kernel's own."""
    return bool(int(_parse_stat(stat)[2][5]) & KERNEL_THREAD)


def _parsed(pid: int, uid: int, stat: bytes, words: bytes) -> Proc:
    comm, state, rest = _parse_stat(stat)
    argv = tuple(os.fsdecode(words.rstrip(b"\0")).split("\0")) if words else ()
    threads, ticks, pages = int(rest[16]), int(rest[18]), int(rest[20])
    return Proc(pid, int(rest[0]), state, ticks, uid, comm, argv, pages * PAGE_BYTES, threads, int(rest[24]))


def _is_unchanged(known: Proc, now: Proc) -> bool:
    """Whether it is the same process that still runs the same program: each has its stack elsewhere, if the kernel
    places stacks at random, and if we may know where."""
    if now is known:
        return now.stack != 0
    return now.stack != 0 and (now.start_ticks, now.stack, now.comm, now.argv) == (
        known.start_ticks, known.stack, known.comm, known.argv
    )  # fmt: skip


def _read(path: str, limit: int) -> bytes:
    """The first bytes of a file of /proc: three system calls, where `open` makes seven."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)


def _read_all(path: str) -> bytes:
    """A whole file of /proc: most fit into one read."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(fd, 32768)]
        while len(parts[-1]) and len(parts) < 256:
            parts.append(os.read(fd, 32768))
        return b"".join(parts)
    finally:
        os.close(fd)


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
    if not has_pidfs():
        return None
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def process_key(proc: Proc, boot: str) -> str:
    """A name for this process that no other one ever has."""
    return f"{boot[:8]}:{proc.pid}:{proc.start_ticks}:{pidfd_inode(proc.pid) or 0}"


def watched_by(proc: Proc) -> str | None:
    """The run folder of the bot that this process watches over, if it is a watcher of botkeep's (shim.py).

    A bot's own process has this command line too, between the fork and the execution of its command.
    """
    argv = proc.argv
    if len(argv) < 6 or argv[1:3] != ("-I", "-S") or argv[4] not in ("launch", "watch"):
        return None
    return argv[5] if argv[3].endswith(WATCHER_ENDING) else None


def is_launcher(proc: Proc) -> bool:
    """Whether this is shim.py at any of its stages, of whichever bot; one that waits for an order has none yet."""
    argv = proc.argv
    return len(argv) > 4 and argv[1:3] == ("-I", "-S") and argv[3].endswith(WATCHER_ENDING)


Kin = Callable[[tuple[str, ...]], bool]
"""Whether a command line is of a kind of program."""


CONTAINER = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
"""The id of a container, as it stands in the path of its control group."""


@dataclass
class ProcessTable:
    """All processes at one moment, read once for all bots: a scan for each bot costs 52 s a tick with 1,000."""

    procs: dict[int, Proc]
    boot: str = field(default_factory=boot_id)
    _lines: dict[int, _Line] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls) -> ProcessTable:
        """Read /proc once. Raises EngineError if it cannot be read."""
        lines = _read_lines({})
        return cls(_procs(lines), _lines=lines)

    def again(self) -> ProcessTable:
        """The table a moment later: what programs were executed with is not asked again.

        The command lines are: a program may write another one over its own, and look like another by that.
        """
        lines = _read_lines(self._lines)
        following = ProcessTable(_procs(lines), self.boot, lines)
        for pid, marker in self._markers.copy().items():  # of a table that several look at, one may ask meanwhile
            known, now = self.procs.get(pid), following.procs.get(pid)
            if known is not None and now is not None and _is_unchanged(known, now):
                following._markers[pid] = marker
        return following

    def marker(self, pid: int) -> str | None:
        """As `carried_marker`; each program is asked once, since its environment is what it was executed with."""
        if pid not in self._markers:
            self._markers[pid] = carried_marker(pid)
        return self._markers[pid]

    def to_keep(self) -> ProcessTable:
        """What `again` takes over of this table, with every process asked now: for whoever looks all day long."""
        kept = ProcessTable(self.procs, self.boot, self._lines)
        kept._markers.update({pid: self.marker(pid) for pid in self.procs})
        return kept

    @cached_property
    def _markers(self) -> dict[int, str | None]:
        return {}

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """Parent to children. Nobody is older than their parent: then a pid was reused while we read."""
        found: dict[int, list[int]] = defaultdict(list)
        for proc in self.procs.values():
            parent = self.procs.get(proc.ppid)
            if parent is not None and parent.start_ticks <= proc.start_ticks:
                found[proc.ppid].append(proc.pid)
        return found

    @cached_property
    def own_line(self) -> frozenset[int]:
        """This program and its ancestors."""
        own = os.getpid()
        return frozenset({own, *self.ancestors(own)})

    @cached_property
    def candidates(self) -> tuple[Proc, ...]:
        """Living processes of this user, without this program."""
        user, own = os.geteuid(), os.getpid()
        return tuple(one for one in self.procs.values() if one.uid == user and not one.dead and one.pid != own)

    @cached_property
    def by_name(self) -> dict[str, list[Proc]]:
        """The candidates by each name they answer to. Never by a part of one."""
        found: dict[str, list[Proc]] = defaultdict(list)
        for proc in self.candidates:
            for name in _names(proc):
                found[name].append(proc)
        return found

    @cached_property
    def by_program(self) -> dict[tuple[str, ...], list[Proc]]:
        """The candidates by `program_key`: a thousand bots of one script do not each look at all of its processes."""
        found: dict[tuple[str, ...], list[Proc]] = defaultdict(list)
        for proc in self.candidates:
            found[program_key(proc.argv)].append(proc)
        return found

    def writers(self, kin: Kin) -> dict[Inode, list[int]]:
        """Files to the candidates of that kind of program that have them open for writing; read once for all bots."""
        if kin not in self._writers:
            self._writers[kin] = defaultdict(list)
            for proc in self.candidates:
                for inode in written_by(proc.pid) if kin(proc.argv) else ():
                    self._writers[kin][inode].append(proc.pid)
        return self._writers[kin]

    @cached_property
    def _writers(self) -> dict[Kin, dict[Inode, list[int]]]:
        return {}

    def in_cgroup(self, part: str) -> tuple[int, ...]:
        """Living processes whose control group has `part` (a container's id, a service's name) in its path."""
        if CONTAINER.fullmatch(part):
            return tuple(self._by_container.get(part, ()))
        return tuple(pid for pid, path in self.cgroups.items() if part in path)

    @cached_property
    def _by_container(self) -> dict[str, list[int]]:
        """A hundred containers do not each look through all paths."""
        found: dict[str, list[int]] = defaultdict(list)
        for pid, path in self.cgroups.items():
            for container in set(CONTAINER.findall(path)):
                found[container].append(pid)
        return found

    @cached_property
    def own_cgroup(self) -> str:
        """This program's control groups."""
        return cgroup_of(os.getpid())

    @cached_property
    def cgroups(self) -> dict[int, str]:
        """The control group of every living process, in every hierarchy; read once for all bots."""
        return {pid: cgroup_of(pid) for pid, proc in self.procs.items() if not proc.dead}

    def carriers(self, variables: Mapping[str, str]) -> tuple[Proc, ...]:
        """Living processes of whomever that were started with these variables; each process is asked once for all bots.

        What only another user, or root, may know of a process is not known.
        """
        name, value = next(iter(variables.items()))
        if name not in self._by_variable:
            found: dict[str, dict[int, dict[str, str]]] = defaultdict(dict)
            start = f"{name}=".encode()
            for pid, raw in self._environments.items():
                given = _parse_environment(raw) if start in raw else {}
                if name in given:
                    found[given[name]][pid] = given
            self._by_variable[name] = found
        those = self._by_variable[name].get(value, {})
        return tuple(self.procs[pid] for pid, given in those.items() if variables.items() <= given.items())

    @cached_property
    def _by_variable(self) -> dict[str, dict[str, dict[int, dict[str, str]]]]:
        return {}

    @cached_property
    def _environments(self) -> dict[int, bytes]:
        own = os.getpid()
        return {pid: _raw_environment(pid) for pid, one in self.procs.items() if not one.dead and pid != own}

    @cached_property
    def watchers(self) -> dict[str, list[int]]:
        """Run folder to the living watchers of that bot, and what they have forked and not yet executed."""
        found: dict[str, list[int]] = defaultdict(list)
        for proc in self.procs.values():
            folder = watched_by(proc)
            if folder and not proc.dead:
                found[folder].append(proc.pid)
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

    def find(self, pid: int) -> Proc | None:
        """A process of the table, or one that was born since it was read."""
        return self.procs.get(pid) or read_proc(pid)

    def ancestors(self, pid: int) -> Iterator[int]:
        """Parents, nearest first. A loop (pids were reused while we read) ends it."""
        seen = {pid}
        while (proc := self.procs.get(pid)) and proc.ppid and proc.ppid not in seen:
            pid = proc.ppid
            seen.add(pid)
            yield pid

    def descendants(self, pid: int, run_dir: str = "") -> tuple[int, ...]:
        """Every living process below `pid`, but never this program, and nothing that another bot's watcher guards.

        A bot may be the assistant that starts other bots: they hang below it, and outlive it.
        """
        found: dict[int, None] = {}
        stack = list(self.children.get(pid, ()))
        while stack:
            child = stack.pop()
            if child in found or child in self.own_line or watched_by(self.procs[child]) not in (None, run_dir):
                continue
            found[child] = None
            stack.extend(self.children.get(child, ()))
        return tuple(child for child in found if not self.procs[child].dead)


def _names(proc: Proc) -> frozenset[str]:
    program = read_program(proc.argv)
    names = {proc.comm} | (program.names if program else set())
    if proc.argv and proc.argv[0]:
        base = proc.argv[0].rsplit("/", 1)[-1]
        names |= {base, without_ending(base)}
    return frozenset(names)


@lru_cache(maxsize=4096)
def program_key(argv: tuple[str, ...]) -> tuple[str, ...]:
    """What two equal programs share, wherever they are: the script's name and the arguments."""
    program = read_program(argv)
    return (program.base, *_trimmed(program.arguments)) if program else _trimmed(argv)


def working_folder(pid: int) -> str | None:
    """Where a process works; None if it is gone. Raises PermissionError if it may not be asked."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_same_program(proc: Proc, command: tuple[str, ...], cwd: str) -> bool:
    """Whether a process runs exactly this command: same script file, same arguments.

    A copy started by hand from another folder, by another spelling of the path or by `python3` for `python`, is the
    same program; so is a script that names its interpreter itself. A program text (`bash -c`) is the same one in the
    same folder.
    """
    theirs, ours = read_program(proc.argv), read_program(command)
    if theirs is None or ours is None:
        return _trimmed(proc.argv) == _trimmed(command) and _works_in(proc.pid, cwd)
    if theirs.is_module != ours.is_module or _trimmed(theirs.arguments) != _trimmed(ours.arguments):
        return False
    if theirs.interpreter and ours.interpreter and theirs.interpreter != ours.interpreter:
        return False
    return _is_same_script(proc.pid, theirs, ours, cwd)


def _works_in(pid: int, folder: str) -> bool:
    try:
        return working_folder(pid) == os.path.realpath(folder)
    except PermissionError:
        return True


def _trimmed(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The kernel's list ends in as many NULs as a program left there: empty last words cannot be told from none."""
    end = len(argv)
    while end and not argv[end - 1]:
        end -= 1
    return argv[:end]


def _is_same_script(pid: int, theirs: Program, ours: Program, cwd: str) -> bool:
    """By its folder and name. A link of another name is another program: some run three bots from one file so."""
    if theirs.is_module or theirs.base != ours.base:
        return theirs.script == ours.script
    if any(not one.interpreter and "/" not in one.script for one in (theirs, ours)):
        return True  # one of the two was found through PATH: the base name is all that is left to compare
    try:
        place = working_folder(pid)
    except PermissionError:
        return theirs.script == ours.script
    return place is not None and _folder(theirs, place) == _folder(ours, cwd)


def _folder(program: Program, cwd: str) -> str:
    return os.path.realpath(os.path.dirname(os.path.join(cwd, program.script)))


def lives_on(proc: Proc) -> bool:
    """Whether it is still there, after an engine has answered: it may have been the run before the engine's own."""
    now = read_proc(proc.pid)
    return now is not None and not now.dead and now.start_ticks == proc.start_ticks


def carried_marker(pid: int) -> str | None:
    """The marker that botkeep put into the environment of this process or of an ancestor; None without one."""
    try:
        raw = _read_all(f"/proc/{pid}/environ")
    except GONE:
        return None
    except OSError as error:
        raise EngineError(f"The environment of pid {pid} cannot be read: {error.strerror}.") from error
    start = f"{MARKER}=".encode()
    if start not in raw:
        return None
    return next((os.fsdecode(word[len(start) :]) for word in raw.split(b"\0") if word.startswith(start)), None)


def is_botkeep(proc: Proc) -> bool:
    """Whether it is botkeep, as a command or a module; not what becomes a bot."""
    program = read_program(proc.argv)
    return program is not None and program.script.rpartition("/")[2] in OWN_PROGRAMS


def cgroup_of(pid: int) -> str:
    """The paths of its control groups, a line each; empty for one that is gone."""
    try:
        return _read(f"/proc/{pid}/cgroup", 16384).decode("utf-8", "replace")
    except OSError:
        return ""


def environment_of(pid: int) -> dict[str, str]:
    """The environment that it was started with; empty for one that is gone or may not be asked."""
    return _parse_environment(_raw_environment(pid))


def _raw_environment(pid: int) -> bytes:
    try:
        return _read(f"/proc/{pid}/environ", 1 << 20)
    except OSError:
        return b""


def _parse_environment(raw: bytes) -> dict[str, str]:
    pairs = (os.fsdecode(word).partition("=") for word in raw.split(b"\0") if b"=" in word)
    return {name: value for name, _, value in pairs}


def lock_holders(locks: Collection[str], pids: Iterable[int] | None = None) -> set[int]:
    """Every process that has one of these locks (`dev:ino`) open, whatever it calls itself: the kernel's own list."""
    wanted = {tuple(map(int, lock.split(":"))) for lock in locks}
    return {pid for pid in (all_pids() if pids is None else pids) if not wanted.isdisjoint(_open_locks(pid))}


def _open_locks(pid: int) -> set[tuple[int, ...]]:
    """(dev, inode) of every open lock file that we may look at, also of one that was removed.

    By name first: to ask for the inode of any file may hang on a network mount that is gone.
    """
    found: set[tuple[int, ...]] = set()
    try:
        with os.scandir(f"/proc/{pid}/fd") as files:
            for file in files:
                with suppress(*GONE):
                    if os.readlink(file.path).endswith(LOCK_ENDINGS):
                        status = file.stat()
                        found.add((status.st_dev, status.st_ino))
    except GONE:
        return found
    except OSError as error:
        raise EngineError(f"The open files of pid {pid} cannot be read: {error.strerror}.") from error
    return found
