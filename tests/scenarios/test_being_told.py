"""The first users' set-up, end to end: three bots, three Telegram bots of theirs, several chats each; and its proof."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from botkeep import outbox, silences
from botkeep.ledger import Kind
from botkeep.model import Actor, utc_now
from botkeep.notify import REPEATED, Message
from botkeep.telling import post
from support import telegram as tg
from support.fleet import Fleet, entry, fleet
from support.telegram import OTHER, TOKEN, Telegram, telegram

BOTKEEP = [sys.executable, "-m", "botkeep"]
THIRD = "555555555:" + "QwErTyUiOp" * 3 + "AsDfG"
SETUP = {
    "btc-3m": (TOKEN, ("1001", "1002")),
    "doge-short": (OTHER, ("2001", "2002", "-1003")),
    "btc-optimized": (THIRD, ("3001", "-1009")),
}
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
"""Four people, joined: one sign for those who read it, eleven UTF-16 units."""


@dataclass
class Bots:
    """Three bots, each with a token and chats of its own; nobody is told of all of them but by these."""

    fleet: Fleet
    service: Telegram

    def round(self) -> list[str]:
        return [one.sentence for one in self.fleet.desk(Actor.ROUND).round().alerts]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BOTKEEP, *words], cwd=self.fleet.home, capture_output=True, text=True, check=False, timeout=120
        )

    def said(self) -> dict[tuple[str, str], list[str]]:
        """(token, chat) -> signs with which the messages there begin."""
        found: dict[tuple[str, str], list[str]] = {}
        for one in self.service.arrived:
            found.setdefault((one.token, one.chat), []).append(one.text[0])
        return found

    def everything_written(self) -> bytes:
        """All that botkeep keeps, and shows to people."""
        files = (path for path in self.fleet.home.rglob("*") if path.is_file() and path.name != "notify.env")
        return b"".join(path.read_bytes() for path in files)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Telegram]:
    with telegram(tmp_path / "telegram") as found:
        found.tokens = dict(SETUP.values())
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


def variable(bot: str) -> str:
    return bot.upper().replace("-", "_")


@pytest.fixture
def bots(tmp_path: Path, service: Telegram) -> Iterator[Bots]:
    entries = [
        entry(bot, f"X{number}USDT", notify=[f"tgram://${{{variable(bot)}_TOKEN}}/${{{variable(bot)}_CHATS}}"])
        for number, bot in enumerate(SETUP)
    ]
    with fleet(tmp_path / "ws", *entries) as found:
        path = found.home / "config/bots.json"
        path.write_text(json.dumps({"notify_env": "notify.env", **json.loads(path.read_text())}))
        env = found.home / "notify.env"
        values = {f"{variable(bot)}_TOKEN": token for bot, (token, _) in SETUP.items()}
        values |= {f"{variable(bot)}_CHATS": ",".join(chats) for bot, (_, chats) in SETUP.items()}
        env.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        env.chmod(0o600)
        (found.home / "config/schedule.json").write_text("[]")
        yield Bots(found, service)


def test_each_bots_people_are_told_of_it_by_its_own_token_in_each_of_its_chats(bots: Bots) -> None:
    for bot in SETUP:
        bots.fleet.up(bot)
    bots.fleet.copy_by_hand("doge-short")
    assert len(bots.round()) == 2
    token, chats = SETUP["doge-short"]
    assert bots.said() == {(token, chat): ["\U0001f534", "\u2705"] for chat in chats}
    bots.fleet.copy_by_hand("btc-optimized")
    assert len(bots.round()) == 2
    token, chats = SETUP["btc-optimized"]
    assert {key: signs for key, signs in bots.said().items() if key[0] == token} == {
        (token, chat): ["\U0001f534", "\u2705"] for chat in chats
    }
    assert not any(key[0] == SETUP["btc-3m"][0] for key in bots.said())
    for token, _ in SETUP.values():
        assert token.partition(":")[2].encode() not in bots.everything_written()


def test_the_report_reaches_every_chat_once_where_only_the_bots_have_people(bots: Bots) -> None:
    for bot in SETUP:
        bots.fleet.up(bot)
    bots.fleet.edit("bot-not-running", r"alert: \{after: 5m\}", "alert: {after: 1h}")
    due = [{"schedule": "* * * * *", "task": "bot_morning_report"}]
    (bots.fleet.home / "config/schedule.json").write_text(json.dumps(due))
    assert bots.fleet.desk(Actor.ROUND).round().report
    texts = {(one.token, one.chat): one.text for one in bots.service.arrived if one.method == "sendMessage"}
    assert set(texts) == {(token, chat) for token, chats in SETUP.values() for chat in chats}
    assert len(set(texts.values())) == 1
    assert sum(one.method == "sendMessage" for one in bots.service.arrived) == len(texts)


def test_the_proof_of_a_setup_names_each_wrong_channel_among_good_ones(bots: Bots) -> None:
    env = bots.fleet.home / "notify.env"
    written = env.read_text().replace(OTHER, OTHER[:-1] + "x").replace("3001,-1009", "3001,4004")
    env.write_text("".join(line for line in written.splitlines(True) if not line.startswith("BTC_3M_CHATS")))
    done = bots.command("alerts", "test")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "refused at tgram://${BTC_3M_TOKEN}/${BTC_3M_CHATS} (btc-3m): ${BTC_3M_CHATS} is set neither in notify_env nor "
        "in the environment.",
        *(
            f"refused at tgram://${{DOGE_SHORT_TOKEN}}/${{DOGE_SHORT_CHATS}} (chat {number} of 3) (doge-short): "
            f"HTTP 401: Unauthorized"
            for number in (1, 2, 3)
        ),
        "arrived at tgram://${BTC_OPTIMIZED_TOKEN}/${BTC_OPTIMIZED_CHATS} (chat 1 of 2) (btc-optimized)",
        "refused at tgram://${BTC_OPTIMIZED_TOKEN}/${BTC_OPTIMIZED_CHATS} (chat 2 of 2) (btc-optimized): "
        "HTTP 400: Bad Request: chat not found",
    ]
    assert [(one.token, one.chat) for one in bots.service.arrived] == [(THIRD, "3001")]


# --------------------------------------------------------------------------------------- a service that behaves badly


@pytest.mark.parametrize(
    ("behaviour", "marked", "arrives_before"),
    [
        (tg.limited(1), False, False),
        (tg.limited(3600), False, False),
        (tg.broken(500), True, False),
        (tg.REDIRECT, False, False),
        (tg.DROP, True, True),
    ],
    ids=["429 for a second", "429 for an hour", "500", "redirect", "no answer"],
)
def test_whatever_the_service_answers_once_a_long_message_arrives_whole_and_nothing_leaks(
    bots: Bots, behaviour: tg.Behaviour, marked: bool, arrives_before: bool
) -> None:
    """Ten thousand characters; at each place where they have to be cut stands a sign of several characters."""
    text = FAMILY * 900 + "e\u0301" * 400
    assert len(text) >= 7000
    bots.service.tokens = {TOKEN: SETUP["btc-3m"][1]}
    fleet_json = bots.fleet.home / "config/bots.json"
    written = json.loads(fleet_json.read_text())
    written["notify"] = ["tgram://${BTC_3M_TOKEN}/1001"]
    fleet_json.write_text(json.dumps(written))
    post(bots.fleet.desk(Actor.ROUND).bench(), "x", Message(text))
    bots.service.plan(tg.OK, behaviour)
    for hours in range(0, 12, 2):
        bots.fleet.desk(Actor.ROUND, clock=lambda later=timedelta(hours=hours): utc_now() + later).deliver(15)  # type: ignore[misc]
    assert outbox.rows(bots.fleet.desk().ledger, ("queued", "sending")) == []
    came = bots.service.texts("1001")
    again = [one for one in came if one.startswith(REPEATED)]
    assert len(again) == marked
    once = [one for one in came if not (arrives_before and one.startswith(REPEATED))]
    parts = [one.removeprefix(REPEATED).partition(" ")[2] for one in once]
    assert "".join(parts) == text
    assert all(not part.startswith("\u200d") and not part.endswith("\u200d") for part in parts)
    assert all(len(one.encode("utf-16-le")) // 2 <= tg.LONGEST for one in came)
    assert bots.service.visited == []
    assert TOKEN.partition(":")[2].encode() not in bots.everything_written()


# ------------------------------------------------------------------------------------------------- the morning report

KILLED = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from botkeep import outbox, telling
from botkeep.model import Actor
from botkeep.rounds import Desk
from botkeep.workspace import Workspace
real = {"after": telling.post, "within": outbox.queueing}[sys.argv[2]]
def killed(*asked, **more):
    done = real(*asked, **more)
    if sys.argv[2] == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    def write(db, entry):
        done(db, entry)
        os.kill(os.getpid(), signal.SIGKILL)
    return write
setattr(*{"after": (telling, "post"), "within": (outbox, "queueing")}[sys.argv[2]], killed)
at = datetime.fromisoformat(sys.argv[3])
Desk.open(Workspace(Path(sys.argv[1])), Actor.ROUND, lambda: at).do_what_is_due()
"""


@pytest.mark.parametrize("moment", ["after", "within"])
def test_a_caller_that_is_killed_while_it_posts_the_report_leaves_one_report(bots: Bots, moment: str) -> None:
    due = [{"schedule": "* * * * *", "task": "bot_morning_report"}]
    (bots.fleet.home / "config/schedule.json").write_text(json.dumps(due))
    at = utc_now()
    words = [sys.executable, "-c", KILLED, str(bots.fleet.home), moment, at.isoformat()]
    assert subprocess.run(words, check=False, timeout=60).returncode == -signal.SIGKILL
    desk = bots.fleet.desk(Actor.ROUND, clock=lambda: at)
    assert len(desk.ledger.entries(kinds=[Kind.ALERT])) == (moment == "after")
    assert bool(desk.do_what_is_due().report) is (moment == "within")
    assert len(desk.ledger.entries(kinds=[Kind.ALERT])) == 1
    assert desk.do_what_is_due().report == ""


def test_a_report_that_cannot_be_recorded_is_due_again(bots: Bots) -> None:
    due = [{"schedule": "* * * * *", "task": "bot_morning_report"}]
    (bots.fleet.home / "config/schedule.json").write_text(json.dumps(due))
    desk = bots.fleet.desk(Actor.ROUND)
    with desk.ledger.writing() as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT raise(ABORT, 'disk is full'); END")
    failed = desk.do_what_is_due()
    assert failed.report == ""
    assert any(one.startswith("bot_morning_report failed: ") for one in failed.problems)
    with desk.ledger.writing() as db:
        db.execute("DROP TRIGGER full")
    assert desk.do_what_is_due().report


# ------------------------------------------------------------------------------------------------------------ silences


def test_a_silence_is_shown_wherever_the_bots_are_shown(bots: Bots) -> None:
    bots.fleet.up("btc-3m")
    desk = bots.fleet.desk(Actor.PERSON)
    entry_ = silences.begin(desk.journal, "btc-3m", timedelta(hours=2), "moving it", "person", utc_now())
    for words in (
        ("check",), ("status",), ("report",), ("report", "--format", "markdown"), ("report", "--format", "html"),
        ("silence",), ("alerts",), ("status", "--watch"),
    ):  # fmt: skip
        shown = bots.command(*words).stdout
        assert "moving it" in shown, words
        assert entry_.id in shown, words
    for words in (("check", "--json"), ("status", "--json"), ("alerts", "--json"), ("silence", "--json")):
        (one,) = json.loads(bots.command(*words).stdout)["silenced"]
        assert (one["bot"], one["reason"], one["entry"]) == ("btc-3m", "moving it", entry_.id)
    (one,) = json.loads(bots.command("report", "--format", "json").stdout)["silences"]
    assert (one["bot"], one["reason"]) == ("btc-3m", "moving it")
    silences.end(desk.journal, "btc-3m", "person", utc_now())
    assert "moving it" not in bots.command("check").stdout + bots.command("status").stdout
