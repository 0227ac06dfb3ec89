"""A person's own signatures: they come first, only where they are meant to, and whatever is wrong is one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from botkeep.causes import read_log
from botkeep.cli import main
from botkeep.profiles import PROFILES
from botkeep.profiles.workspace_signatures import SIGNATURES, own_signatures, read_own, signatures_for
from botkeep.workspace import Workspace

PLAIN, FREQTRADE = PROFILES["plain"], PROFILES["freqtrade"]
NOW = datetime.now(UTC)

MARGIN: dict[str, Any] = {
    "id": "margin-call",
    "contains": ["margin call"],
    "pattern": r"margin call at (?P<end>\d{13})",
    "cause": "The exchange calls for margin.",
    "class": "stop",
    "fault": None,
    "until": "end",
    "recent": "2h",
    "source": "our desk",
    "do": "Pay it.",
    "example": "ERROR margin call at 1795254686000",
}
ALIVE: dict[str, Any] = {
    "id": "alive",
    "pattern": r"\Aalive (?P<who>\d+)",
    "contains": ["alive"],
    "example": "alive 17",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/bots.json").write_text('{"bots": []}')
    return Workspace(tmp_path)


def write(workspace: Workspace, *signatures: object, **more: object) -> Path:
    path = workspace.home / SIGNATURES
    path.write_text(plain_yaml({"signatures": list(signatures), **more}))
    return path


class _Plain(yaml.SafeDumper):
    """As people write: each text where it is meant."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the dumper asks
        return True


def plain_yaml(value: object) -> str:
    return yaml.dump(value, Dumper=_Plain, sort_keys=False)


def ids(workspace: Workspace, bot: str = "doge", profile: Any = PLAIN) -> list[str]:
    return [one.id for one in signatures_for(workspace, bot, profile)[0].patterns]


def problems(workspace: Workspace) -> tuple[str, ...]:
    catalogue, found = signatures_for(workspace, "doge", PLAIN)
    assert [one for one in catalogue.signatures if one.id == "database-locked"], "the packaged ones go on working"
    return found


# ------------------------------------------------------------------------------------------------------- what counts


def test_without_a_file_the_packaged_signatures_count_and_nothing_is_wrong(workspace: Workspace) -> None:
    catalogue, found = signatures_for(workspace, "doge", FREQTRADE)
    assert found == ()
    assert [one.id for one in catalogue.signatures] == [one.id for one in FREQTRADE.catalogue().signatures]
    assert catalogue.joins == "dated"


def test_a_persons_own_come_first_and_the_packaged_ones_stay(workspace: Workspace) -> None:
    write(workspace, MARGIN, marks=[ALIVE])
    catalogue, found = signatures_for(workspace, "doge", FREQTRADE)
    assert found == ()
    assert catalogue.signatures[0].id == "margin-call"
    assert catalogue.signatures[1:] == FREQTRADE.catalogue().signatures
    assert catalogue.marks[0].id == "alive"
    assert (catalogue.joins, catalogue.codes) == ("dated", FREQTRADE.catalogue().codes)


def test_they_are_found_in_a_log(workspace: Workspace, tmp_path: Path) -> None:
    write(workspace, MARGIN, marks=[ALIVE])
    log = tmp_path / "bot.log"
    log.write_text(f"{NOW:%Y-%m-%d %H:%M:%S} margin call at 1795254686000\nalive 8\n")
    catalogue = signatures_for(workspace, "doge", PLAIN)[0]
    seen = read_log(log, cursor=None, now=NOW, zone="UTC", catalogue=lambda: catalogue)
    assert [(one.signature, one.cause, one.advice) for one in seen.causes] == [
        ("margin-call", "The exchange calls for margin.", "Pay it.")
    ]
    assert seen.marks["alive"].values == {"who": "8"}


def test_an_entry_may_be_for_some_bots_or_some_kinds_of_program_only(workspace: Workspace) -> None:
    write(
        workspace,
        MARGIN | {"id": "one-bot", "bots": ["doge", "pepe"]},
        MARGIN | {"id": "one-kind", "profiles": ["freqtrade"]},
        MARGIN | {"id": "both", "bots": ["doge"], "profiles": ["freqtrade"]},
        marks=[ALIVE | {"bots": ["other"]}],
    )
    own = {"one-bot", "one-kind", "both", "alive"}
    assert own & set(ids(workspace, "doge", PLAIN)) == {"one-bot"}
    assert own & set(ids(workspace, "doge", FREQTRADE)) == {"one-bot", "one-kind", "both"}
    assert own & set(ids(workspace, "other", FREQTRADE)) == {"one-kind", "alive"}
    assert problems(workspace) == ()


def test_an_entry_with_the_id_of_a_packaged_one_replaces_it(workspace: Workspace) -> None:
    write(workspace, MARGIN | {"id": "database-damaged", "bots": ["doge"]})
    mine = [one for one in signatures_for(workspace, "doge", PLAIN)[0].signatures if one.id == "database-damaged"]
    assert [one.cause for one in mine] == ["The exchange calls for margin."]
    theirs = [one for one in signatures_for(workspace, "other", PLAIN)[0].signatures if one.id == "database-damaged"]
    assert [one.cause for one in theirs] == [
        one.cause for one in PLAIN.catalogue().signatures if one.id == "database-damaged"
    ]


def test_the_file_is_read_again_when_it_has_changed_and_only_then(workspace: Workspace) -> None:
    path = write(workspace, MARGIN)
    first = signatures_for(workspace, "doge", PLAIN)[0]
    assert signatures_for(workspace, "doge", PLAIN)[0] is first
    write(workspace, MARGIN | {"id": "changed"})
    os.utime(path, (1, 1))
    assert ids(workspace)[0] == "changed"
    path.unlink()
    assert ids(workspace) == [one.id for one in PLAIN.catalogue().patterns]


# ------------------------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pattern": "(?=x)margin call"}, "pattern: RE2 has no look-around; use `unless`"),
        ({"pattern": "(a{1000}){1000}"}, "pattern: it is too large"),
        ({"mode": 3}, "mode: only botkeep's own files have it; take it out"),
        ({"bots": "doge"}, "bots: write a list of names, or leave it out for all"),
        ({"bots": []}, "bots: write a list of names, or leave it out for all"),
        ({"profiles": [1]}, "profiles: write a list of names, or leave it out for all"),
        ({"profiles": ["fretrade"]}, 'profiles: found "fretrade"; did you mean freqtrade?'),
        ({"example": "margin call at " + "1" * 9000}, "example: write one line of at most 8192 characters"),
        ({"contains": ["ma"]}, "contains: write texts of 3 characters or more"),
        ({"contains": ["margin\ncall"]}, "contains: write texts of 3 characters or more, each in one line"),
        ({"example": "all is well"}, "example: write a line that pattern and contains match"),
        ({"id": "../../etc"}, "id: write lower-case letters"),
        ({"cause": {"a": "b"}}, "cause: write text, not a mapping"),
        ({datetime(2026, 1, 1, tzinfo=UTC): 1}, "there is no such key"),
    ],
)
def test_a_broken_entry_is_named_with_its_file_and_what_to_write_and_the_others_work(
    workspace: Workspace, change: dict[Any, object], said: str
) -> None:
    write(workspace, MARGIN, {**MARGIN, "id": "broken", **change}, marks=[ALIVE])
    (problem,) = problems(workspace)
    assert problem.startswith("config/signatures.yaml: signatures[1] (")
    assert said in problem
    assert problem.endswith("It is left out; the others work.")
    assert "\n" not in problem
    assert {"margin-call", "alive"} <= set(ids(workspace))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"signatures: [", "it is no YAML: line "),
        (b"- a\n- b\n", "it holds no signatures; write a mapping"),
        (b"a: !!python/object/apply:os.system [ls]", "line 1: tags (!!python/object/apply:os.system) are not read"),
        (b"a: !!int ''", "tags (!!int)"),
        (b"a: \x00", "it is no YAML"),
        (b"a: \xff", "it is not UTF-8 (byte 3)"),
        (b"a: 1\n---\nb: 2\n", "it is no YAML"),
        (b"[" * 100_000, "line 1: it is nested too deeply"),
        (b"{a: " * 10_000, "line 1: it is nested too deeply"),
        (b"\n".join(b" " * depth + b"-" for depth in range(700)), "it is nested too deeply"),
        (b"a: &a [x]\nb: *a\n", "line 1: anchors and aliases (& and *) are not read here"),
        (b"signatures: " + b"9" * 5000, "it is no YAML: Exceeds the limit"),
        (b"signatures: 2026-99-99", "it is no YAML: month must be in 1..12"),
        (b"# " + b"x" * (256 << 10), "it is larger than 256 KiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence_and_costs_little(
    workspace: Workspace, content: bytes, said: str
) -> None:
    (workspace.home / SIGNATURES).write_bytes(content)
    began = time.thread_time()
    (problem,) = problems(workspace)
    assert time.thread_time() - began < 2
    assert problem.startswith("config/signatures.yaml: ")
    assert said in problem
    assert problem.endswith("Until it is mended, none of it counts.")
    assert "\n" not in problem


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(("make", "said"), [(_folder, "Is a directory"), (os.mkfifo, "it is no file; make it one")])
def test_what_is_no_file_is_one_sentence(workspace: Workspace, make: Any, said: str) -> None:
    make(workspace.home / SIGNATURES)
    (problem,) = problems(workspace)
    assert problem.startswith("config/signatures.yaml")
    assert said in problem


def test_a_file_that_may_not_be_read_is_one_sentence(workspace: Workspace) -> None:
    path = write(workspace, MARGIN)
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root reads everything
    try:
        found = read_own(path, SIGNATURES).problems
    finally:
        if root:
            os.seteuid(0)
    assert len(found) == 1
    assert "cannot be read" in found[0]


def test_what_a_file_of_ones_own_may_not_hold_is_left_out(workspace: Workspace) -> None:
    write(workspace, MARGIN, rules=[], exits={"codes": {0: "fine"}}, joins="dated")
    found = problems(workspace)
    assert [problem.split(": ")[1] for problem in found] == ['"rules"', '"exits"', '"joins"']
    catalogue = signatures_for(workspace, "doge", PLAIN)[0]
    assert (catalogue.joins, catalogue.codes) == (PLAIN.catalogue().joins, PLAIN.catalogue().codes)
    assert catalogue.signatures[0].id == "margin-call"


@pytest.mark.parametrize("value", [3, "text", {"a": 1}, [[[]]], None])
def test_a_list_that_is_none_is_told(workspace: Workspace, value: object) -> None:
    (workspace.home / SIGNATURES).write_text(yaml.safe_dump({"signatures": value, "marks": [ALIVE]}))
    assert len(problems(workspace)) == (value is not None)
    assert "alive" in ids(workspace)


def test_of_too_many_entries_the_first_count_in_little_time(workspace: Workspace) -> None:
    large = {"pattern": "x{0,300}" * 4 + "margin call", "until": None}
    write(workspace, *(MARGIN | large | {"id": f"s-{number}"} for number in range(300)))
    began = time.thread_time()
    found = problems(workspace)
    assert time.thread_time() - began < 5
    assert found == ("config/signatures.yaml: signatures: only the first 200 are read; take some out.",)
    assert len([name for name in ids(workspace) if name.startswith("s-")]) == 200


def test_patterns_that_explode_take_nothing_down(workspace: Workspace, tmp_path: Path) -> None:
    """Each of them is allowed by its size, and RE2 gives up its fast way for each line of this log."""
    dear = [
        MARGIN | {"id": f"dear-{number}", "pattern": f"x.{{0,{400 + number}}}z|margin", "contains": None, "until": None}
        for number in range(50)
    ]
    write(workspace, *dear)
    assert problems(workspace) == ()
    catalogue = signatures_for(workspace, "doge", PLAIN)[0]
    log = tmp_path / "bot.log"
    log.write_text("starting\n")
    first = read_log(log, cursor=None, now=NOW, zone="UTC", catalogue=lambda: catalogue)
    bits = f"{int.from_bytes(os.urandom(4000)):b}".replace("1", "x").replace("0", "y")
    log.write_text("starting\n" + (bits[:8000] + "\n") * 500 + "sqlite3.OperationalError: database is locked\n")
    began = time.thread_time()
    seen = read_log(log, cursor=first.cursor, now=NOW, zone="UTC", catalogue=lambda: catalogue)
    assert time.thread_time() - began < 30
    assert "database-locked" in [one.signature for one in seen.causes]
    assert "dear-0" in seen.slow


# --------------------------------------------------------------------------------------------------------- the command


def run(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, list[str], str]:
    code = main(["--home", str(home), "signatures", *words])
    told = capsys.readouterr()
    return code, told.out.splitlines(), told.err


def test_a_check_tells_of_each_signature_that_it_matches_its_example(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    write(workspace, MARGIN, MARGIN | {"id": "other"}, marks=[ALIVE])
    code, lines, errors = run(capsys, workspace.home, "check")
    assert (code, errors) == (0, "")
    assert lines == [f"ok: {name} matches its example" for name in ("margin-call", "other", "alive")]


def test_a_check_of_a_broken_file_ends_with_two_and_a_line_for_each_problem(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(workspace, MARGIN | {"pattern": "(?=x)"}, MARGIN, MARGIN | {"class": "panic"}, exits={})
    for words in (("check",), ("check", str(path))):
        code, lines, _ = run(capsys, workspace.home, *words)
        assert code == 2
        assert len(lines) == 3
        assert all(line.startswith("mend: ") and "signatures.yaml" in line for line in lines)
    code, lines, _ = run(capsys, workspace.home, "check", "--json")
    document = json.loads("\n".join(lines))
    assert (code, document["file"], document["good"], len(document["mend"])) == (2, SIGNATURES, ["margin-call"], 3)


def test_a_check_without_a_file_says_what_there_is(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = run(capsys, workspace.home, "check")
    assert (code, len(lines)) == (0, 1)
    assert "config/signatures.yaml" in lines[0]
    code, lines, errors = run(capsys, workspace.home, "check", "/nonexistent/x.yaml")
    assert (code, lines) == (2, [])
    assert errors.startswith("botkeep: There is no file /nonexistent/x.yaml; name a file of signatures")


def test_every_packaged_file_but_for_modes_and_rules_could_be_a_persons_own(tmp_path: Path) -> None:
    """People begin with a copy of one."""
    folder = Path(signatures_for.__code__.co_filename).parent / "signatures"
    for packaged in folder.glob("*.yaml"):
        raw = yaml.safe_load(packaged.read_text())
        for entry in raw["signatures"]:
            entry.pop("mode", None)
        copy = tmp_path / packaged.name
        copy.write_text(plain_yaml({key: raw.get(key) or [] for key in ("signatures", "marks")}))
        assert read_own(copy, "copy").problems == ()


def test_a_list_has_id_class_cause_and_source_of_each(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    write(workspace, MARGIN, MARGIN | {"id": "database-locked", "profiles": ["plain"]})
    code, lines, _ = run(capsys, workspace.home, "list")
    assert code == 0
    assert lines[0].split() == ["ID", "CLASS", "OF", "CAUSE", "SOURCE"]
    assert lines[1].split()[:3] == ["margin-call", "stop", "own"]
    assert [line.split()[:3] for line in lines if line.startswith("database-locked ")] == [
        ["database-locked", "stop", "own"],
        ["database-locked", "restart", "plain"],  # for the bots of the other profiles
    ]
    code, lines, _ = run(capsys, workspace.home, "list", "--profile", "plain", "--json")
    found = {one["id"]: one for one in json.loads("\n".join(lines))["signatures"]}
    assert {"id", "class", "cause", "source", "of"} <= found["margin-call"].keys()
    assert (found["database-locked"]["of"], found["margin-call"]["do"]) == ("own", "Pay it.")
    assert {one["of"] for one in found.values()} == {"own", "plain"}
    assert {one["by"] for one in found.values()} == {"line", "rule"}


def test_a_list_needs_no_workspace() -> None:
    command = [sys.executable, "-m", "botkeep", "signatures", "list", "--profile", "freqtrade"]
    bare = {name: value for name, value in os.environ.items() if name != "BOTKEEP_HOME"}
    done = subprocess.run(command, cwd="/", env=bare, capture_output=True, text=True, check=True)
    assert "binance-ip-ban" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "x.yaml"), "takes no file"),
        (("check", "--profile", "plain"), "--profile is for `botkeep signatures list`"),
        (("list", "--profile", "fretrade"), 'there is no profile "fretrade"; did you mean freqtrade?'),
        (("lst",), 'There is no subcommand "lst"; did you mean list?'),
    ],
)
def test_a_wrong_use_is_one_line(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    code, lines, errors = run(capsys, workspace.home, *words)
    assert (code, lines) == (2, [])
    assert said in errors
    assert errors.count("\n") == 1


def test_what_is_wrong_with_the_file_is_told_in_the_list_too(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    write(workspace, MARGIN | {"class": "panic"})
    assert len(own_signatures(workspace).problems) == 1
    code, lines, _ = run(capsys, workspace.home, "list")
    assert code == 0
    assert lines[-1].startswith('mend: config/signatures.yaml: signatures[0] ("margin-call"): class: found "panic"')


def test_the_example_in_the_documentation_can_be_used(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/signatures.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "signatures.yaml").write_text(example)
    own = read_own(tmp_path / "signatures.yaml", "x")
    assert (own.problems, [one.id for one in own.signatures]) == ((), ["margin-call"])
    named = set(re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE))
    assert own.signatures[0].bots == {"doge"}
    assert {f"`{key}`" for key in yaml.safe_load(example)["signatures"][0]} - {"`bots`"} <= named
