"""What is loaded when first used: a check of plain processes with CSV files waits for neither Docker nor SQLite."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any


class Later:
    """Stands for one module of an extension point and is it as soon as anything but what is given here is asked."""

    def __init__(self, make: Callable[[], Any], **known: Any) -> None:
        self._make = make
        self.__dict__.update(known)

    @cached_property
    def made(self) -> Any:
        """What it stands for."""
        return self._make()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.made, name)
