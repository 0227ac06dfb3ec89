#!/usr/bin/env python3
"""A program that speaks hbot's command line: Hummingbot itself has no wheel, and half an hour of compiling is no test.

    bin/hbot start NAME [--foreground] | status --json | stop

It does what hbot of version 20260922 does, as measured on a real one: files in data/bot, SIGUSR1 and a wait of at most
5 s for the engine's snapshot, `"running": true` with an old one if that does not come, exit codes 0 to 5. The engine is
support/hbot_engine.py, run as `python -m hummingbot.cli.engine --name NAME` in the folder of the install.

A file `misbehave` in that folder makes `status` a hostile program: `garbage`, `nothing`, `twice`, `endless`, `loud`
(endless errors), `hang`, `deaf` (hang, deaf to SIGTERM), `orphans` (leaves children behind that hold its pipes, one in
a session of its own), `code N`, `says TEXT`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PREFIX = Path(__file__).resolve().parents[1]
HOME = PREFIX / "data" / "bot"
REFRESH_SECONDS = 5.0
ERROR_LINES = 600
NOT_FOUND, NOT_RUNNING, CONFIG_ERROR, TIMEOUT = 2, 3, 4, 5


def fail(text: str, code: int) -> None:
    print(f"Error: {text} (code {code})", file=sys.stderr)
    sys.exit(code)


def read(name: str) -> dict:
    path = HOME / name
    return json.loads(path.read_text()) if path.exists() else {}


def write(name: str, value: dict) -> None:
    (HOME / f".{name}").write_text(json.dumps(value))
    os.replace(HOME / f".{name}", HOME / name)


def engine_pid() -> int | None:
    """Of a living engine; a reused pid is none."""
    path = HOME / "bot.pid"
    pid = int(path.read_text()) if path.exists() else 0
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
    return pid if b"hummingbot.cli.engine" in command and state not in "ZX" else None


# --- start, stop -------------------------------------------------------------------------------------------------


def start(name: str) -> None:
    if not (PREFIX / "conf" / "scripts" / f"{name}.yml").exists():
        fail(f"config not found: {name}.yml", NOT_FOUND)
    if engine_pid():
        fail(f"a bot is already running (pid {engine_pid()}); one bot per install", 1)
    HOME.mkdir(parents=True, exist_ok=True)
    (HOME / "status.json").unlink(missing_ok=True)
    write("meta.json", {"name": name, "type": "v2-script", "file": f"{name}.yml", "started_at": time.time()})
    command = [sys.executable, "-m", "hummingbot.cli.engine", "--name", name]
    if "--foreground" in sys.argv:
        (HOME / "bot.pid").write_text(str(os.getpid()))
        os.chdir(PREFIX)
        os.execv(command[0], command)
    with (HOME / "bot.log").open("wb") as log:
        engine = subprocess.Popen(
            command, cwd=PREFIX, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    (HOME / "bot.pid").write_text(str(engine.pid))
    print(json.dumps({"name": name, "pid": engine.pid, "status": "running"}))


def stop() -> None:
    if not (HOME / "meta.json").exists():
        fail("no bot has been started", NOT_FOUND)
    pid = engine_pid()
    if pid is None:
        (HOME / "bot.pid").unlink(missing_ok=True)
        fail("the bot is not running", NOT_RUNNING)
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 30
    while engine_pid():
        if time.monotonic() > until:
            fail("the bot did not stop within 30s (use --force to SIGKILL)", TIMEOUT)
        time.sleep(0.05)
    (HOME / "bot.pid").unlink(missing_ok=True)
    print(json.dumps({"stopped": True, "killed": False}))


# --- status ------------------------------------------------------------------------------------------------------


def status() -> None:
    misbehave()
    meta = read("meta.json")
    if not meta:
        print(json.dumps({"running": False, "note": "no bot started"}))
        return
    refresh()
    pid, snapshot = engine_pid(), read("status.json")
    updated = snapshot.get("updated_at")
    print(
        json.dumps(
            {
                "running": pid is not None,
                "name": meta["name"],
                "pid": pid or (int((HOME / "bot.pid").read_text()) if (HOME / "bot.pid").exists() else None),
                "config": meta["file"],
                "type": meta["type"],
                "strategy": "simple_pmm",
                "uptime_s": round(time.time() - meta["started_at"], 1) if pid else None,
                "snapshot_age_s": round(time.time() - updated, 1) if updated else None,
                "errors": errors(meta["name"]),
                "format_status": snapshot.get("format_status"),
                "balances": snapshot.get("balances"),
            },
            indent=2,
        )
    )


def refresh() -> None:
    """Ask whatever process bot.pid names: one that does not handle the signal dies of it, as with the real one."""
    path = HOME / "bot.pid"
    before = read("status.json").get("updated_at", 0)
    try:
        os.kill(int(path.read_text()), signal.SIGUSR1)
    except (OSError, ValueError):
        return
    until = time.monotonic() + REFRESH_SECONDS
    while time.monotonic() < until and read("status.json").get("updated_at", 0) <= before:
        time.sleep(0.02)


def errors(name: str) -> dict:
    log = PREFIX / "logs" / f"logs_{name}.log"
    lines = log.read_text().splitlines()[-ERROR_LINES:] if log.exists() else []
    found = [line for line in lines if " - ERROR - " in line or " - CRITICAL - " in line]
    return {"count": len(found), "messages": [line.split(" - ", 4)[-1] for line in found[-3:]], "window": ERROR_LINES}


def misbehave() -> None:
    path = PREFIX / "misbehave"
    word, _, rest = path.read_text().partition(" ") if path.exists() else ("", "", "")
    if word:
        WAYS[word](rest)
    if word not in ("", "orphans"):
        sys.exit(0)


def without_end(fd: int, piece: bytes) -> None:
    while True:
        os.write(fd, piece)


def deaf(_: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    orphans(wait=True)


WAYS = {
    "code": lambda rest: fail("as it was told", int(rest)),
    "garbage": lambda _: os.write(1, b"\x00\xff<html>hello</html>"),
    "nothing": lambda _: None,
    "twice": lambda _: print('{"running": true, "running": false}'),
    "says": print,
    "endless": lambda _: without_end(1, b"x" * 65536),
    "loud": lambda _: without_end(2, b"error\n" * 4096),
    "hang": lambda _: orphans(wait=True),
    "deaf": deaf,
    "orphans": lambda _: orphans(wait=False),
}


def orphans(*, wait: bool) -> None:
    """A child, and a grandchild in a session of its own; their pids in the file `orphans`. Both keep our pipes."""
    sleep = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    ]
    children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
    (PREFIX / ".orphans").write_text(" ".join(str(child.pid) for child in children))
    os.replace(PREFIX / ".orphans", PREFIX / "orphans")
    if wait:
        time.sleep(600)


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if words == ["status"] and "--json" in sys.argv:
        status()
    elif words == ["stop"]:
        stop()
    elif words[:1] == ["start"] and len(words) == 2:
        start(words[1])
    else:
        fail(f"no such command: {' '.join(sys.argv[1:])}", CONFIG_ERROR)


if __name__ == "__main__":
    main()
