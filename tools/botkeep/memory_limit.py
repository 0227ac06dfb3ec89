"""Raising the memory limit of a bot's container, as far as its `limits` allow, before it is started again."""

from __future__ import annotations

from typing import Any

from .bench import Case
from .model import EngineError
from .sizes import size_text


def raise_limit(case: Case) -> str | None:
    """Give the bot more memory, once; for a restart that follows the fault out-of-memory.

    A clause for the journal, with the old and the new value. None: nothing is allowed, or its engine sets it no limit.
    An engine that refuses costs the change, not the restart.
    """
    allowed, engine = case.bot.limits.memory, getattr(case.runtime, "engine", None)
    if allowed is None or not hasattr(engine, "set_memory"):
        return None
    try:
        return _raise(engine, case.target.config, allowed.most, allowed.step)
    except EngineError as error:
        return f"its memory limit could not be raised: {error}".rstrip(".")


def _raise(engine: Any, config: Any, most: int, step: Any) -> str | None:
    old = engine.memory_of(config)
    if old is None:
        return None
    new = min(most, int(old * step))
    if new <= old:
        return f"its memory limit stays at {_exactly(old)}: `limits` allow at most {size_text(most)}"
    engine.set_memory(config, new)
    return f"its memory limit was raised from {_exactly(old)} to {_exactly(new)}"


def _exactly(count: int) -> str:
    return f"{size_text(count)} ({count} bytes)"
