"""A bot's own trades from its exchange, through ccxt: the only witness that the bot itself could not damage.

The key is named by environment variables and may be one that only reads. Being asked to wait stops everything at once:
another request would make a ban longer, and the bot needs the same address.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ..config import ExchangeConfig
from ..fields import closest
from ..formats.columns import split_symbol
from ..model import BotkeepError, Replay, UsageError
from ..untrusted import clean, register_secrets
from .base import Doubts

if TYPE_CHECKING:
    from .paging import Pages
    from .session import Deadline

DEADLINE = 45.0
"""Seconds for everything."""
MARGIN = timedelta(days=1)
"""Asked for before `since`: a trade from there shows that the exchange's history reaches over it."""
MOST_REQUESTS = 500
AGAIN = (0.5, 1.5)
"""Pauses, in seconds, before a request is made again that met a passing trouble."""
_KINDS = {"spot": ("spot",), "margin": ("spot",), "swap": ("swap",), "future": ("swap", "future")}
"""config.market -> the kinds of market in ccxt's list, the likelier first: what bots call a future is a perpetual."""
_ASIDE = {"margin": {"marginMode": "cross"}}
"""config.market -> what to ask with. Isolated margin accounts are not asked."""
_LOADED = {"spot": ["spot"], "margin": ["spot"], "future": ["linear", "inverse"], "swap": ["linear", "inverse"]}

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)

_STRANGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)
"""What ccxt falls over when an answer is not what it expects."""

_T = TypeVar("_T")


def from_exchange(
    config: ExchangeConfig,
    *,
    symbols: Sequence[str],
    since: datetime,
    now: datetime,
    environment: Mapping[str, str],
    deadline: float = DEADLINE,
) -> Replay:
    """The account's trades of `symbols` (and of config.symbols) from `since` on, and some before it.

    `symbols`: in any spelling. `environment`: where the named keys are. `deadline`: seconds for everything. `since` of
    the result is where the exchange is known to give all; later than asked where its history does not reach so far
    back; None where it gave no trade at all, which proves nothing. `until`: where the time or the pages were over
    before it came to now. Raises ReplayWaitError where it wants to be left alone, UsageError for a mistake in the
    configuration, BotkeepError for everything else.
    """
    keys = _keys(config, environment)
    _require_ccxt()
    from .session import Deadline, OutOfTimeError

    time = Deadline(deadline)
    account = _Account(config, keys, time, now)
    try:
        time.run(lambda: account.read(_asked(config, symbols), since - MARGIN))
    except OutOfTimeError as error:
        if not account.has_trades:
            raise BotkeepError(
                f"{account.name} did not answer within {deadline:g} s. Nothing was taken; ask again later."
            ) from error
        account.cut_short(deadline)
    return account.replay(since)


def _require_ccxt() -> None:
    try:
        import ccxt  # noqa: F401 - a second and 70 MB: only here
    except ImportError as error:
        raise BotkeepError(
            'Reading trades from an exchange needs botkeep[exchange]: pip install "botkeep[exchange]"'
        ) from error


def _keys(config: ExchangeConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """ccxt's name of a credential -> its value. Raises UsageError naming the variables, never a value."""
    named = {"apiKey": config.api_key_env, "secret": config.secret_env, "password": config.password_env}
    if not named["apiKey"] or not named["secret"]:
        raise UsageError(
            f"No key for {config.id} is named: set replay.exchange.api_key_env and secret_env to the names of the "
            "environment variables that hold one. A key that may only read is enough."
        )
    gone = [name for name in named.values() if name and not environment.get(name)]
    if gone:
        raise UsageError(
            f"The environment has no {' and no '.join(gone)}, which the key for {config.id} is to be read from. "
            "Set it where botkeep runs, or in the bot's env_file."
        )
    keys = {kind: environment[name] for kind, name in named.items() if name}
    register_secrets(keys.values())
    return keys


def _asked(config: ExchangeConfig, symbols: Sequence[str]) -> list[str]:
    asked = list(dict.fromkeys([*config.symbols, *symbols]))
    if not asked:
        raise UsageError(
            f"It is not known which symbols to ask {config.id} for, for the bot has no trades that name any: "
            'list them in replay.exchange.symbols, like "BTC/USDT".'
        )
    return asked


class _Account:
    """One account, asked once."""

    def __init__(self, config: ExchangeConfig, keys: Mapping[str, str], time: Deadline, now: datetime) -> None:
        self._config, self._time, self._now = config, time, now
        self.name = config.id if config.endpoint is None else f"{config.id} ({urlsplit(config.endpoint).netloc})"
        self._exchange = _client(config, keys, time)
        self._doubts = Doubts()
        self._notes: list[str] = []
        self._symbols_asked: list[str] = []
        self.pages: list[Pages] = []

    @property
    def has_trades(self) -> bool:
        """Whether anything was read at all."""
        return any(pages.own for pages in self.pages)

    def read(self, asked: Sequence[str], since: datetime) -> None:
        """All pages of all symbols."""
        from .paging import EmptyError, Pager, Pages

        self._call(self._exchange.load_markets)
        self._symbols_asked = self._symbols(asked)
        most = max(MOST_REQUESTS // len(self._symbols_asked), 10)
        for symbol in self._symbols_asked:
            pages = Pages(symbol, self._config.id, self._now, self._doubts)
            self.pages.append(pages)
            try:
                Pager(pages, self._ask, since, most).run()
            except EmptyError as error:
                raise BotkeepError(
                    f"{self.name} answered with something that is no list of trades, like a maintenance page. "
                    "Nothing was taken; ask again later."
                ) from error

    def _ask(self, symbol: str, since: int | None, limit: int, params: dict[str, Any]) -> Any:
        told = params | _ASIDE.get(self._config.market, {})
        return self._call(lambda: self._exchange.fetch_my_trades(symbol, since, limit, told))

    def _call(self, work: Callable[[], _T]) -> _T:
        """One request. Raises BotkeepError, and OutOfTimeError."""
        import ccxt

        from .session import AnswerError
        from .trouble import as_botkeep, is_passing

        for pause in (*AGAIN, None):
            self._time.left()
            try:
                return work()
            except (ccxt.BaseError, AnswerError) as error:
                if pause is None or not is_passing(error):
                    raise as_botkeep(error, self._exchange, self.name, self._now) from None
            except _STRANGE as error:  # ccxt on a strange answer
                raise BotkeepError(
                    f"{self.name} gave an answer that ccxt cannot read ({type(error).__name__}: "
                    f"{clean(str(error), 120)}). Nothing was taken; ask again later."
                ) from None
            self._time.pause(pause)
        raise AssertionError("the last round returns or raises")

    # --- symbols

    def _symbols(self, asked: Sequence[str]) -> list[str]:
        """As the exchange lists them. Raises UsageError if it lists none of them."""
        found = {symbol: self._listed(symbol) for symbol in asked}
        gone = [clean(symbol, 40) for symbol, listed in found.items() if listed is None]
        if gone:
            self._notes.append(f"{self.name} lists no {self._config.market} market {', '.join(gone[:10])}: not asked")
        listed = list(dict.fromkeys(symbol for symbol in found.values() if symbol is not None))
        if not listed:
            raise UsageError(
                f"{self.name} lists no {self._config.market} market {', '.join(gone[:10])}. "
                "Correct replay.exchange.symbols or market."
            )
        return listed

    def _listed(self, symbol: str) -> str | None:
        kinds, markets, wanted = _KINDS[self._config.market], self._exchange.markets, split_symbol(symbol)
        if symbol in markets and markets[symbol].get("type") in kinds:
            return symbol
        same = [name for name, market in markets.items() if market.get("type") in kinds and wanted == _pair(market)]
        return min(same, key=lambda name: kinds.index(markets[name]["type"]), default=None)

    # --- the result

    def cut_short(self, seconds: float) -> None:
        """The time was over: what was read until then counts."""
        self._notes.append(f"{self.name} gave its trades too slowly: only what came within {seconds:g} s was taken")

    def replay(self, since: datetime) -> Replay:
        """What was read, and how far it proves anything."""
        fills = [fill for pages in self.pages for fill in pages.own]
        begins, ends = self._begins(since), self._ends()
        return Replay(
            source="exchange",
            name=self.name,
            fills=tuple(sorted(fills, key=lambda fill: (fill.at, fill.symbol, len(fill.id), fill.id))),
            since=None if begins is None or (ends is not None and ends <= begins) else begins,
            until=ends,
            quarantined=tuple(self._doubts.found),
            notes=tuple(dict.fromkeys([*self._notes, *self._doubts.notes()])),
        )

    def _begins(self, since: datetime) -> datetime | None:
        """The latest of all symbols' beginnings. A symbol without any trade proves nothing for itself."""
        known = []
        for pages in self.pages:
            if pages.own:
                known.append(max(since, pages.begins or since, pages.first))
            else:
                self._notes.append(f"{self.name} gave no trade of {pages.symbol} at all, which proves nothing for it")
        begins = max(known, default=None)
        if begins is not None and begins > since:
            self._notes.append(f"not provable before {begins:%Y-%m-%d %H:%M:%SZ}: what {self.name} gave begins there")
        return begins

    def _ends(self) -> datetime | None:
        """The earliest of all symbols' ends; None: all of them came to now. Those not asked yet end before anything."""
        short = [pages.sure or _NEVER for pages in self.pages if not pages.ended]
        short += [_NEVER] * (len(self._symbols_asked) - len(self.pages))
        end = min(short, default=None)
        if end is not None:
            told = (
                "not read to its end for any moment" if end == _NEVER else f"not read beyond {end:%Y-%m-%d %H:%M:%SZ}"
            )
            self._notes.append(f"{self.name} was {told}: there may be more trades")
        return end


def _pair(market: Mapping[str, Any]) -> tuple[str, str]:
    return str(market.get("base")).upper(), str(market.get("quote")).upper()


# --- the ccxt object ---------------------------------------------------------------------------------------------


def _client(config: ExchangeConfig, keys: Mapping[str, str], time: Deadline) -> Any:
    """ccxt's object for the exchange: exact numbers, our session, nothing that trades or needs another right."""
    import ccxt

    from .session import ONE_REQUEST, GuardedSession

    if config.id not in ccxt.exchanges:
        raise UsageError(f"ccxt knows no exchange {config.id!r}; {closest(config.id, ccxt.exchanges)}.")
    exchange = getattr(ccxt, config.id)({**keys, "enableRateLimit": True, "timeout": int(ONE_REQUEST * 1000)})
    if not exchange.has.get("fetchMyTrades"):
        raise UsageError(f"{config.id} cannot be asked for past trades through ccxt. Remove replay.exchange.")
    exchange.number = str
    exchange.on_json_response = functools.partial(json.loads, parse_float=str, parse_constant=str)
    exchange.filter_by_symbol_since_limit = _unfiltered  # it would drop what shows that an answer is no page of trades
    exchange.has["fetchCurrencies"] = False  # a signed request for what nobody needs here
    exchange.options |= {
        "defaultType": config.market,
        "fetchMargins": False,
        "warnOnFetchCurrenciesWithoutAuthorization": False,
    }
    if config.id.startswith("binance"):
        exchange.options["fetchMarkets"] = {"types": _LOADED[config.market]}
    host = None
    if config.endpoint is not None:
        host = urlsplit(config.endpoint).netloc
        exchange.urls = _moved(exchange.urls, config.endpoint.rstrip("/"))
    exchange.session = GuardedSession(time, host)
    return exchange


def _unfiltered(rows: Any, *_: Any, **__: Any) -> Any:
    return rows


def _moved(value: Any, endpoint: str) -> Any:
    """The same addresses at another scheme, host and port; their paths stay."""
    if isinstance(value, dict):
        return {key: _moved(one, endpoint) for key, one in value.items()}
    if isinstance(value, list):
        return [_moved(one, endpoint) for one in value]
    if not isinstance(value, str) or "://" not in value:
        return value
    path = value.partition("://")[2].partition("/")
    return endpoint + path[1] + path[2]
