"""Which faults people are told of before anything is done about them; from tables of looks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from botkeep.by_playbook import is_told_now
from botkeep.model import Fault, Status, Verdict
from botkeep.playbooks import packaged_playbooks
from support.tables import NOW, ago

BOOKS = packaged_playbooks()
DOWN = Verdict("doge", Status.FAULTY, NOW, "doge is not running.", Fault.BOT_NOT_RUNNING, up=False)
CORRUPT = replace(DOWN, fault=Fault.DATA_CORRUPT)


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        (replace(DOWN, down_since=ago(seconds=1)), False),
        (replace(DOWN, down_since=ago(minutes=6)), True),
        (replace(CORRUPT, down_since=ago(seconds=1)), True),
        (replace(CORRUPT, down_since=NOW + timedelta(milliseconds=5)), True),
        (replace(CORRUPT, up=True), True),
        (replace(CORRUPT, confirmed=False), False),
    ],
    ids=["just died", "died long ago", "damaged", "ended while it was looked at", "damaged and alive", "suspected"],
)
def test_what_has_stood_long_enough_is_told_before_it_is_mended(verdict: Verdict, told: bool) -> None:
    assert is_told_now(verdict, BOOKS) is told
