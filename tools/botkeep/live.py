"""What moves on a terminal: the bots, a line each, looked at again and again; and that something takes a while.

Neither writes a sign where nobody sits in front of it: into a pipe the bots go once, and a wait is not shown at all.
"""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, tzinfo
from types import FrameType
from typing import TextIO

from .model import FAULT_ORDER, Observation, Status, Verdict
from .terminal import age, megabytes, paint
from .untrusted import strip

EVERY = 2.0
"""Seconds between two looks."""
SHOWN_AFTER = 2.0
"""Seconds that nobody minds to wait for."""
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
    width = min(18, max((len(one.bot) for one, _ in seen), default=0))
    room = max(1, height - 3)
    shown = worst if len(worst) <= room else worst[: max(1, room - 1)]
    lines = [_line(verdict, look, now, width, columns, colour=colour) for verdict, look in shown]
    more = len(worst) - len(shown)
    return [head[:columns], *lines, *([f"and {more} more"] if more else [])]


def _line(verdict: Verdict, look: Observation, now: datetime, width: int, columns: int, *, colour: bool) -> str:
    instance = next(iter(look.runtime.instances), None)
    up = age(now - instance.started_at) if instance and instance.started_at else "-"
    memory = megabytes(instance.rss_bytes) if instance else "-"
    name = verdict.bot if len(verdict.bot) <= width else f"{verdict.bot[: width - 1]}…"
    status = verdict.status.ljust(7)
    plain = f"{name.ljust(width)}  {status}  {up.rjust(7)}  {memory.rjust(8)}  "
    text = "" if verdict.status is Status.HEALTHY else strip(verdict.sentence).removeprefix(f"{verdict.bot} ")
    line = (plain + _cut(text, columns - len(plain))).rstrip()[:columns]
    return line.replace(f"  {status}", f"  {paint(status, colour=colour)}", 1)


def _place(verdict: Verdict) -> tuple[int, int]:
    return _ORDER[verdict.status], FAULT_ORDER[verdict.fault] if verdict.fault else len(FAULT_ORDER)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: max(0, room - 1)]}…" if room > 0 else ""


def show(look: Look, now: Callable[[], datetime], zone: tzinfo, out: TextIO, *, colour: bool) -> int:
    """Look and draw until Ctrl-C or SIGTERM; the exit code. Without a terminal: once, and that is said."""
    if not out.isatty():
        out.write("\n".join(bot_lines(look(), now(), zone, (80, 1 << 30), colour=False)) + "\n")
        out.flush()
        print("botkeep: this is no terminal, so the bots are shown once.", file=sys.stderr)
        return 0
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGWINCH, lambda *_: None)  # the wait ends, and the next picture has the new size
    out.write(_ENTER)
    try:
        while not ended.is_set():
            seen = look()
            size = shutil.get_terminal_size()
            lines = bot_lines(seen, now(), zone, (size.columns, size.lines), colour=colour)
            body = "".join(f"{line}{_CLEAR_LINE}\r\n" for line in [*lines, "", "Ctrl-C ends this."[: size.columns]])
            out.write(f"{_HOME}{body.rstrip()}{_CLEAR_LINE}{_CLEAR_REST}")
            out.flush()
            ended.wait(EVERY)
    finally:
        with suppress(OSError):
            out.write(_LEAVE)
            out.flush()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


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
