"""As pid 1 of a namespace: the recorded pid of a dead bot is given to a stranger, who must live. `reused_pid.py DIR`"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from botkeep.runtimes import Target
from botkeep.runtimes.procs import has_pidfs, read_proc
from support.bots import Lab, look, pid_of, start, stop, wait_for


def main(lab: Lab) -> None:
    """Kill bot and watcher, let a stranger have the pid, and ask botkeep for everything."""
    bot = lab.target()
    pid = pid_of(start(bot))
    for victim in (*lab.watchers(), pid):
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda victim=victim: _is_reaped(victim))
    stranger = _stranger_with(pid)
    _ask_everything(bot, stranger)
    if has_pidfs():
        _within_the_same_tick(bot, stranger.pid)
        _ask_everything(bot, stranger)
    start(bot)
    assert [one.pid for one in look(bot).instances] != [stranger.pid]
    assert stranger.poll() is None
    stop(bot)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    print("the stranger lives")


def _is_reaped(pid: int) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    return not Path(f"/proc/{pid}").exists()


def _stranger_with(pid: int) -> subprocess.Popen[bytes]:
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    stranger = subprocess.Popen(["sleep", "100"])
    assert stranger.pid == pid
    return stranger


def _within_the_same_tick(bot: Target, pid: int) -> None:
    """As when it died and was followed within 10 ms: then pid and start time are both those of the record."""
    import json

    proc = read_proc(pid)
    assert proc
    path = bot.run_dir / "instance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "start_ticks": proc.start_ticks}))


def _ask_everything(bot: Target, stranger: subprocess.Popen[bytes]) -> None:
    seen = look(bot)
    assert not seen.instances
    assert seen.exit
    assert (seen.exit.code, seen.exit.signal) == (None, None)
    assert stop(bot).stopped == ()
    assert stranger.poll() is None


if __name__ == "__main__":
    with Lab(Path(sys.argv[1])) as place:
        main(place)
