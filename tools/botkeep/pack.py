"""`botkeep init`: the pack's texts and an example configuration, copied into a workspace.

Run again it brings unchanged files up to date, leaves alone what a person changed, and never deletes anything.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from . import __version__
from .bundle import root
from .config import bots_schema
from .durable import read_json, read_regular, write_atomic
from .model import BotkeepError, UsageError, iso
from .playbooks import load_playbooks
from .templating import OWN, PACKAGED
from .workspace import Workspace, is_under

__all__ = ["EXAMPLE_BOTS", "SCHEDULE_LIST", "InitReport", "init", "root"]

FOLDER = "botkeep"
"""Agent Skills: a folder with a SKILL.md has the skill's name, else it does not validate."""
MANIFEST = "pack.json"
TEXT_LIMIT = 8 << 20
ONCE = frozenset({"config/bots.json", "config/schedule.json", "memory/bot-operations.md", ".gitignore"})
"""Made where they are missing and never touched again: from then on they are people's, or the journal."""

SCHEDULE_LIST: list[dict[str, str]] = [
    {"schedule": "*/5 * * * *", "task": "bot_health_check"},
    {"schedule": "0 8 * * *", "task": "bot_morning_report"},
    {"schedule": "0 * * * *", "task": "bot_backup"},
]

EMPTY_BOTS: dict[str, Any] = {"$schema": "./bots.schema.json", "bots": []}
"""A fresh workspace has nothing that could be started or reported as down by mistake."""

EXAMPLE_BOTS: dict[str, Any] = {
    "$schema": "./bots.schema.json",
    "timezone": "Europe/Lisbon",
    "notify": ["tgram://${TELEGRAM_TOKEN}/${TELEGRAM_CHAT}"],
    "notify_env": "notify.env",
    "allowed_paths": ["/srv/bots"],
    "allowed_hosts": ["bots.lan"],
    "bots": [
        {
            "name": "doge-long",
            "type": "spot",
            "check_interval": 300,
            "process_name": "doge_long_bot",
            "data_file": "data/doge_trades.csv",
            "health_endpoint": "http://localhost:8080/health",
        },
        {
            "name": "doge-short",
            "type": "futures",
            "process_name": "doge_short_bot",
            "data_file": "data/doge_short_trades.csv",
            "log_file": "logs/doge_short.log",
            "runtime": {
                "kind": "process",
                "command": ["python", "doge_short_bot.py", "--paper"],
                "cwd": "bots",
                "stop_grace": 30,
                "env_file": "doge-short.env",
                "env": {"LOG_LEVEL": "INFO"},
            },
            "capital": "1000.00",
            "currency": "USDT",
            "max_trades_per_hour": 3,
            "notify": [
                "tgram://${DOGE_SHORT_TOKEN}/${DOGE_SHORT_CHATS}",
                "mailto://${MAIL_USER}:${MAIL_PASSWORD}@example.org",
            ],
        },
        {
            "name": "btc-optimized",
            "type": "futures",
            "check_interval": 60,
            "process_name": "btc_v1_bot",
            "data_file": "data/btc_trades.csv",
            "data_format": {
                "kind": "csv",
                "delimiter": ";",
                "header": True,
                "columns": {"time": "closed_at", "pnl": "profit"},
                "timezone": "Europe/Lisbon",
                "mode": "append",
            },
            "runtime": {"kind": "process", "command": ["python", "btc_v1_bot.py"], "cwd": "bots"},
            "profile": "plain",
            "progress": {"file": "data/btc.alive", "every": "2m"},
            "limits": {
                "polling": {
                    "file": "bots/btc-polling.json",
                    "normal": {"poll_seconds": 5},
                    "reduced": {"poll_seconds": 60},
                    "apply": "watched",
                }
            },
            "restart_every": "1d",
            "pause": "30s",
            "timezone": "Europe/Lisbon",
        },
        {
            "name": "freqtrade",
            "type": "spot",
            "runtime": {
                "kind": "process",
                "command": [
                    "/srv/bots/ft/.venv/bin/freqtrade",
                    "trade",
                    "--config",
                    "user_data/config.json",
                    "--config",
                    "user_data/polling.json",
                    "--strategy",
                    "SampleStrategy",
                    "--logfile",
                    "user_data/logs/freqtrade.log",
                ],
                "cwd": "/srv/bots/ft",
                "env_file": "freqtrade.env",
            },
            "data_file": "/srv/bots/ft/tradesv3.sqlite",
            "log_file": "/srv/bots/ft/user_data/logs/freqtrade.log",
            "api": {
                "url": "http://127.0.0.1:8080",
                "username_env": "FREQTRADE__API_SERVER__USERNAME",
                "password_env": "FREQTRADE__API_SERVER__PASSWORD",
            },
            "limits": {
                "polling": {
                    "file": "/srv/bots/ft/user_data/polling.json",
                    "normal": {"internals": {"process_throttle_secs": 5}},
                    "reduced": {"internals": {"process_throttle_secs": 30}},
                    "apply": "reload",
                }
            },
            "replay": {
                "exchange": {
                    "id": "binance",
                    "api_key_env": "FREQTRADE__EXCHANGE__KEY",
                    "secret_env": "FREQTRADE__EXCHANGE__SECRET",
                }
            },
        },
        {
            "name": "hummingbot-mm",
            "type": "market making",
            "process_name": "hummingbot",
            "data_file": "/srv/bots/hummingbot/data/conf_simple_pmm_1.sqlite",
            "log_file": "/srv/bots/hummingbot/logs/logs_conf_simple_pmm_1.log",
            "paper": True,
            "replay": {"grammar": "hummingbot"},
        },
    ],
    "backup": {"folder": "/mnt/backup/botkeep", "s3": {"bucket": "my-bots", "region": "eu-central-1"}},
}
"""Every key in use; written beside bots.json as bots.example.json, which nothing reads."""

_IGNORED = ".botkeep/\n*.env\n.env\n"
"""State, logs and keys are no part of what an assistant commits."""


@dataclass(frozen=True)
class InitReport:
    """What `init` did, by path in the workspace."""

    workspace: Workspace
    created: tuple[str, ...]
    updated: tuple[str, ...]
    """Unchanged since the last `init`, so brought to this version."""
    kept: tuple[str, ...]
    """Not as we left them, so a person's: left alone."""
    notes: tuple[str, ...] = ()
    """What a person should know or do next; one sentence each."""


def init(directory: Path, now: datetime) -> InitReport:
    """Make `directory` a workspace, or bring one up to date. Nothing outside it is written, whatever links it holds.

    Raises UsageError if it is no folder, or a folder in it is a link that leads outside; BotkeepError if it cannot be
    written, or its `.botkeep` is unsafe or on a file system that is not local.
    """
    home = _folder(directory)
    workspace = Workspace(home)
    wanted = dict(_files())
    for name in wanted:
        _refuse_leading_out(home, name)
    workspace.prepare()
    report = _write(workspace, wanted, now)
    load_playbooks(workspace)  # each good one is kept as the last good version from the start
    return report


def _folder(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{directory} is not a folder. Name one, or a path where one can be made.") from error
    except OSError as error:
        raise BotkeepError(f"The folder {directory} cannot be made: {error.strerror}.") from error
    return Path(os.path.realpath(directory))


def _refuse_leading_out(home: Path, name: str) -> None:
    folder = os.path.realpath((home / name).parent)
    if not is_under(folder, str(home)):
        raise UsageError(
            f"{name} would be written to {folder}, outside {home}: a folder in it is a link. Remove the link."
        )


def _files() -> Iterator[tuple[str, bytes]]:
    """Everything `init` writes: path in the workspace -> content."""
    yield "SKILL.md", _text(root() / "SKILL.md")
    for folder in ("skills", "playbooks"):
        for path in sorted((root() / folder).rglob("*")):
            name = path.relative_to(root())
            if path.is_file() and not any(part.startswith((".", "__")) for part in name.parts):
                yield str(name), _text(path)
    for path in sorted(PACKAGED.glob("*.j2")):
        yield f"{OWN}/{path.name}", _text(path)
    yield "memory/bot-operations.md", _text(root() / "memory/bot-operations.md")
    yield "config/bots.json", _json(EMPTY_BOTS)
    yield "config/bots.example.json", _json(EXAMPLE_BOTS)
    yield "config/bots.schema.json", _json(bots_schema())
    yield "config/schedule.json", _schedule()
    yield ".gitignore", _IGNORED.encode()


def _text(path: Path) -> bytes:
    data = read_regular(path, TEXT_LIMIT)
    if data is None:
        raise BotkeepError(f"{path} is missing: this installation of botkeep is damaged. Install it again.")
    return data


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _schedule() -> bytes:
    """One task a line, as the first users write it."""
    lines = ",\n".join(f"  {json.dumps(task)}" for task in SCHEDULE_LIST)
    return f"[\n{lines}\n]\n".encode()


def _write(workspace: Workspace, wanted: Mapping[str, bytes], now: datetime) -> InitReport:
    """Each file by one rule: missing -> made; as we left it -> brought up to date; else it is a person's."""
    before = _ours(workspace)
    done: dict[str, list[str]] = {"created": [], "updated": [], "kept": [], "same": []}
    ours = dict(before)
    for name, data in wanted.items():
        what = _what(workspace.home / name, name, data, before.get(name))
        done[what].append(name)
        if what in ("created", "updated"):
            _put(workspace.home / name, data)
        if what != "kept":
            ours[name] = _hash(data)
    _put(workspace.state_dir / MANIFEST, _json({"version": __version__, "at": iso(now), "files": ours}), 0o600)
    created, updated, kept = (tuple(done[key]) for key in ("created", "updated", "kept"))
    newer = [name for name in kept if before.get(name) != _hash(wanted[name])]
    return InitReport(workspace, created, updated, kept, tuple(_notes(workspace.home, newer)))


def _ours(workspace: Workspace) -> dict[str, str]:
    """Path -> hash of what `init` wrote there last."""
    files = (read_json(workspace.state_dir / MANIFEST) or {}).get("files")
    return {str(name): str(value) for name, value in files.items()} if isinstance(files, dict) else {}


def _what(path: Path, name: str, data: bytes, ours: str | None) -> str:
    if not os.path.lexists(path):
        return "created"
    if path.is_symlink() or name in ONCE:
        return "same"
    try:
        found = read_regular(path, TEXT_LIMIT)
    except OSError:
        return "kept"
    if found == data:
        return "same"
    return "updated" if found is not None and _hash(found) == ours else "kept"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _put(path: Path, data: bytes, mode: int = 0o644) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, mode)
    except OSError as error:
        raise BotkeepError(f"{path} cannot be written: {error.strerror}. Mend that and run init again.") from error


def _notes(home: Path, newer: Sequence[str]) -> Iterator[str]:
    for name in newer:
        packaged = f"; compare with {root() / name}" if (root() / name).is_file() else ""
        yield f"{name} is yours and was kept; this version of botkeep has another text{packaged}."
    if home.name != FOLDER:
        yield f"Agent Skills wants the folder of a SKILL.md to be named {FOLDER}; this one is {home.name}."
    yield "Next: write your bots into config/bots.json (config/bots.example.json shows every key), then: botkeep doctor"
