"""What a year of looks costs on the disk: a look every 15 seconds at a thousand bots, 2.1 billion of them.

Measured, through the ledger's own `see_all`: the bytes of the file after a year of the flips below, on all thousand
bots. Thinned: of each stretch only its first and its last look are made, because those between change one row in
place. That this leaves the same rows is checked on one bot by all 230,400 looks of forty days, one every 15 seconds;
and that a day of them without a flip adds no byte. Extrapolated is only what a row for each look would take, from the
measured bytes of a row.

The flips of each bot: it falls once a week and is seen down for a minute (a restart: another instance); every four
weeks the machine is away for an hour (nobody looks, then another instance); once in a quarter its data is damaged for
five minutes, and it is stopped on purpose for a day.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from botkeep.ledger import Ledger, Seen
from botkeep.model import Fault, Span, Status
from support import say

BOTS = 1000
EVERY = timedelta(seconds=15)
YEAR, WEEK, DAY, HOUR, MINUTE = (timedelta(days=365), timedelta(days=7), timedelta(days=1), timedelta(hours=1),
                                 timedelta(minutes=1))  # fmt: skip
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
GAP = timedelta(minutes=12, seconds=30)
"""As rounds set it: further apart, two looks are two spans."""
MOST_BYTES_A_FLIP = 200
MOST_MB = 40


def year_of(bot: int) -> Iterator[tuple[datetime, datetime, Status, Fault | None, bool | None, str | None]]:
    """One bot's year as (first, last, what is seen): the flips at times of its own."""
    chance, instance = random.Random(bot), 0
    at = BEGAN
    events = [(BEGAN + WEEK * (n + chance.random()), "falls") for n in range(52)]
    events += [(BEGAN + 4 * WEEK * (n + chance.random()), "away") for n in range(13)]
    events += [(BEGAN + 13 * WEEK * (n + chance.random()), what) for n in range(4) for what in ("damaged", "stopped")]
    for when, what in sorted(events):
        if when <= at:
            continue
        key = f"7902ea29:{5000 + bot}:{3535000 + instance}:838430"
        yield at, when - EVERY, Status.HEALTHY, None, True, key
        at = when
        if what == "damaged":
            yield at, at + 5 * MINUTE, Status.FAULTY, Fault.DATA_CORRUPT, True, key
            at += 5 * MINUTE + EVERY
            continue
        if what == "stopped":
            yield at, at + DAY, Status.STOPPED, None, False, None
            at += DAY + EVERY
        elif what == "falls":
            yield at, at + MINUTE, Status.FAULTY, Fault.BOT_NOT_RUNNING, False, None
            at += MINUTE + EVERY
        else:
            at += HOUR
        instance += 1
    yield at, max(at, BEGAN + YEAR), Status.HEALTHY, None, True, f"7902ea29:{5000 + bot}:{3535000 + instance}:838430"


def looks(bot: int, *, every: timedelta | None = None, until: datetime | None = None) -> Iterator[Seen]:
    """Its looks: first and last of each stretch, or one each `every`; the ledger joins what is near enough."""
    for first, last, status, fault, up, instance in year_of(bot):
        end = min(last, until) if until else last
        at = first
        while at <= end:
            yield Seen(f"bot-{bot}", status, fault, up, instance, at, GAP if every else max(GAP, last - first))
            at += every if every else max(end - first, EVERY)
        if until and last >= until:
            return


def size(home: Path) -> int:
    """Bytes of the ledger on the disk, its log included."""
    return sum(path.stat().st_size for path in home.iterdir())


def filled(home: Path, bots: range, **how: timedelta | datetime | None) -> tuple[int, int, list[Span]]:
    """(bytes, spans, the first bot's spans) of a fresh ledger with these looks."""
    home.mkdir()
    ledger = Ledger(home / "ledger.db")
    for start in range(bots.start, bots.stop, 20):
        some = range(start, min(start + 20, bots.stop))
        ledger.see_all(look for bot in some for look in looks(bot, **how))  # type: ignore[arg-type]
    spans = sum(len(ledger.spans(f"bot-{bot}")) for bot in bots)
    found = ledger.spans(f"bot-{bots.start}")
    ledger.close()  # the last one to close folds the log into the file
    return size(home), spans, found


def check_that_thinning_changes_nothing(home: Path) -> None:
    """The first 40 days of one bot, so that its first flips are among them: every look, against first and last ones."""
    until = BEGAN + timedelta(days=40)
    _, _, every = filled(home / "every", range(1), every=EVERY, until=until)
    _, _, thin = filled(home / "thin", range(1), until=until)
    if [(one.first, one.status, one.instance) for one in every] != [
        (one.first, one.status, one.instance) for one in thin
    ]:
        raise SystemExit(f"thinning changes the rows: {len(every)} against {len(thin)}")
    if any(abs(a.last - b.last) > EVERY for a, b in zip(every, thin, strict=True)):
        raise SystemExit("thinning changes where spans end")


def growth_of_a_quiet_day(home: Path) -> int:
    """Bytes that 5,760 looks at a bot that stays as it is add."""
    home.mkdir()
    ledger = Ledger(home / "ledger.db")
    seen = [Seen("bot", Status.HEALTHY, None, True, "key", BEGAN + EVERY * n, GAP) for n in range(int(DAY / EVERY) + 1)]
    ledger.see_all(seen[:1])
    ledger.close()
    before = size(home)
    ledger.see_all(seen[1:])
    ledger.close()
    return size(home) - before


def main() -> None:
    """Measure, and say what was."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        check_that_thinning_changes_nothing(home)
        quiet = growth_of_a_quiet_day(home / "quiet")
        say("a day of looks without a flip", f"{quiet} bytes more", "0 bytes", held=quiet == 0)
        (home / "empty").mkdir()
        Ledger(home / "empty/ledger.db").set_cursor("", "x", {})
        empty = size(home / "empty")
        total, spans, _ = filled(home / "year", range(BOTS))
        each = (total - empty) / spans
        count = int(YEAR / EVERY) * BOTS
        figure = f"{total / 1e6:.1f} MB: {spans:,} spans of {each:.0f} bytes ({spans / BOTS:.0f} a bot)"
        say(
            f"a year of {EVERY.seconds}-second looks at {BOTS} bots",
            figure,
            f"{MOST_MB} MB",
            held=total < MOST_MB * 1e6,
        )
        say("bytes of a flip", f"{each:.0f}", f"{MOST_BYTES_A_FLIP}", held=each < MOST_BYTES_A_FLIP)
        print(f"a row for each of the {count:,} looks (extrapolated from those bytes): {each * count / 1e9:.0f} GB")


if __name__ == "__main__":
    main()
