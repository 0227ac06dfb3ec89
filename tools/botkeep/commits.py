"""The workspace's history in git: after a round that acted, memory/ and playbooks/ are committed, and nothing else.

What a person has staged stays staged and uncommitted; nothing asks for a pass phrase, runs a hook or talks to a
network, and a git that hangs is ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .durable import Lock
from .model import EngineError
from .untrusted import clean
from .workspace import Workspace

GIT = shutil.which("git")
PATHS = ("memory", "playbooks")
SECONDS = 10.0
"""For each question to git."""
CLEANING_UP = 3.0
"""Seconds that a git which took too long has to remove its locks: one left behind would stop the person's own git."""
NAME, EMAIL = "botkeep", "botkeep@localhost"
QUIET = (
    "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "core.fsmonitor=false", "-c", "gc.auto=0",
    "-c", "maintenance.auto=false", "-c", "core.editor=true",
)  # fmt: skip
UNDER_WAY = {
    "MERGE_HEAD": "merge", "CHERRY_PICK_HEAD": "cherry-pick", "REVERT_HEAD": "revert", "rebase-merge": "rebase",
    "rebase-apply": "rebase", "BISECT_LOG": "bisect",
}  # fmt: skip
"""Files of git's own folder, and which work of a person they stand for."""
TITLE = 72
"""Characters of a message's first line."""


def commit(workspace: Workspace, sentences: Sequence[str]) -> str:
    """Commit what changed in memory/ and playbooks/, with what was done as the message.

    Gives why it could not, one sentence; empty: it is committed, or nothing changed, or this is no git repository.
    """
    home = workspace.home
    if GIT is None:
        return '"commit" is set in config/bots.json, and there is no git on this machine.'
    with Lock(workspace.state_dir / "commit.lock") as lock:
        with suppress(EngineError):
            lock.acquire(wait=SECONDS)
        try:
            return _commit(home, sentences)
        except subprocess.TimeoutExpired:
            return f"git did not answer within {SECONDS:.0f} s; nothing was committed."
        except OSError as error:
            return f"git cannot be run: {error.strerror}; nothing was committed."


def _commit(home: Path, sentences: Sequence[str]) -> str:
    where = _git(home, "rev-parse", "--is-inside-work-tree")
    if where.stdout.strip() != "true":
        return _failure(where) if "not a git repository" not in where.stderr else ""
    paths = [path for path in PATHS if (home / path).is_dir() and not (home / path).is_symlink()]
    new = _named(home, "ls-files", "--others", "--exclude-standard", "-z", "--", *paths) if paths else []
    changed = [*new, *_known_and_changed(home, paths)] if paths else []
    if not changed:
        return ""
    if why := _hindered(home):
        return f"memory/ and playbooks/ were not committed: {why}"
    return _commit_these(home, new, changed, message(sentences))


def _commit_these(home: Path, new: Sequence[str], changed: Sequence[str], said: str) -> str:
    """All of them or none; of what fails not even that we meant to add something stays behind."""
    committed = False
    try:
        problem = _failure(_git(home, "add", "--intent-to-add", "--", *new)) if new else ""
        if not problem:
            words = ("commit", "--quiet", "--no-verify", "--only", "-m", said, "--", *changed)
            problem = _failure(_git(home, *_who(home), *words))
            committed = not problem
    finally:
        if new and not committed:
            _git(home, "update-index", "--force-remove", "--", *new)  # asks no filter, which may be what hangs
    return problem


def _hindered(home: Path) -> str:
    """What a person is in the middle of: a commit there would become part of it, or be lost with it."""
    words = [word for name in UNDER_WAY for word in ("--git-path", name)]
    files = _git(home, "rev-parse", *words).stdout.splitlines()
    for file, what in zip(files, UNDER_WAY.values(), strict=False):
        if (home / file).exists():
            return f"a {what} is under way in this repository. When it is ended, the next round that acts commits them."
    if _git(home, "symbolic-ref", "--quiet", "HEAD").returncode:
        return "no branch is checked out (detached HEAD), so the commit would be lost: `git switch BRANCH`."
    return ""


def _known_and_changed(home: Path, paths: Sequence[str]) -> list[str]:
    """Files that git has, and that are others than in the newest commit; all of them before the first one."""
    if _git(home, "rev-parse", "--verify", "--quiet", "HEAD").returncode:
        return _named(home, "ls-files", "-z", "--", *paths)
    words = ("diff", "--name-only", "--no-renames", "--ignore-submodules=all", "--relative", "-z", "HEAD", "--")
    return _named(home, *words, *paths)


def _named(home: Path, *words: str) -> list[str]:
    """Files; a folder is a repository of its own, whose history is somebody else's."""
    return [path for path in _git(home, *words).stdout.split("\0") if path and not path.endswith("/")]


def _who(home: Path) -> list[str]:
    """botkeep's own name, where nobody has told git another one."""
    known = all(_git(home, "config", "--get", key).stdout.strip() for key in ("user.name", "user.email"))
    return [] if known else ["-c", f"user.name={NAME}", "-c", f"user.email={EMAIL}"]


def message(sentences: Sequence[str]) -> str:
    """The first sentence as the title, cut at 72 characters; all of them below where that is not all."""
    said = [clean(one, 500) for one in sentences] or ["botkeep: a round"]
    title = said[0] if len(said[0]) <= TITLE else said[0][: TITLE - 3].rstrip() + "..."
    return title if title == said[0] and len(said) == 1 else "\n\n".join([title, "\n".join(said)])


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == 0:
        return ""
    said = clean((done.stderr or done.stdout).strip().replace("\n", " "), 200)
    return f"memory/ and playbooks/ were not committed: git says: {said or f'exit code {done.returncode}'}"


def _git(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """One question. Raises OSError, and TimeoutExpired when git and all that it started are ended."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {
        **kept, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_LITERAL_PATHSPECS": "1", "LC_ALL": "C",
        "GIT_ASKPASS": "true", "SSH_ASKPASS": "true",
    }  # fmt: skip
    with subprocess.Popen(
        [GIT or "git", *QUIET, *words], cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
    ) as git:  # fmt: skip
        try:
            out, err = git.communicate(timeout=SECONDS)
        except BaseException:
            _end(git)
            raise
    return subprocess.CompletedProcess(git.args, git.returncode, out, err)


def _end(git: subprocess.Popen[str]) -> None:
    """With what it started (a filter that hangs), which is of its own session; killed only if it does not end."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(git.pid, number)
        with suppress(subprocess.TimeoutExpired):
            git.wait(CLEANING_UP)
