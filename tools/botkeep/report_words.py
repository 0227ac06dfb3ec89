"""A report in words: what the templates show, as plain texts, and the text, Markdown and HTML that come of them.

A fleet of a thousand fits one message too: bots that need nobody are folded into one line before anything else is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any

from .earnings import MONTH, Habit
from .goals import Goal, days, lasted, percent
from .judge import length
from .model import Status
from .pnl import UNKNOWN, CurrencyFigures, OpenPosition, PnlFigures, rounded
from .report import BotReport, Deed, Fall, HealthReport, Held, Made, Told, Wakes
from .second import SecondStatus
from .silences import Silence
from .templating import Rendered, render
from .uptime import Uptime

__all__ = ["LIMIT", "TEMPLATES", "answer", "money", "told", "view"]

LIMIT = 4096
"""UTF-16 units of one Telegram message."""
TEMPLATES = {
    "text": "health_report.txt.j2",
    "plain": "health_report.txt.j2",
    "markdown": "health_report.md.j2",
    "html": "health_report.html.j2",
}
MAX_POSITIONS = 5
MAX_TIMES = 5
MAX_LISTED = 6
"""Restarts, and times that it was down, of one bot: a night of crashes is more than anybody reads."""
MAX_NAMES = 3
WORTH_SAYING = timedelta(minutes=1)
FRESH = timedelta(minutes=5)
"""A price that is older than this says when it was."""
GROUPED = 10_000
"""From here on thousands are set apart: 1,000,000,000,000 is not read otherwise."""
SIGNIFICANT = 8
"""Digits of a price or an amount below one: a coin may cost 0.0000000123."""
MOSTLY = Decimal("0.5")
CENTS = frozenset({"USD", "USDT", "USDC", "FDUSD", "TUSD", "BUSD", "DAI", "EUR", "GBP", "CHF", "AUD", "CAD", UNKNOWN})
"""Currencies with two digits after the point; of others as many as they have, up to eight."""
ICONS = {Status.HEALTHY: "✅", Status.FAULTY: "❌", Status.UNKNOWN: "❔", Status.STOPPED: "⏸"}


@dataclass(frozen=True)
class Detail:
    """How much of a report is shown."""

    bots: int = 60
    lines: int = 30
    """Of each other list. A bot that was restarted all night fills no chat."""
    words: int = 400
    """Characters of one sentence."""
    extras: bool = True
    """Also what belongs to every bot (backups, positions), and older windows."""


FULL = Detail(bots=200, lines=200)
STEPS = (Detail(), Detail(24, 20, 260), Detail(12, 12, 200), Detail(8, 8, 140), Detail(6, 5, 110, extras=False))
"""For a message: the first that fits."""


def told(
    report: HealthReport, zone: tzinfo, kind: str = "text", *, home: Path | None = None, limit: int | None = LIMIT
) -> Rendered:
    """The report for people, in their zone, as `text` (at most `limit` UTF-16 units), `plain`, `markdown` or `html`.

    `plain` is the same text for where no Markdown works: a terminal, a chat without it.
    `home`: the workspace, whose own templates are used if they work. Whatever bots, logs and files wrote into a report
    is text in it: no markup of theirs works.
    """
    name = TEMPLATES[kind]
    if kind in ("text", "plain"):
        steps = [view(report, zone, one) for one in STEPS]
        return render(name, steps, home=home, limit=limit, markdown=kind == "text")
    shown = view(report, zone, FULL)
    if kind == "markdown":
        return render(name, [shown], home=home)
    from .report_pictures import inline

    return render(name, [shown], home=home, pictures=inline(report, [one["bot"] for one in shown["bots"]]))


def view(report: HealthReport, zone: tzinfo, detail: Detail = FULL) -> dict[str, Any]:
    """What templates are given: texts, truth values and lists of them, times in the people's zone."""
    words = _Words(report, zone, detail)
    shown, others = _folded(report, detail.bots)
    lines = detail.lines
    waits = [one for one in report.held if one.earliest is None]
    backing_off = [one for one in report.held if one.earliest is not None]
    mend = [*(one.sentence(zone) for one in report.missed), *report.problems]
    return {
        "answer": answer(report, zone, short=detail.words < 200),
        "fine": not report.unwell,
        "day": report.at.astimezone(zone).strftime("%Y-%m-%d"),
        "time": report.at.astimezone(zone).strftime("%H:%M"),
        "window": _window(report),
        "zone": _zone(report.at, zone),
        "begins": words.moment(report.since),
        "middle": words.clock(report.since + (report.at - report.since) / 2),
        "month_begins": (report.at - MONTH).astimezone(zone).strftime("%Y-%m-%d"),
        "bots": [words.bot(one) for one in shown],
        "others": words.others(others) if others else None,
        "fine_count": sum(1 for one in report.bots if one.status is Status.HEALTHY),
        "uptime_range": _range([one.uptime for one in report.bots]) or "not known",
        "sum": _sum_of(report.bots),
        "goals": [_goal(one) for one in report.goals],
        "goals_met": f"{sum(1 for one in report.goals if one.met)} of {len(report.goals)}",
        "actions": [words.action(one) for one in report.actions[-lines:]],
        "more_actions": max(0, len(report.actions) - lines),
        "told": [words.event(one) for one in report.told[-lines:]],
        "more_told": max(0, len(report.told) - lines),
        "events": words.events(lines),
        "waits": [{"bot": one.bot, **words.held(one)} for one in waits[:lines]],
        "more_waits": max(0, len(waits) - lines),
        "held": [{"bot": one.bot, **words.held(one)} for one in backing_off[:lines]],
        "more_held": max(0, len(backing_off) - lines),
        "silences": [words.silence(one) for one in report.silences[:lines]],
        "more_silences": max(0, len(report.silences) - lines),
        "wakes": _wakes(report.wakes),
        "incidents": [words.cut(one) for one in report.incidents[:lines]],
        "unwell": [{"bot": one.bot, "state": words.state(one)} for one in report.unwell[:lines]],
        "more_unwell": max(0, len(report.unwell) - lines),
        "unwell_count": len(report.unwell),
        "count": len(report.bots),
        "stopped": _some([one.bot for one in report.stopped], 10),
        "problems": [words.cut(one) for one in mend[:lines]],
        "more_problems": max(0, len(mend) - lines),
    }


# --- the answer --------------------------------------------------------------------------------------------------


def answer(report: HealthReport, zone: tzinfo, *, short: bool = False) -> str:
    """What a person wants to know first: how many are fine, and which need somebody, for what."""
    if not report.bots:
        return "no bots are configured"
    fine = sum(1 for one in report.bots if one.status is Status.HEALTHY)
    parts = [f"all {fine} fine" if fine == len(report.bots) else f"{fine} of {len(report.bots)} fine"]
    waiting = {one.bot for one in report.held if one.earliest is None}
    need = [one for one in report.unwell if one.bot in waiting or one.status is Status.UNKNOWN]
    later = [one for one in report.unwell if one.bot not in waiting and one.status is not Status.UNKNOWN]
    parts += [_need(need, "needs you", "need you", short=short)] if need else []
    parts += [_later(report, later, zone)] if later else []
    if report.stopped:
        are = "is" if len(report.stopped) == 1 else "are"
        parts.append(f"{_some([one.bot for one in report.stopped], MAX_NAMES)} {are} stopped on purpose")
    return ", ".join(parts) + _caveats(report)


def _need(bots: Sequence[BotReport], one: str, many: str, *, short: bool) -> str:
    if len(bots) == 1:
        fault = f" ({bots[0].fault.value})" if bots[0].fault else ""
        return f"{bots[0].bot} {one}{fault}: {_why(bots[0], 90 if short else 160)}"
    faults = [f"{bot.bot} ({bot.fault.value if bot.fault else bot.status.value})" for bot in bots]
    return f"{len(bots)} {many}: {_some(faults, MAX_NAMES)}"


def _why(bot: BotReport, most: int) -> str:
    """Its sentence, without the name that stands before it already."""
    text = bot.sentence.strip().rstrip(".").removeprefix(f"{bot.bot}: ")
    if text.startswith(f"{bot.bot} is "):
        text = f"it{text.removeprefix(bot.bot)}"
    elif text.startswith(f"{bot.bot}'s "):
        text = f"its{text.removeprefix(bot.bot)[2:]}"
    return _capped(text or "nothing is known of it", most)


def _later(report: HealthReport, bots: Sequence[BotReport], zone: tzinfo) -> str:
    """What the playbooks allow is done by the next round: whether one comes, this report cannot know."""
    if len(bots) > 1:
        return f"{len(bots)} are left to their playbooks: {_some([one.bot for one in bots], MAX_NAMES)}"
    fault = bots[0].fault.value if bots[0].fault else bots[0].status.value
    held = next((one for one in report.held if one.bot == bots[0].bot and one.earliest), None)
    until = f", not before {_clock(held.earliest, report.at, zone)}" if held and held.earliest else ""
    return f"{bots[0].bot} is left to its playbook ({fault}{until})"


def _caveats(report: HealthReport) -> str:
    """What keeps `all fine` from being the whole truth."""
    said = []
    window = report.at - report.since
    unseen = [one for one in report.bots if one.uptime.unknown > window * float(MOSTLY)]
    if len(unseen) == len(report.bots):
        said.append(f"nobody looked for most of the last {_window(report)}")
    mend = len(report.missed) + len(report.problems)
    if mend:
        said.append(f"{mend} thing{'s' * (mend > 1)} to mend")
    return "".join(f"; {one}" for one in said)


def _some(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


# --- folding -----------------------------------------------------------------------------------------------------


def _folded(report: HealthReport, most: int) -> tuple[list[BotReport], list[BotReport]]:
    """The bots of which there is most to say, in the fleet's order; and the others."""
    held = {one.bot for one in report.held}
    ranked = sorted(report.bots, key=lambda one: _rank(one, one.bot in held))
    chosen = {one.bot for one in ranked[:most]}
    return [one for one in report.bots if one.bot in chosen], [one for one in report.bots if one.bot not in chosen]


def _rank(bot: BotReport, held: bool) -> tuple[int, int, timedelta, Decimal]:
    unwell = bot.status in (Status.FAULTY, Status.UNKNOWN)
    earned = abs(bot.pnl.realised) if isinstance(bot.pnl, PnlFigures) and bot.pnl.currencies else Decimal(0)
    return (-2 * unwell - held, -len(bot.restarts), -bot.uptime.down, -earned)


# --- each thing in words -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Words:
    report: HealthReport
    zone: tzinfo
    detail: Detail

    def cut(self, text: str) -> str:
        return _capped(text, self.detail.words)

    def clock(self, at: datetime) -> str:
        """The day too where the time alone could mean two."""
        return _clock(at, self.report.at, self.zone)

    def moment(self, at: datetime) -> str:
        """With the day wherever it is another one than now."""
        same = at.astimezone(self.zone).date() == self.report.at.astimezone(self.zone).date()
        return self.clock(at) if same else at.astimezone(self.zone).strftime("%m-%d %H:%M")

    def bot(self, one: BotReport) -> dict[str, Any]:
        figures = one.pnl if isinstance(one.pnl, PnlFigures) else None
        held = self.positions(figures) if figures is not None and self.detail.extras else []
        return {
            "bot": one.bot,
            "status": one.status.value,
            "icon": ICONS[one.status],
            "state": self.state(one),
            "share": _share(one.uptime),
            "uptime": self.uptime(one),
            "seen": "; ".join(self._unseen(one)),
            "falls": [self.fall(each) for each in one.falls[-MAX_LISTED:]],
            "more_falls": max(0, len(one.falls) - MAX_LISTED),
            "windows": [
                {"name": label, "share": _share(found), "unknown": _unknown(found)} for label, found in one.windows
            ],
            "restarts": [self.made(each) for each in one.restarts[-MAX_LISTED:]],
            "more_restarts": max(0, len(one.restarts) - MAX_LISTED),
            "planned": one.planned,
            "earned": None if one.pnl is None else self.cut(_earned(one.pnl)),
            "gain": figures.realised >= 0 if figures and _has_traded(figures) else None,
            "trading": _trading(figures, one.habit),
            "unrealised": _unrealised(figures),
            "positions": self.cut(_in_a_row(figures, held)) if figures else "",
            "holdings": held,
            "backup": self.cut(self.backup(one)) if one.wants_backup and self.detail.extras else "",
            "month": _month(one.month),
            "notes": [self.cut(note) for note in (figures.notes if figures else ())],
        }

    def uptime(self, bot: BotReport) -> str:
        """`99.8% (1 restart at 03:15, bot-not-running; 2.0 h unknown)`."""
        found = bot.uptime
        parts = [self._restarts(bot.restarts)] if bot.restarts else []
        parts += [f"{bot.planned} planned restart{'s' * (bot.planned > 1)}"] if bot.planned else []
        parts += self._unseen(bot)
        older = [f"{label} {_share(one)}" for label, one in bot.windows if label != _window(self.report)]
        parts += [", ".join(older)] if older and self.detail.extras else []
        return f"{_share(found)} ({'; '.join(parts)})" if parts else _share(found)

    def _unseen(self, bot: BotReport) -> list[str]:
        """What is neither up nor down."""
        both = (("stopped on purpose", bot.uptime.stopped), ("unknown", bot.uptime.unknown))
        return [f"{days(lasted)} {what}" for what, lasted in both if lasted >= WORTH_SAYING]

    def made(self, made: Made) -> dict[str, str]:
        return {"at": self.clock(made.at), "cause": made.cause, "entry": made.entry}

    def fall(self, fall: Fall) -> dict[str, str]:
        """`03:10 to 03:15, 5 min`."""
        seen = fall.seen
        start, end = self.clock(seen.start), self.clock(seen.end) if seen.over else "now"
        when = start if start == end else f"{start} to {end}"
        return {"text": f"{when}, {lasted(seen)}", "entries": ", ".join(fall.entries)}

    def positions(self, found: PnlFigures) -> list[str]:
        """One line each, and how many more there are."""
        shown = [self._position(one) for one in found.positions[:MAX_POSITIONS]]
        more = len(found.positions) - MAX_POSITIONS
        return [*shown, f"{more} more"] if more > 0 else shown

    def _position(self, held: OpenPosition) -> str:
        """`long 0.012 BTC/USDT at 61000.5 USDT, +2.99 USDT at 61250 (its own API)`; of an older price, when it was."""
        side = "short" if held.amount < 0 else "long"
        currency = "" if held.currency == UNKNOWN else f" {held.currency}"
        text = f"{side} {_number(abs(held.amount))} {held.symbol} at {_number(held.average_price)}{currency}"
        mark = held.mark
        if mark is None or held.unrealised is None:
            return text
        old = mark.at is not None and self.report.at - mark.at > FRESH
        when = f" of {self.moment(mark.at)}" if old and mark.at else ""
        return f"{text}, {_sum(held.unrealised, held.currency)} at {_number(mark.price)}{when} ({mark.source})"

    def _restarts(self, made: Sequence[Made]) -> str:
        causes = {one.cause for one in made}
        why = f", {made[0].cause}" if len(causes) == 1 and made[0].cause else ""
        if len(made) > MAX_TIMES:
            return f"{len(made)} restarts, the last at {self.clock(made[-1].at)}{why}"
        times = [self.clock(one.at) + (f" {one.cause}" if not why and one.cause else "") for one in made]
        return f"{len(made)} restart{'s' * (len(made) > 1)} at {', '.join(times)}{why}"

    def others(self, bots: Sequence[BotReport]) -> dict[str, str]:
        """One line each for the bots that are not shown."""
        return {
            "count": str(len(bots)),
            "uptime": f"{len(bots)} others: {_range([one.uptime for one in bots])}",
            "earned": f"{len(bots)} others: {_sum_of(bots)}",
        }

    def action(self, deed: Deed) -> dict[str, str]:
        return {**self.event(deed), "result": deed.result, "action": deed.action}

    def events(self, most: int) -> list[dict[str, str]]:
        """Actions and what people were told, as one list, the oldest first."""
        both: list[Deed | Told] = [*self.report.actions[-most:], *self.report.told[-most:]]
        both.sort(key=lambda one: one.at)
        return [self.event(one) for one in both]

    def event(self, one: Deed | Told) -> dict[str, str]:
        kind = getattr(one, "kind", "action")
        said = self.cut(one.sentence)
        return {"at": self.clock(one.at), "bot": one.bot or "", "sentence": said, "entry": one.entry, "kind": kind}

    def held(self, held: Held) -> dict[str, str]:
        reason = self.cut(held.reason.rstrip("."))
        if held.earliest:
            return {"text": f"not before {self.clock(held.earliest)}: {reason}", "command": ""}
        if held.approval:
            command = f"botkeep approve {held.approval}"
            return {"text": f"waits for a person: {command} ({reason})", "command": command}
        # In brackets: behind a colon the redaction would take what follows `the API key` for one.
        return {"text": f"waits until {held.until} ({reason})" if held.until else reason, "command": ""}

    def backup(self, bot: BotReport) -> str:
        if bot.backup_at is None:
            return "none yet"
        proven = "no restore has proven it"
        if bot.proven_at:
            proven = f"proven by a restore {self.age(bot.proven_at)} ago{_in_brackets(bot.proven_entry)}"
        if bot.proof and not bot.proof.ok and (not bot.proven_at or bot.proof.at > bot.proven_at):
            proven = f"NOT PROVEN: {bot.proof.sentence.rstrip('.')}"
        return f"{self.age(bot.backup_at)} old{_in_brackets(bot.backup_entry)}; {proven}{_second(bot.second)}"

    def age(self, at: datetime) -> str:
        """Of something that is over; a clock that was set back makes nothing younger than now."""
        return days(max(timedelta(), self.report.at - at))

    def silence(self, one: Silence) -> dict[str, str]:
        held = one.until > self.report.at
        times = f"before {self.clock(one.until)}" if held else f"{self.clock(one.began)} to {self.clock(one.until)}"
        return {"bot": one.bot, "text": f"no alerts {times}: {self.cut(one.reason)}", "entry": one.entry}

    def state(self, bot: BotReport) -> str:
        """Fault, since when, and the verdict's own sentence."""
        since = f" since {self.clock(bot.down_since)}" if bot.down_since else ""
        return self.cut(f"{bot.fault.value if bot.fault else bot.status.value}{since}: {bot.sentence}")


def _clock(at: datetime, now: datetime, zone: tzinfo) -> str:
    """In the night in which clocks are set, the zone's short name too: 01:30 comes twice then."""
    there, here = at.astimezone(zone), now.astimezone(zone)
    if abs(at - now) > timedelta(hours=24):
        return there.strftime("%m-%d %H:%M")
    return there.strftime("%H:%M" if there.utcoffset() == here.utcoffset() else "%H:%M %Z").strip()


def _in_brackets(entry: str) -> str:
    return f" ({entry})" if entry else ""


def _capped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _window(report: HealthReport) -> str:
    """`24h`, `7d`, or the length in other words."""
    minutes = round((report.at - report.since).total_seconds() / 60)
    if minutes >= 2880 and minutes % 1440 == 0:
        return f"{minutes // 1440}d"
    return f"{minutes // 60}h" if minutes >= 60 and minutes % 60 == 0 else length(report.at - report.since)


def _zone(at: datetime, zone: tzinfo) -> str:
    """`Europe/Lisbon (WET)`, or what there is to say of a zone without a name."""
    short = at.astimezone(zone).tzname() or ""
    name = getattr(zone, "key", None) or f"UTC{at.astimezone(zone):%z}"
    return short if name in (short, "UTC+0000") else f"{name} ({short})"


def _share(found: Uptime) -> str:
    return "not known" if found.percent is None else f"{percent(found.percent)}%"


def _unknown(found: Uptime) -> str:
    return f"{days(found.unknown)} unknown" if found.unknown >= WORTH_SAYING else ""


def _range(found: Sequence[Uptime]) -> str:
    shares = sorted(one.percent for one in found if one.percent is not None)
    blind = len(found) - len(shares)
    unknown = f"{blind} not known" if blind else ""
    if not shares:
        return unknown
    low, high = percent(shares[0]), percent(shares[-1])
    text = f"{low}%" if low == high else f"{low}% to {high}%"
    return f"{text}, {unknown}" if unknown else text


def _goal(goal: Goal) -> dict[str, Any]:
    mark = {True: "✅", False: "❌", None: "❔"}[goal.met]
    return {
        "name": goal.name,
        "word": goal.word,
        "mark": mark,
        "figure": goal.figure,
        "entries": ", ".join(goal.entries),
    }


def _wakes(found: Wakes) -> str:
    if not found.count:
        return ""
    parts = [f"woken {'once' if found.count == 1 else f'{found.count} times'}"]
    parts += [f"{found.failed} failed"] if found.failed else []
    least = "at least " if found.silent else ""
    parts += [f"{least}{found.tokens:,} tokens"] if found.tokens is not None else []
    parts += [f"{least}${money(found.cost, 'USD')}"] if found.cost is not None else []
    lacking = [name for name, one in (("tokens", found.tokens), ("cost", found.cost)) if one is None]
    parts += [f"{' and '.join(lacking)} not reported"] if lacking else []
    return f"{', '.join(parts)} ({_some(found.entries, 6)})"


def _second(status: SecondStatus | None) -> str:
    if status is None:
        return ""
    if status.ok and not status.pending:
        return "; second copy in place"
    return f"; second copy lacks {status.pending or 'some'} of them: {status.trouble or 'the rest goes next time'}"


# --- money -------------------------------------------------------------------------------------------------------


def _earned(found: PnlFigures | str) -> str:
    """`+12.40 USDT (+2.1%)`, one amount for each currency; or why there is none."""
    if isinstance(found, str):
        return f"not known: {found}"
    if not found.currencies:
        return f"not known: {'; '.join(found.notes) or 'its trades cannot be read'}"
    parts = [", ".join(map(_amount, found.currencies)) if _has_traded(found) else "no closed trades"]
    if found.other_fees:
        parts.append("less fees of " + ", ".join(f"{_number(paid)} {asset}" for asset, paid in found.other_fees))
    if found.skipped:
        parts.append(f"{found.skipped} rows could not be read")
    return "; ".join(parts)


def _has_traded(found: PnlFigures) -> bool:
    """Without a closed trade nothing was earned, and nothing is not 0 %."""
    return any(one.trades or one.realised for one in found.currencies)


def _amount(found: CurrencyFigures) -> str:
    share = "" if found.percent is None else f" ({signed(found.percent, 1)}%)"
    return f"{_sum(found.realised, found.currency)}{share}"


def _sum(amount: Decimal, currency: str) -> str:
    named = "(currency not named)" if currency == UNKNOWN else currency
    return f"{signed(amount, 2 if currency in CENTS else 8)} {named}"


def _sum_of(bots: Iterable[BotReport]) -> str:
    """What bots earned together, each currency by itself."""
    sums: dict[str, Decimal] = {}
    lost = 0
    for one in bots:
        if isinstance(one.pnl, PnlFigures) and one.pnl.currencies:
            for found in one.pnl.currencies if _has_traded(one.pnl) else ():
                sums[found.currency] = sums.get(found.currency, Decimal(0)) + found.realised
        else:
            lost += one.pnl is not None
    parts = [_sum(amount, currency) for currency, amount in sorted(sums.items())]
    parts += [f"{lost} not known"] if lost else []
    return ", ".join(parts) or "no closed trades"


def _trading(found: PnlFigures | None, habit: Habit | None) -> str:
    """`9 trades (usually 12.5 a day), 56% won, drawdown 3.20 USDT`."""
    parts = []
    if habit is not None and (habit.trades or habit.usual):
        often = "" if habit.usual is None else f" (usually {_often(habit.usual)} a day)"
        parts.append(f"{habit.trades} trade{'s' * (habit.trades != 1)}{often}")
    if found is not None and found.currencies and found.trades:
        won = found.win_rate
        several = sum(1 for one in found.currencies if one.trades) > 1
        of = f" in {found.currency}" if several else ""
        parts += [f"{rounded(won * 100, 0):f}% of {found.trades} closed{of} won"] if won is not None else []
        fell = f"drawdown {money(found.drawdown, found.currency)} {found.currency}"
        parts.append(fell if found.drawdown else "no drawdown")
    return ", ".join(parts)


def _often(a_day: Decimal) -> str:
    shown = rounded(a_day, 1 if a_day < 10 else 0)
    return format(shown.normalize(), "f") if shown or not a_day else "under 0.1"


def _unrealised(found: PnlFigures | None) -> str:
    if found is None or not found.positions:
        return ""
    held = {one.currency for one in found.positions}
    known = {one.currency: one.unrealised for one in found.currencies if one.unrealised is not None}
    sums = [_sum(known[name], name) for name in sorted(held & known.keys())]
    lost = held - known.keys()
    if not sums:
        return "not known"
    return ", ".join([*sums, *(f"in {name} not known" for name in sorted(lost))])


def _in_a_row(found: PnlFigures, held: Sequence[str]) -> str:
    """Positions on one line; of several, first what they are worth together."""
    worth = _unrealised(found)
    together = f"{worth} unrealised; " if len(held) > 1 and worth != "not known" else ""
    return together + "; ".join(held)


def _month(found: PnlFigures | None) -> str:
    """What the curve of 30 days ends at; empty: there is none."""
    if found is None or not found.currencies or not found.main.curve:
        return ""
    return f"30 days: {_sum(found.realised, found.currency)}"


def signed(amount: Decimal, places: int) -> str:
    """Rounded only here; what is not zero is not shown as zero."""
    shown = next(filter(None, (rounded(amount, more) for more in (places, 2, 4, 8))), Decimal(0))
    sign = "+" if amount > 0 else "-" if amount < 0 else ""
    if amount and not shown:
        return f"{sign}<0.00000001"
    whole, _, digits = format(abs(shown), ",f" if abs(shown) >= GROUPED else "f").partition(".")
    return f"{sign}{whole}.{digits.rstrip('0').ljust(min(places, 2), '0')}"


def money(amount: Decimal, currency: str) -> str:
    """Without a plus sign."""
    return signed(amount, 2 if currency in CENTS else 8).removeprefix("+")


def _number(amount: Decimal) -> str:
    """With at least as many digits as tell two prices apart, however small they are."""
    places = max(8, SIGNIFICANT - 1 - amount.adjusted()) if amount else 0
    return format(rounded(amount, min(places, 30)).normalize(), "f")
