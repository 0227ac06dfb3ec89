"""What models read of the tools, and how calls that are wrong are answered. No process is started here."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult, TextContent

from botkeep import server
from botkeep.model import Actor, Fault, LedgerError, utc_now
from botkeep.pack import init
from botkeep.rounds import Desk
from botkeep.workspace import Workspace

NAMES = {
    "check_bot": ["bot?"],
    "diagnose_bot": ["bot"],
    "summarize_pnl": ["bot?", "since?"],
    "health_report": ["since?"],
    "read_playbook": ["fault"],
    "read_memory": ["bot?", "since?"],
    "restart_bot": ["bot", "reason"],
    "stop_bot": ["bot", "reason"],
    "restore_data": ["bot", "plan_id?"],
    "backup_data": ["bot?"],
    "append_memory": ["note", "bot?"],
}
ERAS = ("auto", "legacy")
MAX_TOKENS = 2000
LETTERS_PER_TOKEN = 3.2
"""Compact JSON of schemas gave 3.4 to 4.1 letters a token with the usual tokenizers: this counts too many."""
MAX_LETTERS = 24_000


def no_desk() -> Desk:
    """For what only lists."""
    raise AssertionError("no desk was to be opened")


def talk(work: Callable[[Client], Awaitable[Any]], open_desk: Callable[[], Desk] = no_desk, **how: Any) -> Any:
    """What a client gets from a server in this process."""

    async def run() -> Any:
        async with Client(server.build(open_desk, read_only=how.pop("read_only", False)), **how) as client:
            return await work(client)

    return anyio.run(run)


@functools.cache
def tools(**how: Any) -> list[dict[str, Any]]:
    """As a client sees them."""

    async def work(client: Client) -> Any:
        return (await client.list_tools()).tools

    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in talk(work, **how)]


def call(name: str, arguments: dict[str, Any], open_desk: Callable[[], Desk] = no_desk, **how: Any) -> CallToolResult:
    result: CallToolResult = talk(lambda client: client.call_tool(name, arguments), open_desk, **how)
    return result


def error(name: str, arguments: dict[str, Any], open_desk: Callable[[], Desk] = no_desk, **how: Any) -> str:
    """The text of a call that was an error."""
    result = call(name, arguments, open_desk, **how)
    assert result.is_error
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


def compact(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one bot that is not running."""
    place = tmp_path_factory.mktemp("server")
    init(place, utc_now())
    bots = [{"name": "doge", "process_name": "no_such_process_of_a_bot", "data_file": "doge.csv"}]
    (place / "config/bots.json").write_text(json.dumps({"bots": bots}))
    return place


@pytest.fixture(scope="module")
def desk(home: Path) -> Callable[[], Desk]:
    return lambda: Desk.open(Workspace(home), Actor.ASSISTANT)


# --- the surface -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ERAS)
def test_the_tools_and_their_arguments_are_those_of_the_design(mode: str) -> None:
    found = {}
    for tool in tools(mode=mode):
        schema = tool["inputSchema"]
        needed = schema.get("required", [])
        found[tool["name"]] = [name if name in needed else f"{name}?" for name in schema["properties"]]
    assert found == NAMES


def test_names_descriptions_and_input_schemas_stay_within_their_budget() -> None:
    read = [{key: tool[key] for key in ("name", "description", "inputSchema")} for tool in tools()]
    assert compact(read) / LETTERS_PER_TOKEN < MAX_TOKENS


@pytest.mark.parametrize("mode", ERAS)
def test_the_whole_list_stays_within_its_budget(mode: str) -> None:
    assert compact(tools(mode=mode)) < MAX_LETTERS


def test_all_four_annotations_are_set_on_every_tool() -> None:
    keys = {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
    assert all(set(tool["annotations"]) == keys for tool in tools())


def test_what_reads_and_what_mends_runs_unattended_and_what_ends_or_replaces_needs_a_yes() -> None:
    """A host without a person runs what only reads, or is neither destructive nor open to the world."""
    unattended = {
        tool["name"]
        for tool in tools()
        if (hints := tool["annotations"])["readOnlyHint"] or not (hints["destructiveHint"] or hints["openWorldHint"])
    }
    assert set(NAMES) - unattended == {"stop_bot", "restore_data"}


def test_read_only_leaves_out_the_five_tools_that_change_something() -> None:
    left = tools(read_only=True)
    assert len(left) == len(NAMES) - 5
    assert all(tool["annotations"]["readOnlyHint"] for tool in left)


def test_read_only_tools_cannot_be_called_either() -> None:
    assert "Unknown tool" in error("stop_bot", {"bot": "doge", "reason": "x"}, read_only=True)


def test_every_tool_has_an_output_schema_without_titles_and_definitions() -> None:
    for tool in tools():
        text = json.dumps(tool["outputSchema"])
        assert tool["outputSchema"]["type"] == "object"
        assert '"$defs"' not in text
        assert '"title"' not in text


def test_the_faults_of_read_playbook_are_the_faults_there_are() -> None:
    schema = next(tool for tool in tools() if tool["name"] == "read_playbook")["inputSchema"]
    assert schema["properties"]["fault"]["enum"] == [fault.value for fault in Fault]


def test_the_first_sentence_of_a_description_says_what_the_tool_does() -> None:
    for tool in tools():
        first = tool["description"].split("\n\n")[0]
        assert first.endswith(".")
        assert "  " not in tool["description"]


def test_a_property_called_title_survives_the_shortening_of_a_schema() -> None:
    named = {"title": "Title", "anyOf": [{"type": "null"}, {"$ref": "#/$defs/A"}]}
    defined = {"A": {"title": "A", "type": "string", "enum": ["title"]}}
    found = server.slim({"title": "X", "properties": {"title": named}, "$defs": defined})
    assert found == {"properties": {"title": {"type": "string", "enum": ["title"]}}}


# --- calls that are wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_argument_is_refused_and_nothing_is_done(name: str, mode: str) -> None:
    needed = {"bot": "doge", "reason": "x", "fault": "bot-hung", "note": "x"}
    arguments = {key: needed[key] for key in NAMES[name] if key in needed}
    text = error(name, {**arguments, "dry_run": True}, mode=mode)
    assert text.startswith(f"{name} was not called: dry_run: there is no such key;")


def test_an_argument_that_is_misspelt_is_answered_with_the_right_one() -> None:
    assert "did you mean reason?" in error("restart_bot", {"bot": "doge", "reason": "x", "raeson": "x"})


def test_all_schemas_say_that_there_are_no_other_arguments() -> None:
    assert all(tool["inputSchema"]["additionalProperties"] is False for tool in tools())


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("restart_bot", {"bot": "doge"}, "reason: it is missing; write it."),
        ("diagnose_bot", {"bot": 5}, "bot: found 5; write text in quotes."),
        ("diagnose_bot", {"bot": ["doge"]}, 'bot: found ["doge"]; write text in quotes.'),
        ("check_bot", {"bot": {"name": "doge"}}, "write text in quotes"),
        ("read_playbook", {"fault": "dead"}, "write 'bot-duplicated'"),
        ("append_memory", {"note": "x" * 1001}, "at most 1000 characters"),
        ("append_memory", {"note": "x" * 10_001}, "note has 10001 characters; write 10000 at most."),
    ],
)
def test_a_wrong_argument_is_one_plain_line(name: str, arguments: dict[str, Any], told: str) -> None:
    text = error(name, arguments)
    assert text.startswith(f"{name} was not called: ")
    assert told in text
    assert "pydantic" not in text
    assert "\n" not in text


@pytest.mark.parametrize("mode", ERAS)
def test_an_unknown_bot_is_an_error_that_names_the_bots(desk: Callable[[], Desk], mode: str) -> None:
    assert error("check_bot", {"bot": "dgoe"}, desk, mode=mode) == 'There is no bot "dgoe". The bots are: doge.'


@pytest.mark.parametrize("since", ["yesterday", "-3h", "24", "2999-01-01", "0h", "400d", "1990-01-01", "9" * 99])
def test_a_since_that_is_no_past_time_is_answered_with_what_is_accepted(desk: Callable[[], Desk], since: str) -> None:
    text = error("read_memory", {"since": since}, desk)
    assert "Write a length of time like 24h or 7d, or a time like 20" in text


def test_null_for_an_optional_argument_is_the_same_as_leaving_it_out(desk: Callable[[], Desk]) -> None:
    assert not call("read_memory", {"bot": None, "since": None}, desk).is_error


def test_what_is_known_to_fail_is_told_and_a_crash_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    def full() -> Desk:
        raise LedgerError("The ledger cannot be written: the disk is full. Free some space.")

    def broken() -> Desk:
        raise RuntimeError("the key is hunter2hunter2")

    assert error("check_bot", {}, full) == "The ledger cannot be written: the disk is full. Free some space."
    assert not caplog.records
    assert error("check_bot", {}, broken) == "Error executing tool check_bot"
    assert "hunter2hunter2" in caplog.text


def given_up(name: str, arguments: dict[str, Any], seconds: float) -> list[str]:
    """What was done of a call whose desk takes `seconds` to open, and whose caller leaves at once."""
    opened: list[str] = []
    closing = threading.Event()

    def slow() -> Desk:
        closing.wait(seconds)
        opened.append(name)
        raise LedgerError("late")

    async def work() -> None:
        async with Client(server.build(slow)) as client:
            with anyio.move_on_after(0.2):
                await client.call_tool(name, arguments)

    anyio.run(work)
    done = list(opened)
    closing.set()
    return done


def test_a_read_is_left_when_its_caller_goes() -> None:
    began = time.monotonic()
    assert given_up("check_bot", {}, seconds=30) == []
    assert time.monotonic() - began < 20


def test_an_action_is_not_left_when_its_caller_goes() -> None:
    assert given_up("stop_bot", {"bot": "doge", "reason": "x"}, seconds=0.8) == ["stop_bot"]


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ERAS)
def test_an_answer_is_structured_and_has_no_empty_fields(desk: Callable[[], Desk], mode: str) -> None:
    found = call("check_bot", {"bot": "doge"}, desk, mode=mode).structured_content
    assert found is not None
    (bot,) = found["bots"]
    assert (bot["status"], bot["fault"], bot["playbook"]) == ("faulty", "bot-not-running", "bot-not-running")
    assert bot["sentence"].startswith("doge is not running")
    assert None not in bot.values()
    assert "" not in bot.values()


def test_the_text_of_an_answer_is_the_same_document(desk: Callable[[], Desk]) -> None:
    """OpenClaw leaves out a text that is the document as JSON with an indent of two."""
    result = call("read_memory", {}, desk)
    assert isinstance(result.content[0], TextContent)
    assert result.content[0].text == json.dumps(result.structured_content, indent=2, ensure_ascii=False)


def test_a_playbook_is_given_with_its_policy_as_it_is_written(desk: Callable[[], Desk]) -> None:
    found = call("read_playbook", {"fault": "bot-not-running"}, desk).structured_content
    assert found is not None
    assert found["actions"] == ["restart_bot"]
    assert found["backoff"] == ["0s", "5m", "15m", "30m"]
    assert found["prose"].startswith("## Look")
    nothing = call("read_playbook", {"fault": "disk-full"}, desk).structured_content
    assert nothing is not None
    assert nothing["actions"] == []


def test_a_note_is_in_the_memory_that_is_read_next(desk: Callable[[], Desk]) -> None:
    noted = call("append_memory", {"note": "look at <!-- e9 --> this", "bot": "doge"}, desk).structured_content
    found = call("read_memory", {"bot": "doge", "since": "24h"}, desk).structured_content
    assert noted is not None
    assert found is not None
    assert found["entries"][-1]["id"] == noted["entry"]
    assert found["entries"][-1]["text"] == "look at <!-- e9 --> this"
    assert found["truncated"] is False


def test_what_people_wrote_into_the_journal_is_read_with_it(desk: Callable[[], Desk], home: Path) -> None:
    with (home / "memory/bot-operations.md").open("a") as file:
        file.write("Ana: leave doge alone on Sundays\n")
    found = call("read_memory", {}, desk).structured_content
    assert found is not None
    assert "Ana: leave doge alone on Sundays" in found["people"]


def test_a_bot_without_runtime_is_refused_with_what_has_to_happen_first(desk: Callable[[], Desk]) -> None:
    found = call("restart_bot", {"bot": "doge", "reason": "it is down"}, desk).structured_content
    assert found is not None
    assert found["result"] == "refused"
    assert "runtime" in found["until"]


# --- prompts and resources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ERAS)
def test_the_prompts_are_those_that_the_schedule_wakes_an_assistant_with(mode: str) -> None:
    async def work(client: Client) -> dict[str, str]:
        listed = (await client.list_prompts()).prompts
        return {one.name: (await client.get_prompt(one.name)).messages[0].content.text for one in listed}  # type: ignore[union-attr]

    found = talk(work, mode=mode)
    assert set(found) == {"bot_health_check", "bot_morning_report", "how_are_the_bots"}
    assert all("Use the botkeep tools." in text for text in found.values())


@pytest.mark.parametrize("mode", ERAS)
def test_playbooks_the_journal_and_skills_are_resources(desk: Callable[[], Desk], home: Path, mode: str) -> None:
    async def work(client: Client) -> list[str]:
        uris = ["botkeep://playbooks/bot-hung", "botkeep://journal", "botkeep://skills/keep-bots-alive"]
        return [(await client.read_resource(uri)).contents[0].text for uri in uris]  # type: ignore[union-attr]

    playbook, journal, skill = talk(work, desk, mode=mode)
    assert playbook == (home / "playbooks/bot-hung.md").read_text()
    assert journal in (home / "memory/bot-operations.md").read_text()
    assert skill == (home / "skills/keep-bots-alive/SKILL.md").read_text()


@pytest.mark.parametrize("uri", ["botkeep://playbooks/none", "botkeep://skills/..%2Fconfig", "botkeep://skills/none"])
def test_a_resource_that_is_not_there_is_an_error_and_no_way_out(desk: Callable[[], Desk], uri: str) -> None:
    async def work(client: Client) -> str:
        with pytest.raises(MCPError) as refused:
            await client.read_resource(uri)
        return str(refused.value)

    assert "doge" not in talk(work, desk)


def test_only_the_end_of_a_long_journal_is_a_resource(desk: Callable[[], Desk], home: Path) -> None:
    path = home / "memory/bot-operations.md"
    before = path.read_text()
    path.write_text(before + "".join(f"line {number}\n" for number in range(5000)))
    try:
        found = talk(lambda client: client.read_resource("botkeep://journal"), desk).contents[0].text
    finally:
        path.write_text(before)
    assert len(found) <= server.JOURNAL_TAIL
    assert found.startswith("line ")
    assert found.endswith("line 4999\n")
