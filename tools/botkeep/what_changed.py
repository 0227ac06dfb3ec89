"""What changed before a bot came to be as it is: deeds of the ledger, edited files, versions, this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import hostring
from .ledger import Entry, Kind
from .model import Action, Mark, iso, parse_iso
from .runtimes.procs import read_program
from .untrusted import clean

if TYPE_CHECKING:
    from .config import Bot

WITHIN = timedelta(hours=24)
MOST = 8
"""Changes of one diagnosis; the newest."""
MOST_FILES = 12
DEEDS = frozenset({Action.START, Action.RESTART, Action.STOP, Action.RESTORE, Action.POLL})
VERSIONS = ("version", "strategy_version")
"""Values of a mark that name a version."""
_CONFIG_FLAGS = ("-c", "--config", "--conf", "--config-file")
_STRATEGY_FLAGS = ("-s", "--strategy")
_STRATEGY_PATHS = ("--strategy-path",)
_USER_FOLDERS = ("--userdir", "--user-data-dir")
_ENDINGS = (".py", ".json", ".yml", ".yaml", ".toml", ".ini", ".cfg", ".conf", ".env")
"""Of what is a program's own or its configuration, where a command names it without a flag."""

Change = tuple[datetime, str]


@dataclass(frozen=True)
class Watched:
    """A file that decides how a bot works. Only its times are asked for; it is never opened."""

    name: str
    """For people: `its configuration user_data/config.json`."""
    path: Path


def what_changed(
    began: datetime,
    *,
    entries: Sequence[Entry] = (),
    files: Iterable[Watched] = (),
    versions: Mapping[str, Any] | None = None,
    ring: hostring.Ring | None = None,
) -> tuple[str, ...]:
    """What happened in the day before `began`, the newest last, each one line that begins with its time.

    `entries`: of the ledger, about this bot. `versions`: as `remember_versions` gave them. `ring`: as
    `hostring.remember` gave it.
    """
    found = [*_deeds(entries), *_edits(files), *_new_versions(versions)]
    near = [one for one in found if began - WITHIN <= one[0] <= began] + list(hostring.changes(ring, began))
    return tuple(f"{_stamp(at)}: {text}" for at, text in sorted(near)[-MOST:])


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


# ---------------------------------------------------------------------------------------------------- deeds


def _deeds(entries: Sequence[Entry]) -> Iterator[Change]:
    """Starts, stops, restores and people's notes: the outcome where there is one, else that it was begun."""
    answered = {one.ref for one in entries if one.kind is Kind.OUTCOME}
    for one in entries:
        done = one.kind is Kind.OUTCOME or (one.kind is Kind.INTENT and one.id not in answered)
        if one.kind is Kind.NOTE or (done and one.action in DEEDS):
            yield one.at, clean(one.sentence)


# ---------------------------------------------------------------------------------------------------- files


def files_of(bot: Bot, home: Path) -> tuple[Watched, ...]:
    """The files that the bot's command, its runtime and its configuration name, as far as they can be told."""
    runtime, its_own = bot.runtime, {bot.data_file, bot.log_file}
    cwd = home / getattr(runtime, "cwd", ".") if runtime else home
    found = [
        Watched(f"its {kind} {_shown(path, home)}", path)
        for kind, path in _named(bot, cwd)
        if Path(os.path.normpath(path)) not in its_own  # what it writes itself
    ]
    env_file = getattr(runtime, "env_file", None)
    if env_file:
        found.append(Watched(f"its env file {_shown(home / env_file, home)}", home / env_file))
    return tuple({one.path: one for one in found}.values())[:MOST_FILES]


def _named(bot: Bot, cwd: Path) -> Iterator[tuple[str, Path]]:
    """What stands in the command: the program's script, configurations after a flag, the strategy."""
    command = tuple(getattr(bot.runtime, "command", None) or ())
    program = read_program(command)
    if program is None:
        return
    if program.script.endswith(_ENDINGS) and not program.is_module:
        yield "program", cwd / program.script
    flags = list(_flags(program.arguments))
    for name, value in flags:
        if name in _CONFIG_FLAGS:
            yield "configuration", cwd / value
        elif not name and value.endswith(_ENDINGS):
            yield "file", cwd / value
    yield from _strategy(flags, cwd)


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(flag, value) for `-c x`, `--config x` and `--config=x`; ("", word) for what no flag stands before."""
    before = ""
    for word in arguments:
        if word.startswith("--") and "=" in word:
            name, _, value = word.partition("=")
            yield name, value
            before = ""
        elif word.startswith("-"):
            before = word
        else:
            yield before, word
            before = ""


def _strategy(flags: Sequence[tuple[str, str]], cwd: Path) -> Iterator[tuple[str, Path]]:
    """freqtrade names a strategy's class; its file is called so as a rule, in the folder of strategies."""
    values = dict(flags)
    name = next((values[flag] for flag in _STRATEGY_FLAGS if flag in values), "")
    if not name.isidentifier():
        return
    user = next((values[flag] for flag in _USER_FOLDERS if flag in values), "user_data")
    folder = next((values[flag] for flag in _STRATEGY_PATHS if flag in values), f"{user}/strategies")
    yield "strategy", cwd / folder / f"{name}.py"


def _shown(path: Path, home: Path) -> str:
    """From the workspace on, if it is in there."""
    whole = os.path.normpath(path)
    return clean(whole.removeprefix(f"{os.path.normpath(home)}/"), 120)


def _edits(files: Iterable[Watched]) -> Iterator[Change]:
    for one in files:
        try:
            found = one.path.stat()
        except OSError:
            continue
        edited, touched = (datetime.fromtimestamp(at, UTC) for at in (found.st_mtime, found.st_ctime))
        yield edited, f"{one.name} was edited"
        if touched - edited > timedelta(minutes=1):
            yield touched, f"{one.name} was put there, or its rights were changed"


# ---------------------------------------------------------------------------------------------------- versions


def remember_versions(
    before: Mapping[str, Any] | None, marks: Mapping[str, Mark], version: str, now: datetime
) -> dict[str, Any]:
    """JSON to be kept between looks: each version that the bot names, the one before it, and when it changed.

    `before`: what this gave at the last look. `version`: what the bot's API names, or empty.
    """
    kept = {name: dict(one) for name, one in (before or {}).items() if name in VERSIONS and isinstance(one, dict)}
    for name, value, at in _said(marks, version, now):
        known = kept.get(name)
        if known is None:
            kept[name] = {"is": value}
        elif known.get("is") != value:
            kept[name] = {"is": value, "was": known.get("is", ""), "at": iso(at)}
    return kept


def _said(marks: Mapping[str, Mark], version: str, now: datetime) -> Iterator[tuple[str, str, datetime]]:
    """Of two marks the newer one counts. What the API says is of now."""
    newest: dict[str, tuple[datetime, str]] = {}
    for mark in marks.values():
        for name in VERSIONS:
            value = mark.values.get(name, "")
            if value and mark.this_run and (name not in newest or newest[name][0] < mark.at):
                newest[name] = mark.at, value
    if version and "version" not in newest:
        newest["version"] = now, version
    yield from ((name, value, at) for name, (at, value) in newest.items())


def _new_versions(versions: Mapping[str, Any] | None) -> Iterator[Change]:
    for name, one in (versions or {}).items():
        if name in VERSIONS and isinstance(one, dict) and one.get("at"):
            with suppress(KeyError, ValueError):  # a cursor of another version
                was, now, at = str(one["was"]), str(one["is"]), parse_iso(one["at"])
                yield at, f"its {name.replace('_', ' ')} changed from {clean(was, 80)} to {clean(now, 80)}"
