"""supervisord as botkeep understands it: names, answers, its log, its words about a program; servers that are none."""

from __future__ import annotations

import base64
import os
import re
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from botkeep.model import EngineError, Exit, InstanceState
from botkeep.runtimes.find import Twin, strangers
from botkeep.runtimes.procs import ProcessTable
from botkeep.runtimes.supervisord import Config, units
from botkeep.runtimes.supervisord_facts import Program, Settings, State
from botkeep.runtimes.supervisord_history import History, Run, asked_for, read_history, restarts_what_is_done
from botkeep.runtimes.supervisord_memory import KNOWN_FOR, SettingsMemory
from botkeep.runtimes.supervisord_rpc import Address, Client, FaultError, Login, Place, listener_of, place_of
from botkeep.runtimes.supervisord_units import Own, Supervised, Surroundings, command_key, unit_of, why_not
from support.bots import Lab, wait_for
from support.loopback import Serve, servers

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
SECOND = int(NOON.timestamp())


def config(**more: Any) -> Config:
    return Config(**{"kind": "supervisord", "server": "unix:///run/s.sock", "program": "doge", **more})


# ---------------------------------------------------------------------------------------------------- names

SERVERS = {
    "unix:///run/supervisor.sock": Place(path="/run/supervisor.sock"),
    "http://127.0.0.1:9001": Place(host="127.0.0.1", port=9001),
    "http://localhost:9001/RPC2": Place(host="localhost", port=9001),
    "http://[::1]:9001/": Place(host="::1", port=9001),
    "http://keeper.example:9001": Place(host="keeper.example", port=9001),
}


@pytest.mark.parametrize(("text", "place"), SERVERS.items())
def test_a_server_is_taken_apart_and_shown_as_it_was_written(text: str, place: Place) -> None:
    assert place_of(text) == place
    assert str(place) == text.removesuffix("/").removesuffix("/RPC2")
    assert place.is_loopback == ("example" not in text)


@pytest.mark.parametrize(
    "text",
    [
        "", "/run/s.sock", "unix://run/s.sock", "unix:///a/../b", "unix:///" + "x" * 120, "unix:///a\nb", "http://h",
        "http://h:0", "http://h:65536", "http://user:word@h:1", "https://h:1", "http://-f:1", "http://h:1/x", "tcp://h:1",
        "http://h:1;id", "--host=tcp://127.0.0.1:1",
    ],
)  # fmt: skip
def test_what_is_no_server_is_refused_with_what_to_write(text: str) -> None:
    assert place_of(text) is None
    with pytest.raises(ValidationError, match="write unix:///PATH/OF/SOCKET or http://HOST:PORT"):
        config(server=text)


@pytest.mark.parametrize("name", ["bot-3m", "tf:bot-3m", "bot_00", "3m", "a.b@c+d"])
def test_names_of_programs_and_of_members_of_groups_are_taken(name: str) -> None:
    group, _, own = name.rpartition(":")
    assert config(program=name).spec == f"{group or own}:{own}"


@pytest.mark.parametrize(
    "name",
    ["", ";id", "-f", "--host=tcp://127.0.0.1:1", "a b", "a:*", "a:", ":a", "a:b:c", "*", "all/", "a\n", "x" * 256],
)
def test_a_name_that_could_be_taken_for_something_else_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        config(program=name)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"username_env": "A"}, 'write "username_env" and "password_env" together'),
        ({"username_env": "A-B", "password_env": "C"}, "username_env"),
        ({"stop_grace": 36}, "less than or equal to 35"),
        ({"stop_grace": "30"}, "valid integer"),
        ({"password": "hunter2"}, "Extra inputs"),
        ({"command": []}, "at least 1 item"),
    ],
)
def test_a_mistake_in_the_configuration_is_told(more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(told)):
        config(**more)


# ---------------------------------------------------------------------------------------------------- servers


def answer(body: bytes, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), more, body)


def document(*values: Any) -> bytes:
    return answer(xmlrpc.client.dumps(values, methodresponse=True, allow_none=True).encode())


def silent(connection: socket.socket) -> None:
    connection.settimeout(30)
    while connection.recv(65536):
        pass


def slow(connection: socket.socket) -> None:
    for _ in range(300):
        connection.sendall(b"H")
        time.sleep(0.1)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def endless_head(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x" * 65536)


def says(data: bytes) -> Callable[[socket.socket], None]:
    """And hears the question out: hung up on with something unread, the other side may lose what was said."""

    def speak(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    return speak


BOMB = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><methodResponse/>'
GOOD = {
    "name": "doge", "group": "doge", "start": 1, "stop": 0, "now": 2, "state": 20, "spawnerr": "", "exitstatus": 0,
    "stdout_logfile": "", "stderr_logfile": "", "pid": 1 << 30,
}  # fmt: skip


def forged(written: int, instead: int) -> bytes:
    """An answer with a number that Python's own library would not write."""
    body = xmlrpc.client.dumps(([[{**GOOD, "start": written}], "", 1, []],), methodresponse=True)
    return answer(body.replace(f">{written}<", f">{instead}<").encode())


RUBBISH: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "nobody answers": (silent, "gave no complete answer within 1 s"),
    "a byte at a time": (slow, "gave no complete answer within 1 s"),
    "it hangs up": (lambda _: None, "broke off before it had answered"),
    "half an answer": (
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n<?xml"),
        "broke off before it had answered",
    ),
    "an endless body": (endless, "does not stop talking"),
    "an endless head": (endless_head, "is not supervisord: it does not talk HTTP"),
    "a terabyte announced": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nx"), "broke off"),
    "another protocol": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "is not supervisord: it does not talk HTTP"),
    "a web page": (says(answer(b"<html><body>Welcome to nginx!</body></html>")), "its answer is no XML-RPC"),
    "no page": (says(answer(b"", b"404 Not Found")), "is not supervisord: HTTP status 404"),
    "a redirect": (says(answer(b"", b"302 Found", b"Location: http://169.254.169.254/\r\n")), "HTTP status 302"),
    "JSON": (says(answer(b'{"ok": true}')), "its answer is no XML-RPC"),
    "nothing": (says(answer(b"")), "its answer is no XML-RPC"),
    "arrays in arrays": (
        says(answer(b"<methodResponse>" + b"<value><array><data>" * 190_000)),
        "its answer is no XML-RPC",
    ),
    "a year there is none": (says(forged(777, 9_999_999_999_999)), "its answer is another's"),
    "a bomb of entities": (says(answer(BOMB)), "its answer is no XML-RPC"),
    "its own failure": (says(answer(b"", b"500 Internal Server Error")), "failed over the question"),
    "another answer": (says(document("hello")), "is not supervisord: its answer is none to the question"),
    "an answer of another length": (says(document([[], ""])), "its answer is none to the question"),
    "other programs": (says(document([[{"name": 1}], "", 1, []])), "is not supervisord: its answer is another's"),
    "a state there is none": (says(document([[{**GOOD, "state": 7}], "", 1, []])), "its answer is another's"),
    "other settings": (says(document([[GOOD], "", 1, [{"name": "x"}]])), "its answer is another's"),
    "it is shutting down": (
        says(document([{"faultCode": 6, "faultString": "SHUTDOWN_STATE"}, "", 1, []])),
        "supervisord is just shutting down, or starting itself anew",
    ),
    "a fault": (says(document([{"faultCode": 1, "faultString": "UNKNOWN_METHOD"}, "", 1, []])), "says: UNKNOWN_METHOD"),
}


@pytest.fixture
def serve() -> Iterator[Serve]:
    with servers() as start:
        yield start


@pytest.mark.parametrize(("behaviour", "told"), RUBBISH.values(), ids=RUBBISH)
def test_whatever_answers_is_the_bots_error_in_its_deadline(
    serve: Serve, behaviour: Callable[[socket.socket], None], told: str
) -> None:
    server = serve(behaviour)
    began = time.monotonic()
    found = units({"doge": config(server=f"http://127.0.0.1:{server.port}")}, 1.0)["doge"]
    assert time.monotonic() - began < 3.0
    assert isinstance(found, EngineError)
    assert told in str(found)
    assert "\n" not in str(found)


def test_one_server_that_hangs_does_not_hold_up_the_others(serve: Serve) -> None:
    hanging, wrong = serve(silent), serve(says(answer(b"<html>")))
    began = time.monotonic()
    bots = {str(port): config(server=f"http://127.0.0.1:{port}") for port in (hanging.port, wrong.port)}
    found = units(bots, 1.0)
    assert time.monotonic() - began < 2.0
    assert "gave no complete answer" in str(found[str(hanging.port)])
    assert "no XML-RPC" in str(found[str(wrong.port)])


def test_a_pid_that_somebody_names_who_is_no_supervisord_is_not_believed(serve: Serve) -> None:
    """Whoever listens there in its place must not choose which process is stopped, nor which file is read."""
    forged = {**GOOD, "pid": os.getpid(), "start": int(time.time()), "stdout_logfile": "/etc/hostname"}
    server = serve(says(document([[forged], "", 1, []])))
    found = units({"doge": config(server=f"http://127.0.0.1:{server.port}")}, 5.0)["doge"]
    assert isinstance(found, tuple)
    (unit,) = found
    assert (unit.state, unit.pid, unit.log_file) == (InstanceState.RUNNING, None, None)
    assert unit.twin == Twin()
    assert not unit.is_readable


def test_credentials_are_sent_as_the_variables_hold_them_and_an_unset_one_is_named(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(says(document([[GOOD], "", 1, []])))
    place = Place(host="127.0.0.1", port=server.port)
    address = Address(place, Login("SV_TEST_USER", "SV_TEST_WORD"))
    monkeypatch.setenv("SV_TEST_USER", "keeper")
    with pytest.raises(EngineError, match=r"\$SV_TEST_WORD, which names supervisord's login, is not set"):
        Client(address).call("x.y", seconds=5)
    monkeypatch.setenv("SV_TEST_WORD", "a:b é")
    Client(address).call("supervisor.getState", seconds=5)
    token = base64.b64encode("keeper:a:b é".encode()).decode()
    (request,) = server.requests
    assert f"Authorization: Basic {token}\r\n".encode() in request
    assert "keeper" not in repr(address)


ODD = b"a\x1b[31m\x00\xef\xbf\xbe\xc3\xa9"


def test_text_that_xml_cannot_hold_is_marked_and_the_rest_is_read(serve: Serve) -> None:
    body = b"<methodResponse><params><param><value>%s</value></param></params></methodResponse>" % ODD
    server = serve(says(answer(body)))
    told = Client(Address(Place(host="127.0.0.1", port=server.port))).call("x.y", seconds=5)
    assert told == "a?[31m????é"


def test_a_fault_says_what_supervisord_says_without_its_line_breaks(serve: Serve) -> None:
    fault = xmlrpc.client.dumps(xmlrpc.client.Fault(30, "FAILED: a\nTraceback\x1b[0m"), methodresponse=True)
    server = serve(says(answer(fault.encode())))
    with pytest.raises(FaultError, match="says: FAILED: a") as caught:
        Client(Address(Place(host="127.0.0.1", port=server.port))).call("x.y", seconds=5)
    assert caught.value.code == 30
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_who_listens_at_a_port_of_this_machine_is_known(serve: Serve) -> None:
    server = serve(silent)
    assert listener_of(Place(host="127.0.0.1", port=server.port)) == os.geteuid()
    assert listener_of(Place(host="keeper.example", port=server.port)) is None
    server.close()
    assert listener_of(Place(host="127.0.0.1", port=server.port)) is None


# ---------------------------------------------------------------------------------------------------- its log

LOG = """\
2026-13-45 99:99:99,000 INFO spawned: 'doge' with pid 99
0001-01-01 00:00:00,000 INFO spawned: 'doge' with pid 98
23:59:59,000 INFO a line that was cut in the middle
2026-11-21 11:00:00,000 INFO supervisord started with pid 7
2026-11-21 11:00:01,002 INFO spawned: 'doge' with pid 101
2026-11-21 11:00:02,003 INFO success: doge entered RUNNING state, process has stayed up for > than 1 seconds (startsecs)
2026-11-21 11:10:00,500 WARN exited: doge (terminated by SIGKILL; not expected)
2026-11-21 11:10:01,510 INFO spawned: 'doge' with pid 102
2026-11-21 11:20:00,000 INFO waiting for doge to stop
2026-11-21 11:20:01,000 WARN killing 'doge' (102) with SIGKILL
2026-11-21 11:20:01,250 WARN stopped: doge (terminated by SIGKILL)
2026-11-21 11:30:00,000 INFO spawned: 'doge' with pid 103
2026-11-21 11:30:01,000 WARN exited: doge (terminated by SIGSEGV (core dumped); not expected)
2026-11-21 11:30:02,000 INFO spawned: 'doge' with pid 104
2026-11-21 11:30:03,000 INFO exited: doge (exit status 0; expected)
2026-11-21 11:30:04,000 INFO spawned: 'doge' with pid 105
2026-11-21 11:30:05,000 WARN exited: doge (exit status 78; not expected)
2026-11-21 11:30:05,100 INFO gave up: doge entered FATAL state, too many start retries too quickly
2026-11-21 11:40:00,000 INFO spawned: 'other' with pid 201
2026-11-21 11:40:00,000 WARN exited: stranger (exit status 1; not expected)
2026-11-21 11:50:00,000 INFO spawned: 'doge' with pid 106
2026-11-21 11:55:00,000 INFO supervisord started with pid 8
2026-11-21 11:55:01,000 INFO spawned: 'doge' with pid 107
2026-11-21 11:56:00,000 WARN exited: doge (terminated by signal 35; not expected)
2026-11-21 11:57:00,000 WARN exited: doge (unknown termination cause 0x00ff; not exp"""


def test_the_log_tells_each_run_with_its_pid_its_start_and_how_it_ended() -> None:
    history = read_history(LOG, (), UTC)
    told = [(run.pid, run.code, run.signal, run.as_told, run.expected, run.lost) for run in history.of("doge")]
    assert told == [
        (101, None, 9, False, False, False),
        (102, None, 9, True, False, False),
        (103, None, 11, False, False, False),
        (104, 0, None, False, True, False),
        (105, 78, None, False, False, False),
        (106, None, None, False, False, True),
        (107, None, 35, False, False, False),
    ]
    first = history.of("doge")[0]
    assert first.started == datetime(2026, 11, 21, 11, 0, 1, 2000, tzinfo=UTC)
    assert first.ended == datetime(2026, 11, 21, 11, 10, 0, 500_000, tzinfo=UTC)
    assert history.of("other")[0].lost
    assert history.of("nobody") == ()
    assert restarts_what_is_done(history.of("doge"))
    assert not restarts_what_is_done(history.of("doge")[:4])


def test_the_log_tells_supervisords_own_restarts_from_those_that_somebody_asked_for() -> None:
    runs = read_history(LOG, (), UTC).of("doge")
    asked = set(asked_for(runs, 1))
    assert [run.pid for run in runs if run.started in asked] == [101, 103, 106, 107]
    assert [run.pid for run in runs if run.started in set(asked_for(runs[1:], 1))] == [103, 106, 107], "its log was cut"


def test_the_growing_pauses_between_tries_are_supervisords_own() -> None:
    began = datetime(2026, 11, 21, 11, 0, tzinfo=UTC)
    runs = [Run(1, began, began + timedelta(seconds=2), code=1, begins=True)]
    for pause in range(1, 9):
        ended = runs[-1].ended
        assert ended is not None
        started = ended + timedelta(seconds=pause + 0.4)
        runs.append(Run(pause + 1, started, started + timedelta(seconds=2), code=1))
    assert list(asked_for(runs, 10)) == [began]
    by_hand = runs[-1].started + timedelta(seconds=40)
    assert list(asked_for([*runs, Run(99, by_hand)], 10)) == [began, by_hand]


@pytest.mark.parametrize("minutes", [0, 60, 345, -210, 840])
def test_the_logs_clock_is_understood_by_a_program_that_lives(minutes: int) -> None:
    """The log has the local time of supervisord, whatever that is; the interface has seconds since 1970."""
    local = NOON.astimezone(timezone(timedelta(minutes=minutes)))
    text = f"{local:%Y-%m-%d %H:%M:%S},007 INFO spawned: 'doge' with pid 5\n"
    (run,) = read_history(text, [("doge", 5, SECOND)], timezone(timedelta(hours=3))).of("doge")
    assert run.started == NOON + timedelta(milliseconds=7)


def test_an_older_run_with_the_same_pid_does_not_set_the_clock() -> None:
    text = "2026-11-21 11:52:00,000 INFO spawned: 'doge' with pid 5\n"
    (run,) = read_history(text, [("doge", 5, SECOND)], UTC).of("doge")
    assert run.started == NOON - timedelta(minutes=8)


def test_a_log_in_which_programs_speak_is_not_believed() -> None:
    text = (
        "2026-11-21 11:52:00,000 DEBG 'doge' stdout output:\n2026-11-21 11:52:00,000 INFO spawned: 'doge' with pid 5\n"
    )
    history = read_history(text, (), UTC)
    assert not history.believed
    assert history.of("doge") == ()


# ---------------------------------------------------------------------------------------------------- units


def program(state: State = State.RUNNING, **more: Any) -> Program:
    known = {**GOOD, "now": SECOND + 100, "start": SECOND, "pid": 5, "state": state.value, **more}
    return Program.model_validate(known)


def settings(**more: Any) -> Settings:
    safe = {"killasgroup": True, "startsecs": 10, "stopwaitsecs": 30, "directory": "/srv", "serverurl": "none"}
    return Settings.model_validate({"name": "doge", "group": "doge", "command": "python3 doge.py 3m", **safe, **more})


def around(*runs: Run, **more: Any) -> Surroundings:
    known = {
        "place": Place(path="/run/s.sock"), "boot": "0123456789abcdef", "is_here": True, "is_trusted": True,
        "url": "unix:///run/s.sock", "folder": "/", "history": History({"doge": runs}), **more,
    }  # fmt: skip
    return Surroundings(**known)


OWN = Own(5, "unix:///run/s.sock")


def unit(told: Program, place: Surroundings, own: Own | None = OWN, kept: Settings | None = None) -> Supervised:
    return unit_of(told, kept or settings(), place, own if told.pid else None, 30)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


STATES = {
    State.STOPPED: (0, None, ""),
    State.STARTING: (5, InstanceState.STARTING, ""),
    State.RUNNING: (5, InstanceState.RUNNING, ""),
    State.BACKOFF: (
        0,
        InstanceState.STARTING,
        "supervisord calls it BACKOFF and tries it again (it exited too quickly)",
    ),
    State.STOPPING: (5, InstanceState.RUNNING, ""),
    State.EXITED: (0, None, ""),
    State.FATAL: (0, None, "supervisord calls it FATAL and gave it up (it exited too quickly)"),
    State.UNKNOWN: (
        5,
        InstanceState.RUNNING,
        "supervisord calls it UNKNOWN: it could not stop it, and ends itself when its process does",
    ),
}


def test_all_eight_states_are_here() -> None:
    assert set(STATES) == set(State)


@pytest.mark.parametrize(("state", "expected"), STATES.items())
def test_each_state_says_whether_it_lives_and_whether_supervisord_keeps_it_up(
    state: State, expected: tuple[int, InstanceState | None, str]
) -> None:
    pid, alive, word = expected
    found = unit(program(state, pid=pid, spawnerr="Exited too quickly (process log may have details)"), around())
    assert (found.state, found.giving_up, found.pid) == (alive, word, pid or None)
    assert (found.started_at == NOON) == bool(pid)


def test_an_unknown_program_without_a_process_does_not_run() -> None:
    assert unit(program(State.UNKNOWN, pid=0), around()).state is None


def test_a_run_has_one_name_from_its_start_to_its_end_and_no_two_runs_have_the_same() -> None:
    run = Run(5, at(0.02))
    alive = unit(program(), around(run))
    over = Run(5, at(0.02), ended=at(50), code=3)
    exited = unit(program(State.EXITED, pid=0, stop=SECOND + 50, exitstatus=3), around(over))
    next_one = unit(program(pid=6, start=SECOND + 51, stop=SECOND + 50), around(over, Run(6, at(51.02))))
    assert alive.run == exited.run
    assert exited.exit is not None
    assert next_one.exit is not None
    assert exited.exit.key == next_one.exit.key == alive.run
    assert next_one.run != alive.run
    assert re.fullmatch(r"01234567:5:\d+:\d+", alive.run)
    assert next_one.starts == (at(0.02), at(51.02))
    assert next_one.started_at == at(51.02)
    other = unit(program(name="other"), around(run))
    assert other.run != alive.run


def test_between_two_attempts_nothing_has_the_name_of_a_run() -> None:
    over = Run(5, at(0.02), ended=at(0.5), code=3)
    waiting = unit(program(State.BACKOFF, pid=0, stop=SECOND), around(over))
    assert waiting.exit is not None
    assert waiting.run != waiting.exit.key
    assert waiting.started_at is None
    later = unit(program(State.BACKOFF, pid=0, start=SECOND + 2, stop=SECOND + 3), around())
    assert later.run != waiting.run


EXITS: dict[str, tuple[Program, tuple[Run, ...], Exit | None]] = {
    "never started": (program(State.STOPPED, pid=0, start=0), (), None),
    "exited, no log": (
        program(State.EXITED, pid=0, stop=SECOND + 9, exitstatus=3),
        (),
        Exit("0:3", at(9), code=3),
    ),
    "killed, no log": (program(State.EXITED, pid=0, stop=SECOND + 9, exitstatus=-1), (), Exit("0:s", at(9))),
    "given up, no log": (program(State.FATAL, pid=0, stop=SECOND + 9), (), Exit("0:f", at(9))),
    "runs, and ended before, no log": (program(stop=SECOND - 9), (), Exit("b", at(-9))),
    "runs, and was killed before": (
        program(stop=SECOND - 9),
        (Run(4, at(-20), ended=at(-8.5), signal=9), Run(5, at(0))),
        Exit("4", at(-8.5), signal=9),
    ),
    "the log ends before it": (
        program(State.EXITED, pid=0, stop=SECOND + 9, exitstatus=3),
        (Run(4, at(-20), ended=at(-8.5), signal=9),),
        Exit("0:3", at(9), code=3),
    ),
    "supervisord itself was killed": (
        program(State.STOPPED, pid=0, start=0),
        (Run(3, at(-99), ended=at(-98), code=0), Run(4, at(-20), lost=True)),
        Exit("4", None),
    ),
    "no such command": (
        program(State.FATAL, pid=0, spawnerr="can't find command './bot'"),
        (),
        Exit("n", at(0), failed_to_start="./bot: No such file or directory"),
    ),
}


@pytest.mark.parametrize(("told", "runs", "expected"), EXITS.values(), ids=EXITS)
def test_how_the_newest_run_that_ended_did(told: Program, runs: tuple[Run, ...], expected: Exit | None) -> None:
    found = unit(told, around(*runs)).exit
    assert (replace(found, key="") if found else None) == (replace(expected, key="") if expected else None)


@pytest.mark.parametrize(
    ("spawnerr", "told"),
    [
        ("can't find command '/x'", "/x: No such file or directory"),
        ("command at '/x' is not executable", "/x: Permission denied"),
        ("command at '/x' is a directory", "/x: Is a directory"),
        ("no permission to run command '/x'", "/x: Permission denied"),
        ("Too many processes in process table to spawn 'x'", "Too many processes in process table to spawn 'x'"),
    ],
)
def test_why_a_program_was_not_started_is_said_as_the_kernel_says_it(spawnerr: str, told: str) -> None:
    assert why_not(spawnerr) == told


def test_a_safe_program_has_no_notes_and_an_unsafe_one_says_what_to_write() -> None:
    said = program(stdout_logfile="/log")
    assert unit(said, around()).notes == ()
    loose = settings(startsecs=1, killasgroup=False, stopwaitsecs=10)
    notes = unit(said, around(), kept=loose).notes
    assert [next(iter(re.findall(r"startsecs=10|stopasgroup|stop_grace is 30", note))) for note in notes] == [
        "startsecs=10",
        "stopasgroup",
        "stop_grace is 30",
    ]
    (note,) = unit(said, around(), kept=settings(stopwaitsecs=120)).notes
    assert note == "botkeep kills it 30 s after a stop (stop_grace); supervisord would wait 120 s (stopwaitsecs)."
    again = (Run(4, at(-9), ended=at(-2), code=0, expected=True), Run(5, at(0)))
    assert "autorestart=true" in unit(said, around(*again)).notes[0]
    assert "cannot" not in unit(said, around(is_logging=False)).notes[0]
    assert "over the network" in unit(said, around(place=Place(host="h", port=1), is_here=False)).notes[0]
    assert "kept nowhere" in unit(program(), around()).notes[0]


FILES = {
    "one": (("/log", ""), True, "/log"),
    "only stderr": (("", "/err"), True, "/err"),
    "both in one": (("/log", "/log"), True, "/log"),
    "two": (("/log", "/err"), True, None),
    "somebody else's word": (("/log", ""), False, None),
    "none": (("", ""), True, None),
    "no path": (("syslog", ""), True, None),
}


@pytest.mark.parametrize(("paths", "trusted", "expected"), FILES.values(), ids=FILES)
def test_a_log_is_read_where_it_is_if_it_is_one_file_and_its_owner_may_be_believed(
    paths: tuple[str, str], trusted: bool, expected: str | None
) -> None:
    told = program(stdout_logfile=paths[0], stderr_logfile=paths[1])
    assert unit(told, around(is_trusted=trusted)).log_file == (Path(expected) if expected else None)


def test_a_copy_is_known_by_what_supervisord_gave_it_and_by_a_command_that_is_this_programs_alone() -> None:
    environment = {
        "SUPERVISOR_PROCESS_NAME": "doge", "SUPERVISOR_GROUP_NAME": "doge", "SUPERVISOR_SERVER_URL": "unix:///run/s.sock",
    }  # fmt: skip
    marks = {"environment": environment, "engine": "SUPERVISOR_SERVER_URL"}
    assert unit(program(), around()).twin == Twin(("python3", "doge.py", "3m"), "/srv", **marks)
    shared = around(repeated=frozenset({command_key(settings())}))
    assert unit(program(), shared).twin == Twin(**marks)
    assert unit(program(), around(is_here=False)).twin == Twin()
    assert unit(program(), around(), kept=settings(directory="bots")).twin.cwd == "/bots"
    homeless = settings(directory="none")
    assert unit(program(), around(), kept=homeless).twin.cwd == "/"
    assert unit(program(), around(folder=""), kept=homeless).twin.command == ()
    own = settings(serverurl="http://h:1")
    assert (
        unit(program(State.STOPPED, pid=0), around(), kept=own).twin.environment["SUPERVISOR_SERVER_URL"]
        == "http://h:1"
    )


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("python3 bot.py '3 m'", ("python3", "bot.py", "3 m")),
        (
            "/v/python -I -m botkeep.exec_env --lock /r/run.lock -- python3 bot.py -- x",
            ("python3", "bot.py", "--", "x"),
        ),
        ('sh -c "unbalanced', ()),
    ],
)
def test_the_command_of_a_copy_is_the_bots_without_what_starts_it(command: str, argv: tuple[str, ...]) -> None:
    assert settings(command=command).argv == argv


def test_what_the_engine_runs_as_another_unit_is_no_copy_though_it_runs_the_same(tmp_path: Path) -> None:
    """Two commands were swapped in the file, and supervisord has read it but not started anything anew."""
    given = {"SUPERVISOR_PROCESS_NAME": "other", "SUPERVISOR_GROUP_NAME": "other", "SUPERVISOR_SERVER_URL": "unix:///s"}
    with Lab(tmp_path) as lab:
        lab.program()
        command = ("python3", "doge.py", lab.token)
        pids = [lab.by_hand(*command, env=env) for env in (given, {**given, "SUPERVISOR_SERVER_URL": "unix:///t"}, {})]
        wait_for(lambda: all(lab.trading(pid) for pid in pids))
        twin = Twin(command, str(lab.home), {**given, "SUPERVISOR_PROCESS_NAME": "doge"}, "SUPERVISOR_SERVER_URL")
        found = strangers(lab.target(), [twin], ProcessTable.read(), frozenset())
        assert found == {pids[1]: "command", pids[2]: "command"}


# ---------------------------------------------------------------------------------------------------- memory

ADDRESS = Address(Place(path="/run/s.sock"))


def test_settings_are_remembered_for_that_very_supervisord_and_until_it_starts_something(tmp_path: Path) -> None:
    memory = SettingsMemory(tmp_path / "run")
    assert memory.recall(ADDRESS) is None
    memory.keep(ADDRESS, 7, [settings()])
    memory.write()
    again = SettingsMemory(tmp_path / "run")
    assert again.recall(ADDRESS) == again.recall(ADDRESS, 7, int(time.time()) - 60) == [settings()]
    assert again.recall(ADDRESS, 8) is None
    assert again.recall(ADDRESS, 7, int(time.time()) + 1) is None
    again.known[str(ADDRESS)]["at"] -= KNOWN_FOR
    assert again.recall(ADDRESS) is None
    assert (tmp_path / "run/supervisord-settings.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "[]", "{", '{"unix:///run/s.sock": 1}', '{"unix:///run/s.sock": {"at": "x"}}'])
def test_a_memory_that_was_torn_or_edited_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "supervisord-settings.json").write_text(text)
    assert SettingsMemory(tmp_path).recall(ADDRESS) is None


def test_the_runtime_is_loaded_only_when_a_bot_of_its_kind_is_met() -> None:
    code = "import botkeep.config, sys; print([one for one in sys.modules if 'supervisord' in one or 'xmlrpc' in one])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"
