"""What must hold after a day of whatever was done to bots: by whom, when, after what, and never two at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from botkeep.ledger import Entry, Kind
from botkeep.model import Actor, Fault, Verdict, Wanted
from botkeep.runtimes.procs import ProcessTable
from support.day import BOTS, CRASHING, EVERY, HANDS, Day, Done, Stamp
from support.fleet import alive

MOMENT = 3.0
"""Seconds around each time that a bot comes or goes: a look, a signal and a stamp are not one moment."""
STARTS = ("start", "restart")
FATAL = ("kill", "tear", "zero", "freeze")
SOON = 4 * EVERY
"""Within so long after a fault code has done what it can, also where the first who came was killed."""
Stretch = tuple[float, float]


def intents(day: Day, bot: str | None = None) -> list[Entry]:
    """Everything that was begun, oldest first."""
    return day.bots.desks[0].ledger.entries(bot=bot, kinds=[Kind.INTENT])


def outcomes(day: Day) -> dict[str | None, Entry]:
    """By the intent."""
    return {one.ref: one for one in day.bots.desks[0].ledger.entries(kinds=[Kind.OUTCOME])}


def verdicts(day: Day) -> dict[str, Verdict]:
    """How the bots are now."""
    return {one.bot: one for one in day.bots.desk(Actor.PERSON, day.clock.now).check().verdicts}


# --------------------------------------------------------------------------------------------------- never two


def runs(stamps: Iterable[Stamp]) -> dict[int, tuple[Stamp, Stamp]]:
    """pid -> its first and its last sign of life."""
    found: dict[int, tuple[Stamp, Stamp]] = {}
    for one in stamps:
        found[one.pid] = (found.get(one.pid, (one, one))[0], one)
    return found


def together(day: Day, bot: str) -> list[tuple[int, int]]:
    """Pairs that lived at the same time; but a copy that the script made, and the one that ran then."""
    made = {frozenset((one.pid, one.other)) for one in day.did("copy") if one.bot == bot}
    spans = sorted((first.mono, last.mono, pid) for pid, (first, last) in runs(day.stamps(bot)).items())
    return [
        (one[2], two[2])
        for place, one in enumerate(spans)
        for two in spans[place + 1 :]
        if two[0] <= one[1] and frozenset((one[2], two[2])) not in made
    ]


def never_two(day: Day) -> str:
    """By the bots' stamps and by a lock of theirs, which the kernel frees; in the end by the kernel's table.

    A copy that the script made is found and brought back to one by the next round.
    """
    copies = day.did("copy")
    for bot in BOTS:
        assert together(day, bot) == [], bot
        assert _beside(day, bot) <= {one.pid for one in copies if one.bot == bot}, bot
    longest = max((_lived_together(day, one) for one in copies), default=timedelta())
    assert longest <= 2 * EVERY, longest
    wanted = {bot: 0 if one.wanted is Wanted.DOWN else 1 for bot, one in verdicts(day).items()}
    assert _processes(day) == wanted
    pids = sum(len(runs(day.stamps(bot))) for bot in BOTS)
    return f"{pids} processes lived, {len(copies)} of them copies by hand; none beside another one"


def _beside(day: Day, bot: str) -> set[int]:
    """Who found at its start that another one lived."""
    path = day.home / f"{bot}.beside"
    return {int(line.split()[1]) for line in path.read_text().splitlines()} if path.exists() else set()


def _lived_together(day: Day, copy: Done) -> timedelta:
    lived = runs(day.stamps(copy.bot))
    last = min(lived[pid][1].at for pid in (copy.pid, copy.other))
    return timedelta(seconds=last - copy.at.timestamp())


def _processes(day: Day) -> dict[str, int]:
    table = ProcessTable.read()
    found = Counter(
        proc.argv[-1] for proc in table.procs.values() if not proc.dead and _is_bot(proc.argv, proc.pid, day.home)
    )
    return {bot: found[bot] for bot in BOTS}


def _is_bot(argv: tuple[str, ...], pid: int, home: Path) -> bool:
    if "day_bot.py" not in argv or any("shim.py" in word for word in argv):
        return False
    try:
        return Path(f"/proc/{pid}/cwd").resolve() == home.resolve()
    except OSError:
        return False


def nobody_died_unasked(day: Day) -> str:
    """Each end of a process is the script's deed, or within an action on its bot; not that of who started it."""
    ends = 0
    for bot in BOTS:
        hit = {one.pid for one in day.did(*FATAL) if one.bot == bot}
        acted = [(one.at.timestamp(), _over(day, one)) for one in intents(day, bot)]
        for pid, (_, last) in runs(day.stamps(bot)).items():
            if pid in hit or alive(pid):
                continue
            ends += 1
            assert any(begin - MOMENT <= last.at <= end for begin, end in acted), (bot, pid, last)
    return f"{ends} ends by an action, {len(day.did(*FATAL))} by the script"


def _over(day: Day, intent: Entry) -> float:
    return outcomes(day)[intent.id].at.timestamp() + MOMENT


# --------------------------------------------------------------------------------------------------- whose word holds


def a_stopped_bot_stays_down(day: Day) -> str:
    """From the end of a stop on purpose to somebody's start it gives no sign of life; a person's only a person ends."""
    stops, starts = day.did("stop"), day.did("start")
    assert stops
    for stop in stops:
        until = min((one.mono for one in starts if one.mono > stop.mono), default=stop.mono)
        assert [one for one in day.stamps(HANDS) if stop.mono < one.mono < until] == []
    by_others = sum(_stays_down(day, bot) for bot in BOTS)
    for stop, start in _persons_pauses(day):
        begun = [one for one in intents(day, HANDS) if stop.seq < one.seq < start.seq and one.action != "stop"]
        assert begun == [], [one.sentence for one in begun]
    said = [line for line in (day.home / "assistants.jsonl").read_text().splitlines() if f'"bot": "{HANDS}"' in line]
    refused = [line for line in said if '"refused"' in line and "a person stopped it at" in line]
    assert refused
    return f"{len(stops)} stops by a person held against {len(refused)} assistants, {by_others} stops in all"


def _stays_down(day: Day, bot: str) -> int:
    """How many stops, each without a sign of life until the next start."""
    done, wishes = outcomes(day), [one for one in intents(day, bot) if one.actor != Actor.ROUND]
    count = 0
    for one, following in pairwise([*wishes, None]):
        if one is None or one.action != "stop" or done[one.id].result != "done":
            continue
        count += 1
        first = done[one.id].at.timestamp()
        last = following.at.timestamp() if following else day.clock.now().timestamp()
        assert [stamp for stamp in day.stamps(bot) if first < stamp.at < last] == [], (bot, one.sentence)
    return count


def _persons_pauses(day: Day) -> list[tuple[Entry, Entry]]:
    """Each person's stop with the person's start after it."""
    words = [one for one in intents(day, HANDS) if one.actor == Actor.PERSON]
    return [(one, two) for one, two in pairwise(words) if (one.action, two.action) == ("stop", "start")]


def stopped(day: Day, bot: str) -> list[Stretch]:
    """When it was wanted down: epoch seconds from a stop to somebody's start."""
    wishes = [one for one in intents(day, bot) if one.actor != Actor.ROUND and one.action in ("stop", *STARTS)]
    ends = [*(one.at for one in wishes[1:]), day.clock.now()]
    return [
        (one.at.timestamp(), end.timestamp()) for one, end in zip(wishes, ends, strict=True) if one.action == "stop"
    ]


def nothing_is_done_without_a_fault(day: Day) -> str:
    """No code and no assistant restarts or restores a bot that was left alone."""
    count = 0
    for bot in BOTS:
        hurt = [one for one in day.did(*FATAL, "copy", "crash", "kill assistant", "start") if one.bot in (bot, "")]
        for one in intents(day, bot):
            if one.actor == Actor.PERSON or not one.data.get("fault") or _is_loop(day, one):
                continue
            count += 1
            assert any(timedelta() <= one.at - deed.at <= SOON for deed in hurt), (bot, one.sentence)
    return f"{count} restarts and restores, each after a fault"


def _is_loop(day: Day, intent: Entry) -> bool:
    """Whether it belongs to a bot that dies at each start."""
    return intent.bot == CRASHING and any(begin <= intent.at <= end for begin, end in _loops(day))


def _loops(day: Day) -> list[tuple[datetime, datetime]]:
    """From each time that its program broke to an hour after it was mended."""
    begins = [one.at for one in day.did("crash")]
    return [(at, min(one.at for one in day.did("mend") if one.at > at) + timedelta(hours=1.5)) for at in begins]


def what_cannot_help_is_not_repeated(day: Day) -> str:
    """A bot that dies at each start is tried as often as its playbook's back-off says, by whomever, and no sooner."""
    backoff = day.bots.desk(Actor.PERSON, day.clock.now).playbook(Fault.BOT_NOT_RUNNING.value).policy.backoff
    done, tried = outcomes(day), 0
    for begin, end in _loops(day):
        tries = [
            one for one in intents(day, CRASHING)
            if begin <= one.at <= end and one.actor != Actor.PERSON and done[one.id].data.get("attempted") is not False
        ]  # fmt: skip
        gaps = [two.at - one.at for one, two in pairwise(tries)]
        assert len(tries) <= len(backoff), [one.at for one in tries]
        assert all(gap >= wait for gap, wait in zip(gaps, backoff[1:], strict=False)), gaps
        tried += len(tries)
    return f"{tried} tries in {len(_loops(day))} crash loops"


# --------------------------------------------------------------------------------------------------- the ledger


def every_action_is_recorded(day: Day) -> str:
    """An intent before, one outcome after, whoever was killed in between; and what it says was so."""
    ledger = day.bots.desks[0].ledger
    assert ledger.open_intents() == []
    entries = ledger.entries()
    begun = {one.id: one for one in entries if one.kind is Kind.INTENT}
    ended = [one for one in entries if one.kind is Kind.OUTCOME]
    assert Counter(one.ref for one in ended) == Counter(begun.keys())
    assert all(begun[str(one.ref)].seq < one.seq for one in ended)
    lived = {bot: runs(day.stamps(bot)) for bot in BOTS}
    for one in ended:
        if one.bot and one.result == "done" and "pid" in one.data:
            first, _ = lived[one.bot][one.data["pid"]]
            assert begun[str(one.ref)].at.timestamp() <= first.at <= one.at.timestamp() + MOMENT, one.sentence
    for bot in BOTS:
        made = lived[bot].keys() - {one.pid for one in day.did("copy")}
        starting = [one for one in begun.values() if one.bot == bot and _may_start(one, outcomes(day)[one.id])]
        assert len(made) <= len(starting), (bot, made)
    reconciled = sum(bool(one.data.get("reconciled")) for one in ended)
    return f"{len(begun)} intents, each with its outcome, {reconciled} of them by the next caller"


def _may_start(intent: Entry, outcome: Entry) -> bool:
    if intent.action == "restore":
        return bool(outcome.data.get("started") or outcome.data.get("reconciled"))
    return intent.action in STARTS and outcome.data.get("attempted") is not False
