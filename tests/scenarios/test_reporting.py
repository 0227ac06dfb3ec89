"""The report of real bots: what fell and came back, clocks that are set back, weeks without a look, large fleets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from botkeep.ledger import Seen
from botkeep.model import Fault, Status, utc_now
from botkeep.pack import init
from botkeep.report_words import LIMIT
from botkeep.rounds import Desk
from botkeep.templating import units
from botkeep.workspace import Workspace
from support.fleet import Fleet, entry, fleet, wait_for

BOTKEEP = str(Path(sys.executable).with_name("botkeep"))
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Fleet]:
    """One paper bot."""
    with fleet(tmp_path) as found:
        yield found


def ask(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`botkeep report`, as a person runs it."""
    command = [BOTKEEP, "report", "--home", str(home), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_bot_that_fell_and_was_brought_back_is_told_with_time_cause_and_entries(one: Fleet) -> None:
    pid = one.up()
    one.verdict()
    one.kill(pid)
    done = one.desk().round()
    assert [action.result for action in done.actions] == ["done"]
    one.verdict()
    desk = one.desk()
    report = desk.report(utc_now() - HOUR)
    (doge,) = report.bots
    ((cause, intent),) = [(made.cause, made.entry) for made in doge.restarts]
    outcome = next(deed for deed in report.actions if "was restarted" in deed.sentence)
    assert cause == "bot-not-running"
    assert desk.ledger.entry(outcome.entry).ref == intent  # type: ignore[union-attr]
    assert (doge.uptime.up > timedelta(), timedelta() <= doge.uptime.down < timedelta(minutes=1)) == (True, True)
    recovery = report.goals[1]
    assert (recovery.met, outcome.entry in recovery.entries) == (True, True), recovery
    text = desk.report_told(report)
    assert ": all 1 fine; nobody looked for most of the last 1h" in text.splitlines()[0]
    assert f"1 restart at {outcome.at.astimezone(desk.zone()):%H:%M}, bot-not-running" in text
    assert f"({outcome.entry})\n" in text
    assert re.search(r"- doge: [+-]\d.* USDT; \d+ trades", text), text


def test_every_format_is_printed_or_written_where_it_is_asked_for(one: Fleet) -> None:
    one.up()
    one.verdict()
    home = one.home
    for name, begins in (("r.txt", "🤖 Bot"), ("r.md", "# 🤖 Bot"), ("r.json", "{"), ("r.html", "<!DOCTYPE html>")):
        done = ask(home, "--out", str(home / name))
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{home / name}\n", "")
        assert (home / name).read_text().startswith(begins)
        assert (home / name).stat().st_mode & 0o777 == 0o600
    assert ask(home, "--format", "markdown", "--since", "7d").stdout.startswith("# 🤖 Bot")
    document = json.loads(ask(home, "--format", "json").stdout)
    assert document["answer"].startswith("all 1 fine")
    assert {one["goal"] for one in document["goals"]} >= {"recovery under 2 minutes"}
    assert document["bots"][0]["figures"]["currencies"][0]["currency"] == "USDT"
    drawn = ask(home, "--charts", str(home / "drawn")).stdout.splitlines()[-2:]
    assert [Path(path).read_bytes()[:4] for path in drawn] == [b"\x89PNG"] * 2


def test_a_file_that_cannot_be_written_is_refused_with_what_to_write(one: Fleet) -> None:
    wrong = ask(one.home, "--out", "report.pdf")
    assert (wrong.returncode, wrong.stderr) == (
        2, "botkeep: report.pdf: its ending says no format. Use one of .txt, .md, .json, .html, .htm, or name one with "
           "--format.\n",
    )  # fmt: skip
    os.mkfifo(one.home / "pipe.txt")
    assert "is no file" in ask(one.home, "--out", str(one.home / "pipe.txt")).stderr
    assert "No such file" in ask(one.home, "--out", str(one.home / "gone/r.txt")).stderr


def test_the_workspaces_own_template_is_used_and_a_broken_one_is_named(one: Fleet) -> None:
    own = one.home / "templates/health_report.txt.j2"
    own.write_text("Good morning: {{ answer }}\n")
    assert ask(one.home).stdout.startswith("Good morning: ")
    own.write_text("Good morning: {{ answer }\n")
    found = ask(one.home)
    assert found.returncode == 0
    assert found.stdout.startswith("🤖 Bot Health Report - ")
    assert "- templates/health_report.txt.j2:1: TemplateSyntax: " in found.stdout
    desk = one.desk()
    assert "templates/health_report.txt.j2:1:" in desk.report_told(desk.report(utc_now() - DAY))


def test_a_bot_without_a_data_file_has_no_figures_and_misses_none(tmp_path: Path) -> None:
    bare = {key: value for key, value in entry().items() if key not in ("data_file", "currency")}
    with fleet(tmp_path, bare, entry("btc", "BTCUSDT")) as found:
        desk = found.desk()
        assert [desk.restart(name, "go").result for name in ("doge", "btc")] == ["done", "done"]
        wait_for(lambda: found.rows("btc") >= 3)
        report = desk.report(utc_now() - HOUR)
        doge = next(one for one in report.bots if one.bot == "doge")
        assert (doge.pnl, doge.month, doge.habit, doge.wants_backup) == (None, None, None, False)
        text = desk.report_told(report)
        assert "- doge: +" not in text
        assert "- doge: none yet" not in text
        assert "- btc: none yet\n" in text
        for kind in ("markdown", "html"):
            assert "doge" in desk.report_told(report, kind)
        assert len(desk.pictures(report)) == 2


# --- clocks and gaps ---------------------------------------------------------------------------------------------


class Clock:
    """A clock that a person sets."""

    def __init__(self) -> None:
        self.moved = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.moved


def test_an_hour_of_clock_set_back_neither_loses_nor_invents_time(one: Fleet) -> None:
    clock = Clock()
    pid = one.up()
    desk = one.desk(clock=clock)
    clock.moved = 2 * HOUR
    desk.check()
    clock.moved = 2 * HOUR + timedelta(minutes=5)
    desk.check()
    desk.back_up()
    clock.moved -= HOUR
    desk.check()
    one.kill(pid)
    desk.check()
    desk.round()
    report = desk.report(clock() - 24 * HOUR)
    (doge,) = report.bots
    parts = doge.uptime
    assert parts.up + parts.down + parts.stopped + parts.unknown == report.at - report.since
    assert min(parts.up, parts.down, parts.stopped, parts.unknown) >= timedelta()
    assert sum((piece.length for piece in doge.strip), timedelta()) == report.at - report.since
    for kind in ("text", "markdown", "html"):
        told = desk.report_told(report, kind)
        assert "doge" in told
        assert not re.search(r"(?<![\w.])-\d+(\.\d)? (s|min|h|d) ", told), "no length is less than nothing"
    assert len(desk.pictures(report)) == 2


def test_a_week_with_no_looks_at_all_is_said_and_nothing_is_claimed_of_it(tmp_path: Path) -> None:
    with fleet(tmp_path, {"name": "doge", "process_name": "no_such_process_of_a_week"}) as found:
        desk, now = found.desk(), utc_now()
        for days in (20, 9):
            desk.ledger.see("doge", status=Status.HEALTHY, fault=None, up=True, instance="a", at=now - DAY * days,
                            max_gap=30 * DAY)  # fmt: skip
        report = desk.report(now - 7 * DAY)
        (doge,) = report.bots
        assert (doge.uptime.percent, doge.uptime.up, doge.status) == (None, timedelta(), Status.FAULTY)
        month = dict(doge.windows)["7d"]
        assert month.percent is None
        assert [goal.met for goal in report.goals] == [None, None, None]
        text = desk.report_told(report)
        assert "Uptime (7d):\n- doge: not known (7.0 d unknown" in text
        assert "nobody looked for most of the last 7d" in text.splitlines()[0]


def test_a_thousand_bots_are_reported_in_one_message(tmp_path: Path) -> None:
    """A hundred times as many as anybody has, most of them with a file of trades."""
    init(tmp_path, utc_now())
    (tmp_path / "data").mkdir()
    bots = [
        {"name": f"bot-{n}", "process_name": f"no_such_bot_of_many_{n}", "data_file": f"data/{n}.csv"}
        for n in range(1000)
    ]
    (tmp_path / "config/bots.json").write_text(json.dumps({"bots": bots}))
    rows = "".join(f"{utc_now() - HOUR * n:%Y-%m-%dT%H:%M:%SZ},DOGEUSDT,1.5\n" for n in range(20, 0, -1))
    for n in range(1000):
        (tmp_path / f"data/{n}.csv").write_text(f"close_time,symbol,pnl\n{rows}")
    desk = Desk.open(Workspace(tmp_path), actor="person")  # type: ignore[arg-type]
    now = utc_now()
    desk.ledger.see_all(
        Seen(f"bot-{n}", Status.HEALTHY, None, True, "a", at, DAY)
        for n in range(1000)
        for at in (now - 26 * HOUR, now - 10 * HOUR)
    )
    report = desk.report(now - DAY)
    text = desk.report_told(report)
    assert units(text) <= LIMIT
    assert text.splitlines()[0].startswith("🤖 Bot Health Report - ")
    assert "Current Status: ❌ 1000 of 1000 bots need attention" in text
    assert "others: +" in text
    assert all(one.fault is Fault.BOT_NOT_RUNNING for one in report.bots)
    page = desk.report_told(report, "html")
    assert len(page) < 3_000_000
    desk.close()
