"""One bounded question to an MQTT broker: was there such a message on this topic within so many seconds?

Nothing is published. Whoever may write to the broker may have written what comes, so a message counts only when the
asker believes it: whatever else comes is counted and forgotten. Needs botkeep[mqtt], and a broker that speaks MQTT 5,
which is what lets us refuse long messages before they are sent, and those that the broker kept from before.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from botkeep.untrusted import clean
from botkeep.web import Deadline, WebError, addresses

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

LONGEST = 4096
"""Bytes of a packet: the broker is told to keep longer ones to itself."""
MISSING = 'Hearing a bot over MQTT needs botkeep[mqtt]: pip install "botkeep[mqtt]".'
_TURN = 1.0
_REFUSED = frozenset({0x86, 0x87, 0x8A, 0x8C})
"""Reasons by which a broker says that it does not know us: bad user name or password, not authorised, banned."""
_GARBAGE = (ValueError, TypeError, LookupError, AttributeError, AssertionError, struct.error)
"""What paho-mqtt raises over bytes that are no MQTT."""

Believe = Callable[[bytes], bool]
"""Whether a payload is what was asked for."""


@dataclass(frozen=True)
class Topic:
    """What to listen to, and where. `password` is sent as it is, so the broker should be on this machine."""

    name: str
    host: str = "127.0.0.1"
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    allowed_hosts: Set[str] = frozenset()
    """Hosts that may be asked although they are not this machine."""


@dataclass(frozen=True)
class Heard:
    """What came, or why nothing did."""

    rule: str
    """ok; silent: nothing that was believed came while we listened; else why nobody listened: refused, unauthorized,
    timeout, not-allowed."""
    text: str = ""
    """A sentence, empty if ok."""
    payload: bytes = b""
    """Of the first message that was believed."""
    listened: float = 0.0
    """Seconds since the broker confirmed the subscription."""
    ignored: int = 0
    """Messages that were not believed."""


def listen(topic: Topic, seconds: float, believe: Believe) -> Heard:
    """Subscribe and wait for the first message that `believe` takes, `seconds` at most for everything. Never raises."""
    clock = Deadline(seconds)
    try:
        listener = _Listener(topic, believe)
    except ImportError:
        return Heard("not-allowed", MISSING)
    try:
        listener.connect(clock)
        listener.wait(clock)
    except WebError as failure:
        return listener.failed(failure)
    finally:
        listener.leave()
    return Heard("ok", payload=listener.payload or b"", listened=listener.listened, ignored=listener.ignored)


class _Listener:
    """One connection to a broker. Turns paho's loop by hand, so that no thread is left behind."""

    def __init__(self, topic: Topic, believe: Believe) -> None:
        """Raises ImportError without the extra."""
        self.topic, self.believe = topic, believe
        self.payload: bytes | None = None
        self.ignored = 0
        self.problem: WebError | None = None
        self.since: float | None = None
        self.client = self._client()

    def _client(self) -> Client:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False)
        if self.topic.username is not None:
            client.username_pw_set(self.topic.username, self.topic.password)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    @property
    def listened(self) -> float:
        return 0.0 if self.since is None else time.monotonic() - self.since

    # ------------------------------------------------------------------------------------------------- the talk

    def connect(self, clock: Deadline) -> None:
        """To the first address that answers. Raises WebError."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = LONGEST
        problem: OSError | None = None
        for address in addresses(self.topic.host, self.topic.port, clock, self.topic.allowed_hosts):
            try:
                self.client.connect_timeout = clock.left()
                self.client.connect(address, self.topic.port, clean_start=True, properties=properties)
            except OSError as error:
                problem = error
            else:
                return
        if isinstance(problem, TimeoutError):
            raise self._too_late(clock) from problem
        why = problem.strerror if problem else "no address"
        raise WebError("refused", f"no MQTT broker answers at {self._place}: {why}.") from problem

    def wait(self, clock: Deadline) -> None:
        """Until a message is believed. Raises WebError: when time is up, timeout."""
        while self.payload is None:
            if clock.spent >= clock.seconds:
                raise self._too_late(clock)
            lost = self._turn(min(_TURN, clock.seconds - clock.spent))
            if self.problem is not None:
                raise self.problem
            if lost and self.payload is None:
                raise WebError("refused", f"the connection to the MQTT broker at {self._place} broke: {lost}.")

    def _turn(self, seconds: float) -> str:
        """Read and write what there is, for at most `seconds`. Why the connection is lost; empty: it is not."""
        from paho.mqtt import MQTTException
        from paho.mqtt.client import error_string
        from paho.mqtt.enums import MQTTErrorCode

        try:
            code = self.client.loop(max(seconds, 0.001))
        except (*_GARBAGE, MQTTException) as error:
            return f"what it says is no MQTT ({clean(str(error), 60)})"
        return "" if code == MQTTErrorCode.MQTT_ERR_SUCCESS else clean(error_string(code).rstrip("."), 80)

    def leave(self) -> None:
        """Say goodbye, whatever the broker does with it."""
        self.client.disconnect()

    # ------------------------------------------------------------------------------------------- what is answered

    def _on_connect(
        self, client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, _more: Properties | None
    ) -> None:
        from paho.mqtt.subscribeoptions import SubscribeOptions

        if reason.is_failure:
            self.problem = self._refusal(reason, "let us in")
            return
        kept = SubscribeOptions.RETAIN_DO_NOT_SEND  # a heartbeat that the broker kept is nobody's sign of life
        client.subscribe(self.topic.name, options=SubscribeOptions(qos=0, retainHandling=kept))

    def _on_subscribe(
        self, _client: Client, _data: object, _number: int, reasons: list[ReasonCode], _more: Properties | None
    ) -> None:
        refused = [one for one in reasons if one.is_failure]
        if refused:
            self.problem = self._refusal(refused[0], f"let us listen to {clean(self.topic.name, 100)}")
        else:
            self.since = time.monotonic()

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        payload = bytes(message.payload)
        if self.payload is not None:
            return
        if message.topic != self.topic.name or not self.believe(payload):
            self.ignored += 1
        else:
            self.payload = payload

    # ------------------------------------------------------------------------------------------------- in words

    @property
    def _place(self) -> str:
        return f"{clean(self.topic.host, 100)}:{self.topic.port}"

    def _refusal(self, reason: ReasonCode, what: str) -> WebError:
        rule = "unauthorized" if reason.value in _REFUSED else "refused"
        return WebError(rule, f"the MQTT broker at {self._place} does not {what}: {clean(str(reason), 80)}.")

    def _too_late(self, clock: Deadline) -> WebError:
        if self.since is None:
            return WebError(
                "timeout", f"no MQTT broker answered at {self._place} within {round(clock.seconds, 1):g} s."
            )
        others = f"; {self.ignored} that were none came" if self.ignored else ""
        said = f"no such message came on {clean(self.topic.name, 100)} within {self.listened:.0f} s{others}."
        return WebError("silent", said)

    def failed(self, failure: WebError) -> Heard:
        """The same for whoever asked."""
        return Heard(failure.rule, str(failure), listened=self.listened, ignored=self.ignored)
