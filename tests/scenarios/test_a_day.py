"""A day in fast time: watcher, cron and three assistants at once, random faults and kills. Nothing may be lost of it.

The seed is printed; `BOTKEEP_DAY_SEED=...` repeats one. The clock of all programs is moved (support/moved_clock.py);
bots, faults, processes, files and the receiver of the alerts are real.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from botkeep.model import utc_now
from support.day import EVERY, ROUNDS, Day, a_day, measured
from support.day_checks import CHECKS


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    seed = os.environ.get("BOTKEEP_DAY_SEED") or secrets.token_hex(4)
    begin = utc_now().replace(second=0, microsecond=0) - ROUNDS * EVERY - timedelta(minutes=5)
    folder: Path = tmp_path_factory.mktemp("day")
    print(f"BOTKEEP_DAY_SEED={seed} in {folder}")
    with a_day(folder, seed, begin) as found:
        seconds = measured(found.live)
        print(f"{len(found.done)} things happened in {seconds:.1f} s: {[(one.round, one.what) for one in found.done]}")
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_after_a_day(day: Day, check: object) -> None:
    check(day)
