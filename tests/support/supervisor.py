"""A real supervisord of a test's own, set up as a person sets one up, and bots that are its programs."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from botkeep.runtimes import RUNTIMES, Target

from .bots import Lab, wait_for

SCRIPT = "doge.py"
KEPT = ("PATH", "HOME", "LANG")
TOOLS = Path(__file__).parents[2] / "tools"

Options = Mapping[str, Any]


class Supervisor:
    """One supervisord with a folder of its own; the socket's path has to be short. A context manager."""

    def __init__(
        self,
        *,
        port: int = 0,
        login: tuple[str, str] | None = None,
        unix: bool = True,
        given: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
        self.socket = self.folder / "s.sock"
        self.server = f"unix://{self.socket}" if unix else f"http://127.0.0.1:{port}"
        self.made: Path | None = None
        """A file that somebody else writes; it names our socket."""
        self.port, self.login, self.unix, self.more = port, login, unix, more
        self.given = dict(given or {})
        """Variables of its own."""
        self.programs: dict[str, Options] = {}
        self.children: list[subprocess.Popen[bytes]] = []
        self.inside = False
        """Whether it runs under something else."""

    def __enter__(self) -> Supervisor:
        return self.up()

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------ the file

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.made or self.folder / "supervisord.conf"

    def write(self) -> None:
        """The configuration with all programs."""
        lines = ["[supervisord]"]
        own = {"logfile": self.folder / "supervisord.log", "pidfile": self.folder / "pid", "nodaemon": "true"}
        own |= {"silent": "true", "childlogdir": self.folder, **self.more}
        lines += [f"{key}={value}" for key, value in own.items()]
        login = [f"username={self.login[0]}", f"password={self.login[1]}"] if self.login else []
        if self.unix:
            lines += ["[unix_http_server]", f"file={self.socket}", *login]
        if self.port:
            lines += ["[inet_http_server]", f"port=127.0.0.1:{self.port}", *login]
        lines += ["[rpcinterface:supervisor]"]
        lines += ["supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface"]
        for name, options in self.programs.items():
            lines += [f"[{name if ':' in name else f'program:{name}'}]"]
            lines += [f"{key}={value}" for key, value in options.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def program(self, name: str, command: Sequence[str], **options: Any) -> None:
        """Write or change a program, and have it known. It does what it is told and nothing of itself."""
        shown = shlex.join(command).replace("%", "%%")
        known = {
            "command": shown, "autostart": "false", "autorestart": "false", "startsecs": 0, "startretries": 0,
            "stopwaitsecs": 1, "redirect_stderr": "true", "stdout_logfile": self.folder / f"{name}.log", **options,
        }  # fmt: skip
        if self.programs.get(name) == known:
            return
        self.programs[name] = known
        self.write()
        if self.children:
            self.update(name)

    def update(self, *names: str) -> None:
        """As `supervisorctl update`, for these groups."""
        self.rpc.reloadConfig()
        for name in names:
            with suppress(xmlrpc.client.Fault):
                self.rpc.stopProcess(name)
            with suppress(xmlrpc.client.Fault):
                self.rpc.removeProcessGroup(name)
            self.rpc.addProcessGroup(name)

    # ------------------------------------------------------------------------------------------------ the daemon

    def up(self, under: Sequence[str] = ()) -> Supervisor:
        """Start it, and wait until it answers. Its environment is bare, as init's is."""
        if self.made is None:
            self.write()
        self.inside = bool(under)
        given = {**{name: os.environ[name] for name in KEPT if name in os.environ}, **self.given}
        command = [*under, sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(self.config)]
        with open(self.folder / "said.txt", "ab") as said:
            child = subprocess.Popen(
                command, cwd=self.folder, env=given, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, umask=0o077,
            )  # fmt: skip
        self.children.append(child)
        wait_for(lambda: self._answers(child))
        return self

    def _answers(self, child: subprocess.Popen[bytes]) -> bool:
        assert child.poll() is None, (self.folder / "said.txt").read_text()
        try:
            return bool(self.rpc.getPID())
        except (OSError, xmlrpc.client.Error):
            return False

    @property
    def rpc(self) -> Any:
        """supervisor's own client, the yardstick."""
        return _Client(self.server, self.login)

    def start(self, name: str) -> None:
        """As `supervisorctl start`, whatever comes of it."""
        with suppress(xmlrpc.client.Fault):
            self.rpc.startProcess(name, False)

    @property
    def pid(self) -> int:
        """Of the newest one."""
        return self.children[-1].pid

    def kill(self) -> None:
        """kill -9: its programs live on."""
        self.children[-1].kill()
        self.children[-1].wait()

    def close(self) -> None:
        """End every supervisord of this test and what it runs; nothing is left."""
        for child in self.children:
            if self.inside and child.poll() is None:
                with suppress(OSError, xmlrpc.client.Error):
                    self.rpc.shutdown()  # what it runs under hears no signal
                    child.wait(20)
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                if child is self.children[-1]:
                    self._stop_all()
                child.terminate()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(20)
                if child.poll() is None:
                    child.kill()
                    child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _stop_all(self) -> None:
        """At once: shut down, it stops one group a second."""
        with suppress(OSError, xmlrpc.client.Error):
            self.rpc.stopAllProcesses(False)

    def state(self, name: str) -> str:
        """What it says of a program."""
        return str(self.rpc.getProcessInfo(name)["statename"])

    def process(self, name: str) -> int:
        """The pid of a program's process; 0: it has none."""
        return int(self.rpc.getProcessInfo(name)["pid"])

    def log(self) -> str:
        """Its own."""
        return (self.folder / "supervisord.log").read_text()


class Programs:
    """The bots of one lab as programs of one supervisord."""

    def __init__(self, lab: Lab, supervisor: Supervisor) -> None:
        self.lab = lab
        self.supervisor = supervisor
        self.token = secrets.token_hex(2)
        lab.program(SCRIPT)

    def command(self, *switches: str) -> list[str]:
        """The paper bot's."""
        return [sys.executable, SCRIPT, *switches]

    def bot(self, *switches: str, name: str = "doge", command: Sequence[str] = (), **options: Any) -> Target:
        """A bot that is a program; it has a second to stop."""
        place = {"directory": self.lab.home, **options}
        self.supervisor.program(name, command or self.command(*switches), **place)
        return self.target(name)

    def target(self, name: str = "doge", **more: Any) -> Target:
        """The bot that is this program."""
        config = {"kind": "supervisord", "server": self.supervisor.server, "program": name, "stop_grace": 1, **more}
        called = name.partition(":")[2] or name
        return replace(self.lab.target(called, script=SCRIPT), config=RUNTIMES["supervisord"].Config(**config))

    def given(self, _: Target, switches: Sequence[str], variables: Mapping[str, str]) -> Target:
        """The same bot with these variables, which its program has."""
        return self.bot(*switches, environment=",".join(f'{name}="{value}"' for name, value in variables.items()))

    def by_hand(self, *switches: str) -> int:
        """A copy that supervisord knows nothing of."""
        return self.lab.by_hand(*self.command(*switches))

    def copy_of(self, target: Target) -> int:
        """The same for a bot made here: with its program's own command."""
        options = self.supervisor.programs[target.config.program]
        return self.lab.by_hand(*shlex.split(str(options["command"])))


class _Client:
    """Closes its connection after each call."""

    def __init__(self, server: str, login: tuple[str, str] | None) -> None:
        self.server = server
        self.login = login or (None, None)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*params: Any) -> Any:
            transport = SupervisorTransport(*self.login, serverurl=self.server)
            proxy = xmlrpc.client.ServerProxy("http://supervisor", transport=transport)
            try:
                return getattr(proxy.supervisor, method)(*params)
            finally:
                transport.close()

        return call
