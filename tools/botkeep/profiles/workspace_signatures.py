"""Signatures of a person's own, in config/signatures.yaml of a workspace: what the lines of their own bots mean.

The file is people's: whatever is in it, the packaged signatures go on working, and what is wrong is a sentence.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from botkeep.model import ConfigError
from botkeep.untrusted import clean
from botkeep.workspace import Workspace

from . import plain
from .base import Profile
from .catalogue import Catalogue, entries, mark_of, merged, show, signature_of
from .signature import LinePattern, MarkPattern, Signature

SIGNATURES = "config/signatures.yaml"
SIZE_LIMIT = 256 * 1024
"""Bytes of the file."""
MOST = 200
"""Entries of the file: each is compiled and tried before it counts."""
DEEPEST = 8
SHORTEST_TEXT = 3
"""Characters of a literal text: a shorter one is in every line."""
LONGEST_EXAMPLE = 8192
NOT_HERE = ("mode",)
"""Keys of an entry that only botkeep's own files have."""


_Pattern = TypeVar("_Pattern", bound=LinePattern)


@dataclass(frozen=True)
class Own(Generic[_Pattern]):
    """One entry, and what it is for."""

    entry: _Pattern
    bots: frozenset[str] = frozenset()
    profiles: frozenset[str] = frozenset()
    """Empty: for every one."""

    @property
    def id(self) -> str:
        """Of the entry."""
        return self.entry.id

    def is_for(self, bot: str | None, profile: str | None) -> bool:
        """Whether it counts for this bot, by its name, and for bots of this profile; None: for one of them."""
        right_bot = not self.bots or bot is None or bot in self.bots
        return right_bot and (not self.profiles or profile is None or profile in self.profiles)


@dataclass(frozen=True)
class OwnFile:
    """A person's file, read."""

    signatures: tuple[Own[Signature], ...] = ()
    marks: tuple[Own[MarkPattern], ...] = ()
    problems: tuple[str, ...] = ()
    """Sentences: file, entry, what to write."""
    combined: dict[tuple[str | None, str], Catalogue] = field(default_factory=dict, compare=False, repr=False)
    """What was made of it before, by bot and profile."""

    def catalogue(self, bot: str | None, profile: str | None) -> Catalogue:
        """What of it counts for this bot and profile, as `Own.is_for`."""
        return Catalogue(
            signatures=tuple(one.entry for one in self.signatures if one.is_for(bot, profile)),
            marks=tuple(one.entry for one in self.marks if one.is_for(bot, profile)),
            problems=self.problems,
        )


_read: dict[Path, tuple[tuple[int, ...], OwnFile]] = {}
"""File -> what it was when it was read, and what was in it."""


def signatures_for(workspace: Workspace, bot: str | None, profile: Profile) -> tuple[Catalogue, tuple[str, ...]]:
    """What the lines of this bot's log mean, and what is wrong with the person's file, one sentence each.

    The person's signatures come first, then the profile's, then the general ones; of two with one id the first counts.
    """
    own = own_signatures(workspace)
    if not own.signatures and not own.marks:
        return _packaged(profile.NAME, profile.catalogue), own.problems
    key = (bot, profile.NAME)
    if key not in own.combined:
        mine = replace(own.catalogue(bot, profile.NAME), problems=())
        own.combined[key] = merged((mine, _packaged(profile.NAME, profile.catalogue)))
    return own.combined[key], own.problems


@cache
def _packaged(name: str, catalogue: Callable[[], Catalogue]) -> Catalogue:  # noqa: ARG001 - the name is for the cache
    return merged((catalogue(), plain.catalogue()))


def own_signatures(workspace: Workspace) -> OwnFile:
    """The workspace's file, read anew when it has changed. No file is no mistake."""
    path = workspace.home / SIGNATURES
    try:
        status = os.stat(path)
    except OSError as error:
        return OwnFile(problems=() if isinstance(error, FileNotFoundError) else (_unreadable(SIGNATURES, error),))
    seen = (status.st_mtime_ns, status.st_size, status.st_ino)
    if path not in _read or _read[path][0] != seen:
        _read[path] = seen, read_own(path, SIGNATURES)
    return _read[path][1]


def read_own(path: Path, shown: str) -> OwnFile:
    """Read such a file, wherever it is; `shown` is what the problems call it. Raises nothing."""
    try:
        raw = _load(path)
    except ConfigError as error:
        return OwnFile(problems=(f"{shown}: {error} Until it is mended, none of it counts.",))
    except OSError as error:
        return OwnFile(problems=(_unreadable(shown, error),))
    problems = [_stray(shown, key) for key in raw if key not in ("signatures", "marks")]
    problems += [_too_many(shown, key) for key in ("signatures", "marks") if _count(raw.get(key)) > MOST]
    raw = {key: value[:MOST] if isinstance(value, list) else value for key, value in raw.items()}
    signatures = entries(raw, "signatures", shown, problems, lambda entry: _own(entry, signature_of))
    marks = entries(raw, "marks", shown, problems, lambda entry: _own(entry, mark_of))
    return OwnFile(tuple(signatures.values()), tuple(marks.values()), tuple(problems))


def _unreadable(shown: str, error: OSError) -> str:
    return (
        f"{shown} cannot be read: {error.strerror}. Make it a file that botkeep may read; until then none of it counts."
    )


def _stray(shown: str, key: object) -> str:
    what = show(key) if isinstance(key, str) else "a key that is no text"
    return f"{shown}: {what}: a file of one's own holds `signatures` and `marks`; take it out. It is left out."


def _too_many(shown: str, key: str) -> str:
    return f"{shown}: {key}: only the first {MOST} are read; take some out."


def _count(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


# ------------------------------------------------------------------------------------------------------ reading YAML


def _load(path: Path) -> Mapping[Any, Any]:
    """The file as a mapping. Raises ConfigError with one sentence, and OSError."""
    import yaml

    text = _text(path)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml.parse(text, Loader=loader))
        raw = yaml.load(text, Loader=loader)  # noqa: S506 - both are the safe loader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"it is no YAML: {line}{clean(error.problem or 'something is wrong')}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"it is no YAML: {clean(str(error))}.") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError("it holds no signatures; write a mapping with the key `signatures`.")
    return raw


def _text(path: Path) -> str:
    """Only of a regular file: a FIFO would hang us."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError("it is no file; make it one.")
        data = file.read(SIZE_LIMIT + 1)
    if len(data) > SIZE_LIMIT:
        raise ConfigError(f"it is larger than {SIZE_LIMIT // 1024} KiB; take signatures out.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"it is not UTF-8 (byte {error.start}); save it as UTF-8.") from error


def _check_events(events: Any) -> None:
    """Nothing that makes much of little: the C loader crashes the process over ten thousand brackets."""
    depth = 0
    for event in events:
        name, line = type(event).__name__, event.start_mark.line + 1
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > DEEPEST:
            raise ConfigError(f"line {line}: it is nested too deeply; write each signature as the ones of botkeep.")
        if name == "AliasEvent" or getattr(event, "anchor", None):
            raise ConfigError(f"line {line}: anchors and aliases (& and *) are not read here; write the text out.")
        if getattr(event, "tag", None) and event.tag != "!":
            tag = clean(event.tag.replace("tag:yaml.org,2002:", "!!"), 40)
            raise ConfigError(f"line {line}: tags ({tag}) are not read here; take it out.")


# --------------------------------------------------------------------------------------------------- reading an entry


def _own(raw: Any, make: Callable[[Any], _Pattern]) -> Own[_Pattern]:
    """One entry with `bots` and `profiles`. Raises ValueError with `key: what to write`."""
    if not isinstance(raw, dict):
        return Own(make(raw))
    for key in NOT_HERE:
        if key in raw:
            raise ValueError(f"{key}: only botkeep's own files have it; take it out")
    _check_sizes(raw)
    entry = make({key: value for key, value in raw.items() if key not in ("bots", "profiles")})
    return Own(entry, _names(raw, "bots"), _known_profiles(_names(raw, "profiles")))


def _check_sizes(raw: Mapping[Any, Any]) -> None:
    """What makes a pattern dear however good it is."""
    example, texts = raw.get("example"), raw.get("contains")
    if isinstance(example, str) and len(example) > LONGEST_EXAMPLE:
        raise ValueError(f"example: write one line of at most {LONGEST_EXAMPLE} characters")
    for text in texts if isinstance(texts, list) else ():
        if isinstance(text, str) and (len(text.strip()) < SHORTEST_TEXT or "\n" in text):
            raise ValueError(f"contains: write texts of {SHORTEST_TEXT} characters or more, each in one line")


def _names(raw: Mapping[Any, Any], key: str) -> frozenset[str]:
    names = raw.get(key)
    if names is None:
        return frozenset()
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{key}: write a list of names, or leave it out for all")
    return frozenset(names)


def _known_profiles(names: frozenset[str]) -> frozenset[str]:
    from botkeep import fields

    from . import PROFILES

    for name in sorted(names - PROFILES.keys()):
        raise ValueError(f"profiles: found {show(name)}; {fields.closest(name[:60], PROFILES)}")
    return names
