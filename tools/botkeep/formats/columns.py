"""What the columns of a trade table mean, whatever file they come from: roles, numbers, times, symbols, sides."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from functools import lru_cache
from sys import intern

from ..model import BotkeepError, ClosedTrade, Fill
from .base import FormatOptions, TradeTable

ROLES: dict[str, tuple[str, ...]] = {
    "time": (
        "close_time", "close_date", "exit_time", "exit_date", "closed_at", "time", "timestamp", "date", "datetime",
        "executed_at", "created_at", "trade_time", "transact_time", "ts", "time_utc", "date_utc", "open_time",
        "open_date", "entry_time", "opened_at",
    ),
    "opened": ("open_time", "open_date", "entry_time", "entry_date", "opened_at"),
    "symbol": ("symbol", "pair", "trading_pair", "instrument", "ticker", "product_id", "coin", "market"),
    "market": ("exchange", "market", "venue", "connector"),
    "side": ("side", "trade_type", "direction", "action", "order_side", "buy_sell"),
    "price": (
        "fill_price", "avg_price", "average_price", "executed_price", "exec_price", "trade_price", "price", "rate",
    ),
    "amount": (
        "filled_qty", "executed_qty", "filled_amount", "executed_amount", "filled", "qty", "quantity", "amount", "size",
        "base_amount", "volume",
    ),
    "entry": ("entry_price", "open_rate", "open_price", "entry"),
    "exit": ("exit_price", "close_rate", "close_price", "exit"),
    "fee": ("fee", "fees", "commission", "fee_amount", "fee_cost", "fee_paid"),
    "fee_quote": ("trade_fee_in_quote", "fee_in_quote", "fee_quote"),
    "fee_currency": ("fee_asset", "fee_currency", "commission_asset", "fee_coin", "fee_token"),
    "pnl": (
        "close_profit_abs", "profit_abs", "realized_pnl", "realised_pnl", "closed_pnl", "net_pnl", "pnl_abs", "pnl",
        "net_profit", "profit_amount", "profit", "p_l", "pl",
    ),
    "id": ("trade_id", "exchange_trade_id", "fill_id", "exec_id", "execution_id", "tradeid", "id"),
    "order_id": ("order_id", "orderid", "exchange_order_id", "client_order_id"),
    "base": ("base_asset", "base_currency", "base"),
    "quote": ("quote_asset", "quote_currency", "stake_currency", "settle_currency", "quote"),
    "status": ("status", "state"),
}  # fmt: skip
"""Role -> the header names that mean it, the most telling first. Percentages and ratios are no money: not here."""

NUMBERS = ("price", "amount", "entry", "exit", "fee", "fee_quote", "pnl")
"""Roles whose cells are numbers."""

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
_NOT_FILLED = frozenset({"canceled", "cancelled", "rejected", "expired", "new", "open", "pending", "failed"})


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


# --- roles -------------------------------------------------------------------------------------------------------


def plain_name(name: str) -> str:
    """`Trade ID`, `tradeId` and `trade_id` are one name."""
    words = re.sub(r"([a-z0-9])([A-Z][a-z])", r"\1_\2", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def roles_of(names: Sequence[str], chosen: Mapping[str, str]) -> dict[str, int]:
    """Role -> column, by header names and by what the configuration chooses.

    A choice that names no column is left out: `require` says so where the column is needed.
    """
    place = {plain_name(name): column for column, name in reversed(list(enumerate(names)))}
    roles = {
        role: next(place[name] for name in known if name in place)
        for role, known in ROLES.items()
        if any(name in place for name in known)
    }
    if "pnl" not in roles and (named := _pnl_with_currency(place)):
        roles["pnl"] = named
    roles |= {role: column for role, name in chosen.items() if (column := _chosen(name, names)) is not None}
    if roles.get("market") == roles.get("symbol"):
        roles.pop("market", None)
    return roles


def _pnl_with_currency(place: Mapping[str, int]) -> int | None:
    """`pnl_usdt`, `Profit (USD)`: never `pnl_pct`."""
    for name, column in place.items():
        found = re.fullmatch(r"(?:net_|realized_|realised_)?(?:pnl|profit)_([a-z]{3,5})", name)
        if found and found[1].upper() in QUOTES:
            return column
    return None


def _chosen(name: str, names: Sequence[str]) -> int | None:
    if name in names:
        return names.index(name)
    if name.isdecimal() and 1 <= int(name) <= len(names):
        return int(name) - 1
    return None


def roles_by_shape(rows: Sequence[Sequence[str]], zone: tzinfo = UTC) -> dict[str, int]:
    """Roles of a file without header, from the look of its cells: only those that cannot be mistaken.

    Price and amount look alike; they are told apart by fees charged in the base currency, which are one and the same
    part of the amount in every row. Without such fees they stay unknown, for a guess would be somebody's money.
    """
    if not rows:
        return {}
    cells = list(zip(*rows, strict=False))
    times = _times(cells, zone)
    symbols = _columns(cells, _quote_of_symbol)
    sides = _columns(cells, side_of)
    numbers = [column for column in _columns(cells, number) if column not in times]
    roles: dict[str, int] = {}
    if times:
        roles["time"] = times[1] if len(times) == 2 else times[0]  # opened, closed
    if symbols:
        roles["symbol"] = symbols[0]
    if len(sides) == 1:
        roles["side"] = sides[0]
    return roles | _money_by_shape(cells, numbers, roles)


def _times(cells: Sequence[Sequence[str]], zone: tzinfo) -> list[int]:
    """Columns of times; numbers since 1970 only where nothing looks like a date, for trade ids can look like them."""
    found = [column for column, rows in enumerate(cells) if all(moment(cell, zone) for cell in rows)]
    dates = [column for column in found if not cells[column][0].replace(".", "").isdecimal()]
    return dates or found[:1]


def _columns(cells: Sequence[Sequence[str]], test: Callable[[str], object]) -> list[int]:
    """Columns in which every cell passes: the test gives neither None nor an empty text."""
    return [column for column, found in enumerate(cells) if all(test(cell) not in (None, "") for cell in found)]


def _quote_of_symbol(cell: str) -> str:
    return split_symbol(cell)[1] if re.fullmatch(r"[A-Z0-9]{2,12}[/_-]?[A-Z]{3,6}", cell) else ""


def _money_by_shape(cells: Sequence[Sequence[str]], numbers: list[int], roles: Mapping[str, int]) -> dict[str, int]:
    signed = [column for column in numbers if any(cell.startswith("-") for cell in cells[column])]
    if signed:
        return {"pnl": signed[0]} if len(signed) == 1 else {}
    if "symbol" not in roles or "side" not in roles:
        return {}
    bases = [split_symbol(symbol)[0] for symbol in cells[roles["symbol"]]]
    for column, found in enumerate(cells):
        if column not in roles.values() and _are_assets(found, bases):
            return _amount_by_fee(cells, [n for n in numbers if n < column], column, bases)
    return {}


def _are_assets(found: Sequence[str], bases: Sequence[str]) -> bool:
    names = all(re.fullmatch(r"[A-Z0-9]{2,10}", cell) and not cell.isdecimal() for cell in found)
    return names and any(cell == base for cell, base in zip(found, bases, strict=True))


def _amount_by_fee(
    cells: Sequence[Sequence[str]], numbers: list[int], asset: int, bases: Sequence[str]
) -> dict[str, int]:
    """Three numbers before the fee's asset: the last is the fee, and of the others one is in a fixed ratio to it."""
    in_base = [row for row, base in enumerate(bases) if cells[asset][row] == base]
    if len(numbers) != 3 or len({bases[row] for row in in_base}) < 2:
        return {}
    first, second, fee = numbers
    fixed = [column for column in (first, second) if _fixed_ratio(cells, column, fee, in_base)]
    if len(fixed) != 1:
        return {}
    amount = fixed[0]
    return {"price": second if amount == first else first, "amount": amount, "fee": fee, "fee_currency": asset}


def _fixed_ratio(cells: Sequence[Sequence[str]], column: int, fee: int, rows: Sequence[int]) -> bool:
    ratios = [Decimal(cells[fee][row]) / whole for row in rows if (whole := Decimal(cells[column][row]))]
    return bool(ratios) and min(ratios) > 0 and max(ratios) < min(ratios) * Decimal("1.05")


# --- rows -> trades ----------------------------------------------------------------------------------------------


class Trades:
    """Builds a TradeTable row by row. `needs` raises BotkeepError where the columns do not make trades."""

    def __init__(
        self,
        names: Sequence[str],
        roles: Mapping[str, int],
        options: FormatOptions,
        what: str,
        decimal_comma: bool = False,
    ) -> None:
        self._options, self._zone, self._comma = options, zone_of(options.timezone), decimal_comma
        self._roles = roles
        self._names = names
        self.closing = "pnl" in roles
        self._fills: list[Fill] = []
        self._closed: list[ClosedTrade] = []
        self._problems: dict[str, list[int]] = {}
        self._said: list[str] = []
        self._skipped = 0
        self._open = self._unfilled = 0
        self._require(what)

    def _require(self, what: str) -> None:
        wrong = [role for role, name in self._options.columns.items() if _chosen(name, self._names) is None]
        if wrong:
            raise BotkeepError(
                f"{what}: data_format.columns.{wrong[0]} names {self._options.columns[wrong[0]]!r}, and there is no "
                f"such column. The file has: {', '.join(self._names[:30])}."
            )
        needed = ("time",) if self.closing else ("time", "symbol", "side", "price", "amount")
        missing = [role for role in needed if role not in self._roles]
        if missing:
            raise BotkeepError(
                f"{what}: it is not clear which column is the {' and the '.join(missing)}. Say so in bots.json: "
                f'"data_format": {{"columns": {{"{missing[0]}": "NAME OR NUMBER OF THE COLUMN"}}}}, or name the column '
                f"of the result as pnl. The file has: {', '.join(self._names[:30])}."
            )

    def add(self, row: int, cells: Sequence[str], at: float | None) -> None:
        """One sound row, with its time in epoch seconds where that was read already."""
        try:
            if self.closing:
                self._add_closed(cells, at)
            else:
                self._add_fill(cells, at)
        except _NotATradeError as why:
            self.skip(row, str(why))

    def skip(self, row: int, why: str) -> None:
        """One row that cannot be read."""
        self._skipped += 1
        self._problems.setdefault(why, []).append(row)

    def note(self, text: str) -> None:
        """Something to know about the figures."""
        self._said.append(text)

    def table(self) -> TradeTable:
        """What was read."""
        fills, closed, notes = tuple(self._fills), tuple(self._closed), tuple(self._notes())
        return TradeTable("closed" if self.closing else "fills", fills, closed, self._skipped, notes)

    def _notes(self) -> list[str]:
        notes = [f"{_rows(rows)} could not be read: {why}" for why, rows in self._problems.items()] + self._said
        if self._open:
            notes.append(f"{self._open} open trades have no result yet and are not counted")
        if self._unfilled:
            notes.append(f"{self._unfilled} rows are orders that were not filled and are not counted")
        if self._fills and "fee" in self._roles and "fee_currency" not in self._roles:
            notes.append("the fee column names no currency: taken as the quote currency")
        if self._fills and not {"fee", "fee_quote"} & set(self._roles):
            notes.append("the file has no column of fees: figures are before fees")
        return notes[:20]

    def _cell(self, role: str, cells: Sequence[str]) -> str:
        column = self._roles.get(role)
        return cells[column].strip() if column is not None and column < len(cells) else ""

    def _amount(self, role: str, cells: Sequence[str]) -> Decimal:
        text = self._cell(role, cells)
        found = money(text.replace(",", ".") if self._comma else text)
        if found is None:
            raise _NotATradeError(f"the {role} is not a number" if text else f"the {role} is missing")
        return found

    def _time(self, cells: Sequence[str], stamp: float | None) -> datetime:
        if stamp is not None:
            return datetime.fromtimestamp(stamp, UTC)
        at = moment(self._cell("time", cells), self._zone)
        if at is None:
            raise _NotATradeError("the time is not one")
        return at

    def _quote(self, cells: Sequence[str]) -> str:
        named = self._cell("quote", cells).upper() or split_symbol(self._cell("symbol", cells))[1]
        return named or self._options.quote.upper()

    def _add_closed(self, cells: Sequence[str], at: float | None) -> None:
        if not self._cell("pnl", cells) or self._cell("status", cells).lower() in _NOT_FILLED:
            self._open += 1
            return
        fee = self._amount("fee", cells) if self._cell("fee", cells) else Decimal(0)
        self._closed.append(
            ClosedTrade(
                at=self._time(cells, at),
                symbol=intern(self._cell("symbol", cells)),
                pnl=self._amount("pnl", cells),
                currency=self._pnl_currency() or self._quote(cells),
                fee=fee,
                id=self._cell("id", cells),
            )
        )

    def _pnl_currency(self) -> str:
        last = plain_name(self._names[self._roles["pnl"]]).rpartition("_")[2].upper()
        return last if last in QUOTES else ""

    def _add_fill(self, cells: Sequence[str], at: float | None) -> None:
        if self._cell("status", cells).lower() in _NOT_FILLED:
            self._unfilled += 1
            return
        side = side_of(self._cell("side", cells))
        if side is None:
            raise _NotATradeError("the side is neither buy nor sell")
        quote = self._quote(cells)
        fee, fee_currency = self._fee(cells, quote)
        self._fills.append(
            Fill(
                at=self._time(cells, at),
                symbol=intern(self._cell("symbol", cells)),
                side=side,
                price=self._amount("price", cells),
                amount=abs(self._amount("amount", cells)),
                fee=fee,
                fee_currency=fee_currency,
                id=self._cell("id", cells),
                order_id=self._cell("order_id", cells),
                market=intern(self._cell("market", cells)),
                quote=quote,
            )
        )

    def _fee(self, cells: Sequence[str], quote: str) -> tuple[Decimal, str]:
        if self._cell("fee_quote", cells):
            return self._amount("fee_quote", cells), quote
        if not self._cell("fee", cells):
            return Decimal(0), quote
        return self._amount("fee", cells), intern(self._cell("fee_currency", cells).upper()) or quote


class _NotATradeError(Exception):
    """Why a row is no trade."""


def _rows(rows: Sequence[int]) -> str:
    return f"row {rows[0]}" if len(rows) == 1 else f"{len(rows)} rows, the first of them row {rows[0]},"
