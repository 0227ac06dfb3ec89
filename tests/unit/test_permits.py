"""May this action run now? The same for models, people and code; from tables of histories."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from botkeep.history import history
from botkeep.judge import decide
from botkeep.model import Action, Actor, Exit, Fault, Observation, Permit, ProgramLook, Status
from botkeep.permits import permit
from botkeep.playbooks import packaged_playbooks
from support.tables import NOW, ago, cause, damage, entry, failing, instance, restarted, seen, span

BOOKS = packaged_playbooks()
DOWN = seen(ended=Exit("boot:1", ago(seconds=5), signal=9))


def asked(
    look: Observation, *entries: object, action: Action = Action.RESTART, spans: tuple = (), **more: object
) -> Permit:
    flat = [one for group in entries for one in (group if isinstance(group, list) else [group])]
    past = history(flat, spans, NOW)
    return permit(action, decide(look, BOOKS, past, NOW), BOOKS, past, NOW, **more)


def test_the_first_restart_is_at_once() -> None:
    assert asked(DOWN).allowed


@pytest.mark.parametrize(
    ("restarts", "earliest"),
    [
        ([ago(minutes=1)], ago(minutes=1) + timedelta(minutes=5)),
        ([ago(minutes=7), ago(minutes=1)], ago(minutes=1) + timedelta(minutes=15)),
        ([ago(minutes=30), ago(minutes=20), ago(minutes=1)], ago(minutes=1) + timedelta(minutes=30)),
    ],
    ids=["5 minutes before the second", "15 before the third", "30 before the fourth"],
)
def test_the_back_off_grows(restarts: list[datetime], earliest: datetime) -> None:
    refusal = asked(DOWN, *(restarted(at) for at in restarts))
    assert not refusal.allowed
    assert refusal.earliest == earliest


def test_after_the_back_off_it_may() -> None:
    assert asked(DOWN, restarted(ago(minutes=6))).allowed


def test_after_the_last_step_only_a_person() -> None:
    times = [ago(hours=hours) for hours in (4, 3.8, 3.5, 2.9)]
    refusal = asked(DOWN, *(restarted(at) for at in times))
    assert not refusal.allowed
    assert refusal.earliest is None
    assert "--override" in refusal.until
    assert asked(DOWN, *(restarted(at) for at in times), override="the disk was changed").allowed


def test_an_hour_up_forgives_and_an_hour_down_does_not() -> None:
    restart = restarted(ago(hours=3))
    up = (span(Status.HEALTHY, ago(hours=2, minutes=59), ago(minutes=5)),)
    later = restarted(ago(minutes=4))
    assert asked(DOWN, restart, later, spans=up).earliest == ago(minutes=4) + timedelta(minutes=5)
    assert asked(DOWN, restart, later).earliest == ago(minutes=4) + timedelta(minutes=15)


def test_a_start_that_was_interrupted_before_it_started_anything_does_not_count() -> None:
    intent = entry("intent", "restart", ago(minutes=1))
    lost = entry("outcome", "restart", NOW, ref=intent.id, result="failed", data={"attempted": False})
    assert asked(DOWN, intent, lost).allowed


def test_a_start_after_a_stop_on_purpose_costs_no_back_off() -> None:
    assert asked(DOWN, restarted(ago(minutes=1), ok=True, after_fault=False)).allowed


def test_the_daily_cap_holds_over_all_restarts_and_says_when_it_ends() -> None:
    times = [ago(hours=hours) for hours in (23, 20, 16, 12, 8, 4)]
    ups = tuple(span(Status.HEALTHY, at, at + timedelta(hours=2)) for at in times)
    refusal = asked(DOWN, *(restarted(at) for at in times), spans=ups)
    assert not refusal.allowed
    assert refusal.earliest == times[0] + timedelta(hours=24)


def test_a_refused_key_forbids_the_restart() -> None:
    refusal = asked(seen(ended=DOWN.runtime.exit, causes=(cause("stop", Fault.API_KEY_REJECTED),)))
    assert not refusal.allowed
    assert refusal.playbook == "api-key-rejected"
    assert "mended the API key" in refusal.until


def test_a_full_disk_forbids_the_restart() -> None:
    assert asked(seen(ended=DOWN.runtime.exit, disk_free=5)).playbook == "disk-full"


def test_a_ban_forbids_it_until_its_end() -> None:
    until = NOW + timedelta(minutes=42)
    refusal = asked(seen(ended=DOWN.runtime.exit, causes=(cause("wait", Fault.API_RATE_LIMITED, until=until),)))
    assert refusal.earliest == until


def test_a_rate_limit_without_an_end_forbids_it_for_a_while() -> None:
    refusal = asked(seen(ended=DOWN.runtime.exit, causes=(cause("wait", Fault.API_RATE_LIMITED),)))
    assert refusal.earliest is not None
    assert refusal.earliest > NOW


def test_a_stop_cause_without_a_fault_of_its_own_forbids_it_too() -> None:
    refusal = asked(seen(ended=DOWN.runtime.exit, causes=(cause("stop", cause="The kill switch was reached."),)))
    assert not refusal.allowed
    assert "kill switch" in refusal.reason


def test_damaged_data_is_restored_not_restarted() -> None:
    look = seen(ended=DOWN.runtime.exit, data=damage("C1", certain=True))
    assert "restore_data" in asked(look).until
    assert asked(look, action=Action.RESTORE).allowed


def test_nothing_damaged_nothing_restored() -> None:
    assert not asked(DOWN, action=Action.RESTORE).allowed


def test_two_copies_are_brought_back_to_one_at_once_and_again() -> None:
    two = seen(instance(1), instance(2, ours=False))
    assert asked(two).allowed
    assert asked(two, restarted(ago(minutes=1), ok=True)).allowed


def test_a_playbook_that_asks_needs_a_person() -> None:
    look = seen(instance(), health=failing(certain=True))
    refusal = asked(look)
    assert refusal.needs_approval
    ask = entry("ask", "restart", ago(minutes=5), data={"fault": "health-endpoint-failing"})
    yes = entry("approval", "approve", ago(minutes=4), ref=ask.id)
    allowed = asked(look, ask, yes)
    assert allowed.allowed
    assert allowed.approval == yes.id


def test_an_approval_is_for_one_action_and_for_one_hour() -> None:
    look = seen(instance(), health=failing(certain=True))
    ask = entry("ask", "restart", ago(minutes=90), data={"fault": "health-endpoint-failing"})
    late = entry("approval", "approve", ago(minutes=70), ref=ask.id)
    assert asked(look, ask, late).needs_approval
    yes = entry("approval", "approve", ago(minutes=9), ref=ask.id)
    used = restarted(ago(minutes=8), ok=True, approval=yes.id)
    assert asked(look, ask, yes, used).needs_approval


def test_a_healthy_bot_follows_the_caps_of_bot_not_running() -> None:
    assert asked(seen(instance())).allowed
    assert asked(seen(instance()), restarted(ago(minutes=1), ok=True)).earliest == ago(minutes=1) + timedelta(minutes=5)


def test_a_bot_without_a_runtime_and_an_unknown_one_are_refused() -> None:
    assert "runtime" in asked(DOWN, can_restart=False).reason
    broken = Observation("doge", NOW, config_error="bad entry")
    assert not asked(broken).allowed
    assert not asked(broken, override="I know better").allowed


@pytest.mark.parametrize("action", [Action.STOP, Action.BACKUP, Action.NOTE])
def test_stop_backup_and_notes_are_always_allowed(action: Action) -> None:
    look = seen(ended=DOWN.runtime.exit, causes=(cause("stop", Fault.API_KEY_REJECTED),))
    assert asked(look, action=action).allowed


def test_every_refusal_says_when_or_what_first() -> None:
    looks = [
        seen(ended=DOWN.runtime.exit, disk_free=5),
        seen(ended=DOWN.runtime.exit, causes=(cause("stop", Fault.API_KEY_REJECTED),)),
        seen(instance(), health=failing(certain=True)),
    ]
    for look in looks:
        refusal = asked(look)
        assert refusal.earliest or refusal.until


FADES = NOW + timedelta(minutes=3)


@pytest.mark.parametrize(
    ("klass", "earliest", "first"),
    [
        ("stop", None, "a person has mended the cause"),
        ("repair", None, "its data is repaired"),
        ("host", None, "this machine is mended"),
        ("wait", FADES, ""),
    ],
)
def test_the_class_of_a_cause_binds_a_bot_that_lives(klass: str, earliest: datetime | None, first: str) -> None:
    refusal = asked(seen(instance(), causes=(cause(klass, fades_at=FADES),)))
    assert not refusal.allowed
    assert (refusal.earliest, refusal.until.startswith(first)) == (earliest, True)
    assert "The log says so" in refusal.reason


@pytest.mark.parametrize(("klass", "allowed"), [("stop", False), ("repair", False), ("host", True), ("wait", True)])
def test_a_bot_that_is_down_is_started_where_the_start_itself_shows_whether_it_helps(klass: str, allowed: bool) -> None:
    look = seen(ended=DOWN.runtime.exit, causes=(cause(klass, fades_at=FADES),))
    assert asked(look).allowed is allowed


def test_a_frozen_bot_waits_for_nobody_but_a_ban() -> None:
    frozen = instance(state="frozen")
    assert asked(seen(frozen, causes=(cause("wait", fades_at=FADES),))).allowed
    assert asked(seen(frozen, causes=(cause("wait", until=FADES),))).earliest == FADES


def test_a_restart_cause_forbids_nothing() -> None:
    assert asked(seen(instance(), causes=(cause("restart", Fault.BOT_IMPAIRED),))).allowed


def test_a_copy_that_only_the_log_speaks_of_is_ended_by_a_person() -> None:
    spoken = cause("stop", Fault.BOT_DUPLICATED)
    assert not asked(seen(instance(), causes=(spoken,))).allowed
    assert asked(seen(ended=DOWN.runtime.exit, causes=(spoken,))).allowed
    assert asked(seen(instance(1), instance(2, ours=False), causes=(spoken,))).allowed


def test_a_bot_that_could_not_close_a_position_and_died_of_something_else_is_started() -> None:
    stuck = cause("stop", Fault.BOT_IMPAIRED)
    assert not asked(seen(instance(), causes=(stuck,))).allowed
    assert asked(seen(ended=DOWN.runtime.exit, causes=(stuck,))).allowed


def test_no_start_beside_a_copy_that_cannot_be_ended() -> None:
    other = ProgramLook(others=(4711,))
    for look in (seen(instance(), program=other), seen(ended=DOWN.runtime.exit, program=other)):
        refusal = asked(look)
        assert (refusal.allowed, refusal.playbook) == (False, "bot-duplicated")
        assert "pid 4711" in refusal.reason


def stopped(at: datetime, actor: str = "person", result: str = "done") -> list[object]:
    """A stop and its outcome."""
    intent = entry("intent", "stop", at, actor=actor, sentence="holiday")
    return [intent, entry("outcome", "stop", at, actor=actor, ref=intent.id, result=result)]


@pytest.mark.parametrize("action", [Action.START, Action.RESTART])
@pytest.mark.parametrize("by", [Actor.ASSISTANT, Actor.ROUND])
def test_what_a_person_stopped_only_a_person_starts(action: Action, by: Actor) -> None:
    refusal = asked(DOWN, stopped(ago(hours=3)), action=action, by=by)
    assert not refusal.allowed
    assert refusal.reason == f"a person stopped it at {ago(hours=3):%Y-%m-%d %H:%MZ}: holiday"
    assert refusal.until == "a person starts it (`botkeep start doge`)"
    assert asked(DOWN, stopped(ago(hours=3)), action=action, by=Actor.PERSON).allowed


def test_an_assistant_starts_what_an_assistant_stopped() -> None:
    assert asked(DOWN, stopped(ago(hours=3), "assistant"), by=Actor.ASSISTANT).allowed


def test_an_assistants_own_stop_takes_no_persons_stop_back() -> None:
    both = (stopped(ago(hours=3)), stopped(ago(hours=1), "assistant"))
    assert not asked(DOWN, *both, by=Actor.ASSISTANT).allowed
    between = restarted(ago(hours=2), ok=True, actor="person")
    assert asked(DOWN, both[0], between, both[1], by=Actor.ASSISTANT).allowed


def test_a_copy_that_runs_after_a_persons_stop_is_looked_after_unless_that_stop_failed() -> None:
    assert asked(seen(instance()), stopped(ago(hours=1)), by=Actor.ASSISTANT).allowed
    failed = stopped(ago(hours=1), result="failed")
    assert not asked(seen(instance(state="frozen")), failed, by=Actor.ASSISTANT).allowed
    assert asked(seen(instance(1), instance(2, ours=False)), failed).allowed
