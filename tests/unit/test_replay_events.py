"""Files of events, one JSON object a line, of bots that nobody has seen before."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botkeep import replay
from botkeep.formats import FORMATS, FormatOptions
from botkeep.model import Fill, Replay

DATA = Path(__file__).resolve().parents[1] / "data"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
FILL = {
    "ts": "2026-11-21T10:00:00Z",
    "symbol": "BTC/USDT",
    "side": "buy",
    "price": "60000.5",
    "qty": 0.1,
    "trade_id": 7,
}


def of_fill(fill: Fill) -> dict[str, Any]:
    """An event of a known fill."""
    return {
        "ts": fill.at.isoformat(), "symbol": fill.symbol, "side": fill.side, "price": str(fill.price),
        "qty": str(fill.amount), "trade_id": int(fill.id),
    }  # fmt: skip


def read(folder: Path, *events: Any, columns: dict[str, str] | None = None, **options: Any) -> Replay:
    path = folder / "events.jsonl"
    lines = [one if isinstance(one, str) else json.dumps(one) for one in events]
    path.write_text("".join(f"{line}\n" for line in lines))
    return replay.from_log(path, "jsonl", now=NOW, columns=columns, **options)


def test_the_events_of_a_real_set_of_fills_are_all_in_its_csv(tmp_path: Path) -> None:
    table = FORMATS["csv"].trades(DATA / "custom" / "fills.csv", options=FormatOptions())
    events = [FILL | {"event": "fill"} | told for told in map(of_fill, table.fills)]
    found = read(tmp_path, *events)
    assert len(found.fills) == 240
    assert found.since == table.fills[0].at
    assert replay.missing(table, found).trades == ()


@pytest.mark.parametrize("kind", ["fill", "order_filled", "OrderFilledEvent", "trade", "executed"])
def test_an_event_that_says_a_fill_is_one(tmp_path: Path, kind: str) -> None:
    (fill,) = read(tmp_path, FILL | {"event": kind}).fills
    assert (fill.price, fill.amount, fill.id, fill.side) == (Decimal("60000.5"), Decimal("0.1"), "7", "buy")


@pytest.mark.parametrize("kind", ["order_placed", "signal", "OrderCancelled", "trade_rejected", "heartbeat"])
def test_an_event_that_says_something_else_is_none(tmp_path: Path, kind: str) -> None:
    found = read(tmp_path, FILL | {"event": kind}, FILL | {"event": "fill", "trade_id": 8})
    assert [fill.id for fill in found.fills] == ["8"]
    assert found.quarantined == ()


def test_the_type_of_an_order_is_no_kind_of_event(tmp_path: Path) -> None:
    assert len(read(tmp_path, FILL | {"type": "limit"}).fills) == 1


def test_names_are_chosen_by_the_configuration(tmp_path: Path) -> None:
    told = {"w": 1795254686, "data": {"s": "BTC-USDT", "d": "SELL", "p": "1.5", "q": "2", "k": "done"}, "what": "x"}
    columns = {"time": "w", "symbol": "data.s", "side": "data.d", "price": "data.p", "amount": "data.q"}
    (fill,) = read(tmp_path, told, columns=columns).fills
    assert (fill.symbol, fill.side, fill.amount) == ("BTC-USDT", "sell", Decimal(2))
    assert read(tmp_path, told, columns=columns).since == fill.at
    assert read(tmp_path, told, columns=columns | {"event": "what"}).fills == ()
    assert len(read(tmp_path, told | {"what": "fill"}, columns=columns | {"event": "what"}).fills) == 1


def test_times_without_a_zone_are_in_the_bots(tmp_path: Path) -> None:
    (fill,) = read(tmp_path, FILL | {"ts": "2026-11-21 10:00:00"}, zone="Europe/Berlin").fills
    assert fill.at == datetime(2026, 11, 21, 9, tzinfo=UTC)


def test_closed_trades_are_read_with_their_result(tmp_path: Path) -> None:
    told = {
        "event": "trade_closed",
        "close_time": "2026-11-21T10:00:00Z",
        "pair": "BTC/USDT",
        "pnl": "-1.25",
        "id": "3",
    }
    (trade,) = read(tmp_path, told, {"event": "heartbeat", "time": "2026-11-21T10:00:01Z"}).closed
    assert (trade.pnl, trade.id, trade.currency) == (Decimal("-1.25"), "3", "USDT")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"price": "1e1000000"}, "price is not a number"),
        ({"price": "0"}, "not above zero"),
        ({"side": "maybe"}, "neither buy nor sell"),
        ({"symbol": "BTC USDT"}, "symbol is not one"),
        ({"ts": "2027-11-21T10:00:00Z"}, "still to come"),
        ({"ts": "soon"}, "time is not one"),
    ],
)
def test_a_fill_with_something_odd_is_told_and_not_taken(tmp_path: Path, change: dict[str, str], why: str) -> None:
    found = read(tmp_path, FILL, FILL | change | {"trade_id": 8})
    assert [fill.id for fill in found.fills] == ["7"]
    assert why in found.quarantined[0].text


def test_lines_that_are_no_events_are_counted(tmp_path: Path) -> None:
    found = read(tmp_path, FILL, json.dumps(FILL)[:40], '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 50_000)
    assert len(found.fills) == 1
    assert "4 lines are no JSON objects and were not read" in found.notes


def test_a_file_without_any_trade_proves_nothing_and_says_what_to_configure(tmp_path: Path) -> None:
    found = read(tmp_path, {"time": "2026-11-21T10:00:00Z", "event": "heartbeat"})
    assert found.since is None
    assert '"replay": {"columns"' in found.notes[-1]
