"""`python -I -m botkeep.waker HOME`: wakes the assistant for what a round of cron has claimed; may take minutes.

It reads the calls as JSON from standard input and lets its caller go at once. Killed meanwhile, it leaves claims that
nobody keeps alive: the round that finds them tells people.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from .model import Actor, Fault, parse_iso
from .rounds import Desk
from .wake import Call
from .workspace import Workspace


def main() -> None:
    """Take the calls over, then make them."""
    calls = [_call(**one) for one in json.load(sys.stdin)]
    if os.fork():
        os._exit(0)
    desk = Desk.open(Workspace(Path(sys.argv[1])), Actor.ROUND)
    desk.wake(calls)
    desk.close()


def _call(**told: Any) -> Call:
    """As `asdict` wrote it."""
    fault, saw, since = (told.pop(name) for name in ("fault", "saw", "since"))
    return Call(
        **{**told, "bots": tuple(told["bots"])},
        fault=Fault(fault) if fault else None,
        saw=parse_iso(saw) if saw else None,
        since=parse_iso(since) if since else None,
    )


if __name__ == "__main__":
    main()
