"""What a round wants done about polling, when a bot may be told to reload, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep import overlay
from botkeep.config import Bot, LimitsConfig
from botkeep.doctor import DoctorLine
from botkeep.ledger import Entry, Kind, Ledger
from botkeep.limits import PollingLimit
from botkeep.model import Actor, Fault, Observation, ProgramLook, RuntimeLook, Status, Verdict
from botkeep.overlay import Change, Level, Polling
from botkeep.pack import init
from botkeep.playbooks import packaged_playbooks
from botkeep.polling import Facts, Waits, waits, wish
from botkeep.rounds import Desk
from botkeep.workspace import Workspace
from support.tables import NOW, ago, cause, entry, instance, seen, span

LIMIT = Fault.API_RATE_LIMITED
POLICY = packaged_playbooks().get(LIMIT).policy
CALM: timedelta = POLICY.when.calm
NOT_ALLOWED = POLICY.model_copy(update={"actions": ()})


def bot(apply: str = "reload", file: str = "polling.json") -> Bot:
    """One with the setting."""
    polling = PollingLimit(file=Path(file), normal={}, reduced={"every": 60}, apply=apply)  # type: ignore[arg-type]
    return Bot(name="doge", limits=LimitsConfig(polling=polling))


def verdict(fault: Fault | None = LIMIT, *, confirmed: bool = True) -> Verdict:
    """The bot's, faulty unless there is no fault."""
    status = Status.FAULTY if fault else Status.HEALTHY
    return Verdict("doge", status, NOW, "so it is", fault=fault, confirmed=confirmed)


RUNNING = ProgramLook(state="running", state_from="api")
"""By its own API."""
CALM_BOT = seen(instance(started=ago(days=1)), program=RUNNING)
HOLDS = {one: Polling(one, "clause") for one in Level}


def change(to: Level, **more: Any) -> Change:
    """Written two hours ago by code, and read."""
    return replace(Change(to, ago(hours=2), applied=True), **more)


def facts(file: Level, **more: Any) -> Facts:
    """A bot that is well and never was told anything."""
    plain = Facts(bot(), verdict(None), HOLDS[file], None, CALM_BOT, (), (), POLICY, NOW)
    return replace(plain, **more)


def back(hours: float) -> Entry:
    """A round put polling back so long ago."""
    return entry("outcome", "poll", ago(hours=hours), result="done", data={"to": "normal", "written": True})


REDUCED, NORMAL = Level.REDUCED, Level.NORMAL
LONG_AGO = {"change": change(REDUCED)}


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        # the limit stands
        (facts(NORMAL, verdict=verdict()), REDUCED),
        (facts(Level.UNKNOWN, verdict=verdict()), REDUCED),
        (facts(REDUCED, verdict=verdict(), **LONG_AGO), None),
        (facts(NORMAL, verdict=verdict(confirmed=False)), None),
        (facts(NORMAL, verdict=verdict(Fault.BOT_HUNG)), None),
        (facts(NORMAL, verdict=verdict(), policy=NOT_ALLOWED), None),
        # a person put it back
        (facts(NORMAL, verdict=verdict(), change=change(NORMAL, person_at=ago(minutes=59))), None),
        (facts(NORMAL, verdict=verdict(), change=change(NORMAL, person_at=ago(minutes=60))), REDUCED),
        (facts(NORMAL, verdict=verdict(), change=change(NORMAL)), REDUCED),
        # it is over
        (facts(REDUCED, **LONG_AGO), NORMAL),
        (facts(REDUCED, policy=NOT_ALLOWED, **LONG_AGO), NORMAL),
        (facts(REDUCED, verdict=verdict(Fault.BOT_NOT_RUNNING), **LONG_AGO), NORMAL),
        (facts(REDUCED, change=change(REDUCED, since=ago(minutes=59))), None),
        (facts(REDUCED, change=change(REDUCED, person_at=ago(days=3))), None),
        (facts(REDUCED), None),
        (facts(REDUCED, change=change(NORMAL)), None),
        (facts(NORMAL, **LONG_AGO), None),
        (facts(Level.UNKNOWN, **LONG_AGO), None),
        (facts(REDUCED, spans=(span(Status.FAULTY, ago(hours=2), ago(minutes=30), LIMIT),), **LONG_AGO), None),
        (facts(REDUCED, spans=(span(Status.FAULTY, ago(hours=2), ago(minutes=61), LIMIT),), **LONG_AGO), NORMAL),
        (facts(REDUCED, spans=(span(Status.HEALTHY, ago(hours=2), ago(minutes=1)),), **LONG_AGO), NORMAL),
        (facts(REDUCED, seen=replace(CALM_BOT, causes=(cause("wait", LIMIT),)), **LONG_AGO), None),
        (facts(REDUCED, seen=replace(CALM_BOT, causes=(cause("wait", None),)), **LONG_AGO), NORMAL),
        # again and again
        (facts(REDUCED, calls=tuple(back(hour) for hour in range(1, 7)), **LONG_AGO), None),
        (facts(REDUCED, calls=tuple(back(hour) for hour in range(1, 6)), **LONG_AGO), NORMAL),
        (facts(REDUCED, calls=tuple(back(20 + hour) for hour in range(6)), **LONG_AGO), NORMAL),
        # it was not told yet
        (facts(REDUCED, change=change(REDUCED, since=ago(minutes=5), applied=False)), REDUCED),
        (facts(NORMAL, change=change(NORMAL, since=ago(minutes=5), applied=False)), NORMAL),
        (facts(REDUCED, bot=bot("restart"), change=change(REDUCED, since=ago(minutes=5), applied=False)), None),
        (facts(REDUCED, change=change(REDUCED, since=ago(days=2, minutes=5), applied=False, person_at=NOW)), None),
        (
            facts(
                REDUCED,
                change=change(REDUCED, since=ago(minutes=5), applied=False),
                seen=replace(CALM_BOT, program=ProgramLook(state="paused", state_from="api")),
            ),
            None,
        ),
    ],
)
def test_what_a_round_wants(case: Facts, wanted: Level | None) -> None:
    assert wish(case) is wanted


def told(*causes: Any, **program: str) -> Observation:
    """A running bot with these causes."""
    return replace(CALM_BOT, causes=causes, program=replace(RUNNING, **program))


@pytest.mark.parametrize(
    ("look", "why", "until"),
    [
        (told(), None, None),
        (told(cause("restart")), None, None),
        (told(cause("wait", last_at=NOW - CALM)), None, None),
        (told(cause("wait", this_run=False, last_at=NOW)), None, None),
        (told(cause("wait", until=ago(seconds=1), last_at=ago(hours=1))), None, None),
        (told(cause("stop", fades_at=NOW)), None, None),
        (told(cause("wait", last_at=ago(seconds=50))), "The log says so", ago(seconds=50) + CALM),
        (told(cause("wait", until=ago(hours=-3), last_at=ago(hours=9))), "The log says so", ago(hours=-3)),
        (told(cause("stop")), "The log says so", None),
        (told(cause("host", fades_at=ago(minutes=-4))), "The log says so", ago(minutes=-4)),
        (told(cause("stop"), cause("wait", until=ago(hours=-3))), "The log says so", None),
        (told(cause("wait", until=ago(hours=-1)), cause("wait", until=ago(hours=-3))), "The log", ago(hours=-3)),
        (told(state="paused"), "its own state is paused, and a reload would forget that", None),
        (told(state="stopped"), "its own state is stopped, and a reload would have it trade again", None),
        (told(state="starting"), "it is starting", None),
        (told(state="running", state_from="log"), "its API does not tell its state (nothing was asked)", None),
        (told(state="", api="it answers 401."), "its API does not tell its state (it answers 401)", None),
        (told(state="quiescent"), "its API does not tell its state", None),
        (replace(told(), runtime=RuntimeLook(error="no Docker.")), "no Docker", None),
        (seen(instance(1), instance(2), program=RUNNING), "it runs 2 times", None),
    ],
)
def test_when_a_bot_may_be_told_to_reload(look: Observation, why: str | None, until: datetime | None) -> None:
    found = waits(look, CALM, NOW)
    if why is None:
        assert found is None
    else:
        assert isinstance(found, Waits)
        assert found.why.startswith(why)
        assert found.until == until


# --- what the ledger knows ---------------------------------------------------------------------------------------


def outcome(minutes: float, to: str, actor: str = "round", result: str = "done", **data: Any) -> Entry:
    """Of a call so many minutes ago; it wrote the file unless `data` says otherwise."""
    return entry(
        "outcome", "poll", ago(minutes=minutes), actor=actor, result=result, data={"to": to, "written": True, **data}
    )


def test_the_newest_change_is_as_old_as_its_first_entry_and_a_persons_if_one_of_them_is() -> None:
    calls = [
        outcome(1, "reduced", written=False, result="failed"),
        outcome(2, "reduced", applied=True),
        outcome(3, "reduced", actor="person"),
        outcome(4, "reduced", result="failed"),
        outcome(5, "normal", applied=True),
        outcome(6, "reduced"),
    ]
    assert overlay.last_change(calls) == Change(
        REDUCED, ago(minutes=4), applied=True, person_at=ago(minutes=3), asked=True
    )
    assert overlay.last_change(calls[2:]) == Change(REDUCED, ago(minutes=4), applied=False, person_at=ago(minutes=3))
    assert overlay.last_change(calls[4:]) == Change(NORMAL, ago(minutes=5), applied=True, asked=True)
    assert overlay.last_change([]) is None


def test_a_copy_reads_what_it_was_told_or_found_when_it_started() -> None:
    old, new = instance(1, started=ago(hours=3)), instance(2, started=ago(hours=1))
    unknown_age = replace(old, started_at=None)
    assert change(REDUCED, applied=True).is_read_by([old])
    written = change(REDUCED, applied=False)
    assert [written.is_read_by(one) for one in ([old], [new], [old, new], [unknown_age])] == [False, True, False, False]
    assert [written.is_unknown_to(one) for one in ([old], [new], [unknown_age])] == [True, False, False]
    assert not replace(written, asked=True).is_unknown_to([old])


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    found = Ledger(tmp_path / "ledger.db")
    yield found
    found.close()


def test_the_step_that_is_taken_instead_of_a_restart(tmp_path: Path, ledger: Ledger) -> None:
    doge = bot(file=str(tmp_path / "polling.json"))
    file = doge.limits.polling.file if doge.limits.polling else Path()
    assert overlay.step(Bot(name="doge"), ledger) == (
        "Its polling cannot be reduced: no `limits.polling` is configured for it."
    )
    assert overlay.step(doge, ledger).startswith("Its polling cannot be reduced: there is no ")
    file.write_text("{}")
    assert overlay.step(doge, ledger).startswith("Its polling is not reduced yet")
    file.write_text('{"every": 6e1}')
    assert overlay.step(doge, ledger) == "Its polling is reduced."
    for applied in (False, True):
        data = {"to": "reduced", "written": True, "applied": applied}
        ledger.append(
            Kind.OUTCOME, at=NOW, bot="doge", action="poll", actor="round", sentence="x", result="done", data=data
        )
        later = "" if applied else ", from its next start on, or once its API can be told to reload"
        assert overlay.step(doge, ledger) == f"Its polling is reduced since 2026-11-21 12:00Z{later}."


# --- doctor ------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A workspace with one bot that may be told to poll less."""
    init(tmp_path, NOW)
    polling = {"file": "polling.json", "normal": {}, "reduced": {"every": 60}, "apply": "reload"}
    doge = {"name": "doge", "process_name": "no_such_bot_polls", "api": {"url": "http://127.0.0.1:1"}}
    text = json.dumps({"bots": [{**doge, "limits": {"polling": polling}}]})
    (tmp_path / "config/bots.json").write_text(text)
    (tmp_path / "polling.json").write_text("{}")
    return tmp_path


def problems(home: Path) -> list[DoctorLine]:
    """What doctor says about polling."""
    desk = Desk.open(Workspace(home), Actor.PERSON)
    try:
        return [line for line in desk.doctor() if "poll" in line.what]
    finally:
        desk.close()


def test_a_bot_whose_profile_knows_no_reload_is_told_before_the_night_it_is_needed(home: Path) -> None:
    (line,) = problems(home)
    assert (line.level, line.what) == (
        "problem", "doge polls less only from its next start on: its profile plain knows no API that reloads."
    )  # fmt: skip
    bots = home / "config/bots.json"
    bots.write_text(bots.read_text().replace('"reload"', '"restart"'))
    assert problems(home) == []


@pytest.mark.parametrize(
    ("spoil", "what", "mend"),
    [
        (Path.unlink, "there is no ", "botkeep poll doge normal REASON"),
        (lambda file: file.write_text('{"every": 61}'), "somebody edited it", "Put one of the two into it"),
        (lambda file: file.chmod(0o444), "is read-only", "Mend that"),
    ],
)
def test_a_file_that_could_not_be_replaced_is_a_problem(home: Path, spoil: Any, what: str, mend: str) -> None:
    spoil(home / "polling.json")
    line = problems(home)[0]
    assert line.level == "problem"
    assert line.what.startswith("doge cannot be told to poll less: ")
    assert what in line.what
    assert mend in line.mend
