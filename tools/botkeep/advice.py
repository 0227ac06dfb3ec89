"""What a good operator does about a cause: its own advice, else the first words of what the playbook says to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from .model import Cause, Fault, HostCause
from .profiles.signature import Rule

SENTENCES = 2
KILLED = "kernel-oom"
"""The catalogue's rule for what the kernel ended."""
_OF_THE_HOST = {
    "clock": "Let a time service (chrony, systemd-timesyncd) set the clock; then start what died of it.",
    "dns": "Mend this machine's resolver (/etc/resolv.conf, or the container engine's); restarts do not help before.",
}
_FAULT_OF = {"disk": Fault.DISK_FULL, "memory": Fault.OUT_OF_MEMORY, "oom-kill": Fault.OUT_OF_MEMORY}


def advice_for(
    log: Cause | None,
    host: HostCause | None,
    fault: Fault | None,
    prose: Callable[[Fault], str],
    rules: Mapping[str, Rule] = MappingProxyType({}),
) -> str:
    """`log`: the cause that the log names first; `host`: what of the machine explains it; `fault`: the verdict's.

    `prose`: of the playbook of a fault. `rules`: of the catalogue. Empty: there is nothing to say.
    """
    standing = log if log and log.this_run else None
    if standing and standing.advice:
        return standing.advice
    if host and host.id == "oom-kill" and KILLED in rules:
        return rules[KILLED].advice
    if host and host.id in _OF_THE_HOST:
        return _OF_THE_HOST[host.id]
    of_cause = (standing.fault if standing else None) or (_FAULT_OF.get(host.id) if host else None)
    handled = of_cause or fault
    return act_of(prose(handled)) if handled else ""


def act_of(prose: str) -> str:
    """The first sentences below `## Act` in a playbook's prose."""
    section = re.search(r"^## Act\s*\n(.*?)(?=^## |\Z)", prose, re.MULTILINE | re.DOTALL)
    if section is None:
        return ""
    text = " ".join(section[1].split())
    return " ".join(re.split(r"(?<=[.!?]) (?=[A-Z])", text)[:SENTENCES])
