"""One question to a bot's health endpoint: did a 2xx come back, in time, and from the bot itself?"""

from __future__ import annotations

from collections.abc import Set

from . import web
from .model import HealthLook

DEADLINE = 3.0


def look(
    url: str,
    *,
    deadline: float = DEADLINE,
    owner_pids: Set[int] | None = None,
    allowed_hosts: Set[str] = frozenset(),
) -> HealthLook:
    """Ask once, `GET url`, and say whether a 2xx came back within `deadline` seconds. Never raises.

    Only loopback addresses are asked, unless the host is one of `allowed_hosts`. With `owner_pids`, the processes of
    the bot, an answer counts only if one of them listens on that port: after a start that found its port taken, the
    old copy would answer for the new one. No redirects, no proxies, at most 64 KiB of body.
    """
    clock = web.Deadline(deadline)
    question = web.Question(url, owner_pids=owner_pids, allowed_hosts=allowed_hosts)
    try:
        answer = web.ask(question, clock)
    except web.WebError as failure:
        return HealthLook(False, str(failure), failure.rule, failure.certain, clock.spent)
    if 200 <= answer.status < 300:  # whatever the body is, and wherever it ends
        return HealthLook(True, f"answered {answer.status}", "ok", False, clock.spent)
    said = answer.said()
    return HealthLook(False, f"it answers {answer.status}{': ' + said if said else '.'}", "status", False, clock.spent)
