"""The twelve playbooks as shipped, and what happens to edited, broken and missing ones."""

import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from botkeep.bundle import root
from botkeep.model import Fault
from botkeep.playbooks import PlaybookError, Playbooks, load_playbooks, packaged_playbooks, parse_playbook
from botkeep.workspace import Workspace

TOOLS = {
    "check_bot", "diagnose_bot", "restart_bot", "stop_bot", "restore_data", "summarize_pnl", "append_memory",
    "read_memory", "read_playbook", "health_report", "backup_data",
}  # fmt: skip
HUNG = "playbooks/bot-hung.md"
SHIPPED = root() / "playbooks"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copytree(SHIPPED, tmp_path / "playbooks")
    workspace = Workspace(tmp_path)
    workspace.prepare()
    return workspace


def path_of(workspace: Workspace, fault: Fault) -> Path:
    return workspace.playbooks_dir / f"{fault.value}.md"


def edit(workspace: Workspace, old: str, new: str, fault: Fault = Fault.BOT_HUNG) -> None:
    path = path_of(workspace, fault)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def line_of(workspace: Workspace, start: str, fault: Fault = Fault.BOT_HUNG) -> int:
    lines = path_of(workspace, fault).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(start))


# --- as shipped ----------------------------------------------------------------------------------------------------


def test_there_is_one_playbook_for_each_fault_and_no_other() -> None:
    assert {path.name for path in SHIPPED.iterdir()} == {f"{fault.value}.md" for fault in Fault}


@pytest.mark.parametrize("fault", Fault)
def test_a_shipped_playbook_is_short_in_four_sections_and_without_numbers(fault: Fault) -> None:
    prose = packaged_playbooks().get(fault).prose
    assert re.findall(r"^#+ .*$", prose, re.MULTILINE) == ["## Look", "## Decide", "## Act", "## Escalate"]
    assert not re.search(r"\d", prose)
    words = len(re.sub(r"^## .*$", "", prose, flags=re.MULTILINE).split())
    assert 120 <= words <= 220
    text = (SHIPPED / f"{fault.value}.md").read_text()
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("fault", Fault)
def test_a_shipped_playbook_names_only_tools_and_faults_that_exist(fault: Fault) -> None:
    prose = packaged_playbooks().get(fault).prose
    assert set(re.findall(r"`([a-z]+_[a-z]+)`", prose)) <= TOOLS | {"restart_every", "poll_less"}
    assert "`" in prose
    for name in re.findall(r"\b(?:bot|api|data|health|trading|disk|out)(?:-[a-z]+)+\b", prose):
        assert name in {known.value for known in Fault}


def test_a_tool_that_a_playbook_allows_is_in_its_prose() -> None:
    for book in packaged_playbooks():
        for tool in book.policy.actions:
            assert f"`{tool}`" in book.prose, book.path


def test_the_shipped_policies_are_what_the_faults_need() -> None:
    books = packaged_playbooks()
    assert [book.policy.fault for book in books] == list(Fault)
    actions = {fault: books.get(fault).policy.actions for fault in Fault}
    assert [fault for fault in Fault if not actions[fault]] == [
        Fault.API_KEY_REJECTED, Fault.DISK_FULL,
    ]  # fmt: skip
    assert actions[Fault.TRADING_TOO_OFTEN] == ("stop_bot",)
    assert books.get(Fault.TRADING_TOO_OFTEN).policy.mode == "auto"
    assert actions[Fault.API_RATE_LIMITED] == ("poll_less",)
    assert books.get(Fault.API_RATE_LIMITED).policy.mode == "auto"
    assert actions[Fault.DATA_CORRUPT] == ("restore_data",)
    asks = {fault for fault in Fault if actions[fault] and books.get(fault).policy.mode == "ask"}
    assert asks == {Fault.BOT_CRASH_LOOPING, Fault.HEALTH_ENDPOINT_FAILING, Fault.DATA_STALE}
    down = books.get(Fault.BOT_NOT_RUNNING).policy
    assert down.backoff == tuple(timedelta(minutes=minutes) for minutes in (0, 5, 15, 30))
    assert (down.confirm.looks, down.confirm.apart, down.max_per_day) == (2, timedelta(seconds=20), 6)
    assert (down.verify.up_for, down.verify.within) == (timedelta(seconds=10), timedelta(seconds=30))
    assert (down.reset_after, down.alert.after) == (timedelta(hours=1), timedelta(minutes=5))
    assert set(books.get(Fault.BOT_DUPLICATED).policy.backoff) == {timedelta()}
    assert books.get(Fault.DISK_FULL).policy.when.free_below == 100_000_000
    assert books.get(Fault.BOT_HUNG).policy.when.times_normal == 3


def test_the_calm_before_a_reload_need_not_be_written(workspace: Workspace) -> None:
    edit(workspace, ", calm: 2m", "", Fault.API_RATE_LIMITED)
    books = load_playbooks(workspace)
    assert books.problems == ()
    assert books.get(Fault.API_RATE_LIMITED).policy.when.calm == timedelta(minutes=2)


def test_the_shipped_playbooks_load_without_a_problem(workspace: Workspace) -> None:
    books = load_playbooks(workspace)
    assert books.problems == ()
    assert all(book.path.parent == workspace.playbooks_dir for book in books)


# --- a person's edit -----------------------------------------------------------------------------------------------


def test_an_edit_counts_from_the_next_call_on(workspace: Workspace) -> None:
    load_playbooks(workspace)
    edit(workspace, "silent_at_least: 5m", "silent_at_least: 12m")
    edit(workspace, "## Look\n", "## Look\n\nOur own hint.\n")
    book = load_playbooks(workspace).get(Fault.BOT_HUNG)
    assert book.policy.when.silent_at_least == timedelta(minutes=12)
    assert "Our own hint." in book.prose


def test_a_broken_edit_leaves_the_last_good_version_in_force(workspace: Workspace) -> None:
    edit(workspace, "max_per_day: 6", "max_per_day: 2")
    load_playbooks(workspace)
    edit(workspace, "max_per_day: 2", "max_per_day: two")
    line = line_of(workspace, "max_per_day")
    books = load_playbooks(workspace)
    assert books.get(Fault.BOT_HUNG).policy.max_per_day == 2
    assert books.problems == (
        f'{HUNG}:{line}: max_per_day: found "two"; write a whole number. The last good version is in force.',
    )
    assert books.get(Fault.BOT_HUNG).problem == books.problems[0]
    edit(workspace, "max_per_day: two", "max_per_day: 3")
    assert load_playbooks(workspace).problems == ()


def test_a_playbook_that_was_never_good_gives_way_to_the_packaged_one(workspace: Workspace) -> None:
    edit(workspace, "actions: [restart_bot]", "actions: [format_disk]")
    books = load_playbooks(workspace)
    assert books.get(Fault.BOT_HUNG).policy.actions == ("restart_bot",)
    assert books.problems[0].endswith("The packaged version is in force.")


def test_a_missing_playbook_is_replaced_by_its_last_good_version_and_said(workspace: Workspace) -> None:
    edit(workspace, "max_per_day: 6", "max_per_day: 2")
    load_playbooks(workspace)
    path_of(workspace, Fault.BOT_HUNG).unlink()
    books = load_playbooks(workspace)
    assert books.get(Fault.BOT_HUNG).policy.max_per_day == 2
    assert books.problems == (f"{HUNG}: the file is missing. The last good version is in force.",)


def test_a_missing_folder_and_a_missing_state_folder_leave_the_packaged_ones(tmp_path: Path) -> None:
    books = load_playbooks(Workspace(tmp_path))
    assert [book.policy for book in books] == [book.policy for book in packaged_playbooks()]
    assert len(books.problems) == len(Fault)
    assert not (tmp_path / ".botkeep").exists()


def test_deleting_the_state_folder_loses_no_edit(workspace: Workspace) -> None:
    edit(workspace, "max_per_day: 6", "max_per_day: 2")
    load_playbooks(workspace)
    shutil.rmtree(workspace.state_dir)
    assert load_playbooks(workspace).get(Fault.BOT_HUNG).policy.max_per_day == 2
    workspace.prepare()
    load_playbooks(workspace)
    assert len(list(workspace.kept_playbooks_dir.iterdir())) == len(Fault)


def test_a_good_version_is_kept_once_and_written_again_only_when_it_changed(workspace: Workspace) -> None:
    load_playbooks(workspace)
    kept = workspace.kept_playbooks_dir / "bot-hung.md"
    before = kept.stat()
    load_playbooks(workspace)
    assert kept.stat().st_ino == before.st_ino
    edit(workspace, "max_per_day: 6", "max_per_day: 5")
    load_playbooks(workspace)
    assert kept.stat().st_ino != before.st_ino


def test_a_damaged_last_good_version_gives_way_to_the_packaged_one(workspace: Workspace) -> None:
    load_playbooks(workspace)
    (workspace.kept_playbooks_dir / "bot-hung.md").write_text("---\nfault: bot-h")
    path_of(workspace, Fault.BOT_HUNG).write_text("")
    books = load_playbooks(workspace)
    assert books.get(Fault.BOT_HUNG).policy == packaged_playbooks().get(Fault.BOT_HUNG).policy
    assert "packaged version" in books.problems[0]


def test_a_good_version_that_cannot_be_kept_counts_all_the_same(workspace: Workspace) -> None:
    (workspace.kept_playbooks_dir / "bot-hung.md").mkdir()
    books = load_playbooks(workspace)
    assert books.get(Fault.BOT_HUNG).path == path_of(workspace, Fault.BOT_HUNG)
    assert "could not be kept" in books.problems[0]


def test_a_file_that_is_no_fault_is_said_with_the_faults(workspace: Workspace) -> None:
    (workspace.playbooks_dir / "bot-hangs.md").write_text("x")
    (workspace.playbooks_dir / "README.md").write_text("x")
    (workspace.playbooks_dir / "notes.txt").write_text("x")
    (problem,) = load_playbooks(workspace).problems
    assert problem.startswith(
        "playbooks/bot-hangs.md: there is no such fault, so it is not read; did you mean bot-hung?"
    )
    assert all(fault.value in problem for fault in Fault)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("mode: auto", "mode: sometimes", "mode: found \"sometimes\"; write 'auto' or 'ask'"),
        ("mode: auto\n", "", "mode: it is missing"),
        ("mode: auto", "moode: auto", "moode: there is no such key; did you mean mode?"),
        ("severity: critical", "severity: bad", "severity: found"),
        (
            "actions: [restart_bot]",
            "actions: [restart_bot, rm]",
            "actions[1]: found \"rm\"; write 'restart_bot', 'restore_data', 'poll_less' or 'stop_bot'",
        ),
        ("actions: [restart_bot]", "actions: restart_bot", 'actions: found "restart_bot"; write a list'),
        ("backoff: [0s, 5m, 15m, 30m]", "backoff: [0s, -5m]", 'backoff[1]: found "-5m"; write a length of time'),
        ("backoff: [0s, 5m, 15m, 30m]", "backoff: [0, 5, 15, 30]", "backoff[0]: found 0; write a length of time"),
        ("backoff: [0s, 5m, 15m, 30m]", "backoff: []", "backoff: found []; write at least one"),
        ("backoff: [0s, 5m, 15m, 30m]", "backoff: 5m", 'backoff: found "5m"; write a list'),
        ("looks: 2", "looks: 3", "confirm.looks: found 3; write 2 or less"),
        ("looks: 2", "looks: 0", "confirm.looks: found 0; write 1 or more"),
        ("looks: 2", "looks: true", "confirm.looks: found true; write a whole number"),
        ("apart: 20s", "apart: 26s", 'confirm.apart: found "26s"; write at most 25s'),
        ("within: 30s", "within: 36s", 'verify.within: found "36s"; write at most 35s'),
        ("up_for: 10s", "up_for: 31s", "write an up_for that is not longer than within"),
        ("up_for: 10s, ", "", "verify.up_for: it is missing"),
        ("max_per_day: 6", "max_per_day: -1", "max_per_day: found -1; write 1 or more"),
        ("reset_after: 60m", "reset_after: 0s", 'reset_after: found "0s"; write a length of time above 0s'),
        ("reset_after: 60m", "reset_after: 1:30", "reset_after: found 90; write a length of time"),
        ("alert: {after: 5m}", "alert: 5m", 'alert: found "5m"; write an object'),
        (
            "silent_at_least: 5m",
            "silent_atleast: 5m",
            "when.silent_atleast: there is no such key; did you mean silent_at_least?",
        ),
        (
            "times_normal: 3",
            "times_normal: 3, sleepy: 1",
            "when.sleepy: there is no such key; write one of: silent_at_l",
        ),
        ("times_normal: 3", "times_normal: -3", "when.times_normal: found -3; write 1 or more"),
        ("times_normal: 3", "times_normal: .inf", "when.times_normal"),
        ("fault: bot-hung", "fault: bot-hang", 'fault: found "bot-hang"; write bot-hung, the name of the file'),
        ("fault: bot-hung", "fault: bot-hung\nfault: bot-hung", "fault stands twice"),
        ("fault: bot-hung", "fault: [", "not YAML"),
        ("fault: bot-hung", "fault: *x", "not YAML"),
        (
            "fault: bot-hung",
            "fault: !!python/object/apply:os.system ['id']",
            "not YAML: could not determine a constructor",
        ),
        ("fault: bot-hung", "\tfault: bot-hung", "not YAML: found character"),
        ("alert: {after: 5m}", "alert: &a {after: 5m}\nextra: *a", "extra is an alias (*name)"),
    ],
)
def test_a_mistake_is_said_with_file_line_found_and_what_to_write(
    workspace: Workspace, old: str, new: str, says: str
) -> None:
    edit(workspace, old, new)
    (problem,) = load_playbooks(workspace).problems
    assert re.match(rf"{re.escape(HUNG)}:\d+: ", problem)
    assert says in problem
    assert "\n" not in problem


def test_the_line_is_the_one_with_the_mistake(workspace: Workspace) -> None:
    edit(workspace, "backoff: [0s, 5m, 15m, 30m]", "backoff:\n  - 0s\n  - 5m\n  - soon")
    (problem,) = load_playbooks(workspace).problems
    line = path_of(workspace, Fault.BOT_HUNG).read_text().splitlines().index("  - soon") + 1
    assert problem.startswith(f'{HUNG}:{line}: backoff[2]: found "soon"')


@pytest.mark.parametrize(
    ("fault", "old", "new", "says"),
    [
        (Fault.DISK_FULL, "free_below: 100MB", "free_below: 100", "when.free_below: found 100; write a size"),
        (Fault.DISK_FULL, "{free_below: 100MB}", "{}", "when.free_below: it is missing"),
        (Fault.BOT_NOT_RUNNING, "when: {}", "when: {restarts: 4}", "when.restarts: there is no such key; write none"),
        (Fault.BOT_NOT_RUNNING, "when: {}", "when: soon", 'when: found "soon"; write an object'),
        (Fault.HEALTH_ENDPOINT_FAILING, "answer_within: 3s", "answer_within: 30s", "write at most 10s"),
        (Fault.BOT_CRASH_LOOPING, "restarts: 4", "restarts: 0", "when.restarts: found 0; write 1 or more"),
        (Fault.TRADING_TOO_OFTEN, "at_least: 12", "at_least: many", 'when.at_least: found "many"'),
        (Fault.API_RATE_LIMITED, "wait: 10m", "wait: 0s", 'when.wait: found "0s"'),
        (Fault.API_RATE_LIMITED, "calm: 2m", "calm: 2", "when.calm: found 2"),
        (Fault.DATA_STALE, "quiet_at_least: 6h", "quiet_at_least: 6", "when.quiet_at_least: found 6"),
    ],
)
def test_thresholds_are_typed_by_fault(workspace: Workspace, fault: Fault, old: str, new: str, says: str) -> None:
    edit(workspace, old, new, fault)
    (problem,) = load_playbooks(workspace).problems
    assert f":{line_of(workspace, 'when', fault)}: " in problem
    assert says in problem


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ':1: found ""; write the front matter'),
        (b"# Bot hung\n", ":1: found"),
        (b"---\nfault: bot-hung\n", ":1: the front matter has no end"),
        (b"---\n---\n", ":1: found null; write the keys"),
        (b"---\n- a\n---\n", ':1: found ["a"]; write the keys'),
        (b"---\nfault: \xff\n---\n", ":2: not UTF-8"),
        (b"---\nfault: \0\n---\n", ":1: not YAML"),
        (b"---\nx: " + b"[" * 15_000 + b"\n---\n", "not YAML"),
        (b"---\nx: " + b"[" * 7_000 + b"]" * 7_000 + b"\n---\n", "nested too deep"),
        (b"---\n" + b"- " * 8_000 + b"\n---\n", "nested too deep"),
        (b"---\n#" + b"x" * 20_000 + b"\n---\n", "a front matter of"),
        (b"---\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\n", ":3: b[0] is an alias"),
        (b"x" * (2 << 20), "more than"),
    ],
    ids=range(13),
)
def test_whatever_the_file_holds_the_fleet_has_its_policy(workspace: Workspace, content: bytes, says: str) -> None:
    path_of(workspace, Fault.BOT_HUNG).write_bytes(content)
    found: list[Playbooks] = []
    worker = threading.Thread(target=lambda: found.append(load_playbooks(workspace)))  # as the server does
    worker.start()
    worker.join(10)
    (problem,) = found[0].problems
    assert says in problem
    assert "\n" not in problem
    assert found[0].get(Fault.BOT_HUNG).policy.max_per_day == 6


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _zero(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _open_to_all(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.parametrize("spoil", [_fifo, _folder, _zero, _open_to_all])
def test_what_no_playbook_may_be_is_refused_at_once(workspace: Workspace, spoil: Callable[[Path], None]) -> None:
    spoil(path_of(workspace, Fault.BOT_HUNG))
    books = load_playbooks(workspace)
    assert len(books.problems) == 1
    assert books.get(Fault.BOT_HUNG).policy.max_per_day == 6


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(workspace: Workspace) -> None:
    path = path_of(workspace, Fault.BOT_HUNG)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    books = load_playbooks(workspace)
    assert books.problems == ()
    assert "\r" not in books.get(Fault.BOT_HUNG).prose


def test_a_rule_in_the_prose_does_not_end_the_front_matter() -> None:
    data = (SHIPPED / "bot-hung.md").read_bytes() + b"\n---\n\nmore\n"
    _, prose = parse_playbook(data, Fault.BOT_HUNG, HUNG)
    assert prose.startswith("## Look")
    assert prose.endswith("---\n\nmore\n")


def test_a_playbook_without_prose_is_a_policy_all_the_same() -> None:
    head = (SHIPPED / "bot-hung.md").read_text().split("\n## Look")[0].rstrip()
    assert parse_playbook(head.encode(), Fault.BOT_HUNG, HUNG)[0].fault is Fault.BOT_HUNG


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.integers(0, 400),
    st.integers(0, 40),
    st.text(alphabet=":[]{}-&*!|>'\"#%@,. \t\nabs05mx?<~", max_size=12) | st.text(max_size=6),
)
def test_any_slip_of_the_hand_is_a_policy_or_a_problem_with_a_line(at: int, cut: int, typed: str) -> None:
    text = (SHIPPED / "bot-hung.md").read_text()
    slipped = (text[:at] + typed + text[at + cut :]).encode("utf-8", "surrogatepass")
    said = ""
    try:
        policy, _ = parse_playbook(slipped, Fault.BOT_HUNG, HUNG)
        assert policy.fault is Fault.BOT_HUNG
    except PlaybookError as error:
        said = str(error)
    assert not said or re.match(rf"{re.escape(HUNG)}:\d+: .", said)
    assert "\n" not in said


def test_loading_the_twelve_is_cheap_enough_for_every_call(workspace: Workspace) -> None:
    load_playbooks(workspace)
    started = time.process_time()
    for _ in range(5):
        load_playbooks(workspace)
    assert (time.process_time() - started) / 5 < 0.05
