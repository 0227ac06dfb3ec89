"""`botkeep watch` as a service, from the files that botkeep writes: under a real systemd and a real supervisord that
start it, have it killed and stopped, while the bots that it started live on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from botkeep import heartbeat
from botkeep.cli import main
from botkeep.ledger import Kind, Ledger
from botkeep.model import Status, utc_now
from support.fleet import Fleet, alive, entry, fleet, wait_for
from support.supervisor import Supervisor
from support.systemd_box import Box, box
from support.watcher import follows_with, watching

SERVICE = "botkeep-watch.service"
OFTEN = "backoff: [0s, 0s, 0s, 0s, 60m]"
"""These bots are killed more often than real ones."""


def pid_of(found: Fleet, bot: str = "doge") -> int:
    return int(found.desk().check([bot], confirm=False).verdicts[0].pid or 0)


def restarts(found: Fleet, bot: str = "doge") -> int:
    """That botkeep made."""
    ledger = Ledger(found.workspace.ledger_file)
    try:
        told = [one.sentence for one in ledger.entries(bot=bot, kinds=[Kind.OUTCOME])]
    finally:
        ledger.close()
    return sum("was restarted" in one for one in told)


@contextmanager
def often(home: Path, *bots: dict[str, Any]) -> Iterator[Fleet]:
    with fleet(home, *bots) as found:
        (home / "config/schedule.json").unlink()
        found.edit("bot-not-running", r"backoff: .*", OFTEN)
        yield found


# ---------------------------------------------------------------------------------------------------- systemd


class Units:
    """The units that botkeep writes for a workspace, known to a real systemd."""

    def __init__(self, found: Fleet, box: Box) -> None:
        self.found, self.box = found, box
        out = found.home / "units"
        assert main(["--home", str(found.home), "systemd-units", "--user", "--out", str(out)]) == 0
        for path in out.glob("botkeep*.*"):
            if path.suffix in (".service", ".timer"):
                box.write(path.name, path.read_text())
        box.enable(SERVICE)

    def start(self) -> int:
        """As a person does; gives the pid of the watcher, which watches by then."""
        done = self.box.ctl("start", SERVICE)
        assert done.returncode == 0, done.stderr
        return self.pid

    @property
    def pid(self) -> int:
        """Of the watcher; 0: there is none."""
        return int(self.box.show(SERVICE, "MainPID")[0])

    def newer(self, than: int, seconds: float = 30.0) -> int:
        """The next watcher, once it watches."""
        return int(wait_for(lambda: self.state == "active" and (pid := self.pid) not in (0, than) and pid, seconds))

    @property
    def state(self) -> str:
        return self.box.show(SERVICE, "ActiveState")[0]


@pytest.fixture
def units(tmp_path: Path) -> Iterator[Units]:
    with often(tmp_path / "home", entry("doge")) as found:
        made = box()
        try:
            yield Units(found, made)
        finally:
            made.ctl("stop", SERVICE)
            found.clear()
            made.close()


def test_a_watcher_that_is_killed_comes_back_and_brings_back_the_bot_that_died_meanwhile_once(units: Units) -> None:
    first = units.found.up()
    watcher = units.start()
    wait_for(lambda: follows_with(watcher, first))
    os.kill(watcher, signal.SIGKILL)
    wait_for(lambda: not alive(watcher))
    units.found.kill(first)
    again = units.newer(watcher)
    second = wait_for(lambda: (now := pid_of(units.found)) not in (0, first) and now)
    wait_for(lambda: follows_with(again, second))
    assert restarts(units.found) == 1
    assert units.found.verdict().status is Status.HEALTHY
    assert not heartbeat.problem(units.found.workspace, units.found.desk().ledger, utc_now())


def test_a_bot_that_the_watcher_started_outlives_its_restart_and_its_stop(units: Units) -> None:
    first = units.found.up()
    watcher = units.start()
    wait_for(lambda: follows_with(watcher, first))
    units.found.kill(first)
    second = int(wait_for(lambda: (now := pid_of(units.found)) not in (0, first) and now))
    assert SERVICE in Path(f"/proc/{second}/cgroup").read_text(), "it is in the watcher's control group"
    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{second}/environ").read_bytes()
    wait_for(lambda: restarts(units.found) == 1)
    assert units.box.ctl("restart", SERVICE).returncode == 0
    assert units.pid not in (0, watcher)
    wait_for(lambda: follows_with(units.pid, second))
    began = time.monotonic()
    assert units.box.ctl("stop", SERVICE).returncode == 0
    assert time.monotonic() - began < 5
    assert set(units.box.show(SERVICE, "ActiveState", "Result")) == {"inactive", "success"}
    assert alive(second)
    assert pid_of(units.found) == second
    assert restarts(units.found) == 1


def test_a_watcher_that_hangs_is_started_anew_by_systemd(tmp_path: Path) -> None:
    with often(tmp_path / "home", entry("doge", check_interval=5)) as found:
        made = box()
        try:
            units = Units(found, made)
            text = (made.units / SERVICE).read_text()
            made.write(SERVICE, text.replace("WatchdogSec=180", "WatchdogSec=12"))
            made.reload()
            found.up()
            watcher = units.start()
            said = made.show(SERVICE, "WatchdogTimestampMonotonic")
            wait_for(lambda: made.show(SERVICE, "WatchdogTimestampMonotonic") != said)
            os.kill(watcher, signal.SIGSTOP)
            units.newer(watcher, 40)
            assert not alive(watcher)
        finally:
            made.ctl("stop", SERVICE)
            found.clear()
            made.close()


def test_a_service_takes_over_from_a_watcher_by_hand_and_never_are_there_two(units: Units) -> None:
    first = units.found.up()
    with watching(units.found.home) as by_hand:
        wait_for(lambda: follows_with(by_hand.process.pid, first))
        assert units.box.ctl("start", SERVICE).returncode != 0, "a start that does not watch is none"
        wait_for(lambda: int(units.box.show(SERVICE, "NRestarts")[0]) >= 2)
        assert by_hand.process.poll() is None
        assert by_hand.end() == 0
        watcher = units.newer(0)
        wait_for(lambda: follows_with(watcher, first))
    assert restarts(units.found) == 0


def test_a_round_by_the_timers_unit_says_that_the_watcher_is_dead_and_does_its_work(tmp_path: Path) -> None:
    with often(tmp_path / "home", entry("doge")) as found:
        tasks = [{"schedule": "*/5 * * * *", "task": "bot_health_check"}]
        (found.home / "config/schedule.json").write_text(json.dumps(tasks))
        made = box()
        try:
            units = Units(found, made)
            first = found.up()
            watcher = units.start()
            wait_for(lambda: follows_with(watcher, first))
            made.write(SERVICE, (made.units / SERVICE).read_text().replace("Restart=always", "Restart=no"))
            made.reload()
            os.kill(watcher, signal.SIGKILL)
            wait_for(lambda: units.state == "failed")
            found.kill(first)
            made.ctl("start", "botkeep.service")
            assert pid_of(found) not in (0, first)
            problems = found.desk().check(["doge"], confirm=False).problems
            assert any(f"botkeep watch (pid {watcher}) is dead" in one for one in problems)
        finally:
            found.clear()
            made.close()


# ---------------------------------------------------------------------------------------------------- supervisord


def test_under_supervisord_a_killed_watcher_comes_back_and_its_stop_leaves_the_bots_alive(tmp_path: Path) -> None:
    supervisor = Supervisor()
    runtime = {**entry("kept")["runtime"], "kind": "supervisord", "server": supervisor.server, "program": "kept"}
    runtime["command"][-1] = "data/kept.csv"
    kept = {**entry("kept", "BTCUSDT"), "runtime": runtime}
    with often(tmp_path / "home", kept) as found:
        supervisor.made = found.home / "supervisord.conf"
        assert main(["--home", str(found.home), "supervisord-config", "--out", str(supervisor.made)]) == 0
        bots = {"bots": [kept, entry("plain")]}
        (found.home / "config/bots.json").write_text(json.dumps(bots))
        try:
            first = found.up("plain")
            supervisor.up()
            watcher = int(wait_for(lambda: running(supervisor, "botkeep-watch")))
            other = int(wait_for(lambda: running(supervisor, "kept")))
            wait_for(lambda: follows_with(watcher, first) and follows_with(watcher, other))
            os.kill(watcher, signal.SIGKILL)
            wait_for(lambda: not alive(watcher))
            found.kill(first)
            again = int(wait_for(lambda: (pid := running(supervisor, "botkeep-watch")) not in (0, watcher) and pid))
            second = int(wait_for(lambda: (now := pid_of(found, "plain")) not in (0, first) and now))
            wait_for(lambda: follows_with(again, second) and follows_with(again, other))
            assert restarts(found, "plain") == 1
            assert supervisor.rpc.stopProcess("botkeep-watch")
            assert not alive(again)
            assert (alive(second), alive(other), restarts(found, "kept")) == (True, True, 0)
            assert "ended by SIGTERM" in (found.home / ".botkeep/watch.log").read_text()
            assert not heartbeat.problem(found.workspace, found.desk().ledger, utc_now())
        finally:
            with suppress(Exception):
                supervisor.rpc.stopProcess("botkeep-watch")
            found.clear()
            supervisor.close()


def running(supervisor: Supervisor, program: str) -> int:
    """The pid of a program that runs; 0: it does not."""
    return supervisor.process(program) if supervisor.state(program) == "RUNNING" else 0


def test_supervisord_ends_the_watcher_before_the_bots_that_it_would_bring_back(tmp_path: Path) -> None:
    supervisor = Supervisor()
    runtime = {**entry("last")["runtime"], "kind": "supervisord", "server": supervisor.server, "program": "last"}
    with often(tmp_path / "home", {**entry("last"), "runtime": runtime}) as found:
        supervisor.made = found.home / "supervisord.conf"
        assert main(["--home", str(found.home), "supervisord-config", "--out", str(supervisor.made)]) == 0
        try:
            supervisor.up()
            wait_for(lambda: running(supervisor, "botkeep-watch"))
            wait_for(lambda: running(supervisor, "last"))
            supervisor.rpc.shutdown()
            assert supervisor.children[-1].wait(30) == 0
            log = (found.home / ".botkeep/supervisord.log").read_text()
            assert log.index("stopped: botkeep-watch") < log.index("stopped: last")
            assert log.index("spawned: 'last'") < log.index("spawned: 'botkeep-watch'")
            assert restarts(found, "last") == 0
        finally:
            supervisor.close()
