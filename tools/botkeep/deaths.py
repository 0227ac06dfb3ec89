"""After an unclean death: does the data file have all the trades that log or exchange have?

Compared once for each death. What was found stands until the file is another one: a restore, a person's hand.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from glob import escape
from pathlib import Path
from typing import Any

from . import stillopen
from .changes import rotated
from .config import Bot, Fleet
from .datafile import DataFile
from .model import (
    BotkeepError,
    DataVerdict,
    Exit,
    Finding,
    Inspection,
    Mark,
    RuntimeLook,
    StoreError,
    iso,
    parse_iso,
)
from .reconcile import LOG_BUDGET, Missing, finding_of, gather, has_source, lost_since
from .stores import open_stores
from .stores.manifests import Snapshot, newest
from .workspace import Workspace

AT_A_LOOK = 24 << 20
"""Bytes of data file, and of log, that a look compares; more is left to the round, which nobody waits for."""
AGAIN = timedelta(minutes=30)
"""Before an exchange is asked again that could not answer."""
LOOK_SECONDS = 12.0
"""For all comparisons of one look: when a machine comes up again, all its bots have died."""
WRITTEN_LATER = timedelta(seconds=2)
"""A bot that is killed may have dated its last trade a moment ahead, or we saw it end a moment late."""

Cursor = dict[str, Any]


@dataclass(frozen=True)
class Death:
    """One end of a bot that may have lost trades."""

    key: str
    at: datetime | None
    """None: nobody saw it."""


@dataclass
class Spend:
    """Time for the comparisons of one look."""

    seconds: float = LOOK_SECONDS
    began: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Whether the rest has to wait for the next look."""
        return time.monotonic() - self.began > self.seconds


def is_unclean(ended: Exit) -> bool:
    """Whether what the bot had not written yet may be lost: killed, crashed, or nobody saw how it ended.

    A bot that leaves SIGTERM to its default loses its buffer to a stop that we asked for, too. freqtrade ends a clean
    stop with 130, so the codes of a stop do not tell.
    """
    if ended.signal is not None or ended.out_of_memory:
        return True
    return not ended.asked and ended.failed_to_start is None and ended.code != 0


FILLS_LOST = "fills-lost"
"""The mark of a line by which a bot says that a fill did not reach its file: Hummingbot goes on trading then."""


def death_of(runtime: RuntimeLook, data: Inspection, marks: Mapping[str, Mark]) -> Death | None:
    """The newest moment at which trades may have been lost: an unclean end, or a fill that the bot failed to store."""
    died, lost = _died(runtime, data), marks.get(FILLS_LOST)
    if lost is None or (died is not None and (died.at is None or died.at > lost.at)):
        return died
    return Death(f"{FILLS_LOST} {iso(lost.at)}", None)


def _died(runtime: RuntimeLook, data: Inspection) -> Death | None:
    """The bot's newest unclean end. For a bot that is gone and was never seen to end, its file as it is stands."""
    ended = runtime.exit
    if ended is None:
        return None if runtime.instances else Death(f"unseen {data.identity}", None)
    if not is_unclean(ended):
        return None
    begun = [one.started_at for one in runtime.instances if one.started_at]
    bounds = [one for one in (ended.at, *begun) if one is not None]
    return Death(ended.key, min(bounds) + WRITTEN_LATER if bounds else None)


def is_compared(death: Death, data: Inspection, known: Cursor | None) -> bool:
    """Whether what is known is of this death, and, if trades were missing, of this very file."""
    if not known or known.get("exit") != death.key:
        return False
    return not known.get("findings") or known.get("file") == data.identity


def wants_more(bot: Bot, known: Cursor | None, now: datetime) -> bool:
    """Whether an exchange is still to be asked: configured, not asked yet, and not to be left alone."""
    if bot.replay.exchange is None or bot.paper or (known and known.get("exchange")):
        return False
    return not waits(known, now)


def waits(known: Mapping[str, Any] | None, now: datetime) -> bool:
    """Whether the exchange wants to be left alone still."""
    return bool(known and known.get("wait") and parse_iso(known["wait"]) > now)


def at_a_look(
    bot: Bot,
    fleet: Fleet,
    runtime: RuntimeLook,
    data: Inspection | None,
    marks: Mapping[str, Mark],
    known: Cursor | None,
    now: datetime,
    spend: Spend,
) -> Cursor | None:
    """What a look knows of the bot's newest unclean death: compared with the log now, or before. Asks no exchange."""
    if data is None or data.verdict not in (DataVerdict.OK, DataVerdict.REPLACED) or not has_source(bot):
        return None  # damage that is seen is mended first, and that brings back what is missing as well
    death = death_of(runtime, data, marks)
    if death is None or is_compared(death, data, known):
        return known if death else None
    if spend.over or (data.size or 0) > AT_A_LOOK:
        return None
    found = compare(bot, fleet, death, data.identity, now, exchange=False, budget=AT_A_LOOK)
    if found is None or not known or known.get("exit") != death.key:
        return found
    return {**found, "exchange": known.get("exchange", False), "wait": known.get("wait")}  # what was asked stays so


def compare(
    bot: Bot, fleet: Fleet, death: Death, identity: str, now: datetime, *, exchange: bool, budget: int = LOG_BUDGET
) -> Cursor | None:
    """Compare the file with log (and exchange); a cursor. None: nothing could be read, so it is to be tried again.

    `findings` of the cursor: R1, certain if a restore can add what is missing, else for a person to know.
    """
    file = DataFile.of(bot)
    table = file.table()
    if table is None:
        return None
    since = lost_since(file.path, table, _backed_up_to(bot, fleet))
    missing = gather(
        bot,
        fleet.workspace,
        file.known_trades(table),
        since=since,
        until=death.at,
        now=now,
        exchange=exchange,
        budget=budget,
    )
    found = finding_of(missing)
    if found is not None and (why := _why_not_addable(file, missing, fleet.workspace, now)):
        found = _doubtful(found, why)
    if not missing.asked and missing.wait is None and not _only_an_exchange(bot, exchange=exchange):
        return None
    wait = missing.wait or (now + AGAIN if exchange and "exchange" not in missing.asked else None)
    return {
        "exit": death.key,
        "file": identity,
        "at": iso(now),
        "exchange": "exchange" in missing.asked,
        "wait": iso(wait) if wait else None,
        "findings": [asdict(found)] if found else [],
    }


def _only_an_exchange(bot: Bot, *, exchange: bool) -> bool:
    """Nothing was asked because only the exchange could be, which a look does not ask."""
    return not exchange and bot.replay.exchange is not None


def _backed_up_to(bot: Bot, fleet: Fleet) -> datetime | None:
    snapshot = _newest(bot, fleet)
    return snapshot.last_at if snapshot else None


def _newest(bot: Bot, fleet: Fleet) -> Snapshot | None:
    """By its manifest alone."""
    try:
        return newest(open_stores(fleet).local, bot.name)[0]
    except StoreError:
        return None


def _why_not_addable(file: DataFile, missing: Missing, workspace: Workspace, now: datetime) -> str:
    """Tried out: a finding that no restore can mend must not hold the bot's restart back for ever."""
    try:
        file.evidence()
        with tempfile.TemporaryDirectory(dir=workspace.state_dir, prefix="compare-") as folder:
            copy = Path(folder) / file.path.name
            file.copy(copy, now)
            added = file.kind.append(copy, missing.trades, options=file.options)
    except (BotkeepError, OSError) as error:
        return str(error).rstrip(".")
    return "; ".join(added.left_out) if len(added.left_out) == len(missing.trades) else ""


def _doubtful(found: Finding, why: str) -> Finding:
    text = f"{found.text} They cannot be added: {why.rstrip('.')}. A person has to look."
    return replace(found, certain=False, text=text)


# --- what only a backup knows ------------------------------------------------------------------------------------


def missed(bot: Bot, fleet: Fleet, data: Inspection | None, *, writing: bool) -> Inspection | None:
    """A file that is missing is damage (C14) if a backup has rows of it, though no look ever saw it.

    Not if it was moved aside (a rotation), nor if the backup is of another path: then the bot was only configured anew,
    and its new file must not get the old one's trades. The store is asked for a missing file only.
    """
    if data is None or bot.data_file is None or data.verdict is not DataVerdict.MISSING or data.findings:
        return data
    path, good = Path(os.path.realpath(bot.data_file)), _newest(bot, fleet)
    if good is None or not good.rows or good.path != str(path) or _moved_aside(path, good):
        return data
    text = f"It is gone; the backup of {good.at:%Y-%m-%d %H:%M:%SZ} has {good.rows} rows of it."
    return replace(data, findings=(Finding("C14", text, not writing),))


def _moved_aside(path: Path, good: Snapshot) -> bool:
    """Whether it is beside its old place under a longer name: the same file, or packed with what the backup has."""
    for one in path.parent.glob(f"{escape(path.stem)}*"):
        try:
            seen = one.stat()
        except OSError:
            continue
        same = (seen.st_dev, seen.st_ino) == (good.source.get("dev"), good.source.get("ino"))
        if same and not one.name.endswith(COMPANIONS) and seen.st_size >= good.source.get("size", 0):
            return True
    return rotated(path, good) is not None


COMPANIONS = ("-wal", "-shm", "-journal")
"""Of a database: small files that come and go, and may get the number of one that was deleted."""


# --- what a restore left open ---------------------------------------------------------------------------------------


def left_open(bot: Bot, data: Inspection | None, known: Mapping[str, Any] | None) -> tuple[Finding, ...]:
    """R3 for as long as the file has a trade open that a restore left so; read again, for a person may have closed it.

    `known`: the ledger's cursor `stillopen.CURSOR`.
    """
    trades = stillopen.from_json((known or {}).get("trades", ()))
    if not trades or data is None or data.verdict not in (DataVerdict.OK, DataVerdict.REPLACED):
        return ()
    return stillopen.finding_of(stillopen.unclosed(DataFile.of(bot).table(), trades), bot.name)


# --- what stands -------------------------------------------------------------------------------------------------


def given_up(known: Mapping[str, Any], why: str) -> Cursor:
    """The same, but for people to know only: adding them failed, and the bot must not stay down for that."""
    found = [Finding(**raw) for raw in known.get("findings", ())]
    return {**known, "findings": [asdict(_doubtful(one, why) if one.certain else one) for one in found]}


def settled(known: Mapping[str, Any] | None, ended: Exit | None) -> Cursor:
    """After a restore: what log and exchange said of the old file is in the new one."""
    before = dict(known or {})
    return {**before, "exit": ended.key if ended else before.get("exit", ""), "findings": []}
