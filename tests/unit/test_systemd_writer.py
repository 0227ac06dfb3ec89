"""`botkeep systemd-units`: the files, systemd's own word that they are good, and its timers' times beside cron's."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from croniter import croniter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from botkeep.config import Fleet, load_fleet
from botkeep.model import UsageError
from botkeep.oncalendar import on_calendar
from botkeep.schedule import Task, load_schedule
from botkeep.systemd_writer import prepare_logs, store, written
from botkeep.workspace import Workspace
from support import namespaces

GOLDEN = Path(__file__).parents[1] / "data/systemd/golden.txt"
COMMAND = "/opt/venv/bin/botkeep"
ROUND = Task("bot_health_check", "*/5 * * * *")
REPORT = Task("bot_morning_report", "0 8 * * *")
BACKUP = Task("bot_backup", "0 * * * *")


def process(*command: str, **more: Any) -> dict[str, Any]:
    return {"kind": "process", "command": list(command) or ["python3", "bot.py"], **more}


def service(unit: str, *command: str, **more: Any) -> dict[str, Any]:
    return {**process(*command), "kind": "systemd", "unit": unit, **more}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    Workspace(tmp_path).prepare()
    return tmp_path


def fleet(home: Path, limits: dict[str, Any] | None = None, **runtimes: dict[str, Any]) -> Fleet:
    bots = [{"name": name.replace("_", "-"), "runtime": runtime} for name, runtime in runtimes.items()]
    for bot in bots:
        if limits and bot["runtime"]["kind"] == "systemd":
            bot["limits"] = limits
    (home / "config/bots.json").write_text(json.dumps({"bots": bots, "timezone": "Europe/Berlin"}))
    return load_fleet(Workspace(home))


def three(home: Path) -> Fleet:
    (home / "maker").mkdir(exist_ok=True)
    return fleet(
        home,
        {"memory": {"most": "512MiB"}},
        bot_3m=service("tf@3m", "python3", "bot.py", "--timeframe", "3m", "100%", "$HOME", env={"FRAME": "3m"}),
        maker=process("/bin/sleep", "--pair", "BTC/USDT", cwd="maker", env_file="maker.env", stop_grace=20),
        old={"kind": "systemd", "unit": "old"},
        own=service("own", user=True),
    )


def verified(folder: Path, *options: str) -> str:
    """What systemd itself has against the units in a folder; empty if nothing."""
    namespaces.require("systemd-analyze")
    units = [str(path) for path in folder.iterdir() if path.suffix in (".service", ".timer")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *options, *units], capture_output=True, text=True, check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)},
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_files_are_the_golden_ones(home: Path) -> None:
    made = written(three(home), [ROUND, REPORT, BACKUP], COMMAND)
    owner = pwd.getpwuid(os.geteuid()).pw_name
    text = made.text.replace(str(home), "{HOME}").replace(sys.executable, "{PYTHON}")
    assert (
        text.replace(f"User={owner}\n", "User={USER}\n").partition("# ---- botkeep.logrotate")[0] == GOLDEN.read_text()
    )
    assert made.bots == ("bot-3m", "maker")
    assert made.notes == (
        'old is left out: its runtime has no "command" to be written.',
        "own is left out: it is of the user's own systemd: with --user it is written.",
        'To have systemd run maker, stop it, and write into its runtime "kind": "systemd", "unit": "bot-maker" instead '
        'of "kind": "process". The rest stays.',
        "To take them over: copy them into /etc/systemd/system, then `systemctl daemon-reload`, then `systemctl enable "
        "--now tf@3m.service bot-maker.service botkeep-watch.service botkeep.timer`.",
    )


@pytest.mark.parametrize("user", [False, True])
def test_systemd_itself_finds_nothing_wrong_with_them(home: Path, user: bool) -> None:
    out = home / "units"
    store(written(three(home), [ROUND], sys.executable, user=user), out)
    assert len(list(out.iterdir())) == 6
    assert verified(out, *(["--user"] if user else [])) == ""


def test_systemd_would_find_what_is_wrong(home: Path) -> None:
    out = home / "units"
    store(written(three(home), [ROUND], sys.executable), out)
    unit = out / "tf@3m.service"
    unit.write_text(unit.read_text().replace("KillMode=control-group", "KillMode=gently"))
    assert "Failed to parse kill mode" in verified(out)


def test_a_users_own_units_name_no_user_and_what_keeps_them_up(home: Path) -> None:
    made = written(three(home), [ROUND], COMMAND, user=True)
    assert set(made.files) == {
        "own.service",
        "bot-maker.service",
        "botkeep-watch.service",
        "botkeep.service",
        "botkeep.timer",
        "botkeep.logrotate",
    }
    assert not any(line.startswith("User=") for line in made.text.splitlines())
    assert "network-online" not in made.text
    assert "WantedBy=default.target" in made.files["own.service"]
    assert any("enable-linger" in note for note in made.notes)
    assert any('"unit": "bot-maker", "user": true' in note for note in made.notes)


def test_without_a_health_check_each_task_has_a_timer_and_with_one_its_round_does_the_rest(home: Path) -> None:
    bots = fleet(home, doge=service("doge"))
    apart = written(bots, [REPORT, BACKUP], COMMAND).files
    assert {name for name in apart if name.startswith("botkeep")} == {
        "botkeep-watch.service", "botkeep-report.service", "botkeep-report.timer", "botkeep-backup.service",
        "botkeep-backup.timer", "botkeep.logrotate",
    }  # fmt: skip
    assert f"ExecStart={COMMAND} --home {home} report\n" in apart["botkeep-report.service"]
    together = written(bots, [REPORT, ROUND, BACKUP], COMMAND).files
    assert {name for name in together if name.endswith(".timer")} == {"botkeep.timer"}
    assert "OnCalendar=*-*-* *:0,5,10,15,20,25,30,35,40,45,50,55:00 Europe/Berlin\n" in together["botkeep.timer"]
    assert "Persistent=true\n" in together["botkeep.timer"]


def test_a_program_that_systemd_does_not_find_is_told(home: Path) -> None:
    made = written(fleet(home, doge=service("doge", "a-bot-of-nobodys")), [], COMMAND)
    assert made.notes[0].startswith("doge: a-bot-of-nobodys is not where systemd looks for programs")


def test_no_secret_is_written(home: Path) -> None:
    (home / "bot.env").write_text("API_KEY=k3y-of-the-bot\n")
    made = written(fleet(home, doge=service("doge", env_file="bot.env")), [], COMMAND)
    assert "k3y-of-the-bot" not in made.text
    assert f"--env-file {home}/bot.env" in made.text


@pytest.mark.parametrize(
    ("runtimes", "told"),
    [
        ({"a": service("botkeep")}, "botkeep.service is the name of a unit of botkeep's own"),
        ({"a": service("x"), "b": service("x.service")}, "Several bots have one unit"),
        ({"a": service("x", cwd="a\nb")}, "A unit's file cannot hold"),
        ({"a": service("x", cwd="ends\\")}, "A unit's file cannot hold"),
        ({"a": service("x", env={"A B": "x"})}, "a: a unit's file cannot hold the variable 'A B'"),
        ({"a": service("botkeep-watch")}, "botkeep-watch.service is the name of a unit of botkeep's own"),
        ({}, "There is nothing to write: config/bots.json has no bot"),
    ],
)
def test_what_such_files_cannot_hold_is_refused(home: Path, runtimes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        written(fleet(home, None, **runtimes), [], COMMAND)


def test_a_folder_that_cannot_be_written_is_one_sentence(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(UsageError, match=r"file cannot be made: (File exists|Not a directory)\."):
        store(written(fleet(home, doge=service("doge")), [], COMMAND), home / "file")


def test_logs_are_made_before_systemd_would_as_root(home: Path) -> None:
    bots = fleet(home, doge=service("doge"))
    prepare_logs(bots, ["doge"])
    log = Workspace(home).log_path("doge")
    assert log.stat().st_mode & 0o777 == 0o600
    log.write_text("kept\n")
    prepare_logs(bots, ["doge"])
    assert log.read_text() == "kept\n"


def test_no_schedule_is_no_timer(home: Path) -> None:
    made = written(fleet(home, doge=service("doge")), load_schedule(Workspace(home)), COMMAND)
    assert set(made.files) == {"doge.service", "botkeep-watch.service", "botkeep.logrotate"}


def settings_of(text: str, name: str) -> list[str]:
    """Every value of a setting in a unit's file."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def test_the_watcher_comes_up_after_what_runs_the_bots_and_so_ends_before_them(home: Path) -> None:
    bots = fleet(
        home,
        doge=service("doge"),
        plain=process(),
        other={"kind": "systemd", "unit": "other"},
        own=service("own", user=True),
        box={"kind": "docker", "container": "box"},
        maker={"kind": "supervisord", "server": "unix:///run/s.sock", "program": "maker"},
    )
    machines = settings_of(written(bots, [], COMMAND).files["botkeep-watch.service"], "After")
    assert machines == [
        "network-online.target",
        "doge.service bot-plain.service other.service docker.service supervisor.service supervisord.service",
    ]
    assert settings_of(written(bots, [], COMMAND, user=True).files["botkeep-watch.service"], "After") == [
        "bot-plain.service own.service"
    ]


def test_the_watcher_is_never_given_up_and_takes_no_plain_process_with_it(home: Path) -> None:
    unit = written(three(home), [ROUND], COMMAND).files["botkeep-watch.service"]
    wanted = {"Restart": "always", "StartLimitIntervalSec": "0", "KillMode": "process", "OOMPolicy": "continue"}
    assert {name: settings_of(unit, name) for name in wanted} == {name: [value] for name, value in wanted.items()}
    assert settings_of(unit, "ExecStart") == [f"{COMMAND} --home {home} watch"]


def test_a_fleet_in_containers_has_its_watcher_all_the_same(home: Path) -> None:
    made = written(fleet(home, box={"kind": "docker", "container": "box"}), [], COMMAND)
    assert set(made.files) == {"botkeep-watch.service"}
    out = home / "units"
    store(written(fleet(home, box={"kind": "docker", "container": "box"}), [], sys.executable), out)
    assert verified(out) == ""


def test_a_command_that_wakes_an_assistant_and_is_not_found_by_systemd_is_told(home: Path) -> None:
    bots = fleet(home, doge=service("doge", "/bin/sleep"))
    assert not any("wake" in note for note in written(bots, [], COMMAND).notes)
    (home / "config/bots.json").write_text(
        json.dumps({**json.loads((home / "config/bots.json").read_text()), "wake": ["an-assistant-of-nobodys", "-p"]})
    )
    notes = written(load_fleet(Workspace(home)), [], COMMAND).notes
    assert any(note.startswith("wake: an-assistant-of-nobodys is not where systemd looks") for note in notes)


# ---------------------------------------------------------------------------------------------------- times


def by_systemd(lines: tuple[str, ...], after: datetime, count: int) -> list[datetime]:
    """The next times of a timer, by systemd's own calculation."""
    found: set[datetime] = set()
    for line in lines:
        words = [
            "systemd-analyze",
            "calendar",
            f"--iterations={count}",
            f"--base-time={after:%Y-%m-%d %H:%M:%S UTC}",
            line,
        ]
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=True,
            env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ["PATH"]},
        )
        for each in done.stdout.splitlines():
            name, _, value = each.strip().partition(": ")
            if name in ("Next elapse", "(in UTC)") or name.startswith("Iter"):
                text = value.strip().removesuffix(" UTC")
                found.add(datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S").replace(tzinfo=UTC))
    return sorted(found)[:count]


def by_cron(schedule: str, after: datetime, count: int) -> list[datetime]:
    steps = croniter(schedule, after)
    return [steps.get_next(datetime) for _ in range(count)]


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    ranges = st.tuples(number, number, st.integers(1, 9)).map(
        lambda three: f"{min(three[:2])}-{max(three[:2])}{f'/{three[2]}' if three[2] > 1 else ''}"
    )
    steps = st.integers(1, high).map(lambda step: f"*/{step}")
    return st.just("*") | steps | st.lists(number.map(str) | ranges, min_size=1, max_size=3).map(",".join)


CRON = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7)).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(CRON)
@example("*/5 * * * *")
@example("0 8 * * *")
@example("0 9-17/2 * * mon-fri")
@example("0 0 13 * fri")
@example("30 6 1,15 jan-mar 1-5")
@example("*/7 */5 * * 7")
@example("0 */5 * * *")
@example("0 0 31 * *")
@example("0 0 * * 0,7")
def test_a_timer_comes_at_the_times_of_cron(schedule: str) -> None:
    namespaces.require("systemd-analyze")
    day, _, weekday = schedule.split()[2:]
    given_both = all(croniter.expand(schedule)[0][place] != ["*"] for place in (2, 4))
    if given_both and (day.startswith("*") or weekday.startswith("*")):
        with pytest.raises(UsageError, match="crons disagree"):
            on_calendar(schedule)
        return
    lines = on_calendar(schedule)
    after = datetime(2026, 2, 27, 23, 58, 30, tzinfo=UTC)
    assert by_systemd(lines, after, 8) == by_cron(schedule, after, 8)


def test_a_zone_is_the_peoples(home: Path) -> None:
    namespaces.require("systemd-analyze")
    lines = on_calendar("0 8 * * *", "Europe/Berlin")
    assert lines == ("*-*-* 8:0:00 Europe/Berlin",)
    first = by_systemd(lines, datetime(2026, 7, 1, tzinfo=UTC), 1)[0]
    assert first == datetime(2026, 7, 1, 6, tzinfo=UTC)
    assert timedelta(0) < first - datetime(2026, 7, 1, tzinfo=UTC)
