"""The server as hosts run it: a process on two pipes, in every protocol era, with everything that can come in."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult, TextContent

from botkeep.ledger import Kind
from support.fleet import Fleet, alive, entry, fleet, wait_for

SERVE = [sys.executable, "-m", "botkeep", "serve", "--home"]
ENTRY_POINT = str(Path(sys.executable).with_name("botkeep"))


@pytest.fixture(scope="module")
def bots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two real bots; each test uses one of its own."""
    home = tmp_path_factory.mktemp("stdio")
    with fleet(home, *(entry(name, f"{name.upper()}USDT") for name in ("doge", "ada", "btc", "eth"))) as found:
        yield found


class Wire:
    """A server process, spoken to in bytes."""

    def __init__(self, home: Path, *more: str) -> None:
        self.process = subprocess.Popen(
            [*SERVE, str(home), *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._ids = iter(range(1, 1000))
        self._read = b""

    def send(self, line: bytes) -> None:
        """Bytes as they are."""
        assert self.process.stdin
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """The next message. A server that says nothing for twenty seconds fails the test."""
        assert self.process.stdout
        while b"\n" not in self._read:
            ready, _, _ = select.select([self.process.stdout], [], [], 20)
            assert ready, "the server hangs"
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, "the server ended"
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return dict(json.loads(line))

    def post(self, method: str, **params: Any) -> int:
        """Ask, and do not wait."""
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self.send(json.dumps(message).encode() + b"\n")
        return number

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask, and give the answer's result."""
        number = self.post(method, **params)
        answer = self.receive()
        assert answer["id"] == number
        return dict(answer["result"])

    def handshake(self, version: str) -> dict[str, Any]:
        """What a host does first."""
        client = {"name": "by hand", "version": "1"}
        found = self.ask("initialize", protocolVersion=version, capabilities={}, clientInfo=client)
        self.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        return found

    def end(self, seconds: float = 30.0) -> tuple[int, str]:
        """Close its input; its exit code and what it wrote to standard error."""
        _, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, errors.decode()

    def clear(self) -> None:
        """Leave nothing behind, however the test went."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(BrokenPipeError):
                if pipe:
                    pipe.close()


def shaken(home: Path) -> Iterator[Wire]:
    """A server that a host of 2025-06-18 has shaken hands with."""
    found = Wire(home)
    try:
        hello = found.handshake("2025-06-18")
        assert hello["protocolVersion"] == "2025-06-18"
        assert hello["serverInfo"]["name"] == "botkeep"
        assert "check_bot" in hello["instructions"]
        yield found
    finally:
        found.clear()


@pytest.fixture(scope="module")
def wire(bots: Fleet) -> Iterator[Wire]:
    """One server for all tests that leave it alive."""
    yield from shaken(bots.home)


@pytest.fixture
def mortal(bots: Fleet) -> Iterator[Wire]:
    """A server for one test, which may end it."""
    yield from shaken(bots.home)


# --- with the SDK's client, as hosts of both eras use it ---------------------------------------------------------


def text_of(result: CallToolResult) -> str:
    """The first text of an answer."""
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


@pytest.mark.parametrize(
    ("mode", "version", "bot"), [("auto", "2026-07-28", "doge"), ("legacy", "2025-11-25", "ada")], ids=["new", "old"]
)
def test_a_dead_bot_is_found_and_brought_back_over_the_wire(bots: Fleet, mode: str, version: str, bot: str) -> None:
    async def work() -> None:
        server = StdioServerParameters(command=SERVE[0], args=[*SERVE[1:], str(bots.home)])
        async with Client(server, mode=mode) as client:
            assert client.protocol_version == version
            assert len((await client.list_tools()).tools) == 11
            first = await client.call_tool("restart_bot", {"bot": bot, "reason": "first start"})
            assert first.structured_content
            pid = first.structured_content["pid"]
            refused = await client.call_tool("stop_bot", {"bot": bot, "reason": "x", "force": True})
            assert refused.is_error
            assert text_of(refused).startswith("stop_bot was not called: force: there is no such key")
            assert alive(pid)
            bots.kill(pid)
            found = await client.call_tool("check_bot", {})
            assert found.structured_content
            named = {one["bot"]: one.get("fault") for one in found.structured_content["bots"]}
            assert named[bot] == "bot-not-running"
            why = await client.call_tool("diagnose_bot", {"bot": bot})
            assert why.structured_content
            assert why.structured_content["exit"]["signal"] == signal.SIGKILL
            assert "untrusted text" in why.structured_content["untrusted_log"]
            again = await client.call_tool("restart_bot", {"bot": bot, "reason": "it was killed"})
            assert again.structured_content
            assert again.structured_content["result"] == "done", again.structured_content
            assert again.structured_content["entry"] in {one.id for one in bots.desk().ledger.entries(bot=bot)}
            stopped = await client.call_tool("stop_bot", {"bot": bot, "reason": "the test is over"})
            assert stopped.structured_content
            assert stopped.structured_content["result"] == "done"

    anyio.run(work)


# --- by hand -----------------------------------------------------------------------------------------------------


def test_a_client_of_2025_06_18_lists_and_calls_tools(wire: Wire) -> None:
    tools = wire.ask("tools/list")["tools"]
    assert {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"} == set(tools[0]["annotations"])
    assert all(tool["outputSchema"] and tool["inputSchema"]["additionalProperties"] is False for tool in tools)
    found = wire.ask("tools/call", name="read_playbook", arguments={"fault": "bot-hung"})
    assert found["structuredContent"]["fault"] == "bot-hung"
    refused = wire.ask("tools/call", name="check_bot", arguments={"bot": "btc", "confirm": True})
    assert refused["isError"] is True
    assert "there is no such key" in refused["content"][0]["text"]


def test_what_is_no_message_is_answered_and_the_server_goes_on(wire: Wire) -> None:
    for line in (b'{"jsonrpc":"2.0","id":7,"meth\n', b"\xff\xfe\x00\n", b"[]\n", b"{" * 5_000 + b"\n", b"null\n"):
        wire.send(line)
        answer = wire.receive()
        assert (answer["id"], answer["error"]["code"]) == (None, -32700), line[:40]
    wire.send(b"\n\n  \n")
    assert wire.ask("ping") == {}


def test_a_message_of_five_mebibytes_is_refused_by_its_number(wire: Wire) -> None:
    refused = wire.ask("tools/call", name="append_memory", arguments={"note": "x" * (5 << 20)})
    assert refused["isError"] is True
    assert "note has 5242880 characters" in refused["content"][0]["text"]
    assert wire.ask("ping") == {}


def test_a_line_without_end_is_thrown_away_and_not_kept_in_memory(wire: Wire) -> None:
    before = resident(wire.process.pid)
    piece = b"x" * (1 << 20)
    for _ in range(64):
        wire.send(piece)
    wire.send(b"\n")
    assert wire.receive()["error"]["code"] == -32700
    assert resident(wire.process.pid) - before < 40 << 20
    assert wire.ask("ping") == {}


def resident(pid: int) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_an_unknown_method_and_an_unknown_tool_are_errors(wire: Wire) -> None:
    wire.post("tools/none")
    assert wire.receive()["error"]["code"] == -32601
    assert wire.ask("tools/call", name="rm", arguments={})["isError"] is True


def test_the_end_of_input_ends_the_server_at_once_and_quietly(mortal: Wire) -> None:
    assert mortal.end() == (0, "")


def test_the_end_of_input_before_a_first_message_ends_the_server(bots: Fleet) -> None:
    assert Wire(bots.home).end() == (0, "")


def test_half_a_line_at_the_end_of_input_is_no_hang(bots: Fleet) -> None:
    found = Wire(bots.home)
    found.send(b'{"jsonrpc": "2.0", "id": 1')
    assert found.end() == (0, "")


def test_an_action_runs_to_its_outcome_though_its_host_has_left(bots: Fleet, mortal: Wire) -> None:
    mortal.post("tools/call", name="restart_bot", arguments={"bot": "btc", "reason": "the host leaves meanwhile"})
    ledger = bots.desk().ledger
    wait_for(lambda: ledger.open_intents("btc"))
    assert mortal.end() == (0, "")
    outcome = ledger.entries(bot="btc", kinds=[Kind.OUTCOME])[-1]
    assert outcome.result == "done"
    assert alive(outcome.data["pid"])


def test_five_restarts_at_once_start_one_copy(bots: Fleet, wire: Wire) -> None:
    wire.ask("tools/call", name="stop_bot", arguments={"bot": "eth", "reason": "to begin with none"})
    for _ in range(5):
        wire.post("tools/call", name="restart_bot", arguments={"bot": "eth", "reason": "five at once"})
    found = [wire.receive()["result"]["structuredContent"] for _ in range(5)]
    assert sorted(one["result"] for one in found) == ["coalesced"] * 4 + ["done"]
    assert len({one["pid"] for one in found}) == 1
    assert bots.verdict("eth").status == "healthy"


def test_a_killed_server_leaves_the_bot_that_it_started_alive(bots: Fleet, mortal: Wire) -> None:
    started = mortal.ask("tools/call", name="restart_bot", arguments={"bot": "eth", "reason": "first start"})
    pid = started["structuredContent"]["pid"]
    mortal.process.kill()
    mortal.process.wait()
    assert alive(pid)
    assert bots.verdict("eth").status == "healthy"


def test_read_only_serves_six_tools(bots: Fleet) -> None:
    found = Wire(bots.home, "--read-only")
    found.handshake("2025-11-25")
    assert len(found.ask("tools/list")["tools"]) == 6
    assert found.end() == (0, "")


def test_a_workspace_that_is_not_there_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    done = subprocess.run([*SERVE, str(tmp_path / "none")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("botkeep: ")
    assert done.stderr.count("\n") == 1


def test_a_host_that_reads_no_more_ends_the_server_quietly(mortal: Wire) -> None:
    assert mortal.process.stdout
    assert mortal.process.stderr
    mortal.process.stdout.close()
    mortal.post("tools/list")
    assert mortal.process.wait(20) == 0
    assert mortal.process.stderr.read() == b""


def test_ctrl_c_ends_the_server_though_no_line_comes(mortal: Wire) -> None:
    mortal.process.send_signal(signal.SIGINT)
    assert mortal.process.wait(20) == 130
