"""The weekly proof: a backup that was never restored is a hope. One bot's is restored into a folder, and counted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from .config import Bot
from .formats.base import Format, FormatOptions, inspect_whole
from .model import BotkeepError, DataVerdict, StoreError, iso, parse_iso
from .stores import Stores
from .stores.base import Store, scratch
from .stores.manifests import Snapshot
from .stores.reading import fetch, newest_good

EVERY = timedelta(days=7)
AGAIN = timedelta(days=1)
"""After a proof that failed."""


@dataclass(frozen=True)
class Proof:
    """What came of restoring a bot's newest good snapshot into a folder of ours."""

    bot: str
    at: datetime
    ok: bool
    sentence: str
    snapshot: str = ""
    taken_at: datetime | None = None
    """When that snapshot was made."""
    rows: int | None = None
    figures: Mapping[str, Any] | None = None
    """{trades, realised: {currency: amount}} as counted from the restored file."""
    compared: bool = False
    """Whether the figures were noted when it was backed up, so that they could be compared."""
    second: str = ""
    """What the second store gave: one phrase; empty: there is none, or it was not asked."""


class _UnprovenError(BotkeepError):
    """The text is one sentence: what was not as it should be."""


def prove(bot: Bot, stores: Stores, *, format: Format, options: FormatOptions, now: datetime) -> Proof:  # noqa: A002
    """Fetch the bot's newest good snapshot, inspect all of it, and count rows and P&L against what its manifest says.

    A second store has to give the very same bytes, of its own newest good snapshot. Never raises BotkeepError: the
    proof says what went wrong. It is kept in the local store for `last_proof`.
    """
    try:
        proof = _proof(bot, stores.local, format, options, now)
    except BotkeepError as error:
        proof = Proof(bot.name, now, False, f"The backup of {bot.name} could not be proven: {error}")
    if stores.second is not None:
        said, good = _of_second(bot.name, stores.second)
        proof = replace(proof, second=said, ok=proof.ok and good, sentence=f"{proof.sentence} Second copy: {said}.")
    _keep(stores.local, proof)
    return proof


def _proof(bot: Bot, store: Store, kind: Format, options: FormatOptions, now: datetime) -> Proof:
    good = newest_good(store, bot.name)
    if good is None:
        raise _UnprovenError(f"the {store.name} store has no good one. See: botkeep backup {bot.name}")
    with scratch(store, "proof-") as folder:
        fetch(store, good, folder / "restored")
        return _examined(bot, good, folder / "restored", kind, options, now)


def _examined(bot: Bot, good: Snapshot, path: Path, kind: Format, options: FormatOptions, now: datetime) -> Proof:
    seen = inspect_whole(kind, path, options=options, now=now)
    if seen.verdict is not DataVerdict.OK:
        why = seen.findings[0].text if seen.findings else seen.verdict.value
        raise _UnprovenError(f"what {good.id} gives back is not sound: {why}")
    if seen.rows != good.rows:
        raise _UnprovenError(f"{good.id} gives back {seen.rows} rows, and its manifest says {good.rows}.")
    figures = _counted(bot, kind, path, options)
    if good.figures is not None and figures != dict(good.figures):
        raise _UnprovenError(f"{good.id} gives back P&L {_said(figures)}, and its manifest says {_said(good.figures)}.")
    return Proof(
        bot=bot.name,
        at=now,
        ok=not good.skipped,
        sentence=f"{_skipped(good)}{_sentence(bot.name, good, figures, now)}",
        snapshot=good.id,
        taken_at=good.at,
        rows=good.rows,
        figures=figures,
        compared=good.figures is not None,
    )


def _skipped(good: Snapshot) -> str:
    """A backup that comes back is no comfort where the newer ones do not."""
    if not good.skipped:
        return ""
    return "The newest backup is damaged. " if good.skipped == 1 else f"The newest {good.skipped} backups are damaged. "


def _counted(bot: Bot, kind: Format, path: Path, options: FormatOptions) -> dict[str, Any] | None:
    try:
        return count(bot, kind, path, options)
    except BotkeepError:
        return None


def _sentence(name: str, good: Snapshot, figures: Mapping[str, Any] | None, now: datetime) -> str:
    old = now - good.at
    age = f"{old.days} days" if old.days > 1 else f"{max(0, int(old.total_seconds() // 3600))} h"
    pnl = "its P&L cannot be counted" if figures is None else f"P&L {_said(figures)}"
    same = "" if good.figures is None else ", both as noted when it was backed up"
    return f"{name}'s backup of {age} ago was restored into a folder and read: {good.rows} rows, {pnl}{same}."


def _said(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "that cannot be counted"
    sums = ", ".join(f"{amount} {currency}" for currency, amount in sorted(figures["realised"].items()))
    return f"{sums or '0'} of {figures['trades']} trades"


def _of_second(name: str, second: Store) -> tuple[str, bool]:
    """(one phrase, whether it is as it should be). A store that is down is not a copy that is lost."""
    try:
        good = newest_good(second, name)
        if good is None:
            return "it has no good backup yet", False
        with scratch(second, "proof-") as folder:
            fetch(second, good, folder / "restored")
    except StoreError as error:
        return f"not proven, {str(error).rstrip('.')}", False
    skipped = f"its newest {good.skipped} are damaged, " if good.skipped else ""
    return f"{skipped}the backup of {good.at:%Y-%m-%d %H:%M:%SZ} came back byte by byte", not good.skipped


def count(bot: Bot, kind: Format, path: Path, options: FormatOptions) -> dict[str, Any]:
    """{trades, realised: {currency: amount}} of a data file, exact, as text. Raises BotkeepError without trades."""
    from .pnl import figures

    table = kind.trades(path, options=options)
    made = figures(bot.name, table, capital=bot.capital, currency=bot.currency)
    return {
        "trades": len(table.fills) + len(table.closed),
        "realised": {one.currency: str(one.realised) for one in made.currencies},
    }


# --- when --------------------------------------------------------------------------------------------------------


def _key(bot: str) -> str:
    return f"proofs/{bot}.json"


def _keep(store: Store, proof: Proof) -> None:
    """Best effort: whoever asked is told of it, too."""
    body = {**asdict(proof), "at": iso(proof.at), "taken_at": iso(proof.taken_at) if proof.taken_at else None}
    try:
        store.put(_key(proof.bot), json.dumps(body, indent=1, sort_keys=True).encode())
    except StoreError:
        return


def last_proof(store: Store, bot_name: str) -> Proof | None:
    """What came of the bot's last proof; None: there was none, or it cannot be read. Raises StoreError."""
    data = store.get(_key(bot_name))
    try:
        body = json.loads(data or b"")
        taken = parse_iso(body["taken_at"]) if body["taken_at"] else None
        return Proof(**{**body, "at": parse_iso(body["at"]), "taken_at": taken})
    except (ValueError, KeyError, TypeError):
        return None


def due(store: Store, bot_names: Iterable[str], now: datetime, limit: int = 1) -> list[str]:
    """Bots whose backup is to be proven now, those never proven first, then the oldest proof: `limit` at most.

    Each once a week; again after a day if that failed. Raises StoreError.
    """
    last = {name: last_proof(store, name) for name in bot_names}
    waiting = [name for name, proof in last.items() if _is_due(proof, now)]
    return sorted(waiting, key=lambda name: (_at(last[name]), name))[:limit]


def _is_due(proof: Proof | None, now: datetime) -> bool:
    """A proof from the future is of a clock that was wrong: it holds nothing up."""
    return proof is None or proof.at > now or now - proof.at >= (EVERY if proof.ok else AGAIN)


def _at(proof: Proof | None) -> float:
    return proof.at.timestamp() if proof else 0.0
