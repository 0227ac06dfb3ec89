"""What a bot was left in, so that a restart leaves it there; and asking it to open nothing new before it is stopped.

A person's `/stop` or `/stopentry` is said to the bot itself, not to us; a start from its configuration would forget it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from . import probe
from .bench import Case
from .ledger import Entry
from .model import Instance, InstanceState, LedgerError
from .playbooks import Policy
from .programs import configured_profile, profile_of

ASK_SECONDS = 3.0
KEPT = ("paused", "stopped")


def environment_as_left(case: Case) -> Mapping[str, str]:
    """Variables with which the bot comes up as a person left it; empty for one that was simply running."""
    left = probe.left_in(case.bench.cursor(case.bot.name, "left"))
    return profile_of(case.bot)[0].environment(left) if left in KEPT else {}


def said_of_left(case: Case) -> str:
    """For the outcome's sentence."""
    left = probe.left_in(case.bench.cursor(case.bot.name, "left"))
    return f"it comes up {left}, as it was left" if environment_as_left(case) else ""


def hold_entries(case: Case, intent: Entry | None, policy: Policy) -> str:
    """Ask it to open no new positions, where its playbook says so and it can be asked. What came of it, a clause.

    Recorded first: whoever finds the bot paused, and our caller dead, takes it back.
    """
    if not policy.hold_entries or configured_profile(case.bot)[0].NAME == "plain" or case.bot.api is None:
        return ""
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
