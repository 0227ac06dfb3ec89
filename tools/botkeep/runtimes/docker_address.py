"""Where an engine of Docker's kind is asked: what bots.json or the environment says, checked before anybody uses it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from botkeep.fields import STRICT, Whole
from botkeep.model import EngineError
from botkeep.untrusted import clean

DEFAULT = "unix:///var/run/docker.sock"
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
_FORMS = re.compile(
    rf"(?P<unix>unix)://(?P<path>/[^\x00-\x1f\x7f]{{1,106}})"
    rf"|(?P<tcp>tcp)://(?P<tcp_host>{_HOST}):(?P<tcp_port>[0-9]{{1,5}})/?"
    rf"|(?P<ssh>ssh)://(?:(?P<user>{_USER})@)?(?P<ssh_host>{_HOST})(?::(?P<ssh_port>[0-9]{{1,5}}))?/?"
)
HOW = "write unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST"


class Place(NamedTuple):
    """A host, taken apart."""

    kind: str
    """unix, tcp or ssh."""
    path: str = ""
    host: str = ""
    port: int | None = None
    user: str = ""


def place_of(text: str) -> Place | None:
    """The host that `text` names; None if it names none. No part of it can be taken for an option or by a shell."""
    found = _FORMS.fullmatch(text)
    if found is None:
        return None
    port = found["tcp_port"] or found["ssh_port"]
    if port is not None and not 0 < int(port) < 1 << 16:
        return None
    host = (found["tcp_host"] or found["ssh_host"] or "").strip("[]")
    kind = found["unix"] or found["tcp"] or found["ssh"]
    return Place(kind, found["path"] or "", host, int(port) if port else None, found["user"] or "")


def _host(value: object) -> object:
    if isinstance(value, str) and place_of(value) is None:
        raise PydanticCustomError("host", HOW)
    return value


Host = Annotated[
    str, BeforeValidator(_host), WithJsonSchema({"type": "string", "pattern": "^(unix|tcp|ssh)://[^\\s-][^\\s]*$"})
]
_FILE = Annotated[str, Field(pattern=r"^/[^\x00-\x1f\x7f]+$", max_length=4000)]


class Tls(BaseModel):
    """Files for TLS, by their absolute paths. Whom we talk to is always checked."""

    model_config = STRICT

    ca: _FILE | None = Field(
        None, description="Whose word counts for the engine; if not given, the machine's own list."
    )
    cert: _FILE | None = Field(None, description="Ours.")
    key: _FILE | None = Field(None, description="Of our certificate.")

    @model_validator(mode="after")
    def _both(self) -> Tls:
        if (self.cert is None) != (self.key is None):
            raise PydanticCustomError("tls", "write both `cert` and `key`, or neither")
        return self


class EngineConfig(BaseModel):
    """What every bot in a container has: the engine that runs it, and how long it may take to end."""

    model_config = STRICT

    stop_grace: Whole = Field(
        30, ge=1, le=35, description="Seconds between SIGTERM and SIGKILL; a tool call must end within 50 s."
    )
    host: Host | None = Field(None, description="The engine; if not given, $DOCKER_HOST or its usual socket.")
    tls: Tls | None = Field(None, description="For tcp:// alone.")

    @model_validator(mode="after")
    def _only_tcp(self) -> EngineConfig:
        if self.tls is not None and not (self.host or "").startswith("tcp://"):
            raise PydanticCustomError("tls", "write `tls` only beside a `host` of tcp://HOST:PORT")
        return self


@dataclass(frozen=True)
class Address:
    """An engine: equal for two bots that the same one runs."""

    text: str
    tls: Tls | None = None

    @property
    def place(self) -> Place:
        """Taken apart."""
        found = place_of(self.text)
        if found is None:
            raise EngineError(f"$DOCKER_HOST is {clean(self.text, 80)}, which is no engine's address: {HOW}.")
        return found

    @property
    def is_here(self) -> bool:
        """Whether its processes can be this machine's: another one's pids mean nothing here."""
        return self.place.kind == "unix"

    def __str__(self) -> str:
        return clean(re.sub(r"(?<=://)[^@/]*@", "", self.text), 120)


def address_of(config: EngineConfig, environ: Mapping[str, str] = os.environ) -> Address:
    """Which engine runs the bot. Raises EngineError for an environment that names none."""
    address = Address(config.host, config.tls) if config.host else _from_environment(environ)
    address.place  # noqa: B018 - raises
    return address


def _from_environment(environ: Mapping[str, str]) -> Address:
    """As Docker's own command takes it: $DOCKER_HOST, and for tcp $DOCKER_TLS_VERIFY with $DOCKER_CERT_PATH."""
    text = environ.get("DOCKER_HOST") or DEFAULT
    folder = environ.get("DOCKER_CERT_PATH") or ""
    if not text.startswith("tcp://") or not (folder or environ.get("DOCKER_TLS_VERIFY")):
        return Address(text)
    folder = os.path.abspath(folder or os.path.expanduser("~/.docker"))
    files: dict[str, Any] = {key: f"{folder}/{key}.pem" for key in ("ca", "cert", "key")}
    return Address(text, Tls(**files))
