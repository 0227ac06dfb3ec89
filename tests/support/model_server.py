"""A stand-in for a model, on 127.0.0.1: it speaks as the providers' servers do, and does what a wake's packet asks for.

`/v1/messages` is Anthropic's API, `/v1/responses` OpenAI's, both with streams of events and calls of tools. There is no
model behind them: it calls the tools that the packet names one after the other, and ends with a sentence. What it says
of tokens is the same for each request, so that a test knows the sums.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PLAN = ("check_bot", "diagnose_bot", "read_playbook", "restart_bot", "append_memory")
INPUT, CACHED, OUTPUT = 1000, 200, 50
"""Tokens of each request: read, read from a cache (OpenAI counts these among the read ones), written."""
LAST_WORDS = "doge came back; a person has to find out why it failed."
FLAKY = """
import os, sys, time
number = int(open("starts").read()) if os.path.exists("starts") else 0
open("starts", "w").write(str(number + 1))
if number in (1, 2):
    print("the exchange is away", flush=True)
    sys.exit(3)
time.sleep(1000)
"""
"""Its first start works; when it was killed, the next two do not; then it works again."""
_ASKED_FOR = re.compile(r"diagnose_bot with ([a-z0-9_-]+), read_playbook with ([a-z-]+)")

Json = dict[str, Any]


@dataclass
class Model:
    """What it was asked so far, and how it answers: `away` is an HTTP status, as of a provider in trouble."""

    url: str = ""
    away: int = 0
    asked: list[Json] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    """Tools, in their order."""
    results: list[str] = field(default_factory=list)
    """What they gave."""

    def next_tool(self, done: int, offered: dict[str, str], text: str) -> tuple[str, Json] | None:
        """(the host's name for it, arguments) of the call after `done` others; None: the end."""
        bot, fault = _ASKED_FOR.findall(text)[-1] if _ASKED_FOR.search(text) else ("doge", "bot-not-running")
        wanted = [name for name in PLAN if name in offered]
        if done >= len(wanted):
            return None
        arguments: dict[str, Json] = {
            "check_bot": {}, "diagnose_bot": {"bot": bot}, "read_playbook": {"fault": fault},
            "restart_bot": {"bot": bot, "reason": "two starts did not last; the cause may be over"},
            "append_memory": {"bot": bot, "note": "Started again after two starts that did not last."},
        }  # fmt: skip
        self.called.append(wanted[done])
        return offered[wanted[done]], arguments[wanted[done]]


def offered_tools(tools: Any) -> dict[str, str]:
    """botkeep's name of each tool that the host offers -> the host's name for it."""
    found: dict[str, str] = {}
    for one in tools or []:
        if one.get("type") == "namespace":
            found |= {name: f"{one['name']}\n{full}" for name, full in offered_tools(one.get("tools")).items()}
            continue
        name = str(one.get("name") or one.get("function", {}).get("name") or "")
        found[name.rpartition("__")[2]] = name
    return {name: full for name, full in found.items() if name in PLAN}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: Model

    def log_message(self, *_: Any) -> None:
        """Nothing on standard error."""

    def do_GET(self) -> None:
        self._send(404, b'{"error": {"type": "not_found_error", "message": "not here"}}')

    def do_HEAD(self) -> None:
        self._send(200, b"")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        path = self.path.partition("?")[0]
        if self.model.away:
            self.model.refused.append(self.model.away)
            self._send(self.model.away, b'{"type": "error", "error": {"type": "api_error", "message": "we are away"}}')
        elif path.endswith("/v1/messages"):
            self.model.asked.append(asked)
            self._anthropic(asked)
        elif path.endswith("/responses"):
            self.model.asked.append(asked)
            self._events([(str(one["type"]), one) for one in _responses(self.model, asked)])
        else:
            self._send(404, b'{"type": "error", "error": {"type": "not_found_error", "message": "not here"}}')

    def _anthropic(self, asked: Json) -> None:
        message = _message(self.model, asked)
        if asked.get("stream"):
            self._events(_message_events(message))
        else:
            self._send(200, json.dumps(message).encode())

    def _events(self, events: list[tuple[str, Json]]) -> None:
        body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
        self._send(200, body.encode(), "text/event-stream")

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


# ---------------------------------------------------------------------------------------------------- Anthropic


def _message(model: Model, asked: Json) -> Json:
    blocks = [block for one in asked["messages"] if isinstance(one["content"], list) for block in one["content"]]
    results = [one for one in blocks if one.get("type") == "tool_result"]
    if results:
        model.results.append(json.dumps(results[-1]["content"]))
    call = model.next_tool(len(results), offered_tools(asked.get("tools")), json.dumps(asked["messages"]))
    content: Json = {"type": "text", "text": LAST_WORDS}
    if call:
        content = {"type": "tool_use", "id": f"toolu_{len(model.asked):04}", "name": call[0], "input": call[1]}
    usage = {"input_tokens": INPUT, "cache_read_input_tokens": CACHED, "output_tokens": OUTPUT}
    return {
        "id": f"msg_{len(model.asked):04}", "type": "message", "role": "assistant", "model": asked["model"],
        "content": [content], "stop_reason": "tool_use" if call else "end_turn", "stop_sequence": None,
        "usage": {**usage, "cache_creation_input_tokens": 0},
    }  # fmt: skip


def _message_events(message: Json) -> list[tuple[str, Json]]:
    (block,) = message["content"]
    if block["type"] == "text":
        empty, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        empty = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    begun = {**message, "content": [], "stop_reason": None, "usage": {**message["usage"], "output_tokens": 1}}
    end = {"delta": {"stop_reason": message["stop_reason"], "stop_sequence": None}, "usage": {"output_tokens": OUTPUT}}
    events = (
        ("message_start", {"message": begun}),
        ("content_block_start", {"index": 0, "content_block": empty}),
        ("content_block_delta", {"index": 0, "delta": delta}),
        ("content_block_stop", {"index": 0}),
        ("message_delta", end),
        ("message_stop", {}),
    )
    return [(name, {"type": name, **data}) for name, data in events]


# ---------------------------------------------------------------------------------------------------- OpenAI


def _responses(model: Model, asked: Json) -> Iterator[Json]:
    said = asked.get("input") if isinstance(asked.get("input"), list) else []
    results = [one for one in said or [] if one.get("type") == "function_call_output"]
    if results:
        model.results.append(json.dumps(results[-1].get("output")))
    call = model.next_tool(len(results), offered_tools(asked.get("tools")), json.dumps(asked.get("input")))
    number = f"{len(model.asked):04}"
    item: Json = {
        "type": "message", "id": f"msg_{number}", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": LAST_WORDS, "annotations": []}],
    }  # fmt: skip
    if call:
        space, _, name = call[0].rpartition("\n")
        item = {
            "type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "status": "completed",
            "name": name, "arguments": json.dumps(call[1]), **({"namespace": space} if space else {}),
        }  # fmt: skip
    answer = {"id": f"resp_{number}", "object": "response", "model": asked.get("model"), "output": []}
    usage = {
        "input_tokens": INPUT, "input_tokens_details": {"cached_tokens": CACHED}, "output_tokens": OUTPUT,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": INPUT + OUTPUT,
    }  # fmt: skip
    yield {"type": "response.created", "response": {**answer, "status": "in_progress"}}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {
        "type": "response.completed",
        "response": {**answer, "status": "completed", "output": [item], "usage": usage},
    }


# ---------------------------------------------------------------------------------------------------- serving


@contextmanager
def model_server(away: int = 0) -> Iterator[Model]:
    """Serving on a free port; `url` has neither a path nor a slash at its end."""
    model = Model(away=away)
    handler = type("Handler", (_Handler,), {"model": model})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    model.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
