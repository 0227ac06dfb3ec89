"""What `botkeep signatures` prints: the known causes as a table, and whether a person's own signatures work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .model import UsageError
from .profiles import PROFILES
from .profiles.signature import Rule, Signature
from .profiles.workspace_signatures import SIGNATURES, OwnFile, own_signatures, read_own, signatures_for
from .results import Document, plain
from .terminal import table
from .workspace import Workspace

OWN = "own"


@dataclass(frozen=True)
class KnownCause:
    """One cause that botkeep knows by a line of a log, or by a rule of its own."""

    entry: Signature | Rule
    of: str
    """`own`, or the profile whose file has it; plain's hold for every program."""

    def document(self) -> dict[str, Any]:
        """With the words of the signature files as keys; what is empty is left out."""
        one = self.entry
        said = {
            "id": one.id,
            "class": one.klass.value,
            "cause": plain(one.cause),
            "source": plain(one.source),
            "of": self.of,
            "fault": one.fault.value if one.fault else None,
            "do": plain(one.advice),
            "mode": list(one.modes),
            "by": "line" if isinstance(one, Signature) else "rule",
        }
        return {key: value for key, value in said.items() if value}


class KnownCauses(Document):
    """Every one that was asked for."""

    signatures: list[dict[str, Any]]
    mend: tuple[str, ...] = ()


class Tested(Document):
    """A file of a person's own signatures, each of them tried on its example."""

    file: str
    good: list[str]
    mend: list[str]


def known_causes(workspace: Workspace | None, profile: str | None) -> KnownCauses:
    """The causes of one profile, or of all: a person's, then the profile's, then plain's, which hold for every one."""
    names = list(PROFILES) if profile is None else [profile]
    found = {(one.of, one.entry.id): one for name in names for one in _of_profile(workspace, name)}
    mend = own_signatures(workspace).problems if workspace else ()
    ranked = sorted(found.values(), key=lambda one: (one.of != OWN, one.of == "plain"))
    return KnownCauses(signatures=[one.document() for one in ranked], mend=tuple(mend))


def _of_profile(workspace: Workspace | None, name: str) -> Iterator[KnownCause]:
    profile = PROFILES[name]
    own = {one.id for one in own_signatures(workspace).catalogue(None, name).signatures} if workspace else set()
    general = {one.id for one in PROFILES["plain"].catalogue().signatures}
    catalogue = signatures_for(workspace, None, profile)[0] if workspace else profile.catalogue()
    listed: tuple[Signature | Rule, ...] = (*catalogue.signatures, *catalogue.rules.values())
    for one in listed:
        of = OWN if one.id in own else "plain" if one.id in general else name
        yield KnownCause(one, of)


def cause_lines(document: KnownCauses) -> Iterator[str]:
    """One row per cause, then what is wrong with the person's file."""
    keys = ("id", "class", "of", "cause", "source")
    yield from table([key.upper() for key in keys], ([one[key] for key in keys] for one in document.signatures))
    yield from _mend(document.mend)


def tested_file(file: Path) -> Tested:
    """Each signature of this file, tried on its example. Raises UsageError if there is no such file."""
    if not file.exists():
        raise UsageError(f"There is no file {file}; name a file of signatures, or none for the workspace's own.")
    return _tested(str(file), read_own(file, str(file)))


def tested_own(workspace: Workspace) -> Tested:
    """Each signature of the workspace's own file, tried on its example."""
    return _tested(SIGNATURES, own_signatures(workspace))


def _tested(name: str, own: OwnFile) -> Tested:
    good = [*(one.id for one in own.signatures), *(one.id for one in own.marks)]
    return Tested(file=name, good=good, mend=[plain(one) for one in own.problems])


def tested_lines(document: Tested) -> Iterator[str]:
    """What is wrong, one line each; where nothing is, one line for each signature."""
    if document.mend:
        yield from _mend(document.mend)
    elif not document.good:
        yield f"{document.file} holds no signatures; docs/signatures.md shows how to write one."
    else:
        yield from (f"ok: {name} matches its example" for name in document.good)


def _mend(problems: Iterable[str]) -> Iterator[str]:
    return (f"mend: {plain(one)}" for one in problems)
