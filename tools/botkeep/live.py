"""What moves on a terminal: the bots, a line each, looked at again and again; and that something takes a while.

Neither writes a sign where nobody sits in front of it: into a pipe the bots go once, and a wait is not shown at all.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, tzinfo
from types import FrameType
from typing import TextIO

from .model import FAULT_ORDER, BotkeepError, Observation, Status, Verdict
from .terminal import age, megabytes, paint
from .untrusted import strip

EVERY = 2.0
"""Seconds between two looks."""
SHOWN_AFTER = 2.0
"""Seconds that nobody minds to wait for."""
NARROW = 60
"""Columns below which a line holds less."""
_ENDS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_ORDER = {Status.FAULTY: 0, Status.UNKNOWN: 1, Status.STOPPED: 2, Status.HEALTHY: 3}
_ENTER, _LEAVE, _HOME = "\033[?1049h\033[?25l", "\033[?25h\033[?1049l", "\033[H"
_CLEAR_LINE, _CLEAR_REST = "\033[K", "\033[J"
Look = Callable[[], Sequence[tuple[Verdict, Observation]]]


# ---------------------------------------------------------------------------------------------------- the bots


def bot_lines(
    seen: Sequence[tuple[Verdict, Observation]], now: datetime, zone: tzinfo, size: tuple[int, int], *, colour: bool
) -> list[str]:
    """A head and one line per bot, those first that need somebody; none longer than `size` = (columns, lines)."""
    columns, height = size
    counts = ", ".join(
        f"{count} {status}" for status in _ORDER if (count := sum(one.status is status for one, _ in seen))
    )
    head = f"{now.astimezone(zone):%H:%M:%S}  {counts or 'no bots are configured yet'}"
    worst = sorted(seen, key=lambda pair: _place(pair[0]))
    width = min(max(18, columns // 4), max((len(one.bot) for one, _ in seen), default=0))
    room = max(1, height - 3)
    shown = worst if len(worst) <= room else worst[: max(1, room - 1)]
    lines = [_line(verdict, look, now, width, columns, colour=colour) for verdict, look in shown]
    more = len(worst) - len(shown)
    return [head[:columns], *lines, *([f"and {more} more"] if more else [])]


def _line(verdict: Verdict, look: Observation, now: datetime, width: int, columns: int, *, colour: bool) -> str:
    status = verdict.status.ljust(7)
    plain = f"{_name(verdict.bot, width)}  {status}  {_figures(verdict, look, now, columns)}"
    text = "" if verdict.status is Status.HEALTHY else strip(verdict.sentence).removeprefix(f"{verdict.bot} ")
    line = _cut(plain + _cut(text, columns - len(plain)), columns).rstrip()
    return line.replace(f"  {status}", f"  {paint(status, colour=colour)}", 1)


def _figures(verdict: Verdict, look: Observation, now: datetime, columns: int) -> str:
    """How long it runs, and its memory. One that does not run, or is not well in a narrow window, needs the room for
    why."""
    instance = next(iter(look.runtime.instances), None)
    if verdict.status is not Status.HEALTHY and (instance is None or columns < NARROW):
        return ""
    up = age(now - instance.started_at) if instance and instance.started_at else "-"
    memory = megabytes(instance.rss_bytes) if instance else "-"
    if columns >= NARROW:
        return f"{up.rjust(7)}  {memory.rjust(8)}  "
    return f"{up.rjust(7)}"


def _name(name: str, width: int) -> str:
    """Long ones lose their middle: names of one fleet often begin alike."""
    if len(name) <= width:
        return name.ljust(width)
    tail = width // 3
    return f"{name[: width - tail - 1]}…{name[-tail:]}"


def _place(verdict: Verdict) -> tuple[int, int]:
    return _ORDER[verdict.status], FAULT_ORDER[verdict.fault] if verdict.fault else len(FAULT_ORDER)


def _cut(text: str, room: int) -> str:
    """As much as that many columns hold: a sign of Chinese takes two of them, an accent of its own none."""
    if columns_of(text) <= room:
        return text
    kept = ""
    for sign in text:
        if columns_of(kept + sign) >= room:
            break
        kept += sign
    return f"{kept}…" if room > 0 else ""


def columns_of(text: str) -> int:
    """How wide it is on a terminal."""
    if text.isascii():
        return len(text)
    return sum((not unicodedata.combining(one)) * (1 + (unicodedata.east_asian_width(one) in "WF")) for one in text)


def show(
    look: Look, now: Callable[[], datetime], zone: tzinfo, out: TextIO, *, colour: bool, note: Callable[[], str] = str
) -> int:
    """Look and draw until Ctrl-C or SIGTERM; the exit code. Without a terminal: once, and that is said.

    `note`: one sentence below the bots, if any. What keeps a later look from being made is shown there too; raises
    BotkeepError for the first one.
    """
    if not out.isatty():
        lines = [*bot_lines(look(), now(), zone, (80, 1 << 30), colour=False), strip(note())]
        out.write("\n".join(lines).rstrip() + "\n")
        out.flush()
        print("botkeep: this is no terminal, so the bots are shown once.", file=sys.stderr)
        return 0
    eyes = _Eyes(look, note)
    with _interruptible() as interrupted, suppress(OSError):  # a terminal that was closed needs no picture
        out.write(_ENTER)
        try:
            _draw(eyes, now(), zone, out, colour=colour)
            while not interrupted(EVERY):
                eyes.look_again()
                _draw(eyes, now(), zone, out, colour=colour)
        finally:
            _leave(out)
    return 0


def _leave(out: TextIO) -> None:
    try:
        out.write(_LEAVE)
        out.flush()
    except OSError:  # what is still in the buffer has nowhere to go, and must not be tried again at the very end
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, out.fileno())
        os.close(nowhere)


class _Eyes:
    """Looks in a thread of its own: an engine that is away keeps nobody from ending this."""

    def __init__(self, look: Look, note: Callable[[], str]) -> None:
        self.look, self.more, self.began = look, note, time.monotonic()
        self.seen, self.said = look(), note()
        self._thread: threading.Thread | None = None

    def look_again(self) -> None:
        """Unless the last look is still under way."""
        if self._thread is not None and self._thread.is_alive():
            return
        self.began = time.monotonic()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self._thread.join(SHOWN_AFTER / 2)

    def _look(self) -> None:
        try:
            self.seen, self.said = self.look(), self.more()
        except BotkeepError as error:
            self.said = str(error)

    def note(self) -> str:
        """What there is to say besides, first of all why what is shown may be old; empty: nothing."""
        if self._thread is not None and self._thread.is_alive() and time.monotonic() - self.began >= SHOWN_AFTER:
            return f"The next look takes {time.monotonic() - self.began:.0f} s so far."
        return self.said


def _draw(eyes: _Eyes, now: datetime, zone: tzinfo, out: TextIO, *, colour: bool) -> None:
    columns, height = _size(out)
    said = [_cut(strip(one), columns) for one in (eyes.note(),) if one]
    lines = bot_lines(eyes.seen, now, zone, (columns, height - len(said)), colour=colour)
    last = ["", *said, _cut("Ctrl-C ends this.", columns)]
    body = "".join(f"{line}{_CLEAR_LINE}\r\n" for line in [*lines, *last])
    out.write(f"{_HOME}{body.rstrip()}{_CLEAR_LINE}{_CLEAR_REST}")
    out.flush()


def _size(out: TextIO) -> tuple[int, int]:
    """(columns, lines) as they are now: what $COLUMNS says is of the time when the shell began."""
    size = os.get_terminal_size(out.fileno())
    return size.columns or 80, size.lines or 24


@contextmanager
def _interruptible() -> Iterator[Callable[[float], bool]]:
    """Gives a wait of so many seconds at most: True when a signal asks for the end. A window that changes its size
    ends the wait as well."""
    numbers: list[int] = []

    def keep(number: int, _frame: FrameType | None) -> None:
        numbers.append(number)

    woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.signal(number, keep) for number in (*_ENDS, signal.SIGWINCH)}
    earlier = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)

    def wait(seconds: float) -> bool:
        if select.select([woken], [], [], seconds)[0]:
            os.read(woken, 4096)
        return not _ENDS.isdisjoint(numbers)

    try:
        yield wait
    finally:
        signal.set_wakeup_fd(earlier)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(woken)
        os.close(waker)


# ---------------------------------------------------------------------------------------------------- waiting

_shown = threading.Lock()
_on_screen: list[TextIO] = []


@contextmanager
def waiting(what: str, out: TextIO | None = None) -> Iterator[None]:
    """Show on a terminal, after two seconds, that `what` goes on, and for how long."""
    stream = out or sys.stderr
    if stream is None or not stream.isatty():
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_count, args=(what, stream, over, time.monotonic()), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)
        hush()


def _count(what: str, stream: TextIO, over: threading.Event, began: float) -> None:
    wait = SHOWN_AFTER
    while not over.wait(wait):
        wait = 1.0
        with _shown, suppress(OSError, ValueError):
            if over.is_set():
                return
            stream.write(f"\r{what}: {time.monotonic() - began:.0f} s{_CLEAR_LINE}")
            stream.flush()
            _on_screen[:] = [stream]


def hush() -> None:
    """Take it off the screen, for a line that stays."""
    with _shown, suppress(OSError, ValueError):
        for stream in _on_screen:
            stream.write(f"\r{_CLEAR_LINE}")
            stream.flush()
        _on_screen.clear()
