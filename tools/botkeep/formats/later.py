"""Formats, loaded when a data file of their kind is met."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import cast

from ..later import Later
from .base import Format


def later(kind: str, *endings: str) -> Format:
    """The format in module `kind`, for files whose names end so (without the dot)."""
    return cast("Format", Later(partial(import_module, f".{kind}", __package__), KIND=kind, ENDINGS=endings))
