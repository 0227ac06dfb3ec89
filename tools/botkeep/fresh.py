"""Fleet and playbooks as they are on disk, read again only when a file changed: for whoever looks all day long.

A broken edit of bots.json is no reason to leave the bots alone: the last good fleet stays in force, and is said to.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .config import Fleet, load_fleet
from .model import ConfigError
from .playbooks import Playbooks, load_playbooks
from .workspace import Workspace

Mark = tuple[tuple[str, int, int, int, int], ...]
"""(name, inode, size, time of the last write in ns, of the last change of its rights) of each file."""


@dataclass(frozen=True)
class Rules:
    """What is in force. `problem`: why that is not what stands in bots.json now."""

    fleet: Fleet
    playbooks: Playbooks
    problem: str = ""


class Fresh:
    """Reads a workspace's rules; safe for threads."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._fleet_mark: Mark | None = None
        self._books_mark: Mark | None = None
        self._rules: Rules | None = None

    def read(self) -> Rules:
        """The rules in force now. Raises ConfigError if bots.json is broken and never was good."""
        with self._lock:
            rules = self._with_books(self._with_fleet())
            self._rules = rules
            return rules

    def _with_fleet(self) -> Rules:
        mark = _mark([self._workspace.bots_file])
        known = self._rules
        if known is not None and mark == self._fleet_mark:
            return known
        try:
            fleet = load_fleet(self._workspace)
        except ConfigError as error:
            if known is None:
                raise
            self._fleet_mark = mark
            return Rules(known.fleet, known.playbooks, f"{error} The last good fleet stays in force.")
        self._fleet_mark = mark
        return Rules(fleet, known.playbooks if known else self._books())

    def _with_books(self, rules: Rules) -> Rules:
        if _mark(self._book_files()) == self._books_mark:
            return rules
        return Rules(rules.fleet, self._books(), rules.problem)

    def _books(self) -> Playbooks:
        """Marked before it is read: an edit in between is read at the next turn."""
        self._books_mark = _mark(self._book_files())
        return load_playbooks(self._workspace)

    def _book_files(self) -> Iterator[Path]:
        yield self._workspace.playbooks_dir
        try:
            yield from sorted(self._workspace.playbooks_dir.glob("*.md"))
        except OSError:
            return


def _mark(paths: list[Path] | Iterator[Path]) -> Mark:
    """Equal if and only if nobody touched the files."""
    return tuple(_one(path) for path in paths)


def _one(path: Path) -> tuple[str, int, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (path.name, 0, 0, 0, 0)
    return (path.name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
