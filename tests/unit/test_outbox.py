"""The queue of what people have to be told: each message once, whatever the services do, whoever is killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from botkeep import outbox
from botkeep.channels import channels_of
from botkeep.durable import Lock
from botkeep.ledger import Kind, Ledger
from botkeep.model import utc_now
from botkeep.notify import REPEATED, Directory, Message
from botkeep.outbox import Delivery, deliver, problems, queueing, rows, troubles
from support import telegram as tg
from support.fleet import wait_for
from support.telegram import CHATS, OTHER, TOKEN, Telegram, telegram
from support.webhook import webhook

SECONDS = 30.0
HOUR = timedelta(hours=1)


@dataclass
class Desk:
    """A ledger, its channels, a clock that stands still until it is moved."""

    folder: Path
    ledger: Ledger
    people: Directory
    now: datetime = field(default_factory=utc_now)

    def say(self, text: str, bots: tuple[str, ...] = (), **more: object) -> str:
        """An alert, queued; its entry."""
        message = Message(text, "botkeep: test", **more)  # type: ignore[arg-type]
        return self.ledger.append(
            Kind.ALERT, at=self.now, bot=None, action="alert", actor="round", sentence=text,
            within=queueing(self.people.of(bots), message, bots),
        ).id  # fmt: skip

    def deliver(self, seconds: float = SECONDS) -> Delivery:
        return deliver(self.ledger, self.people, self.folder, lambda: self.now, seconds)

    def later(self, length: timedelta) -> None:
        self.now += length

    def problems(self) -> list[str]:
        return problems(self.ledger, self.people, self.now)

    def states(self) -> list[str]:
        return [one.state for one in rows(self.ledger, ("queued", "sending", "sent", "moved", "dead"))]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Telegram]:
    with telegram(tmp_path / "telegram") as found:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


def people(*entries: str, **own: str) -> Directory:
    values = {"TOKEN": TOKEN, "OTHER": OTHER, "BAD": TOKEN[:-1] + "x"}
    named = {bot: tuple(channels_of([entry], values)) for bot, entry in own.items()}
    return Directory(tuple(channels_of(entries, values)), named)


ONE = "tgram://${TOKEN}/1001"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    ledger = Ledger(tmp_path / "ledger.db")
    yield Desk(tmp_path, ledger, people(ONE))
    ledger.close()


def test_what_was_said_arrives_once_and_in_its_order(desk: Desk, service: Telegram) -> None:
    for number in range(3):
        desk.say(f"message {number}")
    assert desk.deliver() == Delivery(sent=3)
    assert desk.deliver() == Delivery()
    assert service.texts() == ["message 0", "message 1", "message 2"]
    assert desk.problems() == []


def test_an_entry_and_its_messages_are_both_on_the_disk_or_neither(desk: Desk) -> None:
    def broken(db: object, entry: object) -> None:
        queueing(desk.people.of(()), Message("x"))(db, entry)  # type: ignore[arg-type]
        raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        desk.ledger.append(
            Kind.ALERT, at=desk.now, bot=None, action="alert", actor="round", sentence="x", within=broken
        )
    assert desk.ledger.head()[0] == 0
    assert rows(desk.ledger, ("queued",)) == []
    desk.say("y")
    assert [one.entry for one in rows(desk.ledger, ("queued",))] == ["e1"]


def test_nothing_is_queued_where_nobody_is_to_be_told(desk: Desk) -> None:
    desk.people = Directory()
    desk.say("x")
    assert desk.deliver() == Delivery()
    assert rows(desk.ledger, ("queued",)) == []


def test_several_chats_and_several_services_get_it_each_once(desk: Desk, service: Telegram) -> None:
    with webhook() as hook:
        desk.people = people("tgram://${TOKEN}/1001/1002", hook.url, doge="tgram://${OTHER}/-1003")
        desk.say("to all")
        desk.say("of doge", ("doge",))
        assert desk.deliver() == Delivery(sent=4)
        assert [one["message"] for one in hook.came] == ["to all"]
    assert sorted((one.token, one.chat, one.text) for one in service.arrived) == sorted(
        [(TOKEN, "1001", "to all"), (TOKEN, "1002", "to all"), (OTHER, "-1003", "of doge")]
    )


# ------------------------------------------------------------------------------------------------- services that fail


@pytest.mark.parametrize(
    ("behaviour", "first", "marked"),
    [
        (tg.limited(90), timedelta(seconds=90), False),
        (tg.broken(503), timedelta(seconds=30), True),
        (tg.REDIRECT, timedelta(minutes=5), False),
    ],
)
def test_a_channel_that_fails_is_left_alone_for_a_while_and_then_gets_it(
    desk: Desk, service: Telegram, behaviour: tg.Behaviour, first: timedelta, marked: bool
) -> None:
    service.plan(behaviour)
    desk.say("x")
    assert desk.deliver(8) == Delivery(failed=1, waiting=1)
    desk.later(first - timedelta(seconds=1))
    assert desk.deliver(8) == Delivery(waiting=1)
    desk.later(timedelta(seconds=1))
    assert desk.deliver(8) == Delivery(sent=1)
    assert service.texts() == [f"{REPEATED}x" if marked else "x"]
    assert len(service.asked) == 2
    assert service.visited == []
    assert troubles(desk.ledger) == {}


def test_pauses_grow_while_a_service_stays_away(desk: Desk, service: Telegram) -> None:
    service.plan(then=tg.broken())
    desk.say("x")
    pauses = []
    for _ in range(8):
        desk.deliver(8)
        (trouble,) = troubles(desk.ledger).values()
        pauses.append((trouble.due - desk.now).total_seconds())
        desk.now = trouble.due
    assert pauses == [30, 60, 120, 300, 600, 900, 900, 900]


def test_a_short_wait_that_a_service_asks_for_is_waited_in_the_same_delivery(desk: Desk, service: Telegram) -> None:
    service.plan(tg.limited(1), tg.limited(1))
    desk.say("x")
    began = time.monotonic()
    assert deliver(desk.ledger, desk.people, desk.folder, utc_now, 20) == Delivery(sent=1, failed=2)
    assert time.monotonic() - began >= 2
    assert service.texts() == ["x"]


def test_a_message_that_may_have_arrived_is_sent_again_with_a_mark_and_once(desk: Desk, service: Telegram) -> None:
    service.plan(tg.DROP)
    desk.say("x")
    desk.deliver(8)
    desk.later(HOUR)
    desk.deliver(8)
    desk.later(HOUR)
    desk.deliver(8)
    assert service.texts() == ["x", f"{REPEATED}x"]


def test_a_silent_service_takes_only_its_share_of_time_and_the_others_are_told(
    desk: Desk, service: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "SECONDS", 4.0)
    service.plan(then=tg.SILENCE)
    with webhook() as hook:
        desk.people = people(ONE, hook.url)
        desk.say("x")
        began = time.monotonic()
        assert desk.deliver() == Delivery(sent=1, failed=1, waiting=1)
        assert time.monotonic() - began < 15
        assert len(hook.came) == 1


def test_one_chat_that_fails_keeps_no_other_waiting_and_has_none_told_twice(desk: Desk, service: Telegram) -> None:
    service.tokens[TOKEN] = ("1001",)
    desk.people = people("tgram://${TOKEN}/1001/1002")
    for number in range(3):
        desk.say(f"message {number}")
        desk.deliver()
        desk.later(HOUR)
    assert service.texts("1001") == ["message 0", "message 1", "message 2"]
    service.tokens[TOKEN] = CHATS
    assert desk.deliver() == Delivery(sent=3)
    assert service.texts("1001") == service.texts("1002") == ["message 0", "message 1", "message 2"]


def test_a_wrong_token_is_said_and_what_waits_goes_out_as_soon_as_it_is_mended(desk: Desk, service: Telegram) -> None:
    desk.people = people("tgram://${BAD}/1001")
    desk.say("x")
    assert desk.deliver() == Delivery(failed=1, waiting=1)
    (said,) = desk.problems()
    assert said.startswith(
        "Alerts do not reach tgram://${BAD}/1001 since 0 s: HTTP 401: Unauthorized. 1 message waits."
    )
    assert TOKEN not in said
    values = {"BAD": TOKEN}
    desk.people = Directory(tuple(channels_of(["tgram://${BAD}/1001"], values)))
    assert desk.problems() == []
    assert desk.deliver() == Delivery(sent=1)
    assert service.texts() == ["x"]


def test_one_message_that_a_service_does_not_take_holds_no_other_back(desk: Desk) -> None:
    with webhook() as hook:
        desk.people = people(hook.url)
        hook.status = 413
        desk.say("too large")
        desk.deliver()
        hook.status = 200
        desk.say("fits")
        assert desk.deliver() == Delivery(sent=1, waiting=1)
        assert [one["message"] for one in hook.came] == ["too large", "fits"]


def test_a_service_that_is_away_is_said_only_after_some_minutes(desk: Desk, service: Telegram) -> None:
    service.plan(then=tg.broken())
    desk.say("x")
    desk.deliver(8)
    assert desk.problems() == []
    desk.later(timedelta(minutes=11))
    assert "HTTP 500: Internal Server Error. 1 message waits. It is tried again" in desk.problems()[0]


def test_after_a_day_a_message_is_given_up_and_that_is_said_until_somebody_has_read_it(
    desk: Desk, service: Telegram
) -> None:
    service.plan(then=tg.broken())
    entry = desk.say("x")
    desk.deliver(8)
    desk.later(timedelta(hours=24, seconds=1))
    service.plan()
    desk.say("y")
    assert desk.deliver(8) == Delivery(sent=1)
    assert service.texts() == ["y"]
    (said,) = desk.problems()
    assert said.startswith(f"1 message never arrived at tgram://${{TOKEN}}/1001 ({entry}): HTTP 500")
    assert outbox.seen(desk.ledger, desk.now) == 1
    assert desk.problems() == []


def test_a_clock_that_is_set_back_makes_no_pause_longer(desk: Desk, service: Telegram) -> None:
    service.plan(tg.limited(60))
    desk.say("x")
    desk.deliver(8)
    desk.later(-HOUR)
    assert desk.deliver(8) == Delivery(sent=1)


# ----------------------------------------------------------------------------------------------------- long messages


def test_ten_thousand_characters_with_emoji_at_the_cut_arrive_whole_in_their_order(
    desk: Desk, service: Telegram
) -> None:
    text = "\U0001f4a5" * 5000 + "e\u0301" * 2500
    desk.say(text)
    assert desk.deliver() == Delivery(sent=1)
    parts = service.texts()
    assert [part[:6] for part in parts] == ["(1/4) ", "(2/4) ", "(3/4) ", "(4/4) "]
    assert "".join(part[6:] for part in parts) == text
    assert all(len(part.encode("utf-16-le")) // 2 <= tg.LONGEST for part in parts)


def test_of_a_long_message_only_what_did_not_arrive_is_sent_again(desk: Desk, service: Telegram) -> None:
    service.plan(tg.OK, tg.limited(60))
    desk.say("x" * 9000)
    assert desk.deliver(8) == Delivery(failed=1, waiting=1)
    desk.later(HOUR)
    assert desk.deliver(8) == Delivery(sent=1)
    assert [part[:6] for part in service.texts()] == ["(1/3) ", "(2/3) ", "(3/3) "]


def test_pictures_follow_the_text_and_a_picture_that_is_gone_is_left_out(
    desk: Desk, service: Telegram, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 64)
    desk.say("report", attachments=(str(tmp_path / "a.png"), str(tmp_path / "gone.png")))
    assert desk.deliver() == Delivery(sent=1)
    assert [(one.method, one.text) for one in service.arrived] == [("sendMessage", "report"), ("sendPhoto", "")]


# ------------------------------------------------------------------------------------------- kills, edits, neighbours


def killed_while_sending(desk: Desk) -> None:
    """What a sender leaves that is killed between its note and the answer."""
    with desk.ledger.writing() as db:
        db.execute("UPDATE outbox SET state = 'sending', attempts = 1")


def test_what_a_killed_sender_left_is_sent_again_with_a_mark(desk: Desk, service: Telegram) -> None:
    desk.say("x")
    killed_while_sending(desk)
    assert desk.deliver() == Delivery(sent=1)
    assert service.texts() == [f"{REPEATED}x"]


def test_two_senders_at_once_send_each_message_once(desk: Desk, service: Telegram) -> None:
    for number in range(8):
        desk.say(f"message {number}")
    done: list[Delivery] = []
    senders = [threading.Thread(target=lambda: done.append(desk.deliver())) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert sum(one.sent for one in done) == 8
    assert sorted(service.texts()) == [f"message {number}" for number in range(8)]


def test_while_an_orphaned_courier_may_still_be_sending_nobody_else_does(desk: Desk, service: Telegram) -> None:
    """The sender was killed, its courier waits for a slow service: it holds the lock until it is gone."""
    from botkeep.notify import Courier

    service.plan(tg.SILENCE)
    desk.say("x")
    lock = Lock(desk.folder / outbox.LOCK)
    assert lock.acquire()
    orphan = Courier(lock.fd)
    asking = threading.Thread(target=lambda: orphan.send(desk.people.fleet[0], Message("x"), 30))
    asking.start()
    wait_for(lambda: service.asked)
    lock.release()
    assert desk.deliver() == Delivery(busy=True)
    process = orphan._process
    assert process is not None
    process.kill()
    asking.join()
    assert desk.deliver() == Delivery(sent=1)


def test_what_waits_for_a_channel_that_is_gone_goes_to_those_that_are_there(desk: Desk, service: Telegram) -> None:
    desk.people = people("tgram://${BAD}/1001", ONE)
    desk.say("x")
    assert desk.deliver() == Delivery(sent=1, failed=1, waiting=1)
    desk.people = people(ONE, "tgram://${TOKEN}/1002")
    assert desk.deliver() == Delivery(sent=1)
    assert (service.texts("1001"), service.texts("1002")) == (["x"], ["x"])
    assert sorted(desk.states()) == ["moved", "sent", "sent"]


def test_when_nobody_is_to_be_told_any_more_that_is_said(desk: Desk) -> None:
    desk.people = people("tgram://${BAD}/1001")
    entry = desk.say("x")
    desk.people = Directory()
    assert desk.deliver() == Delivery()
    assert desk.problems() == [
        f"1 message never arrived at a channel that is configured no more ({entry}): config/bots.json names nobody to "
        f"tell any more. `botkeep alerts --seen` when you have read them."
    ]


def test_a_variable_that_is_missing_is_a_problem_and_what_waits_goes_out_when_it_is_there(
    desk: Desk, service: Telegram
) -> None:
    desk.people = Directory(tuple(channels_of(["tgram://${LATER}/1001/1002"], {})))
    desk.say("x")
    assert desk.deliver() == Delivery(waiting=1)
    assert desk.problems() == [
        "Nobody is told at tgram://${LATER}/1001/1002: ${LATER} is set neither in notify_env nor in the environment."
    ]
    desk.people = Directory(tuple(channels_of(["tgram://${LATER}/1001/1002"], {"LATER": TOKEN})))
    assert desk.deliver() == Delivery(sent=2)
    assert (service.texts("1001"), service.texts("1002")) == (["x"], ["x"])


def test_no_secret_is_kept_in_the_queue(desk: Desk, service: Telegram) -> None:
    service.plan(tg.broken())
    desk.say("x")
    desk.deliver(8)
    desk.ledger.close()
    for path in desk.folder.glob("ledger.db*"):
        assert TOKEN.encode() not in path.read_bytes()
        assert TOKEN.partition(":")[2].encode() not in path.read_bytes()


def test_what_was_sent_long_ago_is_forgotten(desk: Desk, service: Telegram) -> None:
    desk.say("x")
    desk.deliver()
    desk.later(timedelta(days=31))
    desk.say("y")
    desk.deliver()
    assert [one.message.text for one in rows(desk.ledger, ("sent",))] == ["y"]


def test_a_test_that_arrives_ends_the_pause(desk: Desk, service: Telegram) -> None:
    service.plan(tg.limited(3600))
    desk.say("x")
    desk.deliver(8)
    outbox.works(desk.ledger, desk.people.fleet[0])
    assert desk.deliver(8) == Delivery(sent=1)


def test_a_row_keeps_all_that_was_queued(desk: Desk) -> None:
    entry = desk.say("x \ue000", ("doge",), severity="critical", attachments=("/tmp/a.png",))
    (row,) = rows(desk.ledger, ("queued",))
    assert (row.entry, row.bots, row.state, row.queued) == (entry, ("doge",), "queued", desk.now)
    assert row.message == Message(f"x {entry}", "botkeep: test", "critical", ("/tmp/a.png",))
