"""config/schedule.json: what is due, what was missed, and the lines that wake botkeep or an assistant."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep import untrusted
from botkeep.model import ConfigError, UsageError
from botkeep.schedule import (
    TASKS,
    WAKES,
    Task,
    assistant_recipes,
    crontab_lines,
    due,
    load_schedule,
    people_zone,
)
from botkeep.workspace import Workspace

FIRST_USERS = (
    '[{"schedule": "*/5 * * * *", "task": "bot_health_check"}, {"schedule": "0 8 * * *", "task": "bot_morning_report"}]'
)
HEALTH = Task("bot_health_check", "*/5 * * * *")
REPORT = Task("bot_morning_report", "0 8 * * *")
BACKUP = Task("bot_backup", "0 * * * *")
LISBON = ZoneInfo("Europe/Lisbon")
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "config").mkdir()
    return Workspace(tmp_path)


def load(workspace: Workspace, value: object) -> tuple[Task, ...]:
    workspace.schedule_file.write_text(value if isinstance(value, str) else json.dumps(value))
    return load_schedule(workspace)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- reading -------------------------------------------------------------------------------------------------------


def test_the_first_users_list_loads_as_it_is(workspace: Workspace) -> None:
    assert load(workspace, FIRST_USERS) == (HEALTH, REPORT)


def test_no_file_means_no_tasks(workspace: Workspace) -> None:
    assert load_schedule(workspace) == ()


def test_names_of_days_and_the_easy_words_are_known(workspace: Workspace) -> None:
    written = ["@daily", "0 8 * * MON-FRI", "0,30 8-20/2 * jan,Feb *", "  15   8 1 * * "]
    tasks = load(workspace, [{"schedule": one, "task": "bot_backup"} for one in written])
    assert [task.schedule for task in tasks] == [
        "0 0 * * *",
        "0 8 * * MON-FRI",
        "0,30 8-20/2 * jan,Feb *",
        "15 8 1 * *",
    ]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "config/schedule.json: the file is empty"),
        ("[", "config/schedule.json: not JSON at line 1"),
        ({"a": 1}, 'config/schedule.json $: found {"a": 1}; write a list'),
        (["x"], 'config/schedule.json $[0]: found "x"; write an object'),
        (
            [{"schedule": "* * * * *"}],
            "$[0].task: found null; write one of: bot_health_check, bot_morning_report, bot_b",
        ),
        ([{"schedule": "* * * * *", "task": "bot_helth_check"}], "did you mean bot_health_check?"),
        ([{"schedule": "* * * * *", "task": ["x"]}], "$[0].task: found"),
        (
            [{"schedule": "* * * * *", "task": "bot_backup", "tsk": 1}],
            '$[0]: there is no key "tsk"; did you mean task?',
        ),
        ([{"task": "bot_backup"}], "$[0].schedule: found null; write five cron fields"),
    ],
)
def test_a_list_of_another_shape_is_one_line(workspace: Workspace, value: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(workspace, value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "schedule",
    [
        "61 * * * *", "* * * *", "* * * * * *", "0 8 30 2 *", "0 8 * * 8", "0 24 * * *", "*/0 * * * *", "every day",
        "22-6 * * * *", "5/10 * * * *", "0 8 L * *", "0 8 * * 1#2", "H H * * *", "R * * * *", "@reboot", "-1 * * * *",
        "* * * * *\n* * * * * id", "* * * * * ; id", "*/5 * * * %", "", 5, None,
    ],
)  # fmt: skip
def test_times_that_cron_would_not_take_are_refused(workspace: Workspace, schedule: object) -> None:
    with pytest.raises(ConfigError, match=r"config/schedule.json \$\[1\].schedule: found "):
        load(workspace, [{"schedule": "* * * * *", "task": "bot_backup"}, {"schedule": schedule, "task": "bot_backup"}])


# --- what is due ---------------------------------------------------------------------------------------------------


def test_a_task_is_due_once_for_each_of_its_times() -> None:
    last = {"bot_health_check": at("2026-11-21T10:00:20")}
    assert due([HEALTH], last, at("2026-11-21T10:04:59"), UTC) == ((), ())
    found, missed = due([HEALTH], last, at("2026-11-21T10:05:00"), UTC)
    assert [(one.task, one.scheduled) for one in found] == [("bot_health_check", at("2026-11-21T10:05:00"))]
    assert missed == ()
    assert due([HEALTH], {"bot_health_check": at("2026-11-21T10:05:00")}, at("2026-11-21T10:05:00"), UTC) == ((), ())


def test_what_was_skipped_is_missed_and_said() -> None:
    last = {"bot_backup": at("2026-11-21T06:00:30")}
    (found,), (missed,) = due([BACKUP], last, at("2026-11-21T10:20:00"), UTC)
    assert found.scheduled == at("2026-11-21T10:00:00")
    assert missed.sentence(UTC) == "bot_backup was missed 3 times, from 2026-11-21 07:00 to 2026-11-21 09:00."
    last = {"bot_backup": at("2026-11-21T08:00:30")}
    _, (missed,) = due([BACKUP], last, at("2026-11-21T10:20:00"), UTC)
    assert missed.sentence(ZoneInfo("Asia/Tokyo")) == "bot_backup was missed once, at 2026-11-21 18:00."


def test_a_task_that_never_ran_is_due_if_its_time_was_just_now() -> None:
    assert due([REPORT], {}, at("2026-11-21T15:00:00"), UTC) == ((), ())
    found, missed = due([REPORT], {}, at("2026-11-21T08:03:00"), UTC)
    assert [one.scheduled for one in found] == [at("2026-11-21T08:00:00")]
    assert missed == ()


def test_a_clock_that_was_set_back_does_not_silence_a_task() -> None:
    last = {"bot_health_check": at("2099-01-01T00:00:00")}
    found, _ = due([HEALTH], last, at("2026-11-21T10:05:10"), UTC)
    assert [one.scheduled for one in found] == [at("2026-11-21T10:05:00")]


def test_a_machine_that_was_off_for_a_year_is_answered_at_once() -> None:
    last = {"bot_health_check": at("2025-11-21T10:00:00")}
    (found,), (missed,) = due([HEALTH], last, at("2026-11-21T10:05:10"), UTC)
    assert found.scheduled == at("2026-11-21T10:05:00")
    assert missed.more
    assert "at least 1000 times" in missed.sentence(UTC)


def test_a_task_with_two_schedules_is_due_once() -> None:
    tasks = [REPORT, Task("bot_morning_report", "0 20 * * *"), HEALTH]
    last = {"bot_morning_report": at("2026-11-20T08:00:10"), "bot_health_check": at("2026-11-21T08:00:10")}
    found, missed = due(tasks, last, at("2026-11-21T08:01:00"), UTC)
    assert [(one.task, one.scheduled) for one in found] == [("bot_morning_report", at("2026-11-21T08:00:00"))]
    assert [(one.task, one.count) for one in missed] == [("bot_morning_report", 1)]


def test_times_are_the_peoples() -> None:
    last = {"bot_morning_report": at("2026-07-01T12:00:00")}
    assert due([REPORT], last, at("2026-07-02T06:59:00"), LISBON) == ((), ())
    (found,), _ = due([REPORT], last, at("2026-07-02T07:00:00"), LISBON)
    assert found.scheduled == at("2026-07-02T07:00:00")


def times(task: Task, start: str, end: str, zone: ZoneInfo) -> list[str]:
    """Every time at which the task runs if somebody looks each minute, on the wall."""
    now, stop, last = at(start), at(end), at(start)
    found = []
    while now <= stop:
        ready, missed = due([task], {task.name: last}, now, zone)
        assert missed == ()
        for one in ready:
            found.append(one.scheduled.astimezone(zone).strftime("%d %H:%M%z"))
            last = now
        now += timedelta(minutes=1)
    return found


def test_a_report_comes_once_a_day_across_both_clock_changes() -> None:
    spring = times(REPORT, "2026-03-28T00:00", "2026-03-29T23:00", BERLIN)
    assert spring == ["28 08:00+0100", "29 08:00+0200"]
    autumn = times(REPORT, "2026-10-24T00:00", "2026-10-25T23:00", BERLIN)
    assert autumn == ["24 08:00+0200", "25 08:00+0100"]


def test_a_fixed_time_that_the_clock_skips_comes_once_all_the_same() -> None:
    task = Task("bot_backup", "30 2 * * *")
    assert times(task, "2026-03-28T12:00", "2026-03-29T12:00", BERLIN) == ["29 03:30+0200"]


def test_a_fixed_time_that_the_clock_repeats_comes_once() -> None:
    task = Task("bot_backup", "30 2 * * *")
    assert times(task, "2026-10-24T12:00", "2026-10-25T12:00", BERLIN) == ["25 02:30+0200"]


@pytest.mark.parametrize(
    ("start", "end"), [("2026-03-29T00:00", "2026-03-29T03:00"), ("2026-10-25T00:00", "2026-10-25T03:00")]
)
def test_a_health_check_keeps_its_pace_across_both_clock_changes(start: str, end: str) -> None:
    assert len(times(HEALTH, start, end, BERLIN)) == 36
    assert len(times(BACKUP, start, end, BERLIN)) == 3


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([HEALTH, REPORT, BACKUP, Task("bot_backup", "*/7 3-5 * * *"), Task("bot_backup", "15 2 * * 0")]),
    st.sampled_from([UTC, LISBON, BERLIN, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/St_Johns")]),
    st.integers(0, 365 * 86400),
    st.lists(st.integers(1, 16 * 3600), min_size=2, max_size=5),  # all of it at */5: fewer than MISSED_LIMIT
)
def test_however_often_one_looks_each_time_is_due_or_missed_exactly_once(
    task: Task, zone: ZoneInfo, start: int, steps: list[int]
) -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=start)
    now, last, counted = first, first, 0
    for step in steps:
        now += timedelta(seconds=step)
        found, missed = due([task], {task.name: last}, now, zone)
        counted += len(found) + sum(one.count for one in missed)
        last = now if found else last
    found, missed = due([task], {task.name: first}, now, zone)
    assert counted == len(found) + sum(one.count for one in missed)


def test_the_peoples_zone_is_the_configured_one_or_the_machines() -> None:
    assert people_zone("Europe/Lisbon", {"TZ": "Asia/Tokyo"}) == LISBON
    assert people_zone(None, {"TZ": ":Europe/Berlin"}) == BERLIN
    now = datetime(2026, 7, 1, tzinfo=UTC)
    assert now.astimezone(people_zone(None, {"TZ": "no such zone"})).utcoffset() is not None


# --- waking --------------------------------------------------------------------------------------------------------


def test_one_line_keeps_the_bots_and_says_what_its_rounds_do() -> None:
    text = crontab_lines([HEALTH, REPORT, BACKUP], Path("/srv/my bots"), "/opt/bin/botkeep", "Europe/Lisbon")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        "CRON_TZ=Europe/Lisbon",
        "*/5 * * * * cd '/srv/my bots' && flock -n -o .botkeep/cron.lock /opt/bin/botkeep round "
        ">> .botkeep/logs/cron.log 2>&1",
    ]
    assert "# bot_morning_report (0 8 * * *): done by the round that follows" in text


def test_without_a_health_check_each_task_has_its_own_line() -> None:
    text = crontab_lines([REPORT, BACKUP], Path("/srv/bots"), "botkeep")
    assert "CRON_TZ" not in text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line.split(" cd ")[0] for line in lines] == ["0 8 * * *", "0 * * * *"]
    assert "botkeep report >>" in lines[0]
    assert "botkeep backup >>" in lines[1]


def test_a_path_cannot_break_out_of_its_line() -> None:
    text = crontab_lines([HEALTH], Path("/srv/100%;id"), "/x y/botkeep")
    assert "cd '/srv/100\\%;id' && " in text
    assert "'/x y/botkeep' round" in text
    with pytest.raises(UsageError, match="cannot stand in a crontab"):
        crontab_lines([HEALTH], Path("/srv/a\nb"), "botkeep")


def test_the_line_runs_in_a_shell_as_it_stands(tmp_path: Path) -> None:
    home = tmp_path / "my 100% 'bots'"
    (home / ".botkeep/logs").mkdir(parents=True)
    command = tmp_path / "bot keep"
    command.write_text('#!/bin/sh\necho "ran $1 in $(basename "$PWD")"\n')
    command.chmod(0o755)
    line = crontab_lines([HEALTH], home, str(command)).splitlines()[-1]
    shell = line.split(" ", 5)[5].replace("\\%", "%")
    subprocess.run(["/bin/sh", "-c", shell], check=True, timeout=10)
    assert (home / ".botkeep/logs/cron.log").read_text() == "ran round in my 100% 'bots'\n"


def test_the_recipes_name_each_host_the_tools_and_no_secret() -> None:
    text = assistant_recipes([HEALTH, REPORT, BACKUP], Path("/srv/bots"), "/opt/bin/botkeep", "Europe/Lisbon")
    server = json.loads(text.splitlines()[1])["mcpServers"]["botkeep"]
    assert server == {"command": "/opt/bin/botkeep", "args": ["serve"], "env": {"BOTKEEP_HOME": "/srv/bots"}}
    for part in ("claude -p", "codex exec", "openclaw cron add", "mcp__botkeep__restart_bot", "botkeep__health_report"):
        assert part in text
    assert "required = true" in text
    assert "--tz Europe/Lisbon" in text
    assert "bot_backup" not in text
    assert untrusted.redact(text) == text
    for line in text.splitlines():
        if line and line[0] in "*0123456789":
            subprocess.run(["/bin/sh", "-n", "-c", line.split(" ", 5)[5]], check=True, timeout=10)


def test_every_prompt_is_for_a_task_and_can_be_quoted_anywhere() -> None:
    assert set(WAKES) < set(TASKS)
    for wake in WAKES.values():
        assert not set("'\"`$%\\\n") & set(wake.prompt)
        assert wake.tools
