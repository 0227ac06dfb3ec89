"""Hummingbot's log: every fill of its EVENT_LOG lines, as its own CSV has it, and nothing forged."""

from __future__ import annotations

import csv
import json
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep import replay
from botkeep.formats import FORMATS, FormatOptions
from botkeep.model import Replay

DATA = Path(__file__).resolve().parents[1] / "data" / "hummingbot"
TRADES = DATA / "trades_conf_simple_pmm_1.csv"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
REPORTER = " - 23707 - hummingbot.core.event.event_reporter - EVENT_LOG - "


def event(**other: Any) -> dict[str, Any]:
    """A fill as Hummingbot's event reporter writes it: the fields of the line of a real bot, its ids made up."""
    told = {
        "timestamp": 1795254686.0, "order_id": "sell://ETH-USDT/4e9caef6813e831aaa07672a31", "trading_pair": "ETH-USDT",
        "trade_type": "TradeType.SELL", "order_type": "OrderType.LIMIT", "price": "2640.32", "amount": "0.05",
        "trade_fee": {"percent": "0.001", "percent_token": None, "flat_fees": []},
        "exchange_trade_id": "1795254686157098", "leverage": 1, "position": "NIL", "event_name": "OrderFilledEvent",
        "event_source": "binance_PaperTrade",
    }  # fmt: skip
    return told | other


def line(told: dict[str, Any] | str, at: str = "2026-11-21 09:51:26,198") -> str:
    return at + REPORTER + (told if isinstance(told, str) else json.dumps(told))


def read(folder: Path, *lines: str) -> Replay:
    log = folder / "logs_conf.log"
    log.write_text("".join(f"{one}\n" for one in lines))
    return replay.from_log(log, "hummingbot", now=NOW)


def doubts(found: Replay) -> str:
    return "\n".join(finding.text for finding in found.quarantined)


def of_row(row: dict[str, str]) -> dict[str, Any]:
    """The event of a row that Hummingbot's own code wrote."""
    return event(
        timestamp=int(row["timestamp"]) / 1000, order_id=row["order_id"], trading_pair=row["symbol"],
        trade_type=f"TradeType.{row['trade_type']}", price=row["price"], amount=row["amount"],
        exchange_trade_id=row["exchange_trade_id"], event_source=row["market"],
    )  # fmt: skip


def test_every_fill_is_the_one_in_its_own_csv(tmp_path: Path) -> None:
    with TRADES.open() as file:
        rows = list(csv.DictReader(file))
    found = read(tmp_path, *(line(of_row(row)) for row in rows))
    table = FORMATS["csv"].trades(TRADES, options=FormatOptions())
    assert len(found.fills) == len(table.fills) == len(rows) == 83
    for fill, known in zip(found.fills, table.fills, strict=True):
        assert (fill.id, fill.at, fill.side, fill.price, fill.amount) == (
            known.id, known.at, known.side, known.price, known.amount,
        )  # fmt: skip
        assert (fill.symbol, fill.market, fill.order_id) == (known.symbol, known.market, known.order_id)
        assert fill.fee_currency == "USDT"
        assert abs(fill.fee - known.fee) <= Decimal("0.000001")  # its files keep millionths
    assert replay.missing(table, found).trades == ()


def test_the_fill_that_a_database_lost_is_the_one_that_is_missing(tmp_path: Path) -> None:
    with TRADES.open() as file:
        rows = list(csv.DictReader(file))
    found = read(tmp_path, *(line(of_row(row)) for row in rows))
    kept = tmp_path / "trades.csv"
    lines = TRADES.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:40] + lines[53:]))
    left = replay.missing(FORMATS["csv"].trades(kept, options=FormatOptions()), found)
    assert [fill.id for fill in left.fills] == [row["exchange_trade_id"] for row in rows[39:52]]


def test_a_log_without_events_proves_nothing_however_much_it_traded() -> None:
    log = DATA / "log-without-events.log"
    assert "SELL 0.05 ETH-USDT" in log.read_text()
    found = replay.from_log(log, "hummingbot", now=NOW)
    assert (found.trades, found.since) == ((), None)
    assert "EVENT_LOG" in found.notes[-1]


def test_other_events_are_no_fills_but_show_that_events_are_logged(tmp_path: Path) -> None:
    told = event(event_name="BuyOrderCreatedEvent", note="OrderFilledEvent")
    found = read(tmp_path, line(told))
    assert (found.trades, found.quarantined) == ((), ())
    assert found.since == datetime(2026, 11, 21, 9, 51, 26, 198000, tzinfo=UTC)


FORGED = {
    "behind other text": "2026-11-21 09:51:26,198 - 23707 - hummingbot.connector - ERROR - got " + line(event()),
    "of another logger": line(event()).replace("event_reporter", "event_repeater"),
    "of another level": line(event()).replace(" EVENT_LOG ", " INFO "),
    "in a text of an event": line(event(event_name="Other", note=line(event()))),
}


@pytest.mark.parametrize("text", FORGED.values(), ids=FORGED)
def test_text_that_only_holds_an_event_is_none(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text, text).trades == ()


ODD = {
    "cut short": (json.dumps(event())[:-20].replace('"event_name": "', '"event_name": "OrderFilledEvent'), "cut short"),
    "more behind": (json.dumps(event()) + " x", "cut short"),
    "a key twice": (json.dumps(event())[:-1] + ', "price": "1"}', "cut short"),
    "NaN": (json.dumps(event()).replace('"2640.32"', "NaN"), "cut short"),
    "price of text": (event(price="2640.32 USDT"), "price is not a number"),
    "absurd": (event(amount="1e1000000"), "amount is not a number"),
    "an absurd number": (json.dumps(event()).replace('"0.05"', "1e1000000"), "amount is not a number"),
    "nothing": (event(amount="0"), "not above zero"),
    "no id": (event(exchange_trade_id=""), "exchange trade id is missing"),
    "a list as pair": (event(trading_pair=["ETH-USDT"]), "trading pair is not one"),
    "no side": (event(trade_type="TradeType.RANGE"), "neither buy nor sell"),
    "another time": (event(timestamp="yesterday"), "timestamp is not one"),
    "still to come": (event(timestamp=1900000000.0), "still to come"),
    "no fee": (event(trade_fee=None), "fee is not one"),
    "fees of two kinds": (
        event(trade_fee={"percent": "0.001", "flat_fees": [{"token": "BNB", "amount": "0.1"}]}), "several currencies",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("told", "why"), ODD.values(), ids=ODD)
def test_an_event_that_is_not_quite_one_is_told_and_not_taken(tmp_path: Path, told: Any, why: str) -> None:
    found = read(tmp_path, line(told))
    assert found.trades == ()
    assert why in doubts(found), doubts(found)


@pytest.mark.parametrize(
    ("fee", "amount", "currency"),
    [
        ({"percent": "0.001", "percent_token": None, "flat_fees": []}, "0.132016", "USDT"),
        ({"percent": "0", "percent_token": None, "flat_fees": [{"token": "BNB", "amount": "0.0002"}]}, "0.0002", "BNB"),
        ({"percent": "0", "percent_token": None, "flat_fees": [["BNB", "0.0002"]]}, "0.0002", "BNB"),
        ({"percent": "0.001", "percent_token": "BNB", "flat_fees": []}, "0.132016", "USDT"),
        ({"percent": "0", "flat_fees": []}, "0", "USDT"),
    ],
)
def test_fees_are_added_up_as_hummingbot_does(tmp_path: Path, fee: Any, amount: str, currency: str) -> None:
    (fill,) = read(tmp_path, line(event(trade_fee=fee))).fills
    assert (fill.fee, fill.fee_currency) == (Decimal(amount), currency)


@pytest.mark.parametrize("text", ["[" * 60_000, '{"a":' * 12_000, '{"a": "' + "\\u0041" * 10_000, "{" + " " * 60_000])
def test_a_hostile_event_takes_no_time(tmp_path: Path, text: str) -> None:
    (tmp_path / "logs_conf.log").write_text(line(text + "OrderFilledEvent") + "\n")
    begun = time.thread_time()
    found = replay.from_log(tmp_path / "logs_conf.log", "hummingbot", now=NOW)
    assert time.thread_time() - begun < 0.05
    assert found.trades == ()


_MONEY = st.decimals(Decimal("1e-8"), Decimal("1e8"), places=8).map(lambda value: f"{value:f}")
_TEXT = st.text(max_size=40)


@settings(max_examples=60, deadline=None)
@given(price=_MONEY, amount=_MONEY, note=_TEXT, micro=st.integers(10**15, 1_795_000_000_000_000))
def test_what_is_logged_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, price: str, amount: str, note: str, micro: int
) -> None:
    told = event(price=price, amount=amount, note=note, timestamp=micro / 1e6)
    found = read(tmp_path_factory.getbasetemp(), line(told))
    (fill,) = found.fills
    assert (fill.price, fill.amount) == (Decimal(price), Decimal(amount))
    assert abs(fill.at.timestamp() - micro / 1e6) < 1e-5
