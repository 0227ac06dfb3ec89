"""A bot's env file: `KEY=VALUE` lines that only its owner can read. The values are never shown."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from . import untrusted
from .model import BotkeepError

LIMIT = 256 << 10

_LINE = re.compile(
    r"""[ \t]*(?:export[ \t]+)?
        (?P<key>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*
        (?: '(?P<literal>[^']*)' | "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<bare>[^'"\n][^\n]*?)? )
        [ \t]*(?:(?<=[ \t])\#[^\n]*)?(?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def load_env_file(path: Path) -> dict[str, str]:
    """The variables of a bot's env file; every value is registered for redaction before anybody sees it.

    Lines are `KEY=VALUE`, `export KEY=VALUE`, blank, or `#` comments. 'Single quotes' take all as it is, "double
    quotes" know \\n, \\t, \\" and \\\\; both may go over several lines (a PEM key does). Nothing is interpolated.
    Raises BotkeepError if the file is missing, not regular, not ours, readable by others, or has another line.
    """
    found = parse_env(_read_private(path), str(path))
    untrusted.register_secrets(found.values())
    return found


def _read_private(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise BotkeepError(
            f"The env file {path} cannot be read: {error.strerror}. Mend `env_file` or the file."
        ) from error
    try:
        _refuse_unsafe(path, os.fstat(fd))
        data = os.read(fd, LIMIT + 1)
    finally:
        os.close(fd)
    if len(data) > LIMIT:
        raise BotkeepError(f"The env file {path} has more than {LIMIT} bytes. It should hold KEY=VALUE lines only.")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BotkeepError(f"The env file {path} is not UTF-8 text. Save it as UTF-8.") from error


def _refuse_unsafe(path: Path, found: os.stat_result) -> None:
    """Looked at through the open file: nobody can swap it in between."""
    if not stat.S_ISREG(found.st_mode):
        raise BotkeepError(f"The env file {path} is not a regular file. Name a file with KEY=VALUE lines.")
    if found.st_uid != os.geteuid():
        raise BotkeepError(
            f"The env file {path} belongs to user {found.st_uid}, botkeep runs as user {os.geteuid()}: chown it."
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise BotkeepError(f"The env file {path} can be read by others (mode {mode:04o}). Run: chmod 600 {path}")


def parse_env(text: str, name: str) -> dict[str, str]:
    """The variables in `text`; the last of a key counts. Raises BotkeepError with file and line, never with a value."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        blank = _BLANK.match(text, at)
        match = blank or _LINE.match(text, at)
        if match is None or "\0" in match[0]:
            line = text.count("\n", 0, at) + 1
            raise BotkeepError(f"{name}:{line}: not a KEY=VALUE line. Quote a value that has spaces or a #.")
        if blank is None:
            found[match["key"]] = _value(match)
        at = match.end()
    return found


def _value(match: re.Match[str]) -> str:
    if match["quoted"] is not None:
        return re.sub(r"\\(.)", lambda escaped: _ESCAPES.get(escaped[1], escaped[1]), match["quoted"], flags=re.DOTALL)
    return match["literal"] or match["bare"] or ""
