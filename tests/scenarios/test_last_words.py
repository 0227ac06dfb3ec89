"""What a bot with a log of its own says only on its output: before that log is open, or after it broke."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from botkeep.model import Actor, CauseClass, Result, Verdict
from support.fleet import Fleet, fleet, wait_for

MISTAKE = "ERROR - Configuration error: Parse error at offset 43: Missing a comma"
REFUSED = 'ERROR - {"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}'
HEAD = """
import datetime, pathlib, sys, time

def line(text):
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} - {text}\\n"

def log(text):
    with open("bot.log", "a") as file:
        file.write(line(text))

def say(text):
    print(line(text), end="", flush=True)

"""


@contextmanager
def bot(home: Path, work: str) -> Iterator[Fleet]:
    """One bot with a log of its own that does this and ends; it was started once, and is down."""
    entry: dict[str, Any] = {
        "name": "doge",
        "log_file": "bot.log",
        "timezone": "UTC",
        "runtime": {"kind": "process", "command": [sys.executable, "last_words_bot.py"], "stop_grace": 2},
    }
    with fleet(home, entry) as one:
        (one.home / "last_words_bot.py").write_text(HEAD + textwrap.dedent(work))
        one.desk().restart("doge", "first start")
        wait_for(lambda: one.desk().bench().look("doge").observation.runtime.instances == ())
        yield one


def causes(found: Verdict) -> list[tuple[str, int]]:
    return [(one.signature, one.count) for one in found.causes]


def cursors(one: Fleet) -> set[str]:
    return set(one.desk().bench().look("doge").cursors)


def test_a_mistake_that_is_named_before_the_log_exists_forbids_the_restart(tmp_path: Path) -> None:
    with bot(tmp_path / "home", f"say({MISTAKE!r})") as one:
        found = one.verdict()
        assert causes(found) == [("configuration-error", 1)]
        assert found.causes[0].klass is CauseClass.STOP
        assert found.causes[0].this_run
        assert "configuration is wrong" in one.desk().diagnose("doge").sentence
        for _ in range(2):
            assert causes(one.verdict()) == [("configuration-error", 1)], "a look counts no line again"
        assert one.desk().restart("doge", "again").result is Result.REFUSED
        assert not any(report.ok for report in one.desk(Actor.ROUND).round().actions)


def test_a_line_on_both_counts_once_and_a_line_of_the_output_alone_is_added(tmp_path: Path) -> None:
    work = f"""
    log("INFO - it begins")
    for _ in range(3):
        log({REFUSED!r})
        say({REFUSED!r})
    say({MISTAKE!r})
    """
    with bot(tmp_path / "home", work) as one:
        for _ in range(2):
            assert sorted(causes(one.verdict())) == [("binance-key-refused", 3), ("configuration-error", 1)]
        assert {"log", "output"} <= cursors(one)


def test_the_output_of_a_bot_that_runs_is_not_read(tmp_path: Path) -> None:
    work = f"""
    say({MISTAKE!r})
    log("INFO - it runs all the same")
    while pathlib.Path("run").exists():
        time.sleep(0.02)
    """
    with bot(tmp_path / "home", work) as one:
        assert "output" in cursors(one)
        (one.home / "run").touch()
        one.desk(Actor.PERSON).restart("doge", "again", override="its configuration is mended")
        seen = one.desk().bench().look("doge")
        assert seen.observation.runtime.instances
        assert "output" not in seen.cursors
        assert seen.observation.causes == ()


def test_what_an_earlier_run_said_is_not_the_last_word_of_one_that_a_person_started_since(tmp_path: Path) -> None:
    with bot(tmp_path / "home", f"say({MISTAKE!r})") as one:
        assert causes(one.verdict()) == [("configuration-error", 1)]
        ended = one.verdict().at.timestamp()
        (one.home / "bot.log").write_text("INFO - a person runs it by hand\n")
        os.utime(one.home / "bot.log", (ended + 60, ended + 60))  # a minute later
        assert causes(one.verdict()) == []
