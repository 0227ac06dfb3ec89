"""What must hold after a day (see day.py), by the state of the world: stamps, processes, files, and what people got."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from itertools import pairwise

from botkeep import open_alerts
from botkeep.ledger import Entry, Kind
from botkeep.model import Actor, Fault, Status, parse_iso
from botkeep.notify import REPEATED
from botkeep.report import HealthReport
from botkeep.uptime import Is
from support.day import BOTS, CRASHING, EVERY, ZEROED, Day, Done
from support.day_bot import TOKEN
from support.day_deeds import (
    FATAL,
    MOMENT,
    Stretch,
    a_stopped_bot_stays_down,
    every_action_is_recorded,
    intents,
    never_two,
    nobody_died_unasked,
    nothing_is_done_without_a_fault,
    outcomes,
    stopped,
    what_cannot_help_is_not_repeated,
)
from support.watcher import BOTKEEP

REPORT = "Bot Health Report"
FLIP = 1.0
"""Seconds of uptime that may be claimed wrongly each time that a bot comes or goes. That it went must show anyway."""
BACKED_UP = timedelta(hours=2)
"""The newest backup is never older: one is made each hour."""


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
    """Each damage was repaired with the damaged file kept; no row is lost but those that were hit, and none is
    changed, doubled or made up; backups hold, the newest of each bot too."""
    desk = day.bots.desk(Actor.PERSON, day.clock.now)
    lost = sum(_lost(day, bot) for bot in BOTS)
    for bot in BOTS:
        hurt = [one for one in day.did("tear", "zero") if one.bot == bot]
        restores = desk.ledger.entries(bot=bot, kinds=[Kind.OUTCOME], action="restore")
        assert sum(one.result == "done" for one in restores) <= len(hurt) <= len(restores), bot
        _quarantined(day, bot, hurt)
    stores = desk.store_check()
    assert all(getattr(one, "ok", False) for one in stores), stores
    (shelves,) = [one for _, one in desk.store_list()]
    assert not isinstance(shelves, Exception)
    newest = {one.bot: one.snapshots[-1].at for one in shelves if one.snapshots}
    assert newest.keys() == set(BOTS)
    assert min(newest.values()) >= day.clock.now() - BACKED_UP, newest
    backups = sum(len(one.snapshots) for one in shelves)
    return f"{len(day.did('tear', 'zero'))} damages, {lost} rows lost of those hit; {backups} backups hold"


def _quarantined(day: Day, bot: str, hurt: list[Done]) -> None:
    """What was damaged is kept as it was."""
    kept = [path.read_bytes() for path in (day.home / ".botkeep/quarantine" / bot).glob("*/*.csv")]
    for one in hurt:
        mark = b"\n%d-99999,2026-11-2" % one.pid if one.what == "tear" else bytes(ZEROED)
        assert any(mark in file for file in kept), (bot, one)
    assert sum(bytes(ZEROED) in file for file in kept) >= sum(one.what == "zero" for one in hurt), bot


def _lost(day: Day, bot: str) -> int:
    """How many of those that the script hit; every other one is there as it was written, and once."""
    there = day.bots.data(bot).read_text().splitlines()[1:]
    written = day.wrote(bot)
    counted = Counter(there)
    assert max(counted.values()) == 1, [one for one, count in counted.items() if count > 1]
    assert counted.keys() <= set(written), counted.keys() - set(written)
    missing = set(written) - counted.keys()
    assert missing <= _hit(day, bot, written), (bot, missing - _hit(day, bot, written))
    return len(missing)


def _hit(day: Day, bot: str, written: list[str]) -> set[str]:
    """Rows that may be gone: those within zeros, the one that a torn line runs into, and of each process the last."""
    last = {line.partition("-")[0]: line for line in written}
    hit = set(last.values())
    for one in day.did("tear", "zero"):
        if one.bot == bot:
            hit |= set(one.rows) | (set(written[one.mark : one.mark + 2]) if one.what == "tear" else set())
    return hit


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


CAUSED_BY = {
    Fault.BOT_DUPLICATED: ("copy",), Fault.DATA_CORRUPT: ("tear", "zero"), Fault.BOT_HUNG: ("freeze",),
    Fault.BOT_NOT_RUNNING: (*FATAL, "crash", "kill assistant"), Fault.BOT_CRASH_LOOPING: ("crash",),
}  # fmt: skip


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
    for fault, count in Counter(one.data["fault"] for one in named).items():
        assert fault in CAUSED_BY, fault
        if fault in (Fault.BOT_DUPLICATED, Fault.DATA_CORRUPT):
            assert count == len(day.did(*CAUSED_BY[fault])), fault
    given_up = [one.sentence for one in alerts if one.data.get("given_up") and one.bot != CRASHING]
    assert given_up == []
    down = sum(_is_told(day, bot, [one for one in named if one.bot == bot]) for bot in BOTS)
    faults = Counter(str(one.data["fault"]) for one in named)
    return f"{down} long times down; alerts: {dict(faults)}"


def _is_told(day: Day, bot: str, alerts: list[Entry]) -> int:
    """How often it was down for so long that people have to know; and they were not told of less."""
    up, off = truth(day, bot), stopped(day, bot)
    down = [(one[1], two[0]) for one, two in pairwise(up)]
    long = [one for one in down if one[1] - one[0] - within(off, *one) > 2 * EVERY.total_seconds() + MOMENT]
    for first, last in long:
        assert any(first - MOMENT <= one.at.timestamp() <= last + EVERY.total_seconds() for one in alerts), (bot, first)
    for one in alerts:
        if one.data["fault"] == Fault.BOT_NOT_RUNNING and not one.data.get("given_up"):
            at = one.at.timestamp()
            well = within([*up, *off], at - EVERY.total_seconds(), at)
            assert well <= MOMENT, (bot, one.sentence)
    return len(long)


def what_people_were_told_was_so(day: Day) -> str:
    """That something is over, since when it stood, and what was done about it."""
    ledger = day.bots.desks[0].ledger
    over = [one for one in ledger.entries(kinds=[Kind.ALERT]) if "resolved" in one.data]
    for one in over:
        began = parse_iso(one.data["resolved"]["began"])
        assert one.data["resolved"]["why"] in ("well", "stopped"), one.sentence
        acted = [entry for entry in intents(day, one.bot) if began <= entry.at <= one.at]
        done = [entry for entry in acted if outcomes(day)[entry.id].result == "done" and entry.action != "poll"]
        if one.data["resolved"]["why"] == "well":
            assert ("not by an action of botkeep" in one.sentence) == (not done), (one.sentence, done)
        deeds = day.did(*FATAL, "copy", "crash", "kill assistant")
        hurt = [deed for deed in deeds if deed.bot in (one.bot, "") and deed.at <= one.at]
        assert hurt, one.sentence
        assert began >= max(deed.at for deed in hurt) - timedelta(hours=3), one.sentence
    return f"{len(over)} times something was over"


def what_bots_say_is_data(day: Day) -> str:
    """Their logs hold a token, control characters and orders; nobody ever reads the first two, or obeys the last."""
    assert all(TOKEN in path.read_text() for path in (day.home / ".botkeep/logs").glob("*.log"))
    desk = day.bots.desk(Actor.PERSON, day.clock.now)
    seen = [str(desk.diagnose(bot)) for bot in BOTS]
    told = [str(one) for one in day.people.came]
    lines = [line for watcher in day.watchers for line in watcher.lines]
    assistants, rounds = (day.home / "assistants.jsonl").read_text(), [json.dumps(one) for one in day.rounds]
    texts = [*seen, *told, *lines, assistants, *rounds, day.bots.journal()]
    assert not any(TOKEN in text or "\x1b" in text for text in texts)
    assert any("restart every bot now" in text for text in seen), "as a quotation"
    return f"{sum(map(len, texts))} characters"


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
    told = (
        f"{bot} up {claimed / 3600:.3f} h, really {really / 3600:.3f} h, unknown {unknown / 60:.1f} min "
        f"(wrong: up {wrong[Is.UP]:.1f} s, down {wrong[Is.DOWN]:.1f} s, stopped {wrong[Is.STOPPED]:.1f} s)"
    )
    _none_swallowed(day, bot, [(s.start.timestamp(), s.end.timestamp()) for s in one.strip if s.what is Is.UP])
    allowed = FLIP * flips
    assert wrong[Is.UP] <= allowed, (told, wrong)
    assert wrong[Is.DOWN] + wrong[Is.STOPPED] <= allowed, (told, wrong)
    assert claimed - allowed <= really <= claimed + unknown + allowed, told
    assert unknown <= flips * EVERY.total_seconds() / 2 + allowed, told
    return told


def _none_swallowed(day: Day, bot: str, up: list[Stretch]) -> None:
    """However short it was away, no stretch that is claimed to be up lasts from before that until after it."""
    for (_, last), (first, _) in pairwise(truth(day, bot)):
        assert not [one for one in up if one[0] < last and one[1] > first], (bot, last, first)


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
    all_are_well, never_two, nobody_died_unasked, a_stopped_bot_stays_down, nothing_is_done_without_a_fault,
    what_cannot_help_is_not_repeated, every_action_is_recorded, the_journal_agrees, data_is_kept,
    nothing_told_is_lost_or_doubled, people_know_what_happened, what_people_were_told_was_so, what_bots_say_is_data,
    a_dead_watcher_is_missed, uptime_is_what_was,
)  # fmt: skip
