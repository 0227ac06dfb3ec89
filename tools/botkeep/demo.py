"""The main job in under a minute: four real bots are broken in four ways, and brought back through a real MCP client.

Everything is real: processes, signals, files, the server over stdio, ledger, journal. What is shortened are the
waits in the playbooks' front matter, and the demo says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from .model import Actor, BotkeepError, utc_now
from .pack import init
from .rounds import Desk
from .workspace import Workspace

KILLED, FROZEN, DOUBLED, TORN, ARCHIVED = "doge-long", "doge-short", "btc-optimized", "hummingbot-mm", "swing-paper"
SHORTER = {
    r"apart: \w+": "apart: 1s",
    r"up_for: \w+": "up_for: 2s",
    r"within: \w+}": "within: 6s}",
    r"\{after: \w+": "{after: 0s",
}
"""The playbooks' waits, as the demo shortens them. Back-off stays as it is."""
RUNNING = (KILLED, FROZEN, DOUBLED, TORN)
ROWS_BEFORE_TROUBLE = 6
WIDTH = 110

Say = Callable[[str], None]


@dataclass
class Stage:
    """A workspace in a temporary folder, and the processes that the demo itself started."""

    home: Path
    say: Say
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def data(self, bot: str) -> Path:
        """The bot's trade file."""
        return self.home / "data" / f"{bot}.csv"


def run(*, keep: bool = False, say: Say = print) -> int:
    """Play it all; 0 when every bot was brought back. `keep`: leave the workspace (its bots are stopped either way)."""
    home = Path(tempfile.mkdtemp(prefix="botkeep-demo-"))
    stage = Stage(home, say)
    began = time.monotonic()
    try:
        build(stage)
        ok = _play(stage)
    finally:
        clear(stage, keep=keep)
    say(f"\nThat took {time.monotonic() - began:.0f} s.")
    return 0 if ok else 1


# ---------------------------------------------------------------------------------------------------- the stage


def build(stage: Stage) -> None:
    """A workspace as `botkeep init` makes it, four paper bots, and a fifth's trade file, which a real bot wrote."""
    stage.say("A fresh workspace, as `botkeep init` makes it, with four paper-trading bots and the book of a fifth.")
    init(stage.home, utc_now())
    (stage.home / "data").mkdir()
    for name, target in (("paper_bot.py", stage.home / "paper_bot.py"), ("closed_trades.csv", stage.data(ARCHIVED))):
        with as_file(files("botkeep") / "demo_data" / name) as source:
            shutil.copyfile(source, target)
    (stage.home / "config/bots.json").write_text(json.dumps(_bots(), indent=1))
    for path in sorted((stage.home / "playbooks").glob("*.md")):
        path.write_text(_shortened(path.read_text()))
    stage.say("The waits in its playbooks are shorter than yours: second look after 1 s, up for 2 s, alert at once.\n")


def _bots() -> dict[str, Any]:
    port = _free_port()
    symbols = {KILLED: "DOGEUSDT", FROZEN: "DOGEUSDT", DOUBLED: "BTCUSDT", TORN: "ETHUSDT"}
    bots = [_bot(name, symbol, port if name == KILLED else None) for name, symbol in symbols.items()]
    archived = {**_bot(ARCHIVED, "SOLUSDT", None), "data_file": f"data/{ARCHIVED}.csv", "capital": "1000"}
    return {"bots": [*bots, archived]}


def _bot(name: str, symbol: str, port: int | None) -> dict[str, Any]:
    command = [sys.executable, "paper_bot.py", symbol, f"data/{name}.csv"]
    entry: dict[str, Any] = {
        "name": name,
        "type": "paper",
        "check_interval": 300,
        "data_file": f"data/{name}.csv",
        "capital": "500",
        "currency": "USDT",
        "runtime": {"kind": "process", "command": command, "stop_grace": 5},
    }
    if port:
        command += ["--port", str(port)]
        entry["health_endpoint"] = f"http://127.0.0.1:{port}/health"
    return entry


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _shortened(text: str) -> str:
    for pattern, shorter in SHORTER.items():
        text = re.sub(pattern, shorter, text, count=1)
    return text


def clear(stage: Stage, *, keep: bool) -> None:
    """Stop every bot, proven; end what the demo started itself; remove the folder unless it is to be kept."""
    desk = Desk.open(Workspace(stage.home), Actor.PERSON)
    try:
        for bot in desk.bench().fleet.bots:
            with suppress(BotkeepError):
                desk.stop(bot.name, "the demo is over")
    except BotkeepError as error:
        stage.say(f"The demo could not be cleared: {error}")
    finally:
        desk.close()
    for process in stage.started:
        process.kill()
        process.wait()
    if keep:
        stage.say(f"\nThe workspace is kept: botkeep --home {stage.home} journal")
    else:
        shutil.rmtree(stage.home, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------- the trouble


def wait_for_rows(stage: Stage, rows: int) -> None:
    """Until every bot has traded. Raises BotkeepError if one does not within ten seconds."""
    until = time.monotonic() + 10
    waiting = list(RUNNING)
    while waiting:
        waiting = [bot for bot in waiting if not stage.data(bot).exists() or _rows(stage.data(bot)) < rows]
        if time.monotonic() > until:
            logs = stage.home / ".botkeep/logs"
            raise BotkeepError(f"The demo's bots do not trade: {', '.join(waiting)}. Their logs are in {logs}.")
        time.sleep(0.05)


def _rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") - 1


def break_everything(stage: Stage, pids: dict[str, int]) -> None:
    """Four faults, each as it happens in the night."""
    os.kill(pids[KILLED], signal.SIGKILL)
    stage.say(f"  kill -9 {pids[KILLED]}: {KILLED} is gone")
    os.kill(pids[FROZEN], signal.SIGSTOP)
    stage.say(f"  kill -STOP {pids[FROZEN]}: {FROZEN} is frozen, its process still there")
    command = Path(f"/proc/{pids[DOUBLED]}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    copy = subprocess.Popen(
        command, cwd=stage.home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stage.started.append(copy)
    stage.say(f"  python paper_bot.py BTCUSDT ...: somebody starts a second {DOUBLED} (pid {copy.pid})")
    os.kill(pids[TORN], signal.SIGKILL)
    tear(stage.data(TORN))
    stage.say(f"  {TORN} dies in the middle of a row, and a piece of its file is zeros now")


def tear(path: Path) -> None:
    """Half of the last row is missing, and a row in the middle is overwritten with zeros."""
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    middle = sum(map(len, lines[: len(lines) // 2]))
    with path.open("r+b") as file:
        file.seek(middle)
        file.write(b"\0" * (len(lines[len(lines) // 2]) - 1))
        file.truncate(len(data) - len(lines[-1]) // 2)


# ---------------------------------------------------------------------------------------------------- the play


def _play(stage: Stage) -> bool:
    import anyio

    found: list[bool] = []
    try:
        anyio.run(_assistant, stage, found)
    except* BotkeepError as group:
        for error in group.exceptions:
            stage.say(f"The demo stopped: {error}")
    return found == [True]


async def _assistant(stage: Stage, found: list[bool]) -> None:
    """What the assistant does whom cron wakes, through the server's tools alone."""
    from mcp import Client, StdioServerParameters

    server = StdioServerParameters(
        command=sys.executable, args=["-m", "botkeep", "serve", "--home", str(stage.home)], env=dict(os.environ)
    )
    async with Client(server) as client:
        play = Play(stage, client)
        await play.evening()
        await play.night()
        await play.wake()
        await play.insist()
        found.append(await play.morning())


@dataclass
class Play:
    """The scenes. Each shows what was asked and what came back."""

    stage: Stage
    client: Any
    pids: dict[str, int] = field(default_factory=dict)
    mended: list[str] = field(default_factory=list)

    async def call(self, tool: str, *, show: bool = True, **arguments: Any) -> dict[str, Any]:
        """One tool call and its structured answer. Raises BotkeepError if the server calls it an error."""
        if show:
            shown = ", ".join(f"{name}={_short(value)}" for name, value in arguments.items())
            self.stage.say(f"> {tool}({shown})")
        result = await self.client.call_tool(tool, arguments)
        if result.is_error:
            raise BotkeepError(result.content[0].text)
        return dict(result.structured_content)

    async def evening(self) -> None:
        """Everything runs; one bot is stopped by a person."""
        for bot in RUNNING:
            self.answer(await self.call("restart_bot", bot=bot, reason="first start"))
        self.answer(await self.call("stop_bot", bot=ARCHIVED, reason="its trader is on holiday"))
        wait_for_rows(self.stage, ROWS_BEFORE_TROUBLE)
        for kept in (await self.call("backup_data"))["stored"]:
            self.answer(kept)
        await self.check()
        wait_for_rows(self.stage, _rows(self.stage.data(TORN)) + ROWS_BEFORE_TROUBLE)

    async def check(self, **asked: Any) -> list[dict[str, Any]]:
        """Look, shown: a line for each bot that is not healthy, and the count of the others."""
        found = await self.call("check_bot", **asked)
        for one in found.get("bots", []):
            fault = f" ({one['fault']})" if one.get("fault") else ""
            self.stage.say(_wrapped(f"{one['bot']}: {one['status']}{fault}: {one['sentence']}"))
        if found.get("healthy"):
            self.stage.say(f"    healthy: {found['healthy']}")
        return list(found.get("bots", []))

    async def night(self) -> None:
        """Four faults while nobody looks."""
        self.stage.say("\n--- The night ---")
        for bot in RUNNING:
            found = await self.call("check_bot", show=False, bot=bot)
            self.pids[bot] = int(found["bots"][0]["pid"])
        break_everything(self.stage, self.pids)

    async def wake(self) -> None:
        """Cron wakes the assistant: check, then each fault by its playbook, then check again."""
        self.stage.say("\n--- Cron wakes the assistant ---")
        for one in await self.check():
            if one["status"] == "faulty":
                await self.by_playbook(one["bot"], one["fault"])
        await self.check()

    async def by_playbook(self, bot: str, fault: str) -> None:
        """Open the playbook the verdict names, and do the one thing it allows."""
        playbook = await self.call("read_playbook", fault=fault)
        allowed = playbook.get("actions", [])
        self.stage.say(f"    allows {', '.join(allowed) or 'nothing'}, mode {playbook['mode']}")
        if "restore_data" in allowed:
            plan = await self.call("restore_data", bot=bot)
            self.answer(plan)
            done = await self.call("restore_data", bot=bot, plan_id=plan["plan_id"])
        else:
            done = await self.call("restart_bot", bot=bot, reason=fault)
        self.answer(done)
        if done["result"] == "done":
            self.mended.append(bot)

    async def insist(self) -> None:
        """A playbook binds: the next restart is refused, with the earliest time."""
        self.stage.say(f"\n--- {KILLED} dies again, and the assistant is eager ---")
        found = await self.call("check_bot", show=False, bot=KILLED)
        os.kill(int(found["bots"][0]["pid"]), signal.SIGKILL)
        await self.check(bot=KILLED)
        self.answer(await self.call("restart_bot", bot=KILLED, reason="just restart it again"))

    async def morning(self) -> bool:
        """The report, the book and the journal. True if everything that was broken was mended."""
        self.stage.say("\n--- The morning ---")
        await self.call("append_memory", note=f"{KILLED} died twice tonight: look at its host.", bot=KILLED)
        found = await self.call("summarize_pnl", bot=ARCHIVED)
        for one in found["bots"][0]["currencies"]:
            self.stage.say(f"    {ARCHIVED}: {one['realised']} {one['currency']} in {one['trades']} trades")
        self.stage.say(_indented((await self.call("health_report", since="24h"))["text"]))
        self.stage.say("\n$ cat memory/bot-operations.md")
        self.stage.say(_indented((self.stage.home / "memory/bot-operations.md").read_text()))
        return self.verified() and sorted(self.mended) == sorted(RUNNING)

    def verified(self) -> bool:
        """Ledger and journal agree, by botkeep's own check."""
        done = subprocess.run(
            [sys.executable, "-m", "botkeep", "journal", "--verify", "--home", str(self.stage.home)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.stage.say(f"$ botkeep journal --verify\n{_indented(done.stdout.strip())}")
        return done.returncode == 0

    def answer(self, result: dict[str, Any]) -> None:
        """The one sentence of an action."""
        self.stage.say(_wrapped(f"{result['result']}: {result['sentence']}"))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 48 else f"{text[:45]}..."


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
