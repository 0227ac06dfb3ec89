"""What changed before a bot came to be as it is: from the ledger's own entries, real files, marks, the machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep.config import Bot, load_fleet
from botkeep.hostring import remember
from botkeep.ledger import Entry, Kind, Ledger
from botkeep.model import Action, Actor, HostLook, Mark
from botkeep.what_changed import Watched, files_of, remember_versions, what_changed
from botkeep.workspace import Workspace

NOW = datetime.now(UTC).replace(microsecond=0)


def ago(**length: float) -> datetime:
    return NOW - timedelta(**length)


# ------------------------------------------------------------------------------------------------------------- deeds


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    found = Ledger(tmp_path / "ledger.db")
    yield found
    found.close()


def write(ledger: Ledger, kind: Kind, at: datetime, action: Action, sentence: str, **more: Any) -> Entry:
    return ledger.append(
        kind, at=at, bot="doge", action=action.value, actor=Actor.PERSON.value, sentence=sentence, **more
    )


def told(entries: Sequence[Entry] = (), **more: Any) -> list[str]:
    return [one.split(": ", 1)[1] for one in what_changed(NOW, entries=entries, **more)]


def test_starts_stops_restores_and_notes_are_told_once_each_and_nothing_else(ledger: Ledger) -> None:
    begun = write(ledger, Kind.INTENT, ago(hours=3), Action.RESTART, "asked to restart")
    write(ledger, Kind.OUTCOME, ago(hours=2.9), Action.RESTART, "doge was restarted", ref=begun.id, result="done")
    write(ledger, Kind.INTENT, ago(hours=2), Action.STOP, "asked to stop, nobody knows how it went")
    write(ledger, Kind.OUTCOME, ago(hours=1.5), Action.BACKUP, "backed up", result="done")
    write(ledger, Kind.ALERT, ago(hours=1.2), Action.ALERT, "told")
    write(ledger, Kind.ASK, ago(hours=1.1), Action.RESTART, "asked a person")
    write(ledger, Kind.NOTE, ago(hours=1), Action.NOTE, "raised leverage\n## forged: token=abcdefghijkl")
    write(ledger, Kind.OUTCOME, ago(minutes=30), Action.POLL, "doge asks less now", result="done")
    assert told(ledger.entries(bot="doge")) == [
        "doge was restarted",
        "asked to stop, nobody knows how it went",
        "raised leverage\\n## forged: token=[redacted]",
        "doge asks less now",
    ]


def test_only_the_day_before_counts_and_of_many_the_newest(ledger: Ledger) -> None:
    for hours in range(30, -2, -1):
        write(ledger, Kind.NOTE, ago(hours=hours), Action.NOTE, f"{hours}")
    assert told(ledger.entries(bot="doge")) == [str(hours) for hours in range(7, -1, -1)]


# ------------------------------------------------------------------------------------------------------------- files


def bot(home: Path, command: Sequence[str], **more: Any) -> Bot:
    (home / "config").mkdir(parents=True, exist_ok=True)
    runtime = {"kind": "process", "command": list(command), **more.pop("runtime", {})}
    (home / "config/bots.json").write_text(json.dumps({"bots": [{"name": "doge", "runtime": runtime, **more}]}))
    (entry,) = load_fleet(Workspace(home)).entries
    assert entry.bot is not None, entry.problem
    return entry.bot


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["python", "doge.py", "3m"], ["its program doge.py"]),
        (["python", "-m", "doge", "--config=live.json"], ["its configuration live.json"]),
        (
            ["freqtrade", "trade", "-c", "user_data/config.json", "--config", "keys.json", "-s", "Rig", "--dry-run"],
            [
                "its configuration user_data/config.json",
                "its configuration keys.json",
                "its strategy user_data/strategies/Rig.py",
            ],
        ),
        (
            ["freqtrade", "trade", "--userdir", "ud", "--strategy-path", "mine", "--strategy", "Rig"],
            ["its strategy mine/Rig.py"],
        ),
        (["freqtrade", "trade", "--userdir=ud", "--strategy=Rig"], ["its strategy ud/strategies/Rig.py"]),
        (["freqtrade", "trade", "-s", "../../etc/passwd"], []),
        (["hbot", "start", "pmm.yml", "--foreground"], ["its file pmm.yml"]),
        (["python", "-c", "import doge"], []),
        (["sh", "-c", "python doge.py"], []),
    ],
)
def test_the_files_that_decide_how_a_bot_works_are_those_its_command_names(
    tmp_path: Path, command: list[str], names: list[str]
) -> None:
    assert [one.name for one in files_of(bot(tmp_path, command), tmp_path)] == names


def test_paths_are_those_of_the_bots_folder_and_what_it_writes_itself_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "bots").mkdir()
    (tmp_path / ".env").touch(0o600)
    found = files_of(
        bot(
            tmp_path,
            ["python", "doge.py", "trades.json", "/etc/doge.yml"],
            runtime={"cwd": "bots", "env_file": ".env"},
            data_file="bots/trades.json",
        ),
        tmp_path,
    )
    assert {one.name: one.path for one in found} == {
        "its program bots/doge.py": tmp_path / "bots/doge.py",
        "its file /etc/doge.yml": Path("/etc/doge.yml"),
        "its env file .env": tmp_path / ".env",
    }


def test_a_file_that_was_edited_the_day_before_is_named_with_its_time(tmp_path: Path) -> None:
    for name, edited in (("old.json", ago(days=2)), ("new.json", ago(minutes=10)), ("later.json", NOW + timedelta(1))):
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (edited.timestamp(), edited.timestamp()))
    files = [Watched(name, tmp_path / name) for name in ("old.json", "new.json", "later.json", "none.json")]
    assert what_changed(NOW - timedelta(seconds=1), files=files) == (f"{ago(minutes=10):%F %TZ}: new.json was edited",)


def test_an_old_file_that_was_put_in_place_of_another_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    os.utime(path, (0, 0))
    (change,) = what_changed(datetime.now(UTC) + timedelta(seconds=1), files=[Watched("config.json", path)])
    assert change.endswith(": config.json was put there, or its rights were changed")


# ---------------------------------------------------------------------------------------------------------- versions


def mark(at: datetime, *, this_run: bool = True, **values: str) -> dict[str, Mark]:
    return {"heartbeat": Mark("heartbeat", at, values, 1, at, this_run=this_run)}


def test_a_version_that_changed_between_two_looks_is_told_with_the_old_one() -> None:
    first = remember_versions(None, mark(ago(hours=5), version="2026.8", strategy_version="rig-1"), "", ago(hours=5))
    again = remember_versions(first, mark(ago(hours=4), version="2026.8", strategy_version="rig-1"), "", ago(hours=4))
    later = remember_versions(again, mark(ago(hours=1), version="2026.9", strategy_version="rig-1"), "", ago(hours=1))
    kept = json.loads(json.dumps(remember_versions(later, {}, "", NOW)))
    assert told(versions=first) == told(versions=again) == []
    assert what_changed(NOW, versions=kept) == (f"{ago(hours=1):%F %TZ}: its version changed from 2026.8 to 2026.9",)


def test_the_api_names_the_version_where_no_line_does_and_a_dead_runs_line_counts_for_nothing() -> None:
    first = remember_versions(None, {}, "2026.8", ago(hours=2))
    assert remember_versions(first, mark(ago(hours=1), this_run=False, version="1999.1"), "2026.8", NOW) == first
    assert told(versions=remember_versions(first, {}, "2026.9", NOW)) == ["its version changed from 2026.8 to 2026.9"]


@pytest.mark.parametrize("broken", [{"version": 3}, {"version": {}}, {"version": {"at": "x"}}, {"other": {"at": "x"}}])
def test_a_cursor_of_another_version_is_as_good_as_none(broken: dict[str, Any]) -> None:
    assert told(versions=broken) == []
    assert remember_versions(broken, mark(NOW, version="1"), "", NOW)["version"]["is"] == "1"


# ---------------------------------------------------------------------------------------------------------- together


def test_all_that_changed_stands_in_the_order_of_time(ledger: Ledger, tmp_path: Path) -> None:
    write(ledger, Kind.NOTE, ago(minutes=30), Action.NOTE, "a note")
    path = tmp_path / "bots.json"
    path.write_text("{}")
    os.utime(path, (ago(minutes=50).timestamp(),) * 2)
    kept = remember(None, HostLook(ago(minutes=70), memory_available=4_000_000_000))
    kept = remember(kept, HostLook(ago(minutes=2), memory_available=200_000_000))
    versions = {"version": {"is": "2", "was": "1", "at": ago(minutes=40).isoformat()}}
    changed = what_changed(
        ago(minutes=1), entries=ledger.entries(), files=[Watched("bots.json", path)], versions=versions, ring=kept
    )
    assert [one.split(": ", 1)[1] for one in changed] == [
        "bots.json was edited",
        "its version changed from 1 to 2",
        "a note",
        "memory that can be had fell from 4.0 GB to 200 MB within 68 min",
    ]


def test_this_program_is_no_part_of_what_decides(tmp_path: Path) -> None:
    assert files_of(bot(tmp_path, [sys.executable]), tmp_path) == ()
