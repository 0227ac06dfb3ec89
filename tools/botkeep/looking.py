"""Look and decide before an action: suspect evidence takes its second look here."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from .bench import Bench
from .judge import decide
from .model import Evidence, Fault, Verdict, iso, parse_iso

CONFIRMED_LASTS = timedelta(seconds=60)


def examine(bench: Bench, name: str, deadline: float) -> Verdict:
    """Look and decide; suspect evidence takes its second look here, `apart` seconds later, if `deadline` allows.

    A verdict that was confirmed less than a minute ago counts as the first look. Raises LedgerError.
    """
    seen = bench.just_seen(name) or bench.look(name)
    past_ = bench.known_history(name)
    first = _recent_evidence(bench, name)
    verdict = decide(seen.observation, bench.playbooks, past_, bench.clock(), first) if first else None
    if verdict is None or not verdict.fault:
        verdict = decide(seen.observation, bench.playbooks, past_, bench.clock())
    if verdict.confirmed or verdict.fault is None:
        return verdict
    apart = bench.playbooks.get(verdict.fault).policy.confirm.apart.total_seconds()
    if time.monotonic() + apart > deadline:
        return verdict
    time.sleep(apart)
    again = bench.look(name)
    return decide(again.observation, bench.playbooks, past_, bench.clock(), verdict.evidence)


def _recent_evidence(bench: Bench, name: str) -> list[Evidence]:
    kept = bench.ledger.cursor(name, "confirmed")
    if not kept or bench.clock() - parse_iso(kept["at"]) > CONFIRMED_LASTS:
        return []
    return [Evidence(Fault(fault), rule, False, "", key) for fault, rule, key in kept["evidence"]]


def confirmed_cursor(verdict: Verdict) -> dict[str, Any]:
    """What `examine` needs to know later that this verdict was confirmed."""
    return {"at": iso(verdict.at), "evidence": [[one.fault.value, one.rule, one.key] for one in verdict.evidence]}
