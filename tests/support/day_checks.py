"""What must hold after a day (see day.py), by the state of the world: stamps, processes, files, and what people got."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from botkeep import open_alerts
from botkeep.ledger import Entry, Kind
from botkeep.model import Actor, Fault, Status, Wanted
from botkeep.notify import REPEATED
from botkeep.report import HealthReport
from botkeep.runtimes.procs import ProcessTable
from botkeep.uptime import Is
from support.day import BOTS, CRASHING, EVERY, HANDS, HIT, Day, Done, Stamp
from support.watcher import BOTKEEP

MOMENT = 3.0
"""Seconds around each time that a bot comes or goes: a look, a signal and a stamp are not one moment."""
REPORT = "Bot Health Report"
Stretch = tuple[float, float]


# --------------------------------------------------------------------------------------------------- never two


def runs(stamps: Iterable[Stamp]) -> dict[int, tuple[int, int]]:
    """pid -> its first and its last sign of life, on the machine's own clock."""
    found: dict[int, tuple[int, int]] = {}
    for one in stamps:
        first, last = found.get(one.pid, (one.mono, one.mono))
        found[one.pid] = (min(first, one.mono), max(last, one.mono))
    return found


def together(day: Day, bot: str) -> list[tuple[int, int]]:
    """Pairs that lived at the same time; but a copy that the script made, and the one that ran then."""
    made = {frozenset((one.pid, one.other)) for one in day.did("copy") if one.bot == bot}
    spans = sorted((first, last, pid) for pid, (first, last) in runs(day.stamps(bot)).items())
    return [
        (one[2], two[2])
        for place, one in enumerate(spans)
        for two in spans[place + 1 :]
        if two[0] <= one[1] and frozenset((one[2], two[2])) not in made
    ]


def never_two(day: Day) -> str:
    """By the bots' own stamps; and at the end one process of each, by the kernel's table."""
    for bot in BOTS:
        assert together(day, bot) == [], bot
    table = ProcessTable.read()
    alive = Counter(
        proc.argv[-1] for proc in table.procs.values() if not proc.dead and _is_bot(proc.argv, proc.pid, day.home)
    )
    verdicts = {one.bot: one for one in day.bots.desk(Actor.PERSON, day.clock.now).check().verdicts}
    wanted = {bot: 0 if one.wanted is Wanted.DOWN else 1 for bot, one in verdicts.items()}
    assert {bot: alive[bot] for bot in BOTS} == wanted
    copies, pids = len(day.did("copy")), sum(len(runs(day.stamps(bot))) for bot in BOTS)
    return f"{pids} processes lived, {copies} of them copies by hand; none beside another one"


def _is_bot(argv: tuple[str, ...], pid: int, home: Path) -> bool:
    if "day_bot.py" not in argv or any("shim.py" in word for word in argv):
        return False
    try:
        return Path(f"/proc/{pid}/cwd").resolve() == home.resolve()
    except OSError:
        return False


def a_stopped_bot_stays_down(day: Day) -> str:
    """From the end of a person's stop to the beginning of a person's start it gives no sign of life."""
    stops, starts = day.did("stop"), day.did("start")
    assert stops
    for stop in stops:
        until = min((one.mono for one in starts if one.mono > stop.mono), default=stop.mono)
        assert [one for one in day.stamps(HANDS) if stop.mono < one.mono < until] == []
    return f"{len(stops)} stops by a person held for {sum(_rounds(stops, starts))} rounds"


def _rounds(stops: list[Done], starts: list[Done]) -> list[int]:
    return [
        min((one.round for one in starts if one.mono > stop.mono), default=stop.round) - stop.round for stop in stops
    ]


# --------------------------------------------------------------------------------------------------- the ledger


def every_action_is_recorded(day: Day) -> str:
    """An intent before, one outcome after, whoever was killed in between; and what it says was so."""
    ledger = day.bots.desks[0].ledger
    assert ledger.open_intents() == []
    entries = ledger.entries()
    intents = {one.id: one for one in entries if one.kind is Kind.INTENT}
    outcomes = [one for one in entries if one.kind is Kind.OUTCOME]
    assert Counter(one.ref for one in outcomes) == Counter(intents.keys())
    assert all(intents[str(one.ref)].seq < one.seq for one in outcomes)
    for one in outcomes:
        if one.bot and one.result == "done" and "pid" in one.data:
            assert any(stamp.pid == one.data["pid"] for stamp in day.stamps(one.bot)), one.sentence
    for bot in BOTS:
        made = {one.pid for one in day.stamps(bot)} - {one.pid for one in day.did("copy")}
        starting = [one for one in intents.values() if one.bot == bot and one.action in ("start", "restart", "restore")]
        assert len(made) <= len(starting), (bot, made)
    reconciled = sum(bool(one.data.get("reconciled")) for one in outcomes)
    return f"{len(intents)} intents, each with its outcome, {reconciled} of them by the next caller"


def the_journal_agrees(day: Day) -> str:
    """The chain, the journal, and the command that people run."""
    desk = day.bots.desk(Actor.PERSON, day.clock.now)
    assert desk.ledger.verify() == []
    assert desk.journal.sync(day.clock.now()) == []
    assert desk.journal.verify(day.clock.now()) == []
    done = subprocess.run(
        [BOTKEEP, "journal", "--verify", "--home", day.home], env=day.environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return f"{desk.ledger.head()[0]} entries"


# --------------------------------------------------------------------------------------------------- data


def data_is_kept(day: Day) -> str:
    """Each damage was found and repaired with the damaged file kept; only rows that were hit are lost; backups hold."""
    desk = day.bots.desk(Actor.PERSON, day.clock.now)
    lost = 0
    for bot in BOTS:
        hurt = [one for one in day.did("tear", "zero") if one.bot == bot]
        restored = [
            one for one in desk.ledger.entries(bot=bot, kinds=[Kind.OUTCOME], action="restore") if one.result == "done"
        ]
        assert len(restored) <= len(hurt), bot
        kept = list((day.home / ".botkeep/quarantine" / bot).glob("*/*.csv"))
        assert len(kept) >= len(restored), (bot, kept)
        lost += _lost(day, bot, hurt)
    stores = desk.store_check()
    assert all(getattr(one, "ok", False) for one in stores), stores
    (shelves,) = [one for _, one in desk.store_list()]
    assert not isinstance(shelves, Exception)
    assert {one.bot for one in shelves if one.snapshots} == set(BOTS)
    backups = sum(len(one.snapshots) for one in shelves)
    return f"{len(day.did('tear', 'zero'))} damages, {lost} rows lost of those hit; {backups} backups hold"


def _lost(day: Day, bot: str, hurt: list[Done]) -> int:
    written = (day.home / f"{bot}.wrote").read_text().split()
    lines = day.bots.data(bot).read_bytes().split(b"\n")[1:]
    there = Counter(line.partition(b",")[0].decode() for line in lines if line)
    assert max(there.values()) == 1, [one for one, count in there.items() if count > 1]
    missing = [one for one in written if one not in there]
    killed = sum(one.bot == bot for one in day.did("kill", "freeze", "copy"))
    assert len(missing) <= sum(one.rows for one in hurt) + killed, (bot, missing)
    return len(missing)


# --------------------------------------------------------------------------------------------------- people


def nothing_told_is_lost_or_doubled(day: Day) -> str:
    """Every alert of the ledger arrived, and once; what may have arrived before says so. One of each, one resolved."""
    ledger = day.bots.desks[0].ledger
    alerts = [one for one in ledger.entries(kinds=[Kind.ALERT]) if not one.data.get("report")]
    texts = [one["message"] for one in day.people.taken if REPORT not in one["title"]]
    reports = [one["message"] for one in day.people.taken if REPORT in one["title"] and not one["attachments"]]
    got: dict[str, list[str]] = {}
    for text in texts:
        found = re.search(r"(e\d+)\s*\Z", text)
        assert found, text
        got.setdefault(found[1], []).append(text)
    assert set(got) == {one.id for one in alerts}
    for id_, copies in got.items():
        assert sum(not text.startswith(REPEATED) for text in copies) <= 1, (id_, copies)
    assert len(reports) - sum(text.startswith(REPEATED) for text in reports) <= 1 <= len(reports), reports
    opened, ended = _lives(alerts)
    assert Counter(ended) == Counter(opened.keys()), (opened.keys() - set(ended), ended)
    assert open_alerts.load(ledger).opens == ()
    again = sum(len(copies) - 1 for copies in got.values())
    refused = len(day.people.came) - len(day.people.taken)
    how = f"{refused} refused first, {again} came again and said so"
    return f"{len(alerts)} alerts arrived ({how}); {len(opened)} incidents"


def _lives(alerts: list[Entry]) -> tuple[dict[str, Entry], list[str]]:
    """The entries that opened incidents, and the ids of those that were said to be over."""
    opened = {one.id: one for one in alerts if one.ref is None}
    ended = [str(one.ref) for one in alerts if "resolved" in one.data]
    ended += [str(merged) for one in alerts for merged in one.data.get("merged", ())]
    return opened, ended


def people_know_what_happened(day: Day) -> str:
    """A second copy, damage, more than five minutes of downtime: one alert each. Otherwise nobody is alarmed."""
    alerts = [one for one in day.bots.desks[0].ledger.entries(kinds=[Kind.ALERT]) if not one.data.get("report")]
    named = [one for one in alerts if one.data.get("fault")]
    for what, fault in (("copy", Fault.BOT_DUPLICATED), ("tear", Fault.DATA_CORRUPT), ("zero", Fault.DATA_CORRUPT)):
        for one in day.did(what):
            said = [
                alert for alert in named
                if alert.bot == one.bot and alert.data["fault"] == fault and abs(alert.at - one.at) < 3 * EVERY
            ]  # fmt: skip
            assert len(said) == 1, (what, one, [alert.sentence for alert in said])
    given_up = [one.sentence for one in alerts if one.data.get("given_up") and one.bot != CRASHING]
    assert given_up == []
    down = sum(_is_told(day, bot, [one for one in named if one.bot == bot]) for bot in (*HIT, CRASHING))
    faults = Counter(str(one.data["fault"]) for one in named)
    return f"{down} long times down; alerts: {dict(faults)}"


def _is_told(day: Day, bot: str, alerts: list[Entry]) -> int:
    """How often it was down for so long that people have to know; and they were not told of less."""
    up = truth(day, bot)
    long = [(one[1], two[0]) for one, two in pairwise(up) if two[0] - one[1] > 2 * EVERY.total_seconds() + MOMENT]
    for first, last in long:
        assert any(first - MOMENT <= one.at.timestamp() <= last + EVERY.total_seconds() for one in alerts), (bot, first)
    for one in alerts:
        if one.data["fault"] == Fault.BOT_NOT_RUNNING and not one.data.get("given_up"):
            at = one.at.timestamp()
            assert within(up, at - EVERY.total_seconds(), at) <= MOMENT, (bot, one.sentence)
    return len(long)


# --------------------------------------------------------------------------------------------------- uptime


def truth(day: Day, bot: str) -> list[Stretch]:
    """When it was up, by its own stamps and the script's freezes: epoch seconds of the moved clock, no overlaps."""
    pieces: list[Stretch] = []
    stamps = day.stamps(bot)
    for pid in {one.pid for one in stamps}:
        own = [one for one in stamps if one.pid == pid]
        frozen = [one.mono for one in day.did("freeze") if one.pid == pid]
        begin = own[0].at
        for one, following in pairwise(own):
            if any(one.mono <= at < following.mono for at in frozen):
                pieces.append((begin, one.at))
                begin = following.at
        pieces.append((begin, own[-1].at))
    joined: list[Stretch] = []
    for first, last in sorted(pieces):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def within(found: Iterable[Stretch], first: float, last: float) -> float:
    """Seconds of these stretches within [first, last)."""
    return sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in found)


def uptime_is_what_was(day: Day) -> str:
    """Nothing is claimed that was otherwise; and what is not known is no more than the looks leave open."""
    report = day.bots.desk(Actor.PERSON, day.clock.now).report(day.begin)
    return "; ".join(_compared(day, report, bot) for bot in BOTS)


def _compared(day: Day, report: HealthReport, bot: str) -> str:
    one = next(one for one in report.bots if one.bot == bot)
    up, wrong = truth(day, bot), dict.fromkeys(Is, 0.0)
    for stretch in one.strip:
        first, last = stretch.start.timestamp(), stretch.end.timestamp()
        was_up = within(up, first, last)
        wrong[stretch.what] += last - first - was_up if stretch.what is Is.UP else was_up
    flips, begin, end = 2 * len(up), day.begin.timestamp(), one.strip[-1].end.timestamp()
    really = within(up, begin, end)
    claimed, unknown = one.uptime.up.total_seconds(), one.uptime.unknown.total_seconds()
    told = f"{bot} up {claimed / 3600:.3f} h, really {really / 3600:.3f} h, unknown {unknown / 60:.1f} min"
    allowed = MOMENT * flips
    assert wrong[Is.UP] <= allowed, (told, wrong)
    assert wrong[Is.DOWN] + wrong[Is.STOPPED] <= allowed, (told, wrong)
    assert claimed - allowed <= really <= claimed + unknown + allowed, told
    assert unknown <= flips * EVERY.total_seconds() / 2 + allowed, told
    return told


# --------------------------------------------------------------------------------------------------- the watcher


def a_dead_watcher_is_missed(day: Day) -> str:
    """While none lives, every round says so; afterwards none does."""
    said = {number: ") is dead: " in str(one["problems"]) for number, one in enumerate(day.rounds) if one}
    dead: set[int] = set()
    for kill in day.did("kill watcher"):
        until = min((one.round for one in day.did("start watcher") if one.mono > kill.mono), default=len(day.rounds))
        dead |= set(range(kill.round, until))
    missed = {number for number, one in said.items() if one}
    assert dead & said.keys() <= missed, sorted(dead & said.keys() - missed)
    assert len(missed - dead) <= len(day.did("start watcher")), sorted(missed - dead)  # it is just being started
    return f"{len(missed)} rounds missed a dead watcher"


def all_are_well(day: Day) -> str:
    """Long after the last fault; whim as assistants left it."""
    verdicts = day.bots.desk(Actor.PERSON, day.clock.now).check().verdicts
    assert all(one.status in (Status.HEALTHY, Status.STOPPED) for one in verdicts), verdicts
    return f"{len(day.rounds)} rounds"


CHECKS = (
    all_are_well, never_two, a_stopped_bot_stays_down, every_action_is_recorded, the_journal_agrees, data_is_kept,
    nothing_told_is_lost_or_doubled, people_know_what_happened, a_dead_watcher_is_missed, uptime_is_what_was,
)  # fmt: skip
