"""The generated tables are as the code has them, and a change of the code is noticed."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import pytest

from botkeep import docs
from botkeep.bundle import root
from botkeep.cli import COMMANDS, main, parser
from botkeep.config import load_fleet
from botkeep.model import Fault, UsageError
from botkeep.workspace import Workspace

TABLES = {
    "SKILL.md": {"skills", "tools", "playbooks"},
    "README.md": {"tools", "commands", "transcript"},
    "CONTRIBUTING.md": {"modules", "runtimes", "formats", "profiles"},
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `botkeep docs` reads and writes."""
    for name in docs.FILES:
        shutil.copy(root() / name, tmp_path)
    for name in ("skills", "playbooks", docs.SNAPSHOTS):
        shutil.copytree(root() / name, tmp_path / name)
    return tmp_path


def test_tables_and_snapshots_are_as_the_code_has_them() -> None:
    assert docs.problems(root(), parser()) == []


def test_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", "--check"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", docs.FILES)
def test_each_file_has_its_tables(name: str) -> None:
    text = (root() / name).read_text()
    assert {block[1] for block in docs._BLOCK.finditer(text)} == TABLES[name]


def test_a_changed_docstring_is_noticed(checkout: Path) -> None:
    tools = docs.list_tools()
    changed = [tools[0].model_copy(update={"description": "Something else."}), *tools[1:]]
    made = docs.tables(checkout, changed, parser())
    text = (checkout / "SKILL.md").read_text()
    assert docs.fill(text, made, "SKILL.md") != text
    assert docs.fill(text, docs.tables(checkout, tools, parser()), "SKILL.md") == text
    kept = (checkout / docs.SNAPSHOTS / f"{tools[0].name}.json").read_text()
    assert docs.snapshot(tools[0]) == kept
    assert docs.snapshot(changed[0]) != kept


def test_an_edited_table_is_named_and_written_again(checkout: Path) -> None:
    skill = checkout / "SKILL.md"
    good = skill.read_text()
    skill.write_text(good.replace("| reads |", "| writes |", 1))
    (found,) = docs.problems(checkout, parser())
    assert found == "SKILL.md: not as the code has it: tools. Run: botkeep docs"
    assert docs.regenerate(checkout, parser()) == ["SKILL.md"]
    assert skill.read_text() == good
    assert docs.regenerate(checkout, parser()) == []


def test_an_edited_playbook_and_a_new_skill_are_noticed(checkout: Path) -> None:
    book = checkout / "playbooks/bot-hung.md"
    book.write_text(book.read_text().replace("mode: auto", "mode: ask", 1))
    shutil.copytree(checkout / "skills/report-bots", checkout / "skills/sing-to-bots")
    (found,) = docs.problems(checkout, parser())
    assert found.startswith("SKILL.md: not as the code has it: skills, playbooks.")


def test_a_missing_and_a_stray_snapshot_are_noticed_and_mended(checkout: Path) -> None:
    shots = checkout / docs.SNAPSHOTS
    (shots / "check_bot.json").rename(shots / "chek_bot.json")
    missing, stray = docs.problems(checkout, parser())
    assert missing.startswith(f"{docs.SNAPSHOTS}/check_bot.json: it is missing.")
    assert stray.startswith(f"{docs.SNAPSHOTS}/chek_bot.json: there is no such tool any more.")
    docs.regenerate(checkout, parser())
    assert docs.problems(checkout, parser()) == []
    assert not (shots / "chek_bot.json").exists()


def test_what_people_write_is_left_alone(checkout: Path) -> None:
    readme = checkout / "README.md"
    mark = "<!-- botkeep:transcript -->\n"
    text = readme.read_text().replace(mark, f"{mark}pasted from a run | with a pipe\n") + "\nMine.\n"
    readme.write_text(text)
    assert docs.problems(checkout, parser()) == []
    assert docs.regenerate(checkout, parser()) == []
    assert readme.read_text() == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- botkeep:tools -->\n| a |\n", "do not come in pairs"),
        ("<!-- /botkeep:tools -->\n", "do not come in pairs"),
        ("<!-- botkeep:tools -->\n<!-- botkeep:tools -->\n<!-- /botkeep:tools -->\n", "do not come in pairs"),
        ("<!-- botkeep:fools -->\n<!-- /botkeep:fools -->\n", "there is no table fools"),
    ],
)
def test_a_wrong_marker_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        docs.fill(text, {"tools": "| b |\n"}, "SKILL.md")


def test_without_tests_there_are_no_snapshots(checkout: Path) -> None:
    shutil.rmtree(checkout / "tests")
    assert docs.regenerate(checkout, parser()) == []
    assert not (checkout / "tests").exists()


def test_every_tool_says_whether_it_changes_something() -> None:
    for tool in docs.list_tools():
        notes = json.loads(docs.snapshot(tool))["annotations"]
        assert {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"} <= notes.keys(), tool.name


def test_the_playbooks_stand_in_the_order_of_importance() -> None:
    made = docs.tables(root(), docs.list_tools(), parser())["playbooks"]
    places = [made.index(f"[{fault.value}]") for fault in Fault]
    assert places == sorted(places)


def test_every_command_says_what_it_does() -> None:
    rows = docs.tables(root(), docs.list_tools(), parser())["commands"].splitlines()[2:]
    assert len(rows) >= 20
    assert not [row for row in rows if row.endswith("|  |")]


def test_every_module_says_what_it_is_for_and_none_imports_in_a_circle() -> None:
    rows = list(docs.module_rows(docs.PACKAGE))
    assert not [name for name, what in rows if not what]
    names = [name for name, _ in rows]
    assert names.index("`model.py`") < names.index("`judge.py`") < names.index("`rounds.py`") < names.index("`cli.py`")


def test_a_circle_of_imports_is_named() -> None:
    with pytest.raises(UsageError, match="a, b"):
        docs.in_import_order({"a": {"b"}, "b": {"a"}, "c": set()})


@pytest.mark.parametrize(
    ("source", "inside", "rooms"),
    [
        ("from .model import Fault", "", {"model"}),
        ("from . import act, __version__", "", {"act"}),
        ("from ..model import Fault", "runtimes", {"model"}),
        ("from .base import Format", "formats", set()),
        ("from botkeep.model import Fault", "profiles", {"model"}),
        ("from botkeep import fields", "profiles", {"fields"}),
        ("import botkeep.model", "", {"model"}),
        ("import json\nfrom pathlib import Path", "", set()),
        ("def f():\n    from .server import build", "", {"server"}),
        ("if TYPE_CHECKING:\n    from .rounds import Desk", "", set()),
    ],
)
def test_imports_are_read_from_the_source(source: str, inside: str, rooms: set[str]) -> None:
    found: set[str] = set()
    for node in docs._running(ast.parse(source)):
        found |= docs._imported(node, inside)
    assert found == rooms


TEXTS = [
    *docs.FILES,
    "CHANGELOG.md",
    *sorted(str(path.relative_to(root())) for path in root().glob("skills/*/SKILL.md")),
]


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_that_a_text_names_exists(name: str) -> None:
    text = (root() / name).read_text()
    named = set(re.findall(r"(?:`|^|/)botkeep (?:--home \S+ )?([a-z][a-z-]*)", text, re.MULTILINE))
    assert named - {"in", "serves"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_to_a_file_leads_somewhere(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (root() / name).read_text())
    assert [link for link in links if not (root() / name).parent.joinpath(link).exists()] == []


def test_the_examples_in_the_readme_are_configurations(tmp_path: Path) -> None:
    blocks = re.findall(r"```json\n(.*?)```", (root() / "README.md").read_text(), re.DOTALL)
    examples = [json.loads(text) for text in blocks if "bots" in json.loads(text)]
    (tmp_path / "config").mkdir()
    for example in examples:
        text = json.dumps({**example, "allowed_paths": ["/srv/bots"]})
        (tmp_path / "config/bots.json").write_text(text)
        assert [entry.problem for entry in load_fleet(Workspace(tmp_path)).entries] == [None] * len(example["bots"])
    assert "runtime" in examples[0]["bots"][0]
