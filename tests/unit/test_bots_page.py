"""What docs/bots.md tells people to paste works, and its transcripts show nothing of the machine they are from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from botkeep.config import load_fleet
from botkeep.model import utc_now
from botkeep.pack import init
from botkeep.workspace import Workspace
from bots import transcripts

PAGE = Path(__file__).parents[2] / "docs/bots.md"
SAID = """\
A hung bot

$ botkeep check
keeper  faulty   keeper runs 2 times: pid 977 (started by botkeep at 17:49:51Z), pid 978 (since 17:49:58Z).
$ botkeep diagnose keeper
keeper: banned until 2026-11-21 17:50:51Z; pid 978
  changed: 2026-11-21 17:49:51Z: /tmp/pytest-1/popen-gw0/test_a0/home/bot/config.json was edited
The last 5 of 7 lines of its log:
  | one
  | two
  | IP banned until 1795283451000.
  | 2026-11-21 17:49:58,001 - File "/x/.venv-bots/lib/python3.11/site-packages/sqlalchemy/orm.py"
  | GET http://127.0.0.1:41234/api/v3/depth, then http://127.0.0.1:41235/api/v1/ping
"""


@pytest.mark.parametrize("number", range(2))
def test_the_configurations_of_the_page_are_valid_as_they_stand(tmp_path: Path, number: int) -> None:
    blocks = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    init(tmp_path / "home", utc_now())
    (tmp_path / "home/config/bots.json").write_text(blocks[number])
    entries = load_fleet(Workspace(tmp_path / "home")).entries
    assert [entry.problem for entry in entries] == [None]
    assert entries[0].bot is not None
    assert entries[0].bot.profile == ("freqtrade", "hummingbot")[number]
    assert json.loads(blocks[number])["bots"][0]["name"] == entries[0].name


def test_a_transcript_loses_what_one_machine_and_one_minute_have() -> None:
    shown = transcripts.section(SAID)
    assert "pid 4200 (started by botkeep at 09:30:00Z), pid 4201 (since 09:30:07Z)" in shown
    assert "banned until 2026-11-21 09:31:00Z; pid 4201" in shown
    assert "2026-11-21 09:30:00Z: /srv/keeper/bot/config.json was edited" in shown
    assert "IP banned until 1795253460000." in shown
    assert '2026-11-21 09:30:07,001 - File "sqlalchemy/orm.py"' in shown
    assert "http://127.0.0.1:8080/api/v3/depth, then http://127.0.0.1:8081/" in shown
    assert "| one" not in shown
    assert shown.count("  | ") == transcripts.LOG_LINES + 1


def test_transcripts_replace_those_before_them_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{transcripts.BEGIN}old\n{transcripts.END}\nafter\n")
    (tmp_path / "a.txt").write_text(SAID)
    transcripts.main(tmp_path, page)
    first = page.read_text()
    assert first.startswith("before\n")
    assert first.endswith("after\n")
    assert "old" not in first
    assert "### A hung bot" in first
    transcripts.main(tmp_path, page)
    assert page.read_text() == first


def test_the_page_shows_no_machine() -> None:
    text = PAGE.read_text()
    assert not re.search(r"/tmp/|/root/|/work/|/home/|popen-gw", text)
    assert text.count(transcripts.BEGIN) == 1
