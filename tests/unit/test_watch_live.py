"""What moves on a terminal, on a real one: `botkeep status --watch`, and the sign that something takes a while."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from botkeep.live import bot_lines, columns_of
from botkeep.model import Fault, Instance, InstanceState, Observation, RuntimeLook, Status, Verdict, utc_now
from support.fleet import Fleet, entry, fleet, wait_for
from support.watcher import BOTKEEP

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A program on a terminal of 80 columns; `text` is all that it wrote."""

    def __init__(self, command: Sequence[str], columns: int = 80, lines: int = 24) -> None:
        self.fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
            env={**os.environ, "TERM": "xterm"}, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(inner)
        self.text = ""

    def read(self) -> str:
        """What came so far."""
        while select.select([self.fd], [], [], 0)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            self.text += data.decode()
        return self.text

    def says(self, part: str) -> None:
        wait_for(lambda: part in self.read(), 20)

    def pictures(self) -> list[list[str]]:
        """Each picture's lines, as they stand on the screen."""
        return [
            [ESCAPES.sub("", line).rstrip() for line in one.split("\r\n")] for one in self.read().split("\x1b[H")[1:]
        ]

    def end(self) -> int:
        wait_for(lambda: self.process.poll() is not None)
        self.read()
        return int(self.process.returncode)


@pytest.fixture
def bots(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, entry("doge"), entry("a-bot-with-a-name-that-is-far-too-long-for-this", "BTCUSDT")) as found:
        yield found


@contextmanager
def terminal(*words: str) -> Iterator[Terminal]:
    one = Terminal(words)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        os.close(one.fd)


@pytest.mark.parametrize("how", ["ctrl-c", "sigterm"])
def test_it_shows_a_line_per_bot_follows_what_happens_and_ends_cleanly(bots: Fleet, how: str) -> None:
    pid = bots.up()
    with terminal(BOTKEEP, "status", "--watch", "--home", str(bots.home)) as screen:
        screen.says("1 faulty, 1 healthy")
        bots.kill(pid)
        screen.says("2 faulty")
        screen.says("is not running: it was")
        if how == "ctrl-c":
            os.write(screen.fd, b"\x03")
        else:
            screen.process.send_signal(signal.SIGTERM)
        assert screen.end() == 0
        assert screen.text.startswith("\x1b[?1049h\x1b[?25l"), "the person's own screen is kept aside"
        assert screen.text.endswith("\x1b[?25h\x1b[?1049l"), "and is there again"
        pictures = screen.pictures()
    assert all(len(line) <= 80 for picture in pictures for line in picture)
    assert len(pictures[0]) == 5
    assert "Traceback" not in screen.text


def test_without_a_terminal_it_shows_them_once_and_says_so(bots: Fleet) -> None:
    bots.up()
    done = subprocess.run(
        [BOTKEEP, "status", "--watch", "--home", str(bots.home)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == "botkeep: this is no terminal, so the bots are shown once.\n"


def test_in_a_pipe_there_is_not_one_escape_code_whatever_the_colours_are_set_to(bots: Fleet) -> None:
    done = subprocess.run(
        [BOTKEEP, "status", "--watch", "--home", str(bots.home)], capture_output=True, timeout=30, check=True,
        env={**os.environ, "TERM": "xterm-256color", "CLICOLOR_FORCE": "1", "FORCE_COLOR": "1"},
    )  # fmt: skip
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\r" not in done.stdout + done.stderr


def test_an_edit_that_breaks_the_configuration_is_shown_below_the_bots_and_taken_back(bots: Fleet) -> None:
    bots.up()
    file = bots.home / "config/bots.json"
    good = file.read_text()
    with terminal(BOTKEEP, "status", "--watch", "--home", str(bots.home)) as screen:
        screen.says("1 faulty, 1 healthy")
        file.write_text("{")
        screen.says("config/bots.json: not JSON at line 1")
        count = len(screen.pictures())
        wait_for(lambda: len(screen.pictures()) > count)  # the newest one may not be whole yet
        assert any("bots.json" in line for line in screen.pictures()[count - 1])
        assert all(len(line) <= 80 for picture in screen.pictures()[:-1] for line in picture)
        file.write_text(json.dumps({"bots": [json.loads(good)["bots"][0]]}))
        wait_for(lambda: screen.pictures()[-1][0].endswith("  1 healthy"))
        assert not any("bots.json" in line for line in screen.pictures()[-1])
        os.write(screen.fd, b"\x03")
        assert screen.end() == 0


def test_a_bot_that_is_asked_for_and_removed_is_said_and_the_last_picture_stays(bots: Fleet) -> None:
    file = bots.home / "config/bots.json"
    with terminal(BOTKEEP, "status", "--watch", "doge", "--home", str(bots.home)) as screen:
        screen.says("1 faulty")
        file.write_text(json.dumps({"bots": [json.loads(file.read_text())["bots"][1]]}))
        screen.says('There is no bot "doge"')
        os.write(screen.fd, b"\x03")
        assert screen.end() == 0
        assert screen.pictures()[-1][1].startswith("doge")


SLOW_LOOK = """
import sys, time
from datetime import UTC, datetime
from botkeep import live
looks = iter(range(100))
def look():
    if next(looks):
        time.sleep(60)
    return []
sys.exit(live.show(look, lambda: datetime.now(UTC), UTC, sys.stdout, colour=False))
"""


def test_a_look_that_takes_long_is_said_to_and_keeps_nobody_from_ending(bots: Fleet) -> None:
    with terminal(sys.executable, "-c", SLOW_LOOK) as screen:
        screen.says("The next look takes 3 s so far.")
        began = time.monotonic()
        os.write(screen.fd, b"\x03")
        assert screen.end() == 0
        assert time.monotonic() - began < 2
        assert screen.text.endswith("\x1b[?25h\x1b[?1049l")


def test_a_window_that_changes_its_size_has_its_new_picture_at_once() -> None:
    program = SLOW_LOOK.replace("time.sleep(60)", "pass").replace("looks =", "live.EVERY = 60; looks =")
    with terminal(sys.executable, "-c", program) as screen:
        wait_for(lambda: len(screen.pictures()) == 1)
        fcntl.ioctl(screen.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 12, 0, 0))
        wait_for(lambda: len(screen.pictures()) == 2, 10)
        assert max(len(line) for line in screen.pictures()[-1]) == 12


def test_a_terminal_that_is_closed_ends_it(bots: Fleet) -> None:
    screen = Terminal([BOTKEEP, "status", "--watch", "--home", str(bots.home)])
    screen.says("2 faulty")
    os.close(screen.fd)
    assert screen.process.wait(10) == 0


SLOW = """
import time
from botkeep import cli, live
with live.waiting('botkeep restore'):
    time.sleep(3.5)
    cli._print('done')
"""


def test_a_wait_is_shown_after_two_seconds_on_a_terminal_and_taken_away_again() -> None:
    with terminal(sys.executable, "-c", SLOW) as screen:
        assert screen.end() == 0
        assert "\rbotkeep restore: 2 s\x1b[K" in screen.text
        assert "\r\x1b[Kdone" in screen.text
        assert screen.text.endswith("done\r\n")


def test_in_a_pipe_no_wait_is_shown() -> None:
    done = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


SLOW_COMMAND = """
import sys, time
from botkeep import cli
cli._check = lambda asked: time.sleep(3.5) or 0
table = next(value for value in vars(cli).values() if isinstance(value, dict) and "check" in value)
table["check"] = (cli._check, *table["check"][1:])
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("words", "shown"), [((), True), (("--json",), False)])
def test_json_is_never_accompanied_by_a_wait_even_on_a_terminal(words: tuple[str, ...], shown: bool) -> None:
    with terminal(sys.executable, "-c", SLOW_COMMAND, "check", *words) as screen:
        assert screen.end() == 0
        assert ("botkeep check: 2 s" in screen.text) is shown


def test_a_quick_command_on_a_terminal_shows_nothing_more_than_its_answer(bots: Fleet) -> None:
    with terminal(BOTKEEP, "playbooks", "--home", str(bots.home)) as screen:
        assert screen.end() == 0
        assert " s\x1b[K" not in screen.text


def seen(name: str, status: Status, fault: Fault | None = None, sentence: str = "") -> tuple[Verdict, Observation]:
    now = utc_now()
    instance = Instance(name, 7, InstanceState.RUNNING, now - timedelta(hours=30), True, "recorded", rss_bytes=98765432)
    instances = (instance,) if status is Status.HEALTHY else ()
    verdict = Verdict(name, status, now, sentence or f"{name} runs.", fault)
    return verdict, Observation(name, now, RuntimeLook(instances=instances))


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [6, 24])
def test_any_size_holds_it_and_who_needs_somebody_comes_first(columns: int, height: int) -> None:
    many = [seen(f"bot-{number}", Status.HEALTHY) for number in range(30)]
    bad = seen("zz-down", Status.FAULTY, Fault.BOT_NOT_RUNNING, "zz-down is not running: " + "x" * 300)
    lines = bot_lines([*many, bad], utc_now(), UTC, (columns, height), colour=False)
    assert all(len(line) <= columns for line in lines)
    assert len(lines) <= height - 1
    assert lines[1].startswith("zz-down")
    assert lines[-1] == f"and {31 - (len(lines) - 2)} more"
    began = time.monotonic()
    bot_lines([*many, bad], utc_now(), UTC, (columns, height), colour=True)
    assert time.monotonic() - began < 1


def test_wide_signs_count_twice_and_no_line_is_broken() -> None:
    said = "doge is not running: 注文は拒否されました 🙂🙂🙂 e\u0301e\u0301 " + "資金不足" * 30
    for columns in (40, 79, 80):
        down = seen("doge", Status.FAULTY, Fault.BOT_NOT_RUNNING, said)
        lines = bot_lines([down], utc_now(), UTC, (columns, 24), colour=False)
        assert columns - 2 <= columns_of(lines[1]) <= columns
    assert columns_of("aé注🙂e\u0301") == 7


def test_long_names_that_begin_alike_are_told_apart_and_a_bot_that_is_down_has_room_for_why() -> None:
    names = [f"a-very-long-name-of-a-bot-on-the-exchange-{number:02d}" for number in range(20)]
    many = [seen(name, Status.FAULTY, Fault.BOT_NOT_RUNNING, f"{name} is not running: {'x' * 99}") for name in names]
    for columns in (40, 80):
        lines = bot_lines(many, utc_now(), UTC, (columns, 40), colour=False)[1:]
        assert len({line.split()[0] for line in lines}) == 20
        assert all(" faulty   is not run" in line and len(line) == columns for line in lines)


def test_a_hundred_bots_on_a_small_screen_leave_room_for_the_last_lines() -> None:
    many = [seen(f"bot-{number}", Status.HEALTHY) for number in range(100)]
    lines = bot_lines(many, utc_now(), UTC, (80, 24), colour=False)
    assert len(lines) == 22
    assert lines[-1] == "and 80 more"
