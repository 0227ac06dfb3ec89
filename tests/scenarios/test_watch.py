"""`botkeep watch`: real bots that die, freeze and come back, and a real watcher beside other callers."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from botkeep import heartbeat
from botkeep.durable import Lock
from botkeep.ledger import Kind, Ledger
from botkeep.model import Actor, Status, utc_now
from support.fleet import Fleet, alive, entry, fleet, wait_for
from support.watcher import BOTKEEP, Watcher, watching


@pytest.fixture
def bots(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, entry("doge"), entry("btc", "BTCUSDT")) as found:
        (found.home / "config/schedule.json").unlink()
        yield found


def pid_of(found: Fleet, bot: str = "doge") -> int:
    return int(found.desk().check([bot], confirm=False).verdicts[0].pid or 0)


def follows(watcher: Watcher, pid: int) -> bool:
    """Whether the watcher has a pidfd of that process: from the kernel's own list."""
    folder = Path(f"/proc/{watcher.process.pid}/fdinfo")
    return any(f"\nPid:\t{pid}\n" in text for text in map(_text, folder.iterdir()))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def outcomes(found: Fleet, bot: str = "doge") -> list[str]:
    ledger = Ledger(found.workspace.ledger_file)
    try:
        return [one.sentence for one in ledger.entries(bot=bot, kinds=[Kind.OUTCOME])]
    finally:
        ledger.close()


def test_a_killed_bot_runs_again_in_the_same_second_and_the_other_one_is_left_alone(bots: Fleet) -> None:
    first, other = bots.up("doge"), bots.up("btc")
    with watching(bots.home) as watcher:
        wait_for(lambda: follows(watcher, first) and follows(watcher, other))
        began = time.monotonic()
        bots.kill(first)
        second = wait_for(lambda: (now := pid_of(bots)) not in (0, first) and now)
        assert time.monotonic() - began < 5.0
        watcher.said("done: doge was restarted")
        wait_for(lambda: follows(watcher, second))
    assert pid_of(bots, "btc") == other
    assert sum("was restarted" in one for one in outcomes(bots)) == 1


def test_a_bot_that_freezes_is_seen_although_nobody_is_told_of_that(bots: Fleet) -> None:
    first = bots.up("doge")
    with watching(bots.home) as watcher:
        wait_for(lambda: follows(watcher, first))
        began = time.monotonic()
        os.kill(first, signal.SIGSTOP)
        wait_for(lambda: not alive(first), 15)
        assert time.monotonic() - began < 12
        watcher.said("is frozen")
        assert "was restarted" in watcher.said("done: doge")


def test_a_second_watcher_says_who_watches_and_exits_with_2(bots: Fleet) -> None:
    with watching(bots.home) as watcher:
        second = subprocess.run(
            [BOTKEEP, "watch", "--home", str(bots.home)], capture_output=True, text=True, timeout=30, check=False
        )
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert f"is watched already (pid {watcher.process.pid}, since " in second.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_ends_at_once_and_its_bots_go_on(bots: Fleet, number: signal.Signals) -> None:
    pid = bots.up("doge")
    with watching(bots.home) as watcher:
        wait_for(lambda: follows(watcher, pid))
        began = time.monotonic()
        assert watcher.end(number) == 0
        assert time.monotonic() - began < 3
        assert f"ended by {number.name}" in watcher.lines[-1]
    assert alive(pid)
    assert heartbeat.problem(bots.workspace, bots.desk().ledger, utc_now()) == ""


def test_it_ends_at_once_in_the_middle_of_a_restart_and_the_next_look_settles_that(bots: Fleet) -> None:
    bots.edit("bot-not-running", r"up_for: \w+, within: \w+", "up_for: 20s, within: 30s")
    first = started(bots, "doge")
    with watching(bots.home) as watcher:
        wait_for(lambda: follows(watcher, first))
        bots.kill(first)
        second = wait_for(lambda: (now := pid_of(bots)) not in (0, first) and now)
        began = time.monotonic()
        assert watcher.end() == 0
        assert time.monotonic() - began < 3
    assert "turns were under way" in watcher.lines[-1]
    assert alive(second)
    assert bots.verdict("doge").status is Status.HEALTHY
    assert sum("found at the next look" in one for one in outcomes(bots)) == 1
    bots.edit("bot-not-running", r"up_for: \w+, within: \w+", "up_for: 1s, within: 30s")


def started(found: Fleet, bot: str) -> int:
    """Started by hand, which nobody waits for."""
    process = found.copy_by_hand(bot)
    wait_for(lambda: found.rows(bot) >= 3)
    return process.pid


def test_a_killed_watcher_is_missed_by_the_next_check_and_a_new_one_goes_on(bots: Fleet) -> None:
    first = bots.up("doge")
    with watching(bots.home) as watcher:
        wait_for(lambda: follows(watcher, first))
        watcher.process.kill()
        watcher.process.wait()
    bots.kill(first)
    problems = bots.desk().check(["doge"], confirm=False).problems
    assert any(f"botkeep watch (pid {watcher.process.pid}) is dead" in one for one in problems)
    with watching(bots.home) as again:
        again.said("done: doge was restarted")
        assert not any("is dead" in one for one in bots.desk().check(["doge"], confirm=False).problems)


def test_nobody_misses_a_watcher_that_was_forgotten(bots: Fleet) -> None:
    with watching(bots.home) as watcher:
        refused = subprocess.run([BOTKEEP, "watch", "--forget", "--home", str(bots.home)], capture_output=True)
        assert refused.returncode == 2
        watcher.process.kill()
        watcher.process.wait()
    assert heartbeat.problem(bots.workspace, bots.desk().ledger, utc_now())
    subprocess.run([BOTKEEP, "watch", "--forget", "--home", str(bots.home)], check=True, capture_output=True)
    assert not heartbeat.problem(bots.workspace, bots.desk().ledger, utc_now())


def age_of_beat(found: Fleet, seconds: float) -> None:
    """As if the newest sign of life were so old."""
    ledger = found.desk().ledger
    kept = dict(ledger.cursor("", heartbeat.CURSOR) or {})
    ledger.set_cursor("", heartbeat.CURSOR, {**kept, "ticks": kept["ticks"] - seconds})


def botkeep(found: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BOTKEEP, *words, "--home", str(found.home)], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_watcher_that_hangs_is_missed_by_whoever_looks_although_it_has_the_lock(bots: Fleet) -> None:
    with watching(bots.home) as watcher:
        pid = watcher.process.pid
        assert not heartbeat.problem(bots.workspace, bots.desk().ledger, utc_now())
        os.kill(pid, signal.SIGSTOP)
        age_of_beat(bots, heartbeat.EVERY.total_seconds() * heartbeat.LATE)
        hangs = f"botkeep watch (pid {pid}) hangs: it was last heard of at"
        for words in (("check",), ("check", "--json"), ("round",), ("watch",)):
            done = botkeep(bots, *words)
            assert hangs in done.stdout + done.stderr, words
            assert f"End it (`kill -9 {pid}`) and start it again: `botkeep watch`." in done.stdout + done.stderr, words


def test_a_watcher_that_was_killed_is_missed_by_checks_and_rounds_with_what_to_do(bots: Fleet) -> None:
    with watching(bots.home) as watcher:
        watcher.process.kill()
        watcher.process.wait()
    for words in (("check",), ("check", "--json"), ("round",)):
        said = botkeep(bots, *words).stdout
        assert f"botkeep watch (pid {watcher.process.pid}) is dead" in said, words
        assert "Start it again: `botkeep watch`" in said, words


def test_a_ledger_that_somebody_holds_keeps_it_from_nothing_but_acting(bots: Fleet) -> None:
    configure_intervals(bots, 5)
    with watching(bots.home) as watcher:
        holder = sqlite3.connect(bots.workspace.ledger_file, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        try:
            fed = (bots.home / "config/bots.json").read_text()
            time.sleep(6)  # both bots have had a turn, which waits for the ledger
            (bots.home / "config/bots.json").write_text("{")
            watcher.said("config/bots.json: not JSON", 10)
            (bots.home / "config/bots.json").write_text(fed)
            watcher.said("config/bots.json is good again", 10)
            began = time.monotonic()
            assert watcher.end() == 0
            assert time.monotonic() - began < 3
        finally:
            holder.execute("ROLLBACK")
            holder.close()


def configure_intervals(found: Fleet, seconds: int) -> None:
    file = found.home / "config/bots.json"
    entries = json.loads(file.read_text())["bots"]
    file.write_text(json.dumps({"bots": [{**one, "check_interval": seconds} for one in entries]}))


def newest_look(found: Fleet, bot: str) -> datetime:
    ledger = Ledger(found.workspace.ledger_file)
    try:
        return max(one.last for one in ledger.spans(bot))
    finally:
        ledger.close()


def test_an_edited_check_interval_holds_from_the_edit_on_and_not_from_the_next_turn_on(bots: Fleet) -> None:
    configure_intervals(bots, 86400)
    bots.up("doge")
    with watching(bots.home) as watcher:
        began = utc_now()
        wait_for(lambda: follows(watcher, pid_of(bots)))
        configure_intervals(bots, 5)
        first = wait_for(lambda: (at := newest_look(bots, "doge")) > began and at)
        wait_for(lambda: newest_look(bots, "doge") > first, 15)


def test_a_mistake_in_one_entry_is_said_at_once_and_its_end_too(bots: Fleet) -> None:
    bots.up("doge")
    bots.up("btc")
    file = bots.home / "config/bots.json"
    good = file.read_text()
    with watching(bots.home) as watcher:
        entries = json.loads(good)["bots"]
        file.write_text(json.dumps({"bots": [{**entries[0], "check_interval": 1}, entries[1]]}))
        watcher.said("unknown: doge cannot be looked at: config/bots.json $.bots[0].check_interval: found 1")
        file.write_text(good)
        watcher.said("healthy: doge runs")


def test_a_bot_that_is_renamed_goes_on_as_the_one_copy_that_it_is(bots: Fleet) -> None:
    pid = bots.up("doge")
    file = bots.home / "config/bots.json"
    good = file.read_text()
    with watching(bots.home) as watcher:
        wait_for(lambda: follows(watcher, pid))
        file.write_text(good.replace('"name": "doge"', '"name": "shiba"'))
        wait_for(lambda: bots.desk().ledger.spans("shiba"))
        assert bots.desk().check(["shiba"], confirm=False).verdicts[0].pid == pid
        assert alive(pid)
        assert not any("shiba was" in line or "doge was" in line for line in watcher.lines)
    file.write_text(good)


def test_a_bot_added_to_the_configuration_is_looked_after_and_a_removed_one_is_not(bots: Fleet) -> None:
    first, other = bots.up("doge"), bots.up("btc")
    file = bots.home / "config/bots.json"
    both = file.read_text()
    file.write_text(json.dumps({"bots": [entry("doge")]}))
    with watching(bots.home) as watcher:
        wait_for(lambda: follows(watcher, first))
        assert not follows(watcher, other)
        file.write_text(both)
        wait_for(lambda: follows(watcher, other))
        file.write_text(json.dumps({"bots": [entry("btc", "BTCUSDT")]}))
        wait_for(lambda: not follows(watcher, first))
        file.write_text(both)


def test_a_broken_edit_keeps_the_last_good_fleet_and_is_said_once(bots: Fleet) -> None:
    first = bots.up("doge")
    file = bots.home / "config/bots.json"
    good = file.read_text()
    with watching(bots.home) as watcher:
        wait_for(lambda: follows(watcher, first))
        file.write_text(good[:-5])
        line = watcher.said("The last good fleet stays in force")
        assert "config/bots.json: not JSON at line" in line
        bots.kill(first)
        watcher.said("done: doge was restarted")
        file.write_text(good)
    assert sum("The last good fleet" in one for one in watcher.lines) == 1


def test_a_bot_whose_endpoint_never_answers_delays_nobody_elses_restart(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/health"
        slow = entry("btc", "BTCUSDT", health_endpoint=url, check_interval=5)
        with fleet(tmp_path, entry("doge"), slow) as bots:
            bots.edit("health-endpoint-failing", r"answer_within: \w+", "answer_within: 8s")
            first = bots.up("doge")
            bots.desk(Actor.PERSON).restart("btc", "first start")
            with watching(bots.home) as watcher:
                wait_for(lambda: follows(watcher, first))
                mute.settimeout(30)
                asked, _ = mute.accept()  # from here on a look at the other bot waits for eight seconds
                with asked:
                    began = time.monotonic()
                    bots.kill(first)
                    watcher.said("done: doge was restarted", 7)
                    assert time.monotonic() - began < 6.5
            bots.edit("health-endpoint-failing", r"answer_within: \w+", "answer_within: 1s")


def test_a_cron_round_beside_it_restarts_nothing_twice(bots: Fleet) -> None:
    first = bots.up("doge")
    with watching(bots.home) as watcher:
        wait_for(lambda: follows(watcher, first))
        bots.kill(first)
        rounds = [
            subprocess.Popen([BOTKEEP, "round", "--home", str(bots.home)], stdout=subprocess.DEVNULL) for _ in range(2)
        ]
        for one in rounds:
            one.wait(60)
        wait_for(lambda: any("doge" in line for line in watcher.lines))
    assert sum("was restarted" in one for one in outcomes(bots)) == 1
    assert bots.verdict("doge").status is Status.HEALTHY


def test_a_bot_stopped_on_purpose_is_left_down(bots: Fleet) -> None:
    first = bots.up("doge")
    with watching(bots.home) as watcher:
        wait_for(lambda: follows(watcher, first))
        assert bots.desk(Actor.PERSON).stop("doge", "a test").ok
        watcher.said("stopped: doge is stopped on purpose")
    assert pid_of(bots) == 0


def test_a_bot_that_backs_off_is_started_when_its_time_has_come(bots: Fleet) -> None:
    bots.edit("bot-not-running", r"backoff: .*", "backoff: [0s, 4s, 60m]")
    first = bots.up("doge")
    with watching(bots.home) as watcher:
        wait_for(lambda: follows(watcher, first))
        bots.kill(first)
        watcher.said("done: doge was restarted")
        second = wait_for(lambda: pid_of(bots))
        wait_for(lambda: follows(watcher, second))
        bots.kill(second)
        watcher.said("has to back off", 30)
        third = wait_for(lambda: (now := pid_of(bots)) not in (0, first, second) and now, 30)
        wait_for(lambda: follows(watcher, third))
    assert sum("was restarted" in one for one in outcomes(bots)) == 2


def test_the_lock_is_the_kernels_and_free_after_a_kill(bots: Fleet) -> None:
    with watching(bots.home) as watcher:
        assert not Lock(bots.workspace.state_dir / "watch.lock").acquire()
        watcher.process.kill()
        watcher.process.wait()
    lock = Lock(bots.workspace.state_dir / "watch.lock")
    assert lock.acquire(wait=5)
    lock.release()


def test_a_spare_launcher_ends_with_its_watcher(bots: Fleet) -> None:
    with watching(bots.home) as watcher:
        spare = wait_for(lambda: children(watcher.process.pid))
        watcher.process.kill()
        watcher.process.wait()
        wait_for(lambda: not any(map(alive, spare)))


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text() if sys.platform == "linux" else ""
    return [int(one) for one in text.split()]
