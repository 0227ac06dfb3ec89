"""Listening to an MQTT broker: a real one with a real publisher, and servers that are none."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from botkeep.profiles import mqtt
from botkeep.profiles.mqtt import Heard, Topic, listen
from support.broker import PASSWORD, USER, Broker, Publisher, broker
from support.loopback import Serve, send, servers

TOPIC = "hbot/mm-1/hb"
SECONDS = 20.0


@pytest.fixture(scope="module")
def open_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One that everybody may use."""
    with broker(tmp_path_factory.mktemp("broker")) as found:
        yield found


@pytest.fixture
def bot(open_broker: Broker, request: pytest.FixtureRequest) -> Iterator[Publisher]:
    """What publishes, to a topic of the test's own."""
    with Publisher(open_broker.port, topic_of(request)) as found:
        yield found


@pytest.fixture
def topic(open_broker: Broker, request: pytest.FixtureRequest) -> Topic:
    return Topic(topic_of(request), port=open_broker.port)


def topic_of(request: pytest.FixtureRequest) -> str:
    return f"hbot/{request.node.name}/hb"


@pytest.fixture
def serve() -> Iterator[Serve]:
    with servers() as start:
        yield start


def anything(_: bytes) -> bool:
    return True


def nothing(_: bytes) -> bool:
    return False


# ----------------------------------------------------------------------------------------------------- a real broker


def test_a_message_is_heard(bot: Publisher, topic: Topic) -> None:
    bot.tell("beat 0.05")
    heard = listen(topic, SECONDS, anything)
    assert (heard.rule, heard.text) == ("ok", "")
    assert heard.payload.startswith(b'{"ts": ')


def test_what_is_not_believed_is_counted_and_waited_past(bot: Publisher, topic: Topic) -> None:
    seen: list[bytes] = []

    def third(payload: bytes) -> bool:
        seen.append(payload)
        return len(seen) == 3

    bot.tell(f"flood {b'x'.hex()}")
    heard = listen(topic, SECONDS, third)
    assert (heard.rule, heard.payload, heard.ignored) == ("ok", b"x", 2)


def test_a_topic_on_which_nothing_comes_is_silent(topic: Topic) -> None:
    heard = listen(topic, 1.5, anything)
    assert heard.rule == "silent"
    assert 0 < heard.listened <= 1.6
    assert heard.text.startswith(f"no such message came on {topic.name} within ")


def test_messages_that_are_none_leave_it_silent_and_are_told(bot: Publisher, topic: Topic) -> None:
    bot.tell(f"flood {b'[]'.hex()}")
    heard = listen(topic, 1.5, nothing)
    assert heard.rule == "silent"
    assert heard.ignored > 0
    assert f"; {heard.ignored} that were none came." in heard.text


def test_what_the_broker_kept_from_before_is_not_heard(bot: Publisher, topic: Topic) -> None:
    bot.tell(f"keep {b'old'.hex()}")
    assert listen(topic, 1.5, anything).rule == "silent"


def test_a_message_that_is_too_long_is_never_sent_to_us(bot: Publisher, topic: Topic) -> None:
    bot.tell(f"flood {bytes(mqtt.LONGEST + 1).hex()}")
    heard = listen(topic, 1.5, anything)
    assert (heard.rule, heard.ignored) == ("silent", 0)


def test_a_message_on_another_topic_is_not_heard(bot: Publisher, topic: Topic) -> None:
    bot.tell("beat 0.05")
    assert listen(Topic(f"{topic.name}/more", port=topic.port), 1.0, anything).rule == "silent"


def test_a_host_is_found_by_its_name(bot: Publisher, topic: Topic) -> None:
    bot.tell("beat 0.05")
    assert listen(Topic(topic.name, host="localhost", port=topic.port), SECONDS, anything).rule == "ok"


def test_nothing_is_left_behind(bot: Publisher, topic: Topic) -> None:
    before = threading.enumerate()
    bot.tell("beat 0.05")
    assert listen(topic, SECONDS, anything).rule == "ok"
    assert threading.enumerate() == before


def test_a_broker_lets_in_whom_it_knows(tmp_path: Path) -> None:
    with broker(tmp_path, password=True) as one, Publisher(one.port, TOPIC, password=True) as bot:
        bot.tell("beat 0.05")
        known = Topic(TOPIC, port=one.port, username=USER, password=PASSWORD)
        assert listen(known, SECONDS, anything).rule == "ok"
        for stranger in (Topic(TOPIC, port=one.port), Topic(TOPIC, port=one.port, username=USER, password="wrong")):
            heard = listen(stranger, SECONDS, anything)
            assert heard == Heard(
                "unauthorized", f"the MQTT broker at 127.0.0.1:{one.port} does not let us in: Not authorized."
            )
        assert PASSWORD not in repr(known)


# ------------------------------------------------------------------------------------------------------ where it leads


def test_a_port_where_no_broker_is_refuses(serve: Serve) -> None:
    server = serve(send())
    server.close()
    heard = listen(Topic(TOPIC, port=server.port), SECONDS, anything)
    assert heard == Heard("refused", f"no MQTT broker answers at 127.0.0.1:{server.port}: Connection refused.")


def test_another_machine_is_not_asked_unless_it_is_listed(topic: Topic) -> None:
    heard = listen(Topic(TOPIC, host="192.0.2.1", port=topic.port), SECONDS, anything)
    assert heard.rule == "not-allowed"
    assert "allowed_hosts" in heard.text
    cloud = Topic(TOPIC, host="169.254.169.254", allowed_hosts={"169.254.169.254"})
    assert listen(cloud, SECONDS, anything).rule == "not-allowed"


def test_without_the_extra_one_sentence_says_what_to_install() -> None:
    done = subprocess.run(
        [
            sys.executable, "-c",
            "import sys; sys.modules['paho'] = None\n"
            "from botkeep.profiles.mqtt import Topic, listen\n"
            "heard = listen(Topic('hbot/x/hb'), 5, lambda _: True); print(heard.rule, heard.text)",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"not-allowed {mqtt.MISSING}\n"
    assert "pip install" in mqtt.MISSING


def test_paho_is_not_loaded_before_somebody_listens() -> None:
    text = "import sys; import botkeep.profiles.hummingbot; print([name for name in sys.modules if 'paho' in name])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------------------------------------- what is no broker

CONNACK = bytes.fromhex("2003000000")
SUBACK = bytes.fromhex("900400010000")
"""Of the first subscription, in MQTT 5: packet 1, no properties, granted."""
HOSTILE = {
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "a length without end": b"\x20\xff\xff\xff\xff\xff",
    "a welcome that is cut short": CONNACK[:2],
    "a welcome with properties that are none": bytes.fromhex("200600000370ffff"),
    "a message before the welcome": bytes.fromhex("300700036162630001"),
    "a topic that is not UTF-8": CONNACK + SUBACK + bytes.fromhex("30060003ffffff00"),
    "a topic that is longer than its packet": CONNACK + SUBACK + bytes.fromhex("3003ffff61"),
    "an answer to a question that was not asked": CONNACK + bytes.fromhex("b00400630000"),
}


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_a_server_that_is_no_broker_is_told_as_one_and_raises_nothing(serve: Serve, said: bytes) -> None:
    heard = listen(Topic(TOPIC, port=serve(send(said)).port), 3.0, anything)
    assert heard.rule in ("refused", "timeout", "silent"), heard
    assert heard.text.endswith(".")


def test_a_server_that_says_nothing_runs_into_the_deadline(serve: Serve) -> None:
    over = threading.Event()
    server = serve(lambda _: over.wait(SECONDS) and None)
    heard = listen(Topic(TOPIC, port=server.port), 1.0, anything)
    assert heard == Heard("timeout", f"no MQTT broker answered at 127.0.0.1:{server.port} within 1 s.")
    over.set()


def test_whatever_bytes_come_nothing_is_raised(serve: Serve) -> None:
    dice = random.Random(4)
    for number in range(60):
        junk = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 200)))
        said = junk if number % 3 == 0 else CONNACK + junk if number % 3 == 1 else CONNACK + SUBACK + junk
        assert listen(Topic(TOPIC, port=serve(send(said)).port), 1.0, nothing).rule in ("refused", "timeout", "silent")
