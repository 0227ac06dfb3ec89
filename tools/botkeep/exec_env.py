"""`python -I -m botkeep.exec_env [--lock FILE] [--env-file FILE] -- COMMAND...`: what an engine starts a bot by.

The bot takes this program's place, with its pid. Its keys come from its env file, so that they stand in no engine's
configuration; and it holds its lock, so that a second copy is not started while this one, or what it left, lives:
kill -9 of supervisord and a normal start make two of every program otherwise.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .durable import Lock
from .envfile import load_env_file
from .model import BotkeepError

LOCK_SECONDS = 3.0
"""What a copy that is just ending may take."""
LOCKED = 75
"""What it ends with when another copy lives."""
WRONG = 78
NOT_FOUND = 127
NOT_EXECUTED = 126
MARKER = "BOTKEEP_INSTANCE"
USAGE = "python -m botkeep.exec_env [--lock FILE] [--env-file FILE] -- COMMAND..."
_OPTIONS = ("--lock", "--env-file")


def main(words: Sequence[str]) -> NoReturn:
    """Become the command. Ends with a code of its own, and one line, where that cannot be."""
    options, command = _parse(words)
    given = dict(os.environ)
    try:
        if "--env-file" in options:
            given |= load_env_file(Path(options["--env-file"]))
        if "--lock" in options:
            given[MARKER] = _locked(Path(options["--lock"]))
    except BotkeepError as error:
        _end(WRONG, str(error))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and what is ignored stays so
    try:
        os.execvpe(command[0], command, given)  # noqa: S606 - the configured command, and no shell
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTED
        _end(code, f"{command[0]}: {error.strerror}")


def _parse(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    left = list(words)
    while len(left) > 1 and left[0] in _OPTIONS:
        options[left[0]] = left[1]
        del left[:2]
    if len(left) < 2 or left[0] != "--":
        _end(WRONG, f"write {USAGE}")
    return options, left[1:]


def _locked(path: Path) -> str:
    """Hold the lock for as long as the bot lives; gives what its processes are known by."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        _end(WRONG, f"{path.parent} cannot be made: {error.strerror}")
    lock = Lock(path)
    if not lock.acquire(LOCK_SECONDS) or lock.fd is None:
        _end(LOCKED, f"not started: another copy of it is alive, and holds {path}. `botkeep restart` ends it first.")
    os.set_inheritable(lock.fd, True)
    status = os.fstat(lock.fd)
    return f"{status.st_dev}:{status.st_ino}:{path.parent.name}"


def _end(code: int, text: str) -> NoReturn:
    print(f"botkeep: {text}", file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
