"""Programs beside the watcher of a day: `day_callers.py cron HOME` and `day_callers.py assistant HOME SEED`.

cron makes a round for each line that it reads, as a new crond job would: a Desk of its own each time. An assistant
looks now and then, and does what its skill tells it, until it is ended; what it was told goes to stdout.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from botkeep.model import ActionReport, Actor, BotkeepError, Fault, Status, Verdict
from botkeep.rounds import Desk
from botkeep.workspace import Workspace

RESTARTS_FOR = (Fault.BOT_NOT_RUNNING, Fault.BOT_HUNG)
WHIMS = "whim"
"""The bot that assistants restart, stop and start as they like."""
HANDS = "hand"
"""The bot that a person stops and starts; assistants do not leave it at that."""


def main(role: str, home: str, seed: str = "") -> None:
    """Be cron, or an assistant."""
    place = Workspace(Path(home))
    if role == "cron":
        for _ in sys.stdin:
            _say(_with_desk(place, Actor.ROUND, _round))
        return
    chance = random.Random(seed)
    while True:
        time.sleep(chance.uniform(0.5, 3.0))
        _say(_with_desk(place, Actor.ASSISTANT, lambda desk: _assist(desk, chance)))


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


def _with_desk(place: Workspace, actor: Actor, work: Callable[[Desk], dict[str, object]]) -> dict[str, object]:
    desk = Desk.open(place, actor)
    try:
        return work(desk)
    except BotkeepError as error:
        return {"error": str(error)}
    finally:
        desk.close()


def _round(desk: Desk) -> dict[str, object]:
    found = desk.round()
    return {
        "problems": found.problems,
        "report": found.report,
        "alerts": [one.sentence for one in found.alerts],
        "actions": [f"{one.result}: {one.sentence}" for one in found.actions],
        "faulty": {one.bot: one.sentence for one in found.verdicts if one.status is Status.FAULTY},
    }


def _assist(desk: Desk, chance: random.Random) -> dict[str, object]:
    verdicts = desk.check(confirm=False).verdicts
    for verdict in verdicts:
        if verdict.status is Status.FAULTY and verdict.fault in RESTARTS_FOR:
            return _told(desk.restart(verdict.bot, f"an assistant found: {verdict.fault}"))
    own, hand = (next(one for one in verdicts if one.bot == name) for name in (WHIMS, HANDS))
    if hand.status is Status.STOPPED and chance.random() < 0.2:
        return _told(_insist(desk, chance))
    if chance.random() < 0.1:
        return {"note": desk.note("an assistant was here", own.bot).id}
    return _told(_whim(desk, own, chance)) if chance.random() < 0.08 else {"looked": len(verdicts)}


def _whim(desk: Desk, own: Verdict, chance: random.Random) -> ActionReport:
    if own.status is Status.STOPPED:
        return desk.start(own.bot, "an assistant needs it again")
    if chance.random() < 0.5:
        return desk.stop(own.bot, "an assistant gives it a rest")
    return desk.restart(own.bot, "an assistant changed its settings")


def _insist(desk: Desk, chance: random.Random) -> ActionReport:
    """Against a person's stop, now and then by way of a stop of its own."""
    if chance.random() < 0.2:
        desk.stop(HANDS, "an assistant makes it its own stop")
    return desk.restart(HANDS, "an assistant thinks that it should run")


def _told(report: ActionReport) -> dict[str, object]:
    return {"bot": report.bot, "action": report.action, "result": report.result, "sentence": report.sentence}


if __name__ == "__main__":
    main(*sys.argv[1:])
