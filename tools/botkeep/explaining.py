"""Why a bot is as it was just seen: what `diagnose` needs to say so, from ledger, files and log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from . import diagnose, host, probe, together
from .bench import Bench
from .config import Bot
from .model import Diagnosis, Verdict
from .programs import profile_of
from .what_changed import files_of

if TYPE_CHECKING:
    from .incidents import Incident

REACHES = timedelta(days=2)


def explained(bench: Bench, bot: Bot, verdict: Verdict, found: Sequence[Incident]) -> Diagnosis:
    """The cause first; `found`: what several bots have at once. Raises LedgerError."""
    seen, now = bench.seen[bot.name].observation, bench.clock()
    target, workspace = probe.targets(bench.fleet)[bot.name], bench.fleet.workspace
    return diagnose.explain(
        bot.name,
        seen,
        profile=profile_of(bot)[0],
        log=probe.log_file(bot, target) if verdict.pid else probe.last_words(bot, target),
        now=now,
        entries=bench.ledger.entries(bot=bot.name, since=now - REACHES),
        config_file=workspace.bots_file,
        found=verdict.sentence if verdict.fault else "",
        fault=verdict.fault,
        host=host.examine(seen.host, host.asked_about(bot, seen), now) if seen.host else None,
        files=files_of(bot, workspace.home),
        ring=bench.cursor("", together.HOST),
        incidents=found,
        prose=lambda fault: bench.playbooks.get(fault).prose,
    )
