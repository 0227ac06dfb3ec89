"""The packaged signature files: all known ways in which bots fail, and no healthy line taken for one of them.

tests/data/logs holds what a real freqtrade 2026.9 wrote when it failed in these ways, before a stand-in for its
exchange, and what the very modules of Hummingbot 20260922 wrote (clock, events, kill switch, connectors, MQTT); of
each only a few records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from re import _parser  # type: ignore[attr-defined]  # what tells the branches of a pattern
from typing import Any

import pytest

from botkeep.causes import read_log
from botkeep.model import CauseClass, Fault, LogLook
from botkeep.profiles.catalogue import DATED, Catalogue, MarkPattern, Signature, load, merged
from botkeep.profiles.signature import LinePattern

FILES = Path(load.__code__.co_filename).parent / "signatures"
NAMES = ("plain", "freqtrade", "hummingbot")
OWN = {name: load(FILES / f"{name}.yaml") for name in NAMES}
CATALOGUES = {name: merged((OWN[name], OWN["plain"])) for name in NAMES}
"""As the profiles put them together: the special before the general."""
DATA = Path(__file__).parents[1] / "data"
LOGS = DATA / "logs"

W, R, S, D, H = CauseClass.WAIT, CauseClass.RESTART, CauseClass.STOP, CauseClass.REPAIR, CauseClass.HOST
MODES: dict[int, tuple[CauseClass, str]] = {
    1: (W, "binance-ip-ban"),
    2: (W, "binance-weight rate-limited backs-off"),
    3: (W, "kucoin-limit kucoin-gives-up kucoin-busy"),
    4: (W, "okx-limit"),
    5: (W, "bybit-limit"),
    6: (H, "clock-off clock-deviates"),
    7: (H, "clock-off"),
    8: (H, "clock-off"),
    9: (S, "kraken-nonce"),
    10: (S, "binance-key-refused"),
    11: (S, "binance-key-malformed"),
    12: (S, "bybit-key-refused"),
    13: (S, "geo-block"),
    14: (R, "markets-not-loaded"),
    15: (W, "exchange-down"),
    16: (W, "exchange-timeout"),
    17: (W, "connection-lost"),
    18: (H, "name-resolution"),
    19: (W, "order-book-empty"),
    20: (R, "candles-outdated"),
    21: (R, "main-loop-stands no-heartbeat"),
    22: (R, "no-fresh-data"),
    23: (R, "database-locked"),
    24: (D, "database-damaged"),
    25: (D, "database-damaged"),
    26: (H, "disk-error"),
    27: (H, "disk-full"),
    28: (S, "file-permission database-not-opened log-not-writable"),
    29: (S, "order-stored-twice"),
    30: (S, "database-of-another-version"),
    31: (D, "order-without-trade"),
    32: (D, "history-reset"),
    33: (S, "telegram-conflict"),
    34: (S, "address-in-use"),
    35: (R, "out-of-memory kernel-oom"),
    36: (S, "engine-restart-loop"),
    37: (R, "stopped-from-outside"),
    38: (S, "stopped-by-itself"),
    39: (S, "configuration-error settings-refused settings-unusable strategy-not-loaded strategy-not-started "
         "password-missing"),
    40: (S, "strategy-raises strategy-gives-no-signals"),
    41: (H, "strategy-too-slow"),
    42: (S, "cannot-exit"),
    43: (S, "order-filter"),
    44: (S, "near-liquidation"),
    45: (R, "clock-tick-fails"),
    46: (D, "event-not-stored"),
    47: (R, "user-stream-fails"),
    48: (R, "book-stream-fails"),
    49: (R, "websocket-closes"),
    50: (W, "connector-not-ready"),
    51: (R, "cancel-found-no-order order-considered-lost"),
    52: (S, "kill-switch kill-switch-reached"),
    53: (W, "mqtt-disconnected"),
    54: (D, "trades-missing"),
    55: (R, "silent-exit"),
}  # fmt: skip
"""Mode of the catalogue of failures -> what it asks for, and the ids of its signatures and rules."""

WITHOUT_A_LINE = {
    "main-loop-stands", "no-heartbeat", "no-fresh-data", "history-reset", "kernel-oom", "engine-restart-loop",
    "trades-missing", "silent-exit",
}  # fmt: skip

FT = "2026-11-21 09:31:07,412 - freqtrade"
HB = "2026-11-21 09:31:07,412 - 23707 - hummingbot"
"""How their records begin."""

SHADOWED = {("freqtrade", "kucoin-limit"): "kucoin-busy"}
"""What means less to one program than to others."""


def _patterns(name: str) -> Sequence[LinePattern]:
    return (*OWN[name].signatures, *OWN[name].marks)


EVERY = [(name, one) for name in NAMES for one in CATALOGUES[name].signatures]
MARKS = [(name, one) for name in NAMES for one in OWN[name].marks]


def meaning(catalogue: Catalogue, text: str) -> str | None:
    """The signature that a line, or lines that belong together, counts for."""
    found = (one for one in catalogue.signatures if one.may_match(text) and one.match(text) is not None)
    return next((one.id for one in found), None)


def stated(catalogue: Catalogue, text: str) -> dict[str, dict[str, str | None]]:
    """The marks of a line, with their values."""
    found = {one.id: one.match(text) for one in catalogue.marks if one.may_match(text)}
    return {name: dict(match.groupdict()) for name, match in found.items() if match is not None}


def name_of(value: object) -> str | None:
    return value.id if isinstance(value, Signature | MarkPattern) else None


# ------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", NAMES)
def test_every_packaged_entry_can_be_used(name: str) -> None:
    assert OWN[name].problems == ()


@pytest.mark.parametrize("mode", range(1, 56))
def test_every_known_way_to_fail_has_its_signatures_or_a_rule(mode: int) -> None:
    klass, ids = MODES[mode]
    everything = {one.id: one for each in OWN.values() for one in (*each.signatures, *each.rules.values())}
    assert {one.id for one in everything.values() if mode in one.modes} == set(ids.split())
    assert {everything[name].klass for name in ids.split()} == {klass}


def test_what_has_no_line_is_a_rule_that_holds_for_every_program() -> None:
    assert set(OWN["plain"].rules) == WITHOUT_A_LINE
    for name in NAMES:
        assert set(CATALOGUES[name].rules) == WITHOUT_A_LINE


def test_no_id_means_two_things_to_one_program() -> None:
    for name in ("freqtrade", "hummingbot"):
        for kind in ("signatures", "marks"):
            ids = [one.id for each in (OWN[name], OWN["plain"]) for one in getattr(each, kind)]
            assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("name", "signature"), EVERY, ids=name_of)
def test_its_example_counts_for_it_and_for_no_other(name: str, signature: Signature) -> None:
    assert meaning(CATALOGUES[name], signature.example) == SHADOWED.get((name, signature.id), signature.id)


@pytest.mark.parametrize(("name", "mark"), MARKS, ids=name_of)
def test_its_example_states_it(name: str, mark: MarkPattern) -> None:
    assert mark.id in stated(OWN[name], mark.example)


@pytest.mark.parametrize(("name", "signature"), EVERY, ids=name_of)
def test_each_says_what_it_is_and_what_to_do_about_it(name: str, signature: Signature) -> None:
    assert re.fullmatch(r"[A-Z][^.!?]{10,120}\.", signature.cause)
    assert re.fullmatch(r"[A-Z].{5,300}\.", signature.advice)
    assert re.search(r"[\w.-]+/[\w.-]+#\d+|\w+ \w+", signature.source)


@pytest.mark.parametrize(("name", "signature"), EVERY, ids=name_of)
def test_each_is_found_by_a_text_that_it_holds(name: str, signature: Signature) -> None:
    assert signature.contains
    assert min(map(len, signature.contains)) >= 4


@pytest.mark.parametrize(("name", "one"), [(name, one) for name in NAMES for one in _patterns(name)], ids=name_of)
def test_whatever_a_pattern_matches_holds_one_of_its_texts(name: str, one: LinePattern) -> None:
    """Every way through it, or the search would pass over such lines."""
    assert [text for text in _texts(_parsed(one)) if not any(literal in text for literal in one.contains)] == []


def _parsed(one: LinePattern) -> Sequence[tuple[Any, Any]]:
    found: Sequence[tuple[Any, Any]] = _parser.parse(one.pattern.replace(r"\z", r"\Z"))
    return found


def _texts(pattern: Iterable[tuple[Any, Any]]) -> list[str]:
    """The shortest text for each way through a parsed pattern."""
    texts = [""]
    for kind, value in pattern:
        texts = [before + after for before in texts for after in _texts_of(str(kind), value)]
    return texts


def _texts_of(kind: str, value: Any) -> list[str]:
    if kind == "LITERAL":
        return [chr(value)]
    if kind == "IN":
        each = [_texts_of(str(name), inner) for name, inner in value]
        few = all(str(name) == "LITERAL" for name, _ in value) and len(each) <= 3
        return [texts[0] for texts in each] if few else each[0]
    if kind == "RANGE":
        return [chr(value[0])]
    if kind == "CATEGORY":
        return [{"CATEGORY_DIGIT": "1", "CATEGORY_SPACE": " "}.get(str(value), "x")]
    if kind == "BRANCH":
        return [text for branch in value[1] for text in _texts(branch)]
    if kind == "SUBPATTERN":
        return _texts(value[3])
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        fewest, most, inner = value
        return ["", *_texts(inner)] if (fewest, most) == (0, 1) else [text * fewest for text in _texts(inner)]
    return [{"ANY": "x", "NOT_LITERAL": "x", "NEGATE": "x"}.get(kind, "")]


@pytest.mark.parametrize("name", ["freqtrade", "hummingbot"])
def test_a_programs_own_words_count_only_at_the_beginning_of_its_record(name: str) -> None:
    """Behind it stands what an exchange or a person said. A few are not its own: SQLite's, an exchange's code."""
    first = {one.id: str(_parsed(one)[0]) for one in _patterns(name)}
    free = {name for name, node in first.items() if node != "(AT, AT_BEGINNING_STRING)"}
    assert free <= {"order-stored-twice", "database-of-another-version", "kucoin-gives-up", "kucoin-busy"}
    assert OWN[name].joins == DATED


def test_only_what_lasts_counts_where_one_line_is_nothing() -> None:
    lasting = {
        one.id: (one.after.lines, one.after.within) for each in OWN.values() for one in each.signatures if one.after
    }
    minute = timedelta(minutes=1)
    assert lasting == {
        "order-filter": (3, 10 * minute),
        "strategy-raises": (5, 10 * minute),
        "cannot-exit": (3, 10 * minute),
        "kucoin-gives-up": (3, 10 * minute),
        "clock-tick-fails": (10, minute),
        "user-stream-fails": (20, 5 * minute),
        "book-stream-fails": (20, 5 * minute),
        "websocket-closes": (3, 10 * minute),
        "connector-not-ready": (120, 3 * minute),
        "cancel-found-no-order": (3, 10 * minute),
    }


def test_what_may_pass_by_itself_leads_to_no_playbook() -> None:
    """One thin pair, a back-off, a busy exchange, a closed connection: a person may know, a bot is not ill."""
    faults = {one.id: one.fault for each in OWN.values() for one in each.signatures}
    for name in ("candles-outdated", "backs-off", "kucoin-busy", "websocket-closes", "order-book-empty"):
        assert faults[name] is None
    for name in ("stopped-by-itself", "strategy-raises", "cannot-exit", "near-liquidation", "clock-tick-fails"):
        assert faults[name] is Fault.BOT_IMPAIRED


def test_a_kill_switch_is_remembered_longest() -> None:
    recent = {one.id: one.recent for each in OWN.values() for one in each.signatures}
    assert max(recent, key=lambda name: recent[name]) == "kill-switch-reached"


# -------------------------------------------------------------------------------------------------- what an exit means


def test_freqtrade_ends_with_zero_over_a_wrong_configuration_too() -> None:
    codes = CATALOGUES["freqtrade"].codes
    assert "mistake in its configuration" in codes[0]
    assert "asked to end" in codes[130]
    assert "exchange" in codes[2]
    assert "database" in codes[1]
    assert {126, 127, 137, 139} <= set(codes)
    assert {6, 9, 11, 15} <= set(CATALOGUES["freqtrade"].signals)


def test_hummingbot_ends_with_zero_when_it_was_asked_to() -> None:
    codes = CATALOGUES["hummingbot"].codes
    assert "asked to end" in codes[0]
    assert "password" in codes[4]
    assert {1, 2, 3, 5, 137, 139} <= set(codes)


# ---------------------------------------------------------------------------------------------- what a real bot wrote


def look_at(path: Path, name: str) -> LogLook:
    """One look at a log, a moment after its newest line."""
    newest = max(re.findall(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", path.read_text(encoding="utf-8")))
    now = datetime.fromisoformat(newest).replace(tzinfo=UTC) + timedelta(seconds=2)
    look = read_log(path, cursor=None, now=now, zone="UTC", catalogue=lambda: CATALOGUES[name])
    assert look.problem is None
    return look


@pytest.mark.parametrize("name", ["freqtrade", "plain"])
@pytest.mark.parametrize(
    "log", ["freqtrade/start.log", "freqtrade/stdout-folded.log", "docker/freqtrade_docker_logs.txt"]
)
def test_a_healthy_freqtrade_names_no_cause(log: str, name: str) -> None:
    assert look_at(DATA / log, name).causes == ()


def test_what_freqtrades_api_gives_of_its_log_names_no_cause() -> None:
    rows = json.loads((DATA / "freqtrade/api_dry/logs_limit_20.json").read_text())["logs"]
    lines = [f"{at},000 - {logger} - {level} - {text}" for at, _, logger, level, text in rows]
    assert len(lines) == 20
    assert [meaning(CATALOGUES["freqtrade"], line) for line in lines] == [None] * 20


def test_hummingbots_first_minute_names_one_cause_and_that_one_is_true() -> None:
    """It was started on a machine without a network: each of its ten tracebacks says so. A connector that is not
    ready in its first second is nothing."""
    look = look_at(DATA / "hummingbot/log-without-events.log", "hummingbot")
    assert [one.signature for one in look.causes] == ["name-resolution"]
    assert look.marks["started"].values == {"strategy": "simple_pmm", "who": "23707"}
    assert look.marks["using-db"].values == {"database": "conf_simple_pmm_1"}
    assert look.marks["connector"].who[0][0] == "binance_paper_trade"
    assert look.marks["subscribed"].values["who"] == "BinanceAPIOrderBookDataSource"


FREQTRADE_WROTE = {  # file of tests/data/logs -> the causes it names
    "binance-ban": "binance-ip-ban backs-off stopped-from-outside",
    "binance-ban-console": "binance-ip-ban backs-off markets-not-loaded",
    "binance-clock": "clock-off markets-not-loaded",
    "binance-country-console": "geo-block markets-not-loaded",
    "binance-filter": "order-filter stopped-from-outside",
    "binance-key": "binance-key-refused backs-off stopped-from-outside",
    "binance-key-console": "binance-key-refused markets-not-loaded",
    "binance-key-format": "binance-key-malformed markets-not-loaded",
    "binance-signature": "binance-key-malformed markets-not-loaded",
    "binance-weight": "binance-weight backs-off markets-not-loaded",
    "bybit-clock": "clock-off markets-not-loaded",
    "bybit-key": "bybit-key-refused markets-not-loaded",
    "bybit-limit": "bybit-limit markets-not-loaded",
    "candles-stand": "candles-outdated stopped-from-outside",
    "cannot-sell": "cannot-exit stopped-from-outside",
    "clock-deviates-console": "clock-deviates stopped-from-outside",
    "database-full": "disk-full",
    "database-garbage": "database-damaged",
    "database-locked": "database-locked",
    "database-malformed": "database-damaged",
    "database-newer": "database-of-another-version",
    "database-no-folder": "database-not-opened",
    "database-removed": "database-read-only",
    "exchange-502": "exchange-down stopped-from-outside",
    "exchange-503": "exchange-down stopped-from-outside",
    "exchange-mute": "exchange-timeout stopped-from-outside",
    "exchange-refused": "exchange-down markets-not-loaded",
    "exchange-resets": "connection-lost stopped-from-outside",
    "kraken-key": "kraken-key-refused markets-not-loaded",
    "kraken-limit": "kraken-limit backs-off markets-not-loaded",
    "kraken-nonce": "kraken-nonce markets-not-loaded",
    "kucoin-key": "kucoin-key-refused markets-not-loaded",
    "kucoin-limit": "kucoin-busy markets-not-loaded",
    "log-denied": "file-permission",
    "log-full": "disk-full stopped-from-outside",
    "maintenance-page": "order-book-empty stopped-from-outside",
    "maintenance-page-start": "markets-not-loaded",
    "no-names": "exchange-down name-resolution markets-not-loaded",
    "okx-key": "okx-key-refused markets-not-loaded",
    "okx-limit": "okx-limit markets-not-loaded",
    "order-orphan": "order-without-trade stopped-from-outside",
    "order-twice": "order-stored-twice",
    "port-taken": "address-in-use stopped-from-outside",
    "quoting": "stopped-from-outside",
    "settings-database": "settings-refused",
    "settings-exchange": "settings-refused",
    "settings-json-console": "settings-refused",
    "settings-missing": "settings-unusable",
    "settings-no-file": "settings-refused",
    "settings-stake": "settings-refused",
    "settings-stoploss": "settings-refused",
    "settings-wrong-kind": "settings-unusable",
    "states": "stopped-from-outside",
    "stopped-by-itself": "stopped-by-itself stopped-from-outside",
    "strategy-exit-error": "strategy-raises stopped-from-outside",
    "strategy-key-error": "strategy-raises strategy-gives-no-signals stopped-from-outside",
    "strategy-memory": "out-of-memory stopped-from-outside",
    "strategy-missing": "strategy-not-loaded",
    "strategy-slow": "strategy-too-slow stopped-from-outside",
    "strategy-value-error": "strategy-raises strategy-gives-no-signals stopped-from-outside",
    "telegram-conflict": "telegram-conflict",
    "wallet-empty": "cannot-exit stopped-from-outside",
}
HUMMINGBOT_WROTE = {
    "book-stream": "",
    "fills-lost": "event-not-stored",
    "kill-switch": "kill-switch-reached",
    "lost-order": "cancel-found-no-order order-considered-lost",
    "mqtt": "mqtt-disconnected",
    "ticks": "",
    "user-stream": "",
    "user-stream-no-names": "name-resolution",
    "websocket-closed": "websocket-closes",
}  # what lasts too short for a cause is in `test_what_lasts_counts`


@pytest.mark.parametrize("log", FREQTRADE_WROTE)
def test_what_freqtrade_wrote_as_it_failed_names_its_cause_and_no_other(log: str) -> None:
    look = look_at(LOGS / f"{log}.log", "freqtrade")
    assert {one.signature for one in look.causes} == set(FREQTRADE_WROTE[log].split())


@pytest.mark.parametrize("log", HUMMINGBOT_WROTE)
def test_what_hummingbot_wrote_as_it_failed_names_its_cause_and_no_other(log: str) -> None:
    look = look_at(LOGS / f"hummingbot-{log}.log", "hummingbot")
    assert {one.signature for one in look.causes} == set(HUMMINGBOT_WROTE[log].split())


def test_no_log_is_kept_without_being_read() -> None:
    read = {*FREQTRADE_WROTE, *(f"hummingbot-{name}" for name in HUMMINGBOT_WROTE)}
    assert {path.stem for path in LOGS.glob("*.log")} == read


def test_a_ban_has_its_end_also_where_the_console_folds_the_line_in_its_words() -> None:
    text = (LOGS / "binance-ban-console.log").read_text()
    assert "IP banned \nuntil 1795282400134" in text
    ban = next(one for one in look_at(LOGS / "binance-ban-console.log", "freqtrade").causes if one.until)
    assert ban.signature == "binance-ip-ban"
    assert ban.until == datetime.fromtimestamp(1795282403300 / 1000, UTC)


def test_a_refused_key_is_the_first_cause_of_a_start_without_markets() -> None:
    """The restart that a missing market allows is forbidden by what stands above it."""
    classes = {one.signature: one.klass for one in look_at(LOGS / "binance-key-console.log", "freqtrade").causes}
    assert classes == {"binance-key-refused": S, "markets-not-loaded": R}


def test_what_a_bot_passes_on_to_people_names_no_cause() -> None:
    """A strategy sent these very words to Telegram; a bot that stopped told people its traceback."""
    assert "IP banned until 1795254686000" in (LOGS / "quoting.log").read_text()
    assert "{'type': exception, 'status': '*OperationalException:*" in (LOGS / "stopped-by-itself.log").read_text()
    assert [one.signature for one in look_at(LOGS / "quoting.log", "plain").causes] == []


def test_words_that_an_exchange_puts_into_its_answer_keep_no_cause_from_counting() -> None:
    said = "2026-11-21 09:31:07,412 - freqtrade.rpc.rpc_manager - INFO - Sending rpc message: x"
    line = f'{FT}.exchange.common - WARNING - get_balances() returned exception: "binance {{"code":-2015,"msg":"{said}"'
    assert meaning(CATALOGUES["freqtrade"], line) == "binance-key-refused"


# ------------------------------------------------------------------------------------------- facts that lines state


def test_freqtrade_says_which_process_it_is_and_in_which_state() -> None:
    marks = look_at(LOGS / "states.log", "freqtrade").marks
    assert marks["heartbeat"].who[0][0].isdigit()
    assert marks["heartbeat"].values["version"] == "2026.9"
    assert marks["heartbeat"].values["strategy_version"] == "rig-1"
    assert marks["state-changed"].values == {"before": "STOPPED", "state": "RUNNING"}
    assert marks["runmode"].values == {"runmode": "dry_run"}
    assert marks["using-db"].values == {"url": "sqlite:////opt/bot/tradesv3.sqlite"}
    assert marks["exchange"].values == {"exchange": "Binance"}
    assert marks["whitelist"].values == {"pairs": "1"}
    assert marks["time-offset"].values["exchange"] == "Binance"
    assert marks["api-listens"].values == {"url": "http://127.0.0.1:8991"}
    assert marks["exiting"].count == 1


def test_freqtrade_says_which_pairs_stand_still() -> None:
    mark = look_at(LOGS / "candles-stand.log", "freqtrade").marks["outdated-history"]
    assert [who for who, _ in mark.who] == ["BTC/USDT"]
    assert mark.values["minutes"] == "30"


def test_freqtrade_says_which_port_is_taken_and_how_far_its_clock_is_off() -> None:
    assert look_at(LOGS / "port-taken.log", "freqtrade").marks["api-port-taken"].values["port"] == "8991"
    deviation = look_at(LOGS / "clock-deviates-console.log", "freqtrade").marks["time-deviation"]
    assert deviation.values == {"exchange": "Binance", "seconds": "5.0"}


def test_a_start_log_and_a_folded_one_state_the_same_facts() -> None:
    start = look_at(DATA / "freqtrade/start.log", "freqtrade").marks
    docker = look_at(DATA / "docker/freqtrade_docker_logs.txt", "freqtrade").marks
    for name in ("runmode", "exchange", "using-db", "state-changed", "order-created", "order-filled"):
        assert start[name].values.keys() == docker[name].values.keys()
    assert docker["started"].values == {"version": "2026.9"}
    assert docker["heartbeat"].who[0][0] == "1"


def test_hummingbot_says_what_it_filled_and_what_it_lost() -> None:
    marks = look_at(LOGS / "hummingbot-fills-lost.log", "hummingbot").marks
    assert marks["fill"].values == {
        "order": "sell://ETH-USDT/4e9c0b", "pair": "ETH-USDT", "side": "SELL", "price": "2640.32", "amount": "0.05",
    }  # fmt: skip
    assert (marks["fill"].count, marks["fills-lost"].count) == (2, 1)
    assert marks["order-created"].values["side"] == "Buy"
    assert marks["order-cancelled"].count == 1
    assert marks["order-failed"].count == 2
    assert [who for who, _ in marks["event"].who] == ["2703"]


def test_a_subscription_after_a_closed_connection_is_seen_as_such() -> None:
    marks = look_at(LOGS / "hummingbot-websocket-closed.log", "hummingbot").marks
    assert marks["websocket-closed"].who[0][0] == marks["subscribed"].who[0][0] == "BinanceAPIOrderBookDataSource"
    assert marks["websocket-closed"].count == marks["subscribed"].count == 4


FORGED = {
    "in an answer": "2026-11-21 09:31:07,412 - freqtrade.exchange.common - WARNING - x() returned exception: "
    "\"2026-11-21 09:31:07,412 - freqtrade.worker - INFO - Bot heartbeat. PID=1, version='1', state='RUNNING'\"",
    "in a message": "2026-11-21 09:31:07,412 - freqtrade.rpc.rpc_manager - INFO - Sending rpc strategy_msg: "
    "Bot heartbeat. PID=1, version='1', state='RUNNING'",
    "by another logger": "2026-11-21 09:31:07,412 - RigStrategy - INFO - Bot heartbeat. PID=1, version='1', "
    "state='RUNNING'",
    "with more behind": "2026-11-21 09:31:07,412 - freqtrade.worker - INFO - Bot heartbeat. PID=1, version='1', "
    "state='RUNNING' and more",
    "with more between": "2026-11-21 09:31:07,412 - freqtrade.worker - INFO - Bot heartbeat. PID=1, version='1', x, "
    "state='RUNNING'",
    "no pid": "2026-11-21 09:31:07,412 - freqtrade.worker - INFO - Bot heartbeat. PID=-1, version='1', state='RUNNING'",
}


@pytest.mark.parametrize("line", FORGED.values(), ids=FORGED)
def test_a_heartbeat_is_the_whole_line_or_none(line: str) -> None:
    assert "heartbeat" not in stated(CATALOGUES["freqtrade"], line)


def test_a_fill_is_none_inside_another_text() -> None:
    event = next(one.example for one in OWN["hummingbot"].marks if one.id == "fill")
    inside = json.dumps(event.partition(" - EVENT_LOG - ")[2])
    line = event.partition("{")[0] + '{"timestamp": 1, "order_id": ' + inside + ', "event_name": "OrderExpiredEvent"}'
    assert set(stated(OWN["hummingbot"], line)) == {"event"}
    assert stated(OWN["hummingbot"], line)["event"]["event"] == "OrderExpiredEvent"


# ------------------------------------------------------------------------------------------ one failure, many spellings


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('binance 418 I\'m a teapot {"code": -1003, "msg": "IP banned until 1795254686000."}', "binance-ip-ban"),
        ('binance 418 I\'m a Teapot {"code":-1003,"msg":"Way too many requests; IP(1.2.3.4) banned until '
         '1795254686000. Please"}', "binance-ip-ban"),
        ("APIError(code=-1003): Too much request weight used; current limit is 1200.", "binance-weight"),
        ('kucoin {"code": "429000", "msg": "Too Many Requests"}', "kucoin-limit"),
        ('okx {"code":50011,"msg":"Rate limit reached"}', "okx-limit"),
        ('{"retCode": 10006, "retMsg": "Too many visits!"}', "bybit-limit"),
        ('binance {"code": -1021, "msg": "Timestamp for this request is outside of the recvWindow."}', "clock-off"),
        ('mexc {"code":700003,"msg":"Timestamp for this request is outside of the recvWindow."}', "clock-off"),
        ("invalid request, please check your server timestamp or recv_window param (ErrCode: 10002)", "clock-off"),
        ('{"code": -2014, "msg": "API-key format invalid."}', "binance-key-malformed"),
        ("API key is invalid. (ErrCode: 10003) (ErrTime: 12:00:00).", "bybit-key-refused"),
        ('Filter failure: x {"code": -1013, "msg": "Filter failure: LOT_SIZE"}', "order-filter"),
        ("APIError(code=-1013): Filter failure: PRICE_FILTER", "order-filter"),
        ('binance GET https://api.binance.com/api/v3/exchangeInfo 451  {\n  "code": 0,\n  "msg": "Service unavailable '
         'from a restricted location according to"}', "geo-block"),
        ("sqlite3.OperationalError: database table is locked", "database-locked"),
        ("OSError: [Errno 122] Disk quota exceeded", "disk-full"),
        ("_ArrayMemoryError: Unable to allocate 1.49 GiB", "out-of-memory"),
        ("Out of memory: Killed process 4711 (freqtrade) total-vm:1,9GB", "out-of-memory"),
        ("ERROR KILL SWITCH TRIGGERED", "kill-switch"),
        ("Maximum drawdown exceeded: -15 %", "kill-switch"),
        ("config file settings.json was not found", "configuration-error"),
        ("Error: API key expired", "key-refused"),
        ("request failed: INVALID API-KEY", "key-refused"),
        ("Error executing request GET https://api.gateio.ws/x. HTTP status is 429. Error: slow down", "rate-limited"),
        ("Error executing request GET https://api.gateio.ws/x. HTTP status is 503. Error: x", "exchange-down"),
        ("requests.exceptions.HTTPError: 500 Internal Server Error", "exchange-down"),
        ("ccxt.base.errors.OnMaintenance: kraken EService:Unavailable", "exchange-down"),
        ("asyncio.exceptions.TimeoutError", "exchange-timeout"),
        ("aiohttp.client_exceptions.ServerDisconnectedError: Server disconnected", "connection-lost"),
    ],
)  # fmt: skip
def test_the_same_failure_is_known_in_its_spellings(line: str, expected: str) -> None:
    assert meaning(CATALOGUES["plain"], line) == expected


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("freqtrade", f"{FT}.freqtradebot - WARNING - Unable to emergency exit trade BTC/USDT: Not enough amount to "
         "exit trade. Trade-amount: 1.0, Wallet: 0.99", "cannot-exit"),
        ("freqtrade", f"{FT}.freqtradebot - WARNING - Unable to place stoploss order Insufficient funds to create "
         "stop_loss_limit sell order on market ETH/USDT. Tried to create sell order with amount 1", "cannot-exit"),
        ("freqtrade", f"{FT}.strategy.strategy_wrapper - ERROR - Unexpected error MemoryError() calling <bound method>",
         "out-of-memory"),
        ("freqtrade", f"{FT}.exchange.exchange - WARNING - Your system time deviates by -12.3s from the time of "
         "Kraken. This can cause failing requests", "clock-deviates"),
        ("freqtrade", f"{FT} - ERROR - Impossible to load Pairlist 'NoList'. This class does not exist or contains",
         "strategy-not-loaded"),
        ("freqtrade", f"{FT} - ERROR - No strategy set. Please use `--strategy` to specify the strategy class to use.",
         "strategy-not-loaded"),
        ("freqtrade", f"{FT} - ERROR - Could not get balance due to AuthenticationError. Message: binance "
         '{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}', "binance-key-refused"),
        ("freqtrade", f"{FT}.freqtradebot - WARNING - ETH/USDT:USDT has 4.05% left to its liquidation stop (1, current",
         "near-liquidation"),
        ("freqtrade", 'ccxt.base.errors.RateLimitExceeded: kucoin {"code":"429000","msg":"Too Many Requests"}',
         "kucoin-busy"),
        ("freqtrade", f"{FT} - ERROR - Fatal exception!\nTraceback (most recent call last):\nKeyError: 'x'",
         "fatal-exception"),
        ("freqtrade", f"{FT} - ERROR - Fatal exception!\nTraceback (most recent call last):\n"
         "sqlite3.OperationalError: disk I/O error", "disk-error"),
        ("hummingbot", "2022-11-21 09:31:07,412 - hummingbot.core.clock - ERROR - Unexpected error running clock tick.",
         "clock-tick-fails"),
        ("hummingbot", f"{HB}.core.pubsub - ERROR - Unexpected error while processing event 200.", "event-not-stored"),
        ("hummingbot", f"{HB}.connector.exchange.kraken.kraken_user - ERROR - Unexpected error while listening to user "
         "stream wss://ws-auth.kraken.com/. Retrying after 5 seconds...", "user-stream-fails"),
        ("hummingbot", f"{HB}.connector.exchange.kraken.kraken_user - ERROR - Unexpected error while listening to user "
         "stream. Retrying after 5 seconds...\nTraceback (most recent call last):\nOSError: Error executing request "
         "POST https://x. HTTP status is 429. Error: x", "rate-limited"),
        ("hummingbot", f"{HB}.connector.exchange.coinbase.c - WARNING - Failed to cancel order abc (order not found OR "
         "duplicate request)", "cancel-found-no-order"),
        ("hummingbot", f"{HB}.client.hummingbot_application - WARNING - MQTT Gateway is disconnected, attempting to "
         "reconnect.", "mqtt-disconnected"),
        ("hummingbot", f"{HB}.core.trading_core - ERROR - Failed to start strategy pmm: (sqlite3.DatabaseError) file "
         "is not a database", "database-damaged"),
    ],
)  # fmt: skip
def test_a_programs_own_words_are_known_in_their_spellings(name: str, line: str, expected: str) -> None:
    assert meaning(CATALOGUES[name], line) == expected


# ------------------------------------------------------------------------------------------- what is taken for nothing

NEAR_MISSES = [
    f"{FT}.freqtradebot - INFO - Long signal found: about create a new trade for 418/USDT with stake_amount: 429 and "
    "price: 503.0 ...",
    f"{FT}.plugins.pairlistmanager - INFO - Whitelist with 3 pairs: ['418/USDT', 'BAN/USDT', '1003/USDT']",
    f"{FT}.freqtradebot - INFO - Pair BTC/USDT long is locked until 2026-11-21 10:22:00 due to Auto lock.",
    f"{FT}.rpc.rpc_manager - INFO - Sending rpc message: {{'type': warning, 'status': 'binance {{\"code\":-2015}}'}}",
    f"{FT}.rpc.rpc_manager - INFO - Sending rpc strategy_msg: sqlite3.OperationalError: database is locked",
    f"{FT}.rpc.telegram - WARNING - Telegram NetworkError: httpx.ConnectError: x! Trying one more time.",
    f"{FT}.rpc.telegram - WARNING - TelegramError: Too Many Requests: retry after 429! Giving up on that message.",
    f"{FT}.rpc.fiat_convert - ERROR - Error in _find_price: 429 Client Error: Too Many Requests for url: "
    "https://api.coingecko.com/api/v3/simple/price",
    f"{FT}.rpc.webhook - WARNING - Could not call webhook url. Exception: 503 Server Error: Service Unavailable",
    f"{FT}.rpc.discord - WARNING - 401 Client Error: Unauthorized for url: https://discord.com/api/x",
    '127.0.0.1:5 - "GET /api/v1/%7B%22code%22:-2015%7D HTTP/1.1" 401 Unauthorized',
    "2026-11-21 09:31:07,412 - uvicorn.access - INFO - 10.0.0.9:5 - \"GET /{'code':-1003} HTTP/1.1\" 404",
    '2026-11-21 09:31:07,412 - uvicorn.access - INFO - 10.0.0.9:5 - "GET /?"code":-1021 HTTP/1.1" 429 Too Many',
    '10.0.0.9 - - [21/Nov/2026:09:31:07 +0000] "GET /database-is-locked database is locked HTTP/1.1" 503 0',
    f"{FT}.worker - INFO - Changing state from RUNNING to: STOPPED",
    f"{FT}.commands.trade_commands - INFO - worker found ... calling exit",
    f"{FT}.rpc.rpc_manager - INFO - Sending rpc message: {{'type': status, 'status': 'process died'}}",
    f"{FT}.exchange.exchange - INFO - Time offset to Binance is -1400ms.",
    f"{FT}.freqtradebot - WARNING - Unable to create trade for BTC/USDT: Insufficient funds to create market buy order "
    "on market BTC/USDT. Tried to buy amount 0.00333 at rate 60001.0.Message: binance Account has insufficient balance",
    f"{FT}.plugins.protections.max_drawdown_protection - INFO - Trading stopped due to Max Drawdown 0.25 > 0.2",
    f"{FT}.strategy.interface - WARNING - Unable to analyze candle (OHLCV) data for pair BTC/USDT: ",
    f"{FT}.freqtradebot - INFO - Exit for BTC/USDT detected. Reason: stop_loss",
    "2026-11-21 09:31:07,412 - RigStrategy - ERROR - OperationalException. Stopping trader ...",
    "2026-11-21 09:31:07,412 - RigStrategy - WARNING - Outdated history for pair BTC/USDT. Last tick is 30 minutes old",
    "2026-11-21 09:31:07,412 - RigStrategy - INFO - SIGINT received, aborting ...",
    f"{HB}.core.pubsub - ERROR - Unexpected error while processing event 901.",
    f"{HB}.strategy.strategy_v2_base - INFO - Kill switch threshold: 10 %. Not reached.",
    f"{HB}.core.event.event_reporter - EVENT_LOG - {{\"order_id\": \"Unexpected error running clock tick\"}}",
    f"{HB}.connector.exchange.x - INFO - Subscribed to private channels...",
    "price 0.50011 amount 10006 total 429000.10003 fee 0.0000-2015",
    "no kill switch configured; stop loss hit at 3 %, drawdown 12 %",
    "order 98 was cancelled; code 2015; the API key ends in 401",
    "stored 50111 candles, 400003 ticks and 700003 trades",
    "config file settings.json read; 3 pairs not found",
    "SyntaxWarning: invalid escape sequence",
    "    raise DDoSProtection(self.id + ' ' + str(code) + ' ' + reason + ' ' + body)",
    "    raise NetworkError(details) from e",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("line", NEAR_MISSES)
def test_a_near_miss_means_nothing(line: str, name: str) -> None:
    assert meaning(CATALOGUES[name], line) is None


OWN_WORDS = [
    (name, one)
    for name in ("freqtrade", "hummingbot")
    for one in OWN[name].signatures
    if one.pattern.startswith(r"\A\d")
]


@pytest.mark.parametrize(("name", "signature"), OWN_WORDS, ids=name_of)
def test_a_record_that_quotes_another_one_does_not_count_for_it(name: str, signature: Signature) -> None:
    """An exchange, a strategy or a person puts a whole record into a text that the bot writes."""
    before = f"{FT}.freqtradebot - WARNING - Unable to create trade: " if name == "freqtrade" else f"{HB}.x - INFO - "
    assert meaning(OWN[name], before + signature.example) != signature.id


def test_healthy_lines_are_hardly_ever_tried() -> None:
    """What costs is a line that holds the text of a pattern: a hundred megabytes have a million lines."""
    for name, logs in {
        "freqtrade": ("freqtrade/start.log", "freqtrade/stdout-folded.log", "docker/freqtrade_docker_logs.txt"),
        "hummingbot": ("hummingbot/log-without-events.log",),
    }.items():
        lines = [line for log in logs for line in (DATA / log).read_text().splitlines() if "gaierror" not in line]
        tried = [line for line in lines if any(one.may_match(line) for one in CATALOGUES[name].signatures)]
        assert len(lines) > 300
        assert len(tried) <= len(lines) / 200, tried


# ------------------------------------------------------------------------------------------------------- what lasts

BEGAN = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def _lines(signature: Signature, count: int, apart: timedelta) -> Sequence[str]:
    text = re.sub(r"\A\S+ \S+", "{}", signature.example) if signature.example.startswith("2026") else signature.example
    stamp = "%Y-%m-%d %H:%M:%S,000"
    if "{}" not in text[:2]:
        text = "{} - bot - ERROR - " + text
    return ["".join((f"{BEGAN + apart * number:{stamp}}", text[2:])) for number in range(count)]


LASTING = [(name, one) for name in NAMES for one in OWN[name].signatures if one.after]


@pytest.mark.parametrize(("name", "signature"), LASTING, ids=name_of)
def test_what_lasts_counts_and_what_does_not_is_nothing(name: str, signature: Signature, tmp_path: Path) -> None:
    assert signature.after is not None
    lines, apart = signature.after.lines, signature.after.within / signature.after.lines
    path = tmp_path / "bot.log"
    for count, told in ((lines - 1, False), (lines, True)):
        path.write_text("\n".join([*_lines(signature, count, apart), ""]))
        now = BEGAN + apart * count
        look = read_log(path, cursor=None, now=now, zone="UTC", catalogue=lambda: CATALOGUES[name])
        assert [one.signature for one in look.causes] == [signature.id] * told


def test_a_thin_pair_is_told_from_a_dead_feed_by_its_marks(tmp_path: Path) -> None:
    """The same line, hundreds of times: of one pair of six, or of each of them."""
    path = tmp_path / "freqtrade.log"
    for pairs in (("THIN/USDT",), ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT", "DOGE/USDT")):
        lines = [
            f"{BEGAN + timedelta(seconds=5 * number):%Y-%m-%d %H:%M:%S,000} - freqtrade.strategy.interface - WARNING - "
            f"Outdated history for pair {pairs[number % len(pairs)]}. Last tick is {7 + number // 12} minutes old\n"
            for number in range(120)
        ]
        path.write_text("".join(lines))
        now = BEGAN + timedelta(minutes=10)
        look = read_log(path, cursor=None, now=now, zone="UTC", catalogue=lambda: CATALOGUES["freqtrade"])
        assert [(one.signature, one.fault) for one in look.causes] == [("candles-outdated", None)]
        assert {who for who, _ in look.marks["outdated-history"].who} == set(pairs)
