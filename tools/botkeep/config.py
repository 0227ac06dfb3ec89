"""`config/bots.json` -> Fleet.

A mistake that leaves no fleet (no file, no JSON, a name twice) is a ConfigError: one line with file, JSON path, what
was found and what to write. A mistake inside one bot's entry is that entry's `problem`; the other bots go on.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from . import untrusted
from .channels import flaw_in
from .durable import read_regular
from .envfile import load_env_file
from .fields import (
    STRICT,
    Amount,
    Beat,
    Duration,
    Every,
    Pause,
    WebAddress,
    Whole,
    Zone,
    closest,
    explain,
    json_path,
    show,
)
from .formats import FORMATS
from .formats.base import FormatOptions
from .formats.columns import ROLES
from .limits import LimitsConfig, PollingLimit
from .model import ConfigError, UsageError
from .profiles import PROFILES
from .runtimes import RUNTIMES
from .workspace import BOTS, STATE, Workspace, find_workspace, is_under

__all__ = [
    "Bot",
    "BotEntry",
    "DataFormat",
    "Fleet",
    "ProgressConfig",
    "Workspace",
    "bots_schema",
    "find_workspace",
    "load_env_file",
    "load_fleet",
    "read_json_file",
]

FILE_LIMIT = 8 << 20
"""Bytes of bots.json: a thousand bots with every key are about a tenth of it."""
TEXT_LIMIT = 8192
"""Characters of one text in it."""
LINE_LIMIT = 32768
"""Characters of one list's texts together."""
NAME_PATTERN = "[a-z0-9][a-z0-9_-]{0,62}"
NAME_RULE = "write 1 to 63 of a-z, 0-9, _ and -, the first one a letter or a digit"

Model = TypeVar("Model", bound=BaseModel)
Loc = tuple[int | str, ...]


# --- one bot -----------------------------------------------------------------------------------------------------


class DataFormat(BaseModel):
    """How the data file is written, where botkeep cannot see it for itself."""

    model_config = STRICT

    kind: str = Field(description="The file's format.")
    delimiter: Literal[",", ";", "\t", "|"] | None = Field(None, description="Between columns; seen if not given.")
    header: bool | None = Field(None, strict=True, description="The first line names the columns; seen if not given.")
    columns: dict[str, str] = Field({}, description="botkeep's name of a column: the file's.")
    timezone: Zone = Field("UTC", description="Of times that carry none.")
    mode: Literal["append", "rewrite"] = Field("append", description="rewrite: the bot changes rows it wrote before.")
    table: str = Field("", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$|^$", description="Of a database; seen if not given.")
    scale: dict[str, Whole] = Field({}, description="botkeep's name of a column: what its integers are divided by.")

    def options(self, currency: str = "") -> FormatOptions:
        """The same as the formats take it; `currency` is the bot's, for amounts that name none."""
        return FormatOptions(
            delimiter=self.delimiter,
            header=self.header,
            columns=self.columns,
            timezone=self.timezone,
            mode=self.mode,
            quote=currency,
            table=self.table,
            scale=self.scale,
        )


class ProgressConfig(BaseModel):
    """A file that the bot touches while it gets somewhere, and how often it does so at the least."""

    model_config = STRICT

    file: Path
    every: Duration


_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,126}$"


class ExchangeConfig(BaseModel):
    """The bot's account on an exchange, to read its trades from. The keys are named, never written here."""

    model_config = STRICT

    id: str = Field(pattern=r"^[a-z0-9]{1,40}$", description="As ccxt calls the exchange: binance, kraken, ...")
    symbols: list[str] = Field([], description="As ccxt writes them: BTC/USDT. Empty: those of the bot's own trades.")
    api_key_env: str | None = Field(None, pattern=_ENV_NAME, description="Name of the variable with the key.")
    secret_env: str | None = Field(None, pattern=_ENV_NAME, description="Name of the one with the secret.")
    password_env: str | None = Field(None, pattern=_ENV_NAME, description="Name of the one with the passphrase.")
    market: Literal["spot", "margin", "future", "swap"] = Field("spot", description="What kind of market it trades.")
    endpoint: WebAddress | None = Field(None, description="Another host than the exchange's own: a proxy.")


class ReplayConfig(BaseModel):
    """Where trades can be read again that the data file lost."""

    model_config = STRICT

    log: Path | None = Field(None, description="The bot's log or event file; if not given, its log_file.")
    grammar: Literal["freqtrade", "hummingbot", "jsonl"] | None = Field(
        None, description="How fills stand in it; if not given, as the profile says."
    )
    columns: dict[str, str] = Field({}, description="Of jsonl: botkeep's name of a value: the file's.")
    exchange: ExchangeConfig | None = None


class MqttConfig(BaseModel):
    """Where a bot publishes its heartbeat. Needs botkeep[mqtt]."""

    model_config = STRICT

    host: str = Field("127.0.0.1", pattern=r"^[A-Za-z0-9.:-]{1,253}$")
    port: Whole = Field(1883, ge=1, le=65535)
    topic: str = Field(pattern=r"^[^\x00-\x1f\x7f+#]{1,200}$", description="Of the heartbeat: hbot/INSTANCE/hb.")
    username_env: str | None = Field(None, pattern=_ENV_NAME, description="Name of the variable with the user name.")
    password_env: str | None = Field(None, pattern=_ENV_NAME, description="Name of the one with the password.")


class ApiConfig(BaseModel):
    """How the bot itself can be asked. Credentials are named by environment variable, never written here."""

    model_config = STRICT

    url: WebAddress | None = Field(None, description="freqtrade: http://127.0.0.1:8080")
    username_env: str | None = Field(None, pattern=_ENV_NAME, description="Name of the variable with the user name.")
    password_env: str | None = Field(None, pattern=_ENV_NAME, description="Name of the one with the password.")
    hbot: list[str] = Field([], max_length=8, description='Hummingbot: the command, ["/opt/hb/bin/hbot"].')
    mqtt: MqttConfig | None = None


class S3Config(BaseModel):
    """A bucket for the second copy of every backup. Credentials come from the environment, as AWS's tools take them."""

    model_config = STRICT

    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    prefix: str = Field("botkeep", pattern=r"^[A-Za-z0-9_-]{1,60}(/[A-Za-z0-9_-]{1,60}){0,4}$")
    region: str = Field("us-east-1", pattern=r"^[a-z0-9-]{1,40}$")
    endpoint: WebAddress | None = Field(None, description="Of a store that is not Amazon's.")
    access_key_env: str = Field("AWS_ACCESS_KEY_ID", pattern=_ENV_NAME, description="Name of the variable.")
    secret_key_env: str = Field("AWS_SECRET_ACCESS_KEY", pattern=_ENV_NAME, description="Name of the variable.")


class BackupConfig(BaseModel):
    """Where backups are kept."""

    model_config = STRICT

    folder: Path | None = Field(None, description="Absolute; if not given, .botkeep/backups of the workspace.")
    s3: S3Config | None = Field(None, description="The second copy. Needs botkeep[s3].")


_WATCHED = r"^[^/\x00-\x1f\x7f\-][^/\x00-\x1f\x7f]{0,254}$"
_CALLED = r"^[A-Za-z_][A-Za-z0-9_.-]{0,62}$"


class Bot(BaseModel):
    """One configured bot. After `load_fleet` every path is absolute, without symlinks, and in an allowed place."""

    model_config = STRICT

    name: str = Field(pattern=f"^{NAME_PATTERN}$", description="Its id.")
    type: str = Field("", description="For people: spot, futures, ...")
    check_interval: Whole = Field(300, ge=5, le=86400, description="Seconds between two looks.")
    process_name: str | None = Field(None, pattern=_WATCHED, description="Its process's or script's name, in full.")
    data_file: Path | None = Field(None, description="Where it writes its trades.")
    health_endpoint: WebAddress | None = Field(None, description="http or https.")
    log_file: Path | None = Field(None, description="Where it logs. Of a bot that botkeep starts: its output as well.")
    runtime: Any = Field(None, description="What runs it. Without one it can be watched, not restarted.")
    profile: str | None = Field(None, description="What kind of program it is; recognised if not given.")
    api: ApiConfig | None = Field(None, description="How the bot itself can be asked.")
    data_format: DataFormat | None = None
    capital: Amount | None = Field(None, gt=0, description="What percent figures are of.")
    currency: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,20}$", description="Of amounts that name none.")
    progress: ProgressConfig | None = None
    limits: LimitsConfig = Field(LimitsConfig(), description="Settings that may be changed in trouble, and no other.")
    notify: list[str] = Field([], description="Who is told of this bot, instead of the fleet's; see there.")
    replay: ReplayConfig = Field(default_factory=ReplayConfig, description="Where lost trades can be read again.")
    paper: bool = Field(False, description="It trades on paper: no exchange knows its trades.")
    restart_every: Every | None = Field(
        None, description="A planned restart, for example to free memory: a length of time, or five cron fields."
    )
    pause: Pause = Field(timedelta(), description="Between stop and start of a planned restart.")
    max_trades_per_hour: Whole | None = Field(None, ge=1, description="More than these is trading-too-often.")
    timezone: Zone = Field("UTC", description="Of times in its log and data that carry none.")

    def format_options(self) -> FormatOptions:
        """How its data file is to be read: `data_format`, or what the bot's own zone and currency say."""
        chosen = self.data_format or DataFormat(kind="", timezone=self.timezone)
        return chosen.options(self.currency)


@dataclass(frozen=True)
class BotEntry:
    """One entry of bots.json: the bot, or why there is none (file, JSON path, found, what to write)."""

    name: str
    bot: Bot | None
    problem: str | None = None


@dataclass(frozen=True)
class Fleet:
    """All configured bots, the broken entries among them, in the file's order."""

    workspace: Workspace
    entries: tuple[BotEntry, ...]
    timezone: str | None = None
    """The people's zone; None: the machine's."""
    notify: tuple[str, ...] = ()
    """Apprise URLs with names of variables in the place of secrets."""
    notify_env: Path | None = None
    """The file with the values; absolute."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts other than this machine that health endpoints may be on."""
    backup: BackupConfig = field(default_factory=BackupConfig)
    heartbeat_url: str = ""
    """Who is told outside that `botkeep watch` lives; with names of variables in the place of secrets."""
    wake: tuple[str, ...] = ()
    """The command that wakes an assistant; empty: people are told instead."""
    wakes_per_hour: int = 4
    commit: bool = False
    """Whether a round that acted commits memory/ and playbooks/."""

    @cached_property
    def bots(self) -> tuple[Bot, ...]:
        """The entries without a mistake."""
        return tuple(entry.bot for entry in self.entries if entry.bot is not None)

    @property
    def tells(self) -> bool:
        """Whether anybody is to be told of anything."""
        return bool(self.notify) or any(bot.notify for bot in self.bots)

    def asked(self, names: Sequence[str] | None) -> list[str]:
        """The names asked for, each once; all of them if none. Raises UsageError for an unknown one."""
        if not names:
            return [entry.name for entry in self.entries]
        return list(dict.fromkeys(self.get(name).name for name in names))

    def usable(self, name: str) -> Bot:
        """The bot. Raises UsageError if it is unknown or its entry is broken."""
        entry = self.get(name)
        if entry.bot is None:
            raise UsageError(f"{name} cannot be used: {entry.problem}")
        return entry.bot

    @cached_property
    def _by_name(self) -> dict[str, BotEntry]:
        return {entry.name: entry for entry in self.entries}

    def get(self, name: str) -> BotEntry:
        """The entry of that name. Raises UsageError naming the closest ones first."""
        entry = self._by_name.get(name)
        if entry is None:
            raise UsageError(self._no_such_bot(name))
        return entry

    def _no_such_bot(self, name: str) -> str:
        asked = untrusted.clean(name, 80)
        if not self.entries:
            return f'There is no bot "{asked}": {BOTS} lists none yet.'
        near = difflib.get_close_matches(name, self._by_name, n=3)
        names = [*near, *(known for known in self._by_name if known not in near)]
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return f'There is no bot "{asked}". The bots are: {", ".join(names[:20])}{more}.'


# --- reading JSON ------------------------------------------------------------------------------------------------


class _Twice(dict[str, Any]):
    """A JSON object in which a key stands twice; json would silently take the last."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = _Twice(found)
    keys = [key for key, _ in pairs]
    twice.key = next(key for key in keys if keys.count(key) > 1)
    return twice


def _decimal(text: str) -> Decimal | str:
    """Exact; a number of absurd size stays text, for int(Decimal("1e1000000")) would hold a core for a minute."""
    if len(text) > 40:
        return text
    number = Decimal(text)
    return number if abs(number.adjusted()) <= 30 else text


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def read_json_file(path: Path, name: str, limit: int = FILE_LIMIT) -> Any:
    """Any JSON value from a person's file; numbers with a point are exact Decimals.

    Raises ConfigError, naming the file as `name`: missing, empty, too large, not regular, writable by everybody, or
    not JSON (then with line and column).
    """
    try:
        data = read_regular(path, limit)
        mode = path.stat().st_mode if data is not None else 0
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror or error}.") from error
    if data is None:
        raise ConfigError(f"{name}: there is no such file in {path.parents[1]}. `botkeep init DIR` writes one.")
    if mode & 0o002:
        raise ConfigError(f"{name}: everybody may write to it, and it says what is run. Run: chmod o-w {path}")
    if not data.strip():
        raise ConfigError(f"{name}: the file is empty. `botkeep init` into another folder shows what belongs there.")
    return _parse_json(data, name)


def _parse_json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data, object_pairs_hook=_object, parse_float=_decimal, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: nested too deep to be a configuration.") from error
    except ValueError as error:
        raise ConfigError(f"{name}: not JSON: {untrusted.clean(str(error), 120)}.") from error


# --- the fleet ---------------------------------------------------------------------------------------------------


class _File(BaseModel):
    """The top of bots.json; its bots are validated one by one."""

    model_config = STRICT

    editor_schema: str | None = Field(None, alias="$schema")
    bots: list[Any]
    allowed_paths: list[str] = Field(
        [], description="Folders outside the workspace that bots' files may be in; absolute."
    )
    allowed_hosts: list[str] = Field([], description="Hosts other than this machine that health endpoints may be on.")
    timezone: Zone | None = Field(None, description="The people's: for reports and the schedule.")
    notify: list[str] = Field([], description="Who is told: Apprise URLs with every secret as ${NAME}.")
    notify_env: Path | None = Field(None, description="A file of mode 0600 with the values: NAME=VALUE lines.")
    backup: BackupConfig = Field(BackupConfig(), description="Where backups are kept.")
    heartbeat_url: Beat | None = Field(None, description="Asked while `botkeep watch` lives (Healthchecks.io).")
    wake: list[str] = Field([], max_length=64, description='What wakes an assistant: ["claude", "-p", ...].')
    wakes_per_hour: Whole = Field(4, ge=1, le=60, description="At most so many.")
    commit: bool = Field(False, strict=True, description="Commit memory/ and playbooks/ after a round that acted.")


class _EntryError(Exception):
    """A mistake at one place of the file: becomes an entry's problem, or a ConfigError at the top."""

    def __init__(self, loc: Iterable[int | str], text: str) -> None:
        super().__init__(f"{BOTS} {json_path(loc)}: {text}")


def load_fleet(workspace: Workspace) -> Fleet:
    """Read config/bots.json. Opens no bot's file.

    Raises ConfigError where there is no fleet: the file is missing, empty, too large, not regular, writable by
    everybody, not JSON or not of this shape; a name stands twice or breaks the grammar of names.
    """
    try:
        top = _top(read_json_file(workspace.bots_file, BOTS))
        names = _names(top.bots)
        places = _Places(workspace.home, top.allowed_paths)
        notify_env = Path(places.require(str(top.notify_env), ("notify_env",))) if top.notify_env else None
    except _EntryError as flaw:
        raise ConfigError(str(flaw)) from flaw
    bots = [_parse_entry(entry, index, places) for index, entry in enumerate(top.bots)]
    flaws = _shared(bots)
    entries = tuple(
        _entry(name, flaws.get(index, bot)) for index, (name, bot) in enumerate(zip(names, bots, strict=True))
    )
    return Fleet(
        workspace, entries, top.timezone, tuple(top.notify), notify_env, tuple(top.allowed_hosts), top.backup,
        heartbeat_url=top.heartbeat_url or "", wake=tuple(top.wake), wakes_per_hour=top.wakes_per_hour,
        commit=top.commit,
    )  # fmt: skip


def _entry(name: str, found: Bot | str) -> BotEntry:
    return BotEntry(name, None, found) if isinstance(found, str) else BotEntry(name, found)


def _top(raw: Any) -> _File:
    if not isinstance(raw, dict):
        raise _EntryError((), f'found {show(raw)}; write an object: {{"bots": [...]}}')
    if isinstance(raw, _Twice):
        raise _EntryError((), f"the key {show(raw.key)} stands twice; keep one")
    top = _validate(_File, raw, ())
    if top.backup.folder is not None and not top.backup.folder.is_absolute():
        raise _EntryError(("backup", "folder"), f"found {show(str(top.backup.folder))}; write an absolute path")
    _refuse_unsafe({key: value for key, value in raw.items() if key != "bots"}, ())
    _refuse_no_channel(top.notify, ())
    return top


def _names(bots: Sequence[Any]) -> list[str]:
    """Every entry's name. Raises _EntryError: without sound, different names there is no telling the bots apart."""
    sound = re.compile(NAME_PATTERN)
    places: dict[str, int] = {}
    for index, entry in enumerate(bots):
        if not isinstance(entry, dict):
            raise _EntryError(("bots", index), f'found {show(entry)}; write an object: {{"name": "...", ...}}')
        name = entry.get("name")
        if not isinstance(name, str) or not sound.fullmatch(name):
            found = f"found {show(name)}" if "name" in entry else "it is missing"
            raise _EntryError(("bots", index, "name"), f"{found}; {NAME_RULE}")
        if name in places:
            text = f'"{name}" is the name of $.bots[{places[name]}] already; choose another'
            raise _EntryError(("bots", index, "name"), text)
        places[name] = index
    return list(places)


def _validate(model: type[Model], raw: Any, loc: Loc) -> Model:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        inner, text = explain(error, model)
        raise _EntryError((*loc, *inner), text) from error


def _parse_entry(raw: dict[str, Any], index: int, places: _Places) -> Bot | str:
    """The bot, or its problem."""
    loc = ("bots", index)
    try:
        _refuse_unsafe(raw, loc)
        bot = _validate(Bot, raw, loc)
        runtime = _runtime(raw.get("runtime"), (*loc, "runtime"), places)
        _refuse_unknown_kinds(bot, loc)
        _refuse_deaf_reload(bot, loc)
        _refuse_no_limit(bot, runtime, loc)
        _refuse_no_channel(bot.notify, loc)
        return bot.model_copy(update={"runtime": runtime, **_placed(bot, loc, places)})
    except _EntryError as flaw:
        return str(flaw)


def _runtime(raw: Any, loc: Loc, places: _Places) -> BaseModel | None:
    """The runtime's own Config: which one, `kind` says."""
    if raw is None:
        return None
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or kind is None:
        raise _EntryError(loc, f'found {show(raw)}; write an object with "kind", one of: {", ".join(RUNTIMES)}')
    _refuse_unknown(kind, RUNTIMES, (*loc, "kind"))
    config = _validate(RUNTIMES[kind].Config, raw, loc)
    for key in ("cwd", "env_file"):
        place = getattr(config, key, None)
        if isinstance(place, str):
            places.require(place, (*loc, key))
    return config


def _refuse_unknown_kinds(bot: Bot, loc: Loc) -> None:
    if bot.profile is not None:
        _refuse_unknown(bot.profile, PROFILES, (*loc, "profile"))
    if bot.data_format is not None:
        _refuse_unknown(bot.data_format.kind, FORMATS, (*loc, "data_format", "kind"))
        for role in (*bot.data_format.columns, *bot.data_format.scale):
            _refuse_unknown(role, ROLES, (*loc, "data_format", "columns"))
    for role in bot.replay.columns:
        _refuse_unknown(role, ROLES, (*loc, "replay", "columns"))


def _refuse_deaf_reload(bot: Bot, loc: Loc) -> None:
    """A reload that nobody could ever ask for would be found out in the middle of a ban."""
    polling = bot.limits.polling
    if polling is not None and polling.apply == "reload" and (bot.api is None or bot.api.url is None):
        text = 'found "reload"; write the "api" with its "url" that is told to reload, or "restart"'
        raise _EntryError((*loc, "limits", "polling", "apply"), text)


def _refuse_no_limit(bot: Bot, runtime: BaseModel | None, loc: Loc) -> None:
    """A limit that nothing keeps, and so nothing can raise."""
    kinds = ("docker", "compose", "swarm", "systemd")
    if bot.limits.memory is not None and getattr(runtime, "kind", None) not in kinds:
        text = f"only a memory limit that an engine keeps can be raised; write it for a runtime of {' or '.join(kinds)}"
        raise _EntryError((*loc, "limits", "memory"), text)


def _refuse_no_channel(notify: Sequence[str], loc: Loc) -> None:
    """What an alert cannot be sent to would be found out in the middle of one."""
    for index, entry in enumerate(notify):
        if flaw := flaw_in(entry):
            raise _EntryError((*loc, "notify", index), flaw)


def _refuse_unknown(kind: Any, known: Iterable[str], loc: Loc) -> None:
    """The allowed names are the keys of the one dict that also finds the module."""
    names = list(known)
    if kind not in names:
        raise _EntryError(loc, f"found {show(kind)}; {closest(kind if isinstance(kind, str) else '', names)}")


# --- paths -------------------------------------------------------------------------------------------------------


class _Places:
    """Where files of bots may be. Asks the kernel once per folder: a thousand bots share few."""

    def __init__(self, home: Path, allowed: Sequence[str]) -> None:
        self.home = os.path.realpath(home)
        self._known: dict[str, str] = {}
        self._roots = [self.home]
        for index, folder in enumerate(allowed):
            root = os.path.realpath(folder)
            if not os.path.isabs(folder) or root == "/":
                text = f"found {show(folder)}; write an absolute path of a folder, not of the whole machine"
                raise _EntryError(("allowed_paths", index), text)
            self._roots.append(root)

    def require(self, written: str, loc: Loc) -> str:
        """The absolute path without symlinks. Raises _EntryError if it leads out of the allowed places."""
        asked = os.path.join(self.home, written)
        path = self._real(asked)
        if not any(is_under(path, root) for root in self._roots):
            leads = "" if asked == path else f", which leads to {untrusted.clean(path, 120)}"
            raise _EntryError(
                loc,
                f"found {show(written, 120)}{leads}, outside the workspace; "
                f'move it inside, or list its folder under "allowed_paths"',
            )
        return path

    def _real(self, path: str) -> str:
        if ".." in path:
            return os.path.realpath(path)
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self._look(path)
        return known

    def _look(self, path: str) -> str:
        folder, name = os.path.split(path)
        if not name:
            return self._real(folder) if folder != path else path
        place = os.path.join(self._real(folder), name)
        return os.path.realpath(place) if os.path.islink(place) else os.path.normpath(place)


def _placed(bot: Bot, loc: Loc, places: _Places) -> dict[str, Any]:
    """The bot's paths, absolute. Raises _EntryError for one that leads outside, or for data in botkeep's folder."""
    placed: dict[str, Any] = {}
    for key in ("data_file", "log_file"):
        written = getattr(bot, key)
        if written is not None:
            placed[key] = Path(places.require(str(written), (*loc, key)))
    data = placed.get("data_file")
    if data is not None and is_under(str(data), os.path.join(places.home, STATE)):
        raise _EntryError(
            (*loc, "data_file"), f"found {show(str(bot.data_file))}; {STATE} is botkeep's own, choose another"
        )
    if bot.replay.log is not None:
        log = places.require(str(bot.replay.log), (*loc, "replay", "log"))
        placed["replay"] = bot.replay.model_copy(update={"log": Path(log)})
    if bot.progress is not None:
        file = places.require(str(bot.progress.file), (*loc, "progress", "file"))
        placed["progress"] = bot.progress.model_copy(update={"file": Path(file)})
    if bot.limits.polling is not None:
        polling = _placed_polling(bot.limits.polling, loc, places)
        placed["limits"] = bot.limits.model_copy(update={"polling": polling})
    return placed


def _placed_polling(polling: PollingLimit, loc: Loc, places: _Places) -> PollingLimit:
    """The same with its file's absolute path: nowhere else, and never in botkeep's own folder, is anything written."""
    where = (*loc, "limits", "polling", "file")
    file = places.require(str(polling.file), where)
    if is_under(file, os.path.join(places.home, STATE)):
        raise _EntryError(where, f"found {show(str(polling.file))}; {STATE} is botkeep's own, choose another")
    return polling.model_copy(update={"file": Path(file)})


def _shared(bots: Sequence[Bot | str]) -> dict[int, str]:
    """Problems of bots that have what must be one bot's own: by index."""
    data: dict[str, list[int]] = {}
    runs: dict[str, list[int]] = {}
    told: dict[str, list[int]] = {}
    swapped: dict[str, list[int]] = {}
    for index, bot in enumerate(bots):
        if isinstance(bot, str):
            continue
        if bot.data_file is not None:
            data.setdefault(str(bot.data_file), []).append(index)
        if bot.runtime is not None:
            runs.setdefault(_what_runs(bot.runtime), []).append(index)
        for source in _replayed_from(bot):
            told.setdefault(source, []).append(index)
        if bot.limits.polling is not None:
            swapped.setdefault(str(bot.limits.polling.file), []).append(index)
    return {
        **_each_other(swapped, bots, "limits", "its polling file is that of {other} too; give each bot its own"),
        **_each_other(told, bots, "replay", "its trades would be read again from the same log or account as {other}'s, "
                      "and each would get the other's; give each bot its own log, or symbols of its own"),
        **_each_other(runs, bots, "runtime", "it would run the same as {other}, and their processes could not be told "
                      "apart; give one of them an argument or a folder of its own"),
        **_each_other(data, bots, "data_file", "it is the data file of {other} too; give each bot its own"),
    }  # fmt: skip


def _replayed_from(bot: Bot) -> Iterator[str]:
    """The log, and each market of the account, that this bot's trades are read again from."""
    log = bot.replay.log or (bot.log_file if bot.replay.grammar else None)
    if log is not None:
        yield f"log {log}"
    account = bot.replay.exchange
    if account is not None and not bot.paper:
        keys = (account.id, account.market, account.api_key_env, getattr(bot.runtime, "env_file", None))
        for symbol in account.symbols or ["*"]:
            yield f"account {keys} {symbol}"


def _what_runs(runtime: BaseModel) -> str:
    """What tells two bots' processes apart: all of the runtime but how they are stopped and what they are given."""
    return runtime.model_dump_json(exclude={"stop_grace", "env", "env_file"})


def _each_other(groups: dict[str, list[int]], bots: Sequence[Bot | str], key: str, text: str) -> dict[int, str]:
    found = {}
    for members in groups.values():
        for index in members if len(members) > 1 else ():
            others = ", ".join(bot.name for i in members if i != index and isinstance(bot := bots[i], Bot))
            found[index] = str(_EntryError(("bots", index, key), text.format(other=untrusted.clean(others, 200))))
    return found


# --- texts -------------------------------------------------------------------------------------------------------

_TELLING = ("key", "secret", "pass", "pwd", "token", "sign", "mnemonic", "seed", "auth", "bearer", "basic", "hooks",
            "-----", "eyj", "@")  # fmt: skip
_SSH_USER = re.compile(r"=ssh://([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})@")
_RUNS = re.compile(
    r"[A-Z0-9]{20}|[A-Za-z0-9_-]{35}|(?:gh[opsu]|github_pat|xox[abeprs]|sk|glpat)[-_][A-Za-z0-9_-]{20}"
    r"|(?:[a-z]{3,8}[ ,\t]{1,3}){11}"
)


def _refuse_unsafe(raw: dict[str, Any], loc: Loc) -> None:
    """Raises _EntryError for a key that stands twice, a text that cannot be used, a literal secret."""
    texts: list[tuple[Loc, str]] = []
    _collect(raw, loc, texts)
    if not may_hold_secret("\n".join([text for _, text in texts])):
        return
    for place, text in texts:
        text = _SSH_USER.sub(r"=ssh://\1 ", text)  # who logs in there is no secret, unless his name looks like one
        kind = _secret_in(text) if may_hold_secret(text) else None
        if kind is not None:
            raise _EntryError(
                place,
                f"it holds {kind}, and secrets are never written here; "
                f'put it into a file of mode 0600 that "env_file" of the runtime names',
            )


def _secret_in(text: str) -> str | None:
    """With its key, which may tell; and by itself, for some patterns want the whole text."""
    return untrusted.looks_like_secret(text) or untrusted.looks_like_secret(text.partition("=")[2])


def may_hold_secret(text: str) -> bool:
    """False only where `untrusted.looks_like_secret` finds nothing; it costs ten times as much, for each bot."""
    lower = text.casefold()
    for word in _TELLING:
        if word in lower:
            return True
    return _RUNS.search(text) is not None


def _collect(value: Any, loc: Loc, texts: list[tuple[Loc, str]]) -> None:
    """Every text with its place as `key=text`, for many a secret is known by its key only; an argv as one line too."""
    if isinstance(value, str):
        texts.append((loc, f"{loc[-1]}={untrusted.strip(_usable(value, loc))}"))
    elif isinstance(value, dict):
        if isinstance(value, _Twice):
            raise _EntryError(loc, f"the key {show(value.key)} stands twice; keep one")
        for key, inner in value.items():
            if key == "notify":  # URLs, in which `user:${PASSWORD}@` is no secret: `flaw_in` knows what is one there
                _collect(inner, (*loc, key), [])
            else:
                _collect(inner, (*loc, key), texts)
    elif isinstance(value, list):
        line = " ".join([_usable(item, loc) for item in value if isinstance(item, str)])
        if len(line) > LINE_LIMIT:
            raise _EntryError(loc, f"a list of {len(line)} characters; write at most {LINE_LIMIT}")
        texts.append((loc, f"{loc[-1]}={line}"))
        for index, inner in enumerate(value):
            _collect(inner, (*loc, index), texts)


def _usable(text: str, loc: Loc) -> str:
    if len(text) > TEXT_LIMIT:
        raise _EntryError(loc, f"a text of {len(text)} characters; write at most {TEXT_LIMIT}")
    if text.isascii() and text.isprintable():
        return text
    if "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise _EntryError(loc, "a text with a character that no path or argument can have (NUL, half a surrogate)")
    return text


# --- JSON Schema -------------------------------------------------------------------------------------------------


def bots_schema() -> dict[str, Any]:
    """The JSON Schema of bots.json, for editors; kinds are the keys of the dicts that find their modules."""
    schema = _File.model_json_schema(ref_template="#/$defs/{model}")
    bot = Bot.model_json_schema(ref_template="#/$defs/{model}")
    definitions = {**schema.pop("$defs", {}), **bot.pop("$defs", {})}
    runtimes = [_runtime_schema(kind, definitions) for kind in RUNTIMES]
    bot["properties"]["runtime"] = {**bot["properties"]["runtime"], "anyOf": [*runtimes, {"type": "null"}]}
    bot["properties"]["profile"] = {**bot["properties"]["profile"], "anyOf": [_one_of(PROFILES), {"type": "null"}]}
    kind = definitions["DataFormat"]["properties"]["kind"]
    definitions["DataFormat"]["properties"]["kind"] = {**kind, **_one_of(FORMATS)}
    schema["properties"]["bots"]["items"] = {"$ref": "#/$defs/Bot"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "botkeep: bots.json",
        "$defs": {**definitions, "Bot": bot},
    }


def _runtime_schema(kind: str, definitions: dict[str, Any]) -> dict[str, str]:
    config = RUNTIMES[kind].Config.model_json_schema(ref_template="#/$defs/{model}")
    definitions.update(config.pop("$defs", {}))
    name = f"Runtime-{kind}"
    definitions[name] = {**config, "title": name}
    return {"$ref": f"#/$defs/{name}"}


def _one_of(names: Iterable[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(names)}
