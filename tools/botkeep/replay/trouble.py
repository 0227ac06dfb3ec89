"""What an exchange's refusal means and what to do: ccxt's errors as sentences that stand alone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from ..model import BotkeepError
from ..untrusted import clean
from .base import ReplayWaitError
from .session import AnswerError

MOST_WAIT = timedelta(days=30)
_BANNED = re.compile(r"banned until (\d{13})(?!\d)", re.ASCII)
_QUERY = re.compile(r"\?\S+")
"""Of an address: what was asked, signed. It tells a person nothing."""
_SECONDS = re.compile(r"\d{1,7}", re.ASCII)
_KEY_CODE = "-2015"


def as_botkeep(error: Exception, exchange: Any, name: str, now: datetime) -> BotkeepError:
    """The sentence for an error of ccxt (or of our session). `exchange`: the ccxt object, for its last headers."""
    import ccxt

    said = clean(_QUERY.sub("", str(error)), 200)
    if isinstance(error, AnswerError):
        return BotkeepError(f"The trades could not be read from {name}: {error}. Nothing was taken; ask again later.")
    if _KEY_CODE in said or isinstance(error, ccxt.AuthenticationError):
        return BotkeepError(
            f"{name} refuses the key: {said}. A person has to look: was it revoked, does it allow this server's "
            "address? A key that may only read is enough."
        )
    if isinstance(error, ccxt.RateLimitExceeded | ccxt.DDoSProtection):
        return _wait(said, exchange, name, now)
    if isinstance(error, ccxt.InvalidNonce):
        return BotkeepError(f"{name} finds our clock wrong: {said}. Set this machine's time (NTP) and ask again.")
    if isinstance(error, ccxt.NetworkError):
        return BotkeepError(f"{name} could not be reached: {said}. Nothing was taken; ask again later.")
    return BotkeepError(f"{name} did not answer with trades: {said}. Nothing was taken.")


def is_passing(error: Exception) -> bool:
    """Whether the same question may well be answered a moment later."""
    import ccxt

    if isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded | ccxt.InvalidNonce | ccxt.OnMaintenance):
        return False
    return isinstance(error, ccxt.NetworkError | AnswerError)


def _wait(said: str, exchange: Any, name: str, now: datetime) -> ReplayWaitError:
    until = _until(said, getattr(exchange, "last_response_headers", None) or {}, now)
    when = f"not before {until:%Y-%m-%d %H:%M:%SZ}" if until else "not for some minutes; it did not say how long"
    return ReplayWaitError(
        f"{name} was asked too often from this address and wants to be left alone: {said}. Ask again {when}.", until
    )


def _until(said: str, headers: Any, now: datetime) -> datetime | None:
    """A ban's end, else Retry-After (seconds or a date); None if neither is there or makes sense."""
    if found := _BANNED.search(said):
        return _sensible(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(found[1])), now)
    told = str(headers.get("Retry-After") or "").strip()
    if _SECONDS.fullmatch(told):
        return _sensible(now + timedelta(seconds=int(told)), now)
    try:
        at = parsedate_to_datetime(told)
    except (ValueError, TypeError, IndexError):
        return None
    return _sensible(at.astimezone(UTC), now) if at.tzinfo else None


def _sensible(at: datetime, now: datetime) -> datetime | None:
    return at if now < at <= now + MOST_WAIT else None
