"""`python -I -m botkeep.courier`: the program that hands messages to Apprise, one question a line, one answer a line.

A process of its own, so that a service which never ends its answer is ended with it, that no round and no watcher
carries Apprise and its hundred plugins in memory, and that addresses with their tokens are gone when it ends.
Questions and answers are JSON objects; see `_measure` and `_send`. It follows no redirect, tries nothing twice, and
reads no more of an answer than it needs.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .durable import write_atomic

if TYPE_CHECKING:
    from apprise.plugins.base import NotifyBase
    from requests import PreparedRequest, Response

ANSWER_LIMIT = 64 << 10
"""Bytes of an answer that are read."""
TEXT_LIMIT = 200
MEMORY = 1 << 30
AFTER = 5
"""Seconds by which an orphan outlives the time it was given."""
BLANK = "\u200b"
"""Stands in an empty line, which Telegram's plugin would take away: nobody sees it."""
LIMITED, GONE_AWAY = 429, (408, 425)
FORWARDED = range(300, 400)


@dataclass
class Seen:
    """What came of one HTTP request."""

    status: int | None = None
    """None: no answer."""
    text: str = ""
    retry_after: float | None = None
    left: bool = True
    """The request was written, or may have been: without an answer nobody knows what became of it."""


def main() -> None:
    """Answer until the questions end."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a plugin prints is no answer
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.getLogger().addHandler(_Said.handler)
    for line in sys.stdin:
        asked = json.loads(line)
        signal.alarm(int(asked["seconds"]) + AFTER)
        answer = _measure(asked) if asked["do"] == "measure" else _send(asked)
        signal.alarm(0)
        if asked.get("slip"):
            _leave_word(asked, answer)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _leave_word(asked: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """What became of it, for whoever comes after a sender that was killed while it waited for the answer."""
    word = {"ticket": asked["ticket"], "rule": answer["rule"], "doubt": answer["doubt"]}
    with suppress(OSError):
        write_atomic(Path(asked["slip"]), json.dumps(word).encode())


class _Said(logging.Handler):
    """Keeps the newest warning: the only word of services that are not asked over HTTP."""

    handler: _Said

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.newest = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.newest = record.getMessage()


_Said.handler = _Said()


# --- asking Apprise ----------------------------------------------------------------------------------------------


def _measure(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a message to this address may be. Limits in the service's own units, which are characters at the least."""
    service = _service(asked)
    if service is None:
        return {"ok": False, "text": _Said.handler.newest}
    return {
        "ok": True,
        "service": str(service.service_name),
        "limit": int(service.body_maxlen),
        "title": int(service.title_maxlen),
        "attachments": bool(service.attachment_support),
    }


def _service(asked: Mapping[str, Any]) -> NotifyBase | None:
    from apprise import Apprise, AppriseAsset, OverflowMode

    _Said.handler.newest = ""
    asset = AppriseAsset(
        app_id="botkeep", app_desc="botkeep", http_redirects=False, interpret_escapes=False, interpret_emojis=False
    )
    service = Apprise.instantiate(asked["url"], asset=asset, suppress_exceptions=True)
    if service is not None:
        service.redirects = False  # also where the URL says otherwise: the token stands in the path
        service.overflow_mode = OverflowMode.UPSTREAM  # the text was split before
        service.retry = 0  # when to try again is the outbox's affair
        service.socket_connect_timeout = service.socket_read_timeout = float(asked["seconds"])
    return service


def _send(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Hand one message over, once. Says what is known of it: see `_judged`."""
    from apprise import Apprise, NotifyFormat

    service = _service(asked)
    if service is None:
        return {"rule": "refused", "text": f"Apprise cannot use this address. {_Said.handler.newest}", "doubt": False}
    seen = _watched()
    holder = Apprise(asset=service.asset)
    holder.add(service)
    body = str(asked["body"])
    if body and service.resolve_format(NotifyFormat.TEXT) == NotifyFormat.HTML:
        body = "\n".join(line or BLANK for line in body.split("\n"))
    try:
        arrived = holder.notify(
            body=body,
            title=asked["title"] if service.title_maxlen > 0 else "",
            notify_type=asked["type"],
            body_format=NotifyFormat.TEXT,
            attach=asked["attach"] or None,
        )
    except Exception as error:  # noqa: BLE001 - whatever one of a hundred plugins does is that channel's failure
        text = f"Apprise failed: {type(error).__name__}"
        return {"rule": "away", "text": text, "doubt": any(one.left for one in seen)}
    return _judged(arrived=bool(arrived), seen=seen)


def _judged(*, arrived: bool, seen: list[Seen]) -> dict[str, Any]:
    """{"rule", "text", "status", "retry_after", "doubt"}: doubt is whether it may have arrived all the same.

    sent; limited: too many, wait; refused: a person has to mend something; redirect; away: try again later.
    """
    bad = [one for one in seen if one.status is None or not 200 <= one.status < 300]
    if arrived and not bad:
        return {"rule": "sent", "text": "", "doubt": False}
    if not bad:
        said = _Said.handler.newest or "Apprise could not deliver it, and does not say why"
        return {"rule": "away", "text": said, "doubt": True}
    last = bad[-1]
    others = any(one.status is not None and 200 <= one.status < 300 for one in seen)
    unknown = last.left if last.status is None else last.status >= 500
    answer = {"rule": _rule(last.status), "text": last.text, "doubt": unknown or others}
    return answer | {"status": last.status, "retry_after": last.retry_after}


def _rule(status: int | None) -> str:
    if status is None or status >= 500 or status in GONE_AWAY:
        return "away"
    if status == LIMITED:
        return "limited"
    return "redirect" if status in FORWARDED else "refused"


# --- watching what the plugins ask -------------------------------------------------------------------------------


def _watched() -> list[Seen]:
    """From now on every request that a plugin makes through `requests` is in this list.

    Apprise gives a word of success only; whether to wait, and how long, stands in the answers that its plugins read.
    """
    import requests.sessions
    from requests.adapters import HTTPAdapter

    seen: list[Seen] = []

    class Watching(HTTPAdapter):
        def send(self, request: PreparedRequest, *args: Any, **how: Any) -> Response:
            one = Seen()
            seen.append(one)
            how["stream"] = True
            try:
                answer = super().send(request, *args, **how)
                _read(answer)
            except requests.RequestException as error:
                one.text, one.left = _why(error)
                raise
            _note(one, answer)
            return answer

    requests.sessions.HTTPAdapter = Watching  # type: ignore[attr-defined]
    return seen


def _read(answer: Response) -> None:
    """The beginning of the answer, as all of it: one without an end costs no memory."""
    from requests import ConnectionError as Broken
    from urllib3.exceptions import HTTPError

    try:
        content = answer.raw.read(ANSWER_LIMIT, decode_content=True)
    except (HTTPError, OSError) as error:
        raise Broken(error) from error
    finally:
        answer.raw.close()
    answer._content = content or b""  # noqa: SLF001 - what `content` gives; requests has no other way to bound it
    answer._content_consumed = True  # noqa: SLF001


def _note(one: Seen, answer: Response) -> None:
    one.status = answer.status_code
    said = _json(answer.content)
    one.text = _answered(answer, said)
    parameters = said.get("parameters")
    wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
    one.retry_after = _seconds(answer.headers.get("Retry-After") if wait is None else wait)


def _answered(answer: Response, said: Mapping[str, Any]) -> str:
    """`HTTP 401: Unauthorized`."""
    if answer.status_code in FORWARDED:
        from urllib.parse import urlsplit

        where = urlsplit(answer.headers.get("Location", "")).hostname or "somewhere else"
        return f"HTTP {answer.status_code}: it redirects to {where}, which is not followed: the address holds a secret"
    words = said.get("description") or said.get("message") or answer.reason or ""
    return f"HTTP {answer.status_code}: {words}"[:TEXT_LIMIT].removesuffix(": ")


def _json(content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _seconds(value: object) -> float | None:
    """Of a Retry-After; a date in it is not understood, and the usual pause is made."""
    text = str(value)
    return float(text) if text.isdecimal() and len(text) < 8 else None


_REASONS = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted", False),
    ("WRONG_VERSION_NUMBER", "it speaks no TLS", False),
    ("Tunnel connection failed", "the proxy does not let us through", False),
    ("NameResolution", "its name cannot be resolved", False),
    ("ConnectTimeout", "it cannot be reached in time", False),
    ("NewConnectionError", "the connection is refused", False),
    ("ReadTimeout", "it does not answer in time", True),
)
"""What an error's text holds, what that is for people, and whether the request had left by then."""


def _why(error: Exception) -> tuple[str, bool]:
    """Never the error's own text: it holds the address with its token."""
    found = repr(error)
    known = next(((words, left) for sign, words, left in _REASONS if sign in found), None)
    return known or ("the connection breaks off", True)


if __name__ == "__main__":
    main()
