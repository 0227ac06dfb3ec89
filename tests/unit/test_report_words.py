"""The report's first line, what fits a message, and what of the ledger is told: wakes, silences, habits, a week."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from botkeep.config import load_fleet
from botkeep.earnings import habit
from botkeep.formats import TradeTable
from botkeep.journal import Journal
from botkeep.ledger import Entry, Kind, Ledger
from botkeep.model import ClosedTrade, Fault, Fill, Status
from botkeep.playbooks import packaged_playbooks
from botkeep.report import BotReport, Facts, HealthReport, Held, Wakes, build, wakes
from botkeep.report_document import full_document
from botkeep.report_words import LIMIT, STEPS, answer, told, view
from botkeep.schedule import Missed
from botkeep.silences import begin, end
from botkeep.templating import units
from botkeep.uptime import Uptime
from botkeep.workspace import Workspace
from support.report_sample import DAY, HOUR, MINUTE, NOW, SINCE, bot, sample

LISBON = ZoneInfo("Europe/Lisbon")


def report(*bots: BotReport, **more: Any) -> HealthReport:
    return HealthReport(NOW, SINCE, bots, **more)


def faulty(name: str, fault: Fault = Fault.BOT_NOT_RUNNING, **more: Any) -> BotReport:
    said = more.pop("sentence", f"{name} is not running.")
    return bot(name, status=Status.FAULTY, fault=fault, sentence=said, **more)


def text(found: HealthReport) -> str:
    return told(found, LISBON).text


# --- the answer --------------------------------------------------------------------------------------------------

PERSON = Held("a", "no", None, "a person mends it")
LATER = Held("a", "that was done once", NOW + 5 * MINUTE)

ANSWERS: dict[str, tuple[HealthReport, str]] = {
    "nothing is configured": (report(), "no bots are configured"),
    "all is well": (report(bot("a"), bot("b")), "all 2 fine"),
    "one needs somebody": (
        report(faulty("a", Fault.API_KEY_REJECTED, sentence="a's key is refused by the exchange."), bot("b"),
               held=(PERSON,)),
        "1 of 2 fine, a needs you (api-key-rejected): its key is refused by the exchange",
    ),
    "one comes back by itself": (
        report(faulty("a"), bot("b"), held=(LATER,)),
        "1 of 2 fine, a is left to its playbook (bot-not-running, not before 08:05)",
    ),
    "one is only just down": (
        report(faulty("a"), bot("b")), "1 of 2 fine, a is left to its playbook (bot-not-running)",
    ),
    "nobody knows what one is": (
        report(bot("a", status=Status.UNKNOWN, sentence="config/bots.json $.bots[0]: no"), bot("b")),
        "1 of 2 fine, a needs you: config/bots.json $.bots[0]: no",
    ),
    "several need somebody": (
        report(*(faulty(n) for n in "abcde"), held=tuple(replace(PERSON, bot=n) for n in "abcde")),
        "0 of 5 fine, 5 need you: a (bot-not-running), b (bot-not-running), c (bot-not-running) and 2 more",
    ),
    "both kinds": (
        report(faulty("a"), faulty("b"), faulty("c"), bot("d"), held=(PERSON,)),
        "1 of 4 fine, a needs you (bot-not-running): it is not running, 2 are left to their playbooks: b, c",
    ),
    "one is stopped": (
        report(bot("a"), bot("b", status=Status.STOPPED)), "1 of 2 fine, b is stopped on purpose",
    ),
    "there is something to mend": (
        report(bot("a"), problems=("x",), missed=(Missed("bot_backup", 1, NOW, NOW),)), "all 1 fine; 2 things to mend",
    ),
    "nobody looked": (
        report(bot("a", uptime=Uptime(up=HOUR, unknown=23 * HOUR))),
        "all 1 fine; nobody looked for most of the last 24h",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("found", "said"), ANSWERS.values(), ids=ANSWERS)
def test_the_first_line_is_the_answer(found: HealthReport, said: str) -> None:
    assert answer(found, LISBON) == said
    first = text(found).splitlines()[0]
    assert first.startswith("🤖 Bot Health Report - 2026-11-21: ")
    assert first.replace("\\", "").endswith(said)


# --- what fits ---------------------------------------------------------------------------------------------------


def test_something_of_everything_fits_one_message() -> None:
    found = text(sample())
    assert units(found) <= LIMIT
    sections = (
        "Uptime (24h):", "P&L:", "Open Positions:", "Actions Taken:", "Waits For You:", "Held Back:", "Silenced:",
        "Goals:", "Backups:", "Assistant: woken 2 times", "To Mend:", "Current Status: ❌",
    )  # fmt: skip
    for section in sections:
        assert section in found
    assert "- doge-short: waits for a person: botkeep approve e55 (" in found
    assert "out of memory. (e42)" in found


def test_a_thousand_bots_fit_one_message_and_those_in_need_are_in_it() -> None:
    many = [bot(f"bot-{n}") for n in range(1000)]
    many[500] = faulty("bot-500", Fault.DATA_CORRUPT, sentence="bot-500's file is damaged. " + "x" * 700)
    found = text(report(*many, held=(replace(PERSON, bot="bot-500", reason="y" * 600),), problems=("z" * 900,) * 40))
    assert units(found) <= LIMIT
    assert "🤖 Bot Health Report - 2026-11-21: 999 of 1000 fine, bot-500 needs you (data-corrupt): its file" in found
    assert "- bot-500: 100%" in found
    assert "others: 100%" in found
    assert "others: +" in found
    assert "Current Status: ❌ 1 of 1000 bots needs attention" in found
    assert found.endswith("Times: Europe/Lisbon (WET)\n"), "nothing had to be cut"


def test_a_thousand_bots_that_are_all_down_fit_one_message_too() -> None:
    many = [faulty(f"bot-{n}") for n in range(1000)]
    found = text(report(*many, held=tuple(Held(one.bot, "it backs off " + "x" * 300, NOW + HOUR) for one in many)))
    assert units(found) <= LIMIT
    assert "1000 are left to their playbooks: bot-0, bot-1, bot-2 and 997 more" in found.splitlines()[0]
    assert "Current Status: ❌ 1000 of 1000 bots need attention" in found


def test_less_and_less_is_shown_until_it_fits() -> None:
    lengths = [len(str(view(replace(sample(), bots=sample().bots * 20), LISBON, one))) for one in STEPS]
    assert lengths == sorted(lengths, reverse=True)


def test_what_is_folded_is_added_up_in_each_currency_by_itself() -> None:
    others = [
        bot(f"b{n}", uptime=Uptime(up=23 * HOUR, down=HOUR) if n else Uptime(unknown=24 * HOUR)) for n in range(3)
    ]
    lost = bot("lost", pnl="its header is gone")
    found = view(report(faulty("a"), *others, lost), LISBON, replace(STEPS[0], bots=1))
    assert [one["bot"] for one in found["bots"]] == ["a"]
    assert found["others"]["uptime"] == "4 others: 95.8% to 100%, 1 not known"
    assert found["others"]["earned"] == "4 others: +5.10 USDT, 1 not known"


def test_older_windows_stand_beside_the_reports_own() -> None:
    past = (
        ("24h", Uptime(up=24 * HOUR)),
        ("7d", Uptime(up=7 * DAY - HOUR, down=HOUR)),
        ("30d", Uptime(unknown=30 * DAY)),
    )
    assert "- a: 100% (7d 99.4%, 30d not known)\n" in text(report(bot("a", windows=past)))
    assert "- a: 100%\n" in text(report(bot("a", windows=past[:1])))


def test_where_no_markdown_works_nothing_is_escaped_and_nothing_is_a_link() -> None:
    found = report(faulty("a", sentence="a says <b> | [x](https://evil.example) *now*\nand \x1b[31mmore"))
    assert "a says <b> | [x](https: //evil.example) *now*\\nand more" in told(found, LISBON, "plain").text
    assert "a says &lt;b&gt; \\| \\[x\\](https: //evil.example) \\*now\\*" in text(found)


def test_markdown_has_every_section_and_html_none_of_its_markup() -> None:
    found = told(sample(), LISBON, "markdown").text
    assert found.startswith("# 🤖 Bot Health Report - 2026-11-21\n\n**2 of 4 fine, btc-optimized needs you ")
    assert "| uptime over 99.5 % a week | ❌ not met | 99.4% (doge-long, the lowest) | e41, e42 |" in found
    assert "### ❌ btc-optimized" in found
    assert "- Restarted at 03:15: out-of-memory (e41)" in found
    assert "Assistant: not woken" in told(report(bot("a")), LISBON, "markdown").text


def test_json_has_every_figure_and_the_entries_behind_it() -> None:
    found = full_document(sample(), "text", LISBON).model_dump()
    assert found["answer"].startswith("2 of 4 fine")
    assert [(one["goal"][:8], one.get("met"), one.get("entries", [])) for one in found["goals"]] == [
        ("uptime o", False, ["e41", "e42"]), ("recovery", True, ["e42"]), ("damage t", None, []),
    ]  # fmt: skip
    assert found["wakes"] == {"count": 2, "failed": 1, "tokens": 3400, "cost": "0.021", "entries": ["e51", "e52"]}
    doge = found["bots"][0]
    assert doge["made"] == [{"at": "2026-11-21T03:15:00Z", "cause": "out-of-memory", "entry": "e41"}]
    assert doge["trading"] == {"trades": 9, "usual_a_day": "8.2", "over_days": "14"}
    assert doge["windows"][1]["percent"] == "99.4047"
    assert [one["what"] for one in doge["strip"]] == ["up", "down", "up"]
    assert {one["entry"] for one in (*found["told"], *found["actions"], *found["silences"])} == {
        "e42", "e43", "e44", "e47", "e50", "e53",
    }  # fmt: skip


# --- habits ------------------------------------------------------------------------------------------------------


def trades(*hours: float) -> TradeTable:
    """Closed trades so many hours before the window's begin."""
    made = [ClosedTrade(SINCE - HOUR * ago, "DOGE/USDT", Decimal(1), "USDT") for ago in hours]
    return TradeTable("closed", closed=tuple(made))


def test_a_habit_is_of_the_fourteen_days_before() -> None:
    found = habit(trades(*range(1, 14 * 24 + 1), 24 * 20, -1, -2), SINCE, NOW)
    assert (found.trades, found.usual, found.days) == (2, Decimal(24), Decimal(14))


def test_a_younger_bots_habit_is_of_the_days_since_its_first_trade() -> None:
    found = habit(trades(48, 30, 1, -3), SINCE, NOW)
    assert (found.trades, found.usual, found.days) == (1, Decimal("1.5"), Decimal(2))
    assert habit(trades(20, 1), SINCE, NOW).usual is None
    assert habit(trades(), SINCE, NOW).usual is None


def test_fills_are_counted_as_they_are() -> None:
    one = Fill(SINCE + HOUR, "DOGE/USDT", "buy", Decimal(1), Decimal(1))
    assert habit(TradeTable("fills", fills=(one, one)), SINCE, NOW).trades == 2


# --- wakes and silences ------------------------------------------------------------------------------------------


def note(number: int, wake: Any) -> Entry:
    return Entry(
        number, f"e{number}", NOW - HOUR, Kind.NOTE, None, "note", "round", None, "", "", {"wake": wake}, "", ""
    )


def test_wakes_are_counted_and_what_no_host_said_is_not_known() -> None:
    found = wakes([note(1, {"tokens": 1200, "cost": "0.01"}), note(2, {"ok": False}), note(3, {"cost": 0.02}),
                   note(4, None), note(5, "odd")])  # fmt: skip
    assert found == Wakes(3, 1, 1200, Decimal("0.03"), ("e1", "e2", "e3"), silent=2)
    assert wakes([note(1, {"tokens": "many", "cost": "NaN"})]) == Wakes(1, 0, None, None, ("e1",), silent=1)
    assert wakes([note(1, {"tokens": -5, "cost": True})]) == Wakes(1, 0, None, None, ("e1",), silent=1)
    assert wakes([]) == Wakes()


def test_without_a_wake_the_line_is_left_out() -> None:
    assert "Assistant" not in text(report(bot("a")))
    some = Wakes(3, 0, 1200, Decimal("0.03"), ("e1", "e2", "e3"), silent=2)
    assert "Assistant: woken 3 times, at least 1,200 tokens, at least $0.03 (e1, e2, e3)\n" in text(
        report(bot("a"), wakes=some)
    )
    assert "Assistant: woken once, tokens and cost not reported (e7)\n" in text(
        report(bot("a"), wakes=Wakes(1, entries=("e7",)))
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Of an empty workspace with one bot."""
    (tmp_path / "config").mkdir()
    (tmp_path / "memory").mkdir()
    (tmp_path / "config/bots.json").write_text('{"bots": [{"name": "doge", "process_name": "no_such_doge_bot"}]}')
    workspace = Workspace(tmp_path)
    workspace.prepare()
    return Journal(workspace, Ledger(workspace.ledger_file))


def built(journal: Journal, now: datetime = NOW) -> HealthReport:
    fleet = load_fleet(Workspace(journal.ledger.path.parents[1]))
    return build(fleet, packaged_playbooks(), journal.ledger, Facts(()), now - DAY, now)


def test_a_silence_is_told_while_it_holds_and_on_the_morning_after(journal: Journal) -> None:
    begin(journal, "doge", timedelta(hours=2), "a new server", "person", NOW - 6 * HOUR)
    begin(journal, "btc", timedelta(hours=8), "its exchange is mended", "person", NOW - HOUR)
    begin(journal, "eth", timedelta(hours=8), "a try", "person", NOW - 3 * HOUR)
    end(journal, "eth", "person", NOW - 2 * HOUR)
    found = text(built(journal))
    assert "- btc: no alerts before 15:00: its exchange is mended (e2)\n" in found
    assert "- doge: no alerts 02:00 to 04:00: a new server (e1)\n" in found
    assert "- eth: no alerts 05:00 to 06:00: a try (e3)\n" in found
    assert "Silenced" not in text(built(journal, NOW + 3 * DAY))


def test_what_people_were_told_is_in_the_report_by_its_kind(journal: Journal) -> None:
    for n, data in enumerate(({"fault": "bot-hung"}, {"reminder": 1}, {"resolved": True})):
        journal.record(Kind.ALERT, at=NOW - HOUR + n * MINUTE, bot="doge", action="alert", actor="round",
                       sentence=f"told {n}", data=data)  # fmt: skip
    assert [(one.kind, one.entry) for one in built(journal).told] == [
        ("alert", "e1"),
        ("reminder", "e2"),
        ("resolved", "e3"),
    ]
