"""`botkeep init`: what it makes, what it brings up to date, what it leaves alone."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from botkeep import pack
from botkeep.bundle import root
from botkeep.config import Bot, bots_schema, load_fleet
from botkeep.model import BotkeepError, Fault, UsageError
from botkeep.pack import init
from botkeep.playbooks import load_playbooks
from botkeep.schedule import load_schedule

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HUNG = "playbooks/bot-hung.md"


def tree(home: Path) -> dict[str, bytes]:
    files = (path for path in home.rglob("*") if path.is_file() and ".botkeep" not in path.parts)
    return {str(path.relative_to(home)): path.read_bytes() for path in files}


def test_init_makes_a_workspace_in_which_everything_loads(tmp_path: Path) -> None:
    report = init(tmp_path / "ws", NOW)
    home = report.workspace.home
    assert set(report.created) == set(tree(home))
    assert {"SKILL.md", HUNG, "config/bots.json", "config/schedule.json", "memory/bot-operations.md"} <= set(
        report.created
    )
    assert report.updated == report.kept == ()
    fleet = load_fleet(report.workspace)
    assert fleet.entries == ()
    books = load_playbooks(report.workspace)
    assert books.problems == ()
    assert {book.path for book in books} == {home / "playbooks" / f"{fault.value}.md" for fault in Fault}
    assert [task.name for task in load_schedule(report.workspace)] == [
        "bot_health_check",
        "bot_morning_report",
        "bot_backup",
    ]
    assert json.loads((home / "config/bots.schema.json").read_text()) == json.loads(json.dumps(bots_schema()))
    assert home.joinpath(".botkeep").stat().st_mode & 0o777 == 0o700
    assert len(list(report.workspace.kept_playbooks_dir.iterdir())) == len(Fault)


def test_every_skill_of_the_pack_is_copied(tmp_path: Path) -> None:
    init(tmp_path, NOW)
    packaged = {str(path.relative_to(root())) for path in (root() / "skills").rglob("*.md")}
    assert packaged <= set(tree(tmp_path))


def test_the_example_loads_uses_every_key_and_satisfies_the_schema(tmp_path: Path) -> None:
    workspace = init(tmp_path, NOW).workspace
    example = json.loads((tmp_path / "config/bots.example.json").read_text())
    workspace.bots_file.write_text(json.dumps(example))
    fleet = load_fleet(workspace)
    assert [entry.problem for entry in fleet.entries] == [None] * 5
    jsonschema.validate(example, bots_schema())
    used = {key for bot in example["bots"] for key in bot}
    assert set(Bot.model_fields) - used == set()


def test_a_second_init_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path, NOW)
    before = tree(tmp_path)
    report = init(tmp_path, NOW)
    assert (report.created, report.updated, report.kept) == ((), (), ())
    assert tree(tmp_path) == before


def test_what_a_person_changed_stays_and_what_was_lost_comes_back(tmp_path: Path) -> None:
    init(tmp_path, NOW)
    (tmp_path / HUNG).write_text("mine")
    (tmp_path / "config/bots.json").write_text('{"bots": [{"name": "a"}]}')
    (tmp_path / "memory/bot-operations.md").write_text("what happened")
    (tmp_path / "SKILL.md").unlink()
    (tmp_path / "playbooks/extra.txt").write_text("extra")
    report = init(tmp_path, NOW)
    assert (report.created, report.kept) == (("SKILL.md",), (HUNG,))
    assert (tmp_path / HUNG).read_text() == "mine"
    assert (tmp_path / "config/bots.json").read_text() == '{"bots": [{"name": "a"}]}'
    assert (tmp_path / "memory/bot-operations.md").read_text() == "what happened"
    assert (tmp_path / "playbooks/extra.txt").read_text() == "extra"


def test_a_newer_pack_replaces_what_nobody_changed_and_names_what_somebody_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init(tmp_path, NOW)
    (tmp_path / HUNG).write_text("mine")
    newer = {name: data + b"\nnewer\n" for name, data in pack._files()}
    monkeypatch.setattr(pack, "_files", lambda: iter(newer.items()))
    report = init(tmp_path, NOW)
    assert report.kept == (HUNG,)
    assert (tmp_path / HUNG).read_text() == "mine"
    assert set(report.updated) == set(newer) - {HUNG} - pack.ONCE
    assert (tmp_path / "SKILL.md").read_bytes() == newer["SKILL.md"]
    assert any(
        note.startswith(f"{HUNG} is yours and was kept; this version of botkeep has another text")
        for note in report.notes
    )
    again = init(tmp_path, NOW)
    assert (again.updated, again.kept) == ((), (HUNG,))


def test_an_edit_of_a_text_that_did_not_change_since_needs_no_note(tmp_path: Path) -> None:
    init(tmp_path, NOW)
    (tmp_path / HUNG).write_text("mine")
    assert not any(HUNG in note for note in init(tmp_path, NOW).notes)


def test_files_that_were_there_before_are_a_persons(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/bots.json").write_text('{"bots": []}')
    (tmp_path / "SKILL.md").write_text("another skill")
    report = init(tmp_path, NOW)
    assert report.kept == ("SKILL.md",)
    assert (tmp_path / "SKILL.md").read_text() == "another skill"
    assert (tmp_path / "config/bots.json").read_text() == '{"bots": []}'


def test_a_lost_state_folder_costs_no_edit(tmp_path: Path) -> None:
    init(tmp_path, NOW)
    (tmp_path / HUNG).write_text("mine")
    (tmp_path / ".botkeep/pack.json").write_text("torn {")
    assert init(tmp_path, NOW).kept == (HUNG,)


def test_the_folder_should_have_the_skills_name_and_is_told_so(tmp_path: Path) -> None:
    assert any("named botkeep; this one is ws" in note for note in init(tmp_path / "ws", NOW).notes)
    assert not any("named botkeep" in note for note in init(tmp_path / "botkeep", NOW).notes)


def test_a_link_that_leads_outside_stops_init_before_it_writes(tmp_path: Path) -> None:
    home, other = tmp_path / "ws", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    (home / "playbooks").symlink_to(other)
    with pytest.raises(UsageError, match="is a link"):
        init(home, NOW)
    assert list(other.iterdir()) == []
    assert [path.name for path in home.iterdir()] == ["playbooks"]


def test_a_file_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    home, other = tmp_path / "ws", tmp_path / "other.md"
    home.mkdir()
    other.write_text("theirs")
    (home / "SKILL.md").symlink_to(other)
    report = init(home, NOW)
    assert "SKILL.md" not in report.created
    assert (home / "SKILL.md").is_symlink()
    assert other.read_text() == "theirs"


def test_what_is_in_the_way_is_kept_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "SKILL.md").mkdir()
    (tmp_path / "playbooks").mkdir()
    os.mkfifo(tmp_path / HUNG)
    assert init(tmp_path, NOW).kept == ("SKILL.md", HUNG)


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not a folder"):
        init(tmp_path / "file", NOW)
    with pytest.raises(BotkeepError, match="cannot be made"):
        init(tmp_path / "file/below", NOW)


def test_an_unsafe_state_folder_stops_init_before_it_writes(tmp_path: Path) -> None:
    (tmp_path / ".botkeep").mkdir()
    (tmp_path / ".botkeep").chmod(0o777)
    with pytest.raises(BotkeepError, match="Others can write"):
        init(tmp_path, NOW)
    assert [path.name for path in tmp_path.iterdir()] == [".botkeep"]
