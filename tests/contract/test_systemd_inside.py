"""What a user's systemd does not do, on a real one that is the first process of a place of its own: a system's.

Tests there run inside, in another pytest: the contract of the runtimes once more, and what differs for a system's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from support.systemd_box import Box, run_inside

TESTS = Path(__file__).parents[1]


def inner(*what: str) -> int:
    """Run these tests in a system's box; gives how many passed. Fails if one did not, or was skipped."""
    with Box(system=True) as box:
        words = [sys.executable, "-m", "pytest", "-vv", "-p", "no:xdist", "-p", "no:cacheprovider"]
        done = run_inside(box, [*words, f"--basetemp={box.folder}/tests", *what])
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert "skipped" not in last
    found = re.search(r"(\d+) passed", last)
    return int(found[1]) if found else 0


def test_the_systems_own_services_keep_the_contract_too() -> None:
    assert inner(str(TESTS / "contract/test_runtimes.py"), "-k", "systemd") >= 18


def test_what_differs_for_the_systems_own_services() -> None:
    which = "leaves_behind or programs_say or keeps_systemd or by_its_command or journal_as_it_is or written_unit"
    files = [str(TESTS / f"scenarios/{name}.py") for name in ("test_systemd", "systemd_inside")]
    assert inner(*files, "-k", f"memory_limit_is or reached_its or {which}") >= 12
