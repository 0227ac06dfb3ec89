"""Whatever botkeep itself fails over while it looks at one bot is that bot's verdict; the others are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from botkeep import probe
from botkeep.model import Actor, Status
from botkeep.profiles import PROFILES
from botkeep.runtimes import RUNTIMES
from support.fleet import entry, fleet


def crash(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("nobody thought of that")


@pytest.mark.parametrize(
    "endpoint", [{}, {"health_endpoint": "http://127.0.0.1:1/"}], ids=["one by one", "side by side"]
)
@pytest.mark.parametrize("part", ["profile", "log", "data", "runtime"])
def test_what_botkeep_fails_over_is_one_bots_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, endpoint: dict[str, str]
) -> None:
    bots = [entry("doge", profile="freqtrade", **endpoint), entry("pepe", profile="plain", **endpoint)]
    with fleet(tmp_path / "home", *bots) as found:
        found.up("pepe")
        pid = found.desk().restart("doge", "first start").pid  # it is no freqtrade, and never says that it works
        patched: dict[str, tuple[Any, str]] = {
            "profile": (PROFILES["freqtrade"], "look"),
            "log": (probe, "_read_log"),
            "data": (probe, "_look_at_data"),
            "runtime": (RUNTIMES["process"], "survey"),
        }
        place, name = patched[part]
        real = getattr(place, name)

        def only_doge(*given: Any, **more: Any) -> Any:
            first = given[0]
            names = [one.name for one in first] if part == "runtime" else [getattr(first, "bot", first).name]
            return crash() if "doge" in names else real(*given, **more)

        monkeypatch.setattr(place, name, crash if part == "profile" else only_doge)
        verdicts = {one.bot: one for one in found.desk().check([]).verdicts}
        assert verdicts["doge"].status is Status.UNKNOWN
        said = "doge cannot be looked at: botkeep itself failed over it (ZeroDivisionError: nobody thought of that)."
        assert verdicts["doge"].sentence == said
        assert verdicts["pepe"].status is not Status.UNKNOWN
        assert verdicts["pepe"].pid is not None
        actions = found.desk(Actor.ROUND).round().actions
        assert not [one for one in actions if one.bot == "doge"], "nothing is done to what nobody can see"
        monkeypatch.undo()
        assert found.verdict().pid == pid
