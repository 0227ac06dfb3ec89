"""The one file by which a bot is told to ask its exchange less: which of its two documents it holds, and their swap.

It is botkeep's to write, and a person's to see through: nothing but what the person wrote under `normal` or `reduced`
of `limits.polling` is ever put there, and what is neither of the two is never overwritten.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import Any

from .config import Bot
from .durable import fsync_dir, read_regular
from .history import clock
from .ledger import Entry, Kind, Ledger
from .limits import PollingLimit, canonical, text_of
from .model import Action, Actor, BotkeepError, Instance
from .untrusted import clean

FILE_LIMIT = 256 << 10
"""Bytes: four times what a document may have, for a person's own line breaks."""
NEW_MODE = 0o644
"""Of a file that was not there: no secret may stand in it, and a bot in a container is another user."""
NONE = "no `limits.polling` is configured for it"


class Level(StrEnum):
    """Which of its two documents the file holds."""

    NORMAL = "normal"
    REDUCED = "reduced"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Polling:
    """What the file says. `why`: a clause, for UNKNOWN what a person should mend."""

    level: Level
    why: str
    missing: bool = False
    """There is no such file: a person may have it made."""


def state(bot: Bot) -> Polling:
    """Which of its documents the bot's file holds now. Raises nothing: UNKNOWN says what is the matter with it."""
    limit = bot.limits.polling
    if limit is None:
        return Polling(Level.UNKNOWN, NONE)
    shown = _shown(limit.file)
    try:
        data = read_regular(limit.file, FILE_LIMIT)
    except OSError as error:
        return Polling(Level.UNKNOWN, f"{shown} cannot be read: {clean(error.strerror or str(error), 200)}")
    if data is None:
        return Polling(Level.UNKNOWN, f"there is no {shown}, so the bot cannot read it", missing=True)
    return _told(limit, data, shown)


def _told(limit: PollingLimit, data: bytes, shown: str) -> Polling:
    try:
        found = canonical(_parse(data))
    except (ValueError, RecursionError, InvalidOperation):
        return Polling(Level.UNKNOWN, f"{shown} holds no sound JSON: somebody edited it")
    for level, document in ((Level.REDUCED, limit.reduced), (Level.NORMAL, limit.normal)):
        if found == canonical(document):
            return Polling(level, f"{shown} holds `{level}`")
    return Polling(Level.UNKNOWN, f"{shown} holds neither `normal` nor `reduced`: somebody edited it")


def hindrance(bot: Bot) -> str | None:
    """Why the file must or can not be replaced, as a clause; None: nothing is in the way."""
    limit = bot.limits.polling
    if limit is None:
        return NONE
    try:
        seen = limit.file.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{_shown(limit.file)} cannot be reached: {error.strerror}"
    if not seen.st_mode & 0o222:
        return f"{_shown(limit.file)} is read-only, so somebody wants it to stay; run: chmod u+w {limit.file}"
    if os.geteuid() not in (0, seen.st_uid):
        return f"{_shown(limit.file)} belongs to user {seen.st_uid}, and botkeep runs as user {os.geteuid()}"
    return None


def write(bot: Bot, level: Level) -> None:
    """Replace the file by the document of that level: readers see the old one or the new one, whole.

    Owner and mode stay. Raises OSError, leaving the old file; BotkeepError without `limits.polling`.
    """
    limit = bot.limits.polling
    if limit is None:
        raise BotkeepError(f"{bot.name}: {NONE}.")
    _replace(limit.file, text_of(limit.reduced if level is Level.REDUCED else limit.normal))


def _replace(path: Path, data: bytes) -> None:
    """One name beside it, always the same: what a killed writer left there is not one more file each time."""
    beside = path.with_name(f".{path.name}.botkeep")
    beside.unlink(missing_ok=True)  # never opened: whoever may write to the folder may have linked it to another file
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            _dress(file.fileno(), path)
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def _dress(fd: int, path: Path) -> None:
    """Owner and mode of the file that is replaced: a bot of another user must still be able to read it."""
    try:
        old = path.lstat()
    except FileNotFoundError:
        os.fchmod(fd, NEW_MODE)
        return
    new = os.fstat(fd)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


def _shown(path: Path) -> str:
    return clean(str(path), 200)


def _parse(data: bytes) -> Any:
    """JSON as bots.json is read: exact numbers, no key twice. Raises ValueError, InvalidOperation, RecursionError."""
    return json.loads(data, parse_float=Decimal, parse_constant=_constant, object_pairs_hook=_object)


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


# --- since when --------------------------------------------------------------------------------------------------

KNOWN = 60
"""Outcomes that are looked through: a bot that is told more often than that within a streak is told by a loop."""


@dataclass(frozen=True)
class Change:
    """What the ledger knows of the document that was written last."""

    to: Level
    since: datetime
    """When it was written."""
    applied: bool
    """The bot was told to read it, or reads it by itself."""
    person_at: datetime | None = None
    """When a person last said so; None: only code did."""
    asked: bool = False
    """The bot may have read it: it was told to, or nobody knows."""

    def is_read_by(self, instances: Sequence[Instance]) -> bool:
        """Whether these copies go by it: they were told, or started after it was written."""
        return self.applied or all(one.started_at is not None and one.started_at > self.since for one in instances)

    def is_unknown_to(self, instances: Sequence[Instance]) -> bool:
        """Whether none of these copies can have read it: they go by the other document."""
        return not self.asked and all(one.started_at is not None and one.started_at < self.since for one in instances)


def last_change(calls: Sequence[Entry]) -> Change | None:
    """The newest document that was written, from `outcomes`; None: none was."""
    written = [one for one in calls if one.data.get("written")]
    if not written:
        return None
    to = written[0].data["to"]
    same = list(takewhile(lambda one: one.data["to"] == to, written))
    persons = [one.at for one in same if one.actor == Actor.PERSON]
    return Change(
        to=Level(to),
        since=same[-1].at,
        applied=bool(written[0].data.get("applied")),
        person_at=max(persons, default=None),
        asked=any(one.data.get("applied") or one.data.get("asked") for one in same),
    )


def outcomes(ledger: Ledger, bot: str) -> Sequence[Entry]:
    """What came of the newest calls on one bot's polling, newest first. Raises LedgerError."""
    return ledger.entries(bot=bot, action=Action.POLL.value, kinds=[Kind.OUTCOME], limit=KNOWN, newest_first=True)


def step(bot: Bot, ledger: Ledger) -> str:
    """What is done about a rate limit, for whoever may do nothing else: one sentence. Raises LedgerError."""
    found = state(bot)
    if bot.limits.polling is None:
        return f"Its polling cannot be reduced: {NONE}."
    if found.level is Level.UNKNOWN:
        return f"Its polling cannot be reduced: {found.why}."
    change = last_change(outcomes(ledger, bot.name))
    if found.level is Level.NORMAL:
        return f"Its polling is not reduced yet: a round does it, or a person: `botkeep poll {bot.name} less REASON`."
    since = f" since {clock(change.since)}" if change and change.to is Level.REDUCED else ""
    return (
        f"Its polling is reduced{since}{'' if change is None or change.applied else WAITS[bot.limits.polling.apply]}."
    )


WAITS = {
    "reload": ", from its next start on, or once its API can be told to reload",
    "restart": ", from its next start on",
    "watched": "",
}
