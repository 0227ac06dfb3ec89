"""The real bots: run by `make bots`, which installs them in a virtual environment of their own."""

from __future__ import annotations

import pytest

from bots.rig import FREQTRADE


@pytest.fixture(autouse=True)
def _freqtrade() -> None:
    if not FREQTRADE.exists():
        pytest.skip(f"{FREQTRADE} is missing: run `make bots`")
