"""What a bot was left in, so that a restart leaves it there; and asking it to open nothing new before it is stopped.

A person's `/stop` or `/stopentry` is said to the bot itself, not to us; a start from its configuration would forget it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from . import probe
from .bench import Case
from .ledger import Entry
from .model import Instance, InstanceState, LedgerError
from .playbooks import Policy
from .programs import profile_of
from .runtimes.procs import environment_of

HOLDING_TAKES = 10.0
"""Seconds: a look at the bot, two questions, and what a stop takes on top of the grace."""
KEPT = ("paused", "stopped")


def environment_as_left(case: Case) -> Mapping[str, str]:
    """Variables with which the bot comes up as a person left it; empty for one that was simply running."""
    left = probe.left_in(case.bench.cursor(case.bot.name, "left"))
    return profile_of(case.bot)[0].environment(left) if left in KEPT and _takes_environment(case) else {}


def _takes_environment(case: Case) -> bool:
    """Whether its runtime gives a start variables of ours; an engine starts what it was given once."""
    return bool(getattr(case.runtime, "TAKES_ENVIRONMENT", False))


def cannot_keep(case: Case, instances: Sequence[Instance]) -> str:
    """Why a start would undo what a person told the bot itself, a sentence; empty: it would not.

    `instances`: of a bot that lives; one whose engine gives it the state to come up in keeps it.
    """
    left = probe.left_in(case.bench.cursor(case.bot.name, "left"))
    if left not in KEPT or _takes_environment(case) or any(_is_given(case, left, one) for one in instances):
        return ""
    told = "not to trade" if left == "stopped" else "to open no new positions"
    return f"a person told it {told}, and {_engine(case)} would start it as it is configured, so that it does."


def to_go_on(case: Case) -> str:
    """What a person can do about it, a clause."""
    left = probe.left_in(case.bench.cursor(case.bot.name, "left"))
    wanted = " ".join(f"{key}={value}" for key, value in profile_of(case.bot)[0].environment(left).items())
    given = f", or has {_engine(case)} give it {wanted} and make it anew" if wanted else ""
    return f"a person lets it trade again in the bot itself, or uses --override REASON{given}"


def _is_given(case: Case, left: str, one: Instance) -> bool:
    """Whether its engine gives this very copy, and so the next one, the variables with which it comes up as left."""
    wanted = profile_of(case.bot)[0].environment(left)
    return bool(wanted and one.kept_by and one.pid) and wanted.items() <= environment_of(one.pid or 0).items()


def _engine(case: Case) -> str:
    return case.bot.runtime.kind if case.bot.runtime else "its engine"


def said_of_left(case: Case) -> str:
    """For the outcome's sentence."""
    left = probe.left_in(case.bench.cursor(case.bot.name, "left"))
    return f"it comes up {left}, as it was left" if environment_as_left(case) else ""


def hold_entries(case: Case, intent: Entry | None, policy: Policy) -> str:
    """Ask it to open no new positions, where its playbook says so and it can be asked. What came of it, a clause.

    Recorded first: whoever finds the bot paused, and our caller dead, takes it back.
    """
    if not policy.hold_entries or case.bot.api is None or case.bot.api.url is None:
        return ""
    if time.monotonic() + case.runtime.grace(case.target) + HOLDING_TAKES > case.deadline:
        return ""  # the bot's own grace is worth more
    seen = probe.see_program(case.bench.fleet, case.bot, case.target, case.bench.cursor, case.bench.clock())
    running = [one for one in seen.subject.instances if one.state is InstanceState.RUNNING]
    if len(running) != 1 or seen.program.state != "running":
        return ""
    with suppress(LedgerError):
        if intent:
            mark = {"instance": running[0].key, "entry": intent.id}
            case.bench.ledger.set_cursor(case.bot.name, probe.HOLDING, mark)
    why_not = seen.profile.hold_entries(seen.subject)
    return f"it could not be asked to open nothing new: {why_not}" if why_not else "it opened nothing new any more"


def take_back(case: Case, instances: tuple[Instance, ...]) -> None:
    """A caller that died after it had asked the bot to hold: the bot goes on as before."""
    held = case.bench.ledger.cursor(case.bot.name, probe.HOLDING)
    if not held:
        return
    if any(one.key == held.get("instance") for one in instances):
        seen = probe.see_program(case.bench.fleet, case.bot, case.target, case.bench.cursor, case.bench.clock())
        if seen.program.state == "paused" and seen.profile.resume_entries(seen.subject):
            return  # it could not be asked: the next call tries again
    case.bench.ledger.set_cursor(case.bot.name, probe.HOLDING, {})


def works(case: Case, instance: Instance) -> bool | None:
    """Whether this very copy said that it works; None: such programs never do."""
    bench = case.bench
    seen = probe.see_program(bench.fleet, case.bot, case.target, bench.cursor, bench.clock(), ask=False)
    return seen.profile.sign_of_life(seen.subject, instance)
