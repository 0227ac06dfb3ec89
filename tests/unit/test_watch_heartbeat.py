"""That a watcher lives: what the next look says, and what a dead-man's switch outside is told."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path

import pytest

from botkeep import heartbeat
from botkeep.config import load_fleet
from botkeep.ledger import Ledger
from botkeep.model import BotkeepError, ConfigError, utc_now
from botkeep.pack import init
from botkeep.workspace import Workspace
from support.fleet import entry, fleet, wait_for
from support.listener import listening
from support.watcher import watching

NAMED = "${BOTKEEP_TEST_PING}"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    init(tmp_path, utc_now())
    place = Workspace(tmp_path)
    place.prepare()
    return place


def test_who_was_told_to_end_is_not_missed_and_who_died_is(workspace: Workspace) -> None:
    ledger, now = Ledger(workspace.ledger_file), utc_now()
    assert heartbeat.problem(workspace, ledger, now) == ""
    value = {"pid": 1, "began": heartbeat.iso(now), "at": heartbeat.iso(now), "ended": False}
    ledger.set_cursor("", heartbeat.CURSOR, value)
    assert "botkeep watch (pid 1) is dead: it was last heard of at" in heartbeat.problem(workspace, ledger, now)
    with heartbeat.lock_of(workspace) as lock:
        assert lock.acquire()
        assert heartbeat.problem(workspace, ledger, now) == ""
        assert "hangs" in heartbeat.problem(workspace, ledger, now + timedelta(minutes=4))
        ledger.set_cursor("", heartbeat.CURSOR, {**value, "ticks": 1000.0})
        said = heartbeat.problem(workspace, ledger, now, 1000.0 + 240)
        assert "hangs: it was last heard of at" in said
        assert said.endswith("End it (`kill -9 1`) and start it again: `botkeep watch`.")
        for moved in (timedelta(days=1), timedelta(hours=-1)):  # the clock was set, or the machine slept
            assert heartbeat.problem(workspace, ledger, now + moved, 1000.0 + 59) == ""
        assert "hangs" in heartbeat.problem(workspace, ledger, now - timedelta(hours=1), 1000.0 + 240)
    ledger.set_cursor("", heartbeat.CURSOR, {**value, "ended": True})
    assert heartbeat.problem(workspace, ledger, now + timedelta(days=1)) == ""
    ledger.close()


def test_a_url_is_asked_in_order_and_its_secret_is_never_shown() -> None:
    with listening() as server:
        outside = heartbeat.Outside()
        for word in ("start", "", "fail"):
            outside.say(f"{server.url}/{NAMED}/", word, {"BOTKEEP_TEST_PING": "s3cret"})
        outside.flush(10)
        assert server.paths == ["/s3cret/start", "/s3cret/", "/s3cret/fail"]
        server.status = 404
        outside.say(f"{server.url}/{NAMED}", "", {"BOTKEEP_TEST_PING": "s3cret"})
        outside.flush(10)
        assert outside.problem == "heartbeat_url answered 404; look whether it is right."
    outside.say(f"{server.url}/{NAMED}", "", {"BOTKEEP_TEST_PING": "s3cret"})
    outside.flush(10)
    assert "could not be asked" in outside.problem
    assert "s3cret" not in outside.problem
    outside.say(NAMED, "", {})
    assert "${BOTKEEP_TEST_PING}, which is set neither" in outside.problem


def said_by(outside: heartbeat.Outside, url: str) -> str:
    """What hindered one word."""
    outside.say(url, "", {})
    outside.flush(20)
    return outside.problem


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_followed_on_the_same_server_and_counts_as_lost_on_another(status: int) -> None:
    with listening() as server, listening() as other:
        outside = heartbeat.Outside()
        server.status, server.moved_to = status, other.url
        assert said_by(outside, server.url) == "", "https of the same server has another port"
        server.moved_to = other.url.replace("127.0.0.1", "localhost")
        assert said_by(outside, server.url).startswith("heartbeat_url leads to another server")
        server.moved_to = server.url
        assert said_by(outside, server.url) == f"heartbeat_url answered {status}; look whether it is right."


def test_a_server_in_trouble_is_named_until_it_is_well_again() -> None:
    with listening() as server:
        outside = heartbeat.Outside()
        server.status = 500
        assert said_by(outside, server.url) == "heartbeat_url answered 500; look whether it is right."
        server.status = 200
        assert said_by(outside, server.url) == ""


def test_a_body_that_never_ends_is_not_waited_for() -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as endless:
        kept: list[socket.socket] = []

        def answer() -> None:
            connection, _ = endless.accept()
            kept.append(connection)
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n.")

        threading.Thread(target=answer, daemon=True).start()
        began = time.monotonic()
        assert said_by(heartbeat.Outside(), f"http://127.0.0.1:{endless.getsockname()[1]}") == ""
        assert time.monotonic() - began < 5
        for one in kept:
            one.close()


def test_a_variable_that_is_not_set_is_an_error() -> None:
    with pytest.raises(BotkeepError, match="heartbeat_url names"):
        heartbeat.expanded("https://hc-ping.com/${NOBODY}", {})


def test_a_server_that_never_answers_delays_nobody() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        outside = heartbeat.Outside()
        began = time.monotonic()
        for _ in range(3 * heartbeat.WAITING):
            outside.say(f"http://127.0.0.1:{mute.getsockname()[1]}", "", {})
        assert time.monotonic() - began < 1


@pytest.mark.parametrize(("written", "says"), [("ftp://x", "only http and https"), (7, "heartbeat_url")])
def test_another_kind_of_url_is_refused(workspace: Workspace, written: object, says: str) -> None:
    workspace.bots_file.write_text(json.dumps({"bots": [], "heartbeat_url": written}))
    with pytest.raises(ConfigError, match=says):
        load_fleet(workspace)


def test_a_watcher_tells_outside_that_it_began_and_that_all_was_looked_at(tmp_path: Path) -> None:
    with listening() as server, fleet(tmp_path, entry("doge", check_interval=5)) as bots:
        (bots.home / "config/schedule.json").unlink()
        bots.up()
        file = bots.home / "config/bots.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "heartbeat_url": f"{server.url}/{NAMED}"}))
        with watching(bots.home, {"BOTKEEP_TEST_PING": "abc"}):
            wait_for(lambda: server.paths[:2] == ["/abc/start", "/abc"])
            wait_for(lambda: len(server.paths) >= 3)
            assert set(server.paths[2:]) == {"/abc"}
            ledger = bots.workspace.ledger_file
            ledger.rename(ledger.with_suffix(".away"))
            ledger.mkdir()
            wait_for(lambda: "/abc/fail" in server.paths, 40)
            ledger.rmdir()
            ledger.with_suffix(".away").rename(ledger)
