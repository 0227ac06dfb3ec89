"""The copy of what an engine keeps: each byte once, whoever is killed at it, and nobody else's ever taken off."""

from __future__ import annotations

from pathlib import Path

import pytest

from botkeep.model import InstanceState
from botkeep.runtimes import RUNTIMES, Target, enginelog, supervisord
from botkeep.runtimes.supervisord_units import Supervised
from support import kills


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """A program with a file for each of its streams, which are read together."""
    config = RUNTIMES["supervisord"].Config(kind="supervisord", server="unix:///nowhere.sock", program="doge")
    run_dir, log = tmp_path / "run/doge", tmp_path / "logs/doge.log"
    return Target("doge", config, None, tmp_path, run_dir, log)


def unit(target: Target, run: str = "1") -> Supervised:
    said = str(target.home / "out"), str(target.home / "err")
    state = InstanceState.RUNNING
    return Supervised("doge:doge", run, state, stdout=said[0], stderr=said[1], is_readable=True)


def say(target: Target, *lines: str) -> None:
    with (target.home / "out").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def heard(target: Target, run: str = "1") -> str:
    return enginelog.bring_up_to_date(supervisord, target, unit(target, run)).read_text()


def test_what_another_runtime_wrote_meanwhile_stays_and_what_the_engine_says_is_added(target: Target) -> None:
    say(target, "first")
    assert heard(target) == "first\n"
    with target.log_path.open("a") as process:
        process.write("said as a plain process\n")
    say(target, "second")
    expected = "first\nsaid as a plain process\nsecond\n"
    assert heard(target, "2") == expected
    assert heard(target, "2") == expected
    offset = enginelog.run_offset(target)
    assert expected[offset:] == "second\n"


def test_what_another_runtime_wrote_into_a_new_file_stays_too(target: Target) -> None:
    say(target, "first")
    heard(target)
    rotated = target.log_path.with_name("doge.log.1")
    target.log_path.rename(rotated)
    target.log_path.write_text("said as a plain process\n")
    say(target, "second")
    assert heard(target) == "said as a plain process\nsecond\n"
    assert rotated.read_text() == "first\n"
    target.log_path.write_text("")  # it was turned over by copying, as a plain process's watcher does
    say(target, "third")
    assert heard(target) == "third\n"


def test_the_same_words_of_two_runtimes_are_two_lines(target: Target) -> None:
    say(target, "up")
    heard(target)
    with target.log_path.open("a") as process:
        process.write("up\n")
    say(target, "up")
    assert heard(target) == "up\nup\nup\n"


@kills.needs_strace
@pytest.mark.parametrize("log_bytes", [1 << 20, 300], ids=["one file", "turned over"])
def test_a_reader_that_is_killed_at_any_call_leaves_each_line_once(target: Target, log_bytes: int) -> None:
    target = Target(**{**vars(target), "log_bytes": log_bytes})
    number = 0

    def more() -> None:
        nonlocal number
        say(target, *(f"{number + one:06d} {'.' * 60}" for one in range(3)))
        number += 3

    def read() -> None:
        enginelog.bring_up_to_date(supervisord, target, unit(target))

    killed = 0
    known: dict[tuple[int, bytes], bytes] = {}
    """Every file there ever was, by its inode and beginning: only three old ones are kept."""

    def remember() -> None:
        for path in target.log_path.parent.glob("doge.log*"):
            text = path.read_bytes()
            known[path.stat().st_ino, text[:6]] = text

    for _ in kills.at_each_call(read, more):
        killed += 1
        remember()
        read()
        remember()
    read()
    remember()
    assert killed >= 8
    said = sorted(int(line.split()[0]) for file in known.values() for line in file.splitlines())
    assert said == list(range(number))
    if log_bytes == 1 << 20:
        assert target.log_path.read_text() == (target.home / "out").read_text()


@kills.needs_strace
def test_a_reader_that_is_killed_again_and_again_before_it_can_say_what_it_added_adds_nothing_twice(
    target: Target,
) -> None:
    def read() -> None:
        enginelog.bring_up_to_date(supervisord, target, unit(target))

    for number in range(5):
        say(target, f"{number:06d} {'.' * 60}")
        assert kills.injected(read, "fsync", 1, "signal=SIGKILL") == -9  # the data is there, the cursor is not
    read()
    assert target.log_path.read_text() == (target.home / "out").read_text()


def test_half_of_what_was_to_be_added_is_made_whole(target: Target) -> None:
    """The disk was full in the middle of it, or the machine was switched off."""
    say(target, "000001 half of it")
    heard(target)
    say(target, "000002 the other half")
    whole = target.log_path.read_text()
    enginelog._note(
        target.run_dir / enginelog.MARK,
        {
            "inode": target.log_path.stat().st_ino,
            "size": len(whole),
            "from": 0,
            "count": len("000002 the other half\n"),
        },
    )
    with target.log_path.open("a") as file:
        file.write("000002 the")
    assert heard(target) == "000001 half of it\n000002 the other half\n"


@pytest.mark.parametrize(
    ("there", "data", "count"),
    [
        (b"", b"abc", 0),
        (b"abc", b"abcdef", 3),
        (b"abc", b"abc", 3),
        (b"abX", b"abcdef", 2),
        (b"somebody else's", b"abc", 0),
        (b"old line\n" + b"n" * 70, b"n" * 70 + b"newer\n", 70),
    ],
)
def test_how_much_of_it_is_there_already(there: bytes, data: bytes, count: int) -> None:
    assert enginelog._overlap(there, data) == count
