"""What botkeep makes of an engine's words: samples of a real one, tables, and engines that behave badly."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from botkeep.config import load_fleet
from botkeep.model import EngineError, Exit, InstanceState
from botkeep.runtimes import RUNTIMES, compose, docker, docker_control, docker_log, docker_transport
from botkeep.runtimes.docker_address import Address, address_of, place_of
from botkeep.runtimes.docker_facts import Containers, Inspected, Listed, moment, nanoseconds
from botkeep.runtimes.docker_log import Message
from botkeep.runtimes.docker_memory import FILE, RunMemory
from botkeep.runtimes.docker_units import Container, code_or_signal, container_of, why_not
from botkeep.runtimes.engine import NoSuchUnitError
from botkeep.runtimes.procs import ProcessTable
from botkeep.workspace import Workspace
from support.loopback import Serve, servers

DATA = Path(__file__).parents[1] / "data" / "docker"
ID = "ffa02f3eee7043d480b28dac2b4271bb8fa77139480ea8fd7dbba8aa0ab2128e"


def inspected(state: dict[str, Any], restarts: int = 0, **host: Any) -> Inspected:
    return Inspected.model_validate({"Id": ID, "State": state, "RestartCount": restarts, "HostConfig": host})


def in_list(name: str = "bot", state: str = "running", **more: Any) -> Listed:
    raw = {"Id": ID, "Names": [f"/{name}"], "State": state, "Status": "Up 5 minutes", "Image": "bb:1", **more}
    return Listed.model_validate(raw)


def sample(name: str) -> tuple[dict[str, Any], int]:
    """A state as `docker inspect` gave it, and how often the engine had restarted the container."""
    restarts, _, state = (DATA / name).read_text().rpartition(" {")
    return json.loads("{" + state if restarts else state), int(restarts or 0)


def unit(state: dict[str, Any], restarts: int = 0, **host: Any) -> Container:
    return container_of(in_list(state=state["Status"]), inspected(state, restarts, **host), is_here=True)


# ---------------------------------------------------------------------------------------------------- samples


def test_a_running_container_is_a_unit_with_its_run_named_by_id_and_start() -> None:
    raw = json.loads((DATA / "inspect_running.json").read_text())
    seen = Inspected.model_validate(raw[0] if isinstance(raw, list) else raw)
    one = container_of(in_list("ftbot", Id=seen.id), seen, is_here=True)
    assert one.run == "2026-11-21T10:06:43.982002979Z/dd67335d547f"
    assert (one.state, one.pid, one.exit, one.giving_up) == (InstanceState.RUNNING, 4632, None, "")
    assert one.started_at == datetime(2026, 11, 21, 10, 6, 43, 982002, UTC)
    assert (one.restarts, one.driver, one.tty, one.notes) == (0, "json-file", False, ())
    assert one.cgroup == one.id == seen.id


def test_a_container_that_somebody_killed_ended_by_a_signal_and_not_for_lack_of_memory() -> None:
    state, _ = sample("state_killed.json")
    one = unit(state)
    assert one.state is None
    assert one.exit is not None
    assert (one.exit.code, one.exit.signal, one.exit.out_of_memory) == (None, signal.SIGKILL, False)
    assert one.exit.at == datetime(2026, 11, 21, 10, 8, 4, 672291, UTC)
    assert one.exit.key == one.run


def test_a_container_that_the_kernel_ended_for_lack_of_memory_says_so() -> None:
    one = unit(sample("state_oom.json")[0])
    assert one.exit is not None
    assert (one.exit.signal, one.exit.out_of_memory) == (signal.SIGKILL, True)


def test_a_paused_container_is_frozen_and_of_the_run_before_only_its_end_is_known() -> None:
    one = unit(sample("state_paused.json")[0])
    assert (one.state, one.pid) == (InstanceState.FROZEN, 5402)
    assert one.exit == Exit("2026-11-21T10:08:04.672291292Z/ffa02f3eee70/before", moment("2026-11-21T10:08:04.672291Z"))


def test_a_container_between_two_restarts_is_starting_and_its_engine_gives_it_up() -> None:
    state, restarts = sample("state_restartloop.json")
    one = unit(state, restarts)
    assert (one.state, one.pid, one.restarts) == (InstanceState.STARTING, None, 9)
    assert one.giving_up == "Docker has restarted it 9 times, and it ended again (exit code 137, out of memory)"


def test_one_restart_after_a_long_run_is_no_loop() -> None:
    state, _ = sample("state_restartloop.json")
    assert unit(state, 2).giving_up == ""
    assert unit({**state, "StartedAt": "2026-11-20T10:09:32Z"}, 9).giving_up == ""


# ---------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-11-21T17:56:16.40634281Z", 1795283776406342810),
        ("2026-11-21T18:56:16.40634281+01:00", 1795283776406342810),
        ("2026-11-21T17:56:16Z; rm -rf", None),
    ],
)
def test_times_are_read_to_the_nanosecond_and_year_one_is_none(text: str, count: int | None) -> None:
    assert nanoseconds(text) == count


@pytest.mark.parametrize(
    ("code", "expected"), [(0, (0, None)), (137, (None, 9)), (143, (None, 15)), (128, (128, None)), (255, (255, None))]
)
def test_a_code_above_128_is_the_signal_that_ended_it(code: int, expected: tuple[int | None, int | None]) -> None:
    assert code_or_signal(code) == expected


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container "
            'process: exec: "./no-such-bot": stat ./no-such-bot: no such file or directory: unknown',
            "./no-such-bot: No such file or directory",
        ),
        (
            "OCI runtime create failed: container_linux.go:380: starting container process caused: "
            'exec: "freqtrade": executable file not found in $PATH: unknown',
            "freqtrade: Executable file not found in",
        ),
        (
            "driver failed programming external connectivity on endpoint bot: Bind for 0.0.0.0:8080 failed: port is "
            "already allocated",
            "driver failed programming external connectivity on endpoint bot: Bind for 0.0.0.0:8080 failed: port is "
            "already allocated",
        ),
    ],
)
def test_why_a_container_could_not_be_started_is_told_without_the_engines_layers(error: str, said: str) -> None:
    assert why_not(error).startswith(said)


def state(status: str, **more: Any) -> dict[str, Any]:
    times = {"StartedAt": "2026-11-21T10:00:00.5Z", "FinishedAt": "2026-11-21T10:00:02Z"}
    return {"Status": status, "Pid": 7 if status in ("running", "paused") else 0, "ExitCode": 1, **times, **more}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("created", None),
        ("running", InstanceState.RUNNING),
        ("paused", InstanceState.FROZEN),
        ("restarting", InstanceState.STARTING),
        ("removing", None),
        ("exited", None),
        ("dead", None),
        ("a state of a later version", None),
    ],
)
def test_every_state_of_an_engine_is_known(status: str, expected: InstanceState | None) -> None:
    assert unit(state(status)).state is expected


def test_a_container_that_was_never_started_has_no_exit_and_one_that_could_not_be_says_why() -> None:
    never = {"StartedAt": "0001-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z", "ExitCode": 0}
    assert unit(state("created", **never)).exit is None
    failed = unit(state("created", **never, Error='exec: "x": no such file or directory')).exit
    assert failed is not None
    assert (failed.failed_to_start, failed.at, failed.code) == ("x: No such file or directory", None, None)


def test_a_dead_container_and_one_whose_policy_is_used_up_are_given_up_by_their_engine() -> None:
    assert "dead" in unit(state("dead")).giving_up
    policy = {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}
    assert unit(state("exited"), 2, **policy).giving_up == ""
    assert "all that its restart policy allows" in unit(state("exited"), 3, **policy).giving_up


def test_what_will_surprise_a_person_is_a_note() -> None:
    def notes(listed: dict[str, Any] | None = None, **host: Any) -> str:
        one = in_list(**(listed or {}))
        seen = Inspected.model_validate(
            {"Id": ID, "State": state("running"), "HostConfig": host, "Config": {"Image": "freqtrade:stable"}}
        )
        return " ".join(container_of(one, seen, is_here=True).notes)

    assert "docker update --restart unless-stopped bot" in notes(RestartPolicy={"Name": "always"})
    assert notes(RestartPolicy={"Name": "unless-stopped"}) == ""
    assert "--rm" in notes(AutoRemove=True)
    assert "log driver none" in notes(LogConfig={"Type": "none"})
    assert "cannot be read back" in notes(LogConfig={"Type": "syslog", "Config": {"cache-disabled": "true"}})
    assert "freqtrade:stable is a newer one" in notes({"Image": "sha256:1d8f"})


def test_a_compose_file_that_was_edited_after_the_container_was_made_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_text("services: {}")
    labels = {
        "com.docker.compose.project.working_dir": str(tmp_path),
        "com.docker.compose.project.config_files": "compose.yml,gone.yml",
    }
    made = {"Id": ID, "State": state("running"), "Created": "2026-11-21T10:00:00Z"}

    def notes(edited: str, *, is_here: bool = True) -> tuple[str, ...]:
        at = datetime.fromisoformat(edited).timestamp()
        os.utime(tmp_path / "compose.yml", (at, at))
        return container_of(in_list(Labels=labels), Inspected.model_validate(made), is_here=is_here).notes

    assert notes("2026-11-21T09:59:59+00:00") == ()
    (note,) = notes("2026-11-21T11:30:00+00:00")
    assert note.startswith("compose.yml was edited at 2026-11-21 11:30:00Z, after this container was made")
    assert notes("2026-11-21T11:30:00+00:00", is_here=False) == ()


def test_an_unhealthy_container_shows_the_last_words_of_its_health_check() -> None:
    log = [{"ExitCode": 1, "Output": "old"}, {"ExitCode": 1, "Output": "connect:\x1b[31m refused\n"}]
    health = {"Status": "unhealthy", "FailingStreak": 4, "Log": log}
    seen = inspected(state("running", Health=health))
    one = container_of(in_list(Status="Up 5 minutes (unhealthy)"), seen, is_here=True)
    assert one.health is not None
    assert (one.health.ok, one.health.rule) == (False, "unhealthy")
    assert one.health.text == "it failed 4 times in a row and says: connect: refused"
    healthy = container_of(in_list(Status="Up 5 minutes (healthy)"), seen, is_here=True).health
    assert healthy is not None
    assert healthy.ok
    assert container_of(in_list(Status="Up 5 minutes (health: starting)"), seen, is_here=True).health is None


@pytest.mark.parametrize(
    ("count", "memory", "both", "expected"),
    [
        (300, 200, 400, 500),
        (300, 200, 200, 300),
        (300, 200, -1, -1),
        (300, 200, 0, -1),
        (300, 0, 0, 600),
    ],
)
def test_more_memory_leaves_the_swap_on_top_as_it_was(count: int, memory: int, both: int, expected: int) -> None:
    assert docker_control.with_swap(count, memory, both) == expected


# ---------------------------------------------------------------------------------------------------- which one


def many(*entries: tuple[str, str, dict[str, str]]) -> Containers:
    """(name, state, labels); the nth has an id of that digit."""
    return Containers(
        in_list(name, state, Id=f"{place:x}" * 64, Labels=labels, Created=place, Command="run bot")
        for place, (name, state, labels) in enumerate(entries, 1)
    )


def docker_config(container: str) -> docker.Config:
    return docker.Config(kind="docker", container=container)


def service(number: str = "1", **more: str) -> dict[str, str]:
    prefix = "com.docker.compose"
    labels = {f"{prefix}.project": "p", f"{prefix}.service": "bot", f"{prefix}.container-number": number}
    return {**labels, **{f"{prefix}.{key}": value for key, value in more.items()}}


def names(found: tuple[Listed, ...]) -> list[str]:
    return [one.name for one in found]


def test_a_container_is_found_by_its_name_or_id_and_never_by_a_part_of_its_name() -> None:
    engine = many(("bot", "running", {}), ("bot1", "running", {}), ("other", "exited", {}))
    assert names(docker_config("bot").among(engine)) == ["bot"]
    assert names(docker_config("2" * 12).among(engine)) == ["bot1"]
    with pytest.raises(NoSuchUnitError, match=r"There is no container bott: did you mean bot\? The engine has bot, "):
        docker_config("bott").among(engine)
    with pytest.raises(NoSuchUnitError, match="the engine has none"):
        docker_config("bot").among(Containers(()))


def test_the_name_that_a_linked_container_uses_is_nobodys_own() -> None:
    engine = Containers([in_list(Names=["/other/bot", "/p_bot_1"])])
    assert names(docker_config("p_bot_1").among(engine)) == ["p_bot_1"]
    with pytest.raises(NoSuchUnitError):
        docker_config("bot").among(engine)


def test_a_container_that_compose_left_renamed_is_still_the_bot_and_a_second_living_one_is_a_copy() -> None:
    renamed = ("249662c60a09_bot", "exited", service())
    assert names(docker_config("bot").among(many(renamed))) == ["249662c60a09_bot"]
    assert names(docker_config("bot").among(many(renamed, ("bot", "running", {})))) == ["bot"]
    alive = ("249662c60a09_bot", "running", service())
    assert names(docker_config("bot").among(many(alive, ("bot", "running", {})))) == ["bot", "249662c60a09_bot"]


def test_a_name_that_only_looks_like_composes_is_another_container() -> None:
    engine = many(("bot", "running", {}), ("249662c60a09_bot", "running", {}))
    assert names(docker_config("bot").among(engine)) == ["bot"]
    own = many(("bot", "running", {}), (f"{'2' * 12}_bot", "running", {}))
    assert names(docker_config("bot").among(own)) == ["bot", f"{'2' * 12}_bot"]


def test_a_service_is_found_by_its_labels_and_both_of_its_containers_are_told() -> None:
    bot = compose.Config(kind="compose", project="p", service="bot")
    engine = many(
        ("249662c60a09_p_bot_1", "running", service()), ("p_bot_2", "running", service("2")), ("bot", "x", {})
    )
    assert names(bot.among(engine)) == ["249662c60a09_p_bot_1", "p_bot_2"]
    with pytest.raises(NoSuchUnitError, match=r"Project p has no container of a service bt: did you mean bot\?"):
        compose.Config(kind="compose", project="p", service="bt").among(engine)
    with pytest.raises(NoSuchUnitError, match="no container of a Compose project q: The engine has p"):
        compose.Config(kind="compose", project="q", service="bot").among(engine)


def test_what_compose_ran_once_is_a_copy_only_if_it_runs_the_services_own_command() -> None:
    bot = compose.Config(kind="compose", project="p", service="bot")
    own = ("p_bot_1", "running", service())
    assert names(bot.among(many(own, ("p_bot_run_1", "running", service(oneoff="True"))))) == ["p_bot_1", "p_bot_run_1"]
    assert names(bot.among(many(own, ("p_bot_run_1", "exited", service(oneoff="True"))))) == ["p_bot_1"]
    backtest = in_list("p_bot_run_2", Id="e" * 64, Labels=service(oneoff="True"), Command="freqtrade backtesting")
    assert names(bot.among(Containers([*many(own).all, backtest]))) == ["p_bot_1"]


def test_of_several_the_one_to_start_has_its_own_name_and_the_lowest_number() -> None:
    engine = many(
        ("249662c60a09_p_bot_1", "exited", service()), ("p_bot_2", "x", service("2")), ("p_bot_1", "x", service())
    )
    bot = compose.Config(kind="compose", project="p", service="bot")
    assert docker_control.first_of(bot.among(engine)).name == "p_bot_1"


def test_two_bots_that_mean_one_container_are_both_told_so() -> None:
    engine = many(("bot", "running", {}), ("other", "running", {}))
    configs = {"a": docker_config("bot"), "b": docker_config("1" * 12), "c": docker_config("other")}
    found = docker_control.pick(configs, engine)
    assert str(found["a"]) == str(found["b"]) == "a and b both mean container bot; give each bot its own."
    assert isinstance(found["c"], tuple)


# ---------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("kind", ["docker", "compose"])
@pytest.mark.parametrize(
    "name", ["--host=tcp://127.0.0.1:1", ";id", "-f", "$(id)", "a b", "a\nb", "../x", "a/b", "", "a" * 300, "\0", 5]
)
def test_a_name_that_could_become_an_option_or_a_shell_word_is_no_name(kind: str, name: object) -> None:
    fields = {"container": name} if kind == "docker" else {"project": "p", "service": name}
    with pytest.raises(ValidationError):
        RUNTIMES[kind].Config.model_validate({"kind": kind, **fields})


@pytest.mark.parametrize(
    "host",
    [
        "unix://relative",
        "unix:///a\nb",
        "http://x:1",
        "tcp://x",
        "tcp://h:0",
        "tcp://h:99999",
        "tcp://-oProxyCommand=x:1",
        "ssh://-oProxyCommand=id",
        "ssh://x;id",
        "ssh://u:p@h",
        "ssh://h/path",
        "npipe:////./pipe",
        "",
    ],
)
def test_a_host_that_is_none_is_refused(host: str) -> None:
    assert place_of(host) is None
    with pytest.raises(ValidationError, match="write unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST"):
        docker.Config(kind="docker", container="x", host=host)


def test_hosts_are_taken_apart() -> None:
    assert place_of("unix:///run/d.sock") == ("unix", "/run/d.sock", "", None, "")
    assert place_of("tcp://[::1]:2376") == ("tcp", "", "::1", 2376, "")
    assert place_of("ssh://trader@vps.example:2222") == ("ssh", "", "vps.example", 2222, "trader")


def test_who_logs_in_over_ssh_is_no_secret_and_a_password_is(tmp_path: Path) -> None:
    def problem(host: str) -> str | None:
        runtime = {"kind": "docker", "container": "x", "host": host}
        (tmp_path / "config").mkdir(exist_ok=True)
        (tmp_path / "config/bots.json").write_text(json.dumps({"bots": [{"name": "doge", "runtime": runtime}]}))
        return load_fleet(Workspace(tmp_path)).entries[0].problem

    assert problem("ssh://trader@10.0.0.5") is None
    assert "secret" in str(problem("ssh://trader:hunter2@10.0.0.5"))
    assert "secret" in str(problem(f"ssh://ghp_{'a1B2' * 9}@10.0.0.5"))


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ({"cert": "/x"}, "write both"),
        ({"ca": "relative.pem"}, "pattern"),
        ({"verify": False}, "Extra inputs"),
    ],
)
def test_tls_is_files_and_never_unchecked(tls: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        docker.Config(kind="docker", container="x", host="tcp://h:1", tls=tls)


def test_tls_is_for_tcp_alone() -> None:
    with pytest.raises(ValidationError, match="only beside a `host` of tcp"):
        docker.Config.model_validate({"kind": "docker", "container": "x", "tls": {"ca": "/x"}})


def test_without_a_host_the_environment_says_where_the_engine_is() -> None:
    bot = docker_config("x")
    assert address_of(bot, {}) == Address("unix:///var/run/docker.sock")
    assert address_of(bot, {"DOCKER_HOST": "ssh://trader@vps"}).place.user == "trader"
    secured = address_of(bot, {"DOCKER_HOST": "tcp://h:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/c"})
    assert secured.tls is not None
    assert (secured.tls.ca, secured.tls.cert, secured.tls.key) == ("/c/ca.pem", "/c/cert.pem", "/c/key.pem")
    with pytest.raises(EngineError, match=r"\$DOCKER_HOST is nonsense, which is no engine's address: write unix"):
        address_of(bot, {"DOCKER_HOST": "nonsense"})


def test_neither_a_user_nor_a_terminals_control_reaches_a_sentence() -> None:
    assert str(Address("ssh://trader@vps:22")) == "ssh://vps:22"


# ---------------------------------------------------------------------------------------------------- output


def lines(count: int, size: int = 40) -> list[Message]:
    return [Message(10**18 + place * 1000, b"%06d %s\n" % (place, b"." * size)) for place in range(count)]


def stamped(one: Message) -> bytes:
    at = datetime.fromtimestamp(one.at // 10**9, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{one.at % 10**9:09d}Z ".encode() + one.text


class Raw:
    """An answer's body, given out in pieces of another size than the asked one."""

    def __init__(self, data: bytes, piece: int) -> None:
        self.data, self.piece = data, piece

    def read(self, size: int) -> bytes:
        taken = self.data[: min(size, self.piece)]
        self.data = self.data[len(taken) :]
        return taken


def framed(messages: list[Message]) -> bytes:
    bodies = [stamped(one) for one in messages]
    return b"".join(
        bytes([1 + place % 2, 0, 0, 0]) + len(one).to_bytes(4, "big") + one for place, one in enumerate(bodies)
    )


@pytest.mark.parametrize("piece", [1, 7, 1000, 1 << 20])
def test_two_streams_in_frames_and_one_without_are_the_same_lines(piece: int) -> None:
    sample = (DATA / "freqtrade_docker_logs.txt").read_bytes().splitlines(keepends=True)
    said = [Message(10**18 + place, line) for place, line in enumerate(sample) if line.endswith(b"\n")]
    assert len(said) > 5
    assert list(docker_log._frames(Raw(framed(said), piece))) == said
    assert list(docker_log._tty(Raw(b"".join(map(stamped, said)), piece))) == said


def test_a_long_line_that_the_engine_cut_into_pieces_is_whole_again() -> None:
    text = bytes(range(33, 127)) * 500 + b"\n"
    cut = [Message(10**18, text[place : place + docker_log.PIECE]) for place in range(0, len(text), docker_log.PIECE)]
    assert b"".join(one.text for one in docker_log._tty(Raw(b"".join(map(stamped, cut)), 5000))) == text
    assert b"".join(one.text for one in docker_log._frames(Raw(framed(cut), 5000))) == text


@pytest.mark.parametrize("end", [1, 8, 9, 20, 38, 50])
def test_an_answer_that_breaks_off_gives_only_whole_messages(end: int) -> None:
    said = lines(3)
    whole = framed(said)
    assert list(docker_log._frames(Raw(whole[: len(framed(said[:2])) + end], 100))) == said[:2]


def test_the_newest_part_of_old_output_is_kept_in_bounds() -> None:
    said = lines(5000)
    kept = docker_log._newest(said, 10_000)
    assert kept == said[-len(kept) :]
    assert 9_000 < sum(len(one.text) for one in kept) <= 10_000


def test_what_is_remembered_of_the_newest_lines_is_bounded_and_reaches_as_far_back_as_it_says() -> None:
    said = lines(5000)
    cursor = docker_log._cursor(said, {})
    assert cursor["seen"] == [one.trace for one in said[-docker_log.REMEMBERED + 1 :]]
    assert cursor["from"] == said[-docker_log.REMEMBERED].at + 1
    slow = [Message(10**18 + place * 10**9, b"x") for place in range(10)]
    assert docker_log._cursor(slow, {})["from"] == slow[-1].at - docker_log.OVERLAP


@pytest.mark.parametrize(
    ("known", "state", "expected"),
    [
        ({}, "running", {"began": 0}),
        ({"run": "old", "over": True}, "running", {"began": 0}),
        ({"run": "old", "over": False}, "running", {"began": 2 * 48}),
        ({"run": "same", "over": False}, "running", {}),
    ],
)
def test_where_the_newest_run_begins_is_found_by_the_times_of_the_lines(
    known: dict[str, Any], state: str, expected: dict[str, int]
) -> None:
    said = lines(4)
    one = Container(id=ID, run="same", state=InstanceState.RUNNING, began=said[2].at)
    assert docker_log._began(one, known, docker_log._Read(said, {})) == expected


def test_of_a_container_that_nobody_has_read_yet_the_earlier_runs_are_told_apart() -> None:
    said = [replace(one, at=one.at + 60 * 10**9 * (place >= 2)) for place, one in enumerate(lines(4))]
    one = Container(id=ID, run="new", state=InstanceState.RUNNING, began=said[2].at - 1)
    assert docker_log._began(one, {}, docker_log._Read(said, {})) == {"began": 2 * 48}
    first = unit(state("running", FinishedAt="0001-01-01T00:00:00Z"))
    assert docker_log._began(first, {}, docker_log._Read(said, {})) == {"began": 0}


def test_a_run_that_has_said_nothing_yet_begins_where_the_copy_ends() -> None:
    said = lines(4)
    one = Container(id=ID, run="new", state=InstanceState.RUNNING, began=said[-1].at + 1)
    first = docker_log._began(one, {"run": "old", "over": False}, docker_log._Read(said, {}))
    assert first == {"began": -1, "begins": one.began}
    later = [replace(said[0], at=one.began or 0)]
    assert docker_log._began(one, {"run": "new", **first}, docker_log._Read(later, {})) == {"began": 0}


# ---------------------------------------------------------------------------------------------------- bad engines

PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 0\r\n\r\n"
SECONDS = 1.0


def answer(*parts: bytes) -> Callable[[socket.socket], None]:
    """One part for each request on the connection."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(parts[0])
        for part in parts[1:]:
            connection.recv(65536)
            connection.sendall(part)

    return talk


def whole(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def drip(connection: socket.socket) -> None:
    """A byte at a time, each well within any limit for one read."""
    connection.sendall(PING)
    connection.recv(65536)
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def drip_body(connection: socket.socket) -> None:
    connection.sendall(PING)
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(100_000):
        connection.sendall(b" ")
        time.sleep(0.02)


def endless(connection: socket.socket) -> None:
    connection.sendall(PING)
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n[")
    while True:
        connection.sendall(b" " * 65536)


def silent(connection: socket.socket) -> None:
    connection.recv(1)


BAD = {
    "says nothing": (silent, "gave no complete answer within 1 s"),
    "says nothing after a greeting": (answer(PING, b""), "gave no complete answer|broke off"),
    "drips its headers": (drip, "gave no complete answer within 1 s"),
    "drips its body": (drip_body, "gave no complete answer within 1 s"),
    "does not end": (endless, "does not stop talking|gave no complete answer"),
    "is no engine": (answer(whole(b"hello")), "is not Docker"),
    "is not even HTTP": (answer(b"SSH-2.0-OpenSSH_9.2\r\n"), "is not understood|broke off"),
    "greets with nonsense": (answer(PING.replace(b"1.41", b"9.9.9; rm")), "is not Docker"),
    "breaks off": (answer(PING, b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[{"), "is not understood|broke off"),
    "answers no JSON": (answer(PING, whole(b"<html>")), "is not understood"),
    "answers another JSON": (answer(PING, whole(b'{"a": 1}')), "is not understood"),
    "answers a list of nonsense": (answer(PING, whole(b'[{"Id": "../../etc"}]')), "is not understood"),
    "answers numbers as names": (answer(PING, whole(b'[{"Id": 1, "Names": [2], "State": 3}]')), "is not understood"),
    "fails": (answer(PING, whole(b'{"message": "its disk is\\u001b[31m full"}', "500 No")), "says: its disk is full"),
    "fails without words": (answer(PING, whole(b"[1]", "500 No")), "says: |is not understood"),
    "sends elsewhere": (
        answer(PING, b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
        "is not understood|broke off|cannot be reached",
    ),
}


@pytest.fixture
def serve() -> Iterator[Serve]:
    with servers() as start:
        yield start
    docker_transport.hang_up()


@pytest.mark.parametrize(("behaves", "said"), BAD.values(), ids=BAD)
def test_an_engine_that_behaves_badly_is_that_bots_error_within_its_deadline(
    serve: Serve, behaves: Callable[[socket.socket], None], said: str
) -> None:
    bad = serve(behaves)
    bot = docker.Config(kind="docker", container="bot", host=f"tcp://127.0.0.1:{bad.port}")
    began = time.monotonic()
    found = docker_control.units({"bot": bot}, SECONDS)["bot"]
    assert time.monotonic() - began < SECONDS + 0.5
    assert isinstance(found, EngineError)
    assert re.search(said, str(found)), str(found)
    assert str(found).isprintable()


def test_a_socket_that_nobody_answers_and_one_that_is_not_there_do_not_hold_up_the_others(
    serve: Serve, tmp_path: Path
) -> None:
    good = serve(answer(PING, whole(b"[]")))
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        hosts = {
            "mute": f"unix://{tmp_path}/mute",
            "gone": f"unix://{tmp_path}/gone",
            "closed": "tcp://127.0.0.1:1",
            "nowhere": "tcp://no-such-host.invalid:2375",
            "good": f"tcp://127.0.0.1:{good.port}",
        }
        configs = {name: docker.Config(kind="docker", container="bot", host=host) for name, host in hosts.items()}
        began = time.monotonic()
        found = docker_control.units(configs, SECONDS)
        assert time.monotonic() - began < SECONDS + 0.5
    assert re.search("no complete answer within 1 s", str(found["mute"]))
    assert re.search("No such file or directory. Is the engine running", str(found["gone"]))
    assert re.search("Connection refused. Is the engine running", str(found["closed"]))
    assert re.search("the name is not known|no complete answer", str(found["nowhere"]))
    assert "There is no container bot" in str(found["good"])


def test_a_container_that_its_engine_has_locked_up_is_its_own_error(serve: Serve) -> None:
    """The list answers, one container does not: the others are looked at all the same."""
    entry = {"Names": ["/bad"], "State": "running", "Status": "Up"}
    listed = [{**entry, "Id": "a" * 64}, {**entry, "Id": "b" * 64, "Names": ["/good"]}]
    good = {"Id": "b" * 64, "State": state("running"), "RestartCount": 1}

    def engine(connection: socket.socket) -> None:
        connection.sendall(PING)
        while asked := connection.recv(65536):
            if b"/containers/json" in asked:
                connection.sendall(whole(json.dumps(listed).encode()))
            elif b"b" * 64 in asked:
                connection.sendall(whole(json.dumps(good).encode()))
            elif b"/events" in asked:
                connection.sendall(whole(b"", "500 No"))
            elif b"_ping" in asked:
                connection.sendall(PING)

    host = f"tcp://127.0.0.1:{serve(engine).port}"
    configs = {name: docker.Config(kind="docker", container=name, host=host) for name in ("bad", "good")}
    found = docker_control.units(configs, 8.0)
    assert "gave no complete answer within 2 s" in str(found["bad"])
    assert isinstance(found["good"], tuple)
    assert found["good"][0].restarts == 1
    assert found["good"][0].pid is None  # the engine is not here: its pids are nobody's


def test_what_an_engine_noted_of_a_death_is_the_exit_of_the_run_before() -> None:
    ended = Exit("k", datetime.fromtimestamp(1000, UTC))

    def event(action: str, at: float, **more: str) -> dict[str, Any]:
        return {"Action": action, "timeNano": int(at * 1e9), "Actor": {"Attributes": more}}

    events = [event("die", 990, exitCode="3"), event("oom", 999.9), event("die", 1000.1, exitCode="137")]
    seen = docker_control.from_diary(events, ended)
    assert (seen.code, seen.signal, seen.out_of_memory) == (None, 9, True)
    assert docker_control.from_diary(events[:1], ended) == ended


def test_an_engine_that_once_gave_no_output_in_time_does_not_keep_a_hundred_bots_waiting(serve: Serve) -> None:
    def engine(connection: socket.socket) -> None:
        connection.sendall(PING)
        connection.recv(65536)
        connection.recv(65536)

    host = f"tcp://127.0.0.1:{serve(engine).port}"
    bot = docker.Config(kind="docker", container="bot", host=host)
    one = Container(id=ID, run="r", state=InstanceState.RUNNING, began=1)
    with pytest.raises(EngineError, match="gave no complete answer"):
        docker_log.read_log(bot, one, {}, SECONDS)
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(EngineError, match="it is not asked again so soon"):
            docker_log.read_log(bot, one, {}, SECONDS)
    assert time.monotonic() - began < SECONDS


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"%s": 1}' % ID.encode(), b'{"%s": {"pid": "x"}}' % ID.encode()])
def test_a_memory_that_was_torn_or_edited_remembers_nothing(tmp_path: Path, left: bytes) -> None:
    (tmp_path / FILE).write_bytes(left)
    memory = RunMemory(tmp_path, ProcessTable.read())
    assert memory.recall(in_list()) is None
    memory.changed = True
    memory.write()
    assert json.loads((tmp_path / FILE).read_bytes()) == {}


def test_without_the_sdk_every_bot_in_a_container_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['docker'] = None\n"
        "from botkeep.runtimes import docker, docker_control\n"
        "bot = docker.Config(kind='docker', container='bot')\n"
        "print(docker_control.units({'bot': bot}, 1.0)['bot'])\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == 'Bots in containers need botkeep[docker]: pip install "botkeep[docker]".\n'


def test_a_check_of_plain_processes_loads_no_engine() -> None:
    loaded = "[name for name in sys.modules if 'docker' in name]"
    script = f"import sys, botkeep.runtimes as r; r.RUNTIMES['process'].Config; print({loaded})"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---------------------------------------------------------------------------------------------------- limits.memory


@pytest.mark.parametrize(
    ("memory", "most", "step"),
    [
        ({"most": "2GB", "step": 1.5}, 2_000_000_000, "1.5"),
        ({"most": "512MiB"}, 512 << 20, "1.5"),
        ({"most": "1.5 GiB", "step": 2}, 3 << 29, "2"),
    ],
)
def test_a_memory_limit_is_written_as_people_write_sizes(
    tmp_path: Path, memory: dict[str, Any], most: int, step: str
) -> None:
    bot = load_fleet(fleet_with(tmp_path, memory)).entries[0].bot
    assert bot is not None
    assert bot.limits.memory is not None
    assert (bot.limits.memory.most, str(bot.limits.memory.step)) == (most, step)


@pytest.mark.parametrize(
    ("memory", "kind", "said"),
    [
        (
            {"most": 2_000_000_000},
            "docker",
            "$.bots[0].limits.memory.most: found 2000000000; write an amount of memory",
        ),
        ({"most": "2"}, "docker", 'like "512MiB" or "2GB"'),
        ({"most": "1MB"}, "docker", "at least 4 MiB"),
        ({"most": "2GB", "step": 1}, "docker", "write more than 1"),
        ({"step": 2}, "docker", "it is missing"),
        ({"most": "2GB", "least": "1GB"}, "docker", "there is no such key"),
        ({"most": "2GB"}, "process", "only a memory limit that an engine keeps can be raised"),
    ],
)
def test_a_memory_limit_that_means_nothing_is_refused(
    tmp_path: Path, memory: dict[str, Any], kind: str, said: str
) -> None:
    assert said in str(load_fleet(fleet_with(tmp_path, memory, kind)).entries[0].problem)


def fleet_with(home: Path, memory: dict[str, Any], kind: str = "docker") -> Workspace:
    runtime = {"kind": "docker", "container": "x"} if kind == "docker" else {"kind": "process", "command": ["x"]}
    bot = {"name": "doge", "runtime": runtime, "limits": {"memory": memory}}
    (home / "config").mkdir()
    (home / "config/bots.json").write_text(json.dumps({"bots": [bot]}))
    return Workspace(home)
