"""Runtimes of engines, loaded when a bot of their kind is met."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any, cast

from botkeep.later import Later

from .base import Runtime


def later(kind: str, made_of: str = "engine:EngineRuntime") -> Runtime:
    """The runtime of the engine in module `kind`; `made_of`: `module:class` of what turns the engine into a runtime."""
    return cast("Runtime", Later(partial(_made, kind, made_of), KIND=kind))


def _made(kind: str, made_of: str) -> Any:
    module, _, name = made_of.partition(":")
    make = getattr(import_module(f".{module}", __package__), name)
    return make(import_module(f".{kind}", __package__))
