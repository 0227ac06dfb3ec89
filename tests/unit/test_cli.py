"""The `botkeep` command: exit codes, one-line errors, documents, and what a cold check imports."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from botkeep import __version__, cli
from botkeep.cli import main, parser
from botkeep.model import UsageError, utc_now
from botkeep.pack import init
from botkeep.results import parse_since
from support.fleet import Fleet, alive, entry, fleet, wait_for

BOTKEEP = [sys.executable, "-m", "botkeep"]
WATCHED = {"name": "watched", "process_name": "no_such_process_of_a_bot", "data_file": "data/watched.csv"}
BROKEN = {"name": "broken", "check_interval": "often"}
TRADES = (
    "timestamp,symbol,side,price,amount,fee,fee_currency\n"
    "2026-11-01T00:00:00Z,BTC/USDT,buy,100.10,3,0.1,USDT\n"
    "2026-11-02T00:00:00Z,BTC/USDT,sell,110.20,1,0.1,USDT\n"
)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def bots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two real bots, one that can only be watched (and is down), one whose entry is broken."""
    home = tmp_path_factory.mktemp("cli")
    with fleet(home, entry(), entry("ada", "ADAUSDT"), WATCHED, BROKEN) as found:
        (home / "data/watched.csv").write_text(TRADES)
        found.edit("bot-not-running", r"backoff: \[.*\]", "backoff: [0s, 0s, 0s, 0s, 0s, 0s]")
        found.edit("bot-not-running", r"max_per_day: \d+", "max_per_day: 99")
        yield found


class Told(str):
    """What a command printed, and its exit code."""

    code: int
    errors: str

    @property
    def document(self) -> Any:
        """As JSON."""
        return json.loads(self)


Run = Callable[..., Told]


@pytest.fixture
def run(bots: Fleet, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, on the module's workspace."""

    def go(*words: str, home: Path | None = bots.home) -> Told:
        where = ["--home", str(home)] if home else []
        code = main([*where, *words])
        out, err = capsys.readouterr()
        told = Told(out)
        told.code, told.errors = code, err
        return told

    return go


def running(bots: Fleet, bot: str = "doge") -> int:
    """The pid of a bot that runs now, also if it did not."""
    found = bots.verdict(bot)
    return found.pid if found.status == "healthy" and found.pid else bots.up(bot)


def one_line(told: Told) -> str:
    """The error, which is one line on standard error and nothing else."""
    assert told == ""
    assert re.fullmatch(r"botkeep: [^\n]+\n", told.errors), told.errors
    return told.errors


# --- how it is used ----------------------------------------------------------------------------------------------

ALL = (
    "init doctor check status diagnose round watch start stop restart poll approve restore backup store pnl report "
    "alerts silence note journal playbooks signatures schedule supervisord-config systemd-units swarm-stack docs serve "
    "demo"
)


def test_the_commands_are_those_of_the_design() -> None:
    assert list(cli.COMMANDS) == ALL.split()


@pytest.mark.parametrize("command", ALL.split())
def test_every_command_and_argument_has_help(run: Run, command: str) -> None:
    told = run(command, "--help", home=None)
    assert told.code == 0
    assert f"usage: botkeep {command}" in told
    choices = next(one for one in parser()._actions if isinstance(one, argparse._SubParsersAction)).choices
    assert all(action.help for action in choices[command]._actions)


def test_the_version_is_printed(run: Run) -> None:
    told = run("--version", home=None)
    assert (told, told.code) == (f"botkeep {__version__}\n", 0)


def test_no_command_is_used_wrongly_and_shows_the_help(run: Run) -> None:
    told = run(home=None)
    assert told.code == 2
    assert "usage: botkeep" in told.errors


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["chekc"], 'There is no command "chekc"; did you mean check?'),
        (["pnl", "--method", "avrage"], 'There is no --method "avrage"; did you mean average?'),
        (["check", "daoge"], 'There is no bot "daoge". The bots are: doge, '),
        (["diagnose", "dog"], 'There is no bot "dog". The bots are: doge, '),
        (["diagnose"], "the following arguments are required: BOT. See: botkeep diagnose --help"),
        (["check", "--jsn"], "unrecognized arguments: --jsn"),
        (["stop"], "botkeep stop: name the bots, or say --all; one of the two."),
        (["restart", "doge", "--all"], "botkeep restart: name the bots, or say --all; one of the two."),
        (["restart", "doge", "adaa"], 'There is no bot "adaa". The bots are: ada, '),
        (["pnl", "--since", "yesterday"], 'since "yesterday" is no time.'),
        (["pnl", "--since", "2999-01-01"], "is not in the past"),
        (["journal", "--limit", "0"], "no number of entries"),
        (["note", " "], "The note is empty"),
        (["approve", "e99999"], "nothing that was asked"),
        (["playbooks", "bot-dead"], 'There is no fault "bot-dead"'),
        (["check", "broken", "--home", "/nowhere/at/all"], "there is no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_used_wrongly_is_one_line_and_exit_code_two(run: Run, words: list[str], told: str) -> None:
    found = run(*words)
    assert found.code == 2
    assert told.replace('"', "'") in one_line(found).replace('"', "'")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"bots": [{"name": "a"}, {"name": "a"}]}', '{"bots": [{"name": "-a"}]}']
)
def test_a_configuration_that_cannot_be_used_is_one_line_and_exit_code_two(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/bots.json").write_text(text)
    for words in (["check"], ["status"], ["round"], ["pnl"], ["stop", "--all"], ["doctor"], ["schedule"]):
        found = run(*words, home=tmp_path)
        assert found.code == 2
        assert "config/bots.json" in one_line(found) or "config/schedule.json" in found.errors


def test_no_workspace_is_told_with_what_makes_one(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BOTKEEP_HOME", raising=False)
    found = run("check", home=None)
    assert found.code == 2
    assert "botkeep init DIR" in one_line(found)


def test_the_workspace_is_found_from_the_environment(run: Run, bots: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTKEEP_HOME", str(bots.home))
    assert run("journal", home=None).code == 0


def test_home_may_stand_before_and_after_the_command(run: Run, bots: Fleet) -> None:
    assert run("journal", home=bots.home) == run("journal", "--home", str(bots.home), home=None)


# --- looking -----------------------------------------------------------------------------------------------------


def test_check_tells_by_its_exit_code_how_the_bots_are(run: Run, bots: Fleet) -> None:
    running(bots)
    assert run("check", "doge").code == 0, "healthy"
    assert run("stop", "ada").code == 0
    assert run("check", "doge", "ada").code == 0, "stopped on purpose"
    assert run("check", "watched").code == 1, "faulty"
    assert run("check", "broken").code == 1, "unknown"
    assert run("check").code == 1, "one of them is"


def test_check_names_the_worst_first_and_its_playbook(run: Run) -> None:
    lines = run("check").splitlines()
    assert lines[0].startswith("watched  faulty   watched is not running")
    assert lines[1].strip() == "bot-not-running: botkeep playbooks bot-not-running"
    assert lines[2].startswith("broken   unknown  ")
    assert "config/bots.json $.bots[3].check_interval" in lines[2]


def test_a_check_as_document_has_all_bots(run: Run, bots: Fleet) -> None:
    running(bots)
    found = run("check", "--json").document
    assert {one["bot"]: one["status"] for one in found["bots"]}["doge"] == "healthy"
    assert len(found["bots"]) == 4
    assert found["at"].endswith("Z")


def test_status_is_one_table_at_one_look(run: Run, bots: Fleet) -> None:
    pid = running(bots)
    head, *rows = run("status").splitlines()
    assert head.split("  ")[0] == "BOT"
    assert {row.split()[0] for row in rows} == {"doge", "ada", "watched", "broken"}
    doge = next(row for row in rows if row.startswith("doge"))
    assert f"  {pid}  " in doge
    assert " MB " in doge
    found = run("status", "doge", "--json").document["bots"][0]
    assert found["pid"] == pid
    assert found["memory_bytes"] > 1e6
    assert found["up_since"] <= found["last_trade_at"]


def test_no_colours_are_written_where_no_terminal_is(run: Run) -> None:
    assert "\033" not in run("check") + run("status") + run("doctor")


def test_diagnose_gives_the_log_behind_bars(run: Run, bots: Fleet) -> None:
    running(bots)
    found = run("diagnose", "doge")
    assert found.code == 0
    assert re.search(r"\n  \| .*closed at", found)
    assert "untrusted text" in run("diagnose", "doge", "--json").document["untrusted_log"]


def test_doctor_says_what_is_missing_and_fails_for_a_problem(run: Run) -> None:
    found = run("doctor")
    assert found.code == 1
    assert re.search(r"^note +watched has no runtime", found, re.MULTILINE)
    assert re.search(r"^problem +broken cannot be used", found, re.MULTILINE)
    levels = {one["level"] for one in run("doctor", "--json").document["findings"]}
    assert {"note", "problem"} <= levels


def test_pnl_is_exact_and_its_amounts_are_text(run: Run) -> None:
    text = run("pnl", "watched", "--json")
    assert not re.search(r"\d\.\d[^\"]*$", text, re.MULTILINE), "a number that is no text"
    (found,) = text.document["bots"]
    (money,) = found["currencies"]
    exact = Decimal("110.20") - Decimal("0.1") - (Decimal("300.30") + Decimal("0.1")) / 3
    assert Decimal(money["realised"]) == exact.quantize(Decimal("1e-12"))
    assert (money["currency"], money["trades"], found["method"]) == ("USDT", 1, "fifo")
    assert found["positions"] == [
        {
            "symbol": "BTC/USDT", "amount": "2", "average_price": "100.133333333333", "currency": "USDT",
            "unrealised": "20.133333333333", "mark": "110.20 (its own last fill of 2026-11-02 00:00:00Z)",
        }
    ]  # fmt: skip
    table = run("pnl", "watched", "--method", "average")
    assert re.search(r"^watched  9\.966+7 +USDT", table, re.MULTILINE)
    assert "watched holds 2 BTC/USDT" in table


def test_pnl_since_a_time_counts_only_what_came_after(run: Run) -> None:
    found = run("pnl", "watched", "--since", "2026-11-03", "--json").document["bots"][0]["currencies"][0]
    assert (found["realised"], found["trades"]) == ("0", 0)


def test_the_report_is_printed_in_the_shape_people_know(run: Run) -> None:
    found = run("report", "--since", "24h")
    assert found.code == 0
    assert found.startswith("🤖 Bot Health Report - ")
    document = run("report", "--json").document
    assert document["text"].startswith("🤖 Bot Health Report - ")
    doge = next(one for one in document["bots"] if one["bot"] == "doge")
    assert doge["up_s"] + doge["down_s"] + doge["stopped_s"] + doge["unknown_s"] in range(86399, 86402)


# --- acting ------------------------------------------------------------------------------------------------------


def test_a_bot_is_stopped_started_and_restarted_with_a_reason_that_names_who_asked(run: Run, bots: Fleet) -> None:
    running(bots)
    stopped = run("stop", "doge")
    assert (stopped.code, stopped[:9]) == (0, "done     ")
    started = run("start", "doge", "--reason", "back from holiday", "--json")
    (report,) = started.document["actions"]
    assert (report["result"], started.code) == ("done", 0)
    assert alive(report["pid"])
    again = run("start", "doge")
    assert (again.code, again[:9]) == (0, "coalesced")
    intents = [one.sentence for one in bots.desk().ledger.entries(bot="doge") if one.kind == "intent"]
    assert re.fullmatch(r"asked by \S.* on the command line", intents[-2])
    assert intents[-1] == "back from holiday"


def test_an_action_that_was_refused_exits_with_one(run: Run) -> None:
    found = run("restart", "watched")
    assert (found.code, found[:9]) == (1, "refused  ")
    assert "runtime" in found


def test_what_a_playbook_asks_a_person_for_is_done_after_their_yes(run: Run, bots: Fleet) -> None:
    bots.kill(running(bots, "ada"))
    bots.edit("bot-not-running", "mode: auto", "mode: ask")
    try:
        asked = run("restart", "ada")
        assert (asked.code, asked[:6]) == (1, "asked ")
        question = re.search(r"`botkeep approve (e\d+)`", asked)
        assert question
        assert run("approve", question[1]).code == 0
        assert run("approve", question[1]).code == 2, "it is approved already"
        assert run("restart", "ada").code == 0
    finally:
        bots.edit("bot-not-running", "mode: ask", "mode: auto")


def test_an_override_lifts_what_a_playbook_forbids_and_is_recorded(run: Run, bots: Fleet) -> None:
    for _ in range(2):  # the very first start of a bot is no restart
        assert run("restart", "ada", "--override", "the restart of today").code == 0
    bots.kill(running(bots, "ada"))
    bots.edit("bot-not-running", r"max_per_day: \d+", "max_per_day: 1")
    try:
        refused = run("restart", "ada", "--json")
        assert refused.code == 1
        assert refused.document["actions"][0]["earliest"] > "2026"
        lifted = run("restart", "ada", "--override", "its config was mended", "--json")
        assert lifted.code == 0
        assert alive(lifted.document["actions"][0]["pid"])
    finally:
        bots.edit("bot-not-running", r"max_per_day: \d+", "max_per_day: 99")
    intents = [one for one in bots.desk().ledger.entries(bot="ada") if one.kind == "intent"]
    assert intents[-1].data["override"] == "its config was mended"


def test_one_bot_that_cannot_be_used_does_not_keep_the_others_from_being_stopped(run: Run, bots: Fleet) -> None:
    pid = running(bots)
    found = run("stop", "--all", "--json")
    assert found.code == 1
    results = {one["bot"]: one["result"] for one in found.document["actions"]}
    assert results == {"doge": "done", "ada": "done", "watched": "done", "broken": "failed"}
    assert not alive(pid)


def test_a_round_brings_a_dead_bot_back_and_says_so(run: Run, bots: Fleet) -> None:
    bots.kill(running(bots))
    found = run("round")
    assert re.search(r"^done +doge was restarted", found, re.MULTILINE)
    assert found.code == 1, "watched is still down"
    document = run("round", "--json").document
    assert {one["bot"] for one in document["bots"]} == {"doge", "ada", "watched", "broken"}


def test_a_backup_a_damage_a_plan_and_a_restore(run: Run, bots: Fleet) -> None:
    bots.kill(running(bots, "ada"))
    assert run("backup", "ada").startswith("done ")
    unharmed = run("restore", "ada")
    assert unharmed.code == 1
    assert "There is nothing to restore" in one_line(unharmed)
    data = bots.data("ada").read_bytes()
    damaged = data[:60] + b"\0" * 20 + data[80:]
    bots.data("ada").write_bytes(damaged)
    shown = run("restore", "ada")
    assert shown.code == 0
    plan = re.search(r"botkeep restore ada --plan ([0-9a-f]{12})", shown)
    assert plan
    assert bots.data("ada").read_bytes() == damaged, "a plan changes nothing"
    done = run("restore", "ada", "--plan", plan[1], "--json")
    assert done.code == 0, done
    assert bots.data("ada").read_bytes().startswith(data)
    assert run("restore", "ada", "--plan", plan[1]).code == 1, "a plan is for one use"


# --- texts -------------------------------------------------------------------------------------------------------


def test_a_note_is_in_the_journal_and_a_forged_line_is_found(run: Run, bots: Fleet) -> None:
    run("note", "an earlier one")
    noted = run("note", "the host was moved", "--bot", "doge", "--json").document
    assert run("journal", "--bot", "doge", "--limit", "1").splitlines()[-1].endswith("the host was moved")
    found = run("journal", "--since", "24h", "--limit", "1", "--json").document
    assert found["entries"][0]["id"] == noted["id"]
    assert found["truncated"] is True
    assert run("journal", "--verify").code == 0
    path = bots.home / "memory/bot-operations.md"
    before = path.read_text()
    path.write_text(before.replace("the host was moved", "the host was sold"))
    changed = run("journal", "--verify")
    path.write_text(before)
    assert changed.code == 1
    assert noted["id"] in changed


def test_playbooks_are_listed_with_what_is_wrong_and_printed_as_written(run: Run, bots: Fleet) -> None:
    path = bots.home / "playbooks/bot-hung.md"
    text = path.read_text()
    assert run("playbooks", "bot-hung") == text
    assert re.search(r"^bot-hung +critical +auto +restart_bot", run("playbooks"), re.MULTILINE)
    path.write_text(text.replace("mode: auto", "mode: maybe"))
    try:
        assert "mend: playbooks/bot-hung.md:" in run("playbooks")
        assert "mend: playbooks/bot-hung.md:" in run("check", "ada")
        assert run("playbooks", "--json").document["mend"][0].startswith("playbooks/bot-hung.md:")
    finally:
        path.write_text(text)


def test_the_schedule_is_printed_as_crontab_with_the_path_of_this_botkeep(run: Run, bots: Fleet) -> None:
    found = run("schedule")
    assert f"*/5 * * * * cd {bots.home}" in found
    assert str(Path(sys.executable).with_name("botkeep")) in found
    assert "Call check_bot" in found


def test_init_says_what_it_made_and_keeps_what_is_there(run: Run, tmp_path: Path) -> None:
    assert "made    config/bots.json\n" in run("init", str(tmp_path / "botkeep"), home=None)
    assert "made    " not in run("init", str(tmp_path / "botkeep"), home=None)


# --- as a process ------------------------------------------------------------------------------------------------


def test_a_check_loads_nothing_heavy(bots: Fleet) -> None:
    heavy = "mcp jinja2 croniter pandas numpy docker apprise psutil asyncio http.client botkeep.server botkeep.results"
    code = (
        "import sys; from botkeep.cli import main; main(['check']); "
        f"sys.exit(','.join(name for name in {heavy.split()!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=bots.home, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_a_closed_pipe_is_no_error(bots: Fleet) -> None:
    process = subprocess.Popen(
        [*BOTKEEP, "playbooks", "--home", str(bots.home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.close()
    _, errors = process.communicate()
    assert (process.returncode, errors) == (141, b"")


def test_output_that_cannot_be_written_is_one_line(bots: Fleet) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*BOTKEEP, "playbooks", "--home", str(bots.home)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "botkeep: The output cannot be written: No space left on device. What was asked for is done.\n"
    )


def test_what_is_printed_arrives_though_the_process_ends_without_ceremony() -> None:
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run([*BOTKEEP, "--version"], capture_output=True, text=True, check=True, env=buffered)
    assert done.stdout == f"botkeep {__version__}\n"


def test_ctrl_c_ends_a_command_without_a_word(tmp_path: Path) -> None:
    """While it waits for its second look at a doubtful finding."""
    init(tmp_path, utc_now())
    said = f'{utc_now():%Y-%m-%d %H:%M:%S} ERROR binance {{"code":-2015,"msg":"Invalid API-key."}}'
    (tmp_path / "bot.log").write_text(said + "\n")
    bot = {"name": "doge", "process_name": "no_such_process_of_a_bot", "log_file": "bot.log"}
    (tmp_path / "config/bots.json").write_text(json.dumps({"bots": [bot]}))
    with subprocess.Popen([*BOTKEEP, "check", "--home", str(tmp_path)], stderr=subprocess.PIPE) as process:
        wait_for(lambda: any("ledger.db" in target for target in links(process.pid)))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, b"")


def links(pid: int) -> list[str]:
    """What the open descriptors of a process lead to."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


# --- since -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24h", "2026-11-20T12:00:00"),
        ("7d", "2026-11-14T12:00:00"),
        ("90m", "2026-11-21T10:30:00"),
        ("2026-11-20", "2026-11-20T00:00:00"),
        ("2026-11-20T08:00Z", "2026-11-20T08:00:00"),
        ("2026-11-20T08:00+02:00", "2026-11-20T06:00:00"),
    ],
)
def test_since_is_a_length_or_a_time(text: str, expected: str) -> None:
    assert parse_since(text, NOW) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_a_time_without_a_zone_is_in_the_peoples_zone() -> None:
    assert parse_since("2026-11-20", NOW, ZoneInfo("Asia/Tokyo")) == datetime(2026, 11, 19, 15, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "now", "0s", "24", "1.5h", "-1h", "2026-13-01", "0001-01-01", "12:00", "1w"])
def test_nonsense_is_answered_with_what_is_accepted(text: str) -> None:
    with pytest.raises(UsageError, match="Write a length of time like 24h or 7d, or a time like 2026-11-21"):
        parse_since(text, NOW)
