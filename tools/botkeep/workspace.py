"""Where everything of a workspace lives, and the folder that is botkeep's own."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .model import BotkeepError, UsageError

BOTS = "config/bots.json"
SCHEDULE = "config/schedule.json"
STATE = ".botkeep"

# Kernel locks and fsync are emulated, per client or not at all on these; never-two and the ledger rest on both.
NOT_LOCAL = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "orangefs", "prl_fs", "smb3", "smbfs", "vboxsf", "vmhgfs", "virtiofs",
})  # fmt: skip
LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs"})
"""The root of rootless containers: FUSE, but on this machine's disk and with the kernel's own locks."""


@dataclass(frozen=True)
class Workspace:
    """A folder of bots that botkeep looks after. `home` is absolute and without symlinks."""

    home: Path

    @property
    def bots_file(self) -> Path:
        """The fleet, as people write it."""
        return self.home / BOTS

    @property
    def schedule_file(self) -> Path:
        """The tasks and when they are due."""
        return self.home / SCHEDULE

    @property
    def playbooks_dir(self) -> Path:
        """One file per fault; people edit them."""
        return self.home / "playbooks"

    @property
    def skills_dir(self) -> Path:
        """One folder per job of the assistant."""
        return self.home / "skills"

    @property
    def journal_file(self) -> Path:
        """What happened, for people."""
        return self.home / "memory/bot-operations.md"

    @property
    def archive_dir(self) -> Path:
        """Past months of the journal."""
        return self.home / "memory/archive"

    @cached_property
    def state_dir(self) -> Path:
        """botkeep's own: 0700, on a local disk."""
        return self.home / STATE

    @property
    def ledger_file(self) -> Path:
        """What happened, the truth."""
        return self.state_dir / "ledger.db"

    @cached_property
    def logs_dir(self) -> Path:
        """Output of the bots that botkeep started."""
        return self.state_dir / "logs"

    @property
    def backups_dir(self) -> Path:
        """The local store of verified snapshots."""
        return self.state_dir / "backups"

    @property
    def quarantine_dir(self) -> Path:
        """Copies of damaged files; never emptied by botkeep."""
        return self.state_dir / "quarantine"

    @property
    def kept_playbooks_dir(self) -> Path:
        """The last good version of each playbook."""
        return self.state_dir / "playbooks"

    @cached_property
    def runs_dir(self) -> Path:
        """What is known of each bot's running instance."""
        return self.state_dir / "run"

    def run_dir(self, bot: str) -> Path:
        """Locks and the record of the bot's running instance."""
        return self.runs_dir / bot

    def log_path(self, bot: str) -> Path:
        """Where the output of a bot goes that botkeep starts."""
        return self.logs_dir / f"{bot}.log"

    def prepare(self) -> None:
        """Make `.botkeep` and its folders, readable by us alone.

        Raises BotkeepError if that cannot be, if others could write there (a planted record would choose whom we
        stop), or if it is not on a local disk (the locks that prove "never two" do not hold there).
        """
        _own_folder(self.state_dir)
        _require_local(self.state_dir)
        folders = (
            self.runs_dir,
            self.logs_dir,
            self.backups_dir,
            self.quarantine_dir,
            self.kept_playbooks_dir,
        )
        for folder in folders:
            _make_folder(folder)


def find_workspace(home: str | None, environ: Mapping[str, str], cwd: Path) -> Workspace:
    """The workspace: `--home`, else $BOTKEEP_HOME, else `cwd` or its nearest parent with config/bots.json.

    Raises UsageError if there is none.
    """
    asked, named = (home, "--home") if home else (environ.get("BOTKEEP_HOME"), "$BOTKEEP_HOME")
    if asked:
        return _named_workspace(asked, named, cwd)
    start = Path(os.path.realpath(cwd))
    for place in (start, *start.parents):
        if (place / BOTS).is_file():
            return Workspace(place)
    raise UsageError(
        f"No workspace: neither {start} nor a folder above it has {BOTS}. Name one with --home DIR or $BOTKEEP_HOME, "
        f"or make one: botkeep init DIR"
    )


def _named_workspace(asked: str, named: str, cwd: Path) -> Workspace:
    place = cwd / asked
    if not place.is_dir():
        raise UsageError(f"{named} names {asked}, and there is no such folder. Make one: botkeep init {asked}")
    return Workspace(Path(os.path.realpath(place)))


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BotkeepError(
            f"botkeep cannot make its folder {path}: {error.strerror}. Mend that and ask again."
        ) from error


def _own_folder(path: Path) -> None:
    """`path` is a folder of ours that nobody else can write to; a link of ours to one will do."""
    _make_folder(path)
    found, me = path.stat(), os.geteuid()
    for owner in (found.st_uid, path.lstat().st_uid):
        if owner != me:
            raise BotkeepError(f"{path} belongs to user {owner}, botkeep runs as user {me}. Run it as that user.")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        raise BotkeepError(
            f"Others can write to {path} (mode {mode:04o}), so what is in it proves nothing. "
            f"See what is there, then: chmod 700 {path}"
        )
    if mode != 0o700:
        path.chmod(0o700)


def _require_local(path: Path) -> None:
    kind = filesystem_of(path)
    if kind is not None and not is_local(kind):
        raise BotkeepError(
            f"{path} is on {kind}, a file system that is not local: locks there do not prove that a bot is gone, so "
            f"botkeep could start a second one. Put the workspace on a local disk, or make {path.name} a link to a "
            f"folder on one."
        )


def is_local(kind: str) -> bool:
    """Whether locks and fsync on this type of file system are the kernel's own."""
    fuse = kind == "fuse" or kind.startswith("fuse.")
    return kind in LOCAL_FUSE or not (fuse or kind in NOT_LOCAL)


def filesystem_of(path: Path) -> str | None:
    """The type of the file system that holds `path`, from the kernel's mount table; None if it cannot be read."""
    try:
        table = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return None
    return mount_type(os.fsdecode(table), os.path.realpath(path))


def mount_type(table: str, path: str) -> str | None:
    """The type of the mount that holds the absolute `path`: the longest mount point, of equal ones the last.

    `table` has the form of /proc/self/mountinfo, see proc(5).
    """
    best, kind = "", None
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        if len(point) >= len(best) and is_under(path, point):
            best, kind = point, after.split(" ", 1)[0]
    return kind


def is_under(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or in it; both absolute and normal."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
