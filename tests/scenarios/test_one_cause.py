"""One cause of several bots is one incident, also where each bot is looked at in a turn of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from botkeep import open_alerts, outbox, silences, together
from botkeep.model import Actor, Fault, Result, utc_now
from botkeep.open_alerts import Open
from support.fleet import Fleet, entry, fleet

REFUSED = """{at} ERROR ccxt.base.errors.AuthenticationError: kraken {{"error":["EAPI:Invalid key"]}}\n"""
LIMITED = """{at} ERROR ccxt.base.errors.RateLimitExceeded: kraken {{"error":["EAPI:Rate limit exceeded"]}}\n"""
NAMES = ("doge", "btc", "eth")


@dataclass
class Bots:
    """Three real bots with one API key; each has its turns for itself."""

    fleet: Fleet
    later: timedelta = timedelta()

    def turn(self, *bots: str) -> list[str]:
        """A watcher's turn for these; what it told."""
        desk = self.fleet.desk(Actor.ROUND, clock=lambda: utc_now() + self.later)
        return [one.sentence for one in desk.round_for(bots).alerts]

    def logs(self, bot: str, line: str) -> None:
        with (self.fleet.home / f"{bot}.log").open("a") as file:
            file.write(line.format(at=f"{utc_now():%Y-%m-%d %H:%M:%S},015"))

    def mend(self, *bots: str) -> None:
        """A person puts it right, and starts them again."""
        for bot in bots:
            report = self.fleet.desk(Actor.PERSON).restart(bot, "mended", override="the key is right now")
            assert report.result is Result.DONE, report.sentence

    def opens(self) -> list[Open]:
        return list(open_alerts.load(self.fleet.desk().ledger).opens)

    def queued(self) -> list[str]:
        return [one.message.text.partition("\n")[0] for one in outbox.rows(self.fleet.desk().ledger, ("queued",))]


def bot(name: str) -> dict[str, object]:
    written = entry(name, f"{name.upper()}USDT", log_file=f"{name}.log", check_interval=60)
    written["runtime"]["env"] = {"TZ": "UTC"}
    account = {
        "id": "kraken",
        "api_key_env": "KRAKEN_KEY",
        "secret_env": "SECRET",
        "symbols": [f"{name.upper()}/USDT"],
    }
    return {**written, "replay": {"exchange": account}}


@pytest.fixture
def bots(tmp_path: Path) -> Iterator[Bots]:
    with fleet(tmp_path / "ws", *map(bot, NAMES)) as found:
        path = found.home / "config/bots.json"
        path.write_text(json.dumps({"notify": ["json://127.0.0.1:1/all"], **json.loads(path.read_text())}))
        for name in NAMES:
            found.up(name)
        yield Bots(found)


def test_a_second_bot_seen_seconds_later_joins_the_incident_of_the_first(bots: Bots) -> None:
    bots.logs("doge", REFUSED)
    (said,) = bots.turn("doge")
    assert said.startswith("doge")
    bots.logs("btc", REFUSED)
    assert bots.turn("btc") == []
    assert bots.turn("eth") == bots.turn("doge") == []
    (one,) = bots.opens()
    assert (one.bots, one.incident) == (("doge", "btc"), "key:$KRAKEN_KEY")
    bots.later += timedelta(minutes=5)
    (again,) = bots.turn("btc")
    assert re.fullmatch(r"Still, after \d+ min: .*doge.*", again)
    bots.turn("doge")
    assert len(bots.queued()) == 2


def test_what_is_told_only_after_a_while_is_told_once_for_all_whoever_has_the_turn(bots: Bots) -> None:
    bots.fleet.edit("api-rate-limited", r"alert: \{after: 30m\}", "alert: {after: 40s}")
    for name in NAMES:
        bots.logs(name, LIMITED)
    assert [bots.turn(name) for name in NAMES] == [[], [], []]
    bots.later += timedelta(seconds=40)
    told = [sentence for name in ("btc", "doge", "eth") for sentence in bots.turn(name)]
    assert [one.partition(" (since")[0] for one in told] == [
        "3 of 3 bots: kraken gets too many requests from this address: doge, btc, eth."
    ]
    assert [(one.bots, one.incident) for one in bots.opens()] == [(NAMES, "rate:kraken")]


def test_the_end_of_what_several_had_is_told_when_the_last_of_them_is_seen_well(bots: Bots) -> None:
    for name in ("doge", "btc"):
        bots.logs(name, REFUSED)
    (said,) = bots.turn("doge", "btc")
    assert "2 of 3 bots: the API key KRAKEN_KEY is refused: doge, btc." in said
    bots.mend("doge")
    assert bots.turn("doge") == bots.turn("eth") == []
    bots.mend("btc")
    (over,) = bots.turn("btc")
    assert over.startswith("doge, btc: resolved after ")
    assert "doge restarted (e" in over
    assert "btc restarted (e" in over
    assert bots.turn("doge") == bots.turn("btc") == []
    assert len(bots.queued()) == 2


def test_nobody_says_that_a_bot_is_well_which_nobody_has_looked_at_for_longer_than_its_interval(bots: Bots) -> None:
    for name in ("doge", "btc"):
        bots.logs(name, REFUSED)
    assert len(bots.turn("doge", "btc")) == 1
    bots.mend("doge")
    assert bots.turn("doge") == []
    bots.mend("btc")
    bots.later += timedelta(minutes=3)
    assert bots.turn("btc") == []
    assert len(bots.turn("doge")) == 1


def test_a_bot_that_shows_the_cause_no_more_is_not_said_to_share_it(bots: Bots) -> None:
    bots.logs("doge", REFUSED)
    assert len(bots.turn("doge")) == 1
    bots.mend("doge")
    bots.logs("btc", REFUSED)
    (said,) = bots.turn("btc")  # doge was started again since it was seen
    assert said.startswith("btc")
    assert "doge" not in said
    (over,) = bots.turn("doge")
    assert over.startswith("doge: resolved after ")
    assert [one.bots for one in bots.opens()] == [("btc",)]


def test_a_bot_that_was_seen_longer_ago_than_its_interval_is_not_said_to_share_it(bots: Bots) -> None:
    bots.logs("doge", REFUSED)
    assert len(bots.turn("doge")) == 1
    bots.later += timedelta(minutes=3)
    bots.logs("btc", REFUSED)
    (said,) = bots.turn("btc")
    assert said.startswith("btc")


def test_a_silenced_bot_joins_when_people_are_told_of_it_again(bots: Bots) -> None:
    desk = bots.fleet.desk(Actor.PERSON)
    silences.begin(desk.journal, "btc", timedelta(minutes=2), "moving it", "person", utc_now())
    bots.logs("doge", REFUSED)
    bots.logs("btc", REFUSED)
    assert len(bots.turn("doge")) == 1
    assert bots.turn("btc") == []
    assert [one.bots for one in bots.opens()] == [("doge",)]
    bots.later += timedelta(minutes=2)
    assert bots.turn("doge") == bots.turn("btc") == []
    assert [one.bots for one in bots.opens()] == [("doge", "btc")]


def test_a_bot_that_left_the_configuration_is_not_waited_for(bots: Bots) -> None:
    for name in ("doge", "btc"):
        bots.logs(name, REFUSED)
    assert len(bots.turn("doge", "btc")) == 1
    bots.mend("doge")
    path = bots.fleet.home / "config/bots.json"
    whole = path.read_text()
    fewer = json.loads(whole)
    fewer["bots"] = [one for one in fewer["bots"] if one["name"] != "btc"]
    path.write_text(json.dumps(fewer))
    (over,) = bots.turn("doge")
    assert over.startswith("doge, btc: resolved after ")
    path.write_text(whole)  # so that what runs is ended


def test_a_check_of_one_bot_says_with_whom_it_shares_its_cause(bots: Bots) -> None:
    bots.logs("doge", REFUSED)
    bots.logs("btc", REFUSED)
    bots.turn("btc")
    report = bots.fleet.desk(clock=lambda: utc_now() + bots.later).check(["doge"])
    assert [one.fault for one in report.verdicts] == [Fault.API_KEY_REJECTED]
    assert [one.sentence for one in report.incidents] == ["2 of 3 bots: the API key KRAKEN_KEY is refused: doge, btc."]


def test_what_is_remembered_of_a_look_is_what_the_look_gave(bots: Bots) -> None:
    for name in ("doge", "btc"):
        bots.logs(name, LIMITED)
    desk = bots.fleet.desk()
    (seen,) = desk.check().incidents
    (kept,) = together.standing(desk.bench(), [])
    assert (kept.id, kept.sentence, kept.bots, kept.since) == (seen.id, seen.sentence, seen.bots, seen.since)
    assert {one.bot: one.fault for one in kept.elsewhere} == dict.fromkeys(("doge", "btc"), Fault.API_RATE_LIMITED)
