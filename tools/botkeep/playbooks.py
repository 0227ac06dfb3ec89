"""`playbooks/*.md` -> Policy and prose. The front matter binds the tools; the prose is for judgement, no code reads it.

A broken playbook never takes the fleet down: the last good version stays in force, and its problem says file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from . import untrusted
from .bundle import root
from .durable import read_regular, write_atomic
from .fields import STRICT, Duration, Whole, closest, explain, json_path, show
from .model import BotkeepError, Fault
from .workspace import Workspace

FILE_LIMIT = 1 << 20
HEAD_LIMIT = 16 << 10
"""Bytes of front matter. The parser recurses once per nesting, in C: a megabyte of brackets would end the process."""
LONGEST_APART = timedelta(seconds=25)
LONGEST_WITHIN = timedelta(seconds=35)
"""A tool call must end within 50 s: hosts cut it at 60."""

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times faster; some builds lack it


# --- the policy --------------------------------------------------------------------------------------------------


def _above_zero(value: timedelta) -> timedelta:
    if not value:
        raise PydanticCustomError("duration", "write a length of time above 0s")
    return value


def _up_to(limit: timedelta) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if value > limit:
            raise PydanticCustomError(
                "duration", "write at most {limit}s: a call must end in time", {"limit": int(limit.total_seconds())}
            )
        return value

    return AfterValidator(check)


_SIZE = re.compile(r"([0-9]{1,9})(KB|MB|GB)")
_SIZES = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def _size(value: object) -> int:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise PydanticCustomError("size", "write a size like 100MB or 2GB")
    return int(match[1]) * _SIZES[match[2]]


PositiveDuration = Annotated[Duration, AfterValidator(_above_zero)]
Size = Annotated[int, BeforeValidator(_size), WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,9}(KB|MB|GB)$"})]
Times = Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False, strict=True)]
Count = Annotated[Whole, Field(ge=1, le=1000)]


class WhenNothing(BaseModel):
    """Faults that a fact decides: there is no threshold."""

    model_config = STRICT


class WhenHung(BaseModel):
    """Silent for longer than both: so long, and so many times the longest pause its own history makes normal.

    Of a program that tells about its main loop or sends heartbeats (freqtrade): the loop older than `loop_at_least`,
    and than `per_open_trade` for each open trade and one more; or so many `heartbeats` missing as well.
    """

    model_config = STRICT

    silent_at_least: PositiveDuration
    times_normal: Times
    loop_at_least: PositiveDuration = timedelta(minutes=5)
    per_open_trade: PositiveDuration = timedelta(minutes=1)
    heartbeats: Count = 3


class WhenCrashLooping(BaseModel):
    """So many starts after a fault within so long, and down again."""

    model_config = STRICT

    restarts: Count
    within: PositiveDuration


class WhenStale(BaseModel):
    """No trade for longer than both: so long, and so many times its longest normal pause."""

    model_config = STRICT

    quiet_at_least: PositiveDuration
    times_normal: Times


class WhenDataCorrupt(BaseModel):
    """Damages that a person's edit looks like as well: a restore for these alone is approved by a person first."""

    model_config = STRICT

    ask_first: tuple[Literal["C3", "C7", "C12", "C13", "Q6", "R1"], ...]


class WhenTradingTooOften(BaseModel):
    """Besides max_trades_per_hour: so many in an hour, and so many times the busiest hour of its last 14 days."""

    model_config = STRICT

    times_usual: Times
    at_least: Count


class WhenDiskFull(BaseModel):
    """Less room than this where the bot writes; in bytes once loaded."""

    model_config = STRICT

    free_below: Size


class WhenRateLimited(BaseModel):
    """How long after its newest such log line a bot counts as waiting, where the exchange names no end.

    `calm`: how long after it a bot may be told to read its settings again, which asks the exchange for everything.
    """

    model_config = STRICT

    wait: PositiveDuration
    calm: PositiveDuration = timedelta(minutes=2)


class WhenEndpointFailing(BaseModel):
    """How long the endpoint has for a whole answer."""

    model_config = STRICT

    answer_within: Annotated[PositiveDuration, _up_to(timedelta(seconds=10))]


WHEN: dict[Fault, type[BaseModel]] = {
    **dict.fromkeys(Fault, WhenNothing),
    Fault.BOT_HUNG: WhenHung,
    Fault.BOT_CRASH_LOOPING: WhenCrashLooping,
    Fault.DATA_CORRUPT: WhenDataCorrupt,
    Fault.DATA_STALE: WhenStale,
    Fault.TRADING_TOO_OFTEN: WhenTradingTooOften,
    Fault.DISK_FULL: WhenDiskFull,
    Fault.API_RATE_LIMITED: WhenRateLimited,
    Fault.HEALTH_ENDPOINT_FAILING: WhenEndpointFailing,
}


class Confirm(BaseModel):
    """How often suspect evidence is looked at, and how far apart; certain evidence acts at once."""

    model_config = STRICT

    looks: Annotated[Whole, Field(ge=1, le=2)]
    apart: Annotated[Duration, _up_to(LONGEST_APART)]


class Verify(BaseModel):
    """A start has worked when the bot stayed up for `up_for`; that is watched for at most `within`."""

    model_config = STRICT

    up_for: Duration
    within: Annotated[PositiveDuration, _up_to(LONGEST_WITHIN)]

    @model_validator(mode="after")
    def _in_order(self) -> Verify:
        if self.up_for > self.within:
            raise PydanticCustomError("verify", "write an up_for that is not longer than within")
        return self


class Alert(BaseModel):
    """How long the fault stands before people are told."""

    model_config = STRICT

    after: Duration


class Policy(BaseModel):
    """The front matter of one playbook. Every key is required: what a policy is must stand in the file."""

    model_config = STRICT

    fault: Fault
    severity: Literal["critical", "warning", "info"]
    actions: tuple[Literal["restart_bot", "restore_data", "poll_less", "stop_bot"], ...]
    when: Any
    """The model of `WHEN` for this fault."""
    mode: Literal["auto", "ask"]
    confirm: Confirm
    backoff: Annotated[tuple[Duration, ...], Field(min_length=1, max_length=20)]
    reset_after: PositiveDuration
    max_per_day: Count
    verify: Verify
    alert: Alert
    hold_entries: bool = False
    """Ask a bot that can be asked to open no new positions, before it is stopped."""


@dataclass(frozen=True)
class Playbook:
    """What to do about one fault. `problem` set: the file is broken or missing; this version is in force instead."""

    policy: Policy
    prose: str
    path: Path
    problem: str | None = None


class PlaybookError(BotkeepError):
    """A playbook that cannot be used; the text begins with file and line."""


# --- one file ----------------------------------------------------------------------------------------------------


def parse_playbook(data: bytes, fault: Fault, shown: str) -> tuple[Policy, str]:
    """Policy and prose of one playbook's bytes. Raises PlaybookError, `shown` and line first."""
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PlaybookError(f"{shown}:{line}: not UTF-8 text; save it as UTF-8") from error
    head, prose = _split(text, shown)
    values, lines = _read_yaml(head, shown)
    return _policy(values, lines, fault, shown), prose


def _split(text: str, shown: str) -> tuple[str, str]:
    """The YAML between the two `---` lines, and what follows."""
    if not text.startswith("---\n"):
        raise PlaybookError(f"{shown}:1: found {show(text[:20])}; write the front matter between two lines of ---")
    end = text.find("\n---\n", 3) if not text.endswith("\n---") or "\n---\n" in text[3:] else len(text) - 4
    if end < 0:
        raise PlaybookError(f"{shown}:1: the front matter has no end; close it with a line of ---")
    head = text[4 : end + 1]
    if len(head) > HEAD_LIMIT:
        raise PlaybookError(f"{shown}:1: a front matter of {len(head)} characters; write at most {HEAD_LIMIT}")
    return head, text[end + 5 :].strip() + "\n"


Lines = dict[tuple[int | str, ...], int]
Model = TypeVar("Model", bound=BaseModel)


def _read_yaml(head: str, shown: str) -> tuple[Any, Lines]:
    """The values, and the line in the file of each. The safe loader: no tag can make an object."""
    loader = _Loader(head)
    try:
        node = loader.get_single_node()
        lines: Lines = {}
        _survey(node, (), 2, lines, set(), shown)
        return (loader.construct_document(node) if node is not None else None), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 2 if mark else 1
        raise PlaybookError(f"{shown}:{line}: not YAML: {untrusted.clean(str(error.problem), 120)}") from error
    except RecursionError as error:
        raise PlaybookError(f"{shown}:1: nested too deep for a playbook") from error
    except (yaml.YAMLError, ValueError) as error:
        raise PlaybookError(f"{shown}:1: not YAML: {untrusted.clean(str(error), 120)}") from error
    finally:
        loader.dispose()


def _survey(node: Any, loc: tuple[int | str, ...], at: int, lines: Lines, seen: set[int], shown: str) -> None:
    """Note each value's line; refuse what YAML would take silently: aliases (a bomb needs them) and a key twice.

    `at`: the line of what holds it, since an alias has the line of what it stands for.
    """
    if id(node) in seen:
        raise PlaybookError(f"{shown}:{at}: {_where(loc)}is an alias (*name); write the value out")
    seen.add(id(node))
    lines.setdefault(loc, node.start_mark.line + 2 if node is not None else 1)
    if isinstance(node, yaml.SequenceNode):
        for index, inner in enumerate(node.value):
            _survey(inner, (*loc, index), lines[loc], lines, seen, shown)
    elif isinstance(node, yaml.MappingNode):
        for key, inner in node.value:
            place = (*loc, str(key.value) if isinstance(key, yaml.ScalarNode) else "?")
            if place in lines:
                raise PlaybookError(f"{shown}:{key.start_mark.line + 2}: {_where(place)}stands twice; keep one")
            lines[place] = key.start_mark.line + 2
            _survey(inner, place, lines[place], lines, seen, shown)


def _where(loc: tuple[int | str, ...]) -> str:
    path = json_path(loc, "").lstrip(".")
    return f"{path} " if path else ""


def _policy(values: Any, lines: Lines, fault: Fault, shown: str) -> Policy:
    """`when` is typed by the fault, so it is validated apart from the rest."""
    if not isinstance(values, dict):
        raise PlaybookError(f"{shown}:1: found {show(values)}; write the keys {', '.join(Policy.model_fields)}")
    if values.get("fault") != fault.value:
        line = lines.get(("fault",), 1)
        raise PlaybookError(
            f"{shown}:{line}: fault: found {show(values.get('fault'))}; write {fault.value}, the name of the file"
        )
    policy = _validate(Policy, values, (), lines, shown)
    when = _validate(WHEN[fault], values["when"], ("when",), lines, shown)
    return policy.model_copy(update={"when": when})


def _validate(model: type[Model], values: Any, start: tuple[str, ...], lines: Lines, shown: str) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        inner, text = explain(error, model)
        loc = (*start, *inner)
        known = next(loc[:size] for size in range(len(loc), -1, -1) if loc[:size] in lines)
        raise PlaybookError(f"{shown}:{lines[known]}: {_where(loc).strip()}: {text}") from error


# --- all of them -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Playbooks:
    """The playbook in force for every fault."""

    by_fault: Mapping[Fault, Playbook]
    problems: tuple[str, ...] = ()
    """One sentence per file that is broken, missing or stray: file, line, what to write, what is in force."""

    def get(self, fault: Fault) -> Playbook:
        """The one for this fault; there always is one."""
        return self.by_fault[fault]

    def __iter__(self) -> Iterator[Playbook]:
        """In the order of importance."""
        return iter(self.by_fault.values())


def load_playbooks(workspace: Workspace) -> Playbooks:
    """Read every playbook: a person's edit is in force from the next call on. Raises nothing for a broken one.

    Of a broken or missing file the last good version counts (kept under .botkeep/playbooks/), else the packaged one.
    """
    stray = _stray(workspace)
    kept_dir = workspace.kept_playbooks_dir if workspace.kept_playbooks_dir.is_dir() else None
    found = {fault: _load(workspace.playbooks_dir / f"{fault.value}.md", fault, kept_dir) for fault in Fault}
    broken = [book.problem for book in found.values() if book.problem]
    return Playbooks(found, (*broken, *stray))


def packaged_playbooks() -> Playbooks:
    """The twelve as botkeep ships them."""
    return Playbooks({fault: _packaged(fault, None) for fault in Fault})


def _load(path: Path, fault: Fault, kept_dir: Path | None) -> Playbook:
    shown = f"playbooks/{path.name}"
    kept = kept_dir / path.name if kept_dir else None
    try:
        data = _read(path, shown)
        policy, prose = parse_playbook(data, fault, shown)
    except PlaybookError as error:
        return _instead(fault, kept, str(error))
    return Playbook(policy, prose, path, _keep(kept, data) if kept else None)


def _read(path: Path, shown: str) -> bytes:
    try:
        data = read_regular(path, FILE_LIMIT)
        mode = path.stat().st_mode if data is not None else 0
    except OSError as error:
        raise PlaybookError(f"{shown}: cannot be read: {error.strerror or error}") from error
    if data is None:
        raise PlaybookError(f"{shown}: the file is missing")
    if mode & 0o002:
        raise PlaybookError(f"{shown}: everybody may write to it, and it says what is done. Run: chmod o-w {path}")
    return data


def _keep(kept: Path, data: bytes) -> str | None:
    """Remember a good version. A full disk is no reason to refuse it: a bot may have to be stopped by it."""
    try:
        if read_regular(kept, FILE_LIMIT) != data:
            write_atomic(kept, data)
    except OSError as error:
        return f"playbooks/{kept.name}: it is in force, but could not be kept as last good: {error.strerror or error}"
    return None


def _instead(fault: Fault, kept: Path | None, problem: str) -> Playbook:
    """The last good version, else the packaged one."""
    if kept is not None:
        try:
            policy, prose = parse_playbook(_read(kept, str(kept)), fault, str(kept))
        except PlaybookError:
            pass  # never seen good, or damaged as well: the packaged one is always there
        else:
            return Playbook(policy, prose, kept, f"{problem}. The last good version is in force.")
    return _packaged(fault, f"{problem}. The packaged version is in force.")


def _packaged(fault: Fault, problem: str | None) -> Playbook:
    """Raises PlaybookError only if the installation itself is damaged."""
    path = root() / "playbooks" / f"{fault.value}.md"
    policy, prose = parse_playbook(_read(path, str(path)), fault, str(path))
    return Playbook(policy, prose, path, problem)


def _stray(workspace: Workspace) -> list[str]:
    """Files whose name is no fault would never be read, and their writer should know."""
    try:
        names = sorted(path.stem for path in workspace.playbooks_dir.glob("*.md"))
    except OSError:
        return []
    faults = [fault.value for fault in Fault]
    strays = [name for name in names if name not in faults and name.lower() != "readme" and not name.startswith(".")]
    return [
        f"playbooks/{untrusted.clean(name, 80)}.md: there is no such fault, so it is not read; {closest(name, faults)}"
        for name in strays
    ]
