"""Numbers, times, symbols and sides as bots write them, read strictly: a text that is none of ours is no number."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from functools import lru_cache

from ..model import BotkeepError

QUOTES = (
    "FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USDP", "DAI", "USD", "EUR", "GBP", "TRY", "BRL", "AUD", "JPY", "BTC",
    "ETH", "BNB",
)  # fmt: skip
"""Quote currencies that a symbol written in one word may end with, the longest first."""

# Bounded, for int(Decimal("1e1000000")) holds a core for a minute and a half; 40 decimals, for Python itself writes
# the float 0.0012345678901234567 with nineteen. float() would accept 1_000, inf, nan and full-width digits.
NUMBER = r"[+-]?\d{1,18}(?:[.]\d{1,40})?(?:[eE][+-]?\d{1,2})?"
_NUMBER = re.compile(NUMBER, re.ASCII)
_MONEY = re.compile(rf"(?:[$€£] ?)?({NUMBER})(?: ?(?:[$€£]|[A-Z]{{3,6}}))?|([+-])[$€£] ?({NUMBER})", re.ASCII)
# Only with a decimal point: in `1,234` the comma may be one.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3}){1,5}\.\d{1,40}", re.ASCII)

_ISO = re.compile(
    r"(\d{4})[-/.](\d\d)[-/.](\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?) ?(Z|UTC|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_EPOCH = re.compile(r"(\d{9,19})(\.\d{1,9})?", re.ASCII)
_START = datetime(1970, 1, 1, tzinfo=UTC)

_BUYS = frozenset(
    {"buy", "b", "bid", "long", "enter_long", "open_long", "exit_short", "close_short", "buy_to_cover", "cover"}
)
_SELLS = frozenset({"sell", "s", "ask", "short", "enter_short", "open_short", "exit_long", "close_long", "sell_short"})
NOT_FILLED = frozenset({"canceled", "cancelled", "rejected", "expired", "new", "open", "pending", "failed"})
NOTHING = frozenset({"None", "N/A", "NA", "-", "null"})
"""What programs write where there is no result yet."""
NAN = frozenset({"nan", "NaN", "NAN"})
"""What some write there too; but it may also come of a fault in their sums."""


def number(text: str) -> Decimal | None:
    """The exact number, or None where `text` is not one by our grammar."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def money(text: str) -> Decimal | None:
    """A number that may carry a currency sign or code, or thousands: `12.5$`, `-$3.20`, `1.5 USDT`, `1,234.50`."""
    if (plain := number(text)) is not None:
        return plain
    if _THOUSANDS.fullmatch(text):
        return Decimal(text.replace(",", ""))
    found = _MONEY.fullmatch(text.strip())
    if found is None:
        return None
    return Decimal(found[1]) if found[1] else Decimal(found[2] + found[3])


def moment(text: str, zone: tzinfo = UTC) -> datetime | None:
    """A time in UTC: ISO 8601 (`T` or a space), or seconds, milli-, micro- or nanoseconds since 1970. None: neither."""
    if found := _ISO.fullmatch(text):
        return _calendar(found, zone)
    if found := _EPOCH.fullmatch(text):
        return _since_epoch(found[1], found[2] or "")
    return None


def _calendar(found: re.Match[str], zone: tzinfo) -> datetime | None:
    year, month, day, clock, offset = found.groups()
    written = f"{year}-{month}-{day}T{(clock or '00:00').replace(',', '.')}"
    try:
        at = datetime.fromisoformat(written + ("+00:00" if offset in ("Z", "UTC") else offset or ""))
        return (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _since_epoch(whole: str, fraction: str) -> datetime | None:
    """The unit follows from the digits: seconds have 9 or 10 of them until the year 2286."""
    places = next((places for digits, places in ((10, 0), (13, 3), (16, 6), (19, 9)) if len(whole) <= digits), None)
    if places is None or (places and (fraction or len(whole) < 10 + places - 1)):
        return None
    micro = int(whole) * 1_000_000 // 10**places
    return _START + timedelta(microseconds=micro + round(Decimal("0" + (fraction or ".0")) * 1_000_000))


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """The zone of that name. Raises BotkeepError if this machine does not know it."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # most files name no zone: the check stays fast

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BotkeepError(f"The time zone {name!r} is not known here. Write one as in Europe/Berlin.") from error


@lru_cache(maxsize=1024)
def side_of(text: str) -> str | None:
    """`buy` or `sell`, or None."""
    word = text.strip().rpartition(".")[2].lower().replace(" ", "_").replace("-", "_")
    return "buy" if word in _BUYS else "sell" if word in _SELLS else None


def is_filled(status: str) -> bool:
    """Whether an order with this status, which is not blank, makes a trade."""
    return status.strip().lower() not in NOT_FILLED


@lru_cache(maxsize=1024)
def plain_market(name: str) -> str:
    """Letters and digits, in lower case: `Gate.io`, `gate_io` and `gateio` are one market."""
    return "".join(filter(str.isalnum, name.lower()))


_SEPARATORS = str.maketrans("", "", "/-_")


def plain_symbol(symbol: str) -> str:
    """BTC/USDT, BTC-USDT and BTCUSDT are one; BTC/USDT:USDT, a future of it, is another."""
    return symbol.translate(_SEPARATORS).upper()


@lru_cache(maxsize=1024)
def split_symbol(symbol: str) -> tuple[str, str]:
    """(base, quote) of `BTC/USDT`, `BTC-USDT`, `BTC_USDT`, `BTC/USDT:USDT` or `BTCUSDT`; quote empty if not said."""
    text = symbol.strip().upper().partition(":")[0]
    for mark in ("/", "-", "_"):
        base, found, quote = text.partition(mark)
        if found and base and quote:
            return base, quote.partition(mark)[0]
    quote = next((quote for quote in QUOTES if text.endswith(quote) and len(text) > len(quote)), "")
    return text[: len(text) - len(quote)], quote
