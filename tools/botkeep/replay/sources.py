"""Where a bot's lost trades can be read again, by its configuration; and why not, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import Bot, ExchangeConfig
from ..programs import profile_of


@dataclass(frozen=True)
class Sources:
    """What is configured."""

    log: Path | None = None
    grammar: str = ""
    """How trades stand in `log`."""
    exchange: ExchangeConfig | None = None
    why_not: str = ""
    """Why a source is not there, sentences; empty: nothing to say."""


def sources(bot: Bot) -> Sources:
    """What trades of this bot can be read again from."""
    grammar = bot.replay.grammar or profile_of(bot)[0].GRAMMAR or ""
    log = bot.replay.log or bot.log_file
    exchange = None if bot.paper else bot.replay.exchange
    return Sources(
        log=log if grammar else None,
        grammar=grammar if log else "",
        exchange=exchange,
        why_not=" ".join(_why_not(bot, log, grammar)),
    )


def _why_not(bot: Bot, log: Path | None, grammar: str) -> list[str]:
    said = []
    if bot.paper:
        said.append(f"{bot.name} trades on paper: no exchange knows its trades.")
    if log is not None and grammar:
        return said
    if not bot.paper and bot.replay.exchange is not None:
        return said
    if log is None:
        said.append(f"No log of {bot.name} is configured: set log_file or replay.log.")
    else:
        said.append(f'It is not said how trades stand in the log of {bot.name}: set "replay": {{"grammar": ...}}.')
    if not bot.paper:
        said.append("No exchange is configured to ask: set replay.exchange.")
    return said
