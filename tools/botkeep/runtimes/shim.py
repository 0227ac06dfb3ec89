"""What stays behind to see one bot exit: a parent of 4 to 7 MB that records how it ended.

Run by its path with `python -I -S`; it imports only os, fcntl and modules built into the interpreter, because each
bot has one of these for as long as it lives (with json it costs 8.4 MB, with subprocess 9.8).

    launch  started by the process runtime: forks, and waits until the bot is recorded
    watch   its child, in its own session: the bot's parent, and the reaper of everything the bot leaves behind

Order, so that a kill at any moment leaves either no bot or a recorded one: fork the bot's process, which waits;
write instance.json (fsync, rename, fsync the folder); only then let it execute the command.
"""

import fcntl
import os
import sys
import time

import _signal

ROTATE_BYTES = 10 << 20
KEEP = 3
TICK_SECONDS = 2.0
PR_SET_CHILD_SUBREAPER = 36


def launch(run_dir, lock_fd, generation, entry):
    """Fork the watcher and pass on its verdict: exit 0 when the bot was executed, 3 when it could not be."""
    ready, report = os.pipe()
    if os.fork():
        os.close(report)
        answer = os.read(ready, 16)
        os._exit(0 if answer == b"0" else 3 if answer else 4)
    os.close(ready)
    os.setsid()
    _become_subreaper()
    os.set_inheritable(report, True)
    script = os.path.abspath(__file__)
    arguments = [sys.executable, "-I", "-S", script, "watch", run_dir, lock_fd, generation, entry, str(report)]
    os.execv(sys.executable, arguments)


def _become_subreaper():
    """Orphans of the bot come to us, not to init: kept across execve, so that ctypes (1 MB) stays out of the watcher."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def watch(run_dir, lock_fd, generation, entry, report):
    """Start the bot, record it, wait for its end, record that, and stay until nothing of it is left."""
    lock, report = int(lock_fd), int(report)
    os.set_inheritable(report, False)
    fcntl.fcntl(lock, fcntl.F_GETFD)  # a lock that was not handed over must fail here, before anything starts
    with open(run_dir + "/spawn", "rb") as file:
        cwd, log, marker, *argv = file.read().split(b"\0")[1:]
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    log_offset = os.fstat(output).st_size
    _redirect(output)
    _ignore_signals()
    kills = _out_of_memory_kills()
    bot, go, failed = _fork_bot(cwd, argv, marker, lock)
    identity = _record_instance(run_dir, generation, entry, bot, log_offset, output)
    os.write(go, b"1")
    os.close(go)
    error = os.read(failed, 16)
    os.write(report, error or b"0")
    os.close(report)
    _signal.signal(_signal.SIGALRM, lambda *_: _rotate(log, output))
    _signal.setitimer(_signal.ITIMER_REAL, TICK_SECONDS, TICK_SECONDS)
    _reap(run_dir, generation, bot, identity, kills, error)


def _redirect(output):
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _ignore_signals():
    """A signal meant for the bot's group, or a closing terminal, must not end the witness."""
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_IGN)


def _fork_bot(cwd, argv, marker, lock):
    """The bot's process, waiting for a byte; and a pipe that says why the command could not be executed."""
    gate, go = os.pipe()
    failed, fail = os.pipe()
    pid = os.fork()
    if pid:
        os.close(gate)
        os.close(fail)
        return pid, go, failed
    os.close(go)
    os.close(failed)
    if not os.read(gate, 1):
        os._exit(127)  # the watcher died before it recorded us: there must be no unrecorded bot
    try:
        os.setsid()
        for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGPIPE, _signal.SIGXFSZ):
            _signal.signal(number, _signal.SIG_DFL)
        os.set_inheritable(lock, True)
        os.chdir(cwd)
        name, value = marker.split(b"=", 1)
        os.execvpe(argv[0], argv, {**os.environb, name: value})
    except OSError as error:
        os.write(fail, str(error.errno).encode())
    os._exit(127)


def _start_ticks(pid):
    with open("/proc/%d/stat" % pid, "rb") as file:
        data = file.read()
    return int(data[data.rindex(b")") + 2 :].split()[19])


def _pidfd_inode(pid):
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return 0
    inode = os.fstat(fd).st_ino
    os.close(fd)
    major, minor = os.uname().release.split(".")[:2]
    return inode if (int(major), int(minor.split("-")[0])) >= (6, 9) else 0


def _record_instance(run_dir, generation, entry, bot, log_offset, output):
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    own = os.getpid()
    ticks, inode = _start_ticks(bot), _pidfd_inode(bot)
    text = (
        '{"generation": %s, "entry": "%s", "pid": %d, "start_ticks": %d, "pidfd_inode": %d, "boot_id": "%s", '
        '"shim_pid": %d, "shim_ticks": %d, "at": %.6f, "log_offset": %d, "log_inode": %d}\n'
        % (generation, entry, bot, ticks, inode, boot, own, _start_ticks(own), time.time(), log_offset,
           os.fstat(output).st_ino)
    )
    _write(run_dir + "/instance.json", text)
    return "%s:%d:%d:%d" % (boot[:8], bot, ticks, inode)


def _write(path, text):
    """Whole or absent, also after a power cut. With a full disk there is nothing to be done: the exit stays unknown."""
    temporary = "%s.%d" % (path, os.getpid())
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _out_of_memory_kills():
    """The kernel's count of out-of-memory kills in our control group; None where there is no such count."""
    try:
        with open("/proc/self/cgroup") as file:
            group = file.read().split("::", 1)[1].split("\n", 1)[0]
        with open("/sys/fs/cgroup" + group + "/memory.events") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    except (OSError, IndexError, StopIteration, ValueError):
        return None


def _reap(run_dir, generation, bot, identity, kills, error):
    """Wait for the bot, then for whatever it left behind: while one of them lives, the lock is held."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return
        if pid == bot:
            _record_exit(run_dir, generation, identity, status, usage, kills, error)


def _record_exit(run_dir, generation, identity, status, usage, kills, error):
    signalled = os.WIFSIGNALED(status)
    now = _out_of_memory_kills()
    text = '{"generation": %s, "key": "%s", "code": %s, "signal": %s, "at": %.6f, "peak_rss_kib": %d, "oom": %s, "errno": %s}\n' % (
        generation,
        identity,
        "null" if signalled else os.WEXITSTATUS(status),
        os.WTERMSIG(status) if signalled else "null",
        time.time(),
        usage.ru_maxrss,
        "null" if kills is None or now is None else "true" if now > kills else "false",
        error.decode() if error else "null",
    )
    try:
        _write(run_dir + "/exit.json", text)
    except OSError as problem:
        os.write(2, ("botkeep: the exit could not be recorded: %s\n" % problem).encode())


def _rotate(log, output):
    """Copy and truncate: the bot keeps its descriptor, which appends, so that it goes on at the new end."""
    if os.fstat(output).st_size < ROTATE_BYTES:
        return
    fresh = log + b".new"
    try:
        _copy(log, fresh)
    except OSError:
        os.unlink(fresh)  # a full disk: lose no line, try again at the next tick
        return
    os.ftruncate(output, 0)
    for number in range(KEEP, 1, -1):
        newer = log + b".%d" % (number - 1)
        if os.path.exists(newer):
            os.rename(newer, log + b".%d" % number)
    os.rename(fresh, log + b".1")


def _copy(source, target):
    reader = os.open(source, os.O_RDONLY)
    writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        while os.sendfile(writer, reader, None, 1 << 20):
            pass
    finally:
        os.close(reader)
        os.close(writer)


if __name__ == "__main__":
    {"launch": launch, "watch": watch}[sys.argv[1]](*sys.argv[2:])
