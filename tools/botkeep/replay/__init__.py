"""Trades read again from somewhere else than the data file: the bot's own log, an event file, or the exchange."""

from .base import ReplayWaitError
from .exchange import from_exchange
from .log import GRAMMARS, from_log
from .match import missing
from .plausible import split
from .sources import Sources, sources

__all__ = ["GRAMMARS", "ReplayWaitError", "Sources", "from_exchange", "from_log", "missing", "sources", "split"]
