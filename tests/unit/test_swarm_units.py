"""What a swarm's words mean: on the answers of a real one of two nodes, and on what no sound one would say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from botkeep.config import load_fleet
from botkeep.model import EngineError, InstanceState
from botkeep.runtimes import swarm
from botkeep.runtimes.docker_address import Address
from botkeep.runtimes.docker_facts import Inspected, Listed
from botkeep.runtimes.swarm_control import require_manager
from botkeep.runtimes.swarm_facts import EngineInfo, Node, Service, TaskSaid, each
from botkeep.runtimes.swarm_units import Around, Task, same_elsewhere, twin_of, units_of
from botkeep.workspace import Workspace

RECORDED = Path(__file__).parents[1] / "data/swarm/recorded.json"
GRACE = 10


@cache
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def around(**more: Any) -> Around:
    raw = recorded()
    seen = {
        "now": datetime.fromisoformat(raw["now"]),
        "is_here": True,
        "engine": EngineInfo.model_validate(raw["info"]),
        "containers": {one.id: one for one in each(Listed, raw["containers"])},
        "inspected": {one.id: one for one in each(Inspected, raw["inspected"])},
        "nodes": {one.id: one for one in each(Node, raw["nodes"])},
    }
    return Around(**{**seen, **more})


def service(name: str, edit: Mapping[str, Any] | None = None) -> Service:
    raw = next(one for one in recorded()["services"] if one["Spec"]["Name"] == f"bots_{name}")
    return Service.model_validate({**raw, "Spec": {**raw["Spec"], **(edit or {})}})


def tasks(name: str) -> list[TaskSaid]:
    mine = service(name).id
    return [one for one in each(TaskSaid, recorded()["tasks"]) if one.service == mine]


def units(name: str, **more: Any) -> tuple[Task, ...]:
    return units_of(service(name), tasks(name), around(**more), GRACE)


def changed(task: TaskSaid, **status: Any) -> TaskSaid:
    """The same task with another status; `wanted`, `node`, `made` are the task's own."""
    own = {key: status.pop(key) for key in ("wanted", "node", "made", "id") if key in status}
    return task.model_copy(update={**own, "status": task.status.model_copy(update=status)})


# ---------------------------------------------------------------------------------------------------- recorded


def test_a_task_that_runs_on_this_machine_has_its_process_and_its_container() -> None:
    (one,) = units("running")
    (task,) = tasks("running")
    assert (one.state, one.pid, one.cgroup) == (InstanceState.RUNNING, task.status.container.pid, task.container)
    assert (one.id, one.task, one.is_local, one.node, one.exit) == (task.container, task.id, True, "", None)
    assert one.log_path == f"/var/lib/docker/containers/{one.id}/{one.id}-json.log"
    assert one.started_at == task.changed_at
    assert (one.notes, one.giving_up, one.starts) == ((), "", ())


def test_a_task_on_another_node_has_no_process_here() -> None:
    (one,) = units("second")
    assert (one.state, one.pid, one.cgroup, one.is_local, one.node) == (
        InstanceState.RUNNING,
        None,
        "",
        False,
        "second",
    )
    assert one.logs_at == f"tasks/{one.task}"
    assert one.id == one.task


def test_a_loop_is_told_with_its_exit_and_every_start_that_nobody_asked_for() -> None:
    (one,) = units("loop")
    assert one.state is InstanceState.STARTING
    assert one.giving_up == "the swarm restarts it again and again, and it ended 5 times at once (exit code 3)"
    assert len(one.starts) == 5
    assert one.exit is not None
    assert one.exit.code == 3
    assert [old.run for old in one.past] == sorted(task.run for task in tasks("loop") if task.is_over)


def test_restarts_that_are_used_up_are_no_pause() -> None:
    (one,) = units("maxed")
    assert one.state is None
    assert one.giving_up == (
        "the swarm has restarted it 2 times, which is all that its restart policy allows (exit code 4)"
    )


def test_the_pause_before_the_next_attempt_is_starting_and_no_loop() -> None:
    (one,) = units("waits")
    assert (one.state, one.pid, one.giving_up) == (InstanceState.STARTING, None, "")
    assert one.exit is not None
    assert one.exit.code == 6


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("noimage", "No such image: botkeep-no-such-image:1"),
        ("noprogram", "./no-such-bot: No such file or directory"),
        (
            "noplace",
            "the swarm has no place for it: no suitable node (scheduling constraints not satisfied on 2 nodes)",
        ),
    ],
)
def test_why_a_task_did_not_start_is_told_in_the_engines_words(name: str, why: str) -> None:
    (one,) = units(name)
    assert one.state is None
    assert one.exit is not None
    assert (one.exit.failed_to_start, one.exit.code, one.exit.at) == (why, None, None)


def test_lack_of_memory_is_known_where_the_container_can_be_asked() -> None:
    seen = units("oom")[0].exit
    assert seen is not None
    assert (seen.signal, seen.out_of_memory) == (9, True)
    unasked = units("oom", inspected={})[0].exit
    assert unasked is not None
    assert (unasked.signal, unasked.out_of_memory, unasked.key) == (9, None, seen.key)


def test_what_has_done_its_work_ended_with_code_0_and_is_not_given_up() -> None:
    (one,) = units("done")
    assert (one.state, one.giving_up) == (None, "")
    assert one.exit is not None
    assert one.exit.code == 0


def test_two_tasks_are_two_units_and_what_is_said_of_the_service_is_said_once() -> None:
    first, second = units("twice")
    assert {first.state, second.state} == {InstanceState.RUNNING}
    assert first.run != second.run
    assert second.notes == ()
    assert ["`docker service scale bots_twice=1`" in one or "stop-first" in one for one in first.notes] == [True, True]


def test_a_service_without_replicas_is_down_and_said_to_be_so() -> None:
    (one,) = units("zero")
    assert (one.state, one.exit, one.is_scaled_down, one.giving_up) == (None, None, True, "")


def test_a_service_of_every_node_is_one_unit_a_node() -> None:
    found = units("everywhere")
    assert {one.node for one in found} == {"", "second"}
    assert "a bot needs mode replicated" in found[0].notes[0]


# ---------------------------------------------------------------------------------------------------- states

STATES = {
    "new": InstanceState.STARTING,
    "pending": InstanceState.STARTING,
    "allocated": InstanceState.STARTING,
    "assigned": InstanceState.STARTING,
    "accepted": InstanceState.STARTING,
    "preparing": InstanceState.STARTING,
    "ready": InstanceState.STARTING,
    "starting": InstanceState.STARTING,
    "running": InstanceState.RUNNING,
    "complete": None,
    "shutdown": None,
    "failed": None,
    "rejected": None,
    "remove": None,
    "orphaned": None,
    "a state of another version": InstanceState.STARTING,
}


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_a_task_is_one_of_ours_and_an_unknown_one_may_live(state: str) -> None:
    (task,) = tasks("running")
    one = changed(task, state=state, wanted="running" if STATES[state] else "shutdown")
    with_policy = service("running", {"TaskTemplate": {**spec_of("running"), "RestartPolicy": {"Condition": "none"}}})
    containers: dict[str, Listed] = {} if STATES[state] is None else around().containers  # type: ignore[assignment]
    (unit,) = units_of(with_policy, [one], around(containers=containers), GRACE)
    assert unit.state is STATES[state]


def spec_of(name: str) -> dict[str, Any]:
    raw = next(one for one in recorded()["services"] if one["Spec"]["Name"] == f"bots_{name}")
    found: dict[str, Any] = raw["Spec"]["TaskTemplate"]
    return found


@pytest.mark.parametrize(
    ("condition", "state", "after", "seen"),
    [
        ("any", "failed", 1.0, InstanceState.STARTING),
        ("any", "complete", 1.0, InstanceState.STARTING),
        ("any", "failed", 10.0, None),
        ("on-failure", "failed", 1.0, InstanceState.STARTING),
        ("on-failure", "complete", 1.0, None),
        ("none", "failed", 1.0, None),
    ],
)
def test_nobody_races_the_swarm_in_the_moment_before_it_plans_the_next_task(
    condition: str, state: str, after: float, seen: InstanceState | None
) -> None:
    (task,) = tasks("running")
    over = changed(task, state=state, error="task: non-zero exit (1)", wanted="shutdown")
    policy = {"TaskTemplate": {**spec_of("running"), "RestartPolicy": {"Condition": condition}}}
    assert task.changed_at is not None
    there = around(now=task.changed_at + timedelta(seconds=after), containers={})
    (unit,) = units_of(service("running", policy), [over], there, GRACE)
    assert unit.state is seen
    assert (unit.giving_up != "") == (seen is None and condition == "any")


def test_a_container_that_ended_is_over_before_the_swarm_has_noticed() -> None:
    (task,) = tasks("running")
    listed = around().containers[task.container]
    dead = listed.model_copy(update={"state": "exited", "status": "Exited (137) 1 second ago"})
    policy = {"TaskTemplate": {**spec_of("running"), "RestartPolicy": {"Condition": "none"}}}
    (unit,) = units_of(service("running", policy), [task], around(containers={dead.id: dead}), GRACE)
    assert unit.state is None
    assert unit.exit is not None
    assert (unit.exit.signal, unit.exit.key) == (9, task.run)


def test_a_task_whose_node_was_lost_is_no_instance_and_nobody_says_that_it_is_gone() -> None:
    (task,) = tasks("second")
    lost = {one.id: one.model_copy(update={"status": one.status.model_copy(update={"state": "down"})})
            for one in each(Node, recorded()["nodes"])}  # fmt: skip
    fresh = changed(task, id="fresh", made="2026-11-21T21:30:00Z", state="running")
    here = fresh.model_copy(update={"node": around().engine.swarm.node})
    units_now = units_of(service("second"), [changed(task, wanted="shutdown"), here], around(nodes=lost), GRACE)
    (unit,) = units_now
    assert unit.task == "fresh"
    assert unit.lost == (f"task {task.id[:12]} on node second, which the swarm has lost",)
    assert "nobody can say whether that copy still trades" in unit.notes[0]


def test_a_start_that_a_person_made_is_not_the_swarms_own() -> None:
    old, *_ = sorted(tasks("loop"), key=lambda one: one.run)
    told_to_end = changed(old, state="shutdown", wanted="shutdown")
    later = changed(old, id="later", made="2026-11-21T23:00:00Z", state="running")
    (unit,) = units_of(service("loop"), [told_to_end, later], around(containers={}), GRACE)
    assert unit.starts == ()
    (unit,) = units_of(service("loop"), [old, later], around(containers={}), GRACE)
    assert unit.starts == ()  # an hour after the end of the one before


def row(count: int, state: str, policy: Mapping[str, Any], **last: Any) -> Task:
    """A service whose tasks ended so, three seconds after their begin, each ten seconds after the one before."""
    (task,) = tasks("running")
    begin = datetime(2026, 11, 21, 21, 0, tzinfo=UTC)
    times = [begin + timedelta(seconds=10 * place) for place in range(count)]
    past = [
        changed(task, id=f"x{place}", made=at.isoformat(), at=(at + timedelta(seconds=3)).isoformat(), state=state,
                wanted="shutdown")
        for place, at in enumerate(times)
    ]  # fmt: skip
    past[-1] = past[-1].model_copy(update=last)
    edit = {"TaskTemplate": {**spec_of("running"), "RestartPolicy": policy}}
    (unit,) = units_of(service("running", edit), past, around(containers={}, now=begin + timedelta(hours=1)), GRACE)
    return unit


@pytest.mark.parametrize(
    ("state", "condition", "changed_spec", "starts"),
    [
        ("failed", "any", {}, 3),
        ("failed", "on-failure", {}, 3),
        ("complete", "any", {}, 3),
        ("complete", "on-failure", {}, 0),
        ("failed", "none", {}, 0),
        ("shutdown", "any", {}, 0),
        ("failed", "any", {"spec": {"ForceUpdate": 1}}, 2),
    ],
)
def test_only_what_the_swarm_starts_by_itself_counts(
    state: str, condition: str, changed_spec: dict[str, Any], starts: int
) -> None:
    assert len(row(4, state, {"Condition": condition, "Delay": 5 * 10**9}, **changed_spec).starts) == starts


def test_what_is_started_by_hand_and_ends_well_each_time_is_no_loop_of_the_swarms() -> None:
    assert row(4, "complete", {"Condition": "on-failure"}).giving_up == ""
    assert row(4, "complete", {"Condition": "none"}).giving_up == ""


def test_runs_are_named_by_when_they_were_made_whatever_digits_the_time_is_written_with() -> None:
    (task,) = tasks("running")
    early = changed(task, made="2026-11-21T21:30:00.1Z", id="z")
    late = changed(task, made="2026-11-21T21:30:00.100000001Z", id="a")
    assert early.run < late.run


# ---------------------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize(
    ("spec", "command", "cwd"),
    [
        ({"Command": ["python", "bot.py", "3m"], "Dir": "/bots/a"}, ("python", "bot.py", "3m"), "/srv/bots/a"),
        ({"Command": ["./bot"], "Args": ["-x"], "Dir": "/bots"}, ("./bot", "-x"), "/srv/bots"),
        ({"Command": ["sh", "-c", "...", "botkeep-secrets", "python", "b.py"], "Dir": "/bots"},
         ("python", "b.py"), "/srv/bots"),
        ({"Command": ["python", "bot.py"], "Dir": "/elsewhere"}, (), "/"),
        ({"Command": ["python", "bot.py"], "Dir": "/botsfolder"}, (), "/"),
        ({"Command": ["sleep", "60"], "Dir": "/bots"}, (), "/"),
        ({"Args": ["bot.py"], "Dir": "/bots"}, (), "/"),
        ({"Command": ["python", "bot.py"]}, (), "/"),
    ],
)  # fmt: skip
def test_a_copy_outside_of_the_swarm_is_known_by_command_and_the_folder_of_this_machine(
    spec: dict[str, Any], command: tuple[str, ...], cwd: str
) -> None:
    container = {"Image": "i", "Mounts": [{"Type": "bind", "Source": "/srv/bots", "Target": "/bots"}], **spec}
    one = service("running", {"TaskTemplate": {"ContainerSpec": container}})
    assert (twin_of(one, around()).command, twin_of(one, around()).cwd) == (command, cwd)
    assert twin_of(one, around(is_here=False)).command == ()
    assert twin_of(one, around(repeated=frozenset({(command, cwd)}))).command == ()


def test_containers_beside_the_service_are_copies_if_they_run_the_same_on_the_same_folders() -> None:
    one = service("running")
    there = around()
    task = next(iter(there.containers[task.container] for task in tasks("running")))
    byhand = task.model_copy(update={"id": "a" * 64, "labels": {}})
    other_folder = byhand.model_copy(update={"id": "b" * 64, "mounts": []})
    other_command = byhand.model_copy(update={"id": "c" * 64, "command": "sleep 1"})
    ended = byhand.model_copy(update={"id": "d" * 64, "state": "exited"})
    another_services = byhand.model_copy(
        update={"id": "e" * 64, "labels": {"com.docker.swarm.service.id": "somebodyelse"}}
    )
    all_of_them = {x.id: x for x in (task, byhand, other_folder, other_command, ended, another_services)}
    found = [seen.id for seen in same_elsewhere(one, [], replace(there, containers=all_of_them))]
    assert found == [task.id, byhand.id]


def test_a_container_of_a_task_that_is_planned_is_no_copy_and_one_of_a_task_that_is_over_is() -> None:
    one, there = service("running"), around()
    (task,) = tasks("running")
    listed = there.containers[task.container]
    fresh = changed(task, state="ready", container=task.status.container.model_copy(update={"container": ""}))
    assert listed.labels["com.docker.swarm.task.id"] == task.id
    assert list(same_elsewhere(one, [fresh], there)) == []
    assert list(same_elsewhere(one, [changed(task, state="failed")], there)) == [listed]


def test_a_task_has_its_container_before_its_node_has_told_the_managers_which_one_that_is() -> None:
    one, there = service("running"), around(inspected={})
    (task,) = tasks("running")
    fresh = changed(task, state="ready", container=task.status.container.model_copy(update={"container": "", "pid": 0}))
    (unit,) = units_of(one, [fresh], there, GRACE)
    assert (unit.state, unit.cgroup, unit.pid) == (InstanceState.STARTING, task.container, None)
    (elsewhere,) = units_of(one, [fresh], replace(there, containers={}), GRACE)
    assert (elsewhere.state, elsewhere.cgroup) == (InstanceState.STARTING, "")


# ---------------------------------------------------------------------------------------------------- rubbish


@pytest.mark.parametrize(
    "answer",
    [None, {}, "x", [1], [{}], [{"ID": "-f"}], [{"ID": "a"}], [{"ID": "a", "Status": {}}],
     [{"ID": "a", "Status": {"State": 3}}], [{"ID": "../x", "Status": {"State": "running"}}]],
)  # fmt: skip
def test_an_answer_that_is_no_list_of_tasks_is_an_error_and_no_traceback(answer: Any) -> None:
    with pytest.raises((ValidationError, TypeError)):
        each(TaskSaid, answer)


@pytest.mark.parametrize(
    "raw",
    [
        {"ID": "a", "Status": {"State": "running"}},
        {"ID": "a", "Status": {"State": "running", "ContainerStatus": None, "Timestamp": "yesterday"}},
        {"ID": "a", "Status": {"State": "failed", "Err": "task: non-zero exit (999)", "ContainerStatus": {}}},
        {
            "ID": "a",
            "Status": {"State": "failed", "Err": "\x1b[31m" + "x" * 100_000},
            "CreatedAt": "0001-01-01T00:00:00Z",
        },
        {"ID": "a", "Status": {"State": "orphaned", "ContainerStatus": {"ContainerID": "x", "ExitCode": -1}}},
    ],
)
def test_a_task_of_which_little_is_said_is_a_unit_all_the_same(raw: dict[str, Any]) -> None:
    (unit, *_) = units_of(service("running"), [TaskSaid.model_validate(raw)], around(), GRACE)
    assert len(str(unit.exit)) < 1000
    assert "\x1b" not in f"{unit.exit}{unit.giving_up}{unit.notes}"


# ---------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("service", "--host=tcp://127.0.0.1:1"),
        ("service", "-f"),
        ("service", ";id"),
        ("service", "a b"),
        ("service", "$(id)"),
        ("service", "../x"),
        ("service", "a/b?c"),
        ("service", ""),
        ("service", "x" * 300),
        ("image", "--privileged"),
        ("image", "a b"),
        ("stop_grace", 0),
        ("stop_grace", 36),
        ("host", "http://127.0.0.1"),
        ("replicas", 2),
    ],
)
def test_a_name_that_is_an_option_or_a_shells_word_is_refused_where_it_is_written(
    tmp_path: Path, key: str, value: Any
) -> None:
    (tmp_path / "config").mkdir()
    runtime = {"kind": "swarm", "service": "bots_doge", key: value}
    (tmp_path / "config/bots.json").write_text(json.dumps({"bots": [{"name": "doge", "runtime": runtime}]}))
    problem = load_fleet(Workspace(tmp_path)).get("doge").problem
    assert problem is not None
    assert key in problem
    assert "\n" not in problem


def test_an_engine_without_a_swarm_or_that_is_a_worker_says_what_to_do() -> None:
    where = Address("unix:///run/docker.sock")
    for swarm_says, told in (
        ({"LocalNodeState": "inactive"}, "is in no swarm: write a `host` that is one of the swarm's managers, or run"),
        ({"LocalNodeState": "active", "ControlAvailable": False}, "is a worker, and only managers know the services"),
        ({"LocalNodeState": "locked"}, "run `docker swarm unlock` there"),
    ):
        with pytest.raises(EngineError, match=told):
            require_manager(where, EngineInfo.model_validate({"Swarm": swarm_says}))
    require_manager(where, EngineInfo.model_validate(recorded()["info"]))


def test_a_whole_id_is_as_good_as_a_name() -> None:
    everything = each(Service, recorded()["services"])
    wanted = service("running")
    by_name = swarm.Config(kind="swarm", service="bots_running")
    by_id = swarm.Config(kind="swarm", service=wanted.id)
    assert by_name.among(everything).id == by_id.among(everything).id == wanted.id
    with pytest.raises(EngineError, match=r"There is no service bots_runing: did you mean bots_running\?"):
        swarm.Config(kind="swarm", service="bots_runing").among(everything)
