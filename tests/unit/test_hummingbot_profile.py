"""Hummingbot seen through its log, its own command and its heartbeat: real processes, a real broker, real databases."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep import replay
from botkeep.causes import read_log
from botkeep.config import ApiConfig, MqttConfig
from botkeep.formats import FORMATS, FormatOptions
from botkeep.model import Instance, InstanceState, LogLook, Mark, ProgramLook, Progress
from botkeep.profiles import PROFILES, Hints, Subject, hummingbot, hummingbot_cli, hummingbot_conf, hummingbot_log
from support import namespaces
from support.broker import PASSWORD, USER, Broker, Publisher, broker
from support.fleet import alive, wait_for
from support.formats.sqlite import Writer
from support.hummingbot_install import NAME, Install, install

DATA = Path(__file__).resolve().parents[1] / "data" / "hummingbot"
START_LOG = DATA / "log-without-events.log"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ENOUGH = 20.0
"""Seconds that no healthy answer takes."""


def ago(seconds: float, now: datetime = NOW) -> datetime:
    return now - timedelta(seconds=seconds)


def mark(name: str, at: datetime, *, gaps: Sequence[float] = (), **more: Any) -> Mark:
    return Mark(name, at, {}, more.pop("count", 1), at, gaps=tuple(gaps), **more)


def log(
    silent: float, *, pauses: Sequence[float] = (), marks: Sequence[Mark] = (), now: datetime | None = None
) -> LogLook:
    """A log that has said nothing for so many seconds, and whose own pauses were these."""
    at = ago(silent, now or datetime.now(UTC))
    return LogLook(marks={one.id: one for one in marks}, newest_line_at=at, mtime=at, gaps=tuple(pauses))


def subject(**how: Any) -> Subject:
    return Subject(**{"bot": "mm", "now": NOW, "seconds": ENOUGH, **how})


def running(pid: int | None = None) -> Instance:
    """An instance of which nobody asks more than that it runs."""
    return Instance("k", pid or os.getpid(), InstanceState.RUNNING, ago(3600), True, "command", (pid or os.getpid(),))


def see(one: Install, instance: Instance, **how: Any) -> ProgramLook:
    """A look at the bot of an install, now."""
    options = {
        "now": datetime.now(UTC), "instances": (instance,), "cwd": one.home, "data_file": one.data, "log_file": one.log,
        "settings": ApiConfig(hbot=one.hbot),
    }  # fmt: skip
    return hummingbot.look(subject(**{**options, **how}))


def read(path: Path, started: datetime | None = None, now: datetime | None = None) -> LogLook:
    """A look at a log, with the real catalogue."""
    return read_log(
        path, cursor=None, now=now or datetime.now(UTC), zone="UTC", catalogue=hummingbot.catalogue, run_started=started
    )


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Install]:
    with install(tmp_path / "hb") as found:
        yield found


# ------------------------------------------------------------------------------------------------------- recognised

COMMANDS = [
    ("hbot", "start", "conf_pmm.yml"),
    ("/opt/hb/bin/hbot", "start", "conf_pmm.yml", "--foreground"),
    ("hbot", "deploy", "pmm_simple", "--replace"),
    ("hbot",),
    ("python", "-m", "hummingbot.cli.main", "start", "conf_pmm.yml"),
    ("/opt/py/bin/python3.12", "-m", "hummingbot.cli.engine", "--name", "conf_pmm"),
    ("bin/hummingbot_quickstart.py", "--headless", "--v2", "conf_pmm.yml"),
    ("python", "/home/hb/bin/hummingbot_quickstart.py", "-p", "x"),
    ("python", "bin/hummingbot.py"),
    ("docker", "exec", "hummingbot", "hbot", "start", "conf_pmm.yml"),
    ("docker", "run", "--rm", "hummingbot/hummingbot:latest"),
    ("conda", "run", "-n", "hummingbot", "hbot", "start"),
    ("bash", "-lc", "conda activate hummingbot && ./bin/hummingbot_quickstart.py"),
    ("env", "HBOT_PASSWORD=x", "python", "-m", "hummingbot.cli.engine", "--name", "x"),
]
OTHERS = [
    (),
    ("hbot", "status", "--json"),
    ("hbot", "logs", "-f"),
    ("python", "-m", "hummingbot.cli.main", "doctor"),
    ("python", "doge.py", "hbot"),
    ("python", "doge.py", "--like", "hummingbot.py"),
    ("tail", "-f", "hummingbot.py"),
    ("conda", "run", "-n", "hummingbot", "python", "doge.py"),
    ("freqtrade", "trade"),
    ("python", "-m", "hummingbot_tools"),
    ("python", "-c", "print('hbot')"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_its_command_tells_it(command: tuple[str, ...]) -> None:
    assert hummingbot.recognise(Hints(command=command)) == "its command is Hummingbot's"


@pytest.mark.parametrize("command", OTHERS, ids=" ".join)
def test_another_command_does_not(command: tuple[str, ...]) -> None:
    assert hummingbot.recognise(Hints(command=command)) is None


@pytest.mark.parametrize("name", [f"{NAME}.sqlite", f"trades_{NAME}.csv"])
def test_its_data_file_tells_it_only_with_its_log_beside_it(tmp_path: Path, name: str) -> None:
    data = tmp_path / "data" / name
    assert hummingbot.recognise(Hints(data_file=data)) is None
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / f"logs_{NAME}.log").touch()
    assert hummingbot.recognise(Hints(data_file=data)) == f"its data file {name} has a log of Hummingbot's beside it"
    assert hummingbot.recognise(Hints(data_file=tmp_path / "elsewhere" / name)) is None


def test_the_loggers_of_its_log_tell_it() -> None:
    assert hummingbot.recognise(Hints(log_head=START_LOG.read_text()[:4096])) == "its log has Hummingbot's loggers"
    quoted = "2026-11-21 09:51:22,085 - doge - INFO - saw: 2026-11-21 09:51:22,085 - 7 - hummingbot.core - INFO - x"
    assert hummingbot.recognise(Hints(log_head=quoted)) is None
    freqtrade = "2026-11-21 09:17:48,604 - freqtrade.worker - INFO - like hummingbot."
    assert hummingbot.recognise(Hints(log_head=freqtrade)) is None


@pytest.mark.parametrize("name", ["hbot", "hummingbot.py", "hummingbot_quickstart.py"])
def test_its_process_name_tells_it(name: str) -> None:
    assert hummingbot.recognise(Hints(process_name=name)) == f"its process is called {name}"
    assert hummingbot.recognise(Hints(process_name=f"my-{name}")) is None


def test_it_is_one_of_the_profiles_and_its_fills_can_be_replayed() -> None:
    assert PROFILES["hummingbot"] is hummingbot
    assert hummingbot.GRAMMAR in replay.GRAMMARS


def test_a_hostile_log_head_takes_no_time() -> None:
    begun = time.thread_time()
    for text in ("2026-11-21 09:51:22,085 - " * 200, "1" * 4096, "\n" * 4096):
        hummingbot.recognise(Hints(log_head=text[:4096]))
    assert time.thread_time() - begun < 0.05


# --------------------------------------------------------------------------------------------------------- its log


def test_a_real_start_log_tells_that_it_runs_where_and_on_paper() -> None:
    seen = read(START_LOG, now=datetime(2026, 11, 21, 9, 53, tzinfo=UTC))
    look = hummingbot.look(subject(log=seen, log_file=START_LOG, instances=(running(),)))
    assert (look.state, look.state_from) == ("running", "log")
    assert (look.exchange, look.paper) == ("binance", True)
    assert (look.api, look.api_rule, look.positions, look.open_trades) == ("", "", None, None)
    assert not look.loop_known, "its log never tells of a main loop"
    assert look.heartbeat_every is None, "it has no heartbeat line"


def test_nothing_is_said_of_the_state_of_a_bot_of_which_nothing_runs() -> None:
    seen = LogLook(marks={"started": mark("started", ago(60))})
    assert hummingbot.look(subject(log=seen)).state == ""


def test_a_strategy_that_was_stopped_is_stopped_although_its_process_lives() -> None:
    marks = [mark("started", ago(600)), mark("event", ago(300)), mark("stopped", ago(120))]
    look = hummingbot.look(subject(log=log(60, marks=marks, now=NOW), instances=(running(),)))
    assert (look.state, look.state_from) == ("stopped", "log")
    again = [*marks, mark("started", ago(60))]
    assert hummingbot.look(subject(log=log(60, marks=again, now=NOW), instances=(running(),))).state == "running"


def test_events_are_progress_against_their_own_pauses() -> None:
    steady = mark("event", ago(30), gaps=[10.0] * 20)
    look = hummingbot.look(subject(log=log(30, marks=[steady], now=NOW)))
    assert look.progress == (Progress("events", ago(30), timedelta(seconds=10), 20),)


def test_bursts_of_events_are_no_history() -> None:
    burst = mark("event", ago(30), gaps=[0.0, 0.1] * 10)
    look = hummingbot.look(subject(log=log(30, marks=[burst], now=NOW)))
    assert look.progress == (Progress("events", ago(30), None, 0),)


def test_events_of_the_run_that_died_are_no_progress_of_this_one() -> None:
    old = mark("event", ago(30), gaps=[10.0] * 20, this_run=False)
    assert hummingbot.look(subject(log=log(30, marks=[old], now=NOW))).progress == ()


def test_fills_that_were_not_stored_are_told_for_a_day() -> None:
    lost = mark("fills-lost", ago(60), count=3)
    (note,) = hummingbot.look(subject(log=log(10, marks=[lost], now=NOW))).notes
    assert note.startswith("3 fills did not reach its database, the newest at 2026-11-21T11:59:00")
    old = dataclasses.replace(lost, at=ago(25 * 3600))
    assert hummingbot.look(subject(log=log(10, marks=[old], now=NOW))).notes == ()


def test_a_websocket_that_stays_closed_is_told() -> None:
    stream = "BinanceAPIOrderBookDataSource"
    closed = mark("websocket-closed", ago(300), who=((stream, ago(300)), ("Never", ago(300))))
    before = mark("subscribed", ago(900), who=((stream, ago(900)),))
    (note,) = hummingbot.look(subject(log=log(10, marks=[closed, before], now=NOW))).notes
    assert note.startswith(f"{stream} lost its websocket at 2026-11-21T11:55:00")
    after = mark("subscribed", ago(290), who=((stream, ago(290)),))
    assert hummingbot.look(subject(log=log(10, marks=[closed, after], now=NOW))).notes == ()
    soon = mark("websocket-closed", ago(30), who=((stream, ago(30)),))
    assert hummingbot.look(subject(log=log(10, marks=[soon, before], now=NOW))).notes == ()


# ------------------------------------------------------------------------------------------------------ sign of life


def test_a_line_of_its_own_since_its_start_is_a_sign_of_life() -> None:
    one = running()
    pid = str(one.pid)
    for name in ("started", "event"):
        line = mark(name, ago(5), who=((pid, ago(5)),))
        assert hummingbot.sign_of_life(subject(log=log(5, marks=[line], now=NOW)), one) is True


@pytest.mark.parametrize(
    "line",
    [
        mark("started", ago(7200), who=((str(os.getpid()), ago(7200)),)),
        mark("started", ago(5), who=(("999999", ago(5)),)),
        mark("event", ago(5), this_run=False),
        mark("connector", ago(5), who=((str(os.getpid()), ago(5)),)),
    ],
    ids=["before its start", "another's", "of the run that died", "not of its strategy"],
)
def test_another_line_says_nothing_about_it(line: Mark) -> None:
    assert hummingbot.sign_of_life(subject(log=log(5, marks=[line], now=NOW)), running()) is None


def test_without_a_log_nothing_says_that_it_lives() -> None:
    assert hummingbot.sign_of_life(subject(), running()) is None


def test_it_cannot_be_asked_to_hold_and_says_so() -> None:
    for ask in (hummingbot.hold_entries, hummingbot.resume_entries):
        said = ask(subject(instances=(running(),)))
        assert said is not None
        assert said.startswith("Hummingbot cannot be asked to")
    assert hummingbot.environment("paused") == {}


# --------------------------------------------------------------------------------- exchange, paper, version from files


def conf(home: Path, text: str, folder: str = "conf/scripts", name: str = f"{NAME}.yml") -> Path:
    (home / folder).mkdir(parents=True, exist_ok=True)
    (home / folder / name).write_text(text)
    return home / "data" / f"{NAME}.sqlite"


CONFS = {
    "exchange: binance_paper_trade": ("binance", True),
    "connector_name: kraken": ("kraken", False),
    "exchange: 'binance_perpetual'\r": ("binanceusdm", False),
    "exchange: gate_io": ("gate", False),
    "exchange: coinbase_advanced_trade": ("coinbase", False),
    "exchange: okx_perpetual": ("okx", False),
    "maker_market: kucoin\ntaker_market: binance": ("", False),
    "maker_connector: kucoin_paper_trade\ntaker_connector: binance": ("", False),
    "spot_connector: bybit\nperp_connector: bybit_perpetual": ("bybit", False),
    "markets:\n  binance_paper_trade:\n  - ETH-USDT\ncandles: []": ("binance", True),
    "order_amount: 1": ("", None),
    "# exchange: kraken": ("", None),
    "exchange: !!python/object/apply:os.system ['id']": ("", None),
    "exchange: " + "a" * 200: ("", None),
}


@pytest.mark.parametrize(("text", "told"), CONFS.items(), ids=[repr(one)[:40] for one in CONFS])
def test_its_configuration_tells_where_it_trades(tmp_path: Path, text: str, told: tuple[str, bool | None]) -> None:
    look = hummingbot.look(subject(data_file=conf(tmp_path, text + "\n")))
    assert (look.exchange, look.paper) == told


def test_controllers_of_a_script_tell_it(tmp_path: Path) -> None:
    data = conf(tmp_path, "controllers_config:\n- conf_a.yml\n- ../../etc/passwd.yml\n- conf_missing.yml\n")
    conf(tmp_path, "connector_name: hyperliquid_perpetual\n", "conf/controllers", "conf_a.yml")
    assert hummingbot.look(subject(data_file=data)).exchange == "hyperliquid"


def test_the_real_configuration_and_version_are_found_beside_log_and_database(tmp_path: Path) -> None:
    data = conf(tmp_path, (DATA / f"{NAME}.yml").read_text())
    (tmp_path / "hummingbot").mkdir()
    (tmp_path / "hummingbot/VERSION").write_text("20260922\n")
    by_data = hummingbot.look(subject(data_file=data))
    by_log = hummingbot.look(subject(log_file=tmp_path / "logs" / f"logs_{NAME}.log"))
    assert (by_data.exchange, by_data.paper, by_data.version) == ("binance", True, "20260922")
    assert (by_log.exchange, by_log.paper, by_log.version) == ("binance", True, "20260922")


@pytest.mark.parametrize("odd", ["fifo", "huge", "folder", "binary"])
def test_an_odd_configuration_file_says_nothing_and_hangs_nobody(tmp_path: Path, odd: str) -> None:
    data = conf(tmp_path, "")
    path = tmp_path / "conf/scripts" / f"{NAME}.yml"
    path.unlink()
    if odd == "fifo":
        os.mkfifo(path)
    elif odd == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"exchange: kraken\n" * 10_000 if odd == "huge" else bytes(range(256)) * 8)
    look = hummingbot.look(subject(data_file=data))
    assert (look.exchange, look.paper) == ("", None)


@pytest.mark.parametrize("text", ["", "dev branch\n", "1" * 100, "\x1b[31m2", "a\nb"])
def test_a_version_that_is_none_is_not_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "hummingbot").mkdir()
    (tmp_path / "hummingbot/VERSION").write_text(text)
    assert hummingbot.look(subject(cwd=tmp_path)).version == ""


def test_every_name_for_an_exchange_is_one_that_ccxt_knows() -> None:
    ccxt = pytest.importorskip("ccxt")
    plain = ["binance_us", "bing_x", "btc_markets", "crypto_com", "kraken", "okx", "bybit_perpetual", "mexc", "htx"]
    for name in [*hummingbot_conf._NAMED_OTHERWISE, *plain]:
        assert hummingbot_conf.exchange_of([name, f"{name}_paper_trade"]) in ccxt.exchanges, name


# ------------------------------------------------------------------------------------------- what hbot answers, read


def test_the_status_of_a_real_hbot_is_read() -> None:
    found = hummingbot_cli.strict_object((DATA / "hbot_status.json").read_bytes())
    assert found is not None
    status = hummingbot_cli.status_of(found)
    assert status == hummingbot_cli.Status(
        running=True, pid=8792, uptime=timedelta(seconds=385.6), snapshot_age=timedelta(seconds=0.1), errors=6,
        last_error="Failed to load strategy. Exiting.", connectors=("binance_paper_trade",),
    )  # fmt: skip


REAL = json.loads((DATA / "hbot_status.json").read_text())
ODD: dict[str, dict[str, Any]] = {
    "running is a number": {"running": 1},
    "running is missing": {"running": None},
    "pid is text": {"pid": "8792"},
    "pid is true": {"pid": True},
    "pid is negative": {"pid": -1},
    "pid is absurd": {"pid": 1 << 40},
    "uptime is text": {"uptime_s": "385"},
    "age is a list": {"snapshot_age_s": [0.1]},
    "age is absurd": {"snapshot_age_s": 1e300},
    "errors are a number": {"errors": 6},
    "count of errors is true": {"errors": {"count": True, "messages": []}},
    "a message is none": {"errors": {"count": 1, "messages": [1]}},
    "balances are a list": {"balances": []},
    "a connector is none": {"balances": {"binance; rm -rf /": {}}},
    "too many connectors": {"balances": {f"c{number}": {} for number in range(33)}},
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_a_status_with_a_value_that_hbot_never_writes_is_none(change: dict[str, Any]) -> None:
    assert hummingbot_cli.status_of({**REAL, **change}) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"running": NaN}', '{"a": 1e999}', '{"a": 1, "a": 2}', "[]", "{} {}", "{", "", '{"a": ' * 2000, "{\xff",
        "1" * 5000, '{"a": ' + "1" * 5000 + "}",
    ],
)  # fmt: skip
def test_json_that_is_not_strictly_one_object_is_none(text: str) -> None:
    assert hummingbot_cli.strict_object(text.encode("latin-1")) is None


def test_an_age_below_zero_is_none_at_all() -> None:
    status = hummingbot_cli.status_of({**REAL, "snapshot_age_s": -0.3})
    assert status is not None
    assert status.snapshot_age == timedelta()


def test_a_secret_in_an_error_is_hidden() -> None:
    text = f"signature={'0' * 64}"
    status = hummingbot_cli.status_of({**REAL, "errors": {"count": 1, "messages": [text]}})
    assert status is not None
    assert "000" not in status.last_error


# --------------------------------------------------------------------------------------------- hbot, as a real program


def test_a_running_bot_answers(bot: Install) -> None:
    one = bot.start()
    look = see(bot, one)
    assert (look.state, look.state_from, look.api, look.api_rule) == ("running", "api", "", "ok")
    assert look.booted_at is not None
    assert one.started_at is not None
    assert abs((look.booted_at - one.started_at).total_seconds()) < 10
    assert (look.exchange, look.paper, look.version) == ("binance", True, "20260922")
    (sign,) = look.progress
    assert sign.source == "hbot"
    assert sign.at is not None
    assert (datetime.now(UTC) - sign.at).total_seconds() < ENOUGH
    assert (look.loop_known, look.others, look.positions) == (False, (), None)


def test_its_file_is_no_heartbeat_but_every_question_is_answered_anew(bot: Install) -> None:
    one = bot.start()
    file = bot.home / "data/bot/status.json"
    written = file.stat().st_mtime_ns
    hummingbot.look(subject(instances=(one,), data_file=bot.data, log_file=bot.log))
    assert file.stat().st_mtime_ns == written, "nobody asked"
    see(bot, one)
    assert file.stat().st_mtime_ns > written


def test_one_that_still_starts_is_not_asked_for_that_would_end_it(bot: Install) -> None:
    one = bot.start(serving=False)
    assert one.pid is not None
    look = see(bot, one)
    assert (look.state, look.api_rule) == ("starting", "not-ready")
    assert alive(one.pid)
    bot.serve()
    assert see(bot, one).api_rule == "ok"


def test_hbot_itself_does_end_one_that_still_starts(bot: Install) -> None:
    """Why it is not asked: this is what a real one does, too."""
    one = bot.start(serving=False)
    bot.run("status", "--json")
    wait_for(lambda: one.pid is None or not alive(one.pid))


def test_a_bot_that_hbot_did_not_start_is_not_asked_about(bot: Install) -> None:
    look = see(bot, running())
    assert look.api_rule == "not-allowed"
    assert look.state == ""


def test_nothing_is_asked_about_a_bot_of_which_nothing_runs(bot: Install) -> None:
    bot.misbehave("code 1")
    look = see(bot, running(), instances=())
    assert (look.api, look.api_rule) == ("", "")


def test_one_that_a_signal_stopped_is_not_asked(bot: Install) -> None:
    one = bot.start()
    assert one.pid is not None
    os.kill(one.pid, signal.SIGSTOP)
    look = see(bot, dataclasses.replace(one, state=InstanceState.FROZEN))
    assert (look.api, look.api_rule, look.progress) == ("", "", ())


def make_old(bot: Install, seconds: float) -> None:
    """As if its engine had last been asked then."""
    file = bot.home / "data/bot/status.json"
    found = json.loads(file.read_text())
    file.write_text(json.dumps({**found, "updated_at": found["updated_at"] - seconds}))


@pytest.mark.parametrize("how", ["its event loop hangs", "a signal stopped it"])
def test_an_engine_that_does_not_answer_any_more_is_frozen_since_its_last_answer(bot: Install, how: str) -> None:
    one = dataclasses.replace(bot.start(), started_at=datetime.now(UTC) - timedelta(hours=1))
    assert one.pid is not None
    if how == "its event loop hangs":
        (bot.home / "tell").write_text("hang")
        wait_for(lambda: not (bot.home / "tell").exists())
    else:
        os.kill(one.pid, signal.SIGSTOP)
    make_old(bot, 400)
    looks = [see(bot, one), see(bot, one)]
    for look in looks:
        assert (look.api_rule, look.state, look.loop_known) == ("ok", "running", True)
        assert look.loop_at is not None
        assert 400 <= (datetime.now(UTC) - look.loop_at).total_seconds() < 400 + 3 * ENOUGH
    first, second = (look.loop_at for look in looks)
    assert first is not None
    assert second is not None
    assert abs((second - first).total_seconds()) < 0.5, "it does not move on"
    assert [sign.source for sign in looks[1].progress] == ["hbot"]


def test_an_engine_that_is_only_slow_has_answered_by_the_next_look(bot: Install) -> None:
    one = dataclasses.replace(bot.start(), started_at=datetime.now(UTC) - timedelta(hours=1))
    bot.tell("slow 5.5")
    make_old(bot, 400)
    asked = datetime.now(UTC)
    assert see(bot, one).loop_known, "hbot waits 5 s for it"
    written = bot.home / "data/bot/status.json"
    wait_for(lambda: json.loads(written.read_text())["updated_at"] > asked.timestamp())
    bot.tell("slow 0")
    assert not see(bot, one).loop_known


def test_an_answer_of_the_run_before_says_nothing_about_this_one(bot: Install) -> None:
    one = bot.start()
    bot.tell("slow 60")
    make_old(bot, 400)
    look = see(bot, one)
    assert (look.api_rule, look.loop_known, look.progress) == ("ok", False, ())


def test_less_time_than_hbot_takes_itself_proves_nothing(bot: Install) -> None:
    one = bot.start()
    bot.misbehave("hang")
    look = see(bot, one, seconds=1.5)
    assert (look.api_rule, look.loop_known, look.progress) == ("not-ready", False, ())
    assert "answer_within" in look.api
    wait_for(lambda: not any(alive(pid) for pid in bot.orphans()))


def test_hbot_that_hangs_with_time_enough_is_told_and_ended(bot: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    one = bot.start()
    bot.misbehave("deaf")
    monkeypatch.setattr(hummingbot_cli, "ENOUGH", 1.5)
    look = see(bot, one, seconds=1.5)
    assert look.api_rule == "timeout"
    assert look.api == "hbot status did not answer within 1.5 s."
    wait_for(lambda: not any(alive(pid) for pid in bot.orphans()))
    assert one.pid is not None
    assert alive(one.pid)


def test_children_that_hbot_leaves_behind_are_ended_and_its_answer_counts(bot: Install) -> None:
    one = bot.start()
    bot.misbehave("orphans")
    assert see(bot, one).api_rule == "ok"
    wait_for(lambda: not any(alive(pid) for pid in bot.orphans()))


MISBEHAVIOUR = {
    "code 1": ("status", "hbot failed (exit code 1): Error: as it was told (code 1)."),
    "code 2": ("status", "hbot knows no bot in its install (exit code 2): Error: as it was told (code 2)."),
    "code 3": ("not-ready", "hbot says that its bot is not running (exit code 3): Error: as it was told (code 3)."),
    "code 4": (
        "status",
        "hbot has a configuration or a password that does not work (exit code 4): Error: as it was told (code 4).",
    ),
    "code 5": ("timeout", "hbot gave up waiting (exit code 5): Error: as it was told (code 5)."),
    "code 7": ("status", "hbot failed (exit code 7): Error: as it was told (code 7)."),
    "nothing": ("not-json", "what hbot status writes is no status: nothing."),
    "twice": ("not-json", 'what hbot status writes is no status: {"running": true, "running": false}.'),
    "says hello": ("not-json", "what hbot status writes is no status: hello."),
    'says {"running": "yes"}': ("not-json", 'what hbot status writes is no status: {"running": "yes"}.'),
    "endless": ("too-long", "hbot status writes more than 256 KiB."),
    "loud": ("too-long", "hbot status writes more than 256 KiB."),
}


@pytest.mark.parametrize(("how", "told"), MISBEHAVIOUR.items(), ids=MISBEHAVIOUR)
def test_an_hbot_that_misbehaves_is_told_in_a_sentence(bot: Install, how: str, told: tuple[str, str]) -> None:
    one = bot.start()
    bot.misbehave(how)
    look = see(bot, one)
    assert (look.api_rule, look.api) == told
    assert (look.loop_known, look.progress, look.others) == (False, (), ())


def test_what_hbot_writes_is_cleaned_before_anybody_sees_it(bot: Install) -> None:
    one = bot.start()
    bot.misbehave("garbage")
    look = see(bot, one)
    assert look.api_rule == "not-json"
    assert look.api.isprintable()


def test_an_hbot_that_cannot_be_executed_is_refused(bot: Install) -> None:
    one = bot.start()
    look = see(bot, one, settings=ApiConfig(hbot=[str(bot.home / "bin/none")]))
    assert look.api_rule == "refused"
    assert look.api == "none status cannot be executed: No such file or directory."


def test_the_errors_that_hbot_counts_are_a_note(bot: Install) -> None:
    one = bot.start()
    status = {"running": True, "pid": one.pid, "errors": {"count": 2, "messages": ["a", "b \x1b[31mred"]}}
    bot.misbehave(f"says {json.dumps(status)}")
    assert see(bot, one).notes == ("hbot counts 2 errors in the newest lines of its log; the last one: b red",)


# ------------------------------------------------------------------------------------------------------ whose it is


def test_an_hbot_of_another_install_is_not_believed(bot: Install, tmp_path: Path) -> None:
    one = bot.start()
    with install(tmp_path / "other") as other:
        other.start()
        look = see(bot, one, settings=ApiConfig(hbot=other.hbot))
    assert (look.api_rule, look.state, look.progress) == ("wrong-owner", "", ())
    assert look.others == (), "it is another bot's, not a second copy"
    assert "another install" in look.api


def test_an_hbot_that_lost_sight_of_its_bot_is_told(bot: Install) -> None:
    one = bot.start()
    (bot.home / "data/bot/bot.pid").unlink()
    look = see(bot, one)
    assert look.api_rule == "wrong-owner"
    assert look.api.startswith("the bot that hbot knows does not run, though this one does")


def test_a_second_copy_that_hbot_knows_is_one_of_the_others(bot: Install) -> None:
    first, second = bot.start(), bot.start_second()
    wait_for(lambda: hummingbot_cli.can_answer([second.pid or 0]))
    look = see(bot, second)
    assert look.others == (first.pid,)
    assert look.api_rule == "wrong-owner"


def test_a_second_copy_that_writes_into_the_same_log_is_one_of_the_others(bot: Install) -> None:
    first, second = bot.start(), bot.start_second()
    seen = read(bot.log, first.started_at)
    assert {who for who, _ in seen.marks["started"].who} == {str(first.pid), str(second.pid)}
    look = see(bot, first, log=seen, settings=None)
    assert look.others == (second.pid,)
    assert second.pid is not None
    os.kill(second.pid, signal.SIGKILL)
    wait_for(lambda: second.pid is None or not alive(second.pid))
    assert see(bot, first, log=seen, settings=None).others == ()


def test_a_pid_of_the_log_that_somebody_else_has_by_now_is_no_other_copy(bot: Install) -> None:
    one = bot.start()
    strangers = mark("started", datetime.now(UTC), who=((str(os.getppid()), datetime.now(UTC)), ("1", NOW)))
    assert see(bot, one, log=LogLook(marks={"started": strangers}), settings=None).others == ()


@pytest.mark.skipif(not namespaces.available(), reason=namespaces.WHY_NOT)
def test_its_pid_in_a_container_is_its_own(tmp_path: Path) -> None:
    said = tmp_path / "said"
    command = [*(namespaces._unshare() or ()), "sh", "-c", f"echo $$ > {said}; exec sleep 600"]
    with subprocess.Popen(command) as outer:
        wait_for(lambda: said.exists() and said.read_text().strip() == "1")
        inner = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
        try:
            assert hummingbot_cli.names_of(inner) == {inner, 1}
            assert 1 in hummingbot_log.names_of([running(inner)])
        finally:
            os.kill(inner, signal.SIGKILL)


def test_a_process_that_is_gone_has_no_names_and_no_handlers() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    assert hummingbot_cli.names_of(gone.pid) == frozenset()
    assert not hummingbot_cli.catches(gone.pid, signal.SIGUSR1)


# -------------------------------------------------------------------------------------------------------- heartbeats

TOPIC = "hbot/mm-1/hb"


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with broker(tmp_path_factory.mktemp("broker")) as found:
        yield found


Hear = Callable[..., ProgramLook]


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^\w]", "-", f"hbot-{request.node.name}")[:180] + "/hb"


@pytest.fixture
def hear(mosquitto: Broker, topic: str) -> Hear:
    """A look at a bot of which only the heartbeat can be asked."""

    def ask(seen: LogLook | None, seconds: float = ENOUGH, **how: Any) -> ProgramLook:
        settings = ApiConfig(mqtt=MqttConfig(port=mosquitto.port, topic=topic))
        options = {"now": datetime.now(UTC), "instances": (running(),), "settings": settings, "log": seen}
        return hummingbot.look(subject(**{**options, "seconds": seconds, **how}))

    return ask


@pytest.fixture
def heart(mosquitto: Broker, topic: str) -> Iterator[Publisher]:
    with Publisher(mosquitto.port, topic) as found:
        yield found


def test_a_silent_bot_whose_heartbeat_comes_lives(hear: Hear, heart: Publisher) -> None:
    heart.tell("beat 0.1")
    look = hear(log(3600, pauses=[600.0] * 20))
    (sign,) = look.progress
    assert (sign.source, sign.normal) == ("mqtt", timedelta(seconds=10))
    assert sign.at is not None
    assert abs(sign.at.timestamp() - time.time()) < ENOUGH
    assert (look.api, look.api_rule, look.notes) == ("", "ok", ())
    assert look.heartbeat_at is None, "it comes only when somebody listens, so its age says nothing"


def test_a_bot_without_a_log_is_listened_to(hear: Hear, heart: Publisher) -> None:
    heart.tell("beat 0.1")
    assert [sign.source for sign in hear(None).progress] == ["mqtt"]


@pytest.mark.parametrize(("silent", "pauses"), [(5, []), (40, []), (500, [600.0] * 20)])
def test_one_whose_log_is_not_silent_for_longer_than_normal_is_not_listened_to(
    hear: Hear, heart: Publisher, silent: float, pauses: list[float]
) -> None:
    heart.tell("beat 0.1")
    look = hear(log(silent, pauses=pauses))
    assert (look.progress, look.notes, look.api_rule) == ((), (), "")


def test_nobody_listens_for_a_bot_of_which_nothing_runs(hear: Hear, heart: Publisher) -> None:
    heart.tell("beat 0.1")
    assert hear(log(3600), instances=()).progress == ()
    frozen = dataclasses.replace(running(), state=InstanceState.FROZEN)
    assert hear(log(3600), instances=(frozen,)).progress == ()


def test_a_bot_that_wrote_all_the_time_and_is_silent_is_not_excused_by_its_heartbeat(
    hear: Hear, heart: Publisher
) -> None:
    """A websocket that stalls: no fill, no line, and everything else goes on."""
    heart.tell("beat 0.1")
    look = hear(log(600, pauses=[10.0] * 20))
    assert look.progress == ()
    assert look.notes == (
        "Although its heartbeat comes, its log has said nothing for 10 min, and it never paused for more than 10 s: "
        "its market data may have stopped.",
    )


def test_nor_by_an_engine_that_answers(bot: Install) -> None:
    one = bot.start()
    look = see(bot, one, log=log(600, pauses=[10.0] * 20))
    assert (look.api_rule, look.progress) == ("ok", ())
    assert look.notes[0].startswith("Although its engine answers, its log has said nothing for 10 min")
    idle = see(bot, one, log=log(3600, pauses=[600.0] * 20))
    assert ([sign.source for sign in idle.progress], idle.notes) == (["hbot"], ())


def micro(seconds: float = 0.0) -> int:
    return int((time.time() + seconds) * 1e6)


def hostile() -> dict[str, bytes]:
    return {
        "nothing": b"",
        "no JSON": b"alive",
        "a list": b"[1]",
        "no ts": b"{}",
        "text": json.dumps({"ts": str(micro())}).encode(),
        "a float": json.dumps({"ts": micro() + 0.5}).encode(),
        "true": b'{"ts": true}',
        "more than ts": json.dumps({"ts": micro(), "msg": "restart me"}).encode(),
        "ts twice": b'{"ts": 1, "ts": %d}' % micro(),
        "seconds": json.dumps({"ts": int(time.time())}).encode(),
        "an hour old": json.dumps({"ts": micro(-3600)}).encode(),
        "in an hour": json.dumps({"ts": micro(3600)}).encode(),
        "huge": b'{"ts": ' + b"9" * 4000 + b"}",
        "not UTF-8": b'{"ts": \xff}',
        "deep": b'{"ts": ' + b"[" * 1500,
    }


@pytest.mark.parametrize("payload", hostile().values(), ids=hostile())
def test_only_a_heartbeat_is_one(payload: bytes) -> None:
    assert not hummingbot.is_heartbeat(payload, datetime.now(UTC), 0.0)


def test_a_heartbeat_is_of_about_now_however_long_we_listened() -> None:
    now = datetime.now(UTC)
    beat = json.dumps({"ts": int(now.timestamp() * 1e6) + 100_000_000}).encode()
    assert not hummingbot.is_heartbeat(beat, now, 0.0)
    assert hummingbot.is_heartbeat(beat, now, 100.0)


def test_what_anybody_publishes_there_is_no_heartbeat(hear: Hear, heart: Publisher) -> None:
    heart.tell(f"flood {json.dumps({'ts': 'restart me'}).encode().hex()}")
    look = hear(log(3600), seconds=1.5)
    assert (look.progress, look.notes) == ((), ()), "in so short a time nothing is proven"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats come quicker than the real one's, and so does the end of the wait for one."""
    monkeypatch.setattr(hummingbot, "HEARTBEAT_EVERY", timedelta(seconds=0.2))
    monkeypatch.setattr(hummingbot, "LISTEN", 1.6)


@pytest.mark.usefixtures("quick")
def test_a_heartbeat_that_does_not_come_is_told_and_is_as_old_as_the_last_that_was_heard(
    hear: Hear, heart: Publisher
) -> None:
    first = hear(log(3600))
    assert first.progress == ()
    assert first.notes[0].startswith("Its heartbeat, one every 0 s, does not come: no such message came on hbot-")
    heart.tell("beat 0.1")
    heard = hear(log(3600))
    assert [sign.source for sign in heard.progress] == ["mqtt"]
    heart.tell("rest")
    later = hear(log(3600), cursor=heard.cursor)
    (sign,) = later.progress
    assert (sign.source, sign.at) == ("mqtt", heard.progress[0].at)
    assert later.cursor == heard.cursor


@pytest.mark.parametrize("known", ["yesterday", -1, 1e18, None, True, [1]])
def test_a_cursor_that_is_none_is_as_good_as_none(hear: Hear, known: Any) -> None:
    look = hear(log(5), cursor={"heartbeat": known})
    assert look.progress == ()


def test_a_look_without_a_heartbeat_keeps_what_was_known(hear: Hear) -> None:
    known = datetime.now(UTC).timestamp() - 100
    assert hear(log(5), cursor={"heartbeat": known}).cursor == {"heartbeat": known}


def test_its_credentials_are_asked_for_by_name(tmp_path: Path) -> None:
    with broker(tmp_path, password=True) as one, Publisher(one.port, TOPIC, password=True) as heart:
        heart.tell("beat 0.1")
        mqtt = MqttConfig(port=one.port, topic=TOPIC, username_env="HB_USER", password_env="HB_PASSWORD")
        right, wrong = {"HB_USER": USER, "HB_PASSWORD": PASSWORD}, {"HB_USER": USER, "HB_PASSWORD": "wrong"}

        def ask(secrets: dict[str, str]) -> ProgramLook:
            how = {"now": datetime.now(UTC), "instances": (running(),), "log": log(3600), "secret": secrets.get}
            return hummingbot.look(subject(settings=ApiConfig(mqtt=mqtt), **how))

        assert [sign.source for sign in ask(right).progress] == ["mqtt"]
        (note,) = ask(wrong).notes
        assert note.startswith("Its heartbeat could not be listened for: the MQTT broker at 127.0.0.1:")
        (note,) = ask({"HB_USER": USER}).notes
        assert note == "Its heartbeat is not listened for: set HB_PASSWORD in the bot's env file or where botkeep runs."


def test_a_broker_that_is_away_is_a_note_and_no_fault_of_the_bot(tmp_path: Path) -> None:
    with broker(tmp_path) as one:
        settings = ApiConfig(mqtt=MqttConfig(port=one.port, topic=TOPIC))
    look = hummingbot.look(subject(settings=settings, instances=(running(),), log=log(3600, now=NOW)))
    assert look.notes[0].startswith("Its heartbeat could not be listened for: no MQTT broker answers at 127.0.0.1:")
    assert (look.api, look.api_rule, look.progress) == ("", "", ())


def test_an_engine_that_answered_needs_no_heartbeat(bot: Install) -> None:
    one = bot.start()
    mqtt = MqttConfig(port=1, topic=TOPIC)
    look = see(bot, one, log=log(3600), settings=ApiConfig(hbot=bot.hbot, mqtt=mqtt))
    assert ([sign.source for sign in look.progress], look.notes) == (["hbot"], ())


# ---------------------------------------------------------------------------------- fills that a database did not take


def lost_by(bot: Install, one: Instance) -> tuple[LogLook, list[str], list[str]]:
    """The log, the ids that it has, and those that the database has."""
    logged = replay.from_log(bot.log, "hummingbot", now=datetime.now(UTC))
    stored = FORMATS["sqlite"].trades(bot.data, options=FormatOptions())
    return read(bot.log, one.started_at), [fill.id for fill in logged.fills], [fill.id for fill in stored.fills]


def test_fills_that_a_locked_database_lost_are_found_in_the_log(bot: Install) -> None:
    """Hummingbot goes on trading; only `event 107` tells, and the fill stands in its EVENT_LOG line."""
    one = bot.start()
    bot.tell("trade 12")
    seen, logged, stored = lost_by(bot, one)
    assert (len(logged), stored) == (12, logged)
    assert "fills-lost" not in seen.marks
    with Writer(bot.data, "delete") as holder:
        holder.tell("hold")
        bot.tell("trade 5")
        holder.tell("let go")
    bot.tell("trade 3")

    seen, logged, stored = lost_by(bot, one)
    assert (len(logged), len(stored)) == (20, 15)
    assert seen.marks["fills-lost"].count == 5
    assert [cause.signature for cause in seen.causes] == ["event-not-stored"]
    look = see(bot, one, log=seen)
    assert look.state == "running", "it trades on"
    assert look.notes[0].startswith("5 fills did not reach its database, the newest at ")

    table = FORMATS["sqlite"].trades(bot.data, options=FormatOptions())
    missing = replay.missing(table, replay.from_log(bot.log, hummingbot.GRAMMAR or "", now=datetime.now(UTC)))
    assert [fill.id for fill in missing.fills] == logged[12:17]
    assert {str(fill.price) for fill in missing.fills} == {"2640.320001", "2642.4"}, "exact, as the log has them"
    kept = {fill.id: (fill.price, fill.amount) for fill in table.fills}
    told = {
        fill.id: (fill.price, fill.amount)
        for fill in replay.from_log(bot.log, "hummingbot", now=datetime.now(UTC)).fills
    }
    assert all(told[name] == values for name, values in kept.items()), "and millionths are read as what they count"


def test_fills_are_lost_and_found_too_when_the_database_is_gone(bot: Install) -> None:
    """The engine writes on into a file that was deleted; after its end the log is all there is of those fills."""
    one = bot.start()
    bot.tell("trade 4")
    kept = bot.home / "backup.sqlite"
    shutil.copyfile(bot.data, kept)
    bot.data.unlink()
    bot.tell("trade 3")
    assert bot.run("stop").returncode == 0
    assert bot.run("stop").returncode == 3, "it does not run any more"
    shutil.copyfile(kept, bot.data)
    seen, logged, stored = lost_by(bot, one)
    assert (len(logged), stored) == (7, logged[:4])
    assert seen.marks["stopped"].this_run
    table = FORMATS["sqlite"].trades(bot.data, options=FormatOptions())
    found = replay.missing(table, replay.from_log(bot.log, "hummingbot", now=datetime.now(UTC)))
    assert [fill.id for fill in found.fills] == logged[4:]
