"""A day in fast time: watcher, cron and three assistants at once, random faults and kills. Nothing may be lost of it.

The seed is printed; `BOTKEEP_DAY_SEED=...` repeats its script of faults (which caller is quicker, the machine decides).
The clock of all programs is moved (support/moved_clock.py); bots, faults, files, and who receives the alerts are real.
"""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path

import pytest

from botkeep.model import utc_now
from support.day import EVERY, ROUNDS, a_day, measured
from support.day_checks import CHECKS


@pytest.mark.slow
def test_a_day_of_faults_and_kills_ends_with_all_well_and_nothing_untrue_said(tmp_path: Path) -> None:
    seed = os.environ.get("BOTKEEP_DAY_SEED") or secrets.token_hex(4)
    print(f"BOTKEEP_DAY_SEED={seed}")
    begin = utc_now().replace(second=0, microsecond=0) - ROUNDS * EVERY - timedelta(minutes=5)
    with a_day(tmp_path, seed, begin) as day:
        seconds = measured(day.live)
        print(f"{len(day.done)} things happened in {seconds:.0f} s")
        failed = []
        for check in CHECKS:
            try:
                print(f"{check.__name__}: {check(day)}")
            except AssertionError as error:
                failed.append(f"{check.__name__}: {error}")
    assert not failed, "\n".join(failed)
