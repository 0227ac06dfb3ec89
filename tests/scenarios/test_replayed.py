"""After an unclean death the trade file is compared with what else knows the trades, and comes back complete."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botkeep.formats import FORMATS, FormatOptions
from botkeep.model import Actor, BotkeepError, Fault, Result, Status, utc_now
from botkeep.pnl import figures
from support import exchange as stand_in
from support.filling import SCRIPT, fill_entry, logged, run_and_kill, seed, written
from support.fleet import Fleet, alive, entry, fleet, wait_for


@pytest.fixture
def buffered(tmp_path: Path) -> Iterator[Fleet]:
    """One bot whose rows stay in its buffer."""
    with fleet(tmp_path / "home", fill_entry()) as found:
        shutil.copyfile(SCRIPT, found.home / "fill_bot.py")
        yield found


def test_rows_that_died_in_a_buffer_come_back_from_the_log(buffered: Fleet) -> None:
    seed(buffered)
    ids = run_and_kill(buffered)
    assert len(written(buffered)) < len(ids), "the rows were in the buffer, and the file is clean"
    found = buffered.verdict()
    assert (found.fault, found.evidence[0].rule) == (Fault.DATA_CORRUPT, "R1")
    lost = len(ids) - len(written(buffered))
    assert f"{lost} trades are not in it ({lost} from the log fills.log)" in found.sentence
    done = buffered.desk(Actor.ROUND).round()
    assert [(one.action, one.result) for one in done.actions] == [("restore", Result.DONE)], done.actions[0].sentence
    assert done.actions[0].data["replayed"] == lost
    assert "Replayed: " in done.actions[0].sentence
    assert written(buffered)[: len(ids)] == ids
    marks = json.loads((Path(done.actions[0].data["quarantine"]) / "replayed.json").read_text())
    assert [one["id"] for one in marks] == ids[-lost:]
    assert {one["source"] for one in marks} == {"log"}
    assert wait_for(lambda: buffered.verdict().status is Status.HEALTHY)
    table = FORMATS["csv"].trades(buffered.data(), options=FormatOptions())
    assert figures("doge", table).realised == expected(ids, written(buffered))


def expected(ids: list[str], rows: list[str]) -> Decimal:
    """FIFO by hand: from id 1003 on, odd ids buy 50 at 0.1012 and even ones sell 50 at 0.1034, each for 0.005."""
    assert ids
    lots = [Decimal("0.1012") * 50 + Decimal("0.005")] * 3
    result = Decimal(0)
    for number in map(int, rows[3:]):
        if number % 2:
            lots.append(Decimal("0.1012") * 50 + Decimal("0.005"))
        elif lots:
            result += Decimal("0.1034") * 50 - Decimal("0.005") - lots.pop(0)
    return result


def test_a_death_that_lost_nothing_is_only_a_restart(tmp_path: Path) -> None:
    with fleet(tmp_path / "home", fill_entry("--flush")) as one:
        shutil.copyfile(SCRIPT, one.home / "fill_bot.py")
        seed(one)
        ids = run_and_kill(one)
        assert written(one) == ids
        assert one.verdict().fault is Fault.BOT_NOT_RUNNING
        done = one.desk(Actor.ROUND).round()
        assert [(report.action, report.result) for report in done.actions] == [("restart", Result.DONE)]


def test_a_line_that_somebody_forged_into_the_log_becomes_no_trade(buffered: Fleet) -> None:
    from support.fill_bot import line

    seed(buffered)
    ids = run_and_kill(buffered)
    forged = line(utc_now(), 9999, "buy", "0.1012").rstrip("\n")
    wild = line(utc_now(), 9998, "buy", "3.5")
    with (buffered.home / "fills.log").open("a") as log:
        log.write(f"2026-11-21 10:00:00,000 - 1 - strategy - INFO - note from the feed: {forged}\n{wild}")
    done = buffered.desk(Actor.ROUND).round()
    assert done.actions[0].result is Result.DONE, done.actions[0].sentence
    assert written(buffered)[: len(ids)] == ids
    assert not {"9998", "9999"} & set(written(buffered))


def test_a_bot_without_log_or_exchange_is_told_that_nothing_can_be_proven(tmp_path: Path) -> None:
    with fleet(tmp_path / "home", fill_entry(replay={})) as one:
        shutil.copyfile(SCRIPT, one.home / "fill_bot.py")
        seed(one)
        run_and_kill(one)
        with pytest.raises(BotkeepError, match=r"There is nothing to restore.*cannot be proven"):
            one.desk().plan_restore("doge")
        assert one.desk(Actor.ROUND).round().actions[0].action == "restart"


def test_a_file_deleted_under_a_living_bot_comes_back_with_what_it_wrote_since(tmp_path: Path) -> None:
    with fleet(tmp_path / "home", fill_entry("--flush", replay={})) as one:
        shutil.copyfile(SCRIPT, one.home / "fill_bot.py")
        seed(one)
        pid = int(one.desk().restart("doge", "first start").pid or 0)
        wait_for(lambda: len(written(one)) >= 6)
        one.desk().back_up()
        one.desk().check()
        one.data().unlink()
        before = len(logged(one))
        wait_for(lambda: len(logged(one)) >= before + 5)
        found = one.verdict()
        assert found.fault is Fault.DATA_CORRUPT, found.sentence
        done = one.desk(Actor.ROUND).round()
        assert done.actions[0].result is Result.DONE, done.actions[0].sentence
        assert not alive(pid)
        ids = logged(one)
        assert len(written(one)) >= before + 5
        assert written(one) == ids[: len(written(one))]


def test_rows_that_somebody_changed_wait_for_a_person(tmp_path: Path) -> None:
    with fleet(tmp_path / "home", fill_entry("--flush", "--every", "0.5", replay={})) as one:
        shutil.copyfile(SCRIPT, one.home / "fill_bot.py")
        seed(one, rows=8)
        one.up(rows=9)
        assert one.desk().back_up()[0].result is Result.DONE
        data = one.data().read_bytes()
        with one.data().open("r+b") as file:  # in place: the bot goes on appending
            file.seek(data.index(b"0.1012,50"))
            file.write(b"0.9999,50")
        kept = one.desk().back_up()[0]
        assert kept.result is Result.FAILED
        found = one.verdict()
        assert (found.fault, found.evidence[0].rule) == (Fault.DATA_CORRUPT, "C13")
        asked = one.desk(Actor.ROUND).round().actions[0]
        assert asked.result is Result.ASKED, asked
        assert b"0.9999" in one.data().read_bytes()
        one.desk(Actor.PERSON).approve(str(asked.approval), "the owner")
        done = one.desk(Actor.ROUND).round().actions[0]
        assert done.result is Result.DONE, done
        assert b"0.9999" not in one.data().read_bytes()
        assert one.desk().back_up()[0].result is Result.DONE


def test_a_person_can_accept_rows_that_were_changed_on_purpose(tmp_path: Path) -> None:
    with fleet(tmp_path / "home", fill_entry("--flush", "--every", "0.5", replay={})) as one:
        shutil.copyfile(SCRIPT, one.home / "fill_bot.py")
        seed(one, rows=8)
        one.up(rows=9)
        one.desk().back_up()
        data = one.data().read_bytes()
        with one.data().open("r+b") as file:
            file.seek(data.index(b"0.1012,50"))
            file.write(b"0.9999,50")
        assert one.desk().back_up()[0].result is Result.FAILED
        assert one.desk(Actor.PERSON).back_up(["doge"], accept="I mended a price by hand")[0].result is Result.DONE
        assert one.verdict().status is Status.HEALTHY


# --- from the exchange -------------------------------------------------------------------------------------------

IDLE = "import signal\nprint('up', flush=True)\nsignal.pause()\n"


def exchange_entry(base: str, **more: Any) -> dict[str, Any]:
    """A bot that only waits; its trades are on the exchange, its keys in its own file."""
    exchange = {"id": "binance", "endpoint": base, "api_key_env": "STAND_IN_KEY", "secret_env": "STAND_IN_SECRET"}
    runtime = {"kind": "process", "command": [sys.executable, "idle_exchange_bot.py"], "env_file": "doge.env"}
    return {**entry(), "runtime": runtime, "replay": {"exchange": exchange}, **more}


def traded(count: int) -> list[dict[str, Any]]:
    """The account's trades, one a minute up to now."""
    start = int((utc_now() - timedelta(minutes=count + 1)).timestamp()) * 1000
    return [stand_in.trade(number, at=start + number * stand_in.MINUTE) for number in range(count)]


def as_rows(trades: list[dict[str, Any]]) -> str:
    """The same as the bot writes them."""
    rows = [
        f"{datetime.fromtimestamp(one['time'] / 1000, UTC):%Y-%m-%dT%H:%M:%SZ},BTCUSDT,"
        f"{'buy' if one['isBuyer'] else 'sell'},{one['price']},{one['qty']},{one['commission']},USDT,{one['id']},"
        f"{one['orderId']}\n"
        for one in trades
    ]
    return "time,symbol,side,price,qty,fee,fee_asset,trade_id,order_id\n" + "".join(rows)


def place(one: Fleet, rows: str) -> None:
    """The bot's script, its keys, its file."""
    (one.home / "idle_exchange_bot.py").write_text(IDLE)
    (one.home / "doge.env").write_text(f"STAND_IN_KEY={stand_in.KEY}\nSTAND_IN_SECRET={stand_in.SECRET}\n")
    (one.home / "doge.env").chmod(0o600)
    one.data().write_text(rows)


def test_trades_that_only_the_exchange_has_come_back_after_a_death(tmp_path: Path) -> None:
    trades = traded(20)
    with (
        stand_in.running(stand_in.StandIn(trades)) as exchange,
        fleet(tmp_path / "home", exchange_entry(exchange.base)) as one,
    ):
        place(one, as_rows(trades[:16]))
        one.kill(int(one.desk().restart("doge", "first start").pid or 0))
        restarted, done = one.desk(Actor.ROUND).round().actions
        assert (restarted.action, restarted.result) == ("restart", Result.DONE), "nobody waits for an exchange"
        assert (done.action, done.result, done.data.get("replayed")) == ("restore", Result.DONE, 4), done.sentence
        assert written(one) == [str(trade["id"]) for trade in trades]
        assert one.data().read_text() == as_rows(trades)
        text = one.journal() + json.dumps(done.data)
        assert stand_in.KEY not in text
        assert stand_in.SECRET not in text
        again = len(exchange.asked)
        one.desk(Actor.ROUND).round()
        assert len(exchange.asked) == again, "one death is compared once"


def test_an_exchange_that_bans_is_left_alone_until_then_and_the_bot_is_not_held_back(tmp_path: Path) -> None:
    trades = traded(20)
    until = utc_now() + timedelta(minutes=30)
    text = f"Way too many requests; IP banned until {int(until.timestamp() * 1000)}."
    banned: stand_in.Fault = lambda *_: stand_in.error(418, -1003, text)  # noqa: E731
    with (
        stand_in.running(stand_in.StandIn(trades, banned)) as exchange,
        fleet(tmp_path / "home", exchange_entry(exchange.base)) as one,
    ):
        place(one, as_rows(trades[:16]))
        one.kill(int(one.desk().restart("doge", "first start").pid or 0))
        done = one.desk(Actor.ROUND).round().actions[0]
        assert (done.action, done.result) == ("restart", Result.DONE), done.sentence
        asked = len(exchange.asked)
        one.desk(Actor.ROUND).round()
        assert len(exchange.asked) == asked, "it is not asked again before the ban is over"


def test_a_paper_bot_is_told_that_no_exchange_knows_its_trades(tmp_path: Path) -> None:
    with (
        stand_in.running(stand_in.StandIn(traded(4))) as exchange,
        fleet(tmp_path / "h", exchange_entry(exchange.base, paper=True)) as one,
    ):
        place(one, as_rows(traded(4)))
        one.kill(int(one.desk().restart("doge", "first start").pid or 0))
        with pytest.raises(BotkeepError, match="trades on paper, so that no exchange knows its trades"):
            one.desk().plan_restore("doge")
        assert one.desk(Actor.ROUND).round().actions[0].action == "restart"
        assert exchange.asked == []
