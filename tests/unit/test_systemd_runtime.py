"""What systemd says and how it is understood: as tables, on words that real ones said; and asking it where it is not,
is slow, old, or says rubbish."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from botkeep.model import EngineError, InstanceState
from botkeep.runtimes import systemd, systemd_ctl
from botkeep.runtimes.engine import NoSuchUnitError
from botkeep.runtimes.find import Twin
from botkeep.runtimes.systemd_facts import Shown, by_name, records, span
from botkeep.runtimes.systemd_history import (
    BADLY,
    ENDED,
    NO_MEMORY,
    RESTARTS,
    STARTED,
    STOPPED,
    WELL,
    History,
    entries,
    question,
    read_history,
)  # fmt: skip
from botkeep.runtimes.systemd_log import _message
from botkeep.runtimes.systemd_units import Service, exit_of, giving_up, unit_of

SAID = Path(__file__).parents[1] / "data/systemd/show.txt"
RUN = "17bbb91b638b4240ad1581f0f1f5265d"
OTHER = "94c16da556ae4cadba15fb9be686c2c6"
STEADY = {
    "Id": "doge.service", "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": "success",
    "InvocationID": RUN, "MainPID": "812", "ExecMainPID": "812", "NRestarts": "0", "FreezerState": "running",
    "ExecMainStartTimestamp": "Sat 2026-11-21 20:33:45.079425 UTC", "StandardOutput": "journal", "Slice": "app.slice",
    "InactiveExitTimestamp": "Sat 2026-11-21 20:33:45.079670 UTC", "ControlGroup": "/app.slice/doge.service",
    "ExecStart": "{ path=/bin/doge ; argv[]=/bin/doge --fast ; ignore_errors=no ; start_time=[n/a] ; status=0/0 }",
    "TimeoutStopUSec": "1min 30s", "KillMode": "control-group", "StartLimitBurst": "5", "StartLimitIntervalUSec": "10s",
}  # fmt: skip
ENDED_AT = "Sat 2026-11-21 20:33:46.108172 UTC"
OVER = {
    "ActiveState": "failed", "SubState": "failed", "MainPID": "0", "ExecMainExitTimestamp": ENDED_AT,
    "ExecMainCode": "1", "ExecMainStatus": "3", "Result": "exit-code",
}  # fmt: skip


GAVE_UP = "gave it up after 5 starts within 10s (start-limit-hit, exit code"
WAITS = {"ActiveState": "activating", "SubState": "auto-restart"}


def shown(**more: str) -> Shown:
    return Shown({**STEADY, **more})


def unit(history: History = History(), *, user: bool = False, **more: str) -> Service:  # noqa: B008 - it is frozen
    return unit_of(shown(**more), history, user=user, pid=None, twin=Twin(), grace=30)


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["doge", "doge.service", "bot@3m", "tf-3m.bot", r"with\x2ddash", "a:b"])
def test_the_name_of_a_service_is_taken_with_its_ending_or_without(name: str) -> None:
    config = systemd.Config(kind="systemd", unit=name)
    assert config.service == f"{name.removesuffix('.service')}.service"


@pytest.mark.parametrize(
    "name",
    ["", "-f", "--host=tcp://127.0.0.1:1", ";id", "a b", "*", "doge*", "[a]", "../x", "a/b", "bot@", "bot@.service",
     "x.timer", "x.socket", "x.target", "x.mount", "$(id)", "a\nb", "é", ".service", "x" * 201],
)  # fmt: skip
def test_what_is_no_name_of_a_service_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        systemd.Config(kind="systemd", unit=name)


@pytest.mark.parametrize("more", [{"stop_grace": 0}, {"stop_grace": 36}, {"user": "yes"}, {"units": "x"}])
def test_a_setting_that_is_none_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        systemd.Config(kind="systemd", unit="doge", **more)


# ---------------------------------------------------------------------------------------------------- show


def test_what_a_real_systemd_said_of_several_units_is_told_apart() -> None:
    found = by_name(records(SAID.read_text()))
    assert set(found) == {"doge.service", "alias.service", "bad.service", "gone.service"}
    assert found["alias.service"] is found["doge.service"]
    doge, bad, gone = found["doge.service"], found["bad.service"], found["gone.service"]
    assert (doge.number("MainPID"), doge.lives, doge.waits) == (5689, True, False)
    assert doge.line == "/usr/bin/python3 -u -c import time; print('hello'); time.sleep(1000)"
    assert doge.moment("ExecMainStartTimestamp") == datetime(2026, 11, 21, 20, 33, 45, 79425, UTC)
    assert (bad.waits, bad.lives, bad.number("NRestarts")) == (True, False, 4)
    assert (gone.text("LoadState"), gone.lives) == ("not-found", False)


def test_a_line_break_in_a_command_belongs_to_the_command() -> None:
    text = "Id=a.service\nExecStart={ path=/a ; argv[]=/a x\ny ; ignore_errors=no ; }\nMainPID=7\n\nId=b.service\n"
    found = by_name(records(text))
    assert found["a.service"].line == "/a x\ny"
    assert found["a.service"].number("MainPID") == 7
    assert set(found) == {"a.service", "b.service"}


def test_no_line_of_a_command_is_taken_for_what_systemd_says() -> None:
    """The rest of this unit would be lost, and be taken for the next one's."""
    tail = "ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=7 ; code=(null) ; status=0/0 }"
    command = "/a -c # it\n\nMainPID=1\nActiveState=failed\nId=b.service\n\nend"
    first = f"MainPID=7\nExecStart={{ path=/a ; argv[]={command} ; {tail}\nId=a.service\nActiveState=active\n"
    found = by_name(records(f"{first}\nMainPID=8\nExecStart={{ path=/b ; argv[]=/b ; {tail}\nId=b.service\n"))
    assert found["a.service"].line == command
    assert (found["a.service"].number("MainPID"), found["a.service"].state) == (7, "active")
    assert (found["b.service"].number("MainPID"), found["b.service"].state) == (8, "")


@pytest.mark.parametrize("text", ["", "\n\n\n", "rubbish", "a=b\n\n", "Id=\n\nId=\n"])
def test_rubbish_is_no_unit(text: str) -> None:
    assert by_name(records(text)) == {}


def test_times_of_older_versions_have_seconds_and_no_time_is_none() -> None:
    assert shown(X="Sat 2026-11-21 20:33:45 UTC").moment("X") == datetime(2026, 11, 21, 20, 33, 45, tzinfo=UTC)
    for text in ("n/a", "", "Sat 2026-99-21 20:33:45 UTC", "Sat 2026-11-21 20:33:45 CET", "0"):
        assert shown(X=text).moment("X") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1min 30s", 90), ("30s", 30), ("500ms", 0.5), ("1h 2min", 3720), ("infinity", None), ("", None), ("0", 0)],
)
def test_spans_are_understood(text: str, seconds: float | None) -> None:
    found = span(text)
    assert (found.total_seconds() if found is not None else None) == seconds


@pytest.mark.parametrize(
    ("state", "sub", "more", "meant"),
    [
        ("active", "running", {}, InstanceState.RUNNING),
        ("active", "exited", {"MainPID": "0"}, None),
        ("reloading", "reload", {}, InstanceState.RUNNING),
        ("activating", "start-pre", {}, InstanceState.STARTING),
        ("activating", "auto-restart", {"MainPID": "0"}, InstanceState.STARTING),
        ("activating", "auto-restart-queued", {"MainPID": "0"}, InstanceState.STARTING),
        ("deactivating", "stop-sigterm", {}, InstanceState.RUNNING),
        ("deactivating", "final-sigkill", {}, InstanceState.RUNNING),
        ("inactive", "dead", {"MainPID": "0"}, None),
        ("failed", "failed", {"MainPID": "0"}, None),
        ("inactive", "dead", {"MainPID": "0", "Job": "17"}, InstanceState.STARTING),
        ("failed", "failed", {"MainPID": "0", "Job": "17"}, InstanceState.STARTING),
        ("active", "running", {"FreezerState": "frozen"}, InstanceState.FROZEN),
        ("active", "running", {"FreezerState": "freezing"}, InstanceState.FROZEN),
    ],
)
def test_every_state_is_one_of_ours(state: str, sub: str, more: dict[str, str], meant: InstanceState | None) -> None:
    one = unit(ActiveState=state, SubState=sub, **more)
    assert one.state is meant
    assert one.is_frozen == ("FreezerState" in more)
    assert bool(one.why_frozen) == ("FreezerState" in more)


@pytest.mark.parametrize(
    ("more", "code", "number", "memory", "failed"),
    [
        ({"ExecMainStatus": "0", "Result": "success", "ActiveState": "inactive"}, 0, None, None, None),
        ({}, 3, None, None, None),
        ({"ExecMainCode": "2", "ExecMainStatus": "9", "Result": "signal"}, None, 9, None, None),
        ({"ExecMainCode": "3", "ExecMainStatus": "11", "Result": "core-dump"}, None, 11, None, None),
        ({"ExecMainCode": "2", "ExecMainStatus": "9", "Result": "oom-kill"}, None, 9, True, None),
        ({"ExecMainCode": "2", "ExecMainStatus": "6", "Result": "watchdog"}, None, 6, None, None),
        ({"ExecMainStatus": "203", "ExecMainExitTimestamp": "Sat 2026-11-21 20:33:45.108172 UTC"}, None, None, None,
         "/bin/doge: No such file or directory"),
        ({"ExecMainStatus": "203"}, 203, None, None, None),
        ({"ExecMainExitTimestamp": "", "Result": "resources"}, None, None, None, "systemd could not get"),
    ],
)  # fmt: skip
def test_how_a_run_ended(
    more: dict[str, str], code: int | None, number: int | None, memory: bool | None, failed: str | None
) -> None:
    ended = exit_of(shown(**{**OVER, **more}), (), lambda _: os.strerror(2))
    assert ended is not None
    assert (ended.code, ended.signal, ended.out_of_memory) == (code, number, memory)
    assert (ended.failed_to_start or "").startswith(failed or "")
    assert bool(ended.failed_to_start) == bool(failed)
    assert ended.key.startswith(RUN)


def test_a_unit_that_waits_for_its_next_run_is_none_of_its_runs() -> None:
    one = unit(**{**OVER, "ActiveState": "activating", "SubState": "auto-restart"})
    assert one.run == f"waiting/{RUN}"
    assert one.exit is not None
    assert (one.exit.key, one.exit.code, one.started_at) == (RUN, 3, None)


def test_a_start_that_waits_for_other_units_is_told_and_is_no_loop() -> None:
    one = unit(**{**OVER, "Job": "17", "Result": "start-limit-hit"})
    assert (one.run, one.giving_up, one.started_at) == ("queued/17", "", None)
    assert any("list-jobs" in note for note in one.notes)
    assert one.exit is not None
    assert one.exit.key == RUN


@pytest.mark.parametrize(
    ("more", "is_pending", "word"),
    [
        ({"Result": "start-limit-hit", "ExecMainStatus": "4"}, False, f"{GAVE_UP} 4)"),
        ({"NRestarts": "5"}, True, f"{GAVE_UP} 3)"),
        ({"NRestarts": "5"}, False, ""),
        ({"NRestarts": "0"}, True, ""),
        ({"NRestarts": "5", **WAITS}, False, "has restarted it 5 times, and it ended again (exit code 3)"),
        ({"NRestarts": "2", **WAITS}, False, ""),
        ({"NRestarts": "5", **WAITS, "ExecMainStartTimestamp": "Sat 2026-11-21 19:33:45 UTC"}, False, ""),
    ],
)  # fmt: skip
def test_a_loop_is_called_one(more: dict[str, str], is_pending: bool, word: str) -> None:
    assert giving_up(shown(**{**OVER, **more}), is_pending=is_pending).removeprefix("systemd ") == word


LOCKED = (
    "{ path=/py ; argv[]=/py -I -m botkeep.exec_env --lock /l -- /bin/doge --fast ; ignore_errors=no ; start_time=0 }"
)


def test_a_copy_that_holds_the_lock_is_no_loop_and_the_command_is_the_bots_own() -> None:
    kept_out = {**OVER, "ExecStart": LOCKED, "ExecMainStatus": "75", "NRestarts": "9", "Result": "start-limit-hit"}
    one = unit(**kept_out)
    assert one.giving_up == ""
    assert any("holds its lock" in note for note in one.notes)
    assert shown(**kept_out).command == "/bin/doge --fast"


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({"LoadState": "masked"}, "unmask"),
        ({"LoadState": "bad-setting"}, "cannot read its unit file (bad-setting)"),
        ({"NeedDaemonReload": "yes"}, "daemon-reload"),
        ({"UnitFileState": "disabled"}, "not enabled"),
        ({"KillMode": "process"}, "outlives a stop"),
        ({"KillMode": "none"}, "outlives a stop"),
        ({"TimeoutStopUSec": "5s"}, "kills it 5s after a stop"),
        ({"TriggeredBy": "doge.socket doge.path"}, "doge.socket, doge.path starts it too"),
        ({"UpheldBy": "all.target"}, "all.target starts it too"),
        ({"StandardOutput": "null", "StandardError": "inherit"}, "kept nowhere"),
        ({**OVER, "Result": "watchdog"}, "WatchdogSec"),
        ({**OVER, "Result": "timeout"}, "too slow"),
    ],
)
def test_what_a_person_should_know_is_a_note(more: dict[str, str], note: str) -> None:
    assert unit().notes == ()
    (told,) = unit(**more).notes
    assert note in told


def test_a_unit_of_systemd_run_runs_only_once() -> None:
    assert unit().only_once == ""
    assert "systemd-run" in unit(FragmentPath="/run/systemd/transient/doge.service").only_once


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("append:/var/log/%N.log", "/var/log/doge.log"),
        ("file:/var/log/%n", "/var/log/doge.service"),
        ("append:/var/log/100%%", "/var/log/100%"),
        ("append:%h/doge.log", None),
        ("journal", None),
    ],
)
def test_where_its_output_goes_is_read_from_its_file(tmp_path: Path, written: str, path: str | None) -> None:
    fragment, more = tmp_path / "doge.service", tmp_path / "more.conf"
    fragment.write_text("[Service]\nStandardOutput=append:/elsewhere\n#StandardOutput=null\n")
    more.write_text(f"[Service]\n StandardOutput = {written}\n")
    one = unit(FragmentPath=str(fragment), DropInPaths=str(more), StandardOutput=written.partition(":")[0])
    assert one.log_file == (Path(path) if path else None)


# ---------------------------------------------------------------------------------------------------- journal


def entry(kind: str, run: str, at: float, **more: str) -> dict[str, str]:
    return {
        "MESSAGE_ID": kind, "UNIT": "doge.service", "INVOCATION_ID": run,
        "_SOURCE_REALTIME_TIMESTAMP": str(int(at * 1e6)), **more,
    }  # fmt: skip


def told(*oldest_first: dict[str, str]) -> History:
    lines = b"\n".join(json.dumps(one).encode() for one in reversed(oldest_first))
    return read_history(entries(lines + b"\n{cut o"))


def test_restarts_and_exits_are_known_from_the_journal() -> None:
    history = told(
        entry(STARTED, "a", 100),
        entry(ENDED, "a", 110, EXIT_CODE="exited", EXIT_STATUS="3", COMMAND="ExecStart"),
        entry(BADLY, "a", 110.1, UNIT_RESULT="exit-code"),
        entry(RESTARTS, "a", 111),
        entry(STARTED, RUN, 112),
    )
    first, second = history.of("doge.service")
    assert (first.by_itself, second.by_itself) == (False, True)
    assert not history.pending
    one = unit(history, NRestarts="1")
    assert one.exit is not None
    assert (one.exit.key, one.exit.code, one.exit.at) == ("a", 3, datetime.fromtimestamp(110, UTC))
    assert one.starts == (one.started_at,)
    again = unit(history, InvocationID=OTHER, NRestarts="1")
    assert len(again.starts) == 2


@pytest.mark.parametrize(
    ("kind", "status", "result", "expected"),
    [
        ("killed", "KILL", "signal", (None, signal.SIGKILL, None)),
        ("killed", "9", "signal", (None, signal.SIGKILL, None)),
        ("dumped", "SEGV", "core-dump", (None, signal.SIGSEGV, None)),
        ("killed", "KILL", "oom-kill", (None, signal.SIGKILL, True)),
        ("killed", "NOTHING", "signal", (None, None, None)),
        ("exited", "x", "exit-code", (None, None, None)),
    ],
)
def test_every_end_in_the_journal_is_understood(kind: str, status: str, result: str, expected: tuple[Any, ...]) -> None:
    history = told(
        entry(ENDED, "a", 110, EXIT_CODE=kind, EXIT_STATUS=status, COMMAND="ExecStart"),
        entry(BADLY, "a", 111, UNIT_RESULT=result),
    )
    ended = history.of("doge.service")[0].exit()
    assert ended is not None
    assert (ended.code, ended.signal, ended.out_of_memory) == expected


def test_ends_of_other_commands_of_a_unit_are_none_of_the_bot() -> None:
    history = told(
        entry(STARTED, "a", 1), entry(ENDED, "a", 2, EXIT_CODE="exited", EXIT_STATUS="1", COMMAND="ExecStartPre")
    )
    assert history.of("doge.service")[0].exit() is None


def test_an_end_without_a_code_is_an_end_and_no_code() -> None:
    for kind in (WELL, STOPPED):
        ended = told(entry(STARTED, "a", 1), entry(kind, "a", 9)).of("doge.service")[0].exit()
        assert ended is not None
        assert (ended.code, ended.signal, ended.at) == (None, None, datetime.fromtimestamp(9, UTC))


def test_a_restart_that_was_announced_and_did_not_come_is_pending() -> None:
    assert told(entry(STARTED, "a", 1), entry(RESTARTS, "a", 2)).pending == {"doge.service"}


def test_a_process_that_was_killed_for_lack_of_memory_is_told() -> None:
    history = told(entry(NO_MEMORY, "a", 1), entry(BADLY, "a", 2, UNIT_RESULT="oom-kill"))
    assert history.of("doge.service")[0].out_of_memory


def test_only_systemds_own_words_are_asked_for() -> None:
    assert "_PID=1" in question(systemd_ctl.Manager(), ["a.service"], 1000)
    assert "_UID=1000" in question(systemd_ctl.Manager(user=True), ["a.service"], 1000)
    assert "USER_UNIT=a.service" in question(systemd_ctl.Manager(user=True), ["a.service"], 1000)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("é", "é".encode()),
        ([255, 10, 65], b"\xff\nA"),
        (None, b""),
        (["a", "b"], b"a\nb"),
        ([[65], "b"], b"A\nb"),
        (7, b""),
    ],
)
def test_a_message_is_text_or_bytes_or_several(value: object, text: bytes) -> None:
    assert _message(value) == text


# ---------------------------------------------------------------------------------------------------- asking

Tool = Callable[[str], None]


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Puts a script in systemctl's place: what this machine's version cannot be made to say."""
    monkeypatch.setattr(systemd_ctl, "_stamps", [])

    def put(text: str) -> None:
        tool = tmp_path / "systemctl"
        tool.write_text(f"#!/bin/sh\n{text}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return put


def looked(seconds: float = 5.0, **more: Any) -> Any:
    return systemd.units({"doge": systemd.Config(kind="systemd", unit="doge", **more)}, seconds)["doge"]


def as_lines(values: dict[str, str]) -> str:
    return "\n".join(f"{name}={value}" for name, value in values.items())


def test_a_version_that_knows_no_microseconds_is_asked_again_without_them(systemctl: Tool, tmp_path: Path) -> None:
    plain = {**STEADY, "ExecMainStartTimestamp": "Sat 2026-11-21 20:33:45 UTC"}
    (tmp_path / "said").write_text(as_lines(plain))
    refusal = "echo 'systemctl: unrecognized option --timestamp=us+utc' >&2; exit 1"
    systemctl(f'case "$*" in *--timestamp*) {refusal};; esac; cat {tmp_path}/said')
    (one,) = looked()
    assert (one.state, one.started_at) == (InstanceState.RUNNING, datetime(2026, 11, 21, 20, 33, 45, tzinfo=UTC))
    assert systemd_ctl._stamps == ["unknown"]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo rubbish", "systemd says nothing of doge.service"),
        ("exit 1", "systemd does not say how its units are: exit code 1"),
        ("yes", "does not stop talking"),
        ("head -c 100000 /dev/urandom", "says nothing of doge.service"),
        ("sleep 100", "systemctl gave no answer in time"),
        (
            "echo 'Failed to connect to bus: Connection refused' >&2; exit 1",
            "systemd cannot be reached: Connection refused",
        ),
        ("echo 'System has not been booted with systemd as init system (PID 1).' >&2; exit 1", "systemd does not run"),
    ],
)
def test_a_systemd_that_is_none_is_an_error_in_time(systemctl: Tool, script: str, told: str) -> None:
    systemctl(script)
    began = time.monotonic()
    seen = looked(1.0)
    assert isinstance(seen, EngineError)
    assert told in str(seen)
    assert time.monotonic() - began < 4


def test_a_slow_systemd_does_not_hold_up_a_start_longer_than_it_may(systemctl: Tool, tmp_path: Path) -> None:
    (tmp_path / "said").write_text(as_lines({**STEADY, "ActiveState": "inactive", "SubState": "dead", "Job": "9"}))
    systemctl(f"sleep 0.8; cat {tmp_path}/said")
    began = time.monotonic()
    with pytest.raises(EngineError, match="gave no answer in time"):
        systemd.start(systemd.Config(kind="systemd", unit="doge"), 1.0)
    assert time.monotonic() - began < 2


def may_read_journal(folder: Path) -> str:
    """As somebody whom a file's mode binds, which it does not bind root."""
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    asked = "import sys; from botkeep.runtimes.systemd_ctl import journal_is_open; print(journal_is_open(sys.argv[1:]))"
    done = subprocess.run(
        [*bound, sys.executable, "-c", asked, str(folder)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_who_may_not_read_the_journal_is_known(tmp_path: Path) -> None:
    assert may_read_journal(tmp_path / "nowhere") == "True"
    journal = tmp_path / "3d1219c7/system.journal"
    journal.parent.mkdir()
    journal.touch()
    assert may_read_journal(tmp_path) == "True"
    journal.chmod(0)
    assert may_read_journal(tmp_path) == "False"
    journal.parent.chmod(0)
    try:
        assert may_read_journal(tmp_path) in ("True", "False")  # and no traceback
    finally:
        journal.parent.chmod(0o700)


def test_names_come_after_the_options(systemctl: Tool, tmp_path: Path) -> None:
    systemctl(f"printf '%s\\n' \"$@\" > {tmp_path}/asked; echo Id=doge.service")
    looked()
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[-2:] == ["--", "doge.service"]
    assert {"--system", "--no-pager", "--no-ask-password"} < set(asked)


def test_a_refusal_says_what_to_do(systemctl: Tool, tmp_path: Path) -> None:
    over = {**STEADY, "ActiveState": "inactive", "SubState": "dead", "MainPID": "0"}
    (tmp_path / "said").write_text(as_lines(over))
    denied = "Failed to start doge.service: Interactive authentication required."
    refusal = f"echo '{denied}' >&2; echo 'See system logs for details.' >&2; exit 4"
    systemctl(f'case "$*" in *show*) cat {tmp_path}/said;; *) {refusal};; esac')
    config = systemd.Config(kind="systemd", unit="doge")
    for do in (lambda: systemd.start(config, 5), lambda: systemd.stop(config, unit(), 1, 5)):
        with pytest.raises(
            EngineError, match=r"not let user \S+ (start|stop) doge\.service: Interactive .* \(.user.: true"
        ):
            do()


def test_without_systemctl_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert str(looked()) == "systemctl cannot be run: No such file or directory. Is systemd installed?"


@pytest.fixture
def real() -> None:
    if shutil.which("systemctl") is None:
        assert not os.environ.get("CI"), "systemd must be installed in CI"
        pytest.skip("systemd is not installed")


@pytest.mark.usefixtures("real")
def test_a_users_systemd_that_does_not_run_is_named_and_how_to_keep_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    seen = looked(user=True)
    assert isinstance(seen, EngineError)
    assert "cannot be reached: No such file or directory" in str(seen)
    assert "loginctl enable-linger" in str(seen)


@pytest.mark.usefixtures("real")
def test_a_machine_that_runs_no_systemd_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a view of the file system without the folder by which systemd is known."""
    flags = "--mount" if os.geteuid() == 0 else "--mount -r"
    tool = tmp_path / "systemctl"
    inside = f'mount -t tmpfs none /run && exec {shutil.which("systemctl")} "$@"'
    tool.write_text(f"#!/bin/sh\nexec unshare {flags} sh -c '{inside}' systemctl \"$@\"\n")
    tool.chmod(0o755)
    tried = subprocess.run(f"unshare {flags} true".split(), capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("this machine lets us make no mount namespace")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert str(looked()) == "systemd does not run on this machine: its first process is another program."


def test_a_unit_that_does_not_exist_is_no_such_unit(systemctl: Tool) -> None:
    gone = "echo Id=doge.service; echo LoadState=not-found; echo ActiveState=inactive"
    systemctl(f'case "$*" in *list-unit*) echo "dogge.service enabled enabled";; *) {gone};; esac')
    seen = looked()
    assert isinstance(seen, NoSuchUnitError)
    assert "systemd has no unit doge.service: did you mean dogge.service?" in str(seen)
    assert '"user": true' in str(seen)
