"""`"commit": true`: a round that acted commits memory/ and playbooks/, and nothing else. A real git, real bots."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from botkeep import commits
from botkeep.model import Actor
from support.fleet import Fleet, alive, entry, fleet, wait_for
from support.watcher import watching


def git(home: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=home, capture_output=True, text=True, check=True, env=clean_environment()
    )
    return done.stdout


def clean_environment() -> dict[str, str]:
    return {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


@pytest.fixture
def bots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with fleet(tmp_path / "w", entry("doge")) as found:
        (found.home / "config/schedule.json").unlink()
        file = found.home / "config/bots.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "commit": True}))
        git(found.home, "init", "--quiet")
        git(
            found.home, "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", "begin"
        )
        yield found


def committed(home: Path) -> set[str]:
    return set(git(home, "show", "--name-only", "--format=", "HEAD").split())


def crash(found: Fleet) -> str:
    """Kill the bot, have a round restart it; the round's sentence."""
    found.kill(int(found.verdict().pid or 0) or found.up())
    (action,) = found.desk(Actor.ROUND).round().actions
    return action.sentence


def test_a_round_that_acted_commits_the_journal_and_the_playbooks_with_its_sentence(bots: Fleet) -> None:
    bots.up()
    (bots.home / "mine.txt").write_text("staged")
    git(bots.home, "add", "mine.txt")
    sentence = crash(bots)
    assert all(path.startswith(("memory/", "playbooks/")) for path in committed(bots.home))
    assert "memory/bot-operations.md" in committed(bots.home)
    assert sentence in git(bots.home, "log", "-1", "--format=%B")
    assert git(bots.home, "log", "-1", "--format=%an <%ae>").strip() == "botkeep <botkeep@localhost>"
    assert git(bots.home, "diff", "--cached", "--name-only").split() == ["mine.txt"]
    assert git(bots.home, "status", "--porcelain", "--", "memory", "playbooks") == ""


def test_a_round_in_which_nothing_was_done_commits_nothing(bots: Fleet) -> None:
    bots.up()
    before = git(bots.home, "rev-parse", "HEAD")
    bots.desk(Actor.ROUND).round()
    assert git(bots.home, "rev-parse", "HEAD") == before


def test_a_persons_own_name_is_kept_and_neither_hooks_nor_keys_stop_it(bots: Fleet) -> None:
    for key, value in (("user.name", "Ada"), ("user.email", "ada@x.org"), ("commit.gpgSign", "true")):
        git(bots.home, "config", key, value)
    for hook in ("pre-commit", "commit-msg", "post-commit"):
        path = bots.home / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\ntouch hooked\nexit 1\n")
        path.chmod(0o755)
    bots.up()
    crash(bots)
    assert git(bots.home, "log", "-1", "--format=%an").strip() == "Ada"
    assert "memory/bot-operations.md" in committed(bots.home)
    assert not (bots.home / "hooked").exists()


def test_what_git_ignores_and_what_lies_elsewhere_is_never_added(bots: Fleet) -> None:
    (bots.home / ".gitignore").write_text("memory/private.md\n")
    (bots.home / "memory/private.md").write_text("mine")
    (bots.home / ".env").write_text("KEY=1")
    bots.up()
    crash(bots)
    tracked = git(bots.home, "ls-files").split()
    assert all(path.startswith(("memory/", "playbooks/")) for path in tracked)
    assert "memory/private.md" not in tracked


def test_a_workspace_in_a_part_of_a_repository_and_one_without_a_commit(tmp_path: Path, bots: Fleet) -> None:
    git(tmp_path, "init", "--quiet", "outer")
    with fleet(tmp_path / "outer/part", entry("doge")) as inner:
        assert commits.commit(inner.workspace, ["done"]) == ""
        names = git(tmp_path / "outer", "show", "--name-only", "--format=", "HEAD").split()
        assert names
        assert all(name.startswith(("part/memory/", "part/playbooks/")) for name in names)
        (inner.home / "playbooks/bot-hung.md").unlink()
        assert commits.commit(inner.workspace, ["removed"]) == ""
        assert "part/playbooks/bot-hung.md" in git(tmp_path / "outer", "show", "--name-only", "--format=", "HEAD")


def test_outside_of_a_repository_nothing_is_made_and_nothing_said(tmp_path: Path) -> None:
    with fleet(tmp_path / "plain", entry("doge")) as found:
        assert commits.commit(found.workspace, ["done"]) == ""
        assert not (found.home / ".git").exists()


def test_what_keeps_git_from_committing_is_said_and_leaves_the_index_as_it_was(bots: Fleet) -> None:
    (bots.home / ".git/index.lock").touch()
    assert "git says: fatal: Unable to create" in commits.commit(bots.workspace, ["x"])
    (bots.home / ".git/index.lock").unlink()
    assert git(bots.home, "diff", "--cached", "--name-only") == ""


def test_a_git_that_hangs_is_ended(bots: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nsleep 100\n")
    slow.chmod(0o755)
    monkeypatch.setattr(commits, "GIT", str(slow))
    monkeypatch.setattr(commits, "SECONDS", 0.5)
    began = time.monotonic()
    assert "did not answer" in commits.commit(bots.workspace, ["x"])
    assert time.monotonic() - began < 5


def as_ada(home: Path, *words: str) -> str:
    """A person's own git."""
    return git(home, "-c", "user.name=Ada", "-c", "user.email=ada@x.org", *words)


def test_a_filter_that_hangs_is_ended_with_its_git_and_leaves_no_lock_behind(
    bots: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "filter.pid"
    git(bots.home, "config", "filter.slow.clean", f"sh -c 'echo $$ > {mark}; exec sleep 100'")
    (bots.home / ".gitattributes").write_text("memory/* filter=slow\n")
    monkeypatch.setattr(commits, "SECONDS", 1.0)
    assert "did not answer" in commits.commit(bots.workspace, ["x"])
    wait_for(lambda: not alive(int(mark.read_text())))
    assert not (bots.home / ".git/index.lock").exists()
    assert git(bots.home, "diff", "--name-only") == git(bots.home, "ls-files") == ""
    assert len(git(bots.home, "log", "--format=%h").split()) == 1


def test_a_commit_is_no_part_of_what_a_person_is_in_the_middle_of(bots: Fleet) -> None:
    assert commits.commit(bots.workspace, ["all"]) == ""
    bots.edit("bot-hung", "max_per_day: 6", "max_per_day: 5")
    for path, what in [("MERGE_HEAD", "merge"), ("REVERT_HEAD", "revert"), ("rebase-merge", "rebase")]:
        head = git(bots.home, "rev-parse", "HEAD")
        (bots.home / ".git" / path).write_text(head)
        said = commits.commit(bots.workspace, ["x"])
        assert said.startswith(f"memory/ and playbooks/ were not committed: a {what} is under way")
        assert git(bots.home, "rev-parse", "HEAD") == head
        (bots.home / ".git" / path).unlink()
    assert commits.commit(bots.workspace, ["x"]) == ""
    assert committed(bots.home) == {"playbooks/bot-hung.md"}


def test_a_real_rebase_that_stopped_at_a_conflict_stays_as_it_is(bots: Fleet) -> None:
    for branch in ("one", "two"):
        git(bots.home, "switch", "--quiet", "-c", branch, "HEAD" if branch == "one" else "one~1")
        (bots.home / "mine.txt").write_text(branch)
        git(bots.home, "add", "mine.txt")
        as_ada(bots.home, "commit", "--quiet", "-m", branch)
    stopped = subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@b", "rebase", "one"], cwd=bots.home,
                             capture_output=True, env=clean_environment(), check=False)  # fmt: skip
    assert stopped.returncode
    before = git(bots.home, "status", "--porcelain=v2", "--branch")
    assert "a rebase is under way" in commits.commit(bots.workspace, ["x"])
    assert git(bots.home, "status", "--porcelain=v2", "--branch") == before


def test_without_a_branch_a_commit_would_be_lost_and_is_not_made(bots: Fleet) -> None:
    git(bots.home, "checkout", "--quiet", "--detach")
    bots.up()
    bots.kill(int(bots.verdict().pid or 0))
    report = bots.desk(Actor.ROUND).round()
    assert report.actions[0].ok
    (said,) = [one for one in report.problems if "not committed" in one]
    assert said.endswith("no branch is checked out (detached HEAD), so the commit would be lost: `git switch BRANCH`.")
    assert len(git(bots.home, "log", "--format=%h").split()) == 1


def test_a_repository_inside_of_playbooks_or_memory_has_its_own_history(bots: Fleet) -> None:
    inner = bots.home / "playbooks/shared"
    inner.mkdir()
    git(inner, "init", "--quiet")
    (inner / "own.md").write_text("theirs")
    git(inner, "add", "own.md")
    as_ada(inner, "commit", "--quiet", "-m", "theirs")
    assert commits.commit(bots.workspace, ["x"]) == ""
    assert not any("shared" in path for path in committed(bots.home))
    git(bots.home, "-c", "advice.addEmbeddedRepo=false", "add", "playbooks/shared")
    as_ada(bots.home, "commit", "--quiet", "-m", "as a submodule")
    (inner / "own.md").write_text("edited")
    bots.edit("bot-hung", "max_per_day: 6", "max_per_day: 5")
    assert commits.commit(bots.workspace, ["y"]) == ""
    assert committed(bots.home) == {"playbooks/bot-hung.md"}
    assert commits.commit(bots.workspace, ["z"]) == ""


def test_a_repository_that_git_refuses_is_said(bots: Fleet) -> None:
    (bots.home / ".git/config").write_text("[core\n")
    assert "git says: fatal: bad config line 1" in commits.commit(bots.workspace, ["x"])


def test_the_watcher_commits_too(bots: Fleet) -> None:
    first = bots.up()
    with watching(bots.home) as watcher:
        watcher.said("watching ")
        bots.kill(first)
        watcher.said("done: doge was restarted")
    assert "doge was restarted" in git(bots.home, "log", "-1", "--format=%s")


@pytest.mark.parametrize(
    ("said", "title"),
    [
        (["doge was restarted."], "doge was restarted."),
        (["x" * 100], "x" * 69 + "..."),
        ([], "botkeep: a round"),
        (["a\nb\x1b[31m"], "a\\nb"),
    ],
)
def test_the_first_line_of_a_message_is_short(said: list[str], title: str) -> None:
    assert commits.message(said).splitlines()[0] == title
