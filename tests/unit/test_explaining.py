"""The explanation of a bot: its cause first, what proves it, what to do, what changed; real logs, real documents."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from botkeep import diagnose, untrusted
from botkeep.advice import act_of
from botkeep.causes import read_log
from botkeep.incidents import Incident
from botkeep.model import (
    Cause,
    CauseClass,
    Diagnosis,
    Exit,
    Fault,
    HostCause,
    HostLook,
    Instance,
    InstanceState,
    Mark,
    Observation,
    ProgramLook,
    RuntimeLook,
)
from botkeep.playbooks import packaged_playbooks
from botkeep.profiles import PROFILES
from botkeep.results import diagnosis_document
from botkeep.terminal import diagnosis_lines
from botkeep.what_changed import Watched, remember_versions
from support.tables import entry

PLAIN = PROFILES["plain"]
KNOWN = {one.id: one for one in PLAIN.signatures()}
NOW = datetime.now(UTC).replace(microsecond=0)
BOOKS = packaged_playbooks()
SIGNED = f"https://api.binance.com/api/v3/account?timestamp=1&signature={'9f' * 32}"
REFUSED = f'binance GET {SIGNED} 401 {{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}}'


def cause(name: str, *, line: str = "a line", count: int = 3, **more: Any) -> Cause:
    known = KNOWN[name]
    plain = Cause(
        name,
        known.cause,
        known.klass,
        known.fault,
        line,
        count,
        NOW - timedelta(minutes=5),
        NOW - timedelta(seconds=10),
    )
    return replace(plain, **{"advice": "", **more})


def seen(*causes: Cause, ended: Exit | None = None, alive: bool = False, **more: Any) -> Observation:
    instance = Instance("k", 7, InstanceState.RUNNING, NOW, ours=True, how="recorded")
    return Observation("doge", NOW, RuntimeLook((instance,) if alive else (), ended), causes=causes, **more)


def ended(**how: Any) -> Exit:
    return Exit(key="x", at=NOW, **how)


def explain(look: Observation, log: Path | None = None, **more: Any) -> Diagnosis:
    return diagnose.explain("doge", look, profile=PLAIN, log=log, now=NOW, **more)


def machine(*causes: tuple[str, str, bool], **more: Any) -> HostLook:
    return HostLook(NOW, causes=tuple(HostCause(name, text, sure) for name, text, sure in causes), **more)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "bot.log"


@pytest.fixture
def secrets() -> Iterator[None]:
    known = dict(untrusted._known)
    yield
    untrusted._known = known


# ------------------------------------------------------------------------------------------------------ the cause first


def test_an_explanation_names_the_cause_first_what_it_asks_for_and_then_the_exit() -> None:
    look = seen(cause("exchange-timeout", count=50), cause("binance-key-refused"), ended=ended(code=2))
    told = explain(look)
    assert told.sentence == (
        f"doge: Binance refuses the API key, its permissions, or this address (3 lines in its log from "
        f"{NOW - timedelta(minutes=5):%Y-%m-%d %H:%M:%SZ} to {NOW - timedelta(seconds=10):%Y-%m-%d %H:%M:%SZ}): "
        f"a restart does not help, a person has to see to it; it was started with arguments or a configuration that it "
        f"does not accept (exit code 2)."
    )
    assert (told.cause, told.klass, told.until) == ("binance-key-refused", CauseClass.STOP, None)
    assert told.causes == look.causes
    assert told.exit_meaning.endswith("(exit code 2)")


def test_a_cause_of_the_dead_run_asks_for_nothing_any_more() -> None:
    told = explain(seen(cause("disk-full", this_run=False), alive=True))
    assert told.sentence.startswith("doge: Before its newest start: The disk is full")
    assert (told.klass, told.advice) == (None, "")
    frozen = explain(
        seen(cause("disk-full", this_run=False), alive=True), found="doge is frozen.", fault=Fault.BOT_HUNG
    )
    assert frozen.sentence.startswith("doge is frozen; before its newest start: The disk is full")


def test_a_ban_names_its_end_until_it_is_over() -> None:
    until = NOW + timedelta(hours=3)
    told = explain(seen(cause("binance-ip-ban", until=until), alive=True))
    assert f"too many requests until {until:%Y-%m-%d %H:%M:%SZ} (" in told.sentence
    assert told.sentence.endswith("): wait, a restart does not help.")
    assert told.until == until
    over = explain(seen(cause("binance-ip-ban", until=NOW - timedelta(minutes=1)), alive=True))
    assert (over.until, " until " in over.sentence) == (None, False)


def test_without_a_cause_the_explanation_says_what_is_known() -> None:
    assert explain(seen(alive=True)).sentence == "doge: it runs; its log names no known cause."
    assert explain(seen()).sentence == (
        "doge: how it ended is not known: botkeep did not start it; its log names no known cause."
    )
    frozen = explain(seen(alive=True), found="doge is frozen.")
    assert (frozen.sentence, frozen.cause) == ("doge is frozen; its log names no known cause.", "")


# ------------------------------------------------------------------------------------------------------- the machine


CLOCK = ("clock", "By what the bot's log says, this machine's clock is 3.2 s behind; no time service sets it.", False)
NAMES = ("dns", "This machine cannot resolve api.binance.com: the name servers do not answer (asked for 3.0 s).", True)
FULL = ("disk", "The disk of /srv has 12 MB of 100 GB left.", True)
KILLED = (
    "oom-kill",
    "The kernel killed it (pid 7, python3) at 2026-11-21 11:59:58Z: the machine had no memory left.",
    True,
)
MAYBE = ("oom-kill", "The kernel killed a python3 (pid 9), about when the bot ended: no memory.", False)


@pytest.mark.parametrize(
    ("complaint", "of_host"),
    [("clock-off", CLOCK), ("name-resolution", NAMES), ("connection-lost", NAMES), ("disk-full", FULL),
     ("out-of-memory", KILLED)],
)  # fmt: skip
def test_what_of_the_machine_explains_the_logs_complaint_is_named_before_it(
    complaint: str, of_host: tuple[str, str, bool]
) -> None:
    other = ("something", "Something else is odd.", False)
    told = explain(seen(cause(complaint), alive=True), host=machine(other, of_host))
    assert told.sentence.startswith(
        f"doge: {of_host[1].rstrip('.')}; its log says: {KNOWN[complaint].cause.rstrip('.')} (3"
    )
    assert told.cause == of_host[0]
    assert [one.id for one in told.host] == [of_host[0], "something"]


def test_a_machine_whose_trouble_explains_nothing_of_it_is_told_beside_it() -> None:
    told = explain(seen(cause("binance-key-refused"), alive=True), host=machine(FULL, CLOCK))
    assert told.sentence.startswith("doge: Binance refuses the API key")
    assert [one.id for one in told.host] == ["disk", "clock"]
    assert told.klass is CauseClass.STOP


def test_a_bot_that_the_kernel_killed_has_that_as_its_cause_whatever_its_log_says() -> None:
    look = seen(cause("exchange-timeout"), ended=ended(signal=9, peak_rss_bytes=812_000_000))
    told = explain(look, host=machine(KILLED))
    assert told.sentence.startswith("doge: The kernel killed it (pid 7, python3) at 2026-11-21 11:59:58Z")
    assert told.sentence.endswith("; the kernel killed it for lack of memory (signal 9), at a peak of 812 MB.")
    assert explain(seen(ended=ended(signal=9)), host=machine(KILLED)).klass is CauseClass.RESTART
    assert explain(look, host=machine(MAYBE)).cause == "exchange-timeout"
    assert explain(seen(ended=ended(signal=9)), host=machine(MAYBE)).cause == "oom-kill"


def test_a_full_disk_explains_a_bot_that_is_not_well_and_says_nothing() -> None:
    host = machine(FULL)
    assert explain(seen(alive=True), host=host).cause == ""
    assert explain(seen(alive=True), host=host, found="doge is silent.").cause == "disk"
    assert explain(seen(), host=host).sentence.startswith(
        "doge: The disk of /srv has 12 MB of 100 GB left: this machine"
    )


def test_without_an_examination_what_the_look_saw_of_the_machine_counts() -> None:
    assert explain(seen(cause("disk-full"), host=machine(FULL))).cause == "disk"


# ------------------------------------------------------------------------------------------------------------ advice


def prose(fault: Fault) -> str:
    return BOOKS.get(fault).prose


def test_a_causes_own_advice_goes_before_the_playbooks() -> None:
    told = explain(seen(cause("binance-ip-ban", advice="Wait for the ban's end."), alive=True), prose=prose)
    assert told.advice == "Wait for the ban's end."
    told = explain(seen(cause("binance-ip-ban"), alive=True), prose=prose)
    assert told.advice.startswith("Wait. ")


def test_the_machines_advice_is_its_own_or_that_of_its_fault() -> None:
    assert "time service" in explain(seen(cause("clock-off"), alive=True), host=machine(CLOCK), prose=prose).advice
    assert "resolver" in explain(seen(cause("name-resolution")), host=machine(NAMES), prose=prose).advice
    killed = explain(seen(ended=ended(signal=9)), host=machine(KILLED), prose=prose)
    assert killed.advice == PLAIN.catalogue().rules["kernel-oom"].advice
    short = explain(seen(cause("out-of-memory")), host=machine(("memory", "It is short.", True)), prose=prose)
    assert short.advice == act_of(prose(Fault.OUT_OF_MEMORY))


def test_where_no_cause_is_known_the_playbook_of_the_fault_advises() -> None:
    assert explain(seen(alive=True), fault=Fault.BOT_HUNG, prose=prose).advice == act_of(prose(Fault.BOT_HUNG))
    assert explain(seen(alive=True), prose=prose).advice == ""


def test_every_packaged_playbook_says_what_to_do_in_its_first_sentences() -> None:
    for fault in Fault:
        assert 20 < len(act_of(prose(fault))) < 400, fault


@pytest.mark.parametrize(
    ("text", "said"), [("", ""), ("## Look\nx\n", ""), ("## Act\n\nGo. Now!\nStop. ## Look", "Go. Now!")]
)
def test_the_section_act_is_read_to_its_second_sentence(text: str, said: str) -> None:
    assert act_of(text) == said


# ---------------------------------------------------------------------------------------------- evidence and last lines


def _logged(log: Path, *lines: str) -> tuple[Cause, ...]:
    written = "".join(f"{NOW - timedelta(seconds=9):%Y-%m-%d %H:%M:%S} - bot - ERROR - {line}\n" for line in lines)
    log.write_text(written)
    return read_log(log, cursor=None, now=NOW, zone="UTC", catalogue=PLAIN.catalogue).causes


def test_the_evidence_is_the_newest_line_of_each_cause_without_secrets(log: Path, secrets: None) -> None:
    untrusted.register_secrets(["Zebra-4711-Giraffe"])
    causes = _logged(
        log, "database is locked", REFUSED, "key Zebra-4711-Giraffe token=abcdefgh12345 database is locked"
    )
    told = explain(seen(*causes, alive=True), log)
    first, second = told.evidence
    assert "-2015" in first  # the leading cause's
    assert "signature=[redacted]" in first
    assert second.endswith("key [redacted] token=[redacted] database is locked")
    everything = json.dumps(diagnosis_document(told).model_dump(mode="json")) + "\n".join(diagnosis_lines(told, UTC))
    for secret in ("9f9f", "Zebra-4711", "abcdefgh12345"):
        assert secret not in everything


def test_a_secret_that_became_known_after_the_line_was_read_is_hidden_too(log: Path, secrets: None) -> None:
    causes = _logged(log, "Zebra-4711-Giraffe: database is locked")
    untrusted.register_secrets(["Zebra-4711-Giraffe"])
    assert explain(seen(*causes), log).evidence[0].endswith("[redacted]: database is locked")


def test_the_last_lines_or_why_there_are_none_are_part_of_it(log: Path) -> None:
    assert explain(seen(), log).lines == (f"(The log {log} does not exist (yet).)",)
    log.write_text("bye token=abcdef123\n")
    told = explain(seen(), log)
    assert (told.lines, told.lines_total, told.truncated, told.log_part) == (("bye token=[redacted]",), 1, False, "")


def test_of_a_large_log_it_is_said_that_its_tail_was_read_and_that_stays_quick(log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(5_000_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"the end\n" * 3000)
    began = time.process_time()
    told = explain(seen(), log)
    assert time.process_time() - began < 1.0  # 0.05 s measured
    assert told.log_part == "the last 256 KiB of 5.0 GB"
    assert told.truncated
    assert f"The last 40 of {told.lines_total} lines of its log, of the last 256 KiB of 5.0 GB:" in "\n".join(
        diagnosis_lines(told, UTC)
    )


# ------------------------------------------------------------------------------------------------------ what changed


def test_what_changed_in_the_day_before_the_end_is_told_and_nothing_later(tmp_path: Path) -> None:
    config, own = tmp_path / "bots.json", tmp_path / "live.json"
    for path, minutes in ((config, 10), (own, 5)):
        path.write_text("{}")
        os.utime(path, (NOW.timestamp() - minutes * 60,) * 2)
    entries = [
        entry("note", "note", NOW - timedelta(days=2), sentence="long ago"),
        entry("outcome", "restart", NOW - timedelta(hours=2), sentence="doge was restarted\nforged: line"),
        entry("outcome", "restart", NOW + timedelta(seconds=5), sentence="after the end"),
    ]
    at = NOW - timedelta(hours=1)
    versions = remember_versions({"version": {"is": "1"}}, {"beat": Mark("beat", at, {"version": "2"}, 1, at)}, "", NOW)
    told = explain(
        seen(ended=ended(code=1), program=ProgramLook(cursor={"versions": versions})),
        entries=entries,
        config_file=config,
        files=[Watched("its configuration live.json", own)],
    )
    assert [change.split(": ", 1)[1] for change in told.changed] == [
        "doge was restarted\\nforged: line",
        "its version changed from 1 to 2",
        "bots.json was edited",
        "its configuration live.json was edited",
    ]


# --------------------------------------------------------------------------------------------------------- documents


def full(log: Path) -> Diagnosis:
    """A diagnosis with everything in it."""
    causes = _logged(log, REFUSED, *("fine" for _ in range(60)), "database is locked")
    shared = Incident(
        "key:binance", "2 of 3 bots: the key is refused: doge, btc.", ("doge", "btc"), CauseClass.STOP, None, NOW
    )
    return explain(
        seen(*causes, ended=ended(code=2)),
        log,
        host=machine(FULL, notes=("Nobody may say who was killed.",)),
        incidents=[Incident("x", "others", ("sol", "ada"), CauseClass.WAIT, None, NOW), shared],
        entries=[entry("outcome", "restart", NOW - timedelta(hours=2), sentence="doge was restarted")],
        prose=prose,
    )


def test_the_document_says_everything_once_the_cause_first(log: Path) -> None:
    document = diagnosis_document(full(log)).model_dump(mode="json")
    assert list(document)[:5] == ["bot", "at", "sentence", "asks_for", "do"]
    assert document["asks_for"] == "stop"
    assert document["incident"] == "2 of 3 bots: the key is refused: doge, btc."
    assert document["host"] == [{"id": "disk", "text": FULL[1], "certain": True}]
    assert [one["id"] for one in document["causes"]] == ["binance-key-refused", "database-locked"]
    assert document["notes"] == ["Nobody may say who was killed."]
    assert "-2015" in document["untrusted_evidence"]
    assert "is locked" not in document["untrusted_evidence"]  # it stands among the last lines already
    assert document["untrusted_log"].count("is locked") == 1
    assert len(document["changed"]) == 1


def test_the_text_says_the_same_in_the_same_order(log: Path) -> None:
    lines = list(diagnosis_lines(full(log), UTC))
    assert lines[0].startswith("doge: Binance refuses the API key")
    labels = [line.split(":")[0].strip() for line in lines[1:] if not line.startswith("  | ")]
    assert labels[:8] == ["do", "incident", "host", "log", "log", "exit", "changed", "note"]
    assert labels[8].startswith("The last ")
    assert any(line.startswith("  log: binance-key-refused (stop): Binance refuses") for line in lines)


def test_a_bot_without_anything_has_a_short_document() -> None:
    document = diagnosis_document(explain(seen(alive=True))).model_dump(mode="json")
    assert list(document) == ["bot", "at", "sentence", "untrusted_log", "lines_in_log", "truncated"]
