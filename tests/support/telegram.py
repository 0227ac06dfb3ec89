"""A stand-in for api.telegram.org: the real host name, TLS and HTTP, reached as through a company's proxy.

Its answers are Telegram's own, and it refuses what Telegram refuses: markup that cannot be read, more than 4,096
UTF-16 units, a token or a chat that it does not know. `plan` makes it behave badly, one message after the other.
"""

from __future__ import annotations

import datetime as dt
import html
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOST = "api.telegram.org"
TOKEN = "123456789:" + "AbCdEfGhIj" * 3 + "KlMnO"
OTHER = "987654321:" + "ZyXwVuTsRq" * 3 + "PoNmL"
CHATS = ("1001", "1002", "-1003")
LONGEST = 4096
_TAG = re.compile(r"</?(b|i|u|s|a|code|pre|blockquote|tg-spoiler)( [^<>]*)?>")


@dataclass(frozen=True)
class Behaviour:
    """How one message is answered."""

    kind: str = "ok"
    """ok, refuse, silence, drop (it arrives, and the connection is cut), hang (it arrives; no answer until `release`),
    drip, redirect."""
    status: int = 200
    description: str = ""
    retry_after: int | None = None


OK = Behaviour()
SILENCE = Behaviour("silence")
DROP = Behaviour("drop")
DRIP = Behaviour("drip")
REDIRECT = Behaviour("redirect", 302)


def limited(seconds: int) -> Behaviour:
    """429, as Telegram says it."""
    return Behaviour("refuse", 429, f"Too Many Requests: retry after {seconds}", seconds)


def broken(status: int = 500) -> Behaviour:
    """A fault of the service."""
    return Behaviour("refuse", status, "Internal Server Error")


@dataclass(frozen=True)
class Arrived:
    """What people see in a chat."""

    token: str
    chat: str
    text: str
    method: str = "sendMessage"
    silent: bool = False


@dataclass
class Telegram:
    """What it knows, how it will behave, and what arrived."""

    folder: Path
    tokens: dict[str, tuple[str, ...]] = field(default_factory=lambda: {TOKEN: CHATS, OTHER: CHATS})
    arrived: list[Arrived] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Path of every request, accepted or not."""
    visited: list[str] = field(default_factory=list)
    """What was asked of the place that it redirects to."""
    port: int = 0
    _plan: list[Behaviour] = field(default_factory=list)
    _always: Behaviour = OK
    _lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def plan(self, *behaviours: Behaviour, then: Behaviour = OK) -> None:
        """How the next messages are answered, and how all after them."""
        with self._lock:
            self._plan, self._always = list(behaviours), then

    def next(self) -> Behaviour:
        """Of the message that has just come."""
        with self._lock:
            return self._plan.pop(0) if self._plan else self._always

    def texts(self, chat: str = CHATS[0]) -> list[str]:
        """What people see in one chat."""
        return [one.text for one in self.arrived if one.chat == chat]

    @property
    def environment(self) -> dict[str, str]:
        """What leads a program here."""
        return {
            "HTTPS_PROXY": f"http://127.0.0.1:{self.port}",
            "REQUESTS_CA_BUNDLE": str(self.folder / "ca.pem"),
            "NO_PROXY": "127.0.0.1,localhost",
        }


@contextmanager
def telegram(folder: Path) -> Iterator[Telegram]:
    """A stand-in that runs until the block ends; its certificates are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _certificates(folder)
    known = Telegram(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server = _Server(("127.0.0.1", 0), _Handler)
    server.known, server.context = known, context
    known.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield known
    finally:
        known.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    known: Telegram
    context: ssl.SSLContext

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that was killed in the middle is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 30

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: pytest shows what failed."""

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        with suppress(OSError):
            self.connection.close()  # the one with TLS: the server only knows the one below it

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.rfile.close()
        self.wfile.close()
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")  # type: ignore[assignment]
        self.wfile = self.connection.makefile("wb", 0)  # type: ignore[assignment]
        self.close_connection = False

    def do_GET(self) -> None:
        self.server.known.visited.append(self.path)
        self._json(200, {"ok": True})

    def do_POST(self) -> None:
        known = self.server.known
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Host", "").partition(":")[0] != HOST:
            known.visited.append(self.path)
            self._json(200, {"ok": True})
            return
        known.asked.append(self.path)
        match = re.fullmatch(r"/bot([^/]+)/(\w+)", self.path)
        if match is None or match[1] not in known.tokens:
            self._refuse(401, "Unauthorized")
            return
        self._message(match[1], match[2], _fields(self.headers, body))

    def _message(self, token: str, method: str, fields: dict[str, Any]) -> None:
        known, chat = self.server.known, str(fields.get("chat_id", ""))
        if chat not in known.tokens[token]:
            self._refuse(400, "Bad Request: chat not found")
            return
        text = str(fields.get("text", fields.get("caption", "")))
        shown = _parsed(text) if fields.get("parse_mode") == "HTML" else text
        if flaw := _flaw(shown, method, fields):
            self._refuse(400, flaw)
            return
        behaviour = known.next()
        if behaviour.kind in ("ok", "drop", "drip", "hang"):
            silent = bool(fields.get("disable_notification"))
            known.arrived.append(Arrived(token, chat, shown or "", method, silent))
        self._behave(behaviour)

    def _behave(self, one: Behaviour) -> None:
        if one.kind == "hang":
            self.server.known.release.wait(30)
        if one.kind in ("ok", "hang"):
            self._json(200, {"ok": True, "result": {"message_id": len(self.server.known.arrived)}})
        elif one.kind == "refuse":
            self._refuse(one.status, one.description, one.retry_after)
        elif one.kind == "redirect":
            self.send_response(one.status)
            self.send_header("Location", f"https://elsewhere.example{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif one.kind == "drip":
            self._drip()
        else:
            if one.kind == "silence":
                self.server.known.over.wait(30)
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _drip(self) -> None:
        """An answer that never ends: a byte now and then keeps every timeout of a read away."""
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            until = time.monotonic() + 30
            while time.monotonic() < until and not self.server.known.over.wait(0.1):
                self.wfile.write(b"x")
        self.close_connection = True

    def _refuse(self, status: int, description: str, retry_after: int | None = None) -> None:
        said: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
        if retry_after is not None:
            said["parameters"] = {"retry_after": retry_after}
        self._json(status, said)

    def _json(self, status: int, said: dict[str, Any]) -> None:
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _fields(headers: Message, body: bytes) -> dict[str, Any]:
    """Of a JSON body, or of a form with files."""
    kind = headers.get("Content-Type", "")
    if kind.startswith("multipart/form-data"):
        form = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        parts = [part for part in form.get_payload() if isinstance(part, Message)]
        return {str(part.get_param("name", header="content-disposition")): _content(part) for part in parts}
    fields = json.loads(body)
    json.dumps(fields, ensure_ascii=False).encode()  # half a surrogate pair is no text: Telegram's 400, here a failure
    return dict(fields)


def _content(part: Message) -> str:
    data = part.get_payload(decode=True)
    return data.decode("latin-1") if isinstance(data, bytes) else ""


def _parsed(text: str) -> str | None:
    """What people see of HTML as Telegram reads it; None: it cannot be read."""
    bare = _TAG.sub("", text)
    if re.search(r"[<>]|&(?!(lt|gt|amp|quot|#\d+|#x[0-9a-fA-F]+);)", bare.replace("&gt;", "").replace("&lt;", "")):
        return None
    return html.unescape(bare).replace("\r\n", "\n")


def _flaw(shown: str | None, method: str, fields: dict[str, Any]) -> str:
    if shown is None:
        return "Bad Request: can't parse entities"
    if method == "sendMessage" and not shown.strip():
        return "Bad Request: message text is empty"
    if method != "sendMessage" and not fields.get(method.removeprefix("send").removeprefix("Send").lower()):
        return "Bad Request: there is no file in the request"
    return "Bad Request: message is too long" if len(shown.encode("utf-16-le")) // 2 > LONGEST else ""


def _certificates(folder: Path) -> None:
    """An authority of our own, and a certificate of the real name by it."""
    now = dt.datetime.now(dt.UTC)
    authority, key = _name("botkeep's tests"), ec.generate_private_key(ec.SECP256R1())
    own = ec.generate_private_key(ec.SECP256R1())

    def signed(subject: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool) -> bytes:
        made = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(authority).public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )  # fmt: skip
        if ca:
            use = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                 "encipher_only", "decipher_only"), False,
            )  # fmt: skip
            made = made.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **use), critical=True)
        else:
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    (folder / "ca.pem").write_bytes(signed(authority, key.public_key(), ca=True))
    private = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + signed(_name(HOST), own.public_key(), ca=False))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
