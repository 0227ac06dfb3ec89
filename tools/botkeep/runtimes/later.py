"""Runtimes of engines, loaded when a bot of their kind is met: a check of plain processes does not wait for Docker."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import Any, cast

from .base import Runtime


class Later:
    """Stands for the runtime of one engine and is it as soon as anything but its KIND is asked."""

    def __init__(self, kind: str, made_of: str) -> None:
        self.KIND = kind
        """The engine's module has this name."""
        self._made_of = made_of

    @cached_property
    def _runtime(self) -> Any:
        module, _, name = self._made_of.partition(":")
        make = getattr(import_module(f".{module}", __package__), name)
        return make(import_module(f".{self.KIND}", __package__))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._runtime, name)


def later(kind: str, made_of: str = "engine:EngineRuntime") -> Runtime:
    """The runtime of the engine in module `kind`; `made_of`: `module:class` of what turns the engine into a runtime."""
    return cast("Runtime", Later(kind, made_of))
