"""What `botkeep doctor` finds, on real processes and files, and that it never shows what it must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep.doctor import DoctorLine
from botkeep.model import Actor, utc_now
from botkeep.pack import init
from botkeep.rounds import Desk
from botkeep.workspace import Workspace
from support.fleet import Fleet, entry, fleet, wait_for

SECRET = "hunter2hunter2hunter2"
SCRIPT = """\
import os, signal
if "CALLED" in os.environ:
    open("/proc/self/comm", "w").write(os.environ["CALLED"])
print("up", flush=True)
signal.pause()
"""

Lines = tuple[DoctorLine, ...]
Examine = Callable[..., Lines]
Start = Callable[..., int]


MINE = f"doge_bot_{os.getpid()}"
"""A process name counts on the whole machine: another worker's bot of the same name would be found as well."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty workspace."""
    place = tmp_path / "botkeep"
    init(place, utc_now())
    (place / "data").mkdir()
    return place


@pytest.fixture
def examine(home: Path) -> Examine:
    """(*entries of bots.json) -> what the doctor says."""

    def run(*bots: dict[str, Any], clock: Callable[[], datetime] = utc_now) -> Lines:
        (home / "config/bots.json").write_text(json.dumps({"bots": list(bots)}))
        desk = Desk.open(Workspace(home), Actor.PERSON, clock)
        try:
            return desk.doctor()
        finally:
            desk.close()

    return run


@pytest.fixture
def by_hand(home: Path) -> Iterator[Start]:
    """(script, *arguments, **variables) -> the pid of that script, started as a person would."""
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str, *arguments: str, **variables: str) -> int:
        (home / script).write_text(SCRIPT)
        command = [sys.executable, script, *arguments]
        environment = {"PATH": os.environ["PATH"], "SHLVL": "1", "LS_COLORS": "x", **variables}
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def of(lines: Lines, bot: str | None, words: str) -> DoctorLine:
    """The one line about this bot (or the workspace) with these words."""
    found = [line for line in lines if line.bot == bot and words in line.what]
    assert len(found) == 1, [line.what for line in lines]
    return found[0]


def about(lines: Lines, bot: str | None) -> list[str]:
    """What is said of a bot, or of the workspace."""
    return [line.what for line in lines if line.bot == bot]


def process(*command: str, **more: Any) -> dict[str, Any]:
    """A runtime."""
    return {"kind": "process", "command": list(command), **more}


# --- what runs it ------------------------------------------------------------------------------------------------


def test_a_bot_that_lacks_nothing_has_one_line(tmp_path: Path) -> None:
    replay = {"log": "fills.log", "grammar": "hummingbot"}
    with fleet(tmp_path / "botkeep", entry(capital=1000, replay=replay)) as found:
        (found.home / "fills.log").touch()
        found.up()
        assert all(report.ok for report in found.desk().back_up())
        lines = found.desk(Actor.PERSON).doctor()
    assert about(lines, "doge") == ["doge lacks nothing."]
    assert not [line for line in lines if line.level == "problem"]


def test_the_runtime_it_shows_can_be_pasted_and_adopts_the_copy(examine: Examine, by_hand: Start, home: Path) -> None:
    pid = by_hand(f"{MINE}.py", "--paper", 'a "b"')
    line = of(examine({"name": "doge", "process_name": MINE}), "doge", "has no runtime")
    assert line.level == "note"
    pasted = json.loads("{" + line.mend.split("add to its entry: ")[1] + "}")
    assert pasted == {"runtime": process(sys.executable, f"{MINE}.py", "--paper", 'a "b"', cwd=".")}
    adopted = of(examine({"name": "doge", **pasted}), "doge", "botkeep did not start it")
    assert f"pid {pid}" in adopted.what
    assert adopted.mend == "When it suits, let botkeep start it: botkeep restart doge"


def test_a_secret_on_a_command_line_is_not_shown(examine: Examine, by_hand: Start) -> None:
    by_hand(f"{MINE}.py", "--api-key", SECRET, f"--token={SECRET}", "--paper")
    line = of(examine({"name": "doge", "process_name": MINE}), "doge", "has no runtime")
    assert SECRET not in line.mend
    assert '"--api-key", "[redacted]"' in line.mend
    assert '"--paper"' in line.mend
    assert "env_file" in line.mend


def test_without_a_copy_it_says_what_a_runtime_looks_like(examine: Examine) -> None:
    line = of(examine({"name": "doge", "process_name": "nobody_runs_this"}), "doge", "has no runtime")
    assert '"command": ["PROGRAM", "ARGUMENT"]' in line.mend


def test_a_bot_that_nothing_could_find_is_a_problem(examine: Examine) -> None:
    assert of(examine({"name": "doge"}), "doge", "cannot be looked at").level == "problem"


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        (process("no-such-program-here"), "is no program"),
        (process("./bot.sh"), "is no program"),
        (process("sh", cwd="nowhere"), "there is no such folder"),
        (process("sh", env_file="nowhere.env"), "cannot be started: The env file"),
    ],
)
def test_what_cannot_be_started_is_a_problem(examine: Examine, runtime: dict[str, Any], words: str) -> None:
    assert of(examine({"name": "doge", "runtime": runtime}), "doge", words).level == "problem"


def test_an_env_file_that_others_can_read_is_a_problem(examine: Examine, home: Path) -> None:
    (home / "doge.env").write_text(f"API_SECRET={SECRET}\n")
    (home / "doge.env").chmod(0o644)
    line = of(examine({"name": "doge", "runtime": process("sh", env_file="doge.env")}), "doge", "cannot be started")
    assert "chmod 600" in line.what
    assert SECRET not in line.what


def test_variables_are_compared_by_name_and_never_shown(examine: Examine, by_hand: Start, home: Path) -> None:
    by_hand(f"{MINE}.py", API_SECRET=SECRET, CHAT_ID="4711", LEVEL="1", LC_ALL="C")
    (home / "doge.env").write_text("CHAT_ID=other\n")
    (home / "doge.env").chmod(0o600)
    runtime = process(sys.executable, f"{MINE}.py", env_file="doge.env", env={"LEVEL": "2"})
    lines = examine({"name": "doge", "runtime": runtime})
    line = of(lines, "doge", "a start by botkeep would not give it")
    assert line.what.endswith("would not give it: API_SECRET.")
    assert "into doge.env" in line.mend
    assert SECRET not in str(lines)


def test_without_an_env_file_it_says_where_to_name_one(examine: Examine, by_hand: Start) -> None:
    by_hand(f"{MINE}.py", API_SECRET=SECRET)
    line = of(examine({"name": "doge", "runtime": process(sys.executable, f"{MINE}.py")}), "doge", "API_SECRET")
    assert 'name it in "env_file"' in line.mend


# --- its name ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["python3", "python", "bash", "node"])
def test_the_name_of_an_interpreter_names_everything(examine: Examine, name: str) -> None:
    assert of(examine({"name": "doge", "process_name": name}), "doge", "is an interpreter").level == "problem"


def test_a_name_that_two_watched_bots_share_tells_nobody_apart(examine: Examine) -> None:
    bots = [{"name": name, "process_name": "signal_bot"} for name in ("bot-3m", "bot-15m")]
    lines = examine(*bots, {"name": "bot-1h", "process_name": "signal_bot", "runtime": process("sh", "-c", "1h")})
    assert of(lines, "bot-3m", 'shares the process_name "signal_bot" with bot-15m, bot-1h').level == "problem"
    assert not [what for what in about(lines, "bot-1h") if "shares" in what]


def test_a_long_name_of_which_the_kernel_keeps_the_start(examine: Examine, by_hand: Start) -> None:
    by_hand("other.py", CALLED="doge_long_bot_v2")
    line = of(examine({"name": "doge", "process_name": "doge_long_bot_v2"}), "doge", "the kernel keeps 15")
    assert line.mend == 'If that is it, write "process_name": "doge_long_bot_v".'


# --- its files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "level", "words"),
    [
        ("data/new.csv", "note", "yet."),
        ("nowhere/doge.csv", "problem", "there is no such folder"),
        ("data", "problem", "cannot be read"),
        (None, "note", "has no data_file"),
    ],
)
def test_the_data_file(examine: Examine, file: str | None, level: str, words: str) -> None:
    bot = {"name": "doge", "process_name": MINE, **({"data_file": file} if file else {})}
    assert of(examine(bot), "doge", words).level == level


@pytest.mark.parametrize(
    ("file", "level", "words"),
    [
        (None, "note", "has no log_file"),
        ("data/bot.log", "note", "has no log at"),
        ("nowhere/bot.log", "problem", "has no log at"),
    ],
)
def test_the_log(examine: Examine, file: str | None, level: str, words: str) -> None:
    bot = {"name": "doge", "process_name": MINE, **({"log_file": file} if file else {})}
    assert of(examine(bot), "doge", words).level == level


def test_a_progress_file_that_nobody_touched_is_a_note(examine: Examine) -> None:
    bot = {"name": "doge", "process_name": MINE, "progress": {"file": "data/alive", "every": "2m"}}
    assert of(examine(bot), "doge", "data/alive, which it should touch").level == "note"


def test_a_silent_endpoint_of_a_living_bot_is_a_note(examine: Examine, by_hand: Start) -> None:
    by_hand(f"{MINE}.py")
    bot = {"name": "doge", "process_name": MINE, "health_endpoint": "http://127.0.0.1:9/health"}
    assert of(examine(bot), "doge", "has a health endpoint that fails (refused)").level == "note"


def test_a_bot_without_capital_has_no_percent(examine: Examine) -> None:
    bot = {"name": "doge", "process_name": MINE, "data_file": "data/doge.csv"}
    assert of(examine(bot), "doge", "has no capital").mend == 'Add "capital" and "currency".'
    assert not [what for what in about(examine({**bot, "capital": 5}), "doge") if "has no capital" in what]


def test_backups_that_are_missing_or_old(home: Path, examine: Examine) -> None:
    rows = "".join(f"2026-11-21T0{n}:00:00Z,DOGEUSDT,1.{n}\n" for n in range(5))
    (home / "data/doge.csv").write_text("time,symbol,pnl\n" + rows)
    bot = {"name": "doge", "process_name": MINE, "data_file": "data/doge.csv"}
    assert of(examine(bot), "doge", "has no backup yet").mend == "Run: botkeep backup doge"
    desk = Desk.open(Workspace(home), Actor.PERSON)
    assert all(report.ok for report in desk.back_up())
    desk.close()
    assert not [what for what in about(examine(bot), "doge") if "backup" in what]
    later = examine(bot, clock=lambda: utc_now() + timedelta(hours=30))
    assert of(later, "doge", "has no backup newer than 30.0 h").level == "problem"


def test_a_broken_entry_is_said_and_the_others_are_examined(examine: Examine) -> None:
    lines = examine({"name": "doge", "check_interval": 0}, {"name": "btc", "process_name": "btc_bot"})
    assert "$.bots[0].check_interval" in of(lines, "doge", "cannot be used").what
    assert of(lines, "btc", "has no runtime")


# --- the workspace and the machine -------------------------------------------------------------------------------


def test_a_fresh_workspace_lacks_only_bots(examine: Examine) -> None:
    lines = examine()
    assert [line.what for line in lines if line.level == "problem"] == ["config/bots.json lists no bot."]
    assert of(lines, None, "Ledger and journal agree")
    assert of(lines, None, "GB of disk are free")
    assert of(lines, None, "on a local file system")
    assert of(lines, None, f"Linux {os.uname().release}")


def test_a_broken_playbook_and_a_broken_schedule_are_problems(examine: Examine, home: Path) -> None:
    (home / "playbooks/bot-hung.md").write_text("nothing\n")
    (home / "config/schedule.json").write_text('[{"schedule": "often", "task": "bot_health_check"}]')
    lines = examine()
    assert of(lines, None, "playbooks/bot-hung.md:1").level == "problem"
    assert of(lines, None, "config/schedule.json $[0].schedule").level == "problem"


def test_a_schedule_in_which_nobody_looks_is_a_note(examine: Examine, home: Path) -> None:
    (home / "config/schedule.json").write_text("[]")
    assert "bot_health_check" in of(examine(), None, "nobody looks by itself").mend


def test_a_forged_entry_is_a_problem(examine: Examine, home: Path) -> None:
    desk = Desk.open(Workspace(home), Actor.PERSON)
    desk.note("all quiet")
    desk.close()
    journal = home / "memory/bot-operations.md"
    journal.write_text(journal.read_text().replace("all quiet", "all lost"))
    found = [line for line in examine() if line.level == "problem" and "verify" in line.mend]
    assert found


def test_a_clock_that_was_set_back_is_a_problem(examine: Examine, home: Path) -> None:
    desk = Desk.open(Workspace(home), Actor.PERSON)
    desk.note("from the future")
    desk.close()
    lines = examine(clock=lambda: utc_now() - timedelta(hours=3))
    assert of(lines, None, "The clock stands 3.0 h before").level == "problem"


def test_every_problem_says_how_to_mend_it(examine: Examine, home: Path) -> None:
    (home / "playbooks/bot-hung.md").unlink()
    lines = examine(
        {"name": "a", "check_interval": 0},
        {"name": "b"},
        {"name": "c", "process_name": "python", "data_file": "nowhere/x.csv", "log_file": "nowhere/x.log"},
        {"name": "d", "runtime": process("no-such-program-here")},
    )
    assert [line for line in lines if line.level == "problem" and not line.mend] == []
    assert all(len(line.what) < 1600 for line in lines)


def test_it_changes_nothing(tmp_path: Path) -> None:
    with fleet(tmp_path / "botkeep") as found:
        pid = found.up()
        before = _entries(found)
        found.desk(Actor.PERSON).doctor()
        assert _entries(found) == before
        assert wait_for(lambda: found.verdict().pid) == pid


def _entries(found: Fleet) -> list[str]:
    return [one.id for one in found.desk().ledger.entries()]


@pytest.mark.parametrize(
    ("wake", "level", "words"),
    [
        (["/no/such/assistant", "-p"], "problem", "/no/such/assistant is not found"),
        (["sh", "-c", "true"], "note", "as PATH has it here"),
        ([sys.executable], None, ""),
        ([], None, ""),
    ],
)
def test_a_command_that_cannot_wake_anybody_is_found_before_it_is_needed(
    home: Path, wake: list[str], level: str | None, words: str
) -> None:
    (home / "config/bots.json").write_text(json.dumps({"wake": wake, "bots": []}))
    desk = Desk.open(Workspace(home), Actor.PERSON)
    try:
        found = [one for one in desk.doctor() if "assistant" in one.what.lower()]
    finally:
        desk.close()
    assert [one.level for one in found] == ([level] if level else [])
    assert all(words in one.what for one in found)
