"""People are told: real bots that fail, real rounds, Apprise's own Telegram plugin, and kills at any moment."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from botkeep import open_alerts, outbox
from botkeep.channels import Channel
from botkeep.config import load_fleet
from botkeep.model import Actor
from botkeep.notify import REPEATED, Message, directory
from botkeep.telling import post
from support import telegram as tg
from support.fleet import Fleet, entry, fleet, wait_for
from support.telegram import OTHER, TOKEN, Telegram, telegram

BOTKEEP = [sys.executable, "-m", "botkeep"]
DELIVER = """
import sys
from pathlib import Path
from botkeep.model import Actor
from botkeep.rounds import Desk
from botkeep.workspace import Workspace
desk = Desk.open(Workspace(Path(sys.argv[1])), Actor.ROUND)
print(desk.deliver(20.0), flush=True)
"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Telegram]:
    with telegram(tmp_path / "telegram") as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@dataclass
class Bots:
    """A fleet whose people are told over Telegram."""

    fleet: Fleet
    service: Telegram

    def round(self) -> list[str]:
        """One round; what it told."""
        return [one.sentence for one in self.fleet.desk(Actor.ROUND).round().alerts]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BOTKEEP, *words], cwd=self.fleet.home, capture_output=True, text=True, check=False, timeout=120
        )


@pytest.fixture
def bots(tmp_path: Path, service: Telegram) -> Iterator[Bots]:
    own = {"notify": ["tgram://${BTC_TOKEN}/-1003"]}
    with fleet(tmp_path / "ws", entry(), entry("btc", "BTCUSDT", **own)) as found:
        path = found.home / "config/bots.json"
        told = {"notify": ["tgram://${TOKEN}/1001/1002"], "notify_env": "notify.env"}
        path.write_text(json.dumps({**told, **json.loads(path.read_text())}))
        env = found.home / "notify.env"
        env.write_text(f"TOKEN={TOKEN}\nBTC_TOKEN={OTHER}\n")
        env.chmod(0o600)
        (found.home / "config/schedule.json").write_text("[]")
        yield Bots(found, service)


def first_lines(texts: list[str]) -> list[str]:
    return [text.partition("\n")[0].partition(" (since")[0] for text in texts]


def test_a_second_copy_is_told_and_told_to_be_gone_in_one_round(bots: Bots) -> None:
    pid = bots.fleet.up()
    bots.fleet.up("btc")
    copy = bots.fleet.copy_by_hand()
    wait_for(lambda: len(bots.fleet.desk().check(["doge"]).verdicts[0].evidence) > 0)
    assert len(bots.round()) == 2
    alert, over = bots.service.texts("1001")
    assert alert.startswith("\U0001f534 ")
    assert str(copy.pid) in alert or str(pid) in alert
    assert over.startswith("\u2705 doge: resolved after ")
    assert ": restarted (e" in over
    assert bots.service.texts("1002") == [alert, over]
    assert bots.service.texts("-1003") == []
    assert bots.round() == []
    assert len(bots.service.arrived) == 4


def test_a_bot_that_stays_down_is_told_with_what_a_person_can_do_until_it_is_well_again(bots: Bots) -> None:
    bots.fleet.up()
    pid = bots.fleet.up("btc")
    bots.fleet.edit("bot-not-running", r"alert: \{after: 5m\}", "alert: {after: 0s}")
    bots.fleet.edit("bot-not-running", "mode: auto", "mode: ask  # a person's word")
    bots.fleet.kill(pid)
    assert len(bots.round()) == 1
    (alert,) = bots.service.texts("-1003")
    assert {one.token for one in bots.service.arrived} == {OTHER}
    (asked,) = re.findall(r"botkeep approve (e\d+)", alert)
    assert bots.round() == []
    assert bots.command("approve", asked).returncode == 0
    (said,) = bots.round()
    assert said.startswith("btc: resolved after ")
    assert "restarted (e" in said
    assert first_lines(bots.service.texts("-1003"))[1] == f"\u2705 {said}"
    assert bots.service.texts("1001") == []


def test_nothing_is_told_to_be_over_while_somebody_still_does_something_about_it(bots: Bots) -> None:
    """Else a round that looks between a start and its outcome would say that botkeep had no part in it."""
    pid = bots.fleet.up()
    bots.fleet.up("btc")
    bots.fleet.edit("bot-not-running", r"alert: \{after: 5m\}", "alert: {after: 0s}")
    bots.fleet.edit("bot-not-running", "mode: auto", "mode: ask  # a person's word")
    bots.fleet.edit("bot-not-running", r"up_for: \w+", "up_for: 5s")
    bots.fleet.kill(pid)
    assert len(bots.round()) == 1
    words = [*BOTKEEP, "restart", "doge", "--override", "the cable is in again"]
    person = subprocess.Popen(words, cwd=bots.fleet.home, stdout=subprocess.DEVNULL)
    desk = bots.fleet.desk()
    wait_for(lambda: desk.check(["doge"]).verdicts[0].pid)
    person.send_signal(signal.SIGSTOP)
    assert desk.ledger.open_intents("doge"), "it is under way"
    assert bots.round() == []
    person.send_signal(signal.SIGCONT)
    assert person.wait(60) == 0
    (said,) = bots.round()
    assert re.fullmatch(r"doge: resolved after [\d.]+ (s|min): restarted \(e\d+\)\.", said), said


def test_a_check_alone_sends_nothing(bots: Bots) -> None:
    bots.fleet.up()
    bots.fleet.copy_by_hand()
    bots.fleet.desk().check()
    bots.fleet.desk().check()
    assert bots.service.asked == []


def test_a_bot_whose_entry_is_broken_is_told_when_it_stays_so(bots: Bots) -> None:
    bots.fleet.edit("bot-not-running", r"alert: \{after: 5m\}", "alert: {after: 0s}")
    bots.fleet.up()
    bots.fleet.up("btc")
    path = bots.fleet.home / "config/bots.json"
    good = path.read_text()
    path.write_text(good.replace('"currency": "USDT"', '"currency": "USDT", "chek_interval": 5', 1))
    assert len(bots.round()) == 1
    assert (
        "how doge is: doge cannot be looked at: config/bots.json $.bots[0].chek_interval"
        in (bots.service.texts("1001")[0])
    )
    path.write_text(good)
    (said,) = bots.round()
    assert said.startswith("doge: resolved after ")


def test_rounds_at_the_same_time_tell_each_thing_once(bots: Bots) -> None:
    bots.fleet.up()
    bots.fleet.up("btc")
    bots.fleet.copy_by_hand()
    rounds = [
        subprocess.Popen([*BOTKEEP, "round"], cwd=bots.fleet.home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(4)
    ]
    for one in rounds:
        one.communicate(timeout=120)
    bots.round()
    kinds = [text[0] for text in bots.service.texts("1001")]
    assert kinds == ["\U0001f534", "\u2705"]
    assert bots.service.texts("1002") == bots.service.texts("1001")


def test_while_telegram_is_away_rounds_go_on_and_nothing_is_lost(bots: Bots) -> None:
    bots.service.plan(then=tg.broken(502))
    bots.fleet.up()
    bots.fleet.up("btc")
    bots.fleet.copy_by_hand()
    report = bots.fleet.desk(Actor.ROUND).round()
    assert len(report.alerts) == 2
    assert [one.status for one in report.verdicts] == ["healthy", "healthy"]
    assert bots.service.texts() == []
    bots.service.plan()
    outbox.works(bots.fleet.desk().ledger, _channel(bots, "1001"))
    outbox.works(bots.fleet.desk().ledger, _channel(bots, "1002"))
    bots.round()
    for chat in ("1001", "1002"):
        assert [text.removeprefix(REPEATED)[0] for text in bots.service.texts(chat)] == ["\U0001f534", "\u2705"]


def _channel(bots: Bots, chat: str) -> Channel:
    return next(one for one in directory(load_fleet(bots.fleet.workspace)).fleet if one.url.endswith(f"/{chat}/"))


def test_the_morning_report_is_sent_when_it_is_due_and_once(bots: Bots) -> None:
    bots.fleet.up()
    bots.fleet.up("btc")
    due = [{"schedule": "* * * * *", "task": "bot_morning_report"}]
    (bots.fleet.home / "config/schedule.json").write_text(json.dumps(due))
    report = bots.fleet.desk(Actor.ROUND).round()
    assert report.report
    texts = [one for one in bots.service.arrived if one.chat == "1001" and one.method == "sendMessage"]
    assert "doge" in texts[0].text
    assert texts[0].text.splitlines()[0] in report.report
    assert bots.service.texts("-1003") == []


# ------------------------------------------------------------------------------------------------------------- kills


def sender(bots: Bots) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", DELIVER, str(bots.fleet.home)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def say(bots: Bots, text: str) -> None:
    post(bots.fleet.desk(Actor.ROUND).bench(), text, Message(text))


def test_a_sender_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing_without_a_mark(bots: Bots) -> None:
    rng = random.Random(20261121)
    wanted = [f"message {number}" for number in range(12)]
    for number, text in enumerate(wanted):
        say(bots, text)
        if number % 2:
            process = sender(bots)
            time.sleep(rng.uniform(0.1, 1.6))
            process.kill()
            process.wait()
    wait_for(lambda: not _waiting(bots), 90)
    for chat in ("1001", "1002"):
        came = bots.service.texts(chat)
        assert {text.removeprefix(REPEATED) for text in came} == set(wanted)
        plain = [text for text in came if not text.startswith(REPEATED)]
        assert len(plain) == len(set(plain))
        assert [text for text in wanted if text in plain] == plain


def _waiting(bots: Bots) -> bool:
    desk = bots.fleet.desk(Actor.ROUND)
    desk.deliver(20.0)
    return bool(outbox.rows(desk.ledger, ("queued", "sending")))


def test_killed_after_it_arrived_the_courier_that_outlived_the_sender_has_written_it_down(bots: Bots) -> None:
    say(bots, "only once")
    bots.service.plan(tg.Behaviour("hang"))
    process = sender(bots)
    wait_for(lambda: bots.service.arrived, 30)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [one.state for one in outbox.rows(bots.fleet.desk().ledger, ("sending",))] == ["sending"]
    bots.service.release.set()
    wait_for(lambda: not _waiting(bots), 60)
    assert bots.service.texts("1001") == bots.service.texts("1002") == ["only once"]


def test_killed_with_its_courier_after_it_arrived_it_is_sent_again_with_a_mark(bots: Bots) -> None:
    """The worst moment: the message is in the chat, and nobody here knows."""
    say(bots, "only once")
    bots.service.plan(tg.Behaviour("hang"))
    process = sender(bots)
    wait_for(lambda: bots.service.arrived, 30)
    (courier,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, int(courier)):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    bots.service.release.set()
    wait_for(lambda: not _waiting(bots), 60)
    assert bots.service.texts("1001") == ["only once", f"{REPEATED}only once"]
    assert bots.service.texts("1002") == ["only once"]


def test_a_round_that_is_killed_between_doing_and_telling_tells_in_the_next_one(bots: Bots) -> None:
    """kill -9 of whole rounds at random moments, until the incident is over: one alert, one end, no more."""
    rng = random.Random(7)
    bots.fleet.up()
    bots.fleet.up("btc")
    bots.fleet.copy_by_hand()
    for _ in range(5):
        process = subprocess.Popen(
            [*BOTKEEP, "round"], cwd=bots.fleet.home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(0.5, 6.0))
        process.kill()
        process.wait()
    until = time.monotonic() + 60
    while (_waiting(bots) or open_alerts.load(bots.fleet.desk().ledger).opens) and time.monotonic() < until:
        bots.round()
    texts = [text for text in bots.service.texts("1001") if not text.startswith(REPEATED)]
    assert [text[0] for text in texts] in (["\U0001f534", "\u2705"], [])
    assert len(texts) == len(set(texts))


# ----------------------------------------------------------------------------------------------------------- commands


def test_alerts_test_proves_each_channel_and_fails_when_one_does(bots: Bots) -> None:
    done = bots.command("alerts", "test")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "arrived at tgram://${TOKEN}/1001/1002 (chat 1 of 2) (everybody's)",
        "arrived at tgram://${TOKEN}/1001/1002 (chat 2 of 2) (everybody's)",
        "arrived at tgram://${BTC_TOKEN}/-1003 (btc)",
    ]
    assert len(bots.service.arrived) == 3
    bots.service.tokens[TOKEN] = ("1001",)
    done = bots.command("alerts", "test", "--json")
    assert done.returncode == 1
    assert [one.get("text", "") for one in json.loads(done.stdout)["channels"]] == [
        "", "HTTP 400: Bad Request: chat not found", "",
    ]  # fmt: skip
    done = bots.command("alerts", "test", "--bot", "btc")
    assert (done.returncode, done.stdout) == (0, "arrived at tgram://${BTC_TOKEN}/-1003 (btc)\n")
    assert TOKEN not in done.stdout + done.stderr


def test_alerts_lists_what_stands_what_waits_and_what_was_sent(bots: Bots) -> None:
    assert bots.command("alerts").stdout == "Nothing is wrong that people were told of.\n"
    bots.fleet.up("btc")
    pid = bots.fleet.up()
    bots.fleet.edit("bot-not-running", r"alert: \{after: 5m\}", "alert: {after: 0s}")
    bots.fleet.edit("bot-not-running", "mode: auto", "mode: ask  # a person's word")
    bots.fleet.kill(pid)
    bots.service.plan(tg.OK, tg.broken())
    bots.round()
    done = bots.command("alerts")
    lines = done.stdout.splitlines()
    assert any("since" in line and "doge" in line for line in lines[:1])
    assert any(line.startswith("waits: e") and "HTTP 500" in line for line in lines)
    assert any(line.startswith("sent: ") for line in lines)
    document = json.loads(bots.command("alerts", "--json").stdout)
    assert (len(document["incidents"]), len(document["waiting"]), len(document["sent"])) == (1, 1, 1)
    assert document["waiting"][0]["may_have_arrived"] is True


def test_silence_is_begun_shown_and_ended(bots: Bots) -> None:
    bots.fleet.up()
    bots.fleet.up("btc")
    done = bots.command("silence", "doge", "2h", "moving it to the new server")
    assert done.returncode == 0
    assert ": moving it to the new server" in done.stdout
    assert bots.command("silence").stdout.startswith("doge is silenced until ")
    assert "doge is silenced until " in bots.command("status").stdout
    bots.fleet.copy_by_hand()
    assert bots.round() == []
    assert bots.service.asked == []
    assert bots.command("silence", "--end", "doge").returncode == 0
    assert bots.command("silence").stdout == "No bot is silenced.\n"
    assert "doge is silenced for 2.0 h" in bots.fleet.journal()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("silence", "doge"), "Say for how long, and why"),
        (("silence", "doge", "2h"), "The reason is empty"),
        (("silence", "doge", "soon", "x"), "write one like 30m, 2h or 1d"),
        (("silence", "dogge", "2h", "x"), 'There is no bot "dogge"'),
        (("silence", "--end", "doge"), "doge is not silenced"),
        (("alerts", "--bot", "doge"), "--bot is for `botkeep alerts test`"),
        (("alerts", "test", "--bot", "dogge"), 'There is no bot "dogge"'),
    ],
)
def test_what_is_used_wrongly_is_one_line(bots: Bots, words: tuple[str, ...], says: str) -> None:
    done = bots.command(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_doctor_and_rounds_say_a_wrong_token(bots: Bots) -> None:
    (bots.fleet.home / "notify.env").write_text(f"TOKEN={TOKEN[:-1]}x\nBTC_TOKEN={OTHER}\n")
    bots.fleet.up()
    bots.fleet.up("btc")
    bots.fleet.copy_by_hand()
    report = bots.fleet.desk(Actor.ROUND).round()
    assert sum("HTTP 401: Unauthorized" in one for one in report.problems) == 2
    done = bots.command("doctor")
    assert done.returncode == 1
    assert done.stdout.count("HTTP 401: Unauthorized") == 2
    assert "HTTP 401: Unauthorized" in bots.command("check").stdout


def test_doctor_says_that_nobody_is_told(tmp_path: Path) -> None:
    with fleet(tmp_path / "ws") as found:
        lines = [one.what for one in found.desk().doctor()]
    assert "Nobody is told when something is wrong: config/bots.json has no notify." in lines
