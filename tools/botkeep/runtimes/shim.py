"""What stays behind to see one bot exit: a parent of 4 to 7 MB that records how it ended.

Run by its path with `python -I -S`; it imports only os and modules built into the interpreter, because each bot has
one of these for as long as it lives (with json it costs 8.4 MB, with subprocess 9.8; even `signal` brings enum).

    ready   waits for an order to launch, with its interpreter started already (ready.py)
    launch  started by the process runtime: forks, and waits until the bot is recorded
    watch   its child, in its own session: the bot's parent, and the reaper of everything the bot leaves behind

Order, so that a kill at any moment leaves either no bot or a recorded one: wait for the caller's word that nothing of
the bot is alive, for which it looks while two interpreters start here; fork the bot's process, which waits; write
instance.json (fsync, rename); only then let it execute the command. The folder is synced after that: its new name can
only be lost by a power cut, which ends the bot too and makes every record of that boot void.
"""

import _signal  # type: ignore[import-not-found]
import os
import sys
import time

KEEP = 3
TICK_SECONDS = 2.0
RECORD_BYTES = 512
PR_SET_CHILD_SUBREAPER = 36
NEVER_RECORDED = 4
ERRNO_BASE = 100
LEAVE_SECONDS = 10.0
"""How long the proof that nothing of the bot is alive is one; the caller does not wait longer for us either."""


def ready(line_fd: str) -> None:
    """Wait for an order, with everything loaded that it takes; then launch. Ends if whoever gives orders ends.

    The order: run folder, generation, entry, then the bot's environment; with the lock and the permit as descriptors.
    """
    import _socket

    libc = _libc()
    line = _socket.socket(fileno=int(line_fd))
    data, extra, _, _ = line.recvmsg(65536, 64)
    line.close()
    if not data:
        os._exit(NEVER_RECORDED)
    fds = [int.from_bytes(extra[0][2][at : at + 4], sys.byteorder) for at in (0, 4)]
    run_dir, generation, entry, *pairs = data.split(b"\0")
    environment = dict(pair.split(b"=", 1) for pair in pairs)
    words = (os.fsdecode(run_dir), str(fds[0]), os.fsdecode(generation), os.fsdecode(entry), str(fds[1]))
    launch(*words, environment, libc)


def launch(
    run_dir: str,
    lock_fd: str,
    generation: str,
    entry: str,
    permit_fd: str,
    environment: dict[bytes, bytes] | None = None,
    libc: object = None,
) -> None:
    """Fork the watcher and pass on its verdict. `environment`: the bot's, if it is not this program's own.

    Exit 0: the bot was executed. 3: it could not be, exit.json says why. 4: the watcher died before it recorded
    anything, or was not given leave. 100 and more: it could not record anything, for this errno.
    """
    ready, report = os.pipe()
    if os.fork():
        os.close(report)
        answer = os.read(ready, 16)
        if answer[:1] == b"!":
            os._exit(ERRNO_BASE + int(answer[1:]))
        os._exit(0 if answer == b"0" else 3 if answer else NEVER_RECORDED)
    os.close(ready)
    os.setsid()
    _become_subreaper(libc or _libc())
    os.set_inheritable(report, True)
    script = os.path.abspath(__file__)
    words = [run_dir, lock_fd, generation, entry, str(report), permit_fd]
    arguments = [sys.executable, "-I", "-S", script, "watch", *words]
    os.execve(sys.executable, arguments, os.environb if environment is None else environment)  # noqa: S606


def _libc() -> object:
    """The C library; None in a Python without ctypes."""
    try:
        import ctypes

        return ctypes.CDLL(None)
    except (ImportError, OSError):
        return None


def _become_subreaper(libc: object) -> None:
    """Orphans of the bot come to us, not to init. It is kept across execve: ctypes (1 MB) stays out of the watcher."""
    try:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # type: ignore[attr-defined]
    except AttributeError:
        return  # a Python without ctypes: the lock and the environment still find what the bot left behind


def watch(run_dir: str, lock_fd: str, generation: str, entry: str, report_fd: str, permit_fd: str) -> None:
    """Start the bot, record it, wait for its end, record that, and stay until nothing of it is left."""
    report = int(report_fd)
    os.set_inheritable(report, False)
    _take_signals()
    try:
        run = Run(run_dir, int(lock_fd), generation, entry)
        _wait_for_leave(int(permit_fd))
        run.require_own_lock()
        error = run.begin()
    except OSError as problem:
        _answer(report, b"!%d" % (problem.errno or 0))
        os._exit(NEVER_RECORDED)
    os.chdir("/")
    _answer(report, error or b"0")
    _signal.signal(_signal.SIGALRM, lambda *_: _rotate(run.log, run.output, run.log_bytes))
    _signal.setitimer(_signal.ITIMER_REAL, TICK_SECONDS, TICK_SECONDS)
    run.reap()


def _wait_for_leave(permit: int) -> None:
    """The moment at which the caller began to prove that nothing of the bot is alive. Else it found something, or was
    killed. A proof that is old, since one of us was frozen meanwhile, says nothing of the copy started since."""
    given = os.read(permit, 64)
    os.close(permit)
    if not given or not 0 <= time.monotonic() - float(given) < LEAVE_SECONDS:
        os._exit(NEVER_RECORDED)


def _answer(report: int, text: bytes) -> None:
    """To the launcher; if it was killed, the bot is recorded all the same, and whoever asks next finds it."""
    try:
        os.write(report, text)
    except OSError:
        return
    finally:
        os.close(report)


def _take_signals() -> None:
    """A signal meant for the bot's group, or a closing terminal, must not end the witness.

    An ignored SIGCHLD is inherited from some hosts (Node's, old crons): the kernel would then throw every exit away.
    """
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_IGN)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _default_signals() -> None:
    """What this process, and whoever called us, ignored or blocked must not reach the bot."""
    for number in range(1, 65):
        try:
            _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # SIGKILL, SIGSTOP and the two that the C library keeps for itself
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


class Run:
    """One run of the bot, from before its first moment to after its last child's."""

    def __init__(self, run_dir: str, lock: int, generation: str, entry: str) -> None:
        self.run_dir = run_dir
        self.lock = lock
        self.generation = generation
        self.entry = entry
        self.bot = 0
        self.identity = ""
        self.error = b""
        self.kills = _out_of_memory_kills()
        with open(run_dir + "/spawn", "rb") as file:
            self.wanted, limit, self.cwd, self.log, self.marker, *self.argv = file.read().split(b"\0")
        self.log_bytes = int(limit)
        self.output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.log_offset = os.fstat(self.output).st_size

    def require_own_lock(self) -> None:
        """Whoever removed the lock file let a second caller in, who wrote another order: then this start is void."""
        ours, named = os.fstat(self.lock), os.stat(self.run_dir + "/run.lock")
        if (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino) or self.wanted != self.generation.encode():
            os._exit(NEVER_RECORDED)

    def begin(self) -> bytes:
        """Fork, record, release. Returns what kept the command from being executed, if anything did."""
        self._redirect()
        self._reserve_exit()
        go, failed = self._fork()
        self._record_instance()
        os.write(go, b"1")
        os.close(go)
        self._keep_record()
        self.error = os.read(failed, 16)
        os.close(failed)
        if self.error:
            self._record_exit(*_waited(self.bot))
        return self.error

    def _redirect(self) -> None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(self.output, 1)
        os.dup2(self.output, 2)
        os.close(null)

    def _fork(self) -> tuple[int, int]:
        """The bot's process, waiting for a byte; and a pipe that says why the command could not be executed."""
        gate, go = os.pipe()
        failed, fail = os.pipe()
        self.bot = os.fork()
        if self.bot:
            os.close(gate)
            os.close(fail)
            return go, failed
        os.close(go)
        os.close(failed)
        if not os.read(gate, 1):
            os._exit(127)  # the watcher died before it recorded us: there must be no unrecorded bot
        self._become_the_bot(fail)
        os._exit(127)

    def _become_the_bot(self, fail: int) -> None:
        """The lock goes along: its descriptor has been inheritable since the caller passed it on."""
        step = b"d"
        try:
            os.setsid()
            _default_signals()
            os.chdir(self.cwd)
            step = b"c"
            name, value = self.marker.split(b"=", 1)
            os.execvpe(self.argv[0], self.argv, {name: value, **os.environb})  # noqa: S606
        except OSError as error:
            os.write(fail, step + b"%d" % (error.errno or 0))

    def _record_instance(self) -> None:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        lock, own = os.fstat(self.lock), os.getpid()
        ticks, inode = _start_ticks(self.bot), _pidfd_inode(self.bot)
        self.identity = f"{boot[:8]}:{self.bot}:{ticks}:{inode}"
        text = (
            f'{{"generation": {self.generation}, "entry": {_quoted(self.entry)}, "pid": {self.bot}, '
            f'"start_ticks": {ticks}, "pidfd_inode": {inode}, "boot_id": "{boot}", "shim_pid": {own}, '
            f'"shim_ticks": {_start_ticks(own)}, "at": {time.time():.6f}, "log_offset": {self.log_offset}, '
            f'"lock": "{lock.st_dev}:{lock.st_ino}"}}'
        )
        _replace(self.run_dir + "/instance.json", text)

    def _keep_record(self) -> None:
        """Over a power cut too. The bot runs, and has to be watched whatever the disk says now."""
        try:
            _sync_folder(self.run_dir)
        except OSError:
            return

    def _reserve_exit(self) -> None:
        """Take the space for the exit's record now: a bot that dies of a full disk leaves none."""
        if not os.path.exists(self.run_dir + "/exit.json"):
            _write(self.run_dir + "/exit.json", "{}")

    def reap(self) -> None:
        """Wait for the bot, then for whatever it left behind: while one of them lives, the lock is held."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, 0)
            except ChildProcessError:
                return
            if pid == self.bot:
                self._record_exit(status, usage.ru_maxrss)

    def _record_exit(self, status: int, peak: int) -> None:
        signalled = os.WIFSIGNALED(status)
        text = (
            f'{{"generation": {self.generation}, "key": "{self.identity}", "at": {time.time():.6f}, '
            f'"code": {"null" if signalled else os.WEXITSTATUS(status)}, '
            f'"signal": {os.WTERMSIG(status) if signalled else "null"}, "peak_rss_kib": {peak}, '
            f'"oom": {self._killed_for_memory(status)}, '
            f'"error": {_quoted(self.error.decode()) if self.error else "null"}}}'
        )
        try:
            _write_or_overwrite(self.run_dir + "/exit.json", text)
        except OSError:
            return  # the exit stays unknown, and is said to be

    def _killed_for_memory(self, status: int) -> str:
        """The kernel's count is the control group's, which others may share: it only explains a SIGKILL."""
        now = _out_of_memory_kills()
        if self.kills is None or now is None:
            return "null"
        killed = status == _signal.SIGKILL or (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 128 + _signal.SIGKILL)
        return "true" if killed and now > self.kills else "false"


def _waited(pid: int) -> tuple[int, int]:
    _, status, usage = os.wait4(pid, 0)
    return status, usage.ru_maxrss


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _start_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        data = file.read()
    return int(data[data.rindex(b")") + 2 :].split()[19])


def _pidfd_inode(pid: int) -> int:
    """0 before Linux 6.9, where every pidfd shares one inode."""
    major, minor = os.uname().release.split(".")[:2]
    if (int(major), int(minor.split("-")[0])) < (6, 9):
        return 0
    fd = os.pidfd_open(pid)
    inode = os.fstat(fd).st_ino
    os.close(fd)
    return inode


def _write(path: str, text: str) -> None:
    """Whole or absent, and there after a power cut."""
    _replace(path, text)
    _sync_folder(os.path.dirname(path))


def _replace(path: str, text: str) -> None:
    """Whole or absent, also after a power cut. Padded, so that a later one fits into the same block."""
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, _padded(text))
        os.fsync(fd)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    os.fsync(folder)
    os.close(folder)


def _padded(text: str) -> bytes:
    return text.encode().ljust(RECORD_BYTES - 1) + b"\n"


def _write_or_overwrite(path: str, text: str) -> None:
    """On a full disk, into the block that the file already has."""
    try:
        _write(path, text)
    except OSError:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.pwrite(fd, _padded(text), 0)
        os.fsync(fd)
        os.close(fd)


def _out_of_memory_kills() -> int | None:
    """The kernel's count of out-of-memory kills in our control group; None where there is no such count."""
    try:
        with open("/proc/self/cgroup") as file:
            group = file.read().split("::", 1)[1].split("\n", 1)[0]
        with open("/sys/fs/cgroup" + group + "/memory.events") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    except (OSError, IndexError, StopIteration, ValueError):
        return None


def _rotate(log: bytes, output: int, limit: int) -> None:
    """Copy, then truncate: the bot keeps its descriptor, which appends, so that it goes on at the new end.

    The copy is whole and named before anything is truncated, so that no kill loses a line; what the bot writes
    between the last read and the truncation (microseconds) is lost.
    """
    size, room = os.fstat(output).st_size, os.fstatvfs(output)
    if size < limit or room.f_bavail * room.f_frsize < 2 * size:
        return  # on a nearly full disk the space is the bot's
    fresh = log + b".new"
    try:
        reader = os.open(f"/proc/self/fd/{output}", os.O_RDONLY | os.O_CLOEXEC)
        writer = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        _copy(reader, writer)
        os.fsync(writer)
        _shift(log, fresh)
        _copy(reader, writer)
        os.ftruncate(output, 0)
    except OSError:
        _remove(fresh)  # a full disk: lose no line, try again at the next tick
    finally:
        os.close(reader)
        os.close(writer)


def _copy(reader: int, writer: int) -> None:
    while os.sendfile(writer, reader, None, 1 << 20):
        pass


def _shift(log: bytes, fresh: bytes) -> None:
    for number in range(KEEP, 1, -1):
        newer = log + b".%d" % (number - 1)
        if os.path.exists(newer):
            os.rename(newer, log + b".%d" % number)
    os.rename(fresh, log + b".1")


def _remove(path: bytes) -> None:
    try:
        os.unlink(path)
    except OSError:
        return


if __name__ == "__main__":
    if sys.argv[1] == "ready":
        ready(sys.argv[2])
    elif sys.argv[1] == "launch":
        launch(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5], sys.argv[6])
    else:
        watch(*sys.argv[2:])
