"""Another program that starts, stops or restarts a bot: `caller.py JSON` (see Lab.caller).

`fork`: so many processes do it at the same moment; each writes its result as one line of JSON to `results`. `halts`: a
start stops itself before its watcher may begin.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from botkeep.model import Actor, BotkeepError
from botkeep.runtimes import RUNTIMES, Runtime, Target, process
from botkeep.runtimes.procs import ProcessTable
from support.bots import from_json


def main() -> None:
    """Do what the JSON says; print what came of it."""
    spec = json.loads(sys.argv[1])
    work = {"start": _start, "stop": _stop, "look": _look, "restart": _restart, "desk": _desk}[spec["todo"]]
    target = from_json(spec["target"])
    for number in spec.get("ignoring", ()):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, spec.get("blocking", ()))
    if spec.get("user"):
        os.setgroups([])
        os.setgid(spec["user"])
        os.setuid(spec["user"])
    if spec.get("files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (spec["files"], spec["files"]))
    if spec.get("fork"):
        _side_by_side(spec, lambda: work(target, spec))
        return
    print(json.dumps(_result(lambda: work(target, spec))), flush=True)
    if spec.get("stay"):
        signal.pause()


def _result(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except BotkeepError as error:
        return {"error": str(error)}


def _runtime(target: Target) -> Runtime:
    return RUNTIMES[target.config.kind if target.config else "process"]


def _halt_before_leave() -> None:
    """Stop this program, as SIGSTOP does, when its watcher is under way and may not start the bot yet."""
    go_on = process._require_alone

    def halt(*words: Any) -> Any:
        os.kill(os.getpid(), signal.SIGSTOP)
        return go_on(*words)

    process._require_alone = halt  # type: ignore[assignment]


def _start(target: Target, spec: dict[str, Any]) -> dict[str, Any]:
    if spec.get("halts"):
        _halt_before_leave()
    started = _runtime(target).start(target, spec.get("entry", "e1"), time.monotonic() + 20)
    return {"pid": started.instance.pid if started.instance else None, "generation": started.generation}


def _stop(target: Target, spec: dict[str, Any]) -> dict[str, Any]:
    stopped = _runtime(target).stop(target, spec.get("grace", 1.0), time.monotonic() + spec.get("within", 20))
    return {"stopped": [one.pid for one in stopped.stopped], "left": list(stopped.left), "killed": stopped.killed}


def _look(target: Target, _: dict[str, Any]) -> dict[str, Any]:
    seen = _runtime(target).look(target, ProcessTable.read())
    ended = seen.exit
    known = {"code": ended.code, "signal": ended.signal, "peak": ended.peak_rss_bytes} if ended else None
    return {"pids": [one.pid for one in seen.instances], "exit": known, "generation": seen.generation}


def _restart(target: Target, spec: dict[str, Any]) -> dict[str, Any]:
    _stop(target, spec)
    return _start(target, spec)


def _desk(target: Target, spec: dict[str, Any]) -> dict[str, Any]:
    """The whole way, as the assistant goes it: ledger, permits, op.lock."""
    from pathlib import Path

    from botkeep.rounds import Desk
    from botkeep.workspace import Workspace

    desk = Desk.open(Workspace(Path(spec["home"])), Actor.ASSISTANT)
    try:
        report = desk.restart(target.name, spec.get("reason", "asked by a test"))
    finally:
        desk.close()
    return {"result": report.result.value, "sentence": report.sentence, "pid": report.pid, "entry": report.entry}


def _side_by_side(spec: dict[str, Any], work: Callable[[], dict[str, Any]]) -> None:
    """Fork, wait until all are there, let go at once; print the pids first, so that somebody can kill them."""
    gate, go = os.pipe()
    results = os.open(spec["results"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    pids = []
    for _ in range(spec["fork"]):
        pid = os.fork()
        if pid == 0:
            os.close(go)
            os.read(gate, 1)
            line = json.dumps(_result(work)) + "\n"
            os.write(results, line.encode())
            os._exit(0)
        pids.append(pid)
    print(json.dumps(pids), flush=True)
    os.close(go)
    for pid in pids:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
