"""Talking to supervisord: XML-RPC over a unix socket or TCP, one deadline and one bound for each conversation.

The standard library's proxies have a time limit for each read, which a server that sends a byte at a time never
breaks, and no limit for how much it may send. What they are good for is used: the documents.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from botkeep.envfile import load_env_file
from botkeep.model import BotkeepError, EngineError
from botkeep.untrusted import clean, register_secrets

BYTES = 8 << 20
"""That one answer may have: a thousand programs with all their settings are half of it, and more takes seconds to be
understood."""
PIECE = 1 << 16
HOW = "write unix:///PATH/OF/SOCKET or http://HOST:PORT"
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]"
_FORMS = re.compile(
    rf"unix://(?P<path>/[^\x00-\x1f\x7f]{{1,106}})|http://(?P<host>{_HOST}):(?P<port>[0-9]{{1,5}})(?:/RPC2)?/?"
)
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|::1")
_NOT_XML = bytes(code for code in range(32) if code not in b"\t\n\r")
_TO_MARKS = bytes.maketrans(_NOT_XML, b"?" * len(_NOT_XML))
_NO_CHARACTERS = re.compile(rb"\xef\xbf[\xbe\xbf]|\xed[\xa0-\xbf][\x80-\xbf]")
_LISTENING = "0A"
_HEADERS = {"Content-Type": "text/xml", "Accept": "text/xml", "Connection": "close"}


class Place(NamedTuple):
    """Where a supervisord is asked: a socket's path, or host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        """As bots.json has it."""
        return f"unix://{self.path}" if self.path else f"http://{self._bracketed}:{self.port}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def is_loopback(self) -> bool:
        """Whether nothing of it leaves this machine."""
        return bool(self.path or _LOOPBACK.fullmatch(self.host))


def place_of(text: str) -> Place | None:
    """What `text` names; None if it names no server. No part of it can be taken for an option or by a shell."""
    found = _FORMS.fullmatch(text)
    if found is None or ".." in (found["path"] or "").split("/"):
        return None
    if found["path"]:
        return Place(path=found["path"])
    port = int(found["port"])
    return Place(host=found["host"].strip("[]"), port=port) if 0 < port < 1 << 16 else None


def _server(value: object) -> object:
    if isinstance(value, str) and place_of(value) is None:
        raise PydanticCustomError("server", HOW)
    return value


Server = Annotated[
    str, BeforeValidator(_server), WithJsonSchema({"type": "string", "pattern": "^(unix|http)://[^\\s@-][^\\s@]*$"})
]
"""Where bots.json says that a supervisord answers."""


class Login(NamedTuple):
    """What is said to be let in; the values are read at the last moment and never shown."""

    username_env: str = ""
    password_env: str = ""
    env_file: str = ""
    """An absolute path: where the variables may be if they are not set."""

    def header(self) -> dict[str, str]:
        """Raises EngineError naming the variable that is not set, or the file that cannot be read."""
        if not self.username_env:
            return {}
        given: Mapping[str, str] = os.environ
        if self.env_file and not {self.username_env, self.password_env} <= os.environ.keys():
            given = {**self._from_file(), **os.environ}
        for variable in (self.username_env, self.password_env):
            if variable not in given:
                raise EngineError(f"${variable}, which names supervisord's login, is not set where botkeep runs.")
        username, password = given[self.username_env], given[self.password_env]
        token = base64.b64encode(f"{username}:{password}".encode("utf-8", "surrogateescape")).decode()
        register_secrets([password, token])
        return {"Authorization": f"Basic {token}"}

    def _from_file(self) -> Mapping[str, str]:
        try:
            return load_env_file(Path(self.env_file))
        except BotkeepError as error:
            raise EngineError(str(error)) from error


class Address(NamedTuple):
    """A server and the login that it wants. Bots with the same one are asked about together."""

    place: Place
    login: Login = Login()

    def __str__(self) -> str:
        return str(self.place)


class FaultError(EngineError):
    """supervisord understood, and said no."""

    def __init__(self, address: Address, code: int, said: str) -> None:
        self.code = code
        self.said = clean(said, 300)
        """Its own words, with the name of the fault before them."""
        super().__init__(f"supervisord at {address} says: {self.said}.")


@dataclass
class Clock:
    """What is left of a conversation: seconds and bytes."""

    address: Address
    seconds: float
    most: int = BYTES
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.seconds

    def left(self) -> float:
        """Seconds. Raises EngineError when there are none."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> EngineError:
        """What to raise when they were not enough."""
        return EngineError(f"supervisord at {self.address} gave no complete answer within {self.seconds:.0f} s.")

    def took(self, count: int) -> int:
        """Note what came. Raises EngineError when it is more than any supervisord has to say."""
        self.most -= count
        if self.most < 0:
            raise EngineError(f"What answers at {self.address} does not stop talking: its answer is too long.")
        return count


class _Socket(socket.socket):
    """Each wait ends with the conversation."""

    clock: Clock

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(self.clock.left())
        try:
            return self.clock.took(super().recv_into(*arguments))
        except TimeoutError as error:
            raise self.clock.over() from error

    def sendall(self, *arguments: Any) -> None:
        self.settimeout(self.clock.left())
        try:
            super().sendall(*arguments)
        except TimeoutError as error:
            raise self.clock.over() from error


class _Connection(http.client.HTTPConnection):
    """Over a socket that was connected already."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__("supervisor")
        self.sock = connected


@dataclass
class Client:
    """One supervisord. Each call is a conversation of its own; `seconds` hold for the whole of it."""

    address: Address
    peer: int | None = None
    """The user whom the server at this machine's own socket belongs to, once it was asked; None: not known."""

    def call(self, method: str, *params: Any, seconds: float) -> Any:
        """What a method returns. Raises FaultError, EngineError."""
        import xmlrpc.client

        clock = Clock(self.address, seconds)
        body = xmlrpc.client.dumps(params, method).encode()
        return self._understood(self._answer(body, clock))

    def calls(self, *wanted: tuple[Any, ...], seconds: float) -> list[Any]:
        """What several methods return, each given as (method, *params), in one question; FaultErrors among them."""
        asked = [{"methodName": method, "params": list(params)} for method, *params in wanted]
        found = self.call("system.multicall", asked, seconds=seconds)
        if not isinstance(found, list) or len(found) != len(wanted):
            raise self._no_supervisord("its answer is none to the question")
        return [self._fault(one) or one for one in found]

    def _fault(self, found: Any) -> FaultError | None:
        if not isinstance(found, dict) or not {"faultCode", "faultString"} <= found.keys():
            return None
        return FaultError(self.address, _number(found["faultCode"]), str(found["faultString"]))

    def _answer(self, body: bytes, clock: Clock) -> bytes:
        headers = {**_HEADERS, **self.address.login.header()}
        connection = _Connection(self._connected(clock))
        try:
            connection.request("POST", "/RPC2", body, headers)
            with closing(connection.getresponse()) as response:
                if response.status != 200:
                    raise self._refused(response.status)
                return self._read(response)
        except http.client.RemoteDisconnected as error:
            raise self._broke_off() from error
        except (http.client.HTTPException, ValueError) as error:
            raise self._no_supervisord("it does not talk HTTP") from error
        except OSError as error:
            raise self._cannot(error, clock) from error
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        """Piece by piece: whoever announces a terabyte is not given the memory for it."""
        pieces = []
        while piece := response.read1(PIECE):
            pieces.append(piece)
        if response.length:
            raise self._broke_off()
        return b"".join(pieces)

    def _broke_off(self) -> EngineError:
        return EngineError(f"supervisord at {self.address} broke off before it had answered.")

    def _understood(self, data: bytes) -> Any:
        """What the document holds. Output of bots is passed on as it is, though XML knows no such signs."""
        import xmlrpc.client
        from xml.parsers.expat import ExpatError

        if b"<!DOCTYPE" in data[:1000]:
            raise self._no_supervisord("its answer is no XML-RPC")
        legible = _NO_CHARACTERS.sub(b"???", data.translate(_TO_MARKS))
        try:
            (found,), _ = xmlrpc.client.loads(legible)
        except xmlrpc.client.Fault as fault:
            raise FaultError(self.address, _number(fault.faultCode), str(fault.faultString)) from fault
        except (ExpatError, xmlrpc.client.Error, ValueError, TypeError, LookupError, AttributeError) as error:
            raise self._no_supervisord("its answer is no XML-RPC") from error
        return found

    # ------------------------------------------------------------------------------------------------ connecting

    def _connected(self, clock: Clock) -> _Socket:
        try:
            if self.address.place.path:
                connection = self._dial(socket.AF_UNIX, self.address.place.path, clock)
                _, self.peer, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                return connection
            connection = self._to_port(clock)
            self.peer = listener_of(self.address.place)
        except OSError as error:
            raise self._cannot(error, clock) from error
        return connection

    def _dial(self, family: int, where: Any, clock: Clock) -> _Socket:
        connection = _Socket(family, socket.SOCK_STREAM)
        connection.clock = clock
        connection.settimeout(clock.left())
        try:
            connection.connect(where)
        except OSError:
            connection.close()
            raise
        return connection

    def _to_port(self, clock: Clock) -> _Socket:
        """The first address that answers. A name is looked up in a thread of its own: resolvers keep no deadline."""
        place, found = self.address.place, list[tuple[int, Any]]()

        def look_up() -> None:
            with suppress(OSError, UnicodeError):
                answers = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
                found.extend((one[0], one[4]) for one in answers)

        thread = threading.Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(clock.left())
        problem: OSError = OSError("the name of its host is not known")
        for family, where in tuple(found):
            try:
                return self._dial(family, where, clock)
            except OSError as error:
                problem = error
        raise problem

    # ------------------------------------------------------------------------------------------------ failing

    def _cannot(self, error: OSError, clock: Clock) -> EngineError:
        if isinstance(error, TimeoutError):
            return clock.over()
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            return self._broke_off()
        advice = {
            FileNotFoundError: "Is it running?",
            ConnectionRefusedError: "Is it running?",
            PermissionError: "`chmod` and `chown` of its [unix_http_server] say who may.",
        }.get(type(error), "")
        what = clean(error.strerror or str(error), 200).rstrip(".")
        return EngineError(f"supervisord cannot be reached at {self.address}: {what}. {advice}".rstrip())

    def _refused(self, status: int) -> EngineError:
        login = self.address.login
        if status == 401 and not login.username_env:
            return EngineError(
                f"supervisord at {self.address} wants a user name and a password. Name the variables that hold them: "
                '"username_env" and "password_env".'
            )
        if status == 401:
            return EngineError(
                f"supervisord at {self.address} refuses the user name and password that ${login.username_env} and "
                f"${login.password_env} hold."
            )
        if status == 500:
            return EngineError(f"supervisord at {self.address} failed over the question; its own log says how.")
        return self._no_supervisord(f"HTTP status {status}")

    def _no_supervisord(self, why: str) -> EngineError:
        return EngineError(f"What answers at {self.address} is not supervisord: {why}.")


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def listener_of(place: Place) -> int | None:
    """The user whom the program belongs to that listens at a port of this machine; None: not known."""
    if not place.is_loopback:
        return None
    users = {user for name in ("/proc/net/tcp", "/proc/net/tcp6") for user in _listeners(name, place.port)}
    return users.pop() if len(users) == 1 else None


def _listeners(name: str, port: int) -> Sequence[int]:
    try:
        with open(name) as file:
            lines = [line.split() for line in file][1:]
    except OSError:
        return ()
    return [int(line[7]) for line in lines if line[3] == _LISTENING and int(line[1].rpartition(":")[2], 16) == port]
