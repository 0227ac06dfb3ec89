"""A real freqtrade, broken as people break it or as the world does; graded by the state of the world afterwards."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from botkeep.model import ActionReport, Actor, CauseClass, Fault, Result, Status, Verdict
from bots.exchange import Mood
from bots.rig import BOOT, FREQTRADE, HELD, LOOP_LIMIT, NAME, SHORT_COMMAND, Rig, command, free_port, furnish, rig
from support.fleet import alive
from support.fleet import wait_for as wait
from support.trade_files import DATA

Make = Callable[..., Rig]


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    """A rig with one bot, named after its test; ended with it."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        title = request.node.name.removeprefix("test_").replace("_", " ").replace("[", ": ").rstrip("]")
        yield lambda **more: stack.enter_context(rig(tmp_path / "home", title, **more))


def acted(one: Rig) -> ActionReport:
    """What a round did, one action that must have worked. Rounds come again: a bot that was just started is left."""
    reports = wait(lambda: [report for report in one.round().actions if report.result is not Result.COALESCED], 75)
    assert [one.result for one in reports] in ([Result.DONE], [Result.VERIFYING]), [one.sentence for one in reports]
    return reports[0]


def back_up(one: Rig) -> None:
    """A verified snapshot of its database."""
    assert [report.result for report in one.fleet.desk().back_up()] == [Result.DONE]


def back(one: Rig, old: int, state: str = "running") -> int:
    """Wait until it works again after it was restarted; its new pid, which is its only copy."""
    pid = int(one.verdict().pid or 0)
    assert pid not in (0, old)
    (one.wait_for_heartbeat if state == "stopped" else one.wait_for_loop)(pid)
    assert one.state() == state
    assert not alive(old)
    assert one.copies() == {pid}
    return pid


def restarts(one: Rig) -> int:
    """How many times it was started after a fault, by the journal."""
    return len(re.findall(rf"{NAME} was restarted", one.fleet.journal()))


def missing_from_book(one: Rig) -> dict[int, Decimal]:
    """Closed trades that its log tells and its database has not, or has with another profit."""
    booked = {number: Decimal(str(profit)) for number, profit in one.rows("SELECT id, close_profit_abs FROM trades")
              if profit is not None}  # fmt: skip
    return {number: profit for number, profit in one.fills().items()
            if number not in booked or abs(booked[number] - profit) > Decimal("0.00000001")}  # fmt: skip


def holding(one: Rig) -> bool:
    """Whether the trade that the strategy never leaves is open."""
    return bool(one.rows(f"SELECT 1 FROM trades WHERE is_open = 1 AND pair = '{HELD}'"))


# ---------------------------------------------------------------------------------------------------- healthy


def test_a_bot_that_trades_is_healthy_and_its_profit_is_the_one_that_it_reports_itself(make: Make) -> None:
    one = make()
    pid = one.up(trades=3)
    found = one.verdict()
    assert (found.status, found.pid) == (Status.HEALTHY, pid), found
    seen = one.observation()
    assert (seen.profile, seen.profile_why) == ("freqtrade", "configured")
    program = seen.program
    assert (program.state, program.state_from, program.api_rule) == ("running", "api", "ok"), program
    assert program.loop_known
    assert program.loop_at is not None
    assert abs(seen.at - program.loop_at) < timedelta(seconds=10)
    assert (program.heartbeat_pid, program.others, program.paper) == (pid, (), True)
    assert (program.version, program.exchange) == ("2026.9", "binance")
    one.say("check")
    one.say("diagnose", NAME)

    one.ask("stopentry", post=True)
    wait(lambda: one.ask("count")["current"] == 1, 20)
    assert program_state(one) == "paused"
    own, ours = one.ask("profit"), one.pnl()
    assert ours.main.trades == own["closed_trade_count"] >= 3
    assert abs(ours.realised - Decimal(str(own["profit_closed_coin"]))) <= Decimal("0.00000001")
    trades = one.ask("trades?limit=500")["trades"]
    assert ours.realised == sum((Decimal(str(row["profit_abs"])) for row in trades), Decimal(0))
    status = one.ask("status")
    assert [held.id for held in ours.positions] == [str(row["trade_id"]) for row in status]
    positions = one.observation().program.positions or ()
    assert [(held.id, held.symbol, held.amount) for held in positions] == [
        (str(row["trade_id"]), row["pair"], Decimal(str(row["amount"]))) for row in status
    ]
    one.say("pnl")
    assert one.round().actions == ()
    assert one.copies() == {pid}


def program_state(one: Rig) -> str:
    """What botkeep says of the bot's own state."""
    return one.observation().program.state


def test_a_planned_restart_of_a_running_bot_asks_it_to_open_nothing_more_and_leaves_it_running(make: Make) -> None:
    one = make()
    old = one.up(trades=1)
    restarted = one.fleet.desk(Actor.PERSON).restart(NAME, "an upgrade")
    assert restarted.result in (Result.DONE, Result.VERIFYING), restarted.sentence
    assert "it opened nothing new any more" in restarted.sentence
    back(one, old)
    one.trade()
    assert one.verdict().status is Status.HEALTHY
    assert missing_from_book(one) == {}


def test_a_bot_that_only_starts_is_not_called_hung_or_failing(make: Make) -> None:
    one = make()
    report = one.fleet.desk().restart(NAME, "first start")
    assert report.result in (Result.DONE, Result.VERIFYING), report.sentence
    seen: list[Verdict] = []

    def listens() -> bool:
        seen.append(one.fleet.desk().check([NAME], confirm=False).verdicts[0])
        return one.answers("ping") is not None

    wait(listens, BOOT)
    assert {(found.status, found.fault) for found in seen} == {(Status.HEALTHY, None)}


# ---------------------------------------------------------------------------------------------------- not alive


def test_a_hung_strategy_whose_api_answers_is_restarted_once(make: Make) -> None:
    one = make()
    old = one.up(trades=1)
    one.hang_file.touch()
    wait(lambda: not one.hang_file.exists(), 20)
    one.wait_for_standing_loop(LOOP_LIMIT + 2)
    assert one.ask("ping") == {"status": "pong"}
    found = one.verdict()
    assert (found.status, found.fault) == (Status.FAULTY, Fault.BOT_HUNG), found
    assert {fact.rule for fact in found.evidence if fact.fault is Fault.BOT_HUNG} == {"main-loop-stands"}
    assert "main loop" in found.sentence
    one.say("check")
    one.say("diagnose", NAME)
    assert acted(one).fault in (None, Fault.BOT_HUNG)
    new = back(one, old)
    assert new in one.heartbeats()
    assert restarts(one) == 1
    assert one.verdict().status is Status.HEALTHY
    assert one.round().actions == ()
    assert missing_from_book(one) == {}


def test_a_bot_that_is_killed_while_it_trades_is_back_once_with_its_open_trade(make: Make) -> None:
    one = make()
    old = one.up(trades=2)
    wait(lambda: holding(one), 20)
    held = one.open_ids()[0]
    one.kill(old)
    before = (set(one.closed_ids()), set(one.open_ids()))
    found = one.verdict()
    assert found.fault is Fault.BOT_NOT_RUNNING, found
    assert "killed by signal 9" in found.sentence
    one.say("check")
    one.say("diagnose", NAME)
    acted(one)
    back(one, old)
    assert restarts(one) == 1
    assert one.round().actions == ()
    assert held in {row["trade_id"] for row in one.ask("status")}
    assert before[0] <= set(one.closed_ids())
    assert before[0] | before[1] <= one.api_ids()
    assert missing_from_book(one) == {}
    assert one.verdict().status is Status.HEALTHY


# ---------------------------------------------------------------------------------------------------- the exchange


def test_a_banned_bot_is_left_alone_until_the_ban_ends_and_is_not_called_hung(make: Make) -> None:
    one = make()
    pid = one.up(trades=1)
    wait(lambda: holding(one), 20)
    end = one.market.ban(40)
    wait(lambda: f"banned until {end}" in one.lines(), 30)
    one.wait_for_standing_loop(LOOP_LIMIT / 2)
    found = one.verdict()
    assert found.fault is Fault.API_RATE_LIMITED, found
    assert Fault.BOT_HUNG not in found.faults
    until = datetime.fromtimestamp(end / 1000, UTC)
    assert {cause.klass for cause in found.causes} == {CauseClass.WAIT}
    assert [cause.until for cause in found.causes if cause.until] == [until]
    one.say("check")
    told = one.say("diagnose", NAME).splitlines()[0]
    assert "banned" in told, told
    assert f"{until:%Y-%m-%d %H:%M}" in told, told
    refused = one.fleet.desk(Actor.PERSON).restart(NAME, "it earns nothing")
    assert (refused.result, refused.earliest) == (Result.REFUSED, until), refused
    one.say("restart", NAME, "--reason", "it earns nothing")
    assert not any(report.ok for report in one.round().actions)
    assert one.copies() == {pid}
    wait(lambda: time.time() * 1000 > end + 1000, 70)
    wait(lambda: one.loop_age() < 5, 60)
    assert wait(lambda: one.verdict().status is Status.HEALTHY, 30)
    assert one.copies() == {pid}
    assert restarts(one) == 0


def test_a_bot_that_died_under_a_ban_is_started_when_the_ban_is_over_and_not_before(make: Make) -> None:
    one = make()
    old = one.up(trades=1)
    end = one.market.ban(30)
    wait(lambda: f"banned until {end}" in one.lines(), 30)
    one.kill(old)
    found = one.verdict()
    assert found.fault is Fault.API_RATE_LIMITED, found
    assert Fault.BOT_NOT_RUNNING in found.faults
    until = datetime.fromtimestamp(end / 1000, UTC)
    refused = one.fleet.desk().restart(NAME, "it is down")
    assert (refused.result, refused.earliest) == (Result.REFUSED, until), refused
    one.say("check")
    one.say("restart", NAME, "--reason", "it is down")
    one.round()
    assert one.copies() == set()
    wait(lambda: time.time() * 1000 > end, 60)
    acted(one)
    back(one, old)
    assert restarts(one) == 1


def test_an_exchange_in_trouble_is_waited_for_and_the_bot_is_never_restarted(make: Make) -> None:
    one = make()
    pid = one.up(trades=1)
    wait(lambda: holding(one), 20)
    for mood, sign in ((Mood.LIMITED, "429 Too Many Requests"), (Mood.AWAY, "503 Service Unavailable")):
        before = one.lines().count(sign)
        one.market.mood = mood
        wait(lambda before=before, sign=sign: one.lines().count(sign) > before, 30)
        found = one.verdict()
        assert Fault.BOT_HUNG not in found.faults, found
        assert [cause.klass for cause in found.causes][:1] == [CauseClass.WAIT], found
        one.say("check")
        assert not any(report.ok for report in one.round().actions)
        assert one.copies() == {pid}
    one.market.behave()
    wait(lambda: one.loop_age() < 5, 60)
    assert restarts(one) == 0


def test_a_bot_that_waits_for_a_mute_exchange_is_not_hung(make: Make) -> None:
    one = make()
    pid = one.up(trades=1)
    wait(lambda: holding(one), 20)
    one.market.mood = Mood.MUTE
    one.wait_for_standing_loop(LOOP_LIMIT + 5)
    assert "RequestTimeout" in one.lines()
    found = one.verdict()
    assert Fault.BOT_HUNG not in found.faults, found
    assert any(cause.klass is CauseClass.WAIT for cause in found.causes), found
    one.say("check")
    assert "does not answer" in one.say("diagnose", NAME).splitlines()[0]
    assert not any(report.ok for report in one.round().actions)
    assert one.copies() == {pid}


def test_a_key_that_is_refused_at_the_start_is_told_to_a_person_and_never_retried(make: Make) -> None:
    one = make()
    one.edit("bot-not-running", r"up_for: \w+", "up_for: 10s")
    one.market.mood = Mood.KEY_REFUSED
    started = one.fleet.desk().restart(NAME, "first start")
    assert started.result is Result.FAILED, started.sentence
    found = one.verdict()
    assert found.fault is Fault.API_KEY_REJECTED, found
    one.say("check")
    one.say("diagnose", NAME)
    for _ in range(2):
        assert not any(report.ok for report in one.round().actions)
    assert one.fleet.desk().restart(NAME, "again").result is Result.REFUSED
    assert one.copies() == set()


def test_a_wrong_clock_is_this_machines_matter_and_said_first(make: Make) -> None:
    one = make()
    pid = one.up(trades=1)
    one.market.set_clock(ahead=300)
    wait(lambda: '"code":-1021' in one.lines().replace(" ", ""), 30)
    found = one.verdict()
    assert found.causes, found
    assert found.causes[0].klass is CauseClass.HOST
    assert "clock" in found.causes[0].cause.lower()
    one.say("check")
    told = one.say("diagnose", NAME)
    assert "clock" in told.splitlines()[0].lower()
    actions = one.round().actions
    assert not any(report.result is Result.DONE for report in actions), actions
    refused = one.fleet.desk(Actor.PERSON).restart(NAME, "it trades nothing")
    assert refused.result is Result.REFUSED, refused
    assert one.copies() == {pid}


def test_a_bot_that_can_neither_open_nor_close_for_a_wrong_clock_is_not_called_healthy(make: Make) -> None:
    one = make()
    one.up(trades=1)
    one.market.set_clock(ahead=300)
    wait(lambda: one.lines().count("InvalidNonce") > 5, 30)
    found = one.verdict()
    assert found.status is Status.FAULTY, found
    assert "clock" in one.say("check").lower()


def test_a_start_with_a_wrong_clock_is_seen_from_the_first_line_on(make: Make) -> None:
    one = make()
    one.market.ahead = 300
    report = one.fleet.desk().restart(NAME, "first start")
    one.wait_for_heartbeat(int(report.pid or 0))
    assert "system time deviates by -300" in one.lines()
    found = one.verdict()
    assert any(cause.klass is CauseClass.HOST and "clock" in cause.cause.lower() for cause in found.causes), found
    one.say("diagnose", NAME)


def test_candles_that_stand_still_are_found_though_the_bot_is_green(make: Make) -> None:
    one = make()
    pid = one.up(trades=1)
    one.market.stop_candles(ago=480)
    one.ask("reload_config", post=True)  # what it has of candles is forgotten: else this takes seven minutes
    wait(lambda: "Outdated history for pair" in one.lines(), 90)
    wait(lambda: one.loop_age() < 10, 30)
    assert one.ask("ping") == {"status": "pong"}
    found = wait(lambda: (seen := one.verdict()).fault is Fault.BOT_IMPAIRED and seen, 60)
    assert "candle" in found.sentence.lower() or "Outdated history" in found.sentence, found
    one.say("check")
    one.say("diagnose", NAME)
    one.market.behave()
    acted(one)
    back(one, pid)
    assert wait(lambda: one.verdict().status is Status.HEALTHY, 30)
    assert restarts(one) == 1


# ---------------------------------------------------------------------------------------------------- the database

LOCKER = """
import sqlite3, sys, time
base = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
base.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(database: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that holds the database's write lock."""
    holder = subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    try:
        yield holder
    finally:
        holder.communicate("")


def test_a_database_that_another_program_locks_kills_the_bot_and_the_cause_is_named_first(make: Make) -> None:
    one = make()
    old = one.up(trades=1)
    with locked(one.database):
        wait(lambda: not Path(f"/proc/{old}").exists(), 120)
    assert "database is locked" in one.lines()
    found = one.verdict()
    assert found.fault is Fault.BOT_NOT_RUNNING, found
    assert "exit code 1" in found.sentence
    assert "locked" in found.causes[0].cause
    one.say("check")
    assert "locked" in one.say("diagnose", NAME).splitlines()[0]
    acted(one)
    back(one, old)
    assert restarts(one) == 1
    assert missing_from_book(one) == {}


def test_while_another_program_locks_the_database_it_is_named_and_no_start_is_wasted(make: Make) -> None:
    one = make()
    old = one.up(trades=1)
    with locked(one.database) as holder:
        wait(lambda: not Path(f"/proc/{old}").exists(), 120)
        reports = one.round().actions
        assert not any(report.ok for report in reports), reports
        assert any(f"pid {holder.pid}" in report.sentence for report in reports), reports
        assert one.copies() - {holder.pid} == set()
        one.say("journal")
    acted(one)
    back(one, old)


@pytest.mark.parametrize("how", ["the same command", "another command and another folder"])
def test_a_second_copy_started_by_hand_on_the_same_database_is_brought_back_to_one(make: Make, how: str) -> None:
    one = make()
    first = one.up(trades=1)
    if how == "the same command":
        copy = one.by_hand(*command(one.home / "bot"), cwd=one.home)
    else:
        argv = [str(FREQTRADE), "trade", "-c", "config.json", "--userdir", ".", "-s", "KeeperStrategy"]
        copy = one.by_hand(*argv, cwd=one.home / "bot")
    wait(lambda: one.copies() == {first, copy.pid}, BOOT)
    assert one.ask("ping") == {"status": "pong"}
    found = one.verdict()
    assert found.fault is Fault.BOT_DUPLICATED, found
    assert str(first) in found.sentence
    assert str(copy.pid) in found.sentence
    one.say("check")
    one.say("diagnose", NAME)
    acted(one)
    assert copy.wait(10) is not None
    new = back(one, first)
    assert one.copies() == {new}
    assert one.verdict().status is Status.HEALTHY
    assert missing_from_book(one) == {}


def test_somebody_elses_freqtrade_with_the_very_same_words_in_another_folder_is_left_alone(
    make: Make, tmp_path: Path
) -> None:
    one = make()
    one.type_short()
    furnish(tmp_path / "theirs", one.market, free_port())
    stranger = one.by_hand(*SHORT_COMMAND, cwd=tmp_path / "theirs")
    wait(lambda: (tmp_path / "theirs/tradesv3.dryrun.sqlite").exists(), BOOT)
    pid = one.up(trades=1)
    assert one.copies() == {pid}
    assert one.verdict().status is Status.HEALTHY
    assert one.fleet.desk(Actor.PERSON).stop(NAME, "an evening off").result is Result.DONE
    assert one.copies() == set()
    assert stranger.poll() is None


def vanish(one: Rig) -> None:
    """The database and what belongs to it is gone."""
    for suffix in ("", "-wal", "-shm"):
        one.database.with_name(one.database.name + suffix).unlink(missing_ok=True)


@pytest.mark.parametrize("known", ["from a look", "from a backup only"])
def test_a_database_that_is_gone_is_restored_before_the_bot_trades_on(make: Make, known: str) -> None:
    one = make()
    old = one.up(trades=3)
    if known == "from a look":
        assert one.round().actions == ()
    wait(lambda: holding(one), 20)
    one.kill(old)
    back_up(one)
    before = (one.closed_ids(), one.open_ids())
    vanish(one)
    found = one.verdict()
    assert found.fault is Fault.DATA_CORRUPT, found
    one.say("check")
    report = acted(one)
    assert report.action.value == "restore", report
    one.say("journal")
    new = back(one, old)
    newest = max(before[0] + before[1])
    assert [row[0] for row in one.rows("SELECT id FROM trades ORDER BY id") if row[0] <= newest] == sorted(
        before[0] + before[1]
    )
    assert set(before[0]) <= set(one.closed_ids())
    assert set(before[0] + before[1]) <= one.api_ids()
    assert set(before[1]) <= {row["trade_id"] for row in one.ask("status")} | set(one.closed_ids())  # it trades on
    assert HELD in {row["pair"] for row in one.ask("status")}
    assert one.copies() == {new}
    assert wait(lambda: one.verdict().status is Status.HEALTHY, 30)
    assert missing_from_book(one) == {}


def test_a_bot_that_somebody_started_on_an_empty_database_gets_its_history_back(make: Make) -> None:
    one = make()
    shutil.copyfile(DATA / "freqtrade/tradesv3.dryrun.sqlite", one.database)
    old = one.up(trades=310)
    wait(lambda: holding(one), 20)
    assert one.round().actions == ()
    one.kill(old)
    back_up(one)
    before = (set(one.closed_ids()), set(one.open_ids()))
    vanish(one)
    stray = one.by_hand(*command(one.home / "bot"), cwd=one.home)
    one.wait_for_loop(stray.pid)
    wait(lambda: one.open_ids(), BOOT)  # it trades on, and its ids begin at 1 again
    found = one.verdict()
    assert found.fault is Fault.DATA_CORRUPT, found
    one.say("check")
    one.say("diagnose", NAME)
    report = acted(one)
    assert report.action.value == "restore", report
    one.say("journal")
    new = back(one, old)
    assert stray.wait(20) is not None
    assert one.copies() == {new}
    assert before[0] <= set(one.closed_ids())
    answered = {row["trade_id"]: row for row in one.ask("status")}
    assert before[1] <= answered.keys() | set(one.closed_ids()), "what was open is open, or was sold since"
    assert before[1] & {row["trade_id"] for row in answered.values() if row["pair"] == HELD}


def halve(database: Path) -> None:
    """The second half of the main file is gone; its -wal lies beside it as the killed bot left it."""
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])


def lose_a_page(database: Path) -> None:
    """A page in the middle of a database that was closed in good order is zeros."""
    with closing(sqlite3.connect(database)) as base:
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = base.execute("PRAGMA page_size").fetchone()[0]
        root = base.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trades'").fetchone()[0]
    with database.open("r+b") as file:
        file.seek(size * (root - 1))
        file.write(bytes(size))


@pytest.mark.parametrize("damage", [halve, lose_a_page])
def test_a_restored_database_is_the_one_that_freqtrade_goes_on_with(make: Make, damage: Callable[[Path], None]) -> None:
    one = make()
    old = one.up(trades=5)
    assert [row[0] for row in one.rows("SELECT pair FROM trades WHERE is_open = 1")] == [HELD]
    back_up(one)
    known = set(one.closed_ids())
    one.trade()
    one.kill(old)
    told = one.fills()
    assert len(told.keys() - known) >= 2
    damage(one.database)
    found = one.verdict()
    assert found.fault is Fault.DATA_CORRUPT, found
    one.say("check")
    report = acted(one)
    assert report.action.value == "restore", report
    one.say("journal")
    back(one, old)
    assert profits(one).items() >= told.items()
    assert one.rows("PRAGMA integrity_check") == [("ok",)]
    one.trade()
    assert one.copies() == {one.verdict().pid}


def profits(one: Rig) -> dict[int, Decimal]:
    """Closed trades as the running bot tells them: id -> profit."""
    return {row["trade_id"]: Decimal(str(row["profit_abs"])) for row in one.ask("trades?limit=500")["trades"]}


def test_a_trade_that_was_open_in_the_backup_and_closed_since_is_not_closed_a_second_time(make: Make) -> None:
    one = make()
    old = one.up(trades=0)
    wait(lambda: len(one.open_ids()) > 1, 20)
    back_up(one)
    open_then = set(one.open_ids())
    wait(lambda: len(one.closed_ids()) >= 5, 20)
    one.kill(old)
    told = one.fills()
    assert open_then & told.keys()
    lose_a_page(one.database)
    one.say("check")
    acted(one)
    one.say("journal")
    back(one, old)
    wait(lambda: len(one.closed_ids()) >= 5, 20)
    assert profits(one).items() >= told.items()
    twice = re.findall(r"'type': exit_fill, 'trade_id': (\d+)", one.lines())
    assert sorted(twice) == sorted(set(twice)), "sold twice"


# ---------------------------------------------------------------------------------------------------- people


@pytest.mark.parametrize("where", ["a setting", "the JSON"])
def test_a_mistake_in_its_configuration_is_named_and_no_start_is_repeated(make: Make, where: str) -> None:
    one = make()
    one.edit("bot-not-running", r"up_for: \w+", "up_for: 10s")
    old = one.up(trades=1)
    if where == "a setting":
        one.configure(exit_pricing={"price_side": "same", "use_order_book": True, "order_book_top": 1})
    else:
        path = one.home / "bot/config.json"
        path.write_text(path.read_text().replace('"dry_run": true,', '"dry_run": true'))
    one.kill(old)
    first = one.round().actions
    assert [report.result for report in first] == [Result.FAILED], first
    assert "exit code 0" in first[0].sentence
    found = one.verdict()
    assert found.status is Status.FAULTY
    assert found.causes, found
    assert found.causes[0].klass is CauseClass.STOP
    one.say("check")
    told = one.say("diagnose", NAME)
    assert "onfiguration" in told.splitlines()[0], told
    refused = one.fleet.desk(Actor.PERSON).restart(NAME, "again")
    assert refused.result is Result.REFUSED, refused
    one.say("restart", NAME, "--reason", "again")
    assert not any(report.ok for report in one.round().actions)
    assert one.copies() == set()


@pytest.mark.parametrize(("order", "state"), [("stop", "stopped"), ("stopentry", "paused")])
def test_what_a_person_told_the_bot_itself_survives_a_restart(make: Make, order: str, state: str) -> None:
    one = make()
    old = one.up(trades=1)
    one.ask(order, post=True)
    wait(lambda: one.state() == state, 20)
    if state == "stopped":
        one.wait_for_standing_loop(LOOP_LIMIT + 5)
    found = one.verdict()
    assert (found.status, found.program.state) == (Status.HEALTHY, state), found
    one.say("check")
    count = len(one.closed_ids()) + len(one.open_ids())
    restarted = one.fleet.desk(Actor.PERSON).restart(NAME, "a planned one")
    assert restarted.result in (Result.DONE, Result.VERIFYING), restarted.sentence
    second = back(one, old, state)
    one.kill(second)
    acted(one)
    back(one, second, state)
    if state == "stopped":
        assert len(one.closed_ids()) + len(one.open_ids()) == count
    one.ask("start", post=True)
    wait(lambda: one.state() == "running", 20)
    one.trade()
