"""Everything that a report on a fleet rests on, looked up for every bot at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from . import keeping, together
from .bench import Bench
from .books import reported_of
from .report import Facts, HealthReport, build
from .schedule import Missed
from .survey import gaps_of, histories_of, problems_of, reconcile_owed, unhealthy_first, verdicts_of


def report_since(bench: Bench, since: datetime, missed: Sequence[Missed] = ()) -> HealthReport:
    """The morning report on [since, now): looks at every bot first. Raises LedgerError: then nothing is known."""
    names = bench.fleet.asked(None)
    reconcile_owed(bench, names)
    verdicts = unhealthy_first(verdicts_of(bench, names, confirm=True))
    now = bench.clock()
    earned = reported_of(bench, since)
    known = {name: one for name, one in earned.items() if not isinstance(one, str)}
    facts = Facts(
        verdicts=verdicts,
        histories=histories_of(bench, names),
        figures={name: one if isinstance(one, str) else one.window for name, one in earned.items()},
        months={name: one.month for name, one in known.items()},
        habits={name: one.habit for name, one in known.items()},
        safety=keeping.safety(bench, [bot.name for bot in bench.fleet.bots if bot.data_file]),
        gaps=gaps_of(bench.fleet),
        missed=missed,
        problems=problems_of(bench),
        incidents=[one.sentence for one in together.shared(bench, verdicts)],
    )
    return build(bench.fleet, bench.playbooks, bench.ledger, facts, since, now)
