"""What the columns of a trade table mean: by their names, by the configuration, or by the look of their cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, tzinfo
from decimal import Decimal

from .values import NAN, NOTHING, QUOTES, is_filled, moment, number, side_of, split_symbol

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
    "writer": ("pid", "process_id", "instance_id", "run_id", "generation"),
}  # fmt: skip
"""Role -> the header names that mean it, the most telling first. Percentages and ratios are no money: not here."""

NUMBERS = ("price", "amount", "entry", "exit", "fee", "fee_quote", "pnl")
"""Roles whose cells are numbers."""
LATER = ("pnl", "exit", "fee", "fee_quote")
"""Those of them that may be told later than the row is written, or never."""
MOST_MARKETS = 8


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
    roles |= {role: column for role, name in chosen.items() if (column := chosen_column(name, names)) is not None}
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


def later_columns(roles: Mapping[str, int]) -> tuple[int, ...]:
    """Columns that say nothing yet in the row of a trade that is still open."""
    wanted = (*LATER, "time") if "pnl" in roles else LATER
    return tuple(sorted({roles[role] for role in wanted if role in roles}))


def nan_columns(texts: Mapping[int, Sequence[str]], most: int) -> tuple[int, ...]:
    """Those columns that hold `nan` at least `most` times: so the bot writes that there is no result yet."""
    return tuple(column for column, cells in texts.items() if sum(cell in NAN for cell in cells) >= most)


def says_nothing(cell: str, column: int, later: Collection[int], nan: Collection[int]) -> bool:
    """Whether a cell says in a word that there is nothing yet."""
    return (column in later and cell in NOTHING) or (column in nan and cell in NAN)


def told_status(cells: Sequence[str]) -> str:
    """The newest status of a trade, not of an order that was not filled; empty: there is none."""
    return next((cell.strip() for cell in reversed(cells) if cell.strip() and is_filled(cell)), "")


def told_markets(cells: Sequence[str]) -> tuple[str, ...]:
    """The markets as they are spelled."""
    return tuple(dict.fromkeys(cell.strip() for cell in cells if cell.strip()))[:MOST_MARKETS]


def misnamed(chosen: Mapping[str, str], names: Sequence[str]) -> str:
    """What is wrong with the configuration's choice of columns: a sentence; empty: nothing."""
    wrong = next((role for role, name in chosen.items() if chosen_column(name, names) is None), None)
    return f"data_format.columns.{wrong} names {chosen[wrong]!r}, and there is no such column." if wrong else ""


def chosen_column(name: str, names: Sequence[str]) -> int | None:
    """The column that the configuration names: by its header, else by its number counted from 1. None: no such one."""
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
