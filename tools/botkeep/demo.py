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
import time
from collections.abc import Callable, Iterable
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
    """A workspace as `botkeep init` makes it, four paper bots, and the trade file of a fifth, which a real bot wrote."""
    stage.say("A fresh workspace, as `botkeep init` makes it, with four paper-trading bots and the book of a fifth.")
    init(stage.home, utc_now())
    (stage.home / "data").mkdir()
    for name, target in (("paper_bot.py", stage.home / "paper_bot.py"), ("closed_trades.csv", stage.data(ARCHIVED))):
        with as_file(files("botkeep") / "demo_data" / name) as source:
            shutil.copyfile(source, target)
    (stage.home / "config/bots.json").write_text(json.dumps(_bots(stage), indent=1))
    for path in sorted((stage.home / "playbooks").glob("*.md")):
        path.write_text(_shortened(path.read_text()))
    stage.say("The waits in its playbooks are shorter than those you get (second look after 1 s, up for 2 s, alert at once).\n")


def _bots(stage: Stage) -> dict[str, Any]:
    port = _free_port()
    symbols = {KILLED: "DOGEUSDT", FROZEN: "DOGEUSDC", DOUBLED: "BTCUSDT", TORN: "ETHUSDT"}
    bots = [_bot(name, symbol, port if name == DOUBLED else None) for name, symbol in symbols.items()]
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
    waiting = [KILLED, FROZEN, DOUBLED, TORN]
    while waiting:
        waiting = [bot for bot in waiting if not stage.data(bot).exists() or _rows(stage.data(bot)) < rows]
        if time.monotonic() > until:
            raise BotkeepError(f"The demo's bots do not trade: {', '.join(waiting)}. Their logs are in {stage.home}/.botkeep/logs.")
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
    _damage(stage.data(TORN))
    stage.say(f"  {TORN} dies in the middle of a row, and a piece of its file is zeros now")


def _damage(path: Path) -> None:
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

    return anyio.run(_assistant, stage)


async def _assistant(stage: Stage) -> bool:
    """What the assistant does whom cron wakes, through the server's tools alone."""
    from mcp import Client, StdioServerParameters

    server = StdioServerParameters(
        command=sys.executable, args=["-m", "botkeep", "serve", "--home", str(stage.home)], env=dict(os.environ)
    )
    async with Client(server) as client:
        play = Play(stage, client)
        await play.quiet_evening()
        await play.trouble()
        await play.wake()
        await play.ask_again()
        return await play.morning()


@dataclass
class Play:
    """The scenes. Each shows what was asked and what came back."""

    stage: Stage
    client: Any
    handled: list[str] = field(default_factory=list)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """One tool call, shown. Raises BotkeepError if the server calls it an error."""
        shown = ", ".join(f"{name}={_short(value)}" for name, value in arguments.items())
        self.stage.say(f"> {tool}({shown})")
        result = await self.client.call_tool(tool, arguments)
        if result.is_error:
            raise BotkeepError(result.content[0].text)
        return dict(result.structured_content)

    async def quiet_evening(self) -> None:
        """Everything runs; one bot is stopped by a person."""
        for bot in (KILLED, FROZEN, DOUBLED, TORN):
            self.answer(await self.call("restart_bot", bot=bot, reason="first start"))
        self.answer(await self.call("stop_bot", bot=ARCHIVED, reason="its trader is on holiday"))
        wait_for_rows(self.stage, ROWS_BEFORE_TROUBLE)
        self.answer(await self.call("backup_data"))
        self.verdicts(await self.call("check_bot"))

    async def trouble(self) -> None:
        """The night."""
        self.stage.say("\n--- The night ---")
        found = await self.client.call_tool("check_bot", {})
        pids = {}
        for bot in (KILLED, FROZEN, DOUBLED, TORN):
            found = await self.client.call_tool("check_bot", {"bot": bot})
            pids[bot] = int(found.structured_content["bots"][0]["pid"])
        break_everything(self.stage, pids)

    async def wake(self) -> None:
        """Cron wakes the assistant: check, then each fault by its playbook."""
        self.stage.say("\n--- Cron wakes the assistant ---")
        found = await self.call("check_bot")
        self.verdicts(found)
        for one in found["bots"]:
            if one["status"] == "faulty":
                await self.by_playbook(one)

    async def by_playbook(self, verdict: dict[str, Any]) -> None:
        """Open the playbook the verdict names, and do the one thing it allows."""
        bot, fault = verdict["bot"], verdict["fault"]
        playbook = await self.call("read_playbook", fault=fault)
        self.stage.say(f"    it allows {', '.join(playbook['actions']) or 'nothing'} (mode {playbook['mode']})")
        if "restore_data" in playbook["actions"]:
            plan = await self.call("restore_data", bot=bot)
            self.answer(plan)
            self.answer(await self.call("restore_data", bot=bot, plan_id=plan["plan_id"]))
        elif "restart_bot" in playbook["actions"]:
            self.answer(await self.call("restart_bot", bot=bot, reason=fault))
        self.handled.append(bot)

    async def ask_again(self) -> None:
        """A playbook binds: the next restart is refused, with the earliest time."""
        self.stage.say(f"\n--- An eager assistant, once more: {KILLED} dies again, and again it wants to restart it ---")
        found = await self.client.call_tool("check_bot", {"bot": KILLED})
        os.kill(int(found.structured_content["bots"][0]["pid"]), signal.SIGKILL)
        await self.call("check_bot", bot=KILLED)
        self.answer(await self.call("restart_bot", bot=KILLED, reason="it is down again"))

    async def morning(self) -> bool:
        """The report, the book and the journal. True if everything that was broken is mended."""
        self.stage.say("\n--- The morning ---")
        await self.call("append_memory", note="doge-long died twice tonight; look at its host's memory.", bot=KILLED)
        report = await self.call("health_report", since="24h")
        self.stage.say(_indented(report["text"]))
        pnl = await self.call("summarize_pnl", bot=ARCHIVED)
        self.stage.say(f"    {json.dumps(pnl['bots'][0], ensure_ascii=False)[: 3 * WIDTH]}")
        self.stage.say("\nmemory/bot-operations.md:")
        self.stage.say(_indented((self.stage.home / "memory/bot-operations.md").read_text()))
        done = subprocess.run(
            [sys.executable, "-m", "botkeep", "journal", "--verify", "--home", str(self.stage.home)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.stage.say(f"$ botkeep journal --verify\n{_indented(done.stdout.strip())}")
        return done.returncode == 0 and set(self.handled) == {KILLED, FROZEN, DOUBLED, TORN}

    def verdicts(self, found: dict[str, Any]) -> None:
        """One line for each bot that is not healthy, and the count of those that are."""
        for one in found["bots"]:
            self.stage.say(f"    {one['bot']}: {one['status']} {one.get('fault') or ''}: {one['sentence']}")
        if found.get("healthy"):
            self.stage.say(f"    healthy: {found['healthy']}")

    def answer(self, result: dict[str, Any]) -> None:
        """The one sentence of an action."""
        self.stage.say(f"    {result.get('result', 'plan')}: {result['sentence']}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 48 else f"{text[:45]}..."


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def lines(found: Iterable[str]) -> str:
    """Joined for the terminal."""
    return "\n".join(found)
