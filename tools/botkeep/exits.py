"""What an exit means for this kind of program, in words."""

from __future__ import annotations

import signal as signals
from collections.abc import Sequence

from .model import Cause, Exit, Fault
from .profiles import Profile

NOT_KNOWN = "how it ended is not known: botkeep did not start it"
NOT_SEEN = "how it ended is not known: what watched it is gone too"


def exit_meaning(ended: Exit | None, profile: Profile, causes: Sequence[Cause] = ()) -> str:
    """What an exit means for this kind of program, as one phrase with `it` as its subject and the number in it."""
    if ended is None:
        return NOT_KNOWN
    if ended.failed_to_start:
        return f"its command could not be executed: {ended.failed_to_start}"
    meaning = _code_or_signal(ended, profile, causes)
    if meaning is None:
        return NOT_SEEN
    return f"botkeep stopped it: {meaning}" if ended.asked else meaning


def _code_or_signal(ended: Exit, profile: Profile, causes: Sequence[Cause]) -> str | None:
    number = ended.signal if ended.signal is not None else -(ended.code or 0)
    if number > 0:
        return _killed(ended, number, profile, causes)
    if ended.code is None:
        return None
    codes, by_signal = profile.catalogue().codes, profile.catalogue().signals
    meaning = codes.get(ended.code) or by_signal.get(ended.code - 128) or "it ended with a code of its own"
    return f"{meaning} (exit code {ended.code}){_memory(ended, causes)}"


def _killed(ended: Exit, number: int, profile: Profile, causes: Sequence[Cause]) -> str:
    if ended.out_of_memory:
        return f"the kernel killed it for lack of memory (signal {number}){_peak(ended)}"
    meaning = profile.catalogue().signals.get(number, "a signal ended it")
    if number == signals.SIGKILL and ended.out_of_memory is False:
        meaning = "it was killed outright by somebody, not by the kernel for lack of memory"
    return f"{meaning} (signal {number}, {_signal_name(number)}){_memory(ended, causes)}"


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return "unnamed"


def _memory(ended: Exit, causes: Sequence[Cause]) -> str:
    short = any(cause.fault is Fault.OUT_OF_MEMORY and cause.this_run for cause in causes)
    return f", after its log said that it ran out of memory{_peak(ended)}" if short else ""


def _peak(ended: Exit) -> str:
    return f", at a peak of {ended.peak_rss_bytes / 1e6:.0f} MB" if ended.peak_rss_bytes else ""
