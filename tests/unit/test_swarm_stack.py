"""`botkeep swarm-stack`: what stands in the file, what never does, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from botkeep.cli import main
from botkeep.config import load_fleet
from botkeep.model import UsageError
from botkeep.swarm_stack import Written, written
from botkeep.workspace import Workspace

IMAGE = "registry.example/bots:1"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    return tmp_path


def entry(name: str = "doge", **more: Any) -> dict[str, Any]:
    runtime = {"kind": "process", "command": ["python", f"{name}.py"], **more.pop("runtime", {})}
    return {"name": name, "runtime": runtime, **more}


def stack(home: Path, *bots: dict[str, Any], image: str | None = IMAGE) -> Written:
    (home / "config/bots.json").write_text(json.dumps({"bots": list(bots)}))
    return written(load_fleet(Workspace(home)), image=image)


def services(made: Written) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(made.text)["services"]
    return found


def test_every_service_has_one_replica_and_never_two_at_an_update(home: Path) -> None:
    found = services(stack(home, entry(), entry("shib")))
    assert set(found) == {"doge", "shib", "watcher"}
    for one in found.values():
        deploy = one["deploy"]
        assert deploy["replicas"] == 1
        assert deploy["update_config"]["order"] == deploy["rollback_config"]["order"] == "stop-first"
        assert one["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert found["doge"]["deploy"]["restart_policy"]["condition"] == "on-failure"
    assert "node.role == manager" in found["watcher"]["deploy"]["placement"]["constraints"]


def test_names_of_keys_stand_in_the_file_and_no_value_anywhere(home: Path) -> None:
    (home / ".env").write_text("API_KEY=hunter2hunter2\nexport PEM='MIIE1\nMIIE2'\n")
    (home / ".env").chmod(0o600)
    made = stack(home, entry(runtime={"env_file": ".env"}))
    document = yaml.safe_load(made.text)
    assert document["secrets"] == {"doge_API_KEY": {"external": True}, "doge_PEM": {"external": True}}
    mounted = document["services"]["doge"]["secrets"]
    assert [(one["source"], one["target"], one["mode"]) for one in mounted] == [
        ("doge_API_KEY", "API_KEY", 0o400),
        ("doge_PEM", "PEM", 0o400),
    ]
    everything = made.text + "".join(made.notes)
    assert "hunter2" not in everything
    assert "MIIE" not in everything
    assert sum("docker secret create doge_" in note for note in made.notes) == 2


def test_what_compose_would_fill_in_stands_for_itself(home: Path) -> None:
    bot = entry(runtime={"command": ["./bot", "--rate=$5", "${HOME}", "é: #x"], "env": {"A": "1$", "B": "yes"}})
    found = services(stack(home, bot))["doge"]
    assert found["entrypoint"] == ["./bot", "--rate=$$5", "$${HOME}", "é: #x"]
    assert found["environment"] == {"A": "1$$", "B": "yes"}


def test_what_docker_would_take_for_a_number_stands_in_quotes(home: Path) -> None:
    """Its reader knows more numbers than the one here: 1e-4 would become 0.0001, 0888 lose its zero."""
    words = [
        "1e-4",
        "0888",
        "0o14",
        "12e03",
        "1_0",
        "y",
        "N",
        "1:30",
        "yes",
        "null",
        "~",
        "",
        "0x1F",
        "-.5",
        "2026-11-21",
    ]
    env = {f"V{place}": word for place, word in enumerate(words)} | {"Y": "n"}
    made = stack(home, entry(runtime={"command": ["./bot", *words], "env": env}))
    found = services(made)["doge"]
    assert found["entrypoint"][1:] == words
    assert found["environment"] == env
    lines = {line.strip().removeprefix("- ") for line in made.text.splitlines()}
    for word in words:
        assert lines & {f'"{word}"', f"'{word}'"}, word
    assert '"Y": "n"' in lines


def test_two_keys_that_would_be_one_secret_are_refused(home: Path) -> None:
    for name, text in (("a.env", "usdt_KEY=1\n"), ("b.env", "KEY=2\n")):
        (home / name).write_text(text)
        (home / name).chmod(0o600)
    two = entry("doge_usdt", runtime={"env_file": "b.env"})
    with pytest.raises(UsageError, match="one secret, doge_usdt_KEY"):
        stack(home, entry(runtime={"env_file": "a.env"}), two)


def test_a_health_check_is_one_of_progress_and_there_is_none_without(home: Path) -> None:
    made = stack(home, entry(progress={"file": "it's alive", "every": "2m"}), entry("shib", data_file="shib.csv"))
    found = services(made)
    check = found["doge"]["healthcheck"]
    assert check["test"][1] == f"test -n \"$$(find '{home}/it'\"'\"'s alive' -mmin -6)\""
    assert (check["interval"], check["start_period"]) == ("120s", "360s")
    assert "healthcheck" not in found["shib"]
    assert any(note.startswith("shib has no health check") for note in made.notes)


def test_limits_grace_folder_and_user_are_the_bots(home: Path) -> None:
    (home / "a").mkdir()
    runtime = {"kind": "swarm", "service": "fleet_doge", "cwd": "a", "stop_grace": 20, "image": "own:2"}
    made = stack(home, entry(runtime=runtime, limits={"memory": {"most": "1GiB"}}))
    one = services(made)["doge"]
    assert made.stack == "fleet"
    assert (one["image"], one["working_dir"], one["stop_grace_period"]) == ("own:2", f"{home}/a", "20s")
    assert one["deploy"]["resources"] == {"limits": {"memory": str(1 << 30)}}
    status = home.stat()
    assert one["user"] == f"{status.st_uid}:{status.st_gid}"


def test_the_watcher_asks_where_the_bots_are_configured_to_be_asked(home: Path) -> None:
    runtime = {"kind": "swarm", "service": "fleet_doge", "host": "unix:///run/other.sock"}
    volumes = services(stack(home, entry(runtime=runtime)))["watcher"]["volumes"]
    assert [one["source"] for one in volumes] == [str(home), "/run/other.sock"]
    far = {"kind": "swarm", "service": "fleet_doge", "host": "ssh://me@manager"}
    volumes = services(stack(home, entry(runtime=far)))["watcher"]["volumes"]
    assert [one["source"] for one in volumes] == [str(home)]


def test_the_watcher_is_botkeep_watch_and_one_that_hangs_is_seen_by_its_mark(home: Path) -> None:
    made = stack(home, entry())
    one = services(made)["watcher"]
    assert one["entrypoint"] == ["botkeep", "--home", str(home), "watch"]
    test = one["healthcheck"]["test"][1].replace("$$", "$")
    mark = home / ".botkeep/watch.lock"
    mark.parent.mkdir()
    mark.touch()
    assert subprocess.run(["sh", "-c", test], check=False).returncode == 0
    long_ago = mark.stat().st_mtime - 600
    os.utime(mark, (long_ago, long_ago))
    assert subprocess.run(["sh", "-c", test], check=False).returncode == 1


def test_who_is_left_out_and_what_is_to_be_written_is_said(home: Path) -> None:
    container = {"name": "box", "runtime": {"kind": "docker", "container": "box"}}
    made = stack(home, entry(), container, {"name": "bad", "runtime": {"kind": "process"}})
    assert set(services(made)) == {"doge", "watcher"}
    assert 'box is left out: its runtime has no "command" to be written.' in made.notes
    assert any(note.startswith("bad is left out: ") for note in made.notes)
    assert any('"kind": "swarm", "service": "botkeep_doge"' in note for note in made.notes)


@pytest.mark.parametrize(
    ("bots", "image", "told"),
    [
        ([entry()], None, "--image IMAGE"),
        ([{"name": "box", "runtime": {"kind": "docker", "container": "box"}}], IMAGE, "can be a service"),
        ([entry("watcher")], IMAGE, "would have one name"),
        ([entry(runtime={"kind": "swarm", "service": "doge"})], IMAGE, "Write botkeep_doge"),
        (
            [entry(runtime={"kind": "swarm", "service": "a_doge"}),
             entry("shib", runtime={"kind": "swarm", "service": "b_shib"})],
            IMAGE, "of several stacks: a, b",
        ),
    ],
)  # fmt: skip
def test_what_such_a_file_cannot_hold_is_refused(
    home: Path, bots: list[dict[str, Any]], image: str | None, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        stack(home, *bots, image=image)


def test_a_secrets_name_that_is_too_long_for_a_swarm_is_refused(home: Path) -> None:
    (home / ".env").write_text(f"{'K' * 62}=1\n")
    (home / ".env").chmod(0o600)
    with pytest.raises(UsageError, match="at most 64 signs"):
        stack(home, entry(runtime={"env_file": ".env"}))


def test_the_command_writes_the_file_and_says_how_it_is_deployed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "config/bots.json").write_text(json.dumps({"bots": [entry()]}))
    out = home / "stack.yml"
    assert main(["swarm-stack", "--home", str(home), "--image", IMAGE, "--out", str(out)]) == 0
    assert f"docker stack deploy --compose-file {out} botkeep" in capsys.readouterr().out
    assert yaml.safe_load(out.read_text())["services"]["doge"]["image"] == IMAGE
    assert main(["swarm-stack", "--home", str(home)]) == 2
