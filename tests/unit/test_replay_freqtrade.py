"""freqtrade's log: its own messages are trades, and nothing that only looks like one is."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botkeep import replay
from botkeep.model import Replay
from botkeep.replay.pydict import Number, Word, read_dict

DATA = Path(__file__).resolve().parents[1] / "data" / "freqtrade"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
PREFIX = "2026-11-21 10:18:14,017 - freqtrade.rpc.rpc_manager - INFO - Sending rpc message: "
OTHER = "2026-11-21 10:18:14,010 - freqtrade.wallets - INFO - Wallets synced."
FIELDS = {
    "trade_id": "7", "exchange": "'Binance'", "pair": "'XRP/USDT'", "leverage": "1.0", "direction": "'Long'",
    "gain": "'profit'", "limit": "0.5356", "order_type": "'market'", "amount": "374.6", "open_rate": "0.534",
    "close_rate": "0.5356", "current_rate": "None", "profit_amount": "0.19868784", "profit_ratio": "0.00099227",
    "enter_tag": "'every'", "exit_reason": "'roi'",
    "open_date": "datetime.datetime(2026, 11, 21, 10, 18, 4, 488237, tzinfo=datetime.timezone.utc)",
    "close_date": "datetime.datetime(2026, 11, 21, 10, 18, 13, 998000, tzinfo=datetime.timezone.utc)",
    "stake_amount": "200.0364", "stake_currency": "'USDT'", "fiat_currency": "None", "sub_trade": "False",
    "cumulative_profit": "0.19868784", "final_profit_ratio": "0.0009922661608054867", "is_final_exit": "True",
}  # fmt: skip


def message(kind: str = "exit_fill", without: tuple[str, ...] = (), **other: str) -> str:
    """The dict of one message."""
    told = {"type": kind} | {name: value for name, value in (FIELDS | other).items() if name not in without}
    return "{" + ", ".join(f"'{name}': {value}" for name, value in told.items()) + "}"


def folded(text: str, width: int = 200) -> str:
    """As freqtrade's console folds it: between words, a blank kept where it has room."""
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) > width and lines[-1]:
            lines[-1] = lines[-1][:width]
            lines.append("")
        lines[-1] += word + " "
    return "\n".join([*lines[:-1], lines[-1].rstrip()])


def read(folder: Path, *lines: str, now: datetime = NOW) -> Replay:
    log = folder / "freqtrade.log"
    log.write_text("".join(f"{line}\n" for line in lines))
    return replay.from_log(log, "freqtrade", now=now)


def doubts(found: Replay) -> str:
    return "\n".join(finding.text for finding in found.quarantined)


# --- what real bots wrote ----------------------------------------------------------------------------------------


def test_every_folded_message_of_a_real_bot_is_what_its_own_database_says(tmp_path: Path) -> None:
    found = replay.from_log(DATA / "stdout-folded.log", "freqtrade", now=NOW)
    database = shutil.copy(DATA / "tradesv3.dryrun.sqlite", tmp_path / "copy.sqlite")
    with closing(sqlite3.connect(database)) as opened:
        opened.row_factory = sqlite3.Row
        rows = {str(row["id"]): row for row in opened.execute("select * from trades")}
    told = (DATA / "stdout-folded.log").read_text().count("message: {'type': exit_fill")
    assert len(found.closed) == told == 15
    assert found.quarantined == ()
    for trade in found.closed:
        row = rows[trade.id]
        assert (trade.symbol, trade.pnl) == (row["pair"], Decimal(repr(row["close_profit_abs"])))
        assert trade.at == datetime.fromisoformat(row["close_date"]).replace(tzinfo=UTC)
        assert trade.opened == datetime.fromisoformat(row["open_date"]).replace(tzinfo=UTC)
        assert (trade.entry, trade.exit) == (Decimal(repr(row["open_rate"])), Decimal(repr(row["close_rate"])))
        assert (trade.ratio, trade.reason) == (Decimal(repr(row["close_profit"])), row["exit_reason"])
        assert (trade.market, trade.currency, trade.side) == (row["exchange"], "USDT", "long")


def test_trades_that_the_log_shows_as_open_are_told_and_are_no_fills() -> None:
    found = replay.from_log(DATA / "start.log", "freqtrade", now=NOW)
    assert found.trades == ()
    assert found.since == datetime(2026, 11, 21, 9, 21, 10, 2000, tzinfo=UTC)
    assert "5 trades are still open" in found.notes[0]


# --- one message -------------------------------------------------------------------------------------------------


def test_a_message_in_one_line_is_a_trade(tmp_path: Path) -> None:
    found = read(tmp_path, OTHER, PREFIX + message(), OTHER)
    (trade,) = found.closed
    assert (trade.id, trade.pnl, trade.amount, trade.stake) == (
        "7", Decimal("0.19868784"), Decimal("374.6"), Decimal("200.0364"),
    )  # fmt: skip
    assert found.since == datetime(2026, 11, 21, 10, 18, 14, 10000, tzinfo=UTC)


def test_folding_changes_nothing(tmp_path: Path) -> None:
    plain = read(tmp_path, OTHER, PREFIX + message(), OTHER)
    again = read(tmp_path, OTHER, *folded(PREFIX + message()).split("\n"), OTHER)
    assert again.closed == plain.closed
    assert len(again.closed) == 1


def test_a_trade_closed_in_parts_has_the_result_of_all_parts(tmp_path: Path) -> None:
    part = message(sub_trade="True", is_final_exit="False", cumulative_profit="0.19868784")
    last = message(cumulative_profit="0.5", profit_amount="0.19868784")
    assert [trade.pnl for trade in read(tmp_path, PREFIX + part, PREFIX + last).closed] == [Decimal("0.5")]
    alone = read(tmp_path, PREFIX + last)
    assert alone.closed == ()
    assert "of several exits" in doubts(alone)
    old = (message(is_final_exit="False"), message(without=("cumulative_profit",)))
    found = read(tmp_path, *(PREFIX + text for text in old))
    assert found.closed == ()
    assert "closed in parts" in doubts(found)


def test_a_short_is_one(tmp_path: Path) -> None:
    told = message(direction="'Short'", open_rate="0.5356", close_rate="0.534")
    assert [trade.side for trade in read(tmp_path, PREFIX + told).closed] == ["short"]


def test_a_message_that_stands_twice_counts_once_and_two_that_differ_do_not_count(tmp_path: Path) -> None:
    assert len(read(tmp_path, PREFIX + message(), PREFIX + message()).closed) == 1
    found = read(tmp_path, PREFIX + message(), PREFIX + message(exit_reason="'stop_loss'"))
    assert found.closed == ()
    assert "differ" in doubts(found)


def test_an_id_used_again_by_a_new_database_is_another_trade(tmp_path: Path) -> None:
    later = FIELDS["open_date"].replace("10, 18, 4", "10, 18, 9")
    assert len(read(tmp_path, PREFIX + message(), PREFIX + message(open_date=later)).closed) == 2


# --- what is no trade --------------------------------------------------------------------------------------------

FORGED = {
    "behind other text": f"2026-11-21 10:18:14,010 - freqtrade.exchange - ERROR - binance said {PREFIX}{message()}",
    "of another logger": PREFIX.replace("rpc_manager", "telegram") + message(),
    "of another level": PREFIX.replace("INFO", "WARNING") + message(),
    "with a blank before": " " + PREFIX + message(),
    "inside a strategy's message": PREFIX + f'{{"type": strategy_msg, "msg": "{message()}"}}',
    "inside a tag": PREFIX + message("entry", enter_tag=repr(message())),
    "an order, not a fill": PREFIX + message("exit"),
}


@pytest.mark.parametrize("line", FORGED.values(), ids=FORGED)
def test_text_that_only_holds_a_message_is_none(tmp_path: Path, line: str) -> None:
    found = read(tmp_path, OTHER, line, OTHER)
    assert found.trades == ()


def test_text_in_a_field_stays_text(tmp_path: Path) -> None:
    tag = "\"x', 'profit_amount': 1000.0, 'pair': 'BTC/USDT\""
    (trade,) = read(tmp_path, PREFIX + message(enter_tag=tag, exit_reason=tag)).closed
    assert (trade.pnl, trade.symbol) == (Decimal("0.19868784"), "XRP/USDT")


ODD = {
    "cut short": (message()[:-40], "cut short"),
    "more behind it": (message() + " and more", "cut short"),
    "a key twice": (message()[:-1] + ", 'amount': 1.0}", "cut short"),
    "a call": (message(amount="__import__('os').getpid()"), "cut short"),
    "a number in quotes": (message(amount="'374.6'"), "amount is missing"),
    "an absurd number": (message(amount="1e1000000"), "cut short"),
    "a large exponent": (message(amount="1e999"), "amount is not a number"),
    "nan": (message(close_rate="nan"), "close_rate is missing"),
    "an id that is none": (message(trade_id="1.5"), "trade_id is not a whole number"),
    "no amount": (message(without=("amount",)), "amount is missing"),
    "nothing bought": (message(amount="0.0"), "not above zero"),
    "a pair with a blank": (message(pair="'XRP USDT'"), "pair is not one"),
    "no zone": (message(close_date="datetime.datetime(2026, 11, 21, 10, 18)"), "cut short"),
    "no such day": (message(close_date=FIELDS["close_date"].replace("11, 21", "2, 30")), "cut short"),
    "closed before opened": (message(close_date=FIELDS["close_date"].replace("10, 18, 13", "9, 18, 13")), "before it"),
    "still to come": (message(close_date=FIELDS["close_date"].replace("2026", "2027")), "still to come"),
    "a result from nowhere": (message(profit_amount="5000.0", cumulative_profit="5000.0"), "does not follow"),
    "neither last nor not": (message(without=("is_final_exit",)), "last exit"),
}


@pytest.mark.parametrize(("text", "why"), ODD.values(), ids=ODD)
def test_a_message_that_is_not_quite_one_is_told_and_not_taken(tmp_path: Path, text: str, why: str) -> None:
    found = read(tmp_path, OTHER, PREFIX + text, OTHER)
    assert found.trades == ()
    assert why in doubts(found), doubts(found)
    assert not found.quarantined[0].certain


def test_a_fold_cannot_put_text_where_a_message_begins(tmp_path: Path) -> None:
    """Somebody's text of just the right length, with a whole message in it, in a log that is folded."""
    said = "2026-11-21 10:18:13,900 - freqtrade.exchange - ERROR - binance said: "
    text = folded(said + "x" * (195 - len(said)) + " " + PREFIX + message())
    assert text.split("\n")[1].startswith(PREFIX[:60])
    found = read(tmp_path, OTHER, *text.split("\n"), OTHER)
    assert found.trades == ()
    assert "part of the message before" in doubts(found)


def test_lines_that_no_fold_made_do_not_belong_to_a_message(tmp_path: Path) -> None:
    first, *rest = folded(PREFIX + message()).split("\n")
    found = read(tmp_path, OTHER, first[:150], first[150:], *rest)
    assert found.trades == ()
    assert "cut short" in doubts(found)


def test_a_traceback_behind_a_message_is_not_its(tmp_path: Path) -> None:
    lines = folded(PREFIX + message()).split("\n")
    assert len(read(tmp_path, *lines, "Traceback (most recent call last):", '  File "x.py", line 3').closed) == 1
    assert len(read(tmp_path, PREFIX + message(), "Traceback (most recent call last):").closed) == 1


def test_a_log_without_a_line_of_freqtrades_own_proves_nothing(tmp_path: Path) -> None:
    found = read(tmp_path, "2026-11-21 10:18:14,010 - mybot - INFO - hello", "2026-11-21 10:18:15,010 - mybot - INFO")
    assert found.since is None
    assert "proves nothing" in found.notes[-1]


@pytest.mark.parametrize(
    "line",
    [
        PREFIX + "{'type': exit_fill, " + "'a': " * 10_000,
        PREFIX + "{'type': exit_fill, 'a': '" + "\\'" * 30_000,
        PREFIX + "{'type': exit_fill" + " " * 60_000 + "!",
        PREFIX + "{'type': exit_fill, 'a': " + "9" * 60_000,
        PREFIX + "{'type': exit_fill, 'a': datetime.datetime(" + "1, " * 20_000,
        "2026-11-21 10:18:14,017 - freqtrade." + "a.b_" * 15_000,
    ],
)
def test_a_hostile_line_takes_no_time(tmp_path: Path, line: str) -> None:
    log = tmp_path / "freqtrade.log"
    log.write_text(line + "\n")
    begun = time.thread_time()
    found = replay.from_log(log, "freqtrade", now=NOW)
    assert time.thread_time() - begun < 0.05  # measured: 0.1 to 0.9 ms; what is not linear takes far longer
    assert found.trades == ()


def test_a_message_of_too_many_lines_is_given_up(tmp_path: Path) -> None:
    line = "'a': " + "b" * 190
    found = read(tmp_path, PREFIX + "{'type': exit_fill,", *[line] * 5000)
    assert found.trades == ()


# --- the dict's own grammar --------------------------------------------------------------------------------------

_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
_TIMES = st.integers(0, 4 * 10**15).map(lambda micro: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micro))
_VALUES = st.one_of(
    st.text(max_size=60), st.integers(-(10**18), 10**18), st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(), st.none(), _TIMES,
)  # fmt: skip


@settings(deadline=None)
@given(st.dictionaries(_NAMES, _VALUES, min_size=1, max_size=12))
def test_what_python_writes_is_read_as_it_was(told: dict[str, object]) -> None:
    found = read_dict(repr(told))
    assert found is not None
    assert list(found) == list(told)
    for name, value in told.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert isinstance(found[name], Number)
            assert type(value)(found[name]) == value
        elif value is None or isinstance(value, bool):
            assert (type(found[name]), found[name]) == (Word, str(value))
        else:
            assert (type(found[name]), found[name]) == (type(value), value)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_text_makes_the_reader_fall(text: str) -> None:
    read_dict(text)
    read_dict("{'a': '" + text)


def test_a_time_without_seconds_is_read() -> None:
    assert read_dict("{'a': datetime.datetime(2026, 11, 21, 10, 0, tzinfo=datetime.timezone.utc)}") == {
        "a": datetime(2026, 11, 21, 10, tzinfo=UTC)
    }
