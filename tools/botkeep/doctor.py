"""`botkeep doctor`: what is missing or will bite later, bot by bot, and the sentence that mends it. Changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from . import overlay, probe
from .backups import broken_manifests, snapshots
from .bench import Bench
from .config import Bot, BotEntry
from .envfile import load_env_file
from .judge import length
from .ledger import Ledger
from .model import BotkeepError, DataVerdict, Fault, Instance, LedgerError
from .programs import profile_of
from .runtimes import Target
from .runtimes.process import PASSED_ENVIRONMENT
from .runtimes.procs import COMM_LENGTH, INTERPRETER, ProcessTable, has_pidfs
from .schedule import load_schedule
from .untrusted import MARK, clean, redact
from .workspace import filesystem_of, is_local

Level = Literal["ok", "note", "problem"]
LIMIT = 1500
SHOWN = 20
"""Names in one sentence."""
CLOCK_SLACK = timedelta(minutes=1)
STALE_BACKUP = timedelta(hours=25)
"""Older than a day with its hour: whatever makes backups did not run today."""

# What every shell, login, container and init system sets: it says nothing about what a bot needs.
_STANDARD = re.compile(
    r"PWD|OLDPWD|SHLVL|_|PS[1-4]|PROMPT_COMMAND|HIST[A-Z]*|IFS|TERM(?:INFO|_[A-Z_]+)?|COLORTERM|COLUMNS|LINES|LS_COLORS"
    r"|LESS[A-Z]*|PAGER|EDITOR|VISUAL|MAIL|HOSTNAME|HOSTTYPE|MACHTYPE|OSTYPE|DISPLAY|WAYLAND_DISPLAY|XAUTHORITY|LANGUAGE"
    r"|LC_[A-Z]+|XDG_[A-Z_]+|DBUS_[A-Z_]+|SSH_[A-Z_]+|GPG_[A-Z_]+|SUDO_[A-Z]+|TMUX[A-Z_]*|STY|WINDOW[A-Z]*|VTE_[A-Z_]+"
    r"|VIRTUAL_ENV(?:_PROMPT)?|CONDA_[A-Z_0-9]+|PYENV_[A-Z_]+|NVM_[A-Z_]+|DEBIAN_FRONTEND|INVOCATION_ID|JOURNAL_STREAM"
    r"|NOTIFY_SOCKET|SYSTEMD_[A-Z_]+|MANAGERPID|LISTEN_[A-Z]+|SUPERVISOR_[A-Z_]+|BOTKEEP_[A-Z_]+|CRON_TZ|MAILTO"
)


@dataclass(frozen=True)
class DoctorLine:
    """One finding. `bot` None: about the workspace or the machine. `mend` is empty where nothing has to be done."""

    bot: str | None
    level: Level
    what: str
    mend: str = ""


@dataclass(frozen=True)
class _Patient:
    """One bot with what was seen of it."""

    bench: Bench
    bot: Bot
    target: Target
    seen: probe.Seen
    table: ProcessTable
    now: datetime

    def line(self, level: Level, what: str, mend: str = "") -> DoctorLine:
        return _line(self.bot.name, level, f"{self.bot.name} {what}", mend)

    @property
    def instance(self) -> Instance | None:
        instances = self.seen.observation.runtime.instances
        return instances[0] if instances else None


def _line(bot: str | None, level: Level, what: str, mend: str = "") -> DoctorLine:
    """`mend` is our own words, what is not ours cleaned already: cleaned again, a flag would redact its neighbour."""
    return DoctorLine(bot, level, clean(what, LIMIT), mend)


def examine(bench: Bench) -> tuple[DoctorLine, ...]:
    """Every finding, bot by bot in the order of the file, then about the workspace and the machine.

    A bot without any finding has one line that says so. Raises nothing for what is broken: that is what it is for.
    """
    now = bench.clock()
    names = [entry.name for entry in bench.fleet.entries]
    seen = bench.look_at(names)
    targets, table = probe.targets(bench.fleet), ProcessTable.read()
    lines: list[DoctorLine] = []
    for entry in bench.fleet.entries:
        if entry.bot is None:
            lines.append(_broken(entry))
            continue
        patient = _Patient(bench, entry.bot, targets[entry.name], seen[entry.name], table, now)
        lines += list(_bot(patient)) or [patient.line("ok", "lacks nothing.")]
    return (*lines, *_workspace(bench, now))


def _broken(entry: BotEntry) -> DoctorLine:
    what = f"{entry.name} cannot be used: {entry.problem}"
    return _line(entry.name, "problem", what, "Mend that entry; the other bots go on without it.")


def _bot(patient: _Patient) -> Iterator[DoctorLine]:
    for rule in (
        _runtime,
        _command,
        _environment,
        _process_name,
        _adopted,
        _data,
        _log,
        _progress,
        _endpoint,
        _polling,
        _money,
        _backup,
        _replay,
    ):
        yield from rule(patient)


# --- what runs it ------------------------------------------------------------------------------------------------


def _runtime(patient: _Patient) -> Iterator[DoctorLine]:
    bot, error = patient.bot, patient.seen.observation.runtime.error
    if error:
        mend = 'Add "runtime", or "process_name" to watch it only.' if bot.runtime is None else "Mend that first."
        yield patient.line("problem", f"cannot be looked at: {error}", mend)
    elif bot.runtime is None:
        yield patient.line("note", "has no runtime: it can be watched, not restarted.", _how_to_run(patient))


def _how_to_run(patient: _Patient) -> str:
    """A `runtime` to paste, from the copy that runs."""
    proc = patient.table.procs.get(patient.instance.pid or 0) if patient.instance else None
    if proc is None or not proc.argv:
        return (
            'Add "runtime": {"kind": "process", "command": ["PROGRAM", "ARGUMENT"], "cwd": "."} to its entry. '
            "While it runs, botkeep doctor shows the command it sees."
        )
    command = _shown(proc.argv)
    runtime = {"kind": "process", "command": command, "cwd": _cwd(patient, proc.pid)}
    hidden = f" {MARK} stands for what looks like a secret: have the bot read it from its env_file instead."
    return (
        f"If that is how it is started, add to its entry: "
        f'"runtime": {json.dumps(runtime, ensure_ascii=False)}{hidden if any(MARK in one for one in command) else ""}'
    )


def _shown(argv: Sequence[str]) -> list[str]:
    """The command line without secrets, also where a flag stands before its value."""
    shown = []
    for before, word in zip(("", *argv), argv, strict=False):
        flag = before.startswith("-") and redact(before) == before
        named = flag and redact(word) == word and redact(f"{before} {word}") != f"{before} {word}"
        shown.append(MARK if named else clean(word, 400))
    return shown


def _cwd(patient: _Patient, pid: int) -> str:
    """Where it runs, from the workspace if it is in it."""
    try:
        place = Path(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return "."
    home = patient.target.home
    return clean(str(place.relative_to(home)) if place.is_relative_to(home) else str(place), 400)


def _command(patient: _Patient) -> Iterator[DoctorLine]:
    config = patient.bot.runtime
    place = patient.target.home / getattr(config, "cwd", ".")
    if config is not None and not place.is_dir():
        yield patient.line("problem", f"should run in {place}, and there is no such folder.", 'Mend "cwd" or make it.')
        return
    find = getattr(probe.runtime_of(patient.bot), "find_command", None)
    if config is not None and find is not None and find(patient.target) is None:
        yield patient.line(
            "problem",
            f"cannot be started: {json.dumps(config.command[0])} is no program that can be found and executed.",
            'Write its whole path into "command"; cron and MCP hosts have a shorter PATH than your shell.',
        )
    script = getattr(probe.runtime_of(patient.bot), "missing_script", None)
    lost = script(patient.target) if config is not None and script is not None else None
    if lost:
        yield patient.line("problem", f"cannot be started: there is no script {lost}.", 'Mend "command" or "cwd".')


def _environment(patient: _Patient) -> Iterator[DoctorLine]:
    """The names of variables that a running copy has and that a start by botkeep would not give it. Never a value."""
    config = patient.bot.runtime
    if config is None:
        return
    given = {*PASSED_ENVIRONMENT, *getattr(config, "env", {})}
    file = getattr(config, "env_file", None)
    if file and not getattr(probe.runtime_of(patient.bot), "KEEPS_KEYS", False):
        try:
            given |= load_env_file(patient.target.home / file).keys()
        except BotkeepError as error:
            yield patient.line("problem", f"cannot be started: {error}")
            return
    missing = sorted(name for name in _variables(patient.instance) - given if not _STANDARD.fullmatch(name))
    if missing and patient.instance and not patient.instance.kept_by:  # an engine gives what it gave
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        names = ", ".join(clean(name, 60) for name in missing[:SHOWN])
        where = f"into {file}" if file else 'into a file of mode 0600 and name it in "env_file" of its runtime'
        yield patient.line(
            "note",
            f"runs with variables that a start by botkeep would not give it: {names}{more}.",
            f"If it needs them, write them {where}; cron's and an MCP host's environment is bare.",
        )


def _variables(instance: Instance | None) -> set[str]:
    if instance is None:
        return set()
    try:
        data = Path(f"/proc/{instance.pid}/environ").read_bytes()
    except OSError:
        return set()
    return {part.split(b"=", 1)[0].decode(errors="replace") for part in data.split(b"\0") if b"=" in part}


def _process_name(patient: _Patient) -> Iterator[DoctorLine]:
    name = patient.bot.process_name
    if name is None:
        return
    if INTERPRETER.fullmatch(name):
        yield patient.line(
            "problem",
            f'has the process_name "{name}", which is an interpreter: every script of this user answers to it.',
            "Write the script's name instead.",
        )
        return
    sharing = [one.name for one in patient.bench.fleet.bots if one.process_name == name and one is not patient.bot]
    if sharing and patient.bot.runtime is None:
        yield patient.line(
            "problem",
            f'shares the process_name "{name}" with {", ".join(sharing[:SHOWN])}, and no command tells them apart.',
            'Give each of them a "runtime" with its own command.',
        )
    elif len(name) > COMM_LENGTH and patient.instance is None and _only_comm(patient, name):
        yield patient.line(
            "note",
            f'is not seen, but a process is called "{name[:COMM_LENGTH]}": the kernel keeps {COMM_LENGTH} characters.',
            f'If that is it, write "process_name": "{name[:COMM_LENGTH]}".',
        )


def _only_comm(patient: _Patient, name: str) -> bool:
    own = os.geteuid()
    procs = patient.table.procs.values()
    return any(one.comm == name[:COMM_LENGTH] and one.uid == own and not one.dead for one in procs)


def _adopted(patient: _Patient) -> Iterator[DoctorLine]:
    one = patient.instance
    if one is not None and patient.bot.runtime is not None and not (one.ours or one.kept_by):  # an engine sees the end
        yield patient.line(
            "note",
            f"runs (pid {one.pid}), but botkeep did not start it: how it ends will not be known.",
            f"When it suits, let botkeep start it: botkeep restart {patient.bot.name}",
        )


# --- its files ---------------------------------------------------------------------------------------------------


def _data(patient: _Patient) -> Iterator[DoctorLine]:
    path, data = patient.bot.data_file, patient.seen.observation.data
    if path is None:
        yield patient.line("note", "has no data_file: no P&L, no backups, and damage is not seen.", 'Add "data_file".')
    elif not path.parent.is_dir():
        yield patient.line("problem", f"should write to {path.parent}, and there is no such folder.", "Make it.")
    elif data is not None and data.verdict is DataVerdict.MISSING and not data.findings:
        yield patient.line("note", f"has no {path} yet.", "Nothing, if it has not traded yet; else mend data_file.")
    elif data is not None and data.verdict is DataVerdict.UNREADABLE:
        found = data.findings[0].text if data.findings else "nobody can say why."
        yield patient.line("problem", f"has a data file that cannot be read: {found}", "Mend its kind or its rights.")


def _log(patient: _Patient) -> Iterator[DoctorLine]:
    path = patient.bot.log_file
    if path is None and patient.bot.runtime is None:
        yield patient.line("note", "has no log_file: causes cannot be known, nor whether it hangs.", 'Add "log_file".')
    elif path is not None and not path.exists():
        level: Level = "note" if path.parent.is_dir() else "problem"
        yield patient.line(level, f"has no log at {path}.", "Mend log_file, or its folder, if it has run before.")
    elif path is not None and not os.access(path, os.R_OK):
        yield patient.line("problem", f"has a log that cannot be read: {path}.", "Let the user of botkeep read it.")


def _progress(patient: _Patient) -> Iterator[DoctorLine]:
    progress = patient.bot.progress
    if progress is not None and not progress.file.exists():
        what = f"has no {progress.file}, which it should touch while it gets somewhere."
        yield patient.line("note", what, "Mend progress.file, if the bot has run before.")


def _endpoint(patient: _Patient) -> Iterator[DoctorLine]:
    health = patient.seen.observation.health
    if health is not None and not health.ok:
        mend = "Mend the bot's endpoint, or health_endpoint; without one botkeep looks at process, data and log."
        yield patient.line("note", f"has a health endpoint that fails ({health.rule}): {health.text}", mend)


def _polling(patient: _Patient) -> Iterator[DoctorLine]:
    """What would keep a bot from polling less, found before the night in which it has to."""
    bot, limit = patient.bot, patient.bot.limits.polling
    if limit is None:
        return
    file = overlay.state(bot)
    if file.missing:
        mend = f"`botkeep poll {bot.name} normal REASON` makes it; have the bot read it (freqtrade: --config FILE)."
        yield patient.line("problem", f"cannot be told to poll less: {file.why}.", mend)
    elif file.level is overlay.Level.UNKNOWN:
        mend = "Put one of the two into it, or write into bots.json what it should hold."
        yield patient.line("problem", f"cannot be told to poll less: {file.why}.", mend)
    elif why := overlay.hindrance(bot):
        yield patient.line("problem", f"cannot be told to poll less: {why}.", "Mend that, or take the limit away.")
    profile = profile_of(bot)[0]
    if limit.apply == "reload" and not hasattr(profile, "reload_config"):
        what = f"polls less only from its next start on: its profile {profile.NAME} knows no API that reloads."
        yield patient.line("problem", what, 'Write "apply": "restart", or the "profile" that it is.')


def _money(patient: _Patient) -> Iterator[DoctorLine]:
    bot = patient.bot
    if bot.data_file is not None and bot.capital is None:
        yield patient.line("note", "has no capital: P&L has no percent.", 'Add "capital" and "currency".')


def _backup(patient: _Patient) -> Iterator[DoctorLine]:
    bot = patient.bot
    if bot.data_file is None or not bot.data_file.exists():
        return
    store = patient.bench.stores.local
    try:
        kept, broken = snapshots(store, bot.name), broken_manifests(store, bot.name)
    except BotkeepError as error:
        yield patient.line("problem", f"has backups that cannot be read: {error}", "Mend that, then: botkeep backup")
        return
    if broken:
        what = f"has {len(broken)} damaged backups; no restore uses them: {', '.join(broken[:SHOWN])}"
        yield patient.line("note", what, "Look at the disk; botkeep backup makes a new one.")
    yield from _age(patient, kept[-1].at if kept else None)


def _replay(patient: _Patient) -> Iterator[DoctorLine]:
    """Lost trades are found only with something that tells of them, and nobody notices until they are needed."""
    from . import replay

    configured, bot = replay.sources(patient.bot), patient.bot
    if configured.log is not None and not configured.log.is_file():
        what = f"has no log at {configured.log}: trades that its file loses cannot be read again."
        yield patient.line("problem", what, "Correct replay.log or log_file.")
    if configured.grammar == "jsonl" and not bot.replay.columns:
        what = "has a replay of JSON lines without columns."
        yield patient.line("note", what, "If restore finds no trades in it, name them in replay.columns.")
    if bot.data_file is not None and configured.log is None and configured.exchange is None and not bot.paper:
        what = "has nothing to read trades again from: after a kill its last rows may be missing, unnoticed."
        yield patient.line("note", what, 'Add "replay".')


def _age(patient: _Patient, newest: datetime | None) -> Iterator[DoctorLine]:
    if newest is None:
        yield patient.line("note", "has no backup yet.", f"Run: botkeep backup {patient.bot.name}")
    elif patient.now - newest > STALE_BACKUP:
        old = length(patient.now - newest)
        yield patient.line(
            "problem", f"has no backup newer than {old}.", "See botkeep schedule: bot_backup did not run."
        )


# --- the workspace and the machine -------------------------------------------------------------------------------


def _workspace(bench: Bench, now: datetime) -> Iterator[DoctorLine]:
    yield from _nobody(bench)
    yield from _records(bench, now)
    yield from _told(bench)
    yield from _woken(bench)
    yield from _texts(bench)
    yield from _clock(bench.ledger, now)
    yield from _disk(bench)
    yield from _kernel()


def _nobody(bench: Bench) -> Iterator[DoctorLine]:
    if not bench.fleet.entries:
        mend = "Write your bots there; config/bots.example.json shows every key."
        yield _line(None, "problem", "config/bots.json lists no bot.", mend)


def _records(bench: Bench, now: datetime) -> Iterator[DoctorLine]:
    """The ledger, and the journal against it."""
    try:
        found = bench.journal.verify(now)
    except BotkeepError as error:
        found = [str(error)]
    for sentence in found[:SHOWN]:
        yield _line(None, "problem", sentence, "botkeep journal --verify shows all; see who changed it.")
    if not found:
        yield _line(None, "ok", "Ledger and journal agree, and nobody changed an entry.")


def _told(bench: Bench) -> Iterator[DoctorLine]:
    """Whether anybody would be told of a bot that is down."""
    from . import telling
    from .channels import EXAMPLE
    from .notify import directory

    known = directory(bench.fleet)
    if not known.all:
        mend = f'Add "notify": ["{EXAMPLE}"] and "notify_env"; then: botkeep alerts test.'
        yield _line(None, "note", "Nobody is told when something is wrong: config/bots.json has no notify.", mend)
        return
    found = telling.untold(bench)
    for sentence in found:
        yield _line(None, "problem", sentence, "botkeep alerts shows what waits; botkeep alerts test proves the rest.")
    if not found:
        yield _line(None, "ok", f"{len(known.all)} channels are told of alerts; botkeep alerts test proves them.")


def _woken(bench: Bench) -> Iterator[DoctorLine]:
    """Whether the command that wakes an assistant is there; cron's PATH is shorter than a person's."""
    wake, home = bench.fleet.wake, bench.fleet.workspace.home
    if not wake:
        return
    name = wake[0]
    found = shutil.which(str(home / name) if os.sep in name else name)
    if found is None:
        text = f"No assistant can be woken: {clean(name, 80)} is not found, or cannot be run."
        yield _line(None, "problem", text, "Write its full path at the top of config/bots.json, in wake.")
    elif os.sep not in name:
        text = f"An assistant is woken by {clean(found, 120)}, as PATH has it here."
        yield _line(None, "note", text, "Cron and systemd have a shorter PATH: write that full path in wake.")


def _texts(bench: Bench) -> Iterator[DoctorLine]:
    """Playbooks and the schedule."""
    for sentence in bench.playbooks.problems:
        yield _line(None, "problem", sentence, "Mend the file; it counts from the next call on.")
    try:
        tasks = {task.name for task in load_schedule(bench.fleet.workspace)}
    except BotkeepError as error:
        yield _line(None, "problem", str(error), "Mend that; until then nothing but botkeep round itself is due.")
        return
    if "bot_health_check" not in tasks:
        mend = 'Add {"schedule": "*/5 * * * *", "task": "bot_health_check"}; botkeep schedule prints what to install.'
        yield _line(None, "note", "config/schedule.json has no bot_health_check: nobody looks by itself.", mend)


def _clock(ledger: Ledger, now: datetime) -> Iterator[DoctorLine]:
    """Back-off and uptime rest on times that only grow."""
    try:
        newest = ledger.entries(limit=1, newest_first=True)
    except LedgerError:
        return  # said already
    if newest and newest[0].at > now + CLOCK_SLACK:
        ahead = length(newest[0].at - now)
        yield _line(
            None,
            "problem",
            f"The clock stands {ahead} before the newest entry of the ledger: one of the two was wrong.",
            "Set the clock (a time service keeps it right); until then refusals may last longer than they should.",
        )


def _disk(bench: Bench) -> Iterator[DoctorLine]:
    place = bench.fleet.workspace
    status = os.statvfs(place.home)
    free, bound = status.f_bavail * status.f_frsize, bench.playbooks.get(Fault.DISK_FULL).policy.when.free_below
    if free < bound:
        yield _line(None, "problem", f"{free / 1e6:.0f} MB of disk are left in {place.home}.", "Free some space.")
    else:
        yield _line(None, "ok", f"{free / 1e9:.1f} GB of disk are free.")
    kind = filesystem_of(place.state_dir)
    if kind is None or not is_local(kind):
        mend = "Put the workspace on a local disk: locks elsewhere do not prove that a bot is gone."
        yield _line(None, "problem", f".botkeep is on {kind or 'a file system that cannot be named'}.", mend)
    else:
        yield _line(None, "ok", f".botkeep is on a local file system ({kind}).")


def _kernel() -> Iterator[DoctorLine]:
    release = os.uname().release
    if not hasattr(os, "pidfd_open"):
        yield _line(None, "problem", f"Linux {release} has no pidfd.", "botkeep needs Linux 5.3 or newer.")
    elif not has_pidfs():
        mend = "Linux 6.9 or newer tells them apart for certain."
        yield _line(None, "note", f"Linux {release}: a reused process id is told apart by its start time only.", mend)
    else:
        yield _line(None, "ok", f"Linux {release} tells every process apart, also after a process id is used again.")
