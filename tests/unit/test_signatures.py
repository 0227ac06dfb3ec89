"""What the lines of a log mean: the signature files, as data."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path
from re import _parser  # type: ignore[attr-defined]  # the one place that tells the branches of a pattern
from typing import Any

import pytest
import yaml

from botkeep.model import CauseClass, ConfigError, Fault
from botkeep.profiles import PROFILES, Signature
from botkeep.profiles import catalogue as base
from botkeep.profiles.catalogue import candidates, load

PLAIN = PROFILES["plain"].signatures()

HEALTHY = """\
2026-11-21 09:17:48,604 - freqtrade.rpc.rpc_manager - INFO - Bot heartbeat. PID=20753, version='2026.9', state='RUNNING'
2026-11-21 10:07:33,738 - freqtrade.freqtradebot - INFO - Pair XRP/USDT long is locked until 2026-11-21 10:08:00 due to
2026-11-21 10:07:33,738 - bot - INFO - BUY DOGEUSDT price=0.42900 qty=1003 order=81 status_code=200
2026-11-21 10:07:34,001 - bot - INFO - authentication ok, 0 errors, API key is valid until 2027-01-01
127.0.0.1:52114 - "GET /admin HTTP/1.1" 401 Unauthorized
127.0.0.1:52114 - "GET /trades HTTP/1.1" 429 Too Many Requests
127.0.0.1:52114 - "GET /trades HTTP/1.1" 503 Service Unavailable
telegram.error: 401 Unauthorized
equity 10013.50, loss of the day -12.00 (limit 50.00), drawdown 1.2 %
memory: 429 MB used, cache has 1015 rows, 50011 candles, 400003 ticks
no kill switch configured; the database is open; another day, another trade
order 98 filled; code 2015; already running since 09:00 (pid file ok)
News: exchange X says invalid api key reports are exaggerated
"""


def meaning(line: str) -> str | None:
    """The signature that a line counts for."""
    found = (one for one in candidates(PLAIN, line.encode()) if one.regex.search(line))
    return next((one.id for one in found), None)


@pytest.mark.parametrize("signature", PLAIN, ids=lambda one: one.id)
def test_its_example_counts_for_it_and_for_no_other(signature: Signature) -> None:
    assert meaning(signature.example) == signature.id


@pytest.mark.parametrize("signature", PLAIN, ids=lambda one: one.id)
def test_whatever_its_pattern_matches_holds_its_literal_text(signature: Signature) -> None:
    """Every way through the pattern needs a literal, or the search would pass over such lines."""
    for text in _texts(_parser.parse(signature.pattern)):
        assert any(literal in text for literal in signature.contains), text


def _texts(pattern: Iterable[tuple[Any, Any]]) -> list[str]:
    """The shortest text for each way through a parsed pattern; what only forbids is left out."""
    texts = [""]
    for kind, value in pattern:
        texts = [before + after for before in texts for after in _texts_of(str(kind), value)]
    return texts


def _texts_of(kind: str, value: Any) -> list[str]:
    if kind == "LITERAL":
        return [chr(value)]
    if kind == "IN":
        return [text for one in value for text in _texts_of(*_named(one))][:1]
    if kind == "RANGE":
        return [chr(value[0])]
    if kind == "CATEGORY":
        return [{"CATEGORY_DIGIT": "1", "CATEGORY_SPACE": " "}.get(str(value), "x")]
    if kind == "BRANCH":
        return [text for branch in value[1] for text in _texts(branch)]
    if kind == "SUBPATTERN":
        return _texts(value[3])
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        return [text * value[0] for text in _texts(value[2])] if value[0] else [""]
    if kind == "ASSERT":
        return _texts(value[1])
    return ["x"] if kind in ("ANY", "NOT_LITERAL") else [""]


def _named(one: tuple[Any, Any]) -> tuple[str, Any]:
    return str(one[0]), one[1]


@pytest.mark.parametrize("line", HEALTHY.splitlines())
def test_a_healthy_line_means_nothing(line: str) -> None:
    assert meaning(line) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("APIError(code=-1003): Way too much request weight used; IP banned until 1795254686000.", "binance-ip-ban"),
        ('{"code": -2015, "msg": "Invalid API-key, IP, or permissions for action, request ip: 1.2.3.4"}',
         "binance-key-refused"),
        ("BinanceAPIException: APIError(code=-2014): API-key format invalid.", "binance-key-malformed"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "out-of-memory"),
        ("MemoryError", "out-of-memory"),
        ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", "out-of-memory"),
        ("OSError: [Errno 12] Cannot allocate memory", "out-of-memory"),
        ("sqlite3.OperationalError: database or disk is full", "disk-full"),
        ("error: Invalid API key", "key-refused"),
        ("ccxt.base.errors.AuthenticationError: kraken says no", "key-refused"),
        ("OSError: [Errno 98] Address already in use", "address-in-use"),
        ("Error: listen EADDRINUSE: address already in use :::8080", "address-in-use"),
        ("KeyError: 'BINANCE_API_KEY'", "configuration-error"),
        ("ERROR Max daily loss limit reached, going flat", "kill-switch"),
        ("socket.gaierror: [Errno -2] Name or service not known", "name-resolution"),
        ("HTTP 429: slow down", "rate-limited"),
    ],
)  # fmt: skip
def test_the_same_failure_is_known_in_the_words_of_several_libraries(line: str, expected: str) -> None:
    assert meaning(line) == expected


@pytest.mark.parametrize("name", PROFILES)
def test_every_packaged_signature_can_be_used(name: str) -> None:
    catalogue = PROFILES[name].catalogue()
    assert catalogue.problems == ()
    for signature in catalogue.signatures:
        signature.check()
    assert {0, 1, 2, 130, 137, 139} <= set(catalogue.codes)
    assert {6, 9, 11, 15} <= set(catalogue.signals)


def test_what_no_restart_can_help_is_marked_so() -> None:
    classes = {one.id: (one.klass, one.fault) for one in PLAIN}
    assert classes["binance-key-refused"] == (CauseClass.STOP, Fault.API_KEY_REJECTED)
    assert classes["binance-ip-ban"] == (CauseClass.WAIT, Fault.API_RATE_LIMITED)
    assert classes["disk-full"] == (CauseClass.HOST, Fault.DISK_FULL)
    assert classes["out-of-memory"] == (CauseClass.RESTART, Fault.OUT_OF_MEMORY)
    assert classes["address-in-use"] == (CauseClass.STOP, Fault.BOT_DUPLICATED)
    assert classes["kill-switch"] == (CauseClass.STOP, None)


HOSTILE = [
    "a", " ", "429 ", "451 ", "Config file ", "config file x", 'HTTP/1.1" 4', "API ", "error ", "IP banned until 1",
    "-1003", "banned until ", "code: ", '"code":', "KeyError: '", "KeyError: 'A_", "kill switch ", "max loss ", "401 ",
    "Telegram", "another instance of ", "Another copy of x", "Killed process 1", "max daily loss ",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_matching_time_grows_with_the_line_and_not_faster(unit: str) -> None:
    def seconds(size: int) -> float:
        line = (unit * (size // len(unit) + 1))[:size]
        began = time.process_time()
        for signature in PLAIN:
            signature.regex.search(line)
        return time.process_time() - began

    small = min(seconds(8_000) for _ in range(2))
    assert min(seconds(32_000) for _ in range(2)) < small * 12 + 0.02


# ----------------------------------------------------------------------------------------- files that people write

GOOD = {
    "id": "my-own",
    "contains": ["margin call"],
    "pattern": r"margin call at (?P<end>\d{13})",
    "cause": "The exchange calls for margin.",
    "class": "stop",
    "fault": None,
    "until": "end",
    "recent": "2h",
    "source": "our desk",
    "example": "ERROR margin call at 1795254686000",
}


def _load(tmp_path: Path, *signatures: object) -> tuple[list[str], tuple[str, ...]]:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"signatures": list(signatures)}))
    catalogue = load(path)
    return [one.id for one in catalogue.signatures], catalogue.problems


def test_a_signature_is_added_without_code(tmp_path: Path) -> None:
    assert _load(tmp_path, GOOD) == (["my-own"], ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pattern": "margin (call"}, "pattern: write one that Python's re knows"),
        ({"example": "all is well"}, "example: write a line that pattern and contains match"),
        ({"contains": ["bankrupt"]}, "example: write a line that pattern and contains match"),
        ({"until": "when"}, "until: name a group of the pattern"),
        ({"class": "panic"}, 'class: found "panic"; write one of: wait, restart, stop, repair, host'),
        ({"fault": "bad-luck"}, "fault: found"),
        ({"recent": "soon"}, "recent: write a length of time like"),
        ({"colour": "red"}, "there is no such key"),
        ({"id": "../x"}, "id: write lower-case letters"),
        ({"pattern": 7}, "pattern: write text, not 7"),
        ({"contains": "margin"}, "contains: write a list of texts"),
    ],
)
def test_a_broken_signature_is_reported_and_the_others_work(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    names, problems = _load(tmp_path, {**GOOD, "id": "broken", **change}, GOOD)
    assert names == ["my-own"]
    assert len(problems) == 1
    assert said in problems[0]
    assert problems[0].startswith("mine.yaml: signatures[0]")


@pytest.mark.parametrize("entry", ["text", 3, None, [], {1: 2}])
def test_an_entry_that_is_none_is_reported(tmp_path: Path, entry: object) -> None:
    names, problems = _load(tmp_path, entry, GOOD)
    assert names == ["my-own"]
    assert len(problems) == 1


def test_of_two_signatures_with_one_id_the_first_counts(tmp_path: Path) -> None:
    names, problems = _load(tmp_path, GOOD, {**GOOD, "cause": "Another."})
    assert names == ["my-own"]
    assert "stands twice" in problems[0]


@pytest.mark.parametrize("content", ["signatures: [", "- a\n- b\n", "", "!!python/object/apply:os.system [ls]", "\x00"])
def test_a_file_that_holds_no_signatures_is_refused_as_a_whole(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load(path)


def test_every_signature_says_where_it_was_seen() -> None:
    """A thread, or in words who writes such lines."""
    for signature in PLAIN:
        assert re.search(r"\S+/\S+#\d+|\w+ \w+", signature.source), signature.id


def test_the_packaged_file_explains_its_own_keys() -> None:
    text = (Path(base.__file__).parent / "signatures" / "plain.yaml").read_text()
    for name in (base._REQUIRED | base._OPTIONAL) - {"id", "cause", "example"}:
        assert re.search(rf"^#.*\b{name} ", text, re.MULTILINE), name
