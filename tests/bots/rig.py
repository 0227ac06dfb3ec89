"""A workspace with a real freqtrade in it: dry run, on the stand-in exchange, started through botkeep.

Everything is asked as a person would ask it: the bot's own API, its database, its log, the process table. Only the
waits in the playbooks are short. What botkeep said is kept as a transcript, for docs/bots.md.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import secrets
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from botkeep.earnings import Wish
from botkeep.model import Actor, Observation, Result, Verdict
from botkeep.openfiles import open_writers
from botkeep.pnl_figures import PnlFigures
from botkeep.rounds import RoundReport
from bots.exchange import PAIRS, Market
from support.exchange import running
from support.fleet import Fleet, fleet
from support.fleet import wait_for as wait

HERE = Path(__file__).parent
FREQTRADE = Path(os.environ.get("BOTKEEP_FREQTRADE") or HERE.parents[1] / ".venv-bots/bin/freqtrade").absolute()
"""The real thing, in its own virtual environment."""
TRANSCRIPTS = os.environ.get("BOTKEEP_TRANSCRIPTS")
"""The folder that takes what botkeep said; none is kept if empty."""
NAME = "keeper"
HELD = PAIRS[0]
"""The strategy never leaves it: a trade in it stays open."""
BOOT = 60.0
"""Seconds: freqtrade boots in seven on a quiet machine."""
WORDS = {
    r"up_for: \w+, within: \w+": "up_for: 2s, within: 30s",
    r"loop_at_least: \w+": "loop_at_least: 20s",
    r"per_open_trade: \w+": "per_open_trade: 2s",
}
"""Waits of the playbooks, as a person may edit them. A start is given time: freqtrade listens after seven seconds."""
LOOP_LIMIT = 20.0
"""Seconds without a main loop, after which this workspace calls the bot hung."""


@dataclass
class Rig:
    """One bot, its exchange, and the workspace that keeps it."""

    fleet: Fleet
    market: Market
    port: int
    user: str
    password: str
    said: list[str] = field(default_factory=list)

    # ------------------------------------------------------------------------------------------------ places

    @property
    def home(self) -> Path:
        """The workspace."""
        return self.fleet.home

    @property
    def database(self) -> Path:
        """Its trades; beside it the -wal and the -shm."""
        return self.home / "bot/tradesv3.dryrun.sqlite"

    @property
    def log(self) -> Path:
        """Its log."""
        return self.home / "bot/freqtrade.log"

    @property
    def hang_file(self) -> Path:
        """The strategy's next analysis takes it and never returns."""
        return self.home / "bot/hang"

    # ------------------------------------------------------------------------------------------------ botkeep

    def up(self, trades: int = 1) -> int:
        """Start it through botkeep, wait until its main loop ran and so many trades are closed; its pid."""
        report = self.fleet.desk().restart(NAME, "first start")
        assert report.result in (Result.DONE, Result.VERIFYING), report.sentence
        self.wait_for_loop(int(report.pid or 0))
        wait(lambda: len(self.closed_ids()) >= trades, BOOT)
        return int(report.pid or 0)

    def verdict(self) -> Verdict:
        """A confirmed look."""
        return self.fleet.verdict(NAME)

    def observation(self) -> Observation:
        """One look, before anything is decided."""
        return self.fleet.desk().bench().look(NAME).observation

    def round(self) -> RoundReport:
        """A round by code alone."""
        return self.fleet.desk(Actor.ROUND).round()

    def pnl(self) -> PnlFigures:
        """What botkeep makes of its trades."""
        return self.fleet.desk().pnl([NAME], Wish())[0]

    def edit(self, fault: str, pattern: str, new: str) -> None:
        """A person's edit of a playbook."""
        self.fleet.edit(fault, pattern, new)

    def say(self, *argv: str) -> str:
        """What a person reads who types `botkeep ARGV`; kept for the transcript."""
        command = [sys.executable, "-m", "botkeep", "--home", str(self.home), *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=_bare())
        assert "Traceback" not in done.stderr, done.stderr
        told = done.stdout + done.stderr
        self.said.append(f"$ botkeep {' '.join(argv)}\n{told.rstrip()}\n")
        return told

    # ------------------------------------------------------------------------------------------------ the bot's API

    def ask(self, path: str, *, post: bool | dict[str, Any] = False) -> Any:
        """What its API answers; `post`: told, and with what. Raises urllib.error.URLError."""
        address = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        body = json.dumps(post).encode() if isinstance(post, dict) else None
        request = urllib.request.Request(address, body, method="GET" if post is False else "POST")
        request.add_header("Content-Type", "application/json")
        key = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {key}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def trade(self) -> None:
        """Have it make two trades now and not at the next candle; wait until they are closed, and it has said so."""
        before = len(self.fills())
        for pair in PAIRS[1:]:
            with suppress(urllib.error.HTTPError):  # a candle has just begun: it trades this pair by itself
                self.ask("forceenter", post={"pair": pair})
        wait(lambda: len(self.fills()) >= before + 2, BOOT)

    def answers(self, path: str) -> Any:
        """The same; None while it does not listen or is not ready."""
        try:
            return self.ask(path)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def state(self) -> str:
        """running, paused or stopped, by its own word; empty while it does not listen."""
        return str((self.answers("show_config") or {}).get("state", ""))

    def wait_for_heartbeat(self, pid: int) -> None:
        """Until the process of this pid says in its log that it is the bot, and its API says in which state."""
        wait(lambda: pid in self.heartbeats(), BOOT)
        wait(self.state, BOOT)

    def wait_for_loop(self, pid: int) -> None:
        """The same, and until its main loop was done once."""
        self.wait_for_heartbeat(pid)
        wait(lambda: self.loop_age() < math.inf, BOOT)

    def wait_for_standing_loop(self, seconds: float) -> None:
        """Until it was not done for so long, as its API says."""
        wait(lambda: seconds < self.loop_age() < math.inf, BOOT + seconds)

    def loop_age(self) -> float:
        """Seconds since its main loop was last done; endless before the first, and while nobody answers."""
        at = (self.answers("health") or {}).get("last_process_ts")
        return time.time() - float(at) if at else math.inf

    # ------------------------------------------------------------------------------------------------ the world

    def copies(self) -> set[int]:
        """Pids of all that has its database open for writing, whatever it is called and whoever started it."""
        if not self.database.exists():
            return set()
        return set(open_writers(self.database))

    def kill(self, pid: int) -> None:
        """kill -9, and wait until the last of its threads is gone: only then it lets go of its files."""
        end = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            assert select.select([end], [], [], 20)[0], f"pid {pid} outlives its kill"
        finally:
            os.close(end)

    def by_hand(self, *argv: str, cwd: Path) -> subprocess.Popen[bytes]:
        """A copy as a person starts it in a terminal, past botkeep."""
        environment = {**_bare(), **self.keys()}
        process = subprocess.Popen(
            argv, cwd=cwd, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.fleet.others.append(process)
        return process

    def keys(self) -> dict[str, str]:
        """What its env file holds."""
        return {"FREQTRADE__API_SERVER__USERNAME": self.user, "FREQTRADE__API_SERVER__PASSWORD": self.password}

    def type_short(self) -> None:
        """The bot is configured as people type it: in its folder, with paths from there."""
        bots = {"bots": [entry(self.port, SHORT_COMMAND, "bot")]}
        (self.home / "config/bots.json").write_text(json.dumps(bots))

    def configure(self, **more: Any) -> None:
        """Edit freqtrade's configuration."""
        path = self.home / "bot/config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}, indent=1))

    # ------------------------------------------------------------------------------------------------ its database

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """An answer of its database, read only; nothing while there is none."""
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)) as base:
            return base.execute(question).fetchall()

    def closed_ids(self) -> list[int]:
        """Ids of its closed trades."""
        try:
            return [row[0] for row in self.rows("SELECT id FROM trades WHERE is_open = 0 ORDER BY id")]
        except sqlite3.OperationalError:  # it is making its tables
            return []

    def open_ids(self) -> list[int]:
        """Ids of its open trades."""
        return [row[0] for row in self.rows("SELECT id FROM trades WHERE is_open = 1 ORDER BY id")]

    def api_ids(self) -> set[int]:
        """Ids of all trades that the running bot knows."""
        closed = self.ask("trades?limit=500")["trades"]
        return {one["trade_id"] for one in (*closed, *self.ask("status"))}

    # ------------------------------------------------------------------------------------------------ its log

    def lines(self) -> str:
        """All that it logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def heartbeats(self) -> set[int]:
        """Pids that said in its log that they are this bot."""
        return {int(pid) for pid in re.findall(r"Bot heartbeat\. PID=(\d+)", self.lines())}

    def fills(self) -> dict[int, Decimal]:
        """Closed trades as its log tells them: id -> profit."""
        found = re.findall(r"'type': exit_fill, 'trade_id': (\d+).*?'profit_amount': (-?[\d.e-]+)", self.lines())
        return {int(number): Decimal(profit) for number, profit in found}


def _bare() -> dict[str, str]:
    """cron's environment, nearly: nothing of this process but where programs are."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "HOME": "/nonexistent", "TZ": "UTC"}


def free_port() -> int:
    """A port of this machine that nobody has right now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def command(place: Path) -> list[str]:
    """How the bot in that folder is started."""
    files = ["--config", str(place / "config.json"), "--userdir", str(place), "--logfile", str(place / "freqtrade.log")]
    return [str(FREQTRADE), "trade", *files, "--strategy", "KeeperStrategy"]


SHORT_COMMAND = command(Path())
"""The same as people type it: in the bot's folder, with paths from there."""


def entry(port: int, argv: list[str], cwd: str = ".") -> dict[str, Any]:
    """The bot in bots.json, as docs/bots.md tells people to write it."""
    api = f"http://127.0.0.1:{port}"
    return {
        "name": NAME,
        "type": "spot",
        "profile": "freqtrade",
        "check_interval": 60,
        "runtime": {
            "kind": "process",
            "command": argv,
            "cwd": cwd,
            "stop_grace": 20,
            "env_file": "bot/keys.env",
            "env": {"TZ": "UTC"},
        },
        "data_file": "bot/tradesv3.dryrun.sqlite",
        "log_file": "bot/freqtrade.log",
        "health_endpoint": f"{api}/api/v1/ping",
        "api": {"url": api, "username_env": "FREQTRADE__API_SERVER__USERNAME",
                "password_env": "FREQTRADE__API_SERVER__PASSWORD"},
        "currency": "USDT",
        "paper": True,
    }  # fmt: skip


def furnish(place: Path, market: Market, port: int, **more: Any) -> None:
    """A folder with freqtrade's own configuration, pointed at the exchange of this machine."""
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(bot_config(market.base, port, place, **more), indent=1))


def bot_config(base: str, port: int, place: Path, **more: Any) -> dict[str, Any]:
    """What it holds; `more` goes before the rest."""
    v3 = f"{base}/api/v3"
    urls = {"public": v3, "private": v3, "v1": f"{base}/api/v1"}
    urls |= {name: f"{base}/sapi/{version}" for name, version in (("sapi", "v1"), ("sapiV2", "v2"), ("sapiV3", "v3"))}
    price = {"price_side": "other", "use_order_book": True, "order_book_top": 1}
    return {
        "bot_name": NAME, "dry_run": True, "dry_run_wallet": 10000, "max_open_trades": len(PAIRS),
        "stake_currency": "USDT", "stake_amount": 200, "tradable_balance_ratio": 0.99, "timeframe": "1m",
        "cancel_open_orders_on_exit": False, "unfilledtimeout": {"entry": 1, "exit": 1, "unit": "minutes"},
        "entry_pricing": price, "exit_pricing": price,
        "db_url": f"sqlite:///{place / 'tradesv3.dryrun.sqlite'}",
        "strategy_path": str(HERE / "strategies"),
        "exchange": {
            "name": "binance", "key": "", "secret": "", "enable_ws": False,
            "ccxt_config": {
                "enableRateLimit": True, "rateLimit": 20, "timeout": 10000, "urls": {"api": urls},
                "options": {"fetchMarkets": ["spot"], "fetchCurrencies": False},
            },
            "pair_whitelist": list(PAIRS), "pair_blacklist": [],
        },
        "pairlists": [{"method": "StaticPairList"}],
        "telegram": {"enabled": False, "token": "", "chat_id": ""},
        "api_server": {
            "enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": port, "verbosity": "error",
            "jwt_secret_key": secrets.token_hex(16), "ws_token": secrets.token_hex(8), "CORS_origins": [],
        },
        "initial_state": "running", "force_entry_enable": True,
        "internals": {"process_throttle_secs": 1, "heartbeat_interval": 5},
        "hang_file": str(place / "hang"), "hold_seconds": 3, "held_pairs": [HELD],
        **more,
    }  # fmt: skip


@contextmanager
def rig(home: Path, title: str = "", **more: Any) -> Iterator[Rig]:
    """A workspace with the bot, not yet started. `title`: of its transcript. `more`: of freqtrade's configuration."""
    port = free_port()
    with running(Market()) as market, fleet(home, entry(port, command(home / "bot"))) as found:
        assert isinstance(market, Market)
        one = Rig(found, market, port, "keeper", secrets.token_hex(12))
        furnish(home / "bot", market, port, **more)
        keys = home / "bot/keys.env"
        keys.touch(mode=0o600)
        keys.write_text("".join(f"{name}={value}\n" for name, value in one.keys().items()))
        _shorten(home)
        try:
            yield one
        finally:
            _keep_transcript(one, title)


def _shorten(home: Path) -> None:
    for path in (home / "playbooks").glob("*.md"):
        text = path.read_text()
        for pattern, short in WORDS.items():
            text = re.sub(pattern, short, text, count=1)
        path.write_text(text)


def _keep_transcript(one: Rig, title: str) -> None:
    if not TRANSCRIPTS or not title or not one.said:
        return
    text = "\n".join(one.said)
    (Path(TRANSCRIPTS) / f"{re.sub('[^a-z0-9]+', '-', title.lower())}.txt").write_text(f"{title}\n\n{text}")
