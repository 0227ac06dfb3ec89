"""What holds for every test. The package is installed (editable) by `make setup`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

collect_ignore = ["bots", "hosts"]
"""The real bots are `make bots`, the real hosts `make hosts`: a folder that is named is collected."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],
) -> Iterator[None]:
    """On a person's machine a missing engine is a named skip; in CI nothing is skipped: it fails."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"Nothing is skipped in CI: {report.longrepr}"
    return report
