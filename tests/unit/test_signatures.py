"""Signature files: how they are read and checked, and what their patterns cost. What they mean is in test_catalogue."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from re import _parser  # type: ignore[attr-defined]  # the one place that tells the branches of a pattern
from typing import Any

import pytest
import yaml

from botkeep.logjoin import record
from botkeep.logmatch import Patience
from botkeep.model import CauseClass, ConfigError, Fault
from botkeep.profiles import catalogue as base
from botkeep.profiles.catalogue import After, Catalogue, LinePattern, load, merged
from botkeep.profiles.patterns import compiled

FILES = sorted((Path(base.__file__).parent / "signatures").glob("*.yaml"))
PACKAGED = [(path.stem, one) for path in FILES for one in load(path).patterns]


def name_of(value: object) -> str:
    return value.id if isinstance(value, LinePattern) else str(value)


# ------------------------------------------------------------------------------------------------ literal texts


@pytest.mark.parametrize(("name", "pattern"), PACKAGED, ids=name_of)
def test_whatever_a_packaged_pattern_matches_holds_its_literal_text(name: str, pattern: LinePattern) -> None:
    """Every way through the pattern needs one, or the search would pass over such lines."""
    assert pattern.contains
    for text in _texts(_parser.parse(pattern.pattern.replace(r"\z", r"\Z"))):
        assert pattern.may_match(text), text


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
        return [text for one in value for text in _texts_of(str(one[0]), one[1])][:1]
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
    return ["x"] if kind in ("ANY", "NOT_LITERAL") else [""]


# ----------------------------------------------------------------------------------------------------- what it costs

LONGEST = 1 << 20
UNITS = [
    b"a", b" ", b"\x00", b"\xff", b"\xc3", "é".encode(), b"\x1b[31m", b"\r", b"429 ", b"API ", b"error ", b"code: ",
    b'"code":', b"-1003", b"banned until ", b"IP banned until 1", b"KeyError: 'A_", b"kill switch ", b"401 ",
    b"Telegram", b"Message: ", b"Trade(id=1, ", b"Bot heartbeat. PID=",
    b"2026-11-21 10:18:04,404 - freqtrade.worker - INFO - ",
    b"2026-11-21 10:18:04,404 - 1 - hummingbot.core.clock - ERROR - ", b"was created for ", b"{'type': ", b"(" * 9,
]  # fmt: skip


def _lines(pattern: LinePattern) -> list[Callable[[int], bytes]]:
    """Long lines: repetitions of what patterns hold, of this one's own example, and the example before and behind."""
    example = pattern.example.encode()
    half = example[: len(example) // 2]
    units = [*UNITS, example, half, *(text.encode() for text in pattern.contains)]
    made = [lambda size, unit=unit: (unit * (size // len(unit) + 1))[:size] for unit in units]
    return [*made, lambda size: example + b"x" * size, lambda size: half + b" " * size + example[len(half) :]]


def _seconds(pattern: LinePattern, line: bytes) -> float:
    """Of one search in the line's text, as it is searched but for its cap. The least of three."""
    text = record(line, len(line)).text
    times = []
    for _ in range(3):
        began = time.thread_time()
        pattern.match(text)
        times.append(time.thread_time() - began)
    return min(times)


@pytest.mark.parametrize(("name", "pattern"), PACKAGED, ids=name_of)
def test_the_time_of_a_pattern_grows_with_the_line_and_not_faster(name: str, pattern: LinePattern) -> None:
    compiled(pattern.pattern)
    for line in _lines(pattern):
        small, large = _seconds(pattern, line(10_000)), _seconds(pattern, line(100_000))
        assert large < small * 30 + 0.002, (line(60), small, large)


def test_a_line_of_a_megabyte_costs_every_packaged_pattern_together_less_than_its_length_in_time() -> None:
    """What is searched of it is capped: a hundred times the line takes nearly as long."""
    together = merged(load(path) for path in FILES).patterns
    patience = Patience()

    def seconds(line: bytes) -> float:
        began = time.thread_time()
        seen = record(line, 8192)
        for pattern in together:
            patience.find(pattern, seen)
        return time.thread_time() - began

    seconds(b"warm")
    for unit in UNITS:
        line = (unit * (LONGEST // len(unit) + 1))[:LONGEST]
        small = min(seconds(line[: LONGEST // 100]) for _ in range(2))
        assert min(seconds(line) for _ in range(2)) < 3 * small + 0.02, unit
    assert patience.lost == set()


@pytest.mark.parametrize(("name", "pattern"), PACKAGED, ids=name_of)
def test_a_packaged_pattern_is_small(name: str, pattern: LinePattern) -> None:
    """Whatever becomes of its automaton, each character costs at most this many steps: a fifth of what is allowed."""
    for one in filter(None, (pattern.pattern, pattern.unless)):
        assert compiled(one).programsize <= 5000  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------- files that people write

GOOD: dict[str, Any] = {
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
MARK: dict[str, Any] = {
    "id": "alive",
    "pattern": r"\Aalive (?P<who>\d+)\z",
    "contains": ["alive"],
    "example": "alive 17",
}
RULE: dict[str, Any] = {
    "id": "stands",
    "mode": 21,
    "cause": "Its main loop stands still.",
    "class": "restart",
    "fault": "bot-hung",
    "do": "Restart it.",
    "source": "our desk",
}


def _load(tmp_path: Path, **raw: object) -> Catalogue:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    return load(path)


def _signatures(tmp_path: Path, *signatures: object) -> tuple[list[str], tuple[str, ...]]:
    catalogue = _load(tmp_path, signatures=list(signatures))
    return [one.id for one in catalogue.signatures], catalogue.problems


def test_a_signature_is_added_without_code(tmp_path: Path) -> None:
    assert _signatures(tmp_path, GOOD) == (["my-own"], ())


def test_all_that_a_file_may_say_is_read(tmp_path: Path) -> None:
    more = {"mode": [3, 4], "unless": "test", "do": "Pay.", "after": {"lines": 3, "within": "5m"}}
    found = _load(
        tmp_path, signatures=[GOOD | more], marks=[MARK], rules=[RULE], joins="dated", exits={"codes": {3: "x"}}
    )
    (one,), (mark,) = found.signatures, found.marks
    assert (one.modes, one.unless, one.advice) == ((3, 4), "test", "Pay.")
    assert one.after == After(lines=3, within=timedelta(minutes=5))
    assert (mark.id, mark.groups) == ("alive", {"who"})
    rule = found.rules["stands"]
    assert (rule.modes, rule.klass, rule.fault, rule.advice) == (
        (21,),
        CauseClass.RESTART,
        Fault.BOT_HUNG,
        "Restart it.",
    )
    assert (found.joins, found.codes, found.problems) == ("dated", {3: "x"}, ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pattern": "margin (call"}, "pattern: write one that RE2 knows: missing ): margin (call"),
        ({"pattern": "(?=margin)"}, "pattern: RE2 has no look-around; use `unless`"),
        ({"pattern": "margin(?!x)"}, "pattern: RE2 has no look-around; use `unless`"),
        ({"pattern": "(?<!x)margin"}, "pattern: RE2 has no look-around; use `unless`"),
        ({"pattern": r"(m)argin\1"}, "pattern: RE2 has no back references; write the text out"),
        ({"pattern": r"(?P<m>m)argin(?P=m)"}, "pattern: RE2 has no back references; write the text out"),
        ({"pattern": r"\Amargin\Z"}, r"pattern: RE2 writes the end of the text as \z"),
        ({"pattern": "(?>margin)"}, "pattern: RE2 has no atomic groups and no possessive repetition"),
        ({"pattern": "margin++"}, "pattern: RE2 has no atomic groups and no possessive repetition"),
        ({"pattern": "(a{1000}){1000}"}, "pattern: it is too large; write smaller repetitions"),
        ({"pattern": "(.{0,900}){3}"}, "pattern: it is too large; write smaller repetitions"),
        ({"pattern": r"\pL{900}"}, "pattern: it is too large; write smaller repetitions"),
        ({"pattern": "x" * 5000}, "pattern: it has 5000 characters; write at most 4096"),
        ({"unless": "(x"}, "unless: write one that RE2 knows: missing ): (x"),
        ({"unless": "margin"}, "example: write a line that `unless` does not match"),
        ({"unless": ""}, 'unless: write text, not ""'),
        ({"example": "all is well"}, "example: write a line that pattern and contains match"),
        ({"contains": ["bankrupt"]}, "example: write a line that pattern and contains match"),
        ({"until": "when"}, "until: name a group of the pattern"),
        ({"class": "panic"}, 'class: found "panic"; write one of: wait, restart, stop, repair, host'),
        ({"class": ["stop"]}, "class: found a list; did you mean stop?"),
        ({"fault": "bad-luck"}, "fault: found"),
        ({"recent": "soon"}, "recent: write a length of time like"),
        ({"colour": "red"}, "there is no such key"),
        ({"id": "../x"}, "id: write lower-case letters"),
        ({"pattern": 7}, "pattern: write text, not 7"),
        ({"contains": "margin"}, "contains: write a list of texts"),
        ({"mode": 0}, "mode: write a number from 1 to 55, or a list of them"),
        ({"mode": [True]}, "mode: write a number from 1 to 55, or a list of them"),
        ({"mode": []}, "mode: write a number from 1 to 55, or a list of them"),
        ({"after": 3}, "after: write {lines: 3, within: 5m}"),
        ({"after": {"lines": 3}}, "after: write {lines: 3, within: 5m}"),
        ({"after": {"lines": 1, "within": "5m"}}, "after: lines: write a number from 2 to 1000"),
        ({"after": {"lines": 3, "within": 5}}, "after: within: write a length of time"),
        ({"do": ["Pay"]}, "do: write text, not a list"),
    ],
)
def test_a_broken_signature_is_reported_and_the_others_work(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    names, problems = _signatures(tmp_path, {**GOOD, "id": "broken", **change}, GOOD)
    assert names == ["my-own"]
    assert len(problems) == 1
    assert said in problems[0]
    assert problems[0].startswith("mine.yaml: signatures[0]")
    assert "\n" not in problems[0]


@pytest.mark.parametrize(
    ("key", "entry", "said"),
    [
        (
            "marks",
            MARK | {"example": "dead"},
            'marks[0] ("alive"): example: write a line that pattern and contains match',
        ),
        ("marks", MARK | {"cause": "x"}, 'marks[0] ("alive"): "cause": there is no such key'),
        ("rules", RULE | {"pattern": "x"}, 'rules[0] ("stands"): "pattern": there is no such key'),
        ("rules", {key: value for key, value in RULE.items() if key != "do"}, "do: it is missing; write it"),
    ],
)
def test_a_broken_mark_or_rule_is_reported_too(tmp_path: Path, key: str, entry: object, said: str) -> None:
    found = _load(tmp_path, signatures=[GOOD], **{key: [entry]})
    assert [one.id for one in found.signatures] == ["my-own"]
    assert len(found.problems) == 1
    assert said in found.problems[0]


def test_a_way_of_joining_that_is_none_is_left_out(tmp_path: Path) -> None:
    found = _load(tmp_path, signatures=[GOOD], joins="always")
    assert found.joins == ""
    assert found.problems == ('mine.yaml: joins: found "always"; write `dated`, or leave it out. It is left out.',)


@pytest.mark.parametrize("entry", ["text", 3, None, [], {1: 2}])
def test_an_entry_that_is_none_is_reported(tmp_path: Path, entry: object) -> None:
    names, problems = _signatures(tmp_path, entry, GOOD)
    assert names == ["my-own"]
    assert len(problems) == 1


def test_of_two_signatures_with_one_id_the_first_counts(tmp_path: Path) -> None:
    names, problems = _signatures(tmp_path, GOOD, {**GOOD, "cause": "Another."})
    assert names == ["my-own"]
    assert "stands twice" in problems[0]


@pytest.mark.parametrize("content", ["signatures: [", "- a\n- b\n", "", "!!python/object/apply:os.system [ls]", "\x00"])
def test_a_file_that_holds_no_signatures_is_refused_as_a_whole(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load(path)


def test_merged_catalogues_keep_the_first_of_two_with_one_id_and_add_the_rest(tmp_path: Path) -> None:
    first = _load(tmp_path, signatures=[GOOD | {"cause": "Mine."}], joins="dated", exits={"codes": {1: "mine"}})
    second = _load(
        tmp_path,
        signatures=[GOOD, GOOD | {"id": "other"}],
        marks=[MARK],
        rules=[RULE],
        exits={"codes": {1: "x", 2: "y"}},
    )
    both = merged((first, second))
    assert [(one.id, one.cause) for one in both.signatures] == [("my-own", "Mine."), ("other", GOOD["cause"])]
    assert [one.id for one in both.patterns] == ["my-own", "other", "alive"]
    assert (both.joins, dict(both.codes), list(both.rules)) == ("dated", {1: "mine", 2: "y"}, ["stands"])


def test_the_packaged_file_explains_its_own_keys() -> None:
    text = (Path(base.__file__).parent / "signatures" / "plain.yaml").read_text()
    explained = set(
        re.findall(r"\b[a-z]+\b", "\n".join(itertools.takewhile(lambda line: line[:1] == "#", text.splitlines())))
    )
    assert (base._REQUIRED | base._OPTIONAL) - {"id", "cause", "example"} <= explained
