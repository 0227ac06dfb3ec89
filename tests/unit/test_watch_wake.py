"""The command that wakes an assistant: run for real, ended when it hangs, capped when it floods, and counted."""

from __future__ import annotations

import json
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from botkeep import wake_command
from support.fleet import alive, wait_for

SAYS = {
    "type": "result",
    "is_error": False,
    "result": "It needs a new key.",
    "total_cost_usd": 0.0412,
    "usage": {"input_tokens": 1200, "output_tokens": 300, "cache_read_input_tokens": 500, "service_tier": "standard"},
}


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_packet_comes_on_standard_input_and_usage_is_read(tmp_path: Path) -> None:
    code = f"import sys, pathlib; pathlib.Path('got').write_text(sys.stdin.read()); print({json.dumps(SAYS)!r})"
    woken = wake_command.run(python(code), "the packet", tmp_path)
    assert (tmp_path / "got").read_text() == "the packet"
    assert (woken.exit, woken.trouble, woken.tokens, woken.cost) == (0, "", 2000, Decimal("0.0412"))
    assert woken.said == "It needs a new key."


CLAUDE_CODE = """{"type":"result","subtype":"success","is_error":false,"duration_ms":255,"num_turns":2,\
"result":"I looked: a person has to decide.","stop_reason":"end_turn","total_cost_usd":0.014799999999999999,\
"usage":{"input_tokens":2400,"cache_creation_input_tokens":0,"cache_read_input_tokens":600,"output_tokens":100,\
"server_tool_use":{"web_search_requests":0},"service_tier":"standard","iterations":[],"speed":"standard"},\
"modelUsage":{"some-model":{"inputTokens":2400,"outputTokens":100,"costUSD":0.014799999999999999}},"permission_denials":[]}
"""
OPENCLAW = """{
  "ok": true, "status": "ok", "final": "I looked: a person has to decide.",
  "usage": {"input": 2400, "output": 100, "cacheRead": 600, "cacheWrite": 0, "total": 3100, "cost": {"total": 0.0148}},
  "costUsd": 0.014799999999999999, "codeModeEngaged": false, "assistantTurns": 2
}
"""
CODEX = """{"type":"thread.started","thread_id":"01a2001d-7525-7ee2-b87c-ccd5cb3b5f9b"}
{"type":"turn.started"}
{"type":"item.completed","item":{"id":"item_2","type":"agent_message","text":"I looked: a person has to decide."}}
{"type":"turn.completed","usage":{"input_tokens":3000,"cached_input_tokens":600,"output_tokens":100}}
"""


@pytest.mark.parametrize(
    ("printed", "tokens", "cost"),
    [(CLAUDE_CODE, 3100, "0.0148"), (CODEX, 3100, "None"), (OPENCLAW, 3100, "0.0148")],
    ids=["Claude Code", "Codex", "OpenClaw"],
)
def test_what_the_hosts_print_is_understood(tmp_path: Path, printed: str, tokens: int, cost: str) -> None:
    """As Claude Code 2.1.197, Codex 0.169.0 and OpenClaw 2026.9.6 printed it, shortened.

    Codex counts cached tokens with the others.
    """
    woken = wake_command.run(python(f"print({printed!r}, end='')"), "the packet", tmp_path)
    assert woken.said == "I looked: a person has to decide."
    assert (woken.tokens, str(woken.cost), woken.trouble) == (tokens, cost, "")


def test_it_knows_which_workspace_it_is_for(tmp_path: Path) -> None:
    woken = wake_command.run(python("import os; print(os.environ['BOTKEEP_HOME'], os.getcwd())"), "", tmp_path)
    assert woken.said == f"{tmp_path} {tmp_path}"
    assert (woken.tokens, woken.cost) == (None, None)


def test_claude_code_is_told_to_wait_for_the_tools_unless_a_person_decides_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, its model had no tools where the server took two seconds to start, and all seemed well."""
    command = python("import os; print(os.environ['MCP_CONNECTION_NONBLOCKING'])")
    assert wake_command.run(command, "", tmp_path).said == "0"
    monkeypatch.setenv("MCP_CONNECTION_NONBLOCKING", "1")
    assert wake_command.run(command, "", tmp_path).said == "1"


def test_a_command_that_hangs_is_ended_with_everything_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, signal, time, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)']);"
        "open('pids', 'w').write(f'{one.pid}'); time.sleep(1000)"
    )
    began = time.monotonic()
    woken = wake_command.run(python(code), "x" * 1_000_000, tmp_path, seconds=2.0)
    assert time.monotonic() - began < 20
    assert "did not end within" in woken.trouble
    child = int((tmp_path / "pids").read_text())
    wait_for(lambda: not alive(child))


def test_a_command_that_leaves_a_child_with_its_output_open_makes_nobody_wait(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)']); print('ok')"
    )
    began = time.monotonic()
    assert wake_command.run(python(code), "", tmp_path).said == "ok"
    assert time.monotonic() - began < 15


def test_a_flood_is_read_to_its_end_and_only_that_is_kept(tmp_path: Path) -> None:
    """Codex prints every event of its run, and the tokens in the last one."""
    code = (
        "import sys\nfor _ in range(3000): sys.stdout.write('y' * 10000)\nsys.stderr.write('e' * 5000000)\n"
        f"sys.stdout.write('\\n' + {CODEX!r})"
    )
    woken = wake_command.run(python(code), "", tmp_path)
    assert (woken.exit, woken.trouble, woken.tokens) == (0, "", 3100)
    assert woken.said == "I looked: a person has to decide."


@pytest.mark.parametrize(
    ("command", "trouble"),
    [
        (["/no/such/claude", "-p"], "/no/such/claude cannot be run: No such file or directory"),
        (python("import sys; sys.stderr.write('Invalid API key'); sys.exit(1)"), "exit code 1: Invalid API key"),
        (python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), "it ended with signal 11"),
        (python('print(\'{"is_error": true, "result": "Credit is used up"}\')'), "it said that it failed: Credit"),
    ],
)
def test_what_went_wrong_is_said(tmp_path: Path, command: list[str], trouble: str) -> None:
    assert trouble in wake_command.run(command, "x", tmp_path).trouble


@pytest.mark.parametrize(
    "answer",
    ["not json", "[1, 2]", '{"usage": {"input_tokens": -1}}', '{"usage": 7, "total_cost_usd": "free"}', "[" * 9999],
)
def test_what_is_no_usage_is_not_known(tmp_path: Path, answer: str) -> None:
    (tmp_path / "answer").write_text(answer)
    woken = wake_command.run(python("print(open('answer').read())"), "", tmp_path)
    assert (woken.tokens, woken.cost, woken.trouble) == (None, None, "")
