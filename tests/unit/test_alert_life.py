"""How incidents go on: reminders, silences, and the end, recorded and queued by one turn of telling after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from botkeep import open_alerts, outbox, silences, telling
from botkeep.alerts import Alert
from botkeep.bench import Bench
from botkeep.config import load_fleet
from botkeep.incidents import Incident
from botkeep.journal import Journal
from botkeep.ledger import Entry, Kind, Ledger
from botkeep.model import (
    Action,
    ActionReport,
    Actor,
    CauseClass,
    Fault,
    Result,
    Status,
    UsageError,
    Verdict,
    Wanted,
    utc_now,
)
from botkeep.playbooks import packaged_playbooks
from botkeep.workspace import Workspace
from support.webhook import webhook

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
GAP = timedelta(hours=2)
BOOKS = packaged_playbooks()
FLEET = '{"notify": ["json://127.0.0.1:1/all"], "bots": [{"name": "doge"}, {"name": "btc"}, {"name": "eth"}]}'
DOWN, KEY, TWO = Fault.BOT_NOT_RUNNING, Fault.API_KEY_REJECTED, Fault.BOT_DUPLICATED


@dataclass
class Turns:
    """A workspace without bots that run: verdicts come in, what people are told comes out."""

    home: Path
    workspace: Workspace
    ledger: Ledger
    journal: Journal
    now: datetime = field(default_factory=utc_now)

    def bench(self) -> Bench:
        fleet = load_fleet(self.workspace)
        return Bench(fleet, BOOKS, self.ledger, self.journal, Actor.ROUND, lambda: self.now)

    def verdict(self, bot: str, fault: Fault | None = None, status: Status | None = None) -> Verdict:
        """As a look now gives it; recorded as one."""
        status = status or (Status.FAULTY if fault else Status.HEALTHY)
        up = {Status.FAULTY: fault is not DOWN, Status.HEALTHY: True}.get(status)
        self.ledger.see(bot, status=status, fault=fault, up=up, instance=None, at=self.now, max_gap=GAP)
        wanted = Wanted.DOWN if status is Status.STOPPED else Wanted.UP
        return Verdict(bot, status, self.now, f"{bot}: {fault or status}.", fault, up=up, wanted=wanted)

    def tell(
        self,
        *verdicts: Verdict,
        found: tuple[Incident, ...] = (),
        actions: tuple[ActionReport, ...] = (),
        after: tuple[Verdict, ...] | None = None,
    ) -> list[str]:
        """One turn: what was told."""
        return [one.sentence for one in telling.tell(self.bench(), verdicts, found, actions, after)]

    def faulty(self, fault: Fault = DOWN, bot: str = "doge", minutes: float = 0, **more: object) -> list[str]:
        """A turn, so many minutes later, in which the bot has this fault."""
        self.now += timedelta(minutes=minutes)
        return self.tell(self.verdict(bot, fault), **more)  # type: ignore[arg-type]

    def well(self, bot: str = "doge", minutes: float = 0) -> list[str]:
        self.now += timedelta(minutes=minutes)
        return self.tell(self.verdict(bot))

    def did(self, action: Action = Action.RESTART, bot: str = "doge") -> Entry:
        """An action that was done now."""
        return self.ledger.append(
            Kind.OUTCOME, at=self.now, bot=bot, action=action.value, actor="round", sentence="done", result="done"
        )

    def queued(self) -> list[str]:
        """First lines of what waits to be sent."""
        return [one.message.text.partition("\n")[0] for one in outbox.rows(self.ledger, ("queued",))]

    def entries(self) -> list[Entry]:
        return self.ledger.entries(kinds=[Kind.ALERT])


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[Turns]:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/bots.json").write_text(FLEET)
    workspace = Workspace(tmp_path)
    workspace.prepare()
    ledger = Ledger(workspace.ledger_file)
    yield Turns(tmp_path, workspace, ledger, Journal(workspace, ledger))
    ledger.close()


def shared(*bots: str, at: datetime, fault: Fault | None = Fault.API_RATE_LIMITED, name: str = "rate:x") -> Incident:
    return Incident(name, f"{len(bots)} bots: x refuses.", bots, CauseClass.WAIT, fault, at)


# ------------------------------------------------------------------------------------------------- one incident's life


def test_a_bot_that_is_down_is_told_after_five_minutes_then_at_growing_intervals_then_that_it_is_over(
    turns: Turns,
) -> None:
    began = turns.now
    said = {}
    for minute in range(0, 60 * 56, 5):
        turns.now = began + timedelta(minutes=minute)
        if found := turns.tell(turns.verdict("doge", DOWN)):
            (said[minute],) = found
    assert list(said) == [5, 35, 125, 365, 365 + 24 * 60, 365 + 48 * 60]
    assert said[5].startswith("doge: bot-not-running. (since ")
    assert said[35] == "Still, after 35 min: doge: bot-not-running."
    assert said[365] == "Still, after 6.1 h: doge: bot-not-running."
    turns.did()
    assert turns.well(minutes=5) == ["doge: resolved after 56.0 h: restarted (e7)."]
    assert turns.well(minutes=5) == []
    kinds = [sorted({"fault", "reminder", "resolved"} & one.data.keys()) for one in turns.entries()]
    assert kinds == [["fault"], *[["reminder"]] * 5, ["resolved"]]
    first = turns.entries()[0]
    assert {one.ref for one in turns.entries()[1:]} == {first.id}
    assert open_alerts.load(turns.ledger).opens == ()


def test_each_of_them_is_queued_with_its_entry(turns: Turns) -> None:
    turns.faulty(KEY)
    turns.well(minutes=1)
    rows = outbox.rows(turns.ledger, ("queued",))
    assert [one.entry for one in rows] == [one.id for one in turns.entries()]
    assert turns.queued() == [
        f"\U0001f534 {turns.entries()[0].sentence}", "\u2705 doge: resolved after 60 s: not by an action of botkeep.",
    ]  # fmt: skip
    assert rows[0].message.text.endswith("\napi-key-rejected e1")


def test_what_a_round_repaired_itself_is_told_and_told_to_be_over_in_one_turn(turns: Turns) -> None:
    before = turns.verdict("doge", TWO)
    turns.now += timedelta(seconds=4)
    done = turns.did()
    report = ActionReport("doge", Action.RESTART, Result.DONE, "doge was brought back to one copy.", entry=done.id)
    said = turns.tell(before, actions=(report,), after=(turns.verdict("doge"),))
    assert [one.partition(" (since")[0] for one in said] == [
        "doge: bot-duplicated.", f"doge: resolved after 4 s: restarted ({done.id}).",
    ]  # fmt: skip
    assert turns.well(minutes=1) == []
    assert (
        "- restart: done: doge was brought back to one copy." in outbox.rows(turns.ledger, ("queued",))[0].message.text
    )


def test_immediate_faults_are_told_at_the_first_confirmed_look(turns: Turns) -> None:
    immediate = [
        Fault.DATA_CORRUPT, KEY, Fault.TRADING_TOO_OFTEN, Fault.BOT_CRASH_LOOPING, TWO, Fault.OUT_OF_MEMORY,
        Fault.DISK_FULL,
    ]  # fmt: skip
    for fault in immediate:
        assert len(turns.faulty(fault)) == 1, fault
    (one,) = open_alerts.load(turns.ledger).opens
    assert [fault for _, fault in one.faults] == [fault.value for fault in immediate]
    assert len(turns.well(minutes=1)) == 1


def test_a_bot_that_is_stopped_on_purpose_ends_its_incident(turns: Turns) -> None:
    turns.faulty(KEY)
    turns.ledger.append(
        Kind.INTENT, at=turns.now, bot="doge", action="stop", actor="person", sentence="maintenance", data={}
    )
    turns.now += 3 * MINUTE
    (said,) = turns.tell(turns.verdict("doge", status=Status.STOPPED))
    assert said.startswith("doge: over after 3 min: stopped on purpose (stopped by a person at ")


def test_a_bot_that_is_configured_no_more_ends_its_incident(turns: Turns) -> None:
    turns.faulty(KEY)
    turns.workspace.bots_file.write_text(FLEET.replace('{"name": "doge"}, ', ""))
    turns.now += 3 * MINUTE
    assert turns.tell(turns.verdict("btc")) == ["doge: over after 3 min: not in config/bots.json any more."]


def test_a_bot_that_was_well_in_between_and_fails_again_has_two_incidents(turns: Turns) -> None:
    turns.faulty(KEY)
    turns.now += 10 * MINUTE
    turns.verdict("doge")  # somebody's check saw it well; no round told it
    said = turns.faulty(KEY, minutes=10)
    assert [one.partition(" (since")[0] for one in said] == [
        "doge: resolved after 10 min: not by an action of botkeep. Something is wrong again; that is told by itself.",
        "doge: api-key-rejected.",
    ]


def test_a_look_before_somebody_saw_it_well_is_no_sign_that_it_fails_again(turns: Turns) -> None:
    turns.faulty(KEY)
    turns.now += MINUTE
    look = turns.verdict("doge", KEY)
    turns.now += MINUTE
    turns.verdict("doge")
    assert turns.tell(look) == []


@pytest.mark.parametrize("word", ["well", "wrong again"])
def test_nothing_is_over_while_an_action_is_under_way(turns: Turns, word: str) -> None:
    turns.faulty(DOWN)
    turns.faulty(DOWN, minutes=6)
    intent = turns.ledger.append(
        Kind.INTENT, at=turns.now, bot="doge", action="restart", actor="assistant", sentence="it is down"
    )
    assert turns.well(minutes=1) == []
    if word == "wrong again":
        assert turns.faulty(DOWN, minutes=1) == []
    turns.ledger.append(
        Kind.OUTCOME, at=turns.now, bot="doge", action="restart", actor="assistant", sentence="done", result="done",
        ref=intent.id,
    )  # fmt: skip
    (said,) = turns.well(minutes=1)
    assert said.startswith("doge: resolved after ")
    assert said.endswith(" min: restarted (e3).")


def test_what_was_begun_before_it_and_ended_before_anybody_knew_of_it_is_not_what_helped(turns: Turns) -> None:
    intent = turns.ledger.append(
        Kind.INTENT, at=turns.now, bot="doge", action="start", actor="person", sentence="the day begins"
    )
    turns.now += timedelta(seconds=10)
    turns.ledger.append(
        Kind.OUTCOME, at=turns.now, bot="doge", action="start", actor="person", sentence="done", result="done",
        ref=intent.id,
    )  # fmt: skip
    turns.faulty(KEY, minutes=0.01)
    assert turns.well(minutes=1) == ["doge: resolved after 60 s: not by an action of botkeep."]


def test_a_bot_that_comes_and_goes_is_told_to_be_well_only_when_it_stays_so(turns: Turns) -> None:
    said = [len(turns.faulty(KEY, minutes=2)) + len(turns.well(minutes=2)) for _ in range(6)]
    assert said == [2, 2, 1, 0, 0, 0]
    assert turns.well(minutes=9) == []
    assert len(turns.well(minutes=1)) == 1


def test_an_action_that_failed_is_told_once_and_belongs_to_the_bots_incident(turns: Turns) -> None:
    failed = ActionReport("doge", Action.RESTART, Result.FAILED, "doge could not be started.", fault=DOWN)
    assert turns.faulty(DOWN, actions=(failed,)) == ["doge could not be started."]
    assert turns.faulty(DOWN, minutes=6, actions=(failed,)) == []
    assert len(turns.well(minutes=1)) == 1


# ----------------------------------------------------------------------------------------------------- in own words


def own_template(turns: Turns, text: str) -> None:
    (turns.home / "templates").mkdir()
    (turns.home / "templates/alert.txt.j2").write_text(text)


def test_people_may_have_alerts_in_their_own_words(turns: Turns) -> None:
    own_template(turns, "OPS {{ kind }} {{ severity }}: {{ sentence }}")
    turns.faulty(KEY)
    (row,) = outbox.rows(turns.ledger, ("queued",))
    assert row.message.text == f"OPS alert critical: {turns.entries()[0].sentence}\napi-key-rejected e1"


@pytest.mark.parametrize(
    "broken",
    [
        "{{ nothing_of_that_name }}",
        "{% for x in range(10**9) %}{{ x }}{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
        "{%",
    ],
)
def test_a_broken_template_costs_nobody_the_alert_and_is_said(turns: Turns, broken: str) -> None:
    own_template(turns, broken)
    bench = turns.bench()
    assert len(telling.tell(bench, [turns.verdict("doge", KEY)], (), ())) == 1
    (row,) = outbox.rows(turns.ledger, ("queued",))
    assert row.message.text.startswith("\U0001f534 doge: api-key-rejected.")
    assert any("The packaged template was used instead" in one for one in bench.troubles)


def test_names_with_signs_of_markup_are_queued_as_they_are(turns: Turns) -> None:
    look = replace(
        turns.verdict("doge", KEY), sentence="doge: `a_b` *c* <d> [e](f) {{ g }} \u202e& token=abcdefgh12345"
    )
    turns.tell(look)
    (row,) = outbox.rows(turns.ledger, ("queued",))
    assert "doge: `a_b` *c* <d> [e](f) {{ g }} & token=[redacted]" in row.message.text


# ------------------------------------------------------------------------------------------------- rounds side by side


def test_a_look_from_before_another_round_repaired_it_tells_nothing(turns: Turns) -> None:
    stale = turns.verdict("doge", TWO)
    turns.now += timedelta(seconds=4)
    assert len(turns.tell(stale, after=(turns.verdict("doge"),))) == 2
    turns.now += timedelta(seconds=4)
    assert turns.tell(stale) == []


def test_a_look_from_before_another_round_saw_it_fail_ends_nothing(turns: Turns) -> None:
    stale = turns.verdict("doge")
    assert len(turns.faulty(KEY, minutes=1)) == 1
    assert turns.tell(stale) == []
    assert len(turns.well(minutes=1)) == 1


def test_of_a_round_that_hung_with_the_lock_and_one_that_went_on_without_it_each_thing_is_told_by_one(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other round tells in the moment between our reading what is known and our writing: each kind of telling."""
    monkeypatch.setattr(telling, "WAIT", 0.05)
    read = open_alerts.load

    def beaten(look: Callable[[], list[str]]) -> tuple[list[str], list[str]]:
        """What the other round told, and what we did."""
        others: list[str] = []

        def load(ledger: Ledger) -> open_alerts.Known:
            known = read(ledger)
            monkeypatch.setattr(open_alerts, "load", read)
            others.extend(look())
            return known

        monkeypatch.setattr(open_alerts, "load", load)
        return others, look()

    for minutes, fault in ((0, KEY), (1, TWO), (31, TWO), (1, None)):
        turns.now += timedelta(minutes=minutes)
        others, ours = beaten(lambda fault=fault: turns.tell(turns.verdict("doge", fault)))  # type: ignore[misc]
        assert (len(others), ours) == (1, [])
    assert len(turns.entries()) == len(outbox.rows(turns.ledger, ("queued",))) == 4


# ------------------------------------------------------------------------------------------------------- several bots


def test_one_cause_of_several_bots_is_one_incident_from_its_alert_to_its_end(turns: Turns) -> None:
    began = turns.now
    names = ("doge", "btc")

    def turn(minutes: float, *faulty: str) -> list[str]:
        turns.now = began + timedelta(minutes=minutes)
        looks = [turns.verdict(one, Fault.API_RATE_LIMITED if one in faulty else None) for one in (*names, "eth")]
        found = (shared(*faulty, at=began),) if len(faulty) > 1 else ()
        return turns.tell(*looks, found=found)

    assert turn(0, *names) == []
    (said,) = turn(30, *names)
    assert said.startswith("2 bots: x refuses. (since ")
    assert turn(35, "doge", "btc", "eth") == []
    assert turn(60, *names) == ["Still, after 60 min: 2 bots: x refuses."]
    assert turn(65, "doge") == []
    turns.did(Action.POLL, "btc")
    (said,) = turn(70)
    assert said == "doge, btc, eth: resolved after 70 min: btc polling changed (e3)."
    assert [one.bot for one in turns.entries()] == [None, None, None]


def test_a_shared_incident_does_not_end_by_a_look_at_some_of_its_bots(turns: Turns) -> None:
    began = turns.now
    turns.now += HOUR
    looks = [turns.verdict(one) for one in ("doge", "btc")]
    clock = shared("doge", "btc", at=began, fault=None, name="clock")
    assert len(turns.tell(*looks, found=(clock,))) == 1
    turns.now += MINUTE
    assert turns.tell(turns.verdict("doge")) == []
    assert len(turns.tell(turns.verdict("doge"), turns.verdict("btc"))) == 1


def test_an_engine_that_is_away_is_told_and_told_to_be_back(turns: Turns) -> None:
    def away() -> list[Verdict]:
        looks = [turns.verdict(one, status=Status.UNKNOWN) for one in ("doge", "btc")]
        return [replace(one, sentence=f"{one.bot} cannot be looked at: Docker is away.") for one in looks]

    assert turns.tell(*away()) == []
    turns.now += 6 * MINUTE
    (said,) = turns.tell(*away())
    assert said.startswith("Nobody knows since 6 min how 2 bots are (doge, btc): doge cannot be looked at: Docker")
    turns.now += 6 * MINUTE
    assert turns.tell(turns.verdict("doge"), turns.verdict("btc")) == [
        "doge, btc: resolved after 12 min: not by an action of botkeep."
    ]


def test_what_another_round_has_ended_meanwhile_is_not_open_again(turns: Turns) -> None:
    turns.faulty(KEY)
    (one,) = open_alerts.load(turns.ledger).opens
    turns.well(minutes=1)
    open_alerts.keep_quietly(turns.ledger, [replace(one, last=turns.now)])
    assert open_alerts.load(turns.ledger).opens == ()


# ---------------------------------------------------------------------------------------------------------- the clock


def test_a_clock_that_is_set_back_an_hour_loses_no_alert_and_doubles_none(turns: Turns) -> None:
    assert turns.faulty(DOWN) == []
    turns.now -= HOUR
    assert turns.faulty(DOWN) == []
    assert len(turns.faulty(DOWN, minutes=5)) == 1
    turns.now -= HOUR
    assert turns.faulty(DOWN) == []
    assert turns.faulty(DOWN, minutes=29) == []
    assert len(turns.faulty(DOWN, minutes=1)) == 1
    turns.now -= HOUR
    (said,) = turns.well()
    assert said.startswith("doge: resolved after ")
    assert "-" not in said.partition("after ")[2]


# ----------------------------------------------------------------------------------------------------------- silences


def silence(turns: Turns, bot: str = "doge", lasts: timedelta = 2 * HOUR) -> Entry:
    return silences.begin(turns.journal, bot, lasts, "moving it", "person", turns.now)


def test_a_silence_holds_alerts_back_and_what_still_stands_is_told_when_it_ends(turns: Turns) -> None:
    silence(turns)
    assert turns.faulty(KEY) == []
    assert turns.faulty(KEY, minutes=119) == []
    assert turns.entries() == []
    assert len(turns.faulty(KEY, minutes=1)) == 1


def test_what_ends_within_a_silence_that_began_before_it_is_told_afterwards(turns: Turns) -> None:
    turns.faulty(KEY)
    silence(turns)
    assert turns.faulty(KEY, minutes=60) == []
    assert turns.well(minutes=10) == []
    (said,) = turns.well(minutes=60)
    assert said.startswith("doge: resolved after 70 min")


def test_a_silence_is_a_note_that_names_its_end_and_its_reason(turns: Turns) -> None:
    entry = silence(turns)
    (one,) = silences.active(turns.ledger, turns.now)
    assert (one.bot, one.until, one.reason, one.entry) == ("doge", turns.now + 2 * HOUR, "moving it", entry.id)
    assert (entry.kind, entry.bot) == (Kind.NOTE, "doge")
    assert entry.sentence.endswith(": moving it")
    assert silences.active(turns.ledger, turns.now + 2 * HOUR) == ()


def test_a_silence_can_be_ended_and_replaced(turns: Turns) -> None:
    silence(turns)
    silence(turns, lasts=HOUR)
    assert [one.until for one in silences.active(turns.ledger, turns.now)] == [turns.now + HOUR]
    silence(turns, "btc")
    silences.end(turns.journal, "doge", "person", turns.now)
    assert [one.bot for one in silences.active(turns.ledger, turns.now)] == ["btc"]
    with pytest.raises(UsageError, match="doge is not silenced"):
        silences.end(turns.journal, "doge", "person", turns.now)


@pytest.mark.parametrize(
    ("lasts", "reason", "says"),
    [
        (HOUR, "  ", "The reason is empty"),
        (timedelta(days=31), "x", "at most 30d"),
        (timedelta(), "x", "longer than 0s"),
    ],
)
def test_a_silence_without_reason_or_end_is_refused(turns: Turns, lasts: timedelta, reason: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        silences.begin(turns.journal, "doge", lasts, reason, "person", turns.now)


def test_a_length_of_time_is_read_as_everywhere() -> None:
    assert silences.lasting("90m") == timedelta(minutes=90)
    with pytest.raises(UsageError, match="write one like 30m"):
        silences.lasting("90")


# --------------------------------------------------------------------------------------------------------- full disks


def test_an_alert_that_cannot_be_recorded_is_told_all_the_same_but_not_at_every_round(turns: Turns) -> None:
    with webhook() as hook:
        turns.workspace.bots_file.write_text(FLEET.replace("json://127.0.0.1:1/all", hook.url))
        look = turns.verdict("doge", Fault.DISK_FULL)
        bench = turns.bench()
        turns.ledger.close()
        turns.workspace.ledger_file.rename(turns.home / "gone.db")
        turns.workspace.ledger_file.mkdir()
        for _ in range(2):
            told: tuple[Alert, ...] = telling.tell(bench, [look], (), ())
            assert [one.fault for one in told] == [Fault.DISK_FULL]
        turns.now += timedelta(minutes=31)
        telling.tell(bench, [look], (), ())
    assert any("ledger" in one for one in bench.troubles)
    (first, second) = hook.came
    assert first["message"].startswith("(not recorded, for the ledger cannot be written; so this may come again) ")
    assert "doge: disk-full." in first["message"]
    assert second["message"] == first["message"]
