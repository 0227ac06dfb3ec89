"""What the freqtrade profile makes of a bot's log, its API, and the processes that claim to be it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep.config import ApiConfig
from botkeep.model import Instance, InstanceState, LogLook, Mark, ProgramLook
from botkeep.profiles import PROFILES, Hints, Subject, freqtrade, recognised
from support import namespaces
from support.freqtrade_api import ASKED_AT, NOT_READY, PASSWORD, USER, FreqtradeApi, freqtrade_api, http

NOW = ASKED_AT
STARTED = datetime(2026, 11, 21, 9, 21, 4, tzinfo=UTC)
"""Of the process; by the samples its main loop began at 09:21:11."""
OURS = os.getpid()
NOBODY = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
KEYS = {"FT_USER": USER, "FT_PASSWORD": PASSWORD}
SETTINGS: dict[str, Any] = {"username_env": "FT_USER", "password_env": "FT_PASSWORD"}
THREE = ["GET show_config", "GET health", "GET count"]


def instance(*members: int, started: datetime | None = STARTED) -> Instance:
    """A copy of the bot; of this very process, which the API on loopback belongs to, if no pids are given."""
    pids = members or (OURS,)
    return Instance("key", pids[0], InstanceState.RUNNING, started, True, "recorded", pids)


def subject(api: FreqtradeApi | None = None, *marks: Mark, **more: Any) -> Subject:
    """A bot at the moment of the samples, with these marks in its log."""
    settings = ApiConfig(url=api.url, **SETTINGS) if api else None
    log = LogLook(marks={mark.id: mark for mark in marks})
    given = {"log": log, "settings": settings, "secret": KEYS.get, "instances": (instance(),), "seconds": 20.0, **more}
    return Subject("doge", NOW, **given)


def look(api: FreqtradeApi | None = None, *marks: Mark, **more: Any) -> ProgramLook:
    return freqtrade.look(subject(api, *marks, **more))


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def beats(*who: tuple[int, datetime], state: str = "RUNNING", gaps: tuple[float, ...] = (), **more: Any) -> Mark:
    """Heartbeats in the log: (pid, time of its newest), the newest first."""
    pid, at = who[0]
    values = {"who": str(pid), "version": "2026.9", "strategy_version": "rig-1", "state": state}
    told = tuple((str(one), when) for one, when in who)
    return Mark("heartbeat", at, values, 9, STARTED, gaps=gaps, who=told, **more)


def changed(state: str, at: datetime, **more: Any) -> Mark:
    return Mark("state-changed", at, {"state": state}, 1, at, **more)


@pytest.fixture
def api() -> Iterator[FreqtradeApi]:
    with freqtrade_api() as one:
        yield one


# -------------------------------------------------------------------------------------------------------- recognised


@pytest.mark.parametrize(
    "command",
    ["freqtrade trade", "/opt/ft/bin/freqtrade trade --config c.json", "python -m freqtrade trade -c x",
     "python3.11 /opt/ft/bin/freqtrade trade", "python freqtrade/main.py trade", "env A=b nice freqtrade trade",
     "poetry run freqtrade trade", "docker run freqtradeorg/freqtrade:stable trade"],
)  # fmt: skip
def test_a_freqtrade_is_recognised_by_its_command(command: str) -> None:
    hints = Hints(command=tuple(command.split()))
    assert recognised(hints) == ("freqtrade", "its command is freqtrade trade")


def test_a_freqtrade_within_a_shells_command_is_recognised() -> None:
    assert freqtrade.recognise(Hints(command=("bash", "-c", "cd /opt/freqtrade && exec freqtrade trade -c a.json")))
    assert freqtrade.recognise(Hints(command=("sh", "-c", "(freqtrade trade)")))


@pytest.mark.parametrize(
    "command",
    ["freqtrade backtesting -c x", "freqtrade webserver", "python -m freqtrade download-data", "freqtrade",
     "python bot.py", "python trade.py freqtrade", "myfreqtrade trade", "freqtrade-ui trade", "vim freqtrade trade.py"],
)  # fmt: skip
def test_another_command_is_none(command: str) -> None:
    assert freqtrade.recognise(Hints(command=tuple(command.split()))) is None


def test_freqtrade_that_does_something_else_is_no_bot_whatever_its_files_are_called() -> None:
    hints = Hints(("freqtrade", "webserver"), "freqtrade", Path("/b/tradesv3.sqlite"), " - freqtrade.worker - INFO - x")
    assert freqtrade.recognise(hints) is None


@pytest.mark.parametrize(
    ("hints", "why"),
    [
        (Hints(data_file=Path("/b/tradesv3.sqlite")), "its data file is called tradesv3.sqlite"),
        (Hints(data_file=Path("/b/tradesv3.dryrun.sqlite")), "its data file is called tradesv3.dryrun.sqlite"),
        (Hints(data_file=Path("/b/tradesv3_doge-2.sqlite")), "its data file is called tradesv3_doge-2.sqlite"),
        (Hints(log_head="2026-11-21 09:21:10,002 - freqtrade.loggers - INFO - Logfile configured"),
         "its log has freqtrade's loggers"),
        (Hints(log_head="freqtrade  | 2026-11-21 10:06:44,293 - freqtrade - INFO - freqtrade 2026.9"),
         "its log has freqtrade's loggers"),
        (Hints(process_name="freqtrade"), "its process is called freqtrade"),
        (Hints(("./start.sh",), data_file=Path("/b/tradesv3.sqlite")), "its data file is called tradesv3.sqlite"),
    ],
)  # fmt: skip
def test_without_a_command_that_tells_files_and_names_do(hints: Hints, why: str) -> None:
    assert recognised(hints) == ("freqtrade", why)


@pytest.mark.parametrize(
    "hints",
    [Hints(data_file=Path("/b/trades.sqlite")), Hints(data_file=Path("/b/mytradesv3.sqlite")),
     Hints(data_file=Path("/b/tradesv3.csv")), Hints(log_head="2026-11-21 INFO freqtrade is better"),
     Hints(log_head="2026-11-21 - hummingbot.core - INFO - a"), Hints(process_name="freqtrade2"), Hints()],
)  # fmt: skip
def test_what_only_resembles_it_is_plain(hints: Hints) -> None:
    assert freqtrade.recognise(hints) is None


def test_its_catalogue_holds_what_it_looks_for_and_everything_of_any_program() -> None:
    assert {"heartbeat", "state-changed", "runmode", "exchange"} <= {one.id for one in freqtrade.catalogue().marks}
    assert set(PROFILES["plain"].signatures()) <= set(freqtrade.signatures())


# --------------------------------------------------------------------------------------------------------- by its API


def test_a_running_bot_is_seen_in_four_questions(api: FreqtradeApi) -> None:
    seen = look(api)
    assert (seen.state, seen.state_from, seen.api, seen.api_rule) == ("running", "api", "", "ok")
    assert (seen.loop_known, seen.loop_at) == (True, datetime(2026, 11, 21, 10, 21, 28, tzinfo=UTC))
    assert seen.booted_at == datetime(2026, 11, 21, 9, 21, 11, tzinfo=UTC)
    assert (seen.version, seen.exchange, seen.paper, seen.open_trades) == ("2026.9", "binance", True, 4)
    assert [one.symbol for one in seen.positions or ()] == ["ETH/USDT", "XRP/USDT", "ADA/USDT", "DOGE/USDT"]
    assert (seen.notes, seen.cursor, seen.others) == ((), {}, ())
    assert api.asked == [*THREE, "GET status"]


def test_without_open_trades_three_questions_are_enough(api: FreqtradeApi) -> None:
    api.says("count", {"current": 0, "max": 6, "total_stake": 0})
    seen = look(api)
    assert (seen.open_trades, seen.positions, api.asked) == (0, (), THREE)


def test_a_bot_without_a_configured_api_is_not_asked(api: FreqtradeApi) -> None:
    for settings in (None, ApiConfig()):
        seen = look(None, settings=settings)
        assert (seen.api, seen.api_rule, seen.state, seen.loop_known) == ("", "", "", False)
    assert api.asked == []


def test_before_the_first_loop_is_done_it_is_known_that_it_is_not(api: FreqtradeApi) -> None:
    api.healthy(last_process_ts=None)
    seen = look(api)
    assert (seen.state, seen.loop_known, seen.loop_at, seen.open_trades) == ("running", True, None, 4)


def test_a_paused_bot_is_paused(api: FreqtradeApi) -> None:
    api.configured(state="paused")
    assert (look(api).state, api.asked) == ("paused", [*THREE, "GET status"])


def test_a_stopped_bot_refuses_to_count_and_is_asked_for_its_open_trades_at_once(api: FreqtradeApi) -> None:
    api.configured(state="stopped")
    api.sends("count", http(b'{"error":"Error querying /api/v1/count: trader is not running"}', "502 Bad Gateway"))
    seen = look(api, changed("STOPPED", ago(minutes=3)))
    assert (seen.state, seen.api_rule, seen.open_trades, len(seen.positions or ())) == ("stopped", "ok", 4, 4)
    assert (api.asked, seen.notes) == (["GET show_config", "GET health", "GET status"], ())


@pytest.mark.parametrize("state", ["", "reload_config"])
def test_a_bot_that_starts_or_reads_its_configuration_is_asked_no_more(api: FreqtradeApi, state: str) -> None:
    api.configured(state=state)
    seen = look(api)
    assert (seen.state, seen.api_rule, api.asked) == ("starting", "not-ready", ["GET show_config"])
    assert (seen.version, seen.loop_known) == ("2026.9", False)


def test_an_api_that_is_not_ready_belongs_to_a_bot_that_starts_or_stops(api: FreqtradeApi) -> None:
    api.sends("health", http(NOT_READY, "502 Bad Gateway"))
    seen = look(api)
    assert (seen.state, seen.state_from, seen.api_rule) == ("starting", "api", "not-ready")
    assert seen.api == "it is starting or stopping, and answers nothing yet."


def test_a_state_of_a_newer_freqtrade_is_a_note(api: FreqtradeApi) -> None:
    api.configured(state="hibernating")
    seen = look(api)
    assert (seen.state, seen.state_from, seen.api_rule) == ("", "", "ok")
    assert seen.notes == ("its API says that it is hibernating, a state that botkeep does not know.",)


def test_a_freqtrade_that_only_serves_its_web_page_trades_nothing(api: FreqtradeApi) -> None:
    api.configured(runmode="webserver", state="")
    seen = look(api)
    assert (seen.state, seen.api_rule) == ("", "status")
    assert seen.api == "it is a freqtrade in mode webserver, which trades nothing."


# ---------------------------------------------------------------------------- stopped, or only loading its pairs


def stopped(api: FreqtradeApi, **health: Any) -> None:
    """As the API answers before the first list of pairs is loaded, and after a start into `stopped`."""
    api.configured(state="stopped")
    api.healthy(last_process_ts=None, **health)


def test_a_bot_that_loads_its_pairs_says_stopped_and_is_only_starting(api: FreqtradeApi) -> None:
    stopped(api, bot_startup_ts=int(ago(days=1).timestamp()))
    for text in ("Starting worker 2026.9", ""):
        api.logged(text)
        seen = look(api, instances=(instance(started=ago(seconds=9)),))
        assert (seen.state, seen.booted_at, seen.open_trades) == ("starting", None, None)


@pytest.mark.parametrize("text", ["Changing state to: STOPPED", "Bot heartbeat. PID=7, version='2026.9', state='x'"])
def test_a_bot_whose_worker_has_spoken_is_stopped(api: FreqtradeApi, text: str) -> None:
    stopped(api)
    api.logged("Starting worker 2026.9", text)
    assert look(api, instances=(instance(started=ago(seconds=9)),)).state == "stopped"


def test_a_main_loop_that_was_done_tells_that_it_is_stopped(api: FreqtradeApi) -> None:
    api.configured(state="stopped")
    assert look(api).state == "stopped"
    assert "GET logs?limit=100" not in api.asked


def test_a_log_that_says_stopped_saves_the_question(api: FreqtradeApi) -> None:
    stopped(api)
    for mark in (changed("STOPPED", ago(seconds=2)), beats((OURS, ago(seconds=2)), state="STOPPED")):
        assert look(api, mark).state == "stopped"
    assert api.asked.count("GET show_config") == 2


def test_a_stopped_word_of_the_process_before_is_not_this_ones(api: FreqtradeApi) -> None:
    stopped(api)
    api.logged("Starting worker 2026.9")
    before = changed("STOPPED", ago(seconds=30))
    assert look(api, before, instances=(instance(started=ago(seconds=9)),)).state == "starting"


def test_a_bot_that_reads_its_configuration_again_is_starting(api: FreqtradeApi) -> None:
    stopped(api)
    api.logged("Changing state to: RUNNING", "Changing state from RUNNING to: RELOAD_CONFIG")
    assert look(api, changed("RUNNING", ago(minutes=9))).state == "starting"


def test_one_that_began_while_it_was_asked_is_asked_again(api: FreqtradeApi) -> None:
    stopped(api)

    def begin(connection: socket.socket) -> None:
        api.configured(state="running")
        row = ["", 1795256488000, "freqtrade.worker", "INFO", "Changing state to: RUNNING"]
        connection.sendall(http(str({"logs": [row]}).replace("'", '"').encode()))

    api.does("logs?limit=100", begin)
    assert look(api, instances=(instance(started=ago(seconds=9)),)).state == "running"


def test_an_old_process_that_remembers_no_word_of_its_worker_is_stopped(api: FreqtradeApi) -> None:
    stopped(api)
    api.logged("Wallets synced.", logger="freqtrade.wallets")
    assert look(api).state == "stopped"
    assert look(api, instances=(instance(started=ago(minutes=9)),)).state == "starting"


def test_a_stopped_that_cannot_be_proven_is_not_told(api: FreqtradeApi) -> None:
    stopped(api)
    api.sends("health", http(b"", "500 Internal Server Error"))
    seen = look(api)
    assert (seen.state, seen.state_from, seen.api_rule) == ("", "", "status")


# ------------------------------------------------------------------------------------------------------------- times


def test_the_startup_that_its_database_kept_of_an_earlier_process_is_not_this_ones(api: FreqtradeApi) -> None:
    assert look(api, instances=(instance(started=ago(minutes=20)),)).booted_at is None
    assert look(api, instances=(instance(started=None),)).booted_at is not None


def test_its_first_start_ever_is_not_when_it_booted(api: FreqtradeApi) -> None:
    api.healthy(bot_start_ts=int(ago(minutes=1).timestamp()))
    assert look(api).booted_at == datetime(2026, 11, 21, 9, 21, 11, tzinfo=UTC)


@pytest.mark.parametrize("key", ["last_process_ts", "bot_startup_ts"])
def test_times_of_the_future_are_a_note_and_are_not_used(api: FreqtradeApi, key: str) -> None:
    api.healthy(**{key: int(ago(minutes=-2).timestamp())})
    seen = look(api)
    assert (seen.loop_known, seen.loop_at, seen.booted_at, seen.api_rule) == (False, None, None, "ok")
    assert seen.notes == (
        "its API gives a time in the future (2026-11-21T10:23:30.000000Z), so its times are not used.",
    )


def test_a_clock_that_is_a_little_ahead_is_now(api: FreqtradeApi) -> None:
    api.healthy(last_process_ts=int(ago(seconds=-40).timestamp()))
    assert look(api).loop_at == NOW


# ------------------------------------------------------------------------------------------------------- open trades


def test_a_bot_that_waits_for_its_exchange_is_not_made_to_ask_for_prices(api: FreqtradeApi) -> None:
    api.healthy(last_process_ts=int(ago(minutes=6).timestamp()))
    seen = look(api)
    assert (seen.open_trades, seen.positions, api.asked) == (4, None, THREE)


def test_a_count_that_fails_is_a_note_and_not_the_apis_failure(api: FreqtradeApi) -> None:
    api.sends("count", http(b"", "500 Internal Server Error"))
    seen = look(api)
    assert (seen.api, seen.api_rule, seen.state, seen.open_trades, seen.positions) == ("", "ok", "running", None, None)
    assert seen.notes == ("its open trades could not be read: it answers 500 to count.",)


def test_open_trades_that_take_too_long_are_not_asked_for_again_at_once(api: FreqtradeApi) -> None:
    api.hangs("status")
    seen = look(api, seconds=1.0)
    assert (seen.state, seen.api_rule, seen.open_trades, seen.positions) == ("running", "ok", 4, None)
    assert seen.notes == ("its open trades could not be read: no complete answer within 1 s.",)
    api.asked.clear()
    again = look(api, cursor=seen.cursor)
    assert (again.open_trades, again.positions, again.cursor, api.asked) == (4, None, seen.cursor, THREE)
    api.says("status", [])
    later = freqtrade.look(replace(subject(api, cursor=seen.cursor), now=NOW + timedelta(minutes=5, seconds=1)))
    assert later.cursor == {}


@pytest.mark.parametrize(
    "cursor", [{"status_after": "soon"}, {"status_after": 5}, {"status_after": "2099-01-01T00:00Z"}]
)
def test_a_cursor_that_says_nonsense_keeps_nobody_from_asking(api: FreqtradeApi, cursor: Mapping[str, Any]) -> None:
    assert len(look(api, cursor=cursor).positions or ()) == 4


# ----------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("settings", "known", "text"),
    [
        ({}, {}, "Write api.username_env and api.password_env into config/bots.json: the names of the variables that "
                 "hold the user name and the password of its api_server."),
        (SETTINGS, {}, "Set FT_USER and FT_PASSWORD in the bot's env file or where botkeep runs."),
        (SETTINGS, {"FT_USER": USER}, "Set FT_PASSWORD in the bot's env file or where botkeep runs."),
        (SETTINGS, {**KEYS, "FT_PASSWORD": "old"},
         "FT_USER and FT_PASSWORD are not the user name and password of its api_server."),
    ],
)  # fmt: skip
def test_one_that_does_not_know_us_is_told_with_what_to_set(
    api: FreqtradeApi, settings: dict[str, Any], known: dict[str, str], text: str
) -> None:
    seen = look(None, settings=ApiConfig(url=api.url, **settings), secret=known.get)
    assert (seen.state, seen.api_rule) == ("", "unauthorized")
    assert seen.api == f"it answers 401, so it does not know us. {text}"


def test_an_api_that_is_gone_leaves_what_the_log_says(api: FreqtradeApi) -> None:
    api.close()
    seen = look(api, beats((OURS, ago(seconds=5)), state="PAUSED"))
    assert (seen.state, seen.state_from, seen.api_rule, seen.heartbeat_pid) == ("paused", "log", "refused", OURS)


def test_a_dead_bots_port_is_not_asked(api: FreqtradeApi) -> None:
    seen = look(api, beats((NOBODY, ago(minutes=5))), instances=())
    assert (seen.state, seen.api_rule, seen.others, api.asked) == ("", "", (), [])


def test_all_questions_together_take_no_longer_than_they_may(api: FreqtradeApi) -> None:
    api.hangs("health")
    seen = look(api, seconds=0.5)
    assert (seen.state, seen.api, seen.api_rule) == ("running", "no complete answer within 0.5 s.", "timeout")


# --------------------------------------------------------------------------------------------------------- by its log


def test_the_newest_heartbeat_of_our_own_copy_is_told() -> None:
    seen = look(None, beats((OURS, ago(seconds=20)), gaps=(60.0, 61.0, 5.0, 60.2)))
    assert (seen.heartbeat_at, seen.heartbeat_pid) == (ago(seconds=20), OURS)
    assert seen.heartbeat_every == timedelta(seconds=60.1)
    assert (seen.state, seen.state_from, seen.version) == ("running", "log", "2026.9")


def test_two_gaps_are_too_few_to_tell_how_often_it_beats() -> None:
    assert look(None, beats((OURS, ago(seconds=20)), gaps=(60.0, 60.0))).heartbeat_every is None


def test_two_copies_that_beat_in_turn_do_not_tell_how_often_one_does() -> None:
    for ended, every in ((ago(minutes=4), None), (ago(minutes=11), timedelta(seconds=60))):
        mark = beats((OURS, ago(seconds=20)), (NOBODY, ended), gaps=(60.0,) * 9)
        assert look(None, mark).heartbeat_every == every


def test_another_copys_heartbeats_do_not_hide_that_ours_is_silent() -> None:
    with a_process("-c", "input()") as bot:
        mark = beats((NOBODY, ago(seconds=5)), (bot.pid, ago(minutes=9)), state="PAUSED", gaps=(60.0,) * 10)
        seen = look(None, mark, instances=(instance(bot.pid),))
    assert (seen.heartbeat_at, seen.heartbeat_pid, seen.heartbeat_every) == (ago(minutes=9), bot.pid, None)
    assert (seen.state, seen.state_from) == ("", "")


def test_a_heartbeat_of_a_process_before_ours_is_not_ours_though_it_has_the_same_pid() -> None:
    seen = look(None, beats((OURS, ago(minutes=2))), instances=(instance(started=ago(minutes=1)),))
    assert (seen.heartbeat_at, seen.heartbeat_pid, seen.state) == (None, None, "")


def test_marks_of_the_run_that_died_are_not_this_runs() -> None:
    seen = look(None, beats((OURS, ago(seconds=2)), this_run=False), changed("RUNNING", ago(seconds=3), this_run=False))
    assert (seen.heartbeat_at, seen.state, seen.version) == (None, "", "")


def test_a_log_of_the_future_is_a_note() -> None:
    seen = look(None, beats((OURS, ago(hours=-2))))
    assert (seen.heartbeat_at, seen.heartbeat_pid) == (None, None)
    (note,) = seen.notes
    assert note == (
        "its log is dated in the future (2026-11-21T12:21:30.000000Z): see `timezone` of the bot in config/bots.json."
    )


@pytest.mark.parametrize(
    ("beat", "change", "state"),
    [("RUNNING", "STOPPED", "stopped"), ("PAUSED", "RELOAD_CONFIG", "starting"), ("RUNNING", "DREAMING", "running"),
     ("STOPPED", "PAUSED", "paused")],
)  # fmt: skip
def test_the_newest_word_of_the_log_is_its_state(beat: str, change: str, state: str) -> None:
    seen = look(None, beats((OURS, ago(seconds=9)), state=beat), changed(change, ago(seconds=1)))
    assert (seen.state, seen.state_from) == (state, "log")


def test_the_log_tells_exchange_and_paper_where_the_api_does_not() -> None:
    def told(exchange: str, runmode: str) -> tuple[str, bool | None]:
        marks = (Mark("exchange", STARTED, {"exchange": exchange}, 1, STARTED),
                 Mark("runmode", STARTED, {"runmode": runmode}, 1, STARTED))  # fmt: skip
        seen = look(None, *marks)
        return seen.exchange, seen.paper

    assert told("Binance", "dry_run") == ("binance", True)
    assert told("Gate.io", "live") == ("", False)
    assert told("", "other") == ("", None)


def test_without_a_log_nothing_is_told() -> None:
    assert look(None, log=None) == ProgramLook()
    assert look(None, log=LogLook(problem="it cannot be read")) == ProgramLook()


# ------------------------------------------------------------------------------------------------------------- its WAL


def test_the_growth_of_its_wal_is_progress_and_the_age_of_the_database_is_not(tmp_path: Path) -> None:
    data = tmp_path / "tradesv3.sqlite"
    data.touch()
    assert look(None, data_file=data).progress == ()
    wal = tmp_path / "tradesv3.sqlite-wal"
    wal.touch()
    os.utime(wal, (ago(seconds=7).timestamp(),) * 2)
    (sign,) = look(None, data_file=data).progress
    assert (sign.source, sign.at, sign.normal, sign.samples) == ("wal", ago(seconds=7), None, 0)
    os.utime(wal, (ago(hours=-1).timestamp(),) * 2)
    assert look(None, data_file=data).progress[0].at == NOW


def test_a_wal_that_is_no_file_is_no_progress(tmp_path: Path) -> None:
    (tmp_path / "tradesv3.sqlite-wal").mkdir()
    assert look(None, data_file=tmp_path / "tradesv3.sqlite").progress == ()


# ------------------------------------------------------------------------------------------------------- other copies

WRITER = """
import socket, sys
files = [open(name, "ab") for name in sys.argv[2:]]
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def a_process(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A python of its own, until the end."""
    command = [sys.executable, *argv]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


@contextmanager
def a_copy(folder: Path, *argv: str, wrapper: tuple[str, ...] = ()) -> Iterator[tuple[int, int]]:
    """(pid, port) of a process that is called as freqtrade is, has files open for writing, and listens."""
    script = folder / "freqtrade"
    script.write_text(WRITER)
    command = [*wrapper, sys.executable, str(script), *argv]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """The data file and the log of the bot."""
    found = {"data_file": tmp_path / "tradesv3.sqlite", "log_file": tmp_path / "freqtrade.log"}
    for path in found.values():
        path.touch()
    return found


@pytest.mark.parametrize("name", ["data_file", "log_file"])
def test_a_living_freqtrade_that_beats_in_our_log_and_writes_our_files_is_another_copy(
    tmp_path: Path, files: dict[str, Any], name: str
) -> None:
    with a_process("-c", "input()") as bot:
        with a_copy(tmp_path, "trade", str(files[name])) as (pid, _):

            def others(mark: Mark, *ours: int) -> tuple[int, ...]:
                return look(None, mark, instances=(instance(*ours),), **files).others

            assert others(beats((bot.pid, ago(seconds=5)), (pid, ago(seconds=170))), bot.pid) == (pid,)
            assert others(beats((bot.pid, ago(seconds=5)), (pid, ago(seconds=190))), bot.pid) == ()
            assert others(beats((pid, ago(seconds=25)), gaps=(10.0,) * 9), bot.pid) == (pid,)
            assert others(beats((pid, ago(seconds=35)), gaps=(10.0,) * 9), bot.pid) == ()
            beating = beats((pid, ago(seconds=5)))
            assert others(beating, pid) == others(beating, OURS) == ()  # ours, or a child of ours
        assert look(None, beating, instances=(instance(bot.pid),), **files).others == ()


def test_a_pid_that_is_used_again_by_another_program_is_no_copy(tmp_path: Path, files: dict[str, Any]) -> None:
    """What beat in the log is gone: a program with its pid is another one, or a freqtrade with files of its own."""
    with a_process("-c", "input()") as bot:
        for argv in (("trade",), ("backtesting", str(files["data_file"]))):
            with a_copy(tmp_path, *argv) as (pid, _):
                seen = look(None, beats((pid, ago(seconds=5))), instances=(instance(bot.pid),), **files)
                assert seen.others == ()


def test_a_copy_that_holds_the_port_is_found_by_that(tmp_path: Path, files: dict[str, Any]) -> None:
    with a_copy(tmp_path, "trade", str(files["data_file"])) as (pid, port), a_process("-c", "input()") as bot:
        settings = ApiConfig(url=f"http://127.0.0.1:{port}")
        seen = look(None, settings=settings, instances=(instance(bot.pid),), **files)
        assert (seen.api_rule, seen.others, seen.loop_known) == ("wrong-owner", (pid,), False)
        assert seen.api.startswith(f"port {port} belongs to pid {pid} ")
        dead = look(None, settings=settings, instances=(), **files)
        assert (dead.api_rule, dead.others) == ("", (pid,))
        elsewhere = look(None, settings=settings, instances=(instance(bot.pid),))
        assert (elsewhere.api_rule, elsewhere.others) == ("wrong-owner", ())


# ------------------------------------------------------------------------------------------------------- hold, resume


def test_a_running_bot_is_asked_to_open_nothing_new(api: FreqtradeApi) -> None:
    api.obeys()
    assert freqtrade.hold_entries(subject(api)) is None
    assert api.asked == ["GET show_config", "POST pause", "GET show_config"]
    assert freqtrade.resume_entries(subject(api)) is None
    assert api.asked[3:] == ["GET show_config", "POST start", "GET show_config"]
    assert look(api).state == "running"


def test_a_stopped_bot_is_not_told_to_pause_for_that_would_start_it(api: FreqtradeApi) -> None:
    api.obeys()
    api.configured(state="stopped")
    assert freqtrade.hold_entries(subject(api)) is None
    assert freqtrade.resume_entries(subject(api)) == "it is stopped"
    assert not [one for one in api.asked if one.startswith("POST")]


def test_a_paused_bot_is_held_already(api: FreqtradeApi) -> None:
    api.obeys()
    api.configured(state="paused")
    assert freqtrade.hold_entries(subject(api)) is None
    assert api.asked == ["GET show_config"]


def test_a_running_bot_needs_no_resuming(api: FreqtradeApi) -> None:
    api.obeys()
    assert freqtrade.resume_entries(subject(api)) is None
    assert api.asked == ["GET show_config"]


def test_a_bot_that_only_loads_its_pairs_cannot_be_held(api: FreqtradeApi) -> None:
    api.obeys()
    stopped(api)
    api.logged("Starting worker 2026.9")
    assert freqtrade.hold_entries(subject(api)) == "it is starting or stopping"
    api.configured(state="reload_config")
    assert freqtrade.hold_entries(subject(api)) == "it is starting or stopping"
    api.configured(state="")
    assert freqtrade.resume_entries(subject(api)) == "it is starting or stopping"


def test_a_hold_that_was_taken_and_not_done_is_told(api: FreqtradeApi) -> None:
    api.says("pause", {"status": "paused"}, "POST")
    assert freqtrade.hold_entries(subject(api)) == "it took pause, and still says that it is running"
    api.configured(state="paused")
    api.says("start", {"status": "starting"}, "POST")
    assert freqtrade.resume_entries(subject(api)) == "it took start, and still says that it is paused"


def test_an_older_freqtrade_allows_itself_no_open_trades_until_it_reads_its_configuration(api: FreqtradeApi) -> None:
    api.configured(version="2024.11")

    def stop_entry(connection: socket.socket) -> None:
        api.configured(version="2024.11", max_open_trades=0)
        connection.sendall(http(b'{"status": "No more entries will occur from now."}'))

    api.does("stopentry", stop_entry, "POST")
    api.says("reload_config", {"status": "Reloading config ..."}, "POST")
    assert freqtrade.hold_entries(subject(api)) is None
    assert freqtrade.resume_entries(subject(api)) is None
    assert [one for one in api.asked if one.startswith("POST")] == [
        "POST pause", "POST stopentry", "POST reload_config",
    ]  # fmt: skip


def test_a_bot_that_may_open_no_trades_by_its_configuration_is_not_made_to_read_it_again(api: FreqtradeApi) -> None:
    api.configured(max_open_trades=0)
    assert freqtrade.resume_entries(subject(api)) is None
    assert api.asked == ["GET show_config"]


Asked = Callable[[Subject], str | None]


@pytest.mark.parametrize("ask", [freqtrade.hold_entries, freqtrade.resume_entries])
def test_why_it_could_not_be_asked_is_a_clause(api: FreqtradeApi, ask: Asked) -> None:
    assert ask(subject()) == "config/bots.json has no api.url for it"
    assert ask(subject(api, instances=())) == "nothing of it runs"
    mend = "Set FT_USER and FT_PASSWORD in the bot's env file or where botkeep runs"
    assert ask(subject(api, secret={}.get)) == f"it answers 401, so it does not know us. {mend}"


@pytest.mark.parametrize(
    ("state", "variables"),
    [("paused", {"FREQTRADE__INITIAL_STATE": "paused"}), ("stopped", {"FREQTRADE__INITIAL_STATE": "stopped"}),
     ("running", {}), ("starting", {}), ("", {})],
)  # fmt: skip
def test_a_start_comes_up_in_the_state_in_which_a_person_left_it(state: str, variables: dict[str, str]) -> None:
    assert freqtrade.environment(state) == variables


# ------------------------------------------------------------------------------------------------------- sign of life


def lives(bot: Subject, one: Instance | None = None) -> bool | None:
    return freqtrade.sign_of_life(bot, one or bot.instances[0])


def test_a_heartbeat_of_its_own_pid_since_it_was_started_is_a_sign_of_life() -> None:
    assert lives(subject(None, beats((OURS, STARTED + timedelta(seconds=8))))) is True
    assert lives(subject(None, beats((OURS, STARTED - timedelta(seconds=1))))) is False
    assert lives(subject(None, beats((OURS, NOW), this_run=False))) is False


def test_a_heartbeat_of_another_copy_is_no_sign_of_life(tmp_path: Path) -> None:
    with a_copy(tmp_path, "trade") as (pid, _):
        bot = subject(None, beats((NOBODY, NOW)), instances=(instance(pid),))
        assert lives(bot) is False
        assert (
            lives(replace(bot, log=LogLook(marks={"heartbeat": beats((NOBODY, NOW), (pid, ago(seconds=9)))}))) is True
        )


def test_a_heartbeat_of_a_process_that_ours_started_is_ours() -> None:
    with a_process("-c", "input()") as child:
        assert lives(subject(None, beats((child.pid, NOW)))) is True


def test_inside_a_container_it_is_called_by_another_pid(tmp_path: Path) -> None:
    if not namespaces.available():
        pytest.skip(namespaces.WHY_NOT)
    wrapper = tuple(namespaces._unshare() or ())
    with a_copy(tmp_path, "trade", wrapper=wrapper) as (outer, _):
        inner = int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])
        bot = subject(None, beats((1, NOW)), instances=(instance(inner),))
        assert lives(bot) is True
        assert freqtrade.look(bot).heartbeat_pid == 1
        by_hand = replace(bot, log=LogLook(marks={"heartbeat": beats((NOBODY, NOW), (1, ago(seconds=50)))}))
        assert freqtrade.look(by_hand).heartbeat_at == ago(seconds=50)
        behind_an_init = replace(bot, log=LogLook(marks={"heartbeat": beats((7, NOW))}))
        assert lives(behind_an_init) is True


def test_where_pids_cannot_be_compared_a_heartbeat_since_the_start_is_enough() -> None:
    """Its engine runs on another machine, or botkeep in a container of its own."""
    far = Instance("key", None, InstanceState.RUNNING, STARTED, True, "engine")
    assert lives(subject(None, beats((1, NOW)), instances=(far,))) is True
    assert lives(subject(None, beats((1, STARTED - timedelta(seconds=9))), instances=(far,))) is False


def test_with_heartbeats_switched_off_the_first_change_of_state_has_to_do() -> None:
    assert lives(subject(None, changed("RUNNING", STARTED + timedelta(seconds=7)))) is True
    assert lives(subject(None, changed("RUNNING", STARTED - timedelta(seconds=7)))) is False
    assert lives(subject(None)) is False
    both = (changed("RUNNING", NOW), beats((NOBODY, ago(hours=2)), this_run=False))
    assert lives(subject(None, *both)) is False


def test_without_a_log_its_own_api_says_when_it_booted(api: FreqtradeApi) -> None:
    bot = subject(api, log=None)
    assert lives(bot) is True
    assert lives(bot, instance(started=ago(minutes=5))) is False
    api.healthy(bot_startup_ts=int(ago(hours=-1).timestamp()))
    assert lives(bot) is False


def test_a_bot_that_came_up_stopped_says_so_itself(api: FreqtradeApi) -> None:
    stopped(api, bot_startup_ts=int(ago(days=1).timestamp()))
    bot = subject(api, log=None, instances=(instance(started=ago(seconds=9)),))
    api.logged("Starting worker 2026.9")
    assert lives(bot) is False
    api.logged("Changing state to: STOPPED")
    assert lives(bot) is True


def test_an_api_of_somebody_else_is_no_sign_of_life(api: FreqtradeApi) -> None:
    with a_process("-c", "input()") as bot:
        assert lives(subject(api, log=None, instances=(instance(bot.pid),))) is False


def test_an_api_that_does_not_answer_yet_may_still_do_so(api: FreqtradeApi) -> None:
    api.sends("health", http(NOT_READY, "502 Bad Gateway"))
    assert lives(subject(api, log=None)) is False
    api.close()
    assert lives(subject(api, log=None)) is False


def test_where_neither_log_nor_api_can_tell_nothing_is_said(api: FreqtradeApi) -> None:
    assert lives(subject(None, log=None)) is None
    assert lives(subject(api, log=None, secret={}.get)) is None
    assert lives(subject(api, log=LogLook(problem="it cannot be read"), instances=(instance(started=None),))) is None
