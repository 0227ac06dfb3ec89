"""Where people are told: what may stand under `notify` in bots.json, and which channels come of it.

An entry is an Apprise URL in which every secret is `${NAME}`; the values come from the file that `notify_env` names,
else from the environment. A Telegram URL with several chats is several channels: one chat that blocked the bot must
neither keep the others waiting nor have them told twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode

from . import untrusted

LIMIT = 2048
"""Characters of one entry."""
EXAMPLE = "tgram://${TELEGRAM_TOKEN}/${TELEGRAM_CHAT}"
VALUES = 'the values go into the file (mode 0600) that the top-level "notify_env" names'
TELEGRAM = "tgram"

_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,126}"
_PLACE = re.compile(rf"\$\{{({_NAME})\}}")
_ALONE = re.compile(rf"\$\{{({_NAME})\}}\Z")
_URL = re.compile(r"([a-z][a-z0-9]{0,30})://([!-~]+)\Z")
_USERINFO = re.compile(r"://[^/?#@]*:([^/?#@]*)@")
_PIECE = re.compile(r"[A-Za-z0-9_]{16,}")
_LONG = 20
"""Letters and digits in one run so long are a token; shorter ones if they mix capitals in."""


@dataclass(frozen=True)
class Channel:
    """One place where people are told. `key` holds no secret, and stays while entry and target do."""

    key: str
    entry: str
    """As it is written in bots.json."""
    url: str
    """With its secrets: for Apprise alone. Empty: see `problem`."""
    target: str = ""
    """Which of several chats, for people: `chat 2 of 3`."""
    problem: str = ""
    """Why nothing can be sent there: one sentence."""

    @property
    def name(self) -> str:
        """For people: without a secret."""
        shown = untrusted.clean(self.entry, 120)
        return f"{shown} ({self.target})" if self.target else shown

    @property
    def digest(self) -> str:
        """Of the whole URL: another one means that somebody mended it."""
        return _digest(self.url)


def flaw_in(entry: str) -> str | None:
    """What is wrong with one entry of `notify`, as `found ...; write ...`; None if nothing is."""
    shown = untrusted.clean(entry, 60)
    if len(entry) > LIMIT:
        return f"a text of {len(entry)} characters; write at most {LIMIT}"
    if secret := _literal_secret(entry):
        return (
            f"it holds {secret}, and secrets are never written here; write ${{NAME}} in its place, like {EXAMPLE}; "
            f"{VALUES}"
        )
    if _ALONE.match(entry):
        return None
    bare = _PLACE.sub("x", entry)
    url = _URL.match(bare)
    if url is None:
        return f'found "{shown}"; write an Apprise URL with its secrets as names, like {EXAMPLE}; {VALUES}'
    if "$" in bare:
        return f'found "{shown}"; write a name of a variable as ${{NAME}}'
    if url[1] == TELEGRAM and not _PLACE.sub("x", entry).rstrip("/").count("/") > 2 and "to=" not in bare:
        return f'found "{shown}"; name the chat too, like {EXAMPLE}: else whoever wrote to the bot first is told'
    return None


def _literal_secret(entry: str) -> str | None:
    """What kind of secret is written out in it. Names of variables are none."""
    bare = _PLACE.sub("", entry)
    userinfo = _USERINFO.search(bare)
    if userinfo and userinfo[1]:
        return "a password"
    without = re.sub(r"://[^/?#@]*@", "://", bare)
    if found := untrusted.looks_like_secret(f"notify={without}"):
        return found
    return "what looks like a token" if any(map(_is_token, _PIECE.findall(without.partition("://")[2]))) else None


def _is_token(piece: str) -> bool:
    digits, lower, upper = (re.search(kind, piece) is not None for kind in ("[0-9]", "[a-z]", "[A-Z]"))
    return digits and ((lower and upper) or ((lower or upper) and len(piece) >= _LONG))


def names_in(entries: Iterable[str]) -> set[str]:
    """The variables that these entries name."""
    return {name for entry in entries for name in _PLACE.findall(entry)}


def channels_of(entries: Iterable[str], values: Mapping[str, str]) -> Iterator[Channel]:
    """The channels of these entries, each once. What cannot be used is a channel with a `problem`."""
    for entry in dict.fromkeys(entries):
        missing = sorted(name for name in names_in([entry]) if not values.get(name))
        if missing:
            names = ", ".join(f"${{{name}}}" for name in missing)
            yield Channel(entry, entry, "", problem=f"{names} is set neither in notify_env nor in the environment.")
            continue
        yield from _split(entry, _filled(entry, values))


def _filled(entry: str, values: Mapping[str, str]) -> str:
    """With the values in their places: whole, where the entry is one name; else as parts of a URL."""
    alone = _ALONE.match(entry)
    if alone:
        return values[alone[1]].strip()
    return _PLACE.sub(lambda match: quote(values[match[1]].strip(), safe=","), entry)


def _split(entry: str, url: str) -> Iterator[Channel]:
    """One channel for each chat of a Telegram URL; for any other the one that it is."""
    if not _URL.match(url):
        yield Channel(entry, entry, "", problem="its variable holds no Apprise URL, like tgram://TOKEN/CHAT.")
        return
    chats = _chats(url) if url.startswith(f"{TELEGRAM}://") else None
    if chats is None:
        yield Channel(entry, entry, url)
        return
    if not chats.names:
        yield Channel(entry, entry, "", problem="it names no chat; write tgram://TOKEN/CHAT.")
    for number, name in enumerate(chats.names, 1):
        of = f"chat {number} of {len(chats.names)}" if len(chats.names) > 1 else ""
        yield Channel(f"{entry}#{_digest(name)}", entry, chats.url(name), of)


@dataclass(frozen=True)
class _Chats:
    """A Telegram URL in parts."""

    token: str
    names: tuple[str, ...]
    query: str

    def url(self, name: str) -> str:
        """The same for one chat."""
        return f"{TELEGRAM}://{self.token}/{quote(name, safe=':@-_')}/{'?' if self.query else ''}{self.query}"


def _chats(url: str) -> _Chats:
    """Chats stand in the path, and in `to`; each may hold several, with commas between them."""
    head, _, query = url.removeprefix(f"{TELEGRAM}://").partition("?")
    token, _, path = head.partition("/")
    asked = parse_qsl(query, keep_blank_values=True)
    written = [unquote(part) for part in path.split("/")] + [value for key, value in asked if key == "to"]
    names = [name.strip() for part in written for name in re.split(r"[,\s]+", part)]
    rest = urlencode([(key, value) for key, value in asked if key != "to"])
    return _Chats(unquote(token), tuple(dict.fromkeys(filter(None, names))), rest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
