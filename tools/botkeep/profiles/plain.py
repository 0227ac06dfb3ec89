"""A program of which nothing more is known than what it writes: its trades, its log, its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from .base import Catalogue, Signature, packaged

NAME = "plain"


@cache
def catalogue() -> Catalogue:
    """Signatures and exit meanings of any program."""
    return packaged(NAME)


def signatures() -> Sequence[Signature]:
    """What a log line of any program may mean."""
    return catalogue().signatures
