"""The workspace's history in git: after a round that acted, memory/ and playbooks/ are committed, and nothing else.

What a person has staged stays staged and uncommitted; nothing asks for a pass phrase, runs a hook or talks to a
network, and a git that hangs is ended.
"""

from __future__ import annotations

import os
import shutil
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
NAME, EMAIL = "botkeep", "botkeep@localhost"
QUIET = (
    "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "core.fsmonitor=false", "-c", "gc.auto=0",
    "-c", "maintenance.auto=false", "-c", "core.editor=true",
)  # fmt: skip
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
    if _git(home, "rev-parse", "--is-inside-work-tree").stdout.strip() != "true":
        return ""
    paths = [path for path in PATHS if (home / path).is_dir() and not (home / path).is_symlink()]
    new = _named(home, "ls-files", "--others", "--exclude-standard", "-z", "--", *paths) if paths else []
    changed = [*new, *_known_and_changed(home, paths)] if paths else []
    if not changed:
        return ""
    if new and (problem := _failure(_git(home, "add", "--intent-to-add", "--", *new))):
        return problem
    words = ("commit", "--quiet", "--no-verify", "--only", "-m", message(sentences), "--", *changed)
    problem = _failure(_git(home, *_who(home), *words))
    if problem and new:
        _git(home, "rm", "--cached", "--quiet", "--", *new)  # not even that we meant to add them stays behind
    return problem


def _known_and_changed(home: Path, paths: Sequence[str]) -> list[str]:
    """Files that git has, and that are others than in the newest commit; all of them before the first one."""
    if _git(home, "rev-parse", "--verify", "--quiet", "HEAD").returncode:
        return _named(home, "ls-files", "-z", "--", *paths)
    return _named(home, "diff", "--name-only", "--no-renames", "--relative", "-z", "HEAD", "--", *paths)


def _named(home: Path, *words: str) -> list[str]:
    return [path for path in _git(home, *words).stdout.split("\0") if path]


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
    """One question. Raises OSError, TimeoutExpired."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {
        **kept, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_LITERAL_PATHSPECS": "1", "LC_ALL": "C",
        "GIT_ASKPASS": "true", "SSH_ASKPASS": "true",
    }  # fmt: skip
    return subprocess.run(
        [GIT or "git", *QUIET, *words], cwd=home, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, errors="replace", timeout=SECONDS, check=False, start_new_session=True,
    )  # fmt: skip
