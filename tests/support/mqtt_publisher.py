"""A real process that publishes to an MQTT broker, as a bot does. Driven line by line on stdin.

    python mqtt_publisher.py PORT TOPIC [USER PASSWORD]

Commands: `beat SECONDS` sends Hummingbot's heartbeat, `{"ts": microseconds}`, again and again, from a thread of its own
as the bot does; `rest` ends that. `say HEX` sends these bytes once, `keep HEX` has the broker keep them for whoever
comes later, `flood HEX` sends them without a pause. It answers `ready` once it is connected, and after every command.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion


class Bot:
    """One connection, as a bot has it."""

    def __init__(self, port: int, topic: str, *who: str) -> None:
        self.topic = topic
        self.resting = threading.Event()
        self.thread: threading.Thread | None = None
        connected = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2)
        if who:
            self.client.username_pw_set(*who)
        self.client.on_connect = lambda *_: connected.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert connected.wait(10)

    def beat(self, seconds: str) -> None:
        """Heartbeats, until `rest`."""
        self._repeat(lambda: json.dumps({"ts": time.time_ns() // 1000}).encode(), float(seconds))

    def flood(self, text: str) -> None:
        """The same thing, as fast as it goes, until `rest`."""
        self._repeat(lambda: bytes.fromhex(text), 0.0)

    def _repeat(self, payload, pause: float) -> None:
        def go() -> None:
            while not self.resting.wait(pause):
                self.client.publish(self.topic, payload()).wait_for_publish(5)

        self.rest()
        self.resting.clear()
        self.thread = threading.Thread(target=go, daemon=True)
        self.thread.start()

    def rest(self) -> None:
        """No more of it."""
        self.resting.set()
        if self.thread:
            self.thread.join()

    def say(self, text: str) -> None:
        """Once."""
        self.client.publish(self.topic, bytes.fromhex(text)).wait_for_publish(5)

    def keep(self, text: str) -> None:
        """For whoever comes later; sent once the broker says that it has it."""
        self.client.publish(self.topic, bytes.fromhex(text), qos=1, retain=True).wait_for_publish(5)


def main() -> None:
    bot = Bot(int(sys.argv[1]), *sys.argv[2:])
    print("ready", flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        getattr(bot, word)(*rest)
        print("ready", flush=True)


if __name__ == "__main__":
    main()
