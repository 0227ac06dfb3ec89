"""A real systemd of a test's own, though this machine's first process is another program.

A `Box` is a private view of the file system with a /run and a root of control groups of its own, in which a manager
and a journal run: so nothing of the machine's own systemd, if it has one, is seen or touched. As a manager of a user it
sees the pids that everybody sees, and tests talk to it from outside, through `systemctl` and `journalctl` that step in
first. As the system's manager it has to be the first process of its own table of pids: tests run inside.

Whoever ends it ends everything in it: the kernel kills what is in its control group. A guard does that, and takes the
folder and the control groups away, when the tests are killed.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

MANAGER = "/lib/systemd/systemd"
JOURNAL = "/lib/systemd/systemd-journald"
GROUPS = Path("/sys/fs/cgroup")
SECONDS = 30.0
PR_SET_PDEATHSIG = 1
WHY_NOT = "a systemd of the tests' own needs root, and systemd installed (Debian: systemd)"
JOURNAL_SETTINGS = """\
[Journal]
Storage=volatile
RuntimeMaxUse=32M
ReadKMsg=no
Audit=no
RateLimitIntervalSec=0
ForwardToSyslog=no
ForwardToWall=no
"""
USUAL = {
    "basic.target": "[Unit]\nDescription=Up\nDefaultDependencies=no\n",
    "sysinit.target": "[Unit]\nDefaultDependencies=no\n",
    "shutdown.target": "[Unit]\nDefaultDependencies=no\nRefuseManualStart=yes\n",
    "exit.target": "[Unit]\nDefaultDependencies=no\nRequires=gone.service\nAfter=gone.service\n",
    "gone.service": (
        "[Unit]\nDefaultDependencies=no\nRequires=shutdown.target\nAfter=shutdown.target\nSuccessAction=exit-force\n"
        "[Service]\nType=oneshot\nExecStart=/bin/true\nRemainAfterExit=yes\n"
    ),
}
"""What a manager comes up and goes down with, and nothing else."""

USER_ENTER = """\
set -e
echo $$ > "$BOX_GROUP/cgroup.procs"
exec unshare --mount --cgroup -- /bin/sh -ec '
  mount --make-rslave /
  mount -t cgroup2 none /sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/systemd/system /run/systemd/journald.conf.d /run/user/"$BOX_USER" /run/log/journal
  printf %s "$BOX_JOURNAL" > /run/systemd/journald.conf.d/box.conf
  group=/sys/fs/cgroup/user.slice/user-"$BOX_USER".slice/user@"$BOX_USER".service
  mkdir -p "$group" /sys/fs/cgroup/journal
  sh -c "echo \\$\\$ > /sys/fs/cgroup/journal/cgroup.procs; exec $BOX_JOURNALD" &
  while ! test -S /run/systemd/journal/stdout; do sleep 0.01; done
  echo $$ > "$group/cgroup.procs"
  exec env -i PATH="$BOX_PATH" HOME="$BOX_HOME" LANG=C.UTF-8 XDG_RUNTIME_DIR=/run/user/"$BOX_USER" \\
    SYSTEMD_UNIT_PATH="$BOX_UNITS" "$BOX_MANAGER" --user --log-target=journal --unit=basic.target
'
"""
SYSTEM_ENTER = """\
set -e
for group in $BOX_GROUPS; do echo $$ > "$group/cgroup.procs"; done
exec unshare --mount --cgroup --pid --uts --ipc --fork --kill-child -- /bin/sh -ec '
  mount --make-rslave /
  mount -t proc proc /proc
  mount --bind /proc/sys /proc/sys
  mount -o remount,bind,ro /proc/sys
  if test -e "$BOX_CGROUP/unified"; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup/memory
    mount -t cgroup2 none /sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd,xattr none /sys/fs/cgroup/systemd
    mount -t cgroup -o memory none /sys/fs/cgroup/memory
  else
    mount -t cgroup2 none /sys/fs/cgroup
  fi
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/systemd/system /run/systemd/journald.conf.d /run/log/journal /run/lock
  printf %s "$BOX_JOURNAL" > /run/systemd/journald.conf.d/box.conf
  exec env -i container=botkeep-test PATH="$BOX_PATH" LANG=C.UTF-8 SYSTEMD_UNIT_PATH="$BOX_UNITS" \\
    "$BOX_MANAGER" --system --log-target=journal --show-status=no --unit=basic.target
'
"""
GUARD = """\
cat > /dev/null
tries=0
while test $tries -lt 300; do
  left=
  for group in $BOX_GROUPS; do
    test -d "$group" || continue
    echo 1 > "$group/cgroup.kill"
    find "$group" -depth -type d -exec rmdir {} +
    test ! -d "$group" || left=1
  done
  test -n "$left" || break
  sleep 0.1
  tries=$((tries + 1))
done
rm -rf -- "$BOX_FOLDER"
"""
"""Waits for the end of who holds the other end of its input."""
JOURNAL_UNITS = {
    "basic.target": "[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\n",
    "systemd-journald.service": (
        "[Unit]\nDefaultDependencies=no\nRequires=systemd-journald.socket\nAfter=systemd-journald.socket\n"
        f"[Service]\nType=notify\nExecStart={JOURNAL}\nSockets=systemd-journald.socket\nStandardOutput=null\n"
    ),
    "systemd-journald.socket": (
        "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/systemd/journal/stdout\n"
        "ListenDatagram=/run/systemd/journal/socket\nSocketMode=0666\nPassCredentials=yes\nPassSecurity=yes\n"
        "ReceiveBuffer=8M\nService=systemd-journald.service\n"
    ),
}


@cache
def why_not() -> str:
    """Empty if there can be a box here."""
    tools = ("unshare", "nsenter", "systemctl", "journalctl")
    return "" if os.geteuid() == 0 and Path(MANAGER).exists() and all(map(shutil.which, tools)) else WHY_NOT


class Box:
    """One manager with a folder for its units. A context manager; `system`: it is the first of its own pids."""

    def __init__(self, *, system: bool = False) -> None:
        if why_not():
            pytest.skip(why_not())
        self.system = system
        self.name = f"botkeep-test-{secrets.token_hex(4)}"
        self.folder = Path(tempfile.mkdtemp(prefix="sd-", dir="/tmp"))
        self.units = self.folder / "units"
        self.tools = self.folder / "bin"
        self.groups = _groups(self.name, with_memory=system)
        self.guard = self._guarded()

    def __enter__(self) -> Box:
        return self.up()

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------ up and down

    def up(self) -> Box:
        """Start it, and wait until it answers."""
        self.units.mkdir()
        self.tools.mkdir()
        for name, text in {**USUAL, **(JOURNAL_UNITS if self.system else {})}.items():
            self.write(name, text)
        for group in self.groups:
            group.mkdir()
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _guarded(self) -> subprocess.Popen[bytes]:
        given = {
            "PATH": os.environ["PATH"],
            "BOX_GROUPS": " ".join(map(str, self.groups)),
            "BOX_FOLDER": str(self.folder),
        }
        return subprocess.Popen(
            ["/bin/sh", "-c", GUARD], env=given, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, cwd="/",
        )  # fmt: skip

    def _start(self) -> None:
        given = {
            "BOX_GROUP": str(self.groups[0]), "BOX_GROUPS": " ".join(map(str, self.groups)),
            "BOX_USER": str(os.geteuid()), "BOX_HOME": str(self.folder), "BOX_UNITS": str(self.units),
            "BOX_JOURNAL": JOURNAL_SETTINGS, "BOX_JOURNALD": JOURNAL, "BOX_MANAGER": MANAGER,
            "BOX_PATH": os.environ["PATH"], "BOX_CGROUP": str(GROUPS),
        }  # fmt: skip
        with open(self.folder / "said.txt", "wb") as said:
            self.child = subprocess.Popen(
                ["/bin/sh", "-c", SYSTEM_ENTER if self.system else USER_ENTER],
                env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root"), **given},
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                preexec_fn=_die_with_us if self.system else None,
            )  # fmt: skip
        self._wait(self._is_up)
        self._write_tools()

    def _wait(self, condition: object) -> None:
        until = time.monotonic() + SECONDS
        while not condition():  # type: ignore[operator]
            said = (self.folder / "said.txt").read_text()
            assert self.child.poll() is None, said
            assert time.monotonic() < until, f"systemd was not up in time: {said}"
            time.sleep(0.01)

    def _is_up(self) -> bool:
        return self._manager() != 0 and self.ctl("is-active", "basic.target").stdout.strip() == b"active"

    def _manager(self) -> int:
        """The pid, as this machine has it, of the process in whose view of the file system all this is."""
        pid = self.child.pid
        if self.system:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            pid = int(children[0]) if children else 0
        with suppress(OSError):
            return pid if os.readlink(f"/proc/{pid}/exe") == os.path.realpath(MANAGER) else 0
        return 0

    def close(self) -> None:
        """End the manager and whatever it runs; nothing is left."""
        with suppress(OSError):
            (self.groups[0] / "cgroup.kill").write_text("1")
        if hasattr(self, "child"):
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
        until = time.monotonic() + SECONDS
        while any(map(_is_left, self.groups)) and time.monotonic() < until:
            time.sleep(0.01)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.guard.communicate()

    def kill(self) -> None:
        """kill -9 of the manager alone: what it runs lives on. Not of a system's, which takes everything along."""
        os.kill(self._manager(), signal.SIGKILL)
        self.child.wait()

    # ------------------------------------------------------------------------------------------------ talking

    def inside(self) -> list[str]:
        """What a command is started by to be in the box."""
        more = ["--pid", "--uts", "--ipc", "--cgroup"] if self.system else []
        return ["nsenter", f"--target={self._holder()}", "--mount", *more, "--wd=.", "--"]

    def _holder(self) -> int:
        """Whose view it is: a process that outlives a user's manager, so that one that is away can be asked for."""
        if self.system:
            return self._manager()
        return int((self.groups[0] / "journal/cgroup.procs").read_text().split()[0])

    def _write_tools(self) -> None:
        """`systemctl` and `journalctl` for who looks for them in `path`."""
        step = " ".join(self.inside())
        for name in ("systemctl", "journalctl"):
            tool = self.tools / name
            tool.write_text(f'#!/bin/sh\nexec {step} {shutil.which(name)} "$@"\n')
            tool.chmod(0o755)

    @property
    def path(self) -> str:
        """For $PATH: with tools that talk to this manager."""
        return f"{self.tools}:{os.environ['PATH']}"

    def ctl(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """As a person's `systemctl`."""
        user = [] if self.system else ["--user"]
        given = {**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}"}
        return subprocess.run([*self.inside(), "systemctl", *user, *words], env=given, capture_output=True, check=False)

    # ------------------------------------------------------------------------------------------------ units

    def write(self, name: str, text: str) -> None:
        """A unit's file; a manager that runs does not know of it yet."""
        (self.units / name).write_text(text)

    def service(self, name: str, command: str, unit: Mapping[str, object], **settings: object) -> None:
        """Write or change a service, wanted by what is always up, and have it known."""
        lines = ["[Unit]", "DefaultDependencies=no", *(f"{key}={value}" for key, value in unit.items())]
        lines += ["[Service]", f"ExecStart={command}", *(f"{key}={value}" for key, value in settings.items())]
        text = "\n".join([*lines, ""])
        path = self.units / f"{name}.service"
        if path.exists() and path.read_text() == text:
            return
        self.write(path.name, text)
        self.enable(path.name)

    def enable(self, name: str) -> None:
        """As `systemctl enable`, for what is always up; what nothing refers to is forgotten with its end."""
        wants = self.units / "basic.target.wants"
        wants.mkdir(exist_ok=True)
        with suppress(FileExistsError):
            (wants / name).symlink_to(self.units / name)
        self.reload()

    def reload(self) -> None:
        """As `systemctl daemon-reload`."""
        done = self.ctl("daemon-reload")
        assert done.returncode == 0, done.stderr

    def show(self, unit: str, *properties: str) -> list[str]:
        """What systemd says."""
        done = self.ctl("show", "--value", *(f"--property={one}" for one in properties), unit)
        return done.stdout.decode().splitlines()


def _die_with_us() -> None:
    """With the first process of a table of pids all others are killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


HERE = "BOTKEEP_TEST_BOX"
"""Set inside of a system's box: the folder of its units."""


class Here(Box):
    """The box that this very program runs in."""

    def __init__(self) -> None:
        self.system = True
        self.units = Path(os.environ[HERE])
        self.own: set[Path] = set()

    def up(self) -> Here:
        """It is up."""
        return self

    def close(self) -> None:
        """Stop the services of this test and take them away."""
        services = [path.name for path in self.own if path.suffix == ".service"]
        if services:
            self.ctl("kill", "--signal=SIGKILL", *services)
            self.ctl("stop", *services)
            self.ctl("reset-failed", *services)
        for path in self.own:
            (self.units / "basic.target.wants" / path.name).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        self.reload()

    def write(self, name: str, text: str) -> None:
        """As `Box.write`."""
        self.own.add(self.units / name)
        super().write(name, text)

    def inside(self) -> list[str]:
        """Nothing."""
        return []

    @property
    def path(self) -> str:
        """As it is."""
        return os.environ["PATH"]


def box() -> Box:
    """A box that is up: the one we are in, or a new one of a user's."""
    return Here() if HERE in os.environ else Box().up()


def _groups(name: str, *, with_memory: bool) -> list[Path]:
    """The control groups of a box; the first one is the kernel's newer kind."""
    if not (GROUPS / "unified").exists():
        return [GROUPS / name]
    more = [GROUPS / "systemd" / name, GROUPS / "memory" / name] if with_memory else []
    return [GROUPS / "unified" / name, *more]


def _is_left(group: Path) -> bool:
    """Remove it with all below; True: something still lives there."""
    for path, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            os.rmdir(path)
    return group.exists()


def run_inside(box: Box, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A command in a system's box, to its end."""
    given = {**os.environ, HERE: str(box.units)}
    return subprocess.run([*box.inside(), *words], env=given, capture_output=True, text=True, check=False)
