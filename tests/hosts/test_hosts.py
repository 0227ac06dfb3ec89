"""Each host's recipe in README.md, run as it stands there, wakes an assistant that brings a real bot back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from botkeep.ledger import Kind
from botkeep.model import Status
from botkeep.wake_packet import TOKENS, tokens_at_most
from hosts.rig import HOSTS, NODE, WAKING, Place, at, block, place
from support.fleet import wait_for
from support.model_server import CACHED, INPUT, LAST_WORDS, OUTPUT, PLAN, Model, model_server

REQUESTS = len(PLAN) + 1
PROVIDER = """
model = "stand-in"
model_provider = "stand-in"
[model_providers.stand-in]
name = "stand-in"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "STAND_IN_KEY"
request_max_retries = 1
stream_max_retries = 1
[analytics]
enabled = false
"""

GATEWAY = """
import { execFileSync } from "node:child_process";
const exec = async ({ command }) => {
  try {
    return { aggregated: execFileSync("sh", ["-c", command], { stdio: ["ignore", "pipe", "ignore"] }).toString() };
  } catch (error) {
    return { aggregated: "" };
  }
};
const Script = Object.getPrototypeOf(async () => {}).constructor;
const json = (given) => console.log(JSON.stringify(given));
await new Script("trigger", "exec", "json", SCRIPT)({ state: JSON.parse(process.argv[2]) }, exec, json);
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    with place(tmp_path) as found:
        yield found


def needs(host: str) -> None:
    if not (HOSTS / "node_modules/.bin" / host).exists():
        pytest.skip(f"{host} is not in {HOSTS}: run `make hosts`")


def claude(here: Place, model: Model) -> None:
    needs("claude")
    (here.home / "mcp.json").write_text(at(here.home, block("json", '"mcpServers"')))
    here.wake_is(json.loads(block("json", '"wake": ["claude"'))["wake"])
    here.environment |= {
        "ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "sk-stand-in", "CLAUDE_CODE_MAX_RETRIES": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1",
    }  # fmt: skip


def codex(here: Place, model: Model) -> None:
    needs("codex")
    folder = here.home.parent / ".codex"
    folder.mkdir()
    recipe = at(here.home, block("toml", "[mcp_servers.botkeep]"))
    (folder / "config.toml").write_text(PROVIDER.format(url=model.url) + recipe)
    here.wake_is(json.loads(block("json", '"wake": ["codex"'))["wake"])
    here.environment["STAND_IN_KEY"] = "sk-stand-in"


def openclaw(here: Place, model: Model) -> None:
    needs("openclaw")
    prices = {"input": 3, "output": 15, "cacheRead": 0.3, "cacheWrite": 3.75}
    stand_in = {
        "id": "stand-in", "name": "stand-in", "contextWindow": 128000, "maxTokens": 8000, "reasoning": False,
        "input": ["text"], "cost": prices,
    }  # fmt: skip
    provider = {"baseUrl": model.url, "apiKey": "sk-stand-in", "api": "anthropic-messages", "models": [stand_in]}
    recipe = json.loads(at(here.home, block("json", '"toolSearch"')))
    recipe["agents"]["defaults"]["model"] = "stand-in/stand-in"
    document = {**recipe, "models": {"providers": {"stand-in": provider}}}
    (here.home / "openclaw.json").write_text(json.dumps(document))
    here.wake_is(json.loads(block("json", '"wake": ["openclaw"'))["wake"])


Host = Callable[[Place, Model], None]
ALL = INPUT + CACHED + OUTPUT


@pytest.mark.parametrize(
    ("host", "tokens", "costs"),
    [(claude, REQUESTS * ALL, True), (codex, REQUESTS * (INPUT + OUTPUT), False), (openclaw, REQUESTS * ALL, True)],
    ids=["claude", "codex", "openclaw"],
)
def test_a_bot_comes_back(here: Place, host: Host, tokens: int, costs: bool) -> None:
    with model_server() as model:
        host(here, model)
        here.rounds()
    assert model.called == list(PLAN)
    (one,) = here.wakes()
    assert (one["ok"], one["said"], one["tokens"]) == (True, LAST_WORDS, tokens), one
    assert (one["cost"] is not None) == costs
    assert here.bots.verdict().status is Status.HEALTHY
    (restarted,) = [entry for entry in here.entries(Kind.OUTCOME) if entry.actor == "assistant"]
    assert restarted.id in one["did"]
    packet = next(text for text in told(model) if "You are woken by botkeep" in text)
    assert tokens_at_most(packet[packet.index("You are woken by") :]) <= TOKENS


def told(model: Model) -> Iterator[str]:
    """Every text that the host gave the model first."""
    for one in model.asked[0].get("messages") or model.asked[0]["input"]:
        content = one["content"]
        yield from [content] if isinstance(content, str) else [part.get("text", "") for part in content]


@pytest.mark.parametrize("host", [claude, codex, openclaw])
def test_a_model_that_is_away_is_told_to_people(here: Place, host: Host) -> None:
    with model_server(away=500) as model:
        host(here, model)
        here.rounds()
    (one,) = here.wakes()
    assert not one["ok"], one
    assert model.refused
    wait_for(lambda: any("the assistant could not help" in told.sentence for told in here.entries(Kind.ALERT)))


def test_the_trigger_script_fires_once_for_each_packet(here: Place, tmp_path: Path) -> None:
    """The recipe of docs/waking.md: botkeep leaves the packet, and the script finds it; the Gateway's part is ours."""
    node = NODE / "node"
    if not node.exists():
        pytest.skip(f"{node} is missing: run `make hosts`")
    here.wake_is(json.loads(block("json", '"wake": ["sh"', WAKING))["wake"])
    script = at(here.home, block("js", "trigger.state", WAKING))
    (tmp_path / "gateway.mjs").write_text(GATEWAY.replace("SCRIPT", json.dumps(script)))

    def evaluate(state: str) -> dict[str, Any]:
        ran = subprocess.run([node, tmp_path / "gateway.mjs", state], capture_output=True, text=True, check=True)
        return dict(json.loads(ran.stdout))

    assert evaluate("{}") == {"fire": False, "state": {"seen": ""}}
    here.rounds()
    fired = evaluate("{}")
    assert fired["fire"]
    assert fired["message"].startswith("You are woken by botkeep")
    assert not evaluate(json.dumps(fired["state"]))["fire"]
