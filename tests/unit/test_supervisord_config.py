"""`botkeep supervisord-config`: the file as supervisord itself reads it, and what a program is started by."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from supervisor.datatypes import RestartUnconditionally
from supervisor.options import ServerOptions

from botkeep import exec_env
from botkeep.cli import main
from botkeep.config import Fleet, load_fleet
from botkeep.model import UsageError
from botkeep.runtimes.procs import MARKER
from botkeep.runtimes.supervisord_facts import LOCKED, WRAPPER
from botkeep.supervisord_config import written
from botkeep.workspace import Workspace

GOLDEN = Path(__file__).parents[1] / "data/supervisord/golden.conf"
BOTKEEP = "/opt/venv/bin/botkeep"
SERVER = "unix:///run/bots/supervisor.sock"


def process(*command: str, **more: Any) -> dict[str, Any]:
    return {"kind": "process", "command": list(command) or ["python3", "bot.py"], **more}


def program(name: str, *command: str, **more: Any) -> dict[str, Any]:
    return {**process(*command), "kind": "supervisord", "server": SERVER, "program": name, **more}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    workspace = Workspace(tmp_path)
    workspace.prepare()
    return tmp_path


def fleet(home: Path, **runtimes: dict[str, Any]) -> Fleet:
    bots = [{"name": name.replace("_", "-"), "runtime": runtime} for name, runtime in runtimes.items()]
    (home / "config/bots.json").write_text(json.dumps({"bots": bots}))
    return load_fleet(Workspace(home))


def as_read(home: Path, text: str) -> dict[str, Any]:
    """The programs by name, as supervisord's own parser has them."""
    path = home / "s.conf"
    path.write_text(text)
    options = ServerOptions()
    options.realize(["-c", str(path)])
    return {one.name: one for group in options.process_group_configs for one in group.process_configs}


def three(home: Path) -> Fleet:
    frames = {
        f"bot_{frame}": program(f"tf:bot-{frame}", "python3", "bot.py", "--timeframe", frame, env={"FRAME": frame})
        for frame in ("3m", "5m")
    }
    maker = process("/opt/bin/maker", "--pair", "BTC/USDT", cwd="maker", env_file="maker.env", stop_grace=20)
    return fleet(home, **frames, maker=maker, old={"kind": "supervisord", "server": SERVER, "program": "old"})


def test_the_file_is_the_golden_one(home: Path) -> None:
    made = written(three(home), watcher=BOTKEEP)
    text = made.text.replace(str(home), "{HOME}").replace(sys.executable, "{PYTHON}")
    assert text == GOLDEN.read_text()
    assert made.notes == (
        'old is left out: its runtime has no "command" to be written.',
        'To have supervisord run maker, stop it, and write into its runtime "kind": "supervisord", "server": '
        f'"{SERVER}", "program": "maker" instead of "kind": "process". The rest stays.',
    )


def test_supervisord_reads_it_as_it_was_meant(home: Path) -> None:
    found = as_read(home, written(three(home)).text)
    assert set(found) == {"bot-3m", "bot-5m", "maker"}
    first, maker = found["bot-3m"], found["maker"]
    assert (first.startsecs, first.stopasgroup, first.killasgroup, first.stopwaitsecs) == (10, True, True, 30)
    assert (first.stdout_logfile_maxbytes, first.stdout_logfile_backups) == (10 << 20, 3)
    assert first.stdout_logfile == str(Workspace(home).log_path("bot-3m"))
    assert (first.redirect_stderr, first.environment, first.directory) == (True, {"FRAME": "3m"}, str(home))
    assert found["bot-5m"].environment == {"FRAME": "5m"}
    assert (maker.stopwaitsecs, maker.directory) == (20, str(home / "maker"))
    words = shlex.split(maker.command)
    assert words[:4] == [sys.executable, "-I", "-m", WRAPPER]
    assert words[words.index("--env-file") + 1] == str(home / "maker.env")
    assert words[words.index("--lock") + 1] == str(Workspace(home).run_dir("maker") / "run.lock")
    assert words[words.index("--") + 1 :] == ["/opt/bin/maker", "--pair", "BTC/USDT"]


HARD = [
    "a b",
    "; rm",
    "#no",
    "100%",
    "%(here)s",
    "%(ENV_HOME)s",
    "it's",
    'say "x"',
    "\\",
    "$HOME",
    "é",
    "",
    "a  ;b",
    "x\t#y",
]
WORD = st.text(st.sampled_from(" ;#%()shere'\"\\$é=,:\t"), max_size=12) | st.sampled_from(HARD)


@given(st.lists(WORD, min_size=1, max_size=5))
@example(HARD)
def test_every_argument_arrives_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    home = tmp_path_factory.mktemp("words")
    (home / "config").mkdir()
    Workspace(home).prepare()
    plain = [word.replace("\t", " ") for word in words]
    found = as_read(home, written(fleet(home, bot=program("bot", "./bot", *plain))).text)["bot"]
    command = shlex.split(found.command)
    assert command[command.index("--") + 1 :] == ["./bot", *plain]


@pytest.mark.parametrize("value", ["a,b=c", "100% ok", "it's", "%(ENV_X)s", " ", "é", ""])
def test_every_plain_variable_arrives_as_it_was_written(home: Path, value: str) -> None:
    found = as_read(home, written(fleet(home, bot=program("bot", env={"A": value, "B": "2"}))).text)["bot"]
    assert found.environment == {"A": value, "B": "2"}


@pytest.mark.parametrize(
    ("runtime", "told"),
    [
        (program("bot", env={"A": 'say "x"'}), "bot: supervisord's file cannot hold the value of A"),
        (program("bot", env={"A": "a ;b"}), "cannot hold the value of A"),
        (program("bot", env={"A": "a\nb"}), "cannot hold the value of A"),
        (program("bot", env={"A": "'a'"}), "cannot hold the value of A"),
        (program("bot", env={"A": "%(here)s"}), "cannot hold the value of A"),
        (program("bot", env={"A B": "x"}), "cannot hold the value of A B"),
        (program("bot", "./bot", "a\nb"), "bot: supervisord's file cannot hold a command with line breaks"),
        (process(cwd="a ;b"), "supervisord's file cannot hold"),
        (program("bot", server="http://far.example:9001"), "A supervisord of this machine cannot be asked at"),
    ],
)
def test_what_such_a_file_cannot_hold_is_refused(home: Path, runtime: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        written(fleet(home, bot=runtime))


def test_the_watcher_is_started_last_stopped_first_and_tried_for_ever(home: Path) -> None:
    found = as_read(home, written(three(home), watcher=BOTKEEP).text)
    watch = found.pop("botkeep-watch")
    assert shlex.split(watch.command) == [BOTKEEP, "--home", str(home), "watch"]
    assert watch.priority > max(one.priority for one in found.values())
    assert (watch.autorestart, watch.startretries) == (RestartUnconditionally, 1_000_000)
    assert (watch.stopasgroup, watch.killasgroup) == (False, False)
    assert watch.stdout_logfile == str(home / ".botkeep/watch.log")
    with pytest.raises(UsageError, match="botkeep-watch is the name of botkeep's own program"):
        written(fleet(home, bot=program("botkeep-watch")), watcher=BOTKEEP)


def test_the_command_writes_the_watcher_unless_something_else_runs_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three(home)
    for more, count in ([], 1), (["--no-watch"], 0):
        assert main(["--home", str(home), "supervisord-config", *more]) == 0
        assert capsys.readouterr().out.count("[program:botkeep-watch]") == count


def test_several_servers_and_names_that_collide_are_told_apart_by_a_person(home: Path) -> None:
    two = fleet(home, a=program("a", "./a"), b=program("b", "./b", server="http://127.0.0.1:9001"), c=process("./c"))
    with pytest.raises(UsageError, match=r"The bots name several servers: http://127.0.0.1:9001, unix:///run/bots"):
        written(two)
    assert set(as_read(home, written(two, server=SERVER).text)) == {"a", "c"}
    tcp = written(two, server="http://127.0.0.1:9001").text
    assert "[inet_http_server]\nport=127.0.0.1:9001\n" in tcp
    assert set(as_read(home, tcp)) == {"b", "c"}
    twice = fleet(home, a=program("x:bot", "./a"), b=program("y:bot", "./b"))
    with pytest.raises(UsageError, match="Several bots have the program bot"):
        written(twice)
    with pytest.raises(UsageError, match=r"No bot of config/bots\.json can be a program of supervisord"):
        written(fleet(home, a={"kind": "docker", "container": "a"}))


def test_a_login_is_named_and_never_written_and_programs_alone_can_be_included(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SV_USER", "keeper")
    monkeypatch.setenv("SV_WORD", "s3cret-word")
    named = {"username_env": "SV_USER", "password_env": "SV_WORD"}
    (home / "bot.env").write_text("API_KEY=k3y-of-the-bot\n")
    bots = fleet(home, bot=program("bot", env_file="bot.env", **named))
    text = written(bots).text
    assert text.count("username=%(ENV_SV_USER)s\npassword=%(ENV_SV_WORD)s\n") == 2
    assert "s3cret-word" not in text
    assert "k3y-of-the-bot" not in text
    assert set(as_read(home, text)) == {"bot"}
    alone = written(bots, programs_only=True).text
    assert [line for line in alone.splitlines() if line.startswith("[")] == ["[program:bot]"]


# ---------------------------------------------------------------------------------------------------- exec_env


def run(*words: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", WRAPPER, *words],
        cwd=cwd, env={"PATH": os.environ["PATH"], **more}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_wrapper_is_known_by_its_name_and_marks_what_it_starts_as_botkeep_does() -> None:
    assert (exec_env.__name__, exec_env.LOCKED) == (WRAPPER, LOCKED)
    assert exec_env.MARKER == MARKER


def test_a_bot_takes_its_place_with_its_keys_and_its_lock(tmp_path: Path) -> None:
    (tmp_path / "k.env").write_text("A=one two\nB='x'\n")
    (tmp_path / "k.env").chmod(0o600)
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the bot was taken for a module')")
    code = "import os, fcntl; print(os.getpid(), os.environ['A'], os.environ['B'], os.environ['C'])"
    child = subprocess.Popen(
        [sys.executable, "-I", "-m", WRAPPER, "--lock", "run/bot/run.lock", "--env-file", "k.env", "--",
         sys.executable, "-c", f"{code}; input()"],
        cwd=tmp_path, env={"C": "kept", "B": "old"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stdout
        assert child.stdout.readline() == f"{child.pid} one two x kept\n"
        status = (tmp_path / "run/bot/run.lock").stat()
        environment = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
        assert f"{MARKER}={status.st_dev}:{status.st_ino}:bot".encode() in environment
        second = run("--lock", "run/bot/run.lock", "--", "true", cwd=tmp_path)
        assert second.returncode == exec_env.LOCKED
        assert second.stderr.startswith("botkeep: not started: another copy of it is alive, and holds")
        child.communicate("\n")
    assert run("--lock", "run/bot/run.lock", "--", "true", cwd=tmp_path).returncode == 0


def test_a_bot_ignores_no_signal_that_its_starter_does(tmp_path: Path) -> None:
    def masks(said: str) -> list[int]:
        lines = dict(line.split(":", 1) for line in said.splitlines())
        return [int(lines[key], 16) for key in ("SigIgn", "SigBlk")]

    ignored, blocked = masks(run("--", "cat", "/proc/self/status", cwd=tmp_path).stdout)
    here_ignored, here_blocked = masks(Path("/proc/self/status").read_text())
    pythons_own = {signal.SIGPIPE, signal.SIGXFSZ}
    assert ignored == here_ignored & ~sum(1 << (one - 1) for one in pythons_own)
    assert blocked == here_blocked


def test_a_copy_that_is_just_ending_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "run.lock").touch()
    code = (
        "import fcntl, time; f = open('run.lock'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); time.sleep(1)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout
        holder.stdout.readline()
        assert run("--lock", "run.lock", "--", "true", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 78, "botkeep: write python -m botkeep.exec_env"),
        (("--",), 78, "botkeep: write python -m botkeep.exec_env"),
        (("--what", "x", "--", "true"), 78, "botkeep: write python -m botkeep.exec_env"),
        (("true",), 78, "botkeep: write python -m botkeep.exec_env"),
        (("--env-file", "gone.env", "--", "true"), 78, "botkeep: The env file gone.env cannot be read"),
        (("--env-file", "open.env", "--", "true"), 78, "botkeep: The env file open.env can be read by others"),
        (("--lock", "file/run.lock", "--", "true"), 78, "botkeep: file cannot be made"),
        (("--", "./no-such-bot"), 127, "botkeep: ./no-such-bot: No such file or directory"),
        (("--", "./open.env"), 126, "botkeep: ./open.env: Permission denied"),
    ],
)
def test_what_keeps_a_bot_from_being_started_is_one_line_and_a_code(
    tmp_path: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "open.env").write_text("A=1\n")
    (tmp_path / "open.env").chmod(0o644)
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1
