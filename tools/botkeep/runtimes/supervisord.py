"""Bots as programs of supervisord: asked over its XML-RPC, one question for all bots of one server.

supervisord_rpc.py talks, supervisord_history.py reads what the interface does not tell, supervisord_units.py says what
it means, supervisord_log.py reads output. supervisord sets no limits of memory: there is nothing here to change.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from botkeep.fields import STRICT, Whole
from botkeep.model import EngineError, Exit
from botkeep.untrusted import clean

from .engine import FailedToStartError, NoSuchUnitError, Unit, side_by_side
from .procs import Proc, ProcessTable, boot_id, environment_of, process_key, read_proc, read_program, working_folder
from .supervisord_facts import Program, Settings, State, names, programs_of, settings_of
from .supervisord_history import MATCHES, TAIL, History, read_history
from .supervisord_log import read_log
from .supervisord_rpc import Address, Client, FaultError, Login, Server, place_of
from .supervisord_units import URL, Own, Supervised, Surroundings, command_key, unit_of, why_not

__all__ = ["KIND", "Config", "address_of", "read_log", "start", "stop", "units"]

KIND = "supervisord"
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*"
_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,126}$"
_NAME = "SUPERVISOR_PROCESS_NAME"
RECENT = 3
"""Seconds after an end in which it is asked again: supervisord may be just about to start it anew."""
OTHERS = 8
"""Programs of a server that are looked at when none of the bots' own lives."""
POLL_SECONDS = 0.1
_ALL, _CONFIGS, _INFO = "supervisor.getAllProcessInfo", "supervisor.getAllConfigInfo", "supervisor.getProcessInfo"
_LOG, _OWN_PID = "supervisor.readLog", "supervisor.getPID"
_START, _STOP, _SIGNAL = "supervisor.startProcess", "supervisor.stopProcess", "supervisor.signalProcess"
_SHUTS_DOWN, _BAD_NAME, _NO_FILE, _NOT_EXECUTABLE = 6, 10, 20, 21
_SPAWN_ERROR, _ALREADY_STARTED, _NOT_RUNNING = 50, 60, 70
_OVER = frozenset({State.STOPPED, State.EXITED, State.FATAL, State.UNKNOWN})

Found = tuple[Supervised, ...] | EngineError


class Config(BaseModel):
    """How to find the bot's program; `botkeep supervisord-config` writes one from `command` and the rest."""

    model_config = STRICT

    kind: Literal["supervisord"]
    server: Server = Field(description="unix:///run/supervisor.sock or http://127.0.0.1:9001")
    program: str = Field(pattern=f"^{_WORD}(:{_WORD})?$", max_length=255, description="Its name, or GROUP:NAME.")
    username_env: str | None = Field(None, pattern=_ENV_NAME, description="Name of the variable with the user name.")
    password_env: str | None = Field(None, pattern=_ENV_NAME, description="Name of the one with the password.")
    stop_grace: Whole = Field(
        30, ge=1, le=35, description="Seconds between SIGTERM and SIGKILL; a tool call must end within 50 s."
    )
    command: list[str] | None = Field(
        None, min_length=1, description="What the program runs, for `botkeep supervisord-config`."
    )
    cwd: str = Field(".", description="Where it runs, from the workspace; for the same.")
    env_file: str | None = Field(None, description="KEY=VALUE lines, mode 0600: the bot's keys. Never shown.")
    env: dict[str, str] = Field({}, description="Further variables that are no secrets, for the same.")

    @model_validator(mode="after")
    def _both_or_none(self) -> Config:
        if bool(self.username_env) != bool(self.password_env):
            raise PydanticCustomError("login", 'write "username_env" and "password_env" together')
        return self

    @property
    def spec(self) -> str:
        """GROUP:NAME, whatever was written: a name alone is also that of its group."""
        return self.program if ":" in self.program else f"{self.program}:{self.program}"


def address_of(config: Config) -> Address:
    """Where the bot's supervisord is asked."""
    place = place_of(config.server)
    assert place is not None  # noqa: S101 - the configuration was checked
    login = Login(config.username_env or "", config.password_env or "", config.env_file or "")
    return Address(place, login if config.username_env else Login())


class Memory:
    """What was found out about a server before and still holds. This one remembers nothing."""

    def recall(self, address: Address, pid: int | None = None, newest: int = 0) -> list[Settings] | None:
        """Its programs' settings; None: ask. `pid`: of the supervisord that answers, once it was asked; `newest`: when
        the last of its programs was started, by which it may have got other settings."""
        del address, pid, newest
        return None

    def keep(self, address: Address, pid: int, settings: Sequence[Settings]) -> None:
        """For later looks."""


# ---------------------------------------------------------------------------------------------------- look


def units(configs: Mapping[str, Config], seconds: float, memory: Memory | None = None) -> dict[str, Found]:
    """The programs of many bots: one question to each server. Never raises, never takes longer than `seconds`."""
    groups: dict[Address, dict[str, Config]] = {}
    for name, config in configs.items():
        groups.setdefault(address_of(config), {})[name] = config
    looks = [_Look(address, group, seconds, memory or Memory()) for address, group in groups.items()]
    side_by_side([one.run for one in looks], seconds)
    return {name: found for look in looks for name, found in look.found().items()}


@dataclass
class _Look:
    """One server and the bots whose programs it runs, as the answers come in."""

    address: Address
    configs: Mapping[str, Config]
    seconds: float
    memory: Memory
    answers: dict[str, Found] | EngineError | None = None

    def __post_init__(self) -> None:
        self.client = Client(self.address)
        self.until = time.monotonic() + self.seconds

    def run(self) -> None:
        """Ask everything. Does not raise."""
        try:
            self.answers = self._answers()
        except EngineError as error:
            self.answers = error

    def found(self) -> dict[str, Found]:
        """By bot, also what is not known because the time was over."""
        if isinstance(self.answers, dict):
            return self.answers
        late = EngineError(f"supervisord at {self.address} gave no complete answer within {self.seconds:.0f} s.")
        return dict.fromkeys(self.configs, self.answers or late)

    def _answers(self) -> dict[str, Found]:
        told = self._settled(self._told())
        owners: dict[str, list[str]] = {}
        for name, config in self.configs.items():
            owners.setdefault(config.spec, []).append(name)
        around = surroundings(self.client, told, owners.keys())
        return {name: self._unit(spec, names, told, around) for spec, names in owners.items() for name in names}

    def _told(self) -> _Told:
        known = self.memory.recall(self.address)
        programs, log, pid, *rest = self._ask((_ALL,), (_LOG, -TAIL, 0), (_OWN_PID,), *([] if known else [(_CONFIGS,)]))
        if isinstance(programs, FaultError):
            raise _shuts_down(programs)
        number = pid if isinstance(pid, int) else 0
        listed = {one.spec: one for one in read_programs(self.client, programs)}
        newest = max((one.start for one in listed.values()), default=0)
        if known is None or self.memory.recall(self.address, number, newest) is None:
            known = self._settings(number, rest or self._ask((_CONFIGS,)))
        settings = {one.spec: one for one in known}
        return _Told(listed, settings, log if isinstance(log, str) else None, number)

    def _settings(self, pid: int, told: list[Any]) -> list[Settings]:
        if isinstance(told[0], FaultError):
            return []
        settings = _understood(self.client, settings_of, told[0])
        self.memory.keep(self.address, pid, settings)
        return settings

    def _ask(self, *wanted: tuple[Any, ...]) -> list[Any]:
        return self.client.calls(*wanted, seconds=max(0.0, self.until - time.monotonic()))

    def _settled(self, told: _Told) -> _Told:
        """What just ended, asked again: by then supervisord has started it anew, given it up, or leaves it so."""
        asked = [told.programs[one.spec] for one in self.configs.values() if one.spec in told.programs]
        doubtful = [one for one in asked if _is_doubtful(one)]
        if not doubtful:
            return told
        log, *again = self._ask((_LOG, -TAIL, 0), *((_INFO, one.spec) for one in doubtful))
        newer = read_programs(self.client, [one for one in again if not isinstance(one, FaultError)])
        told.programs.update({one.spec: one for one in newer})
        told.log = log if isinstance(log, str) else None
        return told

    def _unit(self, spec: str, names: Sequence[str], told: _Told, around: Surroundings) -> Found:
        config, program = self.configs[names[0]], told.programs.get(spec)
        if program is None:
            return no_such_program(config, told.programs.values())
        if len(names) > 1:
            return EngineError(f"{' and '.join(names)} both mean program {config.program}; give each bot its own.")
        return (unit_of(program, told.settings.get(spec), around, told.own.get(spec), config.stop_grace),)


def read_programs(client: Client, raw: Any) -> list[Program]:
    """Raises EngineError for an answer that is none about programs."""
    return _understood(client, programs_of, raw)


_Facts = TypeVar("_Facts")


def _understood(client: Client, read: Callable[[Any], _Facts], raw: Any) -> _Facts:
    try:
        return read(raw)
    except ValueError as error:
        raise EngineError(f"What answers at {client.address} is not supervisord: its answer is another's.") from error


def _is_doubtful(program: Program) -> bool:
    just_ended = program.state is State.EXITED and program.now - program.stop <= RECENT
    return just_ended or program.state is State.BACKOFF


def _shuts_down(fault: FaultError) -> EngineError:
    if fault.code == _SHUTS_DOWN:
        return EngineError("supervisord is just shutting down, or starting itself anew.")
    return fault


def no_such_program(config: Config, known: Iterable[Program]) -> NoSuchUnitError:
    """Names the closest."""
    import difflib

    written = names(known)
    near = difflib.get_close_matches(config.program, written, n=1)
    shown = ", ".join(clean(one, 80) for one in written[:20])
    more = f" and {len(written) - 20} more" if len(written) > 20 else ""
    mean = f"did you mean {clean(near[0], 80)}? " if near else ""
    has = f"It has {shown}{more}." if written else "It has none."
    return NoSuchUnitError(f"supervisord at {config.server} has no program {config.program}: {mean}{has}")


# ---------------------------------------------------------------------------------------------------- surroundings


@dataclass
class _Told:
    """What one server said, and which of its programs' processes were found on this machine."""

    programs: dict[str, Program]
    settings: Mapping[str, Settings]
    log: str | None
    pid: int
    own: dict[str, Own] = field(default_factory=dict)


def surroundings(client: Client, told: _Told, specs: Set[str]) -> Surroundings:
    """What is the same for all programs; fills `told.own` for those in `specs`."""
    place = client.address.place
    is_here = place.is_loopback and _find_processes(told, specs)
    everybody = [one.name for one in told.programs.values()]
    commands = [command_key(one) for one in told.settings.values()]
    boot = boot_id()
    return Surroundings(
        place=place,
        boot=boot,
        server=_server(told.pid, boot) if place.is_loopback else "",
        is_here=is_here,
        is_trusted=client.peer in (0, os.geteuid()),
        url=_usual_url(told) or str(place),
        folder=_folder(told.pid) if is_here else "",
        history=_history(told),
        shared=_repeated(everybody),
        repeated=_repeated(commands),
        is_logging=told.log is not None,
    )


_Key = TypeVar("_Key", bound=Hashable)


def _repeated(many: Sequence[_Key]) -> frozenset[_Key]:
    return frozenset(key for key, count in Counter(many).items() if count > 1)


def _history(told: _Told) -> History:
    starts = ((one.name, one.pid, one.start) for one in told.programs.values() if one.pid)
    return read_history(told.log or "", starts)


def _find_processes(told: _Told, specs: Set[str]) -> bool:
    """Fill `told.own`; False: what this supervisord calls its processes are none of this machine."""
    living = [one for one in told.programs.values() if one.pid]
    own = [one for one in living if one.spec in specs]
    for program in own or living[:OTHERS]:
        given = environment_of(program.pid)
        if _is_it(given, program):
            told.own[program.spec] = Own(program.pid, given.get(URL, ""))
    return bool(told.own) or not living


def _usual_url(told: _Told) -> str:
    """What programs without a serverurl of their own were given."""
    special = {one.spec for one in told.settings.values() if one.serverurl}
    return next((one.url for spec, one in told.own.items() if one.url and spec not in special), "")


def _is_it(given: Mapping[str, str], program: Program) -> bool:
    """Whether a process is the program's: by the name that supervisord gave it, or by its parent and its start.

    The pid may be one of another machine, of a container, of whoever listens there in supervisord's place.
    """
    if _NAME in given:
        return given[_NAME] == program.name and given.get("SUPERVISOR_GROUP_NAME") == program.group
    proc = read_proc(program.pid)
    parent = read_proc(proc.ppid) if proc is not None else None
    if proc is None or parent is None or proc.dead:
        return False
    return is_supervisord(parent) and _began_in(proc, program.start)


def is_supervisord(proc: Proc) -> bool:
    """By its command line."""
    program = read_program(proc.argv)
    return program is not None and program.base.rpartition(".")[2] == "supervisord"


def _began_in(proc: Proc, second: int) -> bool:
    began = ProcessTable({}).started_at(proc)
    return abs(began - datetime.fromtimestamp(second, UTC)) <= MATCHES


def _server(pid: int, boot: str) -> str:
    """Names the supervisord that answered, if it is one of this machine's processes: it may listen at two addresses."""
    proc = read_proc(pid) if pid else None
    return process_key(proc, boot) if proc is not None and is_supervisord(proc) else ""


def _folder(pid: int) -> str:
    """Where supervisord works; empty if that cannot be seen."""
    proc = read_proc(pid) if pid else None
    if proc is None or not is_supervisord(proc):
        return ""
    with suppress(PermissionError):
        return working_folder(pid) or ""
    return ""


# ---------------------------------------------------------------------------------------------------- start


def start(config: Config, seconds: float) -> None:
    """Start the program; a FATAL one begins anew. Raises FailedToStartError with supervisord's reason; EngineError."""
    client, until = Client(address_of(config)), time.monotonic() + seconds
    try:
        client.call(_START, config.spec, False, seconds=seconds)
    except FaultError as fault:
        _why_not_started(client, config, fault, until)


def _why_not_started(client: Client, config: Config, fault: FaultError, until: float) -> None:
    """Raises what it comes to; nothing where it was started after all, and how it went is seen by looking."""
    left = max(0.0, until - time.monotonic())
    if fault.code == _ALREADY_STARTED:
        return
    if fault.code == _BAD_NAME:
        raise no_such_program(config, read_programs(client, client.call(_ALL, seconds=left))) from fault
    if fault.code in (_NO_FILE, _NOT_EXECUTABLE):
        raise _failed(fault, fault.said.partition(": ")[2]) from fault
    if fault.code == _SPAWN_ERROR:
        program = _info(client, config.spec, left)
        if not program.spawnerr or program.stop >= program.start:
            return
        raise _failed(fault, program.spawnerr) from fault
    raise _shuts_down(fault) from fault


def _failed(fault: FaultError, why: str) -> FailedToStartError:
    now = datetime.now(UTC)
    ended = Exit(key=f"not-started/{now.timestamp():.3f}", at=now, failed_to_start=why_not(why))
    return FailedToStartError(str(fault), ended)


# ---------------------------------------------------------------------------------------------------- stop


def stop(config: Config, unit: Unit, grace: float, seconds: float) -> None:
    """supervisord asks it to end and kills it after its own stopwaitsecs, or after `grace` seconds if that is earlier.

    Returns when it has ended, or when the time is over. Raises EngineError.
    """
    client, until = Client(address_of(config)), time.monotonic() + seconds
    kill_at = time.monotonic() + grace
    if not _told_to_stop(client, unit.id, until):
        return
    while True:
        state = _state(client, unit.id, until)
        now = time.monotonic()
        if state in _OVER or now >= until:
            return
        if now >= kill_at:
            kill_at = until
            _send(client, unit.id, signal.SIGKILL, until)
        time.sleep(min(POLL_SECONDS, max(0.0, until - now)))


def _told_to_stop(client: Client, spec: str, until: float) -> bool:
    """False: it does not run. A program that was frozen by a signal is woken: it hears no other one before."""
    while True:
        try:
            client.call(_STOP, spec, False, seconds=_left(until))
        except FaultError as fault:
            if fault.code == _BAD_NAME:
                return False
            state = _state(client, spec, until)
            if state is State.UNKNOWN:
                raise _out_of_hand(spec) from fault
            if fault.code != _NOT_RUNNING:
                raise
            if state in _OVER or state is State.STOPPING:
                return state is State.STOPPING
            continue  # it had ended, and was started anew
        _send(client, spec, signal.SIGCONT, until)
        return True


def _out_of_hand(spec: str) -> EngineError:
    """supervisord 4.3 fails over the end of such a process, and leaves all its other programs without a keeper."""
    return EngineError(
        f"supervisord could not stop {spec.partition(':')[2]} and calls it UNKNOWN since. If its process is ended now, "
        "supervisord itself ends (4.3 does), and its other programs run on without it: a person has to restart "
        "supervisord."
    )


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _send(client: Client, spec: str, number: signal.Signals, until: float) -> None:
    with suppress(FaultError):  # it has ended meanwhile
        client.call(_SIGNAL, spec, number.name.removeprefix("SIG"), seconds=_left(until))


def _state(client: Client, spec: str, until: float) -> State:
    return _info(client, spec, _left(until)).state


def _info(client: Client, spec: str, seconds: float) -> Program:
    (program,) = read_programs(client, [client.call(_INFO, spec, seconds=seconds)])
    return program
