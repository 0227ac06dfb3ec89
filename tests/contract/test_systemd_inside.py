"""What a user's systemd does not do, on a real one that is the first process of a place of its own: a system's.

Tests there run inside, in another pytest: the contract of the runtimes once more, and what differs for a system's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.bots import wait_for
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


HOLDING = """
import sys, time
from support.systemd_box import Box
box = Box(system=sys.argv[1] == "system").up()
box.service("x", "/bin/sleep 1000", {})
box.ctl("start", "x")
print(box.show("x", "MainPID")[0], box.folder, *box.groups, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("kind", ["user", "system"])
def test_nothing_is_left_of_a_box_when_its_tests_are_killed(kind: str) -> None:
    with Box():
        pass  # skipped where there can be none
    words = [sys.executable, "-c", HOLDING, kind]
    given = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(words, env=given, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        pid, *paths = holder.stdout.readline().split()
        holder.kill()
    assert int(pid) > 0
    wait_for(lambda: not any(map(os.path.exists, paths)))  # no control group can be removed in which something lives


def test_the_systems_own_services_keep_the_contract_too() -> None:
    assert inner(str(TESTS / "contract/test_runtimes.py"), "-k", "systemd") >= 18


def test_what_differs_for_the_systems_own_services() -> None:
    which = "leaves_behind or programs_say or keeps_systemd or by_its_command or journal_as_it_is or written_unit"
    files = [str(TESTS / f"scenarios/{name}.py") for name in ("test_systemd", "systemd_inside")]
    assert inner(*files, "-k", f"memory_limit_is or reached_its or {which}") >= 12
