"""The morning report over a hundred bots with thirty days behind each: looks, falls, restarts and 700 trades.

Each bot fell about once a day and was restarted; the report reads all of it anew, as the one at 08:00 does.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from botkeep.ledger import Kind, Ledger, Seen
from botkeep.model import Actor, Fault, Status, utc_now
from botkeep.report_words import LIMIT
from botkeep.rounds import Desk
from botkeep.templating import units
from botkeep.workspace import Workspace
from support import said, workspace

BOTS, DAYS, TRADES = 100, 31, 700
DAY, HOUR, MINUTE, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
GAP = timedelta(minutes=12, seconds=30)
MOST_SECONDS = 10.0
MOST_PAGE = 1_500_000


def main() -> bool:
    """One line a figure."""
    now, chance = utc_now(), random.Random(1)
    names = [f"bot-{n}" for n in range(BOTS)]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        entries = [{"name": name, "process_name": f"no_bot_of_a_report_{name}", "data_file": f"data/{name}.csv",
                    "capital": "1000", "currency": "USDT"} for name in names]  # fmt: skip
        workspace(home, entries)
        (home / "data").mkdir()
        for name in names:
            (home / f"data/{name}.csv").write_text(trades(now, chance))
        desk = Desk.open(Workspace(home), Actor.PERSON)
        past(desk.ledger, names, now, chance)
        good = measured(desk, now)
        desk.close()
    return good


def trades(now: datetime, chance: random.Random) -> str:
    """A month of closed trades."""
    step = DAY * DAYS / TRADES
    rows = (f"{now - step * n:%Y-%m-%dT%H:%M:%SZ},DOGEUSDT,{chance.gauss(0.1, 1):.8f}\n" for n in range(TRADES, 0, -1))
    return "close_time,symbol,pnl\n" + "".join(rows)


def past(ledger: Ledger, names: list[str], now: datetime, chance: random.Random) -> None:
    """Looks, and a restart for each fall."""
    looks = sorted((one for name in names for one in looks_of(name, now, chance)), key=lambda one: one.at)
    for begin in range(0, len(looks), 500):
        ledger.see_all(looks[begin : begin + 500])
    for one in looks:
        if one.status is Status.FAULTY:
            told = {"bot": one.bot, "action": "restart", "actor": "round"}
            found = {"after_fault": True, "fault": "bot-not-running"}
            intent = ledger.append(Kind.INTENT, at=one.at, sentence="it is down", data=found, **told)
            ledger.append(Kind.OUTCOME, at=one.at + 20 * SECOND, sentence=f"{one.bot} was restarted (pid 7).",
                          ref=intent.id, result="done", data={"instance": "x"}, **told)  # fmt: skip


def looks_of(name: str, now: datetime, chance: random.Random) -> Iterator[Seen]:
    """Of each stretch the first and the last look: those between change one row in place."""
    at, run = now - DAY * DAYS, 0
    while at < now - 2 * HOUR:
        falls = min(at + HOUR * chance.uniform(5, 40), now - HOUR)
        for when in (at, falls - 15 * SECOND):
            yield Seen(name, Status.HEALTHY, None, True, f"7902ea29:{run}", when, 2 * DAY)
        yield Seen(name, Status.FAULTY, Fault.BOT_NOT_RUNNING, False, None, falls, GAP)
        at, run = falls + MINUTE, run + 1


def measured(desk: Desk, now: datetime) -> bool:
    """The second of two: the first one looks at every file for the first time."""
    for _ in range(2):
        took = [time.perf_counter()]
        report = desk.report(now - DAY)
        took.append(time.perf_counter())
        text = desk.report_told(report, "plain")
        took.append(time.perf_counter())
        page = desk.report_told(report, "html")
        took.append(time.perf_counter())
    facts, words, whole = (then - before for before, then in pairwise(took))
    print(
        f"{BOTS} bots, {DAYS} days and {TRADES} trades each: figures {facts:.2f} s, text {words:.2f}, page {whole:.2f}"
    )
    size = len(page.encode())
    held = said("the report as text and page", f"{took[-1] - took[0]:.1f} s", f"{MOST_SECONDS:.0f} s",
                held=took[-1] - took[0] < MOST_SECONDS)  # fmt: skip
    held &= said("its page", f"{size / 1e6:.2f} MB", f"{MOST_PAGE / 1e6:.1f} MB", held=size < MOST_PAGE)
    return said("its text", f"{units(text)} characters", f"{LIMIT}", held=units(text) <= LIMIT) and held


if __name__ == "__main__":
    sys.exit(not main())
