"""What a cause in a log is about, coarser than its signature: what several bots may share, or the machine explain."""

from __future__ import annotations

from enum import StrEnum

from .model import Cause, CauseClass, Fault


class CauseKind(StrEnum):
    """What a cause is about."""

    RATE = "rate"
    """Too many requests: shared by all that use one address."""
    KEY = "key"
    EXCHANGE = "exchange"
    """The exchange, or the way to it, does not serve requests."""
    PLACE = "place"
    """The exchange does not serve this address's country."""
    CLOCK = "clock"
    DNS = "dns"
    DISK = "disk"
    MEMORY = "memory"
    OWN = "own"
    """The bot's own affair."""


_BY_FAULT = {
    Fault.API_RATE_LIMITED: CauseKind.RATE,
    Fault.API_KEY_REJECTED: CauseKind.KEY,
    Fault.DISK_FULL: CauseKind.DISK,
    Fault.OUT_OF_MEMORY: CauseKind.MEMORY,
}
# Words of a signature's id, for what has no fault of its own.
_OF_THE_HOST = {
    "clock": CauseKind.CLOCK, "timestamp": CauseKind.CLOCK, "recv": CauseKind.CLOCK,
    "dns": CauseKind.DNS, "resolution": CauseKind.DNS, "resolver": CauseKind.DNS, "disk": CauseKind.DISK,
}  # fmt: skip
_PLACE = frozenset({"geo", "place", "location", "country"})
_NOT_THE_EXCHANGE = frozenset({"mqtt", "broker", "redis", "telegram", "ready", "database"})
"""Waiting for something else than the exchange."""


def kind_of(cause: Cause) -> CauseKind:
    """By its fault where it has one; else by its class and the words of its signature's id."""
    if cause.fault in _BY_FAULT:
        return _BY_FAULT[cause.fault]
    words = set(cause.signature.split("-"))
    if cause.klass is CauseClass.HOST:
        return next((kind for word, kind in _OF_THE_HOST.items() if word in words), CauseKind.OWN)
    if cause.klass is CauseClass.STOP and words & _PLACE:
        return CauseKind.PLACE
    if cause.klass is CauseClass.WAIT and cause.fault is None and not words & _NOT_THE_EXCHANGE:
        return CauseKind.EXCHANGE
    return CauseKind.OWN
