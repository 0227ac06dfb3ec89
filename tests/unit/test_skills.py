"""The texts that an assistant reads: valid, short, and without what code already knows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from botkeep.bundle import root
from botkeep.docs import list_tools
from botkeep.model import Fault, Result, utc_now
from botkeep.pack import init

NAMES = ("keep-bots-alive", "report-bots", "restore-bot-data", "set-up-bots")
WORDS = {"keep-bots-alive": 200}
FEW_WORDS = 350
LINE = 160
"""Characters of a description that every host shows in full."""

# A length of time, a size, a count: playbooks and their front matter own those.
NUMBERS = re.compile(r"\d+ ?(?:s|m|h|d|min|sec|MB|GB|times|minutes|hours|seconds|days|restarts|%)\b", re.IGNORECASE)


def texts() -> dict[str, Path]:
    """Every skill, the root one too."""
    return {"botkeep": root() / "SKILL.md", **{name: root() / "skills" / name / "SKILL.md" for name in NAMES}}


def parts(name: str) -> tuple[dict[str, str], str]:
    """Front matter and body."""
    _, head, body = texts()[name].read_text().split("---\n", 2)
    return yaml.safe_load(head), body


def test_there_is_one_skill_for_each_job() -> None:
    assert sorted(path.name for path in (root() / "skills").iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", texts())
def test_it_is_valid_by_the_agent_skills_rules(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(texts()[name], folder)
    command = [str(Path(sys.executable).with_name("agentskills")), "validate", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", texts())
def test_its_description_says_only_when_to_use_it(name: str) -> None:
    head, _ = parts(name)
    assert head["description"].startswith("Use when ")
    assert len(head["description"]) < LINE
    assert "\n" not in head["description"]
    assert not re.search(r"`|_bot|step|first|then", head["description"])


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short(name: str) -> None:
    _, body = parts(name)
    assert len(body.split()) < WORDS.get(name, FEW_WORDS)


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_no_number_that_a_playbook_owns(name: str) -> None:
    _, body = parts(name)
    assert not NUMBERS.findall(body)


@pytest.mark.parametrize("name", texts())
def test_tools_are_named_bare_and_exist(name: str) -> None:
    _, body = parts(name)
    known = {tool.name for tool in list_tools()}
    assert not re.search(r"mcp__|botkeep__", body)
    assert set(re.findall(r"`([a-z]+_(?:bot|pnl|report|playbook|memory|data))`", body)) <= known


@pytest.mark.parametrize("name", texts())
def test_faults_and_results_are_spelled_as_in_the_code(name: str) -> None:
    _, body = parts(name)
    words = set(re.findall(r"`([a-z-]+)`", body))
    results = {result.value for result in Result}
    assert {"done", "refused", "asked", "verifying", "busy", "failed", "coalesced"} == results
    if name == "keep-bots-alive":
        assert results <= words
    faults = {fault.value for fault in Fault}
    assert {word for word in words if word.startswith(("bot-", "data-", "api-", "disk-"))} <= faults


def test_a_healthy_round_is_one_call_and_one_word() -> None:
    _, body = parts("keep-bots-alive")
    first = body.strip().split("\n\n")[1]
    assert re.findall(r"`(\w+)`", first) == ["check_bot", "stopped", "OK"]
    assert "no other call" in " ".join(first.split())


def test_a_restore_is_planned_before_it_is_done() -> None:
    _, body = parts("restore-bot-data")
    assert body.index("no plan id") < body.index("that `plan_id`")


@pytest.mark.parametrize("name", texts())
def test_what_no_code_enforces_is_said(name: str) -> None:
    _, body = parts(name)
    said = " ".join(body.split())
    assert "ever " in said  # never
    if name in ("botkeep", "keep-bots-alive"):
        assert re.search(r"text from (a )?bots?", said, re.IGNORECASE)
        assert "refusal" in said


def test_a_workspace_gets_them_all_and_its_root_is_valid(tmp_path: Path) -> None:
    home = tmp_path / "botkeep"
    init(home, utc_now())
    for name, path in texts().items():
        copied = home / path.relative_to(root())
        assert copied.read_bytes() == path.read_bytes(), name
