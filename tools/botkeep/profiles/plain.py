"""A program of which nothing more is known than what it writes: its trades, its log, its exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from botkeep.model import Instance, ProgramLook

from .base import Hints, Subject
from .catalogue import Catalogue, Signature, packaged

NAME = "plain"
GRAMMAR: str | None = None


@cache
def catalogue() -> Catalogue:
    """Signatures and exit meanings of any program."""
    return packaged(NAME)


def signatures() -> Sequence[Signature]:
    """What a log line of any program may mean."""
    return catalogue().signatures


def recognise(hints: Hints) -> str | None:  # noqa: ARG001 - every profile is asked the same
    """Nothing tells a plain program: it is what is left."""
    return None


def look(subject: Subject) -> ProgramLook:  # noqa: ARG001
    """Its log and its files are all there is, and those are looked at for every bot."""
    return ProgramLook()


def hold_entries(subject: Subject) -> str | None:  # noqa: ARG001
    """There is nobody to ask."""
    return "a plain program cannot be asked to"


def resume_entries(subject: Subject) -> str | None:  # noqa: ARG001
    """There is nobody to ask."""
    return "a plain program cannot be asked to"


def environment(state: str) -> Mapping[str, str]:  # noqa: ARG001
    """It knows no states."""
    return {}


def sign_of_life(subject: Subject, instance: Instance) -> bool | None:  # noqa: ARG001
    """That it runs is all that is known."""
    return None
