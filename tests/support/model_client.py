"""A small host of an assistant, as a program: `model_client.py URL BOTKEEP`, with the packet on standard input.

It asks a model over Anthropic's API, calls the tools that it wants on `botkeep serve` over MCP, and prints what Claude
Code prints. So the whole way from a wake to a bot that is back is run where none of the real hosts is installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


def ask(url: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
    body = {"model": "stand-in", "max_tokens": 1000, "messages": messages, "tools": tools}
    request = urllib.request.Request(f"{url}/v1/messages", json.dumps(body).encode(), {"content-type": "text/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        error.close()
        sys.exit(f"API error: {error.code}")


async def work(url: str, botkeep: str, packet: str) -> None:
    server = StdioServerParameters(command=botkeep, args=["serve"], env={"BOTKEEP_HOME": os.environ["BOTKEEP_HOME"]})
    messages: list[dict[str, Any]] = [{"role": "user", "content": packet}]
    usage = {"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 0}
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        listed = (await session.list_tools()).tools
        tools = [{"name": f"mcp__botkeep__{one.name}", "description": one.description} for one in listed]
        while True:
            answer = ask(url, messages, tools)
            usage = {name: usage[name] + answer["usage"][name] for name in usage}
            (block,) = answer["content"]
            if block["type"] == "text":
                break
            gave = await session.call_tool(block["name"].removeprefix("mcp__botkeep__"), block["input"])
            text = json.dumps(gave.model_dump(mode="json"))
            messages += [
                {"role": "assistant", "content": [block]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block["id"], "content": text}]},
            ]
    print(json.dumps({"is_error": False, "result": block["text"], "total_cost_usd": 0.06, "usage": usage}))


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], sys.stdin.read()))
