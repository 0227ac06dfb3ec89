"""A store in a folder of this machine: botkeep's own, or one that the configuration names.

A configured folder is often a disk of its own, which may be unplugged, unmounted, or hang. So it is known by an id that
is written into it and remembered in the workspace: where the folder was and is not, or is another one, nothing is made
anew. And it is asked in a child process with a deadline before it is used: a hung mount stops the child, not a round.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..durable import Lock, fsync_dir, read_json, write_atomic
from ..model import EngineError, StoreError
from .base import StoredObject, Workplace, require_key, seen

KEEP_FREE = 1 << 30
"""Bytes of disk that a backup leaves alone: a full disk is worse than an old backup."""
ANSWER = 5.0
"""Seconds in which a configured folder has to answer."""
ASK_AGAIN = 10.0
"""Seconds for which an answer holds: a mount can hang at any time, and then only a child process may wait for it."""
MARK = "store.json"


class LocalStore(Workplace):
    """A folder of this machine."""

    name = "local"

    def __init__(self, root: Path, keep_free: int = KEEP_FREE, work: Path | None = None) -> None:
        super().__init__(work or root)
        self.root = root
        self._keep_free = keep_free

    def ready(self) -> None:
        """Raises StoreError if the folder is not to be used now."""

    def put(self, key: str, data: bytes) -> None:
        """Temporary file, fsync, rename, fsync of the folder; mode 0400."""
        path = self._path(key)
        try:
            _make_folders(path.parent, self.root)
            write_atomic(path, data, 0o400)
        except OSError as error:
            raise self._trouble("written", error) from error

    def get(self, key: str) -> bytes | None:
        """The bytes, or None."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._trouble("read", error) from error

    def list(self, prefix: str) -> Sequence[StoredObject]:
        """Every key under the folder `prefix`."""
        self.ready()
        return sorted(
            StoredObject(str(path.relative_to(self.root)), found.st_size, found.st_mtime)
            for path, found in self._files(prefix)
            if not path.name.startswith(".")
        )

    def _files(self, prefix: str) -> Iterator[tuple[Path, os.stat_result]]:
        """Every file under the folder; one that a backup renames or removes meanwhile is passed over."""
        try:
            if not (self.root / prefix).exists():
                return
            for folder, _, names in os.walk(self.root / prefix, onerror=_raise):
                for path in (Path(folder) / name for name in names):
                    if (found := seen(path)) is not None:
                        yield path, found
        except OSError as error:
            raise self._trouble("listed", error) from error

    def delete(self, key: str) -> None:
        """Durably."""
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
            fsync_dir(path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._trouble("cleaned up", error) from error

    def require_room(self, size: int) -> None:
        """Twice the size, and never the last gibibyte."""
        self.ready()
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self.root).free
        except OSError as error:
            raise self._trouble("used", error) from error
        needed = max(self._keep_free, 2 * size)
        if free < needed:
            raise StoreError(
                f"The disk of the backup store {self.root} has {free / 1e6:.0f} MB free, and a backup leaves at least "
                f"{needed / 1e6:.0f} MB: nothing was stored. Free some space there."
            )

    def tidy(self, bot: str, before: float) -> None:
        """Half-written objects and manifests of the bot, and folders in the scratch folder."""
        self.ready()
        for prefix in (f"objects/{bot}", f"manifests/{bot}"):
            for path, found in tuple(self._files(prefix)):
                if found.st_mtime < before and path.name.startswith("."):
                    path.unlink(missing_ok=True)
        self.tidy_scratch(before)

    def _path(self, key: str) -> Path:
        require_key(key)
        self.ready()
        return self.root / key

    def _trouble(self, verb: str, error: OSError) -> StoreError:
        return StoreError(f"The backup store {self.root} cannot be {verb}: {error.strerror or error}.")


def _raise(error: OSError) -> None:
    raise error


def _make_folders(folder: Path, root: Path) -> None:
    """As mkdir -p, each new name made durable: a file in a folder that a power cut forgot is lost as well."""
    if folder.is_dir():
        return
    missing = [one for one in (folder, *folder.parents) if one.is_relative_to(root) and not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)
        fsync_dir(one.parent)


# --- a configured folder -----------------------------------------------------------------------------------------


class FolderStore(LocalStore):
    """The folder that the configuration names. `state`: the workspace's own folder, on a disk that always answers."""

    def __init__(self, root: Path, state: Path, keep_free: int = KEEP_FREE, answer: float = ANSWER) -> None:
        super().__init__(root, keep_free, work=state / "store")
        self._state, self._answer = state, answer
        self._asked = float("-inf")
        self._known = (0, 0)
        """(dev, ino) of the mark when the folder was asked."""
        self._trouble_said = ""

    def ready(self) -> None:
        """Raises StoreError if the folder is gone, is another one, or does not answer in time.

        What was found wrong once holds for the life of this object: a hung disk must not be waited for bot by bot.
        """
        if self._trouble_said:
            raise StoreError(self._trouble_said)
        try:
            if time.monotonic() - self._asked > ASK_AGAIN:
                self._ask()
            elif self._mark_now() != self._known:
                self._vanished("it was there a moment ago, and is not any more")
        except StoreError as error:
            self._trouble_said = str(error)
            raise

    def _ask(self) -> None:
        told = _answer_of(self.root, self._state, self._answer)
        known = self._remembered()
        if not told["there"] and known:
            self._vanished("there is no such folder now")
        if told["error"]:
            raise StoreError(f"The backup folder {self.root} cannot be used: {told['error']}. Mend that and ask again.")
        if told["id"] is None and known:
            self._vanished("the folder that is there now has no backups of ours in it")
        if told["id"] and known and told["id"] != known:
            self._vanished("the folder that is there now is another store")
        if told["id"] is None:
            self._begin(told)
        elif not known:
            self._remember(told["id"])
        self._known, self._asked = self._mark_now(), time.monotonic()

    def _vanished(self, what: str) -> None:
        raise StoreError(
            f"The backup folder {self.root} is not where the backups were: {what}. Mount the disk, or mend "
            f"backup.folder in config/bots.json. If its backups are lost for good, remove {self._memory}, and botkeep "
            f"begins a new store there."
        )

    def _begin(self, told: dict[str, Any]) -> None:
        """The first use of a folder: an empty one, or one that holds a store that was copied there."""
        if not told["there"] and not told["parent"]:
            raise StoreError(f"There is no folder {self.root.parent}: make it, or mount it, and ask again.")
        if told["strange"]:
            raise StoreError(
                f"The backup folder {self.root} holds something else ({told['strange']!r}): name an empty folder as "
                f"backup.folder in config/bots.json."
            )
        made = uuid.uuid4().hex
        try:
            self.root.mkdir(mode=0o700, exist_ok=True)
            write_atomic(self.root / MARK, json.dumps({"id": made}).encode(), 0o400)
        except OSError as error:
            raise self._trouble("used", error) from error
        self._remember(made)

    @property
    def _memory(self) -> Path:
        return self._state / "stores.json"

    def _remembered(self) -> str:
        return str((read_json(self._memory) or {}).get(str(self.root)) or "")

    def _remember(self, found: str) -> None:
        try:
            self._state.mkdir(mode=0o700, exist_ok=True)
            known = {**(read_json(self._memory) or {}), str(self.root): found}
            write_atomic(self._memory, json.dumps(known, indent=1).encode())
        except OSError as error:
            raise StoreError(f"{self._memory} cannot be written: {error.strerror or error}.") from error

    def _mark_now(self) -> tuple[int, int]:
        try:
            found = (self.root / MARK).stat()
        except OSError:
            return (0, 0)
        return found.st_dev, found.st_ino


_ASK = """
import errno, json, os, sys
root, mark = sys.argv[1], os.path.join(sys.argv[1], "store.json")
told = {"there": False, "parent": os.path.isdir(os.path.dirname(root)), "id": None, "error": "", "strange": ""}
try:
    os.stat(root)
    told["there"] = True
    names = os.listdir(root)
    if "store.json" in names:
        with open(mark) as file:
            told["id"] = str(json.loads(file.read(4096))["id"])
    elif names and "manifests" not in names:
        told["strange"] = sorted(names)[0][:60]
except FileNotFoundError:
    pass
except OSError as error:
    told["there"], told["error"] = error.errno not in (errno.ENOTCONN, errno.ENODEV), os.strerror(error.errno)
except (ValueError, KeyError, TypeError):
    told["error"] = "its store.json is damaged"
print(json.dumps(told))
"""
_stuck: list[subprocess.Popen[str]] = []
"""Children that not even SIGKILL ends while the mount hangs; kept until they can be reaped."""


def _answer_of(root: Path, state: Path, wait: float) -> dict[str, Any]:
    """What a child process sees of the folder. Raises StoreError if it does not come back in time.

    The child holds a lock for as long as it lives: of all that ask for a hung folder, one process at most hangs.
    """
    _stuck[:] = [one for one in _stuck if one.poll() is None]
    slow = StoreError(
        f"The backup folder {root} did not answer within {wait:g} s: the disk or the server behind it hangs. Nothing "
        f"was stored there. Mend the mount (see `dmesg` and `mount`), then: botkeep backup"
    )
    try:
        state.mkdir(mode=0o700, exist_ok=True)
        lock = Lock(state / "store-asked.lock")
        if not lock.acquire(wait):
            raise slow
    except (OSError, EngineError) as error:
        raise StoreError(f"The backup folder {root} cannot be asked: {error}") from error
    with lock:
        return _ask_child(root, wait, lock.fd, slow)


def _ask_child(root: Path, wait: float, held: int | None, slow: StoreError) -> dict[str, Any]:
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _ASK, str(root)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd="/",
        pass_fds=() if held is None else (held,),
    )  # fmt: skip
    try:
        said, _ = child.communicate(timeout=wait)
        told: dict[str, Any] = json.loads(said)
    except subprocess.TimeoutExpired:
        child.kill()
        _reap(child)
        raise slow from None
    except ValueError as error:
        raise StoreError(f"The backup folder {root} could not be looked at. Ask again.") from error
    return told


def _reap(child: subprocess.Popen[str]) -> None:
    """A process that waits for a hung disk may not die: it is not waited for."""
    try:
        child.wait(0.2)
    except subprocess.TimeoutExpired:
        _stuck.append(child)
    if child.stdout is not None:
        child.stdout.close()
