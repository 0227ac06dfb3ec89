"""freqtrade's REST API, asked one thing at a time and read strictly. Every answer is untrusted.

The API is a thread beside the main loop: it answers while the loop hangs, before the loop has begun, and after it has
ended. What an answer is worth is for the profile to say; here it is only made sure that it is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from botkeep import web
from botkeep.model import LivePosition
from botkeep.untrusted import clean
from botkeep.web import WebError

STATES = frozenset({"running", "paused", "stopped", "reload_config", ""})
"""Empty: it is starting or stopping."""
HOLDS = ("pause", "stopentry", "stopbuy")
"""What stops new positions, from the newest freqtrade to the oldest; the later names are the older ones'."""
POSITION_BYTES = 32 * 1024
"""One open trade, with the orders of many additions to it."""
MOST_POSITIONS = 256
MOST_LOGS = 200
LOG_BYTES = 1 << 20
_NO_SUCH = (404, 405)
_NOT_READY = "not in the correct state"
_LAST_SECOND = 253_402_300_799  # of the year 9999


@dataclass(frozen=True)
class Access:
    """Where the API is, who may answer, and as whom we ask."""

    url: str
    credentials: web.Credentials | None = None
    mend: str = "Write api.username_env and api.password_env into config/bots.json."
    """What a person should do when it says that we may not ask: one sentence."""
    owner_pids: Set[int] | None = None
    allowed_hosts: Set[str] = frozenset()


@dataclass(frozen=True)
class ShownConfig:
    """What the bot runs with, of /show_config."""

    state: str
    """One of STATES, or a word that only a newer freqtrade knows."""
    runmode: str
    """live or dry_run for a bot that trades."""
    dry_run: bool
    version: str = ""
    exchange: str = ""
    stake_currency: str = ""
    max_open_trades: int | None = None
    """-1: as many as there are pairs."""


@dataclass(frozen=True)
class Health:
    """Of /health. Whole seconds, as freqtrade cuts them; in the future, if its clock is."""

    last_process: datetime | None
    """When the main loop was last done in running or paused; None: not yet."""
    startup: datetime | None
    """When it last went from stopped (as every start does) to running or paused. It is kept in the bot's database:
    until it does so again, a new process gives the time of an old one."""


@dataclass(frozen=True)
class SystemInfo:
    """Of /sysinfo, in percent of the whole machine."""

    cpu: tuple[Decimal, ...]
    memory: Decimal


@dataclass(frozen=True)
class LogRecord:
    """A line of the newest that the process itself remembers."""

    at: datetime
    logger: str
    text: str


class Api:
    """One bot's API; one deadline for everything that is asked through it.

    Every question raises WebError, beside the rules of `web.ask`: unauthorized, not-ready (it is starting or stopping,
    no fault), status, too-long, not-json (what came is not what freqtrade writes).
    """

    def __init__(self, access: Access, clock: web.Deadline) -> None:
        self._access = access
        self._clock = clock
        self._base = re.sub(r"(?:/api/v1)?/*\Z", "", access.url) + "/api/v1/"

    def show_config(self) -> ShownConfig:
        """What it runs with, also before and after its main loop."""
        told = self._told("show_config")
        return ShownConfig(
            state=told.text("state", 40),
            runmode=told.text("runmode", 40),
            dry_run=told.flag("dry_run"),
            version=told.text("version", 40, ""),
            exchange=told.text("exchange", 40, ""),
            stake_currency=told.text("stake_currency", 20, ""),
            max_open_trades=told.whole_or_none("max_open_trades"),
        )

    def health(self) -> Health:
        """How its main loop is doing."""
        told = self._told("health")
        return Health(told.seconds("last_process_ts"), told.seconds("bot_startup_ts"))

    def count(self) -> int:
        """How many trades are open. A stopped bot refuses to say: rule `status`."""
        return self._told("count").whole("current")

    def positions(self, at_most: int) -> tuple[LivePosition, ...]:
        """The open trades with their current result; an answer for more than `at_most` of them is too long.

        For prices older than five minutes freqtrade asks the exchange first, one request a trade.
        """
        limit = web.BODY_LIMIT + POSITION_BYTES * min(at_most, MOST_POSITIONS)
        raw = self._get("status", limit)
        if not isinstance(raw, list):
            raise _not_freqtrade("status", f"{_kind(raw)}, not a list")
        if len(raw) > MOST_POSITIONS:
            raise WebError("too-long", f"it tells of {len(raw)} open trades; {MOST_POSITIONS} are read.")
        return tuple(_position(_Told("status", one, self._hide)) for one in raw)

    def version(self) -> str:
        """Of the program."""
        return self._told("version").text("version", 40)

    def system_info(self) -> SystemInfo:
        """Load of the bot's machine, as the bot sees it."""
        told = self._told("sysinfo")
        return SystemInfo(told.numbers("cpu_pct"), told.number("ram_pct"))

    def logs(self, newest: int) -> tuple[LogRecord, ...]:
        """The newest lines (at most 200) that this very process has logged, the oldest of them first."""
        told = self._told(f"logs?limit={min(newest, MOST_LOGS)}", LOG_BYTES)
        return tuple(_record(row, self._hide) for row in told.rows("logs"))

    def stop_entries(self) -> str:
        """Open no new positions from now on; open ones are looked after. Returns the name under which it knew that.

        A stopped bot would be started by this, into `paused`: see to it that it is not. One before 2025.4 has no such
        state: it allows itself no open trades, until its configuration is read again.
        """
        for name in HOLDS:
            answer = self._ask("POST", name, web.BODY_LIMIT)
            if answer.status not in _NO_SUCH:
                self._said(name, answer)
                return name
        raise WebError("status", f"it answers {answer.status} to all of {', '.join(HOLDS)}.")

    def start(self) -> str:
        """Trade, from stopped or paused. Returns what it said."""
        return self._post("start")

    def reload_config(self) -> str:
        """Read the configuration again; it comes up in the state that says. Returns what it said."""
        return self._post("reload_config")

    # ------------------------------------------------------------------------------------------------------------

    def _get(self, path: str, limit: int = web.BODY_LIMIT) -> Any:
        return self._read(path.partition("?")[0], self._ask("GET", path, limit))

    def _told(self, path: str, limit: int = web.BODY_LIMIT) -> _Told:
        return _Told(path.partition("?")[0], self._get(path, limit), self._hide)

    def _post(self, name: str) -> str:
        return self._said(name, self._ask("POST", name, web.BODY_LIMIT))

    def _said(self, name: str, answer: web.Answer) -> str:
        return _Told(name, self._read(name, answer), self._hide).text("status", 200)

    def _hide(self, text: str) -> str:
        credentials = self._access.credentials
        return credentials.hide(text) if credentials else text

    def _ask(self, method: str, path: str, limit: int) -> web.Answer:
        access = self._access
        question = web.Question(
            self._base + path,
            method,
            credentials=access.credentials,
            limit=limit,
            owner_pids=access.owner_pids,
            allowed_hosts=access.allowed_hosts,
        )
        return web.ask(question, self._clock)

    def _read(self, what: str, answer: web.Answer) -> Any:
        """The JSON of a good answer. Raises WebError for any other one."""
        if answer.status in (401, 403):
            raise WebError("unauthorized", f"it answers {answer.status}, so it does not know us. {self._access.mend}")
        said = answer.said()
        if answer.status in (502, 503) and _NOT_READY in said:
            raise WebError("not-ready", "it is starting or stopping, and answers nothing yet.")
        if not 200 <= answer.status < 300:
            raise WebError("status", f"it answers {answer.status} to {what}{': ' + said if said else ''}.")
        if answer.missing == "too-long":
            raise WebError("too-long", f"its answer to {what} goes on after {len(answer.body) >> 10} KiB.")
        if answer.missing:
            raise WebError("status", f"the connection broke before its answer to {what} was complete.")
        return _parse(what, answer)


# -------------------------------------------------------------------------------------------------------- the JSON


def _not_freqtrade(what: str, found: str) -> WebError:
    return WebError("not-json", f"its answer to {what} is not freqtrade's: {found}.")


def _parse(what: str, answer: web.Answer) -> Any:
    if answer.content_type == "text/html":
        raise _not_freqtrade(what, "a web page; see whether api.url is where the API is")
    try:
        return json.loads(
            answer.body.decode(),
            parse_float=_decimal,
            parse_int=_whole,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        found = f"no JSON at character {error.pos}" if answer.body.strip() else "nothing"
        raise _not_freqtrade(what, found) from error
    except UnicodeDecodeError as error:
        raise _not_freqtrade(what, "not UTF-8") from error
    except RecursionError as error:
        raise _not_freqtrade(what, "nested too deep") from error
    except ValueError as error:
        raise _not_freqtrade(what, clean(str(error), 80)) from error


def _decimal(text: str) -> Decimal | str:
    """Exact; a number of absurd size stays text, which no field takes: int(Decimal("1e1000000")) lasts a minute."""
    if len(text) > 40:
        return text
    number = Decimal(text)
    return number if abs(number.adjusted()) <= 30 else text


def _whole(text: str) -> int | str:
    return int(text) if len(text) <= 30 else text


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


_REQUIRED = "\0"
Hide = Callable[[str], str]
_KINDS: dict[type, str] = {
    type(None): "nothing", bool: "true or false", str: "text", list: "a list", dict: "an object",
    int: "a number", Decimal: "a number",
}  # fmt: skip


def _kind(value: Any) -> str:
    return _KINDS[type(value)]


class _Told:
    """One JSON object, whose values have the type they must have, or are refused with the name of the key.

    A refusal does not quote the value: whoever listens there was given the credentials, and may give them back.
    """

    def __init__(self, what: str, raw: Any, hide: Hide) -> None:
        if not isinstance(raw, Mapping):
            raise _not_freqtrade(what, f"{_kind(raw)}, not an object")
        self._what = what
        self._raw = raw
        self._hide = hide

    def _refuse(self, key: str, wanted: str) -> WebError:
        return _not_freqtrade(self._what, f"{key} is {_kind(self._raw.get(key))}, not {wanted}")

    def text(self, key: str, limit: int, default: str = _REQUIRED) -> str:
        """Cleaned and of at most `limit` characters. `default`: where it is missing or null."""
        value = self._raw.get(key)
        if value is None and default is not _REQUIRED:
            return default
        if not isinstance(value, str):
            raise self._refuse(key, "text")
        return clean(self._hide(value), limit)

    def flag(self, key: str) -> bool:
        value = self._raw.get(key)
        if not isinstance(value, bool):
            raise self._refuse(key, "true or false")
        return value

    def whole(self, key: str) -> int:
        """From 0 to a billion."""
        value = self._raw.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10**9:
            raise self._refuse(key, "a count")
        return value

    def whole_or_none(self, key: str) -> int | None:
        """None for anything but a whole number, also where it is written with a point."""
        value = self._raw.get(key)
        if isinstance(value, bool) or not isinstance(value, int | Decimal) or value != int(value):
            return None
        return int(value)

    def number(self, key: str) -> Decimal:
        """Exactly as written."""
        value = self.number_or_none(key)
        if value is None:
            raise self._refuse(key, "a number")
        return value

    def number_or_none(self, key: str) -> Decimal | None:
        """None where it is missing or null: freqtrade writes NaN so."""
        value = self._raw.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise self._refuse(key, "a number")
        return Decimal(value)

    def numbers(self, key: str) -> tuple[Decimal, ...]:
        values = self.rows(key)
        if not all(isinstance(one, int | Decimal) and not isinstance(one, bool) for one in values):
            raise self._refuse(key, "numbers")
        return tuple(Decimal(one) for one in values)

    def rows(self, key: str) -> list[Any]:
        value = self._raw.get(key)
        if not isinstance(value, list):
            raise self._refuse(key, "a list")
        return value

    def seconds(self, key: str, per_second: int = 1) -> datetime | None:
        """A moment in seconds (or parts of them) since 1970; None where it is missing or null."""
        value = self._raw.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LAST_SECOND * per_second:
            raise self._refuse(key, "a moment")
        return _moment(value, per_second)


def _moment(value: int | Decimal, per_second: int) -> datetime:
    whole, parts = divmod(value, per_second)
    return datetime.fromtimestamp(int(whole), UTC).replace(microsecond=int(parts * 1_000_000 / per_second))


def _position(told: _Told) -> LivePosition:
    return LivePosition(
        id=str(told.whole("trade_id")),
        symbol=told.text("pair", 60),
        side="short" if told.flag("is_short") else "long",
        amount=told.number("amount"),
        entry=told.number("open_rate"),
        currency=told.text("quote_currency", 20, ""),
        stake=told.number_or_none("stake_amount"),
        price=told.number_or_none("current_rate"),
        unrealised=told.number_or_none("profit_abs"),
        opened=told.seconds("open_timestamp", 1000),
    )


def _record(row: Any, hide: Hide) -> LogRecord:
    """[date, milliseconds, logger, level, text]."""
    if not isinstance(row, list) or len(row) != 5 or not _are_texts((row[2], row[4])):
        raise _not_freqtrade("logs", "a line without logger and text")
    if isinstance(row[1], bool) or not isinstance(row[1], int | Decimal) or not 0 < row[1] <= _LAST_SECOND * 1000:
        raise _not_freqtrade("logs", "a line without a moment")
    return LogRecord(_moment(row[1], 1000), clean(hide(row[2]), 80), clean(hide(row[4]), 300))


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(one, str) for one in values)
