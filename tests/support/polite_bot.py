"""A bot that polls an exchange as often as a file says, and logs what the exchange answers.

    polite_bot.py EXCHANGE FILE [--once] [--api PORT [--state STATE]]

It reads FILE ({"poll_ms": N}, else 20) before each question; with --once only when it starts. With --api it tells its
state and takes a reload as freqtrade does: in its own main loop, by asking the exchange for everything, and ending if
it refuses; it then comes up in STATE, whatever it was before.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def say(level: str, text: str) -> None:
    """A line as freqtrade writes it."""
    now = datetime.now(UTC)
    print(f"{now:%Y-%m-%d %H:%M:%S},{now.microsecond // 1000:03d} - freqtrade.worker - {level} - {text}", flush=True)


class Bot:
    """Its settings, its state, and what it asks."""

    def __init__(self, exchange: str, file: Path, *, once: bool, comes_up: str) -> None:
        self.exchange, self.file, self.once, self.comes_up = exchange, file, once, comes_up
        self.state = comes_up
        self.reloads = threading.Event()
        self.began = int(time.time())
        self.looped = self.began
        self.pause = self.read()

    def read(self) -> float:
        """Seconds between two questions."""
        return float(json.loads(self.file.read_text()).get("poll_ms", 20)) / 1000

    def run(self) -> None:
        """Poll for ever."""
        say("INFO", f"Changing state to: {self.state.upper()}")
        while True:
            if self.reloads.is_set():
                self.reload()
            if not self.once:
                self.pause = self.read()
            if self.state == "running":
                self.ask("poll")
            self.looped = int(time.time())
            time.sleep(self.pause)

    def reload(self) -> None:
        """All anew."""
        self.pause = self.read()
        if not self.ask("exchangeInfo"):
            say("ERROR", "Could not load markets, therefore cannot start.")
            sys.exit(2)
        self.state = self.comes_up
        self.reloads.clear()

    def ask(self, what: str) -> bool:
        """Whether the exchange answered."""
        try:
            with urllib.request.urlopen(f"{self.exchange}/{what}", timeout=5) as answer:
                say("INFO", f"price {answer.read().decode()}")
        except urllib.error.HTTPError as error:
            say("WARNING", f"binance GET {self.exchange} {error.code} {error.reason} {error.read().decode()}")
            return False
        else:
            return True

    def answer(self, path: str) -> dict[str, Any]:
        """As freqtrade's API tells it."""
        return {
            "ping": {"status": "pong"},
            "show_config": {"state": self.state, "runmode": "dry_run", "dry_run": True, "version": "2026.9"},
            "health": {"last_process_ts": self.looped, "bot_startup_ts": self.began},
            "count": {"current": 0, "max": 1},
        }[path]


def serve(bot: Bot, port: int) -> None:
    """The API, a thread beside the main loop."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.tell(bot.answer(self.path.rpartition("/")[2]))

        def do_POST(self) -> None:
            word = self.path.rpartition("/")[2]
            if word == "reload_config":
                bot.state = "reload_config"
                bot.reloads.set()
            else:
                bot.state = {"pause": "paused", "start": "running", "stop": "stopped"}[word]
            self.tell({"status": f"{word} ..."})

        def tell(self, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", port), Api).serve_forever, daemon=True).start()


def option(words: list[str], name: str, default: str) -> str:
    """The word behind `name`."""
    return words[words.index(name) + 1] if name in words else default


if __name__ == "__main__":
    argv = sys.argv[1:]
    one = Bot(argv[0], Path(argv[1]), once="--once" in argv, comes_up=option(argv, "--state", "running"))
    if "--api" in argv:
        serve(one, int(option(argv, "--api", "")))
    one.run()
