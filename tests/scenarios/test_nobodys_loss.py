"""Completing a book must never undo an edit, double a trade, or keep a bot down: cases that naive versions lose."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from botkeep.formats import FORMATS, FormatOptions
from botkeep.model import Actor, BotkeepError, Fault, Result, Status, utc_now
from support.fill_bot import HEADER, line
from support.filling import fill_entry, filling, logged, run_and_kill, seed, written
from support.fleet import Fleet, alive, wait_for

SLOW = ("--flush", "--every", "0.5")


@pytest.fixture
def buffered(tmp_path: Path) -> Iterator[Fleet]:
    """A bot whose rows stay in its buffer."""
    with filling(tmp_path / "home") as one:
        yield one


@pytest.fixture
def careful(tmp_path: Path) -> Iterator[Fleet]:
    """A bot that writes each row at once, slowly."""
    with filling(tmp_path / "home", fill_entry(*SLOW)) as one:
        yield one


def edit(one: Fleet, old: bytes = b"0.1012,50", new: bytes = b"0.1100,50") -> None:
    """A person's hand, in place: the bot goes on appending."""
    data = one.data().read_bytes()
    with one.data().open("r+b") as file:
        file.seek(data.index(old))
        file.write(new)


def edited(one: Fleet) -> bool:
    """Whether the edit is still there."""
    return b"0.1100,50" in one.data().read_bytes()


def backed_up_and_edited(one: Fleet, *, known: bool) -> int:
    """A running bot whose file a person edited after its backup; `known`: the next backup has noticed. Its pid."""
    seed(one, rows=8)
    pid = one.up(rows=9)
    one.desk().back_up()
    edit(one)
    if known:
        assert one.desk().back_up()[0].result is Result.FAILED
    return pid


# --- the bot is not kept down --------------------------------------------------------------------------------------


def test_equal_fills_some_written_and_some_lost_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    with filling(tmp_path / "home", fill_entry("--every", "0.01")) as one:
        seed(one)
        ids = run_and_kill(one, fills=200)
        assert 3 < len(written(one)) < len(ids), "the buffer was written once, and not to its end"
        done = one.desk(Actor.ROUND).round().actions[0]
        assert (done.action, done.result) == ("restore", Result.DONE), done.sentence
        assert written(one)[: len(ids)] == ids


def test_what_a_person_mended_by_hand_is_not_missed_any_more(buffered: Fleet) -> None:
    seed(buffered)
    run_and_kill(buffered)
    assert buffered.verdict().evidence[0].rule == "R1"
    lost = [number for number in logged(buffered) if number not in written(buffered)]
    with buffered.data().open("a") as file:
        for number in lost:
            side, price = ("buy", "0.1012") if int(number) % 2 else ("sell", "0.1034")
            file.write(f"{utc_now():%Y-%m-%dT%H:%M:%SZ},DOGE-USDT,{side},{price},50,0.005,USDT,{number},o-{number}\n")
    assert buffered.verdict().fault is Fault.BOT_NOT_RUNNING
    assert buffered.desk(Actor.ROUND).round().actions[0].action == "restart"


def test_a_fresh_bot_that_died_before_its_first_row_was_written_gets_its_rows(buffered: Fleet) -> None:
    ids = run_and_kill(buffered)
    assert buffered.data().read_text() == HEADER
    done = buffered.desk(Actor.ROUND).round().actions[0]
    assert (done.action, done.result) == ("restore", Result.DONE), done.sentence
    assert written(buffered)[: len(ids)] == ids


def test_thousands_of_lost_trades_come_back_at_once(buffered: Fleet) -> None:
    seed(buffered)
    start = utc_now() - timedelta(minutes=4)
    with (buffered.home / "fills.log").open("a") as log:
        log.writelines(line(start + timedelta(milliseconds=20 * n), 5000 + n, "buy", "0.1012") for n in range(4000))
    done = buffered.desk(Actor.ROUND).round().actions[0]
    assert (done.result, done.data.get("replayed")) == (Result.DONE, 4000), done.sentence


def test_trades_that_cannot_be_added_are_told_and_the_bot_runs(buffered: Fleet) -> None:
    seed(buffered)
    run_and_kill(buffered)
    os.link(buffered.data(), buffered.home / "second-name.csv")
    done = buffered.desk(Actor.ROUND).round().actions[0]
    assert (done.action, done.result) == ("restart", Result.DONE), done.sentence
    found = buffered.verdict()
    assert found.status is Status.HEALTHY
    assert any("R1" in note and "hard links" in note for note in found.notes), found.notes


# --- an edit is not undone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_an_edit_is_not_undone_along_with_a_torn_row(careful: Fleet, known: bool) -> None:
    pid = backed_up_and_edited(careful, known=known)
    careful.kill(pid)
    with careful.data().open("a") as file:
        file.write("2026-11-21T15:00")
    asked = careful.desk(Actor.ROUND).round().actions[0]
    assert asked.result is Result.ASKED, asked.sentence
    assert edited(careful)


def test_an_edit_that_waits_for_a_person_is_not_undone_along_with_lost_trades(careful: Fleet) -> None:
    pid = backed_up_and_edited(careful, known=True)
    careful.kill(pid)
    with (careful.home / "fills.log").open("a") as log:
        log.write(line(utc_now() - timedelta(seconds=1), 77777, "buy", "0.1050"))
    assert careful.desk(Actor.ROUND).round().actions[0].result is Result.ASKED
    assert edited(careful)


def test_an_assistant_does_not_undo_an_edit_of_a_bot_that_its_person_stopped(careful: Fleet) -> None:
    seed(careful, rows=8)
    careful.up(rows=9)
    careful.desk().back_up()
    careful.desk(Actor.PERSON).stop("doge", "I mend a price")
    edit(careful)
    plan = careful.desk().plan_restore("doge")
    assert careful.desk().restore("doge", plan.id).result is Result.ASKED
    assert edited(careful)


def test_an_approval_counts_whatever_other_fault_stands_first(careful: Fleet) -> None:
    backed_up_and_edited(careful, known=True)
    careful.edit("disk-full", r"free_below: \w+", "free_below: 1000000GB")
    plan = careful.desk().plan_restore("doge")
    asked = careful.desk().restore("doge", plan.id)
    assert (careful.verdict().fault, asked.result) == (Fault.DISK_FULL, Result.ASKED)
    careful.desk(Actor.PERSON).approve(str(asked.approval), "the owner")
    again = careful.desk().plan_restore("doge")
    assert careful.desk().restore("doge", again.id).result is Result.DONE
    assert not edited(careful)


def test_what_is_edited_after_a_restore_is_not_taken_for_the_restore(careful: Fleet) -> None:
    seed(careful, rows=8)
    pid = careful.up(rows=9)
    careful.desk().back_up()
    careful.kill(pid)
    with careful.data().open("a") as file:
        file.write("2026-11-21T15:00")
    assert careful.desk(Actor.ROUND).round().actions[0].result is Result.DONE
    edit(careful)
    assert careful.desk().back_up()[0].result is Result.FAILED


def test_a_row_that_a_person_took_out_and_a_backup_accepted_stays_out(careful: Fleet) -> None:
    seed(careful, rows=8)
    careful.up(rows=9)
    careful.desk().back_up()
    careful.desk(Actor.PERSON).stop("doge", "I take out a wrong row")
    rows = careful.data().read_text().splitlines(keepends=True)
    gone = rows.pop(5)
    careful.data().write_text("".join(rows))
    assert careful.desk(Actor.PERSON).back_up(["doge"], accept="that was not mine")[0].result is Result.DONE
    careful.kill(int(careful.desk(Actor.PERSON).start("doge", "on with it").pid or 0))
    careful.desk(Actor.ROUND).round()
    assert gone not in careful.data().read_text()


# --- no trade twice ----------------------------------------------------------------------------------------------


def without_ids(one: Fleet, written_as: Callable[[datetime], str], rows: int = 40) -> None:
    """A file without ids beside a log of the same fills, three minutes apart."""
    start = utc_now().replace(microsecond=0, second=37) - timedelta(hours=4)
    text, log = "time,symbol,side,price,qty,fee,fee_asset\n", ""
    for number in range(rows):
        at = start + timedelta(minutes=3 * number)
        side, price = ("buy", "0.1012") if number % 2 == 0 else ("sell", "0.1034")
        text += f"{written_as(at)},DOGE-USDT,{side},{price},50,0.005,USDT\n"
        log += line(at, 1000 + number, side, price)
    one.data().write_text(text)
    (one.home / "fills.log").write_text(log)


@pytest.mark.parametrize(
    "written_as",
    [
        lambda at: f"{at:%Y-%m-%d %H:%M}",
        lambda at: f"{at + timedelta(hours=1):%Y-%m-%d %H:%M:%S}",
        lambda at: f"{at - timedelta(hours=5):%Y-%m-%d %H:%M:%S}",
    ],
    ids=["to the minute", "an hour ahead", "five hours behind"],
)
def test_a_log_whose_times_are_others_doubles_no_trade(buffered: Fleet, written_as: Callable[[datetime], str]) -> None:
    without_ids(buffered, written_as)
    done = buffered.desk(Actor.ROUND).round().actions
    assert [one.action for one in done] == ["restart"], [one.sentence for one in done]
    read = FORMATS["csv"].trades(buffered.data(), options=FormatOptions())
    assert len(read.fills) == 40


def test_two_bots_cannot_be_completed_from_one_log(tmp_path: Path) -> None:
    other = {**fill_entry(), "name": "pepe", "data_file": "data/pepe.csv"}
    other["runtime"] = {**other["runtime"], "command": [*other["runtime"]["command"], "--again"]}
    with filling(tmp_path / "home", fill_entry(), other) as one:
        assert "from the same log or account as pepe's" in one.verdict().sentence


def test_rows_before_a_rotation_do_not_come_back_into_the_new_file(buffered: Fleet) -> None:
    seed(buffered, rows=11)
    buffered.data().rename(buffered.data().with_name("doge.csv.1"))
    buffered.data().write_text(HEADER)
    ids = run_and_kill(buffered)
    buffered.desk(Actor.ROUND).round()
    old = FORMATS["csv"].trades(buffered.data().with_name("doge.csv.1"), options=FormatOptions()).fills
    assert not {fill.id for fill in old} & set(written(buffered)) - set(ids[11:])


def test_a_new_file_after_a_rotation_that_is_torn_keeps_to_itself(careful: Fleet) -> None:
    seed(careful, rows=11)
    pid = careful.up(rows=12)
    careful.desk().back_up()
    careful.kill(pid)
    careful.data().rename(careful.data().with_name("doge.csv.1"))
    at = utc_now()
    rows = [f"{at:%Y-%m-%dT%H:%M:%SZ},DOGE-USDT,buy,0.1012,50,0.005,USDT,{n},o-{n}\n" for n in range(3000, 3006)]
    careful.data().write_text(HEADER + "".join(rows) + "2026-11-21T15:00")
    careful.desk(Actor.ROUND).round()
    assert written(careful)[:6] == [str(n) for n in range(3000, 3006)]


# --- no death is forgotten ---------------------------------------------------------------------------------------


def test_a_stop_that_the_bot_leaves_to_its_default_is_an_unclean_end(tmp_path: Path) -> None:
    with filling(tmp_path / "home") as one:
        program = one.home / "fill_bot.py"
        handler = "signal.signal(signal.SIGTERM, lambda *_: done.set())"
        assert handler in program.read_text()
        program.write_text(program.read_text().replace(handler, "signal.getsignal(signal.SIGTERM)"))
        seed(one)
        one.desk().restart("doge", "first start")
        wait_for(lambda: len(logged(one)) >= 12)
        one.desk(Actor.PERSON).stop("doge", "by hand")
        ids = logged(one)
        assert len(written(one)) < len(ids)
        found = one.verdict()
        assert (found.status, "R1" in found.sentence) == (Status.STOPPED, True), found.sentence
        plan = one.desk(Actor.PERSON).plan_restore("doge")
        assert one.desk(Actor.PERSON).restore("doge", plan.id).result is Result.DONE
        assert set(ids) <= set(written(one))
        assert one.verdict().status is Status.STOPPED


def test_a_bot_that_somebody_else_started_is_compared_as_well(buffered: Fleet) -> None:
    seed(buffered)
    copy = buffered.copy_by_hand()
    wait_for(lambda: len(logged(buffered)) >= 12)
    assert buffered.verdict().status is Status.HEALTHY
    copy.kill()
    copy.wait()
    ids = logged(buffered)
    done = buffered.desk(Actor.ROUND).round().actions[0]
    assert (done.action, done.result) == ("restore", Result.DONE), done.sentence
    assert written(buffered)[: len(ids)] == ids


def test_rows_in_the_buffer_of_a_living_bot_are_no_loss(buffered: Fleet) -> None:
    seed(buffered)
    run_and_kill(buffered)
    with buffered.data().open("a") as file:
        file.write("2026-11-21T15:00")
    assert buffered.desk(Actor.ROUND).round().actions[0].result is Result.DONE
    before = len(logged(buffered))
    wait_for(lambda: len(logged(buffered)) >= before + 20)
    found = buffered.verdict()
    assert found.status is Status.HEALTHY, found.sentence
    assert alive(int(found.pid or 0))


def test_a_log_that_cannot_be_read_yet_is_compared_later(buffered: Fleet) -> None:
    seed(buffered)
    ids = run_and_kill(buffered)
    log, aside = buffered.home / "fills.log", buffered.home / "aside"
    log.rename(aside)
    assert buffered.verdict().fault is Fault.BOT_NOT_RUNNING
    aside.rename(log)
    assert buffered.verdict().evidence[0].rule == "R1"
    assert buffered.desk(Actor.ROUND).round().actions[0].action == "restore"
    assert written(buffered)[: len(ids)] == ids


def test_what_a_deleted_file_held_is_not_forgotten_by_a_restore_that_failed(tmp_path: Path) -> None:
    with filling(tmp_path / "home", fill_entry("--flush", replay={})) as one:
        seed(one)
        one.desk().restart("doge", "first start")
        wait_for(lambda: len(written(one)) >= 6)
        one.desk().back_up()
        one.desk().check()
        one.data().unlink()
        before = len(logged(one))
        wait_for(lambda: len(logged(one)) >= before + 20)
        plan = one.desk(Actor.PERSON).plan_restore("doge")
        shutil.move(one.home / ".botkeep/backups", one.home / "backups-away")
        failed = one.desk(Actor.PERSON).restore("doge", plan.id)
        assert failed.result is Result.FAILED, failed.sentence
        shutil.rmtree(one.home / ".botkeep/backups", ignore_errors=True)
        shutil.move(one.home / "backups-away", one.home / ".botkeep/backups")
        held = len(logged(one))
        again = one.desk(Actor.PERSON).plan_restore("doge")
        assert again.rescued
        done = one.desk(Actor.PERSON).restore("doge", again.id)
        assert done.result is Result.DONE, done.sentence
        assert len(written(one)) >= held - 1
        with pytest.raises(BotkeepError):
            one.desk(Actor.PERSON).plan_restore("doge")
        assert json.loads((one.home / "config/bots.json").read_text())["bots"][0]["name"] == "doge"


def test_a_file_that_an_editor_replaced_under_a_living_bot_gets_what_the_bot_wrote_since(tmp_path: Path) -> None:
    with filling(tmp_path / "home", fill_entry("--flush", replay={})) as one:
        seed(one)
        one.desk().restart("doge", "first start")
        wait_for(lambda: len(written(one)) >= 6)
        one.desk().back_up()
        copy = one.data().with_name("saved")
        shutil.copyfile(one.data(), copy)
        copy.replace(one.data())
        before = len(logged(one))
        wait_for(lambda: len(logged(one)) >= before + 10)
        found = one.verdict()
        assert (found.fault, found.evidence[0].rule) == (Fault.DATA_CORRUPT, "C14"), found.sentence
        done = one.desk(Actor.ROUND).round().actions[0]
        assert (done.action, done.result) == ("restore", Result.DONE), done.sentence
        ids = logged(one)
        assert len(written(one)) >= before + 10
        assert written(one) == ids[: len(written(one))]
        assert wait_for(lambda: one.verdict().status is Status.HEALTHY)


def test_a_stop_saves_what_only_the_bot_had_open(tmp_path: Path) -> None:
    with filling(tmp_path / "home", fill_entry("--flush", replay={})) as one:
        seed(one)
        one.desk().restart("doge", "first start")
        wait_for(lambda: len(written(one)) >= 6)
        one.desk().back_up()
        one.data().unlink()
        before = len(logged(one))
        wait_for(lambda: len(logged(one)) >= before + 10)
        assert one.desk(Actor.PERSON).stop("doge", "by hand").result is Result.DONE
        ids = logged(one)
        plan = one.desk(Actor.PERSON).plan_restore("doge")
        assert one.desk(Actor.PERSON).restore("doge", plan.id).result is Result.DONE
        assert written(one) == ids[: len(written(one))]
        assert len(written(one)) >= len(ids) - 1


def replaced_while_it_runs(one: Fleet, change: Callable[[str], str]) -> str:
    """A bot that writes into a deleted file, another one having taken its name; what that one holds."""
    seed(one, rows=8)
    one.up(rows=9)
    one.desk().back_up()
    copy = one.data().with_name("saved")
    copy.write_text(change(one.data().read_text()))
    copy.replace(one.data())
    before = len(logged(one))
    wait_for(lambda: len(logged(one)) >= before + 3)
    return one.data().read_text()


def test_the_file_that_took_the_name_of_a_deleted_one_is_in_quarantine_too(careful: Fleet) -> None:
    torn = replaced_while_it_runs(careful, lambda text: text[:-10])
    done = careful.desk(Actor.PERSON).restore("doge", careful.desk(Actor.PERSON).plan_restore("doge").id)
    assert done.result is Result.DONE, done.sentence
    folder = Path(done.data["quarantine"])
    assert (folder / "doge.csv").read_text() == torn
    assert len((folder / "doge.csv.deleted").read_text()) > len(torn)
    ids = logged(careful)
    assert written(careful) == ids[: len(written(careful))]


def test_a_plan_for_the_file_itself_is_not_carried_out_on_what_a_deleted_one_held(careful: Fleet) -> None:
    seed(careful, rows=8)
    careful.up(rows=9)
    careful.desk().back_up()
    careful.desk(Actor.PERSON).stop("doge", "by hand")
    whole = careful.data().read_text()
    with careful.data().open("r+b") as file:  # somebody else, who only reads, keeps an older one open
        older = os.open(careful.data(), os.O_RDONLY)
        newer = careful.data().with_name("saved")
        newer.write_text(whole + whole.splitlines(keepends=True)[-1].replace(",o-", ",p-").replace("USDT,1", "USDT,9"))
        newer.replace(careful.data())
        file.flush()
    try:
        edit(careful)
        plan = careful.desk(Actor.PERSON).plan_restore("doge")
        assert (plan.from_held, plan.findings[0].rule) == (False, "C13")
        done = careful.desk(Actor.PERSON).restore("doge", plan.id)
        assert done.result is Result.DONE, done.sentence
        assert len(written(careful)) == len(whole.splitlines()), (
            "the newest row, which only the file itself has, is there"
        )
    finally:
        os.close(older)
