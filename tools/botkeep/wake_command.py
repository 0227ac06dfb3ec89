"""Running the command that wakes an assistant, and reading what its host prints: what was said, tokens, cost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from .untrusted import clean

SECONDS = 300.0
"""Until the command is ended: a model that works takes a minute or two."""
ENDING_SECONDS = 3.0
OUTPUT_BYTES = 256 * 1024
"""Of the end of what it writes; what came before is dropped, so that it can end."""
TOOLS_FIRST = {"MCP_CONNECTION_NONBLOCKING": "0"}
"""Has Claude Code wait for botkeep's tools: on a busy machine its model would have none, and say that all is done."""


@dataclass(frozen=True)
class Woken:
    """What came of one. `trouble` empty: the command ended with exit code 0."""

    seconds: float
    exit: int | None = None
    trouble: str = ""
    tokens: int | None = None
    cost: Decimal | None = None
    """In dollars, as the host says."""
    late: bool = False
    """It did not end by itself."""
    said: str = ""
    """The end of what it answered: text of a model, data."""


def run(command: Sequence[str], text: str, home: Path, seconds: float = SECONDS) -> Woken:
    """Run it with the packet on standard input; never for longer than `seconds`, and nothing of it stays behind."""
    began = time.monotonic()
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            env={**TOOLS_FIRST, **os.environ, "BOTKEEP_HOME": str(home)},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Woken(0.0, trouble=f"{clean(command[0], 80)} cannot be run: {reason}")
    talk = _Talk(process)
    talk.begin(text.encode())
    try:
        process.wait(seconds)
        late = False
    except subprocess.TimeoutExpired:
        late = True
    _end_group(process)
    said, errors = talk.finish()
    return _woken(process.returncode, time.monotonic() - began, said, errors, late=late)


class _Talk:
    """Its three pipes, each with a thread: none of them can make us wait for it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._kept: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        self._threads: list[threading.Thread] = []

    def begin(self, text: bytes) -> None:
        pipes = (("out", self._process.stdout), ("err", self._process.stderr))
        jobs = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in pipes]
        self._threads = [threading.Thread(target=self._write, args=(text,), daemon=True), *jobs]
        for one in self._threads:
            one.start()

    def finish(self) -> tuple[bytes, bytes]:
        """What it wrote; the process is over."""
        for one in self._threads:
            one.join(ENDING_SECONDS)
        return bytes(self._kept["out"]), bytes(self._kept["err"])

    def _write(self, text: bytes) -> None:
        pipe = self._process.stdin
        with suppress(OSError, ValueError):
            if pipe is not None:
                pipe.write(text)
        with suppress(OSError, ValueError):
            if pipe is not None:
                pipe.close()

    def _read(self, name: str, pipe: IO[bytes] | None) -> None:
        kept = self._kept[name]
        with suppress(OSError, ValueError):
            while pipe is not None and (data := os.read(pipe.fileno(), 65536)):
                kept += data
                if len(kept) > 2 * OUTPUT_BYTES:
                    del kept[:-OUTPUT_BYTES]
        if pipe is not None:
            pipe.close()


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Itself, if it still runs, and whatever it left in its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if not _group_lives(process.pid):
            return


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _woken(code: int | None, seconds: float, said: bytes, errors: bytes, *, late: bool) -> Woken:
    text = said.decode("utf-8", "replace")
    answer = _answer(text)
    trouble = ""
    if late:
        trouble = f"it did not end within {seconds:.0f} s and was ended"
    elif code:
        last = clean((errors or said).decode("utf-8", "replace").strip()[-300:], 200)
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        trouble = f"it ended with {how}" + (f": {last}" if last else "")
    elif answer.get("is_error") is True:
        trouble = f"it said that it failed: {clean(str(answer.get('result', '')), 200)}"
    result = next((answer[key] for key in ("result", "final") if key in answer), None) or _last_message(text)
    said_last = clean((result if isinstance(result, str) else text).strip(), 400)
    return Woken(seconds, code, trouble, _tokens(answer), _cost(answer), late, said_last)


def _answer(text: str) -> dict[str, Any]:
    """The JSON document that a host prints (`claude -p --output-format json`, `openclaw agent exec --json`), or its
    last line (`codex exec --json`); else empty."""
    stripped = text.strip()
    for part in (stripped, stripped.splitlines()[-1] if stripped else ""):
        try:
            found = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list):
            found = next((one for one in reversed(found) if isinstance(one, dict)), None)
        if isinstance(found, dict):
            return found
    return {}


def _last_message(text: str) -> Any:
    """What `codex exec --json` told last: an event on each line, of which the last one counts tokens."""
    for line in reversed(text.strip().splitlines()[-50:]):
        item = _answer(line).get("item")
        if isinstance(item, dict) and item.get("type") == "agent_message":
            return item.get("text")
    return None


COUNTED = (
    ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
    ("input", "output", "cacheRead", "cacheWrite"),
)
"""Claude Code's and Codex's words, then OpenClaw's."""


def _tokens(answer: Mapping[str, Any]) -> int | None:
    """All that were read and written; None: the host does not say."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    for names in COUNTED:
        counts: list[int] = [usage[name] for name in names if type(usage.get(name)) is int and 0 <= usage[name] < 10**9]
        if counts:
            return sum(counts)
    return None


def _cost(answer: Mapping[str, Any]) -> Decimal | None:
    cost = answer.get("total_cost_usd", answer.get("costUsd"))
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < 10**6:
        return None
    return Decimal(f"{cost:.6f}").normalize() + 0  # a sum of binary fractions: millionths of a dollar are meant
