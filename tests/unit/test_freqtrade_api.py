"""freqtrade's REST API, read strictly: what it answered in a dry run, and what nobody should believe."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from botkeep import web
from botkeep.profiles.freqtrade_api import MOST_POSITIONS, Access, Api
from support.freqtrade_api import NOT_READY, PASSWORD, SAMPLES, USER, FreqtradeApi, freqtrade_api, http, saying

Ask = Callable[[Api], Any]
KEYS = web.Credentials(USER, PASSWORD)


@pytest.fixture
def bot() -> Iterator[FreqtradeApi]:
    with freqtrade_api() as api:
        yield api


def asking(bot: FreqtradeApi, seconds: float = 20, **access: Any) -> Api:
    return Api(Access(bot.url, **{"credentials": KEYS, **access}), web.Deadline(seconds))


def fails(bot: FreqtradeApi, ask: Ask = Api.health, seconds: float = 20, **access: Any) -> web.WebError:
    """The error that the question ends in; its text is one line that can be shown."""
    with pytest.raises(web.WebError) as caught:
        ask(asking(bot, seconds, **access))
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith(".")
    return caught.value


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


# --------------------------------------------------------------------------------------------------- what it answered


def test_what_it_runs_with(bot: FreqtradeApi) -> None:
    shown = asking(bot).show_config()
    assert (shown.state, shown.runmode, shown.dry_run) == ("running", "dry_run", True)
    assert (shown.version, shown.exchange, shown.stake_currency, shown.max_open_trades) == (
        "2026.9", "binance", "USDT", 6,
    )  # fmt: skip


def test_how_its_main_loop_is_doing(bot: FreqtradeApi) -> None:
    health = asking(bot).health()
    assert health.last_process == datetime(2026, 11, 21, 10, 21, 28, tzinfo=UTC)
    assert health.startup == datetime(2026, 11, 21, 9, 21, 11, tzinfo=UTC)


def test_before_its_first_loop_it_knows_of_none(bot: FreqtradeApi) -> None:
    bot.healthy(last_process_ts=None, bot_startup_ts=None)
    health = asking(bot).health()
    assert (health.last_process, health.startup) == (None, None)


def test_how_many_trades_are_open(bot: FreqtradeApi) -> None:
    assert asking(bot).count() == 4


def test_every_amount_of_an_open_trade_is_exactly_as_it_was_written(bot: FreqtradeApi) -> None:
    written = json.loads((SAMPLES / "status.json").read_text(), parse_float=str, parse_int=str)
    positions = asking(bot).positions(4)
    assert [(one.id, one.symbol) for one in positions] == [(row["trade_id"], row["pair"]) for row in written]
    for key, name in (("amount", "amount"), ("open_rate", "entry"), ("stake_amount", "stake"),
                      ("current_rate", "price"), ("profit_abs", "unrealised")):  # fmt: skip
        assert [str(getattr(one, name)) for one in positions] == [row[key] for row in written], key
    first = positions[0]
    assert (first.id, first.side, first.currency) == ("308", "long", "USDT")
    assert first.opened == datetime(2026, 11, 21, 10, 21, 3, 924000, tzinfo=UTC)


def position(**changed: Any) -> str:
    row = {"trade_id": 7, "pair": "ETH/USDT", "is_short": False, "amount": 1, "open_rate": 2, **changed}
    return json.dumps([row])


def test_a_price_that_the_bot_does_not_know_is_none(bot: FreqtradeApi) -> None:
    bot.says("status", position(current_rate=None, profit_abs=None, is_short=True))
    (one,) = asking(bot).positions(1)
    assert (one.price, one.unrealised, one.stake, one.side) == (None, None, None, "short")
    assert (one.amount, one.entry, one.opened) == (Decimal(1), Decimal(2), None)


def test_its_version_and_the_load_of_its_machine(bot: FreqtradeApi) -> None:
    api = asking(bot)
    assert api.version() == "2026.9"
    load = api.system_info()
    assert (load.cpu, str(load.memory)) == ((Decimal("0.0"), Decimal("0.0")), "5.3")


def test_what_the_process_remembers_of_its_log(bot: FreqtradeApi) -> None:
    records = asking(bot).logs(100)
    assert len(records) == len(sample("logs_limit_20")["logs"]) == 20
    assert records[0].at == datetime(2026, 11, 21, 10, 21, 9, 544652, tzinfo=UTC)
    assert (records[0].logger, records[0].text) == (
        "freqtrade.persistence.trade_model",
        "Updating trade (id=307) ...",
    )


@pytest.mark.parametrize("ending", ["", "/", "/api/v1", "/api/v1/"])
def test_the_address_may_be_written_with_or_without_the_path(bot: FreqtradeApi, ending: str) -> None:
    assert Api(Access(bot.url + ending, KEYS), web.Deadline(20)).count() == 4


# ------------------------------------------------------------------------------------------------------- what is asked


def test_entries_are_stopped_by_the_newest_name_that_it_knows(bot: FreqtradeApi) -> None:
    told = {"status": "No more entries will occur from now."}
    bot.says("stopbuy", told, "POST")
    assert asking(bot).stop_entries() == "stopbuy"
    bot.says("pause", told, "POST")
    assert asking(bot).stop_entries() == "pause"
    assert bot.asked == ["POST pause", "POST stopentry", "POST stopbuy", "POST pause"]


def test_one_that_knows_none_of_the_names_is_an_error(bot: FreqtradeApi) -> None:
    failure = fails(bot, Api.stop_entries)
    assert (failure.rule, str(failure)) == ("status", "it answers 404 to all of pause, stopentry, stopbuy.")


def test_start_and_reload_give_back_what_it_said(bot: FreqtradeApi) -> None:
    bot.says("start", {"status": "already running"}, "POST")
    bot.says("reload_config", {"status": "Reloading config ..."}, "POST")
    api = asking(bot)
    assert (api.start(), api.reload_config()) == ("already running", "Reloading config ...")


# ---------------------------------------------------------------------------------------------- what is not believed

DEEP = b"[" * 60_000


@pytest.mark.parametrize(
    ("answer", "rule", "text"),
    [
        (http(b"<html>login</html>", kind="text/html"), "not-json", "a web page"),
        (http(b"<html>login</html>"), "not-json", "no JSON at character 0"),
        (http(b""), "not-json", "nothing"),
        (http(b"", "204 No Content"), "not-json", "nothing"),
        (b"", "status", "closed the connection"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "status", "not HTTP"),
        (http(b"", "302 Found"), "redirect", "redirects are not followed"),
        (http(b"oops", "500 Internal Server Error"), "status", "it answers 500 to health: oops"),
        (http(NOT_READY, "502 Bad Gateway"), "not-ready", "starting or stopping"),
        (http(b'{"detail":"Bot is not in the correct state."}', "503 No"), "not-ready", "starting or stopping"),
        (http(b"<h1>Bad Gateway</h1>", "502 Bad Gateway"), "status", "it answers 502"),
        (http(b'{"error":"Error querying: trader is not running"}', "502 No"), "status", "trader is not running"),
        (saying('{"last_process_ts": 1795256488'), "not-json", "no JSON at character 30"),
        (http(b'{"last_process_ts": 1}')[:-4], "status", "broke before its answer to health was complete"),
        (saying("[]"), "not-json", "a list, not an object"),
        (saying('"pong"'), "not-json", "text, not an object"),
        (saying("NaN"), "not-json", "NaN is no number"),
        (saying('{"last_process_ts": Infinity}'), "not-json", "Infinity is no number"),
        (saying('{"last_process_ts": 1e999999}'), "not-json", "last_process_ts is text, not a moment"),
        (saying('{"last_process_ts": 1795256488.5}'), "not-json", "last_process_ts is a number, not a moment"),
        (saying('{"last_process_ts": "1795256488"}'), "not-json", "last_process_ts is text, not a moment"),
        (saying('{"last_process_ts": true}'), "not-json", "last_process_ts is true or false, not a moment"),
        (saying('{"last_process_ts": -1}'), "not-json", "last_process_ts is a number, not a moment"),
        (saying('{"last_process_ts": 253402300800}'), "not-json", "last_process_ts is a number, not a moment"),
        (saying('{"last_process_ts": [[]]}'), "not-json", "last_process_ts is a list, not a moment"),
        (saying('{"last_process_ts": 1, "last_process_ts": 2}'), "not-json", "a key stands twice"),
        (http(DEEP), "not-json", "nested too deep"),
        (http(b'{"last_process_ts": "\xff"}'), "not-json", "not UTF-8"),
        (http('{"last_process_ts": 1}'.encode("utf-16")), "not-json", "not UTF-8"),
        (http(b'{"last_process_ts": ' + b"9" * 6000 + b"}"), "not-json", "last_process_ts is text, not a moment"),
    ],
)
def test_an_answer_that_is_not_freqtrades_is_refused_with_what_is_wrong(
    bot: FreqtradeApi, answer: bytes, rule: str, text: str
) -> None:
    bot.sends("health", answer)
    failure = fails(bot)
    assert (failure.rule, text in str(failure)) == (rule, True), str(failure)


@pytest.mark.parametrize(
    ("changed", "text"),
    [({"state": 1}, "state is a number, not text"), ({"state": None}, "state is nothing, not text"),
     ({"dry_run": "true"}, "dry_run is text, not true or false"), ({"dry_run": 1}, "not true or false"),
     ({"runmode": {}}, "runmode is an object, not text"), ({"version": []}, "version is a list, not text")],
)  # fmt: skip
def test_a_configuration_of_wrong_types_is_refused(bot: FreqtradeApi, changed: dict[str, Any], text: str) -> None:
    bot.configured(**changed)
    failure = fails(bot, Api.show_config)
    assert failure.rule == "not-json"
    assert text in str(failure)


@pytest.mark.parametrize("value", ["-1", "1.0", "true", '"4"', "null", "10000000000", "1e2", "9" * 5000])
def test_a_count_that_is_none_is_refused(bot: FreqtradeApi, value: str) -> None:
    bot.says("count", f'{{"current": {value}}}')
    assert fails(bot, Api.count).rule == "not-json"


@pytest.mark.parametrize(
    "changed",
    [{"trade_id": -1}, {"trade_id": "7"}, {"pair": None}, {"is_short": 0}, {"amount": "1"}, {"amount": None},
     {"open_rate": True}, {"profit_abs": "12"}, {"open_timestamp": 10**30}, {"open_timestamp": "now"}],
)  # fmt: skip
def test_an_open_trade_of_wrong_types_is_refused(bot: FreqtradeApi, changed: dict[str, Any]) -> None:
    bot.says("status", position(**changed))
    assert fails(bot, lambda api: api.positions(1)).rule == "not-json"


@pytest.mark.parametrize("number", ["1e999999", "1e31", "0." + "1" * 60, "-1e-999999"])
def test_an_amount_of_absurd_size_is_refused_at_once(bot: FreqtradeApi, number: str) -> None:
    bot.says("status", position().replace('"amount": 1', f'"amount": {number}'))
    began = time.monotonic()
    assert fails(bot, lambda api: api.positions(1)).rule == "not-json"
    assert time.monotonic() - began < 5


def test_more_open_trades_than_anybody_has_are_refused(bot: FreqtradeApi) -> None:
    row = json.loads(position())[0]
    bot.says("status", [row] * (MOST_POSITIONS + 1))
    assert fails(bot, lambda api: api.positions(4)).rule == "too-long"
    bot.says("status", [row] * MOST_POSITIONS)
    assert len(asking(bot).positions(MOST_POSITIONS)) == MOST_POSITIONS


@pytest.mark.parametrize("row", ["1", "[]", '["now", 1, "a", "INFO", 5]', '["now", "1", "a", "INFO", "b"]',
                                 '["now", true, "a", "INFO", "b"]', '["now", 1e29, "a", "INFO", "b"]'])  # fmt: skip
def test_a_log_that_is_none_is_refused(bot: FreqtradeApi, row: str) -> None:
    bot.says("logs?limit=100", f'{{"logs": [{row}]}}')
    assert fails(bot, lambda api: api.logs(100)).rule == "not-json"


def _for_ever(head: bytes, more: bytes) -> Callable[[socket.socket], None]:
    def reply(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(more)

    return reply


def test_an_answer_of_a_hundred_megabytes_is_not_read(bot: FreqtradeApi) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n"
    bot.does("health", _for_ever(head, b" " * 65536))
    failure = fails(bot)
    assert (failure.rule, str(failure)) == ("too-long", "its answer to health goes on after 64 KiB.")


def test_an_answer_that_drips_takes_no_longer_than_all_questions_may(bot: FreqtradeApi) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{")
        while not bot.over.wait(0.02):
            connection.sendall(b" ")

    bot.does("health", drip)
    began = time.monotonic()
    assert fails(bot, seconds=0.4).rule == "timeout"
    assert time.monotonic() - began < 5


def test_nobody_there_is_refused(bot: FreqtradeApi) -> None:
    bot.close()
    assert fails(bot).rule == "refused"


# --------------------------------------------------------------------------------------------------------- credentials


@pytest.mark.parametrize("keys", [None, web.Credentials(USER, "wrong"), web.Credentials("other", PASSWORD)])
def test_one_that_does_not_know_us_says_what_to_mend(bot: FreqtradeApi, keys: web.Credentials | None) -> None:
    failure = fails(bot, credentials=keys, mend="Set FT_PASSWORD.")
    assert (failure.rule, str(failure)) == (
        "unauthorized",
        "it answers 401, so it does not know us. Set FT_PASSWORD.",
    )


def test_credentials_that_are_given_back_are_in_no_text(bot: FreqtradeApi) -> None:
    told = f"you are {USER} {PASSWORD} {KEYS.token}"
    bot.configured(version=PASSWORD, state=f"x{PASSWORD[:20]}")
    bot.logged(told)
    shown, (record,) = asking(bot).show_config(), asking(bot).logs(100)
    bot.says("start", {"status": told}, "POST")
    said = [shown.version, shown.state, record.text, asking(bot).start()]
    for answer in (http(told.encode(), "500 Oops"), http(json.dumps({"detail": told}).encode(), "422 No")):
        bot.sends("health", answer)
        said.append(str(fails(bot)))
    for name, wrong in (("health", {"last_process_ts": told}), ("count", {"current": {told: told}})):
        bot.says(name, wrong)
    said += [str(fails(bot)), str(fails(bot, Api.count)), repr(Access(bot.url, KEYS))]
    for text in said:
        assert PASSWORD not in text
        assert KEYS.token not in text
