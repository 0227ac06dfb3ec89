"""A Hummingbot in a workspace: started, looked at and stopped by botkeep, with hbot asked at every look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from botkeep.model import Result, Status
from support.fleet import Fleet, alive, fleet
from support.hummingbot_install import NAME, Install, install


@contextmanager
def workspace(home: Path) -> Iterator[tuple[Fleet, Install]]:
    """One bot that runs in its install's folder below the workspace."""
    home.mkdir()
    with install(home / "hb") as bot:
        entry: dict[str, Any] = {
            "name": "mm",
            "data_file": f"hb/data/{NAME}.sqlite",
            "log_file": f"hb/logs/logs_{NAME}.log",
            "runtime": {
                "kind": "process",
                "command": [*bot.hbot, "start", NAME, "--foreground"],
                "cwd": "hb",
                "stop_grace": 5,
            },
            "api": {"hbot": bot.hbot},
        }
        with fleet(home, entry) as one:
            yield one, bot


def test_an_engine_that_starts_slowly_outlives_the_looks_that_verify_its_start(tmp_path: Path) -> None:
    """hbot's signal would end it, and each look would have asked hbot."""
    with workspace(tmp_path / "ws") as (one, bot):
        (bot.home / "boots").touch()
        started = one.desk().restart("mm", "first start")
        assert started.result is Result.DONE
        assert started.pid is not None
        bot.started.append(started.pid)
        starting = one.verdict("mm")
        assert (starting.status, starting.profile, starting.program.state) == (Status.HEALTHY, "hummingbot", "starting")
        assert alive(started.pid)
        bot.serve()
        running = one.verdict("mm")
        assert (running.status, running.program.state, running.program.api_rule) == (Status.HEALTHY, "running", "ok")
        assert (running.pid, running.program.exchange, running.program.paper) == (started.pid, "binance", True)
        assert one.desk().stop("mm", "enough").result is Result.DONE
        assert not alive(started.pid)
