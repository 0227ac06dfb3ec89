"""Times, numbers, symbols and words written as a file already writes them: a sample of each says how.

What was written is read again before it is believed: an amount of money or a time that would come back as another one
is not written at all.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal

from .columns import moment, money, side_of, split_symbol


class UnwritableError(Exception):
    """Why a value cannot be written. The text is a phrase: `its time cannot be ...`."""


_ISO = re.compile(
    r"\d{4}(?P<dash>[-/.])\d\d[-/.]\d\d"
    r"(?:(?P<t>[T ])\d\d:\d\d(?P<s>:\d\d)?(?:(?P<point>[.,])(?P<f>\d{1,9}))?"
    r"(?P<gap> ?)(?P<z>Z|UTC|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_EPOCH = re.compile(r"(?P<whole>\d{9,19})(?:\.(?P<f>\d{1,9}))?", re.ASCII)
_FIGURE = re.compile(
    r"(?P<before>[$€£]? ?)\d{1,18}(?:[.,](?P<f>\d{1,40}))?(?:[eE][+-]?\d{1,2})?(?P<after> ?(?:[$€£]|[A-Z]{3,6})?)",
    re.ASCII,
)
_OPPOSITES = (
    ("buy", "sell"), ("b", "s"), ("bid", "ask"), ("long", "short"), ("enter_long", "exit_long"),
    ("open_long", "close_long"), ("exit_short", "enter_short"), ("close_short", "open_short"),
    ("buy_to_cover", "sell_short"), ("cover", "short"),
)  # fmt: skip
"""The word of a buy, and the word of a sell that goes with it."""


# --- times -------------------------------------------------------------------------------------------------------


def time_like(at: datetime, sample: str, zone: tzinfo = UTC) -> str:
    """A time in the form of `sample` (empty: ISO 8601 with its zone), in `zone` where that names none.

    Digits that the form has not are left out. Raises UnwritableError: it would be read as another time (an hour that a
    zone has twice), or the sample is none.
    """
    if not sample:
        return at.astimezone(UTC).isoformat()
    if found := _ISO.fullmatch(sample):
        text, step = _calendar_like(at, found, zone)
    elif found := _EPOCH.fullmatch(sample):
        text, step = _epoch_like(at, found)
    else:
        raise UnwritableError("the file's other rows show no time to write its time like")
    read = moment(text, zone)
    if read is None or not timedelta() <= at - read < step:
        raise UnwritableError(f"its time cannot be written in the way of {sample}")
    return text


def _calendar_like(at: datetime, form: re.Match[str], zone: tzinfo) -> tuple[str, timedelta]:
    local = at.astimezone(_offset(form["z"], zone))
    text = local.strftime(f"%Y{form['dash']}%m{form['dash']}%d")
    if form["t"] is None:
        return text, timedelta(days=1)
    text += form["t"] + local.strftime("%H:%M:%S" if form["s"] else "%H:%M")
    digits = min(len(form["f"] or ""), 6)
    if form["f"]:
        text += form["point"] + f"{local.microsecond:06}"[:digits].ljust(len(form["f"]), "0")
    step = timedelta(microseconds=10 ** (6 - digits)) if form["s"] else timedelta(minutes=1)
    return text + form["gap"] + (form["z"] or ""), step


def _offset(written: str | None, zone: tzinfo) -> tzinfo:
    if written is None:
        return zone
    if written in ("Z", "UTC"):
        return UTC
    digits = written[1:].replace(":", "").ljust(4, "0")
    span = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-span if written[0] == "-" else span)


def _epoch_like(at: datetime, form: re.Match[str]) -> tuple[str, timedelta]:
    """Seconds, milli-, micro- or nanoseconds, as `columns.moment` tells them apart by their digits."""
    places = next(places for digits, places in ((10, 0), (13, 3), (16, 6), (19, 9)) if len(form["whole"]) <= digits)
    micro = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    if places == 0 and form["f"]:
        digits = min(len(form["f"]), 6)
        fraction = f"{micro % 1_000_000:06}"[:digits].ljust(len(form["f"]), "0")
        return f"{micro // 1_000_000}.{fraction}", timedelta(microseconds=10 ** (6 - digits))
    return str(micro * 10**places // 1_000_000), timedelta(microseconds=max(1, 10 ** (6 - places)))


# --- numbers -----------------------------------------------------------------------------------------------------


def number_like(value: Decimal, sample: str, *, decimal_comma: bool = False) -> str:
    """The exact number, with the sign of a currency and the zeros at the end of `sample`.

    Raises UnwritableError where it has more digits than a number in a file may have.
    """
    form = _FIGURE.fullmatch(sample.strip().lstrip("+-"))
    text = format(abs(value), "f")
    whole, _, decimals = text.partition(".")
    wanted = form["f"] or "" if form else ""
    if wanted.endswith("0"):
        decimals = decimals.rstrip("0").ljust(len(wanted), "0")
    text = f"{whole}.{decimals}" if decimals else whole
    before, after = (form["before"], form["after"]) if form else ("", "")
    text = ("-" if value < 0 else "") + before + text + after
    if money(text) != value:
        raise UnwritableError("one of its numbers has too many digits")
    return text.replace(".", ",") if decimal_comma else text


# --- words -------------------------------------------------------------------------------------------------------


def symbol_like(symbol: str, quote: str, sample: str) -> str:
    """BTC/USDT as `BTCUSDT`, `BTC-USDT`, `btc_usdt` or `BTC/USDT:USDT`, whichever way `sample` is written.

    Raises UnwritableError where the symbol does not say its two currencies and is written in another way.
    """
    if not sample or symbol == sample:
        return symbol
    base, own = split_symbol(symbol)
    theirs = split_symbol(sample)
    own = own or quote.upper()
    if not own or not theirs[1]:
        raise UnwritableError(f"it is not clear how {symbol} is written in this file")
    head, colon, settle = sample.partition(":")
    mark = next((mark for mark in "/-_" if mark in head), "")
    written = base + mark + own + (colon + own if colon and settle.upper() == theirs[1] else "")
    return written.lower() if sample.islower() else written


def side_like(side: str, sample: str) -> str:
    """`buy` or `sell` in the word, case and prefix of `sample`. Raises UnwritableError where it has no counterpart."""
    if not sample or side_of(sample) == side:
        return sample or side
    prefix, dot, word = sample.strip().rpartition(".")
    plain = word.lower().replace(" ", "_").replace("-", "_")
    pair = next((pair for pair in _OPPOSITES if plain in pair), None)
    if pair is None:
        raise UnwritableError(f"it is not clear how a {side} is written in this file")
    other = pair[1] if plain == pair[0] else pair[0]
    spaced = other.replace("_", " " if " " in word else "-" if "-" in word else "_")
    return prefix + dot + (spaced.upper() if word.isupper() else spaced.title() if word.istitle() else spaced)
